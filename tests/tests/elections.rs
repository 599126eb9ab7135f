//! Roles on whole clusters of the real actors, in simulated worlds: one holder at a time, epochs that
//! rise, takeover in time.

use std::{cell::RefCell, collections::BTreeMap, rc::Rc, time::Duration};

use synod::{
    consensus::VoteStyle,
    election::message::Epoch,
    server::elections::{Leadership, Lease, Volunteer},
    sim::{Cluster, Shape, Simulation},
};
use synod_tests::simulated::{founded, leader, name};

const LEASE: Duration = Duration::from_secs(2);

/// What a takeover may cost beyond the lease.
const BEYOND_MAX: Duration = Duration::from_millis(300);

/// …by a member while the only other main is not yet voted out: its answers come when it asks again.
const MEMBER_BEYOND_MAX: Duration = Duration::from_millis(700);

/// Who leads, by what the volunteers themselves may do.
#[derive(Default)]
struct Stage {
    leases: BTreeMap<String, Lease>,
    epochs: Vec<Epoch>,
}

/// Those who act at this instant, each by its own clock.
fn acting(stage: &RefCell<Stage>) -> Vec<String> {
    let stage = stage.borrow();
    let valid = stage.leases.iter().filter(|(_, lease)| lease.is_valid());
    valid.map(|(who, _)| who.clone()).collect()
}

/// A volunteer at that node, whose leases are put on the stage.
fn stand(cluster: &Cluster, node: &str, role: &str, lease: Duration, stage: &Rc<RefCell<Stage>>) {
    let elections = cluster.core(&name(node)).expect("it runs").elections();
    let volunteer = elections.volunteer(role).named(node).lease(lease).stand().expect("good terms");
    follow(volunteer, node.to_owned(), Rc::clone(stage));
}

fn follow(mut volunteer: Volunteer, who: String, stage: Rc<RefCell<Stage>>) {
    actix_rt::spawn(async move {
        while let Some(news) = volunteer.next().await {
            if let Leadership::Leading(lease) = news {
                let mut stage = stage.borrow_mut();
                stage.epochs.push(lease.epoch());
                stage.leases.insert(who.clone(), lease);
            }
        }
    });
}

/// Waits until somebody of whom `wanted` is true acts; answers who, and how long it took. At no
/// instant may two act.
async fn until(
    sim: &Simulation,
    stage: &RefCell<Stage>,
    most: Duration,
    wanted: impl Fn(&str) -> bool,
) -> (String, Duration) {
    let began = sim.now();
    loop {
        let acting = acting(stage);
        assert!(acting.len() < 2, "two act at one instant: {acting:?}");
        if let Some(one) = acting.iter().find(|one| wanted(one)) {
            return (one.clone(), sim.now() - began);
        }
        assert!(sim.now() - began < most, "nobody leads after {:?}", sim.now() - began);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Goal: whoever holds a role when its node dies is replaced within the lease and 300 ms, whether
/// or not that node led the log; those who live and renew are never replaced. On a member too.
#[test]
fn a_role_passes_on_within_its_lease_when_its_node_dies() {
    for (seed, (lease, mains, auxiliaries)) in (700..).zip([
        (LEASE, 2, 1),
        (Duration::from_millis(300), 2, 1),
        (LEASE, 3, 2),
        (Duration::from_millis(500), 3, 0),
    ]) {
        Simulation::new(seed).run(|sim| async move {
            let shape = Shape { mains, auxiliaries, members: 1 };
            let mut cluster = founded(&sim, shape, VoteStyle::Split).await;
            let stage = Rc::<RefCell<Stage>>::default();
            let first = leader(&cluster);
            stand(&cluster, &first, "jobs", lease, &stage);
            let quick = Duration::from_millis(300);
            let (holder, _) = until(&sim, &stage, quick, |_| true).await;
            assert_eq!(holder, first);
            stand(&cluster, "m1", "jobs", lease, &stage);
            // It lives and renews.
            for _ in 0..10 {
                tokio::time::sleep(lease / 2).await;
                assert_eq!(acting(&stage), std::slice::from_ref(&first));
            }
            assert_eq!(stage.borrow().epochs.len(), 1);
            cluster.crash(&name(&first));
            stage.borrow_mut().leases.remove(&first);
            let (holder, took) = until(&sim, &stage, lease * 3, |_| true).await;
            assert_eq!(holder, "m1");
            assert!(took <= lease + MEMBER_BEYOND_MAX, "{took:?} with a lease of {lease:?}");
            // And back from the member to a main, when that is cut off.
            let other = cluster.mains().into_iter().find(|main| main.as_str() != first).unwrap();
            stand(&cluster, other.as_str(), "jobs", lease, &stage);
            tokio::time::sleep(lease).await;
            cluster.crash(&name("m1"));
            stage.borrow_mut().leases.remove("m1");
            let (holder, took) = until(&sim, &stage, lease * 3, |_| true).await;
            assert_eq!(holder, other.as_str());
            assert!(took <= lease + BEYOND_MAX, "{took:?} with a lease of {lease:?}");
            let epochs = stage.borrow().epochs.clone();
            assert!(epochs.is_sorted() && epochs.len() == 3, "{epochs:?}");
        });
    }
}

/// Goal: a grant takes two commands' time at most, and a role that is resigned passes on as fast.
#[test]
fn a_resigned_role_passes_on_at_once() {
    Simulation::new(720).run(|sim| async move {
        let cluster = founded(&sim, Shape::default(), VoteStyle::Split).await;
        let at = |node: &str| cluster.core(&name(node)).unwrap().elections();
        let mut first = at("a").volunteer("jobs").named("first").stand().unwrap();
        let began = sim.now();
        let Some(Leadership::Leading(lease)) = first.next().await else { panic!("it leads") };
        assert!(sim.now() - began < Duration::from_millis(20), "{:?}", sim.now() - began);
        let mut second = at("b").volunteer("jobs").named("second").stand().unwrap();
        let Some(Leadership::Following(holder)) = second.next().await else { panic!("it stands") };
        assert_eq!((holder.client.name.as_str(), holder.epoch), ("first", lease.epoch()));
        let seen = at("b").query("jobs").await.unwrap().unwrap();
        assert_eq!((seen.volunteers[0].name.as_str(), seen.epoch), ("second", lease.epoch()));
        assert!(seen.expires_in.unwrap() <= LEASE * 102 / 100);
        let began = sim.now();
        first.resign();
        assert!(!lease.is_valid());
        let Some(Leadership::Leading(next)) = second.next().await else { panic!("it leads") };
        assert!(sim.now() - began < Duration::from_millis(40), "{:?}", sim.now() - began);
        assert!(next.epoch() > lease.epoch() && next.is_valid());
        assert_eq!(at("a").query("none").await.unwrap(), None);
        // A role that is removed is held no more, and may be made anew.
        at("a").remove("jobs").await.unwrap();
        let Some(Leadership::Lost(lost)) = second.next().await else { panic!("it is lost") };
        assert_eq!(lost, next.epoch());
    });
}

/// Goal: a holder that is cut off stops acting before anybody else starts, though it hears of
/// nothing; when the cut heals it stands again.
#[test]
fn a_holder_that_is_cut_off_stops_before_another_starts() {
    for seed in 730..738 {
        Simulation::new(seed).run(|sim| async move {
            let cluster = founded(&sim, Shape::default(), VoteStyle::Split).await;
            let stage = Rc::<RefCell<Stage>>::default();
            for node in ["a", "b"] {
                stand(&cluster, node, "jobs", LEASE, &stage);
            }
            for _ in 0..3 {
                let (holder, _) = until(&sim, &stage, LEASE * 3, |_| true).await;
                let others: Vec<_> =
                    cluster.names().into_iter().filter(|one| one.as_str() != holder).collect();
                sim.partition(&[name(&holder)], &others);
                until(&sim, &stage, LEASE * 2 + BEYOND_MAX, |one| one != holder).await;
                sim.heal();
                // It stands again, so that it is there when the other is cut off.
                tokio::time::sleep(LEASE * 4).await;
            }
        });
    }
}
