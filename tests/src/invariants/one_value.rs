//! One value a ballot and step: a ballot is used by one run of one leader (R1.22, I4).

use std::collections::BTreeMap;

use synod::consensus::{
    ballot::{Ballot, Step},
    value::Value,
};

use super::Violation;

/// `value` is proposed at `step` in `ballot`; `proposed` holds every earlier proposal.
///
/// # Errors
/// Another value was proposed there in the same ballot.
pub fn check(
    proposed: &BTreeMap<(Step, Ballot), Value>,
    (step, ballot): (Step, Ballot),
    value: &Value,
) -> Result<(), Violation> {
    match proposed.get(&(step, ballot)) {
        Some(known) if known != value => Err(Violation::new(
            "one_value",
            format!("ballot {ballot} proposes {value:?} at step {step}, and proposed {known:?}"),
        )),
        Some(_) | None => Ok(()),
    }
}
