//! Slow and full disks: a main whose disk is slow, hangs or takes no more holds up nobody for long.
//! Whole clusters in simulated worlds, and real processes on disks that can be held still.

use std::time::Duration;

use synod::{
    consensus::VoteStyle,
    replicated::{CallError, Reason},
    sim::{DiskConditions, Shape, Simulation},
};
use synod_tests::{
    process::{
        cluster::{Cluster, mains_of},
        disk::SmallDisk,
        load::{KvWriter, Load as Writers},
        machine::{alone, shared},
    },
    simulated::{Add, Load, Total, counter, founded, leader, leader_at, name},
};

/// Every write and sync takes a second, where a healthy disk takes less than a millisecond.
fn slow() -> DiskConditions {
    DiskConditions { latency: Duration::from_secs(1), ..DiskConditions::default() }
}

fn bridges(cluster: &synod::sim::Cluster) -> bool {
    let cores = cluster.mains().into_iter().filter_map(|main| cluster.core(&main));
    cores.map(|core| core.reached()).any(|reached| reached.bridging)
}

/// Goal: clients do not wait for the disk of a main that only follows. Method: it takes a
/// second for every sync, longer than anybody is to wait, until it was voted out and beyond; then it is
/// quick again, and comes back.
#[test]
fn slow_sync_of_a_following_main_is_bridged_around() {
    let _machine = shared();
    for (seed, (mains, auxiliaries)) in [(400, (2, 1)), (401, (3, 2)), (402, (3, 2))] {
        Simulation::new(seed).run(|sim| async move {
            let shape = Shape { mains, auxiliaries, members: 0 };
            let load = Load::start(founded(&sim, shape, VoteStyle::Split).await, 4);
            let leads = load.with(|cluster| leader(cluster));
            let slows = if leads == "a" { "b" } else { "a" };
            sim.set_disk_conditions(&name(slows), slow());
            let most = Duration::from_secs(1);
            load.until(most, "an auxiliary completes the steps", |c| bridges(c)).await;
            tokio::time::sleep(Duration::from_secs(10)).await;
            assert_eq!(load.with(|cluster| leader(cluster)), leads, "it leads on");
            sim.set_disk_conditions(&name(slows), DiskConditions::default());
            load.until_whole().await;
            load.finish(FOLLOWER_PAUSE_MAX).await;
        });
    }
}

/// Goal: a leader whose own votes are late makes room for a main with a quick disk, and does not come
/// back to lead as long as it is slow. Where mains choose without it, nobody waits for its disk and it
/// may lead on.
#[test]
fn a_leader_with_slow_sync_steps_down() {
    let _machine = shared();
    for (seed, (mains, auxiliaries)) in (410..).zip([(2, 1), (3, 2), (3, 0)]) {
        Simulation::new(seed).run(|sim| async move {
            let shape = Shape { mains, auxiliaries, members: 0 };
            let load = Load::start(founded(&sim, shape, VoteStyle::Split).await, 4);
            let slows = load.with(|cluster| leader(cluster));
            let other = if slows == "a" { "b" } else { "a" };
            sim.set_disk_conditions(&name(&slows), slow());
            let led_by_another = |cluster: &synod::sim::Cluster| {
                leader_at(cluster, other).is_some_and(|leads| leads != slows)
            };
            if auxiliaries > 0 {
                let most = Duration::from_secs(3);
                load.until(most, "another one leads", |cluster| led_by_another(cluster)).await;
                for _ in 0..100 {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    assert!(
                        load.with(|cluster| led_by_another(cluster)),
                        "the slow one leads again"
                    );
                }
            }
            sim.set_disk_conditions(&name(&slows), DiskConditions::default());
            load.until_whole().await;
            load.finish(LEADER_PAUSE_MAX).await;
        });
    }
}

/// Goal: a main whose disk is full still serves reads, as many as before, while it is a main and when it
/// was voted out.
#[test]
fn a_full_disk_does_not_slow_reads_down() {
    let _machine = shared();
    Simulation::new(420).run(|sim| async move {
        let load = Load::paced(founded(&sim, Shape::default(), VoteStyle::Split).await, 4, TICK);
        let leads = load.with(|cluster| leader(cluster));
        let full = name(if leads == "a" { "b" } else { "a" });
        let by_full = load.with(|cluster| counter(cluster, full.as_str()));
        let reads = async |_what: &str| {
            let (began, mut reads) = (sim.now(), 0);
            while sim.now() - began < Duration::from_secs(1) {
                by_full.query(Total).await.expect("a read where the disk is full");
                reads += 1;
                tokio::time::sleep(TICK).await; // under a lease none passes else
            }
            println!("{_what}: {reads}");
            reads
        };
        let before = reads("before").await;
        sim.set_disk_conditions(&full, DiskConditions { capacity: Some(0), ..Default::default() });
        let most = Duration::from_secs(60);
        load.until(most, "the disk is full", |cluster| {
            cluster.core(&full).expect("it runs").journal().stats().full
        })
        .await;
        for _ in 0..8 {
            let while_full = reads("full").await;
            assert!(while_full * 4 > before, "{while_full} reads in a second, {before} before");
        }
        sim.set_disk_conditions(&full, DiskConditions::default());
        load.until_whole().await;
        load.finish(FOLLOWER_PAUSE_MAX).await;
    });
}

/// Goal: a leader whose disk is full makes room for another one and does not come back to lead; it
/// refuses commands in words that name it, and reads on, also when it was voted out. With room it takes
/// commands as before.
#[test]
fn a_leader_whose_disk_is_full_steps_down() {
    let _machine = shared();
    for (seed, (mains, auxiliaries)) in (430..).zip([(2, 1), (3, 2), (3, 0)]) {
        Simulation::new(seed).run(|sim| async move {
            let shape = Shape { mains, auxiliaries, members: 0 };
            let load = Load::paced(founded(&sim, shape, VoteStyle::Split).await, 4, TICK);
            let full = load.with(|cluster| leader(cluster));
            let other = if full == "a" { "b" } else { "a" };
            let no_room = DiskConditions { capacity: Some(0), ..Default::default() };
            sim.set_disk_conditions(&name(&full), no_room);
            let elsewhere = |cluster: &synod::sim::Cluster| {
                leader_at(cluster, other).is_some_and(|leads| leads != full)
            };
            load.until(Duration::from_secs(60), "another one leads", |c| elsewhere(c)).await;
            let by_full = load.with(|cluster| counter(cluster, &full));
            for _ in 0..60 {
                tokio::time::sleep(Duration::from_millis(100)).await;
                assert!(load.with(|cluster| elsewhere(cluster)), "it leads again");
                by_full.query(Total).await.expect("a read where the disk is full");
                let refused = by_full.send(Add { by: 0 }).await.expect_err("no room");
                let text = format!("journal of {full} has no room");
                assert!(
                    matches!(&refused, CallError::NotApplied(why)
                        if why.reason == Reason::Full && why.text.contains(&text)),
                    "{refused:?}"
                );
            }
            sim.set_disk_conditions(&name(&full), DiskConditions::default());
            load.until_whole().await;
            by_full.send(Add { by: 0 }).await.expect("there is room");
            load.finish(FOLLOWER_PAUSE_MAX).await;
        });
    }
}

/// Two mains on disks of their own, and an auxiliary; none where this machine makes no such disks.
fn on_disks() -> Option<(Cluster, [SmallDisk; 2])> {
    let mut synod = Cluster::by_hand("synod");
    let device = |main: &str| {
        let (data, image) = (synod.dir().join(main).join("data"), synod.dir().join(main));
        SmallDisk::device(&data, &image.with_extension("image"), DISK_BYTES)
    };
    let disks = device("a").and_then(|a| Ok([a, device("b")?]));
    let disks = disks.and_then(|disks| {
        disks[0].hang()?;
        disks[0].go_on()?;
        Ok(disks)
    });
    match disks {
        Ok(disks) => {
            ["a", "b", "x"].iter().for_each(|name| synod.start_node(name));
            ["a", "b"].iter().for_each(|name| synod.wait_ready(name));
            Some((synod, disks))
        }
        Err(missing) => {
            eprintln!("SKIPPED, no disk can be held still here: {missing}");
            None
        }
    }
}

/// Holds the disk of the leader, or of the other main, still while clients write; answers how long
/// they waited for the next acknowledged write at most.
fn pause_while_hanging(leads: bool) -> Option<Duration> {
    let (synod, [a, b]) = on_disks()?;
    let (leader, follower) = synod.leader_and_follower();
    let hangs = if leads { leader } else { follower };
    let disk = if hangs == "a" { &a } else { &b };
    let load = Writers::start(&synod.resps(), KvWriter::connect, 4);
    load.wait_for_more(200);
    disk.hang().expect("it did before");
    load.wait_for_more(WRITES_WHILE_HANGING);
    disk.go_on().expect("it hangs");
    for name in ["a", "b"] {
        synod.wait_status(name, "both mains", |status| mains_of(status) == ["a", "b"]);
        synod.wait_ready(name);
    }
    load.wait_for_more(200);
    let book = load.finish();
    synod.resps().into_iter().for_each(|at| book.check_kv(at));
    Some(book.longest_gap())
}

/// The same on real processes and a real file system that takes no writes for a while.
#[test]
fn a_following_main_whose_disk_hangs_is_bridged_around() {
    let _machine = alone();
    let Some(gap) = pause_while_hanging(false) else { return };
    println!("the longest pause: {gap:?}");
    assert!(gap < PROCESS_PAUSE_MAX, "{gap:?}");
}

/// The same of a leader.
#[test]
fn a_leader_whose_disk_hangs_steps_down() {
    let _machine = alone();
    let Some(gap) = pause_while_hanging(true) else { return };
    println!("the longest pause: {gap:?}");
    assert!(gap < PROCESS_PAUSE_MAX, "{gap:?}");
}

/// Half of one sync of the slow disk, so that nobody waited for it: a hedge, a lease and a few round
/// trips; then again when it is voted out, and when it is let in.
const FOLLOWER_PAUSE_MAX: Duration = Duration::from_millis(500);

/// Four elections until it sees that it is stuck, and one more.
const LEADER_PAUSE_MAX: Duration = Duration::from_millis(1_500);

/// Between two calls of a client that is in no hurry.
const TICK: Duration = Duration::from_millis(1);

/// On a busy machine; a client that was not answered goes elsewhere after its own patience.
const PROCESS_PAUSE_MAX: Duration = Duration::from_secs(5);

/// More than could be on their way when the disk began to hang.
const WRITES_WHILE_HANGING: u64 = 500;

/// Room for a main's journal, its reserve and a snapshot.
const DISK_BYTES: u64 = 256 << 20;
