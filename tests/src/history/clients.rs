//! Clients that note every call they make.

use std::{fmt, io, net::SocketAddr, time::Duration};

use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use super::{Call, Operation, Told};
use crate::process::{
    crew::{Crew, Shift},
    resp::{Reply, Resp},
    wait::{now, pause},
};

/// Threads that call as fast as they are answered; one whose node does not serve goes to the next.
#[derive(Debug)]
pub struct Clients(Crew<Operation>);

impl Clients {
    /// Starts `count` clients of the nodes at `resps`. What they ask depends on `seed` only, as
    /// long as they are answered.
    pub fn start(resps: &[SocketAddr], count: u32, seed: u64) -> Self {
        let resps = resps.to_vec();
        Self(Crew::start((0..count).map(move |number| {
            let mut nodes = resps.clone();
            nodes.rotate_left(number as usize % resps.len());
            let client = Client {
                process: u64::from(number),
                processes: u64::from(count),
                nodes,
                stream: None,
                rng: ChaCha8Rng::seed_from_u64(seed ^ u64::from(number) << 32),
                last: [None; KEYS as usize],
                // Far apart, so that who reads a value knows who wrote it.
                value: i64::from(number + 1) * 1_000_000_000,
            };
            move |shift: &Shift| client.run(shift)
        })))
    }

    /// Waits for `count` more calls with a known outcome: proof that somebody serves.
    pub fn wait_for_more(&self, count: u64) {
        self.0.wait_for_more(SERVED_AGAIN_MAX, "answered calls", count);
    }

    /// Stops the clients and answers all they noted.
    ///
    /// # Panics
    /// When one was told what no call is told.
    pub fn finish(self) -> Vec<Operation> {
        self.0.finish()
    }
}

/// How many calls of each outcome a history has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// Answered.
    pub known: usize,
    /// *Not applied*.
    pub refused: usize,
    /// Nobody knows.
    pub unknown: usize,
    /// The longest time between two answers.
    pub gap: Duration,
}

/// Sums a history up.
pub fn summary(history: &[Operation]) -> Summary {
    let count = |is: fn(&Told) -> bool| history.iter().filter(|one| is(&one.told)).count();
    let refused = count(|told| *told == Told::Refused);
    let unknown = count(|told| *told == Told::Unknown);
    let known = |one: &&Operation| !matches!(one.told, Told::Refused | Told::Unknown);
    let mut answers: Vec<_> = history.iter().filter(known).map(|one| one.ended).collect();
    answers.sort_unstable();
    let gaps = answers.windows(2).map(|two| two[1].since(two[0]));
    let gap = gaps.max().unwrap_or_default();
    Summary { known: history.len() - refused - unknown, refused, unknown, gap }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { known, refused, unknown, gap } = self;
        write!(f, "{known} calls answered, {refused} not applied, {unknown} unknown, ")?;
        write!(f, "longest gap {} ms", gap.as_millis())
    }
}

struct Client {
    process: u64,
    /// What a new process' number is ahead of the old one's.
    processes: u64,
    nodes: Vec<SocketAddr>,
    stream: Option<Resp>,
    rng: ChaCha8Rng,
    /// What it last knew of each key: a guess that makes compare-and-sets succeed.
    last: [Option<i64>; KEYS as usize],
    value: i64,
}

impl Client {
    fn run(mut self, shift: &Shift) -> Vec<Operation> {
        let mut history = Vec::new();
        while !shift.is_over() {
            let key = self.rng.random_range(0..KEYS);
            let call = self.choose(key);
            let began = now();
            let told = self.ask(key, call);
            let ended = now();
            let process = self.process;
            history.push(Operation { process, key, call, told, began, ended });
            match told {
                Told::Value(value) => self.last[usize::from(key)] = value,
                Told::Counted(value) => self.last[usize::from(key)] = Some(value),
                Told::Done => {
                    if let Call::Write(value) | Call::Cas { new: value, .. } = call {
                        self.last[usize::from(key)] = Some(value);
                    }
                }
                Told::Refused | Told::Unknown => {
                    self.nodes.rotate_left(1);
                    self.stream = None;
                    pause();
                    if told == Told::Unknown {
                        self.process += self.processes;
                    }
                    continue;
                }
                Told::Missed => {}
            }
            shift.achieved();
        }
        history
    }

    fn choose(&mut self, key: u8) -> Call {
        self.value += 1_000;
        match self.rng.random_range(0..10) {
            0..4 => Call::Read,
            4..6 => Call::Write(self.value),
            6..8 => match self.last[usize::from(key)] {
                Some(old) => Call::Cas { old, new: self.value },
                None => Call::Read,
            },
            _ => Call::Incr,
        }
    }

    fn ask(&mut self, key: u8, call: Call) -> Told {
        let stream = match self.stream.take() {
            Some(stream) => stream,
            None => match connect(self.nodes[0]) {
                Ok(stream) => stream,
                Err(_) => return Told::Refused,
            },
        };
        let stream = self.stream.insert(stream);
        let key = format!("counter-{key}");
        let key = key.as_bytes();
        match call {
            // A read that failed did nothing.
            Call::Read => get(stream, key).map_or(Told::Refused, Told::Value),
            Call::Write(value) => {
                let reply = stream.call(&[b"SET", key, value.to_string().as_bytes()]);
                told(reply, |reply| match reply {
                    Reply::Simple(_) => Some(Told::Done),
                    _ => None,
                })
            }
            Call::Incr => told(stream.call(&[b"INCR", key]), |reply| match reply {
                Reply::Integer(value) => Some(Told::Counted(*value)),
                _ => None,
            }),
            Call::Cas { old, new } => cas(stream, key, old, new),
        }
    }
}

/// A connection to somebody who answers: behind a door nobody may be at home, and a call to
/// nobody need not count as unknown.
fn connect(at: SocketAddr) -> io::Result<Resp> {
    let mut stream = Resp::connect(at, ANSWER_TIME)?;
    stream.call(&[b"PING"])?;
    Ok(stream)
}

/// The value of a key; `None` when there was no good answer.
fn get(stream: &mut Resp, key: &[u8]) -> Option<Option<i64>> {
    match stream.call(&[b"GET", key]) {
        Ok(Reply::Nil) => Some(None),
        Ok(Reply::Bulk(digits)) => {
            Some(Some(String::from_utf8_lossy(&digits).parse().expect("only numbers are written")))
        }
        Ok(Reply::Error(_)) | Err(_) => None,
        Ok(other) => panic!("GET was told {other:?}"),
    }
}

/// `WATCH`, `GET`, and `SET` in a transaction that runs only when nobody wrote the key since.
fn cas(stream: &mut Resp, key: &[u8], old: i64, new: i64) -> Told {
    let ok = |reply: io::Result<Reply>| matches!(reply, Ok(Reply::Simple(_)));
    if !ok(stream.call(&[b"WATCH", key])) {
        return Told::Refused;
    }
    match get(stream, key) {
        Some(Some(value)) if value == old => {}
        Some(found) => {
            // The next transaction of this connection has nothing to do with it.
            return if ok(stream.call(&[b"UNWATCH"])) { Told::Value(found) } else { Told::Refused };
        }
        None => return Told::Refused,
    }
    let queued =
        ok(stream.call(&[b"MULTI"])) && ok(stream.call(&[b"SET", key, new.to_string().as_bytes()]));
    if !queued {
        return Told::Refused;
    }
    told(stream.call(&[b"EXEC"]), |reply| match reply {
        Reply::Array(replies) if replies[..] == [Reply::Simple("OK".into())] => Some(Told::Done),
        Reply::Nil => Some(Told::Missed),
        _ => None,
    })
}

/// What a write was told; `good` knows the replies of one that was executed.
fn told(reply: io::Result<Reply>, good: impl Fn(&Reply) -> Option<Told>) -> Told {
    match reply {
        Ok(Reply::Error(why)) if REFUSALS.iter().any(|one| why.starts_with(one)) => Told::Refused,
        Ok(Reply::Error(why)) if why.starts_with("UNCERTAIN outcome unknown") => Told::Unknown,
        Err(_) => Told::Unknown,
        Ok(reply) => good(&reply).unwrap_or_else(|| panic!("a write was told {reply:?}")),
    }
}

/// How a node says that a write surely did nothing.
const REFUSALS: [&str; 2] = ["CLUSTERDOWN not applied", "FULL not applied"];

/// Few, so that calls meet.
pub const KEYS: u8 = 5;

/// Shorter than a stopped node sleeps: its clients go elsewhere, and what they asked of it may
/// happen when it wakes up.
const ANSWER_TIME: Duration = Duration::from_millis(1_500);

/// Longer than any fault of a test lasts.
const SERVED_AGAIN_MAX: Duration = Duration::from_secs(30);
