//! Workers of a simulated disk: their runs take simulated time, on no thread.

use std::{
    fmt,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
};

use super::Store;
use crate::{
    sim::{life::Life, queue::lock},
    world::disk::{Waker, Worker},
};

/// A worker, which a run takes out and puts back.
pub(super) struct Cell {
    worker: Mutex<Option<Box<dyn Worker>>>,
    /// A run is queued: further wake-ups go with it, as with a group commit.
    queued: AtomicBool,
    stopping: AtomicBool,
}

/// The handle that wakes a worker.
pub(super) struct SimWaker {
    store: Arc<Store>,
    life: Life,
    cell: Arc<Cell>,
}

impl Cell {
    pub(super) fn new(worker: Box<dyn Worker>) -> Self {
        Self {
            worker: Mutex::new(Some(worker)),
            queued: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
        }
    }

    /// One run, unless this is called from within one (then that run sees to stopping).
    fn run(&self, life: &Life) {
        self.queued.store(false, SeqCst);
        let Some(mut worker) = lock(&self.worker).take() else { return };
        worker.run();
        if !life.lasts() {
            return; // crashed meanwhile: gone without a word
        }
        if self.stopping.load(SeqCst) {
            worker.stop();
        } else {
            *lock(&self.worker) = Some(worker);
        }
    }

    fn stop(&self, life: &Life) {
        self.stopping.store(true, SeqCst);
        self.run(life);
    }

    /// Gone without a last run: the machine stopped.
    pub(super) fn discard(&self) {
        let worker = lock(&self.worker).take();
        drop(worker); // outside of the lock: it owns what the node's actors handed over
    }
}

impl SimWaker {
    pub(super) fn new(store: Arc<Store>, life: Life, cell: Arc<Cell>) -> Self {
        Self { store, life, cell }
    }
}

impl Waker for SimWaker {
    fn wake(&self) {
        if !self.life.lasts() || self.cell.queued.swap(true, SeqCst) {
            return;
        }
        let latency = self.store.begin_run();
        let (cell, life) = (Arc::clone(&self.cell), self.life.clone());
        self.store.queue.after(latency, Some(&self.life), move || cell.run(&life));
    }

    fn stop(&self) {
        if self.life.lasts() {
            self.cell.stop(&self.life);
        }
    }
}

impl Drop for SimWaker {
    fn drop(&mut self) {
        if !self.life.lasts() || self.cell.stopping.load(SeqCst) {
            return;
        }
        let latency = self.store.begin_run();
        let (cell, life) = (Arc::clone(&self.cell), self.life.clone());
        self.store.queue.after(latency, Some(&self.life), move || cell.stop(&life));
    }
}

impl fmt::Debug for SimWaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SimWaker").field(&self.life).finish()
    }
}
