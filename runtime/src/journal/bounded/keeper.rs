//! The worker of a bounded journal: gathers what is queued, writes the ring, then the slots.
//!
//! Room: half of the ring is enough for all records that count, packed. After each turn not more
//! than half is in use, so the packed records always fit into the other half, after which the head
//! moves to them.
//!
//! Nobody is told before two writes, each durable by itself, show what was written: a batch and its
//! seal, or a batch and the slots. The very last write is the one that a crash may damage though the
//! disk had called it durable; so what is found torn was never said, and needs no asking around.

use std::{
    collections::{BTreeMap, BTreeSet},
    io, mem,
    sync::{Arc, atomic::Ordering},
};

use super::{
    Cell, Cells, Kept, RESERVED_PART, Store, UNWRITTEN, Words, fits_slot, ring::packed, ring_bytes,
};
use crate::{
    journal::{
        Durability, JournalFailed, Record,
        queue::{Answers, Entry, Shared},
    },
    slots::Slots,
    world::{Clock, disk::Worker},
};

/// Owns the files.
pub(super) struct Keeper {
    shared: Arc<Shared>,
    clock: Arc<dyn Clock>,
    durability: Durability,
    slots: Slots,
    /// All that counts, what is not yet written included.
    store: Store,
    /// Bytes of the records among them that stand in the ring.
    bytes: u64,
    /// Those that are to be written there.
    pending: BTreeSet<Cell>,
    /// Whether a word changed.
    reworded: bool,
    /// Whether the last batch has no seal yet, and the slots do not speak of it.
    unsealed: bool,
    answers: Answers,
}

impl Keeper {
    pub(super) fn new(
        shared: Arc<Shared>,
        clock: Arc<dyn Clock>,
        durability: Durability,
        slots: Slots,
        store: Store,
    ) -> Self {
        let unwritten = store.cells.iter().filter(|(_, kept)| kept.at == Some(UNWRITTEN));
        Self {
            shared,
            clock,
            durability,
            slots,
            bytes: store.cells.values().map(ring_bytes).sum(),
            pending: unwritten.map(|(cell, _)| *cell).collect(),
            reworded: true,
            unsealed: false,
            store,
            answers: Answers::default(),
        }
    }

    fn handle(&mut self, entry: Entry) {
        let Some(entry) = self.shared.unless_failed(entry) else { return };
        self.answers.hold(entry.bytes());
        match entry {
            Entry::Append { records, done, .. } => {
                let outcome = self.append(records);
                self.answers.push(done, outcome);
            }
            Entry::Lazy { records, .. } => {
                let count = records.len() as u64;
                if self.append(records).is_err() {
                    self.shared.lazy_dropped.fetch_add(count, Ordering::Relaxed);
                }
            }
            Entry::Truncate { upto, carry, done, .. } => {
                let outcome = self.flush().and_then(|()| self.truncate(upto, carry));
                self.answers.push(done, outcome);
                self.answer();
                self.make_room();
            }
            Entry::Replay { done } => {
                let flushed = self.flush();
                self.seal();
                self.answer();
                let records =
                    || self.store.cells.values().map(|kept| kept.record.clone()).collect();
                done(flushed.map(|()| records()).map_err(Into::into));
                self.make_room();
            }
            Entry::Refused { done, why } => self.answers.push(done, Err(why)),
        }
    }

    /// Takes records in. After an error none of them is kept.
    fn append(&mut self, records: Vec<Record>) -> Result<(), JournalFailed> {
        let reserved = records.iter().all(Record::is_reserved);
        let reserve = if reserved { 0 } else { self.store.ring.capacity() / RESERVED_PART };
        let mut new = BTreeMap::new();
        for record in &records {
            let cell = Cell::of(record, self.store.by_step);
            let bytes = if fits_slot(cell, record) { 0 } else { record.encoded_len() };
            new.insert(cell, bytes);
        }
        let old = new.keys().filter_map(|cell| self.store.cells.get(cell)).map(ring_bytes);
        let after = self.bytes + new.values().sum::<u64>() - old.sum::<u64>();
        if packed(after) + reserve > self.store.ring.capacity() / 2 {
            self.shared.full.store(true, Ordering::Relaxed);
            return Err(JournalFailed::Full);
        }
        if !reserved {
            self.shared.full.store(false, Ordering::Relaxed);
        }
        for record in records {
            self.keep(record);
        }
        Ok(())
    }

    fn keep(&mut self, record: Record) {
        let cell = Cell::of(&record, self.store.by_step);
        let in_slot = fits_slot(cell, &record);
        let known = self.store.cells.get(&cell);
        if known.is_some_and(|known| known.record == record) {
            return;
        }
        self.bytes -= known.map_or(0, ring_bytes);
        let in_slot_before = known.is_some_and(|known| known.at.is_none());
        self.reworded |= in_slot || in_slot_before;
        if in_slot {
            self.pending.remove(&cell);
        } else {
            self.bytes += record.encoded_len();
            self.pending.insert(cell);
        }
        self.store.cells.insert(cell, Kept { record, at: (!in_slot).then_some(UNWRITTEN) });
    }

    /// Makes durable what was taken in; nothing more once something failed, since a system that could
    /// not write something takes it for written.
    fn flush(&mut self) -> Result<(), JournalFailed> {
        if let Some(failed) = self.shared.failed.get() {
            return Err(failed.clone());
        }
        self.settle().map_err(|error| self.shared.fail(&error))
    }

    /// As [`Keeper::flush`], without the latch.
    pub(super) fn settle(&mut self) -> io::Result<()> {
        if !self.pending.is_empty() {
            let cells: Vec<Cell> = mem::take(&mut self.pending).into_iter().collect();
            let bytes = cells.iter().map(|cell| ring_bytes(&self.store.cells[cell])).sum();
            let end = self.store.ring.span() + packed(bytes);
            if end + packed(self.bytes) <= self.store.ring.capacity() {
                self.write(&cells, false)?;
            } else {
                self.pack()?;
            }
        }
        if self.reworded { self.word() } else { Ok(()) }
    }

    /// Writes the records of these cells and makes them durable.
    fn write(&mut self, cells: &[Cell], moved: bool) -> io::Result<()> {
        let records: Vec<Record> =
            cells.iter().map(|cell| self.store.cells[cell].record.clone()).collect();
        let (places, bytes) = self.store.ring.push(&records, moved)?;
        self.shared.bytes.fetch_add(bytes, Ordering::Relaxed);
        if self.durability == Durability::Fsync {
            let begun = self.clock.now();
            self.store.ring.sync()?;
            if let Some(seconds) = self.shared.sync_seconds.get() {
                seconds.observe(self.clock.now().since(begun));
            }
            self.shared.syncs.fetch_add(1, Ordering::Relaxed);
            self.unsealed = true;
        }
        for (cell, at) in cells.iter().zip(places) {
            self.store.cells.entry(*cell).and_modify(|kept| kept.at = Some(at));
        }
        Ok(())
    }

    /// Writes everything that counts once more, close together; what was before is given up when
    /// the slots say so.
    fn pack(&mut self) -> io::Result<()> {
        let head = self.store.ring.tail;
        let in_ring = self.store.cells.iter().filter(|(_, kept)| kept.at.is_some());
        let cells: Vec<Cell> = in_ring.map(|(cell, _)| *cell).collect();
        #[cfg(test)]
        if super::tests::is_off(super::tests::Rule::RingBeforeHead) {
            let (before, after) = (self.store.ring.head, head);
            self.store.ring.head = after;
            self.word()?;
            self.store.ring.head = before;
        }
        self.write(&cells, true)?;
        self.store.ring.head = head;
        self.reworded = true;
        Ok(())
    }

    /// Writes the slots, if that changes anything.
    fn word(&mut self) -> io::Result<()> {
        (self.reworded, self.unsealed) = (false, false);
        let words = Words::encode(&self.store);
        if self.slots.read().as_ref() == Some(&words) {
            return Ok(());
        }
        self.slots.write(&words).map_err(|error| io::Error::other(error.to_string()))?;
        self.shared.bytes.fetch_add(Slots::WRITE_BYTES, Ordering::Relaxed);
        self.shared.syncs.fetch_add(Slots::WRITE_SYNCS, Ordering::Relaxed);
        Ok(())
    }

    /// Keeps what is beyond `upto`, and `carry`. Everything else is written.
    fn truncate(&mut self, upto: u64, carry: Vec<Record>) -> Result<(), JournalFailed> {
        let mut cells = Cells::new();
        let mut same = true;
        let kept = self.store.cells.values().map(|kept| &kept.record);
        let kept: Vec<Record> = kept.filter(|record| record.step > upto).cloned().collect();
        for record in kept.into_iter().chain(carry) {
            let cell = Cell::of(&record, self.store.by_step);
            let in_slot = fits_slot(cell, &record);
            let known = self.store.cells.get(&cell).filter(|known| known.record == record);
            let at = (!in_slot).then(|| known.and_then(|known| known.at).unwrap_or(UNWRITTEN));
            same &= in_slot || at != Some(UNWRITTEN);
            cells.insert(cell, Kept { record, at });
        }
        let bytes = cells.values().map(ring_bytes).sum();
        if self.store.ring.span() + packed(bytes) > self.store.ring.capacity() {
            return Err(JournalFailed::Full);
        }
        let head = cells.values().filter_map(|kept| kept.at).min().unwrap_or(self.store.ring.tail);
        let dropped = self.store.cells.iter().filter(|(cell, _)| !cells.contains_key(cell));
        // From the head on the ring must say nothing of what was dropped.
        let clean = dropped.into_iter().all(|(_, kept)| kept.at.is_none_or(|at| at < head));
        (self.store.cells, self.bytes) = (cells, bytes);
        let written = if same && clean {
            self.store.ring.head = head;
            Ok(())
        } else {
            self.pack()
        };
        written.and_then(|()| self.word()).map_err(|error| self.shared.fail(&error))
    }

    /// Answers everybody who waits.
    fn answer(&mut self) {
        let sealed = !self.answers.is_empty();
        #[cfg(test)]
        let sealed = sealed && !super::tests::is_off(super::tests::Rule::SealedBeforeSaid);
        if sealed {
            self.seal();
        }
        self.answers.give(&self.shared);
    }

    /// Gives up what no longer counts, once more than half of the ring is in use.
    fn make_room(&mut self) {
        let crowded = self.store.ring.span() > self.store.ring.capacity() / 2;
        if crowded
            && self.shared.failed.get().is_none()
            && let Err(error) = self.pack().and_then(|()| self.word())
        {
            self.shared.fail(&error);
        }
    }

    /// Says on the disk that the last batch is durable, if nothing says so yet.
    fn seal(&mut self) {
        if mem::take(&mut self.unsealed) && self.shared.failed.get().is_none() {
            match self.store.ring.seal() {
                Ok(bytes) => {
                    self.shared.bytes.fetch_add(bytes, Ordering::Relaxed);
                    self.shared.syncs.fetch_add(1, Ordering::Relaxed);
                }
                Err(error) => {
                    self.shared.fail(&error);
                }
            }
        }
    }
}

impl Worker for Keeper {
    fn run(&mut self) {
        let mut entries = Vec::new();
        loop {
            self.shared.take(&mut entries, true);
            if entries.is_empty() {
                return self.seal();
            }
            for entry in entries.drain(..) {
                self.handle(entry);
            }
            // The error is latched and told to everybody.
            let _ = self.flush();
            self.answer();
            self.make_room();
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.shared.worker_gone();
    }
}
