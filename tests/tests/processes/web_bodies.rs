//! Large bodies of requests to ordinary servers behind a cluster: at both sites, in nobody's memory.

use std::fs;

use synod_tests::process::{
    cluster::Cluster,
    crew::{Crew, Shift},
    http::Http,
    machine::{peak_bytes, shared},
    order::Order,
    sites::{kill_each, two_sites, wait_same, webs, write_on},
    wait::{PATIENCE, until},
};

/// Goal: the order has of a large body what it is called, and no process has it in memory. Method: the
/// largest that is taken by default is put at one site and read at the other; the memory of all nodes and what the log has grown by
/// stay far below that, and nothing of it stays on the nodes' disks once both servers have it.
#[test]
fn a_large_body_is_at_both_sites_and_neither_in_memory_nor_in_the_log() {
    large_at_both(Order::Paxos);
}

/// The same, where a group puts requests in order.
#[test]
fn a_large_body_that_a_group_orders_is_at_both_sites_and_not_in_memory() {
    large_at_both(Order::Sam);
}

fn large_at_both(order: Order) {
    let _machine = shared();
    let Some((mut cluster, servers)) = two_sites(order) else { return };
    let [mut a, mut b] = webs(&cluster).map(Http::new);
    assert_eq!(a.request("PUT", "/small", &[], b"small").unwrap().status, 201);
    let peaks =
        |cluster: &Cluster| cluster.nodes().map(|(_, node)| peak_bytes(node.pid)).max().unwrap();
    let (before, log) = (peaks(&cluster), journals(&cluster));
    let body: Vec<u8> = (0..LARGE).map(|at| (at % 251) as u8).collect();
    let put = a.request("PUT", "/large", &[("idempotency-key", "k")], &body).unwrap();
    assert_eq!((put.status, put.header("synod-seq")), (201, Some("2")), "{}", put.text());
    assert!(b.get("/large").unwrap().body == body, "the other site's differs");
    // What it was is known by what it is called.
    let again = b.request("PUT", "/large", &[("idempotency-key", "k")], &body).unwrap();
    assert_eq!((again.status, again.header("idempotent-replayed")), (201, Some("true")));
    let (after, grown) = (peaks(&cluster), journals(&cluster) - log);
    println!("peaks of {before} and {after} bytes; journals grew by {grown}");
    assert!(after - before < LARGE / 2, "a node has grown from {before} to {after}");
    assert!(grown < LARGE / 10, "it is in the log: {grown}");
    assert_eq!(b.request("DELETE", "/large", &[], b"").unwrap().status, 204);
    for name in ["a", "b"] {
        let dir = cluster.dir().join(name).join("data/web.bodies");
        until("no body on a node's disk", || {
            let left = fs::read_dir(&dir).map_err(|why| format!("{}: {why}", dir.display()))?;
            match left.count() {
                0 => Ok(()),
                left => Err(format!("{left} in {}", dir.display())),
            }
        });
    }
    assert_eq!(wait_same(&servers).keys().collect::<Vec<_>>(), ["/small"]);
    cluster.stop();
}

/// What the mains have written into their journals.
fn journals(cluster: &Cluster) -> u64 {
    let of = |name| {
        let text = cluster.http(name).get("/metrics").unwrap().text();
        let lines = text.lines().filter(|line| line.starts_with("synod_journal_bytes_total"));
        let values = lines.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap());
        values.sum::<u64>()
    };
    ["a", "b"].map(of).iter().sum()
}

/// Goal: large bodies are lost no more than small ones. Method: clients put bodies of some MiB at both
/// sites, while each site's node, and then its server, is killed in turn.
#[test]
fn every_acknowledged_large_body_is_at_both_sites_whoever_is_killed() {
    kill_each_site(Order::Paxos);
}

/// The same, where a group puts requests in order.
#[test]
fn every_acknowledged_large_body_that_a_group_orders_is_at_both_sites() {
    kill_each_site(Order::Sam);
}

fn kill_each_site(order: Order) {
    let _machine = shared();
    let Some((mut cluster, mut servers)) = two_sites(order) else { return };
    let sites = webs(&cluster);
    let crew =
        Crew::start((0..2).map(|writer| move |shift: &Shift| write_on(writer, sites, shift, body)));
    crew.wait_for_more(PATIENCE, "writes", 4);
    kill_each(&mut cluster, &mut servers, &crew, 4);
    let acknowledged = crew.finish();
    let files = wait_same(&servers);
    for (path, number) in &acknowledged {
        let file = files.get(path).unwrap_or_else(|| panic!("{path} was acknowledged"));
        assert!(*file == body(path, *number), "{path} is not what was put");
    }
    println!("{} acknowledged large bodies at both sites, over four kills", acknowledged.len());
    cluster.stop();
}

/// What is written at a path: small things, and from just above what is kept apart to several of its
/// pieces.
fn body(path: &str, number: usize) -> Vec<u8> {
    let length = [100, (1 << 20) + 1, 3_000_000][number % 3];
    path.bytes().cycle().take(length).collect()
}

/// Far more than a node has for itself.
const LARGE: u64 = 64 << 20;
