//! The core of a node: its roles, on any world.
//!
//! A core takes the data directory, reads back what survived, links to its peers, agrees with them
//! on how the log begins (on the very first start), and then runs the roles of its place in the
//! cluster. Listeners are not its business, so the same core runs in a simulated cluster.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use rand::RngExt;
use synod_runtime::{
    identity::{ClusterName, Incarnation, NodeId, NodeName},
    journal::{self, Durability, Journal, JournalError},
    node::{self, Node, NodeError},
    slots::SlotsError,
    supervision::Fault,
    watch,
    world::{
        World,
        disk::{Lock, LockError},
        network::TlsFiles,
    },
};

pub use super::board::Reached;
use super::{
    board::Board,
    clients::Clients,
    elections::Elections,
    membership::Views,
    memory::Memory,
    multicast::{Ground, Multicast},
    passive::SharedObject,
    registers::{Registers, RolesIn},
    seat::{House, Seat, SeatConfig},
    services::Services,
    singletons::{HaActor, Hosting, SingletonRef},
    site::{role_name, shelf::Shelf},
};
use crate::{
    consensus::{
        message::{NodeRole, ProposerMessage, Resign, Wish},
        timing::{Timing, VoteStyle},
    },
    replicated::{Done, StateMachine, Submit},
};

/// Makes the replicated actors of a program, empty.
pub type Machines = Arc<dyn Fn() -> Vec<Box<dyn StateMachine>> + Send + Sync>;

/// How a core is set up.
#[derive(Clone)]
pub struct CoreConfig {
    /// The cluster.
    pub cluster: ClusterName,
    /// This node.
    pub name: NodeName,
    /// Its place.
    pub role: NodeRole,
    /// Journal, snapshots, identity.
    pub data_dir: PathBuf,
    /// Where peers reach it.
    pub listen: std::net::SocketAddr,
    /// Certificates; none under simulation.
    pub tls: Option<TlsFiles>,
    /// Whom to link to, with address.
    pub peers: Vec<(NodeName, String)>,
    /// The nodes of the first configuration, this one included unless it joins later.
    pub listed: BTreeMap<NodeName, NodeRole>,
    /// The auxiliaries that are objects on shared storage, for a main to ask in their stead.
    pub passive: BTreeMap<NodeName, Arc<dyn SharedObject>>,
    /// What must survive a power loss.
    pub durability: Durability,
    /// How patient the roles are.
    pub timing: Timing,
    /// How a leader's vote travels.
    pub style: VoteStyle,
    /// Bytes of a journal segment at a main. An auxiliary has no segments; its ring is smaller
    /// where these are below 4 MiB.
    pub segment_bytes: u64,
    /// Bytes of log between snapshots.
    pub snapshot_log_bytes: u64,
    /// The replicated actors.
    pub machines: Machines,
    /// Where roles are kept: the same at all nodes of a cluster.
    pub roles: RolesIn,
}

impl CoreConfig {
    /// The seat of its node in an incarnation.
    pub(super) fn seat(&self, incarnation: Incarnation) -> SeatConfig {
        SeatConfig {
            id: NodeId::new(self.name.clone(), incarnation),
            role: self.role,
            listed: self.listed.clone(),
            data_dir: self.data_dir.clone(),
            durability: self.durability,
            timing: self.timing,
            style: self.style,
            segment_bytes: self.segment_bytes,
            snapshot_log_bytes: self.snapshot_log_bytes,
            machines: Arc::clone(&self.machines),
            roles: self.roles.clone(),
        }
    }
}

/// Why a core could not start. Nothing is left running.
#[derive(Debug, thiserror::Error)]
pub enum CoreError {
    /// The data directory is in use.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The data directory cannot be used.
    #[error("{path}: {why}")]
    Data {
        /// The file or directory.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The identity cannot be read.
    #[error(transparent)]
    Identity(#[from] SlotsError),
    /// The journal cannot be read.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// Memory was lost once more, before anybody looked after the disk. Nothing was changed.
    #[error("{lost}: holds what was lost here before: look after the disk, then move this away")]
    LostAgain {
        /// Where the earlier memory was put.
        lost: PathBuf,
    },
    /// The network cannot be started.
    #[error(transparent)]
    Node(#[from] NodeError),
}

impl CoreError {
    /// Whether something that was durable is missing: this node may have promised anything.
    pub const fn is_lost_memory(&self) -> bool {
        match self {
            Self::Journal(JournalError::LostMemory { .. })
            | Self::Identity(SlotsError::LostMemory { .. })
            | Self::LostAgain { .. } => true,
            Self::Journal(_)
            | Self::Identity(_)
            | Self::Lock(_)
            | Self::Data { .. }
            | Self::Node(_) => false,
        }
    }
}

/// A running core. Dropping it stops nothing: see [`Core::stop`] and [`Core::crash`].
pub struct Core {
    seat: Seat,
    /// None at an auxiliary.
    multicast: Option<Multicast>,
    lost: Option<String>,
    _lock: Box<dyn Lock>,
}

impl Core {
    /// Starts the node of `config`. Must be called where local tasks can be spawned.
    ///
    /// # Errors
    /// See [`CoreError`].
    pub fn start(world: World, config: CoreConfig) -> Result<Self, CoreError> {
        let disk = Arc::clone(&world.disk);
        let dir = &config.data_dir;
        let data = |source: std::io::Error| CoreError::Data {
            path: config.data_dir.clone(),
            why: source.to_string(),
        };
        disk.create_dir_all(dir).map_err(data)?;
        let lock = disk.lock(dir)?;
        let Memory { identity, store, lost } = Memory::open(&world, &config)?;
        let incarnation = identity.incarnation;
        let nonce = world.entropy.rng("life").random();
        let seat = config.seat(incarnation);
        let node = Node::start(
            world,
            node::NodeConfig {
                role: config.role.as_str().to_owned(),
                listen: config.listen,
                tls: config.tls,
                peers: config.peers,
                ask_timeout: config.timing.call,
                ..node::NodeConfig::new(config.cluster, config.name, incarnation)
            },
        )?;
        let seat = House::on(&node).seat(store, seat);
        let seat = seat.rejoining(identity.rejoins()).living(identity.starts, nonce);
        let mut core = Self { seat, multicast: None, lost, _lock: lock };
        if config.role != NodeRole::Auxiliary {
            for (name, object) in &config.passive {
                core.seat.site.open_passive(name, Arc::clone(object));
            }
        }
        core.seat.start_all();
        if config.role != NodeRole::Auxiliary {
            let site = &core.seat.site;
            core.multicast = Some(Multicast::start(Ground {
                node: site.node.clone(),
                me: site.me.clone(),
                board: Arc::clone(&site.board),
                elections: site.elections.clone(),
                submit: Arc::clone(&site.clients) as Arc<dyn Submit>,
                dir: config.data_dir.join(GROUPS),
                durability: config.durability,
                registers: core.seat.registers(),
            }));
        }
        Ok(core)
    }

    /// Why what this node remembered had to be put aside at this start, if so: it is another node
    /// now, of the same name.
    pub fn lost_memory(&self) -> Option<&str> {
        self.lost.as_deref()
    }

    /// The node below.
    pub fn node(&self) -> &Node {
        &self.seat.site.node
    }

    /// The journal.
    pub fn journal(&self) -> &Journal {
        &self.seat.site.journal
    }

    /// The way into the log. Every call ends: once this core has stopped, open ones with an unknown
    /// outcome and new ones not applied.
    pub fn submit(&self) -> Arc<dyn Submit> {
        Arc::clone(&self.seat.site.clients) as Arc<dyn Submit>
    }

    /// The snapshots on this node's disk.
    pub(super) fn shelf(&self) -> Arc<Shelf> {
        Arc::clone(&self.seat.site.shelf)
    }

    pub(super) fn clients(&self) -> Arc<Clients> {
        Arc::clone(&self.seat.site.clients)
    }

    /// Who leads in what, and standing for it.
    pub fn elections(&self) -> Elections {
        self.seat.elections()
    }

    /// The registers of the cluster, where it keeps any. Under disks, the answer is a client of its
    /// own, which shares its blocks with this node's others: have one.
    pub fn registers(&self) -> Option<Registers> {
        self.seat.registers()
    }

    /// Outside programs that the cluster keeps running.
    pub fn services(&self) -> Services {
        self.seat.services()
    }

    /// Who is there, as the log decided.
    pub fn views(&self) -> Views {
        self.seat.views()
    }

    /// The singleton `name`, to be hosted by this node when its turn comes.
    pub fn singleton<A: HaActor>(&self, name: &str, args: A::Args) -> Hosting<A> {
        self.elections().singleton(name, args)
    }

    /// The way to the singleton `name`, wherever it lives.
    pub fn singleton_ref<A: HaActor>(&self, name: &str) -> SingletonRef<A> {
        self.elections().singleton_ref(name)
    }

    /// Its groups; none at an auxiliary.
    pub fn multicast(&self) -> Option<Multicast> {
        self.multicast.clone()
    }

    pub(super) fn board(&self) -> Arc<Board> {
        Arc::clone(&self.seat.site.board)
    }

    /// The document of `GET /status`.
    pub fn status(&self) -> serde_json::Value {
        self.seat.site.board.status()
    }

    /// How far it is.
    pub fn reached(&self) -> Reached {
        self.seat.site.board.reached()
    }

    /// Whether its state is sound, as far as it was compared with that of the other mains.
    ///
    /// # Errors
    /// What is wrong with it, for people. Nothing is executed here until it is mended.
    pub fn sound(&self) -> Result<(), String> {
        self.seat.site.board.sound()
    }

    /// Whether reads and writes are served here; else why not.
    ///
    /// # Errors
    /// The reason, for people.
    pub fn ready(&self) -> Result<(), String> {
        self.seat.site.board.ready()
    }

    /// Says why the node cannot go on, once that is so.
    pub fn failed(&self) -> watch::Receiver<Option<String>> {
        self.seat.site.failed.subscribe()
    }

    /// What ends this node, from any thread, by a reason that is told: for parts without which it is
    /// not what its file says.
    pub fn ender(&self) -> Arc<dyn Fn(&str) + Send + Sync> {
        let failed = self.seat.site.failed.clone();
        Arc::new(move |why| {
            tracing::error!(why, "this node cannot go on");
            failed.send_if_modified(|failed| {
                let first = failed.is_none();
                failed.get_or_insert_with(|| why.to_owned());
                first
            });
        })
    }

    /// Turns true once this node learns that the cluster has removed it: it may stop.
    pub fn removed(&self) -> watch::Receiver<bool> {
        self.seat.site.removed.subscribe()
    }

    /// Lets one role fail, for fault injection: `acceptor`, `proposer`, `learner`, `replica`,
    /// `home`, `auxiliary`. Answers whether it runs here.
    pub fn inject(&self, role: &str, fault: Fault) -> bool {
        let name = role_name(role, self.seat.site.node.name());
        self.seat.site.node.inject(&name, fault)
    }

    /// Hands leadership on, so that nobody need wait for this node to fall silent.
    ///
    /// From now on this node takes nothing new from clients, *not applied*; what is under way ends
    /// well. See [`Core::leads`].
    pub fn resign(&self) {
        self.seat.site.clients.leave();
        self.seat.site.tell(ProposerMessage::Resign(Resign {}));
    }

    /// Lets what acts here under leases step down, then resigns, and waits until another leads and
    /// what clients asked here was answered; not longer than a second and a half.
    pub async fn hand_over(&self) {
        let elections = self.elections();
        elections.hosts().leave();
        let put_down = async {
            while elections.hosts().is_busy() {
                tokio::time::sleep(LOOK).await;
            }
        };
        if tokio::time::timeout(STEP_DOWN_MAX, put_down).await.is_err() {
            tracing::warn!("what acts here under leases was not put down in time");
        }
        self.resign();
        let passed_on = async {
            while self.leads() || self.seat.site.clients.is_busy() {
                tokio::time::sleep(LOOK).await;
            }
        };
        if tokio::time::timeout(HAND_OVER_MAX, passed_on).await.is_err() {
            tracing::warn!("leadership or calls of clients did not pass on in time");
        }
    }

    /// Whether this node leads, as far as it said.
    pub fn leads(&self) -> bool {
        self.reached().leader.0.as_ref() == Some(self.node().id())
    }

    /// What an operator wants of the members; `done` hears whether it is so now, and gets
    /// [`Outcome::Failed`](crate::replicated::Outcome::Failed) with the reason when it cannot be
    /// and nothing was changed.
    pub fn wish(&self, wish: Wish, patience: Duration, done: Done) {
        self.seat.site.clients.wish(wish, patience, done);
    }

    /// Stops: links closed, journal written and closed.
    pub fn stop(self) {
        self.seat.site.node.shutdown();
        self.close();
    }

    /// Leaves in good order: finishes what runs, for as long as `within` at most, says goodbye to
    /// the peers, and stops as by [`Core::stop`].
    pub async fn leave(self, within: Duration) {
        if !self.seat.site.node.drain(within).await {
            tracing::warn!("not everything had finished when this node left");
        }
        self.close();
    }

    fn close(self) {
        if let Some(multicast) = &self.multicast {
            multicast.close();
        }
        self.seat.close();
    }

    /// Drops everything at once, as a crash would. The ports must refuse all effects before. Calls
    /// that were open end with an unknown outcome.
    pub fn crash(self) {
        self.seat.site.node.abort_all();
        self.seat.site.clients.close();
    }
}

/// How long leadership may take to pass on.
const HAND_OVER_MAX: Duration = Duration::from_secs(1);

/// How long what acts under leases may take to step down.
const STEP_DOWN_MAX: Duration = Duration::from_millis(500);

/// How often to look whether it has.
const LOOK: Duration = Duration::from_millis(5);

/// Where a data directory keeps the journals of groups.
const GROUPS: &str = "groups";

/// Bytes of a main's journal segment: seconds of the fastest writing.
pub const SEGMENT_BYTES: u64 = journal::SEGMENT_BYTES_DEFAULT / 2;

impl std::fmt::Debug for CoreConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CoreConfig").field("name", &self.name).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Core {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Core").field("node", &self.seat.site.node).finish_non_exhaustive()
    }
}
