//! Founding, signs of life, and who is what.

use std::fmt;

use serde::{Deserialize, Serialize};
use synod_runtime::identity::NodeId;

use crate::consensus::ballot::{Ballot, Step};
use crate::consensus::configuration::Configuration;
use crate::consensus::lives::{Doubt, Opinion};

/// A node without a log asks how the log began.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ask {}

/// I have no log either.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Empty {
    /// The highest cluster version that the sender can execute.
    pub knows: u32,
}

/// How the log began.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Genesis {
    /// The first configuration.
    pub configuration: Configuration,
}

/// The answer to a process that starts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entered {
    /// Which process asked.
    pub nonce: u64,
    /// What is known of it.
    pub opinion: Opinion,
}

/// There is something against a process that takes part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disowned {
    /// Which process.
    pub nonce: u64,
    /// What.
    pub doubt: Doubt,
}

/// A main's sign of life, to mains several times an election timeout, to auxiliaries once a second.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// The highest ballot seen; the sender's own when it leads.
    pub ballot: Ballot,
    /// Whether the sender leads.
    pub leading: bool,
    /// Whether it can have commands chosen at present.
    pub serving: bool,
    /// What it has executed.
    pub chosen_upto: Step,
    /// What it would know again after a crash.
    pub durable_upto: Step,
    /// The epoch of its newest configuration.
    pub epoch: u64,
    /// The program it runs.
    pub program: Program,
    /// The highest cluster version that it can execute.
    pub knows: u32,
    /// Its disk is full: it promises, and votes for nothing that clients ask for.
    #[serde(default)]
    pub full: bool,
}

/// Major, minor and patch number of the library that a node runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Program(pub u16, pub u16, pub u16);

impl Program {
    /// This one.
    pub const THIS: Self = Self(
        number(env!("CARGO_PKG_VERSION_MAJOR")),
        number(env!("CARGO_PKG_VERSION_MINOR")),
        number(env!("CARGO_PKG_VERSION_PATCH")),
    );
}

const fn number(text: &str) -> u16 {
    match u16::from_str_radix(text, 10) {
        Ok(number) => number,
        Err(_) => panic!("cargo gives a number"),
    }
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

/// An auxiliary's sign of life.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// Steps below are forgotten.
    pub floor: Step,
    /// The highest step it still holds a vote for.
    pub holds: Option<Step>,
    /// Bytes it holds.
    pub bytes: u64,
    /// The newest configuration it was told of.
    pub epoch: u64,
    /// The program it runs.
    pub program: Program,
}

/// Rule F: the auxiliary may forget.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forget {
    /// Every step below was executed, durably, by every main.
    pub floor: Step,
    /// The configuration in force at the floor.
    pub configuration: Configuration,
}

/// Asks an auxiliary whether it can reach a main.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reach {
    /// Which main.
    pub node: NodeId,
}

/// The answer to [`Reach`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reached {
    /// Which main.
    pub node: NodeId,
    /// Whether it answered.
    pub alive: bool,
}

/// Asks a main for a sign of life.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// Comes back in the answer.
    pub nonce: u64,
}

/// The answer to [`Probe`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeAnswer {
    /// From the probe.
    pub nonce: u64,
}

/// Who leads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leader {
    /// The leader, if the sender knows one.
    pub node: Option<NodeId>,
    /// Its ballot.
    pub ballot: Ballot,
    /// Whether commands can be chosen at present.
    pub serving: bool,
    /// Why not, for people.
    pub halted: Option<String>,
}

/// *Local*, proposer to home.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nearness {
    /// What was executed here is near enough to the end of the log to answer reads.
    pub near: bool,
    /// The cluster version, as far as it is known here.
    pub version: u32,
}

/// *Local*, replica to proposer: when something of the state expires.
#[derive(Debug, Clone)]
pub struct Expiry {
    /// Agreed time in milliseconds.
    pub due_ms: Option<u64>,
}

/// *Local*: stop leading, and let the others know at once.
#[derive(Debug, Clone)]
pub struct Resign {}

/// What a node is in the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NodeRole {
    /// Holds state and votes.
    Main,
    /// Votes when a main is missing.
    Auxiliary,
    /// Holds state and serves clients; never votes.
    Member,
}

impl NodeRole {
    /// What a node of this role calls itself to its peers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Main => "main",
            Self::Auxiliary => "auxiliary",
            Self::Member => "member",
        }
    }

    /// The role called so; none for nodes that have no part in the log.
    pub fn named(text: &str) -> Option<Self> {
        [Self::Main, Self::Auxiliary, Self::Member].into_iter().find(|role| role.as_str() == text)
    }
}

/// *Local*, from the links: a peer is connected, or no longer.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Who.
    pub node: NodeId,
    /// As what.
    pub role: NodeRole,
    /// Whether it is connected.
    pub up: bool,
}
