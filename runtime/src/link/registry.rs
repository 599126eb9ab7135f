//! Which connection is the link to which peer: a machine without I/O. Events and times go in,
//! [`Effect`]s come out, to be carried out in order.
//!
//! A connection's life: the network says it is up (the certificate is checked by then), both
//! sides send a hello on the control lane, and with a good hello it is the link. A refused one
//! gets a goodbye that says why, and a moment to carry it.
//!
//! 1. A peer has at most one link, and everything sent and delivered goes through it.
//! 2. [`Effect::Up`] and [`Effect::Down`] alternate for a peer; frames come only between them.
//! 3. A wanted peer is linked, or a connection to it awaits its hello or its end, or a dial is
//!    planned or in flight.
//! 4. Of two connections between the same two processes both sides keep the same one.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use rand::RngExt;
use tokio::time::Instant;

use super::{PeerInfo, PeerStatus};
use crate::{
    identity::{NodeId, NodeName},
    wire::{
        Deframer, FRAME_BYTES_MAX, Frame, FrameHeader, FrameKind, HELLO_BYTES_MAX, Hello,
        decode_datagram, encode,
    },
    world::{
        Rng,
        network::{ConnectionId, Lane, NetworkEvent},
    },
};

/// A handshake is two small frames: this many milliseconds are for lost packets and busy peers.
pub(super) const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(2);
/// First pause before dialling again: long enough not to spin, short beside any election.
const BACK_OFF_MIN: Duration = Duration::from_millis(20);
/// Longest pause before dialling again: a restarted peer is reached within it.
const BACK_OFF_MAX: Duration = Duration::from_secs(1);
/// A link that lived this long was a good one: the next pause is the shortest again.
const LINK_TIME_GOOD: Duration = Duration::from_secs(1);
/// How long a refused connection stays, so that the goodbye reaches the peer.
const GOODBYE_TIME: Duration = Duration::from_millis(200);
/// Other lanes may overtake the hello; what they carry until then is bounded by this.
const EARLY_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Connections of one peer without a hello yet: one dialled by each side and their successors.
const PENDING_MAX: usize = 4;

/// What is to be done now.
#[derive(Debug)]
pub(super) enum Effect {
    Dial { peer: NodeName, address: String },
    Write { connection: ConnectionId, bytes: Bytes },
    HangUp { connection: ConnectionId, reason: String },
    Up(PeerInfo),
    Down { id: NodeId, reason: String },
    Frames { from: NodeId, batch: Vec<Frame> },
    Datagram { from: NodeId, frame: Frame },
}

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
enum Dial {
    Idle,
    At(Instant),
    InFlight,
}

#[derive(Debug)]
struct Link {
    connection: ConnectionId,
    id: NodeId,
    start_nonce: u64,
    dialled: bool,
    since: Instant,
}

#[derive(Debug)]
struct Peer {
    /// Wanted when there is one.
    address: Option<String>,
    dial: Dial,
    failures: u32,
    link: Option<Link>,
    last_error: Option<String>,
    counters: Arc<Counters>,
}

#[derive(Debug)]
enum Phase {
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
struct Connection {
    peer: NodeName,
    dialled: bool,
    phase: Phase,
    lanes: [Deframer; 4],
    counters: Arc<Counters>,
}

#[derive(Debug)]
pub(super) struct Registry {
    me: Hello,
    rng: Rng,
    peers: BTreeMap<NodeName, Peer>,
    connections: BTreeMap<ConnectionId, Connection>,
    closed: bool,
}

impl Registry {
    pub(super) fn new(me: Hello, rng: Rng) -> Self {
        let (peers, connections) = (BTreeMap::new(), BTreeMap::new());
        Self { me, rng, peers, connections, closed: false }
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

    /// From now on dials nobody and takes no new connections.
    pub(super) fn close(&mut self) {
        self.closed = true;
        for peer in self.peers.values_mut() {
            peer.address = None;
            peer.dial = Dial::Idle;
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
    pub(super) fn route(&self, name: &NodeName) -> Option<(ConnectionId, &Arc<Counters>)> {
        let peer = self.peers.get(name)?;
        Some((peer.link.as_ref()?.connection, &peer.counters))
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

    fn chunk(
        &mut self,
        now: Instant,
        connection: ConnectionId,
        lane: Lane,
        bytes: Bytes,
        out: &mut Vec<Effect>,
    ) {
        let Some(state) = self.connections.get_mut(&connection) else {
            return;
        };
        state.counters.bytes_in.fetch_add(bytes.len() as u64, Relaxed);
        match &mut state.phase {
            Phase::Leaving { .. } | Phase::HungUp => {}
            Phase::Open(_) => {
                state.lanes[lane as usize].push(bytes);
                self.cut(now, connection, lane, out);
            }
            Phase::ExpectHello { early, early_bytes, .. } if lane != Lane::Control => {
                *early_bytes += bytes.len();
                if *early_bytes > EARLY_BYTES_MAX {
                    let reason = format!("more than {EARLY_BYTES_MAX} bytes before the hello");
                    self.refuse(now, connection, reason, out);
                } else {
                    early.push((lane, bytes));
                }
            }
            Phase::ExpectHello { .. } => {
                state.lanes[lane as usize].push(bytes);
                match state.lanes[lane as usize].next() {
                    Ok(None) => {}
                    Ok(Some(first)) => self.first(now, connection, &first, out),
                    Err(error) => {
                        state.counters.frames_bad.fetch_add(1, Relaxed);
                        self.refuse(now, connection, error.to_string(), out);
                    }
                }
            }
        }
    }

    /// The first frame of the control lane.
    fn first(
        &mut self,
        now: Instant,
        connection: ConnectionId,
        frame: &Frame,
        out: &mut Vec<Effect>,
    ) {
        let state = self.connections.get_mut(&connection).expect("the caller has it");
        state.counters.frames_in.fetch_add(1, Relaxed);
        let refusal = match frame.header.kind {
            FrameKind::Hello => match Hello::check(&frame.body, &self.me, &state.peer) {
                Ok(hello) => return self.open(now, connection, hello, out),
                Err(error) => error.to_string(),
            },
            FrameKind::Goodbye => return self.farewell(now, connection, frame, out),
            other @ (FrameKind::Tell
            | FrameKind::Ask
            | FrameKind::Reply
            | FrameKind::Failure
            | FrameKind::Cancel
            | FrameKind::Directory
            | FrameKind::Heartbeat) => format!("{other:?} before the hello"),
        };
        state.counters.frames_bad.fetch_add(1, Relaxed);
        self.refuse(now, connection, refusal, out);
    }

    /// A good hello came: this connection becomes the link, unless there is a better one.
    fn open(
        &mut self,
        now: Instant,
        connection: ConnectionId,
        hello: Hello,
        out: &mut Vec<Effect>,
    ) {
        let dialled = self.connections.get(&connection).is_some_and(|state| state.dialled);
        let name = hello.node.name.clone();
        if let Some(old) = self.peers.get(&name).and_then(|peer| peer.link.as_ref()) {
            let old_connection = old.connection;
            if !self.supersedes(old, &hello, dialled) {
                self.hang_up(connection, "linked already", out);
                return;
            }
            let reason = if old.id == hello.node && old.start_nonce == hello.start_nonce {
                "both sides dialled, the other connection stays"
            } else {
                "the peer was started anew"
            };
            self.lost(now, old_connection, reason, out);
            self.hang_up(old_connection, reason, out);
        }
        let peer = self.peers.get_mut(&name).expect("made when the connection came up");
        peer.last_error = None;
        peer.dial = match peer.dial {
            Dial::InFlight => Dial::InFlight,
            Dial::At(_) | Dial::Idle => Dial::Idle,
        };
        let (id, start_nonce) = (hello.node, hello.start_nonce);
        peer.link = Some(Link { connection, id: id.clone(), start_nonce, dialled, since: now });
        let address = peer.address.clone();
        out.push(Effect::Up(PeerInfo { id: id.clone(), role: hello.role, address, start_nonce }));

        let state = self.connections.get_mut(&connection).expect("looked at above");
        state.lanes[Lane::Control as usize].set_limit(FRAME_BYTES_MAX);
        let Phase::ExpectHello { early, .. } = std::mem::replace(&mut state.phase, Phase::Open(id))
        else {
            unreachable!("only a first frame opens a connection");
        };
        self.cut(now, connection, Lane::Control, out);
        for (lane, bytes) in early {
            self.chunk_again(now, connection, lane, bytes, out);
        }
    }

    /// A chunk that was counted already.
    fn chunk_again(
        &mut self,
        now: Instant,
        connection: ConnectionId,
        lane: Lane,
        bytes: Bytes,
        out: &mut Vec<Effect>,
    ) {
        if let Some(state) = self.connections.get_mut(&connection)
            && matches!(state.phase, Phase::Open(_))
        {
            state.lanes[lane as usize].push(bytes);
            self.cut(now, connection, lane, out);
        }
    }

    /// Whether a new connection replaces the link `old`. Both sides decide alike (4.).
    fn supersedes(&self, old: &Link, hello: &Hello, dialled: bool) -> bool {
        if old.id != hello.node || old.start_nonce != hello.start_nonce {
            // Another process: the old one is dead, whether we have noticed or not.
            return true;
        }
        if old.dialled == dialled {
            // The same side dialled twice, so it gave up the first one.
            return true;
        }
        let mine_is_lower = self.me.node < hello.node;
        dialled == mine_is_lower
    }

    /// Takes the frames out of a lane of an open connection.
    fn cut(&mut self, now: Instant, connection: ConnectionId, lane: Lane, out: &mut Vec<Effect>) {
        let state = self.connections.get_mut(&connection).expect("the caller has it");
        let Phase::Open(from) = &state.phase else {
            return;
        };
        let mut batch = Vec::new();
        let end = loop {
            match state.lanes[lane as usize].next() {
                Ok(None) => break None,
                Ok(Some(frame)) => match frame.header.kind {
                    FrameKind::Hello | FrameKind::Goodbye => break Some(Ok(frame)),
                    FrameKind::Tell
                    | FrameKind::Ask
                    | FrameKind::Reply
                    | FrameKind::Failure
                    | FrameKind::Cancel
                    | FrameKind::Directory
                    | FrameKind::Heartbeat => batch.push(frame),
                },
                Err(error) => break Some(Err(error.to_string())),
            }
        };
        state.counters.frames_in.fetch_add(batch.len() as u64, Relaxed);
        if !batch.is_empty() {
            out.push(Effect::Frames { from: from.clone(), batch });
        }
        let reason = match end {
            None => return,
            Some(Ok(frame)) if frame.header.kind == FrameKind::Goodbye => {
                return self.farewell(now, connection, &frame, out);
            }
            Some(Ok(_)) => "a second hello".to_owned(),
            Some(Err(reason)) => reason,
        };
        state.counters.frames_bad.fetch_add(1, Relaxed);
        self.refuse(now, connection, format!("bad frame: {reason}"), out);
    }

    fn datagram(&mut self, connection: ConnectionId, bytes: Bytes, out: &mut Vec<Effect>) {
        let Some(state) = self.connections.get(&connection) else {
            return;
        };
        state.counters.bytes_in.fetch_add(bytes.len() as u64, Relaxed);
        // A datagram may overtake the hello, and may be lost: then it is.
        let Phase::Open(from) = &state.phase else {
            return;
        };
        match decode_datagram(bytes) {
            Ok(frame) => {
                state.counters.frames_in.fetch_add(1, Relaxed);
                out.push(Effect::Datagram { from: from.clone(), frame });
            }
            // It stands alone, so the lanes are still good.
            Err(_) => drop(state.counters.frames_bad.fetch_add(1, Relaxed)),
        }
    }

    /// The peer said goodbye.
    fn farewell(
        &mut self,
        now: Instant,
        connection: ConnectionId,
        frame: &Frame,
        out: &mut Vec<Effect>,
    ) {
        let reason = format!("the peer hung up: {}", String::from_utf8_lossy(&frame.body));
        self.lost(now, connection, &reason, out);
        self.hang_up(connection, &reason, out);
    }

    /// Ends a connection with a goodbye.
    fn refuse(
        &mut self,
        now: Instant,
        connection: ConnectionId,
        reason: String,
        out: &mut Vec<Effect>,
    ) {
        self.lost(now, connection, &reason, out);
        let Some(state) = self.connections.get_mut(&connection) else {
            return;
        };
        let bytes = control_frame(FrameKind::Goodbye, reason.as_bytes());
        out.push(Effect::Write { connection, bytes });
        state.phase = Phase::Leaving { until: now + GOODBYE_TIME, reason };
    }

    fn hang_up(&mut self, connection: ConnectionId, reason: &str, out: &mut Vec<Effect>) {
        if let Some(state) = self.connections.get_mut(&connection) {
            state.phase = Phase::HungUp;
            out.push(Effect::HangUp { connection, reason: reason.to_owned() });
        }
    }

    /// Nothing more will come of this connection: if it was the link, that is down.
    fn lost(
        &mut self,
        now: Instant,
        connection: ConnectionId,
        reason: &str,
        out: &mut Vec<Effect>,
    ) {
        let Some(state) = self.connections.get(&connection) else {
            return;
        };
        // After hanging up ourselves the reason is known already.
        let news = matches!(state.phase, Phase::Open(_) | Phase::ExpectHello { .. });
        let Some(peer) = self.peers.get_mut(&state.peer) else {
            return;
        };
        let was_link = peer.link.as_ref().is_some_and(|link| link.connection == connection);
        if news && (was_link || peer.link.is_none()) {
            peer.last_error = Some(reason.to_owned());
        }
        if was_link && let Some(link) = peer.link.take() {
            if now.duration_since(link.since) >= LINK_TIME_GOOD {
                peer.failures = 0;
            }
            out.push(Effect::Down { id: link.id, reason: reason.to_owned() });
        }
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

impl Peer {
    fn unknown() -> Self {
        let counters = Arc::default();
        Self {
            address: None,
            dial: Dial::Idle,
            failures: 0,
            link: None,
            last_error: None,
            counters,
        }
    }
}

impl Connection {
    fn is_pending(&self) -> bool {
        matches!(self.phase, Phase::ExpectHello { .. })
    }
}

fn control_frame(kind: FrameKind, body: &[u8]) -> Bytes {
    let mut bytes = BytesMut::new();
    encode(&FrameHeader::new(kind), Lane::Control, body, &mut bytes);
    bytes.freeze()
}
