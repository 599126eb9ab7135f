//! What the roles say of themselves, for people.

use synod_runtime::identity::NodeId;

use super::members::{Leader, NodeRole, Program, Standing};
use crate::consensus::ballot::{Ballot, Step};
use crate::consensus::configuration::{Configuration, History};

/// *Local*: what a role says of itself, for `status` and metrics.
#[derive(Debug, Clone)]
pub enum Report {
    /// From the proposer.
    Proposer(ProposerReport),
    /// From the learner: what was executed, and what of it is durable.
    Learner {
        /// What was executed and who votes.
        history: History,
        /// Would be known again after a crash.
        durable_upto: Step,
    },
    /// From the replica: position, agreed time, digest.
    Replica {
        /// Commands executed.
        position: u64,
        /// The executed step.
        step: Step,
        /// Agreed time in milliseconds.
        time_ms: u64,
        /// Chain over commands and replies.
        digest: u64,
        /// Why it executes nothing any more, if that is so.
        halted: Option<String>,
        /// How often another main was seen to have come to another state.
        differences: u64,
    },
    /// From an auxiliary.
    Auxiliary {
        /// What it keeps.
        standing: Standing,
        /// Who leads, as far as it was told.
        leader: Option<(NodeId, Ballot)>,
        /// The newest configuration it was told of.
        configuration: Option<Configuration>,
    },
    /// From a home.
    Home(Leader),
    /// From a home: the cluster has removed this node.
    Dismissed,
}

/// What a proposer says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ProposerReport {
    /// Who leads.
    pub leader: Option<NodeId>,
    /// Its ballot.
    pub ballot: Ballot,
    /// Whether commands can be chosen.
    pub serving: bool,
    /// Whom it waits for, if it can do nothing without.
    pub halted: Option<String>,
    /// Whether an auxiliary completes the steps at present.
    pub bridging: bool,
    /// Whether this node votes for nothing yet, since the end of its journal was torn.
    pub mending: bool,
    /// The highest cluster version that this node can execute.
    pub knows: u32,
    /// What is known of each peer.
    pub peers: Vec<PeerReport>,
}

/// One peer, as a proposer knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerReport {
    /// Who.
    pub node: NodeId,
    /// What it came as.
    pub role: NodeRole,
    /// What it said it has executed; 0 from what executes nothing.
    pub executed: Step,
    /// What it said it would know again after a crash.
    pub durable: Step,
    /// The newest epoch it said it knows; 0 from what executes nothing.
    pub epoch: u64,
    /// Whether it was heard lately.
    pub sign: Sign,
    /// The program it runs, and the highest cluster version it can execute, where it executes.
    pub program: Option<(Program, Option<u32>)>,
}

/// Whether a peer gives signs of life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Sign {
    /// Heard lately.
    Heard,
    /// Silent for longer than it should be.
    Late,
    /// Silent for so long that nobody counts on it.
    #[default]
    Silent,
}
