//! An acceptor never goes back behind its promise, also not after a restart (R1.17).

use synod::consensus::ballot::Ballot;
use synod_runtime::identity::NodeId;

use super::Violation;

/// The acceptor of `node` says that it promised, or voted in, `ballot`; before it said so of
/// `before`, at most.
///
/// # Errors
/// It said so of a higher one.
pub fn check(node: &NodeId, before: Option<Ballot>, ballot: Ballot) -> Result<(), Violation> {
    match before {
        Some(before) if before > ballot => Err(Violation::new(
            "promises",
            format!("{node} speaks for ballot {ballot} after {before}"),
        )),
        Some(_) | None => Ok(()),
    }
}
