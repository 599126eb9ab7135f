//! Everything is repaired: now all must come to its end.

use std::time::Duration;

use rand::RngExt;
use synod::consensus::{ballot::Step, message::NodeRole};

use super::{Walk, clients::Want, schedule::Event};
use crate::invariants::{Violation, durability, exactly_once};

/// How far the end has come.
#[derive(Debug, Default)]
pub(crate) struct Finish {
    pub(crate) done: bool,
    stage: Stage,
    /// Commands added only to move the log on.
    pushed: u32,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Every home's clients get what they ask for.
    #[default]
    ExpectAnswers,
    /// The last read tells the whole list.
    ExpectList,
}

/// Everything ends within this much simulated time, or never will.
const PATIENCE_NANOS: u64 = 20_000_000_000;

/// How often to look.
const LOOK_NANOS: u64 = 20_000_000;

/// Commands that may be needed before an auxiliary forgets: one a step, as far ahead as votes go.
const PUSHES_MAX: u32 = 3 * 64;

impl Walk {
    /// Repairs everything, and lets every home's clients ask for something.
    pub(super) fn heal(&mut self) -> Result<(), Violation> {
        self.summary.auxiliary.0 = self.auxiliary_work();
        self.healed = Some(self.schedule.now);
        if !self.plan.finish {
            self.finish.done = true;
            return Ok(());
        }
        self.network.mend();
        if self.trace {
            eprintln!("{:>12} everything is repaired", self.schedule.now);
        }
        for place in 0..self.nodes.len() {
            self.nodes[place].stall = 1;
            self.nodes[place].fill(false);
            self.nodes[place].paused_until = 0;
            self.start(place)?;
            if self.nodes[place].kind != NodeRole::Auxiliary {
                let count = self.rng.random_range(1..5);
                self.ask(place, Want::Append, count);
                self.ask(place, Want::Length, 1);
            }
        }
        self.schedule.after(LOOK_NANOS, Event::Look);
        Ok(())
    }

    fn ask(&mut self, place: usize, want: Want, count: u32) {
        let patience = Duration::from_nanos(2 * PATIENCE_NANOS);
        let call = self.clients.call(place, want, count, patience);
        let me = self.nodes[place].id.clone();
        self.deliver(place, me, call);
    }

    /// Looks whether everything came to its end.
    pub(super) fn look(&mut self) -> Result<(), Violation> {
        let since = self.healed.unwrap_or_default();
        match self.missing() {
            None if self.finish.stage == Stage::ExpectAnswers || !self.clients.list_is_whole() => {
                self.finish.stage = Stage::ExpectList;
                self.ask(0, Want::Everything, 1);
            }
            None => {
                self.finish.done = true;
                self.summary.finished_ms = (self.schedule.now - since) / 1_000_000;
                return self.judge_list();
            }
            Some(missing) if self.schedule.now > since + PATIENCE_NANOS => {
                if !self.could_go_on() {
                    self.finish.done = true;
                    self.summary.excused = true;
                    return Ok(());
                }
                return Err(Violation::new("liveness", missing));
            }
            Some(_) => {}
        }
        self.schedule.after(LOOK_NANOS, Event::Look);
        Ok(())
    }

    /// Whether enough of the members that count are left. A sole main that restarts must hear from
    /// an auxiliary that it still is that; where all of those are lost, an operator has to say so.
    fn could_go_on(&self) -> bool {
        [self.book.current(), self.book.newest()].into_iter().all(|configuration| {
            let remembered = self.nodes.iter().any(|n| configuration.auxiliaries.contains(&n.id));
            let asks = configuration.mains.len() == 1 && !configuration.auxiliaries.is_empty();
            self.goes_on_with(configuration, |_| true) && (remembered || !asks)
        })
    }

    /// What has not come to its end yet.
    fn missing(&mut self) -> Option<String> {
        if self.clients.open > 0 {
            return Some(format!(
                "{} calls wait: {:?}; {}",
                self.clients.open,
                self.clients.waiting(),
                self.who_leads()
            ));
        }
        let configuration = self.book.newest().clone();
        let there = |nodes: &[synod_runtime::identity::NodeId], kind| {
            let mut of_kind = self.nodes.iter().filter(|node| node.kind == kind);
            of_kind.all(|node| nodes.contains(&node.id))
        };
        let mut members = self.nodes.iter().filter(|node| node.kind == NodeRole::Member);
        if !there(&configuration.mains, NodeRole::Main)
            || !there(&configuration.auxiliaries, NodeRole::Auxiliary)
            || !members.all(|node| configuration.members.contains(&node.id.name))
        {
            if self.plan.faults.wish > 0 {
                let out = |node: &super::node::Node| {
                    configuration.role_of(&node.id.name) != Some(node.kind)
                };
                let out: Vec<usize> =
                    (0..self.nodes.len()).filter(|n| out(&self.nodes[*n])).collect();
                for about in out {
                    self.wish_back(0, about);
                    self.wish_back(1 % self.nodes.len(), about); // the first may be outside itself
                }
            }
            return Some(format!("not everybody is back: {configuration:?}; {}", self.who_leads()));
        }
        let last = Step(self.book.chosen.len() as u64);
        for node in self.nodes.iter().filter(|node| node.kind != NodeRole::Auxiliary) {
            let learned = node.learner().map(|learner| learner.history().executed());
            let executed = node.replica().map(|replica| replica.summary().0);
            if learned != Some(last) || executed != Some(last) {
                return Some(format!(
                    "{} learned {learned:?} and executed {executed:?} of {last}",
                    node.id
                ));
            }
        }
        let holds = self.nodes.iter().find_map(|node| node.standing.as_ref()?.holds);
        if let Some(step) = holds {
            // A vote beyond the end of the log goes when the log gets there.
            if self.finish.pushed < PUSHES_MAX {
                self.finish.pushed += 1;
                self.ask(0, Want::Append, 1);
            }
            return Some(format!("an auxiliary holds a vote for step {step} of {last}"));
        }
        None
    }

    fn who_leads(&self) -> String {
        let mut text = String::new();
        for node in &self.nodes {
            if let Some(proposer) = node.proposer() {
                let executed = node.learner().map(|learner| learner.history().executed());
                text +=
                    &format!("{} leads: {:?}, executed {executed:?}; ", node.id, proposer.leads());
            }
        }
        text
    }

    fn judge_list(&self) -> Result<(), Violation> {
        let list = self.clients.list.as_deref().unwrap_or_default();
        exactly_once::check(list, |number| number >> 32)?;
        durability::check(list, &self.clients.commands())
    }
}
