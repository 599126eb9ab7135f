//! `bench multicast`: publishers, and a subscriber at every node that serves the group, or as many as
//! are asked for at these by turns.
//!
//! A message counts when the last of the subscribers has it, and its time is from when it was sent
//! until then. Publishers and subscribers are outside, over HTTP, as `publish` and `subscribe` are.

use std::{cell::RefCell, path::Path, rc::Rc, time::Duration};

use actix_rt::time::{sleep, timeout};
use bytes::{Bytes, BytesMut};
use rand::Rng as _;
use rustc_hash::FxHashMap;
use synod_runtime::world::{Clock as _, Entropy as _, Instant, RealClock, RealEntropy};

use super::{
    costs::Counters,
    http::{Connection, unchunk},
    meter::{Figures, Meter},
    raw::disk_sync,
    report::{Clients, Conditions, Raw, Report, Row},
    target::{OwnCluster, known_durability},
    unless_stopped,
};
use crate::{
    cli::{args::BenchArgs, failure::Failure, multicast::subscribe::cut},
    client::{ClientFile, ClientNode},
    multicast::message::{Data, Entry, Mid, Outcome, Publisher, Seq},
    server::{
        StopSignal,
        config::{Durability, NodeRole},
        multicast::http::{Feed, Publish, Published},
    },
};

/// What all rows have in common.
struct Bench<'a> {
    args: &'a BenchArgs,
    /// Those that serve the group.
    nodes: Vec<ClientNode>,
    /// All, also those that do not.
    nodes_len: usize,
    durability: Option<Durability>,
    counters: Counters,
    raw: Raw,
    size: usize,
}

/// Measures the rows that `args` asks for.
pub(super) async fn run(
    args: &BenchArgs,
    report: &mut Report,
    stop: StopSignal,
) -> Result<(), Failure> {
    if let Some(file) = &args.cluster {
        return unless_stopped(stop, drive(args, file, Raw::default(), report)).await;
    }
    if let Some(strange) = args.node.iter().find(|name| !OWN.contains(&name.as_str())) {
        let why = format!("{strange} is none of the nodes it starts");
        return Err(Failure::usage("--node", why, &format!("use some of {}", OWN.join(", "))));
    }
    let raw = Raw { sync: Some(disk_sync(&std::env::temp_dir())?), rtt: None };
    let durability = args.durability.unwrap_or(Durability::Fsync);
    // Two mains and a member: the three servers that a group wants.
    let start = OwnCluster::start(durability, &["--members", "1"]);
    let own = unless_stopped(stop.clone(), start).await?;
    let done = unless_stopped(stop, drive(args, own.client_file(), raw, report)).await;
    own.stop().await;
    done
}

async fn drive(
    args: &BenchArgs,
    file: &Path,
    raw: Raw,
    report: &mut Report,
) -> Result<(), Failure> {
    let clients = ClientFile::load(file)?;
    if clients.credentials.ca.is_some() {
        let why = "its nodes speak TLS, which the benchmark does not";
        return Err(Failure::usage(file.display(), why, "measure a cluster on loopback"));
    }
    report.warn_if_busy(raw);
    let all = clients.nodes.len();
    let serves = |node: &ClientNode| {
        let wanted = args.node.is_empty() || args.node.contains(&node.name);
        wanted && node.role != NodeRole::Auxiliary
    };
    let nodes: Vec<_> = clients.nodes.into_iter().filter(serves).collect();
    if nodes.is_empty() {
        let why = "none of these serves groups";
        return Err(Failure::usage("--node", why, "name mains or members"));
    }
    let bench = Bench {
        args,
        counters: Counters::new(nodes.clone()),
        nodes,
        nodes_len: all,
        durability: args.durability.or_else(|| known_durability(file)),
        raw,
        size: args.size.map_or(SIZE, |size| size as usize),
    };
    let rows = args.clients.map_or_else(|| IN_FLIGHT.to_vec(), |clients| vec![clients as usize]);
    report.expect(rows.len(), Duration::from_secs(args.seconds));
    for in_flight in rows {
        bench.row(in_flight, report).await?;
    }
    Ok(())
}

impl Bench<'_> {
    async fn row(&self, in_flight: usize, report: &mut Report) -> Result<(), Failure> {
        let name = format!("message-{in_flight}");
        let before = self.counters.read().await;
        let figures = report.during(&name, self.measure(in_flight)).await?;
        let costs = self.counters.read().await.since(&before, figures.all);
        let publishers = in_flight.min(PUBLISHERS_MAX);
        let nodes: Vec<&str> = self.nodes.iter().map(|node| node.name.as_str()).collect();
        let conditions = Conditions {
            kind: "message".to_owned(),
            size: self.size,
            in_flight,
            nodes: self.nodes_len,
            durability: self.durability,
            seconds: self.args.seconds,
            clients: Some(Clients {
                clients: publishers,
                pipeline: in_flight / publishers,
                node: nodes.join(","),
            }),
            raw: self.raw,
        };
        report.row(Row::new(name, &figures, costs, conditions), figures.last_error.as_deref())
    }

    async fn measure(&self, in_flight: usize) -> Result<Figures, Failure> {
        let group = format!("bench-{:016x}", RealEntropy.rng("bench").next_u64());
        let board = Rc::new(Board::default());
        let mut subscribers = Vec::new();
        let listening = self.args.subscribers.map_or(self.nodes.len(), |count| count as usize);
        for node in self.nodes.iter().cycle().take(listening) {
            let open = subscribe(node, &group).await.map_err(|why| {
                let what = format!("{} at {}", node.name, node.http);
                Failure::failed(what, why, "see that three servers run: `multicast status`")
            })?;
            subscribers.push(open);
        }
        let meter = Meter::start(Duration::from_secs(self.args.seconds));
        let listening: Vec<_> = subscribers
            .into_iter()
            .map(|parts| actix_rt::spawn(listen(parts, Rc::clone(&board), meter.clone())))
            .collect();
        let publishers = in_flight.min(PUBLISHERS_MAX);
        let tasks = (0..publishers).zip(self.nodes.iter().cycle()).map(|(at, node)| {
            // The first ones take what does not go into equal parts.
            let together = in_flight / publishers + usize::from(at < in_flight % publishers);
            let press = Press {
                node: node.clone(),
                path: format!("/multicast/{group}"),
                together,
                payload: Bytes::from(vec![b'x'; self.size]),
                subscribers: listening.len(),
                board: Rc::clone(&board),
                meter: meter.clone(),
            };
            actix_rt::spawn(press.run())
        });
        let tasks = tasks.collect();
        let of_publishers = meter.clone().finish(tasks, (in_flight / publishers) as u64).await;
        // What was committed is on its way to everybody.
        let all = async {
            while !board.0.borrow().is_empty() {
                sleep(PAUSE).await;
            }
        };
        if timeout(DELIVERY_TIME_MAX, all).await.is_err() {
            let lost = board.0.borrow().len() as u64;
            meter.failed(lost, "committed, and not delivered to everybody in time");
        }
        for task in listening {
            task.abort();
        }
        drop(of_publishers);
        Ok(meter.figures())
    }
}

/// Messages that were sent, until the last subscriber has them: when, and how many wait.
#[derive(Default)]
struct Board(RefCell<FxHashMap<Mid, (Instant, usize)>>);

impl Board {
    fn heard(&self, entries: &[Entry], meter: &Meter) {
        let now = RealClock.now();
        let mut open = self.0.borrow_mut();
        for mid in entries.iter().filter_map(|entry| entry.pair.mid) {
            let Some((sent, left)) = open.get_mut(&mid) else { continue };
            *left -= 1;
            if *left == 0 {
                meter.answered(*sent, now, 1);
                open.remove(&mid);
            }
        }
    }
}

/// What a subscriber hears, and the beginning of it.
type Heard = (Connection, BytesMut);

async fn subscribe(node: &ClientNode, group: &str) -> Result<Heard, String> {
    let path = format!("/multicast/{group}?from=checkpoint");
    let request = format!("GET {path} HTTP/1.1\r\nHost: bench\r\n\r\n");
    let opened = async {
        let mut node = Connection::open(node.http.to_string()).await?;
        let head = node.ask(request.as_bytes()).await?;
        Ok::<_, std::io::Error>((node, head))
    };
    let (node, head) = in_time(opened).await?;
    let begun = BytesMut::from(node.begun(&head));
    if head.is_good() { Ok((node, begun)) } else { Err(node.refusal(&head)) }
}

/// What a node answers; or why it does not, for people.
async fn in_time<T>(asked: impl Future<Output = std::io::Result<T>>) -> Result<T, String> {
    let answered = timeout(ANSWER_TIME_MAX, asked).await;
    let answered = answered.map_err(|_| "it says nothing".to_owned())?;
    answered.map_err(|error| error.to_string())
}

/// One subscriber, until its node hangs up.
async fn listen((mut node, mut chunks): Heard, board: Rc<Board>, meter: Meter) {
    let mut carry = BytesMut::new();
    loop {
        if unchunk(&mut chunks, &mut carry).is_err() {
            return meter.failed(1, "a subscriber was told what is no HTTP");
        }
        while let Some(frame) = cut(&mut carry) {
            match rmp_serde::from_slice(&frame) {
                Ok(Feed::Entries(entries)) => board.heard(&entries, &meter),
                Ok(Feed::Next(_)) => {}
                Ok(Feed::Collected(_)) | Err(_) => {
                    return meter.failed(1, "a subscriber was too slow for the group");
                }
            }
        }
        match node.next().await {
            Ok(part) => chunks.extend_from_slice(part),
            Err(_) => return meter.failed(1, "a subscriber was hung up on"),
        }
    }
}

/// One publisher: sends, waits until all have their places, sends the next.
struct Press {
    node: ClientNode,
    path: String,
    together: usize,
    payload: Bytes,
    subscribers: usize,
    board: Rc<Board>,
    meter: Meter,
}

impl Press {
    async fn run(self) {
        let mut kept = None;
        let publisher = Publisher(RealEntropy.rng("bench").next_u64());
        let (mut stamp, mut next) = (Seq(0), 1);
        let mut open: Vec<Data> = Vec::new();
        loop {
            if open.is_empty() {
                let now = RealClock.now();
                if self.meter.is_over(now) {
                    return;
                }
                let mids = (next..).take(self.together).map(|number| Mid { publisher, number });
                let mut board = self.board.0.borrow_mut();
                for mid in mids {
                    board.insert(mid, (now, self.subscribers));
                    let payload = self.payload.clone();
                    open.push(Data { mid, stamp, lowest_open: next, payload });
                }
                next += self.together as u64;
            }
            match self.post(&mut kept, &open).await {
                Ok(published) => {
                    stamp = stamp.max(published.largest);
                    for (mid, outcome) in published.messages {
                        open.retain(|data| data.mid != mid);
                        if !matches!(outcome, Outcome::Committed(_)) {
                            self.board.0.borrow_mut().remove(&mid);
                            self.meter.failed(1, "a message found no place in its time");
                        }
                    }
                    let lowest = open.first().map(|data| data.mid.number);
                    open.iter_mut().for_each(|data| {
                        data.lowest_open = lowest.unwrap_or(data.lowest_open);
                    });
                }
                Err(why) => {
                    self.meter.failed(0, why);
                    sleep(PAUSE).await;
                }
            }
        }
    }

    /// On a kept connection where there is one; it is kept if all went well.
    async fn post(
        &self,
        kept: &mut Option<Connection>,
        open: &[Data],
    ) -> Result<Published, String> {
        let patience_ms = u64::try_from(PATIENCE.as_millis()).unwrap_or(u64::MAX);
        let body = Publish { patience_ms, messages: open.to_vec() };
        let body = rmp_serde::to_vec(&body).expect("plain data encodes");
        let (path, length) = (&self.path, body.len());
        let head =
            format!("POST {path} HTTP/1.1\r\nHost: bench\r\nContent-Length: {length}\r\n\r\n");
        let request = [head.as_bytes(), &body].concat();
        let answered = async {
            let mut node = Connection::kept(kept, self.node.http.to_string()).await?;
            let head = node.ask(&request).await?;
            let body = node.body(&head).await?;
            let published = match head.is_good() {
                true => rmp_serde::from_slice(body).map_err(|error| error.to_string()),
                false => return Ok(Err(node.refusal(&head))),
            };
            *kept = Some(node);
            Ok(published)
        };
        in_time(answered).await?
    }
}

/// Messages without a place: one alone for the latency, then two loads.
const IN_FLIGHT: [usize; 3] = [1, 64, 1024];

/// Publishers, between which the messages in flight are divided: as many as there are processes
/// that would have something to say to one group.
const PUBLISHERS_MAX: usize = 8;

/// The nodes of a cluster of our own that serve groups.
const OWN: [&str; 3] = ["a", "b", "m1"];

/// Bytes of a message by default.
const SIZE: usize = 1024;

/// How long a node waits for places before it says which there are.
const PATIENCE: Duration = Duration::from_secs(1);

/// A node that says nothing for so long is not there.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(5);

/// From its place to its last subscriber: the time of a fail-over.
const DELIVERY_TIME_MAX: Duration = Duration::from_secs(2);

/// Before another try.
const PAUSE: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::multicast::message::Pair;

    #[test]
    fn a_message_counts_when_the_last_subscriber_has_it() {
        let meter = Meter::start(Duration::from_secs(10));
        let mid = Mid { publisher: Publisher(7), number: 1 };
        let board = Board::default();
        board.0.borrow_mut().insert(mid, (RealClock.now(), 2));
        let pair = Pair { mid: Some(mid), stamp: Seq(0), lowest_open: 1 };
        let entry = Entry { seq: Seq(1), pair, payload: Bytes::new() };
        board.heard(std::slice::from_ref(&entry), &meter);
        assert_eq!(meter.figures().all, 0);
        board.heard(std::slice::from_ref(&entry), &meter);
        assert_eq!(meter.figures().all, 1);
        assert!(board.0.borrow().is_empty());
    }
}
