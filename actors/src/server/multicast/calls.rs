//! Calls to roles that are not answered yet.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use tokio::sync::oneshot;

use super::lock;

/// So many at most, each under a number of its own.
pub(super) struct Calls<T> {
    open: Mutex<BTreeMap<u64, oneshot::Sender<T>>>,
    next: AtomicU64,
}

impl<T> Calls<T> {
    /// A new call, and where its answer comes; nothing: there are too many.
    pub(super) fn open(&self) -> Option<(u64, oneshot::Receiver<T>)> {
        let (done, answer) = oneshot::channel();
        let call = self.next.fetch_add(1, Relaxed);
        let mut open = lock(&self.open);
        if open.len() >= CALLS_MAX {
            return None;
        }
        open.insert(call, done);
        Some((call, answer))
    }

    /// This is its answer. Whoever asked may have gone.
    pub(super) fn answer(&self, call: u64, answer: T) {
        if let Some(done) = lock(&self.open).remove(&call) {
            let _gone = done.send(answer);
        }
    }

    /// Nobody waits for it any more; whether somebody did.
    pub(super) fn forget(&self, call: u64) -> bool {
        lock(&self.open).remove(&call).is_some()
    }
}

impl<T> Default for Calls<T> {
    fn default() -> Self {
        Self { open: Mutex::default(), next: AtomicU64::new(1) }
    }
}

/// Calls of one kind under way in a group at one node.
const CALLS_MAX: usize = 1_024;
