//! Accepts the clients of a site, and stops them in order.

use std::{cell::Cell, io, net::SocketAddr, rc::Rc, sync::Arc, time::Duration};

use synod::{
    runtime::telemetry::{Counter, Metrics},
    server::{Access, Connections, StopSignal, config::WebConfig},
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;

use super::{client::Client, command::Kind, reader::Reader, server::RedisServer};
use crate::{
    Order,
    edge::EdgeOptions,
    log::Log,
    metrics::REQUESTS,
    tireless::{restarts, tireless},
};

/// The clients' side of a site.
pub(super) struct Edge {
    pub(super) order: Rc<dyn Order>,
    pub(super) server: RedisServer,
    pub(super) reader: Reader,
    pub(super) web: WebConfig,
    pub(super) access: Access,
    pub(super) counters: Counters,
    pub(super) log: Log,
    /// Clients that may watch something.
    pub(super) watchers: Arc<Semaphore>,
    busy: Rc<Cell<usize>>,
    clients: Cell<u64>,
    held: Rc<Cell<u64>>,
}

impl Edge {
    /// Counts a command as under way until that is dropped.
    pub(super) fn begin(&self) -> Under {
        Under::one_more(&self.busy)
    }

    /// What a client holds of what all may: nothing so far.
    pub(super) fn share(&self) -> Share {
        let most = self.web.body_bytes_max.saturating_mul(LARGEST_AT_ONCE);
        Share { bytes: 0, all: Rc::clone(&self.held), most }
    }
}

/// Bytes on their way here that a client holds, until dropped.
pub(super) struct Share {
    bytes: u64,
    all: Rc<Cell<u64>>,
    most: u64,
}

impl Share {
    /// It holds so many now; whether it may.
    pub(super) fn hold(&mut self, bytes: u64) -> bool {
        let all = self.all.get() - self.bytes;
        let fits = bytes == 0 || all.saturating_add(bytes) <= self.most;
        self.bytes = if fits { bytes } else { 0 };
        self.all.set(all + self.bytes);
        fits
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.hold(0);
    }
}

/// One of something, until dropped.
pub(super) struct Under(Rc<Cell<usize>>);

impl Under {
    fn one_more(count: &Rc<Cell<usize>>) -> Self {
        count.set(count.get() + 1);
        Self(Rc::clone(count))
    }
}

impl Drop for Under {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// Counts commands by what they are.
pub(super) struct Counters([Counter; 4]);

impl Counters {
    fn new(metrics: &Metrics, site: &str) -> Self {
        let verbs = ["own", "read", "write", "refused"];
        Self(verbs.map(|verb| metrics.counter(&REQUESTS, &[("site", site), ("verb", verb)])))
    }

    pub(super) fn count(&self, kind: Kind) {
        let at = match kind {
            Kind::Own => 0,
            Kind::Read => 1,
            Kind::Write => 2,
            Kind::Refused(_) => 3,
        };
        self.0[at].increment();
    }
}

/// Serves the clients of a site on `listener` until `options.stop`: spawns its accept loop on the
/// current arbiter and returns.
///
/// # Errors
/// What the system says; then nothing was spawned.
pub fn serve(
    listener: std::net::TcpListener,
    order: Rc<dyn Order>,
    server: RedisServer,
    options: EdgeOptions,
) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let mut listener = Some(TcpListener::from_std(listener)?);
    let EdgeOptions { mut web, access, site, metrics, clock, connections_max, mut stop, .. } =
        options;
    web.body_bytes_max = web.body_bytes_max.min(COMMANDS_BYTES_MAX);
    let (counters, acceptor) = (Counters::new(&metrics, &site), access.acceptor());
    let reader = Reader::new(server.address().clone());
    let (busy, clients, held) = (Rc::default(), Cell::new(0), Rc::default());
    let watchers = Arc::new(Semaphore::new(WATCHERS_MAX));
    let log = Log::new(clock);
    let edge =
        Edge { order, server, reader, web, access, counters, log, watchers, busy, clients, held };
    let edge = Rc::new(edge);
    actix_rt::spawn(async move {
        let accept = async || {
            accept(&mut listener, &edge, acceptor.as_ref(), connections_max, &mut stop).await;
        };
        tireless(restarts(&metrics, "web/listener"), accept, |_| ()).await;
    });
    Ok(())
}

async fn accept(
    taken: &mut Option<TcpListener>,
    edge: &Rc<Edge>,
    acceptor: Option<&TlsAcceptor>,
    connections_max: usize,
    stop: &mut StopSignal,
) {
    let mut connections = Connections::new("web", connections_max);
    let serve = |stream, peer| greet(Rc::clone(edge), acceptor.cloned(), stream, peer);
    if let Some(listener) = taken {
        connections.take(listener, stop.stopped(), serve).await;
    }
    *taken = None;
    let quiet = async {
        while edge.busy.get() > 0 {
            sleep(QUIET_PAUSE).await;
        }
    };
    // Whoever still waits is hung up on when the connections are dropped.
    drop(timeout(STOP_TIME_MAX, quiet).await);
}

/// Serves one client, behind TLS where the node's listeners have it.
async fn greet(edge: Rc<Edge>, tls: Option<TlsAcceptor>, stream: TcpStream, peer: SocketAddr) {
    let id = edge.clients.get() + 1;
    edge.clients.set(id);
    // Otherwise it hung up already.
    let Ok(()) = stream.set_nodelay(true) else { return };
    match tls {
        None => Client::new(edge, stream, (id, peer)).serve().await,
        Some(tls) => match timeout(GREET_TIME_MAX, tls.accept(stream)).await {
            Ok(Ok(stream)) => Client::new(edge, stream, (id, peer)).serve().await,
            Ok(Err(error)) => tracing::debug!(%peer, %error, "no TLS client"),
            Err(_) => {}
        },
    }
}

/// A TLS handshake: a client that is slower means ill.
const GREET_TIME_MAX: Duration = Duration::from_secs(10);

/// Between two looks whether something is under way: short for people, long for a processor.
const QUIET_PAUSE: Duration = Duration::from_millis(50);

/// A node has five seconds for everything when it stops.
const STOP_TIME_MAX: Duration = Duration::from_secs(1);

/// Each holds a connection to the server, which takes ten thousand as it comes.
const WATCHERS_MAX: usize = 256;

/// Commands that have one place, and one command: all of them are in memory before they are ordered.
const COMMANDS_BYTES_MAX: u64 = 64 << 20;

/// Commands of the largest kind that are on their way here at the same time.
const LARGEST_AT_ONCE: u64 = 4;
