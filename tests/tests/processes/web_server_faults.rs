//! What becomes of sites whose servers die, or cannot write, while their nodes live.

use std::path::Path;

use synod_tests::process::{
    child::Process,
    clients::Clients,
    cluster::Cluster,
    crew::{Crew, Shift},
    http::{Answer, Http},
    machine::{free_tcp_port, shared},
    nginx::Nginx,
    order::Order,
    programs::program,
    sites::{
        Server as _, at, before, change, sites, two_sites, two_sites_of, wait_both_serve,
        wait_same, webs,
    },
    wait::{PATIENCE, pause, until},
};

/// Goal: a site whose server died says so and refuses, while the other goes on, and is level once its
/// server is back. Method: stock servers, killed in turn under load.
#[test]
fn a_site_whose_server_dies_says_so_and_is_level_once_that_is_back() {
    kill_each_server(Order::Paxos);
}

/// The same, where a group puts requests in order.
#[test]
fn a_site_whose_server_dies_is_level_again_in_the_order_of_a_group() {
    kill_each_server(Order::Sam);
}

fn kill_each_server(order: Order) {
    let _machine = shared();
    let Some((mut cluster, mut servers)) = two_sites(order) else { return };
    let clients = Clients::start(webs(&cluster));
    for (name, other) in [("a", "b"), ("b", "a")] {
        servers[at(name)].kill();
        cluster.wait_status(other, "a site to be down", |status| {
            let site = &sites(status)[at(name)];
            site["state"] == "down"
                && site["reason"].as_str().is_some_and(|why| why.contains("refused"))
        });
        assert_refused(&put(&cluster, name), "cannot be reached");
        clients.wait_written(at(other), 50);
        servers[at(name)].resume();
        wait_both_serve(&cluster);
        clients.wait_at_both(20);
    }
    clients.finish(|| wait_same(&servers));
    cluster.stop();
}

/// Goal: where nobody knows whether a server performed a request that makes something new each time, it
/// is not performed again, and its site is sent away and names it; all that was acknowledged is at the
/// other. Method: clients order at both sites; the example's server behind b ends in the middle of a
/// request, and is started again.
#[test]
fn what_a_server_died_with_is_not_performed_again_and_its_site_says_which_it_was() {
    die_with_a_request(Order::Paxos);
}

/// The same, where a group puts requests in order.
#[test]
fn what_a_server_died_with_is_not_performed_again_in_the_order_of_a_group() {
    die_with_a_request(Order::Sam);
}

fn die_with_a_request(order: Order) {
    let _machine = shared();
    let folder = tempfile::tempdir().unwrap();
    let ports = [0, 1].map(|_| free_tcp_port());
    let start = |site: usize, more: &[&str]| {
        let dir = folder.path().join(site.to_string()).display().to_string();
        let listen = ports[site].to_string();
        let words = [&[listen.as_str(), &dir], more].concat();
        Process::start(&program("orders"), &words, &folder.path().join("log"))
    };
    let mut servers = [start(0, &[]), start(1, &["--crash", "40"])];
    let mut cluster = before(&ports.map(|port| format!("http://{port}")), order);
    let sites_at = webs(&cluster);
    let crew = Crew::start((0..4).map(|client| {
        move |shift: &Shift| order_on(client, Http::new(sites_at[client % 2]), shift)
    }));
    let status = cluster.wait_status("a", "the site to be sent away", |status| {
        sites(status)[1]["state"] == "quarantined"
    });
    let reason = sites(&status)[1]["reason"].as_str().unwrap_or_default();
    let named = "nobody knows whether it performed request 40: ";
    assert!(reason.starts_with(named), "{reason}");
    servers[1].wait();
    servers[1] = start(1, &[]);
    let has = |site: usize, number: u64| {
        let ask = || Http::new(ports[site]).get(&format!("/orders/{number}"));
        let answer = until("the server to answer", ask);
        (answer.status == 200).then_some(answer.body)
    };
    let of_b = || (1..=80).map(|number| has(1, number)).collect::<Vec<_>>();
    let left = of_b();
    crew.wait_for_more(PATIENCE, "orders at the other site", 60);
    assert_refused(&put(&cluster, "b"), "quarantined");
    let acknowledged = crew.finish();
    for (number, order) in &acknowledged {
        assert!(has(0, *number).as_ref() == Some(order), "{number} was acknowledged");
    }
    assert!(acknowledged.iter().any(|(number, _)| *number > 80));
    assert!(of_b() == left, "something was performed after it was sent away");
    println!("{} orders acknowledged", acknowledged.len());
    cluster.stop();
}

/// Orders until the shift is over; answers the numbers and texts of orders that were acknowledged.
fn order_on(client: usize, mut http: Http, shift: &Shift) -> Vec<(u64, Vec<u8>)> {
    let mut acknowledged = Vec::new();
    for number in 0.. {
        if shift.is_over() {
            break;
        }
        let tea = format!("tea {client} {number}").into_bytes();
        let answer = http.request("POST", "/orders", &[], &tea).unwrap();
        match answer.header("synod-seq") {
            Some(seq) if answer.status == 201 => {
                acknowledged.push((seq.parse().unwrap(), answer.body));
                shift.achieved();
            }
            _ => {
                assert!(matches!(answer.status, 503 | 504), "{}", answer.text());
                pause();
            }
        }
    }
    acknowledged
}

/// Goal: a site whose server has no room is sent away with the reason, its clients go to the other, and
/// once there is room it is rebuilt. Method: a stock server on a small disk, which is filled up under
/// load.
#[test]
fn a_site_whose_disk_is_full_is_sent_away_and_rebuilt_once_there_is_room() {
    fill_up_a_disk(Order::Paxos);
}

/// The same, where a group puts requests in order.
#[test]
fn a_site_whose_disk_is_full_is_rebuilt_in_the_order_of_a_group() {
    fill_up_a_disk(Order::Sam);
}

fn fill_up_a_disk(order: Order) {
    let _machine = shared();
    let first = || Nginx::start_on_small_disk("16m");
    let Some((mut cluster, servers)) = two_sites_of(order, first) else { return };
    change(&mut cluster, |cluster| copied(cluster, &servers.each_ref().map(Nginx::root)));
    let clients = Clients::start(webs(&cluster));
    servers[0].disk().fill_up();
    let status = cluster.wait_status("b", "the site to be sent away", |status| {
        sites(status)[0]["state"] == "quarantined"
    });
    let reason = sites(&status)[0]["reason"].as_str().unwrap_or_default();
    let named = reason.starts_with("it answered 50") && reason.ends_with("which others performed");
    assert!(named, "{reason}");
    assert_refused(&put(&cluster, "a"), "quarantined");
    clients.wait_written(1, 30);
    // There is no room for what the other one has by now.
    cluster.wait_status("b", "a rebuild that failed", |status| {
        let told = sites(status)[0]["rebuild"].as_str().unwrap_or_default();
        told.contains("it came to nothing")
    });
    clients.wait_written(1, 30);
    servers[0].disk().make_room();
    wait_both_serve(&cluster);
    clients.wait_at_both(20);
    clients.finish(|| wait_same(&servers));
    cluster.stop();
}

/// Lets the sites' servers, which have their files there, be copied.
fn copied(cluster: &Cluster, roots: &[impl AsRef<Path>; 2]) {
    for (name, root) in ["a", "b"].iter().zip(roots) {
        let root = root.as_ref().display();
        let export = format!("tar -c -C {root} .");
        let import = format!("rm -rf {root}/*; tar -x -C {root}");
        let keys = format!(
            "\n[web]\nexport = [\"sh\", \"-c\", {export:?}]\nimport = [\"sh\", \"-c\", {import:?}]\n"
        );
        cluster.rewrite(name, "\n[web]\n", &keys);
    }
}

/// What a site says to a new file.
fn put(cluster: &Cluster, name: &str) -> Answer {
    Http::new(webs(cluster)[at(name)]).request("PUT", "/orders/refused", &[], b"refused").unwrap()
}

/// Nothing was done, and the client is told why and to come again.
fn assert_refused(answer: &Answer, why: &str) {
    let text = answer.text();
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")), "{text}");
    assert_eq!(answer.json()["outcome"], "not_applied");
    assert!(answer.json()["error"].as_str().is_some_and(|error| error.contains(why)), "{text}");
}
