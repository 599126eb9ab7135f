//! The node file: TOML in, a [`NodeConfig`] out that needs no further check.
//!
//! What the environment says overrides the file, and what flags say overrides the environment.
//! A variable is named after its key: `SYNOD_LISTEN_HTTP` is `http` in `[listen]`,
//! `SYNOD_DATA_DIR` is `data_dir`, and `SYNOD_LOG` is short for `filter` in `[log]`. `cluster`,
//! `name` and `role` have none: the node's certificate names it, and `SYNOD_CLUSTER` and
//! `SYNOD_ROLE` mean other things.

mod consensus;
mod elections;
mod env;
mod multicast;
mod reader;
mod services;
mod tls;
pub mod units;
mod web;

use std::{
    collections::BTreeSet,
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
    str::FromStr,
};

use serde::Serialize;
use synod_runtime::identity::{ClusterName, NodeName};

pub use self::{
    consensus::ConsensusConfig,
    elections::ElectionsConfig,
    multicast::GroupsConfig,
    reader::{ConfigError, Overrides},
    tls::{ClientAccess, TlsConfig, Tokens},
    units::HostPort,
    web::{
        Commutes, Hook, HookUrl, OnMismatch, ReadPolicy, RedoPolicy, WebConfig, WebCopies,
        WebOrder, WebRoute,
    },
};
use crate::{management::message::Spec, replicated::ARGS_BYTES_MAX};
pub(crate) use reader::{Keys, Section, Source};
pub(crate) use web::Upstream;

/// Everything a node must know before it starts.
#[derive(Debug, Clone)]
pub struct NodeConfig {
    /// The file this came from.
    pub file: PathBuf,
    /// The cluster this node belongs to.
    pub cluster: ClusterName,
    /// This node's name.
    pub name: NodeName,
    /// What this node does.
    pub role: NodeRole,
    /// Journal, snapshots and identity; held by one process at a time.
    pub data_dir: PathBuf,
    /// Where this node listens.
    pub listen: Listen,
    /// The first configuration, sorted by name, this node included unless it joins later. Counts
    /// on the first start only.
    pub peers: Vec<Peer>,
    /// Whether this node came after the first configuration and waits to be added to it.
    pub join: bool,
    /// Certificates, and what clients must show.
    pub tls: TlsConfig,
    /// The consensus roles.
    pub consensus: ConsensusConfig,
    /// How roles are held.
    pub elections: ElectionsConfig,
    /// What clients may ask at most.
    pub limits: Limits,
    /// Services that the cluster shall have.
    pub services: Vec<Spec>,
    /// The server behind this node, and how clients reach it.
    pub web: Option<WebConfig>,
    /// What new multicast groups are like.
    pub multicast: GroupsConfig,
    /// What is logged, and how.
    pub log: LogConfig,
    /// What stood in for keys of the file, to read it again.
    pub overrides: Overrides,
}

/// What a node does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NodeRole {
    /// Votes on every step, keeps all data, serves clients.
    Main,
    /// Votes only while a main is missing.
    Auxiliary,
    /// Never votes; hosts services and serves clients by forwarding.
    Member,
}

/// Where a node listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listen {
    /// Peers; UDP, always with mutual TLS.
    pub quic: SocketAddr,
    /// People, scripts, scrapers.
    pub http: SocketAddr,
    /// Redis clients; never at an auxiliary.
    pub resp: Option<SocketAddr>,
}

/// A node of the first configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Its name.
    pub name: NodeName,
    /// Its role.
    pub role: NodeRole,
    /// Where the others reach it.
    pub at: PeerAt,
}

/// Where a node is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PeerAt {
    /// A process, over QUIC.
    Quic(HostPort),
    /// An auxiliary without a process: the directory on shared storage that holds its memory
    /// ([`passive`](super::passive)).
    Shared(PathBuf),
}

/// What must survive a power loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// Everything acknowledged: it is synced before it is said.
    Fsync,
    /// Nothing: a node that restarts is a new one and copies from its peers.
    Memory,
}

/// What clients may ask at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Largest command or HTTP body, in bytes.
    pub request_bytes_max: u64,
    /// Client connections per listener.
    pub connections_max: u32,
}

/// What is logged, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogConfig {
    /// `tracing-subscriber`'s filter, such as `info` or `synod=debug`.
    pub filter: String,
    /// How a line looks.
    pub format: LogFormat,
}

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One object a line.
    Json,
}

impl NodeConfig {
    /// Reads the node file at `file`; `overrides` stand in for its keys.
    ///
    /// # Errors
    /// Names the file and key (or variable, or flag), and what to write. Nothing was changed.
    pub fn load(file: &Path, overrides: Overrides) -> Result<Self, ConfigError> {
        let (source, table) = Source::open(file, KEYS, overrides.clone())?;
        let top = source.top(table)?;
        let name: NodeName = top.need("name", "this node's name, such as \"a\"")?;
        let role = top.need("role", NodeRole::WANT)?;
        let tls = tls::read(&top.section("tls")?)?;
        let listen = read_listen(&top.section("listen")?, role, &tls.clients)?;
        let web = web::read(&top, role, &listen, &tls.clients)?;
        let join = top.section("membership")?.flag("join")?;
        let mut peers = read_peers(&top)?;
        match peers.iter().find(|peer| peer.name == name) {
            Some(_) if join => {
                let why = format!("lists {name} itself, which joins later");
                return Err(top.refuse("peers", why, "remove it, or [membership] join"));
            }
            Some(me) if me.role != role => {
                let why = format!("has {name} as {}, and `role` says {role}", me.role);
                return Err(top.refuse("peers", why, "make them agree"));
            }
            None if !join => {
                let at = PeerAt::Quic(listen.quic.into());
                peers.push(Peer { name: name.clone(), role, at });
            }
            Some(_) | None => {}
        }
        peers.sort_by(|a, b| a.name.cmp(&b.name));
        check_roles(peers.iter().map(|peer| peer.role))
            .map_err(|(why, hint)| top.refuse("peers", why, hint))?;
        let consensus = consensus::read(&top.section("consensus")?)?;
        if web.as_ref().is_some_and(|web| web.order == WebOrder::Sam) {
            web::check_sam(&top, &peers, join, consensus.durability)?;
        }
        let elections = elections::read(&top.section("elections")?)?;
        let multicast = multicast::read(&top, (&name, &peers), &elections.store)?;
        Ok(Self {
            file: file.to_owned(),
            cluster: top.need("cluster", "the cluster's name, such as \"shop\"")?,
            name,
            role,
            data_dir: top.path("data_dir")?,
            listen,
            peers,
            join,
            tls,
            consensus,
            multicast,
            elections,
            limits: read_limits(&top.section("limits")?)?,
            services: services::read(&top)?,
            web,
            log: read_log(&top.section("log")?)?,
            overrides,
        })
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self { request_bytes_max: REQUEST_BYTES_MAX, connections_max: 10_000 }
    }
}

impl NodeRole {
    const WANT: &'static str = "\"main\", \"auxiliary\" or \"member\"";
}

impl Durability {
    const WANT: &'static str = "\"fsync\" or \"memory\"";
}

impl fmt::Display for NodeRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Main => "main",
            Self::Auxiliary => "auxiliary",
            Self::Member => "member",
        })
    }
}

impl FromStr for NodeRole {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "main" => Ok(Self::Main),
            "auxiliary" => Ok(Self::Auxiliary),
            "member" => Ok(Self::Member),
            other => Err(format!("{other:?} is no role; use {}", Self::WANT)),
        }
    }
}

impl fmt::Display for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fsync => "fsync",
            Self::Memory => "memory",
        })
    }
}

impl FromStr for Durability {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "fsync" => Ok(Self::Fsync),
            "memory" => Ok(Self::Memory),
            other => Err(format!("{other:?} is no durability; use {}", Self::WANT)),
        }
    }
}

/// Whether these roles make a cluster: `(why not, what to do)` otherwise.
pub(crate) fn check_roles(roles: impl Iterator<Item = NodeRole>) -> Result<(), (String, String)> {
    let (mut mains, mut auxiliaries) = (0_usize, 0_usize);
    for role in roles {
        mains += usize::from(role == NodeRole::Main);
        auxiliaries += usize::from(role == NodeRole::Auxiliary);
    }
    if mains == 0 {
        return Err(("no main".into(), "a cluster needs at least one".into()));
    }
    if mains > MAINS_MAX {
        return Err((format!("{mains} mains"), format!("use at most {MAINS_MAX}")));
    }
    if auxiliaries >= mains {
        let why = format!("{auxiliaries} auxiliaries for {mains} mains");
        return Err((why, "use fewer auxiliaries than mains".into()));
    }
    Ok(())
}

fn read_listen(
    section: &Section<'_>,
    role: NodeRole,
    clients: &ClientAccess,
) -> Result<Listen, ConfigError> {
    let want = "an address such as \"127.0.0.1:7001\"";
    let address = |key| section.parse(key, want, units::listen_address);
    let missing = |key| section.refuse(key, "missing key", format!("give it {want}"));
    let listen = Listen {
        quic: address("quic")?.ok_or_else(|| missing("quic"))?,
        http: address("http")?.ok_or_else(|| missing("http"))?,
        resp: address("resp")?,
    };
    if role == NodeRole::Auxiliary && listen.resp.is_some() {
        return Err(section.refuse("resp", "an auxiliary serves no clients", "remove it"));
    }
    refuse_open(section, "http", listen.http, clients)?;
    listen.resp.map_or(Ok(()), |resp| refuse_open(section, "resp", resp, clients))?;
    if listen.resp == Some(listen.http) {
        return Err(section.refuse("resp", "the same address as `http`", "use two ports"));
    }
    Ok(listen)
}

/// Whoever reaches a listener may use it, so other machines must show who they are.
fn refuse_open(
    section: &Section<'_>,
    key: &'static str,
    address: SocketAddr,
    clients: &ClientAccess,
) -> Result<(), ConfigError> {
    if address.ip().is_loopback() || *clients != ClientAccess::Open {
        return Ok(());
    }
    let why = format!("{address} is open to other machines without TLS and a credential");
    let port = address.port();
    let hint = format!("set [tls] clients, or use 127.0.0.1:{port} and a tunnel");
    Err(section.refuse(key, why, hint))
}

fn read_peers(top: &Section<'_>) -> Result<Vec<Peer>, ConfigError> {
    let (mut peers, mut names) = (Vec::new(), BTreeSet::new());
    for section in top.list("peers")? {
        let name: NodeName = section.need("name", "the peer's name")?;
        if !names.insert(name.clone()) {
            let why = format!("{name} is there twice");
            return Err(section.refuse("name", why, "every node needs a name of its own"));
        }
        let role = section.need("role", NodeRole::WANT)?;
        let at = if !section.has("shared") {
            PeerAt::Quic(section.need("quic", "the peer's address, host:port")?)
        } else if role != NodeRole::Auxiliary {
            let why = format!("{name} is a {role}, which needs a process");
            return Err(section.refuse("shared", why, "give it `quic`"));
        } else if section.has("quic") {
            let why = "is there beside `quic`";
            return Err(section.refuse("shared", why, "an auxiliary has one of them"));
        } else {
            PeerAt::Shared(section.path("shared")?)
        };
        peers.push(Peer { name, role, at });
    }
    Ok(peers)
}

fn read_limits(section: &Section<'_>) -> Result<Limits, ConfigError> {
    let default = Limits::default();
    let sizes = REQUEST_BYTES_MIN..=REQUEST_BYTES_MAX;
    Ok(Limits {
        request_bytes_max: section.size("request", sizes, default.request_bytes_max)?,
        connections_max: section.number("connections", 1..=1_000_000, default.connections_max)?,
    })
}

fn read_log(section: &Section<'_>) -> Result<LogConfig, ConfigError> {
    let filter = |text: &str| match tracing_subscriber::EnvFilter::try_new(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(e) => Err(format!("{text:?} is no filter ({e}); write it like info,synod=debug")),
    };
    let format = |text: &str| match text {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        other => Err(format!("{other:?} is no format; use \"text\" or \"json\"")),
    };
    let filter = section.parse("filter", "a filter such as \"info\"", filter)?;
    let format = section.parse("format", "\"text\" or \"json\"", format)?;
    Ok(LogConfig {
        filter: filter.unwrap_or_else(|| FILTER.to_owned()),
        format: format.unwrap_or(LogFormat::Text),
    })
}

/// Every key of the node file.
const KEYS: Keys = &[
    (
        "",
        &[
            "cluster",
            "name",
            "role",
            "data_dir",
            "listen",
            "peers",
            "tls",
            "consensus",
            "membership",
            "elections",
            "services",
            "multicast",
            "web",
            "limits",
            "log",
        ],
    ),
    ("listen", &["quic", "http", "resp"]),
    ("peers", &["name", "role", "quic", "shared"]),
    ("tls", &["ca", "cert", "key", "revoked", "clients", "tokens"]),
    (
        "consensus",
        &[
            "profile",
            "vote",
            "clock_trust",
            "durability",
            "heartbeat",
            "election_timeout",
            "hedge",
            "t_remove_unreachable",
            "t_remove",
        ],
    ),
    ("membership", &["join"]),
    ("elections", &["store", "lease", "disks"]),
    ("services", services::KEYS),
    ("web", web::KEYS),
    ("routes", web::ROUTE_KEYS),
    ("multicast", multicast::KEYS),
    ("limits", &["request", "connections"]),
    ("log", &["filter", "format"]),
];

/// What is logged when nobody says: what a node does, not how its HTTP workers come and go.
const FILTER: &str = "info,actix_server=warn";

/// Every main is in the preferred write quorum: more of them only make the slowest one likelier.
const MAINS_MAX: usize = 7;

/// Less than a page would refuse ordinary requests.
const REQUEST_BYTES_MIN: u64 = 4 << 10;

/// What fits one command of the log.
const REQUEST_BYTES_MAX: u64 = ARGS_BYTES_MAX as u64;

#[cfg(test)]
mod tests;
