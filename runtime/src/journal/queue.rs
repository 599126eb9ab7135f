//! What lies between the callers and the one worker: a queue under a mutex, and counters.

use std::{
    fmt, mem,
    sync::{
        Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
};

use super::{Done, JournalFailed, QUEUED_BYTES_MAX, Record, ReplayDone};
use crate::telemetry::Histogram;

/// One call.
pub(super) enum Entry {
    Append {
        records: Vec<Record>,
        bytes: u64,
        done: Done,
    },
    Lazy {
        records: Vec<Record>,
        bytes: u64,
    },
    Truncate {
        upto: u64,
        carry: Vec<Record>,
        bytes: u64,
        done: Done,
    },
    Replay {
        done: ReplayDone,
    },
    /// A call that was refused at once; it stands in line so that answers keep their order.
    Refused {
        done: Done,
        why: JournalFailed,
    },
}

impl Entry {
    /// Answers the caller outside of any order, since no worker will.
    pub(super) fn refuse(self, why: JournalFailed) {
        match self {
            Self::Append { done, .. }
            | Self::Truncate { done, .. }
            | Self::Refused { done, .. } => {
                done(Err(why));
            }
            Self::Lazy { .. } => {}
            Self::Replay { done } => done(Err(why.into())),
        }
    }

    /// Bytes it takes in the queue.
    pub(super) fn bytes(&self) -> u64 {
        match self {
            Self::Append { bytes, .. }
            | Self::Lazy { bytes, .. }
            | Self::Truncate { bytes, .. } => *bytes,
            Self::Replay { .. } | Self::Refused { .. } => 0,
        }
    }

    fn is_lazy(&self) -> bool {
        matches!(self, Self::Lazy { .. })
    }
}

/// Shared by the callers and the worker.
#[derive(Default)]
pub(super) struct Shared {
    queue: Mutex<Queue>,
    /// Bytes written, padding included.
    pub(super) bytes: AtomicU64,
    /// The end of what is durable: see [`super::Journal::position`].
    pub(super) position: AtomicU64,
    /// The oldest segment that counts.
    pub(super) base: AtomicU64,
    /// Syncs of batches.
    pub(super) syncs: AtomicU64,
    /// Lazy records that were dropped.
    pub(super) lazy_dropped: AtomicU64,
    /// Whether ordinary records are refused for want of space.
    pub(super) full: AtomicBool,
    /// The first error, for ever.
    pub(super) failed: OnceLock<JournalFailed>,
    /// Told how long each sync of a batch took.
    pub(super) sync_seconds: OnceLock<Histogram>,
}

#[derive(Default)]
struct Queue {
    entries: Vec<Entry>,
    /// Bytes taken and not yet answered for, those in the worker's hands included.
    bytes: u64,
    /// The worker was woken and has not yet found the queue empty.
    signalled: bool,
    closed: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a call; answers whether the worker must be woken. When nobody will ever look at the
    /// queue again, the call comes back with the reason.
    pub(super) fn push(&self, entry: Entry) -> Result<bool, (Entry, JournalFailed)> {
        let mut queue = self.lock();
        if queue.closed {
            drop(queue);
            return Err((entry, self.failed.get().cloned().unwrap_or(JournalFailed::Closed)));
        }
        let entry = self.admit(&mut queue, entry);
        let Some(entry) = entry else {
            return Ok(false);
        };
        // Lazy records wait for somebody who wants to know.
        let wake = !entry.is_lazy() && !queue.signalled;
        queue.signalled |= wake;
        queue.entries.push(entry);
        Ok(wake)
    }

    /// Keeps the queue within its bound.
    fn admit(&self, queue: &mut Queue, entry: Entry) -> Option<Entry> {
        let bytes = entry.bytes();
        let why = if bytes > QUEUED_BYTES_MAX {
            JournalFailed::TooLarge { bytes }
        } else if queue.bytes + bytes > QUEUED_BYTES_MAX {
            JournalFailed::Overloaded { queued_bytes: queue.bytes }
        } else {
            queue.bytes += bytes;
            return Some(entry);
        };
        match entry {
            Entry::Append { done, .. } | Entry::Truncate { done, .. } => {
                Some(Entry::Refused { done, why })
            }
            Entry::Lazy { records, .. } => {
                self.lazy_dropped.fetch_add(records.len() as u64, Ordering::Relaxed);
                None
            }
            Entry::Replay { .. } | Entry::Refused { .. } => Some(entry),
        }
    }

    /// Swaps the queue against the empty `into`. With `sleepy`, the next call after an empty
    /// answer wakes the worker again.
    pub(super) fn take(&self, into: &mut Vec<Entry>, sleepy: bool) {
        let mut queue = self.lock();
        mem::swap(&mut queue.entries, into);
        if into.is_empty() && sleepy {
            queue.signalled = false;
        }
    }

    /// The same for who is not the worker: only if there is nothing but records, and `fits` likes how
    /// many bytes they have; whether it was so.
    pub(super) fn take_records(&self, into: &mut Vec<Entry>, fits: impl Fn(u64) -> bool) -> bool {
        let mut queue = self.lock();
        let are_records =
            |entry: &Entry| matches!(entry, Entry::Append { .. } | Entry::Lazy { .. });
        let bytes = queue.entries.iter().map(Entry::bytes).sum();
        let good = queue.entries.iter().all(are_records) && fits(bytes);
        if good {
            mem::swap(&mut queue.entries, into);
        }
        good
    }

    /// The next call wakes the worker again, if nothing is queued; whether it is so.
    pub(super) fn is_done(&self) -> bool {
        let mut queue = self.lock();
        let done = queue.entries.is_empty();
        queue.signalled &= !done;
        done
    }

    /// Gives back room in the queue.
    pub(super) fn release(&self, bytes: u64) {
        self.lock().bytes -= bytes;
    }

    /// Takes no more calls.
    pub(super) fn close(&self) {
        self.lock().closed = true;
    }

    /// Bytes queued or being written.
    pub(super) fn queued_bytes(&self) -> u64 {
        self.lock().bytes
    }

    /// Latches the first error for ever: it leaves unknown what the disk holds, and a second try
    /// that works proves nothing.
    pub(super) fn fail(&self, why: impl fmt::Display) -> JournalFailed {
        self.failed.get_or_init(|| JournalFailed::Disk(why.to_string().into())).clone()
    }

    /// Gives the call back, or refuses it: after an error nothing is done any more.
    pub(super) fn unless_failed(&self, entry: Entry) -> Option<Entry> {
        let Some(failed) = self.failed.get() else { return Some(entry) };
        self.release(entry.bytes());
        entry.refuse(failed.clone());
        None
    }

    /// The worker is dropped. If a completion panicked and took the thread along, nobody will write
    /// any more.
    pub(super) fn worker_gone(&self) {
        if thread::panicking() {
            self.fail("the journal's worker panicked");
            self.close();
        }
    }
}

/// Answers that are due when all is durable, in order.
#[derive(Default)]
pub(super) struct Answers {
    due: Vec<(Done, Result<(), JournalFailed>)>,
    /// Room in the queue that they give back.
    bytes: u64,
}

impl Answers {
    /// One more.
    pub(super) fn push(&mut self, done: Done, outcome: Result<(), JournalFailed>) {
        self.due.push((done, outcome));
    }

    /// Keeps so much room in the queue until then.
    pub(super) fn hold(&mut self, bytes: u64) {
        self.bytes += bytes;
    }

    pub(super) fn is_empty(&self) -> bool {
        self.due.is_empty()
    }

    /// Gives all of them; when the journal has failed, nobody is told otherwise.
    pub(super) fn give(&mut self, shared: &Shared) {
        shared.release(mem::take(&mut self.bytes));
        let failed = shared.failed.get().cloned();
        for (done, outcome) in self.due.drain(..) {
            done(match &failed {
                Some(failed) => outcome.and_then(|()| Err(failed.clone())),
                None => outcome,
            });
        }
    }
}
