//! What tests of links need: a network in memory, an inbound that records, a world without files.

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until, timeout},
};

use super::{Inbound, LocalIdentity, PeerInfo};
use crate::{
    identity::{Incarnation, NodeId, NodeName},
    wire::Frame,
    world::{
        Disk, Network, RealClock, RealEntropy, World,
        disk::{DiskFile, Lock, LockError, Waker, Worker},
        network::{
            BindError, ConnectionId, Endpoint, Identity, Lane, NetworkEvent, NetworkSink, TlsFiles,
            WriteRefused,
        },
    },
};

pub(crate) fn name(text: &str) -> NodeName {
    text.parse().unwrap()
}

/// Node `text` of cluster `bank`; its order among nodes is that of `incarnation`.
pub(crate) fn identity(
    text: &str,
    incarnation: u64,
    listen: SocketAddr,
    tls: Option<TlsFiles>,
) -> LocalIdentity {
    LocalIdentity {
        cluster: name("bank"),
        id: NodeId::new(name(text), Incarnation(incarnation)),
        role: "main".into(),
        start_nonce: rand::random(),
        messages: Vec::new(),
        listen,
        tls,
    }
}

pub(crate) fn world(network: Arc<dyn Network>) -> World {
    let (clock, entropy) = (Arc::new(RealClock), Arc::new(RealEntropy));
    World { clock, entropy, network, disk: Arc::new(NoDisk) }
}

/// What an [`Inbound`] was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Told {
    Up(PeerInfo),
    Down(NodeId, String),
    Frame(NodeId, Frame),
    Datagram(NodeId, Frame),
}

pub(crate) struct Recorder(mpsc::UnboundedSender<Told>);

impl Recorder {
    pub(crate) fn new() -> (Arc<Self>, Heard<Told>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Arc::new(Self(sender)), Heard(receiver))
    }
}

impl Inbound for Recorder {
    fn up(&self, peer: &PeerInfo) {
        let _ = self.0.send(Told::Up(peer.clone()));
    }

    fn down(&self, peer: &NodeId, reason: &str) {
        let _ = self.0.send(Told::Down(peer.clone(), reason.to_owned()));
    }

    fn frames(&self, from: &NodeId, _: Lane, batch: &mut Vec<Frame>) {
        for frame in batch.drain(..) {
            let _ = self.0.send(Told::Frame(from.clone(), frame));
        }
    }

    fn datagram(&self, from: &NodeId, frame: Frame) {
        let _ = self.0.send(Told::Datagram(from.clone(), frame));
    }
}

/// What was recorded, in order. Waiting is bounded, so that a broken test fails.
pub(crate) struct Heard<T>(mpsc::UnboundedReceiver<T>);

impl<T: std::fmt::Debug> Heard<T> {
    pub(crate) async fn next(&mut self) -> T {
        let next = timeout(Duration::from_secs(20), self.0.recv()).await;
        next.expect("something is heard within 20 s").expect("the sender lives")
    }

    /// Skips until `pick` wants one.
    pub(crate) async fn find<U>(&mut self, mut pick: impl FnMut(&T) -> Option<U>) -> U {
        loop {
            if let Some(found) = pick(&self.next().await) {
                return found;
            }
        }
    }

    pub(crate) fn try_next(&mut self) -> Option<T> {
        self.0.try_recv().ok()
    }
}

impl Heard<Told> {
    pub(crate) async fn up(&mut self) -> PeerInfo {
        self.find(|told| if let Told::Up(peer) = told { Some(peer.clone()) } else { None }).await
    }

    pub(crate) async fn down(&mut self) -> String {
        self.find(|told| if let Told::Down(_, why) = told { Some(why.clone()) } else { None }).await
    }

    pub(crate) async fn frame(&mut self) -> Frame {
        self.find(|told| if let Told::Frame(_, f) = told { Some(f.clone()) } else { None }).await
    }
}

/// A sink that records what the network tells.
pub(crate) struct RawSink(mpsc::UnboundedSender<NetworkEvent>);

impl RawSink {
    pub(crate) fn new() -> (Arc<Self>, Heard<NetworkEvent>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Arc::new(Self(sender)), Heard(receiver))
    }
}

impl NetworkSink for RawSink {
    fn event(&self, event: NetworkEvent) {
        let _ = self.0.send(event);
    }
}

/// One way through the network in memory.
pub(crate) const LATENCY: Duration = Duration::from_millis(1);

/// Connects endpoints of one test by address, with a fixed latency and nothing lost.
#[derive(Debug, Clone, Default)]
pub(crate) struct MemoryNetwork {
    hub: Arc<Mutex<Hub>>,
}

#[derive(Debug, Default)]
struct Hub {
    listening: BTreeMap<SocketAddr, Party>,
    /// Both ends of every open connection, by either's id.
    ends: BTreeMap<ConnectionId, (ConnectionId, Party)>,
    next: u64,
    dials: Vec<Instant>,
}

#[derive(Debug, Clone)]
struct Party {
    name: NodeName,
    events: mpsc::UnboundedSender<(Instant, NetworkEvent)>,
}

impl MemoryNetwork {
    pub(crate) fn open_connections(&self) -> usize {
        self.hub().ends.len() / 2
    }

    /// When endpoints dialled.
    pub(crate) fn dials(&self) -> Vec<Instant> {
        self.hub().dials.clone()
    }

    fn hub(&self) -> MutexGuard<'_, Hub> {
        self.hub.lock().unwrap()
    }
}

impl Party {
    fn tell(&self, event: NetworkEvent) {
        let _ = self.events.send((Instant::now() + LATENCY, event));
    }
}

impl Network for MemoryNetwork {
    fn bind(
        &self,
        me: &Identity,
        sink: Arc<dyn NetworkSink>,
    ) -> Result<Arc<dyn Endpoint>, BindError> {
        let (events, mut receiver) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Some((at, event)) = receiver.recv().await {
                sleep_until(at).await;
                sink.event(event);
            }
        });
        let party = Party { name: me.name.clone(), events };
        self.hub().listening.insert(me.listen, party.clone());
        Ok(Arc::new(MemoryEndpoint { network: self.clone(), address: me.listen, party }))
    }
}

#[derive(Debug)]
struct MemoryEndpoint {
    network: MemoryNetwork,
    address: SocketAddr,
    party: Party,
}

impl Endpoint for MemoryEndpoint {
    fn local_addr(&self) -> SocketAddr {
        self.address
    }

    fn dial(&self, peer: &NodeName, address: &str) {
        let mut hub = self.network.hub();
        hub.dials.push(Instant::now());
        let found = hub.listening.get(&address.parse().unwrap()).cloned();
        let Some(found) = found.filter(|found| &found.name == peer) else {
            let reason = "nobody listens there".to_owned();
            return self.party.tell(NetworkEvent::DialFailed { peer: peer.clone(), reason });
        };
        let (mine, theirs) = (ConnectionId(hub.next), ConnectionId(hub.next + 1));
        hub.next += 2;
        hub.ends.insert(mine, (theirs, found.clone()));
        hub.ends.insert(theirs, (mine, self.party.clone()));
        let peer = self.party.name.clone();
        found.tell(NetworkEvent::Up { connection: theirs, peer, dialled: false });
        let peer = found.name;
        self.party.tell(NetworkEvent::Up { connection: mine, peer, dialled: true });
    }

    fn write(&self, to: ConnectionId, lane: Lane, bytes: Bytes) -> Result<(), WriteRefused> {
        let hub = self.network.hub();
        let (connection, peer) = hub.ends.get(&to).ok_or(WriteRefused::Gone)?;
        peer.tell(NetworkEvent::Chunk { connection: *connection, lane, bytes });
        Ok(())
    }

    fn datagram(&self, to: ConnectionId, bytes: Bytes) -> Result<(), WriteRefused> {
        let hub = self.network.hub();
        let (connection, peer) = hub.ends.get(&to).ok_or(WriteRefused::Gone)?;
        peer.tell(NetworkEvent::Datagram { connection: *connection, bytes });
        Ok(())
    }

    fn hang_up(&self, connection: ConnectionId, reason: &str) {
        let mut hub = self.network.hub();
        let Some((other, peer)) = hub.ends.remove(&connection) else {
            return;
        };
        hub.ends.remove(&other);
        let reason = reason.to_owned();
        peer.tell(NetworkEvent::Down { connection: other, reason: reason.clone() });
        self.party.tell(NetworkEvent::Down { connection, reason });
    }

    fn shutdown(&self) {
        let mine: Vec<ConnectionId> = {
            let mut hub = self.network.hub();
            hub.listening.retain(|_, party| !party.events.same_channel(&self.party.events));
            let mine = |(id, (other, _)): (&ConnectionId, &(ConnectionId, Party))| {
                let (_, me) = hub.ends.get(other)?;
                me.events.same_channel(&self.party.events).then_some(*id)
            };
            hub.ends.iter().filter_map(mine).collect()
        };
        for connection in mine {
            self.hang_up(connection, "shutting down");
        }
    }
}

#[derive(Debug)]
struct NoDisk;

impl Disk for NoDisk {
    fn open(&self, _: &Path, _: bool) -> io::Result<Box<dyn DiskFile>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn create_dir_all(&self, _: &Path) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn list(&self, _: &Path) -> io::Result<Vec<String>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn rename(&self, _: &Path, _: &Path) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn remove(&self, _: &Path) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn lock(&self, dir: &Path) -> Result<Box<dyn Lock>, LockError> {
        Err(LockError::Io { path: dir.into(), source: io::ErrorKind::Unsupported.into() })
    }

    fn spawn_worker(&self, _: &str, _: Box<dyn Worker>) -> Arc<dyn Waker> {
        unreachable!("links keep no files")
    }
}
