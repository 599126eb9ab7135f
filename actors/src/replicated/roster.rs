//! Who makes up the cluster, as a state machine is told it.

use synod_runtime::identity::{NodeId, NodeName};

/// The newest configuration of the log at a point of it: equal wherever that point was executed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Roster {
    /// Its number; rises by one with every change.
    pub epoch: u64,
    /// The mains that vote.
    pub mains: Vec<NodeId>,
    /// The auxiliaries.
    pub auxiliaries: Vec<NodeId>,
    /// Mains that were voted out and may come back.
    pub absent: Vec<NodeName>,
    /// Nodes that follow the log and never vote.
    pub members: Vec<NodeName>,
}
