//! The receiver: delivers the order without a gap, and fetches what it missed.

mod fetch;
mod repair;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

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
    sequencer::BATCH_MAX,
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
    /// What is committed above what was delivered, at most so far ahead as is kept.
    pairs: BTreeMap<Seq, Pair>,
    /// The messages of these, each with every number that it has.
    wanted: BTreeSet<(Mid, Seq)>,
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
            wanted: BTreeSet::new(),
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

    /// Keeps messages; whether there was one to keep.
    fn data(&mut self, data: impl IntoIterator<Item = Data>) -> bool {
        let before = self.data.len();
        for one in data {
            let delivered = self.history.judge(one.mid, &one.pair(), self.delivered, &self.group);
            let over = matches!(delivered, Verdict::Duplicate | Verdict::Expired);
            // An old one may be the very message that is missing.
            let wanted = first_of(&self.wanted, one.mid);
            if over && wanted.is_none() || self.data.contains_key(&one.mid) {
                continue;
            }
            let room = self.data.len() < HELD_MAX && self.bytes < HELD_BYTES_MAX;
            let soon = wanted.is_some_and(|seq| seq.0 - self.delivered.0 <= ASKED_MAX);
            if room || soon {
                self.bytes += one.payload.len();
                self.data.insert(one.mid, one);
            }
        }
        self.data.len() > before
    }

    fn committed(&mut self, commit: Commit) {
        self.largest = self.largest.max(commit.largest);
        self.ordered(commit.pairs);
    }

    /// Keeps what is committed; whether any of it was new.
    fn ordered(&mut self, pairs: Vec<(Seq, Pair)>) -> bool {
        pairs.into_iter().fold(false, |new, (seq, pair)| self.want(seq, pair) || new)
    }

    /// Keeps what has a number, if that is not too far ahead; whether it is new.
    fn want(&mut self, seq: Seq, pair: Pair) -> bool {
        self.largest = self.largest.max(seq);
        // What is far ahead is asked for when its turn comes.
        if seq <= self.delivered || seq.0 - self.delivered.0 > AHEAD_MAX {
            return false;
        }
        let before = self.pairs.insert(seq, pair);
        if let Some(Pair { mid: Some(other), .. }) = before {
            self.wanted.remove(&(other, seq));
        }
        self.wanted.extend(pair.mid.map(|mid| (mid, seq)));
        before != Some(pair)
    }

    /// Keeps what has its number already; whether any of it was new.
    fn entries(&mut self, entries: &[Entry]) -> bool {
        let mut new = false;
        for Entry { seq, pair, payload } in entries {
            new |= self.want(*seq, *pair);
            if let Pair { mid: Some(mid), stamp, lowest_open } = *pair
                && self.pairs.contains_key(seq)
            {
                let payload = payload.clone();
                new |= self.data([Data { mid, stamp, lowest_open, payload }]);
            }
        }
        new
    }

    /// A server said something. Whoever says only what is here already has not answered what was asked.
    fn answered(&mut self, now: Instant, from: &NodeId, new: bool, empty: bool) {
        if new || empty {
            self.repair.answered(now, from, new, self.group.counted().count());
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
            if let Some(mid) = pair.mid {
                self.wanted.remove(&(mid, seq));
            }
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
        let Self { history, delivered, group, wanted, bytes, .. } = self;
        self.data.retain(|mid, data| {
            let stays = first_of(wanted, *mid).is_some()
                || matches!(
                    history.judge(*mid, &data.pair(), *delivered, group),
                    Verdict::Good | Verdict::Early
                );
            *bytes -= if stays { 0 } else { data.payload.len() };
            stays
        });
    }

    /// Goes on after a number that was not delivered one by one.
    fn skip_to(&mut self, seq: Seq) {
        self.delivered = seq;
        self.largest = self.largest.max(seq);
        self.pairs = self.pairs.split_off(&seq.next());
        let wanted = |(seq, pair): (&Seq, &Pair)| Some((pair.mid?, *seq));
        self.wanted = self.pairs.iter().filter_map(wanted).collect();
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
        match message {
            ReceiverMessage::Data(data) => {
                let empty = data.is_empty();
                let new = self.data(data);
                self.answered(now.at, from, new, empty);
            }
            ReceiverMessage::Committed(commit) => self.committed(commit),
            ReceiverMessage::Gossip(gossip) => {
                self.largest = self.largest.max(gossip.largest);
                if gossip.checkpoint > self.checkpoint {
                    self.checkpoint = gossip.checkpoint;
                }
            }
            ReceiverMessage::Ordered { pairs, floor } => {
                let empty = pairs.is_empty();
                let new = self.ordered(pairs);
                self.answered(now.at, from, new, empty);
                self.repair.dropped_upto(floor);
            }
            ReceiverMessage::Entries(entries) => {
                let new = self.entries(&entries);
                self.answered(now.at, from, new, entries.is_empty());
            }
            ReceiverMessage::Again(after) => self.again(after),
            ReceiverMessage::Regroup(group) => {
                if group.version > self.group.version {
                    self.group = group;
                }
            }
            ReceiverMessage::Blocks { seq, blocks } => self.blocks(now.at, from, seq, blocks, out),
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

/// The lowest number that waits for that message.
fn first_of(wanted: &BTreeSet<(Mid, Seq)>, mid: Mid) -> Option<Seq> {
    let first = wanted.range((mid, Seq(0))..).next();
    first.filter(|(of, _)| *of == mid).map(|(_, seq)| *seq)
}

/// Messages kept until their numbers come; what finds no room is asked for then.
const HELD_MAX: usize = 65_536;

/// What has one of so many next numbers is asked for, and kept whether there is room or not: no more of
/// it can come than this many messages.
const ASKED_MAX: u64 = BATCH_MAX as u64;

/// Their bytes, likewise.
const HELD_BYTES_MAX: usize = 128 << 20;

/// A number so far above the delivered ones is not kept.
const AHEAD_MAX: u64 = 65_536;

/// How often, in numbers, to look for messages that will never be delivered.
const SWEEP_EVERY: u64 = 1_000;

#[cfg(test)]
mod tests;
