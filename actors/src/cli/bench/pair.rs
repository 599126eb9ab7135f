//! Two nodes in this process, each on an arbiter of its own, linked over real QUIC on loopback.

use std::{sync::Arc, time::Duration};

use actix_rt::{
    Arbiter,
    time::{sleep, timeout},
};
use synod_runtime::{
    identity::{ClusterName, Incarnation, NodeId},
    node::{Node, NodeConfig},
    quic::{Authority, QuicNetwork},
    registry::Deliver,
    wire::Frame,
    world::{
        Clock as _, RealClock, RealEntropy, World,
        disk::RealDisk,
        network::{Lane, TlsFiles},
    },
};
use tokio::sync::{Notify, oneshot};

use super::raw::Sample;
use crate::cli::failure::Failure;

/// Node `a` on the calling arbiter and node `b` on another thread's.
pub(super) struct Pair {
    pub(super) a: Node,
    pub(super) b: Node,
    pub(super) arbiter: Arbiter,
}

impl Pair {
    /// Starts both and links them.
    pub(super) async fn start() -> Result<Self, Failure> {
        let authority = authority()?;
        let of_a = config("a", issue(&authority, "a")?);
        let of_b = config("b", issue(&authority, "b")?);
        let a = start(of_a)?;
        let arbiter = Arbiter::new();
        let (tell, started) = oneshot::channel();
        arbiter.spawn_fn(move || {
            // Nobody waits for it only when the bench was given up.
            tell.send(start(of_b)).ok();
        });
        let gone = |_| Failure::failed("node b", "its thread ended", "report this");
        let b = started.await.map_err(gone)??;
        a.links().connect(b.name(), &b.links().local_addr().to_string());
        let pair = Self { a, b, arbiter };
        let linked = async {
            while !pair.is_linked() {
                sleep(LOOK_AGAIN).await;
            }
        };
        let late = |_| Failure::failed("QUIC on loopback", "no link in time", "report this");
        timeout(LINK_TIME_MAX, linked).await.map_err(late)?;
        Ok(pair)
    }

    /// The time of a small frame from `a` to `b` and back, with no actor in between.
    pub(super) async fn round_trip(&self) -> Result<Sample, Failure> {
        let back = Arc::new(Notify::new());
        let bind = |node: &Node, route| {
            let taken = |e| Failure::failed("node", e, "report this");
            node.bind(NAME, route).map_err(taken)
        };
        let _reflects = bind(&self.b, Arc::new(Reflect))?;
        let _hears = bind(&self.a, Arc::new(Hear(Arc::clone(&back))))?;
        let started = RealClock.now();
        let mut took = Vec::with_capacity(ROUNDS_MAX);
        for _ in 0..ROUNDS_MAX {
            let sent = RealClock.now();
            let lost = |why: &str| Failure::failed("QUIC on loopback", why, "report this");
            let (to, lane) = (self.b.name(), Lane::Consensus);
            self.a.tell(to, NAME, 0, lane, &BODY).map_err(|e| lost(&e.to_string()))?;
            timeout(LINK_TIME_MAX, back.notified()).await.map_err(|_| lost("no answer"))?;
            let now = RealClock.now();
            took.push(now.since(sent));
            if now.since(started) > ROUNDS_TIME_MAX {
                break;
            }
        }
        // The first half warms up.
        let warm = took.split_off(took.len() / 2);
        Ok(Sample::of(warm))
    }

    fn is_linked(&self) -> bool {
        let (a, b) = (&self.a, &self.b);
        a.links().is_up(b.name()).is_some() && b.links().is_up(a.name()).is_some()
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        self.a.shutdown();
        self.b.shutdown();
        self.arbiter.stop();
    }
}

/// A node without peers, on the calling arbiter.
pub(super) fn alone() -> Result<Node, Failure> {
    start(config("a", issue(&authority()?, "a")?))
}

/// Who signs for both.
pub(super) fn authority() -> Result<Authority, Failure> {
    Authority::new(&cluster())
        .map_err(|e| Failure::failed("certificate authority", e, "report this"))
}

/// The certificate of one of them.
pub(super) fn issue(authority: &Authority, name: &str) -> Result<TlsFiles, Failure> {
    let issued = authority.issue(&name.parse().expect("a letter"), &[], &[]);
    issued.map_err(|e| Failure::failed(format!("certificate of {name}"), e, "report this"))
}

pub(super) fn config(name: &str, tls: TlsFiles) -> NodeConfig {
    let name = name.parse().expect("a letter");
    NodeConfig { tls: Some(tls), ..NodeConfig::new(cluster(), name, Incarnation(1)) }
}

/// What the cluster of the two is called in their certificates.
pub(super) fn cluster() -> ClusterName {
    "bench".parse().expect("a name")
}

/// Starts a node on the calling arbiter.
pub(super) fn start(config: NodeConfig) -> Result<Node, Failure> {
    let world = World {
        clock: Arc::new(RealClock),
        entropy: Arc::new(RealEntropy),
        network: Arc::new(QuicNetwork),
        disk: Arc::new(RealDisk),
    };
    let what = format!("node {}", config.name);
    Node::start(world, config).map_err(|e| Failure::failed(what, e, "report this"))
}

/// Sends every frame back.
struct Reflect;

impl Deliver for Reflect {
    fn deliver(&self, from: &NodeId, batch: Vec<Frame>, node: &Node) {
        for frame in batch {
            // Whoever waits for it says that nothing came.
            node.tell(&from.name, NAME, 0, Lane::Consensus, &frame.body).ok();
        }
    }

    fn type_name(&self) -> &'static str {
        "reflect"
    }

    fn mailbox_len(&self) -> usize {
        0
    }
}

/// Tells that a frame came.
struct Hear(Arc<Notify>);

impl Deliver for Hear {
    fn deliver(&self, _from: &NodeId, _batch: Vec<Frame>, _node: &Node) {
        self.0.notify_one();
    }

    fn type_name(&self) -> &'static str {
        "hear"
    }

    fn mailbox_len(&self) -> usize {
        0
    }
}

/// Where the frames of the round trip go.
const NAME: &str = "bench.raw";

/// About as much as an acknowledgement of the log carries.
const BODY: [u8; 64] = [0; 64];

/// Enough for a steady median.
const ROUNDS_MAX: usize = 4000;

/// Far more than these rounds take on loopback.
const ROUNDS_TIME_MAX: Duration = Duration::from_secs(3);

/// A link on loopback stands in milliseconds.
const LINK_TIME_MAX: Duration = Duration::from_secs(10);

/// Between two looks whether the link stands.
const LOOK_AGAIN: Duration = Duration::from_millis(2);
