//! Directs a simulated cluster: the nemesis's wishes, a service manager's care, and a story of both.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    fmt,
    rc::Rc,
    time::Duration,
};

use synod_runtime::{
    identity::NodeName,
    sim::{FaultAction, FaultPlan, Nemesis, NemesisConfig, Simulation},
    telemetry::ACTOR_PANICS,
};

use super::{
    cluster::Cluster,
    properties::{Property, Violation},
    record::{Shared, View},
    sights::{ANOTHER_NODE, GIVEN_UP, Sights},
};
use crate::server::core::{CoreError, Reached};

/// Does to a cluster what a nemesis wants, and what a service manager would do about it.
pub(super) struct Director {
    pub(super) sim: Simulation,
    pub(super) cluster: Rc<RefCell<Cluster>>,
    pub(super) record: Shared,
    plan: FaultPlan,
    length: Duration,
    /// Nothing is to go wrong, and all is well since the founding.
    calm: bool,
    /// Faults that were put in.
    pub(super) faults: u64,
    /// What happened.
    pub(super) sights: Sights,
    /// When nodes that stopped by themselves are started again, as a service manager would.
    due: BTreeMap<NodeName, Duration>,
    /// How many panics were ordered of each node in its present life.
    ordered: BTreeMap<NodeName, u64>,
    /// Nodes whose disk may be damaged: all was well when they were stopped.
    spare: BTreeSet<NodeName>,
    /// Nodes whose disk was damaged.
    rotten: BTreeSet<NodeName>,
    story: Story,
}

/// What was done to a cluster, and when: for whoever looks for the reason of something.
pub(super) type Story = Rc<RefCell<Vec<String>>>;

impl Director {
    /// Nodes that are still to be started, and what may be done to them for so long.
    pub(super) fn new(cluster: Cluster, plan: FaultPlan, length: Duration, story: Story) -> Self {
        Self {
            sim: cluster.sim().clone(),
            cluster: Rc::new(RefCell::new(cluster)),
            record: Shared::default(),
            plan,
            length,
            calm: false,
            faults: 0,
            sights: Sights::default(),
            due: BTreeMap::new(),
            ordered: BTreeMap::new(),
            spare: BTreeSet::new(),
            rotten: BTreeSet::new(),
            story,
        }
    }

    /// Starts all nodes, and waits until all is well.
    pub(super) async fn found(&mut self) {
        self.tell("begin");
        for name in self.names() {
            self.start(&name);
        }
        self.until_whole("founding").await;
        self.calm = self.plan == FaultPlan::none();
    }

    /// Lets go wrong what may, then waits until all is well again.
    pub(super) async fn trouble(&mut self) {
        self.safety().await;
        self.until_whole("healing").await;
    }

    /// Anything may happen.
    async fn safety(&mut self) {
        let config = NemesisConfig {
            plan: self.plan.clone(),
            climate: self.sim.climate(),
            safety: self.length,
            disks_damaged_max: DISKS_DAMAGED_MAX,
            ..NemesisConfig::new(&self.names())
        };
        for (pause, action) in Nemesis::new(self.sim.seed(), &config) {
            self.pass(pause).await;
            self.act(&action);
        }
        let down: Vec<_> = self.due.keys().cloned().collect();
        for name in down {
            self.start(&name);
        }
    }

    /// Lets simulated time pass, and does what a service manager would do meanwhile.
    pub(super) async fn pass(&mut self, time: Duration) {
        let until = self.sim.now() + time;
        loop {
            let left = until.saturating_sub(self.sim.now());
            if left.is_zero() {
                return;
            }
            let sim = self.sim.clone();
            tokio::select! {
                biased;
                // A machine that stopped at one of its disk operations.
                name = sim.next_crash() => {
                    self.tell(&format!("{name} stopped at a disk operation"));
                    self.stop(&name, STOPPED_FOR);
                }
                () = tokio::time::sleep(left.min(LOOK)) => self.look(),
            }
        }
    }

    fn look(&mut self) {
        let (mut failed, mut all) = (Vec::new(), Vec::new());
        for name in self.names() {
            let cluster = self.cluster.borrow();
            let Some(core) = cluster.core(&name) else { continue };
            let why = core.failed().borrow().clone();
            failed.extend(why.map(|why| (name.clone(), why)));
            let reached = core.reached();
            all.push(reached.clone());
            let mut record = self.record.open();
            if reached.position > 0 {
                record.digest(&name, reached.position, reached.digest);
            }
            if self.calm && cluster.mains().contains(&name) {
                let Reached { leader, suspects, bridging, configuration, .. } = reached;
                let epoch = configuration.map_or(0, |c| c.epoch);
                record.view(&name, View { leader, epoch, suspects, bridging });
            }
        }
        self.sights.look(&all);
        for (name, why) in failed {
            self.sights.count(GIVEN_UP);
            self.tell(&format!("{name} gives up: {why}"));
            self.stop(&name, RESTARTED_AFTER);
        }
        let now = self.sim.now();
        let due: Vec<_> = self.due.iter().filter(|(_, at)| **at <= now).collect();
        let due: Vec<_> = due.into_iter().map(|(name, _)| name.clone()).collect();
        for name in due {
            self.start(&name);
        }
    }

    fn act(&mut self, action: &FaultAction) {
        if *action != FaultAction::Heal {
            self.faults += 1;
        }
        self.tell(&format!("{action:?}"));
        match action {
            FaultAction::Crash { node } => {
                // More damage than the protocols bear proves nothing.
                if self.cluster.borrow().is_whole().is_ok() {
                    self.spare.insert(node.clone());
                } else {
                    self.spare.remove(node);
                }
                self.stop(node, STOPPED_FOR);
            }
            FaultAction::Restart { node } => self.start(node),
            FaultAction::LoseDisk { node } | FaultAction::Rot { node } => {
                let bearable = self.spare.remove(node) && self.rotten.is_empty();
                let running = self.cluster.borrow().core(node).is_some();
                if !bearable || running || self.cluster.borrow().mains().len() == 1 {
                    return self.tell("not that: it would be too much");
                }
                if matches!(action, FaultAction::Rot { .. }) {
                    self.rotten.insert(node.clone());
                }
                self.sim.apply(action);
            }
            FaultAction::Panic { node, actor } => {
                let role = self.cluster.borrow().stumble(node, *actor);
                if let Some(role) = role {
                    *self.ordered.entry(node.clone()).or_default() += 1;
                    self.tell(&format!("the {role} of {node} panics"));
                }
            }
            FaultAction::Weather(_)
            | FaultAction::Cut { .. }
            | FaultAction::Mend { .. }
            | FaultAction::Partition { .. }
            | FaultAction::MendPartition { .. }
            | FaultAction::Clog { .. }
            | FaultAction::CrashAtDiskOperation { .. }
            | FaultAction::Pause { .. }
            | FaultAction::Resume { .. }
            | FaultAction::FailSync { .. }
            | FaultAction::FillDisk { .. }
            | FaultAction::FreeDisk { .. }
            | FaultAction::DiskSpeed { .. }
            | FaultAction::Drift { .. }
            | FaultAction::Jump { .. }
            | FaultAction::Heal => self.sim.apply(action),
        }
        self.sights.did(action);
    }

    /// Stops a node, to be started again after `pause` unless the nemesis does it before.
    fn stop(&mut self, name: &NodeName, pause: Duration) {
        self.count_panics(name);
        let now = self.sim.now();
        let life = self.cluster.borrow().lives(name);
        self.record.open().ended_lives.entry((name.clone(), life)).or_insert(now);
        self.cluster.borrow_mut().crash(name);
        self.due.insert(name.clone(), now + pause);
    }

    /// No role may have panicked but on order, in the life that ends now.
    fn count_panics(&mut self, name: &NodeName) {
        let ordered = self.ordered.remove(name).unwrap_or(0);
        let cluster = self.cluster.borrow();
        let Some(core) = cluster.core(name) else { return };
        let panics = core.node().metrics().value(&ACTOR_PANICS, &[]).unwrap_or(0);
        if panics > ordered {
            let what = format!("{panics} panics of {name}'s actors, {ordered} of them ordered");
            self.record.open().found.push(Violation::new(Property::Soundness, what));
        }
    }

    fn start(&mut self, name: &NodeName) {
        self.stop(name, RESTARTED_AFTER);
        let started = self.cluster.borrow_mut().start(name);
        match started {
            Ok(()) => {
                self.due.remove(name);
                self.tell(&format!("{name} runs"));
                self.note_rejoining(name);
            }
            Err(error) => {
                self.tell(&format!("{name} does not start: {error}"));
                if error.is_lost_memory() {
                    self.replace(name, &error);
                }
            }
        }
    }

    /// A node that forgot what it said gets an empty disk, and so becomes another node.
    fn replace(&mut self, name: &NodeName, why: &CoreError) {
        self.expect_rot(name, &why.to_string());
        self.sights.count(ANOTHER_NODE);
        self.tell(&format!("{name} gets a new disk"));
        self.cluster.borrow_mut().lose(name);
    }

    /// Whether a node that runs put aside what it had forgotten.
    fn note_rejoining(&mut self, name: &NodeName) {
        let core = self.cluster.borrow();
        let lost = core.core(name).and_then(|core| core.lost_memory()).map(str::to_owned);
        drop(core);
        if let Some(why) = lost {
            self.sights.count(ANOTHER_NODE);
            self.tell(&format!("{name} comes back as another node: {why}"));
            self.expect_rot(name, &why);
        }
    }

    /// A disk that forgets must have been damaged.
    fn expect_rot(&mut self, name: &NodeName, why: &str) {
        if !self.rotten.remove(name) {
            let what = format!("{name}, whose disk nobody touched, has lost its memory: {why}");
            self.record.open().found.push(Violation::new(Property::Recovery, what));
        }
    }

    /// Waits until all is well.
    async fn until_whole(&mut self, phase: &str) {
        let until = self.sim.now() + LIVENESS_MAX;
        loop {
            let whole = self.cluster.borrow().is_whole();
            match whole {
                Ok(()) => {
                    // Damage that nobody has noticed by now is repaired: nothing refers to it.
                    self.rotten.clear();
                    return self.tell(&format!("whole: {phase}"));
                }
                Err(why) if self.sim.now() >= until => {
                    self.describe();
                    let what = format!("{phase} took longer than {LIVENESS_MAX:?}: {why}");
                    self.record.open().found.push(Violation::new(Property::Liveness, what));
                    return;
                }
                Err(_) => self.pass(LOOK).await,
            }
        }
    }

    /// Counts what only the end of a life tells, for those that still go on.
    pub(super) fn settle(&mut self) {
        for name in self.names() {
            self.count_panics(&name);
        }
        self.record.open().until = self.sim.now();
    }

    /// For whoever looks for the reason of a violation.
    pub(super) fn describe(&self) {
        let cluster = self.cluster.borrow();
        for name in cluster.names() {
            let Some(core) = cluster.core(&name) else { continue };
            self.tell(&format!("{name}: {}", core.status()));
            self.tell(&format!("{name}: {:?}", core.reached()));
        }
    }

    pub(super) fn names(&self) -> Vec<NodeName> {
        self.cluster.borrow().names()
    }

    pub(super) fn tell(&self, what: &str) {
        tell(&self.sim, &self.story, what);
    }
}

/// Adds to a story.
pub(super) fn tell(sim: &Simulation, story: &Story, what: &str) {
    let at = sim.now().as_secs_f64();
    tracing::info!(at, what, "simulated");
    story.borrow_mut().push(format!("{at:>10.6} s  {what}"));
}

/// How long the cluster has for its founding, and again after everything is healed: longer than
/// any patience inside it.
pub const LIVENESS_MAX: Duration = Duration::from_secs(30);

/// How often the director looks around.
pub(super) const LOOK: Duration = Duration::from_millis(50);

/// A process that ended by itself is started again so much later.
const RESTARTED_AFTER: Duration = Duration::from_millis(500);

/// A machine that was stopped is started by the nemesis, at the latest by then.
const STOPPED_FOR: Duration = Duration::from_secs(10);

/// Disks that a nemesis may damage in a trial, each when all is well again.
const DISKS_DAMAGED_MAX: u32 = 4;

impl fmt::Debug for Director {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Director").field("sim", &self.sim).finish_non_exhaustive()
    }
}
