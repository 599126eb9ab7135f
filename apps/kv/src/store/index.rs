//! Slots in the byte order of their keys: a row of sorted chunks, eight bytes a key. Each chunk has a
//! copy of a key to be found by, and beside each slot the bytes in which the keys of the chunk differ
//! first, so that the way to a key touches one record: its own.

use super::slots::Slots;

/// The order of the keys.
///
/// - I1: no chunk is empty, none longer than [`CHUNK_SLOTS_MAX`].
/// - I2: the `low` of a chunk is above all keys before it, and but for the first chunk's not above
///   its own.
/// - I3: all keys of a chunk begin with its `prefix`, and each has the `head` that follows it.
#[derive(Clone, Debug, Default)]
pub(super) struct Index {
    chunks: Vec<Chunk>,
    len: usize,
}

#[derive(Clone, Debug)]
struct Chunk {
    low: Box<[u8]>,
    prefix: Box<[u8]>,
    seats: Vec<Seat>,
}

#[derive(Clone, Copy, Debug)]
struct Seat {
    /// The bytes of the key behind the chunk's prefix, zeros where it ends: they compare as keys do,
    /// but for those that only the rest tells apart.
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
        let behind = self.chunks.partition_point(|chunk| &*chunk.low <= key);
        let chunk = behind.saturating_sub(1);
        let Some(row) = self.chunks.get(chunk) else { return Err(Place::default()) };
        let found = row.find(slots, key);
        found.map(|at| Place { chunk, at }).map_err(|at| Place { chunk, at })
    }

    /// Puts a used slot where [`find`](Self::find) said.
    pub(super) fn insert(&mut self, place: Place, slot: u32, slots: &Slots) {
        self.len += 1;
        let last = place.chunk + 1 == self.chunks.len();
        let Some(chunk) = self.chunks.get_mut(place.chunk) else {
            return self.chunks.push(Chunk::new(vec![Seat { head: 0, slot }], slots));
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
        self.chunks.insert(place.chunk + 1, upper);
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
            self.chunks.remove(place.chunk);
        } else if let Some(next) = self.chunks.get(place.chunk + 1)
            && len + next.seats.len() <= CHUNK_SLOTS_MAX / 2
        {
            let mut next = self.chunks.remove(place.chunk + 1);
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
}

impl Chunk {
    /// Of slots in order, at least one.
    fn new(seats: Vec<Seat>, slots: &Slots) -> Self {
        let low = slots.get(seats[0].slot).key().into();
        let mut chunk = Self { low, prefix: Box::default(), seats };
        chunk.measure(slots);
        chunk
    }

    fn find(&self, slots: &Slots, key: &[u8]) -> Result<usize, usize> {
        let (begin, rest) = key.split_at(key.len().min(self.prefix.len()));
        if *begin != *self.prefix {
            return Err(if *begin < *self.prefix { 0 } else { self.seats.len() });
        }
        let head = head_of(rest);
        let from = self.seats.partition_point(|seat| seat.head < head);
        let same = self.seats[from..].partition_point(|seat| seat.head == head);
        let row = &self.seats[from..from + same];
        let found = row.binary_search_by(|seat| slots.get(seat.slot).key().cmp(key));
        found.map(|at| from + at).map_err(|at| from + at)
    }

    fn insert(&mut self, at: usize, slot: u32, slots: &Slots) {
        let key = slots.get(slot).key();
        match key.strip_prefix(&*self.prefix) {
            Some(rest) => self.seats.insert(at, Seat { head: head_of(rest), slot }),
            None => {
                self.seats.insert(at, Seat { head: 0, slot });
                self.measure(slots);
            }
        }
    }

    /// Makes I3 true again, with the longest prefix. What the first key and the last have in common
    /// all between them have.
    fn measure(&mut self, slots: &Slots) {
        let (Some(first), Some(last)) = (self.seats.first(), self.seats.last()) else { return };
        let (first, last) = (slots.get(first.slot).key(), slots.get(last.slot).key());
        let common = first.iter().zip(last).take_while(|(one, other)| one == other).count();
        self.prefix = first[..common].into();
        for seat in &mut self.seats {
            seat.head = head_of(&slots.get(seat.slot).key()[common..]);
        }
    }
}

fn head_of(rest: &[u8]) -> u32 {
    let mut head = [0; 4];
    let len = rest.len().min(head.len());
    head[..len].copy_from_slice(&rest[..len]);
    u32::from_be_bytes(head)
}

/// Inserting moves half of a chunk, and a split half of the row of chunks: with so many slots the two
/// cost about the same in a store of ten million keys, and both less than finding the place.
const CHUNK_SLOTS_MAX: usize = 256;
