//! Nodes of one small cluster in this process, linked over real QUIC on the loopback device. A
//! node of its own process is started alike, with certificates from files.

use std::{sync::Arc, time::Duration};

use synod::runtime::{
    identity::{ClusterName, Incarnation},
    node::{Node, NodeConfig},
    quic::{Authority, QuicNetwork},
    world::{RealClock, RealEntropy, World, disk::RealDisk},
};

pub(crate) type Failure = Box<dyn std::error::Error>;

/// Starts nodes called by `names`, each linked to all others.
#[allow(dead_code, reason = "each example is a program of its own")]
pub(crate) fn nodes<const N: usize>(names: [&str; N]) -> Result<[Node; N], Failure> {
    nodes_as(names.map(|name| (name, "main")))
}

/// As [`nodes`], each with what it says it is in the cluster.
pub(crate) fn nodes_as<const N: usize>(names: [(&str, &str); N]) -> Result<[Node; N], Failure> {
    let cluster: ClusterName = "example".parse()?;
    let authority = Authority::new(&cluster)?;
    let mut nodes = Vec::<Node>::new();
    for (incarnation, (name, role)) in (1..).map(Incarnation).zip(names) {
        let mut config = NodeConfig::new(cluster.clone(), name.parse()?, incarnation);
        config.role = role.to_owned();
        let hosts = ["localhost".to_owned()];
        config.tls = Some(authority.issue(&config.name, &hosts, &[[127, 0, 0, 1].into()])?);
        let known = nodes.iter();
        config.peers =
            known.map(|n| (n.name().clone(), n.links().local_addr().to_string())).collect();
        let world = World {
            clock: Arc::new(RealClock),
            entropy: Arc::new(RealEntropy),
            network: Arc::new(QuicNetwork),
            disk: Arc::new(RealDisk),
        };
        nodes.push(Node::start(world, config)?);
    }
    nodes.try_into().map_err(|_| "as many nodes as names".into())
}

/// Names take a moment to spread: asks until there is something, for ten seconds at most.
#[allow(dead_code, reason = "each example is a program of its own")]
pub(crate) async fn until<T>(what: &str, find: impl Fn() -> Option<T>) -> Result<T, Failure> {
    for _ in 0..1_000 {
        if let Some(found) = find() {
            return Ok(found);
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Err(format!("not within ten seconds: {what}").into())
}
