//! Where a server is.

use std::fmt;

/// A server's address as a person writes it: `http://host:port`, perhaps with a path that is put
/// before every request's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamAddress {
    /// `host:port`, as a connection is made to it.
    authority: String,
    /// Empty, or `/base` without a slash at its end.
    base: String,
}

/// A text that is no server's address. The message says why; whoever read the text knows its key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadUpstream {
    /// Another protocol.
    #[error(
        "{0:?} is not http://HOST:PORT; a server is asked by plain HTTP, so keep it beside its node"
    )]
    Scheme(String),
    /// A query, a user.
    #[error("{0:?} has more than http://HOST:PORT and a path")]
    More(String),
    /// No host, or a port that is none.
    #[error("{0:?} names no host and port; write http://HOST:PORT")]
    Authority(String),
}

impl UpstreamAddress {
    /// Reads `http://host:port`; without a port, 80.
    ///
    /// # Errors
    /// What is wrong with it, without the key it was under.
    pub fn parse(text: &str) -> Result<Self, BadUpstream> {
        let scheme = text.get(..SCHEME.len()).filter(|scheme| scheme.eq_ignore_ascii_case(SCHEME));
        let Some(scheme) = scheme else { return Err(BadUpstream::Scheme(text.to_owned())) };
        let rest = &text[scheme.len()..];
        if rest.contains(['?', '#', '@', ' ']) {
            return Err(BadUpstream::More(text.to_owned()));
        }
        let (authority, base) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let bad = || BadUpstream::Authority(text.to_owned());
        // A colon inside brackets belongs to an address of IPv6.
        let colon = authority.rfind(':').filter(|colon| !authority[*colon..].contains(']'));
        let (host, port) = match colon {
            Some(colon) => {
                (&authority[..colon], authority[colon + 1..].parse().map_err(|_| bad())?)
            }
            None => (authority, HTTP_PORT),
        };
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let known = |c: char| c.is_ascii_alphanumeric() || "-._:%".contains(c);
        let six = bare.contains(':') == (bare.len() < host.len());
        if bare.is_empty() || port == 0 || !six || !bare.chars().all(known) {
            return Err(bad());
        }
        let base = base.trim_end_matches('/').to_owned();
        Ok(Self { authority: format!("{host}:{port}"), base })
    }

    /// What stands before every target: empty, or a path without a slash at its end.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// `host:port`.
    pub fn authority(&self) -> &str {
        &self.authority
    }
}

impl fmt::Display for UpstreamAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}{}", self.authority, self.base)
    }
}

const SCHEME: &str = "http://";

/// Where HTTP is without a port.
const HTTP_PORT: u16 = 80;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_host_and_a_port() {
        let good = |text: &str| UpstreamAddress::parse(text).unwrap().authority;
        assert_eq!(good("http://127.0.0.1:9001"), "127.0.0.1:9001");
        assert_eq!(good("HTTP://localhost/"), "localhost:80");
        assert_eq!(good("http://[::1]:9"), "[::1]:9");
        let based = UpstreamAddress::parse("http://a/dav/").unwrap();
        assert_eq!((based.authority(), based.base()), ("a:80", "/dav"));
    }

    #[test]
    fn what_is_no_address_says_why() {
        let why = |text: &str| UpstreamAddress::parse(text).unwrap_err().to_string();
        for text in ["", "127.0.0.1:9001", "https://a:1", "redis://a:1", "ht"] {
            assert!(why(text).contains("is not http://HOST:PORT"), "{text}");
        }
        for text in ["http://a:1?x", "http://u:p@a:1", "http://a b:1"] {
            assert!(why(text).contains("more than"), "{text}");
        }
        for text in
            ["http://", "http://:1", "http://a:0", "http://a:99999", "http:///a", "http://::1:1"]
        {
            assert!(why(text).contains("names no host"), "{text}");
        }
    }
}
