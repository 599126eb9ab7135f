//! Managed services in a simulated world, with programs that are played: who ran where and when is
//! written down, and judged.

use std::{
    collections::BTreeMap,
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use serde_json::Value;
use synod::{
    management::message::Spec,
    runtime::world::{Clock, Instant},
    server::{
        core::Core,
        registers::RolesIn,
        services::{
            Services,
            programs::{Launch, Order, Passed, Programs, Question, Report, Ward},
        },
    },
    sim::{Blueprint, Cluster, Shape, Simulation},
};
use tokio::sync::mpsc;

use crate::simulated::{Counter, founded_as, name};

type LocalBoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

/// One life of one program, in simulated time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ran {
    /// In which epoch.
    pub epoch: u64,
    /// Where.
    pub node: String,
    /// Since when.
    pub began: Duration,
    /// Until when; not yet.
    pub ended: Option<Duration>,
    /// How much its node knew when it began.
    pub found: u64,
}

/// What ran, by service, and what the nodes are like.
#[derive(Debug, Default)]
pub struct Stage {
    /// Who ran, in the order in which they began.
    pub ran: BTreeMap<String, Vec<Ran>>,
    /// Nodes where programs end as soon as they have begun.
    pub broken: Vec<String>,
    /// Nodes that cannot take checkpoints in.
    pub deaf: Vec<String>,
    /// What probes answer.
    pub sick: bool,
    /// How much each node knows of each service: a program counts up for as long as it runs.
    pub known: BTreeMap<(String, String), u64>,
    /// What was taken in, in order: node, service, how much.
    pub imports: Vec<(String, String, u64)>,
}

/// Plays the programs of one node.
struct Player {
    sim: Simulation,
    clock: Arc<dyn Clock>,
    stage: Arc<Mutex<Stage>>,
}

struct Played {
    orders: mpsc::UnboundedSender<Order>,
    reports: mpsc::UnboundedReceiver<Report>,
}

impl Programs for Player {
    fn start(&self, launch: Launch) -> io::Result<Box<dyn Ward>> {
        let (orders, told) = mpsc::unbounded_channel();
        let (tell, reports) = mpsc::unbounded_channel();
        let (sim, clock, stage) =
            (self.sim.clone(), Arc::clone(&self.clock), Arc::clone(&self.stage));
        actix_rt::spawn(guard(sim, clock, stage, launch, told, tell));
        Ok(Box::new(Played { orders, reports }))
    }

    fn ask(&self, _question: Question) -> LocalBoxFuture<'static, bool> {
        let well = !lock(&self.stage).sick;
        Box::pin(async move {
            tokio::time::sleep(Duration::from_millis(10)).await;
            well
        })
    }

    fn export(&self, question: Question) -> Passed<Vec<u8>> {
        let stage = Arc::clone(&self.stage);
        let place = (question.station.node.to_string(), question.station.service);
        Box::pin(async move {
            tokio::time::sleep(Duration::from_millis(10)).await;
            let known = lock(&stage).known.get(&place).copied().unwrap_or_default();
            Ok(known.to_le_bytes().to_vec())
        })
    }

    fn import(&self, question: Question, state: Bytes) -> Passed<()> {
        let stage = Arc::clone(&self.stage);
        let (node, service) = (question.station.node.to_string(), question.station.service);
        Box::pin(async move {
            tokio::time::sleep(Duration::from_millis(10)).await;
            let bytes = state[..].try_into().map_err(|_| "eight bytes are wanted".to_owned())?;
            let known = u64::from_le_bytes(bytes);
            let mut stage = lock(&stage);
            if stage.deaf.contains(&node) {
                return Err("it is deaf".to_owned());
            }
            stage.known.insert((node.clone(), service.clone()), known);
            stage.imports.push((node, service, known));
            Ok(())
        })
    }
}

impl Ward for Played {
    fn tell(&mut self, order: Order) -> LocalBoxFuture<'_, ()> {
        let _gone = self.orders.send(order);
        Box::pin(std::future::ready(()))
    }

    fn next(&mut self) -> LocalBoxFuture<'_, Option<Report>> {
        Box::pin(self.reports.recv())
    }
}

/// What a watchdog does: it outlives its node by a moment, and ends its program in time.
async fn guard(
    sim: Simulation,
    clock: Arc<dyn Clock>,
    stage: Arc<Mutex<Stage>>,
    launch: Launch,
    mut orders: mpsc::UnboundedReceiver<Order>,
    reports: mpsc::UnboundedSender<Report>,
) {
    let (service, node) = (launch.station.service, launch.station.node.to_string());
    let (epoch, began) = (launch.station.epoch.0, sim.now());
    let (place, broken) = {
        let mut stage = lock(&stage);
        let broken = stage.broken.contains(&node);
        let here = (node.clone(), service.clone());
        let found = stage.known.get(&here).copied().unwrap_or_default();
        let ran = stage.ran.entry(service.clone()).or_default();
        ran.push(Ran { epoch, node: node.clone(), began, ended: None, found });
        (ran.len() - 1, broken)
    };
    let mut end_at: Option<Instant> = broken.then(|| clock.now() + Duration::from_millis(20));
    let (mut until, mut alone) = (launch.until, false);
    loop {
        let kill_at = until - Duration::from_millis(100);
        let at = end_at.map_or(kill_at, |end_at| end_at.min(kill_at));
        if clock.now() >= at {
            break;
        }
        *lock(&stage).known.entry((node.clone(), service.clone())).or_default() += 1;
        let wait = at.since(clock.now()).min(Duration::from_millis(5));
        tokio::select! {
            order = orders.recv(), if !alone => match order {
                Some(Order::Until(later)) => until = until.max(later),
                Some(Order::Kill) => break,
                // It takes its time, also when its node is dead.
                Some(Order::End) | None => {
                    alone = order.is_none();
                    end_at.get_or_insert_with(|| clock.now() + Duration::from_millis(60));
                }
            },
            () = tokio::time::sleep(wait) => {}
        }
    }
    if let Some(ran) = lock(&stage).ran.get_mut(&service) {
        ran[place].ended = Some(sim.now());
    }
    let _nobody_listens = reports.send(Report::Gone(0));
}

/// A cluster whose nodes play programs.
#[derive(Debug)]
pub struct Theatre {
    /// Its world.
    pub sim: Simulation,
    /// Its nodes.
    pub cluster: Cluster,
    stage: Arc<Mutex<Stage>>,
}

impl Theatre {
    /// Two mains, an auxiliary and a member, `a`, `b`, `x` and `m1`, or that many of them.
    ///
    /// # Panics
    /// When they do not found a cluster within half a minute.
    pub async fn open(sim: &Simulation, members: u8) -> Self {
        Self::open_with(sim, members, RolesIn::Log).await
    }

    /// The same, with roles kept there.
    ///
    /// # Panics
    /// When they do not found a cluster within half a minute.
    pub async fn open_with(sim: &Simulation, members: u8, roles: RolesIn) -> Self {
        let shape = Shape { members, ..Shape::default() };
        let blueprint = Blueprint { roles, ..Blueprint::hosting::<Counter>("counter") };
        let cluster = founded_as(sim, shape, blueprint).await;
        let theatre = Self { sim: sim.clone(), cluster, stage: Arc::default() };
        for node in theatre.players() {
            theatre.provide(&node);
        }
        theatre
    }

    /// All nodes that play programs.
    pub fn players(&self) -> Vec<String> {
        let names = self.cluster.names().into_iter().map(|node| node.to_string());
        names.filter(|node| !node.starts_with('x')).collect()
    }

    /// Lets a node that runs play programs.
    pub fn provide(&self, node: &str) {
        let clock = Arc::clone(self.core(node).node().clock());
        let (sim, stage) = (self.sim.clone(), Arc::clone(&self.stage));
        let player: Arc<dyn Programs> = Arc::new(Player { sim, clock, stage });
        self.services(node).provide(&player);
    }

    fn core(&self, node: &str) -> &Core {
        self.cluster.core(&name(node)).expect("it runs")
    }

    /// The services, by way of `node`.
    ///
    /// # Panics
    /// When that does not run.
    pub fn services(&self, node: &str) -> Services {
        self.core(node).services()
    }

    /// Starts a node that was crashed.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn restart(&mut self, node: &str) {
        self.cluster.start(&name(node)).expect("it starts");
        self.provide(node);
    }

    /// What ran, and what the nodes are like.
    pub fn stage(&self) -> MutexGuard<'_, Stage> {
        lock(&self.stage)
    }

    /// Who runs the service now.
    pub fn running(&self, service: &str) -> Option<Ran> {
        self.stage().ran.get(service)?.iter().rfind(|ran| ran.ended.is_none()).cloned()
    }

    /// Waits until the service runs as `wanted` says; answers how, and how long it took.
    ///
    /// # Panics
    /// When it does not within half a minute, or something ran that must not.
    pub async fn until(&self, service: &str, wanted: impl Fn(&Ran) -> bool) -> (Ran, Duration) {
        let began = self.sim.now();
        loop {
            self.judge().unwrap_or_else(|broken| panic!("{broken}"));
            if let Some(ran) = self.running(service).filter(&wanted) {
                return (ran, self.sim.now() - began);
            }
            let waited = self.sim.now() - began;
            assert!(waited < PATIENCE, "{service}: {:?}", self.stage().ran);
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Waits until the document of a service is as `wanted` says, at that node.
    ///
    /// # Panics
    /// When it is not within half a minute.
    pub async fn until_shown(&self, node: &str, service: &str, wanted: impl Fn(&Value) -> bool) {
        let began = self.sim.now();
        loop {
            let documents = self.services(node).documents();
            let document = documents.iter().find(|one| one["service"] == service);
            if document.is_some_and(&wanted) {
                return;
            }
            assert!(self.sim.now() - began < PATIENCE, "{service}: {documents:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// At no moment two programs of a service run, and epochs rise.
    ///
    /// # Errors
    /// What ran that must not.
    pub fn judge(&self) -> Result<(), String> {
        for (service, ran) in &self.stage().ran {
            for two in ran.windows(2) {
                if two[0].ended.is_none_or(|ended| ended > two[1].began) {
                    return Err(format!("{service} ran twice at one time: {two:?}"));
                }
                if two[0].epoch > two[1].epoch {
                    return Err(format!("{service}: an epoch came back: {two:?}"));
                }
            }
        }
        Ok(())
    }
}

/// A service of that name, with that lease.
///
/// # Panics
/// With a lease of months.
pub fn service(name: &str, lease: Duration) -> Spec {
    let lease_ms = u32::try_from(lease.as_millis()).expect("a lease is short");
    Spec { lease_ms, ..Spec::new(name, &[name]) }
}

fn lock(stage: &Mutex<Stage>) -> MutexGuard<'_, Stage> {
    stage.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Nothing that comes at all takes longer.
const PATIENCE: Duration = Duration::from_secs(30);
