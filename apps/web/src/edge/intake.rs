//! Bodies of requests, read whole within limits.

use std::{cell::Cell, rc::Rc, time::Duration};

use actix_http::{Payload, RequestHead, StatusCode, header::CONTENT_LENGTH};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use tokio::time::timeout;

use super::answer::Refusal;

/// How much a site holds of bodies, of one request and of all. Cloning is cheap.
#[derive(Debug, Clone)]
pub(super) struct Budget {
    one_max: u64,
    left: Rc<Cell<u64>>,
}

/// A share of it, given back when dropped.
#[derive(Debug)]
pub(super) struct Share {
    bytes: u64,
    left: Rc<Cell<u64>>,
}

impl Budget {
    pub(super) fn new(one_max: u64) -> Self {
        Self { one_max, left: Rc::new(Cell::new(one_max.saturating_mul(LARGEST_AT_ONCE))) }
    }

    /// Refuses a body that says to be too large, before a byte of it is read.
    pub(super) fn check(&self, head: &RequestHead) -> Result<(), Refusal> {
        let length = head.headers.get(CONTENT_LENGTH);
        let length = length.and_then(|length| length.to_str().ok()?.trim().parse::<u64>().ok());
        match length {
            Some(length) if length > self.one_max => Err(Refusal::too_large(self.one_max)),
            _ => Ok(()),
        }
    }

    /// Reads all of a body; the share is held for as long as its bytes are.
    pub(super) async fn read(&self, payload: &mut Payload) -> Result<(Bytes, Share), Refusal> {
        let mut share = Share { bytes: 0, left: Rc::clone(&self.left) };
        let (mut first, mut all) = (Bytes::new(), BytesMut::new());
        loop {
            let slow = || {
                let text = format!("nothing of the body came for {PART_TIME_MAX:?}");
                Refusal::new(StatusCode::REQUEST_TIMEOUT, text)
            };
            let part = timeout(PART_TIME_MAX, payload.next()).await.map_err(|_| slow())?;
            let Some(part) = part else { break };
            let part = part.map_err(|why| Refusal::bad(format!("the body broke off: {why}")))?;
            share.grow(part.len() as u64)?;
            if share.bytes > self.one_max {
                return Err(Refusal::too_large(self.one_max));
            }
            // Most bodies come in one part, and then nothing is copied.
            if first.is_empty() && all.is_empty() {
                first = part;
            } else {
                all.extend_from_slice(&std::mem::take(&mut first));
                all.extend_from_slice(&part);
            }
        }
        Ok((if all.is_empty() { first } else { all.freeze() }, share))
    }
}

impl Share {
    fn grow(&mut self, bytes: u64) -> Result<(), Refusal> {
        let busy = || {
            let text = "not applied: too many large bodies are on their way at once";
            Refusal::new(StatusCode::SERVICE_UNAVAILABLE, text)
        };
        self.left.set(self.left.get().checked_sub(bytes).ok_or_else(busy)?);
        self.bytes += bytes;
        Ok(())
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.left.set(self.left.get() + self.bytes);
    }
}

/// So many bodies of the largest size may be held at once: enough that a few large uploads do not
/// stop all others, few enough for a machine of some GiB.
const LARGEST_AT_ONCE: u64 = 8;

/// A client that sends nothing for so long is gone, or means ill.
const PART_TIME_MAX: Duration = Duration::from_secs(10);
