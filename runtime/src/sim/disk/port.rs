//! The disk port of one life of one node.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    Inner, Name, Store, dead,
    inode::{Inode, SECTOR_BYTES},
    worker::{Cell, SimWaker},
};
use crate::{
    sim::{
        entropy::{happens, up_to},
        life::Life,
        queue::lock,
    },
    world::disk::{Disk, DiskFile, Lock, LockError, Waker, Worker},
};

/// The disk as one life of a node sees it.
#[derive(Debug)]
pub(in crate::sim) struct SimDisk {
    store: Arc<Store>,
    life: Life,
}

struct SimFile {
    store: Arc<Store>,
    life: Life,
    file: u64,
}

#[derive(Debug)]
struct SimLock {
    store: Arc<Store>,
    held: (PathBuf, u64),
}

impl SimDisk {
    pub(in crate::sim) fn new(store: Arc<Store>, life: Life) -> Self {
        Self { store, life }
    }

    fn operation<R>(
        &self,
        what: &str,
        path: &Path,
        f: impl FnOnce(&mut Inner, bool) -> io::Result<R>,
    ) -> io::Result<R> {
        let bytes = path.as_os_str().as_encoded_bytes();
        self.store.operation(&self.life, what, &[], bytes, f)
    }

    /// One process id a life, as the system would give.
    fn pid(&self) -> u32 {
        1000 + u32::try_from(self.life.number()).unwrap_or(0)
    }
}

impl Disk for SimDisk {
    fn open(&self, path: &Path, create: bool) -> io::Result<Box<dyn DiskFile>> {
        let file = self.operation("open", path, |inner, _| {
            let known = inner.names.get(path).map(|name| name.file);
            let parent_missing = path.parent().is_some_and(|dir| !inner.has_dir(dir));
            let file = match known {
                Some(file) => file,
                None if !create || parent_missing => return Err(missing(path)),
                None => inner.create(path),
            };
            inner.file(file)?.handles += 1;
            Ok(file)
        })?;
        let (store, life) = (Arc::clone(&self.store), self.life.clone());
        Ok(Box::new(SimFile { store, life, file }))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.operation("mkdir", path, |inner, _| {
            inner.dirs.extend(path.ancestors().map(Path::to_path_buf));
            Ok(())
        })
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.operation("list", dir, |inner, _| {
            if !inner.has_dir(dir) {
                return Err(missing(dir));
            }
            let all = inner.names.keys().chain(&inner.dirs);
            let inside = all.filter(|path| path.parent() == Some(dir));
            let names = inside.filter_map(|path| path.file_name());
            let mut names: Vec<_> = names.map(|n| n.to_string_lossy().into_owned()).collect();
            names.sort();
            Ok(names)
        })
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.operation("rename", from, |inner, last| {
            if last && happens(&mut inner.rng, 0.5) {
                return Ok(()); // the machine stopped before it
            }
            let file = inner.names.get(from).ok_or_else(|| missing(from))?.file;
            if from != to {
                inner.unlink(to);
                inner.names.remove(from);
                inner.names.insert(to.to_path_buf(), Name { file, durable: true });
            }
            for dir in [from.parent(), to.parent()].into_iter().flatten() {
                inner.sync_dir(dir);
            }
            Ok(())
        })
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.operation("remove", path, |inner, last| {
            if last && happens(&mut inner.rng, 0.5) {
                return Ok(()); // the machine stopped before it
            }
            inner.unlink(path);
            path.parent().into_iter().for_each(|dir| inner.sync_dir(dir));
            Ok(())
        })
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.operation("sync dir", dir, |inner, last| {
            if !inner.has_dir(dir) {
                return Err(missing(dir));
            }
            if !last {
                inner.sync_dir(dir);
            }
            Ok(())
        })
    }

    fn lock(&self, dir: &Path) -> Result<Box<dyn Lock>, LockError> {
        let held = (dir.to_path_buf(), self.life.number());
        let taken = self.operation("lock", dir, |inner, _| {
            if !inner.has_dir(dir) {
                return Err(missing(dir));
            }
            Ok(inner.locks.insert(held.clone()))
        });
        match taken {
            Ok(true) => Ok(Box::new(SimLock { store: Arc::clone(&self.store), held })),
            Ok(false) => Err(LockError::Held { path: dir.to_path_buf(), pid: self.pid() }),
            Err(source) => Err(LockError::Io { path: dir.to_path_buf(), source }),
        }
    }

    fn spawn_worker(&self, _name: &str, worker: Box<dyn Worker>) -> Arc<dyn Waker> {
        let cell = Arc::new(Cell::new(worker));
        if self.life.lasts() {
            let mut inner = lock(&self.store.inner);
            inner.workers.retain(|cell| cell.strong_count() > 0);
            inner.workers.push(Arc::downgrade(&cell));
        }
        Arc::new(SimWaker::new(Arc::clone(&self.store), self.life.clone(), cell))
    }
}

impl SimFile {
    fn operation<R>(
        &self,
        what: &str,
        numbers: [u64; 2],
        bytes: &[u8],
        f: impl FnOnce(&mut Inner, bool) -> io::Result<R>,
    ) -> io::Result<R> {
        let numbers = [self.file, numbers[0], numbers[1]];
        self.store.operation(&self.life, what, &numbers, bytes, f)
    }
}

impl DiskFile for SimFile {
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        let wanted = into.len() as u64;
        self.operation("read", [offset, wanted], &[], |inner, _| {
            Ok(inner.file(self.file)?.read(offset, into))
        })
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let file = self.file;
        self.operation("write", [offset, 0], bytes, |inner, _| {
            inner.traffic.writes += 1;
            inner.traffic.bytes += bytes.len() as u64;
            let len = inner.file(file)?.current.len() as u64;
            let grows = (offset + bytes.len() as u64).saturating_sub(len);
            let free = inner.free();
            if grows <= free {
                let offset = inner.astray(file, bytes.len() as u64).unwrap_or(offset);
                inner.file(file)?.write(offset, bytes);
                return Ok(());
            }
            // A full disk takes some of a write; how much, nobody promises.
            let fits = (len + free).saturating_sub(offset).min(bytes.len() as u64);
            let part = usize::try_from(up_to(&mut inner.rng, fits)).unwrap_or(0);
            if part > 0 {
                inner.file(file)?.write(offset, &bytes[..part]);
            }
            Err(full())
        })
    }

    fn sync_data(&mut self) -> io::Result<()> {
        let file = self.file;
        self.operation("sync", [0; 2], &[], |inner, last| {
            let chance = inner.conditions.sync_failure;
            let fails = std::mem::take(&mut inner.fail_next_sync);
            let fails = fails || happens(&mut inner.rng, chance);
            let Inner { files, rng, traffic, .. } = inner;
            let inode = files.get_mut(&file).ok_or_else(gone)?;
            if fails {
                inode.fail_sync(rng);
                return Err(io::Error::from_raw_os_error(libc::EIO));
            }
            if !last {
                inode.sync();
                traffic.syncs += 1;
            }
            Ok(())
        })
    }

    fn len(&self) -> io::Result<u64> {
        if !self.life.lasts() {
            return Err(dead());
        }
        Ok(lock(&self.store.inner).file(self.file)?.current.len() as u64)
    }

    fn set_len(&mut self, len: u64) -> io::Result<()> {
        let file = self.file;
        self.operation("resize", [len, 0], &[], |inner, _| {
            let grows = len.saturating_sub(inner.file(file)?.current.len() as u64);
            if grows > inner.free() {
                return Err(full());
            }
            inner.file(file)?.resize(len);
            Ok(())
        })
    }
}

impl Drop for SimFile {
    fn drop(&mut self) {
        let mut inner = lock(&self.store.inner);
        // After a crash the file may be another life's: only handles of this one are counted.
        if !self.life.lasts() {
            return;
        }
        if let Some(inode) = inner.files.get_mut(&self.file) {
            inode.handles = inode.handles.saturating_sub(1);
        }
        inner.release(self.file);
    }
}

impl Lock for SimLock {}

impl Drop for SimLock {
    fn drop(&mut self) {
        // A later life's lock has another number.
        lock(&self.store.inner).locks.remove(&self.held);
    }
}

impl Inner {
    fn has_dir(&self, dir: &Path) -> bool {
        // The working directory and the root are always there.
        dir.parent().is_none() || self.dirs.contains(dir)
    }

    fn create(&mut self, path: &Path) -> u64 {
        self.files_made += 1;
        let file = self.files_made;
        self.files.insert(file, Inode::named());
        self.names.insert(path.to_path_buf(), Name { file, durable: false });
        file
    }

    /// Where a write of `len` bytes goes instead, if it was to go astray: somewhere in its file.
    fn astray(&mut self, file: u64, len: u64) -> Option<u64> {
        let which = self.misdirect_next.as_ref()?;
        let mut paths = self.names.iter().filter(|(_, name)| name.file == file);
        let asked = paths.any(|(path, _)| path.to_string_lossy().contains(which.as_str()));
        let room = (self.files.get(&file)?.current.len() as u64).checked_sub(len)?;
        if !asked || room < SECTOR_BYTES {
            return None;
        }
        self.misdirect_next = None;
        Some(up_to(&mut self.rng, room / SECTOR_BYTES) * SECTOR_BYTES)
    }

    fn file(&mut self, file: u64) -> io::Result<&mut Inode> {
        self.files.get_mut(&file).ok_or_else(gone)
    }
}

impl fmt::Debug for SimFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimFile").field("life", &self.life).field("file", &self.file).finish()
    }
}

fn missing(path: &Path) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("{}: no such file", path.display()))
}

/// The disk below an open file was replaced.
fn gone() -> io::Error {
    io::Error::from_raw_os_error(libc::EIO)
}

fn full() -> io::Error {
    io::Error::from_raw_os_error(libc::ENOSPC)
}
