//! What the learner writes, and how far it lets the journal be trimmed.

use bytes::Bytes;
use synod_runtime::identity::{Incarnation, NodeId, NodeName};

use super::*;
use crate::consensus::{
    ballot::Runs,
    configuration::Configuration,
    message::{CatchUp, Entries, TrimLog, Vote},
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

/// A while later, when nothing comes.
fn wait(learner: &mut Learner, now: Now) -> Effects<Learner> {
    let mut out = Effects::default();
    learner.timeout(now, &mut out);
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

/// What the journal may refuse.
fn offered(out: &Effects<Learner>) -> impl Iterator<Item = &Record> {
    out.offers.iter().flat_map(|offer| &offer.records)
}

fn notes(out: &Effects<Learner>) -> Vec<Step> {
    let records = out.lazy.iter().chain(offered(out));
    let chosen = records.filter(|record| matches!(record, Record::Chosen(_)));
    chosen.map(Record::step).collect()
}

#[test]
fn what_is_learned_is_noted_also_while_the_journal_is_trimmed() {
    let mut learner = started(at(1), vec![genesis()]);
    assert_eq!(notes(&say(&mut learner, at(2), told(1, 4))), [], "not yet");
    let out = wait(&mut learner, at(3));
    assert_eq!(notes(&out), [Step(1), Step(2), Step(3), Step(4)]);
    let out = say(&mut learner, at(4), TrimLog { upto: Step(2) });
    assert_eq!((trimmed(&out), notes(&out)), (vec![Step(2)], vec![]), "nothing is written again");
    say(&mut learner, at(5), told(5, 1));
    assert_eq!(notes(&wait(&mut learner, at(6))), [Step(5)]);
}

/// Goal: a journal that had no room for a note loses knowledge, and gains no wrong one. Method: this
/// node voted for one value of step 1 and another was chosen there, of which it is told; each call
/// to the journal is dropped or kept, in every way, and the node starts again.
#[test]
fn a_note_is_kept_with_its_values_or_not_at_all() {
    let ballot = Ballot { round: 1, node: Incarnation(1) };
    let old = Vote { step: Step(1), ballot, value: Value::from_bytes(Bytes::from_static(b"old")) };
    let survived = vec![genesis(), Record::Vote(old)];
    let mut learner = started(at(1), survived.clone());
    let mut calls = Vec::new();
    // The second comes under load, and is noted before its time.
    for (second, first, count) in [(2, 1, 1), (4, 2, 70), (6, 72, 1)] {
        for out in
            [say(&mut learner, at(second), told(first, count)), wait(&mut learner, at(second + 1))]
        {
            let offers = out.offers.into_iter().map(|offer| offer.records);
            calls.extend([out.lazy].into_iter().chain(offers).filter(|call| !call.is_empty()));
        }
    }
    assert!(calls.len() >= 3, "{}", calls.len());
    for kept in 0..1_u32 << calls.len() {
        let of = |(place, call): (usize, &Vec<Record>)| {
            (kept >> place & 1 == 1).then(|| call.clone()).into_iter().flatten()
        };
        let journal = calls.iter().enumerate().flat_map(of);
        let again = started(at(9), survived.iter().cloned().chain(journal).collect());
        for step in 1..=again.history().executed().0 {
            assert_eq!(again.chosen(Step(step)), learner.chosen(Step(step)), "{kept:b}");
        }
        let all = kept.count_ones() as usize == calls.len();
        assert!(!all || again.history().executed() == Step(72), "{kept:b}");
    }
}

/// What is told to others as durable must be so, since an auxiliary forgets what every main has. Method:
/// of the notes every third is refused, and what comes behind such a one is kept.
#[test]
fn nothing_counts_as_durable_that_was_refused() {
    let mut learner = started(at(1), vec![genesis()]);
    let mut kept = Runs::default();
    let (mut notes, mut upto) = (0, Step(0));
    for second in 2..60 {
        let first = 1 + (second - 2) * 10;
        let mut outs = vec![say(&mut learner, at(second), told(first, 10))];
        outs.push(wait(&mut learner, at(second)));
        for offer in outs.into_iter().flat_map(|out| out.offers) {
            notes += 1;
            let is_kept = notes % 3 > 0;
            for record in offer.records.iter().filter(|_| is_kept) {
                if let Record::Mark(run) = record {
                    kept.add(*run);
                }
            }
            let letter = if is_kept { offer.kept } else { offer.refused };
            if let Message::Learner(said) = letter.message {
                let out = say(&mut learner, at(second), said);
                let told = out.now.iter().find_map(|letter| match &letter.message {
                    Message::Proposer(ProposerMessage::Progress(told)) => Some(told.durable_upto),
                    _ => None,
                });
                upto = told.unwrap_or(upto);
            }
        }
        assert!(upto <= kept.end_of(Step(1)).unwrap_or_default(), "{upto}");
    }
    assert!(upto > Step(400), "it comes up again: {upto}");
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

/// Goal: as long as the disk is full, no more of the log is kept in memory than was said. What was
/// forgotten is neither noted nor offered, until a snapshot covers it: then all is as before.
#[test]
fn a_full_disk_bounds_what_is_kept_of_the_log() {
    let mut learner = started(at(1), vec![genesis()]);
    learner.room(true);
    let large = Value::from_bytes(vec![1; 1 << 20].into());
    let ballot = Ballot { round: 1, node: Incarnation(2) };
    let last = (2 * LOG_BYTES_FULL_MAX as u64) >> 20;
    for step in 1..=last {
        let (first, values) = (Step(step), vec![(ballot, large.clone())]);
        let entries = Entries { first, values, chosen_upto: first, snapshot: false };
        let mut outs = vec![say(&mut learner, at(1 + step), entries)];
        outs.push(wait(&mut learner, at(1 + step)));
        for offer in outs.into_iter().flat_map(|out| out.offers) {
            if let Message::Learner(said) = offer.refused.message {
                say(&mut learner, at(1 + step), said);
            }
        }
        let kept = (1..=step).filter(|step| learner.chosen(Step(*step)).is_some()).count();
        assert!(kept << 20 <= LOG_BYTES_FULL_MAX + (1 << 20), "{kept} MiB at {step}");
    }
    assert_eq!((learner.history().executed(), learner.chosen(Step(1))), (Step(last), None));
    learner.room(false);
    say(&mut learner, at(1_000), told(last + 1, 1));
    assert_eq!(notes(&wait(&mut learner, at(1_001))), [], "there is a hole before it");
    let asked = say(&mut learner, at(1_002), CatchUp { from: Step(1), fresh: false });
    let offers = |letter: &crate::effects::Letter<Message>| {
        matches!(&letter.message, Message::Learner(LearnerMessage::Entries(_)))
    };
    assert!(!asked.now.iter().any(offers), "its snapshot would end before the hole");
    let covered = say(&mut learner, at(1_003), TrimLog { upto: Step(last) });
    assert_eq!(notes(&covered), [Step(last + 1)], "at once: it was held back long enough");
}
