//! A command executes at most once, in the order of its session (R1.13).

use super::Violation;

/// The numbers of commands in the order of execution: each client's must rise.
///
/// # Errors
/// A number came twice, or after a later one of the same client. `client` tells whose it is.
pub fn check(executed: &[u64], client: impl Fn(u64) -> u64) -> Result<(), Violation> {
    let mut last = std::collections::BTreeMap::new();
    for number in executed {
        let before = last.insert(client(*number), *number);
        if before.is_some_and(|before| before >= *number) {
            return Err(broken(*number));
        }
    }
    Ok(())
}

/// A command that was executed twice or out of order.
pub fn broken(number: u64) -> Violation {
    Violation::new("exactly_once", format!("{number:#x} was executed twice or out of order"))
}
