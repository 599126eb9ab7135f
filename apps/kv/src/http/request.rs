//! What a request says: key, preconditions, options, body.

use actix_web::{HttpRequest, http::header, http::header::HeaderName, web};
use bytes::Bytes;
use synod::{
    replicated::{BadFence, Consistency, Fence, IdempotencyKey},
    server::config::units,
};

use super::failure::Failure;
use crate::{
    limits::{LIST_KEYS_MAX, VALUE_BYTES_MAX},
    message::{Blob, List, Precondition},
};

/// The key behind `/kv/`, taken from the path as it came: routing decodes only some of it.
pub(super) fn key(request: &HttpRequest) -> Result<Blob, Failure> {
    let path = request.uri().path();
    let encoded = path.find(PREFIX).map(|at| &path[at + PREFIX.len()..]).unwrap_or_default();
    let key = percent_decoded(encoded.as_bytes(), false)
        .ok_or_else(|| Failure::bad_request("the key is not percent-encoded as it should be"))?;
    if key.is_empty() {
        return Err(Failure::bad_request("the key is empty"));
    }
    Ok(Blob(key))
}

/// What `If-Match` and `If-None-Match` ask for.
pub(super) fn precondition(request: &HttpRequest) -> Result<Precondition, Failure> {
    let mut when = Precondition::default();
    match tags(request, &header::IF_MATCH)? {
        Tags::Absent => {}
        Tags::Any => when.exists = true,
        Tags::Versions(versions) => when.versions = Some(versions),
    }
    match tags(request, &header::IF_NONE_MATCH)? {
        Tags::Absent => {}
        Tags::Any => when.missing = true,
        Tags::Versions(versions) => when.versions_not = versions,
    }
    Ok(when)
}

enum Tags {
    Absent,
    Any,
    /// Only what can be a version of ours; other tags are well formed but match nothing.
    Versions(Vec<u64>),
}

fn tags(request: &HttpRequest, name: &HeaderName) -> Result<Tags, Failure> {
    let mut versions = Vec::new();
    let mut absent = true;
    for value in request.headers().get_all(name) {
        absent = false;
        let bad = || Failure::bad_request(format!("{name}: expected * or tags such as \"5\""));
        let value = value.to_str().map_err(|_| bad())?;
        for tag in value.split(',').map(str::trim).filter(|tag| !tag.is_empty()) {
            if tag == "*" {
                return Ok(Tags::Any);
            }
            let quoted = tag.strip_prefix("W/").unwrap_or(tag);
            let text = quoted.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
            versions.extend(text.ok_or_else(bad)?.parse::<u64>().ok());
        }
    }
    Ok(if absent { Tags::Absent } else { Tags::Versions(versions) })
}

/// The `Idempotency-Key`, if there is one.
pub(super) fn idempotency(request: &HttpRequest) -> Result<Option<IdempotencyKey>, Failure> {
    let Some(value) = request.headers().get(IDEMPOTENCY_HEADER) else { return Ok(None) };
    let bad = |why: String| Failure::bad_request(format!("{IDEMPOTENCY_HEADER}: {why}"));
    let key = value.to_str().map_err(|error| bad(error.to_string()))?;
    IdempotencyKey::new(key).map(Some).map_err(|error| bad(error.to_string()))
}

/// `Synod-Fence: ROLE EPOCH`: in whose name it is written.
pub(super) fn fence(request: &HttpRequest) -> Result<Option<Fence>, Failure> {
    let Some(value) = request.headers().get(FENCE_HEADER) else { return Ok(None) };
    let fence = value.to_str().ok().and_then(|text| Fence::parse(text).ok());
    let bad = || Failure::bad_request(format!("{FENCE_HEADER}: {BadFence}"));
    fence.map(Some).ok_or_else(bad)
}

/// The whole body, as far as a value may go.
pub(super) async fn body(payload: web::Payload) -> Result<Bytes, Failure> {
    match payload.to_bytes_limited(VALUE_BYTES_MAX).await {
        Ok(Ok(body)) => Ok(body),
        Ok(Err(error)) => Err(Failure::bad_request(format!("the body broke off: {error}"))),
        Err(_) => Err(Failure::too_large()),
    }
}

/// `?consistency=` or `?bounded=`.
pub(super) fn consistency(request: &HttpRequest) -> Result<Consistency, Failure> {
    let mut consistency = Consistency::Linearizable;
    for (name, value) in options(request)? {
        if name == "consistency" {
            consistency = consistency_of(&value)?;
        } else if name == "bounded" {
            consistency = bounded(&value)?;
        }
    }
    Ok(consistency)
}

/// A question for keys.
#[derive(Debug)]
pub(super) struct Listing {
    pub(super) list: List,
    pub(super) consistency: Consistency,
}

/// `?prefix=&limit=&after=&consistency=` or `&bounded=`.
pub(super) fn listing(request: &HttpRequest) -> Result<Listing, Failure> {
    let mut listing = Listing { list: List::default(), consistency: Consistency::Linearizable };
    for (name, value) in options(request)? {
        match name.as_str() {
            "prefix" => listing.list.prefix = Blob(value),
            "after" => listing.list.after = Some(Blob(value)),
            "limit" => {
                let limit = std::str::from_utf8(&value).ok().and_then(|text| text.parse().ok());
                // A page of none could not say where the next begins. More than there may be are as
                // many as there may be.
                let limit = limit.filter(|limit| *limit > 0);
                let bad = || {
                    let text =
                        format!("limit: expected a number of keys, from 1 to {LIST_KEYS_MAX}");
                    Failure::bad_request(text)
                };
                listing.list.limit = Some(limit.ok_or_else(bad)?);
            }
            "consistency" => listing.consistency = consistency_of(&value)?,
            "bounded" => listing.consistency = bounded(&value)?,
            other => {
                let text = format!(
                    "unknown option {other:?}; there are prefix, limit, after, consistency and \
                     bounded"
                );
                return Err(Failure::bad_request(text));
            }
        }
    }
    Ok(listing)
}

/// How old the state may be that a read sees.
fn bounded(value: &[u8]) -> Result<Consistency, Failure> {
    let text = String::from_utf8_lossy(value);
    let age = units::duration(&text);
    age.map(Consistency::Bounded).map_err(|why| Failure::bad_request(format!("bounded: {why}")))
}

fn consistency_of(value: &[u8]) -> Result<Consistency, Failure> {
    match value {
        b"linearizable" => Ok(Consistency::Linearizable),
        b"local" => Ok(Consistency::Local),
        other => Err(Failure::bad_request(format!(
            "consistency: expected \"linearizable\" or \"local\", found \"{}\"",
            other.escape_ascii()
        ))),
    }
}

/// The options behind the question mark. Their values may be any bytes, as keys may.
fn options(request: &HttpRequest) -> Result<Vec<(String, Bytes)>, Failure> {
    let pairs = request.query_string().split('&').filter(|pair| !pair.is_empty());
    let decoded = pairs.map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let name = percent_decoded(name.as_bytes(), true)?;
        let name = String::from_utf8(name.to_vec()).ok()?;
        Some((name, percent_decoded(value.as_bytes(), true)?))
    });
    let bad = || Failure::bad_request("the query is not percent-encoded as it should be");
    decoded.collect::<Option<Vec<_>>>().ok_or_else(bad)
}

/// None when a percent sign is not followed by two hexadecimal digits. In a query a plus is a space.
fn percent_decoded(mut text: &[u8], plus_is_space: bool) -> Option<Bytes> {
    let mut bytes = Vec::with_capacity(text.len());
    while let [byte, rest @ ..] = text {
        text = rest;
        bytes.push(match byte {
            b'%' => {
                let [high, low, rest @ ..] = rest else { return None };
                text = rest;
                let digit = |byte: &u8| char::from(*byte).to_digit(16);
                u8::try_from(digit(high)? << 4 | digit(low)?).ok()?
            }
            b'+' if plus_is_space => b' ',
            byte => *byte,
        });
    }
    Some(bytes.into())
}

/// The form that [`percent_decoded`] reads back.
pub(super) fn percent_encoded(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("%{byte:02X}")).collect()
}

/// Where the routes are.
const PREFIX: &str = "/kv/";

/// Makes a repeated request replay its first answer.
const IDEMPOTENCY_HEADER: &str = "Idempotency-Key";

/// Names the role and the epoch that a command is written in.
const FENCE_HEADER: &str = "Synod-Fence";
