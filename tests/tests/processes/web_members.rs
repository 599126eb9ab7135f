//! Sites come and go while clients write on.

use std::fs;

use serde_json::Value;
use synod_tests::process::{
    child::run,
    cluster::{Cluster, mains_of},
    crew::{Crew, Shift},
    machine::{free_tcp_port, shared},
    nginx::Nginx,
    order::Order,
    sites::{sites, two_sites, wait_equal, webs, write_on},
    wait::PATIENCE,
};

/// Goal: a site is added, another one leaves, and nothing that was acknowledged at any of the three is
/// missing at those that stay (R5.43). Method: clients of both old sites, then of both that stay.
#[test]
fn a_site_is_added_and_another_one_leaves_while_clients_write_on() {
    let _machine = shared();
    let Some((mut cluster, [first, second])) = two_sites(Order::Paxos) else { return };
    let third = Nginx::start().unwrap();
    let [a, b] = webs(&cluster);
    let crew = |sites: [_; 2], first: usize| {
        Crew::start((first..first + 3).map(move |writer| {
            move |shift: &Shift| write_on(writer, sites, shift, |path, _| path.into())
        }))
    };
    let before = crew([a, b], 0);
    before.wait_for_more(PATIENCE, "writes at two sites", 30);

    cluster.init_add("c", "main");
    let at = free_tcp_port();
    let web = format!("\n[web]\nlisten = \"{at}\"\nupstream = \"{}\"\n", third.url());
    let file = fs::read_to_string(cluster.config("c")).unwrap() + &web;
    fs::write(cluster.config("c"), file).unwrap();
    let quic = cluster.node("c").quic.to_string();
    synod(&cluster, &["members", "add", "c", "--role", "main", "--quic", &quic]);
    cluster.start_node("c");
    cluster.wait_ready("c");
    wait_serving(&cluster, &["a", "b", "c"]);
    before.wait_for_more(PATIENCE, "writes with three sites", 30);

    let after = crew([b, at], 3);
    after.wait_for_more(PATIENCE, "writes at the new site", 30);
    synod(&cluster, &["members", "remove", "a"]);
    cluster.wait_status("b", "a to be gone", |status| mains_of(status) == ["b", "c"]);
    synod(&cluster, &["call", "web", "web.tend", "{\"site\":\"a\",\"wish\":\"remove\"}"]);
    wait_serving(&cluster, &["b", "c"]);
    after.wait_for_more(PATIENCE, "writes at those that stay", 30);

    let acknowledged = [before.finish(), after.finish()].concat();
    let files = wait_equal("files", || [second.files(), third.files()]);
    for (path, _) in &acknowledged {
        assert_eq!(files.get(path), Some(&path.clone().into_bytes()), "{path} was acknowledged");
    }
    println!("{} writes; {} files where a was", acknowledged.len(), first.files().len());
    cluster.stop_node("c");
    cluster.stop();
}

fn wait_serving(cluster: &Cluster, names: &[&str]) {
    cluster.wait_status("b", &format!("sites {names:?}"), |status| {
        let serve = |site: &Value| site["state"] == "serving";
        let shown: Vec<_> = sites(status).iter().map(|site| site["site"].clone()).collect();
        shown == names && sites(status).iter().all(serve)
    });
}

fn synod(cluster: &Cluster, words: &[&str]) {
    let client = cluster.dir().join("client.toml").display().to_string();
    let (code, _, why) = run(cluster.program(), &[words, &["--cluster", &client]].concat());
    assert_eq!(code, 0, "{words:?}: {why}");
}
