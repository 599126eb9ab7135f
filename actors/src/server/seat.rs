//! The roles of consensus one by one, for programs that place and supervise them themselves.
//!
//! A [`Seat`] is one voter of the log: an identity, a journal, and the roles that write to it. It
//! makes the roles; the program starts them, under whatever supervisor it likes. Whenever a role
//! begins, the seat finds it and gives it back what the journal holds, so a role may stop, panic or
//! be replaced at any time: the others and the clients see a pause.
//!
//! ```text
//!   main       acceptor, proposer, learner, replica; home, where clients come in
//!   member     the same, without a vote; or only a home, which has reads answered elsewhere
//!   auxiliary  auxiliary
//! ```
//! Each role is reached as `consensus/ROLE@SEAT`. Seats of several nodes are reached over the links
//! between these, and each is called like its node. Several seats may also share one [`House`]; then
//! they speak directly. Those called like their node can be reached from elsewhere too.
//!
//! ```
//! use std::collections::BTreeMap;
//! # use actix::{Actor, Handler, Message};
//! # use serde::{Deserialize, Serialize};
//! # use synod::{message::RemoteMessage, replicated::{Handle, Replicated, Turn}};
//! use synod::{
//!     consensus::message::NodeRole,
//!     runtime::{identity::{Incarnation, NodeId}, node::{Node, NodeConfig}, supervision::Supervisor},
//!     server::seat::{House, SeatConfig},
//!     sim::Simulation,
//! };
//!
//! # #[derive(Message, Serialize, Deserialize, RemoteMessage)]
//! # #[rtype(result = "u64")]
//! # #[remote(name = "counter.add")]
//! # struct Add { by: u64 }
//! # #[derive(Default, Serialize, Deserialize, Replicated)]
//! # #[replicated(name = "counter", commands(Add))]
//! # struct Counter { total: u64 }
//! # impl Actor for Counter { type Context = Turn; }
//! # impl Handler<Add> for Counter {
//! #     type Result = u64;
//! #     fn handle(&mut self, add: Add, _turn: &mut Turn) -> u64 { self.total += add.by; self.total }
//! # }
//! Simulation::new(7).run(|sim| async move {
//!     let name = "a".parse().unwrap();
//!     let config = NodeConfig::new("demo".parse().unwrap(), name, Incarnation(1));
//!     let node = Node::start(sim.world(&config.name), config).unwrap();
//!     // The smallest log there is: one voter.
//!     let listed = BTreeMap::from([(node.name().clone(), NodeRole::Main)]);
//!     let config = SeatConfig::hosting::<Counter>("counter", node.id().clone(), listed, "/data");
//!     let seat = House::on(&node).open(config).unwrap();
//!     let _tree = Supervisor::tree("mine")
//!         .child("acceptor", seat.acceptor())
//!         .child("learner", seat.learner())
//!         .child("replica", seat.replica())
//!         .child("proposer", seat.proposer())
//!         .child("home", seat.home())
//!         .start(&node)
//!         .unwrap();
//!     let counter = Handle::<Counter>::new(seat.submit(), "counter");
//!     while seat.ready().is_err() {
//!         tokio::time::sleep(std::time::Duration::from_millis(10)).await;
//!     }
//!     assert_eq!(counter.send(Add { by: 2 }).await, Ok(2));
//! });
//! ```

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
    rc::Rc,
    sync::Arc,
};

use synod_runtime::{
    identity::{NodeId, NodeName},
    journal::{Durability, Journal, JournalConfig, JournalError, bounded::BoundedConfig},
    node::Node,
    world::{Disk, World, disk::Lock},
};

use super::{
    board::Reached,
    core::{CoreError, Machines, SEGMENT_BYTES},
    elections::Elections,
    machines::built_in,
    membership::Views,
    registers::{self, Registers, RolesIn},
    scrubber::Scrubber,
    services::Services,
    site::{GAP, Parts, Seats, Site, is_without_gap, survived},
};
use crate::{
    consensus::{
        acceptor::Acceptor,
        auxiliary::{Auxiliary, VOTE_BYTES_MAX},
        founder::{Founder, Living},
        home::{Commands, Home},
        learner::Learner,
        message::NodeRole,
        proposer::Proposer,
        record::{Image, Record},
        replica::{Replica, SNAPSHOT_LOG_BYTES},
        timing::{Timing, VoteStyle},
    },
    machine::Survived,
    replicated::{Host, Replicated, StateMachine, Submit, known_version},
    role::Role,
};

/// One voter of the log, or the home of clients without a vote.
#[derive(Clone)]
pub struct SeatConfig {
    /// Who this is to the other seats. Votes are counted by incarnation, so no two seats share one;
    /// it must be made with the data directory and stay with it, and a seat that lost its disk (or
    /// kept it in [`Durability::Memory`]) needs a new one.
    pub id: NodeId,
    /// Which roles it has. A seat that other nodes reach has the same role as its node says
    /// ([`NodeRole::as_str`]).
    pub role: NodeRole,
    /// The seats of the first configuration, this one included unless it joins later.
    pub listed: BTreeMap<NodeName, NodeRole>,
    /// Journal and snapshots of this seat alone.
    pub data_dir: PathBuf,
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

impl SeatConfig {
    /// The defaults for the seat `id`, in the role it is listed in (a member if it is not), hosting
    /// the replicated actor `A` as `name`.
    pub fn hosting<A: Replicated + 'static>(
        name: &'static str,
        id: NodeId,
        listed: BTreeMap<NodeName, NodeRole>,
        data_dir: impl Into<PathBuf>,
    ) -> Self {
        Self {
            role: listed.get(&id.name).copied().unwrap_or(NodeRole::Member),
            id,
            listed,
            data_dir: data_dir.into(),
            durability: Durability::Fsync,
            timing: Timing::default(),
            style: VoteStyle::default(),
            segment_bytes: SEGMENT_BYTES,
            snapshot_log_bytes: SNAPSHOT_LOG_BYTES,
            machines: Arc::new(move || vec![Box::new(Host::<A>::new(name))]),
            roles: RolesIn::Log,
        }
    }

    /// Bytes of votes that an auxiliary keeps: all it ever may, unless segments are small.
    fn auxiliary_bytes(&self) -> usize {
        let small = usize::try_from(self.segment_bytes).unwrap_or(usize::MAX);
        small.saturating_mul(2).min(VOTE_BYTES_MAX)
    }
}

/// The seats of one node, all on one arbiter.
#[derive(Clone)]
pub struct House {
    node: Node,
    seats: Seats,
}

impl House {
    /// A house without seats.
    pub fn on(node: &Node) -> Self {
        Self { node: node.clone(), seats: Seats::default() }
    }

    /// Opens a seat: takes its directory and reads its journal back. Its founder runs from here on,
    /// which agrees with the other listed seats on how the log begins; the other roles wait for
    /// that by themselves.
    ///
    /// # Errors
    /// When the directory or the name is taken, or the journal cannot be read; nothing was changed.
    pub fn open(&self, config: SeatConfig) -> Result<Seat, CoreError> {
        let (world, dir) = (self.node.world(), &config.data_dir);
        let data = |why: String| CoreError::Data { path: dir.clone(), why };
        if self.seats.borrow().contains_key(&config.id.name) {
            return Err(data(format!("another seat of this house is called {}", config.id.name)));
        }
        world.disk.create_dir_all(dir).map_err(|error| data(error.to_string()))?;
        let lock = world.disk.lock(dir)?;
        let store = Store::open(world, &config)?;
        let seat = Seat { _lock: Some(Rc::new(lock)), ..self.seat(store, config) };
        seat.start_founder();
        Ok(seat)
    }

    /// The seat of a store that was opened, without any role yet.
    pub(super) fn seat(&self, store: Store, config: SeatConfig) -> Seat {
        let parts = Parts {
            me: config.id.clone(),
            role: config.role,
            journal: store.journal,
            journal_dir: config.data_dir.join(JOURNAL),
            snapshot_dir: store.snapshot_dir,
            found: store.found,
            style: config.style,
        };
        let site = Site::new(&self.node, &self.seats, parts);
        let config = Rc::new(config);
        Seat { site, rejoins: false, life: None, torn: store.torn, config, _lock: None }
    }
}

/// What a seat's directory holds.
pub(super) struct Store {
    journal: Journal,
    snapshot_dir: PathBuf,
    found: Survived<Record, Image>,
    torn: bool,
}

impl Store {
    /// Opens the journal and reads back what survived.
    pub(super) fn open(world: &World, config: &SeatConfig) -> Result<Self, CoreError> {
        let (disk, dir) = (world.disk.as_ref(), &config.data_dir);
        let data =
            |source: std::io::Error| CoreError::Data { path: dir.clone(), why: source.to_string() };
        let (journal_dir, snapshot_dir) = (dir.join(JOURNAL), dir.join("snapshots"));
        disk.create_dir_all(&snapshot_dir).map_err(data)?;
        if config.durability == Durability::Memory {
            // A new voter every time: what an earlier one left must not be taken for memory.
            empty(disk, &journal_dir).map_err(data)?;
            empty(disk, &snapshot_dir).map_err(data)?;
        }
        let durability = config.durability;
        let (journal, recovered) = if config.role == NodeRole::Auxiliary {
            let ring_bytes = BoundedConfig::ring_for(config.auxiliary_bytes() as u64);
            let by_step = Record::BY_STEP;
            let bounded = BoundedConfig { dir: journal_dir, durability, ring_bytes, by_step };
            Journal::open_bounded(world, &bounded)?
        } else {
            let segment_bytes = config.segment_bytes;
            let scar = Some(Record::Torn.to_journal());
            let main = JournalConfig { dir: journal_dir, durability, segment_bytes, scar };
            Journal::open(world, &main)?
        };
        match (recovered.torn_tail, config.role) {
            (false, _) => {}
            // It says nothing before a second write shows the first.
            (true, NodeRole::Auxiliary) => {
                tracing::info!("a write was cut off by a crash; nobody had been told of it");
            }
            (true, NodeRole::Main | NodeRole::Member) => {
                let what = "the end of the journal was torn in a crash; asking what stood there";
                tracing::warn!("{what}");
            }
        }
        let found = survived(&recovered.records, disk, &snapshot_dir)
            .map_err(|why| CoreError::Data { path: snapshot_dir.clone(), why })?;
        if !is_without_gap(&found) {
            let lost = JournalError::LostMemory { file: snapshot_dir, offset: 0, reason: GAP };
            return Err(lost.into());
        }
        Ok(Self { journal, snapshot_dir, found, torn: recovered.torn_tail })
    }
}

/// Where a data directory keeps its journal.
const JOURNAL: &str = "journal";

fn empty(disk: &dyn Disk, dir: &Path) -> std::io::Result<()> {
    disk.create_dir_all(dir)?;
    for name in disk.list(dir)? {
        disk.remove(&dir.join(name))?;
    }
    Ok(())
}

/// One seat: see the module's documentation. The factories build a role for each of its lives, for
/// [`Node::spawn`] or [`Supervisor::child`](synod_runtime::supervision::Supervisor::child) on the
/// arbiter of the [`House`]; a role must run once at most at a time.
#[derive(Clone)]
pub struct Seat {
    pub(super) site: Rc<Site>,
    /// It forgot what it knew: there is a log already, whatever others say.
    rejoins: bool,
    /// Start and number of this process, where it can be told from others of this seat.
    life: Option<(u64, u64)>,
    /// Whether the journal ended torn at this start.
    torn: bool,
    config: Rc<SeatConfig>,
    _lock: Option<Rc<Box<dyn Lock>>>,
}

impl Seat {
    /// Whether it only may be let into a cluster that exists, though it remembers none.
    pub(super) fn rejoining(self, rejoins: bool) -> Self {
        Self { rejoins, ..self }
    }

    /// From now on peers can tell this process, the one of that start and number, from others.
    pub(super) fn living(self, starts: u64, nonce: u64) -> Self {
        Self { life: Some((starts, nonce)), ..self }
    }

    /// Promises and votes, of a main or a member.
    pub fn acceptor(&self) -> impl FnMut() -> Role<Acceptor> + use<> + 'static {
        let me = self.site.me.clone();
        self.site.role(move || Acceptor::new(me.clone()))
    }

    /// Promises and votes while a main is missing.
    pub fn auxiliary(&self) -> impl FnMut() -> Role<Auxiliary> + use<> + 'static {
        let (me, probe) = (self.site.me.clone(), self.config.timing.probe);
        let bytes = self.config.auxiliary_bytes();
        self.site.role(move || Auxiliary::new(me.clone(), probe).within(bytes))
    }

    /// Leads, or follows who leads; of a main or a member.
    pub fn proposer(&self) -> impl FnMut() -> Role<Proposer> + use<> + 'static {
        let (site, timing, style) = (Rc::clone(&self.site), self.config.timing, self.config.style);
        let (knows, vote_bytes) = (self.knows(), self.config.auxiliary_bytes());
        self.site.role(move || {
            Proposer::new(site.me.clone(), timing, style, site.rng("proposer"))
                .knowing(knows)
                .bridging(vote_bytes)
        })
    }

    /// Learns what is chosen, in order; of a main or a member.
    pub fn learner(&self) -> impl FnMut() -> Role<Learner> + use<> + 'static {
        let (me, timing) = (self.site.me.clone(), self.config.timing);
        self.site.role(move || Learner::new(me.clone()).patient(timing))
    }

    /// Executes what is learned on the replicated actors; of a main or a member.
    pub fn replica(&self) -> impl FnMut() -> Role<Replica> + use<> + 'static {
        let (me, config) = (self.site.me.clone(), Rc::clone(&self.config));
        let machines = self.machines();
        self.site.role(move || {
            Replica::new(me.clone(), Box::new(machines.clone()), config.snapshot_log_bytes)
                .patient(config.timing)
        })
    }

    /// Stands for the clients of this seat; of a main or a member.
    pub fn home(&self) -> impl FnMut() -> Role<Home> + use<> + 'static {
        let (site, timing) = (Rc::clone(&self.site), self.config.timing);
        let commands = Commands::of(&self.hosted());
        self.site.role(move || {
            site.clients.abandon();
            Home::new(site.me.clone(), timing, site.rng("home")).taking(commands.clone())
        })
    }

    /// Who leads in what, and standing for it; of a main or a member.
    pub fn elections(&self) -> Elections {
        self.site.elections.clone()
    }

    /// Outside programs that the cluster keeps running; of a main or a member.
    pub fn services(&self) -> Services {
        self.site.services.clone()
    }

    /// Who is there, as the log decided; of a main or a member.
    pub fn views(&self) -> Views {
        self.site.views.clone()
    }

    /// Who it is.
    pub fn id(&self) -> &NodeId {
        &self.site.me
    }

    /// The way into the log; serves once the home and a leader run.
    pub fn submit(&self) -> Arc<dyn Submit> {
        Arc::clone(&self.site.clients) as Arc<dyn Submit>
    }

    /// Whether reads and writes are served here; else why not.
    ///
    /// # Errors
    /// The reason, for people.
    pub fn ready(&self) -> Result<(), String> {
        self.site.board.ready()
    }

    /// How far it is.
    pub fn reached(&self) -> Reached {
        self.site.board.reached()
    }

    /// Ends its memory in order, and all calls that are open. Stop its roles before.
    pub fn close(self) {
        self.site.clients.close();
        self.site.journal.close();
    }

    /// The highest cluster version that this build can execute.
    fn knows(&self) -> u32 {
        known_version(&self.hosted())
    }

    /// All that is executed here, empty.
    fn hosted(&self) -> Vec<Box<dyn StateMachine>> {
        self.machines()()
    }

    /// Makes all that is executed here. Roles, services, views, groups and what singletons keep are
    /// always there.
    fn machines(&self) -> impl Fn() -> Vec<Box<dyn StateMachine>> + Clone + use<> + 'static {
        let machines = Arc::clone(&self.config.machines);
        let (elections, services, views) = (self.elections(), self.services(), self.views());
        let ours = move || built_in(elections.desk(), services.desk(), views.desk());
        move || machines().into_iter().chain(ours()).collect()
    }

    /// Agrees on how the log begins, or finds out that it has.
    fn start_founder(&self) {
        let (me, listed, rejoins) =
            (self.site.me.clone(), self.config.listed.clone(), self.rejoins);
        let knows = self.knows();
        let (life, torn, journal) = (self.life, self.torn, self.site.journal.clone());
        let position: Rc<dyn Fn() -> u64> = Rc::new(move || journal.position());
        let founder = move || {
            let founder = Founder::new(me.clone(), listed.clone());
            let founder = founder.rejoining(rejoins).knowing(knows);
            let Some((starts, nonce)) = life else { return founder };
            founder.living(Living { starts, nonce, torn, position: Rc::clone(&position) })
        };
        self.site.spawn(self.site.role(founder));
    }

    /// Keeps registers, and roles in them, where roles are not kept in the log.
    fn start_registers(&self) {
        let RolesIn::Registers(keeping) = &self.config.roles else { return };
        if let Err(why) = registers::start(&self.site, keeping, &self.config.data_dir) {
            tracing::error!(why, "this node keeps no registers");
        }
        if let Some(registers) = self.registers() {
            self.site.elections.keep_in(registers);
        }
    }

    /// The registers that roles are kept in, if they are: a client of its own each time.
    pub fn registers(&self) -> Option<Registers> {
        let RolesIn::Registers(keeping) = &self.config.roles else { return None };
        let Site { node, me, .. } = self.site.as_ref();
        Some(Registers::new(node, me, &self.config.listed, keeping))
    }

    /// Starts all its roles, each under its own name.
    pub(super) fn start_all(&self) {
        self.start_founder();
        self.start_registers();
        if self.config.role == NodeRole::Auxiliary {
            return self.site.spawn(self.auxiliary());
        }
        self.site.spawn(self.acceptor());
        self.site.spawn(self.learner());
        self.site.spawn(self.replica());
        self.site.spawn(self.proposer());
        self.site.node.task(self.site.elections.watch_over());
        self.site.node.task(self.site.elections.take_charge());
        self.site.spawn(self.home());
        self.site.elections.start();
        self.site.views.start(&self.config.timing);
        Scrubber::start(&self.site);
    }
}

impl fmt::Debug for SeatConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SeatConfig").field("id", &self.id).finish_non_exhaustive()
    }
}

impl fmt::Debug for House {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("House").field("node", &self.node).finish_non_exhaustive()
    }
}

impl fmt::Debug for Seat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seat").field("id", self.id()).finish_non_exhaustive()
    }
}
