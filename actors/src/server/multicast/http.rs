//! `/multicast`: groups for programs outside the cluster.
//!
//! A publisher outside keeps numbers and stamps itself, so that it may go on at any node: it sends
//! the same messages again wherever it likes, and each gets one number. Bodies are MessagePack; a
//! subscription is a stream of frames, each a length (four bytes, the lowest first) and a [`Feed`].

use std::time::Duration;

use actix_web::{HttpResponse, ResponseError, http::StatusCode, web};
use bytes::Bytes;
use futures_util::stream;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{
    super::http::looked_at, AskFailed, CallFailed, Collected, From, Multicast, MulticastError,
    Subscription,
};
use crate::multicast::{
    data_server::PAYLOAD_BYTES_MAX,
    message::{Data, Entry, Mid, Outcome, PAIR_BYTES, Seq},
};

/// The body of `POST /multicast/GROUP`.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Publish {
    /// How long to wait for numbers.
    pub(crate) patience_ms: u64,
    /// The messages; none: only to learn the stamp of the next.
    pub(crate) messages: Vec<Data>,
}

/// Its answer.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Published {
    /// The largest number that the node knows committed: the stamp of what is sent next.
    pub(crate) largest: Seq,
    /// What became of the messages; nothing: not known in time.
    pub(crate) messages: Vec<(Mid, Outcome)>,
}

/// One frame of a subscription.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Feed {
    /// Nothing new; the first frame, and every second: the next number is this.
    Next(Seq),
    /// The next ones.
    Entries(Vec<Entry>),
    /// The next one is no longer kept; the oldest that is. The last frame.
    Collected(Seq),
}

/// Adds the routes.
pub(in crate::server) fn configure(routes: &mut web::ServiceConfig, multicast: Multicast) {
    routes
        .app_data(web::Data::new(multicast))
        .route("/multicast", looked_at().to(status))
        .route("/multicast/{group}", web::post().to(publish))
        .route("/multicast/{group}", web::get().to(subscribe));
}

async fn status(multicast: web::Data<Multicast>) -> HttpResponse {
    HttpResponse::Ok().json(json!({ "groups": multicast.status() }))
}

async fn publish(
    multicast: web::Data<Multicast>,
    group: web::Path<String>,
    payload: web::Payload,
) -> HttpResponse {
    let Ok(Ok(body)) = payload.to_bytes_limited(BODY_BYTES_MAX).await else {
        return refuse(StatusCode::PAYLOAD_TOO_LARGE, "the body is too large, or broke off");
    };
    let Ok(Publish { patience_ms, messages }) = rmp_serde::from_slice(&body) else {
        return refuse(StatusCode::BAD_REQUEST, "the body is no publication");
    };
    if messages.iter().any(|data| data.payload.len() > PAYLOAD_BYTES_MAX) {
        let why = format!("a message is larger than {PAYLOAD_BYTES_MAX} bytes");
        return refuse(StatusCode::PAYLOAD_TOO_LARGE, &why);
    }
    if multicast.is_hosted(&group) {
        let why = "this group orders a state machine: only that may publish to it";
        return refuse(StatusCode::FORBIDDEN, why);
    }
    let joined = match multicast.group(&group).await {
        Ok(joined) => joined,
        Err(error) => return error.error_response(),
    };
    let patience = Duration::from_millis(patience_ms).min(PATIENCE_MAX);
    let messages = match joined.send(messages, patience).await {
        Ok(messages) => messages,
        Err(failed @ CallFailed::Overloaded) => return failed.error_response(),
        Err(CallFailed::Unknown | CallFailed::Expired) => Vec::new(),
    };
    let published = Published { largest: joined.largest(), messages };
    let body = rmp_serde::to_vec(&published).expect("plain data encodes");
    HttpResponse::Ok().content_type("application/msgpack").body(body)
}

/// What stands behind `GET /multicast/GROUP?`.
#[derive(Debug, Deserialize)]
struct Asked {
    from: Option<String>,
}

impl Asked {
    fn from(&self) -> Result<From, String> {
        match self.from.as_deref() {
            None | Some("now") => Ok(From::Now),
            Some("checkpoint") => Ok(From::Checkpoint),
            Some(number) => {
                let number = number.parse::<u64>().ok().filter(|number| *number > 0);
                let bad = || format!("from={:?} is not now, checkpoint or a number", self.from);
                number.map(|number| From::Seq(Seq(number))).ok_or_else(bad)
            }
        }
    }
}

async fn subscribe(
    multicast: web::Data<Multicast>,
    group: web::Path<String>,
    asked: web::Query<Asked>,
) -> HttpResponse {
    let from = match asked.from() {
        Ok(from) => from,
        Err(why) => return refuse(StatusCode::BAD_REQUEST, &why),
    };
    let joined = match multicast.group(&group).await {
        Ok(joined) => joined,
        Err(error) => return error.error_response(),
    };
    joined.caught_up().await;
    match joined.subscribe(from) {
        Ok(subscription) => {
            let first = frame(&Feed::Next(subscription.next_number()));
            let frames = stream::unfold((Some(subscription), Some(first)), next_frame);
            HttpResponse::Ok().content_type("application/octet-stream").streaming(frames)
        }
        Err(collected) => {
            let body = json!({
                "error": collected.to_string(), "oldest": collected.oldest,
                "outcome": "not_applied",
            });
            HttpResponse::Gone().json(body)
        }
    }
}

type Frames = (Option<Subscription>, Option<Bytes>);

async fn next_frame((subscription, first): Frames) -> Option<(std::io::Result<Bytes>, Frames)> {
    let mut subscription = subscription?;
    if let Some(first) = first {
        return Some((Ok(first), (Some(subscription), None)));
    }
    let feed = match tokio::time::timeout(SIGN_EVERY, subscription.next()).await {
        Ok(Ok(entries)) => Feed::Entries(entries),
        Ok(Err(Collected { oldest })) => {
            return Some((Ok(frame(&Feed::Collected(oldest))), (None, None)));
        }
        // So that whoever listens sees that this node lives.
        Err(_quiet) => Feed::Next(subscription.next_number()),
    };
    Some((Ok(frame(&feed)), (Some(subscription), None)))
}

fn frame(feed: &Feed) -> Bytes {
    let said = match feed {
        Feed::Entries(entries) => entries.iter().map(|one| one.payload.len() + PAIR_BYTES).sum(),
        Feed::Next(_) | Feed::Collected(_) => PAIR_BYTES,
    };
    let mut frame = Vec::with_capacity(LENGTH_BYTES + PAIR_BYTES + said);
    frame.extend_from_slice(&[0; LENGTH_BYTES]);
    rmp_serde::encode::write(&mut frame, feed).expect("plain data encodes");
    let len = u32::try_from(frame.len() - LENGTH_BYTES).expect("bounded by what a shelf answers");
    frame[..LENGTH_BYTES].copy_from_slice(&len.to_le_bytes());
    frame.into()
}

impl ResponseError for MulticastError {
    fn error_response(&self) -> HttpResponse {
        let status = match self {
            Self::Group(_) => StatusCode::BAD_REQUEST,
            Self::Call(_) | Self::Failed(_) => StatusCode::SERVICE_UNAVAILABLE,
        };
        refuse(status, &self.to_string())
    }
}

impl ResponseError for CallFailed {
    fn error_response(&self) -> HttpResponse {
        let outcome = match self {
            Self::Overloaded | Self::Expired => "not_applied",
            Self::Unknown => "unknown",
        };
        let why = json!({ "error": self.to_string(), "outcome": outcome });
        HttpResponse::ServiceUnavailable().json(why)
    }
}

impl ResponseError for AskFailed {
    fn error_response(&self) -> HttpResponse {
        let status = match self {
            Self::Bad(_) => StatusCode::BAD_REQUEST,
            Self::Overloaded | Self::Late => StatusCode::SERVICE_UNAVAILABLE,
        };
        refuse(status, &self.to_string())
    }
}

fn refuse(status: StatusCode, why: &str) -> HttpResponse {
    HttpResponse::build(status).json(json!({ "error": why, "outcome": "not_applied" }))
}

/// Before each frame.
const LENGTH_BYTES: usize = size_of::<u32>();

/// Messages of one request and what wraps them.
const BODY_BYTES_MAX: usize = 8 << 20;

/// A publisher that wants to wait for longer asks again.
const PATIENCE_MAX: Duration = Duration::from_secs(30);

/// A subscriber that hears nothing for some of these looks for another node.
pub(crate) const SIGN_EVERY: Duration = Duration::from_millis(500);
