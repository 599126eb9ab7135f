//! Snapshots: taken while commands go on, handed on piece by piece. Method: real replicas of the
//! key/value service, with the test as the log, the disk and the network between them.

use std::time::Duration;

use bytes::Bytes;
use synod::{
    consensus::{
        ballot::Step,
        message::{
            Execute, Fetch, HomeMessage, LearnerMessage, Message, ReplicaMessage, SnapshotWanted,
        },
        record::{Image, Record},
        replica::{REGISTER, Replica, SNAPSHOT_BYTES_PER_SECOND, StateImage},
        value::{Command, EncodedCommand, Value},
    },
    effects::Effects,
    machine::{Machine as _, Now, Survived},
    replicated::{StateMachine, name_hash},
};
use synod_kv::{Kv, args, machine};
use synod_tests::{
    hand::{A, B, dawn, genesis, node, tell},
    shelf::Shelf,
};

/// A main with its disk.
struct Main {
    number: u64,
    replica: Replica,
    shelf: Shelf,
    now: Now,
    /// What it said to other nodes.
    said: Vec<ReplicaMessage>,
    /// What it said to its home.
    home: Vec<HomeMessage>,
    /// The last snapshot that became durable, and how many steps were executed meanwhile.
    trimmed: Option<(Step, u64)>,
}

impl Main {
    fn new(number: u64, snapshot_log_bytes: u64, survived: &Survived<Record, Image>) -> Self {
        let make = || vec![Box::new(Kv::new()) as Box<dyn StateMachine>];
        let mut replica = Replica::new(node(number), Box::new(make), snapshot_log_bytes);
        let mut out = Effects::default();
        replica.start(dawn(), survived, &mut out);
        let (shelf, said, home) = (Shelf::default(), Vec::new(), Vec::new());
        let mut main = Self { number, replica, shelf, now: dawn(), said, home, trimmed: None };
        main.absorb(out);
        main
    }

    fn founded(number: u64, snapshot_log_bytes: u64) -> Self {
        let records = vec![Record::Genesis(genesis())];
        Self::new(number, snapshot_log_bytes, &Survived { records, snapshot: None })
    }

    fn tell(&mut self, from: u64, message: impl Into<ReplicaMessage>) {
        let out = tell(&mut self.replica, self.now, from, message.into());
        self.absorb(out);
    }

    fn absorb(&mut self, out: Effects<Replica>) {
        out.shelf.into_iter().for_each(|task| self.shelf.put(task));
        for letter in out.now {
            match letter.message {
                Message::Replica(message) => self.said.push(message),
                Message::Home(message) => self.home.push(message),
                Message::Learner(LearnerMessage::TrimLog(trim)) => {
                    let behind = self.replica.summary().0.beyond(trim.upto);
                    self.trimmed = Some((trim.upto, behind));
                }
                _ => {}
            }
        }
    }

    /// Its disk does one thing; whether there was any.
    fn work(&mut self) -> bool {
        let told = self.shelf.work();
        let worked = told.is_some();
        if let Some(told) = told {
            self.tell(self.number, told);
        }
        worked
    }

    /// Time passes.
    fn wait(&mut self, wait: Duration) {
        self.now.at = self.now.at + wait;
        if self.replica.deadline().is_some_and(|at| at <= self.now.at) {
            let mut out = Effects::default();
            self.replica.timeout(self.now, &mut out);
            self.replica.flush(self.now, &mut out);
            self.absorb(out);
        }
    }

    fn execute(&mut self, first: u64, values: &[Value]) {
        let (first, values) = (Step(first), values.to_vec());
        self.tell(self.number, Execute { first, values, answer_others: false });
    }
}

/// A log in which every step writes some keys of many, as the clients of A ask.
fn log(steps: u64) -> Vec<Value> {
    log_of(A, steps)
}

fn log_of(home: u64, steps: u64) -> Vec<Value> {
    let home = synod_runtime::message::encode(&node(home)).expect("plain data").into();
    let registers =
        Command { session: 0, seq: 7, actor: 0, function: REGISTER, keyed: false, args: home };
    let mut log = vec![Value::batch(1, 1, &[EncodedCommand::new(&registers)])];
    let (actor, function) = (name_hash(machine::NAME), machine::EXECUTE.id);
    for step in 1..steps {
        let commands = (0..10).map(|place| {
            let seq = step * 10 - 10 + place + 1;
            let key = format!("key {:04}", seq * 7919 % 2_000);
            let args = args::encode(&["SET", &key, &step.to_string().repeat(200)]);
            EncodedCommand::new(&Command { session: 1, seq, actor, function, keyed: false, args })
        });
        log.push(Value::batch(step, step, &commands.collect::<Vec<_>>()));
    }
    log
}

const STEPS: u64 = 600;

/// Goal: commands are executed while a snapshot is being written, and none of them shows in it.
#[test]
fn a_snapshot_is_of_its_step_whatever_is_executed_while_it_is_written() {
    let log = log(STEPS);
    let mut main = Main::founded(A, 1_500_000);
    for (step, value) in (1..).zip(&log) {
        main.execute(step, std::slice::from_ref(value));
        assert_eq!(main.replica.summary().0, Step(step), "nothing waits");
        main.wait(Duration::from_millis(1));
        main.work();
    }
    let (step, body) = main.shelf.newest().expect("it took some");
    let body = body.clone();
    assert!(matches!(main.trimmed, Some((Step(upto), behind)) if upto == step && behind > 5));
    // The same log to that step, all at once.
    let upto = usize::try_from(step).expect("few steps");
    let mut twin = Main::founded(A, u64::MAX);
    twin.execute(1, &log[..upto]);
    let (theirs, ours) = (StateImage::decode(&body).expect("it is one"), twin.replica.summary());
    assert_eq!((theirs.position, theirs.digest), (ours.1, ours.2));
    // And one that comes to the snapshot, then to the rest of the log.
    let image = Image { history: theirs.history, body };
    let mut restarted =
        Main::new(A, u64::MAX, &Survived { records: vec![], snapshot: Some(image) });
    restarted.execute(step + 1, &log[upto..]);
    twin.execute(step + 1, &log[upto..]);
    assert_eq!(restarted.replica.summary(), main.replica.summary());
    assert_eq!(twin.replica.summary(), main.replica.summary());
    for other in [&mut restarted, &mut twin] {
        assert_eq!(whole(other), whole(&mut main), "states are equal to the byte");
    }
}

/// The state of a main, as its next snapshot has it.
fn whole(main: &mut Main) -> Bytes {
    loop {
        if let Some((step, body)) = main.shelf.newest()
            && step == STEPS
        {
            return body.clone();
        }
        main.tell(B, Fetch { step: Step(STEPS), offset: 0 });
        main.wait(Duration::from_millis(1));
        while main.work() {}
    }
}

/// A main with the state, another that was told to fetch it, and the word that told it.
fn one_that_fetches() -> (Main, Main, SnapshotWanted) {
    let mut from = Main::founded(A, u64::MAX);
    from.execute(1, &log(STEPS));
    let mut to = Main::new(B, u64::MAX, &Survived { records: vec![], snapshot: None });
    let wanted = SnapshotWanted { peer: node(A), chosen_upto: Step(STEPS), known: Step(0) };
    to.tell(B, wanted.clone());
    (from, to, wanted)
}

/// Goal: who lost the link while it fetched a snapshot goes on where it was, whatever is damaged or
/// lost on the way; and pieces leave no faster than they may.
#[test]
fn who_lost_the_link_goes_on_where_it_was() {
    let (mut from, mut to, wanted) = one_that_fetches();
    let (mut offsets, mut turns, mut pieces) = (Vec::new(), 0_u32, 0_u32);
    let mut millis = 0;
    while to.replica.summary().0 < Step(STEPS) {
        turns += 1;
        assert!(turns < 100_000, "it never comes: {offsets:?}");
        for message in std::mem::take(&mut to.said) {
            if let ReplicaMessage::Fetch(fetch) = &message {
                offsets.push(fetch.offset);
                from.tell(B, message);
            }
        }
        for message in std::mem::take(&mut from.said) {
            let ReplicaMessage::SnapshotChunk(mut chunk) = message else { continue };
            pieces += 1;
            match pieces % 4 {
                1 => continue, // lost
                2 => {
                    let mut bytes = chunk.bytes.to_vec();
                    bytes[7] ^= 1;
                    chunk.bytes = bytes.into();
                }
                _ => {}
            }
            to.tell(A, chunk);
        }
        if turns == 700 {
            // Gone for long: it gives up, and is told to fetch once more.
            (0..3_000).for_each(|_| to.wait(Duration::from_millis(1)));
            to.said.clear();
            to.tell(B, wanted.clone());
        }
        while from.work() || to.work() {}
        from.wait(Duration::from_millis(1));
        to.wait(Duration::from_millis(1));
        millis += 1;
    }
    assert!(
        offsets.is_sorted() && offsets.iter().filter(|at| **at == 0).count() < 20,
        "{offsets:?}"
    );
    assert_eq!(to.replica.summary(), from.replica.summary());
    assert_eq!(to.trimmed, Some((Step(STEPS), 0)));
    let (_, body) = from.shelf.newest().expect("it took one");
    let least = body.len() as u64 * 1_000 / SNAPSHOT_BYTES_PER_SECOND;
    assert!(millis >= least, "{millis} ms for {} bytes", body.len());
    assert_eq!(to.shelf.newest(), from.shelf.newest());
}

/// Goal: who was killed while it fetched a snapshot goes on with what its disk has of it.
#[test]
fn who_was_started_again_goes_on_where_its_disk_is() {
    let (mut from, mut to, wanted) = one_that_fetches();
    let (mut asked, mut restarted_at) = (Vec::new(), None);
    for turn in 0..100_000 {
        for message in std::mem::take(&mut to.said) {
            if let ReplicaMessage::Fetch(fetch) = &message {
                asked.push(fetch.offset);
                from.tell(B, message);
            }
        }
        for message in std::mem::take(&mut from.said) {
            to.tell(A, message);
        }
        if restarted_at.is_none() && asked.last().is_some_and(|offset| *offset > 0) {
            to.shelf.crash();
            let shelf = std::mem::take(&mut to.shelf);
            to = Main::new(B, u64::MAX, &Survived { records: vec![], snapshot: None });
            to.shelf = shelf;
            to.tell(B, wanted.clone());
            restarted_at = Some(asked.len());
        }
        while from.work() || to.work() {}
        from.wait(Duration::from_millis(1));
        to.wait(Duration::from_millis(1));
        if to.replica.summary().0 == Step(STEPS) {
            break;
        }
        assert!(turn < 99_999, "it never comes: {asked:?}");
    }
    let restarted_at = restarted_at.expect("it was restarted half way");
    assert!(asked[restarted_at] > 0, "not from the start: {asked:?}");
    assert_eq!(to.replica.summary(), from.replica.summary());
    assert_eq!(to.shelf.newest(), from.shelf.newest());
}

/// Goal: clients of a main whose commands were executed by others in its place do not wait until their
/// home asks again: the snapshot that it fetches answers them.
#[test]
fn a_snapshot_answers_the_clients_of_who_fetched_it() {
    let (mut from, mut to) = (Main::founded(A, u64::MAX), Main::founded(B, u64::MAX));
    from.execute(1, &log_of(B, 5));
    assert!(from.home.is_empty(), "they are not its clients: {:?}", from.home);
    to.tell(B, SnapshotWanted { peer: node(A), chosen_upto: Step(5), known: Step(0) });
    while to.replica.summary().0 < Step(5) {
        std::mem::take(&mut to.said).into_iter().for_each(|message| from.tell(B, message));
        std::mem::take(&mut from.said).into_iter().for_each(|message| to.tell(A, message));
        while from.work() || to.work() {}
        from.wait(Duration::from_millis(1));
        to.wait(Duration::from_millis(1));
    }
    let [HomeMessage::Registered(registered), HomeMessage::Replies(told)] = &to.home[..] else {
        panic!("{:?}", to.home);
    };
    assert_eq!((registered.nonce, registered.session, told.session), (7, 1, 1));
    assert!(told.replies.iter().map(|reply| reply.seq).eq(1..=40), "{:?}", told.replies);
}
