//! The store as bytes, and back.
//!
//! ```text
//! version u8 = 2 | count u64 | count × entry, in byte order of the keys | sets u32 | sets × set
//! entry: key len u32, key | value len u32, value | version u64 | slot u32 | end u64, 0 for none
//! set: number u32, the command that last made a key of it u64
//! ```

use synod::replicated::Position;

use super::{MADE_SETS, Record, Store, index::Place};
use crate::{
    args::{BadArgs, split_u32, split_u64},
    limits::VALUE_BYTES_MAX,
};

impl Store {
    /// The whole state; equal states give equal bytes.
    pub fn snapshot(&self) -> Vec<u8> {
        // About what small keys and values take; the rest grows.
        let mut out = Vec::with_capacity(ENTRY_BYTES_GUESS * self.index.len());
        out.push(FORMAT);
        out.extend_from_slice(&(self.index.len() as u64).to_le_bytes());
        for slot in self.index.from(Place::default()) {
            let record = self.slots.get(slot);
            let entry = record.entry();
            for run in [record.key(), entry.value] {
                let len = u32::try_from(run.len()).expect("values are limited to 1 MiB");
                out.extend_from_slice(&len.to_le_bytes());
                out.extend_from_slice(run);
            }
            out.extend_from_slice(&entry.version.0.to_le_bytes());
            out.extend_from_slice(&slot.to_le_bytes());
            let end = entry.expires_at_ms.map_or(0, |end_ms| end_ms.saturating_add(1));
            out.extend_from_slice(&end.to_le_bytes());
        }
        let made = (0_u32..).zip(&self.made.0).filter(|(_, position)| **position > 0);
        let count = u32::try_from(made.clone().count()).expect("some thousand sets");
        out.extend_from_slice(&count.to_le_bytes());
        for (set, position) in made {
            out.extend_from_slice(&set.to_le_bytes());
            out.extend_from_slice(&position.to_le_bytes());
        }
        out
    }

    /// The state that [`snapshot`](Self::snapshot) gave `bytes` for.
    ///
    /// # Errors
    /// When they are not such bytes.
    pub fn restore(bytes: &[u8]) -> Result<Self, BadSnapshot> {
        let rest = match bytes {
            [FORMAT, rest @ ..] => rest,
            [version, ..] => return Err(BadSnapshot::Version(*version)),
            [] => return Err(BadSnapshot::Cut),
        };
        let (count, mut rest) = split_u64(rest)?;
        let mut store = Self::default();
        let mut last: Option<&[u8]> = None;
        for _ in 0..count {
            let (key, slot, record, tail) = split_entry(rest)?;
            if last.is_some_and(|last| last >= key) {
                return Err(BadSnapshot::Order);
            }
            (last, rest) = (Some(key), tail);
            let end_ms = record.entry().expires_at_ms;
            if slot >= SLOTS_MAX || store.slots.put(slot, record).is_some() {
                return Err(BadSnapshot::Slot(slot));
            }
            store.index.push(slot, &store.slots);
            store.move_expiry(slot, None, end_ms);
        }
        let (sets, mut rest) = split_u32(rest)?;
        for _ in 0..sets {
            let (set, tail) = split_u32(rest)?;
            let (position, tail) = split_u64(tail)?;
            let set = usize::try_from(set).ok().filter(|set| *set < MADE_SETS);
            store.made.0[set.ok_or(BadSnapshot::Cut)?] = position;
            rest = tail;
        }
        if rest.is_empty() { Ok(store) } else { Err(BadSnapshot::Cut) }
    }
}

type Split<'a> = (&'a [u8], u32, Record, &'a [u8]);

fn split_entry(bytes: &[u8]) -> Result<Split<'_>, BadSnapshot> {
    let (key, rest) = split_run(bytes)?;
    let (value, rest) = split_run(rest)?;
    let (version, rest) = split_u64(rest)?;
    let (slot, rest) = split_u32(rest)?;
    let (end, rest) = split_u64(rest)?;
    let record = Record::new(key, value, Position(version), end.checked_sub(1));
    Ok((key, slot, record, rest))
}

fn split_run(bytes: &[u8]) -> Result<(&[u8], &[u8]), BadSnapshot> {
    let (len, rest) = split_u32(bytes)?;
    let (run, rest) = rest.split_at_checked(len as usize).ok_or(BadSnapshot::Cut)?;
    if run.len() > VALUE_BYTES_MAX { Err(BadSnapshot::Cut) } else { Ok((run, rest)) }
}

/// Why a snapshot was refused. The state did not change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadSnapshot {
    /// Another version of the program wrote it.
    #[error("format {0} is not known here, only {FORMAT}")]
    Version(u8),
    /// It ends too early, goes on behind its end, or a length in it cannot be.
    #[error("it has the wrong length")]
    Cut,
    /// A slot is out of range or there twice.
    #[error("slot {0} cannot be")]
    Slot(u32),
    /// A key is there twice, or at the wrong place.
    #[error("its keys are not in order")]
    Order,
}

impl From<BadArgs> for BadSnapshot {
    fn from(_: BadArgs) -> Self {
        Self::Cut
    }
}

const FORMAT: u8 = 2;

/// More keys than a machine holds: a damaged number must not allocate pages without end.
const SLOTS_MAX: u32 = 1 << 30;

/// A short key, a short value and the numbers between.
const ENTRY_BYTES_GUESS: usize = 64;
