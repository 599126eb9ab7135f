//! A shelf of snapshots in memory, for tests that play a replica's surroundings.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use synod::{
    consensus::{
        ballot::Step,
        message::{Found, ReplicaMessage, SnapshotRead, SnapshotWritten, Written},
    },
    effects::{Lot, ShelfRead, ShelfTask, ShelfWrite},
};
use synod_runtime::snapshot::SNAPSHOTS_KEPT;

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct Shelf {
    whole: BTreeMap<u64, Bytes>,
    unfinished: BTreeMap<Lot, (u64, Vec<u8>)>,
    /// What is left of a peer's snapshot from before a crash, and of which step.
    left: Option<(u64, Vec<u8>)>,
    /// Of which step that is which comes from a peer.
    fetched: u64,
    queue: VecDeque<ShelfTask>,
    /// The disk is full: nothing can be written.
    pub full: bool,
}

impl Shelf {
    /// Queues a task.
    pub fn put(&mut self, task: ShelfTask) {
        self.queue.push_back(task);
    }

    /// Does the next task; what the replica is told, if there was one it is told of.
    pub fn work(&mut self) -> Option<ReplicaMessage> {
        match self.queue.pop_front()? {
            ShelfTask::Write(write) => {
                let ShelfWrite { step, run, lot, .. } = write;
                let written = if self.full { self.refuse(&write)? } else { self.write(write)? };
                Some(SnapshotWritten { step: Step(step), run, lot, written }.into())
            }
            ShelfTask::Resume(run) => {
                let lot = Lot::Fetched;
                let begun = self.left.take().map(|(step, bytes)| {
                    let begun = (step, bytes.len() as u64);
                    self.unfinished.insert(lot, (run, bytes));
                    begun
                });
                let (step, bytes) = begun.unwrap_or_default();
                let written = Written::Resumed(bytes);
                Some(SnapshotWritten { step: Step(step), run, lot, written }.into())
            }
            ShelfTask::Read(ShelfRead { step, offset, bytes, reader }) => {
                let found = self.whole.get(&step).map(|whole| {
                    let from = usize::try_from(offset).expect("small").min(whole.len());
                    let bytes = whole.slice(from..whole.len().min(from + bytes));
                    Found { total: whole.len() as u64, digest: digest(whole), bytes }
                });
                Some(SnapshotRead { step: Step(step), offset, reader, found }.into())
            }
        }
    }

    /// The newest snapshot that is durable.
    pub fn newest(&self) -> Option<(u64, &Bytes)> {
        self.whole.last_key_value().map(|(step, bytes)| (*step, bytes))
    }

    /// The node crashed: what was not durable is gone.
    pub fn crash(&mut self) {
        self.queue.clear();
        let fetched = self.unfinished.remove(&Lot::Fetched);
        // A part of what was not synced is gone.
        self.left = fetched.map(|(_, bytes)| (self.fetched, bytes[..bytes.len() / 2].to_vec()));
        self.unfinished.clear();
    }

    /// What is refused ends the writing.
    fn refuse(&mut self, write: &ShelfWrite) -> Option<Written> {
        let begun = self.unfinished.remove(&write.lot).is_some_and(|(run, _)| run == write.run);
        (write.first || begun).then_some(Written::Failed)
    }

    fn write(&mut self, write: ShelfWrite) -> Option<Written> {
        let ShelfWrite { step, run, lot, first, last, part, digest: wanted } = write;
        if lot == Lot::Fetched {
            self.fetched = step;
        }
        if first {
            self.unfinished.insert(lot, (run, Vec::new()));
        }
        let (_, bytes) = self.unfinished.get_mut(&lot).filter(|(newest, _)| *newest == run)?;
        bytes.extend_from_slice(&part);
        if !last {
            return Some(Written::Part);
        }
        let whole: Bytes = self.unfinished.remove(&lot)?.1.into();
        let (total, digest) = (whole.len() as u64, digest(&whole));
        if wanted.is_some_and(|wanted| wanted != digest) {
            return Some(Written::Failed);
        }
        self.whole.insert(step, whole);
        while self.whole.len() > SNAPSHOTS_KEPT {
            self.whole.pop_first();
        }
        Some(Written::Whole { total, digest })
    }
}

fn digest(bytes: &[u8]) -> u32 {
    bytes.iter().fold(7, |digest: u32, byte| digest.wrapping_mul(31) ^ u32::from(*byte))
}
