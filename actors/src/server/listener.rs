//! The HTTP port of a node: what actix-web's `HttpServer` composes, with a [`Turnstile`] around each
//! connection, for which that has no place.

use std::{
    fmt, io,
    net::{SocketAddr, TcpListener},
    time::Duration,
};

use actix_http::{
    HttpService, Protocol, Request, Response, body::MessageBody, error::DispatchError,
};
use actix_rt::net::TcpStream;
use actix_service::{
    IntoServiceFactory, Service, ServiceFactory, ServiceFactoryExt as _, apply_fn_factory,
    fn_service, map_config,
};
use actix_tls::accept::{
    TlsError,
    rustls_0_23::{Acceptor, TlsStream},
};
use actix_web::{
    Error,
    dev::{AppConfig, Server},
};
use futures_util::future::{Either, ready};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpSocket,
};
use tokio_rustls::rustls::ServerConfig;

use super::turnstile::{Answering, HungUp, Turnstile, offer_protocols, protocol_of};

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

/// Serves `app` on a thread of its own, behind TLS if there is any, until the server's handle stops it.
///
/// # Errors
/// What the system says of `listener`.
pub(super) fn serve<F, I, S, B>(
    listener: TcpListener,
    tls: Option<ServerConfig>,
    app: F,
) -> io::Result<Server>
where
    F: Fn() -> I + Send + Clone + 'static,
    I: IntoServiceFactory<S, Request>,
    S: ServiceFactory<Request, Config = AppConfig> + 'static,
    S::Error: Into<Error>,
    S::InitError: fmt::Debug,
    S::Response: Into<Response<B>>,
    <S::Service as Service<Request>>::Future: 'static,
    B: MessageBody + 'static,
{
    let builder = Server::build().workers(1).disable_signals().shutdown_timeout(GRACE.as_secs());
    let stopping = builder.graceful_shutdown_signal();
    let stopped = move || {
        let stopping = stopping.clone();
        async move { stopping.notified().await }
    };
    let at = listener.local_addr()?;
    let builder = match tls {
        None => builder.listen("http", listener, move || {
            let http = http(app(), config(at, false), stopped.clone());
            fn_service(async |stream: TcpStream| Ok(turned(&stream, Protocol::Http1)(stream)))
                .and_then(http)
        })?,
        Some(mut tls) => {
            offer_protocols(&mut tls);
            builder.listen("http", listener, move || {
                let http = http(app(), config(at, true), stopped.clone());
                Acceptor::new(tls.clone())
                    .map_err(TlsError::into_service_error)
                    .map(|stream: TlsStream<TcpStream>| {
                        let (socket, session) = stream.get_ref();
                        turned(socket, protocol_of(session))(stream)
                    })
                    .and_then(http.map_err(TlsError::Service))
            })?
        }
    };
    Ok(builder.run())
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
) -> impl ServiceFactory<Peer<T>, Config = (), Response = (), Error = DispatchError, InitError = ()>
where
    T: AsyncRead + AsyncWrite + Unpin + 'static,
    I: IntoServiceFactory<S, Request>,
    S: ServiceFactory<Request, Config = AppConfig> + 'static,
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
    HttpService::build()
        .graceful_shutdown_signal(stopped)
        .client_disconnect_timeout(FAREWELL_TIME_MAX)
        // Whoever hangs up is not waited for any more: somebody who stands for a role is gone then.
        .h1_allow_half_closed(false)
        .on_connect_ext(|stream: &Turnstile<T>, connection| stream.tell(connection))
        .finish(answered)
}

/// Who may wait to be taken: as many as come at once when the cluster's leader changes.
const BACKLOG: u32 = 1_024;

/// Open requests get this long to finish.
const GRACE: Duration = Duration::from_secs(1);

/// For a client to read why it is hung up on.
const FAREWELL_TIME_MAX: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests;
