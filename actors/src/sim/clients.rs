//! Clients of every main: commands and linearizable reads, alone and in bursts, small and large.

use std::{
    cell::{Cell, RefCell},
    fmt,
    rc::Rc,
    time::Duration,
};

use rand::{RngExt, SeedableRng};
use serde::Serialize;
use synod_runtime::{identity::NodeName, sim::Simulation, world::Rng};

use super::{
    cluster::Cluster,
    record::{Attempt, CallKind, Shared},
    witness::{Append, Length, NAME, Stumble},
};
use crate::{
    message::RemoteMessage,
    replicated::{Consistency, Done, IdempotencyKey, Inquiry, Submission, Submit, name_hash},
};

/// How long a client waits for an answer.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);

/// How much later the answer may come: the clock of a node may go slower than true time, and its
/// home may have to be rebuilt first, which supervision delays by up to five seconds; twice, when
/// it panics again at once.
const PATIENCE_SLACK: Duration = Duration::from_millis(10_500);

/// What clients do, as a function of nothing but the seed.
#[derive(Clone)]
pub(super) struct Clients {
    sim: Simulation,
    cluster: Rc<RefCell<Cluster>>,
    record: Shared,
    /// Set when no new calls are wanted.
    enough: Rc<Cell<bool>>,
    /// Whether handlers are to panic now and then.
    stumbling: bool,
}

impl Clients {
    /// Clients of `cluster` that write what they see into `record`.
    pub(super) fn new(cluster: &Rc<RefCell<Cluster>>, record: &Shared, stumbling: bool) -> Self {
        Self {
            sim: cluster.borrow().sim().clone(),
            cluster: Rc::clone(cluster),
            record: record.clone(),
            enough: Rc::default(),
            stumbling,
        }
    }

    /// Starts one client for each main.
    pub(super) fn start(&self) {
        let homes = self.cluster.borrow().mains();
        for (n, home) in (0u64..).zip(homes) {
            // Streams of their own, so that one client's doings do not change another's.
            let mut rng = Rng::seed_from_u64(self.sim.seed());
            rng.set_stream(n + 1);
            actix_rt::spawn(self.clone().live(home, rng));
        }
    }

    /// No new calls, please. Those that are open end by themselves.
    pub(super) fn stop(&self) {
        self.enough.set(true);
    }

    /// Asks for one entry more at `home`, which must be granted: nothing is wrong.
    pub(super) fn must(&self, home: &NodeName) -> u64 {
        let kind = CallKind::Append { keyed: false };
        let call = self.record.open().call(kind, 0, self.sim.now(), true);
        self.ask(home, &[(call, 0)]);
        call
    }

    async fn live(self, home: NodeName, mut rng: Rng) {
        let mut keyed = Vec::new();
        while !self.enough.get() {
            let pause = rng.random_range(PAUSE_MS_MIN..PAUSE_MS_MAX);
            tokio::time::sleep(Duration::from_millis(pause)).await;
            self.ask_again(&mut keyed, &mut rng);
            if self.cluster.borrow().core(&home).is_none() {
                continue;
            }
            let burst = rng.random_bool(BURSTS);
            let count = if burst { rng.random_range(10..BURST_CALLS_MAX) } else { 1 };
            let calls: Vec<_> = (0..count).map(|_| self.want(&mut keyed, &mut rng)).collect();
            self.ask(&home, &calls);
        }
    }

    /// Thinks of something to want; answers the call and the size of its command.
    fn want(&self, keyed: &mut Vec<u64>, rng: &mut Rng) -> (u64, usize) {
        let list = rng.random_range(0..LISTS);
        let kind = match rng.random_range(0..100u32) {
            0..35 => CallKind::Length,
            35..45 => CallKind::Append { keyed: true },
            45 if self.stumbling && rng.random_bool(STUMBLES) => CallKind::Stumble,
            _ => CallKind::Append { keyed: false },
        };
        let call = self.record.open().call(kind, list, self.sim.now(), false);
        if kind == (CallKind::Append { keyed: true }) {
            keyed.push(call);
        }
        let large = rng.random_bool(LARGE);
        (call, rng.random_range(0..if large { LARGE_BYTES_MAX } else { SMALL_BYTES_MAX }))
    }

    /// What has a key and no good answer is asked for again, anywhere.
    fn ask_again(&self, keyed: &mut Vec<u64>, rng: &mut Rng) {
        let due: Vec<u64> = {
            let record = self.record.open();
            keyed.retain(|call| {
                record.known(*call).is_some_and(|c| c.applied.is_none() && c.failed.is_none())
            });
            keyed
                .iter()
                .copied()
                .filter(|c| record.known(*c).is_some_and(|c| !c.is_open()))
                .collect()
        };
        let homes = self.cluster.borrow().mains();
        for call in due {
            let home = &homes[rng.random_range(0..homes.len())];
            if rng.random_bool(0.5) && self.cluster.borrow().core(home).is_some() {
                self.ask(home, &[(call, 0)]);
            }
        }
    }

    /// Makes one attempt for each call, in one turn at the node `home`, if it runs.
    fn ask(&self, home: &NodeName, calls: &[(u64, usize)]) {
        let cluster = self.cluster.borrow();
        let Some(submit) = cluster.submit(home) else { return };
        let home = (home.clone(), cluster.lives(home));
        drop(cluster);
        let (mut commands, mut reads) = (Vec::new(), Vec::new());
        for (call, size) in calls {
            let Some((kind, list)) = self.record.open().known(*call).map(|c| (c.kind, c.list))
            else {
                continue;
            };
            let done = self.attempt(*call, &home);
            match kind {
                CallKind::Append { keyed } => {
                    let append = Append { list, call: *call, filler: vec![7; *size] };
                    let key = keyed.then(|| key_of(*call));
                    commands.push(command(&append, key, done));
                }
                CallKind::Stumble => {
                    commands.push(command(&Stumble { list, call: *call }, None, done));
                }
                CallKind::Length => reads.push(inquiry(&Length { list }, done)),
            }
        }
        submit_all(submit.as_ref(), commands, reads);
    }

    /// Notes an attempt; answers whom to tell.
    fn attempt(&self, call: u64, home: &(NodeName, u64)) -> Done {
        let began = self.sim.now();
        let due = began + PATIENCE + PATIENCE_SLACK;
        let attempt = Attempt { call, home: home.clone(), began, due, ended: None };
        let number = self.record.open().attempt(attempt);
        let (record, sim) = (self.record.clone(), self.sim.clone());
        Box::new(move |outcome| record.open().ended(number, sim.now(), outcome))
    }
}

fn submit_all(submit: &dyn Submit, commands: Vec<Submission>, reads: Vec<Inquiry>) {
    if !commands.is_empty() {
        submit.submit(commands);
    }
    if !reads.is_empty() {
        submit.query(reads);
    }
}

/// A command of the witness.
fn command<M: RemoteMessage>(message: &M, key: Option<IdempotencyKey>, done: Done) -> Submission {
    Submission {
        actor: name_hash(NAME),
        function: name_hash(M::NAME),
        args: encoded(message).into(),
        deadline: PATIENCE,
        idempotency: key,
        done,
    }
}

/// A linearizable query of the witness.
fn inquiry<M: RemoteMessage>(message: &M, done: Done) -> Inquiry {
    Inquiry {
        actor: name_hash(NAME),
        function: name_hash(M::NAME),
        args: encoded(message).into(),
        consistency: Consistency::Linearizable,
        deadline: PATIENCE,
        done,
    }
}

fn encoded(message: &impl Serialize) -> Vec<u8> {
    rmp_serde::to_vec_named(message).expect("plain data encodes")
}

fn key_of(call: u64) -> IdempotencyKey {
    IdempotencyKey::new(&format!("call-{call}")).expect("short")
}

/// Few enough lists that calls meet.
const LISTS: u8 = 4;
/// A client asks for something this often.
const PAUSE_MS_MIN: u64 = 5;
const PAUSE_MS_MAX: u64 = 200;
/// Now and then for much at once.
const BURSTS: f64 = 0.05;
const BURST_CALLS_MAX: u32 = 60;
/// Commands are small, now and then large.
const SMALL_BYTES_MAX: usize = 600;
const LARGE: f64 = 0.02;
const LARGE_BYTES_MAX: usize = 40_000;
/// How many of one in a hundred calls meet a handler that panics.
const STUMBLES: f64 = 0.2;

impl fmt::Debug for Clients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Clients").field("enough", &self.enough).finish_non_exhaustive()
    }
}
