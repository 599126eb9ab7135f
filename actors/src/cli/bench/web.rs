//! `bench web`: stock nginx servers behind a cluster, beside the same nginx alone and behind a plain
//! reverse proxy, in one run.
//!
//! # Layout
//! - [`http`]: one client
//! - [`memory`]: what the nodes' processes had at most

mod http;
mod memory;

use std::{
    cell::RefCell,
    net::SocketAddr,
    path::{Path, PathBuf},
    rc::Rc,
    time::Duration,
};

use actix_rt::time::{sleep, timeout};
use futures_util::future::join_all;
use rand::RngExt as _;
use synod_runtime::{
    identity::NodeName,
    world::{Clock as _, Entropy as _, RealClock, RealEntropy},
};

use self::http::{Request, Unanswered, ask};
use super::{
    costs::Costs,
    http::Connection,
    meter::{Figures, Meter, Span},
    nginx::{Nginx, Use},
    raw::disk_sync,
    report::{Clients, Conditions, Raw, Report, Row},
    target::{OwnCluster, Sites},
    unless_stopped,
};
use crate::{
    cli::{args::BenchArgs, failure::Failure},
    server::{
        StopSignal,
        config::{Durability, WebOrder},
    },
};

/// One row: what is asked, of whom, and beside which row before it.
#[derive(Debug, Clone, Copy)]
struct Shape {
    name: &'static str,
    method: &'static str,
    of: Of,
    beside: Option<&'static str>,
    folder: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Of {
    /// A server without anything before it.
    Alone,
    /// nginx as a reverse proxy before that.
    Proxy,
    /// The sites of a cluster, by turns.
    Sites,
}

/// What all rows have in common.
struct Bench<'a> {
    args: &'a BenchArgs,
    alone: SocketAddr,
    proxy: SocketAddr,
    clients: usize,
    size: usize,
    large: usize,
    raw: Raw,
    durability: Durability,
    /// Of the rows so far.
    rates: Vec<(&'static str, f64)>,
}

/// The cluster of some rows.
struct Behind<'a> {
    sites: &'a [SocketAddr],
    pids: &'a [(NodeName, u32)],
}

/// Measures all rows.
pub(super) async fn run(
    args: &BenchArgs,
    report: &mut Report,
    stop: StopSignal,
) -> Result<(), Failure> {
    let folder = Folder(std::env::temp_dir().join(format!("synod-bench-{}", std::process::id())));
    let raw = Raw { sync: Some(disk_sync(&std::env::temp_dir())?), rtt: None };
    let servers = unless_stopped(stop.clone(), async {
        let alone = Nginx::start(&folder.0.join("alone"), Use::Files).await?;
        let proxy = Nginx::start(&folder.0.join("proxy"), Use::Proxy(alone.at)).await?;
        Ok((alone, proxy))
    });
    let (alone, proxy) = servers.await?;
    let mut bench = Bench {
        args,
        alone: alone.at,
        proxy: proxy.at,
        clients: args.clients.map_or(CLIENTS, |clients| clients as usize),
        size: args.size.map_or(SIZE, |size| size as usize),
        large: args.large.map_or(LARGE, |size| size as usize),
        raw,
        durability: args.durability.unwrap_or(Durability::Fsync),
        rates: Vec::new(),
    };
    let mut parts = vec![(WebOrder::Paxos, bench.wanted(&ROWS))];
    // A group forgets its order with its memory, so there is none then.
    if bench.durability == Durability::Fsync {
        parts.push((WebOrder::Sam, bench.wanted(&SAM_ROWS)));
    }
    let rows: usize = parts.iter().map(|(_, rows)| rows.len() + 1).sum();
    report.expect(rows, Duration::from_secs(args.seconds));
    for (order, rows) in parts {
        bench.part(&folder.0.join(order.to_string()), order, &rows, report, &stop).await?;
    }
    Ok(())
}

impl Bench<'_> {
    /// Those of `rows` that were asked for.
    fn wanted(&self, rows: &[Shape]) -> Vec<Shape> {
        let wanted = |row: &&Shape| row.folder != LARGE_FOLDER || self.large > 0;
        rows.iter().filter(wanted).copied().collect()
    }

    /// Measures the rows of one cluster, which is made for them.
    async fn part(
        &mut self,
        folder: &Path,
        order: WebOrder,
        rows: &[Shape],
        report: &mut Report,
        stop: &StopSignal,
    ) -> Result<(), Failure> {
        let start = async {
            let behind = [
                Nginx::start(&folder.join("first"), Use::Files).await?,
                Nginx::start(&folder.join("second"), Use::Files).await?,
            ];
            let dir = folder.join("cluster");
            let own = OwnCluster::start_sites(Sites {
                dir: &dir,
                upstreams: [behind[0].url(), behind[1].url()],
                order,
                durability: self.durability,
                routes: if order == WebOrder::Paxos { LOCAL_ROUTE } else { "" },
            });
            Ok((own.await?, behind))
        };
        let start = report.during("starting a cluster", start);
        let (own, _behind) = unless_stopped(stop.clone(), start).await?;
        let behind = Behind { sites: own.webs(), pids: own.pids() };
        let done = unless_stopped(stop.clone(), self.rows(&behind, rows, report)).await;
        own.stop().await;
        done
    }

    async fn rows(
        &mut self,
        behind: &Behind<'_>,
        rows: &[Shape],
        report: &mut Report,
    ) -> Result<(), Failure> {
        for (at, is_site) in [(self.alone, false), (behind.sites[0], true)] {
            for folder in [SMALL_FOLDER, LOCAL_FOLDER] {
                let reads = |row: &Shape| row.method == "GET" && row.folder == folder;
                let reads_here = |row: &Shape| reads(row) && (row.of == Of::Sites) == is_site;
                if rows.iter().any(reads_here) {
                    self.fill(at, folder).await?;
                }
            }
        }
        for shape in rows {
            self.row(behind, *shape, report).await?;
        }
        Ok(())
    }

    async fn row(
        &mut self,
        behind: &Behind<'_>,
        shape: Shape,
        report: &mut Report,
    ) -> Result<(), Failure> {
        let of_sites = shape.of == Of::Sites;
        let is_large = shape.folder == LARGE_FOLDER;
        memory::forget_peaks(behind.pids);
        let again = Again::default();
        let ports = match shape.of {
            Of::Alone => vec![self.alone],
            Of::Proxy => vec![self.proxy],
            Of::Sites => behind.sites.to_vec(),
        };
        let figures = match is_large {
            true => report.during(shape.name, self.measure_large(shape, ports[0], &again)).await,
            false => report.during(shape.name, self.measure(shape, &ports, &again)).await,
        };
        let before = self.rates.iter().find(|(name, _)| Some(*name) == shape.beside);
        let costs = Costs {
            limit: before.map(|(_, rate)| *rate),
            peak_bytes: if of_sites { memory::peaks(behind.pids) } else { Default::default() },
            ..Costs::default()
        };
        self.rates.push((shape.name, figures.ops_per_s));
        let (clients, size) = if is_large { (1, self.large) } else { (self.clients, self.size) };
        let node = match (of_sites, is_large) {
            (true, true) => "a",
            (true, false) => "a,b",
            (false, _) => "nginx",
        };
        let conditions = Conditions {
            kind: shape.method.to_ascii_lowercase(),
            size,
            in_flight: clients,
            nodes: if of_sites { behind.pids.len() } else { 1 },
            durability: of_sites.then_some(self.durability),
            seconds: self.args.seconds,
            clients: Some(Clients { clients, pipeline: 1, node: node.to_owned() }),
            raw: self.raw,
        };
        let name = format!("{}-{clients}", shape.name);
        if let Some((times, why)) = again.told() {
            report.note(&format!("{name}: told {times} times to ask again, {why}"));
        }
        let row = Row::new(name, &figures, costs, conditions);
        report.row(row, figures.last_error.as_deref())
    }

    /// Puts every file that is read later.
    async fn fill(&self, at: SocketAddr, folder: &str) -> Result<(), Failure> {
        let failed = |why: String| Failure::failed(at, why, "try it alone with curl");
        let fillers = (0..FILLERS).map(|first| async move {
            let (mut request, mut connection) = (Request::new("PUT", folder, self.size), None);
            for file in (first..FILES).step_by(FILLERS as usize) {
                request.name(file);
                ask_again(&mut connection, at, &request, &Again::default()).await?;
            }
            Ok::<_, std::io::Error>(())
        });
        let done = timeout(FILL_TIME_MAX, join_all(fillers)).await;
        let all = done.map_err(|_| failed("the files were not written in time".to_owned()))?;
        all.into_iter().collect::<Result<(), _>>().map_err(|error| failed(error.to_string()))
    }

    /// Many clients with small bodies, for the time of a row.
    async fn measure(&self, shape: Shape, ports: &[SocketAddr], again: &Again) -> Figures {
        let meter = Meter::start(Duration::from_secs(self.args.seconds));
        let request = Request::new(shape.method, shape.folder, self.size);
        let tasks = (0..self.clients).zip(ports.iter().cycle()).map(|(_, at)| {
            actix_rt::spawn(client(*at, request.clone(), meter.clone(), again.clone()))
        });
        let tasks = tasks.collect();
        meter.finish(tasks, 1).await
    }

    /// One client with large bodies, one after the other: a few times, or for the time of a row.
    async fn measure_large(&self, shape: Shape, at: SocketAddr, again: &Again) -> Figures {
        let meter = Meter::during(Span::unbounded());
        let mut request = Request::new(shape.method, shape.folder, self.large);
        let (mut connection, begun) = (None, RealClock.now());
        let (mut sent, mut asked) = (begun, 0);
        let until = begun + Duration::from_secs(self.args.seconds);
        while asked < LARGE_TIMES && (asked == 0 || sent < until) {
            request.name(asked % LARGE_FILES);
            asked += 1;
            let answer = ask_again(&mut connection, at, &request, again);
            let answer = timeout(LARGE_TIME_MAX, answer).await;
            let now = RealClock.now();
            match answer {
                Ok(Ok(())) => meter.answered(sent, now, 1),
                Ok(Err(error)) => meter.failed(1, error.to_string()),
                Err(_) => meter.failed(1, format!("no answer within {LARGE_TIME_MAX:?}")),
            }
            sent = now;
        }
        let figures = meter.figures();
        #[expect(clippy::cast_precision_loss, reason = "there are a few")]
        let ops_per_s = figures.all as f64 / sent.since(begun).as_secs_f64();
        Figures { ops_per_s, ..figures }
    }
}

/// One client: asks, waits, asks again until the time is over; connects anew when it must.
async fn client(at: SocketAddr, mut request: Request, meter: Meter, again: Again) {
    let mut rng = RealEntropy.rng("bench");
    let mut connection = None;
    while !meter.is_over(RealClock.now()) {
        let sent = RealClock.now();
        request.name(rng.random_range(0..FILES));
        match ask_again(&mut connection, at, &request, &again).await {
            Ok(()) => meter.answered(sent, RealClock.now(), 1),
            Err(error) => {
                meter.failed(1, error.to_string());
                sleep(PAUSE).await;
            }
        }
    }
}

/// Asks until there is another answer than that nothing was done: a cluster that has a new leader
/// just now says so for a moment. The time until then is part of the answer's.
async fn ask_again(
    connection: &mut Option<Connection>,
    at: SocketAddr,
    request: &Request,
    again: &Again,
) -> std::io::Result<()> {
    loop {
        match ask(connection, at, request).await {
            Ok(()) => return Ok(()),
            Err(Unanswered::Failed(error)) => return Err(error),
            Err(Unanswered::NotApplied(why)) => again.tell(why),
        }
        sleep(PAUSE).await;
    }
}

/// How often clients were told to ask again, and why the last time.
#[derive(Debug, Clone, Default)]
struct Again(Rc<RefCell<Option<(u64, String)>>>);

impl Again {
    fn tell(&self, why: String) {
        let mut told = self.0.borrow_mut();
        let times = told.as_ref().map_or(0, |(times, _)| *times);
        *told = Some((times + 1, why));
    }

    fn told(&self) -> Option<(u64, String)> {
        self.0.borrow().clone()
    }
}

/// Removed with all that is in it when dropped.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}

/// A row of small bodies.
const fn small(
    name: &'static str,
    method: &'static str,
    of: Of,
    beside: Option<&'static str>,
) -> Shape {
    Shape { name, method, of, beside, folder: SMALL_FOLDER }
}

/// A row of large ones.
const fn large(
    name: &'static str,
    method: &'static str,
    of: Of,
    beside: Option<&'static str>,
) -> Shape {
    Shape { name, method, of, beside, folder: LARGE_FOLDER }
}

/// Each row of ours stands behind what it is measured beside.
const ROWS: [Shape; 12] = [
    small("put-nginx", "PUT", Of::Alone, None),
    small("put-ordered", "PUT", Of::Sites, Some("put-nginx")),
    small("get-nginx", "GET", Of::Alone, None),
    small("get-proxy", "GET", Of::Proxy, Some("get-nginx")),
    small("get-linearizable", "GET", Of::Sites, Some("get-proxy")),
    Shape {
        name: "get-local",
        method: "GET",
        of: Of::Sites,
        beside: Some("get-proxy"),
        folder: LOCAL_FOLDER,
    },
    large("put-large-nginx", "PUT", Of::Alone, None),
    large("put-large-proxy", "PUT", Of::Proxy, Some("put-large-nginx")),
    large("put-large-ordered", "PUT", Of::Sites, Some("put-large-proxy")),
    large("get-large-nginx", "GET", Of::Alone, None),
    large("get-large-proxy", "GET", Of::Proxy, Some("get-large-nginx")),
    large("get-large-linearizable", "GET", Of::Sites, Some("get-large-proxy")),
];

/// Those of a cluster whose requests a group orders, beside rows of the other.
const SAM_ROWS: [Shape; 2] = [
    small("put-sam", "PUT", Of::Sites, Some("put-nginx")),
    small("get-sam", "GET", Of::Sites, Some("get-proxy")),
];

/// In front of every file's name.
const SMALL_FOLDER: &str = "/bench/";
const LOCAL_FOLDER: &str = "/local/";
const LARGE_FOLDER: &str = "/large/";

/// What makes reads of that folder local.
const LOCAL_ROUTE: &str = "\n[[web.routes]]\npath = \"/local\"\nread = \"local\"\n";

/// Clients seldom meet at one file.
const FILES: u32 = 1_000;

/// The large ones take room.
const LARGE_FILES: u32 = 2;

/// The last of them says no less than the tenth.
const LARGE_TIMES: u32 = 5;

/// In flight by default.
const CLIENTS: usize = 32;

/// Bytes of a body by default.
const SIZE: usize = 1_024;

/// Of a large one: most files of people are smaller.
const LARGE: usize = 100_000_000;

/// A slow disk takes as many files in this time.
const FILL_TIME_MAX: Duration = Duration::from_secs(120);

/// Clients that write them, so that they share places in the order.
const FILLERS: u32 = 8;

/// A slow disk takes a large body in this time, several times over.
const LARGE_TIME_MAX: Duration = Duration::from_secs(120);

/// After an error, before the next attempt.
const PAUSE: Duration = Duration::from_millis(10);
