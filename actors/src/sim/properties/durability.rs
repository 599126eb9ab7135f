//! What was acknowledged is there, where it was said to be: on every main.

use super::{Property, Record, Violation};
use crate::sim::record::CallKind;

pub(super) fn check(record: &Record, violations: &mut Vec<Violation>) {
    for (number, call) in (0u64..).zip(&record.calls) {
        let Some(applied) = call.applied.filter(|_| call.kind != CallKind::Length) else {
            continue;
        };
        for (node, lists) in &record.finals {
            let index = usize::try_from(applied.length).ok().and_then(|n| n.checked_sub(1));
            let entry = index.and_then(|index| lists.get(&call.list)?.get(index));
            if !entry.is_some_and(|e| e.call == number && e.position == applied.position) {
                let what = format!(
                    "call {number} was acknowledged after {:?} as entry {} of list {} at position \
                     {}; {node} has there {entry:?}",
                    applied.at, applied.length, call.list, applied.position
                );
                violations.push(Violation::new(Property::Durability, what));
            }
        }
    }
}
