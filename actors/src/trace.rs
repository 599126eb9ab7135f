//! Traces out of `tracing` spans: what one request led to, on all nodes, under one number.
//!
//! Add the [layer] to the program's subscriber. From then on every span that a program opens begins
//! a trace, unless it lies inside of one; messages that are sent inside of it carry its number; and
//! the handlers they come to run in a span with the fields `target` (the actor's name), `message`,
//! `from` (the sending node) and `trace` (the number, in hexadecimal).
//!
//! ```no_run
//! use tracing_subscriber::{layer::SubscriberExt as _, util::SubscriberInitExt as _};
//!
//! tracing_subscriber::registry()
//!     .with(synod::trace::layer())
//!     .with(tracing_subscriber::fmt::layer())
//!     .init();
//! ```
//!
//! A node without the layer passes traces on all the same. What does not pass them on by itself: a
//! message to an actor of the same node, which actix delivers, and a future that a handler returns;
//! [`carry`] such a future.

use synod_runtime::trace::SPAN_TARGET;
pub use synod_runtime::trace::{Entered, Trace, carry};
use tracing::{Subscriber, span};
use tracing_subscriber::{Layer, layer::Context, registry::LookupSpan};

/// See the [module](self).
pub fn layer() -> TraceLayer {
    TraceLayer
}

/// Makes traces of spans: see the [module](self).
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct TraceLayer;

/// Spans of ours tell where in the program something happens. They belong to the trace they are
/// in, and begin none: an actor's would last as long as the actor.
const OURS: [&str; 2] = ["synod::", "synod_runtime::"];

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for TraceLayer {
    fn on_new_span(&self, attrs: &span::Attributes<'_>, id: &span::Id, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let target = attrs.metadata().target();
        let ours = OURS.iter().any(|prefix| target.starts_with(prefix));
        let around = match attrs.parent() {
            Some(parent) => {
                context.span(parent).and_then(|parent| parent.extensions().get().cloned())
            }
            None if attrs.is_contextual() => Trace::current(),
            None => None,
        };
        let trace = match around {
            // An actor outlives the span in which it is started.
            Some(_) if ours && target != SPAN_TARGET => None,
            Some(trace) => Some(trace),
            None => (!ours).then(Trace::new),
        };
        if let Some(trace) = trace {
            span.extensions_mut().insert::<Trace>(trace);
        }
    }

    fn on_enter(&self, id: &span::Id, context: Context<'_, S>) {
        let span = context.span(id);
        if let Some(trace) = span.as_ref().and_then(|span| span.extensions().get().cloned()) {
            Trace::push(&trace, id.into_u64());
        }
    }

    fn on_exit(&self, id: &span::Id, _: Context<'_, S>) {
        Trace::pop(id.into_u64());
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{self, Write},
        sync::{Arc, Mutex},
        time::Duration,
    };

    use actix::{Actor, Context, Handler, Message, ResponseFuture};
    use serde::{Deserialize, Serialize};
    use synod_runtime::{
        address::{RemoteAddr, RemoteRecipient},
        identity::Incarnation,
        node::{Node, NodeConfig},
        sim::{PORT_DEFAULT, Simulation},
    };
    use tracing::{Instrument as _, info, info_span};
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;
    use crate::message::{RemoteActor, RemoteMessage};

    /// Goes back and forth so many times.
    #[derive(Message, Serialize, Deserialize, RemoteMessage)]
    #[rtype(result = "()")]
    #[remote(name = "court.ball")]
    struct Ball {
        hops: u32,
        to: RemoteRecipient<Self>,
        from: RemoteRecipient<Self>,
    }

    #[derive(RemoteActor)]
    #[remote(name = "court", handles(Ball))]
    struct Court(Seen);

    /// The traces that handlers were in, in their order.
    type Seen = Arc<Mutex<Vec<Option<String>>>>;

    impl Actor for Court {
        type Context = Context<Self>;
    }

    fn shown() -> Option<String> {
        Trace::current().map(|trace| trace.to_string())
    }

    impl Handler<Ball> for Court {
        type Result = ResponseFuture<()>;

        fn handle(&mut self, ball: Ball, _: &mut Context<Self>) -> Self::Result {
            info!(hops = ball.hops, "has the ball");
            let Ball { hops, to, from } = ball;
            let mine = shown();
            self.0.lock().unwrap().push(mine.clone());
            Box::pin(carry(async move {
                assert_eq!(shown(), mine, "carried");
                if hops > 0 {
                    let next = Ball { hops: hops - 1, to: from, from: to.clone() };
                    to.send(next).await.unwrap();
                }
            }))
        }
    }

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Lines {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    fn node(sim: &Simulation, name: &str, seen: &Seen) -> Node {
        let config = NodeConfig {
            listen: ([0, 0, 0, 0], PORT_DEFAULT).into(),
            ..NodeConfig::new("demo".parse().unwrap(), name.parse().unwrap(), Incarnation(1))
        };
        let node = Node::start(sim.world(&config.name), config).unwrap();
        let court = format!("court/{name}");
        let seen = Arc::clone(seen);
        node.register(&court, node.spawn(&court, move || Court(Arc::clone(&seen)))).unwrap();
        node
    }

    async fn known(node: &Node, name: &str) -> RemoteAddr<Court> {
        loop {
            match node.lookup(name) {
                Ok(court) => return court,
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    }

    /// Two rallies between two nodes, each in a span if spans are on; answers the traces that the
    /// handlers of each saw, and the run's digest.
    fn play() -> ([Vec<Option<String>>; 2], u64) {
        Simulation::new(5).run(|sim| async move {
            let seen = Seen::default();
            let (a, b) = (node(&sim, "a", &seen), node(&sim, "b", &seen));
            a.links().connect(b.name(), &sim.address(b.name()));
            let (own, far) = (known(&a, "court/a").await, known(&a, "court/b").await);
            let mut rallies = [Vec::new(), Vec::new()];
            for rally in &mut rallies {
                let (to, from) = (own.recipient(), far.recipient());
                let ball = far.send(Ball { hops: 3, to, from });
                ball.instrument(info_span!(target: "mine", "rally")).await.unwrap();
                *rally = std::mem::take(&mut *seen.lock().unwrap());
            }
            (rallies, sim.trace_digest())
        })
    }

    fn listened<T>(work: impl FnOnce() -> T) -> (T, String) {
        let lines = Lines::default();
        let writer = lines.clone();
        let format = tracing_subscriber::fmt().with_ansi(false).without_time();
        let format = format.with_writer(move || writer.clone()).finish();
        let done = tracing::subscriber::with_default(format.with(layer()), work);
        (done, lines.text())
    }

    #[test]
    fn one_request_is_one_trace_on_all_nodes_and_another_is_another() {
        let ((seen, _), text) = listened(play);
        let [one, other] = seen.map(|traces| {
            assert_eq!(traces.len(), 4, "every handler: {traces:?}");
            assert!(traces.iter().all(|trace| *trace == traces[0]), "{traces:?}");
            traces[0].clone().expect("a span was open")
        });
        assert_ne!(one, other);
        assert_eq!(one.len(), 16, "sixteen hexadecimal digits: {one}");
        for trace in [one, other] {
            let of_it = |line: &&str| line.contains(&format!("trace={trace}"));
            let lines: Vec<_> = text.lines().filter(of_it).collect();
            assert_eq!(lines.len(), 4, "{text}");
            let fields = ["handle{target=\"court/b\" court.ball from=a/", "hops=3"];
            assert!(fields.iter().all(|field| lines[0].contains(field)), "{}", lines[0]);
            assert!(lines[1].contains("court/a") && lines[1].contains("from=b"), "{}", lines[1]);
        }
    }

    #[test]
    fn a_run_is_the_same_whether_or_not_anybody_follows_it() {
        let (silent, digest) = play();
        assert_eq!(silent, [vec![None; 4], vec![None; 4]], "no subscriber, no trace");
        assert_eq!(listened(play).0.1, digest);
    }

    #[test]
    fn a_trace_entered_by_hand_passes_nodes_without_a_subscriber() {
        let trace = Trace::of(0xabc);
        let ([one, other], _) = trace.in_scope(play);
        assert_eq!(one, vec![Some("0000000000000abc".to_owned()); 4]);
        assert_eq!(one, other);
    }

    #[test]
    fn spans_of_ours_begin_no_trace() {
        listened(|| {
            info_span!(target: "synod_runtime::node", "actor").in_scope(|| {
                assert_eq!(Trace::current(), None);
                info_span!(target: "mine", "outer")
                    .in_scope(|| assert!(Trace::current().is_some()));
            });
            info_span!(target: "mine", "outer").in_scope(|| {
                let outer = Trace::current();
                info_span!(target: "mine", "inner")
                    .in_scope(|| assert_eq!(Trace::current(), outer));
                info_span!(target: "mine", parent: None, "apart").in_scope(|| {
                    assert!(Trace::current() != outer && Trace::current().is_some());
                });
            });
        });
    }
}
