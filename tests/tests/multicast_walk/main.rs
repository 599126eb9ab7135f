//! Multicast walked at random: one order everywhere, nothing acknowledged lost, nothing twice, no
//! gap, nothing kept for ever; and each rule, switched off, is missed within a bounded number of
//! walks.

mod judge;
mod node;
mod walk;

use synod::multicast::rules::{Rule, set_rule};

use self::walk::{Walked, walk};

/// Goal: every promise, in every walk.
#[test]
fn there_is_one_order_whatever_goes_wrong() {
    let mut all = Walked::default();
    for seed in 0..WALKS {
        let walked = walk(seed).unwrap_or_else(|broken| panic!("walk {seed}: {broken:?}"));
        all.delivered += walked.delivered;
        all.voids += walked.voids;
        all.acknowledged += walked.acknowledged;
        all.reigns += walked.reigns;
        all.installed += walked.installed;
        all.records = all.records.max(walked.records);
    }
    println!("{WALKS} walks: {all:?}");
    assert!(all.acknowledged > 300 * WALKS && all.voids > 0 && all.installed > WALKS, "{all:?}");
}

/// Goal: no rule is there for nothing. Method: switch it off and walk until it is missed.
#[test]
fn each_rule_is_missed_when_it_is_off() {
    let mut unnoticed = Vec::new();
    for rule in Rule::ALL.into_iter().filter(|rule| !NOT_SHOWN.contains(rule)) {
        set_rule(Some(rule));
        let found = (0..HUNTED).find_map(|seed| walk(seed).err().map(|broken| (seed, broken)));
        set_rule(None);
        match found {
            Some((seed, broken)) => println!("{rule:?}: walk {seed}: {}", broken.0),
            None => unnoticed.push(rule),
        }
    }
    assert!(unnoticed.is_empty(), "nobody noticed within {HUNTED} walks: {unnoticed:?}");
}

/// Rules whose absence a hundred of these walks do not show: it takes a message or a seal that one
/// server alone forgets or counts twice at the very moment in which the sequencer changes, and
/// publishers whose messages overtake one another, where these send theirs in one piece.
const NOT_SHOWN: [Rule; 7] = [
    Rule::SealDurable,
    Rule::CopiesAreNotCommitted,
    Rule::OpenNumbersScanned,
    Rule::ReportedDurable,
    Rule::ReportersDistinct,
    Rule::PublisherOrder,
    Rule::OnlyCommittedNamed,
];

/// Walks of some ten simulated seconds.
const WALKS: u64 = 100;

/// Walks within which a missing rule must be missed.
const HUNTED: u64 = 100;
