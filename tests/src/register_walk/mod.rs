//! A random walk over the pure machines of registers: holders or disks, clients that read, write and
//! count up, a network that loses, doubles and delays, and crashes of either side at any moment.
//!
//! What is judged: one order of all calls explains what clients were told, and agrees with time; and
//! once faults end, with a minority gone for good, every client gets on.

mod faults;
mod keeper;

use std::collections::BTreeMap;

use rand::{RngExt, SeedableRng};
use synod::register::{
    Goal, Holders, Outcome, Stamps, Written,
    disk::{DiskBlock, DiskOperation},
    operation::{Call as _, Operation as Quorum},
};
use synod_runtime::world::{Instant, Rng};

use self::keeper::{Keeper, Question, Reply};
use crate::history::{Call, Operation, Told, judge};

/// What keeps the registers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Holders.
    Holders,
    /// Disks.
    Disks,
}

/// What a walk does wrong itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slip {
    /// A holder answers before what it answers is durable; a disk, before it has written.
    SaidBeforeDurable,
    /// A damaged block counts as one that was never written.
    DamagedIsEmpty,
    /// A client goes on from what it wrote last, though it does not know what became of a call since.
    GoesOnInDoubt,
}

/// How far a walk came.
#[derive(Debug, Clone, Copy, Default)]
pub struct Walked {
    /// Calls that were answered well.
    pub done: u64,
    /// That were given up, or never answered.
    pub given_up: u64,
    /// Calls that went on from the last one, in one round.
    pub went_on: u64,
    /// Questions to those that are only asked when another is missing, while nothing was wrong.
    pub idle: u64,
}

/// Walks once.
///
/// # Errors
/// What was broken.
pub fn walk(kind: Kind, seed: u64, slip: Option<Slip>) -> Result<Walked, String> {
    let mut walk = Walk::new(kind, seed, slip);
    while walk.now < FAULTY {
        walk.turn();
    }
    walk.calm();
    let before: Vec<_> = walk.clients.iter().map(|client| client.done).collect();
    while walk.now < FAULTY + CALM {
        walk.turn();
    }
    judge::check(&walk.history).map_err(|violation| format!("{violation:?}"))?;
    let stuck = walk.clients.iter().zip(before).position(|(client, before)| client.done == before);
    match stuck {
        Some(stuck) => Err(format!("client {stuck} does not get on")),
        None => Ok(walk.walked),
    }
}

/// Without faults and with one client: only those that come first are asked.
pub fn quiet(kind: Kind, seed: u64) -> Walked {
    let mut walk = Walk::new(kind, seed, None);
    walk.quiet = true;
    walk.clients.truncate(1);
    while walk.now < CALM {
        walk.turn();
    }
    walk.walked
}

struct Walk {
    kind: Kind,
    slip: Option<Slip>,
    now: u64,
    rng: Rng,
    holders: Holders,
    keepers: Vec<Keeper>,
    clients: Vec<Client>,
    /// One disk only may rot: more than a minority is more than anybody survives.
    rots: usize,
    calm: bool,
    quiet: bool,
    events: BTreeMap<(u64, u64), Event>,
    serial: u64,
    processes: u64,
    history: Vec<Operation>,
    walked: Walked,
}

struct Client {
    process: u64,
    /// Rises with every call and crash.
    turn: u64,
    stamps: Stamps,
    mine: BTreeMap<u8, DiskBlock>,
    /// What it wrote last in each register, if it knows that.
    written: BTreeMap<u8, Written>,
    call: Option<(Running, u8, Call, u64)>,
    /// Questions to one disk come in order.
    arrivals: BTreeMap<usize, u64>,
    done: u64,
}

enum Running {
    Holders(Quorum),
    Disks(DiskOperation),
}

enum Event {
    /// A client makes its next call.
    Begin(usize),
    /// It has waited long enough for some, or for all.
    Widen(usize, u64),
    GiveUp(usize, u64),
    /// A question comes to a keeper.
    Ask {
        client: usize,
        turn: u64,
        keeper: usize,
        round: u32,
        key: u8,
        question: Question,
    },
    /// What it waits for is durable.
    Synced {
        client: usize,
        turn: u64,
        keeper: usize,
        life: u64,
        round: u32,
        key: u8,
        write: u64,
        reply: Option<Reply>,
    },
    /// Its answer comes back.
    Reply {
        client: usize,
        turn: u64,
        keeper: usize,
        round: u32,
        reply: Reply,
    },
    Chance,
}

impl Walk {
    fn new(kind: Kind, seed: u64, slip: Option<Slip>) -> Self {
        let mut rng = Rng::seed_from_u64(seed);
        let shapes = [(2, 3), (2, 3), (3, 3), (3, 5)];
        let (first, all) = shapes[rng.random_range(0..shapes.len())];
        let clients = rng.random_range(2..=4);
        let mut walk = Self {
            kind,
            slip,
            now: 0,
            holders: Holders { first, all },
            keepers: (0..all).map(|_| Keeper::default()).collect(),
            rots: rng.random_range(0..all),
            clients: Vec::new(),
            calm: false,
            quiet: false,
            events: BTreeMap::new(),
            serial: 0,
            processes: 0,
            history: Vec::new(),
            walked: Walked::default(),
            rng,
        };
        for client in 0..clients {
            walk.processes += 1;
            let stamps = Stamps::new(walk.rng.random());
            let (process, mine, arrivals) = (walk.processes, BTreeMap::new(), BTreeMap::new());
            let written = BTreeMap::new();
            walk.clients.push(Client {
                process,
                turn: 0,
                stamps,
                mine,
                written,
                call: None,
                arrivals,
                done: 0,
            });
            walk.after(client as u64 * 500, Event::Begin(client));
        }
        walk.after(10_000, Event::Chance);
        walk
    }

    fn after(&mut self, micros: u64, event: Event) {
        self.serial += 1;
        self.events.insert((self.now + micros, self.serial), event);
    }

    fn turn(&mut self) {
        let ((at, _), event) = self.events.pop_first().expect("clients go on for ever");
        self.now = at;
        match event {
            Event::Begin(client) if client < self.clients.len() => self.begin(client),
            Event::Begin(_) => {}
            Event::Widen(client, turn) => {
                self.drive(client, turn, |call, holders, disks| match call {
                    Running::Holders(call) => call.widen(holders),
                    Running::Disks(call) => call.widen(disks),
                });
            }
            Event::GiveUp(client, turn) => {
                if client < self.clients.len() && self.clients[client].turn == turn {
                    self.end(client, Told::Unknown);
                }
            }
            Event::Ask { client, turn, keeper, round, key, question } => {
                self.ask(client, turn, keeper, round, key, question);
            }
            Event::Synced { client, turn, keeper, life, round, key, write, reply } => {
                let one = &mut self.keepers[keeper];
                if one.life != life {
                    return;
                }
                one.synced(write);
                let trusts = self.slip == Some(Slip::DamagedIsEmpty);
                let reply = reply.unwrap_or_else(|| one.look(key, trusts));
                self.reply(client, turn, keeper, round, reply);
            }
            Event::Reply { client, turn, keeper, round, reply } => {
                self.hear(client, turn, keeper, round, reply);
            }
            Event::Chance => self.chance(),
        }
    }

    fn begin(&mut self, number: usize) {
        let key = self.rng.random_range(0..2);
        let kind = self.rng.random_range(0..4);
        let value = self.rng.random_range(0..1_000);
        let (call, goal) = match kind {
            0 | 1 => (Call::Read, Goal::Read),
            2 => (Call::Write(value), Goal::Write(value.to_string().into_bytes())),
            _ => (Call::Incr, Goal::Change(Box::new(|old| counted(old).to_string().into_bytes()))),
        };
        let me = number.to_string();
        let client = &mut self.clients[number];
        client.turn += 1;
        let (turn, stamp) = (client.turn, client.stamps.next());
        let questions: Vec<_> = match self.kind {
            Kind::Holders => {
                let last =
                    client.written.get(&key).cloned().filter(|_| !matches!(goal, Goal::Read));
                if last.is_some() && self.slip != Some(Slip::GoesOnInDoubt) {
                    client.written.remove(&key);
                }
                let begin = |goal| Quorum::begin(self.holders, stamp, goal);
                let (running, asks) = match last {
                    Some(last) => Quorum::go_on(self.holders, &last, goal).unwrap_or_else(begin),
                    None => begin(goal),
                };
                client.call = Some((Running::Holders(running), key, call, self.now));
                asks.into_iter()
                    .map(|(to, round, ask)| (to, round, Question::Holder(ask)))
                    .collect()
            }
            Kind::Disks => {
                let mine = client.mine.get(&key).cloned();
                let (running, asks) = DiskOperation::begin(self.holders, &me, stamp, goal, mine);
                client.call = Some((Running::Disks(running), key, call, self.now));
                asks.into_iter().map(|(to, round, ask)| (to, round, Question::Disk(ask))).collect()
            }
        };
        self.send(number, turn, key, questions);
        self.after(HEDGE, Event::Widen(number, turn));
        self.after(PATIENCE, Event::GiveUp(number, turn));
    }

    fn send(&mut self, client: usize, turn: u64, key: u8, questions: Vec<(usize, u32, Question)>) {
        for (keeper, round, question) in questions {
            if self.quiet && keeper >= self.holders.first {
                self.walked.idle += 1;
            }
            let faulty = !self.calm && !self.quiet;
            if faulty && self.rng.random_ratio(1, 20) {
                continue;
            }
            let slow = faulty && self.rng.random_ratio(1, 10);
            let way = self.rng.random_range(50..if slow { 200_000 } else { 2_000 });
            let twice = faulty && self.kind == Kind::Holders && self.rng.random_ratio(1, 10);
            let mut at = self.now + way;
            if self.kind == Kind::Disks {
                let arrival = self.clients[client].arrivals.entry(keeper).or_default();
                at = at.max(*arrival);
                *arrival = at;
            }
            for again in 0..=u64::from(twice) {
                let question = question.clone();
                let ask = Event::Ask { client, turn, keeper, round, key, question };
                self.after(at - self.now + again * 50_000, ask);
            }
        }
    }

    fn ask(
        &mut self,
        client: usize,
        turn: u64,
        keeper: usize,
        round: u32,
        key: u8,
        question: Question,
    ) {
        let sync = self.rng.random_range(100..if self.calm || self.quiet { 1_000 } else { 20_000 });
        let one = &mut self.keepers[keeper];
        if self.now < one.down_until {
            return;
        }
        let (write, reply) = one.ask(key, &client.to_string(), question);
        let said = self.slip == Some(Slip::SaidBeforeDurable);
        let at = one.durable_at.max(self.now + sync);
        one.durable_at = at;
        let life = one.life;
        let early = match (&reply, said) {
            (Some(reply), true) => Some(reply.clone()),
            (None, true) => Some(one.look(key, false)),
            (_, false) => None,
        };
        if let Some(reply) = early {
            self.reply(client, turn, keeper, round, reply);
        }
        let synced = Event::Synced { client, turn, keeper, life, round, key, write, reply };
        self.after(at - self.now, synced);
    }

    fn reply(&mut self, client: usize, turn: u64, keeper: usize, round: u32, reply: Reply) {
        if !self.calm && !self.quiet && self.rng.random_ratio(1, 20) {
            return;
        }
        let way = self.rng.random_range(50..2_000);
        self.after(way, Event::Reply { client, turn, keeper, round, reply });
    }

    fn hear(&mut self, client: usize, turn: u64, keeper: usize, round: u32, reply: Reply) {
        let mut over = None;
        self.drive(client, turn, |call, holders, disks| match (call, reply) {
            (Running::Holders(call), Reply::Holder(answer)) => {
                over = call.answer(keeper, round, answer, holders);
            }
            (Running::Disks(call), Reply::Disk(answer)) => {
                over = call.answer(keeper, round, answer, disks);
            }
            (Running::Disks(call), Reply::Failed) => call.missing(round, disks),
            (Running::Holders(_), _) | (Running::Disks(_), Reply::Holder(_)) => {}
        });
        let Some(outcome) = over else { return };
        if let Outcome::Value(value) = &outcome {
            self.wrote(client, value);
        }
        let told = match outcome {
            Outcome::Value(value) => match self.clients[client].call.as_ref().map(|call| call.2) {
                Some(Call::Read) => Told::Value(number(&value)),
                Some(Call::Incr) => Told::Counted(number(&value).expect("it counted")),
                _ => Told::Done,
            },
            Outcome::Aborted { highest, maybe } => {
                self.clients[client].stamps.saw(highest);
                if maybe { Told::Unknown } else { Told::Refused }
            }
            Outcome::Refused(refusal) => panic!("nothing is too large: {refusal}"),
        };
        self.end(client, told);
    }

    /// The call of a client is done, and this is in the register.
    fn wrote(&mut self, client: usize, value: &[u8]) {
        let client = &mut self.clients[client];
        let Some((Running::Holders(call), key, ..)) = &client.call else { return };
        if let Some(written) = call.written(value) {
            self.walked.went_on += u64::from(call.has_gone_on());
            client.written.insert(*key, written);
        }
    }

    /// Lets a call do something, if it still runs, and sends what it asks.
    fn drive(
        &mut self,
        client: usize,
        turn: u64,
        act: impl FnOnce(
            &mut Running,
            &mut Vec<(usize, u32, synod::register::message::Ask)>,
            &mut Vec<(usize, u32, synod::register::disk::DiskAsk)>,
        ),
    ) {
        let Some(one) = self.clients.get_mut(client).filter(|one| one.turn == turn) else { return };
        let Some((call, key, ..)) = &mut one.call else { return };
        let (mut holders, mut disks, key) = (Vec::new(), Vec::new(), *key);
        act(call, &mut holders, &mut disks);
        if let Running::Disks(call) = call
            && let Some(mine) = call.mine()
        {
            one.mine.insert(key, mine.clone());
        }
        let asks = holders.into_iter().map(|(to, round, ask)| (to, round, Question::Holder(ask)));
        let disks = disks.into_iter().map(|(to, round, ask)| (to, round, Question::Disk(ask)));
        let questions: Vec<_> = asks.chain(disks).collect();
        if !questions.is_empty() {
            // Each round has its own patience.
            self.after(HEDGE, Event::Widen(client, turn));
        }
        self.send(client, turn, key, questions);
    }

    /// The call is over, for its client.
    fn end(&mut self, number: usize, told: Told) {
        let client = &mut self.clients[number];
        let Some((_, key, call, began)) = client.call.take() else { return };
        client.turn += 1;
        let at = |micros: u64| Instant::from_nanos(micros * 1_000);
        self.history.push(Operation {
            process: client.process,
            key,
            call,
            told,
            began: at(began),
            ended: at(self.now),
        });
        match told {
            Told::Unknown => {
                self.processes += 1;
                client.process = self.processes;
                self.walked.given_up += 1;
            }
            Told::Refused | Told::Missed => self.walked.given_up += 1,
            Told::Value(_) | Told::Done | Told::Counted(_) => {
                client.done += 1;
                self.walked.done += 1;
            }
        }
        let pause = self.rng.random_range(100..30_000);
        self.after(pause, Event::Begin(number));
    }
}

/// One more; what is not there counts as 0.
fn counted(old: &[u8]) -> i64 {
    number(old).unwrap_or_default() + 1
}

fn number(value: &[u8]) -> Option<i64> {
    std::str::from_utf8(value).ok()?.parse().ok()
}

/// Things go wrong for so long, in microseconds.
const FAULTY: u64 = 2_000_000;

/// And then nothing does.
const CALM: u64 = 1_500_000;

/// Who was not asked at first is, after this time.
const HEDGE: u64 = 30_000;

/// A client waits no longer.
const PATIENCE: u64 = 150_000;
