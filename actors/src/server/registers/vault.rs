//! What a holder of registers has on its disk: a file for each, written in two checksummed slots.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use synod_runtime::{
    slots::Slots,
    wire::name_hash,
    world::{
        Disk,
        disk::{Waker, Worker},
    },
};
use tokio::sync::oneshot;

use super::lock;
use crate::register::message::Block;

/// See the module's documentation.
pub(super) struct Vault {
    queue: Arc<Mutex<VecDeque<Job>>>,
    waker: Arc<dyn Waker>,
}

struct Job {
    kept: Option<(String, Block)>,
    /// Dropped if it could not be kept.
    done: oneshot::Sender<()>,
}

/// What was found at the start.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) registers: BTreeMap<String, Block>,
    /// Registers, by the hash of their names, that this holder may have promised anything about.
    pub(super) damaged: BTreeSet<u64>,
}

impl Vault {
    /// Opens the directory, or makes it. Blocks, as all that opens a node does.
    ///
    /// # Errors
    /// What the disk says; nothing was changed.
    pub(super) fn open(disk: &Arc<dyn Disk>, dir: &Path) -> std::io::Result<(Self, Found)> {
        disk.create_dir_all(dir)?;
        let mut found = Found::default();
        for file in disk.list(dir)? {
            let Some(hash) = file.strip_suffix(SUFFIX) else { continue };
            let Ok(hash) = u64::from_str_radix(hash, 16) else { continue };
            let words = match Slots::look(disk.as_ref(), &dir.join(&file)) {
                Ok(words) => words.map(|words| rmp_serde::from_slice::<(String, Block)>(&words)),
                Err(error) => {
                    tracing::error!(%error, "a register is lost here; the others hold it");
                    found.damaged.insert(hash);
                    continue;
                }
            };
            match words {
                Some(Ok((name, block))) => drop(found.registers.insert(name, block)),
                Some(Err(_)) => drop(found.damaged.insert(hash)),
                None => {}
            }
        }
        let queue = Arc::<Mutex<VecDeque<Job>>>::default();
        let keeper = Keeper {
            disk: Arc::clone(disk),
            dir: dir.to_path_buf(),
            queue: Arc::clone(&queue),
            open: BTreeMap::new(),
            failed: false,
        };
        let waker = disk.spawn_worker("registers", Box::new(keeper));
        Ok((Self { queue, waker }, found))
    }

    /// Keeps a register. The answer comes once this and all that was kept before is durable; it is
    /// an error once anything could not be kept.
    pub(super) fn keep(&self, kept: Option<(String, Block)>) -> oneshot::Receiver<()> {
        let (done, answer) = oneshot::channel();
        lock(&self.queue).push_back(Job { kept, done });
        self.waker.wake();
        answer
    }
}

/// Writes, where blocking is allowed.
struct Keeper {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    queue: Arc<Mutex<VecDeque<Job>>>,
    open: BTreeMap<String, Slots>,
    failed: bool,
}

impl Worker for Keeper {
    fn run(&mut self) {
        loop {
            let jobs = std::mem::take(&mut *lock(&self.queue));
            if jobs.is_empty() {
                return;
            }
            let (mut newest, mut waiting) = (BTreeMap::new(), Vec::new());
            for Job { kept, done } in jobs {
                // Only the newest of what came while the last sync ran.
                newest.extend(kept);
                waiting.push(done);
            }
            for (name, block) in newest {
                self.failed = self.failed || !self.write(name, &block);
            }
            if !self.failed {
                for done in waiting {
                    let _nobody_waits = done.send(());
                }
            }
        }
    }
}

impl Keeper {
    fn write(&mut self, name: String, block: &Block) -> bool {
        let words = rmp_serde::to_vec(&(&name, block)).expect("plain data encodes");
        if self.open.len() >= OPEN_MAX {
            self.open.clear();
        }
        let path = self.dir.join(format!("{:016x}{SUFFIX}", name_hash(&name)));
        let slots = match self.open.remove(&name) {
            Some(slots) => Ok(slots),
            None => Slots::open(self.disk.as_ref(), &path),
        };
        let written = slots.and_then(|mut slots| {
            slots.write(&words)?;
            Ok(slots)
        });
        match written {
            Ok(slots) => drop(self.open.insert(name, slots)),
            Err(error) => {
                tracing::error!(%error, "this node holds no registers any more");
                return false;
            }
        }
        true
    }
}

/// Files that are open at once.
const OPEN_MAX: usize = 64;

const SUFFIX: &str = ".register";

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vault").finish_non_exhaustive()
    }
}
