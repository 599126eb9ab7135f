//! The built-in role: of the node that leads the log, which alone changes the system.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use synod::{
    consensus::message::{NodeRole, Wish},
    election::message::{RoleView, SYSTEM_MANAGER},
    management::message::Spec,
    replicated::Outcome,
    server::{
        elections::{ElectionError, Heard, Leadership},
        registers::{Keeping, RolesIn},
    },
    sim::{Blueprint, Cluster, Shape, Simulation},
};
use synod_tests::{
    simulated::{Counter, founded_as, leader_at, name, whole},
    theatre::{Theatre, service},
};
use tokio::sync::oneshot;

/// The role, as that node is told.
async fn asked(cluster: &Cluster, node: &str) -> RoleView {
    let elections = cluster.core(&name(node)).expect("it runs").elections();
    elections.query(SYSTEM_MANAGER).await.expect("there is a quorum").expect("it is built in")
}

/// Waits until that node is told that whoever leads the log has the role.
async fn settled(sim: &Simulation, cluster: &Cluster, node: &str) -> RoleView {
    let began = sim.now();
    loop {
        let view = asked(cluster, node).await;
        let holder = view.holder.as_ref().map(|holder| holder.client.node.clone());
        if holder.is_some() && holder == leader_at(cluster, node) {
            return view;
        }
        assert!(sim.now() - began < Duration::from_secs(5), "{view:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Goal: R3.40, whatever keeps roles, the system manager is whoever leads the log, in an epoch that
/// rises with each; who watches hears of it; nobody takes, resigns, makes or removes it, and while
/// nobody else leads it costs nothing.
#[test]
fn r3_40_the_system_manager_is_whoever_leads_the_log() {
    let stores =
        [RolesIn::Log, RolesIn::Registers(Keeping::Holders), RolesIn::Registers(Keeping::Servers)];
    for (seed, roles) in (1_200..).zip(stores) {
        Simulation::new(seed).run(|sim| async move {
            let blueprint = Blueprint { roles, ..Blueprint::hosting::<Counter>("counter") };
            let shape = Shape { members: 1, ..Shape::default() };
            let mut cluster = founded_as(&sim, shape, blueprint).await;
            let first = settled(&sim, &cluster, "m1").await;
            assert!(first.volunteers.is_empty() && first.expires_in.is_none(), "{first:?}");
            for node in ["a", "b"] {
                assert_eq!(settled(&sim, &cluster, node).await, first);
            }
            nobody_takes_it(&cluster).await;
            // The version of a new cluster rises by itself, once.
            tokio::time::sleep(Duration::from_secs(10)).await;
            let position = cluster.core(&name("a")).unwrap().reached().position;
            tokio::time::sleep(Duration::from_secs(60)).await;
            assert_eq!(asked(&cluster, "m1").await, first);
            let idle = cluster.core(&name("a")).unwrap().reached().position;
            assert_eq!(idle, position, "an idle cluster executes nothing for it");
            let mut watch =
                cluster.core(&name("m1")).unwrap().elections().watch(Some(SYSTEM_MANAGER));
            assert!(matches!(watch.next().await, Heard::State { .. }));
            let mut epoch = first.epoch;
            for _ in 0..3 {
                let leader = leader_at(&cluster, "m1").unwrap();
                cluster.crash(&name(&leader));
                let other = if leader == "a" { "b" } else { "a" };
                let next = settled(&sim, &cluster, other).await;
                assert!(next.epoch > epoch, "{next:?} after {epoch}");
                epoch = next.epoch;
                let heard = loop {
                    if let Heard::Changed(notice) = watch.next().await {
                        break notice.now.unwrap();
                    }
                };
                assert_eq!((heard.epoch, heard.holder), (next.epoch, next.holder));
                cluster.start(&name(&leader)).unwrap();
                whole(&cluster).await;
            }
        });
    }
}

async fn nobody_takes_it(cluster: &Cluster) {
    let elections = cluster.core(&name("b")).unwrap().elections();
    let refused = |error: ElectionError| {
        let why = error.to_string();
        assert!(why.contains("is built in"), "{why}");
    };
    refused(elections.add(SYSTEM_MANAGER).await.unwrap_err());
    refused(elections.remove(SYSTEM_MANAGER).await.unwrap_err());
    let mut volunteer = elections.volunteer(SYSTEM_MANAGER).named("me").stand().unwrap();
    let ended = volunteer.next().await;
    assert!(matches!(ended, Some(Leadership::Ended(_))), "{ended:?}");
}

/// Goal: R3.40, a change of services or members whose system manager is killed at any moment of it is
/// completed, and once: a second time it would be refused.
#[test]
fn r3_40_a_change_whose_manager_is_killed_midway_is_completed_once() {
    for (seed, ms) in (1_210..).zip([0, 1, 2, 4, 8, 15, 30]) {
        Simulation::new(seed).run(|sim| async move {
            let mut theatre = Theatre::open(&sim, 2).await;
            let services = theatre.services("m1");
            let providers = vec!["m1".to_owned()];
            services.add(Spec { providers, ..service("web", LEASE) }).await.unwrap();
            let leader = leader_at(&theatre.cluster, "m1").unwrap();
            let other = if leader == "a" { "b" } else { "a" };
            let (added, done) = oneshot::channel();
            let asked_again = services.clone();
            actix_rt::spawn(async move {
                let said = asked_again.providers("web", vec!["m2".to_owned()], vec![]).await;
                let _ = added.send(said);
            });
            let address = sim.address(&name("m3"));
            let wish = Wish::Add { name: name("m3"), role: NodeRole::Member, address };
            let (wished, granted) = oneshot::channel();
            theatre.cluster.core(&name(other)).unwrap().wish(
                wish,
                Duration::from_secs(20),
                Box::new(|outcome| drop(wished.send(outcome))),
            );
            tokio::time::sleep(Duration::from_millis(ms)).await;
            theatre.cluster.crash(&name(&leader));
            assert_eq!(done.await.unwrap(), Ok(()), "after {ms} ms");
            let outcome = granted.await.unwrap();
            assert!(matches!(outcome, Outcome::Applied { .. }), "after {ms} ms: {outcome:?}");
            let known = || theatre.cluster.core(&name(other)).unwrap().reached().configuration;
            let members = known().unwrap().members;
            assert_eq!(members.iter().filter(|node| **node == name("m3")).count(), 1);
            let again = services.providers("web", vec!["m2".to_owned()], vec![]).await;
            assert!(again.unwrap_err().to_string().contains("twice"));
            let manager = settled(&sim, &theatre.cluster, "m1").await.holder.unwrap();
            assert_eq!(manager.client.node, other);
        });
    }
}

const LEASE: Duration = Duration::from_secs(1);
