//! Where managed services run: ranks, secondaries, what needs another, what is placed together; and
//! a random walk with crashes, cuts and pauses, in which one program runs at a time.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{collections::BTreeSet, time::Duration};

use rand::{RngExt, SeedableRng};
use synod::{
    management::message::{Checkpoint, Spec},
    mutation::{self, ServiceRule},
    sim::Simulation,
};
use synod_runtime::world::Rng;
use synod_tests::{
    simulated::{name, whole},
    theatre::{Theatre, service},
};

/// Goal: at the first start the highest rank begins; a secondary takes over before any spare, and as
/// many spares are promoted as are wanted; who gave it up in order is next.
#[test]
fn a_secondary_takes_over_before_any_spare() {
    Simulation::new(1_000).run(|sim| async move {
        let mut theatre = Theatre::open(&sim, 2).await;
        theatre.services("m2").add(service("web", LEASE)).await.unwrap();
        let (first, _) = theatre.until("web", |_| true).await;
        assert_eq!(first.node, "a", "the lowest name of all that are up");
        theatre.until_shown("m1", "web", |one| one["secondaries"][0] == "b").await;
        theatre.until_shown("m1", "web", |one| one["spares"][1] == "m2").await;
        // The spare m2 becomes the primary; a gave it up in order.
        theatre.services("a").move_to("web", "m2").await.unwrap();
        theatre.until("web", |ran| ran.node == "m2").await;
        theatre.until_shown("m1", "web", |one| one["secondaries"][0] == "a").await;
        // m1, a spare, becomes a secondary, and stays one although b has the lower name.
        theatre.services("a").set("web", 3).await.unwrap();
        theatre.until_shown("a", "web", |one| one["secondaries"][2] == "m1").await;
        theatre.services("a").set("web", 1).await.unwrap();
        theatre.until_shown("a", "web", |one| one["secondaries"][1].is_null()).await;
        theatre.cluster.crash(&name("a"));
        theatre.until_shown("b", "web", |one| one["secondaries"][0] == "b").await;
        theatre.until_shown("b", "web", |one| one["down"][0] == "a").await;
        tokio::time::sleep(LEASE * 2).await;
        theatre.cluster.crash(&name("m2"));
        let (next, _) = theatre.until("web", |ran| ran.node != "m2").await;
        assert_eq!(next.node, "b", "the secondary, not the spare m1");
        theatre.until_shown("b", "web", |one| one["secondaries"][0] == "m1").await;
        theatre.restart("a");
        tokio::time::sleep(LEASE * 4).await;
        theatre.until_shown("b", "web", |one| one["secondaries"][0] == "m1").await;
        assert_eq!(theatre.running("web").unwrap(), next, "nobody takes it from who has it");
    });
}

/// Goal: R2.33, a live primary keeps its job: whoever else comes or goes, no program is touched.
#[test]
fn whoever_else_comes_or_goes_moves_nothing() {
    Simulation::new(1_010).run(|sim| async move {
        let mut theatre = Theatre::open(&sim, 2).await;
        theatre.services("a").add(service("web", LEASE)).await.unwrap();
        theatre.services("a").add(service("db", LEASE)).await.unwrap();
        theatre.until("db", |_| true).await;
        theatre.services("a").move_to("web", "m1").await.unwrap();
        let (web, _) = theatre.until("web", |ran| ran.node == "m1").await;
        for node in ["b", "m2", "a"] {
            tokio::time::sleep(LEASE * 3).await;
            theatre.cluster.crash(&name(node));
            tokio::time::sleep(LEASE * 3).await;
            assert_eq!(theatre.running("web").as_ref(), Some(&web), "{node} died");
            theatre.restart(node);
            whole(&theatre.cluster).await;
            assert_eq!(theatre.running("web").as_ref(), Some(&web), "{node} came back");
        }
        theatre.judge().unwrap();
    });
}

/// Goal: services placed together have one primary at every moment, and move as one, also when
/// their node dies or one of them cannot be kept running there.
#[test]
fn what_is_placed_together_moves_as_one() {
    Simulation::new(1_020).run(|sim| async move {
        let mut theatre = Theatre::open(&sim, 1).await;
        theatre.services("b").add(service("db", LEASE)).await.unwrap();
        let with =
            |name: &str, other: &str| Spec { with: Some(other.to_owned()), ..service(name, LEASE) };
        theatre.services("b").add(with("web", "db")).await.unwrap();
        theatre.services("b").add(with("log", "web")).await.unwrap();
        for service in ["db", "web", "log"] {
            theatre.until(service, |ran| ran.node == "a").await;
        }
        theatre.services("b").move_to("log", "m1").await.unwrap();
        for service in ["db", "web", "log"] {
            theatre.until(service, |ran| ran.node == "m1").await;
        }
        together(&theatre);
        tokio::time::sleep(LEASE * 2).await;
        theatre.cluster.crash(&name("m1"));
        for service in ["db", "web", "log"] {
            theatre.until(service, |ran| ran.node == "a").await;
        }
        theatre.restart("m1");
        tokio::time::sleep(LEASE * 4).await;
        assert_eq!(theatre.running("db").unwrap().node, "a", "it was moved once, not for ever");
        // One of them ends again and again: it takes the others with it.
        theatre.stage().broken = vec!["a".to_owned()];
        theatre.services("b").freeze("web", true).await.unwrap();
        theatre.until_shown("b", "web", |one| one["state"] == "frozen").await;
        assert_eq!(theatre.running("db").unwrap().node, "a", "the others go on");
        theatre.services("b").freeze("web", false).await.unwrap();
        for service in ["db", "web", "log"] {
            theatre.until(service, |ran| ran.node != "a").await;
        }
        together(&theatre);
    });
}

fn together(theatre: &Theatre) {
    let places = ["db", "web", "log"].map(|service| {
        let ran = theatre.running(service).unwrap();
        (ran.node, ran.epoch)
    });
    assert_eq!(BTreeSet::from(places).len(), 1, "one node and one epoch");
}

/// Goal: what needs another begins after it and ends before it, when it is moved, frozen, or its
/// node stops in order.
#[test]
fn what_needs_another_begins_after_it_and_ends_before_it() {
    Simulation::new(1_030).run(|sim| async move { needs(&sim).await.unwrap() });
}

/// Goal: that is seen, if it is not so.
#[test]
fn that_what_is_needed_ends_last_is_missed_when_it_is_off() {
    mutation::set_service_rule(Some(ServiceRule::NeededEndLast));
    let seen = Simulation::new(1_030).run(|sim| async move { needs(&sim).await });
    mutation::set_service_rule(None);
    println!("{}", seen.unwrap_err());
}

async fn needs(sim: &Simulation) -> Result<(), String> {
    let theatre = Theatre::open(sim, 1).await;
    let services = theatre.services("m1");
    let needs =
        |name: &str, other: &str| Spec { needs: vec![other.to_owned()], ..service(name, LEASE) };
    services.add(service("db", LEASE)).await.unwrap();
    services.freeze("db", true).await.unwrap();
    services.add(needs("web", "db")).await.unwrap();
    services.add(needs("app", "web")).await.unwrap();
    tokio::time::sleep(LEASE).await;
    assert!(theatre.running("web").is_none() && theatre.running("app").is_none());
    theatre.until_shown("a", "web", |one| one["why"] == "it needs db").await;
    services.freeze("db", false).await.unwrap();
    let (app, _) = theatre.until("app", |_| true).await;
    tokio::time::sleep(LEASE).await;
    let to = if theatre.running("db").unwrap().node == "b" { "m1" } else { "b" };
    services.move_to("db", to).await.unwrap();
    theatre.until("db", |ran| ran.node == to).await;
    theatre.until("app", |ran| ran.began > app.began).await;
    in_order(&theatre)?;
    services.freeze("db", true).await.unwrap();
    theatre.until_shown("a", "db", |one| one["state"] == "frozen").await;
    assert!(theatre.running("app").is_none() && theatre.running("web").is_none());
    in_order(&theatre)
}

/// Whatever ran had what it needs beside it, from its beginning to its end.
fn in_order(theatre: &Theatre) -> Result<(), String> {
    let stage = theatre.stage();
    for (service, needed) in [("web", "db"), ("app", "web")] {
        for ran in &stage.ran[service] {
            let beside = stage.ran[needed].iter().any(|other| {
                let ends = other.ended.unwrap_or(Duration::MAX);
                other.began <= ran.began && ran.ended.unwrap_or(Duration::MAX) <= ends
            });
            if !beside {
                return Err(format!("{service} ran without {needed}: {ran:?}"));
            }
        }
    }
    Ok(())
}

/// Goal: R2.12 to R2.15, R2.69, R2.79: secondaries get checkpoints and spares none; a spare gets one
/// before it is promoted; whoever takes over goes on from the last one, and after a move in order
/// nothing is missing.
#[test]
fn secondaries_take_over_from_the_last_checkpoint_and_spares_get_none() {
    Simulation::new(1_040).run(|sim| async move {
        let mut theatre = Theatre::open(&sim, 2).await;
        let spec = Spec { checkpoint: Some(passed_on(500)), ..service("web", LEASE) };
        theatre.services("m2").add(spec).await.unwrap();
        theatre.until("web", |ran| ran.node == "a").await;
        theatre.until_shown("m1", "web", |one| one["secondaries"][0] == "b").await;
        assert!(!theatre.stage().imports.is_empty(), "promoted with the state");
        tokio::time::sleep(LEASE * 5).await;
        let got = |theatre: &Theatre| {
            let got: BTreeSet<_> =
                theatre.stage().imports.iter().map(|(node, ..)| node.clone()).collect();
            got.into_iter().collect::<Vec<_>>().join(" ")
        };
        assert_eq!(got(&theatre), "b");
        assert!(theatre.stage().imports.len() >= 9, "every half second");
        // Moved in order, nothing is missing.
        theatre.services("a").move_to("web", "b").await.unwrap();
        let (moved, _) = theatre.until("web", |ran| ran.node == "b").await;
        let left = theatre.stage().known[&("a".to_owned(), "web".to_owned())];
        assert!(moved.found + LAST_MOMENTS >= left, "{moved:?}, when a had {left}");
        // It dies: a, which gave it up in order, is its secondary.
        tokio::time::sleep(LEASE * 2).await;
        let had = theatre.stage().known[&("b".to_owned(), "web".to_owned())];
        theatre.cluster.crash(&name("b"));
        let (next, _) = theatre.until("web", |ran| ran.node != "b").await;
        assert_eq!(next.node, "a");
        // Half a second and the way: some 110 of its moments of 5 ms.
        assert!(next.found > moved.found && next.found + 130 >= had, "{next:?}, b had {had}");
        theatre.until_shown("a", "web", |one| one["secondaries"][0] == "m1").await;
        theatre.restart("b");
        tokio::time::sleep(LEASE * 3).await;
        assert_eq!(got(&theatre), "a b m1", "m2 is a spare all the time");
        theatre.judge().unwrap();
    });
}

/// Goal: T15, mode *sync*: whatever a program did before a checkpoint that it asked for was answered is
/// known to whoever takes over, whenever its node dies; without a secondary nobody is told so.
#[test]
fn what_was_done_before_an_answered_checkpoint_is_known_to_whoever_takes_over() {
    for seed in 1_050..1_056 {
        Simulation::new(seed).run(|sim| async move {
            let mut rng = Rng::seed_from_u64(seed);
            let mut theatre = Theatre::open(&sim, 2).await;
            // So seldom that only what was asked for counts.
            let spec = Spec { checkpoint: Some(passed_on(600_000)), ..service("web", LEASE) };
            theatre.services("m2").add(spec).await.unwrap();
            for _ in 0..4 {
                let (first, _) = theatre.until("web", |_| true).await;
                theatre.until_shown("m2", "web", |one| one["secondaries"][0].is_string()).await;
                let others = ["a", "b", "m1", "m2"].into_iter();
                let others: Vec<_> = others.filter(|node| *node != first.node).collect();
                let mut promised = 0;
                for _ in 0..rng.random_range(1..5) {
                    tokio::time::sleep(Duration::from_millis(rng.random_range(0..400))).await;
                    let done = theatre.stage().known[&(first.node.clone(), "web".to_owned())];
                    let by = others[rng.random_range(0..others.len())];
                    let has = theatre.services(by).checkpoint("web").await;
                    assert!(has.is_ok_and(|nodes| !nodes.contains(&first.node)));
                    promised = done;
                }
                theatre.cluster.crash(&name(&first.node));
                let (next, _) = theatre.until("web", |ran| ran.node != first.node).await;
                assert!(next.found >= promised, "{next:?}, when {promised} were promised");
                theatre.restart(&first.node);
                whole(&theatre.cluster).await;
                tokio::time::sleep(LEASE * 6).await;
            }
            let refused = theatre.services("a").checkpoint("none").await.unwrap_err().to_string();
            assert!(refused.contains("no service none"), "{refused}");
            theatre.services("a").set("web", 0).await.unwrap();
            theatre.until_shown("a", "web", |one| one["secondaries"][0].is_null()).await;
            let refused = theatre.services("a").checkpoint("web").await.unwrap_err().to_string();
            assert!(refused.contains("no secondary"), "{refused}");
            theatre.judge().unwrap();
        });
    }
}

/// Checkpoints that are taken so often.
fn passed_on(every_ms: u32) -> Checkpoint {
    let words = |word: &str| vec![word.to_owned()];
    Checkpoint { export: words("out"), import: words("in"), every_ms, freshest: false }
}

/// Goal: T16: of two secondaries the one with the lower name takes over; where the newest checkpoint is
/// to count, the one that has it, in time all the same. Who was named for a move has it in any case, and
/// when all who know more are gone, the other takes over.
#[test]
fn the_secondary_with_the_newest_checkpoint_takes_over_where_that_counts() {
    for (seed, freshest) in [(1_060, false), (1_061, true), (1_062, true)] {
        Simulation::new(seed).run(|sim| async move {
            let mut theatre = Theatre::open(&sim, 1).await;
            let checkpoint = Some(Checkpoint { freshest, ..passed_on(200) });
            let spec = Spec { checkpoint, secondaries: 2, ..service("web", LEASE) };
            theatre.services("m1").add(spec).await.unwrap();
            theatre.until("web", |ran| ran.node == "a").await;
            theatre.until_shown("m1", "web", |one| one["secondaries"][1].is_string()).await;
            tokio::time::sleep(LEASE).await;
            theatre.stage().deaf = vec!["b".to_owned()];
            tokio::time::sleep(LEASE * 2).await;
            let knows = |theatre: &Theatre, node: &str| {
                theatre.stage().known[&(node.to_owned(), "web".to_owned())]
            };
            let (b, m1) = (knows(&theatre, "b"), knows(&theatre, "m1"));
            assert!(b + 100 < m1, "b has missed some: {b}, and {m1}");
            theatre.cluster.crash(&name("a"));
            let (next, took) = theatre.until("web", |ran| ran.node != "a").await;
            assert!(took <= LEASE + Duration::from_millis(500), "{took:?}");
            assert_eq!(next.node, if freshest { "m1" } else { "b" });
            assert_eq!(next.found >= m1, freshest, "{next:?}: m1 had {m1}");
            theatre.restart("a");
            whole(&theatre.cluster).await;
            if !freshest {
                return;
            }
            // b, which gets nothing still, is told to: it does, and keeps it.
            theatre.until_shown("m1", "web", |one| one["secondaries"][0].is_string()).await;
            tokio::time::sleep(LEASE * 2).await;
            if seed % 2 == 0 {
                theatre.services("a").move_to("web", "b").await.unwrap();
                let (moved, _) = theatre.until("web", |ran| ran.node == "b").await;
                tokio::time::sleep(LEASE * 4).await;
                assert_eq!(theatre.running("web"), Some(moved));
            } else {
                theatre.cluster.crash(&name("a"));
                theatre.cluster.crash(&name("m1"));
                theatre.restart("a");
                theatre.until("web", |ran| ran.node != "m1").await;
            }
            theatre.judge().unwrap();
        });
    }
}

/// What a program does between its last checkpoint and its end: the checkpoint's way, and 60 ms.
const LAST_MOMENTS: u64 = 40;

/// Goal: whatever dies, is cut off or hangs while services are moved and frozen, one program of
/// each runs at a time, and in the end all run.
#[test]
fn one_program_of_a_service_runs_at_a_time_whatever_happens() {
    let runs: usize = (1_100..1_100 + WALKS).map(|seed| walk(seed).unwrap()).sum();
    println!("{WALKS} walks: {runs} programs");
    assert!(runs > WALKS as usize * 4, "nothing happened");
}

/// Goal: the rule behind it is missed when it is off.
#[test]
fn that_a_role_is_given_up_only_without_its_program_is_missed_when_it_is_off() {
    mutation::set_service_rule(Some(ServiceRule::GivesUpWhenGone));
    let seen = (1_100..1_100 + WALKS).find_map(|seed| walk(seed).err());
    mutation::set_service_rule(None);
    println!("{}", seen.expect("somebody notices"));
}

/// Some thirty faults and changes, then calm; how many programs ran.
fn walk(seed: u64) -> Result<usize, String> {
    Simulation::new(seed).run(|sim| async move {
        let mut rng = Rng::seed_from_u64(seed);
        let mut theatre = Theatre::open(&sim, 1).await;
        let services = theatre.services("m1");
        let db = Spec { needs: vec!["web".to_owned()], ..service("db", LEASE) };
        services.add(service("web", LEASE)).await.unwrap();
        services.add(db).await.unwrap();
        theatre.until("db", |_| true).await;
        for _ in 0..STEPS {
            let players = theatre.players();
            let node = players[rng.random_range(0..players.len())].clone();
            let up = theatre.cluster.core(&name(&node)).is_some();
            match rng.random_range(0..8) {
                0 | 1 if up => theatre.cluster.crash(&name(&node)),
                0 | 1 => theatre.restart(&node),
                2 => {
                    let others: Vec<_> = theatre.cluster.names();
                    let others: Vec<_> =
                        others.into_iter().filter(|other| other.as_str() != node).collect();
                    sim.partition(&[name(&node)], &others);
                }
                3 if up => sim.pause(&name(&node)),
                4 => sim.heal_network(),
                _ if up => {
                    let services = theatre.services(&node);
                    let which = if rng.random() { "web" } else { "db" };
                    let to = players[rng.random_range(0..players.len())].clone();
                    let change = rng.random_range(0..3);
                    // Nobody waits for it: its node may hear nobody.
                    actix_rt::spawn(async move {
                        let _outcome = match change {
                            0 => services.freeze(which, true).await,
                            1 => services.freeze(which, false).await,
                            _ => services.move_to(which, &to).await,
                        };
                    });
                }
                _ => {}
            }
            for _ in 0..rng.random_range(1..60) {
                tokio::time::sleep(Duration::from_millis(20)).await;
                theatre.judge()?;
            }
            for node in theatre.players().iter().filter(|_| rng.random_bool(0.3)) {
                if theatre.cluster.core(&name(node)).is_some() {
                    sim.resume(&name(node));
                }
            }
        }
        calm(&sim, &mut theatre).await?;
        theatre.judge()?;
        Ok(theatre.stage().ran.values().map(Vec::len).sum())
    })
}

/// The faults are over: both services must come to run.
async fn calm(sim: &Simulation, theatre: &mut Theatre) -> Result<(), String> {
    sim.heal();
    for node in theatre.players() {
        if theatre.cluster.core(&name(&node)).is_none() {
            theatre.restart(&node);
        }
    }
    whole(&theatre.cluster).await;
    let services = theatre.services("a");
    for service in ["web", "db"] {
        services.freeze(service, false).await.unwrap();
    }
    for service in ["web", "db"] {
        let began = sim.now();
        while theatre.running(service).is_none() {
            theatre.judge()?;
            if sim.now() - began > SETTLED {
                return Err(format!("{service} runs nowhere: {:?}", services.documents()));
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    Ok(())
}

/// Short, so that much happens.
const LEASE: Duration = Duration::from_secs(1);

/// Each of some twenty simulated seconds.
const WALKS: u64 = 12;
const STEPS: u32 = 30;

/// By then all must run.
const SETTLED: Duration = Duration::from_secs(15);
