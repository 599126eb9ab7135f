//! Accepts connections, HTTP/1.1 and, behind TLS, HTTP/2, and stops them in order.

use std::{convert::Infallible, fmt, net::SocketAddr, rc::Rc, sync::Arc, time::Duration};

use actix_http::{
    HttpService, KeepAlive, Protocol, Request, Response, body::MessageBody as _,
    error::DispatchError,
};
use actix_web::dev::{Service, ServiceFactory as _};
use synod::{
    runtime::telemetry::Counter,
    server::{
        Connections, StopSignal,
        turnstile::{Answer, Answering, HungUp, Turnstile, offer_protocols, protocol_of},
    },
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::service::Edge;
use crate::tireless::tireless;

/// A web port.
pub(super) struct Listener {
    /// None once it stops.
    pub(super) listener: Option<TcpListener>,
    pub(super) acceptor: Option<TlsAcceptor>,
    pub(super) connections_max: usize,
    pub(super) stop: StopSignal,
}

/// What a connection is served by.
type Peer<T> = (Turnstile<T>, Protocol, Option<SocketAddr>);

impl Listener {
    /// Serves clients until the stop, then gives what is under way a little time.
    pub(super) async fn run(mut self, edge: Rc<Edge>, restarts: Counter) {
        let acceptor = self.acceptor.take().map(|acceptor| {
            let mut config = (**acceptor.config()).clone();
            offer_protocols(&mut config);
            TlsAcceptor::from(Arc::new(config))
        });
        let accept = async || self.accept(&edge, acceptor.as_ref()).await;
        tireless(restarts, accept, |_| ()).await;
    }

    async fn accept(&mut self, edge: &Rc<Edge>, acceptor: Option<&TlsAcceptor>) {
        let plain = handler::<TcpStream>(edge).await;
        let behind_tls = handler::<TlsStream<TcpStream>>(edge).await;
        let (plain, behind_tls) = (Rc::new(plain), Rc::new(behind_tls));
        let mut connections = Connections::new("web", self.connections_max);
        let serve = |stream: TcpStream, peer| {
            let (plain, behind_tls) = (Rc::clone(&plain), Rc::clone(&behind_tls));
            let acceptor = acceptor.cloned();
            async move {
                // Otherwise it hung up already.
                let Ok(()) = stream.set_nodelay(true) else { return };
                match acceptor {
                    None => ended(peer, plain.call(turned(stream, Protocol::Http1, peer)).await),
                    Some(acceptor) => {
                        let Some((stream, protocol)) = greet(&acceptor, stream, peer).await else {
                            return;
                        };
                        ended(peer, behind_tls.call(turned(stream, protocol, peer)).await);
                    }
                }
            }
        };
        if let Some(listener) = &self.listener {
            connections.take(listener, self.stop.stopped(), serve).await;
        }
        self.listener = None;
        let quiet = async {
            while edge.is_busy() {
                sleep(QUIET_PAUSE).await;
            }
        };
        // Whoever still waits is hung up on when the connections are dropped.
        drop(timeout(STOP_TIME_MAX, quiet).await);
    }
}

/// How a client that ended badly is told of to whoever wants to know.
fn ended(peer: SocketAddr, result: Result<(), DispatchError>) {
    if let Err(error) = result {
        tracing::debug!(%peer, %error, "a web connection ended");
    }
}

/// What serves a connection lets its requests in one by one.
fn turned<T>(stream: T, protocol: Protocol, peer: SocketAddr) -> Peer<T> {
    (Turnstile::new(stream, protocol, HungUp::InTurn), protocol, Some(peer))
}

async fn handler<T>(
    edge: &Rc<Edge>,
) -> impl Service<Peer<T>, Response = (), Error = DispatchError> + use<T>
where
    T: AsyncRead + AsyncWrite + Unpin + fmt::Debug + 'static,
{
    let (serving, expecting) = (Rc::clone(edge), Rc::clone(edge));
    let service = HttpService::<Turnstile<T>, _, _>::build()
        .keep_alive(KeepAlive::Timeout(KEEP_ALIVE))
        .client_request_timeout(HEAD_TIME_MAX)
        .client_disconnect_timeout(FAREWELL_TIME_MAX)
        .h1_allow_half_closed(true)
        .on_connect_ext(|stream: &Turnstile<T>, connection| stream.tell(connection))
        .expect(move |request: Request| {
            let refused = expecting.check(request.head()).map_err(|refused| {
                let response = Answering::of(&request).with(refused);
                response.map_body(|_, body| body.boxed())
            });
            async move { refused.map(|()| request) }
        })
        .finish(move |request: Request| {
            let (edge, answering) = (Rc::clone(&serving), Answering::of(&request));
            async move {
                let response = match answering.refused() {
                    Some(refused) => refused,
                    None => edge.serve(request).await,
                };
                Ok::<Response<Answer>, Infallible>(answering.with(response))
            }
        });
    service.new_service(()).await.unwrap_or_else(|()| unreachable!("closures begin without fail"))
}

/// The TLS handshake, and what is spoken behind it.
async fn greet(
    acceptor: &TlsAcceptor,
    stream: TcpStream,
    peer: SocketAddr,
) -> Option<(TlsStream<TcpStream>, Protocol)> {
    match timeout(HEAD_TIME_MAX, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => {
            let protocol = protocol_of(stream.get_ref().1);
            Some((stream, protocol))
        }
        Ok(Err(error)) => {
            tracing::debug!(%peer, %error, "no TLS client");
            None
        }
        Err(_) => None,
    }
}

/// A connection between two requests; clients of the usual libraries keep theirs for less.
const KEEP_ALIVE: Duration = Duration::from_secs(75);

/// For the first request's head, or a TLS handshake: a client that is slower means ill.
const HEAD_TIME_MAX: Duration = Duration::from_secs(10);

/// For a client to read why it is hung up on.
const FAREWELL_TIME_MAX: Duration = Duration::from_secs(2);

/// Between two looks whether something is under way: short for people, long for a processor.
const QUIET_PAUSE: Duration = Duration::from_millis(50);

/// A node has five seconds for everything when it stops.
const STOP_TIME_MAX: Duration = Duration::from_secs(1);
