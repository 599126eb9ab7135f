//! The services of one role at the node that leads in it: which programs run, and when the role may
//! be given up. Often it is one service; those that are placed together share a role.
//!
//! - U1: a program is begun only while the unit goes on: it neither leaves, nor lapses, nor failed.
//! - U2: the role is given up in order only once every program is gone (G4).
//! - U3: one program that cannot be kept running takes the others with it: all move together.
//! - U4: what may not run here for a while ends, and begins again when it may; the role is kept.

use std::collections::BTreeMap;

use synod_runtime::world::Instant;

use super::{
    run::{Act, Over, Run},
    table::Task,
};

/// What is to be done about which service.
pub type Deed = (String, Act);

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct Unit {
    jobs: BTreeMap<String, Job>,
    leaves: bool,
    lapses: bool,
    failed: bool,
}

#[derive(Debug, Default)]
struct Job {
    /// What is to be done; `None`: there is no such service any more.
    task: Option<Task>,
    /// Its program, and which making of the service that is of.
    run: Option<(u64, Run)>,
    /// The table knows how it is.
    told: bool,
}

impl Unit {
    /// What the table wants now.
    pub fn wants(&mut self, tasks: &[Task]) {
        for job in self.jobs.values_mut() {
            job.task = None;
        }
        for task in tasks {
            let job = self.jobs.entry(task.spec.name.clone()).or_default();
            job.task = Some(task.clone());
        }
    }

    /// It is to be given up, in order.
    pub const fn leave(&mut self) {
        self.leaves = true;
    }

    /// The lease is not renewed: whoever guards the programs has asked them to end, or does so now.
    pub const fn lapse(&mut self) {
        self.lapses = true;
    }

    /// Whether it is given up.
    pub const fn leaves(&self) -> bool {
        self.leaves
    }

    /// What is to be done now.
    pub fn acts(&mut self, now: Instant) -> Vec<Deed> {
        let mut deeds = Vec::new();
        let goes_on = !self.leaves && !self.lapses && !self.failed;
        for (name, job) in &mut self.jobs {
            let acts = job.acts(now, goes_on, self.lapses);
            deeds.extend(acts.into_iter().map(|act| (name.clone(), act)));
            self.failed |= job.settle();
        }
        self.jobs.retain(|_, job| job.task.is_some() || job.run.is_some());
        deeds
    }

    /// The answer to a probe of that service.
    pub fn probed(&mut self, service: &str, now: Instant, yes: bool) -> Vec<Deed> {
        self.of(service, |run| run.probed(now, yes))
    }

    /// The program of that service is gone, or could not be started.
    pub fn gone(&mut self, service: &str, now: Instant) -> Vec<Deed> {
        let deeds = self.of(service, |run| run.gone(now));
        self.failed |= self.jobs.get_mut(service).is_some_and(Job::settle); // U3
        deeds
    }

    /// Whether the role may be given up, and why. No program runs then.
    pub fn over(&self) -> Option<Over> {
        let runs = self.jobs.values().any(|job| job.run.is_some());
        if runs && when_on!(GivesUpWhenGone) {
            return None; // U2
        }
        match self {
            Self { lapses: true, .. } => Some(Over::Lapsed),
            Self { failed: true, .. } => Some(Over::Failed),
            Self { leaves: true, .. } => Some(Over::Stopped),
            Self { .. } => None, // U4
        }
    }

    /// When to look again, if nothing happens before.
    pub fn deadline(&self) -> Option<Instant> {
        self.jobs.values().filter_map(|job| job.run.as_ref()?.1.deadline()).min()
    }

    fn of(&mut self, service: &str, what: impl FnOnce(&mut Run) -> Vec<Act>) -> Vec<Deed> {
        let run = self.jobs.get_mut(service).and_then(|job| job.run.as_mut());
        let acts = run.map(|(_, run)| what(run)).unwrap_or_default();
        acts.into_iter().map(|act| (service.to_owned(), act)).collect()
    }
}

impl Job {
    fn acts(&mut self, now: Instant, goes_on: bool, lapses: bool) -> Vec<Act> {
        let task = self.task.as_ref().filter(|task| goes_on && task.may_run);
        let mut acts = Vec::new();
        if self.run.is_none()
            && let Some(task) = task
        {
            self.run = Some((task.made, Run::new(task.spec.clone(), now))); // U1
        }
        match &mut self.run {
            Some((made, run)) => {
                self.told = true;
                if task.is_none_or(|task| task.made != *made) {
                    run.unwanted();
                }
                if lapses {
                    run.lapsing();
                }
                run.needed(self.task.as_ref().and_then(|task| task.needed));
                acts.extend(run.acts(now));
            }
            None if !self.told => {
                self.told = true;
                acts.push(Act::Tell(super::message::State::Stopped));
            }
            None => {}
        }
        acts
    }

    /// Forgets a program that is gone for good; whether it failed.
    fn settle(&mut self) -> bool {
        let over = self.run.as_ref().and_then(|(_, run)| run.over());
        if over.is_some() {
            self.run = None;
        }
        over == Some(Over::Failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::management::message::{Spec, State};

    fn at(ms: u64) -> Instant {
        Instant::from_nanos(ms * 1_000_000)
    }

    fn task(name: &str, may_run: bool) -> Task {
        let spec = Spec { restarts: 0, ..Spec::new(name, &[name]) };
        Task { spec, made: 1, may_run, needed: None }
    }

    fn deed(name: &str, act: Act) -> Deed {
        (name.to_owned(), act)
    }

    fn unit(tasks: &[Task]) -> Unit {
        let mut unit = Unit::default();
        unit.wants(tasks);
        unit
    }

    #[test]
    fn the_role_is_given_up_only_once_every_program_is_gone() {
        let mut unit = unit(&[task("db", true), task("web", true)]);
        let begun = unit.acts(at(0));
        assert_eq!(begun[0], deed("db", Act::Start));
        assert_eq!(begun[2], deed("web", Act::Start));
        unit.leave();
        let ends = unit.acts(at(1));
        assert_eq!(ends[0], deed("db", Act::End));
        assert_eq!(ends[2], deed("web", Act::End));
        assert_eq!(unit.over(), None);
        unit.gone("db", at(2));
        assert!(unit.acts(at(2)).is_empty(), "nothing begins in a unit that leaves");
        assert_eq!(unit.over(), None, "web runs");
        assert_eq!(unit.gone("web", at(3)), [deed("web", Act::Tell(State::Stopped))]);
        assert_eq!(unit.over(), Some(Over::Stopped));
    }

    #[test]
    fn what_may_not_run_ends_and_begins_again_and_the_role_is_kept() {
        let mut unit = unit(&[task("web", false)]);
        assert_eq!(unit.acts(at(0)), [deed("web", Act::Tell(State::Stopped))]);
        assert_eq!((unit.acts(at(1)), unit.over()), (Vec::new(), None));
        unit.wants(&[task("web", true)]);
        assert_eq!(unit.acts(at(2))[0], deed("web", Act::Start));
        unit.wants(&[task("web", false)]);
        assert_eq!(unit.acts(at(3))[0], deed("web", Act::End));
        unit.wants(&[task("web", true)]);
        assert!(unit.acts(at(4)).is_empty(), "the one before is not gone");
        unit.gone("web", at(5));
        assert_eq!(unit.over(), None);
        assert_eq!(unit.acts(at(5))[0], deed("web", Act::Start));
    }

    #[test]
    fn one_that_fails_takes_the_others_with_it() {
        let mut unit = unit(&[task("db", true), task("web", true)]);
        unit.acts(at(0));
        assert_eq!(unit.gone("web", at(1)), [deed("web", Act::Tell(State::Failed))]);
        assert_eq!(unit.acts(at(1))[0], deed("db", Act::End));
        assert_eq!(unit.over(), None);
        unit.gone("db", at(2));
        assert_eq!(unit.over(), Some(Over::Failed));
    }

    #[test]
    fn one_of_the_same_name_that_is_made_anew_is_another() {
        let mut unit = unit(&[task("web", true)]);
        unit.acts(at(0));
        unit.wants(&[Task { made: 2, ..task("web", true) }]);
        assert_eq!(unit.acts(at(1))[0], deed("web", Act::End));
        unit.gone("web", at(2));
        assert_eq!(unit.acts(at(2))[0], deed("web", Act::Start));
        unit.wants(&[]);
        unit.acts(at(3));
        unit.gone("web", at(4));
        assert!(unit.acts(at(4)).is_empty());
        assert_eq!(unit.over(), None, "nobody said that it leaves");
    }

    #[test]
    fn a_lease_that_is_not_renewed_ends_all_and_begins_nothing() {
        let mut unit = unit(&[task("web", true)]);
        unit.lapse();
        assert_eq!(unit.acts(at(0)), [deed("web", Act::Tell(State::Stopped))]);
        assert_eq!(unit.over(), Some(Over::Lapsed));
    }
}
