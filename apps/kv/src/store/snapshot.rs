//! The store as bytes, and back.
//!
//! ```text
//! version u8 = 2 | count u64 | count × entry, in byte order of the keys | sets u32 | sets × set
//! entry: key len u32, key | value len u32, value | version u64 | slot u32 | end u64, 0 for none
//! set: number u32, the command that last made a key of it u64
//! ```

use synod::replicated::Position;

use super::{MADE_SETS, Record, Store, frozen::Frozen};
use crate::{
    args::{BadArgs, split_u32, split_u64},
    limits::VALUE_BYTES_MAX,
};

impl Store {
    /// The whole state; equal states give equal bytes.
    pub fn snapshot(&self) -> Vec<u8> {
        // About what small keys and values take; the rest grows.
        let mut out = Vec::with_capacity(ENTRY_BYTES_GUESS * self.index.len());
        Frozen::new(self).part(&self.slots, &self.index, usize::MAX, &mut out);
        out
    }

    /// The state that [`snapshot`](Self::snapshot) gave `bytes` for.
    ///
    /// # Errors
    /// When they are not such bytes.
    pub fn restore(bytes: &[u8]) -> Result<Self, BadSnapshot> {
        let mut thawing = Thawing::default();
        thawing.part(bytes)?;
        thawing.end()
    }

    /// Holds on to the present state, for [`frozen_part`](Self::frozen_part). An earlier one is let
    /// go.
    pub fn freeze(&mut self) {
        self.let_go();
        self.frozen = Some(Frozen::new(self));
    }

    /// Appends about `bytes` more of the frozen state; all of them together are what
    /// [`snapshot`](Self::snapshot) gave when it was frozen. Whether there is more; if not, or if
    /// nothing is frozen, nothing is held on to any longer.
    pub fn frozen_part(&mut self, bytes: usize, out: &mut Vec<u8>) -> bool {
        let Some(frozen) = &mut self.frozen else { return false };
        let more = frozen.part(&self.slots, &self.index, bytes, out);
        if !more {
            self.let_go();
        }
        more
    }

    /// Lets go of a frozen state.
    pub fn let_go(&mut self) {
        if let Some(frozen) = self.frozen.take() {
            self.trash.append(&mut frozen.into_pages());
        }
    }
}

/// A store on its way back from its bytes, which come in parts of any size.
#[derive(Clone, Debug, Default)]
pub struct Thawing {
    store: Store,
    awaits: Awaits,
    /// The beginning of what is not there in whole.
    rest: Vec<u8>,
    last: Option<u32>,
}

#[derive(Clone, Copy, Debug, Default)]
enum Awaits {
    #[default]
    Head,
    Entries(u64),
    Sets(u32),
    End,
}

impl Thawing {
    /// Takes the next part.
    ///
    /// # Errors
    /// When it cannot be one; the rest is then of no use.
    pub fn part(&mut self, bytes: &[u8]) -> Result<(), BadSnapshot> {
        if self.rest.is_empty() {
            let left = self.take(bytes)?;
            self.rest.extend_from_slice(&bytes[bytes.len() - left..]);
            return Ok(());
        }
        let mut all = std::mem::take(&mut self.rest);
        all.extend_from_slice(bytes);
        let left = self.take(&all)?;
        self.rest = all.split_off(all.len() - left);
        Ok(())
    }

    /// The store, once all parts came.
    ///
    /// # Errors
    /// When some are missing.
    pub fn end(self) -> Result<Store, BadSnapshot> {
        match self.awaits {
            Awaits::End => Ok(self.store),
            Awaits::Head | Awaits::Entries(_) | Awaits::Sets(_) => Err(BadSnapshot::Cut),
        }
    }

    /// Takes all that is there in whole; answers how many bytes are left.
    fn take(&mut self, mut bytes: &[u8]) -> Result<usize, BadSnapshot> {
        loop {
            match self.take_one(bytes) {
                Ok(Some(rest)) => bytes = rest,
                Ok(None) => return Ok(bytes.len()),
                // Maybe it goes on in the next part: unless that could not be one thing any more.
                Err(BadSnapshot::Cut) if bytes.len() <= ENTRY_BYTES_MAX => return Ok(bytes.len()),
                Err(error) => return Err(error),
            }
        }
    }

    /// Takes one thing off the beginning; none when nothing more is awaited.
    fn take_one<'a>(&mut self, bytes: &'a [u8]) -> Result<Option<&'a [u8]>, BadSnapshot> {
        let (awaits, rest) = match self.awaits {
            Awaits::Head => {
                let (version, rest) = bytes.split_first().ok_or(BadSnapshot::Cut)?;
                if *version != FORMAT {
                    return Err(BadSnapshot::Version(*version));
                }
                let (count, rest) = split_u64(rest)?;
                (Awaits::Entries(count), rest)
            }
            Awaits::Entries(0) => {
                let (sets, rest) = split_u32(bytes)?;
                (if sets == 0 { Awaits::End } else { Awaits::Sets(sets) }, rest)
            }
            Awaits::Entries(count) => (Awaits::Entries(count - 1), self.entry(bytes)?),
            Awaits::Sets(count) => {
                let (set, rest) = split_u32(bytes)?;
                let (position, rest) = split_u64(rest)?;
                let set = usize::try_from(set).ok().filter(|set| *set < MADE_SETS);
                self.store.made.0[set.ok_or(BadSnapshot::Set)?] = position;
                (if count == 1 { Awaits::End } else { Awaits::Sets(count - 1) }, rest)
            }
            Awaits::End if bytes.is_empty() => return Ok(None),
            Awaits::End => return Err(BadSnapshot::Long),
        };
        self.awaits = awaits;
        Ok(Some(rest))
    }

    fn entry<'a>(&mut self, bytes: &'a [u8]) -> Result<&'a [u8], BadSnapshot> {
        let (key, slot, record, rest) = split_entry(bytes)?;
        let store = &mut self.store;
        if self.last.is_some_and(|last| store.slots.get(last).key() >= key) {
            return Err(BadSnapshot::Order);
        }
        let end_ms = record.entry().expires_at_ms;
        if slot >= SLOTS_MAX || store.slots.put(slot, record).is_some() {
            return Err(BadSnapshot::Slot(slot));
        }
        store.index.push(slot, &store.slots);
        store.move_expiry(slot, None, end_ms);
        self.last = Some(slot);
        Ok(rest)
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
    if len as usize > VALUE_BYTES_MAX {
        return Err(BadSnapshot::Long);
    }
    rest.split_at_checked(len as usize).ok_or(BadSnapshot::Cut)
}

/// Why a snapshot was refused. The state did not change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadSnapshot {
    /// Another version of the program wrote it.
    #[error("format {0} is not known here, only {FORMAT}")]
    Version(u8),
    /// It ends too early.
    #[error("it is cut short")]
    Cut,
    /// It goes on behind its end, or a length in it cannot be.
    #[error("it has the wrong length")]
    Long,
    /// A slot is out of range or there twice.
    #[error("slot {0} cannot be")]
    Slot(u32),
    /// A set of made keys is out of range.
    #[error("a set of keys cannot be")]
    Set,
    /// A key is there twice, or at the wrong place.
    #[error("its keys are not in order")]
    Order,
}

impl From<BadArgs> for BadSnapshot {
    fn from(_: BadArgs) -> Self {
        Self::Cut
    }
}

/// Of the bytes.
pub(super) const FORMAT: u8 = 2;

/// More keys than a machine holds: a damaged number must not allocate pages without end.
const SLOTS_MAX: u32 = 1 << 30;

/// A short key, a short value and the numbers between.
const ENTRY_BYTES_GUESS: usize = 64;

/// The longest key, the longest value and the numbers between.
const ENTRY_BYTES_MAX: usize = 2 * VALUE_BYTES_MAX + 32;
