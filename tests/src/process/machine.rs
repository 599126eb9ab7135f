//! The machine the tests share: alone on it or beside others; signals, `/proc`, ports.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket},
    process::Command,
    sync::{Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use super::wait::until;

/// For a test that mostly waits, or whose times are generous: clusters run beside those of others.
pub fn shared() -> RwLockReadGuard<'static, ()> {
    // A test that failed gave its place back like any other.
    MACHINE.read().unwrap_or_else(PoisonError::into_inner)
}

/// For a test that measures a fail-over to fractions of a second: nothing else of this program runs
/// meanwhile. (Cargo runs test programs one after the other.)
pub fn alone() -> RwLockWriteGuard<'static, ()> {
    MACHINE.write().unwrap_or_else(PoisonError::into_inner)
}

static MACHINE: RwLock<()> = RwLock::new(());

/// Sends `signal` (`KILL`, `STOP`, `CONT`, `TERM`) to all of `pids` with one command, so as nearly
/// at once as a system can.
///
/// # Panics
/// When a process is not there.
pub fn signal(signal: &str, pids: &[u32]) {
    let mut command = Command::new("kill");
    command.arg("-s").arg(signal).args(pids.iter().map(u32::to_string));
    let done = command.status().expect("every system has kill");
    assert!(done.success(), "kill -s {signal} {pids:?}");
}

/// Whether a process runs; a zombie does not.
pub fn is_alive(pid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    !status.is_empty() && !status.contains("State:\tZ")
}

/// Waits until the kernel has no such process any more.
pub fn wait_gone(pid: u32) {
    until(&format!("the end of process {pid}"), || match is_alive(pid) {
        true => Err("it runs".to_owned()),
        false => Ok(()),
    });
}

/// Bytes a process caused to be sent to storage, from `/proc/PID/io`.
pub fn written_bytes(pid: u32) -> u64 {
    let file = format!("/proc/{pid}/io");
    let text = fs::read_to_string(&file).unwrap_or_else(|e| panic!("{file}: {e}"));
    let line = text.lines().find_map(|line| line.strip_prefix("write_bytes: "));
    line.and_then(|number| number.trim().parse().ok()).expect("Linux counts write_bytes")
}

/// Bytes of memory a process has, its program's pages included, from `/proc/PID/status`.
pub fn resident_bytes(pid: u32) -> u64 {
    memory(pid, "VmRSS:")
}

/// The most that this ever was.
pub fn peak_bytes(pid: u32) -> u64 {
    memory(pid, "VmHWM:")
}

/// Bytes of memory of a process that are in no file: what it costs beside the program itself.
pub fn own_bytes(pid: u32) -> u64 {
    memory(pid, "RssAnon:")
}

fn memory(pid: u32, line: &str) -> u64 {
    let file = format!("/proc/{pid}/status");
    let text = fs::read_to_string(&file).unwrap_or_else(|e| panic!("{file}: {e}"));
    let line = text.lines().find_map(|all| all.strip_prefix(line));
    let kib = line.and_then(|text| text.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kib.expect("Linux tells it") * 1024
}

/// The first of three thousand-apart ports (QUIC, HTTP and RESP as `init` gives them out) that are
/// all free, below the range outgoing connections use. Each call starts behind the one before.
///
/// # Panics
/// When there is none.
pub fn free_quic_ports(count: usize) -> Vec<SocketAddr> {
    static NEXT: Mutex<u16> = Mutex::new(0);
    let mut next = NEXT.lock().unwrap_or_else(PoisonError::into_inner);
    if *next == 0 {
        let spread = u16::try_from(std::process::id() % 8_000).expect("below 8000");
        *next = 20_000 + spread;
    }
    let mut found = Vec::new();
    while found.len() < count {
        assert!(*next < 29_000, "no free ports");
        let at = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        if [*next, *next + 1_000, *next + 2_000].map(at).into_iter().all(is_free) {
            found.push(at(*next));
        }
        *next += 1;
    }
    found
}

/// A free port of TCP, which nobody else is given before it is used.
///
/// # Panics
/// When there is none.
pub fn free_tcp_port() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
    listener.and_then(|one| one.local_addr()).expect("a free port")
}

fn is_free(at: SocketAddr) -> bool {
    UdpSocket::bind(at).is_ok() && TcpListener::bind(at).is_ok()
}
