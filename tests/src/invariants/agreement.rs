//! One value is chosen a step, the same at every node and for ever, also across restarts (R1.12).

use synod::consensus::{ballot::Step, value::Value};
use synod_runtime::identity::NodeId;

use super::Violation;

/// `node` learned that `value` was chosen at `step`; `chosen` holds what was learned before, by
/// anyone, from step 1 on.
///
/// # Errors
/// Another value was learned there, or the steps before were learned by nobody.
pub fn check(chosen: &[Value], node: &NodeId, step: Step, value: &Value) -> Result<(), Violation> {
    let index = usize::try_from(step.0 - 1).expect("walks are short");
    match chosen.get(index) {
        Some(known) if known == value => Ok(()),
        Some(known) => Err(Violation::new(
            "agreement",
            format!("{node} learned {value:?} at step {step}, another node {known:?}"),
        )),
        None if index == chosen.len() => Ok(()),
        None => Err(Violation::new(
            "agreement",
            format!("{node} learned step {step}, and nobody step {}", chosen.len() + 1),
        )),
    }
}
