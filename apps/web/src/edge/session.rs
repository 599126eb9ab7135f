//! What a client has seen: the number of a request, as header and as cookie (R5.21).

use actix_http::header::HeaderMap;

/// The header with the number, both ways.
pub(super) const SESSION: &str = "synod-session";

/// The number up to which a client must see what was ordered: the highest that it shows.
///
/// # Errors
/// A header that is no number. A cookie that is none is somebody else's.
pub(super) fn shown(headers: &HeaderMap) -> Result<u64, &'static str> {
    let mut highest = 0;
    for value in headers.get_all(SESSION) {
        let number = value.to_str().ok().and_then(|text| text.trim().parse().ok());
        highest = highest.max(number.ok_or("Synod-Session: not a number of ours")?);
    }
    for value in headers.get_all(actix_http::header::COOKIE) {
        let ours = cookies(value.as_bytes()).filter(|cookie| is_ours(cookie));
        let numbers = ours.filter_map(|cookie| {
            std::str::from_utf8(&cookie[SESSION.len() + 1..]).ok()?.parse().ok()
        });
        highest = numbers.fold(highest, u64::max);
    }
    Ok(highest)
}

/// As a browser keeps it, out of reach of pages' scripts.
pub(super) fn cookie(seq: u64) -> String {
    format!("{SESSION}={seq}; Path=/; HttpOnly; SameSite=Lax")
}

/// The cookies of a `Cookie` header.
pub(super) fn cookies(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    let all = value.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
    all.filter(|cookie| !cookie.is_empty())
}

/// Whether a cookie is the session's.
pub(super) fn is_ours(cookie: &[u8]) -> bool {
    cookie.strip_prefix(SESSION.as_bytes()).is_some_and(|rest| rest.starts_with(b"="))
}

#[cfg(test)]
mod tests {
    use actix_http::header::{COOKIE, HeaderName, HeaderValue};

    use super::*;

    #[test]
    fn a_client_shows_the_highest_number_it_saw() {
        let shown = |list: &[(&str, &str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in list {
                let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
                headers.append(name, HeaderValue::from_str(value).unwrap());
            }
            shown(&headers)
        };
        assert_eq!(shown(&[]), Ok(0));
        assert_eq!(shown(&[(SESSION, "5"), (COOKIE.as_str(), "a=b; synod-session=7; c")]), Ok(7));
        assert_eq!(shown(&[(SESSION, "9"), (COOKIE.as_str(), "synod-session=7")]), Ok(9));
        assert_eq!(shown(&[(COOKIE.as_str(), "synod-session=x;synod-sessions=9")]), Ok(0));
        assert!(shown(&[(SESSION, "-1")]).is_err());
    }
}
