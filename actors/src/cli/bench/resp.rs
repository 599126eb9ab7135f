//! The little of a Redis client that a load generator needs: requests laid out once, and replies
//! counted, not read. It must cost next to nothing, since it shares the cores with the cluster.

use std::io;

use rand::RngExt as _;
use serde::Serialize;
use synod_runtime::world::Rng;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::server::config::HostPort;

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Command {
    Set,
    Get,
    /// Not measured: takes our keys away again.
    Del,
}

/// Some commands that leave together. Only the numbers in the keys change from one time to the
/// next.
#[derive(Debug, Clone)]
pub(super) struct Request {
    bytes: Vec<u8>,
    /// Where each command's key number is.
    numbers: Vec<usize>,
}

impl Request {
    /// `count` commands; values of `size` bytes.
    pub(super) fn new(command: Command, size: usize, count: usize) -> Self {
        let (name, parts) = match command {
            Command::Set => ("SET", 3),
            Command::Get => ("GET", 2),
            Command::Del => ("DEL", 2),
        };
        let key_len = KEY_PREFIX.len() + KEY_DIGITS;
        let head = format!("*{parts}\r\n$3\r\n{name}\r\n${key_len}\r\n{KEY_PREFIX}");
        let (mut bytes, mut numbers) = (Vec::new(), Vec::with_capacity(count));
        for _ in 0..count {
            bytes.extend_from_slice(head.as_bytes());
            numbers.push(bytes.len());
            bytes.extend_from_slice(&[b'0'; KEY_DIGITS]);
            bytes.extend_from_slice(b"\r\n");
            if command == Command::Set {
                bytes.extend_from_slice(format!("${size}\r\n").as_bytes());
                bytes.resize(bytes.len() + size, b'x');
                bytes.extend_from_slice(b"\r\n");
            }
        }
        Self { bytes, numbers }
    }

    /// Names a random one of the first `keys` keys in each command.
    pub(super) fn draw(&mut self, rng: &mut Rng, keys: u32) {
        for at in 0..self.numbers.len() {
            self.name_key(at, rng.random_range(0..keys));
        }
    }

    /// Names the keys from `first` on, one a command, and the first key again after the last.
    pub(super) fn enumerate(&mut self, first: u32, keys: u32) {
        for (at, number) in (0..self.numbers.len()).zip(first..) {
            self.name_key(at, number % keys);
        }
    }

    /// How many commands there are.
    pub(super) const fn len(&self) -> usize {
        self.numbers.len()
    }

    fn name_key(&mut self, at: usize, mut number: u32) {
        let from = self.numbers[at];
        for digit in self.bytes[from..from + KEY_DIGITS].iter_mut().rev() {
            *digit = b'0' + u8::try_from(number % 10).expect("a digit");
            number /= 10;
        }
    }
}

/// A connection that asks and waits.
#[derive(Debug)]
pub(super) struct Connection {
    stream: TcpStream,
    replies: Replies,
    buffer: Vec<u8>,
}

impl Connection {
    /// Connects to `at`.
    pub(super) async fn open(at: &HostPort) -> io::Result<Self> {
        let stream = TcpStream::connect((at.host(), at.port())).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, replies: Replies::default(), buffer: vec![0; READ_BYTES] })
    }

    /// Sends and waits for every reply. Answers how many were refused, and why the last one was.
    ///
    /// # Errors
    /// The connection is of no more use, and what became of the commands is not known.
    pub(super) async fn ask(&mut self, request: &Request) -> io::Result<Option<(u64, String)>> {
        self.stream.write_all(&request.bytes).await?;
        self.replies.count = 0;
        while self.replies.count < request.len() {
            let read = self.stream.read(&mut self.buffer).await?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.replies.take(&self.buffer[..read])?;
        }
        let refused = std::mem::take(&mut self.replies.refused);
        Ok((refused > 0).then(|| (refused, self.replies.last_refusal.clone())))
    }
}

/// Counts RESP2 replies in a stream cut anywhere.
#[derive(Debug, Default)]
struct Replies {
    /// The beginning of a line whose end has not come yet.
    line: Vec<u8>,
    /// Bytes of a value still to come, with its line end.
    skip: usize,
    count: usize,
    refused: u64,
    last_refusal: String,
}

impl Replies {
    fn take(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            if self.skip > 0 {
                let skipped = self.skip.min(bytes.len());
                self.skip -= skipped;
                bytes = &bytes[skipped..];
                self.count += usize::from(self.skip == 0);
                continue;
            }
            let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else {
                self.line.extend_from_slice(bytes);
                break;
            };
            let (line, rest) = bytes.split_at(end + 1);
            if self.line.is_empty() {
                self.line(line)?;
            } else {
                let mut whole = std::mem::take(&mut self.line);
                whole.extend_from_slice(line);
                self.line(&whole)?;
            }
            bytes = rest;
        }
        if self.line.len() > LINE_BYTES_MAX {
            Err(unexpected("a line without end"))
        } else {
            Ok(())
        }
    }

    fn line(&mut self, line: &[u8]) -> io::Result<()> {
        let text = String::from_utf8_lossy(line.get(1..).unwrap_or_default());
        let text = text.trim_end();
        match line.first() {
            Some(b'+' | b':') => self.count += 1,
            Some(b'-') => self.refuse(text),
            // Every key was set before: a missing one is lost.
            Some(b'$') if text == "-1" => self.refuse("a key that was set is missing"),
            Some(b'$') => {
                let len: usize = text.parse().map_err(|_| unexpected(text))?;
                self.skip = len + 2;
            }
            _ => return Err(unexpected(&String::from_utf8_lossy(line))),
        }
        Ok(())
    }

    fn refuse(&mut self, why: &str) {
        self.count += 1;
        self.refused += 1;
        why.clone_into(&mut self.last_refusal);
    }
}

fn unexpected(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("no RESP reply: {what:?}"))
}

/// Our keys, apart from everybody else's.
const KEY_PREFIX: &str = "synod-bench:";

/// Every key is as long as every other.
const KEY_DIGITS: usize = 6;

/// A whole pipeline's replies of the standard size.
const READ_BYTES: usize = 8 << 10;

/// Error texts are one short line.
const LINE_BYTES_MAX: usize = 16 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_whole_commands_with_keys_of_their_own() {
        let mut request = Request::new(Command::Set, 3, 2);
        request.enumerate(41, 42);
        let text = String::from_utf8(request.bytes.clone()).unwrap();
        let set = |key| format!("*3\r\n$3\r\nSET\r\n$18\r\nsynod-bench:{key}\r\n$3\r\nxxx\r\n");
        assert_eq!(text, set("000041") + &set("000000"));
    }

    #[test]
    fn replies_are_counted_however_the_stream_is_cut() {
        let stream = b"+OK\r\n$5\r\na\r\nb\n\r\n-ERR no\r\n$-1\r\n:12\r\n$0\r\n\r\n";
        for cut in 1..=stream.len() {
            let mut replies = Replies::default();
            for chunk in stream.chunks(cut) {
                replies.take(chunk).unwrap();
            }
            assert_eq!((replies.count, replies.refused), (6, 2), "cut at {cut}");
        }
        assert!(Replies::default().take(b"HTTP/1.1 400\r\n").is_err());
    }
}
