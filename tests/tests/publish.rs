//! `synod publish` and `synod subscribe`, with real processes: kill -9 of the node that orders, under
//! load, loses nothing and keeps the order.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    io::{BufRead as _, BufReader, Write as _},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use synod_tests::process::{
    child::run,
    cluster::Cluster,
    wait::{now, pause, until},
};

fn client(cluster: &Cluster) -> String {
    cluster.dir().join("client.toml").display().to_string()
}

fn start(cluster: &Cluster, words: &[&str]) -> Child {
    let mut command = Command::new(cluster.program());
    command.args(words).args(["--cluster", &client(cluster)]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap()
}

/// Who orders the group, as any node says.
fn sequencer(cluster: &Cluster) -> String {
    until("somebody orders", || {
        let status = cluster.status("a")?;
        let group = status["groups"].get(0).ok_or("no group")?;
        group["sequencer"].as_str().map(str::to_owned).ok_or_else(|| "nobody".to_owned())
    })
}

/// Goal: every line is committed once, in the order of its publisher, and whoever listens has all of
/// them soon, though the sequencer's node is killed meanwhile.
#[test]
fn nothing_is_lost_when_the_sequencer_is_killed_under_load() {
    let mut cluster = Cluster::dev("synod", &["--members", "1"]);
    let many = LINES.to_string();
    let mut subscriber = start(&cluster, &["subscribe", "news", "--from", "1", "--count", &many]);
    let lines = BufReader::new(subscriber.stdout.take().unwrap()).lines();
    let reader =
        thread::spawn(move || lines.map(|line| (now(), line.unwrap())).collect::<Vec<_>>());
    let mut publisher = start(&cluster, &["publish", "news", "--count-only", "--timeout", "30s"]);
    let mut input = publisher.stdin.take().unwrap();
    let writer = thread::spawn(move || {
        for number in 0..LINES {
            writeln!(input, "line {number}").unwrap();
            // Some seconds of load, so that the kill comes in the midst of it.
            if number % 10 == 0 {
                pause();
            }
        }
    });
    let orders = sequencer(&cluster);
    let started = now();
    until("it is under load", || {
        let status = cluster.status(&orders)?;
        let largest = status["groups"][0]["largest"].as_u64().unwrap_or_default();
        if largest > LINES / 4 { Ok(()) } else { Err(format!("{largest}")) }
    });
    cluster.kill(&[&orders]);
    writer.join().unwrap();
    let output = publisher.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), many);
    assert!(subscriber.wait().unwrap().success());
    let heard = reader.join().unwrap();
    let pause = heard.windows(2).map(|two| two[1].0.since(two[0].0)).max().unwrap();
    println!("killed {orders} after {:?}; longest pause {pause:?}", now().since(started));
    let mut payloads = Vec::new();
    for (index, (_, line)) in heard.iter().enumerate() {
        let fields: Vec<_> = line.splitn(3, '\t').collect();
        assert_eq!(fields[0], (index + 1).to_string(), "numbers rise by one");
        if fields[1] != "-" {
            payloads.push(fields[2].to_owned());
        }
    }
    let expected: Vec<_> = (0..LINES).map(|number| format!("line {number}")).collect();
    assert_eq!(payloads, expected);
    assert!(pause < PAUSE_MAX, "{pause:?}");
    let (code, out, said) =
        run(cluster.program(), &["multicast", "status", "--json", "--cluster", &client(&cluster)]);
    assert_eq!(code, 0, "{said}");
    assert!(out.contains("\"group\":\"news\""), "{out}");
}

/// Lines of the publisher.
const LINES: u64 = 2_000;

/// The lease of half a second, noticing that the node is gone, and a busy machine.
const PAUSE_MAX: Duration = Duration::from_secs(3);
