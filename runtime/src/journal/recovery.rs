//! Reading a journal back, and judging whether anything that was durable is missing.
//!
//! 1. The newest segment's first header names the oldest segment that counts; all between must
//!    be there.
//! 2. Each segment but the newest must reach, batch by batch, exactly the end that the first
//!    header of the next one names.
//! 3. In the newest, reading stops at the first place without a good batch. When a good header
//!    further on says that more was durable, memory is lost: refuse. Otherwise what is left is a
//!    tail that nobody was told about: cut it, and say so.

use std::{
    io,
    path::{Path, PathBuf},
};

use super::{
    JournalError, bounded,
    record::{self, Record},
    segment::{
        BLOCK_BYTES, Found, HEADER_BYTES, Header, Place, Position, segment_path, segments_of,
        to_usize,
    },
};
use crate::world::Disk;

/// A record and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located {
    /// The number of the segment, as in the name of its file (there in hexadecimal).
    pub segment: u64,
    /// Bytes from the beginning of the segment to the record.
    pub offset: u64,
    /// The record.
    pub record: Record,
}

/// Reads a journal without changing it. It should not be in use: a batch being written may show
/// as damage.
///
/// # Errors
/// As [`super::Journal::open`].
pub fn inspect(disk: &dyn Disk, dir: &Path) -> Result<Vec<Located>, JournalError> {
    if let Some(records) = bounded::inspect(disk, dir)? {
        return Ok(records);
    }
    Ok(recover(disk, dir)?.map_or_else(Vec::new, |found| found.records))
}

/// What is left of a journal.
#[derive(Debug)]
pub(super) struct Recovery {
    /// The number drawn for this journal.
    pub(super) journal: u64,
    /// All records that count, in order.
    pub(super) records: Vec<Located>,
    /// The oldest segment that counts.
    pub(super) base: u64,
    /// Where the next batch goes.
    pub(super) end: Position,
    /// The link of the last record.
    pub(super) chain: u32,
    /// Length of the newest segment's file.
    pub(super) room: u64,
    /// Whether something half written stands at `end`.
    pub(super) torn: bool,
    /// The bytes before `end` of which no header says that they are durable: of one sync at most.
    pub(super) unsure: Vec<u8>,
}

/// Reads all segments that count; `None` when there is no journal yet.
pub(super) fn recover(disk: &dyn Disk, dir: &Path) -> Result<Option<Recovery>, JournalError> {
    let names = disk.list(dir).map_err(|source| io_error(dir, source))?;
    let Some(&newest) = segments_of(&names).last() else {
        return Ok(None);
    };
    let last = Segment::read_first(disk, dir, newest)?;
    let Place { journal, base, .. } = last.first.place;
    if base == 0 || base > newest {
        return Err(last.lost(0, "its first batch names a segment that cannot be"));
    }
    let mut records = Vec::new();
    let mut chain = None;
    let mut segment = Segment::read_all(disk, dir, journal, base)?;
    while segment.sequence() < newest {
        let next = Segment::read_all(disk, dir, journal, segment.sequence() + 1)?;
        chain = Some(segment.read_up_to(&next, chain, &mut records)?);
        segment = next;
    }
    let scan = segment.scan(chain, None, &mut records);
    let torn = segment.judge_tail(&scan)?;
    let end = Position { sequence: newest, offset: scan.offset };
    let room = segment.first.place.room;
    let unsure = segment.bytes[to_usize(scan.sure)..to_usize(scan.offset)].to_vec();
    Ok(Some(Recovery { journal, records, base, end, chain: scan.chain, room, torn, unsure }))
}

/// One file, in memory.
struct Segment {
    path: PathBuf,
    first: Header,
    bytes: Vec<u8>,
}

/// How far good batches reach, and what ended them.
struct Scan {
    offset: u64,
    /// Up to here it was durable when the last of them was written.
    sure: u64,
    chain: u32,
    damage: Option<&'static str>,
}

impl Segment {
    /// Reads only as much as the first header.
    fn read_first(disk: &dyn Disk, dir: &Path, sequence: u64) -> Result<Self, JournalError> {
        Self::read(disk, dir, None, sequence, HEADER_BYTES as u64)
    }

    fn read_all(
        disk: &dyn Disk,
        dir: &Path,
        journal: u64,
        sequence: u64,
    ) -> Result<Self, JournalError> {
        Self::read(disk, dir, Some(journal), sequence, u64::MAX)
    }

    fn read(
        disk: &dyn Disk,
        dir: &Path,
        journal: Option<u64>,
        sequence: u64,
        max: u64,
    ) -> Result<Self, JournalError> {
        let path = segment_path(dir, sequence);
        let file = match disk.open(&path, false) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(lost(&path, 0, "the file is missing"));
            }
            Err(error) => return Err(io_error(&path, error)),
        };
        let len = file.len().map_err(|source| io_error(&path, source))?;
        let mut bytes = vec![0; to_usize(len.min(max))];
        let read = file.read_at(0, &mut bytes).map_err(|source| io_error(&path, source))?;
        bytes.truncate(read);
        let at = Position { sequence, offset: 0 };
        // A segment has its name only since its first batch is durable.
        let Found::Header(first) = Header::find(&bytes, journal, at) else {
            return Err(lost(&path, 0, "its first batch is damaged"));
        };
        if len < first.place.room {
            return Err(lost(&path, len, "the file is cut short"));
        }
        Ok(Self { path, first, bytes })
    }

    /// Reads a segment that `next` follows; answers the link of its last record.
    fn read_up_to(
        &self,
        next: &Self,
        chain: Option<u32>,
        into: &mut Vec<Located>,
    ) -> Result<u32, JournalError> {
        let mark = next.first.place.mark;
        if mark.sequence != self.sequence() {
            return Err(next.lost(0, "its first batch does not follow the segment before"));
        }
        let scan = self.scan(chain, Some(mark.offset), into);
        if scan.offset != mark.offset {
            let reason = scan.damage.unwrap_or("a batch that was durable is missing");
            return Err(self.lost(scan.offset, reason));
        }
        if scan.chain != next.first.chain {
            return Err(next.lost(0, "its first batch does not follow the segment before"));
        }
        Ok(scan.chain)
    }

    /// Reads batch by batch until `stop`, or as far as they are good. Without `chain`, the first
    /// batch's word is taken for what stood before.
    fn scan(&self, chain: Option<u32>, stop: Option<u64>, into: &mut Vec<Located>) -> Scan {
        let mut chain = chain.unwrap_or(self.first.chain);
        let (mut offset, mut sure) = (0, 0);
        while stop.is_none_or(|stop| offset < stop) {
            let at = Position { sequence: self.sequence(), offset };
            let header = match self.find(at) {
                Found::Header(header) => header,
                Found::Nothing => return Scan { offset, sure, chain, damage: None },
                Found::Damaged(reason) => {
                    return Scan { offset, sure, chain, damage: Some(reason) };
                }
            };
            let kept = into.len();
            match self.read_batch(&header, chain, into) {
                Ok(link) => chain = link,
                Err(reason) => {
                    into.truncate(kept);
                    return Scan { offset, sure, chain, damage: Some(reason) };
                }
            }
            // A segment gets its name when its first batch is durable.
            let mark = header.place.mark;
            let told = if mark.sequence == at.sequence { mark.offset } else { header.end() };
            (offset, sure) = (header.end(), told.max(sure));
        }
        Scan { offset, sure, chain, damage: None }
    }

    fn read_batch(
        &self,
        header: &Header,
        mut chain: u32,
        into: &mut Vec<Located>,
    ) -> Result<u32, &'static str> {
        if header.chain != chain {
            return Err("a batch does not follow the one before");
        }
        let mut at = to_usize(header.place.at.offset) + HEADER_BYTES;
        let end = at + header.length as usize;
        if end > self.bytes.len() {
            return Err("a batch is longer than its segment");
        }
        for _ in 0..header.count {
            let (record, len, link) = record::decode(&self.bytes[at..end], chain)?;
            into.push(Located { segment: self.sequence(), offset: at as u64, record });
            at += len;
            chain = link;
        }
        if at == end { Ok(chain) } else { Err("a batch holds more than its records") }
    }

    /// Whether something half written stands at the end of a scan of the newest segment.
    fn judge_tail(&self, scan: &Scan) -> Result<bool, JournalError> {
        let end = Position { sequence: self.sequence(), offset: scan.offset };
        let mut torn = scan.damage.is_some();
        let mut offset = scan.offset + BLOCK_BYTES;
        while offset < self.bytes.len() as u64 {
            let at = Position { offset, ..end };
            match self.find(at) {
                Found::Header(header) if header.place.mark > end => {
                    let reason = scan.damage.unwrap_or("a batch that was durable is missing");
                    return Err(self.lost(scan.offset, reason));
                }
                // Whether it was to stand at the end, and went astray, nobody can tell.
                Found::Header(_) | Found::Damaged(_) => torn = true,
                Found::Nothing => {}
            }
            offset += BLOCK_BYTES;
        }
        if scan.offset == 0 {
            return Err(self.lost(0, scan.damage.unwrap_or("its first batch is damaged")));
        }
        Ok(torn)
    }

    fn find(&self, at: Position) -> Found {
        Header::find(&self.bytes, Some(self.first.place.journal), at)
    }

    const fn sequence(&self) -> u64 {
        self.first.place.at.sequence
    }

    fn lost(&self, offset: u64, reason: &'static str) -> JournalError {
        lost(&self.path, offset, reason)
    }
}

fn lost(file: &Path, offset: u64, reason: &'static str) -> JournalError {
    JournalError::LostMemory { file: file.to_path_buf(), offset, reason }
}

/// An I/O error with the file it is about.
pub(super) fn io_error(file: &Path, source: io::Error) -> JournalError {
    JournalError::Io { file: file.to_path_buf(), source }
}
