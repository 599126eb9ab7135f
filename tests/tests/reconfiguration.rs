//! Nodes added and removed while clients write: clusters of the real actors in simulated worlds.

use std::time::Duration;

use synod::{
    consensus::{
        VoteStyle,
        message::{NodeRole, Wish},
    },
    replicated::Outcome,
    sim::{FaultAction, Nemesis, NemesisConfig, Shape, Simulation},
};
use synod_tests::simulated::{Load, founded, leader, leader_at, name};

/// What an operator's change may cost.
const PAUSE_MAX: Duration = Duration::from_millis(300);

/// Adds a node: the cluster is told, then the node is started, then it counts.
async fn add(load: &Load, node: &str, role: NodeRole) {
    let address = load.with(|cluster| cluster.sim().address(&name(node)));
    insist(load, &Wish::Add { name: name(node), role, address }).await;
    load.with(|cluster| cluster.add(&name(node), role)).expect("it starts");
}

/// Removes a node, and switches it off as soon as the cluster says that it may be.
async fn remove(load: &Load, node: &str) {
    insist(load, &Wish::Remove(name(node))).await;
    if let Some(core) = load.with(|cluster| cluster.take(&name(node))) {
        core.hand_over().await;
        core.leave(Duration::from_secs(2)).await;
    }
    load.with(|cluster| cluster.forget(&name(node)));
}

/// Asks any main until it is so.
async fn insist(load: &Load, wish: &Wish) {
    for attempt in 0..200 {
        let running = load.with(|cluster| {
            let mains = cluster.mains().into_iter();
            mains.filter(|main| cluster.core(main).is_some()).collect::<Vec<_>>()
        });
        if let Some(at) = running.get(attempt % running.len().max(1)) {
            let outcome = load.wish(at.as_str(), wish.clone()).await;
            if matches!(outcome, Outcome::Applied { .. }) {
                return;
            }
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("{wish:?} did not come true");
}

/// Goal: 1+0 → 2+1 → 3+2 → 3+0 and all the way back under load: no error, never a stall.
#[test]
fn a_cluster_grows_and_shrinks_under_load() {
    use NodeRole::{Auxiliary, Main};
    for (seed, style) in [(400, VoteStyle::Split), (401, VoteStyle::Piggyback)] {
        Simulation::new(seed).run(|sim| async move {
            let shape = Shape { mains: 1, auxiliaries: 0, members: 1 };
            let load = Load::start(founded(&sim, shape, style).await, 4);
            // The auxiliary first: with two mains and none, either would be needed for everything.
            for (node, role) in [("x", Auxiliary), ("b", Main), ("y", Auxiliary), ("c", Main)] {
                add(&load, node, role).await;
                load.until_whole().await;
            }
            for node in ["x", "y"] {
                remove(&load, node).await;
                load.until_whole().await;
            }
            add(&load, "z", Auxiliary).await;
            load.until_whole().await;
            for node in ["a", "c", "z"] {
                remove(&load, node).await;
                load.until_whole().await;
            }
            let alone = load.with(|cluster| leader_at(cluster, "b"));
            assert_eq!(alone.as_deref(), Some("b"), "the last of the mains");
            let refused = load.wish("b", Wish::Remove(name("b"))).await;
            assert!(matches!(refused, Outcome::Failed(_)), "{refused:?}");
            load.finish(PAUSE_MAX).await;
        });
    }
}

/// Makes a running node something else.
async fn set(load: &Load, node: &str, role: NodeRole) {
    insist(load, &Wish::Set { name: name(node), role }).await;
    load.with(|cluster| cluster.assign(&name(node), role));
}

/// Goal: members follow the log; one becomes a main under load, another steps back, and both return
/// to what they were: no error, never a stall.
#[test]
fn a_member_becomes_a_main_and_a_main_a_member_under_load() {
    use NodeRole::{Main, Member};
    for (seed, style) in [(402, VoteStyle::Split), (403, VoteStyle::Piggyback)] {
        Simulation::new(seed).run(|sim| async move {
            let shape = Shape { mains: 2, auxiliaries: 1, members: 2 };
            let load = Load::start(founded(&sim, shape, style).await, 4);
            let follows = |cluster: &mut synod::sim::Cluster| {
                let at = |node| cluster.core(&name(node)).map_or(0, |core| core.reached().position);
                at("a") > 500 && at("m1") > 500 && at("m2") > 500
            };
            load.until(Duration::from_secs(10), "members follow", follows).await;
            let steps: [(&str, NodeRole); 7] = [
                ("m1", Main),
                ("a", Member), // whoever leads hands over first
                ("b", Member),
                ("m2", Main),
                ("a", Main),
                ("m1", Member),
                ("m2", Member),
            ];
            for (node, role) in steps {
                set(&load, node, role).await;
                load.until_whole().await;
            }
            let refused = load.wish("a", Wish::Set { name: name("a"), role: Member }).await;
            assert!(
                matches!(&refused, Outcome::Failed(w) if w.contains("last main")),
                "{refused:?}"
            );
            let refused = load.wish("a", Wish::Set { name: name("x"), role: Main }).await;
            assert!(matches!(&refused, Outcome::Failed(w) if w.contains("no log")), "{refused:?}");
            load.finish(PAUSE_MAX).await;
        });
    }
}

/// Goal: a member that was made a main is a full one: it goes on when all other mains are lost, and
/// a member that is away for long catches up from a snapshot.
#[test]
fn a_member_made_a_main_carries_on_alone() {
    Simulation::new(404).run(|sim| async move {
        let shape = Shape { mains: 2, auxiliaries: 1, members: 2 };
        let cluster = founded(&sim, shape, VoteStyle::Split).await;
        let load = Load::start(cluster, 4);
        load.with(|cluster| cluster.lose(&name("m2")));
        set(&load, "m1", NodeRole::Main).await;
        load.until(Duration::from_secs(5), "m1 counts", |cluster| {
            let known = cluster.core(&name("a")).and_then(|core| core.reached().configuration);
            known.is_some_and(|known| known.mains.iter().any(|main| main.name == name("m1")))
        })
        .await;
        set(&load, "b", NodeRole::Member).await;
        load.with(|cluster| cluster.start(&name("m2"))).expect("it starts");
        load.until_whole().await;
        load.with(|cluster| cluster.crash(&name("a")));
        load.until(Duration::from_secs(5), "m1 leads", |cluster| {
            synod_tests::simulated::leader_at(cluster, "m1").as_deref() == Some("m1")
        })
        .await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        load.with(|cluster| cluster.start(&name("a"))).expect("it starts");
        load.until_whole().await;
        load.finish_unsure().await;
    });
}

/// Goal: whoever is removed learns of it and may stop, whether it ran then or comes later.
#[test]
fn whoever_is_removed_learns_of_it() {
    Simulation::new(410).run(|sim| async move {
        let shape = Shape { mains: 3, auxiliaries: 2, members: 1 };
        let load = Load::start(founded(&sim, shape, VoteStyle::Split).await, 2);
        for node in ["c", "x", "m1"] {
            insist(&load, &Wish::Remove(name(node))).await;
            let learns = |cluster: &mut synod::sim::Cluster| {
                cluster.core(&name(node)).is_some_and(|core| *core.removed().borrow())
            };
            load.until(Duration::from_secs(3), "it learns that it was removed", learns).await;
            load.with(|cluster| cluster.forget(&name(node)));
        }
        load.with(|cluster| cluster.crash(&name("y")));
        insist(&load, &Wish::Remove(name("y"))).await;
        load.with(|cluster| cluster.start(&name("y"))).expect("it starts");
        let learns = |cluster: &mut synod::sim::Cluster| {
            cluster.core(&name("y")).is_some_and(|core| *core.removed().borrow())
        };
        load.until(Duration::from_secs(5), "it learns late", learns).await;
        load.with(|cluster| cluster.forget(&name("y")));
        load.until_whole().await;
        load.finish(PAUSE_MAX).await;
    });
}

/// Goal: an auxiliary that is gone for ever is replaced by another while the mains agree.
#[test]
fn r1_39_an_auxiliary_that_is_gone_for_ever_is_replaced() {
    for (seed, (mains, auxiliaries)) in (420..).zip([(2, 1), (3, 2)]) {
        Simulation::new(seed).run(|sim| async move {
            let shape = Shape { mains, auxiliaries, members: 0 };
            let cluster = founded(&sim, shape, VoteStyle::Split).await;
            let load = Load::paced(cluster, 2, Duration::from_millis(10));
            load.with(|cluster| cluster.forget(&name("x")));
            tokio::time::sleep(Duration::from_secs(5)).await;
            insist(&load, &Wish::Remove(name("x"))).await;
            add(&load, "z", NodeRole::Auxiliary).await;
            load.until_whole().await;
            // The new one takes part: a main may now fail.
            load.with(|cluster| cluster.crash(&name("b")));
            tokio::time::sleep(Duration::from_secs(2)).await;
            load.with(|cluster| cluster.start(&name("b"))).expect("it starts");
            load.until_whole().await;
            load.finish_unsure().await;
        });
    }
}

/// Goal: a main that was away is not put out by its own vote, which nobody else could have done while the
/// auxiliary's disk was lost: the main that stays would be the only one, and wait for that disk for
/// ever when it starts again.
#[test]
fn r1_24_nobody_is_voted_out_whom_the_others_alone_could_not_vote_out() {
    Simulation::new(425).run(|sim| async move {
        let mut cluster = founded(&sim, Shape::default(), VoteStyle::Split).await;
        let leads = name(&leader(&cluster));
        let mut others = cluster.mains();
        others.retain(|main| *main != leads);
        cluster.lose(&name("x"));
        sim.partition(&others, std::slice::from_ref(&leads));
        tokio::time::sleep(Duration::from_secs(9)).await;
        sim.heal();
        tokio::time::sleep(Duration::from_secs(3)).await;
        let reached = cluster.core(&leads).expect("it runs").reached();
        let configuration = reached.configuration.expect("it was founded");
        assert_eq!((configuration.epoch, configuration.mains.len()), (0, 2));
        cluster.start(&name("x")).expect("it starts, as another node");
        let load = Load::paced(cluster, 2, Duration::from_millis(10));
        load.until_whole().await;
        load.finish_unsure().await;
    });
}

/// Goal: what would leave too few is refused, and nothing changes.
#[test]
fn a_removal_that_would_leave_too_few_is_refused() {
    Simulation::new(430).run(|sim| async move {
        let shape = Shape { mains: 3, auxiliaries: 0, members: 0 };
        let cluster = founded(&sim, shape, VoteStyle::Split).await;
        let load = Load::paced(cluster, 2, Duration::from_millis(10));
        load.with(|cluster| cluster.crash(&name("c")));
        tokio::time::sleep(Duration::from_secs(1)).await;
        let refused = load.wish("a", Wish::Remove(name("b"))).await;
        assert!(matches!(&refused, Outcome::Failed(why) if why.contains("too few")), "{refused:?}");
        let unknown = load.wish("a", Wish::Remove(name("nobody"))).await;
        assert!(matches!(&unknown, Outcome::Failed(why) if why.contains("nobody")), "{unknown:?}");
        // It stays a main although it is away for long: its vote may be the next one needed.
        tokio::time::sleep(Duration::from_secs(8)).await;
        let epoch = load.with(|cluster| {
            cluster.core(&name("a")).and_then(|core| core.reached().configuration).map(|c| c.epoch)
        });
        assert_eq!(epoch, Some(0));
        load.with(|cluster| cluster.start(&name("c"))).expect("it starts");
        load.until_whole().await;
        load.finish_unsure().await;
    });
}

/// Goal: nothing acknowledged is lost or doubled when nodes come and go while everything fails
/// around them, and in the end the cluster is what its operator wanted.
#[test]
fn reconfiguration_under_fire_loses_nothing() {
    let shapes = [(2, 1), (3, 2), (3, 0)];
    for (seed, (mains, auxiliaries)) in (440..452).zip(shapes.into_iter().cycle()) {
        Simulation::new(seed).run(|sim| async move {
            let shape = Shape { mains, auxiliaries, members: 0 };
            let cluster = founded(&sim, shape, VoteStyle::Split).await;
            let load = Load::paced(cluster, 3, Duration::from_millis(20));
            let fire = actix_rt::spawn(burn(load.clone(), seed));
            for (out, into, role) in [
                ("x", "z", NodeRole::Auxiliary),
                ("b", "d", NodeRole::Main),
                ("a", "e", NodeRole::Main),
            ] {
                add(&load, into, role).await;
                tokio::time::sleep(Duration::from_secs(1)).await;
                if load.with(|cluster| cluster.names().contains(&name(out))) {
                    remove(&load, out).await;
                }
            }
            fire.await.expect("the fire burns down");
            load.until_whole().await;
            load.finish_unsure().await;
        });
    }
}

/// Does what a nemesis wants to those that founded the cluster and still belong to it.
async fn burn(load: Load, seed: u64) {
    let names = load.with(|cluster| cluster.names());
    let plan = "loss,duplication,reorder,cut,clog,partition,crash,pause,slowsync";
    let plan = plan.parse().expect("faults");
    let config = NemesisConfig { plan, ..NemesisConfig::new(&names) };
    for (pause, action) in Nemesis::new(seed, &config) {
        tokio::time::sleep(pause).await;
        load.with(|cluster| match &action {
            FaultAction::Crash { node } | FaultAction::CrashAtDiskOperation { node, .. } => {
                if cluster.names().contains(node) {
                    cluster.crash(node);
                }
            }
            FaultAction::Restart { node } => {
                if cluster.names().contains(node) {
                    cluster.start(node).expect("it starts");
                }
            }
            other => cluster.sim().apply(other),
        });
    }
    load.with(|cluster| cluster.start_all()).expect("they start");
}
