//! What this node's own replica of an actor has executed, for the node itself to look into.

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use synod_runtime::watch;

use super::{
    ActorDescriptor, ApplyError, Function, Moment, Position, Replicated, RestoreError,
    StateMachine, Turn,
};

/// Where a node keeps the state that its replica of `A` executes, for actors that act outside of the
/// log by what stands in it: they follow it command by command, without a message.
///
/// The state is that of this node alone: of a prefix of the log, never of anything undecided. A node
/// that does not execute the log has none.
///
/// ```
#[doc = include_str!("../../docs/examples/counter.txt")]
/// # use std::sync::Arc;
/// # actix::System::new().block_on(async {
/// let desk = Arc::new(synod::replicated::Desk::<Counter>::default());
/// let log = Arc::new(local::LocalLog::new());
/// log.host(desk.machine("counter"));
/// let mut news = desk.news();
/// let counter = Handle::<Counter>::new(log.clone(), "counter");
/// counter.send(Add(2)).await.unwrap();
/// news.changed().await.unwrap();
/// assert_eq!(desk.read(|counter| counter.0), Some(2));
/// assert_eq!(desk.executed().0, 1);
/// # });
/// ```
pub struct Desk<A> {
    /// That of the machine that executed last: after a panic another one does.
    actor: Mutex<Option<Arc<Mutex<A>>>>,
    changes: watch::Sender<u64>,
    executed: AtomicU64,
}

impl<A: Replicated> Desk<A> {
    /// A fresh actor called `name`, to be put under the log. It lies here once it executes.
    pub fn machine(self: &Arc<Self>, name: &str) -> Box<dyn StateMachine> {
        let functions = A::ENTRIES.iter().map(|entry| entry.function()).collect();
        let (desk, actor) = (Arc::clone(self), Arc::default());
        Box::new(Shown { desk, name: name.to_owned(), actor, functions })
    }

    /// Looks into the state: quickly, since commands wait meanwhile. None before the first command.
    pub fn read<T>(&self, look: impl FnOnce(&A) -> T) -> Option<T> {
        let actor = lock(&self.actor).clone()?;
        let actor = lock(&actor);
        Some(look(&actor))
    }

    /// The highest position whose command was executed here, for this actor. What is read afterwards
    /// has its effect, or is a state that was put in its place since. A state that was taken over
    /// whole, from a snapshot or a backup, does not count: its last command was not executed here.
    pub fn executed(&self) -> Position {
        Position(self.executed.load(Ordering::Acquire))
    }

    /// Hears that something was executed, at once and in any number together.
    pub fn news(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}

impl<A> Default for Desk<A> {
    fn default() -> Self {
        Self {
            actor: Mutex::default(),
            changes: watch::Sender::new(0),
            executed: AtomicU64::new(0),
        }
    }
}

/// An actor under the log whose state lies on a desk.
struct Shown<A> {
    desk: Arc<Desk<A>>,
    name: String,
    actor: Arc<Mutex<A>>,
    functions: Vec<Function>,
}

impl<A: Replicated> Shown<A> {
    /// This is the one that executes; one that was only tried out never comes here.
    fn publish(&self) {
        *lock(&self.desk.actor) = Some(Arc::clone(&self.actor));
        self.desk.changes.send_modify(|changes| *changes += 1);
    }
}

impl<A: Replicated> StateMachine for Shown<A> {
    fn name(&self) -> &str {
        &self.name
    }

    fn functions(&self) -> &[Function] {
        &self.functions
    }

    fn apply(
        &mut self,
        function: u64,
        args: &[u8],
        turn: &mut Turn,
    ) -> Result<Vec<u8>, ApplyError> {
        let reply = lock(&self.actor).dispatch(function, args, turn);
        self.desk.executed.fetch_max(turn.position().0, Ordering::Release);
        self.publish();
        reply
    }

    fn query(&self, function: u64, args: &[u8], _at: &Moment) -> Result<Vec<u8>, ApplyError> {
        lock(&self.actor).dispatch_query(function, args)
    }

    fn snapshot(&self) -> Vec<u8> {
        rmp_serde::to_vec_named(&*lock(&self.actor))
            .unwrap_or_else(|error| panic!("the state of {} has no serde form: {error}", self.name))
    }

    fn restore(&mut self, bytes: &[u8]) -> Result<(), RestoreError> {
        let bad = |error: rmp_serde::decode::Error| RestoreError {
            actor: self.name.clone(),
            reason: error.to_string(),
        };
        *lock(&self.actor) = rmp_serde::from_slice(bytes).map_err(bad)?;
        self.publish();
        Ok(())
    }

    fn descriptor(&self) -> ActorDescriptor {
        ActorDescriptor::of::<A>(&self.name)
    }
}

/// A machine that panicked while it held the lock is thrown away, and another one laid on the desk.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<A> fmt::Debug for Desk<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Desk").finish_non_exhaustive()
    }
}
