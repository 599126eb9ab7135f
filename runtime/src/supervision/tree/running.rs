//! A tree at work: takes its own orders, and performs what its machine decides.

use std::{sync::Arc, time::Duration};

use tokio::sync::mpsc::UnboundedReceiver;

use crate::{
    registry::watch::Reason,
    supervision::{
        control::{BEGIN, Control, FOR_GOOD, HALT, KILL, Manager, Orders, RETIRE, Report},
        machine::{Machine, Order, STOP_WITHIN},
    },
    world::{Clock, Instant},
};

/// One tree at work.
pub(super) struct Running {
    pub(super) name: String,
    pub(super) control: Arc<Control>,
    pub(super) manager: Option<Manager>,
    pub(super) machine: Machine,
    pub(super) children: Vec<Child>,
    pub(super) reports: UnboundedReceiver<Report>,
    pub(super) stop_within: Duration,
    /// Why, while the children are ended.
    pub(super) gave_up: Option<Reason>,
    pub(super) told_up: bool,
}

pub(super) struct Child {
    pub(super) control: Arc<Control>,
    pub(super) is_tree: bool,
    /// When it is ended by force.
    pub(super) kill: Option<Instant>,
}

impl Running {
    pub(super) async fn run(mut self, clock: Arc<dyn Clock>) -> Reason {
        loop {
            let (now, orders) = (clock.now(), self.control.orders());
            if orders & FOR_GOOD != 0 {
                self.end(orders).await;
                return Reason::Stopped;
            }
            if orders & HALT != 0 {
                self.machine.halt();
            } else if self.control.take(BEGIN) != 0 {
                (self.told_up, self.gave_up) = (false, None);
                self.machine.begin();
            }
            self.kill_late(now, orders & KILL != 0);
            for order in self.machine.orders(now) {
                self.give(now, order);
            }
            if let Some(reason) = self.report(orders) {
                // Without a tree above it, all of it is over.
                self.end(RETIRE).await;
                return reason;
            }
            let kills = self.children.iter().filter_map(|child| child.kill);
            let due = kills.chain(self.machine.next_due(now)).min();
            let seen = self.control.orders();
            let wait = due.map_or(Duration::MAX, |due| due.since(now));
            tokio::select! {
                biased;
                Some(report) = self.reports.recv() => self.hear(clock.now(), report),
                () = self.control.changed(seen) => {}
                () = tokio::time::sleep(wait), if due.is_some() => {}
            }
        }
    }

    fn hear(&mut self, now: Instant, report: Report) {
        let (Report::Up(index) | Report::Down(index, _) | Report::Gone(index)) = &report;
        let index = *index;
        if !matches!(report, Report::Up(_)) {
            self.children[index].kill = None;
        }
        if let Report::Down(_, reason) = &report {
            tracing::debug!(tree = self.name, child = index, %reason, "a life of a child is over");
        }
        if let Some(reason) = self.machine.take(now, report) {
            tracing::error!(tree = self.name, %reason, "ending all children");
            self.gave_up = Some(reason);
        }
    }

    fn give(&mut self, now: Instant, order: Order) {
        match order {
            Order::Begin(index) => self.children[index].control.begin(),
            Order::Halt(index) => {
                let child = &mut self.children[index];
                // A tree's own children have their time each.
                child.kill = (!child.is_tree).then(|| now + self.stop_within);
                child.control.give(HALT);
            }
            Order::Retire(index) => self.children[index].control.retire(),
        }
    }

    fn kill_late(&mut self, now: Instant, all: bool) {
        for child in &mut self.children {
            if all || child.kill.is_some_and(|kill| kill <= now) {
                child.kill = None;
                child.control.kill();
            }
        }
    }

    /// Tells the tree above how this one does; answers why the root is over, if it is.
    fn report(&mut self, orders: Orders) -> Option<Reason> {
        let halted = orders & HALT != 0 && self.machine.is_down();
        let gave_up = if self.machine.is_down() { self.gave_up.take() } else { None };
        let Some(manager) = &self.manager else { return gave_up };
        if self.machine.is_up() && !self.told_up {
            self.told_up = true;
            manager.up();
        }
        if let Some(reason) = gave_up {
            manager.down(reason);
        } else if halted && self.control.take(HALT) != 0 {
            manager.down(Reason::Stopped);
        }
        None
    }

    /// Ends all children for good, from the last to the first; at a kill, all at once.
    async fn end(&mut self, orders: Orders) {
        self.machine.halt();
        for index in (0..self.children.len()).rev() {
            if self.control.orders() & KILL != 0 {
                break;
            }
            self.children[index].control.give(orders & FOR_GOOD);
            self.gone(index, true).await;
        }
        for child in &self.children {
            child.control.retire();
        }
        let all = async {
            for index in 0..self.children.len() {
                self.gone(index, false).await;
            }
        };
        // An arbiter that is stuck keeps its actors; nobody waits for it.
        if tokio::time::timeout(STOP_WITHIN, all).await.is_err() {
            tracing::error!(tree = self.name, "a child's arbiter is stuck");
        }
    }

    /// Waits until a child is over, or for `or_kill` as long as nobody has lost patience.
    async fn gone(&mut self, index: usize, or_kill: bool) {
        while !self.machine.is_gone(index) {
            let seen = self.control.orders();
            if or_kill && seen & KILL != 0 {
                return;
            }
            tokio::select! {
                biased;
                Some(report) = self.reports.recv() => {
                    // Nothing is decided any more.
                    let _ = self.machine.take(Instant::default(), report);
                }
                () = self.control.changed(seen) => {}
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        for child in &self.children {
            child.control.retire();
        }
    }
}
