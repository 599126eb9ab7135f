//! The little of an HTTP client that a load generator needs: so that it is not the client that is
//! measured.

use std::io;

use bytes::{Buf as _, BytesMut};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpStream, ToSocketAddrs},
};

/// A connection to a server that is asked one thing after the other.
pub(super) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// What an answer begins with.
#[derive(Debug)]
pub(super) struct Head {
    /// Its first line, in small letters.
    pub(super) line: String,
    /// Bytes of its body; 0 where it does not say.
    pub(super) length: usize,
    /// Bytes of the head.
    end: usize,
}

impl Head {
    fn read(text: &str, end: usize) -> io::Result<Self> {
        let text = text.to_ascii_lowercase();
        let length = text.lines().find_map(|line| line.strip_prefix("content-length: "));
        let length = length.map_or(Ok(0), str::parse).map_err(io::Error::other)?;
        Ok(Self { line: text.lines().next().unwrap_or_default().to_owned(), length, end })
    }

    /// Three digits.
    pub(super) fn status(&self) -> &str {
        self.line.split(' ').nth(1).unwrap_or_default()
    }

    pub(super) fn is_good(&self) -> bool {
        self.status().starts_with('2')
    }
}

impl Connection {
    /// The kept one, or a new one; whoever is content with it keeps it again.
    pub(super) async fn kept(kept: &mut Option<Self>, at: impl ToSocketAddrs) -> io::Result<Self> {
        match kept.take() {
            Some(open) => Ok(open),
            None => Self::open(at).await,
        }
    }

    pub(super) async fn open(at: impl ToSocketAddrs) -> io::Result<Self> {
        let stream = TcpStream::connect(at).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: Vec::with_capacity(READ_BYTES) })
    }

    /// Sends a request, and waits for the head of its answer.
    pub(super) async fn ask(&mut self, request: &[u8]) -> io::Result<Head> {
        self.stream.write_all(request).await?;
        self.buffer.clear();
        loop {
            self.read().await?;
            if let Some(at) = self.buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                let end = at + 4;
                return Head::read(&String::from_utf8_lossy(&self.buffer[..end]), end);
            }
        }
    }

    /// What came of the body so far.
    pub(super) fn begun(&self, head: &Head) -> &[u8] {
        &self.buffer[head.end..]
    }

    /// What it says of a refusal, as much as came with the head.
    pub(super) fn refusal(&self, head: &Head) -> String {
        format!("{}: {}", head.line, String::from_utf8_lossy(self.begun(head)).trim_end())
    }

    /// The whole body.
    pub(super) async fn body(&mut self, head: &Head) -> io::Result<&[u8]> {
        while self.buffer.len() < head.end + head.length {
            self.read().await?;
        }
        Ok(self.begun(head))
    }

    /// Waits for the whole body, and forgets it.
    pub(super) async fn skip_body(&mut self, head: &Head) -> io::Result<()> {
        let mut missing = (head.end + head.length).saturating_sub(self.buffer.len());
        if missing > READ_BYTES {
            self.buffer.reserve(LARGE_READ_BYTES);
        }
        while missing > 0 {
            self.buffer.clear();
            missing = missing.saturating_sub(self.read().await?);
        }
        Ok(())
    }

    /// More of the body, behind `begun`; nothing of what came before is kept.
    pub(super) async fn next(&mut self) -> io::Result<&[u8]> {
        self.buffer.clear();
        self.read().await?;
        Ok(&self.buffer)
    }

    async fn read(&mut self) -> io::Result<usize> {
        match self.stream.read_buf(&mut self.buffer).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            read => Ok(read),
        }
    }
}

/// Moves what whole chunks hold to `body`; what is left of `chunks` is a part of one.
pub(super) fn unchunk(chunks: &mut BytesMut, body: &mut BytesMut) -> io::Result<()> {
    while let Some(at) = chunks.windows(2).position(|two| two == b"\r\n") {
        let size = String::from_utf8_lossy(&chunks[..at]);
        let size = usize::from_str_radix(&size, 16).map_err(io::Error::other)?;
        let start = at + 2;
        if chunks.len() - start < size.saturating_add(2) {
            break;
        }
        body.extend_from_slice(&chunks[start..start + size]);
        chunks.advance(start + size + 2);
    }
    Ok(())
}

/// A head and a small body.
const READ_BYTES: usize = 16 << 10;

/// Fewer reads of a large one.
const LARGE_READ_BYTES: usize = 256 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_taken_apart_wherever_they_are_cut() {
        let sent = b"B\r\nhello\r\nworl\r\n1\r\nd\r\n0\r\n\r\n";
        for cut in 0..=sent.len() {
            let (mut chunks, mut body) = (BytesMut::from(&sent[..cut]), BytesMut::new());
            unchunk(&mut chunks, &mut body).unwrap();
            chunks.extend_from_slice(&sent[cut..]);
            unchunk(&mut chunks, &mut body).unwrap();
            assert_eq!(
                (&body[..], &chunks[..]),
                (&b"hello\r\nworld"[..], &b""[..]),
                "cut at {cut}"
            );
        }
        let no_number = unchunk(&mut BytesMut::from("HTTP\r\n"), &mut BytesMut::new());
        assert!(no_number.is_err());
    }
}
