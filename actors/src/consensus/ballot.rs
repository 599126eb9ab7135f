//! Steps and ballots.

use std::fmt;

use serde::{Deserialize, Serialize};
use synod_runtime::identity::Incarnation;

/// A place in the log; the first is 1. A step holds a batch of commands.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug, Serialize, Deserialize,
)]
pub struct Step(pub u64);

impl Step {
    /// The step after this.
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// The step `by` later.
    pub const fn plus(self, by: u64) -> Self {
        Self(self.0 + by)
    }

    /// How many steps this is beyond `other`; zero when it is not.
    pub const fn beyond(self, other: Self) -> u64 {
        self.0.saturating_sub(other.0)
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A proposal identifier, for all steps at once (Cheap Paxos, claims 12 and 13). Two nodes never
/// use the same ballot (R1.22), and a node never uses one twice, also not after a restart.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Ballot {
    /// The higher round wins.
    pub round: u64,
    /// Ballots tie-break on the node, so two nodes' ballots never compare equal.
    pub node: Incarnation,
}

impl fmt::Display for Ballot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.round, self.node)
    }
}

impl fmt::Debug for Ballot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// A run of consecutive steps, both ends included; never empty.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Run {
    /// The first step.
    pub first: Step,
    /// The last step.
    pub last: Step,
}

impl Run {
    /// The steps `first..=last`, if there are any.
    pub fn new(first: Step, last: Step) -> Option<Self> {
        (first <= last).then_some(Self { first, last })
    }

    /// Whether `step` is one of them.
    pub fn holds(self, step: Step) -> bool {
        self.first <= step && step <= self.last
    }
}

/// A set of steps, kept as runs in rising order. Small: votes come in long runs.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Runs(Vec<Run>);

impl Runs {
    /// Adds the steps of `run`.
    pub fn add(&mut self, run: Run) {
        if let Some(last) = self.0.last_mut()
            && run.first >= last.first
            && run.first <= last.last.next()
        {
            last.last = last.last.max(run.last);
            return;
        }
        let mut merged = run;
        self.0.retain(|old| {
            let apart = old.last.next() < merged.first || merged.last.next() < old.first;
            if !apart {
                merged.first = merged.first.min(old.first);
                merged.last = merged.last.max(old.last);
            }
            apart
        });
        let at = self.0.partition_point(|old| old.first < merged.first);
        self.0.insert(at, merged);
    }

    /// Whether `step` is in the set.
    pub fn holds(&self, step: Step) -> bool {
        self.0.iter().rev().any(|run| run.holds(step))
    }

    /// The last step of the run that holds `step`, if any does.
    pub fn end_of(&self, step: Step) -> Option<Step> {
        self.0.iter().find(|run| run.holds(step)).map(|run| run.last)
    }

    /// Forgets steps at or below `upto`; answers whether none is left.
    pub fn forget(&mut self, upto: Step) -> bool {
        self.0.retain_mut(|run| {
            run.first = run.first.max(upto.next());
            run.first <= run.last
        });
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_a_set_of_steps_whatever_the_order_they_came_in() {
        let run = |a, b| Run::new(Step(a), Step(b)).unwrap();
        let mut runs = Runs::default();
        for r in [run(5, 6), run(1, 2), run(9, 9), run(3, 4), run(7, 8)] {
            runs.add(r);
        }
        assert_eq!(runs.0, vec![run(1, 9)]);
        runs.add(run(20, 22));
        assert!(runs.holds(Step(21)) && !runs.holds(Step(15)));
        assert_eq!((runs.end_of(Step(2)), runs.end_of(Step(15))), (Some(Step(9)), None));
        assert!(!runs.forget(Step(20)));
        assert!(!runs.holds(Step(20)) && runs.holds(Step(22)));
        assert!(runs.forget(Step(22)));
    }
}
