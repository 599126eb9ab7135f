//! An answer's body, as it comes.

use std::fmt;

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, stream::try_unfold};
use tokio::{sync::OwnedSemaphorePermit, time::timeout};

use super::{
    Fault, Upstream,
    connection::Connection,
    framing::{Framing, Piece},
    head::Head,
    location,
};
use crate::{Header, Request};

/// An answer whose body is still on its way.
pub struct Reading {
    /// `200`.
    pub status: u16,
    /// Without those of the connection; sorted by name.
    pub headers: Vec<Header>,
    /// What `Content-Length` said: the body's length, or for HEAD that of the body there would be.
    pub length: Option<u64>,
    framing: Framing,
    upstream: Upstream,
    /// None once the body is whole.
    connection: Option<Connection>,
    keep: bool,
    /// Its place among the reads under way.
    _slot: Option<OwnedSemaphorePermit>,
}

impl Reading {
    pub(super) fn new(
        upstream: Upstream,
        request: &Request,
        (connection, head): (Connection, Head),
        slot: Option<OwnedSemaphorePermit>,
    ) -> Self {
        let Head { status, mut headers, framing, declared, keep, .. } = head;
        location::from_outside(upstream.address(), request, &mut headers);
        let connection = Some(connection);
        let mut new = Self {
            status,
            headers,
            length: declared,
            framing,
            upstream,
            connection,
            keep,
            _slot: slot,
        };
        if new.framing.may_end() && new.framing != Framing::UntilClose {
            new.finish();
        }
        new
    }

    /// Whether it tells of a body that broke off that it did.
    pub(super) fn says_its_end(&self) -> bool {
        self.framing != Framing::UntilClose
    }

    /// The next part of the body, never empty; none at its end.
    ///
    /// # Errors
    /// It broke off, or nothing came for long; what came before is not whole.
    pub async fn part(&mut self) -> Result<Option<Bytes>, Fault> {
        loop {
            let Some(connection) = &mut self.connection else { return Ok(None) };
            let piece = self.framing.next(connection.buffer());
            match piece.map_err(|why| Fault::Lost(why.to_owned()))? {
                Piece::Data(data) => {
                    // The end may be known already, and then the connection is free earlier.
                    if self.framing == Framing::Length(0) {
                        self.finish();
                    }
                    return Ok(Some(data));
                }
                Piece::Done => {
                    self.finish();
                    return Ok(None);
                }
                Piece::More => {}
            }
            let patience = self.upstream.patience();
            let heard = timeout(patience, connection.hear()).await;
            let heard = heard.map_err(|_| Fault::Late(patience))?;
            let more = heard.map_err(|error| Fault::Lost(error.to_string()))?;
            if !more && self.framing.may_end() {
                self.connection = None;
            } else if !more {
                return Err(Fault::Lost("it hung up in the middle of a body".to_owned()));
            }
        }
    }

    /// All of the body; none when it has more than `most` bytes.
    ///
    /// # Errors
    /// See [`Reading::part`].
    pub async fn whole(mut self, most: usize) -> Result<Option<Bytes>, Fault> {
        let mut first = Bytes::new();
        let mut all = BytesMut::new();
        while let Some(part) = self.part().await? {
            if first.len() + all.len() + part.len() > most {
                return Ok(None);
            }
            if first.is_empty() && all.is_empty() {
                first = part;
                continue;
            }
            all.extend_from_slice(&std::mem::take(&mut first));
            all.extend_from_slice(&part);
        }
        Ok(Some(if all.is_empty() { first } else { all.freeze() }))
    }

    /// The body part by part.
    pub fn parts(self) -> impl Stream<Item = Result<Bytes, Fault>> {
        try_unfold(self, |mut reading| async move {
            let part = reading.part().await?;
            Ok(part.map(|part| (part, reading)))
        })
    }

    /// The body is whole: the connection may serve another request, unless the server said more
    /// than was asked.
    fn finish(&mut self) {
        let Some(mut connection) = self.connection.take() else { return };
        if !connection.buffer().is_empty() {
            tracing::warn!(server = %self.upstream.address(), "it answered more than it was asked");
        } else if self.keep {
            self.upstream.keep(connection);
        }
    }
}

impl fmt::Debug for Reading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reading").field("status", &self.status).finish_non_exhaustive()
    }
}
