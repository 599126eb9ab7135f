//! What a client says that concerns its connection: the site answers itself.

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{Client, Gone, OK, Transaction};
use crate::resp::{
    command::{self, OUR_DATABASE, is},
    wire::{Words, error},
};

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    /// What concerns this connection.
    pub(super) async fn own(&mut self, name: &str, words: &Words) -> Result<(), Gone> {
        let second = words.get(1).map(|word| &word[..]);
        let reply: Vec<u8> = match (name, second) {
            ("EXEC", _) => return self.exec().await,
            ("QUIT", _) => {
                self.say(OK).await?;
                return Err(Gone);
            }
            ("DISCARD", _) if self.transaction.take().is_some() => {
                self.watch = None;
                OK.to_vec()
            }
            ("DISCARD", _) => b"-ERR DISCARD without MULTI\r\n".to_vec(),
            ("MULTI", _) if self.transaction.is_none() => {
                self.transaction = Some(Transaction::default());
                OK.to_vec()
            }
            ("MULTI", _) => b"-ERR MULTI calls can not be nested\r\n".to_vec(),
            ("WATCH", Some(_)) if self.transaction.is_some() => {
                b"-ERR WATCH inside MULTI is not allowed\r\n".to_vec()
            }
            ("WATCH", Some(_)) => return self.watch(&words[1..]).await,
            ("RESET", _) => {
                (self.transaction, self.watch, self.name) = (None, None, Bytes::new());
                (self.database, self.admitted) = (0, !self.edge.access.needs_token());
                b"+RESET\r\n".to_vec()
            }
            _ if self.transaction.is_some() => {
                self.transaction.iter_mut().for_each(|one| one.failed = true);
                error("ERR", &format!("{name} between MULTI and EXEC is not done here"))
            }
            ("PING", None) => b"+PONG\r\n".to_vec(),
            ("PING" | "ECHO", Some(text)) => bulk(text),
            ("SELECT", Some(number)) => match command::database(number) {
                Some(database) => {
                    self.database = database;
                    OK.to_vec()
                }
                None => error(
                    "ERR",
                    &format!("DB index is out of range: use 0 to {}", OUR_DATABASE - 1),
                ),
            },
            ("AUTH", Some(_)) => self.admit(&words[1..]),
            ("HELLO", _) => self.hello(words),
            ("CLIENT", Some(_)) => self.about(words),
            ("UNWATCH" | "READONLY" | "READWRITE", _) => {
                if name == "UNWATCH" {
                    self.watch = None;
                }
                OK.to_vec()
            }
            // What was answered is in the order: no server lacks it for long.
            ("WAIT", Some(_)) => b":1\r\n".to_vec(),
            _ => {
                let name = name.to_ascii_lowercase();
                error("ERR", &format!("wrong number of arguments for '{name}' command"))
            }
        };
        self.say(&reply).await
    }

    fn admit(&mut self, words: &[Bytes]) -> Vec<u8> {
        let (user, token) = match words {
            [token] => (None, token),
            [user, token, ..] => (Some(&user[..]).filter(|user| *user != b"default"), token),
            [] => return error("ERR", &"AUTH wants a token"),
        };
        if !self.edge.access.needs_token() {
            return error("ERR", &"AUTH <password> called without any password configured");
        }
        self.admitted = self.edge.access.admits(user, token);
        match self.admitted {
            true => OK.to_vec(),
            false => error("WRONGPASS", &"invalid username-password pair or user is disabled."),
        }
    }

    /// HELLO with its options, all of which hold or none.
    fn hello(&mut self, words: &Words) -> Vec<u8> {
        if let Some(version) = words.get(1) {
            let number = std::str::from_utf8(version).ok().and_then(|text| text.parse().ok());
            match number {
                Some(2_i64) => {}
                Some(_) => {
                    return error("NOPROTO", &"unsupported protocol version: here it is RESP2");
                }
                None => return error("ERR", &"Protocol version is not an integer or out of range"),
            }
        }
        let (mut at, mut user, mut name) = (2, None, None);
        while let Some(option) = words.get(at) {
            let values = &words[at + 1..];
            at += match (values.len(), option) {
                (2.., _) if is(option, "AUTH") => {
                    user = values.get(..2);
                    3
                }
                (1.., _) if is(option, "SETNAME") => {
                    name = values.first();
                    2
                }
                _ => {
                    let option = String::from_utf8_lossy(option).into_owned();
                    return error("ERR", &format!("Syntax error in HELLO option '{option}'"));
                }
            };
        }
        if let Some(user) = user {
            let reply = self.admit(user);
            if reply != OK {
                return reply;
            }
        }
        if !self.admitted {
            return error("NOAUTH", &"HELLO must be called with AUTH");
        }
        if let Some(name) = name {
            self.name = name.clone();
        }
        let version = self.edge.server.version();
        let texts = [["server", "redis"], ["version", &version]].concat();
        let mut reply = b"*14\r\n".to_vec();
        texts.iter().for_each(|text| reply.extend(bulk(text.as_bytes())));
        reply.extend([bulk(b"proto"), b":2\r\n".to_vec(), bulk(b"id")].concat());
        reply.extend_from_slice(format!(":{}\r\n", self.id).as_bytes());
        for text in ["mode", "standalone", "role", "master", "modules"] {
            reply.extend(bulk(text.as_bytes()));
        }
        reply.extend_from_slice(b"*0\r\n");
        reply
    }

    fn about(&mut self, words: &Words) -> Vec<u8> {
        let named = |what: &str| is(&words[1], what);
        match &words[2..] {
            [name] if named("setname") => {
                self.name = name.clone();
                OK.to_vec()
            }
            [] if named("getname") && self.name.is_empty() => b"$-1\r\n".to_vec(),
            [] if named("getname") => bulk(&self.name),
            [] if named("id") => format!(":{}\r\n", self.id).into_bytes(),
            _ if ["setinfo", "no-evict", "no-touch"].into_iter().any(named) => OK.to_vec(),
            _ => error("ERR", &"CLIENT: it concerns one server: send it to that server itself"),
        }
    }
}

fn bulk(text: &[u8]) -> Vec<u8> {
    [format!("${}\r\n", text.len()).as_bytes(), text, b"\r\n"].concat()
}
