//! Segments: files of batches. A batch is what one write brings: a header and its records.
//!
//! ```text
//! segment  = batch batch batch … zeros (or leftovers of an earlier life of the file)
//! batch    = header records padding        begins at a multiple of BLOCK_BYTES
//! header   = magic u64 | crc u32 | chain u32 | journal u64 | sequence u64 | offset u64
//!            | mark (sequence, offset) | base u64 | room u64 | length u32 | count u32
//! ```
//! `journal` is drawn when the journal is made: no payload can pass for a header, and no file of
//! another journal for one of this. `sequence` and `offset` say where the batch belongs, so leftovers and misdirected writes are
//! told apart. `chain` continues the records before. `mark` is the end of what was durable when
//! the batch was written: below it nothing may be missing. `base` is the oldest segment that
//! counts; `room` the length of the file.
//!
//! A segment gets its name only after its first batch is durable. So a file that is called a
//! segment has a good first batch, or the disk has lost it.

use std::path::{Path, PathBuf};

use super::record::{self, Record, read_u32, read_u64};

/// Batches begin at multiples of this: what a disk writes whole or not at all. One batch never
/// shares a block with another, so a torn write cannot hurt what was durable before.
pub(super) const BLOCK_BYTES: u64 = 512;

/// What the system keeps of a file in memory is whole pages: one that is not there and is to be written
/// in part must be read first, which takes as long as to make the write durable. So what is written
/// goes to the end of its last page, with zeros behind the batch.
pub(super) const PAGE_BYTES: u64 = 4096;

/// Bytes of a batch before its records.
pub(super) const HEADER_BYTES: usize = 80;

/// First bytes of each batch; the last is the version of this layout.
const MAGIC: [u8; 8] = *b"synodjn\x01";

/// A place in the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Position {
    /// The segment.
    pub(super) sequence: u64,
    /// Bytes from the beginning of its file.
    pub(super) offset: u64,
}

impl Position {
    /// As one number, in the same order: a segment is far below 4 GiB.
    pub(super) const fn packed(self) -> u64 {
        self.sequence << 32 | self.offset
    }

    /// From one number.
    pub(super) const fn unpacked(packed: u64) -> Self {
        Self { sequence: packed >> 32, offset: packed & 0xffff_ffff }
    }
}

/// Where a batch stands, and what that says about the rest of the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) journal: u64,
    pub(super) at: Position,
    pub(super) mark: Position,
    pub(super) base: u64,
    pub(super) room: u64,
}

/// What stands before the records of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) place: Place,
    pub(super) chain: u32,
    pub(super) length: u32,
    pub(super) count: u32,
}

/// What is found where a header should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// A header for this place.
    Header(Header),
    /// Zeros, or leftovers of an earlier life of the file: nothing was ever written here.
    Nothing,
    /// A header of ours that is damaged or out of place.
    Damaged(&'static str),
}

impl Header {
    fn encode(&self, into: &mut [u8]) {
        let Place { journal, at, mark, base, room } = self.place;
        let words = [journal, at.sequence, at.offset, mark.sequence, mark.offset, base, room];
        into[..8].copy_from_slice(&MAGIC);
        into[12..16].copy_from_slice(&self.chain.to_le_bytes());
        for (slot, word) in into[16..72].chunks_exact_mut(8).zip(words) {
            slot.copy_from_slice(&word.to_le_bytes());
        }
        into[72..76].copy_from_slice(&self.length.to_le_bytes());
        into[76..80].copy_from_slice(&self.count.to_le_bytes());
        let crc = crc32fast::hash(&into[12..HEADER_BYTES]);
        into[8..12].copy_from_slice(&crc.to_le_bytes());
    }

    /// Reads a header wherever it may belong.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.get(..HEADER_BYTES)?;
        let whole = bytes[..8] == MAGIC && read_u32(bytes, 8) == crc32fast::hash(&bytes[12..]);
        let position =
            |at| Position { sequence: read_u64(bytes, at), offset: read_u64(bytes, at + 8) };
        whole.then(|| Self {
            chain: read_u32(bytes, 12),
            place: Place {
                journal: read_u64(bytes, 16),
                at: position(24),
                mark: position(40),
                base: read_u64(bytes, 56),
                room: read_u64(bytes, 64),
            },
            length: read_u32(bytes, 72),
            count: read_u32(bytes, 76),
        })
    }

    /// Judges what stands at `at` in the segment whose bytes are `segment`. Without `journal`,
    /// the header's word is taken for which journal it is of.
    pub(super) fn find(segment: &[u8], journal: Option<u64>, at: Position) -> Found {
        let rest = usize::try_from(at.offset).ok().and_then(|start| segment.get(start..));
        let Some(bytes) = rest.and_then(|rest| rest.get(..HEADER_BYTES)) else {
            return Found::Nothing;
        };
        match Self::decode(bytes) {
            Some(header) if journal.is_some_and(|own| own != header.place.journal) => {
                Found::Nothing
            }
            Some(header) if header.place.at == at => Found::Header(header),
            Some(header) if header.place.at.sequence < at.sequence => Found::Nothing,
            Some(_) => Found::Damaged("a batch is out of place"),
            // One damaged byte leaves the magic or the place readable. Leftovers in the middle
            // of an old batch show neither.
            None if bytes[..8] == MAGIC
                || (read_u64(bytes, 24) == at.sequence && read_u64(bytes, 32) == at.offset) =>
            {
                Found::Damaged("a batch header is damaged")
            }
            None => Found::Nothing,
        }
    }

    /// Where the batch after this one begins.
    pub(super) fn end(&self) -> u64 {
        self.place.at.offset + blocks(HEADER_BYTES as u64 + u64::from(self.length))
    }
}

/// Records on their way into one write.
#[derive(Debug)]
pub(super) struct Batch {
    bytes: Vec<u8>,
    count: u32,
    chain_before: u32,
    chain: u32,
}

impl Batch {
    /// An empty batch after the record whose link is `chain`.
    pub(super) fn new(chain: u32) -> Self {
        Self { bytes: vec![0; HEADER_BYTES], count: 0, chain_before: chain, chain }
    }

    /// Empties it, to follow what it held.
    pub(super) fn clear(&mut self) {
        self.bytes.truncate(HEADER_BYTES);
        self.bytes.shrink_to(BUFFER_BYTES_KEPT);
        self.count = 0;
        self.chain_before = self.chain;
    }

    /// Adds a record.
    pub(super) fn push(&mut self, record: &Record) {
        self.chain = record::encode(record, self.chain, &mut self.bytes);
        self.count += 1;
    }

    /// Puts the header in place; answers how long the batch is, and all that is to be written: the
    /// batch and what fills its last page. It is to be cleared next.
    pub(super) fn seal(&mut self, place: Place) -> (u64, &[u8]) {
        let (len, at) = (self.blocks(), place.at.offset);
        let end = (at + len).next_multiple_of(PAGE_BYTES).min(place.room.max(at + len));
        let length = u32::try_from(self.bytes.len() - HEADER_BYTES);
        let length = length.expect("bounded by QUEUED_BYTES_MAX");
        let header = Header { place, chain: self.chain_before, length, count: self.count };
        header.encode(&mut self.bytes);
        self.bytes.resize(to_usize(end - at), 0);
        (len, &self.bytes)
    }

    /// Bytes it takes on disk when `more` are added to its records.
    pub(super) fn blocks_with(&self, more: u64) -> u64 {
        blocks(self.bytes.len() as u64 + more)
    }

    /// Bytes it takes on disk.
    pub(super) fn blocks(&self) -> u64 {
        self.blocks_with(0)
    }

    /// Whether it holds no record.
    pub(super) const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The link of its last record.
    pub(super) const fn chain(&self) -> u32 {
        self.chain
    }
}

/// `bytes` rounded up to whole blocks.
pub(super) const fn blocks(bytes: u64) -> u64 {
    bytes.next_multiple_of(BLOCK_BYTES)
}

/// For lengths of what is in memory anyway.
pub(super) fn to_usize(bytes: u64) -> usize {
    usize::try_from(bytes).expect("what fits in memory fits a usize")
}

/// The file of the segment `sequence`.
pub(super) fn segment_path(dir: &Path, sequence: u64) -> PathBuf {
    dir.join(format!("{SEGMENT_PREFIX}{sequence:016x}"))
}

/// The file of the spare `number`.
pub(super) fn spare_path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{SPARE_PREFIX}{number:016x}"))
}

/// The numbers of those `names` that are of segments, in order.
pub(super) fn segments_of(names: &[String]) -> Vec<u64> {
    numbers_of(names, SEGMENT_PREFIX)
}

/// The numbers of those `names` that are of spares, in order.
pub(super) fn spares_of(names: &[String]) -> Vec<u64> {
    numbers_of(names, SPARE_PREFIX)
}

fn numbers_of(names: &[String], prefix: &str) -> Vec<u64> {
    let digits = names.iter().filter_map(|name| name.strip_prefix(prefix));
    let digits = digits.filter(|digits| digits.len() == 16);
    let mut numbers: Vec<u64> =
        digits.filter_map(|digits| u64::from_str_radix(digits, 16).ok()).collect();
    numbers.sort_unstable();
    numbers
}

const SEGMENT_PREFIX: &str = "segment-";
const SPARE_PREFIX: &str = "spare-";

/// A batch buffer larger than this is given back after use: one burst must not hold memory for
/// ever.
const BUFFER_BYTES_KEPT: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    const AT: Position = Position { sequence: 3, offset: 512 };
    const PLACE: Place = Place { journal: 77, at: AT, mark: AT, base: 1, room: 4096 };

    fn find(bytes: &[u8], at: Position) -> Found {
        Header::find(bytes, Some(77), at)
    }

    fn segment() -> Vec<u8> {
        let mut batch = Batch::new(9);
        batch.push(&Record::default());
        let mut bytes = vec![0; 512];
        let (len, written) = batch.seal(PLACE);
        assert_eq!(len, 512);
        bytes.extend_from_slice(written);
        bytes
    }

    #[test]
    fn a_header_is_found_only_where_it_belongs() {
        let bytes = segment();
        assert_eq!(bytes.len(), 4096, "to the end of its page");
        assert!(bytes[1024..].iter().all(|byte| *byte == 0));
        let short = Place { room: 1536, ..PLACE };
        assert_eq!(Batch::new(9).seal(short).1.len(), 1024, "to the end of the file");
        let Found::Header(header) = find(&bytes, AT) else { panic!("it is there") };
        let wanted = Header { chain: 9, place: PLACE, length: 40, count: 1 };
        assert_eq!(header, wanted);
        assert_eq!(header.end(), 1024);
        let other = Header::find(&bytes, Some(78), AT);
        assert_eq!(other, Found::Nothing, "a header of another journal");
        let later = Position { sequence: 4, ..AT };
        assert_eq!(find(&bytes, later), Found::Nothing, "leftovers of an earlier life");
        let earlier = Position { sequence: 2, ..AT };
        assert!(matches!(find(&bytes, earlier), Found::Damaged(_)));
        assert_eq!(find(&bytes, Position { offset: 0, ..AT }), Found::Nothing);
        assert_eq!(find(&bytes, Position { offset: 1024, ..AT }), Found::Nothing);
    }

    #[test]
    fn a_header_with_one_bad_byte_is_still_known_as_ours() {
        let bytes = segment();
        for index in 512..512 + HEADER_BYTES {
            let mut bad = bytes.clone();
            bad[index] ^= 0x10;
            assert!(matches!(find(&bad, AT), Found::Damaged(_)), "byte {index}");
        }
    }

    #[test]
    fn names_are_read_back_in_order() {
        let names = [segment_path(Path::new(""), 16), segment_path(Path::new(""), 2)];
        let mut names: Vec<String> = names.iter().map(|p| p.display().to_string()).collect();
        names.extend([
            "segment-2".into(),
            "lock".into(),
            spare_path(Path::new(""), 7).display().to_string(),
        ]);
        assert_eq!(segments_of(&names), [2, 16]);
        assert_eq!(spares_of(&names), [7]);
    }
}
