//! Cuts and loss between real processes, made by a relay of our own.

use std::time::Duration;

use synod_tests::{
    process::{
        cluster::{Cluster, mains_of},
        load::{KvWriter, Load},
        machine::shared,
        resp::{Reply, Resp},
        wait::{PATIENCE, until},
    },
    relay::Relay,
};

/// A cluster whose mains reach each other only through relays.
fn relayed() -> (Cluster, [Relay; 2]) {
    let mut synod = Cluster::by_hand("synod");
    let relays = Relay::between_mains(&synod);
    ["a", "b", "x"].iter().for_each(|name| synod.start_node(name));
    ["a", "b"].iter().for_each(|name| synod.wait_ready(name));
    (synod, relays)
}

#[test]
fn a_cut_between_the_mains_leaves_one_of_them_serving_and_no_two_truths() {
    let _machine = shared();
    let (synod, relays) = relayed();
    let load = Load::start(&synod.resps(), KvWriter::connect, 6);
    load.wait_for_more(300);
    relays.iter().for_each(Relay::cut);
    load.wait_for_more(300);
    let winner = until("one main alone in the configuration", || {
        for name in ["a", "b"] {
            if mains_of(&synod.status(name)?) == [name] {
                return Ok(name);
            }
        }
        Err("both are in it".to_owned())
    });
    load.wait_for_more(300);
    let loser = if winner == "a" { "b" } else { "a" };
    let needs = format!("needs main {winner}");
    synod.wait_status(loser, &needs, |status| status["halted"] == needs.as_str());
    let ready = synod.http(loser).get("/readyz").unwrap();
    assert_eq!(ready.status, 503, "{loser} is cut off and says {}", ready.text());
    relays.iter().for_each(Relay::heal);
    for name in [winner, loser] {
        synod.wait_status(name, "both mains again", |status| mains_of(status) == ["a", "b"]);
        synod.wait_ready(name);
    }
    load.wait_for_more(300);
    let book = load.finish();
    println!("cut between the mains, {winner} went on: {book}");
    for at in synod.resps() {
        book.check_kv(at);
    }
}

#[test]
fn a_lossy_network_costs_time_and_nothing_else() {
    let _machine = shared();
    let (synod, relays) = relayed();
    relays.iter().for_each(|relay| relay.lose(100));
    let load = Load::start(&synod.resps(), KvWriter::connect, 6);
    load.wait_for_more(1_000);
    let book = load.finish();
    let counts = relays.each_ref().map(Relay::counts);
    println!("a tenth of all datagrams lost {counts:?}: {book}");
    relays.iter().for_each(|relay| relay.lose(0));
    ["a", "b"].iter().for_each(|name| synod.wait_ready(name));
    for at in synod.resps() {
        book.check_kv(at);
    }
}

#[test]
fn a_leader_that_was_asleep_does_not_answer_from_the_past() {
    let _machine = shared();
    let mut synod = Cluster::by_hand("synod");
    ["a", "b", "x"].iter().for_each(|name| synod.start_node(name));
    ["a", "b"].iter().for_each(|name| synod.wait_ready(name));
    let (leader, follower) = synod.leader_and_follower();
    let mut old = Resp::connect(synod.node(&leader).resp.unwrap(), PATIENCE).unwrap();
    let mut new = Resp::connect(synod.node(&follower).resp.unwrap(), PATIENCE).unwrap();
    assert_eq!(old.call(&[b"SET", b"k", b"1"]).unwrap(), Reply::Simple("OK".into()));
    assert_eq!(old.call(&[b"GET", b"k"]).unwrap(), Reply::Bulk(b"1".into()));
    let load = Load::start(&synod.resps(), KvWriter::connect, 4);
    load.wait_for_more(200);

    synod.signal("STOP", &[&leader]);
    until("a write at the other main", || match new.call(&[b"SET", b"k", b"2"]) {
        Ok(Reply::Simple(_)) => Ok(()),
        other => Err(format!("{other:?}")),
    });
    // The question is asked after that write, and waits for the old leader when it wakes up.
    old.send_raw(b"GET k\r\n").unwrap();
    synod.signal("CONT", &[&leader]);
    match old.read().unwrap() {
        Reply::Error(why) => println!("the old leader says {why}"),
        reply => assert_eq!(reply, Reply::Bulk(b"2".into()), "an answer from the past"),
    }
    for name in [&leader, &follower] {
        synod.wait_status(name, "both mains", |status| mains_of(status) == ["a", "b"]);
        synod.wait_ready(name);
    }
    load.wait_for_more(200);
    let book = load.finish();
    println!("a stopped leader: {book}");
    assert!(book.longest_gap() < Duration::from_secs(3), "{book}");
    for at in synod.resps() {
        book.check_kv(at);
    }
}
