//! Roles with exactly one holder: leases with epochs, decided by the log.
//!
//! ```text
//!  client ── volunteer, ask, resign ──> service (one per node)
//!  client <── leading(epoch, deadline), following, lost ──┘ │ one command a period for all roles:
//!                                                           │ take, renew, resign
//!        log: ... 17 take … 23 renew … 31 expire …  <───────┘
//!               │ applied by every main                  ^
//!               v                                        │ expire, drop: proposed by the leader
//!        roles (the same at every main) ──> count ───────┘ when its own count says so
//! ```
//! A role is a name. Whoever is granted it holds it for its lease T, and for as long as it renews.
//! The *epoch* of a holder is the position of the command that granted the role, and thereby rises
//! for ever. T is fixed by the grant. No two clocks are compared: each side counts by its own, which
//! may run wrong by one part in a hundred ([`lease`]).
//!
//! - I1: a holder acts until T·(1−ρ) after it *first sent* the renewal that was answered *renewed*
//!   in its epoch, or the very request that its grant answered.
//! - I2: a main counts from when it *applied* a renewal, or installed a state that holds it, or
//!   started; only when T·(1+ρ) has passed by that count may it, leading, propose to expire. The
//!   command names the renewal it counts from, and does nothing if there was a later one.
//! - I3: whoever stood and is granted a role, or learns that it held it already, acts only after a
//!   renewal sent after learning of it. Until that one is applied the grant is *unconfirmed* and may
//!   be expired after T/4, since nobody can be acting on it.
//! - I4: a holder stops acting before it sends that it resigns, and no later answer revives that
//!   epoch.
//! - I5: a role is released early only by its holder, or when the process that holds it was seen to
//!   end; never for silence.
//! - I6: a renewal speaks for a client only if that client has asked since the one before.
//! - I7: who stands is renewed likewise, and dropped likewise, before any role is expired.
//!
//! From these follows: no two may act in a role at one instant, a live holder that renews keeps its
//! role, and somebody holds it soon after faults end.
//!
//! # Layout
//! - [`message`]: what is asked of the store and what it answers
//! - [`roles`]: the store, a deterministic state; [`store`]: it under the log
//! - [`count`]: a main's own count; [`HighWater`]: the resource's check
//! - [`service`]: the machine of a node's election service; [`lease`]: the arithmetic of leases
//! - [`mod@line`]: the messages of a proxy to a holder; [`tenure`]: when a holder steps down
//! - [`watch`]: every change in order, for those who watch
//! - [`page`]: a role in a register, where roles are not kept in the log

/// Whether a rule is switched off, to see that the judges notice; never in a normal build.
macro_rules! off {
    ($rule:ident) => {{
        #[cfg(any(test, feature = "mutations"))]
        {
            crate::mutation::is_off(crate::mutation::RoleRule::$rule)
        }
        #[cfg(not(any(test, feature = "mutations")))]
        {
            false
        }
    }};
}

mod high_water;

pub mod count;
pub mod lease;
pub mod line;
pub mod message;
pub mod page;
pub mod roles;
pub mod service;
pub mod store;
pub mod tenure;
pub mod watch;

pub use high_water::{HighWater, Stale};
