use rand::SeedableRng as _;
use synod_runtime::identity::Incarnation;

use super::*;
use crate::{
    effects::To,
    election::message::Epoch,
    multicast::{
        data_server::PAYLOAD_BYTES_MAX,
        message::{CommitMessage, Gossip, Publisher},
    },
};

/// A receiver, and whom it asks.
struct Ear {
    receiver: Receiver,
    now: Now,
    delivered: Vec<Entry>,
}

fn server(n: u64) -> NodeId {
    NodeId::new(format!("n{n}").parse().unwrap(), Incarnation(n))
}

fn mid(number: u64) -> Mid {
    Mid { publisher: Publisher(1), number }
}

fn pair(number: u64) -> Pair {
    Pair { mid: Some(mid(number)), stamp: Seq(0), lowest_open: 1 }
}

fn said(number: u64, bytes: usize) -> Data {
    Data { mid: mid(number), stamp: Seq(0), lowest_open: 1, payload: vec![7; bytes].into() }
}

fn commit(largest: u64, pairs: Vec<(Seq, Pair)>) -> ReceiverMessage {
    ReceiverMessage::Committed(Commit { epoch: Epoch(1), largest: Seq(largest), pairs })
}

impl Ear {
    fn new() -> Self {
        let group = Group::new("news", (0..3).map(server).collect());
        let receiver = Receiver::new(Arc::new(group), Rng::seed_from_u64(1));
        Self { receiver, now: Now::default(), delivered: Vec::new() }
    }

    /// One turn; what it asks, and whom.
    fn turn(&mut self, from: &NodeId, message: Option<ReceiverMessage>) -> Vec<(NodeId, Message)> {
        let mut out = Effects::default();
        if let Some(message) = message {
            self.receiver.message(self.now, from, message, &mut out);
        }
        self.receiver.flush(self.now, &mut out);
        let mut asked = Vec::new();
        for letter in out.now {
            match (letter.to, letter.message) {
                (To::Node(server), message) => asked.push((server, message)),
                (To::Here, Message::Delivered(entries)) => {
                    self.delivered.extend_from_slice(&entries);
                }
                (To::Here, _) => {}
            }
        }
        asked
    }

    fn hear(&mut self, message: ReceiverMessage) {
        self.turn(&server(0), Some(message));
    }

    /// So many questions in so much time, each answered at once by that.
    fn questions(&mut self, millis: u64, answer: impl Fn(Message) -> ReceiverMessage) -> usize {
        let (mut asked, mut now) = (0, Vec::new());
        for _ in 0..millis {
            self.now.at = self.now.at + std::time::Duration::from_millis(1);
            now.extend(self.turn(&server(0), None));
            while let Some((from, question)) = now.pop() {
                asked += 1;
                assert!(asked < 10_000, "it asks for ever");
                now.extend(self.turn(&from, Some(answer(question))));
            }
        }
        asked
    }
}

/// Goal: what a receiver keeps, and what it asks for, is bounded by what it may keep, not by the numbers
/// that it is told.
#[test]
fn who_is_told_of_a_number_far_away_keeps_little() {
    let mut ear = Ear::new();
    let far = u64::MAX / 2;
    let gossip = Gossip {
        epoch: Epoch(1),
        sequencer: server(0),
        largest: Seq(far),
        checkpoint: None,
        version: 0,
        beat: 1,
    };
    ear.hear(ReceiverMessage::Gossip(gossip));
    ear.hear(commit(far + 1, vec![(Seq(far), pair(far)), (Seq(far + 1), pair(1))]));
    ear.hear(ReceiverMessage::Ordered { pairs: vec![(Seq(far), pair(far))], floor: Seq(0) });
    let entry = Entry { seq: Seq(far), pair: pair(far), payload: Bytes::new() };
    ear.hear(ReceiverMessage::Entries(Arc::new(vec![entry])));
    assert_eq!((ear.receiver.pairs.len(), ear.receiver.wanted.len()), (0, 0));
    assert_eq!(ear.receiver.held(), 0);
    // More than it keeps, all of it without what comes first.
    for first in (2..3 * AHEAD_MAX).step_by(1_000) {
        let pairs = (first..first + 1_000).map(|number| (Seq(number), pair(number))).collect();
        ear.hear(commit(far, pairs));
    }
    assert_eq!(ear.receiver.pairs.len() as u64, AHEAD_MAX - 1);
    assert_eq!(ear.receiver.wanted.len(), ear.receiver.pairs.len());
    // Nor do numbers that change keep more.
    ear.hear(commit(far, (2..1_000).map(|number| (Seq(number), pair(far + number))).collect()));
    assert_eq!(ear.receiver.wanted.len(), ear.receiver.pairs.len());
    let asked = std::cell::Cell::new(0);
    ear.questions(2_000, |question| match question {
        Message::Commit(CommitMessage::Query(seqs)) => {
            asked.set(asked.get().max(seqs.len()));
            ReceiverMessage::Ordered { pairs: Vec::new(), floor: Seq(0) }
        }
        Message::Data(DataMessage::Query(mids)) => {
            asked.set(asked.get().max(mids.len()));
            ReceiverMessage::Data(Vec::new())
        }
        other => panic!("{other:?}"),
    });
    assert!((1..=BATCH_MAX).contains(&asked.get()), "{} at a time", asked.get());
}

/// Goal: messages whose numbers are known, but not their turn, are kept as long as there is room, and
/// beyond that only what is asked for next.
#[test]
fn what_comes_before_its_turn_takes_no_more_room_than_there_is() {
    let mut ear = Ear::new();
    let many = (HELD_BYTES_MAX / PAYLOAD_BYTES_MAX) as u64 + 5_000;
    ear.hear(commit(many, (2..=many).map(|number| (Seq(number), pair(number))).collect()));
    for number in (2..=many).rev() {
        ear.hear(ReceiverMessage::Data(vec![said(number, PAYLOAD_BYTES_MAX)]));
        let room = HELD_BYTES_MAX + BATCH_MAX * PAYLOAD_BYTES_MAX;
        assert!(ear.receiver.bytes <= room, "{} bytes", ear.receiver.bytes);
    }
    assert!((2..=ASKED_MAX).all(|number| ear.receiver.data.contains_key(&mid(number))));
    // What found no room is asked for, and all comes in order.
    ear.hear(commit(many, vec![(Seq(1), pair(1))]));
    ear.questions(5_000, |question| match question {
        Message::Data(DataMessage::Query(mids)) => ReceiverMessage::Data(
            mids.iter().take(16).map(|mid| said(mid.number, PAYLOAD_BYTES_MAX)).collect(),
        ),
        other => panic!("{other:?}"),
    });
    assert_eq!(ear.receiver.delivered(), Seq(many));
    assert!(ear.delivered.iter().map(|entry| entry.seq.0).eq(1..=many));
    assert_eq!((ear.receiver.bytes, ear.receiver.held(), ear.receiver.wanted.len()), (0, 0, 0));
}

/// Goal: a group that gave a message two numbers is delivered as it is, for others to judge; and one
/// whose servers answer with what nobody needs is asked as seldom as a silent one.
#[test]
fn no_answer_makes_a_receiver_ask_for_ever() {
    let mut ear = Ear::new();
    ear.hear(commit(2, vec![(Seq(1), pair(1)), (Seq(2), pair(1))]));
    ear.hear(ReceiverMessage::Data(vec![said(1, 10)]));
    assert_eq!(ear.receiver.delivered(), Seq(1));
    ear.questions(1_000, |_| ReceiverMessage::Data(vec![said(1, 10)]));
    assert_eq!(ear.receiver.delivered(), Seq(2));

    let answers: [fn() -> ReceiverMessage; 3] = [
        || ReceiverMessage::Data(vec![said(1, 10)]),
        || ReceiverMessage::Ordered { pairs: vec![(Seq(3), pair(2))], floor: Seq(0) },
        || {
            let entry = Entry { seq: Seq(1), pair: pair(1), payload: Bytes::new() };
            ReceiverMessage::Entries(Arc::new(vec![entry]))
        },
    ];
    for answer in answers {
        let mut ear = Ear::new();
        ear.hear(commit(1, vec![(Seq(1), pair(1))]));
        ear.hear(ReceiverMessage::Data(vec![said(1, 10)]));
        ear.hear(commit(3, vec![(Seq(3), pair(2))]));
        let asked = ear.questions(1_000, |_| answer());
        assert!((3..20).contains(&asked), "{asked} questions in a second");
        assert_eq!(ear.receiver.delivered(), Seq(1));
    }
}
