//! Leadership on real processes: named by an operator, and handed on by every orderly stop.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use synod_tests::process::{
    child::run,
    cluster::Cluster,
    http::Http,
    load::{KvWriter, Load, Verdict},
    machine::{alone, shared},
    wait::until,
};

/// Goal: `members lead` moves leadership, is refused for what cannot lead, and says so in one line.
#[test]
fn members_lead_moves_leadership() {
    let _machine = shared();
    let synod = Cluster::dev("synod", &[]);
    let client = synod.dir().join("client.toml").display().to_string();
    let members = |args: &[&str]| {
        run(synod.program(), &[&["members"], args, &["--cluster", &client]].concat())
    };
    let (old, new) = synod.leader_and_follower();
    let (code, _, error) = members(&["lead", &new]);
    assert_eq!(code, 0, "{error}");
    synod.wait_status(&old, "the other leads", |status| status["leader"] == new.as_str());
    let (code, out, _) = members(&["--json"]);
    let document: serde_json::Value = serde_json::from_str(&out).expect("one document");
    assert_eq!((code, document["leader"].as_str()), (0, Some(new.as_str())));
    assert_eq!(document["members"].as_array().map(Vec::len), Some(3), "{document}");
    let (code, _, error) = members(&["lead", "x"]);
    assert_eq!(code, 1, "{error}");
    assert!(error.contains("not applied, x is no main") && error.lines().count() == 1, "{error}");
    assert_eq!(members(&["lead"]).0, 2);
}

/// Goal: a rolling restart of all nodes under load shows no error to clients that go elsewhere when
/// they are told *not applied*. Method: every node in turn gets SIGTERM and is started again; no
/// write may have an unknown outcome, all that was acknowledged is there once.
#[test]
fn a_rolling_restart_shows_no_error() {
    let _machine = alone();
    let mut synod = Cluster::dev("synod", &[]);
    let load = Load::start(&synod.resps(), KvWriter::connect, 8);
    load.wait_for_more(500);
    let (leader, follower) = synod.leader_and_follower();
    for node in [leader.as_str(), &follower, "x"] {
        synod.signal("TERM", &[node]);
        synod.wait_restarted(node);
        synod.wait_ready(node);
        synod.wait_status("a", "all up again", |status| {
            let nodes = status["nodes"].as_array().map_or(&[][..], Vec::as_slice);
            status["mains"].as_array().is_some_and(|mains| mains.len() == 2)
                && status["bridging"] == false
                && nodes.iter().all(|node| node["state"] == "up")
        });
        load.wait_for_more(500);
    }
    let book = load.finish();
    println!("rolling restart: {book}");
    for at in synod.resps() {
        book.check_kv(at);
    }
    let unknown: Vec<_> =
        book.entries.iter().filter(|e| matches!(e.verdict, Verdict::Unknown(_))).collect();
    assert!(unknown.is_empty(), "{unknown:?}");
    assert!(book.longest_gap() < PAUSE_MAX, "{book}");
}

/// Goal: clients of a leader that stops hear what became of their writes, however long its successor
/// takes. Method: the other main stands still while the leader is asked to stop, for longer than a
/// leaving node lingers after its last answer; no write may have an unknown outcome.
#[test]
fn who_stops_answers_its_clients_before_it_hangs_up() {
    let _machine = shared();
    let mut synod = Cluster::dev("synod", &[]);
    let (leader, follower) = synod.leader_and_follower();
    let load = Load::start(&synod.resps(), KvWriter::connect, 8);
    load.wait_for_more(500);
    synod.signal("STOP", &[&follower]);
    synod.signal("TERM", &[&leader]);
    stand_still();
    synod.signal("CONT", &[&follower]);
    synod.wait_restarted(&leader);
    synod.wait_ready(&leader);
    load.wait_for_more(500);
    let book = load.finish();
    for at in synod.resps() {
        book.check_kv(at);
    }
    let told = |is: fn(&Verdict) -> bool| book.entries.iter().filter(|e| is(&e.verdict)).count();
    assert_eq!(told(|verdict| matches!(verdict, Verdict::Unknown(_))), 0, "{book}");
    assert!(
        told(|verdict| matches!(verdict, Verdict::NotApplied(_))) >= 4,
        "half had to go: {book}"
    );
}

/// Goal: a cluster is upgraded from one build to the next by a rolling restart while a client writes:
/// the new command is *not applied* before the last main is upgraded, the version rises by itself, and
/// no number is lost or counted twice. Method: two programs that differ in one command.
#[test]
fn a_rolling_upgrade_with_two_builds() {
    let _machine = alone();
    let mut synod = Cluster::by_hand("counter");
    ["a", "b", "x"].iter().for_each(|node| synod.start_node(node));
    ["a", "b"].iter().for_each(|node| synod.wait_ready(node));
    let call = |http: &mut Http, message: &str, key: &str, body: &str| {
        let headers: &[_] = if key.is_empty() { &[] } else { &[("idempotency-key", key)] };
        let path = format!("/actors/counter/counter.{message}");
        http.request("POST", &path, headers, body.as_bytes())
    };
    let (stop, mains) = (Arc::new(AtomicBool::new(false)), [synod.http("a"), synod.http("b")]);
    let stopped = Arc::clone(&stop);
    let writer = std::thread::spawn(move || {
        let (mut mains, mut at) = (mains, 0);
        for number in 1u64.. {
            // The same key at another node, until it is known to be counted.
            until("a number to be counted", || {
                let answer = call(&mut mains[at % 2], "add", &number.to_string(), r#"{"by":1}"#);
                match answer {
                    Ok(answer) if answer.status == 200 => Ok(()),
                    other => {
                        at += 1;
                        Err(format!("{other:?}"))
                    }
                }
            });
            if stopped.load(Relaxed) {
                return number;
            }
        }
        0
    });
    synod.install("counter-next");
    for (node, last) in [("x", false), ("b", false), ("a", true)] {
        synod.stop_node(node);
        synod.start_node(node);
        synod.wait_ready(node);
        synod.wait_status("b", "all up again", |status| {
            let nodes = status["nodes"].as_array().map_or(&[][..], Vec::as_slice);
            status["mains"].as_array().is_some_and(|mains| mains.len() == 2)
                && nodes.len() == 3
                && nodes.iter().all(|n| n["state"] == "up" && n["version"].is_string())
                && status["version"] == u64::from(last)
        });
        if node == "b" {
            let early = call(&mut synod.http("b"), "double", "", "{}").expect("an answer");
            assert_eq!(early.status, 503, "{}", early.text());
            assert_eq!(early.json()["outcome"], "not_applied", "{}", early.text());
            assert!(early.text().contains("needs cluster version 1"), "{}", early.text());
        }
    }
    stop.store(true, Relaxed);
    let counted = writer.join().expect("the writer was told the truth");
    // The node that came last may hear of the new version a moment later, and refuses until then.
    let doubled = until("the new command to be taken", || {
        let answer = call(&mut synod.http("a"), "double", "", "{}").expect("an answer");
        match answer.json()["outcome"] == "not_applied" {
            true => Err(answer.text()),
            false => Ok(answer),
        }
    });
    assert_eq!((doubled.status, doubled.json()), (200, (2 * counted).into()));
    println!("a rolling upgrade: {counted} numbers");
}

#[expect(clippy::disallowed_methods, reason = "this is how long the fault lasts, not a wait")]
fn stand_still() {
    thread::sleep(SUCCESSOR_STANDS_STILL);
}

/// The promise is 300 ms; the rest is for machines that do much else meanwhile.
const PAUSE_MAX: Duration = Duration::from_millis(1_000);

/// Longer than a node lingers, shorter than it waits for a successor.
const SUCCESSOR_STANDS_STILL: Duration = Duration::from_millis(450);
