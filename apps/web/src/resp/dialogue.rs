//! How an ordered request is put to a server, and what its replies mean.
//!
//! A request goes as one transaction, and in it the number that it has is kept beside the data. Before
//! it a guard looks whether the number kept is the one before; if it is not, the guard changes a key
//! that the transaction watches, and the server refuses the whole of it. So each number is performed
//! once and in its order, however often and on how many connections it is sent. What its client
//! watched is compared behind that guard, and another content is refused in the same way.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{
    agreed::agreed,
    command::{OUR_DATABASE, is_compared},
    watch::{compare, watched},
    wire::{self, Words},
};
use crate::{Header, Request, Response, Stamp};

/// An ordered request as it is put to a server.
#[derive(Debug)]
pub(super) struct Task {
    seq: u64,
    database: String,
    /// Its client asked for all or nothing.
    whole: bool,
    commands: Vec<Words>,
    /// Those that the server did not even take, by their place, and what it said.
    refused: BTreeMap<usize, Bytes>,
    /// What must be as it was, or nothing is done.
    watched: Words,
    /// It was not.
    changed: bool,
}

/// How a request is put to a server again that did nothing.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Otherwise {
    /// Without these commands, which it does not take; and what it said.
    Without(BTreeMap<usize, Bytes>),
    /// Without any: what was watched changed.
    Changed,
}

/// What a server made of it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Made {
    /// It performed it.
    Performed(Response),
    /// It did nothing, and is to be asked otherwise.
    Otherwise(Otherwise),
    /// It did nothing, since this was the last number it had performed.
    NotNext(u64),
    /// It did nothing, and cannot now.
    Unable(String),
}

impl Task {
    /// # Errors
    /// It is no request for such a server.
    pub(super) fn new(request: &Request, stamp: Stamp) -> Result<Self, String> {
        let database = request.target.trim_start_matches('/').to_owned();
        if database.is_empty() || super::command::database(database.as_bytes()).is_none() {
            return Err(format!("{} is no database of a server of Redis", request.target));
        }
        let commands = wire::commands(&request.body)?.into_iter().enumerate();
        let commands = commands.map(|(index, words)| agreed(&words, stamp, index)).collect();
        let (whole, refused) = (request.method == TRANSACTION, BTreeMap::new());
        let (seq, watched) = (stamp.seq, watched(request)?);
        Ok(Self { seq, database, whole, commands, refused, watched, changed: false })
    }

    /// The same as it is put again.
    pub(super) fn otherwise(mut self, how: Otherwise) -> Self {
        match how {
            Otherwise::Without(refused) => self.refused.extend(refused),
            Otherwise::Changed => self.changed = true,
        }
        self
    }

    /// Whether the server is to compare something first.
    fn compares(&self) -> bool {
        !self.watched.is_empty() && !self.changed && self.refused.is_empty()
    }

    /// The replies before those to its commands.
    fn before(&self) -> usize {
        BEFORE + usize::from(self.compares())
    }

    /// Those that are sent, with their places.
    fn sent(&self) -> impl Iterator<Item = (usize, &Words)> {
        let none = self.changed || self.whole && !self.refused.is_empty();
        let all = self.commands.iter().enumerate();
        all.filter(move |(at, _)| !none && !self.refused.contains_key(at))
    }

    /// Writes it, for a connection whose database is the site's own.
    pub(super) fn write(&self, out: &mut Vec<u8>, keys: &Keys) {
        let before = (self.seq - 1).to_string();
        let ours = OUR_DATABASE.to_string();
        let Keys { number, gap } = keys;
        wire::write(out, &["WATCH", number, gap]);
        wire::write(out, &["EVAL", GUARD, "2", number, gap, &before]);
        if self.compares() {
            wire::write(out, &compare(&self.watched, gap, &ours));
        }
        wire::write(out, &["MULTI"]);
        wire::write(out, &["SELECT", &self.database]);
        self.sent().for_each(|(_, words)| wire::write(out, words));
        wire::write(out, &["SELECT", &ours]);
        wire::write(out, &["SET", number, &self.seq.to_string()]);
        wire::write(out, &["EXEC"]);
    }

    /// How many replies it has.
    pub(super) fn replies(&self) -> u64 {
        (self.before() + self.sent().count() + BEHIND) as u64
    }

    /// What its replies say.
    ///
    /// # Errors
    /// They are not those of a server of Redis.
    pub(super) fn made(&self, bytes: &[u8]) -> Result<Made, String> {
        let strange = || "the server's replies are not those of a transaction".to_owned();
        let (before, count) = (self.before(), self.replies() as usize);
        let replies = wire::cut(bytes, count).ok_or_else(strange)?;
        let (queued, exec) = (&replies[before..count - BEHIND], replies[count - 1]);
        if exec.starts_with(b"*-1") {
            let last = wire::text(replies[1]).and_then(|last| std::str::from_utf8(last).ok());
            let last = last.and_then(|last| last.parse::<u64>().ok());
            return match last {
                Some(last)
                    if last.checked_add(1) == Some(self.seq)
                        && self.compares()
                        && replies[2] == b":0\r\n" =>
                {
                    Ok(Made::Otherwise(Otherwise::Changed))
                }
                Some(last) => Ok(Made::NotNext(last)),
                None => Ok(Made::Unable(shown(replies[1]))),
            };
        }
        if let Some(answers) = wire::elements(exec) {
            let [selected, answers @ .., _, kept] = &answers[..] else { return Err(strange()) };
            if *selected != b"+OK\r\n" || *kept != b"+OK\r\n" || answers.len() != queued.len() {
                return Err(format!("the server keeps no number: {}", shown(kept)));
            }
            return Ok(Made::Performed(self.response(answers)));
        }
        // It took something not; what that is, its place says.
        let others = replies.iter().take(before).chain(&replies[count - BEHIND..count - 1]);
        let cannot = |reply: &&&[u8]| reply.starts_with(b"-") && is_unable(reply);
        if let Some(why) = others.chain(queued).find(cannot) {
            return Ok(Made::Unable(shown(why)));
        }
        let refused = self.sent().zip(queued).filter(|(_, reply)| reply.starts_with(b"-"));
        let refused: BTreeMap<usize, Bytes> =
            refused.map(|((at, _), reply)| (at, Bytes::copy_from_slice(reply))).collect();
        match refused.is_empty() {
            true => Ok(Made::Unable(shown(exec))),
            false => Ok(Made::Otherwise(Otherwise::Without(refused))),
        }
    }

    /// All answers, each in its place.
    fn response(&self, answers: &[&[u8]]) -> Response {
        let (mut body, mut compared) = (Vec::new(), Vec::new());
        let mut answers = answers.iter().copied();
        if self.whole && !self.refused.is_empty() {
            body.extend_from_slice(ABORTED);
        } else if self.changed {
            body.extend_from_slice(CHANGED);
            compared.extend_from_slice(CHANGED);
        } else {
            if self.whole {
                body.extend_from_slice(format!("*{}\r\n", self.commands.len()).as_bytes());
            }
            for (at, words) in self.commands.iter().enumerate() {
                let refused = self.refused.get(&at).map(|reply| &reply[..]);
                let answer = refused.or_else(|| answers.next()).unwrap_or_default();
                body.extend_from_slice(answer);
                if is_compared(words) {
                    compared.extend_from_slice(answer);
                }
            }
        }
        let headers = vec![Header { name: COMPARED.to_owned(), value: compared }];
        Response { status: 200, headers, body: body.into() }
    }
}

/// The keys that a site has in a server, in a database of its own.
#[derive(Debug, Clone)]
pub(super) struct Keys {
    /// The number of what was performed last.
    pub(super) number: String,
    /// What the guard changes.
    gap: String,
}

impl Keys {
    /// Those of an order: a server that served another begins anew.
    pub(super) fn of(order: u64) -> Self {
        Self { number: format!("synod:performed:{order:016x}"), gap: "synod:gap".to_owned() }
    }
}

fn shown(reply: &[u8]) -> String {
    String::from_utf8_lossy(reply).trim_start_matches('-').trim_end().to_owned()
}

/// Whether the server could not, rather than would not.
fn is_unable(error: &[u8]) -> bool {
    let code = error[1..].split(u8::is_ascii_whitespace).next().unwrap_or_default();
    UNABLE.iter().any(|unable| unable.as_bytes() == code)
}

/// What a request is called that its client wants whole or not at all.
pub(super) const TRANSACTION: &str = "EXEC";

/// The header of a response that holds what is compared of it.
pub(super) const COMPARED: &str = "compared";

const GUARD: &str = "local last = redis.call('GET', KEYS[1]) or '0' \
                     if last ~= ARGV[1] then redis.call('SET', KEYS[2], last) end return last";

/// Of WATCH, EVAL, MULTI and SELECT.
const BEFORE: usize = 4;

/// Of SELECT, SET and EXEC.
const BEHIND: usize = 3;

/// What a client is told whose transaction was not performed, since what it watched changed.
pub(super) const CHANGED: &[u8] = b"*-1\r\n";

const ABORTED: &[u8] = b"-EXECABORT Transaction discarded because of previous errors.\r\n";

/// What a server says that is in no state to do anything: full, loading, a replica, closed to us.
const UNABLE: [&str; 12] = [
    "BUSY",
    "CLUSTERDOWN",
    "LOADING",
    "MASTERDOWN",
    "MISCONF",
    "MOVED",
    "NOAUTH",
    "NOPERM",
    "NOREPLICAS",
    "NOSCRIPT",
    "OOM",
    "READONLY",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn task(method: &str, lines: &[&str]) -> Task {
        let mut body = Vec::new();
        for line in lines {
            wire::write(&mut body, &line.split(' ').collect::<Vec<_>>());
        }
        let (headers, body) = (Vec::new(), body.into());
        let request =
            Request { method: method.into(), target: "/3".into(), headers, body, apart: None };
        Task::new(&request, Stamp { seq: 7, time_ms: 1, seed: 0, redo: false }).unwrap()
    }

    fn body(made: Result<Made, String>) -> String {
        let Made::Performed(response) = made.unwrap() else { panic!("it was performed") };
        String::from_utf8(response.body.to_vec()).unwrap()
    }

    #[test]
    fn a_request_is_one_transaction_behind_its_guard() {
        let (mut out, task) = (Vec::new(), task("SET", &["SET a b"]));
        task.write(&mut out, &Keys::of(1));
        let names: Vec<_> = wire::commands(&out.into())
            .unwrap()
            .iter()
            .map(|words| {
                words
                    .iter()
                    .map(|word| String::from_utf8_lossy(word).into_owned())
                    .collect::<Vec<_>>()
            })
            .collect();
        let heads: Vec<&str> = names.iter().map(|words| words[0].as_str()).collect();
        assert_eq!(heads, ["WATCH", "EVAL", "MULTI", "SELECT", "SET", "SELECT", "SET", "EXEC"]);
        assert_eq!(
            (names[1][5].as_str(), names[3][1].as_str(), names[6][2].as_str()),
            ("6", "3", "7")
        );
        assert_eq!(task.replies(), 8);
    }

    #[test]
    fn what_a_server_made_of_it_is_told_from_its_replies() {
        let task = task("PIPELINE", &["SET a b", "GET a"]);
        let queued = "+QUEUED\r\n".repeat(5);
        let begin = format!("+OK\r\n$1\r\n6\r\n+OK\r\n{queued}");
        let exec = "*5\r\n+OK\r\n+OK\r\n$1\r\nb\r\n+OK\r\n+OK\r\n";
        let made = task.made(format!("{begin}{exec}").as_bytes()).unwrap();
        let Made::Performed(response) = made else { panic!("{made:?}") };
        assert_eq!(&response.body[..], b"+OK\r\n$1\r\nb\r\n");
        assert_eq!(response.headers[0].value, b"+OK\r\n", "what is read is not compared");
        assert_eq!(task.made(format!("{begin}*-1\r\n").as_bytes()), Ok(Made::NotNext(6)));
        let full = begin.replacen("+QUEUED", "-OOM no room", 2) + "-EXECABORT x\r\n";
        assert_eq!(task.made(full.as_bytes()), Ok(Made::Unable("OOM no room".to_owned())));
        let exec = "*5\r\n+OK\r\n+OK\r\n$1\r\nb\r\n+OK\r\n-ERR no\r\n";
        assert!(task.made(format!("{begin}{exec}").as_bytes()).is_err(), "no number was kept");
        for strange in ["", "+OK\r\n", &format!("{begin}+OK\r\n"), &format!("{begin}*1\r\n+OK\r\n")]
        {
            assert!(!matches!(task.made(strange.as_bytes()), Ok(Made::Performed(_))), "{strange}");
        }
    }

    #[test]
    fn a_command_that_is_not_taken_leaves_the_others_and_ends_a_transaction() {
        let begin = "+OK\r\n$1\r\n6\r\n+OK\r\n+QUEUED\r\n";
        let said = format!(
            "{begin}-ERR wrong number\r\n+QUEUED\r\n+QUEUED\r\n+QUEUED\r\n-EXECABORT x\r\n"
        );
        for (method, again, expected) in [
            ("PIPELINE", "*4\r\n+OK\r\n:1\r\n+OK\r\n+OK\r\n", "-ERR wrong number\r\n:1\r\n"),
            ("EXEC", "*3\r\n+OK\r\n+OK\r\n+OK\r\n", std::str::from_utf8(ABORTED).unwrap()),
        ] {
            let task = task(method, &["SET a", "INCR b"]);
            let Ok(Made::Otherwise(how)) = task.made(said.as_bytes()) else { panic!("{said}") };
            let task = task.otherwise(how);
            let queued = "+QUEUED\r\n".repeat(task.replies() as usize - 4);
            let said = format!("+OK\r\n$1\r\n6\r\n+OK\r\n{queued}{again}");
            assert_eq!(body(task.made(said.as_bytes())), expected, "{method}");
        }
    }

    #[test]
    fn what_changed_since_its_client_saw_it_ends_a_transaction() {
        let mut value = Vec::new();
        wire::write(&mut value, &["0", "a", "print"]);
        let headers = vec![Header { name: "watched".to_owned(), value }];
        let mut body = Vec::new();
        wire::write(&mut body, &["SET", "a", "b"]);
        let mut request = Request {
            method: "EXEC".to_owned(),
            target: "/0".to_owned(),
            headers,
            body: body.into(),
            apart: None,
        };
        let stamp = Stamp { seq: 7, time_ms: 1, seed: 0, redo: false };
        let task = Task::new(&request, stamp).unwrap();
        let mut out = Vec::new();
        task.write(&mut out, &Keys::of(1));
        let sent = wire::commands(&out.into()).unwrap();
        assert_eq!(
            (sent.len() as u64, &sent[2][3..]),
            (task.replies(), &["synod:gap", "15", "0", "a", "print"].map(Bytes::from)[..])
        );
        let queued = "+OK\r\n".to_owned() + &"+QUEUED\r\n".repeat(4);
        let said = |last: u64, same: u8, exec: &str| {
            task.made(format!("+OK\r\n$1\r\n{last}\r\n:{same}\r\n{queued}{exec}").as_bytes())
        };
        let exec = "*4\r\n+OK\r\n+OK\r\n+OK\r\n+OK\r\n";
        assert_eq!(self::body(said(6, 1, exec)), "*1\r\n+OK\r\n");
        // The number comes first: who is behind knows nothing of what there will be.
        assert_eq!(said(5, 0, "*-1\r\n"), Ok(Made::NotNext(5)));
        assert_eq!(said(6, 1, "*-1\r\n"), Ok(Made::NotNext(6)), "a late one came between");
        let Ok(Made::Otherwise(how)) = said(6, 0, "*-1\r\n") else { panic!("it changed") };
        assert_eq!(how, Otherwise::Changed);
        let task = task.otherwise(how);
        let queued = "+OK\r\n$1\r\n6\r\n+OK\r\n".to_owned() + &"+QUEUED\r\n".repeat(3);
        let made = task.made(format!("{queued}*3\r\n+OK\r\n+OK\r\n+OK\r\n").as_bytes());
        let Ok(Made::Performed(response)) = made else { panic!("{made:?}") };
        assert_eq!((&response.body[..], &response.headers[0].value[..]), (CHANGED, CHANGED));
        request.headers[0].value.truncate(9);
        assert!(Task::new(&request, stamp).is_err());
    }

    #[test]
    fn what_was_never_meant_for_such_a_server_is_refused() {
        let request = |target: &str, body: &'static str| Request {
            method: "PUT".to_owned(),
            target: target.to_owned(),
            headers: Vec::new(),
            body: body.into(),
            apart: None,
        };
        let stamp = Stamp { seq: 1, time_ms: 1, seed: 0, redo: false };
        for (target, body) in
            [("/a", "*1\r\n$1\r\na\r\n"), ("/15", "*1\r\n$1\r\na\r\n"), ("/0", ""), ("/0", "*1")]
        {
            assert!(Task::new(&request(target, body), stamp).is_err(), "{target} {body}");
        }
    }
}
