//! The sequencer: gives every message its number, and commits it.

mod reign;
mod settle;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use synod_runtime::{identity::NodeId, world::Instant};

use self::reign::Reign;
use super::{
    group::{Group, Tally},
    message::{
        Advert, Commit, CommitMessage, Gossip, Message, Sealed, Seq, SequencerMessage,
        SequencerReport, Word,
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
    submits: Submits,
    phase: Phase,
    /// Who reported which checkpoint.
    checkpoints: BTreeMap<Advert, Tally>,
    advertised: Option<Advert>,
    told: SequencerReport,
    /// Somebody knows newer servers, and the node was not told yet.
    outdated: bool,
}

/// When the commit servers of other nodes hear of a new number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Submits {
    /// At once: all disks are written at the same time.
    #[default]
    AtOnce,
    /// When this node's own commit server has it, and they hear that with it: where two copies are
    /// enough, each knows by itself that the number is committed as soon as it has it. Where no disk is
    /// synced the own server takes next to no time.
    OwnFirst,
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
    stored: Reading,
}

/// Where the group writes down its largest number: whether the sequencer knows that.
#[derive(Debug, PartialEq, Eq)]
enum Reading {
    /// Not before enough commit servers are sealed (R4.75): until then it may rise.
    NotYet,
    Asked,
    Done(Seq),
}

/// What a sealed commit server has.
#[derive(Debug)]
struct Answer {
    floor: Seq,
    largest: Seq,
    records: Vec<Sealed>,
}

impl Sequencer {
    /// The sequencer of the node `me`. It does not lead yet.
    pub fn new(me: NodeId, group: Arc<Group>) -> Self {
        Self {
            me,
            group,
            submits: Submits::default(),
            phase: Phase::Following,
            checkpoints: BTreeMap::new(),
            advertised: None,
            told: SequencerReport::default(),
            outdated: false,
        }
    }

    /// The same, whose numbers go out in that way.
    #[must_use]
    pub fn submitting(self, submits: Submits) -> Self {
        Self { submits, ..self }
    }

    /// Whether its own node's commit server has a number first.
    fn own_first(&self) -> bool {
        self.submits == Submits::OwnFirst && self.group.index(&self.me).is_some()
    }

    fn lead(&mut self, now: Instant, epoch: Epoch) {
        let stored = match self.group.maximum.is_written() {
            false => Reading::Done(Seq(0)),
            true => Reading::NotYet,
        };
        let answers = BTreeMap::new();
        self.phase = Phase::Sealing(Sealing { epoch, answers, ask_at: now, stored });
    }

    /// I2: enough commit servers will take nothing of earlier epochs any more.
    fn sealed(
        &mut self,
        now: Instant,
        server: usize,
        epoch: Epoch,
        answer: Answer,
        out: &mut Effects<Self>,
    ) {
        let few = usize::from(is_off(Rule::SealMeetsEveryCommit));
        let Phase::Sealing(sealing) = &mut self.phase else { return };
        if epoch != sealing.epoch {
            return;
        }
        sealing.answers.entry(server).or_insert(answer);
        if sealing.answers.len() < (self.group.seals() - few).max(1) {
            return;
        }
        match sealing.stored {
            Reading::NotYet => {
                sealing.stored = Reading::Asked;
                out.here(Word::Maximum { epoch, seq: Seq(0) });
            }
            Reading::Asked => {}
            Reading::Done(stored) => {
                let answers: Vec<_> = std::mem::take(&mut sealing.answers).into_values().collect();
                let reign = settle::settle(&self.group, epoch, &answers, stored, now);
                self.phase = Phase::Ordering(Box::new(reign));
            }
        }
    }

    /// That number is written down.
    fn stored(&mut self, now: Instant, of: Epoch, seq: Seq) {
        match &mut self.phase {
            Phase::Sealing(sealing) if sealing.epoch == of => {
                let answers: Vec<_> = std::mem::take(&mut sealing.answers).into_values().collect();
                let reign = settle::settle(&self.group, of, &answers, seq, now);
                self.phase = Phase::Ordering(Box::new(reign));
            }
            Phase::Ordering(reign) if reign.epoch == of => reign.is_stored(seq),
            // Asked by an earlier reign.
            Phase::Following | Phase::Sealing(_) | Phase::Ordering(_) => {}
        }
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
        let own_first = self.own_first();
        let Phase::Ordering(reign) = &mut self.phase else { return };
        reign.commit(&self.group);
        reign.assign(&self.group, now);
        if let Some(seq) = reign.next_to_store() {
            out.here(Word::Maximum { epoch: reign.epoch, seq });
        }
        let (fresh, announce) = (reign.submittable(), std::mem::take(&mut reign.announce));
        let own = std::mem::take(&mut reign.own);
        let knowing: Vec<_> = match announce.is_empty() {
            true => Vec::new(),
            false => reign.knowing(&self.group).cloned().collect(),
        };
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
        let submit = |pairs, acknowledged| -> Message {
            CommitMessage::Submit { epoch, version, pairs, acknowledged }.into()
        };
        for pairs in fresh.chunks(BATCH_MAX) {
            match own_first && !is_off(Rule::CarriedDurable) {
                true => out.send(To::Node(self.me.clone()), submit(pairs.to_vec(), false)),
                false => self.to_servers(out, &submit(pairs.to_vec(), own_first), &[]),
            }
        }
        for pairs in own.chunks(BATCH_MAX) {
            self.to_servers(out, &submit(pairs.to_vec(), true), std::slice::from_ref(&self.me));
        }
        for (server, pairs) in resent.into_iter().filter(|(_, pairs)| !pairs.is_empty()) {
            out.send(To::Node(server), submit(pairs, false));
        }
        for pairs in announce.chunks(BATCH_MAX) {
            let commit = Commit { epoch, largest, pairs: pairs.to_vec() };
            self.to_servers(out, &commit.into(), &knowing);
        }
        if gossips {
            let checkpoint = self.advertised.clone();
            let sequencer = self.me.clone();
            let gossip = Gossip { epoch, sequencer, largest, checkpoint, version, beat };
            self.to_servers(out, &gossip.into(), &[]);
        }
    }

    /// To all that keep the group but these.
    fn to_servers(&self, out: &mut Effects<Self>, message: &Message, but: &[NodeId]) {
        for server in self.group.hosts().filter(|server| !but.contains(*server)) {
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
        out: &mut Effects<Self>,
    ) {
        match message {
            SequencerMessage::Lead(epoch) => return self.lead(now.at, epoch),
            SequencerMessage::StepDown => return self.phase = Phase::Following,
            SequencerMessage::Refused(known) => return self.refused(known),
            SequencerMessage::Outdated(version) => return self.outdated(version),
            SequencerMessage::Regroup(group) => return self.regroup(group),
            SequencerMessage::Adopted(epoch) => return self.adopted(from, epoch),
            SequencerMessage::Stored { epoch, seq } => return self.stored(now.at, epoch, seq),
            SequencerMessage::Reported(_)
            | SequencerMessage::Sealed { .. }
            | SequencerMessage::Acknowledged { .. }
            | SequencerMessage::Checkpointed { .. } => {}
        }
        let Some(server) = self.group.index(from) else { return };
        let own_first = self.own_first();
        match (message, &mut self.phase) {
            (SequencerMessage::Sealed { epoch, floor, largest, records }, _) => {
                self.sealed(now.at, server, epoch, Answer { floor, largest, records }, out);
            }
            (SequencerMessage::Checkpointed { advert, advertised }, _) => {
                self.checkpointed(server, advert, advertised);
            }
            (SequencerMessage::Reported(pairs), Phase::Ordering(reign)) => {
                reign.reported(&self.group, server, pairs);
            }
            (SequencerMessage::Acknowledged { epoch, seqs, agreed }, Phase::Ordering(reign))
                if epoch == reign.epoch =>
            {
                reign.knows(server, agreed);
                reign.acknowledged(server, &seqs, *from == self.me && own_first);
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
