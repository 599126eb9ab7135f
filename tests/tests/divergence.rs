//! R1.46: mains compare what they came to. Method: the real replicas, with the test as the log, the
//! network and the disk between them, and a flaw in one's memory, in what it was made of, or in the
//! actor itself; then a whole simulated cluster whose actor is not deterministic.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use actix::{Actor, Handler, Message as ActixMessage};
use serde::{Deserialize, Serialize};
use synod::{
    consensus::{
        ballot::Step,
        configuration::Configuration,
        message::{Execute, LearnerMessage, Message, ReplicaMessage, Report, Resend},
        record::Record,
        replica::{COMPARE_EVERY, REGISTER, Replica},
        value::{Command, EncodedCommand, Value},
    },
    effects::{Effects, To},
    message::RemoteMessage,
    replicated::{
        ApplyError, Function, Handle, Moment, Replicated, RestoreError, StateMachine, Turn,
        name_hash,
    },
    sim::{Blueprint, Cluster, Shape, Simulation},
};
use synod_tests::{
    hand::{A, B, dawn, genesis, node, start, tell},
    shelf::Shelf,
};

const C: u64 = 4;

/// Adds a number to what was added before; answers the sum.
const ADD: Function = Function::command("sum.add");

/// What is wrong on one machine; all zero where nothing is.
#[derive(Debug, Default)]
struct Flaw {
    /// Added to the sum once, at the next command: a bit of memory flips.
    once: AtomicU64,
    /// The same in what no answer shows.
    hidden: AtomicU64,
    /// Stands in its snapshots and means nothing, as the order of a hash map.
    order: AtomicU64,
    /// Every sum begins with it: what it is rebuilt from is bad.
    born: AtomicU64,
    /// Added at every command: the actor is not deterministic.
    always: AtomicU64,
}

#[derive(Debug)]
struct Sum {
    shown: u64,
    hidden: u64,
    flaw: Arc<Flaw>,
}

impl StateMachine for Sum {
    fn name(&self) -> &'static str {
        "sum"
    }

    fn functions(&self) -> &[Function] {
        &[ADD]
    }

    fn apply(&mut self, id: u64, args: &[u8], _turn: &mut Turn) -> Result<Vec<u8>, ApplyError> {
        if id != ADD.id {
            return Err(ApplyError::UnknownFunction { id });
        }
        let wrong = |_size| ApplyError::BadArguments("not a number".to_owned());
        self.shown += u64::from_le_bytes(args.try_into().map_err(wrong)?);
        self.shown += self.flaw.once.swap(0, Relaxed) + self.flaw.always.load(Relaxed);
        self.hidden += self.flaw.hidden.swap(0, Relaxed);
        Ok(self.shown.to_le_bytes().to_vec())
    }

    fn query(&self, id: u64, _args: &[u8], _at: &Moment) -> Result<Vec<u8>, ApplyError> {
        Err(ApplyError::UnknownFunction { id })
    }

    fn snapshot(&self) -> Vec<u8> {
        let order = self.flaw.order.load(Relaxed);
        [self.shown, self.hidden, order].map(u64::to_le_bytes).concat()
    }

    fn restore(&mut self, bytes: &[u8]) -> Result<(), RestoreError> {
        let number = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight"));
        (self.shown, self.hidden) = (number(0), number(8));
        Ok(())
    }
}

/// Mains, what is wrong with each, and what each said of itself.
struct Scene {
    mains: BTreeMap<u64, Replica>,
    shelves: BTreeMap<u64, Shelf>,
    flaws: BTreeMap<u64, Arc<Flaw>>,
    log: Vec<Value>,
    under_way: VecDeque<(u64, u64, ReplicaMessage)>,
    halts: BTreeMap<u64, Vec<String>>,
    differences: BTreeMap<u64, u64>,
}

impl Scene {
    fn new(mains: &[u64]) -> Self {
        Self::with_members(mains, &[])
    }

    fn with_members(mains: &[u64], members: &[u64]) -> Self {
        let configuration =
            Configuration { mains: mains.iter().map(|main| node(*main)).collect(), ..genesis() };
        let mut scene = Self {
            mains: BTreeMap::new(),
            shelves: BTreeMap::new(),
            flaws: BTreeMap::new(),
            log: Vec::new(),
            under_way: VecDeque::new(),
            halts: BTreeMap::new(),
            differences: BTreeMap::new(),
        };
        for main in mains.iter().chain(members) {
            let flaw = Arc::<Flaw>::default();
            scene.flaws.insert(*main, Arc::clone(&flaw));
            let make = move || {
                let (shown, flaw) = (flaw.born.load(Relaxed), Arc::clone(&flaw));
                vec![Box::new(Sum { shown, hidden: 0, flaw }) as Box<dyn StateMachine>]
            };
            scene.begin(*main, Replica::new(node(*main), Box::new(make), u64::MAX), &configuration);
        }
        let home = synod_runtime::message::encode(&node(A)).expect("plain data").into();
        let session =
            Command { session: 0, seq: 7, actor: 0, function: REGISTER, keyed: false, args: home };
        scene.step(&session);
        scene
    }

    fn begin(&mut self, main: u64, mut replica: Replica, configuration: &Configuration) {
        let out = start(&mut replica, vec![Record::Genesis(configuration.clone())]);
        self.mains.insert(main, replica);
        self.absorb(main, out);
    }

    /// A flaw from here on.
    fn flaw(&self, main: u64) -> &Flaw {
        &self.flaws[&main]
    }

    /// So many commands, one a step.
    fn add(&mut self, count: u64) {
        for _ in 0..count {
            let seq = self.log.len() as u64;
            let args = seq.to_le_bytes().to_vec().into();
            let (actor, function) = (name_hash("sum"), ADD.id);
            self.step(&Command { session: 1, seq, actor, function, keyed: false, args });
        }
    }

    fn step(&mut self, command: &Command) {
        self.log.push(Value::batch(1, 1, &[EncodedCommand::new(command)]));
        let newest = Step(self.log.len() as u64);
        for main in self.mains.keys() {
            self.under_way.push_back((*main, *main, self.handed(newest)));
        }
        // Every wait has an end.
        for _ in 0..100_000 {
            let Some((from, to, message)) = self.under_way.pop_front() else { return };
            let replica = self.mains.get_mut(&to).expect("a main");
            let out = tell(replica, dawn(), from, message);
            self.absorb(to, out);
        }
        panic!("the mains never come to rest: {:?}", self.halts);
    }

    /// What the learner hands over from a step on.
    fn handed(&self, first: Step) -> ReplicaMessage {
        let values = self.log[usize::try_from(first.0).expect("few steps") - 1..].to_vec();
        Execute { first, values, answer_others: false }.into()
    }

    fn absorb(&mut self, main: u64, out: Effects<Replica>) {
        for letter in out.now {
            match (letter.to, letter.message) {
                (To::Node(id), Message::Replica(message)) => {
                    self.under_way.push_back((main, id.incarnation.0, message));
                }
                (_, Message::Learner(LearnerMessage::Resend(Resend { from })))
                    if from.0 <= self.log.len() as u64 =>
                {
                    self.under_way.push_back((main, main, self.handed(from)));
                }
                (_, Message::Report(Report::Replica { halted, differences, .. })) => {
                    self.differences.insert(main, differences);
                    let halts = self.halts.entry(main).or_default();
                    halts.extend(halted.filter(|why| halts.last() != Some(why)));
                }
                _ => {}
            }
        }
        let shelf = self.shelves.entry(main).or_default();
        for task in out.shelf {
            shelf.put(task);
            self.under_way.extend(shelf.work().map(|told| (main, main, told)));
        }
    }

    fn halted(&self, main: u64) -> Option<&str> {
        self.mains[&main].halted()
    }

    /// What each main ever halted for.
    fn halts(&self, main: u64) -> &[String] {
        &self.halts[&main]
    }

    /// All mains execute, and came to the same as mains without a flaw.
    fn judge(&self) {
        let mut sound = Self::new(&[A]);
        sound.add(self.log.len() as u64 - 1);
        for (main, replica) in &self.mains {
            assert_eq!(replica.halted(), None, "n{main}");
            assert_eq!(replica.summary(), sound.mains[&A].summary(), "n{main}");
        }
    }
}

#[test]
fn r1_46_sound_mains_agree_and_nobody_doubts() {
    let mut scene = Scene::new(&[A, B]);
    scene.add(20 * COMPARE_EVERY);
    scene.judge();
    assert_eq!(scene.differences, BTreeMap::from([(A, 0), (B, 0)]));
}

#[test]
fn r1_46_memory_that_goes_bad_is_noticed_and_healed_on_whichever_main() {
    for bad in [A, B] {
        let mut scene = Scene::new(&[A, B]);
        scene.add(10);
        scene.flaw(bad).once.store(5, Relaxed);
        scene.add(COMPARE_EVERY - 12);
        assert!(scene.mains[&A].summary() != scene.mains[&B].summary(), "not noticed yet");
        scene.add(2 * COMPARE_EVERY);
        scene.judge();
        assert_eq!(scene.differences, BTreeMap::from([(A, 1), (B, 1)]), "each doubted itself once");
        assert!(scene.halts(A).is_empty() && scene.halts(B).is_empty(), "nobody had to halt");
    }
}

#[test]
fn r1_46_a_bad_state_that_no_answer_shows_is_noticed_too() {
    let mut scene = Scene::new(&[A, B]);
    scene.add(10);
    scene.flaw(B).hidden.store(5, Relaxed);
    scene.add(15 * COMPARE_EVERY);
    assert_eq!(scene.differences[&B], 0, "the answers are the same");
    scene.add(2 * COMPARE_EVERY);
    assert_eq!(scene.differences, BTreeMap::from([(A, 1), (B, 1)]));
    scene.add(16 * COMPARE_EVERY);
    assert_eq!(scene.differences, BTreeMap::from([(A, 1), (B, 1)]), "healed");
    scene.judge();
}

#[test]
fn r1_46_equal_states_that_look_different_make_nobody_halt() {
    let mut scene = Scene::new(&[A, B]);
    scene.flaw(B).order.store(5, Relaxed);
    scene.add(40 * COMPARE_EVERY);
    assert_eq!(scene.differences, BTreeMap::from([(A, 1), (B, 1)]), "replayed once, and no more");
    assert!(scene.halts(A).is_empty() && scene.halts(B).is_empty());
    scene.judge();
}

#[test]
fn r1_46_a_main_that_is_rebuilt_to_something_else_halts_and_takes_the_other_s_state() {
    let mut scene = Scene::new(&[A, B]);
    scene.flaw(B).born.store(5, Relaxed);
    // A rebuilding before anybody compares: from then on B's state is bad.
    let mut replica = scene.mains.remove(&B).unwrap();
    let out = start(&mut replica, vec![Record::Genesis(genesis())]);
    scene.mains.insert(B, replica);
    scene.absorb(B, out);
    scene.add(3 * COMPARE_EVERY);
    let [why] = scene.halts(B) else { panic!("it halted once: {:?}", scene.halts(B)) };
    assert!(why.starts_with("diverged from n1/") && why.ends_with("taking its state"), "{why}");
    assert!(scene.halts(A).is_empty(), "of as many the lesser name stays");
    scene.judge();
}

#[test]
fn r1_46_a_member_that_came_to_something_else_gives_way_and_no_main_doubts_itself() {
    const MEMBER: u64 = 0; // its name is less than the mains'
    for mains in [&[A][..], &[A, B]] {
        let mut scene = Scene::with_members(mains, &[MEMBER]);
        scene.flaw(MEMBER).born.store(5, Relaxed);
        let configuration =
            Configuration { mains: mains.iter().map(|main| node(*main)).collect(), ..genesis() };
        let mut replica = scene.mains.remove(&MEMBER).unwrap();
        let out = start(&mut replica, vec![Record::Genesis(configuration)]);
        scene.mains.insert(MEMBER, replica);
        scene.absorb(MEMBER, out);
        scene.add(3 * COMPARE_EVERY);
        assert_eq!(scene.halts(MEMBER).len(), 1, "{:?}", scene.halts(MEMBER));
        assert!(
            mains.iter().all(|main| scene.differences[main] == 0 && scene.halts(*main).is_empty())
        );
        scene.judge();
    }
}

#[test]
fn r1_46_the_fewer_give_way_to_the_more() {
    let mut scene = Scene::new(&[A, B, C]);
    scene.flaw(A).born.store(5, Relaxed);
    scene.flaw(A).once.store(5, Relaxed); // so that it is bad before it is rebuilt, too
    scene.add(3 * COMPARE_EVERY);
    let [why] = scene.halts(A) else { panic!("it halted once: {:?}", scene.halts(A)) };
    assert!(why.starts_with("diverged from n2/"), "{why}");
    assert!(scene.halts(B).is_empty() && scene.halts(C).is_empty());
    scene.judge();
}

#[test]
fn r1_46_of_mains_that_all_differ_one_stays_and_the_others_take_its_state() {
    let mut scene = Scene::new(&[A, B, C]);
    for (main, flaw) in [(B, 5), (C, 7)] {
        scene.flaw(main).born.store(flaw, Relaxed);
        scene.flaw(main).once.store(flaw, Relaxed);
    }
    scene.add(3 * COMPARE_EVERY);
    assert!(scene.halts(A).is_empty());
    assert_eq!((scene.halts(B).len(), scene.halts(C).len()), (1, 1), "{:?}", scene.halts);
    scene.judge();
}

#[test]
fn r1_46_an_actor_that_is_not_deterministic_halts_one_main_and_the_other_goes_on() {
    let mut scene = Scene::new(&[A, B]);
    scene.flaw(B).always.store(1, Relaxed);
    scene.add(8 * COMPARE_EVERY);
    assert_eq!(scene.halted(A), None);
    let why = scene.halted(B).expect("it cannot be trusted");
    assert!(why.contains("once more: an actor is not deterministic"), "{why}");
    assert_eq!(scene.mains[&A].summary().0, Step(8 * COMPARE_EVERY + 1), "no step is missing");
}

/// Answers what no other main answers.
#[derive(Default, Serialize, Deserialize, Replicated)]
#[replicated(name = "odd", commands(Next))]
struct Odd(u64);

#[derive(ActixMessage, Serialize, Deserialize, RemoteMessage)]
#[rtype(result = "u64")]
#[remote(name = "odd.next")]
struct Next;

/// Counts executions at all mains together, as a clock or a hash map's order would differ.
static EXECUTED: AtomicU64 = AtomicU64::new(0);

impl Actor for Odd {
    type Context = Turn;
}

impl Handler<Next> for Odd {
    type Result = u64;

    fn handle(&mut self, _: Next, _: &mut Turn) -> u64 {
        self.0 += EXECUTED.fetch_add(1, Relaxed);
        self.0
    }
}

#[test]
fn r1_46_a_main_that_halted_says_so_and_the_cluster_goes_on() {
    Simulation::new(1).run(|sim| async move {
        let mut cluster = Cluster::new(&sim, Shape::default(), Blueprint::hosting::<Odd>("odd"));
        cluster.start_all().unwrap();
        while cluster.is_whole().is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let [a, b] = ["a", "b"].map(|name| cluster.core(&name.parse().unwrap()).unwrap());
        assert_eq!((a.sound(), b.sound()), (Ok(()), Ok(())));
        let odd = Handle::<Odd>::new(a.submit(), "odd");
        for _ in 0..6 * COMPARE_EVERY {
            odd.send(Next).await.unwrap();
        }
        assert_eq!((a.sound(), a.ready()), (Ok(()), Ok(())));
        let why = b.sound().unwrap_err();
        assert!(why.starts_with("diverged from a/") && why.contains("once more"), "{why}");
        assert_eq!(b.ready(), Err(why.clone()));
        assert_eq!(b.status()["halted"], why);
        odd.send(Next).await.unwrap();
    });
}
