//! What the roles of a group say to one another.

mod way;
mod word;

use std::{fmt, sync::Arc};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use synod_runtime::identity::NodeId;

pub use self::word::{Outcome, Question, SequencerReport, Step, Word};
use super::group::Group;
use crate::election::message::Epoch;

/// A place in the order of a group. The first message has 1.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Seq(pub u64);

impl Seq {
    /// The one after it.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// The one so many before it, or 0.
    #[must_use]
    pub const fn back(self, by: u64) -> Self {
        Self(self.0.saturating_sub(by))
    }
}

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Who publishes: drawn at random by each publisher.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Publisher(pub u64);

impl fmt::Display for Publisher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for Publisher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// What tells one message from all others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Mid {
    /// Whose it is.
    pub publisher: Publisher,
    /// Its place among the publisher's, from 1.
    pub number: u64,
}

/// What a sequencer must know of a message; and, with a [`Seq`], what is committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pair {
    /// The message; none: the number is void.
    pub mid: Option<Mid>,
    /// The logical time stamp: the largest committed number its publisher knew when it first sent
    /// it.
    pub stamp: Seq,
    /// The publisher has closed all its messages below this number: each has its place, or will
    /// never need one.
    pub lowest_open: u64,
}

/// A number and what is known of its message, all words at their longest: what is put into bytes
/// has room from the beginning.
pub(crate) const PAIR_BYTES: usize = 64;

impl Pair {
    /// A number that stands for nothing.
    pub const VOID: Self = Self { mid: None, stamp: Seq(0), lowest_open: 0 };
}

/// A message on its way to the group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Data {
    /// Which.
    pub mid: Mid,
    /// See [`Pair::stamp`]. The same in every copy.
    pub stamp: Seq,
    /// See [`Pair::lowest_open`]. May be higher in later copies.
    pub lowest_open: u64,
    /// What it says.
    pub payload: Bytes,
}

impl Data {
    /// What a sequencer must know of it.
    pub const fn pair(&self) -> Pair {
        Pair { mid: Some(self.mid), stamp: self.stamp, lowest_open: self.lowest_open }
    }
}

/// A number and what is delivered there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The number.
    pub seq: Seq,
    /// The message, or void.
    pub pair: Pair,
    /// What it says; nothing if it is void.
    pub payload: Bytes,
}

/// Committed numbers, told to the whole group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Commit {
    /// The sequencer's epoch.
    pub epoch: Epoch,
    /// The largest committed number.
    pub largest: Seq,
    /// The new ones.
    pub pairs: Vec<(Seq, Pair)>,
}

/// A checkpoint as it is reported and advertised.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Advert {
    /// The last number it holds.
    pub seq: Seq,
    /// In so many blocks.
    pub blocks: u32,
    /// Of so many bytes together.
    pub bytes: u64,
    /// Of all blocks: two checkpoints of one number are the same, bit by bit.
    pub digest: u64,
}

/// The sequencer's sign of life.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gossip {
    /// Its epoch.
    pub epoch: Epoch,
    /// Who it is: nodes hand this on.
    pub sequencer: NodeId,
    /// The largest committed number.
    pub largest: Seq,
    /// The newest checkpoint that enough checkpoint servers have.
    pub checkpoint: Option<Advert>,
    /// The version of the group's servers that it goes by.
    #[serde(default)]
    pub version: u64,
    /// Which one of its epoch: who heard a later one hands it to nobody.
    #[serde(default)]
    pub beat: u64,
}

/// A record of a commit server, as it is told to who seals it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sealed {
    /// The number.
    pub seq: Seq,
    /// In which epoch it was submitted.
    pub epoch: Epoch,
    /// What is there.
    pub pair: Pair,
    /// Whether that is known to be committed.
    pub committed: bool,
}

/// To the sequencer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SequencerMessage {
    /// Of its node: it is the sequencer from now on, in that epoch.
    Lead(Epoch),
    /// Of its node: it is the sequencer no more.
    StepDown,
    /// A data server has these messages (data report).
    Reported(Vec<Pair>),
    /// A commit server takes nothing of lower epochs any more, and this is what it has.
    Sealed {
        /// Of the seal.
        epoch: Epoch,
        /// The highest number that it has dropped.
        floor: Seq,
        /// The largest number that it knows committed.
        largest: Seq,
        /// All it has above its floor.
        records: Vec<Sealed>,
    },
    /// A commit server has these numbers on its disk (commit acknowledge).
    Acknowledged {
        /// In which epoch they were submitted.
        epoch: Epoch,
        /// Which.
        seqs: Vec<Seq>,
        /// It knows by itself that all up to here are committed, and need not be told.
        #[serde(default)]
        agreed: Seq,
    },
    /// A commit server takes nothing of that epoch: it knows a higher one.
    Refused(Epoch),
    /// A checkpoint server has this checkpoint (checkpoint report).
    Checkpointed {
        /// Which.
        advert: Advert,
        /// A sequencer said once that enough have it.
        advertised: bool,
    },
    /// A commit server takes nothing from who knows only older servers of the group; it knows those
    /// of this version.
    Outdated(u64),
    /// Who is on its way in has on its disk what this epoch began with.
    Adopted(Epoch),
    /// Of its node: that number is written down, or one above it, as the sequencer of that epoch
    /// asked for.
    Stored {
        /// The epoch.
        epoch: Epoch,
        /// The number that it holds.
        seq: Seq,
    },
    /// Of its node: the group's servers are these now.
    Regroup(Arc<Group>),
}

/// To a data server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DataMessage {
    /// Messages of publishers.
    Store(Vec<Data>),
    /// Numbers that were committed.
    Committed(Commit),
    /// A sign of life of the sequencer.
    Gossip(Gossip),
    /// A receiver lacks these messages.
    Query(Vec<Mid>),
    /// A receiver lacks what has these numbers (the one-step way).
    QueryNumbers(Vec<Seq>),
    /// Of this node's receiver: the next of the order.
    Delivered(Arc<Vec<Entry>>),
    /// Of this node's receiver: the order went on to there, and a checkpoint here holds it.
    Skipped(Seq),
    /// Of its node: the group's servers are these now.
    Regroup(Arc<Group>),
}

/// To a commit server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CommitMessage {
    /// Take nothing of lower epochs any more.
    Seal {
        /// The sequencer's epoch.
        epoch: Epoch,
        /// The version of the group's servers that it goes by.
        version: u64,
    },
    /// Keep these (commit submit).
    Submit {
        /// The sequencer's epoch.
        epoch: Epoch,
        /// The version of the group's servers that it goes by.
        version: u64,
        /// What is where.
        pairs: Vec<(Seq, Pair)>,
        /// The commit server of the sequencer's own node has acknowledged them: one word less to wait
        /// for.
        #[serde(default)]
        acknowledged: bool,
    },
    /// Numbers that were committed.
    Committed(Commit),
    /// A sign of life of the sequencer.
    Gossip(Gossip),
    /// A receiver lacks the messages of these numbers.
    Query(Vec<Seq>),
    /// Another commit server lacks them.
    PeerQuery(Vec<Seq>),
    /// What another commit server knows committed, and its floor.
    PeerAnswer {
        /// What was asked for, as far as it is known.
        pairs: Vec<(Seq, Pair)>,
        /// The highest number that it has dropped.
        floor: Seq,
    },
    /// Of this node's checkpoint server: what is up to there may be forgotten by this node.
    Forget(Seq),
    /// To who is on its way in: what the epoch began with.
    Adopt(Box<Adoption>),
    /// Of its node: the group's servers are these now.
    Regroup(Arc<Group>),
}

/// What a reign began with: the best of what enough sealed commit servers had.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Adoption {
    /// Of the reign.
    pub epoch: Epoch,
    /// The version of the group's servers.
    pub version: u64,
    /// The highest number that one of them has dropped.
    pub floor: Seq,
    /// The largest number known committed.
    pub largest: Seq,
    /// The largest number in use.
    pub top: Seq,
    /// What there is above the floor.
    pub records: Vec<Sealed>,
}

/// To a checkpoint server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CheckpointMessage {
    /// Of this node's receiver: the next of the order.
    Delivered(Arc<Vec<Entry>>),
    /// Of this node's receiver: a checkpoint to go on from.
    Install(Arc<Checkpoint>),
    /// A sign of life of the sequencer.
    Gossip(Gossip),
    /// A receiver wants these blocks of the checkpoint of that number.
    Query {
        /// Of which checkpoint.
        seq: Seq,
        /// Which blocks.
        blocks: Vec<u32>,
    },
    /// Of itself: the next blocks of that checkpoint are on disk.
    Written(Seq),
    /// Of its node: a question to the application, to be answered under that number.
    Ask(u64, Bytes),
    /// Of its node: the group's servers are these now.
    Regroup(Arc<Group>),
}

/// To a receiver.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReceiverMessage {
    /// Messages of publishers, or of a data server that was asked.
    Data(Vec<Data>),
    /// Numbers that were committed.
    Committed(Commit),
    /// A sign of life of the sequencer.
    Gossip(Gossip),
    /// What a commit server that was asked knows committed.
    Ordered {
        /// What was asked for, as far as it is known.
        pairs: Vec<(Seq, Pair)>,
        /// The highest number that it has dropped.
        floor: Seq,
    },
    /// Whole numbers: of a data server in the one-step way, or of the node that feeds this one.
    Entries(Arc<Vec<Entry>>),
    /// Of this node's checkpoint server: what follows that number is wanted again.
    Again(Seq),
    /// Blocks of a checkpoint.
    Blocks {
        /// Of which.
        seq: Seq,
        /// Number and content of each. None: that one is not here.
        blocks: Vec<(u32, Bytes)>,
    },
    /// Of its node: the group's servers are these now.
    Regroup(Arc<Group>),
}

/// To a sender.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SenderMessage {
    /// Of a client: see to it that these get their places, and tell it so under that number.
    Publish {
        /// The client's call.
        call: u64,
        /// The messages.
        messages: Vec<Data>,
    },
    /// Nobody waits for that call any more.
    Abandon(u64),
    /// Of this node's receiver: the next of the order.
    Delivered(Arc<Vec<Entry>>),
    /// Of this node's receiver: the order went on to there unseen.
    Skipped(Seq),
    /// Of its node: the group's servers are these now.
    Regroup(Arc<Group>),
}

/// A checkpoint: the state after delivering everything up to a number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// That number.
    pub seq: Seq,
    /// The state, in blocks.
    pub blocks: Vec<Bytes>,
}

/// What any role may say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    /// To a sequencer.
    Sequencer(SequencerMessage),
    /// To a data server.
    Data(DataMessage),
    /// To a commit server.
    Commit(CommitMessage),
    /// To a checkpoint server.
    Checkpoint(CheckpointMessage),
    /// To a receiver.
    Receiver(ReceiverMessage),
    /// To a sender.
    #[serde(skip)]
    Sender(SenderMessage),
    /// To all roles of a node that hear of commits.
    Committed(Commit),
    /// To all roles of a node that hear the sequencer's signs of life.
    Gossip(Gossip),
    /// To all roles of a node that take what publishers send.
    Sent(Vec<Data>),
    /// To all roles of this node that follow the order, and to the node.
    #[serde(skip)]
    Delivered(Arc<Vec<Entry>>),
    /// To all roles of this node that follow the order, and to the node.
    #[serde(skip)]
    Installed(Arc<Checkpoint>),
    /// To all roles of this node: the group's servers are these now.
    #[serde(skip)]
    Regroup(Arc<Group>),
    /// To the node.
    #[serde(skip)]
    Word(Word),
}
