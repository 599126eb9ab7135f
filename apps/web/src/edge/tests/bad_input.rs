//! Whatever comes is answered, and nothing of it reaches the server that should not.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::timeout,
};

use crate::testing::{Reply, Server, Site, rest};

// One that breaks off was not meant to end there.
#[actix_web::test]
async fn a_body_that_breaks_off_is_no_body() {
    let server = Server::store();
    let site = Site::start(&server, |_| ());
    for head in ["Content-Length: 9", "Transfer-Encoding: chunked"] {
        let mut stream = site.connect().await;
        let text = format!("PUT /a HTTP/1.1\r\nHost: s\r\n{head}\r\n\r\n5\r\nhel");
        stream.write_all(text.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        rest(&mut stream).await;
    }
    assert_eq!(server.asked(), []);
}

/// Goal: a refused client hears why, and its body is not read on and on. Method: one that sends a
/// little more, one that sends without end, one that stops in the middle.
#[actix_web::test]
async fn the_rest_of_a_refused_body_is_thrown_away_within_bounds() {
    let server = Server::store();
    let site = Site::start(&server, |web| web.body_bytes_max = 1_000);
    let chunk = format!("400\r\n{}\r\n", "x".repeat(1_024));
    for head in ["Transfer-Encoding: chunked", "Content-Length: 99999999999"] {
        let head = format!("PUT /a HTTP/1.1\r\nHost: s\r\n{head}\r\n\r\n");
        let mut stream = site.connect().await;
        let (mut hear, mut say) = stream.split();
        let mut sent = 0_usize;
        let talk = async {
            say.write_all(head.as_bytes()).await.unwrap();
            // It hangs up in the end.
            while say.write_all(chunk.as_bytes()).await.is_ok() {
                sent += chunk.len();
            }
        };
        let read = async {
            let mut said = Vec::new();
            let _reset = hear.read_to_end(&mut said).await;
            String::from_utf8(said).unwrap()
        };
        let both = async { tokio::join!(talk, read) };
        let ((), said) = timeout(Duration::from_secs(30), both).await.expect("it hangs up");
        assert!(said.starts_with("HTTP/1.1 413 "), "{head}: {said:?}");
        assert!(said.to_ascii_lowercase().contains("connection: close"), "{said}");
        assert!(sent < 64 << 20, "{sent} bytes were read");
        // One that says no more is not waited for either.
        let said = timeout(Duration::from_secs(15), site.talk(&format!("{head}{chunk}"))).await;
        assert!(said.expect("it hangs up").starts_with("HTTP/1.1 413 "), "{head}");
    }
    assert_eq!(server.asked(), []);
}

#[actix_web::test]
async fn what_is_too_large_is_refused_before_it_is_read() {
    let server = Server::store();
    let site = Site::start(&server, |web| web.body_bytes_max = 1_000);
    let head = "PUT /a HTTP/1.1\r\nHost: s\r\nConnection: close\r\n";
    let declared = site.talk(&format!("{head}Content-Length: 1001\r\n\r\n")).await;
    let declared = Reply::read(&declared);
    assert_eq!((declared.status, declared.outcome().as_str()), (413, "not_applied"));
    let chunk = format!("3e8\r\n{}\r\n", "x".repeat(1_000));
    let chunked = format!("{head}Transfer-Encoding: chunked\r\n\r\n{chunk}1\r\nx\r\n0\r\n\r\n");
    assert!(site.talk(&chunked).await.starts_with("HTTP/1.1 413 "));
    assert_eq!(server.asked(), []);
    let just = format!("{head}Transfer-Encoding: chunked\r\n\r\n{chunk}0\r\n\r\n");
    assert!(site.talk(&just).await.starts_with("HTTP/1.1 201 "));
}

#[actix_web::test]
async fn a_flood_of_headers_is_refused() {
    let server = Server::store();
    let site = Site::start(&server, |_| ());
    let many: String = (0..200).map(|n| format!("X-{n}: y\r\n")).collect();
    let long = format!("X: {}\r\n", "y".repeat(100_000));
    let endless = format!("X: {}", "y".repeat(200_000));
    for headers in [format!("{many}\r\n"), format!("{long}\r\n"), endless] {
        let said = site
            .talk(&format!("PUT /a HTTP/1.1\r\nHost: s\r\nConnection: close\r\n{headers}"))
            .await;
        assert!(said.starts_with("HTTP/1.1 431 "), "{:.80} was answered {said:?}", headers);
    }
    assert_eq!(server.asked(), []);
}

#[actix_web::test]
async fn another_protocol_is_not_put_in_order() {
    let server = Server::store();
    let site = Site::start(&server, |_| ());
    let socket = ["Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13"];
    assert_eq!(site.ask("GET /a", &socket, "").await.status, 501);
    let connect = site.talk("CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n").await;
    assert!(connect.starts_with("HTTP/1.1 501 "), "{connect}");
    assert_eq!(server.asked(), []);
    // A client that only would rather have HTTP/2 is served in HTTP/1.1.
    let h2c = ["Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAA"];
    assert_eq!(site.ask("GET /a", &h2c, "").await.status, 404);
    assert_eq!(server.heard.borrow()[0].header("http2-settings"), None);
    assert_eq!(site.ask("OPTIONS *", &[], "").await.status, 400);
}

#[actix_web::test]
async fn a_client_that_waits_in_the_middle_holds_up_nobody() {
    let server = Server::store();
    let site = Site::start(&server, |_| ());
    let mut slow = Vec::new();
    for text in ["PUT", "PUT /a HTTP/1.1\r\nHost: s\r\nContent-Length: 9\r\n\r\nhel"] {
        let mut stream = site.connect().await;
        stream.write_all(text.as_bytes()).await.unwrap();
        slow.push(stream);
    }
    let put = timeout(Duration::from_secs(5), site.ask("PUT /b", &[], "x")).await.unwrap();
    assert_eq!(put.status, 201);
}
