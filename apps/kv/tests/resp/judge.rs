//! The judge: the same ops to a real `redis-server` and to a node of ours, reply by reply.

use std::{collections::BTreeSet, fmt::Write as _, sync::Arc, time::Duration};

use synod::replicated::local::LocalLog;
use synod_kv::resp::{RespHandle, RespOptions};

use super::{
    common::{Client, Reply, encode, listen, log},
    ops::{CLIENTS, Command, Op, is_brief},
    server::Server,
};

/// Two replies that are not alike.
pub(crate) struct Difference {
    /// The command's name.
    at: Vec<u8>,
    /// All of it.
    pub(crate) text: String,
}

/// Clients of each, and our log, whose time follows the server's.
pub(crate) struct Judge {
    theirs: Vec<Client>,
    ours: Vec<Client>,
    clock: Client,
    log: Arc<LocalLog>,
    /// What each client has queued in `MULTI`.
    queued: Vec<Vec<Command>>,
    pub(crate) server: Server,
    pub(crate) handle: RespHandle,
}

impl Judge {
    /// None when there is no such server, which was said loudly.
    pub(crate) async fn start() -> Option<Self> {
        let server = Server::start().await?;
        let log = log();
        let (handle, address) = listen(log.clone(), RespOptions::default()).await;
        let (mut theirs, mut ours) = (Vec::new(), Vec::new());
        for _ in 0..CLIENTS {
            theirs.push(Client::connect(server.address).await);
            ours.push(Client::connect(address).await);
        }
        let clock = Client::connect(server.address).await;
        let queued = vec![Vec::new(); CLIENTS];
        Some(Self { theirs, ours, clock, log, queued, server, handle })
    }

    /// The first difference of this sequence, beginning with an empty store.
    pub(crate) async fn difference(&mut self, ops: &[Op]) -> Option<Difference> {
        for client in 0..CLIENTS {
            for side in [&mut self.theirs, &mut self.ours] {
                side[client].ask("RESET").await;
                side[client].ask("FLUSHALL").await;
            }
            self.queued[client].clear();
        }
        for op in ops {
            if let Some(difference) = self.compare(op).await {
                return Some(difference);
            }
        }
        None
    }

    /// The difference of one op.
    pub(crate) async fn compare(&mut self, op: &Op) -> Option<Difference> {
        self.set_time().await;
        let client = op.client();
        if let Op::Walk { options, .. } = op {
            // Inside a transaction a walk would never end.
            if self.in_transaction(client).await {
                return None;
            }
            let theirs = walk(&mut self.theirs[client], options).await;
            let ours = walk(&mut self.ours[client], options).await;
            let text = format!("{op}\n  redis: {theirs:?}\n  ours:  {ours:?}");
            return (theirs != ours).then(|| Difference { at: b"WALK".to_vec(), text });
        }
        let bytes = op.bytes();
        self.theirs[client].send(&bytes).await;
        self.ours[client].send(&bytes).await;
        // What is brief may have waited for its EXEC.
        let brief = op.is_brief() || self.queued[client].iter().any(is_brief);
        let mut found = None;
        for command in op.commands() {
            let theirs = self.theirs[client].value().await;
            let ours = self.ours[client].value().await;
            let queued = &mut self.queued[client];
            if !alike(&command, queued, &theirs, &ours) && found.is_none() {
                let text = format!("{op}\n  redis: {theirs}\n  ours:  {ours}");
                found = Some(Difference { at: name(&command), text });
            }
            follow(queued, &command, &theirs);
        }
        if brief {
            // Redis counts whole milliseconds: what lives one is gone in the third.
            tokio::time::sleep(BRIEF_IS_OVER).await;
        }
        found
    }

    async fn in_transaction(&mut self, client: usize) -> bool {
        let queued = self.theirs[client].ask("PING").await == "+QUEUED\r\n";
        self.ours[client].ask("PING").await;
        if queued {
            self.queued[client].push(vec![b"PING".to_vec()]);
        }
        queued
    }

    /// The server's time becomes agreed time.
    async fn set_time(&mut self) {
        let reply = self.clock.ask("TIME").await;
        let lines: Vec<&str> = reply.split("\r\n").collect();
        let number = |line: &str| line.parse::<u64>().unwrap();
        self.log.set_time_ms(number(lines[2]) * 1000 + number(lines[4]) / 1000);
    }

    /// Fewer ops that differ at the same command still, and how.
    async fn shrink(&mut self, mut ops: Vec<Op>, mut found: Difference) -> (Vec<Op>, Difference) {
        let mut piece = ops.len().div_ceil(2);
        while piece > 0 {
            let mut start = 0;
            while start < ops.len() {
                let mut fewer = ops.clone();
                fewer.drain(start..ops.len().min(start + piece));
                match self.difference(&fewer).await.filter(|other| other.at == found.at) {
                    Some(difference) => (ops, found) = (fewer, difference),
                    None => start += piece,
                }
            }
            piece /= 2;
        }
        for at in 0..ops.len() {
            let mut command = 0;
            while let Op::Send { commands, .. } = &ops[at]
                && commands.len() > 1
                && command < commands.len()
            {
                let mut fewer = ops.clone();
                if let Op::Send { commands, .. } = &mut fewer[at] {
                    commands.remove(command);
                }
                match self.difference(&fewer).await.filter(|other| other.at == found.at) {
                    Some(difference) => (ops, found) = (fewer, difference),
                    None => command += 1,
                }
            }
        }
        (ops, found)
    }

    /// What differs in this sequence, with the fewest ops that still show it.
    pub(crate) async fn verdict(&mut self, seed: u64, ops: Vec<Op>) -> Option<String> {
        let first = self.difference(&ops).await?;
        let mut text = format!("seed {seed} differs: {}\n", first.text);
        let (ops, last) = self.shrink(ops, first).await;
        writeln!(text, "shrunk to {} ops:", ops.len()).unwrap();
        for op in &ops {
            writeln!(text, "  {op}").unwrap();
        }
        Some(format!("{text}and then: {}\n", last.text))
    }

    /// Fails with the shrunk sequence if there is a difference.
    pub(crate) async fn judge(&mut self, seed: u64, ops: Vec<Op>) {
        if let Some(verdict) = self.verdict(seed, ops).await {
            panic!("{verdict}");
        }
    }
}

/// Keeps what the client has queued.
fn follow(queued: &mut Vec<Command>, command: &Command, reply: &Reply) {
    match name(command).as_slice() {
        _ if *reply == Reply::Line(b"+QUEUED".to_vec()) => queued.push(command.clone()),
        b"EXEC" | b"DISCARD" | b"RESET" => queued.clear(),
        _ => {}
    }
}

/// All keys of a walk.
async fn walk(client: &mut Client, options: &Command) -> Result<BTreeSet<Vec<u8>>, Reply> {
    let mut keys = BTreeSet::new();
    let mut cursor = b"0".to_vec();
    loop {
        let mut command = vec![b"SCAN".to_vec(), cursor];
        command.extend_from_slice(options);
        client.send(&encode(&command)).await;
        let reply = client.value().await;
        let Reply::Many(_, parts) = &reply else { return Err(reply) };
        let [Reply::Bulk(Some(next)), Reply::Many(_, page)] = &parts[..] else {
            return Err(reply);
        };
        keys.extend(page.iter().filter_map(|key| match key {
            Reply::Bulk(Some(key)) => Some(key.clone()),
            _ => None,
        }));
        if next == b"0" {
            return Ok(keys);
        }
        cursor = next.clone();
    }
}

/// Whether the two are the same answer to `command`: the same bytes, but for the order of keys,
/// for chance, for the time that passes between the two, and for the number of a connection.
fn alike(command: &Command, queued: &[Command], theirs: &Reply, ours: &Reply) -> bool {
    let close = |most: i64| match (theirs.number(), ours.number()) {
        (Some(theirs), Some(ours)) if theirs > 0 && ours > 0 => (theirs - ours).abs() <= most,
        _ => theirs == ours,
    };
    match (name(command).as_slice(), theirs, ours) {
        (b"TTL" | b"EXPIRETIME", ..) => close(SECONDS_APART_MAX),
        // Redis counts a dead key until somebody meets it.
        (b"DBSIZE", ..) => match (theirs.number(), ours.number()) {
            (Some(theirs), Some(ours)) => ours <= theirs,
            _ => theirs == ours,
        },
        (b"PTTL", ..) => close(SECONDS_APART_MAX * 1000),
        (b"KEYS", Reply::Many(tag, theirs), Reply::Many(other, ours)) => {
            let set = |keys: &[Reply]| keys.iter().cloned().collect::<BTreeSet<_>>();
            tag == other && theirs.len() == ours.len() && set(theirs) == set(ours)
        }
        // A cursor that nobody gave leads anywhere.
        (b"SCAN", Reply::Many(..), Reply::Many(..)) => true,
        (b"RANDOMKEY", Reply::Bulk(theirs), Reply::Bulk(ours)) => {
            theirs.is_some() == ours.is_some()
        }
        (b"HELLO", Reply::Many(tag, theirs), Reply::Many(other, ours)) => {
            let shape = |fields: &[Reply]| {
                let pairs = fields.chunks(2).map(|pair| match &pair[0] {
                    Reply::Bulk(Some(field)) if field == b"id" => vec![pair[0].clone()],
                    _ => pair.to_vec(),
                });
                pairs.collect::<Vec<_>>()
            };
            tag == other && shape(theirs) == shape(ours)
        }
        (b"EXEC", Reply::Many(tag, theirs), Reply::Many(other, ours)) => {
            let mut each = queued.iter().zip(theirs.iter().zip(ours));
            tag == other
                && theirs.len() == ours.len()
                && theirs.len() == queued.len()
                && each.all(|(command, (theirs, ours))| alike(command, &[], theirs, ours))
        }
        _ => theirs == ours,
    }
}

fn name(command: &Command) -> Vec<u8> {
    command[0].to_ascii_uppercase()
}

/// How much later one of the two may answer, on a loaded machine.
const SECONDS_APART_MAX: i64 = 2;

/// See [`Op::is_brief`].
const BRIEF_IS_OVER: Duration = Duration::from_millis(5);
