//! `synod dev`: real processes, started, killed, started again and stopped.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
};

use serde_json::Value;

/// A running `dev` and the events it tells. Killed when dropped, so that a failed test leaves
/// nothing behind.
struct Dev {
    process: Child,
    events: BufReader<ChildStdout>,
}

impl Dev {
    fn start(args: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_synod"));
        command.arg("dev").arg("--json").args(args).stdout(Stdio::piped());
        let mut process = command.spawn().unwrap();
        let events = BufReader::new(process.stdout.take().unwrap());
        Self { process, events }
    }

    /// The next event, which must be `kind`; waits for it.
    fn event(&mut self, kind: &str) -> Value {
        let mut line = String::new();
        self.events.read_line(&mut line).unwrap();
        let event: Value = serde_json::from_str(&line).expect("an event a line");
        assert_eq!(event["event"], kind, "{line}");
        event
    }

    fn signal(&self, signal: &str) {
        kill(signal, self.process.id().into());
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        // One that has ended already needs no more.
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

fn kill(signal: &str, pid: u64) {
    let status = Command::new("kill").arg(signal).arg(pid.to_string()).status();
    assert!(status.unwrap().success(), "kill {signal} {pid}");
}

fn pids(ready: &Value) -> Vec<u64> {
    let nodes = ready["nodes"].as_array().unwrap();
    nodes.iter().map(|node| node["pid"].as_u64().unwrap()).collect()
}

fn names(ready: &Value) -> Vec<&str> {
    let nodes = ready["nodes"].as_array().unwrap();
    nodes.iter().map(|node| node["name"].as_str().unwrap()).collect()
}

/// Waits until the kernel has no such process (a zombie counts as gone).
fn wait_gone(pid: u64) {
    loop {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        if status.is_empty() || status.contains("State:\tZ") {
            return;
        }
        std::thread::yield_now();
    }
}

#[test]
fn a_dead_node_is_started_again_and_a_signal_stops_all() {
    let mut dev = Dev::start(&[]);
    let ready = dev.event("ready");
    assert_eq!(names(&ready), ["a", "b", "x"]);
    let dir = ready["dir"].as_str().unwrap();
    assert!(Path::new(ready["client"].as_str().unwrap()).exists());
    let victim = pids(&ready)[0];
    kill("-9", victim);
    let exited = dev.event("exited");
    assert_eq!((exited["name"].as_str(), exited["pid"].as_u64()), (Some("a"), Some(victim)));
    assert_eq!(exited["status"], "signal 9");
    assert_eq!(dev.event("restarted")["name"], "a");
    dev.signal("-TERM");
    for _ in 0..3 {
        dev.event("exited");
    }
    assert!(dev.process.wait().unwrap().success());
    pids(&ready).into_iter().for_each(wait_gone);
    assert!(!Path::new(dir).exists(), "a temporary directory is removed");
}

#[test]
fn a_kept_cluster_resumes_on_its_ports_and_has_one_owner() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("demo");
    let args = ["--mains", "1", "--dir", dir.to_str().unwrap()];
    let mut first = Dev::start(&args);
    let ready = first.event("ready");
    let second = Command::new(env!("CARGO_BIN_EXE_synod")).arg("dev").args(args).output().unwrap();
    let said = String::from_utf8(second.stderr).unwrap();
    assert_eq!(second.status.code(), Some(2), "{said}");
    assert!(said.contains(&format!("process {}", first.process.id())), "{said}");
    first.signal("-INT");
    first.event("exited");
    assert!(first.process.wait().unwrap().success());
    let again = Dev::start(&args).event("ready");
    assert_eq!(again["nodes"][0]["http"], ready["nodes"][0]["http"]);
    assert_eq!(again["nodes"][0]["quic"], ready["nodes"][0]["quic"]);
}

#[test]
fn nodes_die_with_a_killed_dev() {
    let folder = tempfile::tempdir().unwrap();
    let mut dev = Dev::start(&["--dir", folder.path().to_str().unwrap()]);
    let ready = dev.event("ready");
    dev.signal("-9");
    pids(&ready).into_iter().for_each(wait_gone);
}

#[test]
fn without_restarts_the_end_of_the_last_node_is_the_end() {
    let mut dev = Dev::start(&["--mains", "1", "--no-restart"]);
    let ready = dev.event("ready");
    kill("-9", pids(&ready)[0]);
    assert_eq!(dev.event("exited")["status"], "signal 9");
    assert_eq!(dev.process.wait().unwrap().code(), Some(1));
}
