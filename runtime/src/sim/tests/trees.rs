//! A tree with a child on another node, over the simulated ports.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::SeqCst},
    },
    time::Duration,
};

use actix::{Actor, Context, Handler, Message};
use serde::{Deserialize, Serialize};

use super::names;
use crate::{
    address::RemoteAddr,
    identity::Incarnation,
    message::{RemoteActor, RemoteMessage},
    node::{LOST_AFTER, Node, NodeConfig},
    registry::watch::Reason,
    sim::{FaultAction, Nemesis, NemesisConfig, Simulation},
    supervision::{Fault, Strategy, Supervisor, Tree},
    world::World,
};

/// Counts from the number it was built with.
#[derive(RemoteActor)]
#[remote(name = "counter", handles(Next), crate = "crate")]
struct Counter {
    next: u32,
    living: Arc<AtomicU32>,
}

impl Actor for Counter {
    type Context = Context<Self>;
}

impl Drop for Counter {
    fn drop(&mut self) {
        self.living.fetch_sub(1, SeqCst);
    }
}

#[derive(Debug, Message, Serialize, Deserialize, RemoteMessage)]
#[rtype(result = "u32")]
#[remote(name = "counter.next", crate = "crate")]
struct Next;

impl Handler<Next> for Counter {
    type Result = u32;

    fn handle(&mut self, _: Next, _: &mut Self::Context) -> u32 {
        self.next += 1;
        self.next
    }
}

fn start(sim: &Simulation, at: usize, world: World, living: &Arc<AtomicU32>) -> Node {
    let name = names()[at].clone();
    let config = NodeConfig {
        listen: "0.0.0.0:0".parse().unwrap(),
        ..NodeConfig::new("bank".parse().unwrap(), name.clone(), Incarnation(at as u64))
    };
    let node = Node::start(world, config).unwrap();
    for peer in names().iter().filter(|peer| **peer != name) {
        node.links().connect(peer, &sim.address(peer));
    }
    let living = Arc::clone(living);
    node.offer("counter", move |next: u32| {
        living.fetch_add(1, SeqCst);
        Counter { next, living: Arc::clone(&living) }
    })
    .unwrap();
    node
}

async fn pass(ms: u64) {
    tokio::time::sleep(Duration::from_millis(ms)).await;
}

/// Two nodes; a tree on the first with a child of each.
struct Cluster {
    a: Node,
    b: Node,
    tree: Tree,
    living: Arc<AtomicU32>,
}

async fn cluster(sim: &Simulation) -> Cluster {
    let living = Arc::<AtomicU32>::default();
    let [a, b] = [0, 1].map(|at| start(sim, at, sim.world(&names()[at]), &living));
    let counted = Arc::clone(&living);
    let tree = Supervisor::tree("t")
        .strategy(Strategy::RestForOne)
        .child_at(b.name(), "far", "counter", &100)
        .child("near", move || {
            counted.fetch_add(1, SeqCst);
            Counter { next: 0, living: Arc::clone(&counted) }
        });
    let tree = tree.restarts(5, Duration::from_secs(60)).start(&a).unwrap();
    pass(1_000).await;
    Cluster { a, b, tree, living }
}

fn far(cluster: &Cluster) -> RemoteAddr<Counter> {
    cluster.a.lookup("t/far").unwrap()
}

#[test]
fn a_child_on_another_node_is_begun_anew_when_it_fails_and_ends_with_its_tree() {
    Simulation::new(1).run(|sim| async move {
        let cluster = cluster(&sim).await;
        let (addr, near) = (far(&cluster), cluster.tree.addr::<Counter>("near").unwrap());
        assert_eq!(addr.node(), cluster.b.id());
        assert_eq!(addr.send(Next).await, Ok(101));
        assert_eq!(near.send(Next).await, Ok(1));
        cluster.b.inject("t/far", Fault::Panic);
        pass(1_000).await;
        assert_eq!(addr.send(Next).await, Ok(101), "another life behind the same address");
        assert_eq!(near.send(Next).await, Ok(1), "and the rest with it");
        assert_eq!(cluster.living.load(SeqCst), 2);

        let stopping = cluster.tree.stop(Duration::from_secs(5));
        assert!(stopping.await);
        pass(1_000).await;
        assert_eq!(cluster.living.load(SeqCst), 0);
        assert!(cluster.b.registry().is_empty());
    });
}

#[test]
fn a_lost_node_is_told_to_the_tree_and_its_child_is_begun_on_the_next_life_of_it() {
    Simulation::new(1).run(|sim| async move {
        let cluster = cluster(&sim).await;
        let near = cluster.tree.addr::<Counter>("near").unwrap();
        assert_eq!(near.send(Next).await, Ok(1));
        sim.crash(cluster.b.name());
        cluster.b.abort_all();
        pass(2_000).await;
        let world = sim.restart(cluster.b.name());
        let b = start(&sim, 1, world, &cluster.living);
        pass(3_000).await;
        assert_eq!(far(&cluster).node(), b.id());
        assert_eq!(far(&cluster).send(Next).await, Ok(101));
        assert_eq!(near.send(Next).await, Ok(1), "the rest went with it");

        sim.crash(b.name());
        b.abort_all();
        let reason = cluster.tree.watch().await.reason;
        assert!(matches!(&reason, Reason::GaveUp { why } if why.contains("lost")), "{reason}");
        assert!(!near.connected());
    });
}

#[test]
fn a_child_whose_tree_s_node_is_lost_ends_by_itself() {
    Simulation::new(1).run(|sim| async move {
        let cluster = cluster(&sim).await;
        assert_eq!(cluster.living.load(SeqCst), 2);
        sim.crash(cluster.a.name());
        cluster.a.abort_all();
        pass(1_000).await;
        assert_eq!(cluster.living.load(SeqCst), 1, "it may come back");
        tokio::time::sleep(LOST_AFTER * 4).await;
        assert_eq!(cluster.living.load(SeqCst), 0);
        assert!(cluster.b.registry().is_empty());
    });
}

#[test]
fn a_flapping_link_ends_no_child_and_a_kind_that_nobody_offers_is_a_failure() {
    Simulation::new(1).run(|sim| async move {
        let cluster = cluster(&sim).await;
        assert_eq!(far(&cluster).send(Next).await, Ok(101));
        for _ in 0..20 {
            sim.break_connections(cluster.a.name(), cluster.b.name());
            pass(900).await;
        }
        assert_eq!(far(&cluster).send(Next).await, Ok(102));
        let odd = Supervisor::tree("odd").child_at(cluster.b.name(), "x", "nothing", &());
        let odd = odd.start(&cluster.a).unwrap();
        let reason = odd.watch().await.reason;
        assert!(matches!(&reason, Reason::GaveUp { why } if why.contains("offers no nothing")));
        // Its own node's loss reaches the tree as well when the link stays away.
        sim.partition(&names()[..1], &names()[1..2]);
        assert!(matches!(cluster.tree.watch().await.reason, Reason::GaveUp { .. }));
        sim.heal_network();
        pass(30_000).await;
        assert_eq!(cluster.living.load(SeqCst), 0, "and the child there was ended, too");
    });
}

/// A tree with a child on another node under faults of network and machines (not its own), with
/// panics of the child meanwhile; answers how often its node was started anew.
fn supervised_under_faults(seed: u64) -> u32 {
    Simulation::new(seed).run(|sim| async move {
        let (living, mut starts) = (Arc::<AtomicU32>::default(), 0);
        let [a, b] = [0, 1].map(|at| start(&sim, at, sim.world(&names()[at]), &living));
        let far = b.name().clone();
        let tree = Supervisor::tree("t").child_at(&far, "far", "counter", &0);
        let tree = tree.restarts(u32::MAX, Duration::from_secs(1)).start(&a).unwrap();
        let plan = "loss,duplication,reorder,cut,clog,partition,crash,pause,panic,jump";
        let config = NemesisConfig {
            plan: plan.parse().unwrap(),
            safety: Duration::from_secs(60),
            ..NemesisConfig::new(&names())
        };
        let mut node = Some(b);
        for (pause, action) in Nemesis::new(seed, &config) {
            tokio::time::sleep(pause).await;
            let faulty = match &action {
                FaultAction::Crash { node } | FaultAction::Restart { node } => Some(node),
                _ => None,
            };
            if faulty.is_some_and(|faulty| *faulty != far) {
                continue;
            }
            sim.apply(&action);
            if matches!(action, FaultAction::Crash { .. })
                && let Some(node) = node.take()
            {
                node.abort_all();
            } else if matches!(action, FaultAction::Restart { .. }) {
                if let Some(node) = node.take() {
                    node.abort_all();
                }
                // What a crash left is gone before the next process begins.
                tokio::task::yield_now().await;
                starts += 1;
                node = Some(start(&sim, 1, sim.restart(&far), &living));
            } else if let (FaultAction::Panic { .. }, Some(node)) = (&action, &node) {
                node.inject("t/far", Fault::Panic);
            }
            assert!(living.load(SeqCst) <= 1, "seed {seed}: two lives of one child");
        }
        sim.heal();
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(living.load(SeqCst), 1, "seed {seed}: the child is there again");
        assert!(tree.stop(Duration::from_secs(10)).await, "seed {seed}");
        tokio::time::sleep(Duration::from_secs(30)).await;
        assert_eq!(living.load(SeqCst), 0, "seed {seed}: and ends with its tree");
        starts
    })
}

#[test]
fn a_child_on_another_node_lives_once_whatever_happens_between_them() {
    let starts: u32 = (0..15).map(supervised_under_faults).sum();
    assert!(starts > 15, "only {starts} crashes");
}
