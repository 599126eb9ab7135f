//! What operators want of the members, and handing leadership on.

use serde::{Deserialize, Serialize};
use synod_runtime::identity::NodeName;

use super::NodeRole;
use crate::consensus::ballot::Ballot;

/// What an operator wants.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Wish {
    /// This main shall lead.
    Lead(NodeName),
    /// This node shall belong to the cluster.
    Add {
        /// Its name.
        name: NodeName,
        /// What it is to be.
        role: NodeRole,
        /// Where its peers reach it.
        address: String,
    },
    /// This node shall not.
    Remove(NodeName),
    /// This node, which holds the log, shall be that: a main, or a member.
    Set {
        /// Its name.
        name: NodeName,
        /// What it is to be.
        role: NodeRole,
    },
}

/// A home passes a wish on to the leader. Asked again until it is answered: to want what is already
/// so is to have it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    /// Comes back with the answer.
    pub nonce: u64,
    /// What is wanted.
    pub wish: Wish,
}

/// The answer to [`Wanted`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Granted {
    /// From the question.
    pub nonce: u64,
    /// It is so now; or why it cannot be, and nothing was changed.
    pub end: Result<(), String>,
}

/// *Local*: a wish of an operator at this node.
#[derive(Debug, Clone)]
pub struct NewWish {
    /// Whom to answer.
    pub ticket: u64,
    /// What is wanted.
    pub wish: Wish,
    /// How long the operator waits.
    pub patience: std::time::Duration,
}

/// A leader tells a node without a log that the cluster has removed it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dismissed {}

/// A leader that stopped proposing to one that has every step: stand at once, nobody objects.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TakeOver {
    /// The ballot of the leader that hands over.
    pub ballot: Ballot,
}
