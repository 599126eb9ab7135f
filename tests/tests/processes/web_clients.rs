//! Clients that know one address are led to a site that serves, by services of the cluster itself.

use std::{fs, net::SocketAddr, path::Path, time::Duration};

use synod_tests::process::{
    child::{Process, run},
    cluster::Cluster,
    crew::{Crew, Shift},
    http::Http,
    machine::shared,
    namespaces::Namespaces,
    nginx::Nginx,
    programs::program,
    sites::{Server as _, wait_both_serve, wait_same, webs, write_on},
    wait::{PATIENCE, now, until},
};

/// A script of the manual.
fn example(name: &str) -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../apps/web/examples").join(name);
    script.canonicalize().unwrap().display().to_string()
}

/// Goal: clients of one nginx never learn that a site, or a server, died; what was acknowledged is at
/// both. Method: its list of sites is kept by a service at a member, as the manual shows it.
#[test]
fn clients_of_one_nginx_are_led_to_a_site_that_serves() {
    let _machine = shared();
    let (Ok(one), Ok(two)) = (Nginx::start(), Nginx::start()) else {
        return eprintln!("SKIPPED: no nginx on PATH; install Debian's package `nginx-light`");
    };
    let mut servers = [one, two];
    let urls = servers.each_ref().map(Nginx::url);
    let words = ["--members", "1", "--upstream", &urls[0], "--upstream", &urls[1]];
    let mut cluster = Cluster::dev("synod", &words);
    wait_both_serve(&cluster);
    let sites = webs(&cluster);
    let front = Nginx::before("sites.list", &sites[..1]).unwrap();
    let list = front.folder().join("sites.list");
    let reload = format!("kill -HUP $(cat {}/pid)", front.folder().display());
    let (script, file) = (example("keep-sites.sh"), list.display().to_string());
    let [a, b] = sites.map(|site| site.to_string());
    let client = cluster.dir().join("client.toml").display().to_string();
    let add = ["services", "add", "sites", "--cluster", &client, "--providers", "m1", "--"];
    let (code, _, why) =
        run(cluster.program(), &[&add[..], &[&script, &file, &reload, &a, &b]].concat());
    assert_eq!(code, 0, "{why}");
    wait_listed(&list, &sites);
    let at = [front.address(); 2];
    let body = |path: &str, number: usize| format!("{path} {number}").into_bytes();
    let crew =
        Crew::start((0..4).map(|writer| move |shift: &Shift| write_on(writer, at, shift, body)));
    for (at, name) in [(0, "a"), (1, "b")] {
        cluster.signal("KILL", &[name]);
        crew.wait_for_more(PATIENCE, "writes without one node", 20);
        cluster.wait_restarted(name);
        wait_listed(&list, &sites);
        servers[at].kill();
        // Nobody notices before something is asked of it.
        wait_listed(&list, &[sites[1 - at]]);
        crew.wait_for_more(PATIENCE, "writes without one server", 20);
        servers[at].resume();
        wait_listed(&list, &sites);
        crew.wait_for_more(PATIENCE, "writes with all", 20);
    }
    let acknowledged = crew.finish();
    let files = wait_same(&servers);
    for (path, number) in &acknowledged {
        assert_eq!(files.get(path), Some(&body(path, *number)), "{path} was acknowledged");
    }
    println!("{} writes through one nginx, over four deaths", acknowledged.len());
    cluster.stop();
}

/// Waits until these sites, and no others, are in nginx's list.
fn wait_listed(list: &Path, sites: &[SocketAddr]) {
    until("a list of the sites that serve", || {
        let text = fs::read_to_string(list).unwrap();
        let listed = |site: &SocketAddr| text.contains(&format!("server {site} "));
        match sites.iter().all(listed) && text.lines().count() == sites.len() {
            true => Ok(()),
            false => Err(text),
        }
    });
}

/// Mains with networks of their own, the example's server and something that listens to other
/// machines at each, and an address that a service holds.
struct Stage<'a> {
    spaces: &'a Namespaces,
    cluster: Cluster,
    servers: Vec<Option<Process>>,
    _fronts: Vec<Process>,
}

impl<'a> Stage<'a> {
    fn new(spaces: &'a Namespaces) -> Self {
        let mut cluster = Cluster::in_namespaces("synod", spaces);
        let mut fronts = Vec::new();
        for name in MAINS {
            let file = cluster.config(name);
            let text = fs::read_to_string(&file).unwrap();
            fs::write(&file, text + "\n" + WEB).unwrap();
            let to = format!("TCP:{SITE}");
            let words = ["socat", "TCP-LISTEN:80,fork,reuseaddr", &to];
            fronts.push(start(spaces, name, &words, &cluster.dir().join("fronts")));
        }
        ["a", "b", "x"].iter().for_each(|name| cluster.start_node(name));
        let mut stage = Self { spaces, cluster, servers: vec![None, None], _fronts: fronts };
        [0, 1].iter().for_each(|&at| stage.resume(at));
        MAINS.iter().for_each(|name| stage.cluster.wait_ready(name));
        wait_both_serve(&stage.cluster);
        stage
    }

    /// Starts the server of a site (again).
    fn resume(&mut self, at: usize) {
        let dir = self.cluster.dir().join(format!("orders-{at}")).display().to_string();
        let orders = program("orders").display().to_string();
        let log = self.cluster.dir().join("orders");
        let words = [orders.as_str(), SERVER, &dir];
        self.servers[at] = Some(start(self.spaces, MAINS[at], &words, &log));
    }

    /// `synod ARGS` at a main.
    fn synod(&self, args: &[&str]) {
        let client = self.cluster.dir().join("client.toml").display().to_string();
        let program = self.cluster.program().display().to_string();
        let (verb, rest) = args.split_at(3);
        let words = [&[program.as_str()], verb, &["--cluster", &client], rest].concat();
        let words = inside(self.spaces, "a", &words);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let (code, _, why) = run(Path::new(words[0]), &words[1..]);
        assert_eq!(code, 0, "{why}");
    }

    /// Whether a main's machine has the address.
    fn holds(&self, name: &str) -> bool {
        let words = inside(self.spaces, name, &["ip", "-o", "address", "show", "dev", "eth0"]);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        run(Path::new(words[0]), &words[1..]).1.contains(ADDRESS)
    }

    /// The main, by its place, that alone has the address.
    fn holder(&self) -> usize {
        until("one holder of the address", || match MAINS.map(|name| self.holds(name)) {
            [true, false] => Ok(0),
            [false, true] => Ok(1),
            held => Err(format!("{held:?}")),
        })
    }

    fn wait_moved(&self, from: usize, crew: &Crew<String>, why: &str) {
        let began = now();
        crew.wait_for_more(PATIENCE, "writes at the other main", 1);
        println!("{why}: the next write after {:?}", now().since(began));
        crew.wait_for_more(PATIENCE, "more of them", 20);
        assert_eq!(self.holder(), 1 - from, "{why}");
    }
}

fn inside(spaces: &Namespaces, node: &str, words: &[&str]) -> Vec<String> {
    let words = words.iter().map(|&word| word.to_owned());
    spaces.inside(node).into_iter().chain(words).collect()
}

fn start(spaces: &Namespaces, node: &str, words: &[&str], log: &Path) -> Process {
    let words = inside(spaces, node, words);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    Process::start(Path::new(words[0]), &words[1..], log)
}

/// Goal: clients of one address never have to look for another: it goes to the main that serves when the
/// other's node, server or cable fails. Method: machines of their own, and a fourth that only asks.
#[test]
fn clients_of_one_address_are_led_to_a_site_that_serves() {
    let _machine = shared();
    let spaces = match Namespaces::make(&["a", "b", "x", "client"]) {
        Ok(spaces) => spaces,
        Err(missing) => {
            return eprintln!("SKIPPED, no network namespaces can be made here: {missing}");
        }
    };
    let mut stage = Stage::new(&spaces);
    let (script, address) = (example("hold-address.sh"), format!("{ADDRESS}/24"));
    let ready = format!("http://{SITE}/.well-known/synod/ready");
    let measures = ["--restarts", "0", "--lease", "1s", "--stop-within", "400ms", "--"];
    let add = [&["services", "add", "address", "--providers", "a,b"], &measures[..]].concat();
    stage.synod(&[&add[..], &[&script, &address, "eth0", &ready]].concat());
    stage.holder();
    let door = spaces.door("client", format!("{ADDRESS}:80").parse().unwrap());
    let crew = Crew::start((0..3).map(|writer| move |shift: &Shift| put_on(writer, door, shift)));
    crew.wait_for_more(PATIENCE, "writes", 20);

    let at = stage.holder();
    stage.cluster.kill(&[MAINS[at]]);
    stage.wait_moved(at, &crew, "its node was killed");
    stage.cluster.start_node(MAINS[at]);
    stage.cluster.wait_ready(MAINS[at]);

    let at = stage.holder();
    stage.servers[at] = None;
    stage.wait_moved(at, &crew, "its server died");
    stage.resume(at);
    wait_both_serve(&stage.cluster);

    let at = stage.holder();
    spaces.unplug(MAINS[at]);
    stage.wait_moved(at, &crew, "its cable was pulled");
    spaces.plug(MAINS[at]);
    wait_both_serve(&stage.cluster);

    let acknowledged = crew.finish();
    for name in MAINS {
        let mut site = Http::new(spaces.door(name, SITE.parse().unwrap()));
        for path in &acknowledged {
            let order = site.get(path).unwrap().text();
            assert!(order.ends_with(&format!(": {path}\n")), "{path}, at {name}: {order}");
        }
    }
    println!("{} writes at one address, over three faults", acknowledged.len());
}

/// Writes new orders at one address; answers the paths of those that were acknowledged.
fn put_on(writer: usize, at: SocketAddr, shift: &Shift) -> Vec<String> {
    let mut client = Http::new(at).patience(Duration::from_secs(1));
    let mut acknowledged = Vec::new();
    for number in 0.. {
        if shift.is_over() {
            break;
        }
        let path = format!("/orders/w{writer}n{number}");
        match client.request("PUT", &path, &[], path.as_bytes()) {
            Ok(answer) if answer.status == 200 => {
                acknowledged.push(path);
                shift.achieved();
            }
            // Nothing was promised.
            Ok(_) | Err(_) => {}
        }
    }
    acknowledged
}

/// Those with a site.
const MAINS: [&str; 2] = ["a", "b"];

/// What clients know; no node is there.
const ADDRESS: &str = "10.77.0.100";

/// Every namespace has all ports.
const SITE: &str = "127.0.0.1:8080";
const SERVER: &str = "127.0.0.1:9000";
const WEB: &str = "[web]\nlisten = \"127.0.0.1:8080\"\nupstream = \"http://127.0.0.1:9000\"\n";
