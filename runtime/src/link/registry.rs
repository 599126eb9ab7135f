//! Which connection is the link to which peer: a machine without I/O. Events and times go in,
//! [`Effect`]s come out, to be carried out in order.
//!
//! A connection's life: the network says it is up (the certificate is checked by then), both
//! sides send a hello on the control lane, and with a good hello it is the link. A refused one
//! gets a goodbye that says why, and a moment to carry it.
//!
//! 1. A peer has at most one link, and everything sent and delivered goes through it.
//! 2. [`Effect::Up`] and [`Effect::Down`] alternate for a peer; frames come only between them.
//! 3. A wanted peer is linked or revoked, or a connection to it awaits its hello or its end, or a dial is
//!    planned or in flight.
//! 4. Of two connections between the same two processes both sides keep the same one.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use bytes::Bytes;
use rand::RngExt;
use tokio::time::Instant;

use super::{
    Path, PeerInfo, PeerStatus,
    frames::{LEAVING, control_frame, control_frame_with},
    peer::{Connection, Dial, Peer, Phase},
};
use crate::{
    identity::{NodeId, NodeName},
    wire::{Deframer, Frame, FrameHeader, FrameKind, HELLO_BYTES_MAX, Hello},
    world::{
        Rng,
        network::{ConnectionId, Lane, NetworkEvent},
    },
};

/// A handshake is two small frames: the rest is for lost packets and busy peers.
pub(super) const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(2);
/// First pause before dialling again: long enough not to spin, short beside any election.
const BACK_OFF_MIN: Duration = Duration::from_millis(20);
/// Longest pause before dialling again: a restarted peer is reached within it.
const BACK_OFF_MAX: Duration = Duration::from_secs(1);
/// Connections of one peer without a hello yet: one dialled by each side and their successors.
const PENDING_MAX: usize = 4;

/// What is to be done now.
#[derive(Debug)]
pub(super) enum Effect {
    Dial {
        peer: NodeName,
        address: String,
    },
    Write {
        connection: ConnectionId,
        bytes: Bytes,
    },
    HangUp {
        connection: ConnectionId,
        reason: String,
    },
    Up(PeerInfo),
    /// Its link goes down next, since it leaves.
    Leaving(NodeId),
    Down {
        id: NodeId,
        reason: String,
    },
    Frames {
        from: NodeId,
        lane: Lane,
        batch: Vec<Frame>,
    },
    Datagram {
        from: NodeId,
        frame: Frame,
    },
}

#[derive(Debug)]
pub(super) struct Registry {
    pub(super) me: Hello,
    rng: Rng,
    pub(super) peers: BTreeMap<NodeName, Peer>,
    pub(super) connections: BTreeMap<ConnectionId, Connection>,
    /// Names that are not linked to, whatever certificate they show.
    revoked: BTreeSet<NodeName>,
    closed: bool,
}

impl Registry {
    pub(super) fn new(me: Hello, rng: Rng) -> Self {
        let (peers, connections, revoked) = (BTreeMap::new(), BTreeMap::new(), BTreeSet::new());
        Self { me, rng, peers, connections, revoked, closed: false }
    }

    pub(super) fn connect(&mut self, now: Instant, name: &NodeName, address: &str) {
        if name == &self.me.node.name || self.closed {
            return;
        }
        let peer = self.peers.entry(name.clone()).or_insert_with(Peer::unknown);
        if peer.address.as_deref() != Some(address) {
            peer.address = Some(address.to_owned());
            peer.failures = 0;
            if matches!(peer.dial, Dial::At(_)) {
                peer.dial = Dial::Idle;
            }
        }
        if self.missing(name) {
            self.peer(name).dial = Dial::At(now);
        }
    }

    pub(super) fn forget(&mut self, name: &NodeName, out: &mut Vec<Effect>) {
        let Some(peer) = self.peers.get_mut(name) else {
            return;
        };
        peer.address = None;
        peer.dial = Dial::Idle;
        if let Some(link) = &peer.link {
            let connection = link.connection;
            out.push(Effect::HangUp { connection, reason: "no longer wanted".into() });
        }
        self.tidy(name);
    }

    /// Refuses exactly these names from now on, and ends what there is to them.
    pub(super) fn revoke(
        &mut self,
        now: Instant,
        names: BTreeSet<NodeName>,
        out: &mut Vec<Effect>,
    ) {
        let before = std::mem::replace(&mut self.revoked, names);
        let ended: Vec<_> = self
            .connections
            .iter()
            .filter(|(_, state)| self.revoked.contains(&state.peer))
            .filter(|(_, state)| matches!(state.phase, Phase::Open(_)) || state.is_pending())
            .map(|(connection, state)| (*connection, format!("{} is revoked", state.peer)))
            .collect();
        for (connection, reason) in ended {
            self.refuse(now, connection, reason, out);
        }
        for (name, peer) in &mut self.peers {
            if self.revoked.contains(name) && matches!(peer.dial, Dial::At(_)) {
                peer.dial = Dial::Idle;
            }
        }
        for name in before {
            if self.missing(&name) {
                self.peer(&name).dial = Dial::At(now);
            }
        }
    }

    /// From now on dials nobody and takes no new connections.
    pub(super) fn close(&mut self) {
        self.closed = true;
        for peer in self.peers.values_mut() {
            peer.address = None;
            peer.dial = Dial::Idle;
        }
    }

    /// Says goodbye to all.
    pub(super) fn leave(&mut self, out: &mut Vec<Effect>) {
        self.close();
        for link in self.peers.values().filter_map(|peer| peer.link.as_ref()) {
            let header = FrameHeader { message: LEAVING, ..FrameHeader::new(FrameKind::Goodbye) };
            let bytes = control_frame_with(&header, b"leaving");
            out.push(Effect::Write { connection: link.connection, bytes });
        }
    }

    pub(super) fn event(&mut self, now: Instant, event: NetworkEvent, out: &mut Vec<Effect>) {
        match event {
            NetworkEvent::Up { connection, peer, dialled } => {
                self.up(now, connection, peer, dialled, out);
            }
            NetworkEvent::Chunk { connection, lane, bytes } => {
                self.chunk(now, connection, lane, bytes, out);
            }
            NetworkEvent::Datagram { connection, bytes } => self.datagram(connection, bytes, out),
            NetworkEvent::Down { connection, reason } => {
                self.lost(now, connection, &reason, out);
                if let Some(gone) = self.connections.remove(&connection) {
                    self.redial(now, &gone.peer);
                    self.tidy(&gone.peer);
                }
            }
            NetworkEvent::DialFailed { peer: name, reason } => {
                let Some(peer) = self.peers.get_mut(&name) else {
                    return;
                };
                if matches!(peer.dial, Dial::InFlight) {
                    peer.dial = Dial::Idle;
                    if peer.last_error.as_ref() != Some(&reason) {
                        // Once, not with every try: a wrong certificate stays wrong.
                        let address = peer.address.as_deref().unwrap_or_default();
                        tracing::warn!(peer = %name, address, reason, "cannot connect");
                    }
                    peer.last_error = Some(reason);
                }
                self.redial(now, &name);
            }
        }
    }

    /// Does what is due.
    pub(super) fn tick(&mut self, now: Instant, out: &mut Vec<Effect>) {
        for (name, peer) in &mut self.peers {
            let (Dial::At(at), Some(address)) = (&peer.dial, &peer.address) else {
                continue;
            };
            if *at > now {
                continue;
            }
            let pending = self.connections.values().any(|c| &c.peer == name && c.is_pending());
            if peer.link.is_some() || pending {
                peer.dial = Dial::Idle;
            } else {
                peer.dial = Dial::InFlight;
                out.push(Effect::Dial { peer: name.clone(), address: address.clone() });
            }
        }
        let mut late = Vec::new();
        for (&connection, state) in &mut self.connections {
            match &state.phase {
                Phase::ExpectHello { until, .. } if *until <= now => late.push(connection),
                Phase::Leaving { until, reason } if *until <= now => {
                    out.push(Effect::HangUp { connection, reason: reason.clone() });
                    state.phase = Phase::HungUp;
                }
                Phase::ExpectHello { .. }
                | Phase::Open(_)
                | Phase::Leaving { .. }
                | Phase::HungUp => {}
            }
        }
        for connection in late {
            let reason = format!("no hello within {} s", HANDSHAKE_TIME_MAX.as_secs());
            self.refuse(now, connection, reason, out);
        }
    }

    /// When [`Registry::tick`] has something to do next.
    pub(super) fn next_tick(&self) -> Option<Instant> {
        let dials = self.peers.values().filter_map(|peer| match peer.dial {
            Dial::At(at) => Some(at),
            Dial::Idle | Dial::InFlight => None,
        });
        let phases = self.connections.values().filter_map(|state| match state.phase {
            Phase::ExpectHello { until, .. } | Phase::Leaving { until, .. } => Some(until),
            Phase::Open(_) | Phase::HungUp => None,
        });
        dials.chain(phases).min()
    }

    /// The connection to send to `name` by.
    pub(super) fn route(&self, name: &NodeName) -> Option<Path> {
        let peer = self.peers.get(name)?;
        let link = peer.link.as_ref()?;
        let counters = Arc::clone(&peer.counters);
        Some(Path { peer: link.id.clone(), connection: link.connection, counters })
    }

    pub(super) fn linked(&self, name: &NodeName) -> Option<NodeId> {
        Some(self.peers.get(name)?.link.as_ref()?.id.clone())
    }

    pub(super) fn status(&self) -> Vec<PeerStatus> {
        let status = |(name, peer): (&NodeName, &Peer)| PeerStatus {
            name: name.clone(),
            address: peer.address.clone(),
            connected: peer.link.as_ref().map(|link| link.id.clone()),
            last_error: peer.last_error.clone(),
            bytes_in: peer.counters.bytes_in.load(Relaxed),
            bytes_out: peer.counters.bytes_out.load(Relaxed),
            frames_in: peer.counters.frames_in.load(Relaxed),
            frames_out: peer.counters.frames_out.load(Relaxed),
            frames_bad: peer.counters.frames_bad.load(Relaxed),
        };
        self.peers.iter().map(status).collect()
    }

    fn up(
        &mut self,
        now: Instant,
        connection: ConnectionId,
        name: NodeName,
        dialled: bool,
        out: &mut Vec<Effect>,
    ) {
        let pending = self.connections.values().filter(|c| c.peer == name && c.is_pending());
        let crowded = pending.count() >= PENDING_MAX;
        let peer = self.peers.entry(name.clone()).or_insert_with(Peer::unknown);
        if dialled {
            peer.dial = Dial::Idle;
        }
        let refused = if self.closed {
            Some("shutting down")
        } else if name == self.me.node.name {
            Some("a node does not link to its own name")
        } else if self.revoked.contains(&name) {
            tracing::warn!(peer = %name, dialled, "a revoked peer is refused");
            Some("its name is revoked")
        } else if dialled && peer.address.is_none() {
            Some("no longer wanted")
        } else if dialled && peer.link.is_some() {
            // The peer dialled in meanwhile. Hanging up now, before any hello, spares both sides
            // a change of links; the peer cannot have chosen this connection yet.
            Some("linked already")
        } else if crowded {
            Some("too many connections without a hello")
        } else {
            None
        };
        let phase = if let Some(reason) = refused {
            out.push(Effect::HangUp { connection, reason: reason.into() });
            Phase::HungUp
        } else {
            let bytes = control_frame(FrameKind::Hello, &self.me.to_body());
            peer.counters.bytes_out.fetch_add(bytes.len() as u64, Relaxed);
            out.push(Effect::Write { connection, bytes });
            Phase::ExpectHello {
                until: now + HANDSHAKE_TIME_MAX,
                early: Vec::new(),
                early_bytes: 0,
            }
        };
        let lanes = Lane::ALL.map(|lane| match lane {
            Lane::Control => Deframer::with_limit(lane, HELLO_BYTES_MAX),
            Lane::Consensus | Lane::User | Lane::Bulk => Deframer::new(lane),
        });
        let counters = peer.counters.clone();
        let state = Connection { peer: name, dialled, phase, lanes, counters };
        self.connections.insert(connection, state);
    }

    /// Plans the next dial of a wanted peer that nothing leads to (3.).
    fn redial(&mut self, now: Instant, name: &NodeName) {
        if !self.missing(name) {
            return;
        }
        let jitter = self.rng.random_range(0.5..1.0);
        let peer = self.peer(name);
        let back_off = BACK_OFF_MIN.saturating_mul(1 << peer.failures.min(16)).min(BACK_OFF_MAX);
        peer.failures = peer.failures.saturating_add(1);
        peer.dial = Dial::At(now + back_off.mul_f64(jitter));
    }

    fn missing(&self, name: &NodeName) -> bool {
        let Some(peer) = self.peers.get(name) else {
            return false;
        };
        peer.address.is_some()
            && !self.revoked.contains(name)
            && peer.link.is_none()
            && matches!(peer.dial, Dial::Idle)
            && !self.connections.values().any(|c| &c.peer == name && c.is_pending())
    }

    fn peer(&mut self, name: &NodeName) -> &mut Peer {
        self.peers.get_mut(name).expect("the caller saw it")
    }

    /// Forgets a peer that is neither wanted nor connected, so that strangers leave no trace.
    fn tidy(&mut self, name: &NodeName) {
        let idle = self.peers.get(name).is_some_and(|p| p.address.is_none() && p.link.is_none());
        if idle && !self.connections.values().any(|c| &c.peer == name) {
            self.peers.remove(name);
        }
    }
}
