//! A table of the size of the whole Internet's, at three edges that came to it in three ways.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use bytes::Bytes;
use rand::{RngExt as _, SeedableRng as _};
use synod::{
    multicast::{
        application::Application as _,
        message::{Entry, Pair, Seq},
        table::Change,
    },
    runtime::world::Rng,
};
use synod_routes::{Prefix, Routes};

/// As such tables are: most are /24, every eighth is of the newer family.
fn prefix(rng: &mut Rng) -> Prefix {
    if rng.random_ratio(1, 8) {
        let length = if rng.random() { 48 } else { rng.random_range(20..=64) };
        let bits = rng.random::<u128>() >> (128 - length) << (128 - length);
        return Prefix::new(Ipv6Addr::from_bits(bits).into(), length).unwrap();
    }
    let length = if rng.random_ratio(3, 5) { 24 } else { rng.random_range(8..=32) };
    let bits = rng.random::<u32>() >> (32 - length) << (32 - length);
    Prefix::new(Ipv4Addr::from_bits(bits).into(), length).unwrap()
}

fn hop(rng: &mut Rng) -> IpAddr {
    Ipv4Addr::new(192, 0, 2, rng.random()).into()
}

/// What a table is, without any thought for speed: a map for each family and length.
#[derive(Default)]
struct Naive(BTreeMap<u8, HashMap<IpAddr, IpAddr>>);

impl Naive {
    fn change(&mut self, change: &Change<Prefix, IpAddr>) {
        let at = |prefix: Prefix| <(IpAddr, u8)>::from(prefix);
        match *change {
            Change::Put(prefix, hop) => {
                let (address, length) = at(prefix);
                self.0.entry(length).or_default().insert(address, hop);
            }
            Change::Remove(prefix) => {
                let (address, length) = at(prefix);
                self.0.entry(length).or_default().remove(&address);
            }
        }
    }

    fn lookup(&self, address: IpAddr) -> Option<(Prefix, IpAddr)> {
        self.0.iter().rev().find_map(|(length, known)| {
            let first = match address {
                IpAddr::V4(_) if *length > 32 => return None,
                IpAddr::V4(v4) => {
                    let rest = u32::from(32 - length);
                    Ipv4Addr::from_bits(v4.to_bits() >> rest << rest).into()
                }
                IpAddr::V6(v6) => {
                    let rest = u32::from(128 - length);
                    Ipv6Addr::from_bits(v6.to_bits() >> rest << rest).into()
                }
            };
            Some((Prefix::new(first, *length).unwrap(), *known.get(&first)?))
        })
    }
}

/// Goal: equal tables at the same number at every edge, whether it heard all, or came late and took
/// a checkpoint and what followed; and the right way for every address.
#[test]
fn edges_with_a_million_prefixes_are_equal_and_forward_by_the_longest() {
    let mut rng = Rng::seed_from_u64(64_512);
    let mut prefixes = BTreeSet::new();
    while prefixes.len() < PREFIXES {
        prefixes.insert(prefix(&mut rng));
    }
    let all: Vec<Prefix> = prefixes.into_iter().collect();
    // Announced in no order; then some of them come, go and move.
    let step = 387_420_489; // prime to their number: each comes once
    let first = (0..PREFIXES).map(|n| Change::Put(all[n * step % PREFIXES], hop(&mut rng)));
    let mut changes: Vec<_> = first.collect();
    for _ in 0..CHURN {
        let prefix = all[rng.random_range(0..PREFIXES)];
        changes.push(match rng.random_ratio(1, 2) {
            true => Change::Remove(prefix),
            false => Change::Put(prefix, hop(&mut rng)),
        });
    }
    let mut naive = Naive::default();
    changes.iter().for_each(|change| naive.change(change));
    let entry = |(at, part): (usize, &[Change<Prefix, IpAddr>])| {
        let payload = Bytes::from(rmp_serde::to_vec(part).unwrap());
        Entry { seq: Seq(at as u64 + 1), pair: Pair::VOID, payload }
    };
    let order: Vec<Entry> = changes.chunks(1_000).enumerate().map(entry).collect();

    let (mut early, mut late, mut last) = (Routes::default(), Routes::default(), Routes::default());
    for (at, entry) in order.iter().enumerate() {
        early.deliver(entry);
        if at == order.len() / 2 {
            late.restore(&early.checkpoint()).unwrap();
        } else if at > order.len() / 2 {
            late.deliver(entry);
        }
        if at == PREFIXES / 1_000 {
            assert_eq!(early.summary(), late.summary(), "at number {}", entry.seq);
            last.restore(&late.checkpoint()).unwrap();
        } else if at > PREFIXES / 1_000 {
            last.deliver(entry);
        }
    }
    let blocks = early.checkpoint();
    let bytes: usize = blocks.iter().map(Bytes::len).sum();
    let summary = early.summary();
    println!("{} prefixes in {} blocks of {bytes} bytes", summary.rows, blocks.len());
    assert_eq!(summary.rows, naive.0.values().map(|known| known.len() as u64).sum::<u64>());
    assert!(summary.rows > 970_000 && blocks.iter().all(|block| block.len() <= 16 << 10));
    for edge in [&mut late, &mut last] {
        assert_eq!((edge.summary(), edge.checkpoint()), (summary, blocks.clone()));
    }

    let mut ways = 0;
    for _ in 0..LOOKUPS {
        // Anywhere, and near what is there.
        let (near, length) = all[rng.random_range(0..PREFIXES)].into();
        let address: IpAddr = match near {
            _ if rng.random_ratio(1, 4) => Ipv4Addr::from_bits(rng.random()).into(),
            IpAddr::V4(v4) => {
                let rest = rng.random::<u32>().checked_shr(length.into()).unwrap_or(0);
                Ipv4Addr::from_bits(v4.to_bits() | rest).into()
            }
            IpAddr::V6(v6) => {
                Ipv6Addr::from_bits(v6.to_bits() | rng.random::<u128>() >> length).into()
            }
        };
        let way = naive.lookup(address);
        assert_eq!(last.lookup(address), way, "{address}");
        ways += usize::from(way.is_some());
    }
    assert!(ways > LOOKUPS / 2, "{ways} of {LOOKUPS} addresses have a way");
}

/// As many as there are in the world.
const PREFIXES: usize = 1_000_000;

/// Changes after all have come.
const CHURN: usize = 50_000;

/// Addresses that are looked up.
const LOOKUPS: usize = 50_000;
