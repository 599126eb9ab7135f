use bytes::Bytes;
use synod::replicated::{Position, SessionId};

use super::*;
use crate::transaction::Watched;

fn turn(position: u64, time_ms: u64) -> Turn {
    Turn::new(Moment { position: Position(position), time_ms }, SessionId(0), 0, 0)
}

fn run(kv: &mut Kv, position: u64, arguments: &[&str]) -> Vec<u8> {
    kv.apply(EXECUTE.id, &args::encode(arguments), &mut turn(position, 0)).unwrap()
}

fn reply(write: impl FnOnce(&mut Reply)) -> Vec<u8> {
    let mut reply = Reply::new();
    write(&mut reply);
    reply.into_bytes()
}

fn transaction_of(watched: &[Watched], commands: &[&[&str]]) -> Bytes {
    let commands: Vec<Bytes> = commands.iter().map(|command| args::encode(command)).collect();
    transaction::encode(watched, &commands)
}

#[test]
fn a_transaction_is_one_step_and_answers_for_each_command() {
    let mut kv = Kv::new();
    let bytes = transaction_of(&[], &[&["SET", "a", "1"], &["INCR", "a"], &["GET", "a"]]);
    let answer = kv.apply(TRANSACTION.id, &bytes, &mut turn(7, 0)).unwrap();
    let expected = reply(|reply| {
        reply.array(3);
        reply.ok();
        reply.integer(2);
        reply.bulk(b"2");
    });
    assert_eq!(answer, expected);
    assert_eq!(kv.store().get(b"a", 0).unwrap().version, Position(7));
}

#[test]
fn a_changed_watched_key_stops_the_transaction() {
    let mut kv = Kv::new();
    run(&mut kv, 1, &["SET", "a", "1"]);
    let watched = [
        Watched { key: Bytes::from_static(b"a"), version: 1 },
        Watched { key: Bytes::from_static(b"missing"), version: 0 },
    ];
    let bytes = transaction_of(&watched, &[&["INCR", "a"]]);
    let go = kv.clone().apply(TRANSACTION.id, &bytes, &mut turn(3, 0)).unwrap();
    assert_eq!(
        go,
        reply(|reply| {
            reply.array(1);
            reply.integer(2);
        })
    );
    run(&mut kv, 2, &["EXPIRE", "a", "100"]);
    let stopped = kv.apply(TRANSACTION.id, &bytes, &mut turn(3, 0)).unwrap();
    assert_eq!(stopped, reply(Reply::null_array));
    assert_eq!(kv.store().get(b"a", 0).unwrap().value, b"1");
}

#[test]
fn a_transaction_with_an_impossible_command_changes_nothing() {
    let mut kv = Kv::new();
    let bytes = transaction_of(&[], &[&["SET", "a", "1"], &["NOPE"]]);
    let answer = kv.apply(TRANSACTION.id, &bytes, &mut turn(1, 0)).unwrap();
    assert_eq!(answer, reply(|reply| reply.error(transaction::ABORTED)));
    assert_eq!(kv.store().len(0), 0);
}

#[test]
fn preconditions_are_decided_at_the_step_that_writes() {
    let mut kv = Kv::new();
    let put = |version: Option<u64>, missing| Put {
        key: b"a"[..].into(),
        value: b"v"[..].into(),
        when: Precondition {
            versions: version.map(|version| vec![version]),
            missing,
            ..Precondition::default()
        },
    };
    let mut apply = |position, put: &Put| -> Written {
        let bytes = rmp_serde::to_vec_named(put).unwrap();
        unpack(&kv.apply(PUT.id, &bytes, &mut turn(position, 0)).unwrap()).unwrap()
    };
    assert_eq!(apply(4, &put(None, true)), Written::Done { position: 4 });
    assert_eq!(apply(5, &put(None, true)), Written::Refused { version: Some(4) });
    assert_eq!(apply(6, &put(Some(3), false)), Written::Refused { version: Some(4) });
    assert_eq!(apply(7, &put(Some(4), false)), Written::Done { position: 7 });
}

#[test]
fn keys_are_listed_in_pages_in_byte_order() {
    let mut kv = Kv::new();
    run(&mut kv, 1, &["MSET", "p2", "1", "p1", "1", "p3", "1", "q", "1", "a", "1"]);
    let list = |prefix: &str, after: Option<&str>, limit| {
        let list = List {
            prefix: prefix.as_bytes().into(),
            after: after.map(|key| key.as_bytes().into()),
            limit,
        };
        let page = kv.list(&list, Moment::default());
        let text = |blob: &Blob| String::from_utf8_lossy(&blob.0).into_owned();
        (page.keys.iter().map(text).collect::<Vec<_>>().join(" "), page.next.as_ref().map(text))
    };
    assert_eq!(list("p", None, Some(2)), ("p1 p2".into(), Some("p2".into())));
    assert_eq!(list("p", Some("p2"), Some(2)), ("p3".into(), None));
    assert_eq!(list("", None, None), ("a p1 p2 p3 q".into(), None));
    assert_eq!(list("p", Some("a"), Some(1)), ("p1".into(), Some("p1".into())));
    assert_eq!(list("p", None, Some(0)), (String::new(), None));
}

#[test]
fn a_restored_replica_goes_on_exactly_as_the_old_one() {
    let mut kv = Kv::new();
    run(&mut kv, 1, &["MSET", "a", "1", "b", "2"]);
    run(&mut kv, 2, &["PEXPIRE", "a", "50"]);
    run(&mut kv, 3, &["DEL", "b"]);
    let mut other = Kv::new();
    other.restore(&kv.snapshot()).unwrap();
    assert_eq!(other.next_expiry_ms(), Some(51));
    for kv in [&mut kv, &mut other] {
        kv.tick(&mut turn(4, 51));
        run(kv, 5, &["SET", "c", "3"]);
    }
    assert_eq!(kv.snapshot(), other.snapshot());
    assert_eq!(kv.next_expiry_ms(), None);
    assert!(other.restore(b"nonsense").is_err());
    assert_eq!(kv.snapshot(), other.snapshot());
}

#[test]
fn bad_bytes_and_unknown_functions_change_nothing() {
    let mut kv = Kv::new();
    for function in FUNCTIONS.iter().filter(|function| !function.query) {
        let bad = kv.apply(function.id, b"\xff\xff\xff", &mut turn(1, 0));
        assert!(matches!(bad, Err(ApplyError::BadArguments(_))), "{}", function.name);
    }
    for function in FUNCTIONS.iter().filter(|function| function.query) {
        let bad = kv.query(function.id, b"\xff\xff\xff", &Moment::default());
        assert!(matches!(bad, Err(ApplyError::BadArguments(_))), "{}", function.name);
    }
    assert_eq!(kv.apply(1, b"", &mut turn(2, 0)), Err(ApplyError::UnknownFunction { id: 1 }));
    assert_eq!(kv.snapshot(), Kv::new().snapshot());
}

#[test]
fn people_call_it_with_json() {
    let descriptor = Kv::new().descriptor();
    let put = descriptor.function("kv.put").unwrap();
    let args = put.args_from_json(&serde_json::json!({ "key": "a", "value": "1" })).unwrap();
    let reply = Kv::new().apply(PUT.id, &args, &mut turn(9, 0)).unwrap();
    let expected = serde_json::json!({ "done": { "position": 9 } });
    assert_eq!(put.reply_to_json(&reply).unwrap(), expected);
}
