//! The core of a node: its roles, on any world.
//!
//! A core takes the data directory, reads back what survived, links to its peers, agrees with them
//! on how the log begins (on the very first start), and then runs the roles of its place in the
//! cluster. Listeners are not its business, so the same core runs in a simulated cluster.

use std::{collections::BTreeMap, path::PathBuf, rc::Rc, sync::Arc, time::Duration};

use rand::RngExt;
use serde::{Deserialize, Serialize};
use synod_runtime::{
    identity::{ClusterName, Incarnation, NodeName},
    journal::{self, Durability, Journal, JournalConfig, JournalError},
    node::{self, Node, NodeError, PeerEvent},
    slots::{Slots, SlotsError},
    supervision::Fault,
    world::{
        Disk, World,
        disk::{Lock, LockError},
        network::TlsFiles,
    },
};
use tokio::sync::watch;

pub use super::board::Reached;
use super::{
    board::Board,
    site::{Site, survived},
};
use crate::{
    consensus::{
        acceptor::Acceptor,
        auxiliary::Auxiliary,
        founder::Founder,
        home::Home,
        learner::Learner,
        message::{Message, NodeRole, Peer, ProposerMessage, Resign},
        proposer::Proposer,
        record::Record,
        replica::Replica,
        timing::{Timing, VoteStyle},
    },
    machine::Survived,
    replicated::{StateMachine, Submit},
    role::Inputs,
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
    /// Mains and auxiliaries of the first configuration, this node included unless it joins later.
    pub listed: BTreeMap<NodeName, NodeRole>,
    /// What must survive a power loss.
    pub durability: Durability,
    /// How patient the roles are.
    pub timing: Timing,
    /// How a leader's vote travels.
    pub style: VoteStyle,
    /// Bytes of a journal segment at a main; an auxiliary's are a small part of it.
    pub segment_bytes: u64,
    /// Bytes of log between snapshots.
    pub snapshot_log_bytes: u64,
    /// The replicated actors.
    pub machines: Machines,
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
    /// The network cannot be started.
    #[error(transparent)]
    Node(#[from] NodeError),
}

/// What a data directory says of its node.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Identity {
    cluster: ClusterName,
    name: NodeName,
    incarnation: Incarnation,
    starts: u64,
}

/// A running core. Dropping it stops nothing: see [`Core::stop`] and [`Core::crash`].
pub struct Core {
    site: Rc<Site>,
    config: CoreConfig,
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
        let incarnation = identify(&world, &config)?;
        let (journal_dir, snapshot_dir) = (dir.join("journal"), dir.join("snapshots"));
        disk.create_dir_all(&snapshot_dir).map_err(data)?;
        if config.durability == Durability::Memory {
            // A new node every time: what an earlier one left must not be taken for memory.
            empty(disk.as_ref(), &journal_dir).map_err(data)?;
            empty(disk.as_ref(), &snapshot_dir).map_err(data)?;
        }
        let small = config.role != NodeRole::Main;
        let segment_bytes = if small { config.segment_bytes / 32 } else { config.segment_bytes };
        let journal_config =
            JournalConfig { dir: journal_dir, durability: config.durability, segment_bytes };
        let (journal, recovered) = Journal::open(&world, &journal_config)?;
        if recovered.torn_tail {
            tracing::warn!("the end of the journal was cut off in a crash; nothing said was in it");
        }
        let found = survived(&recovered.records, disk.as_ref(), &snapshot_dir)
            .map_err(|why| CoreError::Data { path: snapshot_dir.clone(), why })?;
        let node = Node::start(
            world,
            node::NodeConfig {
                role: role_text(config.role).to_owned(),
                listen: config.listen,
                tls: config.tls.clone(),
                peers: config.peers.clone(),
                ..node::NodeConfig::new(config.cluster.clone(), config.name.clone(), incarnation)
            },
        )?;
        let site = Site::new(node, journal, snapshot_dir, found, config.style);
        let core = Self { site, config, _lock: lock };
        core.found();
        Ok(core)
    }

    /// The node below.
    pub fn node(&self) -> &Node {
        &self.site.node
    }

    /// The journal.
    pub fn journal(&self) -> &Journal {
        &self.site.journal
    }

    /// The way into the log.
    pub fn submit(&self) -> Arc<dyn Submit> {
        Arc::clone(&self.site.clients) as Arc<dyn Submit>
    }

    pub(super) fn board(&self) -> Arc<Board> {
        Arc::clone(&self.site.board)
    }

    /// The document of `GET /status`.
    pub fn status(&self) -> serde_json::Value {
        self.site.board.status()
    }

    /// How far it is.
    pub fn reached(&self) -> Reached {
        self.site.board.reached()
    }

    /// Whether reads and writes are served here; else why not.
    ///
    /// # Errors
    /// The reason, for people.
    pub fn ready(&self) -> Result<(), String> {
        self.site.board.ready()
    }

    /// Says why the node cannot go on, once that is so.
    pub fn failed(&self) -> watch::Receiver<Option<String>> {
        self.site.failed.subscribe()
    }

    /// Lets one role fail, for fault injection: `acceptor`, `proposer`, `learner`, `replica`,
    /// `home`, `auxiliary`. Answers whether it runs here.
    pub fn inject(&self, role: &str, fault: Fault) -> bool {
        let name = format!("consensus/{role}@{}", self.site.node.name());
        self.site.node.inject(&name, fault)
    }

    /// Hands leadership on, so that nobody need wait for this node to fall silent.
    pub fn resign(&self) {
        self.tell_proposer(ProposerMessage::Resign(Resign {}));
    }

    /// Stops: links closed, journal written and closed.
    pub fn stop(self) {
        self.site.node.shutdown();
        self.site.journal.close();
    }

    /// Leaves in good order: finishes what runs, for as long as `within` at most, says goodbye to
    /// the peers, and stops as by [`Core::stop`].
    pub async fn leave(self, within: Duration) {
        if !self.site.node.drain(within).await {
            tracing::warn!("not everything had finished when this node left");
        }
        self.site.journal.close();
    }

    /// Drops everything at once, as a crash would. The ports must refuse all effects before.
    pub fn crash(self) {
        self.site.node.abort_all();
    }

    /// First the founder, which knows whether there is a log; then the other roles.
    fn found(&self) {
        let (site, config) = (Rc::clone(&self.site), self.config.clone());
        watch_peers(&site, config.role);
        if config.role == NodeRole::Member {
            return start_home(&site, &config);
        }
        let (me, listed) = (site.node.id().clone(), config.listed.clone());
        let founder = site.spawn(
            "founder",
            move || Founder::new(me.clone(), listed.clone()),
            |message| {
                if let Message::Founder(message) = message { Some(message) } else { None }
            },
        );
        site.roles.borrow_mut().founder = Some(founder);
        let mut founded = site.founded.subscribe();
        let starting = Rc::clone(&site);
        site.node.task(async move {
            let Ok(genesis) = founded.wait_for(Option::is_some).await.map(|g| g.clone().flatten())
            else {
                return;
            };
            if let Some(genesis) = genesis {
                remember(&starting, Record::Genesis(genesis));
            }
            start_roles(&starting, &config);
        });
    }

    fn tell_proposer(&self, message: ProposerMessage) {
        if let Some(proposer) = self.site.roles.borrow().proposer.as_ref() {
            proposer.do_send(Inputs(vec![(self.site.node.id().clone(), message)]));
        }
    }
}

/// A genesis written after the journal was read belongs to what the roles start from.
fn remember(site: &Site, record: Record) {
    let mut found = site.found.borrow_mut();
    let Some(known) = found.as_ref() else { return };
    if !known.records.contains(&record) {
        let mut records = vec![record];
        records.extend(known.records.iter().cloned());
        *found = Some(Arc::new(Survived { records, snapshot: known.snapshot.clone() }));
    }
}

fn start_roles(site: &Rc<Site>, config: &CoreConfig) {
    let me = site.node.id().clone();
    if config.role == NodeRole::Auxiliary {
        let probe = config.timing.probe;
        let auxiliary = site.spawn(
            "auxiliary",
            move || Auxiliary::new(me.clone(), probe),
            |message| {
                if let Message::Auxiliary(message) = message { Some(message) } else { None }
            },
        );
        site.roles.borrow_mut().auxiliary = Some(auxiliary);
        return forget_found(site);
    }
    start_main(site, config);
    start_home(site, config);
    forget_found(site);
}

/// What was found serves the first life of every role; later ones read the journal anew.
fn forget_found(site: &Rc<Site>) {
    let later = Rc::clone(site);
    site.node.task(async move {
        tokio::task::yield_now().await;
        later.found.borrow_mut().take();
    });
}

fn start_main(site: &Rc<Site>, config: &CoreConfig) {
    let me = site.node.id().clone();
    let id = me.clone();
    let acceptor = site.spawn(
        "acceptor",
        move || Acceptor::new(id.clone()),
        |message| if let Message::Acceptor(message) = message { Some(message) } else { None },
    );
    site.roles.borrow_mut().acceptor = Some(acceptor);
    let id = me.clone();
    let learner = site.spawn(
        "learner",
        move || Learner::new(id.clone()),
        |message| {
            if let Message::Learner(message) = message { Some(message) } else { None }
        },
    );
    site.roles.borrow_mut().learner = Some(learner);
    let (id, machines, bytes) =
        (me.clone(), Arc::clone(&config.machines), config.snapshot_log_bytes);
    let replica = site.spawn(
        "replica",
        move || {
            let machines = Arc::clone(&machines);
            Replica::new(id.clone(), Box::new(move || machines()), bytes)
        },
        |message| if let Message::Replica(message) = message { Some(message) } else { None },
    );
    site.roles.borrow_mut().replica = Some(replica);
    let (timing, style, again) = (config.timing, config.style, Rc::clone(site));
    let proposer = site.spawn(
        "proposer",
        move || {
            let later = Rc::clone(&again);
            again.node.task(async move { tell_peers(&later) });
            Proposer::new(me.clone(), timing, style, again.node.rng("proposer"))
        },
        |message| if let Message::Proposer(message) = message { Some(message) } else { None },
    );
    site.roles.borrow_mut().proposer = Some(proposer);
}

fn start_home(site: &Rc<Site>, config: &CoreConfig) {
    let (again, role, timing) = (Rc::clone(site), config.role, config.timing);
    let me = site.node.id().clone();
    let home = site.spawn(
        "home",
        move || {
            again.clients.abandon();
            Home::new(me.clone(), role, timing, again.node.rng("home"))
        },
        |message| if let Message::Home(message) = message { Some(message) } else { None },
    );
    site.roles.borrow_mut().home = Some(home.clone());
    site.clients.open(home, Arc::clone(site.node.clock()));
}

/// Tells the proposer whom it may talk to.
fn tell_peers(site: &Site) {
    let roles = site.roles.borrow();
    let Some(proposer) = roles.proposer.as_ref() else { return };
    let me = site.node.id();
    let news = site.node.peers_up().into_iter().filter_map(|peer| {
        let role = role_of(&peer.role)?;
        Some((me.clone(), ProposerMessage::Peer(Peer { node: peer.id, role, up: true })))
    });
    proposer.do_send(Inputs(news.collect()));
}

/// Passes what happens to links on to the proposer.
fn watch_peers(site: &Rc<Site>, role: NodeRole) {
    if role != NodeRole::Main {
        return;
    }
    let node = site.node.clone();
    let name = format!("consensus/proposer@{}", node.name());
    let me = node.id().clone();
    let watched = node.clone();
    node.watch_peers(Box::new(move |event| {
        let (node, role, up) = match event {
            PeerEvent::Up(peer) => match role_of(&peer.role) {
                Some(role) => (peer.id.clone(), role, true),
                None => return,
            },
            // What it was is known from before.
            PeerEvent::Down { peer, .. } | PeerEvent::Left(peer) => {
                (peer.clone(), NodeRole::Member, false)
            }
            PeerEvent::Heartbeat { .. } => return,
        };
        let addr = watched.local::<crate::role::Role<Proposer>>(&name);
        if let Some(proposer) = addr {
            let news = ProposerMessage::Peer(Peer { node, role, up });
            proposer.do_send(Inputs(vec![(me.clone(), news)]));
        }
    }));
}

/// The node's identity: read, or made with the data directory.
fn identify(world: &World, config: &CoreConfig) -> Result<Incarnation, CoreError> {
    let path = config.data_dir.join("identity");
    let mut slots = Slots::open(world.disk.as_ref(), &path)?;
    let known: Option<Identity> = match slots.read() {
        Some(words) => Some(rmp_serde::from_slice(&words).map_err(|error| CoreError::Data {
            path: path.clone(),
            why: format!("is no identity of this program's: {error}"),
        })?),
        None => None,
    };
    let fresh = || Incarnation(world.entropy.rng("incarnation").random());
    let identity = match known {
        Some(known) if known.cluster != config.cluster || known.name != config.name => {
            let why = format!(
                "belongs to node {} of cluster {}, not to {} of {}",
                known.name, known.cluster, config.name, config.cluster
            );
            return Err(CoreError::Data { path: config.data_dir.clone(), why });
        }
        Some(known) => {
            let renewed = config.durability == Durability::Memory;
            let incarnation = if renewed { fresh() } else { known.incarnation };
            Identity { incarnation, starts: known.starts + 1, ..known }
        }
        None => Identity {
            cluster: config.cluster.clone(),
            name: config.name.clone(),
            incarnation: fresh(),
            starts: 1,
        },
    };
    let words = rmp_serde::to_vec_named(&identity).expect("plain data encodes");
    slots.write(&words)?;
    Ok(identity.incarnation)
}

fn empty(disk: &dyn Disk, dir: &std::path::Path) -> std::io::Result<()> {
    disk.create_dir_all(dir)?;
    for name in disk.list(dir)? {
        disk.remove(&dir.join(name))?;
    }
    Ok(())
}

const fn role_text(role: NodeRole) -> &'static str {
    match role {
        NodeRole::Main => "main",
        NodeRole::Auxiliary => "auxiliary",
        NodeRole::Member => "member",
    }
}

fn role_of(text: &str) -> Option<NodeRole> {
    [NodeRole::Main, NodeRole::Auxiliary, NodeRole::Member]
        .into_iter()
        .find(|role| role_text(*role) == text)
}

/// Bytes of a main's journal segment: seconds of the fastest writing.
pub const SEGMENT_BYTES: u64 = journal::SEGMENT_BYTES_DEFAULT / 2;

impl std::fmt::Debug for CoreConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CoreConfig").field("name", &self.name).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Core {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Core").field("node", &self.site.node).finish_non_exhaustive()
    }
}
