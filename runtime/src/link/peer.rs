//! What is known of a peer and of a connection.

use std::sync::{Arc, atomic::AtomicU64};

use bytes::Bytes;
use tokio::time::Instant;

use crate::{
    identity::{NodeId, NodeName},
    wire::Deframer,
    world::network::{ConnectionId, Lane},
};

/// Of one peer; written without the registry's lock.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) bytes_in: AtomicU64,
    pub(super) bytes_out: AtomicU64,
    pub(super) frames_in: AtomicU64,
    pub(super) frames_out: AtomicU64,
    pub(super) frames_bad: AtomicU64,
}

#[derive(Debug)]
pub(super) enum Dial {
    Idle,
    At(Instant),
    InFlight,
}

#[derive(Debug)]
pub(super) struct Link {
    pub(super) connection: ConnectionId,
    pub(super) id: NodeId,
    pub(super) start_nonce: u64,
    pub(super) dialled: bool,
    pub(super) since: Instant,
}

#[derive(Debug)]
pub(super) struct Peer {
    /// Wanted when there is one.
    pub(super) address: Option<String>,
    pub(super) dial: Dial,
    pub(super) failures: u32,
    pub(super) link: Option<Link>,
    pub(super) last_error: Option<String>,
    /// Why its last connection was refused here.
    pub(super) refused: Option<String>,
    pub(super) counters: Arc<Counters>,
}

#[derive(Debug)]
pub(super) enum Phase {
    ExpectHello {
        until: Instant,
        early: Vec<(Lane, Bytes)>,
        early_bytes: usize,
    },
    Open(NodeId),
    /// The goodbye is on its way.
    Leaving {
        until: Instant,
        reason: String,
    },
    /// Hung up; the network's word for it is to come.
    HungUp,
}

#[derive(Debug)]
pub(super) struct Connection {
    pub(super) peer: NodeName,
    pub(super) dialled: bool,
    pub(super) phase: Phase,
    pub(super) lanes: [Deframer; 4],
    pub(super) counters: Arc<Counters>,
}

impl Peer {
    pub(super) fn unknown() -> Self {
        let counters = Arc::default();
        Self {
            address: None,
            dial: Dial::Idle,
            failures: 0,
            link: None,
            last_error: None,
            refused: None,
            counters,
        }
    }
}

impl Connection {
    pub(super) fn is_pending(&self) -> bool {
        matches!(self.phase, Phase::ExpectHello { .. })
    }
}
