//! Why a message was not delivered or not answered, and what became of it.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Why a message got no answer, and what became of it: see [`SendError::outcome`].
///
/// ```
/// # use synod_runtime::address::{Delivery, SendError};
/// // Only one of the two may be sent again without a second thought.
/// assert_eq!(SendError::Overloaded.outcome(), Delivery::NotRun);
/// assert_eq!(SendError::Timeout.outcome(), Delivery::Unknown);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum SendError {
    /// No answer within the deadline. Outcome unknown.
    #[error("no answer in time: outcome unknown")]
    Timeout,
    /// There is no link to the node. Not run.
    #[error("the node cannot be reached: not run")]
    Unreachable,
    /// No actor has that name there, or it ended before it came to the message. Not run.
    #[error("no such actor: not run")]
    NoSuchActor,
    /// The link or the actor has no room; for an ask: had none until its deadline. Not run.
    #[error("overloaded: not run")]
    Overloaded,
    /// The node is leaving the cluster and takes no new work. Not run.
    #[error("the node is leaving: not run")]
    Leaving,
    /// The sender acted for an epoch that is over. Not run.
    #[error("fenced: epoch {epoch} was granted: not run")]
    Fenced {
        /// The epoch that counts now.
        epoch: u64,
    },
    /// The actor there does not take this message. Not run.
    #[error("{name} is not taken there: not run")]
    Incompatible {
        /// The message's name.
        name: String,
    },
    /// The message cannot be written here or read there, or the answer cannot be written there or
    /// read here. Outcome unknown.
    #[error("unreadable message or answer: outcome unknown")]
    Codec,
    /// The actor ended while it worked on it, or the link broke before the answer. Outcome unknown.
    #[error("closed before the answer: outcome unknown")]
    Closed,
}

/// What is known of a message that got no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// No handler ran and none will.
    NotRun,
    /// A handler may have run, may be running, or may yet run.
    Unknown,
}

impl SendError {
    /// Whether a handler may have run.
    pub fn outcome(&self) -> Delivery {
        match self {
            Self::Unreachable
            | Self::NoSuchActor
            | Self::Overloaded
            | Self::Leaving
            | Self::Fenced { .. }
            | Self::Incompatible { .. } => Delivery::NotRun,
            Self::Timeout | Self::Codec | Self::Closed => Delivery::Unknown,
        }
    }

    /// The label under which a lost tell is counted.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Unreachable => "unreachable",
            Self::NoSuchActor => "no_such_actor",
            Self::Overloaded => "overloaded",
            Self::Leaving => "leaving",
            Self::Fenced { .. } => "fenced",
            Self::Incompatible { .. } => "incompatible",
            Self::Codec => "codec",
            Self::Closed => "closed",
        }
    }

    /// Whether the same message may fare better a little later.
    pub(super) fn may_pass(&self) -> bool {
        match self {
            Self::Unreachable | Self::NoSuchActor | Self::Overloaded | Self::Closed => true,
            // It is on its way out, and comes back as another process if at all.
            Self::Leaving => false,
            Self::Timeout | Self::Fenced { .. } | Self::Incompatible { .. } | Self::Codec => false,
        }
    }
}

/// A message that was not sent, given back with the reason. No handler ran or will.
#[derive(Clone, PartialEq, Eq)]
pub struct TrySendError<M> {
    /// Why it was not sent.
    pub error: SendError,
    /// What was to be sent.
    pub message: M,
}

impl<M> From<TrySendError<M>> for SendError {
    fn from(refused: TrySendError<M>) -> Self {
        refused.error
    }
}

impl<M> fmt::Debug for TrySendError<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TrySendError").field("error", &self.error).finish_non_exhaustive()
    }
}

impl<M> fmt::Display for TrySendError<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl<M> std::error::Error for TrySendError<M> {}
