//! A state that is held on to while commands go on.
//!
//! It is handed out in the order of the keys. Whoever changes a key that was not handed out yet leaves
//! here what was there before; a write replaces a record whole, so this copies nothing. The memory
//! it takes is that of the records replaced meanwhile, each once.

use std::collections::BTreeMap;

use super::{Made, Record, Store, index::Index, index::Place, slots::Page, slots::Slots};

/// See the module's documentation.
///
/// - I1: the keys in `before` are above `reached`.
/// - I2: a key above `reached` was at the freeze what `before` says, and where that says nothing
///   what the store (or `cleared`) says.
#[derive(Clone, Debug)]
pub(super) struct Frozen {
    count: u64,
    /// The last key that was handed out.
    reached: Option<Vec<u8>>,
    begun: bool,
    before: BTreeMap<Box<[u8]>, Option<(u32, Record)>>,
    /// All keys were removed at once: this is what was there, but for those changed before that.
    cleared: Option<(Slots, Index)>,
    made: Made,
}

impl Frozen {
    /// The present state of a store.
    pub(super) fn new(store: &Store) -> Self {
        Self {
            count: store.index.len() as u64,
            reached: None,
            begun: false,
            before: BTreeMap::new(),
            cleared: None,
            made: store.made.clone(),
        }
    }

    /// `key` changes; this was there.
    pub(super) fn keep(&mut self, key: &[u8], before: impl FnOnce() -> Option<(u32, Record)>) {
        let handed_out = self.reached.as_ref().is_some_and(|reached| key <= &**reached);
        if !handed_out && self.cleared.is_none() && !self.before.contains_key(key) {
            self.before.insert(key.into(), before());
        }
    }

    /// All keys are removed; gives back what nobody needs.
    pub(super) fn clear(&mut self, mut slots: Slots, index: Index) -> Vec<Page> {
        if self.cleared.is_some() {
            return slots.take_pages();
        }
        self.cleared = Some((slots, index));
        Vec::new()
    }

    /// What is to be freed when it is let go.
    pub(super) fn into_pages(self) -> Vec<Page> {
        self.cleared.map(|(mut slots, _)| slots.take_pages()).unwrap_or_default()
    }

    /// Appends about `bytes` more to `out`; whether that was not yet all. `slots` and `index` are the
    /// store's.
    pub(super) fn part(
        &mut self,
        slots: &Slots,
        index: &Index,
        bytes: usize,
        out: &mut Vec<u8>,
    ) -> bool {
        let full = out.len().saturating_add(bytes);
        let Self { count, reached, begun, before, cleared, made } = self;
        if !std::mem::replace(begun, true) {
            out.push(super::snapshot::FORMAT);
            out.extend_from_slice(&count.to_le_bytes());
        }
        let (slots, index) =
            cleared.as_ref().map_or((slots, index), |(slots, index)| (slots, index));
        let place = match reached.as_ref().map(|key| index.find(slots, key)) {
            Some(Ok(place)) => place.next(),
            Some(Err(place)) => place,
            None => Place::default(),
        };
        let mut standing = index.from(place).map(|slot| (slot, slots.get(slot))).peekable();
        while out.len() < full {
            let next = standing.peek().copied();
            let Some(change) = before.first_entry() else {
                let Some((slot, record)) = standing.next() else {
                    put_made(made, out);
                    return false;
                };
                put(slot, record, reached, out);
                continue;
            };
            if let Some((slot, record)) = next
                && record.key() < &**change.key()
            {
                standing.next();
                put(slot, record, reached, out);
                continue;
            }
            // It was made, replaced or removed since: in its place what was there.
            standing.next_if(|(_, record)| record.key() == &**change.key());
            if let Some((slot, record)) = change.remove() {
                put(slot, &record, reached, out);
            }
        }
        true
    }
}

fn put(slot: u32, record: &Record, reached: &mut Option<Vec<u8>>, out: &mut Vec<u8>) {
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
    let reached = reached.get_or_insert_default();
    reached.clear();
    reached.extend_from_slice(record.key());
}

fn put_made(made: &Made, out: &mut Vec<u8>) {
    let made = (0_u32..).zip(&made.0).filter(|(_, position)| **position > 0);
    let count = u32::try_from(made.clone().count()).expect("some thousand sets");
    out.extend_from_slice(&count.to_le_bytes());
    for (set, position) in made {
        out.extend_from_slice(&set.to_le_bytes());
        out.extend_from_slice(&position.to_le_bytes());
    }
}
