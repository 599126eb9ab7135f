//! What the tests of both sides need: a server that does as it is told, an order in memory, a client
//! that writes bytes.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    future::ready,
    net::{SocketAddr, TcpListener},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use futures_util::future::LocalBoxFuture;
use synod::{
    runtime::{telemetry::Metrics, world::RealClock},
    server::{Access, StopTrigger, config::WebConfig, stop_pair},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use crate::{
    Answer, Fresh, Identity, Order, OrderError, Past, Perform, Request, Response, Stamp,
    bodies::Store,
    edge,
    edge::EdgeOptions,
    order::digest_request,
    upstream::{HttpForm, Upstream, UpstreamOptions},
};

/// A request as a server heard it.
#[derive(Debug, Clone)]
pub(crate) struct Heard {
    /// Without the empty line.
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
    /// Which of its connections it came by, from 0.
    pub(crate) connection: usize,
}

impl Heard {
    pub(crate) fn method(&self) -> &str {
        self.head.split(' ').next().unwrap()
    }

    pub(crate) fn path(&self) -> &str {
        self.head.split(' ').nth(1).unwrap()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let line = |line: &str| line.split(": ").next().unwrap().eq_ignore_ascii_case(name);
        self.head.lines().find(|one| line(one)).map(|line| line.split_once(": ").unwrap().1)
    }
}

/// What a server does with a request.
pub(crate) enum Say {
    /// These bytes.
    This(String),
    /// And hangs up.
    Last(String),
    /// So many times the same kibibyte behind these bytes.
    Much(String, usize),
    /// Nothing at all.
    Nothing,
}

/// A server behind a site.
#[derive(Clone)]
pub(crate) struct Server {
    pub(crate) url: String,
    pub(crate) heard: Rc<RefCell<Vec<Heard>>>,
    /// Bytes that the system took of it.
    pub(crate) said: Rc<Cell<usize>>,
}

impl Server {
    /// Starts one that does as `say` says.
    pub(crate) fn start(say: impl Fn(&Heard) -> Say + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let server = Self { url, heard: Rc::default(), said: Rc::default() };
        let (this, say) = (server.clone(), Rc::new(say));
        actix_rt::spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            for connection in 0.. {
                let (stream, _) = listener.accept().await.unwrap();
                actix_rt::spawn(this.clone().serve(stream, connection, Rc::clone(&say)));
            }
        });
        server
    }

    /// A store of files: PUT, GET (with one range), HEAD, DELETE.
    pub(crate) fn store() -> Self {
        let files: RefCell<BTreeMap<String, Vec<u8>>> = RefCell::default();
        Self::start(move |heard| {
            let mut files = files.borrow_mut();
            let path = heard.path().split('?').next().unwrap().to_owned();
            let empty =
                |status: &str| Say::This(format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n"));
            match (heard.method(), files.get(&path)) {
                ("GET" | "HEAD", None) => empty("404 Not Found"),
                ("GET" | "HEAD", Some(body)) => {
                    let range = heard.header("range").map(|range| {
                        let (from, to) =
                            range.strip_prefix("bytes=").unwrap().split_once('-').unwrap();
                        (from.parse().unwrap(), to.parse::<usize>().unwrap())
                    });
                    let (status, part) = match range {
                        None => ("200 OK", &body[..]),
                        Some((from, to)) => ("206 Partial Content", &body[from..=to]),
                    };
                    let shown = if heard.method() == "HEAD" { &[][..] } else { part };
                    let head =
                        format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n", part.len());
                    Say::This(head + std::str::from_utf8(shown).unwrap())
                }
                ("PUT", known) => {
                    let status = if known.is_some() { "204 No Content" } else { "201 Created" };
                    files.insert(path, heard.body.clone());
                    Say::This(format!(
                        "HTTP/1.1 {status}\r\nServer: s\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\n\
                         Connection: keep-alive\r\nContent-Length: 0\r\n\r\n"
                    ))
                }
                ("DELETE", known) => {
                    let status = if known.is_some() { "200 OK" } else { "404 Not Found" };
                    files.remove(&path);
                    empty(status)
                }
                _ => empty("405 Method Not Allowed"),
            }
        })
    }

    async fn serve(
        self,
        mut stream: TcpStream,
        connection: usize,
        say: Rc<impl Fn(&Heard) -> Say>,
    ) {
        let mut bytes = Vec::new();
        loop {
            let Some(heard) = hear(&mut stream, &mut bytes, connection).await else { return };
            let said = say(&heard);
            self.heard.borrow_mut().push(heard);
            let (text, last) = match said {
                Say::This(text) => (text, false),
                Say::Last(text) => (text, true),
                Say::Much(text, kibibytes) => {
                    stream.write_all(text.as_bytes()).await.unwrap();
                    for _ in 0..kibibytes {
                        // Its reader may have enough.
                        if stream.write_all(&[b'x'; 1_024]).await.is_err() {
                            return;
                        }
                        self.said.set(self.said.get() + 1_024);
                    }
                    continue;
                }
                Say::Nothing => std::future::pending().await,
            };
            if stream.write_all(text.as_bytes()).await.is_err() || last {
                return;
            }
        }
    }

    /// What it was asked: method, path and body.
    pub(crate) fn asked(&self) -> Vec<(String, String, String)> {
        let heard = self.heard.borrow();
        let text = |body: &[u8]| String::from_utf8_lossy(body).into_owned();
        let one = |one: &Heard| (one.method().into(), one.path().into(), text(&one.body));
        heard.iter().map(one).collect()
    }
}

/// The next request on a connection; none at its end.
async fn hear(stream: &mut TcpStream, bytes: &mut Vec<u8>, connection: usize) -> Option<Heard> {
    let end = loop {
        match bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            Some(end) => break end,
            None if stream.read_buf(bytes).await.ok()? == 0 => return None,
            None => {}
        }
    };
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let lengths = head.lines().filter(|line| line.starts_with("content-length:")).count();
    assert!(lengths < 2, "servers refuse that: {head}");
    let mut heard = Heard { head, body: Vec::new(), connection };
    let length = heard.header("content-length").map_or(0, |length| length.parse().unwrap());
    while bytes.len() < end + 4 + length {
        if stream.read_buf(bytes).await.ok()? == 0 {
            return None;
        }
    }
    heard.body = bytes[end + 4..end + 4 + length].to_vec();
    bytes.drain(..end + 4 + length);
    Some(heard)
}

/// An order of one site, in memory.
pub(crate) struct MemoryOrder {
    server: HttpForm,
    last: Cell<u64>,
    answered: RefCell<BTreeMap<String, (u64, String, Response)>>,
    /// What readers were to see.
    pub(crate) asked: RefCell<Vec<Fresh>>,
    /// Told to whoever asks for anything, instead of doing it.
    pub(crate) refuse: RefCell<Option<OrderError>>,
    pub(crate) behind: Cell<u64>,
}

impl MemoryOrder {
    fn refused<T>(&self) -> Option<Result<T, OrderError>> {
        self.refuse.borrow().clone().map(Err)
    }
}

impl Order for MemoryOrder {
    fn perform(
        &self,
        request: Request,
        identity: Identity,
    ) -> LocalBoxFuture<'_, Result<Answer, OrderError>> {
        if let Some(refused) = self.refused() {
            return Box::pin(ready(refused));
        }
        Box::pin(async move {
            let same = digest_request(&request);
            if let Identity::Key(key) = &identity
                && let Some((seq, before, response)) = self.answered.borrow().get(key).cloned()
            {
                let answer = Answer { seq, response, replayed: true };
                return if before == same { Ok(answer) } else { Err(OrderError::KeyReused) };
            }
            self.last.set(self.last.get() + 1);
            let seq = self.last.get();
            let stamp = Stamp { seq, time_ms: TIME_MS, seed: 7, redo: false };
            let response = self.server.perform(Rc::new(request), stamp).await;
            let response = response.map_err(|why| OrderError::Unknown(why.to_string()))?;
            if let Identity::Key(key) = identity {
                self.answered.borrow_mut().insert(key, (seq, same, response.clone()));
            }
            Ok(Answer { seq, response, replayed: false })
        })
    }

    fn fresh(&self, fresh: Fresh) -> LocalBoxFuture<'_, Result<u64, OrderError>> {
        self.asked.borrow_mut().push(fresh);
        Box::pin(ready(self.refused().unwrap_or_else(|| Ok(self.last.get()))))
    }

    fn outcome<'a>(&'a self, key: &'a str) -> LocalBoxFuture<'a, Result<Past, OrderError>> {
        let answered = self.answered.borrow();
        let past = answered.get(key).map_or(Past::Never, |(seq, _, response)| Past::Answered {
            seq: *seq,
            status: response.status,
        });
        Box::pin(ready(self.refused().unwrap_or(Ok(past))))
    }

    fn behind(&self) -> u64 {
        self.behind.get()
    }
}

/// A site: an edge before a server. It stops when dropped.
pub(crate) struct Site {
    pub(crate) address: SocketAddr,
    pub(crate) order: Rc<MemoryOrder>,
    pub(crate) metrics: Metrics,
    _stop: StopTrigger,
}

impl Site {
    /// In front of `server`, with what `configure` changes.
    pub(crate) fn start(server: &Server, configure: impl FnOnce(&mut WebConfig)) -> Self {
        Self::start_keeping(server, configure, None)
    }

    /// One that keeps large bodies there.
    pub(crate) fn start_keeping(
        server: &Server,
        configure: impl FnOnce(&mut WebConfig),
        bodies: Option<Store>,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let mut web = WebConfig::new(address, &server.url);
        configure(&mut web);
        let upstream = upstream(&server.url);
        let order = Rc::new(MemoryOrder {
            server: HttpForm::new(upstream.clone(), web.clone()),
            last: Cell::new(0),
            answered: RefCell::default(),
            asked: RefCell::default(),
            refuse: RefCell::default(),
            behind: Cell::new(0),
        });
        let (trigger, stop) = stop_pair();
        let metrics = Metrics::new();
        let options = EdgeOptions {
            web,
            access: Access::open(),
            site: "a".to_owned(),
            metrics: metrics.clone(),
            clock: Arc::new(RealClock),
            connections_max: 64,
            bodies,
            stop,
        };
        let agreed: Rc<dyn Order> = Rc::<MemoryOrder>::clone(&order);
        edge::serve(listener, agreed, upstream, options).unwrap();
        Self { address, order, metrics, _stop: trigger }
    }

    /// All that comes back for `text`, until the site hangs up.
    pub(crate) async fn talk(&self, text: &str) -> String {
        let mut stream = self.connect().await;
        stream.write_all(text.as_bytes()).await.unwrap();
        rest(&mut stream).await
    }

    /// One request on a connection of its own.
    pub(crate) async fn ask(&self, line: &str, headers: &[&str], body: &str) -> Reply {
        let mut text = format!("{line} HTTP/1.1\r\nHost: site\r\nConnection: close\r\n");
        if !body.is_empty() {
            text += &format!("Content-Length: {}\r\n", body.len());
        }
        headers.iter().for_each(|header| text += &format!("{header}\r\n"));
        Reply::read(&self.talk(&(text + "\r\n" + body)).await)
    }

    pub(crate) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }
}

/// A server at `url` that is waited for a little.
pub(crate) fn upstream(url: &str) -> Upstream {
    let mut options = UpstreamOptions::new(Arc::new(RealClock));
    options.patience = PATIENCE;
    Upstream::new(url, options).unwrap()
}

/// All until the other side hangs up.
pub(crate) async fn rest(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    // A reset after the last word is an end, too.
    let read = timeout(Duration::from_secs(20), stream.read_to_end(&mut bytes)).await;
    drop(read.expect("it hangs up"));
    String::from_utf8(bytes).unwrap()
}

/// What a site answered.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Reply {
    /// The only one in `text`.
    pub(crate) fn read(text: &str) -> Self {
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{text:?}"));
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Self { status, head: head.to_ascii_lowercase(), body: body.to_owned() }
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let start = format!("{name}: ");
        self.head.lines().find_map(|line| line.strip_prefix(&start))
    }

    /// The word of an error's body.
    pub(crate) fn outcome(&self) -> String {
        let body: serde_json::Value = serde_json::from_str(&self.body).unwrap();
        assert!(body["error"].is_string(), "{body}");
        body["outcome"].as_str().unwrap().to_owned()
    }
}

/// What the order in memory stamps on everything: `2026-11-21T22:08:00.123Z`.
pub(crate) const TIME_MS: u64 = 1_795_298_880_123;

/// Long for a machine, short for a test that waits it out.
pub(crate) const PATIENCE: Duration = Duration::from_millis(300);
