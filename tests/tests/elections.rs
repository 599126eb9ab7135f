//! Roles on whole clusters of the real actors, in simulated worlds: one holder at a time, epochs that
//! rise, takeover in time.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{cell::RefCell, collections::BTreeMap, rc::Rc, time::Duration};

use actix::{Actor, Context, Handler};
use rand::{RngExt as _, SeedableRng as _};
use synod::{
    consensus::VoteStyle,
    election::{
        message::{Epoch, SYSTEM_MANAGER},
        watch::Notice,
    },
    message::RemoteActor,
    server::{
        elections::{Heard, Leadership, Lease, RoleNews, Volunteer, Watch},
        registers::{Keeping, RolesIn},
    },
    sim::{Blueprint, Cluster, Shape, Simulation},
};
use synod_runtime::world::Rng;
use synod_tests::simulated::{Counter, founded, founded_as, leader, name};

const LEASE: Duration = Duration::from_secs(2);

/// What a takeover may cost beyond the lease.
const BEYOND_MAX: Duration = Duration::from_millis(300);

/// …by a member while the only other main is not yet voted out: its answers come when it asks again.
const MEMBER_BEYOND_MAX: Duration = Duration::from_millis(700);

/// …where roles are kept in registers: whoever waits looks now and then, and takes rounds to change
/// what it sees.
const REGISTERS_BEYOND_MAX: Duration = Duration::from_millis(900);

/// Every store of roles: each passes the same tests.
fn stores() -> [RolesIn; 3] {
    let [holders, servers] = [Keeping::Holders, Keeping::Servers].map(RolesIn::Registers);
    [RolesIn::Log, holders, servers]
}

fn beyond(store: &RolesIn) -> Duration {
    match store {
        RolesIn::Log => BEYOND_MAX,
        RolesIn::Registers(_) => REGISTERS_BEYOND_MAX,
    }
}

/// A cluster that keeps its roles there.
async fn cluster(sim: &Simulation, shape: Shape, roles: RolesIn) -> Cluster {
    let blueprint = Blueprint { roles, ..Blueprint::hosting::<Counter>("counter") };
    founded_as(sim, shape, blueprint).await
}

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

fn follow(volunteer: Volunteer, who: String, stage: Rc<RefCell<Stage>>) {
    actix_rt::spawn(async move { follow_to_the_end(volunteer, &who, &stage).await });
}

async fn follow_to_the_end(mut volunteer: Volunteer, who: &str, stage: &RefCell<Stage>) {
    while let Some(news) = volunteer.next().await {
        if let Leadership::Leading(lease) = news {
            let mut stage = stage.borrow_mut();
            stage.epochs.push(lease.epoch());
            stage.leases.insert(who.to_owned(), lease);
        }
    }
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
    let shapes = [
        (LEASE, 2, 1),
        (Duration::from_millis(300), 2, 1),
        (LEASE, 3, 2),
        (Duration::from_millis(500), 3, 0),
    ];
    let all = stores().into_iter().flat_map(|store| shapes.map(|shape| (store.clone(), shape)));
    for (seed, (store, (lease, mains, auxiliaries))) in (700..).zip(all) {
        Simulation::new(seed).run(|sim| async move {
            let shape = Shape { mains, auxiliaries, members: 1 };
            let beyond = beyond(&store);
            let mut cluster = cluster(&sim, shape, store).await;
            let stage = Rc::<RefCell<Stage>>::default();
            let first = leader(&cluster);
            stand(&cluster, &first, "jobs", lease, &stage);
            let (holder, _) = until(&sim, &stage, BEYOND_MAX, |_| true).await;
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
            assert!(
                took <= lease + MEMBER_BEYOND_MAX.max(beyond),
                "{took:?} with a lease of {lease:?}"
            );
            // And back from the member to a main, when that is cut off.
            let other = cluster.mains().into_iter().find(|main| main.as_str() != first).unwrap();
            stand(&cluster, other.as_str(), "jobs", lease, &stage);
            tokio::time::sleep(lease).await;
            cluster.crash(&name("m1"));
            stage.borrow_mut().leases.remove("m1");
            let (holder, took) = until(&sim, &stage, lease * 3, |_| true).await;
            assert_eq!(holder, other.as_str());
            assert!(took <= lease + beyond, "{took:?} with a lease of {lease:?}");
            let epochs = stage.borrow().epochs.clone();
            assert!(epochs.is_sorted() && epochs.len() == 3, "{epochs:?}");
        });
    }
}

/// Goal: a grant takes two commands' time at most, and a role that is resigned passes on as fast.
#[test]
fn a_resigned_role_passes_on_at_once() {
    for (seed, store) in (720..).zip(stores()) {
        Simulation::new(seed).run(|sim| passes_on_at_once(sim, store));
    }
}

async fn passes_on_at_once(sim: Simulation, store: RolesIn) {
    let (at_first, on) = match store {
        RolesIn::Log => (Duration::from_millis(20), Duration::from_millis(40)),
        // Rounds instead of steps, and more of them where a role is new.
        RolesIn::Registers(_) => (Duration::from_millis(150), Duration::from_millis(250)),
    };
    let cluster = cluster(&sim, Shape::default(), store).await;
    let at = |node: &str| cluster.core(&name(node)).unwrap().elections();
    let mut first = at("a").volunteer("jobs").named("first").stand().unwrap();
    let began = sim.now();
    let Some(Leadership::Leading(lease)) = first.next().await else { panic!("it leads") };
    assert!(sim.now() - began < at_first, "{:?}", sim.now() - began);
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
    assert!(sim.now() - began < on, "{:?}", sim.now() - began);
    assert!(next.epoch() > lease.epoch() && next.is_valid());
    assert_eq!(at("a").query("none").await.unwrap(), None);
    // A role that is removed is held no more, and may be made anew.
    at("a").remove("jobs").await.unwrap();
    let Some(Leadership::Lost(lost)) = second.next().await else { panic!("it is lost") };
    assert_eq!(lost, next.epoch());
}

/// Goal: a holder that is cut off stops acting before anybody else starts, though it hears of
/// nothing; when the cut heals it stands again.
#[test]
fn a_holder_that_is_cut_off_stops_before_another_starts() {
    let all = stores().into_iter().flat_map(|store| vec![store; 8]);
    for (seed, store) in (730..).zip(all) {
        Simulation::new(seed).run(|sim| async move {
            let beyond = beyond(&store);
            let cluster = cluster(&sim, Shape::default(), store).await;
            let stage = Rc::<RefCell<Stage>>::default();
            for node in ["a", "b"] {
                stand(&cluster, node, "jobs", LEASE, &stage);
            }
            for _ in 0..3 {
                let (holder, _) = until(&sim, &stage, LEASE * 3, |_| true).await;
                let others: Vec<_> =
                    cluster.names().into_iter().filter(|one| one.as_str() != holder).collect();
                sim.partition(&[name(&holder)], &others);
                until(&sim, &stage, LEASE * 2 + beyond, |one| one != holder).await;
                sim.heal();
                // It stands again, so that it is there when the other is cut off.
                tokio::time::sleep(LEASE * 4).await;
            }
        });
    }
}

/// Goal: whoever watches hears of every change, once, in order, at a main and at a member, while
/// nodes die; it goes on at another node from where it was; without a quorum it hears that what it
/// knows may be old.
#[test]
fn who_watches_hears_of_every_change_in_order() {
    Simulation::new(740).run(|sim| async move {
        let shape = Shape { members: 1, ..Shape::default() };
        let mut cluster = founded(&sim, shape, VoteStyle::Split).await;
        let at = |cluster: &Cluster, node: &str| cluster.core(&name(node)).unwrap().elections();
        let first = leader(&cluster);
        let other = if first == "a" { "b" } else { "a" };
        let mut here = at(&cluster, other).watch(Some("jobs"));
        let mut there = at(&cluster, "m1").watch(None);
        for watch in [&mut here, &mut there] {
            let Heard::State { roles, .. } = watch.next().await else { panic!("first the state") };
            assert!(roles.iter().all(|role| role.role == SYSTEM_MANAGER), "{roles:?}");
        }
        // A holder at the leader's node, which dies; then one at a member, which resigns.
        let stage = Rc::<RefCell<Stage>>::default();
        stand(&cluster, &first, "jobs", LEASE, &stage);
        until(&sim, &stage, LEASE, |_| true).await;
        let next = at(&cluster, "m1").volunteer("jobs").named("next").stand().unwrap();
        let began = sim.now();
        let expected = [(Some(first.as_str()), 0), (Some(first.as_str()), 1)];
        let seen = changes(&mut here, 2).await;
        assert_eq!(seen.iter().map(shown).collect::<Vec<_>>(), expected);
        assert!(sim.now() - began < Duration::from_millis(50), "{:?}", sim.now() - began);
        cluster.crash(&name(&first));
        let mut seen = seen;
        seen.extend(changes(&mut here, 1).await);
        assert_eq!(shown(&seen[2]), (Some("next"), 0));
        next.resign();
        // Elsewhere it goes on, as if it had been there all the time.
        let mark = here.next().await.mark().unwrap();
        let mut again = at(&cluster, "m1").watch(Some("jobs")).after(seen[0].mark);
        let told = changes(&mut again, 3).await;
        assert_eq!((&told[..2], told[2].mark), (&seen[1..], mark));
        assert_eq!(changes(&mut there, 3).await, seen, "all roles, by way of a member");
        // The rest of the cluster dies too, but for the member.
        let mut late = at(&cluster, "m1").watch(Some("jobs")).after(mark);
        cluster.crash(&name("x"));
        cluster.crash(&name(other));
        assert_eq!(late.next().await, Heard::Stale(true));
        cluster.start_all().unwrap();
        assert_eq!(late.next().await, Heard::Stale(false));
    });
}

/// Keeps what it hears.
#[derive(RemoteActor)]
#[remote(name = "test.listener", handles(RoleNews))]
struct Listener(Rc<RefCell<Vec<Heard>>>);

impl Actor for Listener {
    type Context = Context<Self>;
}

impl Handler<RoleNews> for Listener {
    type Result = ();

    fn handle(&mut self, news: RoleNews, _ctx: &mut Self::Context) {
        self.0.borrow_mut().push(news.heard);
    }
}

/// Goal: an actor on another node is told every change, in order.
#[test]
fn an_actor_elsewhere_is_told_every_change() {
    Simulation::new(745).run(|sim| async move {
        let cluster = founded(&sim, Shape::default(), VoteStyle::Split).await;
        let [a, b] = ["a", "b"].map(|node| cluster.core(&name(node)).unwrap());
        let heard = Rc::<RefCell<Vec<Heard>>>::default();
        let kept = Rc::clone(&heard);
        let listener = b.node().spawn("listener", move || Listener(Rc::clone(&kept)));
        b.node().register("listener", listener).unwrap();
        let there = a.node().recipient::<RoleNews>(b.node().id().clone(), "listener");
        a.elections().watch(Some("jobs")).deliver(there);
        for count in 1..=3 {
            let volunteer = (count == 2).then(|| a.elections().volunteer("jobs").stand().unwrap());
            let began = sim.now();
            while heard.borrow().len() < count {
                assert!(sim.now() - began < LEASE, "it heard {:?}", heard.borrow());
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            // Dropped, it resigns.
            drop(volunteer);
        }
        let leads: Vec<_> = heard.borrow().iter().map(leader_heard).collect();
        assert_eq!(leads, [None, Some("a".to_owned()), None]);
    });
}

/// Who leads, by what was heard.
fn leader_heard(heard: &Heard) -> Option<String> {
    let Heard::Changed(Notice { now: Some(view), .. }) = heard else { return None };
    view.holder.as_ref().map(|holder| holder.client.name.clone())
}

/// The next `count` changes.
async fn changes(watch: &mut Watch, count: usize) -> Vec<Notice> {
    let mut changes = Vec::new();
    while changes.len() < count {
        match watch.next().await {
            // Who leads the log is told to those who watch all roles.
            Heard::Changed(notice) if notice.role == SYSTEM_MANAGER => {}
            Heard::Changed(notice) => changes.push(notice),
            Heard::Stale(_) => {}
            Heard::State { .. } => panic!("something was missed after {changes:?}"),
        }
    }
    changes
}

/// Who leads, and how many stand.
fn shown(notice: &Notice) -> (Option<&str>, usize) {
    let view = notice.now.as_ref().expect("it is there");
    let leader = view.holder.as_ref().map(|holder| holder.client.name.as_str());
    (leader, view.volunteers.len())
}

/// Goal: at most one acts at any instant, epochs rise for ever, and somebody acts soon after faults
/// end, whatever store keeps the roles, while nodes die and come back, and links are cut.
#[test]
fn no_two_act_and_epochs_rise_in_every_store_whatever_fails() {
    for (number, store) in (0..).zip(stores()) {
        for seed in 0..6 {
            let store = store.clone();
            let seed = 760 + number * 100 + seed;
            println!("{store:?}, seed {seed}");
            Simulation::new(seed).run(|sim| faulty(sim, store, seed));
        }
    }
}

async fn faulty(sim: Simulation, store: RolesIn, seed: u64) {
    let lease = Duration::from_millis(500);
    let mut cluster = cluster(&sim, Shape::default(), store).await;
    let mut rng = Rng::seed_from_u64(seed);
    let stage = Rc::<RefCell<Stage>>::default();
    let names = cluster.names();
    for node in ["a", "b"] {
        keep_standing(&cluster, node, lease, &stage);
    }
    for _ in 0..12 {
        let victim = names[rng.random_range(0..names.len())].clone();
        let others: Vec<_> = names.iter().filter(|one| **one != victim).cloned().collect();
        let cut = rng.random_bool(0.5);
        if cut {
            sim.partition(std::slice::from_ref(&victim), &others);
        } else {
            cluster.crash(&victim);
            stage.borrow_mut().leases.remove(victim.as_str());
        }
        watch_for(&stage, Duration::from_millis(rng.random_range(100..2_000))).await;
        if cut {
            sim.heal();
        } else {
            cluster.start(&victim).expect("it starts again");
            if victim.as_str() != "x" {
                keep_standing(&cluster, victim.as_str(), lease, &stage);
            }
        }
        watch_for(&stage, Duration::from_millis(rng.random_range(0..2_000))).await;
    }
    until(&sim, &stage, Duration::from_secs(10), |_| true).await;
    let epochs = stage.borrow().epochs.clone();
    let rise = epochs.windows(2).all(|two| two[0] < two[1]);
    assert!(rise && !epochs.is_empty(), "{epochs:?}");
}

/// Stands at that node again and again, also where its service begins only later.
fn keep_standing(cluster: &Cluster, node: &str, lease: Duration, stage: &Rc<RefCell<Stage>>) {
    let elections = cluster.core(&name(node)).expect("it runs").elections();
    let (who, stage) = (node.to_owned(), Rc::clone(stage));
    actix_rt::spawn(async move {
        loop {
            let candidacy = elections.volunteer("jobs").named(&who).lease(lease);
            follow_to_the_end(candidacy.stand().expect("good terms"), &who, &stage).await;
            tokio::time::sleep(lease / 10).await;
        }
    });
}

/// For so long, at no instant two act.
async fn watch_for(stage: &RefCell<Stage>, time: Duration) {
    for _ in 0..time.as_millis() {
        let acting = acting(stage);
        assert!(acting.len() < 2, "two act at one instant: {acting:?}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Goal: an auxiliary hears nothing of roles in registers and of what renews them, and has no byte of
/// them, while both mains are there.
#[test]
fn an_auxiliary_idles_while_roles_are_kept_in_registers() {
    for (seed, store) in (790..).zip(stores()) {
        Simulation::new(seed).run(|sim| async move {
            let cluster = cluster(&sim, Shape::default(), store).await;
            let stage = Rc::<RefCell<Stage>>::default();
            for node in ["a", "b"] {
                stand(&cluster, node, "jobs", LEASE, &stage);
            }
            tokio::time::sleep(LEASE * 10).await;
            assert_eq!((acting(&stage).len(), stage.borrow().epochs.len()), (1, 1));
            let metrics = cluster.core(&name("x")).unwrap().node().metrics().render();
            let heard = "synod_protocol_messages_received_total{role=\"register\"} ";
            let heard = metrics.lines().find_map(|line| line.strip_prefix(heard));
            assert!(heard.is_none_or(|count| count == "0"), "{metrics}");
        });
    }
}
