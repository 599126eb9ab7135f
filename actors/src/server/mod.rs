//! Composes the roles into a node.

pub mod config;
mod stop;

pub use stop::{StopSignal, StopTrigger, stop_pair};
