//! How long answers took, and how many there were.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use actix_rt::{task::JoinHandle, time::timeout};
use futures_util::future::join_all;
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use synod_runtime::world::{Clock as _, Instant, RealClock};

/// What the clients of one row measure together. Cloning gives the same meter.
#[derive(Debug, Clone)]
pub(super) struct Meter(Arc<Inner>);

/// What is sent in this span of time counts; before it, everything warms up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Span {
    from_nanos: u64,
    until_nanos: u64,
}

impl Span {
    /// Warms up now, and lasts `time` after that.
    pub(super) fn starting(time: Duration) -> Self {
        let from = RealClock.now() + warm_up(time);
        Self { from_nanos: from.as_nanos(), until_nanos: (from + time).as_nanos() }
    }

    /// For who measures in turns, and counts the time itself.
    pub(super) fn unbounded() -> Self {
        Self { from_nanos: 0, until_nanos: u64::MAX }
    }

    fn from(self) -> Instant {
        Instant::from_nanos(self.from_nanos)
    }

    /// When it is over.
    pub(super) fn until(self) -> Instant {
        Instant::from_nanos(self.until_nanos)
    }
}

#[derive(Debug)]
struct Inner {
    span: Span,
    numbers: Mutex<Numbers>,
}

#[derive(Debug)]
struct Numbers {
    nanos: Histogram<u64>,
    /// Everything that was answered, in the warm-up too.
    all: u64,
    errors: u64,
    last_error: Option<String>,
}

/// What one row measured.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Figures {
    pub(super) ops_per_s: f64,
    /// The quickest but a hundredth.
    pub(super) p01: Duration,
    pub(super) p50: Duration,
    pub(super) p99: Duration,
    pub(super) p999: Duration,
    /// All that was answered, in the warm-up too: what the counters of nodes are divided by.
    pub(super) all: u64,
    pub(super) errors: u64,
    pub(super) last_error: Option<String>,
}

/// The share of the time that is for warming up, at most [`WARM_UP_MAX`]; it comes on top.
const WARM_UP_PART: u32 = 5;

/// Connections, caches and congestion windows are warm by then.
const WARM_UP_MAX: Duration = Duration::from_secs(1);

/// Who waits this much longer than the row lasts waits for nothing: nodes say *unknown* before.
const GRACE: Duration = Duration::from_secs(6);

/// Latencies above this are told as this.
const NANOS_MAX: u64 = 60_000_000_000;

impl Meter {
    /// Starts to warm up now, and measures `span` after that.
    pub(super) fn start(span: Duration) -> Self {
        Self::during(Span::starting(span))
    }

    /// Measures what is sent in `span`.
    pub(super) fn during(span: Span) -> Self {
        let nanos = Histogram::new_with_bounds(1, NANOS_MAX, 3).expect("bounds in order");
        let numbers = Mutex::new(Numbers { nanos, all: 0, errors: 0, last_error: None });
        Self(Arc::new(Inner { span, numbers }))
    }

    /// Whether the time for new questions is over.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        now >= self.0.span.until()
    }

    /// `ops` sent together were answered well.
    pub(super) fn answered(&self, sent: Instant, now: Instant, ops: u64) {
        let mut numbers = self.numbers();
        numbers.all += ops;
        if sent >= self.0.span.from() && sent < self.0.span.until() {
            let nanos = u64::try_from(now.since(sent).as_nanos()).unwrap_or(NANOS_MAX);
            numbers.nanos.saturating_record_n(nanos.max(1), ops);
        }
    }

    /// `ops` were refused, lost, or not answered.
    pub(super) fn failed(&self, ops: u64, why: impl Into<String>) {
        let mut numbers = self.numbers();
        numbers.errors += ops;
        numbers.last_error = Some(why.into());
    }

    /// Waits for `clients`, each with at most `in_flight_each` questions open, to see that the
    /// time is over.
    pub(super) async fn finish(self, clients: Vec<JoinHandle<()>>, in_flight_each: u64) -> Figures {
        let left = self.0.span.until().since(RealClock.now()) + GRACE;
        let mut clients = clients;
        if timeout(left, join_all(&mut clients)).await.is_err() {
            for client in clients.iter().filter(|client| !client.is_finished()) {
                client.abort();
                self.failed(in_flight_each, "no answer");
            }
        }
        self.figures()
    }

    /// What was measured so far.
    pub(super) fn figures(&self) -> Figures {
        let numbers = self.numbers();
        let at = |part| Duration::from_nanos(numbers.nanos.value_at_quantile(part));
        let span = self.0.span.until().since(self.0.span.from()).as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "2^53 answers take longer than an hour")]
        let ops_per_s = numbers.nanos.len() as f64 / span;
        Figures {
            ops_per_s,
            p01: at(0.01),
            p50: at(0.5),
            p99: at(0.99),
            p999: at(0.999),
            all: numbers.all,
            errors: numbers.errors,
            last_error: numbers.last_error.clone(),
        }
    }

    fn numbers(&self) -> MutexGuard<'_, Numbers> {
        // A panic while it was held left whole numbers behind.
        self.0.numbers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How long a row of this length warms up.
pub(super) fn warm_up(span: Duration) -> Duration {
    WARM_UP_MAX.min(span / WARM_UP_PART)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_sent_in_the_span_counts_as_rate() {
        let meter = Meter::start(Duration::from_secs(10));
        let (from, until) = (meter.0.span.from(), meter.0.span.until());
        let late = Duration::from_millis(3);
        meter.answered(from - late, from, 7);
        meter.answered(from, from + late, 30);
        meter.answered(until - late, until + late, 10);
        meter.answered(until, until + late, 7);
        meter.failed(2, "refused");
        let figures = meter.figures();
        assert_eq!((figures.all, figures.errors), (54, 2));
        assert!((figures.ops_per_s - 4.0).abs() < 1e-9, "{figures:?}");
        assert_eq!((figures.p50.as_millis(), figures.p999.as_millis()), (3, 6));
    }
}
