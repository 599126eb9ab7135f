//! What clients are told: the server's own answers, and ours where there is none.

use actix_http::{
    Response, StatusCode,
    body::{BodyStream, BoxBody, MessageBody as _, SizedStream},
    header::{
        ALLOW, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER,
    },
};
use bytes::Bytes;
use futures_util::stream;
use serde_json::{Value, json};

use crate::{Header, OrderError, Past, upstream::Fault, upstream::Reading};

/// A request that is not asked of the server, or has no answer of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    text: String,
    /// In the contract's words.
    outcome: &'static str,
}

impl Refusal {
    /// Nothing was changed.
    pub(super) fn new(status: StatusCode, text: impl Into<String>) -> Self {
        Self { status, text: text.into(), outcome: NOT_APPLIED }
    }

    /// 400.
    pub(super) fn bad(text: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, text)
    }

    /// 413.
    pub(super) fn too_large(most: u64) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, format!("a body has at most {most} bytes here"))
    }

    /// 504: it may have been ordered, or may yet be.
    pub(super) fn unknown(text: impl Into<String>) -> Self {
        let status = StatusCode::GATEWAY_TIMEOUT;
        Self { status, text: text.into(), outcome: "unknown" }
    }

    /// Why an ordered request was not answered.
    pub(super) fn of_order(error: &OrderError) -> Self {
        let text = error.to_string();
        match error {
            OrderError::NotApplied(_) => Self::new(StatusCode::SERVICE_UNAVAILABLE, text),
            OrderError::Unknown(_) => Self::unknown(text),
            OrderError::KeyReused => Self::new(StatusCode::UNPROCESSABLE_ENTITY, text),
            OrderError::Quarantined(_) => {
                Self { status: StatusCode::BAD_GATEWAY, text, outcome: "applied" }
            }
        }
    }

    /// Why a read was not answered; whatever it is, reading changed nothing.
    pub(super) fn of_read(error: &OrderError) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string())
    }

    pub(super) fn response(self) -> Response<BoxBody> {
        let body = json!({ "error": self.text, "outcome": self.outcome });
        let mut response = document(self.status, &body);
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER_S));
        }
        if self.status == StatusCode::METHOD_NOT_ALLOWED {
            // What is here beside the server's own is only read.
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        }
        response
    }
}

impl From<&Fault> for Refusal {
    fn from(fault: &Fault) -> Self {
        let status = match fault {
            Fault::NotSent(_) | Fault::Lost(_) => StatusCode::BAD_GATEWAY,
            Fault::Late(_) => StatusCode::GATEWAY_TIMEOUT,
        };
        Self::new(status, fault.to_string())
    }
}

/// What became of a request that a client named.
pub(super) fn outcome(past: Past) -> Response<BoxBody> {
    let (outcome, position, status) = match past {
        // It may be on its way: only what was never sent anywhere is not applied.
        Past::Never => ("unknown", None, None),
        Past::Ordered { seq } => ("applied", Some(seq), None),
        Past::Answered { seq, status } => ("applied", Some(seq), Some(status)),
    };
    let body = json!({ "outcome": outcome, "position": position, "status": status });
    document(StatusCode::OK, &body)
}

/// That a site serves, and how far it is.
pub(super) fn ready(applied: u64) -> Response<BoxBody> {
    document(StatusCode::OK, &json!({ "ready": true, "applied": applied }))
}

/// A server's answer that is at hand.
pub(super) fn whole(answer: crate::Response, is_head: bool) -> Response<BoxBody> {
    let crate::Response { status, headers, body } = answer;
    let length = headers.iter().find(|header| header.name == "content-length");
    let length = length.and_then(|length| std::str::from_utf8(&length.value).ok()?.parse().ok());
    match length.filter(|_| is_head) {
        Some(length) => build(status, &headers, bodiless(length)),
        None if is_head => build(status, &headers, BoxBody::new(())),
        None => build(status, &headers, body.boxed()),
    }
}

/// A server's answer whose body passes through.
pub(super) fn passing(reading: Reading, is_head: bool) -> Response<BoxBody> {
    let (status, length) = (reading.status, reading.length);
    let headers = reading.headers.clone();
    let empty = is_head || matches!(status, 204 | 304);
    let body = match length {
        Some(length) if is_head => bodiless(length),
        _ if empty => BoxBody::new(()),
        Some(length) => SizedStream::new(length, Box::pin(reading.parts())).boxed(),
        None => BodyStream::new(Box::pin(reading.parts())).boxed(),
    };
    let mut response = build(status, &headers, body);
    if let Some(length) = length.filter(|_| status == 304) {
        response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    response
}

/// What a server answered that speaks another protocol behind its head.
pub(super) fn passed(status: u16, headers: &[Header], body: BoxBody) -> Response<BoxBody> {
    build(status, headers, body)
}

/// Says how long a body would be, and has none.
fn bodiless(length: u64) -> BoxBody {
    SizedStream::new(length, stream::empty::<Result<Bytes, Fault>>()).boxed()
}

fn build(status: u16, headers: &[Header], body: BoxBody) -> Response<BoxBody> {
    // Both come from a reader of HTTP, so they are ones.
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
    let mut response = Response::with_body(status, body);
    for Header { name, value } in headers {
        let name = HeaderName::from_bytes(name.as_bytes());
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(value)) {
            response.headers_mut().append(name, value);
        }
    }
    response
}

/// Adds a header of ours.
pub(super) fn tell(headers: &mut HeaderMap, name: &'static str, value: &str) {
    // All are digits and fixed words.
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.append(HeaderName::from_static(name), value);
    }
}

fn document(status: StatusCode, body: &Value) -> Response<BoxBody> {
    let mut response = Response::with_body(status, body.to_string().boxed());
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, json);
    response
}

/// The contract's word.
const NOT_APPLIED: &str = "not_applied";

/// Fail-over takes a third of a second, and whole seconds are all this header can say.
const RETRY_AFTER_S: &str = "1";
