//! Work that begins anew when it panics: a bug that one request meets does not take a site's port
//! from all others.

use std::{any::Any, panic::AssertUnwindSafe, time::Duration};

use futures_util::FutureExt as _;
use synod::runtime::telemetry::{ACTOR_RESTARTS, Counter, Metrics};
use tokio::time::sleep;

/// Does `work`, over and over while it panics; `told` hears why each time.
pub(crate) async fn tireless(restarts: Counter, mut work: impl AsyncFnMut(), told: impl Fn(&str)) {
    while let Err(panic) = AssertUnwindSafe(work()).catch_unwind().await {
        let why = text(&*panic);
        tracing::error!(why, "a part of the web binding panicked; it begins anew");
        told(why);
        restarts.increment();
        sleep(PAUSE).await;
    }
}

/// How often a part of the binding began anew.
pub(crate) fn restarts(metrics: &Metrics, part: &str) -> Counter {
    metrics.counter(&ACTOR_RESTARTS, &[("actor", part)])
}

fn text(panic: &(dyn Any + Send)) -> &str {
    let owned = panic.downcast_ref::<String>().map(String::as_str);
    let fixed = || panic.downcast_ref::<&str>().copied();
    owned.or_else(fixed).unwrap_or("without a text")
}

/// Soon, since clients wait; but what panics again and again is not to fill the log.
const PAUSE: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_panics_begins_anew_until_it_ends_well() {
        let (turns, said) = (Cell::new(0), Cell::new(0));
        let metrics = Metrics::new();
        let work = async || {
            turns.set(turns.get() + 1);
            sleep(PAUSE).await;
            match turns.get() {
                1 => panic!("a fixed text"),
                2 => panic!("{}", format_args!("turn {}", turns.get())),
                _ => {}
            }
        };
        let told = |why: &str| {
            said.set(said.get() + usize::from(["a fixed text", "turn 2"].contains(&why)));
        };
        tireless(restarts(&metrics, "web/test"), work, told).await;
        assert_eq!((turns.get(), said.get()), (3, 2));
        let shown = metrics.render();
        assert!(shown.contains("synod_actor_restarts_total{actor=\"web/test\"} 2"), "{shown}");
    }
}
