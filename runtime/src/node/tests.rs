//! Two nodes over a network in memory, on a paused clock; and in `real`, over QUIC and threads.

mod bounds;
mod builds;
mod draining;
mod memory;
mod outcomes;
mod permits;
mod real;
mod serial;
mod verbs;
mod watching;

use std::{
    future::Future,
    sync::atomic::{AtomicU32, Ordering::SeqCst},
};

use actix::{Actor, ActorContext as _, Context, Handler, Message, ResponseFuture};
use serde::{Deserialize, Serialize};

use self::memory::MemoryNetwork;
use super::*;
use crate::{
    address::{Delivery, RemoteAddr},
    message::{RemoteActor, RemoteMessage},
    registry::{Deliver, LookupError, RegisterError, group::JoinError},
    supervision::{Fault, Policy, Restart},
    telemetry::{ACTOR_RESTARTS, DEAD_LETTERS},
    wire::name_hash,
    world::network::Lane,
};

#[derive(Debug, Clone, PartialEq, Message, Serialize, Deserialize, RemoteMessage)]
#[rtype(result = "Result<u64, Refused>")]
#[remote(name = "till.pay", crate = "crate")]
struct Pay(i64);

/// Paid without a word.
#[derive(Clone, Message, Serialize, Deserialize, RemoteMessage)]
#[rtype(result = "()")]
#[remote(name = "till.coin", crate = "crate")]
struct Coin(u64);

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Refused(String);

/// Answers only after a second.
#[derive(Clone, Message, Serialize, Deserialize, RemoteMessage)]
#[rtype(result = "()")]
#[remote(name = "till.dawdle", crate = "crate")]
struct Dawdle;

#[derive(Message, Serialize, Deserialize, RemoteMessage)]
#[rtype(result = "()")]
#[remote(name = "till.explode", crate = "crate")]
struct Explode;

/// Handled by the type, but not listed as remote.
#[derive(Message, Serialize, Deserialize, RemoteMessage)]
#[rtype(result = "()")]
#[remote(name = "till.private", crate = "crate")]
struct Private;

#[derive(Default, RemoteActor)]
#[remote(name = "till", handles(Pay, Coin, Dawdle, Explode), crate = "crate")]
struct Till {
    total: u64,
    dawdled: Arc<AtomicU32>,
}

impl Actor for Till {
    type Context = Context<Self>;
}

impl Handler<Pay> for Till {
    type Result = Result<u64, Refused>;

    fn handle(&mut self, pay: Pay, _: &mut Self::Context) -> Self::Result {
        let amount = u64::try_from(pay.0).map_err(|_| Refused(format!("{} to pay", pay.0)))?;
        self.total += amount;
        Ok(self.total)
    }
}

impl Handler<Coin> for Till {
    type Result = ();

    fn handle(&mut self, coin: Coin, _: &mut Self::Context) {
        self.total += coin.0;
    }
}

impl Handler<Dawdle> for Till {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, _: Dawdle, _: &mut Self::Context) -> Self::Result {
        self.dawdled.fetch_add(1, SeqCst);
        Box::pin(tokio::time::sleep(Duration::from_secs(1)))
    }
}

impl Handler<Explode> for Till {
    type Result = ();

    fn handle(&mut self, _: Explode, _: &mut Self::Context) {
        panic!("told to");
    }
}

impl Handler<Private> for Till {
    type Result = ();

    fn handle(&mut self, _: Private, ctx: &mut Self::Context) {
        ctx.stop();
    }
}

/// Looks like [`Pay`] on the wire.
#[derive(Message, Serialize, Deserialize, RemoteMessage)]
#[rtype(result = "()")]
#[remote(name = "till.pay", crate = "crate")]
struct Levy;

#[derive(RemoteActor)]
#[remote(name = "impostor", handles(Levy), crate = "crate")]
struct Impostor;

impl Actor for Impostor {
    type Context = Context<Self>;
}

impl Handler<Levy> for Impostor {
    type Result = ();

    fn handle(&mut self, _: Levy, _: &mut Self::Context) {}
}

/// Runs `test` under an actix system whose time passes only when all wait.
fn simulated(test: impl Future<Output = ()>) {
    let system = actix::System::with_tokio_rt(|| {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        runtime.enable_time().start_paused(true).build().unwrap()
    });
    system.block_on(test);
}

fn config(name: &str, incarnation: u64) -> NodeConfig {
    let [cluster, name] = ["test", name].map(|name| name.parse().unwrap());
    NodeConfig::new(cluster, name, Incarnation(incarnation))
}

fn join(network: &MemoryNetwork, name: &str, incarnation: u64) -> Node {
    Node::start(network.world(), config(name, incarnation)).unwrap()
}

fn connect(a: &Node, b: &Node) {
    a.links().connect(b.name(), &b.links().local_addr().to_string());
}

/// Waits until something is so; for links and directories to settle.
async fn until(what: &str, so: impl Fn() -> bool) {
    let settled = async {
        while !so() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), settled).await.expect(what);
}

/// Two linked nodes, with a supervised till on the second.
struct Pair {
    network: MemoryNetwork,
    a: Node,
    b: Node,
    till: RemoteAddr<Till>,
    dawdled: Arc<AtomicU32>,
}

async fn pair() -> Pair {
    let network = MemoryNetwork::default();
    let (a, b) = (join(&network, "a", 1), join(&network, "b", 2));
    let dawdled = Arc::<AtomicU32>::default();
    let counted = Arc::clone(&dawdled);
    let addr = b.spawn("till", move || Till { total: 0, dawdled: Arc::clone(&counted) });
    b.register("till", addr).unwrap();
    connect(&a, &b);
    until("the name is known", || a.lookup::<Till>("till").is_ok()).await;
    let till = a.lookup("till").unwrap();
    Pair { network, a, b, till, dawdled }
}

fn dead_letters(node: &Node, reason: &str) -> u64 {
    node.metrics().value(&DEAD_LETTERS, &[("reason", reason)]).unwrap_or(0)
}

#[test]
fn an_actor_is_told_and_asked_alike_from_near_and_far() {
    simulated(async {
        let Pair { b, till, .. } = pair().await;
        let near: RemoteAddr<Till> = b.lookup("till").unwrap();
        assert_eq!(near, till, "the same address wherever it is used");
        till.do_send(Pay(1));
        assert_eq!(till.send(Pay(2)).await, Ok(Ok(3)));
        near.do_send(Pay(3));
        assert_eq!(near.send(Pay(4)).await, Ok(Ok(10)));
        assert_eq!(till.try_send(Pay(5)), Ok(()));
        let refused = till.send(Pay(-1)).await.unwrap();
        assert_eq!(refused, Err(Refused("-1 to pay".into())));
        assert_eq!(near.send(Pay(0)).await, Ok(Ok(15)));
    });
}

#[test]
fn an_address_can_travel_in_a_message() {
    simulated(async {
        let Pair { a, b, till, .. } = pair().await;
        let near: RemoteAddr<Till> = b.lookup("till").unwrap();
        let bytes = crate::message::encode(&near).unwrap();
        let arrived: RemoteAddr<Till> = crate::message::decode(&bytes).unwrap();
        assert_eq!(arrived.send(Pay(1)).await, Err(SendError::Unreachable));
        assert_eq!(arrived.bind(&a).send(Pay(1)).await, Ok(Ok(1)));
        assert_eq!(arrived.bind(&b).send(Pay(1)).await, Ok(Ok(2)));
        assert_eq!(arrived, till);
    });
}

#[test]
fn an_ask_ends_at_its_deadline_and_a_cancelled_one_is_not_begun() {
    simulated(async {
        let Pair { a, b, till, dawdled, .. } = pair().await;
        let before = a.now();
        let short = Duration::from_millis(100);
        assert_eq!(till.send(Dawdle).timeout(short).await, Err(SendError::Timeout));
        assert!(a.now().since(before) < Duration::from_millis(110));
        assert_eq!(till.send(Dawdle).await, Ok(()), "the default waits longer");
        assert_eq!(dawdled.load(SeqCst), 2);

        let waiting = tokio::time::timeout(Duration::ZERO, till.send(Dawdle)).await;
        assert!(waiting.is_err());
        until("the cancel arrives", || b.0.asks.open() == (0, 0)).await;
        assert_eq!(a.0.asks.open(), (0, 0));
        let near: RemoteAddr<Till> = b.lookup("till").unwrap();
        assert_eq!(near.send(Dawdle).timeout(short).await, Err(SendError::Timeout));
    });
}

#[test]
fn work_that_waited_past_its_deadline_is_not_begun() {
    simulated(async {
        let Pair { b, till, dawdled, .. } = pair().await;
        b.inject("till", Fault::Panic);
        assert_eq!(till.send(Pay(1)).await, Ok(Ok(1)));
        b.inject("till", Fault::Panic);
        // Its second restart in a row waits 25 ms at least.
        let asked = till.send(Dawdle).timeout(Duration::from_millis(10)).await;
        assert_eq!(asked, Err(SendError::Timeout));
        assert_eq!(till.send(Pay(1)).await, Ok(Ok(1)));
        assert_eq!(dawdled.load(SeqCst), 0);
    });
}

#[test]
fn what_cannot_be_delivered_says_why_and_whether_it_ran() {
    simulated(async {
        let Pair { network, a, b, till, .. } = pair().await;
        let nobody: RemoteAddr<Till> = a.address(b.id().clone(), "nobody");
        let error = nobody.send(Pay(1)).await.unwrap_err();
        assert_eq!((error.outcome(), error), (Delivery::NotRun, SendError::NoSuchActor));
        nobody.do_send(Pay(1));
        until("the tell is counted", || dead_letters(&b, "no_such_actor") == 1).await;

        let error = till.send(Private).await.unwrap_err();
        assert_eq!(error, SendError::Incompatible { name: "till.private".into() });

        let garbage = vec![0xc1];
        let message = name_hash("till.pay");
        let asked = a.ask(b.name(), name_hash("till"), message, Lane::User, garbage, ASK_TIMEOUT);
        assert_eq!(asked.await, Err(SendError::Codec));
        assert_eq!(dead_letters(&b, "codec"), 1);
        assert_eq!(till.send(Pay(1)).await, Ok(Ok(1)), "the link survives it");

        let other = NodeId::new(b.name().clone(), Incarnation(9));
        let former: RemoteAddr<Till> = a.address(other, "till");
        assert_eq!(former.send(Pay(1)).await, Err(SendError::Unreachable));
        let dawdling = till.send(Dawdle);
        let cut = async {
            tokio::time::sleep(Duration::from_millis(10)).await;
            network.cut();
        };
        let (lost, ()) = futures_util::future::join(dawdling, cut).await;
        assert_eq!(lost, Err(SendError::Closed), "at once, not at its deadline");
        assert_eq!(SendError::Closed.outcome(), Delivery::Unknown);
    });
}

#[test]
fn an_actor_that_panics_keeps_its_address_and_what_is_queued() {
    simulated(async {
        let Pair { a, b, till, .. } = pair().await;
        assert_eq!(till.send(Pay(5)).await, Ok(Ok(5)));
        for _ in 0..10 {
            till.do_send(Pay(1));
        }
        let exploded = till.send(Explode);
        let queued = till.send(Pay(1));
        let (exploded, queued) = futures_util::future::join(exploded, queued).await;
        assert_eq!(exploded, Err(SendError::Closed));
        assert_eq!(queued, Ok(Ok(1)), "a fresh actor, and the message behind the panic");
        assert!(b.inject("till", Fault::Panic) && !b.inject("nobody", Fault::Panic));
        assert_eq!(till.send(Pay(1)).await, Ok(Ok(1)));
        assert_eq!(b.metrics().value(&ACTOR_RESTARTS, &[("actor", "till")]), Some(2));
        let restarts = |node: &Node| node.registry().iter().map(|row| row.restarts).sum::<u64>();
        assert_eq!(restarts(&b), 2);
        until("the others hear of it", || restarts(&a) == 2).await;
    });
}

#[test]
fn names_spread_and_vanish_with_their_node() {
    simulated(async {
        let Pair { network, a, b, .. } = pair().await;
        let binding = b.bind("consensus/acceptor@b", Arc::new(Sink::default())).unwrap();
        binding.set_epoch(Some(7));
        let _own = a.bind("consensus/acceptor@a", Arc::new(Sink::default())).unwrap();
        until("all is known", || a.registry().len() == 3 && b.registry().len() == 3).await;
        assert_eq!(a.registry(), b.registry());
        let row = a.registry().remove(1);
        assert_eq!((row.name.as_str(), row.kind.as_str()), ("consensus/acceptor@b", "sink"));
        assert_eq!((row.node, row.epoch), (b.name().clone(), Some(7)));

        drop(binding);
        until("a dropped name is gone", || a.registry().len() == 2).await;
        let error = a.lookup::<Till>("consensus/acceptor@a").unwrap_err();
        assert_eq!(error, LookupError::Unknown("consensus/acceptor@a".into()));

        network.cut();
        until("names go with the link", || a.registry().len() == 1).await;
        until("and come back with it", || a.registry().len() == 2).await;
        b.shutdown();
        until("and go with the node", || a.registry().len() == 1).await;
    });
}

#[test]
fn a_taken_name_is_refused_until_its_holder_is_gone() {
    simulated(async {
        let network = MemoryNetwork::default();
        let a = join(&network, "a", 1);
        let once = Policy { restart: Restart::Never, ..Policy::default() };
        let addr = a.spawn_with("till", once.clone(), Till::default).unwrap();
        let till = a.register("till", addr.clone()).unwrap();
        let again = a.spawn_with("till", once, Till::default);
        let taken = RegisterError::Taken { name: "till".into(), kind: "till".into() };
        assert_eq!(again.unwrap_err(), taken);
        assert_eq!(a.register("till", addr.clone()).unwrap_err(), taken);
        assert!(a.bind("", Arc::new(Sink::default())).is_err());

        let impostor = a.spawn("impostor", || Impostor);
        let text = a.register("impostor", impostor).unwrap_err().to_string();
        assert!(text.contains("::Pay ") && text.contains("::Levy "), "{text}");
        assert!(a.stop("impostor"));

        addr.do_send(Private);
        until("it has ended", || a.registry().is_empty()).await;
        assert_eq!(till.send(Pay(1)).await, Err(SendError::NoSuchActor));
        let addr = a.spawn("till", Till::default);
        let successor = a.register("till", addr).unwrap();
        assert_eq!(successor.send(Pay(1)).await, Ok(Ok(1)));
        assert_eq!(till.send(Pay(1)).await, Ok(Ok(2)), "an address follows its name");
    });
}

/// Counts the frames it takes, and answers asks with their body.
#[derive(Default)]
struct Sink(Mutex<Vec<usize>>);

impl Deliver for Sink {
    fn deliver(&self, from: &NodeId, batch: Vec<Frame>, node: &Node) {
        for frame in batch.iter().filter(|frame| frame.header.kind == FrameKind::Ask) {
            node.reply(from, Lane::Consensus, frame.header.correlation, &frame.body);
        }
        self.0.lock().unwrap().push(batch.len());
    }

    fn type_name(&self) -> &'static str {
        "sink"
    }

    fn mailbox_len(&self) -> usize {
        0
    }
}

#[test]
fn roles_speak_in_raw_frames_to_others_and_to_themselves() {
    simulated(async {
        let Pair { a, b, .. } = pair().await;
        let sink = Arc::new(Sink::default());
        let _binding = b.bind("sink", Arc::clone(&sink) as Arc<dyn Deliver>).unwrap();
        let target = name_hash("sink");
        for from in [&a, &b] {
            from.tell(b.name(), "sink", 1, Lane::Consensus, b"x").unwrap();
            let asked = from.ask(b.name(), target, 1, Lane::Consensus, b"y".to_vec(), ASK_TIMEOUT);
            assert_eq!(asked.await.unwrap(), &b"y"[..]);
        }
        assert_eq!(sink.0.lock().unwrap().iter().sum::<usize>(), 4);
        let gone = a.tell(&"c".parse().unwrap(), "sink", 1, Lane::Consensus, b"x");
        assert_eq!(gone, Err(SendError::Unreachable));
    });
}

#[test]
fn frames_of_one_chunk_reach_each_target_in_order_and_in_one_call() {
    simulated(async {
        let Pair { b, .. } = pair().await;
        let sinks = [Arc::new(Sink::default()), Arc::new(Sink::default())];
        let _one = b.bind("one", Arc::clone(&sinks[0]) as Arc<dyn Deliver>).unwrap();
        let _two = b.bind("two", Arc::clone(&sinks[1]) as Arc<dyn Deliver>).unwrap();
        let frame = |name: &str| Frame {
            header: FrameHeader { target: name_hash(name), ..FrameHeader::new(FrameKind::Tell) },
            body: bytes::Bytes::new(),
        };
        let heartbeat =
            Frame { header: FrameHeader::new(FrameKind::Heartbeat), body: bytes::Bytes::new() };
        b.route(
            b.id(),
            Lane::User,
            vec![frame("one"), heartbeat, frame("two"), frame("one"), frame("one")],
        );
        b.route(b.id(), Lane::User, vec![frame("two"), frame("two")]);
        assert_eq!(*sinks[0].0.lock().unwrap(), [3]);
        assert_eq!(*sinks[1].0.lock().unwrap(), [1, 2]);
    });
}

#[test]
fn hooks_hear_of_peers_and_heartbeats() {
    simulated(async {
        let Pair { network, a, b, .. } = pair().await;
        let heard = Arc::new(Mutex::new(Vec::new()));
        let told = Arc::clone(&heard);
        b.watch_peers(Box::new(move |event| {
            let text = match event {
                PeerEvent::Up(peer) => format!("up {}", peer.id.name),
                PeerEvent::Down { peer, .. } => format!("down {}", peer.name),
                PeerEvent::Left(peer) => format!("left {}", peer.name),
                PeerEvent::Heartbeat { from, frame } => {
                    format!("{} {:?}", from.name, frame.body)
                }
            };
            told.lock().unwrap().push(text);
        }));
        a.heartbeat(b.name(), 0, b"7").unwrap();
        until("the heartbeat", || heard.lock().unwrap().len() == 2).await;
        network.cut();
        until("the link is back", || heard.lock().unwrap().len() == 4).await;
        assert_eq!(*heard.lock().unwrap(), ["up a", "a b\"7\"", "down a", "up a"]);
        assert!(b.metrics().render().contains("synod_link_bytes_total{peer=\"a\""));
    });
}

#[test]
fn a_crash_drops_every_task_and_the_node_itself() {
    simulated(async {
        let Pair { a, b, till, .. } = pair().await;
        let addr = b.local::<Till>("till").unwrap();
        b.abort_all();
        until("its actors are gone", || !addr.connected()).await;
        until("others see it go", || a.peers_up().is_empty()).await;
        assert_eq!(till.send(Pay(1)).await, Err(SendError::Unreachable));
        let weak = Arc::downgrade(&b.0);
        drop((b, addr));
        until("nothing holds it", || weak.upgrade().is_none()).await;
    });
}
