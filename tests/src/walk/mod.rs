//! A random walk over the pure machines of consensus.
//!
//! A whole cluster lives in one heap of events: its machines are the very ones that run inside
//! actors, each in the thinnest shell that keeps *durable before said*; its network loses, repeats,
//! delays and cuts; its disks sync late and forget what was not synced; its nodes crash, pause, and
//! come back with an empty disk. One seed gives one run. First anything may go wrong, and nothing
//! that was promised may be broken (safety); then everything is repaired, and all must come to its
//! end (liveness).
//!
//! No actor, file, socket or clock is involved, so a run of thousands of events takes milliseconds.

mod book;
mod clients;
mod disk;
mod faults;
mod finish;
mod letters;
mod list;
mod network;
mod node;
mod plan;
mod scenes;
mod schedule;
mod script;

use std::sync::{Arc, atomic::Ordering};

use rand::{RngExt, SeedableRng};
use synod::{
    consensus::{
        configuration::Configuration,
        message::{AuxiliaryMessage, Message, NodeRole},
        record::{Image, Record},
        replica::StateImage,
    },
    effects::Offer,
};
use synod_runtime::{
    identity::{Incarnation, NodeId, NodeName},
    world::Rng,
};

pub use self::plan::{Faults, Plan, Shape};
use self::{
    book::Book,
    clients::Clients,
    disk::{Disk, Held},
    list::Witness,
    network::Network,
    node::{Make, Node, Role, Said},
    schedule::{Event, Schedule},
};
use crate::invariants::{Violation, exactly_once, idle_auxiliary::Work};

/// What a clean run did.
#[derive(Debug, Clone, Copy, Default)]
pub struct Summary {
    /// Events handled.
    pub events: u64,
    /// Steps chosen.
    pub steps: u64,
    /// Configurations chosen.
    pub configurations: u64,
    /// Calls that ended well.
    pub done: u64,
    /// Calls that ended otherwise.
    pub failed: u64,
    /// Nodes started, over again or as others.
    pub starts: u64,
    /// How often each fault was drawn, in the order of [`Faults::NAMES`].
    pub faults: [u64; Faults::KINDS],
    /// Journals whose end was torn.
    pub torn: u64,
    /// …and took along what had been durable.
    pub lost: u64,
    /// Whether it was excused from coming to its end: too many disks were lost.
    pub excused: bool,
    /// What the auxiliaries had to do, when everything had started up and in the end.
    pub auxiliary: (Work, Work),
    /// Simulated milliseconds from the repair to the end of everything.
    pub finished_ms: u64,
}

/// Runs one walk.
///
/// # Errors
/// The promise that was broken. The same plan and seed break it again.
pub fn run(plan: &Plan, seed: u64) -> Result<Summary, Violation> {
    Walk::new(plan.clone(), seed).run()
}

/// How many bits of an incarnation tell the node's place in [`Walk::nodes`].
const PLACE_BITS: u64 = 8;

#[derive(Debug)]
struct Walk {
    plan: Plan,
    rng: Rng,
    schedule: Schedule,
    nodes: Vec<Node>,
    network: Network,
    clients: Clients,
    book: Book,
    make: Make,
    /// No more faults, and everything must come to its end.
    healed: Option<u64>,
    finish: finish::Finish,
    summary: Summary,
    /// Messages to auxiliaries that are no heartbeats.
    auxiliary_messages: u64,
    trace: bool,
}

impl Walk {
    fn new(plan: Plan, seed: u64) -> Self {
        let mut rng = Rng::seed_from_u64(seed);
        let Shape { mains, auxiliaries, members } = plan.shape;
        let kinds = [
            (NodeRole::Main, mains, b'a'),
            (NodeRole::Auxiliary, auxiliaries, b'x'),
            (NodeRole::Member, members, b'm'),
        ];
        let mut ids = Vec::new();
        for (kind, count, letter) in kinds {
            for letter in (letter..).take(count) {
                let name = char::from(letter).to_string().parse().expect("a letter is a name");
                ids.push((kind, fresh_id(name, ids.len(), &mut rng)));
            }
        }
        let of = |wanted| {
            let ids = ids.iter().filter(move |(kind, _)| *kind == wanted);
            ids.map(|(_, id): &(NodeRole, NodeId)| id.clone()).collect::<Vec<_>>()
        };
        let genesis = Configuration {
            epoch: 0,
            mains: of(NodeRole::Main),
            auxiliaries: of(NodeRole::Auxiliary),
            members: of(NodeRole::Member).into_iter().map(|id| id.name).collect(),
            ..Configuration::default()
        };
        let nodes: Vec<Node> = ids
            .into_iter()
            .map(|(kind, id)| {
                let known = match kind {
                    NodeRole::Main | NodeRole::Auxiliary => vec![Record::Genesis(genesis.clone())],
                    NodeRole::Member => vec![],
                };
                Node::new(id, kind, Disk::new(known))
            })
            .collect();
        let make = Make {
            timing: plan.timing,
            style: plan.style,
            snapshot_log_bytes: plan.snapshot_log_bytes,
            witness: Arc::new(Witness::default()),
        };
        Self {
            rng,
            schedule: Schedule::default(),
            network: Network::new(nodes.len()),
            nodes,
            clients: Clients::default(),
            book: Book::new(genesis, plan.inside),
            make,
            healed: None,
            finish: finish::Finish::default(),
            summary: Summary::default(),
            auxiliary_messages: 0,
            trace: std::env::var_os("SYNOD_WALK_TRACE").is_some(),
            plan,
        }
    }

    fn run(mut self) -> Result<Summary, Violation> {
        for node in 0..self.nodes.len() {
            let after = self.rng.random_range(0..2_000_000);
            self.schedule.after(after, Event::Start { node });
        }
        self.schedule.after(1_000_000, Event::Links);
        if self.plan.fault_us > 0 {
            self.schedule.after(self.plan.fault_us * 1_000, Event::Fault);
        }
        if self.plan.scripted {
            self.schedule.after(1_000_000, Event::Script(script::Stage::Calm));
        }
        self.schedule.after(self.plan.chaos_us * 1_000, Event::Heal);
        while !self.finish.done {
            let event = self.schedule.next().expect("links and faults never end");
            self.handle(event)?;
        }
        self.summary.events = self.schedule.count;
        self.summary.steps = self.book.chosen.len() as u64;
        self.summary.configurations = self.book.newest().epoch;
        (self.summary.done, self.summary.failed) = (self.clients.done, self.clients.failed);
        self.summary.auxiliary.1 = self.auxiliary_work();
        Ok(self.summary)
    }

    fn handle(&mut self, event: Event) -> Result<(), Violation> {
        match event {
            Event::Letter { to, from, message } => {
                let place = place_of(&to);
                if self.nodes[place].up && self.nodes[place].id == to {
                    self.deliver(place, from, *message);
                }
            }
            Event::Turn { node, life, role } => {
                if self.alive(node, life, || Event::Turn { node, life, role }) {
                    self.turn(node, role)?;
                }
            }
            Event::Alarm { node, life, role } => {
                if self.alive(node, life, || Event::Alarm { node, life, role }) {
                    self.alarm(node, role)?;
                }
            }
            Event::Synced { node, life, upto } => {
                if self.nodes[node].up && self.nodes[node].life == life {
                    self.synced(node, upto)?;
                }
            }
            Event::Shelved { node, life } => {
                if self.nodes[node].up && self.nodes[node].life == life {
                    self.shelved(node);
                }
            }
            Event::Start { node } => self.start(node)?,
            Event::Client { node, life } => self.client(node, life),
            Event::Links => self.notice_links(),
            Event::Fault => self.fault()?,
            Event::CrashLeader => self.crash_leader(),
            Event::Script(stage) => self.play(stage),
            Event::Mend => self.network.mend(),
            Event::Heal => self.heal()?,
            Event::Look => self.look()?,
        }
        Ok(())
    }

    /// Whether a node still lives that life; if it is paused, the event comes later.
    fn alive(&mut self, node: usize, life: u32, again: impl FnOnce() -> Event) -> bool {
        let Node { up, life: lives, paused_until, .. } = self.nodes[node];
        if !up || lives != life {
            return false;
        }
        if paused_until > self.schedule.now {
            self.schedule.at(paused_until, again());
            return false;
        }
        true
    }

    /// Starts a node that is down.
    fn start(&mut self, place: usize) -> Result<(), Violation> {
        let now = self.schedule.now;
        if self.nodes[place].up {
            return Ok(());
        }
        self.summary.starts += 1;
        let boot = if self.rng.random_bool(0.2) { 0 } else { 1_000_000_000_000 };
        let offset = self.rng.random_range(0..=boot);
        let drift = self.rng.random_range(0..300);
        let skew_ms = self.rng.random_range(0..1_000);
        let node = &mut self.nodes[place];
        node.set_clock(offset, drift, skew_ms);
        node.paused_until = 0;
        let said = node.start(now, &self.make, &mut self.rng);
        if self.trace {
            let survived = node.disk.records.len();
            eprintln!("{now:>12} {} starts; {survived} records survived", node.id);
        }
        self.network.forget(place);
        for (role, said) in said {
            self.absorb(place, role, said)?;
        }
        if self.plan.call_us > 0 {
            let life = self.nodes[place].life;
            self.schedule.after(self.plan.call_us * 1_000, Event::Client { node: place, life });
        }
        Ok(())
    }

    /// Clients of a node's home call.
    fn client(&mut self, node: usize, life: u32) {
        let Node { up, life: lives, kind, .. } = self.nodes[node];
        if !up || lives != life || kind == NodeRole::Auxiliary || self.healed.is_some() {
            return;
        }
        let call = self.clients.any(node, &mut self.rng);
        let me = self.nodes[node].id.clone();
        self.deliver(node, me, call);
        let after = self.rng.random_range(0..2_000 * self.plan.call_us);
        self.schedule.after(after, Event::Client { node, life });
    }

    /// Puts a message into the mailbox of a role.
    fn deliver(&mut self, place: usize, from: NodeId, message: Message) {
        if self.nodes[place].kind == NodeRole::Auxiliary
            && !matches!(message, Message::Auxiliary(AuxiliaryMessage::Heartbeat(_)))
        {
            self.auxiliary_messages += 1;
        }
        if let Some(role) = self.nodes[place].put(from, message) {
            self.schedule_turn(place, role);
        }
    }

    fn schedule_turn(&mut self, node: usize, role: Role) {
        let life = self.nodes[node].life;
        // Now and then an arbiter has other work.
        let most = if self.rng.random_ratio(1, 64) { 2_000_000 } else { 20_000 };
        let after = self.rng.random_range(1_000..most);
        self.schedule.after(after, Event::Turn { node, life, role });
    }

    fn turn(&mut self, node: usize, role: Role) -> Result<(), Violation> {
        let Some(said) = self.nodes[node].turn(self.schedule.now, role, TURN_MESSAGES_MAX) else {
            return Ok(());
        };
        self.absorb(node, role, said)
    }

    fn alarm(&mut self, node: usize, role: Role) -> Result<(), Violation> {
        let Some((said, spins)) = self.nodes[node].ring(self.schedule.now, role) else {
            return Ok(());
        };
        if spins {
            let who = &self.nodes[node].id;
            let seen = format!("the {role:?} of {who} asks for a time that has passed, for ever");
            return Err(Violation::new("rest", seen));
        }
        self.absorb(node, role, said)
    }

    /// Does what a machine's turn wants done, and looks at what it came to.
    fn absorb(&mut self, place: usize, role: Role, said: Said) -> Result<(), Violation> {
        let Said { now, lazy, offers, records, held, truncate, shelf } = said;
        for letter in now {
            self.say(place, role, letter)?;
        }
        let node = &mut self.nodes[place];
        let refused = node.full && records.iter().any(|record| !record.to_journal().is_reserved());
        node.noticed |= node.full && (refused || !offers.is_empty());
        if refused {
            return self.kill_role(place, role); // it believes what is not on the disk
        }
        let stall = node.stall;
        let disk = &mut self.nodes[place].disk;
        let urgent = !records.is_empty() || !offers.is_empty() || truncate.is_some();
        // The queue of a slow disk is full: what rides along is dropped.
        if stall == 1 {
            disk.append(lazy);
        }
        disk.append(records);
        for Offer { records, kept, refused } in offers {
            let disk = &mut self.nodes[place].disk;
            let said = match stall {
                1 => {
                    disk.append(records);
                    disk.hold(Held::Letter(role, kept))
                }
                _ => Some(Held::Letter(role, refused)),
            };
            if let Some(Held::Letter(role, letter)) = said {
                self.say(place, role, letter)?;
            }
        }
        let disk = &mut self.nodes[place].disk;
        if let Some(truncate) = truncate {
            disk.truncate(truncate);
        }
        for letter in held {
            let disk = &mut self.nodes[place].disk;
            if let Some(Held::Letter(role, letter)) = disk.hold(Held::Letter(role, letter)) {
                self.say(place, role, letter)?;
            }
        }
        for task in shelf {
            let after = self.rng.random_range(10_000..20_000_000);
            let life = self.nodes[place].life;
            self.nodes[place].disk.shelf.put(task);
            self.schedule.after(after, Event::Shelved { node: place, life });
        }
        if urgent || self.nodes[place].disk.is_awaited() {
            self.sync(place);
        }
        self.look_at(place, role)?;
        self.arm(place, role);
        Ok(())
    }

    fn look_at(&mut self, place: usize, role: Role) -> Result<(), Violation> {
        match role {
            Role::Learner => {
                let before = (self.book.newest().epoch, self.book.current().epoch);
                self.book.learned(&mut self.nodes[place])?;
                if before != (self.book.newest().epoch, self.book.current().epoch) {
                    self.changed();
                }
            }
            Role::Replica => {
                self.book.executed(&self.nodes[place])?;
                let wrong = self.make.witness.wrong.load(Ordering::Relaxed);
                if wrong != 0 {
                    return Err(exactly_once::broken(wrong));
                }
            }
            Role::Acceptor | Role::Proposer | Role::Home | Role::Auxiliary => {}
        }
        Ok(())
    }

    /// Schedules the next alarm of a role, and a turn if messages wait.
    fn arm(&mut self, node: usize, role: Role) {
        let (now, life) = (self.schedule.now, self.nodes[node].life);
        if let Some(at) = self.nodes[node].alarm(now, role) {
            self.schedule.at(at, Event::Alarm { node, life, role });
        }
        if self.nodes[node].more(role) {
            self.schedule_turn(node, role);
        }
    }

    fn sync(&mut self, node: usize) {
        let longest = self.plan.sync_us * 1_000 * self.nodes[node].stall;
        let life = self.nodes[node].life;
        if let Some(upto) = self.nodes[node].disk.sync() {
            let after = self.rng.random_range(0..longest);
            self.schedule.after(after, Event::Synced { node, life, upto });
        }
    }

    fn synced(&mut self, place: usize, upto: u64) -> Result<(), Violation> {
        for held in self.nodes[place].disk.synced(upto) {
            match held {
                Held::Letter(role, letter) => self.say(place, role, letter)?,
                Held::Rebuild(role) => self.rebuild(place, role)?,
            }
        }
        if self.nodes[place].disk.is_awaited() {
            self.sync(place);
        }
        Ok(())
    }

    fn rebuild(&mut self, place: usize, role: Role) -> Result<(), Violation> {
        if role == Role::Proposer {
            self.network.forget(place); // its shell tells it again who is connected
        }
        let said = self.nodes[place].rebuild(self.schedule.now, role, &self.make, &mut self.rng);
        if self.trace {
            eprintln!("{:>12} {} {role:?} is made anew", self.schedule.now, self.nodes[place].id);
        }
        self.absorb(place, role, said)
    }

    fn shelved(&mut self, place: usize) {
        let node = &mut self.nodes[place];
        let Some(told) = node.disk.shelf.work() else { return };
        if let Some((_, body)) = node.disk.shelf.newest() {
            let history = StateImage::decode(body).expect("a replica wrote it").history;
            node.disk.snapshot = Some(Image { history, body: body.clone() });
        }
        let me = node.id.clone();
        self.deliver(place, me, told.into());
    }

    fn auxiliary_work(&self) -> Work {
        let auxiliaries = self.nodes.iter().filter(|node| node.kind == NodeRole::Auxiliary);
        let records = auxiliaries.map(|node| node.disk.written).sum();
        Work { messages: self.auxiliary_messages, records }
    }
}

/// Messages a role handles in one turn.
const TURN_MESSAGES_MAX: usize = 64;

/// A node that never was before, at this place of the cluster.
fn fresh_id(name: NodeName, place: usize, rng: &mut Rng) -> NodeId {
    let random: u64 = rng.random_range(1..1 << 32);
    NodeId::new(name, Incarnation(random << PLACE_BITS | place as u64))
}

/// Where in the cluster a node is, or was in an earlier incarnation.
fn place_of(id: &NodeId) -> usize {
    usize::try_from(id.incarnation.0 & ((1 << PLACE_BITS) - 1)).expect("a small number")
}
