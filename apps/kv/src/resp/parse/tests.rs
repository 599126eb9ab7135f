use proptest::prelude::*;

use super::*;
use crate::args;

/// Feeds `pieces` one after the other; gives all commands and the error that ended it.
fn feed(pieces: &[&[u8]]) -> (Vec<Vec<Vec<u8>>>, Option<ProtocolError>) {
    let (mut parser, mut input, mut commands) = (Parser::default(), BytesMut::new(), Vec::new());
    for piece in pieces {
        input.extend_from_slice(piece);
        loop {
            match parser.next(&mut input) {
                Ok(None) => break,
                Ok(Some(request)) => {
                    let arguments = args::decode(&request.args).unwrap();
                    assert_eq!(arguments.len(), request.count);
                    commands.push(arguments.iter().map(|argument| argument.to_vec()).collect());
                }
                Err(error) => return (commands, Some(error)),
            }
        }
    }
    (commands, None)
}

fn error_of(input: &[u8]) -> String {
    feed(&[input]).1.map_or_else(|| "none".into(), |error| error.to_string())
}

#[test]
fn what_is_no_resp_is_refused_with_redis_words() {
    let cases: &[(&[u8], &str)] = &[
        (b"*x\r\n", "Protocol error: invalid multibulk length"),
        (b"*1048577\r\n", "Protocol error: invalid multibulk length"),
        (b"*1\r\n+3\r\n", "Protocol error: expected '$', got '+'"),
        (b"*1\r\n\r\n", "Protocol error: expected '$', got '\r'"),
        (b"*1\r\n$-1\r\n", "Protocol error: invalid bulk length"),
        (b"*1\r\n$1048577\r\n", "Protocol error: invalid bulk length"),
        (b"*1\r\n$99999999999999999999\r\n", "Protocol error: invalid bulk length"),
        (b"GET \"a\r\n", "Protocol error: unbalanced quotes in request"),
    ];
    for (input, expected) in cases {
        assert_eq!(error_of(input), *expected, "{}", input.escape_ascii());
    }
    let long = vec![b'1'; INLINE_BYTES_MAX];
    assert_eq!(error_of(&long), "Protocol error: too big inline request");
    assert_eq!(error_of(&[b"*", &long[..]].concat()), "Protocol error: too big mbulk count string");
    assert_eq!(
        error_of(&[b"*1\r\n$", &long[..]].concat()),
        "Protocol error: too big bulk count string"
    );
    let large = [b"$1048576\r\n".to_vec(), vec![b'x'; 1_048_576], b"\r\n".to_vec()].concat();
    let large = [b"*5\r\n".to_vec(), large.repeat(4)].concat();
    assert_eq!(error_of(&large), "Protocol error: too big request, the limit is 2 MiB");
}

#[test]
fn empty_commands_are_skipped_and_others_are_found_behind_them() {
    let (commands, error) = feed(&[b"*0\r\n*-1\r\n\r\n  \r\nPING\r\n*1\r\n$4\r\nECHO\r\n"]);
    assert_eq!(commands, [[b"PING".to_vec()], [b"ECHO".to_vec()]]);
    assert_eq!(error, None);
}

#[test]
fn a_lying_header_allocates_nothing() {
    let (mut parser, mut input) = (Parser::default(), BytesMut::new());
    input.extend_from_slice(b"*1048576\r\n");
    assert_eq!(parser.next(&mut input), Ok(None));
    assert!(parser.partial.is_some_and(|partial| partial.args.len() < 64));
}

fn command() -> impl Strategy<Value = Vec<u8>> {
    let array = proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..12), 1..5);
    let array = array.prop_map(|arguments| {
        let mut bytes = format!("*{}\r\n", arguments.len()).into_bytes();
        for argument in arguments {
            bytes.extend_from_slice(format!("${}\r\n", argument.len()).as_bytes());
            bytes.extend_from_slice(&argument);
            bytes.extend_from_slice(b"\r\n");
        }
        bytes
    });
    let inline = "[a-z]{1,6}( [a-z0-9]{0,6}){0,3}\r?\n".prop_map(String::into_bytes);
    let empty = prop_oneof![Just(b"\r\n".to_vec()), Just(b"*0\r\n".to_vec())];
    prop_oneof![6 => array, 2 => inline, 1 => empty]
}

proptest! {
    #[test]
    fn every_cut_gives_the_same_commands(
        commands in proptest::collection::vec(command(), 1..5),
        cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..6),
    ) {
        let stream = commands.concat();
        let whole = feed(&[&stream]);
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len())).collect();
        cuts.sort_unstable();
        let mut pieces = Vec::new();
        let mut from = 0;
        for cut in cuts {
            pieces.push(&stream[from..cut]);
            from = cut;
        }
        pieces.push(&stream[from..]);
        prop_assert_eq!(&feed(&pieces), &whole);
        let bytes: Vec<&[u8]> = stream.chunks(1).collect();
        prop_assert_eq!(&feed(&bytes), &whole);
    }

    #[test]
    fn garbage_never_panics(stream: Vec<u8>) {
        feed(&[&stream]);
    }

    #[test]
    fn nearly_right_garbage_never_panics(stream in "[*$0-9a-z\"'\\\\ \r\n-]{0,80}") {
        feed(&[stream.as_bytes()]);
    }
}

#[test]
fn damaged_commands_are_refused_in_words_or_come_out_whole() {
    let inputs: [&[u8]; 4] = [
        b"*3\r\n$3\r\nSET\r\n$3\r\nkey\r\n$5\r\nvalue\r\n*1\r\n$4\r\nPING\r\n",
        b"SET key \"a \\x41 value\"\r\nPING\r\n",
        b"*0\r\n*-1\r\n\r\n*2\r\n$4\r\nECHO\r\n$0\r\n\r\n",
        b"*2\r\n$3\r\nGET\r\n$12\r\n\x00\x01binary\r\n12\r\n",
    ];
    synod::sim::fuzz(10, 40_000, &inputs, |data| {
        // In one piece, and cut in two: the same commands, the same error.
        let whole = feed(&[data]);
        let (head, tail) = data.split_at(data.len() / 2);
        assert_eq!(feed(&[head, tail]), whole);
        let bytes: usize = whole.0.iter().flatten().map(Vec::len).sum();
        assert!(bytes <= data.len());
    });
}
