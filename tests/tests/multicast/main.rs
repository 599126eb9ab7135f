//! Groups on whole simulated clusters: one order at every node, whoever orders it and whoever dies.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod feeding;

use std::{cell::RefCell, collections::BTreeMap, rc::Rc, time::Duration};

use synod::{
    consensus::VoteStyle,
    election::message::Epoch,
    multicast::{
        group::{Maximum, Measures},
        message::{Entry, Mid, Seq},
    },
    server::{
        config::GroupsConfig,
        multicast::{From, Joined},
        registers::{Keeping, RolesIn},
    },
    sim::{Blueprint, Cluster, Shape, Simulation},
};
use synod_runtime::{identity::NodeName, sim::Weather, slots::Slots, world::network::Lane};
use synod_tests::simulated::{Counter, founded, founded_as, name, whole};

const NODES: [&str; 4] = ["a", "b", "m1", "m2"];

async fn joined(cluster: &Cluster, node: &str) -> Joined {
    let multicast = cluster.core(&name(node)).expect("it runs").multicast().expect("no auxiliary");
    multicast.group("news").await.expect("the log answers")
}

/// Who orders, as `node` heard lately.
fn sequencer(cluster: &Cluster, node: &str) -> Option<String> {
    let status = cluster.core(&name(node))?.multicast()?.status();
    status.first()?.sequencer.as_ref().map(ToString::to_string)
}

/// What one publisher's messages came to.
type Book = Rc<RefCell<Vec<(Seq, String)>>>;

/// Publishes so many messages by way of `node`, one after the other; notes their numbers.
fn publish(group: Joined, who: &str, count: u64) -> Book {
    let done = Rc::<RefCell<Vec<_>>>::default();
    let (book, who) = (Rc::clone(&done), who.to_owned());
    actix_rt::spawn(async move {
        let mut press = group.publisher();
        for number in 0..count {
            let text = format!("{who} {number}");
            let seq = press.publish(text.clone()).await.expect("it gets its place");
            book.borrow_mut().push((seq, text));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    done
}

/// Everything that is there at a node up to that number.
async fn all_at(cluster: &Cluster, node: &str, upto: Seq) -> Vec<Entry> {
    let group = joined(cluster, node).await;
    let mut heard = group.subscribe(From::Seq(Seq(1))).unwrap();
    let mut all: Vec<Entry> = Vec::new();
    let reading = async {
        while all.last().is_none_or(|last| last.seq < upto) {
            all.extend(heard.next().await.unwrap());
        }
    };
    let read = tokio::time::timeout(Duration::from_secs(30), reading).await;
    assert!(read.is_ok(), "{node} has not got all: {:?} of {upto}", group.delivered());
    all
}

async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let waiting = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(60), waiting).await.is_ok(), "{what}");
}

/// Goal: nothing acknowledged is lost or twice, one order everywhere, each publisher's own kept,
/// while the node that orders crashes twice; a node that serves nothing delivers the same.
#[test]
fn there_is_one_order_at_every_node_while_sequencers_die() {
    sequencers_die(21, RolesIn::Log, Maximum::CommitServers);
}

/// Goal: the same where roles are in registers, and the group's largest number is in one too: which is
/// never below a number that anybody has.
#[test]
fn r4_21_there_is_one_order_where_a_register_holds_the_largest_number() {
    for seed in 31..34 {
        sequencers_die(seed, RolesIn::Registers(Keeping::Holders), Maximum::Register);
    }
}

/// Goal: the same where each sequencer keeps the largest number in a file of its node: what that node
/// ordered is never above what its file holds.
#[test]
fn r4_21_there_is_one_order_where_who_orders_has_the_largest_number_in_a_file() {
    for seed in 41..43 {
        sequencers_die(seed, RolesIn::Log, Maximum::LocalFile);
    }
}

/// The largest number that a file of a node holds, of all nodes.
fn in_files(sim: &Simulation) -> Seq {
    let found = NODES.iter().filter_map(|node| {
        let world = sim.world(&name(node));
        let files = sim.files(&name(node));
        let file = files.iter().find(|file| file.ends_with("news/maximum"))?;
        let words = Slots::look(world.disk.as_ref(), file).expect("it can be read")?;
        let (_, seq): (Epoch, Seq) = rmp_serde::from_slice(&words).expect("it was written");
        Some(seq)
    });
    found.max().expect("somebody ordered")
}

/// The largest number that the group's register holds.
async fn stored(cluster: &Cluster) -> Seq {
    let registers = cluster.core(&name("b")).unwrap().registers().expect("roles are in registers");
    let held = registers.read("sam/news/max").await.expect("a majority answers");
    let (_, seq): (Epoch, Seq) = rmp_serde::from_slice(&held).expect("it was written");
    seq
}

fn sequencers_die(seed: u64, roles: RolesIn, maximum: Maximum) {
    Simulation::new(seed).run(|sim| async move {
        let shape = Shape { mains: 2, auxiliaries: 1, members: 2 };
        let blueprint = Blueprint { roles, ..Blueprint::hosting::<Counter>("counter") };
        let mut cluster = founded_as(&sim, shape, blueprint).await;
        for node in NODES {
            let usual = Measures { maximum, ..Measures::default() };
            let multicast = cluster.core(&name(node)).unwrap().multicast().unwrap();
            multicast.measure_new(GroupsConfig { usual, ..GroupsConfig::default() });
        }
        let mut books = Vec::new();
        for node in NODES {
            let group = joined(&cluster, node).await;
            assert_eq!(group.group().servers.len(), 3);
            if node.starts_with('m') {
                books.push(publish(group, node, 150));
            }
        }
        for round in 0..2 {
            let enough =
                |books: &[Book]| books.iter().all(|book| book.borrow().len() > 20 + 40 * round);
            until("messages are published", || enough(&books)).await;
            let orders = sequencer(&cluster, "m1").expect("somebody orders");
            let victim = if orders == "m1" { "a".to_owned() } else { orders };
            let before: usize = books.iter().map(|book| book.borrow().len()).sum();
            cluster.crash(&name(&victim));
            let on = || books.iter().map(|book| book.borrow().len()).sum::<usize>() > before + 10;
            until("it goes on without that node", on).await;
            cluster.start(&name(&victim)).unwrap();
            whole(&cluster).await;
        }
        until("all is published", || books.iter().all(|book| book.borrow().len() == 150)).await;
        let said: BTreeMap<Seq, String> =
            books.iter().flat_map(|book| book.borrow().clone()).collect();
        assert_eq!(said.len(), 300, "a number was given twice");
        let top = *said.last_key_value().unwrap().0;
        match maximum {
            Maximum::CommitServers => {}
            Maximum::Register => assert!(stored(&cluster).await >= top),
            Maximum::LocalFile => assert!(in_files(&sim) >= top),
        }
        let first = all_at(&cluster, "a", top).await;
        for node in &NODES[1..] {
            let all = all_at(&cluster, node, top).await;
            let both = first.len().min(all.len());
            assert_eq!(first[..both], all[..both], "{node} has another order than a");
        }
        let numbers: Vec<_> = first.iter().map(|entry| entry.seq.0).collect();
        assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>());
        let texts: BTreeMap<Seq, String> = first
            .iter()
            .filter(|entry| entry.pair.mid.is_some())
            .map(|entry| (entry.seq, String::from_utf8(entry.payload.to_vec()).unwrap()))
            .collect();
        assert_eq!(texts, said, "what was acknowledged is what is there");
        let mut last = BTreeMap::new();
        for Mid { publisher, number } in first.iter().filter_map(|entry| entry.pair.mid) {
            let before = last.insert(publisher, number);
            assert_eq!(number, before.unwrap_or(0) + 1, "{publisher} lost its order");
        }
    });
}

/// Goal: a server that was started again learns which of its messages have their place. It would report
/// them for ever, so many that others wait behind them.
#[test]
fn servers_that_were_started_again_know_what_has_its_place() {
    Simulation::new(51).run(|sim| async move {
        let shape = Shape { mains: 2, auxiliaries: 1, members: 2 };
        let mut cluster = founded(&sim, shape, VoteStyle::Split).await;
        let group = joined(&cluster, "m2").await;
        let servers: Vec<_> = group.group().servers.iter().map(|one| one.name.clone()).collect();
        assert!(!servers.contains(&name("m2")));
        let mut press = group.publisher();
        for batch in 0..MANY / 500 {
            let texts = (0..500).map(|n| format!("{batch} {n}").into());
            press.publish_all(texts.collect()).await.expect("they get their places");
        }
        let mut last = group.largest();
        for round in 0..6 {
            let victim = &servers[round % servers.len()];
            cluster.crash(victim);
            tokio::time::sleep(Duration::from_millis(300)).await;
            cluster.start(victim).unwrap();
            for n in 0..20 {
                let publishing = press.publish(format!("{round} {n}"));
                let place = tokio::time::timeout(Duration::from_secs(5), publishing).await;
                let Ok(Ok(seq)) = place else { panic!("{n} after {victim} died: {place:?}") };
                assert!(seq > last, "{seq} after {last}");
                last = seq;
            }
            whole(&cluster).await;
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
        let before = said(&sim, &servers);
        tokio::time::sleep(Duration::from_secs(2)).await;
        let since = said(&sim, &servers) - before;
        assert!(since < 40 * MANY as u64, "{since} bytes for nothing: each message once and more");
    });
}

/// Bytes that these nodes said to one another.
fn said(sim: &Simulation, nodes: &[NodeName]) -> u64 {
    let pairs = nodes.iter().flat_map(|from| nodes.iter().map(move |to| (from, to)));
    let pairs = pairs.filter(|(from, to)| from != to);
    pairs.flat_map(|(from, to)| Lane::ALL.map(|lane| sim.traffic(from, to, lane).bytes)).sum()
}

/// More messages than a server reports at once, by a few.
const MANY: usize = 12_000;

/// Goal: a cluster that stopped as a whole goes on with all it had.
#[test]
fn a_group_survives_the_crash_of_all_its_nodes() {
    Simulation::new(22).run(|sim| async move {
        let shape = Shape { mains: 2, auxiliaries: 1, members: 1 };
        let mut cluster = founded(&sim, shape, VoteStyle::Split).await;
        let mut press = joined(&cluster, "b").await.publisher();
        for number in 0..20 {
            press.publish(format!("{number}")).await.unwrap();
        }
        for node in cluster.names() {
            cluster.crash(&node);
        }
        cluster.start_all().unwrap();
        whole(&cluster).await;
        let mut press = joined(&cluster, "a").await.publisher();
        let after = press.publish("after").await.unwrap();
        let all = all_at(&cluster, "b", after).await;
        let texts: Vec<_> = all.iter().map(|entry| entry.payload.to_vec()).collect();
        for number in 0..20 {
            let text = number.to_string().into_bytes();
            assert_eq!(texts.iter().filter(|one| **one == text).count(), 1, "{number}");
        }
        assert_eq!(texts.last().unwrap(), b"after");
    });
}

/// The servers of the group as `node` knows them, by name; nothing while they change.
fn servers(cluster: &Cluster, node: &str) -> Option<Vec<String>> {
    let status = cluster.core(&name(node))?.multicast()?.status();
    let group = status.first().filter(|group| group.joining.is_none())?;
    let mut names: Vec<_> = group.servers.iter().map(ToString::to_string).collect();
    names.sort_unstable();
    Some(names)
}

/// Goal: a server that does not come back is replaced by the node that is left, without anybody's
/// doing and while messages are published; then another one may be lost, and nothing is missing. The
/// lost one, back, serves nothing and delivers the same.
#[test]
fn a_server_that_is_lost_for_good_is_replaced_by_a_spare() {
    Simulation::new(23).run(|sim| async move {
        let shape = Shape { mains: 2, auxiliaries: 1, members: 2 };
        let mut cluster = founded(&sim, shape, VoteStyle::Split).await;
        for node in NODES {
            let replace_after = Duration::from_secs(2);
            let usual = Measures { replace_after, every: 50, keep: 5, ..Measures::default() };
            let multicast = cluster.core(&name(node)).unwrap().multicast().unwrap();
            multicast.measure_new(GroupsConfig { usual, ..GroupsConfig::default() });
        }
        let group = joined(&cluster, "a").await;
        let first = publish(group, "a", 1_500);
        until("messages are published", || first.borrow().len() > 120).await;
        let old = servers(&cluster, "a").unwrap();
        let spare = NODES.iter().find(|node| !old.contains(&(**node).to_owned())).unwrap();
        assert_eq!((old.len(), *spare), (3, "m2"), "{old:?}");
        cluster.crash(&name("m1"));
        let full = |node: &str| servers(&cluster, node).is_some_and(|now| now == ["a", "b", "m2"]);
        until("the spare serves", || ["a", "b", "m2"].into_iter().all(full)).await;
        let before = first.borrow().len();
        until("it goes on", || first.borrow().len() > before + 20).await;
        cluster.crash(&name("b"));
        let before = first.borrow().len();
        until("it goes on without another", || first.borrow().len() > before + 20).await;
        cluster.start(&name("b")).unwrap();
        cluster.start(&name("m1")).unwrap();
        until("all is published", || first.borrow().len() == 1_500).await;
        whole(&cluster).await;
        let top = first.borrow().last().unwrap().0;
        let all = all_at(&cluster, "m2", top).await;
        let said: BTreeMap<Seq, String> = first.borrow().iter().cloned().collect();
        let texts: BTreeMap<Seq, String> = all
            .iter()
            .filter(|entry| entry.pair.mid.is_some())
            .map(|entry| (entry.seq, String::from_utf8(entry.payload.to_vec()).unwrap()))
            .collect();
        assert_eq!(texts, said, "what was acknowledged is what is there, once");
        for node in ["a", "b", "m1"] {
            let other = all_at(&cluster, node, top).await;
            assert_eq!(other[..], all[..other.len()], "{node} has another order than m2");
        }
        assert_eq!(servers(&cluster, "m1").unwrap(), ["a", "b", "m2"]);
    });
}

/// Who is on its way into the group, as `node` knows.
fn joining(cluster: &Cluster, node: &str) -> Option<String> {
    let status = cluster.core(&name(node))?.multicast()?.status();
    status.first()?.joining.as_ref().map(ToString::to_string)
}

/// Goal: where the node that takes the place of a server dies on its way in, and that server is back, it has
/// its place again within seconds; then another one may be lost.
#[test]
fn a_change_of_servers_is_taken_back_when_the_newcomer_dies_and_the_old_one_is_back() {
    Simulation::new(35).run(|sim| async move {
        let shape = Shape { mains: 2, auxiliaries: 1, members: 2 };
        let mut cluster = founded(&sim, shape, VoteStyle::Split).await;
        for node in NODES {
            let replace_after = Duration::from_secs(25);
            let usual = Measures { replace_after, ..Measures::default() };
            let multicast = cluster.core(&name(node)).unwrap().multicast().unwrap();
            multicast.measure_new(GroupsConfig { usual, ..GroupsConfig::default() });
        }
        let group = joined(&cluster, "a").await;
        let book = publish(group, "a", 3_000);
        until("messages are published", || book.borrow().len() > 100).await;
        assert_eq!(servers(&cluster, "a").unwrap(), ["a", "b", "m1"]);
        // It takes the newcomer a while.
        let latency = Duration::from_millis(200);
        for from in ["a", "b"] {
            let far = Weather { latency, ..Weather::default() };
            sim.set_path_weather(&name(from), &name("m2"), far);
        }
        cluster.crash(&name("m1"));
        until("m2 comes", || joining(&cluster, "a").is_some_and(|node| node == "m2")).await;
        cluster.crash(&name("m2"));
        cluster.start(&name("m1")).unwrap();
        let begun = tokio::time::Instant::now();
        let again = || servers(&cluster, "a").is_some_and(|now| now == ["a", "b", "m1"]);
        until("m1 serves again", again).await;
        let took = begun.elapsed();
        println!("m1 has its place again after {took:?}");
        assert!(took < Duration::from_secs(12), "{took:?}");
        cluster.crash(&name("b"));
        let before = book.borrow().len();
        until("it goes on without another", || book.borrow().len() > before + 20).await;
        cluster.start(&name("b")).unwrap();
        until("all is published", || book.borrow().len() == 3_000).await;
        let top = book.borrow().last().unwrap().0;
        let all = all_at(&cluster, "m1", top).await;
        assert_eq!(all_at(&cluster, "b", top).await[..], all[..], "b has another order than m1");
        let said: Vec<_> = book.borrow().iter().map(|(_, text)| text.clone()).collect();
        let texts = all.iter().filter(|entry| entry.pair.mid.is_some());
        let texts: Vec<_> =
            texts.map(|entry| String::from_utf8(entry.payload.to_vec()).unwrap()).collect();
        assert_eq!(texts, said, "what was acknowledged is what is there, once");
    });
}
