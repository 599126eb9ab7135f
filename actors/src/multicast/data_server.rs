//! The data server: keeps the messages until checkpoints hold what came of them.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use synod_runtime::{identity::NodeId, world::Instant};

use super::{
    group::Group,
    message::{
        Commit, Data, DataMessage, Entry, Gossip, Message, Mid, Pair, ReceiverMessage, Seq,
        SequencerMessage, Step, Word,
    },
    record::Record,
    rules::{Rule, is_off},
    sequencer::BATCH_MAX,
};
use crate::{
    effects::{Effects, To},
    election::message::Epoch,
    machine::{Machine, Now, Survived},
};

/// The machine.
#[derive(Debug)]
pub struct DataServer {
    me: NodeId,
    group: Arc<Group>,
    stored: BTreeMap<Mid, Stored>,
    bytes: usize,
    by_seq: BTreeMap<Seq, Mid>,
    /// Messages without a known number: when each was reported last.
    open: BTreeMap<Mid, Option<Instant>>,
    sequencer: Option<(Epoch, NodeId)>,
    /// The largest number it knows committed.
    largest: Seq,
    /// Of the newest checkpoint that is advertised.
    checkpoint: Seq,
    /// To be reported at the end of this turn.
    fresh: Vec<Mid>,
    look_at: Option<Instant>,
    /// Everything up to here is kept here, or a checkpoint here holds it, as far as this one saw.
    filled: Seq,
}

#[derive(Debug)]
struct Stored {
    data: Data,
    seq: Option<Seq>,
}

impl DataServer {
    /// The data server of the node `me`, which has nothing.
    pub fn new(me: NodeId, group: Arc<Group>) -> Self {
        Self {
            me,
            group,
            stored: BTreeMap::new(),
            bytes: 0,
            by_seq: BTreeMap::new(),
            open: BTreeMap::new(),
            sequencer: None,
            largest: Seq(0),
            checkpoint: Seq(0),
            fresh: Vec::new(),
            look_at: None,
            filled: Seq(0),
        }
    }

    /// Messages it keeps, and their bytes.
    pub fn held(&self) -> (usize, usize) {
        (self.stored.len(), self.bytes)
    }

    fn store(&mut self, data: Data, out: &mut Effects<Self>) {
        let mid = data.mid;
        if let Some(known) = self.stored.get_mut(&mid) {
            // Its publisher has closed more since: what waits for that can go on.
            if known.seq.is_none() && data.lowest_open > known.data.lowest_open {
                known.data.lowest_open = data.lowest_open;
                self.fresh.push(mid);
            }
            return;
        }
        let until = self.group.lives_until(data.stamp);
        // Too old to matter, or its stamp is none that anybody could know.
        let strange = data.stamp > Seq(self.largest.0.saturating_add(self.group.lifetime));
        if until <= self.checkpoint || strange || data.payload.len() > PAYLOAD_BYTES_MAX {
            return;
        }
        // Its publisher sends it again; so a flood costs the publisher time, and nobody memory.
        if self.open.len() >= OPEN_MAX || self.bytes + data.payload.len() > BYTES_MAX {
            return;
        }
        out.persist(Record::data(data.clone(), &self.group));
        self.keep(data);
        self.fresh.push(mid);
    }

    fn keep(&mut self, data: Data) {
        self.bytes += data.payload.len() + OVERHEAD_BYTES;
        self.open.insert(data.mid, None);
        self.stored.insert(data.mid, Stored { data, seq: None });
    }

    /// I10: takes from the order what it has not got. Only where servers were replaced: what the ones
    /// before had, it may have never been sent.
    fn delivered(&mut self, entries: &[Entry], out: &mut Effects<Self>) {
        if self.group.version == 0 || !self.group.is_host(&self.me) {
            return;
        }
        let kept_above = self.checkpoint.back(self.group.keep);
        for Entry { seq, pair, payload } in entries {
            if *seq == self.filled.next() {
                self.filled = *seq;
            }
            let Some(mid) = pair.mid.filter(|mid| !self.stored.contains_key(mid)) else { continue };
            if *seq <= kept_above {
                continue;
            }
            let Pair { stamp, lowest_open, .. } = *pair;
            let data = Data { mid, stamp, lowest_open, payload: payload.clone() };
            out.persist(Record::data(data.clone(), &self.group));
            self.bytes += data.payload.len() + OVERHEAD_BYTES;
            self.stored.insert(mid, Stored { data, seq: Some(*seq) });
            self.by_seq.insert(*seq, mid);
        }
        self.tell_how_far(out);
    }

    fn regroup(&mut self, group: Arc<Group>) {
        if group.version <= self.group.version {
            return;
        }
        if !group.is_host(&self.me) {
            // Nobody asks it any more, and nobody would tell it what may go.
            *self = Self::new(self.me.clone(), group);
            return;
        }
        self.group = group;
    }

    fn tell_how_far(&self, out: &mut Effects<Self>) {
        if self.group.is_joining(&self.me) {
            out.after_all_before().then_here(Word::Step(Step::Filled(self.filled)));
        }
    }

    fn committed(&mut self, commit: &Commit) {
        self.largest = self.largest.max(commit.largest);
        for (seq, pair) in &commit.pairs {
            let Some(mid) = pair.mid else { continue };
            if let Some(stored) = self.stored.get_mut(&mid) {
                stored.seq = Some(*seq);
                self.by_seq.insert(*seq, mid);
                self.open.remove(&mid);
            }
        }
    }

    fn gossip(&mut self, gossip: Gossip) {
        self.largest = self.largest.max(gossip.largest);
        let newer = self.sequencer.as_ref().is_none_or(|(known, _)| gossip.epoch > *known);
        if newer {
            // The new one has heard of nothing yet.
            self.sequencer = Some((gossip.epoch, gossip.sequencer));
            self.open.values_mut().for_each(|reported| *reported = None);
            self.look_at = Some(Instant::default());
        }
        let checkpoint = gossip.checkpoint.map_or(Seq(0), |advert| advert.seq);
        if checkpoint > self.checkpoint {
            self.checkpoint = checkpoint;
            self.collect();
        }
    }

    /// I9: what the advertised checkpoint holds may go, and what can never get a number.
    fn collect(&mut self) {
        let (group, checkpoint) = (Arc::clone(&self.group), self.checkpoint);
        let kept_above = checkpoint.back(group.keep);
        let gone: Vec<_> =
            self.by_seq.range(..=kept_above).map(|(seq, mid)| (*seq, *mid)).collect();
        for (seq, mid) in gone {
            self.by_seq.remove(&seq);
            self.drop_one(&mid);
        }
        let is_over = |mid: &Mid| {
            let stamp = self.stored.get(mid)?.data.stamp;
            let over = if is_off(Rule::GarbageByNumber) {
                stamp <= checkpoint
            } else {
                group.lives_until(stamp) <= checkpoint
            };
            over.then_some(*mid)
        };
        let over: Vec<_> = self.open.keys().filter_map(is_over).collect();
        over.iter().for_each(|mid| self.drop_one(mid));
    }

    fn drop_one(&mut self, mid: &Mid) {
        self.open.remove(mid);
        if let Some(gone) = self.stored.remove(mid) {
            self.bytes -= gone.data.payload.len() + OVERHEAD_BYTES;
            if let Some(seq) = gone.seq {
                self.by_seq.remove(&seq);
            }
        }
    }

    /// What was not reported for a while. Where that is too much for one look, what waited longest comes
    /// first: some may wait for ever, for a message of their publisher that is lost.
    fn late(&self, now: Instant) -> impl Iterator<Item = Mid> + use<> {
        let is_late = |reported: &Option<Instant>| {
            reported.is_none_or(|at| now.since(at) >= REPORT_AGAIN_AFTER)
        };
        let open = self.open.iter().map(|(mid, reported)| (*reported, *mid));
        let mut late: Vec<_> = open.filter(|(reported, _)| is_late(reported)).collect();
        if late.len() > REPORTS_MAX {
            late.select_nth_unstable(REPORTS_MAX);
            late.truncate(REPORTS_MAX);
        }
        late.into_iter().map(|(_, mid)| mid)
    }

    /// Reports what is new, and again what still has no number.
    fn report(&mut self, now: Instant, out: &mut Effects<Self>) {
        let Some((_, sequencer)) = self.sequencer.clone() else { return };
        let mut due = std::mem::take(&mut self.fresh);
        if self.look_at.is_some_and(|at| at <= now) {
            due.extend(self.late(now));
            due.sort_unstable();
            due.dedup();
            self.look_at = None;
        }
        let mut pairs: Vec<Pair> = Vec::with_capacity(due.len());
        let mut aged = Vec::new();
        for mid in due {
            let Some(stored) = self.stored.get(&mid) else { continue };
            // It gets no number any more; it stays until a checkpoint says so too.
            if self.group.lives_until(stored.data.stamp) <= self.largest {
                aged.push(mid);
                continue;
            }
            if let Some(reported) = self.open.get_mut(&mid) {
                *reported = Some(now);
                pairs.push(stored.data.pair());
            }
        }
        for mid in aged {
            if is_off(Rule::GarbageNotByAge) {
                self.drop_one(&mid);
            } else if let Some(reported) = self.open.get_mut(&mid) {
                *reported = Some(now);
            }
        }
        if !self.open.is_empty() && self.look_at.is_none() {
            self.look_at = Some(now + REPORT_AGAIN_AFTER);
        }
        for pairs in pairs.chunks(BATCH_MAX) {
            let report = SequencerMessage::Reported(pairs.to_vec());
            let to = To::Node(sequencer.clone());
            if is_off(Rule::ReportedDurable) {
                out.send(to, report);
            } else {
                out.after_all_before().then_send(to, report);
            }
        }
    }

    fn answer(&self, from: &NodeId, mids: &[Mid], out: &mut Effects<Self>) {
        let (mut bytes, mut found) = (0, Vec::new());
        for stored in mids.iter().take(BATCH_MAX).filter_map(|mid| self.stored.get(mid)) {
            bytes += stored.data.payload.len();
            found.push(stored.data.clone());
            if bytes >= ANSWER_BYTES {
                break;
            }
        }
        out.send(To::Node(from.clone()), ReceiverMessage::Data(found));
    }

    fn answer_numbers(&self, from: &NodeId, seqs: Vec<Seq>, out: &mut Effects<Self>) {
        let (mut bytes, mut found) = (0, Vec::new());
        for seq in seqs.into_iter().take(BATCH_MAX) {
            let Some(stored) = self.by_seq.get(&seq).and_then(|mid| self.stored.get(mid)) else {
                continue;
            };
            bytes += stored.data.payload.len();
            let (pair, payload) = (stored.data.pair(), stored.data.payload.clone());
            found.push(Entry { seq, pair, payload });
            if bytes >= ANSWER_BYTES {
                break;
            }
        }
        out.send(To::Node(from.clone()), ReceiverMessage::Entries(Arc::new(found)));
    }
}

impl Machine for DataServer {
    type Message = DataMessage;
    type Envelope = Message;
    type Record = Record;
    type Snapshot = ();

    fn start(&mut self, _: Now, survived: &Survived<Record, ()>, _: &mut Effects<Self>) {
        let mut floor = Seq(0);
        for record in &survived.records {
            match record {
                Record::Data { data, .. } if !self.stored.contains_key(&data.mid) => {
                    self.keep(data.clone());
                }
                Record::Seal { floor: dropped, .. } => floor = floor.max(*dropped),
                Record::Data { .. }
                | Record::Pairs { .. }
                | Record::Known(_)
                | Record::Advertised(_)
                | Record::Servers(_)
                | Record::Anew(_)
                | Record::Block { .. }
                | Record::Same { .. }
                | Record::Torn => {}
            }
        }
        // What checkpoints held when the node stopped need not come back.
        self.checkpoint = floor;
        self.collect();
    }

    fn message(&mut self, _: Now, from: &NodeId, message: DataMessage, out: &mut Effects<Self>) {
        match message {
            DataMessage::Store(data) => {
                data.into_iter().for_each(|one| self.store(one, out));
            }
            DataMessage::Committed(commit) => self.committed(&commit),
            DataMessage::Gossip(gossip) => self.gossip(gossip),
            DataMessage::Query(mids) => self.answer(from, &mids, out),
            DataMessage::QueryNumbers(seqs) => self.answer_numbers(from, seqs, out),
            DataMessage::Delivered(entries) => self.delivered(&entries, out),
            DataMessage::Skipped(seq) => {
                self.filled = self.filled.max(seq);
                self.tell_how_far(out);
            }
            DataMessage::Regroup(group) => self.regroup(group),
        }
    }

    fn flush(&mut self, now: Now, out: &mut Effects<Self>) {
        self.report(now.at, out);
    }

    fn timeout(&mut self, now: Now, out: &mut Effects<Self>) {
        self.flush(now, out);
    }

    fn deadline(&self) -> Option<Instant> {
        self.sequencer.as_ref().and(self.look_at)
    }
}

/// What has no number after so long is reported again: a report, or its commit, was lost.
const REPORT_AGAIN_AFTER: Duration = Duration::from_millis(100);

/// Messages reported again at one look.
const REPORTS_MAX: usize = 10_000;

/// A message, at most: larger things are fetched by other ways, and the group told where they are.
pub const PAYLOAD_BYTES_MAX: usize = 64 << 10;

/// Messages without a number that a server keeps, at most.
const OPEN_MAX: usize = 50_000;

/// Bytes that a server keeps, at most: more than the messages from one checkpoint to the next.
const BYTES_MAX: usize = 512 << 20;

/// What a message costs beside what it says.
const OVERHEAD_BYTES: usize = 160;

/// Of one answer; the receiver asks again for the rest.
const ANSWER_BYTES: usize = 1 << 20;

#[cfg(test)]
mod tests;
