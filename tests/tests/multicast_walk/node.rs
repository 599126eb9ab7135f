//! A node of a walk: the pure machines of all roles, and a disk that survives crashes.

use std::{collections::VecDeque, sync::Arc};

use rand::{RngExt, SeedableRng};
use synod::{
    effects::{Effects, Letter, To},
    machine::{Machine, Now, Survived},
    multicast::{
        application::Newest,
        checkpoint_server::CheckpointServer,
        commit_server::CommitServer,
        data_server::DataServer,
        group::Group,
        message::{Message, Word},
        receiver::{Receiver, Style},
        record::Record,
        sender::Sender,
        sequencer::{Sequencer, Submits},
    },
};
use synod_runtime::{
    identity::NodeId,
    world::{Instant, Rng},
};

/// The roles of a node, while it runs.
pub(crate) struct Roles {
    sequencer: Sequencer,
    pub(crate) data: DataServer,
    pub(crate) commit: CommitServer,
    checkpoint: CheckpointServer,
    pub(crate) receiver: Receiver,
    pub(crate) sender: Sender,
}

/// A write on its way to the disk.
#[derive(Default)]
struct Write {
    due: u64,
    records: Vec<Record>,
    truncate: Option<(u64, Vec<Record>)>,
    held: Vec<Letter<Message>>,
}

pub(crate) struct Node {
    pub(crate) id: NodeId,
    pub(crate) group: Arc<Group>,
    style: Style,
    /// Of its sequencer.
    submits: Submits,
    pub(crate) roles: Option<Roles>,
    pub(crate) disk: Vec<Record>,
    writes: VecDeque<Write>,
    /// Nothing happens here before.
    pub(crate) paused_until: u64,
    /// Its disk never comes back.
    pub(crate) lost: bool,
    /// Its disk does nothing.
    pub(crate) stuck: bool,
    local: VecDeque<(NodeId, Message)>,
    /// What leaves the node.
    pub(crate) post: Vec<(NodeId, Message)>,
    pub(crate) words: Vec<Word>,
    seed: u64,
    /// The slowest usual write, in microseconds.
    pub(crate) disk_micros: u64,
}

impl Node {
    pub(crate) fn new(id: NodeId, group: &Arc<Group>, style: Style, seed: u64) -> Self {
        Self {
            id,
            group: Arc::clone(group),
            style,
            submits: Submits::default(),
            roles: None,
            disk: Vec::new(),
            writes: VecDeque::new(),
            paused_until: 0,
            lost: false,
            stuck: false,
            local: VecDeque::new(),
            post: Vec::new(),
            words: Vec::new(),
            seed,
            disk_micros: 2_000,
        }
    }

    /// The same, whose sequencer's numbers go out in that way.
    pub(crate) fn submitting(self, submits: Submits) -> Self {
        Self { submits, ..self }
    }

    pub(crate) fn start(&mut self, now: u64, rng: &mut Rng) {
        self.seed += 1_000;
        let (me, group) = (self.id.clone(), &self.group);
        let rng_of = |seed| Rng::seed_from_u64(seed);
        let mut roles = Roles {
            sequencer: Sequencer::new(me.clone(), Arc::clone(group)).submitting(self.submits),
            data: DataServer::new(me.clone(), Arc::clone(group)),
            commit: CommitServer::new(me.clone(), Arc::clone(group), rng_of(self.seed)),
            checkpoint: CheckpointServer::new(Arc::clone(group), &me, Box::new(Newest::default())),
            receiver: Receiver::new(Arc::clone(group), rng_of(self.seed + 1)).asking(self.style),
            sender: Sender::new(me, Arc::clone(group)),
        };
        let survived = Survived { records: self.disk.clone(), snapshot: None };
        macro_rules! start {
            ($($role:ident)*) => {$(
                let mut out = Effects::default();
                roles.$role.start(at(now), &survived, &mut out);
                self.take(now, out, rng);
            )*};
        }
        start!(sequencer data commit checkpoint receiver sender);
        self.roles = Some(roles);
        self.settle(now, rng);
    }

    /// It learns who serves the group. Who joins begins anew, with what is on its disk.
    pub(crate) fn regroup(&mut self, now: u64, group: &Arc<Group>, rng: &mut Rng) {
        if group.version <= self.group.version {
            return;
        }
        self.group = Arc::clone(group);
        if self.roles.is_some() && group.is_joining(&self.id) {
            self.crash(rng);
            self.start(now, rng);
        } else {
            self.hear(now, &self.id.clone(), Message::Regroup(Arc::clone(group)), rng);
        }
    }

    /// What is not on the disk is lost, but for a few writes that were just done.
    pub(crate) fn crash(&mut self, rng: &mut Rng) {
        let survive = rng.random_range(0..=self.writes.len());
        self.crash_after(survive);
    }

    /// So many of the writes under way are done.
    pub(crate) fn crash_after(&mut self, survive: usize) {
        self.roles = None;
        self.local.clear();
        self.post.clear();
        self.words.clear();
        for write in std::mem::take(&mut self.writes).into_iter().take(survive) {
            self.write(write);
        }
    }

    fn write(&mut self, write: Write) -> Vec<Letter<Message>> {
        self.disk.extend(write.records);
        if let Some((upto, carry)) = write.truncate {
            self.disk.retain(|record| record.last().0 > upto);
            self.disk.extend(carry);
        }
        write.held
    }

    pub(crate) fn hear(&mut self, now: u64, from: &NodeId, message: Message, rng: &mut Rng) {
        self.local.push_back((from.clone(), message));
        self.settle(now, rng);
    }

    /// Time goes by: writes are done, timers fire.
    pub(crate) fn tick(&mut self, now: u64, rng: &mut Rng) {
        while !self.stuck
            && self.writes.front().is_some_and(|write| write.due <= now)
            && let Some(write) = self.writes.pop_front()
        {
            let held = self.write(write);
            self.send(held);
        }
        let Some(mut roles) = self.roles.take() else { return };
        macro_rules! fire {
            ($($role:ident)*) => {$(
                if roles.$role.deadline().is_some_and(|due| due <= at(now).at) {
                    let mut out = Effects::default();
                    roles.$role.timeout(at(now), &mut out);
                    self.take(now, out, rng);
                }
            )*};
        }
        fire!(sequencer data commit checkpoint receiver sender);
        self.roles = Some(roles);
        self.settle(now, rng);
    }

    /// Hands everything local on until nothing is left, turn by turn.
    fn settle(&mut self, now: u64, rng: &mut Rng) {
        let Some(mut roles) = self.roles.take() else { return };
        let is_server = self.group.is_host(&self.id);
        let mut turns = 0;
        while !self.local.is_empty() {
            turns += 1;
            assert!(turns < TURNS_MAX, "{} talks to itself for ever", self.id.name);
            let mut inputs = Vec::new();
            for (from, message) in self.local.drain(..) {
                message.split(|one| inputs.push((from.clone(), one)));
            }
            macro_rules! turn {
                ($($kind:ident $role:ident $serves:expr;)*) => {$(
                    if $serves || is_server {
                        let mut out = Effects::default();
                        for (from, message) in &inputs {
                            if let Message::$kind(message) = message {
                                roles.$role.message(at(now), from, message.clone(), &mut out);
                            }
                        }
                        roles.$role.flush(at(now), &mut out);
                        self.take(now, out, rng);
                    }
                )*};
            }
            turn! {
                Sequencer sequencer false;
                Data data false;
                Commit commit false;
                Receiver receiver true;
                Checkpoint checkpoint true;
                Sender sender true;
            }
            for (_, message) in inputs {
                if let Message::Word(word) = message {
                    self.words.push(word);
                }
            }
        }
        self.roles = Some(roles);
    }

    fn take<M>(&mut self, now: u64, out: Effects<M>, rng: &mut Rng)
    where
        M: Machine<Envelope = Message, Record = Record>,
    {
        let mut records = out.lazy;
        let truncate = out.truncate.map(|truncate| (truncate.upto, truncate.carry));
        let waits = !out.records.is_empty() || truncate.is_some() || !self.writes.is_empty();
        records.extend(out.records);
        if waits || !records.is_empty() {
            let last = self.writes.back().map_or(now, |write| write.due);
            // What waits together goes together.
            let due = last.max(now + rng.random_range(0..self.disk_micros));
            self.writes.push_back(Write { due, records, truncate, held: out.held });
        } else {
            self.send(out.held);
        }
        self.send(out.now);
    }

    fn send(&mut self, letters: Vec<Letter<Message>>) {
        for Letter { to, message } in letters {
            match to {
                To::Node(node) if node != self.id => self.post.push((node, message)),
                To::Node(_) | To::Here => self.local.push_back((self.id.clone(), message)),
            }
        }
    }
}

/// What a node says to itself has an end: no walk came near to so many turns.
const TURNS_MAX: u32 = 10_000;

fn at(micros: u64) -> Now {
    Now { at: Instant::from_nanos(micros * 1_000), wall_ms: 0 }
}
