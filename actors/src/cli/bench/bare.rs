//! The limits of `bench remote`: the same bytes over one TCP connection and over one QUIC stream,
//! without frames, codec, credit or actors.

use std::{fmt, net::SocketAddr};

use bytes::{Bytes, BytesMut};
use synod_runtime::{
    quic::bare::{BarePipe, BareQuic},
    world::{Clock as _, RealClock},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use super::{
    meter::{Figures, Meter, Span},
    peer::Peer,
};
use crate::cli::failure::Failure;

/// What the bytes go over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Over {
    Tcp,
    Quic,
}

impl fmt::Display for Over {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Quic => "quic",
        })
    }
}

/// One stream each way.
pub(super) enum Pipe {
    Tcp(TcpStream),
    Quic(Box<BarePipe>),
}

impl Pipe {
    pub(super) async fn tcp(to: SocketAddr) -> Result<Self, String> {
        let stream = TcpStream::connect(to).await.map_err(|e| e.to_string())?;
        stream.set_nodelay(true).map_err(|e| e.to_string())?;
        Ok(Self::Tcp(stream))
    }

    async fn write(&mut self, bytes: Bytes) -> Result<(), String> {
        match self {
            Self::Tcp(stream) => stream.write_all(&bytes).await.map_err(|e| e.to_string()),
            Self::Quic(pipe) => pipe.write(bytes).await,
        }
    }

    /// The next bytes, or none at the end.
    async fn read(&mut self, room: &mut BytesMut) -> Result<Option<Bytes>, String> {
        match self {
            Self::Tcp(stream) => {
                room.reserve(BATCH_BYTES);
                let read = stream.read_buf(room).await.map_err(|e| e.to_string())?;
                Ok((read > 0).then(|| room.split().freeze()))
            }
            Self::Quic(pipe) => pipe.read().await,
        }
    }

    async fn finish(&mut self) -> Result<(), String> {
        match self {
            Self::Tcp(stream) => stream.shutdown().await.map_err(|e| e.to_string()),
            Self::Quic(pipe) => {
                pipe.finish();
                Ok(())
            }
        }
    }
}

/// What a row of bare tells came to.
pub(super) struct BareTells {
    pub(super) figures: Figures,
    /// Messages written at once.
    pub(super) in_flight: usize,
}

/// Messages one behind the other, written in batches, as fast as they are taken. The times are
/// those that a batch waited to be taken.
pub(super) async fn tells(
    peer: &Peer,
    over: Over,
    size: usize,
    span: Span,
) -> Result<BareTells, Failure> {
    let done = async {
        let mut pipe = peer.pipe(over).await?;
        pipe.write(Bytes::from_static(&[TELLS])).await?;
        let meter = Meter::during(span);
        let message = vec![b'x'; size];
        let each = (BATCH_BYTES / size).max(1);
        let mut sent = 0_u64;
        loop {
            let now = RealClock.now();
            if meter.is_over(now) {
                break;
            }
            let mut batch = BytesMut::with_capacity(each * size);
            for _ in 0..each {
                batch.extend_from_slice(&message);
            }
            sent += batch.len() as u64;
            pipe.write(batch.freeze()).await?;
            meter.answered(now, RealClock.now(), each as u64);
        }
        pipe.finish().await?;
        let mut told = Vec::new();
        let mut room = BytesMut::new();
        while let Some(bytes) = pipe.read(&mut room).await? {
            told.extend_from_slice(&bytes);
        }
        if told != sent.to_le_bytes() {
            return Err(format!("{sent} bytes were sent and others arrived"));
        }
        Ok(BareTells { figures: meter.figures(), in_flight: each })
    };
    done.await.map_err(|why: String| Failure::failed(format!("bare {over}"), why, "report this"))
}

/// A message there and back, one at a time.
pub(super) struct Reflected {
    pipe: Pipe,
    message: Bytes,
    room: BytesMut,
}

impl Reflected {
    pub(super) async fn begin(peer: &Peer, over: Over, size: usize) -> Result<Self, String> {
        let mut pipe = peer.pipe(over).await?;
        pipe.write(Bytes::from_static(&[ASKS])).await?;
        Ok(Self { pipe, message: vec![b'x'; size].into(), room: BytesMut::new() })
    }

    pub(super) async fn once(&mut self) -> Result<(), String> {
        self.pipe.write(self.message.clone()).await?;
        let mut back = 0;
        while back < self.message.len() {
            back += self.pipe.read(&mut self.room).await?.ok_or("the peer hung up")?.len();
        }
        Ok(())
    }

    pub(super) async fn end(mut self) -> Result<(), String> {
        self.pipe.finish().await
    }
}

/// The other side of both, for every connection that comes.
pub(super) async fn serve(quic: BareQuic, tcp: TcpListener) {
    actix_rt::spawn(async move {
        while let Ok(pipe) = quic.accept().await {
            actix_rt::spawn(reflect(Pipe::Quic(Box::new(pipe))));
        }
    });
    while let Ok((stream, _)) = tcp.accept().await {
        stream.set_nodelay(true).ok();
        actix_rt::spawn(reflect(Pipe::Tcp(stream)));
    }
}

/// Counts what comes, or sends it back. Whoever reads it says what was wrong with it.
async fn reflect(mut pipe: Pipe) -> Result<(), String> {
    let (mut kind, mut total, mut room) = (None, 0, BytesMut::new());
    while let Some(mut bytes) = pipe.read(&mut room).await? {
        let kind = match kind {
            Some(kind) => kind,
            None => *kind.insert(bytes.split_to(1)[0]),
        };
        total += bytes.len() as u64;
        if kind == ASKS && !bytes.is_empty() {
            pipe.write(bytes).await?;
        }
    }
    if kind == Some(TELLS) {
        pipe.write(Bytes::copy_from_slice(&total.to_le_bytes())).await?;
    }
    pipe.finish().await?;
    if let Pipe::Quic(pipe) = pipe {
        pipe.close().await;
    }
    Ok(())
}

/// The first byte of a pipe: what follows is counted, and the number of bytes comes back.
const TELLS: u8 = b'T';

/// What follows comes back.
const ASKS: u8 = b'A';

/// What is written at once: as much as a lane writes at once.
const BATCH_BYTES: usize = 64 * 1024;
