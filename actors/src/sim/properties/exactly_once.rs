//! Nothing is applied twice, and nothing that was refused, that failed or that nobody asked for.

use std::collections::BTreeSet;

use super::{Record, Violation};

pub(super) fn check(record: &Record, violations: &mut Vec<Violation>) {
    for (node, lists) in &record.finals {
        let mut seen = BTreeSet::new();
        for entry in lists.values().flatten() {
            let number = entry.call;
            let wrong = match record.known(number) {
                None => "which nobody made",
                Some(_) if !seen.insert(number) => "twice",
                Some(call) if call.was_refused() => "which was said not to be applied",
                Some(call) if call.failed.is_some() => "which was said to have failed",
                Some(_) => continue,
            };
            violations.push(Violation::exactly_once(format!("{node} has call {number}, {wrong}")));
        }
    }
}
