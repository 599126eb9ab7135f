//! Asks: those that wait here for an answer, and those that are served here.

mod room;

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use rustc_hash::FxHashMap;
use tokio::{
    sync::{Notify, oneshot},
    task::AbortHandle,
};

pub(super) use self::room::keep_deadlines;
use self::room::{Waiting, WaitingRoom};
use super::{
    Node, lock,
    sending::{Pipe, Way},
};
use crate::{
    address::SendError,
    identity::{NodeId, NodeName},
    message::encode,
    wire::{BODY_BYTES_MAX, Frame, FrameHeader, FrameKind},
    world::{Instant, network::Lane},
};

/// Both sides of the asks of a node.
#[derive(Default)]
pub(super) struct Asks {
    correlations: AtomicU64,
    waiting: Mutex<WaitingRoom>,
    /// The alarm must ring earlier than it is set to.
    earlier: Arc<Notify>,
    /// By asker and its correlation.
    served: Mutex<FxHashMap<(NodeName, u64), Served>>,
}

/// An ask that came here and is not answered yet.
enum Served {
    /// It waits for its actor.
    Waits,
    /// A future works on it.
    Runs(AbortHandle),
}

impl Served {
    fn stop(self) {
        match self {
            Self::Waits => {}
            Self::Runs(work) => work.abort(),
        }
    }
}

impl Drop for Asks {
    fn drop(&mut self) {
        // The alarm looks for its node, and ends.
        self.earlier.notify_one();
    }
}

impl Asks {
    pub(super) fn earlier(&self) -> Arc<Notify> {
        Arc::clone(&self.earlier)
    }

    /// An answer came. One that nobody waits for (any more) is dropped.
    pub(super) fn answer(&self, from: &NodeId, correlation: u64, answer: Result<Bytes, SendError>) {
        let mut room = lock(&self.waiting);
        // Only the one who was asked can answer.
        if room.asks.get(&correlation).is_some_and(|waiting| waiting.to == from.name)
            && let Some(waiting) = room.remove(correlation)
        {
            drop(room);
            // The asker may have given up in this very moment.
            let _ = waiting.answer.send(answer);
        }
    }

    /// The asker does not wait any more.
    pub(super) fn cancel(&self, from: &NodeId, correlation: u64) {
        let served = lock(&self.served).remove(&(from.name.clone(), correlation));
        // What waits is skipped when its turn comes.
        if let Some(served) = served {
            served.stop();
        }
    }

    /// The link to `peer` is gone, and with it every answer that was to come over it, either way.
    pub(super) fn lost(&self, peer: &NodeName) {
        lock(&self.waiting).lost(peer);
        let lost: Vec<_> = lock(&self.served).extract_if(|(asker, _), _| asker == peer).collect();
        for (_, served) in lost {
            served.stop();
        }
    }

    /// How many are served here.
    pub(super) fn serving(&self) -> usize {
        lock(&self.served).len()
    }

    /// How many wait here, and how many are served here.
    #[cfg(test)]
    pub(super) fn open(&self) -> (usize, usize) {
        (lock(&self.waiting).asks.len(), lock(&self.served).len())
    }

    /// Everybody who waits hears `Closed`.
    pub(super) fn close_all(&self) {
        *lock(&self.waiting) = WaitingRoom::default();
    }
}

impl Node {
    /// Sends a raw ask to whatever is bound to `target` on `to`, and waits for the answer's body.
    /// Waits for room on the lane, too. Dropping the future cancels the ask.
    ///
    /// # Errors
    /// See [`SendError`], with the outcome. `Overloaded` when there was no room in all the time.
    pub async fn ask(
        &self,
        to: &NodeName,
        target: u64,
        message: u64,
        lane: Lane,
        body: Vec<u8>,
        timeout: Duration,
    ) -> Result<Bytes, SendError> {
        let way = if to == self.name() {
            None
        } else {
            Some(self.links().path(to).ok_or(SendError::Unreachable)?)
        };
        let allowance = match self.costs_credit(to, lane) {
            true => Some(self.allowance(to, target).ok_or(SendError::Unreachable)?),
            false => None,
        };
        let way = Way { lane, path: way.as_ref(), allowance: allowance.as_ref() };
        let header = self.header(FrameKind::Ask, target, message);
        match self.start_ask(to, &way, header, &body, timeout) {
            Err(SendError::Overloaded) if body.len() <= BODY_BYTES_MAX => {
                self.ask_when_room(to, &way, header, &body, timeout).await
            }
            started => started?.await,
        }
    }

    /// Asks on the user lane by a way found before, if there is room at once; without one, on this
    /// node, where there always is.
    ///
    /// # Errors
    /// Nothing was sent. `Overloaded` when there was no room.
    pub(crate) fn start_ask_by(
        &self,
        pipe: Option<&Pipe>,
        target: u64,
        message: u64,
        body: &[u8],
        timeout: Duration,
    ) -> Result<Asking, SendError> {
        let header = self.header(FrameKind::Ask, target, message);
        let (to, way) = match pipe {
            Some(pipe) => (&pipe.path.peer.name, pipe.way()),
            None => (self.name(), Way { lane: Lane::User, path: None, allowance: None }),
        };
        self.start_ask(to, &way, header, body, timeout)
    }

    /// As [`Node::start_ask_by`], but waits for room first, and then for the answer.
    ///
    /// # Errors
    /// As [`Node::ask`].
    pub(crate) async fn ask_when_room_by(
        &self,
        pipe: &Pipe,
        target: u64,
        message: u64,
        body: &[u8],
        timeout: Duration,
    ) -> Result<Bytes, SendError> {
        let header = self.header(FrameKind::Ask, target, message);
        self.ask_when_room(&pipe.path.peer.name, &pipe.way(), header, body, timeout).await
    }

    fn start_ask(
        &self,
        to: &NodeName,
        way: &Way<'_>,
        mut header: FrameHeader,
        body: &[u8],
        timeout: Duration,
    ) -> Result<Asking, SendError> {
        // Nobody shall hear an answer to what was not sent; but who is asked may be quick.
        let mut asking = self.await_answer(to, way.lane, timeout);
        header.correlation = asking.correlation;
        header.deadline_ms = whole_ms(timeout);
        match self.post_by(way, &header, body) {
            Ok(()) => Ok(asking),
            Err(error) => {
                asking.forget();
                Err(error)
            }
        }
    }

    async fn ask_when_room(
        &self,
        to: &NodeName,
        way: &Way<'_>,
        mut header: FrameHeader,
        body: &[u8],
        timeout: Duration,
    ) -> Result<Bytes, SendError> {
        let until = self.now() + timeout;
        let mut asking = self.await_answer(to, way.lane, timeout);
        header.correlation = asking.correlation;
        let posted = self.post_when_room(way, &mut header, body, Some(until));
        let posted = tokio::time::timeout(timeout, posted).await;
        if let Err(error) = posted.unwrap_or(Err(SendError::Overloaded)) {
            asking.forget();
            return Err(error);
        }
        asking.await
    }

    fn await_answer(&self, to: &NodeName, lane: Lane, timeout: Duration) -> Asking {
        let asks = &self.0.asks;
        let (answer, answered) = oneshot::channel();
        let correlation = asks.correlations.fetch_add(1, Relaxed) + 1;
        let waiting = Waiting { to: to.clone(), lane, until: self.now() + timeout, answer };
        if lock(&asks.waiting).insert(correlation, waiting) {
            asks.earlier.notify_one();
        }
        Asking { node: self.clone(), correlation, answered, is_over: false }
    }

    fn take_back(&self, correlation: u64, waiting: &Waiting) {
        let cancel = FrameHeader { correlation, ..FrameHeader::new(FrameKind::Cancel) };
        // Without the cancel the work is done for nobody, no more.
        let _ = self.post(&waiting.to, waiting.lane, &cancel, &[]);
    }

    /// Asks of this batch wait for their actor from now on.
    pub(crate) fn expect_asks(&self, from: &NodeId, batch: &[Frame]) {
        if batch.iter().any(is_ask) {
            let mut served = lock(&self.0.asks.served);
            for frame in batch.iter().filter(|frame| is_ask(frame)) {
                served.insert((from.name.clone(), frame.header.correlation), Served::Waits);
            }
        }
    }

    /// Asks of this batch will not come to their actor.
    pub(crate) fn forget_asks(&self, from: &NodeId, batch: &[Frame]) {
        let mut served = lock(&self.0.asks.served);
        for frame in batch.iter().filter(|frame| is_ask(frame)) {
            served.remove(&(from.name.clone(), frame.header.correlation));
        }
    }

    /// Whether work on an ask shall begin: not when it was cancelled or its deadline is over.
    pub(crate) fn begin_ask(&self, from: &NodeId, header: &FrameHeader, arrived: Instant) -> bool {
        let key = (from.name.clone(), header.correlation);
        if lock(&self.0.asks.served).remove(&key).is_none() {
            return false;
        }
        let patience = Duration::from_millis(u64::from(header.deadline_ms));
        let late = header.deadline_ms > 0 && self.now().since(arrived) > patience;
        if late {
            self.lose_frame(from, header, "expired");
        }
        !late
    }

    /// Answers an ask with what its handler came to.
    pub(crate) fn answer(
        &self,
        to: &NodeId,
        header: &FrameHeader,
        result: Result<&[u8], SendError>,
    ) {
        match result {
            Ok(body) => self.finish(to, Lane::User, FrameKind::Reply, header, body),
            Err(error) => self.refuse(to, header, &error),
        }
    }

    /// Answers an ask.
    pub fn reply(&self, to: &NodeId, lane: Lane, correlation: u64, body: &[u8]) {
        let asked = FrameHeader { correlation, ..FrameHeader::new(FrameKind::Ask) };
        self.finish(to, lane, FrameKind::Reply, &asked, body);
    }

    /// Answers an ask with an error; counts a tell as a dead letter.
    pub fn refuse(&self, to: &NodeId, header: &FrameHeader, error: &SendError) {
        if header.kind != FrameKind::Ask || *error == SendError::Codec {
            self.lose_frame(to, header, error.reason());
        }
        if header.kind == FrameKind::Ask {
            let body = encode(error).expect("texts and numbers always encode");
            self.finish(to, Lane::User, FrameKind::Failure, header, &body);
        }
    }

    /// Answers an ask with what `work` comes to. The work is dropped at the ask's deadline, when
    /// the asker cancels and when the link to it is lost.
    pub fn serve(
        &self,
        from: &NodeId,
        header: &FrameHeader,
        work: impl Future<Output = Result<Vec<u8>, SendError>> + Send + 'static,
    ) {
        let deadline = match header.deadline_ms {
            0 => self.ask_timeout(),
            ms => Duration::from_millis(u64::from(ms)),
        };
        let key = (from.name.clone(), header.correlation);
        let (node, asker, header) = (self.clone(), from.clone(), *header);
        let done = {
            let key = key.clone();
            async move {
                let done = tokio::time::timeout(deadline, work).await;
                lock(&node.0.asks.served).remove(&key);
                match done {
                    Ok(result) => {
                        let result = result.as_deref().map_err(SendError::clone);
                        node.answer(&asker, &header, result);
                    }
                    // The asker has given up at the same time.
                    Err(_) => node.lose_frame(&asker, &header, "expired"),
                }
            }
        };
        // Listed before it begins, so that it finds itself; nothing is locked while it is begun.
        lock(&self.0.asks.served).insert(key.clone(), Served::Waits);
        let work = self.task_anywhere(done);
        match lock(&self.0.asks.served).get_mut(&key) {
            Some(served) => *served = Served::Runs(work),
            // It is done already, and then this does nothing, or it was cancelled.
            None => work.abort(),
        }
    }

    /// Ends an ask, in its trace.
    fn finish(&self, to: &NodeId, lane: Lane, kind: FrameKind, asked: &FrameHeader, body: &[u8]) {
        let FrameHeader { correlation, trace, .. } = *asked;
        let header = FrameHeader { correlation, trace, ..FrameHeader::new(kind) };
        if let Err(error) = self.post(&to.name, lane, &header, body) {
            tracing::debug!(%to, %error, "an answer was lost");
            self.dead_letter(&error);
        }
    }
}

/// An ask that was sent, until its answer. Dropped before, it takes the ask back.
#[must_use = "dropping it takes the ask back"]
pub(crate) struct Asking {
    node: Node,
    correlation: u64,
    answered: oneshot::Receiver<Result<Bytes, SendError>>,
    /// Nothing is left to take back.
    is_over: bool,
}

impl Asking {
    /// Nothing was sent, so there is nothing to wait for or to take back.
    fn forget(&mut self) {
        self.is_over = true;
        lock(&self.node.0.asks.waiting).remove(self.correlation);
    }
}

impl Future for Asking {
    type Output = Result<Bytes, SendError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = ready!(Pin::new(&mut self.answered).poll(cx));
        self.is_over = true;
        // Nobody is left to answer: the link is gone.
        Poll::Ready(answer.unwrap_or(Err(SendError::Closed)))
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        let waiting = lock(&self.node.0.asks.waiting).remove(self.correlation);
        if let Some(waiting) = waiting {
            self.node.take_back(self.correlation, &waiting);
        }
    }
}

fn is_ask(frame: &Frame) -> bool {
    frame.header.kind == FrameKind::Ask
}

/// At least one, since none means no deadline.
pub(super) fn whole_ms(left: Duration) -> u32 {
    u32::try_from(left.as_millis()).unwrap_or(u32::MAX).max(1)
}
