//! The table of all commands: name, arity, flags, keys, what runs it.

use synod::replicated::Moment;

use super::{Arguments, CommandError, counters, expiry, keys, many, scan, set, strings};
use crate::{reply::Reply, store::Store};

/// One command as `COMMAND` shows it, and what runs it.
#[derive(Clone, Copy, Debug)]
pub struct Command {
    /// Its name in lower case.
    pub name: &'static str,
    /// Arguments with the name; negative: at least so many.
    pub arity: i32,
    /// Redis' flags, separated by spaces.
    pub flags: &'static str,
    /// First key, last key (negative: from the end) and step; zeros for none.
    pub keys: (i32, i32, i32),
    /// Redis' access categories, separated by spaces.
    pub categories: &'static str,
    /// The group of the manual it stands in.
    pub group: &'static str,
    /// What it does, in a few words.
    pub summary: &'static str,
    /// What runs it.
    pub run: Run,
}

/// Who runs a command.
#[derive(Clone, Copy, Debug)]
pub enum Run {
    /// The replica, which it does not change.
    Read(fn(&Store, Moment, &Arguments<'_>, &mut Reply) -> Result<(), CommandError>),
    /// The replica, as a command of the log.
    Write(fn(&mut Store, Moment, &Arguments<'_>, &mut Reply) -> Result<(), CommandError>),
    /// The connection it came on.
    Connection,
}

impl Command {
    /// Refuses a wrong number of arguments.
    pub fn check_arity(&self, count: usize) -> Result<(), CommandError> {
        let wanted = self.arity.unsigned_abs() as usize;
        let fits = if self.arity < 0 { count >= wanted } else { count == wanted };
        if fits { Ok(()) } else { Err(CommandError::arity(self.name)) }
    }

    /// Whether clients may call it; the others are the listener's own questions to the store.
    pub fn is_public(&self) -> bool {
        !self.name.starts_with(OWN_PREFIX)
    }

    /// Whether it may change the state.
    pub fn writes(&self) -> bool {
        matches!(self.run, Run::Write(_))
    }
}

/// The command called `name`, in any case.
pub fn find(name: &[u8]) -> Option<&'static Command> {
    let first = usize::from(name.first()?.to_ascii_lowercase());
    let (from, to) = (STARTS[first], STARTS[first + 1]);
    let row = &COMMANDS[usize::from(from)..usize::from(to)];
    row.iter().find(|command| command.name.as_bytes().eq_ignore_ascii_case(name))
}

/// The commands clients may call, by name.
pub fn commands() -> impl Iterator<Item = &'static Command> {
    COMMANDS.iter().filter(|command| command.is_public())
}

/// `RANDOMKEY` with a random number of the listener's.
pub(crate) const RANDOM_KEY: &str = "synod.randomkey";

/// The versions of keys, for `WATCH`.
pub(crate) const VERSIONS: &str = "synod.versions";

/// The part of `INFO` that speaks of keys.
pub(crate) const KEYSPACE: &str = "synod.keyspace";

const OWN_PREFIX: &str = "synod.";

/// Where the commands begin whose names' first byte is not below this one: every command is looked
/// up twice, by the listener and by each replica.
static STARTS: [u16; 257] = starts();

const fn starts() -> [u16; 257] {
    let mut starts = [0; 257];
    let mut command = 0;
    while command < COMMANDS.len() {
        let mut above = COMMANDS[command].name.as_bytes()[0] as usize + 1;
        while above < starts.len() {
            starts[above] += 1;
            above += 1;
        }
        command += 1;
    }
    starts
}

type Read = fn(&Store, Moment, &Arguments<'_>, &mut Reply) -> Result<(), CommandError>;
type Write = fn(&mut Store, Moment, &Arguments<'_>, &mut Reply) -> Result<(), CommandError>;

const NO_KEYS: (i32, i32, i32) = (0, 0, 0);
const ONE_KEY: (i32, i32, i32) = (1, 1, 1);
const ALL_KEYS: (i32, i32, i32) = (1, -1, 1);
const PAIRS: (i32, i32, i32) = (1, -1, 2);

/// Commands on keys in general.
const fn generic(name: &'static str, arity: i32, flags: &'static str) -> Command {
    let categories = "@keyspace";
    Command {
        name,
        arity,
        flags,
        keys: ONE_KEY,
        categories,
        group: "generic",
        summary: "",
        run: Run::Connection,
    }
}

/// Commands on strings.
const fn string(name: &'static str, arity: i32, flags: &'static str) -> Command {
    Command { categories: "@string", group: "string", ..generic(name, arity, flags) }
}

/// Commands of the connection or the server, which touch no key.
const fn connection(name: &'static str, arity: i32, flags: &'static str) -> Command {
    let (categories, group) = ("@connection", "connection");
    Command { categories, group, keys: NO_KEYS, ..generic(name, arity, flags) }
}

/// Commands of transactions.
const fn transaction(name: &'static str, arity: i32, flags: &'static str) -> Command {
    let (categories, group) = ("@transaction", "transactions");
    Command { categories, group, keys: NO_KEYS, ..generic(name, arity, flags) }
}

impl Command {
    const fn keys(self, keys: (i32, i32, i32)) -> Self {
        Self { keys, ..self }
    }

    const fn server(self) -> Self {
        Self { group: "server", ..self }
    }

    const fn reads(self, run: Read, summary: &'static str) -> Self {
        Self { run: Run::Read(run), summary, ..self }
    }

    const fn changes(self, run: Write, summary: &'static str) -> Self {
        Self { run: Run::Write(run), summary, ..self }
    }

    const fn says(self, summary: &'static str) -> Self {
        Self { summary, ..self }
    }
}

const READ: &str = "readonly";
const READ_FAST: &str = "readonly fast";
const WRITE: &str = "write";
const WRITE_FAST: &str = "write fast";
const GROW: &str = "write denyoom";
const GROW_FAST: &str = "write denyoom fast";
const STALE: &str = "loading stale";
const STALE_FAST: &str = "loading stale fast";
const ADMIN_FREE: &str = "noscript loading stale fast no_auth allow_busy";
const BUSY: &str = "noscript loading stale fast allow_busy";

/// Sorted by name; a test checks it.
static COMMANDS: &[Command] = &[
    string("append", 3, GROW_FAST).changes(strings::append, "Append a value to a key"),
    connection("auth", -2, ADMIN_FREE).says("Authenticate to the server"),
    connection("client", -2, "").says("Ask about and manage client connections"),
    connection("command", -1, STALE).server().says("Get details about commands"),
    connection("config", -2, "").server().says("Get server parameters"),
    generic("dbsize", 1, READ_FAST)
        .keys(NO_KEYS)
        .server()
        .reads(keys::dbsize, "Return the number of keys"),
    string("decr", 2, GROW_FAST).changes(counters::decr, "Decrement a number by one"),
    string("decrby", 3, GROW_FAST).changes(counters::decrby, "Decrement a number"),
    generic("del", -2, WRITE).keys(ALL_KEYS).changes(keys::del, "Delete keys"),
    transaction("discard", 1, BUSY).says("Discard all commands issued after MULTI"),
    connection("echo", 2, STALE_FAST).reads(keys::echo, "Echo the given string"),
    transaction("exec", 1, "noscript loading stale skip_slowlog")
        .says("Execute all commands issued after MULTI"),
    generic("exists", -2, READ_FAST).keys(ALL_KEYS).reads(keys::exists, "Count keys that exist"),
    generic("expire", -3, WRITE_FAST).changes(expiry::expire, "Set a time to live in seconds"),
    generic("expireat", -3, WRITE_FAST).changes(expiry::expireat, "Set the second of expiry"),
    generic("expiretime", 2, READ_FAST).reads(expiry::expiretime, "Get the second of expiry"),
    connection("fence", 3, "fast").reads(keys::fence, "Write in a role and its epoch"),
    generic("flushall", -1, WRITE).keys(NO_KEYS).server().changes(keys::flush, "Remove all keys"),
    generic("flushdb", -1, WRITE).keys(NO_KEYS).server().changes(keys::flush, "Remove all keys"),
    string("get", 2, READ_FAST).reads(strings::get, "Get the value of a key"),
    string("getdel", 2, WRITE_FAST).changes(strings::getdel, "Get a value and delete the key"),
    string("getex", -2, WRITE_FAST).changes(set::getex, "Get a value and set its time to live"),
    string("getrange", 4, READ).reads(strings::getrange, "Get a part of a value"),
    string("getset", 3, GROW_FAST).changes(set::getset, "Set a value and return the old one"),
    connection("hello", -1, ADMIN_FREE).says("Choose the version of the protocol"),
    string("incr", 2, GROW_FAST).changes(counters::incr, "Increment a number by one"),
    string("incrby", 3, GROW_FAST).changes(counters::incrby, "Increment a number"),
    string("incrbyfloat", 3, GROW_FAST)
        .changes(counters::incrbyfloat, "Increment a number by a fraction"),
    connection("info", -1, STALE).server().says("Get information about the server"),
    generic("keys", 2, READ).keys(NO_KEYS).reads(scan::keys, "Find all keys that match a pattern"),
    string("mget", -2, READ_FAST).keys(ALL_KEYS).reads(many::mget, "Get the values of keys"),
    string("mset", -3, GROW).keys(PAIRS).changes(many::mset, "Set keys to values"),
    string("msetnx", -3, GROW)
        .keys(PAIRS)
        .changes(many::msetnx, "Set keys to values, if none of them exists"),
    transaction("multi", 1, BUSY).says("Begin a transaction"),
    generic("persist", 2, WRITE_FAST).changes(expiry::persist, "Remove the time to live"),
    generic("pexpire", -3, WRITE_FAST).changes(expiry::pexpire, "Set a time to live"),
    generic("pexpireat", -3, WRITE_FAST).changes(expiry::pexpireat, "Set the time of expiry"),
    connection("ping", -1, "fast").reads(keys::ping, "Ping the server"),
    string("psetex", 4, GROW).changes(set::psetex, "Set a value and a time to live"),
    generic("pttl", 2, READ_FAST).reads(expiry::pttl, "Get the time to live in milliseconds"),
    connection("quit", -1, ADMIN_FREE).says("Close the connection"),
    generic("randomkey", 1, READ).keys(NO_KEYS).says("Return a random key"),
    connection("readonly", 1, STALE_FAST).says("Read what this node has, without asking others"),
    connection("readwrite", 1, STALE_FAST).says("Read what every earlier write left again"),
    generic("rename", 3, WRITE).keys((1, 2, 1)).changes(keys::rename, "Rename a key"),
    connection("reset", 1, ADMIN_FREE).says("Reset the connection"),
    generic("scan", -2, READ).keys(NO_KEYS).reads(scan::scan, "Iterate over the keys"),
    connection("select", 2, STALE_FAST).says("Change the database: there is only 0"),
    string("set", -3, GROW).changes(set::set, "Set the value of a key"),
    string("setex", 4, GROW).changes(set::setex, "Set a value and a time to live in seconds"),
    string("setnx", 3, GROW_FAST).changes(set::setnx, "Set a value, if the key does not exist"),
    string("setrange", 4, GROW).changes(strings::setrange, "Overwrite a part of a value"),
    string("strlen", 2, READ_FAST).reads(strings::strlen, "Get the length of a value"),
    connection(KEYSPACE, 1, READ).reads(keys::keyspace, ""),
    connection(RANDOM_KEY, 2, READ).reads(scan::random_key, ""),
    connection(VERSIONS, -1, READ).reads(keys::versions, ""),
    generic("ttl", 2, READ_FAST).reads(expiry::ttl, "Get the time to live in seconds"),
    generic("type", 2, READ_FAST).reads(keys::type_of, "Get the type of a key"),
    generic("unlink", -2, WRITE_FAST).keys(ALL_KEYS).changes(keys::del, "Delete keys"),
    transaction("unwatch", 1, BUSY).says("Forget all watched keys"),
    connection("wait", 3, "noscript").keys(NO_KEYS).says("Wait for replicas: all have it"),
    transaction("watch", -2, BUSY).keys(ALL_KEYS).says("Watch keys for a transaction"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_every_command_is_found_in_any_case() {
        assert!(COMMANDS.is_sorted_by(|a, b| a.name < b.name));
        for command in COMMANDS {
            let upper = command.name.to_ascii_uppercase();
            assert_eq!(find(upper.as_bytes()).map(|found| found.name), Some(command.name));
        }
        for none in [&b""[..], &[b'x'; 100], b"lpush", b"se", b"\xffset", b"{"] {
            assert!(find(none).is_none(), "{none:?}");
        }
    }
}
