//! No promise and no vote is said before it is on the disk (R1.18, I3).

use synod::consensus::ballot::{Ballot, Step};
use synod_runtime::identity::NodeId;

use super::Violation;

/// `node` says that it promised `ballot`; its disk knows `durable`.
///
/// # Errors
/// A crash now would make it forget.
pub fn check_promise(node: &NodeId, ballot: Ballot, durable: Ballot) -> Result<(), Violation> {
    if durable >= ballot {
        return Ok(());
    }
    Err(Violation::new(
        "said_is_durable",
        format!("{node} says it promised {ballot}; its disk knows {durable}"),
    ))
}

/// `node` says that it voted in `ballot` at `step`; its disk knows a vote there in `durable`, or
/// none.
///
/// # Errors
/// A crash now would make it forget.
pub fn check_vote(
    node: &NodeId,
    (step, ballot): (Step, Ballot),
    durable: Option<Ballot>,
) -> Result<(), Violation> {
    if durable.is_some_and(|durable| durable >= ballot) {
        return Ok(());
    }
    Err(Violation::new(
        "said_is_durable",
        format!("{node} says it voted at step {step} in {ballot}; its disk knows {durable:?}"),
    ))
}
