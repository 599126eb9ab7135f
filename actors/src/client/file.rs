//! `client.toml`: whom to ask, and what to show.

use std::path::Path;

use synod_runtime::identity::{ClusterName, NodeName};

use super::{Credentials, Http};
use crate::server::config::{ConfigError, HostPort, Keys, NodeRole, Overrides, Source};

/// What `client.toml` says: whom to ask.
#[derive(Debug, Clone)]
pub(crate) struct ClientFile {
    pub(crate) cluster: ClusterName,
    pub(crate) nodes: Vec<ClientNode>,
    /// What it takes to be let in.
    pub(crate) credentials: Credentials,
}

/// A node as clients reach it.
#[derive(Debug, Clone)]
pub(crate) struct ClientNode {
    pub(crate) name: NodeName,
    pub(crate) role: NodeRole,
    pub(crate) http: HostPort,
    /// For Redis clients, where the node serves them.
    pub(crate) resp: Option<HostPort>,
}

impl ClientFile {
    pub(crate) fn load(file: &Path) -> Result<Self, ConfigError> {
        let (source, table) = Source::open(file, KEYS, Overrides::default())?;
        let top = source.top(table)?;
        let cluster = top.need("cluster", "the cluster's name")?;
        let credentials = Credentials::read(&top)?;
        let mut nodes = Vec::new();
        for node in top.list("nodes")? {
            nodes.push(ClientNode {
                name: node.need("name", "the node's name")?,
                role: node.need("role", "\"main\", \"auxiliary\" or \"member\"")?,
                http: node.need("http", "the node's HTTP address, host:port")?,
                resp: node.parse("resp", "the node's RESP address, host:port", str::parse)?,
            });
        }
        if nodes.is_empty() {
            return Err(top.refuse("nodes", "names nobody", "add a [[nodes]] table"));
        }
        Ok(Self { cluster, nodes, credentials })
    }

    /// A client for this file's nodes; relative paths start from where `file` is.
    pub(crate) fn http(&self, file: &Path) -> Result<Http, ConfigError> {
        Http::with(file.parent().unwrap_or_else(|| Path::new("")), &self.credentials)
    }

    /// The file's text.
    pub(crate) fn render(&self) -> String {
        let mut text = format!("# Whom `--cluster` asks.\ncluster = \"{}\"\n", self.cluster);
        text += &self.credentials.render();
        for ClientNode { name, role, http, resp } in &self.nodes {
            text +=
                &format!("\n[[nodes]]\nname = \"{name}\"\nrole = \"{role}\"\nhttp = \"{http}\"\n");
            if let Some(resp) = resp {
                text += &format!("resp = \"{resp}\"\n");
            }
        }
        text
    }
}

const KEYS: Keys = &[
    ("", &["cluster", "ca", "token", "cert", "key", "nodes"]),
    ("nodes", &["name", "role", "http", "resp"]),
];
