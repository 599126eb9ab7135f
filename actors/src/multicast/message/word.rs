//! What roles say to the node around them.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{Checkpoint, Entry, Mid, Seq};
use crate::{election::message::Epoch, multicast::application::BadQuestion};

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
    /// What keeps the largest number beside the servers shall hold at least that one, and none of an
    /// earlier epoch may raise it any more.
    Maximum {
        /// Of who asks.
        epoch: Epoch,
        /// The number.
        seq: Seq,
    },
    /// Somebody knows newer servers of the group than this node.
    Outdated,
    /// How far this node is on its way into the group.
    Step(Step),
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

/// A step of a node on its way into a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Its commit server has on disk what a reign began with.
    Adopted {
        /// By which servers.
        version: u64,
        /// The highest number that one of them had dropped.
        floor: Seq,
        /// The largest number that was in use.
        top: Seq,
    },
    /// Its data server has on disk, or a checkpoint here holds, all up to there.
    Filled(Seq),
    /// Its checkpoint server has that checkpoint on disk.
    Kept(Seq),
    /// That checkpoint is advertised.
    Advertised(Seq),
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
