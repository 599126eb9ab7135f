//! Under a paused clock, as in simulation: waits are exact.

use std::{
    cell::{Cell, RefCell},
    future::Future,
    rc::Rc,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use actix::{
    Actor, ActorContext as _, Addr, AsyncContext as _, Context, Handler, Message,
    dev::channel::channel,
};
use rand::SeedableRng as _;
use tokio::{task::AbortHandle, time::Instant};

use super::*;
use crate::{
    telemetry::Counter,
    world::{self, Clock, Rng},
};

#[derive(Debug)]
struct PausedClock(Instant);

impl Clock for PausedClock {
    fn now(&self) -> world::Instant {
        world::Instant::from_nanos(u64::try_from(self.0.elapsed().as_nanos()).unwrap())
    }

    fn wall_ms(&self) -> u64 {
        0
    }
}

/// Runs `test` on one thread whose time passes only when all wait.
fn simulated(test: impl Future<Output = ()>) {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_time().start_paused(true).build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, test);
}

/// What happened, over all lives.
#[derive(Default)]
struct Diary {
    lives: Cell<u32>,
    stopped: Cell<u32>,
    ticks: Cell<u32>,
    handled: RefCell<Vec<u32>>,
}

struct Worker {
    life: u32,
    diary: Rc<Diary>,
}

impl Actor for Worker {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        if self.life == 1 {
            ctx.run_later(Duration::from_secs(1), |worker, _| {
                worker.diary.ticks.set(worker.diary.ticks.get() + 1);
            });
        }
    }

    fn stopped(&mut self, _: &mut Self::Context) {
        self.diary.stopped.set(self.diary.stopped.get() + 1);
    }
}

#[derive(Message)]
#[rtype(result = "u32")]
enum Job {
    Note(u32),
    Panic,
    Stop,
}

impl Handler<Job> for Worker {
    type Result = u32;

    fn handle(&mut self, job: Job, ctx: &mut Self::Context) -> u32 {
        match job {
            Job::Note(number) => self.diary.handled.borrow_mut().push(number),
            Job::Panic => panic!("told to"),
            Job::Stop => ctx.stop(),
        }
        self.life
    }
}

struct Supervised {
    addr: Addr<Worker>,
    control: Arc<Control>,
    restarted: Counter,
    diary: Rc<Diary>,
    task: AbortHandle,
}

fn supervised(policy: Policy) -> Supervised {
    let (sender, mailbox) = channel(16);
    let (control, restarted, diary) = (Arc::default(), Counter::default(), Rc::default());
    let setting = Setting {
        name: "worker".into(),
        policy,
        clock: Arc::new(PausedClock(Instant::now())),
        rng: Rng::seed_from_u64(1),
        restarted: restarted.clone(),
        panicked: Counter::default(),
        control: Arc::clone(&control),
        manager: None,
        permit: None,
    };
    let diary_of_lives = Rc::<Diary>::clone(&diary);
    let supervisor = Lives::new(setting, mailbox, move |_| {
        let life = diary_of_lives.lives.get() + 1;
        diary_of_lives.lives.set(life);
        Worker { life, diary: Rc::clone(&diary_of_lives) }
    });
    let task = actix_rt::spawn(supervisor).abort_handle();
    Supervised { addr: Addr::new(sender), control, restarted, diary, task }
}

#[test]
fn a_panic_loses_the_message_in_hand_and_nothing_that_is_queued() {
    simulated(async {
        let worker = supervised(Policy::default());
        for number in 0..200 {
            worker.addr.do_send(Job::Note(number));
            if number == 100 {
                worker.addr.do_send(Job::Panic);
            }
        }
        let before = Instant::now();
        assert_eq!(worker.addr.send(Job::Note(200)).await, Ok(2), "same address, second life");
        assert_eq!(*worker.diary.handled.borrow(), (0..=200).collect::<Vec<_>>());
        assert!(before.elapsed() < Duration::from_millis(10), "the first restart does not wait");
        assert_eq!((worker.restarted.get(), worker.control.restarts()), (1, 1));
        assert_eq!(worker.diary.stopped.get(), 0, "nothing runs on the broken state");
        assert!(worker.addr.send(Job::Panic).await.is_err(), "its asker is told");
    });
}

#[test]
fn failures_in_a_row_wait_longer_and_a_quiet_time_forgives() {
    simulated(async {
        let worker = supervised(Policy::default());
        let mut waits = Vec::new();
        for _ in 0..12 {
            let before = Instant::now();
            worker.addr.do_send(Job::Panic);
            worker.addr.send(Job::Note(0)).await.unwrap();
            waits.push(before.elapsed());
        }
        assert!(waits[0] < Duration::from_millis(10));
        assert!(waits[1] >= Duration::from_millis(25) && waits[1] <= Duration::from_millis(51));
        let last = waits[11];
        assert!(last >= Duration::from_millis(2500) && last <= Duration::from_millis(5001));

        tokio::time::sleep(Duration::from_secs(11)).await;
        let before = Instant::now();
        worker.addr.do_send(Job::Panic);
        worker.addr.send(Job::Note(0)).await.unwrap();
        assert!(before.elapsed() < Duration::from_millis(10));
    });
}

#[test]
fn an_actor_that_stops_at_once_does_not_spin() {
    struct Quitter(Rc<Cell<u32>>);
    impl Actor for Quitter {
        type Context = Context<Self>;

        fn started(&mut self, ctx: &mut Self::Context) {
            self.0.set(self.0.get() + 1);
            ctx.stop();
        }
    }
    simulated(async {
        let (_sender, mailbox) = channel(16);
        let setting = Setting {
            name: "quitter".into(),
            policy: Policy::default(),
            clock: Arc::new(PausedClock(Instant::now())),
            rng: Rng::seed_from_u64(1),
            restarted: Counter::default(),
            panicked: Counter::default(),
            control: Arc::default(),
            manager: None,
            permit: None,
        };
        let starts = Rc::new(Cell::new(0));
        let counted = Rc::clone(&starts);
        actix_rt::spawn(Lives::new(setting, mailbox, move |_| Quitter(Rc::clone(&counted))));
        tokio::time::sleep(Duration::from_secs(30)).await;
        assert!((8..30).contains(&starts.get()), "{} starts", starts.get());
    });
}

#[test]
fn a_stop_is_a_restart_with_a_farewell_and_without_old_timers() {
    simulated(async {
        let worker = supervised(Policy::default());
        worker.addr.do_send(Job::Stop);
        worker.addr.do_send(Job::Note(1));
        assert_eq!(worker.addr.send(Job::Note(2)).await, Ok(2));
        assert_eq!(*worker.diary.handled.borrow(), [1, 2]);
        assert_eq!(worker.diary.stopped.get(), 1);
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(worker.diary.ticks.get(), 0, "the first life's timer went with it");
    });
}

#[test]
fn policies_end_an_actor_and_close_its_address() {
    simulated(async {
        let never = supervised(Policy { restart: Restart::Never, ..Policy::default() });
        never.addr.do_send(Job::Panic);
        assert!(never.addr.send(Job::Note(1)).await.is_err());
        assert!(!never.addr.connected());

        let on_panic = supervised(Policy { restart: Restart::OnPanic, ..Policy::default() });
        on_panic.addr.do_send(Job::Panic);
        assert_eq!(on_panic.addr.send(Job::Note(1)).await, Ok(2));
        on_panic.addr.do_send(Job::Stop);
        assert!(on_panic.addr.send(Job::Note(1)).await.is_err());

        let within = Duration::from_secs(10);
        let twice = supervised(Policy { give_up: Some((2, within)), ..Policy::default() });
        for _ in 0..3 {
            twice.addr.do_send(Job::Panic);
        }
        assert!(twice.addr.send(Job::Note(1)).await.is_err());
        assert_eq!(twice.restarted.get(), 2);
    });
}

#[test]
fn faults_from_outside_look_like_its_own() {
    simulated(async {
        let worker = supervised(Policy::default());
        assert_eq!(worker.addr.send(Job::Note(0)).await, Ok(1));
        worker.control.inject(Fault::Panic);
        assert_eq!(worker.addr.send(Job::Note(0)).await, Ok(2));
        assert_eq!(worker.diary.stopped.get(), 0);
        worker.control.inject(Fault::Stop);
        assert_eq!(worker.addr.send(Job::Note(0)).await, Ok(3));
        assert_eq!(worker.diary.stopped.get(), 1);
        worker.control.retire();
        assert!(worker.addr.send(Job::Note(0)).await.is_err());
        assert!(worker.task.is_finished());
    });
}

#[test]
fn an_abort_drops_the_actor_without_a_farewell() {
    simulated(async {
        let worker = supervised(Policy::default());
        assert_eq!(worker.addr.send(Job::Note(0)).await, Ok(1));
        worker.addr.do_send(Job::Note(1));
        worker.task.abort();
        tokio::task::yield_now().await;
        assert!(!worker.addr.connected());
        assert_eq!(*worker.diary.handled.borrow(), [0]);
        assert_eq!(worker.diary.stopped.get(), 0);
        assert_eq!(Rc::strong_count(&worker.diary), 1, "all of it was dropped");
    });
}

#[test]
fn a_flooded_actor_lets_the_others_on_its_arbiter_have_their_turn() {
    simulated(async {
        let worker = supervised(Policy::default());
        for number in 0..1000 {
            worker.addr.do_send(Job::Note(number));
        }
        let diary = Rc::clone(&worker.diary);
        let control = Arc::clone(&worker.control);
        let other = actix_rt::spawn(async move {
            let mut seen = 0;
            for _ in 0..10 {
                let handled = diary.handled.borrow().len();
                assert!(handled <= seen + 64, "{handled} after {seen}");
                assert!(handled == 0 || control.waiting() == 1000 - handled);
                seen = handled;
                others_first().await;
            }
            assert!(seen > 0);
        });
        other.await.unwrap();
        assert_eq!(worker.addr.send(Job::Note(1000)).await, Ok(1));
        assert_eq!(worker.diary.handled.borrow().len(), 1001);
    });
}

/// Puts this task behind all that are ready (tokio's own yield waits for the driver, too).
async fn others_first() {
    let mut waited = false;
    std::future::poll_fn(|cx| {
        if std::mem::replace(&mut waited, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Goes on by itself a little each time somebody works.
#[derive(Debug, Default)]
struct WorkedClock(std::sync::atomic::AtomicU64);

impl Clock for WorkedClock {
    fn now(&self) -> world::Instant {
        world::Instant::from_nanos(self.0.load(std::sync::atomic::Ordering::SeqCst))
    }

    fn wall_ms(&self) -> u64 {
        0
    }
}

/// Works for some time of its clock with each message.
struct Slow(Arc<WorkedClock>, Rc<Cell<usize>>, Duration);

impl Actor for Slow {
    type Context = Context<Self>;
}

impl Handler<Job> for Slow {
    type Result = u32;

    fn handle(&mut self, job: Job, _: &mut Self::Context) -> u32 {
        let work = u64::try_from(self.2.as_nanos()).unwrap();
        self.0.0.fetch_add(work, std::sync::atomic::Ordering::SeqCst);
        self.1.set(self.1.get() + 1);
        if let Job::Note(more) = job {
            charge(more);
        }
        0
    }
}

/// The lives of a slow actor with 200 messages, and how many it has handled.
fn slow(
    turn: TurnBudget,
    work: Duration,
    job: fn() -> Job,
) -> (impl Future + Unpin, Rc<Cell<usize>>) {
    let (sender, mailbox) = channel(16);
    let (clock, handled) = (Arc::<WorkedClock>::default(), Rc::<Cell<usize>>::default());
    let setting = Setting {
        name: "slow".into(),
        policy: Policy { turn, ..Policy::default() },
        clock: Arc::clone(&clock) as _,
        rng: Rng::seed_from_u64(1),
        restarted: Counter::default(),
        panicked: Counter::default(),
        control: Arc::default(),
        manager: None,
        permit: None,
    };
    let addr = Addr::new(sender);
    for _ in 0..200 {
        addr.do_send(job());
    }
    let counted = Rc::clone(&handled);
    let build = move |_: &mut Context<Slow>| Slow(Arc::clone(&clock), Rc::clone(&counted), work);
    (Lives::new(setting, mailbox, build), handled)
}

/// Method: 200 messages of one millisecond each; what each turn handles is counted.
/// Goal: a slow actor's turn ends by time, long before its number of messages; and what one entry
/// of its mailbox stands for counts.
#[test]
fn a_turn_ends_by_time_or_by_messages_unless_it_is_unlimited() {
    let longest_turn = |turn: TurnBudget, job: fn() -> Job| {
        let longest = Rc::new(Cell::new(0));
        let told = Rc::clone(&longest);
        simulated(async move {
            let (mut lives, handled) = slow(turn, Duration::from_millis(1), job);
            std::future::poll_fn(move |cx| {
                let before = handled.get();
                let _ = std::pin::Pin::new(&mut lives).poll(cx);
                told.set(told.get().max(handled.get() - before));
                if handled.get() == 200 { Poll::Ready(()) } else { Poll::Pending }
            })
            .await;
        });
        longest.get()
    };
    let one = || Job::Note(0);
    assert_eq!(longest_turn(TurnBudget::default(), one), 8, "5 ms are over at the fourth look");
    let endless = TurnBudget { time: Duration::MAX, ..TurnBudget::default() };
    assert_eq!(longest_turn(endless, one), 64);
    assert_eq!(longest_turn(endless, || Job::Note(31)), 2, "batches of 32");
    assert_eq!(longest_turn(TurnBudget::UNLIMITED, one), 200);
}

/// Method: one turn with a waker of our own. Goal: an actor that has been at work for a
/// millisecond is woken only after the runtime has looked at everything else; another, at once.
#[test]
fn a_busy_actor_gives_way_to_its_whole_thread() {
    #[derive(Default)]
    struct Woken(std::sync::atomic::AtomicU32);
    impl futures_util::task::ArcWake for Woken {
        fn wake_by_ref(woken: &Arc<Self>) {
            woken.0.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        }
    }
    for (work, at_once) in [(Duration::from_millis(1), 0), (Duration::from_micros(1), 1)] {
        simulated(async move {
            let (mut lives, handled) = slow(TurnBudget::default(), work, || Job::Note(0));
            let woken = Arc::<Woken>::default();
            let waker = futures_util::task::waker(Arc::clone(&woken));
            let mut cx = std::task::Context::from_waker(&waker);
            assert!(std::pin::Pin::new(&mut lives).poll(&mut cx).is_pending());
            let count = || woken.0.load(std::sync::atomic::Ordering::SeqCst);
            assert_eq!((count(), handled.get() < 200), (at_once, true));
            tokio::time::sleep(Duration::from_millis(1)).await;
            assert_eq!(count(), 1, "but it is woken");
        });
    }
}
