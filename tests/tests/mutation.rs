//! The gate: switch any safety rule off, and the walk notices within a bounded number of runs. A
//! rule that nobody would miss is not tested.
//!
//! What notices is, but for one rule, only what can be seen from outside of the machines: what
//! nodes learn, what state they are in, what clients are told.

use rand::SeedableRng;
use synod::mutation::{self, Mutation};
use synod_runtime::world::Rng;
use synod_tests::walk::{self, Plan, Shape};

const SMALL: Shape = Shape { mains: 2, auxiliaries: 1, members: 1 };

/// How a rule is hunted for: many times as long as it took when this was written.
#[derive(Debug, Clone, Copy)]
struct Hunt {
    shape: Shape,
    /// Runs that are enough.
    runs: u64,
    /// Whether to look into the machines.
    inside: bool,
}

fn hunt_for(mutation: Mutation) -> Hunt {
    let within = |runs| Hunt { shape: SMALL, runs, inside: false };
    match mutation {
        Mutation::SaidBeforeDurable
        | Mutation::IgnoreReportedVotes
        | Mutation::NoDuplicateCheck
        | Mutation::SnapshotForgetsSessions
        | Mutation::AssumeInitial
        | Mutation::ForgetsFloor => within(50),
        Mutation::AuxiliaryForgetsAll
        | Mutation::ClaimBeforeDurable
        | Mutation::EffectiveAtOnce
        | Mutation::BallotReused
        | Mutation::ReadAtExecuted
        | Mutation::ReadUnconfirmed
        | Mutation::VoteBelowPromise => within(500),
        // Halves miss each other only where the members are even in number.
        Mutation::HalfInsteadOfMajority => {
            Hunt { shape: Shape { auxiliaries: 2, ..SMALL }, ..within(500) }
        }
        // Between the promise and the next vote, which repeats it, there is little time.
        Mutation::TruncateForgetsPromise => Hunt { inside: true, ..within(3_000) },
        // Takes a main let in again, its predecessor down before the first new step and back
        // before the last of the old ones is known to it, and the two cut off from each other.
        Mutation::NoPhaseOneForNewConfiguration => within(10_000),
    }
}

fn plan(hunt: Hunt, seed: u64) -> Plan {
    let restless = Plan::restless(hunt.shape, &mut Rng::seed_from_u64(seed));
    Plan { inside: hunt.inside, finish: false, ..restless }
}

/// Whether the walk with this seed breaks a promise while the rule is off.
fn broken(mutation: Mutation, hunt: Hunt, seed: u64) -> Option<String> {
    mutation::set(Some(mutation));
    let end = walk::run(&plan(hunt, seed), seed);
    mutation::set(None);
    end.err().map(|violation| violation.to_string())
}

fn every_rule_is_missed(of: impl Fn(usize) -> bool) {
    for (index, mutation) in Mutation::ALL.into_iter().enumerate() {
        if !of(index) {
            continue;
        }
        let hunt = hunt_for(mutation);
        let found = (0..hunt.runs).find_map(|seed| Some((seed, broken(mutation, hunt, seed)?)));
        let (seed, seen) =
            found.unwrap_or_else(|| panic!("nobody misses {mutation:?} in {} runs", hunt.runs));
        println!("{mutation:?}: run {}: {seen}", seed + 1);
        // …and it is the missing rule that broke it.
        walk::run(&plan(hunt, seed), seed).unwrap_or_else(|broken| panic!("{broken}"));
    }
}

#[test]
fn every_rule_is_missed_when_it_is_off() {
    every_rule_is_missed(|index| index % 2 == 0);
}

#[test]
fn every_other_rule_is_missed_when_it_is_off() {
    every_rule_is_missed(|index| index % 2 == 1);
}

/// How often each rule is missed: to set the bounds above.
#[test]
#[ignore = "takes minutes; for whoever changes the walk"]
fn how_often_each_rule_is_missed() {
    for mutation in Mutation::ALL {
        let hunt = hunt_for(mutation);
        let caught = (0..hunt.runs).filter(|seed| broken(mutation, hunt, *seed).is_some()).count();
        println!("{mutation:?}: {caught} of {} runs", hunt.runs);
    }
}
