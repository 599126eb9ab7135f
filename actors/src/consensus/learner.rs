//! The learner: counts votes, and hands chosen steps to the replica in order.
//!
//! It learns that a value is chosen at a step when the votes it has seen for one ballot form a
//! quorum of a configuration *it knows* (I2), strictly in step order. It keeps the recent part of
//! the log for nodes that catch up, and notes in the journal how far the log is chosen, lazily:
//! that knowledge can be had again, the votes cannot.

mod catch_up;
mod memory;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use synod_runtime::{
    identity::{Incarnation, NodeId},
    world::Instant,
};

use self::memory::{Durable, Known};
use super::{
    acceptor::{FORGET_AGAIN, FORGET_BYTES_MAX, FORGET_STEPS_MAX},
    ballot::{Ballot, Run, Runs, Step},
    configuration::History,
    message::{
        Accepted, AcceptorMessage, Acked, Ahead, Execute, Installed, Learned, LearnerMessage, Mark,
        Message, Progress, Proposed, ProposerMessage, ReplicaMessage, Report, Voted,
    },
    record::{Image, Record},
    timing::Timing,
    value::{Decoded, Value},
};
use crate::{
    effects::Effects,
    machine::{Machine, Now, Survived},
};

/// What the journal says of the steps behind the newest snapshot.
pub(crate) struct Remembered {
    /// The values of the next steps, known to be chosen.
    pub(crate) chosen: Vec<Value>,
    /// Votes behind them, by step: their values may have been chosen too.
    pub(crate) votes: Vec<(Step, Value)>,
}

/// What survived of the log, for a forced recovery.
pub(crate) fn known(survived: &Survived<Record, Image>) -> Remembered {
    let known = Known::of(survived);
    let chosen = known.chosen.into_iter().map(|(_, chosen)| chosen.value).collect();
    let votes = known.votes.into_iter().map(|vote| (vote.step, vote.value)).collect();
    Remembered { chosen, votes }
}

/// How much of the log is kept in memory for others, beyond what a snapshot covers: a main that
/// was away for seconds catches up from here without a snapshot.
const LOG_BYTES_KEPT: usize = 32 * 1024 * 1024;

/// As long as the disk is full no snapshot can cover the log, and it is kept in memory up to this size:
/// to be written when there is room soon. What is forgotten beyond that only a snapshot makes up for.
const LOG_BYTES_FULL_MAX: usize = 2 * LOG_BYTES_KEPT;

/// One answer to a node that catches up; it asks again for more.
const ENTRIES_BYTES_MAX: usize = 1024 * 1024;

/// See the module's documentation.
#[derive(Debug)]
pub struct Learner {
    me: NodeId,
    timing: Timing,
    history: History,
    /// Chosen values from the oldest kept step to the last executed one.
    log: BTreeMap<Step, Chosen>,
    log_bytes: usize,
    /// Up to here the log was forgotten though no snapshot covers it.
    dropped: Step,
    /// This node's disk takes neither notes nor snapshots.
    full: bool,
    /// Covered by a snapshot of this node.
    covered: Step,
    /// Values proposed for steps not yet known to be chosen.
    values: BTreeMap<Step, BTreeMap<Ballot, Value>>,
    /// Who voted for which steps.
    votes: BTreeMap<Ballot, BTreeMap<Incarnation, Runs>>,
    /// Steps a leader knows to be chosen in its ballot.
    told: BTreeMap<Ballot, Runs>,
    /// The newest run of steps chosen in one ballot.
    newest: Option<(Ballot, Run)>,
    /// Handed to the replica.
    handed: Step,
    durable: Durable,
    ahead: BTreeMap<NodeId, Step>,
    /// Nodes outside that catch up: they get what is learned as it is learned, from this step on,
    /// until then.
    readers: BTreeMap<NodeId, (Step, Instant)>,
    /// When to go on forgetting what is covered.
    tidy_at: Option<Instant>,
    asked: Option<Instant>,
    /// Who was asked, and has not answered.
    asked_of: Option<NodeId>,
    /// The history changed since the other roles were told.
    news: bool,
}

#[derive(Debug, Clone)]
struct Chosen {
    ballot: Ballot,
    value: Value,
    /// This node's own durable vote says the same.
    own: bool,
    /// No other main was seen to vote for it: none may answer clients in this one's place.
    alone: bool,
}

impl Learner {
    /// The learner of node `me`, knowing nothing.
    pub fn new(me: NodeId) -> Self {
        Self {
            me,
            timing: Timing::default(),
            history: History::default(),
            log: BTreeMap::new(),
            log_bytes: 0,
            dropped: Step(0),
            full: false,
            covered: Step(0),
            values: BTreeMap::new(),
            votes: BTreeMap::new(),
            told: BTreeMap::new(),
            newest: None,
            handed: Step(0),
            durable: Durable::default(),
            ahead: BTreeMap::new(),
            readers: BTreeMap::new(),
            tidy_at: None,
            asked: None,
            asked_of: None,
            news: true,
        }
    }

    /// As patient as `timing` says.
    #[must_use]
    pub const fn patient(mut self, timing: Timing) -> Self {
        self.timing = timing;
        self
    }

    /// What was executed and who votes.
    pub fn history(&self) -> &History {
        &self.history
    }

    /// The chosen value of a step, if it is still kept.
    pub fn chosen(&self, step: Step) -> Option<&Value> {
        self.log.get(&step).map(|chosen| &chosen.value)
    }

    fn counts(&mut self, ballot: Ballot, voter: Incarnation, run: Run) {
        if run.last > self.history.executed() {
            self.votes.entry(ballot).or_default().entry(voter).or_default().add(run);
        }
    }

    fn voted(&mut self, voted: Voted, out: &mut Effects<Self>) {
        let Some(last) = super::acceptor::last_of(voted.first, voted.values.len()) else { return };
        let run = Run { first: voted.first, last };
        self.counts(voted.ballot, self.me.incarnation, run);
        self.proposed(voted.ballot, voted.first, voted.values);
        self.acked(self.me.clone(), voted.ballot, run, out);
    }

    fn proposed(&mut self, ballot: Ballot, first: Step, values: Vec<Value>) {
        for (step, value) in (first.0..).map(Step).zip(values) {
            if step > self.history.executed() {
                self.values.entry(step).or_default().insert(ballot, value);
            }
        }
    }

    fn accepted(&mut self, from: &NodeId, accepted: &Accepted, out: &mut Effects<Self>) {
        self.counts(accepted.ballot, from.incarnation, accepted.run);
        self.acked(from.clone(), accepted.ballot, accepted.run, out);
    }

    fn acked(&self, voter: NodeId, ballot: Ballot, run: Run, out: &mut Effects<Self>) {
        if ballot.node == self.me.incarnation {
            out.here(ProposerMessage::Acked(Acked { voter, ballot, run }));
        }
    }

    fn mark(&mut self, mark: &Mark) {
        if let Some(run) = mark.voted {
            self.counts(mark.ballot, mark.ballot.node, run);
        }
        if let Some(run) = mark.chosen
            && run.last > self.history.executed()
        {
            self.told.entry(mark.ballot).or_default().add(run);
        }
    }

    /// Learns as many steps as the votes allow, in order.
    fn advance(&mut self, now: Now) {
        loop {
            let step = self.history.executed().next();
            let Some((ballot, value)) = self.decided(step) else { return };
            let own = self.has_vote(ballot, self.me.incarnation, step);
            let alone = !self.history.at(step).is_some_and(|configuration| {
                let mut others = configuration.other_mains(self.me.incarnation);
                others.any(|main| self.has_vote(ballot, main.incarnation, step))
            });
            self.learn(now, step, Chosen { ballot, value, own, alone });
        }
    }

    fn has_vote(&self, ballot: Ballot, voter: Incarnation, step: Step) -> bool {
        let voters = self.votes.get(&ballot);
        voters.and_then(|voters| voters.get(&voter)).is_some_and(|runs| runs.holds(step))
    }

    fn decided(&self, step: Step) -> Option<(Ballot, Value)> {
        let configuration = self.history.at(step)?;
        self.values.get(&step)?.iter().find_map(|(ballot, value)| {
            // A leader's word holds for its own ballot: one value per ballot and step (I4).
            let told = self.told.get(ballot).is_some_and(|runs| runs.holds(step));
            #[cfg(any(test, feature = "mutations"))]
            let told = told
                || crate::mutation::on(crate::mutation::Mutation::WordForAnyBallot)
                    && self.told.values().any(|runs| runs.holds(step));
            let decided = told || {
                let voters = self.votes.get(ballot)?;
                let seen: BTreeSet<Incarnation> = voters
                    .iter()
                    .filter(|(_, runs)| runs.holds(step))
                    .map(|(voter, _)| *voter)
                    .collect();
                configuration.is_quorum(&seen)
            };
            sometimes!(LearnedByWord if told);
            sometimes!(LearnedByVotes if decided && !told);
            decided.then(|| (*ballot, value.clone()))
        })
    }

    fn learn(&mut self, now: Now, step: Step, chosen: Chosen) {
        let change = match chosen.value.is_configuration().then(|| chosen.value.decode()) {
            Some(Ok(Decoded::Configuration(configuration))) => Some(configuration),
            Some(_) | None => None,
        };
        self.history.execute(step, change);
        self.history.forget_before(step);
        self.newest = match self.newest {
            Some((ballot, run)) if ballot == chosen.ballot && run.last.next() == step => {
                Some((ballot, Run { first: run.first, last: step }))
            }
            Some(_) | None => Some((chosen.ballot, Run { first: step, last: step })),
        };
        self.durable.learned(now, &chosen);
        self.log_bytes += chosen.value.bytes().len();
        self.log.insert(step, chosen);
        self.values.remove(&step);
        self.news = true;
    }

    fn hand_over(&mut self, out: &mut Effects<Self>) {
        let executed = self.history.executed();
        while self.handed < executed {
            let first = self.handed.next();
            let Some(chosen) = self.log.get(&first) else {
                // The replica wants what is no longer here.
                return self.want_snapshot(out);
            };
            let (led, alone) = (chosen.ballot.node, chosen.alone);
            let values: Vec<Value> = self
                .log
                .range(first..)
                .take_while(|(_, chosen)| (chosen.ballot.node, chosen.alone) == (led, alone))
                .map(|(_, chosen)| chosen.value.clone())
                .collect();
            self.handed = Step(self.handed.0 + values.len() as u64);
            let sole = self.history.current().is_some_and(|c| c.mains.len() == 1);
            let answer_others = led != self.me.incarnation || alone || sole;
            out.here(ReplicaMessage::Execute(Execute { first, values, answer_others }));
        }
    }

    /// Forgets what is chosen and covered, once more than enough is kept for others; and what is not
    /// covered, once a full disk has kept too much of it in memory.
    fn tidy(&mut self, now: Now) {
        let executed = self.history.executed();
        let (mut steps, mut bytes) = (0, 0);
        while self.log_bytes > LOG_BYTES_KEPT
            && let Some(entry) = self.log.first_entry()
            && *entry.key() <= self.handed
        {
            let step = *entry.key();
            let too_much = self.full && self.log_bytes > LOG_BYTES_FULL_MAX;
            // The rest another time: a turn that frees gigabytes lets every client wait.
            let later = steps >= FORGET_STEPS_MAX || bytes >= FORGET_BYTES_MAX;
            if later || step > self.covered && !too_much {
                break;
            }
            if step > self.covered {
                self.dropped = step;
            }
            let len = entry.remove().value.bytes().len();
            self.log_bytes -= len;
            (steps, bytes) = (steps + 1, bytes + len);
        }
        let full = steps >= FORGET_STEPS_MAX || bytes >= FORGET_BYTES_MAX;
        self.tidy_at = full.then(|| now.at + FORGET_AGAIN);
        if self.votes.len() > 2 || self.told.len() > 2 || executed.0.is_multiple_of(16) {
            let newest = self.votes.keys().next_back().copied();
            self.votes.retain(|ballot, voters| {
                voters.retain(|_, runs| !runs.forget(executed));
                !voters.is_empty() || Some(*ballot) == newest
            });
            self.told.retain(|_, runs| !runs.forget(executed));
        }
    }

    fn tell(&mut self, out: &mut Effects<Self>) {
        if !std::mem::take(&mut self.news) {
            return;
        }
        let history = self.history.clone();
        let durable_upto = self.durable.upto;
        let others = history.current().map_or_else(Vec::new, |configuration| {
            configuration.other_mains(self.me.incarnation).cloned().collect()
        });
        let chosen_upto = history.executed();
        out.here(AcceptorMessage::Learned(Learned { chosen_upto, others }));
        let report = Report::Learner { history: history.clone(), durable_upto };
        out.here(Message::Report(report));
        let progress = Progress { history, chosen: self.newest, durable_upto };
        out.here(ProposerMessage::Progress(progress));
    }
}

impl Machine for Learner {
    type Message = LearnerMessage;
    type Envelope = Message;
    type Record = Record;
    type Snapshot = Image;

    fn start(&mut self, now: Now, survived: &Survived<Record, Image>, _out: &mut Effects<Self>) {
        let known = Known::of(survived);
        self.history = known.history;
        self.covered = self.history.executed();
        self.handed = self.covered;
        for (step, chosen) in known.chosen {
            self.learn(now, step, chosen);
        }
        #[cfg(any(test, feature = "mutations"))]
        if crate::mutation::on(crate::mutation::Mutation::AssumeInitial) {
            self.history.forget_changes();
        }
        self.durable = Durable::at(self.history.executed());
        for vote in known.votes {
            let run = Run { first: vote.step, last: vote.step };
            self.counts(vote.ballot, self.me.incarnation, run);
            self.values.entry(vote.step).or_default().insert(vote.ballot, vote.value);
        }
    }

    fn room(&mut self, full: bool) {
        self.full = full;
    }

    fn message(
        &mut self,
        now: Now,
        from: &NodeId,
        message: LearnerMessage,
        out: &mut Effects<Self>,
    ) {
        match message {
            LearnerMessage::Voted(voted) => self.voted(voted, out),
            LearnerMessage::Proposed(Proposed { ballot, first, values }) => {
                // Who is farther behind is told what was chosen; others do not wait for this node.
                if self.history.at(first).is_some() {
                    self.proposed(ballot, first, values);
                }
            }
            LearnerMessage::Accepted(accepted) => self.accepted(from, &accepted, out),
            LearnerMessage::Mark(mark) => self.mark(&mark),
            LearnerMessage::CatchUp(asked) => self.catch_up(now, from, &asked, out),
            LearnerMessage::Entries(entries) => self.entries(now, from, entries, out),
            LearnerMessage::Ahead(Ahead { peer, chosen_upto }) => {
                if chosen_upto > self.history.executed() || self.is_fresh() {
                    self.ahead.insert(peer, chosen_upto);
                }
            }
            LearnerMessage::Resend(wanted) => {
                self.handed = Step(wanted.from.0.saturating_sub(1)).min(self.handed);
            }
            LearnerMessage::Installed(Installed { history }) => self.installed(history),
            LearnerMessage::TrimLog(covered) => self.trim(covered.upto, out),
            LearnerMessage::Settled(settled) => {
                self.durable.settled(now, &settled);
                self.news = true;
            }
            LearnerMessage::TellAgain(_) => self.news = true,
        }
    }

    fn flush(&mut self, now: Now, out: &mut Effects<Self>) {
        self.advance(now);
        self.hand_over(out);
        self.read_out(now, out);
        self.tell(out);
        self.note(now, out);
        // Nobody sends votes to a node that is not among the mains.
        let outside = self.history.current().is_none_or(|c| !c.has_main(self.me.incarnation));
        self.ask(now, outside, out);
        self.tidy(now);
    }

    fn timeout(&mut self, _now: Now, _out: &mut Effects<Self>) {
        // Everything due is looked at in `flush`, which follows.
    }

    fn deadline(&self) -> Option<Instant> {
        [self.durable.due(), self.asked, self.tidy_at].into_iter().flatten().min()
    }
}
