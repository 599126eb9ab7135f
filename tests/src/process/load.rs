//! Writers under load, the book they keep, and what the book is checked for: nothing acknowledged
//! is lost, nothing is applied twice, and *not applied* was true.

use std::{
    collections::BTreeMap,
    fmt,
    net::SocketAddr,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use serde_json::json;
use synod_runtime::world::Instant;

use super::{
    crew::{Crew, Shift},
    http::{Http, NoAnswer},
    resp::{Reply, Resp},
    wait::{PATIENCE, now, pause},
};

/// What a client was told about one write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is acknowledged.
    Applied,
    /// It surely did not happen.
    NotApplied(String),
    /// It may have happened.
    Unknown(String),
}

/// A connection that can count a key up by one.
pub trait Writer: Send {
    /// Counts `key` up, which nobody did before.
    ///
    /// # Panics
    /// When the answer says that somebody did: the write was applied twice.
    fn count_up(&mut self, key: &str) -> Verdict;
}

/// Makes a writer for an address. It need not connect yet.
pub type Connect = fn(SocketAddr) -> Box<dyn Writer>;

/// Clients that write as fast as they are answered, each key once; a client whose main does not
/// acknowledge goes to the next one.
#[derive(Debug)]
pub struct Load(Crew<Entry>);

/// One line of the book.
#[derive(Debug, Clone)]
pub struct Entry {
    /// What was counted up.
    pub key: String,
    /// What the client was told.
    pub verdict: Verdict,
    /// When.
    pub at: Instant,
}

/// All that clients were told, in order of time.
#[derive(Debug, Default)]
pub struct Book {
    /// The lines.
    pub entries: Vec<Entry>,
}

impl Load {
    /// Starts `clients` writers over `mains`.
    pub fn start(mains: &[SocketAddr], connect: Connect, clients: usize) -> Self {
        static LOADS: AtomicU64 = AtomicU64::new(0);
        let load = LOADS.fetch_add(1, Relaxed);
        let mains = mains.to_vec();
        Self(Crew::start((0..clients).map(move |client| {
            // No key is used twice, whatever ran before on the same cluster.
            let (name, mut mains) = (format!("key-{load}-{client}"), mains.clone());
            let near = client % mains.len();
            mains.rotate_left(near);
            move |shift: &Shift| write(&name, &mains, connect, shift)
        })))
    }

    /// Writes acknowledged so far.
    pub fn acknowledged(&self) -> u64 {
        self.0.achieved()
    }

    /// Waits for `count` more acknowledged writes: proof that somebody serves.
    pub fn wait_for_more(&self, count: u64) {
        self.0.wait_for_more(PATIENCE, "acknowledged writes", count);
    }

    /// Stops the writers and answers their book.
    ///
    /// # Panics
    /// When a writer was told something that cannot be.
    pub fn finish(self) -> Book {
        let mut entries = self.0.finish();
        entries.sort_by_key(|entry| entry.at);
        Book { entries }
    }
}

fn write(name: &str, mains: &[SocketAddr], connect: Connect, shift: &Shift) -> Vec<Entry> {
    let mut book = Vec::new();
    let mut at = 0;
    let mut writer = connect(mains[at]);
    for number in 0.. {
        if shift.is_over() {
            break;
        }
        let key = format!("{name}-{number}");
        let verdict = writer.count_up(&key);
        let is_applied = verdict == Verdict::Applied;
        book.push(Entry { key, verdict, at: now() });
        if is_applied {
            shift.achieved();
        } else {
            at = (at + 1) % mains.len();
            writer = connect(mains[at]);
            pause();
        }
    }
    book
}

impl Book {
    /// What four writers were told until these mains had acknowledged 200 writes: all is served.
    pub fn of_some_writes(mains: &[SocketAddr]) -> Self {
        let load = Load::start(mains, KvWriter::connect, 4);
        load.wait_for_more(200);
        load.finish()
    }

    /// Writes that were acknowledged.
    pub fn applied(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(|entry| entry.verdict == Verdict::Applied)
    }

    /// The longest time without an acknowledged write: what a failure costs, detection included.
    pub fn longest_gap(&self) -> Duration {
        let times: Vec<Instant> = self.applied().map(|entry| entry.at).collect();
        times.windows(2).map(|two| two[1].since(two[0])).max().unwrap_or_default()
    }

    /// Adds another book's lines.
    pub fn add(&mut self, other: Self) {
        self.entries.extend(other.entries);
        self.entries.sort_by_key(|entry| entry.at);
    }

    /// Compares the book of [`KvWriter`]s with what the node at `at` reads.
    ///
    /// # Panics
    /// With every lie found.
    pub fn check_kv(&self, at: SocketAddr) {
        let mut resp = Resp::connect(at, PATIENCE).expect("a node that serves");
        let mut counts = BTreeMap::new();
        for some in self.entries.chunks(MGET_KEYS) {
            let words = some.iter().map(|entry| entry.key.as_bytes());
            let words: Vec<&[u8]> = std::iter::once(&b"MGET"[..]).chain(words).collect();
            let reply = resp.call(&words).expect("a reply");
            let Reply::Array(values) = reply else { panic!("MGET at {at} says {reply:?}") };
            counts.extend(some.iter().map(|entry| entry.key.clone()).zip(values));
        }
        self.check(|key| match &counts[key] {
            Reply::Nil => 0,
            Reply::Bulk(digits) => String::from_utf8_lossy(digits).parse().expect("a count"),
            other => panic!("{key} is {other:?}"),
        });
    }

    /// Compares the book of [`LedgerWriter`]s with what the node at `at` has.
    ///
    /// # Panics
    /// With every lie found.
    pub fn check_ledger(&self, at: SocketAddr) {
        let mut http = Http::new(at);
        // A linearizable read brings the node up to date; then its own word is enough.
        ledger_count(&mut http, "all", "linearizable");
        self.check(|key| ledger_count(&mut http, key, "local"));
    }

    fn check(&self, mut count: impl FnMut(&str) -> i64) {
        let mut lies = Vec::new();
        for Entry { key, verdict, .. } in &self.entries {
            let count = count(key);
            let good = match verdict {
                Verdict::Applied => count == 1,
                Verdict::NotApplied(_) => count == 0,
                Verdict::Unknown(_) => count == 0 || count == 1,
            };
            if !good {
                lies.push(format!("{key} was counted {count} times, said {verdict:?}"));
            }
        }
        assert!(lies.is_empty(), "{} of {}: {lies:#?}", lies.len(), self.entries.len());
    }
}

impl fmt::Display for Book {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = |is: fn(&Verdict) -> bool| {
            self.entries.iter().filter(|entry| is(&entry.verdict)).count()
        };
        let applied = count(|verdict| *verdict == Verdict::Applied);
        let unknown = count(|verdict| matches!(verdict, Verdict::Unknown(_)));
        let not_applied = count(|verdict| matches!(verdict, Verdict::NotApplied(_)));
        write!(f, "{applied} applied, {unknown} unknown, {not_applied} not applied, ")?;
        write!(f, "longest gap {} ms", self.longest_gap().as_millis())
    }
}

/// Counts by moving 1 from an account of the key's name, over HTTP.
#[derive(Debug)]
pub struct LedgerWriter(Http);

impl LedgerWriter {
    /// See [`Connect`].
    pub fn connect(at: SocketAddr) -> Box<dyn Writer> {
        Box::new(Self(Http::new(at).patience(ANSWER_TIME)))
    }
}

impl Writer for LedgerWriter {
    fn count_up(&mut self, key: &str) -> Verdict {
        let body = json!({"from": key, "to": "all", "amount": 1}).to_string();
        let path = "/actors/ledger/ledger.transfer";
        let answer = match self.0.request("POST", path, &[], body.as_bytes()) {
            Ok(answer) => answer,
            Err(NoAnswer::NotSent(error)) => return Verdict::NotApplied(error.to_string()),
            Err(NoAnswer::Lost(error)) => return Verdict::Unknown(error.to_string()),
        };
        let said = answer.json();
        match (answer.status, said["outcome"].as_str()) {
            (200, _) => {
                assert_eq!(said["Ok"], -1, "{key} was applied before: {said}");
                Verdict::Applied
            }
            (503, Some("not_applied")) => Verdict::NotApplied(said.to_string()),
            (504, Some("unknown")) => Verdict::Unknown(said.to_string()),
            (status, _) => panic!("{key}: {status} {said}"),
        }
    }
}

/// How often `key` was counted by [`LedgerWriter`].
///
/// # Panics
/// When the node does not say.
pub fn ledger_count(http: &mut Http, key: &str, consistency: &str) -> i64 {
    let path = format!("/actors/ledger/ledger.balance?consistency={consistency}");
    let body = json!({"of": key}).to_string();
    let answer = http.request("POST", &path, &[], body.as_bytes()).expect("an answer");
    assert_eq!(answer.status, 200, "{}", answer.text());
    -answer.json().as_i64().expect("a balance")
}

/// Counts with `INCR`, over RESP.
#[derive(Debug)]
pub struct KvWriter {
    at: SocketAddr,
    stream: Option<Resp>,
}

impl KvWriter {
    /// See [`Connect`].
    pub fn connect(at: SocketAddr) -> Box<dyn Writer> {
        Box::new(Self { at, stream: None })
    }
}

impl Writer for KvWriter {
    fn count_up(&mut self, key: &str) -> Verdict {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => match Resp::connect(self.at, ANSWER_TIME) {
                Ok(stream) => stream,
                Err(error) => return Verdict::NotApplied(error.to_string()),
            },
        };
        let verdict = match stream.call(&[b"INCR", key.as_bytes()]) {
            Ok(Reply::Integer(1)) => Verdict::Applied,
            Ok(Reply::Error(why)) if why.starts_with("CLUSTERDOWN not applied") => {
                Verdict::NotApplied(why)
            }
            Ok(Reply::Error(why)) if why.starts_with("UNCERTAIN outcome unknown") => {
                Verdict::Unknown(why)
            }
            Ok(other) => panic!("{key}, written once: {other:?}"),
            Err(error) => return Verdict::Unknown(error.to_string()),
        };
        self.stream = Some(stream);
        verdict
    }
}

/// Keys per `MGET` when a book is checked.
const MGET_KEYS: usize = 500;

/// What a client waits before it looks elsewhere: longer than a node's own deadline.
const ANSWER_TIME: Duration = Duration::from_secs(6);
