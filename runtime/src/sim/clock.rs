//! A node's clock: true time, seen through a drift of its own; a wall clock that may jump.

use std::sync::{Arc, Mutex};

use super::queue::{Queue, lock};
use crate::world::{Clock, Instant};

/// Largest drift, in parts per million: 10 %, far beyond any quartz.
pub const DRIFT_PPM_MAX: i64 = 100_000;

/// The wall time at which simulations begin: 2026-01-01 in milliseconds since 1970.
const WALL_START_MS: u64 = 1_767_225_600_000;

/// The clock of one node, through all its lives: a restarted process finds the machine's time.
#[derive(Debug)]
pub(super) struct SimClock {
    queue: Arc<Queue>,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// True time when the drift was last set.
    true_base: u64,
    /// This clock's time at that moment.
    base: u64,
    drift_ppm: i64,
    /// How far the wall clock was jumped, in all.
    jumped_ms: i64,
    /// What this clock showed at true time zero.
    zero: u64,
}

impl SimClock {
    /// A clock that shows `zero` nanoseconds at true time zero, without drift.
    pub(super) fn new(queue: Arc<Queue>, zero: u64) -> Self {
        let inner = Inner { true_base: 0, base: zero, drift_ppm: 0, jumped_ms: 0, zero };
        Self { queue, inner: Mutex::new(inner) }
    }

    /// From now on this clock runs `ppm` parts per million too fast (or, negative, too slow).
    pub(super) fn set_drift(&self, ppm: i64) {
        assert!(ppm.abs() <= DRIFT_PPM_MAX, "a drift of {ppm} ppm is beyond {DRIFT_PPM_MAX}");
        let now = self.queue.now();
        let mut inner = lock(&self.inner);
        inner.base = inner.read(now);
        inner.true_base = now;
        inner.drift_ppm = ppm;
    }

    /// Moves the wall clock only.
    pub(super) fn jump(&self, ms: i64) {
        let mut inner = lock(&self.inner);
        inner.jumped_ms = inner.jumped_ms.saturating_add(ms);
    }
}

impl Clock for SimClock {
    fn now(&self) -> Instant {
        Instant::from_nanos(lock(&self.inner).read(self.queue.now()))
    }

    fn wall_ms(&self) -> u64 {
        let inner = lock(&self.inner);
        let passed_ms = (inner.read(self.queue.now()) - inner.zero) / 1_000_000;
        (WALL_START_MS + passed_ms).saturating_add_signed(inner.jumped_ms)
    }
}

impl Inner {
    /// What the clock shows at true time `now`; never less than before, since |drift| < 100 %.
    fn read(&self, now: u64) -> u64 {
        let passed = i128::from(now.saturating_sub(self.true_base));
        let shown = passed + passed * i128::from(self.drift_ppm) / 1_000_000;
        self.base.saturating_add(u64::try_from(shown).unwrap_or(u64::MAX))
    }
}
