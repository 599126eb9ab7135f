//! A network of its own for every node: Linux network namespaces, joined by a switch in one more
//! namespace, with cables that are pulled and directions that are cut. Nothing of the machine's own
//! network is touched.
//!
//! Nodes listen for people on their own loopback, which only they can reach. A *door* leads
//! there: an address on this machine's loopback, whose connections are carried into the namespace.
#![expect(unsafe_code, reason = "setns has no safe form in the standard library")]

use std::{
    fs::File,
    io,
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    os::fd::AsRawFd as _,
    path::PathBuf,
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
};

use super::disk::done;

/// The namespaces of some nodes, deleted when dropped.
#[derive(Debug)]
pub struct Namespaces {
    /// Of this program's, which one.
    number: u32,
    nodes: Vec<String>,
}

impl Namespaces {
    /// One namespace for each of `nodes`, with one cable to the switch.
    ///
    /// # Errors
    /// What the machine lacks: rights, `ip`, or a kernel's module.
    pub fn make(nodes: &[&str]) -> Result<Self, String> {
        // From here on, what was made is deleted, whatever fails.
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let made = Self { number, nodes: nodes.iter().map(|&node| node.to_owned()).collect() };
        let hub = made.space(HUB);
        ip(&["netns", "add", &hub])?;
        ip(&["-n", &hub, "link", "add", "switch", "type", "bridge"])?;
        ip(&["-n", &hub, "link", "set", "switch", "up"])?;
        for node in nodes {
            let (space, cable) = (made.space(node), cable(node));
            ip(&["netns", "add", &space])?;
            let pair = ["type", "veth", "peer", "name", "eth0", "netns", &space];
            ip(&[&["-n", &hub, "link", "add", &cable][..], &pair].concat())?;
            ip(&["-n", &hub, "link", "set", &cable, "master", "switch", "up"])?;
            let address = format!("{}/24", made.address(node));
            ip(&["-n", &space, "address", "add", &address, "dev", "eth0"])?;
            ip(&["-n", &space, "link", "set", "lo", "up"])?;
            ip(&["-n", &space, "link", "set", "eth0", "up"])?;
        }
        Ok(made)
    }

    /// The name of a node's namespace. Two tests on one machine do not meet.
    fn space(&self, node: &str) -> String {
        format!("synod-{}-{}-{node}", std::process::id(), self.number)
    }

    /// Where a node is in its network.
    ///
    /// # Panics
    /// When there is no such node.
    pub fn address(&self, node: &str) -> Ipv4Addr {
        let place = self.nodes.iter().position(|one| one == node).expect("a node with a namespace");
        Ipv4Addr::new(10, 77, 0, u8::try_from(place + 1).expect("few nodes"))
    }

    /// The words before a command that shall run where `node` is.
    pub fn inside(&self, node: &str) -> Vec<String> {
        ["ip", "netns", "exec", &self.space(node)].map(str::to_owned).to_vec()
    }

    /// Pulls the cable of `node`.
    ///
    /// # Panics
    /// When there is no such node.
    pub fn unplug(&self, node: &str) {
        ip(&["-n", &self.space(HUB), "link", "set", &cable(node), "down"])
            .expect("a cable of ours");
    }

    /// Undoes [`Namespaces::unplug`].
    ///
    /// # Panics
    /// When there is no such node.
    pub fn plug(&self, node: &str) {
        ip(&["-n", &self.space(HUB), "link", "set", &cable(node), "up"]).expect("a cable of ours");
    }

    /// From now on what `from` sends to `to` gets lost; the other direction works.
    ///
    /// # Panics
    /// When there is no such node.
    pub fn cut(&self, from: &str, to: &str) {
        let to = self.address(to).to_string();
        let wrong = ["lladdr", NOBODY, "dev", "eth0", "nud", "permanent"];
        ip(&[&["-n", &self.space(from), "neighbour", "replace", &to][..], &wrong].concat())
            .expect("a neighbour of ours");
    }

    /// Undoes [`Namespaces::cut`].
    ///
    /// # Panics
    /// When it was not cut.
    pub fn heal(&self, from: &str, to: &str) {
        let to = self.address(to).to_string();
        ip(&["-n", &self.space(from), "neighbour", "del", &to, "dev", "eth0"]).expect("it was cut");
    }

    /// From now on this many of a hundred packets from `node` get lost.
    ///
    /// # Errors
    /// The kernel has no `netem`.
    pub fn lose(&self, node: &str, percent: u8) -> Result<(), String> {
        let loss = format!("{percent}%");
        let words = ["qdisc", "replace", "dev", "eth0", "root", "netem", "loss", &loss];
        done("tc", Command::new("tc").args(["-n", &self.space(node)]).args(words))
    }

    /// An address on this machine's loopback that leads to `to` in the namespace of `node`, for as
    /// long as this process lives.
    ///
    /// # Panics
    /// When the system gives no port, or `node` no namespace.
    pub fn door(&self, node: &str, to: SocketAddr) -> SocketAddr {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let at = listener.local_addr().expect("it is bound");
        let file = PathBuf::from("/run/netns").join(self.space(node));
        let space = File::open(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        std::thread::spawn(move || {
            for near in listener.incoming().map_while(Result::ok) {
                let space = space.try_clone().expect("a descriptor more");
                // A node that is down refuses; dropping `near` tells the client.
                std::thread::spawn(move || carry(&near, &space, to).ok());
            }
        });
        at
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        for name in self.nodes.iter().map(String::as_str).chain([HUB]) {
            // What was never made needs no deletion.
            Command::new("ip").args(["netns", "delete", &self.space(name)]).output().ok();
        }
    }
}

/// Carries one connection until either end closes it.
fn carry(near: &TcpStream, space: &File, to: SocketAddr) -> io::Result<()> {
    enter(space)?;
    let far = TcpStream::connect(to)?;
    far.set_nodelay(true)?;
    near.set_nodelay(true)?;
    std::thread::scope(|scope| {
        for (mut from, mut into) in [(near, &far), (&far, near)] {
            scope.spawn(move || {
                // However it ended, both ends learn of it.
                io::copy(&mut from, &mut into).ok();
                from.shutdown(Shutdown::Both).ok();
                into.shutdown(Shutdown::Both).ok();
            });
        }
    });
    Ok(())
}

/// Moves the calling thread, which must do nothing else afterwards, into a namespace.
fn enter(space: &File) -> io::Result<()> {
    // SAFETY: a system call without pointers, on a descriptor that lives throughout; it changes
    // nothing but the network that this thread's new sockets belong to.
    match unsafe { libc::setns(space.as_raw_fd(), libc::CLONE_NEWNET) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The switch's end of a node's cable; the names of interfaces are short.
fn cable(node: &str) -> String {
    format!("to-{node}")
}

fn ip(words: &[&str]) -> Result<(), String> {
    done("ip", Command::new("ip").args(words))
}

/// The switch's namespace; no node has that name.
const HUB: &str = "hub";

/// A hardware address that no interface has.
const NOBODY: &str = "02:00:00:00:00:fe";
