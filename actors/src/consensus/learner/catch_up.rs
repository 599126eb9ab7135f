//! Catching up: handing out what was chosen, and asking for it.

use synod_runtime::identity::NodeId;

use super::{Chosen, Durable, ENTRIES_BYTES_MAX, Learner};
use crate::{
    consensus::{
        ballot::Step,
        configuration::History,
        message::{CatchUp, Entries, LearnerMessage, ReplicaMessage, SnapshotWanted},
    },
    effects::{Effects, To},
    machine::Now,
};

impl Learner {
    /// Whether this node knows how the log began or was handed a snapshot.
    pub(super) fn is_fresh(&self) -> bool {
        self.history.newest().is_none()
    }

    pub(super) fn catch_up(&self, from: &NodeId, asked: &CatchUp, out: &mut Effects<Self>) {
        let executed = self.history.executed();
        let kept = self.log.first_key_value().map_or_else(|| executed.next(), |(step, _)| *step);
        let mut entries = Entries {
            first: asked.from,
            values: Vec::new(),
            chosen_upto: executed,
            snapshot: !self.is_fresh() && (asked.fresh || asked.from < kept),
        };
        if !entries.snapshot {
            let mut bytes = 0;
            for (_, chosen) in self.log.range(asked.from..) {
                bytes += chosen.value.bytes().len();
                entries.values.push((chosen.ballot, chosen.value.clone()));
                if bytes >= ENTRIES_BYTES_MAX {
                    break;
                }
            }
        }
        if entries.snapshot || !entries.values.is_empty() {
            out.send(To::Node(from.clone()), LearnerMessage::Entries(entries));
        }
    }

    pub(super) fn entries(
        &mut self,
        now: Now,
        from: &NodeId,
        entries: Entries,
        out: &mut Effects<Self>,
    ) {
        self.asked = None;
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
                self.learn(now, step, Chosen { ballot, value, own }, out);
            }
        }
        self.ask(now, true, out);
    }

    pub(super) fn ask(&mut self, now: Now, at_once: bool, out: &mut Effects<Self>) {
        let executed = self.history.executed();
        let fresh = self.is_fresh();
        self.ahead.retain(|_, upto| *upto > executed || fresh);
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
        let executed = history.executed();
        self.history = history;
        self.log.clear();
        self.log_bytes = 0;
        self.covered = executed;
        self.values = self.values.split_off(&executed.next());
        self.newest = None;
        self.handed = executed;
        self.durable = Durable {
            upto: executed,
            noted: executed,
            since: None,
            trimming: self.durable.trimming,
        };
        self.asked = None;
        self.news = true;
    }
}
