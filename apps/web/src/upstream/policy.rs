//! Which requests may be sent twice, and which at the same time.

use synod::server::config::{RedoPolicy, WebConfig};

use crate::{Request, Touches};

/// What becomes of a request that may have been performed, when nobody knows (R5.39): as its route
/// says, or else by its method. Sent twice, these leave a server as it is after once.
pub(crate) fn redo(config: &WebConfig, request: &Request) -> RedoPolicy {
    let route = config.route(&request.method, &request.target);
    let usual = match REPEATABLE.contains(&request.method.as_str()) {
        true => RedoPolicy::Resend,
        false => RedoPolicy::Rebuild,
    };
    route.and_then(|route| route.redo).unwrap_or(usual)
}

/// What `request` touches, as far as every server agrees on the meaning of its path.
pub(crate) fn touches(config: &WebConfig, request: &Request) -> Touches {
    let path = request.target.split('?').next().unwrap_or_default();
    let plain = |segment: &str| {
        let known = |c: char| c.is_ascii_alphanumeric() || "-_.~".contains(c);
        !segment.is_empty() && segment != "." && segment != ".." && segment.chars().all(known)
    };
    let local = TOUCH_THEIR_PATH.contains(&request.method.as_str());
    let sent_again = redo(config, request) == RedoPolicy::Resend;
    let Some(inside) = path.strip_prefix('/').filter(|_| local && sent_again) else {
        return Touches::All;
    };
    let inside = inside.strip_suffix('/').unwrap_or(inside);
    match inside.split('/').all(plain) {
        // Some servers make no difference between large and small letters.
        true => Touches::Below(format!("/{}", inside.to_ascii_lowercase())),
        false => Touches::All,
    }
}

/// They say what is to be there, or not to be, whatever was before.
const REPEATABLE: [&str; 9] =
    ["PUT", "DELETE", "MKCOL", "COPY", "MOVE", "PROPPATCH", "LOCK", "UNLOCK", "ACL"];

/// They change nothing but what is at their path.
const TOUCH_THEIR_PATH: [&str; 2] = ["PUT", "DELETE"];

#[cfg(test)]
mod tests {
    use super::*;

    fn request(method: &str, target: &str) -> Request {
        let (method, target) = (method.to_owned(), target.to_owned());
        Request { method, target, headers: Vec::new(), body: bytes::Bytes::new(), apart: None }
    }

    #[test]
    fn only_writes_of_different_places_go_side_by_side() {
        let config = WebConfig::new("127.0.0.1:1".parse().unwrap(), "http://localhost:2");
        let of = |method: &str, target: &str| touches(&config, &request(method, target));
        let meet = |one: &str, two: &str| of("PUT", one).meets(&of("DELETE", two));
        assert!(!meet("/a", "/b"));
        assert!(!meet("/a/b", "/ab"));
        assert!(!meet("/a?x", "/b?x"));
        for (one, two) in [
            ("/a", "/a"),
            ("/A", "/a/"),
            ("/a", "/a/b"),
            ("/a?1", "/a?2"),
            ("/a", "/%62"),
            ("/a", "/c/../b"),
            ("/a", "//b"),
            ("/a", "/"),
            ("/a", "*"),
        ] {
            assert!(meet(one, two) && meet(two, one), "{one} {two}");
        }
        for method in ["POST", "MOVE", "COPY", "MKCOL", "PATCH", "LOCK"] {
            assert_eq!(of(method, "/a"), Touches::All, "{method}");
        }
    }

    #[test]
    fn what_makes_something_new_each_time_is_never_sent_twice_unless_its_route_says_so() {
        let mut config = WebConfig::new("127.0.0.1:1".parse().unwrap(), "http://localhost:2");
        assert_eq!(redo(&config, &request("POST", "/a")), RedoPolicy::Rebuild);
        assert_eq!(redo(&config, &request("FROB", "/a")), RedoPolicy::Rebuild);
        assert_eq!(redo(&config, &request("PUT", "/a")), RedoPolicy::Resend);
        let route = synod::server::config::WebRoute::new("/a");
        config
            .routes
            .push(synod::server::config::WebRoute { redo: Some(RedoPolicy::Resend), ..route });
        assert_eq!(redo(&config, &request("POST", "/a/b")), RedoPolicy::Resend);
        assert_eq!(redo(&config, &request("POST", "/b")), RedoPolicy::Rebuild);
        config.routes[0].redo = Some(RedoPolicy::Rebuild);
        let touched = touches(&config, &request("PUT", "/a/b"));
        assert_eq!(touched, Touches::All, "what is not sent twice is performed alone");
    }
}
