//! What clients asked of a few counters and what they were told, and whether one order of all
//! calls explains it.
//!
//! # Layout
//! - [`clients`]: threads that read, write, compare-and-set and count up keys at real nodes, and
//!   note every call
//! - [`judge`]: whether a history is linearizable
//! - [`edn`]: the same history as a file, for judges that are not ours

pub mod clients;
pub mod edn;
pub mod judge;

use synod_runtime::world::Instant;

/// One call, from its begin to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Operation {
    /// Who made it. A process makes one call after the other; one that never learned what became
    /// of a call makes no more.
    pub process: u64,
    /// Of which key.
    pub key: u8,
    /// What it asked for.
    pub call: Call,
    /// What it was told.
    pub told: Told,
    /// When it asked.
    pub began: Instant,
    /// When it was told, or gave up.
    pub ended: Instant,
}

/// What can be asked of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// Its value.
    Read,
    /// That it be this.
    Write(i64),
    /// That it be `new` if it is `old`.
    Cas {
        /// What it must be.
        old: i64,
        /// What it shall be.
        new: i64,
    },
    /// One more; a key that is not there counts as 0.
    Incr,
}

/// What a client was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// A read: the value, if there is any. A compare-and-set: it was this, so nothing was done.
    Value(Option<i64>),
    /// A write or a compare-and-set: done.
    Done,
    /// An increment: the value it made.
    Counted(i64),
    /// A compare-and-set: somebody wrote the key meanwhile, so nothing was done.
    Missed,
    /// *Not applied*: it surely did nothing, and tells nothing.
    Refused,
    /// It may have happened, and may still happen.
    Unknown,
}
