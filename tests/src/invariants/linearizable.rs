//! Every call takes effect at one moment between its begin and its end (section 1.14 of the manual).
//!
//! The object is a list that only grows. A write is told its place, a read the length. So all
//! calls have a known place in one order, and the history is linearizable exactly when a call that
//! begins after another's end does not come before it in that order.

use super::Violation;

/// A call ended. `floor` is the greatest place or length that any call had been told when this one
/// began; `told` is what this one was told; a write's place is its own, so it must be beyond.
///
/// # Errors
/// The call did not see what was there before it began.
pub fn check(write: bool, floor: u64, told: u64) -> Result<(), Violation> {
    if told > floor || (!write && told == floor) {
        return Ok(());
    }
    let what = if write { "write" } else { "read" };
    Err(Violation::new(
        "linearizable",
        format!("a {what} was told {told} although {floor} was known when it began"),
    ))
}
