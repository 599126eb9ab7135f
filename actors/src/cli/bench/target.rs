//! The cluster that benchmarks drive: one of their own, made by `dev` in a child process, or the one a
//! client file names.

use std::{
    fs::File,
    io::Write as _,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use actix_rt::time::timeout;
use serde_json::Value;
use synod_runtime::identity::NodeName;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader, Lines},
    process::{Child, ChildStdout, Command},
};

use crate::{
    cli::{
        args::ClientArgs, client::Cluster, dev::WEB_ORDER, failure::Failure, layout::ClusterDir,
        out, process,
    },
    client::{ClientFile, ClientNode},
    server::config::{Durability, HostPort, NodeRole, WebOrder},
};

/// A cluster of our own, gone when it is stopped or dropped.
#[derive(Debug)]
pub(super) struct OwnCluster {
    dev: Child,
    up: Up,
}

/// What a cluster says of itself when it is ready.
#[derive(Debug, Default)]
struct Up {
    client: PathBuf,
    /// Where clients reach the servers behind it.
    webs: Vec<SocketAddr>,
    /// The processes of its nodes.
    pids: Vec<(NodeName, u32)>,
}

/// What [`OwnCluster::start_sites`] starts.
pub(super) struct Sites<'a> {
    /// Where its files are to be.
    pub(super) dir: &'a Path,
    pub(super) upstreams: [String; 2],
    pub(super) order: WebOrder,
    pub(super) durability: Durability,
    /// What stands behind everything else in every node file with a server: its routes.
    pub(super) routes: &'a str,
}

impl OwnCluster {
    /// Starts two mains, an auxiliary and what `more` adds, and returns once they serve writes.
    pub(super) async fn start(durability: Durability, more: &[&str]) -> Result<Self, Failure> {
        let durability = durability.to_string();
        Self::launch(&[&["--durability", &durability], more].concat(), None).await
    }

    /// Starts two mains with a server behind each, an auxiliary, and the member that a group wants
    /// where one orders; returns once they serve writes.
    pub(super) async fn start_sites(sites: Sites<'_>) -> Result<Self, Failure> {
        let durability = sites.durability.to_string();
        let dir = sites.dir.display().to_string();
        let [first, second] = &sites.upstreams;
        let mut flags = vec!["--dir", &dir, "--durability", &durability];
        flags.extend(["--upstream", first, "--upstream", second]);
        if sites.order == WebOrder::Sam {
            flags.extend(["--members", "1"]);
        }
        let own = Self::launch(&flags, Some(sites.order)).await?;
        if sites.routes.is_empty() {
            return Ok(own);
        }
        // Routes stand in node files only, which are there now.
        own.stop().await;
        for node in ClusterDir::new(sites.dir).nodes()?.iter().filter(|node| node.web.is_some()) {
            let open = File::options().append(true).open(&node.file);
            open.and_then(|mut file| file.write_all(sites.routes.as_bytes())).map_err(|e| {
                let why = format!("cannot be written: {e}");
                Failure::failed(node.file.display(), why, "make room for it")
            })?;
        }
        Self::launch(&["--dir", &dir], Some(sites.order)).await
    }

    async fn launch(flags: &[&str], order: Option<WebOrder>) -> Result<Self, Failure> {
        let cannot = |e: std::io::Error| Failure::failed("dev", e, "try it alone: `dev`");
        let mut command = Command::new(std::env::current_exe().map_err(cannot)?);
        command.args(["dev", "--json"]).args(flags);
        if let Some(order) = order {
            command.env(WEB_ORDER, order.to_string());
            // Whatever --large says.
            command.env("SYNOD_WEB_BODY", "8GiB");
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
        process::tie_to_us(command.as_std_mut());
        let mut dev = command.spawn().map_err(cannot)?;
        let mut lines = BufReader::new(dev.stdout.take().expect("asked for above")).lines();
        let ready = timeout(READY_TIME_MAX, ready(&mut lines)).await.ok().flatten();
        let Some(up) = ready else {
            Self { dev, up: Up::default() }.stop().await;
            return Err(Failure::failed("dev", "served no writes in time", "try it alone: `dev`"));
        };
        actix_rt::spawn(tell_ends(lines));
        Ok(Self { dev, up })
    }

    /// Where its client file is.
    pub(super) fn client_file(&self) -> &Path {
        &self.up.client
    }

    /// Where clients reach the servers behind it, of each main in turn.
    pub(super) fn webs(&self) -> &[SocketAddr] {
        &self.up.webs
    }

    /// The processes of its nodes, as they were when it was ready.
    pub(super) fn pids(&self) -> &[(NodeName, u32)] {
        &self.up.pids
    }

    /// Stops it in order and waits until it is gone.
    pub(super) async fn stop(mut self) {
        if let Some(pid) = self.dev.id() {
            process::ask_to_stop(pid);
        }
        if timeout(STOP_TIME_MAX, self.dev.wait()).await.is_err() {
            // Its nodes die with it.
            self.dev.kill().await.ok();
        }
    }
}

/// Waits for the ready event.
async fn ready(lines: &mut Lines<BufReader<ChildStdout>>) -> Option<Up> {
    while let Ok(Some(line)) = lines.next_line().await {
        let event: Value = serde_json::from_str(&line).ok()?;
        if event["event"] == "ready" {
            let nodes = event["nodes"].as_array()?;
            let webs = nodes.iter().filter_map(|node| node["web"].as_str()?.parse().ok());
            let pid = |node: &Value| u32::try_from(node["pid"].as_u64()?).ok();
            let name = |node: &Value| node["name"].as_str()?.parse().ok();
            let pids = nodes.iter().filter_map(|node| Some((name(node)?, pid(node)?)));
            return Some(Up {
                client: event["client"].as_str()?.into(),
                webs: webs.collect(),
                pids: pids.collect(),
            });
        }
    }
    None
}

/// A node that died while it was measured spoils the figures: people should know.
async fn tell_ends(mut lines: Lines<BufReader<ChildStdout>>) {
    while let Ok(Some(line)) = lines.next_line().await {
        let event: Value = serde_json::from_str(&line).unwrap_or_default();
        // An orderly stop ends every node with exit 0.
        if event["event"] == "exited" && event["status"] != "exit 0" {
            out::tell(format_args!(
                "node {} ended while it was measured: {}",
                event["name"], event["status"]
            ));
        }
    }
}

/// What there is to drive.
#[derive(Debug, Clone)]
pub(super) struct Target {
    /// Nodes of the cluster, auxiliaries included.
    pub(super) nodes: usize,
    /// The nodes that keep data, whose counters tell what a command costs.
    pub(super) mains: Vec<ClientNode>,
    /// Whom clients connect to, by turns.
    pub(super) ports: Vec<(NodeName, HostPort)>,
    /// If it is known here.
    pub(super) durability: Option<Durability>,
}

impl Target {
    /// The cluster of the client file `file`, driven over the nodes `wanted`, or else its leader.
    pub(super) async fn find(file: &Path, wanted: &[NodeName]) -> Result<Self, Failure> {
        let clients = ClientFile::load(file)?;
        if clients.credentials.ca.is_some() {
            let why = "its nodes speak TLS, which the benchmark does not";
            return Err(Failure::usage(file.display(), why, "measure a cluster on loopback"));
        }
        let args = ClientArgs { cluster: file.to_owned(), timeout: LEADER_TIME_MAX, json: false };
        let (_, status) = Cluster::open(&args)?.get("/status").await?;
        let durability = known_durability(file);
        let mains = clients.nodes.iter().filter(|node| node.role == NodeRole::Main);
        let leader = status["leader"].as_str();
        Ok(Self {
            nodes: clients.nodes.len(),
            mains: mains.cloned().collect(),
            ports: ports(file, &clients.nodes, wanted, leader)?,
            durability,
        })
    }
}

/// As the node files beside the client file `file` say, if they are there.
pub(super) fn known_durability(file: &Path) -> Option<Durability> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
    let nodes = ClusterDir::new(folder.unwrap_or_else(|| Path::new("."))).nodes();
    Some(nodes.ok()?.first()?.consensus.durability)
}

fn ports(
    file: &Path,
    nodes: &[ClientNode],
    wanted: &[NodeName],
    leader: Option<&str>,
) -> Result<Vec<(NodeName, HostPort)>, Failure> {
    let serving: Vec<(NodeName, HostPort)> =
        nodes.iter().filter_map(|node| Some((node.name.clone(), node.resp.clone()?))).collect();
    let Some(first) = serving.first() else {
        let hint = "give each main a `resp = \"HOST:PORT\"` there";
        return Err(Failure::usage(file.display(), "names no address for Redis clients", hint));
    };
    if wanted.is_empty() {
        let leads = serving.iter().find(|(name, _)| Some(name.as_str()) == leader);
        return Ok(vec![leads.unwrap_or(first).clone()]);
    }
    let find = |name: &NodeName| {
        serving.iter().find(|(other, _)| other == name).cloned().ok_or_else(|| {
            let names: Vec<&str> = serving.iter().map(|(name, _)| name.as_str()).collect();
            let hint = format!("use one of {}", names.join(", "));
            Failure::usage("--node", format!("{name} serves no Redis clients"), &hint)
        })
    };
    wanted.iter().map(find).collect()
}

/// `dev` is ready within 5 s of its start, on a machine with nothing else to do.
const READY_TIME_MAX: Duration = Duration::from_secs(60);

/// `dev` kills what does not stop within 5 s.
const STOP_TIME_MAX: Duration = Duration::from_secs(10);

/// An election is over by then.
const LEADER_TIME_MAX: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_go_to_the_leader_or_where_they_are_told() {
        let node = |name: &str, port: Option<&str>| ClientNode {
            name: name.parse().unwrap(),
            role: if port.is_some() { NodeRole::Main } else { NodeRole::Auxiliary },
            http: "127.0.0.1:1".parse().unwrap(),
            resp: port.map(|at| at.parse().unwrap()),
        };
        let nodes =
            [node("a", Some("127.0.0.1:2")), node("b", Some("127.0.0.1:3")), node("x", None)];
        let file = Path::new("client.toml");
        let chosen = |wanted: &[&str], leader: Option<&str>| {
            let wanted: Vec<NodeName> = wanted.iter().map(|name| name.parse().unwrap()).collect();
            let found = ports(file, &nodes, &wanted, leader);
            found.map(|all| all.iter().map(|(name, _)| name.to_string()).collect::<String>())
        };
        assert_eq!(chosen(&[], Some("b")).unwrap(), "b");
        assert_eq!(chosen(&[], None).unwrap(), "a");
        assert_eq!(chosen(&["b", "a"], Some("b")).unwrap(), "ba");
        assert!(chosen(&["x"], None).unwrap_err().to_string().contains("use one of a, b"));
        let none = ports(file, &nodes[2..], &[], None).unwrap_err().to_string();
        assert!(none.contains("client.toml: names no address"), "{none}");
    }
}
