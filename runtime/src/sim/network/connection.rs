//! One simulated connection: two ends, and what is under way between them.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use bytes::Bytes;

use crate::{
    identity::{ClusterName, NodeName},
    sim::{life::Life, queue::lock},
    world::network::{ConnectionId, Lane, NetworkEvent, NetworkSink},
};

/// A bound endpoint, as the network knows it.
pub(super) struct Port {
    pub(super) address: SocketAddr,
    /// What the node asked for; may be dialled too, so that any address of a test works.
    pub(super) asked: SocketAddr,
    pub(super) life: Life,
    pub(super) cluster: ClusterName,
    pub(super) name: NodeName,
    /// Taken out when the endpoint ends, so that nobody is kept alive by the network.
    sink: Mutex<Option<Arc<dyn NetworkSink>>>,
}

/// A connection between `ends[0]`, which dialled, and `ends[1]`.
pub(super) struct Connection {
    pub(super) ends: [End; 2],
    /// `ways[s]` leads away from end `s`.
    pub(super) ways: [Way; 2],
}

pub(super) struct End {
    pub(super) port: Arc<Port>,
    pub(super) state: EndState,
    /// When this end last had a sign of the other.
    pub(super) heard: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EndState {
    /// The handshake's last packet is under way.
    AwaitsUp,
    /// The sink was told that it is up.
    Open,
    /// Over for this end.
    Closed,
}

/// One direction of a connection.
#[derive(Default)]
pub(super) struct Way {
    /// Nothing arrives before this true time: the handshake's end.
    pub(super) floor: u64,
    /// When the latest write of each lane arrives.
    pub(super) last: [u64; 4],
    /// Bytes taken and not yet delivered, by lane.
    pub(super) queued: [u64; 4],
    /// What arrived at a cut, in order; sent again until it passes.
    pub(super) stalled: VecDeque<Parcel>,
    /// The pause before the next try, in nanoseconds; grows.
    pub(super) retry: u64,
}

/// One thing under way.
#[derive(Clone)]
pub(super) struct Parcel {
    pub(super) what: Content,
    /// Overtakes what is stalled.
    pub(super) unordered: bool,
    /// A second copy, which is not counted against the lane's queue.
    pub(super) copy: bool,
}

#[derive(Clone)]
pub(super) enum Content {
    /// The handshake is complete.
    Up,
    Chunk(Lane, Bytes),
    Datagram(Bytes),
    Close(String),
}

impl Port {
    pub(super) fn new(
        address: SocketAddr,
        me: &crate::world::network::Identity,
        life: Life,
        sink: Arc<dyn NetworkSink>,
    ) -> Self {
        Self {
            address,
            asked: me.listen,
            life,
            cluster: me.cluster.clone(),
            name: me.name.clone(),
            sink: Mutex::new(Some(sink)),
        }
    }

    /// Tells the node, unless the endpoint has ended. Only from an event of the queue.
    pub(super) fn tell(&self, event: NetworkEvent) {
        let sink = lock(&self.sink).clone();
        if let Some(sink) = sink.filter(|_| self.life.lasts()) {
            sink.event(event);
        }
    }

    pub(super) fn is_open(&self) -> bool {
        self.life.lasts() && lock(&self.sink).is_some()
    }

    /// Ends it; nothing is told any more.
    pub(super) fn close(&self) {
        let sink = lock(&self.sink).take();
        drop(sink); // outside of the lock: it may own the endpoint
    }
}

impl End {
    pub(super) fn new(port: &Arc<Port>, state: EndState, now: u64) -> Self {
        Self { port: Arc::clone(port), state, heard: now }
    }

    /// Whether the other side would get signs of life from this one.
    pub(super) fn answers(&self) -> bool {
        self.state != EndState::Closed && self.port.life.lasts() && !self.port.life.paused()
    }
}

impl Parcel {
    pub(super) fn ordered(what: Content) -> Self {
        Self { what, unordered: false, copy: false }
    }
}

/// The id under which end `side` of connection `number` knows it.
pub(super) fn id_of(number: u64, side: usize) -> ConnectionId {
    ConnectionId(number * 2 + side as u64)
}

/// The connection and the side that an id names.
pub(super) fn parse(id: ConnectionId) -> (u64, usize) {
    (id.0 / 2, usize::from(id.0 % 2 == 1))
}
