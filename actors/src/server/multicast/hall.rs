//! Which groups there are, and what they need of the node: a lease for the sequencer, a feeder.

use std::{
    collections::BTreeSet,
    sync::{Arc, OnceLock, Weak},
    time::Duration,
};

use bytes::Bytes;
use serde::Serialize;
use synod_runtime::{
    identity::{NodeId, NodeName},
    journal::Durability,
    node::Node,
    registry::Deliver,
    wire::Frame,
};
use tokio::sync::{mpsc, oneshot};

use super::{
    Inner, Multicast, MulticastError, Wish,
    feeder::be_fed,
    lock, maximum,
    room::{Room, Words},
    steward::{Steward, stand},
    target_of,
};
use crate::{
    consensus::message::NodeRole,
    multicast::{
        application::{Make, Newest},
        book::{LIST, OPEN, book_id, decode, encode},
        channel::Way,
        group::{Group, Maximum},
        message::Message,
    },
    replicated::{
        CallError, Consistency, DEADLINE_DEFAULT, Function, Inquiry, Outcome, Submission, Submit,
    },
    server::{board::Board, elections::Elections, metrics, registers::Registers},
};

/// What the groups of a node stand on.
pub(in crate::server) struct Ground {
    pub(in crate::server) node: Node,
    pub(in crate::server) me: NodeId,
    pub(in crate::server) board: Arc<Board>,
    pub(in crate::server) elections: Elections,
    pub(in crate::server) submit: Arc<dyn Submit>,
    /// Where journals of groups are kept.
    pub(in crate::server) dir: std::path::PathBuf,
    pub(in crate::server) durability: Durability,
    /// Only where roles are kept in registers.
    pub(in crate::server) registers: Option<Registers>,
}

impl Multicast {
    /// Takes up the groups that this node serves. Must be called on the node's arbiter.
    pub(in crate::server) fn start(ground: Ground) -> Self {
        let Ground { node, me, board, elections, submit, dir, durability, registers } = ground;
        let (wishes, mut wished) = mpsc::unbounded_channel();
        let multicast = Self(Arc::new(Inner {
            node: node.clone(),
            me,
            board,
            elections,
            submit,
            dir,
            durability,
            registers,
            rooms: std::sync::Mutex::default(),
            wishes,
            binding: OnceLock::new(),
            measures: OnceLock::new(),
            applications: std::sync::Mutex::default(),
            hosted: std::sync::Mutex::default(),
        }));
        let route = Route::new(&multicast);
        if let Ok(binding) = node.bind(&target_of(node.name()), Arc::new(route)) {
            let _first = multicast.0.binding.set(binding);
        }
        let shown = Arc::downgrade(&multicast.0);
        multicast.0.board.show_groups(move || {
            let status = shown.upgrade().map(|inner| Self(inner).status()).unwrap_or_default();
            status.into_iter().filter_map(|one| serde_json::to_value(one).ok()).collect()
        });
        let weak = Arc::downgrade(&multicast.0);
        node.task(async move {
            let mut known_of = BTreeSet::new();
            while let Some(wish) = wished.recv().await {
                let Some(inner) = weak.upgrade() else { return };
                // Words of a group come again and again until it is there.
                if wish.done.is_none() && !known_of.insert(wish.name.clone()) {
                    continue;
                }
                Self(inner).open(wish).await;
                if wished.is_empty() {
                    known_of.clear();
                }
            }
        });
        // Without a journal of a group there is none that this node serves.
        let served = node.world().disk.list(&multicast.0.dir).unwrap_or_default();
        if !served.is_empty() {
            let weak = Arc::downgrade(&multicast.0);
            node.task(async move {
                while let Some(inner) = weak.upgrade() {
                    if Self(inner).resume().await.is_ok() {
                        return;
                    }
                    tokio::time::sleep(RESUME_AGAIN).await;
                }
            });
        }
        multicast
    }

    /// Opens the groups that this node serves since earlier.
    async fn resume(&self) -> Result<(), CallError> {
        let groups = self.groups().await?;
        for group in groups.into_iter().filter(|group| group.is_host(&self.0.me)) {
            if let Err(error) = self.enter(group) {
                tracing::error!(%error, "a group is not served here any more");
            }
        }
        Ok(())
    }

    async fn open(&self, Wish { name, done }: Wish) {
        let opened = match self.room(&name) {
            Some(room) => Ok(room),
            None => self.find(&name, done.is_some()).await,
        };
        match done {
            // Whoever asked may have gone.
            Some(done) => drop(done.send(opened)),
            None => {
                if let Err(error) = opened {
                    tracing::debug!(name, %error, "a group that is spoken of is not opened");
                }
            }
        }
    }

    async fn find(&self, name: &str, make: bool) -> Result<Arc<Room>, MulticastError> {
        let known = self.groups().await?.into_iter().find(|group| group.name == name);
        let group = match known {
            Some(group) => group,
            None if make => self.make(name).await?,
            None => return Err(MulticastError::Failed(format!("there is no group {name}"))),
        };
        self.enter(group)
    }

    /// All groups of the cluster.
    pub(super) async fn groups(&self) -> Result<Vec<Group>, CallError> {
        let (answer, answered) = oneshot::channel();
        self.0.submit.query(vec![Inquiry {
            actor: book_id(),
            function: LIST.id,
            args: Bytes::new(),
            consistency: Consistency::Linearizable,
            deadline: DEADLINE_DEFAULT,
            done: Box::new(move |outcome| drop(answer.send(outcome))),
        }]);
        let (reply, _) = CallError::check(answered.await.unwrap_or_else(stopped))?;
        decode(&reply).map_err(CallError::Failed)
    }

    /// Agrees on a new group with whoever makes it at the same time.
    async fn make(&self, name: &str) -> Result<Group, MulticastError> {
        let (measures, least) = self.wanted(name);
        let servers = self.servers(measures.servers).await;
        if servers.len() < least {
            let up = servers.len();
            let why = format!("group {name} waits for {least} nodes that serve it; {up} are up");
            return Err(MulticastError::Failed(why));
        }
        let mut group = Group::with(name, servers, &measures);
        if lock(&self.0.applications).contains_key(name) {
            name.clone_into(&mut group.application);
        }
        group.check()?;
        self.agree(OPEN, &group).await
    }

    /// Has a group made or changed by the log; answers what it is like from then on.
    pub(super) async fn agree(
        &self,
        function: Function,
        what: &impl Serialize,
    ) -> Result<Group, MulticastError> {
        let (answer, answered) = oneshot::channel();
        self.0.submit.submit(vec![Submission {
            actor: book_id(),
            function: function.id,
            args: encode(what).into(),
            deadline: DEADLINE_DEFAULT,
            idempotency: None,
            done: Box::new(move |outcome| drop(answer.send(outcome))),
        }]);
        let (reply, _) = CallError::check(answered.await.unwrap_or_else(stopped))?;
        let made: Result<Group, String> = decode(&reply).map_err(CallError::Failed)?;
        made.map_err(MulticastError::Failed)
    }

    /// Who shall serve a new group: mains first, then members, of those that are up; if some are
    /// not, it waits for them a while, since the servers of a group stay as they are.
    async fn servers(&self, most: usize) -> Vec<NodeId> {
        for _ in 0..LOOKS {
            let (servers, wanted) = self.servers_now(most);
            if servers.len() >= wanted {
                return servers;
            }
            tokio::time::sleep(LOOK).await;
        }
        self.servers_now(most).0
    }

    fn servers_now(&self, most: usize) -> (Vec<NodeId>, usize) {
        let reached = self.0.board.reached().configuration.unwrap_or_default();
        let listed: BTreeSet<&NodeName> = reached
            .mains
            .iter()
            .map(|main| &main.name)
            .chain(&reached.absent)
            .chain(&reached.members)
            .collect();
        let wanted = listed.len().clamp(1, most);
        (self.up().into_iter().take(most).collect(), wanted)
    }

    /// Who is up and could serve groups: mains first.
    pub(super) fn up(&self) -> Vec<NodeId> {
        let peers = self.0.node.peers_up();
        let peers =
            peers.into_iter().filter_map(|peer| Some((NodeRole::named(&peer.role)?, peer.id)));
        let here = NodeRole::named(self.0.node.role()).map(|role| (role, self.0.me.clone()));
        let mut up: Vec<_> = peers
            .chain(here)
            .filter(|(role, _)| *role != NodeRole::Auxiliary)
            .map(|(role, id)| (role != NodeRole::Main, id.name.clone(), id))
            .collect();
        up.sort_unstable();
        up.into_iter().map(|(_, _, id)| id).collect()
    }

    /// What makes the state that follows a group. Without it there is nothing to take part with.
    fn application(&self, group: &Group) -> Result<Make, MulticastError> {
        if group.application.is_empty() {
            return Ok(Arc::new(|| Box::new(Newest::default())));
        }
        let known = lock(&self.0.applications).get(&group.application).cloned();
        known.ok_or_else(|| {
            let Group { name, application, .. } = group;
            let why = format!("group {name}: this program has no application {application}");
            MulticastError::Failed(why)
        })
    }

    /// Starts the roles of a group here, unless they run.
    fn enter(&self, group: Group) -> Result<Arc<Room>, MulticastError> {
        let Inner { node, me, dir, durability, rooms, .. } = &*self.0;
        let mut rooms = lock(rooms);
        if let Some(room) = rooms.get(&group.name) {
            return Ok(Arc::clone(room));
        }
        let name = group.name.clone();
        let make = self.application(&group)?;
        let store = match group.maximum {
            Maximum::CommitServers => None,
            Maximum::Register => {
                let none = || MulticastError::Failed(format!("group {name}: {NO_REGISTERS}"));
                let registers = self.0.registers.clone().ok_or_else(none)?;
                Some(maximum::Store::register(registers, &name))
            }
            Maximum::LocalFile => Some(maximum::Store::file(&node.world().disk, &dir.join(&name))),
        };
        let opened = Room::open(node, me, group, dir, *durability, make);
        let room = opened.map_err(|why| MulticastError::Failed(format!("group {name}: {why}")))?;
        rooms.insert(name, Arc::clone(&room));
        drop(rooms);
        node.task(stand(self.0.elections.clone(), Arc::downgrade(&room), me.clone()));
        let wished = self.0.measures.get();
        let named = wished.map_or(&[][..], |config| config.feeders_of(&room.name)).to_vec();
        let way = wished.map_or(Way::Streams, |config| config.way_to(&room.name));
        node.task(be_fed(node.clone(), Arc::downgrade(&room), named, way));
        node.task(Steward::new(self, &room).run());
        if let Some(store) = store {
            node.task(maximum::keep(store, Arc::downgrade(&room), room.maximum()));
        }
        Ok(room)
    }
}

fn stopped(_: oneshot::error::RecvError) -> Outcome {
    Outcome::Unknown("the node stopped".into())
}

/// Words of other nodes.
struct Route {
    inner: Weak<Inner>,
    counters: [synod_runtime::telemetry::Counter; 4],
}

impl Route {
    fn new(multicast: &Multicast) -> Self {
        let metrics = multicast.0.node.metrics();
        let count = |role| metrics.counter(&metrics::MESSAGES, &[("role", role)]);
        let counters = ["sequencer", "data", "commit", "checkpoint"].map(count);
        Self { inner: Arc::downgrade(&multicast.0), counters }
    }

    fn count(&self, message: &Message) {
        let which = match message {
            Message::Sequencer(_) => 0,
            Message::Data(_) | Message::Sent(_) => 1,
            Message::Commit(_) | Message::Committed(_) => 2,
            Message::Checkpoint(_) => 3,
            _ => return,
        };
        self.counters[which].increment();
    }
}

impl Deliver for Route {
    fn deliver(&self, from: &NodeId, batch: Vec<Frame>, node: &Node) {
        let Some(inner) = self.inner.upgrade() else { return };
        for frame in batch {
            let Ok((name, words)) = rmp_serde::from_slice::<(String, Words)>(&frame.body) else {
                node.dead_letter(&synod_runtime::address::SendError::Codec);
                continue;
            };
            let Some(room) = lock(&inner.rooms).get(&name).cloned() else {
                // There may be one; whoever speaks of it says it again.
                let _stopped = inner.wishes.send(Wish { name, done: None });
                continue;
            };
            match words {
                Words::Role(message) if message.travels() => {
                    self.count(&message);
                    room.hand(from, message);
                }
                Words::Role(_) => node.dead_letter(&synod_runtime::address::SendError::Codec),
                Words::Feed => room.take_in(from, Way::Streams),
                Words::FeedBy(way) => room.take_in(from, way.sound()),
                Words::Fed => room.fed(from),
                Words::Packet(packet) => {
                    for message in room.gather(from, packet) {
                        self.count(&message);
                        room.hand(from, message);
                    }
                }
            }
        }
    }

    fn type_name(&self) -> &'static str {
        "multicast"
    }

    fn mailbox_len(&self) -> usize {
        0
    }
}

/// Why a group is not opened that keeps its largest number in a register.
const NO_REGISTERS: &str = "it keeps its largest number in a register, and this cluster has none: \
    set store = \"register\" in [elections] at all nodes, before the cluster begins";

/// A log that does not answer is asked again then.
const RESUME_AGAIN: Duration = Duration::from_millis(500);

/// How often a new group's maker looks who is up, and for how long.
const LOOK: Duration = Duration::from_millis(100);

/// Likewise: two seconds.
const LOOKS: u32 = 20;
