//! What `dev` says: one JSON object a line for scripts, or a table and hints for people.

use std::{io::Write as _, process::ExitStatus};

use serde_json::{Value, json};

use super::{children::describe, home::Home};
use crate::{
    cli::table::Table,
    server::{
        NodeAddresses, Service,
        config::{NodeConfig, NodeRole},
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
    pub(super) fn ready(&self, home: &Home, up: &[Up<'_>], services: &[Box<dyn Service>]) {
        let cluster = up.first().map_or("", |one| one.config.cluster.as_str());
        if self.json {
            let nodes: Vec<Value> = up.iter().map(node_document).collect();
            return say(&json!({
                "event": "ready",
                "cluster": cluster,
                "dir": home.dir().path(),
                "client": home.dir().client_file(),
                "nodes": nodes,
            }));
        }
        let page = self.page(home, up, services);
        // A reader that closed the pipe wants no more; the cluster goes on.
        std::io::stdout().write_all(page.as_bytes()).ok();
    }

    /// A process ended.
    pub(super) fn exited(&self, name: &str, pid: u32, status: ExitStatus) {
        let status = describe(status);
        if self.json {
            say(&json!({"event": "exited", "name": name, "pid": pid, "status": status}));
        } else {
            self.note(&format!("node {name} (process {pid}) ended: {status}"));
        }
    }

    /// A process was started again.
    pub(super) fn restarted(&self, name: &str, pid: u32) {
        if self.json {
            say(&json!({"event": "restarted", "name": name, "pid": pid}));
        } else {
            self.note(&format!("node {name} was started again as process {pid}"));
        }
    }

    /// For people, on standard error, with `--json` too.
    pub(super) fn note(&self, text: &str) {
        eprintln!("{}: {text}", self.program);
    }

    fn page(&self, home: &Home, up: &[Up<'_>], services: &[Box<dyn Service>]) -> String {
        let mut table = Table::new(&["NODE", "ROLE", "PROCESS", "QUIC", "HTTP", "RESP"]);
        for Up { config, pid } in up {
            let listen = config.listen;
            table.row([
                config.name.to_string(),
                config.role.to_string(),
                pid.to_string(),
                listen.quic.to_string(),
                listen.http.to_string(),
                listen.resp.map_or_else(|| "-".to_owned(), |at| at.to_string()),
            ]);
        }
        let mut page = format!("\n{}\nTry:\n", table.render());
        let main = up.iter().find(|one| one.config.role == NodeRole::Main);
        let at = main.map(|one| NodeAddresses {
            program: self.program,
            http: one.config.listen.http,
            resp: one.config.listen.resp,
        });
        for hint in at.iter().flat_map(|at| services.iter().flat_map(|one| one.hints(at))) {
            page += &format!("  {hint}\n");
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

fn node_document(up: &Up<'_>) -> Value {
    let listen = up.config.listen;
    let mut document = json!({
        "name": up.config.name,
        "role": up.config.role,
        "pid": up.pid,
        "quic": listen.quic,
        "http": listen.http,
    });
    if let Some(resp) = listen.resp {
        document["resp"] = json!(resp);
    }
    document
}

fn say(document: &Value) {
    // A reader that closed the pipe wants no more; the cluster goes on.
    writeln!(std::io::stdout(), "{document}").ok();
}
