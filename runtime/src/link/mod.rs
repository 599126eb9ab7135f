//! Links to peers: handshake, one connection per pair, reconnecting, frames in batches.
//!
//! The same code over any [`crate::world::Network`], real or simulated.

use std::{fmt, net::SocketAddr, sync::Arc};

use crate::{
    identity::{ClusterName, NodeId, NodeName},
    wire::{Frame, FrameHeader},
    world::{
        World,
        network::{BindError, Lane, TlsFiles},
    },
};

/// Who hears what links tell. Always called on the arbiter that started the links, never with a
/// lock held, so that an implementation may call [`Links`] back.
pub trait Inbound: Send + Sync {
    /// The handshake with `peer` is done: it can be sent to.
    fn up(&self, peer: &PeerInfo);

    /// The link to `peer` is gone. What was sent and not answered may or may not have arrived.
    fn down(&self, peer: &NodeId, reason: &str);

    /// All frames cut from one chunk of one lane, in order. Take them out of `batch`; whatever
    /// stays is dropped.
    fn frames(&self, from: &NodeId, batch: &mut Vec<Frame>);

    /// A datagram.
    fn datagram(&self, from: &NodeId, frame: Frame);
}

/// A peer whose handshake is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerInfo {
    /// Who.
    pub id: NodeId,
    /// What it is in the cluster, for people.
    pub role: String,
    /// The address given to [`Links::connect`], if any.
    pub address: Option<String>,
    /// Differs from one start of the peer's process to the next.
    pub start_nonce: u64,
}

/// Who this node is, to [`Links::start`].
#[derive(Debug, Clone)]
pub struct LocalIdentity {
    /// The cluster; nodes of another are refused.
    pub cluster: ClusterName,
    /// This node.
    pub id: NodeId,
    /// What this node is in the cluster, for people.
    pub role: String,
    /// Drawn at every start.
    pub start_nonce: u64,
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Certificates; the simulated network needs none.
    pub tls: Option<TlsFiles>,
}

/// Why a frame was not sent. In every case nothing of it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SendRefused {
    /// There is no link to that peer now.
    #[error("not connected")]
    NotConnected,
    /// The peer reads too slowly: the lane's queue is full.
    #[error("the lane to the peer is full")]
    Full,
    /// The body is larger than a frame (or datagram) may be.
    #[error("too large for one frame")]
    TooLarge,
}

/// How one peer does, for status pages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerStatus {
    /// Who.
    pub name: NodeName,
    /// The address given to [`Links::connect`], if any.
    pub address: Option<String>,
    /// The peer as connected now, if it is.
    pub connected: Option<NodeId>,
    /// Why the last attempt or link ended, if it did.
    pub last_error: Option<String>,
    /// Bytes received since this node started to know the peer.
    pub bytes_in: u64,
    /// Bytes sent.
    pub bytes_out: u64,
    /// Frames received.
    pub frames_in: u64,
    /// Frames sent.
    pub frames_out: u64,
    /// Frames that could not be read.
    pub frames_bad: u64,
}

/// The links of one node. Cloning is cheap; callable from any thread.
#[derive(Clone)]
pub struct Links {
    shared: Arc<()>,
}

impl fmt::Debug for Links {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Links").finish_non_exhaustive()
    }
}

#[expect(unused_variables, reason = "bodies follow")]
impl Links {
    /// Starts to listen. Must be called on the arbiter that shall carry the links' work.
    ///
    /// # Errors
    /// Certificates that cannot be used, or an address that cannot be listened on.
    #[expect(clippy::needless_pass_by_value, reason = "bodies follow")]
    pub fn start(
        world: &World,
        me: LocalIdentity,
        inbound: Arc<dyn Inbound>,
    ) -> Result<Self, BindError> {
        Err(BindError::Tls("bodies follow".into()))
    }

    /// Where this node listens.
    pub fn local_addr(&self) -> SocketAddr {
        ([0, 0, 0, 0], 0).into()
    }

    /// Keeps a link to `peer` at `address` (`host:port`): dials until it is there, and again
    /// whenever it is lost. With another address for a known peer, uses that from now on.
    pub fn connect(&self, peer: &NodeName, address: &str) {}

    /// Stops dialling `peer` and ends the link to it.
    pub fn forget(&self, peer: &NodeName) {}

    /// Queues one frame on a lane to `to`. Frames of one lane arrive in order while the link
    /// lasts.
    ///
    /// # Errors
    /// [`SendRefused`]; nothing was sent.
    pub fn send(
        &self,
        to: &NodeName,
        lane: Lane,
        header: &FrameHeader,
        body: &[u8],
    ) -> Result<(), SendRefused> {
        Err(SendRefused::NotConnected)
    }

    /// Sends one frame as a datagram, which may be lost or overtake others.
    ///
    /// # Errors
    /// [`SendRefused`]; nothing was sent.
    pub fn datagram(
        &self,
        to: &NodeName,
        header: &FrameHeader,
        body: &[u8],
    ) -> Result<(), SendRefused> {
        Err(SendRefused::NotConnected)
    }

    /// The peer as connected now, if it is.
    pub fn is_up(&self, peer: &NodeName) -> Option<NodeId> {
        None
    }

    /// All peers that are linked or wanted, by name.
    pub fn peers(&self) -> Vec<PeerStatus> {
        Vec::new()
    }

    /// Ends all links and stops listening. Peers hear of it at once.
    pub fn shutdown(&self) {}
}
