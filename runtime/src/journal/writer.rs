//! The writer: takes all that is queued, writes it as batches, syncs once, answers in order.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
};

use super::{
    Durability, JournalConfig, JournalError, JournalFailed, Record,
    queue::{Answers, Entry, Shared},
    recovery::{self, Recovery, io_error},
    segment::{BLOCK_BYTES, Batch, Place, Position, blocks, segment_path, to_usize},
    spares::{Purpose, RESERVE_SEGMENTS, Spare, Spares, fill},
};
use crate::world::{Disk, disk::DiskFile};

/// A batch of this size is written without waiting for the rest of the queue, so that its buffer
/// stays small. The sync still comes once, at the end.
const BATCH_BYTES_MAX: u64 = 4 << 20;

/// Owns the segments.
pub(super) struct Writer {
    pub(super) shared: Arc<Shared>,
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    durability: Durability,
    spares: Spares,
    pub(super) current: Current,
    /// The number drawn for this journal.
    journal: u64,
    /// Oldest segment that counts.
    base: u64,
    /// The last step that any record of a segment is about, of those that count.
    last_steps: BTreeMap<u64, u64>,
    /// Segments that no longer count, the oldest last: they go one at a time, since to give back a
    /// large file takes a disk some milliseconds.
    retiring: Vec<u64>,
    /// End of what is durable.
    synced: Position,
    pub(super) batch: Batch,
    pub(super) answers: Answers,
}

/// The segment being written.
pub(super) struct Current {
    file: Box<dyn DiskFile>,
    pub(super) end: Position,
    pub(super) room: u64,
    /// It is out of the reserve: no ordinary records.
    reserve: bool,
}

impl Writer {
    /// Goes on where `recovered` ends, or begins a new journal.
    pub(super) fn open(
        shared: Arc<Shared>,
        disk: Arc<dyn Disk>,
        config: &JournalConfig,
        mut spares: Spares,
        recovered: Option<&Recovery>,
        number: u64,
    ) -> Result<Self, JournalError> {
        let (dir, durability) = (config.dir.as_path(), config.durability);
        let opened = match recovered {
            Some(found) => reopen(disk.as_ref(), config, found),
            None => create(disk.as_ref(), dir, &mut spares, number).map(|current| (current, 0)),
        };
        let (current, chain) = opened.map_err(|source| io_error(dir, source))?;
        let mut writer = Self {
            shared,
            disk,
            dir: dir.to_path_buf(),
            durability,
            spares,
            journal: recovered.map_or(number, |found| found.journal),
            base: recovered.map_or(FIRST_SEGMENT, |found| found.base),
            last_steps: BTreeMap::new(),
            retiring: Vec::new(),
            synced: current.end,
            current,
            batch: Batch::new(chain),
            answers: Answers::default(),
        };
        for located in recovered.iter().flat_map(|found| &found.records) {
            writer.holds(located.segment, located.record.step);
        }
        if recovered.is_some_and(|found| found.torn)
            && let Some(scar) = &config.scar
        {
            writer.holds(writer.current.end.sequence, scar.step);
        }
        writer.reached(writer.synced);
        // A crash may have come between a truncation and its cleaning up.
        writer.retire().map_err(|source| io_error(dir, source))?;
        Ok(writer)
    }

    pub(super) fn handle(&mut self, entry: Entry) {
        let Some(entry) = self.shared.unless_failed(entry) else { return };
        match entry {
            Entry::Append { records, bytes, done } => {
                let outcome = self.append(&records, bytes);
                self.answers.hold(bytes);
                self.answers.push(done, outcome);
            }
            Entry::Lazy { records, bytes } => {
                self.answers.hold(bytes);
                if self.append(&records, bytes).is_err() {
                    self.shared.lazy_dropped.fetch_add(records.len() as u64, Ordering::Relaxed);
                }
            }
            Entry::Truncate { upto, carry, bytes, done } => {
                let outcome = self.flush().and_then(|()| self.truncate(upto, &carry, bytes));
                self.shared.release(bytes);
                let truncated = outcome.is_ok();
                done(outcome);
                if truncated && let Err(error) = self.retire() {
                    self.fail(&error);
                }
            }
            Entry::Replay { done } => {
                let replayed = match self.flush() {
                    Ok(()) => self.replay(),
                    Err(failed) => Err(failed.into()),
                };
                done(replayed);
            }
            Entry::Refused { done, why } => self.answers.push(done, Err(why)),
        }
    }

    /// Puts records into the batch. After an error none of them is kept.
    fn append(&mut self, records: &[Record], bytes: u64) -> Result<(), JournalFailed> {
        if records.is_empty() {
            return Ok(());
        }
        self.make_room(bytes, records.iter().all(Record::is_reserved))?;
        for record in records {
            self.batch.push(record);
            self.holds(self.current.end.sequence, record.step);
        }
        if self.batch.blocks() >= BATCH_BYTES_MAX {
            return self.write().map_err(|error| self.fail(&error));
        }
        Ok(())
    }

    /// Sees to it that `bytes` more fit into the batch, and the batch into the current segment.
    fn make_room(&mut self, bytes: u64, reserved: bool) -> Result<(), JournalFailed> {
        if self.current.reserve && self.spares.reserve_is_whole() {
            self.current.reserve = false;
        }
        let allowed = reserved || !self.current.reserve;
        // One block stays free for the mark of an orderly stop.
        let end = self.current.end.offset + self.batch.blocks_with(bytes) + BLOCK_BYTES;
        let rolls = !allowed || end > self.current.room;
        if rolls {
            self.flush()?;
            let purpose = if reserved { Purpose::Reserved } else { Purpose::Ordinary };
            // The new segment begins with an empty batch.
            let need = BLOCK_BYTES + blocks(self.batch.blocks_with(bytes)) + BLOCK_BYTES;
            let spare = self.spare(need, purpose)?;
            let chain = self.batch.chain();
            self.begin(&spare, self.base, Batch::new(chain)).map_err(|error| self.fail(&error))?;
        }
        // Not where a small one still fits and the next large one does not.
        if !reserved && (rolls || self.spares.has_more_than_the_reserve()) {
            self.shared.full.store(false, Ordering::Relaxed);
        }
        Ok(())
    }

    fn spare(&mut self, need: u64, purpose: Purpose) -> Result<Spare, JournalFailed> {
        match self.spares.take(need, purpose) {
            Ok(Some(spare)) => Ok(spare),
            Ok(None) => {
                self.shared.full.store(true, Ordering::Relaxed);
                Err(JournalFailed::Full)
            }
            Err(error) => Err(self.fail(&error)),
        }
    }

    /// Makes `spare` the current segment, beginning with `first`. Until the rename is done the
    /// file is no segment, so a crash leaves the journal either as it was or with all of `first`.
    fn begin(&mut self, spare: &Spare, base: u64, mut first: Batch) -> io::Result<()> {
        let sequence = self.current.end.sequence + 1;
        let at = Position { sequence, offset: 0 };
        let (offset, bytes) = first.seal(Place {
            journal: self.journal,
            at,
            mark: self.synced,
            base,
            room: spare.room,
        });
        let path = segment_path(&self.dir, sequence);
        begin_file(self.disk.as_ref(), &spare.path, &path, bytes, self.durability)?;
        self.count(offset, self.durability == Durability::Fsync);
        let file = self.disk.open(&path, false)?;
        let end = Position { sequence, offset };
        self.current = Current { file, end, room: spare.room, reserve: spare.reserve };
        self.base = base;
        self.last_steps = self.last_steps.split_off(&base);
        self.reached(end);
        first.clear();
        self.batch = first;
        Ok(())
    }

    /// Begins a segment that needs none of the older ones up to the first that holds a step beyond
    /// `upto`. Everything queued is on disk.
    fn truncate(&mut self, upto: u64, carry: &[Record], bytes: u64) -> Result<(), JournalFailed> {
        let next = self.current.end.sequence + 1;
        let mut held = self.last_steps.iter();
        let base = held.find(|(_, last)| **last > upto).map_or(next, |(segment, _)| *segment);
        if base == self.base && !self.spares.has_more_than_the_reserve() {
            // It would give nothing back for what it takes of the reserve.
            return self.append(carry, bytes).and_then(|()| self.flush());
        }
        let mut first = Batch::new(self.batch.chain());
        let need = first.blocks_with(bytes) + BLOCK_BYTES;
        let spare = self.spare(need, Purpose::Truncation)?;
        for record in carry {
            first.push(record);
            self.holds(next, record.step);
        }
        self.begin(&spare, base, first).map_err(|error| self.fail(&error))
    }

    /// A record about `step` is in `segment`.
    fn holds(&mut self, segment: u64, step: u64) {
        let last = self.last_steps.entry(segment).or_default();
        *last = step.max(*last);
    }

    /// Gives back the segments that no longer count: at once what a full disk waits for, the rest
    /// one after the other.
    fn retire(&mut self) -> io::Result<()> {
        let names = self.disk.list(&self.dir)?;
        let gone = super::segment::segments_of(&names).into_iter().filter(|one| *one < self.base);
        self.retiring = gone.collect();
        self.retiring.sort_unstable_by_key(|sequence| std::cmp::Reverse(*sequence));
        let full = self.shared.full.load(Ordering::Relaxed);
        let wanted =
            |spares: &Spares| spares.has_place() && (full || !spares.has_more_than_the_reserve());
        while wanted(&self.spares) && self.retire_one()? {}
        if self.spares.reserve_is_whole() {
            self.current.reserve = false;
            self.shared.full.store(false, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Gives back one segment; whether there was one.
    fn retire_one(&mut self) -> io::Result<bool> {
        let Some(sequence) = self.retiring.pop() else { return Ok(false) };
        let path = segment_path(&self.dir, sequence);
        let room = self.disk.open(&path, false)?.len()?;
        self.spares.give(&path, room)?;
        Ok(true)
    }

    /// The same, beside other work.
    pub(super) fn retire_more(&mut self) -> bool {
        if self.shared.failed.get().is_some() {
            return false;
        }
        self.retire_one().unwrap_or_else(|error| {
            self.fail(&error);
            false
        })
    }

    fn replay(&self) -> Result<Vec<Record>, JournalError> {
        let found = recovery::recover(self.disk.as_ref(), &self.dir)?;
        let found = found.map_or_else(Vec::new, |found| found.records);
        Ok(found.into_iter().map(|located| located.record).collect())
    }

    /// Writes the batch, makes all durable, and answers everybody who waits; after a failure only that.
    pub(super) fn flush(&mut self) -> Result<(), JournalFailed> {
        let result = match self.shared.failed.get() {
            Some(failed) => Err(failed.clone()),
            None => {
                let flushed = self.write().and_then(|()| self.sync());
                flushed.map_err(|error| self.fail(&error))
            }
        };
        self.answers.give(&self.shared);
        result
    }

    fn write(&mut self) -> io::Result<()> {
        if self.batch.is_empty() { Ok(()) } else { self.write_always() }
    }

    pub(super) fn write_always(&mut self) -> io::Result<()> {
        let Current { file, end, room, .. } = &mut self.current;
        let (len, bytes) = self.batch.seal(Place {
            journal: self.journal,
            at: *end,
            mark: self.synced,
            base: self.base,
            room: *room,
        });
        assert!(end.offset + len <= *room, "make_room saw to it");
        file.write_at(end.offset, bytes)?;
        end.offset += len;
        self.batch.clear();
        self.count(len, false);
        Ok(())
    }

    pub(super) fn sync(&mut self) -> io::Result<()> {
        if self.synced == self.current.end {
            return Ok(());
        }
        if self.durability == Durability::Fsync {
            let clock = &self.spares.clock;
            let begun = clock.now();
            self.current.file.sync_data()?;
            if let Some(seconds) = self.shared.sync_seconds.get() {
                seconds.observe(clock.now().since(begun));
            }
            self.count(0, true);
        }
        self.reached(self.current.end);
        Ok(())
    }

    pub(super) fn fail(&self, error: &io::Error) -> JournalFailed {
        let file = segment_path(&self.dir, self.current.end.sequence);
        self.shared.fail(format_args!("{}: {error}", file.display()))
    }

    /// Makes a bit of a spare when one is wanted; answers whether it did.
    pub(super) fn prepare(&mut self, bytes: u64) -> bool {
        if self.shared.failed.get().is_some() || !self.wants_spare() {
            return false;
        }
        match self.spares.make(bytes) {
            // Whoever refuses work while the disk is full would never bring a record to find out.
            Ok(()) if self.spares.has_more_than_the_reserve() => {
                self.shared.full.store(false, Ordering::Relaxed);
            }
            Ok(()) => {}
            Err(error) => {
                self.fail(&error);
            }
        }
        true
    }

    fn wants_spare(&self) -> bool {
        // Soon, or as soon as a full disk has room again, one more is needed than the reserve.
        let half = self.current.end.offset > self.current.room / 2;
        let soon = half || self.shared.full.load(Ordering::Relaxed);
        self.spares.wants(RESERVE_SEGMENTS + usize::from(soon))
    }

    /// Whether there is something to do beside what is queued.
    pub(super) fn is_behind(&self) -> bool {
        !self.retiring.is_empty() || self.wants_spare()
    }

    /// Whether records of so many bytes go where the last ones went, and take no more than a write.
    pub(super) fn takes(&self, bytes: u64) -> bool {
        let end = self.current.end.offset + self.batch.blocks_with(bytes) + BLOCK_BYTES;
        end <= self.current.room && !self.current.reserve
    }

    /// Everything up to there is durable.
    fn reached(&mut self, end: Position) {
        self.synced = end;
        self.shared.base.store(self.base, Ordering::Release);
        self.shared.position.store(end.packed(), Ordering::Release);
    }

    fn count(&self, bytes: u64, synced: bool) {
        self.shared.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.shared.syncs.fetch_add(u64::from(synced), Ordering::Relaxed);
    }
}

/// Opens the newest segment of a journal for going on; answers the link of the last record too.
fn reopen(disk: &dyn Disk, config: &JournalConfig, found: &Recovery) -> io::Result<(Current, u32)> {
    let mut file = disk.open(&segment_path(&config.dir, found.end.sequence), false)?;
    let (mut end, mut chain) = (found.end, found.chain);
    if config.durability == Durability::Fsync {
        // What was read must be durable before anybody acts on it. It may stand in the cache only:
        // the process died before its sync, or that sync failed, after which the system takes for
        // written what is not, and would sync nothing. So it is written anew.
        if !found.unsure.is_empty() {
            file.write_at(end.offset - found.unsure.len() as u64, &found.unsure)?;
        }
        file.sync_data()?;
    }
    if found.torn {
        if let Some(scar) = &config.scar {
            // Before the damage is wiped: until one of the two is on disk, the other is.
            let mut batch = Batch::new(chain);
            batch.push(scar);
            chain = batch.chain();
            let (journal, base, room) = (found.journal, found.base, found.room);
            let (len, bytes) = batch.seal(Place { journal, at: end, mark: end, base, room });
            assert!(len <= BLOCK_BYTES, "a scar is at most SCAR_BYTES_MAX");
            // No more than that: until it is durable, what is behind it tells of the damage.
            file.write_at(end.offset, &bytes[..to_usize(len)])?;
            file.sync_data()?;
            end.offset += len;
        }
        // So that what comes next can never be followed by what was cut.
        fill(file.as_mut(), end.offset, found.room, Durability::Fsync)?;
    }
    Ok((Current { file, end, room: found.room, reserve: false }, chain))
}

/// Makes the first segment of a new journal.
fn create(disk: &dyn Disk, dir: &Path, spares: &mut Spares, journal: u64) -> io::Result<Current> {
    let Some(spare) = spares.take(0, Purpose::Truncation)? else {
        return Err(io::ErrorKind::StorageFull.into());
    };
    let nowhere = Position { sequence: 0, offset: 0 };
    let at = Position { sequence: FIRST_SEGMENT, offset: 0 };
    let mut batch = Batch::new(0);
    let (offset, bytes) =
        batch.seal(Place { journal, at, mark: nowhere, base: FIRST_SEGMENT, room: spare.room });
    let path = segment_path(dir, FIRST_SEGMENT);
    begin_file(disk, &spare.path, &path, bytes, Durability::Fsync)?;
    let file = disk.open(&path, false)?;
    Ok(Current { file, end: Position { offset, ..at }, room: spare.room, reserve: false })
}

/// Turns a spare into a segment that begins with `first`.
fn begin_file(
    disk: &dyn Disk,
    spare: &Path,
    segment: &Path,
    first: &[u8],
    durability: Durability,
) -> io::Result<()> {
    let mut file = disk.open(spare, false)?;
    file.write_at(0, first)?;
    if durability == Durability::Fsync {
        file.sync_data()?;
    }
    drop(file);
    disk.rename(spare, segment)
}

/// The first segment of a journal; zero stands for none.
const FIRST_SEGMENT: u64 = 1;
