//! Epochs rise by one with every configuration, and each differs from the last by one change, so
//! that a node that was left behind can tell (R1.29).

use synod::consensus::configuration::Configuration;

use super::Violation;

/// `next` was chosen after `last`.
///
/// # Errors
/// Its epoch is not the next one, it has no main, or more than one member changed.
pub fn check(last: &Configuration, next: &Configuration) -> Result<(), Violation> {
    let gone = |a: &Configuration, b: &Configuration| {
        a.mains.iter().filter(|main| !b.mains.contains(main)).count()
            + a.auxiliaries.iter().filter(|aux| !b.auxiliaries.contains(aux)).count()
    };
    let one_change = gone(last, next) <= 1 && gone(next, last) <= 1;
    if next.epoch == last.epoch + 1 && !next.mains.is_empty() && one_change {
        return Ok(());
    }
    Err(Violation::new("epochs", format!("{next:?} was chosen after {last:?}")))
}
