//! `synod bench` from outside: what it refuses, and the rows it writes. How fast anything is is
//! not tested here, since it depends on the machine.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    process::{Child, Command, Output, Stdio},
};

use serde_json::Value;

fn synod(args: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_synod"));
    let Output { status, stdout, stderr } = command.args(args).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

/// Runs a bench that must be done well; answers its rows.
fn rows(args: &[&str]) -> Vec<Value> {
    let (code, out, said) = synod(&[&["bench"], args, &["--json"]].concat());
    assert_eq!(code, 0, "{args:?}: {said}");
    out.lines().map(|line| serde_json::from_str(line).expect("an object a line")).collect()
}

/// What every row has, whatever was measured.
fn check(row: &Value, name: &str, kind: &str) {
    assert_eq!((row["name"].as_str(), row["errors"].as_u64()), (Some(name), Some(0)), "{row}");
    assert!(row["ops_per_s"].as_f64().unwrap() > 0.0, "{row}");
    let [p50, p99, p999] = ["p50_us", "p99_us", "p999_us"].map(|key| row[key].as_f64().unwrap());
    assert!(p50 <= p99 && p99 <= p999 && p999 > 0.0, "{row}");
    let conditions = &row["conditions"];
    assert_eq!(conditions["kind"], kind, "{row}");
    for key in ["size", "in_flight", "nodes", "seconds"] {
        assert!(conditions[key].as_u64().unwrap() > 0, "{key} in {row}");
    }
}

#[test]
fn what_cannot_be_measured_exits_2_with_one_line() {
    for (args, parts) in [
        (&["multicast", "--node", "z"][..], ["--node", "a, b, m1"]),
        (&["web", "--cluster", "client.toml"], ["--cluster", "a cluster of its own"]),
        (&["everything"], ["everything", "try"]),
        (&["commands", "--seconds", "0"], ["--seconds", "0"]),
        (&["commands", "--clients", "0"], ["--clients", "0"]),
        (&["commands", "--size", "2MiB"], ["--size", "out of range"]),
        (&["commands", "--size", "big"], ["--size", "64KiB"]),
        (&["commands", "--durability", "disk"], ["fsync", "memory"]),
        (&["commands", "--cluster", "c.toml", "--durability", "fsync"], ["--cluster", "cannot"]),
        (&["commands", "--cluster", "/nowhere/client.toml"], ["/nowhere", "cannot"]),
        (&["remote", "--cluster", "client.toml"], ["--cluster", "need no cluster"]),
        (&["local", "--durability", "memory"], ["--durability", "need no cluster"]),
        (&["commands", "--large", "1MiB"], ["--large", "bench web"]),
        (&["web", "--large", "2GiB"], ["--large", "out of range"]),
    ] {
        let (code, out, said) = synod(&[&["bench"], args].concat());
        assert_eq!((code, out.as_str()), (2, ""), "{args:?}: {said}");
        assert!(said.starts_with("synod: ") && said.lines().count() == 1, "{args:?}: {said}");
        for part in parts {
            assert!(said.contains(part), "{part:?} in {said}");
        }
    }
}

#[test]
fn messages_of_a_group_are_measured_until_all_subscribers_have_them() {
    let rows = rows(&["multicast", "--seconds", "1", "--clients", "32"]);
    let [row] = &rows[..] else { panic!("not one row: {rows:?}") };
    check(row, "message-32", "message");
    assert_eq!(row["conditions"]["node"], "a,b,m1", "{row}");
}

#[test]
fn servers_behind_a_cluster_are_measured_beside_nginx_alone() {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let mut folders = std::env::split_paths(&paths).chain(["/usr/sbin".into()]);
    if !folders.any(|folder| folder.join("nginx").exists()) {
        eprintln!("SKIPPED: no nginx on PATH; install Debian's package `nginx-light`");
        return;
    }
    let rows = rows(&["web", "--seconds", "1", "--clients", "4", "--large", "4MiB"]);
    let alone = ["put-nginx", "get-nginx", "put-large-nginx", "get-large-nginx"];
    let names = [
        alone[0],
        "put-ordered",
        alone[1],
        "get-proxy",
        "get-linearizable",
        "get-local",
        alone[2],
        "put-large-proxy",
        "put-large-ordered",
        alone[3],
        "get-large-proxy",
        "get-large-linearizable",
        "put-sam",
        "get-sam",
    ];
    assert_eq!(rows.len(), names.len());
    for (row, name) in rows.iter().zip(names) {
        let (clients, size) = if name.contains("large") { (1, 4 << 20) } else { (4, 1_024) };
        check(row, &format!("{name}-{clients}"), &name[..3]);
        let beside = row["rate_per_limit"].as_f64();
        assert_eq!(beside.is_some(), !alone.contains(&name), "{row}");
        assert_eq!(row["conditions"]["size"], size, "{row}");
        let is_ours = !alone.contains(&name) && !name.ends_with("-proxy");
        let peaks = row["peak_bytes"].as_object();
        assert_eq!(peaks.is_some(), is_ours, "{row}");
        for main in ["a", "b"] {
            assert!(peaks.is_none_or(|peaks| peaks[main].as_u64() > Some(1 << 20)), "{row}");
        }
    }
}

#[test]
fn commands_make_a_cluster_and_write_a_row_for_sets_and_one_for_gets() {
    let rows = rows(&["commands", "--seconds", "1", "--clients", "4"]);
    assert_eq!(rows.len(), 2);
    for (row, kind) in rows.iter().zip(["set", "get"]) {
        check(row, &format!("{kind}-4"), kind);
        let conditions = &row["conditions"];
        assert_eq!(
            (conditions["nodes"].as_u64(), conditions["size"].as_u64()),
            (Some(3), Some(256))
        );
        assert_eq!(
            (&conditions["durability"], &conditions["in_flight"]),
            (&"fsync".into(), &4.into())
        );
        for key in ["disk_sync_us", "quic_rtt_us"] {
            assert!(conditions[key].as_f64().unwrap() > 0.0, "{key} in {row}");
        }
        for key in ["p50_per_sync", "p50_per_rtt"] {
            assert!(row[key].as_f64().unwrap() > 0.0, "{key} in {row}");
        }
    }
    // Both mains write and sync what is set; steps are shared, so no command costs more than one.
    for main in ["a", "b"] {
        let syncs = rows[0]["syncs_per_op"][main].as_f64().unwrap();
        assert!(syncs > 0.0 && syncs < 3.0, "{}", rows[0]);
        assert!(rows[0]["link_bytes_per_op"][main].as_f64().unwrap() > 0.0, "{}", rows[0]);
    }
}

#[test]
fn messages_between_actors_are_measured_beside_their_limits() {
    let [near, far] = ["local", "remote"]
        .map(|what| rows(&[what, "--seconds", "1", "--clients", "8", "--size", "64"]));
    let names = [
        ("actix-tell-64B-8", "actix-tell"),
        ("tell-64B-8", "tell"),
        ("actix-ask-64B-8", "actix-ask"),
        ("ask-64B-8", "ask"),
    ];
    assert_eq!(near.len(), names.len());
    for (row, (name, kind)) in near.iter().zip(names) {
        check(row, name, kind);
        assert_eq!(row["rate_per_limit"].is_number(), !kind.starts_with("actix"), "{row}");
    }
    let names = [
        ("tcp-tell-64B", "tcp-tell"),
        ("quic-tell-64B", "quic-tell"),
        ("tcp-ask-64B-1", "tcp-ask"),
        ("quic-ask-64B-1", "quic-ask"),
        ("tell-64B-8", "tell"),
        ("ask-64B-8", "ask"),
    ];
    assert_eq!(far.len(), names.len());
    for (row, (name, kind)) in far.iter().zip(names) {
        check(row, name, kind);
        assert_eq!(row["conditions"]["nodes"], 2, "{row}");
        assert!(row["cpu_ns_per_op"].as_f64().unwrap() > 0.0, "{row}");
    }
    assert!(far[4]["rate_per_limit"].is_number(), "{}", far[4]);
    assert!(far[5]["p50_per_rtt"].is_number(), "{}", far[5]);
}

/// A running `dev`, killed when dropped.
struct Dev(Child);

impl Drop for Dev {
    fn drop(&mut self) {
        // One that has ended already needs no more.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

#[test]
fn a_cluster_that_runs_is_driven_where_told_and_left_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_synod"));
    command.args(["dev", "--json", "--dir", folder.path().to_str().unwrap()]);
    let mut dev = Dev(command.stdout(Stdio::piped()).spawn().unwrap());
    let mut line = String::new();
    let events = BufReader::new(dev.0.stdout.take().unwrap());
    let mut events = events.take(1 << 20);
    events.read_line(&mut line).unwrap();
    let ready: Value = serde_json::from_str(&line).unwrap();
    let client = ready["client"].as_str().unwrap();
    let size = |resp: &str| {
        let mut stream = TcpStream::connect(resp).unwrap();
        stream.write_all(b"DBSIZE\r\n").unwrap();
        let mut reply = String::new();
        BufReader::new(stream).read_line(&mut reply).unwrap();
        reply
    };
    let resp = ready["nodes"][0]["resp"].as_str().unwrap();
    assert_eq!(size(resp), ":0\r\n");
    let args = ["commands", "--seconds", "1", "--clients", "2", "--cluster", client];
    let rows = rows(&[&args[..], &["--node", "b,a", "--size", "1KiB"]].concat());
    check(&rows[0], "set-2", "set");
    let conditions = &rows[0]["conditions"];
    assert_eq!((&conditions["node"], &conditions["size"]), (&"b,a".into(), &1024.into()));
    assert_eq!(conditions["durability"], "fsync", "as its node files say");
    assert_eq!(size(resp), ":0\r\n", "its keys are gone");
    let (code, _, said) = synod(&["bench", "commands", "--cluster", client, "--node", "x"]);
    assert_eq!((code, said.contains("x serves no Redis clients")), (2, true), "{said}");
}
