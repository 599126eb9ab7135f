//! Snapshots: whole states as files, so that the journal before them can go.
//!
//! ```text
//! snapshot-<step> = magic u64 | crc u32 | chunk u32 | step u64 | 0 u64
//!                   | chunks: { crc u32 | CHUNK_BYTES of the state, the last fewer }
//!                   | length u64 | digest u32 | crc u32
//! ```
//! A snapshot is written part by part under a temporary name, synced and renamed: a file called a
//! snapshot was whole once. Each chunk has its own checksum, over its step and place too, so that
//! damage is found and placed, and a part can be read without the rest. Nobody holds a state in
//! memory for it: see [`Writer`] and [`Reader`].

mod reader;
mod scrub;
#[cfg(test)]
mod tests;
mod writer;

use std::{
    io,
    path::{Path, PathBuf},
};

use crate::world::Disk;

pub use self::{reader::Reader, scrub::Scrub, writer::Writer};

/// Snapshots kept: the newest, and the one before in case the newest is damaged, or a peer is
/// still fetching it.
pub const SNAPSHOTS_KEPT: usize = 2;

/// Bytes under one checksum.
pub const CHUNK_BYTES: usize = 64 * 1024;

const HEADER_BYTES: usize = 32;
const FOOTER_BYTES: usize = 16;
const CRC_BYTES: usize = 4;
/// The last byte is the version of this layout.
const MAGIC: [u8; 8] = *b"synodsn\x02";
const PREFIX: &str = "snapshot-";

/// A state as it was after a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// The last step it contains.
    pub step: u64,
    /// The state, as whoever wrote it encoded it.
    pub bytes: Vec<u8>,
}

/// What a snapshot is known by. Two with equal marks hold the same state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// The last step it contains.
    pub step: u64,
    /// Bytes of the state.
    pub length: u64,
    /// CRC-32 over the checksums of all chunks.
    pub digest: u32,
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

/// Writes the state after `step` into `dir`, as [`Writer`] does. Blocks. Durable when this answers.
///
/// # Errors
/// [`SnapshotError::Io`].
pub fn write(disk: &dyn Disk, dir: &Path, step: u64, bytes: &[u8]) -> Result<Mark, SnapshotError> {
    let mut writer = Writer::begin(disk, dir, step, "unfinished-snapshot")?;
    writer.part(disk, bytes)?;
    writer.finish(disk, None)
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

/// Reads the snapshot of exactly this step, whole. Blocks.
///
/// # Errors
/// [`SnapshotError::Io`], also when there is none; [`SnapshotError::Damaged`].
pub fn read(disk: &dyn Disk, dir: &Path, step: u64) -> Result<Snapshot, SnapshotError> {
    let reader = Reader::open(disk, dir, step)?;
    let length = usize::try_from(reader.mark().length);
    let bytes = reader.read(0, length.expect("a state that fitted in memory fits again"))?;
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

/// The checksum of a chunk: one that stands at another place, or in another file, is damaged.
fn chunk_crc(step: u64, index: u64, bytes: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&step.to_le_bytes());
    crc.update(&index.to_le_bytes());
    crc.update(bytes);
    crc.finalize()
}

/// Where in the file a chunk begins, with its checksum.
const fn offset_of(index: u64) -> u64 {
    HEADER_BYTES as u64 + index * (CRC_BYTES + CHUNK_BYTES) as u64
}

fn header(step: u64) -> [u8; HEADER_BYTES] {
    let mut bytes = [0; HEADER_BYTES];
    let chunk = u32::try_from(CHUNK_BYTES).expect("a small constant");
    bytes[..8].copy_from_slice(&MAGIC);
    bytes[12..16].copy_from_slice(&chunk.to_le_bytes());
    bytes[16..24].copy_from_slice(&step.to_le_bytes());
    let crc = crc32fast::hash(&bytes[12..]);
    bytes[8..12].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// The step that a header names.
fn step_of(header: &[u8; HEADER_BYTES]) -> u64 {
    u64::from_le_bytes(header[16..24].try_into().expect("eight"))
}

fn footer(length: u64, digest: u32) -> [u8; FOOTER_BYTES] {
    let mut bytes = [0; FOOTER_BYTES];
    bytes[..8].copy_from_slice(&length.to_le_bytes());
    bytes[8..12].copy_from_slice(&digest.to_le_bytes());
    let crc = crc32fast::hash(&bytes[..12]);
    bytes[12..].copy_from_slice(&crc.to_le_bytes());
    bytes
}
