//! Programs outside the cluster: exactly once while nodes are killed, and state as files.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use actix::{Actor, Handler, Message};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use synod::{
    Client,
    message::RemoteMessage,
    replicated::{CallError, Query, Replicated, Turn},
};
use synod_tests::process::{
    child::run,
    cluster::Cluster,
    machine::shared,
    resp::{Reply, Resp},
    wait::{now, until},
};

/// As the program `counter` has it: a client needs only the wire names.
#[derive(Default, Serialize, Deserialize, Replicated)]
#[replicated(name = "counter", commands(Add), queries(Total))]
struct Counter {}

#[derive(Message, Serialize, Deserialize, RemoteMessage)]
#[rtype(result = "u64")]
#[remote(name = "counter.add")]
struct Add {
    by: u64,
}

#[derive(Message, Serialize, Deserialize, RemoteMessage)]
#[rtype(result = "(u64, u64)")]
#[remote(name = "counter.total")]
struct Total;

impl Actor for Counter {
    type Context = Turn;
}

impl Handler<Add> for Counter {
    type Result = u64;

    fn handle(&mut self, _: Add, _: &mut Turn) -> u64 {
        unreachable!("it is executed elsewhere")
    }
}

impl Query<Total> for Counter {
    fn query(&self, _: Total) -> (u64, u64) {
        unreachable!("it is answered elsewhere")
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// Goal: each increment once. Method: three clients, each with a session of its own, count on while
/// the mains are killed in turn; whatever is answered is a number nobody else got, and the total at
/// the end is their count.
#[test]
fn increments_of_clients_outside_are_executed_once_while_mains_are_killed() {
    let _machine = shared();
    let mut cluster = Cluster::dev("counter", &[]);
    let file = cluster.dir().join("client.toml");
    let (acknowledged, stop) = (AtomicU64::new(0), AtomicU64::new(0));
    let answers = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..3)
            .map(|_| scope.spawn(|| block_on(count_on(&file, &acknowledged, &stop))))
            .collect();
        let more = |count: u64| {
            let wanted = acknowledged.load(Ordering::Relaxed) + count;
            until("more increments", || match acknowledged.load(Ordering::Relaxed) {
                now if now >= wanted => Ok(()),
                now => Err(format!("{now} of {wanted}")),
            });
        };
        more(30);
        for name in ["a", "b", "a", "b"] {
            cluster.signal("KILL", &[name]);
            more(30);
            cluster.wait_restarted(name);
            cluster.wait_ready(name);
        }
        stop.store(1, Ordering::Relaxed);
        clients.into_iter().flat_map(|client| client.join().unwrap()).collect::<Vec<u64>>()
    });
    let mut sorted = answers.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, (1..=answers.len() as u64).collect::<Vec<_>>(), "each number once");
    let total = block_on(async {
        let client = Client::connect(&file).await.unwrap();
        client.handle::<Counter>("counter").query(Total).await.unwrap().0
    });
    assert_eq!(total, answers.len() as u64);
    println!("{total} increments, each once, over four kills");
    cluster.stop();
}

/// Counts by one until told to stop; answers every total it was told.
async fn count_on(file: &Path, acknowledged: &AtomicU64, stop: &AtomicU64) -> Vec<u64> {
    let client = Client::connect(file).await.unwrap();
    let counter = client.handle::<Counter>("counter");
    let mut answers = Vec::new();
    while stop.load(Ordering::Relaxed) == 0 {
        answers.push(counter.send(Add { by: 1 }).timeout(PATIENCE).await.unwrap());
        acknowledged.fetch_add(1, Ordering::Relaxed);
    }
    answers
}

#[test]
fn a_client_outside_is_told_what_cannot_be_done_and_why() {
    let _machine = shared();
    let mut cluster = Cluster::dev("counter", &[]);
    let file = cluster.dir().join("client.toml");
    block_on(async {
        let missing = Client::connect("no-such-file.toml").await.unwrap_err().to_string();
        assert!(missing.contains("no-such-file.toml"), "{missing}");
        let client = Client::connect(&file).await.unwrap();
        // Another program's actor must not get into the log, where it would halt the replicas.
        let other = client.handle::<Counter>("bank").send(Add { by: 1 }).await;
        assert!(matches!(&other, Err(CallError::NotApplied(why)) if why.text.contains("no such")));
        let counter = client.handle::<Counter>("counter");
        let key = || synod::replicated::IdempotencyKey::new("order 66").unwrap();
        let first = counter.send(Add { by: 3 }).idempotency(key()).await;
        let again = counter.send(Add { by: 3 }).idempotency(key()).await;
        assert_eq!((first, again), (Ok(3), Ok(3)));
        // Many at once keep their order and share their requests.
        let mut calls = tokio::task::JoinSet::new();
        for _ in 0..1_500 {
            let call = counter.send(Add { by: 1 }).timeout(PATIENCE);
            calls.spawn(call);
        }
        let mut totals: Vec<u64> = calls.join_all().await.into_iter().map(Result::unwrap).collect();
        totals.sort_unstable();
        assert_eq!(totals, (4..=1_503).collect::<Vec<_>>());
        cluster.crash();
        let call = counter.send(Add { by: 1 }).timeout(Duration::from_millis(500)).await;
        // The connection was there a moment ago, so the request may have got away.
        assert!(matches!(call, Err(CallError::NotApplied(_) | CallError::Unknown(_))), "{call:?}");
    });
    let nobody = block_on(Client::connect(&file)).unwrap_err().to_string();
    assert!(nobody.starts_with("nobody serves"), "{nobody}");
}

/// Runs a verb of `synod` for a cluster; its document.
fn verb(cluster: &Cluster, words: &[&str]) -> (i32, Value, String) {
    let file = cluster.dir().join("client.toml").display().to_string();
    let args = [words, &["--json", "--cluster", &file]].concat();
    let (code, out, error) = run(cluster.program(), &args);
    (
        code,
        out.lines().next().and_then(|line| serde_json::from_str(line).ok()).unwrap_or_default(),
        error,
    )
}

fn get(cluster: &Cluster, node: &str, key: &str) -> Reply {
    let mut resp = Resp::connect(cluster.node(node).resp.unwrap(), PATIENCE).unwrap();
    resp.call(&[b"GET", key.as_bytes()]).unwrap()
}

fn set(cluster: &Cluster, key: &str, value: &str) {
    let mut resp = Resp::connect(cluster.node("a").resp.unwrap(), PATIENCE).unwrap();
    resp.call(&[b"SET", key.as_bytes(), value.as_bytes()]).unwrap();
}

/// Goal: what was backed up comes back, in the same cluster and in a new one, and nothing damaged
/// does. Method: a value beyond one piece, a key that is changed and one that is made later.
#[test]
fn a_backup_is_restored_whole_or_refused() {
    let _machine = shared();
    let mut cluster = Cluster::dev("synod", &[]);
    let big = "x".repeat(900_000);
    for n in 0..4 {
        set(&cluster, &format!("big{n}"), &big);
    }
    set(&cluster, "key", "old");
    let file: PathBuf = cluster.dir().join("state.backup");
    let shown = file.display().to_string();
    let (code, saved, error) = verb(&cluster, &["backup", &shown]);
    assert_eq!(code, 0, "{error}");
    assert!(saved["position"].as_u64().unwrap() > 5 && saved["sha256"].is_string(), "{saved}");
    set(&cluster, "key", "new");
    set(&cluster, "later", "1");
    let (code, restored, error) = verb(&cluster, &["restore", &shown]);
    assert_eq!((code, &restored["sha256"]), (0, &saved["sha256"]), "{error}");
    assert!(restored["now"].as_u64() > saved["position"].as_u64());
    for node in ["a", "b"] {
        assert_eq!(get(&cluster, node, "key"), Reply::Bulk(b"old".to_vec()));
        assert_eq!(get(&cluster, node, "later"), Reply::Nil);
        assert_eq!(get(&cluster, node, "big3"), Reply::Bulk(big.clone().into_bytes()));
    }
    // A node that was away takes it over too, and both go on equal.
    cluster.kill(&["b"]);
    let (code, ..) = verb(&cluster, &["restore", &shown]);
    assert_eq!(code, 0);
    cluster.wait_restarted("b");
    cluster.wait_ready("b");
    assert_eq!(get(&cluster, "b", "key"), Reply::Bulk(b"old".to_vec()));
    // The first node of the client file hangs: it costs a part of `--timeout`, not a minute.
    cluster.signal("STOP", &["a"]);
    let started = now();
    let (code, _, error) = verb(&cluster, &["restore", &shown]);
    let took = now().since(started);
    cluster.signal("CONT", &["a"]);
    assert!(code == 0 && took < PATIENCE, "{code} after {took:?}: {error}");
    cluster.wait_ready("a");

    let mut damaged = fs::read(&file).unwrap();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    let bad = cluster.dir().join("damaged.backup").display().to_string();
    fs::write(&bad, damaged).unwrap();
    let (code, _, error) = verb(&cluster, &["restore", &bad]);
    assert!(code == 1 && error.contains("digest"), "{code} {error}");
    let (code, _, error) = verb(&cluster, &["restore", "no-such-file"]);
    assert!(code == 2 && error.contains("no-such-file"), "{code} {error}");
    check_inspect(&cluster, &shown);
    cluster.stop();
    check_recover(&cluster, &big);
}

fn check_inspect(cluster: &Cluster, file: &str) {
    let (code, out, error) = run(cluster.program(), &["inspect", "--json", file]);
    assert_eq!(code, 0, "{error}");
    let document: Value = serde_json::from_str(out.trim()).unwrap();
    assert_eq!(
        (&document["kind"], &document["actors"][0]["name"]),
        (&json!("backup"), &json!("kv"))
    );
}

/// The cluster is gone, but for the disk of one main: a new cluster begins with all of it.
fn check_recover(lost: &Cluster, big: &str) {
    let program = lost.program();
    let from = lost.dir().join("a").display().to_string();
    let (code, out, error) = run(program, &["inspect", "--json", &from]);
    assert_eq!(code, 0, "{error}");
    let kinds: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(kinds.iter().any(|line| line["record"] == "vote" && line["step"].is_u64()), "{out}");

    let folder = tempfile::tempdir().unwrap();
    let out_dir = folder.path().join("recovered").display().to_string();
    let (code, _, error) = run(program, &["recover", "--from", &from, "--out", &out_dir]);
    assert!(code == 2 && error.contains("--force-new-cluster"), "{code} {error}");
    let cheap = lost.dir().join("x").display().to_string();
    let words = ["recover", "--force-new-cluster", "--from", &cheap, "--out", &out_dir];
    let (code, _, error) = run(program, &words);
    assert!(code == 2 && error.contains("auxiliary"), "{code} {error}");
    let words = ["recover", "--force-new-cluster", "--json", "--from", &from, "--out", &out_dir];
    let (code, out, error) = run(program, &words);
    assert_eq!(code, 0, "{error}");
    assert!(error.contains("FORCED RECOVERY") && error.contains("LOST"), "{error}");
    let document: Value = serde_json::from_str(out.trim()).unwrap();
    assert_ne!(document["cluster"], document["from_cluster"]);
    assert!(document["position"].as_u64() > document["last_position"].as_u64());

    let mut fresh = Cluster::dev("synod", &["--mains", "1", "--auxiliaries", "0"]);
    let (code, restored, error) = verb(&fresh, &["restore", document["file"].as_str().unwrap()]);
    assert_eq!(code, 0, "{error}");
    assert!(restored["now"].as_u64() >= document["position"].as_u64());
    assert_eq!(get(&fresh, "a", "key"), Reply::Bulk(b"old".to_vec()));
    assert_eq!(get(&fresh, "a", "big0"), Reply::Bulk(big.as_bytes().to_vec()));
    fresh.stop();
}

#[test]
fn keys_expire_and_their_time_passes_in_a_cluster_where_nothing_happens() {
    let _machine = shared();
    let mut cluster = Cluster::dev("synod", &[]);
    let mut resp = Resp::connect(cluster.node("a").resp.unwrap(), PATIENCE).unwrap();
    resp.call(&[b"SET", b"brief", b"1", b"PX", b"700"]).unwrap();
    resp.call(&[b"SET", b"long", b"1", b"EX", b"100"]).unwrap();
    assert_eq!(get(&cluster, "b", "brief"), Reply::Bulk(b"1".to_vec()));
    for node in ["a", "b"] {
        until("the key to be gone", || match get(&cluster, node, "brief") {
            Reply::Nil => Ok(()),
            other => Err(format!("{other:?}")),
        });
    }
    until("its time to pass", || match resp.call(&[b"PTTL", b"long"]) {
        Ok(Reply::Integer(left)) if (90_000..99_000).contains(&left) => Ok(()),
        other => Err(format!("{other:?}")),
    });
    cluster.stop();
}

/// Longer than a fail-over and a restart on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(30);
