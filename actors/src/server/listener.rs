//! The HTTP port of a node: what actix-web's `HttpServer` composes, with a [`Turnstile`] around each
//! connection, for which that has no place, and without a thread of its own: a request is on the
//! arbiter that answers it as soon as it came in.

use std::{
    fmt, io,
    net::{SocketAddr, TcpListener},
    rc::Rc,
    time::Duration,
};

use actix_http::{
    HttpService, Protocol, Request, Response, body::MessageBody, error::DispatchError,
};
use actix_rt::net::TcpStream;
use actix_service::{
    IntoServiceFactory, Service, ServiceFactory, ServiceFactoryExt as _, apply_fn_factory,
    boxed::{self, BoxServiceFactory},
    fn_service, map_config,
};
use actix_tls::accept::{
    TlsError,
    rustls_0_23::{Acceptor, TlsStream},
};
use actix_web::{Error, dev::AppConfig};
use futures_util::future::{Either, ready};
use synod_runtime::watch;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpSocket,
    task::JoinHandle,
    time::timeout,
};
use tokio_rustls::rustls::ServerConfig;

use super::{
    connections::Connections,
    turnstile::{Answering, HungUp, Turnstile, offer_protocols, protocol_of},
};

/// Takes a place to listen.
///
/// # Errors
/// What the system says.
pub(super) fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    // A node that starts again is not kept waiting by its former connections.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)?.into_std()
}

/// A port that is served. Dropped, it is closed, and everybody hung up on.
pub(super) struct Listening {
    stop: watch::Sender<Option<Stop>>,
    task: Option<JoinHandle<()>>,
}

/// How it ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stop {
    /// Open requests get [`GRACE`] to finish.
    InOrder,
    AtOnce,
}

impl Listening {
    /// Takes no more connections; with `in_order` the requests that are open are answered, if that
    /// does not take long. Returns once all connections are gone.
    pub(super) async fn stop(mut self, in_order: bool) {
        self.stop.send_replace(Some(if in_order { Stop::InOrder } else { Stop::AtOnce }));
        if let Some(task) = self.task.take() {
            // It panics nowhere but in a connection, which ends alone.
            let _ended = task.await;
        }
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

/// Serves `app` on this arbiter, behind TLS if there is any, to so many connections at a time, until it
/// is stopped.
///
/// # Errors
/// What the system says of `listener`.
pub(super) fn serve<F, I, S, B>(
    listener: TcpListener,
    tls: Option<ServerConfig>,
    connections_max: u32,
    app: F,
) -> io::Result<Listening>
where
    F: FnOnce() -> I,
    I: IntoServiceFactory<S, Request>,
    S: ServiceFactory<Request, Config = AppConfig> + 'static,
    S::Service: 'static,
    S::Error: Into<Error>,
    S::InitError: fmt::Debug,
    S::Response: Into<Response<B>>,
    <S::Service as Service<Request>>::Future: 'static,
    B: MessageBody + 'static,
{
    let at = listener.local_addr()?;
    listener.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let (stop, stopping) = watch::channel(None);
    let stopped = {
        let stopping = stopping.clone();
        move || stopped(stopping.clone())
    };
    let connections_max = usize::try_from(connections_max).unwrap_or(usize::MAX);
    let port = Port { listener, connections_max, stopping };
    let task = match tls {
        None => {
            let http = http(app(), config(at, false), stopped);
            let turns = fn_service(async |stream| Ok(turned(&stream, Protocol::Http1)(stream)));
            actix_rt::spawn(port.run(turns.and_then(http)))
        }
        Some(mut tls) => {
            offer_protocols(&mut tls);
            let http = http(app(), config(at, true), stopped);
            let turns = Acceptor::new(tls).map_err(TlsError::into_service_error);
            let turns = turns.map(|stream: TlsStream<TcpStream>| {
                let (socket, session) = stream.get_ref();
                turned(socket, protocol_of(session))(stream)
            });
            actix_rt::spawn(port.run(turns.and_then(http.map_err(TlsError::Service))))
        }
    };
    Ok(Listening { stop, task: Some(task) })
}

/// Returns once the port is to be stopped.
async fn stopped(mut stopping: watch::Receiver<Option<Stop>>) {
    // Whoever drops the port hangs up on everybody anyway.
    let _gone = stopping.wait_for(Option::is_some).await;
}

/// Where connections come in.
struct Port {
    listener: tokio::net::TcpListener,
    connections_max: usize,
    stopping: watch::Receiver<Option<Stop>>,
}

impl Port {
    /// Serves whoever comes, until it is stopped.
    async fn run<F>(self, connection: F)
    where
        F: ServiceFactory<TcpStream, Config = ()>,
        F::Service: 'static,
        F::Error: fmt::Debug,
        F::InitError: fmt::Debug,
    {
        let Self { listener, connections_max, stopping } = self;
        let service = match connection.new_service(()).await {
            Ok(service) => Rc::new(service),
            Err(error) => return tracing::error!(?error, "the HTTP port cannot be served"),
        };
        let mut connections = Connections::new("HTTP", connections_max);
        let serve = |stream, _| {
            let service = Rc::clone(&service);
            async move {
                if let Err(error) = service.call(stream).await {
                    tracing::debug!(?error, "an HTTP connection ended");
                }
            }
        };
        connections.take(&listener, stopped(stopping.clone()), serve).await;
        drop(listener);
        if *stopping.borrow() == Some(Stop::InOrder) {
            // Who takes longer is hung up on.
            let _in_time = timeout(GRACE, connections.ended()).await;
        }
        connections.hang_up().await;
    }
}

/// What `app` is told of where it is.
fn config(at: SocketAddr, is_secure: bool) -> AppConfig {
    // Public for actix-web's own crate of tests; there is no other way to make one.
    AppConfig::__priv_test_new(is_secure, at.to_string(), at)
}

/// A connection that requests go into one by one, and whose it is.
type Peer<T> = (Turnstile<T>, Protocol, Option<SocketAddr>);

/// What becomes of the connection on this socket.
fn turned<T>(socket: &TcpStream, protocol: Protocol) -> impl FnOnce(T) -> Peer<T> + use<T> {
    // What is said to whoever listens goes at once, and does not wait for a word of theirs. If the
    // system refuses, it hung up already.
    drop(socket.set_nodelay(true));
    let peer = socket.peer_addr().ok();
    move |stream| (Turnstile::new(stream, protocol, HungUp::AtOnce), protocol, peer)
}

/// Serves `app` on connections.
fn http<T, I, S, B, Stopped>(
    app: I,
    config: AppConfig,
    stopped: impl Fn() -> Stopped + 'static,
) -> BoxServiceFactory<(), Peer<T>, (), DispatchError, ()>
where
    T: AsyncRead + AsyncWrite + Unpin + 'static,
    I: IntoServiceFactory<S, Request>,
    S: ServiceFactory<Request, Config = AppConfig> + 'static,
    S::Service: 'static,
    S::Error: Into<Error>,
    S::InitError: fmt::Debug,
    S::Response: Into<Response<B>>,
    <S::Service as Service<Request>>::Future: 'static,
    B: MessageBody + 'static,
    Stopped: Future<Output = ()> + 'static,
{
    let app = map_config(app, move |()| config.clone());
    let app = app.map_err(|error| Response::from(error.into().error_response()));
    let answered = apply_fn_factory(app, |request: Request, app: &_| {
        let answering = Answering::of(&request);
        let response = match answering.refused() {
            Some(refused) => Either::Left(ready(Err(refused))),
            None => Either::Right(Service::call(app, request)),
        };
        async move {
            let response = match response.await {
                Ok(response) => response.into().map_into_boxed_body(),
                Err(response) => response,
            };
            Ok(answering.with(response))
        }
    });
    let http = HttpService::build()
        .graceful_shutdown_signal(stopped)
        .client_disconnect_timeout(FAREWELL_TIME_MAX)
        // Whoever hangs up is not waited for any more: somebody who stands for a role is gone then.
        .h1_allow_half_closed(false)
        .on_connect_ext(|stream: &Turnstile<T>, connection| stream.tell(connection))
        .finish(answered);
    boxed::factory(http)
}

/// Who may wait to be taken: as many as come at once when the cluster's leader changes.
const BACKLOG: u32 = 1_024;

/// Open requests get this long to finish.
const GRACE: Duration = Duration::from_secs(1);

/// For a client to read why it is hung up on.
const FAREWELL_TIME_MAX: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests;
