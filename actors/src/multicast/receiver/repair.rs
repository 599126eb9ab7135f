//! How a receiver gets what it missed: from commit servers which message, from data servers the
//! message, from checkpoint servers the state.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use rand::RngExt as _;
use synod_runtime::{identity::NodeId, world::Instant};

use super::{ASKED_MAX, Receiver, Style};
use crate::{
    effects::{Effects, To},
    multicast::{
        checkpoint_server::{BLOCKS_MAX, WRITE_BYTES, advert},
        message::{
            Advert, Checkpoint, CheckpointMessage, CommitMessage, DataMessage, Message, Mid,
            Question, Seq, Word,
        },
    },
};

/// What is under way.
#[derive(Debug, Default)]
pub(super) struct Repair {
    look_at: Option<Instant>,
    /// Questions without a helpful answer, one after the other.
    vain: u32,
    /// Whom it asks, by place among the servers: the next one when that did not help.
    turn: Option<usize>,
    /// Whom it asked last.
    asked: Option<NodeId>,
    /// Numbers up to here are in no commit server any more.
    dropped: Seq,
    fetch: Option<Fetch>,
}

/// A checkpoint that is being fetched.
#[derive(Debug)]
struct Fetch {
    advert: Advert,
    blocks: BTreeMap<u32, Bytes>,
    bytes: u64,
    /// Blocks under way.
    asked: BTreeSet<u32>,
    ask_at: Instant,
    /// Until then no newer one is fetched instead: on a busy group one comes before any was fetched.
    /// Every block that comes puts it off.
    stays_until: Instant,
    turn: usize,
}

impl Fetch {
    /// How many blocks are asked of a server at once: as many as it says at once, so that no block that
    /// was asked for has to be waited for in vain.
    fn asked_at_once(&self) -> usize {
        let bytes = self.advert.bytes / u64::from(self.advert.blocks).max(1);
        let fit = WRITE_BYTES as u64 / bytes.max(1);
        usize::try_from(fit).unwrap_or(BLOCKS_MAX).clamp(1, BLOCKS_MAX)
    }
}

impl Repair {
    /// A server said something. If that helps, the next question need not wait; if it is the answer
    /// of whom was asked and does not help, the next server is asked, soon.
    pub(super) fn answered(&mut self, now: Instant, from: &NodeId, helps: bool, servers: usize) {
        if self.asked.as_ref() != Some(from) {
            return;
        }
        let wait = if helps {
            self.vain = 0;
            Duration::ZERO
        } else {
            self.turn = self.turn.map(|turn| turn + 1);
            let rounds = self.vain / u32::try_from(servers).unwrap_or(u32::MAX).max(1);
            ASK_AFTER * (1 << rounds.min(BACK_OFF_MAX))
        };
        self.asked = None;
        self.look_at = self.look_at.map(|at| at.min(now + wait));
    }

    pub(super) fn dropped_upto(&mut self, floor: Seq) {
        self.dropped = self.dropped.max(floor);
    }

    pub(super) fn due(&self) -> Option<Instant> {
        let fetch = self.fetch.as_ref().map(|fetch| fetch.ask_at);
        fetch.into_iter().chain(self.look_at).min()
    }
}

impl Receiver {
    /// Asks for what is missing, if it did not come by itself.
    pub(super) fn look(&mut self, now: Instant, out: &mut Effects<Self>) {
        self.fetch_on(now, out);
        if self.delivered >= self.largest {
            self.repair.look_at = None;
            self.repair.vain = 0;
            return;
        }
        let Some(at) = self.repair.look_at else {
            // It may be under way.
            self.repair.look_at = Some(now + ASK_AFTER);
            return;
        };
        if at > now {
            return;
        }
        self.fetch(now);
        let servers = self.group.counted().count();
        match &mut self.repair {
            // Receivers begin with different servers, which share the work so.
            Repair { turn: turn @ None, .. } => *turn = Some(self.rng.random_range(0..servers)),
            // No answer came in all that time.
            Repair { turn: Some(turn), asked: Some(_), .. } => *turn += 1,
            Repair { turn: Some(_), asked: None, .. } => {}
        }
        self.repair.asked = None;
        let wait = ASK_AGAIN_AFTER * (1 << self.repair.vain.min(BACK_OFF_MAX));
        self.repair.look_at = Some(now + wait + wait.mul_f64(self.rng.random::<f64>() / 2.0));
        self.repair.vain += 1;
        let upto = self.largest.0.min(self.delivered.0.saturating_add(ASKED_MAX));
        let window = (self.delivered.0 + 1..=upto).map(Seq);
        let mut unknown = Vec::new();
        let mut lacking: Vec<Mid> = Vec::new();
        for seq in window {
            match self.pairs.get(&seq) {
                None => unknown.push(seq),
                Some(pair) => lacking.extend(pair.mid.filter(|mid| !self.data.contains_key(mid))),
            }
        }
        match self.style {
            Style::TwoSteps if !unknown.is_empty() => {
                self.ask(CommitMessage::Query(unknown), Question::Order, out);
            }
            Style::OneStep if !unknown.is_empty() => {
                // Numbers that are void have no data: every second question is in two steps.
                let message: Message = if self.repair.vain.is_multiple_of(2) {
                    CommitMessage::Query(unknown).into()
                } else {
                    DataMessage::QueryNumbers(unknown).into()
                };
                self.ask(message, Question::Data, out);
            }
            Style::TwoSteps | Style::OneStep => {}
        }
        if !lacking.is_empty() {
            self.ask(DataMessage::Query(lacking), Question::Data, out);
        }
    }

    /// Asks one server: the same one as last time, unless that did not help.
    fn ask(&mut self, message: impl Into<Message>, what: Question, out: &mut Effects<Self>) {
        let server = self.server(self.repair.turn.unwrap_or_default());
        self.repair.asked = Some(server.clone());
        out.send(To::Node(server), message);
        out.here(Word::Asked(what));
    }

    /// The server whose turn it is.
    fn server(&self, turn: usize) -> NodeId {
        let servers: Vec<_> = self.group.counted().collect();
        servers[turn % servers.len()].clone()
    }

    /// Whether what is missing is only in a checkpoint, and fetches that then.
    fn fetch(&mut self, now: Instant) {
        let Some(advert) = self.checkpoint.clone() else { return };
        let missing = self.delivered.next();
        let gone = missing <= self.repair.dropped || missing <= advert.seq.back(self.group.keep);
        let vain = self.repair.vain >= VAIN_MAX;
        if advert.seq < missing || !gone && !vain {
            return;
        }
        // Servers keep the newest two: an older one may be gone while it is fetched.
        let stays = |fetch: &Fetch| fetch.advert == advert || now < fetch.stays_until;
        if self.repair.fetch.as_ref().is_some_and(stays) {
            return;
        }
        let turn = self.rng.random_range(0..self.group.counted().count());
        self.repair.fetch = Some(Fetch {
            advert,
            blocks: BTreeMap::new(),
            bytes: 0,
            asked: BTreeSet::new(),
            ask_at: now,
            stays_until: now + STAYS_FOR,
            turn,
        });
    }

    /// Asks several servers for different blocks.
    fn fetch_on(&mut self, now: Instant, out: &mut Effects<Self>) {
        let Some(fetch) = &mut self.repair.fetch else { return };
        if fetch.ask_at > now {
            return;
        }
        let servers: Vec<_> = self.group.counted().cloned().collect();
        fetch.ask_at = now + FETCH_AGAIN_AFTER;
        fetch.asked.clear();
        let at_once = fetch.asked_at_once();
        for _ in 0..FETCHED_FROM.min(servers.len()) {
            let is_missing =
                |block: &u32| !fetch.blocks.contains_key(block) && !fetch.asked.contains(block);
            let wanted: Vec<_> =
                (0..fetch.advert.blocks).filter(is_missing).take(at_once).collect();
            if wanted.is_empty() {
                break;
            }
            fetch.asked.extend(&wanted);
            fetch.turn = (fetch.turn + 1) % servers.len();
            let server = servers[fetch.turn].clone();
            let query = CheckpointMessage::Query { seq: fetch.advert.seq, blocks: wanted };
            out.send(To::Node(server), query);
            out.here(Word::Asked(Question::Blocks));
        }
    }

    /// Takes blocks; with the last one the order goes on after the checkpoint.
    pub(super) fn blocks(
        &mut self,
        now: Instant,
        seq: Seq,
        blocks: Vec<(u32, Bytes)>,
        out: &mut Effects<Self>,
    ) {
        let Some(fetch) = &mut self.repair.fetch else { return };
        if seq != fetch.advert.seq {
            return;
        }
        for (number, block) in blocks {
            fetch.asked.remove(&number);
            if number < fetch.advert.blocks && !fetch.blocks.contains_key(&number) {
                fetch.bytes += block.len() as u64;
                fetch.blocks.insert(number, block);
                fetch.stays_until = now + STAYS_FOR;
            }
        }
        if fetch.asked.is_empty() {
            fetch.ask_at = now;
        }
        let whole = fetch.blocks.len() == fetch.advert.blocks as usize;
        // More than it can be: somebody speaks of another one.
        let too_much = fetch.bytes > fetch.advert.bytes;
        if !whole && !too_much {
            return;
        }
        let Some(Fetch { advert: wanted, blocks, .. }) = self.repair.fetch.take() else { return };
        let checkpoint = Checkpoint { seq, blocks: blocks.into_values().collect() };
        if too_much || advert(&checkpoint) != wanted || seq <= self.delivered {
            return; // fetched anew, if it is still needed
        }
        self.skip_to(seq);
        self.repair.vain = 0;
        out.here(Message::Installed(Arc::new(checkpoint)));
    }
}

/// What is missing for so long is asked for: longer than messages usually overtake one another.
const ASK_AFTER: Duration = Duration::from_millis(20);

/// Without an answer for so long another server is asked; twice as long each time after.
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(50);

/// Doublings, at most.
const BACK_OFF_MAX: u32 = 5;

/// After so many vain questions the checkpoint is fetched, if there is one.
const VAIN_MAX: u32 = 6;

/// Blocks are fetched from so many servers at a time.
const FETCHED_FROM: usize = 2;

/// A checkpoint of which nothing came for so long is left for a newer one: servers keep the newest only.
/// A block that is on its way needs less, also to a machine that has much to do.
const STAYS_FOR: Duration = Duration::from_millis(300);

/// Blocks that did not come by then are asked for again.
const FETCH_AGAIN_AFTER: Duration = Duration::from_millis(500);
