//! Requests and responses as they are ordered, performed and compared: plain data, the same bytes
//! at every site.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use synod::runtime::digest::Sha256;

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

/// A digest of what makes two requests under one identity the same (R5.36). What the client's way
/// here adds is left out: repeated at another site, it comes another way.
pub fn sameness(request: &Request) -> u64 {
    let mut digest = Fields::default();
    digest.add(request.method.as_bytes());
    digest.add(request.target.as_bytes());
    for header in request.headers.iter().filter(|header| header.name == "content-type") {
        digest.add(&header.value);
    }
    digest.add(b"");
    digest.add(&request.body);
    if let Some(apart) = &request.apart {
        digest.add(apart.digest.as_bytes());
    }
    digest.finish()
}

/// A digest of fields, each with its length.
#[derive(Default)]
struct Fields(Sha256);

impl Fields {
    fn add(&mut self, field: &[u8]) {
        self.0.update(&(field.len() as u64).to_be_bytes());
        self.0.update(field);
    }

    fn finish(self) -> u64 {
        let text = self.0.finish();
        u64::from_str_radix(&text[..16], 16).expect("a digest is hexadecimal digits")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_repeated_from_elsewhere_is_the_same() {
        let header = |name: &str, value: &str| Header { name: name.into(), value: value.into() };
        let request = |via: &str, body: &'static str| Request {
            method: "POST".to_owned(),
            target: "/a".to_owned(),
            headers: vec![header("content-type", "text/plain"), header("forwarded", via)],
            body: Bytes::from(body),
            apart: None,
        };
        assert_eq!(sameness(&request("for=1.2.3.4", "x")), sameness(&request("for=5.6.7.8", "x")));
        assert_ne!(sameness(&request("", "x")), sameness(&request("", "y")));
    }
}
