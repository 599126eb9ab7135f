//! Blocks of clients as they lie on a disk: a directory for each register, and in it a file of one
//! block for each client.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use synod_runtime::{
    wire::name_hash,
    world::{
        Disk,
        disk::{Waker, Worker},
    },
};
use tokio::sync::oneshot;

use super::lock;
use crate::register::disk::{BLOCK_BYTES, Damaged, DiskAnswer, DiskAsk, DiskBlock};

/// One disk. What is asked of it happens in order.
pub(super) struct Blocks {
    queue: Arc<Mutex<VecDeque<Job>>>,
    waker: Arc<dyn Waker>,
}

struct Job {
    register: String,
    client: String,
    ask: DiskAsk,
    done: oneshot::Sender<DiskAnswer>,
}

impl Blocks {
    /// The disk whose blocks are below that directory, which is made with the first.
    pub(super) fn open(disk: &Arc<dyn Disk>, dir: PathBuf) -> Self {
        let queue = Arc::<Mutex<VecDeque<Job>>>::default();
        let arm = Arm { disk: Arc::clone(disk), dir, queue: Arc::clone(&queue) };
        let waker = disk.spawn_worker("blocks", Box::new(arm));
        Self { queue, waker }
    }

    /// Does what is asked; none: the disk failed, or a block there is damaged.
    pub(super) async fn ask(
        &self,
        register: String,
        client: String,
        ask: DiskAsk,
    ) -> Option<DiskAnswer> {
        let (done, answer) = oneshot::channel();
        {
            let mut queue = lock(&self.queue);
            if queue.len() >= QUEUE_MAX {
                return None;
            }
            queue.push_back(Job { register, client, ask, done });
        }
        self.waker.wake();
        answer.await.ok()
    }
}

/// Reads and writes, where blocking is allowed.
struct Arm {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    queue: Arc<Mutex<VecDeque<Job>>>,
}

impl Worker for Arm {
    fn run(&mut self) {
        loop {
            let Some(job) = lock(&self.queue).pop_front() else { return };
            let Job { register, client, ask, done } = job;
            match self.act(&register, &client, &ask) {
                Ok(answer) => drop(done.send(answer)),
                Err(error) => {
                    let dir = self.dir.display();
                    tracing::warn!(%dir, register, %error, "a disk did not answer");
                }
            }
        }
    }
}

impl Arm {
    fn act(&self, register: &str, client: &str, ask: &DiskAsk) -> io::Result<DiskAnswer> {
        let dir = self.dir.join(format!("{:016x}", name_hash(register)));
        if let Some(block) = &ask.write {
            self.write(&dir, client, block)?;
        }
        let mut blocks = BTreeMap::new();
        let files = match self.disk.list(&dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            files => files?,
        };
        for file in files.into_iter().take(CLIENTS_MAX) {
            let block = self.read(&dir.join(&file))?.map_err(io::Error::other)?;
            blocks.insert(file, block);
        }
        Ok(DiskAnswer { blocks })
    }

    fn write(&self, dir: &Path, client: &str, block: &DiskBlock) -> io::Result<()> {
        let (path, is_name) = (dir.join(client), is_file_name(client));
        if !is_name {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let known = match self.read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            known => Some(known?),
        };
        if known.as_ref().is_some_and(|known| !block.replaces(known)) {
            return Ok(());
        }
        if known.is_none() {
            self.disk.create_dir_all(dir)?;
            if self.disk.list(dir)?.len() >= CLIENTS_MAX {
                return Err(io::ErrorKind::StorageFull.into());
            }
        }
        let mut file = self.disk.open(&path, true)?;
        file.write_at(0, &block.encode())?;
        file.sync_data()?;
        if known.is_none() {
            self.disk.sync_dir(dir)?;
        }
        Ok(())
    }

    fn read(&self, path: &Path) -> io::Result<Result<DiskBlock, Damaged>> {
        let file = self.disk.open(path, false)?;
        let mut bytes = vec![0; BLOCK_BYTES];
        let read = file.read_at(0, &mut bytes)?;
        // One that was made, and not written before its client died.
        let is_new = read == 0;
        Ok(if is_new { Ok(DiskBlock::default()) } else { DiskBlock::decode(&bytes) })
    }
}

/// Whether a client's name can be that of a file: those of ours can.
fn is_file_name(client: &str) -> bool {
    let good = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    !client.is_empty()
        && client.len() <= 200
        && !client.starts_with('.')
        && client.chars().all(good)
}

/// Questions that wait: more than all clients have open.
const QUEUE_MAX: usize = 4_096;

/// Clients of one register, in all incarnations.
const CLIENTS_MAX: usize = 256;

impl fmt::Debug for Blocks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Blocks").finish_non_exhaustive()
    }
}
