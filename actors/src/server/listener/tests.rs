//! What clients see of the port.

use std::{
    io::ErrorKind,
    net::{SocketAddr, TcpListener},
    sync::{Arc, Mutex},
    time::Duration,
};

use actix_web::{
    App, HttpResponse,
    web::{self, Bytes},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::Notify,
    time::timeout,
};

use super::{Listening, serve};

type Seen = Arc<Mutex<Vec<String>>>;

/// A port whose handlers wait for a word.
struct Port {
    at: SocketAddr,
    /// What came in, and what was given up.
    seen: Seen,
    moved: Arc<Notify>,
    /// Lets one be answered.
    go: Arc<Notify>,
    handle: Listening,
}

/// Tells when a handler is dropped before it answered.
struct Given {
    up: Option<String>,
    seen: Seen,
    moved: Arc<Notify>,
}

impl Drop for Given {
    fn drop(&mut self) {
        if let Some(what) = self.up.take() {
            self.seen.lock().unwrap().push(format!("gave up {what}"));
            self.moved.notify_one();
        }
    }
}

impl Port {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        let (seen, moved, go) = (Seen::default(), Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (saw, moves, goes) = (Arc::clone(&seen), Arc::clone(&moved), Arc::clone(&go));
        let app = move || {
            let (saw, moves, goes) = (Arc::clone(&saw), Arc::clone(&moves), Arc::clone(&goes));
            let waits = move |request: actix_web::HttpRequest, body: Bytes| {
                let text = String::from_utf8(body.to_vec()).unwrap();
                let what = format!("{} {text}", request.method());
                let (saw, moves) = (Arc::clone(&saw), Arc::clone(&moves));
                let goes = Arc::clone(&goes);
                async move {
                    saw.lock().unwrap().push(what.clone());
                    moves.notify_one();
                    let mut given = Given { up: Some(what), seen: saw, moved: moves };
                    goes.notified().await;
                    given.up = None;
                    HttpResponse::Ok().body(format!("<{text}>"))
                }
            };
            App::new()
                .route("/waits", web::to(waits))
                .route("/says", web::to(says))
                .route("/nothing", web::to(async || HttpResponse::NoContent().finish()))
                .route("/goes-on", web::to(goes_on))
        };
        let handle = serve(listener, None, CONNECTIONS_MAX, app).unwrap();
        Self { at, seen, moved, go, handle }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.at).await.unwrap()
    }

    /// What was seen, once there are so many of them.
    async fn seen(&self, many: usize) -> Vec<String> {
        let wait = async {
            loop {
                let seen = self.seen.lock().unwrap().clone();
                if seen.len() >= many {
                    return seen;
                }
                self.moved.notified().await;
            }
        };
        timeout(PATIENCE, wait).await.expect("it comes in")
    }
}

async fn says(body: Bytes) -> HttpResponse {
    HttpResponse::Ok().body([b"<", &body[..], b">"].concat())
}

async fn goes_on() -> HttpResponse {
    let parts =
        ["ab", "cd"].map(|part| Ok::<_, std::io::Error>(Bytes::from_static(part.as_bytes())));
    HttpResponse::Ok().streaming(futures_util::stream::iter(parts))
}

/// An answer: its first line and headers, in small letters, and so many bytes of a body.
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
    timeout(PATIENCE, read).await.expect("it is answered")
}

async fn ended(stream: &mut TcpStream) {
    let mut rest = Vec::new();
    let read = timeout(PATIENCE, stream.read_to_end(&mut rest)).await;
    read.expect("it hangs up").unwrap();
    assert_eq!(rest, b"", "something came behind the last answer");
}

fn request(method: &str, path: &str, version: &str, more: &str) -> String {
    format!("{method} {path} HTTP/{version}\r\nHost: s\r\n{more}\r\n")
}

/// Goal: each answer is framed as its own request wants it, and one request is served at a time.
/// Method: requests of all kinds at once, to handlers that take their time and to some that do not.
#[actix_web::test]
async fn each_answer_is_its_own_requests() {
    let port = Port::start();
    for path in ["/waits", "/says"] {
        let chunks = "2\r\nde\r\n0\r\nT: r\r\n\r\n";
        let all = [
            (request("PUT", path, "1.1", "Content-Length: 3\r\n") + "abc", "1.1 200", "5", "<abc>"),
            (request("HEAD", path, "1.1", "Content-Length: 1\r\n") + "x", "1.1 200", "3", ""),
            (
                request("PUT", path, "1.1", "Transfer-Encoding: chunked\r\n") + chunks,
                "1.1 200",
                "4",
                "<de>",
            ),
            (request("GET", "/nothing", "1.1", ""), "1.1 204", "", ""),
            (request("PUT", path, "1.0", "Content-Length: 1\r\n") + "f", "1.0 200", "3", "<f>"),
        ];
        let mut stream = port.connect().await;
        let requests: String = all.iter().map(|(request, ..)| request.as_str()).collect();
        let behind = request("PUT", path, "1.1", "");
        stream.write_all((requests + &behind).as_bytes()).await.unwrap();
        let mut calls = 0;
        for (request, status, length, body) in all {
            if request.contains("/waits") {
                calls += 1;
                assert_eq!(port.seen(calls).await.len(), calls, "one is in at a time");
                port.go.notify_one();
            }
            let (head, said) = answer(&mut stream, body.len()).await;
            assert!(head.starts_with(&format!("http/{status} ")), "{request}: {head}");
            let said_length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            assert_eq!(said_length.unwrap_or_default(), length, "{request}: {head}");
            assert!(!head.contains("\nconnection: "), "{request}: {head}");
            assert_eq!(said, body, "{request}");
        }
        // HTTP/1.0 ends its connection, and what lies behind it is not served.
        ended(&mut stream).await;
    }
    assert_eq!(*port.seen.lock().unwrap(), ["PUT abc", "HEAD x", "PUT de", "PUT f"]);
    port.handle.stop(false).await;
}

#[actix_web::test]
async fn who_knows_no_chunks_is_sent_none() {
    let port = Port::start();
    for more in ["", "Connection: keep-alive\r\n"] {
        let mut stream = port.connect().await;
        let all = request("GET", "/goes-on", "1.0", more) + &request("GET", "/says", "1.1", "");
        stream.write_all(all.as_bytes()).await.unwrap();
        let (head, body) = answer(&mut stream, 4).await;
        assert!(!head.contains("transfer-encoding") && !head.contains("keep-alive"), "{head}");
        assert_eq!(body, "abcd");
        ended(&mut stream).await;
    }
    let mut stream = port.connect().await;
    stream.write_all(request("GET", "/goes-on", "1.1", "").as_bytes()).await.unwrap();
    let chunks = "2\r\nab\r\n2\r\ncd\r\n0\r\n\r\n";
    let (head, body) = answer(&mut stream, chunks.len()).await;
    assert!(head.contains("transfer-encoding: chunked\r\n"), "{head}");
    assert_eq!(body, chunks);
    port.handle.stop(false).await;
}

/// Goal: where a line ends another reader sees, too. Method: a bare LF in every place of a head, at
/// once and in small pieces.
#[actix_web::test]
async fn a_head_whose_lines_another_reader_could_cut_otherwise_is_refused() {
    let port = Port::start();
    let good = "PUT /says HTTP/1.1\r\nHost: s\r\nContent-Length: 1\r\nX: y\r\n\r\n";
    for (at, _) in good.match_indices("\r\n") {
        let loose = [&good[..at], &good[at + 1..], "a"].concat();
        for size in [loose.len(), 1, 2, 7] {
            let mut stream = port.connect().await;
            stream.write_all(good.as_bytes()).await.unwrap();
            stream.write_all(b"b").await.unwrap();
            assert_eq!(answer(&mut stream, 3).await.1, "<b>");
            for piece in loose.as_bytes().chunks(size) {
                stream.write_all(piece).await.unwrap();
            }
            let (head, _) = answer(&mut stream, 79).await;
            assert!(head.starts_with("http/1.1 400 "), "{loose:?}: {head}");
            ended(&mut stream).await;
        }
    }
    port.handle.stop(false).await;
}

#[actix_web::test]
async fn what_lies_behind_the_last_request_is_not_served() {
    let port = Port::start();
    let mut stream = port.connect().await;
    let all = [
        request("PUT", "/waits", "1.1", "Content-Length: 1\r\n") + "a",
        request("PUT", "/waits", "1.1", "Connection: close\r\nContent-Length: 1\r\n") + "b",
        request("PUT", "/waits", "1.1", "Content-Length: 1\r\n") + "c",
    ];
    stream.write_all(all.concat().as_bytes()).await.unwrap();
    port.go.notify_one();
    let (head, body) = answer(&mut stream, 3).await;
    assert!(!head.contains("connection:"), "{head}");
    assert_eq!(body, "<a>");
    port.seen(2).await;
    port.go.notify_one();
    let (head, body) = answer(&mut stream, 3).await;
    assert!(head.contains("connection: close\r\n"), "{head}");
    assert_eq!(body, "<b>");
    ended(&mut stream).await;
    assert_eq!(*port.seen.lock().unwrap(), ["PUT a", "PUT b"]);
    port.handle.stop(false).await;
}

#[actix_web::test]
async fn many_go_in_as_they_came() {
    let port = Port::start();
    let mut stream = port.connect().await;
    let put = |number: usize| {
        request("PUT", "/says", "1.1", "Content-Length: 4\r\n") + &format!("{number:04}")
    };
    let all: String = (0..500).map(put).collect();
    let (mut hear, mut say) = stream.split();
    let talk = async {
        for part in all.as_bytes().chunks(777) {
            say.write_all(part).await.unwrap();
        }
    };
    let listen = async {
        let mut said = String::new();
        while said.matches("HTTP/1.1 200").count() < 500 || !said.ends_with("<0499>") {
            let mut part = vec![0; 4_096];
            let more = hear.read(&mut part).await.unwrap();
            assert!(more > 0, "it hung up behind {said}");
            said += std::str::from_utf8(&part[..more]).unwrap();
        }
        said
    };
    let both = async { tokio::join!(talk, listen).1 };
    let said = timeout(PATIENCE, both).await.expect("all are answered");
    let bodies =
        said.split("HTTP/1.1 200").skip(1).map(|one| one.rsplit("\r\n\r\n").next().unwrap());
    let wanted: Vec<_> = (0..500).map(|number| format!("<{number:04}>")).collect();
    assert_eq!(bodies.collect::<Vec<_>>(), wanted);
    port.handle.stop(false).await;
}

/// Goal: whoever hangs up is not waited for any more. Method: hang up while a request is served,
/// alone and with others behind it.
#[actix_web::test]
async fn whoever_hangs_up_is_given_up() {
    let port = Port::start();
    for (round, more) in
        ["", "PUT", "PUT /waits HTTP/1.1\r\nHost: s\r\n\r\n"].into_iter().enumerate()
    {
        let mut stream = port.connect().await;
        stream.write_all((request("GET", "/waits", "1.1", "") + more).as_bytes()).await.unwrap();
        port.seen(2 * round + 1).await;
        if round == 1 {
            stream.shutdown().await.unwrap();
        } else {
            drop(stream);
        }
        let seen = port.seen(2 * round + 2).await;
        assert_eq!(seen[2 * round..], ["GET ", "gave up GET "], "behind {more:?}");
    }
    port.handle.stop(false).await;
}

/// Goal: what the server says itself is right too. Method: a good request, then one it cannot read.
#[actix_web::test]
async fn behind_what_cannot_be_read_it_hangs_up() {
    let port = Port::start();
    for bad in [
        "PUT /says HTTP/1.1\r\nHost: s\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx",
        "no request\r\n\r\n",
    ] {
        let mut stream = port.connect().await;
        let get = request("GET", "/says", "1.1", "");
        stream.write_all([&get, bad, &get].concat().as_bytes()).await.unwrap();
        assert!(answer(&mut stream, 2).await.0.starts_with("http/1.1 200 "), "{bad}");
        assert!(answer(&mut stream, 0).await.0.starts_with("http/1.1 400 "), "{bad}");
        ended(&mut stream).await;
    }
    port.handle.stop(false).await;
}

/// Goal: who comes when there are as many as may be is served once one of them has gone.
#[actix_web::test]
async fn who_is_one_too_many_is_served_once_another_has_gone() {
    let port = Port::start();
    let get = request("GET", "/nothing", "1.1", "");
    let mut there = Vec::new();
    for _ in 0..CONNECTIONS_MAX {
        there.push(port.connect().await);
    }
    let mut late = port.connect().await;
    late.write_all(get.as_bytes()).await.unwrap();
    for stream in &mut there {
        stream.write_all(get.as_bytes()).await.unwrap();
        assert!(answer(stream, 0).await.0.starts_with("http/1.1 204 "));
    }
    let early = late.try_read(&mut [0]).map_err(|error| error.kind());
    assert_eq!(early, Err(ErrorKind::WouldBlock));
    drop(there.pop());
    assert!(answer(&mut late, 0).await.0.starts_with("http/1.1 204 "));
    port.handle.stop(false).await;
}

/// Goal: a port that is stopped in order answers what is open and takes nobody new; stopped at once,
/// it hangs up.
#[actix_web::test]
async fn what_is_open_is_answered_when_it_stops_in_order() {
    for in_order in [true, false] {
        let port = Port::start();
        let mut stream = port.connect().await;
        stream.write_all(request("GET", "/waits", "1.1", "").as_bytes()).await.unwrap();
        port.seen(1).await;
        let (at, go) = (port.at, Arc::clone(&port.go));
        let stopped = actix_rt::spawn(port.handle.stop(in_order));
        while TcpStream::connect(at).await.is_ok() {
            tokio::task::yield_now().await;
        }
        go.notify_one();
        if in_order {
            assert_eq!(answer(&mut stream, 2).await.1, "<>");
        }
        ended(&mut stream).await;
        stopped.await.unwrap();
    }
}

/// More wait until one of them has gone.
const CONNECTIONS_MAX: u32 = 3;

/// For what takes no time.
const PATIENCE: Duration = Duration::from_secs(20);
