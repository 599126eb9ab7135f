//! What waits to be written to one lane.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use quinn::SendStream;
use tokio::sync::Notify;

use crate::world::{Clock as _, Instant, RealClock, network::WriteRefused};

/// Bytes that may wait per lane: two of the largest frames. Whoever gets `Full` must slow down or
/// drop, since the peer does not read.
pub(super) const LANE_BYTES_MAX: usize = 32 * 1024 * 1024;
/// One write to quinn. It scans its unsent segments, so few and large ones are cheap; larger ones
/// would be held in memory until the last byte is acknowledged.
const WRITE_BYTES_MAX: usize = 64 * 1024;
/// Smaller writes are copied together, larger ones kept as they are: the copy would cost more
/// than a segment of their own.
const COPY_BYTES_MAX: usize = 8 * 1024;

/// Frames closer to one another than this came together: one that answers another, or waits for an
/// answer, is a round trip behind it, and no round trip is as short.
const TOGETHER: Duration = Duration::from_micros(10);

/// Where a lane's bytes go.
pub(super) trait Pipe {
    /// Takes as much of the front of `bytes` as it can without waiting. Takes nothing when it is
    /// broken: the writer will find out.
    fn write_now(&mut self, bytes: &mut Bytes);

    /// The time.
    fn now(&self) -> Instant;
}

impl Pipe for SendStream {
    fn write_now(&mut self, bytes: &mut Bytes) {
        let mut one = [std::mem::take(bytes)];
        // What was not taken is still there, whatever it answered.
        let _ = self.write_chunks(&mut one).now_or_never();
        [*bytes] = one;
    }

    fn now(&self) -> Instant {
        RealClock.now()
    }
}

/// A bounded queue from any thread to the lane's writer.
///
/// While the writer has nothing to do, its pipe rests here. A message that comes alone is put into
/// it by whoever brings it, and costs the writer no turn; where messages came together last time
/// they wait, and leave together.
#[derive(Debug)]
pub(super) struct Outbox<P> {
    waiting: Mutex<Waiting<P>>,
    filled: Notify,
}

#[derive(Debug)]
struct Waiting<P> {
    closed: bool,
    /// The writer found nothing and wants to be told.
    awaited: bool,
    /// Left here by the writer before it waited.
    pipe: Option<P>,
    /// Frames left to the writer since its last turn.
    pushes: u32,
    /// The last frame came alone: the next will, too, mostly.
    lone: bool,
    /// When one was put into the pipe without the writer.
    written: Option<Instant>,
    /// Counts what the writer took and quinn has not taken yet, too.
    bytes: usize,
    parts: VecDeque<Bytes>,
    /// Small writes since the last part.
    tail: BytesMut,
}

impl<P> Default for Outbox<P> {
    fn default() -> Self {
        Self { waiting: Mutex::default(), filled: Notify::new() }
    }
}

impl<P> Default for Waiting<P> {
    fn default() -> Self {
        Self {
            closed: false,
            awaited: false,
            pipe: None,
            pushes: 0,
            lone: true,
            written: None,
            bytes: 0,
            parts: VecDeque::new(),
            tail: BytesMut::new(),
        }
    }
}

impl<P: Pipe> Outbox<P> {
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

    fn fill(&self, len: usize, with: impl FnOnce(&mut Waiting<P>)) -> Result<(), WriteRefused> {
        let mut waiting = self.lock();
        if waiting.closed {
            return Err(WriteRefused::Gone);
        }
        if waiting.bytes + len > LANE_BYTES_MAX {
            return Err(WriteRefused::Full);
        }
        waiting.bytes += len;
        with(&mut waiting);
        if waiting.awaited && waiting.comes_alone() && waiting.write_now() {
            return Ok(());
        }
        waiting.pushes += 1;
        let awaited = std::mem::take(&mut waiting.awaited);
        drop(waiting);
        if awaited {
            self.filled.notify_one();
        }
        Ok(())
    }

    /// The next bytes to write, at most [`WRITE_BYTES_MAX`]; waits until there are some. Everything
    /// queued by the time the writer comes to run is one write, up to that size.
    ///
    /// `pipe` is in the outbox while this waits; it is gone for good when the outbox is closed, and
    /// then this waits for ever.
    pub(super) async fn next(&self, pipe: &mut Option<P>) -> Bytes {
        loop {
            {
                let mut waiting = self.lock();
                if !waiting.closed {
                    if waiting.pushes > 0 {
                        waiting.lone = waiting.pushes == 1;
                        waiting.pushes = 0;
                    }
                    *pipe = pipe.take().or_else(|| waiting.pipe.take());
                    if let Some(bytes) = waiting.take() {
                        return bytes;
                    }
                    waiting.pipe = pipe.take();
                    waiting.awaited = true;
                }
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

    fn lock(&self) -> MutexGuard<'_, Waiting<P>> {
        self.waiting.lock().expect("nothing panics while it holds the queue")
    }
}

impl<P: Pipe> Waiting<P> {
    /// Whether the frame that was just queued is none of several that come together.
    fn comes_alone(&mut self) -> bool {
        let Some(now) = self.pipe.as_ref().filter(|_| self.lone).map(P::now) else {
            return false;
        };
        let before = self.written.replace(now);
        self.lone = before.is_none_or(|before| now.since(before) >= TOGETHER);
        self.lone
    }

    /// Puts what there is into the resting pipe, as far as that takes it at once; whether that is
    /// all of it.
    fn write_now(&mut self) -> bool {
        let Some(mut pipe) = self.pipe.take() else {
            return false;
        };
        while let Some(mut bytes) = self.take() {
            let len = bytes.len();
            pipe.write_now(&mut bytes);
            self.bytes -= len - bytes.len();
            if !bytes.is_empty() {
                self.parts.push_front(bytes);
                break;
            }
        }
        self.pipe = Some(pipe);
        self.parts.is_empty() && self.tail.is_empty()
    }

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

    /// Takes so many bytes at once, and keeps them.
    #[derive(Debug)]
    struct Taker {
        room: usize,
        taken: BytesMut,
        now: Instant,
    }

    impl Taker {
        fn new(room: usize) -> Self {
            Self { room, taken: BytesMut::new(), now: Instant::default() }
        }
    }

    impl Pipe for Taker {
        fn write_now(&mut self, bytes: &mut Bytes) {
            let taken = bytes.split_to(self.room.min(bytes.len()));
            self.room -= taken.len();
            self.taken.extend_from_slice(&taken);
        }

        fn now(&self) -> Instant {
            self.now
        }
    }

    fn pass(outbox: &Outbox<Taker>, time: Duration) {
        let mut waiting = outbox.lock();
        let pipe = waiting.pipe.as_mut().expect("it rests");
        pipe.now = pipe.now + time;
    }

    /// Lets the writer find nothing, so that it leaves its pipe and waits.
    fn rest(outbox: &Outbox<Taker>, pipe: &mut Option<Taker>) {
        assert!(outbox.next(pipe).now_or_never().is_none(), "there was something to write");
        assert!(pipe.is_none(), "the pipe rests in the outbox");
    }

    #[tokio::test]
    async fn a_lone_frame_leaves_at_once_and_those_that_come_together_leave_together() {
        let outbox = Outbox::default();
        let mut pipe = Some(Taker::new(usize::MAX));
        rest(&outbox, &mut pipe);
        for part in ["one ", "two ", "three"] {
            outbox.push(Bytes::from(part)).unwrap();
        }
        assert_eq!(outbox.next(&mut pipe).now_or_never().unwrap(), "two three");
        assert_eq!(pipe.as_ref().unwrap().taken, "one ");
        outbox.written(9);
        assert_eq!(outbox.lock().bytes, 0);
        rest(&outbox, &mut pipe);
        // Frames came together: the next wait for the writer, and may come alone or not.
        outbox.push(Bytes::from("four ")).unwrap();
        assert_eq!(outbox.next(&mut pipe).now_or_never().unwrap(), "four ");
        rest(&outbox, &mut pipe);
        for part in ["five ", "six ", "seven"] {
            pass(&outbox, TOGETHER);
            outbox.push(Bytes::from(part)).unwrap();
        }
        let waiting = outbox.lock();
        assert_eq!(waiting.pipe.as_ref().unwrap().taken, "one five six seven");
        assert_eq!((waiting.bytes, waiting.awaited), (5, true), "four is on its way");
    }

    #[tokio::test]
    async fn what_a_full_pipe_does_not_take_is_left_to_the_writer_in_order() {
        let outbox = Outbox::default();
        let mut pipe = Some(Taker::new(70_000));
        rest(&outbox, &mut pipe);
        let sent: Vec<u8> = (0..200_000_u32).map(|n| n.to_le_bytes()[0]).collect();
        outbox.push(sent.clone().into()).unwrap();
        outbox.push(Bytes::from("end")).unwrap();
        let mut got = outbox.next(&mut pipe).await.to_vec();
        got.splice(..0, pipe.take().unwrap().taken);
        while got.len() < 200_003 {
            got.extend_from_slice(&outbox.next(&mut pipe).await);
        }
        assert_eq!(got, [&sent[..], b"end"].concat());
    }

    #[tokio::test]
    async fn writes_made_in_one_turn_leave_together_and_in_order() {
        let outbox = Outbox::<Taker>::default();
        for byte in 0..200_u8 {
            outbox.push(Bytes::from(vec![byte; 100])).unwrap();
        }
        let first = outbox.next(&mut None).await;
        assert_eq!(first.len(), 20_000);
        assert!(first.chunks(100).zip(0..).all(|(chunk, byte)| chunk == [byte; 100]));
    }

    #[tokio::test]
    async fn large_and_small_writes_keep_their_order_and_no_write_is_larger_than_64_kib() {
        let outbox = Outbox::<Taker>::default();
        let mut wanted = Vec::new();
        for (byte, len) in [(1, 10), (2, 200_000), (3, 8_000), (4, 63_000), (5, 10), (6, 70_000)] {
            let part = vec![byte; len];
            wanted.extend_from_slice(&part);
            outbox.push(part.into()).unwrap();
        }
        let mut got = Vec::new();
        while got.len() < wanted.len() {
            let bytes = outbox.next(&mut None).await;
            assert!(bytes.len() <= WRITE_BYTES_MAX);
            got.extend_from_slice(&bytes);
        }
        assert_eq!(got, wanted);
    }

    #[tokio::test]
    async fn a_full_queue_refuses_until_bytes_are_written() {
        let outbox = Outbox::<Taker>::default();
        let chunk = Bytes::from(vec![0; 1024 * 1024]);
        for _ in 0..32 {
            outbox.push(chunk.clone()).unwrap();
        }
        assert_eq!(outbox.push(Bytes::from_static(b"x")), Err(WriteRefused::Full));
        let taken = outbox.next(&mut None).await;
        assert_eq!(outbox.push(Bytes::from_static(b"x")), Err(WriteRefused::Full));
        outbox.written(taken.len());
        outbox.push(Bytes::from_static(b"x")).unwrap();
        outbox.close();
        assert_eq!(outbox.push(Bytes::from_static(b"x")), Err(WriteRefused::Gone));
    }
}
