//! A cluster without failures: how it starts, what it answers, how it stops, and that its auxiliary
//! sleeps.

use std::time::Duration;

use serde_json::{Value, json};
use synod_tests::process::{
    child::run,
    cluster::{Cluster, mains_of},
    http::{Answer, Http},
    load::{KvWriter, Load},
    machine::{alone, written_bytes},
    programs::program,
    stalls::unchanged_by,
    wait::{now, until},
};

/// A move of money as `POST /actors` takes it.
fn transfer(http: &mut Http, headers: &[(&str, &str)], from: &str, amount: i64) -> Answer {
    let body = json!({"from": from, "to": "shop", "amount": amount}).to_string();
    let path = "/actors/ledger/ledger.transfer";
    http.request("POST", path, headers, body.as_bytes()).expect("an answer")
}

#[test]
fn a_user_s_own_actor_is_served_by_every_main_as_the_contract_says() {
    let _machine = alone();
    program("bank"); // may have to be built first
    let started = now();
    let mut bank = Cluster::dev("bank", &[]);
    let took = now().since(started);
    println!("ready after {} ms", took.as_millis());
    assert!(took < READY_MAX, "ready after {took:?}");
    let (mut a, mut b) = (bank.http("a"), bank.http("b"));
    assert_eq!(transfer(&mut a, &[], "eve", 5).json(), json!({"Ok": -5}));
    let second = transfer(&mut b, &[], "eve", 7);
    assert_eq!(second.json(), json!({"Ok": -12}), "both mains serve one ledger");
    let position: u64 =
        second.header("synod-position").expect("a place in the log").parse().unwrap();
    assert!(position >= 2);
    let refused = transfer(&mut a, &[], "eve", 1_000);
    assert_eq!((refused.status, &refused.json()["Err"]["Overdrawn"]["has"]), (200, &json!(-12)));

    check_errors(&mut a);
    check_where_nothing_is(&bank);
    check_status(&bank);
    check_registry(&mut a);
    for name in ["a", "b", "x"] {
        check_metrics(&bank.http(name).get("/metrics").unwrap().text());
        let mut node = bank.http(name);
        let head = node.request("HEAD", "/healthz", &[], b"").unwrap();
        let whole = node.get("/healthz").unwrap();
        assert_eq!((head.status, whole.status, &*whole.body), (200, 200, &b"alive\n"[..]));
        assert_eq!(head.header("content-length"), Some("6"));
    }
    check_client_verbs(&bank);
    check_idempotency(&mut a, &mut b);

    let started = now();
    bank.stop();
    println!("stopped after {} ms", now().since(started).as_millis());
}

fn check_where_nothing_is(bank: &Cluster) {
    for (name, says) in [("a", "there is no GET of /actor/ledger"), ("x", "only votes")] {
        let answer = bank.http(name).get("/actor/ledger").unwrap();
        let said = answer.json();
        assert!(answer.status == 404 && said["error"].as_str().unwrap().contains(says), "{said}");
        assert_eq!(said["outcome"], "not_applied");
    }
    let nobody = bank.http("a").request("DELETE", "/roles/r/lease", &[], b"").unwrap();
    let said = nobody.json();
    assert!(nobody.status == 400 && said["error"].as_str().unwrap().contains("holder"), "{said}");
    assert_eq!(said["outcome"], "not_applied");
    let soon = bank.http("a").request("GET", "/roles", &[("synod-timeout", "soon")], b"").unwrap();
    assert!(soon.status == 400 && soon.text().contains("Synod-Timeout"), "{}", soon.text());
}

fn check_errors(http: &mut Http) {
    let mut status = |path: &str, body: &[u8]| {
        let answer = http.request("POST", path, &[], body).expect("an answer");
        assert_eq!(answer.json()["outcome"], "not_applied", "{path}: {}", answer.text());
        answer.status
    };
    assert_eq!(status("/actors/nobody/ledger.transfer", b"{}"), 404);
    assert_eq!(status("/actors/ledger/ledger.tranfser", b"{}"), 404);
    assert_eq!(status("/actors/ledger/ledger.transfer", b"{\"from\":\"a\"}"), 400);
    assert_eq!(status("/actors/ledger/ledger.transfer", b"not json"), 400);
}

fn check_status(bank: &Cluster) {
    for (name, _) in bank.nodes() {
        let status = bank.wait_status(name, "everybody up", |status| {
            let nodes = status["nodes"].as_array().map_or(&[][..], Vec::as_slice);
            let everybody = nodes.len() == 3 && nodes.iter().all(|node| node["state"] == "up");
            everybody && status["leader"].is_string()
        });
        assert_eq!(status["answered_by"], name);
        assert_eq!(mains_of(&status), ["a", "b"]);
        assert_eq!(status["auxiliaries"], json!(["x"]));
        assert_eq!(status["halted"], Value::Null, "{status}");
        assert!(["a", "b"].contains(&status["leader"].as_str().unwrap_or_default()), "{status}");
        assert!(
            status["ballot"].is_string() && status["epoch"].is_u64() && status["view"].is_u64()
        );
        for list in ["roles", "services", "groups", "web"] {
            assert!(status[list].is_array(), "{list}: {status}");
        }
        for node in status["nodes"].as_array().unwrap() {
            for key in
                ["name", "role", "state", "incarnation", "executed", "durable", "lag", "version"]
            {
                assert!(node.get(key).is_some(), "{key}: {node}");
            }
        }
    }
}

fn check_registry(http: &mut Http) {
    until("every role of every node in the registry", || {
        let registry = http.json("/registry")?;
        let names = registry["names"].as_array().ok_or("no names")?;
        for entry in names {
            for key in ["name", "type", "node", "epoch", "restarts", "mailbox"] {
                if entry.get(key).is_none() {
                    return Err(format!("{key}: {entry}"));
                }
            }
        }
        let has = |role: &str, node: &str| {
            let name = format!("consensus/{role}@{node}");
            names.iter().any(|entry| entry["name"] == name.as_str() && entry["node"] == node)
        };
        let roles = ["acceptor", "proposer", "learner", "replica"];
        let mains = roles.iter().all(|role| has(role, "a") && has(role, "b"));
        if mains && has("auxiliary", "x") { Ok(()) } else { Err(registry.to_string()) }
    });
}

/// Every line belongs to a family that was introduced by HELP and TYPE.
fn check_metrics(text: &str) {
    let introduced = |start: &str, family: &str| {
        text.lines().any(|line| line.starts_with(&format!("# {start} {family} ")))
    };
    let mut families = Vec::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let name = line.split(['{', ' ']).next().unwrap_or_default();
        let family = ["_bucket", "_sum", "_count"]
            .iter()
            .find_map(|end| name.strip_suffix(end).filter(|family| introduced("TYPE", family)))
            .unwrap_or(name);
        assert!(introduced("HELP", family) && introduced("TYPE", family), "{line}");
        families.push(family.to_owned());
    }
    for family in [
        "synod_protocol_messages_received_total",
        "synod_journal_bytes_total",
        "synod_journal_syncs_total",
        "synod_view",
        "synod_link_bytes_total",
        "synod_actor_restarts_total",
    ] {
        assert!(families.iter().any(|one| one == family), "{family} is missing in\n{text}");
    }
    // Of every role from the start: what was never asked has received nothing.
    for role in [
        "acceptor",
        "proposer",
        "learner",
        "register",
        "sequencer",
        "data",
        "commit",
        "checkpoint",
        "monitor",
        "manager",
        "heartbeat",
    ] {
        let counter = format!("synod_protocol_messages_received_total{{role=\"{role}\"}} ");
        assert!(text.contains(&counter), "{counter}is missing in\n{text}");
    }
}

fn check_client_verbs(bank: &Cluster) {
    let client = bank.dir().join("client.toml").display().to_string();
    let verb = |args: &[&str]| run(bank.program(), &[args, &["--cluster", &client]].concat());
    let (code, out, _) = verb(&["status", "--json"]);
    let status: Value = serde_json::from_str(&out).expect("one document");
    assert_eq!((code, &status["cluster"]), (0, &json!("dev")), "{status}");
    let move_it = r#"{"from":"cli","to":"shop","amount":3}"#;
    let (code, out, error) = verb(&["call", "ledger", "ledger.transfer", move_it]);
    assert_eq!((code, out.trim()), (0, r#"{"Ok":-3}"#), "{error}");
    let (code, _, error) = verb(&["call", "ledger", "ledger.nothing", "{}"]);
    assert_eq!(code, 1, "{error}");
    assert!(error.starts_with("bank: ") && error.lines().count() == 1, "{error}");
    let missing = ["call", "ledger", "ledger.nothing", "{}", "--json"];
    for words in [&missing[..], &["members", "set", "z", "--role", "main", "--json"]] {
        let (code, out, error) = verb(words);
        let said: Value = serde_json::from_str(&out).expect("one document");
        assert_eq!((code, &said["outcome"]), (1, &json!("not_applied")), "{said} {error}");
    }
    // Where nobody can be told anything, the exit code still says it.
    let full = std::fs::File::options().write(true).open("/dev/full").expect("Linux has it");
    let status = std::process::Command::new(bank.program())
        .args(["status", "--cluster", "/no/such/file"])
        .stderr(full)
        .status()
        .expect("it runs");
    assert_eq!(status.code(), Some(2));
}

fn check_idempotency(a: &mut Http, b: &mut Http) {
    let key = [("idempotency-key", "order-1")];
    let first = transfer(a, &key, "ida", 10);
    assert_eq!((first.status, first.json()), (200, json!({"Ok": -10})));
    for http in [&mut *a, &mut *b] {
        let again = transfer(http, &key, "ida", 10);
        assert_eq!((again.status, &again.body), (200, &first.body), "the first answer again");
        assert_eq!(again.header("synod-position"), first.header("synod-position"));
        let other = transfer(http, &key, "ida", 11);
        assert_eq!(other.status, 422, "{}", other.text());
        assert_eq!(other.json()["outcome"], "not_applied");
        let fresh = transfer(http, &[], "ida", 1);
        assert_eq!(fresh.status, 200);
    }
    let left = transfer(b, &[], "ida", 1);
    assert_eq!(left.json(), json!({"Ok": -13}), "applied once");

    // A role is removed once: asked again elsewhere, the first answer and not that there is none.
    let mut role = |verb, name, key: &str| {
        let path = format!("/roles/{name}");
        let on = |http: &mut Http| {
            http.request(verb, &path, &[("idempotency-key", key)], b"").expect("an answer").status
        };
        [on(a), on(b)]
    };
    assert_eq!(role("PUT", "night", "role-1"), [200, 200]);
    assert_eq!(role("DELETE", "night", "role-2"), [200, 200]);
    assert_eq!(role("DELETE", "night", "role-3"), [404, 404]);
    assert_eq!(role("PUT", "day", "role-2"), [422, 422], "a key of another request");
}

#[test]
fn without_failures_the_auxiliary_hears_only_signs_of_life_and_writes_nothing() {
    let _machine = alone();
    let mut synod = Cluster::by_hand("synod");
    // A main whose disk stands still for a tenth of a second is as good as silent.
    synod.keep_in_memory(&["a", "b"]);
    ["a", "b", "x"].iter().for_each(|name| synod.start_node(name));
    ["a", "b"].iter().for_each(|name| synod.wait_ready(name));
    let pid = synod.node("x").pid;
    let look = |synod: &Cluster| (counters(synod), written_bytes(pid));
    let what = "what the auxiliary was asked for, and wrote";
    unchanged_by(what, &mut synod, look, |synod, _| {
        let load = Load::start(&synod.resps(), KvWriter::connect, 8);
        load.wait_for_more(2_000);
        let book = load.finish();
        println!("without failures: {book}");
        for at in synod.resps() {
            book.check_kv(at);
        }
    });
}

/// What must stand still at an auxiliary.
fn counters(cluster: &Cluster) -> Vec<String> {
    let text = cluster.http("x").get("/metrics").unwrap().text();
    let counts = |line: &&str| {
        let messages = line.starts_with("synod_protocol_messages_received_total{");
        messages && !line.contains("role=\"heartbeat\"") || line.starts_with("synod_journal_")
    };
    let lines: Vec<String> = text.lines().filter(counts).map(str::to_owned).collect();
    assert!(lines.len() >= 3, "{text}");
    lines
}

/// The contract's time, from the command to `ready`.
const READY_MAX: Duration = Duration::from_secs(5);
