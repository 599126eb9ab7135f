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
use socket2::{Domain, Protocol, Socket, Type};

/// Largest packet. Ten of them go in one system call, and the kernel takes at most 65 507 bytes
/// there; past that quinn loses whole trains without a word.
const PACKET_BYTES_MAX: u16 = 6500;
/// What every path carries; larger sizes are found by probing.
const PACKET_BYTES_MIN: u16 = 1200;
/// Kernel buffers of the socket: 208 KiB, the usual default, hold fewer than 100 full packets.
const SOCKET_BYTES: usize = 4 * 1024 * 1024;
/// No sign of life for this long ends a connection. Failure detection is the heartbeat's job; this
/// only has to be longer than a busy moment of the peer.
pub(super) const IDLE_TIME_MAX: Duration = Duration::from_secs(3);
/// Keeps an idle connection from ending.
const KEEP_ALIVE: Duration = Duration::from_secs(1);
/// One stream per lane; room for twice as many, so that a late end of one cannot block another.
const STREAMS_MAX: u32 = 8;
/// One lane's bytes under way. Above a step and its answer, below what the socket buffer holds.
const STREAM_WINDOW_BYTES: u32 = 2 * 1024 * 1024;
/// All lanes' bytes under way.
const RECEIVE_WINDOW_BYTES: u32 = 4 * 1024 * 1024;
/// What quinn keeps until the peer has it.
const SEND_WINDOW_BYTES: u64 = 8 * 1024 * 1024;
/// First guess of the round trip: decides the first retransmission and the pacer's burst.
const ROUND_TRIP_GUESS: Duration = Duration::from_millis(2);
/// Start of the congestion window: a local network holds it.
const CONGESTION_WINDOW_BYTES: u64 = 1024 * 1024;
/// Acknowledge every so many packets …
const ACK_PACKETS: u32 = 10;
/// … or after this long: a lost tail is sent again after about 3 ms instead of 26.
const ACK_DELAY: Duration = Duration::from_millis(2);
/// Received heartbeats waiting to be read.
const DATAGRAM_BYTES: usize = 256 * 1024;

/// Settings of every connection.
pub(super) fn transport() -> Arc<TransportConfig> {
    let mut mtu = MtuDiscoveryConfig::default();
    mtu.upper_bound(PACKET_BYTES_MAX);
    let mut acks = AckFrequencyConfig::default();
    acks.ack_eliciting_threshold(VarInt::from_u32(ACK_PACKETS)).max_ack_delay(Some(ACK_DELAY));
    let mut cubic = CubicConfig::default();
    cubic.initial_window(CONGESTION_WINDOW_BYTES);
    let idle = IdleTimeout::try_from(IDLE_TIME_MAX).expect("seconds fit in 62 bits");

    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(0))
        .max_concurrent_uni_streams(VarInt::from_u32(STREAMS_MAX))
        .max_idle_timeout(Some(idle))
        .keep_alive_interval(Some(KEEP_ALIVE))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW_BYTES))
        .receive_window(VarInt::from_u32(RECEIVE_WINDOW_BYTES))
        .send_window(SEND_WINDOW_BYTES)
        // Lanes have priorities; within one, frames should stay whole and in order of writing.
        .send_fairness(false)
        .initial_rtt(ROUND_TRIP_GUESS)
        .initial_mtu(PACKET_BYTES_MIN)
        .min_mtu(PACKET_BYTES_MIN)
        .mtu_discovery_config(Some(mtu))
        .ack_frequency_config(Some(acks))
        .datagram_receive_buffer_size(Some(DATAGRAM_BYTES))
        .congestion_controller_factory(Arc::new(cubic));
    Arc::new(transport)
}

/// Settings of the endpoint. `secret` is the node's private key.
///
/// Stateless resets are signed with a key that survives a restart: the new process can so tell
/// peers at once that the connections of the old one are gone, instead of leaving them to run
/// into their idle timeout.
pub(super) fn endpoint(secret: &[u8]) -> EndpointConfig {
    let mut config = EndpointConfig::new(Arc::new(ResetKey::new(secret)));
    config
        .max_udp_payload_size(PACKET_BYTES_MAX)
        .expect("between 1200 and 65527")
        .cid_generator(|| Box::new(RandomIds));
    config
}

/// Binds the node's socket.
pub(super) fn socket(address: SocketAddr) -> io::Result<std::net::UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_recv_buffer_size(SOCKET_BYTES)?;
    socket.set_send_buffer_size(SOCKET_BYTES)?;
    // Linux answers with twice the size it was asked for, for its own book-keeping.
    let granted = socket.recv_buffer_size()?.min(socket.send_buffer_size()?) / 2;
    if granted < SOCKET_BYTES {
        tracing::warn!(
            granted,
            wanted = SOCKET_BYTES,
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
