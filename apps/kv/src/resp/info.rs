//! `INFO`: sections as monitoring programs read them.

use std::fmt::Write as _;

use super::{local::REDIS_VERSION, session::Session};
use crate::{execute::Arguments, limits::CONNECTIONS_MAX};

impl Session {
    /// Everything but the last section, which the replica writes.
    pub(super) fn info_head(&self, a: &Arguments<'_>) -> String {
        let facts = self.facts.ask();
        let mut text = String::new();
        let mut section = |name: &str, title: &str, body: String| {
            if wants(a, name) {
                write!(text, "# {title}\r\n{body}\r\n").expect("a string takes everything");
            }
        };
        let uptime = self.clients.uptime_secs();
        section(
            "server",
            "Server",
            lines(&[
                ("redis_version", &REDIS_VERSION),
                ("redis_mode", &"standalone"),
                ("synod_version", &facts.version),
                ("process_id", &std::process::id()),
                ("uptime_in_seconds", &uptime),
                ("uptime_in_days", &(uptime / 86_400)),
            ]),
        );
        section(
            "clients",
            "Clients",
            lines(&[
                ("connected_clients", &self.clients.len()),
                ("maxclients", &CONNECTIONS_MAX),
                ("blocked_clients", &0),
            ]),
        );
        section("persistence", "Persistence", lines(&[("loading", &0), ("aof_enabled", &1)]));
        let (connections, commands, refused) = self.clients.totals();
        section(
            "stats",
            "Stats",
            lines(&[
                ("total_connections_received", &connections),
                ("total_commands_processed", &commands),
                ("rejected_connections", &refused),
            ]),
        );
        let leader = facts.leader.as_deref().unwrap_or("");
        section(
            "replication",
            "Replication",
            lines(&[
                ("role", &"master"),
                ("connected_slaves", &facts.mains.saturating_sub(1)),
                ("synod_cluster", &facts.cluster),
                ("synod_node", &facts.node),
                ("synod_role", &facts.role),
                ("synod_leader", &leader),
                ("synod_executed", &facts.executed),
            ]),
        );
        section("cluster", "Cluster", lines(&[("cluster_enabled", &0)]));
        text
    }
}

/// Whether `INFO` with these arguments shows the section the replica writes.
pub(super) fn wants_keyspace(a: &Arguments<'_>) -> bool {
    wants(a, "keyspace")
}

fn wants(a: &Arguments<'_>, section: &str) -> bool {
    a.len() == 1
        || a[1..].iter().any(|name| {
            let name = name.to_ascii_lowercase();
            name == section.as_bytes() || EVERYTHING.contains(&&*name)
        })
}

fn lines(fields: &[(&str, &dyn std::fmt::Display)]) -> String {
    let mut text = String::new();
    for (name, value) in fields {
        write!(text, "{name}:{value}\r\n").expect("a string takes everything");
    }
    text
}

const EVERYTHING: [&[u8]; 3] = [b"all", b"default", b"everything"];
