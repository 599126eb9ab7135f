//! A few words that must never be lost, in two checksummed slots of one file.
//!
//! ```text
//! slot = magic u64 | crc u32 | length u32 | generation u64 | words      4 KiB each, two of them
//! ```
//! A write goes to one slot, is synced, and then goes to the other. So a crash hurts at most the
//! slot being written, and later damage to either slot is healed from the other. That costs a
//! second sync, which words written this rarely can afford.

use std::{
    fmt, io,
    path::{Path, PathBuf},
};

use crate::world::{Disk, disk::DiskFile};

/// Most bytes that fit: one slot less its header.
pub const SLOT_WORDS_BYTES_MAX: usize = SLOT_BYTES - HEADER_BYTES;

/// Nothing a disk writes at once is larger, so the slots never share a fate.
const SLOT_BYTES: usize = 4096;
const HEADER_BYTES: usize = 24;
/// The last byte is the version of this layout.
const MAGIC: [u8; 8] = *b"synodsl\x01";

/// Why slots cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum SlotsError {
    /// The disk refuses. After a failed write either words may be found; do not use the slots
    /// again in this process.
    #[error("{file}: {source}")]
    Io {
        /// The file.
        file: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Both slots are damaged. Nothing was changed.
    #[error(
        "{file}: both slots are damaged: this node has forgotten what it may have promised. Put \
         its data directory aside and start it with an empty one, so that it rejoins as a new node"
    )]
    LostMemory {
        /// The file.
        file: PathBuf,
    },
    /// Nothing was written.
    #[error("{bytes} bytes do not fit into a slot of {SLOT_WORDS_BYTES_MAX}")]
    TooLarge {
        /// What was to be written.
        bytes: usize,
    },
    /// An earlier write failed; nothing was written.
    #[error("{file}: an earlier write failed")]
    Failed {
        /// The file.
        file: PathBuf,
    },
}

/// The open file. Calls block.
pub struct Slots {
    path: PathBuf,
    file: Box<dyn DiskFile>,
    generation: u64,
    words: Option<Vec<u8>>,
    failed: bool,
}

impl Slots {
    /// What one [`Slots::write`] writes.
    pub const WRITE_BYTES: u64 = 2 * SLOT_BYTES as u64;

    /// And how often it syncs.
    pub const WRITE_SYNCS: u64 = 2;

    /// The words in the file at `path`, which is not changed.
    ///
    /// # Errors
    /// As [`Slots::open`].
    pub fn look(disk: &dyn Disk, path: &Path) -> Result<Option<Vec<u8>>, SlotsError> {
        let failed = |source| SlotsError::Io { file: path.to_path_buf(), source };
        let file = disk.open(path, false).map_err(failed)?;
        let mut bytes = vec![0; 2 * SLOT_BYTES];
        file.read_at(0, &mut bytes).map_err(failed)?;
        Ok(find(path, &bytes)?.map(|(_, words)| words))
    }

    /// Opens the file at `path`, or makes it with nothing in it. Heals a damaged slot.
    ///
    /// # Errors
    /// [`SlotsError::LostMemory`] or [`SlotsError::Io`].
    pub fn open(disk: &dyn Disk, path: &Path) -> Result<Self, SlotsError> {
        let failed = |source| SlotsError::Io { file: path.to_path_buf(), source };
        let file = disk.open(path, true).map_err(failed)?;
        let mut bytes = vec![0; 2 * SLOT_BYTES];
        file.read_at(0, &mut bytes).map_err(failed)?;
        let found = find(path, &bytes)?;
        let path = path.to_path_buf();
        let Some((generation, words)) = found else {
            let mut slots = Self { path, file, generation: 0, words: None, failed: false };
            slots.make(disk).map_err(failed_at(&slots.path))?;
            return Ok(slots);
        };
        let mut slots = Self { path, file, generation, words: Some(words), failed: false };
        if bytes[..SLOT_BYTES] != bytes[SLOT_BYTES..] {
            slots.put().map_err(failed_at(&slots.path))?;
        }
        Ok(slots)
    }

    /// Writes `words` over what was there; durable when this answers.
    ///
    /// # Errors
    /// [`SlotsError::TooLarge`], [`SlotsError::Failed`] or [`SlotsError::Io`].
    pub fn write(&mut self, words: &[u8]) -> Result<(), SlotsError> {
        if words.len() > SLOT_WORDS_BYTES_MAX {
            return Err(SlotsError::TooLarge { bytes: words.len() });
        }
        if self.failed {
            return Err(SlotsError::Failed { file: self.path.clone() });
        }
        self.generation += 1;
        self.words = Some(words.to_vec());
        self.put().map_err(|source| {
            self.failed = true;
            SlotsError::Io { file: self.path.clone(), source }
        })
    }

    /// The words last written, in this process or before; `None` when there never were any.
    pub fn read(&self) -> Option<Vec<u8>> {
        self.words.clone()
    }

    fn make(&mut self, disk: &dyn Disk) -> io::Result<()> {
        self.file.set_len(0)?;
        self.file.set_len(2 * SLOT_BYTES as u64)?;
        self.file.sync_data()?;
        disk.sync_dir(self.path.parent().unwrap_or_else(|| Path::new(".")))
    }

    /// Writes the present words to both slots, one after the other is durable.
    fn put(&mut self) -> io::Result<()> {
        let slot = encode(self.generation, self.words.as_deref().unwrap_or_default());
        for offset in [0, SLOT_BYTES as u64] {
            self.file.write_at(offset, &slot)?;
            self.file.sync_data()?;
        }
        Ok(())
    }
}

impl fmt::Debug for Slots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, generation, .. } = self;
        write!(f, "Slots({}, generation {generation})", path.display())
    }
}

/// The newest words of both slots; none when nobody was ever told of any.
fn find(path: &Path, bytes: &[u8]) -> Result<Option<(u64, Vec<u8>)>, SlotsError> {
    let (first, second) = bytes.split_at(SLOT_BYTES);
    Ok(match (decode(first), decode(second)) {
        (Some(first), Some(second)) => Some(if first.0 >= second.0 { first } else { second }),
        (None, None) => {
            // The first slot is written first: damage in it alone is a first write that never
            // finished, and of which nobody was told.
            if second.iter().any(|byte| *byte != 0) {
                return Err(SlotsError::LostMemory { file: path.to_path_buf() });
            }
            None
        }
        (found, None) | (None, found) => found,
    })
}

fn failed_at(path: &Path) -> impl FnOnce(io::Error) -> SlotsError {
    let file = path.to_path_buf();
    move |source| SlotsError::Io { file, source }
}

fn encode(generation: u64, words: &[u8]) -> Vec<u8> {
    let length = u32::try_from(words.len()).expect("checked against SLOT_WORDS_BYTES_MAX");
    let mut slot = vec![0; SLOT_BYTES];
    slot[..8].copy_from_slice(&MAGIC);
    slot[12..16].copy_from_slice(&length.to_le_bytes());
    slot[16..24].copy_from_slice(&generation.to_le_bytes());
    slot[24..24 + words.len()].copy_from_slice(words);
    let crc = crc32fast::hash(&slot[12..]);
    slot[8..12].copy_from_slice(&crc.to_le_bytes());
    slot
}

fn decode(slot: &[u8]) -> Option<(u64, Vec<u8>)> {
    let crc = u32::from_le_bytes(slot[8..12].try_into().expect("four bytes"));
    if slot[..8] != MAGIC || crc != crc32fast::hash(&slot[12..]) {
        return None;
    }
    let length = u32::from_le_bytes(slot[12..16].try_into().expect("four bytes"));
    let generation = u64::from_le_bytes(slot[16..24].try_into().expect("eight bytes"));
    let words = slot[HEADER_BYTES..].get(..usize::try_from(length).ok()?)?;
    Some((generation, words.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::disk::fake::FakeDisk;

    fn open(disk: &FakeDisk) -> Result<Slots, SlotsError> {
        Slots::open(disk, Path::new("/d/slots"))
    }

    #[test]
    fn the_last_words_are_found_again() {
        let disk = FakeDisk::default();
        let mut slots = open(&disk).unwrap();
        assert_eq!(slots.read(), None);
        for words in [&b"one"[..], b"", b"three"] {
            slots.write(words).unwrap();
            disk.crash(|| false);
            slots = open(&disk).unwrap();
            assert_eq!(slots.read().unwrap(), words);
        }
        let large = vec![0; SLOT_WORDS_BYTES_MAX + 1];
        assert!(matches!(slots.write(&large), Err(SlotsError::TooLarge { .. })));
        slots.write(&large[1..]).unwrap();
        assert_eq!(open(&disk).unwrap().read().unwrap(), &large[1..]);
    }

    #[test]
    fn a_crash_anywhere_leaves_the_old_words_or_the_new() {
        for (operations, keep) in (0..4).flat_map(|n| [(n, true), (n, false)]) {
            let disk = FakeDisk::default();
            let mut slots = open(&disk).unwrap();
            slots.write(&[1; 3000]).unwrap();
            disk.refuse_after(operations);
            let told = slots.write(&[2; 3000]).is_ok();
            let mut sectors = 0;
            disk.crash(|| {
                sectors += 1;
                keep == (sectors % 2 == 0)
            });
            let found = open(&disk).unwrap().read().unwrap();
            assert!(found == [2; 3000] || (!told && found == [1; 3000]), "after {operations}");
        }
    }

    #[test]
    fn any_damage_to_one_slot_is_healed_and_to_both_is_refused() {
        let disk = FakeDisk::default();
        open(&disk).unwrap().write(b"floor 7").unwrap();
        for byte in 0..2 * SLOT_BYTES {
            let disk = disk.copy();
            disk.edit(Path::new("/d/slots"), |bytes| bytes[byte] ^= 4);
            assert_eq!(open(&disk).unwrap().read().unwrap(), b"floor 7", "byte {byte}");
            let other = (byte + SLOT_BYTES) % (2 * SLOT_BYTES);
            disk.edit(Path::new("/d/slots"), |bytes| bytes[other] ^= 4);
            assert_eq!(open(&disk).unwrap().read().unwrap(), b"floor 7", "byte {byte} healed");
        }
        disk.edit(Path::new("/d/slots"), |bytes| {
            bytes[30] ^= 1;
            bytes[30 + SLOT_BYTES] ^= 1;
        });
        assert!(matches!(open(&disk), Err(SlotsError::LostMemory { .. })));
    }

    #[test]
    fn a_failed_write_latches() {
        let disk = FakeDisk::default();
        let mut slots = open(&disk).unwrap();
        disk.set_sync_fails(true);
        assert!(matches!(slots.write(b"a"), Err(SlotsError::Io { .. })));
        disk.set_sync_fails(false);
        assert!(matches!(slots.write(b"a"), Err(SlotsError::Failed { .. })));
    }
}
