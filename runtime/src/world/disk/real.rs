//! The real form: the operating system's files, and one thread per worker.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, ErrorKind, Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::fs::FileExt as _,
    path::Path,
    process,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle, ThreadId},
    time::Duration,
};

use super::{Disk, DiskFile, Lock, LockError, Waker, Worker};

/// Name of the lock file inside a data directory. It stays when the lock is given back: removing
/// it would let two processes lock two files of one name.
const LOCK_FILE: &str = "lock";

/// The operating system's files.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealDisk;

impl Disk for RealDisk {
    fn open(&self, path: &Path, create: bool) -> io::Result<Box<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(create).truncate(false).open(path)?;
        Ok(Box::new(RealFile(file)))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        if path.as_os_str().is_empty() || path.is_dir() {
            return Ok(());
        }
        // Parents first, each made durable in its own parent: a directory whose name is lost
        // takes its synced files with it.
        let parent = path.parent().unwrap_or_else(|| Path::new("/"));
        self.create_dir_all(parent)?;
        match fs::create_dir(path) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
            _ => self.sync_dir(parent),
        }
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(dir)? {
            // A name that is no UTF-8 is none of ours.
            if let Ok(name) = entry?.file_name().into_string() {
                names.push(name);
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)?;
        if from.parent() != to.parent() {
            self.sync_dir(parent_of(from))?;
        }
        self.sync_dir(parent_of(to))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        match fs::remove_file(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
            Ok(()) => self.sync_dir(parent_of(path)),
        }
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
        File::open(dir)?.sync_all()
    }

    fn lock(&self, dir: &Path) -> Result<Box<dyn Lock>, LockError> {
        let path = dir.join(LOCK_FILE);
        let failed = |source| LockError::Io { path: path.clone(), source };
        let mut options = OpenOptions::new();
        let options = options.read(true).write(true).create(true).truncate(false);
        let mut file = options.open(&path).map_err(failed)?;
        let mut looks = DYING_LOOKS_MAX;
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) => {
                    let pid = owner(&mut file);
                    if looks == 0 || !is_dying(pid) {
                        return Err(LockError::Held { path: dir.to_path_buf(), pid });
                    }
                    looks -= 1;
                    pause();
                }
                Err(TryLockError::Error(error)) => return Err(failed(error)),
            }
        }
        file.set_len(0).map_err(failed)?;
        writeln!(file, "{}", process::id()).map_err(failed)?;
        Ok(Box::new(RealLock { _file: file }))
    }

    fn spawn_worker(&self, name: &str, worker: Box<dyn Worker>) -> Arc<dyn Waker> {
        let signal = Arc::new(Signal::default());
        let thread = {
            let signal = signal.clone();
            let work = move || run(&signal, worker);
            let builder = thread::Builder::new().name(name.to_owned());
            builder.spawn(work).expect("a system that cannot start one thread cannot run a node")
        };
        let id = thread.thread().id();
        Arc::new(RealWaker { signal, id, thread: Mutex::new(Some(thread)) })
    }
}

/// Whose number is in the lock file. The owner may not have written it yet: then 0 is the honest
/// answer.
fn owner(file: &mut File) -> u32 {
    let mut text = String::new();
    let read = file.seek(SeekFrom::Start(0)).and_then(|_| file.read_to_string(&mut text));
    read.ok().and_then(|_| text.trim().parse().ok()).unwrap_or(0)
}

/// Whether a process is on its way out: a killed one gives its files back only when the last of its
/// threads is gone, and whoever starts it again is faster than that.
fn is_dying(pid: u32) -> bool {
    match fs::read_to_string(format!("/proc/{pid}/stat")) {
        // PID (NAME) STATE …, and a name may hold anything.
        Ok(stat) => stat.rsplit(')').next().is_some_and(|rest| rest.trim().starts_with(['Z', 'X'])),
        Err(error) => error.kind() == ErrorKind::NotFound && pid != 0,
    }
}

/// Looks at the lock of a dying process, 5 ms apart: two seconds are long for giving memory back.
const DYING_LOOKS_MAX: u32 = 400;

#[expect(clippy::disallowed_methods, reason = "the node has not started: nobody else is held up")]
fn pause() {
    thread::sleep(Duration::from_millis(5));
}

fn parent_of(path: &Path) -> &Path {
    path.parent().unwrap_or_else(|| Path::new("/"))
}

#[derive(Debug)]
struct RealFile(File);

impl DiskFile for RealFile {
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        let mut done = 0;
        while done < into.len() {
            match self.0.read_at(&mut into[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(read) => done += read,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn sync_data(&mut self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn set_len(&mut self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }
}

/// Held as long as the file is open: the system gives it back even when the process is killed.
#[derive(Debug)]
struct RealLock {
    _file: File,
}

impl Lock for RealLock {}

/// What a worker's thread sleeps on.
#[derive(Debug, Default)]
struct Signal {
    state: Mutex<SignalState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct SignalState {
    pending: bool,
    stopping: bool,
    asleep: bool,
}

impl Signal {
    fn lock(&self) -> MutexGuard<'_, SignalState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state, and wakes the thread only when it sleeps: a needless wake-up costs as
    /// much as the work it announces.
    fn raise(&self, change: impl FnOnce(&mut SignalState)) {
        let mut state = self.lock();
        change(&mut state);
        let asleep = state.asleep;
        drop(state);
        if asleep {
            self.changed.notify_one();
        }
    }

    /// Sleeps until there is something to do; answers whether this is the last time.
    fn wait(&self) -> bool {
        let mut state = self.lock();
        while !state.pending && !state.stopping {
            state.asleep = true;
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.asleep = false;
        }
        state.pending = false;
        state.stopping
    }
}

fn run(signal: &Signal, mut worker: Box<dyn Worker>) {
    loop {
        let last = signal.wait();
        worker.run();
        if last {
            worker.stop();
            return;
        }
    }
}

#[derive(Debug)]
struct RealWaker {
    signal: Arc<Signal>,
    id: ThreadId,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Waker for RealWaker {
    fn wake(&self) {
        self.signal.raise(|state| state.pending = true);
    }

    fn stop(&self) {
        self.signal.raise(|state| state.stopping = true);
        // The worker may stop itself from a completion: it must not wait for its own end.
        if thread::current().id() == self.id {
            return;
        }
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            // A panic of the worker was already printed by its thread.
            let _ = thread.join();
        }
    }
}

impl Drop for RealWaker {
    fn drop(&mut self) {
        self.signal.raise(|state| state.stopping = true);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn a_file_keeps_what_was_written_under_its_new_name() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("a/b/c");
        RealDisk.create_dir_all(&deep).unwrap();
        RealDisk.create_dir_all(&deep).unwrap();
        let mut file = RealDisk.open(&deep.join("one"), true).unwrap();
        file.write_at(3, b"words").unwrap();
        file.set_len(10).unwrap();
        file.sync_data().unwrap();
        RealDisk.rename(&deep.join("one"), &deep.join("two")).unwrap();
        assert_eq!(RealDisk.list(&deep).unwrap(), ["two"]);
        let file = RealDisk.open(&deep.join("two"), false).unwrap();
        let mut bytes = [9; 20];
        assert_eq!(file.read_at(0, &mut bytes).unwrap(), 10);
        assert_eq!(&bytes[..10], b"\0\0\0words\0\0");
        RealDisk.remove(&deep.join("two")).unwrap();
        RealDisk.remove(&deep.join("two")).unwrap();
        let gone = RealDisk.open(&deep.join("two"), false).unwrap_err();
        assert_eq!(gone.kind(), ErrorKind::NotFound);
    }

    #[test]
    fn a_locked_directory_names_its_owner() {
        let dir = tempfile::tempdir().unwrap();
        let held = RealDisk.lock(dir.path()).unwrap();
        let LockError::Held { pid, .. } = RealDisk.lock(dir.path()).unwrap_err() else {
            panic!("the second taker must be told who holds it")
        };
        assert_eq!(pid, process::id());
        drop(held);
        drop(RealDisk.lock(dir.path()).unwrap());
    }

    struct Counting(mpsc::Sender<&'static str>);

    impl Worker for Counting {
        fn run(&mut self) {
            self.0.send("run").unwrap();
        }

        fn stop(&mut self) {
            self.0.send("stop").unwrap();
        }
    }

    #[test]
    fn a_worker_runs_after_a_wake_up_and_once_more_before_it_stops() {
        let (tell, told) = mpsc::channel();
        let waker = RealDisk.spawn_worker("counting", Box::new(Counting(tell)));
        waker.wake();
        assert_eq!(told.recv().unwrap(), "run");
        waker.stop();
        assert_eq!(told.iter().collect::<Vec<_>>(), ["run", "stop"]);
    }

    #[test]
    fn dropping_the_last_handle_stops_the_worker() {
        let (tell, told) = mpsc::channel();
        drop(RealDisk.spawn_worker("counting", Box::new(Counting(tell))));
        assert_eq!(told.iter().collect::<Vec<_>>(), ["run", "stop"]);
    }
}
