//! The receiver: delivers the order without a gap, and fetches what it missed.

mod repair;

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use synod_runtime::{
    identity::NodeId,
    world::{Instant, Rng},
};

use self::repair::Repair;
use super::{
    checkpoint_server::newest_of,
    group::Group,
    history::{History, Verdict},
    message::{Advert, Commit, Data, DataMessage, Entry, Message, Mid, Pair, ReceiverMessage, Seq},
    record::Record,
};
use crate::{
    effects::Effects,
    machine::{Machine, Now, Survived},
};

/// The machine.
#[derive(Debug)]
pub struct Receiver {
    group: Arc<Group>,
    rng: Rng,
    style: Style,
    /// All numbers up to here were delivered.
    delivered: Seq,
    /// The largest number it knows committed.
    largest: Seq,
    /// What is committed above what was delivered.
    pairs: BTreeMap<Seq, Pair>,
    /// Messages that were not delivered.
    data: BTreeMap<Mid, Data>,
    bytes: usize,
    history: History,
    checkpoint: Option<Advert>,
    repair: Repair,
}

/// How a receiver asks for what it missed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Style {
    /// First a commit server which message it is, then a data server for the message: nothing that
    /// is there already travels again.
    #[default]
    TwoSteps,
    /// A data server for what has the number: one round trip less.
    OneStep,
}

impl Receiver {
    /// A receiver that begins with the first number.
    pub fn new(group: Arc<Group>, rng: Rng) -> Self {
        Self {
            group,
            rng,
            style: Style::default(),
            delivered: Seq(0),
            largest: Seq(0),
            pairs: BTreeMap::new(),
            data: BTreeMap::new(),
            bytes: 0,
            history: History::default(),
            checkpoint: None,
            repair: Repair::default(),
        }
    }

    /// The same, asking in that way.
    #[must_use]
    pub fn asking(self, style: Style) -> Self {
        Self { style, ..self }
    }

    /// All numbers up to here were delivered.
    pub const fn delivered(&self) -> Seq {
        self.delivered
    }

    /// Messages it keeps that were not delivered.
    pub fn held(&self) -> usize {
        self.data.len()
    }

    fn data(&mut self, data: Vec<Data>) {
        for one in data {
            let delivered = self.history.judge(one.mid, &one.pair(), self.delivered, &self.group);
            let over = matches!(delivered, Verdict::Duplicate | Verdict::Expired);
            // An old one may be the very message that is missing.
            let wanted = || self.pairs.values().any(|pair| pair.mid == Some(one.mid));
            if over && !wanted() || self.data.contains_key(&one.mid) {
                continue;
            }
            let room = self.data.len() < HELD_MAX && self.bytes < HELD_BYTES_MAX;
            if room || wanted() {
                self.bytes += one.payload.len();
                self.data.insert(one.mid, one);
            }
        }
    }

    fn committed(&mut self, commit: Commit) {
        self.largest = self.largest.max(commit.largest);
        self.ordered(commit.pairs);
    }

    fn ordered(&mut self, pairs: Vec<(Seq, Pair)>) {
        for (seq, pair) in pairs {
            self.largest = self.largest.max(seq);
            // What is far ahead is asked for when its turn comes.
            if seq > self.delivered && seq.0 - self.delivered.0 <= AHEAD_MAX {
                self.pairs.insert(seq, pair);
            }
        }
    }

    fn entries(&mut self, entries: &[Entry]) {
        for entry in entries {
            if entry.seq <= self.delivered || entry.seq.0 - self.delivered.0 > AHEAD_MAX {
                continue;
            }
            self.largest = self.largest.max(entry.seq);
            self.pairs.insert(entry.seq, entry.pair);
            if let Some(mid) = entry.pair.mid {
                let Pair { stamp, lowest_open, .. } = entry.pair;
                let payload = entry.payload.clone();
                self.data(vec![Data { mid, stamp, lowest_open, payload }]);
            }
        }
    }

    /// I1: delivers whatever has its turn.
    fn deliver(&mut self, out: &mut Effects<Self>) {
        let mut entries = Vec::new();
        while let Some(pair) = self.pairs.get(&self.delivered.next()).copied() {
            let payload = match pair.mid {
                None => Bytes::new(),
                Some(mid) => match self.data.remove(&mid) {
                    Some(data) => {
                        self.bytes -= data.payload.len();
                        data.payload
                    }
                    None => break,
                },
            };
            let seq = self.delivered.next();
            self.pairs.remove(&seq);
            self.history.note(seq, &pair, &self.group);
            self.delivered = seq;
            entries.push(Entry { seq, pair, payload });
        }
        if entries.is_empty() {
            return;
        }
        if entries.iter().any(|entry| entry.seq.0.is_multiple_of(SWEEP_EVERY)) {
            self.sweep();
        }
        out.here(Message::Delivered(Arc::new(entries)));
    }

    /// Forgets messages that will never be delivered: too old, or their publisher gave them up.
    fn sweep(&mut self) {
        let committed: std::collections::BTreeSet<_> =
            self.pairs.values().filter_map(|pair| pair.mid).collect();
        let (history, delivered, group) = (&self.history, self.delivered, &self.group);
        self.data.retain(|mid, data| {
            committed.contains(mid)
                || matches!(
                    history.judge(*mid, &data.pair(), delivered, group),
                    Verdict::Good | Verdict::Early
                )
        });
        self.bytes = self.data.values().map(|data| data.payload.len()).sum();
    }

    /// Goes on after a number that was not delivered one by one.
    fn skip_to(&mut self, seq: Seq) {
        self.delivered = seq;
        self.largest = self.largest.max(seq);
        self.pairs = self.pairs.split_off(&seq.next());
        self.sweep();
    }

    fn again(&mut self, after: Seq) {
        if after < self.delivered {
            self.delivered = after;
            self.history = History::default();
        }
    }
}

impl Machine for Receiver {
    type Message = ReceiverMessage;
    type Envelope = Message;
    type Record = Record;
    type Snapshot = ();

    fn start(&mut self, _: Now, survived: &Survived<Record, ()>, out: &mut Effects<Self>) {
        // The checkpoint server starts from the same.
        if let Some(checkpoint) = newest_of(&survived.records) {
            self.skip_to(checkpoint.seq);
            out.here(DataMessage::Skipped(checkpoint.seq));
        }
    }

    fn message(
        &mut self,
        now: Now,
        from: &NodeId,
        message: ReceiverMessage,
        out: &mut Effects<Self>,
    ) {
        let servers = self.group.counted().count();
        match message {
            ReceiverMessage::Data(data) => {
                let helps = !data.is_empty();
                self.data(data);
                self.repair.answered(now.at, from, helps, servers);
            }
            ReceiverMessage::Committed(commit) => self.committed(commit),
            ReceiverMessage::Gossip(gossip) => {
                self.largest = self.largest.max(gossip.largest);
                if gossip.checkpoint > self.checkpoint {
                    self.checkpoint = gossip.checkpoint;
                }
            }
            ReceiverMessage::Ordered { pairs, floor } => {
                let progress = !pairs.is_empty();
                self.ordered(pairs);
                self.repair.answered(now.at, from, progress, servers);
                self.repair.dropped_upto(floor);
            }
            ReceiverMessage::Entries(entries) => {
                let progress = !entries.is_empty();
                self.entries(&entries);
                self.repair.answered(now.at, from, progress, servers);
            }
            ReceiverMessage::Again(after) => self.again(after),
            ReceiverMessage::Regroup(group) => {
                if group.version > self.group.version {
                    self.group = group;
                }
            }
            ReceiverMessage::Blocks { seq, blocks } => self.blocks(now.at, seq, blocks, out),
        }
    }

    fn flush(&mut self, now: Now, out: &mut Effects<Self>) {
        self.deliver(out);
        self.look(now.at, out);
    }

    fn timeout(&mut self, now: Now, out: &mut Effects<Self>) {
        self.flush(now, out);
    }

    fn deadline(&self) -> Option<Instant> {
        self.repair.due()
    }
}

/// Messages kept until their numbers come; what finds no room is asked for then.
const HELD_MAX: usize = 65_536;

/// Their bytes, likewise.
const HELD_BYTES_MAX: usize = 128 << 20;

/// A number so far above the delivered ones is not kept.
const AHEAD_MAX: u64 = 65_536;

/// How often, in numbers, to look for messages that will never be delivered.
const SWEEP_EVERY: u64 = 1_000;
