//! Where a body ends (RFC 9112, 6). A body that breaks off is an error, never a short one.

use bytes::{Buf, Bytes, BytesMut};

/// How the end of a body is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    /// There is none.
    Empty,
    /// So many bytes are missing.
    Length(u64),
    /// In chunks.
    Chunked(Chunk),
    /// The server hangs up.
    UntilClose,
}

/// What comes next of a chunked body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Chunk {
    /// The line with a chunk's size.
    Size,
    /// So many bytes of a chunk.
    Data(u64),
    /// The line's end behind a chunk.
    End,
    /// Lines behind the last chunk; so many bytes of them may come.
    Trailers(usize),
}

/// What the bytes at hand were.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// A part of the body, not empty.
    Data(Bytes),
    /// Too few bytes are at hand.
    More,
    /// The body is whole.
    Done,
}

impl Framing {
    /// Takes the next piece out of `buffer`.
    ///
    /// # Errors
    /// Bytes that are no body in chunks.
    pub(super) fn next(&mut self, buffer: &mut BytesMut) -> Result<Piece, &'static str> {
        match self {
            Self::Empty | Self::Length(0) => Ok(Piece::Done),
            Self::Length(missing) => Ok(take(missing, buffer)),
            Self::UntilClose if buffer.is_empty() => Ok(Piece::More),
            Self::UntilClose => Ok(Piece::Data(buffer.split().freeze())),
            Self::Chunked(chunk) => chunk.next(buffer),
        }
    }

    /// Whether the server may hang up now: nothing is missing then.
    pub(super) fn may_end(self) -> bool {
        matches!(self, Self::Empty | Self::Length(0) | Self::UntilClose)
    }

    /// How long the body is, where that is told before it.
    pub(super) fn length(self) -> Option<u64> {
        match self {
            Self::Empty => Some(0),
            Self::Length(length) => Some(length),
            Self::Chunked(_) | Self::UntilClose => None,
        }
    }
}

impl Chunk {
    fn next(&mut self, buffer: &mut BytesMut) -> Result<Piece, &'static str> {
        loop {
            match self {
                Self::Size => {
                    let Some(line) = line(buffer)? else { return Ok(Piece::More) };
                    *self = match size(&line)? {
                        0 => Self::Trailers(TRAILER_BYTES_MAX),
                        size => Self::Data(size),
                    };
                }
                Self::Data(0) => *self = Self::End,
                Self::Data(missing) => return Ok(take(missing, buffer)),
                Self::End => match line(buffer)? {
                    None => return Ok(Piece::More),
                    Some(line) if line.is_empty() => *self = Self::Size,
                    Some(_) => return Err("a chunk is longer than it says"),
                },
                // They say nothing that anybody waits for.
                Self::Trailers(left) => match line(buffer)? {
                    None => return Ok(Piece::More),
                    Some(line) if line.is_empty() => return Ok(Piece::Done),
                    Some(line) => {
                        *left = left.checked_sub(line.len()).ok_or("too many trailers")?;
                    }
                },
            }
        }
    }
}

fn take(missing: &mut u64, buffer: &mut BytesMut) -> Piece {
    if buffer.is_empty() {
        return Piece::More;
    }
    let most = usize::try_from(*missing).unwrap_or(usize::MAX).min(buffer.len());
    *missing -= most as u64;
    Piece::Data(buffer.split_to(most).freeze())
}

/// A line without its end, if it is whole.
fn line(buffer: &mut BytesMut) -> Result<Option<BytesMut>, &'static str> {
    let Some(end) = buffer.iter().take(LINE_BYTES_MAX).position(|byte| *byte == b'\n') else {
        let long = buffer.len() >= LINE_BYTES_MAX;
        return if long { Err("a line between chunks is too long") } else { Ok(None) };
    };
    let mut line = buffer.split_to(end);
    buffer.advance(1);
    // A bare line feed is where readers of one body come to see two.
    if line.last() != Some(&b'\r') {
        return Err("a line between chunks ends without a carriage return");
    }
    line.truncate(line.len() - 1);
    Ok(Some(line))
}

/// Of the line before a chunk; what is behind a semicolon is for nobody.
fn size(line: &[u8]) -> Result<u64, &'static str> {
    let digits = line.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii_end();
    let bad = "a chunk's size is no number";
    // A sign, or nothing at all, would pass for a number elsewhere.
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_hexdigit) {
        return Err(bad);
    }
    let text = std::str::from_utf8(digits).map_err(|_| bad)?;
    u64::from_str_radix(text, 16).map_err(|_| "a chunk's size is too large")
}

/// A size of sixteen digits, and an extension that somebody found useful.
const LINE_BYTES_MAX: usize = 4 << 10;

/// As much as a head may have of them.
const TRAILER_BYTES_MAX: usize = 16 << 10;

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    /// Everything `text` is, given in pieces of `step` bytes.
    fn read(mut framing: Framing, text: &[u8], step: usize) -> Result<(Vec<u8>, bool), String> {
        let (mut buffer, mut body) = (BytesMut::new(), Vec::new());
        for piece in text.chunks(step) {
            buffer.extend_from_slice(piece);
            loop {
                match framing.next(&mut buffer)? {
                    Piece::Data(data) => body.extend_from_slice(&data),
                    Piece::More => break,
                    Piece::Done => return Ok((body, true)),
                }
            }
        }
        Ok((body, framing.may_end()))
    }

    #[test]
    fn bodies_end_where_they_say() {
        let chunked = Framing::Chunked(Chunk::Size);
        let text = b"5\r\nhello\r\n6;x=y\r\n world\r\n0\r\nTrailer: a\r\n\r\nrest";
        for step in 1..text.len() {
            assert_eq!(read(chunked, text, step).unwrap(), (b"hello world".to_vec(), true));
            assert_eq!(read(Framing::Length(3), b"abcdef", step).unwrap(), (b"abc".to_vec(), true));
            assert_eq!(read(Framing::UntilClose, b"abc", step).unwrap(), (b"abc".to_vec(), true));
        }
        assert_eq!(read(Framing::Empty, b"abc", 1).unwrap(), (Vec::new(), true));
    }

    #[test]
    fn a_body_that_breaks_off_is_not_whole() {
        assert_eq!(read(Framing::Length(4), b"abc", 1).unwrap(), (b"abc".to_vec(), false));
        for text in ["", "5", "5\r\nhel", "5\r\nhello\r\n", "5\r\nhello\r\n0\r\n", "0\r\na: b\r\n"]
        {
            assert!(
                !read(Framing::Chunked(Chunk::Size), text.as_bytes(), 3).unwrap().1,
                "{text:?}"
            );
        }
    }

    #[test]
    fn what_is_no_chunk_is_refused() {
        for text in [
            "\r\nabc",
            "x\r\n",
            "-1\r\n",
            "+5\r\nhello",
            "0x5\r\nhello",
            "5\nhello\r\n",
            " 5\r\nhello",
            "5\r\nhello!\r\n",
            "11111111111111111\r\n",
            "5\r\nhelloXX\r\n",
            "5 5\r\nhello\r\n",
        ] {
            let read = read(Framing::Chunked(Chunk::Size), text.as_bytes(), 100);
            assert!(read.is_err(), "{text:?} was read as {read:?}");
        }
    }

    proptest! {
        #[test]
        fn chunks_give_back_what_was_cut_into_them(
            parts in vec(vec(any::<u8>(), 1..40), 0..8), step in 1_usize..30,
        ) {
            let mut text = Vec::new();
            for part in &parts {
                text.extend_from_slice(format!("{:x}\r\n", part.len()).as_bytes());
                text.extend_from_slice(part);
                text.extend_from_slice(b"\r\n");
            }
            text.extend_from_slice(b"0\r\n\r\n");
            let read = read(Framing::Chunked(Chunk::Size), &text, step).unwrap();
            prop_assert_eq!(read, (parts.concat(), true));
        }
    }
}
