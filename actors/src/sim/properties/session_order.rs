//! The commands of one session are applied in the order in which its home was given them.

use std::collections::BTreeMap;

use super::{Property, Record, Violation};

pub(super) fn check(record: &Record, violations: &mut Vec<Violation>) {
    let Some((_, lists)) = record.finals.first() else { return };
    // A call that was asked for in several ways could have come by any of them.
    let mut only: BTreeMap<u64, usize> = BTreeMap::new();
    for (number, attempt) in record.attempts.iter().enumerate() {
        if record.known(attempt.call).is_some_and(|call| call.attempts.0 == 1) {
            only.insert(attempt.call, number);
        }
    }
    let mut applied: Vec<_> = lists.values().flatten().collect();
    applied.sort_by_key(|entry| entry.position);
    let mut last: BTreeMap<u64, (usize, u64)> = BTreeMap::new();
    for entry in applied {
        let Some(attempt) = only.get(&entry.call) else { continue };
        let before = last.insert(entry.session, (*attempt, entry.call));
        if let Some((_, other)) = before.filter(|(before, _)| before > attempt) {
            let what = format!(
                "session {}: call {} was given before call {other}, and applied after it",
                entry.session, entry.call
            );
            violations.push(Violation::new(Property::SessionOrder, what));
        }
    }
}
