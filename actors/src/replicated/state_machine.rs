//! What a replica drives: an object that executes commands by number and bytes.

use std::fmt;

use super::{ActorDescriptor, Moment, Replicated, Roster, Turn, name_hash};

/// A deterministic state machine under the log. Most people derive [`Replicated`] and let [`Host`]
/// implement this; a state too large for one serde snapshot implements it by hand.
///
/// Determinism is a duty: equal commands in equal turns must give equal replies and equal states
/// on every machine. A panic may unwind through `apply`: the replica then throws this object away
/// and rebuilds it without that command, so it need not stay consistent.
pub trait StateMachine: Send {
    /// The name commands are addressed to.
    fn name(&self) -> &str;

    /// The commands and queries it understands.
    fn functions(&self) -> &[Function];

    /// Executes a command; the reply is the handler's result. An error leaves the state unchanged.
    fn apply(&mut self, function: u64, args: &[u8], turn: &mut Turn)
    -> Result<Vec<u8>, ApplyError>;

    /// Answers a query about the present state, which is that of the moment `at`.
    fn query(&self, function: u64, args: &[u8], at: &Moment) -> Result<Vec<u8>, ApplyError>;

    /// The whole state; equal states give equal bytes.
    fn snapshot(&self) -> Vec<u8>;

    /// Replaces the state by one that [`snapshot`](Self::snapshot) gave, here or elsewhere. An
    /// error leaves the state unchanged.
    fn restore(&mut self, bytes: &[u8]) -> Result<(), RestoreError>;

    /// The way out and in of a large state, part by part; by default there is none. Then `snapshot`
    /// encodes all of it at once whenever the log has grown by the size of the last snapshot, and
    /// commands wait for that: about a millisecond for each megabyte. Beyond some megabytes a state
    /// should leave in parts.
    fn in_parts(&mut self) -> Option<&mut dyn InParts> {
        None
    }

    /// How its messages look as JSON, for people and for HTTP. By default nothing can be called
    /// that way.
    fn descriptor(&self) -> ActorDescriptor {
        ActorDescriptor::without_json(self.name())
    }

    /// The agreed time (ms since 1970) at which something expires, so that the leader lets time
    /// pass in the log then. By default nothing ever does.
    fn next_expiry_ms(&self) -> Option<u64> {
        None
    }

    /// Agreed time has reached `turn.time_ms()` without a command for this machine. By default
    /// nothing happens.
    fn tick(&mut self, _turn: &mut Turn) {}

    /// The log came to this configuration: told after every step that brings one, and once more
    /// after every [`restore`](Self::restore), before anything else is executed. By default nothing
    /// happens.
    fn roster(&mut self, _roster: &Roster) {}
}

/// A large state on its way out while commands go on, and on its way in.
///
/// The parts put together are what [`StateMachine::snapshot`] gives.
pub trait InParts {
    /// Holds on to the state as it is now, which must not take long: commands wait. What they change
    /// afterwards must not show in the parts. An earlier frozen state is let go.
    fn freeze(&mut self);

    /// Appends about `bytes` more of the frozen state; whether there is more. With the last part it
    /// is let go.
    fn frozen_part(&mut self, bytes: usize, into: &mut Vec<u8>) -> bool;

    /// Nobody wants the rest of the frozen state.
    fn let_go(&mut self);

    /// Takes the next part of a state; the first after the last `restore_end` begins one. Parts are
    /// cut anywhere. The present state stays until the end.
    ///
    /// # Errors
    /// When it cannot be one; the state is as it was, and the rest is of no use.
    fn restore_part(&mut self, part: &[u8]) -> Result<(), RestoreError>;

    /// The parts were all: they replace the state.
    ///
    /// # Errors
    /// When some are missing; the state is as it was.
    fn restore_end(&mut self) -> Result<(), RestoreError>;
}

/// One command or query of a state machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Function {
    /// The wire name of its message, such as `ledger.transfer`.
    pub name: &'static str,
    /// [`name_hash`](super::name_hash) of the name: what stands in the log.
    pub id: u64,
    /// Whether it only reads.
    pub query: bool,
    /// The cluster version from which on it may be executed; 0 from the beginning. Until every main
    /// runs a build that knows it, it is *not applied*.
    pub since: u32,
}

impl Function {
    /// The command called `name`.
    pub const fn command(name: &'static str) -> Self {
        Self { name, id: name_hash(name), query: false, since: 0 }
    }

    /// The query called `name`.
    pub const fn query(name: &'static str) -> Self {
        Self { name, id: name_hash(name), query: true, since: 0 }
    }
}

impl Function {
    /// The same, from that cluster version on.
    #[must_use]
    pub const fn since(self, version: u32) -> Self {
        Self { since: version, ..self }
    }
}

/// The highest cluster version that a program with these state machines can execute.
pub(crate) fn known_version(machines: &[Box<dyn StateMachine>]) -> u32 {
    let functions = machines.iter().flat_map(|machine| machine.functions());
    functions.map(|function| function.since).max().unwrap_or(0)
}

/// Whether a cluster of that version has commands for `machine`.
pub(crate) fn is_in_force(machine: &dyn StateMachine, version: u32) -> bool {
    let mut commands = machine.functions().iter().filter(|function| !function.query).peekable();
    commands.peek().is_none() || commands.any(|function| function.since <= version)
}

/// Why a command or query was not executed. The state did not change.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// This build has no such command (or no such query): a replica that meets one in the log
    /// halts, since newer replicas may have executed it.
    #[error("no function {id:#018x}")]
    UnknownFunction {
        /// The number that stands in the log.
        id: u64,
    },
    /// The bytes are not that message.
    #[error("bad arguments: {0}")]
    BadArguments(String),
}

/// A snapshot that cannot be read. The state did not change.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the snapshot of {actor} cannot be read: {reason}")]
pub struct RestoreError {
    /// The state machine's name.
    pub actor: String,
    /// What is wrong with the bytes.
    pub reason: String,
}

/// Puts a [`Replicated`] actor under the log. Its snapshot is its serde form, as a MessagePack
/// named map, so that fields may be added under `#[serde(default)]`.
pub struct Host<A> {
    name: String,
    actor: A,
    functions: Vec<Function>,
}

impl<A: Replicated> Host<A> {
    /// A fresh actor addressed as `name`.
    pub fn new(name: impl Into<String>) -> Self {
        let functions = A::ENTRIES.iter().map(|entry| entry.function()).collect();
        Self { name: name.into(), actor: A::default(), functions }
    }

    /// The actor, for tests that look at its fields.
    pub fn actor(&self) -> &A {
        &self.actor
    }
}

impl<A: Replicated> Default for Host<A> {
    fn default() -> Self {
        Self::new(A::NAME)
    }
}

impl<A: Replicated> StateMachine for Host<A> {
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
        self.actor.dispatch(function, args, turn)
    }

    fn query(&self, function: u64, args: &[u8], _at: &Moment) -> Result<Vec<u8>, ApplyError> {
        self.actor.dispatch_query(function, args)
    }

    fn snapshot(&self) -> Vec<u8> {
        rmp_serde::to_vec_named(&self.actor)
            .unwrap_or_else(|error| panic!("the state of {} has no serde form: {error}", self.name))
    }

    fn restore(&mut self, bytes: &[u8]) -> Result<(), RestoreError> {
        self.actor = rmp_serde::from_slice(bytes).map_err(|error| RestoreError {
            actor: self.name.clone(),
            reason: error.to_string(),
        })?;
        Ok(())
    }

    fn descriptor(&self) -> ActorDescriptor {
        ActorDescriptor::of::<A>(&self.name)
    }
}

impl<A> fmt::Debug for Host<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Host").field("name", &self.name).finish_non_exhaustive()
    }
}
