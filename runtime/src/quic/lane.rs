//! What waits to be written to one lane.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard},
};

use bytes::{Bytes, BytesMut};
use tokio::sync::Notify;

use crate::world::network::WriteRefused;

/// Bytes that may wait per lane: two of the largest frames. Whoever gets `Full` must slow down or
/// drop, since the peer does not read.
pub(super) const LANE_BYTES_MAX: usize = 32 * 1024 * 1024;
/// One write to quinn. It scans its unsent segments, so few and large ones are cheap; larger ones
/// would be held in memory until the last byte is acknowledged.
const WRITE_BYTES_MAX: usize = 64 * 1024;
/// Smaller writes are copied together, larger ones kept as they are: the copy would cost more
/// than a segment of their own.
const COPY_BYTES_MAX: usize = 8 * 1024;

/// A bounded queue from any thread to the lane's writer.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    waiting: Mutex<Waiting>,
    filled: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    closed: bool,
    /// The writer found nothing and wants to be told.
    awaited: bool,
    /// Counts what the writer took and quinn has not taken yet, too.
    bytes: usize,
    parts: VecDeque<Bytes>,
    /// Small writes since the last part.
    tail: BytesMut,
}

impl Outbox {
    /// Queues whole frames.
    ///
    /// # Errors
    /// [`WriteRefused::Full`] or [`WriteRefused::Gone`]; nothing was queued.
    pub(super) fn push(&self, bytes: Bytes) -> Result<(), WriteRefused> {
        self.fill(bytes.len(), |waiting| {
            if bytes.len() > COPY_BYTES_MAX {
                waiting.end_tail();
                waiting.parts.push_back(bytes);
            } else {
                waiting.copy(&[&bytes]);
            }
        })
    }

    /// Queues one frame that is still in two parts.
    ///
    /// # Errors
    /// As [`Outbox::push`].
    pub(super) fn push_parts(&self, header: &[u8], body: &[u8]) -> Result<(), WriteRefused> {
        if header.len() + body.len() > COPY_BYTES_MAX {
            return self.push([header, body].concat().into());
        }
        self.fill(header.len() + body.len(), |waiting| waiting.copy(&[header, body]))
    }

    fn fill(&self, len: usize, with: impl FnOnce(&mut Waiting)) -> Result<(), WriteRefused> {
        let mut waiting = self.lock();
        if waiting.closed {
            return Err(WriteRefused::Gone);
        }
        if waiting.bytes + len > LANE_BYTES_MAX {
            return Err(WriteRefused::Full);
        }
        waiting.bytes += len;
        with(&mut waiting);
        let awaited = std::mem::take(&mut waiting.awaited);
        drop(waiting);
        if awaited {
            self.filled.notify_one();
        }
        Ok(())
    }

    /// The next bytes to write, at most [`WRITE_BYTES_MAX`]; waits until there are some. Everything
    /// queued by the time the writer comes to run is one write, up to that size.
    pub(super) async fn next(&self) -> Bytes {
        loop {
            {
                let mut waiting = self.lock();
                if let Some(bytes) = waiting.take() {
                    return bytes;
                }
                waiting.awaited = true;
            }
            self.filled.notified().await;
        }
    }

    /// `len` bytes given out by [`Outbox::next`] are on their way.
    pub(super) fn written(&self, len: usize) {
        let mut waiting = self.lock();
        // Zero after a close in between.
        waiting.bytes = waiting.bytes.saturating_sub(len);
    }

    /// Drops what waits and refuses everything from now on.
    pub(super) fn close(&self) {
        *self.lock() = Waiting { closed: true, ..Waiting::default() };
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().expect("nothing panics while it holds the queue")
    }
}

impl Waiting {
    /// Puts a small frame behind the others.
    fn copy(&mut self, parts: &[&[u8]]) {
        let len: usize = parts.iter().map(|part| part.len()).sum();
        if self.tail.len() + len > WRITE_BYTES_MAX {
            self.end_tail();
        }
        self.tail.reserve(len);
        for part in parts {
            self.tail.extend_from_slice(part);
        }
    }

    fn take(&mut self) -> Option<Bytes> {
        let Some(front) = self.parts.front_mut() else {
            return (!self.tail.is_empty()).then(|| self.tail.split().freeze());
        };
        if front.len() > WRITE_BYTES_MAX {
            return Some(front.split_to(WRITE_BYTES_MAX));
        }
        self.parts.pop_front()
    }

    fn end_tail(&mut self) {
        if !self.tail.is_empty() {
            self.parts.push_back(self.tail.split().freeze());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn writes_made_in_one_turn_leave_together_and_in_order() {
        let outbox = Outbox::default();
        for byte in 0..200_u8 {
            outbox.push(Bytes::from(vec![byte; 100])).unwrap();
        }
        let first = outbox.next().await;
        assert_eq!(first.len(), 20_000);
        assert!(first.chunks(100).zip(0..).all(|(chunk, byte)| chunk == [byte; 100]));
    }

    #[tokio::test]
    async fn large_and_small_writes_keep_their_order_and_no_write_is_larger_than_64_kib() {
        let outbox = Outbox::default();
        let mut wanted = Vec::new();
        for (byte, len) in [(1, 10), (2, 200_000), (3, 8_000), (4, 63_000), (5, 10), (6, 70_000)] {
            let part = vec![byte; len];
            wanted.extend_from_slice(&part);
            outbox.push(part.into()).unwrap();
        }
        let mut got = Vec::new();
        while got.len() < wanted.len() {
            let bytes = outbox.next().await;
            assert!(bytes.len() <= WRITE_BYTES_MAX);
            got.extend_from_slice(&bytes);
        }
        assert_eq!(got, wanted);
    }

    #[tokio::test]
    async fn a_full_queue_refuses_until_bytes_are_written() {
        let outbox = Outbox::default();
        let chunk = Bytes::from(vec![0; 1024 * 1024]);
        for _ in 0..32 {
            outbox.push(chunk.clone()).unwrap();
        }
        assert_eq!(outbox.push(Bytes::from_static(b"x")), Err(WriteRefused::Full));
        let taken = outbox.next().await;
        assert_eq!(outbox.push(Bytes::from_static(b"x")), Err(WriteRefused::Full));
        outbox.written(taken.len());
        outbox.push(Bytes::from_static(b"x")).unwrap();
        outbox.close();
        assert_eq!(outbox.push(Bytes::from_static(b"x")), Err(WriteRefused::Gone));
    }
}
