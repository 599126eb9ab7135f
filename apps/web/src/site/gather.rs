//! Requests that come while the server has much to do get their places together.
//!
//! A place at once would cost a step of the order for each of them, at every site, and would bring none
//! of them to the server any earlier. So they wait until the server has little left: just enough to be
//! busy until they are ordered.

use std::{cell::Cell, time::Duration};

use synod::runtime::world::Instant;
use tokio::{sync::Notify, time::sleep};

use super::Site;
use crate::Order as _;

/// How fast a server gets on, and what is on its way to it.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// When it ended something and went on with something else.
    ended: Cell<Option<Instant>>,
    /// From one end to the next, of late, while it was never idle.
    each: Cell<Duration>,
    /// Requests of this site that have no place yet and have asked for one.
    asking: Cell<u64>,
    /// Wakes who waits for others, when there is little left to do.
    little: Notify,
}

/// A request that asks for its place, until dropped.
#[derive(Debug)]
pub(super) struct Asking<'a>(&'a Pace);

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        self.0.asking.set(self.0.asking.get() - 1);
    }
}

impl Pace {
    /// It ended something; `busy`: and has something else to do.
    fn ended(&self, now: Instant, busy: bool) {
        if let Some(before) = self.ended.replace(busy.then_some(now)) {
            let took = now.since(before).min(EACH_MAX);
            self.each.set((self.each.get() * (LATELY - 1) + took) / LATELY);
        }
    }

    /// Whether so many are enough to keep it busy until more are ordered.
    fn is_enough(&self, ahead: u64) -> bool {
        let ahead = u32::try_from(ahead).unwrap_or(u32::MAX);
        self.each.get().saturating_mul(ahead) >= ENOUGH
    }

    fn asks(&self) -> Asking<'_> {
        self.asking.set(self.asking.get() + 1);
        Asking(self)
    }
}

/// How long it is from now to the moment for which all wait at most.
fn to_moment(now: Instant) -> Duration {
    let into = now.since(Instant::default()).as_nanos() % MOMENTS.as_nanos();
    MOMENTS - Duration::from_nanos(u64::try_from(into).unwrap_or_default())
}

impl Site {
    /// The server ended what it was asked then.
    pub(super) fn performed(&self, asked: Instant) {
        let (now, pace) = (self.0.clock.now(), &self.0.pace);
        self.0.metrics.performed(now.since(asked));
        pace.ended(now, self.behind() > 1);
        if !pace.is_enough(self.ahead()) {
            pace.little.notify_waiters();
        }
    }

    /// Waits for others who come, if it would wait for the server anyway. Until what this gives is
    /// dropped, those who come after know that this one asks for its place.
    pub(super) async fn gather(&self) -> Asking<'_> {
        let pace = &self.0.pace;
        if pace.is_enough(self.ahead()) {
            tokio::select! {
                biased;
                () = sleep(to_moment(self.0.clock.now())) => {}
                () = pace.little.notified() => {}
            }
        }
        pace.asks()
    }

    /// It has its place, for which it came then.
    pub(super) fn ordered(&self, asking: Asking<'_>, came: Instant) {
        drop(asking);
        self.0.metrics.ordered(self.0.clock.now().since(came));
    }

    /// What is to be performed before a request that comes now.
    fn ahead(&self) -> u64 {
        self.behind().saturating_add(self.0.pace.asking.get())
    }
}

/// As long as it takes to be ordered, on a busy machine.
const ENOUGH: Duration = Duration::from_millis(4);

/// However much there is to do, places are asked for so often: at another site the server may be faster.
const MOMENTS: Duration = Duration::from_millis(16);

/// Ends that the mean looks back upon, about.
const LATELY: u32 = 16;

/// One that hangs says little of the next.
const EACH_MAX: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_would_wait_for_the_server_gathers_and_nobody_else() {
        let pace = Pace::default();
        let mut now = Instant::default() + Duration::from_micros(1_000);
        assert!(!pace.is_enough(1_000), "nothing is known of it");
        for _ in 0..100 {
            now = now + Duration::from_micros(600);
            pace.ended(now, true);
        }
        assert!(!pace.is_enough(6), "it is soon free");
        assert!(pace.is_enough(7));
        for _ in 0..100 {
            now = now + Duration::from_micros(50);
            pace.ended(now, true);
        }
        assert!(!pace.is_enough(64), "so fast a server is not waited for");
        pace.ended(now, false);
        pace.ended(now + Duration::from_secs(9), true);
        assert!(!pace.is_enough(64), "it was idle meanwhile");
    }

    #[test]
    fn all_wait_for_the_same_moment_at_most() {
        let now = Instant::default() + Duration::from_micros(33_000);
        assert_eq!(to_moment(now), Duration::from_millis(15));
        assert_eq!(to_moment(now + Duration::from_micros(700)), Duration::from_micros(14_300));
        assert_eq!(to_moment(now + Duration::from_millis(15)), MOMENTS);
    }

    #[test]
    fn who_asks_for_a_place_is_counted_until_it_is_done() {
        let pace = Pace::default();
        let (one, other) = (pace.asks(), pace.asks());
        drop(one);
        assert_eq!(pace.asking.get(), 1);
        drop(other);
        assert_eq!(pace.asking.get(), 0);
    }
}
