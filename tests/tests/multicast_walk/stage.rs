//! A stage: the nodes of a walk, where a scene says what happens, and what of the mail arrives.

use std::{collections::BTreeMap, sync::Arc};

use rand::SeedableRng;
use synod::{
    election::message::Epoch,
    multicast::{
        group::Group,
        joining::Progress,
        message::{
            Data, Message, Mid, Outcome, Publisher, SenderMessage, Seq, SequencerMessage, Word,
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

/// What becomes of a message between two nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Goes,
    Lost,
    /// It arrives when the scene releases it.
    Late,
}

/// The servers of a group, and one node more that serves nothing.
pub(crate) struct Stage {
    now: u64,
    rng: Rng,
    pub(crate) nodes: Vec<Node>,
    cursors: Vec<Seq>,
    /// How far each node is on its way into the group.
    progress: Vec<Progress>,
    judge: Judge,
    epoch: u64,
    calls: u64,
    late: Vec<(usize, usize, Message)>,
    told: BTreeMap<Mid, Outcome>,
}

impl Stage {
    pub(crate) fn new(servers: usize, k_data: usize, k_commit: usize) -> Self {
        Self::submitting(Submits::default(), servers, k_data, k_commit)
    }

    /// One whose sequencers send their numbers out in that way.
    pub(crate) fn submitting(
        submits: Submits,
        servers: usize,
        k_data: usize,
        k_commit: usize,
    ) -> Self {
        let id =
            |n: usize| NodeId::new(format!("n{n}").parse().expect("a name"), Incarnation(n as u64));
        let group = Arc::new(Group {
            k_data,
            k_commit,
            k_checkpoint: 1,
            ..Group::new("scene", (0..servers).map(id).collect())
        });
        group.check().expect("a good group");
        let node = |n| Node::new(id(n), &group, Style::TwoSteps, n as u64).submitting(submits);
        let mut stage = Self {
            now: 0,
            rng: Rng::seed_from_u64(1),
            nodes: (0..=servers).map(node).collect(),
            cursors: vec![Seq(0); servers + 1],
            progress: vec![Progress::of(&group); servers + 1],
            judge: Judge::default(),
            epoch: 0,
            calls: 0,
            late: Vec::new(),
            told: BTreeMap::new(),
        };
        (0..=servers).for_each(|node| stage.start(node));
        stage
    }

    pub(crate) fn start(&mut self, node: usize) {
        self.cursors[node] = Seq(0);
        self.nodes[node].stuck = false;
        self.nodes[node].start(self.now, &mut self.rng);
    }

    /// It learns who serves the group.
    pub(crate) fn regroup(&mut self, node: usize, group: &Arc<Group>) {
        self.progress[node] = Progress::of(group);
        if group.is_joining(&self.nodes[node].id) {
            self.cursors[node] = Seq(0);
            self.nodes[node].words.clear();
        }
        self.nodes[node].regroup(self.now, group, &mut self.rng);
    }

    /// Whether it has what it needs to serve.
    pub(crate) fn is_in(&self, node: usize) -> bool {
        self.progress[node].is_in()
    }

    /// It stops at once, and nothing under way reaches its disk.
    pub(crate) fn crash(&mut self, node: usize) {
        self.nodes[node].crash_after(0);
    }

    /// That server leads, in the next epoch.
    pub(crate) fn lead(&mut self, node: usize) {
        self.epoch += 1;
        self.tell(node, SequencerMessage::Lead(Epoch(self.epoch)).into());
    }

    /// The message `number` of `publisher` sets out from that node.
    pub(crate) fn publish(&mut self, node: usize, publisher: u64, number: u64) -> Mid {
        let mid = Mid { publisher: Publisher(publisher), number };
        self.calls += 1;
        let roles = self.nodes[node].roles.as_ref().expect("it is up");
        let stamp = roles.receiver.delivered();
        let data = Data { mid, stamp, lowest_open: 1, payload: payload(mid) };
        let publish = SenderMessage::Publish { call: self.calls, messages: vec![data] };
        self.tell(node, publish.into());
        mid
    }

    fn tell(&mut self, node: usize, message: Message) {
        let me = self.nodes[node].id.clone();
        self.hear(node, &me, message);
    }

    fn hear(&mut self, node: usize, from: &NodeId, message: Message) {
        if self.nodes[node].roles.is_some() {
            self.nodes[node].hear(self.now, from, message, &mut self.rng);
        }
    }

    /// Time goes by, a hop a millisecond.
    pub(crate) fn run(
        &mut self,
        millis: u64,
        way: impl Fn(usize, usize, &Message) -> Way,
    ) -> Result<(), Broken> {
        for _ in 0..millis {
            self.now += 1_000;
            for node in 0..self.nodes.len() {
                self.nodes[node].tick(self.now, &mut self.rng);
            }
            let mut mail = Vec::new();
            for from in 0..self.nodes.len() {
                self.listen(from)?;
                for (to, message) in std::mem::take(&mut self.nodes[from].post) {
                    let to = self.nodes.iter().position(|node| node.id == to).expect("a node");
                    // Who serves nothing hears the sequencer by way of servers.
                    if let Message::Gossip(_) = message {
                        mail.push((from, self.nodes.len() - 1, message.clone()));
                    }
                    mail.push((from, to, message));
                }
            }
            for (from, to, message) in mail {
                match way(from, to, &message) {
                    Way::Goes => self.hear(to, &self.nodes[from].id.clone(), message),
                    Way::Lost => {}
                    Way::Late => self.late.push((from, to, message)),
                }
            }
        }
        Ok(())
    }

    /// What was late arrives.
    pub(crate) fn release(&mut self) {
        for (from, to, message) in std::mem::take(&mut self.late) {
            self.hear(to, &self.nodes[from].id.clone(), message);
        }
    }

    fn listen(&mut self, node: usize) -> Result<(), Broken> {
        for word in std::mem::take(&mut self.nodes[node].words) {
            match word {
                Word::Delivered(entries) => {
                    self.judge.delivered(&mut self.cursors[node], &entries)?;
                }
                Word::Installed(checkpoint) => {
                    self.judge.installed(&checkpoint)?;
                    self.cursors[node] = checkpoint.seq;
                }
                Word::Outcome { messages, .. } => {
                    for (mid, outcome) in messages {
                        self.judge.told(mid, outcome)?;
                        self.told.insert(mid, outcome);
                    }
                }
                Word::Step(step) => self.progress[node].note(step),
                Word::Maximum { .. }
                | Word::Asked(_)
                | Word::Sequencer(_)
                | Word::Answer { .. }
                | Word::Outdated => {}
            }
        }
        Ok(())
    }

    /// All who can come back do, and nothing goes wrong any more: then all must be well, and a new
    /// message reach everybody.
    pub(crate) fn finish(mut self) -> Result<(), Broken> {
        self.late.clear();
        for node in 0..self.nodes.len() {
            self.nodes[node].stuck = false;
            if self.nodes[node].roles.is_none() && !self.nodes[node].lost {
                self.start(node);
            }
        }
        let leader = self.nodes.iter().position(|node| node.roles.is_some()).expect("some live");
        self.lead(leader);
        self.run(3_000, |_, _, _| Way::Goes)?;
        let last = self.publish(leader, 99, 1);
        self.run(3_000, |_, _, _| Way::Goes)?;
        self.judge.publishers_order_is_kept()?;
        if !matches!(self.told.get(&last), Some(Outcome::Committed(_))) {
            return broken("what comes after is delivered nowhere".to_owned());
        }
        let top = self.judge.top();
        for node in &self.nodes {
            let at = node.roles.as_ref().map_or(top, |roles| roles.receiver.delivered());
            if at != top {
                return broken(format!("{} stands at {at}, others at {top}", node.id.name));
            }
        }
        Ok(())
    }
}
