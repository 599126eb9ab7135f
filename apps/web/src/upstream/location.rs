//! Answers that name their server as it calls itself, where clients know it as the site.

use super::UpstreamAddress;
use crate::{Header, Request};

/// Makes a `Location` or `Content-Location` that leads to `server` itself one that holds at every
/// site: a path. Servers make such ones of the `Host` they were asked by and the port they listen
/// at, or of their own address.
pub(super) fn from_outside(server: &UpstreamAddress, request: &Request, headers: &mut [Header]) {
    let mut asked = request.headers.iter().filter(|header| header.name == "host");
    let asked = asked.next().map(|host| split(&String::from_utf8_lossy(&host.value)).0);
    let (own, port) = split(server.authority());
    let ours = |host: &str| host == own || Some(host) == asked.as_deref();
    for header in headers {
        if !matches!(header.name.as_str(), "location" | "content-location") {
            continue;
        }
        let Ok(text) = std::str::from_utf8(&header.value) else { continue };
        let path = match text.strip_prefix("http://") {
            None if text.starts_with('/') => text,
            None => continue,
            Some(rest) => {
                let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
                let (host, at) = split(authority);
                if at != port || !ours(&host) {
                    continue;
                }
                if path.is_empty() { "/" } else { path }
            }
        };
        let below = path.strip_prefix(server.base()).filter(|below| below.starts_with('/'));
        header.value = below.unwrap_or(path).as_bytes().to_vec();
    }
}

/// Host and port, in one spelling.
fn split(authority: &str) -> (String, String) {
    let colon = authority.rfind(':').filter(|colon| !authority[*colon..].contains(']'));
    let (host, port) = match colon {
        Some(colon) => (&authority[..colon], &authority[colon + 1..]),
        None => (authority, "80"),
    };
    (host.to_ascii_lowercase(), port.to_owned())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn a_location_holds_at_every_site() {
        let server = UpstreamAddress::parse("http://127.0.0.1:9001/dav").unwrap();
        let header = |name: &str, value: &str| Header { name: name.into(), value: value.into() };
        let request = Request {
            method: "PUT".to_owned(),
            target: "/a".to_owned(),
            headers: vec![header("host", "Site.example:8080")],
            body: Bytes::new(),
            apart: None,
        };
        for (said, told) in [
            ("http://127.0.0.1:9001/dav/a", "/a"),
            ("http://site.example:9001/dav/a", "/a"),
            ("http://site.example:9001/other", "/other"),
            ("http://127.0.0.1:9001", "/"),
            ("/dav/a", "/a"),
            ("/a", "/a"),
            ("b", "b"),
            ("http://elsewhere.example:9001/a", "http://elsewhere.example:9001/a"),
            ("http://site.example:8080/a", "http://site.example:8080/a"),
            ("https://127.0.0.1:9001/a", "https://127.0.0.1:9001/a"),
        ] {
            let mut headers = vec![header("location", said), header("x", said)];
            from_outside(&server, &request, &mut headers);
            assert_eq!(headers, [header("location", told), header("x", said)], "{said}");
        }
    }
}
