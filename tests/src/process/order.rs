//! What puts the requests of the web binding's sites in one order.

use super::cluster::Cluster;

/// One of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// The cluster's log.
    Paxos,
    /// A group of multicast, which wants a third node that is no auxiliary.
    Sam,
}

impl Order {
    /// `synod dev` with these servers behind its two mains.
    pub fn before(self, servers: &[String; 2]) -> Cluster {
        let args = ["--upstream", &servers[0], "--upstream", &servers[1]];
        match self {
            Self::Paxos => Cluster::dev("synod", &args),
            Self::Sam => {
                let args = [&args[..], &["--members", "1"]].concat();
                Cluster::dev_told("synod", &args, ("SYNOD_WEB_ORDER", "sam"))
            }
        }
    }
}
