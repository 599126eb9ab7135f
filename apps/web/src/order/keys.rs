//! Requests that clients named, and what they were answered (R5.34 to R5.38).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Kept, Key};
use crate::Past;

/// The keys in use.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Keys {
    by_name: BTreeMap<String, Known>,
    /// The same, oldest first.
    by_seq: BTreeMap<u64, String>,
    /// Of the responses.
    bytes: usize,
}

/// A key in use.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Known {
    pub(super) seq: u64,
    pub(super) digest: String,
    time_ms: u64,
    pub(super) response: Option<Kept>,
}

impl Keys {
    /// The request of that name.
    pub(super) fn get(&self, name: &str) -> Option<&Known> {
        self.by_name.get(name)
    }

    /// Whether an answer for the request at this place would be kept.
    pub(super) fn wants(&self, seq: u64) -> bool {
        let known = self.by_seq.get(&seq).and_then(|name| self.by_name.get(name));
        known.is_some_and(|known| known.response.is_none())
    }

    /// A request has a place. The oldest make room.
    pub(super) fn put(&mut self, key: Key, seq: u64, time_ms: u64) {
        let Key { name, digest } = key;
        self.by_seq.insert(seq, name.clone());
        self.by_name.insert(name, Known { seq, digest, time_ms, response: None });
        self.make_room(time_ms);
    }

    /// A site answered: the first counts.
    pub(super) fn answered(&mut self, seq: u64, kept: Kept) {
        let Some(name) = self.by_seq.get(&seq) else { return };
        let Some(known) = self.by_name.get_mut(name) else { return };
        if known.response.is_none() {
            self.bytes += kept.weight();
            let time_ms = known.time_ms;
            known.response = Some(kept);
            self.make_room(time_ms);
        }
    }

    pub(super) fn past(&self, name: &str) -> Past {
        match self.by_name.get(name) {
            None => Past::Never,
            Some(Known { seq, response: None, .. }) => Past::Ordered { seq: *seq },
            Some(Known { seq, response: Some(kept), .. }) => {
                Past::Answered { seq: *seq, status: kept.status() }
            }
        }
    }

    fn make_room(&mut self, now_ms: u64) {
        while let Some((&seq, name)) = self.by_seq.first_key_value() {
            let known = self.by_name.get(name);
            let old = known.is_some_and(|known| known.time_ms + KEPT_MS < now_ms);
            if !old && self.by_name.len() <= KEYS_MAX && self.bytes <= KEPT_BYTES_MAX {
                return;
            }
            if let Some(known) = self.by_name.remove(name) {
                self.bytes -= known.response.as_ref().map_or(0, Kept::weight);
            }
            self.by_seq.remove(&seq);
        }
    }
}

/// As long as the log keeps its own keys: a day of agreed time.
pub(super) const KEPT_MS: u64 = 24 * 60 * 60 * 1_000;

/// Likewise.
const KEYS_MAX: usize = 100_000;

/// They are part of every snapshot.
const KEPT_BYTES_MAX: usize = 32 << 20;
