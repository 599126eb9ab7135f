//! A journal that never grows, for a node that keeps little: an auxiliary.
//!
//! It keeps for each *cell* only the newest record. Records of one kind
//! ([`BoundedConfig::by_step`]) have a cell for each step, and stand in one file that is made at
//! its full length and written round and round (`ring.rs`). Of every other kind there is one
//! record: these are the *words*, and stand in two checksummed slots ([`crate::slots`]), together
//! with where the ring begins. A word that is too long for a slot stands in the ring.
//!
//! ```text
//! words = 1 u32 | kind by step u32 | ring u64 | head u64 | tail u64 | records       (little-endian)
//! ```
//! Callers see a [`Journal`]: what is said to be durable is, all records of a call or none survive,
//! the first error latches, and memory that was lost is refused. The ring is written before the
//! slots, so after a crash a vote may be there without the word that came with it, which is why a
//! vote must say by itself what it promises. [`Journal::truncate`] has to carry a part of what the
//! journal holds; it moves the head, by one write of the slots.
//!
//! Rot in either slot is healed from the other, and rot in the ring is found: a batch says how far
//! all was durable, and so do the slots and a seal behind the last batch. Since one of these is
//! durable before anybody is told, damage to the very last write hides nothing that was said.

mod keeper;
mod ring;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use rand::Rng as _;

use self::{
    keeper::Keeper,
    ring::{Found, Ring, packed},
};
use super::{
    Durability, Inner, Journal, JournalError, Record, Recovered,
    queue::Shared,
    record::{self, RESERVE, read_u32, read_u64},
    recovery::{self, Located, io_error},
};
use crate::{
    slots::{Slots, SlotsError},
    world::{Clock, Disk, World},
};

/// How to open a bounded journal.
#[derive(Debug, Clone)]
pub struct BoundedConfig {
    /// Its directory, made when missing; nothing else may be in it.
    pub dir: PathBuf,
    /// When a record in the ring counts as durable; words are synced always.
    pub durability: Durability,
    /// Bytes of the ring when it is made. It holds records of a little less than half of that.
    pub ring_bytes: u64,
    /// The kind whose records have a cell for each step, without [`RESERVE`].
    pub by_step: u8,
}

impl BoundedConfig {
    /// Bytes of records that surely fit into a ring of `ring_bytes`, 40 for each and its payload.
    pub const fn room(ring_bytes: u64) -> u64 {
        ring_bytes / 5 * 2
    }

    /// The smallest ring that surely has room for so many bytes of records.
    pub const fn ring_for(room: u64) -> u64 {
        room.div_ceil(2) * 5
    }
}

/// Records marked [`RESERVE`] may use this part of the ring beyond all others.
const RESERVED_PART: u64 = 32;

/// A cell, in the order in which cells are given back: words first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Cell {
    Word(u8),
    Step(u16, u64),
}

impl Cell {
    fn of(record: &Record, by_step: u8) -> Self {
        match record.kind & !RESERVE {
            kind if kind == by_step => Self::Step(record.group, record.step),
            kind => Self::Word(kind),
        }
    }
}

/// A record that counts.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Kept {
    record: Record,
    /// Where in the ring it stands; none for a word in the slots.
    at: Option<u64>,
}

type Cells = BTreeMap<Cell, Kept>;

/// A word longer than this stands in the ring: three of them fit into a slot.
const WORD_BYTES_MAX: u64 = 1300;

impl Journal {
    /// Opens the bounded journal in `config.dir`, or makes a new one, and reads back what it holds:
    /// words first, then by step. One that [`Journal::open`] made there before is taken over.
    /// Blocks. The caller holds the lock of the data directory.
    ///
    /// # Errors
    /// As [`Journal::open`].
    pub fn open_bounded(
        world: &World,
        config: &BoundedConfig,
    ) -> Result<(Self, Recovered), JournalError> {
        let number = world.entropy.rng("journal").next_u64();
        Self::open_bounded_on(&world.disk, &world.clock, number, config)
    }

    fn open_bounded_on(
        disk: &Arc<dyn Disk>,
        clock: &Arc<dyn Clock>,
        number: u64,
        config: &BoundedConfig,
    ) -> Result<(Self, Recovered), JournalError> {
        let dir: &Path = &config.dir;
        disk.create_dir_all(dir).map_err(|source| io_error(dir, source))?;
        let path = dir.join(WORDS);
        let slots = Slots::open(disk.as_ref(), &path).map_err(slots_error)?;
        let (store, torn_tail) = match slots.read() {
            Some(words) => {
                let (mut store, found) = read(disk.as_ref(), &path, &words)?;
                store.ring.resume(&found)?;
                (store, found.is_torn())
            }
            None => make(disk.as_ref(), number, config)?,
        };
        let records = store.cells.values().map(|kept| kept.record.clone()).collect();
        let shared = Arc::new(Shared::default());
        let (shared_too, clock) = (Arc::clone(&shared), Arc::clone(clock));
        let mut keeper = Keeper::new(shared_too, clock, config.durability, slots, store);
        keeper.settle().map_err(|source| io_error(dir, source))?;
        retire_segments(disk.as_ref(), dir)?;
        let waker = disk.spawn_worker("journal", Box::new(keeper));
        let journal = Self { inner: Arc::new(Inner { shared, waker, direct: None }) };
        Ok((journal, Recovered { records, torn_tail }))
    }
}

/// Reads a bounded journal without changing it, if there is one. A record in the ring is located by
/// its batch.
pub(super) fn inspect(disk: &dyn Disk, dir: &Path) -> Result<Option<Vec<Located>>, JournalError> {
    let names = disk.list(dir).map_err(|source| io_error(dir, source))?;
    let path = dir.join(WORDS);
    if !names.iter().any(|name| name == WORDS) {
        return Ok(None);
    }
    let Some(words) = Slots::look(disk, &path).map_err(slots_error)? else { return Ok(None) };
    let (store, _) = read(disk, &path, &words)?;
    let place = |kept: Kept| {
        let offset = kept.at.map_or(0, |at| at % store.ring.capacity());
        Located { segment: u64::from(kept.at.is_some()), offset, record: kept.record }
    };
    Ok(Some(store.cells.into_values().map(place).collect()))
}

/// The ring, and all that counts.
struct Store {
    ring: Ring,
    cells: Cells,
    /// See [`BoundedConfig::by_step`].
    by_step: u8,
}

/// Reads what `words` lead to.
fn read(disk: &dyn Disk, path: &Path, words: &[u8]) -> Result<(Store, Found), JournalError> {
    let lost = |reason| JournalError::LostMemory { file: path.to_path_buf(), offset: 0, reason };
    let words = Words::decode(words).map_err(lost)?;
    let (mut cells, by_step) = (Cells::new(), words.by_step);
    for record in words.records {
        cells.insert(Cell::of(&record, by_step), Kept { record, at: None });
    }
    let ring = Ring::open(disk, &path.with_file_name(RING), words.ring, words.head)?;
    let mut found = ring.read()?;
    found.sure = found.sure.max(words.tail);
    let lacks = found.end < words.tail;
    #[cfg(test)]
    let lacks = lacks && !tests::is_off(tests::Rule::SlotsSayHowFar);
    if lacks {
        return Err(ring.lacks(&found));
    }
    for (at, record) in std::mem::take(&mut found.records) {
        let cell = Cell::of(&record, by_step);
        // The slots know better what came before they were written.
        let old = at < words.tail && cells.get(&cell).is_some_and(|kept| kept.at.is_none());
        if !old {
            cells.insert(cell, Kept { record, at: Some(at) });
        }
    }
    Ok((Store { ring, cells, by_step }, found))
}

/// Makes a bounded journal, with what an unbounded one held; it counts once its words are written.
fn make(
    disk: &dyn Disk,
    number: u64,
    config: &BoundedConfig,
) -> Result<(Store, bool), JournalError> {
    let before = recovery::recover(disk, &config.dir)?;
    let torn = before.as_ref().is_some_and(|before| before.torn);
    let (mut cells, by_step) = (Cells::new(), config.by_step);
    for Located { record, .. } in before.into_iter().flat_map(|before| before.records) {
        let cell = Cell::of(&record, by_step);
        let at = (!fits_slot(cell, &record)).then_some(UNWRITTEN);
        cells.insert(cell, Kept { record, at });
    }
    let path = config.dir.join(RING);
    let ring = Ring::make(disk, &path, config.ring_bytes, number)?;
    if packed(cells.values().map(ring_bytes).sum()) > ring.capacity() / 2 {
        return Err(io_error(&path, std::io::ErrorKind::StorageFull.into()));
    }
    Ok((Store { ring, cells, by_step }, torn))
}

/// What an unbounded journal left, once it is taken over.
fn retire_segments(disk: &dyn Disk, dir: &Path) -> Result<(), JournalError> {
    let failed = |source| io_error(dir, source);
    let names = disk.list(dir).map_err(failed)?;
    let old = names.iter().filter(|name| *name != WORDS && *name != RING);
    old.into_iter().try_for_each(|name| disk.remove(&dir.join(name)).map_err(failed))
}

/// Whether a record is a word, and short.
fn fits_slot(cell: Cell, record: &Record) -> bool {
    matches!(cell, Cell::Word(_)) && record.encoded_len() <= WORD_BYTES_MAX
}

/// Bytes of a record if it stands in the ring.
fn ring_bytes(kept: &Kept) -> u64 {
    kept.at.map_or(0, |_| kept.record.encoded_len())
}

/// In the ring as soon as it is written.
const UNWRITTEN: u64 = u64::MAX;

/// What stands in the slots.
struct Words {
    by_step: u8,
    /// The number of the ring.
    ring: u64,
    /// Where the ring begins.
    head: u64,
    /// Where it ended then, durably: words in it before this are older than those in the slots.
    tail: u64,
    records: Vec<Record>,
}

impl Words {
    fn encode(Store { ring, cells, by_step }: &Store) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&u32::from(*by_step).to_le_bytes());
        for word in [ring.number(), ring.head, ring.tail] {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        let mut chain = 0;
        for kept in cells.values().filter(|kept| kept.at.is_none()) {
            chain = record::encode(&kept.record, chain, &mut bytes);
        }
        bytes
    }

    fn decode(bytes: &[u8]) -> Result<Self, &'static str> {
        let Some(mut rest) = bytes.get(WORDS_BYTES..).filter(|_| read_u32(bytes, 0) == VERSION)
        else {
            return Err("its words are of another version");
        };
        let (mut records, mut chain) = (Vec::new(), 0);
        while !rest.is_empty() {
            let (record, len, link) = record::decode(rest, chain)?;
            records.push(record);
            (rest, chain) = (&rest[len..], link);
        }
        let [ring, head, tail] = [8, 16, 24].map(|at| read_u64(bytes, at));
        Ok(Self { by_step: bytes[4], ring, head, tail, records })
    }
}

fn slots_error(error: SlotsError) -> JournalError {
    match error {
        SlotsError::Io { file, source } => io_error(&file, source),
        SlotsError::LostMemory { file } => {
            JournalError::LostMemory { file, offset: 0, reason: "both slots are damaged" }
        }
        SlotsError::TooLarge { .. } | SlotsError::Failed { .. } => {
            io_error(Path::new(WORDS), std::io::Error::other(error.to_string()))
        }
    }
}

/// Name of the file with the two slots.
const WORDS: &str = "words";

/// Name of the ring's file.
const RING: &str = "ring";

/// The layout of the words.
const VERSION: u32 = 1;

/// Bytes before the records.
const WORDS_BYTES: usize = 32;
