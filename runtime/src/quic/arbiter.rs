//! QUIC's work beside the actors that it is for: on the same arbiter, in the same queue of tasks,
//! with a call of the system less for each datagram that comes alone.
//!
//! Stock quinn spawns its tasks with tokio, and actors live in the arbiter's own set of tasks. Each
//! way from one to the other costs a look at all sockets; here there is no such way.

use std::{
    fmt,
    future::Future,
    io::{self, ErrorKind, IoSliceMut},
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
    time::Instant,
};

use actix_rt::{Arbiter, ArbiterHandle};
use quinn::{
    AsyncTimer, AsyncUdpSocket, Runtime, TokioRuntime, UdpPoller,
    udp::{BATCH_SIZE, RecvMeta, Transmit, UdpSocketState},
};
use tokio::{io::Interest, net::UdpSocket, runtime::Handle, task::JoinSet};

/// How many datagrams are asked for at once while they come one by one: for each, the call has
/// half a kilobyte to prepare.
const FEW: usize = 4;

/// Where the tasks of an endpoint run: where it was bound.
#[derive(Debug, Clone)]
pub(super) enum Home {
    /// With the actors of this arbiter.
    Arbiter(ArbiterHandle),
    /// There is no arbiter: with whatever tokio runs.
    Tokio(Handle),
}

impl Home {
    /// The caller's. Must be called within a runtime.
    pub(super) fn here() -> Self {
        Arbiter::try_current().map_or_else(|| Self::Tokio(Handle::current()), Self::Arbiter)
    }

    /// Runs it, unless the arbiter has ended. From any thread.
    pub(super) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        match self {
            Self::Arbiter(arbiter) => drop(arbiter.spawn(work)),
            Self::Tokio(handle) => drop(handle.spawn(work)),
        }
    }

    /// Runs it with `tasks`. Only for what [`Home::spawn`] runs.
    pub(super) fn join(
        &self,
        tasks: &mut JoinSet<()>,
        work: impl Future<Output = ()> + Send + 'static,
    ) {
        match self {
            Self::Arbiter(_) => tasks.spawn_local(work),
            Self::Tokio(_) => tasks.spawn(work),
        };
    }
}

impl Runtime for Home {
    fn new_timer(&self, at: Instant) -> Pin<Box<dyn AsyncTimer>> {
        TokioRuntime.new_timer(at)
    }

    fn spawn(&self, work: Pin<Box<dyn Future<Output = ()> + Send>>) {
        Self::spawn(self, work);
    }

    fn wrap_udp_socket(&self, socket: std::net::UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        let state = UdpSocketState::new((&socket).into())?;
        let socket = UdpSocket::from_std(socket)?;
        Ok(Arc::new(Socket { socket, state, many: AtomicBool::new(false) }))
    }

    fn now(&self) -> Instant {
        TokioRuntime.now()
    }
}

/// The socket. It does not ask again where the kernel has just said that it had no more.
#[derive(Debug)]
struct Socket {
    socket: UdpSocket,
    state: UdpSocketState,
    /// The last call found as many datagrams as it had room for.
    many: AtomicBool,
}

impl AsyncUdpSocket for Socket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(Room { socket: self, waits: None })
    }

    fn try_send(&self, datagrams: &Transmit<'_>) -> io::Result<()> {
        let send = || self.state.send((&self.socket).into(), datagrams);
        self.socket.try_io(Interest::WRITABLE, send)
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let wanted = if self.many.load(Relaxed) { BATCH_SIZE } else { FEW };
        let room = bufs.len().min(meta.len()).min(wanted).min(BATCH_SIZE);
        loop {
            ready!(self.socket.poll_recv_ready(cx))?;
            let mut last = None;
            let taken = self.socket.try_io(Interest::READABLE, || {
                let count = self.state.recv((&self.socket).into(), &mut bufs[..room], meta)?;
                if count < room {
                    // One call takes all there are, up to its room. So the socket is empty, as if
                    // another call had found that. What comes from now on is told anew, and if it
                    // was told already, tokio takes no notice of this.
                    last = Some(count);
                    return Err(ErrorKind::WouldBlock.into());
                }
                Ok(count)
            });
            if let Some(count) = last.or_else(|| taken.ok()) {
                self.many.store(last.is_none(), Relaxed);
                return Poll::Ready(Ok(count));
            }
            // An error of one datagram says nothing of the next.
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.state.max_gso_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.state.gro_segments()
    }

    fn may_fragment(&self) -> bool {
        self.state.may_fragment()
    }
}

/// Waits until the socket takes datagrams again: seldom, since its buffer holds megabytes.
struct Room {
    socket: Arc<Socket>,
    waits: Option<Pin<Box<dyn Future<Output = io::Result<()>> + Send + Sync>>>,
}

impl UdpPoller for Room {
    fn poll_writable(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let socket = Arc::clone(&self.socket);
        let waits = self
            .waits
            .get_or_insert_with(|| Box::pin(async move { socket.socket.writable().await }));
        let writable = ready!(waits.as_mut().poll(cx));
        self.waits = None;
        Poll::Ready(writable)
    }
}

impl fmt::Debug for Room {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Room").field(&self.socket).finish()
    }
}
