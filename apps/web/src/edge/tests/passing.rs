//! Answers pass through as the server gave them, or it is told that there is none.

use std::{cell::Cell, time::Duration};

use tokio::{io::AsyncReadExt as _, io::AsyncWriteExt as _, time::sleep};

use crate::testing::{Reply, Say, Server, Site};

#[actix_web::test]
async fn heads_ranges_and_conditions_pass_through() {
    let server = Server::store();
    let site = Site::start(&server, |_| ());
    site.ask("PUT /a", &[], "0123456789").await;
    let head = site.ask("HEAD /a", &["If-None-Match: \"x\""], "").await;
    assert_eq!(
        (head.status, head.header("content-length"), head.body.as_str()),
        (200, Some("10"), "")
    );
    assert_eq!(server.heard.borrow()[1].header("if-none-match"), Some("\"x\""));
    let range = site.ask("GET /a", &["Range: bytes=2-4"], "").await;
    assert_eq!((range.status, range.body.as_str()), (206, "234"));
}

#[actix_web::test]
async fn a_body_is_whole_however_its_end_is_told() {
    let server = Server::start(|heard| {
        let chunked =
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
        match heard.path() {
            "/chunked" => Say::This(chunked.into()),
            "/close" => Say::Last("HTTP/1.1 200 OK\r\n\r\nabcde".into()),
            "/old" => Say::Last("HTTP/1.0 200 OK\r\n\r\nabcde".into()),
            _ => Say::This(
                "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabcde".into(),
            ),
        }
    });
    let site = Site::start(&server, |_| ());
    for path in ["/length", "/chunked", "/close", "/old"] {
        let put = site.ask(&format!("PUT {path}"), &[], "x").await;
        assert_eq!((put.status, put.body.as_str()), (200, "abcde"), "{path}");
        let get = site.talk(&format!("GET {path} HTTP/1.0\r\n\r\n")).await;
        let get = Reply::read(&get);
        assert_eq!((get.status, get.body.as_str()), (200, "abcde"), "{path}");
    }
    let get = site.ask("GET /chunked", &[], "").await;
    assert_eq!(get.body, "3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n");
}

/// Goal: a client never takes a part for the whole. Method: servers that break off.
#[actix_web::test]
async fn an_answer_that_breaks_off_is_told_as_such() {
    let server = Server::start(|heard| match heard.path() {
        "/length" => Say::Last("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc".into()),
        "/chunked" => {
            Say::Last("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n".into())
        }
        "/head" => Say::Last("HTTP/1.1 200 OK\r\nContent-".into()),
        "/nothing" => Say::Last(String::new()),
        _ => Say::This("220 mail.example ESMTP\r\n".into()),
    });
    let site = Site::start(&server, |_| ());
    for path in ["/length", "/chunked", "/head", "/nothing", "/mail"] {
        // It was sent: nobody can say whether it was performed.
        let put = site.ask(&format!("PUT {path}"), &[], "x").await;
        assert_eq!((put.status, put.outcome().as_str()), (504, "unknown"), "{path}");
    }
    for path in ["/head", "/nothing", "/mail"] {
        let get = site.ask(&format!("GET {path}"), &[], "").await;
        assert_eq!((get.status, get.outcome().as_str()), (502, "not_applied"), "{path}");
    }
    // The head may have left already; then the connection breaks off, too.
    let request = |path| format!("GET {path} HTTP/1.1\r\nHost: s\r\n\r\n");
    let length = site.talk(&request("/length")).await;
    assert!(length.is_empty() || length.contains("content-length: 9\r\n"), "{length:?}");
    let chunked = site.talk(&request("/chunked")).await;
    assert!(!chunked.contains("0\r\n\r\n"), "{chunked:?}");
}

#[actix_web::test]
async fn a_server_that_is_not_there_or_says_nothing_is_told_of() {
    let server = Server::start(|heard| match heard.path() {
        "/hang" => Say::Nothing,
        _ => Say::This("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx".into()),
    });
    let site = Site::start(&server, |_| ());
    let (hung, good) = tokio::join!(site.ask("GET /hang", &[], ""), site.ask("GET /a", &[], ""));
    assert_eq!((hung.status, hung.outcome().as_str()), (504, "not_applied"));
    assert_eq!(good.body, "x", "nobody else is hurt");
    let mut gone = server.clone();
    gone.url = "http://127.0.0.1:1".to_owned();
    let site = Site::start(&gone, |_| ());
    let get = site.ask("GET /a", &[], "").await;
    assert_eq!((get.status, get.outcome().as_str()), (502, "not_applied"));
}

#[actix_web::test]
async fn a_server_that_answers_twice_is_believed_once() {
    let turn = Cell::new(0);
    let server = Server::start(move |_| {
        turn.set(turn.get() + 1);
        let one = format!("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{}", turn.get());
        Say::This(one + "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged")
    });
    let site = Site::start(&server, |_| ());
    for body in ["1", "2", "3"] {
        assert_eq!(site.ask("GET /a", &[], "").await.body, body);
    }
}

/// Goal: a large answer to a slow client takes little memory here. Method: a client that reads
/// nothing, until the server stands still.
#[actix_web::test]
async fn a_client_that_does_not_read_holds_its_server_back() {
    const MIB: usize = 1 << 20;
    let kibibytes = 256 << 10;
    let server = Server::start(move |_| {
        Say::Much(
            format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", kibibytes << 10),
            kibibytes,
        )
    });
    let site = Site::start(&server, |_| ());
    let mut stream = site.connect().await;
    stream.write_all(b"GET /a HTTP/1.1\r\nHost: s\r\n\r\n").await.unwrap();
    let mut before = usize::MAX;
    while server.said.get() == 0 || server.said.get() != before {
        before = server.said.get();
        sleep(Duration::from_millis(50)).await;
    }
    // What lies in the system's buffers of four sockets is not ours.
    assert!(before < 32 * MIB, "{before} bytes of {} are held", kibibytes << 10);
    let mut read = 0;
    let mut buffer = vec![0; 64 << 10];
    while read < kibibytes << 10 {
        let more = stream.read(&mut buffer).await.unwrap();
        assert!(more > 0, "the body broke off at {read}");
        read += more;
    }
}
