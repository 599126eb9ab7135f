//! What happened in a trial, counted by name: a long series of trials can say what never did, and so
//! was never tested.

use std::collections::BTreeMap;

use synod_runtime::{
    identity::NodeId,
    sim::{FaultAction, FaultPlan},
};

use crate::{consensus::ballot::Ballot, server::core::Reached};

/// How often each thing happened: kinds of fault by their names, and what came of them.
pub type Seen = BTreeMap<&'static str, u64>;

/// What may come of faults, and does in any long series in which everything may go wrong.
pub const OUTCOMES: [&str; 6] = [FAIL_OVER, BRIDGE, VOTE_OUT, ADMISSION, GIVEN_UP, ANOTHER_NODE];

/// Another node leads than before.
const FAIL_OVER: &str = "another leads";
/// An auxiliary begins to complete steps.
const BRIDGE: &str = "auxiliary steps in";
/// A main is voted out.
const VOTE_OUT: &str = "main voted out";
/// A main is let in.
const ADMISSION: &str = "main let in";
/// A node stops by itself.
pub(super) const GIVEN_UP: &str = "node gives up";
/// A node forgot what it said and comes back as another one.
pub(super) const ANOTHER_NODE: &str = "another node of the name";

/// What of `seen` may happen under `plan` and did not; of outcomes only where everything may go wrong.
pub fn never_seen(plan: &FaultPlan, seen: &Seen) -> Vec<&'static str> {
    let outcomes = OUTCOMES.into_iter().filter(|_| *plan == FaultPlan::all());
    let wanted = plan.iter().map(|fault| fault.name()).chain(outcomes);
    wanted.filter(|name| seen.get(name).is_none_or(|count| *count == 0)).collect()
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Sights {
    pub(super) seen: Seen,
    leader: Option<(Ballot, NodeId)>,
    bridging: bool,
    /// The newest epoch heard of, and how many mains it has.
    mains: Option<(u64, usize)>,
}

impl Sights {
    /// It happened.
    pub(super) fn count(&mut self, what: &'static str) {
        *self.seen.entry(what).or_default() += 1;
    }

    /// That was done.
    pub(super) fn did(&mut self, action: &FaultAction) {
        action.kinds().into_iter().for_each(|kind| self.count(kind.name()));
    }

    /// How far each running node is at one moment.
    pub(super) fn look(&mut self, reached: &[Reached]) {
        let bridging = reached.iter().any(|one| one.bridging);
        if bridging && !self.bridging {
            self.count(BRIDGE);
        }
        self.bridging = bridging;
        let led = |one: &Reached| Some((one.leader.1, one.leader.0.clone()?));
        if let Some(leads) = reached.iter().filter_map(led).max_by_key(|(ballot, _)| *ballot) {
            if self.leader.as_ref().is_some_and(|before| before.0 < leads.0 && before.1 != leads.1)
            {
                self.count(FAIL_OVER);
            }
            self.leader = self.leader.take().max(Some(leads));
        }
        for configuration in reached.iter().filter_map(|one| one.configuration.as_ref()) {
            let (epoch, mains) = (configuration.epoch, configuration.mains.len());
            match self.mains {
                Some((newest, _)) if epoch <= newest => continue,
                Some((_, before)) if mains < before => self.count(VOTE_OUT),
                Some((_, before)) if mains > before => self.count(ADMISSION),
                Some(_) | None => {}
            }
            self.mains = Some((epoch, mains));
        }
    }
}
