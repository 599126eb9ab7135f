//! The little of an HTTP client that a load generator needs.

use std::{io, net::SocketAddr};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

/// A request, laid out once; only the number of its file changes.
#[derive(Debug, Clone)]
pub(super) struct Request {
    bytes: Vec<u8>,
    number: usize,
    /// What an answer must bring.
    expected: Option<usize>,
}

impl Request {
    /// PUTs or GETs files of `size` bytes in `folder`.
    pub(super) fn new(method: &str, folder: &str, size: usize) -> Self {
        let start = format!("{method} {folder}");
        let mut bytes = format!("{start}0000 HTTP/1.1\r\nHost: bench\r\n").into_bytes();
        let puts = method == "PUT";
        if puts {
            bytes.extend_from_slice(format!("Content-Length: {size}\r\n").as_bytes());
        }
        bytes.extend_from_slice(b"\r\n");
        if puts {
            bytes.resize(bytes.len() + size, b'x');
        }
        Self { bytes, number: start.len(), expected: (!puts).then_some(size) }
    }

    /// It is of this file from now on.
    pub(super) fn name(&mut self, file: u32) {
        let digits = format!("{file:04}");
        self.bytes[self.number..self.number + digits.len()].copy_from_slice(digits.as_bytes());
    }
}

/// Why there is no good answer.
#[derive(Debug)]
pub(super) enum Unanswered {
    /// Nothing was done; it may be asked again.
    NotApplied(String),
    /// Anything else.
    Failed(io::Error),
}

impl From<io::Error> for Unanswered {
    fn from(error: io::Error) -> Self {
        Self::Failed(error)
    }
}

/// Asks once, on a kept connection where there is one; it is kept if all went well.
pub(super) async fn ask(
    kept: &mut Option<Connection>,
    at: SocketAddr,
    request: &Request,
) -> Result<(), Unanswered> {
    let mut open = match kept.take() {
        Some(open) => open,
        None => Connection::open(at).await?,
    };
    open.ask(request).await?;
    *kept = Some(open);
    Ok(())
}

/// A connection to a server or a site.
pub(super) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    async fn open(at: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(at).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: Vec::with_capacity(READ_BYTES) })
    }

    /// Sends and waits for all of an answer, which must be a good one.
    async fn ask(&mut self, request: &Request) -> Result<(), Unanswered> {
        self.stream.write_all(&request.bytes).await?;
        self.buffer.clear();
        let head = loop {
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
            if let Some(end) = self.buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                break end + 4;
            }
        };
        let text = String::from_utf8_lossy(&self.buffer[..head]).to_ascii_lowercase();
        let line = text.lines().next().unwrap_or_default();
        let status = line.split(' ').nth(1).unwrap_or_default();
        if !status.starts_with('2') {
            // As much of the reason as came with the head.
            let why = String::from_utf8_lossy(&self.buffer[head..]);
            let why = format!("{line}: {}", why.trim_end());
            return Err(match status {
                "503" => Unanswered::NotApplied(why),
                _ => Unanswered::Failed(io::Error::other(why)),
            });
        }
        let length = text.lines().find_map(|line| line.strip_prefix("content-length: "));
        let length: usize = length.map_or(Ok(0), str::parse).map_err(io::Error::other)?;
        if let Some(expected) = request.expected.filter(|expected| *expected != length) {
            let why = format!("an answer of {length} bytes instead of {expected}");
            return Err(io::Error::other(why).into());
        }
        let mut missing = (head + length).saturating_sub(self.buffer.len());
        if missing > READ_BYTES {
            self.buffer.reserve(LARGE_READ_BYTES);
        }
        while missing > 0 {
            self.buffer.clear();
            let read = self.stream.read_buf(&mut self.buffer).await?;
            if read == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
            missing = missing.saturating_sub(read);
        }
        Ok(())
    }
}

/// A head and a small body.
const READ_BYTES: usize = 16 << 10;

/// So that it is not the client that is measured.
const LARGE_READ_BYTES: usize = 256 << 10;
