//! Multicast walked at random: one order everywhere, nothing acknowledged lost, nothing twice, no
//! gap, nothing kept for ever; and each rule, switched off, is missed within a bounded number of
//! walks, or in a scene that is made for it.

mod judge;
mod many;
mod node;
mod replaced;
mod scenes;
mod stage;
mod walk;

use synod::multicast::rules::{Rule, set_rule};

use self::{
    scenes::SCENES,
    walk::{Walked, walk},
};

/// Goal: every promise, in every walk.
#[test]
fn there_is_one_order_whatever_goes_wrong() {
    let mut all = Walked::default();
    for seed in (0..WALKS).chain(REMEMBERED) {
        let walked = walk(seed).unwrap_or_else(|broken| panic!("walk {seed}: {broken:?}"));
        all.delivered += walked.delivered;
        all.voids += walked.voids;
        all.acknowledged += walked.acknowledged;
        all.reigns += walked.reigns;
        all.installed += walked.installed;
        all.replaced += walked.replaced;
        all.records = all.records.max(walked.records);
    }
    println!("{WALKS} walks: {all:?}");
    assert!(
        all.acknowledged > 300 * WALKS
            && all.voids > 0
            && all.installed > WALKS
            && all.replaced > WALKS,
        "{all:?}"
    );
}

/// Goal: no rule is there for nothing. Method: switch it off and walk until it is missed, or play the
/// scene that is made for it: what needs more than chance.
#[test]
fn each_rule_is_missed_when_it_is_off() {
    let mut unnoticed = Vec::new();
    for rule in Rule::ALL {
        let scene = SCENES.iter().find(|(of, _)| *of == rule).map(|(_, scene)| scene);
        if let Some(scene) = scene {
            assert_eq!(scene(), Ok(()), "{rule:?} is on");
        }
        set_rule(Some(rule));
        let found = match scene {
            Some(scene) => scene().err().map(|broken| ("its scene".to_owned(), broken)),
            None => (0..HUNTED)
                .find_map(|seed| walk(seed).err().map(|broken| (format!("walk {seed}"), broken))),
        };
        set_rule(None);
        match found {
            Some((place, broken)) => println!("{rule:?}: {place}: {}", broken.0),
            None => unnoticed.push(rule),
        }
    }
    assert!(unnoticed.is_empty(), "nobody noticed within {HUNTED} walks: {unnoticed:?}");
}

/// Walks of some ten simulated seconds.
const WALKS: u64 = 100;

/// Walks beyond those that once went wrong: a server that was lost and one that was only thought to be were
/// replaced one after the other, and with them went the only checkpoint that others could come from.
const REMEMBERED: [u64; 1] = [542];

/// Walks within which a missing rule must be missed.
const HUNTED: u64 = 100;
