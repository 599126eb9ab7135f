//! What Redis clients and servers say, as bytes: commands are taken apart, replies only counted.

use std::ops::Range;

use bytes::{Buf as _, Bytes, BytesMut};

/// A command's words: its name first. Never empty.
pub(super) type Words = Vec<Bytes>;

/// Takes commands from what a client says, however it is cut into pieces.
#[derive(Debug)]
pub(super) struct Commands {
    bytes_max: usize,
    /// Words still to come of the command that is being read.
    left: Option<usize>,
    words: Vec<Range<usize>>,
    /// How far it was read.
    at: usize,
}

impl Commands {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { bytes_max, left: None, words: Vec::new(), at: 0 }
    }

    /// The next command, if all of it is there; it leaves the buffer.
    ///
    /// # Errors
    /// What no client of Redis says: nothing behind it can be understood.
    pub(super) fn next(&mut self, buffer: &mut BytesMut) -> Result<Option<Words>, String> {
        loop {
            let Some(left) = self.left else {
                match buffer.first() {
                    None => return Ok(None),
                    Some(b'*') => {}
                    Some(_) => match inline(buffer)? {
                        Some(words) if words.is_empty() => continue,
                        words => return Ok(words),
                    },
                }
                let Some((line, end)) = line(buffer, 0)? else { return Ok(None) };
                match number(&line[1..])? {
                    count if count < 1 => buffer.advance(end),
                    count if count as u64 > WORDS_MAX => {
                        return Err(format!(
                            "a command of {count} words; {WORDS_MAX} are the most"
                        ));
                    }
                    count => (self.left, self.at) = (Some(count as usize), end),
                }
                continue;
            };
            if left == 0 {
                return Ok(Some(self.take(buffer)));
            }
            let Some((line, start)) = line(buffer, self.at)? else { return Ok(None) };
            if line.first() != Some(&b'$') {
                return Err("a word of a command does not begin with its length".to_owned());
            }
            let length = usize::try_from(number(&line[1..])?);
            let length = length.map_err(|_| "a word of less than no bytes".to_owned())?;
            let whole = length.saturating_add(start);
            if whole > self.bytes_max {
                return Err(format!("a command of more than {} bytes", self.bytes_max));
            }
            let Some(end) = buffer.get(whole..whole + 2) else { return Ok(None) };
            if end != b"\r\n" {
                return Err("a word of a command is longer than it says".to_owned());
            }
            self.words.push(start..whole);
            (self.left, self.at) = (Some(left - 1), whole + 2);
        }
    }

    fn take(&mut self, buffer: &mut BytesMut) -> Words {
        let whole = buffer.split_to(self.at).freeze();
        (self.left, self.at) = (None, 0);
        self.words.drain(..).map(|word| whole.slice(word)).collect()
    }
}

/// All commands of an ordered request.
///
/// # Errors
/// It is none that a site of this kind ordered.
pub(super) fn commands(body: &Bytes) -> Result<Vec<Words>, String> {
    let mut buffer = BytesMut::from(&body[..]);
    let mut commands = Commands::new(usize::MAX);
    let mut all = Vec::new();
    while let Some(words) = commands.next(&mut buffer)? {
        all.push(words);
    }
    match buffer.is_empty() && !all.is_empty() {
        true => Ok(all),
        false => Err("a request that is no command of Redis".to_owned()),
    }
}

/// A command as it is typed: words between spaces, on a line.
fn inline(buffer: &mut BytesMut) -> Result<Option<Words>, String> {
    let Some(end) = buffer.iter().take(INLINE_BYTES_MAX).position(|byte| *byte == b'\n') else {
        return match buffer.len() < INLINE_BYTES_MAX {
            true => Ok(None),
            false => Err("too big inline request".to_owned()),
        };
    };
    let line = buffer.split_to(end + 1).freeze();
    if line.iter().any(|byte| matches!(byte, b'"' | b'\'')) {
        // They would mean what they say only to whoever takes them apart as Redis does.
        return Err("quotes in a typed command: send it as an array of words".to_owned());
    }
    let words = line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
    Ok(Some(words.map(|word| line.slice_ref(word)).collect()))
}

/// The line at `at` without its end, and where the next begins.
fn line(bytes: &[u8], at: usize) -> Result<Option<(&[u8], usize)>, String> {
    let rest = bytes.get(at..).unwrap_or_default();
    match rest.iter().take(LINE_BYTES_MAX).position(|byte| *byte == b'\n') {
        Some(end) => Ok(Some((rest[..end].trim_ascii_end(), at + end + 1))),
        None if rest.len() < LINE_BYTES_MAX => Ok(None),
        None => Err("a length without an end".to_owned()),
    }
}

fn number(text: &[u8]) -> Result<i64, String> {
    let number = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok());
    number.ok_or_else(|| "a length that is no number".to_owned())
}

/// Writes a command.
pub(super) fn write<W: AsRef<[u8]>>(out: &mut Vec<u8>, words: &[W]) {
    out.extend_from_slice(format!("*{}\r\n", words.len()).as_bytes());
    for word in words {
        let word = word.as_ref();
        out.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        out.extend_from_slice(word);
        out.extend_from_slice(b"\r\n");
    }
}

/// Finds the end of replies, however they are cut into pieces.
#[derive(Debug, Clone, Copy)]
pub(super) struct Replies {
    /// Values still to come.
    left: u64,
    /// Bytes still to come of the value that is being read.
    skip: u64,
}

impl Replies {
    /// So many of them.
    pub(super) const fn new(count: u64) -> Self {
        Self { left: count, skip: 0 }
    }

    /// Goes on with what came next: how much of it belongs to them.
    ///
    /// # Errors
    /// What no server says.
    pub(super) fn advance(&mut self, bytes: &[u8]) -> Result<usize, String> {
        let mut at = 0;
        loop {
            let skipped = self.skip.min((bytes.len() - at) as u64);
            self.skip -= skipped;
            at += skipped as usize;
            if self.skip > 0 || self.left == 0 {
                return Ok(at);
            }
            let rest = &bytes[at..];
            let Some(end) = rest.iter().position(|byte| *byte == b'\n') else { return Ok(at) };
            let said = rest[..end].trim_ascii_end();
            at += end + 1;
            self.left -= 1;
            match said.first() {
                Some(b'+' | b'-' | b':') => {}
                Some(b'$') => self.skip = u64::try_from(number(&said[1..])? + 2).unwrap_or(0),
                Some(b'*') => {
                    let more = u64::try_from(number(&said[1..])?).unwrap_or(0);
                    self.left = self.left.saturating_add(more);
                }
                _ => return Err("the server says what is no reply".to_owned()),
            }
            if said.starts_with(b"$-") {
                self.skip = 0;
            }
        }
    }

    /// Whether all came.
    pub(super) const fn is_done(&self) -> bool {
        self.left == 0 && self.skip == 0
    }
}

/// Cuts `count` whole replies apart.
pub(super) fn cut(bytes: &[u8], count: usize) -> Option<Vec<&[u8]>> {
    let mut rest = bytes;
    let mut cut = || {
        let mut one = Replies::new(1);
        let end = one.advance(rest).ok().filter(|_| one.is_done())?;
        let (reply, behind) = rest.split_at(end);
        rest = behind;
        Some(reply)
    };
    (0..count).map(|_| cut()).collect()
}

/// The elements of an array, as they came; none when it is none.
pub(super) fn elements(reply: &[u8]) -> Option<Vec<&[u8]>> {
    let (said, start) = line(reply, 0).ok()??;
    let count = said.strip_prefix(b"*").and_then(|count| number(count).ok())?;
    cut(&reply[start..], usize::try_from(count).ok()?)
}

/// The text of a reply that is one; none for what is missing.
pub(super) fn text(reply: &[u8]) -> Option<&[u8]> {
    let (said, start) = line(reply, 0).ok()??;
    match said.first()? {
        b'$' => {
            let length = usize::try_from(number(&said[1..]).ok()?).ok()?;
            reply.get(start..start + length)
        }
        b'+' | b':' => Some(&said[1..]),
        _ => None,
    }
}

/// An error as a reply. What it says may come from elsewhere, and has one line only.
pub(super) fn error(code: &str, why: &dyn std::fmt::Display) -> Vec<u8> {
    format!("-{code} {}\r\n", why.to_string().replace(['\r', '\n'], " ")).into_bytes()
}

/// The first word of an error; of another reply nothing.
pub(super) fn error_word(reply: &[u8]) -> String {
    let word = reply.strip_prefix(b"-").unwrap_or_default().iter();
    word.take_while(|byte| byte.is_ascii_uppercase()).map(|byte| char::from(*byte)).collect()
}

/// As many as Redis takes.
const WORDS_MAX: u64 = 1 << 20;

/// As long as Redis takes.
const INLINE_BYTES_MAX: usize = 64 << 10;

/// A sign, twenty digits and an end, and some room.
const LINE_BYTES_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn whole(text: &[u8]) -> Result<Vec<Words>, String> {
        let (mut all, mut buffer) = (Vec::new(), BytesMut::from(text));
        let mut commands = Commands::new(1_000);
        while let Some(words) = commands.next(&mut buffer)? {
            all.push(words);
        }
        Ok(all)
    }

    proptest! {
        #[test]
        fn commands_are_the_same_however_they_are_cut(
            said in prop::collection::vec(prop::collection::vec("[a-z\r\n*$]{0,9}", 1..5), 0..5),
            piece in 1_usize..9,
        ) {
            let mut bytes = Vec::new();
            said.iter().for_each(|words| write(&mut bytes, words));
            let (mut all, mut buffer) = (Vec::new(), BytesMut::new());
            let mut commands = Commands::new(1_000);
            for piece in bytes.chunks(piece) {
                buffer.extend_from_slice(piece);
                while let Some(words) = commands.next(&mut buffer).unwrap() {
                    all.push(words);
                }
            }
            prop_assert!(buffer.is_empty());
            let said: Vec<Words> =
                said.into_iter().map(|words| words.into_iter().map(Bytes::from).collect()).collect();
            prop_assert_eq!(all, said);
        }

        #[test]
        fn nothing_that_a_client_says_is_fatal(said in prop::collection::vec(any::<u8>(), 0..99)) {
            drop(whole(&said));
            let mut replies = Replies::new(3);
            if let Ok(end) = replies.advance(&said) {
                prop_assert!(end <= said.len());
            }
            drop((cut(&said, 2), elements(&said), text(&said)));
        }
    }

    #[test]
    fn what_is_no_command_is_refused_and_lines_are_commands() {
        assert_eq!(whole(b"\r\n get  a\r\nping\n").unwrap(), [vec!["get", "a"], vec!["ping"]]);
        assert_eq!(whole(b"*0\r\n*-1\r\n*1\r\n$4\r\nping\r\n").unwrap(), [["ping"]]);
        assert!(whole(b"set k \"a b\"\r\n").unwrap_err().contains("array of words"));
        for bad in [
            "*x\r\n",
            "*2000000\r\n",
            "*1\r\nping\r\n",
            "*1\r\n$-1\r\n",
            "*1\r\n$2000\r\n",
            "*1\r\n$1\r\nab\r\n",
            "*11111111111111111111111111111111111111111111111111111111111111111111",
        ] {
            assert!(whole(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn replies_end_where_they_end() {
        let said = b"*3\r\n$3\r\na\r\n\r\n*-1\r\n*1\r\n$-1\r\n:1\r\n-ERR x\r\n+rest";
        for piece in 1..said.len() {
            let (mut replies, mut at, mut kept) = (Replies::new(3), 0, 0);
            while !replies.is_done() {
                kept = (kept + piece).min(said.len());
                at += replies.advance(&said[at..kept]).unwrap();
            }
            assert_eq!(&said[at..], b"+rest");
        }
        let replies = cut(said, 3).unwrap();
        assert_eq!(elements(replies[0]).unwrap()[0], b"$3\r\na\r\n\r\n");
        assert_eq!(text(elements(replies[0]).unwrap()[0]), Some(&b"a\r\n"[..]));
        assert_eq!((text(replies[1]), text(replies[2])), (Some(&b"1"[..]), None));
    }
}
