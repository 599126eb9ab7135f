//! The bytes that `docs/WIRE.md` shows are the bytes that are written and read.

use std::fmt::Write as _;

use serde::Serialize;

use super::*;
use crate::{
    address::SendError,
    message::{Member, Schema, decode},
    node::{ChildOrder, ChildWord, WatchWord},
    registry::{
        directory::{News, Row},
        watch::{Reason, Wanted},
    },
};

const DOCUMENT: &str = include_str!("../../../docs/WIRE.md");

/// The first block of text under the heading `Bytes of NAME`, as bytes.
pub(super) fn documented(name: &str) -> Vec<u8> {
    let (_, after) = DOCUMENT.split_once(&format!("### Bytes of {name}\n")).expect(name);
    let block = after.split("```").nth(1).expect(name);
    let text = block.strip_prefix("text\n").expect(name);
    let hex = text.lines().flat_map(|line| line.split('|').next().unwrap_or("").split_whitespace());
    hex.map(|byte| u8::from_str_radix(byte, 16).expect(byte)).collect()
}

/// As the document shows bytes: sixteen to a line, and the text among them.
fn shown(bytes: &[u8]) -> String {
    let mut text = String::new();
    for line in bytes.chunks(16) {
        let hex: Vec<_> = line.iter().map(|byte| format!("{byte:02x}")).collect();
        let plain = |byte: &u8| if byte.is_ascii_graphic() { char::from(*byte) } else { '.' };
        let plain: String = line.iter().map(plain).collect();
        writeln!(text, "{:<47} | {plain}", hex.join(" ")).expect("a string takes all");
    }
    text
}

fn check(name: &str, lane: Lane, header: &FrameHeader, body: &[u8]) {
    let mut bytes = BytesMut::new();
    encode(header, lane, body, &mut bytes);
    assert_eq!(documented(name), bytes, "{name} is written as\n{}", shown(&bytes));
    let mut deframer = Deframer::new(lane);
    deframer.push(documented(name).into());
    let frame = deframer.next().unwrap().expect("a whole frame");
    assert_eq!((&frame.header, &frame.body[..]), (header, body));
}

#[derive(Serialize)]
struct Append {
    amount: i64,
    note: Option<String>,
}

#[test]
fn golden_tell() {
    let header = FrameHeader {
        target: name_hash("ledger/eu"),
        message: name_hash("ledger.append"),
        trace: 7,
        ..FrameHeader::new(FrameKind::Tell)
    };
    let body = crate::message::encode(&Append { amount: 5, note: None }).unwrap();
    check("a tell", Lane::User, &header, &body);
}

#[test]
fn golden_hello() {
    let schema = Schema {
        shape: "map",
        revision: 0,
        members: &[
            Member { name: "amount", kind: "i64", needed: true },
            Member { name: "note", kind: "Option<String>", needed: false },
        ],
        strict: false,
        reply: "u64",
    };
    let hello = Hello {
        cluster: "bank".parse().unwrap(),
        node: NodeId::new("a".parse().unwrap(), Incarnation(1)),
        protocol_version: 1,
        role: "main".into(),
        start_nonce: 2,
        messages: vec![schema.fingerprint("ledger.append")],
    };
    let body = hello.to_body();
    check("a hello", Lane::Control, &FrameHeader::new(FrameKind::Hello), &body);
    assert_eq!(Hello::check(&body, &hello, &"a".parse().unwrap()), Ok(hello));
}

#[test]
fn golden_directory() {
    let row = Row {
        kind: "ledger".into(),
        epoch: None,
        restarts: 0,
        mailbox: 3,
        groups: Default::default(),
    };
    let rows = [("ledger/eu".to_owned(), row)].into();
    let news = News::Full { version: 1, rows };
    let body = crate::message::encode(&news).unwrap();
    check("a directory frame", Lane::Control, &FrameHeader::new(FrameKind::Directory), &body);
    assert_eq!(decode::<News>(&body).unwrap(), news);
}

#[test]
fn golden_watch() {
    let target = name_hash("synod/watch");
    let header = FrameHeader { target, message: target, ..FrameHeader::new(FrameKind::Tell) };
    let wanted = Wanted { id: 3, name: "ledger/eu".into(), life: Some(9) };
    let watch = WatchWord::Watch(vec![wanted]);
    let body = crate::message::encode(&watch).unwrap();
    check("a watch", Lane::Control, &header, &body);
    assert_eq!(decode::<WatchWord>(&body).unwrap(), watch);
}

#[test]
fn golden_end() {
    let target = name_hash("synod/watch");
    let header = FrameHeader { target, message: target, ..FrameHeader::new(FrameKind::Tell) };
    let ended = WatchWord::Ended { id: 3, reason: Reason::Panicked { text: "broke".into() } };
    let body = crate::message::encode(&ended).unwrap();
    check("an end", Lane::Control, &header, &body);
    assert_eq!(decode::<WatchWord>(&body).unwrap(), ended);
}

#[test]
fn golden_child() {
    let target = name_hash("synod/nursery");
    let header = FrameHeader {
        target,
        message: target,
        correlation: 4,
        deadline_ms: 5000,
        ..FrameHeader::new(FrameKind::Ask)
    };
    let (kind, path, tree) = ("printer".into(), "shop/printer".into(), "shop".into());
    let order = ChildOrder::Begin { args: serde_bytes::ByteBuf::from(vec![1]) };
    let begin = ChildWord { kind, path, tree, life: 6, order };
    let body = crate::message::encode(&begin).unwrap();
    check("a begin of a child", Lane::Control, &header, &body);
    assert_eq!(decode::<ChildWord>(&body).unwrap(), begin);
}

#[test]
fn golden_failure() {
    let header = FrameHeader { correlation: 9, ..FrameHeader::new(FrameKind::Failure) };
    let error = SendError::Incompatible { name: String::new() };
    let body = crate::message::encode(&error).unwrap();
    check("a failure", Lane::User, &header, &body);
    assert_eq!(decode::<SendError>(&body).unwrap(), error);
}

#[test]
fn every_kind_and_limit_is_documented() {
    for kind in FrameKind::ALL {
        assert!(DOCUMENT.contains(&format!("| {} | {kind:?} |", kind as u8)), "{kind:?}");
    }
    for lane in Lane::ALL {
        let name = format!("{lane:?}").to_lowercase();
        assert!(DOCUMENT.contains(&format!("| {name} | {} |", lane as u8)), "{name}");
    }
    let spaced = |number: u32| {
        let digits = number.to_string();
        let groups: Vec<_> = digits.as_bytes().rchunks(3).rev().collect();
        groups.join(&b' ').iter().map(|byte| char::from(*byte)).collect::<String>()
    };
    for limit in [FRAME_BYTES_MAX, HELLO_BYTES_MAX, MESSAGES_BYTES_MAX as u32] {
        assert!(DOCUMENT.contains(&spaced(limit)), "{}", spaced(limit));
    }
}
