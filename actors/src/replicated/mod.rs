//! Replicated actors: ordinary actix actors whose context is one command of the log.
//!
//! ```text
//!  Handle<A> ─┐                                   ┌─ replica at a: StateMachine (Host<A>)
//!  HTTP, RESP ┼─ Submit ── log: 1 2 3 4 5 … ──────┤
//!  CLI ───────┘                                   └─ replica at b: StateMachine (Host<A>)
//! ```
//! Every replica executes the same commands in the same order, each in a [`Turn`] that is equal
//! everywhere, and so every replica has the same state and would give the same reply.
//!
//! - I1: an actor changes only in `Handler::handle`, and only by what state, message and turn say.
//! - I2: a query takes `&self`: it cannot change anything.
//! - I3: an error of [`StateMachine::apply`] leaves the state unchanged.
//! - I4: equal states give equal snapshots.
//!
//! # Layout
//! - [`Turn`], [`Moment`], [`Position`]: what a handler sees
//! - [`StateMachine`] and [`Host`]: what the replica drives
//! - [`Submit`], [`Outcome`]: the way into the log and what comes back
//! - [`Handle`]: the typed way in; [`Desk`]: what this node has executed, seen from outside the log
//! - [`ActorCatalogue`]: messages as JSON, for HTTP and the command line
//! - [`local::LocalLog`]: a log of one process, for unit tests

mod desk;
mod entry;
mod fence;
mod handle;
mod json;
pub mod local;
mod nearest;
mod outcome;
mod roster;
mod state_machine;
mod submit;
mod turn;

use actix::{Actor, Message};
pub use rand;
use serde::{Serialize, de::DeserializeOwned};
pub use synod_derive::Replicated;
pub use synod_runtime::wire::name_hash;

pub use crate::message::RemoteMessage;

pub use self::{
    desk::Desk,
    entry::Entry,
    fence::{BadFence, FENCE_REFUSED, Fence},
    handle::{Call, CallError, Handle},
    json::{ActorCatalogue, ActorDescriptor, JsonError, JsonForm, JsonFunction},
    nearest::nearest,
    outcome::{Outcome, Reason, Refusal},
    roster::Roster,
    state_machine::{ApplyError, Function, Host, InParts, RestoreError, StateMachine},
    submit::{
        ARGS_BYTES_MAX, BadIdempotencyKey, Consistency, DEADLINE_DEFAULT, Done,
        IDEMPOTENCY_KEY_BYTES_MAX, IdempotencyKey, Inquiry, Submission, Submit,
    },
    turn::{Moment, Position, SessionId, Turn},
};
pub(crate) use self::{
    fence::{FENCED, Fenced},
    nearest::distance,
    state_machine::{is_in_force, known_version},
    submit::{GuestCall, Named},
};

/// An actor that lives in the log. Derive it:
///
/// ```
/// use actix::{Actor, Handler, Message};
/// use serde::{Deserialize, Serialize};
/// use synod::{
///     message::RemoteMessage,
///     replicated::{Query, Replicated, Turn, local::LocalLog},
/// };
///
/// #[derive(Message, Serialize, Deserialize, RemoteMessage)]
/// #[rtype(result = "u64")]
/// #[remote(name = "counter.add")]
/// struct Add { by: u64 }
///
/// #[derive(Message, Serialize, Deserialize, RemoteMessage)]
/// #[rtype(result = "u64")]
/// #[remote(name = "counter.total")]
/// struct Total;
///
/// #[derive(Default, Serialize, Deserialize, Replicated)]
/// #[replicated(name = "counter", commands(Add), queries(Total))]
/// struct Counter { total: u64 }
///
/// impl Actor for Counter { type Context = Turn; }
///
/// impl Handler<Add> for Counter {
///     type Result = u64;
///     fn handle(&mut self, add: Add, _turn: &mut Turn) -> u64 {
///         self.total += add.by;
///         self.total
///     }
/// }
///
/// impl Query<Total> for Counter {
///     fn query(&self, _: Total) -> u64 { self.total }
/// }
///
/// # actix::System::new().block_on(async {
/// let (_log, counter) = LocalLog::with::<Counter>("counter");
/// assert_eq!(counter.send(Add { by: 2 }).await, Ok(2));
/// assert_eq!(counter.query(Total).await, Ok(2));
/// # });
/// ```
///
/// Each command is an ordinary `Handler<M>` with `type Result = M::Result`, each query a
/// [`Query<M>`]; the compiler checks both.
pub trait Replicated:
    Actor<Context = Turn> + Default + Serialize + DeserializeOwned + Send
{
    /// The wire name of the type.
    const NAME: &'static str;

    /// Its commands and queries.
    const ENTRIES: &'static [Entry<Self>];

    /// Executes the command `function`; an error leaves the state unchanged.
    fn dispatch(
        &mut self,
        function: u64,
        args: &[u8],
        turn: &mut Turn,
    ) -> Result<Vec<u8>, ApplyError> {
        entry::dispatch(self, function, args, turn)
    }

    /// Answers the query `function`.
    fn dispatch_query(&self, function: u64, args: &[u8]) -> Result<Vec<u8>, ApplyError> {
        entry::dispatch_query(self, function, args)
    }
}

/// Answers a question about the state without changing it.
///
/// ```
#[doc = include_str!("../../docs/examples/counter.txt")]
/// // `impl Query<Total> for Counter { fn query(&self, _: Total) -> u64 { self.0 } }`
/// # actix::System::new().block_on(async {
/// # let (_log, counter) = local::LocalLog::with::<Counter>("counter");
/// assert_eq!(counter.query(Total).await, Ok(0));
/// # });
/// ```
pub trait Query<M: Message> {
    /// The answer to `question`.
    fn query(&self, question: M) -> M::Result;
}

#[cfg(test)]
pub(crate) mod tests;
