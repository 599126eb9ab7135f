//! Comparing what mains came to: equal commands in equal order must give equal states.
//!
//! Every [`COMPARE_EVERY`] steps a replica tells the other mains the digest it came to. Who is told
//! another one than its own first doubts itself: it forgets its state and comes to that step once
//! more, from its own snapshot and the log. Memory that went bad is healed by that, on whichever
//! main it was. Who comes to the same again is *sure*, and says so. When mains are sure of
//! different digests, a snapshot is bad or an actor is not deterministic, and no replay can tell:
//! then the fewer give way to the more, and of as many those without the least name. Who gives way
//! halts, which `status` and the health page show, and takes the other's state. Having to do that
//! again before all agreed, it halts for good and says that an actor is not deterministic.
//!
//! A node without a vote tells its digests too, and only hears back where a main came to something
//! else. No main doubts itself for its sake: it is the one that gives way.
//!
//! The digest is a chain over commands and replies, so a difference shows in every later one as
//! well: a lost word costs time only. While the state is small it is compared too, now and then, for
//! what no reply has shown yet; such a difference makes mains replay, and nobody give way.

use std::{cmp::Reverse, collections::BTreeMap};

use synod_runtime::identity::{NodeId, NodeName};

use super::{Replica, State, execute::mix, transfer::Transfer};
use crate::{
    consensus::{
        ballot::Step,
        message::{Compare, ReplicaMessage},
    },
    effects::{Effects, To},
};

/// How often digests are told: rarely enough to cost nothing, often enough that little is built on
/// a bad state.
pub const COMPARE_EVERY: u64 = 64;

/// How often the states themselves are compared.
const STATE_EVERY: u64 = 16 * COMPARE_EVERY;

/// Who comes to something else every time is as sure as it can be: the actor is not deterministic,
/// and to replay it for ever would be all this main does.
const DOUBTS_MAX: u32 = 2;

/// Larger states are compared by what they answer alone: to write one down takes time.
const STATE_BYTES_MAX: u64 = 256 * 1024;

/// Digests that are kept: a main that is further behind is compared later.
const MARKS_LEN_MAX: usize = 64;

/// Words that came before the step they are about; bounds what peers can make us keep.
const EARLY_LEN_MAX: usize = 256;

/// What this replica knows of its own and of others' digests.
#[derive(Debug, Default)]
pub(super) struct Comparison {
    /// By step.
    marks: BTreeMap<Step, Mark>,
    /// Words about steps that are still to be executed here.
    early: BTreeMap<(Step, NodeId), Compare>,
    /// The step it doubts, and what it came to there the first time.
    doubt: Option<(Step, Digests)>,
    /// It came twice to what another main does not come to, or doubted itself often enough.
    sure: bool,
    /// How often it doubted itself since all agreed.
    doubts: u32,
    /// Whose state it is taking, and from which step on it will do.
    yields: Option<(NodeId, Step)>,
    /// It gave way, and all did not agree since.
    yielded: bool,
    /// States differ although no answer does, also after a replay: they are not compared any more.
    /// An actor that keeps its state in a hash map shows equal states as different bytes.
    blind: bool,
    /// How large the states were when last written down.
    state_bytes: u64,
    /// Differences that were noticed.
    pub(super) differences: u64,
}

/// What a step came to.
#[derive(Debug, Clone, Copy)]
struct Digests {
    chain: u64,
    state: Option<u64>,
}

/// An own digest, and what others said of it.
#[derive(Debug)]
struct Mark {
    mine: Digests,
    /// What they came to: the same, or surely not.
    others: BTreeMap<NodeId, Digests>,
}

impl Digests {
    fn agree(self, other: Self) -> bool {
        let states = self.state.zip(other.state);
        self.chain == other.chain && states.is_none_or(|(one, other)| one == other)
    }
}

impl Replica {
    /// Notes and tells what a step came to, if it is one to compare.
    pub(super) fn mark(&mut self, step: Step, out: &mut Effects<Self>) {
        if !step.0.is_multiple_of(COMPARE_EVERY) {
            return;
        }
        let mine = Digests { chain: self.chain_at(step), state: self.state_digest(step) };
        let before = self.comparison.marks.remove(&step).filter(|mark| mark.mine.agree(mine));
        let others = before.map(|mark| mark.others).unwrap_or_default();
        self.comparison.marks.insert(step, Mark { mine, others });
        if self.comparison.marks.len() > MARKS_LEN_MAX {
            self.comparison.marks.pop_first();
        }
        if let Some((doubted, before)) = self.comparison.doubt {
            if step < doubted {
                return; // on its way there again; all this was told before
            }
            self.comparison.doubt = None;
            // A snapshot may have carried it beyond the step in question.
            let same = step == doubted && mine.agree(before);
            self.comparison.sure = same || self.comparison.doubts >= DOUBTS_MAX;
            if step == doubted && !same {
                tracing::error!(%step, "the state of this main had gone bad; it is rebuilt");
            }
        }
        let Digests { chain, state } = mine;
        let told = Compare { step, chain, state, sure: self.comparison.sure };
        for other in self.other_mains() {
            out.send(To::Node(other), ReplicaMessage::Compare(told.clone()));
        }
    }

    /// Compares what others said of steps that were executed meanwhile.
    pub(super) fn compare_early(&mut self, out: &mut Effects<Self>) {
        while self.comparison.doubt.is_none()
            && self.halted.is_none()
            && let Some(first) = self.comparison.early.first_entry()
            && first.key().0 <= self.state.history.executed()
        {
            let ((_, from), word) = first.remove_entry();
            self.compare(&from, word, out);
        }
    }

    /// Another main says what it came to.
    pub(super) fn compare(&mut self, from: &NodeId, word: Compare, out: &mut Effects<Self>) {
        if self.halted.is_some() {
            return;
        }
        if self.comparison.doubt.is_some() || word.step > self.executed() {
            // The furthest ahead go first: those nearer are needed sooner.
            self.comparison.early.insert((word.step, from.clone()), word);
            if self.comparison.early.len() > EARLY_LEN_MAX {
                self.comparison.early.pop_last();
            }
            return;
        }
        let counts = self.is_main(from);
        let Some(mark) = self.comparison.marks.get_mut(&word.step) else { return };
        let theirs = Digests { chain: word.chain, state: word.state };
        if !counts {
            if !mark.mine.agree(theirs) {
                let Digests { chain, state } = mark.mine;
                let mine = Compare { step: word.step, chain, state, sure: true };
                out.send(To::Node(from.clone()), ReplicaMessage::Compare(mine));
            }
            return;
        }
        if mark.mine.agree(theirs) || (self.comparison.sure && word.sure) {
            mark.others.insert(from.clone(), theirs);
            return self.judge(word.step, out);
        }
        if !self.comparison.sure {
            self.comparison.differences += 1;
            self.comparison.doubts += 1;
            let step = word.step;
            tracing::error!(%from, %step, "another main came to another state: who is wrong?");
            self.comparison.doubt = Some((word.step, mark.mine));
            self.comparison.early.insert((word.step, from.clone()), word);
            self.rebuild(out);
        }
    }

    /// Decides who is right about a step, once all other mains have spoken.
    fn judge(&mut self, step: Step, out: &mut Effects<Self>) {
        let others = self.other_mains();
        let Some(mark) = self.comparison.marks.get(&step) else { return };
        if others.iter().any(|other| !mark.others.contains_key(other)) {
            return;
        }
        let mine = mark.mine;
        if mark.others.values().all(|theirs| mine.agree(*theirs)) {
            (self.comparison.sure, self.comparison.yielded) = (false, false);
            self.comparison.doubts = 0;
            return;
        }
        if mark.others.values().all(|theirs| mine.chain == theirs.chain) {
            tracing::error!(%step, "states differ that no answer shows: one is bad, or has no order");
            self.comparison.blind = true;
            (self.comparison.sure, self.comparison.doubts) = (false, 0);
            return;
        }
        // Who came to the same, by name: all mains see the same groups, and so the same winner.
        let mut groups: BTreeMap<u64, BTreeMap<NodeName, NodeId>> = BTreeMap::new();
        let own = self.is_main(&self.me).then_some((&self.me, &mine));
        for (node, digests) in mark.others.iter().chain(own) {
            groups.entry(digests.chain).or_default().insert(node.name.clone(), node.clone());
        }
        let weight = |group: &BTreeMap<NodeName, NodeId>| {
            (group.len(), Reverse(group.first_key_value().map(|(name, _)| name.clone())))
        };
        let Some(winner) = groups.values().max_by_key(|group| weight(group)) else { return };
        match winner.first_key_value() {
            Some((_, first)) if !winner.contains_key(&self.me.name) => {
                let first = first.clone();
                self.give_way(first, step, out);
            }
            Some(_) | None => tracing::error!(%step, "another main is to take this one's state"),
        }
    }

    /// Halts, and takes another main's state.
    fn give_way(&mut self, to: NodeId, step: Step, out: &mut Effects<Self>) {
        let again = std::mem::replace(&mut self.comparison.yielded, true);
        self.comparison.early.clear();
        if again {
            let why = "an actor is not deterministic, or this machine is bad";
            return self.halt(format!("diverged from {to} at step {step} once more: {why}"));
        }
        self.halt(format!("diverged from {to} at step {step}; taking its state"));
        self.comparison.marks.clear();
        self.forget_state();
        self.comparison.yields = Some((to.clone(), step));
        self.fetch(to, step, out);
    }

    /// Will ask for the other's state once more, in a while, where that was lost or damaged.
    pub(super) fn give_way_again(&mut self) {
        if let (Some((to, step)), None) = (&self.comparison.yields, &self.transfer) {
            self.transfer = Some(Transfer::new(to.clone(), *step, self.turn.at));
        }
    }

    /// Whether it waits for another main's state; what it has is none.
    pub(super) fn gives_way(&self) -> bool {
        self.comparison.yields.is_some()
    }

    /// Another main's state is installed.
    pub(super) fn gave_way(&mut self) {
        if self.comparison.yields.take().is_some() {
            tracing::warn!(step = %self.executed(), "took another main's state");
            self.halted = None;
            self.comparison.sure = false;
        }
    }

    fn chain_at(&self, step: Step) -> u64 {
        let State { position, time_ms, digest, .. } = self.state;
        mix(mix(digest, position), mix(time_ms, step.0))
    }

    /// The digest of all actors' states, where that is to be compared and not too much.
    fn state_digest(&mut self, step: Step) -> Option<u64> {
        let known = self.newest().map_or(0, |newest| newest.total);
        let large = known.max(self.comparison.state_bytes) > STATE_BYTES_MAX;
        if !step.0.is_multiple_of(STATE_EVERY) || large || self.comparison.blind {
            return None;
        }
        let states = self.machines.values().map(|machine| machine.snapshot());
        let (mut digest, mut bytes) = (0, 0);
        for state in states {
            bytes += state.len() as u64;
            digest = mix(digest, super::execute::digest(&state));
        }
        self.comparison.state_bytes = bytes;
        Some(digest)
    }

    fn is_main(&self, node: &NodeId) -> bool {
        self.state.history.current().is_some_and(|c| c.has_main(node.incarnation))
    }

    fn other_mains(&self) -> Vec<NodeId> {
        let current = self.state.history.current();
        current.map_or_else(Vec::new, |c| c.other_mains(self.me.incarnation).cloned().collect())
    }
}
