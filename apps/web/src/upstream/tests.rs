//! What a site knows of its server's doing.

use std::{cell::Cell, rc::Rc, time::Duration};

use bytes::Bytes;

use super::Fault;
use crate::{
    Header, Perform as _, Request, Stamp, Unperformed,
    testing::{PATIENCE, Say, Server, TIME_MS, upstream},
};

fn request(method: &str, target: &str, body: &'static str) -> Rc<Request> {
    let host = Header { name: "host".to_owned(), value: b"s".to_vec() };
    Rc::new(Request {
        method: method.to_owned(),
        target: target.to_owned(),
        headers: vec![host],
        body: Bytes::from_static(body.as_bytes()),
        apart: None,
    })
}

const STAMP: Stamp = Stamp { seq: 5, time_ms: TIME_MS, seed: 1, redo: true };

#[actix_web::test]
async fn a_request_done_again_is_marked_and_has_its_number() {
    let server = Server::store();
    let answer = upstream(&server.url).perform(request("PUT", "/a", "x"), STAMP).await.unwrap();
    let heard = server.heard.borrow()[0].clone();
    assert_eq!((heard.header("synod-redo"), heard.header("synod-seq")), (Some("1"), Some("5")));
    let names: Vec<_> = answer.headers.iter().map(|header| header.name.as_str()).collect();
    assert_eq!((answer.status, names), (201, vec!["date", "server"]), "nothing of a connection");
}

#[actix_web::test]
async fn a_length_without_its_body_is_kept() {
    let server = Server::store();
    let upstream = upstream(&server.url);
    upstream.perform(request("PUT", "/a", "hello"), STAMP).await.unwrap();
    let head = upstream.perform(request("HEAD", "/a", ""), STAMP).await.unwrap();
    let length = head.headers.iter().find(|header| header.name == "content-length").unwrap();
    assert_eq!((length.value.as_slice(), head.body.len()), (&b"5"[..], 0));
}

#[actix_web::test]
async fn what_never_left_is_told_from_what_may_have_been_performed() {
    let nobody = upstream("http://127.0.0.1:1").perform(request("PUT", "/a", "x"), STAMP).await;
    assert!(matches!(nobody, Err(Unperformed::NotSent(_))), "{nobody:?}");
    let server = Server::start(|heard| match heard.path() {
        "/hang" => Say::Nothing,
        _ => Say::Last(String::new()),
    });
    for path in ["/hang", "/gone"] {
        let lost = upstream(&server.url).perform(request("PUT", path, "x"), STAMP).await;
        assert!(matches!(lost, Err(Unperformed::Unknown(_))), "{path}: {lost:?}");
    }
    assert_eq!(server.heard.borrow().len(), 2, "each was sent once");
}

#[actix_web::test]
async fn connections_are_kept_and_dead_ones_are_noticed() {
    let turn = Cell::new(0);
    let server = Server::start(move |_| {
        turn.set(turn.get() + 1);
        let text = "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx".to_owned();
        // It hangs up behind the second, without saying so before.
        if turn.get() == 2 { Say::Last(text) } else { Say::This(text) }
    });
    let upstream = upstream(&server.url);
    for _ in 0..4 {
        let answer = upstream.perform(request("PUT", "/a", "x"), STAMP).await.unwrap();
        assert_eq!(&answer.body[..], b"x");
        // The farewell comes.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let ways: Vec<_> = server.heard.borrow().iter().map(|heard| heard.connection).collect();
    assert_eq!(ways, [0, 0, 1, 1]);
}

#[actix_web::test]
async fn an_early_answer_is_heard_while_the_body_is_sent() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    actix_rt::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        stream.writable().await.unwrap();
        let text = b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        stream.try_write(text).unwrap();
        std::future::pending::<()>().await;
    });
    let mut large = (*request("PUT", "/a", "")).clone();
    large.body = Bytes::from(vec![b'x'; 64 << 20]);
    let answer = upstream(&url).perform(Rc::new(large), STAMP).await.unwrap();
    assert_eq!(answer.status, 413);
}

#[actix_web::test]
async fn an_answer_that_nobody_can_keep_is_the_same_error_everywhere() {
    let server = Server::start(|_| {
        Say::Much("HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n".into(), 97_657)
    });
    let answer = upstream(&server.url).perform(request("POST", "/a", ""), STAMP).await.unwrap();
    assert_eq!(answer.status, 502);
    assert!(std::str::from_utf8(&answer.body).unwrap().contains(r#""outcome":"applied""#));
}

#[actix_web::test]
async fn a_path_of_the_server_stands_before_every_target() {
    let server = Server::store();
    let upstream = upstream(&format!("{}/dav/", server.url));
    upstream.perform(request("PUT", "/a", "x"), STAMP).await.unwrap();
    assert_eq!(server.heard.borrow()[0].path(), "/dav/a");
    let silent = Server::start(|_| Say::Nothing);
    let late =
        super::Upstream::read(&crate::testing::upstream(&silent.url), &request("GET", "/", ""))
            .await;
    assert!(matches!(late, Err(Fault::Late(waited)) if waited == PATIENCE));
}
