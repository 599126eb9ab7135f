//! Ordinary servers behind a cluster become one that survives.

use serde_json::Value;
use synod_tests::process::{
    child::run,
    cluster::Cluster,
    crew::{Crew, Shift},
    http::{Answer, Http},
    machine::shared,
    order::Order,
    orders::Orders,
    sites::{before, kill_each, sites, two_sites, wait_same, webs, write_on},
    wait::{PATIENCE, now, until},
};

/// Goal: what is done at either site is done at both, in one order. Method: a WebDAV client's verbs,
/// each read at the other site at once.
#[test]
fn two_stock_servers_are_one_at_both_sites() {
    one_at_both_sites(Order::Paxos);
}

/// The same, where a group puts requests in order.
#[test]
fn two_stock_servers_that_a_group_orders_are_one_at_both_sites() {
    one_at_both_sites(Order::Sam);
}

fn one_at_both_sites(order: Order) {
    let _machine = shared();
    let Some((mut cluster, servers)) = two_sites(order) else { return };
    let [mut a, mut b] = webs(&cluster).map(Http::new);
    let mut seq = 0;
    let mut ordered = |http: &mut Http, method, path, headers: &[(&str, &str)], body: &[u8]| {
        let answer = http.request(method, path, headers, body).unwrap();
        let number: u64 = answer.header("synod-seq").expect("it was ordered").parse().unwrap();
        assert!(number > seq, "{number} behind {seq}");
        seq = number;
        answer
    };
    assert_eq!(ordered(&mut a, "PUT", "/one.txt", &[], b"one").status, 201);
    assert_eq!(b.get("/one.txt").unwrap().text(), "one");
    assert_eq!(ordered(&mut b, "PUT", "/one.txt", &[], b"changed").status, 204);
    let read = a.get("/one.txt").unwrap();
    assert_eq!(read.text(), "changed");
    // Conditions hold at both, since both servers date and tag a file alike.
    let tag = read.header("etag").unwrap().to_owned();
    assert_eq!(b.get("/one.txt").unwrap().header("etag"), Some(tag.as_str()));
    let same = b.request("GET", "/one.txt", &[("if-none-match", &tag)], b"").unwrap();
    assert_eq!(same.status, 304);
    assert_eq!(ordered(&mut a, "MKCOL", "/folder/", &[], b"").status, 201);
    let to = [("destination", "/folder/two.txt")];
    assert_eq!(ordered(&mut b, "COPY", "/one.txt", &to, b"").status, 204);
    assert_eq!(a.get("/folder/two.txt").unwrap().text(), "changed");
    let to = [("destination", "/folder/three.txt")];
    assert_eq!(ordered(&mut a, "MOVE", "/one.txt", &to, b"").status, 204);
    assert_eq!(b.get("/one.txt").unwrap().status, 404);
    assert_eq!(ordered(&mut b, "DELETE", "/folder/two.txt", &[], b"").status, 204);
    assert_eq!(a.get("/folder/two.txt").unwrap().status, 404);
    let part = b.request("GET", "/folder/three.txt", &[("range", "bytes=2-4")], b"").unwrap();
    assert_eq!((part.status, part.text().as_str()), (206, "ang"));
    // A key makes one intention of two requests, at two sites.
    let key = [("idempotency-key", "k")];
    assert_eq!(ordered(&mut a, "PUT", "/four.txt", &key, b"four").status, 201);
    let again = b.request("PUT", "/four.txt", &key, b"four").unwrap();
    assert_eq!((again.status, again.header("idempotent-replayed")), (201, Some("true")));
    let other = b.request("PUT", "/four.txt", &key, b"five").unwrap();
    assert_eq!((other.status, other.json()["outcome"].as_str()), (422, Some("not_applied")));
    let asked = a.get("/.well-known/synod/outcome/k").unwrap().json();
    let (outcome, status) = (asked["outcome"].as_str(), asked["status"].as_u64());
    assert_eq!((outcome, status), (Some("applied"), Some(201)), "{asked}");
    // More than one command holds, and more than one message.
    let body: Vec<u8> = (0..5_000_000_u32).map(|at| (at % 251) as u8).collect();
    assert_eq!(ordered(&mut a, "PUT", "/large.bin", &[], &body).status, 201);
    assert!(b.get("/large.bin").unwrap().body == body, "the large one differs");
    let files = wait_same(&servers);
    let names = ["/folder/", "/folder/three.txt", "/four.txt", "/large.bin"];
    assert_eq!(files.keys().collect::<Vec<_>>(), names);
    cluster.stop();
}

/// Goal: no acknowledged write is lost, whoever dies. Method: clients at both sites write on, each
/// going to the other site when its own is silent, while each site's node, and then its server, is
/// killed in turn; both disks hold every acknowledged file at the end, byte for byte.
#[test]
fn every_acknowledged_write_is_at_both_sites_whoever_is_killed() {
    kill_each_site(Order::Paxos);
}

/// The same, where a group puts requests in order, whose sequencer's node is killed, too.
#[test]
fn every_acknowledged_write_that_a_group_orders_is_at_both_sites_whoever_is_killed() {
    kill_each_site(Order::Sam);
}

fn kill_each_site(order: Order) {
    let _machine = shared();
    let Some((mut cluster, mut servers)) = two_sites(order) else { return };
    let sites = webs(&cluster);
    let crew =
        Crew::start((0..4).map(|writer| move |shift: &Shift| write_on(writer, sites, shift, body)));
    crew.wait_for_more(PATIENCE, "writes", 50);
    for round in 0..if order == Order::Sam { 3 } else { 0 } {
        let name = sequencer(&cluster);
        let killed = now();
        cluster.signal("KILL", &[&name]);
        crew.wait_for_more(PATIENCE, "writes without who ordered them", 20);
        let took = now().since(killed);
        cluster.wait_restarted(&name);
        cluster.wait_ready(&name);
        crew.wait_for_more(PATIENCE, "writes with it again", 20);
        println!("round {round}: {name} ordered and was killed; 20 writes took {took:?}");
    }
    kill_each(&mut cluster, &mut servers, &crew, 20);
    let acknowledged = crew.finish();
    let files = wait_same(&servers);
    for (path, number) in &acknowledged {
        assert_eq!(files.get(path), Some(&body(path, *number)), "{path} was acknowledged");
    }
    println!("{} acknowledged writes at both sites, over four kills", acknowledged.len());
    cluster.stop();
}

/// Goal: servers that make the same of what was agreed are one, and one that does not is found out.
/// Method: two of the example's servers, of which the second makes identifiers of its own.
#[test]
fn servers_that_use_what_was_agreed_are_equal_and_others_are_found_out() {
    equal_or_found_out(Order::Paxos);
}

/// The same, where a group puts requests in order, and time and seeds with them.
#[test]
fn servers_that_use_what_a_group_agreed_are_equal_and_others_are_found_out() {
    equal_or_found_out(Order::Sam);
}

fn equal_or_found_out(order: Order) {
    let _machine = shared();
    for (flags, differ) in [(&[][..], false), (&["--random"], true)] {
        let servers = [Orders::start(&[]), Orders::start(flags)];
        let urls = servers.each_ref().map(Orders::url);
        let mut cluster = before(&urls, order);
        let [mut a, mut b] = webs(&cluster).map(Http::new);
        let made = a.request("POST", "/orders", &[], b"tea").unwrap();
        assert_eq!((made.status, made.header("synod-seq")), (201, Some("1")));
        let status = cluster.wait_status("a", "both sites to have answered", |status| {
            let counted = |site: &Value| site["diverged"].as_u64().unwrap_or_default();
            let done = sites(status).iter().all(|site| site["applied"] == 1);
            done && (sites(status).iter().map(counted).sum::<u64>() > 0) == differ
        });
        let read = b.get("/orders/1").unwrap();
        assert_eq!(read.status == 200 && read.body == made.body, !differ, "{status}");
        cluster.stop();
    }
}

fn put_three(site: &mut Http) -> Result<Answer, String> {
    site.request("PUT", "/three", &[], b"three").map_err(|why| format!("{why:?}"))
}

/// The node that puts requests in order.
fn sequencer(cluster: &Cluster) -> String {
    until("somebody to order", || {
        let status = cluster.http("m1").json("/multicast")?;
        let groups = status["groups"].as_array().map_or(&[][..], Vec::as_slice);
        let group = groups.iter().find(|group| group["group"] == "synod.web");
        let name = group.and_then(|group| group["sequencer"].as_str());
        name.map(str::to_owned).ok_or_else(|| status.to_string())
    })
}

/// Goal: a cluster has one order, for ever, and who asks a node about its sites is told of that one.
/// Method: a site is told to join by the log where a group orders; an operator holds a server.
#[test]
fn sites_that_a_group_orders_are_tended_there_and_join_nowhere_else() {
    let _machine = shared();
    let Some((mut cluster, servers)) = two_sites(Order::Sam) else { return };
    let client = cluster.dir().join("client.toml").display().to_string();
    let tend = |wish: &str| {
        let message = format!("{{\"site\":\"b\",\"wish\":{wish}}}");
        let words = ["call", "web", "web.tend", &message, "--cluster", &client];
        run(cluster.program(), &words)
    };
    let [mut a, mut b] = webs(&cluster).map(Http::new);
    let put = |http: &mut Http, path: &str| http.request("PUT", path, &[], b"here").unwrap().status;
    assert_eq!(put(&mut a, "/one"), 201);
    assert_eq!(tend("\"hold\"").0, 0);
    assert_eq!(put(&mut a, "/two"), 201);
    assert!(!servers[1].files().contains_key("/two"), "its server is held");
    cluster.wait_status("a", "a site that is held", |status| {
        let held = &sites(status)[1];
        let reason = held["reason"].as_str().unwrap_or_default();
        held["state"] == "catching_up" && reason.contains("operator holds")
    });
    assert_eq!(tend("\"release\"").0, 0);
    assert_eq!(b.get("/two").unwrap().text(), "here");
    // Whoever is outside has no place in this order.
    let (code, _, why) =
        run(cluster.program(), &["call", "web", "web.elsewhere", "{}", "--cluster", &client]);
    assert_eq!(code, 0, "{why}");
    // Nothing for ten milliseconds, as a publisher would say it.
    let nothing = [0x92, 10, 0x90];
    let mut http = cluster.http("a");
    let published = http.request("POST", "/multicast/synod.web", &[], &nothing).unwrap();
    assert_eq!(published.status, 403, "{}", published.text());
    assert_eq!(http.request("POST", "/multicast/other", &[], &nothing).unwrap().status, 200);
    cluster.stop();
    cluster.tell("SYNOD_WEB_ORDER", "paxos");
    cluster.resume();
    let refused = until("a site that is told why not", || {
        let answer = put_three(&mut Http::new(webs(&cluster)[0]))?;
        let text = answer.text();
        if text.contains("ordered by multicast") { Ok(answer) } else { Err(text) }
    });
    assert_eq!(refused.json()["outcome"], "not_applied", "{}", refused.text());
    // Who looks for it finds both, whichever node is asked, and why they do not serve.
    until("two sites outside", || {
        let (code, page, why) = run(cluster.program(), &["web", "--json", "--cluster", &client]);
        let page: Value = serde_json::from_str(&page).map_err(|_| why)?;
        let outside = |site: &Value| {
            let reason = site["reason"].as_str().unwrap_or_default();
            site["state"] == "quarantined" && reason.contains("ordered by multicast")
        };
        let all = page["web"].as_array().cloned().unwrap_or_default();
        match code == 0 && all.len() == 2 && all.iter().all(outside) {
            true => Ok(()),
            false => Err(page.to_string()),
        }
    });
    cluster.stop();
    cluster.tell("SYNOD_WEB_ORDER", "sam");
    cluster.resume();
    let mut a = Http::new(webs(&cluster)[0]);
    until("writes again", || match put_three(&mut a)? {
        answer if answer.status == 201 => Ok(()),
        answer => Err(answer.text()),
    });
    let files = wait_same(&servers);
    assert_eq!(files.keys().collect::<Vec<_>>(), ["/one", "/three", "/two"]);
    cluster.stop();
}

/// What is written at a path.
fn body(path: &str, _: usize) -> Vec<u8> {
    format!("{path} ").repeat(40).into_bytes()
}
