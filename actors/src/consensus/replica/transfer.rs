//! Fetching a peer's snapshot, piece by piece, and serving one's own.
//!
//! The one that needs it asks for each piece once the one before is written, so the sender keeps
//! nothing, a slow receiver holds up nobody, and neither has more than a piece of it in memory.
//! Pieces travel on the bulk lane, each with its checksum, and are handed out no faster than
//! [`SNAPSHOT_BYTES_PER_SECOND`](super::taking::SNAPSHOT_BYTES_PER_SECOND). Who lost the link goes on
//! where it was, as long as the snapshot is still there, and so does who was started again.

use std::{collections::BTreeMap, time::Duration};

use synod_runtime::{identity::NodeId, world::Instant};

use super::{Replica, taking::pause_after};
use crate::{
    consensus::{
        ballot::Step,
        message::{
            Fetch, Found, ReplicaMessage, SnapshotChunk, SnapshotWanted, SnapshotWritten, Written,
        },
    },
    effects::{Effects, Lot, ShelfRead, ShelfTask, ShelfWrite, To},
};

/// One piece.
const PIECE_BYTES: usize = 256 * 1024;

/// Peers that wait for a piece; more ask again.
const ASKERS_MAX: usize = 8;

/// Pieces may leave so long before their time: a few at once are no load.
const AHEAD: Duration = Duration::from_millis(20);

/// Unanswered requests after which another peer may be tried.
const TRIES_MAX: u32 = 5;

/// A snapshot on its way here.
#[derive(Debug)]
pub(super) struct Transfer {
    peer: NodeId,
    /// It must reach this step at least.
    least: Step,
    asked: Instant,
    tries: u32,
    /// What of it is here, if anything is.
    got: Option<Got>,
    /// A piece is being written.
    writing: bool,
}

/// A snapshot of which a part is here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Got {
    step: Step,
    /// Size and digest of the whole, once its sender said so in this life.
    whole: Option<(u64, u32)>,
    bytes: u64,
    run: u64,
}

/// Peers that wait for a piece.
#[derive(Debug, Default)]
pub(super) struct Askers {
    waiting: BTreeMap<NodeId, Fetch>,
    /// They need a newer snapshot, which is being taken.
    patient: BTreeMap<NodeId, Fetch>,
    /// When the next piece may leave.
    next_at: Instant,
}

impl Transfer {
    /// Of a snapshot that reaches `least` at least; nothing was asked for yet.
    pub(super) fn new(peer: NodeId, least: Step, asked: Instant) -> Self {
        Self { peer, least, asked, tries: 0, got: None, writing: false }
    }

    /// All of it is here, or nearly: what is executed now would be thrown away.
    pub(super) fn is_ending(&self) -> bool {
        self.writing && self.got.is_some_and(|got| got.is_all())
    }

    /// When to ask again.
    pub(super) fn deadline(&self, patience: Duration) -> Option<Instant> {
        (!self.writing).then(|| self.asked + patience)
    }
}

impl Got {
    fn is_all(&self) -> bool {
        self.whole.is_some_and(|(total, _)| self.bytes == total)
    }
}

impl Askers {
    /// When the next is to be served, if one of them can be.
    pub(super) fn deadline(&self) -> Option<Instant> {
        (!self.waiting.is_empty()).then_some(self.next_at - AHEAD)
    }
}

impl Replica {
    /// The log alone cannot bring this node up.
    pub(super) fn want(&mut self, wanted: &SnapshotWanted, out: &mut Effects<Self>) {
        let busy = self.outgoing.as_ref().is_some_and(|outgoing| outgoing.install);
        if busy || self.transfer.is_some() || self.loading.is_some() {
            return;
        }
        if wanted.known < self.executed() {
            // The learner was made anew and forgot what was executed here: made durable, the own
            // state brings it up.
            self.give_up_snapshot();
            return self.take_snapshot(true, out);
        }
        if wanted.chosen_upto <= self.executed() && self.executed() > Step(0) {
            return;
        }
        // One that brings this node on; a node that knows nothing takes any.
        let executed = self.executed();
        let least = if executed > Step(0) { executed.next() } else { executed };
        tracing::info!(peer = %wanted.peer, "fetching a snapshot");
        self.fetch(wanted.peer.clone(), least, out);
    }

    /// Fetches a peer's snapshot; goes on with one that was begun.
    pub(super) fn fetch(&mut self, peer: NodeId, least: Step, out: &mut Effects<Self>) {
        let got = self.begun.take().filter(|got| got.step >= least);
        let transfer = Transfer { got, ..Transfer::new(peer, least, self.turn.at) };
        if std::mem::replace(&mut self.looked, true) {
            self.transfer = Some(transfer);
            return self.ask(out);
        }
        // An earlier life may have begun.
        let run = self.next_run();
        let got = Some(Got { step: least, whole: None, bytes: 0, run });
        self.transfer = Some(Transfer { got, writing: true, ..transfer });
        out.shelf.push(ShelfTask::Resume(run));
    }

    /// What an earlier life left of a peer's snapshot is there to go on with, if it reaches far enough.
    fn resumed(&mut self, step: Step, bytes: u64, out: &mut Effects<Self>) {
        let Some(transfer) = &mut self.transfer else { return };
        let begun = transfer.got.filter(|_| bytes > 0 && step >= transfer.least);
        transfer.got = begun.map(|got| Got { step, bytes, ..got });
        if begun.is_some() {
            tracing::info!(%step, bytes, "going on with a snapshot that was begun before");
        }
        self.ask(out);
    }

    fn ask(&mut self, out: &mut Effects<Self>) {
        let Some(transfer) = &mut self.transfer else { return };
        transfer.asked = self.turn.at;
        let (step, offset) = transfer.got.map_or((transfer.least, 0), |got| (got.step, got.bytes));
        out.send(To::Node(transfer.peer.clone()), ReplicaMessage::Fetch(Fetch { step, offset }));
    }

    pub(super) fn fetch_again(&mut self, out: &mut Effects<Self>) {
        let now = self.turn.at;
        let patience = self.timing.fetch;
        let Some(transfer) = &mut self.transfer else { return };
        if transfer.deadline(patience).is_none_or(|at| now < at) {
            return;
        }
        transfer.tries += 1;
        if transfer.tries > TRIES_MAX {
            self.begun = transfer.got;
            self.transfer = None; // the learner asks again, maybe of another
            self.give_way_again();
            return self.resume(true, out);
        }
        self.ask(out);
    }

    /// A peer wants a piece.
    pub(super) fn serve(&mut self, from: &NodeId, fetch: Fetch, out: &mut Effects<Self>) {
        let Askers { waiting, patient, .. } = &mut self.askers;
        patient.remove(from);
        waiting.remove(from);
        if waiting.len() + patient.len() < ASKERS_MAX {
            waiting.insert(from.clone(), fetch);
            self.serve_waiting(out);
        }
    }

    /// Serves those who wait, as fast as it may be; takes a snapshot for those who need a newer one.
    pub(super) fn serve_waiting(&mut self, out: &mut Effects<Self>) {
        if self.halted.is_some() || self.loading.is_some() || self.state.history.newest().is_none()
        {
            self.askers.waiting.clear(); // nothing to give; they ask again
            self.askers.patient.clear();
            return;
        }
        let now = self.turn.at;
        while now + AHEAD >= self.askers.next_at
            && let Some((reader, fetch)) = self.askers.waiting.pop_first()
        {
            let begun = self.shelf.iter().find(|one| fetch.offset > 0 && one.step == fetch.step);
            let enough = || self.newest().filter(|newest| newest.step >= fetch.step);
            let Some(shelved) = begun.copied().or_else(enough) else {
                self.askers.patient.insert(reader, fetch);
                if self.outgoing.is_none() {
                    self.take_snapshot(false, out);
                }
                continue;
            };
            // Another snapshot than the one begun: from its start.
            let offset = if shelved.step == fetch.step { fetch.offset } else { 0 };
            let (step, reader) = (shelved.step.0, Some(reader));
            let read = ShelfRead { step, offset, bytes: PIECE_BYTES, reader };
            out.shelf.push(ShelfTask::Read(read));
            let bytes = shelved.total.saturating_sub(offset).min(PIECE_BYTES as u64);
            self.askers.next_at = now.max(self.askers.next_at) + pause_after(bytes);
        }
    }

    /// A snapshot was taken: those who need a newer one may have it.
    pub(super) fn serve_patient(&mut self, out: &mut Effects<Self>) {
        let Askers { waiting, patient, .. } = &mut self.askers;
        waiting.append(patient);
        self.serve_waiting(out);
    }

    /// A piece was read for a peer.
    pub(super) fn hand_on(
        &self,
        reader: &NodeId,
        step: Step,
        offset: u64,
        found: Option<Found>,
        out: &mut Effects<Self>,
    ) {
        let Some(Found { total, digest, bytes }) = found else { return };
        let sum = crc32fast::hash(&bytes);
        let chunk = SnapshotChunk { step, total, digest, offset, bytes, sum };
        out.send(To::Node(reader.clone()), ReplicaMessage::SnapshotChunk(chunk));
    }

    /// A piece came.
    pub(super) fn chunk(&mut self, from: &NodeId, chunk: SnapshotChunk, out: &mut Effects<Self>) {
        let Some(transfer) = &mut self.transfer else { return };
        let SnapshotChunk { step, total, digest, offset, bytes, sum } = chunk;
        if transfer.peer != *from || transfer.writing || step < transfer.least {
            return;
        }
        if crc32fast::hash(&bytes) != sum {
            tracing::warn!(%from, %step, offset, "a piece of a snapshot came damaged");
            return;
        }
        let whole = (total, digest);
        let same = |got: &Got| {
            let known = got.whole.is_none_or(|known| known == whole);
            got.step == step && known && got.bytes <= total
        };
        if !transfer.got.as_ref().is_some_and(same) {
            if offset != 0 {
                transfer.got = None;
                return;
            }
            self.runs += 1;
            transfer.got = Some(Got { step, whole: Some(whole), bytes: 0, run: self.runs });
        }
        let Some(got) = &mut transfer.got else { return };
        let upto = offset + bytes.len() as u64;
        // Nothing is good only where an earlier life had all but the end.
        if offset != got.bytes || upto > total || (bytes.is_empty() && upto < total) {
            return; // a repetition
        }
        (got.whole, got.bytes) = (Some(whole), upto);
        (transfer.tries, transfer.writing) = (0, true);
        out.shelf.push(ShelfTask::Write(ShelfWrite {
            step: step.0,
            run: got.run,
            lot: Lot::Fetched,
            first: offset == 0,
            last: got.bytes == total,
            part: bytes,
            digest: Some(digest),
        }));
    }

    /// The shelf wrote a piece of a peer's snapshot.
    pub(super) fn fetched(&mut self, written: &SnapshotWritten, out: &mut Effects<Self>) {
        let ours = |one: &&mut Transfer| one.got.is_some_and(|got| got.run == written.run);
        let Some(transfer) = self.transfer.as_mut().filter(ours) else { return };
        transfer.writing = false;
        match written.written {
            Written::Part => self.ask(out),
            Written::Resumed(bytes) => self.resumed(written.step, bytes, out),
            Written::Failed => {
                tracing::error!(step = %written.step, "a peer's snapshot could not be written");
                self.transfer = None;
                self.give_way_again();
                self.resume(true, out);
            }
            Written::Whole { .. } => {
                self.transfer = None;
                let needed = self.state.history.newest().is_none() || self.gives_way();
                // As far as this one is enough: its learner may know nothing yet.
                if written.step >= self.executed() || needed {
                    return self.load(written.step, true, out);
                }
                // The log was faster; what came of it meanwhile was passed over.
                self.resume(true, out);
            }
        }
    }
}
