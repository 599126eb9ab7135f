//! What a node does for watches: see [`crate::registry::watch`].

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use actix::Recipient;
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, oneshot};

use super::{Node, WeakNode, lock};
use crate::{
    address::{RemoteAddr, SendError},
    identity::{NodeId, NodeName},
    link::PeerInfo,
    message::{RemoteActor, decode, encode},
    registry::watch::{Due, Reason, Sink, Terminated, Wanted, Watch, Watched, Watcher, Watching},
    wire::{Frame, FrameHeader, FrameKind, name_hash},
    world::{Instant, network::Lane},
};

/// Where words about watches go on every node.
pub(super) const TARGET: u64 = name_hash("synod/watch");

/// How often everything that is watched is asked for again, so that no end hangs on one frame:
/// seldom enough to cost nothing, often enough that nobody waits for a lost word much longer than
/// for a lost node.
pub(crate) const RESYNC: Duration = Duration::from_secs(5);

/// Watches in one frame: far below a frame's limit with the longest names.
const WORD_LEN_MAX: usize = 1_000;

/// Bodies of frames to [`TARGET`].
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Word {
    /// Tell me when these end.
    Watch(Vec<Wanted>),
    /// Watch `id` is on that life.
    Watching { id: u64, life: u64 },
    /// That is over.
    Ended { id: u64, reason: Reason },
    /// I do not want to know any more.
    Unwatch { id: u64 },
}

/// Both ends of the watches of a node.
#[derive(Default)]
pub(super) struct Watches {
    watching: std::sync::Mutex<Watching>,
    watched: std::sync::Mutex<Watched>,
    /// There may be something to do earlier than the keeper sleeps.
    wake: Arc<Notify>,
}

impl Node {
    /// Watches the actor behind an address: the future gives exactly one [`Terminated`], when the
    /// actor stops or panics for good, its name is taken back, or its node leaves, is removed or
    /// is lost (no link for [`NodeConfig::lost_after`](super::NodeConfig::lost_after), or another
    /// process under its name). What is gone already is told at once. A restart by its supervisor
    /// is no end.
    ///
    /// ```
    /// use actix::{Actor, Context};
    /// use synod_runtime::{
    ///     identity::Incarnation,
    ///     message::RemoteActor,
    ///     node::{Node, NodeConfig},
    ///     registry::watch::Reason,
    ///     sim::Simulation,
    /// };
    ///
    /// #[derive(RemoteActor)]
    /// #[remote(name = "clerk", handles(), crate = "synod_runtime")]
    /// struct Clerk;
    ///
    /// impl Actor for Clerk {
    ///     type Context = Context<Self>;
    /// }
    ///
    /// Simulation::new(1).run(|sim| async move {
    ///     let name = "a".parse().unwrap();
    ///     let config = NodeConfig::new("demo".parse().unwrap(), name, Incarnation(1));
    ///     let node = Node::start(sim.world(&config.name), config).unwrap();
    ///     let clerk = node.register("clerk", node.spawn("clerk", || Clerk)).unwrap();
    ///     let watch = node.watch(&clerk);
    ///     node.stop("clerk");
    ///     assert_eq!(watch.await.reason, Reason::Stopped);
    ///     assert_eq!(node.watch(&clerk).await.reason, Reason::NotThere);
    /// });
    /// ```
    ///
    /// ```
    #[doc = include_str!("../../docs/examples/till.txt")]
    /// let end = a.watch(&till);
    /// b.stop("till");
    /// let terminated = end.await;
    /// assert_eq!((terminated.name.as_str(), &terminated.node), ("till", b.id()));
    /// # });
    /// ```
    pub fn watch<A: RemoteActor>(&self, addr: &RemoteAddr<A>) -> Watch {
        self.watch_name(addr.node(), addr.name())
    }

    /// As [`Node::watch`], for whatever has `name` on `node`: a supervised actor without remote
    /// messages, a role, a supervision tree.
    pub fn watch_name(&self, node: &NodeId, name: &str) -> Watch {
        let (sender, told) = oneshot::channel();
        let whom = (name.to_owned(), node.clone());
        let sink = Sink::Future(sender);
        let silent = (node != self.id()).then(|| self.now());
        let id = lock(&self.0.watches.watching).begin(silent, name, node, sink);
        if node == self.id() {
            self.watch_here(id, name);
        } else {
            self.watch_there(id, node);
        }
        Watch::new(WeakNode::of(self), id, whom, told)
    }

    /// Ends the link to a peer that is no member any more: what is watched there ends as
    /// [`Reason::NodeRemoved`], at once, and it is not dialled again.
    pub fn remove_peer(&self, peer: &NodeName) {
        self.links().forget(peer);
        let due =
            lock(&self.0.watches.watching).gone(|node| node.name == *peer, &Reason::NodeRemoved);
        tell(due);
    }

    /// Everything that is watched on `peer` ends.
    pub(super) fn watched_node_gone(&self, peer: &NodeId, reason: &Reason) {
        let due = lock(&self.0.watches.watching).gone(|node| node == peer, reason);
        tell(due);
    }

    /// Tells whoever watched what has ended since the last call.
    pub(super) fn tell_ended(&self) {
        for (life, reason) in self.0.names.take_ended() {
            let watchers = lock(&self.0.watches.watched).take(life);
            for watcher in watchers {
                match watcher {
                    Watcher::Here(id) => {
                        let due = lock(&self.0.watches.watching).end(id, reason.clone());
                        tell(due);
                    }
                    Watcher::There(peer, id) => {
                        self.say(&peer, &Word::Ended { id, reason: reason.clone() });
                    }
                }
            }
        }
    }

    /// Gives the recipient back when the watch is over already.
    pub(crate) fn redirect_watch(
        &self,
        id: u64,
        recipient: Recipient<Terminated>,
    ) -> Option<Recipient<Terminated>> {
        lock(&self.0.watches.watching).redirect(id, recipient)
    }

    pub(crate) fn end_watch(&self, id: u64) {
        let Some(node) = lock(&self.0.watches.watching).cancel(id) else { return };
        if node == *self.id() {
            lock(&self.0.watches.watched).remove(&Watcher::Here(id));
        } else {
            self.say(&node, &Word::Unwatch { id });
        }
    }

    pub(super) fn watches_up(&self, peer: &PeerInfo) {
        let dead = lock(&self.0.copies).dead(&peer.id.name);
        let (wanted, due) = lock(&self.0.watches.watching).up(peer, &dead);
        tell(due);
        self.ask_for(&peer.id, &wanted);
        self.0.watches.wake.notify_one();
    }

    pub(super) fn watches_down(&self, peer: &NodeId) {
        lock(&self.0.watches.watching).down(self.now(), peer);
        lock(&self.0.watches.watched).forget(peer);
        self.0.watches.wake.notify_one();
    }

    /// Takes frames that came for [`TARGET`].
    pub(super) fn take_watch_words(&self, from: &NodeId, batch: &[Frame]) {
        for frame in batch {
            match decode::<Word>(&frame.body) {
                Ok(word) => self.take_watch_word(from, word),
                Err(error) => {
                    tracing::warn!(%from, %error, "a word about watches that cannot be read");
                    self.refuse(from, &frame.header, &SendError::Codec);
                }
            }
        }
    }

    fn take_watch_word(&self, from: &NodeId, word: Word) {
        match word {
            Word::Watch(wanted) => {
                for wanted in wanted {
                    self.watch_for(from, &wanted);
                }
            }
            Word::Watching { id, life } => {
                lock(&self.0.watches.watching).confirmed(from, id, life);
            }
            Word::Ended { id, reason } => {
                let due = lock(&self.0.watches.watching).ended(from, id, reason);
                tell(due);
            }
            Word::Unwatch { id } => {
                lock(&self.0.watches.watched).remove(&Watcher::There(from.clone(), id));
            }
        }
    }

    fn watch_here(&self, id: u64, name: &str) {
        let over = match self.0.names.life(name) {
            None => Some(Reason::NotThere),
            Some(life) => self.note_watcher(name, life, &Watcher::Here(id)),
        };
        if let Some(reason) = over {
            let due = lock(&self.0.watches.watching).end(id, reason);
            tell(due);
        }
    }

    fn watch_there(&self, id: u64, node: &NodeId) {
        let dead = lock(&self.0.copies).dead(&node.name);
        if node.name == *self.name() || dead.contains(&node.incarnation) {
            let why = format!("{} was started anew", node.name);
            let due = lock(&self.0.watches.watching).end(id, Reason::NodeLost { why });
            return tell(due);
        }
        let peer = lock(&self.0.peers_up).get(&node.name).cloned();
        if let Some(peer) = peer {
            let linked = lock(&self.0.watches.watching).linked(id, &peer, &dead);
            match linked {
                Ok(wanted) => self.say(&peer.id, &Word::Watch(vec![wanted])),
                Err(due) => tell(due),
            }
        }
        self.0.watches.wake.notify_one();
    }

    /// Watches on behalf of another node.
    fn watch_for(&self, from: &NodeId, wanted: &Wanted) {
        let Wanted { id, name, life } = wanted;
        let present = self.0.names.life(name);
        let watcher = Watcher::There(from.clone(), *id);
        let over = match (life.or(present), present) {
            (None, _) => Some(Reason::NotThere),
            (Some(life), _) => self.note_watcher(name, life, &watcher),
        };
        let answer = match (over, life.or(present)) {
            (Some(reason), _) => Word::Ended { id: *id, reason },
            (None, Some(known)) if life.is_none() => Word::Watching { id: *id, life: known },
            (None, _) => return,
        };
        self.say(from, &answer);
    }

    /// Notes who watches a life; answers the reason if that is over.
    fn note_watcher(&self, name: &str, life: u64, watcher: &Watcher) -> Option<Reason> {
        if !lock(&self.0.watches.watched).add(life, watcher.clone()) {
            tracing::warn!(?watcher, name, "a peer watches too much; it will ask again");
            return None;
        }
        // Looked at after it was noted: whoever ends the life in between finds the watcher, or is
        // found out here.
        let over = !self.0.names.lives(name, life);
        (over && lock(&self.0.watches.watched).remove(watcher)).then_some(Reason::Stopped)
    }

    fn ask_for(&self, peer: &NodeId, wanted: &[Wanted]) {
        for some in wanted.chunks(WORD_LEN_MAX) {
            self.say(peer, &Word::Watch(some.to_vec()));
        }
    }

    fn say(&self, peer: &NodeId, word: &Word) {
        let body = encode(word).expect("texts and numbers always encode");
        let header =
            FrameHeader { target: TARGET, message: TARGET, ..FrameHeader::new(FrameKind::Tell) };
        // What is lost is said again: a watch by `RESYNC`, its end as the answer to that.
        if let Err(error) = self.links().send(&peer.name, Lane::Control, &header, &body) {
            tracing::debug!(%peer, %error, "a word about watches was not sent");
        }
    }

    /// Does what is due; answers how long nothing will be.
    fn keep_watches(&self, resync_at: &mut Instant) -> Option<Duration> {
        let (now, lost_after) = (self.now(), self.0.lost_after);
        let (due, next, linked, again) = {
            let mut watching = lock(&self.0.watches.watching);
            let due = watching.overdue(now, lost_after);
            let (next, linked) =
                (watching.next_overdue(lost_after), watching.any_linked_elsewhere(self.id()));
            let late = linked && *resync_at <= now;
            let again = if late { watching.linked_elsewhere(self.id()) } else { BTreeMap::new() };
            (due, next, linked, again)
        };
        tell(due);
        for (peer, wanted) in &again {
            self.ask_for(peer, wanted);
        }
        if !linked || !again.is_empty() {
            *resync_at = now + RESYNC;
        }
        Some(next.into_iter().chain(linked.then_some(*resync_at)).min()?.since(now))
    }
}

/// Ends watches of lost nodes and asks again for the others, as long as the node lives.
pub(super) async fn keep(node: WeakNode, wake: Arc<Notify>) {
    let mut resync_at = Instant::default();
    loop {
        // Not held while waiting: this task must not keep the node.
        let Some(strong) = node.upgrade() else { return };
        let wait = strong.keep_watches(&mut resync_at);
        drop(strong);
        match wait {
            None => wake.notified().await,
            // A clock may be a little behind the timer: never spin on the rest.
            Some(wait) => {
                let wait = wait.max(Duration::from_millis(1));
                drop(tokio::time::timeout(wait, wake.notified()).await);
            }
        }
    }
}

impl Watches {
    /// How many watches were begun here, and how many are kept for anybody.
    #[cfg(test)]
    pub(super) fn open(&self) -> (usize, usize) {
        (lock(&self.watching).len(), lock(&self.watched).len())
    }

    pub(super) fn wake(&self) -> Arc<Notify> {
        Arc::clone(&self.wake)
    }
}

fn tell(due: impl IntoIterator<Item = Due>) {
    for due in due {
        due.tell();
    }
}
