//! Nodes that leave and come back, over the simulated network and its faults.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use super::{lock, names};
use crate::{
    identity::{Incarnation, NodeName},
    node::{Node, NodeConfig, PeerEvent},
    sim::Simulation,
    world::World,
};

fn start(sim: &Simulation, name: &NodeName, world: World) -> Node {
    let config = NodeConfig {
        listen: "0.0.0.0:0".parse().unwrap(),
        ..NodeConfig::new("bank".parse().unwrap(), name.clone(), Incarnation(1))
    };
    let node = Node::start(world, config).unwrap();
    for peer in names().iter().filter(|peer| *peer != name) {
        node.links().connect(peer, &sim.address(peer));
    }
    node
}

/// What a node's hooks hear of `peer`, a letter each: (u)p, (d)own, (l)eft.
fn heard(node: &Node, peer: &NodeName) -> Arc<Mutex<String>> {
    let heard = Arc::<Mutex<String>>::default();
    let (told, peer) = (Arc::clone(&heard), peer.clone());
    node.watch_peers(Box::new(move |event| {
        let (name, letter) = match event {
            PeerEvent::Up(peer) => (&peer.id.name, 'u'),
            PeerEvent::Down { peer, .. } => (&peer.name, 'd'),
            PeerEvent::Left(peer) => (&peer.name, 'l'),
            PeerEvent::Heartbeat { .. } => return,
        };
        if *name == peer {
            lock(&told).push(letter);
        }
    }));
    heard
}

#[test]
fn a_leave_is_seen_as_one_a_crash_is_not_and_both_may_come_back() {
    for seed in 0..10 {
        Simulation::new(seed).run(|sim| async move {
            let [a, b, x] = [0, 1, 2].map(|at| start(&sim, &names()[at], sim.world(&names()[at])));
            let seen = [&a, &x].map(|node| heard(node, b.name()));
            tokio::time::sleep(Duration::from_secs(2)).await;
            // Links may change once at first, when both sides dial.
            let read = || seen.each_ref().map(|seen| std::mem::take(&mut *lock(seen)));
            assert!(read().iter().all(|seen| seen.ends_with('u')));
            assert!(b.drain(Duration::from_secs(5)).await);
            drop(b);
            tokio::time::sleep(Duration::from_secs(5)).await;
            assert_eq!(read(), ["l", "l"], "seed {seed}");

            let world = sim.restart(&names()[1]);
            let b = start(&sim, &names()[1], world);
            tokio::time::sleep(Duration::from_secs(5)).await;
            sim.crash(b.name());
            b.abort_all();
            tokio::time::sleep(Duration::from_secs(30)).await;
            let crashed = |seen: &String| seen.ends_with('d') && !seen.contains('l');
            assert!(read().iter().all(crashed), "seed {seed}");
        });
    }
}
