//! What lies between two nodes: one directed path with its weather, cuts and counts.

use std::time::Duration;

use super::connection::Content;
use crate::{
    sim::{
        entropy::{happens, up_to},
        queue::nanos,
    },
    world::{Rng, network::DATAGRAMS_WAITING_BYTES_MAX},
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
    /// So many bytes of datagrams pass in a second, and more of them wait, up to
    /// [`DATAGRAMS_WAITING_BYTES_MAX`]. One that comes when so much waits is lost; QUIC drops the
    /// oldest. 0: no limit.
    pub datagram_bytes_per_second: u64,
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
            datagram_bytes_per_second: 0,
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
            datagram_bytes_per_second: 0,
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
    /// All datagrams taken so far are gone then.
    idle_at: u64,
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
            idle_at: 0,
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

    /// When what is sent now arrives; none: it is a datagram that is lost on its way.
    pub(super) fn arrival(&mut self, now: u64, general: Weather, what: &Content) -> Option<u64> {
        let at = now + self.latency(now, general);
        let later = match what {
            Content::Datagram(bytes) => {
                let waits = self.queue(now, general, bytes.len())?;
                let is_lost = self.weather(general).repaired > 0.0 && !self.passes(general);
                return (!is_lost).then(|| at.saturating_add(waits));
            }
            Content::Chunk(_, bytes) => self.repair(general, bytes.len()),
            Content::Up | Content::Close(_) => self.repair(general, 1),
        };
        Some(at.saturating_add(later))
    }

    /// How long what is sent now waits for datagrams that wait already, in nanoseconds.
    fn wait(&self, now: u64, general: Weather) -> u64 {
        match self.weather(general).datagram_bytes_per_second {
            0 => 0,
            _ => self.idle_at.saturating_sub(now),
        }
    }

    /// Bytes of datagrams that wait.
    pub(super) fn waiting(&self, now: u64, general: Weather) -> u64 {
        let rate = self.weather(general).datagram_bytes_per_second;
        let bytes = u128::from(self.wait(now, general)) * u128::from(rate) / NANOS_PER_SECOND;
        u64::try_from(bytes).unwrap_or(u64::MAX)
    }

    /// Takes a datagram; answers how long it waits before it is on its way, in nanoseconds. None: there is
    /// no room.
    fn queue(&mut self, now: u64, general: Weather, bytes: usize) -> Option<u64> {
        let rate = self.weather(general).datagram_bytes_per_second;
        if rate == 0 || self.loopback {
            return Some(0);
        }
        if self.waiting(now, general) + bytes as u64 > DATAGRAMS_WAITING_BYTES_MAX as u64 {
            return None;
        }
        let takes = bytes as u128 * NANOS_PER_SECOND / u128::from(rate);
        let takes = u64::try_from(takes).unwrap_or(u64::MAX);
        self.idle_at = self.idle_at.max(now).saturating_add(takes);
        Some(self.idle_at - now)
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

const NANOS_PER_SECOND: u128 = 1_000_000_000;

/// What surely fits a packet.
const PACKET_BYTES: usize = 1_200;

/// What a machine takes to reach itself.
const LOOPBACK_NANOS: u64 = 20_000;
