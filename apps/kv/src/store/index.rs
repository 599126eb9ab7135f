//! Slots in the byte order of their keys: a row of sorted chunks, four bytes a key.

use super::slots::Slots;

/// The order of the keys.
///
/// - I1: no chunk is empty, none longer than [`CHUNK_SLOTS_MAX`].
#[derive(Clone, Debug, Default)]
pub(super) struct Index {
    chunks: Vec<Vec<u32>>,
    len: usize,
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
        let key_of = |slot: &u32| slots.get(*slot).key();
        let behind = self.chunks.partition_point(|chunk| key_of(&chunk[0]) <= key);
        let Some(chunk) = behind.checked_sub(1) else { return Err(Place::default()) };
        let found = self.chunks[chunk].binary_search_by(|slot| key_of(slot).cmp(key));
        found.map(|at| Place { chunk, at }).map_err(|at| Place { chunk, at })
    }

    /// Puts a slot where [`find`](Self::find) said.
    pub(super) fn insert(&mut self, place: Place, slot: u32) {
        self.len += 1;
        let last = place.chunk + 1 == self.chunks.len();
        let Some(chunk) = self.chunks.get_mut(place.chunk) else {
            return self.chunks.push(vec![slot]);
        };
        if chunk.len() < CHUNK_SLOTS_MAX {
            return chunk.insert(place.at, slot);
        }
        // Keys that come in order leave full chunks behind.
        let at = if last && place.at == chunk.len() { chunk.len() } else { chunk.len() / 2 };
        let mut upper = chunk.split_off(at);
        if place.at < at || (place.at == at && !upper.is_empty()) {
            chunk.insert(place.at, slot);
        } else {
            upper.insert(place.at - at, slot);
        }
        self.chunks.insert(place.chunk + 1, upper);
    }

    /// Puts a slot behind all others.
    pub(super) fn push(&mut self, slot: u32) {
        let chunk = self.chunks.len().saturating_sub(1);
        let at = self.chunks.last().map_or(0, Vec::len);
        self.insert(Place { chunk, at }, slot);
    }

    /// Takes the slot out that is at `place`.
    pub(super) fn remove(&mut self, place: Place) -> u32 {
        self.len -= 1;
        let chunk = &mut self.chunks[place.chunk];
        let slot = chunk.remove(place.at);
        let len = chunk.len();
        if len == 0 {
            self.chunks.remove(place.chunk);
        } else if let Some(next) = self.chunks.get(place.chunk + 1)
            && len + next.len() <= CHUNK_SLOTS_MAX / 2
        {
            let mut next = self.chunks.remove(place.chunk + 1);
            self.chunks[place.chunk].append(&mut next);
        }
        slot
    }

    /// The slot at `place`.
    pub(super) fn slot(&self, place: Place) -> u32 {
        self.chunks[place.chunk][place.at]
    }

    /// The slots from `place` on, in order.
    pub(super) fn from(&self, place: Place) -> impl Iterator<Item = u32> {
        let chunks = self.chunks.get(place.chunk..).unwrap_or_default();
        chunks.iter().flatten().skip(place.at).copied()
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.len
    }
}

/// Two KiB: inserting moves half of it, which takes less time than finding the place.
const CHUNK_SLOTS_MAX: usize = 512;
