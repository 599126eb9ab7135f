//! The port to peers: authenticated connections with a few ordered lanes each.
//!
//! A connection is up or gone; while it is up, what is written to a lane arrives in order and
//! whole (the simulated network may break that promise for single writes, since the protocols
//! must not lean on it). Everything above, such as framing, the handshake, reconnecting and
//! routing, is [`crate::link`] and the same over any network.

use std::{fmt, net::SocketAddr, sync::Arc};

use bytes::Bytes;

use crate::identity::{ClusterName, NodeName};

/// Who this node is on the network, and where it listens.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The cluster; peers of another are refused.
    pub cluster: ClusterName,
    /// This node.
    pub name: NodeName,
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Certificates; the simulated network needs none.
    pub tls: Option<TlsFiles>,
}

/// PEM texts for mutual TLS.
#[derive(Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The authority's certificate.
    pub ca: Vec<u8>,
    /// This node's certificate chain.
    pub cert: Vec<u8>,
    /// This node's private key.
    pub key: Vec<u8>,
}

impl fmt::Debug for TlsFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsFiles").finish_non_exhaustive()
    }
}

/// Datagrams that wait until the path takes them, towards one peer. When there are more, some are lost.
pub const DATAGRAMS_WAITING_BYTES_MAX: usize = 1024 * 1024;

/// One of the ordered byte streams of a connection, in falling priority.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Lane {
    /// Handshake, heartbeats that may not wait, registry.
    Control = 0,
    /// The consensus roles.
    Consensus = 1,
    /// Users' actors.
    User = 2,
    /// Snapshots and catching up: never in the way of the others.
    Bulk = 3,
}

impl Lane {
    /// All lanes, by number.
    pub const ALL: [Self; 4] = [Self::Control, Self::Consensus, Self::User, Self::Bulk];
}

/// One connection of one endpoint; never used again after it went down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

/// What the network tells, always on the thread that called [`Network::bind`].
#[derive(Debug)]
pub enum NetworkEvent {
    /// A connection is up and its peer's certificate names this cluster and `peer`.
    Up {
        /// The new connection.
        connection: ConnectionId,
        /// Whom the certificate names.
        peer: NodeName,
        /// Whether this side dialled.
        dialled: bool,
    },
    /// Bytes of one lane, in order.
    Chunk {
        /// Where from.
        connection: ConnectionId,
        /// Which lane.
        lane: Lane,
        /// The bytes; frames may be cut anywhere.
        bytes: Bytes,
    },
    /// One unreliable datagram.
    Datagram {
        /// Where from.
        connection: ConnectionId,
        /// The whole datagram.
        bytes: Bytes,
    },
    /// The connection is gone.
    Down {
        /// Which.
        connection: ConnectionId,
        /// Why, for people.
        reason: String,
    },
    /// A [`Endpoint::dial`] came to nothing.
    DialFailed {
        /// Whom it was to reach.
        peer: NodeName,
        /// Why, for people.
        reason: String,
    },
}

/// Receives what the network tells. Calls must be short: they run between reads.
pub trait NetworkSink: Send + Sync {
    /// Something happened.
    fn event(&self, event: NetworkEvent);
}

/// Why bytes were not taken. In every case nothing of them was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WriteRefused {
    /// No such connection any more.
    #[error("the connection is gone")]
    Gone,
    /// The lane's queue is full: the peer reads too slowly.
    #[error("the lane's queue is full")]
    Full,
    /// Larger than a datagram may be.
    #[error("too large for a datagram")]
    TooLarge,
}

/// The port to peers.
pub trait Network: Send + Sync + fmt::Debug {
    /// Starts to listen. Must be called on the arbiter that shall carry the network's work.
    ///
    /// # Errors
    /// Certificates that cannot be used, or an address that cannot be listened on.
    fn bind(
        &self,
        me: &Identity,
        sink: Arc<dyn NetworkSink>,
    ) -> Result<Arc<dyn Endpoint>, BindError>;
}

/// A started network of one node. May be called from any thread.
pub trait Endpoint: Send + Sync + fmt::Debug {
    /// Where it listens.
    fn local_addr(&self) -> SocketAddr;

    /// Tries once to reach `peer` at `address` (`host:port`); the sink hears `Up` or `DialFailed`.
    fn dial(&self, peer: &NodeName, address: &str);

    /// Queues whole frames on a lane. Writes made in one turn leave together.
    ///
    /// # Errors
    /// See [`WriteRefused`]; nothing was sent.
    fn write(&self, to: ConnectionId, lane: Lane, bytes: Bytes) -> Result<(), WriteRefused>;

    /// As [`Endpoint::write`], for a frame that is still in two parts: saves whoever copies small
    /// writes together a buffer of their own.
    ///
    /// # Errors
    /// See [`WriteRefused`]; nothing was sent.
    fn write_parts(
        &self,
        to: ConnectionId,
        lane: Lane,
        header: &[u8],
        body: &[u8],
    ) -> Result<(), WriteRefused> {
        self.write(to, lane, [header, body].concat().into())
    }

    /// Sends one datagram, which may be lost.
    ///
    /// # Errors
    /// See [`WriteRefused`]; nothing was sent.
    fn datagram(&self, to: ConnectionId, bytes: Bytes) -> Result<(), WriteRefused>;

    /// Bytes of datagrams that wait on this machine until the path takes them. A network that lets everything
    /// go at once has none.
    fn datagrams_waiting(&self, _to: ConnectionId) -> usize {
        0
    }

    /// Uses these certificates for connections made from now on; those there are stay.
    ///
    /// # Errors
    /// Certificates that cannot be used; nothing was changed. A network without certificates takes
    /// any.
    fn renew(&self, _tls: &TlsFiles) -> Result<(), BindError> {
        Ok(())
    }

    /// Ends one connection; the sink hears `Down`.
    fn hang_up(&self, connection: ConnectionId, reason: &str);

    /// Ends all connections and stops listening.
    fn shutdown(&self);
}

/// Why a network could not be started.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Address {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// The certificates cannot be used.
    #[error("{0}")]
    Tls(String),
}
