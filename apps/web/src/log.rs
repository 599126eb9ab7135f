//! What clients asked, one line each, for whoever turns that on: at level *debug* of [`TARGET`].
//!
//! No line has a query, a header, a body, a key or what stands behind a command: any of them may let
//! people in.

use std::{net::SocketAddr, sync::Arc};

use synod::runtime::world::{Clock, Instant};
use tracing::Level;

/// What such lines are filtered by.
pub(crate) const TARGET: &str = "synod_web::access";

/// Begins lines.
#[derive(Debug, Clone)]
pub(crate) struct Log(Arc<dyn Clock>);

/// A line that is written once it is known what became of its request.
#[derive(Debug)]
pub(crate) struct Line {
    clock: Arc<dyn Clock>,
    began: Instant,
    pub(crate) client: Option<SocketAddr>,
}

impl Log {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        Self(clock)
    }

    /// Of a request that came; nothing where nobody wants to know.
    pub(crate) fn begin(&self, client: Option<SocketAddr>) -> Option<Line> {
        let wanted = tracing::enabled!(target: TARGET, Level::DEBUG);
        wanted.then(|| Line { clock: Arc::clone(&self.0), began: self.0.now(), client })
    }
}

impl Line {
    /// How long it took, in milliseconds.
    pub(crate) fn ms(&self) -> f64 {
        // Fewer digits than a float has, as people read it.
        self.clock.now().since(self.began).as_micros() as f64 / 1_000.0
    }
}
