//! How a receiver gets what it missed: from commit servers which message, from data servers the
//! message, from checkpoint servers the state.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use rand::RngExt as _;
use synod_runtime::{identity::NodeId, world::Instant};

use super::{ASKED_MAX, Receiver, Style, fetch::Fetch};
use crate::{
    effects::{Effects, To},
    multicast::{
        checkpoint_server::advert,
        message::{
            Checkpoint, CheckpointMessage, CommitMessage, DataMessage, Message, Mid, Question, Seq,
            Word,
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
        let fetch = self.fetch.as_ref().map(Fetch::due);
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
        // What a checkpoint brings that is on its way nobody else may have any more.
        let fetch = self.repair.fetch.as_ref().filter(|fetch| fetch.comes(now));
        let after = fetch.map_or(self.delivered, |fetch| fetch.advert.seq.max(self.delivered));
        let upto = self.largest.0.min(after.0.saturating_add(ASKED_MAX));
        let window = (after.0 + 1..=upto).map(Seq);
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
        if self.repair.fetch.as_ref().is_some_and(|fetch| fetch.stays(&advert, now)) {
            return;
        }
        let turn = self.rng.random_range(0..self.group.counted().count());
        self.repair.fetch = Some(Fetch::new(advert, now, turn));
    }

    /// Asks for what is missing of a checkpoint.
    fn fetch_on(&mut self, now: Instant, out: &mut Effects<Self>) {
        let Some(fetch) = &mut self.repair.fetch else { return };
        let servers: Vec<_> = self.group.counted().cloned().collect();
        for (server, blocks) in fetch.ask(now, &servers) {
            let query = CheckpointMessage::Query { seq: fetch.advert.seq, blocks };
            out.send(To::Node(server), query);
            out.here(Word::Asked(Question::Blocks));
        }
    }

    /// Takes blocks; with the last one the order goes on after the checkpoint.
    pub(super) fn blocks(
        &mut self,
        now: Instant,
        from: &NodeId,
        seq: Seq,
        blocks: Vec<(u32, Bytes)>,
        out: &mut Effects<Self>,
    ) {
        let Some(fetch) = self.repair.fetch.as_mut().filter(|fetch| fetch.advert.seq == seq) else {
            return;
        };
        fetch.answered(now, from, blocks);
        let Some(fetch) = self.repair.fetch.take_if(|fetch| fetch.is_over()) else { return };
        let wanted = fetch.advert.clone();
        let (seq, blocks) = fetch.into_parts();
        let checkpoint = Checkpoint { seq, blocks };
        if advert(&checkpoint) != wanted || seq <= self.delivered {
            return; // fetched anew, if it is still needed
        }
        self.skip_to(seq);
        // What follows is asked for at once.
        (self.repair.vain, self.repair.look_at) = (0, Some(now));
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
