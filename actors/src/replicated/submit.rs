//! The way into the log, for listeners and typed handles.

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::sync::oneshot;

use super::{CallError, Function, Outcome, Position};

/// Called exactly once, on the protocol arbiter: it must not block.
pub type Done = Box<dyn FnOnce(Outcome) + Send>;

/// The way into the log. One object for everybody, so that tests can put
/// [`LocalLog`](super::local::LocalLog) in its place.
pub trait Submit: Send + Sync {
    /// Submits one turn's worth of commands; their order is kept.
    fn submit(&self, batch: Vec<Submission>);

    /// Answers queries, each at a state no older than its consistency allows.
    fn query(&self, batch: Vec<Inquiry>);
}

impl dyn Submit {
    /// One query, asked at once, which is linearizable: what it answers is not old when it is asked. Its
    /// reply, and the position of the state that answered.
    pub(crate) fn look(
        &self,
        actor: u64,
        function: Function,
        args: Bytes,
        deadline: Duration,
    ) -> impl Future<Output = Result<(Bytes, Position), CallError>> + Send + use<> + 'static {
        let (answer, answered) = oneshot::channel();
        self.query(vec![Inquiry {
            actor,
            function: function.id,
            args,
            consistency: Consistency::Linearizable,
            deadline,
            done: Box::new(move |outcome| drop(answer.send(outcome))),
        }]);
        async move {
            let stopped = |_| Outcome::Unknown("the node stopped".into());
            CallError::check(answered.await.unwrap_or_else(stopped))
        }
    }
}

/// One command on its way into the log.
pub struct Submission {
    /// [`name_hash`](super::name_hash) of the actor's name.
    pub actor: u64,
    /// [`name_hash`](super::name_hash) of the message's wire name.
    pub function: u64,
    /// The message, as a MessagePack named map.
    pub args: Bytes,
    /// How long the caller waits. Checked before the command is proposed, never at execution.
    pub deadline: Duration,
    /// Makes a repeated call replay its first answer, at whichever node.
    pub idempotency: Option<IdempotencyKey>,
    /// Gets the outcome.
    pub done: Done,
}

/// One query.
pub struct Inquiry {
    /// [`name_hash`](super::name_hash) of the actor's name.
    pub actor: u64,
    /// [`name_hash`](super::name_hash) of the message's wire name.
    pub function: u64,
    /// The message, as a MessagePack named map.
    pub args: Bytes,
    /// How fresh the state must be.
    pub consistency: Consistency,
    /// How long the caller waits.
    pub deadline: Duration,
    /// Gets the outcome.
    pub done: Done,
}

/// How fresh the state a query reads must be.
///
/// ```
#[doc = include_str!("../../docs/examples/counter.txt")]
/// # actix::System::new().block_on(async {
/// # let (_log, counter) = local::LocalLog::with::<Counter>("counter");
/// // Good enough for a page that says "about so many", and never waits.
/// let about = counter.query(Total).consistency(Consistency::Local).await;
/// assert_eq!(about, Ok(0));
/// # });
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Consistency {
    /// It holds every command answered before the query was asked, wherever.
    #[default]
    Linearizable,
    /// It holds every command answered longer ago than this. Asks nobody as long as another read
    /// here was linearizable within that time, else it is linearizable itself.
    Bounded(Duration),
    /// Whatever this node has executed: never waits, may be old.
    Local,
}

/// Names one intention of a client, so that repeating it changes nothing: 1 to
/// [`IDEMPOTENCY_KEY_BYTES_MAX`] bytes. Cloning is cheap.
///
/// ```
#[doc = include_str!("../../docs/examples/counter.txt")]
/// # actix::System::new().block_on(async {
/// # let (_log, counter) = local::LocalLog::with::<Counter>("counter");
/// let key = IdempotencyKey::new("order-17").unwrap();
/// assert_eq!(counter.send(Add(2)).idempotency(key.clone()).await, Ok(2));
/// // Once more, since nobody knows whether the first came through: it is the same answer.
/// assert_eq!(counter.send(Add(2)).idempotency(key).await, Ok(2));
/// assert_eq!(counter.query(Total).await, Ok(2));
/// # });
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IdempotencyKey(pub(crate) Named);

/// What names an intention.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Named {
    /// A text of the client's choice.
    Text(Arc<str>),
    /// The opening of a session of a client outside the cluster, by its nonce.
    Opening(u64),
    /// A call of such a session.
    Guest(GuestCall),
}

/// One call of a session of a client outside the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct GuestCall {
    /// The session.
    pub(crate) session: u64,
    /// The call's number in it, from 1 on.
    pub(crate) seq: u64,
    /// The lowest number the client still waits for.
    pub(crate) open: u64,
}

impl IdempotencyKey {
    /// Checks the length of `key`.
    pub fn new(key: &str) -> Result<Self, BadIdempotencyKey> {
        if key.is_empty() || key.len() > IDEMPOTENCY_KEY_BYTES_MAX {
            return Err(BadIdempotencyKey { len: key.len() });
        }
        Ok(Self(Named::Text(key.into())))
    }

    /// The key, if it is a text.
    pub(crate) fn text(&self) -> Option<&str> {
        match &self.0 {
            Named::Text(text) => Some(text),
            Named::Opening(_) | Named::Guest(_) => None,
        }
    }

    /// Names the opening of a session.
    pub(crate) const fn opening(nonce: u64) -> Self {
        Self(Named::Opening(nonce))
    }

    /// Names a call of a session.
    pub(crate) const fn of_guest(call: GuestCall) -> Self {
        Self(Named::Guest(call))
    }
}

/// An idempotency key of an impossible length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an idempotency key has 1 to {IDEMPOTENCY_KEY_BYTES_MAX} bytes, this one has {len}")]
pub struct BadIdempotencyKey {
    /// Bytes of the key that was given.
    pub len: usize,
}

/// Keys are kept in memory at every main for 24 hours; a UUID has 36 bytes.
pub const IDEMPOTENCY_KEY_BYTES_MAX: usize = 255;

/// The deadline of calls that name none. Fail-over takes a third of a second; this leaves room for
/// several in a row.
pub const DEADLINE_DEFAULT: Duration = Duration::from_secs(5);

/// Largest MessagePack arguments of one command: with its headers it must fit one frame.
pub const ARGS_BYTES_MAX: usize = 4 * 1024 * 1024;

impl fmt::Debug for Submission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Submission")
            .field("actor", &self.actor)
            .field("function", &self.function)
            .field("args_len", &self.args.len())
            .field("deadline", &self.deadline)
            .field("idempotency", &self.idempotency)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Inquiry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inquiry")
            .field("actor", &self.actor)
            .field("function", &self.function)
            .field("args_len", &self.args.len())
            .field("consistency", &self.consistency)
            .field("deadline", &self.deadline)
            .finish_non_exhaustive()
    }
}
