//! What the learner may write while the acceptor may be about to replace the journal.

use bytes::Bytes;
use synod_runtime::identity::{Incarnation, NodeId, NodeName};

use super::*;
use crate::consensus::{
    configuration::Configuration,
    message::{Entries, TrimLog, Trimmed},
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
fn started(now: Now, records: Vec<Record>) -> (Learner, Effects<Learner>) {
    let mut learner = Learner::new(node("a", 1));
    let mut out = Effects::default();
    learner.start(now, &Survived { records, snapshot: None }, &mut out);
    learner.flush(now, &mut out);
    (learner, out)
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

/// When the acceptor was asked, by the questions in `out`.
fn asked(out: &Effects<Learner>) -> Vec<(Instant, Option<Step>)> {
    out.now
        .iter()
        .filter_map(|letter| match &letter.message {
            Message::Acceptor(AcceptorMessage::Trim(trim)) => Some((trim.asked, Some(trim.upto))),
            Message::Acceptor(AcceptorMessage::Trimming(trimming)) => Some((trimming.asked, None)),
            _ => None,
        })
        .collect()
}

fn notes(out: &Effects<Learner>) -> Vec<Step> {
    out.lazy
        .iter()
        .chain(&out.records)
        .filter_map(|record| match record {
            Record::Chosen(vote) => Some(vote.step),
            _ => None,
        })
        .collect()
}

fn writes_nothing(out: &Effects<Learner>) -> bool {
    out.lazy.is_empty() && out.records.is_empty()
}

#[test]
fn a_learner_made_anew_writes_nothing_until_its_predecessors_trims_are_done() {
    let (mut learner, out) = started(at(1), vec![genesis()]);
    let [(question, None)] = asked(&out)[..] else { panic!("asks first: {out:?}") };

    // A trim of the predecessor may still wait in the acceptor's mailbox: what was written now
    // would be cut off with it.
    let out = say(&mut learner, at(2), told(1, 3));
    assert_eq!(learner.history().executed(), Step(3), "learning goes on");
    assert!(writes_nothing(&out), "{out:?}");

    // The predecessor's own trim is answered: that is not the question.
    let stale = Trimmed { asked: Instant::from_nanos(7) };
    assert!(writes_nothing(&say(&mut learner, at(2), stale)));

    let out = say(&mut learner, at(3), Trimmed { asked: question });
    assert_eq!(notes(&out), [Step(1), Step(2), Step(3)]);
}

#[test]
fn what_is_learned_during_a_trim_is_written_after_it_and_the_rest_is_carried() {
    let (mut learner, out) = started(at(1), vec![genesis()]);
    let [(question, None)] = asked(&out)[..] else { panic!("asks first: {out:?}") };
    say(&mut learner, at(1), Trimmed { asked: question });
    say(&mut learner, at(2), told(1, 4));

    let out = say(&mut learner, at(3), TrimLog { upto: Step(2) });
    let trim = out.now.iter().find_map(|letter| match &letter.message {
        Message::Acceptor(AcceptorMessage::Trim(trim)) => Some(trim.clone()),
        _ => None,
    });
    let trim = trim.expect("the acceptor is told");
    let carried: Vec<Step> = trim.chosen.iter().map(|vote| vote.step).collect();
    assert_eq!((carried, trim.chosen_upto), (vec![Step(3), Step(4)], Step(4)));

    assert!(writes_nothing(&say(&mut learner, at(4), told(5, 1))));
    let out = say(&mut learner, at(5), Trimmed { asked: trim.asked });
    assert_eq!(notes(&out), [Step(5)]);
}

#[test]
fn a_trim_that_died_with_the_acceptor_is_asked_for_again_and_only_its_answer_counts() {
    let (mut learner, out) = started(at(1), vec![genesis()]);
    let [(question, None)] = asked(&out)[..] else { panic!("asks first: {out:?}") };
    say(&mut learner, at(1), Trimmed { asked: question });
    say(&mut learner, at(2), told(1, 4));
    let first = asked(&say(&mut learner, at(3), TrimLog { upto: Step(2) }));
    say(&mut learner, at(4), told(5, 1));

    let due = learner.deadline().expect("asks again");
    let again = Now { at: due, wall_ms: 0 };
    let mut out = Effects::default();
    learner.timeout(again, &mut out);
    learner.flush(again, &mut out);
    let second = asked(&out);
    assert_eq!(second.len(), 1, "{out:?}");
    assert_ne!(first, second);

    // The first was done after all, but the second is yet to come and would cut this off.
    assert!(writes_nothing(&say(&mut learner, again, told(6, 1))));
    assert!(writes_nothing(&say(&mut learner, again, Trimmed { asked: first[0].0 })));
    let out = say(&mut learner, again, Trimmed { asked: second[0].0 });
    assert_eq!(notes(&out), [Step(6)], "step 5 was carried by the second trim");
}
