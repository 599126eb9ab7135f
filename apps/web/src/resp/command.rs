//! What the commands of Redis are to a site: what changes something is ordered, what only looks is
//! read, and what cannot be the same at all servers is refused.
//!
//! A table of our own, and not the servers' flags: whether a command does the same everywhere is in
//! none of them. A command that is not in it is refused, so that a newer server brings no surprise.

use bytes::Bytes;

use super::wire::Words;

/// What a command is to a site.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// It concerns this connection, and is answered by the site itself.
    Own,
    /// It changes nothing: this site's server answers.
    Read,
    /// It changes something: it is performed at all servers, in one order.
    Write,
    /// It is not done, and why.
    Refused(&'static str),
}

/// The name of a command in capitals, if it could be one.
pub(super) fn name(words: &[Bytes]) -> String {
    let word = words.first().map_or(&[][..], |word| &word[..word.len().min(NAME_BYTES_MAX)]);
    String::from_utf8_lossy(word).to_ascii_uppercase()
}

/// Its name, for people, if it is a command's: whoever takes this for another port may say anything.
pub(super) fn known(name: &str) -> &str {
    let ours = OWN.contains(&name) || READS.contains(&name) || WRITES.contains(&name);
    let known = ours || REFUSED.iter().any(|(names, _)| names.contains(&name));
    if known { name } else { "other" }
}

/// What this command is.
pub(super) fn kind(words: &[Bytes]) -> Kind {
    let name = name(words);
    let name = name.as_str();
    let has = |option: &str| words.iter().skip(2).any(|word| is(word, option));
    let first = |option: &str| words.get(1).is_some_and(|word| is(word, option));
    match name {
        _ if OWN.contains(&name) => Kind::Own,
        "XREAD" if words.iter().skip(1).any(|word| is(word, "block")) => Kind::Refused(WAITS),
        "SORT" | "GEORADIUS" | "GEORADIUSBYMEMBER" if has("store") || has("storedist") => {
            Kind::Write
        }
        "SORT" | "GEORADIUS" | "GEORADIUSBYMEMBER" => Kind::Read,
        "CONFIG" if first("get") => Kind::Read,
        "MEMORY" if first("usage") => Kind::Read,
        "SLOWLOG" if first("get") || first("len") => Kind::Read,
        "COPY" | "MOVE" if reaches_ours(name, words) => Kind::Refused(OURS),
        _ if READS.contains(&name) => Kind::Read,
        _ if WRITES.contains(&name) => Kind::Write,
        _ => Kind::Refused(why(name)),
    }
}

fn why(name: &str) -> &'static str {
    let refused = REFUSED.iter().find(|(names, _)| names.contains(&name));
    refused.map_or("it is not known to do the same at every server", |(_, why)| why)
}

/// Whether it puts something into a database that is not the clients'.
fn reaches_ours(name: &str, words: &[Bytes]) -> bool {
    let to = match name {
        "MOVE" => words.get(2),
        _ => {
            let db = words.iter().skip(3).position(|word| is(word, "db"));
            db.and_then(|at| words.get(at + 4))
        }
    };
    to.is_some_and(|to| database(to).is_none())
}

/// A database of the clients', by its number.
pub(super) fn database(word: &[u8]) -> Option<u32> {
    let number: u32 = std::str::from_utf8(word).ok()?.parse().ok()?;
    (number < OUR_DATABASE).then_some(number)
}

/// Whether a word is this one, in large or small letters.
pub(super) fn is(word: &[u8], other: &str) -> bool {
    word.eq_ignore_ascii_case(other.as_bytes())
}

/// Whether the answers of two servers in the same state are the same. What is read may come in any
/// order, and tells of a server's own.
pub(super) fn is_compared(words: &Words) -> bool {
    kind(words) == Kind::Write
}

/// The last that Redis has as it comes: the number of what was performed stands there.
pub(super) const OUR_DATABASE: u32 = 15;

const NAME_BYTES_MAX: usize = 32;

const OWN: [&str; 16] = [
    "AUTH",
    "CLIENT",
    "DISCARD",
    "ECHO",
    "EXEC",
    "HELLO",
    "MULTI",
    "PING",
    "QUIT",
    "READONLY",
    "READWRITE",
    "RESET",
    "SELECT",
    "UNWATCH",
    "WAIT",
    "WATCH",
];

const READS: [&str; 83] = [
    "BITCOUNT",
    "BITFIELD_RO",
    "BITPOS",
    "COMMAND",
    "DBSIZE",
    "DUMP",
    "EXISTS",
    "EXPIRETIME",
    "GEODIST",
    "GEOHASH",
    "GEOPOS",
    "GEORADIUSBYMEMBER_RO",
    "GEORADIUS_RO",
    "GEOSEARCH",
    "GET",
    "GETBIT",
    "GETRANGE",
    "HEXISTS",
    "HGET",
    "HGETALL",
    "HKEYS",
    "HLEN",
    "HMGET",
    "HRANDFIELD",
    "HSCAN",
    "HSTRLEN",
    "HVALS",
    "INFO",
    "KEYS",
    "LASTSAVE",
    "LCS",
    "LINDEX",
    "LLEN",
    "LOLWUT",
    "LPOS",
    "LRANGE",
    "MGET",
    "OBJECT",
    "PEXPIRETIME",
    "PFCOUNT",
    "PTTL",
    "RANDOMKEY",
    "SCAN",
    "SCARD",
    "SDIFF",
    "SINTER",
    "SINTERCARD",
    "SISMEMBER",
    "SMEMBERS",
    "SMISMEMBER",
    "SORT_RO",
    "SRANDMEMBER",
    "SSCAN",
    "STRLEN",
    "SUBSTR",
    "SUNION",
    "TIME",
    "TOUCH",
    "TTL",
    "TYPE",
    "XINFO",
    "XLEN",
    "XRANGE",
    "XREAD",
    "XREVRANGE",
    "ZCARD",
    "ZCOUNT",
    "ZDIFF",
    "ZINTER",
    "ZINTERCARD",
    "ZLEXCOUNT",
    "ZMSCORE",
    "ZRANDMEMBER",
    "ZRANGE",
    "ZRANGEBYLEX",
    "ZRANGEBYSCORE",
    "ZRANK",
    "ZREVRANGE",
    "ZREVRANGEBYLEX",
    "ZREVRANGEBYSCORE",
    "ZREVRANK",
    "ZSCAN",
    "ZSCORE",
];

/// Performed in the same order on the same data they leave and answer the same.
const WRITES: [&str; 79] = [
    "APPEND",
    "BITFIELD",
    "BITOP",
    "COPY",
    "DECR",
    "DECRBY",
    "DEL",
    "EXPIRE",
    "EXPIREAT",
    "FLUSHALL",
    "FLUSHDB",
    "GEOADD",
    "GEOSEARCHSTORE",
    "GETDEL",
    "GETEX",
    "GETSET",
    "HDEL",
    "HINCRBY",
    "HINCRBYFLOAT",
    "HMSET",
    "HSET",
    "HSETNX",
    "INCR",
    "INCRBY",
    "INCRBYFLOAT",
    "LINSERT",
    "LMOVE",
    "LMPOP",
    "LPOP",
    "LPUSH",
    "LPUSHX",
    "LREM",
    "LSET",
    "LTRIM",
    "MOVE",
    "MSET",
    "MSETNX",
    "PERSIST",
    "PEXPIRE",
    "PEXPIREAT",
    "PFADD",
    "PFMERGE",
    "PSETEX",
    "RENAME",
    "RENAMENX",
    "RESTORE",
    "RPOP",
    "RPOPLPUSH",
    "RPUSH",
    "RPUSHX",
    "SADD",
    "SDIFFSTORE",
    "SET",
    "SETBIT",
    "SETEX",
    "SETNX",
    "SETRANGE",
    "SINTERSTORE",
    "SMOVE",
    "SREM",
    "SUNIONSTORE",
    "UNLINK",
    "XADD",
    "XDEL",
    "XSETID",
    "XTRIM",
    "ZADD",
    "ZDIFFSTORE",
    "ZINCRBY",
    "ZINTERSTORE",
    "ZMPOP",
    "ZPOPMAX",
    "ZPOPMIN",
    "ZRANGESTORE",
    "ZREM",
    "ZREMRANGEBYLEX",
    "ZREMRANGEBYRANK",
    "ZREMRANGEBYSCORE",
    "ZUNIONSTORE",
];

const WAITS: &str = "it waits, and nothing can be ordered behind what waits: ask again and again, \
                     say with LPOP, LMOVE, ZPOPMIN, or XREAD without BLOCK";

const OURS: &str = "database 15 is the site's own: use 0 to 14";

const REFUSED: &[(&[&str], &str)] = &[
    (
        &["BLMOVE", "BLMPOP", "BLPOP", "BRPOP", "BRPOPLPUSH", "BZMPOP", "BZPOPMAX", "BZPOPMIN"],
        WAITS,
    ),
    (
        &["SPOP"],
        "each server would take another member: choose with SRANDMEMBER, take with SREM, and begin \
         anew where SREM answers 0",
    ),
    (
        &["EVAL", "EVALSHA", "EVALSHA_RO", "EVAL_RO", "FCALL", "FCALL_RO", "FUNCTION", "SCRIPT"],
        "what a script does may depend on each server's clock, chance and order of members, and one \
         without an end would stop every server for good: send its commands, between MULTI and EXEC \
         where they belong together, behind WATCH where they depend on what is there",
    ),
    (
        &[
            "PSUBSCRIBE",
            "PUBLISH",
            "PUBSUB",
            "PUNSUBSCRIBE",
            "SPUBLISH",
            "SSUBSCRIBE",
            "SUBSCRIBE",
            "SUNSUBSCRIBE",
            "UNSUBSCRIBE",
        ],
        "messages are at one server only: use XADD and XREAD, or subscribe at the servers themselves",
    ),
    (
        &["XACK", "XAUTOCLAIM", "XCLAIM", "XGROUP", "XPENDING", "XREADGROUP"],
        "consumer groups keep each server's own times: use XREAD, and keep what was read in a key",
    ),
    (&["SWAPDB"], OURS),
    (
        &[
            "ACL",
            "BGREWRITEAOF",
            "BGSAVE",
            "CLUSTER",
            "CONFIG",
            "DEBUG",
            "FAILOVER",
            "LATENCY",
            "MEMORY",
            "MIGRATE",
            "MODULE",
            "MONITOR",
            "PSYNC",
            "REPLICAOF",
            "REPLCONF",
            "ROLE",
            "SAVE",
            "SHUTDOWN",
            "SLAVEOF",
            "SLOWLOG",
            "SYNC",
        ],
        "it concerns one server: send it to that server itself",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Words {
        line.split(' ').map(|word| Bytes::copy_from_slice(word.as_bytes())).collect()
    }

    #[test]
    fn no_command_is_two_things() {
        let refused = REFUSED.iter().flat_map(|(names, _)| names.iter());
        let mut all: Vec<&str> =
            OWN.iter().chain(&READS).chain(&WRITES).chain(refused).copied().collect();
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        // One that depends on what follows it is refused otherwise.
        let either = ["CONFIG", "MEMORY", "SLOWLOG"];
        assert!(either.iter().all(|name| all.contains(name)));
        assert_eq!(all.len(), count);
    }

    #[test]
    fn what_cannot_be_equal_everywhere_is_refused_and_says_what_to_do() {
        for (line, what) in [
            ("spop s", "SREM"),
            ("BLPOP a 0", "LPOP"),
            ("XREAD BLOCK 0 STREAMS a $", "without BLOCK"),
            ("eval x 0", "WATCH"),
            ("function list", "MULTI"),
            ("subscribe a", "XREAD"),
            ("swapdb 0 1", "0 to 14"),
            ("move a 15", "0 to 14"),
            ("copy a b db 15 replace", "0 to 14"),
            ("config set maxmemory 1", "that server itself"),
            ("frob", "not known"),
        ] {
            let Kind::Refused(why) = kind(&words(line)) else { panic!("{line} is not refused") };
            assert!(why.contains(what), "{line}: {why}");
        }
    }

    #[test]
    fn what_changes_something_is_told_from_what_looks() {
        for write in ["set a b", "SORT a STORE b", "georadius a 1 1 1 m storedist b", "move a 14"] {
            assert_eq!(kind(&words(write)), Kind::Write, "{write}");
        }
        for read in ["get a", "SORT a", "config get save", "xread streams a 0", "copy", "INFO"] {
            let write = read == "copy";
            assert_eq!(kind(&words(read)), if write { Kind::Write } else { Kind::Read }, "{read}");
        }
        assert_eq!(kind(&words("multi")), Kind::Own);
    }
}
