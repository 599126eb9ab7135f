//! The two ends of a client's connection, with or without TLS before them.
//!
//! Replies are written in the turn that makes them, which wants a socket that can be tried. A TLS
//! stream cannot be, so behind TLS a connection is one end of a local pair, and a task of its own
//! carries bytes between the other end and the client. Only clients of TLS pay for that.

use std::{
    future::pending,
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWriteExt as _, ReadBuf, copy, split},
    net::{TcpStream, UnixStream, tcp, unix},
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

/// The end that commands come from.
pub(super) enum Reader {
    Plain(tcp::OwnedReadHalf),
    Bridged(unix::OwnedReadHalf),
}

/// The end that replies go to.
pub(super) enum Writer {
    Plain(tcp::OwnedWriteHalf),
    Bridged(unix::OwnedWriteHalf),
}

/// Takes a connection as it is.
pub(super) fn plain(stream: TcpStream) -> (Reader, Writer) {
    let (reader, writer) = stream.into_split();
    (Reader::Plain(reader), Writer::Plain(writer))
}

/// Does the TLS handshake; the future carries the bytes and must be run beside the connection. It
/// ends when the connection drops its writer, or the client is gone.
///
/// # Errors
/// A client without TLS, without the certificate that is demanded, or too slow.
pub(super) async fn behind_tls(
    stream: TcpStream,
    acceptor: &TlsAcceptor,
) -> io::Result<(Reader, Writer, impl Future<Output = ()> + 'static)> {
    let tls = timeout(HANDSHAKE_TIME_MAX, acceptor.accept(stream)).await??;
    let (inner, outer) = UnixStream::pair()?;
    let (reader, writer) = inner.into_split();
    Ok((Reader::Bridged(reader), Writer::Bridged(writer), carry(tls, outer)))
}

async fn carry(tls: TlsStream<TcpStream>, pair: UnixStream) {
    let (mut from_client, mut to_client) = split(tls);
    let (mut from_us, mut to_us) = pair.into_split();
    let commands = async {
        // An error ends it like an end: then nothing more comes.
        drop(copy(&mut from_client, &mut to_us).await);
        drop(to_us.shutdown().await);
        // A client that only closed its writing end still wants its answers.
        pending::<()>().await;
    };
    let replies = async {
        drop(copy(&mut from_us, &mut to_client).await);
        drop(timeout(HANDSHAKE_TIME_MAX, to_client.shutdown()).await);
    };
    tokio::select! {
        () = commands => {}
        () = replies => {}
    }
}

impl Writer {
    /// Writes what fits now.
    pub(super) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.try_write(bytes),
            Self::Bridged(socket) => socket.try_write(bytes),
        }
    }

    /// Waits until something may fit.
    pub(super) async fn writable(&self) -> io::Result<()> {
        match self {
            Self::Plain(socket) => socket.writable().await,
            Self::Bridged(socket) => socket.writable().await,
        }
    }
}

impl AsyncRead for Reader {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_read(context, into),
            Self::Bridged(socket) => Pin::new(socket).poll_read(context, into),
        }
    }
}

/// Two round trips, and a farewell: the rest is for lost packets and busy clients.
const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(5);
