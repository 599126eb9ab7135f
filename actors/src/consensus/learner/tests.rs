//! What the learner writes, and how far it lets the journal be trimmed.

use bytes::Bytes;
use synod_runtime::identity::{Incarnation, NodeId, NodeName};

use super::*;
use crate::consensus::{
    configuration::Configuration,
    message::{Entries, TrimLog},
};

fn node(name: &str, incarnation: u64) -> NodeId {
    NodeId::new(name.parse::<NodeName>().expect("a name"), Incarnation(incarnation))
}

fn genesis() -> Record {
    Record::Genesis(Configuration {
        epoch: 0,
        mains: vec![node("a", 1), node("b", 2)],
        auxiliaries: vec![node("x", 3)],
        absent: Vec::new(),
        ..Configuration::default()
    })
}

fn at(seconds: u64) -> Now {
    Now { at: Instant::from_nanos(seconds * 1_000_000_000), wall_ms: 0 }
}

/// A learner of node `a` that got back what survived.
fn started(now: Now, records: Vec<Record>) -> Learner {
    let mut learner = Learner::new(node("a", 1));
    let mut out = Effects::default();
    learner.start(now, &Survived { records, snapshot: None }, &mut out);
    learner.flush(now, &mut out);
    learner
}

/// Steps chosen without a vote of this node, as a peer tells of them.
fn told(first: u64, count: usize) -> LearnerMessage {
    let ballot = Ballot { round: 1, node: Incarnation(2) };
    let values = vec![(ballot, Value::from_bytes(Bytes::from_static(b"\x01v"))); count];
    let chosen_upto = Step(first + count as u64 - 1);
    LearnerMessage::Entries(Entries { first: Step(first), values, chosen_upto, snapshot: false })
}

fn say(learner: &mut Learner, now: Now, message: impl Into<LearnerMessage>) -> Effects<Learner> {
    let mut out = Effects::default();
    learner.message(now, &node("b", 2), message.into(), &mut out);
    learner.flush(now, &mut out);
    out
}

/// How far the acceptor was told to trim the journal.
fn trimmed(out: &Effects<Learner>) -> Vec<Step> {
    out.now
        .iter()
        .filter_map(|letter| match &letter.message {
            Message::Acceptor(AcceptorMessage::Trim(trim)) => Some(trim.upto),
            _ => None,
        })
        .collect()
}

fn notes(out: &Effects<Learner>) -> Vec<Step> {
    let records = out.lazy.iter().chain(&out.records);
    let chosen = records.filter(|record| matches!(record, Record::Chosen(_)));
    chosen.map(Record::step).collect()
}

#[test]
fn what_is_learned_is_noted_also_while_the_journal_is_trimmed() {
    let mut learner = started(at(1), vec![genesis()]);
    assert_eq!(notes(&say(&mut learner, at(2), told(1, 4))), [Step(1), Step(2), Step(3), Step(4)]);
    let out = say(&mut learner, at(3), TrimLog { upto: Step(2) });
    assert_eq!((trimmed(&out), notes(&out)), (vec![Step(2)], vec![]), "nothing is written again");
    assert_eq!(notes(&say(&mut learner, at(4), told(5, 1))), [Step(5)]);
}

/// What a learner made anew does not know it will ask for, and votes on it are reported until then.
#[test]
fn the_journal_is_not_trimmed_beyond_what_is_known_to_be_chosen() {
    let mut learner = started(at(1), vec![genesis()]);
    say(&mut learner, at(2), told(1, 4));
    assert_eq!(trimmed(&say(&mut learner, at(3), TrimLog { upto: Step(5) })), []);
    assert_eq!(trimmed(&say(&mut learner, at(3), TrimLog { upto: Step(3) })), [Step(3)]);
    assert_eq!(trimmed(&say(&mut learner, at(3), TrimLog { upto: Step(1) })), [], "it was");
}
