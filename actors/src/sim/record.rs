//! What was seen in a trial, from outside: the judges look at nothing else.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use synod_runtime::identity::{NodeId, NodeName};

use super::{properties::Violation, witness::Lists};
use crate::{consensus::ballot::Ballot, replicated::Outcome};

/// Everything that was seen. All times are true time since the trial began.
#[derive(Debug, Default)]
pub struct Record {
    /// What clients wanted, by number.
    pub calls: Vec<Call>,
    /// How they asked for it, in the order of asking.
    pub attempts: Vec<Attempt>,
    /// When each life of a node (its name, and a count) ended; absent while it goes on.
    pub ended_lives: BTreeMap<(NodeName, u64), Duration>,
    /// When the trial ended.
    pub until: Duration,
    /// The digest first seen at a position, and where.
    pub digests: BTreeMap<u64, (u64, NodeName)>,
    /// What each main held at the end.
    pub finals: Vec<(NodeName, Lists)>,
    /// What each main thought of the others, each time it changed its mind, where nothing went
    /// wrong.
    pub views: BTreeMap<NodeName, Vec<View>>,
    /// What each auxiliary did, where nothing went wrong.
    pub auxiliaries: Vec<AuxiliaryWork>,
    /// Found on the way, for lack of anything to be remembered by.
    pub found: Vec<Violation>,
}

/// What one client wanted.
#[derive(Debug, Clone)]
pub struct Call {
    /// What.
    pub kind: CallKind,
    /// Of which list.
    pub list: u8,
    /// When it first asked.
    pub began: Duration,
    /// Whether it must be answered: nothing is wrong any more.
    pub must: bool,
    /// What it was told, once it was.
    pub applied: Option<Applied>,
    /// The handler is said to have failed.
    pub failed: Option<String>,
    /// Attempts made, attempts that ended, and those of them that surely did nothing.
    pub attempts: (u32, u32, u32),
}

/// What a client may want.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallKind {
    /// One entry more; asked for again, under an idempotency key, until it is known.
    Append {
        /// Whether it has an idempotency key.
        keyed: bool,
    },
    /// One entry more, by a handler that then panics.
    Stumble,
    /// The length, linearizable.
    Length,
}

/// A good answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Applied {
    /// When it came.
    pub at: Duration,
    /// The length it told.
    pub length: u64,
    /// The position it told.
    pub position: u64,
}

/// One way of asking.
#[derive(Debug, Clone)]
pub struct Attempt {
    /// Which call.
    pub call: u64,
    /// Where it was asked, and in which life of the node.
    pub home: (NodeName, u64),
    /// When.
    pub began: Duration,
    /// Until when it should have been told something.
    pub due: Duration,
    /// When it was told.
    pub ended: Option<Duration>,
}

/// What a main thinks of the others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    /// Who leads, and in which ballot.
    pub leader: (Option<NodeId>, Ballot),
    /// Who votes: rises with every change.
    pub epoch: u64,
    /// Whom it has not heard of lately.
    pub suspects: Vec<NodeName>,
    /// Whether an auxiliary stands in for somebody.
    pub bridging: bool,
}

/// What an auxiliary did between two moments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuxiliaryWork {
    /// Which.
    pub node: NodeName,
    /// Protocol messages it got, signs of life apart.
    pub messages: u64,
    /// Bytes it wrote.
    pub bytes: u64,
}

/// A record that many write.
#[derive(Debug, Clone, Default)]
pub struct Shared(Arc<Mutex<Record>>);

impl Shared {
    /// The record, locked: not to be kept across an `await`.
    pub fn open(&self) -> MutexGuard<'_, Record> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Record {
    /// Notes a new call; answers its number.
    pub fn call(&mut self, kind: CallKind, list: u8, began: Duration, must: bool) -> u64 {
        let attempts = (0, 0, 0);
        self.calls.push(Call { kind, list, began, must, applied: None, failed: None, attempts });
        self.calls.len() as u64 - 1
    }

    /// Notes an attempt; answers its number.
    pub fn attempt(&mut self, attempt: Attempt) -> usize {
        if let Some(call) = self.calls.get_mut(place(attempt.call)) {
            call.attempts.0 += 1;
        }
        self.attempts.push(attempt);
        self.attempts.len() - 1
    }

    /// Notes what an attempt was told. A second answer is a violation.
    pub fn ended(&mut self, number: usize, at: Duration, outcome: Outcome) {
        let attempt = &mut self.attempts[number];
        if attempt.ended.replace(at).is_some() {
            let what = format!("attempt {number} was answered twice");
            self.found.push(Violation::exactly_once(what));
        }
        let number = attempt.call;
        let call = &mut self.calls[place(number)];
        call.attempts.1 += 1;
        match outcome {
            Outcome::Applied { reply, position } => {
                let length = rmp_serde::from_slice(&reply).unwrap_or(0);
                let applied = Applied { at, length, position: position.0 };
                let first = *call.applied.get_or_insert(applied);
                if (first.length, first.position) != (applied.length, applied.position) {
                    let what = format!("call {number} was told {first:?}, then {applied:?}");
                    self.found.push(Violation::exactly_once(what));
                }
            }
            Outcome::NotApplied(_) => call.attempts.2 += 1,
            Outcome::Unknown(_) | Outcome::SessionExpired(_) => {}
            Outcome::Failed(why) => call.failed = Some(why),
        }
    }

    /// Notes what a main says of itself.
    pub fn digest(&mut self, node: &NodeName, position: u64, digest: u64) {
        let (first, at) = self.digests.entry(position).or_insert_with(|| (digest, node.clone()));
        if *first != digest {
            let what = format!(
                "at position {position}, {at} has the digest {first:016x} and {node} {digest:016x}"
            );
            self.found.push(Violation::agreement(what));
        }
    }

    /// Notes what a main thinks of the others.
    pub fn view(&mut self, node: &NodeName, view: View) {
        let views = self.views.entry(node.clone()).or_default();
        if views.last() != Some(&view) {
            views.push(view);
        }
    }

    /// The call of that number, if anybody made it.
    pub fn known(&self, call: u64) -> Option<&Call> {
        self.calls.get(place(call))
    }
}

impl Call {
    /// Whether nothing of it was ever to happen: every attempt was refused.
    pub fn was_refused(&self) -> bool {
        let (made, ended, refused) = self.attempts;
        made == ended && ended == refused
    }

    /// Whether it waits for an answer that may still come.
    pub fn is_open(&self) -> bool {
        self.attempts.0 > self.attempts.1
    }
}

fn place(call: u64) -> usize {
    usize::try_from(call).unwrap_or(usize::MAX)
}
