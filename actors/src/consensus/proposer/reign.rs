//! Leading: promises, and everything a leader keeps in mind while its ballot lasts.
//!
//! Phase 1 is done once for all steps. The reign is *established* when the nodes that promised
//! form a quorum of the next step's configuration; a later configuration needs its own promises
//! before its first step is proposed (rule L5), which [`Proposer::may_propose`] checks for every
//! step.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use synod_runtime::{
    identity::{Incarnation, NodeId},
    world::Instant,
};

use super::{
    Phase, Proposer, propose::MARK_WAIT, reads::PendingRead, succession::Handover, wishes::OpenWish,
};
use crate::{
    consensus::{
        ballot::{Ballot, Run, Step},
        configuration::Configuration,
        message::{
            AcceptorMessage, Acked, Ahead, AuxiliaryMessage, LearnerMessage, Nack, Prepare,
            Progress, Promise, ReplicaMessage, TellAgain, Vote,
        },
        timing::Timing,
        value::Value,
    },
    effects::{Effects, To},
};

/// Fine enough for every patience of [`crate::consensus::Timing`].
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// A proposed step, not yet known to be chosen.
#[derive(Debug, Clone)]
pub(super) struct Open {
    pub(super) value: Value,
    pub(super) since: Instant,
}

/// An auxiliary completes the open steps in place of a silent main.
#[derive(Debug)]
pub(super) struct Bridge {
    /// Steps up to here were sent to the auxiliaries.
    pub(super) sent: Step,
    /// What an auxiliary holds with them, in bytes.
    pub(super) bytes: usize,
}

/// One ballot of this node, from asking for promises to being deposed.
#[derive(Debug)]
pub(super) struct Reign {
    pub(super) ballot: Ballot,
    pub(super) since: Instant,
    /// Promises, with the first step each speaks of.
    pub(super) promises: BTreeMap<Incarnation, Step>,
    /// Whom a promise was asked of, and when.
    pub(super) asked: BTreeMap<Incarnation, Instant>,
    /// The highest vote reported for each step.
    pub(super) reported: BTreeMap<Step, Vote>,
    pub(super) established: bool,
    /// The first step this ballot proposed.
    pub(super) first: Step,
    /// The next step to propose.
    pub(super) next: Step,
    /// The empty step that shows the reign works was proposed.
    pub(super) opened: bool,
    pub(super) open: BTreeMap<Step, Open>,
    /// Commands in the last step: the next one waits for as many (Nagle's rule).
    pub(super) last_commands: usize,
    /// This node's own durable votes of this ballot: without a gap from here…
    pub(super) voted_from: Step,
    /// …to here.
    pub(super) voted: Step,
    /// …and the other mains were told so up to here.
    pub(super) marked: Step,
    /// Since when a vote waits to be told.
    pub(super) mark_since: Option<Instant>,
    /// Steps chosen in this ballot, as far as the learner told.
    pub(super) chosen: Option<Run>,
    /// …and the other mains were told so up to here.
    pub(super) worded: Step,
    /// A client or read elsewhere waits for the steps up to here.
    pub(super) awaited: Step,
    /// Commands of other homes are in the queue.
    pub(super) remote_waits: bool,
    /// Each member acknowledged every open step up to here, and when that last moved.
    pub(super) acks: BTreeMap<Incarnation, (Step, Instant)>,
    /// Since when each silent main is silent.
    pub(super) silent: BTreeMap<Incarnation, Instant>,
    /// When each member was last sent the open steps again.
    pub(super) resent: BTreeMap<Incarnation, Instant>,
    /// Steps up to here went out to the other mains (behind `next` only when piggy-backing).
    pub(super) sent: Step,
    pub(super) bridge: Option<Bridge>,
    /// A configuration to propose when the pipeline is empty.
    pub(super) change: Option<Configuration>,
    /// To whom leadership is handed over, if to anyone.
    pub(super) handover: Option<Handover>,
    /// What operators want.
    pub(super) wishes: Vec<OpenWish>,
    /// Mains that an auxiliary could not reach either, and when it said so.
    pub(super) unreachable: BTreeMap<Incarnation, Instant>,
    pub(super) reach_asked: Instant,
    pub(super) forget_asked: Instant,
    pub(super) reads: Vec<PendingRead>,
    pub(super) read_round: u64,
}

impl Reign {
    fn new(ballot: Ballot, now: Instant, next: Step) -> Self {
        Self {
            ballot,
            since: now,
            promises: BTreeMap::new(),
            asked: BTreeMap::new(),
            reported: BTreeMap::new(),
            established: false,
            first: next,
            next,
            opened: false,
            open: BTreeMap::new(),
            last_commands: 0,
            voted_from: next,
            voted: Step(next.0.saturating_sub(1)),
            marked: Step(next.0.saturating_sub(1)),
            mark_since: None,
            chosen: None,
            worded: Step(0),
            awaited: Step(0),
            remote_waits: false,
            acks: BTreeMap::new(),
            silent: BTreeMap::new(),
            resent: BTreeMap::new(),
            sent: Step(next.0.saturating_sub(1)),
            bridge: None,
            change: None,
            handover: None,
            wishes: Vec::new(),
            unreachable: BTreeMap::new(),
            reach_asked: Instant::default(),
            forget_asked: Instant::default(),
            reads: Vec::new(),
            read_round: 0,
        }
    }

    /// The steps in which this node's votes of this ballot are durable.
    pub(super) fn voted_run(&self) -> Option<Run> {
        #[cfg(any(test, feature = "mutations"))]
        if crate::mutation::on(crate::mutation::Mutation::ClaimBeforeDurable) {
            return Run::new(self.first, Step(self.next.0 - 1));
        }
        Run::new(self.voted_from, self.voted)
    }

    /// How far it is known to be chosen in this ballot.
    pub(super) fn word(&self) -> Step {
        self.chosen.map_or(Step(0), |run| run.last)
    }

    /// The last step that a promise reported a vote for, if it is open yet.
    pub(super) fn last_reported(&self) -> Step {
        self.reported.last_key_value().map_or(Step(0), |(step, _)| *step)
    }

    /// Whether somebody waits for a change.
    fn is_asked_for(&self) -> bool {
        self.change.is_some() || self.handover.is_some() || !self.wishes.is_empty()
    }

    /// While anything is under way, a leader looks again this soon at the latest.
    pub(super) fn deadline(&self, now: Instant) -> Option<Instant> {
        let mark = self.mark_since.map(|at| at + MARK_WAIT);
        let busy = !self.established || !self.open.is_empty() || !self.reads.is_empty();
        let look = (busy || self.is_asked_for()).then(|| now + LOOK_AGAIN);
        [mark, look].into_iter().flatten().min()
    }
}

impl Proposer {
    /// Asks for promises in a new ballot.
    pub(super) fn campaign(&mut self, round: u64, out: &mut Effects<Self>) {
        if self.mending.is_some() {
            return; // its own acceptor would not promise
        }
        let round = round.max(self.seen.round + 1);
        #[cfg(any(test, feature = "mutations"))]
        let round = if crate::mutation::on(crate::mutation::Mutation::BallotReused)
            && self.seen.node == self.me.incarnation
        {
            self.seen.round
        } else {
            round
        };
        let ballot = Ballot { round, node: self.me.incarnation };
        self.seen = ballot;
        tracing::info!(%ballot, from = %self.history.executed().next(), "asking for promises");
        out.here(ReplicaMessage::TellAgain(TellAgain)); // a tick of an earlier reign may be lost
        let next = self.history.executed().next();
        self.phase = Phase::Leading(Box::new(Reign::new(ballot, self.turn.at, next)));
        self.establish(out);
    }

    /// Whether this ballot may propose a value for `step` (rules L2 and L5).
    pub(super) fn may_propose(&self, reign: &Reign, step: Step) -> bool {
        let Some(configuration) = self.history.at(step) else { return false };
        if !configuration.has_main(self.me.incarnation) {
            return false;
        }
        #[cfg(any(test, feature = "mutations"))]
        if crate::mutation::on(crate::mutation::Mutation::NoPhaseOneForNewConfiguration)
            && reign.established
        {
            return true;
        }
        // Its own acceptor's disk knows the ballot: no later run of this node uses it again (I4).
        let promised = reign.promises.contains_key(&self.me.incarnation);
        #[cfg(any(test, feature = "mutations"))]
        let promised =
            promised || crate::mutation::on(crate::mutation::Mutation::OwnPromiseNotAwaited);
        if !promised {
            return false;
        }
        let promised: BTreeSet<Incarnation> = reign
            .promises
            .iter()
            .filter(|(_, from)| **from <= step)
            .map(|(node, _)| *node)
            .collect();
        configuration.is_quorum(&promised)
    }

    /// Becomes the leader once the promises allow it; asks for those that are missing.
    pub(super) fn establish(&mut self, out: &mut Effects<Self>) {
        let Phase::Leading(reign) = &self.phase else { return };
        let next = self.history.executed().next().max(reign.next);
        if self.may_propose(reign, next) {
            let now = self.turn.at;
            let Phase::Leading(reign) = &mut self.phase else { return };
            if !reign.established {
                reign.established = true;
                reign.next = next;
                reign.first = next;
                (reign.voted_from, reign.voted) = (next, Step(next.0 - 1));
                reign.marked = reign.voted;
                reign.sent = Step(next.0 - 1);
                reign.since = now;
                self.alive = now;
                self.halted = None;
                self.beat_due = now; // whoever waits for a leader learns of it at once
                let Phase::Leading(reign) = &self.phase else { return };
                tracing::info!(ballot = %reign.ballot, %next, "leading");
            }
            return;
        }
        let gone = self.configuration().is_none_or(|c| !c.has_main(self.me.incarnation));
        let late = self.turn.at >= reign.since + self.timing.give_up && !reign.established;
        if gone || late {
            sometimes!(ReignGivenUp if late);
            return self.step_down(out);
        }
        sometimes!(NewConfigurationAsked if reign.established);
        self.ask_promises(next, out);
    }

    /// Asks every member of the configuration of `step` whose promise is missing; auxiliaries only
    /// while a main is silent (or slow to promise).
    fn ask_promises(&mut self, step: Step, out: &mut Effects<Self>) {
        let Some(configuration) = self.history.at(step).cloned() else { return };
        let now = self.turn.at;
        let silent = configuration
            .other_mains(self.me.incarnation)
            .any(|main| !self.heard_within(main, self.timing.stickiness));
        let from = self.history.executed().next();
        let Timing { resend, promises, .. } = self.timing;
        let Phase::Leading(reign) = &mut self.phase else { return };
        let asked = Prepare { ballot: reign.ballot, from };
        let slow = now >= reign.since + promises;
        let mut due = |node: &NodeId| {
            let missing = reign.promises.get(&node.incarnation).is_none_or(|from| *from > step);
            let again = reign.asked.get(&node.incarnation).is_none_or(|at| now >= *at + resend);
            if missing && again {
                reign.asked.insert(node.incarnation, now);
            }
            missing && again
        };
        for main in configuration.mains.iter().filter(|main| due(main)) {
            let to = if *main == self.me { To::Here } else { To::Node(main.clone()) };
            out.send(to, AcceptorMessage::Prepare(asked.clone()));
        }
        if silent || slow {
            for auxiliary in configuration.auxiliaries.iter().filter(|node| due(node)) {
                let prepare = AuxiliaryMessage::Prepare(asked.clone());
                out.send(To::Node(auxiliary.clone()), prepare);
            }
        }
    }

    /// Counts a promise.
    pub(super) fn promise(&mut self, from: &NodeId, promise: Promise, out: &mut Effects<Self>) {
        if promise.chosen_upto > self.history.executed() {
            let ahead = Ahead { peer: from.clone(), chosen_upto: promise.chosen_upto };
            out.here(LearnerMessage::Ahead(ahead));
        }
        if self.mending_promise(from, &promise) {
            return;
        }
        let Phase::Leading(reign) = &self.phase else { return };
        if promise.ballot != reign.ballot {
            return;
        }
        // Where a quorum promised before, its reports bind and nobody else's do; and what this
        // ballot proposed is settled already (I4: one value per ballot and step).
        let binding: Vec<Vote> = promise
            .votes
            .into_iter()
            .filter(|vote| vote.step >= reign.next && !self.may_propose(reign, vote.step))
            .collect();
        let Phase::Leading(reign) = &mut self.phase else { return };
        let known = reign.promises.entry(from.incarnation).or_insert(promise.from);
        *known = promise.from.min(*known);
        for vote in binding {
            let best = reign.reported.get(&vote.step);
            let higher = best.is_none_or(|best| vote.ballot > best.ballot);
            #[cfg(any(test, feature = "mutations"))]
            let higher = if crate::mutation::on(crate::mutation::Mutation::LowestVoteWins) {
                best.is_none_or(|best| vote.ballot < best.ballot)
            } else {
                higher
            };
            if higher {
                reign.reported.insert(vote.step, vote);
            }
        }
        self.raise_reads();
    }

    /// Somebody was promised a higher ballot (rule L6).
    pub(super) fn nack(&mut self, nack: &Nack, out: &mut Effects<Self>) {
        self.seen = self.seen.max(nack.promised);
        self.mending_refused(nack);
        if let Phase::Leading(reign) = &self.phase
            && nack.ballot == reign.ballot
            && nack.promised > reign.ballot
        {
            sometimes!(RefusedLeaderFollows);
            self.step_down(out);
        }
    }

    /// Notes durable votes of this ballot.
    pub(super) fn acked(&mut self, acked: &Acked) {
        let now = self.turn.at;
        self.hear(&acked.voter);
        let me = self.me.incarnation;
        let Phase::Leading(reign) = &mut self.phase else { return };
        if acked.ballot != reign.ballot {
            return;
        }
        // Cumulative only without a gap: the message before may have been lost. Of what was executed
        // no vote is missing any more.
        let executed = self.history.executed();
        let begins = |reached: Step| acked.run.first <= reached.max(executed).next();
        if acked.voter.incarnation == me && begins(reign.voted) {
            let gap = acked.run.first > reign.voted.next();
            #[cfg(any(test, feature = "mutations"))]
            let gap = gap && !crate::mutation::on(crate::mutation::Mutation::ClaimOverGap);
            if gap {
                sometimes!(VotesBehindGap);
                // Only what was really voted is claimed: the steps between may have been chosen
                // in another ballot, for other values.
                reign.voted_from = acked.run.first;
            }
            reign.voted = reign.voted.max(acked.run.last);
        }
        let entry = reign.acks.entry(acked.voter.incarnation).or_insert((Step(0), now));
        if begins(entry.0) && acked.run.last > entry.0 {
            *entry = (acked.run.last, now);
        }
    }

    /// Notes what the learner learned.
    pub(super) fn progress(&mut self, progress: Progress, out: &mut Effects<Self>) {
        let now = self.turn.at;
        if progress.history.executed() > self.history.executed() {
            self.alive = now;
        } else if progress.history.executed() < self.history.executed() {
            sometimes!(LearnerKnowsLess);
            // The learner was made anew and knows less than it told. Those steps are no longer
            // open here, so whoever leads must find them by asking for promises again.
            self.step_down(out);
        }
        let before = std::mem::replace(&mut self.history, progress.history);
        self.forget_strangers(&before);
        self.durable_upto = progress.durable_upto;
        let executed = self.history.executed();
        let Phase::Leading(reign) = &mut self.phase else { return };
        if let Some((ballot, run)) = progress.chosen
            && ballot == reign.ballot
        {
            reign.chosen = Some(run);
        }
        reign.open = reign.open.split_off(&executed.next());
        reign.reported = reign.reported.split_off(&executed.next());
        if reign.next <= executed {
            reign.next = executed.next();
            reign.sent = reign.sent.max(executed);
        }
    }
}
