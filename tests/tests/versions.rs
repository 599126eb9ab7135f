//! Two builds of one program in one cluster: what only the newer one knows waits until every main can
//! execute it, and nobody ever meets in the log what it cannot execute. Method: simulated clusters
//! whose nodes host different forms of one actor.

use std::{sync::Arc, time::Duration};

use actix::{Actor, Handler, Message};
use serde::{Deserialize, Serialize};
use synod::{
    consensus::{
        VoteStyle,
        message::{NodeRole, Wish},
    },
    message::RemoteMessage,
    replicated::{CallError, Handle, Host, Outcome, Query, Replicated, StateMachine, Turn},
    server::core::Machines,
    sim::{Cluster, Shape, Simulation},
};
use synod_tests::simulated::{Add, Load, Total, founded, name, whole};

/// The counter as the newer build has it: it can be doubled too, and from version 2 on adds what it
/// is told twice.
#[derive(Debug, Default, Serialize, Deserialize, Replicated)]
#[replicated(name = "counter", commands(Add), commands_since(2, Double), queries(Total))]
struct NewCounter {
    total: u64,
}

/// Doubles the total; answers it.
#[derive(Debug, Message, Serialize, Deserialize, RemoteMessage)]
#[rtype(result = "u64")]
#[remote(name = "counter.double")]
struct Double;

impl Actor for NewCounter {
    type Context = Turn;
}

impl Handler<Add> for NewCounter {
    type Result = u64;

    fn handle(&mut self, add: Add, turn: &mut Turn) -> u64 {
        self.total += if turn.version() >= 2 { 2 * add.by } else { add.by };
        self.total
    }
}

impl Handler<Double> for NewCounter {
    type Result = u64;

    fn handle(&mut self, _: Double, _turn: &mut Turn) -> u64 {
        self.total *= 2;
        self.total
    }
}

impl Query<Total> for NewCounter {
    fn query(&self, _: Total) -> u64 {
        self.total
    }
}

/// A second actor that only the newer build hosts.
#[derive(Debug, Default, Serialize, Deserialize, Replicated)]
#[replicated(name = "extra", commands_since(2, Double))]
struct Extra {
    calls: u64,
}

impl Actor for Extra {
    type Context = Turn;
}

impl Handler<Double> for Extra {
    type Result = u64;

    fn handle(&mut self, _: Double, _turn: &mut Turn) -> u64 {
        self.calls += 1;
        self.calls
    }
}

fn newer() -> Machines {
    Arc::new(|| {
        let all: [Box<dyn StateMachine>; 2] =
            [Box::new(Host::<NewCounter>::new("counter")), Box::new(Host::<Extra>::new("extra"))];
        all.into()
    })
}

fn older() -> Machines {
    Arc::new(|| vec![Box::new(Host::<synod_tests::simulated::Counter>::new("counter"))])
}

fn new_counter(cluster: &Cluster, node: &str) -> Handle<NewCounter> {
    Handle::new(cluster.submit(&name(node)).expect("it runs"), "counter")
}

fn version(cluster: &Cluster, node: &str) -> u32 {
    let known = cluster.core(&name(node)).and_then(|core| core.reached().configuration);
    known.map_or(0, |configuration| configuration.version)
}

/// Stops a node in good order and starts it as another build.
async fn upgrade(load: &Load, node: &str, machines: Machines) {
    load.with(|cluster| cluster.install(&name(node), machines));
    load.restart(node).await;
}

/// Goal: a rolling upgrade under load costs no error; the new command is *not applied* until the last
/// main is upgraded, and then the version rises by itself; a member of the old build is waited for.
#[test]
fn a_new_command_waits_for_the_last_main() {
    Simulation::new(510).run(|sim| async move {
        let shape = Shape { mains: 2, auxiliaries: 1, members: 1 };
        let load = Load::paced(founded(&sim, shape, VoteStyle::Split).await, 2, PACE);
        for (node, last) in [("b", false), ("a", false), ("x", false), ("m1", true)] {
            upgrade(&load, node, newer()).await;
            load.until_whole().await;
            tokio::time::sleep(Duration::from_secs(1)).await;
            if !last {
                let early = load.with(|cluster| new_counter(cluster, "b"));
                let early = early.send(Double).await;
                let Err(CallError::NotApplied(why)) = &early else { panic!("{early:?}") };
                assert!(why.text.contains("needs cluster version 2"), "{}", why.text);
            }
        }
        load.until(Duration::from_secs(2), "the version rose", |cluster| {
            ["a", "b", "m1"].iter().all(|node| version(cluster, node) == 2)
        })
        .await;
        load.with(|cluster| {
            let status = cluster.core(&name("a")).expect("it runs").status();
            assert_eq!(status["version"], 2, "{status}");
            let nodes = status["nodes"].as_array().cloned().unwrap_or_default();
            assert!(nodes.iter().all(|node| node["version"].is_string()), "{status}");
        });
        load.stop().await;
        let (before, counter) =
            load.with(|cluster| (new_counter(cluster, "a"), new_counter(cluster, "m1")));
        let total = before.query(Total).await.expect("it answers");
        assert_eq!(counter.send(Double).await, Ok(2 * total), "by way of the member");
        assert_eq!(counter.send(Add { by: 1 }).await, Ok(2 * total + 2), "as version 2 adds");
        let extra = load.with(|c| Handle::<Extra>::new(c.submit(&name("b")).unwrap(), "extra"));
        assert_eq!(extra.send(Double).await, Ok(1), "an actor of the newer build alone");
    });
}

/// Goal: a node that is set back to the older build halts, says why and which build it wants, and
/// the others go on; a new node of the older build is not let in.
#[test]
fn an_older_build_halts_and_says_why() {
    Simulation::new(511).run(|sim| async move {
        let mut cluster = founded(&sim, Shape::default(), VoteStyle::Split).await;
        for node in ["a", "b"] {
            cluster.install(&name(node), newer());
            cluster.start(&name(node)).expect("it starts");
            whole(&cluster).await;
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(version(&cluster, "a"), 2);
        let counter = new_counter(&cluster, "a");
        assert_eq!(counter.send(Add { by: 2 }).await, Ok(4));
        cluster.install(&name("b"), older());
        cluster.start(&name("b")).expect("it starts");
        let begun = sim.now();
        let why = loop {
            let sound = cluster.core(&name("b")).expect("it runs").sound();
            if let Err(why) = sound {
                break why;
            }
            assert!(sim.now() - begun < Duration::from_secs(10), "it goes on");
            tokio::time::sleep(Duration::from_millis(10)).await;
        };
        assert!(why.contains("version 2") && why.contains("knows up to 0"), "{why}");
        assert_eq!(counter.send(Double).await, Ok(8), "the others go on");
        cluster.install(&name("b"), newer());
        cluster.start(&name("b")).expect("it starts");
        whole(&cluster).await;
        assert_eq!(new_counter(&cluster, "b").query(Total).await, Ok(8));

        cluster.expect(&name("c"), NodeRole::Main);
        cluster.install(&name("c"), older());
        let (tell, told) = tokio::sync::oneshot::channel();
        let address = sim.address(&name("c"));
        let wish = Wish::Add { name: name("c"), role: NodeRole::Main, address };
        let core = cluster.core(&name("a")).expect("it runs");
        core.wish(wish, Duration::from_secs(4), Box::new(move |end| drop(tell.send(end))));
        assert!(matches!(told.await, Ok(Outcome::Applied { .. })), "it is waited for");
        cluster.start(&name("c")).expect("it starts");
        tokio::time::sleep(Duration::from_secs(5)).await;
        let known = cluster.core(&name("a")).and_then(|core| core.reached().configuration);
        assert_eq!(known.map(|known| known.mains.len()), Some(2), "it does not count");
        let why = cluster.core(&name("c")).expect("it runs").sound();
        assert!(why.is_err_and(|why| why.contains("knows up to 0")));
        assert_eq!(counter.send(Add { by: 1 }).await, Ok(10), "and holds up nobody");
    });
}

/// Goal: what no build knows is *not applied*; it does not get into the log, where it would halt
/// every main.
#[test]
fn an_unknown_command_halts_nobody() {
    Simulation::new(512).run(|sim| async move {
        let cluster = founded(&sim, Shape::default(), VoteStyle::Split).await;
        let unknown = new_counter(&cluster, "a").send(Double).await;
        assert!(
            matches!(&unknown, Err(CallError::NotApplied(why)) if why.text.contains("no command"))
        );
        let extra = Handle::<Extra>::new(cluster.submit(&name("a")).expect("it runs"), "extra");
        assert!(matches!(extra.send(Double).await, Err(CallError::NotApplied(_))));
        assert_eq!(new_counter(&cluster, "b").send(Add { by: 1 }).await, Ok(1));
        assert!(cluster.core(&name("a")).is_some_and(|core| core.sound().is_ok()));
    });
}

/// Between two calls of one client.
const PACE: Duration = Duration::from_millis(5);
