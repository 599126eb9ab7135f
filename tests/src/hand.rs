//! Single machines, by hand: one message in, its effects out, and no disk, network or chance between.
//! For what must hold of one role whatever the others do.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use rand::SeedableRng;
use synod::{
    consensus::{
        Timing, VoteStyle,
        ballot::{Ballot, Step},
        configuration::{Configuration, History},
        message::{
            AcceptorMessage, Message, NodeRole, Peer, PreVoteAnswer, Progress, Promise,
            ProposerMessage, Vote,
        },
        proposer::Proposer,
        record::{Image, Record},
        value::{Command, Decoded, EncodedCommand, Value},
    },
    effects::Effects,
    machine::{Machine, Now, Survived},
};
use synod_runtime::{
    identity::{Incarnation, NodeId},
    world::{Instant, Rng},
};

/// The first main.
pub const A: u64 = 1;
/// The second main.
pub const B: u64 = 2;
/// The auxiliary.
pub const X: u64 = 3;

/// The node of that number.
///
/// # Panics
/// Never: a letter and a number make a name.
pub fn node(number: u64) -> NodeId {
    NodeId::new(format!("n{number}").parse().expect("a name"), Incarnation(number))
}

/// The ballot of that round and node.
pub fn ballot(round: u64, author: u64) -> Ballot {
    Ballot { round, node: Incarnation(author) }
}

/// A and B with X.
pub fn genesis() -> Configuration {
    Configuration {
        epoch: 0,
        mains: vec![node(A), node(B)],
        auxiliaries: vec![node(X)],
        absent: vec![],
        ..Configuration::default()
    }
}

/// A command that tells its number.
pub fn command(seq: u64) -> EncodedCommand {
    let args = Bytes::from_static(b"args");
    EncodedCommand::new(&Command { session: 9, seq, actor: 4, function: 5, keyed: false, args })
}

/// A value with that command.
pub fn value(seq: u64) -> Value {
    Value::batch(seq, seq, &[command(seq)])
}

/// The numbers of the commands in a value.
///
/// # Panics
/// When no proposer made the value.
pub fn commands(value: &Value) -> Vec<u64> {
    match value.decode().expect("a proposer made it") {
        Decoded::Batch(batch) => batch.commands.iter().map(|command| command.seq).collect(),
        Decoded::Noop | Decoded::Configuration(_) => vec![],
    }
}

/// A moment at which everybody has been up for a second.
pub fn dawn() -> Now {
    Now { at: Instant::from_nanos(1_000_000_000), wall_ms: 1 }
}

/// Starts a machine from those records.
pub fn start<M>(machine: &mut M, records: Vec<Record>) -> Effects<M>
where
    M: Machine<Record = Record, Snapshot = Image>,
{
    let mut out = Effects::default();
    machine.start(dawn(), &Survived { records, snapshot: None }, &mut out);
    machine.flush(dawn(), &mut out);
    out
}

/// One message and the end of its turn.
pub fn tell<M: Machine>(
    machine: &mut M,
    now: Now,
    from: u64,
    message: impl Into<M::Message>,
) -> Effects<M> {
    let mut out = Effects::default();
    machine.message(now, &node(from), message.into(), &mut out);
    machine.flush(now, &mut out);
    out
}

/// Lets a machine's alarm ring, if it is due.
pub fn ring<M: Machine>(machine: &mut M, now: Now) -> Effects<M> {
    let mut out = Effects::default();
    if machine.deadline().is_some_and(|at| at <= now.at) {
        machine.timeout(now, &mut out);
        machine.flush(now, &mut out);
    }
    out
}

/// The proposer of a main, for whom a test plays everybody else.
#[derive(Debug)]
pub struct Standing {
    me: u64,
    other: u64,
    proposer: Proposer,
    /// The time, which passes only in [`Standing::asks`].
    pub now: Now,
    /// What it said at once, since the last ballot was asked for.
    pub said: Vec<Message>,
}

impl Standing {
    /// That of A: it knows who votes, and that B is connected.
    #[expect(clippy::new_without_default, reason = "it is a scene, not a value")]
    pub fn new() -> Self {
        Self::of(A)
    }

    /// That of one of the two mains; it is connected to the other.
    pub fn of(me: u64) -> Self {
        Self::made(me, 0)
    }

    /// That of A, which can execute cluster versions up to `knows`.
    pub fn knowing(knows: u32) -> Self {
        Self::made(A, knows)
    }

    fn made(me: u64, knows: u32) -> Self {
        let other = if me == A { B } else { A };
        let rng = Rng::seed_from_u64(1);
        let (timing, style) = (Timing::default(), VoteStyle::Split);
        let mut proposer = Proposer::new(node(me), timing, style, rng).knowing(knows);
        start(&mut proposer, vec![]);
        let mut standing = Self { me, other, proposer, now: dawn(), said: Vec::new() };
        standing.progress(&History::new(genesis()));
        standing.tell(other, Peer { node: node(other), role: NodeRole::Main, up: true });
        standing
    }

    /// A message and the end of its turn.
    pub fn tell(&mut self, from: u64, message: impl Into<ProposerMessage>) {
        let out = tell(&mut self.proposer, self.now, from, message.into());
        self.said.extend(out.now.into_iter().map(|letter| letter.message));
    }

    /// Its learner learned so much.
    pub fn progress(&mut self, history: &History) {
        let history = history.clone();
        self.tell(self.me, Progress { history, chosen: None, durable_upto: Step(0) });
    }

    /// Waits until it asks for promises; the other main agrees, and knows ballots up to `seen`.
    ///
    /// # Panics
    /// When it does not ask within ten seconds.
    pub fn asks(&mut self, seen: u64) -> Ballot {
        self.said.clear();
        for _ in 0..10_000 {
            self.now.at = self.now.at + Duration::from_millis(1);
            let out = ring(&mut self.proposer, self.now);
            self.said.extend(out.now.into_iter().map(|letter| letter.message));
            let asked = self.said.iter().find_map(|message| match message {
                Message::Proposer(ProposerMessage::PreVote(asked)) => Some(asked.round),
                _ => None,
            });
            if let Some(round) = asked {
                self.said.clear();
                self.tell(
                    self.other,
                    PreVoteAnswer { round, go: true, seen, epoch: 0, mains: vec![] },
                );
            }
            let prepared = self.said.iter().find_map(|message| match message {
                Message::Acceptor(AcceptorMessage::Prepare(asked)) => Some(asked.ballot),
                _ => None,
            });
            if let Some(ballot) = prepared {
                return ballot;
            }
        }
        panic!("it never asks for promises");
    }

    /// The promise of `from` in that ballot, with those votes of step 1.
    pub fn promises(&mut self, from: u64, ballot: Ballot, votes: &[(Ballot, Value)]) {
        let votes = votes.iter().map(|(ballot, value)| {
            let (ballot, value) = (*ballot, value.clone());
            Vote { step: Step(1), ballot, value }
        });
        self.promises_of(from, ballot, votes.collect());
    }

    /// The promise of `from` in that ballot, with votes of any steps.
    pub fn promises_of(&mut self, from: u64, ballot: Ballot, votes: Vec<Vote>) {
        self.tell(from, Promise { ballot, from: Step(1), votes, chosen_upto: Step(0) });
    }

    /// What it proposed, by step.
    pub fn proposed(&self) -> Vec<(Step, Value)> {
        let mut proposed = BTreeMap::new();
        for message in &self.said {
            if let Message::Acceptor(AcceptorMessage::Accept(said)) = message {
                proposed.extend((said.first.0..).map(Step).zip(said.values.iter().cloned()));
            }
        }
        proposed.into_iter().collect()
    }
}
