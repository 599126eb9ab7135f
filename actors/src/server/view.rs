//! Everything a node knows of itself and its cluster in one document, for people who watch: once
//! (`GET /view`) and again every second (`GET /events`, server-sent events).
//!
//! Counters are totals since the node started; whoever watches takes differences.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use actix_web::{HttpResponse, http::header, web};
use bytes::Bytes;
use futures_util::stream::{self, Stream};
use serde_json::{Value, json};
use synod_runtime::telemetry::BUCKETS;

use super::{http::Looks, stop::StopSignal};

/// Between two events: fast enough for people, nothing beside a node's work.
const EVENT_EVERY: Duration = Duration::from_secs(1);

/// Watchers at one node; each costs a small document a second.
const WATCHERS_MAX: usize = 64;

/// Who watches a node's events, and when they must end.
#[derive(Debug, Clone)]
pub(super) struct Watchers {
    count: Arc<AtomicUsize>,
    pub(super) stop: StopSignal,
}

impl Watchers {
    pub(super) fn new(stop: StopSignal) -> Self {
        Self { count: Arc::default(), stop }
    }

    pub(super) fn enter(&self) -> Option<Watching> {
        let watching = Watching(Arc::clone(&self.count));
        (self.count.fetch_add(1, Relaxed) < WATCHERS_MAX).then_some(watching)
    }
}

/// One of [`Watchers`], until dropped.
pub(super) struct Watching(Arc<AtomicUsize>);

impl Drop for Watching {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

pub(super) async fn view(looks: web::Data<Looks>) -> HttpResponse {
    HttpResponse::Ok().json(document(&looks))
}

pub(super) async fn events(looks: web::Data<Looks>, watchers: web::Data<Watchers>) -> HttpResponse {
    let Some(watching) = watchers.enter() else { return full() };
    sent(feed(looks, watching, watchers.stop.clone()))
}

/// A response of server-sent events.
pub(super) fn sent(
    events: impl Stream<Item = Result<Bytes, Infallible>> + 'static,
) -> HttpResponse {
    HttpResponse::Ok()
        .content_type("text/event-stream")
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .streaming(events)
}

/// Begins the events of whoever waits for changes, so that it knows at once that it does; and how soon
/// to come back.
pub(super) const BEGIN: &[u8] = b"retry: 200\n\n";

/// Said when there was nothing for [`ALIVE_EVERY`]: a proxy between here and there would take silence
/// for an end.
pub(super) const ALIVE: &[u8] = b": alive\n\n";

/// How long nothing may be said.
pub(super) const ALIVE_EVERY: Duration = Duration::from_secs(10);

/// The answer to one too many.
pub(super) fn full() -> HttpResponse {
    let why = format!("{WATCHERS_MAX} watch this node already; ask another one\n");
    HttpResponse::ServiceUnavailable().body(why)
}

/// One event at once, then one every second until the node stops or the watcher leaves.
fn feed(
    looks: web::Data<Looks>,
    watching: Watching,
    stop: StopSignal,
) -> impl Stream<Item = Result<Bytes, Infallible>> {
    stream::unfold((true, stop, watching), move |(first, mut stop, watching)| {
        let looks = looks.clone();
        async move {
            if !first {
                tokio::select! {
                    biased;
                    () = stop.stopped() => return None,
                    () = tokio::time::sleep(EVENT_EVERY) => {}
                }
            }
            let event = format!("event: view\ndata: {}\n\n", document(&looks));
            Some((Ok(Bytes::from(event)), (false, stop, watching)))
        }
    })
}

/// The document.
fn document(looks: &Looks) -> Value {
    let Looks { node, board, .. } = looks;
    let links = node.links().peers().into_iter().map(|peer| {
        json!({
            "peer": peer.name,
            "address": peer.address,
            "up": peer.connected.is_some(),
            "incarnation": peer.connected.map(|id| id.incarnation.to_string()),
            "error": peer.last_error,
            "bytes_in": peer.bytes_in,
            "bytes_out": peer.bytes_out,
            "frames_in": peer.frames_in,
            "frames_out": peer.frames_out,
            "frames_bad": peer.frames_bad,
        })
    });
    json!({
        "answered_by": node.name(),
        "at_ms": node.clock().wall_ms(),
        "status": board.status(),
        "links": links.collect::<Vec<_>>(),
        "actors": node.registry(),
        "metrics": node.metrics().readings(),
        "buckets": BUCKETS,
    })
}
