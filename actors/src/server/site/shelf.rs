//! The snapshots on a node's disk: a worker writes and reads parts of them, in order.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    path::PathBuf,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use synod_runtime::{
    snapshot::{Mark, Reader, SnapshotError, Writer},
    world::{
        Disk,
        disk::{Waker, Worker},
    },
};
use tokio::sync::oneshot;

use super::lock;
use crate::{
    consensus::{
        ballot::Step,
        message::{Found, ReplicaMessage, SnapshotRead, SnapshotWritten, Written},
    },
    effects::{Lot, ShelfRead, ShelfTask, ShelfWrite},
};

/// Told what became of a task, from any thread.
type Told = Box<dyn FnOnce(ReplicaMessage) + Send>;

/// See the module's documentation.
pub(in crate::server) struct Shelf {
    queue: Queue,
    waker: Arc<dyn Waker>,
}

/// Bounded by the replica, which waits for answers before it asks for more.
type Queue = Arc<Mutex<VecDeque<(ShelfTask, Told)>>>;

impl Shelf {
    /// The snapshots in `dir`.
    pub(super) fn new(disk: &Arc<dyn Disk>, dir: PathBuf) -> Self {
        let queue = Queue::default();
        let clerk = Clerk {
            disk: Arc::clone(disk),
            dir,
            queue: Arc::clone(&queue),
            writers: BTreeMap::new(),
            open: None,
        };
        Self { queue, waker: disk.spawn_worker("snapshots", Box::new(clerk)) }
    }

    /// Queues a task.
    pub(super) fn put(&self, task: ShelfTask, told: Told) {
        lock(&self.queue).push_back((task, told));
        self.waker.wake();
    }

    /// A part of a snapshot; none if it cannot be read, or not any more.
    pub(in crate::server) async fn read(&self, step: Step, offset: u64) -> Option<Bytes> {
        let (answer, told) = oneshot::channel();
        let task = ShelfRead { step: step.0, offset, bytes: READ_BYTES, reader: None };
        let answered = move |message| {
            if let ReplicaMessage::SnapshotRead(SnapshotRead { found, .. }) = message {
                drop(answer.send(found));
            }
        };
        self.put(ShelfTask::Read(task), Box::new(answered));
        told.await.ok().flatten().map(|found| found.bytes)
    }
}

/// The file of a peer's snapshot that is not all here.
const FETCHED: &str = "unfinished-fetched-snapshot";

/// One part for somebody outside.
const READ_BYTES: usize = 256 * 1024;

impl fmt::Debug for Shelf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shelf").finish_non_exhaustive()
    }
}

/// Does the work, where blocking is allowed.
struct Clerk {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    queue: Queue,
    /// What is being written, of each lot, and which run it is.
    writers: BTreeMap<Lot, (u64, Writer)>,
    /// The snapshot read last: who reads a part reads more.
    open: Option<Reader>,
}

impl Worker for Clerk {
    fn run(&mut self) {
        loop {
            let Some((task, told)) = lock(&self.queue).pop_front() else { return };
            match task {
                ShelfTask::Write(write) => {
                    let ShelfWrite { step, run, lot, .. } = write;
                    let Some(written) = self.write(&write) else { continue };
                    let step = Step(step);
                    told(SnapshotWritten { step, run, lot, written }.into());
                }
                ShelfTask::Resume(run) => {
                    let (step, bytes) = self.resume(run);
                    let (lot, written) = (Lot::Fetched, Written::Resumed(bytes));
                    told(SnapshotWritten { step: Step(step), run, lot, written }.into());
                }
                ShelfTask::Read(read) => {
                    let found = self.read(&read);
                    let ShelfRead { step, offset, reader, .. } = read;
                    told(SnapshotRead { step: Step(step), offset, reader, found }.into());
                }
            }
        }
    }
}

impl Clerk {
    /// None for a part of a run that failed or was given up.
    fn write(&mut self, write: &ShelfWrite) -> Option<Written> {
        let written = self.try_write(write).inspect_err(|error| {
            tracing::error!(%error, "a snapshot could not be written");
            self.writers.remove(&write.lot);
        });
        match written {
            Ok(None) if write.last => None,
            Ok(None) => self.writers.contains_key(&write.lot).then_some(Written::Part),
            Ok(Some(Mark { length, digest, .. })) => Some(Written::Whole { total: length, digest }),
            Err(_logged) => Some(Written::Failed),
        }
    }

    fn try_write(&mut self, write: &ShelfWrite) -> Result<Option<Mark>, SnapshotError> {
        let disk = self.disk.as_ref();
        if write.first {
            let name = match write.lot {
                Lot::Own => "unfinished-snapshot",
                Lot::Fetched => FETCHED,
            };
            let writer = Writer::begin(disk, &self.dir, write.step, name)?;
            self.writers.insert(write.lot, (write.run, writer));
        }
        let Some((run, writer)) = self.writers.get_mut(&write.lot) else { return Ok(None) };
        if *run != write.run {
            return Ok(None);
        }
        writer.part(disk, &write.part)?;
        if !write.last {
            return Ok(None);
        }
        let Some((_, writer)) = self.writers.remove(&write.lot) else { return Ok(None) };
        writer.finish(disk, write.digest).map(Some)
    }

    /// Of which step a part is there, and how much of it.
    fn resume(&mut self, run: u64) -> (u64, u64) {
        match Writer::resume(self.disk.as_ref(), &self.dir, FETCHED) {
            Ok(Some(writer)) if writer.length() > 0 => {
                let begun = (writer.step(), writer.length());
                self.writers.insert(Lot::Fetched, (run, writer));
                begun
            }
            Ok(_) => (0, 0),
            Err(error) => {
                tracing::warn!(%error, "what was fetched of a snapshot before is of no use");
                (0, 0)
            }
        }
    }

    fn read(&mut self, read: &ShelfRead) -> Option<Found> {
        let found = self.try_read(read);
        found.inspect_err(|error| tracing::error!(%error, "a snapshot could not be read")).ok()
    }

    fn try_read(&mut self, read: &ShelfRead) -> Result<Found, SnapshotError> {
        let open = self.open.take().filter(|reader| reader.mark().step == read.step);
        let reader = match open {
            Some(reader) => reader,
            None => Reader::open(self.disk.as_ref(), &self.dir, read.step)?,
        };
        let Mark { length, digest, .. } = reader.mark();
        let bytes = reader.read(read.offset, read.bytes)?.into();
        // Its end was read: nobody is kept from freeing the space.
        if read.offset + (read.bytes as u64) < length {
            self.open = Some(reader);
        }
        Ok(Found { total: length, digest, bytes })
    }
}
