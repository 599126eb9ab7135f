//! Composes roles into a node and lets the outside in.

pub mod http_actors;
