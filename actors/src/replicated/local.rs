//! A log of one process: executes every command at once, keeps nothing on disk. For unit tests of
//! replicated actors and of whatever talks to them.

use std::{
    collections::BTreeMap,
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;

use super::{
    ApplyError, FENCE_REFUSED, FENCED, Fenced, Handle, Host, IdempotencyKey, Inquiry, Moment,
    Outcome, Position, Reason, Refusal, Replicated, SessionId, StateMachine, Submission, Submit,
    Turn, name_hash,
};

/// A log without a cluster. Commands run in the caller's turn, in the order they come.
///
/// Like the real one it runs a repeated idempotency key once, and throws away what a panicking
/// handler did. Agreed time stands still until [`set_time_ms`](Self::set_time_ms) moves it.
///
/// ```
#[doc = include_str!("../../docs/examples/counter.txt")]
/// # actix::System::new().block_on(async {
/// let (log, counter) = local::LocalLog::with::<Counter>("counter");
/// assert_eq!(counter.send(Add(2)).await, Ok(2));
/// log.set_time_ms(60_000); // a minute later
/// assert_eq!(counter.send(Add(1)).await, Ok(3));
/// # });
/// ```
#[derive(Debug)]
pub struct LocalLog {
    inner: Mutex<Inner>,
}

struct Inner {
    machines: BTreeMap<u64, Box<dyn StateMachine>>,
    answered: BTreeMap<IdempotencyKey, (Request, Outcome)>,
    /// The highest epoch of each role that was fenced with.
    fences: BTreeMap<String, u64>,
    now: Moment,
    seed: u64,
    refusing: Option<Outcome>,
}

/// What an idempotency key was used for: actor, function, arguments.
type Request = (u64, u64, Bytes);

impl LocalLog {
    /// An empty log at agreed time 0.
    pub fn new() -> Self {
        Self::seeded(0)
    }

    /// An empty log whose turns draw their random numbers from `seed`.
    pub fn seeded(seed: u64) -> Self {
        let inner = Inner {
            machines: BTreeMap::new(),
            answered: BTreeMap::new(),
            fences: BTreeMap::new(),
            now: Moment::default(),
            seed,
            refusing: None,
        };
        Self { inner: Mutex::new(inner) }
    }

    /// A log with one fresh actor of type `A` called `name`, and the handle to it.
    pub fn with<A: Replicated>(name: &str) -> (Arc<Self>, Handle<A>) {
        let log = Arc::new(Self::new());
        log.host(Box::new(Host::<A>::new(name)));
        let handle = Handle::new(log.clone(), name);
        (log, handle)
    }

    /// Puts one more state machine under the log; one of the same name is replaced.
    pub fn host(&self, machine: Box<dyn StateMachine>) {
        self.lock().machines.insert(name_hash(machine.name()), machine);
    }

    /// Moves agreed time forward (never back), with a tick for every machine that has something
    /// to expire by then.
    pub fn set_time_ms(&self, time_ms: u64) {
        self.lock().set_time_ms(time_ms);
    }

    /// From now on every call ends with this outcome and is not executed; `None` ends that.
    pub fn refuse(&self, outcome: Option<Outcome>) {
        self.lock().refusing = outcome;
    }

    /// The snapshot of the machine called `name`, if there is one.
    pub fn snapshot(&self, name: &str) -> Option<Vec<u8>> {
        self.lock().machines.get(&name_hash(name)).map(|machine| machine.snapshot())
    }

    /// The last command executed, and agreed time.
    pub fn now(&self) -> Moment {
        self.lock().now
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Handlers' panics are caught inside; a poisoned lock holds a good log all the same.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for LocalLog {
    fn default() -> Self {
        Self::new()
    }
}

impl Submit for LocalLog {
    fn submit(&self, batch: Vec<Submission>) {
        for Submission { actor, function, args, idempotency, done, .. } in batch {
            let outcome = self.lock().command((actor, function, args), idempotency);
            // Outside the lock: whoever is told may submit the next command at once.
            done(outcome);
        }
    }

    fn query(&self, batch: Vec<Inquiry>) {
        for Inquiry { actor, function, args, done, .. } in batch {
            let outcome = self.lock().query(actor, function, &args);
            done(outcome);
        }
    }
}

impl Inner {
    fn command(&mut self, request: Request, idempotency: Option<IdempotencyKey>) -> Outcome {
        if let Some(outcome) = &self.refusing {
            return outcome.clone();
        }
        let Some(key) = idempotency else { return self.execute(&request) };
        if let Some((before, outcome)) = self.answered.get(&key) {
            if *before != request {
                let text = format!("idempotency key {:?} was used for another call", key.text());
                return Outcome::NotApplied(Refusal::new(Reason::KeyReused, text));
            }
            return outcome.clone();
        }
        let outcome = self.execute(&request);
        // A call that never got in may well be repeated.
        if !matches!(outcome, Outcome::NotApplied(_)) {
            self.answered.insert(key, (request, outcome.clone()));
        }
        outcome
    }

    fn execute(&mut self, request: &Request) -> Outcome {
        let (actor, function, args) = request;
        if *function == FENCED
            && let Some(Fenced { fence, actor, function, args }) = Fenced::read(args)
        {
            let known = self.fences.entry(fence.role().to_owned()).or_default();
            if fence.epoch() < *known {
                let text = format!("{FENCE_REFUSED}role {} has epoch {known}", fence.role());
                return Outcome::NotApplied(Refusal::new(Reason::Fenced, text));
            }
            *known = fence.epoch();
            return self.execute(&(actor, function, args));
        }
        let Some(machine) = self.machines.get_mut(actor) else { return no_such_actor(*actor) };
        self.now.position = self.now.position.next();
        let position = self.now.position;
        // Every command is a step of its own here, so the seed differs and the index does not.
        let mut turn = Turn::new(self.now, SessionId(0), self.seed.wrapping_add(position.0), 0);
        let before = machine.snapshot();
        let applied = catch_unwind(AssertUnwindSafe(|| machine.apply(*function, args, &mut turn)));
        if let Ok(result) = applied {
            return outcome_of(result, position);
        }
        machine.restore(&before).expect("a machine reads the snapshot it has just made");
        Outcome::Failed(format!("{} panicked at position {position}", machine.name()))
    }

    fn query(&self, actor: u64, function: u64, args: &[u8]) -> Outcome {
        if let Some(outcome) = &self.refusing {
            return outcome.clone();
        }
        let Some(machine) = self.machines.get(&actor) else { return no_such_actor(actor) };
        let run = || machine.query(function, args, &self.now);
        match catch_unwind(AssertUnwindSafe(run)) {
            Ok(result) => outcome_of(result, self.now.position),
            Err(_) => Outcome::Failed(format!("{} panicked in a query", machine.name())),
        }
    }

    fn set_time_ms(&mut self, time_ms: u64) {
        self.now.time_ms = self.now.time_ms.max(time_ms);
        for machine in self.machines.values_mut() {
            if machine.next_expiry_ms().is_some_and(|due| due <= self.now.time_ms) {
                self.now.position = self.now.position.next();
                let seed = self.seed.wrapping_add(self.now.position.0);
                machine.tick(&mut Turn::new(self.now, SessionId(0), seed, 0));
            }
        }
    }
}

fn no_such_actor(actor: u64) -> Outcome {
    let text = format!("no state machine of number {actor:#018x} is hosted here");
    Outcome::NotApplied(Refusal::new(Reason::NoSuchActor, text))
}

fn outcome_of(result: Result<Vec<u8>, ApplyError>, position: Position) -> Outcome {
    match result {
        Ok(reply) => Outcome::Applied { reply: reply.into(), position },
        Err(error) => Outcome::Failed(error.to_string()),
    }
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inner").field("now", &self.now).finish_non_exhaustive()
    }
}
