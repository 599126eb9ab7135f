//! Callers that race for one object, with storage that fails in the midst.

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    sync::{Arc, Mutex},
    time::Duration,
};

use rand::{RngExt as _, SeedableRng as _};
use synod_runtime::{
    identity::{Incarnation, NodeId, NodeName},
    world::{Instant, Rng, disk::RealDisk},
};

use super::{
    DEAD_AFTER, FileObject, MemoryObject, SharedObject,
    caller::{Answers, Caller, Question},
};
use crate::{
    consensus::{
        ballot::{Ballot, Step},
        configuration::Configuration,
        message::{
            Accept, AuxiliaryMessage, Forget, FounderMessage, Genesis, LearnerMessage, Message,
            PreVote, Prepare, ProposerMessage,
        },
        value::Value,
    },
    machine::Now,
};

fn name(text: &str) -> NodeName {
    text.parse().unwrap()
}

fn main_of(number: u64) -> NodeId {
    NodeId::new(name(["a", "b"][usize::try_from(number).unwrap()]), Incarnation(10 + number))
}

fn x() -> NodeId {
    NodeId::new(name("x"), Incarnation(7))
}

fn now(millis: u64) -> Now {
    Now { at: Instant::default() + Duration::from_millis(millis), wall_ms: millis }
}

fn configuration() -> Configuration {
    Configuration::founding(vec![main_of(0), main_of(1)], vec![x()])
}

fn caller(number: u64, object: Arc<dyn SharedObject>) -> Caller {
    Caller::new(main_of(number), name("x"), object, (Incarnation(7), 1_000))
}

fn ask(caller: &Caller, message: impl Into<Message>) -> io::Result<Vec<Message>> {
    let question = Question { to: x(), message: message.into() };
    caller.ask(now(0), &[question]).map(|Answers { messages, .. }| messages)
}

/// An object that a caller made and that knows how the log begins.
fn made() -> Arc<MemoryObject> {
    let object = Arc::new(MemoryObject::default());
    let mut first = caller(0, object.clone());
    assert_eq!(first.beat(now(0)).unwrap(), x());
    let genesis = FounderMessage::Genesis(Genesis { configuration: configuration() });
    ask(&first, genesis).unwrap();
    object
}

/// How a storage may fail its callers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Storage {
    /// As it must be: it may only refuse, before or after it did what it was asked for.
    Good,
    /// It replaces whatever is there.
    Blind,
    /// It says that it replaced, and did not.
    Lying,
}

/// A turn of another caller, in the midst of one's own.
type Turn = Box<dyn FnOnce() + Send>;

/// Lets others go first between a caller's reading and its replacing.
struct Racing {
    object: Arc<MemoryObject>,
    others: Mutex<VecDeque<Turn>>,
    storage: Storage,
    rng: Mutex<Rng>,
}

impl std::fmt::Debug for Racing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Racing({:?})", self.storage)
    }
}

impl SharedObject for Racing {
    fn load(&self) -> io::Result<(u64, Vec<u8>)> {
        self.object.load()
    }

    fn swap(&self, expected: u64, next: u64, bytes: &[u8]) -> io::Result<bool> {
        let other = self.others.lock().unwrap().pop_front();
        if let Some(turn) = other {
            turn();
        }
        let chance = self.rng.lock().unwrap().random_range(0..10);
        match self.storage {
            Storage::Lying if chance < 3 => return Ok(true),
            Storage::Blind => {
                let there = self.object.version();
                return self.object.swap(there, there + 1, bytes);
            }
            Storage::Good | Storage::Lying => {}
        }
        if chance == 0 {
            return Err(io::ErrorKind::TimedOut.into()); // and it did nothing
        }
        let done = self.object.swap(expected, next, bytes)?;
        if chance == 1 { Err(io::ErrorKind::TimedOut.into()) } else { Ok(done) }
    }

    fn beat(&self, node: &NodeName, count: u64) -> io::Result<()> {
        self.object.beat(node, count)
    }

    fn last_beat(&self, node: &NodeName) -> io::Result<u64> {
        self.object.last_beat(node)
    }
}

/// What the auxiliary said, to whomever, in the order in which it was heard.
#[derive(Default)]
struct Book {
    promised: Ballot,
    votes: BTreeMap<Step, Ballot>,
    wrong: Option<String>,
}

impl Book {
    /// An answer to a question that was asked when `promised` was the highest promise heard of, and
    /// `votes` the highest votes.
    fn hear(&mut self, promised: Ballot, votes: &BTreeMap<Step, Ballot>, answers: Vec<Message>) {
        for answer in answers {
            match answer {
                Message::Proposer(ProposerMessage::Promise(said)) => {
                    if said.ballot < promised {
                        self.wrong = Some(format!("promised {:?} after {promised:?}", said.ballot));
                    }
                    for (step, ballot) in votes {
                        let told = said.votes.iter().find(|vote| vote.step == *step);
                        if told.is_none_or(|vote| vote.ballot < *ballot) {
                            self.wrong = Some(format!("a vote for {step:?} was forgotten"));
                        }
                    }
                    self.promised = self.promised.max(said.ballot);
                }
                Message::Learner(LearnerMessage::Accepted(said)) => {
                    if said.ballot < promised {
                        self.wrong = Some(format!("voted in {:?} after {promised:?}", said.ballot));
                    }
                    for step in said.run.first.0..=said.run.last.0 {
                        let vote = self.votes.entry(Step(step)).or_default();
                        *vote = said.ballot.max(*vote);
                    }
                }
                _other => {}
            }
        }
    }
}

/// One random question.
fn question(rng: &mut Rng, number: u64) -> AuxiliaryMessage {
    let ballot = Ballot { round: rng.random_range(1..12), node: main_of(number).incarnation };
    if rng.random_range(0..2) == 0 {
        return AuxiliaryMessage::Prepare(Prepare { ballot, from: Step(1) });
    }
    let (first, voted, chosen) = (Step(rng.random_range(1..5)), None, None);
    AuxiliaryMessage::Accept(Accept { ballot, first, values: vec![Value::noop()], voted, chosen })
}

/// Two callers, many questions; what was wrong.
fn race(seed: u64, storage: Storage) -> Option<String> {
    let mut rng = Rng::seed_from_u64(seed);
    let (object, book) = (made(), Arc::new(Mutex::new(Book::default())));
    for _ in 0..30 {
        let racing = Arc::new(Racing {
            object: object.clone(),
            others: Mutex::default(),
            storage,
            rng: Mutex::new(Rng::seed_from_u64(rng.random())),
        });
        for _ in 0..rng.random_range(0..3) {
            let (asked, object, book) = (question(&mut rng, 1), racing.clone(), book.clone());
            let turn = move || put(&caller(1, object), asked, &book);
            racing.others.lock().unwrap().push_back(Box::new(turn));
        }
        put(&caller(0, racing), question(&mut rng, 0), &book);
    }
    book.lock().unwrap().wrong.take()
}

fn put(caller: &Caller, asked: AuxiliaryMessage, book: &Mutex<Book>) {
    let (promised, votes) = {
        let book = book.lock().unwrap();
        (book.promised, book.votes.clone())
    };
    // Who is not told says nothing.
    if let Ok(answers) = ask(caller, asked) {
        book.lock().unwrap().hear(promised, &votes, answers);
    }
}

#[test]
fn callers_that_race_hear_one_auxiliary_that_forgets_nothing() {
    for seed in 0..1_500 {
        assert_eq!(race(seed, Storage::Good), None, "seed {seed}");
    }
}

#[test]
fn a_storage_that_does_not_compare_is_noticed() {
    for storage in [Storage::Blind, Storage::Lying] {
        assert!((0..1_500).any(|seed| race(seed, storage).is_some()), "{storage:?}");
    }
}

#[test]
fn of_two_ballots_at_once_the_lower_one_is_refused() {
    let object = made();
    let ballot = |round, number| Ballot { round, node: main_of(number).incarnation };
    let prepare = |ballot| AuxiliaryMessage::Prepare(Prepare { ballot, from: Step(1) });
    let (a, b) = (caller(0, object.clone()), caller(1, object.clone()));
    let promise = ask(&b, prepare(ballot(3, 1))).unwrap();
    assert!(matches!(&promise[..], [Message::Proposer(ProposerMessage::Promise(_))]));
    let before = object.version();
    let nack = ask(&a, prepare(ballot(2, 0))).unwrap();
    assert!(matches!(&nack[..], [Message::Proposer(ProposerMessage::Nack(_))]), "{nack:?}");
    assert_eq!(object.version(), before, "a refusal changes nothing");
}

#[test]
fn who_is_not_meant_is_not_answered() {
    let object = made();
    let a = caller(0, object);
    let asked = AuxiliaryMessage::Prepare(Prepare { ballot: Ballot::default(), from: Step(1) });
    let to = NodeId::new(name("x"), Incarnation(8));
    let answers = a.ask(now(0), &[Question { to, message: asked.into() }]).unwrap();
    assert!(answers.messages.is_empty(), "{answers:?}");
}

#[test]
fn a_main_is_dead_when_its_beat_stands_still() {
    let object = made();
    let (mut a, mut b) = (caller(0, object.clone()), caller(1, object));
    let suspect = Some(main_of(0));
    let stand = |b: &Caller, at: u64| {
        let asked = PreVote { round: 2, suspect: suspect.clone(), epoch: 0 };
        let message = AuxiliaryMessage::PreVote(asked).into();
        let answers = b.ask(now(at), &[Question { to: x(), message }]).unwrap().messages;
        match &answers[..] {
            [Message::Proposer(ProposerMessage::PreVoteAnswer(answer))] => answer.go,
            other => panic!("{other:?}"),
        }
    };
    assert!(!stand(&b, 0), "never looked");
    for at in [0, 500, 1_000] {
        a.beat(now(at)).unwrap();
        b.beat(now(at)).unwrap();
    }
    let dead = 1_000 + u64::try_from(DEAD_AFTER.as_millis()).unwrap();
    b.beat(now(dead - 1)).unwrap();
    assert!(!stand(&b, dead - 1));
    assert!(stand(&b, dead));
    a.beat(now(dead)).unwrap();
    b.beat(now(dead)).unwrap();
    assert!(!stand(&b, dead + 1), "it is back");
}

#[test]
fn an_object_that_was_lost_comes_back_as_another_that_old_callers_cannot_replace() {
    let object = made();
    let (version, bytes) = object.load().unwrap();
    object.lose();
    let fresh = (Incarnation(99), 5_000_000);
    let mut b = Caller::new(main_of(1), name("x"), object.clone(), fresh);
    assert_eq!(b.beat(now(0)).unwrap().incarnation, Incarnation(99));
    assert!(!object.swap(version, version + 1, &bytes).unwrap());
    let forget = Forget { floor: Step(1), configuration: configuration() };
    assert!(ask(&b, AuxiliaryMessage::Forget(forget)).unwrap().is_empty(), "x was another");
    assert_eq!(object.version(), 5_000_000);
}

#[test]
fn files_are_replaced_whole_by_one_of_those_who_race() {
    let dir = tempfile::tempdir().unwrap();
    let object = FileObject::new(Arc::new(RealDisk), dir.path().join("x"));
    assert_eq!(object.load().unwrap(), (0, vec![]));
    assert!(object.swap(0, 10, b"0").unwrap());
    assert!(!object.swap(0, 11, b"9").unwrap());
    let count = |object: FileObject| {
        let mut done = 0_u64;
        while done < 40 {
            let (version, bytes) = object.load().unwrap();
            let next: u64 = 1 + String::from_utf8(bytes).unwrap().parse::<u64>().unwrap();
            let next = next.to_string();
            done += u64::from(object.swap(version, version + 1, next.as_bytes()).unwrap());
        }
    };
    std::thread::scope(|threads| {
        for _ in 0..3 {
            let object = object.clone();
            threads.spawn(move || count(object));
        }
    });
    assert_eq!(object.load().unwrap(), (130, b"120".to_vec()), "each was replaced once");

    // A crash in the midst leaves what was before; damage is found.
    std::fs::write(dir.path().join("x/object.new"), b"half").unwrap();
    assert_eq!(object.load().unwrap().0, 130);
    object.beat(&name("a"), 7).unwrap();
    assert_eq!(
        (object.last_beat(&name("a")).unwrap(), object.last_beat(&name("b")).unwrap()),
        (7, 0)
    );
    let file = dir.path().join("x/object");
    let good = std::fs::read(&file).unwrap();
    for byte in 0..good.len() {
        let mut bad = good.clone();
        bad[byte] ^= 4;
        std::fs::write(&file, &bad).unwrap();
        assert!(object.load().is_err(), "byte {byte}");
        std::fs::write(&file, &good[..byte]).unwrap();
        assert!(object.load().is_err(), "cut to {byte}");
    }
}
