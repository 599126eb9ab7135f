//! The state machine at its bench: what equal orders make of it, however they are cut.

use std::sync::Mutex;

use rand::{RngExt as _, SeedableRng};
use serde::Serialize;
use synod_runtime::world::Rng;

use super::*;
use crate::{
    multicast::message::{Mid, Pair},
    replicated::{
        Host, RemoteMessage as _, name_hash,
        tests::{Balance, Ledger, Refused, Transfer},
    },
};

fn bench(desk: &Arc<Desk>) -> Bench {
    Bench::new(Box::new(Host::<Ledger>::default()), Arc::clone(desk))
}

fn args(message: &impl Serialize) -> Bytes {
    rmp_serde::to_vec_named(message).unwrap().into()
}

/// The order of a group, letter by letter.
#[derive(Default)]
struct Order(Vec<Entry>);

impl Order {
    /// Puts a message in its place.
    fn put(&mut self, publisher: u64, payload: Bytes) -> Mid {
        let seq = Seq(self.0.len() as u64 + 1);
        let mid = Mid { publisher: Publisher(publisher), number: seq.0 };
        let pair = Pair { mid: Some(mid), stamp: Seq(0), lowest_open: 1 };
        self.0.push(Entry { seq, pair, payload });
        mid
    }

    fn void(&mut self) {
        let seq = Seq(self.0.len() as u64 + 1);
        self.0.push(Entry { seq, pair: Pair::VOID, payload: Bytes::new() });
    }

    /// A whole command, sent at that time; where it is executed.
    fn command(
        &mut self,
        publisher: u64,
        time_ms: u64,
        name: &str,
        message: &impl Serialize,
    ) -> Mid {
        let letters = Letter::command((time_ms, time_ms), name_hash(name), args(message));
        let mids = letters.map(|letter| self.put(publisher, letter.write()));
        mids.last().expect("there is one at least")
    }
}

/// What callers were told, in order.
type Told = Arc<Mutex<Vec<Outcome>>>;

fn expect(desk: &Desk, mid: Mid, told: &Told) {
    let told = Arc::clone(told);
    let done = Box::new(move |outcome| told.lock().unwrap().push(outcome));
    desk.expect(mid, Waiting { done: Some(done), ..Waiting::default() });
}

fn reply_of<T: serde::de::DeserializeOwned>(outcome: &Outcome) -> T {
    let Outcome::Applied { reply, .. } = outcome else { panic!("{outcome:?}") };
    rmp_serde::from_slice(reply).unwrap()
}

/// A lottery, by its name only.
#[derive(Serialize)]
struct Lottery {
    tickets: Vec<u8>,
}

/// A handler that panics.
#[derive(Serialize)]
struct Explode;

/// Goal: equal orders give equal states, bit by bit, wherever a node took a checkpoint over. Method:
/// commands of several publishers, some in many letters that mix with others', voids and what is no
/// letter at all; one node sees all of it, another is rebuilt again and again.
#[test]
fn equal_orders_give_equal_states_however_checkpoints_cut_them() {
    for seed in 0..20 {
        let mut rng = Rng::seed_from_u64(seed);
        let mut order = Order::default();
        // Of each publisher: letters of its command that have no place yet.
        let mut open: Vec<Vec<Letter>> = vec![Vec::new(); 4];
        for turn in 0..200_u64 {
            let publisher = rng.random_range(0..open.len());
            let rest = &mut open[publisher];
            if rest.is_empty() {
                let long = "b".repeat([1, 1, 1, 70_000, 200_000][rng.random_range(0..5)]);
                let (name, args) = match rng.random_range(0..4) {
                    0 => ("ledger.lottery", args(&Lottery { tickets: Vec::new() })),
                    _ => {
                        let transfer = Transfer { from: "a".into(), to: long, amount: 1 };
                        (Transfer::NAME, args(&transfer))
                    }
                };
                let told = (1_000 * turn.abs_diff(5), rng.random());
                *rest = Letter::command(told, name_hash(name), args).collect();
                rest.reverse();
            }
            match rng.random_range(0..12) {
                0 => order.void(),
                1 => drop(order.put(99, Bytes::from_static(b"it rains"))),
                2 => drop(order.put(99, Letter::mark(turn).write())),
                // Its publisher gave up in the middle.
                3 => rest.clear(),
                _ => {
                    let letter = rest.pop().expect("there was one");
                    order.put(publisher as u64, letter.write());
                }
            }
        }
        let desk = Arc::<Desk>::default();
        let (mut whole, mut cut) = (bench(&desk), bench(&desk));
        let mut time_ms = 0;
        for entry in &order.0 {
            whole.deliver(entry);
            assert!(whole.now.time_ms >= time_ms, "agreed time went back");
            time_ms = whole.now.time_ms;
            if rng.random_range(0..10) == 0 {
                let blocks = cut.checkpoint();
                assert!(blocks.iter().all(|block| block.len() <= BLOCK_BYTES));
                cut = bench(&desk);
                cut.restore(&blocks).unwrap();
                assert_eq!(cut.checkpoint(), blocks);
            }
            cut.deliver(entry);
        }
        assert_eq!(whole.checkpoint(), cut.checkpoint(), "seed {seed}");
        let question = question(name_hash(Balance::NAME), &args(&Balance { of: "a".into() }));
        let left: i64 = rmp_serde::from_slice(&whole.query(&question).unwrap()).unwrap();
        assert!((1..100).contains(&left), "seed {seed}: {left}");
    }
}

/// Goal: whoever waits is told what its own command did, once; a question sees what is before it.
#[test]
fn callers_are_told_what_their_own_commands_did() {
    let (desk, told) = (Arc::<Desk>::default(), Told::default());
    let mut order = Order::default();
    let pay = |amount| Transfer { from: "a".into(), to: "b".into(), amount };
    for (publisher, amount) in [(1, 30), (2, 90), (1, 0)] {
        let mid = order.command(publisher, 7, Transfer::NAME, &pay(amount));
        expect(&desk, mid, &told);
    }
    let bad = order.command(1, 7, Transfer::NAME, &"nonsense");
    expect(&desk, bad, &told);
    // A command whose first letter found no place.
    let long = Transfer { from: "a".repeat(100_000), to: "b".into(), amount: 1 };
    let letters = Letter::command((7, 7), name_hash(Transfer::NAME), args(&long));
    let last = order.put(1, letters.last().expect("there are two").write());
    expect(&desk, last, &told);
    let mark = order.put(2, Letter::mark(9).write());
    let seen = Told::default();
    let answer = Arc::clone(&seen);
    let inquiry = crate::replicated::Inquiry {
        actor: name_hash("ledger"),
        function: name_hash(Balance::NAME),
        args: args(&Balance { of: "b".into() }),
        consistency: crate::replicated::Consistency::Linearizable,
        deadline: std::time::Duration::from_secs(1),
        done: Box::new(move |outcome| answer.lock().unwrap().push(outcome)),
    };
    desk.expect(mark, Waiting { inquiries: vec![inquiry], ..Waiting::default() });
    let mut bench = bench(&desk);
    // Said once more, as after a rebuilding: nobody is told twice.
    for entry in order.0.iter().chain(&order.0[..1]) {
        bench.deliver(entry);
    }
    let told = told.lock().unwrap();
    let refused: Vec<Result<i64, Refused>> = told[..3].iter().map(reply_of).collect();
    assert_eq!(refused, [Ok(70), Err(Refused::Poor { has: 70 }), Err(Refused::Nonsense)]);
    assert!(matches!(&told[0], Outcome::Applied { position: Position(1), .. }));
    assert!(matches!(&told[3..], [Outcome::Failed(_), Outcome::Failed(_)]), "{told:?}");
    let seen = seen.lock().unwrap();
    assert_eq!(seen.iter().map(reply_of::<i64>).collect::<Vec<_>>(), [130]);
}

/// Goal: a handler's panic costs its own command, at every node, and nothing else. Method: the bench is
/// thrown away, as a role is, and made again from the checkpoint before.
#[test]
fn a_command_at_which_the_handler_panics_is_left_out_by_all() {
    let (desk, told) = (Arc::<Desk>::default(), Told::default());
    let mut order = Order::default();
    let pay = Transfer { from: "a".into(), to: "b".into(), amount: 1 };
    order.command(1, 1, Transfer::NAME, &pay);
    let mid = order.command(1, 2, "ledger.explode", &Explode);
    expect(&desk, mid, &told);
    order.command(1, 3, Transfer::NAME, &pay);
    let mut first = bench(&desk);
    first.deliver(&order.0[0]);
    let checkpoint = first.checkpoint();
    let panicked = catch_unwind(AssertUnwindSafe(|| first.deliver(&order.0[1])));
    assert!(panicked.is_err(), "whoever runs it must build it again");
    let mut again = bench(&desk);
    again.restore(&checkpoint).unwrap();
    order.0[1..].iter().for_each(|entry| again.deliver(entry));
    assert!(matches!(&told.lock().unwrap()[..], [Outcome::Failed(_)]));
    // What it would be had the command never been sent, but for the time.
    let mut without = bench(&desk);
    order.0[1] = Entry { payload: Letter::mark(2).write(), ..order.0[1].clone() };
    order.0.iter().for_each(|entry| without.deliver(entry));
    assert_eq!(again.checkpoint(), without.checkpoint());
}

/// Goal: a build that does not know a command does not go on without it.
#[test]
fn a_command_that_this_build_does_not_know_stops_its_node() {
    let desk = Arc::<Desk>::default();
    let mut order = Order::default();
    order.command(1, 1, "ledger.of_tomorrow", &Explode);
    for _ in 0..2 {
        let mut bench = bench(&desk);
        let went_on = catch_unwind(AssertUnwindSafe(|| bench.deliver(&order.0[0])));
        assert!(went_on.is_err());
    }
}

#[test]
fn what_is_no_checkpoint_is_refused_and_changes_nothing() {
    let desk = Arc::<Desk>::default();
    let mut bench = bench(&desk);
    let good = bench.checkpoint();
    let mut refused = 0;
    let whole = good.concat();
    for len in 0..whole.len() {
        let part = Bytes::copy_from_slice(&whole[..len]);
        refused += usize::from(bench.restore(&[part]).is_err());
    }
    assert_eq!(refused, whole.len());
    assert_eq!(bench.checkpoint(), good);
}
