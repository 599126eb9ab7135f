//! What the roles of one node share: the way to one another, to the disk, and to people.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    path::PathBuf,
    rc::Rc,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use actix::Addr;
use bytes::Bytes;
use synod_runtime::{
    identity::{NodeId, NodeName},
    journal::{self, Journal},
    node::Node,
    registry::{Binding, Deliver},
    snapshot,
    supervision::Policy,
    telemetry::Counter,
    wire::{Frame, name_hash},
    world::{
        Disk,
        disk::{Waker, Worker},
        network::Lane,
    },
};
use tokio::sync::watch;

use super::{board::Board, clients::Clients, metrics};
use crate::{
    consensus::{
        acceptor::Acceptor,
        auxiliary::Auxiliary,
        ballot::Step,
        configuration::Configuration,
        founder::Founder,
        home::Home,
        learner::Learner,
        message::{
            AuxiliaryMessage, LearnerMessage, Message, ProposerMessage, ReplicaMessage,
            SnapshotWritten,
        },
        proposer::Proposer,
        record::{Image, Record},
        replica::{Replica, StateImage},
        timing::VoteStyle,
    },
    effects::{Letter, To},
    machine::{Machine, Now, Survived},
    role::{Done, Inputs, Recovered, Role, RoleAddr, Surroundings},
};

/// Message number of a sign of life in a frame; everything else is a protocol message.
const BEAT: u64 = 1;
const PROTOCOL: u64 = 2;

/// The roles of a node, once they are started.
#[derive(Default)]
pub(super) struct Roles {
    pub(super) acceptor: Option<RoleAddr<Acceptor>>,
    pub(super) auxiliary: Option<RoleAddr<Auxiliary>>,
    pub(super) proposer: Option<RoleAddr<Proposer>>,
    pub(super) learner: Option<RoleAddr<Learner>>,
    pub(super) replica: Option<RoleAddr<Replica>>,
    pub(super) home: Option<RoleAddr<Home>>,
    pub(super) founder: Option<RoleAddr<Founder>>,
    bindings: Vec<Binding>,
}

/// See the module's documentation.
pub(super) struct Site {
    pub(super) node: Node,
    pub(super) journal: Journal,
    pub(super) board: Arc<Board>,
    pub(super) clients: Arc<Clients>,
    pub(super) roles: RefCell<Roles>,
    /// What was found at the start; later, roles read the journal anew.
    pub(super) found: RefCell<Option<Arc<Survived<Record, Image>>>>,
    pub(super) founded: watch::Sender<Option<Option<Configuration>>>,
    pub(super) failed: watch::Sender<Option<String>>,
    snapshots: Arc<Snapshots>,
    snapshot_waker: Arc<dyn Waker>,
    targets: RefCell<BTreeMap<NodeName, [u64; ROLES.len()]>>,
}

/// Names of the roles, by number.
const ROLES: [&str; 7] =
    ["acceptor", "auxiliary", "proposer", "learner", "replica", "home", "founder"];

impl Site {
    pub(super) fn new(
        node: Node,
        journal: Journal,
        snapshot_dir: PathBuf,
        found: Survived<Record, Image>,
        style: VoteStyle,
    ) -> Rc<Self> {
        let disk = Arc::clone(&node.world().disk);
        let snapshots = Arc::new(Snapshots {
            disk: Arc::clone(&disk),
            dir: snapshot_dir,
            queue: Mutex::default(),
        });
        let worker = SnapshotWorker(Arc::clone(&snapshots));
        let snapshot_waker = disk.spawn_worker("snapshots", Box::new(worker));
        metrics::follow_journal(node.metrics(), &journal);
        Rc::new(Self {
            board: Arc::new(Board::new(node.clone(), journal.clone(), style)),
            clients: Arc::new(Clients::new(node.id().clone(), journal.clone(), node.metrics())),
            node,
            journal,
            roles: RefCell::default(),
            found: RefCell::new(Some(Arc::new(found))),
            founded: watch::Sender::new(None),
            failed: watch::Sender::new(None),
            snapshots,
            snapshot_waker,
            targets: RefCell::default(),
        })
    }

    /// Starts a role under its name: an actor of its own, supervised, reached by its peers.
    pub(super) fn spawn<M>(
        self: &Rc<Self>,
        role: &'static str,
        make: impl Fn() -> M + 'static,
        pick: fn(Message) -> Option<M::Message>,
    ) -> Addr<Role<M>>
    where
        M: Machine<Envelope = Message, Record = Record, Snapshot = Image>,
    {
        let name = format!("consensus/{role}@{}", self.node.name());
        let around: Rc<dyn Surroundings<M>> = Rc::new(Around(Rc::clone(self)));
        let mut life = 0;
        let supervised = self.node.spawn_with(&name, role_policy(), move || {
            life += 1;
            Role::new(make(), Rc::clone(&around), life)
        });
        let addr = supervised.unwrap_or_else(|taken| panic!("a role is started once: {taken}"));
        let count = |label| self.node.metrics().counter(&metrics::MESSAGES, &[("role", label)]);
        let route = Route {
            addr: addr.clone(),
            pick,
            role,
            // What an auxiliary is asked for is an acceptor's work.
            messages: count(if role == "auxiliary" { "acceptor" } else { role }),
            beats: count("heartbeat"),
        };
        match self.node.bind(&name, Arc::new(route)) {
            Ok(binding) => self.roles.borrow_mut().bindings.push(binding),
            Err(error) => self.fail(&format!("cannot name a role: {error}")),
        }
        addr
    }

    fn target(&self, node: &NodeName, role: usize) -> u64 {
        let mut targets = self.targets.borrow_mut();
        if let Some(known) = targets.get(node) {
            return known[role];
        }
        let hashes = ROLES.map(|role| name_hash(&format!("consensus/{role}@{node}")));
        targets.insert(node.clone(), hashes);
        hashes[role]
    }

    fn send(&self, to: &NodeId, message: Message) {
        if to.name == *self.node.name() {
            return self.deliver(message);
        }
        let (role, lane, kind) = classify(&message);
        let Some(role) = role else { return };
        let body = rmp_serde::to_vec(&message).expect("messages for the wire encode");
        let target = self.target(&to.name, role);
        if let Err(error) = self.node.tell_hashed(&to.name, target, kind, lane, &body) {
            tracing::trace!(%to, %error, "not sent; the protocol asks again");
        }
    }

    /// Hands a message to a role of this node.
    fn deliver(&self, message: Message) {
        let me = self.node.id();
        let roles = self.roles.borrow();
        match message {
            Message::Acceptor(message) => hand(roles.acceptor.as_ref(), me, message),
            Message::Auxiliary(message) => hand(roles.auxiliary.as_ref(), me, message),
            Message::Proposer(message) => hand(roles.proposer.as_ref(), me, message),
            Message::Learner(message) => hand(roles.learner.as_ref(), me, message),
            Message::Replica(message) => hand(roles.replica.as_ref(), me, message),
            Message::Home(message) => hand(roles.home.as_ref(), me, message),
            Message::Founder(message) => hand(roles.founder.as_ref(), me, message),
            Message::Founded(genesis) => {
                self.founded.send_replace(Some(genesis));
            }
            Message::Client(answer) => {
                drop(roles); // the client may call in at once
                self.clients.finish(answer);
            }
            Message::Report(report) => self.board.note(report),
        }
    }

    pub(super) fn fail(&self, why: &str) {
        tracing::error!(why, "this node cannot go on");
        self.failed.send_if_modified(|failed| {
            let first = failed.is_none();
            failed.get_or_insert_with(|| why.to_owned());
            first
        });
    }
}

/// A role is needed again soon, however often it fails: on a full disk a promise may still be asked
/// of an acceptor whose votes the journal refuses.
fn role_policy() -> Policy {
    Policy { backoff_max: Duration::from_millis(250), ..Policy::default() }
}

/// The role, lane and kind of a message that goes to another node; none for what stays here.
fn classify(message: &Message) -> (Option<usize>, Lane, u64) {
    match message {
        Message::Acceptor(_) => (Some(0), Lane::Consensus, PROTOCOL),
        Message::Auxiliary(AuxiliaryMessage::Heartbeat(_)) => (Some(1), Lane::Control, BEAT),
        Message::Auxiliary(_) => (Some(1), Lane::Consensus, PROTOCOL),
        Message::Proposer(ProposerMessage::Heartbeat(_) | ProposerMessage::Standing(_)) => {
            (Some(2), Lane::Control, BEAT)
        }
        Message::Proposer(_) => (Some(2), Lane::Consensus, PROTOCOL),
        Message::Learner(LearnerMessage::Entries(_)) => (Some(3), Lane::Bulk, PROTOCOL),
        Message::Learner(_) => (Some(3), Lane::Consensus, PROTOCOL),
        Message::Replica(_) => (Some(4), Lane::Bulk, PROTOCOL),
        Message::Home(_) => (Some(5), Lane::Consensus, PROTOCOL),
        Message::Founder(_) => (Some(6), Lane::Control, PROTOCOL),
        Message::Founded(_) | Message::Client(_) | Message::Report(_) => {
            (None, Lane::Control, PROTOCOL)
        }
    }
}

fn hand<M: Machine>(role: Option<&Addr<Role<M>>>, from: &NodeId, message: M::Message) {
    if let Some(role) = role {
        role.do_send(Inputs(vec![(from.clone(), message)]));
    }
}

/// One site, as the surroundings of any of its roles.
struct Around(Rc<Site>);

impl<M> Surroundings<M> for Around
where
    M: Machine<Envelope = Message, Record = Record, Snapshot = Image>,
{
    fn now(&self) -> Now {
        let clock = self.0.node.clock();
        Now { at: clock.now(), wall_ms: clock.wall_ms() }
    }

    fn post(&self, letters: &mut Vec<Letter<Message>>) {
        for Letter { to, message } in letters.drain(..) {
            match to {
                To::Here => self.0.deliver(message),
                To::Node(node) => self.0.send(&node, message),
            }
        }
    }

    fn append(&self, records: Vec<Record>, done: Done) {
        self.0.journal.append(records.iter().map(Record::to_journal).collect(), done);
    }

    fn append_lazily(&self, records: Vec<Record>) {
        self.0.journal.append_lazy(records.iter().map(Record::to_journal).collect());
    }

    fn truncate(&self, carry: Vec<Record>, done: Done) {
        self.0.journal.truncate(carry.iter().map(Record::to_journal).collect(), done);
    }

    fn snapshot(&self, step: u64, bytes: Bytes) {
        let Some(replica) = self.0.roles.borrow().replica.clone() else { return };
        let me = self.0.node.id().clone();
        let told = Box::new(move |durable| {
            let written = SnapshotWritten { step: Step(step), durable };
            replica.do_send(Inputs(vec![(me, ReplicaMessage::SnapshotWritten(written))]));
        });
        lock(&self.0.snapshots.queue).push((step, bytes, told));
        self.0.snapshot_waker.wake();
    }

    fn recover(&self, done: Recovered<M>) {
        if let Some(found) = self.0.found.borrow().as_ref() {
            return done(Arc::clone(found));
        }
        let snapshots = Arc::clone(&self.0.snapshots);
        let replayed = move |records: Result<Vec<journal::Record>, journal::JournalError>| {
            match records
                .map_err(|e| e.to_string())
                .and_then(|records| survived(&records, snapshots.disk.as_ref(), &snapshots.dir))
            {
                Ok(found) => done(Arc::new(found)),
                // Without its memory the role must not act: its life does not begin.
                Err(why) => tracing::error!(why, "a role cannot be rebuilt"),
            }
        };
        self.0.journal.replay(Box::new(replayed));
    }

    fn fail(&self, why: &str) {
        self.0.fail(why);
    }
}

/// What the journal's records and the newest snapshot say.
///
/// # Errors
/// A text naming the damaged record or file.
pub(super) fn survived(
    records: &[journal::Record],
    disk: &dyn Disk,
    dir: &std::path::Path,
) -> Result<Survived<Record, Image>, String> {
    let records: Result<Vec<Record>, _> = records.iter().map(Record::from_journal).collect();
    let newest = snapshot::newest(disk, dir).map_err(|error| error.to_string())?;
    for damaged in &newest.damaged {
        tracing::error!(%damaged, "a snapshot is damaged");
    }
    let snapshot = match newest.snapshot {
        Some(snapshot) => {
            let image = StateImage::decode(&snapshot.bytes)?;
            Some(Image { history: image.history, body: snapshot.bytes.into() })
        }
        None => None,
    };
    Ok(Survived { records: records.map_err(|error| error.to_string())?, snapshot })
}

/// Frames of other nodes for one role.
struct Route<M: Machine> {
    addr: Addr<Role<M>>,
    pick: fn(Message) -> Option<M::Message>,
    role: &'static str,
    messages: Counter,
    beats: Counter,
}

impl<M: Machine> Deliver for Route<M> {
    fn deliver(&self, from: &NodeId, batch: Vec<Frame>, node: &Node) {
        let mut inputs = Vec::with_capacity(batch.len());
        for frame in batch {
            if frame.header.message == BEAT {
                self.beats.increment();
            } else {
                self.messages.increment();
            }
            match rmp_serde::from_slice::<Message>(&frame.body).ok().and_then(self.pick) {
                Some(message) => inputs.push((from.clone(), message)),
                None => {
                    tracing::warn!(%from, role = self.role, "a message that cannot be read");
                    let error = synod_runtime::address::SendError::Codec;
                    node.dead_letter(&error);
                }
            }
        }
        self.addr.do_send(Inputs(inputs));
    }

    fn type_name(&self) -> &'static str {
        self.role
    }

    fn mailbox_len(&self) -> usize {
        0
    }
}

type Told = Box<dyn FnOnce(bool) + Send>;

/// Snapshots waiting to be written; at most one, since a replica waits for it.
struct Snapshots {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    queue: Mutex<Vec<(u64, Bytes, Told)>>,
}

struct SnapshotWorker(Arc<Snapshots>);

impl Worker for SnapshotWorker {
    fn run(&mut self) {
        for (step, bytes, told) in std::mem::take(&mut *lock(&self.0.queue)) {
            let written = snapshot::write(self.0.disk.as_ref(), &self.0.dir, step, &bytes);
            if let Err(error) = &written {
                tracing::error!(%error, "a snapshot could not be written");
            }
            told(written.is_ok());
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
