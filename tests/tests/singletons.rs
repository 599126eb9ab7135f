//! Singletons on whole simulated clusters: one acts at a time, nothing runs at a stale one, nothing
//! that was refused has run, and the next one is there in time.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    cell::RefCell,
    collections::BTreeMap,
    rc::Rc,
    sync::{Arc, Mutex},
    time::Duration,
};

use actix::{Actor, AsyncContext as _, Context, Handler, Message};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use synod::{
    consensus::VoteStyle,
    message::{RemoteActor, RemoteMessage},
    runtime::{
        address::{Delivery, SendError},
        supervision::Fault,
    },
    server::singletons::{HaActor, HaError, HaStart, SingletonRef},
    sim::{Cluster, Shape, Simulation},
};
use synod_tests::simulated::{founded, name};

/// What the actors did, in the order of simulated time.
#[derive(Default)]
struct Stage {
    /// The epoch of whatever ran: handlers and timers.
    ran: Vec<u64>,
    /// In which epoch each message ran.
    messages: BTreeMap<u64, Vec<u64>>,
    stepped_down: u32,
}

type Shared = Arc<Mutex<Stage>>;

/// Writes down whatever it does.
#[derive(RemoteActor)]
#[remote(name = "issuer", handles(Job, Break))]
struct Issuer {
    epoch: u64,
    stage: Shared,
}

/// A piece of work with a number; answers the epoch it was done in.
#[derive(Message, Serialize, Deserialize, RemoteMessage)]
#[rtype(result = "u64")]
#[remote(name = "issuer.job")]
struct Job(u64);

/// Panics.
#[derive(Message, Serialize, Deserialize, RemoteMessage)]
#[rtype(result = "()")]
#[remote(name = "issuer.break")]
struct Break;

impl HaActor for Issuer {
    type Args = Shared;

    fn create(stage: &Shared, start: &HaStart) -> Result<Self, HaError> {
        assert!(start.lease().is_valid());
        Ok(Self { epoch: start.epoch().0, stage: Arc::clone(stage) })
    }

    fn step_down(&mut self, context: &mut Context<Self>) {
        use actix::ActorContext as _;
        self.stage.lock().unwrap().stepped_down += 1;
        context.stop();
    }
}

impl Actor for Issuer {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Context<Self>) {
        context.run_interval(Duration::from_millis(5), |issuer, _| {
            issuer.stage.lock().unwrap().ran.push(issuer.epoch);
        });
    }
}

impl Handler<Job> for Issuer {
    type Result = u64;

    fn handle(&mut self, job: Job, _: &mut Context<Self>) -> u64 {
        let mut stage = self.stage.lock().unwrap();
        stage.ran.push(self.epoch);
        stage.messages.entry(job.0).or_default().push(self.epoch);
        self.epoch
    }
}

impl Handler<Break> for Issuer {
    type Result = ();

    fn handle(&mut self, _: Break, _: &mut Context<Self>) {
        panic!("told to");
    }
}

/// A job, and what its sender heard.
type Heard = (u64, Result<u64, SendError>);

/// A client that sends one job after the other, and keeps what it heard.
struct Client {
    heard: Rc<RefCell<Vec<Heard>>>,
}

impl Client {
    /// Sends jobs numbered from `first`, some at a time, each with so long to be done.
    fn start(cluster: &Cluster, node: &str, first: u64, patience: Duration) -> Self {
        let issuer = reference(cluster, node);
        let heard = Rc::<RefCell<Vec<_>>>::default();
        let book = Rc::clone(&heard);
        actix_rt::spawn(async move {
            for number in (first..).step_by(3) {
                let three = (number..number + 3).map(|number| {
                    let answer = issuer.send(Job(number)).timeout(patience);
                    actix_rt::spawn(async move { (number, answer.await) })
                });
                for answer in three.collect::<Vec<_>>() {
                    let answer = answer.await.expect("it does not panic");
                    book.borrow_mut().push(answer);
                }
                tokio::time::sleep(Duration::from_millis(7)).await;
            }
        });
        Self { heard }
    }
}

fn reference(cluster: &Cluster, node: &str) -> SingletonRef<Issuer> {
    cluster.core(&name(node)).expect("it runs").singleton_ref("issuer")
}

fn host(cluster: &Cluster, node: &str, lease: Duration, stage: &Shared) {
    let core = cluster.core(&name(node)).expect("it runs");
    core.singleton::<Issuer>("issuer", Arc::clone(stage)).lease(lease).start().expect("good terms");
}

/// Every promise, by what was done and what was heard.
fn judge(stage: &Shared, clients: &[Client]) {
    let stage = stage.lock().unwrap();
    assert!(stage.ran.is_sorted(), "a stale one acted after its successor");
    let mut answered = 0;
    for client in clients {
        let mut highest = 0;
        for (number, answer) in client.heard.borrow().iter() {
            let ran = stage.messages.get(number).map_or(&[][..], Vec::as_slice);
            assert!(ran.len() < 2, "{number} ran twice: {ran:?}");
            match answer {
                Ok(epoch) => {
                    assert_eq!(ran, [*epoch], "{number}");
                    assert!(*epoch >= highest, "{number}: {epoch} after {highest}");
                    highest = *epoch;
                    answered += 1;
                }
                Err(error) if error.outcome() == Delivery::NotRun => {
                    assert_eq!(ran, [0; 0], "{number}: {error}, and it ran");
                }
                Err(_unknown) => {}
            }
        }
    }
    assert!(answered > 100, "only {answered} jobs were done");
}

/// Waits until a job is done in a later epoch than `after`; answers the epoch and how long it took.
async fn until_done(
    sim: &Simulation,
    issuer: &SingletonRef<Issuer>,
    after: u64,
    number: u64,
) -> (u64, Duration) {
    let began = sim.now();
    for number in number.. {
        assert!(sim.now() - began < Duration::from_secs(20), "nobody has it");
        match issuer.send(Job(number)).timeout(Duration::from_millis(100)).await {
            Ok(epoch) if epoch > after => return (epoch, sim.now() - began),
            Ok(_) | Err(_) => tokio::time::sleep(Duration::from_millis(1)).await,
        }
    }
    unreachable!("numbers do not end")
}

fn primary(cluster: &Cluster, node: &str) -> String {
    let (node, _) = reference(cluster, node).primary().expect("somebody has it");
    node.to_string()
}

/// Goal: when the node that has it dies, another has it within the lease and 300 ms, and what was
/// sent meanwhile waits for it; nothing is done twice, and what was refused was not done.
#[test]
fn a_singleton_is_elsewhere_within_its_lease_when_its_node_dies() {
    for (seed, lease) in (900..).zip([2_000, 300, 500, 2_000].map(Duration::from_millis)) {
        Simulation::new(seed).run(|sim| async move {
            let mut cluster =
                founded(&sim, Shape { members: 1, ..Shape::default() }, VoteStyle::Split).await;
            let stage = Shared::default();
            ["a", "b"].iter().for_each(|node| host(&cluster, node, lease, &stage));
            let member = reference(&cluster, "m1");
            let (epoch, _) = until_done(&sim, &member, 0, 1 << 40).await;
            let clients: Vec<_> = ["m1", "m1"]
                .iter()
                .zip([1, 1 << 20])
                .map(|(node, first)| Client::start(&cluster, node, first, lease * 2))
                .collect();
            tokio::time::sleep(lease).await;
            let holder = primary(&cluster, "m1");
            cluster.crash(&name(&holder));
            let (next, took) = until_done(&sim, &member, epoch, 1 << 50).await;
            assert!(took <= lease + BEYOND_MAX, "seed {seed}: {took:?} with a lease of {lease:?}");
            cluster.start(&name(&holder)).expect("it starts");
            host(&cluster, &holder, lease, &stage);
            tokio::time::sleep(lease * 2).await;
            // Who lives keeps it.
            assert_eq!(reference(&cluster, "m1").primary().unwrap().1.0, next);
            judge(&stage, &clients);
        });
    }
}

/// Goal: a primary that is cut off stops in time, by itself, in order; what reaches it then is not
/// run, and goes to the next one.
#[test]
fn a_primary_that_is_cut_off_steps_down_before_the_next_one_begins() {
    for seed in 910..918 {
        Simulation::new(seed).run(|sim| async move {
            let lease = Duration::from_secs(1);
            let cluster = founded(&sim, Shape::default(), VoteStyle::Split).await;
            let stage = Shared::default();
            ["a", "b"].iter().for_each(|node| host(&cluster, node, lease, &stage));
            // Every clock is as wrong as it may be.
            sim.set_drift(&name("a"), if seed % 2 == 0 { 900 } else { -900 });
            let clients: Vec<_> = ["a", "b"]
                .iter()
                .zip([1, 1 << 20])
                .map(|(node, first)| Client::start(&cluster, node, first, lease * 3))
                .collect();
            let (mut epoch, _) = until_done(&sim, &reference(&cluster, "a"), 0, 1 << 40).await;
            for round in 0..4 {
                let holder = primary(&cluster, "a");
                let other = if holder == "a" { "b" } else { "a" };
                let others: Vec<_> =
                    cluster.names().into_iter().filter(|one| one.as_str() != holder).collect();
                let before = stage.lock().unwrap().stepped_down;
                sim.partition(&[name(&holder)], &others);
                let there = reference(&cluster, other);
                let (next, took) = until_done(&sim, &there, epoch, (1 << 50) + (round << 30)).await;
                assert!(took <= lease + CUT_BEYOND_MAX, "{took:?}");
                assert!(stage.lock().unwrap().stepped_down > before);
                epoch = next;
                sim.heal();
                tokio::time::sleep(lease * 4).await;
            }
            judge(&stage, &clients);
        });
    }
}

/// Goal: a node that leaves in order passes its singleton on at once, and a caller sees a pause.
#[test]
fn a_node_that_leaves_passes_its_singleton_on_at_once() {
    Simulation::new(920).run(|sim| async move {
        let lease = Duration::from_secs(60);
        let mut cluster = founded(&sim, Shape::default(), VoteStyle::Split).await;
        let stage = Shared::default();
        ["a", "b"].iter().for_each(|node| host(&cluster, node, lease, &stage));
        let (epoch, _) = until_done(&sim, &reference(&cluster, "a"), 0, 1 << 40).await;
        let holder = primary(&cluster, "a");
        let other = if holder == "a" { "b" } else { "a" };
        let there = reference(&cluster, other);
        let core = cluster.take(&name(&holder)).expect("it runs");
        let began = sim.now();
        let (answer, ()) = tokio::join!(
            async {
                tokio::time::sleep(Duration::from_millis(1)).await;
                there.send(Job(1)).await
            },
            async {
                core.hand_over().await;
                core.leave(Duration::from_secs(1)).await;
            },
        );
        let answer = answer.expect("a pause, no error");
        assert!(answer >= epoch);
        let (next, _) = until_done(&sim, &there, epoch, 1 << 50).await;
        assert!(sim.now() - began < Duration::from_secs(2), "{:?}", sim.now() - began);
        assert!(next > epoch && stage.lock().unwrap().stepped_down == 1);
        judge_alone(&stage);
    });
}

fn judge_alone(stage: &Shared) {
    assert!(stage.lock().unwrap().ran.is_sorted(), "a stale one acted after its successor");
}

/// Goal: one that panics is rebuilt in its epoch, and after too many panics another node has a try.
#[test]
fn one_that_panics_again_and_again_goes_to_another_node() {
    Simulation::new(930).run(|sim| async move {
        let lease = Duration::from_secs(5);
        let cluster = founded(&sim, Shape::default(), VoteStyle::Split).await;
        let stage = Shared::default();
        ["a", "b"].iter().for_each(|node| host(&cluster, node, lease, &stage));
        let issuer = reference(&cluster, "a");
        let (epoch, _) = until_done(&sim, &issuer, 0, 1).await;
        let holder = primary(&cluster, "a");
        for number in 1..=3 {
            let broken = issuer.send(Break).await.unwrap_err();
            assert_eq!(broken.outcome(), Delivery::Unknown);
            assert_eq!(issuer.send(Job(100 + number)).await, Ok(epoch));
        }
        issuer.send(Break).await.unwrap_err();
        let began = sim.now();
        let next = issuer.send(Job(200)).await.expect("another has it");
        assert!(next > epoch && sim.now() - began < Duration::from_millis(300));
        assert_ne!(primary(&cluster, "a"), holder);
        // A role that fails beside it changes nothing.
        cluster.core(&name("a")).unwrap().inject("home", Fault::Panic);
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(issuer.send(Job(201)).await, Ok(next));
        judge_alone(&stage);
    });
}

/// The singleton as people are shown it at that node.
fn shown(cluster: &Cluster, node: &str) -> Value {
    let all = cluster.core(&name(node)).expect("it runs").services().documents();
    all.into_iter().find(|one| one["service"] == "issuer").unwrap_or_default()
}

/// Waits until that is so of the singleton as people are shown it; answers how long it took.
async fn until_shown(
    sim: &Simulation,
    cluster: &Cluster,
    what: &str,
    is_so: impl Fn(&Value) -> bool,
) -> Duration {
    let began = sim.now();
    while !is_so(&shown(cluster, "m1")) {
        assert!(sim.now() - began < Duration::from_secs(20), "{what}: {}", shown(cluster, "m1"));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    sim.now() - began
}

/// Goal: people see a singleton among the services, and move, freeze and unfreeze it and say which
/// nodes may have it, as with any service; one acts at a time all the while, and what they said
/// holds after a restart.
#[test]
fn a_singleton_is_moved_frozen_and_kept_off_nodes_like_any_service() {
    for seed in 940..944 {
        Simulation::new(seed).run(|sim| async move {
            let lease = Duration::from_secs(2);
            let mut cluster =
                founded(&sim, Shape { members: 1, ..Shape::default() }, VoteStyle::Split).await;
            let stage = Shared::default();
            ["a", "b", "m1"].iter().for_each(|node| host(&cluster, node, lease, &stage));
            let clients = [Client::start(&cluster, "m1", 1, lease)];
            let services = cluster.core(&name("m1")).unwrap().services();
            let runs = |document: &Value| document["state"] == "running";
            until_shown(&sim, &cluster, "it lives", runs).await;
            assert_eq!(shown(&cluster, "m1")["kind"], "actor");
            assert!(services.remove("issuer").await.unwrap_err().to_string().contains("`freeze`"));
            for to in ["b", "m1", "a"] {
                services.move_to("issuer", to).await.unwrap();
                let is_there = |document: &Value| runs(document) && document["primary"] == to;
                let took = until_shown(&sim, &cluster, to, is_there).await;
                assert!(took < MOVE_MAX, "{to}: {took:?}");
            }
            services.freeze("issuer", true).await.unwrap();
            until_shown(&sim, &cluster, "frozen", |document| document["state"] == "frozen").await;
            assert!(services.remove("issuer").await.unwrap_err().to_string().contains("unfreeze"));
            let ran = stage.lock().unwrap().ran.len();
            cluster.crash(&name("b"));
            tokio::time::sleep(lease * 2).await;
            cluster.start(&name("b")).expect("it starts");
            host(&cluster, "b", lease, &stage);
            tokio::time::sleep(lease * 2).await;
            assert_eq!(stage.lock().unwrap().ran.len(), ran, "a frozen one acted");
            services.freeze("issuer", false).await.unwrap();
            until_shown(&sim, &cluster, "it lives again", runs).await;
            services.providers("issuer", vec![], vec!["a".into(), "m1".into()]).await.unwrap();
            let is_there = |document: &Value| runs(document) && document["primary"] == "b";
            until_shown(&sim, &cluster, "only b may have it", is_there).await;
            cluster.crash(&name("b"));
            tokio::time::sleep(lease * 3).await;
            let nobody = shown(&cluster, "m1");
            assert!(nobody["primary"].is_null() && nobody["state"] == "waiting", "{nobody}");
            services.providers("issuer", vec!["m1".into()], vec![]).await.unwrap();
            let is_there = |document: &Value| runs(document) && document["primary"] == "m1";
            until_shown(&sim, &cluster, "m1 may have it again", is_there).await;
            tokio::time::sleep(lease).await;
            judge(&stage, &clients);
        });
    }
}

/// A singleton that is moved steps down, and the next is built: a few commands of the log.
const MOVE_MAX: Duration = Duration::from_millis(500);

/// What a takeover may cost beyond the lease.
const BEYOND_MAX: Duration = Duration::from_millis(300);

/// The same when the node is only cut off: the other side may have heard its last renewal late.
const CUT_BEYOND_MAX: Duration = Duration::from_millis(500);
