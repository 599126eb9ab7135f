//! Traces: one number for everything that one thing led to, on all nodes.
//!
//! While a trace is [entered](Trace::enter), every message sent from that thread to another node
//! carries its number. The receiving actor's handler runs in the same trace and in a `tracing` span
//! with the number, so log lines on all nodes can be brought together by it; what the handler sends
//! on carries the number on. Whoever sends outside of any trace pays one look at a thread-local.
//!
//! The crate `synod` has a layer for `tracing-subscriber` that makes traces of spans by itself
//! (`synod::trace`); here they are entered by hand:
//!
//! ```
//! use synod_runtime::trace::Trace;
//!
//! let trace = Trace::new();
//! trace.in_scope(|| {
//!     // What is sent from here to other nodes is of one trace.
//!     assert_eq!(Trace::current(), Some(trace.clone()));
//! });
//! assert_eq!(Trace::current(), None);
//! ```
//!
//! On one node actix delivers by itself: what is sent to an actor of the same node leaves the trace,
//! and so does a future that a handler returns, unless it is [carried](carry).

use std::{
    cell::RefCell,
    fmt,
    future::{Future, poll_fn},
    marker::PhantomData,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use tracing::span::EnteredSpan;

use crate::{identity::NodeId, wire::FrameHeader};

/// One trace. Cloning gives another handle to the same; its number is drawn by the node from which
/// the first message of it is sent.
#[derive(Clone)]
pub struct Trace(Arc<AtomicU64>);

/// The target (in the sense of `tracing`) of the span around a handler whose message came with a
/// trace, called `handle`. Its fields are `target`, `message`, `from` and `trace`.
pub const SPAN_TARGET: &str = "synod::message";

/// Stands where a number will be.
const UNDRAWN: u64 = 0;

thread_local! {
    /// The traces that this thread is in, innermost last; each with the key it was pushed under.
    static ENTERED: RefCell<Vec<(u64, Trace)>> = const { RefCell::new(Vec::new()) };
}

/// The key of [`Trace::enter`]; span ids are never 0.
const BY_GUARD: u64 = 0;

impl Trace {
    /// A new trace.
    #[expect(clippy::new_without_default, reason = "two defaults would not be equal")]
    pub fn new() -> Self {
        Self(Arc::new(AtomicU64::new(UNDRAWN)))
    }

    /// The trace of a number that came from elsewhere; 0 stands for a new one.
    pub fn of(number: u64) -> Self {
        Self(Arc::new(AtomicU64::new(number)))
    }

    /// The innermost trace this thread is in.
    pub fn current() -> Option<Self> {
        ENTERED.with_borrow(|entered| entered.last().map(|(_, trace)| trace.clone()))
    }

    /// Its number, once something was sent.
    pub fn number(&self) -> Option<u64> {
        Some(self.0.load(Relaxed)).filter(|number| *number != UNDRAWN)
    }

    /// Enters it until the guard goes.
    pub fn enter(&self) -> Entered {
        self.push(BY_GUARD);
        Entered(PhantomData)
    }

    /// Does something in it.
    pub fn in_scope<T>(&self, work: impl FnOnce() -> T) -> T {
        let _entered = self.enter();
        work()
    }

    /// Enters it under the id of a span, for layers: spans may be left in any order.
    pub fn push(&self, span: u64) {
        ENTERED.with_borrow_mut(|entered| entered.push((span, self.clone())));
    }

    /// Leaves what was last entered under the id of a span.
    pub fn pop(span: u64) {
        ENTERED.with_borrow_mut(|entered| {
            if let Some(place) = entered.iter().rposition(|(key, _)| *key == span) {
                entered.remove(place);
            }
        });
    }
}

/// Leaves a trace when it goes.
#[must_use = "the trace is left when the guard goes"]
#[derive(Debug)]
pub struct Entered(PhantomData<*const ()>);

impl Drop for Entered {
    fn drop(&mut self) {
        Trace::pop(BY_GUARD);
    }
}

/// The number for a message that is sent now: 0 outside of any trace. `draw` is asked for one when
/// it is the first message of its trace.
pub(crate) fn outgoing(draw: impl FnOnce() -> u64) -> u64 {
    ENTERED.with_borrow(|entered| {
        let Some((_, Trace(cell))) = entered.last() else { return 0 };
        match cell.load(Relaxed) {
            UNDRAWN => {
                let number = draw();
                // Two threads may draw at once: the first counts.
                match cell.compare_exchange(UNDRAWN, number, Relaxed, Relaxed) {
                    Ok(_) => number,
                    Err(first) => first,
                }
            }
            number => number,
        }
    })
}

/// A handler at work on a message that came with a trace. The span is left first.
pub(crate) struct Handling {
    _span: EnteredSpan,
    _trace: Entered,
}

/// Enters the trace of a message that came from another node, and a span around its handler.
pub(crate) fn incoming(
    header: &FrameHeader,
    target: impl FnOnce() -> String,
    message: &'static str,
    from: &NodeId,
) -> Option<Handling> {
    if header.trace == UNDRAWN {
        return None;
    }
    let trace = Trace::of(header.trace).enter();
    // Nothing here is computed unless somebody wants the span.
    let span = tracing::info_span!(
        target: SPAN_TARGET,
        "handle",
        target = target(),
        message,
        %from,
        trace = %Hex(header.trace),
    );
    Some(Handling { _span: span.entered(), _trace: trace })
}

/// Does `work` in the trace and the span this thread is in now, on whatever thread it is polled:
/// for futures that handlers return or spawn.
pub fn carry<F: Future>(work: F) -> impl Future<Output = F::Output> {
    let trace = Trace::current();
    let span = trace.as_ref().map(|_| tracing::Span::current());
    async move {
        let mut work = pin!(work);
        poll_fn(|cx| {
            let _trace = trace.as_ref().map(Trace::enter);
            let _span = span.as_ref().map(tracing::Span::enter);
            work.as_mut().poll(cx)
        })
        .await
    }
}

/// A trace's number as it is shown everywhere: sixteen hexadecimal digits.
struct Hex(u64);

impl fmt::Display for Hex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl PartialEq for Trace {
    /// Whether it is the same trace.
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.number().is_some_and(|n| other.number() == Some(n))
    }
}

impl Eq for Trace {}

impl fmt::Display for Trace {
    /// Its number in hexadecimal, or `new`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.number() {
            Some(number) => Hex(number).fmt(f),
            None => f.write_str("new"),
        }
    }
}

impl fmt::Debug for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Trace({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_drawn_once_and_only_inside_of_a_trace() {
        assert_eq!(outgoing(|| unreachable!("outside of any trace")), 0);
        let trace = Trace::new();
        trace.in_scope(|| {
            assert_eq!(outgoing(|| 7), 7);
            assert_eq!(outgoing(|| unreachable!("drawn already")), 7);
            Trace::of(9).in_scope(|| assert_eq!(outgoing(|| unreachable!("it came with one")), 9));
            assert_eq!(Trace::current(), Some(trace.clone()));
        });
        assert_eq!((trace.number(), trace.to_string().as_str()), (Some(7), "0000000000000007"));
        assert_eq!(Trace::current(), None);
    }

    #[test]
    fn spans_may_be_left_in_any_order() {
        let (one, other) = (Trace::of(1), Trace::of(2));
        one.push(10);
        other.push(20);
        Trace::pop(10);
        assert_eq!(Trace::current(), Some(other));
        Trace::pop(20);
        Trace::pop(20);
        assert_eq!(Trace::current(), None);
    }

    #[tokio::test]
    async fn a_future_is_carried_and_leaves_nothing_behind() {
        let work = Trace::of(3).in_scope(|| {
            carry(async {
                tokio::task::yield_now().await;
                Trace::current()
            })
        });
        assert_eq!(Trace::current(), None);
        assert_eq!(work.await, Some(Trace::of(3)));
        assert_eq!(Trace::current(), None);
    }
}
