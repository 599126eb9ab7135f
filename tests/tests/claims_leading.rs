//! The claims of the source about proposers: what they ask, what they may propose, and when they act
//! on a new quorum. Method: the real machines of two mains, and a post that carries every message at
//! once; time passes only where a test says so.

use std::{collections::VecDeque, time::Duration};

use rand::SeedableRng;
use synod::{
    consensus::{
        Timing, VoteStyle,
        acceptor::Acceptor,
        auxiliary::Auxiliary,
        ballot::{Ballot, Step},
        configuration::ALPHA,
        learner::Learner,
        message::{
            AcceptorMessage, AuxiliaryMessage, LearnerMessage, Message, Nack, NodeRole, Peer,
            ProposerMessage, Request, Resign,
        },
        proposer::Proposer,
        record::{Image, Record},
        value::Value,
    },
    effects::{Effects, Letter, To},
    machine::{Machine, Now},
};
use synod_runtime::world::Rng;
use synod_tests::hand::{
    self, A, B, Standing, X, ballot, command, commands, dawn, genesis, node, value,
};

/// The post between roles: from, to, what.
type Post = VecDeque<(u64, u64, Message)>;

/// Which messages between nodes are lost.
type Lost = fn(u64, u64, &Message) -> bool;

/// One process: the roles that take part in agreement, each as sender and receiver.
struct Process {
    proposer: Proposer,
    acceptor: Acceptor,
    learner: Learner,
}

/// Two mains and an auxiliary, the post between them, and everything it carried.
struct World {
    now: Now,
    mains: Vec<Process>,
    auxiliary: Auxiliary,
    post: Post,
    carried: Vec<(u64, u64, Message)>,
    /// Which messages are lost.
    lost: Lost,
}

impl World {
    fn new() -> Self {
        let process = |number| Process {
            proposer: Proposer::new(
                node(number),
                Timing::default(),
                VoteStyle::Split,
                Rng::seed_from_u64(number),
            ),
            acceptor: Acceptor::new(node(number)),
            learner: Learner::new(node(number)),
        };
        let mut world = Self {
            now: dawn(),
            mains: vec![process(A), process(B)],
            auxiliary: Auxiliary::new(node(X), Duration::from_millis(40)),
            post: VecDeque::new(),
            carried: Vec::new(),
            lost: |_, _, _| false,
        };
        for (number, process) in (A..).zip(&mut world.mains) {
            begin(&mut process.acceptor, number, &mut world.post);
            begin(&mut process.learner, number, &mut world.post);
            begin(&mut process.proposer, number, &mut world.post);
        }
        begin(&mut world.auxiliary, X, &mut world.post);
        for (at, peer) in [(A, B), (B, A), (A, X), (B, X)] {
            let role = if peer == X { NodeRole::Auxiliary } else { NodeRole::Main };
            let news = Peer { node: node(peer), role, up: true };
            world.tell(at, news);
        }
        world.settle();
        world
    }

    /// Carries the post until there is none.
    fn settle(&mut self) {
        while let Some((from, to, message)) = self.post.pop_front() {
            if from != to {
                assert!(self.carried.len() < 100_000, "they talk for ever: {message:?}");
                self.carried.push((from, to, message.clone()));
                if (self.lost)(from, to, &message) {
                    continue;
                }
            }
            let (now, post) = (self.now, &mut self.post);
            let main = place(to);
            match message {
                Message::Acceptor(m) => {
                    tell(&mut self.mains[main].acceptor, now, from, to, m, post);
                }
                Message::Learner(m) => tell(&mut self.mains[main].learner, now, from, to, m, post),
                Message::Proposer(m) => {
                    tell(&mut self.mains[main].proposer, now, from, to, m, post);
                }
                Message::Auxiliary(m) => tell(&mut self.auxiliary, now, from, to, m, post),
                _ => {} // there are no replicas and no clients
            }
        }
    }

    /// A word of the node to its own proposer.
    fn tell(&mut self, at: u64, message: impl Into<ProposerMessage>) {
        self.post.push_back((at, at, message.into().into()));
    }

    /// Lets time pass at one main, and at the auxiliary.
    fn pass(&mut self, at: u64, millis: u64) {
        for _ in 0..millis {
            let next = self.now.at + Duration::from_millis(1);
            self.now = Now { at: next, wall_ms: self.now.wall_ms + 1 };
            let main = place(at);
            ring(&mut self.mains[main].learner, self.now, at, &mut self.post);
            ring(&mut self.mains[main].proposer, self.now, at, &mut self.post);
            ring(&mut self.auxiliary, self.now, X, &mut self.post);
            self.settle();
        }
    }

    fn leads(&self, number: u64) -> Option<Ballot> {
        self.mains[place(number)].proposer.leads()
    }

    fn learner(&self, number: u64) -> &Learner {
        &self.mains[place(number)].learner
    }

    /// A client's command arrives at a leader.
    fn ask(&mut self, at: u64, seq: u64) {
        self.tell(at, Request { commands: vec![command(seq)] });
        self.settle();
    }

    /// What `from` proposed to other nodes: ballot, step and value.
    fn proposals(&self, from: u64) -> Vec<(Ballot, Step, Value)> {
        let mut found = Vec::new();
        for (_, _, message) in self.carried.iter().filter(|(sender, ..)| *sender == from) {
            if let Message::Acceptor(AcceptorMessage::Accept(said))
            | Message::Auxiliary(AuxiliaryMessage::Accept(said)) = message
            {
                let steps = (said.first.0..).map(Step).zip(&said.values);
                found.extend(steps.map(|(step, value)| (said.ballot, step, value.clone())));
            }
        }
        found
    }
}

fn place(main: u64) -> usize {
    usize::try_from(main - A).expect("a small number")
}

fn begin<M>(machine: &mut M, number: u64, post: &mut Post)
where
    M: Machine<Envelope = Message, Record = Record, Snapshot = Image>,
{
    send(hand::start(machine, vec![Record::Genesis(genesis())]), number, post);
}

fn tell<M: Machine<Envelope = Message>>(
    machine: &mut M,
    now: Now,
    from: u64,
    to: u64,
    message: M::Message,
    post: &mut Post,
) {
    send(hand::tell(machine, now, from, message), to, post);
}

fn ring<M: Machine<Envelope = Message>>(machine: &mut M, now: Now, number: u64, post: &mut Post) {
    send(hand::ring(machine, now), number, post);
}

/// The disk is perfect and instant here: what is held is said at once.
fn send<M: Machine<Envelope = Message>>(out: Effects<M>, from: u64, post: &mut Post) {
    for Letter { to, message } in out.now.into_iter().chain(out.held) {
        let to = match to {
            To::Here => from,
            To::Node(node) => node.incarnation.0,
        };
        post.push_back((from, to, message));
    }
}

#[test]
fn the_only_other_main_stands_as_soon_as_its_leader_was_silent_for_long_enough() {
    let mut world = World::new();
    world.pass(A, 600);
    assert!(world.leads(A).is_some(), "it was alone in standing");
    world.carried.clear();
    world.lost = |from, to, _| from == A || to == A;
    let stands = (1..=600).find(|_| {
        world.pass(B, 1);
        let asks =
            |message: &Message| matches!(message, Message::Auxiliary(AuxiliaryMessage::PreVote(_)));
        world.carried.iter().any(|(from, _, message)| *from == B && asks(message))
    });
    // Its last sign of life was one heartbeat old at most, and nobody else could stand with it.
    let Timing { election, heartbeat, .. } = Timing::default();
    let stands = Duration::from_millis(stands.expect("it stands"));
    assert!((election - heartbeat..=election).contains(&stands), "{stands:?}");
}

#[test]
fn r1_19_a_new_ballot_is_above_every_ballot_reported() {
    let mut standing = Standing::new();
    let first = standing.asks(7);
    assert!(first > ballot(7, u64::MAX), "told of round 7 by one that was asked: {first}");
    standing.tell(B, Nack { ballot: first, promised: ballot(20, B) });
    let second = standing.asks(0);
    assert!(second > ballot(20, u64::MAX), "refused for the sake of round 20: {second}");
}

#[test]
fn r1_20_the_value_of_the_highest_reported_ballot_is_proposed_and_no_other() {
    let (low, high) = (value(1), value(2));
    // Whoever reports first, and whoever reports it.
    for [first, second] in [[A, B], [B, A]] {
        for [one, two] in [[(3, &low), (5, &high)], [(5, &high), (3, &low)]] {
            let mut standing = Standing::new();
            let asked = standing.asks(9);
            standing.promises(first, asked, &[(ballot(one.0, B), one.1.clone())]);
            assert_eq!(standing.proposed(), [], "one promise is no quorum");
            standing.promises(second, asked, &[(ballot(two.0, B), two.1.clone())]);
            let proposed = standing.proposed();
            assert_eq!(proposed.first(), Some(&(Step(1), high.clone())));
        }
    }
    // A single report among nulls binds as well.
    let mut standing = Standing::new();
    let asked = standing.asks(9);
    standing.promises(A, asked, &[]);
    standing.promises(B, asked, &[(ballot(1, B), low.clone())]);
    assert_eq!(standing.proposed().first(), Some(&(Step(1), low)));
}

#[test]
fn r1_21_where_all_answers_are_null_a_client_s_value_is_proposed() {
    let mut standing = Standing::new();
    let asked = standing.asks(0);
    standing.promises(A, asked, &[]);
    standing.promises(B, asked, &[]);
    standing.tell(B, Request { commands: vec![command(1), command(2)] });
    let values = standing.proposed();
    let asked: Vec<u64> = values.iter().flat_map(|(_, value)| commands(value)).collect();
    assert_eq!(asked, [1, 2], "each once, in the order they came: {values:?}");
}

#[test]
fn r1_28_the_proposer_acts_on_the_new_quorum_only_when_it_was_told_of_its_selection() {
    let mut world = World::new();
    world.pass(A, 400);
    let led = world.leads(A).expect("it stood alone");
    // B falls silent, and what the auxiliary says of its votes does not arrive.
    world.lost = |from, to, message| {
        let told = matches!(message, Message::Learner(LearnerMessage::Accepted(_)));
        from == B || to == B || (from == X && told)
    };
    world.pass(A, 8_000);
    let proposed = |world: &World| {
        let proposals = world.proposals(A);
        let change = proposals.iter().find(|(_, _, value)| value.is_configuration());
        change.map(|(_, step, _)| *step)
    };
    let epoch = |world: &World| world.learner(A).history().newest().map(|c| c.epoch);
    assert_eq!(world.leads(A), Some(led), "nobody else could lead");
    let step = proposed(&world).expect("it asks to be the only main");
    assert_eq!(epoch(&world), Some(0), "asked for, and voted for by the auxiliary, is not told");
    let furthest = world.proposals(A).iter().map(|(_, step, _)| *step).max();
    assert!(furthest < Some(step.plus(ALPHA)), "nothing that the new quorum would decide");
    // It arrives, and the new quorum decides from ALPHA steps later on (R1.29).
    world.lost = |from, to, _| from == B || to == B;
    world.pass(A, 1_000);
    assert_eq!(epoch(&world), Some(1));
    world.ask(A, 1);
    world.pass(A, 100);
    assert!(world.learner(A).history().executed() >= step.plus(ALPHA), "it decides alone");
}

#[test]
fn r1_30_one_process_is_sender_and_receiver_and_either_may_be_either() {
    let mut world = World::new();
    for (leader, other) in [(A, B), (B, A)] {
        if world.leads(other).is_some() {
            world.tell(other, Resign {});
        }
        world.pass(leader, 1_000);
        assert!(world.leads(leader).is_some() && world.leads(other).is_none());
        world.carried.clear();
        world.ask(leader, leader);
        world.pass(leader, 20);
        // As a sender it proposed; as a receiver it voted for the same, in the same process.
        let sent = world.proposals(leader);
        assert!(sent.iter().any(|(_, _, value)| commands(value) == [leader]), "{sent:?}");
        let voted = |from: u64, to: u64| {
            world.carried.iter().any(|(sender, receiver, message)| {
                let vote = matches!(message, Message::Learner(LearnerMessage::Accepted(_)));
                *sender == from && *receiver == to && vote
            })
        };
        assert!(voted(other, leader), "the other receives, and says its vote");
        for number in [leader, other] {
            let learner = world.learner(number);
            let known = (1..=learner.history().executed().0)
                .filter_map(|step| learner.chosen(Step(step)).map(commands));
            let known: Vec<u64> = known.flatten().collect();
            assert_eq!(known.last(), Some(&leader), "both learned what {leader} proposed");
        }
    }
}
