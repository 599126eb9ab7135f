//! A schedule of faults: first anything may happen (safety), then all is healed (liveness).
//!
//! ```
//! use synod_runtime::sim::{FaultAction, Nemesis, NemesisConfig, Simulation};
//!
//! let sim = Simulation::new(7);
//! sim.run(|sim| async move {
//!     let nodes = ["a", "b", "x"].map(|name| name.parse().unwrap());
//!     for (pause, action) in Nemesis::new(sim.seed(), &NemesisConfig::new(&nodes)) {
//!         tokio::time::sleep(pause).await;
//!         sim.apply(&action);
//!         match action {
//!             FaultAction::Crash { .. } => { /* drop the node's tasks */ }
//!             FaultAction::Restart { node } => drop(sim.restart(&node)), // start it in this world
//!             _ => {}
//!         }
//!     }
//!     // Everything is healed: now all that was asked must be answered.
//! });
//! ```

use std::{collections::BTreeMap, time::Duration};

use rand::RngExt;

use super::{
    Fault, FaultPlan, Weather,
    entropy::{derive, happens, up_to},
};
use crate::{identity::NodeName, world::Rng};

/// One thing done to the simulated world; see [`Simulation::apply`](super::Simulation::apply).
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "the fields say no more than their names")]
pub enum FaultAction {
    /// Sets the weather of all paths.
    Weather(Weather),
    /// Cuts one direction of a path.
    Cut { from: NodeName, to: NodeName },
    /// Mends it.
    Mend { from: NodeName, to: NodeName },
    /// Cuts all paths between two sides.
    Partition { left: Vec<NodeName>, right: Vec<NodeName> },
    /// Mends them.
    MendPartition { left: Vec<NodeName>, right: Vec<NodeName> },
    /// Delays everything on a path, for a while.
    Clog { from: NodeName, to: NodeName, extra: Duration, lasting: Duration },
    /// Stops a machine. The harness drops the node's tasks.
    Crash { node: NodeName },
    /// Stops it at a disk operation; [`Simulation::next_crash`](super::Simulation::next_crash)
    /// tells the harness.
    CrashAtDiskOperation { node: NodeName, operations: u64 },
    /// The harness drops the node's tasks, if it still has any, and starts it in a new life.
    Restart { node: NodeName },
    /// Holds a node still.
    Pause { node: NodeName },
    /// Lets it go on.
    Resume { node: NodeName },
    /// Lets one of a node's actors panic; which, the harness makes of the number.
    Panic { node: NodeName, actor: u64 },
    /// Replaces a stopped machine's disk by an empty one.
    LoseDisk { node: NodeName },
    /// Flips a bit of a file.
    Rot { node: NodeName },
    /// Fails the next sync.
    FailSync { node: NodeName },
    /// Leaves only so many bytes free.
    FillDisk { node: NodeName, free: u64 },
    /// Gives all space back.
    FreeDisk { node: NodeName },
    /// Sets how long a worker's run takes.
    DiskSpeed { node: NodeName, latency: Duration, jitter: Duration },
    /// Sets a clock's drift.
    Drift { node: NodeName, ppm: i64 },
    /// Moves a wall clock.
    Jump { node: NodeName, ms: i64 },
    /// The safety phase is over.
    Heal,
}

/// What a [`Nemesis`] may do, and for how long.
#[derive(Debug, Clone)]
pub struct NemesisConfig {
    /// Whom it may hurt.
    pub nodes: Vec<NodeName>,
    /// How.
    pub plan: FaultPlan,
    /// How long the safety phase lasts.
    pub safety: Duration,
    /// The weather when nothing is wrong; what is lost, doubled and reordered comes on top.
    pub climate: Weather,
    /// The mean pause between two faults.
    pub pace: Duration,
    /// How many disks may be lost or rot, in all: more than the protocols bear proves nothing.
    pub disks_damaged_max: u32,
    /// The largest drift of a clock, either way.
    pub drift_ppm_max: i64,
}

/// An iterator of `(pause, action)`: wait so long in true time, then do it. It ends with the
/// safety phase; every stopped node has got its [`FaultAction::Restart`] by then.
#[derive(Debug)]
pub struct Nemesis {
    schedule: std::collections::btree_map::IntoIter<(Duration, u64), FaultAction>,
    last: Duration,
}

/// A schedule in the making.
struct Draft<'a> {
    config: &'a NemesisConfig,
    rng: Rng,
    actions: BTreeMap<(Duration, u64), FaultAction>,
    /// Until when a node is already stopped, paused or waiting to be stopped.
    busy: BTreeMap<NodeName, Duration>,
    disks_damaged: u32,
}

impl NemesisConfig {
    /// All faults for `nodes`, during 30 simulated seconds, two or three a second.
    pub fn new(nodes: &[NodeName]) -> Self {
        Self {
            nodes: nodes.to_vec(),
            plan: FaultPlan::all(),
            safety: Duration::from_secs(30),
            climate: Weather::default(),
            pace: Duration::from_millis(400),
            disks_damaged_max: 1,
            drift_ppm_max: 200,
        }
    }
}

impl Nemesis {
    /// The schedule of a seed.
    pub fn new(seed: u64, config: &NemesisConfig) -> Self {
        let mut draft = Draft {
            config,
            rng: derive(seed, &["nemesis"], &[]),
            actions: BTreeMap::new(),
            busy: BTreeMap::new(),
            disks_damaged: 0,
        };
        draft.prepare();
        let kinds = draft.kinds();
        let mut at = Duration::ZERO;
        while !kinds.is_empty() && !config.nodes.is_empty() {
            at += draft.between(Duration::ZERO, config.pace * 2);
            if at >= config.safety {
                break;
            }
            let kind = kinds[draft.pick(kinds.len())];
            draft.add(kind, at);
        }
        draft.push(config.safety, FaultAction::Heal);
        Self { schedule: draft.actions.into_iter(), last: Duration::ZERO }
    }
}

impl Iterator for Nemesis {
    type Item = (Duration, FaultAction);

    fn next(&mut self) -> Option<Self::Item> {
        let ((at, _), action) = self.schedule.next()?;
        let pause = at - self.last;
        self.last = at;
        Some((pause, action))
    }
}

impl Draft<'_> {
    /// What holds from the start.
    fn prepare(&mut self) {
        let config = self.config;
        if config.plan.has(Fault::Drift) {
            for node in &config.nodes {
                let ppm = self.either_way(config.drift_ppm_max);
                self.push(Duration::ZERO, FaultAction::Drift { node: node.clone(), ppm });
            }
        }
        if WEATHER.into_iter().any(|fault| config.plan.has(fault)) {
            self.weather(Duration::ZERO);
        }
    }

    /// What may happen again and again; the three kinds of weather change together.
    fn kinds(&self) -> Vec<Fault> {
        let weather = self.config.plan.iter().find(|fault| WEATHER.contains(fault));
        let others = self.config.plan.iter().filter(|fault| !WEATHER.contains(fault));
        weather.into_iter().chain(others).collect()
    }

    fn add(&mut self, kind: Fault, at: Duration) {
        match kind {
            Fault::Loss | Fault::Duplication | Fault::Reorder => self.weather(at),
            Fault::Cut => self.cut(at),
            Fault::Clog => self.clog(at),
            Fault::Partition => self.partition(at),
            Fault::Crash => self.crash(at),
            Fault::Pause => self.pause(at),
            Fault::Panic => self.panic(at),
            Fault::DiskLoss | Fault::BitRot => self.damage(kind, at),
            Fault::Eio => self.fail_sync(at),
            Fault::Enospc => self.fill(at),
            Fault::SlowSync => self.slow(at),
            Fault::Drift | Fault::Jump => self.clock(kind, at),
        }
    }

    fn weather(&mut self, at: Duration) {
        let mut chance = |fault, most: f64| {
            let on = self.config.plan.has(fault) && happens(&mut self.rng, 0.5);
            if on { self.rng.random::<f64>() * most } else { 0.0 }
        };
        let weather = Weather {
            loss: chance(Fault::Loss, LOSS_MAX),
            duplication: chance(Fault::Duplication, REPEAT_MAX),
            reorder: chance(Fault::Reorder, REPEAT_MAX),
            ..self.config.climate
        };
        self.push(at, FaultAction::Weather(weather));
    }

    fn cut(&mut self, at: Duration) {
        let Some((from, to)) = self.pair() else { return };
        let until = at + self.spell();
        self.push(at, FaultAction::Cut { from: from.clone(), to: to.clone() });
        self.push(until, FaultAction::Mend { from, to });
    }

    fn clog(&mut self, at: Duration) {
        let Some((from, to)) = self.pair() else { return };
        let extra = self.between(Duration::from_millis(10), Duration::from_millis(500));
        let lasting = self.between(Duration::from_millis(100), Duration::from_secs(2));
        self.push(at, FaultAction::Clog { from, to, extra, lasting });
    }

    fn partition(&mut self, at: Duration) {
        let mut nodes = self.config.nodes.clone();
        if nodes.len() < 2 {
            return;
        }
        for i in (1..nodes.len()).rev() {
            let other = self.pick(i + 1);
            nodes.swap(i, other);
        }
        let right = nodes.split_off(1 + self.pick(nodes.len() - 1));
        let until = at + self.spell();
        self.push(at, FaultAction::Partition { left: nodes.clone(), right: right.clone() });
        self.push(until, FaultAction::MendPartition { left: nodes, right });
    }

    fn crash(&mut self, at: Duration) {
        if happens(&mut self.rng, ALL_AT_ONCE) {
            for node in self.config.nodes.clone() {
                if self.is_idle(&node, at) {
                    self.push(at, FaultAction::Crash { node: node.clone() });
                    self.restart(at, node);
                }
            }
            return;
        }
        let Some(node) = self.idle_node(at) else { return };
        if happens(&mut self.rng, 0.5) {
            self.push(at, FaultAction::Crash { node: node.clone() });
        } else {
            let operations = 1 + up_to(&mut self.rng, 20);
            self.push(at, FaultAction::CrashAtDiskOperation { node: node.clone(), operations });
        }
        self.restart(at, node);
    }

    fn pause(&mut self, at: Duration) {
        let Some(node) = self.idle_node(at) else { return };
        let until = at + self.spell();
        self.busy.insert(node.clone(), until);
        self.push(at, FaultAction::Pause { node: node.clone() });
        self.push(until, FaultAction::Resume { node });
    }

    fn panic(&mut self, at: Duration) {
        let Some(node) = self.idle_node(at) else { return };
        let actor = self.rng.random();
        // Supervision lets an actor that panics all the time wait longer and longer.
        let until = at + self.spell();
        self.busy.insert(node.clone(), until);
        self.push(at, FaultAction::Panic { node, actor });
    }

    /// A disk is lost, or a bit of it; found at the start that follows, if at all.
    fn damage(&mut self, kind: Fault, at: Duration) {
        if self.disks_damaged >= self.config.disks_damaged_max {
            return;
        }
        let Some(node) = self.idle_node(at) else { return };
        self.disks_damaged += 1;
        self.push(at, FaultAction::Crash { node: node.clone() });
        let action = if kind == Fault::DiskLoss {
            FaultAction::LoseDisk { node: node.clone() }
        } else {
            FaultAction::Rot { node: node.clone() }
        };
        self.push(at, action);
        self.restart(at, node);
    }

    /// A node stops by itself after a failed sync; started again it must have lost nothing.
    fn fail_sync(&mut self, at: Duration) {
        let Some(node) = self.idle_node(at) else { return };
        self.push(at, FaultAction::FailSync { node: node.clone() });
        self.restart(at, node);
    }

    fn fill(&mut self, at: Duration) {
        let Some(node) = self.any_node() else { return };
        let free = up_to(&mut self.rng, FREE_BYTES_MAX);
        let until = at + self.spell();
        self.push(at, FaultAction::FillDisk { node: node.clone(), free });
        self.push(until, FaultAction::FreeDisk { node });
    }

    fn slow(&mut self, at: Duration) {
        let Some(node) = self.any_node() else { return };
        let latency = self.between(Duration::from_millis(2), Duration::from_millis(200));
        let until = at + self.between(Duration::from_millis(100), Duration::from_secs(3));
        let healthy = super::DiskConditions::default();
        let slow = FaultAction::DiskSpeed { node: node.clone(), latency, jitter: latency };
        self.push(at, slow);
        let (latency, jitter) = (healthy.latency, healthy.jitter);
        self.push(until, FaultAction::DiskSpeed { node, latency, jitter });
    }

    fn clock(&mut self, kind: Fault, at: Duration) {
        let Some(node) = self.any_node() else { return };
        let action = if kind == Fault::Drift {
            FaultAction::Drift { node, ppm: self.either_way(self.config.drift_ppm_max) }
        } else {
            FaultAction::Jump { node, ms: self.either_way(JUMP_MS_MAX) }
        };
        self.push(at, action);
    }

    fn restart(&mut self, at: Duration, node: NodeName) {
        let until = at + self.spell();
        self.busy.insert(node.clone(), until);
        self.push(until, FaultAction::Restart { node });
    }

    /// Nothing is left for after the safety phase.
    fn push(&mut self, at: Duration, action: FaultAction) {
        let sequence = self.actions.len() as u64;
        self.actions.insert((at.min(self.config.safety), sequence), action);
    }

    fn any_node(&mut self) -> Option<NodeName> {
        let at = self.pick(self.config.nodes.len());
        self.config.nodes.get(at).cloned()
    }

    fn idle_node(&mut self, at: Duration) -> Option<NodeName> {
        self.any_node().filter(|node| self.is_idle(node, at))
    }

    fn is_idle(&self, node: &NodeName, at: Duration) -> bool {
        self.busy.get(node).is_none_or(|until| *until < at)
    }

    fn pair(&mut self) -> Option<(NodeName, NodeName)> {
        let (from, to) = (self.any_node()?, self.any_node()?);
        (from != to).then_some((from, to))
    }

    /// How long a fault lasts: mostly short, sometimes longer than any timeout.
    fn spell(&mut self) -> Duration {
        let most = if happens(&mut self.rng, 0.25) { SPELL_MS_MAX } else { SPELL_MS_MAX / 10 };
        Duration::from_millis(20 + up_to(&mut self.rng, most))
    }

    fn between(&mut self, least: Duration, most: Duration) -> Duration {
        let micros = u64::try_from((most - least).as_micros()).unwrap_or(u64::MAX);
        least + Duration::from_micros(up_to(&mut self.rng, micros))
    }

    fn either_way(&mut self, most: i64) -> i64 {
        self.rng.random_range(-most..=most)
    }

    /// A place in a list of `len`.
    fn pick(&mut self, len: usize) -> usize {
        let place = up_to(&mut self.rng, (len as u64).saturating_sub(1));
        usize::try_from(place).unwrap_or(0)
    }
}

/// The faults that are drawn together.
const WEATHER: [Fault; 3] = [Fault::Loss, Fault::Duplication, Fault::Reorder];
/// More loss than this only breaks connections faster than they can be made.
const LOSS_MAX: f64 = 0.05;
/// The largest chance of duplicates and of overtaking.
const REPEAT_MAX: f64 = 0.2;
/// How often a crash is a power cut of all nodes.
const ALL_AT_ONCE: f64 = 0.08;
/// The longest fault: beyond the network's idle timeout and the protocols' leases.
const SPELL_MS_MAX: u64 = 9_000;
/// A disk that fills up has at most so much left: a few batches.
const FREE_BYTES_MAX: u64 = 512 * 1024;
/// The largest jump of a wall clock, either way: an hour.
const JUMP_MS_MAX: i64 = 3_600_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> NemesisConfig {
        let nodes = ["a", "b", "x"].map(|name| name.parse().unwrap());
        NemesisConfig { safety: Duration::from_secs(300), ..NemesisConfig::new(&nodes) }
    }

    fn schedule(seed: u64, config: &NemesisConfig) -> Vec<(Duration, FaultAction)> {
        Nemesis::new(seed, config).collect()
    }

    #[test]
    fn the_same_seed_gives_the_same_schedule() {
        assert_eq!(schedule(1, &config()), schedule(1, &config()));
        assert_ne!(schedule(1, &config()), schedule(2, &config()));
    }

    #[test]
    fn every_stopped_node_is_started_and_all_ends_with_the_safety_phase() {
        for seed in 0..50 {
            let actions = schedule(seed, &config());
            let total: Duration = actions.iter().map(|(pause, _)| *pause).sum();
            assert_eq!(total, config().safety);
            let mut down: BTreeMap<NodeName, bool> = BTreeMap::new();
            let mut lost = 0;
            for (_, action) in actions {
                match action {
                    FaultAction::Crash { node } => {
                        assert_ne!(down.insert(node, true), Some(true), "stopped twice");
                    }
                    FaultAction::Restart { node } => drop(down.insert(node, false)),
                    FaultAction::LoseDisk { node } => {
                        assert_eq!(down.get(&node), Some(&true), "an open disk was lost");
                        lost += 1;
                    }
                    _ => {}
                }
            }
            assert!(down.values().all(|down| !down), "seed {seed} left {down:?}");
            assert!(lost <= config().disks_damaged_max);
        }
    }

    #[test]
    fn only_what_the_plan_names_happens() {
        let plan = "crash".parse().unwrap();
        for (_, action) in schedule(3, &NemesisConfig { plan, ..config() }) {
            assert!(matches!(
                action,
                FaultAction::Crash { .. }
                    | FaultAction::CrashAtDiskOperation { .. }
                    | FaultAction::Restart { .. }
                    | FaultAction::Heal
            ));
        }
        let plan = FaultPlan::none();
        assert_eq!(schedule(3, &NemesisConfig { plan, ..config() }).len(), 1, "only Heal");
    }
}
