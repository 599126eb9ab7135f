//! An auxiliary without a machine: an object on shared storage, whose rules are run by whoever asks.
//!
//! A [`SharedObject`] holds the whole memory of an auxiliary and is replaced at once, by whoever
//! names the version it replaces. A main that asks the auxiliary for something reads the object,
//! lets the very `Auxiliary` that elsewhere is a process judge the question, and, if that changed
//! its memory, replaces the object. Only then is the answer believed; if another main was faster,
//! all begins again with what that one left.
//!
//! # Why two callers never both win
//! 1. A version is replaced once at most: so what the object held, version after version, is one
//!    sequence, whoever wrote it.
//! 2. Each version but the first is what the rules make of the one before and of one caller's
//!    questions: so the sequence is the life of one auxiliary that answers one question after the
//!    other.
//! 3. What is said was made durable before: an answer that depends on a change is believed only once
//!    the replacement was told to have happened. An answer without a change is judged by a version
//!    that was read after the question was asked. A caller that crashed, or was not told, says
//!    nothing; its change may stand, as that of an auxiliary whose answer was lost.
//!
//! So to all others it is an auxiliary like any other: two callers with two ballots are two questions
//! to it, and the later one in the sequence sees the promise of the earlier. An object that is gone
//! comes back as another auxiliary, with another identity, and no caller of the old one can replace
//! it, since its versions begin at another number.
//!
//! It cannot look for itself whether a main lives. So every main leaves a beat beside the object
//! twice a second; a main whose beat stands still for [`DEAD_AFTER`] counts as dead.

mod caller;
mod file;
mod seat;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    fmt, io,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use synod_runtime::identity::NodeName;

pub use self::file::FileObject;
pub(super) use self::seat::Passive;

/// Shared storage for one auxiliary. All calls may block; two callers may be anywhere.
pub trait SharedObject: Send + Sync + fmt::Debug {
    /// The newest version, whole, with its number; 0 and nothing when there is none. What
    /// [`SharedObject::swap`] replaced before this call was made is never given.
    ///
    /// # Errors
    /// What the storage says.
    fn load(&self) -> io::Result<(u64, Vec<u8>)>;

    /// Puts `bytes`, as version `next`, in the place of version `expected` (0 for none), durably
    /// and whole; false when the newest is another one: nothing was changed then.
    ///
    /// # Errors
    /// What the storage says; it may have happened or not.
    fn swap(&self, expected: u64, next: u64, bytes: &[u8]) -> io::Result<bool>;

    /// Leaves a sign of life of `node`; need not survive anything.
    ///
    /// # Errors
    /// What the storage says.
    fn beat(&self, node: &NodeName, count: u64) -> io::Result<()>;

    /// The last sign of life of `node`; 0 when there is none.
    ///
    /// # Errors
    /// What the storage says.
    fn last_beat(&self, node: &NodeName) -> io::Result<u64>;
}

/// An object in memory, for simulations and tests of programs: shared by all who hold it.
#[derive(Debug, Default)]
pub struct MemoryObject(Mutex<Held>);

#[derive(Debug, Default)]
struct Held {
    version: u64,
    bytes: Vec<u8>,
    beats: BTreeMap<NodeName, u64>,
    away: bool,
}

impl MemoryObject {
    /// Nobody reaches it, or everybody does again.
    pub fn set_away(&self, away: bool) {
        self.held().away = away;
    }

    /// It is lost.
    pub fn lose(&self) {
        *self.held() = Held::default();
    }

    /// The number of the newest version.
    pub fn version(&self) -> u64 {
        self.held().version
    }

    fn held(&self) -> std::sync::MutexGuard<'_, Held> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reach(&self) -> io::Result<std::sync::MutexGuard<'_, Held>> {
        let held = self.held();
        if held.away { Err(io::ErrorKind::TimedOut.into()) } else { Ok(held) }
    }
}

impl SharedObject for MemoryObject {
    fn load(&self) -> io::Result<(u64, Vec<u8>)> {
        let held = self.reach()?;
        Ok((held.version, held.bytes.clone()))
    }

    fn swap(&self, expected: u64, next: u64, bytes: &[u8]) -> io::Result<bool> {
        let mut held = self.reach()?;
        if held.version != expected {
            return Ok(false);
        }
        (held.version, held.bytes) = (next, bytes.to_vec());
        Ok(true)
    }

    fn beat(&self, node: &NodeName, count: u64) -> io::Result<()> {
        self.reach()?.beats.insert(node.clone(), count);
        Ok(())
    }

    fn last_beat(&self, node: &NodeName) -> io::Result<u64> {
        Ok(self.reach()?.beats.get(node).copied().unwrap_or_default())
    }
}

/// How often a main leaves a beat.
pub const BEAT_EVERY: Duration = Duration::from_millis(500);

/// A main whose beat stood still for so long counts as dead: three are missing then.
pub const DEAD_AFTER: Duration = Duration::from_millis(1_800);
