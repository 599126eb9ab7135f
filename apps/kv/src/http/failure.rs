//! Every answer but a good one.

use std::fmt::Display;

use actix_web::{
    HttpResponse,
    http::{StatusCode, header},
};
use serde_json::json;
use synod::replicated::{CallError, Reason};

use crate::limits::VALUE_BYTES_MAX;

/// An error for the client.
#[derive(Debug)]
pub(super) struct Failure {
    status: StatusCode,
    text: String,
    outcome: &'static str,
    /// The version the key has instead of the expected one.
    version: Option<u64>,
}

impl Failure {
    fn not_applied(status: StatusCode, text: impl Display) -> Self {
        let text = text.to_string();
        Self { status, text, outcome: NOT_APPLIED, version: None }
    }

    /// 400.
    pub(super) fn bad_request(text: impl Display) -> Self {
        Self::not_applied(StatusCode::BAD_REQUEST, text)
    }

    /// 404.
    pub(super) fn no_such_key() -> Self {
        Self::not_applied(StatusCode::NOT_FOUND, "no such key")
    }

    /// 412; `version` is the one the key has.
    pub(super) fn precondition(version: Option<u64>) -> Self {
        let text = match version {
            Some(version) => format!("the precondition does not hold: the key has \"{version}\""),
            None => "the precondition does not hold: the key is not there".to_owned(),
        };
        Self { version, ..Self::not_applied(StatusCode::PRECONDITION_FAILED, text) }
    }

    /// 413.
    pub(super) fn too_large() -> Self {
        let text = format!("keys and values have at most {VALUE_BYTES_MAX} bytes");
        Self::not_applied(StatusCode::PAYLOAD_TOO_LARGE, text)
    }

    /// 500: applied, but the reply is not what this version expects.
    pub(super) fn unreadable(error: &impl Display) -> Self {
        let text = format!("the reply cannot be read: {error}");
        let status = StatusCode::INTERNAL_SERVER_ERROR;
        Self { status, text, outcome: "applied", version: None }
    }

    pub(super) fn response(self) -> HttpResponse {
        let mut response = HttpResponse::build(self.status);
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            response.insert_header((header::RETRY_AFTER, RETRY_AFTER_S));
        }
        if let Some(version) = self.version {
            response.insert_header((header::ETAG, format!("\"{version}\"")));
        }
        response.json(json!({ "error": self.text, "outcome": self.outcome }))
    }
}

impl From<CallError> for Failure {
    fn from(error: CallError) -> Self {
        let status = match &error {
            CallError::NotApplied(refusal) => match refusal.reason {
                Reason::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
                Reason::Full => StatusCode::INSUFFICIENT_STORAGE,
                Reason::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
                Reason::NoSuchActor => StatusCode::NOT_FOUND,
                Reason::KeyReused => StatusCode::UNPROCESSABLE_ENTITY,
                Reason::Fenced => StatusCode::PRECONDITION_FAILED,
            },
            CallError::Unknown(_) | CallError::SessionExpired(_) => StatusCode::GATEWAY_TIMEOUT,
            CallError::Failed(_) | CallError::Unreadable { .. } => {
                StatusCode::INTERNAL_SERVER_ERROR
            }
        };
        Self { status, text: error.to_string(), outcome: error.outcome(), version: None }
    }
}

/// The contract's word.
const NOT_APPLIED: &str = "not_applied";

/// Fail-over takes a third of a second, and whole seconds are all this header can say.
const RETRY_AFTER_S: u64 = 1;
