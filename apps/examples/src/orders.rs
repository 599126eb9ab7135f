//! An ordinary web server that keeps orders in SQLite, as one stands behind a cluster (`synod dev
//! --upstream`): POST /orders makes one, GET, PUT and DELETE /orders/ID as one expects, GET /orders
//! lists all.
//!
//! It knows nothing of Synod but a few headers. Identifiers are made of `Synod-Seq` and dates of
//! `Synod-Time` where a request has them, so that two such servers make the same ones. In one
//! transaction with what a request does, it keeps the request's number and its answer. A request that
//! comes again does nothing and is answered as it was: so it may be sent again whatever its method
//! is (`redo = "resend"`), and is performed exactly once.
//!
//! `orders export DIR` writes all that it has, and `orders import DIR` makes what it reads all that it
//! has, while it runs: for `export` and `import` in a node file. So do GET and PUT of /everything, at a
//! port of their own (`--content HOST:PORT`), where clients do not come.
//!
//! On purpose it can do worse: `--random` makes identifiers of its own, `--odd N` answers the N-th
//! request that changes something as no other server would, `--slow MS` takes its time before it
//! answers, `--crash N` ends in the middle of the N-th.

use std::{
    env,
    error::Error,
    fs,
    io::{self, BufRead as _, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    process::ExitCode,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use rusqlite::{Connection, OptionalExtension as _, Row, TransactionBehavior, params};

struct Orders {
    db: Mutex<Connection>,
    random: bool,
    slow: Duration,
    crash_at: Option<u64>,
    odd_at: Option<u64>,
    changes: AtomicU64,
}

struct Request {
    method: String,
    path: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

/// A status and a body.
type Answer = (u16, Vec<u8>);

fn main() -> ExitCode {
    let words: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["export", dir] => export(dir.as_ref(), io::stdout()),
        ["import", dir] => import(dir.as_ref(), io::stdin()),
        [listen, dir, flags @ ..] => serve(listen, dir.as_ref(), flags),
        _ => Err(USAGE.into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("orders: {why}");
            ExitCode::FAILURE
        }
    }
}

/// The database in `dir`, made where there is none.
fn open(dir: &Path) -> Result<Connection, Box<dyn Error>> {
    fs::create_dir_all(dir)?;
    let db = Connection::open(dir.join("orders.db"))?;
    // A copy can be taken while it is written to, and what was answered is on the disk.
    db.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;")?;
    db.execute_batch(TABLES)?;
    Ok(db)
}

fn export(dir: &Path, mut to: impl Write) -> Result<(), Box<dyn Error>> {
    let mut copy = tempfile::NamedTempFile::new()?;
    open(dir)?.execute("VACUUM INTO ?1", [copy.path().to_str()])?;
    io::copy(&mut copy, &mut to)?;
    Ok(())
}

/// All of it or, where it is killed in its middle, nothing.
fn import(dir: &Path, mut from: impl Read) -> Result<(), Box<dyn Error>> {
    let mut copy = tempfile::NamedTempFile::new()?;
    io::copy(&mut from, &mut copy)?;
    let mut db = open(dir)?;
    db.execute("ATTACH ?1 AS copy", [copy.path().to_str()])?;
    let all = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for table in ["orders", "answers"] {
        let taken = format!("INSERT INTO main.{table} SELECT * FROM copy.{table}");
        all.execute_batch(&format!("DELETE FROM main.{table}; {taken};"))?;
    }
    Ok(all.commit()?)
}

fn serve(listen: &str, dir: &Path, flags: &[&str]) -> Result<(), Box<dyn Error>> {
    let behind = |flag: &str| {
        let at = flags.iter().position(|word| *word == flag)?;
        flags.get(at + 1).copied()
    };
    let number = |flag: &str| behind(flag)?.parse::<u64>().ok();
    let orders = Arc::new(Orders {
        db: Mutex::new(open(dir)?),
        random: flags.contains(&"--random"),
        slow: Duration::from_millis(number("--slow").unwrap_or(0)),
        crash_at: number("--crash"),
        odd_at: number("--odd"),
        changes: AtomicU64::new(0),
    });
    if let Some(at) = behind("--content") {
        let (listener, dir) = (bind(at)?, dir.to_owned());
        thread::spawn(move || talk_on(&listener, move |request| everything(&dir, request)));
    }
    talk_on(&bind(listen)?, move |request| {
        orders.answer(request).unwrap_or_else(|why| (500, why.to_string().into_bytes()))
    });
    Ok(())
}

fn bind(at: &str) -> Result<TcpListener, String> {
    TcpListener::bind(at).map_err(|error| format!("{at}: {error}"))
}

fn talk_on(listener: &TcpListener, answer: impl Fn(&Request) -> Answer + Send + Sync + 'static) {
    let answer = Arc::new(answer);
    for stream in listener.incoming().map_while(Result::ok) {
        let answer = Arc::clone(&answer);
        // A client that hangs up in the middle has heard enough.
        thread::spawn(move || talk(stream, &*answer).ok());
    }
}

fn talk(stream: TcpStream, answer: &dyn Fn(&Request) -> Answer) -> io::Result<()> {
    let mut to = stream.try_clone()?;
    let mut from = BufReader::new(stream);
    while let Some(request) = Request::read(&mut from)? {
        let (status, body) = answer(&request);
        let length = match status {
            204 => String::new(),
            _ => format!("Content-Length: {}\r\n", body.len()),
        };
        let head = format!("HTTP/1.1 {status} \r\n{length}\r\n");
        to.write_all(&[head.as_bytes(), &body].concat())?;
    }
    Ok(())
}

/// Gives all that it has, or takes it.
fn everything(dir: &Path, request: &Request) -> Answer {
    let mut all = Vec::new();
    let done = match (request.method.as_str(), request.path.as_str()) {
        ("GET", "/everything") => export(dir, &mut all).map(|()| 200),
        ("PUT", "/everything") => import(dir, request.body.as_slice()).map(|()| 204),
        _ => Ok(404),
    };
    done.map_or_else(|why| (500, why.to_string().into_bytes()), |status| (status, all))
}

impl Orders {
    #[expect(clippy::disallowed_methods, reason = "it is to be slow, and is no node")]
    fn answer(&self, request: &Request) -> rusqlite::Result<Answer> {
        let Some(id) = request.id() else { return Ok((404, Vec::new())) };
        match (request.method.as_str(), id) {
            ("GET", "") => list(&self.db()),
            ("GET", id) => Ok(match find(&self.db(), id)? {
                Some(order) => (200, order.into_bytes()),
                None => (404, Vec::new()),
            }),
            ("PUT" | "DELETE", "") => Ok((405, Vec::new())),
            ("POST", "") | ("PUT" | "DELETE", _) => {
                let change = self.changes.fetch_add(1, Ordering::Relaxed) + 1;
                if Some(change) == self.odd_at {
                    return Ok((202, b"not as the others".to_vec()));
                }
                let answer = self.change(request, id, change)?;
                thread::sleep(self.slow);
                Ok(answer)
            }
            _ => Ok((405, Vec::new())),
        }
    }

    /// Does what is asked and notes that it did, or neither.
    fn change(&self, request: &Request, id: &str, change: u64) -> rusqlite::Result<Answer> {
        let mut db = self.db();
        let all = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        // A number is a place in one order; behind another cluster it comes with another seed.
        let number = request.header("synod-seq").and_then(|seq| seq.parse::<i64>().ok());
        let number = number.zip(request.header("synod-seed"));
        if let Some((seq, seed)) = number
            && let Some(before) = answered(&all, seq, seed)?
        {
            eprintln!("orders: {seq} again, answered as before");
            return Ok(before);
        }
        let (status, body) = match (request.method.as_str(), id) {
            ("POST", _) => {
                let id = match request.header("synod-seq") {
                    Some(seq) if !self.random => seq.to_owned(),
                    // One that no other server would make.
                    _ => format!("{}x{change}", std::process::id()),
                };
                (201, put(&all, "INSERT", &id, request)?)
            }
            ("PUT", _) => (200, put(&all, "INSERT OR REPLACE", id, request)?),
            _ => match all.execute("DELETE FROM orders WHERE id = ?1", [id])? {
                0 => (404, Vec::new()),
                _ => (204, Vec::new()),
            },
        };
        if Some(change) == self.crash_at {
            std::process::abort();
        }
        if let Some((seq, seed)) = number {
            let note = "INSERT OR REPLACE INTO answers VALUES (?1, ?2, ?3, ?4)";
            all.execute(note, params![seq, seed, status, body])?;
            all.execute("DELETE FROM answers WHERE seq <= ?1", [seq - ANSWERS_MAX])?;
        }
        all.commit()?;
        Ok((status, body))
    }

    fn db(&self) -> MutexGuard<'_, Connection> {
        // Nothing is left half done in it: that is what transactions are for.
        self.db.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a request was answered before.
fn answered(db: &Connection, seq: i64, seed: &str) -> rusqlite::Result<Option<Answer>> {
    let known = "SELECT status, body FROM answers WHERE seq = ?1 AND seed = ?2";
    db.query_row(known, params![seq, seed], |row| Ok((row.get(0)?, row.get(1)?))).optional()
}

/// Writes an order; what it is then.
fn put(db: &Connection, how: &str, id: &str, request: &Request) -> rusqlite::Result<Vec<u8>> {
    let made = request.header("synod-time").unwrap_or("today");
    let what = String::from_utf8_lossy(&request.body);
    db.execute(&format!("{how} INTO orders VALUES (?1, ?2, ?3)"), params![id, made, what])?;
    Ok(find(db, id)?.unwrap_or_default().into_bytes())
}

fn find(db: &Connection, id: &str) -> rusqlite::Result<Option<String>> {
    db.query_row("SELECT * FROM orders WHERE id = ?1", [id], line).optional()
}

fn list(db: &Connection) -> rusqlite::Result<Answer> {
    let mut orders = db.prepare("SELECT * FROM orders ORDER BY id")?;
    let lines = orders.query_map([], line)?.collect::<Result<String, _>>()?;
    Ok((200, lines.into_bytes()))
}

/// An order as clients see it.
fn line(row: &Row<'_>) -> rusqlite::Result<String> {
    let [id, made, what]: [String; 3] = [row.get(0)?, row.get(1)?, row.get(2)?];
    Ok(format!("order {id} of {made}: {what}\n"))
}

impl Request {
    /// The next one; none when the client hung up.
    fn read(from: &mut BufReader<TcpStream>) -> io::Result<Option<Self>> {
        let mut line = String::new();
        if from.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        let mut words = line.split(' ').map(str::to_owned);
        let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let mut headers = Vec::new();
        loop {
            let mut line = String::new();
            from.read_line(&mut line)?;
            let Some((name, value)) = line.trim_end().split_once(':') else { break };
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        let mut request = Self { method, path, headers, body: Vec::new() };
        if request.headers.iter().filter(|(name, _)| name == "content-length").count() > 1 {
            return Err(io::Error::other("two lengths"));
        }
        let length = request.header("content-length").and_then(|length| length.parse().ok());
        let length: u64 = length.unwrap_or(0);
        // What broke off is not all of it.
        match from.take(length).read_to_end(&mut request.body)? as u64 == length {
            true => Ok(Some(request)),
            false => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    /// The order it is about; none of them: all. Nothing where it is about something else.
    fn id(&self) -> Option<&str> {
        let id = self.path.strip_prefix("/orders")?.trim_start_matches('/');
        id.bytes().all(|byte| byte.is_ascii_alphanumeric()).then_some(id)
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(one, _)| one == name).map(|(_, value)| value.as_str())
    }
}

const USAGE: &str = "usage: orders HOST:PORT DIR [--random] [--odd N] [--slow MS] [--crash N] [--content HOST:PORT]\n\
                     \x20      orders export DIR | orders import DIR";

const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS orders (id TEXT PRIMARY KEY, made TEXT, what TEXT);
    CREATE TABLE IF NOT EXISTS answers (seq INTEGER PRIMARY KEY, seed TEXT, status INTEGER, body BLOB);
";

/// What is performed alone, as POST is, is sent again only while less than 300 others came behind it. A
/// PUT or DELETE of which even that is forgotten leaves what it left before.
const ANSWERS_MAX: i64 = 1_000;
