//! What the tests of the listener share: a client that keeps replies as raw bytes, and a way into
//! the log that can be held up.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use synod::replicated::{Inquiry, Submission, Submit, local::LocalLog};
use synod_kv::{
    Kv,
    resp::{RespHandle, RespListener, RespOptions},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::LocalSet,
};

/// Runs a test on a runtime like an arbiter's.
pub(crate) fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, test);
}

/// An empty store under a log of one process.
pub(crate) fn log() -> Arc<LocalLog> {
    let log = Arc::new(LocalLog::new());
    log.host(Box::new(Kv::new()));
    log
}

/// A listener on a free port.
pub(crate) async fn listen(
    submit: Arc<dyn Submit>,
    options: RespOptions,
) -> (RespHandle, SocketAddr) {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let listener = RespListener::bind(any, submit, options).await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener.start(), address)
}

/// A client that sends commands and reads replies as they are on the wire.
pub(crate) struct Client {
    stream: TcpStream,
    input: Vec<u8>,
}

impl Client {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, input: Vec::new() }
    }

    /// Sends bytes as they are.
    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// Sends a command and waits for its reply.
    pub(crate) async fn call<A: AsRef<[u8]>>(&mut self, arguments: &[A]) -> Vec<u8> {
        self.send(&encode(arguments)).await;
        self.reply().await
    }

    /// Sends words as a command; gives the reply as text.
    pub(crate) async fn ask(&mut self, words: &str) -> String {
        let words: Vec<&str> = words.split(' ').collect();
        String::from_utf8_lossy(&self.call(&words).await).into_owned()
    }

    /// Closes the writing end only.
    pub(crate) async fn half_close(&mut self) {
        self.stream.shutdown().await.unwrap();
    }

    /// The next whole reply.
    pub(crate) async fn reply(&mut self) -> Vec<u8> {
        let (_, len) = self.whole().await;
        self.input.drain(..len).collect()
    }

    /// The next whole reply, taken apart.
    pub(crate) async fn value(&mut self) -> Reply {
        let (reply, len) = self.whole().await;
        self.input.drain(..len);
        reply
    }

    async fn whole(&mut self) -> (Reply, usize) {
        loop {
            if let Some(whole) = Reply::split(&self.input) {
                return whole;
            }
            let read = self.stream.read_buf(&mut self.input).await.unwrap();
            assert_ne!(read, 0, "the listener hung up; left: {}", self.input.escape_ascii());
        }
    }

    /// Everything until the listener hangs up.
    pub(crate) async fn rest(&mut self) -> Vec<u8> {
        // A reset is a way to hang up too.
        while self.stream.read_buf(&mut self.input).await.is_ok_and(|read| read > 0) {}
        std::mem::take(&mut self.input)
    }
}

/// A command as an array of bulk strings.
pub(crate) fn encode<A: AsRef<[u8]>>(arguments: &[A]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", arguments.len()).into_bytes();
    for argument in arguments {
        let argument = argument.as_ref();
        bytes.extend_from_slice(format!("${}\r\n", argument.len()).as_bytes());
        bytes.extend_from_slice(argument);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

/// A reply as it is on the wire, taken apart.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Reply {
    /// A status, an error, a number, RESP3's null: the line with its first byte.
    Line(Vec<u8>),
    /// A string of bytes, or none.
    Bulk(Option<Vec<u8>>),
    /// An array, map or set (its first byte), with all its elements.
    Many(u8, Vec<Self>),
    /// RESP2's null array.
    NoArray,
}

impl Reply {
    /// The number, if it is one.
    pub(crate) fn number(&self) -> Option<i64> {
        let Self::Line(line) = self else { return None };
        std::str::from_utf8(line.strip_prefix(b":")?).ok()?.parse().ok()
    }

    /// The reply at the beginning of `bytes` and its length, once it is whole.
    fn split(bytes: &[u8]) -> Option<(Self, usize)> {
        let line = bytes.windows(2).position(|pair| pair == b"\r\n")?;
        let (head, at) = (&bytes[..line], line + 2);
        let count = || std::str::from_utf8(&head[1..]).unwrap().parse::<i64>().unwrap();
        match head[0] {
            b'$' | b'=' => {
                let Ok(len) = usize::try_from(count()) else { return Some((Self::Bulk(None), at)) };
                let whole = bytes.len() >= at + len + 2;
                whole.then(|| (Self::Bulk(Some(bytes[at..at + len].to_vec())), at + len + 2))
            }
            tag @ (b'*' | b'~' | b'%') => {
                let Ok(len) = usize::try_from(count()) else { return Some((Self::NoArray, at)) };
                let mut at = at;
                let mut all = Vec::new();
                for _ in 0..if tag == b'%' { 2 * len } else { len } {
                    let (one, len) = Self::split(&bytes[at..])?;
                    all.push(one);
                    at += len;
                }
                Some((Self::Many(tag, all), at))
            }
            _ => Some((Self::Line(head.to_vec()), at)),
        }
    }
}

impl std::fmt::Display for Reply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Line(line) => write!(f, "{}", line.escape_ascii()),
            Self::Bulk(None) => f.write_str("(no string)"),
            Self::Bulk(Some(bytes)) => write!(f, "\"{}\"", bytes.escape_ascii()),
            Self::NoArray => f.write_str("(no array)"),
            Self::Many(tag, all) => {
                write!(f, "{}{}[", char::from(*tag), all.len())?;
                all.iter().try_for_each(|one| write!(f, " {one}"))?;
                f.write_str(" ]")
            }
        }
    }
}

/// A way into the log that keeps everything back until it is let go, and remembers what went which
/// way.
pub(crate) struct Gate {
    log: Arc<LocalLog>,
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    commands: Vec<Submission>,
    queries: Vec<Inquiry>,
    ways: Vec<String>,
}

impl Gate {
    pub(crate) fn closed(log: Arc<LocalLog>) -> Arc<Self> {
        Arc::new(Self { log, held: Mutex::default() })
    }

    /// Lets the commands go that were held back.
    pub(crate) fn let_commands_go(&self) {
        let commands = std::mem::take(&mut self.held.lock().unwrap().commands);
        self.log.submit(commands);
    }

    /// Lets the queries go that were held back.
    pub(crate) fn let_queries_go(&self) {
        let queries = std::mem::take(&mut self.held.lock().unwrap().queries);
        self.log.query(queries);
    }

    /// How many queries are held back.
    pub(crate) fn queries(&self) -> usize {
        self.held.lock().unwrap().queries.len()
    }

    /// What was submitted so far: `2 commands`, `1 queries`.
    pub(crate) fn ways(&self) -> Vec<String> {
        self.held.lock().unwrap().ways.clone()
    }

    /// Waits until so many batches have arrived.
    pub(crate) async fn batches(&self, count: usize) {
        while self.ways().len() < count {
            tokio::task::yield_now().await;
        }
    }
}

impl Submit for Gate {
    fn submit(&self, batch: Vec<Submission>) {
        let mut held = self.held.lock().unwrap();
        held.ways.push(format!("{} commands", batch.len()));
        held.commands.extend(batch);
    }

    fn query(&self, batch: Vec<Inquiry>) {
        let mut held = self.held.lock().unwrap();
        held.ways.push(format!("{} queries", batch.len()));
        held.queries.extend(batch);
    }
}
