//! Commands that concern only the connection they come on: no replica is asked.

use super::{
    clients::Client,
    reply::Protocol,
    session::{Replies, Session},
};
use crate::{
    execute::{Arguments, Command, CommandError, printable},
    number::parse_i64,
    reply::Reply,
};

type Done = Result<(), CommandError>;

impl Session {
    /// Runs `command`, whose number of arguments is right.
    pub(super) fn local(
        &mut self,
        command: &Command,
        a: &Arguments<'_>,
        reply: &mut Reply,
    ) -> Done {
        match command.name {
            "auth" => self.auth(a, reply),
            "client" => self.client_command(a, reply),
            "command" => super::command::run(a, reply),
            "config" => super::config::run(a, reply),
            "hello" => self.hello(a, reply),
            "readonly" | "readwrite" => {
                self.local_reads = command.name == "readonly";
                reply.ok();
                Ok(())
            }
            "reset" => {
                self.reset();
                self.client.doing().name.clear();
                reply.simple("RESET");
                Ok(())
            }
            "select" => select(a[1], reply),
            "unwatch" => {
                self.unwatch();
                reply.ok();
                Ok(())
            }
            "wait" => self.wait(a, reply),
            other => Err(CommandError(format!("ERR '{other}' cannot run here").into())),
        }
    }

    fn hello(&mut self, a: &Arguments<'_>, reply: &mut Reply) -> Done {
        let mut rest = &a[1..];
        let mut protocol = self.protocol;
        if let [version, tail @ ..] = rest {
            rest = tail;
            protocol = match parse_i64(version) {
                Some(2) => Protocol::Two,
                Some(3) => Protocol::Three,
                Some(_) => return Err(CommandError("NOPROTO unsupported protocol version".into())),
                None => {
                    let text = "ERR Protocol version is not an integer or out of range";
                    return Err(CommandError(text.into()));
                }
            };
        }
        let mut name = None;
        while let [option, tail @ ..] = rest {
            rest = match tail {
                [user, token, tail @ ..] if option.eq_ignore_ascii_case(b"auth") => {
                    self.admit(Some(user), token)?;
                    tail
                }
                [text, tail @ ..] if option.eq_ignore_ascii_case(b"setname") => {
                    name = Some(client_name(text)?);
                    tail
                }
                _ => {
                    let option = printable(option, 128);
                    let text = format!("ERR Syntax error in HELLO option '{option}'");
                    return Err(CommandError(text.into()));
                }
            };
        }
        if !self.admitted {
            return Err(CommandError(HELLO_NOAUTH.into()));
        }
        if let Some(name) = name {
            self.client.doing().name = name;
        }
        self.protocol = protocol;
        reply.map(7);
        reply.bulk(b"server");
        reply.bulk(b"redis");
        reply.bulk(b"version");
        reply.bulk(REDIS_VERSION.as_bytes());
        reply.bulk(b"proto");
        reply.integer(protocol.number());
        reply.bulk(b"id");
        reply.integer(id_i64(&self.client));
        reply.bulk(b"mode");
        reply.bulk(b"standalone");
        reply.bulk(b"role");
        reply.bulk(b"master");
        reply.bulk(b"modules");
        reply.array(0);
        Ok(())
    }

    /// An acknowledged write is at every main of the present configuration already, so there is
    /// nothing to wait for; the reply leaves after those of the writes before it.
    fn wait(&self, a: &Arguments<'_>, reply: &mut Reply) -> Done {
        let not_an_integer = || CommandError("ERR value is not an integer or out of range".into());
        parse_i64(a[1]).ok_or_else(not_an_integer)?;
        match parse_i64(a[2]) {
            None => Err(CommandError("ERR timeout is not an integer or out of range".into())),
            Some(timeout) if timeout < 0 => Err(CommandError("ERR timeout is negative".into())),
            Some(_) => {
                reply.integer(i64::from(self.facts.ask().mains.saturating_sub(1)));
                Ok(())
            }
        }
    }

    fn client_command(&mut self, a: &Arguments<'_>, reply: &mut Reply) -> Done {
        let subcommand = String::from_utf8_lossy(a[1]).to_ascii_lowercase();
        match subcommand.as_str() {
            "id" => reply.integer(id_i64(&self.client)),
            "getname" => {
                let name = self.client.doing().name.clone();
                reply.optional(Some(name.as_bytes()).filter(|name| !name.is_empty()));
            }
            "setname" => {
                self.client.doing().name = client_name(a[2])?;
                reply.ok();
            }
            "setinfo" => reply.ok(),
            "info" => {
                self.client.doing().command = "client|info";
                reply.verbatim(&format!("{}\n", self.client.line()));
            }
            "list" => {
                self.client.doing().command = "client|list";
                self.client_list(&a[2..], reply)?;
            }
            "kill" => self.client_kill(&a[2..], reply)?,
            "reply" => {
                self.set_replies(a[2])?;
                reply.ok();
            }
            "no-evict" | "no-touch" => {
                on_or_off(a[2])?;
                reply.ok();
            }
            "help" => help(&CLIENT_HELP, reply),
            other => return Err(no_subcommand(other)),
        }
        Ok(())
    }

    fn set_replies(&mut self, mode: &[u8]) -> Done {
        self.replies = match mode.to_ascii_lowercase().as_slice() {
            b"on" => Replies::On,
            b"off" => Replies::Off,
            b"skip" if self.replies == Replies::Off => Replies::Off,
            b"skip" => Replies::SkipNext,
            _ => return Err(syntax()),
        };
        Ok(())
    }

    fn client_list(&self, options: &[&[u8]], reply: &mut Reply) -> Done {
        let all = self.clients.all();
        let chosen: Vec<_> = match options {
            [] => all,
            [option, kind] if option.eq_ignore_ascii_case(b"type") => {
                let normal = kind.eq_ignore_ascii_case(b"normal");
                all.into_iter().filter(|_| normal).collect()
            }
            [option, ids @ ..] if option.eq_ignore_ascii_case(b"id") && !ids.is_empty() => {
                let ids: Option<Vec<i64>> = ids.iter().map(|id| parse_i64(id)).collect();
                let ids = ids.ok_or_else(|| CommandError("ERR Invalid client ID".into()))?;
                all.into_iter().filter(|client| ids.contains(&id_i64(client))).collect()
            }
            _ => return Err(syntax()),
        };
        let lines: String = chosen.iter().map(|client| client.line() + "\n").collect();
        reply.verbatim(&lines);
        Ok(())
    }

    /// The old form, `KILL ADDRESS`, and `KILL ID 5`, `KILL ADDR ADDRESS`.
    fn client_kill(&self, options: &[&[u8]], reply: &mut Reply) -> Done {
        let is_at = |client: &Client, address: &[u8]| client.peer.to_string().as_bytes() == address;
        let kill = |chosen: &dyn Fn(&Client) -> bool| {
            let all = self.clients.all();
            let hit = all.iter().filter(|client| chosen(client));
            hit.map(|client| client.kill()).count()
        };
        let killed = match options {
            [address] => {
                return match kill(&|client| is_at(client, address)) {
                    0 => Err(CommandError("ERR No such client".into())),
                    _ => {
                        reply.ok();
                        Ok(())
                    }
                };
            }
            [option, id] if option.eq_ignore_ascii_case(b"id") => {
                let id = parse_i64(id)
                    .filter(|id| *id > 0)
                    .ok_or_else(|| CommandError("ERR client-id should be greater than 0".into()))?;
                // As in Redis, nobody kills itself unless it says so.
                kill(&|client| id_i64(client) == id && client.id != self.client.id)
            }
            [option, address] if option.eq_ignore_ascii_case(b"addr") => {
                kill(&|client| is_at(client, address) && client.id != self.client.id)
            }
            _ => return Err(syntax()),
        };
        reply.integer(i64::try_from(killed).expect("connections are few"));
        Ok(())
    }
}

impl Session {
    fn auth(&mut self, a: &Arguments<'_>, reply: &mut Reply) -> Done {
        match a {
            [_, token] if self.access.needs_token() => self.admit(None, token)?,
            [_, _] => return Err(CommandError(
                "ERR AUTH <password> called without any password configured for the default user. \
             Are you sure your configuration is correct?"
                    .into(),
            )),
            [_, user, token] => self.admit(Some(user), token)?,
            _ => return Err(syntax()),
        }
        reply.ok();
        Ok(())
    }

    /// Lets the client in that shows a good token. Where none is needed there is one user, who
    /// needs no password.
    fn admit(&mut self, user: Option<&[u8]>, token: &[u8]) -> Done {
        let user = user.filter(|user| *user != b"default");
        let good = match self.access.needs_token() {
            true => self.access.admits(user, token),
            false => user.is_none(),
        };
        if good {
            self.admitted = true;
            return Ok(());
        }
        let text = "WRONGPASS invalid username-password pair or user is disabled.";
        Err(CommandError(text.into()))
    }
}

/// As Redis says it.
const HELLO_NOAUTH: &str = "NOAUTH HELLO must be called with the client already authenticated, \
    otherwise the HELLO <proto> AUTH <user> <pass> option can be used to authenticate the client \
    and select the RESP protocol version at the same time";

fn select(index: &[u8], reply: &mut Reply) -> Done {
    match parse_i64(index) {
        Some(0) => {
            reply.ok();
            Ok(())
        }
        Some(index) if i32::try_from(index).is_ok() => {
            Err(CommandError("ERR DB index is out of range".into()))
        }
        Some(_) => Err(CommandError(
            "ERR value is out of range, value must between -2147483648 and 2147483647".into(),
        )),
        None => Err(CommandError("ERR value is not an integer or out of range".into())),
    }
}

fn client_name(text: &[u8]) -> Result<String, CommandError> {
    if !text.iter().all(|byte| (b'!'..=b'~').contains(byte)) {
        return Err(CommandError(
            "ERR Client names cannot contain spaces, newlines or special characters.".into(),
        ));
    }
    if text.len() > NAME_LEN_MAX {
        return Err(CommandError("ERR Client names have at most 256 characters.".into()));
    }
    Ok(String::from_utf8_lossy(text).into_owned())
}

fn on_or_off(text: &[u8]) -> Done {
    let known = text.eq_ignore_ascii_case(b"on") || text.eq_ignore_ascii_case(b"off");
    if known { Ok(()) } else { Err(syntax()) }
}

fn syntax() -> CommandError {
    CommandError("ERR syntax error".into())
}

/// Not reached: `subcommands` knows all that there are.
pub(super) fn no_subcommand(name: &str) -> CommandError {
    CommandError(format!("ERR '{name}' cannot run here").into())
}

/// What `CLIENT HELP` is answered.
pub(super) fn help(lines: &[&str], reply: &mut Reply) {
    reply.array(lines.len());
    for line in lines {
        reply.simple(line);
    }
}

fn id_i64(client: &Client) -> i64 {
    i64::try_from(client.id).expect("connections are counted one by one")
}

/// The version whose commands, answers and texts these are; clients choose by it what they send.
pub(super) const REDIS_VERSION: &str = "7.0.15";

/// Names are kept for every connection and listed in one line.
const NAME_LEN_MAX: usize = 256;

const CLIENT_HELP: [&str; 19] = [
    "CLIENT <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
    "GETNAME",
    "    Return the name of the current connection.",
    "ID",
    "    Return the ID of the current connection.",
    "INFO",
    "    Return information about the current client connection.",
    "KILL <ip:port> | ID <id> | ADDR <ip:port>",
    "    Kill a connection.",
    "LIST [TYPE <type> | ID <id> [<id> ...]]",
    "    Return information about client connections.",
    "NO-EVICT (ON|OFF)",
    "    Accepted; no connection is ever evicted.",
    "REPLY (ON|OFF|SKIP)",
    "    Control the replies sent to the current connection.",
    "SETNAME <name>",
    "    Assign the name <name> to the current connection.",
    "HELP",
    "    Prints this help.",
];
