//! Nodes added and removed on real processes, from the command line, while clients write.

use std::time::Duration;

use serde_json::{Value, json};
use synod_tests::process::{
    child::run,
    cluster::{Cluster, mains_of},
    load::{KvWriter, Load, Verdict},
    machine::{alone, shared},
    wait::now,
};

/// `synod members ARGS`: exit code and standard error.
fn members(synod: &Cluster, args: &[&str]) -> (i32, String) {
    let client = synod.dir().join("client.toml").display().to_string();
    let words = [&["members"], args, &["--cluster", &client]].concat();
    let (code, _, error) = run(synod.program(), &words);
    (code, error)
}

/// Makes a node's directory, tells the cluster, starts the node.
fn add(synod: &mut Cluster, name: &str, role: &str) {
    synod.init_add(name, role);
    let quic = synod.node(name).quic.to_string();
    let (code, error) = members(synod, &["add", name, "--role", role, "--quic", &quic]);
    assert_eq!(code, 0, "{error}");
    synod.wait_status("a", "it joins", |status| {
        let nodes = status["nodes"].as_array().map_or(&[][..], Vec::as_slice);
        nodes.iter().any(|node| node["name"] == name && node["state"] == "joining")
    });
    synod.start_node(name);
}

/// Goal: under load a main is added, serves, and another is removed; an auxiliary is replaced; no
/// write has an unknown outcome; a removed node ends by itself and is not started again.
#[test]
fn mains_and_auxiliaries_come_and_go_under_load() {
    let _machine = alone();
    let mut synod = Cluster::dev("synod", &[]);
    let load = Load::start(&synod.resps(), KvWriter::connect, 4);
    load.wait_for_more(200);

    add(&mut synod, "c", "main");
    synod.wait_status("a", "c counts", |status| mains_of(status) == ["a", "b", "c"]);
    synod.wait_ready("c");
    add(&mut synod, "y", "auxiliary");
    let both = json!(["x", "y"]);
    synod.wait_status("c", "y counts", |status| status["auxiliaries"] == both);
    load.wait_for_more(200);

    for gone in ["b", "x"] {
        let (code, error) = members(&synod, &["remove", gone]);
        assert_eq!(code, 0, "{error}");
        let ended = synod.event("exited", |event| event["name"] == gone);
        assert_eq!(ended["status"], "exit 0", "{ended}");
        let log = std::fs::read_to_string(synod.log(gone)).unwrap_or_default();
        assert!(log.contains("was removed from cluster"), "{log}");
    }
    let status = synod.wait_status("c", "two are gone", |status| mains_of(status) == ["a", "c"]);
    assert_eq!(status["auxiliaries"], json!(["y"]), "{status}");
    let shown = |status: &Value, name: &str| {
        let nodes = status["nodes"].as_array().map_or(&[][..], Vec::as_slice);
        let node = nodes.iter().find(|node| node["name"] == name);
        node.map(|node| (node["role"].clone(), node["state"].clone()))
    };
    assert_eq!(shown(&status, "b"), Some((json!("main"), json!("removed"))), "{status}");
    assert_eq!(shown(&status, "x"), Some((json!("auxiliary"), json!("removed"))), "{status}");
    let (code, error) = members(&synod, &["remove", "nobody"]);
    assert!(code == 1 && error.contains("no node is called nobody"), "{code} {error}");
    let never = ["add", "z", "--role", "member", "--quic", "127.0.0.1:9"];
    for words in [&never[..], &["remove", "z"]] {
        let (code, error) = members(&synod, words);
        assert_eq!(code, 0, "{words:?}, and nobody ever saw it: {error}");
    }
    let (code, error) = members(&synod, &["add", "c", "--role", "auxiliary", "--quic", "h:1"]);
    assert!(code == 1 && error.contains("there already, as main"), "{code} {error}");
    let at = synod.node("c").quic.to_string();
    let (code, error) = members(&synod, &["add", "c", "--role", "main", "--quic", &at]);
    assert_eq!(code, 0, "it is as it is wanted: {error}");
    let (code, error) = members(&synod, &["add", "c", "--role", "main", "--quic", "h:1"]);
    let there = format!("there already, at {at}");
    assert!(code == 1 && error.contains(&there), "{code} {error}");
    let (code, error) = members(&synod, &["add", "a", "--role", "main", "--quic", "h:1"]);
    let there = format!("there already, at {}", synod.node("a").quic);
    assert!(code == 1 && error.contains(&there), "a founder has its place too: {code} {error}");
    // Another of a name that was removed is waited for like one that never was there.
    let at = synod.node("b").quic.to_string();
    let (code, error) = members(&synod, &["add", "b", "--role", "member", "--quic", &at]);
    assert_eq!(code, 0, "{error}");
    synod.wait_status("c", "another b joins", |status| {
        shown(status, "b") == Some((json!("member"), json!("joining")))
    });
    let (out, add) = (synod.dir().display().to_string(), format!("d={}", synod.node("a").quic));
    let words = ["init", "--out", &out, "--add", &add, "--role", "member"];
    let (code, _, error) = run(synod.program(), &words);
    assert!(code == 0 && error.contains("is a's too; remove a before d runs"), "{code} {error}");
    load.wait_for_more(200);

    let book = load.finish();
    println!("members: {book}");
    for name in ["a", "c"] {
        book.check_kv(synod.node(name).resp.expect("mains serve clients"));
    }
    let unknown = book.entries.iter().filter(|e| matches!(e.verdict, Verdict::Unknown(_))).count();
    assert_eq!(unknown, 0, "{book}");
}

/// What `members` changes, and who is what afterwards.
struct Road {
    synod: Cluster,
}

impl Road {
    fn joined(&mut self, name: &str, role: &str) {
        add(&mut self.synod, name, role);
    }

    fn told(&self, words: &[&str]) {
        let (code, error) = members(&self.synod, words);
        assert_eq!(code, 0, "{words:?}: {error}");
    }

    /// Waits until the cluster is exactly that, with every node up.
    fn is(&self, mains: &[&str], auxiliaries: &[&str]) {
        let at = mains[0];
        self.synod.wait_status(at, &format!("{mains:?} and {auxiliaries:?}"), |status| {
            let nodes = status["nodes"].as_array().map_or(&[][..], Vec::as_slice);
            let counts = |name: &str| nodes.iter().any(|n| n["name"] == name && n["state"] == "up");
            mains_of(status) == mains
                && status["auxiliaries"] == json!(auxiliaries)
                && mains.iter().chain(auxiliaries).all(|name| counts(name))
        });
        mains.iter().for_each(|main| self.synod.wait_ready(main));
    }
}

/// Goal: the whole road under load, from one main to 3+2 and 3+0 and back to one main, which is
/// another; an auxiliary that is gone for ever is replaced, a member becomes a main, a main a member.
/// Every number is written once, no outcome is unknown, and nobody waits long.
#[test]
fn the_whole_road_from_one_main_to_five_nodes_and_back() {
    let _machine = shared();
    let begun = now();
    let synod = Cluster::dev("synod", &["--mains", "1", "--members", "1", "--no-restart"]);
    let resp = |synod: &Cluster, name: &str| synod.node(name).resp.expect("it serves clients");
    // By way of the node that stays to the end, and of the one that is removed last.
    let load = Load::start(&[resp(&synod, "m1"), resp(&synod, "a")], KvWriter::connect, 4);
    let mut road = Road { synod };
    load.wait_for_more(100);
    let (code, error) = members(&road.synod, &["set", "a", "--role", "member"]);
    assert!(code == 1 && error.contains("a is the last main"), "{code} {error}");

    road.joined("x", "auxiliary");
    road.is(&["a"], &["x"]);
    road.told(&["set", "m1", "--role", "main"]);
    road.is(&["a", "m1"], &["x"]);
    load.wait_for_more(100);
    // Gone for ever: the mains agree without it.
    road.synod.kill(&["x"]);
    road.told(&["remove", "x"]);
    road.joined("z", "auxiliary");
    road.is(&["a", "m1"], &["z"]);
    road.joined("y", "auxiliary");
    road.joined("c", "main");
    road.is(&["a", "c", "m1"], &["z", "y"]);
    load.wait_for_more(100);
    let (code, error) = members(&road.synod, &["set", "y", "--role", "main"]);
    assert!(code == 1 && error.contains("y is an auxiliary"), "{code} {error}");

    road.told(&["remove", "z"]);
    road.told(&["remove", "y"]);
    road.is(&["a", "c", "m1"], &[]);
    load.wait_for_more(100);
    road.told(&["set", "c", "--role", "member"]);
    road.is(&["a", "m1"], &[]);
    let status = road.synod.status("a").expect("it answers");
    let c = status["nodes"].as_array().and_then(|all| all.iter().find(|n| n["name"] == "c"));
    assert_eq!(c.map(|c| (&c["role"], &c["state"])), Some((&"member".into(), &"up".into())));
    road.told(&["remove", "a"]);
    road.is(&["m1"], &[]);
    load.wait_for_more(100);

    let book = load.finish();
    println!("the whole road in {:?}: {book}", now().since(begun));
    book.check_kv(resp(&road.synod, "m1"));
    book.check_kv(resp(&road.synod, "c")); // a member answers too
    let unknown = book.entries.iter().filter(|e| matches!(e.verdict, Verdict::Unknown(_))).count();
    assert_eq!(unknown, 0, "{book}");
    assert!(book.longest_gap() < PAUSE_MAX, "{book}");
}

/// The promise is 300 ms; the rest is for machines that do much else meanwhile.
const PAUSE_MAX: Duration = Duration::from_millis(1_000);

/// Goal: whatever an operator wants changed, a cluster without a quorum says *not applied* (exit 3)
/// within the time that was given, however short it is.
#[test]
fn without_a_quorum_every_change_is_refused_in_time_and_not_unknown() {
    let _machine = shared();
    let mut synod = Cluster::dev("synod", &["--members", "1", "--no-restart"]);
    let client = synod.dir().join("client.toml").display().to_string();
    let (leader, follower) = synod.leader_and_follower();
    synod.kill(&[&follower, "x"]);
    synod.wait_status(&leader, "it is alone", |status| !status["halted"].is_null());
    let verbs: [(&str, &[&str], &[&str]); 9] = [
        ("members", &["add", "m2", "--role", "member", "--quic", "127.0.0.1:9"], &[]),
        ("members", &["remove", &follower], &[]),
        ("members", &["set", "m1", "--role", "main"], &[]),
        ("services", &["add", "s"], &["--", "true"]),
        ("services", &["move", "s", &leader], &[]),
        ("services", &["freeze", "s"], &[]),
        ("roles", &["add", "r"], &[]),
        ("roles", &["remove", "r"], &[]),
        ("call", &["kv", "kv.put", r#"{"key":"k","value":"v"}"#], &[]),
    ];
    for (verb, words, last) in verbs {
        let common = ["--cluster", &client, "--timeout", "1s"];
        let started = now();
        let (code, _, error) = run(synod.program(), &[&[verb], words, &common, last].concat());
        assert_eq!(code, 3, "{verb} {words:?}: {error}");
        assert!(error.contains("not applied"), "{verb} {words:?}: {error}");
        assert!(now().since(started) < IN_TIME, "{verb} {words:?} took {:?}", now().since(started));
    }
}

/// What was given, and what a node may add to it for its verdict to arrive; twice, for a machine with
/// other things to do.
const IN_TIME: Duration = Duration::from_secs(3);
