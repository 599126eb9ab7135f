//! Other protocols, on routes that pass them by the order (R5.22): a WebSocket, or what CONNECT asks
//! for, goes to this site's own server, byte for byte, both ways.

use std::{cell::Cell, rc::Rc, time::Duration};

use actix_http::{
    ConnectionType, Method, Payload, RequestHead, Response, StatusCode, Version,
    body::{BodyStream, BoxBody, MessageBody as _},
    header::{
        CONNECTION, CONTENT_LENGTH, HeaderValue, SEC_WEBSOCKET_KEY, TRANSFER_ENCODING, UPGRADE,
    },
};
use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt as _, stream::try_unfold};
use synod::{runtime::watch, server::config::WebConfig};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::tcp::{OwnedReadHalf, OwnedWriteHalf},
    time::{sleep, timeout},
};

use super::answer::{self, Refusal};
use crate::{
    Fresh, Order,
    path::normalised,
    upstream::{Switched, words},
};

/// Another protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Other {
    WebSocket,
    Connect,
}

/// The other protocol that a request asks for; none for ordinary requests.
///
/// # Errors
/// One that this site does not pass on, or not there.
pub(super) fn wanted(head: &RequestHead, web: &WebConfig) -> Result<Option<Other>, Refusal> {
    let upgrade = head.headers.get(UPGRADE).map(HeaderValue::as_bytes);
    // A client that would rather speak HTTP/2 goes on in HTTP/1.1 when nobody answers to that.
    let to = upgrade.filter(|to| !to.trim_ascii().eq_ignore_ascii_case(b"h2c"));
    let (other, path) = match to {
        _ if head.method == Method::CONNECT => (Other::Connect, "/".to_owned()),
        None => return Ok(None),
        Some(_) => (Other::WebSocket, normalised(head.uri.path())),
    };
    let route = web.route(head.method.as_str(), &path);
    let plain = head.version == Version::HTTP_11;
    let known = other == Other::Connect || is_web_socket(head);
    if !(plain && known && route.is_some_and(|route| route.pass)) {
        let text = "another protocol cannot be put in order, and no route passes this one by it";
        return Err(Refusal::new(StatusCode::NOT_IMPLEMENTED, text));
    }
    // Behind such a head two readers would begin the other protocol at different bytes.
    let bodied =
        [CONTENT_LENGTH, TRANSFER_ENCODING].iter().any(|one| head.headers.contains_key(one));
    if bodied || head.headers.get_all(UPGRADE).count() > 1 {
        return Err(Refusal::bad("a request for another protocol has no body"));
    }
    Ok(Some(other))
}

impl Other {
    /// What the server is told beside the client's own headers.
    pub(super) fn headers(self) -> Vec<(&'static str, String)> {
        match self {
            Self::WebSocket => {
                let socket = [("connection", "upgrade"), ("upgrade", "websocket")];
                socket.map(|(name, value)| (name, value.to_owned())).to_vec()
            }
            Self::Connect => Vec::new(),
        }
    }
}

/// As RFC 6455 has it: other protocols could begin anywhere.
fn is_web_socket(head: &RequestHead) -> bool {
    let named =
        |value: &HeaderValue| value.as_bytes().trim_ascii().eq_ignore_ascii_case(b"websocket");
    let mut options = head.headers.get_all(CONNECTION).flat_map(|value| words(value.as_bytes()));
    head.method == Method::GET
        && head.headers.get(UPGRADE).is_some_and(named)
        && head.headers.contains_key(SEC_WEBSOCKET_KEY)
        && options.any(|option| option == "upgrade")
}

/// The tunnels of a site.
#[derive(Debug, Clone, Default)]
pub(super) struct Tunnels(Rc<Cell<usize>>);

/// One of them, until dropped.
pub(super) struct Tunnel(Rc<Cell<usize>>);

impl Tunnels {
    /// Takes one.
    ///
    /// # Errors
    /// There are too many.
    pub(super) fn open(&self) -> Result<Tunnel, Refusal> {
        if self.0.get() >= TUNNELS_MAX {
            let text = "not applied: too many connections of other protocols are open";
            return Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, text));
        }
        self.0.set(self.0.get() + 1);
        Ok(Tunnel(Rc::clone(&self.0)))
    }
}

impl Tunnel {
    /// Joins a client to a server that agreed to the other protocol.
    pub(super) fn join(
        self,
        other: Other,
        server: Switched,
        client: Payload,
        order: Rc<dyn Order>,
    ) -> Response<BoxBody> {
        let Switched { status, headers, stream, heard } = server;
        let (from, to) = stream.into_split();
        let (alive, mut moved) = watch::channel(());
        let alive = Rc::new(alive);
        let up = Ends(actix_rt::spawn(to_server(client, to, Rc::clone(&alive))));
        let guard = actix_rt::spawn(async move {
            let (_tunnel, _up) = (self, up);
            // S4: a site that is quarantined answers nobody, also not so.
            let serves = async {
                while order.fresh(Fresh::Local).await.is_ok() {
                    sleep(LOOK_PAUSE).await;
                }
            };
            let quiet = async {
                // Dropped by both ends, it is over.
                while let Ok(Ok(())) = timeout(QUIET_MAX, moved.changed()).await {}
            };
            tokio::select! {
                () = serves => {}
                () = quiet => {}
            }
        });
        let down = Down { from, heard, alive, ends: Ends(guard) };
        let mut response = answer::passed(status, &headers, BodyStream::new(down.parts()).boxed());
        response.head_mut().no_chunking(true);
        if other == Other::WebSocket {
            let socket = HeaderValue::from_static("websocket");
            response.headers_mut().insert(UPGRADE, socket);
            response.head_mut().set_connection_type(ConnectionType::Upgrade);
        }
        response
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// What comes from the client.
async fn to_server(mut client: Payload, mut to: OwnedWriteHalf, alive: Rc<watch::Sender<()>>) {
    while let Some(Ok(part)) = client.next().await {
        if to.write_all(&part).await.is_err() {
            return;
        }
        alive.send_replace(());
    }
    // The server may still have something to say; that it hears no more of us it is told.
    drop(to.shutdown().await);
}

/// What comes from the server.
struct Down {
    from: OwnedReadHalf,
    /// Came with its answer.
    heard: BytesMut,
    alive: Rc<watch::Sender<()>>,
    ends: Ends,
}

/// Ends the other direction when dropped.
struct Ends(actix_rt::task::JoinHandle<()>);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Down {
    fn parts(self) -> impl Stream<Item = Result<Bytes, std::io::Error>> {
        Box::pin(try_unfold(self, |mut down| async move {
            if down.heard.is_empty() {
                down.heard.reserve(READ_BYTES);
                tokio::select! {
                    biased;
                    // It stands still, or the site does.
                    _ended = &mut down.ends.0 => return Ok(None),
                    read = down.from.read_buf(&mut down.heard) => drop(read?),
                }
            }
            down.alive.send_replace(());
            let part = down.heard.split().freeze();
            Ok((!part.is_empty()).then_some((part, down)))
        }))
    }
}

/// Each holds two connections for as long as it likes.
const TUNNELS_MAX: usize = 256;

/// A WebSocket says something now and then, if only to show that it lives.
const QUIET_MAX: Duration = Duration::from_secs(600);

/// How often it is looked whether the site still serves.
const LOOK_PAUSE: Duration = Duration::from_secs(1);

/// What one system call may bring.
const READ_BYTES: usize = 16 << 10;
