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

fn run(ops: &[Op]) -> Store {
    let mut store = Store::default();
    for (index, op) in ops.iter().enumerate() {
        let now = at(index as u64 + 1, index as u64);
        match op {
            Op::Set(key, end) => store.set(&[*key], Bytes::from(vec![*key; 3]), *end, now),
            Op::Value(key) => store.set_value(&[*key], Bytes::new(), now),
            Op::Expiry(key, end) => store.set_expiry(&[*key], *end, now),
            Op::Remove(key) => drop(store.remove(&[*key], now.time_ms)),
            Op::Sweep => store.sweep(now.time_ms, 3),
            Op::Clear => store.clear(),
        }
    }
    store
}

proptest! {
    #[test]
    fn the_indices_follow_the_entries(ops in proptest::collection::vec(op(), 0..80)) {
        let store = run(&ops);
        let expiring: BTreeSet<_> = store
            .entries
            .iter()
            .filter_map(|(key, entry)| Some((entry.expires_at_ms?, key.clone())))
            .collect();
        prop_assert_eq!(&store.expiries, &expiring);
        let order: BTreeMap<_, _> =
            store.entries.iter().map(|(key, entry)| (entry.serial, key.clone())).collect();
        prop_assert_eq!(&store.order, &order);
        prop_assert_eq!(order.len(), store.entries.len());
    }

    #[test]
    fn a_snapshot_is_the_whole_state(ops in proptest::collection::vec(op(), 0..80)) {
        let store = run(&ops);
        let bytes = store.snapshot();
        let restored = Store::restore(&bytes).unwrap();
        prop_assert_eq!(&restored.entries, &store.entries);
        prop_assert_eq!(&restored.order, &store.order);
        prop_assert_eq!(&restored.expiries, &store.expiries);
        prop_assert_eq!(restored.snapshot(), bytes);
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
    store.set(b"k", Bytes::from_static(b"v"), Some(10), at(1, 0));
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
        store.set(&[key], Bytes::new(), Some(u64::from(key)), at(1, 0));
    }
    store.sweep(100, 4);
    assert_eq!((store.entries.len(), store.len(100)), (6, 0));
}
