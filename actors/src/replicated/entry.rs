//! The table behind a replicated actor: for each message how to run it and how it looks as JSON.

use std::fmt;

use actix::Handler;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{ApplyError, Function, JsonForm, Query, RemoteMessage, Replicated, Turn};

/// One message a replicated actor answers: its wire name and its code. A table of these is all
/// that `#[derive(Replicated)]` writes.
pub struct Entry<A> {
    function: Function,
    run: Run<A>,
    json: JsonForm,
}

enum Run<A> {
    Command(fn(&mut A, &[u8], &mut Turn) -> Answer),
    Query(fn(&A, &[u8]) -> Answer),
}

/// The encoded reply; an error left the state unchanged.
type Answer = Result<Vec<u8>, ApplyError>;

impl<A: Replicated> Entry<A> {
    /// The command `M`, executed by the actor's ordinary [`Handler`].
    pub const fn command<M>() -> Self
    where
        M: RemoteMessage,
        A: Handler<M, Result = M::Result>,
    {
        Self {
            function: Function::command(M::NAME),
            run: Run::Command(|actor, args, turn| {
                let message = decode::<M>(args)?;
                Ok(encode_reply::<M>(&Handler::<M>::handle(actor, message, turn)))
            }),
            json: JsonForm::of::<M>(),
        }
    }

    /// The query `M`, answered by the actor's [`Query`].
    pub const fn query<M>() -> Self
    where
        M: RemoteMessage,
        A: Query<M>,
    {
        Self {
            function: Function::query(M::NAME),
            run: Run::Query(|actor, args| {
                let message = decode::<M>(args)?;
                Ok(encode_reply::<M>(&Query::<M>::query(actor, message)))
            }),
            json: JsonForm::of::<M>(),
        }
    }

    /// The same, from that cluster version on; see [`Function::since`].
    #[must_use]
    pub const fn since(self, version: u32) -> Self {
        Self { function: self.function.since(version), ..self }
    }

    /// Checks a table when it is compiled: no two messages may share a wire name.
    ///
    /// ```compile_fail,E0080
    /// # use synod::{message::RemoteMessage, replicated::{Query, Replicated, Turn}};
    /// # use serde::{Deserialize, Serialize};
    /// #[derive(actix::Message, Serialize, Deserialize, RemoteMessage)]
    /// #[rtype(result = "()")]
    /// #[remote(name = "same")]
    /// struct One;
    ///
    /// #[derive(actix::Message, Serialize, Deserialize, RemoteMessage)]
    /// #[rtype(result = "()")]
    /// #[remote(name = "same")]
    /// struct Other;
    ///
    /// #[derive(Default, Serialize, Deserialize, Replicated)]
    /// #[replicated(name = "twins", queries(One, Other))]
    /// struct Twins;
    /// # impl actix::Actor for Twins { type Context = Turn; }
    /// # impl Query<One> for Twins { fn query(&self, _: One) {} }
    /// # impl Query<Other> for Twins { fn query(&self, _: Other) {} }
    /// # fn main() { assert_eq!(Twins::ENTRIES.len(), 2); }
    /// ```
    pub const fn distinct<const N: usize>(entries: [Self; N]) -> [Self; N] {
        let mut a = 0;
        while a < N {
            let mut b = a + 1;
            while b < N {
                assert!(
                    entries[a].function.id != entries[b].function.id,
                    "two messages of a replicated actor have the same wire name"
                );
                b += 1;
            }
            a += 1;
        }
        entries
    }

    /// Name, number and kind.
    pub const fn function(&self) -> Function {
        self.function
    }

    /// How arguments and reply look as JSON.
    pub const fn json(&self) -> JsonForm {
        self.json
    }
}

/// Runs the command `function` of `actor`.
pub(super) fn dispatch<A: Replicated>(
    actor: &mut A,
    function: u64,
    args: &[u8],
    turn: &mut Turn,
) -> Answer {
    match find::<A>(function) {
        Some(Run::Command(run)) => run(actor, args, turn),
        Some(Run::Query(_)) | None => Err(ApplyError::UnknownFunction { id: function }),
    }
}

/// Answers the query `function` of `actor`.
pub(super) fn dispatch_query<A: Replicated>(actor: &A, function: u64, args: &[u8]) -> Answer {
    match find::<A>(function) {
        Some(Run::Query(run)) => run(actor, args),
        Some(Run::Command(_)) | None => Err(ApplyError::UnknownFunction { id: function }),
    }
}

fn find<A: Replicated>(function: u64) -> Option<&'static Run<A>> {
    A::ENTRIES.iter().find(|entry| entry.function.id == function).map(|entry| &entry.run)
}

fn decode<M: DeserializeOwned>(args: &[u8]) -> Result<M, ApplyError> {
    rmp_serde::from_slice(args).map_err(|error| ApplyError::BadArguments(error.to_string()))
}

/// The handler has already run, so this cannot answer with an error that says *state unchanged*:
/// it panics, and the replica rebuilds the actor without the command, like after any other panic.
fn encode_reply<M: RemoteMessage>(reply: &M::Result) -> Vec<u8> {
    rmp_serde::to_vec_named(reply)
        .unwrap_or_else(|error| panic!("the reply to {} has no serde form: {error}", M::NAME))
}

impl<A> fmt::Debug for Entry<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.function.fmt(f)
    }
}

/// Converts JSON arguments to MessagePack.
pub(super) type ArgsFromJson = fn(&Value) -> Result<Vec<u8>, super::JsonError>;
/// Converts a MessagePack reply to JSON.
pub(super) type ReplyToJson = fn(&[u8]) -> Result<Value, super::JsonError>;
