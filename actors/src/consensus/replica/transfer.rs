//! Fetching a peer's snapshot, piece by piece, and serving one's own.
//!
//! The one that needs it asks for each piece, so the sender keeps nothing and a slow receiver holds
//! up nobody. Pieces travel on the bulk lane.

use bytes::{Bytes, BytesMut};
use synod_runtime::{identity::NodeId, world::Instant};

use super::{Replica, Writing};
use crate::{
    consensus::{
        ballot::Step,
        message::{Fetch, ReplicaMessage, SnapshotChunk, SnapshotWanted},
    },
    effects::{Effects, To},
};

/// One piece.
const CHUNK_BYTES: usize = 256 * 1024;

/// A snapshot larger than this is refused: it is held in memory whole.
const SNAPSHOT_BYTES_MAX: u64 = 4 * 1024 * 1024 * 1024;

/// A snapshot on its way here.
#[derive(Debug)]
pub(super) struct Transfer {
    peer: NodeId,
    step: Step,
    total: u64,
    digest: u32,
    got: BytesMut,
    pub(super) asked: Instant,
    tries: u32,
}

impl Transfer {
    /// Of a snapshot that reaches `step` at least; nothing was asked for yet.
    pub(super) fn new(peer: NodeId, step: Step, asked: Instant) -> Self {
        Self { peer, step, total: 0, digest: 0, got: BytesMut::new(), asked, tries: 0 }
    }
}

/// Unanswered requests after which another peer may be tried.
const TRIES_MAX: u32 = 5;

impl Replica {
    /// The log alone cannot bring this node up.
    pub(super) fn want(&mut self, wanted: &SnapshotWanted, out: &mut Effects<Self>) {
        let done = wanted.chosen_upto <= self.executed() && self.executed() > Step(0);
        if self.transfer.is_some() || self.writing.is_some() {
            return;
        }
        if wanted.known < self.executed() {
            // The learner was made anew and forgot what was executed here: made durable, the own
            // state brings it up.
            let (step, bytes) = (self.executed(), self.image());
            self.writing = Some(Writing { step, bytes: bytes.clone(), install: true });
            out.snapshot = Some((step.0, bytes));
            return;
        }
        if done {
            return;
        }
        // One that brings this node on; a node that knows nothing takes any.
        let executed = self.executed();
        let step = if executed > Step(0) { executed.next() } else { executed };
        tracing::info!(peer = %wanted.peer, "fetching a snapshot");
        self.transfer = Some(Transfer::new(wanted.peer.clone(), step, self.turn.at));
        self.ask(out);
    }

    pub(super) fn ask(&mut self, out: &mut Effects<Self>) {
        let Some(transfer) = &mut self.transfer else { return };
        transfer.asked = self.turn.at;
        let fetch = Fetch { step: transfer.step, offset: transfer.got.len() as u64 };
        out.send(To::Node(transfer.peer.clone()), ReplicaMessage::Fetch(fetch));
    }

    pub(super) fn fetch_again(&mut self, out: &mut Effects<Self>) {
        let now = self.turn.at;
        let Some(transfer) = &mut self.transfer else { return };
        if now < transfer.asked + self.timing.fetch {
            return;
        }
        transfer.tries += 1;
        if transfer.tries > TRIES_MAX {
            self.transfer = None; // the learner asks again, maybe of another
            self.give_way_again();
            return self.resume(true, out);
        }
        self.ask(out);
    }

    /// A peer wants a piece.
    pub(super) fn serve(&mut self, from: &NodeId, fetch: &Fetch, out: &mut Effects<Self>) {
        if self.halted.is_some() || self.state.history.newest().is_none() {
            return; // nothing to give
        }
        let newest = match &self.newest {
            Some((step, bytes)) if fetch.step == Step(0) || *step >= fetch.step => {
                (*step, bytes.clone())
            }
            Some(_) | None => {
                let made = (self.executed(), self.image());
                self.newest = Some(made.clone());
                made
            }
        };
        let (step, bytes) = newest;
        // Another snapshot than the one begun: from its start.
        let offset = if fetch.step == step { fetch.offset } else { 0 };
        let from_byte = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
        let piece = bytes.slice(from_byte..(from_byte + CHUNK_BYTES).min(bytes.len()));
        let chunk = SnapshotChunk {
            step,
            total: bytes.len() as u64,
            digest: crc32fast::hash(&bytes),
            offset: from_byte as u64,
            bytes: piece,
        };
        out.send(To::Node(from.clone()), ReplicaMessage::SnapshotChunk(chunk));
    }

    /// A piece came.
    pub(super) fn chunk(&mut self, from: &NodeId, chunk: &SnapshotChunk, out: &mut Effects<Self>) {
        let Some(transfer) = &mut self.transfer else { return };
        if transfer.peer != *from || chunk.total > SNAPSHOT_BYTES_MAX {
            return;
        }
        if chunk.step != transfer.step || chunk.digest != transfer.digest {
            if chunk.offset != 0 {
                return;
            }
            (transfer.step, transfer.total, transfer.digest) =
                (chunk.step, chunk.total, chunk.digest);
            transfer.got.clear();
        }
        if chunk.offset != transfer.got.len() as u64 || chunk.bytes.is_empty() {
            return; // a repetition
        }
        transfer.got.extend_from_slice(&chunk.bytes);
        transfer.tries = 0;
        if (transfer.got.len() as u64) < transfer.total {
            return self.ask(out);
        }
        let Some(Transfer { step, digest, got, .. }) = self.transfer.take() else { return };
        let bytes: Bytes = got.freeze();
        if crc32fast::hash(&bytes) != digest {
            tracing::warn!(%from, %step, "a snapshot came damaged; fetching it again");
            return self.give_way_again();
        }
        if step > self.executed() || self.state.history.newest().is_none() {
            self.writing = Some(Writing { step, bytes: bytes.clone(), install: true });
            out.snapshot = Some((step.0, bytes));
        }
    }
}
