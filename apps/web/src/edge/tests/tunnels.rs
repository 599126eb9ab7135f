//! Other protocols pass where a route says so, and nowhere else.

use std::time::Duration;

use synod::server::config::WebRoute;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::timeout,
};

use crate::{
    OrderError,
    testing::{Reply, Server, Site, rest},
};

/// A server that agrees to anything and then says back what it hears, in capitals; to `/no` it
/// answers in HTTP.
async fn echo() -> (Server, actix_rt::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut server = Server::store();
    server.url = format!("http://{}", listener.local_addr().unwrap());
    let task = actix_rt::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            actix_rt::spawn(say_back(stream));
        }
    });
    (server, task)
}

async fn say_back(mut stream: TcpStream) {
    let head = read_head(&mut stream).await;
    let status = match head.split(' ').collect::<Vec<_>>()[..] {
        [_, "/no", ..] => "HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno",
        ["CONNECT", "db:1", ..] => "HTTP/1.1 200 Fine\r\nContent-Length: 7\r\n\r\nhello ",
        _ => {
            "HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\nConnection: upgrade\r\nSec-WebSocket-Accept: k\r\n\r\nhello "
        }
    };
    stream.write_all(status.as_bytes()).await.unwrap();
    if head.to_ascii_lowercase().contains("upgrade: websocket") {
        assert!(head.to_ascii_lowercase().contains("connection: upgrade"), "{head}");
    }
    let mut buffer = [0; 1_024];
    while let Ok(more @ 1..) = stream.read(&mut buffer).await {
        buffer.make_ascii_uppercase();
        stream.write_all(&buffer[..more]).await.unwrap();
    }
}

async fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

fn passing(methods: &[&str]) -> WebRoute {
    let methods = methods.iter().map(|&one| one.to_owned()).collect();
    let path = if methods == ["CONNECT"] { "/" } else { "/live" };
    WebRoute { pass: true, methods, ..WebRoute::new(path) }
}

const SOCKET: &str = "Host: s\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
                      Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: a2V5\r\n";

async fn hear(stream: &mut TcpStream, text: &str) {
    let mut heard = vec![0; text.len()];
    let read = timeout(Duration::from_secs(10), stream.read_exact(&mut heard)).await;
    read.unwrap_or_else(|_| panic!("{text} was waited for")).unwrap();
    assert_eq!(String::from_utf8(heard).unwrap(), text);
}

/// Goal: behind a WebSocket's head every byte passes, both ways, also those that came with the heads,
/// and each side's end is told to the other.
#[actix_web::test]
async fn a_web_socket_passes_where_its_route_says_so() {
    let (server, _task) = echo().await;
    let site = Site::start(&server, |web| web.routes.push(passing(&["GET"])));
    let mut stream = site.connect().await;
    let text = format!("GET /live/x?y HTTP/1.1\r\n{SOCKET}\r\nearly ");
    stream.write_all(text.as_bytes()).await.unwrap();
    let head = read_head(&mut stream).await.to_ascii_lowercase();
    assert!(head.starts_with("http/1.1 101 "), "{head}");
    for part in ["upgrade: websocket", "connection: upgrade", "sec-websocket-accept: k"] {
        assert!(head.contains(part), "{head}");
    }
    assert!(!head.contains("transfer-encoding") && !head.contains("content-length"), "{head}");
    hear(&mut stream, "hello EARLY ").await;
    for word in ["one", "two", "\u{1}\u{0}\r\n\r\n0\r\n\r\n"] {
        stream.write_all(word.as_bytes()).await.unwrap();
        hear(&mut stream, &word.to_ascii_uppercase()).await;
    }
    stream.shutdown().await.unwrap();
    assert_eq!(rest(&mut stream).await, "", "the server hung up, and so does the site");
    let refused = site.ask("GET /live", &[], "").await;
    assert_ne!(refused.status, 501, "what is ordinary there is as ever");
}

#[actix_web::test]
async fn what_connect_asks_for_passes_where_a_route_of_its_own_says_so() {
    let (server, _task) = echo().await;
    let site = Site::start(&server, |web| web.routes.push(passing(&["CONNECT"])));
    let mut stream = site.connect().await;
    stream.write_all(b"CONNECT db:1 HTTP/1.1\r\nHost: db:1\r\n\r\n").await.unwrap();
    let head = read_head(&mut stream).await.to_ascii_lowercase();
    assert!(head.starts_with("http/1.1 200 "), "{head}");
    assert!(!head.contains("transfer-encoding") && !head.contains("content-length"), "{head}");
    hear(&mut stream, "hello ").await;
    stream.write_all(b"select").await.unwrap();
    hear(&mut stream, "SELECT").await;
    drop(stream);
    let socket = site.talk(&format!("GET /live HTTP/1.1\r\n{SOCKET}\r\n")).await;
    assert!(socket.starts_with("HTTP/1.1 501 "), "{socket}");
}

#[actix_web::test]
async fn other_protocols_pass_nowhere_else_and_no_other_way() {
    let (server, _task) = echo().await;
    let site = Site::start(&server, |web| web.routes.push(passing(&["GET"])));
    let plain = SOCKET.replace("websocket", "tls/1.0").replace("keep-alive", "close");
    let keyless = SOCKET.replace("Sec-WebSocket-Key", "X");
    let unsaid = SOCKET.replace(", Upgrade", "");
    for (line, fields, status) in [
        ("GET /a HTTP/1.1", SOCKET, 501),
        ("GET /live/../a HTTP/1.1", SOCKET, 501),
        ("POST /live HTTP/1.1", SOCKET, 501),
        ("GET /live HTTP/1.1", plain.as_str(), 501),
        ("GET /live HTTP/1.1", keyless.as_str(), 501),
        ("GET /live HTTP/1.1", unsaid.as_str(), 501),
        ("CONNECT db:1 HTTP/1.1", "Host: db:1\r\n", 501),
    ] {
        let said = site.talk(&format!("{line}\r\n{fields}\r\n")).await;
        assert!(said.starts_with(&format!("HTTP/1.1 {status} ")), "{line} {fields}: {said}");
        assert_eq!(said.matches("HTTP/1.1 ").count(), 1, "{line}: {said}");
    }
    // Behind a body the other protocol would begin nobody knows where.
    for body in ["Content-Length: 5\r\n\r\nhello", "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"] {
        let said = site.talk(&format!("GET /live HTTP/1.1\r\n{SOCKET}{body}")).await;
        assert!(said.starts_with("HTTP/1.1 400 "), "{body}: {said}");
    }
    // A server may refuse.
    let site = Site::start(&server, |web| {
        web.routes.push(WebRoute { pass: true, ..WebRoute::new("/no") });
    });
    let said = site.talk(&format!("GET /no HTTP/1.1\r\n{SOCKET}\r\n")).await;
    let said = Reply::read(&said);
    assert_eq!((said.status, said.body.as_str()), (403, "no"));
}

/// Goal: a site that is quarantined answers nobody, also not by a tunnel that was open before.
#[actix_web::test]
async fn a_tunnel_ends_when_its_site_is_sent_away() {
    let (server, _task) = echo().await;
    let site = Site::start(&server, |web| web.routes.push(passing(&[])));
    let mut stream = site.connect().await;
    stream.write_all(format!("GET /live HTTP/1.1\r\n{SOCKET}\r\n").as_bytes()).await.unwrap();
    read_head(&mut stream).await;
    hear(&mut stream, "hello ").await;
    *site.order.refuse.borrow_mut() = Some(OrderError::Quarantined("it differs".into()));
    assert_eq!(rest(&mut stream).await, "");
    let said = site.talk(&format!("GET /live HTTP/1.1\r\n{SOCKET}\r\n")).await;
    assert!(said.starts_with("HTTP/1.1 503 "), "{said}");
}
