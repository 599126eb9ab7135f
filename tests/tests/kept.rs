//! Singletons that keep their state, on whole simulated clusters: whatever dies, is cut off, hangs or
//! leaves, the next primary begins with what was answered, or with the last checkpoint.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::Duration,
};

use actix::{Actor, Context, Handler, Message, ResponseFuture};
use rand::{RngExt as _, SeedableRng as _};
use serde::{Deserialize, Serialize};
use synod::{
    consensus::VoteStyle,
    management::kept::KEPT_BYTES_MAX,
    message::{RemoteActor, RemoteMessage},
    server::singletons::{HaActor, HaError, HaStart, Keeping, NotKept, SingletonRef},
    sim::{Cluster, Shape, Simulation},
};
use synod_runtime::world::Rng;
use synod_tests::simulated::{founded, name, whole};

/// What the actors and their clients know of each other.
#[derive(Default)]
struct Stage {
    /// The epoch of each primary, and the number it began with.
    began: Vec<(u64, u64)>,
    /// The number that the newest one has counted to.
    counted: u64,
    /// Numbers that clients heard.
    heard: BTreeSet<u64>,
}

type Shared = Arc<Mutex<Stage>>;

impl Stage {
    /// A primary begins: with no less than any client has heard.
    fn begin(&mut self, start: &HaStart) -> u64 {
        let found = start.state().map_or(0, |state| {
            u64::from_be_bytes(state[..].try_into().expect("eight bytes were kept"))
        });
        self.began.push((start.epoch().0, found));
        self.counted = found;
        found
    }

    fn count(&mut self, number: u64) -> u64 {
        self.counted = number;
        number
    }
}

/// Answers a number once it is kept.
#[derive(RemoteActor)]
#[remote(name = "sure", handles(Next, Huge))]
struct Sure {
    count: u64,
    start: HaStart,
    stage: Shared,
}

/// Counts, and keeps the count now and then.
#[derive(RemoteActor)]
#[remote(name = "often", handles(Count, Break))]
struct Often {
    count: u64,
    stage: Shared,
}

/// Keeps nothing, and tries to.
#[derive(RemoteActor)]
#[remote(name = "forgetful", handles(Next))]
struct Forgetful(HaStart);

/// The next number.
#[derive(Message, Serialize, Deserialize, RemoteMessage)]
#[rtype(result = "Result<u64, NotKept>")]
#[remote(name = "kept.next")]
struct Next;

/// More than can be kept.
#[derive(Message, Serialize, Deserialize, RemoteMessage)]
#[rtype(result = "Result<u64, NotKept>")]
#[remote(name = "kept.huge")]
struct Huge;

/// One more.
#[derive(Message, Serialize, Deserialize, RemoteMessage)]
#[rtype(result = "u64")]
#[remote(name = "kept.count")]
struct Count;

/// Panics.
#[derive(Message, Serialize, Deserialize, RemoteMessage)]
#[rtype(result = "()")]
#[remote(name = "kept.break")]
struct Break;

impl HaActor for Sure {
    type Args = Shared;

    fn create(stage: &Shared, start: &HaStart) -> Result<Self, HaError> {
        let count = stage.lock().unwrap().begin(start);
        Ok(Self { count, start: start.clone(), stage: Arc::clone(stage) })
    }

    fn keeping() -> Keeping {
        Keeping::Said
    }
}

impl HaActor for Often {
    type Args = Shared;

    fn create(stage: &Shared, start: &HaStart) -> Result<Self, HaError> {
        let count = stage.lock().unwrap().begin(start);
        Ok(Self { count, stage: Arc::clone(stage) })
    }

    fn keeping() -> Keeping {
        Keeping::Every(EVERY)
    }

    fn checkpoint(&self) -> Result<Vec<u8>, HaError> {
        Ok(self.count.to_be_bytes().into())
    }
}

impl HaActor for Forgetful {
    type Args = ();

    fn create((): &(), start: &HaStart) -> Result<Self, HaError> {
        assert_eq!(start.state(), None);
        Ok(Self(start.clone()))
    }
}

impl Actor for Sure {
    type Context = Context<Self>;
}

impl Actor for Often {
    type Context = Context<Self>;
}

impl Actor for Forgetful {
    type Context = Context<Self>;
}

impl Handler<Next> for Sure {
    type Result = ResponseFuture<Result<u64, NotKept>>;

    fn handle(&mut self, _: Next, _: &mut Context<Self>) -> Self::Result {
        self.count += 1;
        let count = self.stage.lock().unwrap().count(self.count);
        let kept = self.start.keep(count.to_be_bytes().into());
        Box::pin(async move { kept.await.map(|()| count) })
    }
}

impl Handler<Huge> for Sure {
    type Result = ResponseFuture<Result<u64, NotKept>>;

    fn handle(&mut self, _: Huge, _: &mut Context<Self>) -> Self::Result {
        let kept = self.start.keep(vec![1; KEPT_BYTES_MAX + 1]);
        Box::pin(async move { kept.await.map(|()| 0) })
    }
}

impl Handler<Next> for Forgetful {
    type Result = ResponseFuture<Result<u64, NotKept>>;

    fn handle(&mut self, _: Next, _: &mut Context<Self>) -> Self::Result {
        let kept = self.0.keep(vec![1]);
        Box::pin(async move { kept.await.map(|()| 0) })
    }
}

impl Handler<Count> for Often {
    type Result = u64;

    fn handle(&mut self, _: Count, _: &mut Context<Self>) -> u64 {
        self.count += 1;
        self.stage.lock().unwrap().count(self.count)
    }
}

impl Handler<Break> for Often {
    type Result = ();

    fn handle(&mut self, _: Break, _: &mut Context<Self>) {
        panic!("told to");
    }
}

fn host<A: HaActor<Args = Shared>>(cluster: &Cluster, node: &str, stage: &Shared) {
    let core = cluster.core(&name(node)).expect("it runs");
    core.singleton::<A>("one", Arc::clone(stage)).lease(LEASE).start().expect("good terms");
}

fn reference<A: HaActor>(cluster: &Cluster) -> SingletonRef<A> {
    cluster.core(&name("m1")).expect("it runs").singleton_ref("one")
}

/// Asks for one number after the other, some at a time; each that is heard is new, and no primary may
/// have begun below one that was heard.
fn ask(cluster: &Cluster, stage: &Shared) {
    for _ in 0..3 {
        let (sure, stage) = (reference::<Sure>(cluster), Arc::clone(stage));
        actix_rt::spawn(async move {
            loop {
                if let Ok(Ok(number)) = sure.send(Next).timeout(LEASE * 3).await {
                    let new = stage.lock().unwrap().heard.insert(number);
                    assert!(new, "{number} was answered twice");
                }
                tokio::time::sleep(Duration::from_millis(3)).await;
            }
        });
    }
}

/// Waits until a primary of a later epoch than all so far has answered.
async fn until_next(sim: &Simulation, stage: &Shared, heard: usize, epoch: u64) {
    let began = sim.now();
    loop {
        {
            let stage = stage.lock().unwrap();
            let later = stage.began.last().is_some_and(|(last, _)| *last > epoch);
            if later && stage.heard.len() > heard {
                return;
            }
        }
        assert!(sim.now() - began < Duration::from_secs(20), "nobody has it");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn primary<A: HaActor>(cluster: &Cluster) -> String {
    let (node, _) = reference::<A>(cluster).primary().expect("somebody has it");
    node.to_string()
}

/// Goal: S4, mode *sync*: no number is answered twice, and every primary begins with all that was
/// answered before, whatever becomes of the last one: it dies, alone or with the other main, is cut
/// off, hangs and goes on, or leaves in order.
#[test]
fn the_next_primary_begins_with_all_that_was_answered() {
    for seed in 1_300..1_308 {
        Simulation::new(seed).run(|sim| async move {
            let mut rng = Rng::seed_from_u64(seed);
            let shape = Shape { members: 1, ..Shape::default() };
            let mut cluster = founded(&sim, shape, VoteStyle::Split).await;
            let stage = Shared::default();
            ["a", "b"].iter().for_each(|node| host::<Sure>(&cluster, node, &stage));
            ask(&cluster, &stage);
            until_next(&sim, &stage, 0, 0).await;
            for _ in 0..5 {
                tokio::time::sleep(Duration::from_millis(rng.random_range(0..1_500))).await;
                let holder = primary::<Sure>(&cluster);
                let (heard, epoch, highest) = {
                    let stage = stage.lock().unwrap();
                    (stage.heard.len(), stage.began.last().unwrap().0, stage.heard.last().copied())
                };
                let others: Vec<_> =
                    cluster.names().into_iter().filter(|one| one.as_str() != holder).collect();
                let mut dead = Vec::new();
                match rng.random_range(0..5) {
                    0 => dead.push(holder.clone()),
                    1 => dead.extend(["a".to_owned(), "b".to_owned()]),
                    2 => sim.partition(&[name(&holder)], &others),
                    3 => sim.pause(&name(&holder)),
                    _ => {
                        let core = cluster.take(&name(&holder)).expect("it runs");
                        core.hand_over().await;
                        core.leave(Duration::from_secs(1)).await;
                        dead.push(holder.clone());
                    }
                }
                for node in &dead {
                    if cluster.core(&name(node)).is_some() {
                        cluster.crash(&name(node));
                    }
                }
                if dead.len() == 2 {
                    for node in ["a", "b"] {
                        cluster.start(&name(node)).expect("it starts");
                        host::<Sure>(&cluster, node, &stage);
                    }
                }
                until_next(&sim, &stage, heard, epoch).await;
                let (_, found) = stage.lock().unwrap().began.last().copied().unwrap();
                assert!(Some(found) >= highest, "seed {seed}: {found}, and {highest:?} was heard");
                sim.resume(&name(&holder));
                sim.heal();
                for node in dead.iter().filter(|_| dead.len() == 1) {
                    cluster.start(&name(node)).expect("it starts");
                    host::<Sure>(&cluster, node, &stage);
                }
                whole(&cluster).await;
            }
            // What cannot be kept is said, and harms nobody.
            let huge = reference::<Sure>(&cluster).send(Huge).await;
            assert!(matches!(huge, Ok(Err(NotKept::Refused(_)))), "{huge:?}");
            let stage = stage.lock().unwrap();
            assert!(stage.heard.len() > 200, "seed {seed}: only {} heard", stage.heard.len());
        });
    }
}

/// Goal: S4, mode *periodic*: a node that dies costs what was done since the last checkpoint, and no
/// more; one that leaves in order costs nothing; after a panic the actor goes on from the last one.
#[test]
fn the_next_primary_begins_with_the_last_checkpoint() {
    for seed in 1_310..1_314 {
        Simulation::new(seed).run(|sim| async move {
            let shape = Shape { members: 1, ..Shape::default() };
            let mut cluster = founded(&sim, shape, VoteStyle::Split).await;
            let stage = Shared::default();
            ["a", "b"].iter().for_each(|node| host::<Often>(&cluster, node, &stage));
            let often = reference::<Often>(&cluster);
            let counted = |stage: &Shared| stage.lock().unwrap().counted;
            for round in 0..3 {
                for _ in 0..200 {
                    often.send(Count).timeout(LEASE * 3).await.expect("it counts");
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                tokio::time::sleep(EVERY + WAY).await;
                let unkept = unkept_of(seed, round);
                for _ in 0..unkept {
                    often.send(Count).await.expect("it counts");
                }
                let holder = primary::<Often>(&cluster);
                let all = counted(&stage);
                let primaries = |stage: &Shared| stage.lock().unwrap().began.len();
                let (began, since) = (primaries(&stage), sim.now());
                if seed % 2 == 0 {
                    cluster.crash(&name(&holder));
                } else {
                    let core = cluster.take(&name(&holder)).expect("it runs");
                    core.hand_over().await;
                    core.leave(Duration::from_secs(1)).await;
                }
                // What was sent to a node that is dead by now is answered by nobody.
                let patience = Duration::from_millis(100);
                while primaries(&stage) == began
                    || often.send(Count).timeout(patience).await.is_err()
                {
                    assert!(sim.now() - since < Duration::from_secs(20), "nobody has it");
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                let (_, found) = *stage.lock().unwrap().began.last().unwrap();
                assert!(found + unkept >= all, "{found} of {all}, {unkept} after the last");
                assert!(seed % 2 == 0 || found == all, "it left in order: {found} of {all}");
                cluster.start(&name(&holder)).expect("it starts");
                host::<Often>(&cluster, &holder, &stage);
                whole(&cluster).await;
            }
            tokio::time::sleep(EVERY + WAY).await;
            let all = counted(&stage);
            often.send(Break).await.expect_err("it panics");
            assert_eq!(often.send(Count).await, Ok(all + 1), "in its epoch, from the checkpoint");
            let began = stage.lock().unwrap().began.clone();
            assert_eq!(began[began.len() - 2].0, began[began.len() - 1].0);
        });
    }
}

/// Some numbers that no checkpoint has when its node dies.
fn unkept_of(seed: u64, round: u64) -> u64 {
    Rng::seed_from_u64(seed ^ round << 32).random_range(0..6)
}

/// Goal: one that keeps nothing, says so, and begins with nothing.
#[test]
fn one_that_keeps_nothing_is_told_so() {
    Simulation::new(1_320).run(|sim| async move {
        let cluster = founded(&sim, Shape::default(), VoteStyle::Split).await;
        let core = cluster.core(&name("a")).expect("it runs");
        core.singleton::<Forgetful>("one", ()).start().expect("good terms");
        let heard = core.singleton_ref::<Forgetful>("one").send(Next).await;
        assert!(matches!(heard, Ok(Err(NotKept::Refused(_)))), "{heard:?}");
    });
}

/// Short, so that much happens.
const LEASE: Duration = Duration::from_secs(1);

/// Between checkpoints.
const EVERY: Duration = Duration::from_millis(500);

/// What a checkpoint takes to be in the log.
const WAY: Duration = Duration::from_millis(100);
