//! The state: keys, values, versions, times to live. Nothing here knows a protocol or a clock; what
//! time it is comes with every call.
//!
//! ```text
//!  Index: slots in the byte order of their keys       Slots: pages of records
//!  [ 7 2 ] [ 0 5 9 ] …            ────────────────►   0 │ version │ end │ key │ value │
//!  Expiries: (end, slot)          ────────────────►   1 │ …
//! ```
//! Each key is one allocation, a place in a page and eight bytes in the index, since a node may hold
//! tens of millions of them.

mod frozen;
mod index;
mod record;
mod slots;
mod snapshot;

use std::{collections::BTreeSet, ops::Bound};

use synod::replicated::{Moment, Position};

use self::{
    frozen::Frozen,
    index::{Index, Place},
    slots::{Page, Slots},
};
pub use self::{
    record::{Entry, Record},
    snapshot::{BadSnapshot, Thawing},
};

/// The keys and values of one replica. Changed only by commands, in the order of the log.
///
/// - I1: a slot is in `expiries` exactly when its record has an end.
/// - I2: `index` holds every used slot once, in the byte order of the keys.
/// - I3: a key keeps its slot for as long as it is there, and a new key gets the lowest free one:
///   which slots are used says all about the next, so that replicas agree on the cursors of `SCAN`.
#[derive(Clone, Debug, Default)]
pub struct Store {
    slots: Slots,
    index: Index,
    expiries: BTreeSet<(u64, u32)>,
    made: Made,
    /// What `clear` left to be freed, a little with each command. No part of the state.
    trash: Vec<Page>,
    /// An earlier state that is being written down. No part of the state either.
    frozen: Option<Frozen>,
}

/// For each of some thousand sets of keys, the command that last made one of them: enough to tell
/// whether a key that was not there has been there since.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Made(Vec<u64>);

impl Store {
    /// Writes a key: value and time to live are replaced.
    pub fn set(&mut self, key: &[u8], value: &[u8], expires_at_ms: Option<u64>, at: Moment) {
        let place = match self.index.find(&self.slots, key) {
            Ok(place) => place,
            Err(place) => {
                self.made.note(key, at.position);
                self.keep(key, || None);
                let record = Record::new(key, value, at.position, expires_at_ms);
                let slot = self.slots.insert(record);
                self.index.insert(place, slot, &self.slots);
                return self.move_expiry(slot, None, expires_at_ms);
            }
        };
        let slot = self.index.slot(place);
        let record = self.slots.get_mut(slot);
        let before = record.entry();
        let before_ms = before.expires_at_ms;
        if !before.lives_at(at.time_ms) {
            self.made.note(key, at.position);
        }
        // A frozen state wants it as it was.
        if self.frozen.is_some() || !record.rewrite(value, at.position, expires_at_ms) {
            let new = Record::new(key, value, at.position, expires_at_ms);
            let replaced = std::mem::replace(record, new);
            self.keep(key, || Some((slot, replaced)));
        }
        self.move_expiry(slot, before_ms, expires_at_ms);
    }

    /// Replaces the value and keeps the time to live.
    pub fn set_value(&mut self, key: &[u8], value: &[u8], at: Moment) {
        let expires_at_ms = self.get(key, at.time_ms).and_then(|entry| entry.expires_at_ms);
        self.set(key, value, expires_at_ms, at);
    }

    /// Gives a key a time to live, or takes it. Nothing happens to a key that is not there.
    pub fn set_expiry(&mut self, key: &[u8], expires_at_ms: Option<u64>, at: Moment) {
        let Ok(place) = self.index.find(&self.slots, key) else { return };
        let slot = self.index.slot(place);
        let record = self.slots.get_mut(slot);
        let Entry { value, expires_at_ms: before_ms, .. } = record.entry();
        let new = Record::new(key, value, at.position, expires_at_ms);
        let replaced = std::mem::replace(record, new);
        self.move_expiry(slot, before_ms, expires_at_ms);
        self.keep(key, || Some((slot, replaced)));
    }

    /// Removes a key; gives what was there, unless its time was up.
    pub fn remove(&mut self, key: &[u8], now_ms: u64) -> Option<Record> {
        let place = self.index.find(&self.slots, key).ok()?;
        Some(self.take(place)).filter(|record| record.entry().lives_at(now_ms))
    }

    /// Removes every key.
    pub fn clear(&mut self) {
        let (mut slots, index) = (std::mem::take(&mut self.slots), std::mem::take(&mut self.index));
        let mut needless = match &mut self.frozen {
            Some(frozen) => frozen.clear(slots, index),
            None => slots.take_pages(),
        };
        self.trash.append(&mut needless);
        self.expiries.clear();
    }

    /// Removes at most `keys_max` keys whose time is up. It changes nothing a client can see.
    pub fn sweep(&mut self, now_ms: u64, keys_max: usize) {
        self.trash.truncate(self.trash.len().saturating_sub(TRASH_PAGES_MAX));
        for _ in 0..keys_max {
            match self.expiries.first() {
                Some((end_ms, slot)) if *end_ms < now_ms => {
                    let place = self.index.find(&self.slots, self.slots.get(*slot).key());
                    self.take(place.expect("I2: a used slot is in the index"));
                }
                Some(_) | None => return,
            }
        }
    }

    /// What is at `key`, unless its time is up.
    pub fn get(&self, key: &[u8], now_ms: u64) -> Option<Entry<'_>> {
        let place = self.index.find(&self.slots, key).ok()?;
        Some(self.slots.get(self.index.slot(place)).entry()).filter(|entry| entry.lives_at(now_ms))
    }

    /// What `WATCH` remembers of a key: the version it has, or, negative, the position at which it
    /// is not there.
    pub fn watch(&self, key: &[u8], at: Moment) -> i64 {
        match self.get(key, at.time_ms) {
            Some(entry) => signed(entry.version.0),
            None => -signed(at.position.0),
        }
    }

    /// Whether nobody wrote, made or removed a key since [`watch`](Self::watch) gave `watched`. Once
    /// in some 65 000 times a key that was not there counts as changed because another was made.
    pub fn is_unchanged(&self, key: &[u8], watched: i64, now_ms: u64) -> bool {
        match self.get(key, now_ms) {
            Some(entry) => signed(entry.version.0) == watched,
            None => watched <= 0 && self.made.last(key) <= watched.unsigned_abs(),
        }
    }

    /// How many keys there are.
    pub fn len(&self, now_ms: u64) -> usize {
        // Dead keys that no sweep has reached yet are few.
        let dead = self.expiries.iter().take_while(|(end_ms, _)| *end_ms < now_ms).count();
        self.index.len() - dead
    }

    /// How many keys have a time to live.
    pub fn len_expiring(&self, now_ms: u64) -> usize {
        self.expiries.len() - (self.index.len() - self.len(now_ms))
    }

    /// The keys and entries from `start` on, in byte order.
    pub fn from(
        &self,
        start: Bound<&[u8]>,
        now_ms: u64,
    ) -> impl Iterator<Item = (&[u8], Entry<'_>)> {
        let (Bound::Included(key) | Bound::Excluded(key)) = start else {
            return self.records_from(Place::default(), now_ms);
        };
        let place = match (self.index.find(&self.slots, key), start) {
            (Ok(place), Bound::Excluded(_)) => place.next(),
            (Ok(place) | Err(place), _) => place,
        };
        self.records_from(place, now_ms)
    }

    fn records_from(&self, place: Place, now_ms: u64) -> impl Iterator<Item = (&[u8], Entry<'_>)> {
        let records = self.index.from(place).map(|slot| self.slots.get(slot));
        let all = records.map(|record| (record.key(), record.entry()));
        all.filter(move |(_, entry)| entry.lives_at(now_ms))
    }

    /// The keys in slots below `slot`, the highest first; dead ones too, since they must count as
    /// steps of a walk. A key that stays is met exactly once by a walk that goes on below the last
    /// slot it met, and the walk ends, whatever is made meanwhile.
    pub fn below(&self, slot: u64) -> impl Iterator<Item = (u64, &[u8], Entry<'_>)> {
        let slot = u32::try_from(slot).unwrap_or(u32::MAX);
        let walk = self.slots.below(slot);
        walk.map(|(slot, record)| (u64::from(slot), record.key(), record.entry()))
    }

    /// Above all used slots.
    pub fn end(&self) -> u64 {
        u64::from(self.slots.end())
    }

    /// Agreed time at which the first key is gone.
    pub fn next_expiry_ms(&self) -> Option<u64> {
        self.expiries.first().map(|(end_ms, _)| end_ms.saturating_add(1))
    }

    fn take(&mut self, place: Place) -> Record {
        let slot = self.index.remove(place, &self.slots);
        let record = self.slots.remove(slot);
        self.move_expiry(slot, record.entry().expires_at_ms, None);
        self.keep(record.key(), || Some((slot, record.clone())));
        record
    }

    /// A key changes: a frozen state keeps what was there.
    fn keep(&mut self, key: &[u8], before: impl FnOnce() -> Option<(u32, Record)>) {
        if let Some(frozen) = &mut self.frozen {
            frozen.keep(key, before);
        }
    }

    fn move_expiry(&mut self, slot: u32, before_ms: Option<u64>, after_ms: Option<u64>) {
        if before_ms == after_ms {
            return;
        }
        if let Some(end_ms) = before_ms {
            self.expiries.remove(&(end_ms, slot));
        }
        if let Some(end_ms) = after_ms {
            self.expiries.insert((end_ms, slot));
        }
    }
}

impl Made {
    fn note(&mut self, key: &[u8], position: Position) {
        self.0[Self::set_of(key)] = position.0;
    }

    fn last(&self, key: &[u8]) -> u64 {
        self.0[Self::set_of(key)]
    }

    /// FNV-1a, folded: part of the state's meaning, so never changed.
    fn set_of(key: &[u8]) -> usize {
        let hash = key.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        });
        (hash ^ hash >> 32) as usize % MADE_SETS
    }
}

impl Default for Made {
    fn default() -> Self {
        Self(vec![0; MADE_SETS])
    }
}

fn signed(position: u64) -> i64 {
    i64::try_from(position).expect("positions stay below 2^53")
}

/// Half a megabyte; with so many sets hardly a transaction is stopped for another's key.
const MADE_SETS: usize = 1 << 16;

/// Pages of a cleared store that one command frees: a fraction of a millisecond.
const TRASH_PAGES_MAX: usize = 16;

#[cfg(test)]
mod tests;
