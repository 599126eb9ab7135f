//! Clients that send requests before they have the answers to earlier ones.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use crate::testing::{Server, Site, rest};

/// An answer, in small letters down to its body, and so many bytes of that.
async fn answer(stream: &mut TcpStream, body: usize) -> (String, String) {
    let read = async {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        let mut bytes = vec![0; body];
        stream.read_exact(&mut bytes).await.unwrap();
        (String::from_utf8(head).unwrap().to_ascii_lowercase(), String::from_utf8(bytes).unwrap())
    };
    timeout(Duration::from_secs(20), read).await.expect("it is answered")
}

fn put(path: &str, body: &str) -> String {
    format!("PUT {path} HTTP/1.1\r\nHost: s\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

fn bare(method: &str, version: &str, more: &str) -> String {
    format!("{method} /a HTTP/{version}\r\nHost: s\r\n{more}\r\n")
}

/// Goal: each answer is framed as its own request wants it. Method: requests of all kinds at once,
/// while the first waits for the server behind.
#[actix_web::test]
async fn each_answer_is_its_own_requests() {
    let server = Server::store();
    let site = Site::start(&server, |_| ());
    site.talk(&(put("/a", "first") + &bare("GET", "1.0", ""))).await;
    let chunks = "2;x\r\nho\r\n0\r\nT: r\r\n\r\n";
    let all = [
        (put("/a", "hello"), "1.1 204", None, ""),
        (bare("GET", "1.1", ""), "1.1 200", Some("5"), "hello"),
        (bare("HEAD", "1.1", ""), "1.1 200", Some("5"), ""),
        (bare("GET", "1.1", ""), "1.1 200", Some("5"), "hello"),
        (bare("PUT", "1.1", "Transfer-Encoding: chunked\r\n") + chunks, "1.1 204", None, ""),
        (bare("GET", "1.1", ""), "1.1 200", Some("2"), "ho"),
        (bare("HEAD", "1.1", "Idempotency-Key: \r\n"), "1.1 400", None, ""),
        (bare("GET", "1.0", ""), "1.0 200", Some("2"), "ho"),
    ];
    let requests: String = all.iter().map(|(request, ..)| request.as_str()).collect();
    let text = requests + &put("/a", "never");
    for part in [text.len(), 50, 7] {
        let mut stream = site.connect().await;
        for part in text.as_bytes().chunks(part) {
            stream.write_all(part).await.unwrap();
        }
        for (request, status, length, body) in &all {
            let (head, said) = answer(&mut stream, body.len()).await;
            assert!(head.starts_with(&format!("http/{status} ")), "{request}: {head}");
            let said_length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            assert!(length.is_none() || said_length == *length, "{request}: {head}");
            assert!(!head.contains("\nconnection: "), "{request}: {head}");
            assert_eq!(said, *body, "{request}");
        }
        // HTTP/1.0 ends its connection, and what lies behind it is not served.
        assert_eq!(rest(&mut stream).await, "");
    }
    assert!(server.asked().iter().all(|(_, _, body)| body != "never"));
}

#[actix_web::test]
async fn what_lies_behind_the_last_request_is_not_served() {
    let server = Server::store();
    let site = Site::start(&server, |_| ());
    let last = bare("PUT", "1.1", "Connection: close\r\nContent-Length: 1\r\n") + "b";
    let said = site.talk(&(put("/a", "a") + &last + &put("/a", "c"))).await.to_ascii_lowercase();
    assert_eq!(said.matches("http/1.1 20").count(), 2, "{said}");
    let ends: Vec<_> = said.match_indices("connection: close").map(|(at, _)| at).collect();
    assert!(ends.len() == 1 && ends[0] > said.find("http/1.1 204").unwrap(), "{said}");
    let bodies: Vec<_> = server.asked().into_iter().map(|(_, _, body)| body).collect();
    assert_eq!(bodies, ["a", "b"]);
}

#[actix_web::test]
async fn many_are_performed_as_they_came() {
    let server = Server::store();
    let site = Site::start(&server, |_| ());
    let mut stream = site.connect().await;
    let all: String = (0..20).map(|number| put("/a", &number.to_string())).collect();
    let (head, body) = all.split_at(all.len() - 1);
    stream.write_all(head.as_bytes()).await.unwrap();
    for number in 1..20 {
        let (head, _) = answer(&mut stream, 0).await;
        assert!(head.contains(&format!("\r\nsynod-seq: {number}\r\n")), "{head}");
    }
    // The end of the last one's body comes late, and with it the client's own end.
    stream.write_all(body.as_bytes()).await.unwrap();
    stream.write_all(bare("GET", "1.1", "").as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    assert!(answer(&mut stream, 0).await.0.contains("\r\nsynod-seq: 20\r\n"));
    assert_eq!(answer(&mut stream, 2).await.1, "19", "it said all, and waits for its answers");
    assert_eq!(rest(&mut stream).await, "");
    let bodies: Vec<_> = server.heard.borrow().iter().map(|one| one.body.clone()).collect();
    let wanted = (0..20).map(|number| number.to_string().into_bytes());
    assert!(bodies.into_iter().eq(wanted.chain([Vec::new()])));
}

/// Goal: what the port refuses before its body comes holds up nobody and is framed right. Method: one
/// that asks first, refused and not, with others behind it.
#[actix_web::test]
async fn one_that_asks_first_is_answered_in_turn() {
    let server = Server::store();
    let site = Site::start(&server, |web| web.body_bytes_max = 1_000);
    let mut stream = site.connect().await;
    let asking = bare("PUT", "1.1", "Expect: 100-continue\r\nContent-Length: 2\r\n");
    stream.write_all((bare("HEAD", "1.1", "") + &asking).as_bytes()).await.unwrap();
    assert!(answer(&mut stream, 0).await.0.starts_with("http/1.1 404 "));
    assert!(answer(&mut stream, 0).await.0.starts_with("http/1.1 100 "));
    let much = bare("PUT", "1.1", "Expect: 100-continue\r\nContent-Length: 2000\r\n");
    stream.write_all(["ab", &bare("GET", "1.1", ""), &much].concat().as_bytes()).await.unwrap();
    assert!(answer(&mut stream, 0).await.0.starts_with("http/1.1 201 "));
    assert_eq!(answer(&mut stream, 2).await.1, "ab");
    let refused = rest(&mut stream).await.to_ascii_lowercase();
    assert!(
        refused.starts_with("http/1.1 413 ") && refused.contains("connection: close"),
        "{refused}"
    );
}
