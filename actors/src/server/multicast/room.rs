//! One group on one node: its roles, their way to one another and to the disk.

mod feeding;
mod roles;

use std::{
    path::{Path, PathBuf},
    rc::Rc,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use synod_runtime::{
    identity::{NodeId, NodeName},
    journal::{Durability, Journal, JournalConfig},
    node::Node,
    telemetry::Counter,
    watch,
    wire::name_hash,
    world::{Instant, network::Lane},
};
use tokio::sync::Notify;

use self::{
    feeding::Feeding,
    roles::{Around, Resident, Roles, records_of},
};
use super::{AskFailed, CallFailed, calls::Calls, lock, maximum::Held, shelf::Shelf, target_of};
use crate::{
    effects::{Letter, To},
    multicast::{
        application::{BadQuestion, Make, Newest},
        channel::{PART_BYTES, Packet, Way},
        checkpoint_server::CheckpointServer,
        commit_server::CommitServer,
        data_server::DataServer,
        group::Group,
        joining::Progress,
        message::{
            CheckpointMessage, Data, Entry, Gossip, Message, Mid, Outcome, Question,
            ReceiverMessage, SenderMessage, Seq, SequencerReport, Word,
        },
        receiver::Receiver,
        record::Record,
        sender::Sender,
        sequencer::{Sequencer, Submits},
    },
    role::{Begin, Inputs, Role, Surroundings},
    server::{metrics, site::role_policy},
};

/// See the module's documentation.
pub(super) struct Room {
    /// Of the group.
    pub(super) name: String,
    /// The group, as this node knows it: its servers may be changed.
    group: watch::Sender<Arc<Group>>,
    me: NodeId,
    node: Node,
    roles: Roles,
    /// Only where this node serves the group, or did.
    journal: OnceLock<Journal>,
    /// How far this node is, where it is on its way into the group.
    progress: Mutex<Progress>,
    /// Somebody knows newer servers of the group, or this node has what it needs to be one.
    pub(super) news: Arc<Notify>,
    /// Where the journal is, and how durable.
    dir: PathBuf,
    durability: Durability,
    pub(super) shelf: Shelf,
    /// Publishers that wait to hear what became of their messages.
    calls: Calls<Vec<(Mid, Outcome)>>,
    /// Who asked the application something.
    asked: Calls<(Seq, Result<Bytes, BadQuestion>)>,
    publishers: AtomicU64,
    feeding: Feeding,
    /// The sequencer's last sign of life.
    heard: Mutex<Option<Heard>>,
    report: Mutex<SequencerReport>,
    /// What the register or the file of the largest number shall hold.
    maximum: watch::Sender<Option<Held>>,
    delivered: Counter,
    order_queries: Counter,
    data_queries: Counter,
    unsaid: Counter,
}

/// A sign of life of the sequencer.
#[derive(Debug, Clone)]
pub(super) struct Heard {
    pub(super) at: Instant,
    pub(super) gossip: Gossip,
}

/// What one node says to another about a group.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Words {
    /// To the role it is for.
    Role(Message),
    /// That node serves nothing of the group, and wants to be fed.
    Feed,
    /// The same, in that way.
    FeedBy(Way),
    /// That node feeds this one: the answer to whoever wants it.
    Fed,
    /// A part of what it feeds.
    Packet(Packet),
}

impl Room {
    /// Opens the group on this node, and starts its roles here, with the application that `make`
    /// makes; reads back what survived in `dir`. Must be called on the node's arbiter.
    ///
    /// # Errors
    /// A text for people when the journal cannot be read; nothing runs then.
    pub(super) fn open(
        node: &Node,
        me: &NodeId,
        group: Group,
        dir: &Path,
        durability: Durability,
        make: Make,
    ) -> Result<Arc<Self>, String> {
        let metrics = node.metrics();
        let label = [("group", group.name.as_str())];
        let room = Arc::new(Self {
            me: me.clone(),
            node: node.clone(),
            roles: Roles::default(),
            journal: OnceLock::new(),
            progress: Mutex::new(Progress::of(&group)),
            news: Arc::default(),
            dir: dir.join(&group.name),
            durability,
            shelf: Shelf::new(!group.application.is_empty()),
            calls: Calls::default(),
            asked: Calls::default(),
            publishers: AtomicU64::new(1),
            feeding: Feeding::default(),
            heard: Mutex::default(),
            report: Mutex::default(),
            maximum: watch::Sender::new(None),
            delivered: metrics.counter(&metrics::MULTICAST_DELIVERED, &label),
            order_queries: metrics.counter(&metrics::MULTICAST_ORDER_QUERIES, &label),
            data_queries: metrics.counter(&metrics::MULTICAST_DATA_QUERIES, &label),
            unsaid: metrics.counter(&metrics::MULTICAST_UNSAID, &label),
            name: group.name.clone(),
            group: watch::Sender::new(Arc::new(group)),
        });
        if room.group().is_host(me) {
            room.host()?;
        }
        room.start(make);
        node.task(feeding::look_again(Arc::downgrade(&room)));
        Ok(room)
    }

    fn start(self: &Arc<Self>, make: Make) {
        let room = Arc::downgrade(self);
        let group = move || room.upgrade().expect("it spawns only while it is there").group();
        let (of, id) = (group.clone(), self.me.clone());
        self.spawn("checkpoint", move || CheckpointServer::new(of(), &id, make()));
        let (of, rng) = (group.clone(), self.rng("receiver"));
        self.spawn("receiver", move || Receiver::new(of(), rng()));
        let me = self.me.clone();
        self.spawn("sender", move || Sender::new(me.clone(), group()));
    }

    /// Opens the journal, and starts the roles that only servers have. Once.
    fn host(self: &Arc<Self>) -> Result<(), String> {
        let config = JournalConfig {
            dir: self.dir.clone(),
            durability: self.durability,
            segment_bytes: SEGMENT_BYTES,
            scar: Some(Record::Torn.to_journal()),
        };
        let (journal, recovered) =
            Journal::open(self.node.world(), &config).map_err(|error| error.to_string())?;
        // What is none of ours is better found now than by a role.
        records_of(&recovered.records)?;
        let _first = self.journal.set(journal);
        let room = Arc::downgrade(self);
        let group = move || room.upgrade().expect("it spawns only while it is there").group();
        let (of, id) = (group.clone(), self.me.clone());
        let submits = match self.durability {
            Durability::Fsync => Submits::AtOnce,
            Durability::Memory => Submits::OwnFirst,
        };
        let sequencer = move || Sequencer::new(id.clone(), of()).submitting(submits);
        self.spawn("sequencer", sequencer);
        let (of, id) = (group.clone(), self.me.clone());
        self.spawn("data", move || DataServer::new(id.clone(), of()));
        let (of, id, rng) = (group, self.me.clone(), self.rng("commit"));
        self.spawn("commit", move || CommitServer::new(id.clone(), of(), rng()));
        Ok(())
    }

    /// The group's servers are these from now on. Must be called on the node's arbiter.
    ///
    /// # Errors
    /// A text for people when this node should serve it, and its journal cannot be opened.
    pub(super) fn regroup(self: &Arc<Self>, group: Group) -> Result<(), String> {
        if group.version <= self.group().version {
            return Ok(());
        }
        let group = Arc::new(group);
        let joins = group.is_joining(&self.me);
        *lock(&self.progress) = Progress::of(&group);
        let hosts = group.is_host(&self.me);
        self.group.send_replace(Arc::clone(&group));
        self.tell(Message::Regroup(group));
        let hosted = self.journal.get().is_some();
        if hosts && !hosted {
            let group = &self.name;
            self.host()
                .inspect_err(|why| tracing::error!(group, why, "it cannot be served here"))?;
        }
        if joins {
            // They begin with what is on this disk, and so take over all that is not.
            if hosted {
                self.begin_anew::<DataServer>();
                self.begin_anew::<CommitServer>();
            }
            self.begin_anew::<CheckpointServer>();
            self.begin_anew::<Receiver>();
        }
        Ok(())
    }

    fn begin_anew<M: Resident>(&self) {
        if let Some(addr) = M::slot(&self.roles).get() {
            addr.do_send(Begin);
        }
    }

    /// The group, as this node knows it.
    pub(super) fn group(&self) -> Arc<Group> {
        Arc::clone(&self.group.borrow())
    }

    /// Hears when the group's servers change.
    pub(super) fn watch(&self) -> watch::Receiver<Arc<Group>> {
        self.group.subscribe()
    }

    /// What the register or the file of its largest number shall hold, if it has one.
    pub(super) fn maximum(&self) -> watch::Receiver<Option<Held>> {
        self.maximum.subscribe()
    }

    /// Whether this node is on its way into the group, and has all that it needs.
    pub(super) fn is_in(&self) -> bool {
        self.group().is_joining(&self.me) && lock(&self.progress).is_in()
    }

    fn rng(&self, role: &str) -> impl Fn() -> synod_runtime::world::Rng + use<> + 'static {
        let (node, stream) = (self.node.clone(), format!("multicast/{}/{role}", self.name));
        move || node.rng(&stream)
    }

    fn spawn<M: Resident>(self: &Arc<Self>, role: &str, mut make: impl FnMut() -> M + 'static) {
        let name = format!("{}/{role}@{}", self.name, self.me.name);
        let around: Rc<dyn Surroundings<M>> = Rc::new(Around(Arc::clone(self)));
        let mut life = 0;
        let factory = move || {
            life += 1;
            Role::new(make(), Rc::clone(&around), life)
        };
        match self.node.spawn_with(&name, role_policy(), factory) {
            Ok(addr) => drop(M::slot(&self.roles).set(addr)),
            Err(taken) => tracing::error!(%taken, "a role of a group is started once"),
        }
    }

    /// Whether this node is a server of the group that counts.
    pub(super) fn serves(&self) -> bool {
        self.group().index(&self.me).is_some()
    }

    /// Whether this node keeps what there is of the group.
    pub(super) fn hosts(&self) -> bool {
        self.group().is_host(&self.me)
    }

    /// Hands a message to whoever it is for on this node.
    pub(super) fn hand(&self, from: &NodeId, message: Message) {
        if let Message::Gossip(gossip) = &message {
            self.hear(gossip);
        }
        message.split(|message| match message {
            Message::Sequencer(message) => self.give::<Sequencer>(from, message),
            Message::Data(message) => self.give::<DataServer>(from, message),
            Message::Commit(message) => self.give::<CommitServer>(from, message),
            Message::Checkpoint(message) => self.give::<CheckpointServer>(from, message),
            Message::Receiver(message) => self.give::<Receiver>(from, message),
            Message::Sender(message) => self.give::<Sender>(from, message),
            Message::Word(word) => self.word(word),
            Message::Committed(_)
            | Message::Gossip(_)
            | Message::Sent(_)
            | Message::Delivered(_)
            | Message::Installed(_)
            | Message::Regroup(_) => unreachable!("split into what roles hear"),
        });
    }

    /// The same, from this node itself.
    pub(super) fn tell(&self, message: impl Into<Message>) {
        self.hand(&self.me, message.into());
    }

    fn give<M: Resident>(&self, from: &NodeId, message: M::Message) {
        if let Some(addr) = M::slot(&self.roles).get() {
            addr.do_send(Inputs(vec![(from.clone(), message)]));
        }
    }

    fn word(&self, word: Word) {
        match word {
            Word::Delivered(entries) => self.delivered(&entries),
            Word::Installed(checkpoint) if !self.group().application.is_empty() => {
                self.shelf.skip_to(checkpoint.seq);
            }
            Word::Installed(checkpoint) => match Newest::entries(&checkpoint.blocks) {
                Ok(entries) => drop(self.shelf.put(&entries)),
                Err(bad) => tracing::error!(%bad, group = self.name, "cannot be shown"),
            },
            Word::Outcome { call, messages } => self.calls.answer(call, messages),
            Word::Answer { call, at, said } => self.asked.answer(call, (at, said)),
            Word::Asked(Question::Order) => self.order_queries.increment(),
            Word::Asked(Question::Data) => self.data_queries.increment(),
            Word::Asked(Question::Blocks) => {}
            Word::Sequencer(report) => *lock(&self.report) = report,
            Word::Maximum { epoch, seq } => {
                self.maximum.send_replace(Some(Held { epoch, seq }));
            }
            Word::Outdated => self.news.notify_one(),
            Word::Step(step) => {
                let mut progress = lock(&self.progress);
                progress.note(step);
                let is_in = progress.is_in();
                drop(progress);
                if is_in {
                    self.news.notify_one();
                }
            }
        }
    }

    fn delivered(&self, entries: &Arc<Vec<Entry>>) {
        let new = self.shelf.put(entries);
        self.delivered.add(new as u64);
        self.feed(|| ReceiverMessage::Entries(Arc::clone(entries)).into());
    }

    fn encode(&self, words: &Words) -> Vec<u8> {
        let len = match words {
            Words::Role(message) => message.len_hint(),
            Words::Packet(_) => PART_BYTES + FEED_BYTES,
            Words::Feed | Words::FeedBy(_) | Words::Fed => FEED_BYTES,
        };
        let mut body = Vec::with_capacity(len);
        rmp_serde::encode::write(&mut body, &(&self.name, words))
            .expect("messages for the wire encode");
        body
    }

    fn send(&self, to: &NodeName, lane: Lane, body: &[u8]) {
        let told = self.node.tell_hashed(to, name_hash(&target_of(to)), 1, lane, body);
        if let Err(error) = told {
            tracing::trace!(%to, %error, "not sent; the protocol asks again");
        }
    }

    fn post(&self, letters: &mut Vec<Letter<Message>>) {
        // What goes to several nodes comes to each in turn: it is put into bytes once.
        let mut last: Option<(Words, Vec<u8>)> = None;
        for Letter { to, message } in letters.drain(..) {
            match to {
                To::Node(node) if node != self.me => {
                    let lane = if message.is_bulky() { Lane::Bulk } else { Lane::Consensus };
                    let words = Words::Role(message);
                    let same = last.take().filter(|(before, _)| *before == words);
                    let (words, body) = same.unwrap_or_else(|| {
                        let body = self.encode(&words);
                        (words, body)
                    });
                    self.send(&node.name, lane, &body);
                    last = Some((words, body));
                }
                To::Node(_) | To::Here => self.tell(message),
            }
        }
    }

    /// Sends messages to the group and waits until it is known what became of them.
    pub(super) async fn publish(
        &self,
        messages: Vec<Data>,
        patience: Duration,
    ) -> Result<Vec<(Mid, Outcome)>, CallFailed> {
        let Some((call, outcome)) = self.calls.open() else { return Err(CallFailed::Overloaded) };
        // Also when whoever asked hangs up: nobody waits any more then.
        let _abandoned = Abandon { room: self, call };
        self.tell(SenderMessage::Publish { call, messages });
        match tokio::time::timeout(patience, outcome).await {
            Ok(Ok(messages)) => Ok(messages),
            Ok(Err(_)) | Err(_) => Err(CallFailed::Unknown),
        }
    }

    /// Asks the application; its state was that after the number that comes with the answer.
    pub(super) async fn ask(&self, question: Bytes) -> Result<(Seq, Bytes), AskFailed> {
        let Some((call, answer)) = self.asked.open() else { return Err(AskFailed::Overloaded) };
        self.tell(CheckpointMessage::Ask(call, question));
        let answer = tokio::time::timeout(ANSWERED_WITHIN, answer).await;
        self.asked.forget(call);
        let Ok(Ok((at, said))) = answer else { return Err(AskFailed::Late) };
        Ok((at, said?))
    }

    /// The largest number that this node knows committed.
    pub(super) fn largest(&self) -> Seq {
        let heard = lock(&self.heard).as_ref().map_or(Seq(0), |heard| heard.gossip.largest);
        heard.max(self.shelf.last())
    }

    /// The sequencer's last sign of life.
    pub(super) fn heard(&self) -> Option<Heard> {
        lock(&self.heard).clone()
    }

    /// Whether anything comes from a sequencer.
    pub(super) fn hears(&self) -> bool {
        let now = self.node.now();
        lock(&self.heard).as_ref().is_some_and(|heard| now.since(heard.at) < SILENT_AFTER)
    }

    /// Questions for what was missed: of order, and of data.
    pub(super) fn repairs(&self) -> (u64, u64) {
        (self.order_queries.get(), self.data_queries.get())
    }

    /// Chance for the names of publishers.
    pub(super) fn rng_of_publishers(&self) -> synod_runtime::world::Rng {
        let number = self.publishers.fetch_add(1, Relaxed);
        self.node.rng(&format!("multicast/{}/publisher/{number}", self.name))
    }

    /// How far the sequencer of this node is.
    pub(super) fn report(&self) -> SequencerReport {
        *lock(&self.report)
    }

    /// Closes the journal.
    pub(super) fn close(&self) {
        if let Some(journal) = self.journal.get() {
            journal.close();
        }
    }
}

/// A call that nobody waits for any more once this is dropped.
struct Abandon<'a> {
    room: &'a Room,
    call: u64,
}

impl Drop for Abandon<'_> {
    fn drop(&mut self) {
        if self.room.calls.forget(self.call) {
            self.room.tell(SenderMessage::Abandon(self.call));
        }
    }
}

/// The name of a group, and a word.
const FEED_BYTES: usize = 128;

/// Bytes of a segment of a group's journal. Whole ones are forgotten.
const SEGMENT_BYTES: u64 = 8 << 20;

/// An application that is being rebuilt has its state again by then, or it takes long.
const ANSWERED_WITHIN: Duration = Duration::from_secs(5);

/// A sequencer says something much more often.
const SILENT_AFTER: Duration = Duration::from_secs(1);
