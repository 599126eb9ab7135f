//! R1.32: where nothing went wrong, an auxiliary got no message and wrote no byte.

use super::{Property, Record, Violation};

pub(super) fn check(record: &Record, violations: &mut Vec<Violation>) {
    for work in record.auxiliaries.iter().filter(|work| work.messages + work.bytes > 0) {
        let what =
            format!("{} got {} messages and wrote {} B", work.node, work.messages, work.bytes);
        violations.push(Violation::new(Property::Idleness, what));
    }
}
