//! Whether one order of all calls explains what clients were told, and agrees with the order of
//! time: Lowe's form of the search by Wing and Gong.
//!
//! Keys are independent, so each is judged by itself. The events of a key are gone through in the
//! order of time with the set of all *worlds* that explain what was told so far: a value, and the
//! open calls that have taken effect. A call must have taken effect when its answer comes, after
//! any other open calls; worlds in which it cannot have are dropped. When none is left, nothing
//! explains the history.
//!
//! A call whose outcome is unknown stays open for ever and need never take effect. Three rules keep
//! the worlds few without losing any answer: of two that differ only in unknown calls that took
//! effect, the one with fewer can do all that the other can; an unknown call that a write covers at
//! once need not have happened; and unknown increments are all alike.

use std::collections::{BTreeMap, BTreeSet};

use synod_runtime::world::Instant;

use super::{Call, Operation, Told};
use crate::invariants::Violation;

/// Judges a history, in any order.
///
/// # Errors
/// The key and the call that no order explains, and what came before it; or that too many orders
/// are possible to say.
pub fn check(history: &[Operation]) -> Result<(), Violation> {
    let mut keys: BTreeMap<u8, Vec<Operation>> = BTreeMap::new();
    for operation in history.iter().filter(|one| !matches!(one.told, Told::Refused | Told::Missed))
    {
        keys.entry(operation.key).or_default().push(*operation);
    }
    keys.values().try_for_each(|operations| check_key(operations))
}

/// One way to explain what was told so far.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct World {
    value: Option<i64>,
    /// Open calls that have taken effect.
    done: BTreeSet<usize>,
}

fn check_key(operations: &[Operation]) -> Result<(), Violation> {
    let mut worlds = BTreeSet::from([World { value: None, done: BTreeSet::new() }]);
    let mut open = BTreeSet::new();
    for (_, event, number) in events(operations) {
        if event == Event::Begin {
            open.insert(number);
            continue;
        }
        let next = after(operations, &open, &worlds, number).ok_or_else(|| {
            let what = format!("more than {WORLDS_MAX} orders are possible: {}", operations.len());
            Violation::new("linearizable", what)
        })?;
        if next.is_empty() {
            return Err(unexplained(operations, &worlds, number));
        }
        worlds = next;
        open.remove(&number);
    }
    Ok(())
}

/// Where two moments are equal, begins come first: calls that touch are not one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Begin,
    End,
}

/// All begins, and the ends of calls whose outcome is known.
fn events(operations: &[Operation]) -> Vec<(Instant, Event, usize)> {
    let mut events = Vec::new();
    for (number, operation) in operations.iter().enumerate() {
        events.push((operation.began, Event::Begin, number));
        if operation.told != Told::Unknown {
            events.push((operation.ended, Event::End, number));
        }
    }
    events.sort_unstable();
    events
}

/// The worlds in which call `number`, which is answered now, has taken effect; `None` when they are
/// too many.
fn after(
    operations: &[Operation],
    open: &BTreeSet<usize>,
    worlds: &BTreeSet<World>,
    number: usize,
) -> Option<BTreeSet<World>> {
    let mut found = BTreeSet::new();
    // A world, and whether the last step into it was an unknown call's.
    let mut todo: Vec<(World, bool)> = worlds.iter().map(|world| (world.clone(), false)).collect();
    let mut seen = BTreeSet::new();
    while let Some((mut world, guessed)) = todo.pop() {
        if world.done.remove(&number) {
            found.insert(world);
            continue;
        }
        let mut counted = false;
        for &one in open.difference(&world.done) {
            let Operation { call, told, .. } = operations[one];
            let unknown = told == Told::Unknown;
            let alike = unknown && call == Call::Incr;
            if (guessed && matches!(call, Call::Write(_))) || (alike && counted) {
                continue;
            }
            counted |= alike;
            if let Some(value) = effect(call, told, world.value) {
                let mut done = world.done.clone();
                done.insert(one);
                let next = (World { value, done }, unknown);
                if seen.insert(next.clone()) {
                    todo.push(next);
                }
            }
        }
        if seen.len() > WORLDS_MAX {
            return None;
        }
    }
    Some(without_needless(operations, &found))
}

/// The value after a call that was told so, if it can have been told so; `None` when it cannot.
fn effect(call: Call, told: Told, value: Option<i64>) -> Option<Option<i64>> {
    match (call, told) {
        (Call::Read | Call::Cas { .. }, Told::Value(seen)) => (seen == value).then_some(value),
        (Call::Write(new), Told::Done | Told::Unknown) => Some(Some(new)),
        (Call::Cas { old, new }, Told::Done | Told::Unknown) => {
            (value == Some(old)).then_some(Some(new))
        }
        (Call::Incr, Told::Counted(count)) => {
            (value.unwrap_or(0) + 1 == count).then_some(Some(count))
        }
        (Call::Incr, Told::Unknown) => Some(Some(value.unwrap_or(0) + 1)),
        // An unknown read has no effect, and other answers fit no such call.
        _ => None,
    }
}

/// Drops worlds that differ from another only by more unknown calls.
fn without_needless(operations: &[Operation], worlds: &BTreeSet<World>) -> BTreeSet<World> {
    let is_known = |number: &&usize| operations[**number].told != Told::Unknown;
    let covers = |less: &World, more: &World| {
        less.value == more.value
            && less.done.len() < more.done.len()
            && less.done.is_subset(&more.done)
            && !more.done.difference(&less.done).any(|number| is_known(&number))
    };
    let is_needed = |world: &&World| !worlds.iter().any(|other| covers(other, world));
    worlds.iter().filter(is_needed).cloned().collect()
}

fn unexplained(operations: &[Operation], worlds: &BTreeSet<World>, number: usize) -> Violation {
    let wrong = operations[number];
    let mut before: Vec<&Operation> =
        operations.iter().filter(|one| one.began <= wrong.ended).collect();
    before.sort_by_key(|one| (one.ended, one.began));
    let told: Vec<String> =
        before.iter().rev().take(SHOWN).rev().map(|one| format!("  {one:?}")).collect();
    let values: BTreeSet<Option<i64>> = worlds.iter().map(|world| world.value).collect();
    Violation::new(
        "linearizable",
        format!(
            "no order explains {wrong:?}; the value can only have been one of {values:?}, before \
             open calls; the last calls were\n{}",
            told.join("\n")
        ),
    )
}

/// Beyond it the search would take hours: a history with so many unknown outcomes proves nothing.
const WORLDS_MAX: usize = 200_000;

/// Calls shown beside one that nothing explains.
const SHOWN: usize = 24;

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{RngExt as _, SeedableRng as _};
    use rand_chacha::ChaCha8Rng;
    use stateright::semantics::{
        ConsistencyTester as _, LinearizabilityTester,
        register::{Register, RegisterOp, RegisterRet},
    };

    fn one(call: Call, told: Told, began: u64, ended: u64) -> Operation {
        let [began, ended] = [began, ended].map(Instant::from_nanos);
        Operation { process: began.as_nanos(), key: 0, call, told, began, ended }
    }

    fn read(value: Option<i64>, began: u64, ended: u64) -> Operation {
        one(Call::Read, Told::Value(value), began, ended)
    }

    fn write(value: i64, began: u64, ended: u64) -> Operation {
        one(Call::Write(value), Told::Done, began, ended)
    }

    #[test]
    fn an_old_value_after_a_new_one_was_seen_is_found() {
        let mut calls = vec![write(1, 0, 1), write(2, 2, 9), read(Some(2), 3, 4)];
        check(&calls).unwrap();
        calls.push(read(Some(1), 5, 6));
        let seen = check(&calls).unwrap_err().seen;
        assert!(seen.contains("Value(Some(1))") && seen.contains("Some(2)"), "{seen}");
    }

    #[test]
    fn calls_at_the_same_time_may_be_seen_in_either_order() {
        for (first, last) in [(1, 2), (2, 1)] {
            let calls = [write(1, 0, 9), write(2, 0, 9), read(Some(first), 1, 2)];
            check(&[&calls[..], &[read(Some(last), 3, 4), read(Some(last), 10, 11)]].concat())
                .unwrap();
            check(&[&calls[..], &[read(Some(last), 3, 4), read(Some(first), 10, 11)]].concat())
                .unwrap_err();
        }
    }

    #[test]
    fn an_increment_that_happened_twice_or_got_lost_is_found() {
        let incr = |count, began, ended| one(Call::Incr, Told::Counted(count), began, ended);
        check(&[incr(2, 0, 5), incr(1, 0, 5), read(Some(2), 6, 7)]).unwrap();
        check(&[incr(1, 0, 5), incr(1, 6, 7)]).unwrap_err();
        check(&[incr(1, 0, 5), incr(3, 6, 7)]).unwrap_err();
    }

    #[test]
    fn an_unknown_call_may_take_effect_late_or_never_but_only_once() {
        let unknown = |call| one(call, Told::Unknown, 0, 1);
        let incr = unknown(Call::Incr);
        check(&[incr, read(None, 2, 3), read(Some(1), 9, 10)]).unwrap();
        check(&[incr, read(None, 2, 3), read(Some(2), 9, 10)]).unwrap_err();
        check(&[incr, incr, read(None, 2, 3), read(Some(2), 9, 10)]).unwrap();
        let cas = unknown(Call::Cas { old: 1, new: 5 });
        check(&[cas, read(None, 2, 3), write(1, 4, 5), read(Some(5), 6, 7)]).unwrap();
        check(&[cas, write(2, 4, 5), read(Some(5), 6, 7)]).unwrap_err();
        check(&[unknown(Call::Write(7)), write(2, 4, 5), read(Some(7), 6, 7)]).unwrap();
    }

    #[test]
    fn what_was_refused_must_not_be_seen() {
        let refused = one(Call::Write(3), Told::Refused, 0, 1);
        check(&[refused, read(None, 2, 3)]).unwrap();
        check(&[refused, read(Some(3), 2, 3)]).unwrap_err();
    }

    #[test]
    fn a_compare_and_set_swaps_one_value_and_tells_what_it_found() {
        let cas = |old, told, began, ended| one(Call::Cas { old, new: 9 }, told, began, ended);
        check(&[write(1, 0, 1), cas(1, Told::Done, 2, 3), read(Some(9), 4, 5)]).unwrap();
        check(&[write(1, 0, 1), cas(2, Told::Done, 2, 3)]).unwrap_err();
        check(&[write(1, 0, 1), cas(2, Told::Value(Some(1)), 2, 3)]).unwrap();
        check(&[write(1, 0, 1), cas(2, Told::Value(Some(3)), 2, 3)]).unwrap_err();
    }

    /// Goal: our judge and another's agree. Method: small random histories of reads and writes,
    /// right and wrong, unknown outcomes included.
    #[test]
    fn it_agrees_with_the_search_of_a_model_checker() {
        let (mut good, mut bad) = (0, 0);
        for seed in 0..3_000 {
            let history = random_history(&mut ChaCha8Rng::seed_from_u64(seed));
            let ours = check(&history).is_ok();
            assert_eq!(ours, others_verdict(&history), "seed {seed}: {history:#?}");
            *if ours { &mut good } else { &mut bad } += 1;
        }
        assert!(good > 300 && bad > 300, "{good} good and {bad} bad histories");
    }

    /// Three processes with two calls each, of values 1 to 2, at random times.
    fn random_history(rng: &mut ChaCha8Rng) -> Vec<Operation> {
        let mut history = vec![write(0, 0, 0)];
        for process in 1..=3 {
            let mut at = 1;
            for _ in 0..2 {
                let began = at + rng.random_range(0..4);
                let ended = began + rng.random_range(0..6);
                at = ended + 1;
                let mut call = match rng.random_bool(0.5) {
                    true => read(Some(rng.random_range(0..3)), began, ended),
                    false => write(rng.random_range(1..3), began, ended),
                };
                call.process = process;
                let unknown = matches!(call.call, Call::Write(_)) && rng.random_bool(0.2);
                if unknown {
                    call.told = Told::Unknown;
                }
                history.push(call);
                if unknown {
                    break;
                }
            }
        }
        history
    }

    fn others_verdict(history: &[Operation]) -> bool {
        let mut tester = LinearizabilityTester::new(Register(0));
        for (_, event, number) in events(history) {
            let Operation { process, call, told, .. } = history[number];
            match (event, call, told) {
                (Event::Begin, Call::Write(value), _) => {
                    tester.on_invoke(process, RegisterOp::Write(value)).unwrap();
                }
                (Event::Begin, ..) => {
                    tester.on_invoke(process, RegisterOp::Read).unwrap();
                }
                (Event::End, _, Told::Value(value)) => {
                    tester.on_return(process, RegisterRet::ReadOk(value.unwrap())).unwrap();
                }
                (Event::End, ..) => {
                    tester.on_return(process, RegisterRet::WriteOk).unwrap();
                }
            }
        }
        tester.is_consistent()
    }
}
