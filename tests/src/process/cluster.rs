//! A cluster of real processes in a temporary directory.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::mpsc::{Receiver, channel},
    time::Duration,
};

use serde_json::Value;
use tempfile::TempDir;

use super::{
    child::{Process, run},
    http::Http,
    machine::{free_quic_ports, signal, wait_gone},
    namespaces::Namespaces,
    programs::program,
    wait::{PATIENCE, until},
};

/// A cluster; everything of it ends when this is dropped. When the test failed, the ends of its
/// nodes' logs are printed.
#[derive(Debug)]
pub struct Cluster {
    program: PathBuf,
    args: Vec<String>,
    /// Variables that `dev` gives to its nodes.
    variables: Vec<(String, String)>,
    dir: PathBuf,
    nodes: BTreeMap<String, Member>,
    dev: Option<Dev>,
    by_hand: BTreeMap<String, Process>,
    /// Words before the command that starts a node.
    inside: BTreeMap<String, Vec<String>>,
    folders: Vec<TempDir>,
}

/// One node of it.
#[derive(Debug, Clone)]
pub struct Member {
    /// `main`, `auxiliary` or `member`.
    pub role: String,
    /// Its process; of the last one when it is dead.
    pub pid: u32,
    /// Where its peers reach it.
    pub quic: SocketAddr,
    /// People and scripts.
    pub http: SocketAddr,
    /// Redis clients.
    pub resp: Option<SocketAddr>,
    /// Clients of the server behind it.
    pub web: Option<SocketAddr>,
}

#[derive(Debug)]
struct Dev {
    process: Process,
    events: Receiver<Value>,
}

impl Cluster {
    /// `PROGRAM dev --json --dir DIR ARGS`, ready.
    pub fn dev(program_name: &str, args: &[&str]) -> Self {
        let mut cluster = Self::empty(program_name);
        cluster.args = args.iter().map(|&arg| arg.to_owned()).collect();
        cluster.resume();
        cluster
    }

    /// The same, with a variable in the environment.
    pub fn dev_told(program_name: &str, args: &[&str], (variable, value): (&str, &str)) -> Self {
        let mut cluster = Self::empty(program_name);
        cluster.args = args.iter().map(|&arg| arg.to_owned()).collect();
        cluster.variables = vec![(variable.to_owned(), value.to_owned())];
        cluster.resume();
        cluster
    }

    /// The same nodes (mains a, b and auxiliary x) from `PROGRAM init`, none started.
    ///
    /// # Panics
    /// When `init` fails.
    pub fn by_hand(program_name: &str) -> Self {
        Self::laid_out(program_name, &free_quic_ports(3))
    }

    /// Keeps the data of nodes that were never started in memory, where the system has a place for that: a
    /// disk that stands still is none of theirs then.
    pub fn keep_in_memory(&mut self, names: &[&str]) {
        let folder = tempfile::Builder::new().prefix("synod-test-").tempdir_in("/dev/shm");
        let Ok(folder) = folder else { return };
        for name in names {
            let data = folder.path().join(name).display().to_string();
            self.rewrite(name, "data_dir = \"data\"", &format!("data_dir = {data:?}"));
        }
        self.folders.push(folder);
    }

    /// The same, all started and both mains ready.
    ///
    /// # Panics
    /// When `init` fails or a node does not serve.
    pub fn serving_by_hand(program_name: &str) -> Self {
        let mut cluster = Self::by_hand(program_name);
        ["a", "b", "x"].iter().for_each(|name| cluster.start_node(name));
        ["a", "b"].iter().for_each(|name| cluster.wait_ready(name));
        cluster
    }

    /// The same in networks of their own (of a, b and x), to be reached through doors.
    ///
    /// # Panics
    /// When `init` fails.
    pub fn in_namespaces(program_name: &str, spaces: &Namespaces) -> Self {
        let at = |name| SocketAddr::from((spaces.address(name), QUIC_IN_NAMESPACE));
        let mut cluster = Self::laid_out(program_name, &["a", "b", "x"].map(at));
        for (name, node) in &mut cluster.nodes {
            node.http = spaces.door(name, node.http);
            node.resp = node.resp.map(|resp| spaces.door(name, resp));
            cluster.inside.insert(name.clone(), spaces.inside(name));
        }
        cluster
    }

    fn laid_out(program_name: &str, ports: &[SocketAddr]) -> Self {
        let mut cluster = Self::empty(program_name);
        let out = cluster.dir.display().to_string();
        let named: Vec<String> =
            ["a", "b", "x"].iter().zip(ports).map(|(name, at)| format!("{name}={at}")).collect();
        let [a, b, x] = [0, 1, 2].map(|index| named[index].as_str());
        let args = ["--out", &out, "--cluster", "hand", "--main", a, b, "--auxiliary", x];
        let (code, _, error) = run(&cluster.program, &[&["init"][..], &args].concat());
        assert_eq!(code, 0, "{error}");
        for (name, quic) in ["a", "b", "x"].iter().zip(ports) {
            let text = fs::read_to_string(cluster.config(name)).expect("init wrote it");
            let http = listen_address(&text, "http").expect("every node has http");
            let resp = listen_address(&text, "resp");
            let role = if *name == "x" { "auxiliary" } else { "main" }.to_owned();
            let member = Member { role, pid: 0, quic: *quic, http, resp, web: None };
            cluster.nodes.insert((*name).to_owned(), member);
        }
        cluster
    }

    fn empty(program_name: &str) -> Self {
        let folder = tempfile::Builder::new().prefix("synod-test-").tempdir().expect("a folder");
        Self {
            program: program(program_name),
            args: Vec::new(),
            variables: Vec::new(),
            dir: folder.path().join("cluster"),
            nodes: BTreeMap::new(),
            dev: None,
            by_hand: BTreeMap::new(),
            inside: BTreeMap::new(),
            folders: vec![folder],
        }
    }

    /// Starts the same command on the same directory (again), and waits until it is ready. Answers
    /// the event.
    ///
    /// # Panics
    /// When it runs already, or is not ready in time.
    pub fn resume(&mut self) -> Value {
        assert!(self.dev.is_none(), "it runs");
        let mut command = Command::new(&self.program);
        command.args(["dev", "--json", "--dir"]).arg(&self.dir).args(&self.args);
        command.stdout(Stdio::piped()).envs(self.variables.iter().cloned());
        let mut process = Process::spawn(&mut command, &self.dev_log());
        let lines = BufReader::new(process.child().stdout.take().expect("it was piped"));
        let (tell, events) = channel();
        std::thread::spawn(move || {
            for line in lines.lines().map_while(Result::ok) {
                let event = serde_json::from_str(&line).unwrap_or(Value::String(line));
                // A test that ended wants no more.
                tell.send(event).ok();
            }
        });
        self.dev = Some(Dev { process, events });
        let ready = self.event("ready", |_| true);
        for node in ready["nodes"].as_array().expect("a list") {
            let text = |key: &str| node[key].as_str().unwrap_or_default().to_owned();
            let address = |key: &str| text(key).parse().ok();
            let member = Member {
                role: text("role"),
                pid: pid_of(node),
                quic: address("quic").expect("every node has quic"),
                http: address("http").expect("every node has http"),
                resp: address("resp"),
                web: address("web"),
            };
            self.nodes.insert(text("name"), member);
        }
        ready
    }

    /// Waits for the event `kind` that `is_it` accepts, keeping processes' ids up to date.
    ///
    /// # Panics
    /// When it does not come.
    pub fn event(&mut self, kind: &str, is_it: impl Fn(&Value) -> bool) -> Value {
        loop {
            let dev = self.dev.as_ref().expect("it runs");
            let event = dev.events.recv_timeout(PATIENCE);
            let event = event.unwrap_or_else(|e| panic!("waited in vain for {kind}: {e}"));
            if event["event"] == "restarted"
                && let Some(member) = self.nodes.get_mut(event["name"].as_str().unwrap_or_default())
            {
                member.pid = pid_of(&event);
            }
            if event["event"] == kind && is_it(&event) {
                return event;
            }
        }
    }

    /// `PROGRAM init --add`: one more node's directory, of a node that is not started.
    ///
    /// # Panics
    /// When `init` fails.
    pub fn init_add(&mut self, name: &str, role: &str) {
        let quic = free_quic_ports(1)[0];
        let (out, add) = (self.dir.display().to_string(), format!("{name}={quic}"));
        let args = ["init", "--out", &out, "--add", &add, "--role", role];
        let (code, _, error) = run(&self.program, &args);
        assert_eq!(code, 0, "{error}");
        let text = fs::read_to_string(self.config(name)).expect("init wrote it");
        let http = listen_address(&text, "http").expect("every node has http");
        let resp = listen_address(&text, "resp");
        let member = Member { role: role.to_owned(), pid: 0, quic, http, resp, web: None };
        self.nodes.insert(name.to_owned(), member);
    }

    /// Waits until `dev` has started `name` again.
    pub fn wait_restarted(&mut self, name: &str) {
        self.event("restarted", |event| event["name"] == name);
    }

    /// One node.
    ///
    /// # Panics
    /// When there is none of that name.
    pub fn node(&self, name: &str) -> &Member {
        self.nodes.get(name).unwrap_or_else(|| panic!("there is no node {name}"))
    }

    /// All nodes by name.
    pub fn nodes(&self) -> impl Iterator<Item = (&str, &Member)> {
        self.nodes.iter().map(|(name, node)| (name.as_str(), node))
    }

    /// HTTP addresses of the mains.
    pub fn mains(&self) -> Vec<SocketAddr> {
        self.nodes.values().filter(|node| node.role == "main").map(|node| node.http).collect()
    }

    /// RESP addresses of the mains.
    pub fn resps(&self) -> Vec<SocketAddr> {
        self.nodes
            .values()
            .filter(|node| node.role == "main")
            .filter_map(|node| node.resp)
            .collect()
    }

    /// A client of one node.
    pub fn http(&self, name: &str) -> Http {
        Http::new(self.node(name).http)
    }

    /// Its directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The program it runs.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// The node file of `name`.
    pub fn config(&self, name: &str) -> PathBuf {
        self.dir.join(name).join("synod.toml")
    }

    /// Where the standard error of `name` goes.
    pub fn log(&self, name: &str) -> PathBuf {
        self.dir.join(name).join("log")
    }

    /// Lets the file of `name` say `new` where it says `old`.
    ///
    /// # Panics
    /// When it does not say `old`.
    pub fn rewrite(&self, name: &str, old: &str, new: &str) {
        let text = fs::read_to_string(self.config(name)).expect("a node file");
        assert!(text.contains(old), "{old} is not in\n{text}");
        fs::write(self.config(name), text.replace(old, new)).expect("a file of ours");
    }

    /// Sends one signal to some nodes, as nearly at once as can be.
    pub fn signal(&self, kind: &str, names: &[&str]) {
        signal(kind, &names.iter().map(|name| self.node(name).pid).collect::<Vec<_>>());
    }

    /// Kills some nodes and waits until they are gone.
    pub fn kill(&mut self, names: &[&str]) {
        self.signal("KILL", names);
        for name in names {
            match self.by_hand.remove(*name) {
                Some(mut process) => drop(process.wait()),
                None => wait_gone(self.node(name).pid),
            }
        }
    }

    /// Starts a node with `PROGRAM node --config FILE`, as its machine's owner would.
    pub fn start_node(&mut self, name: &str) {
        self.start_node_with(name, &[]);
    }

    /// The same, with more words on the command line.
    pub fn start_node_with(&mut self, name: &str, more: &[&str]) {
        let file = self.config(name).display().to_string();
        let program = self.program.display().to_string();
        let inside = self.inside.get(name).into_iter().flatten().map(String::as_str);
        let node = [program.as_str(), "node", "--config", &file];
        let words: Vec<&str> = inside.chain(node).chain(more.iter().copied()).collect();
        let process = Process::start(Path::new(words[0]), &words[1..], &self.log(name));
        self.nodes.get_mut(name).expect("a node").pid = process.pid();
        self.by_hand.insert(name.to_owned(), process);
    }

    /// From the next start of `dev` on its environment has this variable.
    pub fn tell(&mut self, variable: &str, value: &str) {
        self.variables.retain(|(name, _)| name != variable);
        self.variables.push((variable.to_owned(), value.to_owned()));
    }

    /// From now on nodes are started as this program, another build of the same.
    pub fn install(&mut self, program_name: &str) {
        self.program = program(program_name);
    }

    /// Stops a node that was started by hand in good order.
    ///
    /// # Panics
    /// When it was not, or does not stop.
    pub fn stop_node(&mut self, name: &str) {
        let mut process = self.by_hand.remove(name).expect("started by hand");
        process.signal("TERM");
        let status = process.wait_within(STOP_MAX);
        assert!(status.success(), "{name} ended with {status}");
    }

    /// A node started by hand.
    ///
    /// # Panics
    /// When it was not, or is gone.
    pub fn process(&mut self, name: &str) -> &mut Process {
        self.by_hand.get_mut(name).expect("started by hand")
    }

    /// Waits until `name` serves reads and writes.
    pub fn wait_ready(&self, name: &str) {
        let mut http = self.http(name);
        until(&format!("{name} to be ready"), || match http.get("/readyz")? {
            answer if answer.status == 200 => Ok(()),
            answer => Err(answer.text()),
        });
    }

    /// The status document of `name`.
    ///
    /// # Errors
    /// Why there is none, as a text to wait with.
    pub fn status(&self, name: &str) -> Result<Value, String> {
        self.http(name).patience(Duration::from_secs(2)).json("/status")
    }

    /// Waits until the status of `name` is as `want` says, and answers it.
    pub fn wait_status(&self, name: &str, what: &str, want: impl Fn(&Value) -> bool) -> Value {
        until(&format!("{what} at {name}"), || {
            let status = self.status(name)?;
            if want(&status) { Ok(status) } else { Err(status.to_string()) }
        })
    }

    /// The main that leads and the one that follows, once the mains agree on it.
    pub fn leader_and_follower(&self) -> (String, String) {
        let mains: Vec<&str> =
            self.nodes().filter(|(_, node)| node.role == "main").map(|(name, _)| name).collect();
        until("one leader at all mains", || {
            let mut leaders = Vec::new();
            for name in &mains {
                leaders.push(self.status(name)?["leader"].as_str().unwrap_or("nobody").to_owned());
            }
            let follower = mains.iter().find(|name| **name != leaders[0]);
            match follower {
                Some(follower)
                    if leaders
                        .iter()
                        .all(|one| mains.contains(&one.as_str()) && *one == leaders[0]) =>
                {
                    Ok((leaders[0].clone(), (*follower).to_owned()))
                }
                _ => Err(format!("{leaders:?}")),
            }
        })
    }

    /// SIGTERM to `dev`: everything must stop cleanly within the five seconds of the contract.
    ///
    /// # Panics
    /// When it does not.
    pub fn stop(&mut self) {
        let mut dev = self.dev.take().expect("it runs");
        dev.process.signal("TERM");
        let status = dev.process.wait_within(STOP_MAX);
        assert!(status.success(), "dev ended with {status}");
        self.wait_all_gone();
    }

    /// Kills `dev` and every node at once.
    pub fn crash(&mut self) {
        let dev = self.dev.take().map(|dev| dev.process);
        let nodes = self.nodes.values().map(|node| node.pid);
        let all: Vec<u32> = dev.iter().map(Process::pid).chain(nodes).collect();
        signal("KILL", &all);
        drop(dev);
        self.wait_all_gone();
    }

    fn wait_all_gone(&self) {
        self.nodes.values().filter(|node| node.pid != 0).for_each(|node| wait_gone(node.pid));
    }

    fn dev_log(&self) -> PathBuf {
        self.dir.with_file_name("dev.log")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.dev.take();
        self.by_hand.clear();
        if std::thread::panicking() {
            print_end(&self.dev_log());
            for name in self.nodes.keys() {
                print_end(&self.log(name));
            }
            return;
        }
        // The next cluster wants the machine for itself.
        self.wait_all_gone();
    }
}

/// The cause of a failed test is usually near the end of a log.
fn print_end(log: &Path) {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let from = lines.len().saturating_sub(LOG_LINES_MAX);
    eprintln!("--- {} ({} lines)", log.display(), lines.len());
    lines[from..].iter().for_each(|line| eprintln!("{line}"));
}

fn listen_address(config: &str, key: &str) -> Option<SocketAddr> {
    let start = format!("{key} = \"");
    let line = config.lines().find_map(|line| line.strip_prefix(&start))?;
    line.trim_end_matches('"').parse().ok()
}

fn pid_of(node: &Value) -> u32 {
    node["pid"].as_u64().and_then(|pid| pid.try_into().ok()).expect("a process id")
}

/// The contract's time for an orderly stop, and some for a busy machine.
const STOP_MAX: Duration = Duration::from_secs(7);

/// Every namespace has all ports.
const QUIC_IN_NAMESPACE: u16 = 7_101;

/// Per node.
const LOG_LINES_MAX: usize = 60;

/// The mains of a status document, by name.
pub fn mains_of(status: &Value) -> Vec<&str> {
    let names = status["mains"].as_array().map_or(&[][..], Vec::as_slice);
    let mut names: Vec<&str> = names.iter().filter_map(Value::as_str).collect();
    names.sort_unstable();
    names
}
