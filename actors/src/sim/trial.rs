//! One trial: a cluster, its clients and its nemesis, from founding to verdict.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
    time::Duration,
};

use synod_runtime::sim::{Fault, FaultPlan, Simulation, Weather};

use super::{
    clients::Clients,
    cluster::{Blueprint, Cluster, Shape},
    director::{Director, Story},
    finale,
    properties::{Property, Violation, judge},
    sights::Seen,
    witness::{NAME, Witness},
};
use crate::consensus::{Profile, VoteStyle};

/// What a trial is like, apart from its seed.
#[derive(Debug, Clone)]
pub struct Trial {
    /// The cluster.
    pub shape: Shape,
    /// What lies between its nodes: their patience, and the weather when nothing is wrong.
    pub profile: Profile,
    /// What may go wrong.
    pub plan: FaultPlan,
    /// How long things go wrong, in simulated time. What follows is bounded too, see
    /// [`LIVENESS_MAX`](super::LIVENESS_MAX).
    pub length: Duration,
}

/// What came of a trial. Equal for equal seeds and trials, on every machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Its seed.
    pub seed: u64,
    /// Steps of the log executed.
    pub steps: u64,
    /// Faults that were put in.
    pub faults: u64,
    /// Calls that clients made, and those of them that were acknowledged.
    pub calls: (u64, u64),
    /// What happened, and how often.
    pub seen: Seen,
    /// One number for all that happened.
    pub digest: u64,
    /// What did not hold.
    pub violations: Vec<Violation>,
    /// What was done to the cluster, and when: for whoever looks for the reason.
    pub story: Vec<String>,
}

impl Default for Trial {
    /// Two mains and an auxiliary, everything goes wrong for a minute's length.
    fn default() -> Self {
        let length = Duration::from_secs(60);
        Self { shape: Shape::default(), profile: Profile::Lan, plan: FaultPlan::all(), length }
    }
}

impl Trial {
    /// Runs the trial of a seed.
    pub fn run(&self, seed: u64) -> Report {
        let sim = Simulation::new(seed);
        let story = Story::default();
        let ended =
            catch_unwind(AssertUnwindSafe(|| sim.run(|sim| self.conduct(sim, Rc::clone(&story)))));
        let story = story.take();
        match ended {
            Ok(report) => Report { story, ..report },
            Err(panic) => {
                let what = format!("panicked: {}", words(panic.as_ref()));
                let violations = vec![Violation::new(Property::Soundness, what)];
                let digest = sim.trace_digest();
                let (calls, seen) = ((0, 0), Seen::new());
                Report { seed, steps: 0, faults: 0, calls, seen, digest, violations, story }
            }
        }
    }

    async fn conduct(&self, sim: Simulation, story: Story) -> Report {
        let style = if sim.seed() % 4 == 3 { VoteStyle::Piggyback } else { VoteStyle::Split };
        sim.set_climate(match self.profile {
            Profile::Lan => Weather::default(),
            Profile::Wan => Weather::wan(),
        });
        let timing = self.profile.timing();
        let blueprint = Blueprint { style, timing, ..Blueprint::hosting::<Witness>(NAME) };
        let cluster = Cluster::new(&sim, self.shape, blueprint);
        let mut director = Director::new(cluster, self.plan.clone(), self.length, story);
        let stumbling = self.plan.has(Fault::Panic);
        let clients = Clients::new(&director.cluster, &director.record, stumbling);
        director.found().await;
        let before = finale::auxiliary_work(&director.cluster.borrow());
        clients.start();
        director.trouble().await;
        finale::play(&mut director, &clients).await;
        if self.plan == FaultPlan::none() {
            finale::compare_auxiliaries(&director, &before);
        }
        director.settle();
        report(&director)
    }
}

fn report(director: &Director) -> Report {
    let cluster = director.cluster.borrow();
    let reached: Vec<_> =
        cluster.mains().iter().filter_map(|n| cluster.core(n)).map(|c| c.reached()).collect();
    let record = director.record.open();
    let acknowledged = record.calls.iter().filter(|call| call.applied.is_some()).count();
    let state = reached.iter().map(|r| r.digest).fold(0, u64::wrapping_add);
    Report {
        seed: director.sim.seed(),
        steps: reached.iter().map(|r| r.step.0).max().unwrap_or(0),
        faults: director.faults,
        calls: (record.calls.len() as u64, acknowledged as u64),
        seen: director.sights.seen.clone(),
        digest: director.sim.trace_digest() ^ state.rotate_left(17),
        violations: judge(&record),
        story: Vec::new(),
    }
}

/// What a panic said.
pub(super) fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    let text = text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
    text.unwrap_or_else(|| "something that is no text".to_owned())
}
