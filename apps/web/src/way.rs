//! The way to the table that orders, for whoever asks a node: in the log, or in the group where the log
//! says that it is there.

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use synod::{
    message::RemoteMessage as _,
    replicated::{Consistency, Inquiry, Outcome, Refusal, Submission, Submit, name_hash},
};

use crate::order::{Elsewhere, IsElsewhere, NAME};

/// Asks the log each time: whoever looks after sites does that seldom.
pub(crate) struct WayIn {
    log: Arc<dyn Submit>,
    group: Arc<dyn Submit>,
}

impl WayIn {
    pub(crate) fn new(log: Arc<dyn Submit>, group: Arc<dyn Submit>) -> Self {
        Self { log, group }
    }

    /// Calls `then` with the way to go, or `refused` with why there is none.
    fn find(
        &self,
        deadline: Duration,
        then: impl FnOnce(Result<Arc<dyn Submit>, Refusal>) + Send + 'static,
    ) {
        let (log, group) = (Arc::clone(&self.log), Arc::clone(&self.group));
        let args = rmp_serde::to_vec_named(&IsElsewhere {}).expect("plain data encodes");
        self.log.query(vec![Inquiry {
            actor: name_hash(NAME),
            function: name_hash(IsElsewhere::NAME),
            args: Bytes::from(args),
            consistency: Consistency::Linearizable,
            deadline,
            done: Box::new(move |outcome| then(found(outcome, log, group))),
        }]);
    }
}

fn found(
    outcome: Outcome,
    log: Arc<dyn Submit>,
    group: Arc<dyn Submit>,
) -> Result<Arc<dyn Submit>, Refusal> {
    let why = match outcome {
        Outcome::Applied { reply, .. } => match rmp_serde::from_slice(&reply) {
            Ok(true) => return Ok(group),
            Ok(false) => return Ok(log),
            Err(why) => why.to_string(),
        },
        Outcome::NotApplied(refusal) => return Err(refusal),
        Outcome::Unknown(why) | Outcome::Failed(why) | Outcome::SessionExpired(why) => why,
    };
    Err(Refusal::from(format!("the log does not say where requests are ordered: {why}")))
}

impl Submit for WayIn {
    fn submit(&self, batch: Vec<Submission>) {
        let of_log = |one: &Submission| one.function == name_hash(Elsewhere::NAME);
        let (of_log, others): (Vec<_>, Vec<_>) = batch.into_iter().partition(of_log);
        if !of_log.is_empty() {
            self.log.submit(of_log);
        }
        let Some(deadline) = others.iter().map(|one| one.deadline).max() else { return };
        self.find(deadline, move |found| match found {
            Ok(way) => way.submit(others),
            Err(refusal) => {
                for one in others {
                    (one.done)(Outcome::NotApplied(refusal.clone()));
                }
            }
        });
    }

    fn query(&self, batch: Vec<Inquiry>) {
        let of_log = |one: &Inquiry| one.function == name_hash(IsElsewhere::NAME);
        let (of_log, others): (Vec<_>, Vec<_>) = batch.into_iter().partition(of_log);
        if !of_log.is_empty() {
            self.log.query(of_log);
        }
        let Some(deadline) = others.iter().map(|one| one.deadline).max() else { return };
        self.find(deadline, move |found| match found {
            Ok(way) => way.query(others),
            Err(refusal) => {
                for one in others {
                    (one.done)(Outcome::NotApplied(refusal.clone()));
                }
            }
        });
    }
}

impl fmt::Debug for WayIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WayIn").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
