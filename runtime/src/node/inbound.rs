//! What comes in over links, and to whom it goes.

use std::sync::{Arc, Weak, atomic::Ordering::SeqCst};

use super::{Debt, Inner, Node, PeerEvent, lock, nursery, watching};
use crate::{
    address::SendError,
    identity::NodeId,
    link::{Inbound, PeerInfo},
    message::decode,
    registry::watch::Reason,
    wire::{Frame, FrameHeader, FrameKind},
    world::network::Lane,
};

/// The node as its links see it.
pub(super) struct Router(Weak<Inner>);

impl Router {
    pub(super) fn new(node: &Node) -> Self {
        Self(Arc::downgrade(&node.0))
    }
}

impl Inbound for Router {
    fn up(&self, peer: &PeerInfo) {
        let Some(node) = Node::upgrade(&self.0) else { return };
        node.0.forms.told(&peer.id.name, &peer.messages);
        lock(&node.0.peers_up).insert(peer.id.name.clone(), peer.clone());
        if !lock(&node.0.copies).up(&peer.id) {
            tracing::warn!(peer = %peer.id, "was replaced by another; its names do not count");
        }
        node.0.groups_version.fetch_add(1, SeqCst);
        node.credits_up(&peer.id.name);
        node.introduce(&peer.id);
        node.watches_up(peer);
        node.tell_hooks(&PeerEvent::Up(peer.clone()));
    }

    fn down(&self, peer: &NodeId, reason: &str) {
        let Some(node) = Node::upgrade(&self.0) else { return };
        {
            let mut up = lock(&node.0.peers_up);
            if up.get(&peer.name).is_some_and(|known| known.id == *peer) {
                up.remove(&peer.name);
            }
        }
        lock(&node.0.copies).forget(peer);
        node.0.forms.forget(&peer.name);
        node.0.groups_version.fetch_add(1, SeqCst);
        node.watches_down(peer);
        node.credits_down(&peer.name);
        node.0.asks.lost(&peer.name);
        if lock(&node.0.leaving).remove(peer) {
            node.watched_node_gone(peer, &Reason::NodeLeft);
            return node.tell_hooks(&PeerEvent::Left(peer.clone()));
        }
        node.tell_hooks(&PeerEvent::Down { peer: peer.clone(), reason: reason.to_owned() });
    }

    fn leaving(&self, peer: &NodeId) {
        if let Some(node) = Node::upgrade(&self.0) {
            lock(&node.0.leaving).insert(peer.clone());
        }
    }

    fn frames(&self, from: &NodeId, lane: Lane, batch: &mut Vec<Frame>) {
        if let Some(node) = Node::upgrade(&self.0) {
            node.route(from, lane, std::mem::take(batch));
        }
    }

    fn datagram(&self, from: &NodeId, frame: Frame) {
        if let Some(node) = Node::upgrade(&self.0) {
            node.route(from, Lane::Control, vec![frame]);
        }
    }
}

impl Node {
    /// Brings frames of one sender and lane to their targets: in order for each target, and those
    /// of one target in one call.
    pub(super) fn route(&self, from: &NodeId, lane: Lane, batch: Vec<Frame>) {
        // What a node tells itself crosses no link.
        let on_credit = lane == Lane::User && from != self.id();
        let cost: u64 = if on_credit { batch.iter().map(Self::link_cost).sum() } else { 0 };
        match the_target_of_all(&batch) {
            // Nearly always.
            Some(target) => self.deliver(from, on_credit, target, batch),
            None => self.sort_and_deliver(from, on_credit, batch),
        }
        if cost > 0 {
            self.link_sorted(from, cost);
        }
    }

    /// Frames for several targets, or of the node's own kinds among them.
    fn sort_and_deliver(&self, from: &NodeId, on_credit: bool, batch: Vec<Frame>) {
        // By target, in order of their first frames.
        let mut sorted: Vec<(u64, Vec<Frame>)> = Vec::new();
        let mut rest = batch.len();
        for frame in batch {
            if is_message(&frame) {
                let target = frame.header.target;
                // Nearly always the last, or the only one.
                match sorted.iter_mut().rev().find(|(of, _)| *of == target) {
                    Some((_, frames)) => frames.push(frame),
                    None => {
                        let mut frames =
                            Vec::with_capacity(if sorted.is_empty() { rest } else { 1 });
                        frames.push(frame);
                        sorted.push((target, frames));
                    }
                }
            } else {
                let kind = frame.header.kind;
                let stands_alone = matches!(kind, FrameKind::Heartbeat | FrameKind::Credit);
                if !stands_alone {
                    // It may be about what came before it.
                    self.deliver_all(from, on_credit, &mut sorted);
                }
                self.take_control(from, frame);
            }
            rest -= 1;
        }
        self.deliver_all(from, on_credit, &mut sorted);
    }

    fn deliver_all(&self, from: &NodeId, on_credit: bool, sorted: &mut Vec<(u64, Vec<Frame>)>) {
        for (target, batch) in sorted.drain(..) {
            self.deliver(from, on_credit, target, batch);
        }
    }

    /// Messages for one target.
    fn deliver(&self, from: &NodeId, on_credit: bool, target: u64, mut batch: Vec<Frame>) {
        if target == watching::TARGET {
            return self.take_watch_words(from, &batch);
        }
        if target == nursery::TARGET {
            return self.take_nursery_words(from, &batch);
        }
        let debt = match on_credit {
            true => self.take_on_credit(from, target, &mut batch),
            false => Debt::default(),
        };
        match self.0.names.route(target) {
            Some(route) if self.is_draining() && from != self.id() && route.is_work() => {
                for frame in &batch {
                    self.refuse(from, &frame.header, &SendError::Leaving);
                }
            }
            Some(route) => route.deliver_on_credit(from, batch, debt, self),
            None => {
                for frame in &batch {
                    self.refuse(from, &frame.header, &SendError::NoSuchActor);
                }
            }
        }
    }

    fn take_control(&self, from: &NodeId, frame: Frame) {
        let FrameHeader { kind, correlation, .. } = frame.header;
        match kind {
            FrameKind::Reply => self.0.asks.answer(from, correlation, Ok(frame.body)),
            FrameKind::Failure => {
                let error = decode(&frame.body).unwrap_or(SendError::Codec);
                self.0.asks.answer(from, correlation, Err(error));
            }
            FrameKind::Cancel => self.0.asks.cancel(from, correlation),
            FrameKind::Credit => self.take_credit(from, &frame.header),
            FrameKind::Probe => self.take_probe(from, &frame.header),
            FrameKind::Directory => self.take_news(from, &frame),
            FrameKind::Heartbeat => {
                self.tell_hooks(&PeerEvent::Heartbeat { from: from.clone(), frame });
            }
            // The links keep these two to themselves, the caller the other two.
            FrameKind::Hello | FrameKind::Goodbye | FrameKind::Tell | FrameKind::Ask => {
                tracing::warn!(%from, ?kind, "a frame that has no place here");
                self.lose_frame(from, &frame.header, "bad_frame");
            }
        }
    }

    fn tell_hooks(&self, event: &PeerEvent) {
        // Copied out, since a hook may add another.
        let hooks = lock(&self.0.peer_hooks).clone();
        for hook in hooks {
            hook(event);
        }
    }
}

/// The actor that all frames are for, if they are messages to one.
fn the_target_of_all(batch: &[Frame]) -> Option<u64> {
    let target = batch.first()?.header.target;
    let all = batch.iter().all(|frame| is_message(frame) && frame.header.target == target);
    all.then_some(target)
}

fn is_message(frame: &Frame) -> bool {
    matches!(frame.header.kind, FrameKind::Tell | FrameKind::Ask)
}
