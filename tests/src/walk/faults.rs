//! What goes wrong.

use rand::RngExt;
use synod::consensus::{
    ballot::Step,
    configuration::Configuration,
    message::{AcceptorMessage, AuxiliaryMessage, HomeMessage, Message, NewWish, NodeRole, Wish},
    record::{Record, is_torn},
    value::Value,
};

use super::{
    Walk,
    disk::{Disk, Held},
    fresh_id,
    node::Role,
    schedule::Event,
};
use crate::invariants::Violation;

/// So many times longer takes a sync on a disk that is slow: some take longer than a leader may wait.
const STALLED: u64 = 120;

/// The ticket of operators' wishes: nobody waits for what comes of one.
pub(super) const WISH: u64 = u64::MAX >> 1;

impl Walk {
    /// Lets one thing go wrong, and schedules the next.
    pub(super) fn fault(&mut self) -> Result<(), Violation> {
        if self.healed.is_some() {
            return Ok(());
        }
        let after = self.rng.random_range(0..2_000 * self.plan.fault_us);
        self.schedule.after(after, Event::Fault);
        let weights = self.plan.faults.weights();
        let mut drawn = self.rng.random_range(0..weights.iter().sum::<u32>().max(1));
        let kind = weights.iter().position(|weight| {
            let hit = drawn < *weight;
            drawn = drawn.saturating_sub(*weight);
            hit
        });
        if let Some(kind) = kind {
            self.summary.faults[kind] += 1;
        }
        let any = self.rng.random_range(0..self.nodes.len());
        let other = self.rng.random_range(0..self.nodes.len());
        match kind {
            Some(0) => self.crash(any, false),
            Some(1) => self.crash_leader(),
            Some(2) => {
                if let Some(auxiliary) = self.some(NodeRole::Auxiliary) {
                    self.crash(auxiliary, false);
                    let after = self.rng.random_range(0..3_000_000);
                    self.schedule.after(after, Event::Start { node: auxiliary });
                }
            }
            Some(3) => self.kill_some_role(any)?,
            Some(4) => self.partition(),
            Some(5) => self.network.cut(any, other),
            Some(6) => self.isolate(any),
            Some(7) => self.split(),
            Some(8) => self.network.mend(),
            Some(9) => self.lose(NodeRole::Main),
            Some(10) => self.lose(NodeRole::Auxiliary),
            Some(11) => {
                let pause = self.rng.random_range(0..1_000 * self.plan.cut_us.max(2));
                self.nodes[any].paused_until = self.schedule.now + pause;
            }
            Some(13) => {
                if let Some(leader) = self.leader() {
                    self.isolate(leader);
                }
            }
            Some(14) => {
                self.crash_leader();
                self.split();
            }
            Some(15) => self.operate(any),
            Some(_) => {
                let node = &mut self.nodes[any];
                node.stall = if node.stall > 1 { 1 } else { STALLED };
                // As often as not it is full too.
                let full = node.stall > 1
                    && node.kind != NodeRole::Auxiliary
                    && self.schedule.now.is_multiple_of(2);
                node.fill(full);
            }
            None => {}
        }
        Ok(())
    }

    /// An operator wants something of a node.
    fn operate(&mut self, about: usize) {
        let Some(at) = self.some(NodeRole::Main) else { return };
        let name = self.nodes[about].id.name.clone();
        let set = |role| Wish::Set { name: name.clone(), role };
        let wish = match self.rng.random_range(0..12) {
            0..4 => Wish::Remove(name),
            4..7 => return self.wish_back(at, about),
            7 => Wish::Lead(name),
            8..10 => set(NodeRole::Main),
            _ => set(NodeRole::Member),
        };
        self.wish(at, wish);
    }

    /// An operator has a node added again, or made again what it was.
    pub(super) fn wish_back(&mut self, at: usize, about: usize) {
        let (name, role) = (self.nodes[about].id.name.clone(), self.nodes[about].kind);
        let wish = match self.book.newest().role_of(&name) {
            Some(_) => Wish::Set { name, role },
            None => Wish::Add { name, role, address: "h:1".to_owned() },
        };
        self.wish(at, wish);
    }

    fn wish(&mut self, at: usize, wish: Wish) {
        let patience = std::time::Duration::from_secs(1);
        let wish = HomeMessage::NewWish(NewWish { ticket: WISH, wish, patience });
        let me = self.nodes[at].id.clone();
        self.deliver(at, me, Message::Home(wish));
    }

    /// A configuration was chosen, or came into force.
    pub(super) fn changed(&mut self) {
        if self.trace {
            let (now, next) = (self.book.current(), self.book.newest());
            eprintln!("{:>12} epoch {} in force, {next:?}", self.schedule.now, now.epoch);
        }
        if self.healed.is_none() && self.rng.random_ratio(self.plan.crash_on_change, 1_000) {
            let after = self.rng.random_range(0..60_000_000);
            self.schedule.after(after, Event::CrashLeader);
            // …and its successor, soon after it took over.
            let again = self.rng.random_range(50_000_000..200_000_000);
            self.schedule.after(after + again, Event::CrashLeader);
        }
    }

    pub(super) fn crash_leader(&mut self) {
        if self.healed.is_none()
            && let Some(leader) = self.leader()
        {
            self.crash(leader, false);
        }
    }

    pub(super) fn leader(&self) -> Option<usize> {
        self.nodes.iter().position(|node| {
            node.up && node.proposer().is_some_and(|proposer| proposer.leads().is_some())
        })
    }

    fn some(&mut self, kind: NodeRole) -> Option<usize> {
        let of_kind = |node: &super::node::Node| node.kind == kind;
        let count = self.nodes.iter().filter(|node| of_kind(node)).count();
        let nth = self.rng.random_range(0..count.max(1));
        let mut places = (0..self.nodes.len()).filter(|place| of_kind(&self.nodes[*place]));
        places.nth(nth)
    }

    /// A node stops at once, and starts again later.
    fn crash(&mut self, place: usize, wiped: bool) {
        if !self.nodes[place].up {
            return;
        }
        let queued = self.nodes[place].disk.queued();
        let kept = match self.rng.random_range(0..3) {
            0 => 0,
            1 => queued,
            _ => self.rng.random_range(0..=queued),
        };
        self.stop(place, kept);
        self.tear(place, wiped);
        if !wiped {
            let down = self.rng.random_range(0..1_000 * self.plan.down_us.max(1));
            self.schedule.after(down, Event::Start { node: place });
        }
    }

    /// The end of the journal of a main that crashed may be torn.
    fn tear(&mut self, place: usize, wiped: bool) {
        let node = &self.nodes[place];
        let torn = node.kind == NodeRole::Main
            && !wiped
            && !node.disk.records.is_empty()
            && self.rng.random_ratio(self.plan.torn, 1_000);
        if !torn {
            return;
        }
        // What one main alone decided nobody else knows, and two torn ends may hold the same.
        let decides = |c: &Configuration| c.mains.len() > 1 || !c.mains.contains(&node.id);
        let next = Step(self.book.chosen.len() as u64 + 1);
        let first = node.disk.last_write_votes_from().map_or(next, |first| first.min(next));
        let known = self.book.since(first).all(decides)
            && self.nodes.iter().all(|node| !is_torn(&node.disk.records));
        let lost = known && self.rng.random_ratio(self.plan.torn_lost, 1_000);
        let node = &mut self.nodes[place];
        let gone = node.disk.tear(lost);
        if gone {
            self.book.forgets_promises(&node.id);
        }
        if self.trace {
            eprintln!("{:>12} {} journal torn, lost: {gone}", self.schedule.now, node.id);
        }
        self.summary.torn += 1;
        self.summary.lost += u64::from(gone);
    }

    /// A node stops at once; of what it did not sync the first `kept` records survive.
    pub(super) fn stop(&mut self, place: usize, kept: usize) {
        if self.trace {
            eprintln!("{:>12} {} crashes", self.schedule.now, self.nodes[place].id);
        }
        let node = &mut self.nodes[place];
        node.up = false;
        node.roles = super::node::Roles::default();
        node.disk.crash(kept);
        node.leads = false;
        self.clients.gone(place);
    }

    /// The actor of some role dies.
    fn kill_some_role(&mut self, place: usize) -> Result<(), Violation> {
        if !self.nodes[place].up {
            return Ok(());
        }
        let roles: &[Role] = match self.nodes[place].kind {
            NodeRole::Main | NodeRole::Member => &Role::ALL[..5],
            NodeRole::Auxiliary => &[Role::Auxiliary],
        };
        let role = roles[self.rng.random_range(0..roles.len())];
        self.kill_role(place, role)
    }

    /// The actor of one role dies.
    pub(super) fn kill_role(&mut self, place: usize, role: Role) -> Result<(), Violation> {
        if !self.nodes[place].kill(role) {
            return Ok(());
        }
        if self.trace {
            eprintln!("{:>12} {} {role:?} dies", self.schedule.now, self.nodes[place].id);
        }
        if role == Role::Home {
            self.clients.gone(place);
        }
        if let Some(Held::Rebuild(role)) = self.nodes[place].disk.hold(Held::Rebuild(role)) {
            return self.rebuild(place, role);
        }
        self.sync(place);
        Ok(())
    }

    /// Splits the nodes in two; sometimes an auxiliary hears both sides.
    fn partition(&mut self) {
        let sides: Vec<u8> = self.nodes.iter().map(|_| self.rng.random_range(0..5)).collect();
        for (from, one) in sides.iter().enumerate() {
            for (to, two) in sides.iter().enumerate() {
                if one % 2 != two % 2 && *one != 4 && *two != 4 {
                    self.network.cut(from, to);
                }
            }
        }
        self.mend_later();
    }

    /// No main hears another.
    fn split(&mut self) {
        self.cut_mains();
        self.mend_later();
    }

    pub(super) fn cut_mains(&mut self) {
        let is_main = |place: usize| self.nodes[place].kind == NodeRole::Main;
        for from in (0..self.nodes.len()).filter(|place| is_main(*place)) {
            for to in (0..self.nodes.len()).filter(|to| is_main(*to) && *to != from) {
                self.network.cut(from, to);
            }
        }
    }

    fn isolate(&mut self, place: usize) {
        for other in (0..self.nodes.len()).filter(|other| *other != place) {
            self.network.cut(place, other);
            self.network.cut(other, place);
        }
        self.mend_later();
    }

    fn mend_later(&mut self) {
        let after = self.rng.random_range(0..1_000 * self.plan.cut_us.max(1));
        self.schedule.after(after, Event::Mend);
    }

    /// A node's disk is lost; another node of the same name starts with an empty one.
    fn lose(&mut self, kind: NodeRole) {
        let Some(place) = self.some(kind) else { return };
        if !self.plan.reckless && !self.may_lose(place) {
            return;
        }
        if self.trace {
            eprintln!("{:>12} {} loses its disk", self.schedule.now, self.nodes[place].id);
        }
        self.crash(place, true);
        self.nodes[place].up = false;
        let name = self.nodes[place].id.name.clone();
        self.nodes[place].id = fresh_id(name, place, &mut self.rng);
        self.nodes[place].disk = Disk::default();
        self.nodes[place].fill(false);
        let down = self.rng.random_range(0..1_000 * self.plan.down_us.max(1));
        self.schedule.after(down, Event::Start { node: place });
    }

    /// Whether the others could go on for ever without this node's disk.
    fn may_lose(&self, place: usize) -> bool {
        if self.changing() {
            return false;
        }
        let auxiliary = self.nodes[place].kind == NodeRole::Auxiliary;
        let in_force = self.book.configurations.last().map_or(Step(1), |(from, _)| *from);
        let copied = self.nodes.iter().enumerate().any(|(other, node)| {
            other != place
                && node.disk.holds(&self.book.chosen)
                && node.disk.marked().next() >= in_force
                && self.book.current().mains.contains(&node.id)
                && self.book.newest().mains.contains(&node.id)
        });
        if !auxiliary && !copied {
            // A sole main's log had one copy; or nobody else surely knows who votes now, and who
            // voted before may be lost already.
            return false;
        }
        [self.book.current(), self.book.newest()].into_iter().all(|configuration| {
            // A sole main that restarts asks the auxiliary whether it still is that; without one
            // that remembers, an operator has to say so.
            let asked_for = auxiliary && configuration.mains.len() == 1;
            !asked_for && self.goes_on_with(configuration, |node| node != place)
        })
    }

    /// Whether those nodes, in their present incarnations, are a quorum.
    pub(super) fn goes_on_with(
        &self,
        configuration: &Configuration,
        counts: impl Fn(usize) -> bool,
    ) -> bool {
        let there = (0..self.nodes.len()).filter(|place| counts(*place));
        let there = there.map(|place| self.nodes[place].id.incarnation).collect();
        configuration.is_quorum(&there)
    }

    /// Whether a configuration that nobody knows to be chosen may yet be.
    fn changing(&self) -> bool {
        let newest = self.book.newest().epoch;
        let newer = |value: &Value| {
            use synod::consensus::value::Decoded;
            value.is_configuration()
                && matches!(value.decode(), Ok(Decoded::Configuration(c)) if c.epoch > newest)
        };
        let on_disks = self
            .nodes
            .iter()
            .flat_map(|node| &node.disk.records)
            .any(|record| matches!(record, Record::Vote(vote) if newer(&vote.value)));
        on_disks
            || self.schedule.pending().any(|event| match event {
                Event::Letter { message, .. } => match &**message {
                    Message::Acceptor(AcceptorMessage::Accept(accept))
                    | Message::Auxiliary(AuxiliaryMessage::Accept(accept)) => {
                        accept.values.iter().any(newer)
                    }
                    _ => false,
                },
                _ => false,
            })
    }
}
