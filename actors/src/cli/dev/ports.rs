//! Free ports on loopback.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket},
};

/// Hands out ports that nobody listens on, each once.
///
/// They lie below the range the kernel takes ports of outgoing connections from: otherwise any
/// client could sit on a node's port while that node is being restarted.
#[derive(Debug)]
pub(super) struct FreePorts {
    next: u16,
    end: u16,
    /// Ports not looked at yet; when it is spent there is no free one.
    left: u32,
}

impl FreePorts {
    /// Starts at a place that depends on `seed`, so that two of us at once seldom meet.
    pub(super) fn new(seed: u32) -> Self {
        let end = ephemeral_start().unwrap_or(EPHEMERAL_START).max(FIRST + 1000);
        let range = u32::from(end - FIRST);
        // More apart than one cluster takes.
        let offset = seed.wrapping_mul(SPREAD) % range;
        let next = FIRST + u16::try_from(offset).expect("less than the range of ports");
        Self { next, end, left: range }
    }

    /// The next free port, for UDP and TCP.
    pub(super) fn take(&mut self) -> Option<SocketAddr> {
        while self.left > 0 {
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.next));
            self.left -= 1;
            self.next = if self.next + 1 == self.end { FIRST } else { self.next + 1 };
            if is_free(address) {
                return Some(address);
            }
        }
        None
    }
}

/// Whether nobody listens there, by UDP or TCP. Binding and letting go is all one can do; whoever
/// binds in between wins, and the node says so when it starts.
pub(super) fn is_free(address: SocketAddr) -> bool {
    UdpSocket::bind(address).is_ok() && TcpListener::bind(address).is_ok()
}

fn ephemeral_start() -> Option<u16> {
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").ok()?;
    range.split_whitespace().next()?.parse().ok()
}

/// Above the ports well-known services use by default.
const FIRST: u16 = 12_000;

/// Linux' default, where the kernel does not say.
const EPHEMERAL_START: u16 = 32_768;

/// Seven mains, six auxiliaries and some members with three ports each.
const SPREAD: u32 = 61;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_handed_out_once_and_only_when_free() {
        let mut ports = FreePorts::new(std::process::id());
        let taken = ports.take().unwrap();
        assert!(taken.ip().is_loopback());
        assert_ne!(ports.take().unwrap(), taken);
        let held = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        assert!(!is_free(held.local_addr().unwrap()));
    }
}
