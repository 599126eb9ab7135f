//! What comes in over links, and to whom it goes.

use std::sync::{Arc, Weak, atomic::Ordering::SeqCst};

use super::{Inner, Node, PeerEvent, lock, nursery, watching};
use crate::{
    address::SendError,
    identity::NodeId,
    link::{Inbound, PeerInfo},
    message::decode,
    registry::watch::Reason,
    wire::{Frame, FrameHeader, FrameKind},
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

    fn frames(&self, from: &NodeId, batch: &mut Vec<Frame>) {
        if let Some(node) = Node::upgrade(&self.0) {
            node.route(from, std::mem::take(batch));
        }
    }

    fn datagram(&self, from: &NodeId, frame: Frame) {
        if let Some(node) = Node::upgrade(&self.0) {
            node.route(from, vec![frame]);
        }
    }
}

impl Node {
    /// Brings frames of one sender to their targets: in order for each target, one call for each.
    pub(super) fn route(&self, from: &NodeId, batch: Vec<Frame>) {
        let mut rest = batch;
        while let Some(first) = rest.first() {
            let target = first.header.target;
            let is_same = |frame: &Frame| {
                frame.header.target == target
                    && matches!(frame.header.kind, FrameKind::Tell | FrameKind::Ask)
            };
            if !is_same(first) {
                let frame = rest.remove(0);
                self.take_control(from, frame);
            } else if rest.iter().all(is_same) {
                // Nearly always: one chunk carries one target's frames.
                return self.deliver(from, target, rest);
            } else {
                let (same, others) = rest.into_iter().partition(is_same);
                self.deliver(from, target, same);
                rest = others;
            }
        }
    }

    fn deliver(&self, from: &NodeId, target: u64, batch: Vec<Frame>) {
        if target == watching::TARGET {
            return self.take_watch_words(from, &batch);
        }
        if target == nursery::TARGET {
            return self.take_nursery_words(from, &batch);
        }
        match self.0.names.route(target) {
            Some(route) if self.is_draining() && from != self.id() && route.is_work() => {
                for frame in &batch {
                    self.refuse(from, &frame.header, &SendError::Leaving);
                }
            }
            Some(route) => route.deliver(from, batch, self),
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
