//! Finding keys.

use std::ops::Bound;

use synod::replicated::Moment;

use super::{Arguments, CommandError, integer};
use crate::{
    glob,
    limits::REPLY_BYTES_MAX,
    number::{parse_i64, parse_u64},
    reply::Reply,
    store::Store,
};

type Done = Result<(), CommandError>;

pub(super) fn keys(store: &Store, at: Moment, a: &Arguments<'_>, reply: &mut Reply) -> Done {
    let pattern = a[1];
    // Only keys that begin as the pattern does can match.
    let literal = pattern.iter().position(|byte| b"*?[\\".contains(byte));
    let prefix = &pattern[..literal.unwrap_or(pattern.len())];
    let found: Vec<_> = store
        .from(Bound::Included(prefix), at.time_ms)
        .map(|(key, _)| key)
        .take_while(|key| key.starts_with(prefix))
        .filter(|key| glob::matches(pattern, key))
        .collect();
    reply.array(found.len());
    for key in found {
        reply.bulk(key);
    }
    Ok(())
}

/// The cursor is the slot of the last key visited; the walk goes from the highest slot down (see
/// [`Store::below`]), so 0 means both the beginning and the end.
pub(super) fn scan(store: &Store, at: Moment, a: &Arguments<'_>, reply: &mut Reply) -> Done {
    let cursor = parse_u64(a[1]).ok_or_else(|| CommandError("ERR invalid cursor".into()))?;
    let options = Options::parse(&a[2..])?;
    let mut walk = store.below(if cursor == 0 { u64::MAX } else { cursor }).peekable();
    let mut found = Vec::new();
    let mut found_bytes = 0;
    let mut last = 0;
    for (slot, key, entry) in walk.by_ref().take(options.count) {
        last = slot;
        let wanted = options.pattern.is_none_or(|pattern| glob::matches(pattern, key));
        if wanted && options.strings && entry.lives_at(at.time_ms) {
            found.push(key);
            found_bytes += key.len();
        }
        // However large a count was asked for; the walk goes on with the next call.
        if found_bytes >= REPLY_BYTES_MAX / 4 {
            break;
        }
    }
    let next = if walk.peek().is_some() { last } else { 0 };
    reply.array(2);
    reply.bulk(next.to_string().as_bytes());
    reply.array(found.len());
    for key in found {
        reply.bulk(key);
    }
    Ok(())
}

/// Answers `RANDOMKEY`: the key after a place that the listener's number chooses.
pub(super) fn random_key(store: &Store, at: Moment, a: &Arguments<'_>, reply: &mut Reply) -> Done {
    let number = parse_i64(a[1]).ok_or(CommandError::NOT_AN_INTEGER)?.unsigned_abs();
    let place = number % store.end().max(1) + 1;
    let live = |start| {
        store.below(start).find(|(.., entry)| entry.lives_at(at.time_ms)).map(|found| found.1)
    };
    let found = live(place).or_else(|| live(u64::MAX));
    reply.optional(found);
    Ok(())
}

/// The options of `SCAN`.
struct Options<'a> {
    count: usize,
    pattern: Option<&'a [u8]>,
    /// Whether keys that hold strings are wanted; there are no others.
    strings: bool,
}

impl<'a> Options<'a> {
    fn parse(mut rest: &[&'a [u8]]) -> Result<Self, CommandError> {
        let mut options = Self { count: COUNT_DEFAULT, pattern: None, strings: true };
        while let [option, tail @ ..] = rest {
            let [value, tail @ ..] = tail else { return Err(CommandError::SYNTAX) };
            rest = tail;
            if option.eq_ignore_ascii_case(b"count") {
                let count = integer(value)?;
                if count < 1 {
                    return Err(CommandError::SYNTAX);
                }
                options.count = usize::try_from(count).unwrap_or(usize::MAX);
            } else if option.eq_ignore_ascii_case(b"match") {
                options.pattern = Some(value);
            } else if option.eq_ignore_ascii_case(b"type") {
                options.strings = value.eq_ignore_ascii_case(b"string");
            } else {
                return Err(CommandError::SYNTAX);
            }
        }
        Ok(options)
    }
}

/// As in Redis.
const COUNT_DEFAULT: usize = 10;
