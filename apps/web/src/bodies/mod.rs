//! Large bodies, apart from the order: two sites keep one on their disks, and the order has its digest
//! and its length only (Lucent's spreading of data to its servers, before what is Microsoft's ordering
//! of requests; T13).
//!
//! - B1: a body's request is given its place once two sites keep the body durably, or the only one there is.
//! - B2: a body stays at a site for as long as the order has it, as far as that site has seen, or
//!   somebody here uses it.
//! - B3: what came of a body counts only if its digest is the one that was ordered.
//!
//! # Layout
//! [`Store`] is a site's disk; [`Courier`] the way to the other sites; the site's own `spread` does the
//! rest.

mod store;
#[cfg(test)]
mod tests;

use std::{fmt, hash, sync::Arc};

use bytes::Bytes;
use futures_util::future::LocalBoxFuture;
use serde::{Deserialize, Serialize};

pub use self::store::{Draft, Held, STORE_BYTES_MAX, Store, Unkept};

/// Names a body that is kept apart. Two are equal if the bodies are, wherever they are kept.
#[derive(Clone, Serialize, Deserialize)]
pub struct Apart {
    /// Its SHA-256, in hexadecimal.
    pub digest: String,
    /// Its length.
    pub bytes: u64,
    /// It, where it is at hand.
    #[serde(skip)]
    pub held: Option<Arc<Held>>,
}

impl PartialEq for Apart {
    fn eq(&self, other: &Self) -> bool {
        (&self.digest, self.bytes) == (&other.digest, other.bytes)
    }
}

impl Eq for Apart {}

impl hash::Hash for Apart {
    fn hash<H: hash::Hasher>(&self, state: &mut H) {
        (&self.digest, self.bytes).hash(state);
    }
}

impl fmt::Debug for Apart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes {}", self.bytes, self.digest.get(..8).unwrap_or_default())
    }
}

/// The way of bodies between sites.
pub trait Courier {
    /// Asks `at` to keep a body that this site has. It fetches that from here, and answers how far it
    /// is: at once when it has all, else after a moment.
    ///
    /// # Errors
    /// It does not, or cannot be reached.
    fn hold<'a>(
        &'a self,
        at: &'a str,
        body: &'a Apart,
    ) -> LocalBoxFuture<'a, Result<Holding, String>>;

    /// What `from` keeps of a body, from `offset` on; none: it does not keep it.
    ///
    /// # Errors
    /// Nobody knows: it cannot be reached, or its disk refuses.
    fn fetch<'a>(
        &'a self,
        from: &'a str,
        body: &'a Apart,
        offset: u64,
    ) -> LocalBoxFuture<'a, Result<Option<Bytes>, String>>;
}

/// How far a site is with a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Holding {
    /// It keeps all of it, durably.
    Whole,
    /// So many bytes came.
    Came(u64),
}

/// Larger bodies are kept apart. Below it, a way to another site and a sync of its own would cost more
/// than they spare the order.
pub const APART_FROM: usize = if cfg!(test) { 3 } else { 1 << 20 };

/// What one message brings of a body, and one call of the disk: it shares the way with the protocol's
/// own.
pub const PIECE_BYTES: usize = if cfg!(test) { 5 } else { 256 << 10 };
