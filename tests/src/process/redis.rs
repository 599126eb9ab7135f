//! A stock redis-server, and two of them behind a cluster.

use std::{collections::BTreeMap, net::SocketAddr, path::Path, time::Duration};

use tempfile::TempDir;

use super::{
    child::{Process, run},
    cluster::Cluster,
    machine::free_tcp_port,
    order::Order,
    resp::{Reply, Resp},
    sites::{Server, wait_both_serve, webs},
    wait::{PATIENCE, until},
};

/// A server with a directory; both are gone when it is dropped.
#[derive(Debug)]
pub struct Redis {
    at: SocketAddr,
    flags: Vec<String>,
    process: Option<Process>,
    folder: TempDir,
}

impl Redis {
    /// Starts one with these flags of its own.
    ///
    /// # Panics
    /// When it does not serve; where there is none at all, ask [`Redis::missing`] first.
    pub fn start(flags: &[&str]) -> Self {
        let folder = tempfile::Builder::new().prefix("synod-redis-").tempdir().expect("a folder");
        let flags = flags.iter().map(|&flag| flag.to_owned()).collect();
        let mut server = Self { at: free_tcp_port(), flags, process: None, folder };
        server.resume();
        server
    }

    /// What is missing here, in one line.
    pub fn missing() -> Option<String> {
        let found = std::process::Command::new("redis-server").arg("--version").output();
        let missing = "no redis-server on PATH; install Debian's package `redis-server`";
        found.is_err().then(|| missing.to_owned())
    }

    /// As a cluster is told of it.
    pub fn url(&self) -> String {
        format!("redis://{}", self.at)
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.at.port()
    }

    /// A client of its own, past everything.
    ///
    /// # Panics
    /// When nobody takes the connection in time.
    pub fn client(&self) -> Resp {
        until("a connection to redis", || {
            Resp::connect(self.at, Duration::from_secs(10)).map_err(|error| error.to_string())
        })
    }

    /// What its clients put into the first database, as it would travel to another server, by key.
    ///
    /// # Panics
    /// When it does not say.
    pub fn content(&self) -> BTreeMap<String, String> {
        let mut client = self.client();
        let Ok(Reply::Array(keys)) = client.call(&[b"KEYS", b"*"]) else { panic!("it lists keys") };
        let mut said = |key: Reply| {
            let Reply::Bulk(key) = key else { panic!("{key:?} is no key") };
            let value = client.call(&[b"DUMP", &key]).expect("it says what it has");
            (String::from_utf8_lossy(&key).into_owned(), format!("{value:?}"))
        };
        keys.into_iter().map(&mut said).collect()
    }
}

impl Server for Redis {
    fn resume(&mut self) {
        let (port, dir) = (self.at.port().to_string(), self.folder.path().display().to_string());
        let common = ["--port", &port, "--bind", "127.0.0.1", "--dir", &dir, "--logfile", "log"];
        let more: Vec<&str> = self.flags.iter().map(String::as_str).collect();
        let said = self.folder.path().join("said");
        let words = [&common[..], &more].concat();
        self.process = Some(Process::start(Path::new("redis-server"), &words, &said));
        until("redis to serve", || match self.client().call(&[b"PING"]) {
            Ok(Reply::Simple(_)) => Ok(()),
            other => Err(format!("{other:?}")),
        });
    }

    fn kill(&mut self) {
        self.process.take();
    }
}

/// What a stock client prints for these words at a port.
///
/// # Panics
/// When it fails.
pub fn redis_cli(at: SocketAddr, words: &[&str]) -> String {
    let port = at.port().to_string();
    let (code, out, error) = run(Path::new("redis-cli"), &[&["-p", &port][..], words].concat());
    assert_eq!(code, 0, "{words:?}: {out} {error}");
    out
}

/// Two stock servers behind the two mains of a cluster, or nothing where there is no Redis.
pub fn two_sites(flags: &[&str], order: Order) -> Option<(Cluster, [Redis; 2])> {
    if let Some(missing) = Redis::missing() {
        eprintln!("SKIPPED: {missing}");
        return None;
    }
    let servers = [Redis::start(flags), Redis::start(flags)];
    let [a, b] = [servers[0].url(), servers[1].url()];
    let cluster = order.before(&[a, b]);
    wait_serving(&cluster);
    Some((cluster, servers))
}

/// Waits until both sites serve, as the log says and as they say themselves.
pub fn wait_serving(cluster: &Cluster) {
    wait_both_serve(cluster);
    for web in webs(cluster) {
        until("a site to answer", || match client(web).call(&[b"GET", b"nothing"]) {
            Ok(Reply::Nil) => Ok(()),
            other => Err(format!("{other:?}")),
        });
    }
}

/// A client of a site.
pub fn client(web: SocketAddr) -> Resp {
    until("a connection", || Resp::connect(web, PATIENCE).map_err(|error| error.to_string()))
}

/// What a command is answered, written as people write one.
///
/// # Panics
/// When it is answered nothing.
pub fn call(client: &mut Resp, line: &str) -> Reply {
    let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
    client.call(&words).expect("a reply")
}
