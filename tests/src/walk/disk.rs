//! A node's disk: one journal for all roles, synced in groups, and the newest snapshot.
//!
//! Nothing survives a crash but what was synced, and any prefix of the rest.

use std::collections::{BTreeMap, VecDeque};

use synod::{
    consensus::{
        ballot::{Ballot, Step},
        message::Message,
        record::{Image, Record, chosen_upto},
        value::Value,
    },
    effects::{Letter, Truncate},
};

use super::node::Role;
use crate::shelf::Shelf;

/// One operation on the journal.
#[derive(Debug)]
enum Operation {
    Append(Vec<Record>),
    /// The beginning is forgotten, as far as it may be, and something written at once.
    Truncate(Truncate<Record>),
}

/// What waits for a sync.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "few at once, and nearly all are letters")]
pub(crate) enum Held {
    /// A message of a role.
    Letter(Role, Letter<Message>),
    /// A role that is made anew from the journal.
    Rebuild(Role),
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub(crate) struct Disk {
    /// The durable records.
    pub(crate) records: Vec<Record>,
    /// The durable snapshot.
    pub(crate) snapshot: Option<Image>,
    /// All snapshots, and what is to be done with them.
    pub(crate) shelf: Shelf,
    queue: VecDeque<Operation>,
    appended: u64,
    synced: u64,
    syncing: bool,
    held: VecDeque<(u64, Held)>,
    /// The highest durable ballot, and the durable vote of each step: what may be said.
    pub(crate) promised: Ballot,
    /// See `promised`.
    pub(crate) votes: BTreeMap<Step, (Ballot, Value)>,
    /// Values durably known to be chosen without an own vote.
    chosen: BTreeMap<Step, Value>,
    /// An auxiliary's durable floor.
    pub(crate) floor: Step,
    /// Records ever appended.
    pub(crate) written: u64,
    /// Where the last write begins, if damage to it could be taken for a torn end.
    last_write: Option<usize>,
}

impl Disk {
    /// A disk with these durable records.
    pub(crate) fn new(records: Vec<Record>) -> Self {
        let mut disk = Self::default();
        disk.keep(records);
        disk
    }

    /// Queues records.
    pub(crate) fn append(&mut self, records: Vec<Record>) {
        if !records.is_empty() {
            self.written += records.len() as u64;
            self.appended += 1;
            self.queue.push_back(Operation::Append(records));
        }
    }

    /// Queues the forgetting of what is of no use any more.
    pub(crate) fn truncate(&mut self, truncate: Truncate<Record>) {
        self.written += truncate.carry.len() as u64;
        self.appended += 1;
        self.queue.push_back(Operation::Truncate(truncate));
    }

    /// Keeps `held` until everything appended so far is durable, or gives it back if it is.
    pub(crate) fn hold(&mut self, held: Held) -> Option<Held> {
        if self.synced == self.appended && self.held.is_empty() {
            return Some(held);
        }
        self.held.push_back((self.appended, held));
        None
    }

    /// Begins a sync of everything queued, unless one is under way: up to which operation.
    pub(crate) fn sync(&mut self) -> Option<u64> {
        (!self.syncing && self.synced < self.appended).then(|| {
            self.syncing = true;
            self.appended
        })
    }

    /// The sync is done: what waited for it.
    pub(crate) fn synced(&mut self, upto: u64) -> Vec<Held> {
        self.syncing = false;
        self.last_write = Some(self.records.len());
        while self.synced < upto {
            match self.queue.pop_front().expect("operations up to here are queued") {
                Operation::Append(records) => self.keep(records),
                Operation::Truncate(truncate) => {
                    self.forget(truncate);
                    // The first write of a file is durable before the file has its name.
                    self.last_write = Some(self.records.len());
                }
            }
            self.synced += 1;
        }
        let mut free = Vec::new();
        while self.held.front().is_some_and(|(number, _)| *number <= upto) {
            free.extend(self.held.pop_front().map(|(_, held)| held));
        }
        free
    }

    /// Whether somebody waits for a sync.
    pub(crate) fn is_awaited(&self) -> bool {
        !self.held.is_empty()
    }

    /// The node crashed; of what was queued the first `kept` records happen to survive.
    pub(crate) fn crash(&mut self, mut kept: usize) {
        if kept > 0 {
            self.last_write = Some(self.records.len());
        }
        for operation in std::mem::take(&mut self.queue) {
            match operation {
                Operation::Append(mut records) => {
                    records.truncate(kept);
                    kept -= records.len();
                    self.keep(records);
                }
                Operation::Truncate(truncate) if kept > 0 => {
                    kept -= 1;
                    self.forget(truncate);
                    self.last_write = Some(self.records.len());
                }
                Operation::Truncate(_) => {}
            }
            if kept == 0 {
                break;
            }
        }
        self.shelf.crash();
        self.held.clear();
        self.syncing = false;
        self.synced = self.appended;
    }

    /// The end of the journal was torn in a crash; with `lost`, the last write that was durable is
    /// gone with it. Answers whether anything durable is.
    pub(crate) fn tear(&mut self, lost: bool) -> bool {
        let mut records = std::mem::take(&mut self.records);
        let kept = self.last_write.filter(|_| lost).unwrap_or(records.len());
        let gone = kept < records.len();
        records.truncate(kept);
        self.last_write = Some(records.len());
        records.push(Record::Torn);
        let floor = self.floor;
        self.keep_only(records);
        if !gone {
            self.floor = floor;
        }
        gone
    }

    /// The first step that the last write votes on, if it votes.
    pub(crate) fn last_write_votes_from(&self) -> Option<Step> {
        let last = self.records.get(self.last_write?..)?;
        let votes = last.iter().filter(|record| matches!(record, Record::Vote(_)));
        votes.map(Record::step).min()
    }

    /// Records queued and not synced.
    pub(crate) fn queued(&self) -> usize {
        self.queue
            .iter()
            .map(|operation| match operation {
                Operation::Append(records) => records.len(),
                Operation::Truncate(_) => 1,
            })
            .sum()
    }

    /// Whether all of `log`, from step 1 on, could be had again from this disk alone.
    pub(crate) fn holds(&self, log: &[Value]) -> bool {
        let covered = self.snapshot.as_ref().map_or(0, |image| image.history.executed().0);
        (1..).map(Step).zip(log).skip_while(|(step, _)| step.0 <= covered).all(|(step, value)| {
            let voted = self.votes.get(&step).map(|(_, value)| value);
            voted == Some(value) || self.chosen.get(&step) == Some(value)
        })
    }

    /// Everything up to here is durably known to be chosen.
    pub(crate) fn marked(&self) -> Step {
        let covered = self.snapshot.as_ref().map_or(Step(0), |image| image.history.executed());
        chosen_upto(&self.records, covered)
    }

    fn keep(&mut self, records: Vec<Record>) {
        for record in &records {
            match record {
                Record::Promise(ballot) => self.promised = self.promised.max(*ballot),
                Record::Vote(vote) => {
                    self.promised = self.promised.max(vote.ballot);
                    self.votes.insert(vote.step, (vote.ballot, vote.value.clone()));
                }
                Record::Floor(floor, _) => self.floor = self.floor.max(*floor),
                Record::Chosen(vote) => {
                    self.chosen.insert(vote.step, vote.value.clone());
                }
                Record::Genesis(_)
                | Record::Mark(_)
                | Record::Trimmed(_)
                | Record::Torn
                | Record::Mended => {}
            }
        }
        self.records.extend(records);
    }

    /// Forgets all it may, though a real journal forgets in whole segments.
    fn forget(&mut self, Truncate { upto, carry }: Truncate<Record>) {
        let needed = self.records.iter().position(|record| record.step().0 > upto);
        let mut left = self.records.split_off(needed.unwrap_or(self.records.len()));
        left.extend(carry);
        self.keep_only(left);
    }

    fn keep_only(&mut self, records: Vec<Record>) {
        self.records.clear();
        self.votes.clear();
        self.chosen.clear();
        self.promised = Ballot::default();
        self.floor = Step(0);
        self.keep(records);
    }
}
