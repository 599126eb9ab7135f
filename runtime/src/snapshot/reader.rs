//! Reading a snapshot, whole or in part.

use std::path::{Path, PathBuf};

use super::{
    CHUNK_BYTES, CRC_BYTES, FOOTER_BYTES, HEADER_BYTES, Mark, SnapshotError, chunk_crc, footer,
    header, io_error, offset_of, path_of,
};
use crate::world::{Disk, disk::DiskFile};

/// A snapshot that can be read. What it answers was checked against the checksums of its chunks.
#[derive(Debug)]
pub struct Reader {
    file: Box<dyn DiskFile>,
    path: PathBuf,
    mark: Mark,
    /// In the layout before this one the checksums stood in front of the state, without places.
    table: Option<Table>,
}

#[derive(Debug)]
struct Table {
    crcs: Vec<u8>,
    /// Where the state begins.
    start: u64,
}

impl Reader {
    /// Opens the snapshot of exactly this step. Blocks.
    ///
    /// # Errors
    /// [`SnapshotError::Io`], also when there is none; [`SnapshotError::Damaged`] when it is cut
    /// short, or of another step or layout.
    pub fn open(disk: &dyn Disk, dir: &Path, step: u64) -> Result<Self, SnapshotError> {
        let path = path_of(dir, step);
        let file = disk.open(&path, false).map_err(io_error(&path))?;
        let mark = Mark { step, length: 0, digest: 0 };
        let mut reader = Self { file, path, mark, table: None };
        let mut head = [0; OLD_HEADER_BYTES];
        let read = reader.file.read_at(0, &mut head).map_err(io_error(&reader.path))?;
        if head[..8] == OLD_MAGIC {
            reader.open_old(&head[..read])?;
        } else if head[..read.min(HEADER_BYTES)] == header(step) {
            reader.find_end()?;
        } else {
            return Err(reader.damaged(0, "the header is damaged, or of another step"));
        }
        Ok(reader)
    }

    /// What it is known by.
    pub fn mark(&self) -> Mark {
        self.mark
    }

    /// The `bytes` from byte `from` of the state on, fewer where it ends. Blocks.
    ///
    /// # Errors
    /// [`SnapshotError`]; another part may still be readable.
    pub fn read(&self, from: u64, bytes: usize) -> Result<Vec<u8>, SnapshotError> {
        let chunk_bytes = CHUNK_BYTES as u64;
        let end = from.saturating_add(bytes as u64).min(self.mark.length);
        let mut out = Vec::new();
        if from < end {
            let len = usize::try_from(end - from).unwrap_or(usize::MAX);
            out.reserve_exact(len);
            let mut chunk = vec![0; CRC_BYTES + CHUNK_BYTES];
            for index in from / chunk_bytes..end.div_ceil(chunk_bytes) {
                let state = self.chunk(index, &mut chunk)?;
                let start = index * chunk_bytes;
                let within = |at: u64| usize::try_from(at).unwrap_or(usize::MAX).min(state.len());
                let range = within(from.saturating_sub(start))..within(end - start);
                out.extend_from_slice(&state[range]);
            }
        }
        Ok(out)
    }

    /// One chunk of the state, checked.
    fn chunk<'a>(&self, index: u64, into: &'a mut [u8]) -> Result<&'a [u8], SnapshotError> {
        let before = index * CHUNK_BYTES as u64;
        let len = (self.mark.length - before).min(CHUNK_BYTES as u64);
        let len = usize::try_from(len).expect("a chunk is small");
        let (offset, crc_bytes) = match &self.table {
            Some(table) => (table.start + before, 0),
            None => (offset_of(index), CRC_BYTES),
        };
        let into = &mut into[..crc_bytes + len];
        let read = self.file.read_at(offset, into).map_err(io_error(&self.path))?;
        if read < into.len() {
            return Err(self.damaged(offset, "the file is cut short"));
        }
        let (crc, state) = into.split_at(crc_bytes);
        let good = match &self.table {
            Some(table) => {
                let at = usize::try_from(index).unwrap_or(usize::MAX) * CRC_BYTES;
                crc32fast::hash(state).to_le_bytes() == table.crcs[at..at + CRC_BYTES]
            }
            None => chunk_crc(self.mark.step, index, state).to_le_bytes() == crc,
        };
        if good {
            Ok(state)
        } else {
            Err(self.damaged(offset, "a chunk's checksum does not match"))
        }
    }

    /// Reads the footer: its place follows from the length of the file, and must from its content.
    fn find_end(&mut self) -> Result<(), SnapshotError> {
        let len = self.file.len().map_err(io_error(&self.path))?;
        let at = len.saturating_sub(FOOTER_BYTES as u64);
        let mut bytes = [0; FOOTER_BYTES];
        let read = self.file.read_at(at, &mut bytes).map_err(io_error(&self.path))?;
        let (length, digest) = (long(&bytes[..8]), word(&bytes[8..12]));
        if read < FOOTER_BYTES || bytes != footer(length, digest) {
            return Err(self.damaged(at, "the end is damaged or missing"));
        }
        let rest = length % CHUNK_BYTES as u64;
        let rest = if rest == 0 { 0 } else { CRC_BYTES as u64 + rest };
        if offset_of(length / CHUNK_BYTES as u64).checked_add(rest) != Some(at) {
            return Err(self.damaged(at, "the file is cut short or too long"));
        }
        self.mark = Mark { length, digest, ..self.mark };
        Ok(())
    }

    /// The layout before this one: magic | crc | chunk u32 | step | length | table crc | 0 u32, and a
    /// table of checksums, of which that of the table serves as digest.
    fn open_old(&mut self, head: &[u8]) -> Result<(), SnapshotError> {
        let whole =
            head.len() == OLD_HEADER_BYTES && word(&head[8..]) == crc32fast::hash(&head[12..]);
        if !whole
            || word(&head[12..]) as usize != CHUNK_BYTES
            || long(&head[16..]) != self.mark.step
        {
            return Err(self.damaged(0, "the header is damaged, or of another step"));
        }
        let (length, digest) = (long(&head[24..]), word(&head[32..]));
        let chunks = usize::try_from(length.div_ceil(CHUNK_BYTES as u64)).unwrap_or(usize::MAX);
        let table_bytes = chunks.saturating_mul(CRC_BYTES);
        let start = OLD_HEADER_BYTES as u64 + table_bytes as u64;
        if start.checked_add(length) != self.file.len().ok() {
            return Err(self.damaged(0, "the file is cut short or too long"));
        }
        let mut crcs = vec![0; table_bytes];
        self.file.read_at(OLD_HEADER_BYTES as u64, &mut crcs).map_err(io_error(&self.path))?;
        if crc32fast::hash(&crcs) != digest {
            return Err(self.damaged(OLD_HEADER_BYTES as u64, "the table of checksums is damaged"));
        }
        self.mark = Mark { length, digest, ..self.mark };
        self.table = Some(Table { crcs, start });
        Ok(())
    }

    fn damaged(&self, offset: u64, reason: &'static str) -> SnapshotError {
        SnapshotError::Damaged { file: self.path.clone(), offset, reason }
    }
}

fn word(bytes: &[u8]) -> u32 {
    u32::from_le_bytes(bytes[..4].try_into().expect("four"))
}

fn long(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(bytes[..8].try_into().expect("eight"))
}

const OLD_MAGIC: [u8; 8] = *b"synodsn\x01";
const OLD_HEADER_BYTES: usize = 40;
