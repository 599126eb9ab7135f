//! One connection's replies: they leave in the order of the commands, whoever finishes first.
//!
//! A completion fills its slot, moves every reply that is due to the output and hands the output to
//! the socket at once, in its own turn: no task is woken for a reply. Only what the socket does not
//! take waits for [`Outbox::flushed`].
//!
//! - I1: slots leave from the front, filled ones only.
//! - I2: output is written in one piece for all replies of one read, since they mostly come from one
//!   step; a system call costs more than everything else here.

use std::{
    collections::VecDeque,
    fmt, io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::{Buf, Bytes, BytesMut};
use synod::replicated::Outcome;
use tokio::sync::Notify;

use super::{
    finish::Finish,
    reply::{Protocol, transcode},
    socket::Writer,
};
use crate::{
    limits::{OUTPUT_BYTES_MAX, PIPELINE_BYTES_MAX, PIPELINE_COMMANDS_MAX, VALUES_UNDER_WAY_MAX},
    reply::Reply,
    transaction::Watched,
};

/// The replies of one connection, shared with the commands that are under way.
pub(super) struct Outbox {
    state: Mutex<State>,
    /// The socket did not take everything.
    blocked: Notify,
    /// Something finished that the reader may wait for.
    moved: Notify,
    /// Nothing more will be written.
    closed: Notify,
}

#[derive(Default)]
struct State {
    /// Dropped when the connection ends, so that the client sees it at once, whatever is under way.
    socket: Option<Arc<Writer>>,
    slots: VecDeque<Slot>,
    /// The number of the slot in front.
    front: u64,
    output: BytesMut,
    /// Bytes of commands whose replies are not due yet.
    waiting_bytes: usize,
    /// Bytes of replies that wait behind a slower one.
    held_bytes: usize,
    /// Values asked for that are not there yet.
    values: usize,
    queries: usize,
    asides: usize,
    commands: usize,
    watches: usize,
    watched: Vec<Watched>,
    /// Grows when the watched keys are forgotten, so that a late answer does not bring them back.
    watch_round: u64,
    ended: Option<&'static str>,
}

struct Slot {
    batch: u64,
    bytes: usize,
    values: usize,
    protocol: Protocol,
    silent: bool,
    filling: Filling,
}

enum Filling {
    Waiting(Finish),
    Filled(Bytes),
}

/// What is known of a reply before it is there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Envelope {
    /// The read its command came with.
    pub(super) batch: u64,
    /// The length of its command.
    pub(super) bytes: usize,
    /// How many values its reply may hold.
    pub(super) values: usize,
    /// How the client wants it.
    pub(super) protocol: Protocol,
    /// Whether the client wants it at all.
    pub(super) silent: bool,
}

/// On which way a command went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// Through the log.
    Command,
    /// As a query.
    Query,
    /// As a query whose place among the commands does not matter.
    Aside,
}

impl Outbox {
    pub(super) fn new(socket: Writer) -> Self {
        let state = State { socket: Some(Arc::new(socket)), ..State::default() };
        Self {
            state: Mutex::new(state),
            blocked: Notify::new(),
            moved: Notify::new(),
            closed: Notify::new(),
        }
    }

    /// Queues a reply that is known already; [`flush`](Self::flush) sends it when it is due.
    pub(super) fn answer(&self, envelope: Envelope, reply: Reply) {
        let mut state = self.lock();
        state.waiting_bytes += envelope.bytes;
        let reply = Bytes::from(reply.into_bytes());
        state.held_bytes += reply.len();
        state.slots.push_back(Slot::new(envelope, Filling::Filled(reply)));
        state.drain();
    }

    /// Queues a place for a reply; gives its number for [`complete`](Self::complete).
    pub(super) fn expect(&self, envelope: Envelope, way: Way, finish: Finish) -> u64 {
        let mut state = self.lock();
        state.waiting_bytes += envelope.bytes;
        state.watches += usize::from(finish.is_watch());
        state.values += envelope.values;
        *state.under_way(way) += 1;
        state.slots.push_back(Slot::new(envelope, Filling::Waiting(finish)));
        state.front + state.slots.len() as u64 - 1
    }

    /// The outcome of the command at `place`: everything that is due by now is written.
    pub(super) fn complete(&self, place: u64, way: Way, outcome: Outcome) {
        let mut state = self.lock();
        *state.under_way(way) -= 1;
        let write = state.fill(place, outcome);
        if write {
            self.write(&mut state);
        }
        let moved = state.may_move_reader(way);
        drop(state);
        if moved {
            self.moved.notify_one();
        }
    }

    /// Hands all output to the socket.
    pub(super) fn flush(&self) {
        self.write(&mut self.lock());
    }

    /// Writes what the socket did not take at once, for ever; ends when it is broken.
    pub(super) async fn flushed(&self) {
        loop {
            self.blocked.notified().await;
            while let Some(socket) = self.blocked_socket() {
                if socket.writable().await.is_err() {
                    return;
                }
                self.flush();
            }
            self.moved.notify_one();
        }
    }

    /// Waits until something finished since the last wait.
    pub(super) async fn moved(&self) {
        self.moved.notified().await;
    }

    /// Waits until the connection was ended from here; says why.
    pub(super) async fn ended(&self) -> &'static str {
        loop {
            let closed = self.closed.notified();
            if let Some(why) = self.lock().ended {
                return why;
            }
            closed.await;
        }
    }

    /// Ends the connection: nothing more is written.
    pub(super) fn end(&self, why: &'static str) {
        let mut state = self.lock();
        state.end(why);
        drop(state);
        self.closed.notify_one();
    }

    /// What is under way and waiting, for whoever decides whether to read on.
    pub(super) fn load(&self) -> Load {
        let state = self.lock();
        Load {
            slots: state.slots.len(),
            queries: state.queries,
            commands: state.commands,
            watches: state.watches,
            values: state.values,
            output: state.output.len(),
            full: state.is_full(),
        }
    }

    /// The watched keys, which are forgotten with this.
    pub(super) fn take_watched(&self) -> Vec<Watched> {
        let mut state = self.lock();
        state.watch_round += 1;
        std::mem::take(&mut state.watched)
    }

    /// The number to give to a [`Finish::Watch`].
    pub(super) fn watch_round(&self) -> u64 {
        self.lock().watch_round
    }

    fn write(&self, state: &mut State) {
        while let (Some(socket), false) = (&state.socket, state.output.is_empty()) {
            match socket.try_write(&state.output) {
                Ok(0) => state.end("the client does not read any more"),
                Ok(written) => state.output.advance(written),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.blocked.notify_one();
                    break;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => state.end("the client is gone"),
            }
        }
        if state.output.len() + state.held_bytes > OUTPUT_BYTES_MAX {
            state.end("the client reads too slowly");
        }
        if state.output.is_empty() && state.output.capacity() > OUTPUT_KEPT_BYTES_MAX {
            state.output = BytesMut::new();
        }
        if state.ended.is_some() {
            self.closed.notify_one();
        }
    }

    /// The socket, while there is output it has not taken.
    fn blocked_socket(&self) -> Option<Arc<Writer>> {
        let state = self.lock();
        state.socket.clone().filter(|_| !state.output.is_empty())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics under the lock; if it did, this one connection would show it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How much of a connection is under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Load {
    /// Replies that have not left yet.
    pub(super) slots: usize,
    /// Queries without an outcome.
    pub(super) queries: usize,
    /// Commands without an outcome.
    pub(super) commands: usize,
    /// `WATCH`es without an outcome.
    pub(super) watches: usize,
    /// Values without an outcome.
    pub(super) values: usize,
    /// Bytes the socket did not take yet.
    pub(super) output: usize,
    /// Whether no more should be read.
    pub(super) full: bool,
}

impl State {
    fn under_way(&mut self, way: Way) -> &mut usize {
        match way {
            Way::Command => &mut self.commands,
            Way::Query => &mut self.queries,
            Way::Aside => &mut self.asides,
        }
    }

    /// Puts an outcome into its slot; true when output should be written now.
    fn fill(&mut self, place: u64, outcome: Outcome) -> bool {
        if self.ended.is_some() {
            return false;
        }
        let at = usize::try_from(place - self.front).expect("a slot leaves only when filled");
        let waiting = Filling::Filled(Bytes::new());
        let Filling::Waiting(finish) = std::mem::replace(&mut self.slots[at].filling, waiting)
        else {
            unreachable!("an outcome is given once");
        };
        self.watches -= usize::from(finish.is_watch());
        self.values -= self.slots[at].values;
        let reply = self.finish(finish, outcome);
        self.held_bytes += reply.len();
        self.slots[at].filling = Filling::Filled(reply);
        let batch = self.slots[at].batch;
        self.drain();
        // I2: the rest of the same read is about to finish too.
        let alone = self.slots.front().is_none_or(|slot| slot.batch != batch);
        alone || self.output.len() >= OUTPUT_WRITE_BYTES
    }

    fn finish(&mut self, finish: Finish, outcome: Outcome) -> Bytes {
        match finish {
            Finish::Watch { round, keys } => {
                let (reply, versions) = Finish::versions(keys, outcome);
                if round == self.watch_round {
                    self.watched.extend(versions);
                }
                reply
            }
            other => other.reply(outcome),
        }
    }

    /// I1
    fn drain(&mut self) {
        let filled = |slot: &mut Slot| matches!(slot.filling, Filling::Filled(_));
        while let Some(slot) = self.slots.pop_front_if(filled) {
            let Filling::Filled(reply) = slot.filling else { return };
            self.front += 1;
            self.held_bytes -= reply.len();
            self.waiting_bytes -= slot.bytes;
            if slot.silent || self.ended.is_some() {
                continue;
            }
            if transcode(&reply, slot.protocol, &mut self.output).is_err() {
                self.output.extend_from_slice(b"-ERR the replica's reply cannot be read\r\n");
            }
        }
    }

    fn is_full(&self) -> bool {
        self.slots.len() >= PIPELINE_COMMANDS_MAX
            || self.waiting_bytes >= PIPELINE_BYTES_MAX
            || self.output.len() + self.held_bytes >= OUTPUT_READ_BYTES_MAX
    }

    fn may_move_reader(&self, way: Way) -> bool {
        let over = match way {
            Way::Command => self.commands == 0,
            Way::Query => self.queries == 0,
            Way::Aside => false,
        };
        // Half at a time: what is read on together becomes one batch.
        let room = self.slots.len() <= PIPELINE_COMMANDS_MAX / 2
            && self.values <= VALUES_UNDER_WAY_MAX / 2;
        over || room
    }

    fn end(&mut self, why: &'static str) {
        self.ended.get_or_insert(why);
        self.output = BytesMut::new();
        self.socket = None;
    }
}

impl Slot {
    fn new(envelope: Envelope, filling: Filling) -> Self {
        let Envelope { batch, bytes, values, protocol, silent } = envelope;
        Self { batch, bytes, values, protocol, silent, filling }
    }
}

/// Calls [`Outbox::complete`] with what a submission or an inquiry came to.
pub(super) fn completion(
    outbox: &Arc<Outbox>,
    place: u64,
    way: Way,
) -> Box<dyn FnOnce(Outcome) + Send> {
    let outbox = Arc::clone(outbox);
    Box::new(move |outcome| outbox.complete(place, way, outcome))
}

impl fmt::Debug for Outbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outbox").field("load", &self.load()).finish_non_exhaustive()
    }
}

/// Output is handed over when it has come to this much, even if more of the same read is to come.
const OUTPUT_WRITE_BYTES: usize = 64 * 1024;

/// Commands are read only while the client keeps up with its replies to this extent.
const OUTPUT_READ_BYTES_MAX: usize = 1024 * 1024;

/// A buffer that grew beyond this is given back once it is empty.
const OUTPUT_KEPT_BYTES_MAX: usize = 64 * 1024;
