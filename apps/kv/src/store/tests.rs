use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn at(position: u64, time_ms: u64) -> Moment {
    Moment { position: Position(position), time_ms }
}

#[derive(Clone, Debug)]
enum Op {
    Set(u8, Option<u64>),
    Value(u8),
    Expiry(u8, Option<u64>),
    Remove(u8),
    Sweep,
    Clear,
}

fn op() -> impl Strategy<Value = Op> {
    let key = 0..20_u8;
    let end = proptest::option::of(0..60_u64);
    prop_oneof![
        8 => (key.clone(), end.clone()).prop_map(|(key, end)| Op::Set(key, end)),
        2 => key.clone().prop_map(Op::Value),
        4 => (key.clone(), end).prop_map(|(key, end)| Op::Expiry(key, end)),
        4 => key.prop_map(Op::Remove),
        2 => Just(Op::Sweep),
        1 => Just(Op::Clear),
    ]
}

fn prefix() -> impl Strategy<Value = &'static str> {
    prop_oneof![
        8 => Just("user:000"),
        4 => Just("user:"),
        2 => Just("user:000000000000"),
        1 => Just("u"),
        1 => Just(""),
        1 => Just("zone/"),
    ]
}

fn run(ops: &[Op]) -> Store {
    let mut store = Store::default();
    for (index, op) in ops.iter().enumerate() {
        apply(&mut store, op, at(index as u64 + 1, index as u64));
    }
    store
}

fn apply(store: &mut Store, op: &Op, now: Moment) {
    match op {
        Op::Set(key, end) => store.set(&[*key], &[*key; 3], *end, now),
        Op::Value(key) => store.set_value(&[*key], b"", now),
        Op::Expiry(key, end) => store.set_expiry(&[*key], *end, now),
        Op::Remove(key) => drop(store.remove(&[*key], now.time_ms)),
        Op::Sweep => store.sweep(now.time_ms, 3),
        Op::Clear => store.clear(),
    }
}

/// Every record with its slot, read off the slots.
fn records(store: &Store) -> Vec<(u32, Record)> {
    store.slots.below(u32::MAX).map(|(slot, record)| (slot, record.clone())).collect()
}

/// What is left of a frozen state.
fn rest_of(store: &mut Store, bytes: usize) -> Vec<u8> {
    let mut out = Vec::new();
    while store.frozen_part(bytes, &mut out) {}
    out
}

proptest! {
    #[test]
    fn a_frozen_state_is_that_of_its_moment_whatever_happens_meanwhile(
        ops in proptest::collection::vec((op(), 0..60_usize), 0..80),
        more in proptest::collection::vec((op(), 0..60_usize), 0..80),
    ) {
        let mut store = Store::default();
        let mut now = at(0, 0);
        for (op, _) in &ops {
            now = at(now.position.0 + 1, now.time_ms + 1);
            apply(&mut store, op, now);
        }
        let (whole, mut twin) = (store.snapshot(), store.clone());
        store.freeze();
        let (mut parts, mut left) = (Vec::new(), true);
        for (op, bytes) in &more {
            now = at(now.position.0 + 1, now.time_ms + 1);
            apply(&mut store, op, now);
            apply(&mut twin, op, now);
            if left {
                left = store.frozen_part(*bytes, &mut parts);
            }
        }
        if left {
            parts.extend(rest_of(&mut store, 40));
        }
        prop_assert_eq!(parts, whole);
        prop_assert_eq!(store.snapshot(), twin.snapshot());
        prop_assert_eq!(records(&store), records(&twin));
    }

    #[test]
    fn a_state_comes_back_from_parts_of_any_size(
        ops in proptest::collection::vec(op(), 0..80), size in 1..300_usize,
    ) {
        let store = run(&ops);
        let whole = store.snapshot();
        let mut thawing = Thawing::default();
        for part in whole.chunks(size) {
            thawing.part(part).unwrap();
        }
        prop_assert_eq!(thawing.end().unwrap().snapshot(), whole.clone());
        let mut cut = Thawing::default();
        cut.part(&whole[..whole.len() - 1]).unwrap();
        prop_assert!(cut.end().is_err());
    }

    #[test]
    fn the_indices_follow_the_records(ops in proptest::collection::vec(op(), 0..80)) {
        let store = run(&ops);
        let records = records(&store);
        let ends = records.iter().filter_map(|(slot, record)| {
            Some((record.entry().expires_at_ms?, *slot))
        });
        prop_assert_eq!(&store.expiries, &ends.collect::<BTreeSet<_>>());
        let mut keys: Vec<_> = records.iter().map(|(slot, record)| (record.key(), *slot)).collect();
        keys.sort_unstable();
        let order: Vec<u32> = store.index.from(Place::default()).collect();
        prop_assert_eq!(order, keys.iter().map(|(_, slot)| *slot).collect::<Vec<_>>());
        prop_assert_eq!(store.index.len(), keys.len());
    }

    #[test]
    fn many_keys_are_found_whatever_they_have_in_common(
        keys in proptest::collection::vec((prefix(), 0..700_u32), 1..900), gone in 0..4_usize,
    ) {
        let mut store = Store::default();
        let name = |(prefix, number): &(&str, u32)| format!("{prefix}{number}").into_bytes();
        for key in &keys {
            store.set(&name(key), b"", None, at(1, 1));
        }
        for key in keys.iter().skip(gone).step_by(2) {
            store.remove(&name(key), 1);
        }
        let there = records(&store);
        let there: BTreeSet<_> = there.iter().map(|(_, record)| record.key().to_vec()).collect();
        prop_assert_eq!(store.index.len(), there.len());
        for key in keys.iter().map(name) {
            prop_assert_eq!(store.get(&key, 1).is_some(), there.contains(&key));
        }
        let order: Vec<u32> = store.index.from(Place::default()).collect();
        let order: Vec<_> = order.into_iter().map(|slot| store.slots.get(slot).key()).collect();
        prop_assert!(order.is_sorted() && order.len() == there.len());
    }

    #[test]
    fn a_snapshot_is_the_whole_state(ops in proptest::collection::vec(op(), 0..80), more in op()) {
        let mut store = run(&ops);
        let mut restored = Store::restore(&store.snapshot()).unwrap();
        prop_assert_eq!(restored.snapshot(), store.snapshot());
        // Also what comes next is the same: the slot a new key gets, too.
        for store in [&mut store, &mut restored] {
            apply(store, &more, at(100, 100));
            store.set(b"new", b"", None, at(101, 100));
        }
        prop_assert_eq!(restored.snapshot(), store.snapshot());
        prop_assert_eq!(records(&restored), records(&store));
    }

    /// Goal: the store is a map in byte order, however many keys it holds. Method: beside a plain
    /// one.
    #[test]
    fn a_large_store_is_a_map_in_byte_order(
        steps in proptest::collection::vec((0..3_000_u16, 0..4_u8), 0..4_000), start: u16,
    ) {
        let (mut store, mut plain) = (Store::default(), BTreeMap::new());
        for (position, (key, kind)) in (1..).zip(steps) {
            let key = key.to_be_bytes();
            if kind == 0 {
                let removed = store.remove(&key, 0).map(|record| record.entry().value.to_vec());
                prop_assert_eq!(removed, plain.remove(&key));
            } else {
                store.set(&key, &[kind], None, at(position, 0));
                plain.insert(key, vec![kind]);
            }
        }
        let start = start.to_be_bytes();
        for bound in [Bound::Included(&start), Bound::Excluded(&start), Bound::Unbounded] {
            let ours: Vec<_> = store.from(bound.map(|key| &key[..]), 0).map(|(key, entry)| {
                (key.to_vec(), entry.value.to_vec())
            }).collect();
            let theirs: Vec<_> = plain.range((bound.cloned(), Bound::Unbounded))
                .map(|(key, value)| (key.to_vec(), value.clone()))
                .collect();
            prop_assert_eq!(ours, theirs);
        }
        prop_assert_eq!(store.len(0), plain.len());
        let restored = Store::restore(&store.snapshot()).unwrap();
        prop_assert_eq!(restored.snapshot(), store.snapshot());
    }

    /// Goal: a walk with `SCAN` meets every key that stays throughout once, and ends. Method: what
    /// others do between its pages is chance.
    #[test]
    fn a_walk_meets_every_key_that_stays_once_whatever_happens_meanwhile(
        first in proptest::collection::vec(0..1_200_u16, 0..700),
        between in proptest::collection::vec((0..1_200_u16, any::<bool>()), 0..700),
        page in 1..40_usize,
    ) {
        let mut store = Store::default();
        for (position, key) in (1..).zip(&first) {
            store.set(&key.to_be_bytes(), b"", None, at(position, 0));
        }
        let mut stays: BTreeSet<_> = first.into_iter().collect();
        let (mut met, mut cursor) = (Vec::new(), u64::MAX);
        let mut between = between.chunks(13);
        loop {
            let keys: Vec<_> =
                store.below(cursor).take(page).map(|(slot, key, _)| (slot, key.to_vec())).collect();
            let Some((last, _)) = keys.last() else { break };
            cursor = *last;
            met.extend(keys.into_iter().map(|(_, key)| key));
            for (key, make) in between.next().unwrap_or_default() {
                if *make {
                    store.set(&key.to_be_bytes(), b"", None, at(9_999, 0));
                } else {
                    stays.remove(key);
                    store.remove(&key.to_be_bytes(), 0);
                }
            }
        }
        for key in stays {
            let times = met.iter().filter(|found| **found == key.to_be_bytes()).count();
            prop_assert_eq!(times, 1, "{}", key);
        }
    }

    #[test]
    fn a_cut_or_changed_snapshot_never_panics(
        ops in proptest::collection::vec(op(), 0..20), at: usize, byte: u8,
    ) {
        let mut bytes = run(&ops).snapshot();
        let at = at % bytes.len();
        prop_assert!(Store::restore(&bytes[..at]).is_err());
        bytes[at] = byte;
        let _ = Store::restore(&bytes);
    }
}

#[test]
fn a_key_lives_through_its_last_millisecond_and_is_invisible_after_it() {
    let mut store = Store::default();
    store.set(b"k", b"v", Some(10), at(1, 0));
    assert!(store.get(b"k", 10).is_some());
    assert!(store.get(b"k", 11).is_none());
    assert_eq!((store.len(10), store.len(11), store.len_expiring(11)), (1, 0, 0));
    assert_eq!(store.next_expiry_ms(), Some(11));
    assert_eq!(store.remove(b"k", 11), None);
}

#[test]
fn sweeping_is_bounded() {
    let mut store = Store::default();
    for key in 0..10_u8 {
        store.set(&[key], b"", Some(u64::from(key)), at(1, 0));
    }
    store.sweep(100, 4);
    assert_eq!((store.index.len(), store.len(100)), (6, 0));
}

#[test]
fn a_watched_key_that_was_made_and_removed_again_has_changed() {
    let mut store = Store::default();
    store.set(b"other", b"", None, at(1, 0));
    let watched = store.watch(b"k", at(5, 0));
    store.remove(b"other", 0);
    assert!(store.is_unchanged(b"k", watched, 0));
    store.set(b"k", b"", Some(9), at(6, 0));
    assert!(!store.is_unchanged(b"k", watched, 0));
    store.remove(b"k", 0);
    assert!(!store.is_unchanged(b"k", watched, 0));
    let again = store.watch(b"k", at(7, 0));
    assert!(store.is_unchanged(b"k", again, 0));
    let restored = Store::restore(&store.snapshot()).unwrap();
    assert!(restored.is_unchanged(b"k", again, 0) && !restored.is_unchanged(b"k", watched, 0));
}

#[test]
fn a_cleared_store_is_freed_a_little_at_a_time() {
    let mut store = Store::default();
    for key in 0..10_000_u32 {
        store.set(&key.to_be_bytes(), b"", None, at(1, 0));
    }
    store.clear();
    assert_eq!((store.len(0), store.end()), (0, 0));
    let before = store.trash.len();
    store.sweep(0, 0);
    assert_eq!(store.trash.len(), before - TRASH_PAGES_MAX);
    (0..before).for_each(|_| store.sweep(0, 0));
    assert!(store.trash.is_empty());
}
