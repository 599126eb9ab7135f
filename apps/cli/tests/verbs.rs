//! The `synod` binary from outside: exit codes, files, one-line errors.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{TcpListener, UdpSocket},
    os::{fd::OwnedFd, unix::fs::PermissionsExt as _},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
};

use common::synod;

/// Asserts that nothing was done, and said in one line that holds `parts`.
fn refused(args: &[&str], code: i32, parts: &[&str]) {
    let (exit, _, said) = synod(args);
    assert_eq!(exit, code, "{args:?}: {said}");
    assert!(said.starts_with("synod: ") && said.lines().count() == 1, "{args:?}: {said}");
    for part in parts {
        assert!(said.contains(part), "{part:?} in {said}");
    }
}

/// Writes the cluster `shop` of two mains and an auxiliary.
fn init(dir: &str) -> (i32, String, String) {
    let mains = ["--main", "a=127.0.0.1:7001", "b=127.0.0.1:7002"];
    let rest = ["--auxiliary", "x=127.0.0.1:7003"];
    synod(&[&["init", "--out", dir, "--cluster", "shop"][..], &mains, &rest].concat())
}

#[test]
fn wrong_usage_exits_2_with_one_line() {
    refused(&["dev", "--mians", "3"], 2, &["--mians", "--mains", "try"]);
    refused(&["dev", "--mains", "0"], 2, &["no main"]);
    refused(&["dev", "--mains", "1", "--auxiliaries", "1"], 2, &["1 auxiliaries for 1 mains"]);
    refused(&["dev", "--durability", "disk"], 2, &["fsync", "memory"]);
    refused(&["dev", "--upstream", "ftp://127.0.0.1:1"], 2, &["--upstream", "http"]);
    let upstream = ["--upstream", "http://127.0.0.1:1"];
    let three = [&["dev"], &upstream[..], &upstream, &upstream].concat();
    refused(&three, 2, &["3 servers for 2 mains"]);
    refused(&three[..5], 2, &["--upstream", "is there twice", "a server of its own"]);
    let mixed = ["dev", "--upstream", "http://127.0.0.1:1", "--upstream", "redis://127.0.0.1:2"];
    refused(&mixed, 2, &["--upstream", "Redis", "one kind"]);
    refused(&["node", "--config", "/nowhere/synod.toml"], 2, &["/nowhere/synod.toml"]);
    refused(&["status", "--cluster", "/nowhere/client.toml"], 2, &["/nowhere/client.toml"]);
    refused(&["call", "ledger", "ledger.transfer", "{oops"], 2, &["JSON"]);
    assert_eq!(synod(&[]).0, 2);
    assert_eq!(synod(&["--help"]).0, 0);
}

#[test]
fn a_refused_dev_leaves_no_directory_behind() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("demo");
    refused(&["dev", "--mains", "0", "--dir", dir.to_str().unwrap()], 2, &[]);
    assert!(!dir.exists());
}

#[test]
fn a_profile_goes_from_init_to_the_node_and_into_simulations() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().to_str().unwrap();
    let (exit, _, said) =
        synod(&["init", "--out", dir, "--cluster", "far", "--main", "a=h:1", "--profile", "wan"]);
    assert_eq!(exit, 0, "{said}");
    let file = folder.path().join("a/synod.toml");
    assert!(fs::read_to_string(&file).unwrap().contains("profile = \"wan\""));
    let file = file.to_str().unwrap();
    assert_eq!(synod(&["node", "--config", file, "--check"]).0, 0);
    let wrong = ["node", "--config", file, "--check", "--profile", "moon"];
    refused(&wrong, 2, &["\"moon\"", "lan", "wan"]);
    let simulate = ["simulate", "--runs", "1", "--faults", "none", "--profile", "wan"];
    let (exit, page, said) = synod(&simulate);
    assert!(exit == 0 && page.contains("0 violated"), "{page}{said}");
    assert_ne!(page, synod(&simulate[..5]).1, "another network, another history");
}

#[test]
fn init_writes_directories_that_a_node_accepts() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().to_str().unwrap();
    assert_eq!(init(dir).0, 0);
    let (exit, _, said) =
        synod(&["init", "--out", dir, "--add", "m1=web1:7001", "--role", "member"]);
    assert_eq!(exit, 0, "{said}");
    for name in ["a", "b", "x", "m1"] {
        let file = format!("{dir}/{name}/synod.toml");
        let (exit, _, said) = synod(&["node", "--config", &file, "--check"]);
        assert_eq!(exit, 0, "{said}");
        assert_eq!(mode(&format!("{dir}/{name}/key.pem")), 0o600);
    }
    assert_eq!(mode(&format!("{dir}/authority/ca-key.pem")), 0o600);
    let client = fs::read_to_string(format!("{dir}/client.toml")).unwrap();
    assert_eq!(client.matches("[[nodes]]").count(), 4, "{client}");
}

#[test]
fn init_never_overwrites() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().to_str().unwrap();
    assert_eq!(init(dir).0, 0);
    let key = fs::read(format!("{dir}/a/key.pem")).unwrap();
    let (exit, _, said) = init(dir);
    assert_eq!((exit, said.contains("already there")), (2, true), "{said}");
    let again = ["init", "--out", dir, "--add", "a=web1:7001", "--role", "member"];
    refused(&again, 2, &["already there"]);
    assert_eq!(fs::read(format!("{dir}/a/key.pem")).unwrap(), key);
}

#[test]
fn a_bad_node_file_exits_2_naming_file_key_and_the_nearest() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().to_str().unwrap();
    assert_eq!(init(dir).0, 0);
    let file = format!("{dir}/a/synod.toml");
    let good = fs::read_to_string(&file).unwrap();
    for (from, to, parts) in [
        ("data_dir", "data_dri", ["`data_dri`", "`data_dir`"]),
        ("durability", "durabilty", ["`consensus.durabilty`", "`durability`"]),
        ("\"fsync\"", "7", ["`consensus.durability`", "wrong type"]),
        ("key.pem", "no.pem", ["`tls.key`", "no.pem"]),
        ("http = \"127.0.0.1", "http = \"0.0.0.0", ["`listen.http`", "without TLS"]),
    ] {
        fs::write(&file, good.replacen(from, to, 1)).unwrap();
        refused(&["node", "--config", &file], 2, &[&file, parts[0], parts[1]]);
    }
}

#[test]
fn nobody_there_is_not_applied_and_exits_3() {
    let folder = tempfile::tempdir().unwrap();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let file = client_file(folder.path(), port);
    let ask = |verb: &[&str]| {
        let args = [verb, &["--cluster", &file, "--timeout", "200ms"]].concat();
        refused(&args, 3, &["not applied"]);
    };
    ask(&["status"]);
    ask(&["actors"]);
    ask(&["call", "ledger", "ledger.transfer", "{}"]);
}

#[test]
fn answers_become_outcomes() {
    let overloaded = "HTTP/1.1 503 x\r\nContent-Length: 9\r\n\r\nno quorum";
    let late = "HTTP/1.1 504 x\r\nContent-Length: 4\r\n\r\nlate";
    let good = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n42";
    let bad = "HTTP/1.1 404 x\r\nContent-Length: 4\r\n\r\nnope";
    for (answer, code, part) in [
        (good, 0, ""),
        (bad, 1, "nope"),
        (overloaded, 3, "not applied"),
        (late, 4, "outcome unknown"),
        // It hung up after it got the request.
        ("", 4, "outcome unknown"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let file = client_file(folder.path(), answering(answer));
        let call = ["call", "l", "m", "{}", "--cluster", &file, "--timeout", "300ms", "--json"];
        let (exit, said, error) = synod(&call);
        assert_eq!(exit, code, "{answer:?}: {error}");
        assert!(error.contains(part), "{error}");
        let document: serde_json::Value = serde_json::from_str(&said).unwrap();
        match code {
            0 => assert_eq!(document, 42),
            3 => assert_eq!(document["outcome"], "not_applied"),
            4 => assert_eq!(document["outcome"], "unknown"),
            _ => assert!(document["error"].is_string()),
        }
    }
}

/// Goal: a node that takes connections and says nothing, as a stopped process does, keeps nobody from
/// what the next one says.
#[test]
fn a_node_that_hangs_is_passed_by() {
    let folder = tempfile::tempdir().unwrap();
    let hangs = TcpListener::bind("127.0.0.1:0").unwrap();
    let answers = &[
        ("GET /services/s ", r#"{"service":"s","state":"running"}"#),
        ("GET /roles/r ", r#"{"role":"r","leader":"l"}"#),
        ("POST /actors/kv/kv.get ", r#""value""#),
        ("GET /readyz ", "ready"),
        ("GET /status ", "{}"),
        ("GET /backup ", "half a file"),
    ];
    let nodes = [("main", hangs.local_addr().unwrap().port()), ("main", saying(answers))];
    let file = nodes_file(folder.path(), &nodes);
    let ask = |verb: &[&str]| synod(&[verb, &["--cluster", &file, "--timeout", "2s"]].concat());
    let (exit, _, said) = ask(&["subscribe", "news", "--from", "1", "--count", "1"]);
    assert_eq!((exit, said.contains("not here")), (1, true), "{said}");
    for (verb, heard) in [
        (&["services", "s"][..], "running"),
        (&["roles", "r"], "l"),
        (&["call", "kv", "kv.get", r#"{"key":"a"}"#], "value"),
    ] {
        let (exit, page, said) = ask(verb);
        assert_eq!((exit, page.contains(heard)), (0, true), "{verb:?}: {page}{said}");
    }
    let backup = folder.path().join("backup").display().to_string();
    let (exit, _, said) = ask(&["backup", &backup]);
    assert_eq!((exit, said.contains("damaged")), (1, true), "{said}");
    // What changes something was not sent elsewhere.
    let (exit, _, said) = ask(&["call", "kv", "kv.put", "{}"]);
    assert_eq!((exit, said.contains("outcome unknown")), (4, true), "{said}");
}

/// Goal: where only an auxiliary answers, which knows of neither, nobody is told that there is nothing.
#[test]
fn an_auxiliary_does_not_say_that_there_is_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let hangs = TcpListener::bind("127.0.0.1:0").unwrap();
    let knows_nothing = saying(&[("GET /status ", r#"{"web":[]}"#)]);
    let nodes = [("main", hangs.local_addr().unwrap().port()), ("auxiliary", knows_nothing)];
    let file = nodes_file(folder.path(), &nodes);
    for verb in [&["web"][..], &["multicast", "status"]] {
        let args = [verb, &["--cluster", &file, "--timeout", "500ms"]].concat();
        refused(&args, 3, &["no answer in time"]);
    }
}

/// Goal: what cannot be said is a failure, and a reader that has enough is none.
#[test]
fn output_that_cannot_be_written_is_told_and_a_closed_pipe_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let answers = &[
        ("GET /status ", r#"{"nodes":[],"web":[]}"#),
        ("GET /roles ", r#"{"roles":[]}"#),
        ("POST /actors/kv/kv.get ", r#""value""#),
    ];
    let file = nodes_file(folder.path(), &[("main", saying(answers))]);
    for verb in [
        &["status"][..],
        &["status", "--json"],
        &["members"],
        &["members", "--json"],
        &["roles"],
        &["web"],
        &["web", "--json"],
        &["call", "kv", "kv.get", r#"{"key":"a"}"#],
        &["--help"],
    ] {
        let to = |out: Stdio| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_synod"));
            let command = command.args(verb).env("SYNOD_CLUSTER", &file).stdout(out);
            let output = command.output().unwrap();
            (output.status.code(), String::from_utf8(output.stderr).unwrap())
        };
        // Nobody is at its other end, nor ever was.
        let nowhere = UdpSocket::bind("127.0.0.1:0").unwrap();
        let (exit, said) = to(OwnedFd::from(nowhere).into());
        assert_eq!((exit, said.lines().count()), (Some(1), 1), "{verb:?}: {said}");
        assert!(said.starts_with("synod: standard output: cannot be written: "), "{said}");
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        assert_eq!(to(writer.into()), (Some(0), String::new()), "{verb:?}");
    }
}

/// Goal: who is asked to stop while it publishes says which lines nobody knows of; who listens just ends.
#[test]
fn who_publishes_says_what_is_unknown_when_it_is_asked_to_stop() {
    let folder = tempfile::tempdir().unwrap();
    let node = TcpListener::bind("127.0.0.1:0").unwrap();
    let file = nodes_file(folder.path(), &[("main", node.local_addr().unwrap().port())]);
    let start = |verb: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_synod"));
        command.args(verb).env("SYNOD_CLUSTER", &file).stdin(Stdio::piped());
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let stop = |child: Child| {
        let pid = child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        let output = child.wait_with_output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let subscriber = start(&["subscribe", "news"]);
    let _asked = node.accept().unwrap();
    assert_eq!(stop(subscriber), (Some(0), String::new()));
    let mut publisher = start(&["publish", "news"]);
    publisher.stdin.take().unwrap().write_all(b"one\n").unwrap();
    let (mut asked, _) = node.accept().unwrap();
    assert!(asked.read(&mut [0; 4096]).unwrap() > 0);
    // The group stands at number 0, and nothing got a place.
    let head = b"HTTP/1.1 200 x\r\nConnection: close\r\nContent-Length: 3\r\n\r\n";
    asked.write_all(&[&head[..], &[0x92, 0x00, 0x90]].concat()).unwrap();
    drop(asked);
    let _sent = node.accept().unwrap();
    let (exit, said) = stop(publisher);
    assert_eq!((exit, said.contains("outcome unknown")), (Some(4), true), "{said}");
    assert!(said.contains("lines 1;"), "{said}");
}

/// A client file that names one main.
fn client_file(folder: &Path, port: u16) -> String {
    nodes_file(folder, &[("main", port)])
}

/// A client file that names nodes of these roles: a, b and so on.
fn nodes_file(folder: &Path, nodes: &[(&str, u16)]) -> String {
    let file = folder.join("client.toml");
    let mut text = String::from("cluster = \"shop\"\n");
    for (name, (role, port)) in ('a'..).zip(nodes) {
        let http = format!("127.0.0.1:{port}");
        text += &format!("[[nodes]]\nname = \"{name}\"\nrole = \"{role}\"\nhttp = \"{http}\"\n");
    }
    fs::write(&file, text).unwrap();
    file.to_str().unwrap().to_owned()
}

const NOT_HERE: &str = r#"{"error":"not here"}"#;

/// A server that answers requests which begin so with 200 and this, and others with 404.
fn saying(answers: &'static [(&str, &str)]) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for connection in listener.incoming() {
            let mut connection = connection.unwrap();
            let mut request = [0; 4096];
            let read = connection.read(&mut request).unwrap_or_default();
            let asked = String::from_utf8_lossy(&request[..read]).into_owned();
            let answer = answers.iter().find(|(begin, _)| asked.starts_with(begin));
            let (status, body) = answer.map_or((404, NOT_HERE), |(_, body)| (200, *body));
            let head = format!("HTTP/1.1 {status} x\r\nConnection: close\r\n");
            let head = format!("{head}Content-Length: {}\r\n\r\n", body.len());
            // Whoever asked may have heard enough elsewhere.
            connection.write_all((head + body).as_bytes()).ok();
        }
    });
    port
}

/// A server that reads a request, writes `answer` and hangs up, again and again.
fn answering(answer: &'static str) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for connection in listener.incoming() {
            let mut connection = connection.unwrap();
            let mut request = Vec::new();
            // The body is the last thing a request says, and here it is always `{}`.
            while !request.ends_with(b"{}") {
                let mut chunk = [0; 1024];
                let read = connection.read(&mut chunk).unwrap();
                assert!(read > 0, "the client hung up first");
                request.extend_from_slice(&chunk[..read]);
            }
            connection.write_all(answer.as_bytes()).unwrap();
        }
    });
    port
}

fn mode(path: &str) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn init_makes_certificates_for_clients_and_never_twice() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().to_str().unwrap();
    assert_eq!(init(dir).0, 0);
    let ann = ["init", "--out", dir, "--client", "ann"];
    let (exit, page, said) = synod(&ann);
    assert_eq!((exit, page.contains("ann-client.pem")), (0, true), "{page}{said}");
    assert_eq!(mode(&format!("{dir}/ann-client-key.pem")), 0o600);
    refused(&ann, 2, &["ann-client.pem", "already there"]);
    let file = format!("{dir}/client.toml");
    let client = fs::read_to_string(&file).unwrap();
    fs::write(&file, client.replacen('\n', "\ncert = \"ann-client.pem\"\n", 1)).unwrap();
    refused(&["status", "--cluster", &file], 2, &["`cert`", "a certificate goes with its key"]);
}
