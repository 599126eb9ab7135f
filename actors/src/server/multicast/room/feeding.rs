//! How what is delivered reaches the nodes that serve nothing: each is fed by another one, and may
//! feed more itself.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, Weak},
    time::Duration,
};

use bytes::Bytes;
use rand::Rng as _;
use synod_runtime::{
    identity::{NodeId, NodeName},
    wire::name_hash,
    world::{Instant, network::Lane},
};
use tokio::sync::Notify;

use super::{Heard, Room, Words};
use crate::{
    multicast::{
        channel::{Cutter, Gatherer, Packet, Way},
        message::{Gossip, Message},
    },
    server::multicast::{lock, target_of},
};

/// Who feeds this node, and whom it feeds.
#[derive(Default)]
pub(super) struct Feeding {
    /// Nodes that are fed by this one, until when and how.
    children: Mutex<BTreeMap<NodeName, (Instant, Way)>>,
    /// Makes datagrams for all who are fed in the same way; where they are paced, for one of them.
    cutters: Mutex<BTreeMap<(Way, Option<NodeName>), Cutter>>,
    /// One of them holds something back.
    held: Arc<Notify>,
    /// Whom this node asked last, where it serves nothing, and when that one answered last.
    feeder: Mutex<Option<(NodeName, Option<Instant>)>>,
    /// Puts together what comes in datagrams, by sender.
    gatherers: Mutex<BTreeMap<NodeName, Gatherer>>,
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
        children.retain(|_, (until, _)| *until > now);
        let mut by_way: BTreeMap<(Way, Option<NodeName>), Vec<NodeName>> = BTreeMap::new();
        for (name, (_, way)) in &*children {
            let alone = way.is_paced().then(|| name.clone());
            by_way.entry((*way, alone)).or_default().push(name.clone());
        }
        drop(children);
        if by_way.is_empty() {
            return;
        }
        let message = message();
        let lane = if message.is_bulky() { Lane::Bulk } else { Lane::Consensus };
        let mut said = None;
        for (key, names) in by_way {
            // Where some things are not said, signs of life are: by the stream, which loses none.
            let by_datagrams = match key.0 {
                Way::Streams => false,
                Way::Datagrams { paced, .. } => !(paced && matches!(message, Message::Gossip(_))),
            };
            if by_datagrams && self.cast(key, &names, said.get_or_insert_with(|| written(&message)))
            {
                continue;
            }
            let body = self.encode(&Words::Role(message.clone()));
            names.iter().for_each(|child| self.send(child, lane, &body));
        }
    }

    /// Says it by datagrams, unless it is too large for them; whether they are the way for it.
    fn cast(&self, key: (Way, Option<NodeName>), to: &[NodeName], said: &Bytes) -> bool {
        let Way::Datagrams { parity, paced } = key.0 else { return false };
        let mut cutters = lock(&self.feeding.cutters);
        let new = || Cutter::new(self.rng_of_publishers().next_u64(), parity, paced);
        let cutter = cutters.entry(key).or_insert_with(new);
        let unsaid = cutter.unsaid();
        let packets = cutter.say(said);
        let (holds, unsaid) = (cutter.holds(), cutter.unsaid() - unsaid);
        drop(cutters);
        self.unsaid.add(unsaid);
        if holds {
            self.feeding.held.notify_one();
        }
        let fits = packets.is_some();
        self.send_packets(to, packets.unwrap_or_default());
        fits
    }

    fn send_packets(&self, to: &[NodeName], packets: Vec<Packet>) {
        for packet in packets {
            let body = self.encode(&Words::Packet(packet));
            for child in to {
                let target = name_hash(&target_of(child));
                if let Err(error) = self.node.tell_by_datagram(child, target, 1, &body) {
                    tracing::trace!(%child, %error, "not sent; who lacks it asks for it");
                }
            }
        }
    }

    /// What came in a datagram, put together with others.
    pub(in crate::server::multicast) fn gather(
        &self,
        from: &NodeId,
        packet: Packet,
    ) -> Vec<Message> {
        let mut gatherers = lock(&self.feeding.gatherers);
        if gatherers.len() >= GATHERERS_MAX && !gatherers.contains_key(&from.name) {
            // What was under way is asked for.
            gatherers.clear();
        }
        let whole = gatherers.entry(from.name.clone()).or_default().take(packet);
        drop(gatherers);
        let read = |said: Bytes| rmp_serde::from_slice::<Message>(&said).ok();
        whole.into_iter().filter_map(read).filter(Message::travels).collect()
    }

    /// Another node wants to be fed from here for a while, in that way; it is told whether it is.
    pub(in crate::server::multicast) fn take_in(&self, child: &NodeId, way: Way) {
        let now = self.node.now();
        let mut children = lock(&self.feeding.children);
        if children.len() >= CHILDREN_MAX {
            children.retain(|_, (until, _)| *until > now);
        }
        if children.len() < CHILDREN_MAX || children.contains_key(&child.name) {
            children.insert(child.name.clone(), (now + FED_FOR, way));
            drop(children);
            self.send(&child.name, Lane::Consensus, &self.encode(&Words::Fed));
        }
    }

    /// Asks a node to feed this one; nobody, where this one serves the group.
    pub(in crate::server::multicast) fn ask_to_be_fed(&self, by: Option<&NodeName>, way: Way) {
        let mut feeder = lock(&self.feeding.feeder);
        let answered = feeder.take().filter(|(name, _)| Some(name) == by);
        *feeder = by.map(|by| (by.clone(), answered.and_then(|(_, answered)| answered)));
        drop(feeder);
        if let Some(by) = by {
            let words = match way {
                Way::Streams => Words::Feed,
                Way::Datagrams { .. } => Words::FeedBy(way),
            };
            self.send(by, Lane::Consensus, &self.encode(&words));
        }
    }

    /// That node feeds this one.
    pub(in crate::server::multicast) fn fed(&self, by: &NodeId) {
        let now = self.node.now();
        if let Some((name, answered)) = &mut *lock(&self.feeding.feeder)
            && *name == by.name
        {
            *answered = Some(now);
        }
    }

    /// Whether the node that fed this one has not answered for a while, though it did before.
    pub(in crate::server::multicast) fn feeder_is_silent(&self) -> bool {
        let now = self.node.now();
        let feeder = lock(&self.feeding.feeder);
        let answered = feeder.as_ref().and_then(|(_, answered)| *answered);
        answered.is_some_and(|at| now.since(at) > UNANSWERED_MAX)
    }

    /// Whom this node asked last to feed it.
    pub(in crate::server::multicast) fn feeder(&self) -> Option<NodeName> {
        lock(&self.feeding.feeder).as_ref().map(|(name, _)| name.clone())
    }

    /// How many nodes are fed from here.
    pub(in crate::server::multicast) fn feeds(&self) -> usize {
        let now = self.node.now();
        lock(&self.feeding.children).values().filter(|(until, _)| *until > now).count()
    }

    /// Says what was held back in case that more comes, or that the path takes no more.
    fn look(&self) {
        let children = lock(&self.feeding.children).clone();
        let mut cutters = lock(&self.feeding.cutters);
        let is_fed =
            |way: &Way, name: &NodeName| children.get(name).is_some_and(|(_, by)| by == way);
        cutters.retain(|(way, alone), _| alone.as_ref().is_none_or(|name| is_fed(way, name)));
        let mut all = Vec::with_capacity(cutters.len());
        for ((way, alone), cutter) in cutters.iter_mut().filter(|(_, cutter)| cutter.holds()) {
            let waiting = alone.as_ref().map_or(0, |name| self.node.datagrams_waiting(name));
            let packets = cutter.look(waiting);
            if cutter.holds() {
                self.feeding.held.notify_one();
            }
            all.push((*way, alone.clone(), packets));
        }
        drop(cutters);
        for (way, alone, packets) in all {
            let fed = |(name, (_, by)): (&NodeName, &(_, Way))| (*by == way).then(|| name.clone());
            let names = match alone {
                Some(name) => vec![name],
                None => children.iter().filter_map(fed).collect(),
            };
            self.send_packets(&names, packets);
        }
    }
}

fn written(message: &Message) -> Bytes {
    let mut said = Vec::with_capacity(message.len_hint());
    rmp_serde::encode::write(&mut said, message).expect("messages for the wire encode");
    Bytes::from(said)
}

/// Says the sum of the last pieces when nothing followed them for a moment, and what the path takes.
pub(super) async fn look_again(room: Weak<Room>) {
    let Some(held) = room.upgrade().map(|room| Arc::clone(&room.feeding.held)) else { return };
    loop {
        held.notified().await;
        tokio::time::sleep(LOOK_AFTER).await;
        let Some(room) = room.upgrade() else { return };
        room.look();
    }
}

/// Who is fed asks again well before this is over.
const FED_FOR: Duration = Duration::from_secs(2);

/// Who feeds answers whoever asks it at once. Two were left unanswered by then.
const UNANSWERED_MAX: Duration = Duration::from_millis(900);

/// Nodes fed by one, at most: each costs it what every message costs.
const CHILDREN_MAX: usize = 64;

/// A sum waits so long for more pieces, and what the path does not take for a look: much shorter than
/// anybody waits before asking for what is missing.
const LOOK_AFTER: Duration = Duration::from_millis(5);

/// Nodes that feed this one by datagrams at a time: the one it asks, and some it asked before.
const GATHERERS_MAX: usize = 4;

#[cfg(test)]
mod tests {
    use synod_runtime::wire::HEADER_BYTES;

    use super::*;
    use crate::multicast::{
        channel::{Content, PART_BYTES, PIECES_MAX},
        group::NAME_BYTES_MAX,
    };

    /// Of a QUIC packet of 1 200 bytes, which every path carries: without its own header with a
    /// connection's name of 8 bytes, its seal, and what marks a datagram in it.
    const DATAGRAM_BYTES_MIN: usize = 1_200 - (1 + 8 + 4) - 16 - 9;

    #[test]
    fn the_largest_packet_of_the_longest_name_fits_the_smallest_datagram() {
        let name = "n".repeat(NAME_BYTES_MAX);
        let said = Bytes::from(vec![255; PART_BYTES * PIECES_MAX]);
        let mut cutter = Cutter::new(u64::MAX, 4, false);
        let mut sums = 0;
        for mut packet in cutter.say(&said).unwrap() {
            // Numbers at their longest: those of a stream that goes on for ever.
            match &mut packet.content {
                Content::Piece(piece) => {
                    (piece.number, piece.before, piece.after) = (u64::MAX, u16::MAX, u16::MAX);
                }
                Content::Sum { first, count, .. } => {
                    (*first, *count) = (u64::MAX, u8::MAX);
                    sums += 1;
                }
            }
            let body = rmp_serde::to_vec(&(&name, Words::Packet(packet))).unwrap();
            let bytes = HEADER_BYTES + body.len();
            assert!(bytes <= DATAGRAM_BYTES_MIN, "{bytes} bytes, {DATAGRAM_BYTES_MIN} fit");
        }
        assert_eq!(sums, PIECES_MAX / 4);
    }
}
