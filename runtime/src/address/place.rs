//! Where an address leads: a name on one node, and the node it is used on.

use std::{
    fmt,
    hash::{Hash, Hasher},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::SendError;
use crate::{
    identity::NodeId,
    message::{RemoteMessage, decode_on, encode, with_encoded},
    node::{Asking, DeadLetter, Node, Pipe},
    wire::name_hash,
    world::network::Lane,
};

/// A name on one node. Equal places are the same name on the same incarnation of the same node,
/// wherever they are used.
pub(crate) struct Place {
    pub(super) node: NodeId,
    pub(super) name: String,
    pub(super) target: u64,
    /// The node this place is looked at from.
    pub(super) via: Option<Node>,
    /// The place is on that very node.
    is_here: bool,
    /// The way there, once something was told.
    pipe: Mutex<Option<Arc<Pipe>>>,
}

impl Place {
    pub(crate) fn new(node: NodeId, name: &str, via: Option<Node>) -> Self {
        let is_here = via.as_ref().is_some_and(|via| *via.id() == node);
        let (target, name, pipe) = (name_hash(name), name.to_owned(), Mutex::default());
        Self { node, name, target, via, is_here, pipe }
    }

    /// Sends over the link. The error's outcome is *not run*, but for `Codec`.
    pub(super) fn tell<M: RemoteMessage>(&self, message: &M) -> Result<(), SendError> {
        let via = self.via.as_ref().ok_or(SendError::Unreachable)?;
        via.check_form::<M>(&self.node.name)?;
        let number = const { name_hash(M::NAME) };
        let sent = with_encoded(message, |body| match self.is_here {
            true => via.tell_hashed(&self.node.name, self.target, number, Lane::User, body),
            false => via.tell_by(&*self.pipe(via)?, self.target, number, body),
        });
        sent.unwrap_or(Err(SendError::Codec))
    }

    fn pipe(&self, via: &Node) -> Result<Arc<Pipe>, SendError> {
        let mut known = self.pipe.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pipe) = known.as_ref().filter(|pipe| pipe.lasts()) {
            return Ok(Arc::clone(pipe));
        }
        *known = None;
        let found = Arc::new(via.pipe(&self.node, self.target)?);
        *known = Some(Arc::clone(&found));
        Ok(found)
    }

    /// As [`Place::tell`], but waits for room.
    pub(super) async fn tell_when_room<M: RemoteMessage>(
        &self,
        message: &M,
    ) -> Result<(), SendError> {
        let via = self.via.as_ref().ok_or(SendError::Unreachable)?;
        if self.is_here {
            return self.tell(message);
        }
        let body = encode(message).map_err(|_| SendError::Codec)?;
        via.check_form::<M>(&self.node.name)?;
        let (number, pipe) = (const { name_hash(M::NAME) }, self.pipe(via)?);
        via.tell_when_room(&pipe, self.target, number, &body, via.ask_timeout()).await
    }

    /// Asks over the link, if there is room at once.
    ///
    /// # Errors
    /// The message was not sent; `Overloaded` when there was no room.
    pub(super) fn start_ask<M: RemoteMessage>(
        &self,
        body: &[u8],
        timeout: Duration,
    ) -> Result<Asking, SendError> {
        let via = self.via_for::<M>()?;
        let message = const { name_hash(M::NAME) };
        let pipe = if self.is_here { None } else { Some(self.pipe(via)?) };
        via.start_ask_by(pipe.as_deref(), self.target, message, body, timeout)
    }

    /// As [`Place::start_ask`], but waits for room first, and then for the answer's body.
    pub(super) async fn ask_when_room<M: RemoteMessage>(
        &self,
        body: &[u8],
        timeout: Duration,
    ) -> Result<Bytes, SendError> {
        let via = self.via_for::<M>()?;
        let message = const { name_hash(M::NAME) };
        via.ask_when_room_by(&*self.pipe(via)?, self.target, message, body, timeout).await
    }

    /// The node it is looked at from, if the peer reads such messages as this node writes them.
    fn via_for<M: RemoteMessage>(&self) -> Result<&Node, SendError> {
        let via = self.via.as_ref().ok_or(SendError::Unreachable)?;
        via.check_form::<M>(&self.node.name)?;
        Ok(via)
    }

    /// What the body of an answer says.
    pub(super) fn read<M: RemoteMessage>(
        &self,
        answer: Result<Bytes, SendError>,
    ) -> Result<M::Result, SendError> {
        let via = self.via.as_ref().ok_or(SendError::Unreachable)?;
        let body = answer.map_err(|error| match error {
            SendError::Incompatible { .. } => SendError::Incompatible { name: M::NAME.to_owned() },
            other => other,
        })?;
        decode_on(via, &body).map_err(|_| SendError::Codec)
    }

    /// Counts a message that was told and could not be sent, and tells those who listen.
    pub(super) fn dead_letter<M: RemoteMessage>(&self, error: &SendError) {
        if let Some(via) = &self.via {
            via.lose(error.reason(), || DeadLetter {
                reason: error.reason(),
                from: via.id().clone(),
                to: self.node.name.clone(),
                target: self.name.clone(),
                message: M::NAME.to_owned(),
            });
        }
    }

    /// How long an ask waits when it does not say.
    pub(super) fn ask_timeout(&self) -> Duration {
        self.via.as_ref().map_or(Duration::ZERO, Node::ask_timeout)
    }
}

impl PartialEq for Place {
    fn eq(&self, other: &Self) -> bool {
        self.node == other.node && self.name == other.name
    }
}

impl Eq for Place {}

impl Hash for Place {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.node.hash(state);
        self.name.hash(state);
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} on {}", self.name, self.node)
    }
}

impl Serialize for Place {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (&self.node, &self.name).serialize(serializer)
    }
}

/// What [`Place`] is written as.
pub(super) fn read_place<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<(NodeId, String), D::Error> {
    Deserialize::deserialize(deserializer)
}
