//! A lossy and long UDP relay: what a cable between two nodes does to their datagrams.
//!
//! Put its address where one node's file names the other's `quic`. Which datagrams are lost
//! depends on the seed and on their number only, so a run that failed can be tried again.

use std::{
    collections::BTreeMap,
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    thread::JoinHandle,
    time::Duration,
};

use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use synod_runtime::world::Instant;
use tokio::{
    net::UdpSocket,
    sync::{mpsc, oneshot},
    time::sleep,
};

use crate::process::{cluster::Cluster, wait::now};

/// Carries datagrams to one address and the answers back, until dropped.
#[derive(Debug)]
pub struct Relay {
    at: SocketAddr,
    cable: Arc<Cable>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// What is done to datagrams, both ways.
#[derive(Debug, Default)]
struct Cable {
    is_cut: AtomicBool,
    lost_permille: AtomicU32,
    delay_ms: AtomicU64,
    carried: AtomicU64,
    dropped: AtomicU64,
}

impl Relay {
    /// A relay to `target` on a free port of loopback that loses nothing yet.
    ///
    /// # Panics
    /// When the system gives no socket.
    pub fn start(target: SocketAddr, seed: u64) -> Self {
        let cable = Arc::new(Cable::default());
        let socket = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        socket.set_nonblocking(true).expect("a socket of ours");
        let at = socket.local_addr().expect("it is bound");
        let (stop, stopped) = oneshot::channel();
        let carrier = Arc::clone(&cable);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(async move {
                let near = Arc::new(UdpSocket::from_std(socket).expect("a socket of ours"));
                tokio::select! {
                    _ = stopped => (),
                    end = carry(near, target, carrier, seed) => {
                        end.expect("sockets of loopback work");
                    }
                }
            });
        });
        Self { at, cable, stop: Some(stop), thread: Some(thread) }
    }

    /// Lets the mains a and b of a cluster that does not run reach each other only through relays:
    /// a's way to b, and b's to a.
    pub fn between_mains(cluster: &Cluster) -> [Self; 2] {
        [("a", "b", 1), ("b", "a", 2)].map(|(from, to, seed)| Self::lay(cluster, from, to, seed))
    }

    /// Lets a node of a cluster that does not run reach all others, and them it, only through
    /// relays: cut, they leave it alone.
    pub fn around(cluster: &Cluster, node: &str) -> Vec<Self> {
        let others = cluster.nodes().map(|(name, _)| name).filter(|name| *name != node);
        let ways = others.flat_map(|other| [(node, other), (other, node)]);
        (1..).zip(ways).map(|(seed, (from, to))| Self::lay(cluster, from, to, seed)).collect()
    }

    /// Lets all nodes of a cluster that does not run reach each other only through relays.
    pub fn everywhere(cluster: &Cluster) -> Vec<Self> {
        let names = || cluster.nodes().map(|(name, _)| name);
        let ways = names().flat_map(|from| names().map(move |to| (from, to)));
        let ways = ways.filter(|(from, to)| from != to);
        (1..).zip(ways).map(|(seed, (from, to))| Self::lay(cluster, from, to, seed)).collect()
    }

    fn lay(cluster: &Cluster, from: &str, to: &str, seed: u64) -> Self {
        let target = cluster.node(to).quic;
        let relay = Self::start(target, seed);
        let named = |at| format!("quic = \"{at}\"");
        cluster.rewrite(from, &named(target), &named(relay.at()));
        relay
    }

    /// Where it listens.
    pub const fn at(&self) -> SocketAddr {
        self.at
    }

    /// From now on nothing passes, either way.
    pub fn cut(&self) {
        self.cable.is_cut.store(true, Relaxed);
    }

    /// Undoes [`Relay::cut`].
    pub fn heal(&self) {
        self.cable.is_cut.store(false, Relaxed);
    }

    /// From now on this many of a thousand datagrams are lost, either way.
    pub fn lose(&self, permille: u32) {
        self.cable.lost_permille.store(permille, Relaxed);
    }

    /// From now on each datagram is under way for so long, either way; none overtakes another.
    pub fn delay(&self, ms: u64) {
        self.cable.delay_ms.store(ms, Relaxed);
    }

    /// Datagrams that passed, and those that did not.
    pub fn counts(&self) -> (u64, u64) {
        (self.cable.carried.load(Relaxed), self.cable.dropped.load(Relaxed))
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            // A relay that panicked said so already.
            thread.join().ok();
        }
    }
}

impl Cable {
    /// Whether the next datagram passes.
    fn passes(&self, rng: &mut ChaCha8Rng) -> bool {
        let is_lost = rng.random_range(0..1_000) < self.lost_permille.load(Relaxed);
        let passes = !is_lost && !self.is_cut.load(Relaxed);
        if passes { &self.carried } else { &self.dropped }.fetch_add(1, Relaxed);
        passes
    }

    /// Lets a datagram in at one end, if it passes.
    fn put(&self, end: &End, datagram: &[u8], rng: &mut ChaCha8Rng) {
        if self.passes(rng) {
            let due = now() + Duration::from_millis(self.delay_ms.load(Relaxed));
            // A cable that is full loses more, as any other.
            end.try_send((due, datagram.to_vec())).ok();
        }
    }
}

/// Where datagrams go in, each with when it is due at the other end.
type End = mpsc::Sender<(Instant, Vec<u8>)>;

/// A cable's one direction: what is put in is sent from `out`, to `to` or to whom that is connected.
fn lay(out: Arc<UdpSocket>, to: Option<SocketAddr>) -> End {
    let (end, mut held) = mpsc::channel::<(Instant, Vec<u8>)>(HELD_MAX);
    tokio::spawn(async move {
        while let Some((due, datagram)) = held.recv().await {
            let left = due.since(now());
            if !left.is_zero() {
                sleep(left).await;
            }
            let sent = match to {
                Some(to) => out.send_to(&datagram, to).await,
                None => out.send(&datagram).await,
            };
            // Loopback says "connection refused" when a receiver is gone: that datagram is lost.
            sent.ok();
        }
    });
    end
}

async fn carry(
    near: Arc<UdpSocket>,
    target: SocketAddr,
    cable: Arc<Cable>,
    seed: u64,
) -> io::Result<()> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    // One socket to the target for each peer, as a router that translates addresses has.
    let mut far: BTreeMap<SocketAddr, End> = BTreeMap::new();
    let mut datagram = vec![0; DATAGRAM_BYTES_MAX];
    loop {
        // As above: a peer may be gone.
        let Ok((bytes, from)) = near.recv_from(&mut datagram).await else { continue };
        if !far.contains_key(&from) {
            let socket = Arc::new(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?);
            socket.connect(target).await?;
            let back = ChaCha8Rng::seed_from_u64(seed ^ (far.len() as u64 + 1));
            let end = lay(Arc::clone(&near), Some(from));
            tokio::spawn(carry_back(Arc::clone(&socket), end, Arc::clone(&cable), back));
            far.insert(from, lay(socket, None));
        }
        cable.put(&far[&from], &datagram[..bytes], &mut rng);
    }
}

async fn carry_back(far: Arc<UdpSocket>, end: End, cable: Arc<Cable>, mut rng: ChaCha8Rng) {
    let mut datagram = vec![0; DATAGRAM_BYTES_MAX];
    loop {
        // The same: the target may be down.
        if let Ok(bytes) = far.recv(&mut datagram).await {
            cable.put(&end, &datagram[..bytes], &mut rng);
        }
    }
}

/// What a fast link has under way within the longest delay of a test; some megabytes.
const HELD_MAX: usize = 4_096;

/// The largest UDP datagram.
const DATAGRAM_BYTES_MAX: usize = 65_535;

#[cfg(test)]
mod tests {
    use super::*;

    fn echo() -> (SocketAddr, std::net::UdpSocket) {
        let socket = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        (socket.local_addr().unwrap(), socket)
    }

    #[test]
    fn it_carries_both_ways_and_nothing_through_a_cut() {
        let (target, server) = echo();
        let (_, client) = echo();
        let relay = Relay::start(target, 1);
        let mut buffer = [0; 16];
        client.send_to(b"one", relay.at()).unwrap();
        let (_, from) = server.recv_from(&mut buffer).unwrap();
        server.send_to(b"back", from).unwrap();
        assert_eq!(client.recv_from(&mut buffer).unwrap(), (4, relay.at()));
        relay.cut();
        client.send_to(b"two", relay.at()).unwrap();
        crate::process::wait::until("a lost datagram", || match relay.counts() {
            (2, 1) => Ok(()),
            other => Err(format!("{other:?}")),
        });
        relay.heal();
        client.send_to(b"three", relay.at()).unwrap();
        assert_eq!(server.recv_from(&mut buffer).unwrap().0, 5, "\"two\" is lost for good");
    }

    #[test]
    fn what_is_delayed_comes_late_and_in_order() {
        let (target, server) = echo();
        let (_, client) = echo();
        let relay = Relay::start(target, 1);
        relay.delay(40);
        let began = now();
        for number in 0..100_u8 {
            client.send_to(&[number], relay.at()).unwrap();
        }
        let mut buffer = [0; 16];
        for number in 0..100 {
            let (_, from) = server.recv_from(&mut buffer).unwrap();
            assert_eq!(buffer[0], number);
            if number == 99 {
                server.send_to(b"back", from).unwrap();
            }
        }
        assert!(now().since(began) >= Duration::from_millis(40));
        assert_eq!(client.recv_from(&mut buffer).unwrap().0, 4);
        assert!(now().since(began) >= Duration::from_millis(80));
    }

    #[test]
    fn a_seed_loses_the_same_datagrams_every_time() {
        let lost = |seed| {
            let cable = Cable::default();
            cable.lost_permille.store(300, Relaxed);
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            (0..64).map(|_| cable.passes(&mut rng)).collect::<Vec<bool>>()
        };
        assert_eq!(lost(7), lost(7));
        assert_ne!(lost(7), lost(8));
    }
}
