//! A request in its place.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::Origin;
use crate::Request;

/// A request in its place.
#[derive(Debug, Serialize, Deserialize)]
pub struct Step {
    /// Its place.
    pub seq: u64,
    /// Agreed time, milliseconds since 1970.
    pub time_ms: u64,
    /// Agreed randomness.
    pub seed: u64,
    /// Who waits for the answer.
    pub origin: Origin,
    /// Whether its response is to be kept for whoever asks again.
    pub keyed: bool,
    /// The request, without what is in `parts`.
    pub request: Request,
    /// Its body, when that is large and not kept apart.
    pub parts: Vec<Bytes>,
}

impl Step {
    /// The request with its whole body.
    pub fn whole(&self) -> Request {
        let mut request = self.request.clone();
        if !self.parts.is_empty() {
            request.body = self.parts.concat().into();
        }
        request
    }

    /// What it takes of a site's disk: its body, where that is kept apart.
    pub(super) fn apart_bytes(&self) -> u64 {
        self.request.apart.as_ref().map_or(0, |apart| apart.bytes)
    }

    /// About the memory that it takes.
    pub(super) fn weight(&self) -> usize {
        let Request { method, target, headers, body, .. } = &self.request;
        let headers = headers.iter().map(|one| one.name.len() + one.value.len() + HEADER_BYTES);
        let parts = self.parts.iter().map(Bytes::len);
        STEP_BYTES + method.len() + target.len() + body.len() + headers.chain(parts).sum::<usize>()
    }
}

/// What a step takes beside its texts.
const STEP_BYTES: usize = 200;

/// What a header takes beside its texts.
const HEADER_BYTES: usize = 48;
