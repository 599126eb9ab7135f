//! A node that lets clients of other machines in: TLS, tokens, and both changed while it runs.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::{
    fs,
    io::{BufRead as _, BufReader},
    net::{TcpListener, UdpSocket},
    path::Path,
    process::{Child, ChildStderr, Command, Stdio},
};

use common::synod;

/// A port with the two that `init` takes above it, all free just now.
fn free_port() -> u16 {
    for _ in 0..1000 {
        let port = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let free = |above: u16| {
            port.checked_add(above).is_some_and(|p| TcpListener::bind(("127.0.0.1", p)).is_ok())
        };
        if free(1000) && free(2000) {
            return port;
        }
    }
    panic!("no three free ports");
}

/// A running node, killed when dropped.
struct Node {
    process: Child,
    log: BufReader<ChildStderr>,
}

impl Node {
    fn start(file: &Path) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_synod"));
        command.arg("node").arg("--config").arg(file).stderr(Stdio::piped());
        let mut process = command.spawn().unwrap();
        let log = BufReader::new(process.stderr.take().unwrap());
        Self { process, log }
    }

    /// Reads the log until a line holds `part`.
    fn says(&mut self, part: &str) {
        let mut line = String::new();
        while !line.contains(part) {
            line.clear();
            assert_ne!(self.log.read_line(&mut line).unwrap(), 0, "it ended without {part:?}");
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

/// What `redis-cli` prints; `None` where there is no such program.
fn redis(port: u16, ca: &Path, args: &[&str]) -> Option<String> {
    let mut command = Command::new("redis-cli");
    command.args(["--tls", "--cacert"]).arg(ca).args(["-p", &port.to_string()]);
    let Ok(output) = command.arg("--no-auth-warning").args(args).output() else {
        eprintln!("SKIPPED: redis-cli is not there; install redis-tools");
        return None;
    };
    Some(String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).trim().to_owned())
}

#[test]
fn an_open_node_serves_who_has_the_token_and_takes_a_new_one_while_it_runs() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("shop");
    let (out, port) = (dir.to_str().unwrap(), free_port());
    let main = format!("a=127.0.0.1:{port}");
    let (exit, _, said) =
        synod(&["init", "--out", out, "--cluster", "shop", "--open", "--main", &main]);
    assert_eq!(exit, 0, "{said}");
    let mut node = Node::start(&dir.join("a/synod.toml"));
    let status = |file: &str, patience: &str| {
        let file = dir.join(file);
        synod(&["status", "--cluster", file.to_str().unwrap(), "--timeout", patience])
    };
    let (exit, page, said) = status("client.toml", "30s");
    assert_eq!((exit, page.contains("cluster shop")), (0, true), "{page}{said}");

    // Without the token, and without TLS, nothing is told.
    let client = fs::read_to_string(dir.join("client.toml")).unwrap();
    fs::write(dir.join("stranger.toml"), client.replace("token = \"token\"\n", "")).unwrap();
    let (exit, _, said) = status("stranger.toml", "300ms");
    assert_eq!((exit, said.contains("a token is needed")), (3, true), "{said}");
    let plain = client.replace("ca = \"ca.pem\"\ntoken = \"token\"\n", "");
    fs::write(dir.join("plain.toml"), plain).unwrap();
    assert_eq!(status("plain.toml", "300ms").0, 3);

    let old = fs::read_to_string(dir.join("token")).unwrap();
    let ca = dir.join("ca.pem");
    let ask = |args: &[&str]| redis(port + 2000, &ca, args);
    if let Some(said) = ask(&["set", "k", "v"]) {
        assert_eq!(said, "NOAUTH Authentication required.");
        assert_eq!(ask(&["-a", &old, "set", "k", "v"]).unwrap(), "OK");
        assert_eq!(ask(&["--user", "admin", "--pass", &old, "get", "k"]).unwrap(), "v");
        assert_eq!(ask(&["-3", "--user", "admin", "--pass", &old, "get", "k"]).unwrap(), "v");
        let said = ask(&["--user", "ann", "--pass", &old, "get", "k"]).unwrap();
        assert!(said.contains("WRONGPASS") && said.contains("NOAUTH"), "{said}");
        let long = "x".repeat(100_000);
        let said = ask(&["set", "k", &long]).unwrap();
        assert!(!said.contains("OK"), "a stranger's long command is not even read: {said}");
    }

    // A certificate that cannot be used changes nothing; a good one and a new token do.
    let cert = fs::read(dir.join("a/cert.pem")).unwrap();
    fs::write(dir.join("a/cert.pem"), "junk").unwrap();
    node.says("stays in force");
    assert_eq!(status("client.toml", "5s").0, 0);
    fs::write(dir.join("a/tokens"), "admin a-new-token-of-some-length\n").unwrap();
    fs::write(dir.join("a/cert.pem"), cert).unwrap();
    node.says("tokens changed");
    let (exit, _, said) = status("client.toml", "300ms");
    assert_eq!((exit, said.contains("the token is not known here")), (3, true), "{said}");
    fs::write(dir.join("token"), "a-new-token-of-some-length\n").unwrap();
    assert_eq!(status("client.toml", "5s").0, 0);

    // One more node gets what it needs to be open too.
    let add = ["init", "--out", out, "--add", "m1=127.0.0.1:9", "--role", "member"];
    assert_eq!(synod(&add).0, 0);
    let file = dir.join("m1/synod.toml");
    assert_eq!(synod(&["node", "--check", "--config", file.to_str().unwrap()]).0, 0);
    let tokens = fs::read_to_string(dir.join("m1/tokens")).unwrap();
    assert_eq!(tokens, "admin a-new-token-of-some-length\n");
}
