//! A replicated key/value service: Redis' strings over RESP, and the same keys over HTTP.
//!
//! ```text
//!  redis-cli ── RESP ─┐                         ┌─ Kv at a
//!  curl ─────── HTTP ─┴─ Submit ── log ─────────┤   (the same commands, the same agreed time,
//!                                               └─ Kv at b    so the same keys and replies)
//! ```
//!
//! # Layout
//! - [`machine`]: [`Kv`], the state machine under the log
//! - [`store`]: keys, values, versions, times to live
//! - [`execute`]: what each command does; [`transaction`]: several as one
//! - [`message`]: the typed messages of HTTP and of the command line
//! - [`resp`]: the RESP listener; [`http`]: the routes under `/kv`
//! - [`service`]: all of it, as a node runs it
//! - [`args`], [`reply`]: a command and its answer as bytes of the log
//! - [`glob`], [`number`]: patterns and numbers as Redis reads them
//! - [`limits`]: every limit, with its reason

pub mod args;
pub mod execute;
pub mod glob;
pub mod http;
pub mod limits;
pub mod machine;
pub mod message;
pub mod number;
pub mod reply;
pub mod resp;
pub mod service;
pub mod store;
pub mod transaction;

pub use self::{machine::Kv, service::KvService};
