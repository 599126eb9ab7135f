//! `bench local` and `bench remote`: tells and asks to one actor.
//!
//! The sender is a task of its node's arbiter, as an actor's own futures are; the actor that
//! receives is on the same arbiter (`local`), or on another node's, on another thread, over QUIC
//! (`remote`).

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use actix::{Actor, Context, Handler, Message};
use actix_rt::time::{sleep, timeout};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use synod_runtime::{
    address::RemoteAddr,
    message::{RemoteActor, RemoteMessage},
    node::Node,
    supervision::Policy,
    world::{Clock as _, Instant, RealClock},
};
use tokio::sync::Notify;

use super::{
    costs::Costs,
    meter::{Figures, Meter},
    pair::{Pair, alone},
    report::{Conditions, Raw, Report, Row},
};
use crate::cli::{args::BenchArgs, failure::Failure};

/// Nothing is answered.
#[derive(Debug, Message, Serialize, Deserialize, RemoteMessage)]
#[rtype(result = "()")]
#[remote(name = "bench.note", crate = "synod_runtime")]
struct Note {
    /// When it was sent: both ends are in one process and see one clock.
    sent_nanos: u64,
    body: Bytes,
}

/// Answered with its length.
#[derive(Debug, Message, Serialize, Deserialize, RemoteMessage)]
#[rtype(result = "u64")]
#[remote(name = "bench.question", crate = "synod_runtime")]
struct Question {
    body: Bytes,
}

/// Takes both.
#[derive(RemoteActor)]
#[remote(name = "bench.listener", handles(Note, Question), crate = "synod_runtime")]
struct Listener(Arc<Heard>);

/// What arrived; shared with the sender, so that it keeps to its number in flight.
#[derive(Debug, Default)]
struct Heard {
    notes: AtomicU64,
    /// Half of what may be in flight has arrived.
    room: Notify,
    row: Mutex<Option<Tells>>,
}

/// The row that is being measured.
#[derive(Debug, Clone)]
struct Tells {
    meter: Meter,
    /// The sender is woken after so many.
    room_every: u64,
}

impl Actor for Listener {
    type Context = Context<Self>;
}

impl Handler<Note> for Listener {
    type Result = ();

    fn handle(&mut self, note: Note, _: &mut Self::Context) {
        let row = self.0.row.lock().expect("held only to look or to set");
        // What a row left in flight belongs to no other.
        let Some(Tells { meter, room_every }) = &*row else { return };
        meter.answered(Instant::from_nanos(note.sent_nanos), RealClock.now(), 1);
        if (self.0.notes.fetch_add(1, Relaxed) + 1).is_multiple_of(*room_every) {
            self.0.room.notify_one();
        }
    }
}

impl Handler<Question> for Listener {
    type Result = u64;

    fn handle(&mut self, question: Question, _: &mut Self::Context) -> u64 {
        question.body.len() as u64
    }
}

/// Who sends to whom.
struct Bench<'a> {
    args: &'a BenchArgs,
    /// Nodes.
    nodes: usize,
    raw: Raw,
    heard: Arc<Heard>,
    to: RemoteAddr<Listener>,
}

/// One row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Shape {
    is_ask: bool,
    size: usize,
    in_flight: usize,
}

/// Messages to an actor of the same node.
pub(super) async fn local(args: &BenchArgs, report: &mut Report) -> Result<(), Failure> {
    let node = alone()?;
    let heard = Arc::new(Heard::default());
    let to = {
        let heard = Arc::clone(&heard);
        let addr = node.spawn(LISTENER, move || Listener(Arc::clone(&heard)));
        node.register(LISTENER, addr).map_err(not_registered)?
    };
    let bench = Bench { args, nodes: 1, raw: Raw::default(), heard, to };
    let done = bench.rows(report).await;
    node.shutdown();
    done
}

/// Messages to an actor of another node.
pub(super) async fn remote(args: &BenchArgs, report: &mut Report) -> Result<(), Failure> {
    let pair = Pair::start().await?;
    let raw = Raw { sync: None, rtt: Some(pair.round_trip().await?) };
    let heard = Arc::new(Heard::default());
    serve_on(&pair, &heard)?;
    let to = pair.a.address(pair.b.id().clone(), LISTENER);
    let bench = Bench { args, nodes: 2, raw, heard, to };
    bench.rows(report).await
}

/// Puts the actor on the other node's own thread.
fn serve_on(pair: &Pair, heard: &Arc<Heard>) -> Result<(), Failure> {
    let node: &Node = &pair.b;
    let heard = Arc::clone(heard);
    let listener = move || Listener(Arc::clone(&heard));
    let arbiter = pair.arbiter.handle();
    let spawned = node.spawn_on(&arbiter, LISTENER, Policy::default(), listener);
    let registered = spawned.and_then(|addr| node.register(LISTENER, addr));
    registered.map(|_| ()).map_err(not_registered)
}

fn not_registered(error: synod_runtime::registry::RegisterError) -> Failure {
    Failure::failed(LISTENER, error, "report this")
}

/// The rows without options, or those that `args` narrows them to.
fn grid(args: &BenchArgs) -> Vec<Shape> {
    let sizes = args.size.map_or_else(|| SIZES.to_vec(), |size| vec![size as usize]);
    let clients = args.clients.map(|clients| clients as usize);
    let mut shapes = Vec::new();
    for size in sizes {
        let in_flight = clients.unwrap_or(TELLS_IN_FLIGHT);
        shapes.push(Shape { is_ask: false, size, in_flight });
        let asks = clients.map_or_else(|| ASKS_IN_FLIGHT.to_vec(), |clients| vec![clients]);
        let asks = asks.into_iter();
        shapes.extend(asks.map(|in_flight| Shape { is_ask: true, size, in_flight }));
    }
    shapes
}

impl Bench<'_> {
    async fn rows(&self, report: &mut Report) -> Result<(), Failure> {
        let shapes = grid(self.args);
        let span = Duration::from_secs(self.args.seconds);
        report.expect(shapes.len(), span);
        for shape in shapes {
            let Shape { is_ask, size, in_flight } = shape;
            let kind = if is_ask { "ask" } else { "tell" };
            let name = format!("{kind}-{size}B-{in_flight}");
            let measured = report.during(&name, async {
                match is_ask {
                    true => self.asks(shape, span).await,
                    false => self.tells(shape, span).await,
                }
            });
            let figures = measured.await;
            let conditions = Conditions {
                kind,
                size,
                in_flight,
                nodes: self.nodes,
                durability: None,
                seconds: self.args.seconds,
                clients: None,
                raw: self.raw,
            };
            let row = Row::new(name, &figures, Costs::default(), conditions);
            report.row(row, figures.last_error.as_deref())?;
        }
        Ok(())
    }

    async fn asks(&self, shape: Shape, span: Duration) -> Figures {
        let meter = Meter::start(span);
        let tasks = (0..shape.in_flight).map(|_| {
            let body = Bytes::from(vec![b'x'; shape.size]);
            actix_rt::spawn(ask(self.to.clone(), body, meter.clone()))
        });
        let tasks = tasks.collect();
        meter.finish(tasks, 1).await
    }

    async fn tells(&self, shape: Shape, span: Duration) -> Figures {
        let meter = Meter::start(span);
        let window = shape.in_flight as u64;
        self.heard.notes.store(0, Relaxed);
        let tells = Tells { meter: meter.clone(), room_every: (window / 2).max(1) };
        self.set_row(Some(tells));
        let body = Bytes::from(vec![b'x'; shape.size]);
        let (to, heard) = (self.to.clone(), Arc::clone(&self.heard));
        let task = actix_rt::spawn(tell(to, heard, body, window, meter.clone()));
        let figures = meter.finish(vec![task], window).await;
        self.set_row(None);
        figures
    }

    fn set_row(&self, row: Option<Tells>) {
        *self.heard.row.lock().expect("held only to look or to set") = row;
    }
}

async fn ask(to: RemoteAddr<Listener>, body: Bytes, meter: Meter) {
    let mut now = RealClock.now();
    while !meter.is_over(now) {
        let sent = now;
        let answer = to.send(Question { body: body.clone() }).await;
        now = RealClock.now();
        match answer {
            Ok(len) if len == body.len() as u64 => meter.answered(sent, now, 1),
            Ok(_) => meter.failed(1, "a wrong answer"),
            Err(e) => {
                meter.failed(1, e.to_string());
                sleep(PAUSE).await;
                now = RealClock.now();
            }
        }
    }
}

/// Keeps `window` notes in flight: tells have no answer, but the listener counts.
async fn tell(to: RemoteAddr<Listener>, heard: Arc<Heard>, body: Bytes, window: u64, meter: Meter) {
    let mut sent = 0;
    'sending: loop {
        let arrived = heard.notes.load(Relaxed);
        while sent < arrived + window {
            let now = RealClock.now();
            if meter.is_over(now) {
                break 'sending;
            }
            to.do_send(Note { sent_nanos: now.as_nanos(), body: body.clone() });
            sent += 1;
        }
        if timeout(LOST_AFTER, heard.room.notified()).await.is_err() {
            let arrived = heard.notes.load(Relaxed);
            meter.failed(sent - arrived, "not delivered");
            sent = arrived;
        }
    }
    // What is on its way belongs to this row, not to the next.
    let all_arrived = async {
        while heard.notes.load(Relaxed) < sent {
            sleep(LOOK_AGAIN).await;
        }
    };
    if timeout(LOST_AFTER, all_arrived).await.is_err() {
        meter.failed(sent - heard.notes.load(Relaxed), "not delivered");
    }
}

/// The name of the actor.
const LISTENER: &str = "bench.listener";

/// Bytes of a message: a small one, and one that fills most of a datagram.
const SIZES: [usize; 2] = [64, 1024];

/// One alone for the latency, and two loads.
const ASKS_IN_FLIGHT: [usize; 3] = [1, 64, 1024];

/// Enough that neither end waits for the other.
const TELLS_IN_FLIGHT: usize = 1024;

/// Tells that nobody heard by then are lost: a link went down or had no room.
const LOST_AFTER: Duration = Duration::from_secs(1);

/// Between two looks whether the last tells arrived.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

/// After an error, before the next attempt.
const PAUSE: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args::BenchKind;

    #[test]
    fn asks_come_at_three_loads_unless_clients_are_given() {
        let mut args = BenchArgs {
            what: BenchKind::Remote,
            seconds: 1,
            clients: None,
            size: None,
            cluster: None,
            node: Vec::new(),
            durability: None,
            json: false,
        };
        let rows = |args: &BenchArgs| {
            let all = grid(args).into_iter().map(|s| (s.is_ask, s.size, s.in_flight));
            all.collect::<Vec<_>>()
        };
        let of_64 = [(false, 64, 1024), (true, 64, 1), (true, 64, 64), (true, 64, 1024)];
        assert_eq!(rows(&args)[..4], of_64);
        assert_eq!(rows(&args).len(), 8);
        (args.clients, args.size) = (Some(7), Some(100));
        assert_eq!(rows(&args), [(false, 100, 7), (true, 100, 7)]);
    }
}
