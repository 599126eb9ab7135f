//! Highly available actors.

pub mod server;
