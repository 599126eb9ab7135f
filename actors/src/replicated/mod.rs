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
//! - [`Handle`]: the typed way in
//! - [`ActorCatalogue`]: messages as JSON, for HTTP and the command line
//! - [`local::LocalLog`]: a log of one process, for unit tests

mod entry;
mod handle;
mod json;
pub mod local;
mod nearest;
mod outcome;
mod state_machine;
mod submit;
mod turn;

use actix::{Actor, Message};
pub use rand;
use serde::{Serialize, de::DeserializeOwned};
pub use synod_derive::Replicated;

pub(crate) use self::nearest::distance;
pub use self::{
    entry::Entry,
    handle::{Call, CallError, Handle},
    json::{ActorCatalogue, ActorDescriptor, JsonError, JsonForm, JsonFunction},
    nearest::nearest,
    outcome::{Outcome, Reason, Refusal},
    state_machine::{ApplyError, Function, Host, RestoreError, StateMachine},
    submit::{
        ARGS_BYTES_MAX, BadIdempotencyKey, Consistency, DEADLINE_DEFAULT, Done,
        IDEMPOTENCY_KEY_BYTES_MAX, IdempotencyKey, Inquiry, Submission, Submit,
    },
    turn::{Moment, Position, SessionId, Turn},
};

/// An actor that lives in the log. Derive it:
///
/// ```ignore
/// #[derive(Default, Serialize, Deserialize, Replicated)]
/// #[replicated(name = "ledger", commands(Transfer), queries(Balance))]
/// struct Ledger { accounts: BTreeMap<String, i64> }
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
pub trait Query<M: Message> {
    /// The answer to `question`.
    fn query(&self, question: M) -> M::Result;
}

/// A message with a wire name.
pub trait RemoteMessage: Message + Serialize + DeserializeOwned + Send + 'static {
    /// The wire name, chosen by hand and stable.
    const NAME: &'static str;
}

/// The number that stands for a name on the wire and in the log: FNV-1a, 64 bits, over its bytes.
/// Never changes.
pub const fn name_hash(name: &str) -> u64 {
    let bytes = name.as_bytes();
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut i = 0;
    while i < bytes.len() {
        hash = (hash ^ bytes[i] as u64).wrapping_mul(0x0000_0100_0000_01b3);
        i += 1;
    }
    hash
}

#[cfg(test)]
pub(crate) mod tests;
