//! Credits: who is slow slows only those who send to it, and nothing waits without bound.

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use actix::{AtomicResponse, WrapFuture as _};

use super::*;
use crate::node::credit::TARGET_WINDOW;

/// Works on one message at a time.
#[derive(Clone, Default, RemoteActor)]
#[remote(name = "worker", handles(Work), crate = "crate")]
struct Worker(Arc<AtomicU64>);

impl Actor for Worker {
    type Context = Context<Self>;
}

/// Takes so many milliseconds, in which the actor does nothing else; answered with the number of
/// messages begun before.
#[derive(Clone, Debug, PartialEq, Message, Serialize, Deserialize, RemoteMessage)]
#[rtype(result = "u64")]
#[remote(name = "worker.work", crate = "crate")]
struct Work(u64);

impl Handler<Work> for Worker {
    type Result = AtomicResponse<Self, u64>;

    fn handle(&mut self, work: Work, _: &mut Self::Context) -> Self::Result {
        let begun = self.0.fetch_add(1, SeqCst);
        let time = Duration::from_millis(work.0);
        AtomicResponse::new(Box::pin(
            async move {
                if !time.is_zero() {
                    tokio::time::sleep(time).await;
                }
                begun
            }
            .into_actor(self),
        ))
    }
}

/// A pair with a worker on the second node, as seen from the first.
async fn with_worker() -> (Pair, RemoteAddr<Worker>, Arc<AtomicU64>) {
    let pair = pair().await;
    let worker = Worker::default();
    let begun = Arc::clone(&worker.0);
    pair.b.register("worker", pair.b.spawn("worker", move || worker.clone())).unwrap();
    let address = pair.a.address(pair.b.id().clone(), "worker");
    (pair, address, begun)
}

const DAY: u64 = 24 * 3600 * 1000;

#[test]
fn a_slow_actor_slows_only_those_who_send_to_it() {
    simulated(async {
        let (Pair { a, b, till, .. }, worker, begun) = with_worker().await;
        let mut letters = a.dead_letters();
        for _ in 0..3 * TARGET_WINDOW {
            worker.do_send(Work(DAY));
        }
        assert_eq!(dead_letters(&a, "overloaded"), 2 * TARGET_WINDOW);
        let letter = letters.next().await.unwrap();
        assert_eq!((letter.reason, letter.target.as_str()), ("overloaded", "worker"));
        let refused = worker.try_send(Work(7)).unwrap_err();
        assert_eq!((refused.error, refused.message), (SendError::Overloaded, Work(7)));
        // The one that is being worked on has made room for one more.
        until("a probe is answered", || worker.try_send(Work(0)).is_ok()).await;
        let before = a.now();
        let asked = worker.send(Work(0)).timeout(Duration::from_secs(2)).await;
        assert_eq!(asked, Err(SendError::Overloaded), "there was no room in all the time");
        assert_eq!(a.now().since(before), Duration::from_secs(2));
        assert_eq!(begun.load(SeqCst), 1);

        // The link, its heartbeats and other actors do not notice.
        let beats = Arc::<AtomicU64>::default();
        let heard = Arc::clone(&beats);
        b.watch_peers(Box::new(move |event| {
            heard.fetch_add(u64::from(matches!(event, PeerEvent::Heartbeat { .. })), SeqCst);
        }));
        let before = a.now();
        for n in 0..3 * TARGET_WINDOW {
            assert_eq!(till.send(Pay(1)).await, Ok(Ok(n + 1)));
        }
        a.heartbeat(b.name(), 0, b"").unwrap();
        until("the heartbeat", || beats.load(SeqCst) == 1).await;
        assert!(a.now().since(before) < Duration::from_millis(10));
        assert_eq!(a.peers_up().len(), 1);
        let row = b.registry().into_iter().find(|row| row.name == "worker").unwrap();
        assert_eq!(row.kind, "worker");
    });
}

#[test]
fn credit_comes_back_as_messages_are_handled() {
    simulated(async {
        let (pair, worker, begun) = with_worker().await;
        let (a, till) = (&pair.a, &pair.till);
        // All at once: those beyond the window wait for room, and none is lost.
        let asks = (0..3 * TARGET_WINDOW).map(|_| worker.send(Work(0)));
        let answers = futures_util::future::join_all(asks).await;
        let failed = answers.iter().filter_map(|answer| answer.as_ref().err());
        assert_eq!(failed.collect::<Vec<_>>(), Vec::<&SendError>::new());
        assert_eq!(begun.load(SeqCst), 3 * TARGET_WINDOW);
        for _ in 0..30 {
            for _ in 0..TARGET_WINDOW / 3 {
                till.do_send(Pay(1));
            }
            assert!(till.send(Pay(0)).await.is_ok());
        }
        assert_eq!(dead_letters(a, "overloaded"), 0);
    });
}

#[test]
fn large_messages_cost_more_and_the_largest_can_be_sent() {
    simulated(async {
        let Pair { a, b, .. } = pair().await;
        let sink = Arc::new(Sink::default());
        let _binding = b.bind("sink", Arc::clone(&sink) as Arc<dyn Deliver>).unwrap();
        for _ in 0..20 {
            let (target, body) = (name_hash("sink"), vec![0; crate::wire::BODY_BYTES_MAX]);
            let asked = a.ask(b.name(), target, 1, Lane::User, body, ASK_TIMEOUT).await;
            assert_eq!(asked.unwrap().len(), crate::wire::BODY_BYTES_MAX);
        }
    });
}

#[test]
fn credit_that_was_lost_on_the_way_is_found_again() {
    simulated(async {
        let (Pair { a, b, .. }, worker, _) = with_worker().await;
        let allowance = a.allowance(b.name(), name_hash("worker")).unwrap();
        // Spent for messages that never arrived.
        while allowance.try_spend(&a, 0).is_ok() {}
        until("the other side grants again", || worker.try_send(Work(0)).is_ok()).await;
        for _ in 0..2 * TARGET_WINDOW {
            assert!(worker.send(Work(0)).await.is_ok());
        }
    });
}

#[test]
fn the_protocols_lanes_cost_no_credit() {
    simulated(async {
        let Pair { a, b, .. } = pair().await;
        let sink = Arc::new(Sink::default());
        let _binding = b.bind("sink", Arc::clone(&sink) as Arc<dyn Deliver>).unwrap();
        for lane in [Lane::Control, Lane::Consensus, Lane::Bulk] {
            for _ in 0..2 * TARGET_WINDOW {
                a.tell(b.name(), "sink", 1, lane, b"x").unwrap();
            }
        }
        let all = usize::try_from(6 * TARGET_WINDOW).unwrap();
        until("all arrive", || sink.0.lock().unwrap().iter().sum::<usize>() == all).await;
    });
}

#[test]
fn a_link_that_flaps_does_not_fill_an_inbox() {
    simulated(async {
        let (Pair { network, b, .. }, worker, begun) = with_worker().await;
        for _ in 0..5 {
            until("the link is up", || worker.try_send(Work(DAY)).is_ok()).await;
            while worker.try_send(Work(DAY)).is_ok() {}
            tokio::time::sleep(Duration::from_millis(5)).await;
            network.cut();
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        // Five windows were sent, and no more than two are kept.
        let (kept, refused) = (2 * TARGET_WINDOW, dead_letters(&b, "overloaded"));
        assert!(refused >= 3 * TARGET_WINDOW - 10, "{refused}");
        let waiting = || b.registry().into_iter().find(|row| row.name == "worker").unwrap().mailbox;
        assert!(waiting() <= kept, "{}", waiting());
        assert_eq!(begun.load(SeqCst), 1);
    });
}

#[test]
fn an_ask_that_is_cancelled_or_late_while_it_waits_is_not_begun() {
    simulated(async {
        let (Pair { b, .. }, worker, begun) = with_worker().await;
        worker.do_send(Work(1000));
        let hasty = Duration::from_millis(10);
        assert!(tokio::time::timeout(hasty, worker.send(Work(0))).await.is_err(), "dropped");
        assert_eq!(worker.send(Work(0)).timeout(hasty).await, Err(SendError::Timeout), "late");
        assert_eq!(worker.send(Work(0)).await, Ok(1), "begun after the first one only");
        assert_eq!((begun.load(SeqCst), b.0.asks.open()), (2, (0, 0)));
    });
}

#[test]
fn what_waits_for_an_actor_that_ends_is_told_that_it_was_not_run() {
    simulated(async {
        let (Pair { b, .. }, worker, begun) = with_worker().await;
        worker.do_send(Work(1000));
        worker.do_send(Work(1000));
        let stop = async {
            tokio::time::sleep(Duration::from_millis(10)).await;
            b.stop("worker");
        };
        let (asked, ()) = futures_util::future::join(worker.send(Work(0)), stop).await;
        assert_eq!(asked, Err(SendError::NoSuchActor));
        assert_eq!((begun.load(SeqCst), dead_letters(&b, "no_such_actor")), (1, 1));
        assert_eq!(b.0.asks.open(), (0, 0));
    });
}
