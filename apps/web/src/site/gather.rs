//! Requests that come while the server has much to do get their places together.
//!
//! A place at once would cost a step of the order for each of them, at every site, and would bring none
//! of them to the server any earlier.

use std::{cell::Cell, time::Duration};

use synod::runtime::world::Instant;
use tokio::time::sleep;

use super::Site;
use crate::Order as _;

/// How fast a server gets on.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// When it ended something and went on with something else.
    ended: Cell<Option<Instant>>,
    /// From one end to the next, of late, while it was never idle.
    each: Cell<Duration>,
}

impl Pace {
    /// It ended something; `busy`: and has something else to do.
    fn ended(&self, now: Instant, busy: bool) {
        if let Some(before) = self.ended.replace(busy.then_some(now)) {
            let took = now.since(before).min(EACH_MAX);
            self.each.set((self.each.get() * (LATELY - 1) + took) / LATELY);
        }
    }

    /// How long who comes now shall wait for others, with so many ahead at the server; none: not at all.
    fn wait(&self, now: Instant, ahead: u64) -> Option<Duration> {
        let ahead = self.each.get().saturating_mul(u32::try_from(ahead).unwrap_or(u32::MAX));
        // All wait for the same moment.
        let into = now.since(Instant::default()).as_nanos() % TOGETHER.as_nanos();
        let left = TOGETHER - Duration::from_nanos(u64::try_from(into).unwrap_or_default());
        (ahead >= AHEAD_MIN).then_some(left)
    }
}

impl Site {
    /// The server ended what it was asked then.
    pub(super) fn performed(&self, asked: Instant) {
        let now = self.0.clock.now();
        self.0.metrics.performed(now.since(asked));
        self.0.pace.ended(now, self.behind() > 1);
    }

    /// Waits for others who come, if it would wait for the server anyway.
    pub(super) async fn gather(&self) {
        if let Some(wait) = self.0.pace.wait(self.0.clock.now(), self.behind()) {
            sleep(wait).await;
        }
    }
}

/// Places are given so often while the server has enough to do: some hundred steps a second.
const TOGETHER: Duration = Duration::from_millis(3);

/// Enough is what lasts longer than to gather, and to give places then.
const AHEAD_MIN: Duration = Duration::from_millis(7);

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
        assert_eq!(pace.wait(now, 1_000), None, "nothing is known of it");
        for _ in 0..100 {
            now = now + Duration::from_micros(600);
            pace.ended(now, true);
        }
        assert_eq!(now.as_nanos(), 61_000_000);
        assert_eq!(pace.wait(now, 5), None, "it is soon free");
        assert_eq!(pace.wait(now, 20), Some(Duration::from_millis(2)));
        let later = now + Duration::from_micros(700);
        assert_eq!(pace.wait(later, 20), Some(Duration::from_micros(1_300)), "the same moment");
        for _ in 0..100 {
            now = now + Duration::from_micros(50);
            pace.ended(now, true);
        }
        assert_eq!(pace.wait(now, 64), None, "so fast a server is not waited for");
        pace.ended(now, false);
        pace.ended(now + Duration::from_secs(9), true);
        assert_eq!(pace.wait(now, 64), None, "it was idle meanwhile");
    }
}
