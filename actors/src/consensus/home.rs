//! The home of sessions: the part of a node that stands for its clients.
//!
//! Clients' commands get a session and a number here, go to the leader in order, and are sent again
//! until a replica says how they ended; the numbers make that harmless (exactly once, section 1.13
//! of the manual). A command keeps no number before it is sent: what could not be sent in time was
//! *not applied*, what was sent and not heard of has an *unknown* outcome, and is still carried
//! through so that the numbers behind it stay in order.

mod commands;
mod expire;
mod forward;
mod reads;
mod sent;
mod wishes;

use std::collections::{BTreeMap, VecDeque};

use rand::RngExt;
use synod_runtime::{
    identity::NodeId,
    world::{Instant, Rng},
};

pub use self::commands::Commands;
use self::{
    sent::{Sent, Window},
    wishes::OpenWish,
};
use super::{
    ballot::{Ballot, Step},
    message::{
        ClientAnswer, CommandReply, End, Gap, HomeMessage, Leader, Message, NewCommand, NewRead,
        ProposerMessage, Registered, Replies, Report, Request, TellAgain,
    },
    record::{Image, Record},
    replica::REGISTER,
    timing::Timing,
    value::{COMMAND_BYTES_MAX, Command, EncodedCommand},
};
use crate::{
    effects::{Effects, To},
    machine::{Machine, Now, Survived},
};

/// Commands sent and not answered. Within what a session remembers of its replies.
const SENT_MAX: usize = 4_096;

/// Bytes of them.
const SENT_BYTES_MAX: usize = 16 * 1024 * 1024;

/// A message of commands is closed at this size; with a last one of the largest it fits a frame.
const REQUEST_BYTES: usize = 1024 * 1024;

/// Commands waiting to be sent, and their bytes; more are refused at once, *not applied*.
const WAITING_MAX: usize = 65_536;
const WAITING_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Reads waiting.
const READS_MAX: usize = 65_536;

#[derive(Debug)]
struct Waiting {
    command: NewCommand,
    until: Instant,
}

#[derive(Debug)]
struct Round {
    number: u64,
    reads: Vec<(NewRead, Instant)>,
    /// None: to be asked as soon as a leader is known.
    asked: Option<Instant>,
    /// When it was asked first.
    began: Instant,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Home {
    me: NodeId,
    /// What was executed here is near enough to the end of the log to answer reads; else others do.
    near: bool,
    /// The cluster version, as far as it is known here.
    version: u32,
    commands: Commands,
    timing: Timing,
    leader: Leader,
    session: Option<u64>,
    nonce: u64,
    registered: Option<Instant>,
    next_seq: u64,
    waiting: VecDeque<Waiting>,
    waiting_bytes: usize,
    sent: Window,
    sent_bytes: usize,
    /// When a reply last came, or something was sent to an idle leader.
    alive: Instant,
    reads: VecDeque<(NewRead, Instant)>,
    round: Option<Round>,
    rounds: u64,
    /// Everything that was answered anywhere before that time lies within that step.
    fresh: Option<(Instant, Step)>,
    /// Reads of other homes, by the ticket they have here: whose, under which ticket, until when.
    forwarded: BTreeMap<u64, (NodeId, u64, Instant)>,
    /// Reads that the replica is to answer, by ticket: it may die and forget them.
    handed: BTreeMap<u64, Instant>,
    next_expiry: Instant,
    /// Wishes of operators, by nonce.
    wishes: BTreeMap<u64, OpenWish>,
}

impl Home {
    /// The home on node `me`.
    pub fn new(me: NodeId, timing: Timing, mut rng: Rng) -> Self {
        let nonce = rng.random();
        #[cfg(any(test, feature = "mutations"))]
        let nonce =
            if crate::mutation::on(crate::mutation::Mutation::NonceRepeated) { 1 } else { nonce };
        Self {
            me,
            near: false,
            version: 0,
            commands: Commands::default(),
            timing,
            leader: Leader { node: None, ballot: Ballot::default(), serving: false, halted: None },
            session: None,
            nonce,
            registered: None,
            next_seq: 1,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            sent: Window::default(),
            sent_bytes: 0,
            alive: Instant::default(),
            reads: VecDeque::new(),
            round: None,
            // Somewhere else in every life: a late answer to an earlier home of this node must not
            // pass for one to this.
            rounds: u64::from(rng.random::<u32>()) << 32,
            fresh: None,
            forwarded: BTreeMap::new(),
            handed: BTreeMap::new(),
            next_expiry: Instant::default(),
            wishes: BTreeMap::new(),
        }
    }

    /// That of a node whose build has these commands; others are *not applied*.
    #[must_use]
    pub fn taking(mut self, commands: Commands) -> Self {
        self.commands = commands;
        self
    }

    fn submit(&mut self, now: Now, commands: Vec<NewCommand>, out: &mut Effects<Self>) {
        for command in commands {
            let size = command.args.len();
            let refusal = if size + 64 > COMMAND_BYTES_MAX {
                Some(format!("the command is larger than {COMMAND_BYTES_MAX} bytes"))
            } else if self.waiting.len() >= WAITING_MAX
                || self.waiting_bytes + size > WAITING_BYTES_MAX
            {
                Some("overloaded: too many commands wait".to_owned())
            } else {
                self.commands.refusal(&command, self.version)
            };
            if let Some(why) = refusal {
                answer(command.ticket, End::NotApplied(why), out);
                continue;
            }
            self.waiting_bytes += size;
            let until = now.at + command.patience;
            self.next_expiry = self.next_expiry.min(until);
            self.waiting.push_back(Waiting { command, until });
        }
    }

    /// Who leads, with a quorum.
    fn serving(&self) -> Option<&NodeId> {
        self.leader.node.as_ref().filter(|_| self.leader.serving)
    }

    fn to_leader(&self, leader: &NodeId) -> To {
        if *leader == self.me { To::Here } else { To::Node(leader.clone()) }
    }

    /// Sends what may be sent.
    fn pump(&mut self, now: Now, out: &mut Effects<Self>) {
        let Some(leader) = self.serving().cloned() else { return };
        let Some(session) = self.session else { return self.register(now, &leader, out) };
        let (mut commands, mut bytes) = (Vec::new(), 0);
        while self.sent.reach() < SENT_MAX && self.sent_bytes < SENT_BYTES_MAX {
            let Some(Waiting { command, until }) = self.waiting.pop_front() else { break };
            self.waiting_bytes -= command.args.len();
            let encoded = EncodedCommand::new(&Command {
                session,
                seq: self.next_seq,
                actor: command.actor,
                function: command.function,
                keyed: command.keyed,
                args: command.args,
            });
            if self.sent.is_empty() {
                self.alive = now.at;
            }
            self.sent_bytes += encoded.len();
            bytes += encoded.len();
            commands.push(encoded.clone());
            let ticket = Some((command.ticket, until));
            self.sent.push(self.next_seq, Sent { encoded, ticket });
            self.next_seq += 1;
            if bytes >= REQUEST_BYTES {
                bytes = 0;
                let commands = std::mem::take(&mut commands);
                out.send(self.to_leader(&leader), ProposerMessage::Request(Request { commands }));
            }
        }
        if !commands.is_empty() {
            out.send(self.to_leader(&leader), ProposerMessage::Request(Request { commands }));
        }
    }

    fn register(&mut self, now: Now, leader: &NodeId, out: &mut Effects<Self>) {
        let patience = 3 * self.timing.resend;
        if self.registered.is_some_and(|at| now.at < at + patience) {
            return;
        }
        self.registered = Some(now.at);
        let args = rmp_serde::to_vec(&self.me).expect("plain data encodes").into();
        let command = Command {
            session: 0,
            seq: self.nonce,
            actor: 0,
            function: REGISTER,
            keyed: false,
            args,
        };
        let commands = vec![EncodedCommand::new(&command)];
        out.send(self.to_leader(leader), ProposerMessage::Request(Request { commands }));
    }

    /// Sends everything unanswered again, in order, as far as one message should reach.
    fn send_again(&mut self, now: Now, from: u64, out: &mut Effects<Self>) {
        let Some(leader) = self.serving().cloned() else { return };
        self.alive = now.at;
        let mut bytes = 0;
        let commands: Vec<EncodedCommand> = self
            .sent
            .from(from)
            .map(|sent| sent.encoded.clone())
            .take_while(|encoded| {
                bytes += encoded.len();
                bytes <= 2 * COMMAND_BYTES_MAX
            })
            .collect();
        if !commands.is_empty() {
            out.send(self.to_leader(&leader), ProposerMessage::Request(Request { commands }));
        }
    }

    fn leader(&mut self, now: Now, from: &NodeId, news: Leader, out: &mut Effects<Self>) {
        // News of an older reign come late; the local proposer's word is always newest. Who merely
        // stood in a higher ballot proves nothing: it may be gone for ever.
        let late = self.leader.node.is_some() && news.ballot < self.leader.ballot;
        if *from != self.me && late {
            return;
        }
        let changed = news.serving
            && news.node.is_some()
            && (news.node != self.leader.node
                || news.ballot != self.leader.ballot
                || !self.leader.serving);
        if self.leader != news {
            out.here(Message::Report(Report::Home(news.clone())));
        }
        self.leader = news;
        if changed {
            self.registered = None;
            self.wish_again();
            self.send_again(now, 0, out);
            if let Some(round) = &mut self.round {
                round.asked = None;
            }
        }
    }

    fn replies(&mut self, now: Now, replies: Replies, out: &mut Effects<Self>) {
        if self.session != Some(replies.session) {
            return;
        }
        for CommandReply { seq, position, result } in replies.replies {
            let Some(sent) = self.sent.take(seq) else { continue };
            self.alive = now.at;
            self.sent_bytes -= sent.encoded.len();
            if let Some((ticket, _)) = sent.ticket {
                let end = match result {
                    Ok(reply) => End::Done(position, reply),
                    Err(why) => End::Failed(position, why),
                };
                answer(ticket, end, out);
            }
        }
    }

    fn gap(&mut self, now: Now, gap: &Gap, out: &mut Effects<Self>) {
        if self.session != Some(gap.session) {
            return;
        }
        if gap.expired {
            self.session = None;
            self.nonce = self.nonce.wrapping_add(1);
            self.next_seq = 1;
            self.sent_bytes = 0;
            for sent in self.sent.take_all() {
                if let Some((ticket, _)) = sent.ticket {
                    let why = "the session expired before the command was answered".to_owned();
                    answer(ticket, End::Unknown(why), out);
                }
            }
        } else if now.at >= self.alive + self.timing.heartbeat {
            self.send_again(now, gap.expected, out);
        }
    }

    fn registered(&mut self, registered: &Registered) {
        if registered.nonce == self.nonce && self.session.is_none() {
            self.session = Some(registered.session);
        }
    }
}

impl Machine for Home {
    type Message = HomeMessage;
    type Envelope = Message;
    type Record = Record;
    type Snapshot = Image;

    fn start(&mut self, now: Now, _survived: &Survived<Record, Image>, out: &mut Effects<Self>) {
        out.here(ProposerMessage::TellAgain(TellAgain));
        self.alive = now.at;
        self.next_expiry = Instant::from_nanos(u64::MAX);
    }

    fn message(&mut self, now: Now, from: &NodeId, message: HomeMessage, out: &mut Effects<Self>) {
        match message {
            HomeMessage::Leader(news) => self.leader(now, from, news, out),
            HomeMessage::Registered(registered) => self.registered(&registered),
            HomeMessage::Replies(replies) => self.replies(now, replies, out),
            HomeMessage::Gap(gap) => self.gap(now, &gap, out),
            HomeMessage::ReadAt(read_at) => self.read_at(&read_at, out),
            HomeMessage::Confirmed(confirmed) => self.confirmed(&confirmed, out),
            HomeMessage::Answers(answers) => self.answers(answers, out),
            HomeMessage::Forward(asked) => self.forwarded_here(now, from, asked),
            HomeMessage::Forwarded(answers) => self.forwarded_back(answers, out),
            HomeMessage::Submit(submit) => self.submit(now, submit.commands, out),
            HomeMessage::Read(read) => self.read(now, read.reads, out),
            HomeMessage::Dismissed(_) => out.here(Message::Report(Report::Dismissed)),
            HomeMessage::NewWish(wish) => self.wish(now, wish, out),
            HomeMessage::Granted(granted) => self.granted(granted, out),
            HomeMessage::Nearness(news) => (self.near, self.version) = (news.near, news.version),
        }
    }

    fn flush(&mut self, now: Now, out: &mut Effects<Self>) {
        self.pump(now, out);
        if !self.sent.is_empty() && now.at >= self.alive + 3 * self.timing.resend {
            self.send_again(now, 0, out);
        }
        self.read_rounds(now, out);
        self.pass_wishes(now, out);
        self.expire(now, out);
    }

    fn timeout(&mut self, _now: Now, _out: &mut Effects<Self>) {
        // Everything due is looked at in `flush`, which follows.
    }

    fn deadline(&self) -> Option<Instant> {
        // Without a leader to ask there is nothing to do but to expire; its coming is a message.
        let serving = self.serving().is_some();
        let again = 3 * self.timing.resend;
        let sent = (serving && !self.sent.is_empty()).then(|| self.alive + again);
        let register = (serving && self.session.is_none())
            .then(|| self.registered.unwrap_or_default() + again);
        let asked = self.round.as_ref().and_then(|round| round.asked);
        let round =
            asked.filter(|_| self.leader.node.is_some()).map(|at| at + 2 * self.timing.resend);
        let expiry = (!self.waiting.is_empty()
            || !self.sent.is_empty()
            || !self.reads.is_empty()
            || !self.handed.is_empty()
            || self.round.is_some())
        .then_some(self.next_expiry);
        [sent, register, round, expiry, self.wishes_due()].into_iter().flatten().min()
    }
}

fn answer(ticket: u64, end: End, out: &mut Effects<Home>) {
    if ticket & forward::FORWARDED != 0 {
        return; // of another home, which asks again
    }
    out.here(Message::Client(ClientAnswer { ticket, end }));
}
