//! Fields of requests: what of them comes to the server, and which requests are refused for them. Each with
//! the section of RFC 9110 or 9112 that says so.

use crate::testing::{Reply, Server, Site};

/// The section, and fields that no server is shown: beside a length of five.
const HIDDEN: &[(&str, &str)] = &[
    ("9110 7.6.1", "Connection: X-Hop\r\nX-Hop: 1"),
    ("9110 7.6.1", "Connection: close, x-hop\r\nX-HOP: 1"),
    ("9110 7.6.1", "Keep-Alive: timeout=5"),
    ("9110 7.6.1", "Proxy-Connection: keep-alive"),
    ("9110 10.1.4", "TE: trailers, deflate"),
    ("9110 6.6.2", "Trailer: X-Late"),
    ("9110 7.8", "Connection: Upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: AAA"),
    ("9110 11.7.2", "Proxy-Authorization: Basic eA=="),
    ("9110 10.1.1", "Expect: something"),
    // Made up: they are the site's own.
    ("9110 5.1", "Synod-Seq: 9\r\nSynod-Time: then\r\nSynod-Seed: 7\r\nSynod-Redo: 1"),
    // Servers that hand fields on as variables take one for the other (RFC 3875, 4.1.18).
    ("3875 4.1.18", "Synod_Seq: 9\r\nSynod_Time: then\r\nSynod_Seed: 7\r\nSynod_Redo: 1"),
    ("3875 4.1.18", "Content_Length: 9\r\nTransfer_Encoding: chunked"),
    ("3875 4.1.18", "Keep_Alive: 5\r\nProxy_Authorization: Basic eA=="),
];

/// The section, and a `Host` that is none.
const HOSTS: &[(&str, &str)] = &[
    ("9112 3.2", "a b"),
    ("9112 3.2", "a/b"),
    ("9112 3.2", "a?b"),
    ("9112 3.2", "a#b"),
    ("9112 3.2", "user@a"),
    ("9112 3.2", "a:b:c"),
    ("9112 3.2", "\"a\""),
    ("9112 3.2", "[::1"),
    ("9112 3.2", "http://a"),
    ("9112 3.2", "\u{e9}"),
];

/// The section, and a head, without its end, of which a line ends for some readers and not for others, or a
/// name or value begins there.
const LOOSE: &[(&str, &str)] = &[
    ("9112 2.2", "PUT /a HTTP/1.1\nHost: s\r\n"),
    ("9112 2.2", "PUT /a HTTP/1.1\r\nHost: s\nX: y\r\n"),
    ("9112 2.2", "PUT /a HTTP/1.1\r\nHost: s\r\nX: y\nContent-Length: 99\r\n"),
    ("9112 2.2", "PUT /a HTTP/1.1\r\nHost: s\r\nX:\nTransfer-Encoding: chunked\r\n"),
    ("9112 2.2", "PUT /a HTTP/1.1\r\nHost: s\r\nX: y\n\nGET /a HTTP/1.1\r\nHost: s\r\n"),
    ("9112 2.2", "PUT /a HTTP/1.1\r\nHost: s\r\n\rX: y\r\n"),
    ("9112 2.2", "PUT /a HTTP/1.1\r\nHost: s\r\nContent\r-Length: 9\r\n"),
    ("9112 5.2", "PUT /a HTTP/1.1\r\nHost: s\r\nContent-Length:\r\n \r\n 9\r\n"),
    ("9112 5.1", "PUT /a HTTP/1.1\r\nHost: s\r\nContent-Length\x0b: 9\r\n"),
    ("9112 5.1", "PUT /a HTTP/1.1\r\nHost: s\r\nContent-Length\x0c: 9\r\n"),
    ("9112 5.1", "PUT /a HTTP/1.1\r\nHost: s\r\nContent-Length\x7f: 9\r\n"),
    ("9112 5.1", "PUT /a HTTP/1.1\r\nHost: s\r\nContent\u{ad}Length: 9\r\n"),
    ("9112 5.1", "PUT /a HTTP/1.1\r\nHost: s\r\nContent\\Length: 9\r\n"),
    ("9112 5.1", "PUT /a HTTP/1.1\r\nHost: s\r\nContent-Length x: 9\r\n"),
    ("9110 5.5", "PUT /a HTTP/1.1\r\nHost: s\r\nContent-Length: 9\x7f\r\n"),
    ("9110 5.5", "PUT /a HTTP/1.1\r\nHost: s\r\nContent-Length: \u{a0}9\r\n"),
    ("9110 8.6", "PUT /a HTTP/1.1\r\nHost: s\r\nContent-Length: 0 9\r\n"),
    ("9112 6.1", "PUT /a HTTP/1.1\r\nHost: s\r\nTransfer-Encoding: 'chunked'\r\n"),
    ("9112 6.1", "PUT /a HTTP/1.1\r\nHost: s\r\nTransfer-Encoding: chunk\r\n"),
    (
        "9112 6.1",
        "PUT /a HTTP/1.1\r\nHost: s\r\nTransfer-Encoding: identity, chunked, identity\r\n",
    ),
    ("9112 6.1", "PUT /a HTTP/1.1\r\nHost: s\r\nTransfer-Encoding: chunked\x7f\r\n"),
    ("9112 6.1", "PUT /a HTTP/1.1\r\nHost: s\r\nTransfer-Encoding: \u{a0}chunked\r\n"),
];

/// Goal: what is said of a connection, or is not the client's to say, comes to no server, and all else does.
#[actix_web::test]
async fn what_is_not_the_clients_to_say_comes_to_no_server() {
    let server = Server::store();
    let site = Site::start(&server, |_| ());
    for (seq, (section, fields)) in (1..).zip(HIDDEN) {
        let names = fields.split("\r\n").map(|field| field.split(':').next().unwrap());
        let names: Vec<_> = names.map(str::to_ascii_lowercase).collect();
        let text = format!(
            "PUT /a HTTP/1.1\r\nHost: s\r\n{fields}\r\nX-Own: 1\r\nContent-Length: 5\r\n\r\nhello\
             GET /a HTTP/1.1\r\nHost: s\r\n{fields}\r\nX-Own: 1\r\nConnection: close\r\n\r\n"
        );
        let said = site.talk(&text).await;
        // A connection may end behind the first.
        let heard = server.heard.borrow_mut().split_off(0);
        assert!(said.starts_with("HTTP/1.1 20"), "{section}: {fields}: {said}");
        assert_eq!(heard[0].body, b"hello", "{section}: {fields}");
        for heard in heard {
            let ordered = heard.method() == "PUT";
            let seq = ordered.then(|| u64::to_string(&seq));
            let time = ordered.then_some("2026-11-21T22:08:00.123Z");
            let seed = ordered.then_some("0000000000000007");
            assert_eq!(heard.header("x-own"), Some("1"), "{section}: {}", heard.head);
            for name in &names {
                let ours = match name.as_str() {
                    "synod-seq" => seq.as_deref(),
                    "synod-time" => time,
                    "synod-seed" => seed,
                    _ => None,
                };
                assert_eq!(heard.header(name), ours, "{section}: {name}: {}", heard.head);
            }
        }
    }
}

/// Goal: no trailer is a header (RFC 9110, 6.5.1), whatever it is called.
#[actix_web::test]
async fn no_trailer_of_a_request_is_a_header() {
    let server = Server::store();
    let site = Site::start(&server, |_| ());
    let late = [
        "X-Late: 1",
        "Authorization: x",
        "Host: evil",
        "Content-Length: 99",
        "Synod-Seq: 99",
        "Cookie: a=b",
        "Idempotency-Key: k",
        "Transfer-Encoding: gzip",
    ];
    let text = format!(
        "PUT /a HTTP/1.1\r\nHost: s\r\nTrailer: X-Late\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n\
         5\r\nhello\r\n0\r\n{}\r\n\r\n",
        late.join("\r\n"),
    );
    assert_eq!(Reply::read(&site.talk(&text).await).status, 201);
    let heard = server.heard.borrow()[0].clone();
    for name in
        ["x-late", "authorization", "cookie", "idempotency-key", "transfer-encoding", "trailer"]
    {
        assert_eq!(heard.header(name), None, "{}", heard.head);
    }
    let ours =
        ["host", "content-length", "synod-seq"].map(|name| heard.header(name).unwrap().to_owned());
    assert_eq!(ours, ["s", "5", "1"]);
}

#[actix_web::test]
async fn a_host_that_is_none_is_refused_and_one_in_the_target_names_no_user() {
    let server = Server::store();
    let site = Site::start(&server, |_| ());
    for (section, host) in HOSTS {
        let said = site
            .talk(&format!("PUT /a HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"))
            .await;
        assert!(said.starts_with("HTTP/1.1 400 "), "{section}: {host}: {said}");
    }
    assert_eq!(server.asked(), []);
    for host in [
        "",
        "s",
        "s:80",
        "a_b.example",
        "[::1]",
        "[::1]:80",
        "127.0.0.1:8080",
        "xn--e1afmkfd.example",
    ] {
        let said = site
            .talk(&format!("PUT /a HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"))
            .await;
        assert!(said.starts_with("HTTP/1.1 20"), "{host}: {said}");
        assert_eq!(server.heard.borrow_mut().pop().unwrap().header("host"), Some(host));
    }
    // RFC 9110, 4.2.4.
    let target =
        "PUT http://me:secret@other.example:80/a HTTP/1.1\r\nHost: s\r\nConnection: close\r\n\r\n";
    assert!(site.talk(target).await.starts_with("HTTP/1.1 20"));
    let heard = server.heard.borrow_mut().pop().unwrap();
    assert_eq!(heard.header("host"), Some("other.example:80"));
    assert!(!heard.head.contains("secret"), "{}", heard.head);
}

#[actix_web::test]
async fn a_head_that_another_reader_could_cut_otherwise_is_refused_and_its_connection_ends() {
    let server = Server::store();
    let site = Site::start(&server, |_| ());
    for (section, head) in LOOSE {
        let said =
            site.talk(&format!("{head}\r\nDELETE /hidden HTTP/1.1\r\nHost: s\r\n\r\n")).await;
        assert!(said.starts_with("HTTP/1.1 400 "), "{section}: {head:?}: {said:?}");
        assert_eq!(said.matches("HTTP/1.1").count(), 1, "{section}: {head:?}: {said:?}");
        assert_eq!(server.asked(), [], "{section}: {head:?}");
    }
}
