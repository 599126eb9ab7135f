//! Each line is a command and the reply Redis 7.0 gives, in the order they are run.

use std::fmt::Write as _;

use synod::replicated::Position;

use super::*;
use crate::reply::{Element, walk};

/// The reply as one line: `OK`, `(5)`, `"text"`, `nil`, `!ERR …`, `[2] "a" "b"`.
fn shown(reply: &[u8]) -> String {
    let mut line = String::new();
    walk(reply, |element| {
        if !line.is_empty() {
            line.push(' ');
        }
        let text = |bytes| String::from_utf8_lossy(bytes);
        let written = match element {
            Element::Simple(bytes) => write!(line, "{}", text(bytes)),
            Element::Error(bytes) => write!(line, "!{}", text(bytes)),
            Element::Integer(value) => write!(line, "({value})"),
            Element::Bulk(bytes) => write!(line, "{:?}", text(bytes)),
            Element::Verbatim(bytes) => write!(line, "={:?}", text(bytes)),
            Element::Null => write!(line, "nil"),
            Element::NullArray => write!(line, "nil-array"),
            Element::Array(count) => write!(line, "[{count}]"),
            Element::Map(pairs) => write!(line, "{{{pairs}}}"),
            Element::Set(count) => write!(line, "~{count}"),
        };
        written.unwrap();
        std::ops::ControlFlow::Continue(())
    })
    .unwrap();
    line
}

struct Session {
    store: Store,
    at: Moment,
}

impl Session {
    fn new() -> Self {
        Self { store: Store::default(), at: Moment { position: Position(0), time_ms: START_MS } }
    }

    /// Runs a command whose arguments are separated by spaces; `''` is an empty one.
    fn run(&mut self, command: &str) -> String {
        let arguments: Vec<&[u8]> = command
            .split(' ')
            .map(|argument| if argument == "''" { &b""[..] } else { argument.as_bytes() })
            .collect();
        self.at.position = self.at.position.next();
        let mut reply = Reply::new();
        execute(&mut self.store, self.at, &arguments, &mut reply);
        shown(&reply.into_bytes())
    }

    fn expect(&mut self, lines: &[(&str, &str)]) {
        for (command, reply) in lines {
            assert_eq!(self.run(command), *reply, "{command}");
        }
    }
}

const START_MS: u64 = 1_700_000_000_000;

#[test]
fn set_has_all_its_options() {
    Session::new().expect(&[
        ("SET a 1", "OK"),
        ("GET a", "\"1\""),
        ("SET a 2 NX", "nil"),
        ("SET b 2 XX", "nil"),
        ("SET a 2 XX GET", "\"1\""),
        ("SET c 3 NX GET", "nil"),
        ("GET c", "\"3\""),
        ("SET a 3 NX XX", "!ERR syntax error"),
        ("SET a 3 EX", "!ERR syntax error"),
        ("SET a 3 EX 10 PX 10", "!ERR syntax error"),
        ("SET a 3 EX 10 EX 20", "OK"),
        ("TTL a", "(20)"),
        ("SET a 4 KEEPTTL", "OK"),
        ("TTL a", "(20)"),
        ("SET a 4 KEEPTTL EX 3", "!ERR syntax error"),
        ("SET a 4", "OK"),
        ("TTL a", "(-1)"),
        ("SET a 4 EX 0", "!ERR invalid expire time in 'set' command"),
        ("SET a 4 PX -1", "!ERR invalid expire time in 'set' command"),
        ("SET a 4 EX 9223372036854775807", "!ERR invalid expire time in 'set' command"),
        ("SET a 4 EX x", "!ERR value is not an integer or out of range"),
        ("SET a 4 EX x NX XX", "!ERR syntax error"),
        ("SET a 5 PXAT 1", "OK"),
        ("GET a", "nil"),
        ("SET a 5 EXAT 1700000100", "OK"),
        ("EXPIRETIME a", "(1700000100)"),
        ("SET a", "!ERR wrong number of arguments for 'set' command"),
    ]);
}

#[test]
fn relatives_of_set_answer_as_in_redis() {
    Session::new().expect(&[
        ("SETNX a 1", "(1)"),
        ("SETNX a 2", "(0)"),
        ("SETEX a 10 2", "OK"),
        ("TTL a", "(10)"),
        ("SETEX a 0 2", "!ERR invalid expire time in 'setex' command"),
        ("PSETEX a 1500 2", "OK"),
        ("PTTL a", "(1500)"),
        ("TTL a", "(2)"),
        ("GETSET a 3", "\"2\""),
        ("TTL a", "(-1)"),
        ("GETSET n 3", "nil"),
        ("GETDEL n", "\"3\""),
        ("GETDEL n", "nil"),
        ("GETEX a EX 100", "\"3\""),
        ("TTL a", "(100)"),
        ("GETEX a PERSIST", "\"3\""),
        ("TTL a", "(-1)"),
        ("GETEX a NX", "!ERR syntax error"),
        ("GETEX a EX 0", "!ERR invalid expire time in 'getex' command"),
        ("GETEX nokey EX 0", "nil"),
        ("GETEX a PXAT 1", "\"3\""),
        ("EXISTS a", "(0)"),
    ]);
}

#[test]
fn numbers_are_counted_as_in_redis() {
    Session::new().expect(&[
        ("INCR n", "(1)"),
        ("INCRBY n 41", "(42)"),
        ("DECR n", "(41)"),
        ("DECRBY n 1", "(40)"),
        ("DECRBY n -9223372036854775808", "!ERR decrement would overflow"),
        ("INCRBY n 9223372036854775807", "!ERR increment or decrement would overflow"),
        ("INCRBY n 1.5", "!ERR value is not an integer or out of range"),
        ("SET s x", "OK"),
        ("INCR s", "!ERR value is not an integer or out of range"),
        ("INCRBYFLOAT n 0.5", "\"40.5\""),
        ("INCRBYFLOAT n -0.5", "\"40\""),
        ("INCRBYFLOAT s 1", "!ERR value is not a valid float"),
        ("INCRBYFLOAT n nan", "!ERR value is not a valid float"),
        ("INCRBYFLOAT n inf", "!ERR increment would produce NaN or Infinity"),
        ("EXPIRE n 100", "(1)"),
        ("INCR n", "(41)"),
        ("TTL n", "(100)"),
    ]);
}

#[test]
fn parts_of_strings_are_read_and_written_as_in_redis() {
    Session::new().expect(&[
        ("APPEND a Hello", "(5)"),
        ("APPEND a World", "(10)"),
        ("STRLEN a", "(10)"),
        ("STRLEN nokey", "(0)"),
        ("GETRANGE a 0 4", "\"Hello\""),
        ("GETRANGE a -5 -1", "\"World\""),
        ("GETRANGE a 5 100", "\"World\""),
        ("GETRANGE a 7 3", "\"\""),
        ("GETRANGE a -1 -5", "\"\""),
        ("GETRANGE a -100 1", "\"He\""),
        ("GETRANGE nokey 0 -1", "\"\""),
        ("GETRANGE a x 1", "!ERR value is not an integer or out of range"),
        ("SETRANGE a 5 -----", "(10)"),
        ("GET a", "\"Hello-----\""),
        ("SETRANGE b 2 x", "(3)"),
        ("GET b", "\"\\0\\0x\""),
        ("SETRANGE nokey 5 ''", "(0)"),
        ("EXISTS nokey", "(0)"),
        ("SETRANGE a -1 x", "!ERR offset is out of range"),
        ("SETRANGE a 600000000 x", "!ERR string exceeds maximum allowed size (proto-max-bulk-len)"),
    ]);
}

#[test]
fn several_keys_are_handled_at_once() {
    Session::new().expect(&[
        ("MSET a 1 b 2", "OK"),
        ("MSET a 1 b", "!ERR wrong number of arguments for 'mset' command"),
        ("MGET a b c", "[3] \"1\" \"2\" nil"),
        ("MSETNX c 3 a 9", "(0)"),
        ("MSETNX c 3 d 4", "(1)"),
        ("EXISTS a a c nokey", "(3)"),
        ("DEL a a nokey", "(1)"),
        ("UNLINK b", "(1)"),
        ("TYPE c", "string"),
        ("TYPE a", "none"),
        ("DBSIZE", "(2)"),
        ("KEYS *", "[2] \"c\" \"d\""),
        ("RENAME c e", "OK"),
        ("RENAME c e", "!ERR no such key"),
        ("RENAME e e", "OK"),
        ("GET e", "\"3\""),
        ("FLUSHALL x", "!ERR syntax error"),
        ("FLUSHALL ASYNC", "OK"),
        ("DBSIZE", "(0)"),
    ]);
}

#[test]
fn times_to_live_take_their_conditions() {
    Session::new().expect(&[
        ("SET a 1", "OK"),
        ("EXPIRE nokey 10", "(0)"),
        ("EXPIRE a 10 XX", "(0)"),
        ("EXPIRE a 10 GT", "(0)"),
        ("EXPIRE a 10 LT", "(1)"),
        ("EXPIRE a 20 NX", "(0)"),
        ("EXPIRE a 20 GT", "(1)"),
        ("EXPIRE a 30 LT", "(0)"),
        ("PTTL a", "(20000)"),
        ("PERSIST a", "(1)"),
        ("PERSIST a", "(0)"),
        (
            "EXPIRE a 10 NX GT",
            "!ERR NX and XX, GT or LT options at the same time are not compatible",
        ),
        ("EXPIRE a 10 GT LT", "!ERR GT and LT options at the same time are not compatible"),
        ("EXPIRE a 10 foo", "!ERR Unsupported option foo"),
        ("EXPIRE a 99999999999999999", "!ERR invalid expire time in 'expire' command"),
        ("PEXPIRE a 9223372036854775807", "!ERR invalid expire time in 'pexpire' command"),
        ("PEXPIREAT a 1700000005000", "(1)"),
        ("TTL a", "(5)"),
        ("EXPIREAT a 1", "(1)"),
        ("EXISTS a", "(0)"),
        ("TTL a", "(-2)"),
    ]);
}

#[test]
fn a_key_vanishes_when_agreed_time_has_passed_its_end() {
    let mut session = Session::new();
    session.expect(&[("SET a 1 PX 100", "OK"), ("SET b 1", "OK")]);
    session.at.time_ms += 100;
    session.expect(&[("GET a", "\"1\""), ("PTTL a", "(0)")]);
    session.at.time_ms += 1;
    session.expect(&[
        ("GET a", "nil"),
        ("DBSIZE", "(1)"),
        ("KEYS *", "[1] \"b\""),
        ("SCAN 0", "[2] \"0\" [1] \"b\""),
        ("SET a 2 KEEPTTL", "OK"),
        ("TTL a", "(-1)"),
    ]);
}

#[test]
fn unknown_commands_and_wrong_numbers_are_named() {
    Session::new().expect(&[
        ("foo a b", "!ERR unknown command 'foo', with args beginning with: 'a' 'b' "),
        ("''", "!ERR unknown command '', with args beginning with: "),
        ("LPUSH a b", "!ERR unknown command 'LPUSH', with args beginning with: 'a' 'b' "),
        ("GET", "!ERR wrong number of arguments for 'get' command"),
        ("get a b", "!ERR wrong number of arguments for 'get' command"),
    ]);
}

#[test]
fn a_walk_with_scan_meets_every_key_that_stays_exactly_once_and_ends() {
    let mut session = Session::new();
    for key in 0..100 {
        session.run(&format!("SET stays:{key} 1"));
        session.run(&format!("SET goes:{key} 1"));
    }
    let (mut cursor, mut seen) = ("0".to_owned(), Vec::new());
    for round in 0.. {
        assert!(round < 100, "the walk must end although keys are made all the time");
        let reply = session.run(&format!("SCAN {cursor} COUNT 7"));
        let mut words = reply.split(' ');
        cursor = words.nth(1).unwrap().trim_matches('"').to_owned();
        seen.extend(words.skip(1).map(|key| key.trim_matches('"').to_owned()));
        // Keys come and go under the walk.
        session.run(&format!("DEL goes:{round} goes:{}", 99 - round));
        session.run(&format!("MSET new:{round} 1 newer:{round} 1"));
        if cursor == "0" {
            break;
        }
    }
    seen.retain(|key| key.starts_with("stays:"));
    let count = seen.len();
    seen.sort();
    seen.dedup();
    assert_eq!((seen.len(), count), (100, 100));
}

#[test]
fn scan_takes_its_options() {
    let mut session = Session::new();
    session.expect(&[
        ("MSET a1 1 a2 1 b1 1", "OK"),
        ("SCAN 0 MATCH a* COUNT 100", "[2] \"0\" [2] \"a2\" \"a1\""),
        ("SCAN 0 TYPE string COUNT 1", "[2] \"2\" [1] \"b1\""),
        ("SCAN 2 COUNT 1", "[2] \"1\" [1] \"a2\""),
        ("SCAN 0 TYPE list", "[2] \"0\" [0]"),
        ("SCAN x", "!ERR invalid cursor"),
        ("SCAN 0 COUNT 0", "!ERR syntax error"),
        ("SCAN 0 COUNT x", "!ERR value is not an integer or out of range"),
        ("SCAN 0 MATCH", "!ERR syntax error"),
        ("SCAN 0 FOO 1", "!ERR syntax error"),
    ]);
}

#[test]
fn a_reply_beyond_the_limit_is_an_error_and_takes_no_memory() {
    let mut session = Session::new();
    session.run(&format!("SET a {}", "x".repeat(VALUE_BYTES_MAX)));
    let many = vec!["a"; 100].join(" ");
    let reply = session.run(&format!("MGET {many}"));
    assert!(reply.starts_with("!ERR the reply would exceed 8 MiB"), "{}", &reply[..40]);
    assert_eq!(session.run("STRLEN a"), format!("({VALUE_BYTES_MAX})"));
    assert_eq!(
        session.run("APPEND a x"),
        "!ERR string exceeds maximum allowed size (proto-max-bulk-len)"
    );
}

#[test]
fn a_query_refuses_to_write() {
    let (store, mut reply) = (Store::default(), Reply::new());
    read(&store, Moment::default(), &[b"SET", b"a", b"b"], &mut reply);
    assert_eq!(shown(&reply.into_bytes()), "!ERR a query cannot run a command that writes");
}
