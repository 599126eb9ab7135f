//! One connection to a server, and one exchange on it.

use std::{cell::Cell, io, rc::Rc, time::Duration};

use bytes::BytesMut;
use tokio::{
    io::{AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{
        TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    time::timeout,
};

use super::{
    Fault,
    head::{self, Asked, Head},
};
use crate::Request;

/// A connection between two exchanges, or in one.
#[derive(Debug)]
pub(super) struct Connection {
    stream: TcpStream,
    /// Heard and not yet understood.
    buffer: BytesMut,
    /// Whether the server may speak another protocol behind its answer.
    may_switch: bool,
}

impl Connection {
    pub(super) async fn open(authority: &str) -> Result<Self, Fault> {
        let opened = timeout(CONNECT_TIME_MAX, TcpStream::connect(authority)).await;
        let refused = |why: &dyn std::fmt::Display| Fault::NotSent(format!("{authority}: {why}"));
        let stream = match opened {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(refused(&error)),
            Err(_) => return Err(refused(&"nobody takes a connection")),
        };
        // Requests are written whole, so waiting for more would only cost time.
        stream.set_nodelay(true).map_err(|error| refused(&error))?;
        Ok(Self { stream, buffer: BytesMut::new(), may_switch: false })
    }

    /// For one request, behind whose answer another protocol may be spoken.
    pub(super) async fn open_to_switch(authority: &str) -> Result<Self, Fault> {
        Ok(Self { may_switch: true, ..Self::open(authority).await? })
    }

    /// The bare connection, and what was heard on it.
    pub(super) fn into_parts(self) -> (TcpStream, BytesMut) {
        (self.stream, self.buffer)
    }

    /// Whether another request may go this way: the server neither hung up nor said a word since.
    pub(super) fn is_quiet(&self) -> bool {
        let nothing = |error: io::Error| error.kind() == io::ErrorKind::WouldBlock;
        self.buffer.is_empty() && self.stream.try_read(&mut [0]).is_err_and(nothing)
    }

    /// Sends a request and reads the answer's head; `bytes` is the request's own head. A server may
    /// answer before it read everything, then the connection is not kept.
    pub(super) async fn exchange(
        &mut self,
        request: &Request,
        bytes: &[u8],
        patience: Duration,
    ) -> Result<Head, Fault> {
        let (reader, writer) = self.stream.split();
        let sent = Rc::new(Cell::new(0));
        let write = send(writer, bytes, request, &sent);
        let asked = Asked { method: &request.method, may_switch: self.may_switch };
        let read = answer(reader, &mut self.buffer, asked);
        let both = async {
            tokio::pin!(write, read);
            let mut written = None;
            loop {
                tokio::select! {
                    biased;
                    result = &mut write, if written.is_none() => written = Some(result),
                    head = &mut read => break (head, written),
                }
                // It may still have said why it reads no further.
                if let Some(Err(error)) = &written
                    && sent.get() == 0
                {
                    break (Err(error.to_string()), written);
                }
            }
        };
        tokio::pin!(both);
        let mut before = 0;
        let (head, written) = loop {
            match timeout(patience, &mut both).await {
                Ok(both) => break both,
                Err(_) if sent.get() == 0 => {
                    return Err(Fault::NotSent("it takes no bytes".into()));
                }
                // A large body on its way is no silence.
                Err(_) if sent.get() > before => before = sent.get(),
                Err(_) => return Err(Fault::Late(patience)),
            }
        };
        match head {
            Ok(mut head) => {
                head.keep &= matches!(written, Some(Ok(())));
                Ok(head)
            }
            Err(why) if sent.get() == 0 => Err(Fault::NotSent(why)),
            Err(why) => Err(Fault::Lost(why)),
        }
    }

    /// Sends these bytes, of a request that goes out piece by piece.
    pub(super) async fn say(&mut self, bytes: &[u8], patience: Duration) -> Result<(), Fault> {
        match timeout(patience, self.stream.write_all(bytes)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(Fault::Lost(error.to_string())),
            Err(_) => Err(Fault::Late(patience)),
        }
    }

    /// The head of an answer, if it is here already.
    pub(super) fn heard(&mut self, asked: Asked<'_>) -> Result<Option<Head>, String> {
        match self.stream.try_read_buf(&mut self.buffer) {
            Ok(0) => return Err("it hung up before it had all".to_owned()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.to_string()),
        }
        head::read(&mut self.buffer, asked)
    }

    /// Waits until there is something to be heard.
    #[cfg(test)]
    pub(super) async fn readable(&self) {
        self.stream.readable().await.unwrap();
    }

    /// The head of what it answers to that.
    pub(super) async fn hear_head(&mut self, asked: Asked<'_>) -> Result<Head, String> {
        answer(self.stream.split().0, &mut self.buffer, asked).await
    }

    /// What was heard and not yet understood.
    pub(super) fn buffer(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// Hears more; false when the server hung up.
    pub(super) async fn hear(&mut self) -> io::Result<bool> {
        self.buffer.reserve(READ_BYTES);
        Ok(self.stream.read_buf(&mut self.buffer).await? > 0)
    }
}

/// Writes all, counting what the system took.
async fn send(
    mut writer: WriteHalf<'_>,
    head: &[u8],
    request: &Request,
    sent: &Cell<usize>,
) -> io::Result<()> {
    let body = &request.body;
    if let Some(apart) = &request.apart {
        let away = || io::Error::other("its body is not at hand");
        let held = apart.held.as_ref().ok_or_else(away)?;
        write(&mut writer, head, sent).await?;
        let mut offset = 0;
        while offset < apart.bytes {
            let piece = held.read(offset).await.map_err(io::Error::other)?;
            if piece.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            write(&mut writer, &piece, sent).await?;
            offset += piece.len() as u64;
        }
        return Ok(());
    }
    if body.len() <= JOINED_BYTES_MAX {
        let mut both = Vec::with_capacity(head.len() + body.len());
        both.extend_from_slice(head);
        both.extend_from_slice(body);
        return write(&mut writer, &both, sent).await;
    }
    write(&mut writer, head, sent).await?;
    write(&mut writer, body, sent).await
}

async fn write(
    writer: &mut (impl AsyncWrite + Unpin),
    mut bytes: &[u8],
    sent: &Cell<usize>,
) -> io::Result<()> {
    while !bytes.is_empty() {
        let taken = writer.write(bytes).await?;
        if taken == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        sent.set(sent.get() + taken);
        bytes = &bytes[taken..];
    }
    Ok(())
}

async fn answer(
    mut reader: ReadHalf<'_>,
    buffer: &mut BytesMut,
    asked: Asked<'_>,
) -> Result<Head, String> {
    loop {
        if let Some(head) = head::read(buffer, asked)? {
            return Ok(head);
        }
        buffer.reserve(READ_BYTES);
        match reader.read_buf(buffer).await {
            Ok(0) => return Err("it hung up before an answer".to_owned()),
            Ok(_) => {}
            Err(error) => return Err(error.to_string()),
        }
    }
}

/// A server that does not even take a connection in this time is not up.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(1);

/// What one system call may bring; a large answer takes no more memory than this and what its
/// client has not read yet.
const READ_BYTES: usize = 32 << 10;

/// Up to here copying costs less than another system call.
const JOINED_BYTES_MAX: usize = 64 << 10;
