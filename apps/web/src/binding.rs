//! Where the parts of the binding meet: the edge hears clients, the order agrees, the server
//! performs (R5.48). Each is a trait, so that each is tested without the others.

use std::{rc::Rc, time::Duration};

use bytes::Bytes;
use futures_util::future::LocalBoxFuture;
use synod::server::config::RedoPolicy;
pub use synod::server::services::programs::{Feed, Spool as Copy};

use crate::{Request, Response};

/// What the sites agreed on beside the request itself (R5.27): the same at every site.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// Its place among the ordered requests, from 1 without gaps.
    pub seq: u64,
    /// Agreed time, milliseconds since 1970.
    pub time_ms: u64,
    /// Agreed randomness.
    pub seed: u64,
    /// It may have been performed here before: this site crashed between sending and noting.
    pub redo: bool,
}

/// The server behind a site.
pub trait Perform {
    /// Performs an ordered request. Called for one sequence number at a time unless the order knows
    /// that two do not touch one another; never again for a number that was answered.
    ///
    /// # Errors
    /// Says whether the server can have performed it.
    fn perform(
        &self,
        request: Rc<Request>,
        stamp: Stamp,
    ) -> LocalBoxFuture<'_, Result<Response, Unperformed>>;
}

/// The protocol of the servers behind the sites: what a site must know of it to keep them equal.
/// [`upstream`](crate::upstream) is HTTP, [`resp`](crate::resp) is what Redis speaks.
pub trait Form: Perform {
    /// What becomes of a request that may have been performed, when nobody knows (R5.39).
    fn redo(&self, request: &Request) -> RedoPolicy;

    /// What a request touches.
    fn touches(&self, request: &Request) -> Touches;

    /// A digest of what two servers in the same state answer alike (R5.30).
    fn digest(&self, request: &Request, response: &Response) -> String;

    /// Whether it sends a body on as it comes from the disk; otherwise it is given the whole.
    fn streams(&self) -> bool {
        false
    }

    /// Whether its servers keep the number of what they performed last, with their data.
    fn recalls(&self) -> bool {
        false
    }

    /// The number of the last request of the order of that name that the server performed, as it
    /// says itself; 0 is none. What is still with the server when this is asked has no answer.
    ///
    /// # Errors
    /// It does not say so now, and why.
    fn recall(&self, order: u64) -> LocalBoxFuture<'_, Result<u64, String>> {
        Box::pin(std::future::ready(Err(format!("such a server keeps no number of order {order}"))))
    }

    /// Waits until the server is found to have lost something that it answered for.
    fn lost(&self) -> LocalBoxFuture<'_, ()> {
        Box::pin(std::future::pending())
    }
}

/// What a request touches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Touches {
    /// Maybe everything: it is performed alone.
    All,
    /// What is at this path and below: without a slash at its end, in small letters.
    Below(String),
    /// What is said to be apart from all of other keys in the same route, and from nothing else.
    Keyed {
        /// The route, and what its keys are.
        route: String,
        /// In small letters.
        key: Vec<u8>,
    },
    /// Whatever it touches: such servers perform what they are sent in its order.
    InOrder,
}

impl Touches {
    /// Whether the order of the two could show.
    pub fn meets(&self, other: &Self) -> bool {
        let (one, two) = match (self, other) {
            (Self::InOrder, Self::InOrder) => return false,
            (Self::Keyed { route, key }, Self::Keyed { route: of, key: other }) => {
                return route != of || key == other;
            }
            (Self::Below(one), Self::Below(two)) => (one, two),
            (Self::All | Self::Below(_) | Self::Keyed { .. } | Self::InOrder, _) => return true,
        };
        let (short, long) = if one.len() < two.len() { (one, two) } else { (two, one) };
        long.strip_prefix(short.as_str())
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

/// Why a server gave no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unperformed {
    /// Not a byte of the request left: it was certainly not performed.
    #[error("not sent: {0}")]
    NotSent(String),
    /// It was sent, wholly or in part, and no whole answer came.
    #[error("sent, and not answered: {0}")]
    Unknown(String),
    /// The server says that it has performed it; the answer is lost.
    #[error("performed, and its answer is lost")]
    Performed,
    /// The server says that it has performed nothing beyond this number, and was thought to have:
    /// it lost something.
    #[error("the server has performed nothing beyond {0}")]
    Behind(u64),
}

/// Carries all that the server behind a site has, from one site to another (R5.41).
pub trait Carrier {
    /// Has this site's server copied for a rebuild. The server performs nothing meanwhile.
    fn export(&self, id: u64) -> LocalBoxFuture<'_, Result<Rc<dyn Copy>, String>>;

    /// Has this site's server made as a copy of so many bytes is that comes in pieces. Begun anew it
    /// makes up for what came in part before.
    ///
    /// # Errors
    /// Nothing was begun.
    fn import(&self, id: u64, bytes: u64) -> Result<Box<dyn Feed>, String>;

    /// The piece at `offset` of the copy that another site made for a rebuild.
    fn fetch<'a>(
        &'a self,
        from: &'a str,
        id: u64,
        offset: u64,
    ) -> LocalBoxFuture<'a, Result<Bytes, String>>;

    /// How long a copy may take, and taking it in.
    fn within(&self) -> Duration;
}

/// Names a request across its repetitions (R5.34).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Identity {
    /// The client's own `Idempotency-Key`: repeated, it is answered as before.
    Key(String),
    /// Made by the site: this request is never sent again by us.
    Made,
}

/// How much a safe request must see (R5.19).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fresh {
    /// Whatever this site has.
    Local,
    /// At least what was ordered up to this number: the client's session.
    Since(u64),
    /// All that was answered to anybody before it was asked.
    Linearizable,
}

/// The answer to an ordered request.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Its place.
    pub seq: u64,
    /// Of the server at this site; of the site that answered first, when replayed.
    pub response: Response,
    /// Given before, for the same identity.
    pub replayed: bool,
}

/// The agreed order, as the edge of a site sees it.
pub trait Order {
    /// Orders an unsafe request, waits until this site's server performed it and gives its answer.
    ///
    /// # Errors
    /// See [`OrderError`], which says of each kind what became of the request.
    fn perform(
        &self,
        request: Request,
        identity: Identity,
    ) -> LocalBoxFuture<'_, Result<Answer, OrderError>>;

    /// Waits until this site's server has performed what a reader must see, and tells the number of
    /// the last request performed.
    ///
    /// # Errors
    /// The reader must be refused; nothing changed.
    fn fresh(&self, fresh: Fresh) -> LocalBoxFuture<'_, Result<u64, OrderError>>;

    /// What became of the request that a client gave this `Idempotency-Key`.
    ///
    /// # Errors
    /// Nobody can tell now; nothing changed.
    fn outcome<'a>(&'a self, key: &'a str) -> LocalBoxFuture<'a, Result<Past, OrderError>>;

    /// How many ordered requests known here were not performed here yet: what a local read may
    /// miss (R5.44).
    fn behind(&self) -> u64;
}

/// What became of a request that a client named.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Past {
    /// Nothing is known of it: it was not ordered so far, or is forgotten.
    Never,
    /// It was ordered, and is not answered yet.
    Ordered {
        /// Its place.
        seq: u64,
    },
    /// It was ordered and answered.
    Answered {
        /// Its place.
        seq: u64,
        /// What the server answered.
        status: u16,
    },
}

/// Why an ordered request, or a read that needs the order, was not answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OrderError {
    /// No quorum, or too much under way: it was not ordered and never will be.
    #[error("not applied: {0}")]
    NotApplied(String),
    /// It may have been ordered, or may yet be.
    #[error("outcome unknown: {0}")]
    Unknown(String),
    /// The identity was used before, for another request (R5.36).
    #[error("this Idempotency-Key was used for another request")]
    KeyReused,
    /// It was ordered, but this site's server is out of step and may not answer for it.
    #[error("the server behind this site is quarantined: {0}")]
    Quarantined(String),
}
