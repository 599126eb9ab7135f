//! The way to a singleton, wherever it lives.

use std::{
    fmt,
    future::Future,
    marker::PhantomData,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use actix::Handler;
use bytes::Bytes;
use synod_runtime::{
    address::{SendError, TIMEOUT_MAX},
    identity::NodeName,
    message::{RemoteMessage, decode_on, encode},
    node::Node,
    wire::name_hash,
};
use tokio::sync::{mpsc, oneshot};

use super::{
    HaActor, Messages,
    pump::{Envelope, Pump},
    role_of,
};
use crate::{
    election::{line::LINE_LEN_MAX, message::Epoch},
    server::elections::Elections,
};

/// The address of a singleton: finds out who has it, and again when another has. Cloning is cheap.
///
/// Messages of one proxy and its clones go in the order they were sent. While nobody has the
/// singleton they wait, 4 096 at most, each until its deadline. What a primary refused *not run*,
/// since its time was over or its node is gone, goes to the next one; what may have run does not,
/// unless it is [idempotent](SingletonRequest::idempotent).
pub struct SingletonRef<A> {
    way: Way,
    kind: PhantomData<fn() -> A>,
}

/// The same, whatever the actor takes.
#[derive(Clone)]
pub(in crate::server) struct Way {
    node: Node,
    elections: Elections,
    role: Arc<str>,
    line: mpsc::Sender<Envelope>,
}

impl Way {
    pub(in crate::server) fn new(elections: &Elections, name: &str) -> Self {
        let (line, envelopes) = mpsc::channel(LINE_LEN_MAX);
        let (node, role) = (elections.node().clone(), role_of(name));
        node.task_anywhere(Pump::new(elections.clone(), &role).run(envelopes));
        Self { node, elections: elections.clone(), role: role.into(), line }
    }

    /// Hands over the body of a message that is to be there in time. Without a place for the answer
    /// nobody waits for one.
    pub(super) fn hand(
        &self,
        (message, body): (u64, Vec<u8>),
        timeout: Duration,
        repeats: bool,
        answer: Option<oneshot::Sender<Result<Bytes, SendError>>>,
    ) -> Result<(), SendError> {
        let deadline = self.node.now() + timeout;
        let envelope = Envelope { message, body, deadline, repeats, answer };
        self.line.try_send(envelope).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => SendError::Overloaded,
            // The node has stopped.
            mpsc::error::TrySendError::Closed(_) => SendError::Unreachable,
        })
    }

    /// Sends the body of a message and waits for that of the answer.
    pub(in crate::server) async fn ask(
        &self,
        message: u64,
        body: Vec<u8>,
        timeout: Duration,
    ) -> Result<Bytes, SendError> {
        let (answer, answered) = oneshot::channel();
        self.hand((message, body), timeout, false, Some(answer))?;
        answered.await.unwrap_or(Err(SendError::Closed))
    }
}

impl<A: HaActor> SingletonRef<A> {
    pub(super) fn new(elections: &Elections, name: &str) -> Self {
        let way = Way::new(elections, name);
        // Peers are told the forms of its messages before the first of them comes.
        let node = &way.node;
        drop(node.address::<A>(node.id().clone(), &way.role));
        Self { way, kind: PhantomData }
    }

    /// Sends and waits for the answer, at most as long as the node's configuration says or
    /// [`SingletonRequest::timeout`] is told. Nothing is sent before the first poll; dropping the
    /// future takes back a message that no handler has begun with.
    pub fn send<M>(&self, message: M) -> SingletonRequest<M>
    where
        M: RemoteMessage,
        A: Handler<M>,
    {
        let timeout = self.way.node.ask_timeout();
        let state = State::Unsent(message);
        SingletonRequest { way: self.way.clone(), timeout, repeats: false, state }
    }

    /// Sends without waiting, behind what was sent before. It waits for a primary as long as an ask
    /// would; if there is none by then it becomes a dead letter, as it does when the line is full.
    #[expect(clippy::needless_pass_by_value, reason = "as every other address does")]
    pub fn do_send<M>(&self, message: M)
    where
        M: RemoteMessage,
        A: Handler<M>,
    {
        let body = encode(&message).map_err(|_unwritable| SendError::Codec);
        let timeout = self.way.node.ask_timeout();
        let handed =
            body.and_then(|body| self.way.hand((name_hash(M::NAME), body), timeout, false, None));
        if let Err(error) = handed {
            self.way.node.dead_letter(&error);
        }
    }

    /// Who has it, as far as this node knows: never waits, may be old.
    pub fn primary(&self) -> Option<(NodeName, Epoch)> {
        let holder = self.way.elections.glance(&self.way.role)??;
        Some((holder.client.node.parse().ok()?, holder.epoch))
    }

    /// The messages that can be sent in JSON.
    pub(super) fn messages() -> Messages<A> {
        let mut messages = Messages::default();
        A::messages(&mut messages);
        messages
    }
}

/// An answer to come. Dropping it takes back a message that no handler has begun with.
#[must_use = "nothing is sent before the request is polled"]
pub struct SingletonRequest<M: RemoteMessage> {
    way: Way,
    timeout: Duration,
    repeats: bool,
    state: State<M>,
}

enum State<M> {
    Unsent(M),
    Sent(oneshot::Receiver<Result<Bytes, SendError>>),
    Answered,
}

impl<M: RemoteMessage> SingletonRequest<M> {
    /// Waits at most this long, counted from the first poll; never longer than [`TIMEOUT_MAX`].
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout.min(TIMEOUT_MAX);
        self
    }

    /// Says that it does no harm if the handler runs more than once, at one primary or at two: what
    /// may have run without an answer is sent again until the deadline.
    pub fn idempotent(mut self) -> Self {
        self.repeats = true;
        self
    }

    fn hand(&self, message: &M) -> Result<oneshot::Receiver<Result<Bytes, SendError>>, SendError> {
        let body = encode(message).map_err(|_unwritable| SendError::Codec)?;
        let (answer, answered) = oneshot::channel();
        self.way.hand((name_hash(M::NAME), body), self.timeout, self.repeats, Some(answer))?;
        Ok(answered)
    }
}

// The message is moved out before anything is polled, and a oneshot is not pinned.
impl<M: RemoteMessage> Unpin for SingletonRequest<M> {}

impl<M: RemoteMessage> Future for SingletonRequest<M> {
    type Output = Result<M::Result, SendError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut answered = match std::mem::replace(&mut self.state, State::Answered) {
            State::Unsent(message) => match self.hand(&message) {
                Ok(answered) => answered,
                Err(error) => return Poll::Ready(Err(error)),
            },
            State::Sent(answered) => answered,
            State::Answered => panic!("a request is not polled again after its answer"),
        };
        let Poll::Ready(answer) = Pin::new(&mut answered).poll(cx) else {
            self.state = State::Sent(answered);
            return Poll::Pending;
        };
        Poll::Ready(match answer.unwrap_or(Err(SendError::Closed)) {
            Ok(body) => decode_on(&self.way.node, &body).map_err(|_unreadable| SendError::Codec),
            Err(SendError::Incompatible { .. }) => {
                Err(SendError::Incompatible { name: M::NAME.to_owned() })
            }
            Err(error) => Err(error),
        })
    }
}

impl<A> Clone for SingletonRef<A> {
    fn clone(&self) -> Self {
        Self { way: self.way.clone(), kind: PhantomData }
    }
}

impl fmt::Debug for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Way").field(&self.role).finish()
    }
}

impl<A> fmt::Debug for SingletonRef<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SingletonRef").field(&self.way).finish()
    }
}

impl<M: RemoteMessage> fmt::Debug for SingletonRequest<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SingletonRequest").field("to", &self.way).finish_non_exhaustive()
    }
}
