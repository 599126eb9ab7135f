//! Values as runs of bytes.

use synod::replicated::Moment;

use super::{Arguments, CommandError, integer};
use crate::{limits::VALUE_BYTES_MAX, reply::Reply, store::Store};

type Done = Result<(), CommandError>;

pub(super) fn get(store: &Store, at: Moment, a: &Arguments<'_>, reply: &mut Reply) -> Done {
    reply.optional(store.get(a[1], at.time_ms).map(|entry| entry.value));
    Ok(())
}

pub(super) fn getdel(store: &mut Store, at: Moment, a: &Arguments<'_>, reply: &mut Reply) -> Done {
    let removed = store.remove(a[1], at.time_ms);
    reply.optional(removed.as_ref().map(|record| record.entry().value));
    Ok(())
}

pub(super) fn strlen(store: &Store, at: Moment, a: &Arguments<'_>, reply: &mut Reply) -> Done {
    reply.integer(len_i64(value(store, a[1], at)));
    Ok(())
}

pub(super) fn append(store: &mut Store, at: Moment, a: &Arguments<'_>, reply: &mut Reply) -> Done {
    let before = value(store, a[1], at);
    let after = [before, a[2]].concat();
    if after.len() > VALUE_BYTES_MAX {
        return Err(CommandError::TOO_LONG);
    }
    reply.integer(len_i64(&after));
    store.set_value(a[1], &after, at);
    Ok(())
}

pub(super) fn getrange(store: &Store, at: Moment, a: &Arguments<'_>, reply: &mut Reply) -> Done {
    let (start, end) = (integer(a[2])?, integer(a[3])?);
    let value = value(store, a[1], at);
    reply.bulk(part(value, start, end).unwrap_or_default());
    Ok(())
}

pub(super) fn setrange(
    store: &mut Store,
    at: Moment,
    a: &Arguments<'_>,
    reply: &mut Reply,
) -> Done {
    let Ok(offset) = usize::try_from(integer(a[2])?) else {
        return Err(CommandError("ERR offset is out of range".into()));
    };
    let before = value(store, a[1], at);
    let patch = a[3];
    if patch.is_empty() {
        reply.integer(len_i64(before));
        return Ok(());
    }
    let end = offset.saturating_add(patch.len());
    if end > VALUE_BYTES_MAX {
        return Err(CommandError::TOO_LONG);
    }
    let mut after = before.to_vec();
    after.resize(after.len().max(end), 0);
    after[offset..end].copy_from_slice(patch);
    reply.integer(len_i64(&after));
    store.set_value(a[1], &after, at);
    Ok(())
}

/// Bytes `start` to `end`, both included and counted from the end when negative.
fn part(value: &[u8], start: i64, end: i64) -> Option<&[u8]> {
    if start < 0 && end < 0 && start > end {
        return None;
    }
    let len = len_i64(value);
    let from_front = |at: i64| if at < 0 { at.saturating_add(len).max(0) } else { at };
    let (start, end) = (from_front(start), from_front(end).min(len - 1));
    let (start, end) = (usize::try_from(start).ok()?, usize::try_from(end).ok()?);
    value.get(start..=end)
}

/// The value of a key; a missing key has an empty one.
fn value<'a>(store: &'a Store, key: &[u8], at: Moment) -> &'a [u8] {
    store.get(key, at.time_ms).map_or(&[], |entry| entry.value)
}

fn len_i64(value: &[u8]) -> i64 {
    i64::try_from(value.len()).expect("values are limited to 1 MiB")
}
