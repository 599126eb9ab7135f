//! What arrives on connections: hellos that make one the link, frames in batches, goodbyes.

use std::{sync::atomic::Ordering::Relaxed, time::Duration};

use bytes::{Bytes, BytesMut};
use tokio::time::Instant;

use super::{
    PeerInfo,
    peer::{Dial, Link, Phase},
    registry::{Effect, Registry},
};
use crate::{
    wire::{FRAME_BYTES_MAX, Frame, FrameHeader, FrameKind, Hello, decode_datagram, encode},
    world::network::{ConnectionId, Lane},
};

/// A link that lived this long was a good one: the next pause is the shortest again.
const LINK_TIME_GOOD: Duration = Duration::from_secs(1);
/// How long a refused connection stays, so that the goodbye reaches the peer.
const GOODBYE_TIME: Duration = Duration::from_millis(200);
/// Other lanes may overtake the hello; what they carry until then is bounded by this.
const EARLY_BYTES_MAX: usize = 4 * 1024 * 1024;

impl Registry {
    pub(super) fn chunk(
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
            | FrameKind::Heartbeat
            | FrameKind::Credit
            | FrameKind::Probe) => format!("{other:?} before the hello"),
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
        if matches!(peer.dial, Dial::At(_)) {
            peer.dial = Dial::Idle;
        }
        let (id, start_nonce) = (hello.node, hello.start_nonce);
        peer.link = Some(Link { connection, id: id.clone(), start_nonce, dialled, since: now });
        let address = peer.address.clone();
        let (role, messages) = (hello.role, hello.messages.into());
        out.push(Effect::Up(PeerInfo { id: id.clone(), role, address, start_nonce, messages }));

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
                    | FrameKind::Heartbeat
                    | FrameKind::Credit
                    | FrameKind::Probe => batch.push(frame),
                },
                Err(error) => break Some(Err(error.to_string())),
            }
        };
        state.counters.frames_in.fetch_add(batch.len() as u64, Relaxed);
        if !batch.is_empty() {
            out.push(Effect::Frames { from: from.clone(), lane, batch });
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

    pub(super) fn datagram(
        &mut self,
        connection: ConnectionId,
        bytes: Bytes,
        out: &mut Vec<Effect>,
    ) {
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
        if frame.header.message == LEAVING
            && let Some(Phase::Open(id)) = self.connections.get(&connection).map(|c| &c.phase)
        {
            out.push(Effect::Leaving(id.clone()));
        }
        self.lost(now, connection, &reason, out);
        self.hang_up(connection, &reason, out);
    }

    /// Ends a connection with a goodbye.
    pub(super) fn refuse(
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
        // A peer that is refused dials again and again: once is news.
        let peer = self.peers.get_mut(&state.peer);
        let told = peer.and_then(|peer| peer.refused.replace(reason.clone()));
        if told.as_deref() == Some(reason.as_str()) {
            tracing::debug!(peer = %state.peer, reason, "connection refused again");
        } else {
            tracing::warn!(peer = %state.peer, reason, "connection refused");
        }
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
    pub(super) fn lost(
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
}

pub(super) fn control_frame(kind: FrameKind, body: &[u8]) -> Bytes {
    control_frame_with(&FrameHeader::new(kind), body)
}

pub(super) fn control_frame_with(header: &FrameHeader, body: &[u8]) -> Bytes {
    let mut bytes = BytesMut::new();
    encode(header, Lane::Control, body, &mut bytes);
    bytes.freeze()
}

/// In the message field of a goodbye: the whole node leaves in good order.
pub(super) const LEAVING: u64 = 1;
