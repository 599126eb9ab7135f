//! The table of services under the log: there on every main and member, without being asked for.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{message::Op, table::Services};
use crate::{
    election::store::{decode, encode},
    replicated::{ApplyError, Function, Moment, RestoreError, StateMachine, Turn, name_hash},
};

/// The name commands are addressed to. No service can have it by chance.
pub const STORE: &str = "synod/services";

/// Requests, in one command: [`Vec`] of [`Op`]; answered by as many
/// [`Said`](super::message::Said).
pub const CHANGE: Function = Function::command("synod/services.change");

/// Asks for all services; answered by the table.
pub const LOOK: Function = Function::query("synod/services.look");

/// Asks how far the log is, and for nothing else: whoever has executed it up to the position of the
/// answer knows of all that was changed before the question.
pub const REACH: Function = Function::query("synod/services.reach");

/// Where a node keeps the table that it executes, for itself to look into.
pub struct Desk {
    table: Mutex<Option<Arc<Mutex<Services>>>>,
    told: Box<dyn Fn() + Send + Sync>,
}

impl Desk {
    /// An empty desk. `told` hears of every change, on whatever thread executes.
    pub fn new(told: impl Fn() + Send + Sync + 'static) -> Self {
        Self { table: Mutex::default(), told: Box::new(told) }
    }

    /// Looks into the table; into an empty one at a node that does not execute the log.
    pub fn read<T>(&self, look: impl FnOnce(&Services) -> T) -> T {
        let Some(table) = lock(&self.table).clone() else { return look(&Services::default()) };
        let table = lock(&table);
        look(&table)
    }

    /// An empty store that is kept here once it executes something.
    pub fn store(self: &Arc<Self>) -> Box<dyn StateMachine> {
        Box::new(Store { desk: Arc::clone(self), table: Arc::default() })
    }
}

/// The state machine.
struct Store {
    desk: Arc<Desk>,
    table: Arc<Mutex<Services>>,
}

impl Store {
    /// This is the store that executes; one that was only tried out never comes here.
    fn publish(&self) {
        *lock(&self.desk.table) = Some(Arc::clone(&self.table));
        (self.desk.told)();
    }
}

impl StateMachine for Store {
    fn name(&self) -> &str {
        STORE
    }

    fn functions(&self) -> &[Function] {
        &[CHANGE, LOOK, REACH]
    }

    fn apply(
        &mut self,
        function: u64,
        args: &[u8],
        _turn: &mut Turn,
    ) -> Result<Vec<u8>, ApplyError> {
        if function != CHANGE.id {
            return Err(ApplyError::UnknownFunction { id: function });
        }
        let ops: Vec<Op> = decode(args)?;
        let mut table = lock(&self.table);
        let answers: Vec<_> = ops.into_iter().map(|op| table.apply(op)).collect();
        drop(table);
        self.publish();
        Ok(encode(&answers))
    }

    fn query(&self, function: u64, _args: &[u8], _at: &Moment) -> Result<Vec<u8>, ApplyError> {
        match function {
            id if id == LOOK.id => Ok(encode(&*lock(&self.table))),
            id if id == REACH.id => Ok(Vec::new()),
            id => Err(ApplyError::UnknownFunction { id }),
        }
    }

    fn snapshot(&self) -> Vec<u8> {
        encode(&*lock(&self.table))
    }

    fn restore(&mut self, bytes: &[u8]) -> Result<(), RestoreError> {
        let bad =
            |error: ApplyError| RestoreError { actor: STORE.to_owned(), reason: error.to_string() };
        *lock(&self.table) = decode(bytes).map_err(bad)?;
        self.publish();
        Ok(())
    }
}

/// The number of the store's name.
pub const fn store_id() -> u64 {
    name_hash(STORE)
}

/// A panic while holding it leaves whole data behind: each change is one operation of the table.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl fmt::Debug for Desk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Desk").finish_non_exhaustive()
    }
}
