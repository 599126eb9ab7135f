//! One client of a site: what it says, and what becomes of that. What concerns its connection alone is
//! in [`own`].

mod own;

use std::{net::SocketAddr, rc::Rc, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use synod::server::config::ReadPolicy;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    time::timeout,
};

use super::{
    command::{self, Kind, kind},
    dialogue::{CHANGED, TRANSACTION},
    listener::{Edge, Share},
    watch::Watch,
    wire::{self, Commands, Words, error},
};
use crate::{
    Fresh, Header, Identity, OrderError, Request,
    log::{Line, TARGET},
};

/// A client, and how it stands.
pub(super) struct Client<S> {
    edge: Rc<Edge>,
    stream: S,
    commands: Commands,
    buffer: BytesMut,
    share: Share,
    /// Read already, and not yet done.
    ahead: Option<Words>,
    database: u32,
    admitted: bool,
    transaction: Option<Transaction>,
    watch: Option<Result<Watch, Unwatched>>,
    /// As it calls itself.
    name: Bytes,
    /// The last of its commands that was ordered.
    seen: u64,
    id: u64,
    at: SocketAddr,
    /// What is to be written of what it said last.
    line: Option<Line>,
    /// The first word of the error that its answer begins with; empty: it is none.
    error: Option<String>,
}

/// Commands between MULTI and EXEC.
#[derive(Default)]
struct Transaction {
    commands: Vec<Words>,
    bytes: usize,
    /// One of them was refused.
    failed: bool,
}

/// What a client wanted to watch is not watched.
struct Unwatched;

/// The client is hung up on.
struct Gone;

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    pub(super) fn new(edge: Rc<Edge>, stream: S, (id, at): (u64, SocketAddr)) -> Self {
        let bytes_max = usize::try_from(edge.web.body_bytes_max).unwrap_or(usize::MAX);
        Self {
            admitted: !edge.access.needs_token(),
            share: edge.share(),
            edge,
            stream,
            commands: Commands::new(bytes_max),
            buffer: BytesMut::new(),
            ahead: None,
            database: 0,
            transaction: None,
            watch: None,
            name: Bytes::new(),
            seen: 0,
            id,
            at,
            line: None,
            error: None,
        }
    }

    /// Serves it until it is gone.
    pub(super) async fn serve(mut self) {
        while let Ok(words) = self.next().await {
            let _busy = self.edge.begin();
            if self.answer(words).await.is_err() {
                return;
            }
        }
    }

    /// Its next command.
    async fn next(&mut self) -> Result<Words, Gone> {
        loop {
            if let Some(words) = self.known().await? {
                return Ok(words);
            }
            let large = if self.buffer.len() > SMALL_BYTES { self.buffer.len() as u64 } else { 0 };
            if !self.share.hold(large) {
                self.say(&error("ERR", &"not applied: too much is under way")).await?;
                return Err(Gone);
            }
            self.buffer.reserve(READ_BYTES);
            match self.stream.read_buf(&mut self.buffer).await {
                Ok(count) if count > 0 => {}
                Ok(_) | Err(_) => return Err(Gone),
            }
        }
    }

    /// Its next command, if that came already.
    async fn known(&mut self) -> Result<Option<Words>, Gone> {
        if let Some(words) = self.ahead.take() {
            return Ok(Some(words));
        }
        match self.commands.next(&mut self.buffer) {
            Ok(words) => Ok(words),
            Err(why) => {
                self.say(&error("ERR", &format!("Protocol error: {why}"))).await?;
                Err(Gone)
            }
        }
    }

    async fn say(&mut self, reply: &[u8]) -> Result<(), Gone> {
        if self.line.is_some() {
            self.error.get_or_insert_with(|| wire::error_word(reply));
        }
        let said = timeout(SAY_TIME_MAX, self.stream.write_all(reply)).await;
        said.ok().and_then(Result::ok).ok_or(Gone)
    }

    async fn answer(&mut self, words: Words) -> Result<(), Gone> {
        (self.line, self.error) = (self.edge.log.begin(Some(self.at)), None);
        let name = command::name(&words);
        let done = self.answer_to(&name, words).await;
        // Unless it was told of with others.
        self.write(&name, 1, "own", None);
        done
    }

    async fn answer_to(&mut self, name: &str, words: Words) -> Result<(), Gone> {
        if !self.admitted && !["AUTH", "HELLO", "QUIT"].contains(&name) {
            return self.say(b"-NOAUTH Authentication required.\r\n").await;
        }
        let kind = kind(&words);
        self.edge.counters.count(kind);
        if kind == Kind::Own {
            return self.own(name, &words).await;
        }
        if self.transaction.is_some() {
            return self.queue(kind, name, words).await;
        }
        match kind {
            Kind::Refused(why) => {
                self.say(&error("ERR", &format!("{name} is not done here: {why}"))).await
            }
            Kind::Read if self.policy() != ReadPolicy::Ordered => {
                let all = self.batch(words, kind).await?;
                let read = self.read(&all).await;
                self.write(together(name, &all), all.len(), self.policy().name(), None);
                read
            }
            Kind::Own | Kind::Read | Kind::Write => {
                let all = self.batch(words, kind).await?;
                self.order(together(name, &all).to_owned(), &all, None).await
            }
        }
    }

    /// Writes the line of what it said last, once.
    fn write(&mut self, name: &str, commands: usize, treated: &str, seq: Option<u64>) {
        let Some(line) = self.line.take() else { return };
        let command = if name == PIPELINE { name } else { command::known(name) };
        tracing::debug!(
            target: TARGET,
            client = line.client.map(display),
            command,
            commands,
            error = self.error.as_deref().filter(|word| !word.is_empty()),
            ms = line.ms(),
            treated,
            seq,
            "answered",
        );
    }

    /// What came behind a command and can be done together with it: one place for all of them.
    async fn batch(&mut self, first: Words, of: Kind) -> Result<Vec<Words>, Gone> {
        let (mut bytes, mut all) = (weight(&first), vec![first]);
        while all.len() < BATCH_MAX && bytes < BATCH_BYTES {
            let Some(words) = self.known().await? else { break };
            if kind(&words) != of {
                self.ahead = Some(words);
                break;
            }
            self.edge.counters.count(of);
            bytes += weight(&words);
            all.push(words);
        }
        Ok(all)
    }

    fn policy(&self) -> ReadPolicy {
        let route = self.edge.web.route("GET", &format!("/{}", self.database));
        route.and_then(|route| route.read).unwrap_or(ReadPolicy::Linearizable)
    }

    /// How much must have been performed here before it is shown what is there.
    fn fresh(&self) -> Fresh {
        match self.policy() {
            ReadPolicy::Local => Fresh::Local,
            ReadPolicy::Session => Fresh::Since(self.seen),
            ReadPolicy::Linearizable | ReadPolicy::Ordered => Fresh::Linearizable,
        }
    }

    /// Reads from this site's server, once it has seen enough.
    async fn read(&mut self, all: &[Words]) -> Result<(), Gone> {
        let fresh = self.fresh();
        let mut bytes = Vec::new();
        all.iter().for_each(|words| wire::write(&mut bytes, words));
        let edge = Rc::clone(&self.edge);
        let read = async {
            let instance = fresh_instance(&edge, fresh).await?;
            let count = all.len() as u64;
            let asked = edge.reader.read(instance.as_deref(), self.database, (&bytes, count));
            asked.await.map_err(|why| unread(&why))
        };
        let mut reading = match read.await {
            Ok(reading) => reading,
            Err(reply) => return self.say(&reply.repeat(all.len())).await,
        };
        // What broke off is not told as a whole answer: the client is hung up on.
        while let Some(part) = reading.next().await.map_err(|_| Gone)? {
            self.say(&part).await?;
        }
        Ok(())
    }

    /// Watches keys from now on.
    async fn watch(&mut self, keys: &[Bytes]) -> Result<(), Gone> {
        let (edge, fresh, kept) = (Rc::clone(&self.edge), self.fresh(), self.watch.take());
        let database = self.database;
        let watching = async {
            let instance = fresh_instance(&edge, fresh).await?;
            let mut watch = match kept {
                Some(Ok(watch)) => watch,
                Some(Err(Unwatched)) => {
                    return Err(error("ERR", &"an earlier WATCH failed: UNWATCH"));
                }
                None => {
                    let slot = Arc::clone(&edge.watchers).try_acquire_owned();
                    let full = |_| error("ERR", &"too many clients watch something");
                    let address = edge.server.address();
                    Watch::begin(address, instance.as_deref(), slot.map_err(full)?)
                        .await
                        .map_err(|why| unread(&why))?
                }
            };
            if !watch.fits(keys) {
                return Err(error("ERR", &"a client watches 1000 keys of 1 MiB at most"));
            }
            watch.more(database, keys).await.map_err(|why| unread(&why))?;
            Ok(watch)
        };
        match watching.await {
            Ok(watch) => {
                self.watch = Some(Ok(watch));
                self.say(OK).await
            }
            Err(reply) => {
                // One that does not look at the answer must not have its transaction performed.
                self.watch = Some(Err(Unwatched));
                self.say(&reply).await
            }
        }
    }

    /// Has commands ordered, and performed everywhere where what was `watched` is as it was; this
    /// site's server answers.
    async fn order(
        &mut self,
        method: String,
        all: &[Words],
        watched: Option<Header>,
    ) -> Result<(), Gone> {
        let mut body = Vec::new();
        all.iter().for_each(|words| wire::write(&mut body, words));
        let count = if method == TRANSACTION { 1 } else { all.len() };
        if body.len() as u64 > self.edge.web.body_bytes_max {
            let why = format!("not applied: more than {} bytes", self.edge.web.body_bytes_max);
            return self.say(&error("ERR", &why).repeat(count)).await;
        }
        let (target, headers) = (format!("/{}", self.database), watched.into_iter().collect());
        let name = method.clone();
        let request = Request { method, target, headers, body: body.into(), apart: None };
        let edge = Rc::clone(&self.edge);
        let performed = timeout(VERDICT_TIME_MAX, edge.order.perform(request, Identity::Made));
        let (seq, reply) = match performed.await {
            Ok(Ok(answer)) => (Some(answer.seq), answer.response.body),
            Ok(Err(why)) => (None, refused(&why).repeat(count).into()),
            Err(_) => {
                let why = error("UNCERTAIN", &"outcome unknown: it takes too long");
                (None, why.repeat(count).into())
            }
        };
        self.seen = self.seen.max(seq.unwrap_or_default());
        let said = self.say(&reply).await;
        self.write(&name, all.len(), ReadPolicy::Ordered.name(), seq);
        said
    }

    /// A command between MULTI and EXEC.
    async fn queue(&mut self, kind: Kind, name: &str, words: Words) -> Result<(), Gone> {
        let most = usize::try_from(self.edge.web.body_bytes_max).unwrap_or(usize::MAX);
        let Some(transaction) = &mut self.transaction else { return Ok(()) };
        let why = match kind {
            Kind::Refused(why) => Some(format!("{name} is not done here: {why}")),
            _ if transaction.commands.len() >= TRANSACTION_MAX => {
                Some(format!("a transaction has {TRANSACTION_MAX} commands at most"))
            }
            _ if transaction.bytes.saturating_add(weight(&words)) > most => {
                Some(format!("a transaction has {most} bytes at most"))
            }
            Kind::Own | Kind::Read | Kind::Write => None,
        };
        match why {
            Some(why) => {
                transaction.failed = true;
                self.say(&error("ERR", &why)).await
            }
            None => {
                transaction.bytes += weight(&words);
                transaction.commands.push(words);
                self.say(b"+QUEUED\r\n").await
            }
        }
    }

    async fn exec(&mut self) -> Result<(), Gone> {
        let Some(Transaction { commands, failed, .. }) = self.transaction.take() else {
            return self.say(b"-ERR EXEC without MULTI\r\n").await;
        };
        let watch = self.watch.take();
        if failed || matches!(watch, Some(Err(Unwatched))) {
            let aborted = b"-EXECABORT Transaction discarded because of previous errors.\r\n";
            return self.say(aborted).await;
        }
        let seen = match watch {
            Some(Ok(watch)) => Some(watch.seen().await),
            Some(Err(_)) | None => None,
        };
        let watched = match seen.transpose() {
            Ok(None) => None,
            Ok(Some(Some(watched))) => Some(watched),
            Ok(Some(None)) => return self.say(CHANGED).await,
            Err(why) => {
                return self.say(&error("CLUSTERDOWN", &format!("not applied: {why}"))).await;
            }
        };
        match commands.is_empty() {
            true => self.say(b"*0\r\n").await,
            false => self.order(TRANSACTION.to_owned(), &commands, watched).await,
        }
    }
}

/// The process of the server that has performed enough to be shown, unless any will do; or what the
/// client is told.
async fn fresh_instance(edge: &Edge, fresh: Fresh) -> Result<Option<String>, Vec<u8>> {
    edge.order.fresh(fresh).await.map_err(|why| refused(&why))?;
    // At once: another process than this one may not have what was waited for.
    (fresh != Fresh::Local).then(|| edge.server.instance()).transpose().map_err(|why| unread(&why))
}

fn unread(why: &str) -> Vec<u8> {
    error("CLUSTERDOWN", &format!("not read: {why}"))
}

/// What a client is told instead of an answer.
fn refused(why: &OrderError) -> Vec<u8> {
    match why {
        OrderError::NotApplied(_) => error("CLUSTERDOWN", why),
        OrderError::Quarantined(_) => error("CLUSTERDOWN", &format!("not applied: {why}")),
        OrderError::Unknown(_) | OrderError::KeyReused => error("UNCERTAIN", why),
    }
}

/// What commands that are done together are called.
fn together<'a>(first: &'a str, all: &[Words]) -> &'a str {
    if all.len() == 1 { first } else { PIPELINE }
}

fn weight(words: &Words) -> usize {
    words.iter().map(|word| word.len() + WORD_BYTES).sum()
}

const OK: &[u8] = b"+OK\r\n";

/// More than one command, in one place.
const PIPELINE: &str = "PIPELINE";

/// What a word takes beside its bytes, about.
const WORD_BYTES: usize = 16;

/// One place for so many: the server performs them without a pause, and nobody else's meanwhile.
const BATCH_MAX: usize = 512;

/// What fits one command of the log.
const BATCH_BYTES: usize = 512 << 10;

/// Performed at one go by every server, and kept in memory until then.
const TRANSACTION_MAX: usize = 10_000;

/// What one system call may bring.
const READ_BYTES: usize = 16 << 10;

/// So much of every client's may be held without asking.
const SMALL_BYTES: usize = 64 << 10;

/// A client that takes nothing for so long is gone.
const SAY_TIME_MAX: Duration = Duration::from_secs(60);

/// Longer than any verdict of the order takes; it only ends what nobody waits for any more.
const VERDICT_TIME_MAX: Duration = Duration::from_secs(120);
