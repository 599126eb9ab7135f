//! What opens a turnstile again.

use std::{
    cell::{Cell, RefCell},
    fmt,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
};

use actix_http::{
    ConnectionType, Request, Response, Version,
    body::{BodySize, BoxBody, MessageBody},
};
use bytes::Bytes;

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
pub struct Answering(Option<Latch>);

impl Answering {
    /// Looks at what matters for what comes behind the request. A connection without a
    /// [`Turnstile`](super::Turnstile) has none of that.
    pub fn of(request: &Request) -> Self {
        // Behind all others the connection ends, so that nothing more need go in.
        let stays = request.head().connection_type() == ConnectionType::KeepAlive;
        Self(request.conn_data::<Latch>().filter(|_| stays).cloned())
    }

    /// Its answer, behind which the next request goes in: the server drops an answer's body once all
    /// of it is encoded. Not behind one that ends the connection.
    pub fn with(self, mut response: Response<BoxBody>) -> Response<Answer> {
        // The server says later of which version it is. Until then a head that was used before says
        // what it was, and one of HTTP/1.0 would look as if it ended its connection.
        response.head_mut().version = Version::HTTP_11;
        let stays = response.head().connection_type() == ConnectionType::KeepAlive;
        let out = Out(self.0.filter(|_| stays));
        response.map_body(|_, body| Answer { body, _out: out })
    }
}

impl fmt::Debug for Answering {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Answering").field(&self.0.is_some()).finish()
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
