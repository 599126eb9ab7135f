//! The sequencer: gives every message its number, and commits it.

mod settle;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use synod_runtime::{identity::NodeId, world::Instant};

use super::{
    group::{Group, Tally},
    history::{History, Verdict},
    message::{
        Adoption, Advert, Commit, CommitMessage, Gossip, Message, Mid, Pair, Sealed, Seq,
        SequencerMessage, SequencerReport, Word,
    },
    record::Record,
    rules::{Rule, is_off},
};
use crate::{
    effects::{Effects, To},
    election::message::Epoch,
    machine::{Machine, Now, Survived},
};

/// The machine. It lives on every server of the group; one of them leads at a time.
#[derive(Debug)]
pub struct Sequencer {
    me: NodeId,
    group: Arc<Group>,
    phase: Phase,
    /// Who reported which checkpoint.
    checkpoints: BTreeMap<Advert, Tally>,
    advertised: Option<Advert>,
    told: SequencerReport,
    /// Somebody knows newer servers, and the node was not told yet.
    outdated: bool,
}

#[derive(Debug)]
enum Phase {
    /// Another leads, or nobody.
    Following,
    /// It leads, and learns from the commit servers what there is.
    Sealing(Sealing),
    /// It orders.
    Ordering(Box<Reign>),
}

#[derive(Debug)]
struct Sealing {
    epoch: Epoch,
    answers: BTreeMap<usize, Answer>,
    ask_at: Instant,
}

/// What a sealed commit server has.
#[derive(Debug)]
struct Answer {
    floor: Seq,
    largest: Seq,
    records: Vec<Sealed>,
}

#[derive(Debug)]
struct Reign {
    epoch: Epoch,
    /// All numbers up to here are committed.
    committed: Seq,
    /// All numbers up to here are in use.
    assigned: Seq,
    /// Numbers in use that are not committed.
    open: BTreeMap<Seq, Open>,
    history: History,
    /// Messages without a number.
    waiting: BTreeMap<Mid, Waiting>,
    /// Of these, those that may get one.
    ready: VecDeque<Mid>,
    /// Numbers that were given out in this turn.
    fresh: Vec<(Seq, Pair)>,
    /// Numbers that were committed and not announced yet.
    announce: Vec<(Seq, Pair)>,
    gossip_at: Instant,
    /// Gossip of this reign.
    beat: u64,
    resend_at: Instant,
    /// For who is on its way in, until that has it.
    handover: Option<Box<Adoption>>,
    hand_over_at: Instant,
}

#[derive(Debug)]
struct Open {
    pair: Pair,
    acknowledged: Tally,
    sent: Instant,
}

#[derive(Debug)]
struct Waiting {
    pair: Pair,
    reported: Tally,
}

impl Sequencer {
    /// The sequencer of the node `me`. It does not lead yet.
    pub fn new(me: NodeId, group: Arc<Group>) -> Self {
        Self {
            me,
            group,
            phase: Phase::Following,
            checkpoints: BTreeMap::new(),
            advertised: None,
            told: SequencerReport::default(),
            outdated: false,
        }
    }

    fn lead(&mut self, now: Instant, epoch: Epoch) {
        self.phase = Phase::Sealing(Sealing { epoch, answers: BTreeMap::new(), ask_at: now });
    }

    /// I2: enough commit servers will take nothing of earlier epochs any more.
    fn sealed(&mut self, now: Instant, server: usize, epoch: Epoch, answer: Answer) {
        let few = usize::from(is_off(Rule::SealMeetsEveryCommit));
        let Phase::Sealing(sealing) = &mut self.phase else { return };
        if epoch != sealing.epoch {
            return;
        }
        sealing.answers.entry(server).or_insert(answer);
        if sealing.answers.len() < (self.group.seals() - few).max(1) {
            return;
        }
        let answers: Vec<_> = std::mem::take(&mut sealing.answers).into_values().collect();
        let reign = settle::settle(&self.group, epoch, &answers, now);
        self.phase = Phase::Ordering(Box::new(reign));
    }

    fn refused(&mut self, known: Epoch) {
        let mine = match &self.phase {
            Phase::Following => return,
            Phase::Sealing(sealing) => sealing.epoch,
            Phase::Ordering(reign) => reign.epoch,
        };
        if known > mine {
            self.phase = Phase::Following;
        }
    }

    /// A commit server goes by newer servers of the group: whatever this one begins is refused.
    fn outdated(&mut self, version: u64) {
        if version > self.group.version {
            self.phase = Phase::Following;
            self.outdated = true;
        }
    }

    /// Goes by these servers; to lead them it needs a new epoch.
    fn regroup(&mut self, group: Arc<Group>) {
        if group.version > self.group.version {
            self.group = group;
            self.phase = Phase::Following;
            self.checkpoints.clear();
        }
    }

    fn checkpointed(&mut self, server: usize, advert: Advert, advertised: bool) {
        let newest = self.advertised.as_ref().map_or(Seq(0), |advertised| advertised.seq);
        if advert.seq <= newest {
            return;
        }
        if self.checkpoints.len() >= CHECKPOINTS_MAX {
            self.checkpoints.pop_first();
        }
        let tally = self.checkpoints.entry(advert.clone()).or_default();
        tally.insert(server);
        if advertised || tally.len() >= self.group.k_checkpoint {
            self.checkpoints.retain(|other, _| other.seq > advert.seq);
            self.advertised = Some(advert);
        }
    }

    /// A turn of who orders.
    fn order(&mut self, now: Instant, out: &mut Effects<Self>) {
        let Phase::Ordering(reign) = &mut self.phase else { return };
        reign.commit(&self.group);
        reign.assign(&self.group, now);
        let (fresh, announce) =
            (std::mem::take(&mut reign.fresh), std::mem::take(&mut reign.announce));
        let (epoch, largest, version) = (reign.epoch, reign.committed, self.group.version);
        let mut resent = Vec::new();
        if reign.resend_at <= now {
            reign.resend_at = now + RESEND_AFTER;
            for (index, server) in self.group.places() {
                resent.push((server.clone(), reign.overdue(index, now)));
            }
            reign.sweep(&self.group);
        }
        if let Some(adoption) = &reign.handover
            && let Some(joining) = &self.group.joining
            && reign.hand_over_at <= now
        {
            reign.hand_over_at = now + HAND_OVER_AGAIN;
            let adopt = CommitMessage::Adopt(adoption.clone());
            out.send(To::Node(joining.node.clone()), adopt);
        }
        let gossips = reign.gossip_at <= now;
        if gossips {
            reign.gossip_at = now + GOSSIP_EVERY;
            reign.beat += 1;
        }
        let beat = reign.beat;
        for pairs in fresh.chunks(BATCH_MAX) {
            let submit = CommitMessage::Submit { epoch, version, pairs: pairs.to_vec() };
            self.to_servers(out, &submit.into());
        }
        for (server, pairs) in resent.into_iter().filter(|(_, pairs)| !pairs.is_empty()) {
            out.send(To::Node(server), CommitMessage::Submit { epoch, version, pairs });
        }
        for pairs in announce.chunks(BATCH_MAX) {
            let commit = Commit { epoch, largest, pairs: pairs.to_vec() };
            self.to_servers(out, &commit.into());
        }
        if gossips {
            let checkpoint = self.advertised.clone();
            let sequencer = self.me.clone();
            let gossip = Gossip { epoch, sequencer, largest, checkpoint, version, beat };
            self.to_servers(out, &gossip.into());
        }
    }

    fn to_servers(&self, out: &mut Effects<Self>, message: &Message) {
        for server in self.group.hosts() {
            out.send(To::Node(server.clone()), message.clone());
        }
    }

    /// Who is on its way in has what it was told.
    fn adopted(&mut self, from: &NodeId, epoch: Epoch) {
        if let Phase::Ordering(reign) = &mut self.phase
            && reign.epoch == epoch
            && self.group.is_joining(from)
        {
            reign.handover = None;
        }
    }

    fn report(&mut self, out: &mut Effects<Self>) {
        if std::mem::take(&mut self.outdated) {
            out.here(Word::Outdated);
        }
        let report = match &self.phase {
            Phase::Following | Phase::Sealing(_) => SequencerReport { epoch: None, ..self.told },
            Phase::Ordering(reign) => SequencerReport {
                epoch: Some(reign.epoch),
                committed: reign.committed,
                assigned: reign.assigned,
            },
        };
        if report != self.told {
            self.told = report;
            out.here(Word::Sequencer(report));
        }
    }
}

impl Reign {
    /// A data server has these.
    fn reported(&mut self, group: &Group, server: usize, pairs: Vec<Pair>) {
        for pair in pairs {
            let Some(mid) = pair.mid else { continue };
            match self.history.judge(mid, &pair, self.assigned, group) {
                Verdict::Good | Verdict::Early => {}
                Verdict::Duplicate | Verdict::Expired => {
                    self.waiting.remove(&mid);
                    continue;
                }
            }
            if self.waiting.len() >= WAITING_MAX && !self.waiting.contains_key(&mid) {
                continue; // it is reported again
            }
            let new = || Waiting { pair, reported: Tally::default() };
            let waiting = self.waiting.entry(mid).or_insert_with(new);
            waiting.pair.lowest_open = waiting.pair.lowest_open.max(pair.lowest_open);
            waiting.reported.insert(server);
            if waiting.is_reported(group) {
                self.ready.push_back(mid);
            }
        }
    }

    /// Gives numbers to what is ready, in the order in which it became so.
    fn assign(&mut self, group: &Group, now: Instant) {
        while self.open.len() < OPEN_MAX
            && let Some(mid) = self.ready.pop_front()
        {
            let Some(pair) = self.waiting.get(&mid).map(|waiting| waiting.pair) else { continue };
            match self.history.judge(mid, &pair, self.assigned, group) {
                Verdict::Good => {}
                // I7: it is ready again when the one before it has its place.
                Verdict::Early => continue,
                Verdict::Duplicate | Verdict::Expired => {
                    self.waiting.remove(&mid);
                    continue;
                }
            }
            self.waiting.remove(&mid);
            let seq = self.assigned.next();
            self.assigned = seq;
            self.history.note(seq, &pair, group);
            self.open.insert(seq, Open { pair, acknowledged: Tally::default(), sent: now });
            self.fresh.push((seq, pair));
            let next = Mid { number: mid.number + 1, ..mid };
            if self.waiting.get(&next).is_some_and(|next| next.is_reported(group)) {
                self.ready.push_front(next);
            }
        }
    }

    fn acknowledged(&mut self, server: usize, seqs: &[Seq]) {
        for seq in seqs {
            if let Some(open) = self.open.get_mut(seq) {
                open.acknowledged.insert(server);
            }
        }
    }

    /// I4: commits what enough commit servers have, in order.
    fn commit(&mut self, group: &Group) {
        let early = usize::from(is_off(Rule::EnoughAcknowledge));
        let enough = group.k_commit - early;
        if is_off(Rule::AnnouncedInOrder) {
            let done = self.open.iter().filter(|(_, open)| open.acknowledged.len() >= enough);
            let done: Vec<_> = done.map(|(seq, open)| (*seq, open.pair)).collect();
            for (seq, pair) in done {
                self.open.remove(&seq);
                self.committed = self.committed.max(seq);
                self.announce.push((seq, pair));
            }
            return;
        }
        while let Some(first) = self.open.first_entry() {
            if first.get().acknowledged.len() < enough {
                return;
            }
            let (seq, open) = first.remove_entry();
            assert!(seq == self.committed.next(), "I4: commits are in order");
            self.committed = seq;
            self.announce.push((seq, open.pair));
        }
    }

    /// What a server has not acknowledged for a while, as far as one message takes it.
    fn overdue(&self, server: usize, now: Instant) -> Vec<(Seq, Pair)> {
        let late = |open: &Open| {
            !open.acknowledged.contains(server) && now.since(open.sent) >= RESEND_AFTER
        };
        let late = self.open.iter().filter(|(_, open)| late(open));
        late.take(BATCH_MAX).map(|(seq, open)| (*seq, open.pair)).collect()
    }

    /// Forgets messages that will never get a number.
    fn sweep(&mut self, group: &Group) {
        let (history, assigned) = (&self.history, self.assigned);
        self.waiting.retain(|mid, waiting| {
            matches!(
                history.judge(*mid, &waiting.pair, assigned, group),
                Verdict::Good | Verdict::Early
            )
        });
    }
}

impl Waiting {
    /// I5: enough different data servers have it.
    fn is_reported(&self, group: &Group) -> bool {
        let reporters = if is_off(Rule::ReportersDistinct) {
            self.reported.words()
        } else {
            self.reported.len()
        };
        reporters >= group.k_data
    }
}

impl Machine for Sequencer {
    type Message = SequencerMessage;
    type Envelope = Message;
    type Record = Record;
    type Snapshot = ();

    fn start(&mut self, _: Now, _: &Survived<Record, ()>, _: &mut Effects<Self>) {}

    fn message(
        &mut self,
        now: Now,
        from: &NodeId,
        message: SequencerMessage,
        _out: &mut Effects<Self>,
    ) {
        match message {
            SequencerMessage::Lead(epoch) => return self.lead(now.at, epoch),
            SequencerMessage::StepDown => return self.phase = Phase::Following,
            SequencerMessage::Refused(known) => return self.refused(known),
            SequencerMessage::Outdated(version) => return self.outdated(version),
            SequencerMessage::Regroup(group) => return self.regroup(group),
            SequencerMessage::Adopted(epoch) => return self.adopted(from, epoch),
            SequencerMessage::Reported(_)
            | SequencerMessage::Sealed { .. }
            | SequencerMessage::Acknowledged { .. }
            | SequencerMessage::Checkpointed { .. } => {}
        }
        let Some(server) = self.group.index(from) else { return };
        match (message, &mut self.phase) {
            (SequencerMessage::Sealed { epoch, floor, largest, records }, _) => {
                self.sealed(now.at, server, epoch, Answer { floor, largest, records });
            }
            (SequencerMessage::Checkpointed { advert, advertised }, _) => {
                self.checkpointed(server, advert, advertised);
            }
            (SequencerMessage::Reported(pairs), Phase::Ordering(reign)) => {
                reign.reported(&self.group, server, pairs);
            }
            (SequencerMessage::Acknowledged { epoch, seqs }, Phase::Ordering(reign))
                if epoch == reign.epoch =>
            {
                reign.acknowledged(server, &seqs);
            }
            // Of another time; whoever said it says it again if it matters.
            (_, Phase::Following | Phase::Sealing(_) | Phase::Ordering(_)) => {}
        }
    }

    fn flush(&mut self, now: Now, out: &mut Effects<Self>) {
        let now = now.at;
        match &mut self.phase {
            Phase::Following => {}
            Phase::Sealing(sealing) => {
                if sealing.ask_at <= now {
                    sealing.ask_at = now + RESEND_AFTER;
                    let (epoch, version) = (sealing.epoch, self.group.version);
                    for (index, server) in self.group.places() {
                        if !sealing.answers.contains_key(&index) {
                            let seal = CommitMessage::Seal { epoch, version };
                            out.send(To::Node(server.clone()), seal);
                        }
                    }
                }
            }
            Phase::Ordering(_) => self.order(now, out),
        }
        self.report(out);
    }

    fn timeout(&mut self, now: Now, out: &mut Effects<Self>) {
        self.flush(now, out);
    }

    fn deadline(&self) -> Option<Instant> {
        match &self.phase {
            Phase::Following => None,
            Phase::Sealing(sealing) => Some(sealing.ask_at),
            // What is handed over waits for no more than a sign of life.
            Phase::Ordering(reign) if reign.open.is_empty() && reign.waiting.is_empty() => {
                Some(reign.gossip_at)
            }
            Phase::Ordering(reign) => Some(reign.gossip_at.min(reign.resend_at)),
        }
    }
}

/// What was not answered for so long is said again: some round trips of a busy network.
const RESEND_AFTER: Duration = Duration::from_millis(50);

/// So often the sequencer says how far it is: so late at most a receiver notices that it lacks the
/// last messages, and the first sign of a new sequencer comes at once.
const GOSSIP_EVERY: Duration = Duration::from_millis(100);

/// Who is on its way in is told so often what a reign began with: it is large.
const HAND_OVER_AGAIN: Duration = Duration::from_secs(1);

/// Numbers in one message: some tens of kilobytes.
pub(super) const BATCH_MAX: usize = 1_000;

/// Numbers in use and not committed; more messages wait without one, where they cost nobody
/// anything at a fail-over.
pub(crate) const OPEN_MAX: usize = 10_000;

/// Messages that data servers reported and that have no number. More are reported again later.
const WAITING_MAX: usize = 100_000;

/// Checkpoints that some servers reported and not enough did. Servers take the same ones.
const CHECKPOINTS_MAX: usize = 64;
