//! Where nothing went wrong, nobody was suspected, bridged or voted out, and the first leader led to
//! the end.

use super::{Property, Record, Violation};
use crate::sim::record::View;

pub(super) fn check(record: &Record, violations: &mut Vec<Violation>) {
    for (node, views) in &record.views {
        let Some(first) = views.first() else { continue };
        let accuses = |view: &&View| {
            let View { leader, epoch, suspects, bridging } = view;
            *bridging || !suspects.is_empty() || *leader != first.leader || *epoch != first.epoch
        };
        for view in views.iter().filter(|view| accuses(view)) {
            let what =
                format!("{node} thought {view:?} after {first:?} although nothing was wrong");
            violations.push(Violation::new(Property::Trust, what));
        }
    }
}
