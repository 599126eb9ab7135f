//! What `bench web` asks of servers and sites.

use std::{io, net::SocketAddr};

use crate::cli::bench::http::Connection;

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
    let mut open = Connection::kept(kept, at).await?;
    let head = open.ask(&request.bytes).await?;
    if !head.is_good() {
        let why = open.refusal(&head);
        return Err(match head.status() {
            "503" => Unanswered::NotApplied(why),
            _ => Unanswered::Failed(io::Error::other(why)),
        });
    }
    let length = head.length;
    if let Some(expected) = request.expected.filter(|expected| *expected != length) {
        let why = format!("an answer of {length} bytes instead of {expected}");
        return Err(io::Error::other(why).into());
    }
    open.skip_body(&head).await?;
    *kept = Some(open);
    Ok(())
}
