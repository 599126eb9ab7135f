//! Registers walked at random: one order of all calls explains them; and each rule, switched off, is
//! missed within a bounded number of walks.

use synod::mutation::{self, RegisterRule};
use synod_tests::register_walk::{Kind, Slip, quiet, walk};

/// Goal: linearizable, and everybody gets on once faults end, on holders and on disks.
#[test]
fn registers_are_linearizable_whatever_is_lost_torn_or_rotten() {
    for kind in [Kind::Holders, Kind::Disks] {
        let (mut done, mut given_up, mut went_on) = (0, 0, 0);
        for seed in 0..WALKS {
            let walked =
                walk(kind, seed, None).unwrap_or_else(|why| panic!("{kind:?}, walk {seed}: {why}"));
            done += walked.done;
            given_up += walked.given_up;
            went_on += walked.went_on;
        }
        println!("{kind:?}: {WALKS} walks, {done} calls done, {given_up} given up");
        println!("of those that were done {went_on} went on from the last");
        assert!(done > 20 * WALKS && given_up > WALKS, "nothing happened");
        assert!(went_on > WALKS || kind == Kind::Disks, "nobody went on");
    }
}

/// Goal: while nothing is missing, whoever is only there for that case hears nothing.
#[test]
fn auxiliaries_are_not_asked_while_nothing_is_missing() {
    for kind in [Kind::Holders, Kind::Disks] {
        for seed in 0..8 {
            let walked = quiet(kind, seed);
            assert_eq!((walked.idle, walked.given_up), (0, 0), "{kind:?}, {seed}");
            assert!(walked.done > 20, "{walked:?}");
        }
    }
}

/// Goal: no rule is there for nothing.
#[test]
fn each_rule_is_missed_when_it_is_off() {
    let mut unnoticed = Vec::new();
    let kinds = [Kind::Holders, Kind::Disks];
    for rule in RegisterRule::ALL {
        mutation::set_register_rule(Some(rule));
        let found = kinds.iter().find_map(|kind| hunt(*kind, None));
        mutation::set_register_rule(None);
        match found {
            Some((seed, why)) => println!("{rule:?}: walk {seed}: {}", first_line(&why)),
            None => unnoticed.push(format!("{rule:?}")),
        }
    }
    for slip in [Slip::SaidBeforeDurable, Slip::DamagedIsEmpty, Slip::GoesOnInDoubt] {
        match kinds.iter().find_map(|kind| hunt(*kind, Some(slip))) {
            Some((seed, why)) => println!("{slip:?}: walk {seed}: {}", first_line(&why)),
            None => unnoticed.push(format!("{slip:?}")),
        }
    }
    assert!(unnoticed.is_empty(), "nobody noticed within {HUNTED} walks: {unnoticed:?}");
}

fn hunt(kind: Kind, slip: Option<Slip>) -> Option<(u64, String)> {
    (0..HUNTED).find_map(|seed| walk(kind, seed, slip).err().map(|why| (seed, why)))
}

fn first_line(text: &str) -> String {
    text.chars().take(100).collect()
}

/// Walks of some seconds.
const WALKS: u64 = 150;

/// Walks within which a missing rule must be missed.
const HUNTED: u64 = 400;
