//! What `dev` says: one JSON object a line for scripts, or a table and hints for people.

use std::{
    io::Write as _,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitStatus,
};

use serde::Serialize;

use super::{Hosted, children::describe, home::Home};
use crate::{
    cli::{out, table::Table},
    server::{
        NodeAddresses,
        config::{Listen, NodeConfig, NodeRole},
    },
};

/// How to say things.
#[derive(Debug, Clone, Copy)]
pub(super) struct Output {
    pub(super) program: &'static str,
    pub(super) json: bool,
}

/// A node that runs.
pub(super) struct Up<'a> {
    pub(super) config: &'a NodeConfig,
    pub(super) pid: u32,
}

impl Output {
    /// Writes are served.
    pub(super) fn ready(&self, home: &Home, up: &[Up<'_>], hosted: Hosted<'_>) {
        if self.json {
            return say(&Event::Ready {
                cluster: up.first().map_or("", |one| one.config.cluster.as_str()),
                dir: home.dir().path(),
                client: home.dir().client_file(),
                nodes: up.iter().map(node).collect(),
            });
        }
        let page = self.page(home, up, hosted);
        // A reader that closed the pipe wants no more; the cluster goes on.
        std::io::stdout().write_all(page.as_bytes()).ok();
    }

    /// A process ended.
    pub(super) fn exited(&self, name: &str, pid: u32, status: ExitStatus) {
        let status = describe(status);
        if self.json {
            say(&Event::Exited { name, pid, status: &status });
        } else {
            self.note(&format!("node {name} (process {pid}) ended: {status}"));
        }
    }

    /// A process was started again.
    pub(super) fn restarted(&self, name: &str, pid: u32) {
        if self.json {
            say(&Event::Restarted { name, pid });
        } else {
            self.note(&format!("node {name} was started again as process {pid}"));
        }
    }

    /// For people, on standard error, with `--json` too.
    pub(super) fn note(&self, text: &str) {
        out::tell(format_args!("{}: {text}", self.program));
    }

    fn page(&self, home: &Home, up: &[Up<'_>], hosted: Hosted<'_>) -> String {
        let with_web = up.iter().any(|one| one.config.web.is_some());
        let columns = ["NODE", "ROLE", "PROCESS", "QUIC", "HTTP", "RESP", "WEB"];
        let shown = if with_web { columns.len() } else { columns.len() - 1 };
        let mut table = Table::new(&columns[..shown]);
        let address =
            |at: Option<SocketAddr>| at.map_or_else(|| "-".to_owned(), |at| at.to_string());
        for Up { config, pid } in up {
            let listen = config.listen;
            let row = [
                config.name.to_string(),
                config.role.to_string(),
                pid.to_string(),
                listen.quic.to_string(),
                listen.http.to_string(),
                address(listen.resp),
                address(web_address(config)),
            ];
            table.row(row.into_iter().take(shown));
        }
        let mut page = format!("\n{}\nTry:\n", table.render());
        let main = up.iter().find(|one| one.config.role == NodeRole::Main);
        let at = main.map(|one| NodeAddresses {
            program: self.program,
            http: one.config.listen.http,
            resp: one.config.listen.resp,
            web: web_address(one.config),
            upstream: one.config.web.as_ref().map(|web| web.upstream.clone()),
        });
        for hint in at.iter().flat_map(|at| hosted.hints(at)) {
            page += &format!("  {hint}\n");
        }
        if let Some(main) = main {
            page += &format!("  http://{}/ in a browser\n", main.config.listen.http);
        }
        let client = home.dir().client_file();
        page += &format!("  {} status --cluster {}\n", self.program, client.display());
        page += match home.is_temporary() {
            true => "\nCtrl-C stops all and forgets them (--dir DIR would keep them).\n",
            false => "\nCtrl-C stops all; the same command resumes them.\n",
        };
        page
    }
}

fn node<'a>(up: &Up<'a>) -> Node<'a> {
    let Listen { quic, http, resp } = up.config.listen;
    let (name, role) = (up.config.name.as_str(), up.config.role);
    Node { name, role, pid: up.pid, quic, http, resp, web: web_address(up.config) }
}

/// Where clients of the server behind a node come in.
fn web_address(config: &NodeConfig) -> Option<SocketAddr> {
    config.web.as_ref().map(|web| web.listen)
}

fn say(event: &Event<'_>) {
    let line = serde_json::to_string(event).expect("texts and numbers");
    // A reader that closed the pipe wants no more; the cluster goes on.
    writeln!(std::io::stdout(), "{line}").ok();
}

/// A line for scripts.
#[derive(Serialize)]
#[serde(tag = "event", rename_all = "lowercase")]
enum Event<'a> {
    Ready { cluster: &'a str, dir: &'a Path, client: PathBuf, nodes: Vec<Node<'a>> },
    Exited { name: &'a str, pid: u32, status: &'a str },
    Restarted { name: &'a str, pid: u32 },
}

/// A node in such a line.
#[derive(Serialize)]
struct Node<'a> {
    name: &'a str,
    role: NodeRole,
    pid: u32,
    quic: SocketAddr,
    http: SocketAddr,
    #[serde(skip_serializing_if = "Option::is_none")]
    resp: Option<SocketAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    web: Option<SocketAddr>,
}
