//! Actors that are rebuilt after a panic, behind the same address, with nothing queued lost.
//!
//! actix's own supervisor restarts only after a clean stop, on the same object and in a tight
//! loop; a panic ends the actor without telling anybody. Here the supervisor owns the mailbox:
//!
//! ```text
//!  Addr ──► mailbox (actix channel) ──► Backlog ──► Pump ──► handlers      one life of the actor:
//!           kept by the supervisor for ever         └──────────────┘       ContextFut, dropped whole
//! ```
//!
//! A life is a fresh actor from the factory in a fresh `ContextFut`, whose context hands out the
//! address of the one mailbox. Its first task, the `Pump`, feeds it from the
//! backlog. When a life ends, by a panic or a stop, only the message being handled goes with it;
//! its timers and futures are dropped, and after the wait the [`Policy`] asks for, the next life
//! begins, starting with `started()`.
//!
//! What actix spawns outside of the context (`ResponseFuture`) is not watched: a panic there
//! costs that one reply.

mod mailbox;
mod policy;
#[cfg(test)]
mod tests;

use std::{
    any::Any,
    cell::RefCell,
    fmt,
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    pin::Pin,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst},
    },
    task::{self, Poll, ready},
};

use actix::{
    Actor, ActorContext as _, AsyncContext as _, Context,
    dev::{AsyncContextParts as _, ContextFut, channel::AddressReceiver},
};
use futures_util::task::AtomicWaker;
use tokio::time::Sleep;

pub use self::policy::{Policy, Restart};
use self::{
    mailbox::{Backlog, Pump},
    policy::History,
};
use crate::{
    registry::watch::Reason,
    telemetry::Counter,
    world::{Clock, Rng},
};

/// A failure injected into one supervised actor, to see that everything around it holds. Only
/// code can reach this: no message and no configuration does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Its next turn panics.
    Panic,
    /// It stops as if it had called `ctx.stop()`.
    Stop,
}

/// What the outside knows of one supervised actor, and how it gives orders to it.
#[derive(Debug, Default)]
pub(crate) struct Control {
    order: AtomicU8,
    waker: AtomicWaker,
    restarts: AtomicU64,
    waiting: AtomicUsize,
}

impl Control {
    /// Lets the actor fail at its next turn.
    pub(crate) fn inject(&self, fault: Fault) {
        self.give(match fault {
            Fault::Panic => PANIC,
            Fault::Stop => STOP,
        });
    }

    /// Ends the actor for good, whatever its policy.
    pub(crate) fn retire(&self) {
        self.give(RETIRE);
    }

    /// How often it was rebuilt.
    pub(crate) fn restarts(&self) -> u64 {
        self.restarts.load(Relaxed)
    }

    /// Messages that waited after its last turn.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(Relaxed)
    }

    fn give(&self, order: u8) {
        // A retirement is never overwritten by a lesser order.
        self.order.fetch_max(order, SeqCst);
        self.waker.wake();
    }
}

const NOTHING: u8 = 0;
const STOP: u8 = 1;
const PANIC: u8 = 2;
const RETIRE: u8 = 3;

/// What a supervisor needs of its node.
pub(crate) struct Setting {
    pub(crate) name: String,
    pub(crate) policy: Policy,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) rng: Rng,
    pub(crate) restarted: Counter,
    pub(crate) panicked: Counter,
    pub(crate) control: Arc<Control>,
}

impl fmt::Debug for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Setting").field("name", &self.name).finish_non_exhaustive()
    }
}

/// The lives of one actor, as a future that ends with the last of them.
pub(crate) struct Supervisor<A: Actor<Context = Context<A>>, F> {
    setting: Setting,
    factory: F,
    backlog: Rc<RefCell<Backlog<A>>>,
    history: History,
    phase: Phase<A>,
    /// How the last life ended.
    last: End,
}

enum Phase<A: Actor<Context = Context<A>>> {
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

impl<A, F> Supervisor<A, F>
where
    A: Actor<Context = Context<A>>,
    F: FnMut() -> A,
{
    /// Will build the actor by `factory` and feed it from `mailbox`.
    pub(crate) fn new(setting: Setting, mailbox: AddressReceiver<A>, factory: F) -> Self {
        let backlog = Rc::new(RefCell::new(Backlog::new(mailbox)));
        let (history, phase) = (History::default(), Phase::Due(None));
        Self { setting, factory, backlog, history, phase, last: End::Retired }
    }

    /// Begins a life. A factory that panics counts as one that ended at once.
    fn build(&mut self) -> Result<Box<ContextFut<A, Context<A>>>, End> {
        self.history.started(self.setting.clock.now());
        let factory = &mut self.factory;
        let actor = catch_unwind(AssertUnwindSafe(factory)).map_err(End::panicked)?;
        let mut context = Context::new();
        // The life's own mailbox stays empty: its address is that of the one that outlives it.
        *context.parts() = self.backlog.borrow().context_parts();
        context.spawn(Pump::new(Rc::clone(&self.backlog)));
        Ok(Box::new(context.into_future(actor)))
    }

    /// One turn of the present life.
    fn turn(&mut self, cx: &mut task::Context<'_>) -> Poll<End> {
        let Phase::Alive(life) = &mut self.phase else { unreachable!("only the living turn") };
        let order = self.setting.control.order.swap(NOTHING, SeqCst);
        if order == STOP || order == RETIRE {
            life.ctx().stop();
        }
        self.backlog.borrow_mut().begin_turn();
        let turned = catch_unwind(AssertUnwindSafe(|| {
            if order == PANIC {
                // Not by `panic!`: whoever ordered it need not read about it.
                resume_unwind(Box::new("injected fault"));
            }
            Pin::new(&mut **life).poll(cx)
        }));
        self.setting.control.waiting.store(self.backlog.borrow().len(), Relaxed);
        match turned {
            // It refused to stop; an order to retire is not refused.
            Ok(Poll::Pending) if order == RETIRE => Poll::Ready(End::Retired),
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(())) if order == RETIRE => Poll::Ready(End::Retired),
            Ok(Poll::Ready(())) => Poll::Ready(End::Stopped),
            Err(panic) => Poll::Ready(End::panicked(panic)),
        }
    }

    /// Decides what follows the end of a life.
    fn after(&mut self, end: &End) -> Phase<A> {
        let Setting { name, policy, clock, rng, control, restarted, panicked } = &mut self.setting;
        if matches!(end, End::Panicked(_)) {
            panicked.increment();
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
        control.restarts.fetch_add(1, Relaxed);
        restarted.increment();
        Phase::Due((!wait.is_zero()).then(|| Box::pin(tokio::time::sleep(wait))))
    }

    fn replace(&mut self, phase: Phase<A>) {
        bury(std::mem::replace(&mut self.phase, phase));
    }
}

// Nothing in it is pinned in place: the factory is only called, and each life is on the heap.
impl<A: Actor<Context = Context<A>>, F> Unpin for Supervisor<A, F> {}

impl<A, F> Future for Supervisor<A, F>
where
    A: Actor<Context = Context<A>>,
    F: FnMut() -> A,
{
    type Output = Reason;

    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Reason> {
        let this = self.get_mut();
        this.setting.control.waker.register(cx.waker());
        loop {
            let end = match &mut this.phase {
                Phase::Over => return Poll::Ready(this.last.reason()),
                Phase::Due(_) if this.setting.control.order.load(SeqCst) == RETIRE => End::Retired,
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

impl<A: Actor<Context = Context<A>>, F> Drop for Supervisor<A, F> {
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
    fn reason(&mut self) -> Reason {
        match self {
            Self::Stopped | Self::Retired => Reason::Stopped,
            Self::Panicked(text) => Reason::panicked(std::mem::take(text)),
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
