//! Processes die, and nothing acknowledged is lost, nothing applied twice.

use std::time::Duration;

use serde_json::{Value, json};
use synod_tests::process::{
    cluster::{Cluster, mains_of},
    http::{Answer, Http},
    load::{Book, KvWriter, LedgerWriter, Load},
    machine::shared,
    resp::{Reply, Resp},
    wait::{PATIENCE, holds_for, now, until},
};

/// Kills nodes under load and measures how long nothing is acknowledged.
fn kill_under_load(cluster: &mut Cluster, names: &[&str], what: &str) -> Book {
    let load = Load::start(&cluster.resps(), KvWriter::connect, 6);
    load.wait_for_more(ENOUGH);
    cluster.kill(names);
    load.wait_for_more(ENOUGH);
    let book = load.finish();
    println!("kill -9 of the {what}: {book}");
    assert!(book.longest_gap() < GAP_MAX, "{book}");
    book
}

fn is_whole(status: &Value) -> bool {
    let nodes = status["nodes"].as_array().map_or(&[][..], Vec::as_slice);
    mains_of(status) == ["a", "b"]
        && status["auxiliaries"] == json!(["x"])
        && status["halted"] == Value::Null
        && nodes.len() == 3
        && nodes.iter().all(|node| node["state"] == "up")
}

/// Waits until every node is up and in the configuration, and both mains serve.
fn wait_whole(cluster: &Cluster) {
    for name in ["a", "b"] {
        cluster.wait_ready(name);
        cluster.wait_status(name, "the whole cluster", is_whole);
    }
}

fn check_everywhere(cluster: &Cluster, book: &Book) {
    for at in cluster.resps() {
        book.check_kv(at);
    }
}

#[test]
fn any_one_process_killed_under_load_costs_a_moment_and_nothing_else() {
    let _machine = shared();
    let mut synod = Cluster::dev("synod", &[]);
    let mut book = Book::default();
    for what in ["leader", "follower", "auxiliary", "leader"] {
        let (leader, follower) = synod.leader_and_follower();
        let name = match what {
            "leader" => leader,
            "follower" => follower,
            _ => "x".to_owned(),
        };
        let round = kill_under_load(&mut synod, &[&name], what);
        synod.wait_restarted(&name);
        wait_whole(&synod);
        check_everywhere(&synod, &round);
        book.add(round);
    }
    check_everywhere(&synod, &book);
    // Once all are back the auxiliary sleeps again.
    let heard = || heard_by_auxiliary(&synod);
    until("a sleeping auxiliary", || {
        let before = heard();
        let load = Load::start(&synod.resps(), KvWriter::connect, 2);
        load.wait_for_more(200);
        drop(load.finish());
        if heard() == before { Ok(()) } else { Err("it is asked for votes".to_owned()) }
    });
    synod.stop();
}

fn heard_by_auxiliary(cluster: &Cluster) -> Vec<String> {
    let text = cluster.http("x").get("/metrics").expect("it is up").text();
    let protocol = |line: &&str| {
        line.starts_with("synod_protocol_messages_received_total{") && !line.contains("heartbeat")
    };
    text.lines().filter(protocol).map(str::to_owned).collect()
}

#[test]
fn a_main_that_stays_away_is_voted_out_and_admitted_again_and_then_the_other_may_die() {
    let _machine = shared();
    let mut synod = Cluster::dev("synod", &["--no-restart"]);
    let (first, second) = synod.leader_and_follower();
    let epoch =
        |cluster: &Cluster, name: &str| cluster.status(name).unwrap()["epoch"].as_u64().unwrap();
    let at_start = epoch(&synod, &second);

    let mut book = kill_under_load(&mut synod, &[&first], "leader that stays away");
    let without = synod.wait_status(&second, "a configuration without the dead main", |status| {
        mains_of(status) == [second.as_str()]
    });
    let sole = without["epoch"].as_u64().unwrap();
    assert!(sole > at_start, "{without}");

    let load = Load::start(&synod.resps(), KvWriter::connect, 4);
    load.wait_for_more(ENOUGH);
    let started = now();
    synod.start_node(&first);
    let with = synod.wait_status(&second, "the main admitted again", is_whole);
    println!("admitted again under load after {} ms", now().since(started).as_millis());
    assert!(with["epoch"].as_u64().unwrap() > sole, "{with}");
    load.wait_for_more(ENOUGH);
    book.add(load.finish());
    wait_whole(&synod);

    book.add(kill_under_load(&mut synod, &[&second], "other main"));
    book.check_kv(synod.node(&first).resp.unwrap());
    synod.start_node(&second);
    wait_whole(&synod);
    check_everywhere(&synod, &book);
}

#[test]
fn a_sole_main_started_again_waits_for_the_auxiliary_or_for_an_operator_s_word() {
    let _machine = shared();
    let mut synod = Cluster::dev("synod", &["--no-restart"]);
    let (leader, follower) = synod.leader_and_follower();
    let book = kill_under_load(&mut synod, &[&follower], "follower that stays away");
    synod.wait_status(&leader, "a sole main", |status| mains_of(status) == [leader.as_str()]);
    synod.kill(&["x"]);
    // As long as it runs it goes on: nobody else can be in charge.
    let load = Load::start(&[synod.node(&leader).resp.unwrap()], KvWriter::connect, 2);
    load.wait_for_more(ENOUGH);
    let mut book = book;
    book.add(load.finish());

    synod.kill(&[&leader]);
    synod.start_node(&leader);
    let halted = |status: &Value| status["halted"] == "needs auxiliary x";
    synod.wait_status(&leader, "a wait for the auxiliary", halted);
    synod.kill(&[&leader]);
    synod.start_node_with(&leader, &["--accept-sole"]);
    synod.wait_ready(&leader);
    book.check_kv(synod.node(&leader).resp.unwrap());

    // It is said for one start: the next one asks again.
    synod.kill(&[&leader]);
    synod.start_node(&leader);
    synod.wait_status(&leader, "a wait for the auxiliary", halted);
    for name in ["x", follower.as_str()] {
        synod.start_node(name);
    }
    wait_whole(&synod);
    check_everywhere(&synod, &book);
}

#[test]
fn all_processes_killed_at_once_forget_nothing_acknowledged() {
    let _machine = shared();
    let mut synod = Cluster::dev("synod", &[]);
    let mut book = Book::default();
    for _ in 0..2 {
        let load = Load::start(&synod.resps(), KvWriter::connect, 6);
        load.wait_for_more(ENOUGH);
        synod.crash();
        book.add(load.finish());
        synod.resume();
        check_everywhere(&synod, &book);
    }
    println!("kill -9 of all: {book}");
    synod.stop();
    synod.resume();
    check_everywhere(&synod, &book);
}

#[test]
fn the_lone_survivor_of_two_failures_says_so_and_waits() {
    let _machine = shared();
    let mut synod = Cluster::dev("synod", &["--no-restart"]);
    let (leader, follower) = synod.leader_and_follower();
    let load = Load::start(&synod.resps(), KvWriter::connect, 4);
    load.wait_for_more(ENOUGH);
    synod.kill(&[&follower, "x"]);
    let needs = format!("needs main {follower} or auxiliary x");
    synod.wait_status(&leader, &needs, |status| status["halted"] == needs.as_str());
    let ready = synod.http(&leader).get("/readyz").unwrap();
    assert_eq!(ready.status, 503, "{}", ready.text());

    // A write now is refused in words, within the time.
    let resp = synod.node(&leader).resp.unwrap();
    let asked = now();
    let mut alone = Resp::connect(resp, PATIENCE).unwrap();
    let reply = alone.call(&[b"INCR", b"alone"]).unwrap();
    println!("the lone survivor says {reply:?} after {} ms", now().since(asked).as_millis());
    let Reply::Error(error) = &reply else { panic!("{reply:?}") };
    let said = ["CLUSTERDOWN not applied", "UNCERTAIN outcome unknown"];
    assert!(said.iter().any(|start| error.starts_with(start)), "{error}");
    assert!(now().since(asked) < ANSWER_MAX);

    synod.start_node("x");
    load.wait_for_more(ENOUGH);
    let mut book = load.finish();
    synod.start_node(&follower);
    wait_whole(&synod);
    check_everywhere(&synod, &book);
    // The same with the leader gone: the follower may not take over by itself.
    let (leader, follower) = synod.leader_and_follower();
    let load = Load::start(&synod.resps(), KvWriter::connect, 4);
    load.wait_for_more(ENOUGH);
    synod.kill(&[&leader, "x"]);
    synod.wait_status(&follower, "a halt", |status| status["halted"].is_string());
    let before = load.acknowledged();
    holds_for(Duration::from_millis(1_500), "the lone survivor acknowledges", || {
        if load.acknowledged() == before { Ok(()) } else { Err("a write".to_owned()) }
    });
    synod.start_node(&leader);
    load.wait_for_more(ENOUGH);
    book.add(load.finish());
    synod.start_node("x");
    wait_whole(&synod);
    check_everywhere(&synod, &book);
}

#[test]
fn a_repeated_request_is_answered_as_the_first_time_also_after_a_kill() {
    let _machine = shared();
    let mut bank = Cluster::dev("bank", &[]);
    let (leader, follower) = bank.leader_and_follower();
    let first = keyed_transfer(&mut bank.http(&leader), 10);
    assert_eq!((first.status, first.json()), (200, json!({"Ok": -10})));
    let load = Load::start(&bank.mains(), LedgerWriter::connect, 4);
    load.wait_for_more(100);
    bank.kill(&[&leader]);
    let mut other = bank.http(&follower);
    let again = until("the repeated request", || match keyed_transfer(&mut other, 10) {
        answer if answer.status == 200 => Ok(answer),
        answer => Err(answer.text()),
    });
    assert_eq!(again.body, first.body);
    assert_eq!(again.header("synod-position"), first.header("synod-position"));
    let other_body = keyed_transfer(&mut other, 11);
    assert_eq!(other_body.status, 422, "{}", other_body.text());
    bank.wait_restarted(&leader);
    wait_whole(&bank);
    load.wait_for_more(100);
    let book = load.finish();
    println!("ledger over HTTP, kill -9 of the leader: {book}");
    for at in bank.mains() {
        book.check_ledger(at);
        assert_eq!(keyed_transfer(&mut Http::new(at), 10).body, first.body);
    }
}

fn keyed_transfer(http: &mut Http, amount: i64) -> Answer {
    let body = json!({"from": "ida", "to": "shop", "amount": amount}).to_string();
    let key = [("idempotency-key", "order-7")];
    let path = "/actors/ledger/ledger.transfer";
    http.request("POST", path, &key, body.as_bytes()).expect("an answer")
}

/// Acknowledged writes that show that a cluster serves.
const ENOUGH: u64 = 500;

/// Half a second is usual; the rest is for busy machines.
const GAP_MAX: Duration = Duration::from_secs(3);

/// A node's own deadline for a write, and some.
const ANSWER_MAX: Duration = Duration::from_secs(6);
