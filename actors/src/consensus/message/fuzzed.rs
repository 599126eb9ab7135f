//! Bodies of the protocol's messages out of damaged bytes.

use bytes::Bytes;
use synod_runtime::{
    identity::{Incarnation, NodeId},
    sim::fuzz,
};

use super::*;
use crate::consensus::{
    ballot::{Ballot, Step},
    value::{Command, EncodedCommand, Value},
};

fn value() -> Value {
    let args = Bytes::from_static(b"arguments");
    let command = Command { session: 5, seq: 1, actor: 1, function: 2, keyed: false, args };
    Value::batch(10, 20, &[EncodedCommand::new(&command)])
}

fn corpus() -> Vec<Vec<u8>> {
    let ballot = Ballot { round: 3, node: Incarnation(1) };
    let step = Step(7);
    let vote = Vote { step, ballot, value: value() };
    let peer = NodeId::new("a".parse().unwrap(), Incarnation(1));
    let read = ForwardedRead { ticket: 1, actor: 2, function: 3, args: Bytes::from_static(b"x") };
    let heartbeat = Heartbeat {
        ballot,
        leading: true,
        serving: true,
        chosen_upto: step,
        durable_upto: step,
        epoch: 1,
        program: Program::THIS,
        knows: 2,
        full: false,
    };
    let values = vec![(ballot, value())];
    let entries = Entries { first: step, values, chosen_upto: step, snapshot: false };
    let accept = Accept { ballot, first: step, values: vec![value()], voted: None, chosen: None };
    let promise = Promise { ballot, from: step, votes: vec![vote], chosen_upto: step };
    let messages: [Message; 8] = [
        AcceptorMessage::from(Prepare { ballot, from: step }).into(),
        AuxiliaryMessage::from(accept).into(),
        ProposerMessage::from(promise).into(),
        ProposerMessage::from(heartbeat).into(),
        LearnerMessage::from(CatchUp { from: step, fresh: true }).into(),
        LearnerMessage::from(entries).into(),
        ReplicaMessage::from(Compare { step, chain: 1, state: Some(2), sure: true }).into(),
        HomeMessage::from(Forward { reads: vec![read] }).into(),
    ];
    let encode = |message: &Message| rmp_serde::to_vec(message).unwrap();
    let mut corpus: Vec<_> = messages.iter().map(encode).collect();
    corpus.push(rmp_serde::to_vec(&peer).unwrap());
    corpus
}

#[test]
fn damaged_messages_are_refused_or_read_back_as_written() {
    let corpus = corpus();
    let inputs: Vec<&[u8]> = corpus.iter().map(Vec::as_slice).collect();
    for input in &inputs[..inputs.len() - 1] {
        rmp_serde::from_slice::<Message>(input).unwrap();
    }
    fuzz(8, 40_000, &inputs, |data| {
        let Ok(message) = rmp_serde::from_slice::<Message>(data) else { return };
        let again = rmp_serde::to_vec(&message).unwrap();
        let read = rmp_serde::from_slice::<Message>(&again).unwrap();
        assert_eq!(format!("{read:?}"), format!("{message:?}"));
    });
}

#[test]
fn damaged_values_are_refused_before_they_are_executed() {
    // As MessagePack's binary, which is how a value travels.
    let bytes = rmp_serde::to_vec(&value()).unwrap();
    fuzz(9, 40_000, &[&bytes], |data| {
        if let Ok(value) = rmp_serde::from_slice::<Value>(data) {
            let _ = value.decode();
        }
    });
}
