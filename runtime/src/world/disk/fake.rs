//! A disk in memory for tests: it forgets what was not synced, tears it at sectors, fills up and
//! fails on demand. Workers run when the test says so.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{Disk, DiskFile, Lock, LockError, Waker, Worker};

/// What a power cut may leave half done: whole sectors are old or new.
const SECTOR: usize = 512;

/// Cloning gives another handle to the same disk.
#[derive(Debug, Clone, Default)]
pub(crate) struct FakeDisk(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    names: BTreeMap<PathBuf, usize>,
    names_durable: BTreeMap<PathBuf, usize>,
    files: Vec<Contents>,
    capacity: Option<u64>,
    sync_fails: bool,
    operations: u64,
    operations_max: Option<u64>,
    crashes: u64,
    workers: Vec<Arc<Slot>>,
    /// The file that was synced last, and what was durable of it before.
    synced: Option<(usize, Vec<u8>)>,
}

#[derive(Debug, Default, Clone)]
struct Contents {
    now: Vec<u8>,
    durable: Vec<u8>,
    /// Sectors that a failed sync left as they are: the system takes them for written, and no later
    /// sync tries again until somebody writes them anew.
    given_up: BTreeSet<usize>,
}

impl Contents {
    fn sector(of: &[u8], index: usize) -> &[u8] {
        let len = of.len();
        &of[len.min(index * SECTOR)..len.min((index + 1) * SECTOR)]
    }

    fn give_up(&mut self) {
        let sectors = self.now.len().div_ceil(SECTOR);
        let differs =
            |index: &usize| Self::sector(&self.now, *index) != Self::sector(&self.durable, *index);
        self.given_up.extend((0..sectors).filter(differs));
    }

    /// Makes durable what the system still knows to be new; answers what was durable before.
    fn sync(&mut self) -> Vec<u8> {
        let before = std::mem::replace(&mut self.durable, self.now.clone());
        for index in &self.given_up {
            let start = index * SECTOR;
            let end = (start + SECTOR).min(self.durable.len());
            for (at, byte) in self.durable.iter_mut().enumerate().take(end).skip(start) {
                *byte = before.get(at).copied().unwrap_or_default();
            }
        }
        before
    }
}

impl FakeDisk {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Another disk with the same contents, all durable.
    pub(crate) fn copy(&self) -> Self {
        let state = self.lock();
        let names = state.names.clone();
        let mut files = state.files.clone();
        for file in &mut files {
            file.durable.clone_from(&file.now);
        }
        let copy = State { names_durable: names.clone(), names, files, ..State::default() };
        Self(Arc::new(Mutex::new(copy)))
    }

    /// No more than `bytes` may be held; `None` for no limit.
    pub(crate) fn set_capacity(&self, bytes: Option<u64>) {
        self.lock().capacity = bytes;
    }

    /// Bytes held by all files.
    pub(crate) fn used(&self) -> u64 {
        self.lock().used()
    }

    /// Whether every sync fails with EIO, and gives up what it was to write, as Linux does.
    pub(crate) fn set_sync_fails(&self, fails: bool) {
        self.lock().sync_fails = fails;
    }

    /// How often something was changed so far.
    pub(crate) fn operations(&self) -> u64 {
        self.lock().operations
    }

    /// After `more` further changes every change is refused: the moment of a crash.
    pub(crate) fn refuse_after(&self, more: u64) {
        let mut state = self.lock();
        state.operations_max = Some(state.operations + more);
    }

    /// Cuts the power: names that were not made durable vanish, each un-synced sector is kept or
    /// lost as `keep` says, old handles become useless, workers are gone without a last run.
    pub(crate) fn crash(&self, mut keep: impl FnMut() -> bool) {
        let mut state = self.lock();
        state.names = state.names_durable.clone();
        state.operations_max = None;
        state.crashes += 1;
        let workers = std::mem::take(&mut state.workers);
        for file in &mut state.files {
            let len = if keep() { file.now.len() } else { file.durable.len() };
            let mut after = file.durable.clone();
            after.resize(len, 0);
            for start in (0..len.min(file.now.len())).step_by(SECTOR) {
                let end = (start + SECTOR).min(len).min(file.now.len());
                if after[start..end] != file.now[start..end] && keep() {
                    after[start..end].copy_from_slice(&file.now[start..end]);
                }
            }
            file.durable.clone_from(&after);
            file.now = after;
            file.given_up.clear();
        }
        drop(state);
        drop(workers);
    }

    /// The disk breaks its word: each sector that the last sync made durable is kept or is again what
    /// it was before, as `keep` says.
    pub(crate) fn undo_last_sync(&self, mut keep: impl FnMut() -> bool) {
        let mut state = self.lock();
        let Some((index, before)) = state.synced.take() else { return };
        let file = &mut state.files[index];
        let sectors = before.chunks(SECTOR).zip(file.durable.chunks_mut(SECTOR));
        for (old, new) in sectors.filter(|(old, new)| old.len() == new.len() && old != new) {
            if !keep() {
                new.copy_from_slice(old);
            }
        }
        file.now.clone_from(&file.durable);
    }

    /// Ends the process, not the machine: what was written stays, synced or not.
    pub(crate) fn kill(&self) {
        let mut state = self.lock();
        state.operations_max = None;
        state.crashes += 1;
        let workers = std::mem::take(&mut state.workers);
        drop(state);
        drop(workers);
    }

    /// Runs each worker that was woken, until none is.
    pub(crate) fn run(&self) {
        loop {
            let workers = self.lock().workers.clone();
            if !workers.iter().any(|slot| slot.run_if_woken()) {
                return;
            }
        }
    }

    /// Lets a test damage or look at a file's bytes behind the owner's back.
    pub(crate) fn edit(&self, path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
        let mut state = self.lock();
        let index = state.names[path];
        let file = &mut state.files[index];
        change(&mut file.now);
        file.durable.clone_from(&file.now);
    }
}

impl State {
    fn used(&self) -> u64 {
        self.names.values().map(|index| self.files[*index].now.len() as u64).sum()
    }

    fn change(&mut self) -> io::Result<()> {
        if self.operations_max.is_some_and(|max| self.operations >= max) {
            return Err(io::Error::other("the power is off"));
        }
        self.operations += 1;
        Ok(())
    }

    fn grow(&mut self, index: usize, len: usize) -> io::Result<()> {
        let more = len.saturating_sub(self.files[index].now.len()) as u64;
        if more > 0 && self.capacity.is_some_and(|capacity| self.used() + more > capacity) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        if more > 0 {
            self.files[index].now.resize(len, 0);
        }
        Ok(())
    }
}

impl Disk for FakeDisk {
    fn open(&self, path: &Path, create: bool) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.lock();
        let index = match state.names.get(path) {
            Some(index) => *index,
            None if create => {
                state.change()?;
                let index = state.files.len();
                state.files.push(Contents::default());
                state.names.insert(path.to_path_buf(), index);
                index
            }
            None => return Err(io::ErrorKind::NotFound.into()),
        };
        Ok(Box::new(FakeFile { disk: self.clone(), index, crashes: state.crashes }))
    }

    fn create_dir_all(&self, _path: &Path) -> io::Result<()> {
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let state = self.lock();
        let inside = state.names.keys().filter(|path| path.parent() == Some(dir));
        Ok(inside.filter_map(|path| Some(path.file_name()?.to_str()?.to_owned())).collect())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.lock();
        state.change()?;
        let Some(index) = state.names.remove(from) else {
            return Err(io::ErrorKind::NotFound.into());
        };
        state.names_durable.remove(from);
        state.names.insert(to.to_path_buf(), index);
        state.names_durable.insert(to.to_path_buf(), index);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.lock();
        if state.names.contains_key(path) {
            state.change()?;
            state.names.remove(path);
            state.names_durable.remove(path);
        }
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.lock();
        state.change()?;
        let inside: Vec<_> =
            state.names.iter().map(|(path, index)| (path.clone(), *index)).collect();
        let inside = inside.into_iter().filter(|(path, _)| path.parent() == Some(dir));
        state.names_durable.extend(inside);
        Ok(())
    }

    fn lock(&self, _dir: &Path) -> Result<Box<dyn Lock>, LockError> {
        #[derive(Debug)]
        struct Free;
        impl Lock for Free {}
        Ok(Box::new(Free))
    }

    fn spawn_worker(&self, _name: &str, worker: Box<dyn Worker>) -> Arc<dyn Waker> {
        let slot = Arc::new(Slot { worker: Mutex::new(Some(worker)), woken: Mutex::new(false) });
        self.lock().workers.push(slot.clone());
        slot
    }
}

#[derive(Debug)]
struct FakeFile {
    disk: FakeDisk,
    index: usize,
    crashes: u64,
}

impl FakeFile {
    fn state(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.disk.lock();
        if state.crashes != self.crashes {
            return Err(io::Error::other("this handle did not survive the crash"));
        }
        Ok(state)
    }
}

impl DiskFile for FakeFile {
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        let state = self.state()?;
        let bytes = &state.files[self.index].now;
        let start = usize::try_from(offset).unwrap().min(bytes.len());
        let len = into.len().min(bytes.len() - start);
        into[..len].copy_from_slice(&bytes[start..start + len]);
        Ok(len)
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.state()?;
        state.change()?;
        let start = usize::try_from(offset).unwrap();
        state.grow(self.index, start + bytes.len())?;
        let file = &mut state.files[self.index];
        file.now[start..start + bytes.len()].copy_from_slice(bytes);
        let written = start / SECTOR..(start + bytes.len()).div_ceil(SECTOR);
        file.given_up.retain(|sector| !written.contains(sector));
        Ok(())
    }

    fn sync_data(&mut self) -> io::Result<()> {
        let mut state = self.state()?;
        state.change()?;
        if state.sync_fails {
            state.files[self.index].give_up();
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        let before = state.files[self.index].sync();
        state.synced = Some((self.index, before));
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.state()?.files[self.index].now.len() as u64)
    }

    fn set_len(&mut self, len: u64) -> io::Result<()> {
        let mut state = self.state()?;
        state.change()?;
        let len = usize::try_from(len).unwrap();
        state.grow(self.index, len)?;
        state.files[self.index].now.truncate(len);
        Ok(())
    }
}

struct Slot {
    worker: Mutex<Option<Box<dyn Worker>>>,
    woken: Mutex<bool>,
}

impl Slot {
    fn run_if_woken(&self) -> bool {
        let woken = std::mem::take(&mut *self.woken.lock().unwrap_or_else(PoisonError::into_inner));
        let mut worker = self.worker.lock().unwrap_or_else(PoisonError::into_inner);
        match worker.as_mut() {
            Some(worker) if woken => {
                worker.run();
                true
            }
            _ => false,
        }
    }
}

impl std::fmt::Debug for Slot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Slot").finish_non_exhaustive()
    }
}

impl Waker for Slot {
    fn wake(&self) {
        *self.woken.lock().unwrap_or_else(PoisonError::into_inner) = true;
    }

    fn stop(&self) {
        let worker = self.worker.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(mut worker) = worker {
            worker.run();
            worker.stop();
        }
    }
}
