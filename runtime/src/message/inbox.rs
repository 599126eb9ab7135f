//! What waits for one actor from other nodes: frames, in order, until its turn comes.
//!
//! The network puts batches in; the actor's own mailbox gets one short [`Batch`] for all of them,
//! whose handler (written by `derive(RemoteActor)`) decodes and handles some, and comes again
//! behind whatever else waits. So a message from afar costs no mailbox entry of its own, decoding
//! is done where the actor lives, and a panic loses only the message that was being handled.

use std::{
    collections::VecDeque,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use actix::{Actor, Addr, Context, Message, SyncContext, prelude::ActorContext as _};
use bytes::BytesMut;

use super::{RemoteActor, Routes, lend};
use crate::{
    address::SendError,
    identity::NodeId,
    node::{Debt, Node, WeakNode, units},
    supervision::{Permit, charge},
    wire::{Frame, FrameKind},
    world::Instant,
};

/// Messages handled in one turn before the others in the mailbox, and on the arbiter, get theirs.
const TURN_MESSAGES_MAX: usize = 64;

/// The same in time, for handlers that are slow.
const TURN_TIME_MAX: Duration = Duration::from_millis(5);

/// With more waiting, bodies are copied out of the network's buffers: a small message would keep
/// a whole one of up to 64 KiB for as long as it waits.
const IN_PLACE_LEN_MAX: usize = 256;

/// Frames that a node's own raw tells may have waiting: others are bounded by their credits.
const OWN_LEN_MAX: usize = 64 * 1024;

/// Tells an actor that messages from other nodes wait for it. Only `derive(RemoteActor)` has a use
/// for it.
pub struct Batch<A: RemoteActor>(Option<Arc<Inbox<A>>>);

/// Contexts an actor with remote messages may have.
pub trait Turns {
    /// Whether it takes no further message now: it stops, or waits for a future.
    fn is_held(&self) -> bool;
}

impl<A: Actor<Context = Self>> Turns for Context<A> {
    fn is_held(&self) -> bool {
        actix::AsyncContext::waiting(self) || !self.state().alive()
    }
}

impl<A: Actor<Context = Self>> Turns for SyncContext<A> {
    fn is_held(&self) -> bool {
        !self.state().alive()
    }
}

/// The messages that wait for one actor.
pub(crate) struct Inbox<A: RemoteActor> {
    addr: Addr<A>,
    routes: Routes<A>,
    node: WeakNode,
    /// For how long messages are taken; none: for ever.
    permit: Option<Arc<dyn Permit>>,
    queue: Mutex<Queue>,
}

#[derive(Default)]
struct Queue {
    batches: VecDeque<Waiting>,
    len: usize,
    /// A [`Batch`] is in the mailbox, or being handled.
    called: bool,
}

/// Frames of one sender.
struct Waiting {
    from: NodeId,
    frames: std::vec::IntoIter<Frame>,
    debt: Debt,
    /// Units of tells that were handled; told as done once for all of a turn.
    handled: u64,
    arrived: Instant,
}

impl<A: RemoteActor> Inbox<A> {
    pub(crate) fn new(
        addr: Addr<A>,
        routes: Routes<A>,
        permit: Option<Arc<dyn Permit>>,
        node: &Node,
    ) -> Arc<Self> {
        let node = WeakNode::of(node);
        Arc::new(Self { addr, routes, node, permit, queue: Mutex::default() })
    }

    pub(crate) fn addr(&self) -> &Addr<A> {
        &self.addr
    }

    pub(crate) fn routes(&self) -> &Routes<A> {
        &self.routes
    }

    pub(crate) fn len(&self) -> usize {
        self.queue().len
    }

    pub(crate) fn put(
        self: &Arc<Self>,
        from: &NodeId,
        mut batch: Vec<Frame>,
        debt: Debt,
        node: &Node,
    ) {
        if !self.addr.connected() {
            return refuse_all(from, &batch, node);
        }
        node.expect_asks(from, &batch);
        let mut queue = self.queue();
        if from == node.id() && queue.len + batch.len() > OWN_LEN_MAX {
            let excess = batch.split_off(OWN_LEN_MAX.saturating_sub(queue.len).min(batch.len()));
            drop(queue);
            for frame in &excess {
                node.refuse(from, &frame.header, &SendError::Overloaded);
            }
            queue = self.queue();
        }
        if queue.len > IN_PLACE_LEN_MAX {
            copy_out(&mut batch);
        }
        queue.len += batch.len();
        let (from, frames, arrived) = (from.clone(), batch.into_iter(), node.now());
        queue.batches.push_back(Waiting { from, frames, debt, handled: 0, arrived });
        let call = !std::mem::replace(&mut queue.called, true);
        drop(queue);
        if call {
            self.addr.do_send(Batch(Some(Arc::clone(self))));
        }
    }

    /// One turn of the actor.
    fn turn(self: Arc<Self>, actor: &mut A, context: &mut A::Context) {
        let Some(node) = self.node.upgrade() else { return };
        // Puts the rest back and comes again, also after a panic.
        let mut turn = Turn { inbox: &self, waiting: None, handled: 0, ended: false };
        let (_lent, until) = (lend(&node), node.now() + TURN_TIME_MAX);
        while turn.handled < TURN_MESSAGES_MAX && !context.is_held() {
            // Doubling: a few looks at the clock for a whole turn, one at once for a slow handler.
            if turn.handled.is_power_of_two() && node.now() >= until {
                break;
            }
            let Some((waiting, frame)) = turn.next() else { return };
            let cost = units(frame.body.len());
            let debt = if frame.header.kind == FrameKind::Ask {
                // Done when it is answered.
                let debt = waiting.debt.split(cost);
                if !node.begin_ask(&waiting.from, &frame.header, waiting.arrived) {
                    continue;
                }
                debt
            } else {
                waiting.handled += cost;
                Debt::default()
            };
            if self.permit.as_ref().is_some_and(|permit| !permit.takes()) {
                node.refuse(&waiting.from, &frame.header, &SendError::NoSuchActor);
                continue;
            }
            self.routes.handle(actor, context, &waiting.from, &frame, debt, &node);
        }
    }

    /// The actor has ended and took none of this.
    fn abandon(&self) {
        let mut queue = self.queue();
        let waiting = std::mem::take(&mut *queue).batches;
        drop(queue);
        let Some(node) = self.node.upgrade() else { return };
        for waiting in waiting {
            node.forget_asks(&waiting.from, waiting.frames.as_slice());
            refuse_all(&waiting.from, waiting.frames.as_slice(), &node);
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn refuse_all(from: &NodeId, frames: &[Frame], node: &Node) {
    for frame in frames {
        node.refuse(from, &frame.header, &SendError::NoSuchActor);
    }
}

/// Lets all bodies share one buffer of their own.
fn copy_out(batch: &mut [Frame]) {
    let mut bytes = BytesMut::with_capacity(batch.iter().map(|frame| frame.body.len()).sum());
    for frame in &*batch {
        bytes.extend_from_slice(&frame.body);
    }
    let mut bytes = bytes.freeze();
    for frame in batch {
        frame.body = bytes.split_to(frame.body.len());
    }
}

/// One turn in the making.
struct Turn<'a, A: RemoteActor> {
    inbox: &'a Arc<Inbox<A>>,
    waiting: Option<Waiting>,
    handled: usize,
    /// Nothing waits any more; whoever puts something in calls again.
    ended: bool,
}

impl<A: RemoteActor> Turn<'_, A> {
    fn next(&mut self) -> Option<(&mut Waiting, Frame)> {
        while self.waiting.as_ref().is_none_or(|waiting| waiting.frames.len() == 0) {
            // With no lock held: it tells the sender that all of it is done.
            self.waiting = None;
            let mut queue = self.inbox.queue();
            self.waiting = queue.batches.pop_front();
            match &self.waiting {
                Some(waiting) => queue.len -= waiting.frames.len(),
                None => {
                    queue.called = false;
                    self.ended = true;
                    return None;
                }
            }
        }
        self.handled += 1;
        let waiting = self.waiting.as_mut()?;
        let frame = waiting.frames.next()?;
        Some((waiting, frame))
    }
}

impl<A: RemoteActor> Drop for Turn<'_, A> {
    fn drop(&mut self) {
        // The batch itself is counted by whoever handed it out.
        charge(u32::try_from(self.handled).unwrap_or(u32::MAX).saturating_sub(1));
        if self.ended {
            return;
        }
        if let Some(mut waiting) = self.waiting.take().filter(|waiting| waiting.frames.len() > 0) {
            drop(waiting.debt.split(std::mem::take(&mut waiting.handled)));
            let mut queue = self.inbox.queue();
            queue.len += waiting.frames.len();
            queue.batches.push_front(waiting);
        }
        self.inbox.addr.do_send(Batch(Some(Arc::clone(self.inbox))));
    }
}

impl<A: RemoteActor> Batch<A> {
    /// Handles some of what waits.
    pub fn handle(mut self, actor: &mut A, context: &mut A::Context) {
        if let Some(inbox) = self.0.take() {
            inbox.turn(actor, context);
        }
    }
}

impl<A: RemoteActor> Drop for Batch<A> {
    fn drop(&mut self) {
        // Thrown away with its mailbox.
        if let Some(inbox) = self.0.take() {
            inbox.abandon();
        }
    }
}

impl<A: RemoteActor> Message for Batch<A> {
    type Result = ();
}

impl<A: RemoteActor> fmt::Debug for Batch<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Batch")
    }
}
