//! What a node says of its clients' requests in its log, and what it never says.

use std::fs;

use synod_tests::process::{
    cluster::Cluster,
    http::Http,
    machine::shared,
    orders::Orders,
    redis::{self, Redis},
    sites::{wait_both_serve, webs},
    wait::until,
};

/// Goal: each request has its line, with its number, and nothing that lets people in is in any log.
/// Method: every level of everything is logged; requests with secrets of each kind, at both sites.
#[test]
fn each_request_has_its_line_and_no_secret_is_in_any_log() {
    let _machine = shared();
    let servers = [0, 1].map(|_| Orders::start(&[]));
    let [a, b] = servers.each_ref().map(Orders::url);
    let args = ["--upstream", &a, "--upstream", &b];
    let mut cluster = Cluster::dev_told("synod", &args, ("SYNOD_LOG", "trace"));
    wait_both_serve(&cluster);
    let [mut a, mut b] = webs(&cluster).map(Http::new);
    let secret = |what: &str| format!("secret-{what}");
    let headers = ["Authorization", "Proxy-Authorization", "Cookie", "Idempotency-Key", "X-Token"];
    let values = headers.map(|name| secret(&name.to_ascii_lowercase()));
    let all: Vec<_> = headers.into_iter().zip(values.iter().map(String::as_str)).collect();
    let path = format!("/orders?password={}", secret("query"));
    let made = a.request("POST", &path, &all, secret("body").as_bytes()).unwrap();
    assert_eq!((made.status, made.header("synod-seq")), (404, Some("1")), "no query is an order");
    let again = a.request("POST", &path, &all, secret("body").as_bytes()).unwrap();
    assert_eq!((again.status, again.header("idempotent-replayed")), (404, Some("true")));
    let read = b.request("GET", "/orders", &all, b"").unwrap();
    assert_eq!(read.status, 200);
    let asked = format!("/.well-known/synod/outcome/{}", secret("idempotency-key"));
    assert_eq!(a.get(&asked).unwrap().json()["outcome"], "applied");
    let post = "method=POST path=\"/orders\" status=404 bytes=0 ms=";
    let get = "method=GET path=\"/orders\" status=200 bytes=0 ms=";
    for (node, parts) in [
        ("a", &["client=127.0.0.1:", post, "treated=\"ordered\" seq=1"][..]),
        ("a", &[post, "treated=\"ordered\" seq=1 replayed=true"]),
        ("a", &["method=GET path=\"/.well-known/synod/outcome/\" status=200 "]),
        ("b", &[get, "treated=\"linearizable\""]),
    ] {
        wait_line(&cluster, node, parts);
    }
    cluster.stop();
    no_secret(&cluster);
}

/// Goal: the same of commands, by their names only. Method: the same, with a word that is none, as of a
/// client that takes the port for another.
#[test]
fn each_command_has_its_line_and_no_key_or_value_is_in_any_log() {
    let _machine = shared();
    if let Some(missing) = Redis::missing() {
        eprintln!("SKIPPED: {missing}");
        return;
    }
    let servers = [0, 1].map(|_| Redis::start(&[]));
    let [a, b] = servers.each_ref().map(Redis::url);
    let args = ["--upstream", &a, "--upstream", &b];
    let mut cluster = Cluster::dev_told("synod", &args, ("SYNOD_LOG", "trace"));
    redis::wait_serving(&cluster);
    let mut client = redis::client(webs(&cluster)[0]);
    for line in [
        "AUTH secret-password",
        "SET secret-key secret-value",
        "LPUSH secret-key secret-value",
        "GET secret-key",
        "secret-word secret-value",
    ] {
        redis::call(&mut client, line);
    }
    for parts in [
        &["client=127.0.0.1:", "command=\"AUTH\" commands=1 error=\"ERR\" ms=", "treated=\"own\""]
            [..],
        &["command=\"SET\" commands=1 ms=", "treated=\"ordered\" seq="],
        &["command=\"LPUSH\" commands=1 error=\"WRONGTYPE\" ms=", "treated=\"ordered\" seq="],
        &["command=\"GET\" commands=1 ms=", "treated=\"linearizable\""],
        &["command=\"other\" commands=1 error=\"ERR\" ms=", "treated=\"own\""],
    ] {
        wait_line(&cluster, "a", parts);
    }
    cluster.stop();
    no_secret(&cluster);
}

/// Waits for a line of a request that has all of these.
fn wait_line(cluster: &Cluster, node: &str, parts: &[&str]) {
    until("a line of the request", || {
        let log = fs::read_to_string(cluster.log(node)).unwrap();
        let lines = log.lines().filter(|line| line.contains("DEBUG synod_web::access: "));
        let lines: Vec<_> = lines.collect();
        let has = lines.iter().any(|line| parts.iter().all(|part| line.contains(part)));
        if has { Ok(()) } else { Err(format!("{parts:?} are not in {lines:#?}")) }
    });
}

fn no_secret(cluster: &Cluster) {
    for node in ["a", "b", "x"] {
        let log = fs::read_to_string(cluster.log(node)).unwrap();
        assert!(log.contains(" TRACE "), "all is logged");
        let told = log.lines().find(|line| line.contains("secret-"));
        assert_eq!(told, None, "{node} says it in its log");
    }
}
