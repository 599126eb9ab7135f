//! Process control. The standard library neither sends signals, nor ties a child's life to its
//! parent's, nor leaves a session, nor waits by CLOCK_BOOTTIME, nor tells how much processor time a
//! process has had.
#![expect(unsafe_code, reason = "these system calls have no safe form in the standard library")]

use std::{
    fs::{self, File},
    io::{self, Read as _},
    os::{
        fd::{AsRawFd as _, FromRawFd as _},
        unix::process::CommandExt as _,
    },
    process::Command,
};

use synod_runtime::world::Instant;

/// How to end a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) enum Signal {
    /// It is asked to (SIGTERM).
    Terminate,
    /// The same (SIGINT).
    Interrupt,
    /// The same (SIGQUIT).
    Quit,
    /// The same (SIGHUP).
    HangUp,
    /// It is ended (SIGKILL).
    Kill,
}

/// Makes the child die with this process, even when that is killed with signal 9, and keeps the
/// terminal's Ctrl-C from it: who starts children tells them when to stop.
///
/// Call `spawn` on a thread that lives as long as the process: the kernel ties the child to the
/// thread that made it.
pub(in crate::cli) fn tie_to_us(command: &mut Command) {
    let us = std::process::id();
    command.process_group(0);
    let tie = move || {
        // SAFETY: prctl and getppid are plain system calls without pointers, and safe to make
        // between fork and exec.
        let (tied, parent) =
            unsafe { (libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL), libc::getppid()) };
        if tied != 0 {
            return Err(io::Error::last_os_error());
        }
        // We may have died before the tie was made; then nobody would ever end the child.
        if u32::try_from(parent) != Ok(us) {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        Ok(())
    };
    // SAFETY: the closure only makes system calls that are safe between fork and exec; it neither
    // allocates nor takes a lock.
    unsafe { command.pre_exec(tie) };
}

/// Asks a child that has not been waited for to stop (SIGTERM). One that ended meanwhile is
/// still a zombie of ours, so its id cannot have become another process's.
pub(in crate::cli) fn ask_to_stop(pid: u32) {
    let Ok(pid) = libc::pid_t::try_from(pid) else { return };
    // SAFETY: kill takes no pointers; the id is a child's that was not yet waited for.
    unsafe { libc::kill(pid, libc::SIGTERM) };
}

/// Signals the whole group of a child that leads one and has not been waited for.
pub(in crate::cli) fn signal_group(leader: u32, signal: Signal) {
    let Ok(leader) = libc::pid_t::try_from(leader) else { return };
    // Minus one would mean everybody.
    if leader <= 1 {
        return;
    }
    let signal = match signal {
        Signal::Terminate => libc::SIGTERM,
        Signal::Interrupt => libc::SIGINT,
        Signal::Quit => libc::SIGQUIT,
        Signal::HangUp => libc::SIGHUP,
        Signal::Kill => libc::SIGKILL,
    };
    // SAFETY: kill takes no pointers; the group's leader was not waited for, so it is still its.
    unsafe { libc::kill(-leader, signal) };
}

/// Makes this process the first of a session of its own, beyond its parent's terminal.
pub(in crate::cli) fn own_session() -> io::Result<()> {
    // SAFETY: a system call without arguments.
    match unsafe { libc::setsid() } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// From now on descendants whose parents end become children of this process.
pub(in crate::cli) fn adopt_orphans() -> io::Result<()> {
    // SAFETY: a system call without pointers.
    match unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Waits until a child has ended, and leaves its status to whoever waits for that.
pub(in crate::cli) fn wait_ended(pid: u32) {
    let flags = libc::WEXITED | libc::WNOWAIT;
    loop {
        // SAFETY: a siginfo of zeros is valid, it is ours, and waitid only writes to it.
        let done = unsafe {
            let mut info: libc::siginfo_t = std::mem::zeroed();
            libc::waitid(libc::P_PID, pid, &raw mut info, flags)
        };
        if done == 0 || io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
            return;
        }
    }
}

/// Kills all children and waits for their ends, also of those it adopts meanwhile.
///
/// # Errors
/// The system does not tell who they are.
pub(in crate::cli) fn end_all_children() -> io::Result<()> {
    loop {
        for child in children()? {
            // SAFETY: kill takes no pointers; it is a child's id, waited for only below.
            unsafe { libc::kill(child, libc::SIGKILL) };
        }
        // SAFETY: waitpid may be given no place for the status.
        if unsafe { libc::waitpid(-1, std::ptr::null_mut(), 0) } == -1 {
            let error = io::Error::last_os_error();
            match error.raw_os_error() {
                Some(libc::ECHILD) => return Ok(()),
                Some(libc::EINTR) => {}
                _ => return Err(error),
            }
        }
    }
}

/// The children of all threads of this process.
fn children() -> io::Result<Vec<libc::pid_t>> {
    'look: loop {
        let mut all = Vec::new();
        for thread in fs::read_dir("/proc/self/task")? {
            match fs::read_to_string(thread?.path().join("children")) {
                Ok(list) => all.extend(
                    list.split_whitespace().filter_map(|pid| pid.parse::<libc::pid_t>().ok()),
                ),
                // The thread has ended meanwhile, and another has its children.
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue 'look,
                Err(e) if e.raw_os_error() == Some(libc::ESRCH) => continue 'look,
                Err(e) => return Err(e),
            }
        }
        return Ok(all);
    }
}

/// A timer that counts also while the machine sleeps. One thread waits, any may set it.
#[derive(Debug)]
pub(in crate::cli) struct BootTimer(File);

impl BootTimer {
    pub(in crate::cli) fn new() -> io::Result<Self> {
        // SAFETY: a system call without pointers.
        let timer = unsafe { libc::timerfd_create(libc::CLOCK_BOOTTIME, libc::TFD_CLOEXEC) };
        if timer == -1 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor was made just now, and nobody else knows it.
        Ok(Self(unsafe { File::from_raw_fd(timer) }))
    }

    /// From now on it fires once, at that moment; at once when the moment is over.
    pub(in crate::cli) fn set(&self, at: Instant) {
        const NANOS: u64 = 1_000_000_000;
        // Zero would switch it off.
        let nanos = at.as_nanos().max(1);
        let whole = libc::time_t::try_from(nanos / NANOS).unwrap_or(libc::time_t::MAX);
        let part = libc::c_long::try_from(nanos % NANOS).unwrap_or(0);
        let never = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        let value = libc::timespec { tv_sec: whole, tv_nsec: part };
        let time = libc::itimerspec { it_interval: never, it_value: value };
        let old = std::ptr::null_mut();
        // SAFETY: it reads an itimerspec that is ours; the old one is not wanted.
        let set = unsafe {
            libc::timerfd_settime(self.0.as_raw_fd(), libc::TFD_TIMER_ABSTIME, &raw const time, old)
        };
        assert_eq!(set, 0, "a timer of ours takes every moment");
    }

    /// Waits until it fires; false when it never will.
    pub(in crate::cli) fn wait(&self) -> bool {
        let mut times = [0; 8];
        (&self.0).read_exact(&mut times).is_ok()
    }
}

/// The processor time that this process has had, in nanoseconds.
pub(in crate::cli) fn cpu_nanos() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: it writes to a timespec that is ours.
    let read = unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time) };
    assert_eq!(read, 0, "every process has this clock");
    let whole = u64::try_from(time.tv_sec).unwrap_or(0);
    whole * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use synod_runtime::world::{Clock as _, RealClock};

    #[test]
    fn the_timer_fires_at_its_moment_and_at_once_when_that_is_over() {
        let timer = BootTimer::new().unwrap();
        let at = RealClock.now() + Duration::from_millis(30);
        timer.set(at);
        assert!(timer.wait() && RealClock.now() >= at);
        timer.set(at);
        assert!(timer.wait());
        timer.set(Instant::from_nanos(0));
        assert!(timer.wait());
    }

    #[test]
    fn threads_that_end_meanwhile_do_not_hide_the_children() {
        let over = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !over.load(std::sync::atomic::Ordering::Relaxed) {
                    let short: Vec<_> = (0..8).map(|_| std::thread::spawn(|| {})).collect();
                    short.into_iter().for_each(|thread| thread.join().unwrap());
                }
            });
            let failed = (0..2_000).find_map(|_| children().err());
            over.store(true, std::sync::atomic::Ordering::Relaxed);
            assert!(failed.is_none(), "{failed:?}");
        });
    }
}
