//! The socket and QUIC's settings, for loopback and local networks.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use quinn::{
    AckFrequencyConfig, ConnectionId, ConnectionIdGenerator, EndpointConfig, IdleTimeout,
    MtuDiscoveryConfig, TransportConfig, VarInt,
    congestion::CubicConfig,
    crypto::{CryptoError, HmacKey},
};
use rustls::{
    SupportedCipherSuite,
    crypto::{aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256, tls13::OkmBlock},
};
use serde::{Deserialize, Serialize};
use socket2::{Domain, Protocol, Socket, Type};

use crate::world::network::DATAGRAMS_WAITING_BYTES_MAX;

/// What every path carries; larger packets are found by probing.
const PACKET_BYTES_MIN: u16 = 1200;
/// No sign of life for this long ends a connection. Failure detection is the heartbeat's job; this
/// only has to be longer than a busy moment of the peer.
pub(super) const IDLE_TIME_MAX: Duration = Duration::from_secs(3);
/// Keeps an idle connection from ending.
const KEEP_ALIVE: Duration = Duration::from_secs(1);
/// One stream per lane; room for twice as many, so that a late end of one cannot block another.
const STREAMS_MAX: u32 = 8;
/// Received heartbeats waiting to be read.
const DATAGRAM_BYTES: usize = 256 * 1024;

/// What can be turned to make QUIC faster or slower. [`Settings::default`] is what nodes use; the
/// example `settings` measures what each of them does, and `runtime/docs/SPEED.md` keeps the table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// Largest packet in bytes. Ten of them go in one system call, and the kernel takes at most
    /// 65 507 bytes there; past that quinn loses whole trains without a word.
    pub packet_bytes_max: u16,
    /// Packets of a new connection, before larger ones were tried.
    pub packet_bytes_first: u16,
    /// Whether the kernel cuts one large write into packets.
    pub offload: bool,
    /// Kernel buffers of the socket in bytes, each way: 208 KiB, the usual default, hold fewer than
    /// 100 full packets.
    pub socket_bytes: usize,
    /// One lane's bytes under way. Above a step and its answer, below what the socket buffer holds.
    pub stream_window_bytes: u32,
    /// All lanes' bytes under way.
    pub receive_window_bytes: u32,
    /// What quinn keeps until the peer has it.
    pub send_window_bytes: u64,
    /// First guess of the round trip: decides the first retransmission and the pacer's burst.
    pub round_trip_guess: Duration,
    /// Start of the congestion window: a local network holds it.
    pub congestion_window_bytes: u64,
    /// Acknowledge every so many packets, or after `ack_delay`: a lost tail is sent again after
    /// about 3 ms instead of 26. `None` is quinn's own habit, every second packet and 25 ms.
    pub ack_packets: Option<u32>,
    /// See `ack_packets`.
    pub ack_delay: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            packet_bytes_max: 6500,
            packet_bytes_first: PACKET_BYTES_MIN,
            offload: true,
            socket_bytes: 4 * 1024 * 1024,
            stream_window_bytes: 2 * 1024 * 1024,
            receive_window_bytes: 4 * 1024 * 1024,
            send_window_bytes: 8 * 1024 * 1024,
            round_trip_guess: Duration::from_millis(2),
            congestion_window_bytes: 1024 * 1024,
            ack_packets: Some(10),
            ack_delay: Duration::from_millis(2),
        }
    }
}

/// Settings of every connection.
pub(super) fn transport(settings: &Settings) -> Arc<TransportConfig> {
    let mut mtu = MtuDiscoveryConfig::default();
    mtu.upper_bound(settings.packet_bytes_max);
    let acks = settings.ack_packets.map(|packets| {
        let mut acks = AckFrequencyConfig::default();
        acks.ack_eliciting_threshold(VarInt::from_u32(packets))
            .max_ack_delay(Some(settings.ack_delay));
        acks
    });
    let mut cubic = CubicConfig::default();
    cubic.initial_window(settings.congestion_window_bytes);
    let idle = IdleTimeout::try_from(IDLE_TIME_MAX).expect("seconds fit in 62 bits");

    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(0))
        .max_concurrent_uni_streams(VarInt::from_u32(STREAMS_MAX))
        .max_idle_timeout(Some(idle))
        .keep_alive_interval(Some(KEEP_ALIVE))
        .stream_receive_window(VarInt::from_u32(settings.stream_window_bytes))
        .receive_window(VarInt::from_u32(settings.receive_window_bytes))
        .send_window(settings.send_window_bytes)
        // Lanes have priorities; within one, frames should stay whole and in order of writing.
        .send_fairness(false)
        .enable_segmentation_offload(settings.offload)
        .initial_rtt(settings.round_trip_guess)
        .initial_mtu(settings.packet_bytes_first)
        .min_mtu(PACKET_BYTES_MIN)
        .mtu_discovery_config(Some(mtu))
        .ack_frequency_config(acks)
        .datagram_receive_buffer_size(Some(DATAGRAM_BYTES))
        .datagram_send_buffer_size(DATAGRAMS_WAITING_BYTES_MAX)
        .congestion_controller_factory(Arc::new(cubic));
    Arc::new(transport)
}

/// Settings of the endpoint. `secret` is the node's private key.
///
/// Stateless resets are signed with a key that survives a restart: the new process can so tell
/// peers at once that the connections of the old one are gone, instead of leaving them to run
/// into their idle timeout.
pub(super) fn endpoint(settings: &Settings, secret: &[u8]) -> EndpointConfig {
    let mut config = EndpointConfig::new(Arc::new(ResetKey::new(secret)));
    config
        .max_udp_payload_size(settings.packet_bytes_max)
        .expect("between 1200 and 65527")
        .cid_generator(|| Box::new(RandomIds));
    config
}

/// Binds the node's socket.
pub(super) fn socket(settings: &Settings, address: SocketAddr) -> io::Result<std::net::UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_recv_buffer_size(settings.socket_bytes)?;
    socket.set_send_buffer_size(settings.socket_bytes)?;
    // Linux answers with twice the size it was asked for, for its own book-keeping.
    let granted = socket.recv_buffer_size()?.min(socket.send_buffer_size()?) / 2;
    if granted < settings.socket_bytes {
        tracing::warn!(
            granted,
            wanted = settings.socket_bytes,
            "small socket buffers lose packets under load: raise net.core.rmem_max and wmem_max"
        );
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// Random connection ids that cannot be checked for validity, so that a restarted process still
/// answers those of the old one, with a reset.
struct RandomIds;

impl ConnectionIdGenerator for RandomIds {
    fn generate_cid(&mut self) -> ConnectionId {
        ConnectionId::new(&rand::random::<[u8; 8]>())
    }

    fn cid_len(&self) -> usize {
        8
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

/// HMAC-SHA-256 under a key derived from the node's private key.
struct ResetKey(OkmBlock);

impl ResetKey {
    fn new(secret: &[u8]) -> Self {
        let expander = hkdf().extract_from_secret(None, secret);
        Self(expander.expand_block(&[b"synod stateless reset"]))
    }
}

impl HmacKey for ResetKey {
    fn sign(&self, data: &[u8], signature_out: &mut [u8]) {
        signature_out.copy_from_slice(hkdf().hmac_sign(&self.0, data).as_ref());
    }

    fn signature_len(&self) -> usize {
        hkdf().hmac_sign(&self.0, &[]).as_ref().len()
    }

    fn verify(&self, data: &[u8], signature: &[u8]) -> Result<(), CryptoError> {
        // Every byte is looked at, so that time tells nothing about where they differ.
        let good = hkdf().hmac_sign(&self.0, data);
        let good = good.as_ref();
        let differing = good.iter().zip(signature).fold(0, |acc, (a, b)| acc | (a ^ b));
        if good.len() == signature.len() && differing == 0 { Ok(()) } else { Err(CryptoError) }
    }
}

fn hkdf() -> &'static dyn rustls::crypto::tls13::Hkdf {
    match TLS13_AES_128_GCM_SHA256 {
        SupportedCipherSuite::Tls13(suite) => suite.hkdf_provider,
        #[allow(unreachable_patterns, reason = "exists only with TLS 1.2 compiled in")]
        _ => unreachable!("a TLS 1.3 suite by its name"),
    }
}
