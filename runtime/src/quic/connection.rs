//! One connection: a writer per lane, a reader per stream of the peer, datagrams.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, Ordering::Relaxed},
};

use bytes::Bytes;
use quinn::{ConnectionError, RecvStream, SendStream, VarInt};
use tokio::task::JoinSet;

use super::{arbiter::Home, lane::Outbox, transport::IDLE_TIME_MAX};
use crate::world::network::{ConnectionId, Lane, NetworkEvent, NetworkSink};

/// Chunks taken per read: one lock of the connection for all of them.
const CHUNKS_MAX: usize = 16;
/// A reader lets others run after this many bytes: a snapshot must not hold up a heartbeat.
const TURN_BYTES_MAX: usize = 256 * 1024;

pub(super) struct Connection {
    pub(super) quinn: quinn::Connection,
    /// By lane.
    pub(super) lanes: [Outbox<SendStream>; 4],
    /// Lanes that a stream of the peer has claimed.
    read_already: [AtomicBool; 4],
    /// Why this side ended it, if it did.
    ended: Mutex<Option<String>>,
}

impl Connection {
    pub(super) fn new(quinn: quinn::Connection) -> Self {
        Self {
            quinn,
            lanes: Default::default(),
            read_already: Default::default(),
            ended: Mutex::default(),
        }
    }

    /// Ends the connection, if it has not ended: the first reason counts.
    pub(super) fn end(&self, reason: &str) {
        if self.quinn.close_reason().is_none() {
            *self.ended.lock().expect("only assigned to") = Some(reason.to_owned());
            self.quinn.close(VarInt::from_u32(1), reason.as_bytes());
        }
    }

    /// Does the connection's work until it ends; answers why it did. Run by `home`.
    pub(super) async fn run(
        self: &Arc<Self>,
        id: ConnectionId,
        sink: &Arc<dyn NetworkSink>,
        home: &Home,
    ) -> String {
        // Dropped at the end, and with it every reader: nothing is heard of a connection that is
        // down.
        let mut tasks = JoinSet::new();
        for lane in Lane::ALL {
            home.join(&mut tasks, self.clone().write(lane));
        }
        let error = loop {
            tokio::select! {
                biased;
                stream = self.quinn.accept_uni() => match stream {
                    Ok(stream) => {
                        home.join(&mut tasks, self.clone().read(id, stream, sink.clone()));
                    }
                    Err(error) => break error,
                },
                datagram = self.quinn.read_datagram() => match datagram {
                    Ok(bytes) => sink.event(NetworkEvent::Datagram { connection: id, bytes }),
                    Err(error) => break error,
                },
            }
        };
        for lane in &self.lanes {
            lane.close();
        }
        let ended = self.ended.lock().expect("only assigned to").take();
        ended.unwrap_or_else(|| explain(&error))
    }

    async fn write(self: Arc<Self>, lane: Lane) {
        let outbox = &self.lanes[lane as usize];
        let mut pipe = None;
        let mut bytes = outbox.next(&mut pipe).await;
        // Errors here mean that the connection is gone, which `run` learns by itself.
        let Ok(mut stream) = self.quinn.open_uni().await else {
            return;
        };
        let _ = stream.set_priority(priority(lane));
        if stream.write_all(&[lane as u8]).await.is_err() {
            return;
        }
        loop {
            let len = bytes.len();
            if stream.write_chunk(bytes).await.is_err() {
                // The peer does not want this stream: then the connection is of no use.
                self.end("a lane was stopped");
                return;
            }
            outbox.written(len);
            pipe = Some(stream);
            bytes = outbox.next(&mut pipe).await;
            stream = pipe.take().expect("the outbox gives it back with the bytes");
        }
    }

    async fn read(
        self: Arc<Self>,
        connection: ConnectionId,
        mut stream: RecvStream,
        sink: Arc<dyn NetworkSink>,
    ) {
        let Some(lane) = lane_of(&mut stream).await else {
            return self.end("a stream for no lane");
        };
        if self.read_already[lane as usize].swap(true, Relaxed) {
            return self.end("a second stream for one lane");
        }
        let mut chunks: [Bytes; CHUNKS_MAX] = Default::default();
        let mut turn_bytes = 0;
        while let Ok(Some(count)) = stream.read_chunks(&mut chunks).await {
            for chunk in &mut chunks[..count] {
                let bytes = std::mem::take(chunk);
                turn_bytes += bytes.len();
                sink.event(NetworkEvent::Chunk { connection, lane, bytes });
            }
            if turn_bytes >= TURN_BYTES_MAX {
                turn_bytes = 0;
                tokio::task::yield_now().await;
            }
        }
        self.end("a lane was ended");
    }
}

/// The lane that a peer's stream names in its first byte.
async fn lane_of(stream: &mut RecvStream) -> Option<Lane> {
    let mut number = [0];
    stream.read_exact(&mut number).await.ok()?;
    Lane::ALL.get(usize::from(number[0])).copied()
}

/// Which lane goes first when not everything fits.
fn priority(lane: Lane) -> i32 {
    match lane {
        Lane::Control => 2,
        Lane::Consensus => 1,
        Lane::User => 0,
        Lane::Bulk => -1,
    }
}

/// Why a connection ended, for people.
pub(super) fn explain(error: &ConnectionError) -> String {
    match error {
        ConnectionError::ApplicationClosed(close) => {
            format!("the peer hung up: {}", String::from_utf8_lossy(&close.reason))
        }
        ConnectionError::ConnectionClosed(close) => format!("the peer refused: {close}"),
        ConnectionError::Reset => "the peer was started anew".into(),
        ConnectionError::TimedOut => {
            format!("no sign of life for {} s", IDLE_TIME_MAX.as_secs())
        }
        ConnectionError::LocallyClosed => "shutting down".into(),
        ConnectionError::TransportError(_)
        | ConnectionError::VersionMismatch
        | ConnectionError::CidsExhausted => error.to_string(),
    }
}
