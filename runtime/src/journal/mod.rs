//! The journal: what a node promised, kept through crashes.
//!
//! One journal per node, shared by all its roles, written by one worker with group commit:
//! everything queued while the last sync ran goes into the next write and the next sync.
//!
//! What it promises:
//! 1. A record is durable, with everything queued before it, when its completion says `Ok`.
//!    Completions come in the order of the calls.
//! 2. The records of one call survive a crash all or none.
//! 3. After a restart all of them are there, or [`Journal::open`] refuses
//!    ([`JournalError::LostMemory`]). It never heals by cutting what was durable. Only damage to
//!    the very last write before a crash cannot be told from a write that never finished: then
//!    [`Recovered::torn_tail`] is set and the protocol must ask around before it votes.
//! 4. The first error of the disk latches: everything later fails.
//! 5. A full disk refuses ordinary records and keeps none of them, but still takes those marked
//!    [`RESERVE`] and a truncation.
//!
//! # Layout
//! - [`Record`] (`record.rs`): one record on disk
//! - `segment.rs`: files, batches and their headers
//! - `recovery.rs`: reading back, and judging what is missing
//! - `scrub.rs`: reading again what is durable, in the background
//! - `queue.rs`: between callers and the worker
//! - [`bounded`]: the same promises in files that never grow, for an auxiliary
//! - `spares.rs`: files made ahead of time, the reserve
//! - `writer.rs`: what is written, and how; `turn.rs`: on which thread

pub mod bounded;
mod queue;
mod record;
mod recovery;
mod scrub;
mod segment;
mod spares;
#[cfg(test)]
mod tests;
mod turn;
mod writer;

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
};

use rand::Rng as _;

use self::{
    queue::{Entry, Shared},
    recovery::io_error,
    segment::{BLOCK_BYTES, blocks},
    spares::Spares,
    turn::{Hand, Turns},
    writer::Writer,
};
pub use self::{
    record::{RESERVE, Record},
    recovery::{Located, inspect},
    scrub::{Scrub, Scrubbed},
};
use crate::{
    telemetry::Histogram,
    world::{Clock, Disk, World, disk::Waker},
};

/// Bytes that may be queued or being written, encoded: beyond it calls are refused, so that a
/// slow disk costs answers and not memory. Also the most one call may bring.
pub const QUEUED_BYTES_MAX: u64 = 64 << 20;

/// The usual size of a segment: seconds of the fastest writing, so that rolling is rare.
pub const SEGMENT_BYTES_DEFAULT: u64 = 64 << 20;

/// For [`Journal::truncate`]: no record is needed any more.
pub const EVERY_STEP: u64 = u64::MAX;

/// A segment below this would hold headers more than records.
const SEGMENT_BYTES_MIN: u64 = 8 * BLOCK_BYTES;

/// Told once whether a call's records are durable.
pub type Done = Box<dyn FnOnce(Result<(), JournalFailed>) + Send>;

/// Given all live records.
pub type ReplayDone = Box<dyn FnOnce(Result<Vec<Record>, JournalError>) + Send>;

/// When a record counts as durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// After the disk's sync.
    #[default]
    Fsync,
    /// After the write. Records survive the process, not the machine; after a power cut the
    /// journal may have to refuse, and the node rejoin as a new one.
    Memory,
}

/// How to open a journal.
#[derive(Debug, Clone)]
pub struct JournalConfig {
    /// Its directory, made when missing; nothing else may be in it.
    pub dir: PathBuf,
    /// When a record counts as durable.
    pub durability: Durability,
    /// Bytes of a segment, rounded up to 512, at least 4096. A call with more gets a larger one.
    pub segment_bytes: u64,
    /// Written in place of a torn end before anything else, so that another crash cannot make the
    /// node forget that there was one. At most [`SCAR_BYTES_MAX`].
    pub scar: Option<Record>,
}

/// Bytes of a [`JournalConfig::scar`]'s payload: with its header it is one block, which a disk
/// writes whole or not at all.
pub const SCAR_BYTES_MAX: usize = 256;

impl JournalConfig {
    /// A durable journal in `dir` with segments of the usual size.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        let segment_bytes = SEGMENT_BYTES_DEFAULT;
        Self { dir: dir.into(), durability: Durability::Fsync, segment_bytes, scar: None }
    }
}

/// What was found when a journal was opened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recovered {
    /// All live records, in the order they were appended; [`JournalConfig::scar`] is the last one
    /// if the end is torn.
    pub records: Vec<Record>,
    /// Something half written was cut from the end. Nobody was told that it was durable, unless
    /// the disk damaged its very last write: ask the peers before voting.
    pub torn_tail: bool,
}

/// What a journal did so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JournalStats {
    /// Bytes written, padding included, zeros written ahead of time not.
    pub bytes: u64,
    /// Syncs of batches.
    pub syncs: u64,
    /// The error that latched.
    pub failed: Option<String>,
    /// Ordinary records are refused since the disk is full.
    pub full: bool,
    /// Bytes queued or being written; at most [`QUEUED_BYTES_MAX`].
    pub queued_bytes: u64,
    /// Lazy records dropped since the queue or the disk was full.
    pub lazy_dropped: u64,
}

/// Why records were not made durable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JournalFailed {
    /// Nothing of this call is kept; the journal goes on with records marked [`RESERVE`].
    #[error("the journal's disk is full: free space, or wait for the next snapshot")]
    Full,
    /// Nothing of this call is kept; try again later.
    #[error("the disk is too slow: {queued_bytes} bytes wait to be written")]
    Overloaded {
        /// Bytes queued before this call.
        queued_bytes: u64,
    },
    /// Nothing of this call is kept.
    #[error("{bytes} bytes in one call are more than the journal takes ({QUEUED_BYTES_MAX})")]
    TooLarge {
        /// Bytes of this call.
        bytes: u64,
    },
    /// Nothing of this call is kept; the node is stopping.
    #[error("the journal is closed")]
    Closed,
    /// The disk failed, now or earlier. What it holds of this call is unknown, and no later call
    /// can succeed: stop the node.
    #[error("the journal's disk failed: {0}")]
    Disk(Arc<str>),
}

/// Why a journal could not be read.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The disk refuses. The journal is as it was.
    #[error("{file}: {source}")]
    Io {
        /// The file, or the journal's directory.
        file: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Something that was durable is missing. The journal is as it was.
    #[error(
        "{file}: {reason} (at byte {offset}), below what was durable: this node has forgotten \
         what it may have promised. Put its data directory aside and start it with an empty one, \
         so that it rejoins as a new node"
    )]
    LostMemory {
        /// The segment.
        file: PathBuf,
        /// Bytes from its beginning to what is missing.
        offset: u64,
        /// What is wrong there.
        reason: &'static str,
    },
    /// The journal takes no more calls.
    #[error(transparent)]
    Failed(#[from] JournalFailed),
}

/// A handle to the node's journal. Cloning is cheap; dropping the last one stops the worker after
/// all that is queued is written.
#[derive(Clone)]
pub struct Journal {
    inner: Arc<Inner>,
}

struct Inner {
    shared: Arc<Shared>,
    waker: Arc<dyn Waker>,
    /// For records that count as durable once they are written.
    direct: Option<Turns>,
}

impl Journal {
    /// Opens the journal in `config.dir`, or makes a new one, and reads back what it holds.
    /// Blocks. The caller holds the lock of the data directory.
    ///
    /// # Errors
    /// [`JournalError::LostMemory`] or [`JournalError::Io`]; nothing was changed by then, except
    /// that a new journal may have been begun.
    pub fn open(world: &World, config: &JournalConfig) -> Result<(Self, Recovered), JournalError> {
        let number = world.entropy.rng("journal").next_u64();
        Self::open_on(&world.disk, &world.clock, number, config)
    }

    /// As [`Journal::open`], for a world that consists of a disk and a clock. A new journal keeps
    /// `number`, which nobody outside should be able to guess.
    ///
    /// # Errors
    /// As [`Journal::open`].
    pub fn open_on(
        disk: &Arc<dyn Disk>,
        clock: &Arc<dyn Clock>,
        number: u64,
        config: &JournalConfig,
    ) -> Result<(Self, Recovered), JournalError> {
        let dir: &Path = &config.dir;
        let durability = config.durability;
        let segment_bytes = blocks(config.segment_bytes.max(SEGMENT_BYTES_MIN));
        disk.create_dir_all(dir).map_err(|source| io_error(dir, source))?;
        let found = recovery::recover(disk.as_ref(), dir)?;
        let spares = Spares::open(disk.clone(), clock.clone(), dir, durability, segment_bytes)
            .map_err(|source| io_error(dir, source))?;
        let shared = Arc::new(Shared::default());
        let torn = found.as_ref().is_some_and(|found| found.torn);
        let scar = config.scar.as_ref().filter(|_| torn);
        let writer =
            Writer::open(shared.clone(), disk.clone(), config, spares, found.as_ref(), number)?;
        let mut recovered = found.map_or_else(Recovered::default, |found| Recovered {
            records: found.records.into_iter().map(|located| located.record).collect(),
            torn_tail: found.torn,
        });
        recovered.records.extend(scar.cloned());
        let turns = Turns::new(writer);
        let hand = Hand::new(turns.clone(), Arc::clone(&shared));
        let waker = disk.spawn_worker("journal", Box::new(hand));
        // Spares are made while nobody waits.
        waker.wake();
        // Whoever would wait for a disk leaves that to the worker.
        let direct = (durability == Durability::Memory).then_some(turns);
        Ok((Self { inner: Arc::new(Inner { shared, waker, direct }) }, recovered))
    }

    /// Queues records; order is kept across calls. `done` is called once, on the worker, after all
    /// of them and everything before are durable; it must not block. No records make a barrier.
    /// On a closed or broken journal, and in [`Durability::Memory`], it may be called at once, on the
    /// caller's thread.
    ///
    /// When all records are marked [`RESERVE`] they may use the reserve of a full disk.
    pub fn append(&self, records: Vec<Record>, done: Done) {
        let bytes = encoded_len(&records);
        self.inner.push(Entry::Append { records, bytes, done });
    }

    /// Queues records that ride with the next append, barrier or orderly stop. They are dropped
    /// when the queue or the disk is full: only for what may be forgotten.
    pub fn append_lazy(&self, records: Vec<Record>) {
        let bytes = encoded_len(&records);
        self.inner.push(Entry::Lazy { records, bytes });
    }

    /// Writes what rides along without waiting for an append.
    pub fn flush(&self) {
        self.append(Vec::new(), Box::new(|_| ()));
    }

    /// Forgets what was queued before this call and is of steps up to `upto`, but for `carry`:
    /// [`EVERY_STEP`] forgets all of it. Whole segments go, the oldest first, so what stands behind
    /// the first record of a later step may stay too, however much that is: nothing but `carry` is
    /// written. A crash leaves either all of the old ones or what stays and all of `carry`. `done`
    /// as for [`Journal::append`]; it may use the reserve.
    pub fn truncate(&self, upto: u64, carry: Vec<Record>, done: Done) {
        let bytes = encoded_len(&carry);
        self.inner.push(Entry::Truncate { upto, carry, bytes, done });
    }

    /// Reads all live records again, after everything queued before is written. `done` is called
    /// once, on the worker, which writes nothing meanwhile.
    pub fn replay(&self, done: ReplayDone) {
        self.inner.push(Entry::Replay { done });
    }

    /// Counters; cheap.
    pub fn stats(&self) -> JournalStats {
        let shared = &self.inner.shared;
        JournalStats {
            bytes: shared.bytes.load(Ordering::Relaxed),
            syncs: shared.syncs.load(Ordering::Relaxed),
            failed: shared.failed.get().map(ToString::to_string),
            full: shared.full.load(Ordering::Relaxed),
            queued_bytes: shared.queued_bytes(),
            lazy_dropped: shared.lazy_dropped.load(Ordering::Relaxed),
        }
    }

    /// Whether ordinary records are refused since the disk is full: as in [`Journal::stats`], cheaper.
    pub fn is_full(&self) -> bool {
        self.inner.shared.full.load(Ordering::Relaxed)
    }

    /// How far the journal is durable: a number that only rises, over restarts too, as long as the
    /// disk keeps its word and nobody puts back an older copy.
    pub fn position(&self) -> u64 {
        self.inner.shared.position.load(Ordering::Relaxed)
    }

    /// From now on `seconds` observes how long each sync takes; only the first call counts.
    pub fn observe_syncs(&self, seconds: Histogram) {
        let _ = self.inner.shared.sync_seconds.set(seconds);
    }

    /// Takes no more calls, writes what is queued and stops the worker; on a real disk it waits
    /// for that. A second call does nothing.
    pub fn close(&self) {
        self.inner.shared.close();
        self.inner.waker.stop();
    }
}

impl fmt::Debug for Journal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Journal").field(&self.stats()).finish()
    }
}

impl Inner {
    fn push(&self, entry: Entry) {
        let is_append = matches!(entry, Entry::Append { .. });
        match self.shared.push(entry) {
            Ok(true) => {
                let turns = self.direct.as_ref().filter(|_| is_append);
                if !turns.is_some_and(|turns| turns.take_one()) {
                    self.waker.wake();
                }
            }
            Ok(false) => {}
            Err((entry, why)) => entry.refuse(why),
        }
    }
}

fn encoded_len(records: &[Record]) -> u64 {
    records.iter().map(Record::encoded_len).sum()
}
