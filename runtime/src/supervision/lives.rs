//! The lives of one actor, as a future.

use std::{
    any::Any,
    cell::RefCell,
    fmt,
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    pin::Pin,
    rc::Rc,
    sync::{Arc, atomic::Ordering::Relaxed},
    task::{self, Poll, ready},
};

use actix::{
    Actor, ActorContext as _, AsyncContext as _, Context,
    dev::{AsyncContextParts as _, ContextFut, channel::AddressReceiver},
};
use tokio::time::Sleep;

use super::{
    Permit, Policy, Restart,
    control::{BEGIN, Control, FINISH, FOR_GOOD, HALT, KILL, Manager, Orders, PANIC, RETIRE, STOP},
    mailbox::{Backlog, Pump},
    policy::History,
};
use crate::{
    registry::watch::Reason,
    telemetry::Counter,
    world::{Clock, Rng},
};

/// What a supervisor needs of its node.
pub(crate) struct Setting {
    pub(crate) name: String,
    pub(crate) policy: Policy,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) rng: Rng,
    pub(crate) restarted: Counter,
    pub(crate) panicked: Counter,
    pub(crate) control: Arc<Control>,
    /// The tree that decides what follows the end of a life; by itself, the policy does.
    pub(crate) manager: Option<Manager>,
    /// For how long it may act; none: for ever.
    pub(crate) permit: Option<Arc<dyn Permit>>,
}

impl Setting {
    fn may_begin(&self) -> bool {
        self.permit.as_ref().is_none_or(|permit| permit.takes() && permit.acts())
    }

    fn may_act(&self) -> bool {
        self.permit.as_ref().is_none_or(|permit| permit.acts())
    }
}

impl fmt::Debug for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Setting").field("name", &self.name).finish_non_exhaustive()
    }
}

/// The lives of one actor, as a future that ends with the last of them.
pub(crate) struct Lives<A: Actor<Context = Context<A>>, F> {
    setting: Setting,
    factory: F,
    backlog: Rc<RefCell<Backlog<A>>>,
    history: History,
    phase: Phase<A>,
    /// How the last life ended.
    last: End,
    built: u64,
    /// The present life had its first turn.
    begun: bool,
    /// The present life was asked to stop; it may refuse once.
    asked: bool,
}

enum Phase<A: Actor<Context = Context<A>>> {
    /// Waits for its tree's order.
    Parked,
    /// To be built, after a wait if there is one.
    Due(Option<Pin<Box<Sleep>>>),
    Alive(Box<ContextFut<A, Context<A>>>),
    Over,
}

/// How a life ended.
enum End {
    Stopped,
    Retired,
    Panicked(String),
}

impl<A, F> Lives<A, F>
where
    A: Actor<Context = Context<A>>,
    F: FnMut(&mut Context<A>) -> A,
{
    /// Will build the actor by `factory` and feed it from `mailbox`.
    pub(crate) fn new(setting: Setting, mailbox: AddressReceiver<A>, factory: F) -> Self {
        let backlog = Backlog::new(mailbox, setting.policy.turn, Arc::clone(&setting.clock));
        let phase = if setting.manager.is_some() { Phase::Parked } else { Phase::Due(None) };
        Self {
            setting,
            factory,
            backlog: Rc::new(RefCell::new(backlog)),
            history: History::default(),
            phase,
            last: End::Retired,
            built: 0,
            begun: false,
            asked: false,
        }
    }

    /// Begins a life. A factory that panics counts as one that ended at once.
    fn build(&mut self) -> Result<Box<ContextFut<A, Context<A>>>, End> {
        self.history.started(self.setting.clock.now());
        if self.built > 0 {
            self.setting.control.restarts.fetch_add(1, Relaxed);
            self.setting.restarted.increment();
        }
        (self.built, self.begun, self.asked) = (self.built + 1, false, false);
        let factory = &mut self.factory;
        let mut context = Context::new();
        // The life's own mailbox stays empty: its address is that of the one that outlives it.
        *context.parts() = self.backlog.borrow().context_parts();
        let actor = catch_unwind(AssertUnwindSafe(|| factory(&mut context)));
        let actor = actor.map_err(End::panicked)?;
        context.spawn(Pump::new(Rc::clone(&self.backlog)));
        Ok(Box::new(context.into_future(actor)))
    }

    /// One turn of the present life.
    fn turn(&mut self, cx: &mut task::Context<'_>) -> Poll<End> {
        if !self.setting.may_act() {
            return Poll::Ready(End::Retired);
        }
        let Phase::Alive(life) = &mut self.phase else { unreachable!("only the living turn") };
        let control = &self.setting.control;
        let (orders, fault) = (control.orders(), control.take(PANIC | STOP));
        if fault & STOP != 0 || (orders & (HALT | RETIRE) != 0 && !self.asked) {
            life.ctx().stop();
            self.asked = true;
        }
        self.backlog.borrow_mut().begin_turn();
        let turned = catch_unwind(AssertUnwindSafe(|| {
            if fault & PANIC != 0 {
                // Not by `panic!`: whoever ordered it need not read about it.
                resume_unwind(Box::new("injected fault"));
            }
            Pin::new(&mut **life).poll(cx)
        }));
        let waiting = self.backlog.borrow().len();
        control.waiting.store(waiting, Relaxed);
        match turned {
            // It refused to stop; this order is not refused.
            Ok(Poll::Pending) if orders & KILL != 0 => Poll::Ready(End::Retired),
            Ok(Poll::Pending) => {
                if !std::mem::replace(&mut self.begun, true)
                    && let Some(manager) = &self.setting.manager
                {
                    manager.up();
                }
                let finished = waiting == 0 && !life.ctx().waiting();
                if orders & FINISH != 0 && finished && !self.asked {
                    life.ctx().stop();
                    self.asked = true;
                    cx.waker().wake_by_ref();
                }
                Poll::Pending
            }
            Ok(Poll::Ready(())) if orders & FOR_GOOD != 0 => Poll::Ready(End::Retired),
            Ok(Poll::Ready(())) => Poll::Ready(End::Stopped),
            Err(panic) => Poll::Ready(End::panicked(panic)),
        }
    }

    /// What an actor without a life does: follows the order of its tree.
    fn parked(&mut self, orders: Orders) -> Option<Phase<A>> {
        if orders & FOR_GOOD != 0 {
            return Some(Phase::Over);
        }
        if self.setting.control.take(BEGIN) == 0 {
            return None;
        }
        if orders & HALT == 0 {
            return Some(Phase::Due(None));
        }
        // Taken back before it began.
        self.report_down(Reason::Stopped);
        None
    }

    /// Decides what follows the end of a life.
    fn after(&mut self, end: &End) -> Phase<A> {
        if matches!(end, End::Panicked(_)) {
            self.setting.panicked.increment();
        }
        let may_begin = self.setting.may_begin();
        let Setting { name, policy, clock, rng, control, manager, .. } = &mut self.setting;
        if control.orders() & FOR_GOOD != 0 || !may_begin {
            tracing::debug!(actor = name, "{end}");
            return Phase::Over;
        }
        if manager.is_some() {
            tracing::debug!(actor = name, "{end}; its tree decides");
            self.report_down(end.reason());
            return Phase::Parked;
        }
        let again = match (end, policy.restart) {
            (End::Retired, _) | (_, Restart::Never) | (End::Stopped, Restart::OnPanic) => false,
            (End::Panicked(_), Restart::Always | Restart::OnPanic)
            | (End::Stopped, Restart::Always) => true,
        };
        if !again {
            tracing::debug!(actor = name, "{end}");
            return Phase::Over;
        }
        let Some(wait) = self.history.next(policy, clock.now(), rng) else {
            tracing::error!(actor = name, "{end}; its restarts are used up");
            return Phase::Over;
        };
        tracing::warn!(actor = name, ?wait, "{end}; rebuilding it");
        Phase::Due((!wait.is_zero()).then(|| Box::pin(tokio::time::sleep(wait))))
    }

    fn report_down(&self, reason: Reason) {
        if let Some(manager) = &self.setting.manager {
            manager.down(reason);
        }
    }

    fn replace(&mut self, phase: Phase<A>) {
        bury(std::mem::replace(&mut self.phase, phase));
    }
}

// Nothing in it is pinned in place: the factory is only called, and each life is on the heap.
impl<A: Actor<Context = Context<A>>, F> Unpin for Lives<A, F> {}

impl<A, F> Future for Lives<A, F>
where
    A: Actor<Context = Context<A>>,
    F: FnMut(&mut Context<A>) -> A,
{
    type Output = Reason;

    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Reason> {
        let this = self.get_mut();
        this.setting.control.waker.register(cx.waker());
        loop {
            let orders = this.setting.control.orders();
            let end = match &mut this.phase {
                Phase::Over => return Poll::Ready(this.last.reason()),
                Phase::Parked => match this.parked(orders) {
                    Some(next) => {
                        this.phase = next;
                        continue;
                    }
                    None => return Poll::Pending,
                },
                Phase::Due(_) if orders & FOR_GOOD != 0 || !this.setting.may_begin() => {
                    End::Retired
                }
                Phase::Due(wait) => {
                    if let Some(wait) = wait {
                        ready!(wait.as_mut().poll(cx));
                    }
                    match this.build() {
                        Ok(life) => {
                            this.phase = Phase::Alive(life);
                            continue;
                        }
                        Err(end) => end,
                    }
                }
                Phase::Alive(_) => ready!(this.turn(cx)),
            };
            let next = this.after(&end);
            this.last = end;
            this.replace(next);
        }
    }
}

impl<A: Actor<Context = Context<A>>, F> Drop for Lives<A, F> {
    fn drop(&mut self) {
        bury(std::mem::replace(&mut self.phase, Phase::Over));
    }
}

/// Drops what is left of a life. Its `stopping` and `stopped` are not called: they would run on a
/// state that a panic may have left half changed, or on a node that is crashing.
fn bury<A: Actor<Context = Context<A>>>(phase: Phase<A>) {
    if let Phase::Alive(mut life) = phase {
        life.ctx().terminate();
        if catch_unwind(AssertUnwindSafe(|| drop(life))).is_err() {
            tracing::warn!("an actor panicked while it was dropped");
        }
    }
}

impl End {
    fn reason(&self) -> Reason {
        match self {
            Self::Stopped | Self::Retired => Reason::Stopped,
            Self::Panicked(text) => Reason::panicked(text.clone()),
        }
    }

    fn panicked(panic: Box<dyn Any + Send>) -> Self {
        let text = match panic.downcast::<String>() {
            Ok(text) => *text,
            Err(panic) => panic
                .downcast::<&str>()
                .map_or_else(|_| "without a text".to_owned(), |text| (*text).to_owned()),
        };
        Self::Panicked(text)
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stopped => f.write_str("the actor stopped"),
            Self::Retired => f.write_str("the actor was stopped"),
            Self::Panicked(text) => write!(f, "the actor panicked: {text}"),
        }
    }
}
