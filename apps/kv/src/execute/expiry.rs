//! Times to live. Time is agreed time, so every replica expires a key at the same step.

use synod::replicated::Moment;

use super::{Arguments, CommandError, integer, now_i64};
use crate::{execute::printable, reply::Reply, store::Store};

type Done = Result<(), CommandError>;

pub(super) fn expire(store: &mut Store, at: Moment, a: &Arguments<'_>, reply: &mut Reply) -> Done {
    set_end(store, at, a, reply, &Form { name: "expire", unit_ms: 1000, base_ms: now_i64(at) })
}

pub(super) fn pexpire(store: &mut Store, at: Moment, a: &Arguments<'_>, reply: &mut Reply) -> Done {
    set_end(store, at, a, reply, &Form { name: "pexpire", unit_ms: 1, base_ms: now_i64(at) })
}

pub(super) fn expireat(
    store: &mut Store,
    at: Moment,
    a: &Arguments<'_>,
    reply: &mut Reply,
) -> Done {
    set_end(store, at, a, reply, &Form { name: "expireat", unit_ms: 1000, base_ms: 0 })
}

pub(super) fn pexpireat(
    store: &mut Store,
    at: Moment,
    a: &Arguments<'_>,
    reply: &mut Reply,
) -> Done {
    set_end(store, at, a, reply, &Form { name: "pexpireat", unit_ms: 1, base_ms: 0 })
}

pub(super) fn persist(store: &mut Store, at: Moment, a: &Arguments<'_>, reply: &mut Reply) -> Done {
    let ends = store.get(a[1], at.time_ms).is_some_and(|entry| entry.expires_at_ms.is_some());
    if ends {
        store.set_expiry(a[1], None, at);
    }
    reply.integer(i64::from(ends));
    Ok(())
}

pub(super) fn ttl(store: &Store, at: Moment, a: &Arguments<'_>, reply: &mut Reply) -> Done {
    reply.integer(rest(store, at, a[1], |end_ms| rounded_seconds(end_ms - now_i64(at))));
    Ok(())
}

pub(super) fn pttl(store: &Store, at: Moment, a: &Arguments<'_>, reply: &mut Reply) -> Done {
    reply.integer(rest(store, at, a[1], |end_ms| end_ms - now_i64(at)));
    Ok(())
}

pub(super) fn expiretime(store: &Store, at: Moment, a: &Arguments<'_>, reply: &mut Reply) -> Done {
    reply.integer(rest(store, at, a[1], rounded_seconds));
    Ok(())
}

/// What tells the four commands that set an end from each other.
#[derive(Clone, Copy)]
struct Form {
    name: &'static str,
    unit_ms: i64,
    base_ms: i64,
}

/// The conditions of `EXPIRE … NX|XX|GT|LT`.
#[derive(Default)]
struct Conditions {
    nx: bool,
    xx: bool,
    gt: bool,
    lt: bool,
}

impl Conditions {
    fn parse(options: &[&[u8]]) -> Result<Self, CommandError> {
        let mut conditions = Self::default();
        for option in options {
            let known: [(&str, &mut bool); 4] = [
                ("nx", &mut conditions.nx),
                ("xx", &mut conditions.xx),
                ("gt", &mut conditions.gt),
                ("lt", &mut conditions.lt),
            ];
            let found =
                known.into_iter().find(|(name, _)| option.eq_ignore_ascii_case(name.as_bytes()));
            let Some((_, flag)) = found else {
                let option = printable(option, option.len());
                return Err(CommandError::new(format!("ERR Unsupported option {option}")));
            };
            *flag = true;
        }
        let Self { nx, xx, gt, lt } = conditions;
        let clash = if nx && (xx || gt || lt) {
            "ERR NX and XX, GT or LT options at the same time are not compatible"
        } else if gt && lt {
            "ERR GT and LT options at the same time are not compatible"
        } else {
            return Ok(conditions);
        };
        Err(CommandError(clash.into()))
    }

    /// Whether an end of `present_ms` (none: the key stays) may be replaced by `end_ms`.
    fn allow(&self, present_ms: Option<i64>, end_ms: i64) -> bool {
        !(self.nx && present_ms.is_some()
            || self.xx && present_ms.is_none()
            || self.gt && present_ms.is_none_or(|present_ms| end_ms <= present_ms)
            || self.lt && present_ms.is_some_and(|present_ms| end_ms >= present_ms))
    }
}

fn set_end(
    store: &mut Store,
    at: Moment,
    a: &Arguments<'_>,
    reply: &mut Reply,
    form: &Form,
) -> Done {
    let conditions = Conditions::parse(&a[3..])?;
    let time = integer(a[2])?;
    let end_ms = time.checked_mul(form.unit_ms).and_then(|ms| ms.checked_add(form.base_ms));
    let end_ms = end_ms.ok_or_else(|| CommandError::expire_time(form.name))?;
    let Some(entry) = store.get(a[1], at.time_ms) else {
        reply.integer(0);
        return Ok(());
    };
    if !conditions.allow(entry.expires_at_ms.map(end_i64), end_ms) {
        reply.integer(0);
        return Ok(());
    }
    match future(end_ms, at) {
        Some(end_ms) => store.set_expiry(a[1], Some(end_ms), at),
        None => drop(store.remove(a[1], at.time_ms)),
    }
    reply.integer(1);
    Ok(())
}

/// `end_ms` if it lies in the future: an end that does not removes its key at once.
fn future(end_ms: i64, at: Moment) -> Option<u64> {
    u64::try_from(end_ms).ok().filter(|end_ms| *end_ms > at.time_ms)
}

/// −2 for a missing key, −1 for one that stays, else what `of` makes of its end.
fn rest(store: &Store, at: Moment, key: &[u8], of: impl FnOnce(i64) -> i64) -> i64 {
    match store.get(key, at.time_ms) {
        None => -2,
        Some(entry) => entry.expires_at_ms.map_or(-1, |end_ms| of(end_i64(end_ms))),
    }
}

fn end_i64(end_ms: u64) -> i64 {
    i64::try_from(end_ms).unwrap_or(i64::MAX)
}

/// Whole seconds, half of one rounded up, as in Redis.
fn rounded_seconds(ms: i64) -> i64 {
    ms.saturating_add(500) / 1000
}
