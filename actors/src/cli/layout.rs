//! The directory of a cluster as `init` and `dev` write it:
//!
//! ```text
//! DIR/client.toml                       whom clients ask
//! DIR/{ca.pem,token}                    what clients trust and show, with `init --open`
//! DIR/authority/{ca.pem,ca-key.pem}     keep this one offline
//! DIR/NAME/{synod.toml,ca.pem,cert.pem,key.pem}
//! ```

use std::{
    fs,
    io::{self, Write as _},
    net::SocketAddr,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use synod_runtime::{
    identity::{ClusterName, NodeName},
    quic::Authority,
};

use super::failure::Failure;
use crate::client::{ClientFile, ClientNode, Credentials};
use crate::server::config::{
    ConsensusConfig, HostPort, Listen, NodeConfig, NodeRole, Overrides, PeerAt,
};

/// A cluster's directory.
#[derive(Debug, Clone)]
pub(crate) struct ClusterDir(PathBuf);

/// A node to write a directory for.
#[derive(Debug, Clone)]
pub(crate) struct NodePlan {
    pub(crate) name: NodeName,
    pub(crate) role: NodeRole,
    /// Where peers reach it.
    pub(crate) quic: HostPort,
    pub(crate) listen: Listen,
    /// The server behind it, and where clients reach that.
    pub(crate) web: Option<(SocketAddr, String)>,
}

impl ClusterDir {
    pub(crate) fn new(dir: impl Into<PathBuf>) -> Self {
        Self(dir.into())
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn client_file(&self) -> PathBuf {
        self.0.join("client.toml")
    }

    /// Writes everything for a new cluster. Refuses before the first write when anything of it
    /// is already there.
    pub(crate) fn create(
        &self,
        cluster: &ClusterName,
        nodes: &[NodePlan],
        consensus: &ConsensusConfig,
        token: Option<&str>,
    ) -> Result<(), Failure> {
        let folders = nodes.iter().map(|node| self.0.join(node.name.as_str()));
        let mut all = folders.chain([self.authority(), self.client_file()]);
        if let Some(there) = all.find(|path| path.exists()) {
            let hint = "choose another directory, or add nodes with --add";
            return Err(Failure::usage(there.display(), "already there", hint));
        }
        let authority = Authority::new(cluster)
            .map_err(|e| Failure::failed("certificate authority", e, "report this"))?;
        let peers: Vec<String> = nodes.iter().map(peer_table).collect();
        self.write(&self.authority(), |folder| {
            write_new(&folder.join("ca.pem"), 0o644, authority.ca_pem().as_ref())?;
            write_new(&folder.join("ca-key.pem"), 0o600, authority.key_pem().as_ref())
        })?;
        for node in nodes {
            let peers = peers.concat();
            let text = node_text(cluster, node, consensus, &peers, false, token.is_some());
            self.write_node(&authority, node, &text, token)?;
        }
        let mut credentials = Credentials::default();
        if let Some(token) = token {
            self.write(&self.0, |folder| {
                write_new(&folder.join(CA), 0o644, authority.ca_pem().as_ref())?;
                write_new(&folder.join(TOKEN), 0o600, token.as_ref())
            })?;
            (credentials.ca, credentials.token) = (Some(CA.to_owned()), Some(TOKEN.to_owned()));
        }
        let nodes = nodes.iter().map(client_node).collect();
        self.write_client_file(&ClientFile { cluster: cluster.clone(), nodes, credentials })
    }

    /// Writes one more node's directory and names it in `client.toml`. Refuses, before the first
    /// write, a name that is already there.
    pub(crate) fn add(&self, node: &NodePlan) -> Result<(), Failure> {
        let mut clients = ClientFile::load(&self.client_file())?;
        let folder = self.0.join(node.name.as_str());
        if folder.exists() || clients.nodes.iter().any(|other| other.name == node.name) {
            let hint = "choose another name; a name is used once";
            return Err(Failure::usage(folder.display(), "already there", hint));
        }
        let configs = self.nodes()?;
        let Some(known) = configs.iter().find(|config| !config.join) else {
            let why = "has no node of the first configuration";
            return Err(Failure::usage(self.0.display(), why, "name the directory init wrote"));
        };
        let authority = self.stored_authority(&clients.cluster)?;
        let peers = known.peers.iter().map(|peer| table(&peer.name, peer.role, &peer.at));
        let peers: String = peers.collect();
        let token = self.token(&clients)?;
        let text =
            node_text(&clients.cluster, node, &known.consensus, &peers, true, token.is_some());
        self.write_node(&authority, node, &text, token.as_deref())?;
        clients.nodes.push(client_node(node));
        self.write_client_file(&clients)
    }

    /// Writes a client's certificate and its key; answers where. Refuses a name that is there.
    pub(crate) fn add_client(&self, name: &NodeName) -> Result<PathBuf, Failure> {
        let clients = ClientFile::load(&self.client_file())?;
        let authority = self.stored_authority(&clients.cluster)?;
        let tls = authority
            .issue_client(name)
            .map_err(|e| Failure::failed(format!("certificate of {name}"), e, "report this"))?;
        let (cert, key) = (format!("{name}-client.pem"), format!("{name}-client-key.pem"));
        if self.0.join(&cert).exists() {
            let hint = "choose another name, or remove it first";
            return Err(Failure::usage(self.0.join(cert).display(), "already there", hint));
        }
        self.write(&self.0, |folder| {
            write_new(&folder.join(&key), 0o600, &tls.key)?;
            write_new(&folder.join(&cert), 0o644, &tls.cert)?;
            // What such a client trusts.
            let ca = write_new(&folder.join(CA), 0o644, &tls.ca);
            ca.or_else(|e| if e.kind() == io::ErrorKind::AlreadyExists { Ok(()) } else { Err(e) })
        })?;
        Ok(self.0.join(cert))
    }

    /// The authority that `create` wrote.
    fn stored_authority(&self, cluster: &ClusterName) -> Result<Authority, Failure> {
        let (ca, key) = (self.authority().join("ca.pem"), self.authority().join("ca-key.pem"));
        let read = |path: &Path| {
            fs::read_to_string(path).map_err(|e| {
                let hint = "bring back the authority's directory";
                Failure::usage(path.display(), format!("cannot be read: {e}"), hint)
            })
        };
        Authority::from_pem(cluster, &read(&ca)?, &read(&key)?)
            .map_err(|e| Failure::usage(ca.display(), e, "bring back what init wrote"))
    }

    /// Every node that has a directory here, by name.
    pub(crate) fn nodes(&self) -> Result<Vec<NodeConfig>, Failure> {
        let cannot = |e: io::Error| {
            let why = format!("cannot be listed: {e}");
            Failure::usage(self.0.display(), why, "name a cluster's directory")
        };
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.0).map_err(cannot)? {
            let file = entry.map_err(cannot)?.path().join("synod.toml");
            if file.exists() {
                files.push(file);
            }
        }
        files.sort();
        let load = |file: &PathBuf| Ok(NodeConfig::load(file, Overrides::default())?);
        files.iter().map(load).collect()
    }

    pub(crate) fn authority(&self) -> PathBuf {
        self.0.join(AUTHORITY)
    }

    fn write_node(
        &self,
        authority: &Authority,
        node: &NodePlan,
        text: &str,
        token: Option<&str>,
    ) -> Result<(), Failure> {
        // Clients look for the host they dialled in the certificate.
        let (dns, ips) = match node.quic.ip() {
            Some(ip) => (Vec::new(), vec![ip]),
            None => (vec![node.quic.host().to_owned()], Vec::new()),
        };
        let tls = authority.issue(&node.name, &dns, &ips).map_err(|e| {
            Failure::failed(format!("certificate of {}", node.name), e, "report this")
        })?;
        self.write(&self.0.join(node.name.as_str()), |folder| {
            write_new(&folder.join("ca.pem"), 0o644, &tls.ca)?;
            write_new(&folder.join("cert.pem"), 0o644, &tls.cert)?;
            write_new(&folder.join("key.pem"), 0o600, &tls.key)?;
            if let Some(token) = token {
                write_new(&folder.join(TOKENS), 0o600, format!("admin {token}\n").as_bytes())?;
            }
            write_new(&folder.join("synod.toml"), 0o644, text.as_bytes())
        })
    }

    /// The token of a cluster that `init --open` wrote.
    pub(crate) fn token(&self, clients: &ClientFile) -> Result<Option<String>, Failure> {
        let Some(file) = &clients.credentials.token else { return Ok(None) };
        let path = self.0.join(file);
        let text = fs::read_to_string(&path).map_err(|e| {
            Failure::usage(path.display(), format!("cannot be read: {e}"), "bring it back")
        })?;
        Ok(Some(text.trim().to_owned()))
    }

    fn write_client_file(&self, clients: &ClientFile) -> Result<(), Failure> {
        self.write(&self.0, |_| {
            let (file, part) = (self.client_file(), self.0.join("client.toml.part"));
            fs::remove_file(&part).or_else(only_if_there)?;
            write_new(&part, 0o644, clients.render().as_bytes())?;
            fs::rename(part, file)
        })
    }

    /// Makes `folder` (only its owner may look inside) and lets `write` fill it.
    fn write(
        &self,
        folder: &Path,
        write: impl FnOnce(&Path) -> io::Result<()>,
    ) -> Result<(), Failure> {
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
        made.and_then(|()| write(folder)).map_err(|e| {
            Failure::failed(folder.display(), format!("cannot be written: {e}"), "make room for it")
        })
    }
}

/// Beside the client file.
const CA: &str = "ca.pem";
const TOKEN: &str = "token";

/// Beside a node file: who may come with which token.
const TOKENS: &str = "tokens";

/// What may not be a node's name, since the authority lives beside the nodes.
pub(crate) const AUTHORITY: &str = "authority";

fn client_node(node: &NodePlan) -> ClientNode {
    let Listen { http, resp, .. } = node.listen;
    let reached = |at: SocketAddr| match at.ip().is_unspecified() {
        true => node.quic.with_port(at.port()),
        false => at.into(),
    };
    let (http, resp) = (reached(http), resp.map(reached));
    ClientNode { name: node.name.clone(), role: node.role, http, resp }
}

fn peer_table(node: &NodePlan) -> String {
    table(&node.name, node.role, &PeerAt::Quic(node.quic.clone()))
}

fn table(name: &NodeName, role: NodeRole, at: &PeerAt) -> String {
    let at = match at {
        PeerAt::Quic(quic) => format!("quic = \"{quic}\""),
        PeerAt::Shared(dir) => format!("shared = {:?}", dir.display().to_string()),
    };
    format!("\n[[peers]]\nname = \"{name}\"\nrole = \"{role}\"\n{at}\n")
}

/// The text of a node file. Names, roles and addresses hold nothing that TOML would escape.
fn node_text(
    cluster: &ClusterName,
    node: &NodePlan,
    consensus: &ConsensusConfig,
    peers: &str,
    join: bool,
    open: bool,
) -> String {
    let NodePlan { name, role, listen, web, .. } = node;
    let resp = listen.resp.map_or_else(String::new, |at| format!("resp = \"{at}\"\n"));
    let clients = match open {
        true => format!("clients = \"token\"\ntokens = \"{TOKENS}\"\n"),
        false => String::new(),
    };
    let ConsensusConfig { durability, profile, .. } = consensus;
    let web = web.as_ref().map_or_else(String::new, |(listen, upstream)| {
        format!("\n[web]\nlisten = \"{listen}\"\nupstream = {upstream:?}\n")
    });
    let membership = if join { "\n[membership]\njoin = true\n" } else { "" };
    format!(
        "# Node {name} of cluster {cluster}. This directory can be copied to its machine as it is.
cluster = \"{cluster}\"
name = \"{name}\"
role = \"{role}\"
data_dir = \"data\"

[listen]
quic = \"{}\"
http = \"{}\"
{resp}
[tls]
ca = \"ca.pem\"
cert = \"cert.pem\"
key = \"key.pem\"
{clients}
[consensus]
profile = \"{profile}\"
durability = \"{durability}\"
{web}{membership}
# The first configuration. It counts on the first start; afterwards the cluster's own does.
{peers}",
        listen.quic,
        listen.http,
        peers = peers.trim_start(),
    )
}

/// Writes a file that must not be there yet, with its rights from the start.
fn write_new(path: &Path, mode: u32, bytes: &[u8]) -> io::Result<()> {
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn only_if_there(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}
