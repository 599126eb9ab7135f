//! The ring: one file of a fixed length, written round and round.
//!
//! ```text
//! header crc u32 | body crc u32 | ring u64 | at u64 | synced u64 | base u64
//!   | length u32 | count u32 | records
//! ```
//! Little-endian. A batch begins at a block of 4 KiB and is padded to one. `at` is its position: the
//! bytes ever written before it, so what an earlier round left at the same place is told apart.
//! `synced` is how far everything was durable when it was written. Records that were moved close
//! together count only once the ring begins with them, at `base`. A batch without records is a
//! *seal*: it only says that, and the next batch is written over it.

use std::{
    io,
    path::{Path, PathBuf},
};

use crate::{
    journal::{
        JournalError,
        record::{self, Record, read_u32, read_u64},
        recovery::io_error,
    },
    world::{Disk, disk::DiskFile},
};

/// Nothing a disk writes at once is larger, so no batch can tear another.
pub(super) const BLOCK_BYTES: u64 = 4096;

/// What is moved is written so many bytes at a time: what is in memory twice stays small.
const BATCH_BYTES: u64 = 256 * 1024;

const HEADER_BYTES: usize = 48;

/// The most bytes of the ring that records of `bytes` bytes take together.
pub(super) const fn packed(bytes: u64) -> u64 {
    let batches = bytes / BATCH_BYTES + 1;
    (bytes + batches * HEADER_BYTES as u64 + batches * BLOCK_BYTES).next_multiple_of(BLOCK_BYTES)
}

/// The open file, and where its records are.
pub(super) struct Ring {
    path: PathBuf,
    file: Box<dyn DiskFile>,
    /// Bytes of the file.
    capacity: u64,
    /// Drawn when it was made.
    number: u64,
    /// What is below may be written over.
    pub(super) head: u64,
    /// Where the next batch goes.
    pub(super) tail: u64,
    synced: u64,
}

/// What a ring holds.
pub(super) struct Found {
    /// Each record with the position of its batch, in order.
    pub(super) records: Vec<(u64, Record)>,
    /// Where the next batch goes.
    pub(super) end: u64,
    /// Up to here something on the disk says that it is durable.
    pub(super) sure: u64,
    /// Places of batches that never were durable, to be wiped before anything else is written.
    remnants: Vec<u64>,
}

impl Found {
    /// Whether something half written was found.
    pub(super) fn is_torn(&self) -> bool {
        !self.remnants.is_empty()
    }
}

/// The first block of a batch says all about it.
struct Header {
    body_crc: u32,
    at: u64,
    synced: u64,
    base: u64,
    length: u32,
    count: u32,
}

impl Ring {
    /// Makes the file anew, all of it: what a full disk cannot give is missed now, and never later.
    pub(super) fn make(
        disk: &dyn Disk,
        path: &Path,
        capacity: u64,
        number: u64,
    ) -> Result<Self, JournalError> {
        let capacity = capacity.next_multiple_of(BLOCK_BYTES);
        let filled = || -> io::Result<Box<dyn DiskFile>> {
            let mut file = disk.open(path, true)?;
            file.set_len(0)?;
            let zeros = vec![0; usize::try_from(BATCH_BYTES.min(capacity)).expect("small")];
            for at in (0..capacity).step_by(zeros.len()) {
                let rest = usize::try_from(capacity - at).unwrap_or(usize::MAX);
                file.write_at(at, &zeros[..rest.min(zeros.len())])?;
            }
            file.sync_data()?;
            disk.sync_dir(path.parent().unwrap_or_else(|| Path::new(".")))?;
            Ok(file)
        };
        let file = filled().map_err(|source| io_error(path, source))?;
        Ok(Self { path: path.to_path_buf(), file, capacity, number, head: 0, tail: 0, synced: 0 })
    }

    /// Opens the file; [`Ring::read`] comes next.
    pub(super) fn open(
        disk: &dyn Disk,
        path: &Path,
        number: u64,
        head: u64,
    ) -> Result<Self, JournalError> {
        let opened = || -> io::Result<_> {
            let file = disk.open(path, false)?;
            let capacity = file.len()?;
            Ok((file, capacity))
        };
        let (file, capacity) = match opened() {
            Ok(opened) => opened,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(lost(path, 0, "the file is missing"));
            }
            Err(error) => return Err(io_error(path, error)),
        };
        if capacity == 0 || capacity % BLOCK_BYTES != 0 {
            return Err(lost(path, capacity, "the file is cut short"));
        }
        let path = path.to_path_buf();
        Ok(Self { path, file, capacity, number, head, tail: head, synced: head })
    }

    pub(super) const fn capacity(&self) -> u64 {
        self.capacity
    }

    pub(super) const fn number(&self) -> u64 {
        self.number
    }

    /// Bytes that must not be written over.
    pub(super) const fn span(&self) -> u64 {
        self.tail - self.head
    }

    /// Reads everything from the head on, and judges whether anything that was durable is missing.
    pub(super) fn read(&self) -> Result<Found, JournalError> {
        let failed = |source| io_error(&self.path, source);
        let (mut at, mut records) = (self.head, Vec::new());
        let mut sure = at;
        while let Some((header, batch)) = self.batch(at).map_err(failed)? {
            records.extend(batch.into_iter().map(|record| (at, record)));
            sure = header.synced.clamp(sure, at);
            at += batch_bytes(header.length);
        }
        let mut found = Found { records, end: at, sure, remnants: Vec::new() };
        let mut chunk = vec![0; usize::try_from(BATCH_BYTES).expect("small")];
        for place in (0..self.capacity).step_by(chunk.len()) {
            let read = self.file.read_at(place, &mut chunk).map_err(failed)?;
            let blocks = chunk[..read].chunks(BLOCK_BYTES as usize);
            for (block, place) in blocks.zip((place..).step_by(BLOCK_BYTES as usize)) {
                match self.header(block, place) {
                    Some(header) if header.at < at => {} // of an earlier round, or read above
                    Some(header) if header.synced > at => {
                        return Err(self.lacks(&found));
                    }
                    Some(header) if header.at > at || header.count > 0 => {
                        found.remnants.push(place);
                    }
                    // A seal.
                    Some(header) => found.sure = header.synced.max(found.sure),
                    None => {}
                }
            }
        }
        Ok(found)
    }

    /// Something is missing behind what was found.
    pub(super) fn lacks(&self, found: &Found) -> JournalError {
        lost(&self.path, found.end % self.capacity, "a batch that was durable is damaged")
    }

    /// Goes on behind what was found. What was read may stand in the system's cache only: when the
    /// process died before its sync, or when that sync failed, after which the system takes for
    /// written what is not. So what nothing calls durable is written anew.
    pub(super) fn resume(&mut self, found: &Found) -> Result<(), JournalError> {
        let mut settle = || {
            let unsure = found.sure..found.end;
            #[cfg(test)]
            let unsure = if super::tests::is_off(super::tests::Rule::UnsureIsWrittenAnew) {
                0..0
            } else {
                unsure
            };
            for at in unsure.step_by(BATCH_BYTES as usize) {
                let bytes = self.load(at, BATCH_BYTES.min(found.end - at))?;
                self.lay(at, &bytes)?;
            }
            self.file.sync_data()?;
            #[cfg(test)]
            if super::tests::is_off(super::tests::Rule::RemnantsAreWiped) {
                return Ok(());
            }
            for place in &found.remnants {
                self.file.write_at(*place, &[0; BLOCK_BYTES as usize])?;
            }
            if found.remnants.is_empty() { Ok(()) } else { self.file.sync_data() }
        };
        settle().map_err(|source| io_error(&self.path, source))?;
        (self.tail, self.synced) = (found.end, found.end);
        Ok(())
    }

    /// Writes records behind the tail, all or none of which survive a crash; the caller saw to it
    /// that there is room. With `moved` they count only once the head is where they begin. Answers
    /// the position of each and the bytes written. Durable after [`Ring::sync`].
    pub(super) fn push(&mut self, records: &[Record], moved: bool) -> io::Result<(Vec<u64>, u64)> {
        let (begin, mut places) = (self.tail, Vec::with_capacity(records.len()));
        let (base, most) = if moved { (begin, BATCH_BYTES) } else { (self.head, u64::MAX) };
        let mut rest = records;
        while !rest.is_empty() {
            let (mut body, mut count, mut chain) = (Vec::new(), 0, 0);
            while let Some(record) = rest.first().filter(|_| (body.len() as u64) < most) {
                chain = record::encode(record, chain, &mut body);
                (rest, count) = (&rest[1..], count + 1);
                places.push(self.tail);
            }
            self.tail += self.put(&body, count, base)?;
        }
        assert!(self.span() <= self.capacity, "whoever writes makes room first");
        Ok((places, self.tail - begin))
    }

    /// Makes everything pushed durable.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        self.file.sync_data()?;
        self.synced = self.tail;
        Ok(())
    }

    /// Says on the disk that everything up to here was durable: damage to the last batch is then
    /// told apart from a write that never finished. Answers the bytes written.
    pub(super) fn seal(&mut self) -> io::Result<u64> {
        if self.span() + BLOCK_BYTES > self.capacity {
            return Ok(0); // the head stands here
        }
        #[cfg(test)]
        if super::tests::is_off(super::tests::Rule::LastBatchIsSealed) {
            return Ok(0);
        }
        let written = self.put(&[], 0, self.head)?;
        self.file.sync_data()?;
        Ok(written)
    }

    /// Writes one batch at the tail.
    fn put(&mut self, body: &[u8], count: u32, base: u64) -> io::Result<u64> {
        let length = u32::try_from(body.len()).expect("bounded by QUEUED_BYTES_MAX");
        let mut bytes = vec![0; usize::try_from(batch_bytes(length)).expect("fits in memory")];
        bytes[HEADER_BYTES..][..body.len()].copy_from_slice(body);
        bytes[4..8].copy_from_slice(&crc32fast::hash(body).to_le_bytes());
        let words = [self.number, self.tail, self.synced, base];
        for (word, into) in words.iter().zip(bytes[8..40].chunks_exact_mut(8)) {
            into.copy_from_slice(&word.to_le_bytes());
        }
        bytes[40..44].copy_from_slice(&length.to_le_bytes());
        bytes[44..48].copy_from_slice(&count.to_le_bytes());
        let crc = crc32fast::hash(&bytes[4..HEADER_BYTES]);
        bytes[..4].copy_from_slice(&crc.to_le_bytes());
        self.lay(self.tail, &bytes)?;
        Ok(bytes.len() as u64)
    }

    /// Writes bytes at a position, round the end if need be.
    fn lay(&mut self, at: u64, bytes: &[u8]) -> io::Result<()> {
        let place = at % self.capacity;
        let split = usize::try_from(self.capacity - place).unwrap_or(usize::MAX).min(bytes.len());
        self.file.write_at(place, &bytes[..split])?;
        if split < bytes.len() {
            self.file.write_at(0, &bytes[split..])?;
        }
        Ok(())
    }

    /// The batch at a position, if it is whole and has any records.
    fn batch(&self, at: u64) -> io::Result<Option<(Header, Vec<Record>)>> {
        let room = self.capacity - (at - self.head);
        if room < BLOCK_BYTES {
            return Ok(None);
        }
        let block = self.load(at, BLOCK_BYTES)?;
        let header = self.header(&block, at % self.capacity).filter(|header| {
            let moving = header.base > self.head;
            header.at == at && !moving
        });
        let Some(header) = header else { return Ok(None) };
        let Header { length, count, body_crc, .. } = header;
        if count == 0 || batch_bytes(length) > room {
            return Ok(None);
        }
        let bytes = self.load(at, batch_bytes(length))?;
        let body = &bytes[HEADER_BYTES..][..length as usize];
        if crc32fast::hash(body) != body_crc {
            return Ok(None);
        }
        let (mut records, mut start, mut chain) = (Vec::new(), 0, 0);
        while start < body.len() {
            let Ok((record, len, link)) = record::decode(&body[start..], chain) else {
                return Ok(None);
            };
            records.push(record);
            (start, chain) = (start + len, link);
        }
        Ok(Some((header, records)))
    }

    /// Reads, round the end if need be.
    fn load(&self, at: u64, len: u64) -> io::Result<Vec<u8>> {
        let place = at % self.capacity;
        let mut bytes = vec![0; usize::try_from(len).expect("a part of the file")];
        let split = usize::try_from(self.capacity - place).unwrap_or(usize::MAX).min(bytes.len());
        let (first, second) = bytes.split_at_mut(split);
        let read = self.file.read_at(place, first)? + self.file.read_at(0, second)?;
        if read < bytes.len() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(bytes)
    }

    /// What a block of this ring says, if a batch begins there.
    fn header(&self, block: &[u8], place: u64) -> Option<Header> {
        let header = block.get(..HEADER_BYTES)?;
        let good = read_u32(header, 0) == crc32fast::hash(&header[4..])
            && read_u64(header, 8) == self.number
            && read_u64(header, 16) % self.capacity == place;
        good.then(|| Header {
            body_crc: read_u32(header, 4),
            at: read_u64(header, 16),
            synced: read_u64(header, 24),
            base: read_u64(header, 32),
            length: read_u32(header, 40),
            count: read_u32(header, 44),
        })
    }
}

/// Bytes of a batch in the file.
const fn batch_bytes(length: u32) -> u64 {
    (HEADER_BYTES as u64 + length as u64).next_multiple_of(BLOCK_BYTES)
}

fn lost(file: &Path, offset: u64, reason: &'static str) -> JournalError {
    JournalError::LostMemory { file: file.to_path_buf(), offset, reason }
}
