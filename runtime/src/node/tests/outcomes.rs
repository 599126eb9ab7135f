//! What each error says of its message, held against whether the handler ran.

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use super::*;

/// Counts every handler it runs.
#[derive(Clone, Default, RemoteActor)]
#[remote(name = "witness", handles(Slow, Bad, Riddle), crate = "crate")]
struct Witness(Arc<AtomicU64>);

impl Witness {
    fn saw(&self) {
        self.0.fetch_add(1, SeqCst);
    }
}

impl Actor for Witness {
    type Context = Context<Self>;
}

/// Takes so many milliseconds.
#[derive(Message, Serialize, Deserialize, RemoteMessage)]
#[rtype(result = "()")]
#[remote(name = "witness.slow", crate = "crate")]
struct Slow(u64);

impl Handler<Slow> for Witness {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, slow: Slow, _: &mut Self::Context) -> Self::Result {
        self.saw();
        Box::pin(tokio::time::sleep(Duration::from_millis(slow.0)))
    }
}

/// The handler panics.
#[derive(Message, Serialize, Deserialize, RemoteMessage)]
#[rtype(result = "()")]
#[remote(name = "witness.bad", crate = "crate")]
struct Bad;

impl Handler<Bad> for Witness {
    type Result = ();

    fn handle(&mut self, _: Bad, _: &mut Self::Context) {
        self.saw();
        panic!("told to");
    }
}

/// The answer can be written and not be read.
#[derive(Message, Serialize, Deserialize, RemoteMessage)]
#[rtype(result = "Answer")]
#[remote(name = "witness.riddle", crate = "crate")]
struct Riddle;

#[derive(Debug, PartialEq, actix::MessageResponse)]
struct Answer;

impl Serialize for Answer {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_unit()
    }
}

impl<'de> Deserialize<'de> for Answer {
    fn deserialize<D: serde::Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        Err(serde::de::Error::custom("nobody knows"))
    }
}

impl Handler<Riddle> for Witness {
    type Result = Answer;

    fn handle(&mut self, _: Riddle, _: &mut Self::Context) -> Answer {
        self.saw();
        Answer
    }
}

/// Taken by the type, not listed for other nodes.
impl Handler<Pay> for Witness {
    type Result = Result<u64, Refused>;

    fn handle(&mut self, _: Pay, _: &mut Self::Context) -> Self::Result {
        self.saw();
        Ok(0)
    }
}

/// Two linked nodes and a witness on the second, as seen from the first.
struct Scene {
    pair: Pair,
    witness: RemoteAddr<Witness>,
    ran: Arc<AtomicU64>,
}

impl Scene {
    async fn set() -> Self {
        let pair = pair().await;
        let seen = Witness::default();
        let ran = Arc::clone(&seen.0);
        let addr = pair.b.spawn("witness", move || seen.clone());
        pair.b.register("witness", addr).unwrap();
        let witness = pair.a.address(pair.b.id().clone(), "witness");
        Self { pair, witness, ran }
    }

    /// Holds an error against what happened: long after it, when nothing moves any more.
    async fn judge(&self, error: &SendError, outcome: Delivery, ran: u64) {
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert_eq!((error.outcome(), self.ran.load(SeqCst)), (outcome, ran), "{error}");
    }
}

const SHORT: Duration = Duration::from_millis(50);

#[test]
fn timeout_is_unknown_since_the_handler_may_have_run() {
    simulated(async {
        let scene = Scene::set().await;
        let error = scene.witness.send(Slow(500)).timeout(SHORT).await.unwrap_err();
        assert_eq!(error, SendError::Timeout);
        scene.judge(&error, Delivery::Unknown, 1).await;
        // And it may not have: the actor was being rebuilt until after the deadline.
        for _ in 0..4 {
            scene.pair.b.inject("witness", Fault::Panic);
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let error = scene.witness.send(Slow(0)).timeout(Duration::from_millis(2)).await;
        assert_eq!(error, Err(SendError::Timeout));
        scene.judge(&SendError::Timeout, Delivery::Unknown, 1).await;
    });
}

#[test]
fn unreachable_is_not_run() {
    simulated(async {
        let scene = Scene::set().await;
        scene.pair.b.shutdown();
        until("the link is down", || scene.pair.a.peers_up().is_empty()).await;
        let error = scene.witness.send(Slow(0)).await.unwrap_err();
        assert_eq!(error, SendError::Unreachable);
        scene.judge(&error, Delivery::NotRun, 0).await;
    });
}

#[test]
fn no_such_actor_is_not_run() {
    simulated(async {
        let scene = Scene::set().await;
        scene.pair.b.unregister("witness");
        let error = scene.witness.send(Slow(0)).await.unwrap_err();
        assert_eq!(error, SendError::NoSuchActor);
        scene.judge(&error, Delivery::NotRun, 0).await;
        let near: RemoteAddr<Witness> = scene.pair.b.address(scene.pair.b.id().clone(), "witness");
        scene.pair.b.stop("witness");
        until("it has ended", || scene.pair.b.local::<Witness>("witness").is_none()).await;
        assert_eq!(near.send(Slow(0)).await, Err(SendError::NoSuchActor), "here too");
        scene.judge(&error, Delivery::NotRun, 0).await;
    });
}

#[test]
fn leaving_is_not_run_whoever_asks_while_the_node_finishes_what_runs() {
    simulated(async {
        let scene = Scene::set().await;
        // It keeps the node from being gone, and is the only one that ran in the end.
        let running = scene.witness.send(Slow(500));
        let leave = async {
            until("it runs", || scene.ran.load(SeqCst) == 1).await;
            scene.pair.b.drain(Duration::from_secs(5)).await
        };
        let late = async {
            until("it leaves", || scene.pair.b.is_draining()).await;
            let once = scene.witness.send(Slow(0)).await;
            // To try again is of no use as long as it leads to the same node.
            let again = scene.pair.till.send(Pay(1)).idempotent().timeout(SHORT).await;
            (once, again)
        };
        let (running, left, (once, again)) =
            futures_util::future::join3(running, leave, late).await;
        assert_eq!((running, left), (Ok(()), true));
        assert_eq!((&once, &again), (&Err(SendError::Leaving), &Err(SendError::Leaving)));
        scene.judge(&SendError::Leaving, Delivery::NotRun, 1).await;
    });
}

/// Refuses whoever acts for an old epoch, as a replicated store would.
struct Fence;

impl Deliver for Fence {
    fn deliver(&self, from: &NodeId, batch: Vec<Frame>, node: &Node) {
        for frame in batch {
            node.refuse(from, &frame.header, &SendError::Fenced { epoch: 7 });
        }
    }

    fn type_name(&self) -> &'static str {
        "fence"
    }

    fn mailbox_len(&self) -> usize {
        0
    }
}

#[test]
fn fenced_is_not_run() {
    simulated(async {
        let scene = Scene::set().await;
        scene.pair.b.unregister("witness");
        let _fence = scene.pair.b.bind("witness", Arc::new(Fence)).unwrap();
        let error = scene.witness.send(Slow(0)).await.unwrap_err();
        assert_eq!(error, SendError::Fenced { epoch: 7 });
        scene.judge(&error, Delivery::NotRun, 0).await;
    });
}

#[test]
fn incompatible_is_not_run() {
    simulated(async {
        let scene = Scene::set().await;
        let error = scene.witness.send(Pay(1)).await.unwrap_err();
        assert_eq!(error, SendError::Incompatible { name: "till.pay".into() });
        scene.judge(&error, Delivery::NotRun, 0).await;
    });
}

#[test]
fn overloaded_is_not_run() {
    simulated(async {
        let scene = Scene::set().await;
        // The actor is being rebuilt: it takes nothing for a while.
        for _ in 0..8 {
            scene.pair.b.inject("witness", Fault::Panic);
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let mut sent = 0;
        while scene.witness.try_send(Slow(0)).is_ok() {
            sent += 1;
        }
        let error = scene.witness.send(Slow(0)).timeout(Duration::from_millis(1)).await;
        assert_eq!(error, Err(SendError::Overloaded));
        scene.judge(&SendError::Overloaded, Delivery::NotRun, sent).await;
    });
}

#[test]
fn codec_is_unknown_since_it_may_be_the_answer_that_is_unreadable() {
    simulated(async {
        let scene = Scene::set().await;
        let error = scene.witness.send(Riddle).await.unwrap_err();
        assert_eq!(error, SendError::Codec);
        scene.judge(&error, Delivery::Unknown, 1).await;
        // And it may be the message.
        let (b, target) = (scene.pair.b.name(), name_hash("witness"));
        let number = name_hash(Slow::NAME);
        let asked = scene.pair.a.ask(b, target, number, Lane::User, vec![0xc1], SHORT);
        assert_eq!(asked.await, Err(SendError::Codec));
        scene.judge(&error, Delivery::Unknown, 1).await;
    });
}

#[test]
fn closed_is_unknown_since_the_handler_had_begun() {
    simulated(async {
        let scene = Scene::set().await;
        let error = scene.witness.send(Bad).await.unwrap_err();
        assert_eq!(error, SendError::Closed);
        scene.judge(&error, Delivery::Unknown, 1).await;
        let near: RemoteAddr<Witness> = scene.pair.b.lookup("witness").unwrap();
        assert_eq!(near.send(Bad).await, Err(SendError::Closed), "here too");
        scene.judge(&error, Delivery::Unknown, 2).await;

        let cut = async {
            tokio::time::sleep(Duration::from_millis(10)).await;
            scene.pair.network.cut();
        };
        let (lost, ()) = futures_util::future::join(scene.witness.send(Slow(500)), cut).await;
        assert_eq!(lost, Err(SendError::Closed), "a broken link tells nothing of the handler");
        scene.judge(&error, Delivery::Unknown, 3).await;
    });
}
