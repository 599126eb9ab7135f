//! One request at the server behind a site, as often as it may be sent.

use std::{rc::Rc, sync::Arc};

use synod::server::config::RedoPolicy;
use tokio::time::sleep;

use super::{
    Site,
    live::{PAUSE_MAX, PAUSE_MIN},
};
use crate::{
    Request, Response, Stamp, Unperformed,
    order::Step,
    slip::{self, Slip},
};

/// How a request ended at the server.
pub(super) enum Ended {
    Answered {
        response: Response,
        redone: bool,
    },
    Lost(String),
    /// It was performed, in an earlier life perhaps; the answer is lost.
    Performed,
    /// The server lost what it had performed.
    Behind(u64),
}

/// Asks the server, until that is known to have answered or must not be asked again.
pub(super) async fn perform(
    site: &Site,
    step: Arc<Step>,
    redone: bool,
    policy: RedoPolicy,
) -> (Arc<Step>, Ended) {
    let Some(request) = whole(site, &step).await else {
        let why = "no site keeps its body any more".to_owned();
        return (step, Ended::Lost(why));
    };
    let request = Rc::new(request);
    let Step { seq, time_ms, seed, .. } = *step;
    let mut stamp = Stamp { seq, time_ms, seed, redo: redone };
    let mut pause = PAUSE_MIN;
    loop {
        let started = site.0.clock.now();
        let why = match site.0.server.perform(Rc::clone(&request), stamp).await {
            Ok(response) => {
                site.performed(started);
                site.set_down(None);
                return (step, Ended::Answered { response, redone: stamp.redo });
            }
            Err(Unperformed::Performed) => return (step, Ended::Performed),
            Err(Unperformed::Behind(performed)) => return (step, Ended::Behind(performed)),
            Err(Unperformed::NotSent(why)) => why,
            Err(Unperformed::Unknown(why))
                if policy == RedoPolicy::Rebuild && !slip::is(Slip::RetriesUnsafe) =>
            {
                return (step, Ended::Lost(why));
            }
            Err(Unperformed::Unknown(why)) => {
                stamp.redo = true;
                why
            }
        };
        site.set_down(Some(why));
        sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// The request of a step, with its body. None when no site keeps that any more.
async fn whole(site: &Site, step: &Step) -> Option<Request> {
    let mut request = step.whole();
    while let Some(body) = &request.apart {
        let body = site.body_of(step, body).await?;
        if site.0.server.streams() {
            request.apart = Some(body);
            break;
        }
        let Some(held) = body.held else { continue };
        match held.up_to(0, usize::MAX).await {
            Ok(bytes) => (request.body, request.apart) = (bytes, None),
            Err(why) => {
                tracing::warn!(seq = step.seq, %why, "a body cannot be read; once more");
                sleep(PAUSE_MAX).await;
            }
        }
    }
    Some(request)
}
