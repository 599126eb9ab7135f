//! The handle every actor gets: who this node is, its names, its links, its clock.
//!
//! ```text
//!   frames from peers ─► inbound ─┬─ target ──► registry ─► Deliver (an actor's routes, a role)
//!                                 ├─ Reply/Failure ─► asks (who waits here)
//!                                 ├─ Cancel ────────► asks (what is served here)
//!                                 └─ Directory ─────► copies of others' names
//! ```
//! There are no globals: many nodes live in one process, which is how whole clusters are simulated.

mod asks;
mod credit;
mod dead_letters;
mod draining;
mod forms;
mod inbound;
mod naming;
mod nursery;
mod sending;
mod spawning;
#[cfg(test)]
mod tests;
mod watching;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU64},
    },
    time::Duration,
};

use rand::Rng as _;
use tokio::sync::Notify;

#[doc(hidden)]
pub use self::credit::Debt;
#[cfg(test)]
pub(crate) use self::watching::Word as WatchWord;
pub(crate) use self::{
    asks::Asking,
    credit::units,
    nursery::{ChildOrder, Word as ChildWord},
    sending::Pipe,
};
use self::{
    asks::Asks, credit::Credits, dead_letters::Office, forms::Forms, inbound::Router,
    naming::Proxies, nursery::Nursery, spawning::Tasks, watching::Watches,
};
pub use self::{
    dead_letters::{DeadLetter, DeadLetters},
    forms::Incompatible,
};
use crate::{
    address::SendError,
    identity::{ClusterName, Incarnation, NodeId, NodeName},
    link::{Links, LocalIdentity, PeerInfo, SendRefused},
    message::{Messages, RemoteActor, RemoteMessage},
    registry::{
        RegisterError,
        directory::{Copies, Published},
        local::Local,
    },
    telemetry::{LINK_BYTES, Metrics},
    wire::{Frame, FrameHeader, FrameKind},
    world::{
        Clock, Instant, Rng, World,
        network::{BindError, TlsFiles},
    },
};

/// How a node is set up.
#[derive(Debug, Clone)]
pub struct NodeConfig {
    /// The cluster.
    pub cluster: ClusterName,
    /// This node's name.
    pub name: NodeName,
    /// Made with the data directory.
    pub incarnation: Incarnation,
    /// What the node is in the cluster, for people (`main`).
    pub role: String,
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Certificates; the simulated network needs none.
    pub tls: Option<TlsFiles>,
    /// Whom to link to at once, with `host:port`.
    pub peers: Vec<(NodeName, String)>,
    /// How long an ask waits when it does not say.
    pub ask_timeout: Duration,
    /// Messages to know from the start; those of actors registered later are added by themselves.
    pub messages: Messages,
    /// How long a node may be without a link before what is watched there counts as lost. A link
    /// that comes back sooner, to the same process, ends no watch.
    pub lost_after: Duration,
}

impl NodeConfig {
    /// A node without certificates or peers, on a free port of the loopback device.
    pub fn new(cluster: ClusterName, name: NodeName, incarnation: Incarnation) -> Self {
        Self {
            cluster,
            name,
            incarnation,
            role: "main".to_owned(),
            listen: ([127, 0, 0, 1], 0).into(),
            tls: None,
            peers: Vec::new(),
            ask_timeout: ASK_TIMEOUT,
            messages: Messages::default(),
            lost_after: LOST_AFTER,
        }
    }

    /// The node will host actors of the kind `A`: their messages are compared with those of peers
    /// at the first handshake, and two that look the same on the wire are refused at the start.
    #[must_use]
    pub fn hosts<A: RemoteActor>(mut self) -> Self {
        self.messages.hosts::<A>();
        self
    }

    /// As [`NodeConfig::hosts`], for a message that the node only sends.
    #[must_use]
    pub fn sends<M: RemoteMessage>(mut self) -> Self {
        self.messages.sends::<M>();
        self
    }
}

/// How long an ask waits by default: longer than a fail-over, shorter than a person's patience.
pub const ASK_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a node may be silent by default: longer than a link needs to come back after a lost
/// packet or a pause, and no longer than people wait before they look.
pub const LOST_AFTER: Duration = Duration::from_secs(5);

/// Why a node could not be started.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The network could not.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// Two of its messages look the same on the wire, or there are too many.
    #[error(transparent)]
    Messages(#[from] RegisterError),
}

/// What happens between this node and its peers.
#[derive(Debug, Clone)]
pub enum PeerEvent {
    /// A peer can be sent to.
    Up(PeerInfo),
    /// The link is gone.
    Down {
        /// To whom.
        peer: NodeId,
        /// Why, for people.
        reason: String,
    },
    /// The peer left in good order; its link is gone.
    Left(NodeId),
    /// A sign of life came, by datagram or by the control lane.
    Heartbeat {
        /// From whom.
        from: NodeId,
        /// What it says.
        frame: Frame,
    },
}

type PeerHook = Arc<dyn Fn(&PeerEvent) + Send + Sync>;

/// One node. Cloning is cheap; callable from any thread. When the last clone goes, its links and
/// actors go too, as in a crash; [`Node::shutdown`] is the orderly way.
///
/// ```
/// # use synod_runtime::{identity::Incarnation, node::{Node, NodeConfig}, sim::Simulation};
/// # Simulation::new(1).run(|sim| async move {
/// let name = "a".parse().unwrap();
/// let config = NodeConfig::new("demo".parse().unwrap(), name, Incarnation(1));
/// // A simulated world; a real one is made of the real forms of the ports.
/// let node = Node::start(sim.world(&config.name), config).unwrap();
/// assert_eq!(node.id().to_string(), "a/0000000000000001");
/// node.shutdown();
/// # });
/// ```
#[derive(Clone)]
pub struct Node(Arc<Inner>);

/// A node that is not kept alive by whoever holds this.
#[derive(Clone)]
pub(crate) struct WeakNode(Weak<Inner>);

impl WeakNode {
    pub(crate) fn of(node: &Node) -> Self {
        Self(Arc::downgrade(&node.0))
    }

    pub(crate) fn upgrade(&self) -> Option<Node> {
        self.0.upgrade().map(Node)
    }
}

struct Inner {
    world: World,
    id: NodeId,
    cluster: ClusterName,
    role: String,
    start_nonce: u64,
    ask_timeout: Duration,
    lost_after: Duration,
    metrics: Metrics,
    /// Set once, before anything can use it: links and node need each other.
    links: OnceLock<Links>,
    names: Local,
    published: Mutex<Published>,
    copies: Mutex<Copies>,
    /// Names changed and the others should hear.
    renamed: Arc<Notify>,
    /// Moves with every change of a membership elsewhere.
    groups_version: AtomicU64,
    watches: Watches,
    nursery: Nursery,
    /// Leaving: no new work from outside.
    draining: AtomicBool,
    /// Supervision trees that are no child of another.
    roots: Mutex<BTreeSet<String>>,
    asks: Asks,
    forms: Forms,
    credits: Credits,
    dead_letters: Office,
    proxies: Mutex<Proxies>,
    tasks: Tasks,
    /// Traces that began here.
    traces: AtomicU64,
    /// Peers that said they leave and whose link is not gone yet.
    leaving: Mutex<BTreeSet<NodeId>>,
    peers_up: Mutex<BTreeMap<NodeName, PeerInfo>>,
    peer_hooks: Mutex<Vec<PeerHook>>,
}

impl Node {
    /// Starts a node. Must be called where tasks can be spawned on this thread (an arbiter, or any
    /// `LocalSet`); that arbiter carries the links.
    ///
    /// # Errors
    /// When the network cannot be started; nothing is left running.
    pub fn start(world: World, config: NodeConfig) -> Result<Self, NodeError> {
        let NodeConfig { cluster, name, incarnation, role, listen, tls, peers, .. } = config;
        let (ask_timeout, lost_after) = (config.ask_timeout, config.lost_after);
        let (messages, forms) = (config.messages, Forms::default());
        messages.doubled.map_or(Ok(()), |doubled| Err(RegisterError::from(doubled)))?;
        forms.know(&messages.known)?;
        let start_nonce = world.entropy.rng("node/start").next_u64();
        let metrics = Metrics::new();
        let node = Self(Arc::new(Inner {
            world,
            id: NodeId::new(name, incarnation),
            cluster,
            role,
            start_nonce,
            ask_timeout,
            lost_after,
            metrics: metrics.clone(),
            links: OnceLock::new(),
            names: Local::default(),
            published: Mutex::default(),
            copies: Mutex::default(),
            renamed: Arc::default(),
            groups_version: AtomicU64::new(0),
            watches: Watches::default(),
            nursery: Nursery::default(),
            draining: AtomicBool::new(false),
            roots: Mutex::default(),
            asks: Asks::default(),
            forms,
            credits: Credits::default(),
            dead_letters: Office::new(&metrics),
            proxies: Mutex::default(),
            tasks: Tasks::default(),
            traces: AtomicU64::new(0),
            leaving: Mutex::default(),
            peers_up: Mutex::default(),
            peer_hooks: Mutex::default(),
        }));
        let me = LocalIdentity {
            cluster: node.cluster().clone(),
            id: node.id().clone(),
            role: node.role().to_owned(),
            start_nonce,
            messages: node.0.forms.fingerprints(),
            listen,
            tls,
        };
        let links = Links::start(node.world(), me, Arc::new(Router::new(&node)))?;
        assert!(node.0.links.set(links).is_ok(), "set only here");
        node.collect_link_bytes();
        node.task_anywhere(naming::spread(Arc::downgrade(&node.0), Arc::clone(&node.0.renamed)));
        // Who waits hears of its deadline even when the node's tasks were dropped.
        tokio::spawn(asks::keep_deadlines(WeakNode::of(&node), node.0.asks.earlier()));
        node.task_anywhere(watching::keep(WeakNode::of(&node), node.0.watches.wake()));
        for (peer, address) in peers {
            node.links().connect(&peer, &address);
        }
        Ok(node)
    }

    /// Who this node is.
    pub fn id(&self) -> &NodeId {
        &self.0.id
    }

    /// Its name.
    pub fn name(&self) -> &NodeName {
        &self.0.id.name
    }

    /// Its cluster.
    pub fn cluster(&self) -> &ClusterName {
        &self.0.cluster
    }

    /// What it is in the cluster, for people.
    pub fn role(&self) -> &str {
        &self.0.role
    }

    /// Drawn at this start; tells it from earlier ones of the same node.
    pub fn start_nonce(&self) -> u64 {
        self.0.start_nonce
    }

    /// Its clock.
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.0.world.clock
    }

    /// Now, by its clock.
    pub fn now(&self) -> Instant {
        self.0.world.clock.now()
    }

    /// A fresh generator for the consumer called `stream`.
    pub fn rng(&self, stream: &str) -> Rng {
        self.0.world.entropy.rng(stream)
    }

    /// The outside.
    pub fn world(&self) -> &World {
        &self.0.world
    }

    /// Its links.
    pub fn links(&self) -> &Links {
        self.0.links.get().expect("set before `start` returns or a link tells anything")
    }

    /// Its counters.
    pub fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    /// How long an ask waits when it does not say.
    pub fn ask_timeout(&self) -> Duration {
        self.0.ask_timeout
    }

    /// How long a node may be silent before it counts as lost.
    pub fn lost_after(&self) -> Duration {
        self.0.lost_after
    }

    /// Calls `hook` with whatever happens to links, on the protocol arbiter; for peers that are up
    /// already, at once. It must be short, and what it wants done it sends to an actor: no local
    /// task can be spawned there. Hooks stay until the node is gone.
    pub fn watch_peers(&self, hook: Box<dyn Fn(&PeerEvent) + Send + Sync>) {
        let hook: PeerHook = hook.into();
        lock(&self.0.peer_hooks).push(Arc::clone(&hook));
        let up: Vec<_> = lock(&self.0.peers_up).values().cloned().collect();
        for peer in up {
            hook(&PeerEvent::Up(peer));
        }
    }

    /// The peers that can be sent to now, by name.
    pub fn peers_up(&self) -> Vec<PeerInfo> {
        lock(&self.0.peers_up).values().cloned().collect()
    }

    /// Sends a sign of life as a datagram, which may be lost; it comes out of `watch_peers` there.
    ///
    /// # Errors
    /// Nothing was sent.
    pub fn heartbeat(&self, to: &NodeName, message: u64, body: &[u8]) -> Result<(), SendError> {
        let header = FrameHeader { message, ..FrameHeader::new(FrameKind::Heartbeat) };
        self.links().datagram(to, &header, body).map_err(refused)
    }

    /// Stops in order: actors are stopped, links closed, asks answered `Closed`.
    pub fn shutdown(&self) {
        for control in self.0.names.controls() {
            control.retire();
        }
        self.links().shutdown();
        self.0.asks.close_all();
    }

    /// Drops all tasks of this node as a crash would: nothing of an actor runs again, not even
    /// `stopped`. For simulated crashes; the ports of the node must refuse all effects before.
    pub fn abort_all(&self) {
        self.0.tasks.abort_all();
        self.0.asks.close_all();
        self.links().shutdown();
    }

    fn collect_link_bytes(&self) {
        let node = Arc::downgrade(&self.0);
        self.metrics().collect(move |metrics| {
            let Some(node) = Self::upgrade(&node) else { return };
            for peer in node.links().peers() {
                for (direction, bytes) in [("in", peer.bytes_in), ("out", peer.bytes_out)] {
                    let labels = [("peer", peer.name.as_str()), ("direction", direction)];
                    metrics.counter(&LINK_BYTES, &labels).follow(bytes);
                }
            }
        });
    }

    fn upgrade(node: &Weak<Inner>) -> Option<Self> {
        node.upgrade().map(Self)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.tasks.abort_all();
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Node").field(self.id()).finish()
    }
}

fn refused(refused: SendRefused) -> SendError {
    match refused {
        SendRefused::NotConnected => SendError::Unreachable,
        // Too large for any attempt: only a smaller message helps.
        SendRefused::Full | SendRefused::TooLarge => SendError::Overloaded,
    }
}

/// A panic while holding one of these locks leaves whole data behind: each change is one insert
/// or removal.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
