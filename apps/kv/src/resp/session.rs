//! What one connection has chosen and queued, and what is to become of each of its commands. Decides,
//! and does nothing: the connection asks and submits.

use std::sync::Arc;

use bytes::Bytes;
use synod::{
    replicated::{BadFence, Fence},
    server::Access,
};

use super::{
    clients::{Client, Clients},
    facts::AskFacts,
    finish::{Finish, Piece},
    info::wants_keyspace,
    outbox::Outbox,
    parse::Request,
    reply::Protocol,
    subcommands,
};
use crate::{
    args,
    execute::{
        self, Arguments, Command, CommandError, Run,
        table::{KEYSPACE, RANDOM_KEY, VERSIONS},
    },
    limits::{REQUEST_BYTES_MAX, TRANSACTION_COMMANDS_MAX, VALUE_BYTES_MAX, WATCHED_KEYS_MAX},
    reply::Reply,
    store::Store,
    transaction,
};

/// The state of one connection that its commands change.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) clients: Arc<Clients>,
    pub(super) client: Arc<Client>,
    pub(super) outbox: Arc<Outbox>,
    pub(super) facts: AskFacts,
    pub(super) protocol: Protocol,
    /// `READONLY`: reads take what this node has.
    pub(super) local_reads: bool,
    pub(super) replies: Replies,
    /// The name of the last command that was looked at.
    pub(super) last_command: &'static str,
    pub(super) access: Access,
    /// Whether it may do more than show a token.
    pub(super) admitted: bool,
    /// `FENCE`: in whose name the connection writes from then on.
    pub(super) fence: Option<Fence>,
    multi: Option<Multi>,
    watched_bytes: usize,
    random: u64,
}

/// `CLIENT REPLY`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Replies {
    /// Every command is answered.
    On,
    /// None is.
    Off,
    /// The next one is not.
    SkipNext,
}

/// An open `MULTI`.
#[derive(Debug, Default)]
struct Multi {
    queued: Vec<Queued>,
    bytes: usize,
    /// A command was refused: `EXEC` will refuse the whole.
    spoilt: bool,
}

#[derive(Debug)]
enum Queued {
    Replica(Bytes),
    Info(Request),
    Connection(&'static Command, Request),
}

/// What is to become of a command.
#[derive(Debug)]
pub(super) enum Step {
    /// The reply is known.
    Answer(Reply),
    /// The replica is to be asked.
    Ask(Ask),
    /// Not before what is under way has finished.
    Hold,
    /// The connection ends, after this reply.
    Quit(Option<Reply>),
}

/// A question to the replica, or a command for it.
#[derive(Debug)]
pub(super) struct Ask {
    pub(super) kind: Kind,
    pub(super) args: Bytes,
    pub(super) finish: Finish,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Reads keys.
    Read,
    /// Reads agreed time, which passes only with commands: it goes through the log, or the time to
    /// live of a key in an idle cluster would stand still.
    Timely,
    /// Reads what has no place in the order of commands.
    Aside,
    /// May change keys.
    Write,
    /// A transaction.
    Transaction,
}

/// What of this connection is still under way when a command is looked at.
#[derive(Clone, Copy, Debug)]
pub(super) struct UnderWay {
    /// A query: a write must not overtake it.
    pub(super) queries: bool,
    /// A `WATCH`: an `EXEC` needs its versions.
    pub(super) watches: bool,
}

impl Session {
    pub(super) fn new(
        clients: Arc<Clients>,
        client: Arc<Client>,
        outbox: Arc<Outbox>,
        facts: AskFacts,
    ) -> Self {
        let random = client.id;
        Self {
            clients,
            client,
            outbox,
            facts,
            protocol: Protocol::Two,
            local_reads: false,
            replies: Replies::On,
            last_command: "",
            access: Access::open(),
            admitted: true,
            fence: None,
            multi: None,
            watched_bytes: 0,
            random,
        }
    }

    /// Decides about a command. After [`Step::Hold`] nothing has changed: ask again later.
    pub(super) fn step(&mut self, request: &Request, under_way: UnderWay) -> Step {
        let name = args::first(&request.args);
        if is_http(name) {
            return Step::Quit(None);
        }
        let command = match look_up(name, request) {
            Ok(command) => command,
            Err(error) => return self.refuse(name, &error),
        };
        if !self.admitted && !BEFORE_AUTH.contains(&command.name) {
            return error(&CommandError("NOAUTH Authentication required.".into()));
        }
        self.last_command = command.name;
        if command.name == "fence" {
            return self.fence(request, under_way);
        }
        if self.multi.is_some() && !ALWAYS_RUN.contains(&command.name) {
            return self.queue(command, request);
        }
        match command.run {
            Run::Read(_) if command.group == "connection" => {
                Step::Answer(answer_without_keys(&arguments(request)))
            }
            Run::Read(_) if TIMELY.contains(&command.name) && !self.local_reads => {
                match under_way.queries {
                    true => Step::Hold,
                    false => Step::ask(Kind::Timely, request.args.clone()),
                }
            }
            Run::Read(_) => Step::ask(Kind::Read, request.args.clone()),
            Run::Write(_) if under_way.queries => Step::Hold,
            Run::Write(_) => Step::ask(Kind::Write, request.args.clone()),
            Run::Connection => self.connection(command, request, under_way),
        }
    }

    /// How many commands are queued; none outside `MULTI`.
    pub(super) fn queued(&self) -> Option<usize> {
        self.multi.as_ref().map(|multi| multi.queued.len())
    }

    /// Back to how a connection begins, but for its name.
    pub(super) fn reset(&mut self) {
        self.protocol = Protocol::Two;
        self.local_reads = false;
        self.replies = Replies::On;
        self.multi = None;
        self.fence = None;
        self.admitted = !self.access.needs_token();
        self.unwatch();
    }

    /// Demands what `access` demands, from the first command on.
    pub(super) fn guard(&mut self, access: Access) {
        self.admitted = !access.needs_token();
        self.access = access;
    }

    pub(super) fn unwatch(&mut self) {
        self.watched_bytes = 0;
        self.outbox.take_watched();
    }

    /// Everything written from here on is written in that role and epoch. Asks the log too, so that
    /// a stale one is refused at once and older ones are from now on.
    fn fence(&mut self, request: &Request, under_way: UnderWay) -> Step {
        if self.multi.is_some() {
            return error(&CommandError("ERR FENCE inside MULTI is not allowed".into()));
        }
        if under_way.queries {
            return Step::Hold;
        }
        let arguments = arguments(request);
        let text = |at: usize| str::from_utf8(arguments[at]).ok();
        let fence = text(1).zip(text(2).and_then(|epoch| epoch.parse().ok()));
        match fence.and_then(|(role, epoch)| Fence::new(role, epoch).ok()) {
            Some(fence) => {
                self.fence = Some(fence);
                Step::ask(Kind::Write, request.args.clone())
            }
            None => error(&CommandError(format!("ERR {BadFence}").into())),
        }
    }

    fn connection(&mut self, command: &'static Command, request: &Request, way: UnderWay) -> Step {
        match command.name {
            "exec" if way.watches || (way.queries && self.multi.is_some()) => Step::Hold,
            "exec" => self.exec(),
            "multi" if self.multi.is_some() => {
                error(&CommandError("ERR MULTI calls can not be nested".into()))
            }
            "multi" => {
                self.multi = Some(Multi::default());
                ok()
            }
            "discard" => match self.multi.take() {
                Some(_) => {
                    self.unwatch();
                    ok()
                }
                None => error(&CommandError("ERR DISCARD without MULTI".into())),
            },
            "watch" => self.watch(request),
            "randomkey" => Step::ask(Kind::Read, self.random_key()),
            "info" => self.info(&arguments(request)),
            "quit" => Step::Quit(Some(reply_of(|reply| reply.ok()))),
            _ => Step::Answer(self.run_here(command, request)),
        }
    }

    fn info(&self, arguments: &Arguments<'_>) -> Step {
        let head = self.info_head(arguments);
        if !wants_keyspace(arguments) {
            return Step::Answer(reply_of(|reply| reply.verbatim(&head)));
        }
        let args = args::encode(&[KEYSPACE]);
        Step::Ask(Ask { kind: Kind::Aside, args, finish: Finish::Info(head) })
    }

    /// Runs a command that only concerns the connection.
    fn run_here(&mut self, command: &Command, request: &Request) -> Reply {
        let mut reply = Reply::new();
        let result = match command.run {
            Run::Connection => self.local(command, &arguments(request), &mut reply),
            Run::Read(_) | Run::Write(_) => return answer_without_keys(&arguments(request)),
        };
        if let Err(error) = result {
            reply.truncate(0);
            reply.error(&error.0);
        }
        reply
    }

    fn watch(&mut self, request: &Request) -> Step {
        if self.multi.is_some() {
            return error(&CommandError("ERR WATCH inside MULTI is not allowed".into()));
        }
        self.watched_bytes += request.args.len();
        if self.watched_bytes > VALUE_BYTES_MAX || request.count > WATCHED_KEYS_MAX {
            return error(&CommandError("ERR too many watched keys; UNWATCH some first".into()));
        }
        let keys: Vec<Bytes> =
            arguments(request)[1..].iter().map(|key| request.args.slice_ref(key)).collect();
        let mut versions: Vec<&[u8]> = vec![VERSIONS.as_bytes()];
        versions.extend(keys.iter().map(|key| &**key));
        let args = args::encode(&versions);
        let finish = Finish::Watch { round: self.outbox.watch_round(), keys };
        Step::Ask(Ask { kind: Kind::Read, args, finish })
    }

    fn queue(&mut self, command: &'static Command, request: &Request) -> Step {
        let random = (command.name == "randomkey").then(|| self.random_key());
        let Some(multi) = &mut self.multi else { return Step::Hold };
        multi.bytes += request.args.len();
        let too_many = multi.queued.len() >= TRANSACTION_COMMANDS_MAX;
        // What watches and replies add is far below the other half of what the log takes.
        if too_many || multi.bytes > REQUEST_BYTES_MAX {
            multi.spoilt = true;
            return error(&CommandError("ERR the transaction is too large".into()));
        }
        multi.queued.push(match (random, command.run) {
            (Some(args), _) => Queued::Replica(args),
            (None, Run::Read(_)) if command.group == "connection" => {
                Queued::Connection(command, request.clone())
            }
            (None, Run::Read(_) | Run::Write(_)) => Queued::Replica(request.args.clone()),
            (None, Run::Connection) if command.name == "info" => Queued::Info(request.clone()),
            (None, Run::Connection) => Queued::Connection(command, request.clone()),
        });
        Step::Answer(reply_of(|reply| reply.simple("QUEUED")))
    }

    fn exec(&mut self) -> Step {
        let Some(multi) = self.multi.take() else {
            return error(&CommandError("ERR EXEC without MULTI".into()));
        };
        let watched = self.outbox.take_watched();
        self.watched_bytes = 0;
        if multi.spoilt {
            return error(&CommandError(transaction::ABORTED.into()));
        }
        let mut commands = Vec::new();
        let mut pieces = Vec::with_capacity(multi.queued.len());
        for queued in multi.queued {
            pieces.push(match queued {
                Queued::Replica(args) => {
                    commands.push(args);
                    Piece::Replica
                }
                Queued::Info(request) => match self.info(&arguments(&request)) {
                    Step::Ask(Ask { args, finish: Finish::Info(head), .. }) => {
                        commands.push(args);
                        Piece::Info(head)
                    }
                    Step::Answer(reply) => Piece::Known(reply.into_bytes()),
                    Step::Ask(_) | Step::Hold | Step::Quit(_) => unreachable!("INFO only asks"),
                },
                // It runs even if a watched key turns out to have changed; it concerns nobody else.
                Queued::Connection(command, request) => {
                    Piece::Known(self.run_here(command, &request).into_bytes())
                }
            });
        }
        let args = transaction::encode(&watched, &commands);
        Step::Ask(Ask { kind: Kind::Transaction, args, finish: Finish::Exec(pieces) })
    }

    /// An error outside a transaction, which it spoils inside.
    fn refuse(&mut self, name: &[u8], why: &CommandError) -> Step {
        if name.eq_ignore_ascii_case(b"exec") {
            // As in Redis a malformed EXEC ends the transaction.
            self.multi = None;
            self.unwatch();
            let why = why.0.trim_start_matches("ERR ");
            let text = format!("EXECABORT Transaction discarded because of: {why}");
            return error(&CommandError(text.into()));
        }
        if let Some(multi) = &mut self.multi {
            multi.spoilt = true;
        }
        error(why)
    }

    fn random_key(&mut self) -> Bytes {
        // SplitMix64: the keys need to look random, not to be a secret.
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = (self.random ^ self.random >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        args::encode(&[RANDOM_KEY, &(mixed >> 1).to_string()])
    }
}

impl Step {
    fn ask(kind: Kind, args: Bytes) -> Self {
        Self::Ask(Ask { kind, args, finish: Finish::Plain })
    }
}

fn look_up(name: &[u8], request: &Request) -> Result<&'static Command, CommandError> {
    let command = execute::find(name).filter(|command| command.is_public());
    let command = command.ok_or_else(|| CommandError::unknown(&arguments(request)))?;
    command.check_arity(request.count)?;
    if matches!(command.run, Run::Connection) && request.count > 1 {
        subcommands::check(command, &arguments(request))?;
    }
    Ok(command)
}

pub(super) fn arguments(request: &Request) -> Vec<&[u8]> {
    args::decode(&request.args).expect("the parser encoded them")
}

/// `PING` and `ECHO` need no key, and so no replica: they are answered without a quorum too.
fn answer_without_keys(arguments: &Arguments<'_>) -> Reply {
    let mut reply = Reply::new();
    execute::read(&Store::default(), synod::replicated::Moment::default(), arguments, &mut reply);
    reply
}

fn error(error: &CommandError) -> Step {
    Step::Answer(reply_of(|reply| reply.error(&error.0)))
}

fn ok() -> Step {
    Step::Answer(reply_of(Reply::ok))
}

pub(super) fn reply_of(write: impl FnOnce(&mut Reply)) -> Reply {
    let mut reply = Reply::new();
    write(&mut reply);
    reply
}

/// A web page can make a browser send a form to any port: its request begins so, and no command of
/// ours does. Hung up on before the lines of its body are taken for commands, as in Redis.
fn is_http(name: &[u8]) -> bool {
    name.eq_ignore_ascii_case(b"post") || name.eq_ignore_ascii_case(b"host:")
}

/// What a client may say that has not shown a token.
const BEFORE_AUTH: [&str; 4] = ["auth", "hello", "quit", "reset"];

/// What tells how much time is left.
const TIMELY: [&str; 2] = ["pttl", "ttl"];

/// What is not queued in `MULTI`.
const ALWAYS_RUN: [&str; 6] = ["exec", "discard", "multi", "watch", "quit", "reset"];
