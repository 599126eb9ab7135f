//! Every call ends within the patience of its client, unless its node ended before.

use super::{Property, Record, Violation};

pub(super) fn check(record: &Record, violations: &mut Vec<Violation>) {
    for (number, attempt) in record.attempts.iter().enumerate() {
        let end = *record.ended_lives.get(&attempt.home).unwrap_or(&record.until);
        let in_time = attempt.ended.is_some_and(|at| at <= attempt.due);
        if !in_time && end > attempt.due {
            let (node, life) = &attempt.home;
            let what = format!(
                "attempt {number} (call {}) at {node}, life {life}, began after {:?} and ended \
                 after {:?}",
                attempt.call, attempt.began, attempt.ended
            );
            violations.push(Violation::new(Property::Patience, what));
        }
    }
}
