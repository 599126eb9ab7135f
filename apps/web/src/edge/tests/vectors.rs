//! Requests that two readers could take for two, and other texts that are no requests: each with what
//! a client is told, and that nothing of it reaches the server and the connection ends.
//!
//! The list follows what RFC 9112 forbids, and what others have found to be read in two ways: lengths
//! (6.3), codings (6.1), lines (2.2), fields (5), targets (3.2) and chunks (7.1).

use std::time::Duration;

use futures_util::future::join_all;
use tokio::{
    io::AsyncWriteExt as _,
    time::{sleep, timeout},
};

use crate::testing::{Server, Site};

/// A head without its first line and the empty one at its end, and the status it gets.
const HEADS: &[(&str, &str, u16)] = &[
    // Two lengths, or one that is none.
    ("lengths that differ", "Content-Length: 0\r\nContent-Length: 38", 400),
    ("a length twice", "Content-Length: 5\r\nContent-Length: 5", 400),
    ("lengths in one line", "Content-Length: 5, 5", 400),
    ("lengths that differ in one line", "Content-Length: 5, 6", 400),
    ("a length with a sign", "Content-Length: +5", 400),
    ("a negative length", "Content-Length: -1", 400),
    ("a length in hexadecimal", "Content-Length: 0x5", 400),
    ("a length with a fraction", "Content-Length: 5.0", 400),
    ("a length with an exponent", "Content-Length: 5e0", 400),
    ("a length with a word behind it", "Content-Length: 5 bytes", 400),
    ("a length in quotes", "Content-Length: \"5\"", 400),
    ("an empty length", "Content-Length:", 400),
    ("a length beyond 64 bits", "Content-Length: 99999999999999999999", 400),
    ("a length that wraps to five", "Content-Length: 18446744073709551621", 400),
    ("a length with a separator", "Content-Length: 1_0", 400),
    ("a length in other digits", "Content-Length: \u{665}", 400),
    // A length and a coding.
    ("a length, then chunks", "Content-Length: 5\r\nTransfer-Encoding: chunked", 400),
    ("chunks, then a length", "Transfer-Encoding: chunked\r\nContent-Length: 5", 400),
    ("no length, and chunks", "Content-Length: 0\r\nTransfer-Encoding: chunked", 400),
    ("chunks in capitals, and a length", "TRANSFER-ENCODING: CHUNKED\r\ncontent-length: 5", 400),
    // Codings that one reader knows and another does not.
    ("chunks twice", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", 400),
    ("chunks twice in one line", "Transfer-Encoding: chunked, chunked", 400),
    ("chunks, then as it is", "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity", 400),
    ("chunks first", "Transfer-Encoding: chunked, identity", 400),
    ("as it is, then chunks", "Transfer-Encoding: identity, chunked", 400),
    ("packed, then chunks", "Transfer-Encoding: gzip, chunked", 400),
    ("packed", "Transfer-Encoding: gzip", 400),
    ("a coding that is nearly chunks", "Transfer-Encoding: xchunked", 400),
    ("a coding that begins as chunks", "Transfer-Encoding: chunkedx", 400),
    ("a coding in quotes", "Transfer-Encoding: \"chunked\"", 400),
    ("chunks with a parameter", "Transfer-Encoding: chunked;q=1", 400),
    ("a coding behind a comma", "Transfer-Encoding: ,chunked", 400),
    ("a coding before a comma", "Transfer-Encoding: chunked,", 400),
    ("a coding behind a vertical tab", "Transfer-Encoding:\x0bchunked", 400),
    ("a coding before a form feed", "Transfer-Encoding: chunked\x0c", 400),
    ("no coding", "Transfer-Encoding:", 400),
    // Names.
    ("a space before the colon of a coding", "Transfer-Encoding : chunked", 400),
    ("a tab before the colon of a coding", "Transfer-Encoding\t: chunked", 400),
    ("a space before the colon of a length", "Content-Length : 5", 400),
    ("a space in a name", "X Y: a", 400),
    ("a field without a name", ": a", 400),
    ("a field without a colon", "nothing at all", 400),
    ("a NUL in a name", "X\0: a", 400),
    ("a parenthesis in a name", "X(Y): a", 400),
    ("a control character in a name", "X\x01Y: a", 400),
    ("a name beyond ASCII", "X\u{e9}: a", 400),
    // Values and lines.
    ("a NUL in a value", "X: a\0b", 400),
    ("a control character in a value", "X: a\x01b", 400),
    ("a carriage return in a value", "X: a\rTransfer-Encoding: chunked", 400),
    ("a folded coding", "X: a\r\n Transfer-Encoding: chunked", 400),
    ("a folded value", "X: a\r\n\tfolded", 400),
    ("a coding folded", "Transfer-Encoding:\r\n chunked", 400),
    ("a space before the first name", " X: a", 400),
    // Where to.
    ("two hosts", "Host: another", 400),
    ("two hosts that are one", "Host: s", 400),
];

/// A first line, its fields, and the status it gets.
const LINES: &[(&str, &str, &str, u16)] = &[
    ("no host", "POST /a HTTP/1.1", "X: a", 400),
    ("a word more", "POST /a b HTTP/1.1", "Host: s", 400),
    ("a space more", "POST  /a HTTP/1.1", "Host: s", 400),
    ("no version", "POST /a", "Host: s", 400),
    ("a version to come", "POST /a HTTP/2.0", "Host: s", 400),
    ("a version of one digit", "POST /a HTTP/1", "Host: s", 400),
    ("a version in small letters", "POST /a http/1.1", "Host: s", 400),
    ("a NUL in the target", "POST /a\0b HTTP/1.1", "Host: s", 400),
    ("a bare carriage return in the line", "POST /a\r HTTP/1.1", "Host: s", 400),
    ("a method with a separator", "PO(ST /a HTTP/1.1", "Host: s", 400),
    ("chunks in HTTP/1.0", "POST /a HTTP/1.0", "Host: s\r\nTransfer-Encoding: chunked", 400),
    ("a fragment's way out", "POST /a\tHTTP/1.1", "Host: s", 400),
];

/// What stands where chunks are to come, and the status it gets.
const CHUNKS: &[(&str, &str, u16)] = &[
    ("no size", "\r\n\r\n", 400),
    ("a word for a size", "x\r\n", 400),
    ("a negative size", "-1\r\n", 400),
    ("a size with a sign", "+5\r\nhello\r\n0\r\n\r\n", 400),
    ("a size with 0x", "0x5\r\nhello\r\n0\r\n\r\n", 400),
    ("a size behind a space", " 5\r\nhello\r\n0\r\n\r\n", 400),
    ("two sizes", "5 5\r\nhello\r\n0\r\n\r\n", 400),
    ("a size beyond 64 bits", "fffffffffffffffff\r\n", 400),
    ("a size that wraps to five", "10000000000000005\r\nhello\r\n0\r\n\r\n", 400),
    ("a chunk longer than it says", "5\r\nhello!\r\n0\r\n\r\n", 400),
    ("a chunk shorter than it says", "6\r\nhello\r\n0\r\n\r\n", 400),
    ("no line behind a chunk", "5\r\nhelloXX", 400),
    ("a bare line feed behind a size", "5\nhello\r\n0\r\n\r\n", 400),
    ("a bare line feed behind a chunk", "5\r\nhello\n0\r\n\r\n", 400),
    ("bare line feeds", "5\nhello\n0\n\n", 400),
    ("a carriage return behind a size", "5\rhello\r\n0\r\n\r\n", 400),
    ("a NUL in a size", "5\0\r\nhello\r\n0\r\n\r\n", 400),
];

/// Ends a request if it was taken for whole, and shows by its path that it was read as another.
const HIDDEN: &str = "DELETE /hidden HTTP/1.1\r\nHost: s\r\n\r\n";

/// What a site says to `text`, until it hangs up.
async fn said(site: &Site, text: &str) -> String {
    let talk = timeout(Duration::from_secs(10), site.talk(text)).await;
    talk.unwrap_or_else(|_| panic!("{text:?} keeps its connection"))
}

/// Goal: every text of the lists is refused as the list says, the connection ends, and the server
/// hears nothing. Method: one connection each; behind each text stands a request that must not be
/// performed.
#[actix_web::test]
async fn what_two_readers_could_take_for_two_is_refused_and_its_connection_ends() {
    let server = Server::store();
    let site = Site::start(&server, |_| ());
    let mut texts: Vec<(String, String, u16)> = Vec::new();
    for (what, fields, status) in HEADS {
        let text = format!("POST /a HTTP/1.1\r\nHost: s\r\n{fields}\r\n\r\n{HIDDEN}");
        texts.push(((*what).to_owned(), text, *status));
    }
    for (what, line, fields, status) in LINES {
        texts.push(((*what).to_owned(), format!("{line}\r\n{fields}\r\n\r\n{HIDDEN}"), *status));
    }
    for (what, chunks, status) in CHUNKS {
        let head = "POST /a HTTP/1.1\r\nHost: s\r\nTransfer-Encoding: chunked\r\n\r\n";
        texts.push(((*what).to_owned(), format!("{head}{chunks}{HIDDEN}"), *status));
    }
    let mut wrong = Vec::new();
    for (what, text, status) in texts {
        let said = said(&site, &text).await;
        // A reader that stops in the middle of a body may say so once more.
        let told = said.matches(&format!("HTTP/1.1 {status} ")).count();
        let good = told > 0 && said.matches("HTTP/1.").count() == told;
        if !good || !server.asked().is_empty() {
            wrong.push(format!("{what}: {text:?} was answered {said:?}; {:?}", server.asked()));
            server.heard.borrow_mut().clear();
        }
    }
    assert!(wrong.is_empty(), "{} are read otherwise:\n{}", wrong.len(), wrong.join("\n"));
}

/// Goal: what is odd and allowed is read in the one way there is. Method: each behind and before
/// another request on one connection.
#[actix_web::test]
async fn what_is_odd_but_clear_is_read_in_its_one_way() {
    let server = Server::store();
    let site = Site::start(&server, |_| ());
    for (what, request, body) in [
        (
            "an extension of a chunk",
            "Transfer-Encoding: chunked\r\n\r\n5;a=\"b\"\r\nhello\r\n0\r\n\r\n",
            "hello",
        ),
        (
            "a size with zeros before it",
            "Transfer-Encoding: chunked\r\n\r\n0005\r\nhello\r\n000\r\n\r\n",
            "hello",
        ),
        (
            "a size in both letters",
            "Transfer-Encoding: chunked\r\n\r\nA\r\n0123456789\r\na\r\n0123456789\r\n0\r\n\r\n",
            "01234567890123456789",
        ),
        (
            "trailers, which are dropped",
            "Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nContent-Length: 9\r\nX: y\r\n\r\n",
            "x",
        ),
        ("chunks in capitals", "Transfer-Encoding: CHUNKED\r\n\r\n1\r\nx\r\n0\r\n\r\n", "x"),
        ("no space behind a colon", "Content-Length:1\r\n\r\nx", "x"),
        ("spaces around a value", "Content-Length: \t1 \t\r\n\r\nx", "x"),
        ("an empty value", "X:\r\nContent-Length: 1\r\n\r\nx", "x"),
        ("no body", "X: a\r\n\r\n", ""),
    ] {
        let next =
            "PUT /next HTTP/1.1\r\nHost: s\r\nConnection: close\r\nContent-Length: 1\r\n\r\nn";
        let text = format!("PUT /a HTTP/1.1\r\nHost: s\r\n{request}{next}");
        let said = said(&site, &text).await;
        assert_eq!(said.matches("HTTP/1.1 20").count(), 2, "{what}: {said:?}");
        let asked = [("/a", body), ("/next", "n")]
            .map(|(path, body)| ("PUT".to_owned(), path.to_owned(), body.to_owned()));
        assert_eq!(server.asked(), asked, "{what}");
        let heard = server.heard.borrow_mut().split_off(0);
        assert_eq!(heard[0].header("transfer-encoding"), None, "{what}");
    }
    // A target with a host in it outweighs the header, at the server too.
    let text = "PUT http://other.example/b?c HTTP/1.1\r\nHost: s\r\nConnection: close\r\nContent-Length: 1\r\n\r\nx";
    assert!(said(&site, text).await.starts_with("HTTP/1.1 201 "));
    let heard = server.heard.borrow_mut().split_off(0);
    assert_eq!((heard[0].path(), heard[0].header("host")), ("/b?c", Some("other.example")));
    // Where one of these ends is clear, so that the next is heard; but it leads nowhere.
    for target in ["a", "*"] {
        let next = "GET /b?c HTTP/1.1\r\nHost: s\r\nConnection: close\r\n\r\n";
        let text = format!("POST {target} HTTP/1.1\r\nHost: s\r\n\r\n{next}");
        let said = said(&site, &text).await;
        assert!(said.starts_with("HTTP/1.1 400 "), "{target}: {said:?}");
        let post = |(method, _, _): &(String, String, String)| method == "POST";
        assert!(!server.asked().iter().any(post), "{target}");
    }
}

/// Goal: what never ends is ended. Method: an endless line of each kind, until the site hangs up.
#[actix_web::test]
async fn what_never_ends_is_ended() {
    let server = Server::store();
    let site = Site::start(&server, |_| ());
    let chunked = "PUT /a HTTP/1.1\r\nHost: s\r\nTransfer-Encoding: chunked\r\n\r\n";
    let put = "PUT /a HTTP/1.1\r\nHost: s\r\n";
    let endless = [
        ("a first line", "PUT /".to_owned(), "a"),
        ("a name", put.to_owned(), "X"),
        ("a value", format!("{put}X: "), "y"),
        ("fields", put.to_owned(), "X: y\r\n"),
        ("a chunk's size", chunked.to_owned(), "0"),
        ("a chunk's extension", format!("{chunked}1;"), "e"),
        ("trailers", format!("{chunked}0\r\n"), "T: v\r\n"),
    ];
    let all = endless.map(|(what, begin, more)| {
        let site = &site;
        async move {
            let mut stream = site.connect().await;
            stream.write_all(begin.as_bytes()).await.unwrap();
            let piece = more.repeat(8_192 / more.len());
            let talk = async {
                while stream.write_all(piece.as_bytes()).await.is_ok() {
                    sleep(Duration::from_millis(20)).await;
                }
            };
            let ended = timeout(Duration::from_secs(30), talk).await;
            assert!(ended.is_ok(), "{what} is read on and on");
        }
    });
    join_all(all).await;
    assert_eq!(server.asked(), []);
}
