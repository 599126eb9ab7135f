//! Lets the requests of an HTTP/1.1 connection in one by one.
//!
//! A client may send requests before it has the answers to earlier ones (pipelining). actix-http
//! decodes the head of the next request while the one before is still served, and frames every answer
//! as the head that it decoded *last* wants it: with `HEAD`, HTTP/1.0 or `Connection: close` behind it,
//! the answer to a `GET` lost its body, or its connection. A client, or a proxy in between, then takes
//! the bytes of one answer for those of another.
//!
//! [`Turnstile`] stands between the socket and the server. It follows the framing of what comes, and
//! withholds what lies behind the end of a request until the answer to that request is encoded, which
//! is when the server drops the answer's body: [`Answering`] has to wrap every answer. So the server
//! knows of one request at a time, as with a client that waits for its answers.
//!
//! # What it relies on
//! - It changes and drops no byte, and puts none elsewhere: which bytes are which request is the server's
//!   decision alone. A framing that it saw otherwise than the server could not smuggle a request
//!   in; it could only make it wait too long, or let it in too early. That it sees as the server
//!   does is tested against the server's own decoder.
//! - What it cannot tell (two lengths, a coding that is none) it lets through, with all that follows: the
//!   server answers 400 to such a head and hangs up, as to one that only the server objects to. Behind
//!   `Upgrade: websocket` and `CONNECT` the server takes all that comes for one body, so all goes
//!   through.
//! - A line of a head may end in a bare LF, for the server; for a proxy in between it may not have been a
//!   line at all. Whoever serves refuses such a head ([`Answering::refused`]).
//! - An answer that ends its connection lets nothing in: what a client sent behind
//!   `Connection: close` is not served.
//! - Where nothing waits, bytes go straight into the server's buffer, and the socket is polled as it
//!   would be without it, so that whoever hangs up is noticed. What waits is at most
//!   [`WITHHELD_BYTES_MAX`] and one read; until then the socket is read on, for the same reason.
//! - A client that sends on and does not read its answers gets nothing in until it has read: answers
//!   without end do not pile up.

mod framing;
mod latch;
mod protocol;

use std::{
    fmt, io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use actix_http::{Extensions, Protocol};
use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use self::latch::Latch;
pub use self::latch::{Answer, Answering};
pub use self::protocol::{offer_protocols, protocol_of};

/// A client's connection, of which requests go in one by one.
pub struct Turnstile<T> {
    io: T,
    /// None: all goes through.
    latch: Option<Latch>,
    /// What came behind the request that is in.
    withheld: BytesMut,
    hung_up: HungUp,
    /// Nothing more came.
    is_over: bool,
    /// What was to be written last could not be.
    is_clogged: bool,
}

/// What it means that nothing more comes from a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HungUp {
    /// It is gone, and what waits with it.
    AtOnce,
    /// It has said all, and waits for its answers (`h1_allow_half_closed`).
    InTurn,
}

impl<T> Turnstile<T> {
    /// Around a connection of which nothing was read yet. HTTP/2 passes as it is: it has no such order.
    pub fn new(io: T, protocol: Protocol, hung_up: HungUp) -> Self {
        let latch = (protocol == Protocol::Http1).then(Latch::default);
        let withheld = BytesMut::new();
        Self { io, latch, withheld, hung_up, is_over: false, is_clogged: false }
    }

    /// What the requests of the connection must know so that [`Answering`] finds it: for
    /// `on_connect_ext` of the service.
    pub fn tell(&self, connection: &mut Extensions) {
        if let Some(latch) = &self.latch {
            connection.insert(latch.clone());
        }
    }
}

impl<T> fmt::Debug for Turnstile<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Turnstile")
            .field("withheld", &self.withheld.len())
            .field("hung_up", &self.hung_up)
            .field("is_over", &self.is_over)
            .finish_non_exhaustive()
    }
}

impl<T: AsyncRead + Unpin> Turnstile<T> {
    /// Reads what may go in now.
    fn admit(
        &mut self,
        latch: &Latch,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.withheld.is_empty() {
            let most = self.withheld.len().min(buf.remaining());
            let admitted = latch.admit(&self.withheld[..most]);
            buf.put_slice(&self.withheld[..admitted]);
            self.withheld.advance(admitted);
            if self.withheld.is_empty() {
                // Few connections ever need it.
                self.withheld = BytesMut::new();
            }
            return Poll::Ready(Ok(()));
        }
        if self.is_over {
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(cx, buf))?;
        let admitted = before + latch.admit(&buf.filled()[before..]);
        self.withheld.extend_from_slice(&buf.filled()[admitted..]);
        buf.set_filled(admitted);
        Poll::Ready(Ok(()))
    }

    /// Reads on for the sake of the end, while nothing may go in.
    fn withhold(
        &mut self,
        latch: &Latch,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        while !self.is_over && self.withheld.len() < WITHHELD_BYTES_MAX {
            let Poll::Ready(read) = Pin::new(&mut self.io).poll_read(cx, buf) else { break };
            read?;
            self.is_over = buf.filled().len() == before;
            self.withheld.extend_from_slice(&buf.filled()[before..]);
            buf.set_filled(before);
        }
        if self.is_over && (self.withheld.is_empty() || self.hung_up == HungUp::AtOnce) {
            return Poll::Ready(Ok(()));
        }
        if !self.withheld.is_empty() {
            latch.wait(cx);
        }
        Poll::Pending
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Turnstile<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let Some(latch) = this.latch.take() else {
            return Pin::new(&mut this.io).poll_read(cx, buf);
        };
        let waits = latch.is_shut() || this.is_clogged && latch.is_between();
        let read = match waits {
            // It would look like the end.
            _ if buf.remaining() == 0 => Poll::Ready(Ok(())),
            true => this.withhold(&latch, cx, buf),
            false => this.admit(&latch, cx, buf),
        };
        this.latch = Some(latch);
        read
    }
}

impl<T: Unpin> Turnstile<T> {
    /// Takes note of how writing goes.
    fn wrote(&mut self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        let was_clogged = std::mem::replace(&mut self.is_clogged, written.is_pending());
        if was_clogged
            && !self.is_clogged
            && let Some(latch) = &self.latch
        {
            latch.wake();
        }
        written
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Turnstile<T> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.io).poll_write(cx, buf);
        this.wrote(written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.io).poll_write_vectored(cx, bufs);
        this.wrote(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
}

/// What waits of one connection: some hundred small requests; half of what the server itself would
/// keep unread of one.
pub const WITHHELD_BYTES_MAX: usize = 64 << 10;

#[cfg(test)]
mod tests;
