//! Consensus: Cheap Paxos over a log of steps.
//!
//! ```text
//!  client ─► home ─Request─► proposer(A) ─Accept─► acceptor(A) ─► disk
//!                                │                     └─Voted──► learner(A) ─Execute─► replica(A)
//!                                └──────Accept──► acceptor(B) ─► disk        ▲
//!                                                     └─Voted──► learner(B)  │ Accepted
//!  client ◄─ home ◄──Replies── replica(B) ◄─Execute─────┘  └─────────────────┘
//! ```
//! A step holds a batch of commands. In good times it is chosen when all mains voted for it; the
//! auxiliary hears nothing and writes nothing. The leader's message carries its vote (or its vote
//! follows in a mark, when its disk is slower than the wire), so the receiver alone sees that the
//! step is chosen, executes it and answers the client. When a main falls silent the auxiliary
//! completes the open steps, the main is voted out by a step of the log itself, and comes back by
//! catching up and another such step.
//!
//! # Invariants
//! - **I1** One value is chosen a step, at every node and for ever: any two quorums of a step's
//!   configuration share a node, and a ballot is led only after a quorum reported its votes.
//! - **I2** Steps are learned and executed in order; who votes on step `n` is known exactly from
//!   the steps up to `n - ALPHA`, never guessed.
//! - **I3** No vote and no promise is said before it is durable, and none contradicts an earlier
//!   promise.
//! - **I4** One value a ballot and step; a ballot is used by one run of one leader.
//! - **I5** A command of a session executes at most once, in the order of its session.
//! - **I6** In failure-free work an auxiliary gets heartbeats only, and writes nothing.
//!
//! # Rooms
//! [`acceptor`], [`proposer`], [`learner`], [`replica`], [`auxiliary`] are the roles, each a pure
//! machine; [`home`] stands for clients; [`message`] holds what they say, [`record`] what they keep.

/// Counts, for tests, what a machine does only now and then.
macro_rules! sometimes {
    ($what:ident $(if $that:expr)?) => {
        #[cfg(any(test, feature = "mutations"))]
        if true $(&& $that)? {
            crate::sometimes::note(crate::sometimes::Sometimes::$what);
        }
    };
}

pub mod acceptor;
pub mod auxiliary;
pub mod ballot;
pub mod configuration;
pub mod founder;
pub mod home;
pub mod learner;
pub mod lives;
pub mod message;
pub mod proposer;
pub mod record;
pub mod replica;
pub(crate) mod salvage;
pub mod timing;
pub mod value;

pub use self::timing::{Profile, Timing, VoteStyle};
