//! `init`: certificates and node files for real machines.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use rand::Rng as _;
use synod_runtime::{
    identity::{ClusterName, NodeName},
    world::{Entropy as _, RealEntropy},
};

use super::{
    args::{InitArgs, NamedAddress},
    failure::Failure,
    layout::{AUTHORITY, ClusterDir, NodePlan},
    out,
};
use crate::client::ClientFile;
use crate::server::config::{
    ConsensusConfig, HostPort, Listen, NodeConfig, NodeRole, Peer, PeerAt, check_roles,
};

/// Writes what `args` asks for; `with_resp` when this program serves Redis clients.
pub(crate) fn run(program: &str, args: &InitArgs, with_resp: bool) -> Result<(), Failure> {
    let dir = ClusterDir::new(&args.out);
    if let Some(client) = &args.client {
        let cert = dir.add_client(client)?;
        let cert = cert.display();
        return out::say(format!("{cert}: beside its key; name both in client.toml")).map(drop);
    }
    if let (Some(add), Some(role)) = (&args.add, args.role) {
        let known = dir.nodes()?;
        let mut holders = known.iter().filter_map(|config| whose(config, &add.address));
        if let Some(other) = holders.find(|other| *other != add.name) {
            // It may take the place of one that is gone.
            let (name, at) = (&add.name, &add.address);
            let what =
                format!("node {name}: {at} is {other}'s too; remove {other} before {name} runs");
            out::tell(format_args!("{program}: {what}"));
        }
        let clients = ClientFile::load(&dir.client_file())?;
        let addresses = known.iter().flat_map(|config| {
            [Some(config.listen.http), config.listen.resp].into_iter().flatten()
        });
        let taken = addresses.map(|address| address.port()).collect();
        let mut ports = Ports { taken, open: dir.token(&clients)?.is_some() };
        let plan = ports.plan(add, role, with_resp)?;
        dir.add(&plan)?;
        let folder = dir.path().join(add.name.as_str());
        let folder = folder.display();
        return out::say(format!("{folder}: ready to be copied to its machine")).map(drop);
    }
    let cluster = args.cluster.as_ref().expect("clap requires it without --add");
    for plan in &create(args, cluster, with_resp)? {
        let folder = dir.path().join(plan.name.as_str());
        let folder = folder.display();
        out::say(format!("{folder}: {} {} at {}", plan.role, plan.name, plan.quic))?;
    }
    out::say(format!(
        "Copy each directory to its machine and start there: {program} node --config NAME/synod.toml"
    ))?;
    let authority = dir.path().join(AUTHORITY);
    let authority = authority.display();
    out::say(format!("Keep {authority} offline: it is needed only to add nodes.")).map(drop)
}

/// Who has `address`, as far as the file of a node says. One that was added later to a machine of its own
/// has listed its address nowhere but there.
fn whose(config: &NodeConfig, address: &HostPort) -> Option<NodeName> {
    let listen = config.listen.quic;
    if !listen.ip().is_unspecified() && HostPort::from(listen) == *address {
        return Some(config.name.clone());
    }
    let has = |peer: &&Peer| matches!(&peer.at, PeerAt::Quic(quic) if quic == address);
    config.peers.iter().find(has).map(|peer| peer.name.clone())
}

/// Writes the directory of a new cluster; the nodes it has.
pub(crate) fn create(
    args: &InitArgs,
    cluster: &ClusterName,
    with_resp: bool,
) -> Result<Vec<NodePlan>, Failure> {
    let plans = plan(args, with_resp)?;
    let token = args.open.then(new_token);
    let consensus = ConsensusConfig::of(args.profile);
    ClusterDir::new(&args.out).create(cluster, &plans, &consensus, token.as_deref())?;
    Ok(plans)
}

fn plan(args: &InitArgs, with_resp: bool) -> Result<Vec<NodePlan>, Failure> {
    let groups = [
        (&args.main, NodeRole::Main),
        (&args.auxiliary, NodeRole::Auxiliary),
        (&args.member, NodeRole::Member),
    ];
    let mut ports = Ports { open: args.open, ..Ports::default() };
    // By host, since each machine has its own ports.
    let mut by_host: BTreeMap<String, Ports> = BTreeMap::new();
    let (mut plans, mut names, mut addresses) = (Vec::new(), BTreeSet::new(), BTreeSet::new());
    for (node, role) in
        groups.into_iter().flat_map(|(nodes, role)| nodes.iter().map(move |n| (n, role)))
    {
        if !names.insert(&node.name) {
            let why = "there twice";
            return Err(Failure::usage(format!("node {}", node.name), why, "use two names"));
        }
        if !addresses.insert(node.address.to_string()) {
            let what = format!("node {}", node.name);
            let why = format!("{} is another node's", node.address);
            return Err(Failure::usage(what, why, "use another port"));
        }
        let ports = match node.address.is_loopback() {
            true => &mut ports,
            false => by_host
                .entry(node.address.host().to_owned())
                .or_insert_with(|| Ports { open: args.open, ..Ports::default() }),
        };
        plans.push(ports.plan(node, role, with_resp)?);
    }
    check_roles(plans.iter().map(|plan| plan.role))
        .map_err(|(why, hint)| Failure::usage("--main, --auxiliary", why, &hint))?;
    Ok(plans)
}

/// The TCP ports already given away on one machine.
#[derive(Debug, Default)]
struct Ports {
    taken: BTreeSet<u16>,
    /// Whether other machines' clients come too.
    open: bool,
}

impl Ports {
    fn plan(
        &mut self,
        node: &NamedAddress,
        role: NodeRole,
        with_resp: bool,
    ) -> Result<NodePlan, Failure> {
        if node.name.as_str() == AUTHORITY {
            let why = "the authority's directory has that name";
            return Err(Failure::usage("node authority", why, "choose another name"));
        }
        let (quic, open) = (listen_quic(&node.address), self.open);
        let mut near = |distance| {
            let port = self.take(node.address.port(), distance);
            SocketAddr::new(if open { quic.ip() } else { Ipv4Addr::LOCALHOST.into() }, port)
        };
        let http = near(HTTP_DISTANCE);
        let resp = (with_resp && role != NodeRole::Auxiliary).then(|| near(RESP_DISTANCE));
        Ok(NodePlan {
            name: node.name.clone(),
            role,
            quic: node.address.clone(),
            listen: Listen { quic, http, resp },
            web: None,
        })
    }

    /// A port about `distance` above `quic`, so that several nodes on one machine do not meet.
    fn take(&mut self, quic: u16, distance: u16) -> u16 {
        let mut port = quic.checked_add(distance).unwrap_or_else(|| quic - distance);
        while !self.taken.insert(port) {
            port = port.checked_add(1).unwrap_or(FIRST_PORT);
        }
        port
    }
}

/// 256 bits nobody can guess, as text.
fn new_token() -> String {
    let mut rng = RealEntropy.rng("init/token");
    (0..4).map(|_| format!("{:016x}", rng.next_u64())).collect()
}

/// A machine's own address may not be the one others reach it by, so listen on all of them; mutual
/// TLS guards that port. Loopback stays on loopback.
fn listen_quic(address: &HostPort) -> SocketAddr {
    let all: IpAddr = match address.ip() {
        Some(ip) if ip.is_loopback() => ip,
        Some(IpAddr::V6(_)) => Ipv6Addr::UNSPECIFIED.into(),
        Some(IpAddr::V4(_)) => Ipv4Addr::UNSPECIFIED.into(),
        None if address.is_loopback() => Ipv4Addr::LOCALHOST.into(),
        None => Ipv4Addr::UNSPECIFIED.into(),
    };
    SocketAddr::new(all, address.port())
}

/// From a node's QUIC port to its HTTP port.
const HTTP_DISTANCE: u16 = 1000;

/// From a node's QUIC port to its RESP port.
const RESP_DISTANCE: u16 = 2000;

/// Ports below need rights that a node should not have.
const FIRST_PORT: u16 = 1024;
