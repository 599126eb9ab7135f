//! Slots in the byte order of their keys: a row of sorted chunks, eight bytes a key. Each chunk has a
//! copy of a key to be found by, and beside each slot the bytes in which the keys of the chunk differ
//! first, so that the way to a key touches one record: its own.

use std::{cmp::Ordering, ops::Range};

use super::slots::Slots;

/// The order of the keys.
///
/// - I1: no chunk is empty, none longer than [`CHUNK_SLOTS_MAX`].
/// - I2: the `low` of a chunk is above all keys before it, and but for the first chunk's not above
///   its own.
/// - I3: the first `common` bytes of all keys of a chunk are the same, and each key has the `head` that
///   follows them.
/// - I4: but for the first chunk's, every `low` begins with `common`, and `lows` has the eight bytes
///   behind that of each.
#[derive(Clone, Debug, Default)]
pub(super) struct Index {
    chunks: Vec<Chunk>,
    /// So that the way to a chunk goes through one run of memory and not from key to key.
    lows: Vec<u64>,
    common: Box<[u8]>,
    len: usize,
}

#[derive(Clone, Debug)]
struct Chunk {
    low: Box<[u8]>,
    common: usize,
    seats: Vec<Seat>,
}

#[derive(Clone, Copy, Debug)]
struct Seat {
    /// The bytes of the key behind those that all keys of the chunk have in common, zeros where it
    /// ends: they compare as keys do, but for those that only the rest tells apart.
    head: u32,
    slot: u32,
}

/// A place in the order, good until the index changes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Place {
    chunk: usize,
    at: usize,
}

impl Place {
    /// The place behind this one.
    pub(super) fn next(self) -> Self {
        Self { at: self.at + 1, ..self }
    }
}

impl Index {
    /// Where `key` is, or where it would go.
    pub(super) fn find(&self, slots: &Slots, key: &[u8]) -> Result<Place, Place> {
        let chunk = self.chunk_of(key);
        let Some(row) = self.chunks.get(chunk) else { return Err(Place::default()) };
        let found = row.find(slots, key);
        found.map(|at| Place { chunk, at }).map_err(|at| Place { chunk, at })
    }

    /// Puts a used slot where [`find`](Self::find) said.
    pub(super) fn insert(&mut self, place: Place, slot: u32, slots: &Slots) {
        self.len += 1;
        let last = place.chunk + 1 == self.chunks.len();
        let Some(chunk) = self.chunks.get_mut(place.chunk) else {
            return self.insert_chunk(0, Chunk::new(vec![Seat { head: 0, slot }], slots));
        };
        let len = chunk.seats.len();
        if len < CHUNK_SLOTS_MAX {
            return chunk.insert(place.at, slot, slots);
        }
        // Keys that come in order leave full chunks behind.
        let at = if last && place.at == len { len } else { len / 2 };
        let mut upper = chunk.seats.split_off(at);
        let below = place.at < at || (place.at == at && !upper.is_empty());
        if !below {
            upper.insert(place.at - at, Seat { head: 0, slot });
        }
        let upper = Chunk::new(upper, slots);
        chunk.measure(slots);
        if below {
            chunk.insert(place.at, slot, slots);
        }
        self.insert_chunk(place.chunk + 1, upper);
    }

    /// Puts a used slot behind all others.
    pub(super) fn push(&mut self, slot: u32, slots: &Slots) {
        let chunk = self.chunks.len().saturating_sub(1);
        let at = self.chunks.last().map_or(0, |last| last.seats.len());
        self.insert(Place { chunk, at }, slot, slots);
    }

    /// Takes the slot out that is at `place`; its record must still be there.
    pub(super) fn remove(&mut self, place: Place, slots: &Slots) -> u32 {
        self.len -= 1;
        let row = &mut self.chunks[place.chunk].seats;
        let Seat { slot, .. } = row.remove(place.at);
        let len = row.len();
        if len == 0 {
            self.remove_chunk(place.chunk);
        } else if let Some(next) = self.chunks.get(place.chunk + 1)
            && len + next.seats.len() <= CHUNK_SLOTS_MAX / 2
        {
            let mut next = self.remove_chunk(place.chunk + 1);
            let chunk = &mut self.chunks[place.chunk];
            chunk.seats.append(&mut next.seats);
            chunk.measure(slots);
        }
        slot
    }

    /// The slot at `place`.
    pub(super) fn slot(&self, place: Place) -> u32 {
        self.chunks[place.chunk].seats[place.at].slot
    }

    /// The slots from `place` on, in order.
    pub(super) fn from(&self, place: Place) -> impl Iterator<Item = u32> {
        let chunks = self.chunks.get(place.chunk..).unwrap_or_default();
        chunks.iter().flat_map(|chunk| &chunk.seats).skip(place.at).map(|seat| seat.slot)
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The chunk in which `key` is, or would be.
    fn chunk_of(&self, key: &[u8]) -> usize {
        let rest = match rest_of(key, &self.common) {
            Ok(rest) => rest,
            Err(Ordering::Less) => return 0,
            Err(_) => return self.lows.len(),
        };
        let same = run_of(&self.lows, |low| *low, low_of(rest));
        let row = self.chunks.get(1 + same.start..1 + same.end).unwrap_or_default();
        same.start + row.partition_point(|chunk| &*chunk.low <= key)
    }

    fn insert_chunk(&mut self, at: usize, chunk: Chunk) {
        if at == 0 {
            return self.chunks.insert(0, chunk); // into an empty row
        }
        if self.lows.is_empty() {
            self.common = chunk.low.clone();
        }
        let rest = chunk.low.strip_prefix(&*self.common).map(low_of);
        self.chunks.insert(at, chunk);
        if let Some(low) = rest {
            return self.lows.insert(at - 1, low);
        }
        // I4, with the longest there is. It becomes shorter, which cannot happen often.
        let (first, last) = (&self.chunks[1].low, &self.chunks[self.chunks.len() - 1].low);
        self.common = first[..common_len(first, last)].into();
        let common = self.common.len();
        self.lows = self.chunks[1..].iter().map(|chunk| low_of(&chunk.low[common..])).collect();
    }

    fn remove_chunk(&mut self, at: usize) -> Chunk {
        if !self.lows.is_empty() {
            self.lows.remove(at.saturating_sub(1));
        }
        self.chunks.remove(at)
    }
}

impl Chunk {
    /// Of slots in order, at least one.
    fn new(seats: Vec<Seat>, slots: &Slots) -> Self {
        let low = slots.get(seats[0].slot).key().into();
        let mut chunk = Self { low, common: 0, seats };
        chunk.measure(slots);
        chunk
    }

    fn find(&self, slots: &Slots, key: &[u8]) -> Result<usize, usize> {
        // Most keys that are looked for are here. So whether this one begins as the others do, for
        // which one of them must be read, is asked only when it is none of them.
        let rest = key.get(self.common..).unwrap_or_default();
        let same = run_of(&self.seats, |seat| seat.head, head_of(rest));
        let row = &self.seats[same.clone()];
        let found = row.binary_search_by(|seat| slots.get(seat.slot).key().cmp(key));
        let at = match found {
            Ok(at) => return Ok(same.start + at),
            Err(at) => same.start + at,
        };
        Err(match rest_of(key, self.prefix(slots)) {
            Ok(_) => at,
            Err(Ordering::Less) => 0,
            Err(_) => self.seats.len(),
        })
    }

    /// What all keys begin with.
    fn prefix<'a>(&self, slots: &'a Slots) -> &'a [u8] {
        let first = self.seats.first();
        first.map_or(&[], |first| &slots.get(first.slot).key()[..self.common])
    }

    fn insert(&mut self, at: usize, slot: u32, slots: &Slots) {
        let key = slots.get(slot).key();
        match key.strip_prefix(self.prefix(slots)) {
            Some(rest) => self.seats.insert(at, Seat { head: head_of(rest), slot }),
            None => {
                self.seats.insert(at, Seat { head: 0, slot });
                self.measure(slots);
            }
        }
    }

    /// Makes I3 true again, with the longest there is. What the first key and the last have in common
    /// all between them have.
    fn measure(&mut self, slots: &Slots) {
        let (Some(first), Some(last)) = (self.seats.first(), self.seats.last()) else { return };
        let (first, last) = (slots.get(first.slot).key(), slots.get(last.slot).key());
        let common = common_len(first, last);
        self.common = common;
        for seat in &mut self.seats {
            seat.head = head_of(&slots.get(seat.slot).key()[common..]);
        }
    }
}

/// What follows `prefix` in `key`, or on which side the key is of all that begin so.
fn rest_of<'a>(key: &'a [u8], prefix: &[u8]) -> Result<&'a [u8], Ordering> {
    let (begin, rest) = key.split_at(key.len().min(prefix.len()));
    match begin.cmp(prefix) {
        Ordering::Equal => Ok(rest),
        side => Err(side),
    }
}

/// Those of a sorted row with that head: only their whole keys tell them apart.
fn run_of<T, H: Ord + Copy>(row: &[T], head_of: impl Fn(&T) -> H, head: H) -> Range<usize> {
    let from = row.partition_point(|one| head_of(one) < head);
    let rest = &row[from..];
    // Mostly one or none: a search among all that follow would go through memory far from here.
    let mut reach = 1;
    while rest.get(reach - 1).is_some_and(|one| head_of(one) == head) {
        reach *= 2;
    }
    let sure = reach / 2;
    let row = &rest[sure..(reach - 1).min(rest.len())];
    from..from + sure + row.partition_point(|one| head_of(one) == head)
}

fn common_len(one: &[u8], other: &[u8]) -> usize {
    one.iter().zip(other).take_while(|(one, other)| one == other).count()
}

fn head_of(rest: &[u8]) -> u32 {
    u32::from_be_bytes(padded(rest))
}

fn low_of(rest: &[u8]) -> u64 {
    u64::from_be_bytes(padded(rest))
}

fn padded<const LEN: usize>(rest: &[u8]) -> [u8; LEN] {
    let mut head = [0; LEN];
    let len = rest.len().min(LEN);
    head[..len].copy_from_slice(&rest[..len]);
    head
}

/// Inserting moves half of a chunk, and a split half of the row of chunks: with so many slots the two
/// cost about the same in a store of ten million keys, and both less than finding the place.
const CHUNK_SLOTS_MAX: usize = 256;
