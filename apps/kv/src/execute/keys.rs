//! Keys as such, and the few commands that need no key at all.

use synod::replicated::Moment;

use super::{Arguments, CommandError};
use crate::{reply::Reply, store::Store};

type Done = Result<(), CommandError>;

pub(super) fn ping(_: &Store, _: Moment, a: &Arguments<'_>, reply: &mut Reply) -> Done {
    match a {
        [_] => reply.simple("PONG"),
        [_, text] => reply.bulk(text),
        _ => return Err(CommandError::arity("ping")),
    }
    Ok(())
}

pub(super) fn echo(_: &Store, _: Moment, a: &Arguments<'_>, reply: &mut Reply) -> Done {
    reply.bulk(a[1]);
    Ok(())
}

/// Its fence was looked at before: this only says that it held.
pub(super) fn fence(_: &Store, _: Moment, _: &Arguments<'_>, reply: &mut Reply) -> Done {
    reply.ok();
    Ok(())
}

pub(super) fn dbsize(store: &Store, at: Moment, _: &Arguments<'_>, reply: &mut Reply) -> Done {
    reply.integer(count_i64(store.len(at.time_ms)));
    Ok(())
}

pub(super) fn del(store: &mut Store, at: Moment, a: &Arguments<'_>, reply: &mut Reply) -> Done {
    let removed = a[1..].iter().filter(|key| store.remove(key, at.time_ms).is_some()).count();
    reply.integer(count_i64(removed));
    Ok(())
}

pub(super) fn exists(store: &Store, at: Moment, a: &Arguments<'_>, reply: &mut Reply) -> Done {
    let found = a[1..].iter().filter(|key| store.get(key, at.time_ms).is_some()).count();
    reply.integer(count_i64(found));
    Ok(())
}

pub(super) fn type_of(store: &Store, at: Moment, a: &Arguments<'_>, reply: &mut Reply) -> Done {
    reply.simple(if store.get(a[1], at.time_ms).is_some() { "string" } else { "none" });
    Ok(())
}

pub(super) fn rename(store: &mut Store, at: Moment, a: &Arguments<'_>, reply: &mut Reply) -> Done {
    if store.get(a[1], at.time_ms).is_none() {
        return Err(CommandError("ERR no such key".into()));
    }
    if a[1] != a[2]
        && let Some(record) = store.remove(a[1], at.time_ms)
    {
        let entry = record.entry();
        store.set(a[2], entry.value, entry.expires_at_ms, at);
    }
    reply.ok();
    Ok(())
}

pub(super) fn flush(store: &mut Store, _: Moment, a: &Arguments<'_>, reply: &mut Reply) -> Done {
    let fits = match a {
        [_] => true,
        [_, mode] => mode.eq_ignore_ascii_case(b"sync") || mode.eq_ignore_ascii_case(b"async"),
        _ => false,
    };
    if !fits {
        return Err(CommandError::SYNTAX);
    }
    store.clear();
    reply.ok();
    Ok(())
}

/// Answers `WATCH`: what is to be remembered of the keys, see [`Store::watch`].
pub(super) fn versions(store: &Store, at: Moment, a: &Arguments<'_>, reply: &mut Reply) -> Done {
    reply.array(a.len() - 1);
    for key in &a[1..] {
        reply.integer(store.watch(key, at));
    }
    Ok(())
}

/// Answers the last section of `INFO`.
pub(super) fn keyspace(store: &Store, at: Moment, _: &Arguments<'_>, reply: &mut Reply) -> Done {
    let (keys, expires) = (store.len(at.time_ms), store.len_expiring(at.time_ms));
    let mut text = String::from("# Keyspace\r\n");
    if keys > 0 {
        text.push_str(&format!("db0:keys={keys},expires={expires},avg_ttl=0\r\n"));
    }
    reply.verbatim(&text);
    Ok(())
}

fn count_i64(count: usize) -> i64 {
    i64::try_from(count).expect("memory holds fewer keys")
}
