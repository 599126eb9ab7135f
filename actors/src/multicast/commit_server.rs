//! The commit server: keeps which message has which number.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use rand::RngExt as _;
use synod_runtime::{
    identity::NodeId,
    world::{Instant, Rng},
};

use super::{
    group::Group,
    message::{
        Adoption, Commit, CommitMessage, DataMessage, Message, Pair, ReceiverMessage, Sealed, Seq,
        SequencerMessage, Step, Word,
    },
    record::Record,
    rules::{Rule, is_off},
    sequencer::BATCH_MAX,
};
use crate::{
    effects::{Effects, To, Truncate},
    election::message::Epoch,
    machine::{Machine, Now, Survived},
};

/// The machine.
#[derive(Debug)]
pub struct CommitServer {
    me: NodeId,
    group: Arc<Group>,
    rng: Rng,
    /// The newest servers of the group that it knows of: it takes nothing from who goes by older ones.
    version: u64,
    /// It takes nothing of lower epochs.
    sealed: Epoch,
    /// It has dropped all pairs up to here, which are committed.
    floor: Seq,
    /// The largest number it knows committed.
    largest: Seq,
    /// It knows the committed pairs of all numbers up to here, or dropped them.
    certain: Seq,
    /// Every number up to here is committed once what it is writing is on its disk.
    agreed: Seq,
    /// What it noted of that in the journal.
    noted: Seq,
    pairs: BTreeMap<Seq, Held>,
    /// The journal may forget what is below the floor.
    trim: bool,
    ask_at: Option<Instant>,
}

#[derive(Debug, Clone, Copy)]
struct Held {
    epoch: Epoch,
    pair: Pair,
    committed: bool,
}

impl CommitServer {
    /// The commit server of the node `me`.
    pub fn new(me: NodeId, group: Arc<Group>, rng: Rng) -> Self {
        Self {
            me,
            version: group.version,
            group,
            rng,
            sealed: Epoch(0),
            floor: Seq(0),
            largest: Seq(0),
            certain: Seq(0),
            agreed: Seq(0),
            noted: Seq(0),
            pairs: BTreeMap::new(),
            trim: false,
            ask_at: None,
        }
    }

    /// Pairs it keeps.
    pub fn held(&self) -> usize {
        self.pairs.len()
    }

    /// I10: who goes by older servers of the group would count one that does not count any more.
    fn is_outdated(&mut self, from: &NodeId, version: u64, out: &mut Effects<Self>) -> bool {
        if version < self.version && !is_off(Rule::OlderServersRefused) {
            out.send(To::Node(from.clone()), SequencerMessage::Outdated(self.version));
            return true;
        }
        if version > self.version {
            self.version = version;
            out.persist(Record::Servers(version));
        }
        false
    }

    fn seal(&mut self, from: &NodeId, epoch: Epoch, out: &mut Effects<Self>) {
        if epoch < self.sealed {
            return out.send(To::Node(from.clone()), SequencerMessage::Refused(self.sealed));
        }
        let record = |(seq, held): (&Seq, &Held)| {
            let Held { epoch, pair, committed } = *held;
            Sealed { seq: *seq, epoch, pair, committed }
        };
        let answer = SequencerMessage::Sealed {
            epoch,
            floor: self.floor,
            largest: self.largest,
            records: self.pairs.iter().map(record).collect(),
        };
        if is_off(Rule::SealDurable) {
            self.sealed = epoch;
            return out.send(To::Node(from.clone()), answer);
        }
        let held = if epoch > self.sealed {
            self.sealed = epoch;
            out.persist(Record::Seal { epoch, floor: self.floor })
        } else {
            out.after_all_before()
        };
        held.then_send(To::Node(from.clone()), answer);
    }

    fn submit(
        &mut self,
        from: &NodeId,
        epoch: Epoch,
        version: u64,
        pairs: Vec<(Seq, Pair)>,
        acknowledged: bool,
        out: &mut Effects<Self>,
    ) {
        if epoch < self.sealed && !is_off(Rule::SealRefusesLower) {
            return out.send(To::Node(from.clone()), SequencerMessage::Refused(self.sealed));
        }
        self.sealed = self.sealed.max(epoch);
        let agreed = acknowledged.then(|| self.agree(from, epoch, version, &pairs)).flatten();
        let seqs: Vec<_> = pairs.iter().map(|(seq, _)| *seq).collect();
        let is_new = |(seq, _): &(Seq, Pair)| {
            let known = self.pairs.get(seq);
            *seq > self.floor && known.is_none_or(|held| !held.committed && held.epoch < epoch)
        };
        let new: Vec<_> = pairs.into_iter().filter(is_new).collect();
        for (seq, pair) in &new {
            self.pairs.insert(*seq, Held { epoch, pair: *pair, committed: false });
        }
        let knows = agreed.as_ref().map_or(Seq(0), |commit| commit.largest);
        let answer = SequencerMessage::Acknowledged { epoch, seqs, agreed: knows };
        if is_off(Rule::AcknowledgedDurable) {
            return out.send(To::Node(from.clone()), answer);
        }
        let held = if new.is_empty() {
            out.after_all_before()
        } else {
            out.persist(Record::Pairs { epoch, pairs: new })
        };
        let held = held.then_send(To::Node(from.clone()), answer);
        if let Some(commit) = agreed {
            held.then_here(commit);
        }
    }

    /// I4: what its own disk will have, and the sequencer's node has, is committed then if two are
    /// enough, as far as all below is. Who counts is the sequencer's and this one's together.
    fn agree(
        &mut self,
        from: &NodeId,
        epoch: Epoch,
        version: u64,
        pairs: &[(Seq, Pair)],
    ) -> Option<Commit> {
        let counts = |node| self.group.version == version && self.group.index(node).is_some();
        let enough = self.group.k_commit <= 2 && *from != self.me;
        if !enough || !counts(from) || !counts(&self.me) {
            return None;
        }
        self.agreed = self.agreed.max(self.certain);
        let mut committed = Vec::new();
        for (seq, pair) in pairs {
            if *seq == self.agreed.next() {
                self.agreed = *seq;
                committed.push((*seq, *pair));
            }
        }
        let largest = self.agreed;
        (!committed.is_empty()).then_some(Commit { epoch, largest, pairs: committed })
    }

    /// I10: takes over what enough others had when a reign began that counts without it. What it
    /// had of an earlier time, and does not know committed, is gone: nothing was committed without
    /// the others, and who has the messages of the rest nobody knows any more.
    fn adopt(&mut self, from: &NodeId, adoption: Adoption, out: &mut Effects<Self>) {
        let Adoption { epoch, version, floor, largest, top, records } = adoption;
        if epoch < self.sealed || version != self.group.version || !self.group.is_joining(&self.me)
        {
            return;
        }
        self.sealed = epoch;
        self.floor = self.floor.max(floor);
        self.largest = self.largest.max(largest);
        let had = self.pairs.last_key_value().map_or(Seq(0), |(seq, _)| *seq);
        self.pairs = self.pairs.split_off(&self.floor.next());
        if !is_off(Rule::NewcomerForgets) {
            self.pairs.retain(|_, held| held.committed || held.epoch >= epoch);
            out.persist(Record::Anew(had));
        }
        for Sealed { seq, epoch, pair, committed } in records {
            let known = self.pairs.get(&seq);
            let better = known.is_none_or(|held| (held.committed, held.epoch) < (committed, epoch));
            if better && seq > self.floor && !is_off(Rule::NewcomerAdopts) {
                self.pairs.insert(seq, Held { epoch, pair, committed });
            }
        }
        let mut of_epoch: BTreeMap<Epoch, Vec<(Seq, Pair)>> = BTreeMap::new();
        for (seq, held) in &self.pairs {
            of_epoch.entry(held.epoch).or_default().push((*seq, held.pair));
        }
        out.persist(Record::Seal { epoch, floor: self.floor });
        for (epoch, pairs) in of_epoch {
            for pairs in pairs.chunks(BATCH_MAX) {
                out.persist(Record::Pairs { epoch, pairs: pairs.to_vec() });
            }
        }
        out.persist(Record::Known(self.largest));
        self.rise();
        let step = Word::Step(Step::Adopted { version, floor, top });
        out.after_all_before().then_here(step);
        let adopted = SequencerMessage::Adopted(epoch);
        out.after_all_before().then_send(To::Node(from.clone()), adopted);
    }

    fn regroup(&mut self, group: Arc<Group>) {
        if group.version > self.group.version {
            self.version = self.version.max(group.version);
            self.group = group;
        }
    }

    fn committed(&mut self, commit: Commit, out: &mut Effects<Self>) {
        self.largest = self.largest.max(commit.largest);
        self.learn(commit.epoch, commit.pairs, out);
    }

    /// These are committed, for ever.
    fn learn(&mut self, epoch: Epoch, pairs: Vec<(Seq, Pair)>, out: &mut Effects<Self>) {
        // Nothing else can ever count for these numbers.
        let epoch = epoch.max(self.sealed);
        let mut missed = Vec::new();
        for (seq, pair) in pairs.into_iter().filter(|(seq, _)| *seq > self.floor) {
            self.largest = self.largest.max(seq);
            let held = self.pairs.entry(seq).or_insert(Held { epoch, pair, committed: false });
            if held.pair != pair || held.epoch < epoch {
                missed.push((seq, pair));
            }
            *held = Held { epoch: held.epoch.max(epoch), pair, committed: true };
        }
        if !missed.is_empty() {
            out.persist_lazily(Record::Pairs { epoch, pairs: missed });
        }
        self.rise();
    }

    fn rise(&mut self) {
        self.certain = self.certain.max(self.floor);
        while self.pairs.get(&self.certain.next()).is_some_and(|held| held.committed) {
            self.certain = self.certain.next();
        }
    }

    /// What it knows committed of these numbers (I8).
    fn named(&self, seqs: Vec<Seq>) -> Vec<(Seq, Pair)> {
        let named = |seq: Seq| {
            let held = self.pairs.get(&seq)?;
            (held.committed || is_off(Rule::OnlyCommittedNamed)).then_some((seq, held.pair))
        };
        seqs.into_iter().take(BATCH_MAX).filter_map(named).collect()
    }

    /// I9: forgets pairs that no sequencer will need to know, and no receiver to ask for.
    fn forget(&mut self, upto: Seq) {
        let old = self.largest.back(self.group.lifetime);
        let upto = if is_off(Rule::PairsKeptForLifetime) { upto } else { upto.min(old) };
        let upto = upto.min(self.certain);
        if upto <= self.floor {
            return;
        }
        self.floor = upto;
        self.pairs = self.pairs.split_off(&upto.next());
        self.trim = true;
    }

    /// Asks another commit server for what it missed.
    fn look(&mut self, now: Instant, out: &mut Effects<Self>) {
        if self.certain >= self.largest || !self.group.is_host(&self.me) {
            self.ask_at = None;
            return;
        }
        let Some(at) = self.ask_at else {
            // What is on its way comes first.
            self.ask_at = Some(now + ASK_AFTER);
            return;
        };
        if at > now {
            return;
        }
        self.ask_at = Some(now + ASK_AFTER + ASK_AFTER.mul_f64(self.rng.random()));
        let others: Vec<_> = self.group.counted().filter(|one| **one != self.me).collect();
        if others.is_empty() {
            return;
        }
        let other = others[self.rng.random_range(0..others.len())].clone();
        let missing = (self.certain.0 + 1..=self.largest.0).map(Seq);
        let missing = missing.filter(|seq| !self.pairs.get(seq).is_some_and(|held| held.committed));
        let query = CommitMessage::PeerQuery(missing.take(BATCH_MAX).collect());
        out.send(To::Node(other), query);
    }
}

impl Machine for CommitServer {
    type Message = CommitMessage;
    type Envelope = Message;
    type Record = Record;
    type Snapshot = ();

    fn start(&mut self, _: Now, survived: &Survived<Record, ()>, _: &mut Effects<Self>) {
        for record in &survived.records {
            match record {
                Record::Seal { epoch, floor } => {
                    self.sealed = self.sealed.max(*epoch);
                    self.floor = self.floor.max(*floor);
                }
                Record::Pairs { epoch, pairs } => {
                    self.sealed = self.sealed.max(*epoch);
                    for (seq, pair) in pairs {
                        let new = Held { epoch: *epoch, pair: *pair, committed: false };
                        let held = self.pairs.entry(*seq).or_insert(new);
                        if held.epoch <= *epoch {
                            *held = new;
                        }
                    }
                }
                Record::Known(seq) => self.largest = self.largest.max(*seq),
                Record::Servers(version) => self.version = self.version.max(*version),
                Record::Anew(_) => self.pairs.clear(),
                Record::Data { .. }
                | Record::Block { .. }
                | Record::Same { .. }
                | Record::Advertised(_)
                | Record::Torn => {}
            }
        }
        self.pairs = self.pairs.split_off(&self.floor.next());
        self.largest = self.largest.max(self.floor);
        self.noted = self.largest;
        self.rise();
    }

    fn message(&mut self, _: Now, from: &NodeId, message: CommitMessage, out: &mut Effects<Self>) {
        let back = To::Node(from.clone());
        match message {
            CommitMessage::Seal { epoch, version } => {
                if !self.is_outdated(from, version, out) {
                    self.seal(from, epoch, out);
                }
            }
            CommitMessage::Submit { epoch, version, pairs, acknowledged } => {
                if !self.is_outdated(from, version, out) {
                    self.submit(from, epoch, version, pairs, acknowledged, out);
                }
            }
            CommitMessage::Adopt(adoption) => self.adopt(from, *adoption, out),
            CommitMessage::Regroup(group) => self.regroup(group),
            CommitMessage::Committed(commit) => self.committed(commit, out),
            CommitMessage::Gossip(gossip) => {
                self.largest = self.largest.max(gossip.largest);
                // While nobody publishes this is how it learns of newer servers.
                let of = &gossip.sequencer;
                self.is_outdated(of, gossip.version, out);
            }
            CommitMessage::Query(seqs) => {
                let answer =
                    ReceiverMessage::Ordered { pairs: self.named(seqs), floor: self.floor };
                out.send(back, answer);
            }
            CommitMessage::PeerQuery(seqs) => {
                let answer =
                    CommitMessage::PeerAnswer { pairs: self.named(seqs), floor: self.floor };
                out.send(back, answer);
            }
            CommitMessage::PeerAnswer { pairs, floor } => {
                // Below that floor everything is in a checkpoint.
                self.certain = self.certain.max(floor.min(self.largest));
                let progress = !pairs.is_empty();
                self.learn(Epoch(0), pairs.clone(), out);
                // The data server beside it missed that too: after a start, all it has is open to it.
                let (epoch, largest) = (self.sealed, self.largest);
                out.here(DataMessage::Committed(Commit { epoch, largest, pairs }));
                if progress && self.certain < self.largest {
                    self.ask_at = Some(Instant::default());
                }
            }
            CommitMessage::Forget(upto) => self.forget(upto),
        }
    }

    fn flush(&mut self, now: Now, out: &mut Effects<Self>) {
        if self.largest > self.noted && !out.records.is_empty() {
            self.noted = self.largest;
            out.persist_lazily(Record::Known(self.largest));
        }
        if std::mem::take(&mut self.trim) {
            // Whatever was promised in this turn too.
            let seal = Record::Seal { epoch: self.sealed, floor: self.floor };
            let version = Record::Servers(self.version);
            let carry = vec![seal, version, Record::Known(self.largest)];
            out.truncate = Some(Truncate { upto: self.floor.0, carry });
        }
        self.look(now.at, out);
    }

    fn timeout(&mut self, now: Now, out: &mut Effects<Self>) {
        self.flush(now, out);
    }

    fn deadline(&self) -> Option<Instant> {
        self.ask_at
    }
}

/// What is missing for so long is asked for: longer than commits are usually under way.
const ASK_AFTER: Duration = Duration::from_millis(100);
