//! The gate: switch any safety rule off, and the walk notices within a bounded number of runs. A
//! rule that nobody would miss is not tested.

use rand::SeedableRng;
use synod::mutation::{self, Mutation};
use synod_runtime::world::Rng;
use synod_tests::{
    invariants::Violation,
    walk::{self, Plan, Shape},
};

const SMALL: Shape = Shape { mains: 2, auxiliaries: 1, members: 1 };

/// The first run that breaks a promise other than to come to an end, and how.
fn hunt(mutation: Mutation, runs: u64, plan: impl Fn(u64) -> Plan) -> Option<(u64, Violation)> {
    mutation::set(Some(mutation));
    let found = (0..runs).find_map(|seed| {
        let violation = walk::run(&plan(seed), seed).err()?;
        (!["liveness", "rest"].contains(&violation.promise)).then_some((seed + 1, violation))
    });
    mutation::set(None);
    found
}

#[test]
fn calibrate() {
    let runs = std::env::var("SYNOD_RUNS").map_or(300, |n| n.parse().unwrap());
    let only = std::env::var("SYNOD_ONLY").unwrap_or_default();
    for mutation in Mutation::ALL {
        if !format!("{mutation:?}").contains(&only) {
            continue;
        }
        let half = Shape { auxiliaries: 2, ..SMALL };
        let shape = if mutation == Mutation::HalfInsteadOfMajority { half } else { SMALL };
        let found = hunt(mutation, runs, |seed| {
            let rng = &mut Rng::seed_from_u64(seed);
            let plan = if std::env::var_os("SYNOD_CHAOS").is_some() {
                Plan::chaos(shape, rng)
            } else {
                Plan::restless(shape, rng)
            };
            Plan { inside: std::env::var_os("SYNOD_INSIDE").is_some(), finish: false, ..plan }
        });
        println!("{mutation:?}: {found:?}");
    }
}
