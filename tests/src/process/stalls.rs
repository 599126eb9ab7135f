//! Whether the machine stood still: what a cluster promises of work without failures it cannot keep while
//! other programs keep its processes, or its disk, from working.

use std::{
    fmt::Debug,
    fs::File,
    io::Write as _,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use super::wait::{now, pause};

/// A thread that pauses and syncs, and sees how long that takes at worst.
struct Stalls {
    over: Arc<AtomicBool>,
    thread: JoinHandle<Duration>,
}

impl Stalls {
    fn watch() -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&over);
        let thread = thread::spawn(move || {
            let mut file: File = tempfile::tempfile().expect("a file of ours");
            let mut worst = Duration::ZERO;
            while !until.load(Ordering::Relaxed) {
                let began = now();
                pause();
                file.write_all(b"x").and_then(|()| file.sync_data()).expect("the disk takes it");
                worst = worst.max(now().since(began));
            }
            worst
        });
        Self { over, thread }
    }

    fn worst(self) -> Duration {
        self.over.store(true, Ordering::Relaxed);
        self.thread.join().expect("it does not panic")
    }
}

/// Works with `on`, and looks whether that changed anything. Where it did while the machine stood still, it
/// works again; `work` is told whether this is the first time.
///
/// # Panics
/// When it changed something although nothing stood still, or every time.
pub fn unchanged_by<T, V: PartialEq + Debug>(
    what: &str,
    on: &mut T,
    look: impl Fn(&T) -> V,
    mut work: impl FnMut(&mut T, bool),
) {
    for time in 1..=TIMES {
        let before = look(on);
        let stalls = Stalls::watch();
        work(on, time == 1);
        let (after, worst) = (look(on), stalls.worst());
        if after == before {
            return;
        }
        assert!(
            worst >= STALL && time < TIMES,
            "{what}: from {before:?} to {after:?}, and nothing stood still for {worst:?}"
        );
        println!("{what}: the machine stood still for {worst:?}; once more");
    }
}

/// Half of what a main may be silent for before an auxiliary is asked in its place.
const STALL: Duration = Duration::from_millis(50);

/// A busy machine has a quiet moment in so many.
const TIMES: u32 = 5;
