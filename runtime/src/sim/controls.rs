//! The faults of a simulation, one method each.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use super::{DiskConditions, DiskTraffic, FaultAction, Simulation, Traffic, Weather};
use crate::{identity::NodeName, world::network::Lane};

impl Simulation {
    /// Sets how all paths behave that have no weather of their own.
    pub fn set_weather(&self, weather: Weather) {
        self.hub.net.set_weather(weather);
    }

    /// Sets the weather there is when nothing is wrong: from now on, and again after every
    /// [`Simulation::heal`].
    pub fn set_climate(&self, climate: Weather) {
        self.hub.net.set_climate(climate);
    }

    /// The weather there is when nothing is wrong.
    pub fn climate(&self) -> Weather {
        self.hub.net.climate()
    }

    /// Gives the path `from` → `to` a weather of its own.
    pub fn set_path_weather(&self, from: &NodeName, to: &NodeName, weather: Weather) {
        self.hub.net.set_path_weather(&self.node(from).machine, &self.node(to).machine, weather);
    }

    /// Nothing passes from `from` to `to` any more; the other direction stays as it is.
    pub fn cut(&self, from: &NodeName, to: &NodeName) {
        self.hub.net.set_cut(&self.node(from).machine, &self.node(to).machine, true);
    }

    /// Mends a cut `from` → `to`.
    pub fn mend(&self, from: &NodeName, to: &NodeName) {
        self.hub.net.set_cut(&self.node(from).machine, &self.node(to).machine, false);
    }

    /// Cuts every path between the two sides, both ways.
    pub fn partition(&self, left: &[NodeName], right: &[NodeName]) {
        self.set_partition(left, right, true);
    }

    /// Mends every path between the two sides.
    pub fn mend_partition(&self, left: &[NodeName], right: &[NodeName]) {
        self.set_partition(left, right, false);
    }

    /// Makes everything from `from` to `to` up to `extra` later, for as long as `lasting`.
    pub fn clog(&self, from: &NodeName, to: &NodeName, extra: Duration, lasting: Duration) {
        let (from, to) = (self.node(from), self.node(to));
        self.hub.net.clog(&from.machine, &to.machine, extra, lasting);
    }

    /// Mends all cuts, partitions and clogs; the weather stays.
    pub fn heal_network(&self) {
        self.hub.net.heal();
    }

    /// Breaks every connection between two nodes; both hear of it at once.
    pub fn break_connections(&self, one: &NodeName, other: &NodeName) {
        self.hub.net.break_between(&self.node(one).machine, &self.node(other).machine);
    }

    /// What went from one node to another on a lane.
    pub fn traffic(&self, from: &NodeName, to: &NodeName, lane: Lane) -> Traffic {
        self.hub.net.traffic(&self.node(from).machine, &self.node(to).machine, Some(lane))
    }

    /// What went from one node to another as datagrams.
    pub fn datagrams(&self, from: &NodeName, to: &NodeName) -> Traffic {
        self.hub.net.traffic(&self.node(from).machine, &self.node(to).machine, None)
    }

    /// Holds a node's deliveries and disk completions, and what it sends, until
    /// [`Simulation::resume`]. Its clock and timers go on. A stopped node cannot be paused.
    pub fn pause(&self, node: &NodeName) {
        let node = self.node(node);
        node.machine.pause();
        self.hub.note(&node, "pause", &[]);
    }

    /// Lets happen, now and in order, what was held since [`Simulation::pause`].
    pub fn resume(&self, node: &NodeName) {
        let node = self.node(node);
        self.hub.note(&node, "resume", &[]);
        self.hub.queue.resume(node.machine.resume());
    }

    /// From now on a node's clock runs `ppm` parts per million too fast (negative: too slow).
    ///
    /// # Panics
    /// Beyond ± [`DRIFT_PPM_MAX`](super::DRIFT_PPM_MAX).
    pub fn set_drift(&self, node: &NodeName, ppm: i64) {
        self.node(node).clock.set_drift(ppm);
    }

    /// Moves a node's wall clock by `ms` milliseconds; its monotonic clock goes on evenly.
    pub fn jump_wall(&self, node: &NodeName, ms: i64) {
        self.node(node).clock.jump(ms);
    }

    /// How a node's disk behaves.
    pub fn disk_conditions(&self, node: &NodeName) -> DiskConditions {
        self.node(node).store.conditions()
    }

    /// Sets how a node's disk behaves.
    pub fn set_disk_conditions(&self, node: &NodeName, conditions: DiskConditions) {
        self.node(node).store.set_conditions(conditions);
    }

    /// What a node's disk did.
    pub fn disk_traffic(&self, node: &NodeName) -> DiskTraffic {
        self.node(node).store.traffic()
    }

    /// All bytes of all files of a node.
    pub fn disk_used(&self, node: &NodeName) -> u64 {
        self.node(node).store.used()
    }

    /// The paths of all files of a node, sorted.
    pub fn files(&self, node: &NodeName) -> Vec<PathBuf> {
        self.node(node).store.names()
    }

    /// What would surely be left of a node's file after a crash.
    pub fn durable_bytes(&self, node: &NodeName, path: &Path) -> Option<Vec<u8>> {
        self.node(node).store.durable(path)
    }

    /// The node stops in the midst of its `operations`-th disk operation from now, counted from 1;
    /// [`Simulation::next_crash`] tells.
    pub fn crash_at_disk_operation(&self, node: &NodeName, operations: u64) {
        self.node(node).store.crash_at(operations);
    }

    /// The node's next sync of a file fails.
    pub fn fail_next_sync(&self, node: &NodeName) {
        self.node(node).store.fail_next_sync();
    }

    /// The node's next write to a file whose path contains `which` goes to another place of it, and
    /// the disk says that all is well.
    pub fn misdirect_next_write(&self, node: &NodeName, which: &str) {
        self.node(node).store.misdirect_next_write(which);
    }

    /// Gives a node another, empty disk. Crash it first: open files are gone.
    pub fn lose_disk(&self, node: &NodeName) {
        let node = self.node(node);
        node.store.lose();
        self.hub.note(&node, "lose disk", &[]);
    }

    /// Flips one durable bit of one file whose path contains `which`; answers where, or nothing if
    /// there was no bit to flip.
    pub fn rot(&self, node: &NodeName, which: &str) -> Option<(PathBuf, u64)> {
        let node = self.node(node);
        let rotten = node.store.rot(which)?;
        self.hub.note(&node, "rot", &[rotten.1]);
        Some(rotten)
    }

    /// Does what a [`Nemesis`](super::Nemesis) wants. For [`FaultAction::Crash`] the caller must
    /// drop the node's tasks afterwards. [`FaultAction::Restart`] (it needs the new world) and
    /// [`FaultAction::Panic`] (only the caller knows the actors) are the caller's alone and do
    /// nothing here.
    pub fn apply(&self, action: &FaultAction) {
        match action {
            FaultAction::Weather(weather) => self.set_weather(*weather),
            FaultAction::Cut { from, to } => self.cut(from, to),
            FaultAction::Mend { from, to } => self.mend(from, to),
            FaultAction::Partition { left, right } => self.partition(left, right),
            FaultAction::MendPartition { left, right } => self.mend_partition(left, right),
            FaultAction::Clog { from, to, extra, lasting } => {
                self.clog(from, to, *extra, *lasting);
            }
            FaultAction::Crash { node } => self.crash(node),
            FaultAction::CrashAtDiskOperation { node, operations } => {
                self.crash_at_disk_operation(node, *operations);
            }
            FaultAction::Restart { .. } | FaultAction::Panic { .. } => {}
            FaultAction::Pause { node } => self.pause(node),
            FaultAction::Resume { node } => self.resume(node),
            FaultAction::LoseDisk { node } => self.lose_disk(node),
            FaultAction::Rot { node } => drop(self.rot(node, "")),
            FaultAction::FailSync { node } => self.fail_next_sync(node),
            FaultAction::FillDisk { node, free } => {
                let capacity = Some(self.disk_used(node).saturating_add(*free));
                let conditions = self.disk_conditions(node);
                self.set_disk_conditions(node, DiskConditions { capacity, ..conditions });
            }
            FaultAction::FreeDisk { node } => {
                let conditions = self.disk_conditions(node);
                self.set_disk_conditions(node, DiskConditions { capacity: None, ..conditions });
            }
            FaultAction::DiskSpeed { node, latency, jitter } => {
                let (latency, jitter) = (*latency, *jitter);
                let conditions = self.disk_conditions(node);
                self.set_disk_conditions(node, DiskConditions { latency, jitter, ..conditions });
            }
            FaultAction::Drift { node, ppm } => self.set_drift(node, *ppm),
            FaultAction::Jump { node, ms } => self.jump_wall(node, *ms),
            FaultAction::Heal => self.heal(),
        }
    }

    /// Ends all faults of network, disks and pauses; stopped nodes stay stopped, clocks keep their
    /// drift, and lost bytes stay lost.
    pub fn heal(&self) {
        self.hub.net.calm();
        self.heal_network();
        let names: Vec<NodeName> = super::lock(&self.hub.nodes).keys().cloned().collect();
        for name in names {
            self.resume(&name);
            self.set_disk_conditions(&name, DiskConditions::default());
            self.node(&name).store.forgive();
        }
    }

    fn set_partition(&self, left: &[NodeName], right: &[NodeName], cut: bool) {
        for (one, other) in left.iter().flat_map(|l| right.iter().map(move |r| (l, r))) {
            let (one, other) = (self.node(one), self.node(other));
            self.hub.net.set_cut(&one.machine, &other.machine, cut);
            self.hub.net.set_cut(&other.machine, &one.machine, cut);
        }
    }
}
