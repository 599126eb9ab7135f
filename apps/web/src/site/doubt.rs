//! What a server failed of another site's requests: whether it did better there is known a moment later.
//!
//! - S7: a site whose server failed what another site's client asked for answers nobody from it until
//!   the others have said what became of it there, or have been silent for long: it may have been
//!   acknowledged, and be missing here.

use std::time::Duration;

use synod::runtime::world::Instant;
use tokio::time::timeout;

use super::{Site, rebuild::wait};
use crate::{
    OrderError,
    order::Web,
    slip::{self, Slip},
};

/// What may have been performed elsewhere, and when it failed here.
#[derive(Debug, Clone, Copy)]
pub(super) struct Doubt {
    seq: u64,
    since: Instant,
}

impl Site {
    /// The server failed this, or may have.
    pub(super) fn doubt(&self, seq: u64) {
        // Side by side they end in any order.
        let seq = seq.max(self.0.doubt.get().map_or(0, |before| before.seq));
        self.0.doubt.set(Some(Doubt { seq, since: self.0.clock.now() }));
    }

    /// Waits until it is known what became elsewhere of all that failed here (S7).
    ///
    /// # Errors
    /// It was performed there: this site is sent away for it.
    pub(super) async fn judged(&self) -> Result<(), OrderError> {
        let doubt = self.0.doubt.get().filter(|_| !slip::is(Slip::AnswersInDoubt));
        let Some(Doubt { seq, since }) = doubt else { return Ok(()) };
        let look = |web: &Web| {
            let Some(me) = web.sites().get(&self.0.name) else { return Judged::Away };
            match web.settled() >= seq {
                _ if me.quarantined().is_some() => Judged::Away,
                true => Judged::Good,
                false if me.applied >= seq => Judged::Heard,
                false => Judged::Unheard,
            }
        };
        let judged = wait(self, |web| {
            Some(look(web)).filter(|now| match now {
                Judged::Away | Judged::Good => true,
                // Who was silent for so long is not waited for once more.
                Judged::Heard => self.0.silent.get() == Some(web.settled()),
                Judged::Unheard => false,
            })
        });
        let left = DOUBT_MAX.saturating_sub(self.0.clock.now().since(since));
        let judged = timeout(left, judged).await.ok();
        match judged.or_else(|| self.0.desk.read(look)) {
            Some(Judged::Good) => Ok(()),
            Some(Judged::Heard) => {
                self.0.silent.set(self.0.desk.read(Web::settled));
                Ok(())
            }
            Some(Judged::Away | Judged::Unheard) | None => {
                let why = format!("the server behind this site failed request {seq}");
                Err(OrderError::NotApplied(why))
            }
        }
    }
}

/// What became of what failed here.
enum Judged {
    /// This site is sent away for it.
    Away,
    /// It failed everywhere.
    Good,
    /// The others know of it, and have not said how it was there.
    Heard,
    /// They do not know.
    Unheard,
}

/// Longer than others take to say it, with a fail-over between: who says nothing for so long has died, and
/// this site is the one that is left.
const DOUBT_MAX: Duration = Duration::from_secs(5);
