//! All mains have the same state. (Digests are compared as they are seen, by the record.)

use super::{Record, Violation};

pub(super) fn check(record: &Record, violations: &mut Vec<Violation>) {
    for pair in record.finals.windows(2) {
        let [(one, here), (other, there)] = pair else { continue };
        let lists = here.keys().chain(there.keys());
        if let Some(list) = lists.into_iter().find(|list| here.get(list) != there.get(list)) {
            let what = format!("{one} and {other} end with different entries in list {list}");
            violations.push(Violation::agreement(what));
        }
    }
}
