//! The first start: agreeing on how the log begins.
//!
//! Nodes are listed by name, but vote by identity, and identities are made with the data
//! directories. A node with an empty directory neither promises nor votes. Either every listed
//! node answers that it is empty too; then the first-named main writes the genesis, a list of
//! identities, and hands it to all. Or somebody has a log already: then a node that is in its
//! genesis takes it over (it crashed in between and never voted), and any other waits to be
//! admitted as a newcomer. So a wiped disk never votes under its old identity. A node that put aside
//! what it remembered because it was damaged says that there is a log: all disks damaged at once make
//! a cluster that waits for people, and no new one.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use synod_runtime::{
    identity::{Incarnation, NodeId, NodeName},
    world::Instant,
};

use super::{
    configuration::Configuration,
    message::{Ask, Empty, FounderMessage, Genesis, Message, NodeRole},
    record::{Image, Record},
};
use crate::{
    effects::{Effects, To},
    machine::{Machine, Now, Survived},
};

/// How often a node without a log asks around.
const ASK_EVERY: Duration = Duration::from_millis(50);

/// See the module's documentation.
#[derive(Debug)]
pub struct Founder {
    me: NodeId,
    /// The first configuration by name, this node included unless it joins later.
    listed: BTreeMap<NodeName, NodeRole>,
    empty: BTreeMap<NodeName, NodeId>,
    genesis: Option<Configuration>,
    /// The other roles were started.
    settled: bool,
    ask_at: Instant,
    joins: bool,
    /// An earlier node of this name lost its memory: there is a log, and this one founds none.
    rejoins: bool,
}

impl Founder {
    /// The founder on `me`; `listed` is the first configuration.
    pub fn new(me: NodeId, listed: BTreeMap<NodeName, NodeRole>) -> Self {
        Self {
            me,
            listed,
            empty: BTreeMap::new(),
            genesis: None,
            settled: false,
            ask_at: Instant::default(),
            joins: false,
            rejoins: false,
        }
    }

    /// Whether it only may be let into a cluster that exists, though it remembers none.
    #[must_use]
    pub const fn rejoining(mut self, rejoins: bool) -> Self {
        self.rejoins = rejoins;
        self
    }

    fn others(&self) -> impl Iterator<Item = NodeId> {
        // Identities are what is asked for; messages go by name.
        let names = self.voters().filter(|name| **name != self.me.name);
        names.map(|name| NodeId::new(name.clone(), Incarnation(0)))
    }

    /// Those that have to agree.
    fn voters(&self) -> impl Iterator<Item = &NodeName> {
        self.listed.iter().filter(|(_, role)| **role != NodeRole::Member).map(|(name, _)| name)
    }

    fn found(&mut self, out: &mut Effects<Self>) {
        let first = self.listed.iter().find(|(_, role)| **role == NodeRole::Main);
        let mine = first.is_some_and(|(name, _)| *name == self.me.name);
        let known: BTreeSet<&NodeName> = self.empty.keys().chain([&self.me.name]).collect();
        if self.settled || self.rejoins || !mine || !self.voters().all(|name| known.contains(name))
        {
            return;
        }
        let with = |role| {
            let names = self.listed.iter().filter(move |(_, listed)| **listed == role);
            let id = |name| self.empty.get(name).cloned().unwrap_or_else(|| self.me.clone());
            names.map(|(name, _)| id(name)).collect()
        };
        let members = self.listed.iter().filter(|(_, role)| **role == NodeRole::Member);
        let configuration =
            Configuration::founding(with(NodeRole::Main), with(NodeRole::Auxiliary))
                .with_members(members.map(|(name, _)| name.clone()).collect());
        tracing::info!(mains = ?configuration.mains, auxiliaries = ?configuration.auxiliaries,
            "founding the cluster");
        self.settle(configuration.clone(), out);
        let others: Vec<NodeId> = self.others().collect();
        for other in others {
            let genesis = FounderMessage::Genesis(Genesis { configuration: configuration.clone() });
            out.after_all_before().then_send(To::Node(other), genesis);
        }
    }

    fn settle(&mut self, configuration: Configuration, out: &mut Effects<Self>) {
        self.settled = true;
        self.genesis = Some(configuration.clone());
        out.persist(Record::Genesis(configuration.clone()))
            .then_here(Message::Founded(Some(configuration)));
    }

    fn learn(&mut self, configuration: Configuration, out: &mut Effects<Self>) {
        if self.settled {
            return;
        }
        let listed = configuration.mains.iter().chain(&configuration.auxiliaries);
        if listed.into_iter().any(|node| *node == self.me) {
            return self.settle(configuration, out);
        }
        tracing::info!("the cluster exists; waiting to be admitted");
        self.settled = true;
        self.joins = true;
        out.here(Message::Founded(None));
    }
}

impl Machine for Founder {
    type Message = FounderMessage;
    type Envelope = Message;
    type Record = Record;
    type Snapshot = Image;

    fn start(&mut self, now: Now, survived: &Survived<Record, Image>, out: &mut Effects<Self>) {
        self.ask_at = now.at;
        let genesis = survived.records.iter().find_map(|record| match record {
            Record::Genesis(genesis) => Some(genesis.clone()),
            Record::Promise(_)
            | Record::Vote(_)
            | Record::Chosen(_)
            | Record::Mark(_)
            | Record::Floor(..)
            | Record::Torn
            | Record::Mended => None,
        });
        self.genesis = genesis.clone();
        // A torn end alone is no memory: nothing was promised before the beginning was durable.
        let torn = |record: &Record| matches!(record, Record::Torn | Record::Mended);
        let knows = survived.snapshot.is_some() || !survived.records.iter().all(torn);
        if knows {
            self.settled = true;
            out.here(Message::Founded(genesis));
        }
        self.found(out);
    }

    fn message(
        &mut self,
        _now: Now,
        from: &NodeId,
        message: FounderMessage,
        out: &mut Effects<Self>,
    ) {
        let to = To::Node(from.clone());
        match message {
            FounderMessage::Ask(_) => match &self.genesis {
                Some(genesis) => {
                    let configuration = genesis.clone();
                    let genesis = FounderMessage::Genesis(Genesis { configuration });
                    out.after_all_before().then_send(to, genesis);
                }
                // It has a log whose beginning it no longer knows: enough to say that there is one.
                None if self.rejoins || self.settled && !self.joins => {
                    let configuration = Configuration::default();
                    out.send(to, FounderMessage::Genesis(Genesis { configuration }));
                }
                None if self.settled => {}
                None => out.send(to, FounderMessage::Empty(Empty {})),
            },
            FounderMessage::Empty(_) => {
                self.empty.insert(from.name.clone(), from.clone());
                self.found(out);
            }
            FounderMessage::Genesis(genesis) => self.learn(genesis.configuration, out),
        }
    }

    fn flush(&mut self, now: Now, out: &mut Effects<Self>) {
        if !self.settled && now.at >= self.ask_at {
            self.ask_at = now.at + ASK_EVERY;
            let others: Vec<NodeId> = self.others().collect();
            for other in others {
                out.send(To::Node(other), FounderMessage::Ask(Ask {}));
            }
        }
    }

    fn timeout(&mut self, _now: Now, _out: &mut Effects<Self>) {
        // Asking is done in `flush`, which follows.
    }

    fn deadline(&self) -> Option<Instant> {
        (!self.settled).then_some(self.ask_at)
    }
}
