//! In failure-free work an auxiliary hears heartbeats and nothing else, and writes nothing (R1.32).

use super::Violation;

/// What an auxiliary had to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Work {
    /// Messages to it that are no heartbeats.
    pub messages: u64,
    /// Records it wrote.
    pub records: u64,
}

/// Between `before` and `after` nothing failed.
///
/// # Errors
/// The auxiliary was given work.
pub fn check(before: Work, after: Work) -> Result<(), Violation> {
    if before == after {
        return Ok(());
    }
    Err(Violation::new("idle_auxiliary", format!("it went from {before:?} to {after:?}")))
}
