//! Reading again what is durable, a little at a time, while the journal is in use: a disk may lose
//! what it kept for years, and nobody would know before it is needed.
//!
//! What the system still has in its cache is read from there; what was written longer ago comes from
//! the disk.

use std::{
    fmt, io,
    path::PathBuf,
    sync::{Arc, atomic::Ordering},
};

use super::{
    Journal, JournalError,
    queue::Shared,
    record,
    recovery::io_error,
    segment::{BLOCK_BYTES, HEADER_BYTES, Header, Position, segment_path, to_usize},
};
use crate::world::{Disk, disk::DiskFile};

/// Where reading goes on.
pub struct Scrub {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    shared: Arc<Shared>,
    at: Option<Place>,
}

/// What one call did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Scrubbed {
    /// Bytes read and found good.
    pub bytes: u64,
    /// The end was reached; the next call begins at the beginning.
    pub whole: bool,
}

struct Place {
    file: Box<dyn DiskFile>,
    at: Position,
    /// Where the durable part of this segment ends.
    end: u64,
}

impl Scrub {
    /// Reads the journal `journal` in `dir` from its beginning.
    pub fn new(disk: Arc<dyn Disk>, dir: impl Into<PathBuf>, journal: &Journal) -> Self {
        let shared = Arc::clone(&journal.inner.shared);
        Self { disk, dir: dir.into(), shared, at: None }
    }

    /// Reads on for at least `bytes`, or to the end. Blocks.
    ///
    /// # Errors
    /// [`JournalError::LostMemory`] names what was durable and cannot be read any more. Then the next
    /// call begins at the beginning.
    pub fn read_on(&mut self, bytes: u64) -> Result<Scrubbed, JournalError> {
        let mut done = Scrubbed::default();
        while done.bytes < bytes && !done.whole {
            match self.read_batch() {
                Ok(Some(len)) => done.bytes += len,
                Ok(None) => done.whole = true,
                Err((at, error)) => {
                    self.at = None;
                    // What was replaced meanwhile is nobody's memory any more.
                    if at.sequence >= self.shared.base.load(Ordering::Acquire) {
                        return Err(error);
                    }
                }
            }
        }
        Ok(done)
    }

    /// Reads one batch; none at the end.
    fn read_batch(&mut self) -> Result<Option<u64>, (Position, JournalError)> {
        let mut place = match self.at.take() {
            Some(place) => place,
            None => self.enter(self.shared.base.load(Ordering::Acquire))?,
        };
        if place.at.offset >= place.end {
            let durable = Position::unpacked(self.shared.position.load(Ordering::Acquire));
            if place.at.sequence >= durable.sequence {
                return Ok(None);
            }
            place = self.enter(place.at.sequence + 1)?;
        }
        let at = place.at;
        let fail = |error| (at, error);
        let header = self.header(place.file.as_ref(), at).map_err(fail)?;
        let mut batch = vec![0; to_usize(header.end() - at.offset)];
        let read = place.file.read_at(at.offset, &mut batch);
        read.map_err(|source| (at, io_error(&segment_path(&self.dir, at.sequence), source)))?;
        judge(&header, &batch).map_err(|reason| (at, self.lost(at, reason)))?;
        place.at.offset = header.end();
        self.at = Some(place);
        Ok(Some(batch.len() as u64))
    }

    /// Begins to read a segment.
    fn enter(&self, sequence: u64) -> Result<Place, (Position, JournalError)> {
        let at = Position { sequence, offset: 0 };
        let durable = Position::unpacked(self.shared.position.load(Ordering::Acquire));
        let fail = |error| (at, error);
        let file = self.open(at).map_err(fail)?;
        let end = if sequence >= durable.sequence {
            durable.offset
        } else {
            // The next one says where this one ended.
            let next = Position { sequence: sequence + 1, offset: 0 };
            let file = self.open(next).map_err(fail)?;
            let mark = self.header(file.as_ref(), next).map_err(fail)?.place.mark;
            if mark.sequence != sequence {
                let reason = "its first batch does not follow the segment before";
                return Err((at, self.lost(next, reason)));
            }
            mark.offset
        };
        Ok(Place { file, at, end })
    }

    fn open(&self, at: Position) -> Result<Box<dyn DiskFile>, JournalError> {
        let path = segment_path(&self.dir, at.sequence);
        self.disk.open(&path, false).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => self.lost(at, "the file is missing"),
            _ => io_error(&path, error),
        })
    }

    fn header(&self, file: &dyn DiskFile, at: Position) -> Result<Header, JournalError> {
        let mut block = [0; BLOCK_BYTES as usize];
        let path = segment_path(&self.dir, at.sequence);
        file.read_at(at.offset, &mut block).map_err(|source| io_error(&path, source))?;
        let header = Header::decode(&block).filter(|header| header.place.at == at);
        header.ok_or_else(|| self.lost(at, "a batch header is damaged"))
    }

    fn lost(&self, at: Position, reason: &'static str) -> JournalError {
        let file = segment_path(&self.dir, at.sequence);
        JournalError::LostMemory { file, offset: at.offset, reason }
    }
}

/// Whether all records of a batch are as they were written.
fn judge(header: &Header, batch: &[u8]) -> Result<(), &'static str> {
    let end = HEADER_BYTES + header.length as usize;
    let mut rest = batch.get(HEADER_BYTES..end).ok_or("a batch is cut short")?;
    let mut chain = header.chain;
    for _ in 0..header.count {
        let (_, len, link) = record::decode(rest, chain)?;
        (rest, chain) = (&rest[len..], link);
    }
    if rest.is_empty() { Ok(()) } else { Err("a batch holds more than its records") }
}

impl fmt::Debug for Scrub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scrub").field("dir", &self.dir).finish_non_exhaustive()
    }
}
