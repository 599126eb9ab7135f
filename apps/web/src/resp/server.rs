//! The server behind a site, spoken to as clients of Redis do: ordered requests over one kept
//! connection, one behind the other without waiting.

use std::{
    cell::{Cell, RefCell},
    fmt,
    rc::Rc,
    time::Duration,
};

use actix_rt::task::JoinHandle;
use bytes::{Buf as _, BytesMut};
use futures_util::future::LocalBoxFuture;
use synod::{runtime::telemetry::Counter, server::config::RedoPolicy};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    sync::{Notify, oneshot},
    time::sleep,
};

use super::{
    connection::{Connection, RedisAddress},
    dialogue::{COMPARED, Keys, Made, Task},
    line::{Fate, Heard, Line},
    wire::{self, Replies},
};
use crate::{Form, Perform, Request, Response, Stamp, Touches, Unperformed, tireless::tireless};

/// A redis-server behind a site. Lives on one arbiter; cloning is cheap.
#[derive(Clone)]
pub struct RedisServer {
    inner: Rc<Inner>,
    _task: Rc<Work>,
}

struct Inner {
    address: RedisAddress,
    line: RefCell<Line<Job>>,
    /// Who asks what it performed, and is told on the next connection.
    recalls: RefCell<Vec<oneshot::Sender<Result<u64, String>>>>,
    wake: Notify,
    /// The server lost something.
    lost: Notify,
    /// What its number is of; 0 until the order has said so.
    order: Cell<u64>,
    /// The process that has performed all that was answered.
    instance: RefCell<Option<String>>,
    /// Of the server that was last there.
    version: RefCell<String>,
    /// Why there is no connection.
    trouble: RefCell<String>,
}

/// An ordered request, and who waits for its answer.
struct Job {
    task: Task,
    answer: oneshot::Sender<Result<Response, Unperformed>>,
}

/// The work of a server, which ends with it.
struct Work(JoinHandle<()>);

impl Drop for Work {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl RedisServer {
    /// The server at `address`, on the current arbiter. It is spoken to once the order has a name.
    pub fn start(address: RedisAddress, restarts: Counter) -> Self {
        let inner = Rc::new(Inner {
            address,
            line: RefCell::new(Line::new()),
            recalls: RefCell::default(),
            wake: Notify::new(),
            lost: Notify::new(),
            order: Cell::new(0),
            instance: RefCell::default(),
            version: RefCell::default(),
            trouble: RefCell::new("it was not asked so far".to_owned()),
        });
        let working = Rc::clone(&inner);
        let work = async move || run(&working).await;
        let task = actix_rt::spawn(tireless(restarts, work, |_| ()));
        Self { inner, _task: Rc::new(Work(task)) }
    }

    /// Where it is.
    pub fn address(&self) -> &RedisAddress {
        &self.inner.address
    }

    /// The process that has performed all that was answered for: another has not, though it is at
    /// the same address.
    ///
    /// # Errors
    /// Why there is none now.
    pub(super) fn instance(&self) -> Result<String, String> {
        let instance = self.inner.instance.borrow().clone();
        instance.ok_or_else(|| self.inner.trouble.borrow().clone())
    }

    /// Its version; empty before it was ever there.
    pub(super) fn version(&self) -> String {
        self.inner.version.borrow().clone()
    }
}

impl Perform for RedisServer {
    fn perform(
        &self,
        request: Rc<Request>,
        stamp: Stamp,
    ) -> LocalBoxFuture<'_, Result<Response, Unperformed>> {
        let (answer, answered) = oneshot::channel();
        match Task::new(&request, stamp) {
            Ok(task) => {
                self.inner.line.borrow_mut().ask(stamp.seq, Job { task, answer });
                self.inner.wake.notify_one();
            }
            Err(why) => drop(answer.send(Err(Unperformed::NotSent(why)))),
        }
        Box::pin(async move {
            let gone = |_| Err(Unperformed::Unknown("the connection's work ended".to_owned()));
            answered.await.unwrap_or_else(gone)
        })
    }
}

impl Form for RedisServer {
    /// Sent again, what was performed is refused by the server itself.
    fn redo(&self, _: &Request) -> RedoPolicy {
        RedoPolicy::Resend
    }

    fn touches(&self, _: &Request) -> Touches {
        Touches::InOrder
    }

    fn digest(&self, _: &Request, response: &Response) -> String {
        let compared = response.headers.iter().find(|header| header.name == COMPARED);
        let compared = compared.map(|header| &header.value[..]).unwrap_or_default();
        let mut sum = synod::runtime::digest::Sha256::default();
        sum.update(compared);
        let mut text = sum.finish();
        text.truncate(DIGEST_DIGITS);
        text
    }

    fn recalls(&self) -> bool {
        true
    }

    fn recall(&self, order: u64) -> LocalBoxFuture<'_, Result<u64, String>> {
        let (tell, told) = oneshot::channel();
        self.inner.order.set(order);
        self.inner.recalls.borrow_mut().push(tell);
        self.inner.wake.notify_one();
        Box::pin(async move {
            told.await.unwrap_or_else(|_| Err("the connection's work ended".to_owned()))
        })
    }

    fn lost(&self) -> LocalBoxFuture<'_, ()> {
        Box::pin(self.inner.lost.notified())
    }
}

/// One connection after the other.
async fn run(inner: &Inner) {
    // What an earlier run had with the server, if that ended in a panic.
    inner.line.borrow_mut().broken();
    while inner.order.get() == 0 {
        inner.wake.notified().await;
    }
    let mut breaks = 0;
    loop {
        let ended = match inner.connect().await {
            Ok(connection) => {
                let before = inner.line.borrow().performed();
                let ended = inner.converse(connection).await;
                let more = inner.line.borrow().performed() > before;
                breaks = if more { 0 } else { breaks + 1 };
                ended
            }
            Err(why) => Ended::Unable(why),
        };
        inner.instance.take();
        inner.line.borrow_mut().broken();
        match ended {
            Ended::Wanted => breaks = 0,
            // On the next connection the server says what it performed of it.
            Ended::Broke(why) if breaks < BREAKS_MAX => *inner.trouble.borrow_mut() = why,
            Ended::Broke(why) | Ended::Unable(why) => {
                inner.refuse(&why);
                sleep(PAUSE).await;
            }
        }
    }
}

/// How a connection ended.
enum Ended {
    /// Another one is wanted.
    Wanted,
    /// It broke.
    Broke(String),
    /// The server cannot do anything now.
    Unable(String),
}

impl Inner {
    /// A connection on which the server said what it performed.
    async fn connect(&self) -> Result<Connection, String> {
        let keys = Keys::of(self.order.get());
        let mut connection = Connection::open(&self.address, super::command::OUR_DATABASE).await?;
        let said = connection.ask(&["GET", &keys.number]).await?;
        if said.starts_with(b"-") {
            return Err(String::from_utf8_lossy(&said[1..]).trim_end().to_owned());
        }
        let performed = match wire::text(&said) {
            None => 0,
            Some(text) => {
                let number = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok());
                number.ok_or_else(|| format!("{} holds no number", keys.number))?
            }
        };
        let recalls = std::mem::take(&mut *self.recalls.borrow_mut());
        let fates = self.line.borrow_mut().connected(performed, !recalls.is_empty());
        for recall in recalls {
            // One that went away asks again.
            drop(recall.send(Ok(performed)));
        }
        tell(fates, None);
        self.version.replace(connection.who().version.clone());
        self.look(&connection);
        Ok(connection)
    }

    /// Whether the process at the other end has all that was answered for.
    fn look(&self, connection: &Connection) {
        if self.line.borrow().is_behind() {
            self.instance.take();
            *self.trouble.borrow_mut() = "it lost what it had, and is given it again".to_owned();
            self.lost.notify_one();
        } else if self.instance.borrow().is_none() {
            *self.instance.borrow_mut() = Some(connection.instance().to_owned());
        }
    }

    /// There is no connection: whoever waits is told so.
    fn refuse(&self, why: &str) {
        *self.trouble.borrow_mut() = why.to_owned();
        for recall in std::mem::take(&mut *self.recalls.borrow_mut()) {
            drop(recall.send(Err(why.to_owned())));
        }
        for job in self.line.borrow_mut().give_up() {
            drop(job.answer.send(Err(Unperformed::NotSent(why.to_owned()))));
        }
    }

    /// Sends what comes next and hears the answers, until the connection ends.
    async fn converse(&self, mut connection: Connection) -> Ended {
        let keys = Keys::of(self.order.get());
        let mut out = BytesMut::new();
        let mut hearing = Hearing::default();
        loop {
            if !self.recalls.borrow().is_empty() {
                return Ended::Wanted;
            }
            self.fill(&mut out, &keys);
            let busy = self.line.borrow().first().is_some();
            let (mut reader, mut writer) = connection.stream.split();
            tokio::select! {
                biased;
                read = reader.read_buf(&mut connection.buffer) => match read {
                    Ok(0) => return Ended::Broke("it hung up".to_owned()),
                    Ok(_) => {
                        if let Err(ended) = self.hear(&mut connection.buffer, &mut hearing) {
                            return ended;
                        }
                        self.look(&connection);
                    }
                    Err(error) => return Ended::Broke(error.to_string()),
                },
                written = writer.write(&out), if !out.is_empty() => match written {
                    Ok(count) => out.advance(count),
                    Err(error) => return Ended::Broke(error.to_string()),
                },
                () = self.wake.notified() => {}
                () = sleep(PATIENCE), if busy => {
                    return Ended::Broke(format!("it said nothing for {PATIENCE:?}"));
                }
            }
        }
    }

    /// Puts what may be sent behind what is being sent.
    fn fill(&self, out: &mut BytesMut, keys: &Keys) {
        let mut line = self.line.borrow_mut();
        line.prune(|job| !job.answer.is_closed());
        tell(line.settle(), None);
        while out.len() < OUT_BYTES
            && let Some((_, job)) = line.next()
        {
            let mut bytes = Vec::new();
            job.task.write(&mut bytes, keys);
            out.extend_from_slice(&bytes);
        }
    }

    /// Takes the answers that came.
    fn hear(&self, buffer: &mut BytesMut, hearing: &mut Hearing) -> Result<(), Ended> {
        loop {
            let mut line = self.line.borrow_mut();
            let Some((_, job)) = line.first() else {
                let quiet = buffer.is_empty();
                let strange = || Ended::Broke("it says what nobody asked".to_owned());
                return quiet.then_some(()).ok_or_else(strange);
            };
            let Some(whole) = hearing.whole(buffer, job.task.replies()).map_err(Ended::Broke)?
            else {
                return Ok(());
            };
            let (heard, response) = match job.task.made(&buffer[..whole]).map_err(Ended::Broke)? {
                Made::Performed(response) => (Heard::Performed, Some(response)),
                Made::NotNext(last) => (Heard::Refused(last), None),
                Made::Otherwise(how) => (Heard::Again(how), None),
                Made::Unable(why) => return Err(Ended::Unable(why)),
            };
            buffer.advance(whole);
            let otherwise = |job: Job, how| Job { task: job.task.otherwise(how), ..job };
            let fates = line.heard(heard, otherwise);
            drop(line);
            tell(fates, response);
        }
    }
}

/// How much was heard of the answer that comes next.
#[derive(Default)]
struct Hearing {
    replies: Option<Replies>,
    at: usize,
}

impl Hearing {
    /// The length of `count` replies once all of them are there.
    fn whole(&mut self, buffer: &[u8], count: u64) -> Result<Option<usize>, String> {
        let replies = self.replies.get_or_insert_with(|| Replies::new(count));
        self.at += replies.advance(&buffer[self.at..])?;
        if replies.is_done() {
            self.replies = None;
            return Ok(Some(std::mem::take(&mut self.at)));
        }
        match buffer.len() > ANSWER_BYTES_MAX {
            true => Err(format!("an answer of more than {ANSWER_BYTES_MAX} bytes")),
            false => Ok(None),
        }
    }
}

/// Tells those who wait what became of theirs.
fn tell(fates: Vec<(Job, Fate)>, mut response: Option<Response>) {
    for (job, fate) in fates {
        let told = match fate {
            Fate::Answered => response.take().ok_or(Unperformed::Performed),
            Fate::Performed => Err(Unperformed::Performed),
            Fate::Behind(performed) => Err(Unperformed::Behind(performed)),
        };
        // One that went away is not waited for.
        drop(job.answer.send(told));
    }
}

impl fmt::Debug for RedisServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RedisServer").field(&self.inner.address).finish()
    }
}

/// Between two attempts to reach it.
const PAUSE: Duration = Duration::from_millis(100);

/// Connections in a row that broke before anything was performed on them: then it is not chance.
const BREAKS_MAX: u32 = 3;

/// Longer than honest work takes, shorter than people wait.
const PATIENCE: Duration = Duration::from_secs(30);

/// What is written with one system call, about: the server answers the first meanwhile.
const OUT_BYTES: usize = 64 << 10;

/// As much as a request may have.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// 128 bits tell honest servers apart.
const DIGEST_DIGITS: usize = 32;
