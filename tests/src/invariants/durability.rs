//! What was acknowledged stays (R1.18), and what was said not to be applied never was.

use super::Violation;

/// How a command ended for its client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// Applied, at this place of the list (from 1).
    At(u64),
    /// Not applied, and it never will be.
    NotApplied,
    /// It may have been applied.
    Unknown,
}

/// `list` is the state in the end; `commands` are all that clients ever sent, and what they were
/// told.
///
/// # Errors
/// An acknowledged command is not where it was said to be, or a refused one is there.
pub fn check(list: &[u64], commands: &[(u64, Told)]) -> Result<(), Violation> {
    let mut refused = Vec::new();
    for (command, told) in commands {
        match told {
            Told::At(place) => {
                let found = place.checked_sub(1).and_then(|at| list.get(usize::try_from(at).ok()?));
                if found != Some(command) {
                    let seen = format!("{command:#x} was applied at {place}; there is {found:x?}");
                    return Err(Violation::new("durability", seen));
                }
            }
            Told::NotApplied => refused.push(*command),
            Told::Unknown => {}
        }
    }
    refused.sort_unstable();
    match list.iter().find(|command| refused.binary_search(command).is_ok()) {
        Some(command) => Err(Violation::new(
            "durability",
            format!("{command:#x} was refused as not applied, and applied"),
        )),
        None => Ok(()),
    }
}
