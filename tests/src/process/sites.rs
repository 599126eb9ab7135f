//! The sites of the web binding: two mains with a server behind each.

use std::{collections::BTreeMap, net::SocketAddr};

use serde_json::Value;

use super::{
    cluster::Cluster,
    crew::{Crew, Shift},
    http::Http,
    nginx::Nginx,
    order::Order,
    wait::{PATIENCE, until},
};

/// A server behind a site.
pub trait Server {
    /// Starts it (again) with what is on its disk.
    ///
    /// # Panics
    /// When it does not serve.
    fn resume(&mut self);

    /// Kills it; what is on its disk stays.
    fn kill(&mut self);
}

/// What a status document says of them.
pub fn sites(status: &Value) -> &[Value] {
    status["web"].as_array().map_or(&[], Vec::as_slice)
}

/// Where clients find them.
///
/// # Panics
/// When one has no such port.
pub fn webs(cluster: &Cluster) -> [SocketAddr; 2] {
    ["a", "b"].map(|name| cluster.node(name).web.expect("a main with a server has a web port"))
}

/// Which of the two a main has.
pub fn at(name: &str) -> usize {
    usize::from(name == "b")
}

/// Waits until both serve, as either says.
pub fn wait_both_serve(cluster: &Cluster) {
    for name in ["a", "b"] {
        cluster.wait_status(name, "both sites to serve", |status| {
            let serves = |site: &Value| site["state"] == "serving";
            sites(status).len() == 2 && sites(status).iter().all(serves)
        });
    }
}

/// Waits until the servers of both hold the same, and answers what.
pub fn wait_equal<V: PartialEq>(
    what: &str,
    mut look: impl FnMut() -> [BTreeMap<String, V>; 2],
) -> BTreeMap<String, V> {
    until(&format!("equal {what} at both sites"), || {
        let [a, b] = look();
        let differs = |name: &&String| a.get(*name) != b.get(*name);
        let different: Vec<&String> = a.keys().chain(b.keys()).filter(differs).take(5).collect();
        if different.is_empty() { Ok(a) } else { Err(format!("{different:?} differ")) }
    })
}

/// Two stock servers behind the two mains of a cluster, or nothing where there is no nginx.
pub fn two_sites(order: Order) -> Option<(Cluster, [Nginx; 2])> {
    two_sites_of(order, Nginx::start)
}

/// The same, of which `first` starts the first server.
pub fn two_sites_of(
    order: Order,
    first: impl FnOnce() -> Result<Nginx, String>,
) -> Option<(Cluster, [Nginx; 2])> {
    let servers = match (first(), Nginx::start()) {
        (Ok(a), Ok(b)) => [a, b],
        (Err(missing), _) | (_, Err(missing)) => {
            eprintln!("SKIPPED: {missing}");
            return None;
        }
    };
    let [a, b] = [servers[0].url(), servers[1].url()];
    Some((before(&[a, b], order), servers))
}

/// Stops a cluster, makes `change` to its node files, and starts it again.
pub fn change<T>(cluster: &mut Cluster, change: impl FnOnce(&Cluster) -> T) -> T {
    cluster.stop();
    let made = change(cluster);
    cluster.resume();
    wait_both_serve(cluster);
    made
}

/// A cluster before two servers, both of which serve.
///
/// # Panics
/// When they do not.
pub fn before(servers: &[String; 2], order: Order) -> Cluster {
    let cluster = order.before(servers);
    wait_both_serve(&cluster);
    cluster
}

/// Waits until both servers' disks hold the same, and answers what.
///
/// # Panics
/// When that takes too long.
pub fn wait_same(servers: &[Nginx; 2]) -> BTreeMap<String, Vec<u8>> {
    wait_equal("files", || servers.each_ref().map(Nginx::files))
}

/// Writes new files until the shift is over, at one site, or at the other when that does not take them:
/// `body` says what, of a path and its number. Answers both of those that were acknowledged.
pub fn write_on(
    writer: usize,
    sites: [SocketAddr; 2],
    shift: &Shift,
    body: impl Fn(&str, usize) -> Vec<u8>,
) -> Vec<(String, usize)> {
    let mut clients = sites.map(Http::new);
    let (mut site, mut acknowledged) = (writer % 2, Vec::new());
    for number in 0.. {
        if shift.is_over() {
            break;
        }
        let path = format!("/{writer}/{number}");
        match clients[site].request("PUT", &path, &[], &body(&path, number)) {
            Ok(answer) if answer.status == 201 => {
                acknowledged.push((path, number));
                shift.achieved();
            }
            // Refused or unknown: nothing was promised. The other site may do better.
            Ok(_) | Err(_) => site = 1 - site,
        }
    }
    acknowledged
}

/// Kills the node of each site, and then of each again with the server behind it, while `crew` writes:
/// `more` each time, at the other site and at both.
pub fn kill_each<T: Send + 'static>(
    cluster: &mut Cluster,
    servers: &mut [impl Server; 2],
    crew: &Crew<T>,
    more: u64,
) {
    for (at, name) in ["a", "b", "a", "b"].into_iter().enumerate() {
        // In the second round a whole site dies: the server behind the node, too.
        let whole = at >= 2;
        cluster.signal("KILL", &[name]);
        if whole {
            servers[at % 2].kill();
        }
        crew.wait_for_more(PATIENCE, "writes at the other site", more);
        if whole {
            servers[at % 2].resume();
        }
        cluster.wait_restarted(name);
        cluster.wait_ready(name);
        crew.wait_for_more(PATIENCE, "writes at both sites", more);
    }
}
