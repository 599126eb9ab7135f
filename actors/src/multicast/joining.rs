//! How far a node is on its way into a group: whether it may count.

use super::{
    group::Group,
    message::{Seq, Step},
};

/// What the roles of the node said of it. Begun anew for every version of the group's servers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    version: u64,
    top: Option<Seq>,
    floor: Seq,
    filled: Seq,
    kept: Seq,
    /// Nothing: it has not heard from a sequencer what is.
    advertised: Option<Seq>,
}

impl Progress {
    /// Of a node that joins these servers.
    pub fn of(group: &Group) -> Self {
        Self { version: group.version, ..Self::default() }
    }

    /// A role came so far.
    pub fn note(&mut self, step: Step) {
        match step {
            Step::Adopted { version, floor, top } if version == self.version => {
                self.top = self.top.max(Some(top));
                self.floor = self.floor.max(floor);
            }
            Step::Adopted { .. } => {}
            Step::Filled(seq) => self.filled = self.filled.max(seq),
            Step::Kept(seq) => self.kept = self.kept.max(seq),
            Step::Advertised(seq) => self.advertised = self.advertised.max(Some(seq)),
        }
    }

    /// I10: it has every pair that may be committed by those before, every message up to the largest
    /// number in use then that no checkpoint here holds, and what is advertised.
    ///
    /// Where those before have dropped pairs, something above them was advertised once. A sequencer
    /// that is new may not have heard of it yet; but others can come from nothing else, and whoever
    /// keeps it may be the next to be replaced.
    pub fn is_in(&self) -> bool {
        let above_floor = |advertised: Seq| self.floor == Seq(0) || advertised > self.floor;
        self.top.is_some_and(|top| self.filled >= top)
            && self.advertised.is_some_and(|at| self.kept >= at && above_floor(at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_lacks_one_thing_is_not_in() {
        let group = Group { version: 3, ..Group::new("news", Vec::new()) };
        let steps = [
            Step::Adopted { version: 3, floor: Seq(0), top: Seq(7) },
            Step::Filled(Seq(7)),
            Step::Kept(Seq(5)),
            Step::Advertised(Seq(5)),
        ];
        for lacking in 0..steps.len() {
            let mut progress = Progress::of(&group);
            let others = steps.iter().enumerate().filter(|(at, _)| *at != lacking);
            others.for_each(|(_, step)| progress.note(*step));
            assert!(!progress.is_in(), "without {:?}", steps[lacking]);
            progress.note(steps[lacking]);
            assert!(progress.is_in());
        }
        let mut earlier = Progress::of(&group);
        earlier.note(Step::Adopted { version: 1, floor: Seq(0), top: Seq(0) });
        assert!(!earlier.is_in(), "of another version");
    }

    /// What others have dropped is in a checkpoint that was advertised: until a sequencer speaks of one
    /// above that, it has not got what others may need.
    #[test]
    fn who_has_no_checkpoint_above_what_others_dropped_is_not_in() {
        let mut progress = Progress::of(&Group { version: 3, ..Group::new("news", Vec::new()) });
        progress.note(Step::Adopted { version: 3, floor: Seq(5), top: Seq(7) });
        progress.note(Step::Filled(Seq(7)));
        progress.note(Step::Kept(Seq(6)));
        for advertised in [0, 5] {
            progress.note(Step::Advertised(Seq(advertised)));
            assert!(!progress.is_in(), "{advertised} is advertised");
        }
        progress.note(Step::Advertised(Seq(6)));
        assert!(progress.is_in());
    }
}
