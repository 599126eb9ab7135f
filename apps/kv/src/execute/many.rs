//! Several keys at once.

use synod::replicated::Moment;

use super::{Arguments, CommandError};
use crate::{reply::Reply, store::Store};

type Done = Result<(), CommandError>;

pub(super) fn mget(store: &Store, at: Moment, a: &Arguments<'_>, reply: &mut Reply) -> Done {
    reply.array(a.len() - 1);
    for key in &a[1..] {
        reply.optional(store.get(key, at.time_ms).map(|entry| entry.value));
    }
    Ok(())
}

pub(super) fn mset(store: &mut Store, at: Moment, a: &Arguments<'_>, reply: &mut Reply) -> Done {
    set_all(store, at, pairs(a, "mset")?);
    reply.ok();
    Ok(())
}

pub(super) fn msetnx(store: &mut Store, at: Moment, a: &Arguments<'_>, reply: &mut Reply) -> Done {
    let pairs = pairs(a, "msetnx")?;
    let goes = pairs.iter().all(|[key, _]| store.get(key, at.time_ms).is_none());
    if goes {
        set_all(store, at, pairs);
    }
    reply.integer(i64::from(goes));
    Ok(())
}

fn set_all(store: &mut Store, at: Moment, pairs: &[[&[u8]; 2]]) {
    for [key, value] in pairs {
        store.set(key, value, None, at);
    }
}

fn pairs<'a, 'b>(a: &'b Arguments<'a>, command: &str) -> Result<&'b [[&'a [u8]; 2]], CommandError> {
    let (pairs, odd) = a[1..].as_chunks();
    if odd.is_empty() { Ok(pairs) } else { Err(CommandError::arity(command)) }
}
