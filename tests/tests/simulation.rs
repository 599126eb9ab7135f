//! Whole clusters of the real actors in simulated worlds.
//!
//! Trials (`synod::sim::Trial`) are judged by the properties of `synod::sim::properties`; the tests
//! further down drive a cluster by hand, where a promise names one very history.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use synod::{
    consensus::{Profile, timing::VoteStyle},
    replicated::{CallError, Consistency},
    sim::{DiskConditions, Report, Shape, Simulation, Trial, Weather},
};
use synod_tests::simulated::{Add, Total, counter, founded, leader, name, whole};

/// Half a simulated minute of faults, for each of `seeds`.
fn trials(faults: &str, seeds: std::ops::Range<u64>) {
    for seed in seeds {
        sound(&trial(faults).run(seed), faults);
    }
}

fn trial(faults: &str) -> Trial {
    let plan = faults.parse().unwrap();
    Trial { plan, length: Duration::from_secs(30), ..Trial::default() }
}

fn sound(report: &Report, faults: &str) {
    let Report { seed, violations, story, .. } = report;
    let found: Vec<String> = violations.iter().map(ToString::to_string).collect();
    assert!(
        found.is_empty(),
        "{}\n{}\nreplay: synod simulate --seed {seed} --runs 1 --faults {faults}",
        story.join("\n"),
        found.join("\n")
    );
}

/// Goal: nothing acknowledged is lost, doubled or out of order whatever the network does.
#[test]
fn r1_40_r1_41_a_bad_network_costs_time_only() {
    trials("loss,duplication,reorder", 0..6);
    trials("cut,clog,partition", 10..16);
}

/// Goal: what was said survives power cuts at any disk operation.
#[test]
fn r1_18_power_cuts_lose_nothing_that_was_said() {
    trials("crash", 20..30);
}

/// Goal: failing, full and slow disks stop a node at worst; they never make it forget.
#[test]
fn bad_disks_lose_nothing_that_was_said() {
    trials("eio,enospc,slowsync", 30..36);
}

/// Goal: a node that lost its disk, or finds a bit of it changed, comes back as another node.
#[test]
fn r1_37_a_node_with_a_new_disk_is_admitted_again() {
    trials("diskloss,bitrot,crash", 40..48);
}

/// Goal: no promise rests on clocks or on punctual nodes.
#[test]
fn clocks_and_pauses_cost_time_only() {
    trials("pause,drift,jump", 50..54);
}

/// Goal: any role that panics under load is rebuilt under its name and nothing is lost.
#[test]
fn r6_4_roles_that_panic_are_rebuilt_and_lose_nothing() {
    trials("panic", 60..70);
}

/// Goal: all of it at once.
#[test]
fn everything_goes_wrong_and_nothing_is_lost() {
    trials("all", 70..85);
}

/// Goal: zero messages and zero bytes at the auxiliary while nothing is wrong. Method: the trial
/// compares its counters from founding to end.
#[test]
fn r1_32_the_auxiliary_is_idle_while_nothing_is_wrong() {
    trials("none", 90..94);
}

/// Goal: at 80 ms round trip and one packet of a hundred lost nobody is accused falsely: not one
/// suspicion, bridge, vote-out or election after the first. Method: the trial compares what every
/// main thinks of the others, all the time; the auxiliary's counters stand still too.
#[test]
fn between_cities_nobody_is_suspected_while_nothing_is_wrong() {
    for shape in [(2, 1), (3, 2), (3, 0)] {
        let (mains, auxiliaries) = shape;
        let shape = Shape { mains, auxiliaries, members: 0 };
        for seed in 110..116 {
            let length = Duration::from_secs(120);
            let trial = Trial { shape, profile: Profile::Wan, length, ..trial("none") };
            sound(&trial.run(seed), "none --profile wan");
        }
    }
}

/// Goal: the test above would see a suspicion. Method: the same network, with a local one's patience.
#[test]
fn a_local_patience_would_suspect_nodes_between_cities() {
    Simulation::new(117).run(|sim| async move {
        let cluster = founded(&sim, Shape::default(), VoteStyle::Split).await;
        sim.set_climate(Weather::wan());
        let mut suspected = 0;
        for _ in 0..600 {
            let client = counter(&cluster, "a");
            // Whatever comes of it: what the mains think of it counts.
            let _ = client.send(Add { by: 1 }).await;
            for main in cluster.mains() {
                let reached = cluster.core(&main).unwrap().reached();
                suspected += u32::from(reached.bridging || reached.leader.0.is_none());
            }
        }
        assert!(suspected > 0);
    });
}

/// Goal: the faults of every other test, between cities.
#[test]
fn between_cities_the_same_promises_hold() {
    let kinds = ["loss,duplication,reorder", "cut,clog,partition", "crash", "eio,enospc,slowsync"];
    let kinds =
        kinds.into_iter().chain(["diskloss,bitrot,crash", "pause,drift,jump", "panic", "all"]);
    for (seed, faults) in (120u64..).step_by(4).zip(kinds) {
        for seed in seed..seed + 4 {
            let trial = Trial { profile: Profile::Wan, ..trial(faults) };
            sound(&trial.run(seed), &format!("{faults} --profile wan"));
        }
    }
}

/// Goal: other shapes keep the same promises.
#[test]
fn r1_31_one_main_alone_three_with_two_auxiliaries_and_three_without_work_too() {
    for (mains, auxiliaries) in [(1, 0), (3, 2), (3, 0)] {
        let shape = Shape { mains, auxiliaries, members: 0 };
        let faults = "loss,partition,crash,pause";
        for seed in 100..105 {
            sound(&Trial { shape, ..trial(faults) }.run(seed), faults);
        }
    }
    // Everything goes wrong, whatever the shape of the seed, and with members.
    for seed in [2, 3, 8, 11, 18, 19, 26, 27] {
        let shape = Shape::of_seed(seed);
        sound(&Trial { shape, ..trial("all") }.run(seed), &format!("all --shape {shape}"));
    }
}

/// Goal: a seed is a whole history. Method: the same seed twice, on two threads.
#[test]
fn the_same_seed_is_the_same_history() {
    let run = || trial("all").run(8841);
    let other = std::thread::spawn(run);
    let (one, other) = (run(), other.join().unwrap());
    assert_eq!(one, other);
    assert_ne!(one.digest, trial("all").run(8842).digest);
}

/// Goal: what failed once does not fail again.
#[test]
fn seeds_that_failed_once_pass() {
    let list = include_str!("../seeds/simulation.txt");
    for line in list.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let mut words = line.split_whitespace();
        let (seed, faults) = (words.next().unwrap().parse().unwrap(), words.next().unwrap());
        let length = Duration::from_secs(60);
        sound(&Trial { length, ..trial(faults) }.run(seed), faults);
    }
}

/// Goal: client → leader → peer → client, three one-way delays. Method: every path takes exactly
/// ten milliseconds, disks take none, and a member's client is timed.
#[test]
fn r1_7_a_members_command_takes_three_one_way_delays() {
    const ONE_WAY: Duration = Duration::from_millis(10);
    for style in [VoteStyle::Split, VoteStyle::Piggyback] {
        Simulation::new(17).run(|sim| async move {
            let shape = Shape { members: 1, ..Shape::default() };
            let cluster = founded(&sim, shape, style).await;
            let client = counter(&cluster, "m1");
            assert_eq!(client.send(Add { by: 1 }).await, Ok(1), "its session is open now");
            let still = Duration::ZERO;
            sim.set_weather(Weather { latency: ONE_WAY, jitter: still, ..Weather::default() });
            for node in cluster.names() {
                let disk = DiskConditions { latency: still, jitter: still, ..Default::default() };
                sim.set_disk_conditions(&node, disk);
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
            let began = sim.now();
            assert_eq!(client.send(Add { by: 1 }).await, Ok(2));
            let took = sim.now() - began;
            let slack = Duration::from_millis(1);
            assert!(took >= 3 * ONE_WAY && took < 3 * ONE_WAY + slack, "{style:?}: {took:?}");
        });
    }
}

/// R3 of reads: at every main a read asks nobody while leases last, and sees what was acknowledged
/// at another main just before; cut off from the leader, the one that is bypassed answers nothing
/// old. Three mains need each other like two, if there are two auxiliaries.
#[test]
fn reads_under_a_lease_ask_nobody_and_are_never_old() {
    leased_reads(Shape::default());
    leased_reads(Shape { mains: 3, auxiliaries: 2, members: 0 });
}

fn leased_reads(shape: Shape) {
    const ONE_WAY: Duration = Duration::from_millis(10);
    Simulation::new(19).run(|sim| async move {
        let cluster = founded(&sim, shape, VoteStyle::Split).await;
        let leader = leader(&cluster);
        let other = if leader == "a" { "b" } else { "a" };
        let [at_leader, at_other] = [leader.as_str(), other].map(|main| counter(&cluster, main));
        assert_eq!(at_other.send(Add { by: 1 }).await, Ok(1));
        let jitter = Duration::ZERO;
        sim.set_weather(Weather { latency: ONE_WAY, jitter, ..Weather::default() });
        tokio::time::sleep(Duration::from_secs(1)).await;
        for by in 2..30 {
            assert_eq!(at_leader.send(Add { by: 1 }).await, Ok(by));
            for reader in [&at_other, &at_leader] {
                let began = sim.now();
                assert_eq!(reader.query(Total).await, Ok(by), "acknowledged before");
                let took = sim.now() - began;
                // The first ones ask, and with them for leases; the step may be on its way yet.
                let most = if by < 5 { 5 * ONE_WAY } else { ONE_WAY + ONE_WAY / 10 };
                assert!(took <= most, "{by}: {took:?}");
            }
            let began = sim.now();
            assert_eq!(at_other.query(Total).await, Ok(by));
            assert!(by < 5 || sim.now() - began < ONE_WAY / 10, "{by}: it asked nobody");
        }
        sim.partition(&[name(&leader)], &[name(other)]);
        let began = sim.now();
        assert_eq!(at_leader.send(Add { by: 1 }).await, Ok(30), "through the auxiliary");
        let waited = sim.now() - began;
        assert!(waited > Duration::from_millis(80), "the other's lease was not over: {waited:?}");
        assert_ne!(at_other.query(Total).await, Ok(29), "a lease that is over is not used");
    });
}

/// A bounded read asks nobody while its node was told within that time how far the log is; it sees
/// all that was acknowledged before, at a member too; and once cut off, a node answers nothing older.
#[test]
fn bounded_reads_are_never_older_than_they_may_be() {
    const ONE_WAY: Duration = Duration::from_millis(10);
    const AGE: Duration = Duration::from_millis(500);
    Simulation::new(21).run(|sim| async move {
        let shape = Shape { members: 1, ..Shape::default() };
        let cluster = founded(&sim, shape, VoteStyle::Split).await;
        let jitter = Duration::ZERO;
        sim.set_weather(Weather { latency: ONE_WAY, jitter, ..Weather::default() });
        let [writer, member] = ["a", "m1"].map(|node| counter(&cluster, node));
        let read = || member.query(Total).consistency(Consistency::Bounded(AGE));
        let (mut asked, mut free) = (0, 0);
        let mut acknowledged = vec![(sim.now(), 0)];
        for by in 1..60 {
            assert_eq!(writer.send(Add { by: 1 }).await, Ok(by));
            acknowledged.push((sim.now(), by));
            let began = sim.now();
            let seen = read().await.expect("an answer");
            let due = acknowledged.iter().rev().find(|(at, _)| *at + AGE <= began);
            assert!(seen >= due.map_or(0, |(_, due)| *due), "{seen} at {began:?}: {due:?}");
            if sim.now() - began < ONE_WAY { free += 1 } else { asked += 1 }
        }
        assert!(free > 4 * asked && asked > 1, "{free} asked nobody, {asked} did");
        sim.partition(&[name("m1")], &[name("a"), name("b"), name("x")]);
        assert!(read().await.is_ok(), "what it has is not too old yet");
        tokio::time::sleep(AGE).await;
        assert!(read().await.is_err(), "nobody tells it how far the log is");
    });
}

/// Goal: after one main fails the other goes on within a second, the auxiliary idles again, and
/// the failed one comes back by a configuration step.
#[test]
fn r1_33_r1_34_r1_37_a_lone_main_goes_on_and_lets_the_other_back_in() {
    Simulation::new(18).run(|sim| async move {
        let mut cluster = founded(&sim, Shape::default(), VoteStyle::Split).await;
        let dead = leader(&cluster);
        let alive = if dead == "a" { "b" } else { "a" };
        let client = counter(&cluster, alive);
        assert_eq!(client.send(Add { by: 1 }).await, Ok(1));
        let began = sim.now();
        cluster.crash(&name(&dead));
        assert_eq!(client.send(Add { by: 1 }).await, Ok(2));
        assert!(sim.now() - began < Duration::from_secs(1), "{:?}", sim.now() - began);
        tokio::time::sleep(Duration::from_secs(10)).await;
        let reached = cluster.core(&name(alive)).unwrap().reached();
        assert_eq!(reached.configuration.unwrap().mains.len(), 1, "the dead one is voted out");
        assert_eq!(cluster.core(&name("x")).unwrap().reached().holds, None, "nothing is held");
        let journal = cluster.core(&name("x")).unwrap().journal().clone();
        let bytes = journal.stats().bytes;
        assert_eq!(client.send(Add { by: 1 }).await, Ok(3));
        assert_eq!(journal.stats().bytes, bytes, "the auxiliary idles");
        cluster.start(&name(&dead)).unwrap();
        whole(&cluster).await;
        assert_eq!(counter(&cluster, &dead).query(Total).await, Ok(3));
    });
}

/// Goal: the lone survivor of two near-simultaneous failures refuses or does not know, says whom it
/// waits for, loses nothing, and goes on when either of them is back.
#[test]
fn r1_38_the_lone_survivor_halts_says_why_and_goes_on() {
    for back in ["b", "x"] {
        Simulation::new(19).run(|sim| async move {
            let mut cluster = founded(&sim, Shape::default(), VoteStyle::Split).await;
            let client = counter(&cluster, "a");
            assert_eq!(client.send(Add { by: 1 }).await, Ok(1));
            cluster.crash(&name("b"));
            cluster.crash(&name("x"));
            // What may have been sent to somebody has an unknown outcome; later calls have not.
            let first = client.send(Add { by: 10 }).timeout(Duration::from_secs(5)).await;
            assert!(
                matches!(first, Err(CallError::Unknown(_) | CallError::NotApplied(_))),
                "{first:?}"
            );
            let status = cluster.core(&name("a")).unwrap().status();
            let halted = status["halted"].as_str().unwrap_or_default().to_owned();
            assert!(halted.contains("main b") && halted.contains("auxiliary x"), "{status}");
            assert!(cluster.core(&name("a")).unwrap().ready().is_err());
            cluster.start(&name(back)).unwrap();
            let next = client.send(Add { by: 100 }).timeout(Duration::from_secs(20)).await;
            let total = next.unwrap();
            assert!([101, 111].contains(&total), "{total}: each at most once, none forgotten");
            assert_eq!(client.query(Total).await, Ok(total));
        });
    }
}

/// Goal: a command that is on its way when the leader dies is answered once, and applied once.
#[test]
fn a_command_outlives_the_leader_it_was_sent_to() {
    Simulation::new(20).run(|sim| async move {
        let mut cluster = founded(&sim, Shape::default(), VoteStyle::Split).await;
        let dead = leader(&cluster);
        let alive = if dead == "a" { "b" } else { "a" };
        let client = counter(&cluster, alive);
        assert_eq!(client.send(Add { by: 1 }).await, Ok(1));
        let answers: Arc<Mutex<Vec<_>>> = Arc::default();
        let told = Arc::clone(&answers);
        let on_its_way = client.clone();
        actix_rt::spawn(async move {
            let answer = on_its_way.send(Add { by: 1 }).await;
            told.lock().unwrap().push(answer);
        });
        tokio::task::yield_now().await;
        cluster.crash(&name(&dead));
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert_eq!(*answers.lock().unwrap(), vec![Ok(2)]);
        assert_eq!(client.query(Total).await, Ok(2));
    });
}
