//! The proposer: stands, leads, orders commands, and looks after the cluster's shape.
//!
//! A follower listens for its leader; when that falls silent it asks whether it should stand
//! (`following`), then asks for promises and leads (`reign`). A leader finishes what earlier
//! leaders left open, orders what clients ask for (`propose`), takes care of members that come and
//! go (`care`), listens to operators (`wishes`) and hands leadership on (`succession`). Reads learn
//! here what they must wait for: by asking a leader (`reads`), or under a lease without a question
//! (`lease`). What it tells others and people is in `news`. A node whose journal ended torn does
//! nothing of this before that is made up for (`mend`).

mod care;
mod following;
mod lease;
mod mend;
mod news;
mod propose;
mod reads;
mod reign;
mod succession;
mod wishes;

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use rand::RngExt;
use synod_runtime::{
    identity::{NodeId, NodeName},
    world::{Instant, Rng},
};

use self::{care::Pace, following::Following, lease::Leases, mend::Mending, reign::Reign};
use super::{
    auxiliary::VOTE_BYTES_MAX,
    ballot::{Ballot, Step},
    configuration::{Configuration, History},
    message::{
        Ahead, AuxiliaryMessage, Heartbeat, HomeMessage, Leader, LearnerMessage, Message, Nearness,
        NodeRole, Peer, ProbeAnswer, ProposerMessage, ProposerReport, ReplicaMessage, Request,
        Standing, TellAgain,
    },
    record::{Image, Record, is_torn},
    timing::{Timing, VoteStyle},
    value::EncodedCommand,
};
use crate::{
    effects::{Effects, To},
    machine::{Machine, Now, Survived},
};

/// Commands waiting to be ordered, in bytes; homes bound what they send long before.
const QUEUE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Homes hear of the leader at least this often.
const LEADER_NEWS: Duration = Duration::from_millis(250);

/// So many times longer than others waits a main whose disk is full before it stands.
const FULL_PATIENCE: u32 = 3;

/// What one peer is and says.
#[derive(Debug)]
struct Known {
    id: NodeId,
    role: NodeRole,
    up: bool,
    heard: Option<Instant>,
    beat: Option<Heartbeat>,
    pace: Pace,
    standing: Option<Standing>,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Proposer {
    me: NodeId,
    timing: Timing,
    style: VoteStyle,
    /// What a bridge may lay on an auxiliary before the silent main is voted out (R1.33): beyond what
    /// that has room for, nothing could be decided any more.
    bridge_bytes_max: usize,
    rng: Rng,
    history: History,
    durable_upto: Step,
    /// The highest ballot anyone is known to have used.
    seen: Ballot,
    peers: BTreeMap<NodeName, Known>,
    phase: Phase,
    /// Commands not yet proposed, in the order they came.
    queue: VecDeque<EncodedCommand>,
    queue_bytes: usize,
    expiry_ms: Option<u64>,
    beat_due: Instant,
    auxiliary_due: Instant,
    news_due: Instant,
    told: Option<Leader>,
    /// As the home was told last.
    near: Option<Nearness>,
    /// The highest cluster version that this node can execute.
    knows: u32,
    reported: ProposerReport,
    /// Why nothing can be decided, for people.
    halted: Option<String>,
    /// When this node last saw anything decided, or nothing open.
    alive: Instant,
    /// A sole main asks an auxiliary, once after every start, whether it still is that.
    confirmed_sole: bool,
    /// A newer configuration that somebody told of, which this node does not know.
    behind: Option<Vec<NodeId>>,
    /// The node stops: it leads no more.
    resigned: bool,
    leases: Leases,
    /// The journal ended torn: this node neither leads nor votes before that is made up for.
    mending: Option<Mending>,
    /// This node's disk takes no votes for commands.
    full: bool,
    turn: Now,
}

#[derive(Debug)]
enum Phase {
    Following(Following),
    Leading(Box<Reign>),
}

impl Proposer {
    /// The proposer of node `me`.
    pub fn new(me: NodeId, timing: Timing, style: VoteStyle, rng: Rng) -> Self {
        Self {
            me,
            timing,
            style,
            bridge_bytes_max: VOTE_BYTES_MAX / 2,
            rng,
            history: History::default(),
            durable_upto: Step(0),
            seen: Ballot::default(),
            peers: BTreeMap::new(),
            phase: Phase::Following(Following::default()),
            queue: VecDeque::new(),
            queue_bytes: 0,
            expiry_ms: None,
            beat_due: Instant::default(),
            auxiliary_due: Instant::default(),
            news_due: Instant::default(),
            told: None,
            near: None,
            knows: 0,
            reported: ProposerReport::default(),
            halted: None,
            alive: Instant::default(),
            confirmed_sole: timing.accept_sole,
            behind: None,
            resigned: false,
            leases: Leases::default(),
            mending: None,
            full: false,
            turn: Now::default(),
        }
    }

    /// That of a node which can execute cluster versions up to `knows`.
    #[must_use]
    pub const fn knowing(mut self, knows: u32) -> Self {
        self.knows = knows;
        self
    }

    /// In a cluster whose auxiliaries keep votes of so many bytes; [`VOTE_BYTES_MAX`] unless said.
    #[must_use]
    pub const fn bridging(mut self, vote_bytes_max: usize) -> Self {
        self.bridge_bytes_max = vote_bytes_max / 2;
        self
    }

    /// Whether this node leads and can have steps chosen, and in which ballot.
    pub fn leads(&self) -> Option<Ballot> {
        match &self.phase {
            Phase::Leading(reign) if reign.established => Some(reign.ballot),
            Phase::Leading(_) | Phase::Following(_) => None,
        }
    }

    fn configuration(&self) -> Option<&Configuration> {
        self.history.current()
    }

    fn is_main(&self) -> bool {
        self.configuration().is_some_and(|c| c.has_main(self.me.incarnation))
    }

    /// Whether this node would lead if nobody else did.
    fn may_stand(&self) -> bool {
        self.is_main() && !self.resigned && self.mending.is_none()
    }

    fn heard_within(&self, node: &NodeId, patience: Duration) -> bool {
        *node == self.me
            || self.peers.get(&node.name).is_some_and(|peer| {
                peer.id == *node && peer.heard.is_some_and(|at| self.turn.at < at + patience)
            })
    }

    /// Whether that node said last that its disk is full.
    fn is_full(&self, node: &NodeId) -> bool {
        let peer = self.peers.get(&node.name).filter(|peer| peer.id == *node);
        peer.and_then(|peer| peer.beat.as_ref()).is_some_and(|beat| beat.full)
    }

    /// How long a leader may be silent before this node stands. Whose disk is full leaves it to others.
    fn patience(&self) -> Duration {
        self.timing.election * if self.full { FULL_PATIENCE } else { 1 }
    }

    fn jitter(&mut self, most: Duration) -> Duration {
        let nanos = u64::try_from(most.as_nanos()).unwrap_or(u64::MAX).max(1);
        Duration::from_nanos(self.rng.random_range(0..nanos))
    }

    fn hear(&mut self, from: &NodeId) {
        if let Some(peer) = self.peers.get_mut(&from.name)
            && peer.id == *from
        {
            peer.heard = Some(self.turn.at);
        }
    }

    fn peer(&mut self, news: Peer) {
        if !news.up {
            let gone = self.peers.get_mut(&news.node.name).filter(|peer| peer.id == news.node);
            if let Some(peer) = gone {
                peer.up = false;
            }
            return;
        }
        let known = self.peers.entry(news.node.name.clone()).or_insert_with(|| Known {
            id: news.node.clone(),
            role: news.role,
            up: true,
            heard: None,
            beat: None,
            pace: Pace::default(),
            standing: None,
        });
        if known.id != news.node {
            (known.heard, known.beat, known.standing) = (None, None, None);
            known.pace = Pace::default();
            known.id = news.node;
        }
        known.role = news.role;
        known.up = true;
        known.heard = Some(self.turn.at); // a link that is up was answered from there
        self.told = None; // a new peer wants to know who leads
        self.auxiliary_due = self.auxiliary_due.min(self.turn.at);
    }

    /// Who was removed and is so no longer was added again, or removed long ago: the next of that name
    /// is another, which was never heard.
    fn forget_strangers(&mut self, before: &History) {
        let (Some(old), Some(new)) = (before.newest(), self.history.newest()) else { return };
        if old.epoch == new.epoch {
            return;
        }
        for node in old.removed.iter().filter(|node| !new.removed.contains(node)) {
            if self.peers.get(&node.name).is_some_and(|peer| !peer.up) {
                self.peers.remove(&node.name);
            }
        }
    }

    fn heartbeat(&mut self, from: &NodeId, beat: &Heartbeat, out: &mut Effects<Self>) {
        if let Some(peer) = self.peers.get_mut(&from.name)
            && peer.id == *from
        {
            peer.pace.note(self.turn.at, self.history.executed(), beat);
            peer.beat = Some(beat.clone());
        }
        if beat.chosen_upto > self.history.executed() || self.history.newest().is_none() {
            let ahead = Ahead { peer: from.clone(), chosen_upto: beat.chosen_upto };
            out.here(LearnerMessage::Ahead(ahead));
        }
        self.seen = self.seen.max(beat.ballot);
        let newer = match &self.phase {
            Phase::Leading(reign) => beat.leading && beat.ballot > reign.ballot,
            Phase::Following(following) => beat.leading && beat.ballot >= following.ballot,
        };
        let refuses = self.leads().is_some_and(|ballot| beat.ballot > ballot)
            && self.configuration().is_some_and(|c| c.has_main(from.incarnation));
        if newer {
            sometimes!(LeaderHearsLeader if matches!(self.phase, Phase::Leading(_)));
            self.follow(from.clone(), beat.ballot, beat.serving, out);
        } else if refuses {
            sometimes!(LeaderStandsAgain);
            // It stood, or promised, in a higher ballot, and can neither vote for this leader nor
            // follow it: a still higher one brings both together again. Unless it stands since it
            // was asked to: whoever hands leadership over does not take it back.
            let asked = self.hands_over_to(from);
            self.step_down(out);
            if !asked && self.may_stand() {
                self.campaign(self.seen.round + 1, out);
            }
        } else if let Phase::Following(following) = &mut self.phase
            && !beat.leading
            && following.leader.as_ref() == Some(from)
        {
            // It restarted or stepped down: nobody leads now, and waiting for it helps nobody.
            following.leader = None;
            let wait = if self.full { self.patience() } else { Duration::ZERO };
            let soon = self.turn.at + wait + self.jitter(self.timing.heartbeat);
            if let Phase::Following(following) = &mut self.phase {
                following.stand_at = following.stand_at.min(soon);
            }
        }
    }

    /// Somebody leads: listen to it.
    fn follow(&mut self, leader: NodeId, ballot: Ballot, serving: bool, out: &mut Effects<Self>) {
        self.step_down(out);
        // Those who could stand at the same time do so at different ones; who is the only one need not.
        let (me, others) = (self.me.incarnation, self.configuration());
        let rivals = others.is_none_or(|c| c.other_mains(me).any(|main| *main != leader));
        let apart = if rivals { self.jitter(self.timing.election / 2) } else { Duration::ZERO };
        let patience = self.timing.election + apart;
        if let Phase::Following(following) = &mut self.phase {
            following.leader = Some(leader);
            following.ballot = ballot;
            following.serving = serving;
            following.stand_at = self.turn.at + patience;
            following.standing = None;
            self.behind = None;
            self.alive = self.turn.at;
        }
    }

    fn step_down(&mut self, out: &mut Effects<Self>) {
        if let Phase::Leading(reign) = &mut self.phase {
            for read in reign.reads.drain(..) {
                read.refuse(out);
            }
            tracing::info!(ballot = %reign.ballot, "no longer leading");
            // What is queued was promised to nobody; the homes send it to the next leader.
            self.queue.clear();
            self.queue_bytes = 0;
            let wait = self.timing.election + self.jitter(self.timing.election / 2);
            self.phase = Phase::Following(Following {
                ballot: self.seen,
                stand_at: self.turn.at + wait,
                ..Following::default()
            });
        }
    }

    fn request(&mut self, from: &NodeId, request: Request, out: &mut Effects<Self>) {
        // Who cannot have anything chosen takes nothing: it is *not applied* at its home.
        if self.leads().is_none() || self.halted.is_some() {
            let news = self.leader_news();
            let to = if *from == self.me { To::Here } else { To::Node(from.clone()) };
            return out.send(to, HomeMessage::Leader(news));
        }
        for command in request.commands {
            if self.queue_bytes + command.len() > QUEUE_BYTES_MAX {
                break; // the rest of the session waits at its home, in order
            }
            if *from != self.me && !command.is_sound() {
                tracing::warn!(%from, "refused a malformed command");
                break;
            }
            self.queue_bytes += command.len();
            self.queue.push_back(command);
        }
        if *from != self.me
            && let Phase::Leading(reign) = &mut self.phase
        {
            reign.remote_waits = true;
        }
    }
}

impl Machine for Proposer {
    type Message = ProposerMessage;
    type Envelope = Message;
    type Record = Record;
    type Snapshot = Image;

    fn start(&mut self, now: Now, survived: &Survived<Record, Image>, out: &mut Effects<Self>) {
        self.turn = now;
        self.alive = now.at;
        out.here(LearnerMessage::TellAgain(TellAgain));
        out.here(ReplicaMessage::TellAgain(TellAgain));
        for record in &survived.records {
            if let Record::Promise(ballot) = record {
                self.seen = self.seen.max(*ballot);
            } else if let Record::Vote(vote) = record {
                self.seen = self.seen.max(vote.ballot);
            }
        }
        self.start_leases();
        self.mending = is_torn(&survived.records).then(|| Mending::begun(now.at));
        // Everyone gives the others a moment to be heard first.
        let wait = self.timing.heartbeat * 2 + self.jitter(self.timing.election / 2);
        self.phase =
            Phase::Following(Following { stand_at: now.at + wait, ..Following::default() });
    }

    fn room(&mut self, full: bool) {
        if self.full != full {
            self.beat_due = self.turn.at; // the others need not wait for its votes in vain
        }
        self.full = full;
    }

    fn message(
        &mut self,
        now: Now,
        from: &NodeId,
        message: ProposerMessage,
        out: &mut Effects<Self>,
    ) {
        self.turn = now;
        self.hear(from);
        match message {
            ProposerMessage::Promise(promise) => self.promise(from, promise, out),
            ProposerMessage::Nack(nack) => self.nack(&nack, out),
            ProposerMessage::PreVote(asked) => self.advise(from, &asked, out),
            ProposerMessage::PreVoteAnswer(answer) => self.advised(from, answer),
            ProposerMessage::Heartbeat(beat) => self.heartbeat(from, &beat, out),
            ProposerMessage::Standing(standing) => self.auxiliary_stands(from, standing),
            ProposerMessage::Reached(reached) => self.reached(&reached),
            ProposerMessage::Acked(acked) => self.acked(&acked),
            ProposerMessage::Progress(progress) => self.progress(progress, out),
            ProposerMessage::Confirmed(confirmed) => self.confirmed(from, &confirmed),
            ProposerMessage::ReadIndex(asked) => self.read_index(from, &asked, out),
            ProposerMessage::Request(request) => self.request(from, request, out),
            ProposerMessage::Probe(probe) => {
                let answer = AuxiliaryMessage::ProbeAnswer(ProbeAnswer { nonce: probe.nonce });
                out.send(To::Node(from.clone()), answer);
            }
            ProposerMessage::Expiry(expiry) => self.expiry_ms = expiry.due_ms,
            ProposerMessage::Peer(news) => self.peer(news),
            ProposerMessage::Resign(_) => self.resign(out),
            ProposerMessage::Wanted(wanted) => self.wanted(from, wanted, out),
            ProposerMessage::TakeOver(asked) => self.take_over(from, &asked, out),
            ProposerMessage::LeaseAsked(asked) => self.lease_asked(asked, out),
            ProposerMessage::LeaseGrant(grant) => self.lease_granted(from, &grant),
            ProposerMessage::LeasedRead(asked) => self.leased_read(asked, out),
            ProposerMessage::Mended(_) => self.mended(),
            ProposerMessage::TellAgain(_) => self.told = None,
        }
    }

    fn flush(&mut self, now: Now, out: &mut Effects<Self>) {
        self.turn = now;
        match self.phase {
            Phase::Following(_) => self.consider_standing(out),
            Phase::Leading(_) => {
                self.establish(out);
                self.propose(out);
                self.take_care(out);
                self.confirm_reads(out);
                self.grant_wishes(out);
                self.carry_handover(out);
            }
        }
        self.mend(out);
        self.tend_leases(out);
        self.judge();
        self.beat(out);
        self.tell(out);
    }

    fn timeout(&mut self, _now: Now, _out: &mut Effects<Self>) {
        // Everything due is looked at in `flush`, which follows.
    }

    fn deadline(&self) -> Option<Instant> {
        let phase = match &self.phase {
            Phase::Following(following) => {
                following.deadline(self.may_stand(), self.timing.opinions)
            }
            Phase::Leading(reign) => reign.deadline(self.turn.at),
        };
        let beats = [Some(self.beat_due), Some(self.auxiliary_due)];
        let rest = [phase, self.leases_due(), self.mending_due()];
        beats.into_iter().chain(rest).flatten().min()
    }
}
