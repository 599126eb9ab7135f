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
#[allow(dead_code, reason = "each example is a program of its own")]
pub(crate) fn nodes_as<const N: usize>(names: [(&str, &str); N]) -> Result<[Node; N], Failure> {
    nodes_of(&Authority::new(&cluster()?)?, names)
}

/// As [`nodes_as`], with certificates of this authority.
#[allow(dead_code, reason = "each example is a program of its own")]
pub(crate) fn nodes_of<const N: usize>(
    authority: &Authority,
    names: [(&str, &str); N],
) -> Result<[Node; N], Failure> {
    let mut nodes = Vec::<Node>::new();
    for (incarnation, (name, role)) in (1..).map(Incarnation).zip(names) {
        let hosts = ["localhost".to_owned()];
        let tls = authority.issue(&name.parse()?, &hosts, &[[127, 0, 0, 1].into()])?;
        let mut config = NodeConfig::new(cluster()?, name.parse()?, incarnation);
        let known = nodes.iter();
        config.peers =
            known.map(|n| (n.name().clone(), n.links().local_addr().to_string())).collect();
        config.role = role.to_owned();
        config.tls = Some(tls);
        nodes.push(start(config)?);
    }
    nodes.try_into().map_err(|_| "as many nodes as names".into())
}

/// Starts a node of the real world.
#[allow(dead_code, reason = "each example is a program of its own")]
pub(crate) fn start(config: NodeConfig) -> Result<Node, Failure> {
    let world = World {
        clock: Arc::new(RealClock),
        entropy: Arc::new(RealEntropy),
        network: Arc::new(QuicNetwork),
        disk: Arc::new(RealDisk),
    };
    Ok(Node::start(world, config)?)
}

/// What the nodes of examples call their cluster.
#[allow(dead_code, reason = "each example is a program of its own")]
pub(crate) fn cluster() -> Result<ClusterName, Failure> {
    Ok("example".parse()?)
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
