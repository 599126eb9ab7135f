//! WATCH: a transaction is performed only where what its client watched is still as the client saw it.
//!
//! What a client watches is watched on a connection of its own to this site's server. So whatever the
//! client reads until EXEC is of one state, or the server says then that it was touched. At EXEC the
//! server makes a print of each key, in the same transaction that says it was not. The prints go with
//! the client's transaction, and every server compares them in its place of the order. What is equal
//! has equal prints at every server, so all of them perform it, or none does.

use bytes::{Bytes, BytesMut};
use tokio::sync::OwnedSemaphorePermit;

use super::{
    connection::{Connection, RedisAddress},
    wire::{self, Words},
};
use crate::{Header, Request};

/// The keys that one client watches.
#[derive(Debug)]
pub(super) struct Watch {
    connection: Connection,
    /// With their databases.
    keys: Vec<(u32, Bytes)>,
    bytes: usize,
    _slot: OwnedSemaphorePermit,
}

impl Watch {
    /// Nothing, so far, of the process of that name, or of any.
    ///
    /// # Errors
    /// There is no such server.
    pub(super) async fn begin(
        address: &RedisAddress,
        instance: Option<&str>,
        slot: OwnedSemaphorePermit,
    ) -> Result<Self, String> {
        let connection = Connection::open(address, 0).await?;
        if instance.is_some_and(|name| connection.instance() != name) {
            return Err("the server began anew, and is not what it was yet".to_owned());
        }
        Ok(Self { connection, keys: Vec::new(), bytes: 0, _slot: slot })
    }

    /// Whether so many more can be watched.
    pub(super) fn fits(&self, keys: &[Bytes]) -> bool {
        let bytes: usize = keys.iter().map(Bytes::len).sum();
        self.keys.len() + keys.len() <= KEYS_MAX && self.bytes + bytes <= BYTES_MAX
    }

    /// Watches these, too.
    ///
    /// # Errors
    /// The server does not; then nothing can be said of any key.
    pub(super) async fn more(&mut self, database: u32, keys: &[Bytes]) -> Result<(), String> {
        self.expect(&["SELECT", &database.to_string()], "OK").await?;
        let words: Vec<&[u8]> =
            [&b"WATCH"[..]].into_iter().chain(keys.iter().map(|key| &key[..])).collect();
        self.expect(&words, "OK").await?;
        self.keys.extend(keys.iter().map(|key| (database, key.clone())));
        self.bytes += keys.iter().map(Bytes::len).sum::<usize>();
        Ok(())
    }

    /// What every server must find, if nothing was touched so far.
    ///
    /// # Errors
    /// Nobody knows.
    pub(super) async fn seen(mut self) -> Result<Option<Header>, String> {
        self.expect(&["MULTI"], "OK").await?;
        let mut words: Vec<Bytes> = ["EVAL", &prints(), "0"].map(own).into();
        for (database, key) in &self.keys {
            words.extend([own(&database.to_string()), key.clone()]);
        }
        self.expect(&words, "QUEUED").await?;
        let said = self.connection.ask(&["EXEC"]).await?;
        if said.starts_with(b"*-1") {
            return Ok(None);
        }
        let strange = || String::from_utf8_lossy(&said).trim_end().to_owned();
        let prints = wire::elements(&said).filter(|all| all.len() == 1).ok_or_else(strange)?;
        let prints = wire::elements(prints[0]).ok_or_else(strange)?;
        let mut all: Words = Vec::new();
        for ((database, key), print) in self.keys.iter().zip(&prints) {
            let print = wire::text(print).ok_or_else(strange)?;
            all.extend([own(&database.to_string()), key.clone(), Bytes::copy_from_slice(print)]);
        }
        if prints.len() != self.keys.len() {
            return Err(strange());
        }
        let mut value = Vec::new();
        wire::write(&mut value, &all);
        Ok(Some(Header { name: WATCHED.to_owned(), value }))
    }

    async fn expect<W: AsRef<[u8]>>(&mut self, words: &[W], text: &str) -> Result<(), String> {
        let said = self.connection.ask(words).await?;
        match wire::text(&said) == Some(text.as_bytes()) {
            true => Ok(()),
            false => Err(String::from_utf8_lossy(&said).trim_start_matches('-').trim_end().into()),
        }
    }
}

/// What a request's client watched: databases, keys and prints by turns.
///
/// # Errors
/// It is none that a site of this kind ordered.
pub(super) fn watched(request: &Request) -> Result<Words, String> {
    let Some(header) = request.headers.iter().find(|header| header.name == WATCHED) else {
        return Ok(Vec::new());
    };
    let mut buffer = BytesMut::from(&header.value[..]);
    let words = wire::Commands::new(usize::MAX).next(&mut buffer)?.unwrap_or_default();
    let whole = buffer.is_empty() && !words.is_empty() && words.len().is_multiple_of(TRIPLE);
    whole.then_some(words).ok_or_else(|| "a request that watches what is no key".to_owned())
}

/// The command by which a server compares what was watched with what it has. It answers 1 where all of
/// it is as it was; otherwise it changes the key `gap`, which its connection watches.
pub(super) fn compare(watched: &Words, gap: &str, ours: &str) -> Words {
    let script = format!(
        "{PRINT} local same = pcall(function() for i = 2, #ARGV, 3 do \
         redis.call('SELECT', ARGV[i]) \
         if seen(ARGV[i + 1]) ~= ARGV[i + 2] then error('changed') end end end) \
         redis.call('SELECT', ARGV[1]) \
         if same then return 1 end redis.call('SET', KEYS[1], 'changed') return 0"
    );
    ["EVAL", &script, "1", gap, ours].map(own).into_iter().chain(watched.iter().cloned()).collect()
}

/// The script that makes prints: of each database and key.
fn prints() -> String {
    format!(
        "{PRINT} local all = {{}} for i = 1, #ARGV, 2 do redis.call('SELECT', ARGV[i]) \
         all[#all + 1] = seen(ARGV[i + 1]) end return all"
    )
}

fn own(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

/// What a key holds, in forty digits. The members of sets and hashes come in an order of each
/// server's own.
const PRINT: &str = "local function seen(key) \
    local kind, all, order = redis.call('TYPE', key).ok, {}, false \
    if kind == 'string' then all = {redis.call('GET', key)} \
    elseif kind == 'list' then all = redis.call('LRANGE', key, 0, -1) \
    elseif kind == 'zset' then all = redis.call('ZRANGE', key, 0, -1, 'WITHSCORES') \
    elseif kind == 'set' then all, order = redis.call('SMEMBERS', key), true \
    elseif kind == 'hash' then order = true local flat = redis.call('HGETALL', key) \
    for i = 1, #flat, 2 do all[#all + 1] = redis.sha1hex(flat[i]) .. redis.sha1hex(flat[i + 1]) end \
    elseif kind == 'stream' then local about = redis.call('XINFO', 'STREAM', key) \
    for i = 1, #about, 2 do if about[i] == 'last-generated-id' then all = {about[i + 1]} end end \
    for _, entry in ipairs(redis.call('XRANGE', key, '-', '+')) do all[#all + 1] = entry[1] \
    all[#all + 1] = tostring(#entry[2]) \
    for _, word in ipairs(entry[2]) do all[#all + 1] = word end end \
    elseif kind ~= 'none' then error('a key of this kind cannot be watched: ' .. kind) end \
    for i = 1, #all do all[i] = redis.sha1hex(all[i]) end \
    if order then table.sort(all) end \
    return redis.sha1hex(kind .. table.concat(all)) end ";

/// The header of a request that holds what its client watched.
const WATCHED: &str = "watched";

/// A database, a key and its print.
const TRIPLE: usize = 3;

/// Each costs every server as much as reading it.
const KEYS_MAX: usize = 1_000;

/// They go with the transaction.
const BYTES_MAX: usize = 1 << 20;
