//! What stands before a body, there and back.

use bytes::{Buf, BytesMut};

use super::framing::{Chunk, Framing};
use crate::{Header, Request};

/// What a server says before its body.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) status: u16,
    /// As they came, without those of the connection.
    pub(super) headers: Vec<Header>,
    pub(super) framing: Framing,
    /// What `Content-Length` says, also where no body comes: an answer to HEAD.
    pub(super) declared: Option<u64>,
    /// Another request may go this way.
    pub(super) keep: bool,
    /// Another protocol begins behind it.
    pub(super) switched: bool,
}

/// What a server was asked.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) method: &'a str,
    /// Whether it may speak another protocol from here on.
    pub(super) may_switch: bool,
}

/// Headers that concern one connection only (RFC 9110, 7.6.1), beside those that `Connection` names.
pub(crate) const HOP_BY_HOP: [&str; 9] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Writes a request as it goes over the wire, without its body, with `base` before its path. `more`
/// are headers beside its own.
pub(super) fn write(base: &str, request: &Request, more: &[(&str, String)]) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEAD_BYTES_USUAL);
    for part in [request.method.as_str(), " ", base, &request.target, " HTTP/1.1\r\n"] {
        out.extend_from_slice(part.as_bytes());
    }
    let mut header = |name: &str, value: &[u8]| {
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value);
        out.extend_from_slice(b"\r\n");
    };
    for one in &request.headers {
        header(&one.name, &one.value);
    }
    for (name, value) in more {
        header(name, value.as_bytes());
    }
    // Servers ask for a length where a body is usual, also if it is none.
    let usual = matches!(request.method.as_str(), "POST" | "PUT" | "PATCH");
    if usual || request.body_bytes() > 0 {
        header("content-length", request.body_bytes().to_string().as_bytes());
    }
    out.extend_from_slice(b"\r\n");
    out
}

/// Takes the answer's head out of `buffer`, once it is whole. Interim answers (1xx) are taken out
/// and not told.
///
/// # Errors
/// What the server sent is no answer to what it was `asked`.
pub(super) fn read(buffer: &mut BytesMut, asked: Asked<'_>) -> Result<Option<Head>, String> {
    loop {
        let mut fields = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut answer = httparse::Response::new(&mut fields);
        let whole = answer.parse(buffer).map_err(|error| format!("no HTTP answer: {error}"))?;
        let httparse::Status::Complete(length) = whole else {
            let long = buffer.len() >= HEAD_BYTES_MAX;
            return if long { Err("a head without an end".to_owned()) } else { Ok(None) };
        };
        let status = answer.code.unwrap_or_default();
        if status < 100 {
            return Err(format!("a status of {status:03}"));
        }
        let connects = asked.method == "CONNECT" && (200..300).contains(&status);
        let switched = asked.may_switch && (status == SWITCHING || connects);
        if status == SWITCHING && !switched {
            return Err("it speaks another protocol now, which nobody asked for".to_owned());
        }
        if status < 200 && !switched {
            buffer.advance(length);
            continue;
        }
        let mut head = head(&answer, status, asked.method)?;
        buffer.advance(length);
        if switched {
            // Whatever it says of a body is not of one.
            let framing = Framing::UntilClose;
            head = Head { framing, declared: None, keep: false, switched, ..head };
        }
        return Ok(Some(head));
    }
}

fn head(answer: &httparse::Response<'_, '_>, status: u16, method: &str) -> Result<Head, String> {
    let mut said = Said::default();
    let mut headers = Vec::with_capacity(answer.headers.len());
    for field in answer.headers.iter() {
        let name = field.name.to_ascii_lowercase();
        let value = field.value.trim_ascii();
        said.hear(&name, value)?;
        headers.push(Header { name, value: value.to_vec() });
    }
    let local = |name: &str| {
        HOP_BY_HOP.contains(&name)
            || name == "content-length"
            || is_ours(name)
            || said.options.iter().any(|o| o == name)
    };
    headers.retain(|header| !local(&header.name));
    headers.sort_by(|a, b| a.name.cmp(&b.name));
    let (framing, declared) = said.framing(status, method)?;
    let named = |option: &str| said.options.iter().any(|named| named == option);
    let keep = match answer.version {
        Some(1) => !named("close"),
        _ => named("keep-alive"),
    };
    // Of chunks HTTP/1.0 knows nothing: what stands behind may be anything (RFC 9112, 6.1).
    let clear = answer.version == Some(1) || said.codings.is_empty();
    let keep = keep && clear && framing != Framing::UntilClose;
    Ok(Head { status, headers, keep, framing, declared, switched: false })
}

/// What a head says about its body and its connection.
#[derive(Default)]
struct Said {
    length: Option<u64>,
    /// Transfer codings, in their order.
    codings: Vec<String>,
    /// What `Connection` names.
    options: Vec<String>,
}

impl Said {
    fn hear(&mut self, name: &str, value: &[u8]) -> Result<(), String> {
        match name {
            "content-length" => {
                let text = std::str::from_utf8(value).unwrap_or_default();
                let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
                let length = text.parse().ok().filter(|_| digits);
                let length = length.ok_or_else(|| format!("a Content-Length of {text:?}"))?;
                if self.length.is_some_and(|before| before != length) {
                    return Err("two different Content-Lengths".to_owned());
                }
                self.length = Some(length);
            }
            "transfer-encoding" => self.codings.extend(words(value)),
            "connection" => self.options.extend(words(value)),
            _ => {}
        }
        Ok(())
    }

    fn framing(&self, status: u16, method: &str) -> Result<(Framing, Option<u64>), String> {
        let bodiless = matches!(status, 204 | 304) || method == "HEAD";
        let framing = match (self.codings.as_slice(), self.length) {
            ([], _) if bodiless => Framing::Empty,
            ([], Some(length)) => Framing::Length(length),
            ([], None) => Framing::UntilClose,
            ([one], None) if one == "chunked" && bodiless => Framing::Empty,
            ([one], None) if one == "chunked" => Framing::Chunked(Chunk::Size),
            (codings, None) => return Err(format!("a body coded as {codings:?}")),
            // Whoever believes the one where another believes the other sees two answers in one.
            (_, Some(_)) => return Err("both a Content-Length and a Transfer-Encoding".to_owned()),
        };
        // An answer to HEAD, or "not modified", tells how long a body would be.
        let declared = self.length.filter(|_| bodiless && status != 204);
        Ok((framing, declared.or_else(|| framing.length().filter(|_| !bodiless))))
    }
}

/// Whether only the site itself says such to clients.
fn is_ours(name: &str) -> bool {
    name.starts_with("synod-") || name == "idempotent-replayed"
}

/// Words between commas, in lower case.
pub(crate) fn words(value: &[u8]) -> impl Iterator<Item = String> {
    let words = value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    words
        .filter(|word| !word.is_empty())
        .map(|word| String::from_utf8_lossy(word).to_ascii_lowercase())
}

/// Another protocol from here on.
const SWITCHING: u16 = 101;

/// More than any server sends by itself, less than would hurt.
const HEAD_BYTES_MAX: usize = 64 << 10;

/// As clients may send.
const HEADERS_MAX: usize = 96;

/// One allocation for most.
const HEAD_BYTES_USUAL: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;

    fn read_all(text: &str, method: &str) -> Result<Option<Head>, String> {
        read(&mut BytesMut::from(text), Asked { method, may_switch: false })
    }

    #[test]
    fn an_answer_says_where_its_body_ends() {
        let framing = |text: &str, method: &str| {
            let head = read_all(text, method).unwrap().unwrap();
            (head.framing, head.declared, head.keep)
        };
        let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n";
        assert_eq!(framing(chunked, "GET"), (Framing::Chunked(Chunk::Size), None, true));
        let sized = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n";
        assert_eq!(framing(sized, "GET"), (Framing::Length(5), Some(5), true));
        assert_eq!(framing(sized, "HEAD"), (Framing::Empty, Some(5), true));
        let bare = "HTTP/1.1 200 OK\r\n\r\n";
        assert_eq!(framing(bare, "GET"), (Framing::UntilClose, None, false));
        let none = "HTTP/1.1 204 No Content\r\nConnection: close, X-A\r\nX-A: 1\r\n\r\n";
        assert_eq!(framing(none, "PUT"), (Framing::Empty, None, false));
        let old = "HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n";
        assert_eq!(framing(old, "PUT"), (Framing::Length(0), Some(0), false));
        let interim = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nLink: a\r\n\r\nHTTP/1.1 304 N\r\n\r\n";
        assert_eq!(framing(interim, "GET"), (Framing::Empty, None, true));
    }

    #[test]
    fn what_concerns_one_connection_goes_no_further() {
        let text = "HTTP/1.1 200 OK\r\nZ: 2\r\nConnection: X-Hop\r\nX-Hop: 1\r\nKeep-Alive: 5\r\nA: 1\r\n\
                    Synod-Seq: 7\r\nIdempotent-Replayed: true\r\nz: 1\r\nContent-Length: 0\r\n\r\n";
        let head = read_all(text, "GET").unwrap().unwrap();
        let headers: Vec<_> = head
            .headers
            .iter()
            .map(|header| (header.name.as_str(), header.value.as_slice()))
            .collect();
        assert_eq!(headers, [("a", &b"1"[..]), ("z", b"2"), ("z", b"1")]);
    }

    #[test]
    fn two_answers_in_one_are_none() {
        for text in [
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: \r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nX: 1\r\n folded\r\n\r\n",
            "HTTP/1.1 101 Switching\r\n\r\n",
            "SSH-2.0-OpenSSH\r\n",
        ] {
            assert!(read_all(text, "GET").is_err(), "{text}");
        }
        assert_eq!(read_all("HTTP/1.1 200 OK\r\nA: b\r\n", "GET"), Ok(None));
        assert!(read_all(&format!("HTTP/1.1 200 OK\r\nA: {}", "b".repeat(70_000)), "GET").is_err());
    }
}
