//! What a tree decides: which children end and begin, in which order and when. A machine: reports
//! and times come in, orders come out, and nothing here knows what a child is.
//!
//! 1. Children begin in their order, each after the one before has begun, and end in the reverse
//!    order, one at a time.
//! 2. Nothing begins while something that has to end first has not ended.
//! 3. A tree whose budget is spent ends all its children before it says so.

use std::time::Duration;

use super::{
    Policy, Restart,
    control::Report,
    policy::{Backoff, Budget},
};
use crate::{
    registry::watch::Reason,
    world::{Instant, Rng},
};

/// Which children are begun anew when one has failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Strategy {
    /// The failed one: they do not depend on each other.
    #[default]
    OneForOne,
    /// All: none can go on without the others.
    OneForAll,
    /// The failed one and all after it: each depends on those before it.
    RestForOne,
}

/// What to tell a child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    Begin(usize),
    /// End this life.
    Halt(usize),
    /// End for good.
    Retire(usize),
}

#[derive(Debug)]
pub(super) struct Machine {
    strategy: Strategy,
    /// Of the tree: its restarts and its waits.
    policy: Policy,
    rng: Rng,
    children: Vec<Child>,
    budget: Budget,
    /// Whether children shall run; else all that run are ended.
    running: bool,
    /// All children have begun once since the tree has.
    begun: bool,
}

#[derive(Debug)]
struct Child {
    restart: Restart,
    state: State,
    /// It has to end, for others' sake.
    halt: bool,
    /// It has ended for good by its own choice.
    over: bool,
    due: Instant,
    backoff: Backoff,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Down,
    Beginning,
    Up,
    Halting,
    Gone,
}

impl Machine {
    pub(super) fn new(
        strategy: Strategy,
        policy: Policy,
        rng: Rng,
        children: impl Iterator<Item = Restart>,
    ) -> Self {
        let child = |restart| Child {
            restart,
            state: State::Down,
            halt: false,
            over: false,
            due: Instant::default(),
            backoff: Backoff::default(),
        };
        let (children, budget) = (children.map(child).collect(), Budget::default());
        Self { strategy, policy, rng, children, budget, running: false, begun: false }
    }

    /// The tree begins (again), with a fresh budget.
    pub(super) fn begin(&mut self) {
        (self.running, self.begun, self.budget) = (true, false, Budget::default());
        for child in &mut self.children {
            (child.halt, child.due, child.backoff) =
                (false, Instant::default(), Backoff::default());
        }
    }

    /// All children shall end.
    pub(super) fn halt(&mut self) {
        self.running = false;
        for child in &mut self.children {
            child.halt = true;
        }
    }

    /// Whether nothing runs.
    pub(super) fn is_down(&self) -> bool {
        self.children.iter().all(|child| matches!(child.state, State::Down | State::Gone))
    }

    /// Whether the first begin of all children is done.
    pub(super) fn is_up(&self) -> bool {
        self.begun
    }

    /// Whether a child is over for good.
    pub(super) fn is_gone(&self, index: usize) -> bool {
        self.children[index].state == State::Gone
    }

    /// Takes what a child tells; answers why the tree gives up, if it does.
    pub(super) fn take(&mut self, now: Instant, report: Report) -> Option<Reason> {
        match report {
            Report::Up(index) => {
                let child = &mut self.children[index];
                if child.state == State::Beginning {
                    child.state = State::Up;
                }
            }
            Report::Gone(index) => self.children[index].state = State::Gone,
            Report::Down(index, reason) => {
                let child = &mut self.children[index];
                if matches!(child.state, State::Down | State::Gone) {
                    return None;
                }
                let expected = child.halt || child.state == State::Halting || !self.running;
                (child.state, child.halt) = (State::Down, false);
                if !expected {
                    return self.failed(now, index, &reason);
                }
            }
        }
        None
    }

    /// A child ended by itself.
    fn failed(&mut self, now: Instant, index: usize, reason: &Reason) -> Option<Reason> {
        let child = &mut self.children[index];
        let again = match child.restart {
            Restart::Always => true,
            Restart::OnPanic => *reason != Reason::Stopped,
            Restart::Never => false,
        };
        if !again {
            child.over = true;
            return None;
        }
        let limit = self.policy.give_up;
        if limit.is_some_and(|limit| !self.budget.spend(now, limit)) {
            self.halt();
            let (restarts, within) = limit.unwrap_or_default();
            return Some(Reason::GaveUp {
                why: format!("more than {restarts} restarts within {within:?}; then {reason}"),
            });
        }
        let due = now + child.backoff.wait(&self.policy, now, &mut self.rng);
        let affected = match self.strategy {
            Strategy::OneForOne => index..index + 1,
            Strategy::OneForAll => 0..self.children.len(),
            Strategy::RestForOne => index..self.children.len(),
        };
        for child in &mut self.children[affected] {
            child.halt = matches!(child.state, State::Beginning | State::Up | State::Halting);
            child.due = child.due.max(due);
        }
        None
    }

    /// What to order now.
    pub(super) fn orders(&mut self, now: Instant) -> Vec<Order> {
        let mut orders = Vec::new();
        for (index, child) in self.children.iter_mut().enumerate() {
            if child.over && child.state == State::Down {
                orders.push(Order::Retire(index));
            }
            child.halt &= !matches!(child.state, State::Down | State::Gone);
        }
        if let Some(index) = self.children.iter().rposition(|child| child.halt) {
            // One at a time (1.), and nothing begins meanwhile (2.).
            if self.children.iter().all(|child| child.state != State::Halting) {
                self.children[index].state = State::Halting;
                orders.push(Order::Halt(index));
            }
        } else if self.running {
            self.begin_due(now, &mut orders);
        }
        orders
    }

    fn begin_due(&mut self, now: Instant, orders: &mut Vec<Order>) {
        let in_order = self.strategy != Strategy::OneForOne || !self.begun;
        let mut all = true;
        for (index, child) in self.children.iter_mut().enumerate() {
            match child.state {
                State::Up | State::Gone => continue,
                State::Down if child.over => continue,
                State::Down if child.due <= now => {
                    child.state = State::Beginning;
                    child.backoff.started(now);
                    orders.push(Order::Begin(index));
                }
                State::Down | State::Beginning | State::Halting => {}
            }
            all = false;
            if in_order {
                break;
            }
        }
        self.begun |= all;
    }

    /// When there is something to order without any report before.
    pub(super) fn next_due(&self, now: Instant) -> Option<Instant> {
        let waits = |child: &&Child| child.state == State::Down && !child.over && child.due > now;
        self.children.iter().filter(waits).map(|child| child.due).min().filter(|_| self.running)
    }
}

/// How long a child may take to end before it is ended by force.
pub(super) const STOP_WITHIN: Duration = Duration::from_secs(1);
