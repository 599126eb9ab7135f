//! What is left of a request that was refused: heard and thrown away within bounds, so that its
//! client gets to read why, and no longer.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use actix_http::{
    Payload, Response,
    body::{BodySize, BoxBody, MessageBody},
};
use bytes::Bytes;
use futures_util::{FutureExt as _, Stream as _};
use tokio::time::{Sleep, sleep};

/// `response`, behind which the rest of the request is thrown away. Once that is over, or too much,
/// the connection ends.
pub(super) fn behind(response: Response<BoxBody>, rest: Payload) -> Response<BoxBody> {
    if matches!(rest, Payload::None) {
        return response;
    }
    response.map_body(|_, body| {
        let time = Box::pin(sleep(DRAIN_TIME_MAX));
        Draining { body, said: false, rest, bytes: 0, time }.boxed()
    })
}

/// A body, and what is still to be thrown away behind it.
struct Draining {
    body: BoxBody,
    said: bool,
    rest: Payload,
    bytes: usize,
    time: Pin<Box<Sleep>>,
}

/// Its client sends on and on.
#[derive(Debug, thiserror::Error)]
#[error(
    "a refused client sent more than {DRAIN_BYTES_MAX} bytes, or for more than {DRAIN_TIME_MAX:?}"
)]
struct Enough;

impl MessageBody for Draining {
    type Error = Box<dyn std::error::Error>;

    fn size(&self) -> BodySize {
        self.body.size()
    }

    fn poll_next(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Self::Error>>> {
        let this = &mut *self;
        if !this.said {
            match Pin::new(&mut this.body).poll_next(cx) {
                Poll::Ready(None) => this.said = true,
                said => return said,
            }
        }
        loop {
            match Pin::new(&mut this.rest).poll_next(cx) {
                Poll::Ready(Some(Ok(part))) => this.bytes += part.len(),
                Poll::Ready(Some(Err(_)) | None) => return Poll::Ready(None),
                Poll::Pending if this.time.poll_unpin(cx).is_pending() => return Poll::Pending,
                Poll::Pending => return Poll::Ready(Some(Err(Box::new(Enough)))),
            }
            if this.bytes > DRAIN_BYTES_MAX {
                return Poll::Ready(Some(Err(Box::new(Enough))));
            }
        }
    }
}

/// What a client may have under way before it can have read the answer: the system's buffers on both
/// sides, and more.
const DRAIN_BYTES_MAX: usize = 16 << 20;

/// For a client to read an answer.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(2);
