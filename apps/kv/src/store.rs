//! The state: keys, values, versions, times to live. Nothing here knows a protocol or a clock; what
//! time it is comes with every call.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
};

use bytes::Bytes;
use synod::replicated::{Moment, Position};

/// The keys and values of one replica. Changed only by commands, in the order of the log.
///
/// - I1: a key has an entry in `expiries` exactly when its entry has a time to live.
/// - I2: a key has an entry in `order` under its serial, and `order` has no others.
/// - I3: serials are below `next_serial` and never given twice.
#[derive(Clone, Debug, Default)]
pub struct Store {
    entries: BTreeMap<Bytes, Entry>,
    expiries: BTreeSet<(u64, Bytes)>,
    /// Keys by age. `SCAN` walks it from the youngest to the oldest: keys made meanwhile lie behind
    /// it, so a walk meets every key that stays exactly once, and ends.
    order: BTreeMap<u64, Bytes>,
    next_serial: u64,
}

/// What is kept with a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The value.
    pub value: Bytes,
    /// The command that last wrote the key or its time to live.
    pub version: Position,
    /// Agreed time (ms since 1970) after which the key is gone.
    pub expires_at_ms: Option<u64>,
    /// How many keys were made before this one.
    pub serial: u64,
}

impl Entry {
    /// Whether the key is still there at `now_ms`; as in Redis it lives through its last
    /// millisecond.
    pub fn lives_at(&self, now_ms: u64) -> bool {
        self.expires_at_ms.is_none_or(|end_ms| now_ms <= end_ms)
    }
}

impl Store {
    /// Writes a key: value and time to live are replaced.
    pub fn set(&mut self, key: &[u8], value: Bytes, expires_at_ms: Option<u64>, at: Moment) {
        if let Some(entry) = self.entries.get_mut(key) {
            let before_ms = entry.expires_at_ms;
            entry.value = value;
            entry.version = at.position;
            if before_ms != expires_at_ms {
                entry.expires_at_ms = expires_at_ms;
                self.move_expiry(key, before_ms, expires_at_ms);
            }
            return;
        }
        // Copied: a slice would keep the whole request alive.
        let key = Bytes::copy_from_slice(key);
        let serial = self.next_serial;
        self.next_serial += 1;
        self.order.insert(serial, key.clone());
        if let Some(end_ms) = expires_at_ms {
            self.expiries.insert((end_ms, key.clone()));
        }
        let entry = Entry { value, version: at.position, expires_at_ms, serial };
        self.entries.insert(key, entry);
    }

    /// Replaces the value and keeps the time to live.
    pub fn set_value(&mut self, key: &[u8], value: Bytes, at: Moment) {
        let expires_at_ms = self.get(key, at.time_ms).and_then(|entry| entry.expires_at_ms);
        self.set(key, value, expires_at_ms, at);
    }

    /// Gives a key a time to live, or takes it. Nothing happens to a key that is not there.
    pub fn set_expiry(&mut self, key: &[u8], expires_at_ms: Option<u64>, at: Moment) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        let before_ms = entry.expires_at_ms;
        entry.version = at.position;
        entry.expires_at_ms = expires_at_ms;
        self.move_expiry(key, before_ms, expires_at_ms);
    }

    /// Removes a key; gives what was there, unless its time was up.
    pub fn remove(&mut self, key: &[u8], now_ms: u64) -> Option<Entry> {
        let (key, entry) = self.entries.remove_entry(key)?;
        self.order.remove(&entry.serial);
        if let Some(end_ms) = entry.expires_at_ms {
            self.expiries.remove(&(end_ms, key));
        }
        entry.lives_at(now_ms).then_some(entry)
    }

    /// Removes every key.
    pub fn clear(&mut self) {
        *self = Self { next_serial: self.next_serial, ..Self::default() };
    }

    /// Removes at most `keys_max` keys whose time is up. It changes nothing a client can see.
    pub fn sweep(&mut self, now_ms: u64, keys_max: usize) {
        for _ in 0..keys_max {
            match self.expiries.first() {
                Some((end_ms, key)) if *end_ms < now_ms => {
                    let key = key.clone();
                    self.remove(&key, now_ms);
                }
                Some(_) | None => return,
            }
        }
    }

    /// What is at `key`, unless its time is up.
    pub fn get(&self, key: &[u8], now_ms: u64) -> Option<&Entry> {
        self.entries.get(key).filter(|entry| entry.lives_at(now_ms))
    }

    /// The version of a key, 0 when it is not there.
    pub fn version(&self, key: &[u8], now_ms: u64) -> u64 {
        self.get(key, now_ms).map_or(0, |entry| entry.version.0)
    }

    /// How many keys there are.
    pub fn len(&self, now_ms: u64) -> usize {
        // Dead keys that no sweep has reached yet are few.
        let dead = self.expiries.iter().take_while(|(end_ms, _)| *end_ms < now_ms).count();
        self.entries.len() - dead
    }

    /// How many keys have a time to live.
    pub fn len_expiring(&self, now_ms: u64) -> usize {
        self.expiries.len() - (self.entries.len() - self.len(now_ms))
    }

    /// The keys and entries from `start` on, in byte order.
    pub fn from<'a>(
        &'a self,
        start: Bound<&[u8]>,
        now_ms: u64,
    ) -> impl Iterator<Item = (&'a Bytes, &'a Entry)> {
        let all = self.entries.range::<[u8], _>((start, Bound::Unbounded));
        all.filter(move |(_, entry)| entry.lives_at(now_ms))
    }

    /// Keys younger than none and older than the one of serial `before`, youngest first; dead ones
    /// too, since they must count as steps of a walk.
    pub fn older_than(&self, before: u64) -> impl Iterator<Item = (u64, &Bytes, &Entry)> {
        let walk = self.order.range(..before).rev();
        walk.map(|(serial, key)| (*serial, key, &self.entries[key]))
    }

    /// The serial the next new key will get.
    pub fn next_serial(&self) -> u64 {
        self.next_serial
    }

    /// Agreed time at which the first key is gone.
    pub fn next_expiry_ms(&self) -> Option<u64> {
        self.expiries.first().map(|(end_ms, _)| end_ms.saturating_add(1))
    }

    fn move_expiry(&mut self, key: &[u8], before_ms: Option<u64>, after_ms: Option<u64>) {
        let key = match before_ms {
            // The old pair's key is used again rather than copied.
            Some(end_ms) => {
                let pair = (end_ms, Bytes::copy_from_slice(key));
                self.expiries.take(&pair).map_or(pair.1, |(_, key)| key)
            }
            None => Bytes::copy_from_slice(key),
        };
        if let Some(end_ms) = after_ms {
            self.expiries.insert((end_ms, key));
        }
    }
}

/// The snapshot's form.
///
/// ```text
/// version u8 = 1 | next_serial u64 | count u64 | count × entry, in byte order of the keys
/// entry: key len u32, key | value len u32, value | version u64 | serial u64 | end u64, 0 for none
/// ```
mod snapshot {
    use super::{Bytes, Entry, Position, Store};
    use crate::args::{BadArgs, split_u32, split_u64};

    impl Store {
        /// The whole state; equal states give equal bytes.
        pub fn snapshot(&self) -> Vec<u8> {
            let mut out = vec![FORMAT];
            out.extend_from_slice(&self.next_serial.to_le_bytes());
            out.extend_from_slice(&(self.entries.len() as u64).to_le_bytes());
            for (key, entry) in &self.entries {
                for run in [key, &entry.value] {
                    let len = u32::try_from(run.len()).expect("values are limited to 1 MiB");
                    out.extend_from_slice(&len.to_le_bytes());
                    out.extend_from_slice(run);
                }
                let end = entry.expires_at_ms.map_or(0, |end_ms| end_ms.saturating_add(1));
                for number in [entry.version.0, entry.serial, end] {
                    out.extend_from_slice(&number.to_le_bytes());
                }
            }
            out
        }

        /// The state that [`snapshot`](Self::snapshot) gave `bytes` for.
        pub fn restore(bytes: &[u8]) -> Result<Self, BadSnapshot> {
            let rest = match bytes {
                [FORMAT, rest @ ..] => rest,
                [version, ..] => return Err(BadSnapshot::Version(*version)),
                [] => return Err(BadSnapshot::Cut),
            };
            let (next_serial, rest) = split_u64(rest)?;
            let (count, mut rest) = split_u64(rest)?;
            let mut store = Self { next_serial, ..Self::default() };
            for _ in 0..count {
                let (key, entry, tail) = split_entry(rest)?;
                rest = tail;
                if entry.serial >= next_serial {
                    return Err(BadSnapshot::Serial(entry.serial));
                }
                if let Some(end_ms) = entry.expires_at_ms {
                    store.expiries.insert((end_ms, key.clone()));
                }
                if store.order.insert(entry.serial, key.clone()).is_some() {
                    return Err(BadSnapshot::Serial(entry.serial));
                }
                if store.entries.insert(key, entry).is_some() {
                    return Err(BadSnapshot::Twice);
                }
            }
            if rest.is_empty() { Ok(store) } else { Err(BadSnapshot::Cut) }
        }
    }

    fn split_entry(bytes: &[u8]) -> Result<(Bytes, Entry, &[u8]), BadSnapshot> {
        let (key, rest) = split_run(bytes)?;
        let (value, rest) = split_run(rest)?;
        let (version, rest) = split_u64(rest)?;
        let (serial, rest) = split_u64(rest)?;
        let (end, rest) = split_u64(rest)?;
        let expires_at_ms = end.checked_sub(1);
        Ok((key, Entry { value, version: Position(version), expires_at_ms, serial }, rest))
    }

    fn split_run(bytes: &[u8]) -> Result<(Bytes, &[u8]), BadSnapshot> {
        let (len, rest) = split_u32(bytes)?;
        let (run, rest) = rest.split_at_checked(len as usize).ok_or(BadSnapshot::Cut)?;
        Ok((Bytes::copy_from_slice(run), rest))
    }

    /// Why a snapshot was refused. The state did not change.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
    pub enum BadSnapshot {
        /// A newer program wrote it.
        #[error("format {0} is not known here, only {FORMAT}")]
        Version(u8),
        /// It ends too early, or goes on behind its end.
        #[error("it has the wrong length")]
        Cut,
        /// A serial is out of range or there twice.
        #[error("serial {0} cannot be")]
        Serial(u64),
        /// A key is there twice.
        #[error("a key is there twice")]
        Twice,
    }

    impl From<BadArgs> for BadSnapshot {
        fn from(_: BadArgs) -> Self {
            Self::Cut
        }
    }

    const FORMAT: u8 = 1;
}

pub use self::snapshot::BadSnapshot;

#[cfg(test)]
mod tests;
