//! A server that went astray, or lost what it had, is made again as the other is.

use std::{collections::BTreeMap, fs, net::SocketAddr};

use serde_json::Value;
use synod_tests::process::{
    child::run,
    cluster::Cluster,
    crew::{Crew, Shift},
    http::Http,
    machine::{free_tcp_port, shared},
    order::Order,
    orders::Orders,
    programs::program,
    sites::{Server as _, sites, wait_equal, webs},
    wait::{PATIENCE, until},
};

/// How a server's content is given and taken.
#[derive(Clone, Copy)]
enum Copied {
    ByCommands,
    ByUrls,
}

/// A cluster before two of the example's servers.
struct Shop {
    cluster: Cluster,
    servers: [Orders; 2],
    folder: tempfile::TempDir,
}

impl Shop {
    /// Servers that can be copied. That of b makes a number of its own for its `odd`-th change; the
    /// first import at b fails in its middle.
    fn open(odd: u64, order: Order, copied: Copied) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let content = [0, 1].map(|_| free_tcp_port().to_string());
        let flags = content.each_ref().map(|at| ["--content", at, "--odd"]);
        let servers = [
            Orders::start(&[&flags[0][..], &["0"]].concat()),
            Orders::start(&[&flags[1][..], &[&odd.to_string()]].concat()),
        ];
        let urls = servers.each_ref().map(Orders::url);
        let mut cluster = order.before(&urls);
        cluster.stop();
        let flag = folder.path().join("failed").display().to_string();
        let orders = program("orders").display().to_string();
        for ((name, server), content) in ["a", "b"].iter().zip(&servers).zip(&content) {
            let dir = server.dir();
            // Slow enough that writes come meanwhile.
            let export = format!("sleep 0.3; {orders} export {dir}");
            let import = format!(
                "sleep 0.5; test -e {flag} || {{ touch {flag}; head -c 700 >/dev/null; exit 9; }}; \
                 {orders} import {dir}"
            );
            let hooks = match copied {
                Copied::ByCommands => format!(
                    "export = [\"sh\", \"-c\", {export:?}]\nimport = [\"sh\", \"-c\", {import:?}]"
                ),
                Copied::ByUrls => {
                    let url = format!("\"http://{content}/everything\"");
                    format!("export = {url}\nimport = {url}")
                }
            };
            let keys = format!(
                "\n[web]\non_mismatch = \"quarantine\"\n{hooks}\nrebuild_within = \"20s\"\n"
            );
            cluster.rewrite(name, "\n[web]\n", &keys);
        }
        cluster.resume();
        let shop = Self { cluster, servers, folder };
        shop.wait_serving(0);
        shop.wait_answering();
        shop
    }

    /// Waits until each site knows that it serves: the order says so of former lives, too, and sooner.
    fn wait_answering(&self) {
        for web in webs(&self.cluster) {
            until("a site to answer", || {
                let answer = Http::new(web).get("/orders/none")?;
                if answer.status == 404 { Ok(()) } else { Err(answer.text()) }
            });
        }
    }

    /// Waits until both sites serve, b having been rebuilt if it had `diverged` before.
    fn wait_serving(&self, diverged: u64) -> Value {
        self.cluster.wait_status("a", "both sites to serve", |status| {
            let sites = sites(status);
            let serve = |site: &Value| site["state"] == "serving" && site["rebuild"].is_null();
            let of_b = || sites[1]["diverged"].as_u64().unwrap_or_default();
            sites.len() == 2 && sites.iter().all(serve) && of_b() >= diverged
        })
    }

    /// Waits until both servers have the same orders, and answers which.
    fn wait_same(&self) -> BTreeMap<String, String> {
        wait_equal("orders", || self.servers.each_ref().map(Orders::all))
    }
}

/// Goal: a server that answered otherwise than the other is made again as that is, while clients go
/// on, and nothing that was acknowledged is missing at either; a rebuild that fails leaves its site
/// away and is begun again. Method: writers at a; the server of b does one thing of its own; its
/// first import ends in the middle.
#[test]
fn a_server_that_went_astray_is_rebuilt_while_clients_go_on() {
    rebuilt_while_clients_go_on(Order::Paxos);
}

/// The same, where a group puts requests in order.
#[test]
fn a_server_that_went_astray_is_rebuilt_in_the_order_of_a_group() {
    rebuilt_while_clients_go_on(Order::Sam);
}

fn rebuilt_while_clients_go_on(order: Order) {
    let _machine = shared();
    let mut shop = Shop::open(40, order, Copied::ByCommands);
    let at = webs(&shop.cluster)[0];
    let crew = Crew::start((0..3).map(|writer| move |shift: &Shift| write_on(writer, at, shift)));
    crew.wait_for_more(PATIENCE, "writes", 60);
    let failed = shop.cluster.wait_status("a", "a rebuild that failed", |status| {
        let told = sites(status).get(1).and_then(|site| site["rebuild"].as_str());
        told.is_some_and(|told| told.contains("ended with exit status: 9"))
    });
    assert_eq!(sites(&failed)[1]["state"], "quarantined", "{failed}");
    let client = shop.cluster.dir().join("client.toml").display().to_string();
    let (code, page, _) = run(shop.cluster.program(), &["web", "--cluster", &client]);
    assert_eq!(code, 0);
    assert!(page.contains("b: it answered request"), "{page}");
    assert!(page.contains("b: rebuild: "), "{page}");
    shop.wait_serving(1);
    crew.wait_for_more(PATIENCE, "writes after the rebuild", 30);
    let written = crew.finish();
    let orders = shop.wait_same();
    for (id, line) in &written {
        assert_eq!(orders.get(id), Some(line), "{id} was acknowledged");
    }
    let read = Http::new(webs(&shop.cluster)[1]).get(&format!("/orders/{}", written[0].0)).unwrap();
    assert_eq!((read.status, &read.text()), (200, &written[0].1), "b answers again");
    println!("{} acknowledged writes at both sites, over a rebuild", written.len());
    shop.cluster.stop();
}

/// Goal: a site that lost all it had comes back by itself. Method: b's server loses its orders
/// and its node what it noted of them, while the cluster is down.
#[test]
fn a_site_that_lost_everything_is_rebuilt() {
    rebuilt_from_nothing(Order::Paxos, Copied::ByCommands);
}

/// The same, where a group puts requests in order.
#[test]
fn a_site_that_lost_everything_is_rebuilt_in_the_order_of_a_group() {
    rebuilt_from_nothing(Order::Sam, Copied::ByCommands);
}

/// The same, where servers give and take their content by URLs of their own.
#[test]
fn a_site_that_lost_everything_is_rebuilt_by_urls() {
    rebuilt_from_nothing(Order::Paxos, Copied::ByUrls);
}

fn rebuilt_from_nothing(order: Order, copied: Copied) {
    let _machine = shared();
    let mut shop = Shop::open(0, order, copied);
    fs::write(shop.folder.path().join("failed"), "").unwrap();
    let mut http = Http::new(webs(&shop.cluster)[0]);
    for number in 0..20 {
        let path = format!("/orders/f{number}");
        let body = format!("{number} ").repeat(50_000).into_bytes();
        assert_eq!(http.request("PUT", &path, &[], &body).unwrap().status, 200);
    }
    let before = shop.wait_same();
    assert_eq!(before.len(), 20);
    // The notes may still have to hear of the last one.
    shop.cluster.wait_status("a", "everything to be performed", |status| {
        sites(status).iter().all(|site| site["applied"] == 20)
    });
    shop.cluster.stop();
    let data = shop.cluster.dir().join("b/data/web");
    fs::remove_dir_all(data).unwrap();
    shop.servers[1].forget();
    shop.servers[1].resume();
    shop.cluster.resume();
    until("b to be as a", || {
        let [a, b] = shop.servers.each_ref().map(Orders::all);
        if a == b { Ok(()) } else { Err(format!("{} and {} orders", a.len(), b.len())) }
    });
    assert_eq!(shop.servers[1].all(), before);
    shop.wait_serving(0);
    shop.wait_answering();
    let answer =
        Http::new(webs(&shop.cluster)[1]).request("PUT", "/orders/new", &[], b"new").unwrap();
    assert_eq!((answer.status, answer.header("synod-seq")), (200, Some("21")));
    assert_eq!(shop.wait_same().len(), 21);
    shop.cluster.stop();
}

/// Writes new orders until the shift is over; answers those that were acknowledged.
fn write_on(writer: usize, at: SocketAddr, shift: &Shift) -> Vec<(String, String)> {
    let mut client = Http::new(at);
    let mut acknowledged = Vec::new();
    for number in 0.. {
        if shift.is_over() {
            break;
        }
        let body = format!("{writer} {number} ").repeat(40).into_bytes();
        // Now and then one that gets its name from the server.
        let (method, name) = match number % 4 {
            0 => ("POST", String::new()),
            _ => ("PUT", format!("/w{writer}n{number}")),
        };
        let answer = client.request(method, &format!("/orders{name}"), &[], &body).unwrap();
        let (expected, id) = match answer.header("synod-seq") {
            Some(seq) if method == "POST" => (201, seq.to_owned()),
            _ => (200, name.trim_start_matches('/').to_owned()),
        };
        assert_eq!(answer.status, expected, "{}", answer.text());
        acknowledged.push((id, answer.text()));
        shift.achieved();
    }
    acknowledged
}
