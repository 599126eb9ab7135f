//! Who is connected: what `CLIENT LIST`, `CLIENT INFO`, `CLIENT KILL` and `INFO` speak of.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::time::Instant;

use super::{outbox::Outbox, reply::Protocol};

/// All connections of one listener.
#[derive(Debug)]
pub(super) struct Clients {
    connected: Mutex<BTreeMap<u64, Arc<Client>>>,
    next_id: AtomicU64,
    commands: AtomicU64,
    refused: AtomicU64,
    started: Instant,
}

/// One connection.
#[derive(Debug)]
pub(super) struct Client {
    /// Rises by one with every connection of this listener.
    pub(super) id: u64,
    /// The client's end.
    pub(super) peer: SocketAddr,
    /// Our end.
    local: SocketAddr,
    outbox: Arc<Outbox>,
    since: Instant,
    doing: Mutex<Doing>,
}

/// What a client has chosen and what it did last.
#[derive(Clone, Debug)]
pub(super) struct Doing {
    /// `CLIENT SETNAME`.
    pub(super) name: String,
    /// `HELLO`.
    pub(super) protocol: Protocol,
    /// Its last command.
    pub(super) command: &'static str,
    /// Commands queued in `MULTI`; none outside.
    pub(super) multi: Option<usize>,
    /// When it last sent something.
    pub(super) last: Instant,
}

impl Clients {
    pub(super) fn new() -> Self {
        Self {
            connected: Mutex::default(),
            next_id: AtomicU64::new(1),
            commands: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            started: Instant::now(),
        }
    }

    /// Registers a connection; [`remove`](Self::remove) it when it ends.
    pub(super) fn add(
        &self,
        peer: SocketAddr,
        local: SocketAddr,
        outbox: Arc<Outbox>,
    ) -> Arc<Client> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let doing = Doing {
            name: String::new(),
            protocol: Protocol::Two,
            command: "",
            multi: None,
            last: Instant::now(),
        };
        let since = Instant::now();
        let client = Client { id, peer, local, outbox, since, doing: Mutex::new(doing) };
        let client = Arc::new(client);
        self.lock().insert(id, Arc::clone(&client));
        client
    }

    pub(super) fn remove(&self, id: u64) {
        self.lock().remove(&id);
    }

    pub(super) fn len(&self) -> usize {
        self.lock().len()
    }

    /// All of them, oldest first.
    pub(super) fn all(&self) -> Vec<Arc<Client>> {
        self.lock().values().cloned().collect()
    }

    pub(super) fn count_commands(&self, commands: u64) {
        self.commands.fetch_add(commands, Ordering::Relaxed);
    }

    pub(super) fn count_refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// Connections ever made, commands ever taken, connections refused.
    pub(super) fn totals(&self) -> (u64, u64, u64) {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        (read(&self.next_id) - 1, read(&self.commands), read(&self.refused))
    }

    pub(super) fn uptime_secs(&self) -> u64 {
        self.started.elapsed().as_secs()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Client>>> {
        self.connected.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Client {
    pub(super) fn doing(&self) -> MutexGuard<'_, Doing> {
        self.doing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hangs up on it.
    pub(super) fn kill(&self) {
        self.outbox.end("CLIENT KILL");
    }

    /// One line of `CLIENT LIST`.
    pub(super) fn line(&self) -> String {
        let doing = self.doing().clone();
        let load = self.outbox.load();
        let mut line = format!("id={} addr={} laddr={} fd=-1", self.id, self.peer, self.local);
        let multi = doing.multi.and_then(|queued| i64::try_from(queued).ok()).unwrap_or(-1);
        let flags = if doing.multi.is_some() { "x" } else { "N" };
        let written = write!(
            line,
            " name={} age={} idle={} flags={flags} db=0 sub=0 psub=0 ssub=0 multi={multi} \
             qbuf=0 qbuf-free=0 argv-mem=0 multi-mem=0 rbs=0 rbp=0 obl={} oll={} omem={} tot-mem=0 \
             events=r cmd={} user=default redir=-1 resp={}",
            doing.name,
            self.since.elapsed().as_secs(),
            doing.last.elapsed().as_secs(),
            load.output,
            load.slots,
            load.output,
            doing.command,
            doing.protocol.number(),
        );
        written.expect("a string takes everything");
        line
    }
}
