//! `[web]`: the server behind a main, and how clients reach it through the agreed order.

mod copies;
mod route;

use std::{fmt, net::SocketAddr, str::FromStr};

use awc::http::Uri;

pub(super) use self::route::ROUTE_KEYS;
pub use self::{
    copies::{Hook, HookUrl, WebCopies},
    route::{Commutes, ReadPolicy, RedoPolicy, WebRoute},
};
use super::{
    ClientAccess, ConfigError, Durability, Listen, NodeRole, Peer, Section, refuse_open, units,
};

/// A server behind the agreed order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebConfig {
    /// Where clients reach it.
    pub listen: SocketAddr,
    /// The server: `http://127.0.0.1:9001`, with a path that is put before every request's; or
    /// `redis://127.0.0.1:6379`.
    pub upstream: String,
    /// What puts requests in their order.
    pub order: WebOrder,
    /// Bytes of the largest body of an ordered request.
    pub body_bytes_max: u64,
    /// What becomes of a site whose server answers otherwise than the others'.
    pub on_mismatch: OnMismatch,
    /// How its content is passed on, and taken from another; none: by hand.
    pub copies: Option<WebCopies>,
    /// Exceptions, by path.
    pub routes: Vec<WebRoute>,
}

/// What puts the requests of all sites in one order. It is the same at all of them, for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WebOrder {
    /// The cluster's log.
    #[default]
    Paxos,
    /// A group of Scalable Atomic Multicast.
    Sam,
}

impl WebOrder {
    /// So many nodes that are no auxiliaries keep the order of a group: one of them may be lost at any
    /// moment, and the others go on.
    pub const SAM_SERVERS: usize = 3;

    /// Why so many nodes that are no auxiliaries cannot keep it by multicast, if so, and what to do.
    pub(crate) fn refuse_sam(
        servers: usize,
        durability: Durability,
    ) -> Option<(String, &'static str)> {
        if durability == Durability::Memory {
            // Who serves a group is a node that remembers; restarted, one that does not is another.
            let why = "\"sam\" does not go with `durability = \"memory\"`, which forgets the order";
            return Some((why.to_owned(), "use \"fsync\", or \"paxos\""));
        }
        let least = Self::SAM_SERVERS;
        let why = format!("\"sam\" wants {least} nodes that are no auxiliaries, not {servers}");
        (servers < least).then_some((why, "add a member, or use \"paxos\""))
    }
}

impl fmt::Display for WebOrder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Paxos => "paxos",
            Self::Sam => "sam",
        })
    }
}

impl FromStr for WebOrder {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "paxos" => Ok(Self::Paxos),
            "sam" => Ok(Self::Sam),
            other => Err(format!("{other:?} is no order; use \"paxos\" or \"sam\"")),
        }
    }
}

/// What becomes of a site whose server answers otherwise than the others'.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnMismatch {
    /// It is counted and shown.
    #[default]
    Alarm,
    /// It serves no more until it is rebuilt.
    Quarantine,
}

impl WebConfig {
    /// The server at `upstream` behind `listen`, and all else as usual.
    pub fn new(listen: SocketAddr, upstream: impl Into<String>) -> Self {
        Self {
            listen,
            upstream: upstream.into(),
            order: WebOrder::default(),
            body_bytes_max: BODY_BYTES,
            on_mismatch: OnMismatch::default(),
            copies: None,
            routes: Vec::new(),
        }
    }

    /// The route of a request, if it has one of its own.
    pub fn route(&self, method: &str, path: &str) -> Option<&WebRoute> {
        let mine = self.routes.iter().filter(|route| route.covers(method, path));
        // Of two that are as long the one that names its methods says more.
        mine.max_by_key(|route| (route.path.trim_end_matches('/').len(), !route.methods.is_empty()))
    }
}

/// Reads it; none when the file has no such section.
pub(super) fn read(
    top: &Section<'_>,
    role: NodeRole,
    others: &Listen,
    clients: &ClientAccess,
) -> Result<Option<WebConfig>, ConfigError> {
    if !top.has("web") {
        return Ok(None);
    }
    let section = top.section("web")?;
    if role != NodeRole::Main {
        let why = format!("is there at a node that is {role}");
        return Err(top.refuse("web", why, "only a main has a server behind it: remove it"));
    }
    let listen = section.parse("listen", "an address such as \"127.0.0.1:8080\"", |text| {
        units::listen_address(text)
    })?;
    let listen =
        listen.ok_or_else(|| section.refuse("listen", "missing key", "give it an address"))?;
    refuse_open(&section, "listen", listen, clients)?;
    if listen == others.http || Some(listen) == others.resp {
        return Err(section.refuse("listen", "the same address as another", "use two ports"));
    }
    let upstream: Upstream = section.need("upstream", UPSTREAM)?;
    if upstream.is_at(listen) {
        let why = "is this port itself";
        return Err(section.refuse("upstream", why, "name the server that stands behind it"));
    }
    let order =
        section.parse("order", "\"paxos\" or \"sam\"", str::parse::<WebOrder>)?.unwrap_or_default();
    let on_mismatch = section.parse("on_mismatch", "\"alarm\" or \"quarantine\"", mismatch)?;
    let mut routes: Vec<WebRoute> = Vec::new();
    for route in section.list("routes")? {
        let read = route::read(&route)?;
        if routes.iter().any(|one| (&one.path, &one.methods) == (&read.path, &read.methods)) {
            let why = format!("{} is there twice", read.path);
            return Err(route.refuse("path", why, "make one of them"));
        }
        routes.push(read);
    }
    let body_bytes_max = section.size("body", 1..=BODY_BYTES_MAX, BODY_BYTES)?;
    let on_mismatch = on_mismatch.unwrap_or_default();
    let copies = copies::read(&section)?;
    let upstream = upstream.0;
    Ok(Some(WebConfig { listen, upstream, order, body_bytes_max, on_mismatch, copies, routes }))
}

/// What an order by multicast needs of the node and its cluster.
pub(super) fn check_sam(
    top: &Section<'_>,
    peers: &[Peer],
    join: bool,
    durability: Durability,
) -> Result<(), ConfigError> {
    let servers = peers.iter().filter(|peer| peer.role != NodeRole::Auxiliary).count();
    // One that came later need not know all others by its file.
    let servers = if join { WebOrder::SAM_SERVERS } else { servers };
    let refused = WebOrder::refuse_sam(servers, durability);
    refused.map_or(Ok(()), |(why, hint)| Err(top.section("web")?.refuse("order", why, hint)))
}

/// The URL of a server: checked, without a slash at its end.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Upstream(pub(crate) String);

impl Upstream {
    /// Whether it speaks the protocol of Redis.
    pub(crate) fn is_redis(&self) -> bool {
        self.0.starts_with("redis:")
    }

    /// Whether it is named by this address.
    fn is_at(&self, address: SocketAddr) -> bool {
        let named = self.0.split_once("://").map(|(_, rest)| rest.split('/').next());
        named.flatten().is_some_and(|named| named.parse() == Ok(address))
    }
}

impl FromStr for Upstream {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let want = "write it like http://127.0.0.1:9001, or redis://127.0.0.1:6379";
        let uri: Uri =
            text.parse().map_err(|error| format!("{text:?} is no URL ({error}); {want}"))?;
        match uri.scheme_str() {
            Some("http") => {}
            // The databases are the clients', and whoever reads the file would read a password.
            Some("redis") if uri.path().len() < 2 => {}
            Some("redis") => return Err(format!("{text:?} names a database; {want}")),
            Some(other) => {
                let why = format!("this build speaks http and redis to servers, not {other}");
                return Err(format!("{why}; {want}"));
            }
            None => return Err(format!("{text:?} has no http:// or redis://; {want}")),
        }
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        let host = uri.host().unwrap_or_default();
        // What stands behind the host is a port, or nothing at all.
        let port = authority
            .strip_prefix(host)
            .is_some_and(|port| port.is_empty() || uri.port_u16().is_some_and(|number| number > 0));
        if host.is_empty() || !port || text.contains(['?', '#']) {
            return Err(format!("{text:?} is no server's address; {want}"));
        }
        Ok(Self(text.trim_end_matches('/').to_owned()))
    }
}

fn mismatch(text: &str) -> Result<OnMismatch, String> {
    match text {
        "alarm" => Ok(OnMismatch::Alarm),
        "quarantine" => Ok(OnMismatch::Quarantine),
        other => Err(format!("{other:?} is no policy; use \"alarm\" or \"quarantine\"")),
    }
}

const UPSTREAM: &str = "a URL such as \"http://127.0.0.1:9001\" or \"redis://127.0.0.1:6379\"";

/// Its keys.
pub(super) const KEYS: &[&str] = &[
    "listen",
    "upstream",
    "order",
    "on_mismatch",
    "body",
    "routes",
    "export",
    "import",
    "rebuild_within",
    "rebuild_bytes",
];

/// What people send by HTTP, mostly.
const BODY_BYTES: u64 = 64 << 20;

/// Two mains keep it on disk until all servers have performed the request, and a few such bodies are to
/// have room.
const BODY_BYTES_MAX: u64 = 8 << 30;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_route_that_covers_a_request_counts() {
        let mut config = WebConfig::new("127.0.0.1:1".parse().unwrap(), "http://localhost:2");
        let only = |methods: &[&str], path: &str| WebRoute {
            methods: methods.iter().map(|&one| one.to_owned()).collect(),
            ..WebRoute::new(path)
        };
        config.routes =
            vec![only(&[], "/"), only(&[], "/a"), only(&["PUT"], "/a"), only(&[], "/a/b/")];
        let route = |method: &str, path: &str| {
            config.route(method, path).map(|route| (route.path.as_str(), route.methods.len()))
        };
        assert_eq!(route("GET", "/ab"), Some(("/", 0)));
        assert_eq!(route("GET", "/a?b"), Some(("/a", 0)));
        assert_eq!(route("PUT", "/a/c"), Some(("/a", 1)));
        assert_eq!(route("PUT", "/a/b"), Some(("/a/b/", 0)));
        config.routes.remove(0);
        assert!(config.route("GET", "/ab").is_none());
    }

    #[test]
    fn an_upstream_is_a_server_of_http_or_redis() {
        let good = |text: &str| text.parse::<Upstream>().map(|upstream| upstream.0);
        assert_eq!(good("http://127.0.0.1:9001/"), Ok("http://127.0.0.1:9001".to_owned()));
        assert_eq!(good("http://[::1]:80/dav"), Ok("http://[::1]:80/dav".to_owned()));
        assert_eq!(good("redis://127.0.0.1:6379/"), Ok("redis://127.0.0.1:6379".to_owned()));
        for bad in [
            "",
            "localhost:1",
            "ftp://a",
            "redis://a:1/2",
            "redis://:secret@a:1",
            "http://",
            "http://a:0",
            "http://u@a",
            "http://a/?q",
            "http://a:b",
            "http://a:99999",
        ] {
            assert!(good(bad).is_err(), "{bad}");
        }
        let dav: Upstream = "http://127.0.0.1:80/dav".parse().unwrap();
        assert!(dav.is_at("127.0.0.1:80".parse().unwrap()) && !dav.is_redis());
        assert!(!dav.is_at("127.0.0.1:81".parse().unwrap()));
    }
}
