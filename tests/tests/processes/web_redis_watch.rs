//! WATCH before stock redis-servers: a transaction holds everywhere what its client saw, or is performed nowhere.

use std::{collections::BTreeSet, net::SocketAddr, time::Duration};

use serde_json::Value;
use synod_tests::process::{
    crew::{Crew, Shift},
    machine::shared,
    order::Order,
    redis::{Redis, call, client, two_sites},
    resp::{Reply, Resp},
    sites::{kill_each, wait_both_serve, wait_equal, webs},
    wait::{PATIENCE, until},
};

/// Goal: whatever a key holds, a transaction behind WATCH is performed at both servers when it is
/// unchanged and at none when another site changed it. Method: keys of every kind, with members that
/// each server keeps in an order of its own, changed one after the other through the other site.
#[test]
fn watched_keys_of_every_kind_are_found_as_they_were_or_nothing_is_done() {
    let _machine = shared();
    let Some((mut cluster, servers)) = two_sites(&["--save", ""], Order::Paxos) else { return };
    let [mut a, mut b] = webs(&cluster).map(client);
    let members = |prefix: &str| (0..300).map(|n| format!(" {prefix}{n}")).collect::<String>();
    let fields: String = (0..300).map(|n| format!(" f{n} v{n}")).collect();
    let scores: String = (0..300).map(|n| format!(" {n}.5 m{n}")).collect();
    for line in [
        "SET string 1",
        &format!("RPUSH list{}", members("m")),
        &format!("SADD set{}", members("m")),
        &format!("HSET hash{fields}"),
        &format!("ZADD zset{scores}"),
        "XADD stream * a b",
    ] {
        assert!(!matches!(call(&mut a, line), Reply::Error(_)), "{line}");
    }
    let changes = [
        "SET string 2",
        "LSET list 7 other",
        "SREM set m7",
        "HSET hash f7 other",
        "ZINCRBY zset 1 m7",
        "XADD stream * a c",
        "SET nothing 1",
        "DEL string",
    ];
    for change in [""].iter().chain(&changes) {
        assert_eq!(
            call(&mut a, "WATCH string list set hash zset stream nothing"),
            Reply::Simple("OK".to_owned())
        );
        if !change.is_empty() {
            assert!(!matches!(call(&mut b, change), Reply::Error(_)), "{change}");
        }
        assert_eq!(call(&mut a, "MULTI"), Reply::Simple("OK".to_owned()));
        call(&mut a, "INCR performed");
        let said = call(&mut a, "EXEC");
        let expected =
            if change.is_empty() { Reply::Array(vec![Reply::Integer(1)]) } else { Reply::Nil };
        assert_eq!(said, expected, "{change}");
    }
    for server in &servers {
        until("what was performed", || match number(&mut server.client(), "performed") {
            1 => Ok(()),
            other => Err(other.to_string()),
        });
    }
    let status = cluster.status("a").unwrap();
    let counted = |site: &Value| site["diverged"].as_u64().unwrap();
    assert_eq!(status["web"].as_array().unwrap().iter().map(counted).sum::<u64>(), 0, "{status}");
    cluster.stop();
}

/// Goal: no two transactions are performed that saw the same, whichever sites they came through and
/// whoever dies meanwhile. Method: clients at both sites count by WATCH, GET and SET, while each site
/// is killed in turn.
#[test]
fn clients_that_count_by_watching_never_count_the_same() {
    count(Order::Paxos);
}

/// The same, where a group puts commands in order.
#[test]
fn clients_that_count_by_watching_never_count_the_same_where_a_group_orders() {
    count(Order::Sam);
}

fn count(order: Order) {
    let _machine = shared();
    let flags = ["--appendonly", "yes", "--save", ""];
    let Some((mut cluster, mut servers)) = two_sites(&flags, order) else { return };
    let sites = webs(&cluster);
    let crew = Crew::start((0..4).map(|at| move |shift: &Shift| count_on(at, sites, shift)));
    crew.wait_for_more(PATIENCE, "counts", 40);
    kill_each(&mut cluster, &mut servers, &crew, 20);
    let book = crew.finish();
    wait_both_serve(&cluster);
    wait_equal("keys", || servers.each_ref().map(Redis::content));
    let (mut counted, mut unknown, mut changed) = (BTreeSet::new(), 0, 0);
    for entry in &book {
        match entry {
            Entry::Counted(number) => assert!(counted.insert(*number), "{number} was seen twice"),
            Entry::Changed => changed += 1,
            Entry::Unknown => unknown += 1,
        }
    }
    let last = counted.last().copied().unwrap();
    println!("{} counted, {changed} met another, {unknown} unknown, to {last}", counted.len());
    assert!(changed > 0, "they meet");
    let count = usize::try_from(number(&mut servers[0].client(), "count")).unwrap();
    assert!(count >= counted.len() && count <= counted.len() + unknown, "{count}");
    cluster.stop();
}

/// What a server has of one key, past everything.
fn number(client: &mut Resp, key: &str) -> i64 {
    match call(client, &format!("GET {key}")) {
        Reply::Bulk(text) => String::from_utf8(text).unwrap().parse().unwrap(),
        Reply::Nil => 0,
        other => panic!("{other:?}"),
    }
}

/// What a client remembers.
enum Entry {
    Counted(i64),
    Changed,
    Unknown,
}

/// Counts on until the shift is over, at the other site when its own is silent.
fn count_on(at: usize, sites: [SocketAddr; 2], shift: &Shift) -> Vec<Entry> {
    let (mut site, mut book) = (at % 2, Vec::new());
    let mut connection = None;
    while !shift.is_over() {
        if connection.is_none() {
            connection = Resp::connect(sites[site], Duration::from_secs(10)).ok();
        }
        let Some(client) = &mut connection else {
            site = 1 - site;
            continue;
        };
        match count_once(client) {
            Ok(entry) => {
                if matches!(entry, Entry::Counted(_)) {
                    shift.achieved();
                }
                book.push(entry);
            }
            Err(entry) => {
                book.extend(entry);
                (site, connection) = (1 - site, None);
            }
        }
    }
    book
}

/// Counts once; or what is to be remembered of an attempt that failed.
fn count_once(client: &mut Resp) -> Result<Entry, Option<Entry>> {
    let mut ask = |words: &[&[u8]]| match client.call(words) {
        Ok(Reply::Error(_)) | Err(_) => Err(None),
        Ok(reply) => Ok(reply),
    };
    ask(&[b"WATCH", b"count"])?;
    let seen = match ask(&[b"GET", b"count"])? {
        Reply::Nil => 0,
        Reply::Bulk(text) => String::from_utf8(text).unwrap().parse::<i64>().unwrap(),
        other => panic!("{other:?}"),
    };
    ask(&[b"MULTI"])?;
    ask(&[b"SET", b"count", (seen + 1).to_string().as_bytes()])?;
    match client.call(&[b"EXEC"]) {
        Ok(Reply::Array(_)) => Ok(Entry::Counted(seen + 1)),
        Ok(Reply::Nil) => Ok(Entry::Changed),
        Ok(Reply::Error(why)) if why.starts_with("CLUSTERDOWN") => Err(None),
        Ok(Reply::Error(why)) => {
            assert!(why.starts_with("UNCERTAIN"), "{why}");
            Err(Some(Entry::Unknown))
        }
        Ok(other) => panic!("{other:?}"),
        Err(_) => Err(Some(Entry::Unknown)),
    }
}
