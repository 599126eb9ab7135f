//! Writing a snapshot part by part.

use std::{
    io,
    path::{Path, PathBuf},
};

use super::{
    CHUNK_BYTES, CRC_BYTES, HEADER_BYTES, Mark, SNAPSHOTS_KEPT, SnapshotError, chunk_crc, footer,
    header, io_error, offset_of, path_of, step_of, steps,
};
use crate::world::{Disk, disk::DiskFile};

/// A snapshot that is being written. Dropped before it is finished it leaves a file that is never
/// read, and that the next writer of that name writes over.
#[derive(Debug)]
pub struct Writer {
    file: Box<dyn DiskFile>,
    dir: PathBuf,
    unfinished: PathBuf,
    step: u64,
    /// Of the state; all but what is in `chunk` is in the file.
    length: u64,
    digest: crc32fast::Hasher,
    /// The beginning of the next chunk, behind room for its checksum.
    chunk: Vec<u8>,
    /// Bytes written since the last sync.
    unsynced: usize,
}

impl Writer {
    /// Begins the snapshot of the state after `step` in `dir`, as a file called `unfinished` until
    /// it is whole. Writers that may be at work at once need different names. Blocks.
    ///
    /// # Errors
    /// [`SnapshotError::Io`].
    pub fn begin(
        disk: &dyn Disk,
        dir: &Path,
        step: u64,
        unfinished: &str,
    ) -> Result<Self, SnapshotError> {
        disk.create_dir_all(dir).map_err(io_error(dir))?;
        let unfinished = dir.join(unfinished);
        let mut file = disk.open(&unfinished, true).map_err(io_error(&unfinished))?;
        let begun = file.set_len(0).and_then(|()| file.write_at(0, &header(step)));
        begun.map_err(|error| failed(disk, dir, &unfinished, step, error))?;
        let digest = crc32fast::Hasher::new();
        let chunk = vec![0; CRC_BYTES];
        Ok(Self {
            file,
            dir: dir.to_path_buf(),
            unfinished,
            step,
            length: 0,
            digest,
            chunk,
            unsynced: 0,
        })
    }

    /// Goes on where an earlier writer of that name was, of a process that is gone: with what of its
    /// file is good. None if there is nothing. Blocks.
    ///
    /// # Errors
    /// [`SnapshotError::Io`].
    pub fn resume(
        disk: &dyn Disk,
        dir: &Path,
        unfinished: &str,
    ) -> Result<Option<Self>, SnapshotError> {
        let unfinished = dir.join(unfinished);
        let mut file = match disk.open(&unfinished, false) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file.map_err(io_error(&unfinished))?,
        };
        let mut head = [0; HEADER_BYTES];
        let read = file.read_at(0, &mut head).map_err(io_error(&unfinished))?;
        let step = step_of(&head);
        if read < HEADER_BYTES || head != header(step) {
            return Ok(None);
        }
        let (mut length, mut digest) = (0, crc32fast::Hasher::new());
        let mut chunk = vec![0; CRC_BYTES + CHUNK_BYTES];
        loop {
            let index = length / CHUNK_BYTES as u64;
            let read = file.read_at(offset_of(index), &mut chunk).map_err(io_error(&unfinished))?;
            let (crc, state) = chunk.split_at(CRC_BYTES);
            if read < chunk.len() || chunk_crc(step, index, state).to_le_bytes() != crc {
                break;
            }
            digest.update(crc);
            length += CHUNK_BYTES as u64;
        }
        let end = offset_of(length / CHUNK_BYTES as u64);
        file.set_len(end).map_err(io_error(&unfinished))?;
        chunk.truncate(CRC_BYTES);
        let dir = dir.to_path_buf();
        Ok(Some(Self { file, dir, unfinished, step, length, digest, chunk, unsynced: 0 }))
    }

    /// Appends a part of the state, of any size. Blocks.
    ///
    /// # Errors
    /// [`SnapshotError::Io`]: then the unfinished file is gone, and the writer is of no more use.
    pub fn part(&mut self, disk: &dyn Disk, mut bytes: &[u8]) -> Result<(), SnapshotError> {
        while !bytes.is_empty() {
            let room = CRC_BYTES + CHUNK_BYTES - self.chunk.len();
            let (now, rest) = bytes.split_at(room.min(bytes.len()));
            self.chunk.extend_from_slice(now);
            self.length += now.len() as u64;
            bytes = rest;
            if self.chunk.len() == CRC_BYTES + CHUNK_BYTES {
                self.flush().map_err(|error| self.failed(disk, error))?;
            }
        }
        Ok(())
    }

    /// Bytes of the state so far.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// The last step of the state.
    pub fn step(&self) -> u64 {
        self.step
    }

    /// Makes the snapshot durable under its name, and removes all but the [`SNAPSHOTS_KEPT`]
    /// newest. Blocks.
    ///
    /// # Errors
    /// [`SnapshotError::Io`], and [`SnapshotError::Damaged`] if a `digest` was to come out of it and
    /// did not: then it is not there, and the unfinished file is gone.
    pub fn finish(mut self, disk: &dyn Disk, wanted: Option<u32>) -> Result<Mark, SnapshotError> {
        let digest = self.end().map_err(|error| self.failed(disk, error))?;
        if wanted.is_some_and(|wanted| wanted != digest) {
            let reason = "it is another state than the one that was to be written";
            let file = self.unfinished;
            disk.remove(&file).map_err(io_error(&file))?;
            return Err(SnapshotError::Damaged { file, offset: 0, reason });
        }
        let path = path_of(&self.dir, self.step);
        let named = disk.rename(&self.unfinished, &path);
        named.map_err(|error| self.failed(disk, error))?;
        for step in steps(disk, &self.dir)?.iter().rev().skip(SNAPSHOTS_KEPT) {
            let path = path_of(&self.dir, *step);
            disk.remove(&path).map_err(io_error(&path))?;
        }
        Ok(Mark { step: self.step, length: self.length, digest })
    }

    fn end(&mut self) -> io::Result<u32> {
        let mut end = offset_of(self.length / CHUNK_BYTES as u64);
        if self.chunk.len() > CRC_BYTES {
            end += self.chunk.len() as u64;
            self.flush()?;
        }
        let digest = self.digest.clone().finalize();
        self.file.write_at(end, &footer(self.length, digest))?;
        self.file.sync_data()?;
        Ok(digest)
    }

    /// Writes the chunk that is full, or the last one.
    fn flush(&mut self) -> io::Result<()> {
        let index = (self.length - 1) / CHUNK_BYTES as u64;
        let crc = chunk_crc(self.step, index, &self.chunk[CRC_BYTES..]).to_le_bytes();
        self.chunk[..CRC_BYTES].copy_from_slice(&crc);
        self.digest.update(&crc);
        self.file.write_at(offset_of(index), &self.chunk)?;
        self.unsynced += self.chunk.len();
        if self.unsynced >= SYNC_EVERY_BYTES {
            self.unsynced = 0;
            self.file.sync_data()?;
        }
        self.chunk.truncate(CRC_BYTES);
        Ok(())
    }

    fn failed(&self, disk: &dyn Disk, error: io::Error) -> SnapshotError {
        failed(disk, &self.dir, &self.unfinished, self.step, error)
    }
}

/// A disk that is given gigabytes at once lets the journal beside them wait for seconds.
const SYNC_EVERY_BYTES: usize = 4 * 1024 * 1024;

fn failed(
    disk: &dyn Disk,
    dir: &Path,
    unfinished: &Path,
    step: u64,
    source: io::Error,
) -> SnapshotError {
    // A full disk wants its space back; if even this fails, the next writer will find it.
    let _ = disk.remove(unfinished);
    SnapshotError::Io { file: path_of(dir, step), source }
}
