//! Addresses of actors wherever they live, with the verbs of actix's own `Addr`.
//!
//! [`RemoteAddr`] leads to an actor, [`RemoteRecipient`] to whatever takes one kind of message.
//! Both are a name on one node. When that is the very node they are used on, messages go to the
//! actor's mailbox as they are, without encoding.
//!
//! # Addresses in messages
//! Both can be fields of messages and of answers. On the wire they are node and name; what they
//! need besides, the node through which to send, is not. The node that decodes a message lends
//! itself for that time: it is noted for the thread while bodies are read, and every address
//! within binds itself to it. So an address that arrived can be used at once, and one that has
//! come home leads straight to the local actor. Read by any other means (say, from a file) it
//! answers `Unreachable` until [`RemoteAddr::bind`] gives it a node.

mod error;
mod place;
mod recipient;
mod request;

use std::{
    fmt,
    hash::{Hash, Hasher},
    sync::Arc,
};

use actix::{Addr, Handler, dev::ToEnvelope};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub use self::{
    error::{Delivery, SendError, TrySendError},
    recipient::{NamedRecipient, RemoteRecipient},
    request::{RemoteRequest, TIMEOUT_MAX},
};
pub(crate) use self::{place::Place, recipient::Proxy};
use self::{
    place::read_place,
    request::{Here, Way},
};
use crate::{
    identity::NodeId,
    message::{RemoteActor, RemoteMessage, decoding_node},
    node::Node,
};

/// The address of an actor by its name on one node. Cloning is cheap; equal addresses lead to the
/// same name on the same incarnation of the same node. It can travel in messages, see the
/// [module](self).
///
/// ```
#[doc = include_str!("../../docs/examples/till.txt")]
/// assert_eq!((till.node(), till.name()), (b.id(), "till"));
/// // On its own node the same address leads straight to the mailbox.
/// let near: RemoteAddr<Till> = b.lookup("till").unwrap();
/// assert_eq!(near, till);
/// assert_eq!(near.send(Pay(1)).await, Ok(1));
/// # });
/// ```
pub struct RemoteAddr<A: RemoteActor>(Arc<Inner<A>>);

struct Inner<A: RemoteActor> {
    place: Place,
    /// On this very node: called without encoding.
    here: Option<Addr<A>>,
}

impl<A: RemoteActor> RemoteAddr<A> {
    pub(crate) fn new(place: Place, here: Option<Addr<A>>) -> Self {
        Self(Arc::new(Inner { place, here }))
    }

    /// Where the actor lives.
    pub fn node(&self) -> &NodeId {
        &self.0.place.node
    }

    /// Its name there.
    pub fn name(&self) -> &str {
        &self.0.place.name
    }

    /// The same address, for use on `node`.
    #[must_use]
    pub fn bind(&self, node: &Node) -> Self {
        node.address(self.node().clone(), self.name())
    }

    /// Sends and waits for the answer, at most as long as the node's configuration says or
    /// [`RemoteRequest::timeout`] is told. As with actix nothing is sent before the first poll,
    /// and dropping the future takes back a message no handler has begun with.
    ///
    /// ```
    #[doc = include_str!("../../docs/examples/till.txt")]
    /// assert_eq!(till.send(Pay(5)).await, Ok(5));
    /// let soon = Duration::from_millis(200);
    /// assert_eq!(till.send(Pay(2)).timeout(soon).await, Ok(7));
    /// b.shutdown();
    /// tokio::time::sleep(Duration::from_secs(1)).await;
    /// let error = till.send(Pay(1)).await.unwrap_err();
    /// assert_eq!(error.outcome(), Delivery::NotRun);
    /// # });
    /// ```
    pub fn send<M>(&self, message: M) -> RemoteRequest<M>
    where
        M: RemoteMessage,
        A: Handler<M>,
        A::Context: ToEnvelope<A, M>,
    {
        RemoteRequest::new(Arc::clone(&self.0) as _, message)
    }

    /// Sends without waiting. A message that cannot be sent becomes a dead letter: see
    /// [`Node::dead_letters`].
    ///
    /// ```
    #[doc = include_str!("../../docs/examples/till.txt")]
    /// till.do_send(Pay(5)); // nobody waits
    /// till.do_send(Pay(2)); // behind the other: of one sender to one actor the order is kept
    /// assert_eq!(till.send(Pay(0)).await, Ok(7));
    /// # });
    /// ```
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
        let place = &self.0.place;
        if let Err(error) = self.0.reach(message, here, |message| place.tell(&message)) {
            place.dead_letter::<M>(&error);
        }
    }

    /// Sends without waiting, or gives the message back with the reason. On this node there is
    /// room as long as the actor's mailbox has some, elsewhere as long as it granted credit.
    ///
    /// ```
    #[doc = include_str!("../../docs/examples/till.txt")]
    /// assert_eq!(till.try_send(Pay(5)), Ok(()));
    /// b.shutdown();
    /// tokio::time::sleep(Duration::from_secs(1)).await;
    /// let refused = till.try_send(Pay(7)).unwrap_err();
    /// assert_eq!((refused.message, refused.error), (Pay(7), SendError::Unreachable));
    /// # });
    /// ```
    ///
    /// # Errors
    /// Nothing was sent. A message that was sent may still be lost with the link or the node.
    pub fn try_send<M>(&self, message: M) -> Result<(), TrySendError<M>>
    where
        M: RemoteMessage,
        A: Handler<M>,
        A::Context: ToEnvelope<A, M>,
    {
        let here = |addr: &Addr<A>, message| addr.try_send(message).map_err(given_back);
        let place = &self.0.place;
        self.0.reach(message, here, |message| {
            place.tell(&message).map_err(|error| TrySendError { error, message })
        })
    }

    /// Sends as soon as there is room, and does not wait for more: for a flow of messages that the
    /// receiver shall slow down. Waits no longer than an ask would. Messages told one after the
    /// other arrive in this order.
    ///
    /// # Errors
    /// As [`RemoteAddr::try_send`]: nothing was sent. On this node, where one that finds no room
    /// waits until the actor has handled it, `Timeout` and `Closed` leave open whether it did.
    pub async fn tell<M>(&self, message: M) -> Result<(), SendError>
    where
        M: RemoteMessage,
        A: Handler<M>,
        A::Context: ToEnvelope<A, M>,
    {
        match self.try_send(message) {
            Ok(()) => Ok(()),
            Err(TrySendError { error: SendError::Overloaded, message }) => match self.0.here {
                Some(_) => self.send(message).await.map(drop),
                None => self.0.place.tell_when_room(&message).await,
            },
            Err(TrySendError { error, .. }) => Err(error),
        }
    }

    /// The same actor to those who only send it `M`.
    pub fn recipient<M>(&self) -> RemoteRecipient<M>
    where
        M: RemoteMessage,
        A: Handler<M>,
        A::Context: ToEnvelope<A, M>,
    {
        let Place { node, name, via, .. } = &self.0.place;
        let here = self.0.here.clone().map(Addr::recipient);
        RemoteRecipient::new(Place::new(node.clone(), name, via.clone()), here)
    }
}

impl<A: RemoteActor> Inner<A> {
    /// Takes the short way when the actor is on this node. A name that leads to another actor by
    /// now is followed. An `Addr` is lent, not cloned: a clone costs more than a message.
    fn reach<M, R>(
        &self,
        message: M,
        here: impl FnOnce(&Addr<A>, M) -> R,
        there: impl FnOnce(M) -> R,
    ) -> R {
        match (&self.here, &self.place.via) {
            (Some(addr), Some(via)) if !addr.connected() => match via.local(&self.place.name) {
                Some(successor) => here(&successor, message),
                None => here(addr, message),
            },
            (Some(addr), _) => here(addr, message),
            (None, _) => there(message),
        }
    }
}

impl<A, M> Way<M> for Inner<A>
where
    M: RemoteMessage,
    A: RemoteActor + Handler<M>,
    A::Context: ToEnvelope<A, M>,
{
    fn place(&self) -> Option<&Place> {
        Some(&self.place)
    }

    fn ask_here(&self, message: M) -> Here<M> {
        let here = |addr: &Addr<A>, message| match addr.connected() {
            true => Here::Asked(Box::pin(addr.send(message))),
            false => Here::Gone,
        };
        self.reach(message, here, Here::Elsewhere)
    }
}

/// What actix's own refusal means.
fn given_back<M>(refused: actix::prelude::SendError<M>) -> TrySendError<M> {
    match refused {
        actix::prelude::SendError::Full(message) => {
            TrySendError { error: SendError::Overloaded, message }
        }
        actix::prelude::SendError::Closed(message) => {
            TrySendError { error: SendError::NoSuchActor, message }
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
        self.0.place == other.0.place
    }
}

impl<A: RemoteActor> Eq for RemoteAddr<A> {}

impl<A: RemoteActor> Hash for RemoteAddr<A> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.place.hash(state);
    }
}

impl<A: RemoteActor> fmt::Debug for RemoteAddr<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.place.fmt(f)
    }
}

impl<A: RemoteActor> Serialize for RemoteAddr<A> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.place.serialize(serializer)
    }
}

impl<'de, A: RemoteActor> Deserialize<'de> for RemoteAddr<A> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (node, name) = read_place(deserializer)?;
        Ok(match decoding_node() {
            Some(via) => via.address(node, &name),
            None => Self::new(Place::new(node, &name, None), None),
        })
    }
}
