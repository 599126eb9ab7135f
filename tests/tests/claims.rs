//! The claims of the source, one machine at a time: what each message means to its receiver.
//! Method: hand one message to a fresh machine and read its effects.

use synod::{
    consensus::{
        acceptor::Acceptor,
        auxiliary::Auxiliary,
        ballot::{Ballot, Run, Step},
        configuration::Configuration,
        learner::Learner,
        message::{
            Accept, Accepted, AcceptorMessage, AuxiliaryMessage, LearnerMessage, Mark, Message,
            Prepare, Promise, ProposerMessage, ReplicaMessage, Voted,
        },
        record::{Image, Record},
        value::Value,
    },
    effects::Effects,
    machine::{Machine, Now, Survived},
};
use synod_runtime::identity::{Incarnation, NodeId};

const A: u64 = 1;
const B: u64 = 2;
const X: u64 = 3;

fn node(number: u64) -> NodeId {
    NodeId::new(format!("n{number}").parse().expect("a name"), Incarnation(number))
}

fn ballot(round: u64, author: u64) -> Ballot {
    Ballot { round, node: Incarnation(author) }
}

fn genesis() -> Record {
    Record::Genesis(Configuration {
        epoch: 0,
        mains: vec![node(A), node(B)],
        auxiliaries: vec![node(X)],
        absent: vec![],
        ..Configuration::default()
    })
}

fn started<M>(mut machine: M) -> M
where
    M: Machine<Record = Record, Snapshot = Image>,
{
    let survived = Survived { records: vec![genesis()], snapshot: None };
    machine.start(Now::default(), &survived, &mut Effects::default());
    machine
}

/// One message and the end of its turn.
fn tell<M: Machine>(machine: &mut M, from: u64, message: impl Into<M::Message>) -> Effects<M> {
    let mut out = Effects::default();
    machine.message(Now::default(), &node(from), message.into(), &mut out);
    machine.flush(Now::default(), &mut out);
    out
}

fn accept(ballot: Ballot, step: u64, value: &Value) -> Accept {
    Accept { ballot, first: Step(step), values: vec![value.clone()], voted: None, chosen: None }
}

fn value(byte: u64) -> Value {
    Value::batch(byte, byte, &[])
}

fn promise<M: Machine<Envelope = Message>>(out: &Effects<M>) -> Option<&Promise> {
    out.held.iter().find_map(|letter| match &letter.message {
        Message::Proposer(ProposerMessage::Promise(promise)) => Some(promise),
        _ => None,
    })
}

fn nacks<M: Machine<Envelope = Message>>(out: &Effects<M>) -> usize {
    let nack = |message: &Message| matches!(message, Message::Proposer(ProposerMessage::Nack(_)));
    out.now.iter().filter(|letter| nack(&letter.message)).count()
}

fn executes(out: &Effects<Learner>) -> Vec<(Step, Vec<Value>)> {
    let handed = out.now.iter().filter_map(|letter| match &letter.message {
        Message::Replica(ReplicaMessage::Execute(said)) => Some((said.first, said.values.clone())),
        _ => None,
    });
    handed.collect()
}

#[test]
fn r1_14_r1_15_r1_16_a_suggested_ballot_is_answered_by_null_or_by_the_last_vote() {
    let mut acceptor = started(Acceptor::new(node(B)));
    let asked = |round| AcceptorMessage::from(Prepare { ballot: ballot(round, A), from: Step(1) });
    let out = tell(&mut acceptor, A, asked(1));
    assert!(promise(&out).unwrap().votes.is_empty(), "null: it never voted");
    tell(&mut acceptor, A, accept(ballot(1, A), 1, &value(7)));
    tell(&mut acceptor, A, accept(ballot(2, A), 1, &value(8)));
    let out = tell(&mut acceptor, A, asked(3));
    let votes = &promise(&out).unwrap().votes;
    assert_eq!(votes.len(), 1);
    assert_eq!(
        (votes[0].step, votes[0].ballot, &votes[0].value),
        (Step(1), ballot(2, A), &value(8))
    );
}

#[test]
fn r1_4_r1_5_r1_17_it_votes_at_or_above_what_it_answered_and_never_below() {
    let mut acceptor = started(Acceptor::new(node(B)));
    tell(&mut acceptor, A, Prepare { ballot: ballot(5, A), from: Step(1) });
    let below = tell(&mut acceptor, A, accept(ballot(4, A), 1, &value(1)));
    assert!(below.records.is_empty() && below.held.is_empty(), "neither a vote nor a word of one");
    assert_eq!(nacks(&below), 1);
    let at = tell(&mut acceptor, A, accept(ballot(5, A), 1, &value(1)));
    assert_eq!(at.records.len(), 1, "equal is enough");
    let lower = tell(&mut acceptor, A, Prepare { ballot: ballot(4, A), from: Step(1) });
    assert!(promise(&lower).is_none());
}

#[test]
fn r1_18_a_promise_and_a_vote_are_held_until_their_record_is_durable() {
    let mut acceptor = started(Acceptor::new(node(B)));
    let promised = tell(&mut acceptor, A, Prepare { ballot: ballot(1, A), from: Step(1) });
    assert!(matches!(promised.records[..], [Record::Promise(_)]) && promised.now.is_empty());
    let voted = tell(&mut acceptor, A, accept(ballot(1, A), 1, &value(1)));
    assert!(matches!(voted.records[..], [Record::Vote(_)]) && voted.now.is_empty());
    assert!(
        voted
            .held
            .iter()
            .any(|letter| matches!(letter.message, Message::Learner(LearnerMessage::Accepted(_))))
    );
}

#[test]
fn r1_1_r1_2_r1_3_r1_9_value_and_vote_of_the_proposer_and_the_own_vote_are_all_it_takes() {
    let mut learner = started(Learner::new(node(B)));
    let own = Voted { ballot: ballot(1, A), first: Step(1), values: vec![value(9)] };
    assert!(executes(&tell(&mut learner, B, own)).is_empty(), "its own vote alone is no quorum");
    let mark = Mark { ballot: ballot(1, A), voted: Run::new(Step(1), Step(1)), chosen: None };
    let out = tell(&mut learner, A, mark);
    assert_eq!(executes(&out), [(Step(1), vec![value(9)])]);
    assert!(out.held.is_empty(), "without waiting for another message");
}

#[test]
fn r1_12_r1_13_steps_are_handed_over_in_order_and_once() {
    let mut learner = started(Learner::new(node(B)));
    let both = |learner: &mut Learner, step: u64| {
        let own = Voted { ballot: ballot(1, A), first: Step(step), values: vec![value(step)] };
        let mut said = executes(&tell(learner, B, own));
        let run = Run::new(Step(step), Step(step)).unwrap();
        said.extend(executes(&tell(learner, A, Accepted { ballot: ballot(1, A), run })));
        said
    };
    assert!(both(&mut learner, 2).is_empty(), "step 1 is missing");
    assert_eq!(both(&mut learner, 1), [(Step(1), vec![value(1), value(2)])]);
    assert!(both(&mut learner, 1).is_empty(), "a repetition is no news (R1.41)");
}

#[test]
fn r1_23_r1_25_r1_26_r1_27_the_inexpensive_device_votes_on_a_quorum_by_the_same_rule() {
    let mut auxiliary = started(Auxiliary::new(node(X), std::time::Duration::from_millis(40)));
    let Record::Genesis(genesis) = genesis() else { unreachable!("it is one") };
    let change = Value::configuration(&genesis.without_main(Incarnation(B)));
    let asked = |round| AuxiliaryMessage::from(accept(ballot(round, A), 1, &change));
    let out = tell(&mut auxiliary, A, asked(3));
    assert!(
        out.held
            .iter()
            .any(|letter| matches!(letter.message, Message::Learner(LearnerMessage::Accepted(_))))
    );
    assert_eq!(nacks(&tell(&mut auxiliary, A, asked(2))), 1, "below what it voted in");
}
