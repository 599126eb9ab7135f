//! Accepts connections and stops them in order.

use std::{fmt, io, net::SocketAddr, sync::Arc, time::Duration};

use synod::{
    replicated::{DEADLINE_DEFAULT, Submit},
    runtime::watch,
    server::Access,
};
use tokio::{
    net::{TcpListener, TcpStream},
    task::{JoinHandle, JoinSet},
    time::{sleep, timeout},
};

use super::{
    clients::Clients,
    connection::{Connection, stopped},
    facts::AskFacts,
    outbox::Outbox,
    session::Session,
    socket,
};
use crate::limits::CONNECTIONS_MAX;

/// How a listener behaves.
#[derive(Clone, Debug)]
pub struct RespOptions {
    /// How long a command may take before its client is told.
    pub deadline: Duration,
    /// More connections are told so and hung up on.
    pub connections_max: usize,
    /// What `INFO` and `WAIT` tell of the node.
    pub facts: AskFacts,
    /// Who may come: TLS and tokens.
    pub access: Access,
}

impl Default for RespOptions {
    fn default() -> Self {
        Self {
            deadline: DEADLINE_DEFAULT,
            connections_max: CONNECTIONS_MAX,
            facts: AskFacts::default(),
            access: Access::open(),
        }
    }
}

/// A RESP port. Serves clients from [`start`](Self::start) on.
pub struct RespListener {
    listener: TcpListener,
    submit: Arc<dyn Submit>,
    options: RespOptions,
}

impl RespListener {
    /// Takes the port; connections queue up until [`start`](Self::start).
    pub async fn bind(
        address: SocketAddr,
        submit: Arc<dyn Submit>,
        options: RespOptions,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        Ok(Self { listener, submit, options })
    }

    /// Serves a port that was taken before; it must be non-blocking.
    ///
    /// # Errors
    /// What the system says.
    pub fn new(
        listener: std::net::TcpListener,
        submit: Arc<dyn Submit>,
        options: RespOptions,
    ) -> io::Result<Self> {
        Ok(Self { listener: TcpListener::from_std(listener)?, submit, options })
    }

    /// The address it listens at, with the port the system chose.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves clients on the arbiter (the `LocalSet`) this is called on, until the handle stops it.
    pub fn start(self) -> RespHandle {
        let (stop, stopping) = watch::channel(false);
        let clients = Arc::new(Clients::new());
        let task = tokio::task::spawn_local(self.accept(Arc::clone(&clients), stopping));
        RespHandle { stop, clients, task }
    }

    async fn accept(self, clients: Arc<Clients>, stop: watch::Receiver<bool>) {
        let mut connections = JoinSet::new();
        let (acceptor, most) = (self.options.access.acceptor(), self.options.connections_max);
        let mut stopping = stop.clone();
        loop {
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                Some(ended) = connections.join_next() => {
                    if let Err(error) = ended {
                        tracing::error!(%error, "a connection's task panicked");
                    }
                    continue;
                }
                () = stopped(&mut stopping) => break,
            };
            match accepted {
                // Not even told so: a handshake would cost more than it says.
                Ok((stream, _)) if acceptor.is_some() && connections.len() >= most => drop(stream),
                Ok((stream, peer)) => {
                    let task = self.serve(stream, peer, &clients, stop.clone());
                    connections.spawn_local(task);
                }
                Err(error) => {
                    // Out of file descriptors, mostly: others must end before one can begin.
                    tracing::warn!(%error, "cannot accept a RESP connection");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        drop(self.listener);
        let all = async { while connections.join_next().await.is_some() {} };
        if timeout(STOP_TIME_MAX, all).await.is_err() {
            tracing::info!(left = connections.len(), "hanging up on RESP clients");
        }
    }

    fn serve(
        &self,
        stream: TcpStream,
        peer: SocketAddr,
        clients: &Arc<Clients>,
        stop: watch::Receiver<bool>,
    ) -> impl Future<Output = ()> + 'static {
        let (submit, options) = (Arc::clone(&self.submit), self.options.clone());
        let clients = Arc::clone(clients);
        async move {
            if clients.len() >= options.connections_max {
                clients.count_refused();
                // It may not read it; it is hung up on either way.
                drop(stream.try_write(b"-ERR max number of clients reached\r\n"));
                return;
            }
            // Replies are written whole, so waiting for more would only cost time.
            let local = stream.set_nodelay(true).and_then(|()| stream.local_addr());
            // Otherwise it hung up already.
            let Ok(local) = local else { return };
            let (reader, writer) = match options.access.acceptor() {
                None => socket::plain(stream),
                Some(acceptor) => match socket::behind_tls(stream, &acceptor).await {
                    Ok((reader, writer, carry)) => {
                        tokio::task::spawn_local(carry);
                        (reader, writer)
                    }
                    Err(error) => return tracing::debug!(%peer, %error, "no TLS client"),
                },
            };
            let outbox = Arc::new(Outbox::new(writer));
            let client = clients.add(peer, local, Arc::clone(&outbox));
            let id = client.id;
            let mut session = Session::new(Arc::clone(&clients), client, outbox, options.facts);
            session.guard(options.access);
            let connection = Connection::new(session, reader, submit, options.deadline);
            // Taken out of the list even if the task is dropped half-way.
            let _listed = Listed { clients, id };
            if let Some(why) = connection.serve(stop).await {
                tracing::debug!(%peer, why, "hung up on a RESP client");
            }
        }
    }
}

/// Takes a connection out of the list of clients when dropped.
struct Listed {
    clients: Arc<Clients>,
    id: u64,
}

impl Drop for Listed {
    fn drop(&mut self) {
        self.clients.remove(self.id);
    }
}

/// A listener at work. Dropping it stops the listener too, without waiting.
#[derive(Debug)]
pub struct RespHandle {
    stop: watch::Sender<bool>,
    clients: Arc<Clients>,
    task: JoinHandle<()>,
}

impl RespHandle {
    /// How many clients are connected.
    pub fn connections(&self) -> usize {
        self.clients.len()
    }

    /// Commands taken since the start.
    pub fn commands(&self) -> u64 {
        self.clients.totals().1
    }

    /// Accepts nobody any more, reads no further command, answers what is under way, and hangs up;
    /// within two seconds.
    pub async fn stop(self) {
        self.stop.send_replace(true);
        // A panic was told by the runtime already.
        drop(self.task.await);
    }
}

impl fmt::Debug for RespListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RespListener")
            .field("listener", &self.listener)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

/// After a failed accept: short for people, long for a processor.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A node has five seconds for everything when it stops.
const STOP_TIME_MAX: Duration = Duration::from_secs(2);
