//! Random walks over the machines of consensus: nothing that Synod promises breaks, whatever goes
//! wrong; and once it is repaired, everything comes to its end.

use rand::SeedableRng;
use synod_runtime::world::Rng;
use synod_tests::walk::{self, Plan, Shape, Summary};

const SMALL: Shape = Shape { mains: 2, auxiliaries: 1, members: 1 };

fn chaos(shape: Shape, seed: u64) -> Plan {
    Plan::chaos(shape, &mut Rng::seed_from_u64(seed))
}

fn walk(name: &str, seeds: std::ops::Range<u64>, plan: impl Fn(u64) -> Plan) -> Vec<Summary> {
    let mut clean = Vec::new();
    let mut broken = Vec::new();
    for seed in seeds {
        match walk::run(&plan(seed), seed) {
            Ok(summary) => clean.push(summary),
            Err(violation) => broken.push(format!(
                "{violation}\nreplay: SYNOD_WALK={name}:{seed} cargo test -p synod-tests --test walk replay"
            )),
        }
    }
    assert!(
        broken.is_empty(),
        "{} broken runs\n{}",
        broken.len(),
        broken[..broken.len().min(9)].join("\n")
    );
    clean
}

#[test]
fn replay() {
    let Ok(which) = std::env::var("SYNOD_WALK") else { return };
    let (name, seed) = which.split_once(':').expect("NAME:SEED");
    let seed = seed.parse().expect("a number");
    match name {
        "calm" => walk(name, seed..seed + 1, |_| Plan::calm(SMALL)),
        "2+1" => walk(name, seed..seed + 1, |seed| chaos(SMALL, seed)),
        other => panic!("no walk is called {other}"),
    };
}

#[test]
fn a_calm_cluster_comes_to_its_end() {
    for summary in walk("calm", 0..5, |_| Plan::calm(SMALL)) {
        println!("{summary:?}");
    }
}

#[test]
fn whatever_goes_wrong_nothing_is_broken_and_all_ends_well() {
    let first = std::env::var("SYNOD_FIRST").map_or(0, |n| n.parse().unwrap());
    let runs = std::env::var("SYNOD_RUNS").map_or(100, |n| n.parse().unwrap());
    let summaries = walk("2+1", first..first + runs, |seed| chaos(SMALL, seed));
    let total = |of: fn(&Summary) -> u64| summaries.iter().map(of).sum::<u64>();
    println!(
        "events {} steps {} configurations {} done {} failed {} starts {} excused {} finished {}",
        total(|s| s.events),
        total(|s| s.steps),
        total(|s| s.configurations),
        total(|s| s.done),
        total(|s| s.failed),
        total(|s| s.starts),
        total(|s| u64::from(s.excused)),
        total(|s| s.finished_ms) / runs,
    );
}
