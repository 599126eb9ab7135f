//! Ten million messages from one process to another: what they cost the receiver in memory.
//!
//! ```text
//! cargo run --release -p synod-runtime --example flood [MESSAGES] [BYTES]
//! ```
//! Two processes, two nodes, QUIC between them. First bare frames without actor, codec or credit,
//! as the limit of what the link carries; then asks. Then the flood: `do_send` without a pause, far
//! more than the receiver can take, so that most become dead letters here. Then as many by
//! `try_send`, which waits its turn, so that all arrive. All the while another actor of the
//! receiver is asked for its process's resident size, which must stay flat, and must answer.
#![expect(clippy::unwrap_used, reason = "a program for people who measure")]

use std::{
    io::{BufRead as _, BufReader, Write as _},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use actix::{Actor, Context, Handler, Message};
use bytes::Bytes;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use serde::{Deserialize, Serialize};
use synod_runtime::{
    address::{RemoteAddr, SendError},
    identity::{Incarnation, NodeId, NodeName},
    message::{RemoteActor, RemoteMessage},
    node::{Node, NodeConfig},
    quic::{Authority, QuicNetwork},
    registry::Deliver,
    wire::{Frame, name_hash},
    world::{
        Clock as _, RealClock, RealEntropy, World,
        disk::RealDisk,
        network::{Lane, TlsFiles},
    },
};

/// Nothing is answered.
#[derive(Message, Serialize, Deserialize, RemoteMessage)]
#[rtype(result = "()")]
#[remote(name = "flood.note", crate = "synod_runtime")]
struct Note {
    body: Bytes,
}

/// Answered with the number of notes that arrived.
#[derive(Message, Serialize, Deserialize, RemoteMessage)]
#[rtype(result = "u64")]
#[remote(name = "flood.count", crate = "synod_runtime")]
struct Count;

/// Answered with the receiver's resident size in KiB.
#[derive(Message, Serialize, Deserialize, RemoteMessage)]
#[rtype(result = "u64")]
#[remote(name = "flood.resident", crate = "synod_runtime")]
struct Resident;

#[derive(Default, RemoteActor)]
#[remote(name = "flood.listener", handles(Note, Count), crate = "synod_runtime")]
struct Listener(u64);

impl Actor for Listener {
    type Context = Context<Self>;
}

impl Handler<Note> for Listener {
    type Result = ();

    fn handle(&mut self, _: Note, _: &mut Self::Context) {
        self.0 += 1;
    }
}

impl Handler<Count> for Listener {
    type Result = u64;

    fn handle(&mut self, _: Count, _: &mut Self::Context) -> u64 {
        self.0
    }
}

#[derive(RemoteActor)]
#[remote(name = "flood.gauge", handles(Resident), crate = "synod_runtime")]
struct Gauge;

impl Actor for Gauge {
    type Context = Context<Self>;
}

impl Handler<Resident> for Gauge {
    type Result = u64;

    fn handle(&mut self, _: Resident, _: &mut Self::Context) -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }
}

/// Counts bare frames, and sends back those that are asks.
#[derive(Default)]
struct Frames(AtomicU64);

impl Deliver for Frames {
    fn deliver(&self, from: &NodeId, batch: Vec<Frame>, node: &Node) {
        self.0.fetch_add(batch.len() as u64, Relaxed);
        for Frame { header, .. } in batch.iter().filter(|frame| frame.header.correlation > 0) {
            let total = self.0.load(Relaxed).to_le_bytes();
            node.reply(from, Lane::Consensus, header.correlation, &total);
        }
    }

    fn type_name(&self) -> &'static str {
        "frames"
    }

    fn mailbox_len(&self) -> usize {
        0
    }
}

fn start(name: &str, tls: TlsFiles) -> Node {
    let world = World {
        clock: Arc::new(RealClock),
        entropy: Arc::new(RealEntropy),
        network: Arc::new(QuicNetwork),
        disk: Arc::new(RealDisk),
    };
    let [cluster, name]: [NodeName; 2] = ["flood", name].map(|name| name.parse().unwrap());
    let config = NodeConfig { tls: Some(tls), ..NodeConfig::new(cluster, name, Incarnation(1)) };
    Node::start(world, config).unwrap()
}

/// The child: listens until it is killed.
async fn receive() {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
    let [ca, cert, key]: [Vec<u8>; 3] = serde_json::from_str(&line).unwrap();
    let node = start("b", TlsFiles { ca, cert, key });
    node.register("listener", node.spawn("listener", Listener::default)).unwrap();
    node.register("gauge", node.spawn("gauge", || Gauge)).unwrap();
    let _frames = node.bind("frames", Arc::new(Frames::default())).unwrap();
    println!("{}", node.links().local_addr());
    std::future::pending::<()>().await;
}

/// What the link carries, and how long a frame takes there and back.
async fn bare(node: &Node, messages: u64, body: &[u8]) {
    let (to, target): (NodeName, _) = ("b".parse().unwrap(), name_hash("frames"));
    let began = RealClock.now();
    for sent in 1..=messages {
        while node.tell_hashed(&to, target, 0, Lane::Consensus, body).is_err() {
            tokio::task::yield_now().await;
        }
        if sent.is_multiple_of(128) {
            tokio::task::yield_now().await;
        }
    }
    let ask = || node.ask(&to, target, 0, Lane::Consensus, Vec::new(), Duration::from_secs(60));
    assert!(ask().await.is_ok());
    let took = RealClock.now().since(began);
    let mut times = Vec::new();
    for _ in 0..5_000 {
        let asked = RealClock.now();
        assert!(ask().await.is_ok());
        times.push(RealClock.now().since(asked));
    }
    times.sort_unstable();
    #[expect(clippy::cast_precision_loss, reason = "for people")]
    let rate = messages as f64 / took.as_secs_f64();
    println!("bare frames: {rate:.0}/s; there and back {:.1?} (p50)", times[times.len() / 2]);
}

/// Asks for three seconds, with so many at any time.
async fn ask(listener: &RemoteAddr<Listener>, in_flight: usize) {
    let (began, mut times) = (RealClock.now(), Vec::new());
    let one = || async {
        let asked = RealClock.now();
        listener.send(Count).await.unwrap();
        RealClock.now().since(asked)
    };
    let mut asks: FuturesUnordered<_> = (0..in_flight).map(|_| one()).collect();
    while RealClock.now().since(began) < Duration::from_secs(3) {
        times.push(asks.next().await.unwrap());
        asks.push(one());
    }
    let took = RealClock.now().since(began);
    times.sort_unstable();
    #[expect(clippy::cast_precision_loss, reason = "for people")]
    let rate = times.len() as f64 / took.as_secs_f64();
    println!("asks, {in_flight} in flight: {rate:.0}/s, {:.1?} (p50)", times[times.len() / 2]);
}

/// Starts the receiver; answers where it listens.
fn launch(authority: &Authority) -> (Child, String) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .arg("receive")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let TlsFiles { ca, cert, key } = issue(authority, "b");
    let files = serde_json::to_string(&[ca, cert, key]).unwrap();
    writeln!(child.stdin.take().unwrap(), "{files}").unwrap();
    let mut at = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut at).unwrap();
    (child, at)
}

fn issue(authority: &Authority, name: &str) -> TlsFiles {
    authority.issue(&name.parse().unwrap(), &[], &[]).unwrap()
}

async fn send(messages: u64, bytes: usize) {
    let authority = Authority::new(&"flood".parse().unwrap()).unwrap();
    let (mut child, at) = launch(&authority);
    let node = start("a", issue(&authority, "a"));
    node.links().connect(&"b".parse().unwrap(), at.trim());
    let listener: RemoteAddr<Listener> = loop {
        match node.lookup("listener") {
            Ok(found) => break found,
            Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    };
    let gauge: RemoteAddr<Gauge> = node.lookup("gauge").unwrap();
    let body = Bytes::from(vec![b'x'; bytes]);
    println!("resident before: {} KiB", gauge.send(Resident).await.unwrap());
    bare(&node, messages, &body).await;
    for in_flight in [1, 64, 1024] {
        // One task polls them all: tokio would make it yield after every 128 answers.
        tokio::task::unconstrained(ask(&listener, in_flight)).await;
    }
    for flood in [true, false] {
        let already = listener.send(Count).await.unwrap();
        let (began, mut peak) = (RealClock.now(), 0);
        for sent in 1..=messages {
            if flood {
                listener.do_send(Note { body: body.clone() });
            } else {
                let mut note = Note { body: body.clone() };
                while let Err(refused) = listener.try_send(note) {
                    assert_eq!(refused.error, SendError::Overloaded);
                    note = refused.message;
                    tokio::task::yield_now().await;
                }
            }
            if sent.is_multiple_of(128) {
                tokio::task::yield_now().await;
            }
            if sent.is_multiple_of(messages.div_ceil(50)) {
                peak = peak.max(gauge.send(Resident).await.unwrap());
            }
        }
        let arrived = loop {
            // Behind the last note, and for that it may have to wait.
            match listener.send(Count).await {
                Ok(count) => break count - already,
                Err(error) => println!("still busy: {error}"),
            }
        };
        let took = RealClock.now().since(began);
        let verb = if flood { "do_send" } else { "try_send" };
        #[expect(clippy::cast_precision_loss, reason = "for people")]
        let rate = arrived as f64 / took.as_secs_f64();
        println!(
            "{verb}: {messages} of {bytes} B in {took:.2?}, {arrived} arrived ({rate:.0}/s), \
             {} dead letters so far; resident at most {peak} KiB, after {} KiB",
            node.metrics()
                .value(&synod_runtime::telemetry::DEAD_LETTERS, &[("reason", "overloaded")])
                .unwrap_or(0),
            gauge.send(Resident).await.unwrap()
        );
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize, otherwise| args.get(at).map_or(otherwise, |arg| arg.parse().unwrap());
    actix::System::new().block_on(async {
        match args.first().map(String::as_str) {
            Some("receive") => receive().await,
            _ => send(number(0, 10_000_000), usize::try_from(number(1, 64)).unwrap()).await,
        }
    });
}
