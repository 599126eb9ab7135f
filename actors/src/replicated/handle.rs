//! The typed way in: send a command, ask a query, get the handler's own result back.

use std::{
    fmt,
    future::Future,
    marker::PhantomData,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use actix::Handler;
use bytes::Bytes;
use serde::Serialize;
use tokio::sync::oneshot;

use super::{
    ARGS_BYTES_MAX, Consistency, DEADLINE_DEFAULT, Fence, IdempotencyKey, Inquiry, Outcome,
    Position, Query, Reason, Refusal, RemoteMessage, Replicated, Submission, Submit, name_hash,
};

/// A replicated actor as its users hold it. Cloning is cheap; it works from any thread.
///
/// ```
#[doc = include_str!("../../docs/examples/counter.txt")]
/// # actix::System::new().block_on(async {
/// // Here under a log of one process; `Cluster::client` and services give the real way in.
/// let (_log, counter) = local::LocalLog::with::<Counter>("counter");
/// assert_eq!(counter.send(Add(2)).await, Ok(2));
/// assert_eq!(counter.query(Total).await, Ok(2));
/// let (total, position) = counter.send(Add(3)).with_position().await.unwrap();
/// assert_eq!((total, position), (5, Position(2)));
/// # });
/// ```
pub struct Handle<A> {
    submit: Arc<dyn Submit>,
    actor: u64,
    actor_type: PhantomData<fn() -> A>,
}

impl<A: Replicated> Handle<A> {
    /// The actor addressed as `name`, reached through `submit`.
    pub fn new(submit: Arc<dyn Submit>, name: &str) -> Self {
        Self { submit, actor: name_hash(name), actor_type: PhantomData }
    }

    /// One command of the log: executed exactly once at every replica, even if a node dies now.
    /// Nothing is sent before the returned [`Call`] is awaited.
    #[expect(clippy::needless_pass_by_value, reason = "messages go by value, as in actix's Addr")]
    pub fn send<M>(&self, message: M) -> Call<M>
    where
        M: RemoteMessage,
        A: Handler<M, Result = M::Result>,
    {
        Call::new(self, &message, Kind::Command { idempotency: None, fence: None })
    }

    /// A query; linearizable unless [`Call::consistency`] says otherwise.
    /// Nothing is sent before the returned [`Call`] is awaited.
    #[expect(clippy::needless_pass_by_value, reason = "messages go by value, as in actix's Addr")]
    pub fn query<M>(&self, question: M) -> Call<M>
    where
        M: RemoteMessage,
        A: Query<M>,
    {
        Call::new(self, &question, Kind::Query(Consistency::Linearizable))
    }
}

impl<A> Clone for Handle<A> {
    fn clone(&self) -> Self {
        Self { submit: self.submit.clone(), actor: self.actor, actor_type: PhantomData }
    }
}

impl<A> fmt::Debug for Handle<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").field("actor", &self.actor).finish_non_exhaustive()
    }
}

/// A call being made: await it. Dropping it gives up the answer, not the command, once it was
/// polled.
#[must_use = "a call does nothing until it is awaited"]
pub struct Call<M> {
    state: State,
    message: PhantomData<fn() -> M>,
}

impl<M: RemoteMessage> Call<M> {
    fn new<A>(handle: &Handle<A>, message: &M, kind: Kind) -> Self {
        let state = match encode(message) {
            Ok(args) => State::Prepared(Some(Prepared {
                submit: handle.submit.clone(),
                actor: handle.actor,
                function: name_hash(M::NAME),
                args,
                deadline: DEADLINE_DEFAULT,
                kind,
            })),
            Err(refusal) => State::Refused(Some(refusal)),
        };
        Self { state, message: PhantomData }
    }

    /// Waits this long instead of [`DEADLINE_DEFAULT`].
    pub fn timeout(mut self, deadline: Duration) -> Self {
        if let State::Prepared(Some(call)) = &mut self.state {
            call.deadline = deadline;
        }
        self
    }

    /// Makes a repeated command replay its first answer. No effect on queries.
    pub fn idempotency(mut self, key: IdempotencyKey) -> Self {
        if let State::Prepared(Some(Prepared { kind: Kind::Command { idempotency, .. }, .. })) =
            &mut self.state
        {
            *idempotency = Some(key);
        }
        self
    }

    /// Lets the command be refused once the role of its author has passed on. No effect on queries.
    pub fn fence(mut self, fence: &Fence) -> Self {
        if let State::Prepared(Some(Prepared { kind: Kind::Command { fence: kept, .. }, .. })) =
            &mut self.state
        {
            *kept = Some(fence.clone());
        }
        self
    }

    /// How fresh the state must be. No effect on commands.
    pub fn consistency(mut self, wanted: Consistency) -> Self {
        if let State::Prepared(Some(Prepared { kind: Kind::Query(consistency), .. })) =
            &mut self.state
        {
            *consistency = wanted;
        }
        self
    }

    /// Like awaiting the call, and tells the position too: of the command itself, or of the state
    /// a query read.
    pub async fn with_position(mut self) -> Result<(M::Result, Position), CallError> {
        std::future::poll_fn(|cx| self.poll_outcome(cx)).await.and_then(read::<M>)
    }

    fn poll_outcome(&mut self, cx: &mut Context<'_>) -> Poll<Result<(Bytes, Position), CallError>> {
        loop {
            match &mut self.state {
                State::Refused(refusal) => {
                    let refusal = refusal.take().expect("a finished call is not polled again");
                    return Poll::Ready(Err(CallError::NotApplied(refusal)));
                }
                State::Prepared(call) => {
                    let call = call.take().expect("replaced by Waiting in the same turn");
                    self.state = State::Waiting(call.start());
                }
                State::Waiting(answer) => {
                    return Poll::Ready(match ready!(Pin::new(answer).poll(cx)) {
                        Ok(outcome) => CallError::check(outcome),
                        // The node went away with the call in its hands.
                        Err(_) => Err(CallError::Unknown("the node stopped".into())),
                    });
                }
            }
        }
    }
}

impl<M: RemoteMessage> Future for Call<M> {
    type Output = Result<M::Result, CallError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = ready!(self.poll_outcome(cx));
        Poll::Ready(answer.and_then(read::<M>).map(|(reply, _)| reply))
    }
}

impl<M> fmt::Debug for Call<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.state {
            State::Refused(_) => "Call(refused)",
            State::Prepared(_) => "Call(prepared)",
            State::Waiting(_) => "Call(waiting)",
        })
    }
}

enum State {
    Refused(Option<Refusal>),
    Prepared(Option<Prepared>),
    Waiting(oneshot::Receiver<Outcome>),
}

struct Prepared {
    submit: Arc<dyn Submit>,
    actor: u64,
    function: u64,
    args: Bytes,
    deadline: Duration,
    kind: Kind,
}

enum Kind {
    Command { idempotency: Option<IdempotencyKey>, fence: Option<Fence> },
    Query(Consistency),
}

impl Prepared {
    fn start(self) -> oneshot::Receiver<Outcome> {
        let (answer, receiver) = oneshot::channel();
        // A caller that went away wants no answer.
        let done = Box::new(move |outcome| drop(answer.send(outcome)));
        let Self { submit, actor, function, args, deadline, kind } = self;
        match kind {
            Kind::Command { idempotency, fence } => {
                let command = Submission { actor, function, args, deadline, idempotency, done };
                submit.submit(vec![match &fence {
                    Some(fence) => command.fenced(fence),
                    None => command,
                }]);
            }
            Kind::Query(consistency) => {
                submit.query(vec![Inquiry { actor, function, args, consistency, deadline, done }]);
            }
        }
        receiver
    }
}

fn encode<M: Serialize>(message: &M) -> Result<Bytes, Refusal> {
    let args = rmp_serde::to_vec_named(message)
        .map_err(|error| Refusal::from(format!("the message has no serde form: {error}")))?;
    if args.len() > ARGS_BYTES_MAX {
        let text = format!("the message has {} bytes, at most {ARGS_BYTES_MAX} fit", args.len());
        return Err(Refusal::new(Reason::TooLarge, text));
    }
    Ok(args.into())
}

fn read<M: RemoteMessage>(
    (reply, position): (Bytes, Position),
) -> Result<(M::Result, Position), CallError> {
    match rmp_serde::from_slice(&reply) {
        Ok(reply) => Ok((reply, position)),
        Err(error) => Err(CallError::Unreadable { message: M::NAME, reason: error.to_string() }),
    }
}

/// Why a call has no reply.
///
/// ```
#[doc = include_str!("../../docs/examples/counter.txt")]
/// # actix::System::new().block_on(async {
/// # let (log, counter) = local::LocalLog::with::<Counter>("counter");
/// log.refuse(Some(Outcome::NotApplied("no quorum".into())));
/// let error = counter.send(Add(2)).await.unwrap_err();
/// assert_eq!(error.outcome(), "not_applied"); // it may simply be sent again
/// # });
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The state did not change and will not.
    #[error("not applied: {0}")]
    NotApplied(Refusal),
    /// It may have been executed or may yet be.
    #[error("outcome unknown: {0}")]
    Unknown(String),
    /// Decided, but it had no effect: the state did not change. The handler panicked, or this
    /// build and the replica's disagree about the message.
    #[error("failed: {0}")]
    Failed(String),
    /// The session of a [`Client`](crate::Client) ended while this call was in doubt: it may or may
    /// not have been executed, and will not be any more. Look at the state before repeating it.
    #[error("outcome unknown: {0}")]
    SessionExpired(String),
    /// Applied, but the reply is not what this build expects.
    #[error("applied, but the reply to {message} cannot be read: {reason}")]
    Unreadable {
        /// The message's wire name.
        message: &'static str,
        /// What is wrong with the bytes.
        reason: String,
    },
}

impl CallError {
    /// The contract's word: `not_applied`, `unknown` or `applied`; see [`Outcome::word`].
    pub fn outcome(&self) -> &'static str {
        match self {
            Self::NotApplied(_) => "not_applied",
            Self::Unknown(_) | Self::Failed(_) | Self::SessionExpired(_) => "unknown",
            Self::Unreadable { .. } => "applied",
        }
    }

    /// The reply and position of an applied outcome, else the error that it is.
    pub fn check(outcome: Outcome) -> Result<(Bytes, Position), Self> {
        match outcome {
            Outcome::Applied { reply, position } => Ok((reply, position)),
            Outcome::NotApplied(refusal) => Err(Self::NotApplied(refusal)),
            Outcome::Unknown(text) => Err(Self::Unknown(text)),
            Outcome::Failed(text) => Err(Self::Failed(text)),
            Outcome::SessionExpired(text) => Err(Self::SessionExpired(text)),
        }
    }
}
