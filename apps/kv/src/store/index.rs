//! Slots in the byte order of their keys: a row of sorted chunks, four bytes a key. Each chunk has a
//! copy of a key to be found by, so that the way to it touches no record.

use super::slots::Slots;

/// The order of the keys.
///
/// - I1: no chunk is empty, none longer than [`CHUNK_SLOTS_MAX`].
/// - I2: the `low` of a chunk is above all keys before it, and but for the first chunk's not above
///   its own.
#[derive(Clone, Debug, Default)]
pub(super) struct Index {
    chunks: Vec<Chunk>,
    len: usize,
}

#[derive(Clone, Debug)]
struct Chunk {
    low: Box<[u8]>,
    slots: Vec<u32>,
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
        let Some(Chunk { slots: row, .. }) = self.chunks.get(chunk) else {
            return Err(Place::default());
        };
        let found = row.binary_search_by(|slot| slots.get(*slot).key().cmp(key));
        found.map(|at| Place { chunk, at }).map_err(|at| Place { chunk, at })
    }

    /// Puts a used slot where [`find`](Self::find) said.
    pub(super) fn insert(&mut self, place: Place, slot: u32, slots: &Slots) {
        let new = |row: Vec<u32>| Chunk { low: slots.get(row[0]).key().into(), slots: row };
        self.len += 1;
        let last = place.chunk + 1 == self.chunks.len();
        let Some(Chunk { slots: row, .. }) = self.chunks.get_mut(place.chunk) else {
            return self.chunks.push(new(vec![slot]));
        };
        if row.len() < CHUNK_SLOTS_MAX {
            return row.insert(place.at, slot);
        }
        // Keys that come in order leave full chunks behind.
        let at = if last && place.at == row.len() { row.len() } else { row.len() / 2 };
        let mut upper = row.split_off(at);
        if place.at < at || (place.at == at && !upper.is_empty()) {
            row.insert(place.at, slot);
        } else {
            upper.insert(place.at - at, slot);
        }
        self.chunks.insert(place.chunk + 1, new(upper));
    }

    /// Puts a used slot behind all others.
    pub(super) fn push(&mut self, slot: u32, slots: &Slots) {
        let chunk = self.chunks.len().saturating_sub(1);
        let at = self.chunks.last().map_or(0, |last| last.slots.len());
        self.insert(Place { chunk, at }, slot, slots);
    }

    /// Takes the slot out that is at `place`.
    pub(super) fn remove(&mut self, place: Place) -> u32 {
        self.len -= 1;
        let row = &mut self.chunks[place.chunk].slots;
        let slot = row.remove(place.at);
        let len = row.len();
        if len == 0 {
            self.chunks.remove(place.chunk);
        } else if let Some(next) = self.chunks.get(place.chunk + 1)
            && len + next.slots.len() <= CHUNK_SLOTS_MAX / 2
        {
            let mut next = self.chunks.remove(place.chunk + 1);
            self.chunks[place.chunk].slots.append(&mut next.slots);
        }
        slot
    }

    /// The slot at `place`.
    pub(super) fn slot(&self, place: Place) -> u32 {
        self.chunks[place.chunk].slots[place.at]
    }

    /// The slots from `place` on, in order.
    pub(super) fn from(&self, place: Place) -> impl Iterator<Item = u32> {
        let chunks = self.chunks.get(place.chunk..).unwrap_or_default();
        chunks.iter().flat_map(|chunk| &chunk.slots).skip(place.at).copied()
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.len
    }
}

/// Inserting moves half of a chunk, and a split half of the row of chunks: with so many slots the two
/// cost about the same in a store of ten million keys, and both less than finding the place.
const CHUNK_SLOTS_MAX: usize = 256;
