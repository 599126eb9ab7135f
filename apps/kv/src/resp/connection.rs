//! One client: reads commands, has them executed, answers in order.
//!
//! Everything that one read brings leaves as one batch, so that the log can make one step of it. Two
//! rules keep a client's commands in their order although queries and commands go different ways:
//!
//! - I1: a read is a query only when no write of the same connection is under way or came with it;
//!   otherwise it goes through the log, behind that write.
//! - I2: what goes through the log is not submitted while a query of the same connection is under
//!   way, which it could overtake; nothing behind it is looked at meanwhile.

use std::{pin::pin, sync::Arc, time::Duration};

use bytes::BytesMut;
use futures_util::FutureExt as _;
use synod::{
    replicated::{Consistency, Fence, Inquiry, Submission, Submit, name_hash},
    runtime::watch,
};
use tokio::{
    io::AsyncReadExt,
    time::{Instant, timeout},
};

use super::{
    finish::Finish,
    outbox::{Envelope, Load, Outbox, Way, completion},
    parse::{Parser, Request},
    reply::Protocol,
    session::{Ask, Kind, Replies, Session, Step, UnderWay, reply_of},
    socket::Reader,
};
use crate::{
    limits::{PIPELINE_COMMANDS_MAX, REPLY_BYTES_MAX, VALUE_BYTES_MAX, VALUES_UNDER_WAY_MAX},
    machine::{EXECUTE, NAME, READ, TRANSACTION},
    reply::Reply,
};

/// The task of one connection.
pub(super) struct Connection {
    session: Session,
    outbox: Arc<Outbox>,
    reader: Reader,
    input: BytesMut,
    parser: Parser,
    /// A command that must wait for what is under way.
    held: Option<Request>,
    submit: Arc<dyn Submit>,
    deadline: Duration,
    batch: u64,
}

/// What to do after a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flow {
    /// Everything was looked at: read more.
    Read,
    /// Something must finish before more is looked at.
    Wait,
    /// As many as may be at once were looked at, and some of them are answered already.
    Again,
    /// Answer what is under way, then hang up.
    End,
}

/// A command that was looked at.
struct Planned {
    bytes: usize,
    values: usize,
    protocol: Protocol,
    silent: bool,
    local_reads: bool,
    fence: Option<Fence>,
    what: What,
}

enum What {
    Answer(Reply),
    Ask(Ask),
}

impl Connection {
    pub(super) fn new(
        session: Session,
        reader: Reader,
        submit: Arc<dyn Submit>,
        deadline: Duration,
    ) -> Self {
        Self {
            outbox: Arc::clone(&session.outbox),
            session,
            reader,
            input: BytesMut::new(),
            parser: Parser::default(),
            held: None,
            submit,
            deadline,
            batch: 0,
        }
    }

    /// Serves the client until it or we hang up; gives the reason when it was we.
    pub(super) async fn serve(mut self, stop: watch::Receiver<bool>) -> Option<&'static str> {
        let outbox = Arc::clone(&self.outbox);
        let why = tokio::select! {
            () = self.read(stop) => None,
            () = outbox.flushed() => None,
            why = outbox.ended() => Some(why),
        };
        outbox.end("the connection is closed");
        why
    }

    async fn read(&mut self, mut stop: watch::Receiver<bool>) {
        // One wait for all reads: to begin and end one costs as much as to parse a command.
        let mut stopped = pin!(stopped(&mut stop));
        loop {
            match self.turn() {
                Flow::End => break,
                // Nobody else tells that there is room.
                Flow::Again => {
                    tokio::task::yield_now().await;
                    continue;
                }
                Flow::Wait => tokio::select! {
                    () = self.outbox.moved() => continue,
                    () = &mut stopped => break,
                },
                Flow::Read => {}
            }
            if !self.session.admitted && self.input.len() > STRANGER_BYTES_MAX {
                break;
            }
            if self.input.is_empty() && self.input.capacity() > INPUT_KEPT_BYTES_MAX {
                self.input = BytesMut::new();
            }
            self.input.reserve(READ_BYTES);
            tokio::select! {
                read = self.reader.read_buf(&mut self.input) => match read {
                    Ok(0) | Err(_) => break,
                    Ok(_) => {}
                },
                () = &mut stopped => {
                    // What was there before is answered yet: its sender could not know.
                    let read = self.reader.read_buf(&mut self.input).now_or_never();
                    if read.is_some_and(|read| read.is_ok_and(|bytes| bytes > 0)) {
                        while self.turn() == Flow::Again {}
                    }
                    break;
                }
            }
        }
        // A client that only closed its writing end still wants its answers.
        let drained = timeout(self.deadline + DRAIN_MARGIN, self.drained());
        if drained.await.is_err() {
            tracing::debug!(client = %self.session.client.peer, "left with commands under way");
        }
    }

    async fn drained(&self) {
        loop {
            let load = self.outbox.load();
            if load.slots == 0 && load.output == 0 {
                return;
            }
            self.outbox.moved().await;
        }
    }

    /// Looks at all commands that are there, has them executed, sends what is known.
    fn turn(&mut self) -> Flow {
        let load = self.outbox.load();
        let mut planned = Vec::new();
        let mut flow = self.plan(load, &mut planned);
        if !planned.is_empty() {
            if flow == Flow::Wait && self.held.is_none() {
                flow = Flow::Again;
            }
            self.batch += 1;
            self.note(planned.len());
            self.carry_out(load, planned);
            self.outbox.flush();
        }
        flow
    }

    fn plan(&mut self, load: Load, planned: &mut Vec<Planned>) -> Flow {
        let mut under_way = UnderWay { queries: load.queries > 0, watches: load.watches > 0 };
        let mut values = load.values;
        loop {
            let commands = load.slots + planned.len();
            if load.full || commands >= PIPELINE_COMMANDS_MAX || values >= VALUES_UNDER_WAY_MAX {
                return Flow::Wait;
            }
            let request = match self.held.take() {
                Some(request) => request,
                None => match self.parser.next(&mut self.input) {
                    Ok(Some(request)) => request,
                    Ok(None) => return Flow::Read,
                    Err(error) => {
                        let reply = reply_of(|reply| reply.error(&format!("ERR {error}")));
                        planned.push(self.planned(None, false, What::Answer(reply)));
                        return Flow::End;
                    }
                },
            };
            let skipped = self.session.replies == Replies::SkipNext;
            if skipped {
                self.session.replies = Replies::On;
            }
            let what = match self.session.step(&request, under_way) {
                Step::Answer(reply) => What::Answer(reply),
                Step::Ask(ask) => What::Ask(ask),
                Step::Hold => {
                    if skipped {
                        self.session.replies = Replies::SkipNext;
                    }
                    self.held = Some(request);
                    return Flow::Wait;
                }
                Step::Quit(reply) => {
                    let reply = reply.map(|reply| self.planned(None, skipped, What::Answer(reply)));
                    planned.extend(reply);
                    return Flow::End;
                }
            };
            under_way.watches |=
                matches!(&what, What::Ask(Ask { finish: Finish::Watch { .. }, .. }));
            let next = self.planned(Some(&request), skipped, what);
            values += next.values;
            planned.push(next);
        }
    }

    fn planned(&self, request: Option<&Request>, skipped: bool, what: What) -> Planned {
        let Session { protocol, local_reads, replies, .. } = self.session;
        let silent = skipped || replies != Replies::On;
        let bytes = request.map_or(0, |request| request.args.len());
        let values = match (&what, request) {
            (What::Ask(ask), Some(request)) => self.values(ask.kind, request),
            (What::Ask(_) | What::Answer(_), _) => 0,
        };
        let fence = match &what {
            What::Ask(Ask { kind: Kind::Write | Kind::Transaction, .. }) => {
                self.session.fence.clone()
            }
            What::Ask(_) | What::Answer(_) => None,
        };
        Planned { bytes, values, protocol, silent, local_reads, fence, what }
    }

    /// How many values the reply may hold, as far as its command tells.
    fn values(&self, kind: Kind, request: &Request) -> usize {
        match kind {
            Kind::Read => request.count.saturating_sub(1).clamp(1, REPLY_VALUES_MAX),
            Kind::Transaction => REPLY_VALUES_MAX,
            // The others answer with a value only when they were given one or took it away.
            Kind::Write => usize::from(self.session.last_command == "getex"),
            Kind::Aside | Kind::Timely => 0,
        }
    }

    fn carry_out(&self, load: Load, planned: Vec<Planned>) {
        let writes = |planned: &Planned| match &planned.what {
            What::Ask(Ask { kind, .. }) => {
                matches!(kind, Kind::Write | Kind::Transaction | Kind::Timely)
            }
            What::Answer(_) => false,
        };
        // I1
        let through_log = load.commands > 0 || planned.iter().any(writes);
        let (mut commands, mut queries) = (Vec::new(), Vec::new());
        let (actor, deadline) = (name_hash(NAME), self.deadline);
        for Planned { bytes, values, protocol, silent, local_reads, fence, what } in planned {
            let envelope = Envelope { batch: self.batch, bytes, values, protocol, silent };
            let Ask { kind, args, finish } = match what {
                What::Answer(reply) => {
                    self.outbox.answer(envelope, reply);
                    continue;
                }
                What::Ask(ask) => ask,
            };
            let way = match kind {
                Kind::Write | Kind::Transaction | Kind::Timely => Way::Command,
                Kind::Read if through_log => Way::Command,
                Kind::Read => Way::Query,
                Kind::Aside => Way::Aside,
            };
            let done = completion(&self.outbox, self.outbox.expect(envelope, way, finish), way);
            if way == Way::Command {
                let transaction = kind == Kind::Transaction;
                let function = if transaction { TRANSACTION.id } else { EXECUTE.id };
                let idempotency = None;
                let command = Submission { actor, function, args, deadline, idempotency, done };
                commands.push(match &fence {
                    Some(fence) => command.fenced(fence),
                    None => command,
                });
            } else {
                let local = local_reads || way == Way::Aside;
                let consistency =
                    if local { Consistency::Local } else { Consistency::Linearizable };
                let function = READ.id;
                queries.push(Inquiry { actor, function, args, consistency, deadline, done });
            }
        }
        if !commands.is_empty() {
            self.submit.submit(commands);
        }
        if !queries.is_empty() {
            self.submit.query(queries);
        }
    }

    /// Keeps what `CLIENT LIST` shows.
    fn note(&self, commands: usize) {
        self.session.clients.count_commands(commands as u64);
        let mut doing = self.session.client.doing();
        doing.last = Instant::now();
        doing.protocol = self.session.protocol;
        doing.multi = self.session.queued();
        doing.command = self.session.last_command;
    }
}

/// Waits until the listener is told to stop.
pub(super) async fn stopped(stop: &mut watch::Receiver<bool>) {
    // An error says that the listener is gone, which is the same.
    drop(stop.wait_for(|stop| *stop).await);
}

/// One read takes a pipeline of some dozen commands; what is more comes with the next.
const READ_BYTES: usize = 16 * 1024;

/// No reply holds more values of the largest size.
const REPLY_VALUES_MAX: usize = REPLY_BYTES_MAX / VALUE_BYTES_MAX;

/// Who has not shown a token yet needs no more than that for one command.
const STRANGER_BYTES_MAX: usize = 16 * 1024;

/// A buffer that grew beyond this is given back once it is empty.
const INPUT_KEPT_BYTES_MAX: usize = 64 * 1024;

/// An outcome comes at its deadline at the latest; this is for the way back.
const DRAIN_MARGIN: Duration = Duration::from_secs(1);
