//! Links to peers: handshake, one connection per pair, reconnecting, frames in batches.
//!
//! The same code over any [`crate::world::Network`], real or simulated.

mod frames;
mod peer;
mod registry;

use std::{
    cell::Cell,
    collections::BTreeSet,
    fmt,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, OnceLock, Weak, atomic::Ordering::Relaxed},
};

use tokio::{sync::Notify, time::Instant};

use self::registry::{Effect, Registry};
use crate::{
    identity::{ClusterName, NodeId, NodeName},
    wire::{BODY_BYTES_MAX, Fingerprint, Frame, FrameHeader, Hello, WIRE_VERSION, encode_header},
    world::{
        World,
        network::{
            BindError, ConnectionId, Endpoint, Identity, Lane, NetworkEvent, NetworkSink, TlsFiles,
            WriteRefused,
        },
    },
};

/// Who hears what links tell. Always called on the arbiter that started the links, never with a
/// lock held, so that an implementation may call [`Links`] back.
pub trait Inbound: Send + Sync {
    /// The handshake with `peer` is done: it can be sent to.
    fn up(&self, peer: &PeerInfo);

    /// The link to `peer` is gone. What was sent and not answered may or may not have arrived.
    fn down(&self, peer: &NodeId, reason: &str);

    /// The peer says that it leaves in good order; `down` follows.
    fn leaving(&self, _peer: &NodeId) {}

    /// All frames cut from one chunk of one lane, in order. Take them out of `batch`; whatever
    /// stays is dropped.
    fn frames(&self, from: &NodeId, lane: Lane, batch: &mut Vec<Frame>);

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
    /// The forms of the messages it knew when it said hello.
    pub messages: Arc<[Fingerprint]>,
}

/// The connection that is the link to a peer.
#[derive(Debug, Clone)]
pub(crate) struct Path {
    /// Who is at its other end.
    pub(crate) peer: NodeId,
    connection: ConnectionId,
    counters: Arc<peer::Counters>,
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
    /// The forms of the messages it takes or sends.
    pub messages: Vec<Fingerprint>,
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

/// The links of one node. Cloning is cheap; callable from any thread. When the last clone goes,
/// the links end as if shut down.
#[derive(Clone)]
pub struct Links {
    shared: Arc<Shared>,
}

impl Links {
    /// Starts to listen. Must be called on the arbiter that shall carry the links' work.
    ///
    /// # Errors
    /// Certificates that cannot be used, or an address that cannot be listened on.
    pub fn start(
        world: &World,
        me: LocalIdentity,
        inbound: Arc<dyn Inbound>,
    ) -> Result<Self, BindError> {
        let hello = Hello {
            cluster: me.cluster.clone(),
            node: me.id.clone(),
            protocol_version: u16::from(WIRE_VERSION),
            role: me.role,
            start_nonce: me.start_nonce,
            messages: me.messages,
        };
        let identity =
            Identity { cluster: me.cluster, name: me.id.name, listen: me.listen, tls: me.tls };
        let wake = Arc::new(Notify::new());
        let shared = Arc::new(Shared {
            registry: Mutex::new(Registry::new(hello, world.entropy.rng("link"))),
            endpoint: OnceLock::new(),
            inbound,
            wake: wake.clone(),
        });
        let sink = Arc::new(Sink(Arc::downgrade(&shared)));
        let endpoint = world.network.bind(&identity, sink)?;
        let fresh = shared.endpoint.set(endpoint).is_ok();
        assert!(fresh, "an endpoint is bound once");
        tokio::spawn(keep_time(Arc::downgrade(&shared), wake));
        Ok(Self { shared })
    }

    /// Says these forms of messages in every hello from now on.
    pub(crate) fn tell_messages(&self, messages: Vec<Fingerprint>) {
        self.shared.lock().me.messages = messages;
    }

    /// Where this node listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.shared.endpoint().local_addr()
    }

    /// Keeps a link to `peer` at `address` (`host:port`): dials until it is there, and again
    /// whenever it is lost. With another address for a known peer, uses that from now on.
    pub fn connect(&self, peer: &NodeName, address: &str) {
        self.shared.with(|registry, now, _| registry.connect(now, peer, address));
        self.shared.wake.notify_one();
    }

    /// Stops dialling `peer` and ends the link to it.
    pub fn forget(&self, peer: &NodeName) {
        self.shared.with(|registry, _, out| registry.forget(peer, out));
    }

    /// Refuses peers of exactly these names from now on, whatever certificate they show, and hangs
    /// up on those that are linked.
    pub fn revoke(&self, names: BTreeSet<NodeName>) {
        self.shared.with(|registry, now, out| registry.revoke(now, names, out));
        self.shared.wake.notify_one();
    }

    /// Uses these certificates for links made from now on; those there are stay.
    ///
    /// # Errors
    /// Certificates that cannot be used; nothing was changed.
    pub fn renew(&self, tls: &TlsFiles) -> Result<(), BindError> {
        self.shared.endpoint().renew(tls)
    }

    /// Queues one frame on a lane to `to`. Frames of one lane arrive in order while the link
    /// lasts, and those sent in one turn leave together.
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
        let path = self.path(to).ok_or(SendRefused::NotConnected)?;
        self.send_by(&path, lane, header, body)
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
        let path = self.path(to).ok_or(SendRefused::NotConnected)?;
        self.transmit(&path, header, Lane::Control, body, |endpoint, head| {
            endpoint.datagram(path.connection, [head, body].concat().into())
        })
    }

    /// Bytes of datagrams to a peer that wait on this machine until the path takes them.
    pub fn datagrams_waiting(&self, to: &NodeName) -> usize {
        self.path(to).map_or(0, |path| self.shared.endpoint().datagrams_waiting(path.connection))
    }

    /// The peer as connected now, if it is.
    pub fn is_up(&self, peer: &NodeName) -> Option<NodeId> {
        self.shared.lock().linked(peer)
    }

    /// All peers that are linked or wanted, by name.
    pub fn peers(&self) -> Vec<PeerStatus> {
        self.shared.lock().status()
    }

    /// Tells all peers that this node leaves in good order; they hang up. Nobody is dialled or let
    /// in any more.
    pub fn leave(&self) {
        self.shared.with(|registry, _, out| registry.leave(out));
    }

    /// Ends all links and stops listening. Peers hear of it at once.
    pub fn shutdown(&self) {
        self.shared.shutdown();
    }

    /// How `to` is reached now, if it is: for those who send to it often.
    pub(crate) fn path(&self, to: &NodeName) -> Option<Path> {
        self.shared.lock().route(to)
    }

    /// As [`Links::send`], by a path found before.
    ///
    /// # Errors
    /// [`SendRefused`]; nothing was sent. Not connected when that connection is gone, even if
    /// there is another one by now.
    pub(crate) fn send_by(
        &self,
        path: &Path,
        lane: Lane,
        header: &FrameHeader,
        body: &[u8],
    ) -> Result<(), SendRefused> {
        self.transmit(path, header, lane, body, |endpoint, head| {
            endpoint.write_parts(path.connection, lane, head, body)
        })
    }

    /// Lets `write` send a frame: the bytes before its body are made here.
    fn transmit(
        &self,
        path: &Path,
        header: &FrameHeader,
        lane: Lane,
        body: &[u8],
        write: impl FnOnce(&dyn Endpoint, &[u8]) -> Result<(), WriteRefused>,
    ) -> Result<(), SendRefused> {
        if body.len() > BODY_BYTES_MAX {
            return Err(SendRefused::TooLarge);
        }
        let head = encode_header(header, lane, body.len());
        write(self.shared.endpoint(), &head).map_err(|refused| match refused {
            WriteRefused::Gone => SendRefused::NotConnected,
            WriteRefused::Full => SendRefused::Full,
            WriteRefused::TooLarge => SendRefused::TooLarge,
        })?;
        let len = (head.len() + body.len()) as u64;
        path.counters.bytes_out.fetch_add(len, Relaxed);
        path.counters.frames_out.fetch_add(1, Relaxed);
        Ok(())
    }
}

impl fmt::Debug for Links {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Links").finish_non_exhaustive()
    }
}

struct Shared {
    registry: Mutex<Registry>,
    /// Set before anything can ask for it; the sink had to be there first.
    endpoint: OnceLock<Arc<dyn Endpoint>>,
    inbound: Arc<dyn Inbound>,
    /// There may be something to do earlier than the clock-watcher sleeps.
    wake: Arc<Notify>,
}

impl Shared {
    /// Changes the registry, then does what follows from it, without the lock: whoever is told
    /// may call back.
    fn with(&self, change: impl FnOnce(&mut Registry, Instant, &mut Vec<Effect>)) {
        // Taken out meanwhile, for whoever calls back.
        let mut effects = EFFECTS.take();
        change(&mut self.lock(), Instant::now(), &mut effects);
        for effect in effects.drain(..) {
            self.perform(effect);
        }
        if effects.capacity() <= EFFECTS_LEN_MAX {
            EFFECTS.set(effects);
        }
    }

    fn perform(&self, effect: Effect) {
        match effect {
            Effect::Dial { peer, address } => self.endpoint().dial(&peer, &address),
            Effect::Write { connection, bytes } => {
                // Refused only when the connection is gone, and then the network says so too.
                let _ = self.endpoint().write(connection, Lane::Control, bytes);
            }
            Effect::HangUp { connection, reason } => self.endpoint().hang_up(connection, &reason),
            Effect::Up(peer) => {
                tracing::info!(peer = %peer.id, role = peer.role, "link up");
                self.inbound.up(&peer);
            }
            Effect::Leaving(id) => self.inbound.leaving(&id),
            Effect::Down { id, reason } => {
                tracing::info!(peer = %id, reason, "link down");
                self.inbound.down(&id, &reason);
            }
            Effect::Frames { from, lane, mut batch } => {
                self.inbound.frames(&from, lane, &mut batch);
            }
            Effect::Datagram { from, frame } => self.inbound.datagram(&from, frame),
        }
    }

    fn shutdown(&self) {
        self.lock().close();
        if let Some(endpoint) = self.endpoint.get() {
            endpoint.shutdown();
        }
    }

    fn endpoint(&self) -> &dyn Endpoint {
        &**self.endpoint.get().expect("set in Links::start, before any call or event")
    }

    fn lock(&self) -> MutexGuard<'_, Registry> {
        self.registry.lock().expect("nothing panics while it holds the registry")
    }
}

/// Nearly every chunk has one effect; room for many is given back.
const EFFECTS_LEN_MAX: usize = 16;

thread_local! {
    /// Room that this thread keeps for what follows from the next change: a list of its own for
    /// each chunk would be a good part of what a lone message costs here.
    static EFFECTS: Cell<Vec<Effect>> = const { Cell::new(Vec::new()) };
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.shutdown();
        self.wake.notify_one();
    }
}

/// Weak, since the endpoint that holds it is held by the links.
struct Sink(Weak<Shared>);

impl NetworkSink for Sink {
    fn event(&self, event: NetworkEvent) {
        let Some(shared) = self.0.upgrade() else {
            return;
        };
        // Good data plans nothing; everything else may bring the next deadline nearer.
        let data = matches!(event, NetworkEvent::Chunk { .. } | NetworkEvent::Datagram { .. });
        let mut quiet = data;
        shared.with(|registry, now, out| {
            registry.event(now, event, out);
            quiet &=
                out.iter().all(|e| matches!(e, Effect::Frames { .. } | Effect::Datagram { .. }));
        });
        if !quiet {
            shared.wake.notify_one();
        }
    }
}

/// Dials again and ends what took too long, until the links are gone.
async fn keep_time(shared: Weak<Shared>, wake: Arc<Notify>) {
    loop {
        let Some(links) = shared.upgrade() else {
            return;
        };
        links.with(|registry, now, out| registry.tick(now, out));
        let next = links.lock().next_tick();
        drop(links);
        match next {
            None => wake.notified().await,
            Some(at) => {
                tokio::select! {
                    biased;
                    () = wake.notified() => {}
                    () = tokio::time::sleep_until(at) => {}
                }
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
