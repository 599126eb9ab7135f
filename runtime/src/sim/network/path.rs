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
    /// A packet is lost on its way, and the transport sends it again after a round trip and a half,
    /// then after twice that, and so on; what is behind it on its lane waits for it. This is what
    /// loss looks like above QUIC. Datagrams are lost for good.
    pub repaired: f64,
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
            repaired: 0.0,
            duplication: 0.0,
            reorder: 0.0,
        }
    }
}

impl Weather {
    /// Between two cities: 80 ms for a round trip, and one packet of a hundred lost.
    pub const fn wan() -> Self {
        Self {
            latency: Duration::from_micros(39_500),
            jitter: Duration::from_millis(1),
            loss: 0.0,
            repaired: 0.01,
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

    /// How much later `bytes` arrive because packets of theirs were lost, in nanoseconds.
    pub(super) fn repair(&mut self, general: Weather, bytes: usize) -> u64 {
        let weather = self.weather(general);
        if weather.repaired <= 0.0 || self.loopback {
            return 0;
        }
        let packets = i32::try_from(bytes.div_ceil(PACKET_BYTES)).unwrap_or(i32::MAX).max(1);
        let mut chance = 1.0 - (1.0 - weather.repaired).powi(packets);
        let (mut late, mut pause) = (0, 3 * nanos(weather.latency + weather.jitter / 2));
        while happens(&mut self.rng, chance) {
            late += pause;
            pause *= 2;
            chance = weather.repaired; // seldom is more than one of them lost again
        }
        late
    }

    /// Whether one packet gets through at all.
    pub(super) fn passes(&mut self, general: Weather) -> bool {
        let weather = self.weather(general);
        let repaired = weather.repaired > 0.0 && happens(&mut self.rng, weather.repaired);
        !self.cut && !repaired && !happens(&mut self.rng, weather.loss)
    }
}

/// What surely fits a packet.
const PACKET_BYTES: usize = 1_200;

/// What a machine takes to reach itself.
const LOOPBACK_NANOS: u64 = 20_000;
