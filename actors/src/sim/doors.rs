//! Ways into the log that outlast the nodes behind them.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use synod_runtime::identity::NodeName;

use crate::replicated::{Inquiry, Outcome, Reason, Refusal, Submission, Submit};

/// The ways in at the mains that run. Cloning gives another handle to the same.
#[derive(Clone, Default)]
pub(super) struct Doors(Arc<Mutex<BTreeMap<NodeName, Arc<dyn Submit>>>>);

/// The way in at one main while it runs, else at another: what a client with all addresses does.
struct Door {
    doors: Doors,
    first: NodeName,
}

impl Doors {
    pub(super) fn open(&self, main: &NodeName, way: Arc<dyn Submit>) {
        self.lock().insert(main.clone(), way);
    }

    pub(super) fn close(&self, main: &NodeName) {
        self.lock().remove(main);
    }

    pub(super) fn door(&self, first: &NodeName) -> Arc<dyn Submit> {
        Arc::new(Door { doors: self.clone(), first: first.clone() })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<NodeName, Arc<dyn Submit>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Door {
    fn way(&self) -> Option<Arc<dyn Submit>> {
        let ways = self.doors.lock();
        ways.get(&self.first).or_else(|| ways.values().next()).cloned()
    }
}

fn nobody() -> Outcome {
    Outcome::NotApplied(Refusal::new(Reason::Unavailable, "no main runs"))
}

impl Submit for Door {
    fn submit(&self, batch: Vec<Submission>) {
        match self.way() {
            Some(way) => way.submit(batch),
            None => batch.into_iter().for_each(|submission| (submission.done)(nobody())),
        }
    }

    fn query(&self, batch: Vec<Inquiry>) {
        match self.way() {
            Some(way) => way.query(batch),
            None => batch.into_iter().for_each(|inquiry| (inquiry.done)(nobody())),
        }
    }
}

impl fmt::Debug for Doors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.lock().keys()).finish()
    }
}
