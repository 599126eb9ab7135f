//! `COMMAND`: the table of commands, as clients and `redis-cli` read it.

use super::local::{help, no_subcommand};
use crate::{
    execute::{Arguments, Command, CommandError, commands, find},
    glob,
    reply::Reply,
};

pub(super) fn run(a: &Arguments<'_>, reply: &mut Reply) -> Result<(), CommandError> {
    let Some(subcommand) = a.get(1) else {
        reply.array(commands().count());
        commands().for_each(|command| entry(command, reply));
        return Ok(());
    };
    let subcommand = String::from_utf8_lossy(subcommand).to_ascii_lowercase();
    match subcommand.as_str() {
        "count" => reply.integer(i64::try_from(commands().count()).expect("a short table")),
        "list" => list(&a[2..], reply)?,
        "info" if a.len() == 2 => return run(&a[..1], reply),
        "info" => {
            reply.array(a.len() - 2);
            for name in &a[2..] {
                match public(name) {
                    Some(command) => entry(command, reply),
                    None => reply.null(),
                }
            }
        }
        "docs" => docs(&a[2..], reply),
        "getkeys" => keys(&a[2..], reply)?,
        "help" => help(&HELP, reply),
        other => return Err(no_subcommand(other)),
    }
    Ok(())
}

/// The ten fields of a command. The last three (tips, key specifications, subcommands) are empty:
/// first key, last key and step say the same of the commands here.
fn entry(command: &Command, reply: &mut Reply) {
    let (first, last, step) = command.keys;
    let flags: Vec<&str> = command.flags.split_ascii_whitespace().collect();
    let kind = match (flags.contains(&"readonly"), flags.contains(&"write")) {
        (true, _) => Some("@read"),
        (_, true) => Some("@write"),
        _ => None,
    };
    let speed = if flags.contains(&"fast") { "@fast" } else { "@slow" };
    let categories: Vec<&str> = command.categories.split(' ').chain(kind).chain([speed]).collect();
    reply.array(10);
    reply.bulk(command.name.as_bytes());
    reply.integer(i64::from(command.arity));
    set(&flags, reply);
    for key in [first, last, step] {
        reply.integer(i64::from(key));
    }
    set(&categories, reply);
    for _ in 0..3 {
        reply.array(0);
    }
}

fn set(names: &[&str], reply: &mut Reply) {
    reply.set(names.len());
    for name in names {
        reply.simple(name);
    }
}

fn list(options: &[&[u8]], reply: &mut Reply) -> Result<(), CommandError> {
    let syntax = || CommandError("ERR syntax error".into());
    let chosen: Vec<&Command> = match options {
        [] => commands().collect(),
        [by, kind, value] if by.eq_ignore_ascii_case(b"filterby") => {
            match kind.to_ascii_lowercase().as_slice() {
                b"pattern" => {
                    let pattern = value.to_ascii_lowercase();
                    commands().filter(|c| glob::matches(&pattern, c.name.as_bytes())).collect()
                }
                b"aclcat" => {
                    let category = [b"@", *value].concat().to_ascii_lowercase();
                    let has = |c: &&Command| {
                        c.categories.split(' ').any(|name| name.as_bytes() == category)
                    };
                    commands().filter(has).collect()
                }
                b"module" => Vec::new(),
                _ => return Err(syntax()),
            }
        }
        _ => return Err(syntax()),
    };
    reply.array(chosen.len());
    for command in chosen {
        reply.bulk(command.name.as_bytes());
    }
    Ok(())
}

fn docs(names: &[&[u8]], reply: &mut Reply) {
    let chosen: Vec<&Command> = if names.is_empty() {
        commands().collect()
    } else {
        names.iter().filter_map(|name| public(name)).collect()
    };
    reply.map(chosen.len());
    for command in chosen {
        reply.bulk(command.name.as_bytes());
        reply.map(2);
        reply.bulk(b"summary");
        reply.bulk(command.summary.as_bytes());
        reply.bulk(b"group");
        reply.bulk(command.group.as_bytes());
    }
}

/// The keys of a whole command.
fn keys(a: &[&[u8]], reply: &mut Reply) -> Result<(), CommandError> {
    let error = |text: &'static str| CommandError(text.into());
    let command = public(a[0]).ok_or_else(|| error("ERR Invalid command specified"))?;
    command
        .check_arity(a.len())
        .map_err(|_| error("ERR Invalid number of arguments specified for command"))?;
    let (first, last, step) = command.keys;
    let (Ok(first), Ok(step)) = (usize::try_from(first), usize::try_from(step)) else {
        return Err(error("ERR The command has no key arguments"));
    };
    if first == 0 {
        return Err(error("ERR The command has no key arguments"));
    }
    let end = match usize::try_from(last) {
        Ok(last) => last + 1,
        Err(_) => a.len() + 1 - last.unsigned_abs() as usize,
    };
    let keys: Vec<_> = a[first..end.min(a.len())].iter().step_by(step).collect();
    reply.array(keys.len());
    for key in keys {
        reply.bulk(key);
    }
    Ok(())
}

fn public(name: &[u8]) -> Option<&'static Command> {
    find(name).filter(|command| command.is_public())
}

const HELP: [&str; 15] = [
    "COMMAND <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
    "(no subcommand)",
    "    Return details about all commands.",
    "COUNT",
    "    Return the total number of commands in this server.",
    "DOCS [<command-name> ...]",
    "    Return documentation details about multiple commands.",
    "GETKEYS <full-command>",
    "    Return the keys from a full command.",
    "INFO [<command-name> ...]",
    "    Return details about multiple commands.",
    "LIST [FILTERBY (PATTERN <pattern>|ACLCAT <category>|MODULE <name>)]",
    "    Return a list of all commands in this server.",
    "HELP",
    "    Prints this help.",
];
