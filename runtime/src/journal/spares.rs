//! Files made ahead of time: zero-filled, so that writing into them changes no metadata and a
//! full disk cannot stop it. Two are the reserve of a full disk.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use super::{
    Durability,
    segment::{spare_path, spares_of},
};
use crate::world::{Clock, Disk, Instant, disk::DiskFile};

/// Segments kept for records that a full disk must still take.
pub(super) const RESERVE_SEGMENTS: usize = 2;

/// Reserve, the next segment, and one for the truncation that overtakes it; more are given back.
const SPARES_MAX: usize = RESERVE_SEGMENTS + 2;

/// Bytes of zeros written and synced between two looks at the queue: about a millisecond's work.
pub(super) const SLICE_BYTES: u64 = 1 << 20;

/// How long a full disk is left alone before it is tried again.
const FULL_RETRY: Duration = Duration::from_secs(1);

/// A spare in the making. Never trusted after a crash.
const UNFINISHED: &str = "unfinished";

/// A single segment for more than an ordinary one holds. Never trusted after a crash.
const LARGE: &str = "large";

/// What a new segment is wanted for: how far it may dip into the reserve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Ordinary records: the reserve stays whole.
    Ordinary,
    /// Records that a full disk must take.
    Reserved,
    /// A truncation, which gives segments back at once: not worth making one for.
    Truncation,
}

/// A file to become a segment.
#[derive(Debug)]
pub(super) struct Spare {
    pub(super) path: PathBuf,
    pub(super) room: u64,
    /// It was taken out of the reserve.
    pub(super) reserve: bool,
}

/// The pool.
#[derive(Debug)]
pub(super) struct Spares {
    disk: Arc<dyn Disk>,
    pub(super) clock: Arc<dyn Clock>,
    dir: PathBuf,
    durability: Durability,
    segment_bytes: u64,
    ready: Vec<PathBuf>,
    next_number: u64,
    making: Option<Making>,
    retry_at: Option<Instant>,
}

#[derive(Debug)]
struct Making {
    file: Box<dyn DiskFile>,
    done: u64,
}

impl Spares {
    /// Finds the spares of an earlier life, and removes what is none.
    pub(super) fn open(
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
        dir: &Path,
        durability: Durability,
        segment_bytes: u64,
    ) -> io::Result<Self> {
        let dir = dir.to_path_buf();
        let numbers = spares_of(&disk.list(&dir)?);
        disk.remove(&dir.join(UNFINISHED))?;
        disk.remove(&dir.join(LARGE))?;
        let mut ready = Vec::new();
        for number in &numbers {
            let path = spare_path(&dir, *number);
            // Another length is from another configuration.
            if disk.open(&path, false)?.len()? == segment_bytes && ready.len() < SPARES_MAX {
                ready.push(path);
            } else {
                disk.remove(&path)?;
            }
        }
        let next_number = numbers.last().map_or(1, |last| last + 1);
        let (making, retry_at) = (None, None);
        let pool = Self {
            disk,
            clock,
            dir,
            durability,
            segment_bytes,
            ready,
            next_number,
            making,
            retry_at,
        };
        Ok(pool)
    }

    /// Takes a file of at least `need` bytes; `None` when the disk is full.
    pub(super) fn take(&mut self, need: u64, purpose: Purpose) -> io::Result<Option<Spare>> {
        if need > self.segment_bytes {
            return self.make_large(need);
        }
        let enough = match purpose {
            Purpose::Ordinary | Purpose::Reserved => RESERVE_SEGMENTS + 1,
            Purpose::Truncation => 1,
        };
        while self.ready.len() < enough && self.wants(enough) {
            self.make(u64::MAX)?;
        }
        let reserve = !self.has_more_than_the_reserve();
        if reserve && purpose == Purpose::Ordinary {
            return Ok(None);
        }
        let room = self.segment_bytes;
        Ok(self.ready.pop().map(|path| Spare { path, room, reserve }))
    }

    /// Whether a file that is given back is kept for reuse.
    pub(super) fn has_place(&self) -> bool {
        self.ready.len() < SPARES_MAX
    }

    /// Takes back a file that is no longer needed: kept for reuse when it fits, else removed.
    pub(super) fn give(&mut self, path: &Path, room: u64) -> io::Result<()> {
        if room != self.segment_bytes || self.ready.len() >= SPARES_MAX {
            return self.disk.remove(path);
        }
        self.finish(path)
    }

    /// Whether there are fewer than `count`, and making one is worth trying.
    pub(super) fn wants(&self, count: usize) -> bool {
        self.ready.len() < count && self.retry_at.is_none_or(|at| at <= self.clock.now())
    }

    /// Whether the reserve is whole.
    pub(super) fn reserve_is_whole(&self) -> bool {
        self.ready.len() >= RESERVE_SEGMENTS
    }

    /// Whether one may be taken for ordinary records.
    pub(super) fn has_more_than_the_reserve(&self) -> bool {
        self.ready.len() > RESERVE_SEGMENTS
    }

    /// Goes on making a spare, by at most `bytes`. A full disk is no error: what was made is
    /// given back, and the next try waits.
    pub(super) fn make(&mut self, bytes: u64) -> io::Result<()> {
        let path = self.dir.join(UNFINISHED);
        match self.make_more(&path, bytes) {
            Err(error) if is_full(&error) => {
                self.making = None;
                self.retry_at = Some(self.clock.now() + FULL_RETRY);
                self.disk.remove(&path)
            }
            Err(error) => Err(error),
            Ok(()) => {
                self.retry_at = None;
                let whole =
                    self.making.as_ref().is_some_and(|made| made.done == self.segment_bytes);
                if whole {
                    self.making = None;
                    self.finish(&path)?;
                }
                Ok(())
            }
        }
    }

    fn make_more(&mut self, path: &Path, bytes: u64) -> io::Result<()> {
        let making = match &mut self.making {
            Some(making) => making,
            none => {
                let mut file = self.disk.open(path, true)?;
                file.set_len(self.segment_bytes)?;
                none.insert(Making { file, done: 0 })
            }
        };
        let until = making.done.saturating_add(bytes).min(self.segment_bytes);
        fill(making.file.as_mut(), making.done, until, self.durability)?;
        making.done = until;
        Ok(())
    }

    fn make_large(&self, need: u64) -> io::Result<Option<Spare>> {
        let path = self.dir.join(LARGE);
        let made = self.disk.open(&path, true).and_then(|mut file| {
            file.set_len(need)?;
            fill(file.as_mut(), 0, need, self.durability)
        });
        match made {
            Ok(()) => Ok(Some(Spare { path, room: need, reserve: false })),
            Err(error) if is_full(&error) => {
                self.disk.remove(&path)?;
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn finish(&mut self, path: &Path) -> io::Result<()> {
        let spare = spare_path(&self.dir, self.next_number);
        self.next_number += 1;
        self.disk.rename(path, &spare)?;
        self.ready.push(spare);
        Ok(())
    }
}

/// Writes and syncs zeros from `start` to `end`.
pub(super) fn fill(
    file: &mut dyn DiskFile,
    start: u64,
    end: u64,
    durability: Durability,
) -> io::Result<()> {
    match durability {
        // Space that is not synced is not worth reserving.
        Durability::Memory => Ok(()),
        Durability::Fsync => {
            let zeros = [0; ZEROS_BYTES];
            let mut at = start;
            while at < end {
                let len =
                    usize::try_from(end - at).map_or(ZEROS_BYTES, |rest| rest.min(ZEROS_BYTES));
                file.write_at(at, &zeros[..len])?;
                at += len as u64;
            }
            file.sync_data()
        }
    }
}

/// Whether the system says that nothing more fits.
fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Zeros per write: small enough for the stack.
const ZEROS_BYTES: usize = 64 * 1024;
