//! How long whoever asks over HTTP waits for the answer: `Synod-Timeout: 2s`. What is asked of the
//! cluster on their behalf ends by then, so that they hear what became of it, and *not applied* is not
//! made *unknown* by their hanging up.

use std::{future::Future, time::Duration};

use actix_web::{
    Error, HttpResponse,
    body::{BoxBody, MessageBody},
    dev::{ServiceRequest, ServiceResponse},
    http::header::HeaderMap,
    middleware::Next,
};
use serde_json::json;
use synod_runtime::world::{Clock as _, Instant, RealClock};

use super::config::units;

tokio::task_local! {
    static UNTIL: Instant;
}

/// Says how long they wait, as a duration of the configuration.
pub(crate) const HEADER: &str = "Synod-Timeout";

/// So long, and not longer than whoever asks still waits.
pub(super) fn at_most(own: Duration) -> Duration {
    let left = UNTIL.try_with(|until| until.since(RealClock.now()).max(WAITS_MIN));
    left.map_or(own, |left| own.min(left))
}

/// Serves a request with the patience that it came with.
pub(super) async fn keep(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    match waits(request.headers()) {
        Ok(waits) => {
            let served = during(waits, next.call(request)).await;
            served.map(ServiceResponse::map_into_boxed_body)
        }
        Err(why) => {
            let body = json!({ "error": format!("{HEADER}: {why}"), "outcome": "not_applied" });
            Ok(request.into_response(HttpResponse::BadRequest().json(body)))
        }
    }
}

async fn during<F: Future>(waits: Option<Duration>, work: F) -> F::Output {
    match waits {
        Some(waits) => UNTIL.scope(RealClock.now() + waits, work).await,
        None => work.await,
    }
}

fn waits(headers: &HeaderMap) -> Result<Option<Duration>, String> {
    let Some(value) = headers.get(HEADER) else { return Ok(None) };
    let text = value.to_str().map_err(|error| error.to_string())?;
    units::duration(text).map(|waits| Some(waits.min(WAITS_MAX)))
}

/// Nobody waits longer, and a clock can count it.
const WAITS_MAX: Duration = Duration::from_secs(24 * 3_600);

/// Who does not wait any more still hears what is known at once.
const WAITS_MIN: Duration = Duration::from_millis(1);

#[cfg(test)]
mod tests {
    use actix_web::http::header::{HeaderName, HeaderValue};

    use super::*;

    #[actix_web::test]
    async fn nothing_that_is_asked_for_lasts_longer_than_whoever_asks_waits() {
        let (short, long) = (Duration::from_secs(60), Duration::from_secs(120));
        assert_eq!(at_most(long), long, "nobody said anything");
        let asked = during(Some(short), async { (at_most(long), at_most(short / 2)) });
        let (most, less) = asked.await;
        assert!(most <= short && most > short / 2 && less == short / 2, "{most:?} {less:?}");
        assert_eq!(during(None, async { at_most(long) }).await, long);
        assert_eq!(during(Some(Duration::ZERO), async { at_most(long) }).await, WAITS_MIN);
    }

    #[test]
    fn the_header_is_a_duration_or_refused() {
        let with = |value: &'static str| {
            let mut headers = HeaderMap::new();
            let name = HeaderName::from_static("synod-timeout");
            headers.insert(name, HeaderValue::from_static(value));
            waits(&headers)
        };
        assert_eq!(with("150ms"), Ok(Some(Duration::from_millis(150))));
        assert_eq!(with("99999999h"), Ok(Some(WAITS_MAX)));
        assert!(with("soon").is_err() && with("-1s").is_err() && with("").is_err());
        assert_eq!(waits(&HeaderMap::new()), Ok(None));
    }
}
