//! Nodes that serve nothing and are fed by others: in a row, by datagrams, over paths that lose some or take
//! few.

use std::{collections::BTreeMap, time::Duration};

use synod::{
    consensus::VoteStyle,
    multicast::{channel::Way, message::Seq},
    server::config::GroupsConfig,
    sim::{Cluster, Shape, Simulation},
};
use synod_runtime::{sim::Weather, world::network::Lane};
use synod_tests::simulated::{founded, name};

use crate::{all_at, joined, publish, servers, until};

/// Who feeds a node.
fn feeder(cluster: &Cluster, node: &str) -> Option<String> {
    let status = cluster.core(&name(node))?.multicast()?.status();
    status.first()?.fed_by.as_ref().map(ToString::to_string)
}

/// Goal: who serves nothing is fed by whom its file names, one after the other, and servers feed no
/// more than is named; when one of a row dies, and between two who name one another, a server does it.
/// All hear the same.
#[test]
fn nodes_are_fed_by_whom_they_name_and_by_servers_when_those_are_gone() {
    const FED: [(&str, &str); 4] = [("m3", "m2"), ("m4", "m3"), ("m5", "m6"), ("m6", "m5")];
    Simulation::new(29).run(|sim| async move {
        let shape = Shape { mains: 2, auxiliaries: 1, members: 6 };
        let mut cluster = founded(&sim, shape, VoteStyle::Split).await;
        for (node, by) in FED {
            let fed_by = BTreeMap::from([(None, vec![name(by)])]);
            let multicast = cluster.core(&name(node)).unwrap().multicast().unwrap();
            multicast.measure_new(GroupsConfig { fed_by, ..GroupsConfig::default() });
        }
        let group = joined(&cluster, "a").await;
        assert_eq!(servers(&cluster, "a").unwrap(), ["a", "b", "m1"]);
        for node in ["m2", "m3", "m4", "m5", "m6"] {
            joined(&cluster, node).await;
        }
        let by_server = |cluster: &Cluster, node: &str| {
            feeder(cluster, node).is_some_and(|by| ["a", "b", "m1"].contains(&by.as_str()))
        };
        until("each is fed as it wants", || {
            let row = ["m3", "m4"].map(|node| feeder(&cluster, node));
            let circle = ["m5", "m6"].map(|node| by_server(&cluster, node));
            row == [Some("m2".to_owned()), Some("m3".to_owned())] && circle.contains(&true)
        })
        .await;
        let book = publish(group, "a", 400);
        until("messages are published", || book.borrow().len() > 100).await;
        cluster.crash(&name("m2"));
        until("a server feeds the first of the row", || by_server(&cluster, "m3")).await;
        until("all is published", || book.borrow().len() == 400).await;
        let top = book.borrow().last().unwrap().0;
        let first = all_at(&cluster, "a", top).await;
        for node in ["m3", "m4", "m5", "m6"] {
            assert_eq!(all_at(&cluster, node, top).await, first, "{node} has another order");
        }
    });
}

/// Questions for what was missed at nodes that others feed by datagrams, each in such a way, while one of
/// twenty datagrams to them is lost.
fn repairs_at_one_in_twenty_lost(parity: u8) -> u64 {
    const FED: [&str; 2] = ["m2", "m3"];
    Simulation::new(31).run(|sim| async move {
        let shape = Shape { mains: 2, auxiliaries: 1, members: 3 };
        let cluster = founded(&sim, shape, VoteStyle::Split).await;
        for node in FED {
            let ways = BTreeMap::from([(None, Way::Datagrams { parity, paced: false })]);
            let multicast = cluster.core(&name(node)).unwrap().multicast().unwrap();
            multicast.measure_new(GroupsConfig { ways, ..GroupsConfig::default() });
        }
        let group = joined(&cluster, "a").await;
        assert_eq!(servers(&cluster, "a").unwrap(), ["a", "b", "m1"]);
        for node in FED {
            joined(&cluster, node).await.caught_up().await;
            for from in ["a", "b", "m1"] {
                let weather = Weather { repaired: 0.05, ..Weather::default() };
                sim.set_path_weather(&name(from), &name(node), weather);
            }
        }
        let books = ["one", "two", "three", "four"].map(|who| publish(group.clone(), who, 900));
        until("all is published", || books.iter().all(|book| book.borrow().len() == 900)).await;
        let top = books.iter().filter_map(|book| book.borrow().last().map(|last| last.0)).max();
        let first = all_at(&cluster, "a", top.unwrap()).await;
        let mut asked = 0;
        for node in FED {
            assert_eq!(
                all_at(&cluster, node, top.unwrap()).await,
                first,
                "{node} has another order"
            );
            let lost = ["a", "b", "m1"].map(|from| sim.datagrams(&name(from), &name(node)).lost);
            assert!(lost.iter().sum::<u64>() > 20, "next to nothing was lost: {lost:?}");
            let status = cluster.core(&name(node)).unwrap().multicast().unwrap().status();
            asked += status[0].order_queries + status[0].data_queries;
        }
        asked
    })
}

/// Goal: with a parity packet after every few, who is fed by datagrams seldom has to ask for what was
/// lost, and hears the same in either way.
#[test]
fn parity_spares_most_repairs_at_five_percent_loss() {
    let without = repairs_at_one_in_twenty_lost(0);
    let with = repairs_at_one_in_twenty_lost(4);
    println!("questions without parity {without}, with {with}");
    assert!(without >= 30, "only {without} questions without parity");
    assert!(with * 3 <= without, "{with} questions with parity, {without} without");
}

/// What came of a node that is fed by datagrams, over a path that takes half of them.
#[derive(Debug)]
struct Narrow {
    /// Datagrams to it that were lost for want of room.
    lost: u64,
    /// So many messages it was behind at most.
    behind: u64,
    /// Bytes that came by streams: what it asked for, mostly.
    streamed: u64,
    /// Of a hundred bytes of datagrams that the path could take so many went.
    used: u64,
}

fn fed_by_a_narrow_path(paced: bool) -> Narrow {
    const BYTES_PER_SECOND: u64 = 1_000_000;
    const FROM: [&str; 3] = ["a", "b", "m1"];
    const PUBLISHERS: u32 = 20;
    const EACH: u64 = 250;
    Simulation::new(33).run(|sim| async move {
        let shape = Shape { mains: 2, auxiliaries: 1, members: 2 };
        let cluster = founded(&sim, shape, VoteStyle::Split).await;
        let ways = BTreeMap::from([(None, Way::Datagrams { parity: 0, paced })]);
        let multicast = cluster.core(&name("m2")).unwrap().multicast().unwrap();
        multicast.measure_new(GroupsConfig { ways, ..GroupsConfig::default() });
        let group = joined(&cluster, "a").await;
        let edge = joined(&cluster, "m2").await;
        edge.caught_up().await;
        let narrow = Weather { datagram_bytes_per_second: BYTES_PER_SECOND, ..Weather::default() };
        FROM.iter().for_each(|from| sim.set_path_weather(&name(from), &name("m2"), narrow));
        let begun = sim.now();
        let mut books = Vec::new();
        for who in 0..PUBLISHERS {
            books.push(publish(group.clone(), &format!("{who:02}").repeat(1_000), EACH));
            // One after the other.
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let mut behind = 0;
        let done = || {
            behind = behind.max(group.delivered().0 - edge.delivered().0);
            books.iter().all(|book| book.borrow().len() == EACH as usize)
        };
        until("all is published", done).await;
        let millis = (sim.now() - begun).as_millis() as u64;
        let went = FROM.map(|from| sim.datagrams(&name(from), &name("m2")));
        let most = went.iter().map(|went| went.bytes).max();
        let used = most.unwrap() * 100_000 / (BYTES_PER_SECOND * millis);
        let top = books.iter().filter_map(|book| book.borrow().last().map(|last| last.0)).max();
        let first = all_at(&cluster, "a", top.unwrap()).await;
        assert_eq!(all_at(&cluster, "m2", top.unwrap()).await, first, "m2 has another order");
        let lost = FROM.iter().map(|from| sim.datagrams(&name(from), &name("m2")).lost).sum();
        let lanes = [Lane::Control, Lane::Consensus, Lane::User, Lane::Bulk];
        let streamed = FROM
            .iter()
            .flat_map(|from| lanes.map(|lane| sim.traffic(&name(from), &name("m2"), lane)));
        Narrow { lost, behind, streamed: streamed.map(|went| went.bytes).sum(), used }
    })
}

/// Goal: where a path takes half of what is said, who is fed at a pace loses nothing on the way, keeps up
/// with what it asks for, and the path is used. Else what comes waits behind what is lost in the end, and
/// more is asked for.
#[test]
fn at_a_pace_a_narrow_path_loses_nothing_and_nobody_falls_behind() {
    let [with, without] = [true, false].map(fed_by_a_narrow_path);
    println!("at a pace {with:?}, else {without:?}");
    assert_eq!(with.lost, 0);
    assert!(without.lost > 500, "{without:?}");
    assert!(with.used >= 60, "{with:?}");
    assert!(with.behind * 4 < without.behind);
    assert!(with.streamed * 5 < without.streamed * 4);
}

/// Goal: a feeder that nobody hears any more, though no link broke, is left for another within little
/// more than a second; before, that took three.
#[test]
fn a_feeder_that_falls_silent_is_left_within_little_more_than_a_second() {
    Simulation::new(32).run(|sim| async move {
        let shape = Shape { mains: 2, auxiliaries: 1, members: 3 };
        let cluster = founded(&sim, shape, VoteStyle::Split).await;
        let fed_by = BTreeMap::from([(None, vec![name("m2")])]);
        let multicast = cluster.core(&name("m3")).unwrap().multicast().unwrap();
        multicast.measure_new(GroupsConfig { fed_by, ..GroupsConfig::default() });
        let group = joined(&cluster, "a").await;
        for node in ["m2", "m3"] {
            joined(&cluster, node).await;
        }
        until("m2 feeds m3", || feeder(&cluster, "m3").is_some_and(|by| by == "m2")).await;
        let book = publish(group, "a", 500);
        let edge = joined(&cluster, "m3").await;
        until("messages come", || edge.delivered() >= Seq(50)).await;
        sim.partition(&[name("m2")], &[name("m3")]);
        let before = edge.delivered();
        let begun = tokio::time::Instant::now();
        until("something comes again", || edge.delivered().0 > before.0 + 10).await;
        let silent = begun.elapsed();
        println!("nothing came for {silent:?}");
        assert!(silent < Duration::from_millis(1_700), "{silent:?}");
        assert!(feeder(&cluster, "m3").is_some_and(|by| by != "m2"));
        until("all is published", || book.borrow().len() == 500).await;
        let top = book.borrow().last().unwrap().0;
        assert_eq!(all_at(&cluster, "m3", top).await, all_at(&cluster, "a", top).await);
    });
}
