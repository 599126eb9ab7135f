//! A main's own count: when it applied what, and what has run out by that (I2, I7).

use std::{collections::VecDeque, time::Duration};

use synod_runtime::world::Instant;

use super::{
    lease::{LEASE_MAX, LEASE_MIN, waits_for, waits_unconfirmed},
    message::Op,
    roles::Roles,
};
use crate::replicated::Position;

/// When this main applied which commands, by its own clock.
#[derive(Debug, Clone)]
pub struct Count {
    /// Everything up to that position counts from that instant: the start, or a state installed.
    floor: (Position, Instant),
    /// Commands applied since, each with all those after the one before it.
    applied: VecDeque<(Position, Instant)>,
    /// Nothing runs out before.
    due: Instant,
}

/// What has run out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overdue {
    /// What a leader proposes: who stands no more is dropped before any role is expired.
    pub ops: Vec<Op>,
    /// When to look again.
    pub next: Instant,
}

impl Count {
    /// A main that starts now: what it recovers counts from here.
    pub fn starting(now: Instant) -> Self {
        Self { floor: (Position(0), now), applied: VecDeque::new(), due: now }
    }

    /// The command at that position was applied at that time.
    pub fn applied(&mut self, at: Position, now: Instant) {
        while self.applied.len() > 1 && now.since(self.applied[0].1) > waits_for(LEASE_MAX) {
            self.floor = self.applied.pop_front().expect("there are two");
        }
        match self.applied.back_mut() {
            Some(last) if now < last.1 => last.0 = at,
            // Later than it was, never earlier: those who hold by it have stopped before.
            Some(_) | None => self.applied.push_back((at, now + GRAIN)),
        }
    }

    /// Somebody new holds or stands: that may run out sooner than all there was.
    pub fn changed(&mut self, now: Instant) {
        self.due = self.due.min(now + LEASE_MIN / 4);
    }

    /// A state up to that position was installed: all that is in it counts from now.
    pub fn installed(&mut self, upto: Position, now: Instant) {
        *self = Self::starting(if off!(InstalledCountsFromNow) { Instant::default() } else { now });
        self.floor.0 = upto;
    }

    /// When this main applied the command at `position`; never earlier than it did.
    pub fn since(&self, position: Position) -> Instant {
        if position <= self.floor.0 || off!(CountsFromApplying) {
            return self.floor.1;
        }
        let at = self.applied.partition_point(|(applied, _)| *applied < position);
        let newest = self.applied.back().map_or(self.floor.1, |(_, at)| *at);
        self.applied.get(at).map_or(newest, |(_, instant)| *instant)
    }

    /// What has run out by now; looks through the roles only when something may have.
    pub fn overdue(&mut self, roles: &Roles, now: Instant) -> Overdue {
        if now < self.due {
            return Overdue { ops: Vec::new(), next: self.due };
        }
        let (mut drops, mut expiries, mut next) = (Vec::new(), Vec::new(), None::<Instant>);
        let mut is_over = |until: Instant| {
            let over = until <= now;
            // What is over is looked at again soon: the command may have been lost.
            let look = if over { now + AGAIN } else { until };
            next = Some(next.map_or(look, |next| next.min(look)));
            over
        };
        for (id, role) in roles.iter() {
            for one in &role.volunteers {
                if !off!(StandingLapses)
                    && is_over(self.since(one.renewal) + waits_for(one.terms.lease()))
                {
                    let (client, renewal) = (one.client.key, one.renewal);
                    drops.push(Op::Drop { role: id, client, renewal });
                }
            }
            let Some(tenure) = role.tenure.as_ref().filter(|_| !role.is_built_in()) else {
                continue;
            };
            let lease = if off!(LeaseOfGrant) { LEASE_MIN } else { tenure.terms.lease() };
            let waits = if tenure.confirmed && !off!(RequestedWaitsLease) {
                waits_for(lease)
            } else {
                waits_unconfirmed(lease)
            };
            if is_over(self.since(tenure.renewal) + waits) {
                let (epoch, renewal) = (role.epoch, tenure.renewal);
                expiries.push(Op::Expire { role: id, epoch, renewal });
            }
        }
        self.due = next.unwrap_or(now + LEASE_MAX);
        drops.append(&mut expiries);
        drops.truncate(OPS_MAX);
        Overdue { ops: drops, next: self.due }
    }
}

/// Commands applied within this time count as applied at its end. It bounds what is remembered of
/// the longest lease, and is well below the 300 ms in which a role shall have changed hands.
const GRAIN: Duration = Duration::from_millis(2);

/// How soon to look again at what is over.
const AGAIN: Duration = Duration::from_millis(50);

/// What is proposed in one command; the rest follows.
const OPS_MAX: usize = 4_096;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::election::message::{Client, ClientKey, Epoch, Terms};

    fn at(ms: u64) -> Instant {
        Instant::from_nanos(ms * 1_000_000)
    }

    fn roles_with_one_standing() -> Roles {
        let (mut roles, mut changes) = (Roles::default(), Vec::new());
        let terms = Terms::new(Duration::from_secs(1), 0).unwrap();
        for number in [1, 2] {
            let key = ClientKey { service: 7, number };
            let client = Client { key, name: "one".to_owned(), node: "a".to_owned() };
            let take = Op::Take { role: "jobs".to_owned(), client, terms, stand: true };
            roles.apply(Position(number), take, &mut changes);
        }
        roles
    }

    #[test]
    fn a_lease_runs_out_by_the_time_of_applying_and_who_stands_first() {
        let (roles, mut count) = (roles_with_one_standing(), Count::starting(at(0)));
        count.applied(Position(1), at(500));
        count.applied(Position(2), at(600));
        assert_eq!(count.overdue(&roles, at(1_511)).ops, []);
        count.changed(at(1_510));
        let over = count.overdue(&roles, at(1_614)).ops;
        assert!(matches!(over[..], [Op::Drop { .. }, Op::Expire { epoch: Epoch(1), .. }]));
    }

    #[test]
    fn what_was_recovered_or_installed_counts_from_then() {
        let (roles, mut count) = (roles_with_one_standing(), Count::starting(at(0)));
        count.applied(Position(2), at(500));
        count.installed(Position(2), at(2_000));
        assert_eq!(count.since(Position(1)), at(2_000));
        assert_eq!(count.overdue(&roles, at(3_009)).ops, []);
        assert_eq!(count.overdue(&roles, at(3_010)).ops.len(), 2);
    }

    #[test]
    fn the_memory_of_a_busy_log_is_bounded() {
        let mut count = Count::starting(at(0));
        for position in 1..2_000_000 {
            count.applied(Position(position), at(position));
        }
        assert!(count.applied.len() < 400_000, "{}", count.applied.len());
        assert_eq!(count.since(Position(1_999_000)).as_nanos() / 1_000_000, 1_999_001);
    }
}
