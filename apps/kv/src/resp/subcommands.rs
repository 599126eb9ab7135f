//! The subcommands of `CLIENT`, `COMMAND` and `CONFIG`: a wrong one is refused like a wrong command,
//! before anything is queued or run.

use crate::execute::{Arguments, Command, CommandError, printable};

/// Refuses an unknown subcommand of `command`, or a wrong number of its arguments.
pub(super) fn check(command: &Command, a: &Arguments<'_>) -> Result<(), CommandError> {
    let Some((_, subcommands)) = CONTAINERS.iter().find(|(name, _)| *name == command.name) else {
        return Ok(());
    };
    let Some(given) = a.get(1) else { return Ok(()) };
    let found = subcommands.iter().find(|(name, _)| given.eq_ignore_ascii_case(name.as_bytes()));
    let Some((name, arity)) = found else {
        let (given, container) = (printable(given, 128), command.name.to_ascii_uppercase());
        let text = format!("ERR unknown subcommand '{given}'. Try {container} HELP.");
        return Err(CommandError(text.into()));
    };
    let (least, count) = (arity.unsigned_abs() as usize, a.len());
    match *arity < 0 && count >= least || count == least {
        true => Ok(()),
        false => Err(CommandError::arity(&format!("{}|{name}", command.name))),
    }
}

/// Names with the number of arguments, container and name included; negative: at least so many.
const CONTAINERS: [(&str, &[(&str, i32)]); 3] = [
    (
        "client",
        &[
            ("getname", 2),
            ("help", 2),
            ("id", 2),
            ("info", 2),
            ("kill", -3),
            ("list", -2),
            ("no-evict", 3),
            ("no-touch", 3),
            ("reply", 3),
            ("setinfo", 4),
            ("setname", 3),
        ],
    ),
    (
        "command",
        &[("count", 2), ("docs", -2), ("getkeys", -4), ("help", 2), ("info", -2), ("list", -2)],
    ),
    ("config", &[("get", -3), ("help", 2), ("resetstat", 2), ("rewrite", 2), ("set", -4)]),
];
