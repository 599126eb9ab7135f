//! One form for every request, whichever way it came (R5.24): what is ordered must be the same bytes
//! however a client spells it, and must say nothing of one connection.

use std::net::{IpAddr, SocketAddr};

use actix_http::{Method, RequestHead, StatusCode, uri::Authority};
use bytes::Bytes;

use super::{
    answer::Refusal,
    session::{cookies, is_ours},
};
use crate::{
    Header, Request,
    upstream::{HOP_BY_HOP, words},
};

/// The request as it is ordered, or sent to the server: what a client said, and how it came here.
///
/// # Errors
/// A request that no server could be asked.
pub(super) fn request(head: &RequestHead, secure: bool, body: Bytes) -> Result<Request, Refusal> {
    let target = match head.uri.path_and_query() {
        Some(target) if target.as_str().starts_with('/') => target.as_str(),
        _ if head.method == Method::CONNECT => {
            let authority = head.uri.authority().map(|authority| authority.as_str());
            authority.ok_or_else(|| Refusal::bad("CONNECT names no host"))?
        }
        _ => return Err(Refusal::bad("the target is no path of the server behind this site")),
    };
    let mut headers = Vec::with_capacity(head.headers.len() + 2);
    let mut bytes = target.len();
    for (name, value) in head.headers.iter() {
        bytes += name.as_str().len() + value.len();
        headers.push(Header { name: name.as_str().to_owned(), value: value.as_bytes().to_vec() });
    }
    if bytes > HEAD_BYTES_MAX || headers.len() > HEADERS_MAX {
        let text = format!("more than {HEADERS_MAX} headers, or {HEAD_BYTES_MAX} bytes of them");
        return Err(Refusal::new(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, text));
    }
    // A target with a host in it outweighs the header (RFC 9112, 3.2.2); HTTP/2 has no other. Who asks is
    // no part of it.
    let bare = |authority: &str| authority.rsplit('@').next().map(|host| host.as_bytes().to_vec());
    let asked = head.uri.authority().and_then(|authority| bare(authority.as_str()));
    let old = || if has(&headers, "host") { None } else { Some(HOST_OF_OLD_CLIENTS.to_vec()) };
    if let Some(host) = asked.or_else(old) {
        headers.retain(|header| header.name != "host");
        headers.push(Header { name: "host".to_owned(), value: host });
    }
    if let Some(bad) =
        headers.iter().find(|header| header.name == "host" && !is_host(&header.value))
    {
        let host = String::from_utf8_lossy(&bad.value).into_owned();
        return Err(Refusal::bad(format!("Host: {host:?} is none")));
    }
    let (method, target) = (head.method.as_str().to_owned(), target.to_owned());
    let mut request = canonical(Request { method, target, headers, body, apart: None });
    let proto = if secure { "https" } else { "http" };
    let host = request.headers.iter().find(|header| header.name == "host");
    let host = host.map(|host| String::from_utf8_lossy(&host.value).replace(['"', '\\'], ""));
    let came = forwarded(head.peer_addr, &host.unwrap_or_default(), proto);
    append(&mut request.headers, "forwarded", came);
    append(&mut request.headers, "via", VIA.to_owned());
    Ok(request)
}

/// Brings a request into its one form: without what concerns a connection or belongs to the site,
/// names in lower case, values without space around them, sorted by name. Doing it again changes
/// nothing.
pub fn canonical(mut request: Request) -> Request {
    for header in &mut request.headers {
        header.name.make_ascii_lowercase();
        let value = header.value.trim_ascii();
        if value.len() < header.value.len() {
            header.value = value.to_vec();
        }
    }
    let connection = request.headers.iter().filter(|header| header.name == "connection");
    // Naming it there would be a way to talk to another server than everybody thinks.
    let local: Vec<String> =
        connection.flat_map(|header| words(&header.value)).filter(|name| name != "host").collect();
    request.headers.retain(|header| {
        let ends_here = HOP_BY_HOP.iter().chain(&OURS).any(|name| header.is_named(name));
        !ends_here && !local.contains(&header.name)
    });
    one_cookie(&mut request.headers);
    request.headers.sort_by(|a, b| a.name.cmp(&b.name));
    request
}

/// HTTP/2 may cut a `Cookie` header into several (RFC 9113, 8.2.3); the session's is for us.
fn one_cookie(headers: &mut Vec<Header>) {
    let mut all: Vec<u8> = Vec::new();
    for header in headers.iter().filter(|header| header.name == "cookie") {
        for cookie in cookies(&header.value).filter(|cookie| !is_ours(cookie)) {
            if !all.is_empty() {
                all.extend_from_slice(b"; ");
            }
            all.extend_from_slice(cookie);
        }
    }
    headers.retain(|header| header.name != "cookie");
    if !all.is_empty() {
        headers.push(Header { name: "cookie".to_owned(), value: all });
    }
}

/// Behind what earlier proxies said.
fn append(headers: &mut Vec<Header>, name: &str, value: String) {
    let behind = headers.partition_point(|header| header.name.as_str() <= name);
    headers.insert(behind, Header { name: name.to_owned(), value: value.into_bytes() });
}

/// RFC 7239.
fn forwarded(peer: Option<SocketAddr>, host: &str, proto: &str) -> String {
    let peer = match peer.map(|peer| peer.ip()) {
        Some(IpAddr::V4(ip)) => ip.to_string(),
        Some(IpAddr::V6(ip)) => format!("\"[{ip}]\""),
        None => "unknown".to_owned(),
    };
    format!("for={peer};host=\"{host}\";proto={proto}")
}

/// Whether a host, and perhaps a port, can be called so (RFC 9112, 3.2); a client may know of none.
fn is_host(value: &[u8]) -> bool {
    value.is_empty() || (!value.contains(&b'@') && Authority::try_from(value).is_ok())
}

fn has(headers: &[Header], name: &str) -> bool {
    headers.iter().any(|header| header.name == name)
}

/// Settled between the client and this site, or told to the server by the site itself; a client
/// that could say these would make up what the sites agree on.
const OURS: [&str; 9] = [
    "content-length",
    "expect",
    "http2-settings",
    "synod-redo",
    "synod-seed",
    "synod-seq",
    "synod-session",
    "synod-stale",
    "synod-time",
];

/// The same at every site, since a request is brought into form once.
const VIA: &str = "1.1 synod";

/// HTTP/1.0 names none; the name must not depend on the site.
const HOST_OF_OLD_CLIENTS: &[u8] = b"localhost";

/// As many as the reader of HTTP/1.1 takes.
const HEADERS_MAX: usize = 96;

/// Eight times what servers take by default; every site keeps them in its log.
const HEAD_BYTES_MAX: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*, sample::select};

    use super::*;

    fn header(name: &str, value: &str) -> Header {
        Header { name: name.to_owned(), value: value.as_bytes().to_vec() }
    }

    fn request(headers: Vec<Header>) -> Request {
        let (method, target) = ("PUT".to_owned(), "/a".to_owned());
        Request { method, target, headers, body: Bytes::from_static(b"x"), apart: None }
    }

    #[test]
    fn what_concerns_one_connection_or_is_ours_is_not_ordered() {
        let came = request(vec![
            header("X-B", " 2 "),
            header("Connection", "close, X-Hop, Host"),
            header("x-hop", "1"),
            header("Host", "a"),
            header("TE", "trailers"),
            header("Transfer-Encoding", "chunked"),
            header("Synod-Seq", "77"),
            header("Synod-Time", "then"),
            header("Synod_Seed", "7"),
            header("Content_Length", "9"),
            header("X_B", "3"),
            header("Expect", "100-continue"),
            header("Cookie", "a=1; synod-session=4"),
            header("cookie", "b=2"),
            header("Authorization", "Basic eA=="),
            header("x-b", "1"),
        ]);
        let ordered = [
            header("authorization", "Basic eA=="),
            header("cookie", "a=1; b=2"),
            header("host", "a"),
            header("x-b", "2"),
            header("x-b", "1"),
            header("x_b", "3"),
        ];
        assert_eq!(canonical(came).headers, ordered);
    }

    proptest! {
        /// Goal: one request has one form. Method: any headers, in any order between names.
        #[test]
        fn canonical_requests_stay_so_and_are_equal_byte_for_byte(
            list in vec((select(NAMES), "[ -~]{0,12}"), 0..12), turn in any::<usize>(),
        ) {
            let list: Vec<Header> = list.iter().map(|(name, value)| header(name, value)).collect();
            // Names change places, those of one name keep theirs.
            let mut turned = list.clone();
            turned.sort_by_key(|header| header.name.to_ascii_lowercase());
            if turn % 2 == 0 {
                turned.sort_by_key(|one| std::cmp::Reverse(one.name.to_ascii_lowercase()));
            }
            turned.iter_mut().for_each(|one| one.name.make_ascii_uppercase());
            let (one, other) = (canonical(request(list)), canonical(request(turned)));
            prop_assert_eq!(&one, &canonical(one.clone()));
            let bytes = |request: &Request| rmp_serde::to_vec(request).unwrap();
            prop_assert_eq!(bytes(&one), bytes(&other));
            let sorted = one.headers.is_sorted_by(|a, b| a.name <= b.name);
            prop_assert!(sorted && one.headers.iter().all(|one| one.name != "connection"));
        }
    }

    const NAMES: &[&str] = &[
        "Accept",
        "Connection",
        "Cookie",
        "cookie",
        "Host",
        "Synod-Seed",
        "X-A",
        "X-B",
        "x-a",
        "via",
    ];
}
