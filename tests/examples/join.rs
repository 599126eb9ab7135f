//! A main that lost its disk joins again with gigabytes of state, while clients write:
//! `cargo run --release -p synod-tests --example join -- target/release/synod 2048`
//! (the program, and megabytes of state).
//!
//! It starts a cluster of two mains and an auxiliary in real processes, fills it with values of one
//! KiB, and measures 5 000 writes a second: alone, and while the second main, killed and its disk
//! emptied, comes back. It prints both, and how long the join took.

#![expect(clippy::disallowed_methods, reason = "it measures from outside, in real time")]

use std::{
    env, fs,
    io::{BufRead as _, BufReader, Write as _},
    net::TcpStream,
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

/// Clients of the load, each at its own pace.
const CLIENTS: u64 = 10;

/// Writes of all of them.
const WRITES_PER_SECOND: u64 = 5_000;

/// One value.
const VALUE_BYTES: usize = 1_024;

/// Keys written by one command while the state is made.
const KEYS_A_COMMAND: u64 = 100;

/// How long the load is measured alone.
const ALONE: Duration = Duration::from_secs(10);

/// Steps behind at which a main counts as up to date: what is under way.
const LAG_MAX: u64 = 64;

/// Longer than any join.
const JOIN_MAX: Duration = Duration::from_secs(300);

fn main() -> Result<()> {
    let mut args = env::args().skip(1);
    let program = args.next().context("name the program: target/release/synod")?;
    let megabytes: u64 = args.next().map_or(Ok(2_048), |text| text.parse())?;
    let dir = tempfile::tempdir_in(env::var("SYNOD_BENCH_DIR").unwrap_or_else(|_| ".".into()))?;
    let (mut dev, nodes) = start(&program, dir.path())?;
    let done = measure(&program, dir.path(), &nodes, megabytes);
    let stopped = Command::new("kill").args(["-INT", &dev.id().to_string()]).status();
    stopped.and_then(|_| dev.wait())?;
    done
}

struct Main {
    name: String,
    resp: String,
    pid: u64,
}

fn start(program: &str, dir: &Path) -> Result<(Child, Vec<Main>)> {
    let mut dev = Command::new(program)
        .args(["dev", "--json", "--dir"])
        .arg(dir.join("cluster"))
        .stdout(Stdio::piped())
        .spawn()?;
    let mut line = String::new();
    let mut output = BufReader::new(dev.stdout.take().context("it is piped")?);
    output.read_line(&mut line)?;
    // What it says later is of no interest, but somebody must take it.
    thread::spawn(move || std::io::copy(&mut output, &mut std::io::sink()));
    let ready: Value = serde_json::from_str(&line)?;
    let nodes = ready["nodes"].as_array().context("no nodes")?.iter();
    let mains = nodes.filter(|node| node["role"] == "main").filter_map(|node| {
        let text = |field: &str| Some(node[field].as_str()?.to_owned());
        Some(Main { name: text("name")?, resp: text("resp")?, pid: node["pid"].as_u64()? })
    });
    Ok((dev, mains.collect()))
}

fn measure(program: &str, dir: &Path, mains: &[Main], megabytes: u64) -> Result<()> {
    let [a, b] = mains else { anyhow::bail!("two mains are wanted") };
    let keys = megabytes * 1_024 * 1_024 / VALUE_BYTES as u64;
    ask(program, dir, &["members", "lead", &a.name]);
    let began = Instant::now();
    fill(&a.resp, keys)?;
    println!("{keys} keys of {VALUE_BYTES} bytes written in {:.1?}", began.elapsed());
    println!("resident: a {} MB, b {} MB", resident_mb(a.pid), resident_mb(b.pid));
    // The state is at rest before anything is measured.
    thread::sleep(Duration::from_secs(5));
    let status = ask(program, dir, &["status"]).context("no status")?;
    let before = node(&status, &b.name).context("no such node")?["incarnation"].clone();
    let alone = load(&a.resp, keys, || thread::sleep(ALONE))?;
    println!("alone:   {alone}");
    let (mut joined, mut most_mb) = (Duration::ZERO, 0);
    let beside = load(&a.resp, keys, || {
        thread::sleep(Duration::from_secs(1));
        let data = dir.join("cluster").join(&b.name).join("data");
        let gone = dir.join("lost");
        let lost = fs::rename(&data, &gone).and_then(|()| {
            Command::new("kill").args(["-9", &b.pid.to_string()]).status().map(drop)
        });
        if let Err(error) = lost {
            println!("the disk of {} cannot be lost: {}: {error}", b.name, data.display());
        }
        drop(fs::remove_dir_all(&gone));
        let began = Instant::now();
        while began.elapsed() < JOIN_MAX && !is_back(program, dir, &b.name, &before) {
            thread::sleep(Duration::from_millis(200));
            most_mb = most_mb.max(resident_mb(a.pid));
        }
        joined = began.elapsed();
        thread::sleep(Duration::from_secs(2));
    })?;
    println!("joining: {beside}");
    println!("{} was back after {joined:.1?}; {} had {most_mb} MB at most", b.name, a.name);
    println!("p99 joining / alone: {:.2}", beside.p99.as_secs_f64() / alone.p99.as_secs_f64());
    Ok(())
}

/// Asks the cluster, as a person would.
fn ask(program: &str, dir: &Path, verb: &[&str]) -> Option<Value> {
    let client = dir.join("cluster").join("client.toml");
    let output =
        Command::new(program).args(verb).args(["--json", "--cluster"]).arg(client).output();
    serde_json::from_slice(&output.ok()?.stdout).ok()
}

fn node(status: &Value, name: &str) -> Option<Value> {
    status["nodes"].as_array()?.iter().find(|node| node["name"] == *name).cloned()
}

/// Whether the cluster counts on another incarnation of it, which is up to date.
fn is_back(program: &str, dir: &Path, name: &str, before: &Value) -> bool {
    let Some(status) = ask(program, dir, &["status"]) else { return false };
    let Some(node) = node(&status, name) else { return false };
    let caught_up = node["lag"].as_u64().is_some_and(|lag| lag <= LAG_MAX);
    status["bridging"] == false && node["incarnation"] != *before && caught_up
}

fn fill(address: &str, keys: u64) -> Result<()> {
    let mut stream = TcpStream::connect(address)?;
    let mut answers = BufReader::new(stream.try_clone()?);
    let value = "v".repeat(VALUE_BYTES);
    let mut under_way = 0;
    for first in (0..keys).step_by(usize::try_from(KEYS_A_COMMAND)?) {
        let last = keys.min(first + KEYS_A_COMMAND);
        let mut command = format!("*{}\r\n$4\r\nMSET\r\n", 1 + 2 * (last - first));
        for key in first..last {
            let key = format!("key:{key:012}");
            command += &format!("${}\r\n{key}\r\n${VALUE_BYTES}\r\n{value}\r\n", key.len());
        }
        stream.write_all(command.as_bytes())?;
        under_way += 1;
        if under_way == 16 || last == keys {
            for _ in 0..under_way {
                expect_ok(&mut answers)?;
            }
            under_way = 0;
        }
    }
    Ok(())
}

fn expect_ok(answers: &mut impl std::io::Read) -> Result<()> {
    let mut answer = [0; 5];
    answers.read_exact(&mut answer)?;
    ensure!(answer == *b"+OK\r\n", "answered {}", String::from_utf8_lossy(&answer));
    Ok(())
}

/// What a load saw.
struct Seen {
    writes: usize,
    seconds: f64,
    p50: Duration,
    p99: Duration,
    most: Duration,
}

impl std::fmt::Display for Seen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { writes, seconds, p50, p99, most } = self;
        let rate = *writes as f64 / seconds;
        write!(f, "{rate:.0} writes/s, p50 {p50:.2?}, p99 {p99:.2?}, longest {most:.1?}")
    }
}

/// Writes while `during` runs. A write that is late because the one before it was counts from when
/// it was due.
fn load(address: &str, keys: u64, during: impl FnOnce()) -> Result<Seen> {
    let stop = Arc::new(AtomicBool::new(false));
    let began = Instant::now();
    let clients: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let (stop, address) = (Arc::clone(&stop), address.to_owned());
            thread::spawn(move || write_on(&address, client, keys, &stop))
        })
        .collect();
    during();
    stop.store(true, Relaxed);
    let seconds = began.elapsed().as_secs_f64();
    let mut waits = Vec::new();
    for client in clients {
        waits.extend(client.join().map_err(|_panic| anyhow::anyhow!("a client panicked"))??);
    }
    waits.sort_unstable();
    ensure!(!waits.is_empty(), "nothing was written");
    let at = |part: f64| waits[((waits.len() - 1) as f64 * part) as usize];
    let (p50, p99, most) = (at(0.5), at(0.99), at(1.0));
    Ok(Seen { writes: waits.len(), seconds, p50, p99, most })
}

fn write_on(address: &str, client: u64, keys: u64, stop: &AtomicBool) -> Result<Vec<Duration>> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    let value = "w".repeat(VALUE_BYTES);
    let pace = Duration::from_secs(1) * u32::try_from(CLIENTS)? / u32::try_from(WRITES_PER_SECOND)?;
    let mut waits = Vec::new();
    let mut due = Instant::now() + pace * u32::try_from(client)? / u32::try_from(CLIENTS)?;
    let mut number = client;
    while !stop.load(Relaxed) {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        number =
            number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let key = format!("key:{:012}", (number >> 16) % keys);
        let head = format!("*3\r\n$3\r\nSET\r\n${}\r\n{key}\r\n${VALUE_BYTES}\r\n", key.len());
        stream.write_all([&head, &value, "\r\n"].concat().as_bytes())?;
        expect_ok(&mut stream)?;
        waits.push(due.elapsed());
        due += pace;
    }
    Ok(waits)
}

fn resident_mb(pid: u64) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kb| kb.parse::<u64>().ok()).unwrap_or(0) / 1_024
}
