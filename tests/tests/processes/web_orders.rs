//! A server that keeps what it was asked together with what it did of it performs everything once.

use std::net::SocketAddr;

use synod_tests::process::{
    crew::{Crew, Shift},
    http::Http,
    machine::shared,
    order::Order,
    orders::Orders,
    sites::{before, kill_each, sites, wait_both_serve, wait_equal, webs},
    wait::PATIENCE,
};

/// Goal: what makes something new each time is sent again to such servers, and yet performed once: each
/// acknowledged order is there once at both, as it was answered. Method: writers at both sites, each of
/// whose orders is another one; servers that take their time between what they do and the answer, so
/// that nodes are killed there; every node, then every site, until one was asked again.
#[test]
fn what_makes_something_new_is_performed_once_by_a_server_that_remembers() {
    let _machine = shared();
    let mut servers = [0, 1].map(|_| Orders::start(&["--slow", "20"]));
    let urls = servers.each_ref().map(Orders::url);
    let mut cluster = before(&urls, Order::Paxos);
    cluster.stop();
    for name in ["a", "b"] {
        let route = "routes = [{ path = \"/orders\", methods = [\"POST\"], redo = \"resend\" }]";
        cluster.rewrite(name, "\n[web]\n", &format!("\n[web]\n{route}\n"));
    }
    cluster.resume();
    wait_both_serve(&cluster);
    let at = webs(&cluster);
    let crew = Crew::start((0..4).map(|writer| move |shift: &Shift| order_on(writer, at, shift)));
    crew.wait_for_more(PATIENCE, "orders", 20);
    let again = |servers: &[Orders; 2]| {
        let said: Vec<_> = servers.iter().map(Orders::said).collect();
        said.concat().matches("again, answered as before").count()
    };
    for _ in 0..ROUNDS_MAX {
        kill_each(&mut cluster, &mut servers, &crew, 10);
        if again(&servers) > 0 {
            break;
        }
    }
    let acknowledged = crew.finish();
    wait_both_serve(&cluster);
    let all = wait_equal("orders", || servers.each_ref().map(Orders::all));
    for (id, what, line) in &acknowledged {
        assert_eq!(all.get(id), Some(line), "{id} was acknowledged");
        let same = all.values().filter(|line| line.ends_with(&format!(": {what}\n")));
        assert_eq!(same.count(), 1, "{what} was asked for once");
    }
    let status = cluster.status("a").unwrap();
    assert!(sites(&status).iter().all(|site| site["diverged"] == 0), "{status}");
    let again = again(&servers);
    assert!(again > 0, "nobody was asked again");
    println!("{} acknowledged of {} orders; {again} sent again", acknowledged.len(), all.len());
    cluster.stop();
}

/// Makes orders until the shift is over, at one site, or at the other when that does not take them. Those
/// that were acknowledged: the identifier, what was asked for, and the answer.
fn order_on(writer: usize, sites: [SocketAddr; 2], shift: &Shift) -> Vec<(String, String, String)> {
    let mut clients = sites.map(Http::new);
    let (mut site, mut acknowledged) = (writer % 2, Vec::new());
    for number in 0.. {
        if shift.is_over() {
            break;
        }
        let what = format!("{number} cups of {writer}");
        match clients[site].request("POST", "/orders", &[], what.as_bytes()) {
            Ok(answer) if answer.status == 201 => {
                let id = answer.header("synod-seq").expect("it was ordered").to_owned();
                acknowledged.push((id, what, answer.text()));
                shift.achieved();
            }
            // Refused or unknown: nothing was promised, and it is never asked for again.
            Ok(_) | Err(_) => site = 1 - site,
        }
    }
    acknowledged
}

/// A kill that met nobody between an order and its answer is rare; four of them are one round.
const ROUNDS_MAX: usize = 5;
