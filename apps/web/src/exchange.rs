//! Requests and responses as they are ordered, performed and compared: plain data, the same bytes
//! at every site.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::Apart;

/// One field of a header: its name in lower case, its value as it came.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Header {
    /// In lower case.
    pub name: String,
    /// Without white space around it. Bytes, since HTTP allows more than text.
    #[serde(with = "serde_bytes")]
    pub value: Vec<u8>,
}

impl Header {
    /// Whether it has this name. Servers that hand headers on as variables take an underscore for a dash
    /// (RFC 3875, 4.1.18), so whoever is careful with one is with the other.
    pub(crate) fn is_named(&self, name: &str) -> bool {
        dashed(&self.name).eq(dashed(name))
    }

    /// Whether it asks for another method than its request has: some servers do as it says.
    pub(crate) fn names_a_method(&self) -> bool {
        METHOD_OVERRIDES.iter().any(|name| self.is_named(name))
    }
}

fn dashed(name: &str) -> impl Iterator<Item = u8> + '_ {
    name.bytes().map(|byte| if byte == b'_' { b'-' } else { byte })
}

/// Where clients that can send only some methods put the one they mean.
const METHOD_OVERRIDES: [&str; 3] =
    ["x-http-method", "x-http-method-override", "x-method-override"];

/// What a client asks of a server, without what concerns one connection only (R5.24).
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Request {
    /// In capitals: `PUT`, `MKCOL`.
    pub method: String,
    /// Path and query, as they came: `/a%20b?c=d`.
    pub target: String,
    /// Sorted by name, since HTTP/1.1 and HTTP/2 keep no other order; those of one name in the order
    /// they came.
    pub headers: Vec<Header>,
    /// Whole; empty when it is kept apart.
    pub body: Bytes,
    /// The body, when that is large.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub apart: Option<Apart>,
}

impl Request {
    /// Of the body, wherever it is.
    pub fn body_bytes(&self) -> u64 {
        self.apart.as_ref().map_or(self.body.len() as u64, |apart| apart.bytes)
    }
}

/// What a server answered, without what concerns one connection only.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Response {
    /// `200`.
    pub status: u16,
    /// Sorted by name; those of one name in the order they came.
    pub headers: Vec<Header>,
    /// Whole.
    pub body: Bytes,
}

/// Headers whose values are never shown: they let people in (R5.26).
const SECRET: [&str; 4] = ["authorization", "cookie", "proxy-authorization", "set-cookie"];

impl std::fmt::Debug for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} {} {} body {}",
            self.method,
            self.target,
            Shown(&self.headers),
            self.body_bytes()
        )
    }
}

impl std::fmt::Debug for Response {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {} body {}", self.status, Shown(&self.headers), self.body.len())
    }
}

/// Headers for people, without secrets.
struct Shown<'a>(&'a [Header]);

impl std::fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for Header { name, value } in self.0 {
            match SECRET.contains(&name.as_str()) {
                true => write!(f, "{name}: *** ")?,
                false => write!(f, "{name}: {} ", String::from_utf8_lossy(value))?,
            }
        }
        Ok(())
    }
}
