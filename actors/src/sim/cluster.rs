//! A cluster of real nodes in a simulated world.

use std::{collections::BTreeMap, fmt, path::PathBuf, str::FromStr, sync::Arc};

use synod_runtime::{
    identity::{NodeId, NodeName},
    journal::Durability,
    sim::{PORT_DEFAULT, Simulation},
    supervision::Fault,
};

use super::doors::Doors;
use crate::{
    consensus::{
        message::NodeRole,
        timing::{Timing, VoteStyle},
    },
    replicated::{Host, Replicated, Submit},
    server::{
        core::{Core, CoreConfig, CoreError, Machines},
        passive::SharedObject,
        registers::RolesIn,
    },
};

/// How many nodes of each kind a cluster has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Nodes that hold all data and serve clients: `a`, `b`, …
    pub mains: u8,
    /// Nodes that vote only while a main is missing: `x`, `y`, `z`.
    pub auxiliaries: u8,
    /// Nodes that follow the log and never vote: `m1`, `m2`, …
    pub members: u8,
}

impl Shape {
    /// The shape that `synod simulate` gives a seed: two mains and an auxiliary every other time,
    /// else three mains with two auxiliaries or none; one member in half of all.
    pub const fn of_seed(seed: u64) -> Self {
        let members = if seed & 8 != 0 { 1 } else { 0 };
        match seed & 3 {
            0 | 1 => Self { mains: 2, auxiliaries: 1, members },
            2 => Self { mains: 3, auxiliaries: 2, members },
            _ => Self { mains: 3, auxiliaries: 0, members },
        }
    }
}

/// `2+1`, and with members `2+1+3`.
impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { mains, auxiliaries, members } = self;
        write!(f, "{mains}+{auxiliaries}")?;
        if *members > 0 { write!(f, "+{members}") } else { Ok(()) }
    }
}

impl FromStr for Shape {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |_number| format!("{text:?} is no shape; write MAINS+AUXILIARIES, such as 3+2");
        let numbers: Vec<u8> =
            text.split('+').map(str::parse).collect::<Result<_, _>>().map_err(wrong)?;
        let (mains, auxiliaries, members) = match numbers[..] {
            [mains, auxiliaries] => (mains, auxiliaries, 0),
            [mains, auxiliaries, members] => (mains, auxiliaries, members),
            _ => return Err(format!("{text:?} is no shape; write MAINS+AUXILIARIES, such as 3+2")),
        };
        // As many letters as there are from each first one.
        if !(1..=7).contains(&mains) || auxiliaries > 3 || members > 7 {
            let most = "one to seven mains, at most three auxiliaries and seven members";
            return Err(format!("{text:?}: a simulated cluster has {most}"));
        }
        Ok(Self { mains, auxiliaries, members })
    }
}

impl Default for Shape {
    /// Two mains and an auxiliary.
    fn default() -> Self {
        Self { mains: 2, auxiliaries: 1, members: 0 }
    }
}

/// The nodes of one cluster, each running or not.
///
/// ```
#[doc = include_str!("../../docs/examples/counter.txt")]
/// use synod::sim::{Blueprint, Cluster, Shape, Simulation};
///
/// Simulation::new(7).run(|sim| async move {
///     let blueprint = Blueprint::hosting::<Counter>("counter");
///     let mut cluster = Cluster::new(&sim, Shape::default(), blueprint);
///     cluster.start_all().unwrap();
///     while cluster.is_whole().is_err() {
///         tokio::time::sleep(std::time::Duration::from_millis(10)).await;
///     }
///     let [a, b] = ["a", "b"].map(|name| name.parse().unwrap());
///     let counter = Handle::<Counter>::new(cluster.client(&a), "counter");
///     assert_eq!(counter.send(Add(1)).await, Ok(1));
///     cluster.crash(&a); // calls go to b from now on
///     assert_eq!(counter.query(Total).await, Ok(1));
///     assert!(cluster.core(&b).is_some());
/// });
/// ```
pub struct Cluster {
    sim: Simulation,
    blueprint: Blueprint,
    places: BTreeMap<NodeName, Place>,
    /// The ways in at the mains that run.
    doors: Doors,
}

/// What all nodes have in common. Change it before the first start.
#[derive(Clone)]
pub struct Blueprint {
    /// How patient the roles are.
    pub timing: Timing,
    /// How a leader's vote travels.
    pub style: VoteStyle,
    /// What must survive a power loss.
    pub durability: Durability,
    /// Bytes of a journal segment; small, so that segments come and go within a short run.
    pub segment_bytes: u64,
    /// Bytes of log between snapshots; small, so that there are many.
    pub snapshot_log_bytes: u64,
    /// The replicated actors.
    pub machines: Machines,
    /// Auxiliaries without a machine, beside those of the shape.
    pub passive: BTreeMap<NodeName, Arc<dyn SharedObject>>,
    /// Where roles are kept.
    pub roles: RolesIn,
}

/// Where a node of the cluster runs, or ran.
struct Place {
    role: NodeRole,
    /// Whether it is of the first configuration.
    founds: bool,
    core: Option<Core>,
    /// How often it was started.
    lives: u64,
    /// What it hosts, where that is not what the blueprint says.
    machines: Option<Machines>,
}

impl Blueprint {
    /// The defaults, hosting `machines`.
    pub fn new(machines: Machines) -> Self {
        Self {
            timing: Timing::default(),
            style: VoteStyle::Split,
            durability: Durability::Fsync,
            segment_bytes: 256 * 1024,
            snapshot_log_bytes: 192 * 1024,
            machines,
            passive: BTreeMap::new(),
            roles: RolesIn::Log,
        }
    }

    /// The defaults, hosting the replicated actor `A` as `name`.
    pub fn hosting<A: Replicated + 'static>(name: &'static str) -> Self {
        Self::new(Arc::new(move || vec![Box::new(Host::<A>::new(name))]))
    }
}

impl Cluster {
    /// A cluster whose nodes are still to be started.
    pub fn new(sim: &Simulation, shape: Shape, blueprint: Blueprint) -> Self {
        let letters = |first: u8, count| {
            (0..count).map(move |n| char::from(first + n).to_string()).collect::<Vec<_>>()
        };
        let members = (1..=shape.members).map(|n| format!("m{n}")).collect();
        let places = [
            (NodeRole::Main, letters(b'a', shape.mains)),
            (NodeRole::Auxiliary, letters(b'x', shape.auxiliaries)),
            (NodeRole::Member, members),
        ]
        .into_iter()
        .flat_map(|(role, names)| names.into_iter().map(move |name| (role, name)))
        .map(|(role, name)| {
            let name: NodeName = name.parse().expect("a letter, or a letter and a number");
            (name, Place { role, founds: true, core: None, lives: 0, machines: None })
        })
        .collect();
        Self { sim: sim.clone(), blueprint, places, doors: Doors::default() }
    }

    /// Starts every node that does not run.
    ///
    /// # Errors
    /// The first that could not start, and why; it is stopped, the others go on.
    pub fn start_all(&mut self) -> Result<(), (NodeName, CoreError)> {
        for name in self.names() {
            if self.core(&name).is_none() {
                self.start(&name).map_err(|error| (name, error))?;
            }
        }
        Ok(())
    }

    /// Starts a node, stopping it first if it runs: a new life, with the disk and the clock it had.
    ///
    /// # Errors
    /// Why it could not; then it is stopped.
    pub fn start(&mut self, name: &NodeName) -> Result<(), CoreError> {
        self.crash(name);
        let world = self.sim.restart(name);
        let config = self.config(name);
        self.place(name).lives += 1;
        match Core::start(world, config) {
            Ok(core) => {
                let place = self.place(name);
                let (role, way) = (place.role, core.submit());
                place.core = Some(core);
                if role == NodeRole::Main {
                    self.doors.open(name, way);
                }
                Ok(())
            }
            Err(error) => {
                self.sim.crash(name);
                Err(error)
            }
        }
    }

    /// Stops a node as a power cut would. One that does not run is left alone.
    pub fn crash(&mut self, name: &NodeName) {
        // First the ports refuse, then the tasks go: nothing can be said or written in between.
        self.sim.crash(name);
        self.doors.close(name);
        if let Some(core) = self.place(name).core.take() {
            core.crash();
        }
    }

    /// Starts one more node, which waits until the cluster is told to take it; see [`Core::wish`].
    ///
    /// # Errors
    /// Why it could not start.
    pub fn add(&mut self, name: &NodeName, role: NodeRole) -> Result<(), CoreError> {
        self.expect(name, role);
        self.start(name)
    }

    /// One more node that is still to be started; see [`Cluster::add`].
    pub fn expect(&mut self, name: &NodeName, role: NodeRole) {
        let place = Place { role, founds: false, core: None, lives: 0, machines: None };
        self.places.entry(name.clone()).or_insert(place);
    }

    /// What a node is to be from now on, once the cluster was told: a member becomes a main, or a
    /// main a member; see [`Core::wish`].
    pub fn assign(&mut self, name: &NodeName, role: NodeRole) {
        let place = self.place(name);
        place.role = role;
        match place.core.as_ref().map(Core::submit).filter(|_| role == NodeRole::Main) {
            Some(way) => self.doors.open(name, way),
            None => self.doors.close(name),
        }
    }

    /// From its next start on a node runs another build, one that hosts `machines`.
    pub fn install(&mut self, name: &NodeName, machines: Machines) {
        self.place(name).machines = Some(machines);
    }

    /// Stops a node for good: nobody expects it any more.
    pub fn forget(&mut self, name: &NodeName) {
        self.crash(name);
        self.places.remove(name);
    }

    /// Takes a running node out, to be stopped in good order by [`Core::hand_over`] and
    /// [`Core::leave`]; started again, it has the disk it had.
    pub fn take(&mut self, name: &NodeName) -> Option<Core> {
        self.place(name).core.take()
    }

    /// Stops a node and gives it another, empty disk: started again, it is another node.
    pub fn lose(&mut self, name: &NodeName) {
        self.crash(name);
        self.sim.lose_disk(name);
    }

    /// Lets one of a node's roles panic; answers which, if it runs there.
    pub fn stumble(&self, name: &NodeName, number: u64) -> Option<&'static str> {
        let roles: &[&str] = match self.places.get(name)?.role {
            NodeRole::Main | NodeRole::Member => {
                &["acceptor", "proposer", "learner", "replica", "home"]
            }
            NodeRole::Auxiliary => &["auxiliary"],
        };
        let place = usize::try_from(number % roles.len() as u64).unwrap_or(0);
        let role = roles[place];
        self.core(name)?.inject(role, Fault::Panic).then_some(role)
    }

    /// A node, while it runs.
    pub fn core(&self, name: &NodeName) -> Option<&Core> {
        self.places.get(name)?.core.as_ref()
    }

    /// The way into the log for a client of the main `first`: there while it runs, else at another
    /// main. It holds for as long as the cluster does.
    ///
    /// # Panics
    /// When the cluster has no such main.
    pub fn client(&self, first: &NodeName) -> Arc<dyn Submit> {
        let role = self.places.get(first).map(|place| place.role);
        assert_eq!(role, Some(NodeRole::Main), "the cluster has no main {first}");
        self.doors.door(first)
    }

    /// The way into the log at a node, in its present life.
    pub fn submit(&self, name: &NodeName) -> Option<Arc<dyn Submit>> {
        self.core(name).map(Core::submit)
    }

    /// How often a node was started.
    pub fn lives(&self, name: &NodeName) -> u64 {
        self.places.get(name).map_or(0, |place| place.lives)
    }

    /// All nodes.
    pub fn names(&self) -> Vec<NodeName> {
        self.places.keys().cloned().collect()
    }

    /// The nodes of a role.
    pub fn with_role(&self, role: NodeRole) -> Vec<NodeName> {
        let places = self.places.iter().filter(|(_, place)| place.role == role);
        places.map(|(name, _)| name.clone()).collect()
    }

    /// The nodes that hold all data.
    pub fn mains(&self) -> Vec<NodeName> {
        self.with_role(NodeRole::Main)
    }

    /// The simulated world.
    pub fn sim(&self) -> &Simulation {
        &self.sim
    }

    /// Whether every node runs, every main serves, all of them are in the configuration, and no
    /// auxiliary holds a vote; else what is missing.
    ///
    /// # Errors
    /// What is missing, for people.
    pub fn is_whole(&self) -> Result<(), String> {
        let mut expected: BTreeMap<NodeRole, Vec<NodeId>> = BTreeMap::new();
        for (name, place) in &self.places {
            let core = place.core.as_ref().ok_or_else(|| format!("{name} does not run"))?;
            core.ready().map_err(|why| format!("{name}: {why}"))?;
            expected.entry(place.role).or_default().push(core.node().id().clone());
        }
        let mut expected = |role| expected.remove(&role).unwrap_or_default();
        let (mains, auxiliaries) =
            (sorted(&expected(NodeRole::Main)), sorted(&expected(NodeRole::Auxiliary)));
        for (name, place) in &self.places {
            let Some(core) = &place.core else { continue };
            let reached = core.reached();
            if let Some(step) = reached.holds {
                return Err(format!("{name} still holds a vote for step {step}"));
            }
            let Some(known) = reached.configuration.filter(|_| place.role == NodeRole::Main) else {
                continue;
            };
            let known_auxiliaries: Vec<NodeId> = known
                .auxiliaries
                .iter()
                .filter(|node| !self.blueprint.passive.contains_key(&node.name))
                .cloned()
                .collect();
            if sorted(&known.mains) != mains || sorted(&known_auxiliaries) != auxiliaries {
                return Err(format!(
                    "{name} knows mains {:?}, auxiliaries {:?}, absent {:?}",
                    known.mains, known.auxiliaries, known.absent
                ));
            }
        }
        Ok(())
    }

    fn place(&mut self, name: &NodeName) -> &mut Place {
        let known = self.places.get_mut(name);
        known.unwrap_or_else(|| panic!("the cluster has no node {name}"))
    }

    fn config(&self, name: &NodeName) -> CoreConfig {
        let Blueprint {
            timing,
            style,
            durability,
            segment_bytes,
            snapshot_log_bytes,
            machines,
            passive,
            roles,
        } = self.blueprint.clone();
        let machines = self.places[name].machines.clone().unwrap_or(machines);
        let others = self.places.keys().filter(|other| *other != name);
        // The file of a node that joins later names all that there are by then.
        let joins = !self.places[name].founds;
        let listed = self.places.iter().filter(|(other, place)| match joins {
            true => *other != name,
            false => place.founds,
        });
        CoreConfig {
            cluster: "simulated".parse().expect("a name"),
            name: name.clone(),
            role: self.places[name].role,
            data_dir: PathBuf::from("/synod"),
            listen: ([0, 0, 0, 0], PORT_DEFAULT).into(),
            tls: None,
            peers: others.map(|other| (other.clone(), self.sim.address(other))).collect(),
            listed: listed
                .map(|(name, place)| (name.clone(), place.role))
                .chain(passive.keys().map(|name| (name.clone(), NodeRole::Auxiliary)))
                .collect(),
            passive,
            durability,
            timing,
            style,
            segment_bytes,
            snapshot_log_bytes,
            machines,
            roles,
        }
    }
}

fn sorted(nodes: &[NodeId]) -> Vec<NodeId> {
    let mut nodes = nodes.to_vec();
    nodes.sort();
    nodes
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster").field("nodes", &self.places.keys()).finish_non_exhaustive()
    }
}

impl fmt::Debug for Blueprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Blueprint").field("timing", &self.timing).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
