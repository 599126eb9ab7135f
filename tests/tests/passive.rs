//! Two mains and an auxiliary that is an object on shared storage: clusters of the real actors in
//! simulated worlds.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use synod::{
    consensus::VoteStyle,
    server::passive::{MemoryObject, SharedObject},
    sim::{Blueprint, Cluster, Shape, Simulation},
};
use synod_tests::simulated::{Counter, Load, leader, name};

/// From the death of a main until the other decides alone: its beat must stand still first, and then
/// it is silent for long enough to be voted out.
const ALONE_AFTER: Duration = Duration::from_secs(6);

const TWO_MAINS: Shape = Shape { mains: 2, auxiliaries: 0, members: 0 };

/// A cluster of two mains and that object, founded.
async fn founded(sim: &Simulation, object: &Arc<MemoryObject>) -> Cluster {
    let shared: Arc<dyn SharedObject> = object.clone();
    let blueprint = Blueprint {
        style: VoteStyle::Split,
        passive: BTreeMap::from([(name("x"), shared)]),
        ..Blueprint::hosting::<Counter>("counter")
    };
    let mut cluster = Cluster::new(sim, TWO_MAINS, blueprint);
    cluster.start_all().expect("nodes start");
    synod_tests::simulated::whole(&cluster).await;
    cluster
}

/// Starts a node that crashed.
fn start(load: &Load, node: &str) {
    load.with(|cluster| cluster.start(&name(node))).expect("it starts");
}

/// The incarnation of the auxiliary, as `node` knows it.
fn auxiliary_at(cluster: &Cluster, node: &str) -> Option<u64> {
    let reached = cluster.core(&name(node))?.reached();
    Some(reached.configuration?.auxiliaries.first()?.incarnation.0)
}

/// Goal: either main may die, under load, and the other goes on with the object's votes.
#[test]
fn either_main_goes_on_with_an_auxiliary_that_is_a_file() {
    for seed in 700..702 {
        Simulation::new(seed).run(|sim| async move {
            let object = Arc::new(MemoryObject::default());
            let load = Load::start(founded(&sim, &object).await, 3);
            let before = object.version();
            tokio::time::sleep(Duration::from_secs(3)).await;
            assert_eq!(object.version(), before, "without failures it is not written");
            let first = load.with(|cluster| leader(cluster));
            let second = if first == "a" { "b" } else { "a" };
            for victim in [first.as_str(), second] {
                load.with(|cluster| cluster.crash(&name(victim)));
                let other = if victim == "a" { "b" } else { "a" };
                let alone = |cluster: &mut Cluster| {
                    let configuration =
                        cluster.core(&name(other)).and_then(|core| core.reached().configuration);
                    configuration.is_some_and(|c| c.mains.len() == 1)
                };
                load.until(ALONE_AFTER, "it goes on alone", alone).await;
                assert!(object.version() > before, "the object voted");
                start(&load, victim);
                load.until_whole().await;
            }
            load.finish_unsure().await;
        });
    }
}

/// Goal: mains that agree need no storage; without it a lone main waits, and goes on when it is back.
#[test]
fn without_its_storage_only_a_lone_main_waits() {
    Simulation::new(720).run(|sim| async move {
        let object = Arc::new(MemoryObject::default());
        let load = Load::start(founded(&sim, &object).await, 2);
        object.set_away(true);
        tokio::time::sleep(Duration::from_secs(5)).await;
        load.with(|cluster| cluster.crash(&name("b")));
        tokio::time::sleep(Duration::from_secs(5)).await;
        let mains = load.with(|cluster| {
            let reached = cluster.core(&name("a")).map(|core| core.reached());
            reached.and_then(|reached| reached.configuration).map(|c| c.mains.len())
        });
        assert_eq!(mains, Some(2), "nobody may decide alone");
        object.set_away(false);
        let alone = |cluster: &mut Cluster| {
            let reached = cluster.core(&name("a")).map(|core| core.reached());
            reached.and_then(|r| r.configuration).is_some_and(|c| c.mains.len() == 1)
        };
        load.until(Duration::from_secs(10), "it goes on", alone).await;
        start(&load, "b");
        load.until_whole().await;
        load.finish_unsure().await;
    });
}

/// Goal: an object that is lost comes back as another auxiliary, which the mains agree on.
#[test]
fn a_lost_object_is_replaced_by_another_auxiliary() {
    Simulation::new(730).run(|sim| async move {
        let object = Arc::new(MemoryObject::default());
        let load = Load::start(founded(&sim, &object).await, 2);
        let old = load.with(|cluster| auxiliary_at(cluster, "a"));
        object.lose();
        let replaced = move |cluster: &mut Cluster| {
            ["a", "b"]
                .iter()
                .all(|node| auxiliary_at(cluster, node).is_some_and(|id| Some(id) != old))
        };
        load.until(Duration::from_secs(10), "another auxiliary", replaced).await;
        load.with(|cluster| cluster.crash(&name("a")));
        let alone = |cluster: &mut Cluster| {
            let reached = cluster.core(&name("b")).map(|core| core.reached());
            reached.and_then(|r| r.configuration).is_some_and(|c| c.mains.len() == 1)
        };
        load.until(Duration::from_secs(10), "b goes on with it", alone).await;
        start(&load, "a");
        load.until_whole().await;
        load.finish_unsure().await;
    });
}
