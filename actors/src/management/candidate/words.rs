//! What candidates say to one another, and what they want done.

use std::cmp::Reverse;

use serde::{Deserialize, Serialize};
use synod_runtime::identity::NodeName;

use crate::membership::message::ViewId;

/// What a node is to a service.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub enum Class {
    /// It could run it.
    #[default]
    Spare,
    /// It has its state.
    Secondary,
    /// It runs it.
    Primary,
}

/// A node's rank: by class, then by name, the lower name first. No two are alike.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank(Class, Reverse<NodeName>);

impl Rank {
    /// The rank of that node in that class.
    pub const fn new(class: Class, node: NodeName) -> Self {
        Self(class, Reverse(node))
    }

    /// Whose it is.
    pub const fn node(&self) -> &NodeName {
        &self.1.0
    }
}

/// What the machines of one service say to one another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Letter {
    /// The view both must have.
    pub view: ViewId,
    /// What the sender's provider is.
    pub class: Class,
    /// What it wants.
    pub word: Word,
}

/// See [`Letter`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Word {
    /// Disqualifies the receiver, if its rank is lower (612, 624).
    Visit,
    /// Answers that.
    Visited,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Deed {
    /// To the same machine at another node.
    Send(NodeName, Letter),
    /// 604: tell what the provider here is, by [`provider`](super::Candidate::provider).
    AskProvider,
    /// 408: requests go to that node from now on.
    Remap(NodeName),
    /// 410: make this node ready, and say so by [`ready`](super::Candidate::ready).
    Initialise,
    /// 412: the service runs at that node; whoever waited goes on.
    Release(NodeName),
}

/// One numbered step of the figures, as it happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trace {
    /// Its number.
    pub step: u16,
    /// The other node, where there is one.
    pub other: Option<NodeName>,
}
