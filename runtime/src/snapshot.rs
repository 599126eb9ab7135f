//! Snapshots: whole states as files, so that the journal before them can go.
//!
//! ```text
//! snapshot-<step> = magic u64 | crc u32 | chunk u32 | step u64 | length u64 | table crc u32 | 0 u32
//!                   | table: one CRC-32 per chunk | the bytes
//! ```
//! A snapshot is written under a temporary name, synced and renamed: a file called a snapshot was
//! whole once. Each chunk has its own checksum, so that damage is found and placed.

use std::{
    io,
    path::{Path, PathBuf},
};

use crate::world::{Disk, disk::DiskFile};

/// Snapshots kept: the newest, and the one before in case the newest is damaged.
pub const SNAPSHOTS_KEPT: usize = 2;

/// Bytes under one checksum, and of one write.
pub const CHUNK_BYTES: usize = 64 * 1024;

const HEADER_BYTES: usize = 40;
/// The last byte is the version of this layout.
const MAGIC: [u8; 8] = *b"synodsn\x01";
const PREFIX: &str = "snapshot-";
/// Never read; a crash may leave it.
const UNFINISHED: &str = "unfinished-snapshot";

/// A state as it was after a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// The last step it contains.
    pub step: u64,
    /// The state, as whoever wrote it encoded it.
    pub bytes: Vec<u8>,
}

/// What [`newest`] found.
#[derive(Debug, Default)]
pub struct Newest {
    /// The newest good snapshot.
    pub snapshot: Option<Snapshot>,
    /// Newer ones that are damaged: worth a loud word, and a fresh snapshot.
    pub damaged: Vec<SnapshotError>,
}

/// Why a snapshot cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The disk refuses. After a failed write the older snapshots are as they were.
    #[error("{file}: {source}")]
    Io {
        /// The file or directory.
        file: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// What was written is no longer there. Nothing was changed.
    #[error("{file}: {reason} (at byte {offset})")]
    Damaged {
        /// The file.
        file: PathBuf,
        /// Where.
        offset: u64,
        /// What is wrong there.
        reason: &'static str,
    },
}

/// Writes the state after `step` into `dir`, and removes all but the [`SNAPSHOTS_KEPT`] newest.
/// Blocks. Durable when this answers.
///
/// # Errors
/// [`SnapshotError::Io`].
pub fn write(disk: &dyn Disk, dir: &Path, step: u64, bytes: &[u8]) -> Result<(), SnapshotError> {
    disk.create_dir_all(dir).map_err(io_error(dir))?;
    let unfinished = dir.join(UNFINISHED);
    let path = path_of(dir, step);
    let written = write_file(disk, &unfinished, step, bytes);
    if let Err(source) = written.and_then(|()| disk.rename(&unfinished, &path)) {
        // A full disk wants its space back; if even this fails, the next write will find it.
        let _ = disk.remove(&unfinished);
        return Err(SnapshotError::Io { file: path, source });
    }
    let steps = steps(disk, dir)?;
    for step in steps.iter().rev().skip(SNAPSHOTS_KEPT) {
        let path = path_of(dir, *step);
        disk.remove(&path).map_err(io_error(&path))?;
    }
    Ok(())
}

/// Reads the newest snapshot that is whole. Blocks.
///
/// # Errors
/// [`SnapshotError::Io`] when the directory cannot be read; a file that cannot be read counts as
/// damaged.
pub fn newest(disk: &dyn Disk, dir: &Path) -> Result<Newest, SnapshotError> {
    let mut newest = Newest::default();
    for step in steps(disk, dir)?.into_iter().rev() {
        match read(disk, dir, step) {
            Ok(snapshot) => {
                newest.snapshot = Some(snapshot);
                break;
            }
            Err(error) => newest.damaged.push(error),
        }
    }
    Ok(newest)
}

/// Reads the snapshot of exactly this step. Blocks.
///
/// # Errors
/// [`SnapshotError::Io`], also when there is none; [`SnapshotError::Damaged`].
pub fn read(disk: &dyn Disk, dir: &Path, step: u64) -> Result<Snapshot, SnapshotError> {
    let path = path_of(dir, step);
    let file = disk.open(&path, false).map_err(io_error(&path))?;
    let damaged = |offset: usize, reason| {
        Err(SnapshotError::Damaged { file: path.clone(), offset: offset as u64, reason })
    };
    let len = usize::try_from(file.len().map_err(io_error(&path))?);
    let mut bytes = vec![0; len.expect("a state that fitted in memory fits again")];
    let read = file.read_at(0, &mut bytes).map_err(io_error(&path))?;
    bytes.truncate(read);
    let Some(header) = Header::decode(&bytes) else {
        return damaged(0, "the header is damaged");
    };
    if header.step != step {
        return damaged(16, "the header is of another step");
    }
    let length = usize::try_from(header.length).unwrap_or(usize::MAX);
    let start = HEADER_BYTES + table_bytes(length);
    if bytes.len().checked_sub(start) != Some(length) {
        return damaged(bytes.len(), "the file is cut short or too long");
    }
    let table = &bytes[HEADER_BYTES..start];
    if crc32fast::hash(table) != header.table_crc {
        return damaged(HEADER_BYTES, "the table of checksums is damaged");
    }
    let chunks = bytes[start..].chunks(CHUNK_BYTES);
    for (index, (chunk, crc)) in chunks.zip(table.chunks(4)).enumerate() {
        if crc32fast::hash(chunk).to_le_bytes() != crc {
            return damaged(start + index * CHUNK_BYTES, "a chunk's checksum does not match");
        }
    }
    bytes.drain(..start);
    Ok(Snapshot { step, bytes })
}

/// The steps of all snapshots in `dir`, oldest first, damaged ones included; none when there is
/// no such directory. Blocks.
///
/// # Errors
/// [`SnapshotError::Io`].
pub fn steps(disk: &dyn Disk, dir: &Path) -> Result<Vec<u64>, SnapshotError> {
    let names = match disk.list(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        names => names.map_err(io_error(dir))?,
    };
    let digits = names.iter().filter_map(|name| name.strip_prefix(PREFIX));
    let mut steps: Vec<u64> = digits.filter_map(|digits| digits.parse().ok()).collect();
    steps.sort_unstable();
    Ok(steps)
}

fn path_of(dir: &Path, step: u64) -> PathBuf {
    dir.join(format!("{PREFIX}{step:020}"))
}

fn io_error(file: &Path) -> impl FnOnce(io::Error) -> SnapshotError {
    let file = file.to_path_buf();
    move |source| SnapshotError::Io { file, source }
}

const fn table_bytes(length: usize) -> usize {
    length.div_ceil(CHUNK_BYTES) * 4
}

fn write_file(disk: &dyn Disk, path: &Path, step: u64, bytes: &[u8]) -> io::Result<()> {
    let mut file: Box<dyn DiskFile> = disk.open(path, true)?;
    file.set_len(0)?;
    let mut table = Vec::with_capacity(table_bytes(bytes.len()));
    for chunk in bytes.chunks(CHUNK_BYTES) {
        table.extend_from_slice(&crc32fast::hash(chunk).to_le_bytes());
    }
    let table_crc = crc32fast::hash(&table);
    let header = Header { step, length: bytes.len() as u64, table_crc };
    let mut head = header.encode().to_vec();
    head.extend_from_slice(&table);
    file.write_at(0, &head)?;
    let mut offset = head.len() as u64;
    for chunk in bytes.chunks(CHUNK_BYTES) {
        file.write_at(offset, chunk)?;
        offset += chunk.len() as u64;
    }
    file.sync_data()
}

struct Header {
    step: u64,
    length: u64,
    table_crc: u32,
}

impl Header {
    fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        let chunk = u32::try_from(CHUNK_BYTES).expect("a small constant");
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[12..16].copy_from_slice(&chunk.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.step.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.length.to_le_bytes());
        bytes[32..36].copy_from_slice(&self.table_crc.to_le_bytes());
        let crc = crc32fast::hash(&bytes[12..]);
        bytes[8..12].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.get(..HEADER_BYTES)?;
        let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four"));
        let long = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight"));
        let whole = bytes[..8] == MAGIC && word(8) == crc32fast::hash(&bytes[12..]);
        let known = whole && word(12) as usize == CHUNK_BYTES;
        known.then(|| Self { step: long(16), length: long(24), table_crc: word(32) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::disk::{RealDisk, fake::FakeDisk};

    const DIR: &str = "/snapshots";

    fn put(disk: &FakeDisk, step: u64, bytes: &[u8]) -> Result<(), SnapshotError> {
        write(disk, Path::new(DIR), step, bytes)
    }

    fn found(disk: &FakeDisk) -> Option<Snapshot> {
        newest(disk, Path::new(DIR)).unwrap().snapshot
    }

    fn state(len: usize) -> Vec<u8> {
        (0..len).map(|index| index.to_le_bytes()[index % 3]).collect()
    }

    #[test]
    fn the_newest_is_found_and_two_are_kept() {
        let disk = FakeDisk::default();
        assert_eq!(found(&disk), None);
        for (step, len) in [(7, 0), (80, 1), (900, CHUNK_BYTES), (1000, 3 * CHUNK_BYTES + 5)] {
            put(&disk, step, &state(len)).unwrap();
            disk.crash(|| false);
            assert_eq!(found(&disk), Some(Snapshot { step, bytes: state(len) }));
        }
        assert_eq!(steps(&disk, Path::new(DIR)).unwrap(), [900, 1000]);
        let files = disk.list(Path::new(DIR)).unwrap();
        assert_eq!(files, ["snapshot-00000000000000000900", "snapshot-00000000000000001000"]);
    }

    #[test]
    fn damage_is_placed_and_the_one_before_is_used() {
        let disk = FakeDisk::default();
        put(&disk, 1, b"old").unwrap();
        put(&disk, 2, &state(CHUNK_BYTES + 100)).unwrap();
        let path = path_of(Path::new(DIR), 2);
        let len = HEADER_BYTES + 8 + CHUNK_BYTES + 100;
        for byte in (0..200).chain(HEADER_BYTES + 8 + CHUNK_BYTES..len) {
            let disk = disk.copy();
            disk.edit(&path, |bytes| bytes[byte] ^= 1 << (byte % 8));
            let newest = newest(&disk, Path::new(DIR)).unwrap();
            assert_eq!(newest.snapshot.unwrap().bytes, b"old", "byte {byte}");
            let SnapshotError::Damaged { file, offset, .. } = &newest.damaged[0] else {
                panic!("byte {byte}: {:?}", newest.damaged)
            };
            assert!(*file == path && *offset <= byte as u64, "byte {byte}");
        }
        for len in [0, 1, HEADER_BYTES, HEADER_BYTES + 7, CHUNK_BYTES, len - 1] {
            let disk = disk.copy();
            disk.edit(&path, |bytes| bytes.truncate(len));
            assert_eq!(found(&disk).unwrap().step, 1, "cut to {len}");
        }
    }

    #[test]
    fn a_crash_anywhere_leaves_the_old_or_the_new() {
        for operations in 0..16 {
            let disk = FakeDisk::default();
            put(&disk, 1, b"one").unwrap();
            put(&disk, 2, b"two").unwrap();
            disk.refuse_after(operations);
            let told = put(&disk, 3, &state(CHUNK_BYTES + 1)).is_ok();
            let mut sectors = 0;
            disk.crash(|| {
                sectors += 1;
                sectors % 3 != 0
            });
            let step = found(&disk).unwrap().step;
            assert!(step == 3 || (!told && step == 2), "after {operations}: {step}");
            put(&disk, 4, b"four").unwrap();
            assert_eq!(found(&disk).unwrap().step, 4);
        }
    }

    #[test]
    fn a_full_disk_keeps_the_old_and_no_rest() {
        let disk = FakeDisk::default();
        put(&disk, 1, b"one").unwrap();
        let used = disk.used();
        disk.set_capacity(Some(used + 100_000));
        let failed = put(&disk, 2, &state(200_000)).unwrap_err();
        assert!(failed.to_string().contains("snapshot-00000000000000000002"), "{failed}");
        assert_eq!(disk.used(), used);
        assert_eq!(found(&disk).unwrap().step, 1);
    }

    #[test]
    fn a_real_disk_keeps_snapshots_too() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("snapshots");
        for step in 1..4 {
            write(&RealDisk, &dir, step, &state(100_000)).unwrap();
        }
        let newest = newest(&RealDisk, &dir).unwrap();
        assert_eq!(newest.snapshot, Some(Snapshot { step: 3, bytes: state(100_000) }));
    }
}
