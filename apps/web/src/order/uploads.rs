//! Bodies too large for one command, until the request comes that they belong to: announced, where sites
//! keep them apart, or piece by piece.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::Origin;
use crate::Apart;

/// What came so far.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Uploads {
    /// By site and ticket.
    open: BTreeMap<(String, u64), Upload>,
    bytes: usize,
}

/// One of them.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Upload {
    /// All of it that came.
    pub(super) parts: Vec<Bytes>,
    /// When the last word of it came.
    time_ms: u64,
    /// It, where sites keep it.
    #[serde(default)]
    pub(super) apart: Option<Apart>,
}

impl Uploads {
    /// The next piece.
    ///
    /// # Errors
    /// Why it was not taken: what came before of this body is gone too.
    pub(super) fn put(
        &mut self,
        origin: &Origin,
        index: u32,
        bytes: Bytes,
        now_ms: u64,
    ) -> Result<(), String> {
        self.expire(now_ms);
        let name = (origin.site.clone(), origin.ticket);
        let there = self.open.get(&name).map_or(0, |upload| upload.parts.len());
        if there != index as usize {
            self.take(origin);
            return Err(format!("piece {index} of a body came where {there} was next"));
        }
        if self.bytes + bytes.len() > UPLOADS_BYTES_MAX {
            self.take(origin);
            return Err(format!("bodies of {} bytes are under way already", self.bytes));
        }
        self.bytes += bytes.len();
        let upload = self.open.entry(name).or_default();
        upload.parts.push(bytes);
        (upload.time_ms, upload.apart) = (now_ms, None);
        Ok(())
    }

    /// A body that sites keep, or are about to.
    pub(super) fn announce(&mut self, origin: &Origin, body: Apart, now_ms: u64) {
        self.take(origin);
        let upload = Upload { parts: Vec::new(), time_ms: now_ms, apart: Some(body) };
        self.open.insert((origin.site.clone(), origin.ticket), upload);
    }

    /// Whether such a body was announced.
    pub(super) fn announced(&self, digest: &str) -> bool {
        let mut bodies = self.open.values().filter_map(|upload| upload.apart.as_ref());
        bodies.any(|body| body.digest == digest)
    }

    /// The body of a ticket.
    pub(super) fn take(&mut self, origin: &Origin) -> Upload {
        let upload = self.open.remove(&(origin.site.clone(), origin.ticket)).unwrap_or_default();
        self.bytes -= upload.parts.iter().map(Bytes::len).sum::<usize>();
        upload
    }

    /// The site began another life: nobody waits for these.
    pub(super) fn forget(&mut self, site: &str) {
        self.retain(|name, _| name.0 != site);
    }

    /// Forgets what nobody goes on with.
    pub(super) fn expire(&mut self, now_ms: u64) {
        if self.open.is_empty() {
            return;
        }
        self.retain(|_, upload| upload.time_ms + UPLOAD_MS >= now_ms);
    }

    fn retain(&mut self, keep: impl Fn(&(String, u64), &Upload) -> bool) {
        self.open.retain(|name, upload| keep(name, upload));
        let parts = self.open.values().flat_map(|upload| &upload.parts);
        self.bytes = parts.map(Bytes::len).sum();
    }
}

/// Two bodies of the largest kind.
const UPLOADS_BYTES_MAX: usize = 128 << 20;

/// Pieces follow one another at once; whoever pauses so long is gone.
const UPLOAD_MS: u64 = 60_000;
