//! Replicas that executed the same steps are in the same state (R1.13).

use std::collections::BTreeMap;

use synod::consensus::ballot::Step;
use synod_runtime::identity::NodeId;

use super::Violation;

/// `node` is at `position` with `digest` after `step`; `seen` holds what others were at.
///
/// # Errors
/// Another replica was at another position or digest after the same step.
pub fn check(
    seen: &BTreeMap<Step, (u64, u64)>,
    node: &NodeId,
    (step, position, digest): (Step, u64, u64),
) -> Result<(), Violation> {
    match seen.get(&step) {
        Some(known) if *known != (position, digest) => Err(Violation::new(
            "equal_states",
            format!("{node} is at {position} {digest:x} after step {step}, another at {known:x?}"),
        )),
        Some(_) | None => Ok(()),
    }
}
