//! The network port of one life of one node.

use std::{fmt, io, net::SocketAddr, sync::Arc};

use bytes::Bytes;

use super::{
    Content, DATAGRAM_BYTES_MAX, EndState, LANE_BYTES_MAX, Net, PORT_DEFAULT, Parcel, Port,
    connection::parse, dial::Dial, ip_of,
};
use crate::{
    identity::NodeName,
    sim::{life::Life, queue::lock},
    world::network::{
        BindError, ConnectionId, Endpoint, Identity, Lane, Network, NetworkSink, WriteRefused,
    },
};

/// The network as one life of a node sees it.
#[derive(Debug)]
pub(in crate::sim) struct SimNetwork {
    net: Arc<Net>,
    life: Life,
}

struct SimEndpoint {
    net: Arc<Net>,
    port: Arc<Port>,
}

impl SimNetwork {
    pub(in crate::sim) fn new(net: Arc<Net>, life: Life) -> Self {
        Self { net, life }
    }
}

impl Network for SimNetwork {
    fn bind(
        &self,
        me: &Identity,
        sink: Arc<dyn NetworkSink>,
    ) -> Result<Arc<dyn Endpoint>, BindError> {
        let ip = ip_of(self.life.machine());
        let refuse =
            |address, kind: io::ErrorKind| Err(BindError::Address { address, source: kind.into() });
        if !self.life.lasts() {
            return refuse(me.listen, io::ErrorKind::NetworkDown);
        }
        let mut state = lock(&self.net.state);
        let taken = |port: u16| state.ports.contains_key(&SocketAddr::new(ip, port));
        let free = match me.listen.port() {
            0 => (PORT_DEFAULT..).find(|port| !taken(*port)),
            port => Some(port).filter(|port| !taken(*port)),
        };
        let Some(free) = free else { return refuse(me.listen, io::ErrorKind::AddrInUse) };
        let address = SocketAddr::new(ip, free);
        let port = Arc::new(Port::new(address, me, self.life.clone(), sink));
        state.ports.insert(address, Arc::clone(&port));
        drop(state);
        self.net.note(&self.life, "bind", &[u64::from(free)]);
        Ok(Arc::new(SimEndpoint { net: Arc::clone(&self.net), port }))
    }
}

impl SimEndpoint {
    /// Takes a write if the connection lasts and `check` agrees, and sends it.
    fn take(
        &self,
        to: ConnectionId,
        lane: usize,
        content: Content,
        len: u64,
    ) -> Result<(), WriteRefused> {
        let (number, side) = parse(to);
        {
            let mut state = lock(&self.net.state);
            let gone = WriteRefused::Gone;
            let (from, other) = state.route(number, side).ok_or(gone)?;
            let connection = state.connections.get_mut(&number).ok_or(gone)?;
            let end = &connection.ends[side];
            let mine = Arc::ptr_eq(&end.port, &self.port) && self.port.is_open();
            if !mine || end.state != EndState::Open {
                return Err(gone);
            }
            if let Content::Chunk(lane, _) = &content {
                let queued = &mut connection.ways[side].queued[*lane as usize];
                if *queued + len > LANE_BYTES_MAX {
                    return Err(WriteRefused::Full);
                }
                *queued += len;
            }
            let traffic = &mut state.path(self.net.seed, from.index(), other.index()).traffic[lane];
            traffic.sent += 1;
            traffic.bytes += len;
        }
        self.net.note(&self.port.life, "write", &[number, lane as u64, len]);
        self.net.send(number, side, Parcel::ordered(content));
        Ok(())
    }
}

impl Endpoint for SimEndpoint {
    fn local_addr(&self) -> SocketAddr {
        self.port.address
    }

    fn dial(&self, peer: &NodeName, address: &str) {
        if self.port.is_open() {
            Dial::start(&self.net, &self.port, peer, address);
        }
    }

    fn write(&self, to: ConnectionId, lane: Lane, bytes: Bytes) -> Result<(), WriteRefused> {
        let len = bytes.len() as u64;
        self.take(to, lane as usize, Content::Chunk(lane, bytes), len)
    }

    fn datagram(&self, to: ConnectionId, bytes: Bytes) -> Result<(), WriteRefused> {
        if bytes.len() > DATAGRAM_BYTES_MAX {
            return Err(WriteRefused::TooLarge);
        }
        let len = bytes.len() as u64;
        self.take(to, super::DATAGRAMS, Content::Datagram(bytes), len)
    }

    fn datagrams_waiting(&self, to: ConnectionId) -> usize {
        let (number, side) = parse(to);
        let now = self.net.queue.now();
        let mut state = lock(&self.net.state);
        let general = state.weather;
        let Some((from, other)) = state.route(number, side) else { return 0 };
        let path = state.path(self.net.seed, from.index(), other.index());
        usize::try_from(path.waiting(now, general)).unwrap_or(usize::MAX)
    }

    fn hang_up(&self, connection: ConnectionId, reason: &str) {
        if self.port.is_open() {
            self.net.hang_up(&self.port, connection, reason);
        }
    }

    fn shutdown(&self) {
        if !self.port.is_open() {
            return;
        }
        for connection in self.net.connections_of(&self.port) {
            self.net.hang_up(&self.port, connection, "shut down");
        }
        lock(&self.net.state).ports.remove(&self.port.address);
        // Closed by an event, so that the sink still hears the `Down`s just queued.
        let port = Arc::clone(&self.port);
        let life = self.port.life.clone();
        self.net.queue.after(0, Some(&life), move || port.close());
    }
}

impl fmt::Debug for SimEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SimEndpoint").field(&self.port.address).finish()
    }
}
