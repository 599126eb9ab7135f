//! What a server behind may answer wrong, oddly or not at all: each with what clients are told, and the
//! section of RFC 9112 or 9110 that says so.

use std::rc::Rc;

use tokio::time::timeout;

use crate::testing::{PATIENCE, Reply, Say, Server, Site};

/// What becomes of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    /// The server's own: its status and body.
    Whole(u16, &'static str),
    /// None: the client of an ordered request does not know, that of a read does.
    None,
    /// It said nothing for too long.
    Late,
    /// It breaks off, when its head is out already; where it is ordered: none.
    Broken,
}

use Told::{Broken, Late, None as Nothing, Whole};

const OK: &str = "HTTP/1.1 200 OK\r\n";

/// The section, what is odd, what follows [`OK`], whether the server hangs up behind it, what is told.
const BODIES: &[(&str, &str, &str, bool, Told)] = &[
    (
        "9112 6.3 (4)",
        "in chunks",
        "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        false,
        Whole(200, "abc"),
    ),
    ("9112 6.3 (6)", "of a length", "Content-Length: 3\r\n\r\nabc", false, Whole(200, "abc")),
    ("9112 6.3 (8)", "to the connection's end", "\r\nabc", true, Whole(200, "abc")),
    ("9112 9.6", "to the end, as is said", "Connection: close\r\n\r\nabc", true, Whole(200, "abc")),
    (
        "9112 9.6",
        "a length and the end",
        "Connection: close\r\nContent-Length: 3\r\n\r\nabc",
        true,
        Whole(200, "abc"),
    ),
    (
        "9112 6.3 (6)",
        "the same length twice",
        "Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
        false,
        Whole(200, "abc"),
    ),
    (
        "9112 6.3 (6)",
        "more than its length",
        "Content-Length: 3\r\n\r\nabcdef",
        false,
        Whole(200, "abc"),
    ),
    (
        "9112 6.3",
        "a second answer",
        "Content-Length: 3\r\n\r\nabcHTTP/1.1 200 OK\r\n\r\nforged",
        false,
        Whole(200, "abc"),
    ),
    ("9112 8", "less than its length", "Content-Length: 9\r\n\r\nabc", true, Broken),
    ("9112 8", "no last chunk", "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", true, Broken),
    ("9112 8", "half a chunk", "Transfer-Encoding: chunked\r\n\r\n9\r\nabc", true, Broken),
    (
        "9112 8",
        "no end of its trailers",
        "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX: a\r\n",
        true,
        Broken,
    ),
    ("9112 8", "half a head", "Content-Len", true, Nothing),
    ("9112 8", "silence in its middle", "Content-Length: 9\r\n\r\nabc", false, Broken),
    ("9112 8", "silence in its head", "Content-Length: 9\r\n", false, Late),
    (
        "9112 6.3 (5)",
        "two lengths",
        "Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        false,
        Nothing,
    ),
    ("9112 6.3 (5)", "two lengths in one line", "Content-Length: 3, 4\r\n\r\nabcd", false, Nothing),
    ("9112 6.3 (5)", "a length that is none", "Content-Length: 0x3\r\n\r\nabc", false, Nothing),
    ("9112 6.3 (5)", "a length below nothing", "Content-Length: -3\r\n\r\nabc", false, Nothing),
    (
        "9112 6.3 (5)",
        "a length beyond 64 bits",
        "Content-Length: 18446744073709551619\r\n\r\nabc",
        false,
        Nothing,
    ),
    (
        "9112 6.3 (3)",
        "a length and chunks",
        "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        false,
        Nothing,
    ),
    ("9112 6.1", "another coding", "Transfer-Encoding: gzip\r\n\r\nabc", true, Nothing),
    (
        "9112 6.1",
        "chunks twice",
        "Transfer-Encoding: chunked, chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        false,
        Nothing,
    ),
    (
        "9112 6.1",
        "chunks that are not last",
        "Transfer-Encoding: chunked, identity\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        false,
        Nothing,
    ),
    (
        "9112 7.1",
        "an extension",
        "Transfer-Encoding: chunked\r\n\r\n3;a=\"b\"\r\nabc\r\n0\r\n\r\n",
        false,
        Whole(200, "abc"),
    ),
    (
        "9112 7.1",
        "a size that is none",
        "Transfer-Encoding: chunked\r\n\r\nx\r\nabc\r\n0\r\n\r\n",
        false,
        Broken,
    ),
    (
        "9112 7.1",
        "a size with a sign",
        "Transfer-Encoding: chunked\r\n\r\n+3\r\nabc\r\n0\r\n\r\n",
        false,
        Broken,
    ),
    (
        "9112 7.1",
        "a size beyond 64 bits",
        "Transfer-Encoding: chunked\r\n\r\n10000000000000003\r\nabc\r\n0\r\n\r\n",
        false,
        Broken,
    ),
    (
        "9112 7.1",
        "a chunk that is longer",
        "Transfer-Encoding: chunked\r\n\r\n2\r\nabc\r\n0\r\n\r\n",
        false,
        Broken,
    ),
    (
        "9112 2.2",
        "a bare LF behind a size",
        "Transfer-Encoding: chunked\r\n\r\n3\nabc\r\n0\r\n\r\n",
        false,
        Broken,
    ),
    ("9112 5.2", "a folded field", "X: a\r\n b\r\nContent-Length: 3\r\n\r\nabc", false, Nothing),
    ("9112 5.1", "a space before a colon", "Content-Length : 3\r\n\r\nabc", false, Nothing),
    ("9112 5", "no name", ": a\r\nContent-Length: 3\r\n\r\nabc", false, Nothing),
    ("9110 5.5", "a NUL in a value", "X: a\0b\r\nContent-Length: 3\r\n\r\nabc", false, Nothing),
    (
        "9112 2.2",
        "a carriage return in a value",
        "X: a\rY: b\r\nContent-Length: 3\r\n\r\nabc",
        false,
        Nothing,
    ),
];

/// The section, what is odd, the whole answer, whether the server hangs up behind it, what is told.
const HEADS: &[(&str, &str, &str, bool, Told)] = &[
    (
        "9112 4",
        "no reason",
        "HTTP/1.1 200\r\nContent-Length: 3\r\n\r\nabc",
        false,
        Whole(200, "abc"),
    ),
    (
        "9112 4",
        "a status of two digits",
        "HTTP/1.1 20 OK\r\nContent-Length: 3\r\n\r\nabc",
        false,
        Nothing,
    ),
    (
        "9112 4",
        "a status of four digits",
        "HTTP/1.1 2000 OK\r\nContent-Length: 3\r\n\r\nabc",
        false,
        Nothing,
    ),
    (
        "9110 15",
        "a status below all",
        "HTTP/1.1 099 Odd\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc",
        false,
        Nothing,
    ),
    ("9112 4", "no version", "200 OK\r\nContent-Length: 3\r\n\r\nabc", false, Nothing),
    ("9112 2.3", "another version", "HTTP/2 200\r\nContent-Length: 3\r\n\r\nabc", false, Nothing),
    ("9112 4", "another protocol", "ICY 200 OK\r\nContent-Length: 3\r\n\r\nabc", false, Nothing),
    ("9112 4", "a page without a head", "<html>not found</html>\r\n\r\n", true, Nothing),
    ("9112 9.8", "nothing at all", "", true, Nothing),
    ("9112 9.8", "silence", "", false, Late),
    (
        "9110 15.2",
        "interim answers before it",
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc",
        false,
        Whole(200, "abc"),
    ),
    ("9110 15.2", "an interim answer and silence", "HTTP/1.1 100 Continue\r\n\r\n", false, Late),
    ("9110 15.2", "an interim answer and the end", "HTTP/1.1 100 Continue\r\n\r\n", true, Nothing),
    (
        "9110 15.2.2",
        "another protocol that nobody asked for",
        "HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\nabc",
        false,
        Nothing,
    ),
    (
        "9112 6.3 (1)",
        "204 with a length and a body",
        "HTTP/1.1 204 No Content\r\nContent-Length: 3\r\n\r\nabc",
        false,
        Whole(204, ""),
    ),
    (
        "9112 6.3 (1)",
        "204 in chunks",
        "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        false,
        Whole(204, ""),
    ),
    (
        "9112 6.3 (1)",
        "304 with a length",
        "HTTP/1.1 304 Not Modified\r\nContent-Length: 3\r\n\r\n",
        false,
        Whole(304, ""),
    ),
    (
        "9112 6.3 (1)",
        "304 with a body",
        "HTTP/1.1 304 Not Modified\r\nContent-Length: 3\r\n\r\nabc",
        false,
        Whole(304, ""),
    ),
    (
        "9112 6.1",
        "chunks in HTTP/1.0",
        "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        false,
        Whole(200, "abc"),
    ),
    ("9112 9.3", "HTTP/1.0 to the end", "HTTP/1.0 200 OK\r\n\r\nabc", true, Whole(200, "abc")),
];

const GOOD: &str = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood";

/// The body of an answer, without its chunks; none where it is not whole.
fn body(reply: &Reply) -> Option<String> {
    if let Some(length) = reply.header("content-length").filter(|_| reply.status != 304) {
        let length: usize = length.parse().unwrap();
        return (reply.body.len() == length).then(|| reply.body.clone());
    }
    if reply.header("transfer-encoding").is_none() {
        return Some(reply.body.clone());
    }
    let (mut rest, mut all) = (reply.body.as_str(), String::new());
    while let Some((size, more)) = rest.split_once("\r\n") {
        match usize::from_str_radix(size, 16).unwrap() {
            0 => return Some(all),
            size => (all, rest) = (all + more.get(..size)?, more.get(size + 2..)?),
        }
    }
    None
}

/// What a request of this site's port is told, by `GET` or `PUT`.
async fn told(site: &Site, method: &str, path: &str) -> Told {
    let text = format!(
        "{method} {path} HTTP/1.1\r\nHost: s\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
    );
    let said = timeout(PATIENCE * 30, site.talk(&text)).await.expect("it is answered");
    if said.is_empty() {
        return Broken;
    }
    let reply = Reply::read(&said);
    let Some(body) = body(&reply) else { return Broken };
    match (reply.status, method) {
        (502 | 504, _) if body.starts_with("{\"error\"") => {
            match (reply.outcome().as_str(), method) {
                ("unknown", "PUT") if body.contains("nothing for") => Late,
                ("unknown", "PUT") => Nothing,
                ("not_applied", "GET") if reply.status == 504 => Late,
                ("not_applied", "GET") => Nothing,
                (outcome, _) => panic!("{method} is told {outcome}"),
            }
        }
        // Only that it is the one of the list.
        (status, _) => Whole(
            status,
            ["", "abc", "good"].into_iter().find(|one| *one == body).unwrap_or("another"),
        ),
    }
}

/// Goal: clients are told what the server answered or that there is no answer, never a part or a forged one,
/// and nothing of it is in the next one. Method: every answer of the lists, to a request that is ordered
/// and to one that is not; behind each a good one.
#[actix_web::test]
async fn a_client_is_told_the_servers_answer_or_that_there_is_none() {
    let bodies = BODIES.iter().map(|(section, what, text, last, told)| {
        (section, what, format!("{OK}{text}"), *last, *told)
    });
    let heads = HEADS
        .iter()
        .map(|(section, what, text, last, told)| (section, what, (*text).to_owned(), *last, *told));
    let many: String = (0..200).map(|at| format!("X-{at}: y\r\n")).collect();
    let long = format!("X: {}\r\n", "y".repeat(100_000));
    let large =
        [("more fields than are read", many), ("a field that is longer than all are", long)];
    let large = large.map(|(what, fields)| {
        (&"9112 3", what, format!("{OK}{fields}Content-Length: 0\r\n\r\n"), false, Nothing)
    });
    let large = large
        .iter()
        .map(|(section, what, text, last, told)| (*section, what, text.clone(), *last, *told));
    let all: Rc<Vec<_>> = Rc::new(bodies.chain(heads).chain(large).collect());
    let rows: Vec<(String, bool)> =
        all.iter().map(|(_, _, text, last, _)| (text.clone(), *last)).collect();
    let server = Server::start(move |heard| match heard.path()[1..].parse::<usize>() {
        Ok(at) if rows[at].1 => Say::Last(rows[at].0.clone()),
        Ok(at) => Say::This(rows[at].0.clone()),
        Err(_) => Say::This(GOOD.to_owned()),
    });
    let site = Site::start(&server, |_| ());
    let mut wrong = Vec::new();
    for (at, (section, what, _, _, expected)) in all.iter().enumerate() {
        for method in ["PUT", "GET"] {
            let expected = match expected {
                // All of it is read before the client is told a word.
                Broken if method == "PUT" && what.starts_with("silence") => Late,
                Broken if method == "PUT" => Nothing,
                expected => *expected,
            };
            let told = told(&site, method, &format!("/{at}")).await;
            let next = self::told(&site, method, "/good").await;
            if (told, next) != (expected, Whole(200, "good")) {
                wrong.push(format!("{section}: {what}: {method} is told {told:?}, then {next:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{} are told otherwise:\n{}", wrong.len(), wrong.join("\n"));
}

/// Goal: what is said of a connection is said of one (RFC 9110, 7.6.1), and no trailer is a header (6.5.1).
#[actix_web::test]
async fn nothing_of_the_servers_connection_comes_to_a_client() {
    let server = Server::start(|_| {
        let fields = "Connection: X-Hop, close\r\nX-Hop: 1\r\nKeep-Alive: timeout=9\r\nProxy-Connection: close\r\n\
                      TE: trailers\r\nTrailer: X-Late\r\nUpgrade: h2c\r\nProxy-Authenticate: Basic\r\nX-Own: 1\r\n";
        Say::This(format!(
            "{OK}{fields}Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-Late: 1\r\nSet-Cookie: a=b\r\n\r\n"
        ))
    });
    let site = Site::start(&server, |_| ());
    for method in ["PUT", "GET"] {
        let reply = site.ask(&format!("{method} /a"), &[], "").await;
        assert_eq!((reply.header("x-own"), body(&reply).as_deref()), (Some("1"), Some("abc")));
        for name in [
            "x-hop",
            "keep-alive",
            "proxy-connection",
            "te",
            "trailer",
            "upgrade",
            "proxy-authenticate",
            "x-late",
            "set-cookie",
        ] {
            assert_eq!(reply.header(name), None, "{method}: {name}");
        }
    }
}
