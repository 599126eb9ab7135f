//! Bodies of requests, read whole within limits: large ones to where they are kept.

use std::{cell::Cell, rc::Rc, time::Duration};

use actix_http::{Payload, RequestHead, StatusCode, header::CONTENT_LENGTH};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use tokio::time::timeout;

use super::answer::Refusal;
use crate::{
    Apart,
    bodies::{APART_FROM, Draft, PIECE_BYTES, Store, Unkept},
};

/// How much a site holds of bodies, of one request and, in memory, of all. Cloning is cheap.
#[derive(Debug, Clone)]
pub(super) struct Budget {
    one_max: u64,
    left: Rc<Cell<u64>>,
    /// Where large ones are kept; none: in memory.
    bodies: Option<Store>,
}

/// A share of it, given back when dropped.
#[derive(Debug)]
pub(super) struct Share {
    bytes: u64,
    left: Rc<Cell<u64>>,
}

impl Budget {
    pub(super) fn new(one_max: u64, bodies: Option<Store>) -> Self {
        Self { one_max, left: Rc::new(Cell::new(MEMORY_BYTES_MAX)), bodies }
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

    /// Reads all of a body: into memory, or where large ones are kept. The share is held for as long
    /// as its bytes are.
    pub(super) async fn read(
        &self,
        payload: &mut Payload,
    ) -> Result<(Bytes, Option<Apart>, Share), Refusal> {
        let mut share = Share { bytes: 0, left: Rc::clone(&self.left) };
        let (mut first, mut all) = (Bytes::new(), BytesMut::new());
        let (mut total, mut draft) = (0, None::<Draft>);
        loop {
            let slow = || {
                let text = format!("nothing of the body came for {PART_TIME_MAX:?}");
                Refusal::new(StatusCode::REQUEST_TIMEOUT, text)
            };
            let part = timeout(PART_TIME_MAX, payload.next()).await.map_err(|_| slow())?;
            let Some(part) = part else { break };
            let part = part.map_err(|why| Refusal::bad(format!("the body broke off: {why}")))?;
            share.grow(part.len() as u64)?;
            total += part.len() as u64;
            if total > self.one_max {
                return Err(Refusal::too_large(self.one_max));
            }
            // Most bodies come in one part, and then nothing is copied.
            if first.is_empty() && all.is_empty() {
                first = part;
            } else {
                all.extend_from_slice(&std::mem::take(&mut first));
                all.extend_from_slice(&part);
            }
            let here = first.len() + all.len();
            let large = if draft.is_some() { PIECE_BYTES } else { APART_FROM + 1 };
            if let Some(store) = self.bodies.as_ref().filter(|_| here >= large) {
                let draft = draft.get_or_insert_with(|| store.draft());
                draft.put(taken(&mut first, &mut all)).await?;
                share.shrink();
            }
        }
        let rest = taken(&mut first, &mut all);
        let Some(mut draft) = draft else { return Ok((rest, None, share)) };
        if !rest.is_empty() {
            draft.put(rest).await?;
            share.shrink();
        }
        Ok((Bytes::new(), Some(draft.finish().await?), share))
    }
}

/// What is in either.
fn taken(first: &mut Bytes, all: &mut BytesMut) -> Bytes {
    match all.is_empty() {
        true => std::mem::take(first),
        false => all.split().freeze(),
    }
}

impl From<Unkept> for Refusal {
    fn from(why: Unkept) -> Self {
        let status = match why {
            Unkept::Full(_) => StatusCode::INSUFFICIENT_STORAGE,
            Unkept::Failed(_) => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self::new(status, format!("not applied: {why}"))
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

    /// None of it is in memory any more.
    fn shrink(&mut self) {
        self.left.set(self.left.get() + std::mem::take(&mut self.bytes));
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.left.set(self.left.get() + self.bytes);
    }
}

/// In memory of all bodies on their way: enough that some hundred uploads do not stop all others, few
/// enough for a machine of some GiB.
const MEMORY_BYTES_MAX: u64 = 512 << 20;

/// A client that sends nothing for so long is gone, or means ill.
const PART_TIME_MAX: Duration = Duration::from_secs(10);
