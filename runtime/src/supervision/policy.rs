//! When an actor is rebuilt, and how long after its end.

use std::{collections::VecDeque, time::Duration};

use rand::RngExt as _;

use crate::world::{Instant, Rng};

/// When and how often a supervised actor is rebuilt.
///
/// ```
#[doc = include_str!("../../docs/examples/till.txt")]
/// use synod_runtime::supervision::{Fault, Policy};
///
/// let policy = Policy {
///     backoff_first: Duration::from_millis(10),
///     give_up: Some((3, Duration::from_secs(60))), // more than three restarts a minute end it
///     ..Policy::default()
/// };
/// let careful = b.spawn_with("careful", policy, Till::default).unwrap();
/// assert_eq!(careful.send(Pay(5)).await, Ok(5));
/// b.inject("careful", Fault::Panic);
/// assert_eq!(careful.send(Pay(1)).await, Ok(1)); // rebuilt, behind the same address
/// # });
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// After which ends.
    pub restart: Restart,
    /// The wait before the second restart in a row; it doubles with each further one. The first
    /// restart after a quiet period does not wait.
    pub backoff_first: Duration,
    /// The wait never grows beyond this.
    pub backoff_max: Duration,
    /// An actor that lived this long has proved itself: its next restart does not wait.
    pub quiet: Duration,
    /// More restarts than this within the time end the actor for good. `None` never gives up: a
    /// role that is gone for good would be a node that is half dead.
    pub give_up: Option<(u32, Duration)>,
    /// How much it may do before the others on its arbiter get their turn.
    pub turn: TurnBudget,
}

/// How much one actor does in a turn before the others on its arbiter get theirs. actix itself
/// drains a mailbox without end, so that a flooded actor would starve its neighbours and its own
/// timers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TurnBudget {
    /// Messages at most.
    pub messages: u32,
    /// A turn that took this long ends after the message in hand. The clock is read after the
    /// first message, the second, the fourth and so on, which costs next to nothing and lets a
    /// turn of even messages last twice as long at most.
    pub time: Duration,
}

impl Default for TurnBudget {
    fn default() -> Self {
        // What elfo settled on: long enough to pay for the switch, short beside any deadline.
        Self { messages: 64, time: Duration::from_millis(5) }
    }
}

impl TurnBudget {
    /// No bound, as with plain actix: for comparison.
    pub const UNLIMITED: Self = Self { messages: u32::MAX, time: Duration::MAX };
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            restart: Restart::Always,
            backoff_first: Duration::from_millis(50),
            backoff_max: Duration::from_secs(5),
            quiet: Duration::from_secs(10),
            give_up: None,
            turn: TurnBudget::default(),
        }
    }
}

/// After which ends an actor is rebuilt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restart {
    /// After a panic and after a stop of its own (roles).
    Always,
    /// After a panic only: it may end itself.
    OnPanic,
    /// Never: supervision only reports its end.
    Never,
}

/// The restarts of one actor so far, as far as they matter for the next.
#[derive(Debug, Default)]
pub(super) struct History {
    backoff: Backoff,
    budget: Budget,
}

impl History {
    /// The actor was (re)built at `now`.
    pub(super) fn started(&mut self, now: Instant) {
        self.backoff.started(now);
    }

    /// How long to wait before the next restart; `None` when the budget is spent.
    pub(super) fn next(
        &mut self,
        policy: &Policy,
        now: Instant,
        rng: &mut Rng,
    ) -> Option<Duration> {
        if policy.give_up.is_some_and(|limit| !self.budget.spend(now, limit)) {
            return None;
        }
        Some(self.backoff.wait(policy, now, rng))
    }
}

/// How often there were restarts lately.
#[derive(Debug, Default)]
pub(super) struct Budget {
    /// When the last restarts were, as many as the limit counts.
    recent: VecDeque<Instant>,
}

impl Budget {
    /// Counts one more restart; answers whether the limit allows it.
    pub(super) fn spend(&mut self, now: Instant, (restarts, within): (u32, Duration)) -> bool {
        while self.recent.front().is_some_and(|then| now.since(*then) >= within) {
            self.recent.pop_front();
        }
        let left = self.recent.len() < restarts as usize;
        if left {
            self.recent.push_back(now);
        }
        left
    }
}

/// How long to wait before the next restart.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    /// Restarts since the last quiet period.
    in_a_row: u32,
    started: Instant,
}

impl Backoff {
    /// The actor was (re)built at `now`.
    pub(super) fn started(&mut self, now: Instant) {
        self.started = now;
    }

    /// It has ended at `now`.
    pub(super) fn wait(&mut self, policy: &Policy, now: Instant, rng: &mut Rng) -> Duration {
        if now.since(self.started) >= policy.quiet {
            self.in_a_row = 0;
        }
        self.in_a_row = self.in_a_row.saturating_add(1);
        if self.in_a_row == 1 {
            return Duration::ZERO;
        }
        // 2^16 first waits are beyond any longest wait: the cap only keeps the shift in range.
        let doubled = policy.backoff_first.saturating_mul(1 << (self.in_a_row - 2).min(16));
        let whole = doubled.min(policy.backoff_max);
        // Half of it is drawn, so that actors that fell together do not rise together.
        whole.mul_f64(rng.random_range(0.5..=1.0))
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;

    use super::*;

    #[test]
    fn the_first_restart_is_immediate_and_later_ones_wait_longer() {
        let (policy, mut rng) = (Policy::default(), Rng::seed_from_u64(1));
        let mut history = History::default();
        let mut now = Instant::from_nanos(1);
        history.started(now);
        assert_eq!(history.next(&policy, now, &mut rng), Some(Duration::ZERO));
        for in_a_row in 0..20 {
            history.started(now);
            let wait = history.next(&policy, now, &mut rng).unwrap();
            let whole = (policy.backoff_first * 2u32.pow(in_a_row)).min(policy.backoff_max);
            assert!(wait >= whole / 2 && wait <= whole, "{in_a_row}: {wait:?}");
        }
        history.started(now);
        now = now + policy.quiet;
        assert_eq!(history.next(&policy, now, &mut rng), Some(Duration::ZERO));
    }

    #[test]
    fn a_spent_budget_ends_the_actor_and_refills_with_time() {
        let within = Duration::from_secs(10);
        let policy = Policy { give_up: Some((3, within)), ..Policy::default() };
        let mut rng = Rng::seed_from_u64(1);
        let mut history = History::default();
        let now = Instant::from_nanos(1);
        for _ in 0..3 {
            assert!(history.next(&policy, now, &mut rng).is_some());
        }
        assert_eq!(history.next(&policy, now, &mut rng), None);
        assert!(history.next(&policy, now + within, &mut rng).is_some());
    }
}
