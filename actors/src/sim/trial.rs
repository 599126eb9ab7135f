//! One trial: a cluster, its clients and its nemesis, from founding to verdict.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
    time::Duration,
};

use synod_runtime::{
    identity::NodeName,
    journal::JournalError,
    sim::{Fault, FaultAction, FaultPlan, Nemesis, NemesisConfig, Simulation},
    slots::SlotsError,
    telemetry::ACTOR_PANICS,
};

use super::{
    clients::Clients,
    cluster::{Blueprint, Cluster, Shape},
    finale,
    properties::{Property, Violation, judge},
    record::Shared,
    witness::{NAME, Witness},
};
use crate::{consensus::timing::VoteStyle, server::core::CoreError};

/// What a trial is like, apart from its seed.
#[derive(Debug, Clone)]
pub struct Trial {
    /// The cluster.
    pub shape: Shape,
    /// What may go wrong.
    pub plan: FaultPlan,
    /// How long things go wrong, in simulated time. What follows is bounded too, see
    /// [`LIVENESS_MAX`].
    pub length: Duration,
}

/// What came of a trial. Equal for equal seeds and trials, on every machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Its seed.
    pub seed: u64,
    /// Steps of the log executed.
    pub steps: u64,
    /// Faults that were put in.
    pub faults: u64,
    /// Calls that clients made, and those of them that were acknowledged.
    pub calls: (u64, u64),
    /// One number for all that happened.
    pub digest: u64,
    /// What did not hold.
    pub violations: Vec<Violation>,
    /// What was done to the cluster, and when: for whoever looks for the reason.
    pub story: Vec<String>,
}

impl Default for Trial {
    /// Two mains and an auxiliary, everything goes wrong for a minute's length.
    fn default() -> Self {
        let length = Duration::from_secs(60);
        Self { shape: Shape::default(), plan: FaultPlan::all(), length }
    }
}

impl Trial {
    /// Runs the trial of a seed.
    pub fn run(&self, seed: u64) -> Report {
        let sim = Simulation::new(seed);
        let story = Rc::new(RefCell::new(Vec::new()));
        let ended = catch_unwind(AssertUnwindSafe(|| {
            sim.run(|sim| Director::new(sim, self, Rc::clone(&story)).conduct())
        }));
        let story = story.take();
        match ended {
            Ok(report) => Report { story, ..report },
            Err(panic) => {
                let what = panic.downcast_ref::<String>().cloned();
                let what = what.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
                let what = format!("panicked: {}", what.unwrap_or_default());
                let violations = vec![Violation::new(Property::Soundness, what)];
                let digest = sim.trace_digest();
                Report { seed, steps: 0, faults: 0, calls: (0, 0), digest, violations, story }
            }
        }
    }
}

/// Conducts one trial.
pub(super) struct Director {
    pub(super) sim: Simulation,
    pub(super) cluster: Rc<RefCell<Cluster>>,
    pub(super) record: Shared,
    pub(super) clients: Clients,
    plan: FaultPlan,
    length: Duration,
    faults: u64,
    /// When nodes that stopped by themselves are started again, as a service manager would.
    due: BTreeMap<NodeName, Duration>,
    /// How many panics were ordered of each node in its present life.
    ordered: BTreeMap<NodeName, u64>,
    /// Nodes whose disk may be damaged: all was well when they were stopped.
    spare: BTreeSet<NodeName>,
    /// Nodes whose disk was damaged.
    rotten: BTreeSet<NodeName>,
    story: Rc<RefCell<Vec<String>>>,
}

impl Director {
    fn new(sim: Simulation, trial: &Trial, story: Rc<RefCell<Vec<String>>>) -> Self {
        let style = if sim.seed() % 4 == 3 { VoteStyle::Piggyback } else { VoteStyle::Split };
        let blueprint = Blueprint { style, ..Blueprint::hosting::<Witness>(NAME) };
        let cluster = Rc::new(RefCell::new(Cluster::new(&sim, trial.shape, blueprint)));
        let record = Shared::default();
        let clients = Clients::new(&cluster, &record, trial.plan.has(Fault::Panic));
        Self {
            sim,
            cluster,
            record,
            clients,
            plan: trial.plan.clone(),
            length: trial.length,
            faults: 0,
            due: BTreeMap::new(),
            ordered: BTreeMap::new(),
            spare: BTreeSet::new(),
            rotten: BTreeSet::new(),
            story,
        }
    }

    async fn conduct(mut self) -> Report {
        self.tell("begin");
        for name in self.names() {
            self.start(&name);
        }
        self.until_whole("founding").await;
        let before = finale::auxiliary_work(&self.cluster.borrow());
        self.clients.start();
        self.safety().await;
        self.until_whole("healing").await;
        finale::play(&mut self).await;
        if self.plan == FaultPlan::none() {
            finale::compare_auxiliaries(&self, &before);
        }
        self.report()
    }

    /// Anything may happen.
    async fn safety(&mut self) {
        let config = NemesisConfig {
            plan: self.plan.clone(),
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
        let mut failed = Vec::new();
        for name in self.names() {
            let cluster = self.cluster.borrow();
            let Some(core) = cluster.core(&name) else { continue };
            let why = core.failed().borrow().clone();
            failed.extend(why.map(|why| (name.clone(), why)));
            let reached = core.reached();
            if reached.position > 0 {
                self.record.open().digest(&name, reached.position, reached.digest);
            }
        }
        for (name, why) in failed {
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
            }
            Err(error) => {
                self.tell(&format!("{name} does not start: {error}"));
                if forgot(&error) {
                    self.replace(name, &error);
                }
            }
        }
    }

    /// A node that forgot what it said gets an empty disk, and so becomes another node.
    fn replace(&mut self, name: &NodeName, why: &CoreError) {
        if !self.rotten.remove(name) {
            let what = format!("{name}, whose disk nobody touched, does not start: {why}");
            self.record.open().found.push(Violation::new(Property::Recovery, what));
        }
        self.tell(&format!("{name} gets a new disk"));
        self.cluster.borrow_mut().lose(name);
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

    fn report(mut self) -> Report {
        for name in self.names() {
            self.count_panics(&name);
        }
        let cluster = self.cluster.borrow();
        let reached: Vec<_> =
            cluster.mains().iter().filter_map(|n| cluster.core(n)).map(|c| c.reached()).collect();
        let mut record = self.record.open();
        record.until = self.sim.now();
        let acknowledged = record.calls.iter().filter(|call| call.applied.is_some()).count();
        let state = reached.iter().map(|r| r.digest).fold(0, u64::wrapping_add);
        Report {
            seed: self.sim.seed(),
            steps: reached.iter().map(|r| r.step.0).max().unwrap_or(0),
            faults: self.faults,
            calls: (record.calls.len() as u64, acknowledged as u64),
            digest: self.sim.trace_digest() ^ state.rotate_left(17),
            violations: judge(&record),
            story: Vec::new(),
        }
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
        let at = self.sim.now().as_secs_f64();
        tracing::info!(at, what, "trial");
        self.story.borrow_mut().push(format!("{at:>10.6} s  {what}"));
    }
}

/// Whether a node lost what it had on disk.
fn forgot(error: &CoreError) -> bool {
    match error {
        CoreError::Journal(JournalError::LostMemory { .. })
        | CoreError::Identity(SlotsError::LostMemory { .. }) => true,
        CoreError::Journal(_)
        | CoreError::Identity(_)
        | CoreError::Lock(_)
        | CoreError::Data { .. }
        | CoreError::Node(_) => false,
    }
}

/// How long the cluster has for its founding, and again after everything is healed: longer than
/// any patience inside it.
pub const LIVENESS_MAX: Duration = Duration::from_secs(30);

/// How long the cluster is left alone before it must do one last thing: clients end, and a role
/// that panicked while it was waiting to be rebuilt is rebuilt.
pub(super) const LAST_CALLS: Duration = Duration::from_secs(12);

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
