//! The server behind a site, spoken to by HTTP/1.1 over kept connections.
//!
//! Written for a site's needs, which a general client does not meet: it says whether a request can
//! have been performed ([`Fault`]), takes no body that broke off for a whole one, and never sends an
//! unsafe request twice.

mod address;
mod body;
mod connection;
mod content;
mod form;
mod framing;
mod head;
mod location;
mod perform;
pub(crate) mod policy;
mod switch;

use std::{cell::RefCell, fmt, rc::Rc, sync::Arc, time::Duration};

use bytes::Bytes;
use synod::runtime::world::{Clock, Instant};
use tokio::sync::Semaphore;

use self::connection::Connection;
use crate::{Header, Request, Unperformed};

pub use address::{BadUpstream, UpstreamAddress};
pub use body::Reading;
pub(crate) use content::{Upload, get};
pub use form::HttpForm;
pub(crate) use head::{HOP_BY_HOP, words};
pub(crate) use switch::{Switched, Turned};

/// How a server is spoken to.
#[derive(Debug, Clone)]
pub struct UpstreamOptions {
    /// How long the head of an answer may take, and each further part of it.
    pub patience: Duration,
    /// The most an answer to an ordered request may have; reads have no limit.
    pub answer_bytes_max: usize,
    /// Time.
    pub clock: Arc<dyn Clock>,
}

impl UpstreamOptions {
    /// What fits most servers.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { patience: PATIENCE, answer_bytes_max: ANSWER_BYTES_MAX, clock }
    }
}

/// A server behind a site. Lives on one arbiter; cloning is cheap.
#[derive(Clone)]
pub struct Upstream(Rc<Inner>);

struct Inner {
    address: UpstreamAddress,
    options: UpstreamOptions,
    /// The most lately used last.
    idle: RefCell<Vec<Idle>>,
    /// Reads under way; ordered requests are bounded by their order.
    reads: Arc<Semaphore>,
}

/// A kept connection.
struct Idle {
    connection: Connection,
    since: Instant,
}

/// Why there is no answer, or no whole one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Not a byte of the request left.
    #[error("the server cannot be reached: {0}")]
    NotSent(String),
    /// It broke off, or is no HTTP.
    #[error("the server gave no whole answer: {0}")]
    Lost(String),
    /// Nothing came for so long.
    #[error("the server said nothing for {0:?}")]
    Late(Duration),
}

impl From<Fault> for Unperformed {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::NotSent(why) => Self::NotSent(why),
            Fault::Lost(_) | Fault::Late(_) => Self::Unknown(fault.to_string()),
        }
    }
}

impl Upstream {
    /// The server at `url`. No connection is made before the first request.
    ///
    /// # Errors
    /// What is wrong with `url`, without the key it was under.
    pub fn new(url: &str, options: UpstreamOptions) -> Result<Self, BadUpstream> {
        let (address, reads) = (UpstreamAddress::parse(url)?, Arc::new(Semaphore::new(READS_MAX)));
        Ok(Self(Rc::new(Inner { address, options, idle: RefCell::default(), reads })))
    }

    /// Where it is.
    pub fn address(&self) -> &UpstreamAddress {
        &self.0.address
    }

    /// Sends a safe request; the answer's body is read by whoever gets it. A connection that turns
    /// out to have been closed meanwhile is made again, once.
    ///
    /// # Errors
    /// There is no answer; nothing changed, since safe requests change nothing.
    pub async fn read(&self, request: &Request) -> Result<Reading, Fault> {
        let slot = Arc::clone(&self.0.reads).acquire_owned();
        let slot = tokio::time::timeout(self.0.options.patience, slot).await;
        let busy = || Fault::NotSent("too many reads are under way".to_owned());
        let slot = slot.ok().and_then(Result::ok).ok_or_else(busy)?;
        let bytes = head::write(self.0.address.base(), request, &[]);
        if let Some(mut kept) = self.take() {
            match kept.exchange(request, &bytes, self.0.options.patience).await {
                Ok(head) => {
                    return Ok(Reading::new(self.clone(), request, (kept, head), Some(slot)));
                }
                Err(late @ Fault::Late(_)) => return Err(late),
                Err(Fault::NotSent(_) | Fault::Lost(_)) => {}
            }
        }
        let mut new = Connection::open(self.0.address.authority()).await?;
        let head = new.exchange(request, &bytes, self.0.options.patience).await?;
        Ok(Reading::new(self.clone(), request, (new, head), Some(slot)))
    }

    /// Whether the server answers at all: a `HEAD` of its root, whatever it says to that.
    ///
    /// # Errors
    /// It does not, and why.
    pub async fn is_there(&self) -> Result<(), Fault> {
        let host = Header { name: "host".to_owned(), value: self.0.address.authority().into() };
        let (method, target) = ("HEAD".to_owned(), "/".to_owned());
        let head = Request { method, target, headers: vec![host], body: Bytes::new(), apart: None };
        self.read(&head).await.map(drop)
    }

    /// Sends a request once, whatever becomes of it.
    async fn send_once(
        &self,
        request: &Request,
        more: &[(&str, String)],
    ) -> Result<Reading, Fault> {
        let bytes = head::write(self.0.address.base(), request, more);
        let mut connection = match self.take() {
            Some(kept) => kept,
            None => Connection::open(self.0.address.authority()).await?,
        };
        let head = connection.exchange(request, &bytes, self.0.options.patience).await?;
        Ok(Reading::new(self.clone(), request, (connection, head), None))
    }

    /// A kept connection, if there is a good one.
    fn take(&self) -> Option<Connection> {
        let now = self.0.options.clock.now();
        let mut idle = self.0.idle.borrow_mut();
        // The oldest stand first: all in front of a good one are no better than it.
        let old = |one: &Idle| now.since(one.since) >= IDLE_TIME_MAX;
        let fresh = idle.iter().position(|one| !old(one)).unwrap_or(idle.len());
        drop(idle.drain(..fresh));
        std::iter::from_fn(|| idle.pop()).map(|one| one.connection).find(Connection::is_quiet)
    }

    /// Keeps a connection for the next request.
    fn keep(&self, connection: Connection) {
        let mut idle = self.0.idle.borrow_mut();
        if idle.len() < IDLE_MAX {
            idle.push(Idle { connection, since: self.0.options.clock.now() });
        }
    }

    fn patience(&self) -> Duration {
        self.0.options.patience
    }
}

impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Upstream").field(&self.0.address).finish()
    }
}

/// Longer than honest work takes, shorter than people wait.
const PATIENCE: Duration = Duration::from_secs(30);

/// As much as a request may have.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// Servers in common use hang up after five seconds at the earliest; a request that meets such a
/// farewell on its way would have an unknown outcome.
const IDLE_TIME_MAX: Duration = Duration::from_secs(4);

/// As many as are ever busy at once in steady work; each costs the server a little.
const IDLE_MAX: usize = 64;

/// Each holds a connection to the server, which has a limit of its own (nginx: 512 in its default
/// configuration, half of them for us).
const READS_MAX: usize = 256;

#[cfg(test)]
mod tests;
