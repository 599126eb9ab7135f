//! A word with any role, from a node that has no part in the log.

use std::{cell::RefCell, fmt, sync::Arc};

use synod_runtime::{
    address::SendError,
    identity::{NodeId, NodeName},
    node::Node,
    registry::{Binding, Deliver, RegisterError},
    wire::Frame,
};
use tokio::sync::mpsc::{Receiver, Sender, channel};

use super::site::{ROLES, Targets, role_name};
use crate::consensus::message::Message;

/// Speaks to roles as their peers do, and hears what they answer. For tools and tests: what it says
/// counts as if a node's own roles had said it.
///
/// Roles answer to a role of the asking node, so this takes all their names there
/// (`consensus/proposer@NODE` and so on). Messages may be lost, as between roles; ask again.
pub struct Correspondent {
    node: Node,
    targets: RefCell<Targets>,
    heard: Receiver<(NodeId, Message)>,
    _names: Vec<Binding>,
}

/// Answers that wait to be heard; more are dropped, as a link would.
const HEARD_MAX: usize = 1_024;

impl Correspondent {
    /// Speaks from `node`.
    ///
    /// # Errors
    /// When a role lives in a seat of the node's own name; nothing was changed.
    pub fn on(node: &Node) -> Result<Self, RegisterError> {
        let (sender, heard) = channel(HEARD_MAX);
        let names = ROLES.map(|role| {
            node.bind(&role_name(role, node.name()), Arc::new(Ear(role, sender.clone())))
        });
        let names = names.into_iter().collect::<Result<_, _>>()?;
        Ok(Self { node: node.clone(), targets: RefCell::default(), heard, _names: names })
    }

    /// Where the role of that full name lives (`consensus/acceptor@a`), as far as known here yet.
    pub fn whereabouts(&self, name: &str) -> Option<NodeName> {
        let found = self.node.registry().into_iter().find(|entry| entry.name == name);
        found.map(|entry| entry.node)
    }

    /// Sends a message to the role it is for, of `seat`, which lives on `node`. Messages that never
    /// leave a seat are not sent.
    ///
    /// # Errors
    /// Nothing was sent.
    pub fn tell(
        &self,
        node: &NodeName,
        seat: &NodeName,
        message: impl Into<Message>,
    ) -> Result<(), SendError> {
        self.targets.borrow_mut().tell(&self.node, node, seat, &message.into())
    }

    /// The next message of any role, with its node. Can be called again after it was dropped.
    pub async fn hear(&mut self) -> (NodeId, Message) {
        match self.heard.recv().await {
            Some(heard) => heard,
            // Its names were taken away with the node: nothing will come.
            None => std::future::pending().await,
        }
    }
}

impl fmt::Debug for Correspondent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Correspondent").field("node", &self.node.name()).finish_non_exhaustive()
    }
}

/// Takes what comes for one role.
struct Ear(&'static str, Sender<(NodeId, Message)>);

impl Deliver for Ear {
    fn deliver(&self, from: &NodeId, batch: Vec<Frame>, node: &Node) {
        for frame in batch {
            match rmp_serde::from_slice(&frame.body) {
                // Nobody listens, or too slowly: see HEARD_MAX.
                Ok(message) => drop(self.1.try_send((from.clone(), message))),
                Err(_) => node.dead_letter(&SendError::Codec),
            }
        }
    }

    fn type_name(&self) -> &'static str {
        self.0
    }

    fn mailbox_len(&self) -> usize {
        0
    }
}
