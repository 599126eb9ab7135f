//! How what is delivered reaches the nodes that serve nothing: each is fed by another one, and may
//! feed more itself.

use std::{collections::BTreeMap, sync::Mutex, time::Duration};

use synod_runtime::{
    identity::{NodeId, NodeName},
    world::{Instant, network::Lane},
};

use super::{Heard, Room, Words};
use crate::{
    multicast::message::{Gossip, Message},
    server::multicast::lock,
};

/// Who feeds this node, and whom it feeds.
#[derive(Default)]
pub(super) struct Feeding {
    /// Nodes that are fed by this one, and until when.
    children: Mutex<BTreeMap<NodeName, Instant>>,
    /// Whom this node asked last, where it serves nothing.
    feeder: Mutex<Option<NodeName>>,
}

impl Room {
    /// A sign of life of the sequencer. What was heard before, by another way, goes no further: so
    /// nothing goes round between nodes that feed one another.
    pub(super) fn hear(&self, gossip: &Gossip) {
        let beat = |gossip: &Gossip| (gossip.epoch, gossip.beat);
        let mut heard = lock(&self.heard);
        if heard.as_ref().is_some_and(|heard| beat(&heard.gossip) >= beat(gossip)) {
            return;
        }
        *heard = Some(Heard { at: self.node.now(), gossip: gossip.clone() });
        drop(heard);
        if gossip.version > self.group().version {
            self.news.notify_one();
        }
        self.feed(|| Message::Gossip(gossip.clone()));
    }

    /// Hands on to the nodes that are fed from here.
    pub(super) fn feed(&self, message: impl FnOnce() -> Message) {
        let now = self.node.now();
        let mut children = lock(&self.feeding.children);
        if children.is_empty() {
            return;
        }
        children.retain(|_, until| *until > now);
        let (message, names) = (message(), children.keys().cloned().collect::<Vec<_>>());
        drop(children);
        let lane = if message.is_bulky() { Lane::Bulk } else { Lane::Consensus };
        let body = self.encode(&Words::Role(message));
        for child in names {
            self.send(&child, lane, &body);
        }
    }

    /// Another node wants to be fed from here for a while.
    pub(in crate::server::multicast) fn take_in(&self, child: &NodeId) {
        let now = self.node.now();
        let mut children = lock(&self.feeding.children);
        if children.len() >= CHILDREN_MAX {
            children.retain(|_, until| *until > now);
        }
        if children.len() < CHILDREN_MAX || children.contains_key(&child.name) {
            children.insert(child.name.clone(), now + FED_FOR);
        }
    }

    /// Asks a node to feed this one; nobody, where this one serves the group.
    pub(in crate::server::multicast) fn ask_to_be_fed(&self, by: Option<&NodeName>) {
        *lock(&self.feeding.feeder) = by.cloned();
        if let Some(by) = by {
            let body = self.encode(&Words::Feed);
            self.send(by, Lane::Consensus, &body);
        }
    }

    /// Whom this node asked last to feed it.
    pub(in crate::server::multicast) fn feeder(&self) -> Option<NodeName> {
        lock(&self.feeding.feeder).clone()
    }

    /// How many nodes are fed from here.
    pub(in crate::server::multicast) fn feeds(&self) -> usize {
        let now = self.node.now();
        lock(&self.feeding.children).values().filter(|until| **until > now).count()
    }
}

/// Who is fed asks again well before this is over.
const FED_FOR: Duration = Duration::from_secs(2);

/// Nodes fed by one, at most: each costs it what every message costs.
const CHILDREN_MAX: usize = 64;
