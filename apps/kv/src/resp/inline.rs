//! Commands typed by hand: words separated by spaces, quoted where they hold any.

use crate::args::ArgsWriter;

/// Splits a line (without its end) into words, as Redis does: `"…"` with escapes, `'…'` with `\'`
/// only, and nothing behind a NUL.
pub(super) fn split(line: &[u8]) -> Result<ArgsWriter, UnbalancedQuotes> {
    let end = line.iter().position(|byte| *byte == 0).unwrap_or(line.len());
    let mut rest = &line[..end];
    let mut words = ArgsWriter::with_capacity(4, rest.len());
    loop {
        rest = rest.trim_ascii_start();
        // Vertical tab is space for C, not for Rust.
        if let [b'\x0b', tail @ ..] = rest {
            rest = tail;
            continue;
        }
        if rest.is_empty() {
            return Ok(words);
        }
        let mut word = Vec::new();
        rest = take_word(rest, &mut word)?;
        words.push(&word);
    }
}

/// Takes one word off `rest`; quotes may begin anywhere in it but must end it.
fn take_word<'a>(mut rest: &'a [u8], word: &mut Vec<u8>) -> Result<&'a [u8], UnbalancedQuotes> {
    while let [byte, tail @ ..] = rest {
        match byte {
            b'"' => return ends(double_quoted(tail, word)?),
            b'\'' => return ends(single_quoted(tail, word)?),
            byte if is_space(*byte) => return Ok(rest),
            byte => word.push(*byte),
        }
        rest = tail;
    }
    Ok(rest)
}

/// A closing quote is followed by a space or nothing.
fn ends(rest: &[u8]) -> Result<&[u8], UnbalancedQuotes> {
    if rest.first().is_none_or(|byte| is_space(*byte)) { Ok(rest) } else { Err(UnbalancedQuotes) }
}

fn double_quoted<'a>(mut rest: &'a [u8], word: &mut Vec<u8>) -> Result<&'a [u8], UnbalancedQuotes> {
    loop {
        let (byte, tail) = match rest {
            [b'"', tail @ ..] => return Ok(tail),
            [b'\\', b'x', high, low, tail @ ..] if hex(*high).is_some() && hex(*low).is_some() => {
                let digit = |byte| hex(byte).unwrap_or_default();
                (digit(*high) << 4 | digit(*low), tail)
            }
            [b'\\', escaped, tail @ ..] => (unescape(*escaped), tail),
            [byte, tail @ ..] => (*byte, tail),
            [] => return Err(UnbalancedQuotes),
        };
        word.push(byte);
        rest = tail;
    }
}

fn single_quoted<'a>(mut rest: &'a [u8], word: &mut Vec<u8>) -> Result<&'a [u8], UnbalancedQuotes> {
    loop {
        let (byte, tail) = match rest {
            [b'\\', b'\'', tail @ ..] => (b'\'', tail),
            [b'\'', tail @ ..] => return Ok(tail),
            [byte, tail @ ..] => (*byte, tail),
            [] => return Err(UnbalancedQuotes),
        };
        word.push(byte);
        rest = tail;
    }
}

fn unescape(byte: u8) -> u8 {
    match byte {
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'b' => 8,
        b'a' => 7,
        other => other,
    }
}

fn hex(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

fn is_space(byte: u8) -> bool {
    byte.is_ascii_whitespace() || byte == b'\x0b'
}

/// A quote that is not closed, or is closed in the middle of a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct UnbalancedQuotes;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args;

    fn words(line: &str) -> Option<Vec<String>> {
        let bytes = split(line.as_bytes()).ok()?.finish();
        let text = |word: &&[u8]| word.escape_ascii().to_string();
        Some(args::decode(&bytes).unwrap().iter().map(text).collect())
    }

    #[test]
    fn lines_are_split_as_in_redis() {
        let cases: &[(&str, Option<&[&str]>)] = &[
            ("", Some(&[])),
            (" GET  a\t", Some(&["GET", "a"])),
            ("SET a \"b c\"", Some(&["SET", "a", "b c"])),
            (r#""\x41\n\"\q""#, Some(&[r#"A\n\"q"#])),
            (r#""\xzz""#, Some(&["xzz"])),
            (r"'it\'s \n'", Some(&[r"it\'s \\n"])),
            ("a\"b\"", Some(&["ab"])),
            ("\"\" ''", Some(&["", ""])),
            ("a\0b c", Some(&["a"])),
            ("\"a", None),
            ("\"a\"b", None),
            ("'a", None),
            ("\"a\\", None),
        ];
        for (line, expected) in cases {
            let expected =
                expected.map(|words| words.iter().map(ToString::to_string).collect::<Vec<_>>());
            assert_eq!(words(line), expected, "{line:?}");
        }
    }
}
