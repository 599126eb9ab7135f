//! Addresses by what they take: whoever lives behind one takes `M`.

use std::{fmt, sync::Arc};

use actix::{
    Actor, Context, Handler, Recipient,
    dev::{MessageResponse, OneshotSender},
};
use serde::{Deserialize, Deserializer, Serialize, Serializer, ser::Error as _};

use super::{
    Place, SendError, TrySendError, given_back,
    place::read_place,
    request::{Here, RemoteRequest, Way},
};
use crate::{
    identity::NodeId,
    message::{RemoteMessage, decoding_node},
    node::Node,
};

/// Somebody who takes `M`: any actor of this process, or a named one anywhere. Cloning is cheap.
///
/// Made by [`RemoteAddr::recipient`](super::RemoteAddr::recipient), by [`Node::recipient`], and
/// from actix's own `Recipient`.
///
/// ```
#[doc = include_str!("../../docs/examples/till.txt")]
/// let anybody: RemoteRecipient<Pay> = till.recipient();
/// assert_eq!(anybody.send(Pay(5)).await, Ok(5));
/// // To code that knows only actix, it is an ordinary recipient.
/// let plain: actix::Recipient<Pay> = anybody.into_actix();
/// assert_eq!(plain.send(Pay(1)).await, Ok(6));
/// # });
/// ```
pub enum RemoteRecipient<M: RemoteMessage> {
    /// An actor of this process without a name: cannot travel in messages.
    Local(Recipient<M>),
    /// An actor by its name, on this node or another.
    Named(NamedRecipient<M>),
}

/// An actor by its name, for one kind of message.
pub struct NamedRecipient<M: RemoteMessage>(Arc<Inner<M>>);

struct Inner<M: RemoteMessage> {
    place: Place,
    /// On this very node: called without encoding.
    here: Option<Recipient<M>>,
}

impl<M: RemoteMessage> RemoteRecipient<M> {
    pub(crate) fn new(place: Place, here: Option<Recipient<M>>) -> Self {
        Self::Named(NamedRecipient(Arc::new(Inner { place, here })))
    }

    /// Where it lives; `None` for an actor of this process without a name.
    pub fn node(&self) -> Option<&NodeId> {
        self.place().map(|place| &place.node)
    }

    /// Its name there, if it has one.
    pub fn name(&self) -> Option<&str> {
        self.place().map(|place| place.name.as_str())
    }

    /// The same recipient, for use on `node`.
    #[must_use]
    pub fn bind(&self, node: &Node) -> Self {
        match self {
            Self::Local(_) => self.clone(),
            Self::Named(named) => node.recipient(named.0.place.node.clone(), &named.0.place.name),
        }
    }

    /// As [`RemoteAddr::send`](super::RemoteAddr::send).
    pub fn send(&self, message: M) -> RemoteRequest<M> {
        match self {
            Self::Local(here) => RemoteRequest::new(Arc::new(here.clone()), message),
            Self::Named(named) => RemoteRequest::new(Arc::clone(&named.0) as _, message),
        }
    }

    /// As [`RemoteAddr::do_send`](super::RemoteAddr::do_send).
    pub fn do_send(&self, message: M) {
        match self {
            Self::Local(here) => here.do_send(message),
            Self::Named(named) => named.0.do_send(message),
        }
    }

    /// As [`RemoteAddr::try_send`](super::RemoteAddr::try_send).
    ///
    /// # Errors
    /// Nothing was sent.
    pub fn try_send(&self, message: M) -> Result<(), TrySendError<M>> {
        match self {
            Self::Local(here) => here.try_send(message).map_err(given_back),
            Self::Named(named) => named.0.try_send(message),
        }
    }

    /// As [`RemoteAddr::tell`](super::RemoteAddr::tell).
    ///
    /// # Errors
    /// As there.
    pub async fn tell(&self, message: M) -> Result<(), SendError> {
        match self.try_send(message) {
            Ok(()) => Ok(()),
            Err(TrySendError { error: SendError::Overloaded, message }) => match self {
                Self::Named(named) if named.0.here.is_none() => {
                    named.0.place.tell_when_room(&message).await
                }
                Self::Named(_) | Self::Local(_) => self.send(message).await.map(drop),
            },
            Err(TrySendError { error, .. }) => Err(error),
        }
    }

    /// The same as a recipient of actix's own, for code that knows no other: the actor itself when
    /// it lives on this node, else a proxy actor, one for each target and message, that lives as
    /// long as anybody uses it. An ask through a proxy waits as long as the node's configuration
    /// says, is cancelled when dropped, and answers actix's `Closed` whatever went wrong.
    ///
    /// Must be called where local tasks can be spawned, as actix's own `start`.
    pub fn into_actix(self) -> Recipient<M> {
        match &self {
            Self::Local(here) => here.clone(),
            Self::Named(named) => match (&named.0.here, &named.0.place.via) {
                (Some(here), _) if here.connected() => here.clone(),
                (_, Some(via)) => {
                    let Place { node, target, .. } = &named.0.place;
                    via.proxy(node, *target, || Proxy(self.clone()))
                }
                // Nobody is reached; every ask answers so.
                (_, None) => Proxy(self).start().recipient(),
            },
        }
    }

    fn place(&self) -> Option<&Place> {
        match self {
            Self::Local(_) => None,
            Self::Named(named) => Some(&named.0.place),
        }
    }
}

impl<M: RemoteMessage> Inner<M> {
    fn do_send(&self, message: M) {
        let here = |here: &Recipient<M>, message| {
            if !here.connected() {
                return Err(SendError::NoSuchActor);
            }
            here.do_send(message);
            Ok(())
        };
        if let Err(error) = self.reach(message, here, |message| self.place.tell(&message)) {
            self.place.dead_letter::<M>(&error);
        }
    }

    fn try_send(&self, message: M) -> Result<(), TrySendError<M>> {
        let here = |here: &Recipient<M>, message| here.try_send(message).map_err(given_back);
        self.reach(message, here, |message| {
            self.place.tell(&message).map_err(|error| TrySendError { error, message })
        })
    }

    /// As for an address: the short way on this node, and a name that leads to another actor by
    /// now is followed.
    fn reach<R>(
        &self,
        message: M,
        here: impl FnOnce(&Recipient<M>, M) -> R,
        there: impl FnOnce(M) -> R,
    ) -> R {
        match (&self.here, &self.place.via) {
            (Some(addr), Some(via)) if !addr.connected() => {
                match via.local_recipient(&self.place.name) {
                    Some(successor) => here(&successor, message),
                    None => here(addr, message),
                }
            }
            (Some(addr), _) => here(addr, message),
            (None, _) => there(message),
        }
    }
}

impl<M: RemoteMessage> Way<M> for Inner<M> {
    fn place(&self) -> Option<&Place> {
        Some(&self.place)
    }

    fn ask_here(&self, message: M) -> Here<M> {
        let here = |here: &Recipient<M>, message| here.ask_here(message);
        self.reach(message, here, Here::Elsewhere)
    }
}

impl<M: RemoteMessage> Way<M> for Recipient<M> {
    fn place(&self) -> Option<&Place> {
        None
    }

    fn ask_here(&self, message: M) -> Here<M> {
        match self.connected() {
            true => Here::Asked(Box::pin(self.send(message))),
            false => Here::Gone,
        }
    }
}

impl<M: RemoteMessage> From<Recipient<M>> for RemoteRecipient<M> {
    fn from(here: Recipient<M>) -> Self {
        Self::Local(here)
    }
}

impl<M: RemoteMessage> Clone for RemoteRecipient<M> {
    fn clone(&self) -> Self {
        match self {
            Self::Local(here) => Self::Local(here.clone()),
            Self::Named(named) => Self::Named(NamedRecipient(Arc::clone(&named.0))),
        }
    }
}

impl<M: RemoteMessage> PartialEq for RemoteRecipient<M> {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Local(one), Self::Local(other)) => one == other,
            (Self::Named(one), Self::Named(other)) => one.0.place == other.0.place,
            (Self::Local(_), Self::Named(_)) | (Self::Named(_), Self::Local(_)) => false,
        }
    }
}

impl<M: RemoteMessage> Eq for RemoteRecipient<M> {}

impl<M: RemoteMessage> fmt::Debug for RemoteRecipient<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local(_) => write!(f, "a local recipient of {}", M::NAME),
            Self::Named(named) => named.fmt(f),
        }
    }
}

impl<M: RemoteMessage> fmt::Debug for NamedRecipient<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} for {}", self.0.place, M::NAME)
    }
}

impl<M: RemoteMessage> Serialize for RemoteRecipient<M> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.place() {
            Some(place) => place.serialize(serializer),
            None => Err(S::Error::custom("a recipient without a name cannot travel: register it")),
        }
    }
}

impl<'de, M: RemoteMessage> Deserialize<'de> for RemoteRecipient<M> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (node, name) = read_place(deserializer)?;
        Ok(match decoding_node() {
            Some(via) => via.recipient(node, &name),
            None => Self::new(Place::new(node, &name, None), None),
        })
    }
}

/// Takes what code that knows only actix sends, and passes it on.
pub(crate) struct Proxy<M: RemoteMessage>(RemoteRecipient<M>);

impl<M: RemoteMessage> Actor for Proxy<M> {
    type Context = Context<Self>;
}

impl<M: RemoteMessage> Handler<M> for Proxy<M> {
    type Result = Forward<M>;

    fn handle(&mut self, message: M, _: &mut Self::Context) -> Forward<M> {
        Forward { to: self.0.clone(), message }
    }
}

/// A message on its way through a proxy.
pub(crate) struct Forward<M: RemoteMessage> {
    to: RemoteRecipient<M>,
    message: M,
}

impl<M: RemoteMessage> MessageResponse<Proxy<M>, M> for Forward<M> {
    fn handle(self, _: &mut Context<Proxy<M>>, asker: Option<OneshotSender<M::Result>>) {
        let Self { to, message } = self;
        let Some(mut asker) = asker else { return to.do_send(message) };
        actix_rt::spawn(async move {
            let answer = tokio::select! {
                biased;
                () = asker.closed() => return,
                answer = to.send(message) => answer,
            };
            // An asker that hears nothing is told `Closed` by actix: it has no other words.
            if let Ok(answer) = answer {
                let _ = asker.send(answer);
            }
        });
    }
}
