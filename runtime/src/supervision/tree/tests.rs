//! Trees on a simulated node.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use actix::{ActorContext as _, AsyncContext as _, Handler, Message, Running as Keep};

use super::*;
use crate::{
    identity::Incarnation, node::NodeConfig, registry::watch::Reason, sim::Simulation,
    supervision::Fault,
};

/// Everything that children did, in order, and their lives so far.
#[derive(Clone, Default)]
struct Diary(Arc<Mutex<Pages>>);

type Pages = (Vec<String>, BTreeMap<&'static str, u32>);

impl Diary {
    fn note(&self, text: String) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).0.push(text);
    }

    fn read(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner).0)
    }

    /// A factory of workers called `name`.
    fn worker(&self, name: &'static str) -> impl FnMut() -> Worker + Send + 'static {
        let diary = self.clone();
        move || {
            let mut inner = diary.0.lock().unwrap_or_else(PoisonError::into_inner);
            let life = inner.1.entry(name).or_default();
            *life += 1;
            Worker { name, life: *life, diary: diary.clone(), busy: false }
        }
    }
}

struct Worker {
    name: &'static str,
    life: u32,
    diary: Diary,
    /// Refuses to stop until its work is done.
    busy: bool,
}

impl Actor for Worker {
    type Context = Context<Self>;

    fn started(&mut self, _: &mut Self::Context) {
        self.diary.note(format!("+{}{}", self.name, self.life));
    }

    fn stopping(&mut self, _: &mut Self::Context) -> Keep {
        if self.busy { Keep::Continue } else { Keep::Stop }
    }

    fn stopped(&mut self, _: &mut Self::Context) {
        self.diary.note(format!("-{}{}", self.name, self.life));
    }
}

#[derive(Message)]
#[rtype(result = "u32")]
enum Job {
    Look,
    Panic,
    Stop,
    /// Works for so many milliseconds, which no stop cuts short.
    Work(u64),
}

impl Handler<Job> for Worker {
    type Result = u32;

    fn handle(&mut self, job: Job, ctx: &mut Self::Context) -> u32 {
        match job {
            Job::Look => {}
            Job::Panic => panic!("told to"),
            Job::Stop => ctx.stop(),
            Job::Work(ms) => {
                self.busy = true;
                ctx.run_later(Duration::from_millis(ms), |worker, ctx| {
                    worker.busy = false;
                    ctx.stop();
                });
            }
        }
        self.life
    }
}

fn simulated<F: Future<Output = ()>>(test: impl FnOnce(Node, Diary) -> F) {
    Simulation::new(1).run(|sim| {
        let name = "a".parse().unwrap();
        let config = NodeConfig::new("test".parse().unwrap(), name, Incarnation(1));
        test(Node::start(sim.world(&config.name), config).unwrap(), Diary::default())
    });
}

async fn pass(ms: u64) {
    tokio::time::sleep(Duration::from_millis(ms)).await;
}

fn three(diary: &Diary, strategy: Strategy) -> Supervisor {
    Supervisor::tree("t")
        .strategy(strategy)
        .child("a", diary.worker("a"))
        .child("b", diary.worker("b"))
        .child("c", diary.worker("c"))
}

#[test]
fn a_strategy_says_who_is_begun_anew_and_all_ends_in_reverse() {
    for (strategy, anew) in [
        (Strategy::OneForOne, vec!["+b2"]),
        (Strategy::RestForOne, vec!["-c1", "+b2", "+c2"]),
        (Strategy::OneForAll, vec!["-c1", "-a1", "+a2", "+b2", "+c2"]),
    ] {
        simulated(|node, diary| async move {
            let tree = three(&diary, strategy).start(&node).unwrap();
            let addr = ["a", "b", "c"].map(|name| tree.addr::<Worker>(name).unwrap());
            pass(1).await;
            assert_eq!(diary.read(), ["+a1", "+b1", "+c1"]);
            let panicked = addr[1].send(Job::Panic);
            let queued = addr.each_ref().map(|addr| addr.send(Job::Look));
            assert!(panicked.await.is_err());
            let lives = futures_util::future::join_all(queued).await;
            assert_eq!(lives[1], Ok(2), "what was queued is handled by the next life");
            pass(1).await;
            assert_eq!(diary.read(), anew, "{strategy:?}");
            let ends: Vec<_> = addr.iter().map(|addr| addr.send(Job::Look)).collect();
            let lives = futures_util::future::join_all(ends).await;
            assert!(tree.stop(Duration::from_secs(1)).await);
            let [a, b, c] = [0, 1, 2].map(|at| *lives[at].as_ref().unwrap());
            assert_eq!(diary.read(), [format!("-c{c}"), format!("-b{b}"), format!("-a{a}")]);
            assert!(node.registry().is_empty(), "all names are free");
        });
    }
}

#[test]
fn a_spent_budget_ends_the_children_first_and_then_the_tree() {
    simulated(|node, diary| async move {
        let tree = three(&diary, Strategy::OneForOne).restarts(2, Duration::from_secs(10));
        let tree = tree.start(&node).unwrap();
        let (b, watch) = (tree.addr::<Worker>("b").unwrap(), tree.watch());
        let child = node.watch_name(node.id(), "t/b");
        pass(1).await;
        for _ in 0..3 {
            b.do_send(Job::Panic);
        }
        let reason = watch.await.reason;
        assert!(matches!(&reason, Reason::GaveUp { why } if why.contains("told to")), "{reason}");
        assert_eq!(child.await.reason, Reason::Panicked { text: "told to".into() });
        assert_eq!(diary.read(), ["+a1", "+b1", "+c1", "+b2", "+b3", "-c1", "-a1"]);
        assert!(!b.connected() && node.registry().is_empty());
    });
}

#[test]
fn a_tree_below_that_gives_up_is_one_failure_above_and_begins_with_a_fresh_budget() {
    simulated(|node, diary| async move {
        let below = Supervisor::tree("below")
            .restarts(1, Duration::from_secs(10))
            .child("x", diary.worker("x"))
            .child("y", diary.worker("y"));
        let tree = Supervisor::tree("t")
            .strategy(Strategy::RestForOne)
            .restarts(1, Duration::from_secs(10))
            .child("a", diary.worker("a"))
            .child_tree(below)
            .child("z", diary.worker("z"))
            .start(&node)
            .unwrap();
        let x = tree.addr::<Worker>("below/x").unwrap();
        pass(1).await;
        assert_eq!(diary.read(), ["+a1", "+x1", "+y1", "+z1"]);
        x.do_send(Job::Panic);
        x.do_send(Job::Panic);
        pass(100).await;
        assert_eq!(diary.read(), ["+x2", "-y1", "-z1", "+x3", "+y2", "+z2"]);
        assert_eq!(x.send(Job::Look).await, Ok(3), "behind the address it always had");
        x.do_send(Job::Panic);
        pass(100).await;
        assert_eq!(diary.read(), ["+x4"]);
        let watch = tree.watch();
        x.do_send(Job::Panic);
        assert!(
            matches!(watch.await.reason, Reason::GaveUp { .. }),
            "and then the root's is spent"
        );
        assert_eq!(diary.read(), ["-y2", "-z2", "-a1"]);
        assert!(node.registry().is_empty());
    });
}

#[test]
fn failures_in_a_row_wait_longer_and_a_quiet_child_does_not_pay_for_them() {
    simulated(|node, diary| async move {
        let tree = three(&diary, Strategy::OneForOne)
            .restarts(100, Duration::from_secs(10))
            .backoff(Duration::from_millis(100), Duration::from_millis(400))
            .start(&node)
            .unwrap();
        let [a, b] = ["a", "b"].map(|name| tree.addr::<Worker>(name).unwrap());
        let mut waits = Vec::new();
        for _ in 0..6 {
            let before = node.clock().now();
            b.do_send(Job::Panic);
            b.send(Job::Look).await.unwrap();
            waits.push(node.clock().now().since(before).as_millis());
        }
        let whole = [0, 100, 200, 400, 400, 400];
        for (wait, whole) in waits.iter().zip(whole) {
            assert!((whole / 2..=whole + 2).contains(wait), "{waits:?}");
        }
        let before = node.clock().now();
        b.do_send(Job::Panic);
        a.do_send(Job::Panic);
        assert_eq!(a.send(Job::Look).await, Ok(2));
        assert!(node.clock().now().since(before) < Duration::from_millis(5));
    });
}

#[test]
fn a_child_that_may_end_does_and_the_others_go_on() {
    simulated(|node, diary| async move {
        let tree = Supervisor::tree("t")
            .strategy(Strategy::OneForAll)
            .child("a", diary.worker("a"))
            .restart(Restart::OnPanic)
            .child("b", diary.worker("b"))
            .start(&node)
            .unwrap();
        let [a, b] = ["a", "b"].map(|name| tree.addr::<Worker>(name).unwrap());
        let watch = node.watch_name(node.id(), "t/b");
        b.do_send(Job::Stop);
        assert_eq!(watch.await.reason, Reason::Stopped);
        assert_eq!(a.send(Job::Look).await, Ok(1));
        a.do_send(Job::Panic);
        assert_eq!(a.send(Job::Look).await, Ok(2));
        assert!(!b.connected());
        assert!(tree.stop(Duration::from_secs(1)).await);
        assert_eq!(diary.read(), ["+a1", "+b1", "-b1", "+a2", "-a2"]);
    });
}

#[test]
fn an_orderly_stop_works_off_what_is_queued_and_a_deadline_ends_it() {
    simulated(|node, diary| async move {
        let tree = three(&diary, Strategy::OneForOne).start(&node).unwrap();
        let [a, c] = ["a", "c"].map(|name| tree.addr::<Worker>(name).unwrap());
        pass(1).await;
        let looks: Vec<_> = (0..500).map(|_| c.send(Job::Look)).collect();
        c.do_send(Job::Work(300));
        let before = node.clock().now();
        let all = futures_util::future::join_all(looks);
        let (stopped, looks) =
            futures_util::future::join(tree.stop(Duration::from_secs(1)), all).await;
        assert!(stopped && looks.iter().all(Result::is_ok));
        assert!(node.clock().now().since(before) >= Duration::from_millis(300));
        assert_eq!(diary.read(), ["+a1", "+b1", "+c1", "-c1", "-b1", "-a1"]);
        assert!(!a.connected());

        let tree = three(&diary, Strategy::OneForOne).start(&node).unwrap();
        tree.addr::<Worker>("b").unwrap().send(Job::Work(10_000)).await.unwrap();
        let before = node.clock().now();
        assert!(!tree.stop(Duration::from_secs(1)).await);
        let took = node.clock().now().since(before);
        assert!(took < Duration::from_millis(1_100), "{took:?}");
        assert_eq!(diary.read(), ["+a2", "+b2", "+c2", "-c2", "-a2"]);
    });
}

#[test]
fn a_sibling_that_refuses_to_end_is_ended_when_its_time_is_up() {
    simulated(|node, diary| async move {
        let tree = three(&diary, Strategy::OneForAll).stop_within(Duration::from_millis(200));
        let tree = tree.start(&node).unwrap();
        let [a, c] = ["a", "c"].map(|name| tree.addr::<Worker>(name).unwrap());
        c.send(Job::Work(10_000)).await.unwrap();
        let before = node.clock().now();
        a.do_send(Job::Panic);
        assert_eq!(c.send(Job::Look).await, Ok(1), "it goes on while it is asked to end");
        pass(300).await;
        assert_eq!(c.send(Job::Look).await, Ok(2));
        assert!(node.clock().now().since(before) < Duration::from_millis(400));
        assert_eq!(diary.read(), ["+a1", "+b1", "+c1", "-b1", "+a2", "+b2", "+c2"]);
    });
}

#[test]
fn a_tree_with_a_taken_name_leaves_nothing() {
    simulated(|node, diary| async move {
        let _taken = node.spawn("t/below/y", diary.worker("taken"));
        let below =
            Supervisor::tree("below").child("x", diary.worker("x")).child("y", diary.worker("y"));
        let tree = Supervisor::tree("t").child("a", diary.worker("a")).child_tree(below);
        assert!(matches!(tree.start(&node), Err(RegisterError::Taken { .. })));
        pass(1).await;
        let names: Vec<_> = node.registry().into_iter().map(|row| row.name).collect();
        assert_eq!(names, ["t/below/y"]);
        assert_eq!(diary.read(), ["+taken1"], "nothing was begun");
    });
}

#[test]
fn injected_faults_and_a_hard_stop_reach_children_by_their_path() {
    simulated(|node, diary| async move {
        let tree = three(&diary, Strategy::OneForOne).start(&node).unwrap();
        pass(1).await;
        assert!(node.inject("t/b", Fault::Panic) && node.inject("t/c", Fault::Stop));
        pass(1).await;
        assert_eq!(diary.read(), ["+a1", "+b1", "+c1", "-c1", "+b2", "+c2"]);
        let watch = tree.watch();
        assert!(node.stop("t"));
        assert_eq!(watch.await.reason, Reason::Stopped);
        pass(1).await;
        assert!(node.registry().is_empty());
    });
}
