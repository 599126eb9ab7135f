//! Whose turn it is to write: the worker's, on its thread; or, where nothing is synced and no more is
//! to do than one small write, that of whoever brings records. Two changes of threads cost more than
//! such a write does.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{queue::Shared, spares::SLICE_BYTES, writer::Writer};
use crate::world::disk::Worker;

/// The writer, and whoever has it at the moment.
#[derive(Clone)]
pub(super) struct Turns(Arc<Mutex<Writer>>);

impl Turns {
    pub(super) fn new(writer: Writer) -> Self {
        Self(Arc::new(Mutex::new(writer)))
    }

    /// Writes what is queued if that is little, and answers whoever waits for it. Whether all is done:
    /// if not, the worker has to be woken.
    pub(super) fn take_one(&self) -> bool {
        // Who cannot have it leaves it to the worker, which is at work, or broke.
        self.0.try_lock().is_ok_and(|mut writer| writer.turn_alone())
    }

    fn writer(&self) -> MutexGuard<'_, Writer> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The worker's hand on the writer.
pub(super) struct Hand {
    turns: Turns,
    shared: Arc<Shared>,
}

impl Hand {
    pub(super) fn new(turns: Turns, shared: Arc<Shared>) -> Self {
        Self { turns, shared }
    }
}

impl Worker for Hand {
    fn run(&mut self) {
        self.turns.writer().turn();
    }

    fn stop(&mut self) {
        self.turns.writer().end();
    }
}

impl Drop for Hand {
    fn drop(&mut self) {
        self.shared.worker_gone();
    }
}

impl Writer {
    /// Until there is nothing to do.
    fn turn(&mut self) {
        let mut entries = Vec::new();
        let mut idle_work = true;
        loop {
            self.shared.take(&mut entries, !idle_work);
            if entries.is_empty() {
                if !idle_work {
                    return;
                }
                idle_work = self.retire_more() || self.prepare(SLICE_BYTES);
                continue;
            }
            let before = self.current.end;
            for entry in entries.drain(..) {
                self.handle(entry);
            }
            if !self.answers.is_empty() {
                // The error is latched and told to everybody.
                let _ = self.flush();
            }
            // Twice as fast as it is used up: so the next segment is ready when it is needed,
            // even if the queue is never empty.
            let end = self.current.end;
            let written =
                if end.sequence == before.sequence { end.offset - before.offset } else { 0 };
            if !self.retire_more() && end.offset > self.current.room / 2 {
                self.prepare(SLICE_BYTES + 2 * written);
            }
            idle_work = true;
        }
    }

    /// One small write, if that is all there is to do; whether it was.
    fn turn_alone(&mut self) -> bool {
        let mut entries = Vec::new();
        let fits = |bytes| bytes <= DIRECT_BYTES_MAX && self.takes(bytes);
        if !self.shared.take_records(&mut entries, fits) {
            return false;
        }
        for entry in entries.drain(..) {
            self.handle(entry);
        }
        // The error is latched and told to everybody.
        let _ = self.flush();
        self.shared.is_done() && !self.is_behind()
    }

    /// Writes what rides along, and a last mark: after an orderly stop no damage goes unnoticed.
    fn end(&mut self) {
        if self.shared.failed.get().is_some() || self.flush().is_err() {
            return;
        }
        let end = self.current.end.offset + self.batch.blocks();
        if end > self.current.room {
            // The last stop took the last block, and nothing was written since.
            return;
        }
        if let Err(error) = self.write_always().and_then(|()| self.sync()) {
            self.fail(&error);
        }
    }
}

/// So many bytes are copied, summed and handed to the system in some ten microseconds.
const DIRECT_BYTES_MAX: u64 = 16 << 10;
