//! Values as numbers.

use synod::replicated::Moment;

use super::{Arguments, CommandError, integer};
use crate::{
    number::{Extended, FloatError},
    reply::Reply,
    store::Store,
};

type Done = Result<(), CommandError>;

pub(super) fn incr(store: &mut Store, at: Moment, a: &Arguments<'_>, reply: &mut Reply) -> Done {
    add(store, at, a[1], 1, reply)
}

pub(super) fn decr(store: &mut Store, at: Moment, a: &Arguments<'_>, reply: &mut Reply) -> Done {
    add(store, at, a[1], -1, reply)
}

pub(super) fn incrby(store: &mut Store, at: Moment, a: &Arguments<'_>, reply: &mut Reply) -> Done {
    add(store, at, a[1], integer(a[2])?, reply)
}

pub(super) fn decrby(store: &mut Store, at: Moment, a: &Arguments<'_>, reply: &mut Reply) -> Done {
    let overflow = || CommandError("ERR decrement would overflow".into());
    let by = integer(a[2])?.checked_neg().ok_or_else(overflow)?;
    add(store, at, a[1], by, reply)
}

pub(super) fn incrbyfloat(
    store: &mut Store,
    at: Moment,
    a: &Arguments<'_>,
    reply: &mut Reply,
) -> Done {
    let before = match store.get(a[1], at.time_ms) {
        Some(entry) => Extended::parse(entry.value),
        None => Ok(Extended::ZERO),
    };
    // What is no number at all is named before what is infinite.
    let sum = match (before, Extended::parse(a[2])) {
        (Err(FloatError::Invalid), _) | (_, Err(FloatError::Invalid)) => Err(FloatError::Invalid),
        (Err(error), _) | (_, Err(error)) => Err(error),
        (Ok(before), Ok(by)) => before.add(&by),
    };
    let sum = sum.map_err(|error| CommandError::new(format!("ERR {error}")))?.format();
    reply.bulk(sum.as_bytes());
    store.set_value(a[1], sum.as_bytes(), at);
    Ok(())
}

fn add(store: &mut Store, at: Moment, key: &[u8], by: i64, reply: &mut Reply) -> Done {
    let before = match store.get(key, at.time_ms) {
        Some(entry) => integer(entry.value)?,
        None => 0,
    };
    let overflow = || CommandError("ERR increment or decrement would overflow".into());
    let after = before.checked_add(by).ok_or_else(overflow)?;
    reply.integer(after);
    store.set_value(key, after.to_string().as_bytes(), at);
    Ok(())
}
