//! The store of roles under the log: there on every main, without being asked for.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde::{Deserialize, Serialize};
use synod_runtime::world::{Clock, Instant};

use super::{
    count::{Count, Overdue},
    lease::waits_for,
    message::{Change, Epoch, Holder, Op, Refusal, RoleView, Said},
    roles::{Role, Roles},
    watch::{Chronicle, Since},
};
use crate::replicated::{
    ApplyError, Function, Moment, Position, RestoreError, StateMachine, Turn, name_hash,
};

/// The name commands are addressed to. No service can have it by chance.
pub const STORE: &str = "synod/roles";

/// Requests, in one command: [`Vec`] of [`Op`]; answered by as many [`Said`].
pub const CHANGE: Function = Function::command("synod/roles.change");

/// Asks for roles: [`Question`]; answered by [`Vec`] of [`RoleView`].
pub const LOOK: Function = Function::query("synod/roles.look");

/// Asks for what changed: [`Since`]; answered by [`Told`](super::watch::Told).
pub const SINCE: Function = Function::query("synod/roles.since");

/// Which roles to show.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Question {
    /// All, by name.
    All,
    /// The one of that name, if there is one.
    One(String),
}

/// The roles as this main has them, and its own count.
#[derive(Debug)]
pub struct Book {
    roles: Roles,
    count: Count,
    chronicle: Chronicle,
}

impl Book {
    /// What has run out by this main's count.
    pub fn overdue(&mut self, now: Instant) -> Overdue {
        self.count.overdue(&self.roles, now)
    }

    /// All roles, by name.
    pub fn views(&self, now: Instant) -> Vec<RoleView> {
        let mut views: Vec<_> = self.roles.iter().map(|(_, role)| self.view(role, now)).collect();
        views.sort_by(|one, other| one.role.cmp(&other.role));
        views
    }

    /// The role of that name.
    pub fn seen(&self, role: &str, now: Instant) -> Option<RoleView> {
        self.roles.named(role).map(|role| self.view(role, now))
    }

    /// Who holds the role of that name.
    pub fn holder(&self, role: &str) -> Option<Holder> {
        self.roles.named(role)?.holder()
    }

    /// Executes the operations of one command. Answers also whether people see anything of it.
    fn execute(
        &mut self,
        at: Position,
        ops: Vec<Op>,
        changes: &mut Vec<Change>,
    ) -> (Vec<Said>, bool) {
        let Self { roles, chronicle, .. } = self;
        let (mut part, mut said) = (0, Vec::with_capacity(ops.len()));
        for op in ops {
            let apply = |roles: &mut Roles, op| roles.apply(at, op, changes);
            said.push(chronicle.around(at, &mut part, roles, op, apply));
        }
        (said, part > 0)
    }

    fn look(&self, question: &Question, now: Instant) -> Vec<RoleView> {
        match question {
            Question::All => self.views(now),
            Question::One(name) => {
                self.roles.named(name).map(|role| self.view(role, now)).into_iter().collect()
            }
        }
    }

    fn view(&self, role: &Role, now: Instant) -> RoleView {
        let until = role
            .tenure
            .as_ref()
            .filter(|_| !role.is_built_in())
            .map(|tenure| self.count.since(tenure.renewal) + waits_for(tenure.terms.lease()));
        RoleView { expires_in: until.map(|until| until.since(now)), ..role.view() }
    }
}

/// Where a node keeps the book of the store it executes, for itself to look into.
pub struct Desk {
    clock: Arc<dyn Clock>,
    book: Mutex<Option<Arc<Mutex<Book>>>>,
    told: Told,
}

/// Hears of new holders.
type Told = Box<dyn Fn(Vec<Change>) + Send + Sync>;

impl Desk {
    /// An empty desk. `told` hears of every new holder, in order, on whatever thread executes; and,
    /// with nothing, when anything else changed that people see, somebody stands or a state was
    /// installed: then something may run out sooner than before.
    pub fn new(clock: Arc<dyn Clock>, told: impl Fn(Vec<Change>) + Send + Sync + 'static) -> Self {
        Self { clock, book: Mutex::default(), told: Box::new(told) }
    }

    /// Looks into the book, if this node executes the log.
    pub fn read<T>(&self, look: impl FnOnce(&mut Book, Instant) -> T) -> Option<T> {
        let book = lock(&self.book).clone()?;
        let mut book = lock(&book);
        Some(look(&mut book, self.clock.now()))
    }

    /// An empty store that is kept here once it executes something.
    pub fn store(self: &Arc<Self>) -> Box<dyn StateMachine> {
        let count = Count::starting(self.clock.now());
        let (roles, chronicle) = (Roles::default(), Chronicle::default());
        let book = Arc::new(Mutex::new(Book { roles, count, chronicle }));
        Box::new(Store { desk: Arc::clone(self), book })
    }
}

/// The state machine.
struct Store {
    desk: Arc<Desk>,
    book: Arc<Mutex<Book>>,
}

impl Store {
    /// This is the store that executes; one that was only tried out never comes here again.
    fn publish(&self) {
        let mut current = lock(&self.desk.book);
        if !current.as_ref().is_some_and(|current| Arc::ptr_eq(current, &self.book)) {
            *current = Some(Arc::clone(&self.book));
        }
    }
}

impl StateMachine for Store {
    fn name(&self) -> &str {
        STORE
    }

    fn functions(&self) -> &[Function] {
        &[CHANGE, LOOK, SINCE]
    }

    fn apply(
        &mut self,
        function: u64,
        args: &[u8],
        turn: &mut Turn,
    ) -> Result<Vec<u8>, ApplyError> {
        if function != CHANGE.id {
            return Err(ApplyError::UnknownFunction { id: function });
        }
        let ops: Vec<Op> = decode(args)?;
        self.publish();
        let (at, now) = (turn.position(), self.desk.clock.now());
        let mut changes = Vec::new();
        let mut book = lock(&self.book);
        let stands = ops.iter().any(|op| matches!(op, Op::Take { .. }));
        let (answers, seen) = book.execute(at, ops, &mut changes);
        book.count.applied(at, now);
        if stands || !changes.is_empty() {
            book.count.changed(now);
        }
        drop(book);
        if stands || seen || !changes.is_empty() {
            (self.desk.told)(changes);
        }
        Ok(encode(&answers))
    }

    fn query(&self, function: u64, args: &[u8], at: &Moment) -> Result<Vec<u8>, ApplyError> {
        if function == SINCE.id {
            let asked: Since = decode(args)?;
            let Book { roles, chronicle, .. } = &mut *lock(&self.book);
            return Ok(encode(&chronicle.since(at.position, roles, &asked)));
        }
        if function != LOOK.id {
            return Err(ApplyError::UnknownFunction { id: function });
        }
        let question: Question = decode(args)?;
        let now = self.desk.clock.now();
        Ok(encode(&lock(&self.book).look(&question, now)))
    }

    fn snapshot(&self) -> Vec<u8> {
        encode(&lock(&self.book).roles)
    }

    fn restore(&mut self, bytes: &[u8]) -> Result<(), RestoreError> {
        let bad =
            |error: ApplyError| RestoreError { actor: STORE.to_owned(), reason: error.to_string() };
        let roles: Roles = decode(bytes).map_err(bad)?;
        let mut book = lock(&self.book);
        // Whatever is in it was applied before; by this main's count it was now.
        book.count.installed(roles.newest(), self.desk.clock.now());
        (book.roles, book.chronicle) = (roles, Chronicle::default());
        drop(book);
        self.publish();
        (self.desk.told)(Vec::new());
        Ok(())
    }
}

/// The answer of the store that a write with this fence may go on, or why not. A command of the
/// store itself, executed at the place of the write.
///
/// # Errors
/// The newer epoch that is known.
pub fn check_fence(
    store: &mut dyn StateMachine,
    role: &str,
    epoch: Epoch,
    turn: &mut Turn,
) -> Result<(), Refusal> {
    let ops = encode(&[Op::Fence { role: role.to_owned(), epoch }]);
    let answer = store.apply(CHANGE.id, &ops, turn).ok();
    let said: Option<Vec<Said>> = answer.and_then(|answer| decode(&answer).ok());
    match said.and_then(|mut said| said.pop()) {
        Some(Said::Refused(refusal)) => Err(refusal),
        _ => Ok(()),
    }
}

/// The number of the store's name.
pub const fn store_id() -> u64 {
    name_hash(STORE)
}

/// As it stands in the log and in snapshots.
pub fn encode<T: Serialize + ?Sized>(what: &T) -> Vec<u8> {
    rmp_serde::to_vec(what).expect("plain data encodes")
}

/// Reads what [`encode`] wrote.
///
/// # Errors
/// [`ApplyError::BadArguments`] when it is something else.
pub fn decode<T: for<'a> Deserialize<'a>>(bytes: &[u8]) -> Result<T, ApplyError> {
    rmp_serde::from_slice(bytes).map_err(|error| ApplyError::BadArguments(error.to_string()))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl fmt::Debug for Desk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Desk").finish_non_exhaustive()
    }
}
