//! Threads that go on until they are told to stop, note what they met, and count what they achieved.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread::JoinHandle,
    time::Duration,
};

use super::wait::until_within;

/// Threads whose notes are of type `T`. They stop when it is dropped, too.
#[derive(Debug)]
pub struct Crew<T> {
    shift: Shift,
    threads: Vec<JoinHandle<Vec<T>>>,
}

/// What a thread of a crew looks at and counts in.
#[derive(Debug, Clone, Default)]
pub struct Shift {
    over: Arc<AtomicBool>,
    achieved: Arc<AtomicU64>,
}

impl Shift {
    /// Whether to stop.
    pub fn is_over(&self) -> bool {
        self.over.load(Relaxed)
    }

    /// One more.
    pub fn achieved(&self) {
        self.achieved.fetch_add(1, Relaxed);
    }
}

impl<T: Send + 'static> Crew<T> {
    /// Starts a thread for each of `works`, which answers its notes when the shift is over.
    pub fn start<W>(works: impl IntoIterator<Item = W>) -> Self
    where
        W: FnOnce(&Shift) -> Vec<T> + Send + 'static,
    {
        let shift = Shift::default();
        let threads = works
            .into_iter()
            .map(|work| {
                let shift = shift.clone();
                std::thread::spawn(move || work(&shift))
            })
            .collect();
        Self { shift, threads }
    }

    /// What all of them achieved so far.
    pub fn achieved(&self) -> u64 {
        self.shift.achieved.load(Relaxed)
    }

    /// Waits until they achieved `count` more.
    ///
    /// # Panics
    /// After `patience`, with `what`.
    pub fn wait_for_more(&self, patience: Duration, what: &str, count: u64) {
        let before = self.achieved();
        until_within(patience, what, || match self.achieved() - before {
            more if more >= count => Ok(()),
            more => Err(format!("{more} of {count}")),
        });
    }

    /// Stops them and answers what all of them noted.
    ///
    /// # Panics
    /// When one of them panicked.
    pub fn finish(mut self) -> Vec<T> {
        self.shift.over.store(true, Relaxed);
        let threads = std::mem::take(&mut self.threads);
        threads.into_iter().flat_map(|one| one.join().expect("a client was told a lie")).collect()
    }
}

impl<T> Drop for Crew<T> {
    fn drop(&mut self) {
        self.shift.over.store(true, Relaxed);
    }
}
