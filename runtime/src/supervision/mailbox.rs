//! The mailbox that outlives its actor.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    future::Future as _,
    pin::{Pin, pin},
    rc::Rc,
    sync::Arc,
    task::{self, Poll},
    time::Duration,
};

use actix::{
    Actor, AsyncContext as _, Context,
    dev::{ContextParts, Envelope, EnvelopeProxy as _, channel::AddressReceiver},
    fut::ActorFuture,
};
use futures_util::Stream as _;

use super::TurnBudget;
use crate::world::{Clock, Instant};

/// Messages taken out of the channel ahead of their turn: enough to show a growing backlog, and a
/// bound on one turn's pulling when a sender is as fast as the pulling itself.
const BACKLOG_LEN_MAX: usize = 4096;

/// What was sent to an actor and not handled yet.
pub(super) struct Backlog<A: Actor> {
    mailbox: AddressReceiver<A>,
    /// Taken out of the channel, because the channel cannot say how much is in it.
    pulled: VecDeque<Envelope<A>>,
    turn: Turn,
}

/// An actor that is never done gives way to the rest of its thread this often: to timers, sockets,
/// and whoever was woken from another thread, for all of which tokio looks only when nobody that
/// was woken from this one is left. Each time costs about a microsecond.
const GIVE_WAY_EVERY: Duration = Duration::from_millis(1);

thread_local! {
    /// Messages that the entry in hand stood for, beyond the one it counts as.
    static CHARGED: Cell<u32> = const { Cell::new(0) };
}

/// Counts messages against the turn of the actor that is at work on this thread: those that one
/// entry of its mailbox stood for.
pub(crate) fn charge(messages: u32) {
    CHARGED.set(CHARGED.get().saturating_add(messages));
}

/// What is left of an actor's turn.
struct Turn {
    budget: TurnBudget,
    clock: Arc<dyn Clock>,
    began: Instant,
    handled: u32,
    /// The clock is read when so many are handled.
    next_look: u32,
    over: bool,
    gave_way: Instant,
}

impl Turn {
    fn begin(&mut self) {
        (self.began, self.over) = (self.clock.now(), false);
        (self.handled, self.next_look) = (0, 1);
        CHARGED.set(0);
    }

    /// The turn is over and there is more to do: to be polled again, after the others.
    fn pass(&mut self, cx: &mut task::Context<'_>) {
        let now = self.clock.now();
        if self.budget == TurnBudget::UNLIMITED || now.since(self.gave_way) < GIVE_WAY_EVERY {
            // Behind all that are ready on this thread.
            return cx.waker().wake_by_ref();
        }
        self.gave_way = now;
        // Its first poll leaves the waker with the runtime, which is all that is wanted of it.
        let _ = pin!(tokio::task::yield_now()).poll(cx);
    }

    /// One more entry of the mailbox was handled.
    fn count(&mut self) {
        self.handled = self.handled.saturating_add(1).saturating_add(CHARGED.take());
        let mut late = false;
        if self.handled >= self.next_look && self.budget.time < Duration::MAX {
            // Doubling: six looks at the clock for a whole turn, one at once for a slow handler.
            self.next_look = self.handled.saturating_mul(2);
            late = self.clock.now().since(self.began) >= self.budget.time;
        }
        self.over = late || self.handled >= self.budget.messages;
    }
}

impl<A: Actor> Backlog<A> {
    pub(super) fn new(
        mailbox: AddressReceiver<A>,
        budget: TurnBudget,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let (began, gave_way) = (Instant::default(), clock.now());
        let turn = Turn { budget, clock, began, handled: 0, next_look: 1, over: false, gave_way };
        Self { mailbox, pulled: VecDeque::new(), turn }
    }

    pub(super) fn begin_turn(&mut self) {
        self.turn.begin();
    }

    pub(super) fn handled(&mut self) {
        self.turn.count();
    }

    pub(super) fn len(&self) -> usize {
        self.pulled.len()
    }

    /// The heart of a context whose addresses lead here.
    pub(super) fn context_parts(&self) -> ContextParts<A>
    where
        A: Actor<Context = Context<A>>,
    {
        ContextParts::new(self.mailbox.sender_producer())
    }

    /// The next message of this turn, if there is one; otherwise the task is woken for it.
    fn next(&mut self, cx: &mut task::Context<'_>) -> Option<Envelope<A>> {
        if self.pulled.is_empty() {
            self.pull(cx);
        }
        if self.turn.over && !self.pulled.is_empty() {
            self.turn.pass(cx);
            return None;
        }
        self.pulled.pop_front()
    }

    fn pull(&mut self, cx: &mut task::Context<'_>) {
        while self.pulled.len() < BACKLOG_LEN_MAX {
            match Pin::new(&mut self.mailbox).poll_next(cx) {
                Poll::Ready(Some(envelope)) => self.pulled.push_back(envelope),
                Poll::Ready(None) | Poll::Pending => break,
            }
        }
    }
}

/// Feeds one life of an actor, as the first future of its context; never ends by itself.
pub(super) struct Pump<A: Actor>(Rc<RefCell<Backlog<A>>>);

impl<A: Actor> Pump<A> {
    pub(super) fn new(backlog: Rc<RefCell<Backlog<A>>>) -> Self {
        Self(backlog)
    }
}

impl<A: Actor<Context = Context<A>>> ActorFuture<A> for Pump<A> {
    type Output = ();

    fn poll(
        self: Pin<&mut Self>,
        actor: &mut A,
        context: &mut Context<A>,
        task: &mut task::Context<'_>,
    ) -> Poll<()> {
        // A context that waits or stops takes no more messages; it polls its futures again when
        // the wait is over.
        while !context.waiting() {
            // Not held while the handler runs, which may panic.
            let next = self.0.borrow_mut().next(task);
            let Some(mut envelope) = next else { break };
            envelope.handle(actor, context);
            self.0.borrow_mut().handled();
        }
        Poll::Pending
    }
}
