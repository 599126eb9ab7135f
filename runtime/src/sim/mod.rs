//! A whole cluster in one thread, out of one seed.
//!
//! [`Simulation`] supplies every node with a [`World`] whose clock, randomness, network and disk
//! are simulated; the very actors, links and journal of a real node run on it. The same seed gives
//! the same run, event by event, in every process on every machine:
//!
//! - one thread, tokio's paused clock, and one queue of events ordered by (time, sequence);
//! - one random stream per node, port and path, all derived from the seed;
//! - nothing asks the system for time, randomness, names or order.
//!
//! ```
//! use synod_runtime::sim::Simulation;
//!
//! let digest = |seed| Simulation::new(seed).run(|sim| async move {
//!     let world = sim.world(&"a".parse().unwrap());
//!     let before = world.clock.now();
//!     tokio::time::sleep(std::time::Duration::from_secs(3600)).await; // takes no time at all
//!     assert!(world.clock.now() > before);
//!     sim.trace_digest()
//! });
//! assert_eq!(digest(8841), digest(8841));
//! ```
//!
//! # What the simulated code must not do
//! Start threads or arbiters, use `tokio::select!` without `biased`, wait on `tokio::sync::watch`, which
//! wakes those who wait in random order ([`watch`](crate::watch) does not), iterate over maps with the
//! default hasher, or open sockets and files beside the ports.
//!
//! # Faults
//! Every fault is a method of [`Simulation`]; [`Nemesis`] makes a schedule of them out of a
//! [`FaultPlan`]. A crash of a node is [`Simulation::crash`], which makes all its ports refuse all
//! effects, after which the caller drops the node's tasks; [`Simulation::restart`] gives the next
//! life its world. Pausing a node is an approximation: its deliveries and disk completions, and
//! what it writes to the network, wait until it resumes, while its own timers run on.

mod clock;
mod controls;
mod disk;
mod entropy;
mod faults;
mod fuzz;
mod life;
mod nemesis;
mod network;
mod nodes;
mod queue;
#[cfg(test)]
mod tests;
mod trace;

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    future::Future,
    panic::resume_unwind,
    sync::{Arc, Mutex, Weak},
    time::Duration,
};

pub use clock::DRIFT_PPM_MAX;
use clock::SimClock;
pub use disk::{DiskConditions, DiskTraffic};
use disk::{SimDisk, Store};
use entropy::{SimEntropy, derive, up_to};
pub use faults::{Fault, FaultPlan, UnknownFault};
pub use fuzz::fuzz;
use life::{Life, Machine};
pub use nemesis::{FaultAction, Nemesis, NemesisConfig};
pub use network::{
    DATAGRAM_BYTES_MAX, IDLE_TIMEOUT, LANE_BYTES_MAX, PORT_DEFAULT, Traffic, Weather,
};
use network::{Net, SimNetwork, ip_of};
use queue::{Queue, lock};
use tokio::sync::Notify;
use trace::Trace;

use crate::{identity::NodeName, world::World};

/// One simulated world with all its nodes. Cloning gives another handle to the same.
#[derive(Clone)]
pub struct Simulation {
    hub: Arc<Hub>,
}

struct Hub {
    seed: u64,
    queue: Arc<Queue>,
    trace: Arc<Trace>,
    net: Arc<Net>,
    nodes: Mutex<BTreeMap<NodeName, Arc<SimNode>>>,
    /// Nodes that a disk operation stopped, for whoever owns their tasks.
    crashed: Mutex<VecDeque<NodeName>>,
    crash_told: Notify,
}

/// One machine with what outlives its crashes.
struct SimNode {
    machine: Arc<Machine>,
    clock: Arc<SimClock>,
    store: Arc<Store>,
    /// The world of the present life is one: its streams go on, whoever asks for it.
    world: Mutex<Option<World>>,
}

impl Simulation {
    /// A world without nodes, calm and healthy.
    pub fn new(seed: u64) -> Self {
        let queue = Arc::new(Queue::default());
        let trace = Arc::new(Trace::new(seed));
        let net = Arc::new(Net::new(seed, Arc::clone(&queue), Arc::clone(&trace)));
        let hub = Hub {
            seed,
            queue,
            trace,
            net,
            nodes: Mutex::default(),
            crashed: Mutex::default(),
            crash_told: Notify::new(),
        };
        Self { hub: Arc::new(hub) }
    }

    /// Runs `body` to its end on this thread, in simulated time, and answers what it answers.
    /// Actors and local tasks may be started in it; what still runs at its end is dropped.
    ///
    /// # Panics
    /// When `body`, a sink or a worker panics (the seed is printed), on a second call, and inside
    /// another runtime. Panics of tasks are for their owner to notice.
    pub fn run<F, T>(&self, body: impl FnOnce(Self) -> F) -> T
    where
        F: Future<Output = T>,
    {
        let _end = RunEnd(self);
        let hook = Arc::clone(&self.hub.queue);
        let runner = actix::System::with_tokio_rt(|| {
            tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .start_paused(true)
                .on_thread_park(move || hook.park_hook())
                .build()
                .expect("a runtime without sockets needs nothing that could be missing")
        });
        runner.block_on(async {
            self.hub.queue.start();
            let mut pump = actix_rt::spawn(Arc::clone(&self.hub.queue).pump());
            tokio::select! {
                biased;
                answer = body(self.clone()) => {
                    pump.abort();
                    answer
                }
                // Sinks and workers run on the pump: without it nothing would ever happen again.
                ended = &mut pump => match ended {
                    Err(error) if error.is_panic() => resume_unwind(error.into_panic()),
                    Ok(()) | Err(_) => unreachable!("the pump never ends by itself"),
                },
            }
        })
    }

    /// The seed of everything.
    pub fn seed(&self) -> u64 {
        self.hub.seed
    }

    /// True time since the run began. Nodes do not know it: see their clocks.
    pub fn now(&self) -> Duration {
        Duration::from_nanos(self.hub.queue.now())
    }

    /// The world of a node's present life; the first call makes the node, and starts it. Ports of
    /// a life that is over refuse everything, so after a crash use [`Simulation::restart`].
    pub fn world(&self, node: &NodeName) -> World {
        let node = self.node(node);
        if let Some(world) = &*lock(&node.world) {
            return world.clone();
        }
        self.begin(&node)
    }

    /// Where the others reach a node that listens on the default port.
    pub fn address(&self, node: &NodeName) -> String {
        format!("{}:{PORT_DEFAULT}", ip_of(&self.node(node).machine))
    }

    /// Stops a machine: from here on its ports refuse everything, what was not synced meets its
    /// fate, and its peers hear nothing more. Then the caller drops the node's tasks. Stopping a
    /// stopped machine changes nothing.
    pub fn crash(&self, node: &NodeName) {
        let node = self.node(node);
        if node.machine.is_up() {
            let life = node.machine.life();
            node.machine.power_off();
            self.hub.note(&node, "crash", &[life.number()]);
        }
        self.hub.bury(&node);
    }

    /// Starts a machine again, crashing it first if it runs, and gives its new life a world. Disk
    /// and clock are the machine's own still.
    pub fn restart(&self, name: &NodeName) -> World {
        self.crash(name);
        lock(&self.hub.crashed).retain(|crashed| crashed != name);
        self.begin(&self.node(name))
    }

    /// Whether a node's present life goes on.
    pub fn is_up(&self, node: &NodeName) -> bool {
        self.node(node).machine.is_up()
    }

    /// Waits for the next node that one of its own disk operations stopped (see
    /// [`Simulation::crash_at_disk_operation`]). Its ports refuse already; drop its tasks.
    pub async fn next_crash(&self) -> NodeName {
        loop {
            if let Some(node) = lock(&self.hub.crashed).pop_front() {
                return node;
            }
            self.hub.crash_told.notified().await;
        }
    }

    /// One number for everything that passed a port so far: two runs are the same exactly if it is.
    pub fn trace_digest(&self) -> u64 {
        self.hub.trace.digest()
    }

    /// How many events passed a port so far.
    pub fn trace_events(&self) -> u64 {
        self.hub.trace.events()
    }

    /// From now on keeps the last `lines_max` events as text, for [`Simulation::trace_lines`].
    pub fn keep_trace(&self, lines_max: usize) {
        self.hub.trace.keep_lines(lines_max);
    }

    /// The last events, oldest first.
    pub fn trace_lines(&self) -> Vec<String> {
        self.hub.trace.lines()
    }

    fn begin(&self, node: &Arc<SimNode>) -> World {
        let hub = &self.hub;
        let life = node.machine.begin();
        hub.note(node, "begin", &[life.number()]);
        let (queue, trace) = (Arc::clone(&hub.queue), Arc::clone(&hub.trace));
        let world = World {
            clock: Arc::clone(&node.clock) as _,
            entropy: Arc::new(SimEntropy::new(hub.seed, life.clone(), queue, trace)),
            network: Arc::new(SimNetwork::new(Arc::clone(&hub.net), life.clone())),
            disk: Arc::new(SimDisk::new(Arc::clone(&node.store), life)),
        };
        *lock(&node.world) = Some(world.clone());
        world
    }

    /// The node of a name, made (not started) when first named.
    fn node(&self, name: &NodeName) -> Arc<SimNode> {
        let mut nodes = lock(&self.hub.nodes);
        if let Some(node) = nodes.get(name) {
            return Arc::clone(node);
        }
        let index = u32::try_from(nodes.len()).expect("simulated nodes fit into memory");
        let node = Arc::new(SimNode::new(&self.hub, name, index));
        self.hub.net.add(&node.machine);
        nodes.insert(name.clone(), Arc::clone(&node));
        node
    }
}

impl SimNode {
    fn new(hub: &Arc<Hub>, name: &NodeName, index: u32) -> Self {
        let (queue, trace) = (Arc::clone(&hub.queue), Arc::clone(&hub.trace));
        let stream = |port: &str| derive(hub.seed, &[name.as_str(), port], &[]);
        let booted = BOOTED_NANOS_MIN + up_to(&mut stream("clock"), BOOTED_NANOS_MAX);
        let weak = Arc::downgrade(hub);
        let on_crash = Box::new(move |life: &Life| Hub::stopped(&weak, life));
        Self {
            machine: Arc::new(Machine::new(name.clone(), index)),
            clock: Arc::new(SimClock::new(Arc::clone(&queue), booted)),
            store: Arc::new(Store::new(queue, trace, stream("disk"), on_crash)),
            world: Mutex::default(),
        }
    }
}

impl Hub {
    fn note(&self, node: &SimNode, what: &str, numbers: &[u64]) {
        self.trace.note(self.queue.now(), node.machine.name.as_str(), what, numbers, &[]);
    }

    /// Lets go of everything of a node's last life, which is over.
    fn bury(&self, node: &SimNode) {
        self.net.purge(&node.machine.life());
        node.store.crash();
    }

    /// A disk operation stopped a node. It is buried by an event, since the one who made the
    /// operation is still at work.
    fn stopped(hub: &Weak<Self>, life: &Life) {
        let Some(strong) = hub.upgrade() else { return };
        let (hub, life) = (hub.clone(), life.clone());
        strong.queue.after(0, None, move || {
            let Some(hub) = hub.upgrade() else { return };
            let node = lock(&hub.nodes).get(life.name()).cloned();
            let same = |node: &Arc<SimNode>| node.machine.life().number() == life.number();
            if let Some(node) = node.filter(same) {
                hub.bury(&node);
                lock(&hub.crashed).push_back(life.name().clone());
                hub.crash_told.notify_one();
            }
        });
    }
}

impl fmt::Debug for Simulation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Simulation").field("seed", &self.hub.seed).finish_non_exhaustive()
    }
}

/// Cleans up when a run ends, however it ends.
struct RunEnd<'a>(&'a Simulation);

impl Drop for RunEnd<'_> {
    fn drop(&mut self) {
        let hub = &self.0.hub;
        if std::thread::panicking() {
            eprintln!("simulation failed at {:?}; its seed: {}", self.0.now(), hub.seed);
        }
        // Queue, network and worlds own what the nodes gave them, which owns them in turn.
        hub.queue.close();
        hub.net.close();
        for node in lock(&hub.nodes).values() {
            node.machine.power_off();
            let world = lock(&node.world).take();
            drop(world);
        }
    }
}

/// Machines have been up for a while when a run begins, each for its own while: a node's instants
/// mean nothing to another.
const BOOTED_NANOS_MIN: u64 = 1_000_000_000;
/// At most about a day more.
const BOOTED_NANOS_MAX: u64 = 86_400_000_000_000;
