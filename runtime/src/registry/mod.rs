//! Names of actors: this node's own, and a copy of every other node's.
//!
//! Each node is the only writer of its own names and tells the others of every change
//! (module `directory`); a copy goes with the link it came over. So a copy may be a little old, and
//! never a lie of a third party. Names that need agreement (who leads, where a service is) are
//! decided by the log above, not here.
//!
//! [`group`]s are entries of the same lists, [`watch`]es have a protocol of their own.

pub(crate) mod directory;
pub mod group;
pub(crate) mod local;
pub mod watch;

use std::{any::Any, fmt, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::{
    identity::{NodeId, NodeName},
    message::{DuplicateMessage, Inbox, RemoteActor},
    node::{Debt, Node},
    wire::{Frame, MESSAGES_BYTES_MAX},
};

/// Longest name of an actor.
pub const ACTOR_NAME_BYTES_MAX: usize = 255;

/// Most names one node may have: its whole list must fit one frame.
pub const NAMES_LEN_MAX: usize = 20_000;

/// Most memberships of groups on one node, for the same reason.
pub const MEMBERSHIPS_LEN_MAX: usize = 20_000;

/// Names that begin so are the runtime's own.
pub const RESERVED: &str = "synod/";

/// What a name leads to: takes the frames that came for it.
pub trait Deliver: Send + Sync {
    /// Takes frames of one sender in the order they came; tells and asks, the latter to be
    /// answered by [`Node::reply`], [`Node::refuse`] or [`Node::serve`]. Called on the protocol
    /// arbiter (what the node sends to itself: on the arbiter that sends). Must not block, nor
    /// spawn local tasks: the network runs outside of the arbiter's `LocalSet`. Most send the
    /// batch to an actor.
    fn deliver(&self, from: &NodeId, batch: Vec<Frame>, node: &Node);

    /// What kind of actor this is, to people.
    fn type_name(&self) -> &'static str;

    /// Messages that wait, as far as known.
    fn mailbox_len(&self) -> usize;

    /// Whether a node that is leaving refuses what other nodes send here. Roles go on until they
    /// are stopped.
    fn is_work(&self) -> bool {
        false
    }

    /// Whether anybody still listens; a name whose listener is gone is removed.
    fn alive(&self) -> bool {
        true
    }

    /// As [`Deliver::deliver`], for what came on credit: the sender hears that it is done when
    /// `debt` is dropped.
    #[doc(hidden)]
    fn deliver_on_credit(&self, from: &NodeId, batch: Vec<Frame>, debt: Debt, node: &Node) {
        self.deliver(from, batch, node);
        drop(debt);
    }

    /// actix's own `Recipient` for the message of that number, if there is an actor behind this
    /// that takes it. Lets [`RemoteRecipient`](crate::address::RemoteRecipient)s of this node
    /// skip the encoding.
    fn recipient(&self, _message: u64) -> Option<Box<dyn Any + Send>> {
        None
    }
}

/// One name, wherever it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegistryEntry {
    /// The name.
    pub name: String,
    /// What kind of actor.
    #[serde(rename = "type")]
    pub kind: String,
    /// Where.
    pub node: NodeName,
    /// The epoch a role acts in, if it has one.
    pub epoch: Option<u64>,
    /// Times it was rebuilt since its node started.
    pub restarts: u64,
    /// Messages that waited when last looked.
    pub mailbox: u64,
}

/// A bound name; dropping it unbinds.
#[must_use = "dropping a binding unbinds the name"]
pub struct Binding {
    node: Node,
    name: String,
    serial: u64,
}

impl Binding {
    pub(crate) fn new(node: Node, name: String, serial: u64) -> Self {
        Self { node, name, serial }
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Shows the epoch the role acts in, to whoever looks at the registry.
    pub fn set_epoch(&self, epoch: Option<u64>) {
        self.node.set_epoch(&self.name, epoch);
    }
}

impl Drop for Binding {
    fn drop(&mut self) {
        self.node.unbind(&self.name, self.serial);
    }
}

impl fmt::Debug for Binding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Binding").field(&self.name).finish()
    }
}

/// Why a name could not be taken. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegisterError {
    /// Somebody has it.
    #[error("{name} is taken by a {kind}")]
    Taken {
        /// The name.
        name: String,
        /// What has it.
        kind: String,
    },
    /// Another name looks the same on the wire.
    #[error("{name} and {other} have one number on the wire: rename one")]
    Collision {
        /// The name wanted.
        name: String,
        /// The name that is there.
        other: String,
    },
    /// Empty, or longer than [`ACTOR_NAME_BYTES_MAX`].
    #[error("a name has 1 to {ACTOR_NAME_BYTES_MAX} bytes, not {0}")]
    Length(usize),
    /// Begins with [`RESERVED`].
    #[error("{name}: names that begin with {RESERVED} are the runtime's own")]
    Reserved {
        /// The name wanted.
        name: String,
    },
    /// What an actor is to be built from on another node cannot be written as MessagePack.
    #[error("the arguments of {name}: {why}")]
    Arguments {
        /// The actor.
        name: String,
        /// Why not.
        why: String,
    },
    /// There are [`NAMES_LEN_MAX`] names.
    #[error("{name}: a node may have {NAMES_LEN_MAX} names at most")]
    Full {
        /// The name wanted.
        name: String,
    },
    /// Two messages have one name, or one number.
    #[error(transparent)]
    Messages(#[from] DuplicateMessage),
    /// The forms of all messages this node knows must fit a hello.
    #[error("too many messages: their forms take more than {MESSAGES_BYTES_MAX} bytes")]
    TooManyMessages,
}

/// Why a name could not be looked up.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LookupError {
    /// No node that is linked has it.
    #[error("nobody is called {0}")]
    Unknown(String),
    /// It is another kind of actor.
    #[error("{name} is a {found}, not a {wanted}")]
    Kind {
        /// The name.
        name: String,
        /// What it is.
        found: String,
        /// What was asked for.
        wanted: &'static str,
    },
}

/// An actor that takes remote messages, behind its name.
pub(crate) struct Registered<A: RemoteActor>(pub(crate) Arc<Inbox<A>>);

impl<A: RemoteActor> Deliver for Registered<A> {
    fn deliver(&self, from: &NodeId, batch: Vec<Frame>, node: &Node) {
        self.0.put(from, batch, Debt::default(), node);
    }

    fn deliver_on_credit(&self, from: &NodeId, batch: Vec<Frame>, debt: Debt, node: &Node) {
        self.0.put(from, batch, debt, node);
    }

    fn type_name(&self) -> &'static str {
        A::NAME
    }

    /// What came from other nodes; actix does not tell of the rest.
    fn mailbox_len(&self) -> usize {
        self.0.len()
    }

    fn is_work(&self) -> bool {
        true
    }

    fn alive(&self) -> bool {
        self.0.addr().connected()
    }

    fn recipient(&self, message: u64) -> Option<Box<dyn Any + Send>> {
        self.0.routes().recipient(self.0.addr(), message)
    }
}
