//! Addresses of actors wherever they live, with the verbs of actix's own `Addr`.

use std::{
    fmt,
    future::Future,
    hash::{Hash, Hasher},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use actix::{Addr, Handler, MailboxError, Message, dev::ToEnvelope};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{
    identity::NodeId,
    message::{RemoteActor, RemoteMessage, decode, encode},
    node::Node,
    wire::name_hash,
    world::network::Lane,
};

/// The address of an actor by its name on one node. Cloning is cheap; equal addresses lead to the
/// same name on the same incarnation of the same node.
///
/// It can be sent in messages; one that came out of a message must be given its way by
/// [`RemoteAddr::bind`] before use.
pub struct RemoteAddr<A: RemoteActor>(Arc<Inner<A>>);

struct Inner<A: RemoteActor> {
    node: NodeId,
    name: String,
    target: u64,
    /// On this very node: called without encoding.
    here: Option<Addr<A>>,
    /// The node this address is used on.
    via: Option<Node>,
}

/// Why a message got no answer, and what became of it: see [`SendError::outcome`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum SendError {
    /// No answer within the deadline. Outcome unknown.
    #[error("no answer in time: outcome unknown")]
    Timeout,
    /// There is no link to the node, or the message expired before it was sent. Not run.
    #[error("the node cannot be reached: not run")]
    Unreachable,
    /// No actor has that name there. Not run.
    #[error("no such actor: not run")]
    NoSuchActor,
    /// The link or the actor has no room. Not run.
    #[error("overloaded: not run")]
    Overloaded,
    /// The sender acted for an epoch that is over. Not run.
    #[error("fenced: epoch {epoch} was granted: not run")]
    Fenced {
        /// The epoch that counts now.
        epoch: u64,
    },
    /// The actor there does not take this message. Not run.
    #[error("{name} is not taken there: not run")]
    Incompatible {
        /// The message's name.
        name: String,
    },
    /// The message cannot be read there, or the answer cannot be read here. Outcome unknown.
    #[error("unreadable message or answer: outcome unknown")]
    Codec,
    /// The actor ended, or the link to it broke, before it answered. Outcome unknown.
    #[error("closed before the answer: outcome unknown")]
    Closed,
}

/// What is known of a message that got no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// No handler ran and none will.
    NotRun,
    /// A handler may have run, may be running, or may yet run.
    Unknown,
}

impl SendError {
    /// Whether a handler may have run.
    pub fn outcome(&self) -> Delivery {
        match self {
            Self::Unreachable
            | Self::NoSuchActor
            | Self::Overloaded
            | Self::Fenced { .. }
            | Self::Incompatible { .. } => Delivery::NotRun,
            Self::Timeout | Self::Codec | Self::Closed => Delivery::Unknown,
        }
    }

    /// The label under which a lost tell is counted.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Unreachable => "unreachable",
            Self::NoSuchActor => "no_such_actor",
            Self::Overloaded => "overloaded",
            Self::Fenced { .. } => "fenced",
            Self::Incompatible { .. } => "incompatible",
            Self::Codec => "codec",
            Self::Closed => "closed",
        }
    }
}

impl<A: RemoteActor> RemoteAddr<A> {
    pub(crate) fn new(node: NodeId, name: &str, here: Option<Addr<A>>, via: Option<Node>) -> Self {
        let name = name.to_owned();
        Self(Arc::new(Inner { node, target: name_hash(&name), name, here, via }))
    }

    /// Where the actor lives.
    pub fn node(&self) -> &NodeId {
        &self.0.node
    }

    /// Its name there.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The same address, for use on `node`.
    #[must_use]
    pub fn bind(&self, node: &Node) -> Self {
        node.address(self.0.node.clone(), &self.0.name)
    }

    /// Sends and waits for the answer, at most as long as the node's configuration says or
    /// [`RemoteRequest::timeout`] is told. As with actix nothing is sent before the first poll,
    /// and dropping the future takes back a message no handler has begun with.
    pub fn send<M>(&self, message: M) -> RemoteRequest<A, M>
    where
        M: RemoteMessage,
        A: Handler<M>,
        A::Context: ToEnvelope<A, M>,
    {
        let timeout = self.0.via.as_ref().map_or(Duration::ZERO, Node::ask_timeout);
        RemoteRequest { to: self.clone(), timeout, state: State::Unsent(message, ask) }
    }

    /// Sends without waiting. A message that cannot be sent is counted as a dead letter.
    pub fn do_send<M>(&self, message: M)
    where
        M: RemoteMessage,
        A: Handler<M>,
        A::Context: ToEnvelope<A, M>,
    {
        let here = |addr: &Addr<A>, message| {
            if !addr.connected() {
                return Err(SendError::NoSuchActor);
            }
            addr.do_send(message);
            Ok(())
        };
        let sent = self.reach(message, here, |message| self.tell(&message));
        if let (Err(error), Some(via)) = (sent, &self.0.via) {
            via.dead_letter(&error);
        }
    }

    /// Sends without waiting, or says why not.
    ///
    /// # Errors
    /// Nothing was sent. A message that was sent may still be lost with the link or the node.
    pub fn try_send<M>(&self, message: M) -> Result<(), SendError>
    where
        M: RemoteMessage,
        A: Handler<M>,
        A::Context: ToEnvelope<A, M>,
    {
        let here = |addr: &Addr<A>, message| {
            addr.try_send(message).map_err(|error| match error {
                actix::prelude::SendError::Full(_) => SendError::Overloaded,
                actix::prelude::SendError::Closed(_) => SendError::NoSuchActor,
            })
        };
        self.reach(message, here, |message| self.tell(&message))
    }

    fn tell<M: RemoteMessage>(&self, message: &M) -> Result<(), SendError> {
        let via = self.0.via.as_ref().ok_or(SendError::Unreachable)?;
        let body = encode(message).map_err(|_| SendError::Codec)?;
        let message = name_hash(M::NAME);
        via.check_form::<M>(&self.0.node.name)?;
        via.check_incarnation(&self.0.node)?;
        via.tell_hashed(&self.0.node.name, self.0.target, message, Lane::User, &body)
    }

    /// Takes the short way when the actor is on this node. A name that leads to another actor by
    /// now is followed. An `Addr` is lent, not cloned: a clone costs more than a message.
    fn reach<M, R>(
        &self,
        message: M,
        here: impl FnOnce(&Addr<A>, M) -> R,
        there: impl FnOnce(M) -> R,
    ) -> R {
        match (&self.0.here, &self.0.via) {
            (Some(addr), Some(via)) if !addr.connected() => match via.local(&self.0.name) {
                Some(successor) => here(&successor, message),
                None => here(addr, message),
            },
            (Some(addr), _) => here(addr, message),
            (None, _) => there(message),
        }
    }
}

impl<A: RemoteActor> Clone for RemoteAddr<A> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<A: RemoteActor> PartialEq for RemoteAddr<A> {
    fn eq(&self, other: &Self) -> bool {
        self.0.node == other.0.node && self.0.name == other.0.name
    }
}

impl<A: RemoteActor> Eq for RemoteAddr<A> {}

impl<A: RemoteActor> Hash for RemoteAddr<A> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.node.hash(state);
        self.0.name.hash(state);
    }
}

impl<A: RemoteActor> fmt::Debug for RemoteAddr<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} on {}", self.0.name, self.0.node)
    }
}

impl<A: RemoteActor> Serialize for RemoteAddr<A> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (&self.0.node, &self.0.name).serialize(serializer)
    }
}

impl<'de, A: RemoteActor> Deserialize<'de> for RemoteAddr<A> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (node, name) = <(NodeId, String)>::deserialize(deserializer)?;
        Ok(Self::new(node, &name, None, None))
    }
}

/// An answer to come.
#[must_use = "nothing is sent before the request is polled"]
pub struct RemoteRequest<A: RemoteActor, M: RemoteMessage> {
    to: RemoteAddr<A>,
    timeout: Duration,
    state: State<A, M>,
}

type Answer<M> = Pin<Box<dyn Future<Output = Result<<M as Message>::Result, SendError>> + Send>>;

enum State<A: RemoteActor, M: RemoteMessage> {
    /// With the way to send it, which needs the handler's type.
    Unsent(M, fn(&RemoteAddr<A>, M, Duration) -> Answer<M>),
    Sent(Answer<M>),
    Answered,
}

impl<A: RemoteActor, M: RemoteMessage> RemoteRequest<A, M> {
    /// Waits at most this long, counted from the first poll; never longer than [`TIMEOUT_MAX`].
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout.min(TIMEOUT_MAX);
        self
    }
}

// The message is moved out before anything is pinned, and the answer is pinned on the heap.
impl<A: RemoteActor, M: RemoteMessage> Unpin for RemoteRequest<A, M> {}

impl<A: RemoteActor, M: RemoteMessage> Future for RemoteRequest<A, M> {
    type Output = Result<M::Result, SendError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut answer = match std::mem::replace(&mut self.state, State::Answered) {
            State::Unsent(message, send) => send(&self.to, message, self.timeout),
            State::Sent(answer) => answer,
            State::Answered => panic!("a request is not polled again after its answer"),
        };
        let answered = answer.as_mut().poll(cx);
        if answered.is_pending() {
            self.state = State::Sent(answer);
        }
        answered
    }
}

impl<A: RemoteActor, M: RemoteMessage> fmt::Debug for RemoteRequest<A, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to {:?}", M::NAME, self.to)
    }
}

fn ask<A, M>(to: &RemoteAddr<A>, message: M, timeout: Duration) -> Answer<M>
where
    M: RemoteMessage,
    A: RemoteActor + Handler<M>,
    A::Context: ToEnvelope<A, M>,
{
    to.reach(
        message,
        |addr, message| {
            if !addr.connected() {
                return failed::<M>(SendError::NoSuchActor);
            }
            let request = addr.send(message);
            Box::pin(async move {
                match tokio::time::timeout(timeout, request).await {
                    Ok(answer) => answer.map_err(|_: MailboxError| SendError::Closed),
                    Err(_) => Err(SendError::Timeout),
                }
            })
        },
        |message| match (&to.0.via, encode(&message)) {
            (None, _) => failed::<M>(SendError::Unreachable),
            (Some(_), Err(_)) => failed::<M>(SendError::Codec),
            (Some(via), Ok(body)) => {
                Box::pin(ask_there::<A, M>(via.clone(), to.clone(), body, timeout))
            }
        },
    )
}

async fn ask_there<A: RemoteActor, M: RemoteMessage>(
    via: Node,
    to: RemoteAddr<A>,
    body: Vec<u8>,
    timeout: Duration,
) -> Result<M::Result, SendError> {
    via.check_form::<M>(&to.0.node.name)?;
    via.check_incarnation(&to.0.node)?;
    let message = name_hash(M::NAME);
    let answer = via.ask(&to.0.node.name, to.0.target, message, Lane::User, body, timeout).await;
    let body = answer.map_err(|error| match error {
        SendError::Incompatible { .. } => SendError::Incompatible { name: M::NAME.to_owned() },
        other => other,
    })?;
    decode(&body).map_err(|_| SendError::Codec)
}

fn failed<M: RemoteMessage>(error: SendError) -> Answer<M> {
    Box::pin(std::future::ready(Err(error)))
}

/// No ask waits longer, so that a forgotten one does not hold its memory for days.
pub const TIMEOUT_MAX: Duration = Duration::from_secs(3600);
