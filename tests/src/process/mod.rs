//! Real processes: clusters of the programs themselves on loopback, driven only through what
//! the manual promises (commands, events, HTTP, RESP, signals).
//!
//! # Layout
//! - [`programs`]: where the programs are; builds them once per test run
//! - [`machine`]: who may run beside whom, signals, `/proc`
//! - [`wait`]: conditions with deadlines; the only place that pauses
//! - [`cluster`]: a cluster under `dev` or started by hand, and its end; [`child`]: one process
//! - [`disk`]: small disks to be filled up; [`namespaces`]: a network of its own for every node
//! - [`http`], [`resp`]: small blocking clients that know what was not sent from what was lost
//! - [`nginx`], [`redis`]: servers of others, to be put behind a cluster; [`orders`]: our own; [`order`]:
//!   by log or by group
//! - [`crew`]: threads that go on until they are told to stop
//! - [`resource`]: what only one program may touch at a time
//! - [`sites`]: what the web binding's tests have in common; [`clients`]: who writes and reads there all
//!   the while; [`stalls`]: whether the machine stood still
//! - [`load`]: writers that keep a book of every answer, and the check of that book
//!
//! Two rules keep these tests honest: nothing waits for a time where it could wait for an event,
//! and whatever a test leaves running dies with it.

pub mod child;
pub mod clients;
pub mod cluster;
pub mod crew;
pub mod disk;
pub mod http;
pub mod load;
pub mod machine;
pub mod namespaces;
pub mod nginx;
pub mod order;
pub mod orders;
pub mod programs;
pub mod redis;
pub mod resource;
pub mod resp;
pub mod sites;
pub mod stalls;
pub mod wait;
