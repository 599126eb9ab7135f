//! Handing over what was chosen.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use synod_runtime::identity::NodeId;

use crate::consensus::ballot::{Ballot, Step};
use crate::consensus::configuration::History;
use crate::consensus::value::Value;
use crate::effects::Lot;

/// Asks for chosen values.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CatchUp {
    /// The first step the asker does not know.
    pub from: Step,
    /// The asker does not even know how the log began.
    pub fresh: bool,
}

/// Chosen values; contiguous.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entries {
    /// The step of the first value.
    pub first: Step,
    /// Ballot in which, and value that was chosen, one a step.
    pub values: Vec<(Ballot, Value)>,
    /// The sender knows everything up to here.
    pub chosen_upto: Step,
    /// The log alone cannot help: fetch a snapshot from the sender's replica.
    pub snapshot: bool,
}

/// *Local*: a peer says it has executed further.
#[derive(Debug, Clone)]
pub struct Ahead {
    /// Who.
    pub peer: NodeId,
    /// How far.
    pub chosen_upto: Step,
}

/// *Local*, replica to learner: hand over again from here.
#[derive(Debug, Clone)]
pub struct Resend {
    /// The first step wanted.
    pub from: Step,
}

/// *Local*, replica to learner: a peer's snapshot was installed.
#[derive(Debug, Clone)]
pub struct Installed {
    /// What was executed and who votes.
    pub history: History,
}

/// *Local*, replica to learner: an own snapshot is durable.
#[derive(Debug, Clone)]
pub struct TrimLog {
    /// The last covered step.
    pub upto: Step,
}

/// *Local*, learner to replica: execute these, in order.
#[derive(Debug, Clone)]
pub struct Execute {
    /// The step of the first value.
    pub first: Step,
    /// One value a step.
    pub values: Vec<Value>,
    /// Whether this node answers clients elsewhere: it does unless it led these steps.
    pub answer_others: bool,
}

/// *Local*, learner to replica: fetch a snapshot.
#[derive(Debug, Clone)]
pub struct SnapshotWanted {
    /// From whom.
    pub peer: NodeId,
    /// It knows everything up to here.
    pub chosen_upto: Step,
    /// The learner itself knows everything up to here.
    pub known: Step,
}

/// What a main came to at a step, for the other mains to compare.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compare {
    /// The executed step.
    pub step: Step,
    /// Chain over all commands and replies up to it.
    pub chain: u64,
    /// Of the actors' states there, where they are small.
    pub state: Option<u64>,
    /// The sender came to it twice, another main having come to another.
    pub sure: bool,
}

/// Asks for a piece of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fetch {
    /// Of which snapshot; 0: the newest.
    pub step: Step,
    /// From which byte.
    pub offset: u64,
}

/// A piece of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotChunk {
    /// Of which snapshot.
    pub step: Step,
    /// Its whole size in bytes.
    pub total: u64,
    /// Of the whole, as the shelf computes it: snapshots with equal step and digest are the same.
    pub digest: u32,
    /// Where the piece belongs.
    pub offset: u64,
    /// The piece.
    pub bytes: Bytes,
    /// CRC-32 of the piece.
    pub sum: u32,
}

/// *Local*, from the shelf: a part of a snapshot was written.
#[derive(Debug, Clone)]
pub struct SnapshotWritten {
    /// Of which step.
    pub step: Step,
    /// In which writing of a snapshot.
    pub run: u64,
    /// Whether it was an own state.
    pub lot: Lot,
    /// What became of it.
    pub written: Written,
}

/// What became of a part of a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// More may come.
    Part,
    /// So many bytes of that step's state were there from an earlier life; none if it is zero.
    Resumed(u64),
    /// It was the last: all of it is durable.
    Whole {
        /// Bytes of the state.
        total: u64,
        /// See [`SnapshotChunk::digest`].
        digest: u32,
    },
    /// The disk refused; nothing of the snapshot is left.
    Failed,
}

/// *Local*, from the shelf: a part of a snapshot was read.
#[derive(Debug, Clone)]
pub struct SnapshotRead {
    /// Of which step.
    pub step: Step,
    /// From which byte of the state.
    pub offset: u64,
    /// Who wants it; the replica itself if it is nobody.
    pub reader: Option<NodeId>,
    /// The part; none if it cannot be read, or not any more.
    pub found: Option<Found>,
}

/// A part of a snapshot that was read.
#[derive(Debug, Clone)]
pub struct Found {
    /// Bytes of the whole state.
    pub total: u64,
    /// See [`SnapshotChunk::digest`].
    pub digest: u32,
    /// The part.
    pub bytes: Bytes,
}

/// *Local*: something durable cannot be read any more: take a snapshot, so that the journal is
/// written anew.
#[derive(Debug, Clone)]
pub struct Renew {}
