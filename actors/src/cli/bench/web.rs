//! `bench web`: stock nginx servers behind a cluster, beside the same nginx alone and behind a plain
//! reverse proxy, in one run.

use std::{io, net::SocketAddr, path::PathBuf, time::Duration};

use actix_rt::time::{sleep, timeout};
use rand::RngExt as _;
use synod_runtime::world::{Clock as _, Entropy as _, RealClock, RealEntropy};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::{
    costs::Costs,
    meter::{Figures, Meter},
    nginx::{Nginx, Use},
    raw::disk_sync,
    report::{Clients, Conditions, Raw, Report, Row},
    target::OwnCluster,
    unless_stopped,
};
use crate::{
    cli::{args::BenchArgs, failure::Failure},
    server::{StopSignal, config::Durability},
};

/// One row: what is asked, of whom, and beside which row before it.
#[derive(Debug, Clone, Copy)]
struct Shape {
    name: &'static str,
    method: &'static str,
    of: Of,
    beside: Option<&'static str>,
}

#[derive(Debug, Clone, Copy)]
enum Of {
    /// A server without anything before it.
    Alone,
    /// nginx as a reverse proxy before that.
    Proxy,
    /// The sites of a cluster, by turns.
    Sites,
}

/// Where the clients of rows go.
struct Bench<'a> {
    args: &'a BenchArgs,
    alone: SocketAddr,
    proxy: SocketAddr,
    sites: Vec<SocketAddr>,
    clients: usize,
    size: usize,
    raw: Raw,
    durability: Durability,
}

/// Measures all rows.
pub(super) async fn run(
    args: &BenchArgs,
    report: &mut Report,
    stop: StopSignal,
) -> Result<(), Failure> {
    let folder = Folder(std::env::temp_dir().join(format!("synod-bench-{}", std::process::id())));
    let at = |name: &str| folder.0.join(name);
    let raw = Raw { sync: Some(disk_sync(&std::env::temp_dir())?), rtt: None };
    let servers = unless_stopped(stop.clone(), async {
        let alone = Nginx::start(&at("alone"), Use::Files).await?;
        let proxy = Nginx::start(&at("proxy"), Use::Proxy(alone.at)).await?;
        let sites =
            [Nginx::start(&at("a"), Use::Files).await?, Nginx::start(&at("b"), Use::Files).await?];
        Ok((alone, proxy, sites))
    });
    let (alone, proxy, behind) = servers.await?;
    let durability = args.durability.unwrap_or(Durability::Fsync);
    let [first, second] = [behind[0].url(), behind[1].url()];
    let more = ["--upstream", &first, "--upstream", &second];
    let own = unless_stopped(stop.clone(), OwnCluster::start(durability, &more)).await?;
    let bench = Bench {
        args,
        alone: alone.at,
        proxy: proxy.at,
        sites: own.webs().to_vec(),
        clients: args.clients.map_or(CLIENTS, |clients| clients as usize),
        size: args.size.map_or(SIZE, |size| size as usize),
        raw,
        durability,
    };
    let done = unless_stopped(stop, bench.rows(report)).await;
    own.stop().await;
    done
}

impl Bench<'_> {
    async fn rows(&self, report: &mut Report) -> Result<(), Failure> {
        report.expect(ROWS.len(), Duration::from_secs(self.args.seconds));
        for at in [self.alone, self.sites[0]] {
            self.fill(at).await?;
        }
        let mut rates: Vec<(&str, f64)> = Vec::new();
        for shape in ROWS {
            let figures = report.during(shape.name, self.measure(shape)).await;
            let before = rates.iter().find(|(name, _)| Some(*name) == shape.beside);
            let costs = Costs { limit: before.map(|(_, rate)| *rate), ..Costs::default() };
            rates.push((shape.name, figures.ops_per_s));
            let conditions = Conditions {
                kind: shape.method.to_ascii_lowercase(),
                size: self.size,
                in_flight: self.clients,
                nodes: if matches!(shape.of, Of::Sites) { NODES } else { 1 },
                durability: matches!(shape.of, Of::Sites).then_some(self.durability),
                seconds: self.args.seconds,
                clients: Some(Clients {
                    clients: self.clients,
                    pipeline: 1,
                    node: if matches!(shape.of, Of::Sites) { "a,b" } else { "nginx" }.to_owned(),
                }),
                raw: self.raw,
            };
            let name = format!("{}-{}", shape.name, self.clients);
            let row = Row::new(name, &figures, costs, conditions);
            report.row(row, figures.last_error.as_deref())?;
        }
        Ok(())
    }

    /// Puts every file that is read later.
    async fn fill(&self, at: SocketAddr) -> Result<(), Failure> {
        let failed = |why: String| Failure::failed(at, why, "try it alone with curl");
        let all = async {
            let (mut request, mut connection) = (Request::new("PUT", self.size), None);
            for file in 0..FILES {
                request.name(file);
                // A cluster that has a new leader just now has none for a moment.
                let mut tries = 0;
                while let Err(error) = ask(&mut connection, at, &request).await {
                    tries += 1;
                    if tries >= FILL_TRIES {
                        return Err(error);
                    }
                    sleep(FILL_PAUSE).await;
                }
            }
            Ok::<_, io::Error>(())
        };
        let done = timeout(FILL_TIME_MAX, all).await;
        done.map_err(|_| failed("the files were not written in time".to_owned()))?
            .map_err(|error| failed(error.to_string()))
    }

    async fn measure(&self, shape: Shape) -> Figures {
        let meter = Meter::start(Duration::from_secs(self.args.seconds));
        let size = if shape.method == "PUT" { self.size } else { 0 };
        let request = Request::new(shape.method, size);
        let ports = match shape.of {
            Of::Alone => vec![self.alone],
            Of::Proxy => vec![self.proxy],
            Of::Sites => self.sites.clone(),
        };
        let tasks = (0..self.clients)
            .zip(ports.into_iter().cycle())
            .map(|(_, at)| actix_rt::spawn(client(at, request.clone(), meter.clone())));
        let tasks = tasks.collect();
        meter.finish(tasks, 1).await
    }
}

/// One client: asks, waits, asks again until the time is over; connects anew when it must.
async fn client(at: SocketAddr, mut request: Request, meter: Meter) {
    let mut rng = RealEntropy.rng("bench");
    let mut connection = None;
    while !meter.is_over(RealClock.now()) {
        let sent = RealClock.now();
        request.name(rng.random_range(0..FILES));
        match ask(&mut connection, at, &request).await {
            Ok(()) => meter.answered(sent, RealClock.now(), 1),
            Err(error) => {
                meter.failed(1, error.to_string());
                sleep(PAUSE).await;
            }
        }
    }
}

/// Asks once, on a kept connection where there is one; it is kept if all went well.
async fn ask(kept: &mut Option<Connection>, at: SocketAddr, request: &Request) -> io::Result<()> {
    let mut open = match kept.take() {
        Some(open) => open,
        None => Connection::open(at).await?,
    };
    open.ask(request).await?;
    *kept = Some(open);
    Ok(())
}

/// A request, laid out once; only the number of its file changes.
#[derive(Debug, Clone)]
struct Request {
    bytes: Vec<u8>,
    number: usize,
}

impl Request {
    fn new(method: &str, size: usize) -> Self {
        let start = format!("{method} {FOLDER}");
        let mut bytes = format!("{start}0000 HTTP/1.1\r\nHost: bench\r\n").into_bytes();
        if method == "PUT" {
            bytes.extend_from_slice(format!("Content-Length: {size}\r\n").as_bytes());
        }
        bytes.extend_from_slice(b"\r\n");
        bytes.resize(bytes.len() + size, b'x');
        Self { bytes, number: start.len() }
    }

    fn name(&mut self, file: u32) {
        let digits = format!("{file:04}");
        self.bytes[self.number..self.number + digits.len()].copy_from_slice(digits.as_bytes());
    }
}

/// The little of an HTTP client that a load generator needs.
struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    async fn open(at: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(at).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: Vec::with_capacity(READ_BYTES) })
    }

    /// Sends and waits for all of an answer, which must be a good one.
    async fn ask(&mut self, request: &Request) -> io::Result<()> {
        self.stream.write_all(&request.bytes).await?;
        self.buffer.clear();
        let head = loop {
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if let Some(end) = self.buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                break end + 4;
            }
        };
        let text = String::from_utf8_lossy(&self.buffer[..head]).to_ascii_lowercase();
        let line = text.lines().next().unwrap_or_default();
        if line.split(' ').nth(1).is_none_or(|status| !status.starts_with('2')) {
            // As much of the reason as came with the head.
            let why = String::from_utf8_lossy(&self.buffer[head..]);
            return Err(io::Error::other(format!("{line}: {}", why.trim_end())));
        }
        let length = text.lines().find_map(|line| line.strip_prefix("content-length: "));
        let length: usize = length.map_or(Ok(0), str::parse).map_err(io::Error::other)?;
        let mut missing = (head + length).saturating_sub(self.buffer.len());
        while missing > 0 {
            self.buffer.clear();
            let read = self.stream.read_buf(&mut self.buffer).await?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            missing = missing.saturating_sub(read);
        }
        Ok(())
    }
}

/// Removed with all that is in it when dropped.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}

/// Each row of ours stands behind what it is measured beside.
const ROWS: [Shape; 5] = [
    Shape { name: "put-nginx", method: "PUT", of: Of::Alone, beside: None },
    Shape { name: "put-ordered", method: "PUT", of: Of::Sites, beside: Some("put-nginx") },
    Shape { name: "get-nginx", method: "GET", of: Of::Alone, beside: None },
    Shape { name: "get-proxy", method: "GET", of: Of::Proxy, beside: Some("get-nginx") },
    Shape { name: "get-linearizable", method: "GET", of: Of::Sites, beside: Some("get-proxy") },
];

/// In front of every file's name.
const FOLDER: &str = "/bench/";

/// Clients seldom meet at one file.
const FILES: u32 = 1_000;

/// Two mains and an auxiliary.
const NODES: usize = 3;

/// In flight by default.
const CLIENTS: usize = 32;

/// Bytes of a body by default.
const SIZE: usize = 1_024;

/// A slow disk takes as many files in this time.
const FILL_TIME_MAX: Duration = Duration::from_secs(120);

/// With the pause, longer than a cluster is without a leader.
const FILL_TRIES: u32 = 30;

/// Between two of them.
const FILL_PAUSE: Duration = Duration::from_millis(100);

/// A head and a small body.
const READ_BYTES: usize = 16 << 10;

/// After an error, before the next attempt.
const PAUSE: Duration = Duration::from_millis(10);
