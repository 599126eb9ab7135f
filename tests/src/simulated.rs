//! A small cluster in a simulated world, for tests that drive one by hand.

mod load;

use std::time::Duration;

use actix::{Actor, Handler, Message};
use serde::{Deserialize, Serialize};
use synod::{
    consensus::VoteStyle,
    message::RemoteMessage,
    replicated::{Handle, Query, Replicated, Turn},
    sim::{Blueprint, Cluster, Shape, Simulation},
};
use synod_runtime::identity::NodeName;

pub use self::load::Load;

/// Counts.
#[derive(Debug, Default, Serialize, Deserialize, Replicated)]
#[replicated(name = "counter", commands(Add), queries(Total))]
pub struct Counter {
    total: u64,
}

/// Counts up; answers the total then.
#[derive(Debug, Message, Serialize, Deserialize, RemoteMessage)]
#[rtype(result = "u64")]
#[remote(name = "counter.add")]
pub struct Add {
    /// How much.
    pub by: u64,
}

/// Asks for the total.
#[derive(Debug, Message, Serialize, Deserialize, RemoteMessage)]
#[rtype(result = "u64")]
#[remote(name = "counter.total")]
pub struct Total;

impl Actor for Counter {
    type Context = Turn;
}

impl Handler<Add> for Counter {
    type Result = u64;

    fn handle(&mut self, add: Add, _turn: &mut Turn) -> u64 {
        self.total += add.by;
        self.total
    }
}

impl Query<Total> for Counter {
    fn query(&self, _: Total) -> u64 {
        self.total
    }
}

/// A node's name.
///
/// # Panics
/// When it is none.
pub fn name(text: &str) -> NodeName {
    text.parse().expect("a name")
}

/// The counter, by way of `node`.
///
/// # Panics
/// When that does not run.
pub fn counter(cluster: &Cluster, node: &str) -> Handle<Counter> {
    Handle::new(cluster.submit(&name(node)).expect("it runs"), "counter")
}

/// A cluster that is founded and serves.
///
/// # Panics
/// When it does not within half a minute.
pub async fn founded(sim: &Simulation, shape: Shape, style: VoteStyle) -> Cluster {
    let blueprint = Blueprint { style, ..Blueprint::hosting::<Counter>("counter") };
    founded_as(sim, shape, blueprint).await
}

/// The same, of that blueprint.
///
/// # Panics
/// When it does not within half a minute.
pub async fn founded_as(sim: &Simulation, shape: Shape, blueprint: Blueprint) -> Cluster {
    let mut cluster = Cluster::new(sim, shape, blueprint);
    cluster.start_all().expect("nodes start");
    whole(&cluster).await;
    cluster
}

/// Waits until all is well.
///
/// # Panics
/// When it is not within half a minute.
pub async fn whole(cluster: &Cluster) {
    let wait = async {
        while cluster.is_whole().is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(30), wait).await;
    assert!(waited.is_ok(), "{:?}", cluster.is_whole());
}

/// Who leads, as `node` says, if it runs and knows.
pub fn leader_at(cluster: &Cluster, node: &str) -> Option<String> {
    let (leader, _) = cluster.core(&name(node))?.reached().leader;
    leader.map(|leader| leader.name.to_string())
}

/// Who leads, as `a` says.
///
/// # Panics
/// When it does not run, or knows nobody.
pub fn leader(cluster: &Cluster) -> String {
    leader_at(cluster, "a").expect("somebody leads")
}
