//! The gate: switch any safety rule off, and a walk (or a history played by hand) notices within a
//! bounded number of attempts. A rule that nobody would miss is not tested.
//!
//! What notices in a walk is only what can be seen from outside of the machines: what nodes learn,
//! what state they are in, what clients are told. Each rule is hunted for in the scene where it
//! matters most, so that many walks find it and the gate does not hang on lucky seeds.

use rand::SeedableRng;
use synod::mutation::{self, Mutation};
use synod_runtime::world::Rng;
use synod_tests::walk::{self, Plan, Shape};

mod histories;

/// Without a member: it would hand on to others what they must not know in these scenes.
const SMALL: Shape = Shape { mains: 2, auxiliaries: 1, members: 0 };

/// How a rule is hunted for.
#[derive(Debug, Clone, Copy)]
enum Hunt {
    /// By random walks.
    Walk {
        /// The cluster.
        shape: Shape,
        /// What goes wrong.
        scene: fn(Shape, &mut Rng) -> Plan,
        /// Of a hundred walks, how many noticed when this was written.
        caught: u64,
    },
    /// By one history, played by hand.
    Hand(fn() -> histories::Played),
}

fn hunt_for(mutation: Mutation) -> Hunt {
    use Mutation as M;
    let walk = |scene, caught| Hunt::Walk { shape: SMALL, scene, caught };
    match mutation {
        M::ReadNotAwaited
        | M::AnyOrder
        | M::NonceRepeated
        | M::NoDuplicateCheck
        | M::ReadAtExecuted => walk(Plan::toppled, 100),
        M::SaidBeforeDurable => walk(Plan::toppled, 63),
        M::ClaimBeforeDurable => walk(Plan::toppled, 52),
        M::WordForAnyBallot => walk(Plan::toppled, 47),
        M::BallotReused => walk(Plan::toppled, 44),
        M::SnapshotForgetsSessions | M::IgnoreReportedVotes | M::ForgetsFloor => {
            walk(Plan::readmitted, 100)
        }
        M::AssumeInitial => walk(Plan::readmitted, 92),
        M::ReadUnconfirmed => walk(Plan::readmitted, 38),
        M::LowestVoteWins => walk(Plan::readmitted, 35),
        M::NoPhaseOneForNewConfiguration => walk(Plan::readmitted, 10),
        M::VoteBelowPromise => walk(Plan::deposed, 42),
        M::AuxiliaryForgetsAll => walk(Plan::restless, 9),
        M::EffectiveAtOnce => walk(Plan::restless, 5),
        // Halves miss each other only where the members are even in number.
        M::HalfInsteadOfMajority => {
            let shape = Shape { auxiliaries: 2, ..SMALL };
            Hunt::Walk { shape, scene: Plan::restless, caught: 4 }
        }
        M::PromiseBelowTrimmed => Hunt::Hand(histories::a_promise_speaks_of_what_is_kept),
        M::TruncateForgetsPromise => Hunt::Hand(histories::a_replaced_journal_holds_the_promise),
        M::AuxiliarySaidBeforeDurable => {
            Hunt::Hand(histories::an_auxiliary_s_vote_is_durable_before_it_is_said)
        }
        M::AuxiliaryVotesBelowPromise => walk(Plan::toppled, 16),
        M::ForgetDropsPromise => Hunt::Hand(histories::an_auxiliary_forgets_no_promise),
        M::OwnPromiseNotAwaited => Hunt::Hand(histories::a_leader_has_its_own_promise),
        M::ClaimOverGap => Hunt::Hand(histories::a_leader_claims_only_votes_it_has),
        M::OldWordsCount => Hunt::Hand(histories::a_word_counts_only_for_reads_before_it),
        M::TrimsBeyondSnapshot => {
            Hunt::Hand(histories::a_trimmed_journal_holds_what_the_snapshot_does_not)
        }
        M::ReadBeyondPromises => Hunt::Hand(histories::a_read_is_answered_where_promises_hold),
        M::HandsOnOverGap => Hunt::Hand(histories::a_step_is_handed_on_under_its_own_number),
        M::LeaseNotKept => walk(Plan::leased, 22),
        M::LeaseNotRemembered => walk(Plan::leased, 20),
        M::LeaseReadsAtOnce => walk(Plan::toppled, 100),
        M::LeaseNeverEnds => walk(Plan::leased, 24),
        M::TornEndTrusted => Hunt::Hand(histories::a_torn_end_may_hide_a_promise),
        M::OlderCopyTrusted => Hunt::Hand(histories::an_older_copy_takes_no_part),
        M::MendTakesNothing => Hunt::Hand(histories::a_torn_end_may_hide_a_vote),
        M::LeaseOfAny => {
            let shape = Shape { mains: 3, auxiliaries: 2, members: 0 };
            Hunt::Walk { shape, scene: Plan::leased, caught: 10 }
        }
        M::LeaseWhereFewerChoose => {
            let shape = Shape { mains: 3, auxiliaries: 0, members: 0 };
            Hunt::Walk { shape, scene: Plan::leased, caught: 10 }
        }
        M::LeaseForgetsFormerBallots => {
            Hunt::Hand(histories::a_lease_counts_only_where_former_ballots_have_ended)
        }
        M::RisesAlone => Hunt::Hand(histories::a_version_rises_only_when_every_main_can),
        M::MarkSpansGap => Hunt::Hand(histories::what_was_not_noted_is_not_known),
        M::SnapshotKeepsConfiguration => Hunt::Hand(histories::a_snapshot_brings_its_configuration),
    }
}

/// So many walks miss a rule by chance less often than once in a million changes of the machines.
fn runs(caught: u64) -> u64 {
    1_400 / caught + 5
}

fn plan(scene: fn(Shape, &mut Rng) -> Plan, shape: Shape, seed: u64) -> Plan {
    let plan = scene(shape, &mut Rng::seed_from_u64(seed));
    // Only what can be seen from outside counts, and only while things go wrong.
    Plan { inside: false, finish: false, ..plan }
}

/// What breaks in the attempt of that number, with the rule off or (`None`) every rule on.
fn attempt(mutation: Option<Mutation>, hunt: Hunt, seed: u64) -> Option<String> {
    mutation::set(mutation);
    let broken = match hunt {
        Hunt::Walk { shape, scene, .. } => {
            walk::run(&plan(scene, shape, seed), seed).err().map(|broken| broken.to_string())
        }
        Hunt::Hand(history) => history().err().map(str::to_owned),
    };
    mutation::set(None);
    broken
}

fn every_rule_is_missed(of: impl Fn(usize) -> bool) {
    for (_, mutation) in Mutation::ALL.into_iter().enumerate().filter(|(index, _)| of(*index)) {
        let hunt = hunt_for(mutation);
        let most = match hunt {
            Hunt::Walk { caught, .. } => runs(caught),
            Hunt::Hand(_) => 1,
        };
        let found = (0..most).find_map(|seed| Some((seed, attempt(Some(mutation), hunt, seed)?)));
        let (seed, seen) =
            found.unwrap_or_else(|| panic!("nobody misses {mutation:?} in {most} attempts"));
        println!("{mutation:?}: attempt {} of {most}: {seen}", seed + 1);
        // …and it is the missing rule that broke it.
        let innocent = attempt(None, hunt, seed);
        assert_eq!(innocent, None, "with every rule on, in the history that found {mutation:?}");
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

/// How often each rule is missed, of `SYNOD_RUNS` walks: to set the figures above. `SYNOD_MUTATION`
/// names the rules, with commas between; the rest is left out.
#[test]
#[ignore = "takes minutes; for whoever changes the walk"]
fn how_often_each_rule_is_missed() {
    let only = std::env::var("SYNOD_MUTATION").unwrap_or_default();
    let runs = std::env::var("SYNOD_RUNS").map_or(100, |runs| runs.parse().expect("a number"));
    for mutation in Mutation::ALL {
        let hunt = hunt_for(mutation);
        let named = only.split(',').any(|only| format!("{mutation:?}").starts_with(only));
        if !named || matches!(hunt, Hunt::Hand(_)) {
            continue;
        }
        let caught =
            (0..runs).filter(|seed| attempt(Some(mutation), hunt, *seed).is_some()).count();
        println!("{mutation:?}: {caught} of {runs} walks");
    }
}
