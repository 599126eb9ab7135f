//! What was observed so far, across all nodes and all their lives; judged as it comes.

use std::collections::BTreeMap;

use synod::consensus::{
    ballot::{Ballot, Run, Step},
    configuration::{ALPHA, Configuration},
    message::{AcceptorMessage, LearnerMessage, Message, ProposerMessage},
    value::{Decoded, Value},
};
use synod_runtime::identity::{Incarnation, NodeId};

use super::{
    disk::Disk,
    node::{Node, Role},
};
use crate::invariants::{
    Violation, agreement, epochs, equal_states, one_value, promises, said_is_durable,
};

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Book {
    /// What was learned, from step 1 on.
    pub(crate) chosen: Vec<Value>,
    /// The configurations, each with the first step it decides.
    pub(crate) configurations: Vec<(Step, Configuration)>,
    states: BTreeMap<Step, (u64, u64)>,
    promised: BTreeMap<Incarnation, Ballot>,
    proposed: BTreeMap<(Step, Ballot), Value>,
    /// Whether to look into the machines too, or to judge only what leaves the cluster.
    inside: bool,
}

impl Book {
    pub(crate) fn new(genesis: Configuration, inside: bool) -> Self {
        Self {
            chosen: Vec::new(),
            configurations: vec![(Step(1), genesis)],
            states: BTreeMap::new(),
            promised: BTreeMap::new(),
            proposed: BTreeMap::new(),
            inside,
        }
    }

    /// The newest configuration that was chosen.
    pub(crate) fn newest(&self) -> &Configuration {
        &self.configurations.last().expect("there is a first").1
    }

    /// The configuration that decides the first step nobody knows to be chosen.
    pub(crate) fn current(&self) -> &Configuration {
        let next = Step(self.chosen.len() as u64 + 1);
        let found = self.configurations.iter().rev().find(|(from, _)| *from <= next);
        &found.expect("there is a first").1
    }

    /// The configuration that decides that step, and those of later steps.
    pub(crate) fn since(&self, step: Step) -> impl Iterator<Item = &Configuration> {
        let later = self.configurations.partition_point(|(from, _)| *from <= step);
        self.configurations[later.saturating_sub(1)..].iter().map(|(_, decides)| decides)
    }

    /// A disk took away promises that were said: what comes of that is judged, not the promises.
    pub(crate) fn forgets_promises(&mut self, node: &NodeId) {
        self.promised.remove(&node.incarnation);
    }

    /// Looks at what the learner of `node` learned since the last look.
    pub(crate) fn learned(&mut self, node: &mut Node) -> Result<(), Violation> {
        let Some(learner) = node.learner() else { return Ok(()) };
        let executed = learner.history().executed().0;
        let mut checked = node.checked;
        while checked < executed {
            checked += 1;
            let step = Step(checked);
            // Below its snapshot a node knows no values, only their effect.
            let Some(value) = learner.chosen(step) else { continue };
            agreement::check(&self.chosen, &node.id, step, value)?;
            if checked > self.chosen.len() as u64 {
                self.choose(step, value.clone())?;
            }
        }
        if executed > self.chosen.len() as u64 {
            let seen = format!("{} executed step {executed}, which nobody learned", node.id);
            return Err(Violation::new("agreement", seen));
        }
        node.checked = checked;
        Ok(())
    }

    fn choose(&mut self, step: Step, value: Value) -> Result<(), Violation> {
        if value.is_configuration()
            && let Ok(Decoded::Configuration(next)) = value.decode()
        {
            epochs::check(self.newest(), &next)?;
            self.configurations.push((step.plus(ALPHA), next));
        }
        self.chosen.push(value);
        Ok(())
    }

    /// Looks at the state of the replica of `node`.
    pub(crate) fn executed(&mut self, node: &Node) -> Result<(), Violation> {
        let Some(replica) = node.replica() else { return Ok(()) };
        if let Some(why) = replica.halted() {
            return Err(Violation::new("equal_states", format!("{} halted: {why}", node.id)));
        }
        let (step, position, digest) = replica.summary();
        equal_states::check(&self.states, &node.id, (step, position, digest))?;
        self.states.insert(step, (position, digest));
        Ok(())
    }

    /// Listens to what a role says at this very moment.
    pub(crate) fn said(
        &mut self,
        node: &NodeId,
        disk: &Disk,
        role: Role,
        message: &Message,
    ) -> Result<(), Violation> {
        if !self.inside {
            return Ok(());
        }
        let (ballot, run) = match message {
            Message::Proposer(ProposerMessage::Promise(promise)) => (promise.ballot, None),
            Message::Learner(LearnerMessage::Accepted(said)) => (said.ballot, Some(said.run)),
            Message::Learner(LearnerMessage::Mark(said)) if role == Role::Proposer => {
                return said_votes(node, disk, said.ballot, said.voted);
            }
            Message::Acceptor(AcceptorMessage::Accept(said)) => {
                for (step, value) in (said.first.0..).map(Step).zip(&said.values) {
                    one_value::check(&self.proposed, (step, said.ballot), value)?;
                    self.proposed.insert((step, said.ballot), value.clone());
                }
                return said_votes(node, disk, said.ballot, said.voted);
            }
            Message::Acceptor(_)
            | Message::Proposer(_)
            | Message::Learner(_)
            | Message::Auxiliary(_)
            | Message::Replica(_)
            | Message::Home(_)
            | Message::Founder(_)
            | Message::Founded(_)
            | Message::Unfit(_)
            | Message::Client(_)
            | Message::Report(_) => return Ok(()),
        };
        promises::check(node, self.promised.get(&node.incarnation).copied(), ballot)?;
        self.promised.insert(node.incarnation, ballot);
        said_is_durable::check_promise(node, ballot, disk.promised)?;
        said_votes(node, disk, ballot, run)
    }
}

/// The votes of `run`, unless a snapshot or floor made them needless meanwhile.
fn said_votes(
    node: &NodeId,
    disk: &Disk,
    ballot: Ballot,
    run: Option<Run>,
) -> Result<(), Violation> {
    let Some(Run { last, .. }) = run else { return Ok(()) };
    let covered = disk.snapshot.as_ref().map_or(Step(0), |image| image.history.executed());
    if last <= covered || last < disk.floor {
        return Ok(());
    }
    said_is_durable::check_vote(
        node,
        (last, ballot),
        disk.votes.get(&last).map(|(ballot, _)| *ballot),
    )
}
