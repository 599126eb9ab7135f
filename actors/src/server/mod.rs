//! Composes roles into a node and lets the outside in.
//!
//! # Layout
//! - [`config`]: the node file
//! - [`Service`]: what a program adds to a node: a state machine and its ways in
//! - [`http_actors`]: replicated actors over HTTP and JSON

pub mod config;
pub mod http_actors;
mod placeholder;
mod service;
mod stop;

use self::config::NodeConfig;
pub use self::{
    service::{NodeAddresses, Replica, Service, ServiceContext},
    stop::{StopSignal, StopTrigger, stop_pair},
};

/// Why a node ended in good order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It was asked to stop.
    Stopped,
    /// It learnt that the cluster has removed it; it must not be started again.
    Removed,
}

/// Why a node could not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The configuration cannot be used on this machine. Nothing was started, nothing changed.
    #[error(transparent)]
    Config(#[from] config::ConfigError),
    /// An address that cannot be listened on.
    #[error("{what} cannot listen on {address}: {source}")]
    Listen {
        /// Which listener.
        what: &'static str,
        /// Where.
        address: std::net::SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
}

/// Runs the node of `config` with `services` until `stop`, on the calling arbiter.
///
/// # Errors
/// Why it could not start or go on; its listeners are closed then.
pub async fn run(
    config: NodeConfig,
    services: Vec<Box<dyn Service>>,
    stop: StopSignal,
) -> Result<Ended, ServerError> {
    placeholder::run(config, services, stop).await
}
