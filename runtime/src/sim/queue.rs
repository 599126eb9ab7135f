//! One ordered queue of everything that will happen, and the pump that makes it happen.
//!
//! Tokio's paused clock moves in whole milliseconds, and only when nothing can run. Deliveries and
//! disk completions want microseconds, so the pump waits until the runtime is idle (its hook
//! before parking tells) and then moves the clock itself: to the next event, if that lies within
//! the current millisecond, else to the millisecond's end, from where tokio's own timers are exact
//! again. Events are ordered by (time, sequence), one runs at a time, and everything it woke has
//! run before the next: nothing depends on how a scheduler interleaves.

use std::{
    cmp::Ordering,
    collections::BinaryHeap,
    fmt,
    future::poll_fn,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Poll, Waker},
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

use super::life::Life;

/// Tokio's timers know nothing smaller.
const TICK_NANOS: u64 = 1_000_000;

/// The event queue of one simulation.
#[derive(Default)]
pub(super) struct Queue {
    inner: Mutex<Inner>,
    /// An event earlier than the pump waits for was added.
    changed: Notify,
    idle: Mutex<Idle>,
    /// Tokio's instant at true time zero.
    epoch: OnceLock<Instant>,
    /// The last true time seen, for whoever asks outside of the runtime.
    last: AtomicU64,
}

#[derive(Default)]
struct Inner {
    heap: BinaryHeap<Event>,
    sequence: u64,
    /// The pump sleeps until then.
    asleep_until: Option<u64>,
    closed: bool,
}

#[derive(Default)]
struct Idle {
    reached: bool,
    waiting: Option<Waker>,
}

/// Something that will happen.
pub(super) struct Event {
    at: u64,
    sequence: u64,
    to: Option<Life>,
    run: Box<dyn FnOnce() + Send>,
}

impl Queue {
    /// Nanoseconds of true time since the run began.
    pub(super) fn now(&self) -> u64 {
        let Some(epoch) = self.epoch.get() else { return 0 };
        if tokio::runtime::Handle::try_current().is_err() {
            return self.last.load(Relaxed);
        }
        let now = nanos(Instant::now().saturating_duration_since(*epoch));
        self.last.fetch_max(now, Relaxed);
        now
    }

    /// Lets `run` happen at true time `at`. With `to`, only if that life still lasts then; while
    /// its node is paused, at its resumption.
    pub(super) fn at(&self, at: u64, to: Option<&Life>, run: impl FnOnce() + Send + 'static) {
        let at = at.max(self.now());
        let mut inner = lock(&self.inner);
        if inner.closed {
            return;
        }
        inner.sequence += 1;
        let sequence = inner.sequence;
        inner.heap.push(Event { at, sequence, to: to.cloned(), run: Box::new(run) });
        if inner.asleep_until.is_some_and(|until| at < until) {
            self.changed.notify_one();
        }
    }

    /// Like [`Queue::at`], `nanos` from now.
    pub(super) fn after(&self, nanos: u64, to: Option<&Life>, run: impl FnOnce() + Send + 'static) {
        self.at(self.now().saturating_add(nanos), to, run);
    }

    /// Puts back what was held for a paused node, to happen now in its old order.
    pub(super) fn resume(&self, held: Vec<Event>) {
        let now = self.now();
        for event in held {
            let Event { to, run, .. } = event;
            self.at(now, to.as_ref(), run);
        }
    }

    /// Forgets everything; nothing can be added any more.
    pub(super) fn close(&self) {
        let old = {
            let mut inner = lock(&self.inner);
            inner.closed = true;
            std::mem::take(&mut inner.heap)
        };
        drop(old); // outside of the lock: what events hold may call back
    }

    /// Must be called before the runtime parks: everything that could run has run.
    pub(super) fn park_hook(&self) {
        let waker = {
            let mut idle = lock(&self.idle);
            let waker = idle.waiting.take();
            idle.reached = waker.is_some();
            waker
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Runs the simulation's events for ever. True time begins at the first call.
    pub(super) async fn pump(self: Arc<Self>) {
        loop {
            self.idle().await;
            if let Some(event) = self.pop_due() {
                event.happen();
                continue;
            }
            let now = self.now();
            let next = lock(&self.inner).heap.peek().map(|event| event.at);
            let tick_end = now.next_multiple_of(TICK_NANOS);
            let soon = next.filter(|at| *at < now.saturating_add(TICK_NANOS));
            match (soon, next) {
                (Some(at), _) if now < tick_end => advance(at.min(tick_end) - now).await,
                (Some(at), _) => advance(at - now).await,
                (None, _) if now < tick_end => advance(tick_end - now).await,
                (None, next) => self.sleep(next).await,
            }
        }
    }

    /// Starts true time.
    pub(super) fn start(&self) {
        let first = self.epoch.set(Instant::now()).is_ok();
        assert!(first, "a simulation runs once: make another for another run");
    }

    /// Sleeps until the millisecond of `next` begins, or an earlier event is added.
    async fn sleep(&self, next: Option<u64>) {
        let until = next.map_or(u64::MAX, |at| at / TICK_NANOS * TICK_NANOS);
        lock(&self.inner).asleep_until = Some(until);
        let epoch = *self.epoch.get().expect("the pump starts after true time");
        match next {
            None => self.changed.notified().await,
            Some(_) => tokio::select! {
                biased;
                () = self.changed.notified() => {}
                () = tokio::time::sleep_until(epoch + Duration::from_nanos(until)) => {}
            },
        }
        lock(&self.inner).asleep_until = None;
    }

    /// The next event that is due, for a life that lasts; those of paused nodes are put aside.
    fn pop_due(&self) -> Option<Event> {
        let now = self.now();
        loop {
            let mut inner = lock(&self.inner);
            if inner.heap.peek().is_none_or(|event| event.at > now) {
                return None;
            }
            let event = inner.heap.pop()?;
            drop(inner); // a dropped event may call back
            match &event.to {
                Some(life) if !life.lasts() => drop(event),
                Some(life) if life.paused() => life.clone().hold(event),
                Some(_) | None => return Some(event),
            }
        }
    }

    /// Waits until nothing else can run.
    async fn idle(&self) {
        poll_fn(|context| {
            let mut idle = lock(&self.idle);
            if std::mem::take(&mut idle.reached) {
                return Poll::Ready(());
            }
            idle.waiting = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

impl Event {
    /// An event to be held at once, for work a paused node began.
    pub(super) fn held(to: &Life, run: impl FnOnce() + Send + 'static) -> Self {
        Self { at: 0, sequence: 0, to: Some(to.clone()), run: Box::new(run) }
    }

    fn happen(self) {
        (self.run)();
    }
}

impl PartialEq for Event {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Event {}

impl PartialOrd for Event {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Event {
    /// Reversed, since the heap gives the greatest first.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.sequence).cmp(&(self.at, self.sequence))
    }
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue").field("events", &lock(&self.inner).heap.len()).finish()
    }
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Event").field("at", &self.at).finish_non_exhaustive()
    }
}

/// Moves tokio's clock and lets its timers see it.
async fn advance(nanos: u64) {
    tokio::time::advance(Duration::from_nanos(nanos)).await;
}

/// A duration in nanoseconds; half a millennium is for ever.
pub(super) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Locks, also after a panic elsewhere: simulations report panics as findings, not as more panics.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
