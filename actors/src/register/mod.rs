//! Registers: a few words each, that any of several clients reads, writes or changes, kept by a
//! majority of holders and without a leader, a log or a clock.
//!
//! ```text
//!  client                   holders (two mains first; an auxiliary only when one is missing)
//!    | read  ───────────────────> written, ordered, value        one round, if nothing is open
//!    |
//!    | order(ts)  ──────────────> ordered := ts, unless a higher one was; what is there
//!    | write(ts, value) ────────> written := ts, unless a higher one was ordered     two rounds
//!    | write(ts', value) ───────> likewise: one more value under that order          one round
//! ```
//! The other form needs no server that decides: in [`disk`] every client has a block of its own on
//! each of several disks (Disk Paxos).
//!
//! - G1: a holder orders nothing below what it ordered or wrote, and writes nothing below what it
//!   ordered. What it says is durable before it is said.
//! - G2: a client writes only behind an order that a majority took, with one time stamp, used once.
//! - G3: a change writes what it made of the newest value among a majority that took its order.
//! - G4: a read answers what a majority holds as written, and above which that majority ordered
//!   nothing; else it orders the newest value it saw anew, and writes it, before it answers.
//! - G5: whoever meets a higher order gives up, and says whether it may have written.
//! - G6: a client whose write is done may write again under the same order, what it makes of that value:
//!   with a stamp of its own, above the last and below every order that is above it. Never after a call
//!   of which it does not know what became. So whoever orders after it sees it, or is not overtaken by it.
//!
//! From these follows: all calls have one order that agrees with time, and a write that was cut off
//! is rolled forward or back by the next call, for good. A conflict ends in *given up*, never in a
//! lie: somebody else got on, and the loser tries again a little later.
//!
//! # Layout
//! - [`message`]: what is asked of a holder and what it answers; [`Timestamp`]
//! - [`holder`]: the machine that keeps registers; [`operation`]: the machine of one call
//! - [`disk`]: the same on passive disks

/// Whether a rule is switched off, to see that the judges notice; never in a normal build.
macro_rules! off {
    ($rule:ident) => {{
        #[cfg(any(test, feature = "mutations"))]
        {
            crate::mutation::is_register_rule_off(crate::mutation::RegisterRule::$rule)
        }
        #[cfg(not(any(test, feature = "mutations")))]
        {
            false
        }
    }};
}

pub mod disk;
pub mod holder;
pub mod message;
pub mod operation;

pub use self::{
    message::{Timestamp, VALUE_BYTES_MAX},
    operation::{Call, Goal, Holders, Outcome, Stamps, Written},
};
