//! Views, verdicts, and what monitors say to one another.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use serde::{Deserialize, Serialize};
use synod_runtime::identity::{Incarnation, NodeId, NodeName};

/// Which view: the configuration it stands on, and the verdicts decided since the log began. Two
/// nodes with the same have the same view.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub struct ViewId {
    /// Number of the configuration.
    pub epoch: u64,
    /// Verdicts that changed something.
    pub verdicts: u64,
}

impl ViewId {
    /// One number for people: it rises by one with every view.
    pub const fn number(self) -> u64 {
        self.epoch.saturating_add(self.verdicts)
    }
}

impl fmt::Display for ViewId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.number().fmt(f)
    }
}

/// What a node is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Kind {
    /// Holds all data and votes.
    Main,
    /// Votes while a main is missing.
    Auxiliary,
    /// Follows the log.
    Member,
}

/// How a node is, as it was decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum State {
    /// It takes part.
    Up,
    /// It does not: voted out, or accused by two nodes.
    Down,
    /// It lives, and said that its own state cannot be trusted.
    Halted,
}

impl State {
    /// As people read it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
            Self::Halted => "halted",
        }
    }
}

/// One node of a view.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// What it is for.
    pub kind: Kind,
    /// How it is.
    pub state: State,
    /// Which of its name it is, where the log knows.
    pub incarnation: Option<Incarnation>,
}

/// Who makes up the cluster, and how each is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct View {
    /// Which view it is.
    pub id: ViewId,
    /// The nodes, by name. Those that were removed are not in it.
    pub nodes: BTreeMap<NodeName, Place>,
}

impl View {
    /// Whether that node takes part.
    pub fn is_up(&self, node: &NodeName) -> bool {
        self.nodes.get(node).is_some_and(|place| place.state == State::Up)
    }

    /// Mains and members that take part, by name.
    pub fn serving(&self) -> impl Iterator<Item = (&NodeName, &Place)> {
        let serves = |place: &Place| place.state == State::Up && place.kind != Kind::Auxiliary;
        self.nodes.iter().filter(move |(_, place)| serves(place))
    }
}

/// Asks the log for a verdict on a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Op {
    /// The view in which it is asked for; in any other it changes nothing (V2).
    pub view: ViewId,
    /// Upon whom.
    pub node: NodeId,
    /// What it is from now on.
    pub state: State,
    /// Who asks, and who was asked for a second opinion, if anybody could be.
    pub by: Vec<NodeName>,
}

/// What a monitor is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum MonitorMessage {
    /// *Local*: a sign of life.
    Heard(Heard),
    /// *Local*: the log came to another view.
    Decided(View),
    /// *Local*: whether this node's own state cannot be trusted.
    Halted(bool),
    /// Asks whether that node is heard.
    Ask(Ask),
    /// The answer.
    Opinion(Opinion),
}

/// A sign of life.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heard {
    /// Of whom.
    pub node: NodeId,
    /// How far it is, where it keeps a log.
    pub progress: Option<Progress>,
}

/// How far a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Progress {
    /// The last step it executed.
    pub executed: u64,
    /// The last it would know again after a crash.
    pub durable: u64,
}

/// Asks whether a node is heard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ask {
    /// The asker's view; whoever has another does not answer.
    pub view: ViewId,
    /// About whom.
    pub about: NodeName,
}

/// Whether a node is heard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opinion {
    /// The view of both.
    pub view: ViewId,
    /// About whom.
    pub about: NodeName,
    /// Whether it is heard, and well; `None`: the two need not hear one another.
    pub well: Option<bool>,
}

/// What a monitor says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Word {
    /// To another node's monitor.
    Monitor(MonitorMessage),
    /// To the log.
    Propose(Op),
    /// To this node's manager monitor: a view, in order (V6).
    Alert(View),
    /// To people: nodes that are down by the view and are heard again, whenever they are others.
    Returning(BTreeSet<NodeName>),
}
