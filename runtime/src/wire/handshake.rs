//! The first frame of each direction: who speaks.

use serde::{Deserialize, Serialize};

use super::{Fingerprint, WIRE_VERSION};
use crate::identity::{ClusterName, NodeId, NodeName};

/// Longest role text: a label for people.
pub const ROLE_BYTES_MAX: usize = 64;

/// What the forms of all messages a node knows may take: some thousand messages of a few fields.
pub const MESSAGES_BYTES_MAX: usize = 192 * 1024;

/// What the length field of a peer's first frame may say at most: the forms of messages, and two
/// names, a role, three numbers and their keys several times over.
pub const HELLO_BYTES_MAX: u32 = 1024 + MESSAGES_BYTES_MAX as u32;

/// Body of the first frame of each direction. Sent as a map with named fields, so that fields can
/// be added without a new protocol version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The sender's cluster.
    pub cluster: ClusterName,
    /// The sender.
    pub node: NodeId,
    /// What it speaks: [`WIRE_VERSION`].
    pub protocol_version: u16,
    /// What it is in the cluster, for people; at most [`ROLE_BYTES_MAX`] bytes.
    pub role: String,
    /// Drawn at every start: tells a restarted process from the one before.
    pub start_nonce: u64,
    /// The forms of the messages it takes or sends, as far as it knows them yet.
    #[serde(default)]
    pub messages: Vec<Fingerprint>,
}

/// Why a handshake is refused. The text goes to the peer too.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HelloError {
    /// The frame cannot be read.
    #[error("unreadable hello: {0}")]
    Unreadable(String),
    /// Another cluster.
    #[error("{theirs} is of cluster {found}, {mine} is of cluster {wanted}", mine = .names.0, theirs = .names.1)]
    Cluster {
        /// This node and the peer.
        names: Box<(NodeName, NodeName)>,
        /// The peer's cluster.
        found: ClusterName,
        /// This node's cluster.
        wanted: ClusterName,
    },
    /// The certificate names another node.
    #[error("the certificate is {certificate}'s, the hello is {hello}'s")]
    Name {
        /// Whom the certificate names.
        certificate: NodeName,
        /// Whom the hello names.
        hello: NodeName,
    },
    /// Another protocol.
    #[error("{node} speaks protocol {found}, this node speaks {WIRE_VERSION}")]
    Version {
        /// The peer.
        node: NodeName,
        /// Its protocol.
        found: u16,
    },
    /// Longer than [`ROLE_BYTES_MAX`].
    #[error("a role of {0} bytes, when {ROLE_BYTES_MAX} are allowed")]
    Role(usize),
}

impl Hello {
    /// The body of the frame.
    pub fn to_body(&self) -> Vec<u8> {
        rmp_serde::to_vec_named(self).expect("names, texts and numbers always encode")
    }

    /// Reads the body of the frame that came from the node `certificate` to `me`.
    ///
    /// # Errors
    /// [`HelloError`]: hang up.
    pub fn check(body: &[u8], me: &Self, certificate: &NodeName) -> Result<Self, HelloError> {
        let hello: Self = rmp_serde::from_slice(body)
            .map_err(|error| HelloError::Unreadable(error.to_string()))?;
        if hello.cluster != me.cluster {
            return Err(HelloError::Cluster {
                names: Box::new((me.node.name.clone(), certificate.clone())),
                found: hello.cluster,
                wanted: me.cluster.clone(),
            });
        }
        if &hello.node.name != certificate {
            let certificate = certificate.clone();
            return Err(HelloError::Name { certificate, hello: hello.node.name });
        }
        if hello.protocol_version != u16::from(WIRE_VERSION) {
            let found = hello.protocol_version;
            return Err(HelloError::Version { node: hello.node.name, found });
        }
        if hello.role.len() > ROLE_BYTES_MAX {
            return Err(HelloError::Role(hello.role.len()));
        }
        Ok(hello)
    }
}
