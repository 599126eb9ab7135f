//! Process control. The standard library neither sends signals, nor ties a child's life to its
//! parent's, nor tells how much processor time a process has had.
#![expect(unsafe_code, reason = "these system calls have no safe form in the standard library")]

use std::io;

use tokio::process::Command;

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

/// The processor time that this process has had, in nanoseconds.
pub(in crate::cli) fn cpu_nanos() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: it writes to a timespec that is ours.
    let read = unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time) };
    assert_eq!(read, 0, "every process has this clock");
    let whole = u64::try_from(time.tv_sec).unwrap_or(0);
    whole * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
}
