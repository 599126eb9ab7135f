//! `bench local` and `bench remote`: tells and asks to one actor.
//!
//! The sender is a task of its node's arbiter, as an actor's own futures are; the actor that
//! receives is on the same arbiter (`local`), or on a node of another process, over QUIC
//! (`remote`). Beside each row stands its limit, measured in the same run: actix's own address, or
//! bare QUIC and bare TCP between the same two processes.

use std::{future::poll_fn, task::Poll, time::Duration};

use actix::{Addr, Handler};
use actix_rt::time::sleep;
use bytes::Bytes;
use synod_runtime::{
    address::{RemoteAddr, SendError},
    message::RemoteMessage,
    world::{Clock as _, RealClock},
};

use super::{
    bare::{self, Over},
    costs::Costs,
    listener::{Arrived, Begin, Cpu, End, LISTENER, Listener, Note, Question, SAMPLE},
    meter::{Figures, Meter, Span},
    pair::alone,
    peer::Peer,
    raw::Sample,
    report::{Conditions, Raw, Report, Row},
    turns::{self, Turns},
};
use crate::cli::{args::BenchArgs, failure::Failure, process};

/// An address to measure: ours, or actix's own as the limit.
trait Way: Clone + 'static {
    /// Sends a note; waits for room where there is such a thing.
    async fn tell(&self, note: Note) -> Result<(), SendError>;

    /// Asks.
    async fn ask<M>(&self, message: M) -> Result<M::Result, SendError>
    where
        M: RemoteMessage,
        Listener: Handler<M>;
}

impl Way for RemoteAddr<Listener> {
    async fn tell(&self, note: Note) -> Result<(), SendError> {
        Self::tell(self, note).await
    }

    async fn ask<M>(&self, message: M) -> Result<M::Result, SendError>
    where
        M: RemoteMessage,
        Listener: Handler<M>,
    {
        self.send(message).await
    }
}

/// To an actor of this node nobody waits for room.
#[derive(Clone)]
struct Here(RemoteAddr<Listener>);

impl Way for Here {
    async fn tell(&self, note: Note) -> Result<(), SendError> {
        self.0.do_send(note);
        Ok(())
    }

    async fn ask<M>(&self, message: M) -> Result<M::Result, SendError>
    where
        M: RemoteMessage,
        Listener: Handler<M>,
    {
        self.0.send(message).await
    }
}

impl Way for Addr<Listener> {
    async fn tell(&self, note: Note) -> Result<(), SendError> {
        self.do_send(note);
        Ok(())
    }

    async fn ask<M>(&self, message: M) -> Result<M::Result, SendError>
    where
        M: RemoteMessage,
        Listener: Handler<M>,
    {
        self.send(message).await.map_err(|_| SendError::Closed)
    }
}

/// What all rows of a run have in common.
struct Bench<'a> {
    args: &'a BenchArgs,
    nodes: usize,
    report: &'a mut Report,
}

/// One row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Shape {
    is_ask: bool,
    size: usize,
    in_flight: usize,
}

/// Messages to an actor of the same node, beside actix's own to the same actor.
pub(super) async fn local(args: &BenchArgs, report: &mut Report) -> Result<(), Failure> {
    let node = alone()?;
    let addr = node.spawn(LISTENER, Listener::default);
    let to = node.register(LISTENER, addr.clone()).map_err(not_registered)?;
    let mut bench = Bench { args, nodes: 1, report };
    let shapes = grid(args);
    bench.expect(2 * shapes.len());
    let done = async {
        for shape in shapes {
            let limit = bench.row(&addr, shape, Some("actix"), Raw::default(), None).await?;
            bench.row(&Here(to.clone()), shape, None, Raw::default(), Some(limit)).await?;
        }
        Ok(())
    };
    let done = done.await;
    node.shutdown();
    done
}

/// Messages to an actor of another process, beside bare QUIC and bare TCP to the same process.
pub(super) async fn remote(args: &BenchArgs, report: &mut Report) -> Result<(), Failure> {
    let peer = Peer::start().await?;
    let to = peer.node.address(peer.id.clone(), LISTENER);
    let mut bench = Bench { args, nodes: 2, report };
    let shapes = grid(args);
    let sizes: Vec<usize> = sizes(args);
    bench.expect(shapes.len() + 4 * sizes.len());
    for size in sizes {
        let mut limit = 0.0;
        for over in [Over::Tcp, Over::Quic] {
            limit = bench.bare_tells(&peer, &to, over, size).await?;
        }
        let of_size = shapes.iter().filter(|shape| shape.size == size);
        let lone = Shape { is_ask: true, size, in_flight: 1 };
        let with_ours = of_size.clone().any(|shape| *shape == lone);
        let raw = bench.lone_asks(&peer, &to, lone, with_ours).await?;
        bench.report.warn_if_busy(raw);
        for shape in of_size.filter(|shape| **shape != lone) {
            let limit = (!shape.is_ask).then_some(limit);
            bench.row(&to, *shape, None, raw, limit).await?;
        }
    }
    peer.stop().await;
    Ok(())
}

fn not_registered(error: synod_runtime::registry::RegisterError) -> Failure {
    Failure::failed(LISTENER, error, "report this")
}

fn sizes(args: &BenchArgs) -> Vec<usize> {
    args.size.map_or_else(|| SIZES.to_vec(), |size| vec![size as usize])
}

/// The rows without options, or those that `args` narrows them to.
fn grid(args: &BenchArgs) -> Vec<Shape> {
    let clients = args.clients.map(|clients| clients as usize);
    let mut shapes = Vec::new();
    for size in sizes(args) {
        let in_flight = clients.unwrap_or(TELLS_IN_FLIGHT);
        shapes.push(Shape { is_ask: false, size, in_flight });
        let asks = clients.map_or_else(|| ASKS_IN_FLIGHT.to_vec(), |clients| vec![clients]);
        let asks = asks.into_iter();
        shapes.extend(asks.map(|in_flight| Shape { is_ask: true, size, in_flight }));
    }
    shapes
}

impl Bench<'_> {
    fn span(&self) -> Duration {
        Duration::from_secs(self.args.seconds)
    }

    fn expect(&mut self, rows: usize) {
        let span = self.span();
        self.report.expect(rows, span);
    }

    /// Measures and says one row of actors; answers its rate. A row of a limit has the limit's
    /// name before its own.
    async fn row(
        &mut self,
        to: &impl Way,
        shape: Shape,
        of: Option<&str>,
        raw: Raw,
        limit: Option<f64>,
    ) -> Result<f64, Failure> {
        let Shape { is_ask, size, in_flight } = shape;
        let kind =
            format!("{}{}", of.map_or_else(String::new, |of| format!("{of}-")), shape.kind());
        let name = format!("{kind}-{size}B-{in_flight}");
        let before = self.cpu(to).await;
        let span = Span::starting(self.span());
        let measured = self.report.during(&name, async {
            match is_ask {
                true => asks(to, shape, span).await,
                false => tells(to, shape, span).await,
            }
        });
        let figures = measured.await;
        let cpu = self.cpu(to).await.zip(before).map(|(after, before)| after - before);
        self.say(name, &figures, cpu, &kind, shape, raw, limit)
    }

    async fn bare_tells(
        &mut self,
        peer: &Peer,
        to: &RemoteAddr<Listener>,
        over: Over,
        size: usize,
    ) -> Result<f64, Failure> {
        let kind = format!("{over}-tell");
        let name = format!("{kind}-{size}B");
        let before = self.cpu(to).await;
        let span = Span::starting(self.span());
        let figures = self.report.during(&name, bare::tells(peer, over, size, span)).await?;
        let cpu = self.cpu(to).await.zip(before).map(|(after, before)| after - before);
        let shape = Shape { is_ask: false, size, in_flight: figures.in_flight };
        self.say(name, &figures.figures, cpu, &kind, shape, Raw::default(), None)
    }

    /// The rows of one message at a time: both limits, and an ask if `with_ours`, in turns. Answers
    /// what bare QUIC needs.
    async fn lone_asks(
        &mut self,
        peer: &Peer,
        to: &RemoteAddr<Listener>,
        lone: Shape,
        with_ours: bool,
    ) -> Result<Raw, Failure> {
        let size = lone.size;
        let measured = turns::asks(peer, to, size, with_ours, self.span());
        let measured = self.report.during(&format!("asks-{size}B-1"), measured).await?;
        let mut raw = Raw::default();
        for Turns { of, figures, cpu } in measured {
            let kind = of.map_or_else(|| "ask".to_owned(), |over| format!("{over}-ask"));
            let known = if of.is_none() { raw } else { Raw::default() };
            self.say(format!("{kind}-{size}B-1"), &figures, Some(cpu), &kind, lone, known, None)?;
            if of == Some(Over::Quic) {
                raw.rtt = Some(Sample { median: figures.p50, quick: figures.p01 });
            }
        }
        Ok(raw)
    }

    #[expect(clippy::too_many_arguments, reason = "a row is what it is")]
    fn say(
        &mut self,
        name: String,
        figures: &Figures,
        cpu: Option<u64>,
        kind: &str,
        shape: Shape,
        raw: Raw,
        limit: Option<f64>,
    ) -> Result<f64, Failure> {
        let conditions = Conditions {
            kind: kind.to_owned(),
            size: shape.size,
            in_flight: shape.in_flight,
            nodes: self.nodes,
            durability: None,
            seconds: self.args.seconds,
            clients: None,
            raw,
        };
        #[expect(clippy::cast_precision_loss, reason = "beyond 2^53 a ratio is as good")]
        let costs = Costs {
            cpu_nanos: cpu.map(|cpu| cpu as f64 / figures.all.max(1) as f64),
            limit,
            ..Costs::default()
        };
        let row = Row::new(name, figures, costs, conditions);
        self.report.row(row, figures.last_error.as_deref())?;
        Ok(figures.ops_per_s)
    }

    /// Processor time of all processes so far.
    async fn cpu(&self, to: &impl Way) -> Option<u64> {
        let theirs = if self.nodes > 1 { to.ask(Cpu {}).await.ok()? } else { 0 };
        Some(theirs + process::cpu_nanos())
    }
}

impl Shape {
    fn kind(self) -> &'static str {
        if self.is_ask { "ask" } else { "tell" }
    }
}

async fn asks(to: &impl Way, shape: Shape, span: Span) -> Figures {
    let meter = Meter::during(span);
    let tasks = (0..shape.in_flight).map(|_| {
        let body = Bytes::from(vec![b'x'; shape.size]);
        actix_rt::spawn(ask(to.clone(), body, meter.clone()))
    });
    let tasks = tasks.collect();
    meter.finish(tasks, 1).await
}

async fn ask(to: impl Way, body: Bytes, meter: Meter) {
    let mut now = RealClock.now();
    while !meter.is_over(now) {
        let sent = now;
        let answer = to.ask(Question { body: body.clone() }).await;
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

/// The listener measures; what it says at the end comes back.
async fn tells(to: &impl Way, shape: Shape, span: Span) -> Figures {
    let failed = |e: SendError| Figures { last_error: Some(e.to_string()), ..Figures::default() };
    let begun = async {
        to.ask(Begin { span }).await?;
        to.ask(Arrived {}).await
    };
    let before = match begun.await {
        Ok(before) => before,
        Err(e) => return failed(e),
    };
    let sent = tell(to, shape, span).await;
    let ended = async { Ok((to.ask(Arrived {}).await?, to.ask(End {}).await?)) };
    match (sent, ended.await) {
        (Ok(sent), Ok((after, figures))) => {
            let all = after - before;
            let lost = sent.saturating_sub(all);
            let last_error = (lost > 0).then(|| "not delivered".to_owned());
            Figures { all, errors: lost, last_error, ..figures }
        }
        (Err(e), _) | (_, Err(e)) => failed(e),
    }
}

/// Keeps so many notes in flight: after every half of them an ask follows, and the next half waits
/// for the answer before.
async fn tell(to: &impl Way, shape: Shape, span: Span) -> Result<u64, SendError> {
    let body = Bytes::from(vec![b'x'; shape.size]);
    let half = (shape.in_flight as u64 / 2).max(1);
    let mut sent = 0;
    let mut behind = Box::pin(to.ask(Arrived {}));
    loop {
        for _ in 0..half {
            let is_sample = sent % SAMPLE == 0;
            let now = is_sample.then(|| RealClock.now());
            if now.is_some_and(|now| now >= span.until()) {
                behind.await?;
                return Ok(sent);
            }
            let sent_nanos = now.map_or(0, |now| now.as_nanos());
            to.tell(Note { sent_nanos, body: body.clone() }).await?;
            sent += 1;
        }
        let mut next = Box::pin(to.ask(Arrived {}));
        // On its way before the next half.
        let answered = poll_fn(|cx| Poll::Ready(next.as_mut().poll(cx))).await;
        behind.await?;
        behind = match answered {
            Poll::Pending => next,
            Poll::Ready(answer) => {
                answer?;
                Box::pin(to.ask(Arrived {}))
            }
        };
    }
}

/// Bytes of a message: a small one, and one that fills most of a datagram.
const SIZES: [usize; 2] = [64, 1024];

/// One alone for the latency, and two loads.
const ASKS_IN_FLIGHT: [usize; 3] = [1, 64, 1024];

/// As many as an actor grants another node credit for.
const TELLS_IN_FLIGHT: usize = 4096;

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
            large: None,
            subscribers: None,
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
        let of_64 = [(false, 64, 4096), (true, 64, 1), (true, 64, 64), (true, 64, 1024)];
        assert_eq!(rows(&args)[..4], of_64);
        assert_eq!(rows(&args).len(), 8);
        (args.clients, args.size) = (Some(7), Some(100));
        assert_eq!(rows(&args), [(false, 100, 7), (true, 100, 7)]);
    }
}
