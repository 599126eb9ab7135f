//! What is said to a service, and what it says.

use synod_runtime::world::Instant;

use crate::election::message::{Change, Epoch, Grant, Holder, Op, Refusal, Said, Terms};

/// What may be said to a service.
#[derive(Debug, Clone)]
pub enum ServiceMessage {
    /// A client wants a role.
    Volunteer(Volunteered),
    /// A client that asks for itself is alive; `at_once`: it waits to be renewed.
    Asked {
        /// Its handle.
        handle: u64,
        /// Whether it waits.
        at_once: bool,
    },
    /// All clients behind that pulse are alive.
    Pulsed(u64),
    /// There is nobody behind that pulse any more.
    PulseEnded(u64),
    /// That client asks for itself from now on, and does not stand again.
    OnItsOwn(u64),
    /// The client has stopped acting; the caller tells the store.
    Forget(u64),
    /// The client has stopped acting, and wants the role no more; also when it was seen to end.
    Leave(u64),
    /// The log's answer to a command.
    Answer {
        /// Which.
        flight: u64,
        /// One answer for each operation, or why there are none.
        said: Result<Vec<Said>, Failed>,
    },
    /// The store has a new holder of a role; heard of here, or from another node.
    Changed(Vec<Change>),
}

/// A client that wants a role.
#[derive(Debug, Clone)]
pub struct Volunteered {
    /// Under which it is told what happens; the caller's choice, never used twice.
    pub handle: u64,
    /// The role.
    pub role: String,
    /// What to call the client.
    pub name: String,
    /// What it wants.
    pub terms: Terms,
    /// Whether it stands while others hold the role, again and again.
    pub stands: bool,
    /// Who asks for it; none: itself.
    pub pulse: Option<u64>,
    /// It says that it holds the role already, by way of another node.
    pub adopt: Option<Epoch>,
}

/// Why a command has no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failed {
    /// It was certainly not executed, and never will be.
    pub not_applied: bool,
    /// For people.
    pub why: String,
}

/// What a service says.
#[derive(Debug, Clone, PartialEq)]
pub enum Word {
    /// To the log. Its answer comes with the number.
    Command {
        /// Which.
        flight: u64,
        /// What.
        ops: Vec<Op>,
    },
    /// To a client.
    Tell(u64, Event),
}

/// What a client is told.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// It stands; another leads.
    Following(Holder),
    /// It may act until the deadline.
    Leading {
        /// The epoch and the terms.
        grant: Grant,
        /// When the request or renewal was sent that this rests on.
        sent: Instant,
        /// Not longer than this, by this node's clock.
        deadline: Instant,
    },
    /// It may not act any more in that epoch.
    Lost(Epoch),
    /// Nothing more comes under this handle.
    Ended(Ended),
}

/// Why nothing more comes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// It left.
    Left,
    /// Another holds the role, and it did not want to stand.
    Held(Holder),
    /// It does not hold the role any more, and did not want to stand.
    Lost,
    /// The store refused.
    Refused(Refusal),
    /// Nobody knows; in case it was granted the role, that was given back.
    Failed(Failed),
}
