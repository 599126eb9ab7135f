//! Watches and groups of real nodes over the simulated ports.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use actix::{Actor, Addr, Context, Handler};
use rand::RngExt;

use super::{lock, names};
use crate::{
    identity::{Incarnation, NodeId, NodeName},
    message::RemoteActor,
    node::{LOST_AFTER, Node, NodeConfig},
    registry::watch::{Reason, Terminated},
    sim::{FaultAction, Nemesis, NemesisConfig, Simulation},
    world::World,
};

#[derive(RemoteActor)]
#[remote(name = "clerk", handles(), crate = "crate")]
struct Clerk;

impl Actor for Clerk {
    type Context = Context<Self>;
}

/// Writes down what each watch was told, by the number of the watch.
#[derive(Clone, Default)]
struct Diary(Arc<Mutex<BTreeMap<u64, Vec<Terminated>>>>);

struct Scribe(u64, Diary);

impl Actor for Scribe {
    type Context = Context<Self>;
}

impl Handler<Terminated> for Scribe {
    type Result = ();

    fn handle(&mut self, told: Terminated, _: &mut Self::Context) {
        lock(&self.1.0).entry(self.0).or_default().push(told);
    }
}

impl Diary {
    fn of(&self, watch: u64) -> Vec<Reason> {
        let told = lock(&self.0);
        told.get(&watch).into_iter().flatten().map(|told| told.reason.clone()).collect()
    }

    fn watch(&self, number: u64, node: &Node, whom: &NodeId, name: &str) -> Addr<Scribe> {
        let scribe = Scribe(number, self.clone()).start();
        let _handle = node.watch_name(whom, name).notify(scribe.clone().recipient());
        scribe
    }
}

fn start(sim: &Simulation, name: &NodeName, world: World, incarnation: u64) -> Node {
    let config = NodeConfig {
        listen: "0.0.0.0:0".parse().unwrap(),
        ..NodeConfig::new("bank".parse().unwrap(), name.clone(), Incarnation(incarnation))
    };
    let node = Node::start(world, config).unwrap();
    for peer in names().iter().filter(|peer| *peer != name) {
        node.links().connect(peer, &sim.address(peer));
    }
    employ(&node);
    node
}

fn employ(node: &Node) {
    let clerk = node.register("clerk", node.spawn("clerk", || Clerk)).unwrap();
    node.group::<Clerk>("clerks").join(&clerk).unwrap();
}

fn crash(sim: &Simulation, node: &Node) {
    sim.crash(node.name());
    node.abort_all();
}

async fn pass(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

fn clerks(node: &Node) -> Vec<NodeId> {
    node.group::<Clerk>("clerks").members().iter().map(|clerk| clerk.node().clone()).collect()
}

#[test]
fn a_crash_is_told_once_and_a_new_incarnation_is_another_node() {
    Simulation::new(1).run(|sim| async move {
        let [a, b, _] = [0, 1, 2].map(|at| names()[at].clone());
        let (node_a, node_b) =
            (start(&sim, &a, sim.world(&a), 1), start(&sim, &b, sim.world(&b), 2));
        pass(1).await;
        assert_eq!(clerks(&node_a), [node_a.id().clone(), node_b.id().clone()]);
        let (diary, old) = (Diary::default(), node_b.id().clone());
        let _scribe = diary.watch(1, &node_a, &old, "clerk");
        pass(1).await;
        crash(&sim, &node_b);
        drop(node_b);
        pass(60).await;
        assert!(matches!(&diary.of(1)[..], [Reason::NodeLost { .. }]), "{:?}", diary.of(1));
        assert_eq!(clerks(&node_a), [node_a.id().clone()]);

        let world = sim.restart(&b);
        let node_b = start(&sim, &b, world, 3);
        pass(5).await;
        assert_eq!(clerks(&node_a), [node_a.id().clone(), node_b.id().clone()]);
        let _scribe = diary.watch(2, &node_a, &old, "clerk");
        let _scribe = diary.watch(3, &node_a, node_b.id(), "clerk");
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert!(matches!(&diary.of(2)[..], [Reason::NodeLost { .. }]), "the old one, at once");
        pass(60).await;
        assert_eq!(diary.of(3), [], "the new one lives");
        assert_eq!(diary.of(1).len(), 1, "and nothing was told twice");
    });
}

#[test]
fn a_process_that_is_back_before_it_was_missed_has_ended_its_actors() {
    Simulation::new(1).run(|sim| async move {
        let [a, b, _] = [0, 1, 2].map(|at| names()[at].clone());
        let (node_a, node_b) =
            (start(&sim, &a, sim.world(&a), 1), start(&sim, &b, sim.world(&b), 2));
        pass(1).await;
        let (diary, id) = (Diary::default(), node_b.id().clone());
        let _scribe = diary.watch(1, &node_a, &id, "clerk");
        pass(1).await;
        crash(&sim, &node_b);
        drop(node_b);
        let world = sim.restart(&b);
        let _node_b = start(&sim, &b, world, 2);
        pass(3).await;
        let told = diary.of(1);
        assert!(
            matches!(&told[..], [Reason::NodeLost { why }] if why.contains("anew")),
            "{told:?}"
        );
    });
}

#[test]
fn a_flapping_link_ends_no_watch_and_a_lasting_cut_ends_it_once() {
    Simulation::new(1).run(|sim| async move {
        let [a, b, _] = [0, 1, 2].map(|at| names()[at].clone());
        let (node_a, node_b) =
            (start(&sim, &a, sim.world(&a), 1), start(&sim, &b, sim.world(&b), 2));
        pass(1).await;
        let diary = Diary::default();
        let _scribe = diary.watch(1, &node_a, node_b.id(), "clerk");
        for _ in 0..50 {
            sim.break_connections(&a, &b);
            tokio::time::sleep(Duration::from_millis(700)).await;
        }
        assert_eq!(diary.of(1), []);
        sim.partition(std::slice::from_ref(&a), std::slice::from_ref(&b));
        sim.break_connections(&a, &b);
        tokio::time::sleep(LOST_AFTER / 2).await;
        assert_eq!(diary.of(1), []);
        tokio::time::sleep(LOST_AFTER).await;
        assert!(matches!(&diary.of(1)[..], [Reason::NodeLost { .. }]));
        sim.heal_network();
        pass(20).await;
        node_b.stop("clerk");
        pass(20).await;
        assert_eq!(diary.of(1).len(), 1);
    });
}

/// One watch and what is true of whom it watches.
struct Case {
    number: u64,
    by: NodeName,
    whom: NodeName,
    /// Which process of each, counted from 1.
    processes: (u64, u64),
    since: Duration,
    /// Its actor was stopped, when the watch had surely reached it or its node counted as lost;
    /// or else perhaps it, perhaps its successor is watched.
    ended: Option<bool>,
    _scribe: Addr<Scribe>,
}

impl Case {
    fn judge(&self, seed: u64, diary: &Diary, nodes: &BTreeMap<NodeName, (u64, Node)>) {
        let told = diary.of(self.number);
        assert!(told.len() <= 1, "seed {seed}, watch {}: {told:?}", self.number);
        let lives = |name: &NodeName, process| nodes.get(name).is_some_and(|n| n.0 == process);
        if !lives(&self.by, self.processes.0) {
            return;
        }
        let ended = self.ended.map(|ended| ended || !lives(&self.whom, self.processes.1));
        let well = match (ended, &told[..]) {
            (None, _) | (Some(true), [_]) | (Some(false), [] | [Reason::NodeLost { .. }]) => true,
            (Some(_), _) => false,
        };
        assert!(well, "seed {seed}, watch {}: {told:?} for {ended:?}", self.number);
    }
}

/// A link that carries nothing is noticed, and then its node lost, within this time.
const REACHED_WITHIN: Duration = Duration::from_secs(30);

/// Three nodes that watch each other's clerks under all faults of network and machines; clerks are
/// stopped and started anew meanwhile. Answers how many ends were told.
fn watched_under_faults(seed: u64) -> usize {
    Simulation::new(seed).run(|sim| async move {
        let mut rng = sim.world(&names()[0]).entropy.rng("test");
        let mut nodes: BTreeMap<_, _> = names()
            .into_iter()
            .map(|name| (name.clone(), (1, start(&sim, &name, sim.world(&name), 1))))
            .collect();
        let plan = "loss,duplication,reorder,cut,clog,partition,crash,pause,jump".parse().unwrap();
        let safety = Duration::from_secs(90);
        let config = NemesisConfig { plan, safety, ..NemesisConfig::new(&names()) };
        let (diary, mut cases) = (Diary::default(), Vec::<Case>::new());
        for (pause, action) in Nemesis::new(seed, &config) {
            tokio::time::sleep(pause).await;
            sim.apply(&action);
            if let FaultAction::Crash { node } = &action
                && let Some((_, node)) = nodes.remove(node)
            {
                node.abort_all();
            }
            if let FaultAction::Restart { node: name } = &action {
                let process = 2 + cases.len() as u64;
                let world = sim.restart(name);
                if let Some((_, old)) = nodes.remove(name) {
                    old.abort_all();
                }
                // Now with its old disk, now with a new one.
                let incarnation = rng.random_range(1..1_000);
                nodes.insert(name.clone(), (process, start(&sim, name, world, incarnation)));
            }
            let pick = |at: usize| names()[at].clone();
            let (by, whom) = (pick(rng.random_range(0..3)), pick(rng.random_range(0..3)));
            if let (Some((p, node)), Some((q, target))) = (nodes.get(&by), nodes.get(&whom)) {
                let number = cases.len() as u64;
                let _scribe = diary.watch(number, node, target.id(), "clerk");
                let (processes, since, ended) = ((*p, *q), sim.now(), Some(false));
                cases.push(Case {
                    number,
                    by,
                    whom: whom.clone(),
                    processes,
                    since,
                    ended,
                    _scribe,
                });
                if rng.random_bool(0.2) {
                    target.stop("clerk");
                    for case in cases.iter_mut().filter(|case| case.whom == whom) {
                        let reached = sim.now() - case.since > REACHED_WITHIN;
                        case.ended =
                            if reached { Some(true) } else { case.ended.filter(|ended| *ended) };
                    }
                    tokio::time::sleep(Duration::from_millis(1)).await;
                    target.unregister("clerk");
                    employ(target);
                }
            }
        }
        sim.heal();
        pass(60).await;
        for case in &cases {
            case.judge(seed, &diary, &nodes);
        }
        let all: Vec<_> = nodes.values().map(|(_, node)| node.id().clone()).collect();
        for (_, node) in nodes.values() {
            assert_eq!(clerks(node), all, "seed {seed}: {node:?}");
        }
        lock(&diary.0).len()
    })
}

#[test]
fn every_end_is_told_once_whatever_happens_to_networks_and_machines() {
    let told: usize = (0..20).map(watched_under_faults).sum();
    assert!(told > 100, "only {told} ends");
}
