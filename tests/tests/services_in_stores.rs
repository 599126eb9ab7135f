//! Managed services, whatever store keeps roles: the same takeovers, moves and promotions, and an
//! auxiliary that hears nothing of them.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use synod::{
    server::registers::{Keeping, RolesIn},
    sim::Simulation,
};
use synod_tests::{
    simulated::name,
    theatre::{Theatre, service},
};

/// Goal: in every store of roles a service has a primary that every node can name, a secondary that
/// takes over before any spare within the lease and a moment, and moves in order; where its only
/// provider is down the manager says so; and (X4) while nothing fails no auxiliary hears of it.
#[test]
fn services_take_over_move_and_are_shown_in_every_store() {
    let stores =
        [RolesIn::Log, RolesIn::Registers(Keeping::Holders), RolesIn::Registers(Keeping::Servers)];
    for (seed, store) in (1_250..).zip(stores) {
        println!("{store:?}");
        Simulation::new(seed).run(|sim| everything(sim, store));
    }
}

async fn everything(sim: Simulation, store: RolesIn) {
    let mut theatre = Theatre::open_with(&sim, 2, store).await;
    let idle = words(&theatre);
    theatre.services("m2").add(service("web", LEASE)).await.unwrap();
    let (first, _) = theatre.until("web", |_| true).await;
    assert_eq!(first.node, "a", "the lowest name of all that are up");
    for node in ["a", "b", "m1", "m2"] {
        let shows = async {
            while theatre.services(node).documents()[0]["primary"] != "a" {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let shown = tokio::time::timeout(Duration::from_secs(1), shows).await;
        assert!(shown.is_ok(), "at {node}: {:?}", theatre.services(node).documents());
    }
    theatre.until_shown("m1", "web", |one| one["secondaries"][0] == "b").await;
    theatre.until_shown("m1", "web", |one| one["spares"][1] == "m2").await;
    theatre.services("a").move_to("web", "m2").await.unwrap();
    theatre.until("web", |ran| ran.node == "m2").await;
    theatre.until_shown("b", "web", |one| one["secondaries"][0] == "a").await;
    tokio::time::sleep(LEASE * 10).await;
    assert_eq!(words(&theatre), idle, "the auxiliary was asked for something");
    theatre.cluster.crash(&name("m2"));
    let (next, took) = theatre.until("web", |ran| ran.node != "m2").await;
    assert_eq!(next.node, "a", "its secondary");
    assert!(took <= LEASE + BEYOND_MAX, "{took:?}");
    let error = theatre.services("b").move_to("web", "m2").await.unwrap_err().to_string();
    assert!(error.contains("is it up?"), "{error}");
    // Where nobody else may run it, the manager says that it runs no more.
    theatre.services("a").providers("web", vec![], to(&["b", "m2"])).await.unwrap();
    theatre.services("a").move_to("web", "m1").await.unwrap();
    theatre.until("web", |ran| ran.node == "m1").await;
    theatre.services("a").providers("web", vec![], to(&["a"])).await.unwrap();
    theatre.until_shown("b", "web", |one| one["state"] == "running").await;
    theatre.cluster.crash(&name("m1"));
    theatre.until_shown("b", "web", |one| one["state"] == "failed").await;
    theatre.restart("m1");
    theatre.until("web", |ran| ran.node == "m1").await;
    theatre.judge().unwrap();
}

fn to(nodes: &[&str]) -> Vec<String> {
    nodes.iter().map(|&node| node.to_owned()).collect()
}

/// What the auxiliary has heard, signs of life apart.
fn words(theatre: &Theatre) -> Vec<String> {
    let metrics = theatre.cluster.core(&name("x")).unwrap().node().metrics().render();
    let counts = |line: &&str| {
        let messages = line.starts_with("synod_protocol_messages_received_total{");
        messages && !line.contains("role=\"heartbeat\"") || line.starts_with("synod_journal_")
    };
    metrics.lines().filter(counts).map(str::to_owned).collect()
}

const LEASE: Duration = Duration::from_secs(1);

/// What a takeover may cost beyond the lease where roles are in registers: who waits looks now and
/// then, and takes rounds to change what it sees.
const BEYOND_MAX: Duration = Duration::from_millis(900);
