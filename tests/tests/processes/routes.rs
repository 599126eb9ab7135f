//! Forwarding tables on whole clusters: equal at every edge, whenever it came and whoever dies.

use std::net::IpAddr;

use serde_json::{Value, json};
use synod::{
    consensus::VoteStyle,
    multicast::{
        group::Measures,
        message::Seq,
        table::{Change, Summary},
    },
    server::{
        config::GroupsConfig,
        multicast::{From, Joined},
    },
    sim::{Cluster, Shape, Simulation},
};
use synod_routes::{Prefix, Question, Routes};
use synod_tests::{
    process::{cluster::Cluster as Processes, machine::shared, wait::until},
    simulated::{founded, name, whole},
};

/// From the start of a node on: what its program would say.
fn equip(cluster: &Cluster, node: &str) {
    let multicast = cluster.core(&name(node)).expect("it runs").multicast().expect("no auxiliary");
    let usual = Measures { lifetime: 200, every: 20, keep: 5, ..Measures::default() };
    multicast.measure_new(GroupsConfig { usual, ..GroupsConfig::default() });
    multicast.follow("routes", || Box::<Routes>::default());
}

async fn joined(cluster: &Cluster, node: &str) -> Joined {
    let multicast = cluster.core(&name(node)).expect("it runs").multicast().expect("no auxiliary");
    multicast.group("routes").await.expect("the log answers")
}

/// The message with that number in a test: prefixes that come, and some of those before that go.
fn changes(number: u8) -> Vec<Change<Prefix, IpAddr>> {
    let prefix = |one: u8, two: u8| format!("10.{one}.{two}.0/24").parse().unwrap();
    let comes = (0..20).map(|two| Change::Put(prefix(number, two), [192, 0, 2, number].into()));
    let goes = (0..5).map(|two| Change::Remove(prefix(number.wrapping_sub(1), two)));
    comes.chain(goes).collect()
}

/// Goal: every edge has the same table after the same number: a server, one that is fed, one whose
/// node crashed meanwhile, and one that comes when all is over and takes a checkpoint.
#[test]
fn edges_are_equal_at_the_same_number_however_they_came_to_it() {
    let _machine = shared();
    Simulation::new(31).run(|sim| async move {
        let shape = Shape { mains: 2, auxiliaries: 1, members: 3 };
        let mut cluster = founded(&sim, shape, VoteStyle::Split).await;
        ["a", "b", "m1", "m2", "m3"].iter().for_each(|node| equip(&cluster, node));
        let mut model = Routes::default();
        let fed = joined(&cluster, "m2").await;
        let mut press = fed.publisher();
        let mut last = Seq(0);
        for number in 0..120 {
            if number == 50 {
                cluster.crash(&name("a"));
            }
            if number == 80 {
                cluster.start(&name("a")).unwrap();
                equip(&cluster, "a");
                whole(&cluster).await;
            }
            let changes = changes(number);
            last = press.publish(rmp_serde::to_vec(&changes).unwrap()).await.unwrap();
            for change in changes {
                match change {
                    Change::Put(prefix, via) => drop(model.announce(prefix, via)),
                    Change::Remove(prefix) => drop(model.withdraw(prefix)),
                }
            }
        }
        for node in ["a", "b", "m1", "m2", "m3"] {
            let edge = joined(&cluster, node).await;
            edge.caught_up().await;
            if node == "m3" {
                assert!(edge.oldest() > Seq(90), "it came by a checkpoint: {}", edge.oldest());
                assert!(edge.subscribe(From::Seq(Seq(1))).is_err());
            }
            let (at, table) = edge.query(&Question::Summary, last).await.unwrap();
            let table: Summary = table;
            assert_eq!((at, table), (last, model.summary()), "{node}");
            let to = [10, 7, 19, 1].into();
            let (_, way) = edge.query(&Question::To(to), last).await.unwrap();
            assert_eq!(model.lookup(to), way, "{node}");
        }
    });
}

/// Goal: a node whose program has not the group's application says so, and takes no part.
#[test]
fn a_node_without_the_application_is_no_edge() {
    let _machine = shared();
    Simulation::new(32).run(|sim| async move {
        let shape = Shape { mains: 2, auxiliaries: 1, members: 1 };
        let cluster = founded(&sim, shape, VoteStyle::Split).await;
        ["a", "b"].iter().for_each(|node| equip(&cluster, node));
        let mut press = joined(&cluster, "a").await.publisher();
        press.publish(rmp_serde::to_vec(&changes(1)).unwrap()).await.unwrap();
        let multicast = cluster.core(&name("m1")).unwrap().multicast().unwrap();
        let refused = multicast.group("routes").await.unwrap_err().to_string();
        assert_eq!(refused, "group routes: this program has no application routes");
    });
}

/// Goal: what is announced at one node is how another forwards, and stays so without the first.
#[test]
fn what_was_announced_at_a_node_that_is_killed_is_how_others_forward() {
    let _machine = shared();
    let mut cluster = Processes::dev("synod", &["--members", "1"]);
    let asked = |cluster: &Processes, node: &str, method: &str, path: &str, body: &str| {
        let answer = cluster.http(node).request(method, path, &[], body.as_bytes()).unwrap();
        (answer.status, answer.json())
    };
    let (status, put) = asked(&cluster, "a", "PUT", "/routes/10.0.0.0/8", "192.0.2.1");
    assert_eq!((status, &put["changes"]), (200, &json!(1)), "{put}");
    let lines = "10.1.0.0/16 192.0.2.2\n2001:db8::/32 192.0.2.3\n10.0.0.0/8 192.0.2.9\n";
    let (status, many) = asked(&cluster, "a", "POST", "/routes", lines);
    assert_eq!((status, &many["changes"]), (200, &json!(3)), "{many}");
    let (status, bad) = asked(&cluster, "a", "PUT", "/routes/10.0.0.1/8", "192.0.2.1");
    let why = "10.0.0.1/8 has bits beyond its length: write 10.0.0.0/8";
    assert_eq!((status, &bad["error"]), (400, &json!(why)));
    let after = many["at"].as_u64().unwrap();
    let to = |cluster: &Processes, node: &str, address: &str| -> Result<Value, String> {
        let path = format!("/routes/to/{address}?after={after}");
        let (status, said) = asked(cluster, node, "GET", &path, "");
        if status == 503 { Err(said.to_string()) } else { Ok(said) }
    };
    let before = asked(&cluster, "a", "GET", &format!("/routes?after={after}"), "").1;
    assert_eq!(before["prefixes"], 3, "{before}");
    cluster.kill(&["a"]);
    for node in ["b", "m1"] {
        let way = until("it forwards", || to(&cluster, node, "10.1.2.3"));
        assert_eq!((&way["prefix"], &way["via"]), (&json!("10.1.0.0/16"), &json!("192.0.2.2")));
        let way = to(&cluster, node, "10.2.0.1").unwrap();
        assert_eq!((&way["prefix"], &way["via"]), (&json!("10.0.0.0/8"), &json!("192.0.2.9")));
        let none = to(&cluster, node, "11.0.0.1").unwrap();
        assert_eq!(none["error"], "nowhere");
        let table = asked(&cluster, node, "GET", "/routes", "").1;
        assert_eq!(table["digest"], before["digest"], "{node}: {table}");
    }
    let (status, gone) = asked(&cluster, "b", "DELETE", "/routes/10.1.0.0/16", "");
    assert_eq!(status, 200, "{gone}");
    let path = format!("/routes/to/10.1.2.3?after={}", gone["at"]);
    assert_eq!(asked(&cluster, "m1", "GET", &path, "").1["prefix"], "10.0.0.0/8");
}
