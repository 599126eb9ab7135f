//! Asking a running cluster over HTTP, and saying honestly what became of the question.

use std::{
    collections::{BTreeMap, VecDeque},
    path::Path,
    time::Duration,
};

use actix_rt::time::{sleep, timeout};
use awc::http::{Method, StatusCode};
use bytes::Bytes;
use futures_util::future::{FutureExt as _, join_all, select_ok};
use serde_json::Value;
use synod_runtime::{
    identity::{ClusterName, NodeName},
    world::{Clock as _, RealClock},
};

use super::{
    args::ClientArgs,
    failure::{Exit, Failure},
    http::{Credentials, Http},
};
use crate::server::config::{HostPort, Keys, NodeRole, Overrides, Source};

/// What `client.toml` says: whom to ask.
#[derive(Debug, Clone)]
pub(crate) struct ClientFile {
    pub(crate) cluster: ClusterName,
    pub(crate) nodes: Vec<ClientNode>,
    /// What it takes to be let in.
    pub(crate) credentials: Credentials,
}

/// A node as clients reach it.
#[derive(Debug, Clone)]
pub(crate) struct ClientNode {
    pub(crate) name: NodeName,
    pub(crate) role: NodeRole,
    pub(crate) http: HostPort,
    /// For Redis clients, where the node serves them.
    pub(crate) resp: Option<HostPort>,
}

/// The nodes of one cluster, and how long to wait for them.
pub(crate) struct Cluster {
    file: ClientFile,
    shown: String,
    patience: Duration,
    http: Http,
}

/// One answer, whatever it says.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) body: Bytes,
}

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum NoAnswer {
    /// The request never left: surely not applied.
    NotSent(String),
    /// It was sent, and then nothing came.
    Lost(String),
}

impl ClientFile {
    pub(crate) fn load(file: &Path) -> Result<Self, Failure> {
        let (source, table) = Source::open(file, KEYS, Overrides::default())?;
        let top = source.top(table)?;
        let cluster = top.need("cluster", "the cluster's name")?;
        let credentials = Credentials::read(&top)?;
        let mut nodes = Vec::new();
        for node in top.list("nodes")? {
            nodes.push(ClientNode {
                name: node.need("name", "the node's name")?,
                role: node.need("role", "\"main\", \"auxiliary\" or \"member\"")?,
                http: node.need("http", "the node's HTTP address, host:port")?,
                resp: node.parse("resp", "the node's RESP address, host:port", str::parse)?,
            });
        }
        if nodes.is_empty() {
            return Err(top.refuse("nodes", "names nobody", "add a [[nodes]] table").into());
        }
        Ok(Self { cluster, nodes, credentials })
    }

    /// A client for this file's nodes; relative paths start from where `file` is.
    pub(crate) fn http(&self, file: &Path) -> Result<Http, Failure> {
        Http::with(file.parent().unwrap_or_else(|| Path::new("")), &self.credentials)
    }

    /// The file's text.
    pub(crate) fn render(&self) -> String {
        let mut text = format!("# Whom `--cluster` asks.\ncluster = \"{}\"\n", self.cluster);
        text += &self.credentials.render();
        for ClientNode { name, role, http, resp } in &self.nodes {
            text +=
                &format!("\n[[nodes]]\nname = \"{name}\"\nrole = \"{role}\"\nhttp = \"{http}\"\n");
            if let Some(resp) = resp {
                text += &format!("resp = \"{resp}\"\n");
            }
        }
        text
    }
}

impl Cluster {
    pub(crate) fn open(args: &ClientArgs) -> Result<Self, Failure> {
        let file = ClientFile::load(&args.cluster)?;
        let shown = args.cluster.display().to_string();
        let http = file.http(&args.cluster)?;
        Ok(Self { file, shown, patience: args.timeout, http })
    }

    /// The first good answer of any node to `GET path`; asks all at once, and again until the
    /// time is over, so that one node that hangs delays nobody.
    pub(crate) async fn get(&self, path: &str) -> Result<(NodeName, Value), Failure> {
        let mut last = String::from("no node is up");
        let asking = async {
            loop {
                let all = self.file.nodes.iter().map(|node| {
                    async move {
                        if node.role == NodeRole::Auxiliary {
                            sleep(AUXILIARY_PAUSE).await;
                        }
                        self.get_one(node, path).await
                    }
                    .boxed_local()
                });
                match select_ok(all).await {
                    Ok((good, _rest)) => return good,
                    Err(why) => last = why,
                }
                sleep(PAUSE).await;
            }
        };
        match timeout(self.patience, asking).await {
            Ok(good) => Ok(good),
            Err(_elapsed) => Err(self.nobody(&last)),
        }
    }

    /// Sends `body` to one node after the other until one took it. A request that may have
    /// arrived is never repeated.
    pub(crate) async fn post(&self, path: &str, body: String) -> Result<Answer, Failure> {
        let mut last = String::from("no node is up");
        let mut nodes: VecDeque<&ClientNode> =
            self.file.nodes.iter().filter(|node| node.role != NodeRole::Auxiliary).collect();
        let until = RealClock.now() + self.patience;
        while let Some(node) = nodes.pop_front() {
            nodes.push_back(node);
            let left = until.since(RealClock.now());
            if left.is_zero() {
                break;
            }
            let sent = self.http.request(Method::POST, &node.http, path, body.clone(), left);
            match sent.await {
                Ok(answer) if answer.status == StatusCode::SERVICE_UNAVAILABLE => {
                    last = format!("{} says: {}", node.name, answer.error_text());
                }
                Ok(answer) => return Ok(answer),
                Err(NoAnswer::NotSent(why)) => {
                    last = format!("{} at {}: {why}", node.name, node.http);
                }
                Err(NoAnswer::Lost(why)) => {
                    let why = format!("outcome unknown, {} at {}: {why}", node.name, node.http);
                    let hint = "ask what the state is before repeating it";
                    return Err(Failure::new(Exit::Unknown, &self.shown, why, hint));
                }
            }
            sleep(PAUSE).await;
        }
        Err(self.nobody(&last))
    }

    /// What every node says of itself at this moment; those that say nothing within a second are
    /// there without a document.
    pub(crate) async fn views(&self) -> BTreeMap<NodeName, Option<Value>> {
        let all = self.file.nodes.iter().map(|node| async {
            let asked = timeout(VIEW_TIMEOUT, self.get_one(node, "/view")).await;
            let view = asked.ok().and_then(Result::ok).map(|(_, view)| view);
            (node.name.clone(), view)
        });
        join_all(all).await.into_iter().collect()
    }

    async fn get_one(&self, node: &ClientNode, path: &str) -> Result<(NodeName, Value), String> {
        let sent = self.http.request(Method::GET, &node.http, path, String::new(), self.patience);
        let answer = sent.await.map_err(|e| match e {
            NoAnswer::NotSent(why) | NoAnswer::Lost(why) => {
                format!("{} at {}: {why}", node.name, node.http)
            }
        })?;
        if !answer.status.is_success() {
            return Err(format!("{} says: {}", node.name, answer.error_text()));
        }
        match serde_json::from_slice(&answer.body) {
            Ok(document) => Ok((node.name.clone(), document)),
            Err(e) => Err(format!("{} answers with no JSON: {e}", node.name)),
        }
    }

    fn nobody(&self, last: &str) -> Failure {
        let why = format!("not applied, nobody served it in {:?} ({last})", self.patience);
        let hint = "see that the nodes run, or raise --timeout";
        Failure::new(Exit::NotApplied, &self.shown, why, hint)
    }
}

impl Answer {
    /// The `error` of a JSON body, or the body, or the status.
    pub(crate) fn error_text(&self) -> String {
        let text = String::from_utf8_lossy(&self.body);
        let json: Option<Value> = serde_json::from_slice(&self.body).ok();
        match json.as_ref().and_then(|json| json.get("error")?.as_str()) {
            Some(error) => error.to_owned(),
            None if text.trim().is_empty() => self.status.to_string(),
            None => text.trim().to_owned(),
        }
    }

    /// The outcome this answer stands for; success is applied.
    pub(crate) fn outcome(&self) -> Result<(), Exit> {
        let json: Option<Value> = serde_json::from_slice(&self.body).ok();
        let said = json.as_ref().and_then(|json| json.get("outcome")?.as_str());
        match (self.status, said) {
            (status, _) if status.is_success() => Ok(()),
            (StatusCode::SERVICE_UNAVAILABLE, _) => Err(Exit::NotApplied),
            (StatusCode::GATEWAY_TIMEOUT, _) | (_, Some("unknown")) => Err(Exit::Unknown),
            _ => Err(Exit::Failed),
        }
    }
}

const KEYS: Keys = &[
    ("", &["cluster", "ca", "token", "cert", "key", "nodes"]),
    ("nodes", &["name", "role", "http", "resp"]),
];

/// An auxiliary knows least, so the others get this head start.
const AUXILIARY_PAUSE: Duration = Duration::from_millis(150);

/// Between two rounds over all nodes: a fail-over takes a few of these.
const PAUSE: Duration = Duration::from_millis(100);

/// A node that says nothing for this long is shown as saying nothing.
const VIEW_TIMEOUT: Duration = Duration::from_secs(1);
