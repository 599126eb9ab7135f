//! Every answer fits one order of all calls that agrees with the order of time.
//!
//! The order is known: it is that of the list. So for each list it is enough that
//! - a call that began after another ended comes after it (reads: sees it), and
//! - nobody saw an entry before anybody asked for it.

use std::{collections::BTreeMap, time::Duration};

use super::{Property, Record, Violation};
use crate::sim::{record::CallKind, witness::Entry};

/// One call, by the length of the list right after it.
struct Told {
    number: u64,
    length: u64,
    read: bool,
    began: Duration,
    ended: Option<Duration>,
}

pub(super) fn check(record: &Record, violations: &mut Vec<Violation>) {
    let Some((_, lists)) = record.finals.first() else { return };
    let mut told: BTreeMap<u8, Vec<Told>> = BTreeMap::new();
    for (list, entries) in lists {
        let appended = (1u64..).zip(entries).filter_map(|(length, entry)| {
            let call = record.known(entry.call)?;
            let ended = call.applied.map(|applied| applied.at);
            Some(Told { number: entry.call, length, read: false, began: call.began, ended })
        });
        told.entry(*list).or_default().extend(appended);
    }
    for (number, call) in (0u64..).zip(&record.calls) {
        if let (CallKind::Length, Some(applied)) = (call.kind, call.applied) {
            let (began, ended) = (call.began, Some(applied.at));
            let one = Told { number, length: applied.length, read: true, began, ended };
            told.entry(call.list).or_default().push(one);
        }
    }
    for (list, told) in &told {
        let entries = lists.get(list).map_or(&[][..], Vec::as_slice);
        let mut complain = |what| {
            let what = format!("list {list}: {what}");
            violations.push(Violation::new(Property::Linearizability, what));
        };
        in_time(told, &mut complain);
        foreseen(record, entries, told, &mut complain);
    }
}

/// Whoever began after another ended must not be before it.
fn in_time(told: &[Told], complain: &mut impl FnMut(String)) {
    // At one instant beginnings come first: calls that touch are not one after the other.
    let mut moments: Vec<(Duration, bool, &Told)> = Vec::new();
    for one in told {
        moments.push((one.began, false, one));
        moments.extend(one.ended.map(|ended| (ended, true, one)));
    }
    moments.sort_by_key(|(at, ended, one)| (*at, *ended, one.number));
    let (mut least, mut by) = (0, None);
    for (at, ended, one) in moments {
        if ended && one.length > least {
            (least, by) = (one.length, Some(one.number));
        }
        let before = if one.read { one.length < least } else { one.length <= least };
        if !ended && before {
            complain(format!(
                "call {} began after {at:?} and was told of length {}, but call {by:?} had seen \
                 {least} before",
                one.number, one.length
            ));
        }
    }
}

/// Nobody may see what was not asked for yet.
fn foreseen(record: &Record, entries: &[Entry], told: &[Told], complain: &mut impl FnMut(String)) {
    let mut latest = Duration::ZERO;
    let latest_of_prefix: Vec<Duration> = entries
        .iter()
        .map(|entry| {
            latest = latest.max(record.known(entry.call).map_or(latest, |call| call.began));
            latest
        })
        .collect();
    for one in told {
        let (Some(ended), Some(last)) = (one.ended, one.length.checked_sub(1)) else { continue };
        let index = usize::try_from(last).unwrap_or(usize::MAX);
        match latest_of_prefix.get(index) {
            Some(asked) if *asked <= ended => {}
            Some(_) => complain(format!("call {} saw what nobody had asked for yet", one.number)),
            None => complain(format!("call {} saw {} entries that are not", one.number, last + 1)),
        }
    }
}
