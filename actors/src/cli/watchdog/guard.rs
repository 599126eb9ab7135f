//! When a program that leads must be asked to end, and when it must be gone: times only.

use std::time::Duration;

use synod_runtime::world::Instant;

/// The end of a lease, and how far its program is from its own end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Guard {
    lease: Duration,
    /// Nobody else leads before.
    until: Instant,
    /// How long a program has that was asked to end.
    within: Duration,
    /// Since when it is asked to end.
    asked: Option<Instant>,
    /// Nothing is waited for any more.
    at_once: bool,
}

/// What is to be done to the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Act {
    /// It may go on until the guard looks again.
    Nothing,
    /// It is to be asked to end: once.
    Terminate,
    /// It is to be ended.
    Kill,
}

impl Guard {
    pub(super) const fn new(lease: Duration, until: Instant, within: Duration) -> Self {
        Self { lease, until, within, asked: None, at_once: false }
    }

    /// The lease was renewed.
    pub(super) fn extend(&mut self, until: Instant) {
        self.until = self.until.max(until);
    }

    /// The lease is over although its time is not: somebody else may lead already.
    pub(super) const fn kill(&mut self) {
        self.at_once = true;
    }

    /// What is to be done now.
    pub(super) fn act(&mut self, now: Instant, end: bool) -> Act {
        if self.at_once || now >= self.kill_at() {
            return Act::Kill;
        }
        if self.asked.is_none() && (end || now >= self.terminate_at()) {
            self.asked = Some(now);
            return Act::Terminate;
        }
        Act::Nothing
    }

    /// When to look again, if nothing happens before.
    pub(super) fn next(&self) -> Instant {
        if self.asked.is_some() { self.kill_at() } else { self.terminate_at() }
    }

    /// In time: at the latest when [`MARGIN`] of the lease is left.
    fn kill_at(&self) -> Instant {
        let latest = self.until - MARGIN;
        self.asked.map_or(latest, |asked| latest.min(asked + self.within))
    }

    /// A third of what can be used: renewals that come late, and programs that end slowly, both
    /// get their share.
    fn terminate_at(&self) -> Instant {
        self.until - MARGIN - self.lease.saturating_sub(MARGIN) / 3
    }
}

/// What a busy machine may take to end a process by signal 9.
pub(super) const MARGIN: Duration = Duration::from_millis(100);

/// A program that was asked to end by a person has this long, as everything here has.
pub(in crate::cli) const END_TIME: Duration = Duration::from_secs(4);

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::from_nanos(ms * 1_000_000)
    }

    #[test]
    fn a_program_is_asked_in_time_and_gone_before_anybody_else_may_lead() {
        let mut guard = Guard::new(Duration::from_secs(2), at(2_000), END_TIME);
        let asked = guard.next();
        assert!(asked > at(1_000) && asked < at(1_500), "{asked:?}");
        assert_eq!(guard.act(at(1_000), false), Act::Nothing);
        assert_eq!(guard.act(asked, false), Act::Terminate);
        assert_eq!(guard.next(), at(1_900));
        assert_eq!(guard.act(at(1_899), false), Act::Nothing);
        assert_eq!(guard.act(at(1_900), false), Act::Kill);
        // One that was stopped itself, and wakes up late, asks nothing any more.
        let mut late = Guard::new(Duration::from_secs(2), at(2_000), END_TIME);
        assert_eq!(late.act(at(60_000), false), Act::Kill);
    }

    #[test]
    fn the_shortest_lease_leaves_time_for_a_renewal_and_an_orderly_end() {
        let lease = Duration::from_millis(300);
        let mut guard = Guard::new(lease, at(300), END_TIME);
        // Two renewals in a row may be lost.
        assert!(guard.next() > at(120) && guard.next() < at(200));
        guard.extend(at(360));
        guard.extend(at(310));
        assert_eq!(guard.act(at(160), false), Act::Nothing);
        assert_eq!(guard.act(at(260), false), Act::Kill);
    }

    #[test]
    fn a_program_that_is_to_end_has_a_while_and_no_more_however_often_the_lease_is_renewed() {
        let mut guard = Guard::new(Duration::from_secs(60), at(60_000), END_TIME);
        assert_eq!(guard.act(at(1_000), true), Act::Terminate);
        assert_eq!(guard.act(at(1_001), true), Act::Nothing);
        guard.extend(at(90_000));
        assert_eq!(guard.next(), at(5_000));
        assert_eq!(guard.act(at(5_000), true), Act::Kill);
    }

    #[test]
    fn a_lease_that_another_may_have_is_over_at_once() {
        let mut guard = Guard::new(Duration::from_secs(60), at(60_000), END_TIME);
        guard.kill();
        assert_eq!(guard.act(at(1), false), Act::Kill);
    }
}
