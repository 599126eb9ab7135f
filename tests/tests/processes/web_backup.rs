//! Sites begin again with a backup of the order and a copy of one of their servers.

use std::collections::BTreeMap;

use serde_json::Value;
use synod_tests::process::{
    child::run,
    cluster::Cluster,
    http::Http,
    machine::shared,
    nginx::Nginx,
    order::Order,
    sites::{before, sites, two_sites, wait_both_serve, wait_same, webs},
};

/// Goal: what a backup does not hold it says, and with a copy of one server, made while that held,
/// the order goes on in a new cluster: what was behind the copy is performed, nothing twice, and keys
/// are known. Method: stock nginx; writes through the other site while a server holds, and some
/// after the backup, which must be gone.
#[test]
fn sites_go_on_from_a_backup_and_a_copy_of_one_server() {
    let _machine = shared();
    let Some((mut cluster, servers)) = two_sites(Order::Paxos) else { return };
    let put = |cluster: &Cluster, at: usize, name: &str| {
        let key = [("Idempotency-Key", name)];
        let path = format!("/{name}");
        let mut http = Http::new(webs(cluster)[at]);
        let answer = http.request("PUT", &path, &key, name.as_bytes()).unwrap();
        (
            answer.status,
            answer.header("synod-seq").map(str::to_owned),
            answer.header("idempotent-replayed").is_some(),
        )
    };
    for number in 1..=10 {
        assert_eq!(put(&cluster, 0, &format!("n{number}")), (201, Some(number.to_string()), false));
    }
    cluster.wait_status("a", "everything to be performed", |status| applied(status) == [10, 10]);
    tend(&cluster, r#"{"site":"a","wish":"hold"}"#);
    for number in 11..=15 {
        assert_eq!(put(&cluster, 1, &format!("n{number}")), (201, Some(number.to_string()), false));
    }
    cluster.wait_status("b", "one site to hold", |status| applied(status) == [10, 15]);
    let file = cluster.dir().join("state.backup").display().to_string();
    let (document, said) = verb(&cluster, &["backup", &file, "--json"]);
    assert!(said.contains("not inside: what the servers behind a, b hold"), "{said}");
    assert_eq!(document["not_inside"].as_array().unwrap().len(), 1, "{document}");
    let copy = servers[0].files();
    assert_eq!(copy.len(), 10);
    tend(&cluster, r#"{"site":"a","wish":"release"}"#);
    put(&cluster, 0, "later");
    assert_eq!(wait_same(&servers).len(), 16);
    // Where the servers have performed more than is in the backup, nobody takes it for what is.
    verb(&cluster, &["restore", &file, "--json"]);
    wait_quarantined(&cluster);
    assert_eq!(put(&cluster, 1, "refused").0, 503);

    let servers = [Nginx::start().unwrap(), Nginx::start().unwrap()];
    for server in &servers {
        let at = server.url().trim_start_matches("http://").parse().unwrap();
        for (path, body) in &copy {
            let path = format!("/{}", path.trim_start_matches('/'));
            assert_eq!(Http::new(at).request("PUT", &path, &[], body).unwrap().status, 201);
        }
    }
    let mut fresh = before(&servers.each_ref().map(Nginx::url), Order::Paxos);
    verb(&fresh, &["restore", &file, "--json"]);
    wait_quarantined(&fresh);
    let refused = put(&fresh, 0, "refused");
    assert_eq!((refused.0, refused.1), (503, None));
    for site in ["a", "b"] {
        tend(&fresh, &format!(r#"{{"site":"{site}","wish":{{"rejoin":{{"at":10}}}}}}"#));
    }
    tend(&fresh, r#"{"site":"a","wish":"release"}"#);
    wait_both_serve(&fresh);
    fresh.wait_status("a", "what came behind the copy", |status| applied(status) == [15, 15]);
    assert_eq!(put(&fresh, 1, "n12"), (201, Some("12".to_owned()), true), "its key is known");
    assert_eq!(put(&fresh, 0, "new"), (201, Some("16".to_owned()), false));
    let files = wait_same(&servers);
    let expected = (1..=15).map(|number| format!("n{number}")).chain(["new".to_owned()]);
    let expected: BTreeMap<String, Vec<u8>> =
        expected.map(|name| (name.clone(), name.into_bytes())).collect();
    let named = |(path, body): (String, Vec<u8>)| (path.trim_start_matches('/').to_owned(), body);
    assert_eq!(files.into_iter().map(named).collect::<BTreeMap<_, _>>(), expected);
    fresh.stop();
    cluster.stop();
}

/// What a verb of the program says that must be done well: a document, and what is for people.
fn verb(cluster: &Cluster, words: &[&str]) -> (Value, String) {
    let client = cluster.dir().join("client.toml").display().to_string();
    let (code, out, error) = run(cluster.program(), &[words, &["--cluster", &client]].concat());
    assert_eq!(code, 0, "{words:?}: {out} {error}");
    (serde_json::from_str(out.trim()).unwrap_or_default(), error)
}

fn tend(cluster: &Cluster, wish: &str) {
    verb(cluster, &["call", "web", "web.tend", wish]);
}

/// Waits until no site goes on with what its server has.
fn wait_quarantined(cluster: &Cluster) {
    for node in ["a", "b"] {
        cluster.wait_status(node, "sites whose servers have something else", |status| {
            sites(status).iter().all(|site| site["state"] == "quarantined")
        });
    }
}

/// How far each site is.
fn applied(status: &Value) -> Vec<u64> {
    sites(status).iter().filter_map(|site| site["applied"].as_u64()).collect()
}
