//! Large bodies, as the order knows them: which of those that sites keep apart must stay, and those that
//! come piece by piece.

use actix::Handler;
use synod::replicated::Turn;

use super::Web;
use crate::{
    Apart,
    bodies::STORE_BYTES_MAX,
    order::{Announce, Part},
};

impl Web {
    /// Whether a body must stay where it is kept apart (B2).
    pub fn wants(&self, digest: &str) -> bool {
        self.apart.contains_key(digest) || self.uploads.announced(digest)
    }

    /// A request is kept that has this body.
    pub(super) fn holds_on_to(&mut self, body: Option<&Apart>) {
        if let Some(body) = body {
            *self.apart.entry(body.digest.clone()).or_default() += 1;
        }
    }

    /// A request goes that had this body.
    pub(super) fn lets_go_of(&mut self, body: Option<&Apart>) {
        let Some(body) = body else { return };
        if let Some(requests) = self.apart.get_mut(&body.digest) {
            *requests -= 1;
        }
        self.apart.retain(|_, requests| *requests > 0);
    }
}

impl Handler<Announce> for Web {
    type Result = Result<(), String>;

    fn handle(&mut self, announce: Announce, turn: &mut Turn) -> Result<(), String> {
        let Announce { origin, body } = announce;
        self.check(&origin.site, origin.epoch)?;
        self.uploads.expire(turn.time_ms());
        self.uploads.announce(&origin, body, turn.time_ms());
        Ok(())
    }
}

impl Handler<Part> for Web {
    type Result = Result<(), String>;

    fn handle(&mut self, part: Part, turn: &mut Turn) -> Result<(), String> {
        let Part { origin, index, bytes } = part;
        self.check(&origin.site, origin.epoch)?;
        self.uploads.put(&origin, index, bytes, turn.time_ms())
    }
}

/// Bytes of bodies that sites keep apart for requests that wait for a server, on their disks; half of
/// what these keep at most.
pub const BACKLOG_APART_MAX: u64 = STORE_BYTES_MAX / 2;
