//! A random walk over the pure machines of roles: three mains that apply one log at their own pace, the
//! election service and the clients of each, clocks that drift, and everything that can go wrong.
//!
//! What is judged: no two clients may act in a role at one instant (P1); epochs rise (P2); a live
//! holder that renews keeps its role (P3); somebody holds it soon after faults stop (P4); the guarded
//! resource takes no old epoch's word after a newer one was granted (P5); whoever watches, at whichever
//! main, hears of every change, once, in order (P6).

mod node;
mod watcher;

use std::collections::BTreeMap;

use rand::{RngExt, SeedableRng};
use synod::{
    election::{
        message::{Change, Epoch, Op, Said},
        roles::Roles,
    },
    replicated::Position,
};
use synod_runtime::world::Rng;

use self::{
    node::{MICROS, Node},
    watcher::{History, Watcher},
};

/// What a walk does wrong itself, to see that its judges notice: rules that no machine alone keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slip {
    /// The service says how much time is left instead of until when.
    RemainingTimeHandedOver,
    /// A client's clock stands still while its machine is suspended.
    ClockStops,
    /// A client acts on after it resigned.
    ActsAfterResigning,
    /// A main counts from when a command was proposed, by the proposer's clock.
    ProposersStamp,
}

/// What a walk found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// Which promise, as numbered above.
    pub promise: &'static str,
    /// How.
    pub how: String,
}

/// How far a walk came.
#[derive(Debug, Clone, Copy, Default)]
pub struct Walked {
    /// Commands of the log.
    pub commands: u64,
    /// Leases that ran out and were expired.
    pub expiries: u64,
    /// Grants.
    pub grants: u64,
}

/// Walks once.
///
/// # Errors
/// The first promise that was broken.
pub fn walk(seed: u64, slip: Option<Slip>) -> Result<Walked, Broken> {
    walk_on(Walk::new(seed, slip))
}

/// Walks once where roles are kept in registers: nobody executes what others change, but looks now and
/// then at what came of it.
///
/// # Errors
/// As [`walk`].
pub fn walk_pages(seed: u64) -> Result<Walked, Broken> {
    let mut walk = Walk::new(seed, None);
    walk.pages = true;
    walk_on(walk)
}

fn walk_on(mut walk: Walk) -> Result<Walked, Broken> {
    while walk.now < FAULTY {
        walk.turn()?;
    }
    walk.calm = true;
    // Whoever hangs for ever is no live holder: another one must have its roles.
    let hangs = walk.rng.random_bool(0.5).then(|| walk.rng.random_range(0..NODES));
    for (number, node) in walk.nodes.iter_mut().enumerate() {
        node.recover(walk.now, hangs == Some(number));
    }
    while walk.now < FAULTY + SETTLING {
        walk.turn()?;
    }
    walk.somebody_holds()?;
    let held: Vec<_> = walk.truth.iter().map(|(id, role)| (id, role.epoch)).collect();
    while walk.now < FAULTY + SETTLING + CALM {
        walk.turn()?;
    }
    let kept: Vec<_> = walk.truth.iter().map(|(id, role)| (id, role.epoch)).collect();
    if held != kept {
        return Err(broken("P3", format!("live holders were replaced: {held:?}, then {kept:?}")));
    }
    Ok(walk.walked)
}

/// The log, the machines, and what is on its way.
struct Walk {
    now: u64,
    rng: Rng,
    slip: Option<Slip>,
    air: Air,
    pages: bool,
    calm: bool,
    nodes: Vec<Node>,
    /// The log; what each command answered, and when it was proposed by the proposer's clock.
    log: Vec<(Vec<Op>, u64)>,
    truth: Roles,
    history: History,
    watcher: Watcher,
    highest: BTreeMap<String, Epoch>,
    events: BTreeMap<(u64, u64), Event>,
    serial: u64,
    walked: Walked,
}

/// What lies between nodes and clients in a walk: what is rare in one is common in another. Times are in
/// microseconds.
struct Air {
    /// The longest usual way of a command to the log, and of its answer back.
    way: u64,
    /// One of so many commands is late…
    slow: u32,
    /// …and of so many nobody knows whether they were executed.
    lost: u32,
    /// The longest usual way of a word to a client.
    word: u64,
    /// One of so many words is late.
    late: u32,
    /// How many clients stand at a node, at most.
    clients: usize,
    /// How many roles there are.
    roles: usize,
    /// How often nodes look at their timers.
    tick: u64,
    /// Whether every clock is as wrong as may be, some either way.
    drifts: bool,
    /// The leases that clients ask for, in milliseconds.
    leases: [u64; 3],
}

impl Air {
    fn drawn(rng: &mut Rng) -> Self {
        let mut either = |one, other| if rng.random() { one } else { other };
        // Rules that allow for clocks matter where a role changes hands within a hundredth of a lease.
        let brisk = either(1, 0) == 1;
        let word = if brisk { 300 } else { either(300, 60_000) };
        Self {
            way: if brisk { 1_000 } else { either(1_000, 20_000) },
            slow: u32::try_from(either(5, 30)).expect("small"),
            lost: u32::try_from(either(5, 40)).expect("small"),
            word,
            late: u32::try_from(either(10, 100)).expect("small"),
            clients: usize::try_from(either(4, 16)).expect("small"),
            roles: usize::try_from(either(1, 2)).expect("small"),
            tick: if brisk { 1_000 } else { 4_000 },
            drifts: brisk,
            leases: if brisk { [2_000; 3] } else { [300, 500, 2_000] },
        }
    }
}

/// What is on its way.
enum Event {
    /// A command comes to the log.
    Command { node: usize, life: u64, flight: u64, ops: Vec<Op>, stamp: u64 },
    /// Its answer comes back.
    Answer { node: usize, life: u64, flight: u64, said: Option<Vec<Said>> },
    /// What the service says comes to a client.
    Told { node: usize, handle: u64, event: node::Heard },
    /// A main applies what is new.
    Apply(usize),
    /// Timers of a node.
    Tick(usize),
    /// Something goes wrong, or a client wants something.
    Chance,
    /// Somebody who watches asks a main.
    Watch(usize),
    /// A holder's word comes to the resource.
    Write { role: String, epoch: Epoch },
}

impl Walk {
    fn new(seed: u64, slip: Option<Slip>) -> Self {
        let mut rng = Rng::seed_from_u64(seed);
        let air = Air::drawn(&mut rng);
        let nodes = (0..NODES).map(|number| Node::new(number, &air, &mut rng)).collect();
        let mut walk = Self {
            now: 0,
            rng,
            slip,
            air,
            pages: false,
            calm: false,
            nodes,
            log: Vec::new(),
            truth: Roles::default(),
            history: History::default(),
            watcher: Watcher::new(Rng::seed_from_u64(!seed)),
            highest: BTreeMap::new(),
            events: BTreeMap::new(),
            serial: 0,
            walked: Walked::default(),
        };
        for node in 0..NODES {
            walk.after(0, Event::Tick(node));
            walk.after(0, Event::Apply(node));
            for _ in 0..2 {
                let now = walk.now;
                walk.nodes[node].volunteer(now, &walk.air, &mut walk.rng);
            }
        }
        walk.after(10_000, Event::Chance);
        walk.after(0, Event::Watch(0));
        walk
    }

    fn after(&mut self, micros: u64, event: Event) {
        self.serial += 1;
        self.events.insert((self.now + micros, self.serial), event);
    }

    fn turn(&mut self) -> Result<(), Broken> {
        let ((at, _), event) = self.events.pop_first().expect("ticks go on for ever");
        self.now = at;
        match event {
            Event::Tick(node) => {
                let wait =
                    if self.nodes[node].is_paused(self.now) { 20_000 } else { self.air.tick };
                self.nodes[node].tick(self.now, &self.air, &mut self.rng);
                self.after(wait, Event::Tick(node));
            }
            Event::Apply(node) => {
                self.apply(node);
                let lag =
                    if self.calm || self.rng.random_ratio(9, 10) { self.air.tick } else { 300_000 };
                let wait = self.rng.random_range(500..lag);
                self.after(wait, Event::Apply(node));
            }
            Event::Command { node, life, flight, ops, stamp } => {
                self.decide(node, life, flight, ops, stamp)?;
            }
            Event::Answer { node, life, flight, said } => {
                self.nodes[node].answer(self.now, life, flight, said);
            }
            Event::Told { node, handle, event } => {
                self.nodes[node].hear(self.now, handle, event, self.slip);
            }
            Event::Chance => {
                if !self.calm {
                    self.chance();
                    let wait = self.rng.random_range(10_000..400_000);
                    self.after(wait, Event::Chance);
                }
            }
            Event::Write { role, epoch } => self.write(&role, epoch)?,
            Event::Watch(_) if self.pages => {}
            Event::Watch(node) => {
                let told = self.nodes[node].told(&self.watcher.since());
                self.watcher.hear(told, &self.history)?;
                let (wait, node) = self.watcher.next(NODES);
                self.after(wait, Event::Watch(node));
            }
        }
        self.collect();
        self.nobody_acts_beside_another()
    }

    /// Puts on their way what the nodes have to say.
    fn collect(&mut self) {
        for node in 0..NODES {
            let now = self.now;
            let stamp = self.nodes[node].clock(now).as_nanos();
            for (flight, ops) in self.nodes[node].commands() {
                let life = self.nodes[node].life;
                let slow = !self.calm && self.rng.random_ratio(1, self.air.slow);
                let way = self.rng.random_range(300..if slow { 1_500_000 } else { self.air.way });
                // Commands of one home come in order.
                let at = (now + way).max(self.nodes[node].last_arrival);
                self.nodes[node].last_arrival = at;
                if !self.calm && self.rng.random_ratio(1, self.air.lost) {
                    let event = Event::Answer { node, life, flight, said: None };
                    // That nobody knows is told late.
                    let late = self.rng.random_range(0..600_000);
                    self.after(way + late, event);
                    // It may be executed all the same.
                    if self.rng.random() {
                        continue;
                    }
                }
                self.after(at - now, Event::Command { node, life, flight, ops, stamp });
            }
            for (handle, event) in self.nodes[node].words() {
                let late = !self.calm && self.rng.random_ratio(1, self.air.late);
                let usual = if self.calm { 1_000 } else { self.air.word };
                let way = self.rng.random_range(50..if late { 1_000_000 } else { usual });
                // One client hears one thing after the other.
                let at = (now + way).max(self.nodes[node].last_told);
                self.nodes[node].last_told = at;
                self.after(at - now, Event::Told { node, handle, event });
            }
        }
        for node in 0..NODES {
            for (role, epoch) in self.nodes[node].writes(self.now, &mut self.rng) {
                let way = self.rng.random_range(50..if self.calm { 1_000 } else { 3_000_000 });
                self.after(way, Event::Write { role, epoch });
            }
        }
    }

    /// A command has its place in the log.
    fn decide(
        &mut self,
        node: usize,
        life: u64,
        flight: u64,
        ops: Vec<Op>,
        stamp: u64,
    ) -> Result<(), Broken> {
        if self.nodes[node].life != life && self.rng.random() {
            return Ok(()); // its home is gone, and nobody sends it again
        }
        let mut changes = Vec::new();
        let at = Position(self.log.len() as u64 + 1);
        self.walked.commands += 1;
        self.walked.expiries +=
            ops.iter().filter(|op| matches!(op, Op::Expire { .. })).count() as u64;
        let apply = |roles: &mut Roles, op| roles.apply(at, op, &mut changes);
        let said = self.history.command(at, &mut self.truth, &ops, apply);
        self.log.push((ops, stamp));
        self.rise(&changes)?;
        let lost = !self.calm && self.rng.random_ratio(1, 20);
        let way = self.rng.random_range(300..if lost { 2_000_000 } else { self.air.way });
        self.after(way, Event::Answer { node, life, flight, said: Some(said) });
        Ok(())
    }

    /// P2.
    fn rise(&mut self, changes: &[Change]) -> Result<(), Broken> {
        for change in changes {
            let Some(holder) = &change.holder else { continue };
            self.walked.grants += 1;
            let before = self.highest.insert(change.name.clone(), holder.epoch);
            if before.is_some_and(|before| before >= holder.epoch) {
                return Err(broken("P2", format!("{before:?}, then {change:?}")));
            }
        }
        Ok(())
    }

    fn apply(&mut self, node: usize) {
        if self.nodes[node].is_paused(self.now) {
            return;
        }
        let (now, slip) = (self.now, self.slip);
        if self.pages {
            return self.nodes[node].look(now, &self.truth, self.log.len());
        }
        self.nodes[node].apply(now, &self.log, slip == Some(Slip::ProposersStamp));
    }

    fn write(&mut self, role: &str, epoch: Epoch) -> Result<(), Broken> {
        let at = Position(self.log.len() as u64 + 1);
        let op = Op::Fence { role: role.to_owned(), epoch };
        let said = self.truth.apply(at, op.clone(), &mut Vec::new());
        self.log.push((vec![op], 0));
        let highest = self.highest.get(role).copied().unwrap_or_default();
        if said == Said::Done && epoch < highest {
            return Err(broken("P5", format!("{role}: {epoch} accepted after {highest}")));
        }
        Ok(())
    }

    fn chance(&mut self) {
        let node = self.rng.random_range(0..NODES);
        let now = self.now;
        let one = &mut self.nodes[node];
        match self.rng.random_range(0..14) {
            0 | 1 => one.pause(now, self.rng.random_range(50_000..4_000_000), self.slip),
            2 => one.restart(now, &mut self.rng),
            3 => one.restart_service(&mut self.rng),
            4 | 5 => one.hang(now + self.rng.random_range(100_000..5_000_000)),
            6 | 7 => one.leave(now, self.slip, &mut self.rng),
            8..=10 => {
                for _ in 0..self.air.clients / 4 {
                    one.volunteer(now, &self.air, &mut self.rng);
                }
            }
            11 => {
                let (roles, applied) = (self.truth.clone(), self.log.len());
                one.install(now, roles, applied);
            }
            _ => one.leads = !one.leads,
        }
        // Somebody leads most of the time, sometimes two do.
        if self.nodes.iter().all(|node| !node.leads) {
            self.nodes[node].leads = true;
        }
    }

    /// P1.
    fn nobody_acts_beside_another(&self) -> Result<(), Broken> {
        let mut acting: BTreeMap<&str, (usize, Epoch)> = BTreeMap::new();
        for (number, node) in self.nodes.iter().enumerate() {
            for (role, epoch) in node.acting(self.now) {
                if let Some(other) = acting.insert(role, (number, epoch)) {
                    let how = format!("{role}: {other:?} and {:?} act", (number, epoch));
                    return Err(broken("P1", how));
                }
            }
        }
        Ok(())
    }

    /// P4.
    fn somebody_holds(&self) -> Result<(), Broken> {
        for role in ROLES {
            let mut live = self.nodes.iter().filter(|node| !node.hangs(self.now));
            let wanted = live.clone().any(|node| node.stands_for(role));
            let led = live.any(|node| node.acting(self.now).any(|one| one.0 == role));
            if wanted && !led {
                let known = self.truth.named(role).map(|role| role.view());
                return Err(broken("P4", format!("nobody acts in {role}: {known:?}")));
            }
        }
        Ok(())
    }
}

fn broken(promise: &'static str, how: String) -> Broken {
    Broken { promise, how }
}

/// Mains, each with clients.
const NODES: usize = 3;

/// What clients stand for.
const ROLES: [&str; 2] = ["jobs", "mail"];

/// Things go wrong for so long.
const FAULTY: u64 = 15 * MICROS;

/// Then somebody holds every role within two of the longest leases, of two seconds, and what was
/// under way when faults ended.
const SETTLING: u64 = 7 * MICROS;

/// And nobody is replaced.
const CALM: u64 = 4 * MICROS;
