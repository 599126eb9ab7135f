//! What the roles of a group say to one another.

use std::{fmt, sync::Arc};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use synod_runtime::identity::NodeId;

use super::application::BadQuestion;
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
    },
    /// A commit server takes nothing of that epoch: it knows a higher one.
    Refused(Epoch),
    /// A checkpoint server has this checkpoint (checkpoint report).
    Checkpointed(Advert),
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
}

/// To a commit server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CommitMessage {
    /// Take nothing of lower epochs any more.
    Seal(Epoch),
    /// Keep these (commit submit).
    Submit {
        /// The sequencer's epoch.
        epoch: Epoch,
        /// What is where.
        pairs: Vec<(Seq, Pair)>,
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
        /// Number and content of each.
        blocks: Vec<(u32, Bytes)>,
    },
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
}

/// A checkpoint: the state after delivering everything up to a number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// That number.
    pub seq: Seq,
    /// The state, in blocks.
    pub blocks: Vec<Bytes>,
}

/// What became of one message of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// It has this number for ever.
    Committed(Seq),
    /// It will never have a number: its lifetime is over, and all numbers it could have are known.
    Expired,
    /// Its lifetime is over; whether it has a number is not known here.
    Unknown,
}

/// To the node around the roles.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Word {
    /// The next of the order.
    Delivered(Arc<Vec<Entry>>),
    /// The order goes on after this checkpoint.
    Installed(Arc<Checkpoint>),
    /// What became of a call's messages.
    Outcome {
        /// The call.
        call: u64,
        /// Each with its outcome.
        messages: Vec<(Mid, Outcome)>,
    },
    /// A role asked servers for what it lacks.
    Asked(Question),
    /// How far the sequencer of this node is; told when that changes.
    Sequencer(SequencerReport),
    /// What the application says.
    Answer {
        /// The call.
        call: u64,
        /// The state was asked after this number.
        at: Seq,
        /// The answer.
        said: Result<Bytes, BadQuestion>,
    },
}

/// Which kind of question, for the counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// A commit server was asked for the messages of numbers.
    Order,
    /// A data server was asked for messages.
    Data,
    /// A checkpoint server was asked for blocks.
    Blocks,
}

/// How far a sequencer is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SequencerReport {
    /// Its epoch, while it orders.
    pub epoch: Option<Epoch>,
    /// The largest number committed.
    pub committed: Seq,
    /// The largest number assigned.
    pub assigned: Seq,
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
    /// To the node.
    #[serde(skip)]
    Word(Word),
}

impl Message {
    /// Whether another node may say it. All else is between the roles of one node.
    pub const fn travels(&self) -> bool {
        match self {
            Self::Sequencer(message) => {
                !matches!(message, SequencerMessage::Lead(_) | SequencerMessage::StepDown)
            }
            Self::Data(_) | Self::Committed(_) | Self::Gossip(_) | Self::Sent(_) => true,
            Self::Commit(message) => !matches!(message, CommitMessage::Forget(_)),
            Self::Checkpoint(message) => matches!(message, CheckpointMessage::Query { .. }),
            Self::Receiver(message) => !matches!(message, ReceiverMessage::Again(_)),
            Self::Sender(_) | Self::Delivered(_) | Self::Installed(_) | Self::Word(_) => false,
        }
    }

    /// Whether it carries what publishers said, and so may be large.
    pub const fn is_bulky(&self) -> bool {
        match self {
            Self::Sent(_) => true,
            Self::Receiver(message) => matches!(
                message,
                ReceiverMessage::Data(_)
                    | ReceiverMessage::Entries(_)
                    | ReceiverMessage::Blocks { .. }
            ),
            _ => false,
        }
    }

    /// What is said on a channel, as it comes to each role of a node; anything else is one role's.
    pub fn split(self, mut to: impl FnMut(Self)) {
        match self {
            Self::Committed(commit) => {
                to(Self::Commit(CommitMessage::Committed(commit.clone())));
                to(Self::Data(DataMessage::Committed(commit.clone())));
                to(Self::Receiver(ReceiverMessage::Committed(commit)));
            }
            Self::Gossip(gossip) => {
                to(Self::Commit(CommitMessage::Gossip(gossip.clone())));
                to(Self::Data(DataMessage::Gossip(gossip.clone())));
                to(Self::Checkpoint(CheckpointMessage::Gossip(gossip.clone())));
                to(Self::Receiver(ReceiverMessage::Gossip(gossip)));
            }
            Self::Sent(data) => {
                to(Self::Receiver(ReceiverMessage::Data(data.clone())));
                to(Self::Data(DataMessage::Store(data)));
            }
            Self::Delivered(entries) => {
                to(Self::Checkpoint(CheckpointMessage::Delivered(Arc::clone(&entries))));
                to(Self::Sender(SenderMessage::Delivered(Arc::clone(&entries))));
                to(Self::Word(Word::Delivered(entries)));
            }
            Self::Installed(checkpoint) => {
                to(Self::Sender(SenderMessage::Skipped(checkpoint.seq)));
                to(Self::Checkpoint(CheckpointMessage::Install(Arc::clone(&checkpoint))));
                to(Self::Word(Word::Installed(checkpoint)));
            }
            one => to(one),
        }
    }
}

macro_rules! messages {
    ($($kind:ident $message:ty;)*) => {$(
        impl From<$message> for Message {
            fn from(message: $message) -> Self {
                Self::$kind(message)
            }
        }
    )*};
}

messages! {
    Sequencer SequencerMessage;
    Data DataMessage;
    Commit CommitMessage;
    Checkpoint CheckpointMessage;
    Receiver ReceiverMessage;
    Sender SenderMessage;
    Committed Commit;
    Gossip Gossip;
    Word Word;
}
