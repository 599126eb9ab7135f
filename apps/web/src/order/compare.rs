//! What must be the same at all sites, as digests.

use synod::runtime::digest::Sha256;

use crate::{Header, Request, Response};

/// Knows a request again when its key comes once more: what the client made, not what lies between
/// it and us.
pub(crate) fn digest_request(request: &Request) -> String {
    let Request { method, target, headers, body, apart } = request;
    let mut sum = Sha256::default();
    let apart = apart.as_ref().map(|apart| apart.digest.as_bytes());
    for part in [method.as_bytes(), target.as_bytes(), body].into_iter().chain(apart) {
        field(&mut sum, part);
    }
    for Header { name, value } in headers.iter().filter(|header| says_what(header)) {
        field(&mut sum, name.as_bytes());
        field(&mut sum, value);
    }
    short(sum)
}

/// Whether a header is of what is asked, whoever asks it and whichever way.
fn says_what(header: &Header) -> bool {
    header.name == "content-type" || header.names_a_method()
}

/// Two servers in the same state answer alike: status, body, and headers but for those that say when
/// and by whom, and those in `ignored`.
pub(crate) fn digest_response(response: &Response, ignored: &[String]) -> String {
    let Response { status, headers, body } = response;
    let mut sum = Sha256::default();
    field(&mut sum, &status.to_be_bytes());
    let differs = |name: &str| MAY_DIFFER.contains(&name) || ignored.iter().any(|one| one == name);
    let mut alike: Vec<(&str, &[u8])> = headers
        .iter()
        .filter(|one| !differs(&one.name))
        .map(|Header { name, value }| (name.as_str(), location_path(name, value)))
        .collect();
    alike.sort_unstable();
    for (name, value) in alike {
        field(&mut sum, name.as_bytes());
        field(&mut sum, value);
    }
    field(&mut sum, body);
    short(sum)
}

/// Servers name themselves in the places they point to.
fn location_path<'a>(name: &str, value: &'a [u8]) -> &'a [u8] {
    if name != "location" {
        return value;
    }
    let Some(host) = value.windows(3).position(|three| three == b"://") else { return value };
    let rest = &value[host + 3..];
    rest.iter().position(|byte| *byte == b'/').map_or(b"/", |path| &rest[path..])
}

fn field(sum: &mut Sha256, part: &[u8]) {
    sum.update(&(part.len() as u64).to_be_bytes());
    sum.update(part);
}

/// 128 bits tell honest servers apart.
fn short(sum: Sha256) -> String {
    let mut text = sum.finish();
    text.truncate(32);
    text
}

/// When, by whom, and what servers make of times and of file numbers.
const MAY_DIFFER: [&str; 8] = [
    "connection",
    "date",
    "etag",
    "keep-alive",
    "last-modified",
    "server",
    "x-request-id",
    "x-runtime",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn response(status: u16, headers: &[(&str, &str)], body: &'static str) -> Response {
        let header = |(name, value): &(&str, &str)| Header {
            name: (*name).to_owned(),
            value: value.as_bytes().to_vec(),
        };
        let headers = headers.iter().map(header).collect();
        Response { status, headers, body: body.into() }
    }

    #[test]
    fn a_request_repeated_from_elsewhere_is_the_same() {
        let digest = |method: &str, body: &'static str, headers: &[(&str, &str)]| {
            let headers = response(200, headers, "").headers;
            let (method, target) = (method.to_owned(), "/a".to_owned());
            digest_request(&Request { method, target, headers, body: body.into(), apart: None })
        };
        let plain = ("content-type", "text/plain");
        let asked = digest("POST", "x", &[plain, ("forwarded", "for=1.2.3.4")]);
        assert_eq!(asked, digest("POST", "x", &[plain, ("forwarded", "for=5.6.7.8")]));
        for other in [
            digest("PUT", "x", &[plain]),
            digest("POST", "y", &[plain]),
            digest("POST", "x", &[("content-type", "text/html")]),
            digest("POST", "x", &[plain, ("x-http-method-override", "DELETE")]),
        ] {
            assert_ne!(asked, other);
        }
    }

    #[test]
    fn what_may_differ_between_honest_servers_is_not_compared_and_all_else_is() {
        let one = response(
            201,
            &[("date", "now"), ("location", "http://a:9001/x"), ("content-type", "text")],
            "made",
        );
        let digest = digest_response(&one, &[]);
        let other = response(
            201,
            &[("content-type", "text"), ("location", "http://b:9002/x"), ("date", "then")],
            "made",
        );
        assert_eq!(digest, digest_response(&other, &[]));
        for differs in [
            Response { status: 204, ..other.clone() },
            Response { body: "mode".into(), ..other },
            response(201, &[("location", "http://b:9002/y"), ("content-type", "text")], "made"),
            response(201, &[("location", "http://b:9002/x")], "made"),
        ] {
            assert_ne!(digest, digest_response(&differs, &[]), "{differs:?}");
        }
        let ours = response(200, &[("x-served-by", "a")], "");
        let theirs = response(200, &[("x-served-by", "b")], "");
        assert_ne!(digest_response(&ours, &[]), digest_response(&theirs, &[]));
        let ignored = ["x-served-by".to_owned()];
        assert_eq!(digest_response(&ours, &ignored), digest_response(&theirs, &ignored));
    }
}
