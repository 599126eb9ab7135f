//! Random sequences of what a few clients do to one server.

use std::fmt;

use super::{common::encode, dice::Dice};

/// Name and arguments.
pub(crate) type Command = Vec<Vec<u8>>;

/// How many clients a sequence has.
pub(crate) const CLIENTS: usize = 3;

/// One thing a client does, and then waits for all replies.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    /// Commands in one write.
    Send { client: usize, commands: Vec<Command> },
    /// A command as people type it.
    Line { client: usize, line: Vec<u8>, command: Command },
    /// `SCAN` with these options until its cursor is 0 again.
    Walk { client: usize, options: Command },
}

impl Op {
    pub(crate) fn client(&self) -> usize {
        match self {
            Self::Send { client, .. } | Self::Line { client, .. } | Self::Walk { client, .. } => {
                *client
            }
        }
    }

    /// What is written to the socket.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Send { commands, .. } => commands.iter().flat_map(|c| encode(c)).collect(),
            Self::Line { line, .. } => line.clone(),
            Self::Walk { .. } => Vec::new(),
        }
    }

    /// The commands, one a reply.
    pub(crate) fn commands(&self) -> Vec<Command> {
        match self {
            Self::Send { commands, .. } => commands.clone(),
            Self::Line { command, .. } => vec![command.clone()],
            Self::Walk { .. } => Vec::new(),
        }
    }

    /// Whether a key may be gone in the next millisecond.
    pub(crate) fn is_brief(&self) -> bool {
        self.commands().iter().any(is_brief)
    }
}

/// Whether the command may give a key a time to live that is over at once.
pub(crate) fn is_brief(command: &Command) -> bool {
    command.iter().any(|argument| argument == BRIEF)
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |command: &Command| {
            let quoted = command.iter().map(|a| match a.len() {
                0..=64 => format!("\"{}\"", a.escape_ascii()),
                len => format!("\"{}…\" ({len} bytes)", a[..8].escape_ascii()),
            });
            quoted.collect::<Vec<_>>().join(" ")
        };
        match self {
            Self::Send { client, commands } => {
                let all: Vec<String> = commands.iter().map(shown).collect();
                write!(f, "client {client}: {}", all.join(" | "))
            }
            Self::Line { client, line, .. } => {
                write!(f, "client {client}, inline: {}", line.escape_ascii())
            }
            Self::Walk { client, options } => {
                write!(f, "client {client}: walk with SCAN {}", shown(options))
            }
        }
    }
}

/// A sequence of `len` ops that depends on `seed` only.
pub(crate) fn sequence(seed: u64, len: usize) -> Vec<Op> {
    let mut dice = Dice::new(seed);
    let hello = Op::Send { client: 0, commands: vec![vec![b"HELLO".to_vec(), b"3".to_vec()]] };
    let three = seed.is_multiple_of(2).then_some(hello);
    three.into_iter().chain((0..len).map(|_| op(&mut dice))).collect()
}

fn op(dice: &mut Dice) -> Op {
    // The first client does most, so that transactions grow.
    let client = if dice.one_in(3) { dice.below(CLIENTS) } else { 0 };
    match dice.below(20) {
        0 => line(dice, client),
        1 => Op::Walk { client, options: walk_options(dice) },
        2 | 3 => {
            let count = 2 + dice.below(6);
            Op::Send { client, commands: (0..count).map(|_| command(dice)).collect() }
        }
        4 => Op::Send { client, commands: vec![brief(dice)] },
        _ => Op::Send { client, commands: vec![command(dice)] },
    }
}

/// Gives a key a time to live that is over before the next op.
fn brief(dice: &mut Dice) -> Command {
    let key = dice.key();
    let words: &[&[u8]] = match dice.below(4) {
        0 => &[b"SET", &key, b"v", b"PX", BRIEF],
        1 => &[b"PSETEX", &key, BRIEF, b"v"],
        2 => &[b"GETEX", &key, b"PX", BRIEF],
        _ => &[b"PEXPIRE", &key, BRIEF],
    };
    words.iter().map(|word| word.to_vec()).collect()
}

/// One millisecond, written so that nothing else has it.
const BRIEF: &[u8] = b"2";

fn line(dice: &mut Dice, client: usize) -> Op {
    let (line, words): (&str, &[&str]) = match dice.below(7) {
        0 => ("PING\r\n", &["PING"]),
        1 => ("set a \"x\\x00\\n\\\"y\"\r\n", &["set", "a", "x\0\n\"y"]),
        2 => ("  GET   a  \r\n", &["GET", "a"]),
        3 => ("SET b 'it\\'s'\n", &["SET", "b", "it's"]),
        4 => ("\r\nECHO \"\"\r\n", &["ECHO", ""]),
        5 => ("INCRBY c 5\r\n", &["INCRBY", "c", "5"]),
        _ => ("nosuch 'a b' c\r\n", &["nosuch", "a b", "c"]),
    };
    let command = words.iter().map(|word| word.as_bytes().to_vec()).collect();
    Op::Line { client, line: line.into(), command }
}

fn walk_options(dice: &mut Dice) -> Command {
    let mut options = Vec::new();
    if dice.one_in(2) {
        options.extend([b"COUNT".to_vec(), dice.pick(&["1", "2", "3", "100"]).into()]);
    }
    if dice.one_in(3) {
        options.extend([b"match".to_vec(), dice.pattern()]);
    }
    if dice.one_in(4) {
        options.extend([b"TYPE".to_vec(), dice.pick(&["string", "list", "STRING"]).into()]);
    }
    options
}

fn command(dice: &mut Dice) -> Command {
    let name = dice.pick(NAMES);
    let mut spelt: Vec<u8> = name.into();
    if dice.one_in(8) {
        spelt.make_ascii_lowercase();
    }
    let mut command = vec![spelt];
    // Now and then too many or too few arguments, or nonsense.
    if dice.one_in(30) {
        command.extend((0..dice.below(6)).map(|_| dice.value()));
        return command;
    }
    command.extend(arguments(dice, name));
    if dice.one_in(60) {
        command.push(dice.value());
    }
    command
}

fn arguments(dice: &mut Dice, name: &str) -> Command {
    match name {
        "GET" | "GETDEL" | "STRLEN" | "TYPE" | "INCR" | "DECR" | "TTL" | "PTTL" | "EXPIRETIME"
        | "PERSIST" => vec![dice.key()],
        "SET" => {
            let mut all = vec![dice.key(), dice.value()];
            let options = ["NX", "XX", "GET", "KEEPTTL", "ex", "PX", "EXAT", "pxat"];
            all.extend(some_options(dice, &options));
            all
        }
        "SETNX" | "GETSET" | "APPEND" => vec![dice.key(), dice.value()],
        "SETEX" | "PSETEX" => vec![dice.key(), dice.ttl(), dice.value()],
        "GETEX" => {
            let mut all = vec![dice.key()];
            all.extend(some_options(dice, &["PERSIST", "EX", "px", "EXAT", "PXAT", "NX"]));
            all
        }
        "MSET" | "MSETNX" => vec![dice.key(), dice.value(), dice.key(), dice.value()],
        "MGET" | "DEL" | "UNLINK" | "EXISTS" | "WATCH" => {
            (0..=dice.below(3)).map(|_| dice.key()).collect()
        }
        "GETRANGE" => vec![dice.key(), dice.number(), dice.number()],
        "SETRANGE" => vec![dice.key(), dice.number(), dice.value()],
        "INCRBY" | "DECRBY" => vec![dice.key(), dice.number()],
        "INCRBYFLOAT" => vec![dice.key(), dice.value()],
        "EXPIRE" | "PEXPIRE" | "EXPIREAT" | "PEXPIREAT" => {
            let at = name.ends_with("AT");
            let mut all = vec![dice.key(), if at { dice.end() } else { dice.ttl() }];
            all.extend(some_options(dice, &["nx", "XX", "GT", "LT", "FOO"]));
            all
        }
        "RENAME" => vec![dice.key(), dice.key()],
        "KEYS" => vec![dice.pattern()],
        "ECHO" => vec![dice.value()],
        "PING" => (0..dice.below(3)).map(|_| dice.value()).collect(),
        "SELECT" => vec![dice.pick(&["0", "2", "3", "x", "1"]).into()],
        // Inside a transaction the two encode what came before a change of protocol differently.
        "HELLO" => vec![dice.pick(&["0", "4", "x"]).into()],
        "SCAN" => vec![dice.pick(&["x", " 0", "0x", "1 ", "18446744073709551616"]).into()],
        "FLUSHALL" | "FLUSHDB" if dice.one_in(2) => {
            vec![dice.pick(&["SYNC", "async", "x"]).into()]
        }
        "CLIENT" => vec![dice.pick(&["GETNAME", "getname", "nosuch", "ID x"]).into()],
        _ => Vec::new(),
    }
}

fn some_options(dice: &mut Dice, of: &[&str]) -> Command {
    let mut all = Vec::new();
    for _ in 0..dice.below(8).saturating_sub(4) {
        let option = dice.pick(of);
        all.push(option.into());
        let argument = match option.to_ascii_uppercase().as_str() {
            "EX" | "PX" => Some(dice.ttl()),
            "EXAT" | "PXAT" => Some(dice.end()),
            _ => None,
        };
        all.extend(argument.filter(|_| !dice.one_in(20)));
    }
    all
}

const NAMES: &[&str] = &[
    "GET",
    "GET",
    "GET",
    "SET",
    "SET",
    "SET",
    "SET",
    "GETDEL",
    "STRLEN",
    "TYPE",
    "INCR",
    "DECR",
    "TTL",
    "PTTL",
    "EXPIRETIME",
    "PERSIST",
    "SETNX",
    "GETSET",
    "APPEND",
    "SETEX",
    "PSETEX",
    "GETEX",
    "GETEX",
    "MSET",
    "MSETNX",
    "MGET",
    "DEL",
    "UNLINK",
    "EXISTS",
    "GETRANGE",
    "SETRANGE",
    "INCRBY",
    "DECRBY",
    "INCRBYFLOAT",
    "INCRBYFLOAT",
    "EXPIRE",
    "EXPIRE",
    "PEXPIRE",
    "EXPIREAT",
    "PEXPIREAT",
    "RENAME",
    "KEYS",
    "ECHO",
    "PING",
    "MULTI",
    "MULTI",
    "EXEC",
    "EXEC",
    "EXEC",
    "DISCARD",
    "WATCH",
    "WATCH",
    "UNWATCH",
    "DBSIZE",
    "RANDOMKEY",
    "SELECT",
    "HELLO",
    "SCAN",
    "FLUSHALL",
    "FLUSHDB",
    "RESET",
    "CLIENT",
    "nosuch",
];
