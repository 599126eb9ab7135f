//! Real processes: whole clusters of the programs themselves, killed, stopped and cut off.
//!
//! One program, so that what mostly waits can wait side by side (see `machine`).

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod auxiliary;
mod bad_input;
mod cluster;
mod copies;
mod cross_layers;
mod dashboard;
mod elect;
mod fences;
mod histories;
mod issuer;
mod members;
mod network;
mod outside;
mod programs;
mod publish;
mod recovery;
mod redis;
mod roles;
mod rolling;
mod routes;
mod slow_disks;
mod tickets;
mod web;
mod web_backup;
mod web_bodies;
mod web_clients;
mod web_faults;
mod web_log;
mod web_members;
mod web_orders;
mod web_rebuild;
mod web_redis;
mod web_redis_watch;
mod web_server_faults;
