//! Whole clusters of the real actors under simulated time, network and disks.
//!
//! [`Cluster`] starts real nodes in a [`Simulation`]: the very roles, links and journals that run
//! on machines. Test your own replicated actors with it:
//!
//! ```
//! # use actix::{Actor, Handler, Message};
//! # use serde::{Deserialize, Serialize};
//! # use synod::{message::RemoteMessage, replicated::{Handle, Replicated, Turn}};
//! use std::time::Duration;
//! use synod::sim::{Blueprint, Cluster, Shape, Simulation};
//!
//! # #[derive(Message, Serialize, Deserialize, RemoteMessage)]
//! # #[rtype(result = "u64")]
//! # #[remote(name = "counter.add")]
//! # struct Add { by: u64 }
//! # #[derive(Default, Serialize, Deserialize, Replicated)]
//! # #[replicated(name = "counter", commands(Add))]
//! # struct Counter { total: u64 }
//! # impl Actor for Counter { type Context = Turn; }
//! # impl Handler<Add> for Counter {
//! #     type Result = u64;
//! #     fn handle(&mut self, add: Add, _turn: &mut Turn) -> u64 { self.total += add.by; self.total }
//! # }
//! Simulation::new(7).run(|sim| async move {
//!     let blueprint = Blueprint::hosting::<Counter>("counter");
//!     let mut cluster = Cluster::new(&sim, Shape::default(), blueprint);
//!     cluster.start_all().unwrap();
//!     let (a, b) = ("a".parse().unwrap(), "b".parse().unwrap());
//!     let counter = Handle::<Counter>::new(cluster.submit(&a).unwrap(), "counter");
//!     while cluster.is_whole().is_err() {
//!         tokio::time::sleep(Duration::from_millis(10)).await;
//!     }
//!     assert_eq!(counter.send(Add { by: 1 }).await, Ok(1));
//!     cluster.crash(&b); // a power cut; the auxiliary takes b's place
//!     assert_eq!(counter.send(Add { by: 1 }).await, Ok(2));
//! });
//! ```
//!
//! A [`Drill`] is such a test with a nemesis beside your clients, over many seeds; the page
//! [testing](crate::manual::testing) shows one that finds a bug. A [`Trial`] is what the verb `simulate` runs: such a cluster with clients, and a nemesis that
//! does to it what a [`FaultPlan`] allows; then everything is healed, must become well again within
//! a bound, and is judged by the [properties].
//!
//! # Layout
//! - `cluster`: nodes that start, crash and lose their disks
//! - `doors`: the way in for clients that outlive the nodes they ask
//! - `director`: a nemesis's wishes, and a service manager's care
//! - `drill`: tests of your own, out of these
//! - `trial`, `finale`: the phases of a trial; `sights`: what happened in it
//! - `clients`, `witness`: what clients do, and the replicated actor they do it to
//! - [`record`]: what was seen
//! - [`properties`]: what must hold, one a file

mod clients;
mod cluster;
mod director;
mod doors;
mod drill;
mod finale;
pub mod properties;
pub mod record;
mod sights;
mod trial;
mod witness;

pub use synod_runtime::sim::*;

pub use self::{
    cluster::{Blueprint, Cluster, Shape},
    director::LIVENESS_MAX,
    drill::{AGAIN_AFTER, Drill, Find, Run, Scene},
    sights::{OUTCOMES, Seen, never_seen},
    trial::{Report, Trial},
    witness::{Entry, Lists},
};
