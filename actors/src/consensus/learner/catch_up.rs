//! Catching up: handing out what was chosen, and asking for it.

use std::time::Duration;

use synod_runtime::identity::NodeId;

use super::{Chosen, Durable, ENTRIES_BYTES_MAX, Learner};
use crate::{
    consensus::{
        ballot::{Ballot, Step},
        configuration::History,
        message::{CatchUp, Entries, LearnerMessage, ReplicaMessage, SnapshotWanted},
        value::Value,
    },
    effects::{Effects, To},
    machine::Now,
};

/// Nodes outside that are kept up to date at once; more catch up by asking.
const READERS_MAX: usize = 8;

/// How long after it asked: as long as it lives it asks again soon after.
const READS_FOR: Duration = Duration::from_secs(2);

impl Learner {
    /// Whether this node knows how the log began or was handed a snapshot.
    pub(super) fn is_fresh(&self) -> bool {
        self.history.newest().is_none()
    }

    pub(super) fn catch_up(
        &mut self,
        now: Now,
        from: &NodeId,
        asked: &CatchUp,
        out: &mut Effects<Self>,
    ) {
        let executed = self.history.executed();
        let kept = self.log.first_key_value().map_or_else(|| executed.next(), |(step, _)| *step);
        let mut entries = Entries {
            first: asked.from,
            values: Vec::new(),
            chosen_upto: executed,
            snapshot: !self.is_fresh() && (asked.fresh || asked.from < kept),
        };
        if !entries.snapshot {
            entries.values = self.log_from(asked.from);
            let next = asked.from.plus(entries.values.len() as u64);
            let outside = !self.history.current().is_some_and(|c| c.has_main(from.incarnation));
            let known = self.readers.contains_key(from);
            // Only one that has nearly all: the rest it asks for at its own pace.
            if outside && next > executed && (known || self.readers.len() < READERS_MAX) {
                self.readers.insert(from.clone(), (next, now.at + READS_FOR));
            }
        }
        if entries.snapshot && self.dropped > self.covered {
            return; // its snapshots end where it forgot the log: another has to help
        }
        sometimes!(SnapshotOffered if entries.snapshot);
        sometimes!(LogHandedOut if !entries.values.is_empty());
        if entries.snapshot || !entries.values.is_empty() {
            out.send(To::Node(from.clone()), LearnerMessage::Entries(entries));
        }
    }

    /// Chosen steps from `first` on, as many as one message holds.
    fn log_from(&self, first: Step) -> Vec<(Ballot, Value)> {
        let (mut bytes, mut values) = (0, Vec::new());
        for (number, (step, chosen)) in (first.0..).map(Step).zip(self.log.range(first..)) {
            // A hole: what was installed or is covered is not in the log. Never under another step.
            let hole = *step != number;
            #[cfg(any(test, feature = "mutations"))]
            let hole = hole && !crate::mutation::on(crate::mutation::Mutation::HandsOnOverGap);
            if hole {
                break;
            }
            bytes += chosen.value.bytes().len();
            values.push((chosen.ballot, chosen.value.clone()));
            if bytes >= ENTRIES_BYTES_MAX {
                break;
            }
        }
        values
    }

    /// Hands what was learned to those outside that catch up: a busy log would otherwise always be
    /// ahead of them, and nobody who is behind is let in.
    pub(super) fn read_out(&mut self, now: Now, out: &mut Effects<Self>) {
        let executed = self.history.executed();
        self.readers.retain(|_, (_, until)| now.at < *until);
        let due: Vec<(NodeId, Step)> = self
            .readers
            .iter()
            .filter(|(_, (next, _))| *next <= executed)
            .map(|(reader, (next, _))| (reader.clone(), *next))
            .collect();
        for (reader, first) in due {
            let values = self.log_from(first);
            if values.is_empty() {
                self.readers.remove(&reader); // it asks, and gets a snapshot
                continue;
            }
            let Some((next, _)) = self.readers.get_mut(&reader) else { continue };
            *next = first.plus(values.len() as u64);
            let entries = Entries { first, values, chosen_upto: executed, snapshot: false };
            out.send(To::Node(reader), LearnerMessage::Entries(entries));
        }
    }

    pub(super) fn entries(
        &mut self,
        now: Now,
        from: &NodeId,
        entries: Entries,
        out: &mut Effects<Self>,
    ) {
        (self.asked, self.asked_of) = (None, None);
        self.ahead.insert(from.clone(), entries.chosen_upto);
        if entries.snapshot {
            self.asked = Some(now.at + 10 * self.timing.catch_up);
            let (peer, chosen_upto) = (from.clone(), entries.chosen_upto);
            let known = self.history.executed();
            let wanted = SnapshotWanted { peer, chosen_upto, known };
            out.here(ReplicaMessage::SnapshotWanted(wanted));
            return;
        }
        if self.is_fresh() {
            return; // how the log began is needed first, or nobody could say who votes
        }
        for (step, (ballot, value)) in (entries.first.0..).map(Step).zip(entries.values) {
            if step == self.history.executed().next() {
                let own = self.has_vote(ballot, self.me.incarnation, step);
                sometimes!(LearnedWithoutVote if !own);
                self.learn(now, step, Chosen { ballot, value, own, alone: false });
            }
        }
        self.ask(now, true, out);
    }

    pub(super) fn ask(&mut self, now: Now, at_once: bool, out: &mut Effects<Self>) {
        let executed = self.history.executed();
        let fresh = self.is_fresh();
        self.ahead.retain(|_, upto| *upto > executed || fresh);
        // Who did not answer may be gone, and another can help: who is there soon says so again.
        if self.asked.is_some_and(|when| now.at >= when)
            && let Some(silent) = self.asked_of.take()
        {
            self.ahead.remove(&silent);
        }
        let Some((peer, _)) = self.ahead.iter().max_by_key(|(_, upto)| **upto) else {
            self.asked = None;
            return;
        };
        match self.asked {
            None if !at_once => self.asked = Some(now.at + self.timing.catch_up),
            Some(when) if now.at < when => {}
            Some(_) | None => {
                self.asked = Some(now.at + self.timing.catch_up);
                let wanted = CatchUp { from: executed.next(), fresh };
                out.send(To::Node(peer.clone()), LearnerMessage::CatchUp(wanted));
                self.asked_of = Some(peer.clone());
            }
        }
    }

    pub(super) fn want_snapshot(&self, out: &mut Effects<Self>) {
        let known = self.history.executed();
        let ahead = self.ahead.iter().max_by_key(|(_, upto)| **upto);
        let ahead = ahead.map(|(peer, upto)| (peer.clone(), *upto));
        // With nobody ahead it is only the replica here that lags: whoever else has the state.
        let wanted = ahead.or_else(|| {
            let other = self.history.current()?.other_mains(self.me.incarnation).next()?;
            Some((other.clone(), known))
        });
        if let Some((peer, chosen_upto)) = wanted {
            let wanted = SnapshotWanted { peer, chosen_upto, known };
            out.here(ReplicaMessage::SnapshotWanted(wanted));
        }
    }

    pub(super) fn installed(&mut self, history: History) {
        if history.executed() <= self.history.executed() && !self.is_fresh() {
            return;
        }
        #[cfg(any(test, feature = "mutations"))]
        let history = if crate::mutation::on(crate::mutation::Mutation::SnapshotKeepsConfiguration)
        {
            self.history.at_step(history.executed())
        } else {
            history
        };
        sometimes!(SnapshotInstalled);
        let executed = history.executed();
        self.history = history;
        self.log.clear();
        self.log_bytes = 0;
        self.covered = executed;
        self.values = self.values.split_off(&executed.next());
        self.newest = None;
        self.handed = executed;
        self.durable = Durable::at(executed);
        self.asked = None;
        self.news = true;
    }
}
