//! Stock redis-servers behind a cluster become one that survives.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    path::Path,
    time::Duration,
};

use serde_json::Value;
use synod_tests::process::{
    child::run,
    crew::{Crew, Shift},
    machine::shared,
    order::Order,
    redis::{Redis, call, client, redis_cli, two_sites, wait_serving},
    resp::{Reply, Resp},
    sites::{Server as _, kill_each, wait_equal, webs},
    wait::{PATIENCE, until},
};

fn simple(text: &str) -> Reply {
    Reply::Simple(text.to_owned())
}

fn bulk(text: &str) -> Reply {
    Reply::Bulk(text.as_bytes().to_vec())
}

/// Waits until both servers hold the same, and answers what.
fn wait_same(servers: &[Redis; 2]) -> BTreeMap<String, String> {
    wait_equal("keys", || servers.each_ref().map(Redis::content))
}

/// Goal: what is done at either site is done at both, in one order, with the answers of Redis.
/// Method: commands of each kind at one site, read at the other at once.
#[test]
fn two_stock_redis_servers_are_one_at_both_sites() {
    one_at_both_sites(Order::Paxos);
}

/// The same, where a group puts commands in order, and time with them.
#[test]
fn two_stock_redis_servers_that_a_group_orders_are_one_at_both_sites() {
    one_at_both_sites(Order::Sam);
}

fn one_at_both_sites(order: Order) {
    let _machine = shared();
    let Some((mut cluster, servers)) = two_sites(&["--save", ""], order) else { return };
    let [mut a, mut b] = webs(&cluster).map(client);
    assert_eq!(call(&mut a, "SET one 1"), simple("OK"));
    assert_eq!(call(&mut b, "GET one"), bulk("1"));
    assert_eq!(call(&mut b, "INCR one"), Reply::Integer(2));
    assert_eq!(call(&mut a, "INCRBY one 9007199254740993"), Reply::Integer(9_007_199_254_740_995));
    assert_eq!(call(&mut a, "LPUSH list x y"), Reply::Integer(2));
    assert!(matches!(call(&mut b, "INCR list"), Reply::Error(why) if why.starts_with("WRONGTYPE")));
    assert!(matches!(call(&mut b, "SET one"), Reply::Error(why) if why.contains("wrong number")));
    assert_eq!(call(&mut b, "LPOP list 2"), Reply::Array(vec![bulk("y"), bulk("x")]));
    assert_eq!(call(&mut a, "LPOP list"), Reply::Nil);
    // A transaction is one step, also with a command that fails in it.
    for line in ["MULTI", "SET two 2", "INCR two", "LPUSH two x", "GET two"] {
        let said = call(&mut a, line);
        assert_eq!(said, simple(if line == "MULTI" { "OK" } else { "QUEUED" }));
    }
    let Reply::Array(all) = call(&mut a, "EXEC") else { panic!("it is performed") };
    assert_eq!((&all[1], &all[3], all.len()), (&Reply::Integer(3), &bulk("3"), 4));
    assert!(matches!(&all[2], Reply::Error(why) if why.starts_with("WRONGTYPE")));
    assert_eq!(call(&mut b, "GET two"), bulk("3"));
    for (line, said) in [("MULTI", "+"), ("SPOP s", "-ERR SPOP"), ("EXEC", "-EXECABORT")] {
        let heard = match call(&mut b, line) {
            Reply::Error(why) => format!("-{why}"),
            _ => "+".to_owned(),
        };
        assert!(heard.starts_with(said), "{line}: {heard}");
    }
    // An end is the same moment at both.
    assert_eq!(call(&mut a, "SET three 3 EX 100"), simple("OK"));
    let [x, y] = [&mut a, &mut b].map(|site| call(site, "PEXPIRETIME three"));
    assert!(matches!(x, Reply::Integer(at) if at > 1_600_000_000_000), "{x:?}");
    assert_eq!(x, y);
    let Reply::Bulk(id) = call(&mut b, "XADD stream * a b") else { panic!("it has a name") };
    let Reply::Array(entries) = call(&mut a, "XRANGE stream - +") else { panic!("a list") };
    assert!(matches!(&entries[0], Reply::Array(one) if one[0] == Reply::Bulk(id)));
    // Other databases, but for the site's own.
    assert_eq!(call(&mut a, "SELECT 3"), simple("OK"));
    assert_eq!(call(&mut a, "SET elsewhere 1"), simple("OK"));
    assert!(matches!(call(&mut a, "SELECT 15"), Reply::Error(_)));
    assert_eq!(call(&mut b, "EXISTS elsewhere"), Reply::Integer(0));
    call(&mut b, "SELECT 3");
    assert_eq!(call(&mut b, "GET elsewhere"), bulk("1"));
    let keys = wait_same(&servers);
    assert_eq!(keys.keys().collect::<Vec<_>>(), ["one", "stream", "three", "two"]);
    assert_eq!(call(&mut a, "FLUSHALL"), simple("OK"));
    assert_eq!(call(&mut b, "SELECT 0"), simple("OK"));
    assert_eq!(call(&mut b, "INCR after"), Reply::Integer(1));
    assert_eq!(wait_same(&servers).len(), 1);
    cluster.stop();
}

/// Goal: the clients that come with Redis need no change. Method: both of them, at both sites at once.
#[test]
fn stock_clients_work_unmodified_at_both_sites() {
    let _machine = shared();
    let Some((mut cluster, servers)) = two_sites(&["--save", ""], Order::Paxos) else { return };
    let sites = webs(&cluster);
    assert_eq!(redis_cli(sites[0], &["SET", "greeting", "hello there"]), "OK\n");
    assert_eq!(redis_cli(sites[1], &["GET", "greeting"]), "hello there\n");
    let benches = sites.map(|site| {
        std::thread::spawn(move || {
            let port = site.port().to_string();
            let words = ["-p", &port, "-t", "set,incr,get,lpush,mset", "-n", "2000", "-r", "500"];
            run(Path::new("redis-benchmark"), &[&words[..], &["-P", "8", "-q"]].concat())
        })
    });
    for bench in benches {
        let (code, out, error) = bench.join().unwrap();
        assert_eq!(code, 0, "{out} {error}");
        assert!(out.contains("requests per second") && !out.contains("rror"), "{out} {error}");
    }
    let keys = wait_same(&servers);
    assert!(keys.len() > 400, "{} keys", keys.len());
    let Reply::Integer(length) = call(&mut client(sites[0]), "LLEN mylist") else { panic!() };
    assert_eq!(length, 4_000, "each of two clients pushed two thousand");
    cluster.stop();
}

/// Goal: no acknowledged write is lost and none is done twice, whoever dies. Method: clients at both
/// sites write and count on, each going to the other site when its own is silent, while each site's
/// node, and then its server too, is killed in turn.
#[test]
fn every_acknowledged_write_is_at_both_redis_servers_whoever_is_killed() {
    kill_each_site(Order::Paxos);
}

/// The same, where a group puts commands in order.
#[test]
fn every_acknowledged_write_that_a_group_orders_is_at_both_redis_servers() {
    kill_each_site(Order::Sam);
}

fn kill_each_site(order: Order) {
    let _machine = shared();
    let flags = ["--appendonly", "yes", "--save", ""];
    let Some((mut cluster, mut servers)) = two_sites(&flags, order) else { return };
    let sites = webs(&cluster);
    let crew =
        Crew::start((0..4).map(|writer| move |shift: &Shift| write_on(writer, sites, shift)));
    crew.wait_for_more(PATIENCE, "writes", 100);
    kill_each(&mut cluster, &mut servers, &crew, 40);
    // A server alone dies, under its living node.
    servers[0].kill();
    crew.wait_for_more(PATIENCE, "writes at the other site", 40);
    servers[0].resume();
    crew.wait_for_more(PATIENCE, "writes at both sites", 40);
    let book = crew.finish();
    wait_serving(&cluster);
    let keys = wait_same(&servers);
    let (mut counted, mut unknown) = (BTreeSet::new(), 0);
    for entry in &book {
        match entry {
            Entry::Set(key) => assert!(keys.contains_key(key), "{key} was acknowledged"),
            Entry::Counted(number) => assert!(counted.insert(*number), "{number} was given twice"),
            Entry::Unknown => unknown += 1,
        }
    }
    let Reply::Bulk(count) = call(&mut client(sites[0]), "GET count") else { panic!() };
    let count: usize = String::from_utf8(count).unwrap().parse().unwrap();
    assert!(count >= counted.len() && count <= counted.len() + unknown, "{count}");
    println!("{} acknowledged, {unknown} unknown, counted to {count}, over five kills", book.len());
    cluster.stop();
}

/// Goal: a server that comes back with less than it acknowledged is given what it lacks, and shows
/// nobody the old state. Method: servers that keep nothing on their disks; one of them is killed.
#[test]
fn a_redis_server_that_lost_everything_is_given_it_again() {
    given_again(Order::Paxos);
}

/// The same, where a group puts commands in order.
#[test]
fn a_redis_server_that_lost_everything_is_given_what_a_group_ordered() {
    given_again(Order::Sam);
}

fn given_again(order: Order) {
    let _machine = shared();
    let flags = ["--appendonly", "no", "--save", ""];
    let Some((mut cluster, mut servers)) = two_sites(&flags, order) else { return };
    let sites = webs(&cluster);
    let mut a = client(sites[0]);
    for number in 1..=500 {
        assert_eq!(call(&mut a, "INCR count"), Reply::Integer(number));
    }
    servers[1].kill();
    servers[1].resume();
    // Nobody writes: that something is missing shows all the same.
    let mut b = client(sites[1]);
    let read = until("the other site to read", || match call(&mut b, "GET count") {
        Reply::Error(why) => Err(why),
        read => Ok(read),
    });
    assert_eq!(read, bulk("500"));
    assert_eq!(wait_same(&servers).len(), 1);
    let status = cluster.status("a").unwrap();
    let counted = |site: &Value| site["diverged"].as_u64().unwrap();
    assert_eq!(status["web"].as_array().unwrap().iter().map(counted).sum::<u64>(), 0, "{status}");
    cluster.stop();
}

/// Goal: a server that went astray is made again as the other is, by the manual's commands. Method:
/// somebody changes a key at one server, past its site.
#[test]
fn a_redis_server_that_went_astray_is_rebuilt_as_the_manual_says() {
    let _machine = shared();
    let Some((mut cluster, servers)) = two_sites(&["--save", ""], Order::Paxos) else { return };
    cluster.stop();
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../actors/docs/examples/redis-rebuild.sh");
    for (at, name) in ["a", "b"].into_iter().enumerate() {
        let [mine, other] =
            [servers[at].port(), servers[1 - at].port()].map(|port| port.to_string());
        let import = [file, "127.0.0.1", &mine, "127.0.0.1", &other];
        let keys = format!(
            "\n[web]\non_mismatch = \"quarantine\"\nexport = [\"true\"]\nimport = {import:?}\n\
             rebuild_within = \"30s\"\n"
        );
        cluster.rewrite(name, "\n[web]\n", &keys);
    }
    cluster.resume();
    wait_serving(&cluster);
    let sites = webs(&cluster);
    let mut a = client(sites[0]);
    assert_eq!(call(&mut a, "SET key right"), simple("OK"));
    wait_same(&servers);
    call(&mut servers[1].client(), "SET key wrong");
    assert_eq!(call(&mut a, "APPEND key !!"), Reply::Integer(7));
    assert_eq!(call(&mut a, "SET key longer GET"), bulk("right!!"));
    cluster.wait_status("a", "a site that is found out", |status| {
        status["web"].as_array().unwrap().iter().any(|site| site["diverged"] == 1)
    });
    for number in 1..=50 {
        assert_eq!(call(&mut a, "INCR count"), Reply::Integer(number));
    }
    wait_serving(&cluster);
    let keys = wait_same(&servers);
    assert_eq!(keys.keys().collect::<Vec<_>>(), ["count", "key"]);
    assert_eq!(call(&mut client(sites[1]), "GET count"), bulk("50"));
    cluster.stop();
}

/// What a writer remembers.
enum Entry {
    Set(String),
    Counted(i64),
    Unknown,
}

/// Writes new keys, and counts, until the shift is over.
fn write_on(writer: usize, sites: [SocketAddr; 2], shift: &Shift) -> Vec<Entry> {
    let (mut site, mut book) = (writer % 2, Vec::new());
    let mut connection = None;
    for number in 0.. {
        if shift.is_over() {
            break;
        }
        if connection.is_none() {
            connection = Resp::connect(sites[site], Duration::from_secs(10)).ok();
        }
        let Some(client) = &mut connection else {
            site = 1 - site;
            continue;
        };
        let key = format!("{writer}:{number}");
        let words: &[&[u8]] = match number % 2 {
            0 => &[b"SET", key.as_bytes(), b"there"],
            _ => &[b"INCR", b"count"],
        };
        match client.call(words) {
            Ok(Reply::Simple(_)) => book.push(Entry::Set(key)),
            Ok(Reply::Integer(count)) => book.push(Entry::Counted(count)),
            // Not applied: the other site may do better.
            Ok(Reply::Error(why)) if why.starts_with("CLUSTERDOWN") => {
                (site, connection) = (1 - site, None);
                continue;
            }
            Ok(Reply::Error(why)) => {
                assert!(why.starts_with("UNCERTAIN"), "{why}");
                book.push(Entry::Unknown);
                (site, connection) = (1 - site, None);
                continue;
            }
            Ok(other) => panic!("{other:?} to {words:?}"),
            Err(_) => {
                book.push(Entry::Unknown);
                (site, connection) = (1 - site, None);
                continue;
            }
        }
        shift.achieved();
    }
    book
}
