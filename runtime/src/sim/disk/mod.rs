//! The simulated disk: files in memory that know what was synced and what was not.
//!
//! A crash keeps, loses or tears (between sectors of 512 bytes) each change since the last sync,
//! and each name made since its directory's. Any disk operation can be the last of a life, so that
//! crashes fall also between a write and its sync. A failed sync behaves as on Linux: what it was
//! to write is shown still, and gone after the next crash.

mod inode;
mod port;
#[cfg(test)]
mod tests;
mod worker;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, Weak},
    time::Duration,
};

use inode::{Fate, Inode};
pub(super) use port::SimDisk;
use rand::RngExt;

use super::{
    entropy::{happens, up_to},
    life::Life,
    queue::{Queue, lock, nanos},
    trace::Trace,
};
use crate::world::Rng;

/// How a node's disk behaves. Chances are from 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DiskConditions {
    /// A worker's run, with its writes and its sync, takes at least this long.
    pub latency: Duration,
    /// And up to this much more, evenly.
    pub jitter: Duration,
    /// A sync fails.
    pub sync_failure: f64,
    /// A worker's run is cut short: the machine stops at one of its disk operations.
    pub crash: f64,
    /// Bytes that all files together may have.
    pub capacity: Option<u64>,
}

impl Default for DiskConditions {
    /// A healthy disk.
    fn default() -> Self {
        Self {
            latency: Duration::from_micros(100),
            jitter: Duration::from_micros(300),
            sync_failure: 0.0,
            crash: 0.0,
            capacity: None,
        }
    }
}

/// What a node's disk did, through all its lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DiskTraffic {
    /// Writes taken.
    pub writes: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Syncs of files done.
    pub syncs: u64,
}

/// Called when a disk operation was the last of its node's life.
pub(super) type OnCrash = Box<dyn Fn(&Life) + Send + Sync>;

/// The platters of one node; they outlive its lives.
pub(super) struct Store {
    queue: Arc<Queue>,
    trace: Arc<Trace>,
    on_crash: OnCrash,
    inner: Mutex<Inner>,
}

struct Inner {
    rng: Rng,
    conditions: DiskConditions,
    files: BTreeMap<u64, Inode>,
    files_made: u64,
    names: BTreeMap<PathBuf, Name>,
    dirs: BTreeSet<PathBuf>,
    locks: BTreeSet<(PathBuf, u64)>,
    workers: Vec<Weak<worker::Cell>>,
    /// The machine stops at the end of this many operations more.
    crash_after: Option<u64>,
    fail_next_sync: bool,
    /// The next write to a file whose path contains this goes astray.
    misdirect_next: Option<String>,
    traffic: DiskTraffic,
}

#[derive(Debug, Clone, Copy)]
struct Name {
    file: u64,
    /// Whether its directory was synced since it was made.
    durable: bool,
}

impl Store {
    pub(super) fn new(queue: Arc<Queue>, trace: Arc<Trace>, rng: Rng, on_crash: OnCrash) -> Self {
        let inner = Inner {
            rng,
            conditions: DiskConditions::default(),
            files: BTreeMap::new(),
            files_made: 0,
            names: BTreeMap::new(),
            dirs: BTreeSet::new(),
            locks: BTreeSet::new(),
            workers: Vec::new(),
            crash_after: None,
            fail_next_sync: false,
            misdirect_next: None,
            traffic: DiskTraffic::default(),
        };
        Self { queue, trace, on_crash, inner: Mutex::new(inner) }
    }

    pub(super) fn conditions(&self) -> DiskConditions {
        lock(&self.inner).conditions
    }

    pub(super) fn set_conditions(&self, conditions: DiskConditions) {
        lock(&self.inner).conditions = conditions;
    }

    /// The machine stops at the `operations`-th disk operation from now.
    pub(super) fn crash_at(&self, operations: u64) {
        assert!(operations > 0, "operations are counted from 1");
        lock(&self.inner).crash_after = Some(operations);
    }

    pub(super) fn fail_next_sync(&self) {
        lock(&self.inner).fail_next_sync = true;
    }

    pub(super) fn misdirect_next_write(&self, which: &str) {
        lock(&self.inner).misdirect_next = Some(which.to_owned());
    }

    /// Takes back what was asked for of operations to come.
    pub(super) fn forgive(&self) {
        let mut inner = lock(&self.inner);
        inner.crash_after = None;
        inner.fail_next_sync = false;
        inner.misdirect_next = None;
    }

    pub(super) fn traffic(&self) -> DiskTraffic {
        lock(&self.inner).traffic
    }

    /// All bytes of all files.
    pub(super) fn used(&self) -> u64 {
        lock(&self.inner).used()
    }

    /// The names of all files, sorted.
    pub(super) fn names(&self) -> Vec<PathBuf> {
        lock(&self.inner).names.keys().cloned().collect()
    }

    /// What a crash would surely leave of a file.
    pub(super) fn durable(&self, path: &Path) -> Option<Vec<u8>> {
        let inner = lock(&self.inner);
        inner.names.get(path).map(|name| inner.files[&name.file].durable.clone())
    }

    /// The machine stopped; its life is over already. Doing it twice does no more.
    pub(super) fn crash(&self) {
        let workers = {
            let mut inner = lock(&self.inner);
            inner.crash();
            std::mem::take(&mut inner.workers)
        };
        workers.iter().filter_map(Weak::upgrade).for_each(|cell| cell.discard());
    }

    /// Another, empty disk.
    pub(super) fn lose(&self) {
        let mut inner = lock(&self.inner);
        inner.files.clear();
        inner.names.clear();
        inner.dirs.clear();
    }

    /// Flips one bit of one file whose path contains `which`, if there is any that is not empty.
    pub(super) fn rot(&self, which: &str) -> Option<(PathBuf, u64)> {
        let mut inner = lock(&self.inner);
        let Inner { names, files, rng, .. } = &mut *inner;
        let fits = |(path, name): &(&PathBuf, &Name)| {
            path.to_string_lossy().contains(which) && !files[&name.file].durable.is_empty()
        };
        let found: Vec<(&PathBuf, &Name)> = names.iter().filter(fits).collect();
        let chosen = usize::try_from(up_to(rng, (found.len() as u64).checked_sub(1)?)).ok()?;
        let (path, name) = found.get(chosen)?;
        let file = files.get_mut(&name.file)?;
        let offset = up_to(rng, file.durable.len() as u64 - 1);
        file.flip(offset, rng.random_range(0..8));
        Some(((*path).clone(), offset))
    }

    /// A worker will run: how long until then, and maybe its run is to be the node's end.
    fn begin_run(&self) -> u64 {
        let mut inner = lock(&self.inner);
        let conditions = inner.conditions;
        let rng = &mut inner.rng;
        let latency = nanos(conditions.latency) + up_to(rng, nanos(conditions.jitter));
        let crash = happens(rng, conditions.crash).then(|| 1 + up_to(rng, RUN_OPERATIONS));
        inner.crash_after = inner.crash_after.or(crash);
        latency
    }

    /// Does one operation for a handle of `life`, in `f`, if that still lasts. With `last` true,
    /// the machine stops in the midst of it.
    fn operation<R>(
        &self,
        life: &Life,
        what: &str,
        numbers: &[u64],
        bytes: &[u8],
        f: impl FnOnce(&mut Inner, bool) -> io::Result<R>,
    ) -> io::Result<R> {
        if !life.lasts() {
            return Err(dead());
        }
        let mut inner = lock(&self.inner);
        inner.crash_after = inner.crash_after.map(|left| left - 1);
        let last = inner.crash_after == Some(0);
        let result = f(&mut inner, last);
        let now = self.queue.now();
        self.trace.note(now, life.name().as_str(), what, numbers, bytes);
        if !last {
            return result;
        }
        life.machine().power_off();
        inner.crash();
        drop(inner);
        self.trace.note(now, life.name().as_str(), "crash in disk operation", &[], &[]);
        (self.on_crash)(life);
        Err(dead())
    }
}

impl Inner {
    fn used(&self) -> u64 {
        self.names.values().map(|name| self.files[&name.file].current.len() as u64).sum()
    }

    /// How many bytes the disk still takes.
    fn free(&self) -> u64 {
        self.conditions.capacity.map_or(u64::MAX, |most| most.saturating_sub(self.used()))
    }

    fn crash(&mut self) {
        self.crash_after = None;
        self.fail_next_sync = false;
        self.misdirect_next = None;
        self.locks.clear();
        let synced = self.files.values().all(Inode::is_synced);
        let decided = synced && self.names.values().all(|name| name.durable);
        // Draws nothing when there is nothing to decide, so that a second crash changes nothing.
        let fate = match (!decided).then(|| up_to(&mut self.rng, 3)) {
            None | Some(0) => Fate::Kept,
            Some(1) => Fate::Lost,
            Some(_) => Fate::Mixed,
        };
        let rng = &mut self.rng;
        self.names.retain(|_, name| {
            name.durable
                || match fate {
                    Fate::Kept => true,
                    Fate::Lost => false,
                    Fate::Mixed => happens(rng, 0.5),
                }
        });
        for file in self.files.values_mut() {
            file.crash(&mut self.rng, fate);
            file.named = false;
            file.handles = 0;
        }
        for name in self.names.values_mut() {
            name.durable = true;
            if let Some(file) = self.files.get_mut(&name.file) {
                file.named = true;
            }
        }
        self.files.retain(|_, file| file.named);
    }

    /// Forgets a file that no name and no handle leads to.
    fn release(&mut self, file: u64) {
        if self.files.get(&file).is_some_and(|inode| !inode.named && inode.handles == 0) {
            self.files.remove(&file);
        }
    }

    /// All names in a directory will outlive a crash.
    fn sync_dir(&mut self, dir: &Path) {
        for (path, name) in &mut self.names {
            if path.parent() == Some(dir) {
                name.durable = true;
            }
        }
    }

    fn unlink(&mut self, path: &Path) {
        if let Some(name) = self.names.remove(path) {
            if let Some(file) = self.files.get_mut(&name.file) {
                file.named = false;
            }
            self.release(name.file);
        }
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("names", &self.names()).finish_non_exhaustive()
    }
}

/// What every operation of a life that is over says.
fn dead() -> io::Error {
    io::Error::other("the machine has stopped")
}

/// A run that is cut short ends within so many operations: about what a group commit makes.
const RUN_OPERATIONS: u64 = 5;
