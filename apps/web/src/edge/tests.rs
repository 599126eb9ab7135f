//! What clients see of a site.

mod answers;
mod bad_input;
mod fields;
mod passing;
mod pipelined;
mod tunnels;
mod vectors;

use std::sync::Arc;

use bytes::Bytes;
use synod::{
    runtime::{
        journal::Durability,
        world::{Disk, disk::RealDisk},
    },
    server::config::{ReadPolicy, WebRoute},
};
use tokio::io::AsyncWriteExt as _;

use crate::{
    Fresh, OrderError,
    bodies::Store,
    testing::{Reply, Say, Server, Site, rest},
};

#[actix_web::test]
async fn what_changes_something_is_ordered_and_tells_its_number() {
    let server = Server::store();
    let site = Site::start(&server, |_| ());
    let put = site.ask("PUT /a?b=c", &["X-A: 1", "TE: trailers", "Synod-Seq: 9"], "hello").await;
    assert_eq!((put.status, put.header("synod-seq")), (201, Some("1")));
    assert_eq!(put.header("synod-session"), Some("1"));
    assert_eq!(put.header("date"), Some("sat, 21 nov 2026 22:08:00 gmt"), "agreed time");
    assert_eq!(put.header("via"), Some("1.1 synod"));
    let heard = server.heard.borrow()[0].clone();
    assert_eq!((heard.path(), heard.body.as_slice()), ("/a?b=c", &b"hello"[..]));
    assert_eq!(heard.header("synod-seq"), Some("1"), "not the client's");
    assert_eq!(heard.header("synod-time"), Some("2026-11-21T22:08:00.123Z"));
    assert_eq!(heard.header("synod-seed"), Some("0000000000000007"));
    assert_eq!(heard.header("date"), Some("Sat, 21 Nov 2026 22:08:00 GMT"));
    assert_eq!(heard.header("forwarded"), Some("for=127.0.0.1;host=\"site\";proto=http"));
    assert_eq!((heard.header("x-a"), heard.header("host")), (Some("1"), Some("site")));
    assert_eq!((heard.header("te"), heard.header("synod-redo")), (None, None));
    let get = site.ask("GET /a", &[], "").await;
    assert_eq!((get.status, get.body.as_str()), (200, "hello"));
    assert_eq!(get.header("synod-seq"), None, "nothing was ordered");
    assert_eq!(*site.order.asked.borrow(), [Fresh::Linearizable]);
    let counted = site.metrics.render();
    assert!(counted.contains("synod_web_requests_total{site=\"a\",verb=\"PUT\"} 1"), "{counted}");
}

#[actix_web::test]
async fn methods_that_can_change_nothing_are_read_and_all_others_ordered() {
    let server = Server::store();
    let site = Site::start(&server, |_| ());
    for method in ["GET", "HEAD", "OPTIONS", "TRACE", "PROPFIND", "REPORT", "SEARCH"] {
        let reply = site.ask(&format!("{method} /a"), &[], "").await;
        assert_eq!(reply.header("synod-seq"), None, "{method}");
    }
    let unsafe_ones =
        ["PUT", "POST", "DELETE", "PATCH", "MKCOL", "COPY", "MOVE", "LOCK", "PROPPATCH", "MADEUP"];
    for (number, method) in (1..).zip(unsafe_ones) {
        let reply = site.ask(&format!("{method} /a"), &[], "").await;
        assert_eq!(reply.header("synod-seq"), Some(number.to_string().as_str()), "{method}");
    }
}

#[actix_web::test]
async fn a_repeated_key_is_answered_as_before_and_not_performed() {
    let server = Server::store();
    let site = Site::start(&server, |_| ());
    let key = ["Idempotency-Key: k 1"];
    let first = site.ask("PUT /a", &key, "x").await;
    assert_eq!((first.status, first.header("idempotent-replayed")), (201, None));
    let again = site.ask("PUT /a", &key, "x").await;
    assert_eq!((again.status, again.header("synod-seq")), (201, Some("1")));
    assert_eq!(again.header("idempotent-replayed"), Some("true"));
    let other = site.ask("PUT /a", &key, "y").await;
    assert_eq!((other.status, other.outcome().as_str()), (422, "not_applied"));
    assert_eq!(server.heard.borrow().len(), 1);
    let known = site.ask("GET /.well-known/synod/outcome/k%201", &[], "").await;
    assert_eq!(known.body, r#"{"outcome":"applied","position":1,"status":201}"#);
    let unknown = site.ask("GET /.well-known/synod/outcome/other", &[], "").await;
    assert_eq!(unknown.body, r#"{"outcome":"unknown","position":null,"status":null}"#);
    let post = site.ask("POST /.well-known/synod/outcome/other", &[], "x").await;
    assert_eq!((post.status, server.heard.borrow().len()), (405, 1));
    assert_eq!(post.header("allow"), Some("get, head"));
}

#[actix_web::test]
async fn whoever_leads_clients_learns_whether_this_site_would_serve_them() {
    const READY: &str = "GET /.well-known/synod/ready";
    let server = Server::store();
    let site = Site::start(&server, |_| ());
    site.ask("PUT /a", &[], "x").await;
    let ready = site.ask(READY, &[], "").await;
    assert_eq!((ready.status, ready.body.as_str()), (200, r#"{"applied":1,"ready":true}"#));
    assert_eq!(*site.order.asked.borrow(), [Fresh::Linearizable], "what it misses would show");
    assert_eq!(site.ask("PUT /.well-known/synod/ready", &[], "x").await.status, 405);
    *site.order.refuse.borrow_mut() = Some(OrderError::Quarantined("it differs".into()));
    let away = site.ask(READY, &[], "").await;
    assert_eq!((away.status, away.header("retry-after")), (503, Some("1")), "{}", away.body);
    let mute = Site::start(&Server::start(|_| Say::Nothing), |_| ());
    let gone = Server { url: "http://127.0.0.1:1".to_owned(), ..server };
    for site in [mute, Site::start(&gone, |_| ())] {
        let down = site.ask(READY, &[], "").await;
        assert_eq!((down.status, down.outcome().as_str()), (503, "not_applied"), "{}", down.body);
    }
}

#[actix_web::test]
async fn a_key_is_text_of_some_length_and_there_is_one() {
    let server = Server::store();
    let site = Site::start(&server, |_| ());
    let long = format!("Idempotency-Key: {}", "k".repeat(10_000));
    for keys in [
        &["Idempotency-Key: "][..],
        &[long.as_str()],
        &["Idempotency-Key: a", "Idempotency-Key: b"],
        &["Idempotency-Key: \u{e9}"],
    ] {
        let reply = site.ask("PUT /a", keys, "x").await;
        assert_eq!((reply.status, reply.outcome().as_str()), (400, "not_applied"), "{keys:?}");
    }
    assert!(server.asked().is_empty());
}

#[actix_web::test]
async fn whoever_is_not_served_learns_what_became_of_the_request() {
    let server = Server::store();
    let site = Site::start(&server, |_| ());
    for (error, write, read) in [
        (OrderError::NotApplied("no quorum".into()), (503, "not_applied"), 503),
        (OrderError::Unknown("too late".into()), (504, "unknown"), 503),
        (OrderError::Quarantined("it differs".into()), (502, "applied"), 503),
    ] {
        *site.order.refuse.borrow_mut() = Some(error.clone());
        let put = site.ask("PUT /a", &[], "x").await;
        assert_eq!((put.status, put.outcome().as_str()), write, "{error}");
        assert_eq!(put.header("retry-after").is_some(), put.status == 503);
        let get = site.ask("GET /a", &[], "").await;
        assert_eq!((get.status, get.outcome().as_str()), (read, "not_applied"), "{error}");
        assert_eq!(get.header("retry-after"), Some("1"));
        let outcome = site.ask("GET /.well-known/synod/outcome/k", &[], "").await;
        assert_eq!(outcome.status, 503);
    }
    assert!(server.asked().is_empty());
}

#[actix_web::test]
async fn each_route_reads_as_fresh_as_it_says() {
    let server = Server::store();
    let site = Site::start(&server, |web| {
        for (path, read) in [
            ("/local", ReadPolicy::Local),
            ("/session", ReadPolicy::Session),
            ("/ordered", ReadPolicy::Ordered),
        ] {
            web.routes.push(WebRoute { read: Some(read), ..WebRoute::new(path) });
        }
    });
    let put = site.ask("PUT /session/a", &[], "x").await;
    let cookie = put.header("set-cookie").unwrap();
    assert_eq!(cookie, "synod-session=1; path=/; httponly; samesite=lax");
    let seen = |line: &'static str, header: &'static str| {
        let site = &site;
        async move {
            let reply = site.ask(line, &[header], "").await;
            (reply, site.order.asked.borrow_mut().pop())
        }
    };
    assert_eq!(seen("GET /a", "A: b").await.1, Some(Fresh::Linearizable));
    assert_eq!(seen("GET /session/a", "Synod-Session: 12").await.1, Some(Fresh::Since(12)));
    assert_eq!(
        seen("GET /x/../session/a", "Cookie: synod-session=1").await.1,
        Some(Fresh::Since(1))
    );
    let (current, fresh) = seen("GET /local/a", "A: b").await;
    assert_eq!((fresh, current.header("synod-stale")), (Some(Fresh::Local), None));
    site.order.behind.set(3);
    let (stale, _) = seen("GET /local/a", "A: b").await;
    assert_eq!(stale.header("synod-stale"), Some("3"));
    let (ordered, fresh) = seen("GET /%6Frdered/a", "A: b").await;
    assert_eq!((fresh, ordered.header("synod-seq")), (None, Some("2")));
    assert_eq!(site.ask("GET /session/a", &["Synod-Session: x"], "").await.status, 400);
}

#[actix_web::test]
async fn what_a_route_removes_and_what_only_a_site_says_comes_to_no_client() {
    let said = "HTTP/1.1 200 OK\r\nETag: \"7-a\"\r\nX-Served-By: a\r\nX-Own: 1\r\nSynod-Seq: 99\r\n\
                Idempotent-Replayed: true\r\nContent-Length: 2\r\n\r\nhi";
    let server = Server::start(move |_| Say::This(said.to_owned()));
    let site = Site::start(&server, |web| {
        let remove = vec!["etag".to_owned(), "x-served-by".to_owned()];
        web.routes.push(WebRoute { remove, ..WebRoute::new("/bare") });
    });
    for method in ["GET", "POST"] {
        let kept = site.ask(&format!("{method} /a"), &[], "").await;
        assert_eq!((kept.header("etag"), kept.header("x-served-by")), (Some("\"7-a\""), Some("a")));
        let bare = site.ask(&format!("{method} /bare/a"), &[], "").await;
        assert_eq!((bare.header("etag"), bare.header("x-served-by")), (None, None), "{method}");
        assert_eq!((bare.status, bare.header("x-own"), &*bare.body), (200, Some("1"), "hi"));
        for reply in [kept, bare] {
            assert_ne!(reply.header("synod-seq"), Some("99"), "{method}");
            assert_eq!(reply.header("idempotent-replayed"), None, "{method}");
        }
    }
}

#[actix_web::test]
async fn a_request_that_asks_for_another_method_is_ordered() {
    let server = Server::store();
    let site = Site::start(&server, |_| ());
    let get = site.ask("GET /a", &["X-HTTP-Method-Override: DELETE"], "").await;
    assert_eq!(get.header("synod-seq"), Some("1"), "its server may well delete something");
    assert_eq!(site.ask("GET /a", &["X-Other: DELETE"], "").await.header("synod-seq"), None);
}

#[actix_web::test]
async fn questions_about_the_way_go_as_far_as_they_say() {
    let server = Server::store();
    let site = Site::start(&server, |_| ());
    let ask = |line: &'static str, left: &'static str| {
        let site = &site;
        async move { site.ask(line, &[&format!("Max-Forwards: {left}")], "").await.status }
    };
    assert_eq!((ask("OPTIONS /a", "0").await, ask("TRACE /a", "0").await), (204, 501));
    assert_eq!((ask("OPTIONS /a", "x").await, ask("TRACE /a", "-1").await), (400, 400));
    assert!(server.asked().is_empty(), "they ended here");
    ask("OPTIONS /a", "7").await;
    ask("GET /a", "0").await;
    let heard = server.heard.borrow();
    let left: Vec<_> = heard.iter().map(|heard| heard.header("max-forwards")).collect();
    assert_eq!(left, [Some("6"), Some("0")], "it says nothing to others");
}

#[actix_web::test]
async fn requests_in_one_packet_are_answered_in_their_order() {
    let server = Server::store();
    let site = Site::start(&server, |_| ());
    let text = "PUT /a HTTP/1.1\r\nHost: s\r\nContent-Length: 1\r\n\r\n1\
                PUT /a HTTP/1.1\r\nHost: s\r\nTransfer-Encoding: chunked\r\n\r\n1;x=y\r\n2\r\n0\r\nT: v\r\n\r\n\
                GET /a HTTP/1.1\r\nHost: s\r\n\r\n\
                DELETE /a HTTP/1.1\r\nHost: s\r\n\r\n\
                GET /a HTTP/1.1\r\nHost: s\r\nConnection: close\r\n\r\n";
    let said = site.talk(text).await;
    let statuses: Vec<_> = said
        .lines()
        .filter_map(|line| line.strip_prefix("HTTP/1.1 "))
        .map(|line| &line[..3])
        .collect();
    // What a body holds stands on the line of the next answer's status.
    assert!(said.contains("\r\n\r\n2HTTP/1.1 200 OK"), "{said}");
    assert_eq!(statuses, ["201", "204", "200", "404"]);
    let asked = [("PUT", "1"), ("PUT", "2"), ("GET", ""), ("DELETE", ""), ("GET", "")];
    let asked = asked.map(|(method, body)| (method.to_owned(), "/a".to_owned(), body.to_owned()));
    assert_eq!(server.asked(), asked);
    assert!(server.heard.borrow().iter().all(|heard| heard.connection == 0), "one is kept");
}

#[actix_web::test]
async fn a_client_that_asks_whether_to_go_on_is_told_so() {
    let server = Server::store();
    let site = Site::start(&server, |web| web.body_bytes_max = 10);
    let mut stream = site.connect().await;
    let head = "PUT /a HTTP/1.1\r\nHost: s\r\nConnection: close\r\nExpect: 100-continue\r\n";
    stream.write_all(format!("{head}Content-Length: 5\r\n\r\n").as_bytes()).await.unwrap();
    let mut interim = [0; 25];
    tokio::io::AsyncReadExt::read_exact(&mut stream, &mut interim).await.unwrap();
    assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"hello").await.unwrap();
    assert_eq!(Reply::read(&rest(&mut stream).await).status, 201);
    assert_eq!(server.heard.borrow()[0].header("expect"), None);
    // One that had better not is told at once.
    let refused = site.talk(&format!("{head}Content-Length: 11\r\n\r\n")).await;
    assert!(refused.starts_with("HTTP/1.1 413 "), "{refused}");
}

#[actix_web::test]
async fn a_large_body_passes_by_the_disk_and_stays_until_its_request_is_answered() {
    let server = Server::store();
    let dir = tempfile::tempdir().unwrap();
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let store = Store::open(&disk, dir.path().to_owned(), Durability::Fsync).unwrap();
    let site = Site::start_keeping(&server, |web| web.body_bytes_max = 10, Some(store.clone()));
    for (headers, body) in [
        (&[][..], "0123456789"),
        (&["Transfer-Encoding: chunked"], "7\r\n0123456\r\n3\r\n789\r\n0\r\n\r\n"),
    ] {
        let mut text = "PUT /a HTTP/1.1\r\nHost: s\r\nConnection: close\r\n".to_owned();
        match headers {
            [chunked, ..] => text += &format!("{chunked}\r\n\r\n{body}"),
            [] => text += &format!("Content-Length: {}\r\n\r\n{body}", body.len()),
        }
        let reply = Reply::read(&site.talk(&text).await);
        assert!(matches!(reply.status, 201 | 204), "{reply:?}");
        let heard = server.heard.borrow().last().cloned().unwrap();
        assert_eq!(
            (heard.header("content-length"), &*heard.body),
            (Some("10"), &b"0123456789"[..])
        );
        // Nobody needs it any more.
        store.sweep(|_| false);
    }
    let long = site.ask("PUT /a", &[], "01234567890").await;
    let chunked =
        "PUT /a HTTP/1.1\r\nHost: s\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n";
    let late = site.talk(&format!("{chunked}8\r\n01234567\r\n8\r\n89012345\r\n0\r\n\r\n")).await;
    assert_eq!((long.status, Reply::read(&late).status), (413, 413));
    // Behind all that was to be removed.
    let kept = store.keep(Bytes::from_static(b"last")).await.unwrap();
    let names = std::fs::read_dir(dir.path()).unwrap().map(|one| one.unwrap().file_name());
    let names: Vec<_> = names.collect();
    assert_eq!(names, [format!("body-{}", kept.digest).as_str()]);
}
