//! The directory of a cluster as `init` and `dev` write it:
//!
//! ```text
//! DIR/client.toml                       whom clients ask
//! DIR/authority/{ca.pem,ca-key.pem}     keep this one offline
//! DIR/NAME/{synod.toml,ca.pem,cert.pem,key.pem}
//! ```

use std::{
    fs,
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use synod_runtime::{
    identity::{ClusterName, NodeName},
    quic::Authority,
};

use super::{
    client::{ClientFile, ClientNode},
    failure::Failure,
};
use crate::server::config::{Durability, HostPort, Listen, NodeConfig, NodeRole, Overrides};

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
        durability: Durability,
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
            let text = node_text(cluster, node, durability, &peers.concat(), false);
            self.write_node(&authority, node, &text)?;
        }
        let clients = nodes.iter().map(client_node).collect();
        self.write_client_file(&ClientFile { cluster: cluster.clone(), nodes: clients })
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
        let (ca, key) = (self.authority().join("ca.pem"), self.authority().join("ca-key.pem"));
        let read = |path: &Path| {
            fs::read_to_string(path).map_err(|e| {
                let hint = "bring back the authority's directory";
                Failure::usage(path.display(), format!("cannot be read: {e}"), hint)
            })
        };
        let authority = Authority::from_pem(&clients.cluster, &read(&ca)?, &read(&key)?)
            .map_err(|e| Failure::usage(ca.display(), e, "bring back what init wrote"))?;
        let peers = known.peers.iter().map(|peer| table(&peer.name, peer.role, &peer.quic));
        let peers: String = peers.collect();
        let durability = known.consensus.durability;
        let text = node_text(&clients.cluster, node, durability, &peers, true);
        self.write_node(&authority, node, &text)?;
        clients.nodes.push(client_node(node));
        self.write_client_file(&clients)
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
    ) -> Result<(), Failure> {
        let tls = authority.issue(&node.name, &[], &[]).map_err(|e| {
            Failure::failed(format!("certificate of {}", node.name), e, "report this")
        })?;
        self.write(&self.0.join(node.name.as_str()), |folder| {
            write_new(&folder.join("ca.pem"), 0o644, &tls.ca)?;
            write_new(&folder.join("cert.pem"), 0o644, &tls.cert)?;
            write_new(&folder.join("key.pem"), 0o600, &tls.key)?;
            write_new(&folder.join("synod.toml"), 0o644, text.as_bytes())
        })
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

/// What may not be a node's name, since the authority lives beside the nodes.
pub(crate) const AUTHORITY: &str = "authority";

fn client_node(node: &NodePlan) -> ClientNode {
    let Listen { http, resp, .. } = node.listen;
    let resp = resp.map(HostPort::from);
    ClientNode { name: node.name.clone(), role: node.role, http: http.into(), resp }
}

fn peer_table(node: &NodePlan) -> String {
    table(&node.name, node.role, &node.quic)
}

fn table(name: &NodeName, role: NodeRole, quic: &HostPort) -> String {
    format!("\n[[peers]]\nname = \"{name}\"\nrole = \"{role}\"\nquic = \"{quic}\"\n")
}

/// The text of a node file. Names, roles and addresses hold nothing that TOML would escape.
fn node_text(
    cluster: &ClusterName,
    node: &NodePlan,
    durability: Durability,
    peers: &str,
    join: bool,
) -> String {
    let NodePlan { name, role, listen, .. } = node;
    let resp = listen.resp.map_or_else(String::new, |at| format!("resp = \"{at}\"\n"));
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

[consensus]
durability = \"{durability}\"
{membership}
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
