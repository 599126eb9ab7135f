//! Actors that are rebuilt after a panic, behind the same address, with nothing queued lost.
//!
//! actix's own supervisor restarts only after a clean stop, on the same object and in a tight
//! loop; a panic ends the actor without telling anybody. Here the supervisor owns the mailbox:
//!
//! ```text
//!  Addr ──► mailbox (actix channel) ──► Backlog ──► Pump ──► handlers      one life of the actor:
//!           kept by the supervisor for ever         └──────────────┘       ContextFut, dropped whole
//! ```
//!
//! A life is a fresh actor from the factory in a fresh `ContextFut`, whose context hands out the
//! address of the one mailbox. Its first task, the `Pump`, feeds it from the
//! backlog. When a life ends, by a panic or a stop, only the message being handled goes with it;
//! its timers and futures are dropped, and after the wait the [`Policy`] asks for, the next life
//! begins, starting with `started()`.
//!
//! What actix spawns outside of the context (`ResponseFuture`) is not watched: a panic there
//! costs that one reply.

mod control;
mod elsewhere;
mod lives;
mod machine;
mod mailbox;
mod permit;
mod policy;
#[cfg(test)]
mod tests;
pub mod tree;

pub(crate) use self::{
    control::{Control, Manager},
    lives::{Lives, Setting},
    mailbox::charge,
};
pub use self::{
    machine::Strategy,
    permit::Permit,
    policy::{Policy, Restart, TurnBudget},
    tree::{Supervisor, Tree},
};

/// A failure injected into one supervised actor, to see that everything around it holds. Only
/// code can reach this: no message and no configuration does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Its next turn panics.
    Panic,
    /// It stops as if it had called `ctx.stop()`.
    Stop,
}
