//! What a finished call says: applied, not applied, or nobody knows.

use std::fmt;

use bytes::Bytes;

use super::Position;

/// How a submitted command or query ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Executed; this is its reply (MessagePack, named maps).
    Applied {
        /// The handler's result.
        reply: Bytes,
        /// The command's own position; for a query the position of the state it read.
        position: Position,
    },
    /// Never appended to any journal nor sent to anybody: the state did not change and will not.
    NotApplied(Refusal),
    /// It may have been executed or may yet be; ask again with the same idempotency key.
    Unknown(String),
    /// Decided, but it had no effect: the handler panicked, or the arguments could not be read.
    Failed(String),
    /// The session of a client outside the cluster has ended: what it left open may or may not have
    /// been executed, and nobody knows any more.
    SessionExpired(String),
}

impl Outcome {
    /// The contract's word for this outcome: `applied`, `not_applied` or `unknown`. A failed
    /// command is `unknown`, since *not applied* is kept for what never reached a journal.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Applied { .. } => "applied",
            Self::NotApplied(_) => "not_applied",
            Self::Unknown(_) | Self::Failed(_) | Self::SessionExpired(_) => "unknown",
        }
    }
}

/// Why a command was not even proposed. The state did not change.
///
/// Made from a text (`"…".into()`) it is [`Reason::Unavailable`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The kind, for listeners that answer each kind in their own way.
    pub reason: Reason,
    /// For people: names what is missing.
    pub text: String,
}

impl Refusal {
    /// A refusal of kind `reason` that says `text`.
    pub fn new(reason: Reason, text: impl Into<String>) -> Self {
        Self { reason, text: text.into() }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl From<String> for Refusal {
    fn from(text: String) -> Self {
        Self { reason: Reason::Unavailable, text }
    }
}

impl From<&str> for Refusal {
    fn from(text: &str) -> Self {
        text.to_owned().into()
    }
}

/// The kinds of refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// No quorum, no leader, shutting down, or the deadline passed before it was proposed: try
    /// again later.
    Unavailable,
    /// The journal's disk is full; reads are still served.
    Full,
    /// Larger than one command may be.
    TooLarge,
    /// No state machine of that name is hosted by this cluster.
    NoSuchActor,
    /// The idempotency key was used before with another command.
    KeyReused,
    /// The author's role has passed on: a higher epoch is known than that of its fence.
    Fenced,
}
