//! A random walk over the machines of a group: servers that crash, hang and lose words, sequencers
//! that wake up late, publishers that go from node to node.

mod change;
mod maximum;

use std::{collections::BTreeMap, sync::Arc};

use rand::{RngExt, SeedableRng, seq::IndexedRandom};
use synod::{
    election::message::Epoch,
    multicast::{
        group::{Group, Joining, Maximum},
        joining::Progress,
        message::{
            Data, Message, Mid, Outcome, Publisher, ReceiverMessage, SenderMessage, Seq,
            SequencerMessage, Word,
        },
        receiver::Style,
        sequencer::Submits,
    },
};
use synod_runtime::{
    identity::{Incarnation, NodeId},
    world::Rng,
};

use crate::{
    judge::{Broken, Judge, broken, payload},
    node::Node,
};

/// How far a walk came.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Walked {
    pub(crate) delivered: u64,
    pub(crate) voids: u64,
    pub(crate) acknowledged: u64,
    pub(crate) reigns: u64,
    pub(crate) installed: u64,
    pub(crate) records: usize,
    pub(crate) replaced: u64,
}

struct Client {
    publisher: Publisher,
    next: u64,
    open: BTreeMap<u64, Data>,
    stamp: Seq,
    call: u64,
    node: usize,
    asked_at: u64,
}

enum Event {
    Tick(usize),
    Arrive {
        to: usize,
        from: NodeId,
        message: Message,
    },
    Publish(usize),
    Chance,
    /// A node asks the log who serves the group.
    Learn(usize),
    /// What a node's sequencer has written down of the largest number.
    Store(usize, Epoch, Seq),
    /// Whoever led before, another leads.
    Lead,
}

pub(crate) struct Walk {
    now: u64,
    rng: Rng,
    /// As the log has it.
    group: Arc<Group>,
    /// What the register of the largest number holds, or the file of each node: each node knows one of
    /// them.
    written: Vec<(Epoch, Seq)>,
    /// How far each node is on its way into the group.
    progress: Vec<Progress>,
    /// Whether servers are lost for good in this walk, or are thought to be.
    losses: bool,
    nodes: Vec<Node>,
    cursors: Vec<Seq>,
    clients: Vec<Client>,
    calls: u64,
    epoch: u64,
    leader: Option<usize>,
    events: BTreeMap<(u64, u64), Event>,
    serial: u64,
    judge: Judge,
    calm: bool,
    /// One of so many words is lost, doubled, or late.
    loss: u32,
    late_micros: u64,
    walked: Walked,
}

/// Walks once.
pub(crate) fn walk(seed: u64) -> Result<Walked, Broken> {
    let mut walk = Walk::new(seed);
    while walk.now < FAULTY {
        walk.turn()?;
    }
    walk.calm = true;
    for node in 0..walk.nodes.len() {
        walk.nodes[node].paused_until = 0;
        walk.nodes[node].disk_micros = 500;
        if walk.nodes[node].roles.is_none() && !walk.nodes[node].lost {
            walk.start(node)?;
        }
    }
    (0..walk.nodes.len()).try_for_each(|node| walk.learn(node))?;
    walk.lead()?;
    while walk.now < FAULTY + SETTLING {
        walk.turn()?;
    }
    walk.judge.publishers_order_is_kept()?;
    walk.all_is_well()?;
    walk.walked.delivered = walk.judge.top().0;
    walk.walked.voids = walk.judge.voids;
    Ok(walk.walked)
}

impl Walk {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::seed_from_u64(seed);
        let servers: usize = *[3, 3, 3, 5].choose(&mut rng).expect("some");
        let id =
            |n: usize| NodeId::new(format!("n{n}").parse().expect("a name"), Incarnation(n as u64));
        let k = |rng: &mut Rng| rng.random_range(2..=servers.div_ceil(2));
        let group = Arc::new(Group {
            k_data: if rng.random_ratio(1, 4) { 1 } else { k(&mut rng) },
            k_commit: k(&mut rng),
            k_checkpoint: k(&mut rng),
            lifetime: rng.random_range(20..120),
            every: rng.random_range(10..60),
            keep: rng.random_range(0..10),
            maximum: match seed % 8 {
                3 | 7 => Maximum::Register,
                5 => Maximum::LocalFile,
                _ => Maximum::CommitServers,
            },
            ..Group::new("walk", (0..servers).map(id).collect())
        });
        group.check().expect("a good group");
        let style = if rng.random_ratio(1, 4) { Style::OneStep } else { Style::TwoSteps };
        let losses = group.k_data > 1 && rng.random_ratio(3, 4);
        let all = servers + SPARE;
        let submits = if seed % 3 == 1 { Submits::OwnFirst } else { Submits::AtOnce };
        let node = |n| Node::new(id(n), &group, style, seed ^ (n as u64) << 32).submitting(submits);
        let nodes: Vec<_> = (0..all).map(node).collect();
        let clients = (0..rng.random_range(1..6)).map(|n| Client {
            publisher: Publisher(n + 1),
            next: 1,
            open: BTreeMap::new(),
            stamp: Seq(0),
            call: 0,
            node: 0,
            asked_at: 0,
        });
        let clients: Vec<_> = clients.collect();
        let mut walk = Self {
            now: 0,
            progress: vec![Progress::of(&group); nodes.len()],
            losses,
            group,
            written: vec![(Epoch(0), Seq(0)); nodes.len()],
            cursors: vec![Seq(0); nodes.len()],
            nodes,
            clients,
            calls: 0,
            epoch: 0,
            leader: None,
            events: BTreeMap::new(),
            serial: 0,
            judge: Judge::default(),
            calm: false,
            loss: *[4, 10, 10, 1_000].choose(&mut rng).expect("some"),
            late_micros: *[30_000, 300_000, 2_000_000].choose(&mut rng).expect("some"),
            walked: Walked::default(),
            rng,
        };
        for node in 0..walk.nodes.len() {
            walk.nodes[node].start(0, &mut walk.rng);
            walk.after(0, Event::Tick(node));
        }
        for client in 0..walk.clients.len() {
            walk.after(1_000, Event::Publish(client));
        }
        walk.after(100, Event::Chance);
        walk
    }

    fn after(&mut self, micros: u64, event: Event) {
        self.serial += 1;
        self.events.insert((self.now + micros, self.serial), event);
    }

    fn turn(&mut self) -> Result<(), Broken> {
        let ((at, _), event) = self.events.pop_first().expect("ticks go on for ever");
        self.now = at;
        match event {
            Event::Tick(node) => {
                let wait = self.nodes[node].paused_until.saturating_sub(self.now).max(2_000);
                if self.nodes[node].paused_until <= self.now {
                    self.nodes[node].tick(self.now, &mut self.rng);
                    self.collect(node)?;
                }
                self.after(wait, Event::Tick(node));
            }
            Event::Arrive { to, from, message } => {
                let paused = self.nodes[to].paused_until;
                if paused > self.now {
                    self.after(paused - self.now, Event::Arrive { to, from, message });
                } else if self.nodes[to].roles.is_some() {
                    self.nodes[to].hear(self.now, &from, message, &mut self.rng);
                    self.collect(to)?;
                }
            }
            Event::Publish(client) => {
                self.publish(client)?;
                let wait = self.rng.random_range(500..20_000);
                self.after(wait, Event::Publish(client));
            }
            Event::Learn(node) => self.learn(node)?,
            Event::Store(node, epoch, seq) => self.store(node, epoch, seq)?,
            Event::Lead => self.lead()?,
            Event::Chance => {
                if !self.calm {
                    self.chance()?;
                    let wait = self.rng.random_range(1_000..150_000);
                    self.after(wait, Event::Chance);
                }
            }
        }
        Ok(())
    }

    /// Something goes wrong.
    fn chance(&mut self) -> Result<(), Broken> {
        let node = self.rng.random_range(0..self.nodes.len());
        if self.losses && self.rng.random_ratio(1, 2) {
            return self.lose(node);
        }
        match self.rng.random_range(0..10) {
            0..3 => self.lead()?,
            3..5 if self.nodes[node].roles.is_some() => self.nodes[node].crash(&mut self.rng),
            5..8 if self.nodes[node].roles.is_none() && !self.nodes[node].lost => {
                self.start(node)?;
            }
            8 => self.nodes[node].paused_until = self.now + self.rng.random_range(0..400_000),
            9 => {
                self.nodes[node].disk_micros =
                    *[500, 5_000, 50_000].choose(&mut self.rng).expect("some");
            }
            _ => {}
        }
        Ok(())
    }

    fn start(&mut self, node: usize) -> Result<(), Broken> {
        self.cursors[node] = Seq(0);
        // Who starts asks the log first.
        self.nodes[node].group = Arc::clone(&self.group);
        self.progress[node] = Progress::of(&self.group);
        self.nodes[node].start(self.now, &mut self.rng);
        self.collect(node)
    }

    /// Another server leads; the one before seldom hears of it.
    fn lead(&mut self) -> Result<(), Broken> {
        // Whoever believes that it serves: it may be the last to learn that it does not.
        let stands = |n: &usize| {
            let node = &self.nodes[*n];
            let known = if self.calm { &self.group } else { &node.group };
            node.roles.is_some() && known.index(&node.id).is_some()
        };
        let up: Vec<_> = (0..self.nodes.len()).filter(stands).collect();
        let Some(next) = up.choose(&mut self.rng).copied() else { return Ok(()) };
        if let Some(old) = self.leader.filter(|_| self.calm || self.rng.random_ratio(1, 5)) {
            self.tell(old, SequencerMessage::StepDown.into())?;
        }
        self.epoch += 1;
        self.walked.reigns += 1;
        self.leader = Some(next);
        self.tell(next, SequencerMessage::Lead(Epoch(self.epoch)).into())
    }

    fn tell(&mut self, node: usize, message: Message) -> Result<(), Broken> {
        if self.nodes[node].roles.is_none() {
            return Ok(());
        }
        let me = self.nodes[node].id.clone();
        self.nodes[node].hear(self.now, &me, message, &mut self.rng);
        self.collect(node)
    }

    /// A publisher sends something new, or asks again elsewhere.
    fn publish(&mut self, client: usize) -> Result<(), Broken> {
        let one = &mut self.clients[client];
        let ripe = self.now - one.asked_at > 400_000;
        if !one.open.is_empty() && !ripe {
            return Ok(());
        }
        if one.open.is_empty() && (self.calm && self.now > FAULTY + PUBLISHING) {
            return Ok(());
        }
        let up: Vec<_> = (0..self.nodes.len()).filter(|n| self.nodes[*n].roles.is_some()).collect();
        if ripe || self.nodes[one.node].roles.is_none() {
            let Some(node) = up.choose(&mut self.rng) else { return Ok(()) };
            one.node = *node;
        }
        let Some(roles) = &self.nodes[one.node].roles else { return Ok(()) };
        one.stamp = one.stamp.max(roles.receiver.delivered());
        if one.open.is_empty() {
            for _ in 0..self.rng.random_range(1..6) {
                let mid = Mid { publisher: one.publisher, number: one.next };
                let data = Data { mid, stamp: one.stamp, lowest_open: 0, payload: payload(mid) };
                one.open.insert(one.next, data);
                one.next += 1;
            }
        }
        let lowest_open = *one.open.keys().next().expect("something is open");
        let mut messages: Vec<_> = one.open.values().cloned().collect();
        messages.iter_mut().for_each(|data| data.lowest_open = lowest_open);
        self.calls += 1;
        (one.call, one.asked_at) = (self.calls, self.now);
        let (node, call) = (one.node, one.call);
        self.tell(node, SenderMessage::Publish { call, messages }.into())
    }

    /// Puts on their way what a node has to say, and hears its words.
    fn collect(&mut self, node: usize) -> Result<(), Broken> {
        let from = self.nodes[node].id.clone();
        for (to, message) in std::mem::take(&mut self.nodes[node].post) {
            self.is_stored(node, &message)?;
            self.post(&from, &to, &message);
        }
        for word in std::mem::take(&mut self.nodes[node].words) {
            match word {
                Word::Delivered(entries) => {
                    self.judge.delivered(&mut self.cursors[node], &entries)?;
                    // Servers feed who is none.
                    if self.nodes[node].group.is_host(&from) {
                        for to in self.spares() {
                            let entries = Arc::clone(&entries);
                            self.post(&from, &to, &ReceiverMessage::Entries(entries).into());
                        }
                    }
                }
                Word::Installed(checkpoint) => {
                    self.walked.installed += 1;
                    self.judge.installed(&checkpoint)?;
                    self.cursors[node] = checkpoint.seq;
                }
                Word::Outcome { call, messages } => self.outcome(call, messages)?,
                Word::Step(step) => {
                    self.progress[node].note(step);
                    self.join(node)?;
                }
                Word::Outdated => self.after(1_000, Event::Learn(node)),
                Word::Maximum { epoch, seq } => {
                    let wait = self.rng.random_range(300..if self.calm { 3_000 } else { 60_000 });
                    self.after(wait, Event::Store(node, epoch, seq));
                }
                Word::Asked(_) | Word::Sequencer(_) | Word::Answer { .. } => {}
            }
        }
        Ok(())
    }

    /// Who serves nothing, as the log has it.
    fn spares(&self) -> Vec<NodeId> {
        let ids = self.nodes.iter().map(|node| node.id.clone());
        ids.filter(|id| !self.group.is_host(id)).collect()
    }

    fn outcome(&mut self, call: u64, messages: Vec<(Mid, Outcome)>) -> Result<(), Broken> {
        for (mid, outcome) in messages {
            self.judge.told(mid, outcome)?;
            let client = self.clients.iter_mut().find(|one| one.publisher == mid.publisher);
            let client = client.expect("a publisher of this walk");
            if client.call != call {
                continue;
            }
            client.open.remove(&mid.number);
            match outcome {
                Outcome::Committed(_) => self.walked.acknowledged += 1,
                Outcome::Expired | Outcome::Unknown => {
                    self.judge.given_up.insert(mid, ());
                }
            }
        }
        Ok(())
    }

    fn post(&mut self, from: &NodeId, to: &NodeId, message: &Message) {
        let to = self.nodes.iter().position(|node| node.id == *to).expect("a node of this walk");
        // Sequencers also tell who is no server, by way of servers.
        if let Message::Gossip(_) = message
            && self.group.is_host(&self.nodes[to].id)
            && self.rng.random_ratio(1, 5)
        {
            for spare in self.spares() {
                let to = self.nodes.iter().position(|node| node.id == spare);
                let to = to.expect("a node of this walk");
                let event = Event::Arrive { to, from: from.clone(), message: message.clone() };
                self.after(2_000, event);
            }
        }
        let copies = if self.calm {
            1
        } else if self.rng.random_ratio(1, self.loss) {
            0
        } else {
            1 + usize::from(self.rng.random_ratio(1, self.loss))
        };
        for _ in 0..copies {
            let late = !self.calm && self.rng.random_ratio(1, 20);
            let way = self.rng.random_range(200..if late { self.late_micros } else { 3_000 });
            let event = Event::Arrive { to, from: from.clone(), message: message.clone() };
            self.after(way, event);
        }
    }

    /// Nothing is lost, everybody is at the end, and nothing is kept for ever.
    fn all_is_well(&mut self) -> Result<(), Broken> {
        let top = self.judge.top();
        if let Some(Joining { node, .. }) = &self.group.joining {
            let at = self.nodes.iter().position(|one| one.id == *node).expect("a node");
            return broken(format!("{} is not in: {:?}", node.name, self.progress[at]));
        }
        for node in &self.nodes {
            let Some(roles) = &node.roles else { continue };
            if roles.receiver.delivered() != top {
                let at = roles.receiver.delivered();
                return broken(format!("{} stands at {at}, others at {top}", node.id.name));
            }
            let (held, _) = roles.data.held();
            let group = &self.group;
            let data_max = 4 * (group.every + group.keep + group.lifetime) + 200;
            let pairs_max = 3 * (group.every + group.lifetime) + 300;
            self.walked.records = self.walked.records.max(node.disk.len());
            if held as u64 > data_max || roles.commit.held() as u64 > pairs_max {
                let pairs = roles.commit.held();
                return broken(format!("{} keeps {held} messages, {pairs} pairs", node.id.name));
            }
            if roles.sender.held() > 0 || roles.receiver.held() as u64 > data_max {
                let (sent, got) = (roles.sender.held(), roles.receiver.held());
                return broken(format!("{} still sends {sent}, holds {got}", node.id.name));
            }
        }
        let open = self.clients.iter().find(|client| !client.open.is_empty());
        open.map_or(Ok(()), |one| {
            broken(format!("{} has open ones: {:?}", one.publisher, one.open))
        })
    }
}

/// Simulated microseconds in which things go wrong.
const FAULTY: u64 = 4_000_000;

/// Nodes that serve nothing at first.
const SPARE: usize = 2;

/// Of the calm time publishers publish for so long.
const PUBLISHING: u64 = 4_000_000;

/// Calm time after which all must be well.
const SETTLING: u64 = 9_000_000;
