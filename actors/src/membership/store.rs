//! The verdicts under the log: there on every main and member, without being asked for.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{
    message::{Op, View},
    table::Views,
};
use crate::{
    election::store::{decode, encode},
    replicated::{
        ApplyError, Function, Moment, RestoreError, Roster, StateMachine, Turn, name_hash,
    },
};

/// The name commands are addressed to. No service can have it by chance.
pub const STORE: &str = "synod/views";

/// Asks for a verdict: [`Op`]; answered by whether there is another view now.
pub const JUDGE: Function = Function::command("synod/views.judge");

/// Asks for the newest view; answered by it.
pub const LOOK: Function = Function::query("synod/views.look");

/// Hears of every view that a node comes to, in order, on whatever thread executes.
pub type Hears = Box<dyn Fn(&View) + Send + Sync>;

/// Where a node keeps the newest view that it came to.
pub struct Desk {
    newest: Mutex<View>,
    hears: Hears,
}

impl Desk {
    /// An empty desk.
    pub fn new(hears: impl Fn(&View) + Send + Sync + 'static) -> Self {
        Self { newest: Mutex::default(), hears: Box::new(hears) }
    }

    /// The newest view; an empty one at a node that does not execute the log.
    pub fn view(&self) -> View {
        lock(&self.newest).clone()
    }

    /// A store without verdicts that is kept here once it is told of a configuration.
    pub fn store(self: &Arc<Self>) -> Box<dyn StateMachine> {
        Box::new(Store { desk: Arc::clone(self), views: Views::default() })
    }

    fn note(&self, view: &View) {
        let mut newest = lock(&self.newest);
        // A replica that is rebuilt passes by earlier views once more.
        if newest.nodes.is_empty() || view.id > newest.id {
            newest.clone_from(view);
            (self.hears)(view);
        }
    }
}

/// The state machine.
struct Store {
    desk: Arc<Desk>,
    views: Views,
}

impl StateMachine for Store {
    fn name(&self) -> &str {
        STORE
    }

    fn functions(&self) -> &[Function] {
        &[JUDGE, LOOK]
    }

    fn apply(
        &mut self,
        function: u64,
        args: &[u8],
        _turn: &mut Turn,
    ) -> Result<Vec<u8>, ApplyError> {
        if function != JUDGE.id {
            return Err(ApplyError::UnknownFunction { id: function });
        }
        let op: Op = decode(args)?;
        let changed = self.views.apply(&op);
        if changed {
            self.desk.note(&self.views.view());
        }
        Ok(encode(&changed))
    }

    fn query(&self, function: u64, _args: &[u8], _at: &Moment) -> Result<Vec<u8>, ApplyError> {
        if function != LOOK.id {
            return Err(ApplyError::UnknownFunction { id: function });
        }
        Ok(encode(&self.views.view()))
    }

    fn snapshot(&self) -> Vec<u8> {
        encode(&self.views)
    }

    fn restore(&mut self, bytes: &[u8]) -> Result<(), RestoreError> {
        let bad =
            |error: ApplyError| RestoreError { actor: STORE.to_owned(), reason: error.to_string() };
        self.views = decode(bytes).map_err(bad)?;
        Ok(()) // the roster comes next, and with it the view
    }

    fn roster(&mut self, roster: &Roster) {
        self.views.roster(roster);
        self.desk.note(&self.views.view());
    }
}

/// The number of the store's name.
pub const fn store_id() -> u64 {
    name_hash(STORE)
}

/// A panic while holding it leaves a whole view behind.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl fmt::Debug for Desk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Desk").finish_non_exhaustive()
    }
}
