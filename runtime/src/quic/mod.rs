//! The real network: QUIC over one UDP socket, with mutual TLS.
//!
//! Everything runs as tasks of the arbiter that calls [`Network::bind`]. A lane is one long-lived
//! stream per direction, opened by its first write, whose first byte names the lane.

mod arbiter;
pub mod bare;
mod connection;
mod lane;
mod listener;
mod tls;
mod transport;

use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex, RwLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use quinn::{Runtime, SendDatagramError, VarInt};
use rustls_pki_types::CertificateDer;
use tokio::time::timeout;

use self::{
    arbiter::Home,
    connection::{Connection, explain},
};
pub use self::{
    listener::{ListenerTls, client_tls},
    tls::{Authority, AuthorityError, check_files},
    transport::Settings,
};
use crate::{
    identity::{ClusterName, NodeName},
    world::{
        Network,
        network::{
            BindError, ConnectionId, DATAGRAMS_WAITING_BYTES_MAX, Endpoint, Identity, Lane,
            NetworkEvent, NetworkSink, TlsFiles, WriteRefused,
        },
    },
};

/// A dial that has no answer by then is tried anew: quinn's own retries grow further and further
/// apart, and a peer that starts meanwhile should not wait for them.
const DIAL_TIME_MAX: Duration = Duration::from_secs(1);
/// A peer that dials must have shown its certificate by then.
const ACCEPT_TIME_MAX: Duration = Duration::from_secs(2);
/// Peers that dial and have not shown a certificate yet. More are refused: a cluster has fewer
/// nodes than this that start at once.
const HANDSHAKES_MAX: usize = 64;
/// With so many under way, a newcomer must first prove its address, so that forged ones cannot
/// use up the rest.
const HANDSHAKES_UNPROVEN_MAX: usize = 16;
/// Of these, from one address: a whole cluster on one machine, and still not all there is, so that
/// one machine gone mad does not lock the others out.
const HANDSHAKES_PER_ADDRESS_MAX: usize = 32;
/// What quinn keeps of one newcomer's packets before it is looked at, and of all of them. Before
/// the certificate is checked there is nothing but a TLS handshake to be read, a few KiB.
const NEWCOMER_BYTES_MAX: u64 = 64 * 1024;
const NEWCOMERS_BYTES_MAX: u64 = 1024 * 1024;

/// QUIC as the network of real nodes.
#[derive(Debug, Clone, Copy, Default)]
pub struct QuicNetwork;

impl Network for QuicNetwork {
    fn bind(
        &self,
        me: &Identity,
        sink: Arc<dyn NetworkSink>,
    ) -> Result<Arc<dyn Endpoint>, BindError> {
        let Some(files) = &me.tls else {
            return Err(BindError::Tls("QUIC needs certificates".into()));
        };
        tls::check_own(files, &me.name, &me.cluster)?;
        let tls = tls::configure(files)?;
        let (server, client) = configs(&Settings::default(), &tls);
        let home = Home::here();
        let endpoint =
            listen(&Settings::default(), me.listen, server, &tls, Arc::new(home.clone()))?;
        let address = |source| BindError::Address { address: me.listen, source };
        let shared = Arc::new(Shared {
            local_addr: endpoint.local_addr().map_err(address)?,
            endpoint,
            client: RwLock::new(client),
            cluster: me.cluster.clone(),
            name: me.name.clone(),
            sink,
            home,
            connections: RwLock::default(),
            next_id: AtomicU64::new(1),
            handshakes: Mutex::default(),
        });
        shared.home.spawn(accept(shared.clone()));
        Ok(Arc::new(QuicEndpoint { shared }))
    }
}

/// Opens the socket.
fn listen(
    settings: &Settings,
    address: SocketAddr,
    server: quinn::ServerConfig,
    tls: &tls::Tls,
    runtime: Arc<dyn Runtime>,
) -> Result<quinn::Endpoint, BindError> {
    let refused = |source| BindError::Address { address, source };
    let socket = transport::socket(settings, address).map_err(refused)?;
    let config = transport::endpoint(settings, &tls.secret);
    quinn::Endpoint::new(config, Some(server), socket, runtime).map_err(refused)
}

/// What the endpoint accepts and dials with.
fn configs(settings: &Settings, tls: &tls::Tls) -> (quinn::ServerConfig, quinn::ClientConfig) {
    let transport = transport::transport(settings);
    let mut server = quinn::ServerConfig::with_crypto(tls.server.clone());
    server
        .transport_config(transport.clone())
        .migration(false)
        .max_incoming(HANDSHAKES_MAX)
        .incoming_buffer_size(NEWCOMER_BYTES_MAX)
        .incoming_buffer_size_total(NEWCOMERS_BYTES_MAX);
    let mut client = quinn::ClientConfig::new(tls.client.clone());
    client.transport_config(transport);
    (server, client)
}

/// A started QUIC network.
struct QuicEndpoint {
    shared: Arc<Shared>,
}

impl fmt::Debug for QuicEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("QuicEndpoint").field(&self.shared.local_addr).finish()
    }
}

impl Endpoint for QuicEndpoint {
    fn local_addr(&self) -> SocketAddr {
        self.shared.local_addr
    }

    fn dial(&self, peer: &NodeName, address: &str) {
        let (shared, peer, address) = (self.shared.clone(), peer.clone(), address.to_owned());
        self.shared.home.clone().spawn(async move {
            let reached = timeout(DIAL_TIME_MAX, shared.reach(&peer, &address)).await;
            let reason = match reached {
                Ok(Ok(connection)) => return shared.carry(connection, peer, true).await,
                Ok(Err(reason)) => reason,
                Err(_) => format!("no answer within {} s", DIAL_TIME_MAX.as_secs()),
            };
            let reason = format!("{address}: {reason}");
            shared.sink.event(NetworkEvent::DialFailed { peer, reason });
        });
    }

    fn write(&self, to: ConnectionId, lane: Lane, bytes: Bytes) -> Result<(), WriteRefused> {
        let connections = self.shared.connections.read().expect(NO_PANIC);
        connections.get(&to).ok_or(WriteRefused::Gone)?.lanes[lane as usize].push(bytes)
    }

    fn write_parts(
        &self,
        to: ConnectionId,
        lane: Lane,
        header: &[u8],
        body: &[u8],
    ) -> Result<(), WriteRefused> {
        let connections = self.shared.connections.read().expect(NO_PANIC);
        let connection = connections.get(&to).ok_or(WriteRefused::Gone)?;
        connection.lanes[lane as usize].push_parts(header, body)
    }

    fn datagram(&self, to: ConnectionId, bytes: Bytes) -> Result<(), WriteRefused> {
        let connections = self.shared.connections.read().expect(NO_PANIC);
        let connection = connections.get(&to).ok_or(WriteRefused::Gone)?;
        connection.quinn.send_datagram(bytes).map_err(|error| match error {
            SendDatagramError::TooLarge => WriteRefused::TooLarge,
            SendDatagramError::UnsupportedByPeer
            | SendDatagramError::Disabled
            | SendDatagramError::ConnectionLost(_) => WriteRefused::Gone,
        })
    }

    fn datagrams_waiting(&self, to: ConnectionId) -> usize {
        let connections = self.shared.connections.read().expect(NO_PANIC);
        connections.get(&to).map_or(0, |connection| {
            let space = connection.quinn.datagram_send_buffer_space();
            DATAGRAMS_WAITING_BYTES_MAX.saturating_sub(space)
        })
    }

    fn renew(&self, files: &TlsFiles) -> Result<(), BindError> {
        tls::check_own(files, &self.shared.name, &self.shared.cluster)?;
        let (server, client) = configs(&Settings::default(), &tls::configure(files)?);
        self.shared.endpoint.set_server_config(Some(server));
        *self.shared.client.write().expect(NO_PANIC) = client;
        Ok(())
    }

    fn hang_up(&self, connection: ConnectionId, reason: &str) {
        let connections = self.shared.connections.read().expect(NO_PANIC);
        if let Some(connection) = connections.get(&connection) {
            connection.end(reason);
        }
    }

    fn shutdown(&self) {
        self.shared.endpoint.close(VarInt::from_u32(0), b"shutting down");
    }
}

impl Drop for QuicEndpoint {
    fn drop(&mut self) {
        self.shutdown();
    }
}

struct Shared {
    endpoint: quinn::Endpoint,
    local_addr: SocketAddr,
    client: RwLock<quinn::ClientConfig>,
    cluster: ClusterName,
    name: NodeName,
    sink: Arc<dyn NetworkSink>,
    home: Home,
    connections: RwLock<BTreeMap<ConnectionId, Arc<Connection>>>,
    next_id: AtomicU64,
    /// Of peers that dialled and are not known yet.
    handshakes: Mutex<Handshakes>,
}

/// How many there are, by address.
#[derive(Default)]
struct Handshakes {
    total: usize,
    by_address: BTreeMap<IpAddr, usize>,
}

/// What to do with a newcomer.
#[derive(Debug, PartialEq, Eq)]
enum Newcomer {
    /// Let it show its certificate.
    Admit,
    /// First let it prove its address, so that forged ones cannot use up the places.
    Prove,
    /// There is no place.
    Refuse,
}

impl Handshakes {
    /// Takes a place, if there is one.
    fn take(&mut self, from: IpAddr, proven: bool) -> Newcomer {
        let here = self.by_address.get(&from).copied().unwrap_or_default();
        if self.total >= HANDSHAKES_MAX || here >= HANDSHAKES_PER_ADDRESS_MAX {
            return Newcomer::Refuse;
        }
        if self.total >= HANDSHAKES_UNPROVEN_MAX && !proven {
            return Newcomer::Prove;
        }
        self.total += 1;
        self.by_address.insert(from, here + 1);
        Newcomer::Admit
    }

    /// Gives a place back.
    fn end(&mut self, from: IpAddr) {
        self.total -= 1;
        match self.by_address.get_mut(&from) {
            Some(here) if *here > 1 => *here -= 1,
            Some(_) | None => drop(self.by_address.remove(&from)),
        }
    }
}

impl Shared {
    async fn reach(&self, peer: &NodeName, address: &str) -> Result<quinn::Connection, String> {
        let name = tls::dns_name(peer, &self.cluster);
        let found = tokio::net::lookup_host(address).await.map_err(|error| error.to_string())?;
        let usable = |found: &SocketAddr| found.is_ipv4() || self.local_addr.is_ipv6();
        let Some(to) = found.into_iter().find(usable) else {
            return Err("no address that this node's socket can send to".into());
        };
        let client = self.client.read().expect(NO_PANIC).clone();
        let dialling =
            self.endpoint.connect_with(client, to, &name).map_err(|error| error.to_string())?;
        dialling.await.map_err(|error| explain(&error))
    }

    /// Makes a peer's connection known and does its work until it ends.
    async fn carry(&self, quinn: quinn::Connection, peer: NodeName, dialled: bool) {
        let id = ConnectionId(self.next_id.fetch_add(1, Relaxed));
        let connection = Arc::new(Connection::new(quinn));
        self.connections.write().expect(NO_PANIC).insert(id, connection.clone());
        tracing::debug!(%peer, dialled, "connection up");
        self.sink.event(NetworkEvent::Up { connection: id, peer, dialled });
        let reason = connection.run(id, &self.sink, &self.home).await;
        self.connections.write().expect(NO_PANIC).remove(&id);
        self.sink.event(NetworkEvent::Down { connection: id, reason });
    }
}

/// Lets peers in until the endpoint is closed.
async fn accept(shared: Arc<Shared>) {
    while let Some(incoming) = shared.endpoint.accept().await {
        let from = incoming.remote_address();
        let place =
            shared.handshakes.lock().expect(NO_PANIC).take(from.ip(), !incoming.may_retry());
        match place {
            Newcomer::Refuse => incoming.refuse(),
            // Fails only for those that proved it already.
            Newcomer::Prove => drop(incoming.retry()),
            Newcomer::Admit => shared.home.spawn(admit(shared.clone(), incoming, from)),
        }
    }
}

/// Carries a newcomer's connection, if it is a peer's.
async fn admit(shared: Arc<Shared>, incoming: quinn::Incoming, from: SocketAddr) {
    let known = timeout(ACCEPT_TIME_MAX, identify(incoming, &shared.cluster)).await;
    shared.handshakes.lock().expect(NO_PANIC).end(from.ip());
    match known {
        Ok(Ok((connection, peer))) => shared.carry(connection, peer, false).await,
        Ok(Err(reason)) => tracing::warn!(%from, reason, "peer refused"),
        Err(_) => tracing::debug!(%from, "peer did not finish its TLS handshake"),
    }
}

/// Waits for the peer's certificate and reads its name.
async fn identify(
    incoming: quinn::Incoming,
    cluster: &ClusterName,
) -> Result<(quinn::Connection, NodeName), String> {
    let accepting = incoming.accept().map_err(|error| explain(&error))?;
    let connection = accepting.await.map_err(|error| explain(&error))?;
    let chain =
        connection.peer_identity().and_then(|any| any.downcast::<Vec<CertificateDer<'_>>>().ok());
    let first = chain.as_ref().and_then(|chain| chain.first());
    let named = first.map_or_else(|| Err("no certificate".into()), |c| tls::node_of(c, cluster));
    match named {
        Ok(peer) => Ok((connection, peer)),
        Err(reason) => {
            connection.close(VarInt::from_u32(1), reason.as_bytes());
            Err(reason)
        }
    }
}

/// Why the locks are never poisoned.
const NO_PANIC: &str = "nothing panics while it holds one of these locks";

#[cfg(test)]
mod tests;
