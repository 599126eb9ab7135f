//! What a site counts.

use std::time::Duration;

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
    order: Histogram,
    server: Histogram,
    restarts: [Counter; 3],
}

impl WebMetrics {
    /// The series of a node.
    pub fn new(metrics: &Metrics) -> Self {
        let order = metrics.histogram(&ORDER_SECONDS, &[]);
        let restarts = ["web/site", "web/reports", "web/copies"];
        let restarts = restarts.map(|part| tireless::restarts(metrics, part));
        Self { order, server: metrics.histogram(&SERVER_SECONDS, &[]), restarts }
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
}
