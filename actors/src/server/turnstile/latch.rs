//! What opens a turnstile again.

use std::{
    cell::{Cell, RefCell},
    fmt,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
};

use actix_http::{
    ConnectionType, Request, Response, StatusCode, Version,
    body::{BodySize, BoxBody, MessageBody},
    header::{CONTENT_TYPE, HeaderValue},
};
use bytes::Bytes;
use serde_json::json;

use super::framing::Gate;

/// The part of a turnstile that its connection's requests know. Cloning is cheap.
#[derive(Clone, Default)]
pub(super) struct Latch(Rc<Inner>);

#[derive(Default)]
struct Inner {
    gate: RefCell<Gate>,
    /// Who asked for bytes that were there and had to wait.
    waits: Cell<Option<Waker>>,
}

impl Latch {
    pub(super) fn admit(&self, bytes: &[u8]) -> usize {
        self.0.gate.borrow_mut().admit(bytes)
    }

    pub(super) fn is_shut(&self) -> bool {
        self.0.gate.borrow().is_shut()
    }

    pub(super) fn is_between(&self) -> bool {
        self.0.gate.borrow().is_between()
    }

    fn is_loose(&self) -> bool {
        self.0.gate.borrow().is_loose()
    }

    /// Wakes whoever polls when there is more to be had.
    pub(super) fn wait(&self, context: &Context<'_>) {
        self.0.waits.set(Some(context.waker().clone()));
    }

    /// There may be more to be had.
    pub(super) fn wake(&self) {
        if let Some(waiting) = self.0.waits.take() {
            waiting.wake();
        }
    }

    pub(super) fn answered(&self) {
        self.0.gate.borrow_mut().answered();
        self.wake();
    }
}

/// A request that is to be answered. To be made of it before its service gets it.
pub struct Answering {
    latch: Option<Latch>,
    /// Its client knows no chunks.
    is_old: bool,
    /// Another reader could take it for another one.
    is_loose: bool,
}

impl Answering {
    /// Looks at what matters for what comes behind the request. A connection without a
    /// [`Turnstile`](super::Turnstile) has none of that.
    pub fn of(request: &Request) -> Self {
        // Behind all others the connection ends, so that nothing more need go in.
        let stays = request.head().connection_type() == ConnectionType::KeepAlive;
        let latch = request.conn_data::<Latch>();
        let is_loose = latch.is_some_and(Latch::is_loose);
        let is_old = request.version() < Version::HTTP_11;
        Self { latch: latch.filter(|_| stays).cloned(), is_old, is_loose }
    }

    /// What it is answered instead of being served, when another reader, say a proxy in between, could
    /// have taken it for another one.
    pub fn refused(&self) -> Option<Response<BoxBody>> {
        self.is_loose.then(|| {
            let error = "a line of the head ends in a bare line feed";
            let body = json!({ "error": error, "outcome": "not_applied" }).to_string();
            let mut response = Response::with_body(StatusCode::BAD_REQUEST, BoxBody::new(body));
            let json = HeaderValue::from_static("application/json");
            response.headers_mut().insert(CONTENT_TYPE, json);
            response.head_mut().set_connection_type(ConnectionType::Close);
            response
        })
    }

    /// Its answer, behind which the next request goes in: the server drops an answer's body once all
    /// of it is encoded. Not behind one that ends the connection.
    pub fn with(self, mut response: Response<BoxBody>) -> Response<Answer> {
        // The server says later of which version it is. Until then a head that was used before says
        // what it was, and one of HTTP/1.0 would look as if it ended its connection.
        response.head_mut().version = Version::HTTP_11;
        if self.is_old && response.body().size() == BodySize::Stream {
            // The connection's end is the body's.
            response.head_mut().no_chunking(true);
            response.head_mut().set_connection_type(ConnectionType::Close);
        }
        let stays = response.head().connection_type() == ConnectionType::KeepAlive;
        let out = Out(self.latch.filter(|_| stays));
        response.map_body(|_, body| Answer { body, _out: out })
    }
}

impl fmt::Debug for Answering {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answering").field("is_old", &self.is_old).finish_non_exhaustive()
    }
}

/// The body of an answer, behind which the next request goes in.
pub struct Answer {
    body: BoxBody,
    _out: Out,
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer").field("size", &self.body.size()).finish_non_exhaustive()
    }
}

impl MessageBody for Answer {
    type Error = <BoxBody as MessageBody>::Error;

    fn size(&self) -> BodySize {
        self.body.size()
    }

    fn poll_next(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Self::Error>>> {
        Pin::new(&mut self.get_mut().body).poll_next(cx)
    }
}

/// Says, dropped, that an answer is out.
struct Out(Option<Latch>);

impl Drop for Out {
    fn drop(&mut self) {
        if let Some(latch) = &self.0 {
            latch.answered();
        }
    }
}
