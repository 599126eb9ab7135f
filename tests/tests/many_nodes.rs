//! Clusters of many nodes: which services are where (the source's figure 3), and that nodes which come
//! and go move nothing.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{collections::BTreeSet, time::Duration};

use synod::{
    consensus::{
        VoteStyle,
        message::{NodeRole, Wish},
    },
    management::message::Spec,
    membership::message::{State, View},
    replicated::Outcome,
    sim::{Cluster, Shape, Simulation},
};
use synod_tests::{
    simulated::{founded, leader_at, name, whole},
    theatre::{Theatre, service},
};
use tokio::sync::oneshot;

/// Goal: R2.18, figure 3: different services have different primaries and sets of secondaries at one
/// time, and whoever asks is told which (R2.17). The figure's nodes 102 to 105 are a, b, m1, m2; its
/// services 202 to 205 have their primaries at 103, 104, 102 and 103, and secondaries at {104, 105},
/// {103, 105}, {104, 105} and {102, 104, 105}.
#[test]
fn r2_18_figure_3_services_have_primaries_and_secondaries_of_their_own() {
    Simulation::new(1_300).run(|sim| async move {
        let theatre = Theatre::open(&sim, 2).await;
        let (n102, n103, n104, n105) = ("a", "b", "m1", "m2");
        let figure: [(&str, &str, &[&str]); 4] = [
            ("s202", n103, &[n104, n105]),
            ("s203", n104, &[n103, n105]),
            ("s204", n102, &[n104, n105]),
            ("s205", n103, &[n102, n104, n105]),
        ];
        for (name, primary, secondaries) in figure {
            let providers = secondaries.iter().chain([&primary]).map(|&node| node.to_owned());
            let wanted = u32::try_from(secondaries.len()).unwrap();
            let providers = providers.collect();
            let spec = Spec { providers, secondaries: wanted, ..service(name, LEASE) };
            theatre.services("m2").add(spec).await.unwrap();
            theatre.until(name, |_| true).await;
            theatre.services("a").move_to(name, primary).await.unwrap();
        }
        for (name, primary, secondaries) in figure {
            theatre.until(name, |ran| ran.node == primary).await;
            for node in [n102, n103, n104, n105] {
                let as_drawn = |one: &serde_json::Value| {
                    let list = one["secondaries"].as_array().into_iter().flatten();
                    let list: BTreeSet<_> = list.filter_map(|one| one.as_str()).collect();
                    one["primary"] == primary && list == secondaries.iter().copied().collect()
                };
                theatre.until_shown(node, name, as_drawn).await;
            }
        }
        theatre.judge().unwrap();
    });
}

/// Goal: R2.16, when the primary and all secondaries are gone a spare runs it.
#[test]
fn r2_16_a_spare_serves_when_all_other_providers_are_gone() {
    Simulation::new(1_310).run(|sim| async move {
        let mut theatre = Theatre::open(&sim, 3).await;
        let providers = ["m1", "m2", "m3"].map(str::to_owned).to_vec();
        theatre.services("a").add(Spec { providers, ..service("web", LEASE) }).await.unwrap();
        theatre.until("web", |ran| ran.node == "m1").await;
        theatre.until_shown("a", "web", |one| one["secondaries"][0] == "m2").await;
        theatre.until_shown("a", "web", |one| one["spares"][0] == "m3").await;
        tokio::time::sleep(LEASE).await;
        for node in ["m2", "m1"] {
            theatre.cluster.crash(&name(node));
        }
        let (spare, took) = theatre.until("web", |ran| ran.node == "m3").await;
        assert!(took <= LEASE + Duration::from_millis(500), "{took:?}: {spare:?}");
        theatre.judge().unwrap();
    });
}

/// Goal: X5, twenty nodes that join and leave move no service, no role and not the manager.
#[test]
fn x5_twenty_nodes_that_join_and_leave_move_nothing() {
    Simulation::new(1_320).run(|sim| async move {
        let mut theatre = Theatre::open(&sim, 1).await;
        theatre.services("a").add(service("web", LEASE)).await.unwrap();
        theatre.until("web", |_| true).await;
        theatre.services("a").move_to("web", "m1").await.unwrap();
        let (web, _) = theatre.until("web", |ran| ran.node == "m1").await;
        let elections = theatre.cluster.core(&name("b")).unwrap().elections();
        let _holds = elections.volunteer("jobs").named("one").stand().unwrap();
        tokio::time::sleep(LEASE).await;
        let stands = |theatre: &Theatre| {
            let status = theatre.cluster.core(&name("a")).unwrap().status();
            let of = |list: &str, keys: [&str; 3]| {
                let all = status[list].as_array().unwrap().iter();
                all.map(|one| keys.map(|key| one[key].to_string())).collect::<Vec<_>>()
            };
            let roles = of("roles", ["role", "leader", "epoch"]);
            (status["manager"].clone(), roles, of("services", ["service", "primary", "epoch"]))
        };
        let before = stands(&theatre);
        assert_eq!((before.1.len(), before.2.len()), (3, 1), "{before:?}");
        let at = leader_at(&theatre.cluster, "a").unwrap();
        let joined: Vec<String> = (10..30).map(|number| format!("n{number}")).collect();
        for node in &joined {
            let (role, address) = (NodeRole::Member, sim.address(&name(node)));
            wish(&theatre, &at, Wish::Add { name: name(node), role, address }).await;
            theatre.cluster.add(&name(node), role).unwrap();
            theatre.provide(node);
        }
        whole(&theatre.cluster).await;
        tokio::time::sleep(LEASE * 5).await;
        assert_eq!(stands(&theatre), before, "after twenty joined");
        for node in &joined {
            wish(&theatre, &at, Wish::Remove(name(node))).await;
            theatre.cluster.crash(&name(node));
            theatre.cluster.forget(&name(node));
        }
        tokio::time::sleep(LEASE * 5).await;
        assert_eq!(stands(&theatre), before, "after twenty left");
        assert_eq!(theatre.running("web"), Some(web), "not even its program was touched");
        let metrics = theatre.cluster.core(&name("a")).unwrap().node().metrics().render();
        let moves = "synod_service_moves_total{service=\"web\"} 1";
        assert!(metrics.lines().any(|line| line == moves), "the one that was asked for: {metrics}");
    });
}

/// Goal: sixty-four whole nodes have one view; whoever dies is down in it within a bound and nobody else
/// is, also when several die at once; whoever comes back is up again, and members hear of it all
/// from mains alone: no node speaks with more than the mains.
#[test]
fn sixty_four_nodes_come_to_one_view() {
    Simulation::new(1_330).run(|sim| async move {
        let shape = Shape { mains: 2, auxiliaries: 1, members: 61 };
        let mut cluster = founded(&sim, shape, VoteStyle::Split).await;
        let all: BTreeSet<String> = cluster.names().iter().map(ToString::to_string).collect();
        assert_eq!(all.len(), 64);
        one_view(&sim, &cluster, &BTreeSet::new()).await;
        let gone: BTreeSet<String> = (7..12).map(|number| format!("m{number}")).collect();
        for node in &gone {
            cluster.crash(&name(node));
        }
        let took = one_view(&sim, &cluster, &gone).await;
        println!("64 nodes: five that died at once were down everywhere after {took:?}");
        // Whoever was hardly heard yet is given ten seconds, and then two nodes agree on it.
        assert!(took < Duration::from_secs(15), "{took:?}");
        for node in &gone {
            cluster.start(&name(node)).unwrap();
        }
        let took = one_view(&sim, &cluster, &BTreeSet::new()).await;
        println!("64 nodes: all five were up again after {took:?}");
    });
}

/// Waits until every main and member that runs has the same view, in which these are down and nobody
/// else; how long that took.
async fn one_view(sim: &Simulation, cluster: &Cluster, down: &BTreeSet<String>) -> Duration {
    let began = sim.now();
    loop {
        let views = cluster.names().into_iter().filter(|node| !node.as_str().starts_with('x'));
        let views = views.filter_map(|node| cluster.core(&node));
        let views: Vec<_> = views.map(|core| core.views().watch().borrow().clone()).collect();
        let as_wanted = |view: &View| {
            let gone = view.nodes.iter().filter(|(_, place)| place.state != State::Up);
            gone.map(|(node, _)| node.to_string()).collect::<BTreeSet<_>>() == *down
        };
        if views.iter().all(|view| *view == views[0]) && as_wanted(&views[0]) {
            return sim.now() - began;
        }
        assert!(sim.now() - began < Duration::from_secs(60), "{:?}", views[0]);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Asks until it is so: one change of the configuration is made at a time.
async fn wish(theatre: &Theatre, at: &str, wish: Wish) {
    let mut last = None;
    for _ in 0..100 {
        let (tell, told) = oneshot::channel();
        let core = theatre.cluster.core(&name(at)).unwrap();
        let done = Box::new(|outcome| drop(tell.send(outcome)));
        core.wish(wish.clone(), Duration::from_secs(20), done);
        match told.await.unwrap() {
            Outcome::Applied { .. } => return,
            other => last = Some(other),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("{wish:?}: {last:?}");
}

const LEASE: Duration = Duration::from_secs(1);
