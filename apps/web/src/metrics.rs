//! What a site counts.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use serde_json::{Value, json};

use synod::runtime::telemetry::{Counter, Family, Histogram, Kind, Metrics};

use crate::tireless;

/// Sites that differ.
pub const DIVERGED: Family = Family {
    name: "synod_web_diverged_total",
    help: "How often the server behind this main answered otherwise than the others'.",
    kind: Kind::Counter,
};

/// Requests of clients.
pub const REQUESTS: Family = Family {
    name: "synod_web_requests_total",
    help: "Requests of clients of the server behind this site, by method, or by what they do.",
    kind: Kind::Counter,
};

/// How long a place takes.
pub const ORDER_SECONDS: Family = Family {
    name: "synod_web_order_seconds",
    help: "From a client's request to its place in the agreed order.",
    kind: Kind::Histogram,
};

/// How long a server takes.
pub const SERVER_SECONDS: Family = Family {
    name: "synod_web_server_seconds",
    help: "How long the server behind this main takes for an ordered request.",
    kind: Kind::Histogram,
};

/// The series of one site. Cloning is cheap and gives the same ones.
#[derive(Debug, Clone)]
pub struct WebMetrics {
    order: Timed,
    server: Timed,
    restarts: [Counter; 3],
}

impl WebMetrics {
    /// The series of a node.
    pub fn new(metrics: &Metrics) -> Self {
        let timed = |family| Timed { all: metrics.histogram(family, &[]), last: Arc::default() };
        let restarts = ["web/site", "web/reports", "web/copies"];
        let restarts = restarts.map(|part| tireless::restarts(metrics, part));
        Self { order: timed(&ORDER_SECONDS), server: timed(&SERVER_SECONDS), restarts }
    }

    /// What counts how often the work of a site, its reports and its copying began anew.
    pub(crate) fn restarts(&self) -> [Counter; 3] {
        self.restarts.clone()
    }

    /// A request has its place.
    pub fn ordered(&self, after: Duration) {
        self.order.observe(after);
    }

    /// The server performed an ordered request.
    pub fn performed(&self, after: Duration) {
        self.server.observe(after);
    }

    /// How long the last requests waited for their places, for people; null without any.
    pub fn order_lately(&self) -> Value {
        self.order.lately()
    }

    /// The same, for the server.
    pub fn server_lately(&self) -> Value {
        self.server.lately()
    }
}

/// How long something takes.
#[derive(Debug, Clone)]
struct Timed {
    all: Histogram,
    last: Arc<Mutex<VecDeque<Duration>>>,
}

impl Timed {
    fn observe(&self, took: Duration) {
        self.all.observe(took);
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.len() >= LATELY {
            last.pop_front();
        }
        last.push_back(took);
    }

    fn lately(&self) -> Value {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let mut sorted: Vec<Duration> = last.iter().copied().collect();
        drop(last);
        sorted.sort_unstable();
        let at = |percent: usize| {
            let took = sorted.get(sorted.len().saturating_sub(1) * percent / 100)?;
            Some((took.as_secs_f64() * 1e5).round() / 1e2)
        };
        at(50).map_or(Value::Null, |median| json!({ "median_ms": median, "p99_ms": at(99) }))
    }
}

/// Enough for one of a hundred to mean something, few enough to be of this moment.
const LATELY: usize = 1_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_is_of_the_last_requests() {
        let metrics = WebMetrics::new(&Metrics::new());
        assert_eq!(metrics.order_lately(), Value::Null);
        (0..50).for_each(|_| metrics.ordered(Duration::from_secs(9)));
        (1..=LATELY as u64).for_each(|at| metrics.ordered(Duration::from_micros(10 * at)));
        assert_eq!(metrics.order_lately(), json!({ "median_ms": 5.0, "p99_ms": 9.9 }));
        assert_eq!(metrics.server_lately(), Value::Null);
        assert_eq!(metrics.order.all.count(), LATELY as u64 + 50);
    }
}
