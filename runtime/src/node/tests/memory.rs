//! A reliable network within one thread, and worlds on it.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

use crate::{
    identity::NodeName,
    world::{
        Clock, Disk, Instant, Network, RealEntropy, World,
        disk::{DiskFile, Lock, LockError, Waker, Worker},
        network::{
            BindError, ConnectionId, Endpoint, Identity, Lane, NetworkEvent, NetworkSink,
            WriteRefused,
        },
    },
};

/// Cables between the nodes of one test.
#[derive(Debug, Clone, Default)]
pub(super) struct MemoryNetwork(Arc<Mutex<Cables>>);

#[derive(Debug, Default)]
struct Cables {
    nodes: BTreeMap<SocketAddr, (NodeName, UnboundedSender<NetworkEvent>)>,
    /// Each end of a connection, and where its other end listens.
    ends: BTreeMap<(ConnectionId, SocketAddr), SocketAddr>,
    connections: u64,
}

impl MemoryNetwork {
    /// A world on this network.
    pub(super) fn world(&self) -> World {
        World {
            clock: Arc::new(TokioClock(tokio::time::Instant::now())),
            entropy: Arc::new(RealEntropy),
            network: Arc::new(self.clone()),
            disk: Arc::new(NoDisk),
        }
    }

    /// Cuts all connections.
    pub(super) fn cut(&self) {
        let ends = self.0.lock().unwrap().ends.keys().copied().collect::<Vec<_>>();
        for (connection, _) in ends {
            self.0.lock().unwrap().hang_up(connection, "cut");
        }
    }
}

impl Cables {
    fn tell(&self, at: SocketAddr, event: NetworkEvent) {
        if let Some((_, events)) = self.nodes.get(&at) {
            let _ = events.send(event);
        }
    }

    fn hang_up(&mut self, connection: ConnectionId, reason: &str) {
        let gone = self.ends.extract_if(.., |(id, _), _| *id == connection).collect::<Vec<_>>();
        for ((_, at), _) in gone {
            self.tell(at, NetworkEvent::Down { connection, reason: reason.to_owned() });
        }
    }
}

impl Network for MemoryNetwork {
    fn bind(
        &self,
        me: &Identity,
        sink: Arc<dyn NetworkSink>,
    ) -> Result<Arc<dyn Endpoint>, BindError> {
        let (events, mut told) = unbounded_channel();
        let mut cables = self.0.lock().unwrap();
        let port = 1 + u16::try_from(cables.nodes.len()).unwrap();
        let at = SocketAddr::from(([127, 0, 0, 1], port));
        cables.nodes.insert(at, (me.name.clone(), events));
        // Outside of the LocalSet, as QUIC is.
        tokio::spawn(async move {
            while let Some(event) = told.recv().await {
                sink.event(event);
            }
        });
        Ok(Arc::new(Plug { network: self.clone(), at, me: me.name.clone() }))
    }
}

#[derive(Debug)]
struct Plug {
    network: MemoryNetwork,
    at: SocketAddr,
    me: NodeName,
}

impl Plug {
    fn pass(&self, to: ConnectionId, event: NetworkEvent) -> Result<(), WriteRefused> {
        let cables = self.network.0.lock().unwrap();
        let other = *cables.ends.get(&(to, self.at)).ok_or(WriteRefused::Gone)?;
        cables.tell(other, event);
        Ok(())
    }
}

impl Endpoint for Plug {
    fn local_addr(&self) -> SocketAddr {
        self.at
    }

    fn dial(&self, peer: &NodeName, address: &str) {
        let there: SocketAddr = address.parse().unwrap();
        let mut cables = self.network.0.lock().unwrap();
        if !cables.nodes.contains_key(&there) {
            let reason = "nobody is there".to_owned();
            return cables.tell(self.at, NetworkEvent::DialFailed { peer: peer.clone(), reason });
        }
        cables.connections += 1;
        let connection = ConnectionId(cables.connections);
        cables.ends.insert((connection, self.at), there);
        cables.ends.insert((connection, there), self.at);
        let peer = peer.clone();
        cables.tell(self.at, NetworkEvent::Up { connection, peer, dialled: true });
        let peer = self.me.clone();
        cables.tell(there, NetworkEvent::Up { connection, peer, dialled: false });
    }

    fn write(&self, to: ConnectionId, lane: Lane, bytes: Bytes) -> Result<(), WriteRefused> {
        self.pass(to, NetworkEvent::Chunk { connection: to, lane, bytes })
    }

    fn datagram(&self, to: ConnectionId, bytes: Bytes) -> Result<(), WriteRefused> {
        self.pass(to, NetworkEvent::Datagram { connection: to, bytes })
    }

    fn hang_up(&self, connection: ConnectionId, reason: &str) {
        self.network.0.lock().unwrap().hang_up(connection, reason);
    }

    fn shutdown(&self) {
        let mut cables = self.network.0.lock().unwrap();
        cables.nodes.remove(&self.at);
        let mine = cables.ends.keys().filter(|(_, at)| *at == self.at);
        for connection in mine.map(|(id, _)| *id).collect::<Vec<_>>() {
            cables.hang_up(connection, "shut down");
        }
    }
}

/// Follows tokio's clock, paused or not.
#[derive(Debug)]
struct TokioClock(tokio::time::Instant);

impl Clock for TokioClock {
    fn now(&self) -> Instant {
        Instant::from_nanos(u64::try_from(self.0.elapsed().as_nanos()).unwrap())
    }

    fn wall_ms(&self) -> u64 {
        0
    }
}

/// A node as such needs no files.
#[derive(Debug)]
pub(super) struct NoDisk;

impl Disk for NoDisk {
    fn open(&self, _: &Path, _: bool) -> std::io::Result<Box<dyn DiskFile>> {
        Err(std::io::ErrorKind::Unsupported.into())
    }

    fn create_dir_all(&self, _: &Path) -> std::io::Result<()> {
        Err(std::io::ErrorKind::Unsupported.into())
    }

    fn list(&self, _: &Path) -> std::io::Result<Vec<String>> {
        Err(std::io::ErrorKind::Unsupported.into())
    }

    fn rename(&self, _: &Path, _: &Path) -> std::io::Result<()> {
        Err(std::io::ErrorKind::Unsupported.into())
    }

    fn remove(&self, _: &Path) -> std::io::Result<()> {
        Err(std::io::ErrorKind::Unsupported.into())
    }

    fn sync_dir(&self, _: &Path) -> std::io::Result<()> {
        Err(std::io::ErrorKind::Unsupported.into())
    }

    fn lock(&self, path: &Path) -> Result<Box<dyn Lock>, LockError> {
        let source = std::io::ErrorKind::Unsupported.into();
        Err(LockError::Io { path: path.to_owned(), source })
    }

    fn spawn_worker(&self, _: &str, _: Box<dyn Worker>) -> Arc<dyn Waker> {
        unreachable!("a node as such has no disk worker")
    }
}
