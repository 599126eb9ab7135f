//! The replica: executes chosen steps in order, each command once, and answers.
//!
//! It holds the replicated actors, the sessions that make commands execute exactly once, the
//! idempotency keys, agreed time and the position; all of it goes into every snapshot. It never
//! executes out of order and never guesses: what it lacks it asks the learner for, and what the
//! log no longer holds comes as a peer's snapshot (`transfer`). What it came to it compares with the
//! other mains (`compare`).

mod compare;
mod execute;
mod guests;
mod image;
mod keys;
mod loading;
mod memory;
mod sessions;
mod takeover;
mod taking;
mod transfer;
mod unpacker;

use std::{collections::BTreeSet, fmt};

use bytes::Bytes;
use synod_runtime::{identity::NodeId, world::Instant};

pub use self::{
    compare::COMPARE_EVERY,
    guests::{GUEST_WINDOW, SESSION_EXPIRED},
    image::StateImage,
    keys::KEY_REUSED,
    taking::{SNAPSHOT_BYTES_PER_SECOND, SNAPSHOT_LOG_BYTES},
};
use self::{
    compare::Comparison,
    guests::Guests,
    image::{Actors, Install},
    keys::Keys,
    loading::Loading,
    sessions::Sessions,
    takeover::Taking,
    taking::{Outgoing, Wanted},
    transfer::{Askers, Got, Transfer},
};
pub(crate) use self::{
    keys::{keyed_args, opens_session},
    takeover::{Piece, STATE_BYTES_MAX, TAKE_PIECE, Taken, WHOLE_STATE},
    taking::{Shelved, pause_after},
};
use super::{
    ballot::Step,
    configuration::History,
    message::{
        Answers, Execute, Expiry, HomeMessage, LearnerMessage, Message, NewRead, ProposerMessage,
        Query, ReplicaMessage, Report, Resend,
    },
    record::{Image, Record},
    timing::Timing,
};
use crate::{
    effects::Effects,
    machine::{Machine, Now, Survived},
    replicated::{Moment, Position, Roster, StateMachine},
};

/// The log's own function that registers a session.
pub const REGISTER: u64 = 1;

/// How to make the replicated actors anew, empty.
pub type MakeMachines = Box<dyn Fn() -> Vec<Box<dyn StateMachine>> + Send>;

/// See the module's documentation.
pub struct Replica {
    me: NodeId,
    timing: Timing,
    make: MakeMachines,
    machines: Actors,
    state: State,
    /// The state at the log's beginning, for when no snapshot exists.
    genesis: History,
    /// The snapshots on the disk, oldest first.
    shelf: Vec<Shelved>,
    /// A snapshot that is being written.
    outgoing: Option<Outgoing>,
    wanted: Vec<Wanted>,
    /// A snapshot that is being read; until it is, this replica has no state.
    loading: Option<Loading>,
    /// Snapshots that were begun, of either kind.
    runs: u64,
    /// When to try again what could not be written.
    retry_at: Option<Instant>,
    log_bytes: u64,
    snapshot_log_bytes: u64,
    /// Commands whose handler panicked: answered so, never executed again.
    poison: BTreeSet<u64>,
    waiting: Vec<WaitingReads>,
    transfer: Option<Transfer>,
    /// What is here of a snapshot that its peer stopped sending.
    begun: Option<Got>,
    /// What an earlier life left of one was looked for.
    looked: bool,
    askers: Askers,
    comparison: Comparison,
    last_reply: Bytes,
    reported_expiry: Option<u64>,
    /// A function or actor this build does not know: it must not go on, others may have executed
    /// it.
    halted: Option<String>,
    turn: Now,
}

#[derive(Debug)]
struct WaitingReads {
    after: Step,
    reads: Vec<(NewRead, Instant)>,
}

/// Everything commands change, but for the actors themselves.
#[derive(Debug, Clone, Default)]
struct State {
    history: History,
    position: u64,
    time_ms: u64,
    digest: u64,
    sessions: Sessions,
    keys: Keys,
    guests: Guests,
    /// A state that is being restored, as far as it came.
    taking: Option<Taking>,
}

impl Replica {
    /// A replica of the actors that `make` makes, on node `me`. `snapshot_log_bytes`: see
    /// [`SNAPSHOT_LOG_BYTES`].
    pub fn new(me: NodeId, make: MakeMachines, snapshot_log_bytes: u64) -> Self {
        let mut replica = Self {
            me,
            timing: Timing::default(),
            make,
            machines: Actors::new(),
            state: State::default(),
            genesis: History::default(),
            shelf: Vec::new(),
            outgoing: None,
            wanted: Vec::new(),
            loading: None,
            runs: 0,
            retry_at: None,
            log_bytes: 0,
            snapshot_log_bytes,
            poison: BTreeSet::new(),
            waiting: Vec::new(),
            transfer: None,
            begun: None,
            looked: false,
            askers: Askers::default(),
            comparison: Comparison::default(),
            last_reply: Bytes::new(),
            reported_expiry: None,
            halted: None,
            turn: Now::default(),
        };
        replica.reset_machines();
        replica
    }

    /// As patient as `timing` says.
    #[must_use]
    pub const fn patient(mut self, timing: Timing) -> Self {
        self.timing = timing;
        self
    }

    /// The executed step, position and digest.
    pub fn summary(&self) -> (Step, u64, u64) {
        (self.executed(), self.state.position, self.state.digest)
    }

    /// Why it stopped executing, if it did.
    pub fn halted(&self) -> Option<&str> {
        self.halted.as_deref()
    }

    fn executed(&self) -> Step {
        self.state.history.executed()
    }

    fn reset_machines(&mut self) {
        self.machines = self.fresh_machines();
    }

    /// The machines hear which configuration is the newest here.
    fn tell_roster(&mut self) {
        let Some(newest) = self.state.history.newest() else { return };
        let roster = Roster {
            epoch: newest.epoch,
            mains: newest.mains.clone(),
            auxiliaries: newest.auxiliaries.clone(),
            absent: newest.absent.clone(),
            members: newest.members.clone(),
        };
        self.machines.values_mut().for_each(|machine| machine.roster(&roster));
    }

    fn fresh_machines(&self) -> Actors {
        let made = (self.make)().into_iter();
        made.map(|machine| (crate::replicated::name_hash(machine.name()), machine)).collect()
    }

    /// Whether what it would execute now is thrown away soon, or cannot be executed.
    fn is_away(&self) -> bool {
        self.loading.is_some()
            || self.outgoing.as_ref().is_some_and(|outgoing| outgoing.install)
            || self.transfer.as_ref().is_some_and(Transfer::is_ending)
    }

    fn moment(&self) -> Moment {
        Moment { position: Position(self.state.position), time_ms: self.state.time_ms }
    }

    fn query(&mut self, query: Query, out: &mut Effects<Self>) {
        if self.gives_way() {
            let none = "not applied: this main has no state of its own at present";
            let answers =
                query.reads.into_iter().map(|read| (read.ticket, 0, Err(none.to_owned())));
            return out.here(HomeMessage::Answers(Answers { answers: answers.collect() }));
        }
        let executed = query.after <= self.executed() && self.loading.is_none();
        #[cfg(any(test, feature = "mutations"))]
        let executed = executed || crate::mutation::on(crate::mutation::Mutation::ReadNotAwaited);
        if executed {
            return self.answer(query.reads, out);
        }
        let now = self.turn.at;
        let reads = query.reads.into_iter().map(|read| {
            let until = now + read.patience;
            (read, until)
        });
        self.waiting.push(WaitingReads { after: query.after, reads: reads.collect() });
    }

    fn answer(&mut self, mut reads: Vec<NewRead>, out: &mut Effects<Self>) {
        let whole = |read: &mut NewRead| read.actor == 0 && read.function == WHOLE_STATE;
        for read in reads.extract_if(.., whole) {
            self.want_whole(&read, out);
        }
        let at = self.moment();
        let answers = reads
            .into_iter()
            .map(|read| {
                let result = match self.machines.get(&read.actor) {
                    Some(machine) => machine
                        .query(read.function, &read.args, &at)
                        .map(Bytes::from)
                        .map_err(|error| error.to_string()),
                    None => Err("no such actor".to_owned()),
                };
                (read.ticket, at.position.0, result)
            })
            .collect();
        out.here(HomeMessage::Answers(Answers { answers }));
    }

    /// Answers the reads whose step was executed, and gives up on those nobody waits for.
    fn answer_waiting(&mut self, out: &mut Effects<Self>) {
        let (executed, now) = (self.executed(), self.turn.at);
        for mut waiting in std::mem::take(&mut self.waiting) {
            if waiting.after <= executed && self.loading.is_none() {
                let reads = waiting.reads.into_iter().map(|(read, _)| read).collect();
                self.answer(reads, out);
                continue;
            }
            let late = waiting.reads.extract_if(.., |(_, until)| now >= *until);
            let answers: Vec<_> = late
                .map(|(read, _)| {
                    (read.ticket, 0, Err("not applied: this node is still behind".to_owned()))
                })
                .collect();
            if !answers.is_empty() {
                out.here(HomeMessage::Answers(Answers { answers }));
            }
            if !waiting.reads.is_empty() {
                self.waiting.push(waiting);
            }
        }
    }

    /// What the learner handed over while a peer's snapshot was under way was passed over.
    fn resume(&self, installed: bool, out: &mut Effects<Self>) {
        if installed {
            out.here(LearnerMessage::Resend(Resend { from: self.executed().next() }));
        }
    }

    fn tell(&mut self, out: &mut Effects<Self>) {
        if self.loading.is_some() && self.halted.is_none() {
            return; // what it has for the moment says nothing
        }
        let due_ms = self.machines.values().filter_map(|machine| machine.next_expiry_ms()).min();
        if due_ms != self.reported_expiry {
            self.reported_expiry = due_ms;
            out.here(ProposerMessage::Expiry(Expiry { due_ms }));
        }
        out.here(Message::Report(Report::Replica {
            position: self.state.position,
            step: self.executed(),
            time_ms: self.state.time_ms,
            digest: self.state.digest,
            halted: self.halted.clone(),
            differences: self.comparison.differences,
        }));
    }
}

impl Machine for Replica {
    type Message = ReplicaMessage;
    type Envelope = Message;
    type Record = Record;
    type Snapshot = Image;

    fn start(&mut self, now: Now, survived: &Survived<Record, Image>, out: &mut Effects<Self>) {
        self.turn = now;
        // What an earlier life of this role left on its way to the shelf is not taken for ours.
        self.runs = now.at.as_nanos();
        for record in &survived.records {
            if let Record::Genesis(genesis) = record {
                self.genesis = History::new(genesis.clone());
            }
        }
        self.state.history = self.genesis.clone();
        self.tell_roster();
        if let Some(image) = &survived.snapshot {
            let mut install = Install::new(self.fresh_machines());
            match install.take(image.body.clone()).and_then(|()| install.end()) {
                Ok((head, machines)) => {
                    self.install(head, machines);
                    let (step, total) = (self.executed(), image.body.len() as u64);
                    let State { position, time_ms, .. } = self.state;
                    self.shelf.push(Shelved { step, total, position, time_ms });
                }
                Err(why) => self.halt(format!("the snapshot cannot be used: {why}")),
            }
        }
        out.here(LearnerMessage::Resend(Resend { from: self.executed().next() }));
        self.tell(out);
    }

    fn message(
        &mut self,
        now: Now,
        from: &NodeId,
        message: ReplicaMessage,
        out: &mut Effects<Self>,
    ) {
        self.turn = now;
        match message {
            ReplicaMessage::Execute(Execute { first, values, answer_others }) => {
                self.execute(first, &values, answer_others, out);
                self.snapshot_if_due(out);
                self.tell(out);
            }
            ReplicaMessage::Query(query) => self.query(query, out),
            ReplicaMessage::Compare(word) => {
                self.compare(from, word, out);
                self.tell(out);
            }
            ReplicaMessage::SnapshotWanted(wanted) => self.want(&wanted, out),
            ReplicaMessage::Fetch(fetch) => self.serve(from, fetch, out),
            ReplicaMessage::SnapshotChunk(chunk) => self.chunk(from, chunk, out),
            ReplicaMessage::SnapshotWritten(written) => self.written(&written, out),
            ReplicaMessage::Renew(_) => self.retry_at = Some(self.turn.at),
            ReplicaMessage::SnapshotRead(read) => self.read(read, out),
            ReplicaMessage::TellAgain(_) => {
                self.reported_expiry = None;
                self.tell(out);
            }
        }
    }

    fn flush(&mut self, now: Now, out: &mut Effects<Self>) {
        self.turn = now;
        // What they wait for was executed, or came with a snapshot, after which nothing may follow.
        self.answer_waiting(out);
    }

    fn timeout(&mut self, now: Now, out: &mut Effects<Self>) {
        self.turn = now;
        self.fetch_again(out);
        self.hand_out(out);
        self.serve_waiting(out);
        self.answer_wanted(out);
        if self.retry_at.is_some() {
            self.snapshot_if_due(out);
        }
    }

    fn deadline(&self) -> Option<Instant> {
        let reads = self.waiting.iter().flat_map(|waiting| &waiting.reads);
        let transfer = self.transfer.as_ref();
        let ask = transfer.and_then(|transfer| transfer.deadline(self.timing.fetch));
        let part = self.outgoing.as_ref().and_then(Outgoing::next_due);
        let again = self.retry_at.filter(|_| self.outgoing.is_none() && !self.is_away());
        let others = [ask, part, self.askers.deadline(), again];
        let wanted = self.wanted.iter().map(Wanted::until);
        reads.map(|(_, until)| *until).chain(wanted).chain(others.into_iter().flatten()).min()
    }
}

impl fmt::Debug for Replica {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replica").field("state", &self.state).finish_non_exhaustive()
    }
}
