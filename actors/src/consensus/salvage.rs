//! The state that the disk of a dead main holds, for a forced recovery: executed here once more,
//! without a cluster.

use bytes::Bytes;
use synod_runtime::identity::{Incarnation, NodeId};

use super::{
    ballot::Step,
    learner,
    message::{Execute, ReplicaMessage},
    record::{Image, Record},
    replica::{MakeMachines, Replica},
};
use crate::{
    effects::Effects,
    machine::{Machine as _, Now, Survived},
};

/// What was found.
#[derive(Debug)]
pub(crate) struct Salvage {
    /// The whole state after `step`.
    pub(crate) state: Bytes,
    /// The last step executed.
    pub(crate) step: u64,
    /// The last step that is known to have been chosen; those behind it were voted for here.
    pub(crate) certain: u64,
    /// The highest step anything is known of, above `step` when some are missing between.
    pub(crate) highest: u64,
}

/// Executes everything `survived` holds: the steps known to be chosen, then those this node voted
/// for. Each chosen step is among the two as long as this node was a main, so nothing that was
/// acknowledged while it was one is missing.
///
/// # Errors
/// A text for people.
pub(crate) fn salvage(
    survived: &Survived<Record, Image>,
    make: MakeMachines,
) -> Result<Salvage, String> {
    let name = "recovery".parse().expect("a good name");
    let me = NodeId::new(name, Incarnation(0));
    let mut replica = Replica::new(me.clone(), make, u64::MAX);
    let mut out = Effects::default();
    replica.start(Now::default(), survived, &mut out);
    let (first, ..) = replica.summary();
    let known = learner::known(survived);
    let certain = first.0 + known.chosen.len() as u64;
    let mut values = known.chosen;
    let mut next = Step(certain + 1);
    for (step, value) in &known.votes {
        if *step == next {
            values.push(value.clone());
            next = next.next();
        }
    }
    let highest = known.votes.last().map_or(certain, |(step, _)| step.0.max(certain));
    let execute = Execute { first: first.next(), values, answer_others: false };
    replica.message(Now::default(), &me, ReplicaMessage::Execute(execute), &mut out);
    if let Some(why) = replica.halted() {
        return Err(format!("the state cannot be made: {why}"));
    }
    let (step, ..) = replica.summary();
    if step.0 + 1 < next.0 {
        return Err(format!("a handler panicked behind step {step}, which needs its cluster"));
    }
    Ok(Salvage { state: replica.image(), step: step.0, certain, highest })
}
