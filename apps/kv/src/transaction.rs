//! `MULTI … EXEC` as one command of the log: it happens as a whole, at one position.
//!
//! ```text
//! watched u32, watched × (key len u32, key, version i64) | commands u32, commands × args
//! ```
//! As in Redis a command that fails while it runs does not undo the others; what could be known
//! before (a wrong name, a wrong number of arguments) refuses the whole.

use bytes::Bytes;
use synod::replicated::Moment;

use crate::{
    args::{BadArgs, decode_prefix, split_u32, split_u64},
    execute::{self, Arguments, Run},
    reply::Reply,
    store::Store,
};

/// A key that must not have changed since it was watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watched {
    /// The key.
    pub key: Bytes,
    /// What [`Store::watch`] gave.
    pub version: i64,
}

/// Encodes a transaction of commands that are encoded already (see [`crate::args`]).
pub fn encode(watched: &[Watched], commands: &[Bytes]) -> Bytes {
    let keys: usize = watched.iter().map(|watched| watched.key.len() + 12).sum();
    let bytes: usize = commands.iter().map(Bytes::len).sum();
    let mut out = Vec::with_capacity(8 + keys + bytes);
    let count = |count: usize| u32::try_from(count).expect("limited far below 2^32").to_le_bytes();
    out.extend_from_slice(&count(watched.len()));
    for Watched { key, version } in watched {
        out.extend_from_slice(&count(key.len()));
        out.extend_from_slice(key);
        out.extend_from_slice(&version.to_le_bytes());
    }
    out.extend_from_slice(&count(commands.len()));
    for command in commands {
        out.extend_from_slice(command);
    }
    out.into()
}

/// Runs a transaction. The reply is an array with one reply a command; a null array when a watched
/// key has changed; an error when a command is no command.
pub fn execute(
    store: &mut Store,
    at: Moment,
    bytes: &[u8],
    reply: &mut Reply,
) -> Result<(), BadArgs> {
    let (watched, rest) = split_watched(bytes)?;
    let commands = split_commands(rest)?;
    if commands.iter().any(|arguments| !runs_in_the_log(arguments)) {
        reply.error(ABORTED);
        return Ok(());
    }
    if watched.iter().any(|(key, version)| !store.is_unchanged(key, *version, at.time_ms)) {
        reply.null_array();
        return Ok(());
    }
    reply.array(commands.len());
    for arguments in &commands {
        execute::execute(store, at, arguments, reply);
    }
    Ok(())
}

fn runs_in_the_log(arguments: &Arguments<'_>) -> bool {
    execute::check(arguments).is_ok_and(|command| match command.run {
        Run::Read(_) | Run::Write(_) => true,
        Run::Connection => false,
    })
}

type Keys<'a> = Vec<(&'a [u8], i64)>;

fn split_watched(bytes: &[u8]) -> Result<(Keys<'_>, &[u8]), BadArgs> {
    let (count, mut rest) = split_u32(bytes)?;
    let mut watched = Vec::new();
    for _ in 0..count {
        let (len, tail) = split_u32(rest)?;
        let (key, tail) = tail.split_at_checked(len as usize).ok_or(BadArgs)?;
        let (version, tail) = split_u64(tail)?;
        watched.push((key, version.cast_signed()));
        rest = tail;
    }
    Ok((watched, rest))
}

fn split_commands(bytes: &[u8]) -> Result<Vec<Vec<&[u8]>>, BadArgs> {
    let (count, mut rest) = split_u32(bytes)?;
    let mut commands = Vec::new();
    for _ in 0..count {
        let (arguments, tail) = decode_prefix(rest)?;
        commands.push(arguments);
        rest = tail;
    }
    if rest.is_empty() { Ok(commands) } else { Err(BadArgs) }
}

/// What an `EXEC` answers when one of its commands was refused.
pub const ABORTED: &str = "EXECABORT Transaction discarded because of previous errors.";
