//! Which requests may be sent twice, and which at the same time.

use synod::server::config::{Commutes, RedoPolicy, WebConfig, WebRoute};

use crate::{
    Header, Request, Touches,
    path::{all_unescaped, normalised},
};

/// The route of a request, however its path is spelled.
pub(crate) fn route<'a>(config: &'a WebConfig, request: &Request) -> Option<&'a WebRoute> {
    // Mostly there are none.
    let any = !config.routes.is_empty();
    any.then(|| config.route(&request.method, &normalised(&request.target))).flatten()
}

/// The route that says what the request's method means there, unless it may mean another.
fn by_method<'a>(config: &'a WebConfig, request: &Request) -> Option<&'a WebRoute> {
    route(config, request).filter(|route| route.methods.is_empty() || !overrides(request))
}

/// What becomes of a request that may have been performed, when nobody knows (R5.39): as its route
/// says, or else by its method. Sent twice, these leave a server as it is after once.
pub(crate) fn redo(config: &WebConfig, request: &Request) -> RedoPolicy {
    let usual = match REPEATABLE.contains(&request.method.as_str()) && !overrides(request) {
        true => RedoPolicy::Resend,
        false => RedoPolicy::Rebuild,
    };
    by_method(config, request).and_then(|route| route.redo).unwrap_or(usual)
}

/// Whether `request` asks for another method than it has.
fn overrides(request: &Request) -> bool {
    request.headers.iter().any(Header::names_a_method)
}

/// Whether `request` can change nothing (CONTRACT: all others are ordered).
pub(crate) fn is_safe(request: &Request) -> bool {
    SAFE.contains(&request.method.as_str()) && !overrides(request)
}

/// Takes out of an answer what clients of its route are not given (R5.29).
pub(crate) fn strip(config: &WebConfig, request: &Request, headers: &mut Vec<Header>) {
    if let Some(route) = route(config, request) {
        headers.retain(|header| !route.remove.contains(&header.name));
    }
}

/// What `request` touches: as its route says (R5.45), or else by its method.
pub(crate) fn touches(config: &WebConfig, request: &Request) -> Touches {
    let Some((route, commutes)) =
        by_method(config, request).and_then(|route| Some((route, route.commutes.as_ref()?)))
    else {
        let local = TOUCH_THEIR_PATH.contains(&request.method.as_str()) && !overrides(request);
        return match local && redo(config, request) == RedoPolicy::Resend {
            true => below(&request.target),
            false => Touches::All,
        };
    };
    let value = match commutes {
        Commutes::Path => return below(&request.target),
        Commutes::Query(name) => only(query(&request.target, name)),
        Commutes::Header(name) => {
            let named = request.headers.iter().filter(|header| header.is_named(name));
            only(named.map(|header| header.value.clone()))
        }
    };
    value.map_or(Touches::All, |value| Touches::Keyed {
        route: format!("{} {:?} {commutes:?}", route.path, route.methods),
        key: value.to_ascii_lowercase(),
    })
}

/// What is at a path, as far as every server agrees on its meaning.
fn below(target: &str) -> Touches {
    let path = target.split('?').next().unwrap_or_default();
    let plain = |segment: &str| {
        let known = |c: char| c.is_ascii_alphanumeric() || "-_.~".contains(c);
        !segment.is_empty() && segment != "." && segment != ".." && segment.chars().all(known)
    };
    let Some(inside) = path.strip_prefix('/') else { return Touches::All };
    let inside = inside.strip_suffix('/').unwrap_or(inside);
    match inside.split('/').all(plain) {
        // Some servers make no difference between large and small letters.
        true => Touches::Below(format!("/{}", inside.to_ascii_lowercase())),
        false => Touches::All,
    }
}

/// What a query gives to a name.
fn query<'a>(target: &'a str, name: &'a str) -> impl Iterator<Item = Vec<u8>> + 'a {
    let (_, query) = target.split_once('?').unwrap_or_default();
    // Some servers cut at a semicolon, too.
    let pairs = query.split(['&', ';']).map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    let pairs = pairs.map(|(key, value)| (decoded(key), decoded(value)));
    pairs.filter(move |(key, _)| key.eq_ignore_ascii_case(name.as_bytes())).map(|(_, value)| value)
}

/// As forms write it.
fn decoded(text: &str) -> Vec<u8> {
    all_unescaped(&text.replace('+', " "))
}

/// The value, if there is exactly one: of two some servers take the first, some the last. So it is of
/// two with a comma or a semicolon between them, where some see two.
fn only(mut values: impl Iterator<Item = Vec<u8>>) -> Option<Vec<u8>> {
    let clear =
        |value: &Vec<u8>| !value.is_empty() && !value.iter().any(|byte| b",;".contains(byte));
    let one = values.next().filter(clear);
    one.filter(|_| values.next().is_none())
}

/// RFC 9110, 9.2.1, and the reading ones of WebDAV and its kin.
const SAFE: [&str; 7] = ["GET", "HEAD", "OPTIONS", "TRACE", "PROPFIND", "REPORT", "SEARCH"];

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
        assert_eq!(redo(&config, &request("PUT", "/x/../%61")), RedoPolicy::Rebuild, "spelled");
    }

    #[test]
    fn a_request_that_asks_for_another_method_is_neither_read_nor_repeated_nor_side_by_side() {
        let config = WebConfig::new("127.0.0.1:1".parse().unwrap(), "http://localhost:2");
        let with = |method: &str, name: &str| {
            let headers = vec![Header { name: name.to_owned(), value: b"POST".to_vec() }];
            Request { headers, ..request(method, "/a") }
        };
        for name in ["x-http-method-override", "x_http_method_override", "x-http-method"] {
            assert!(!is_safe(&with("GET", name)), "{name}");
            let put = with("PUT", name);
            assert_eq!(redo(&config, &put), RedoPolicy::Rebuild, "{name}");
            assert_eq!(touches(&config, &put), Touches::All, "{name}");
        }
        assert!(is_safe(&with("GET", "x-other")) && !is_safe(&request("PUT", "/a")));
        assert_eq!(redo(&config, &with("PUT", "x-other")), RedoPolicy::Resend);
        let put = WebRoute {
            methods: vec!["PUT".to_owned()],
            redo: Some(RedoPolicy::Resend),
            commutes: Some(Commutes::Path),
            ..WebRoute::new("/a")
        };
        let mut routed = config;
        routed.routes = vec![put];
        let put = with("PUT", "x-http-method");
        assert_eq!(redo(&routed, &put), RedoPolicy::Rebuild, "the route is of another method");
        assert_eq!(touches(&routed, &put), Touches::All);
        routed.routes[0].methods.clear();
        assert_eq!(redo(&routed, &put), RedoPolicy::Resend, "whatever the method");
    }

    #[test]
    fn requests_of_a_route_that_says_so_go_side_by_side_by_their_key() {
        let mut config = WebConfig::new("127.0.0.1:1".parse().unwrap(), "http://localhost:2");
        let route = |path: &str, commutes: &str| WebRoute {
            commutes: Some(commutes.parse().unwrap()),
            ..WebRoute::new(path)
        };
        config.routes =
            vec![route("/p", "path"), route("/q", "query id"), route("/h", "header X-Id")];
        let of = |request: &Request| touches(&config, request);
        let post = |target: &str| request("POST", target);
        let meet = |one: &str, two: &str| of(&post(one)).meets(&of(&post(two)));
        assert!(!meet("/p/1", "/p/2?x") && meet("/p/1", "/p/1/x"));
        assert!(
            !of(&post("/p/1")).meets(&of(&request("PUT", "/r/1"))),
            "other paths, whoever asks"
        );
        assert!(!meet("/q?id=1", "/q/x?a=b&id=2"));
        for (one, two) in [
            ("/q?id=a", "/q?id=A"),
            ("/q?id=a+b", "/q?%69d=a%20b"),
            ("/q?id=1", "/q?id=2&id=1"),
            ("/q?id=1", "/q?ID=2&id=3"),
            ("/q?id=1", "/q"),
            ("/q?id=1", "/q?id"),
            ("/q?id=1", "/q?id=2&id"),
            ("/q?id=1", "/q?id=2;id=1"),
            ("/q?id=1", "/q?a=1;id=1&id=2"),
            ("/q?id=1,2", "/q?id=2"),
            ("/q?id=1", "/p/1"),
        ] {
            assert!(meet(one, two) && meet(two, one), "{one} {two}");
        }
        let with = |ids: &[&str]| {
            let header = |id: &&str| crate::Header { name: "x-id".to_owned(), value: (*id).into() };
            Request { headers: ids.iter().map(header).collect(), ..post("/h/x") }
        };
        let meet = |one: &[&str], two: &[&str]| of(&with(one)).meets(&of(&with(two)));
        assert!(!meet(&["1"], &["2"]) && meet(&["1"], &["1"]));
        assert!(meet(&["1"], &[]) && meet(&["1"], &["2", "3"]) && meet(&["1"], &["2, 1"]));
        let mut twice = with(&["2"]);
        twice.headers.push(Header { name: "x_id".to_owned(), value: b"1".to_vec() });
        assert_eq!(of(&twice), Touches::All, "the other name is the same for some");
    }
}
