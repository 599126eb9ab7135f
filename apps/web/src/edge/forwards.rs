//! `Max-Forwards`: how far TRACE and OPTIONS go (RFC 9110, 7.6.2).

use actix_http::{
    Method, RequestHead, Response, StatusCode,
    body::BoxBody,
    header::{HeaderValue, MAX_FORWARDS},
};

use super::answer::Refusal;

/// Counts this site as one of those on the way; answers a request that goes no further.
///
/// # Errors
/// What is there is no number, or a TRACE ends here: a site repeats nothing that may let people in.
pub(super) fn step(head: &mut RequestHead) -> Result<Option<Response<BoxBody>>, Refusal> {
    if !matches!(head.method, Method::OPTIONS | Method::TRACE) {
        return Ok(None);
    }
    let Some(left) = head.headers.get(MAX_FORWARDS) else { return Ok(None) };
    let left = left.to_str().ok().and_then(|left| left.trim().parse::<u32>().ok());
    let left = left.ok_or_else(|| Refusal::bad("Max-Forwards: it is a number"))?;
    match left.checked_sub(1) {
        Some(left) => {
            head.headers.insert(MAX_FORWARDS, HeaderValue::from(left));
            Ok(None)
        }
        None if head.method == Method::OPTIONS => {
            Ok(Some(Response::with_body(StatusCode::NO_CONTENT, BoxBody::new(()))))
        }
        None => Err(Refusal::new(StatusCode::NOT_IMPLEMENTED, "a site answers no TRACE itself")),
    }
}
