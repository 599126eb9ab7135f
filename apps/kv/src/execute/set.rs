//! `SET` with all its options, and its relatives.

use synod::replicated::Moment;

use super::{Arguments, CommandError, integer, now_i64};
use crate::{reply::Reply, store::Store};

type Done = Result<(), CommandError>;

pub(super) fn set(store: &mut Store, at: Moment, a: &Arguments<'_>, reply: &mut Reply) -> Done {
    let options = Options::parse(&a[3..], For::Set)?;
    let end_ms = options.end.map(|end| end.resolve("set", at)).transpose()?;
    let Options { nx, xx, get, keep_ttl, .. } = options;
    // What a plain SET replaces concerns nobody: the key is looked up once.
    let asks = nx || xx || get || keep_ttl;
    let present = asks.then(|| store.get(a[1], at.time_ms)).flatten();
    let goes = !(nx && present.is_some() || xx && present.is_none());
    let kept_ms = present.and_then(|entry| entry.expires_at_ms).filter(|_| keep_ttl);
    if get {
        reply.optional(present.map(|entry| entry.value));
    } else if goes {
        reply.ok();
    } else {
        reply.null();
    }
    if goes {
        put(store, at, a[1], a[2], end_ms.or(kept_ms));
    }
    Ok(())
}

pub(super) fn setnx(store: &mut Store, at: Moment, a: &Arguments<'_>, reply: &mut Reply) -> Done {
    let goes = store.get(a[1], at.time_ms).is_none();
    if goes {
        put(store, at, a[1], a[2], None);
    }
    reply.integer(i64::from(goes));
    Ok(())
}

pub(super) fn setex(store: &mut Store, at: Moment, a: &Arguments<'_>, reply: &mut Reply) -> Done {
    let end = End { time: a[2], unit_ms: 1000, absolute: false };
    let end_ms = end.resolve("setex", at)?;
    put(store, at, a[1], a[3], Some(end_ms));
    reply.ok();
    Ok(())
}

pub(super) fn psetex(store: &mut Store, at: Moment, a: &Arguments<'_>, reply: &mut Reply) -> Done {
    let end = End { time: a[2], unit_ms: 1, absolute: false };
    let end_ms = end.resolve("psetex", at)?;
    put(store, at, a[1], a[3], Some(end_ms));
    reply.ok();
    Ok(())
}

pub(super) fn getset(store: &mut Store, at: Moment, a: &Arguments<'_>, reply: &mut Reply) -> Done {
    reply.optional(store.get(a[1], at.time_ms).map(|entry| entry.value));
    put(store, at, a[1], a[2], None);
    Ok(())
}

pub(super) fn getex(store: &mut Store, at: Moment, a: &Arguments<'_>, reply: &mut Reply) -> Done {
    let options = Options::parse(&a[2..], For::GetEx)?;
    let Some(entry) = store.get(a[1], at.time_ms) else {
        reply.null();
        return Ok(());
    };
    let end_ms = options.end.map(|end| end.resolve("getex", at)).transpose()?;
    let stays = entry.expires_at_ms.is_none();
    reply.bulk(entry.value);
    match end_ms {
        Some(end_ms) if end_ms > at.time_ms => store.set_expiry(a[1], Some(end_ms), at),
        Some(_) => drop(store.remove(a[1], at.time_ms)),
        None if options.persist && !stays => store.set_expiry(a[1], None, at),
        None => {}
    }
    Ok(())
}

/// Writes a key. An absolute end may have passed already: then nobody ever sees it.
fn put(store: &mut Store, at: Moment, key: &[u8], value: &[u8], end_ms: Option<u64>) {
    store.set(key, value, end_ms, at);
}

/// Which command's options are read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum For {
    Set,
    GetEx,
}

#[derive(Default)]
struct Options<'a> {
    nx: bool,
    xx: bool,
    get: bool,
    keep_ttl: bool,
    persist: bool,
    end: Option<End<'a>>,
}

impl<'a> Options<'a> {
    fn parse(mut rest: &[&'a [u8]], of: For) -> Result<Self, CommandError> {
        let mut options = Self::default();
        while let [option, tail @ ..] = rest {
            rest = tail;
            let is = |name: &str| option.eq_ignore_ascii_case(name.as_bytes());
            let set = of == For::Set;
            if set && is("nx") && !options.xx {
                options.nx = true;
            } else if set && is("xx") && !options.nx {
                options.xx = true;
            } else if set && is("get") {
                options.get = true;
            } else if set && is("keepttl") && options.end.is_none() {
                options.keep_ttl = true;
            } else if !set && is("persist") && options.end.is_none() {
                options.persist = true;
            } else if let [time, tail @ ..] = rest
                && let Some((unit_ms, absolute)) = unit(option)
                && options.takes_end(unit_ms, absolute)
            {
                options.end = Some(End { time, unit_ms, absolute });
                rest = tail;
            } else {
                return Err(CommandError::SYNTAX);
            }
        }
        Ok(options)
    }

    /// Redis lets the same option come twice, the last counts, but not two different ones.
    fn takes_end(&self, unit_ms: i64, absolute: bool) -> bool {
        let same = |end: &End<'_>| end.unit_ms == unit_ms && end.absolute == absolute;
        !self.keep_ttl && !self.persist && self.end.as_ref().is_none_or(same)
    }
}

/// The unit of `EX`, `PX`, `EXAT` and `PXAT` in milliseconds, and whether the time is absolute.
fn unit(option: &[u8]) -> Option<(i64, bool)> {
    const UNITS: [(&str, i64, bool); 4] =
        [("ex", 1000, false), ("px", 1, false), ("exat", 1000, true), ("pxat", 1, true)];
    let found = UNITS.iter().find(|(name, ..)| option.eq_ignore_ascii_case(name.as_bytes()))?;
    Some((found.1, found.2))
}

/// An end as the client wrote it; read only after the syntax of everything is right.
struct End<'a> {
    time: &'a [u8],
    unit_ms: i64,
    absolute: bool,
}

impl End<'_> {
    /// The end in agreed time, ms since 1970.
    fn resolve(&self, command: &str, at: Moment) -> Result<u64, CommandError> {
        let invalid = || CommandError::expire_time(command);
        let time = integer(self.time)?;
        if time <= 0 {
            return Err(invalid());
        }
        let base_ms = if self.absolute { 0 } else { now_i64(at) };
        let end_ms = time.checked_mul(self.unit_ms).and_then(|ms| ms.checked_add(base_ms));
        end_ms.and_then(|end_ms| u64::try_from(end_ms).ok()).ok_or_else(invalid)
    }
}
