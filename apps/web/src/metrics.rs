//! What a site counts.

use std::time::Duration;

use synod::runtime::telemetry::{Family, Histogram, Kind, Metrics};

/// Sites that differ.
pub const DIVERGED: Family = Family {
    name: "synod_web_diverged_total",
    help: "How often the server behind this main answered otherwise than the others'.",
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
    order: Histogram,
    server: Histogram,
}

impl WebMetrics {
    /// The series of a node.
    pub fn new(metrics: &Metrics) -> Self {
        let order = metrics.histogram(&ORDER_SECONDS, &[]);
        Self { order, server: metrics.histogram(&SERVER_SECONDS, &[]) }
    }

    /// A request has its place.
    pub fn ordered(&self, after: Duration) {
        self.order.observe(after);
    }

    /// The server performed an ordered request.
    pub fn performed(&self, after: Duration) {
        self.server.observe(after);
    }
}
