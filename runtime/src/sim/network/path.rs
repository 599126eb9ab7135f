//! What lies between two nodes: one directed path with its weather, cuts and counts.

use std::time::Duration;

use crate::{
    sim::{
        entropy::{happens, up_to},
        queue::nanos,
    },
    world::Rng,
};

/// How the network behaves when nothing is cut. Chances are per write, from 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Weather {
    /// Every delivery takes at least this long.
    pub latency: Duration,
    /// And up to this much more, evenly.
    pub jitter: Duration,
    /// A write or datagram is lost. On [`Lane::Control`](crate::world::network::Lane) the
    /// connection breaks instead, since nothing above could repair its handshake.
    pub loss: f64,
    /// A write or datagram arrives a second time later.
    pub duplication: f64,
    /// A write or datagram is overtaken by later ones.
    pub reorder: f64,
}

impl Default for Weather {
    /// A calm local network.
    fn default() -> Self {
        Self {
            latency: Duration::from_micros(200),
            jitter: Duration::from_micros(300),
            loss: 0.0,
            duplication: 0.0,
            reorder: 0.0,
        }
    }
}

/// What went from one node to another on one lane, or as datagrams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Traffic {
    /// Writes taken from the sender.
    pub sent: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Deliveries to the receiver, duplicates included.
    pub delivered: u64,
    /// Writes lost on purpose.
    pub lost: u64,
}

/// One directed path.
#[derive(Debug)]
pub(super) struct Path {
    pub(super) rng: Rng,
    pub(super) cut: bool,
    /// In place of the network's.
    pub(super) weather: Option<Weather>,
    clogged_until: u64,
    clog_extra: u64,
    /// One a lane, then datagrams.
    pub(super) traffic: [Traffic; 5],
    /// Both ends are one machine.
    loopback: bool,
}

impl Path {
    pub(super) fn new(rng: Rng, loopback: bool) -> Self {
        Self {
            rng,
            cut: false,
            weather: None,
            clogged_until: 0,
            clog_extra: 0,
            traffic: [Traffic::default(); 5],
            loopback,
        }
    }

    /// Adds up to `extra` to every latency until true time `until`.
    pub(super) fn clog(&mut self, extra: Duration, until: u64) {
        self.clog_extra = nanos(extra);
        self.clogged_until = until;
    }

    /// No cut and no clog any more; the weather stays.
    pub(super) fn heal(&mut self) {
        self.cut = false;
        self.clogged_until = 0;
    }

    pub(super) fn weather(&self, general: Weather) -> Weather {
        self.weather.unwrap_or(general)
    }

    /// How long the next delivery takes, in nanoseconds.
    pub(super) fn latency(&mut self, now: u64, general: Weather) -> u64 {
        if self.loopback {
            return LOOPBACK_NANOS;
        }
        let weather = self.weather(general);
        let clog = if now < self.clogged_until { self.clog_extra } else { 0 };
        let jitter = up_to(&mut self.rng, nanos(weather.jitter).saturating_add(clog));
        nanos(weather.latency).saturating_add(jitter)
    }

    /// Whether one packet gets through at all.
    pub(super) fn passes(&mut self, general: Weather) -> bool {
        let loss = self.weather(general).loss;
        !self.cut && !happens(&mut self.rng, loss)
    }
}

/// What a machine takes to reach itself.
const LOOPBACK_NANOS: u64 = 20_000;
