//! An object as files in a directory that several machines have mounted.
//!
//! ```text
//! lock                 held while the object is replaced
//! object               magic u64 | crc u32 | 0 u32 | version u64 | bytes
//! beat-NODE            count u64
//! ```
//! The file system must honour locks and renames between the machines, and a name must lead to the
//! newest file as soon as a rename is done (a disk of one machine, CephFS, OCFS2, NFS 4 mounted with
//! `noac,lookupcache=none`).

use std::{fmt, io, path::PathBuf, sync::Arc};

use synod_runtime::{
    identity::NodeName,
    world::disk::{Disk, LockError},
};

use super::SharedObject;

/// See the module's documentation.
#[derive(Clone)]
pub struct FileObject {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
}

impl FileObject {
    /// The object in `dir`, which is made when it is missing.
    pub fn new(disk: Arc<dyn Disk>, dir: impl Into<PathBuf>) -> Self {
        Self { disk, dir: dir.into() }
    }

    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        let file = match self.disk.open(&self.dir.join(name), false) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let len = usize::try_from(file.len()?).unwrap_or(usize::MAX);
        if len > OBJECT_BYTES_MAX {
            return Err(self.damaged("is too long"));
        }
        let mut bytes = vec![0; len];
        let read = file.read_at(0, &mut bytes)?;
        bytes.truncate(read);
        Ok(Some(bytes))
    }

    fn damaged(&self, why: &str) -> io::Error {
        let file = self.dir.join(OBJECT);
        let text = format!("{}: {why}: remove it, and it comes back as a new node", file.display());
        io::Error::new(io::ErrorKind::InvalidData, text)
    }
}

impl SharedObject for FileObject {
    fn load(&self) -> io::Result<(u64, Vec<u8>)> {
        let Some(mut bytes) = self.read(OBJECT)? else { return Ok((0, Vec::new())) };
        let word = |at: usize| bytes.get(at..at + 8).and_then(|word| word.try_into().ok());
        let (Some(magic), Some(sum), Some(version)) = (word(0), word(8), word(16)) else {
            return Err(self.damaged("is cut short"));
        };
        let crc = crc32fast::hash(&bytes[16..]);
        if magic != MAGIC || u64::from_le_bytes(sum) != u64::from(crc) {
            return Err(self.damaged("is damaged"));
        }
        Ok((u64::from_le_bytes(version), bytes.split_off(HEADER_BYTES)))
    }

    fn swap(&self, expected: u64, next: u64, bytes: &[u8]) -> io::Result<bool> {
        self.disk.create_dir_all(&self.dir)?;
        let _lock = match self.disk.lock(&self.dir) {
            Ok(lock) => lock,
            // Whoever holds it replaces the object.
            Err(LockError::Held { .. }) => return Ok(false),
            Err(LockError::Io { source, .. }) => return Err(source),
        };
        if self.load()?.0 != expected {
            return Ok(false);
        }
        let mut whole = Vec::with_capacity(HEADER_BYTES + bytes.len());
        whole.extend_from_slice(&MAGIC);
        whole.extend_from_slice(&[0; 8]);
        whole.extend_from_slice(&next.to_le_bytes());
        whole.extend_from_slice(bytes);
        let crc = crc32fast::hash(&whole[16..]);
        whole[8..16].copy_from_slice(&u64::from(crc).to_le_bytes());
        let new = self.dir.join(NEW);
        let mut file = self.disk.open(&new, true)?;
        file.set_len(0)?;
        file.write_at(0, &whole)?;
        file.sync_data()?;
        drop(file);
        self.disk.rename(&new, &self.dir.join(OBJECT))?;
        Ok(true)
    }

    fn beat(&self, node: &NodeName, count: u64) -> io::Result<()> {
        self.disk.create_dir_all(&self.dir)?;
        let mut file = self.disk.open(&self.dir.join(format!("beat-{node}")), true)?;
        file.write_at(0, &count.to_le_bytes())
    }

    fn last_beat(&self, node: &NodeName) -> io::Result<u64> {
        let bytes = self.read(&format!("beat-{node}"))?.unwrap_or_default();
        Ok(bytes.try_into().map_or(0, u64::from_le_bytes))
    }
}

impl fmt::Debug for FileObject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FileObject({})", self.dir.display())
    }
}

/// The last byte is the version of this layout.
const MAGIC: [u8; 8] = *b"synodob\x01";

const HEADER_BYTES: usize = 24;

const OBJECT: &str = "object";

/// What is written before it takes the object's name.
const NEW: &str = "object.new";

/// Far more than an auxiliary keeps.
const OBJECT_BYTES_MAX: usize = 64 << 20;
