//! Two thousand receivers: what a message costs the group does not depend on how many there are, nor
//! on the slowest.

use std::{collections::BTreeMap, sync::Arc};

use rand::{RngExt, SeedableRng};
use synod::{
    effects::{Effects, To},
    election::message::Epoch,
    machine::{Machine, Now},
    multicast::{
        group::Group,
        message::{
            Data, Entry, Message, Mid, Publisher, ReceiverMessage, SenderMessage, Seq,
            SequencerMessage, Word,
        },
        receiver::{Receiver, Style},
    },
};
use synod_runtime::{
    identity::{Incarnation, NodeId},
    world::{Instant, Rng},
};

use crate::{judge::payload, node::Node};

/// A receiver that is fed, and feeds others what it delivers.
struct Edge {
    id: NodeId,
    receiver: Receiver,
    delivered: Seq,
    /// Of all that it delivered, in order.
    chain: u64,
    installed: u64,
}

/// What was sent.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Cost {
    /// Between servers.
    ordering: u64,
    /// From servers to those they feed.
    feeding: u64,
    /// Questions to each server.
    asked: [u64; SERVERS],
    installed: u64,
}

struct Crowd {
    now: u64,
    /// Of the servers' disks.
    rng: Rng,
    loss: Rng,
    nodes: Vec<Node>,
    edges: Vec<Edge>,
    by_id: BTreeMap<NodeId, usize>,
    /// Arrives within the millisecond: to the edge of that place, from that node.
    mail: Vec<(usize, NodeId, Message)>,
    /// Hears nothing for now.
    deaf: Option<usize>,
    cost: Cost,
}

impl Crowd {
    fn new(receivers: usize) -> Self {
        let id =
            |n: usize| NodeId::new(format!("n{n}").parse().expect("a name"), Incarnation(n as u64));
        let group = Group {
            lifetime: 200,
            every: 100,
            keep: 100,
            ..Group::new("crowd", (0..SERVERS).map(id).collect())
        };
        let group = Arc::new(group);
        let edge = |n: usize| Edge {
            id: id(SERVERS + n),
            receiver: Receiver::new(Arc::clone(&group), Rng::seed_from_u64(n as u64)),
            delivered: Seq(0),
            chain: 0,
            installed: 0,
        };
        let edges: Vec<_> = (0..receivers).map(edge).collect();
        let node = |n| Node::new(id(n), &group, Style::TwoSteps, n as u64);
        Self {
            now: 0,
            rng: Rng::seed_from_u64(1),
            loss: Rng::seed_from_u64(2),
            nodes: (0..SERVERS).map(node).collect(),
            by_id: edges.iter().enumerate().map(|(at, edge)| (edge.id.clone(), at)).collect(),
            edges,
            mail: Vec::new(),
            deaf: None,
            cost: Cost::default(),
        }
    }

    fn at(&self) -> Now {
        Now { at: Instant::from_nanos(self.now * 1_000), wall_ms: 0 }
    }

    /// Feeds whom that server feeds: each feeds a few, and these others.
    fn feed_from_server(&mut self, server: usize, message: &Message) {
        let fed = (0..FED).map(|n| n * SERVERS + server).filter(|edge| *edge < self.edges.len());
        let from = self.nodes[server].id.clone();
        for edge in fed.collect::<Vec<_>>() {
            self.cost.feeding += 1;
            self.post(edge, &from, message);
        }
    }

    fn feed_from_edge(&mut self, edge: usize, message: &Message) {
        let (first, from) = (SERVERS * FED + edge * FED, self.edges[edge].id.clone());
        for fed in first..(first + FED).min(self.edges.len()) {
            self.post(fed, &from, message);
        }
    }

    /// One of a hundred is lost.
    fn post(&mut self, edge: usize, from: &NodeId, message: &Message) {
        if !self.loss.random_ratio(1, 100) && self.deaf != Some(edge) {
            self.mail.push((edge, from.clone(), message.clone()));
        }
    }

    fn tell(&mut self, node: usize, message: Message) {
        let me = self.nodes[node].id.clone();
        self.nodes[node].hear(self.now, &me, message, &mut self.rng);
    }

    fn step(&mut self) {
        self.now += 1_000;
        let mut post = Vec::new();
        for from in 0..SERVERS {
            self.nodes[from].tick(self.now, &mut self.rng);
            for word in std::mem::take(&mut self.nodes[from].words) {
                if let Word::Delivered(entries) = word {
                    self.feed_from_server(from, &ReceiverMessage::Entries(entries).into());
                }
            }
            post.extend(
                std::mem::take(&mut self.nodes[from].post).into_iter().map(|one| (from, one)),
            );
        }
        for (from, (to, message)) in post {
            let Some(server) = self.nodes.iter().position(|node| node.id == to) else {
                let from = self.nodes[from].id.clone();
                self.post(self.by_id[&to], &from, &message);
                continue;
            };
            self.cost.ordering += 1;
            if let Message::Gossip(_) = message {
                self.feed_from_server(server, &message);
                // Its own node hears it too.
                if server == (from + 1) % SERVERS {
                    self.feed_from_server(from, &message);
                }
            }
            let from = self.nodes[from].id.clone();
            self.nodes[server].hear(self.now, &from, message, &mut self.rng);
        }
        for (edge, from, message) in std::mem::take(&mut self.mail) {
            if let Message::Gossip(_) = message {
                self.feed_from_edge(edge, &message);
            }
            message.split(|one| {
                if let Message::Receiver(message) = one {
                    self.turn(edge, Some((&from, message)));
                }
            });
        }
        let now = self.at();
        for edge in 0..self.edges.len() {
            if self.edges[edge].receiver.deadline().is_some_and(|due| due <= now.at) {
                self.turn(edge, None);
            }
        }
    }

    /// A turn of an edge, and what comes of it.
    fn turn(&mut self, edge: usize, heard: Option<(&NodeId, ReceiverMessage)>) {
        let (now, mut out) = (self.at(), Effects::<Receiver>::default());
        let receiver = &mut self.edges[edge].receiver;
        match heard {
            Some((from, message)) => {
                receiver.message(now, from, message, &mut out);
                receiver.flush(now, &mut out);
            }
            None => receiver.timeout(now, &mut out),
        }
        for letter in out.now {
            match (letter.to, letter.message) {
                (To::Node(to), message) => {
                    let server = self.nodes.iter().position(|node| node.id == to);
                    let server = server.expect("only servers are asked");
                    self.cost.asked[server] += 1;
                    if self.deaf != Some(edge) {
                        let from = self.edges[edge].id.clone();
                        self.nodes[server].hear(self.now, &from, message, &mut self.rng);
                    }
                }
                (To::Here, Message::Delivered(entries)) => self.delivered(edge, &entries),
                (To::Here, Message::Installed(checkpoint)) => {
                    self.edges[edge].delivered = checkpoint.seq;
                    self.edges[edge].installed += 1;
                }
                (To::Here, _) => {}
            }
        }
    }

    fn delivered(&mut self, edge: usize, entries: &Arc<Vec<Entry>>) {
        let one = &mut self.edges[edge];
        for entry in entries.iter() {
            assert_eq!(entry.seq, one.delivered.next(), "not contiguous");
            let mid = entry.pair.mid.expect("nothing is void here");
            assert_eq!(entry.payload, payload(mid));
            one.delivered = entry.seq;
            one.chain = one.chain.wrapping_mul(31).wrapping_add(mid.number);
        }
        self.feed_from_edge(edge, &ReceiverMessage::Entries(Arc::clone(entries)).into());
    }

    /// Orders messages for all of them, one of them deaf meanwhile if so wished, and waits for the
    /// last.
    fn deliver_all(mut self, deaf: bool) -> Cost {
        for node in &mut self.nodes {
            node.disk_micros = 1; // done by the next millisecond
            node.start(0, &mut self.rng);
        }
        self.tell(0, SequencerMessage::Lead(Epoch(1)).into());
        (0..200).for_each(|_| self.step());
        self.deaf = deaf.then(|| self.edges.len() - 1);
        for number in 1..=MESSAGES {
            let mid = Mid { publisher: Publisher(1), number };
            let data = Data {
                mid,
                stamp: Seq(number.saturating_sub(50)),
                lowest_open: 1,
                payload: payload(mid),
            };
            let publish = SenderMessage::Publish { call: number, messages: vec![data] };
            self.tell(1, publish.into());
            (0..2).for_each(|_| self.step());
        }
        (0..1_000).for_each(|_| self.step());
        let done = |edge: &Edge| edge.delivered == Seq(MESSAGES);
        let behind = self.edges.iter().filter(|edge| !done(edge)).count();
        assert_eq!(behind, usize::from(deaf), "receivers that have not got all");
        let cost = self.cost.clone();
        // Whoever heard nothing of it comes back: it is told where to go on, and nobody waited.
        if let Some(slowest) = self.deaf.take() {
            assert_eq!(self.edges[slowest].delivered, Seq(0));
            (0..2_000).for_each(|_| self.step());
            assert!(done(&self.edges[slowest]) && self.edges[slowest].installed > 0);
        }
        let chain = self.edges[0].chain;
        let heard_all = self.edges.iter().filter(|edge| edge.installed == 0);
        assert!(heard_all.clone().all(|edge| edge.chain == chain), "two orders");
        Cost { installed: self.edges.len() as u64 - heard_all.count() as u64, ..cost }
    }
}

/// Goal: ordering costs the servers the very same messages for three receivers, for two thousand and
/// for two thousand of which one is deaf; feeding costs them what it costs to feed a few; repairs
/// are the work of whoever lost something, spread over the servers. Method: receivers feed one
/// another as a tree, one of a hundred messages to each of them is lost.
#[test]
fn what_a_message_costs_the_group_depends_neither_on_how_many_receive_nor_on_the_slowest() {
    let few = Crowd::new(3).deliver_all(false);
    let many = Crowd::new(RECEIVERS).deliver_all(false);
    let slow = Crowd::new(RECEIVERS).deliver_all(true);
    println!("3 receivers: {few:?}\n{RECEIVERS}: {many:?}\n{RECEIVERS}, one deaf: {slow:?}");
    let each = |count: u64| count as f64 / MESSAGES as f64;
    println!("between servers {:.2}, fed {:.1} a message", each(many.ordering), each(many.feeding));
    assert_eq!(few.ordering, many.ordering);
    assert_eq!(few.ordering, slow.ordering);
    let fed_max = (SERVERS * FED) as u64 * (MESSAGES + 2 * GOSSIPS);
    assert!(many.feeding <= fed_max && slow.feeding <= fed_max, "{many:?}");
    let asked: u64 = many.asked.iter().sum();
    assert!(asked < RECEIVERS as u64 * MESSAGES / 4, "{asked} questions");
    let (least, most) = (many.asked.iter().min(), many.asked.iter().max());
    assert!(most.zip(least).is_some_and(|(most, least)| most * 2 < least * 3), "{many:?}");
    assert_eq!((many.installed, slow.installed), (0, 1));
}

const SERVERS: usize = 3;

/// As thousands go.
const RECEIVERS: usize = 2_000;

/// Each node feeds so many.
const FED: usize = 12;

/// Ordered in each run, one every two milliseconds.
const MESSAGES: u64 = 400;

/// Signs of life in a run, at most.
const GOSSIPS: u64 = 40;
