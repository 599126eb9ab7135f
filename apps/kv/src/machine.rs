//! The state machine under the log: functions, snapshots, expiry.

use std::ops::Bound;

use serde::{Serialize, de::DeserializeOwned};
use synod::replicated::{
    ActorDescriptor, ApplyError, Function, InParts, JsonForm, JsonFunction, Moment, RemoteMessage,
    RestoreError, StateMachine, Turn,
};

use crate::{
    args, execute,
    limits::{
        LIST_KEYS_DEFAULT, LIST_KEYS_MAX, REPLY_BYTES_MAX, SWEEP_KEYS_MAX, SWEEP_KEYS_TICK_MAX,
        VALUE_BYTES_MAX,
    },
    message::{Blob, Delete, Found, Get, List, Page, Precondition, Put, Written},
    reply::Reply,
    store::{BadSnapshot, Store, Thawing},
    transaction,
};

/// The key/value service as a replicated state machine called [`NAME`].
///
/// Time is the agreed time of the turn, so every replica expires a key at the same command.
#[derive(Clone, Debug, Default)]
pub struct Kv {
    store: Store,
    /// A state on its way in.
    thawing: Option<Thawing>,
}

/// The name commands are addressed to.
pub const NAME: &str = "kv";

/// Any command of the table, as a command of the log: arguments in, [`Reply`] out.
pub const EXECUTE: Function = Function::command("kv.execute");

/// Several commands at once, see [`transaction`].
pub const TRANSACTION: Function = Function::command("kv.transaction");

/// A command that only reads, as a query.
pub const READ: Function = Function::query("kv.read");

/// [`Put`].
pub const PUT: Function = Function::command(Put::NAME);

/// [`Delete`].
pub const DELETE: Function = Function::command(Delete::NAME);

/// [`Get`].
pub const GET: Function = Function::query(Get::NAME);

/// [`List`].
pub const LIST: Function = Function::query(List::NAME);

const FUNCTIONS: [Function; 7] = [EXECUTE, TRANSACTION, PUT, DELETE, READ, GET, LIST];

impl Kv {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// The keys and values, for tests and inspection.
    pub fn store(&self) -> &Store {
        &self.store
    }

    fn execute(&mut self, bytes: &[u8], at: Moment) -> Result<Vec<u8>, ApplyError> {
        let arguments = args::decode(bytes).map_err(bad)?;
        let mut reply = Reply::new();
        execute::execute(&mut self.store, at, &arguments, &mut reply);
        Ok(reply.into_bytes())
    }

    fn transaction(&mut self, bytes: &[u8], at: Moment) -> Result<Vec<u8>, ApplyError> {
        let mut reply = Reply::new();
        transaction::execute(&mut self.store, at, bytes, &mut reply).map_err(bad)?;
        Ok(reply.into_bytes())
    }

    fn put(&mut self, Put { key, value, when }: Put, at: Moment) -> Written {
        if key.0.len() > VALUE_BYTES_MAX || value.0.len() > VALUE_BYTES_MAX {
            return Written::TooLarge;
        }
        if let Err(refused) = self.check(&key, &when, at) {
            return refused;
        }
        self.store.set(&key.0, &value.0, None, at);
        Written::Done { position: at.position.0 }
    }

    fn delete(&mut self, Delete { key, when }: &Delete, at: Moment) -> Written {
        if let Err(refused) = self.check(key, when, at) {
            return refused;
        }
        self.store.remove(&key.0, at.time_ms);
        Written::Done { position: at.position.0 }
    }

    fn check(&self, key: &Blob, when: &Precondition, at: Moment) -> Result<(), Written> {
        let version = self.store.get(&key.0, at.time_ms).map(|entry| entry.version.0);
        if when.holds(version) { Ok(()) } else { Err(Written::Refused { version }) }
    }

    fn get(&self, Get { key }: &Get, at: Moment) -> Option<Found> {
        let entry = self.store.get(&key.0, at.time_ms)?;
        Some(Found { value: Blob::from(entry.value), version: entry.version.0 })
    }

    fn list(&self, List { prefix, after, limit }: &List, at: Moment) -> Page {
        let limit = limit.map_or(LIST_KEYS_DEFAULT, |limit| limit as usize).min(LIST_KEYS_MAX);
        let start = match after {
            Some(after) if after.0 >= prefix.0 => Bound::Excluded(&*after.0),
            Some(_) | None => Bound::Included(&*prefix.0),
        };
        let mut found = self
            .store
            .from(start, at.time_ms)
            .map(|(key, _)| key)
            .take_while(|key| key.starts_with(&prefix.0))
            .peekable();
        let mut keys: Vec<Blob> = Vec::new();
        let mut bytes = 0;
        while keys.len() < limit && bytes < REPLY_BYTES_MAX / 2 {
            let Some(key) = found.next() else { break };
            bytes += key.len();
            keys.push(Blob::from(key));
        }
        let more = found.peek().is_some();
        let next = keys.last().filter(|_| more).cloned();
        Page { keys, next }
    }
}

impl StateMachine for Kv {
    fn name(&self) -> &str {
        NAME
    }

    fn functions(&self) -> &[Function] {
        &FUNCTIONS
    }

    fn apply(
        &mut self,
        function: u64,
        args: &[u8],
        turn: &mut Turn,
    ) -> Result<Vec<u8>, ApplyError> {
        let at = turn.moment();
        // Nobody sees a difference, so this may precede an error that leaves the state unchanged.
        self.store.sweep(at.time_ms, SWEEP_KEYS_MAX);
        match function {
            id if id == EXECUTE.id => self.execute(args, at),
            id if id == TRANSACTION.id => self.transaction(args, at),
            id if id == PUT.id => Ok(pack(&self.put(unpack(args)?, at))),
            id if id == DELETE.id => Ok(pack(&self.delete(&unpack(args)?, at))),
            id => Err(ApplyError::UnknownFunction { id }),
        }
    }

    fn query(&self, function: u64, args: &[u8], at: &Moment) -> Result<Vec<u8>, ApplyError> {
        match function {
            id if id == READ.id => {
                let arguments = args::decode(args).map_err(bad)?;
                let mut reply = Reply::new();
                execute::read(&self.store, *at, &arguments, &mut reply);
                Ok(reply.into_bytes())
            }
            id if id == GET.id => Ok(pack(&self.get(&unpack(args)?, *at))),
            id if id == LIST.id => Ok(pack(&self.list(&unpack(args)?, *at))),
            id => Err(ApplyError::UnknownFunction { id }),
        }
    }

    fn snapshot(&self) -> Vec<u8> {
        self.store.snapshot()
    }

    fn restore(&mut self, bytes: &[u8]) -> Result<(), RestoreError> {
        self.store = Store::restore(bytes).map_err(not_restored)?;
        Ok(())
    }

    fn in_parts(&mut self) -> Option<&mut dyn InParts> {
        Some(self)
    }

    fn descriptor(&self) -> ActorDescriptor {
        let function = |function, form| JsonFunction { function, form };
        ActorDescriptor {
            name: NAME.to_owned(),
            type_name: NAME.to_owned(),
            functions: vec![
                function(PUT, JsonForm::of::<Put>()),
                function(DELETE, JsonForm::of::<Delete>()),
                function(GET, JsonForm::of::<Get>()),
                function(LIST, JsonForm::of::<List>()),
            ],
        }
    }

    fn next_expiry_ms(&self) -> Option<u64> {
        self.store.next_expiry_ms()
    }

    fn tick(&mut self, turn: &mut Turn) {
        self.store.sweep(turn.time_ms(), SWEEP_KEYS_TICK_MAX);
    }
}

impl InParts for Kv {
    fn freeze(&mut self) {
        self.store.freeze();
    }

    fn frozen_part(&mut self, bytes: usize, into: &mut Vec<u8>) -> bool {
        self.store.frozen_part(bytes, into)
    }

    fn let_go(&mut self) {
        self.store.let_go();
    }

    fn restore_part(&mut self, part: &[u8]) -> Result<(), RestoreError> {
        self.thawing.get_or_insert_default().part(part).map_err(not_restored)
    }

    fn restore_end(&mut self) -> Result<(), RestoreError> {
        let thawing = self.thawing.take().unwrap_or_default();
        self.store = thawing.end().map_err(not_restored)?;
        Ok(())
    }
}

fn not_restored(error: BadSnapshot) -> RestoreError {
    RestoreError { actor: NAME.to_owned(), reason: error.to_string() }
}

fn unpack<M: DeserializeOwned>(bytes: &[u8]) -> Result<M, ApplyError> {
    rmp_serde::from_slice(bytes).map_err(bad)
}

fn pack<R: Serialize>(reply: &R) -> Vec<u8> {
    rmp_serde::to_vec_named(reply).expect("replies are plain structs of numbers and bytes")
}

fn bad(error: impl std::fmt::Display) -> ApplyError {
    ApplyError::BadArguments(error.to_string())
}

#[cfg(test)]
mod tests;
