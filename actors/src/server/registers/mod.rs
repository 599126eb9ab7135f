//! Registers at a node: the handle, and the actors behind it.
//!
//! ```no_run
//! # use synod::server::registers::Registers;
//! # async fn run(registers: Registers) -> Result<(), synod::server::registers::RegisterError> {
//! registers.write("motto", b"yes".to_vec()).await?;
//! let louder = registers.change("motto", |old| [old, b"!"].concat()).await?;
//! assert_eq!(registers.read("motto").await?, louder);
//! # Ok(())
//! # }
//! ```
//! # Layout
//! - [`Registers`]: the handle of a node; `driver`: carries one call through
//! - [`RegisterHolder`], [`BlockServer`]: the actors of mains and auxiliaries
//! - `serving`: which nodes keep registers; `vault`, `blocks`: what they have on their disks

mod actors;
mod blocks;
mod driver;
mod serving;
mod vault;

use std::{
    collections::BTreeMap,
    fmt,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use rand::RngExt as _;
use synod_runtime::{
    identity::{NodeId, NodeName},
    node::Node,
    world::{Instant, Rng},
};

pub use self::actors::{BlockAsk, BlockServer, HolderAsk, RegisterHolder};
pub(super) use self::serving::start;
use self::{blocks::Blocks, driver::Seats};
use super::site::lock;
use crate::{
    consensus::message::NodeRole,
    register::{
        Goal, Holders, Stamps, Written,
        disk::DiskBlock,
        message::{NAME_BYTES_MAX, Refusal},
    },
};

/// Where registers are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Keeping {
    /// By holders at all mains and auxiliaries of the first configuration.
    Holders,
    /// In blocks that the same nodes serve.
    Servers,
    /// In blocks below these directories, each on a disk that all clients reach.
    Disks(Vec<PathBuf>),
}

/// Where roles are kept.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum RolesIn {
    /// In the log.
    #[default]
    Log,
    /// Each in a register of its own.
    Registers(Keeping),
}

/// A node's registers. Cloning is cheap; it works from any thread.
#[derive(Clone)]
pub struct Registers(Arc<Inner>);

struct Inner {
    node: Node,
    /// Under which name it has its blocks.
    me: String,
    seats: Seats,
    holders: Holders,
    stamps: Mutex<Stamps>,
    rng: Mutex<Rng>,
    /// Somebody who is asked first takes its time until then, as far as was seen.
    slow_until: Mutex<Instant>,
    /// What this node wrote last in a register, where nobody else is known to have written since: its
    /// next call goes on from there. With holders only, each of which bounds how many there are.
    written: Mutex<BTreeMap<String, Written>>,
    /// Its own blocks, and one call at a time for each register: for disks only.
    mine: Mutex<BTreeMap<String, Arc<tokio::sync::Mutex<Option<DiskBlock>>>>>,
}

/// Why a call did not end well.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegisterError {
    /// It cannot be. Nothing was changed.
    #[error("not applied: {0}")]
    Refused(#[from] Refusal),
    /// Too few answered, or others were faster again and again. Nothing was changed.
    #[error("not applied: {0}")]
    NotApplied(String),
    /// The same, and it may be found to have been written.
    #[error("outcome unknown: {0}")]
    Unknown(String),
}

impl Registers {
    /// The registers of the nodes in `listed`, as they are reached from `node`, which is `me`.
    pub(super) fn new(
        node: &Node,
        me: &NodeId,
        listed: &BTreeMap<NodeName, NodeRole>,
        keeping: &Keeping,
    ) -> Self {
        let of = |wanted| listed.iter().filter(move |(_, role)| **role == wanted);
        let mains = of(NodeRole::Main).map(|(name, _)| name.clone());
        let names: Vec<_> =
            mains.chain(of(NodeRole::Auxiliary).map(|(name, _)| name.clone())).collect();
        let first = of(NodeRole::Main).count();
        let (seats, holders) = match keeping {
            Keeping::Holders => (Seats::Holders(names.clone()), (first, names.len())),
            Keeping::Servers => (Seats::Servers(names.clone()), (first, names.len())),
            Keeping::Disks(dirs) => {
                let disk = &node.world().disk;
                let open = |dir: &PathBuf| Blocks::open(disk, dir.clone());
                (Seats::Disks(dirs.iter().map(open).collect()), (dirs.len(), dirs.len()))
            }
        };
        let mut rng = node.rng("registers");
        Self(Arc::new(Inner {
            node: node.clone(),
            // Another incarnation may run beside this one, and is another client.
            me: format!("{}-{}", me.name, me.incarnation),
            seats,
            holders: Holders { first: holders.0, all: holders.1 },
            stamps: Mutex::new(Stamps::new(rng.random())),
            rng: Mutex::new(rng),
            slow_until: Mutex::default(),
            written: Mutex::default(),
            mine: Mutex::default(),
        }))
    }

    /// The value; empty if nothing was ever written.
    ///
    /// # Errors
    /// When too few answer in time.
    pub async fn read(&self, register: &str) -> Result<Vec<u8>, RegisterError> {
        self.call(register, DEADLINE, || Goal::Read).await
    }

    /// Writes a value, of at most [`VALUE_BYTES_MAX`](crate::register::VALUE_BYTES_MAX) bytes.
    ///
    /// # Errors
    /// When it is too large, or too few answer in time: see [`RegisterError`].
    pub async fn write(&self, register: &str, value: Vec<u8>) -> Result<(), RegisterError> {
        self.call(register, DEADLINE, || Goal::Write(value.clone())).await.map(drop)
    }

    /// Writes what `change` makes of the value, while nobody else changes it; answers what is
    /// written. `change` may be called more than once, also with what it made itself before.
    ///
    /// # Errors
    /// As [`Registers::write`].
    pub async fn change(
        &self,
        register: &str,
        change: impl FnMut(&[u8]) -> Vec<u8> + Send + 'static,
    ) -> Result<Vec<u8>, RegisterError> {
        self.change_within(DEADLINE, register, change).await
    }

    /// The same, trying for so long.
    pub(super) async fn change_within(
        &self,
        deadline: Duration,
        register: &str,
        change: impl FnMut(&[u8]) -> Vec<u8> + Send + 'static,
    ) -> Result<Vec<u8>, RegisterError> {
        let change = Arc::new(Mutex::new(change));
        let goal = || {
            let change = Arc::clone(&change);
            Goal::Change(Box::new(move |old| lock(&change)(old)))
        };
        self.call(register, deadline, goal).await
    }

    async fn call(
        &self,
        register: &str,
        deadline: Duration,
        goal: impl Fn() -> Goal,
    ) -> Result<Vec<u8>, RegisterError> {
        if register.is_empty() || register.len() > NAME_BYTES_MAX {
            return Err(Refusal::BadName.into());
        }
        self.carry_through(register, deadline, goal).await
    }

    pub(super) fn node(&self) -> &Node {
        &self.0.node
    }
}

/// How long a call tries.
const DEADLINE: Duration = Duration::from_secs(2);

impl fmt::Debug for Registers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registers").field("holders", &self.0.holders).finish_non_exhaustive()
    }
}
