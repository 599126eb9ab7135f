use actix_codec::Decoder as _;
use actix_http::{
    ServiceConfig,
    h1::{Codec, Message, MessageType},
};
use bytes::BytesMut;
use proptest::prelude::*;

use super::Gate;

/// Where requests end in `pieces`, each of which is answered once it is in.
fn ends<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<usize> {
    let (mut gate, mut at, mut ends) = (Gate::default(), 0, Vec::new());
    for mut piece in pieces {
        while !piece.is_empty() {
            let admitted = gate.admit(piece);
            assert!(admitted > 0, "an open gate lets something in");
            at += admitted;
            piece = &piece[admitted..];
            if gate.is_shut() {
                ends.push(at);
                assert_eq!(gate.admit(b"G"), 0, "a shut gate lets nothing in");
                gate.answered();
            }
        }
    }
    ends
}

/// The same, however they come.
fn ends_in_any_pieces(text: &[u8]) -> Vec<usize> {
    let whole = ends([text]);
    assert_eq!(ends(text.chunks(1)), whole, "byte by byte: {}", text.escape_ascii());
    for cut in 0..text.len() {
        let halves = [&text[..cut], &text[cut..]];
        assert_eq!(ends(halves), whole, "cut at {cut}: {}", text.escape_ascii());
    }
    whole
}

/// Where requests end as the server sees it, and whether it had nothing to object.
fn ends_for_the_server(text: &[u8]) -> (Vec<usize>, bool) {
    let (mut codec, mut left) = (Codec::new(ServiceConfig::default()), BytesMut::from(text));
    let mut ends = Vec::new();
    loop {
        match codec.decode(&mut left) {
            Ok(Some(message)) => {
                let ended = match message {
                    Message::Item(_) => matches!(codec.message_type(), MessageType::None),
                    Message::Chunk(part) => part.is_none(),
                };
                if ended {
                    ends.push(text.len() - left.len());
                }
            }
            Ok(None) => return (ends, true),
            Err(_) => return (ends, false),
        }
    }
}

/// Both see the same requests end, as far as the server has nothing to object.
fn compare(text: &[u8]) {
    let mine = ends_in_any_pieces(text);
    let (server, content) = ends_for_the_server(text);
    let known = if content { mine.len() } else { server.len().min(mine.len()) };
    assert_eq!(mine[..known], server, "{}", text.escape_ascii());
}

/// Checks that each of `requests` is one, sent together.
fn each_is_one(requests: &[&str]) {
    let text = requests.concat();
    let mut at = 0;
    let sums: Vec<_> = requests.iter().map(|one| (at += one.len(), at).1).collect();
    assert_eq!(ends_in_any_pieces(text.as_bytes()), sums, "{text}");
    compare(text.as_bytes());
}

#[actix_web::test]
async fn each_request_is_one() {
    let get = "GET / HTTP/1.1\r\nHost: s\r\n\r\n";
    each_is_one(&[get, "HEAD /a HTTP/1.1\r\nHost: s\r\nX: y\r\n\r\n", get]);
    each_is_one(&[
        get,
        "GET / HTTP/1.0\r\n\r\n",
        "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    ]);
    each_is_one(&[get, "GET / HTTP/1.1\r\nHost: s\r\nConnection: close\r\n\r\n", get]);
    each_is_one(&["PUT / HTTP/1.1\r\nHost: s\r\nContent-Length: 5\r\n\r\nGET /", get]);
    each_is_one(&["PUT / HTTP/1.1\r\nHost: s\r\ncontent-LENGTH: \t 0005 \t\r\n\r\nab\r\n\r", get]);
    each_is_one(&["PUT / HTTP/1.1\r\nHost: s\r\nContent-Length: 0\r\n\r\n", get]);
    each_is_one(&[
        "PUT / HTTP/1.1\r\nHost: s\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nab",
        get,
    ]);
    each_is_one(&[
        "\r\n\n\r\nGET / HTTP/1.1\nHost: s\n\n",
        "\r\nGET / HTTP/1.1\r\nHost:s\n\r\n",
        get,
    ]);
    let long =
        format!("GET / HTTP/1.1\r\nHost: s\r\n{}: {}\r\n\r\n", "n".repeat(300), "v".repeat(300));
    each_is_one(&[&long, get, &long]);
    // Names that only begin or end alike, values that only hold the word.
    each_is_one(&[
        "GET / HTTP/1.1\r\nHost: s\r\nContent-Length-: 5\r\nX-Content-Length: 5\r\n\r\n",
        get,
    ]);
    each_is_one(&[
        "GET / HTTP/1.1\r\nHost: s\r\nUpgrade: h2c, websocket\r\nUpgrade: web socket\r\n\r\n",
        get,
    ]);
    each_is_one(&[
        "CONNECTS / HTTP/1.1\r\nHost: s\r\n\r\n",
        "connect / HTTP/1.1\r\nHost: s\r\n\r\n",
        get,
    ]);
}

#[actix_web::test]
async fn a_body_in_chunks_ends_behind_its_trailers() {
    let get = "GET / HTTP/1.1\r\nHost: s\r\n\r\n";
    for body in [
        "0\r\n\r\n",
        "5\r\nhello\r\n0\r\n\r\n",
        "5;name=value;\"quoted\"\r\nhello\r\n00;last\r\n\r\n",
        "5  ;x\r\n0\r\n\r\n\r\n1\t\r\nx\r\n0\r\nTrailer: a\r\nOther: b\r\n\r\n",
        "A\r\n0123456789\r\nb\r\n0123456789a\r\n000\r\n\r\n",
    ] {
        for more in ["", "Upgrade: websocket\r\n"] {
            let head =
                format!("PUT / HTTP/1.1\r\nHost: s\r\nTransfer-Encoding: ChunkeD \r\n{more}\r\n");
            each_is_one(&[&(head + body), get]);
        }
    }
}

#[actix_web::test]
async fn what_the_server_takes_for_one_body_is_one() {
    let get = "GET / HTTP/1.1\r\nHost: s\r\n\r\n";
    for head in [
        "GET / HTTP/1.1\r\nHost: s\r\nUpgrade: WebSocket\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: s\r\nUpgrade: h2c\r\nUpgrade:websocket\r\nContent-Length: 3\r\n\r\n",
        "CONNECT s:1 HTTP/1.1\r\nHost: s\r\n\r\n",
        "CONNECT s:1 HTTP/1.1\r\nHost: s\r\nContent-Length: 0\r\n\r\n",
    ] {
        let text = [get, head, get, get].concat();
        assert_eq!(ends_in_any_pieces(text.as_bytes()), [get.len()], "{text}");
        compare(text.as_bytes());
    }
    each_is_one(&["CONNECT s:1 HTTP/1.1\r\nHost: s\r\nContent-Length: 1\r\n\r\nx", get]);
}

#[actix_web::test]
async fn what_the_server_refuses_goes_through_with_all_behind_it() {
    let get = "GET / HTTP/1.1\r\nHost: s\r\n\r\n";
    for headers in [
        "Content-Length: 3\r\nContent-Length: 3",
        "Content-Length: 3\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: identity",
        "Transfer-Encoding:",
        "Content-Length:",
        "Content-Length: +3",
        "Content-Length: -3",
        "Content-Length: 3 3",
        "Content-Length: 3, 3",
        "Content-Length: 0x3",
        "Content-Length: 18446744073709551616",
        "T no colon",
        "Transfer-Encoding: chunked\r\n\r\nno size",
        "Transfer-Encoding: chunked\r\n\r\n1\r\nab",
        "Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\rx",
        "Transfer-Encoding: chunked\r\n\r\n10000000000000000\r\n",
        "Transfer-Encoding: chunked\r\n\r\n1;\x01\r\na\r\n0",
    ] {
        let text = format!("PUT / HTTP/1.1\r\nHost: s\r\n{headers}\r\n\r\n");
        let all = [get, &text, get, get].concat();
        let (server, content) = ends_for_the_server(all.as_bytes());
        assert_eq!((server, content), (vec![get.len()], false), "{all}");
        compare(all.as_bytes());
        let mut gate = Gate::default();
        assert_eq!(gate.admit(text.as_bytes()), text.len(), "{text}");
        assert!(!gate.is_shut(), "{text}");
    }
}

#[actix_web::test]
async fn an_early_answer_lets_the_next_request_in_behind_the_rest_of_this_one() {
    let mut gate = Gate::default();
    let put = b"PUT / HTTP/1.1\r\nHost: s\r\nContent-Length: 4\r\n\r\n";
    let get = b"GET / HTTP/1.1\r\nHost: s\r\n\r\n";
    assert_eq!(gate.admit(put), put.len());
    assert!(!gate.is_shut() && !gate.is_between());
    gate.answered();
    let more = [&b"body"[..], get, get].concat();
    assert_eq!(gate.admit(&more), 4 + get.len());
    assert!(gate.is_shut() && gate.is_between());
    assert_eq!(gate.admit(get), 0);
    gate.answered();
    assert_eq!(gate.admit(get), get.len());
}

/// Goal: what only the server objects to waits for nothing. Method: it got all of the head, so it has
/// seen why.
#[actix_web::test]
async fn what_only_the_server_refuses_goes_in_whole() {
    for head in [
        "PUT / HTTP/1.1\r\nX: y\r\rZ\r\n\r\n",
        "PUT / HTTP/1.1\r\nno colon\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\n",
        "GET  /\r\n\r\n",
    ] {
        let mut gate = Gate::default();
        assert_eq!(gate.admit(head.as_bytes()), head.len(), "{head}");
        assert_eq!(ends_for_the_server(head.as_bytes()), (Vec::new(), false), "{head}");
    }
}

/// Parts of requests, good and bad.
fn part() -> impl Strategy<Value = Vec<u8>> {
    const PARTS: &[&str] = &[
        "GET / HTTP/1.1\r\nHost: s\r\n",
        "PUT /a HTTP/1.1\nHost: s\r\n",
        "CONNECT a HTTP/1.1\r\nHost: s\r\n",
        "POST / HTTP/1.0\r\n",
        "GET / HTTP/1.0\r\n",
        "HEAD / HTTP/1.1\r\nHost: s\r\nConnection: close\r\n",
        "Content-Length: 3\r\n",
        "content-length:0 \n",
        "Content-Length:\t11\r\n",
        "Transfer-Encoding: chunked\r\n",
        "Transfer-Encoding: identity\r\n",
        "Upgrade: websocket\r\n",
        "Upgrade: h2c\r\n",
        "Expect: 100-continue\r\n",
        "X: y\r\n",
        "\r\n",
        "\n",
        "\r",
        "abc",
        "3\r\nabc\r\n",
        "b;x=y\r\nabcdefghijk\r\n",
        "0\r\n",
        "0\r\nT: r\r\n",
        " ",
        ":",
    ];
    prop_oneof![
        40 => proptest::sample::select(PARTS).prop_map(|part| part.as_bytes().to_vec()),
        1 => any::<u8>().prop_map(|byte| vec![byte]),
    ]
}

/// A good request.
fn request() -> impl Strategy<Value = Vec<u8>> {
    let line = proptest::sample::select(
        &["GET / HTTP/1.1\r\n", "\r\nPUT / HTTP/1.1\n", "PUT / HTTP/1.0\r\n"][..],
    );
    let padding = proptest::collection::vec("[A-Za-z-]{1,20}: [ -~]{0,30}\r\n", 0..4);
    let body = proptest::collection::vec(any::<u8>(), 0..40);
    (line, padding, body, any::<bool>(), "[ \t]{0,3}").prop_map(
        |(line, padding, body, chunked, space)| {
            let mut text = format!("{line}Host: s\r\n{}", padding.concat()).into_bytes();
            if chunked && !line.contains("1.0") {
                text.extend(format!("Transfer-Encoding:{space}chunked{space}\r\n\r\n").bytes());
                for part in body.chunks(7) {
                    text.extend(format!("{:x}{space}\r\n", part.len()).bytes());
                    text.extend(part.iter().chain(b"\r\n"));
                }
                text.extend(b"0\r\n\r\n");
            } else {
                text.extend(format!("Content-Length:{space}{}{space}\r\n\r\n", body.len()).bytes());
                text.extend(body);
            }
            text
        },
    )
}

/// Goal: this reader and the server's see the same requests in whatever comes.
#[actix_web::test]
async fn it_reads_as_the_server_does() {
    proptest!(|(parts in proptest::collection::vec(part(), 0..24))| compare(&parts.concat()));
}

#[actix_web::test]
async fn it_reads_good_requests_as_the_server_does() {
    let requests = proptest::collection::vec(request(), 0..5);
    proptest!(|(requests in requests, tail in part())| {
        compare(&[requests.concat(), tail].concat());
    });
}
