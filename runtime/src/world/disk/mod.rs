//! The port to files.

#[cfg(test)]
pub(crate) mod fake;
mod real;

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
};

pub use real::RealDisk;

/// The port to files. All calls block; on real disks only a [`Worker`] (or start-up) makes them.
pub trait Disk: Send + Sync + fmt::Debug {
    /// Opens a file for reading and writing.
    ///
    /// # Errors
    /// What the system says; with `create` false also `NotFound`.
    fn open(&self, path: &Path, create: bool) -> io::Result<Box<dyn DiskFile>>;

    /// Makes a directory and its parents, and makes the making durable.
    ///
    /// # Errors
    /// What the system says.
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;

    /// The names in a directory, sorted.
    ///
    /// # Errors
    /// What the system says.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;

    /// Renames a file over another and makes that durable (directory sync included).
    ///
    /// # Errors
    /// What the system says; then either name may hold.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file and makes that durable. A file that is not there is no error.
    ///
    /// # Errors
    /// What the system says.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes new names in a directory durable.
    ///
    /// # Errors
    /// What the system says.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// Takes the lock of a data directory until the answer is dropped (or the process ends).
    ///
    /// # Errors
    /// [`LockError::Held`] naming the owner's process id.
    fn lock(&self, dir: &Path) -> Result<Box<dyn Lock>, LockError>;

    /// Runs a worker where blocking is allowed: a thread of its own on a real disk, a task that
    /// takes simulated time under simulation. It runs once after every [`Waker::wake`], until
    /// dropped: one wake-up may stand for many.
    fn spawn_worker(&self, name: &str, worker: Box<dyn Worker>) -> Arc<dyn Waker>;
}

/// One open file.
#[expect(clippy::len_without_is_empty, reason = "nobody asks whether a file is empty")]
pub trait DiskFile: Send + fmt::Debug {
    /// Reads at `offset` until `into` is full or the file ends; answers how many bytes.
    ///
    /// # Errors
    /// What the system says.
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize>;

    /// Writes all of `bytes` at `offset`. Durable only after [`DiskFile::sync_data`].
    ///
    /// # Errors
    /// What the system says; then any part may have been written.
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Makes everything written durable. After an error the file must not be trusted again.
    ///
    /// # Errors
    /// What the system says.
    fn sync_data(&mut self) -> io::Result<()>;

    /// The length in bytes.
    ///
    /// # Errors
    /// What the system says.
    fn len(&self) -> io::Result<u64>;

    /// Cuts or extends (with zeros).
    ///
    /// # Errors
    /// What the system says.
    fn set_len(&mut self, len: u64) -> io::Result<()>;
}

/// Work that may block, such as the journal's writer.
pub trait Worker: Send {
    /// Does all that is queued. Called after a wake-up; must return when nothing is left.
    fn run(&mut self);

    /// Called once when the node stops, after the last `run`.
    fn stop(&mut self) {}
}

/// Wakes a worker. Dropping the last handle stops it after a last run.
pub trait Waker: Send + Sync + fmt::Debug {
    /// There is something to do.
    fn wake(&self);

    /// Stops the worker after a last run and waits for its end (on a real disk).
    fn stop(&self);
}

/// A held lock.
pub trait Lock: Send + fmt::Debug {}

/// Why a data directory could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process holds it.
    #[error("{path} is held by process {pid}")]
    Held {
        /// The directory.
        path: PathBuf,
        /// The owner.
        pid: u32,
    },
    /// The lock file cannot be made.
    #[error("{path}: {source}")]
    Io {
        /// The lock file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}
