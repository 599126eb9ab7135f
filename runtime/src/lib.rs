//! An actor can live anywhere.
//!
//! `synod-runtime` carries: it knows nodes, names, remote addresses, frames, links over QUIC, a
//! journal with group commit, supervision that survives panics, and a simulated form of the whole
//! outside world. It decides nothing; the protocol roles above it do.
//!
//! # Layout
//! - [`identity`]: names and incarnations of nodes
//! - [`world`]: the four ports (clock, entropy, network, disk) and their real forms
//! - [`sim`]: the same four ports, simulated from one seed
//! - [`wire`]: frames, limits, the link handshake
//! - [`link`]: lanes, coalescing, reconnecting, over any [`world::Network`]
//! - [`quic`]: the real network: quinn with mutual TLS
//! - [`journal`], [`snapshot`], [`slots`]: what survives a crash
//! - [`message`], [`address`], [`registry`]: messages, remote addresses, names, groups, watches
//! - [`node`]: the handle every actor gets
//! - [`supervision`]: actors rebuilt from their factory after a panic, in trees
//! - [`serial`]: actors with async handlers
//! - [`telemetry`]: counters and histograms, rendered for Prometheus
//! - [`trace`]: one number for everything that one thing led to

pub mod address;
pub mod digest;
pub mod identity;
pub mod journal;
pub mod link;
pub mod message;
pub mod node;
pub mod quic;
pub mod registry;
pub mod serial;
pub mod sim;
pub mod slots;
pub mod snapshot;
pub mod supervision;
pub mod telemetry;
pub mod trace;
pub mod watch;
pub mod wire;
pub mod world;
