//! RESP, the protocol of Redis, on a port of the node.
//!
//! ```text
//!  socket ─► Parser ─► Session ─┬─ reply known ──────────────► Outbox ─► socket
//!            bytes to   what to ├─ write ──► Submit::submit ──► place     in the order
//!            commands   do      └─ read ───► Submit::query ───► in it     of the commands
//! ```
//!
//! # Layout
//! - [`parse`]: from bytes to commands; [`reply`]: from replies to bytes
//! - `session`: what a connection has chosen (`HELLO`, `MULTI`, `WATCH`, …) and what follows for each
//!   command; `local`, `command`, `config`, `info`: commands answered without a replica;
//!   `subcommands`: what these take
//! - `connection`: the loop of one client; `outbox`: its replies; `finish`: from outcome to reply
//! - [`RespListener`]: the port; `clients`: who is connected; [`Facts`]: what is told of the node

mod clients;
mod command;
mod config;
mod connection;
mod facts;
mod finish;
mod info;
mod inline;
mod listener;
mod local;
mod outbox;
pub mod parse;
pub mod reply;
mod session;
mod socket;
mod subcommands;

pub use self::{
    facts::{AskFacts, Facts},
    listener::{RespHandle, RespListener, RespOptions},
};
