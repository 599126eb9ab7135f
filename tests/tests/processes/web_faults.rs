//! What becomes of sites whose nodes are stopped or cut off from each other.

use std::time::Duration;

use synod_tests::{
    process::{
        child::run,
        clients::Clients,
        cluster::{Cluster, mains_of},
        http::Http,
        machine::{alone, shared},
        order::Order,
        sites::{at, change, sites as sites_of, two_sites, wait_both_serve, wait_same, webs},
        wait::{now, until},
    },
    relay::Relay,
};

/// Goal: a site whose node is stopped for longer than it takes the other to go on without it comes back
/// level, and answers nothing from the past. Method: that of the node which follows in the log, then that of the
/// one which leads; who reads there has a question waiting when it wakes up.
#[test]
fn a_site_that_is_stopped_comes_back_level_and_tells_nothing_from_the_past() {
    stop_each_site(Order::Paxos);
}

/// The same, where a group puts requests in order.
#[test]
fn a_site_that_is_stopped_comes_back_level_in_the_order_of_a_group() {
    stop_each_site(Order::Sam);
}

fn stop_each_site(order: Order) {
    let _machine = shared();
    let Some((mut cluster, servers)) = two_sites(order) else { return };
    let clients = Clients::start(webs(&cluster));
    let (leader, follower) = cluster.leader_and_follower();
    for (stopped, other) in [(&follower, &leader), (&leader, &follower)] {
        cluster.signal("STOP", &[stopped]);
        let since = now();
        wait_alone(&cluster, other);
        while now().since(since) < STOPPED {
            clients.wait_written(at(other), 5);
        }
        cluster.signal("CONT", &[stopped]);
        wait_both(&cluster);
        clients.wait_at_both(20);
    }
    clients.finish(|| wait_same(&servers));
    cluster.stop();
}

/// Goal: of two sites whose nodes cannot reach each other one goes on, and the other refuses what it cannot
/// have ordered, in words, while it still reads what may be old. Method: relays between the mains, which
/// both reach the auxiliary.
#[test]
fn of_two_sites_that_are_cut_off_one_goes_on_and_the_other_refuses() {
    let _machine = shared();
    let Some((mut cluster, servers)) = two_sites(Order::Paxos) else { return };
    let relays = change(&mut cluster, cuttable);
    let put = |name: &str, path: &str, body: &[u8]| {
        let mut http = Http::new(webs(&cluster)[at(name)]);
        http.request("PUT", path, &[], body).map_err(|why| format!("{why:?}"))
    };
    assert_eq!(put("a", "/local/old", b"old").unwrap().status, 201);
    wait_same(&servers);
    let clients = Clients::start(webs(&cluster));
    relays.iter().for_each(Relay::cut);
    let alone = until("one main alone", || {
        for name in ["a", "b"] {
            if mains_of(&cluster.status(name)?) == [name] {
                return Ok(name);
            }
        }
        Err("both count".to_owned())
    });
    let lost = if alone == "a" { "b" } else { "a" };
    let needs = format!("needs main {alone}");
    cluster.wait_status(lost, &needs, |status| status["halted"] == needs.as_str());
    let before = clients.written(at(lost));
    assert_eq!(put(alone, "/local/old", b"new").unwrap().status, 204);
    clients.wait_written(at(alone), 50);
    let refused = put(lost, "/local/never", b"never").unwrap();
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")));
    assert_eq!(refused.json()["outcome"], "not_applied", "{}", refused.text());
    let mut reader = Http::new(webs(&cluster)[at(lost)]);
    let local = reader.get("/local/old").unwrap();
    assert_eq!((local.status, local.text().as_str()), (200, "old"));
    assert_eq!(clients.written(at(lost)), before, "{lost} acknowledged something");
    relays.iter().for_each(Relay::heal);
    wait_both(&cluster);
    clients.wait_at_both(20);
    clients.finish(|| {
        let mut files = wait_same(&servers);
        assert_eq!(files.remove("/local/old").unwrap(), b"new");
        files
    });
    cluster.stop();
}

/// Goal: two sites with 80 ms between them are one. A write takes a round trip and not many, at either; a site's
/// node is killed and comes back, and one is removed, while clients go on. Method: relays between all
/// nodes, which hold each datagram.
#[test]
fn two_sites_that_are_far_apart_are_one_and_a_write_takes_about_a_round_trip() {
    let _machine = alone();
    let Some((mut cluster, servers)) = two_sites(Order::Paxos) else { return };
    let _far = change(&mut cluster, far_apart);
    let sites = webs(&cluster);
    for (name, other) in [("a", "b"), ("b", "a")] {
        let [mut here, mut there] = [name, other].map(|name| Http::new(sites[at(name)]));
        let mut put = |number: usize| {
            let (path, began) = (format!("/far/{name}{number}"), now());
            assert_eq!(here.request("PUT", &path, &[], path.as_bytes()).unwrap().status, 201);
            let took = now().since(began);
            assert_eq!(there.get(&path).unwrap().text(), path, "read at {other} at once");
            took
        };
        let mut took: Vec<Duration> = (0..15).map(&mut put).collect();
        took.sort_unstable();
        println!("a write at {name}: {took:?}");
        assert!((ROUND_TRIP..3 * ROUND_TRIP).contains(&took[7]), "{took:?}");
    }
    let clients = Clients::start(sites);
    let (leader, other) = cluster.leader_and_follower();
    cluster.signal("KILL", &[&leader]);
    clients.wait_written(at(&other), 20);
    cluster.wait_restarted(&leader);
    wait_both(&cluster);
    clients.wait_at_both(20);
    let client = cluster.dir().join("client.toml").display().to_string();
    let words = ["members", "remove", &leader, "--cluster", &client, "--timeout", "20s"];
    let (code, _, why) = run(cluster.program(), &words);
    assert_eq!(code, 0, "{why}");
    clients.wait_written(at(&other), 50);
    let gone = at(&leader);
    clients.finish(|| {
        cluster.wait_status(&other, "all to be performed", |status| {
            sites_of(status)[1 - gone]["lag"] == 0
        });
        let mut files = servers[1 - gone].files();
        files.retain(|path, _| !path.starts_with("/far/"));
        files
    });
    cluster.stop();
}

/// Lets each datagram between any two nodes be under way for half a round trip.
fn far_apart(cluster: &Cluster) -> Vec<Relay> {
    for (name, _) in cluster.nodes() {
        cluster.rewrite(name, "profile = \"lan\"", "profile = \"wan\"");
    }
    let relays = Relay::everywhere(cluster);
    relays.iter().for_each(|relay| relay.delay(40));
    relays
}

/// Lets the mains reach each other through relays only, and what is below `/local` be read without asking.
fn cuttable(cluster: &Cluster) -> [Relay; 2] {
    let route = r#"routes = [{ path = "/local", methods = ["GET"], read = "local" }]"#;
    for name in ["a", "b"] {
        cluster.rewrite(name, "\n[web]\n", &format!("\n[web]\n{route}\n"));
    }
    Relay::between_mains(cluster)
}

/// Waits until a main goes on without the other.
fn wait_alone(cluster: &Cluster, name: &str) {
    cluster.wait_status(name, "it alone", |status| mains_of(status) == [name]);
}

/// Waits until both mains count again, and both sites serve.
fn wait_both(cluster: &Cluster) {
    for name in ["a", "b"] {
        cluster.wait_status(name, "both mains", |status| mains_of(status) == ["a", "b"]);
        cluster.wait_ready(name);
    }
    wait_both_serve(cluster);
}

/// Longer than any lease, and than a main is waited for.
const STOPPED: Duration = Duration::from_secs(4);

/// Between any two nodes that are far apart.
const ROUND_TRIP: Duration = Duration::from_millis(80);
