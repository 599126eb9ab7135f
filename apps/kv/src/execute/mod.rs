//! The commands: what each does to the store, and what it answers. Redis 7.0 in effects, answers and
//! error texts.
//!
//! One file a family; `table` lists them all. A handler checks everything before it changes
//! anything, so that an error leaves the state as it was.

mod counters;
mod expiry;
mod keys;
mod many;
mod scan;
mod set;
mod strings;
pub(crate) mod table;

use std::borrow::Cow;

use synod::replicated::Moment;

pub use self::table::{Command, Run, commands, find};
use crate::{limits::VALUE_BYTES_MAX, number::parse_i64, reply::Reply, store::Store};

/// The arguments of a command, its name first.
pub type Arguments<'a> = [&'a [u8]];

/// Why a command was refused: its text with its code, as the client sees it. The state did not
/// change.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct CommandError(pub Cow<'static, str>);

impl CommandError {
    const SYNTAX: Self = Self(Cow::Borrowed("ERR syntax error"));
    const NOT_AN_INTEGER: Self = Self(Cow::Borrowed("ERR value is not an integer or out of range"));
    const TOO_LONG: Self =
        Self(Cow::Borrowed("ERR string exceeds maximum allowed size (proto-max-bulk-len)"));
    const REPLY_TOO_LONG: Self =
        Self(Cow::Borrowed("ERR the reply would exceed 8 MiB; ask for fewer keys, or use SCAN"));
    const READ_ONLY: Self = Self(Cow::Borrowed("ERR a query cannot run a command that writes"));

    fn new(text: String) -> Self {
        Self(Cow::Owned(text))
    }

    /// A wrong number of arguments for `command` (`config|get` for a subcommand).
    pub fn arity(command: &str) -> Self {
        Self::new(format!("ERR wrong number of arguments for '{command}' command"))
    }

    /// A name that is no command of ours.
    pub fn unknown(arguments: &Arguments<'_>) -> Self {
        let mut shown = String::new();
        for argument in arguments.iter().skip(1) {
            if shown.len() >= SHOWN_BYTES_MAX {
                break;
            }
            shown.push_str(&format!("'{}' ", printable(argument, SHOWN_BYTES_MAX - shown.len())));
        }
        let name = printable(arguments.first().copied().unwrap_or_default(), SHOWN_BYTES_MAX);
        Self::new(format!("ERR unknown command '{name}', with args beginning with: {shown}"))
    }

    fn expire_time(command: &str) -> Self {
        Self::new(format!("ERR invalid expire time in '{command}' command"))
    }
}

/// Runs any command of the log.
pub fn execute(store: &mut Store, at: Moment, arguments: &Arguments<'_>, reply: &mut Reply) {
    let start = reply.len();
    let result = check(arguments).and_then(|command| match command.run {
        Run::Read(run) => run(store, at, arguments, reply),
        Run::Write(run) => run(store, at, arguments, reply),
        Run::Connection => Err(CommandError::unknown(arguments)),
    });
    finish(result, start, reply);
}

/// Runs a command that only reads.
pub fn read(store: &Store, at: Moment, arguments: &Arguments<'_>, reply: &mut Reply) {
    let start = reply.len();
    let result = check(arguments).and_then(|command| match command.run {
        Run::Read(run) => run(store, at, arguments, reply),
        Run::Write(_) => Err(CommandError::READ_ONLY),
        Run::Connection => Err(CommandError::unknown(arguments)),
    });
    finish(result, start, reply);
}

/// The command that `arguments` call for, if there is one and their number is right.
pub fn check(arguments: &Arguments<'_>) -> Result<&'static Command, CommandError> {
    let name = arguments.first().copied().unwrap_or_default();
    let command = find(name).ok_or_else(|| CommandError::unknown(arguments))?;
    command.check_arity(arguments.len())?;
    if arguments.iter().any(|argument| argument.len() > VALUE_BYTES_MAX) {
        return Err(CommandError::TOO_LONG);
    }
    Ok(command)
}

fn finish(result: Result<(), CommandError>, start: usize, reply: &mut Reply) {
    let result = if reply.overflowed() { Err(CommandError::REPLY_TOO_LONG) } else { result };
    if let Err(error) = result {
        reply.truncate(start);
        reply.error(&error.0);
    }
}

/// An integer argument.
fn integer(argument: &[u8]) -> Result<i64, CommandError> {
    parse_i64(argument).ok_or(CommandError::NOT_AN_INTEGER)
}

/// Agreed time as Redis counts: signed milliseconds.
fn now_i64(at: Moment) -> i64 {
    i64::try_from(at.time_ms).unwrap_or(i64::MAX)
}

/// At most `bytes_max` bytes of a stranger's text on one line, up to the first NUL.
pub(crate) fn printable(text: &[u8], bytes_max: usize) -> String {
    let text = &text[..text.len().min(bytes_max)];
    let text = text.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(text).replace(['\r', '\n'], " ")
}

/// Bytes of a stranger's text that an error repeats, as in Redis.
const SHOWN_BYTES_MAX: usize = 128;

#[cfg(test)]
mod tests;
