//! Telling the others what became of requests here, and noting it.

use std::time::Duration;

use tokio::time::sleep;

use super::{Place, Site};
use crate::order::{Done, Kept, Report, Reported};

/// Tells whatever there is, now and then.
pub(super) async fn report(site: Site) {
    // What the others know of this server; nothing while that is uncertain.
    let mut told = None;
    let mut noted = site.0.clock.now();
    loop {
        site.0.tell.notified().await;
        loop {
            sleep(REPORT_PAUSE).await;
            let Some((epoch, done)) = next(&site, told.as_ref()) else { break };
            let now = site.0.clock.now();
            if now.since(noted) >= NOTE_PAUSE {
                noted = now;
                site.0.notes.keep_lazily(&site.0.facts.get());
            }
            let down = site.0.down.borrow().clone();
            let report = Report { site: site.0.name.clone(), epoch, done, down: down.clone() };
            match site.0.order.send(report).await {
                Ok(Reported { stale: true, .. }) => break,
                Ok(Reported { applied, .. }) => {
                    site.0.untold.borrow_mut().retain(|done| done.seq > applied);
                    told = Some(down);
                }
                Err(why) => {
                    tracing::debug!(%why, "a report was not heard; it is said again");
                    // It may have been: then they know what may not be so any more.
                    told = None;
                    sleep(AGAIN_PAUSE).await;
                }
            }
        }
    }
}

/// The next report, if there is anything to say.
fn next(site: &Site, told: Option<&Option<String>>) -> Option<(u64, Vec<Done>)> {
    let Place::Serving { epoch } = *site.0.place.borrow() else { return None };
    let untold = site.0.untold.borrow();
    if untold.is_empty() && told == Some(&*site.0.down.borrow()) {
        return None;
    }
    let mut bytes = 0;
    let fits = |done: &&Done| {
        let first = bytes == 0;
        bytes += DONE_BYTES + done.response.as_ref().map_or(0, Kept::weight);
        first || bytes <= REPORT_BYTES_MAX
    };
    Some((epoch, untold.iter().take_while(fits).cloned().collect()))
}

/// So long is gathered what is told together: a command for each request would be another write for each.
const REPORT_PAUSE: Duration = Duration::from_millis(20);

/// What the others know, they tell after a crash: the notes need not be fresh.
const NOTE_PAUSE: Duration = Duration::from_millis(200);

/// Between two attempts.
const AGAIN_PAUSE: Duration = Duration::from_millis(200);

/// Well below what fits one command, with one response more.
const REPORT_BYTES_MAX: usize = 1 << 20;

/// What it takes beside its response.
const DONE_BYTES: usize = 150;
