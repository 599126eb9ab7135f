//! The manual's recipe for a Redis that fails over, word by word, with stock Redis servers.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener},
    process::Command,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use serde_json::Value;
use synod_runtime::world::Instant;
use synod_tests::process::{
    child::run,
    cluster::Cluster,
    machine::shared,
    resp::{Reply, Resp},
    wait::{now, pause, until},
};

/// The nodes, and an address of this machine for each one's Redis.
const HOSTS: [(&str, Ipv4Addr); 3] = [
    ("a", Ipv4Addr::new(127, 0, 0, 2)),
    ("b", Ipv4Addr::new(127, 0, 0, 3)),
    ("m1", Ipv4Addr::new(127, 0, 0, 4)),
];

/// A cluster whose services are the recipe's.
struct Stage {
    synod: Cluster,
    door: u16,
    server: u16,
}

impl Stage {
    fn new() -> Self {
        let synod = Cluster::dev("synod", &["--members", "1"]);
        let port = || {
            let free = HOSTS.map(|(_, host)| TcpListener::bind((host, 0)).unwrap());
            free[0].local_addr().unwrap().port()
        };
        let stage = Self { synod, door: port(), server: port() };
        for (node, _) in HOSTS {
            let dir = stage.synod.dir().join(node).join("redis").display().to_string();
            let name = format!("redis-{node}");
            let flags = ["add", &name, "--providers", node, "--secondaries", "0"];
            stage.add(&flags, &["server", &dir]);
        }
        let ready = stage.script(&["ready"]).join(" ");
        let flags = ["add", "redis", "--secondaries", "2", "--ready", &ready];
        stage.add(&[&flags[..], &["--probe-every", "300ms"]].concat(), &["primary"]);
        stage
    }

    /// The recipe's words, for addresses and ports of this test.
    fn script(&self, verb: &[&str]) -> Vec<String> {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../actors/docs/examples/redis-primary.sh");
        let ports = [format!("REDIS_DOOR={}", self.door), format!("REDIS_PORT={}", self.server)];
        let words = ["env", &ports[0], &ports[1], file].into_iter().chain(verb.iter().copied());
        let hosts = HOSTS.map(|(node, host)| format!("{node}={host}"));
        words.map(str::to_owned).chain(hosts).collect()
    }

    fn add(&self, flags: &[&str], verb: &[&str]) {
        let program = self.script(verb);
        let program: Vec<&str> = program.iter().map(String::as_str).collect();
        self.services(&[flags, &["--"], &program].concat());
    }

    /// `synod services ARGS`.
    fn services(&self, args: &[&str]) {
        let client = self.synod.dir().join("client.toml").display().to_string();
        let (verb, rest) = args.split_at(2);
        let words = [&["services"], verb, &["--cluster", &client], rest].concat();
        let (code, out, error) = run(self.synod.program(), &words);
        assert_eq!(code, 0, "{args:?}: {out} {error}");
    }

    fn service(&self, name: &str) -> Result<Value, String> {
        let asked = HOSTS.iter().map(|(node, _)| {
            let mut http = self.synod.http(node).patience(Duration::from_secs(1));
            http.json(&format!("/services/{name}"))
        });
        asked.reduce(Result::or).unwrap()
    }

    /// The Redis server at a node.
    fn redis(&self, node: &str) -> io::Result<Resp> {
        let host = HOSTS.iter().find(|(name, _)| *name == node).unwrap().1;
        Resp::connect(SocketAddr::from((host, self.server)), PATIENCE)
    }

    /// It ends without a word to anybody, and its node starts it again.
    fn end_server(&self, node: &str) {
        let mut redis = self.redis(node).unwrap();
        redis.call(&[b"SHUTDOWN", b"NOSAVE", b"NOW", b"FORCE"]).unwrap_err();
    }

    /// Waits until all of it runs; the node of the primary.
    fn whole(&self) -> String {
        for service in ["redis-a", "redis-b", "redis-m1", "redis"] {
            until(service, || match self.service(service)? {
                document if document["state"] == "running" => Ok(()),
                document => Err(document.to_string()),
            });
        }
        let primary = self.service("redis").unwrap()["primary"].as_str().unwrap().to_owned();
        until("both replicas", || {
            let mut redis = self.redis(&primary).map_err(|e| e.to_string())?;
            match redis.call(&[b"INFO", b"replication"]) {
                Ok(Reply::Bulk(info)) => {
                    let info = String::from_utf8_lossy(&info).into_owned();
                    let whole = info.matches("state=online").count() == HOSTS.len() - 1;
                    if whole { Ok(()) } else { Err(info) }
                }
                other => Err(format!("{other:?}")),
            }
        });
        primary
    }
}

/// An acknowledged write: at the primary and, said `WAIT 1`, at one more server.
#[derive(Debug, Clone, Copy)]
struct Written {
    client: usize,
    number: u64,
    epoch: u64,
    asked: Instant,
    told: Instant,
}

/// Clients that write one key after another through whichever door is open.
struct Clients {
    stop: Arc<AtomicBool>,
    written: Arc<Mutex<Vec<Written>>>,
    all: Vec<JoinHandle<()>>,
}

impl Clients {
    fn start(door: u16) -> Self {
        let stop = Arc::<AtomicBool>::default();
        let written = Arc::<Mutex<Vec<Written>>>::default();
        let all = (0..CLIENTS).map(|client| {
            let (stop, written) = (Arc::clone(&stop), Arc::clone(&written));
            thread::spawn(move || {
                let (mut redis, mut numbers) = (None, 0..);
                while !stop.load(Relaxed) {
                    let (asked, number) = (now(), numbers.next().unwrap());
                    match write(&mut redis, door, client, number) {
                        Ok(Some(epoch)) => {
                            let one = Written { client, number, epoch, asked, told: now() };
                            written.lock().unwrap().push(one);
                        }
                        Ok(None) => {}
                        Err(_) => redis = None,
                    }
                    pause();
                }
            })
        });
        let all = all.collect();
        Self { stop, written, all }
    }

    /// Waits for a write that `is_it` accepts.
    fn wait(&self, what: &str, is_it: impl Fn(&Written) -> bool) -> Written {
        until(what, || {
            let written = self.written.lock().unwrap();
            let found = written.iter().find(|one| is_it(one)).copied();
            found.ok_or_else(|| format!("{:?}", written.last()))
        })
    }

    fn stop(self) -> Vec<Written> {
        self.stop.store(true, Relaxed);
        self.all.into_iter().for_each(|client| client.join().unwrap());
        std::mem::take(&mut self.written.lock().unwrap())
    }
}

/// The epoch of the primary that acknowledged it; `None` when only the primary has it.
fn write(redis: &mut Option<Resp>, door: u16, client: usize, n: u64) -> io::Result<Option<u64>> {
    let redis = match redis {
        Some(redis) => redis,
        None => redis.insert(open_door(door).ok_or(io::ErrorKind::ConnectionRefused)?),
    };
    let bad = |reply| io::Error::other(format!("{reply:?}"));
    let key = format!("{client}:{n}");
    match redis.call(&[b"SET", key.as_bytes(), b"written"])? {
        Reply::Simple(_) => {}
        other => return Err(bad(other)),
    }
    let mark = match redis.call(&[b"GET", b"synod:primary"])? {
        Reply::Bulk(mark) => String::from_utf8_lossy(&mark).into_owned(),
        other => return Err(bad(other)),
    };
    match redis.call(&[b"WAIT", b"1", b"1000"])? {
        Reply::Integer(0) => Ok(None),
        Reply::Integer(_) => Ok(mark.split(' ').next().and_then(|epoch| epoch.parse().ok())),
        other => Err(bad(other)),
    }
}

/// A client knows all addresses; one of them answers.
fn open_door(door: u16) -> Option<Resp> {
    HOSTS.iter().find_map(|(_, host)| {
        Resp::connect(SocketAddr::new(IpAddr::V4(*host), door), PATIENCE).ok()
    })
}

/// Nobody's write was acknowledged by a primary that had been followed by another when it was asked
/// for, and all that were acknowledged are there.
fn judge(mut written: Vec<Written>, door: u16) {
    written.sort_by_key(|one| one.told);
    let mut highest: Vec<(Instant, u64)> = Vec::new();
    for one in &written {
        let before = highest.last().map_or(0, |last| last.1);
        highest.push((one.told, before.max(one.epoch)));
    }
    for one in &written {
        let known = highest.partition_point(|(told, _)| *told < one.asked);
        let before = known.checked_sub(1).map_or(0, |last| highest[last].1);
        assert!(one.epoch >= before, "a stale primary was believed, after {before}: {one:?}");
    }
    let mut redis = open_door(door).expect("the door is open");
    for Written { client, number, .. } in &written {
        let key = format!("{client}:{number}");
        let found = redis.call(&[b"GET", key.as_bytes()]).unwrap();
        assert_eq!(found, Reply::Bulk(b"written".to_vec()), "lost: {key}");
    }
    println!("{} acknowledged writes, none lost", written.len());
}

/// Goal: writes go on within the lease and half a second when the primary's node dies or stops, it
/// is moved, or its server ends; nothing that `WAIT 1` acknowledged is lost, and no primary is
/// believed once another was.
#[test]
fn a_stock_redis_fails_over_and_loses_no_write_that_one_replica_had() {
    for (program, package) in
        [("redis-server", "redis-server"), ("redis-cli", "redis-tools"), ("socat", "socat")]
    {
        if Command::new(program).arg("--version").output().is_err() {
            eprintln!("SKIPPED: this test needs {program} (Debian package {package})");
            return;
        }
    }
    let _machine = shared();
    let mut stage = Stage::new();
    let clients = Clients::start(stage.door);
    for fault in ["KILL", "STOP", "move", "server"] {
        let primary = stage.whole();
        let began = now();
        let epoch = clients.wait("a write before it", |one| one.asked > began).epoch;
        let began = now();
        match fault {
            "move" => {
                let other = HOSTS.iter().find(|(node, _)| *node != primary).unwrap().0;
                stage.services(&["move", "redis", other]);
            }
            "server" => stage.end_server(&primary),
            signal => stage.synod.signal(signal, &[&primary]),
        }
        let gone = now();
        let next = clients.wait("a write after it", |one| match fault {
            // The same node promotes its server again, or another one does.
            "server" => one.asked > gone,
            _ => one.epoch > epoch,
        });
        let took = next.told.since(began);
        println!("{fault} at {primary}: writes again after {} ms", took.as_millis());
        assert!(took < LEASE + TAKEOVER + SLACK, "{fault}: {took:?}");
        match fault {
            "KILL" => stage.synod.wait_restarted(&primary),
            "STOP" => stage.synod.signal("CONT", &[&primary]),
            _ => {}
        }
        stage.synod.wait_ready(&primary);
    }
    stage.whole();
    judge(clients.stop(), stage.door);
    stage.synod.stop();
}

/// Writes at a time.
const CLIENTS: usize = 4;

/// For a reply; a server that hangs is given up.
const PATIENCE: Duration = Duration::from_secs(2);

/// The default.
const LEASE: Duration = Duration::from_secs(2);

/// Promised beyond it.
const TAKEOVER: Duration = Duration::from_millis(500);

/// For a machine that builds and tests beside it: the recipe starts some thirty processes of
/// `redis-cli` in a takeover, and 0.9 s beyond the promise were seen on two busy cores.
const SLACK: Duration = Duration::from_secs(3);
