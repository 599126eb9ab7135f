//! `CONFIG`: what clients and `redis-benchmark` ask a server for. Nothing can be set here; the node
//! file is where a node is configured.

use super::local::{help, no_subcommand};
use crate::{
    execute::{Arguments, CommandError, printable},
    glob,
    reply::Reply,
};

pub(super) fn run(a: &Arguments<'_>, reply: &mut Reply) -> Result<(), CommandError> {
    let subcommand = String::from_utf8_lossy(a[1]).to_ascii_lowercase();
    match subcommand.as_str() {
        "get" => get(&a[2..], reply),
        "set" => return Err(set(a)),
        "resetstat" => reply.ok(),
        "rewrite" => {
            return Err(CommandError("ERR The server is running without a config file".into()));
        }
        "help" => help(&HELP, reply),
        other => return Err(no_subcommand(other)),
    }
    Ok(())
}

fn get(patterns: &[&[u8]], reply: &mut Reply) {
    let wanted = |name: &str| {
        patterns.iter().any(|pattern| glob::matches(&pattern.to_ascii_lowercase(), name.as_bytes()))
    };
    let found: Vec<_> = PARAMETERS.iter().filter(|(name, _)| wanted(name)).collect();
    reply.map(found.len());
    for (name, value) in found {
        reply.bulk(name.as_bytes());
        reply.bulk(value.as_bytes());
    }
}

fn set(a: &Arguments<'_>) -> CommandError {
    let name = printable(a[2], 128).to_ascii_lowercase();
    let known = PARAMETERS.iter().any(|(known, _)| *known == name);
    let text = if known && a.len() == 4 {
        format!(
            "ERR CONFIG SET failed (possibly related to argument '{name}') - \
             can't set immutable config"
        )
    } else {
        format!("ERR Unknown option or number of arguments for CONFIG SET - '{name}'")
    };
    CommandError(text.into())
}

/// As a Redis would say what is true here. Limits are those of [`crate::limits`].
const PARAMETERS: &[(&str, &str)] = &[
    ("appendfsync", "always"),
    ("appendonly", "yes"),
    ("databases", "1"),
    ("maxclients", "10000"),
    ("maxmemory", "0"),
    ("maxmemory-policy", "noeviction"),
    ("proto-max-bulk-len", "1048576"),
    ("save", ""),
    ("timeout", "0"),
];

const HELP: [&str; 7] = [
    "CONFIG <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
    "GET <pattern>",
    "    Return parameters matching the glob-like <pattern> and their values.",
    "RESETSTAT",
    "    Accepted; the statistics are those of /metrics, which only grow.",
    "HELP",
    "    Prints this help.",
];
