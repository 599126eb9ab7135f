//! Watching: exactly one [`Terminated`] for an actor that ends, wherever it lives.
//!
//! The node an actor lives on is the only judge of its end; a watch is kept at both ends:
//!
//! ```text
//!  watching node: Watching ── Watch { id, name, life } ──► Watched: the actor's own node
//!                          ◄── Watching { id, life } ────   who wants to hear of which life
//!                          ◄── Ended { id, reason } ─────
//! ```
//! A *life* is one number per actor that ever had a name on a node, so that a successor under the
//! same name is never taken for it. What was asked is asked again whenever the link comes back and
//! every [`RESYNC`](crate::node), so nothing hangs on a single frame. If the link stays away for
//! longer than the node's configuration allows, or leads to another process by then, the watching
//! node ends the watch itself.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use actix::{Message, Recipient};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use crate::{
    identity::{Incarnation, NodeId},
    link::PeerInfo,
    node::WeakNode,
    world::Instant,
};

/// An actor that was watched has ended. Told exactly once for each watch.
///
/// A restart by its supervisor is no end: the address leads to the rebuilt actor as before.
#[derive(Debug, Clone, PartialEq, Eq, Message)]
#[rtype(result = "()")]
pub struct Terminated {
    /// The name it had.
    pub name: String,
    /// Where it lived.
    pub node: NodeId,
    /// How it ended.
    pub reason: Reason,
}

/// How an actor ended, as far as its watcher can know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reason {
    /// It stopped for good, or was stopped. Of an actor that no supervisor of ours runs nothing
    /// else is known, even if it panicked.
    Stopped,
    /// It panicked and is not rebuilt: its policy says so, or its restarts are used up.
    Panicked {
        /// What the panic said, cut to [`PANIC_BYTES_MAX`].
        text: String,
    },
    /// A supervision tree whose restarts were used up, when all its children had ended; or a child
    /// that the node it was to live on could not begin.
    GaveUp {
        /// Which limit, and the last failure.
        why: String,
    },
    /// Its name was taken back; it may live on where only its own node can reach it.
    Unregistered,
    /// Nobody had that name when the watch reached its node.
    NotThere,
    /// Its node was not heard of for too long, or its process was started anew. The actor may
    /// still run behind a broken network; nothing of it is heard through this address any more.
    NodeLost {
        /// Why, for people.
        why: String,
    },
    /// Its node left the cluster in good order.
    NodeLeft,
    /// Its node was removed from the cluster.
    NodeRemoved,
}

/// Longest text of a panic that is told to others.
pub const PANIC_BYTES_MAX: usize = 512;

impl Reason {
    /// The panic's text cut to its limit.
    pub(crate) fn panicked(mut text: String) -> Self {
        if text.len() > PANIC_BYTES_MAX {
            text.truncate(text.floor_char_boundary(PANIC_BYTES_MAX));
        }
        Self::Panicked { text }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stopped => f.write_str("it stopped"),
            Self::Panicked { text } => write!(f, "it panicked: {text}"),
            Self::GaveUp { why } => write!(f, "it gave up: {why}"),
            Self::Unregistered => f.write_str("its name was taken back"),
            Self::NotThere => f.write_str("nobody has that name there"),
            Self::NodeLost { why } => write!(f, "its node is lost: {why}"),
            Self::NodeLeft => f.write_str("its node left"),
            Self::NodeRemoved => f.write_str("its node was removed"),
        }
    }
}

/// The end of an actor to come: a future. Dropping it ends the watch.
///
/// For a stream, use `futures_util::stream::once(watch)` or a `FuturesUnordered` of watches; for an
/// actix message, [`Watch::notify`].
#[must_use = "dropping a watch ends it"]
pub struct Watch {
    node: WeakNode,
    id: u64,
    /// Who is watched, for the case that this very node goes first.
    whom: (String, NodeId),
    told: oneshot::Receiver<Terminated>,
    over: bool,
}

impl Watch {
    pub(crate) fn new(
        node: WeakNode,
        id: u64,
        whom: (String, NodeId),
        told: oneshot::Receiver<Terminated>,
    ) -> Self {
        Self { node, id, whom, told, over: false }
    }

    /// Sends the end as a message instead, say to the watching actor itself:
    /// `node.watch(&addr).notify(ctx.address().recipient())`. The watch then lasts until the end
    /// is told, the recipient is gone or the handle cancels it; dropping the handle does nothing.
    ///
    /// A recipient is an address: it keeps a plain actix actor alive, one started with
    /// [`Node::spawn`](crate::node::Node::spawn) lives until it is stopped anyway.
    pub fn notify(mut self, recipient: Recipient<Terminated>) -> WatchHandle {
        self.over = true;
        let handle = WatchHandle { node: self.node.clone(), id: self.id };
        let late = match self.node.upgrade() {
            Some(node) => node.redirect_watch(self.id, recipient),
            None => Some(recipient),
        };
        if let (Some(recipient), Ok(told)) = (late, self.told.try_recv()) {
            recipient.do_send(told);
        }
        handle
    }
}

impl Future for Watch {
    type Output = Terminated;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Terminated> {
        let told = Pin::new(&mut self.told).poll(cx);
        told.map(|told| {
            self.over = true;
            told.unwrap_or_else(|_| {
                let (name, node) = self.whom.clone();
                let why = "the watching node itself ended".to_owned();
                Terminated { name, node, reason: Reason::NodeLost { why } }
            })
        })
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if !self.over
            && let Some(node) = self.node.upgrade()
        {
            node.end_watch(self.id);
        }
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Watch({} on {})", self.whom.0, self.whom.1)
    }
}

/// A watch whose end goes to a recipient; see [`Watch::notify`].
pub struct WatchHandle {
    node: WeakNode,
    id: u64,
}

impl WatchHandle {
    /// Ends the watch; what was told already is not taken back.
    pub fn cancel(self) {
        if let Some(node) = self.node.upgrade() {
            node.end_watch(self.id);
        }
    }
}

impl fmt::Debug for WatchHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("WatchHandle").field(&self.id).finish()
    }
}

/// Where the end of one watch goes.
pub(crate) enum Sink {
    Future(oneshot::Sender<Terminated>),
    Recipient(Recipient<Terminated>),
}

/// An end to be told, with no lock held.
#[must_use]
pub(crate) struct Due(Sink, Terminated);

impl Due {
    pub(crate) fn tell(self) {
        match self.0 {
            // Whoever waited may have gone in this very moment.
            Sink::Future(sender) => drop(sender.send(self.1)),
            Sink::Recipient(recipient) => recipient.do_send(self.1),
        }
    }
}

/// One watch as it travels to the watched node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Wanted {
    pub(crate) id: u64,
    pub(crate) name: String,
    /// Which life is meant, once that is known.
    #[serde(default)]
    pub(crate) life: Option<u64>,
}

/// What this node watches. A machine: it is told what happens, and answers what to tell.
#[derive(Default)]
pub(crate) struct Watching {
    last_id: u64,
    watches: BTreeMap<u64, Open>,
}

struct Open {
    name: String,
    node: NodeId,
    /// The start of its process, once it was linked.
    process: Option<u64>,
    life: Option<u64>,
    /// Since when there is no link to its node.
    silent: Option<Instant>,
    sink: Sink,
}

impl Open {
    fn is_linked_elsewhere(&self, me: &NodeId) -> bool {
        self.silent.is_none() && self.node != *me
    }
}

impl Watching {
    /// A watch begins; `silent` is now when there may be no link to the actor's node.
    pub(crate) fn begin(
        &mut self,
        silent: Option<Instant>,
        name: &str,
        node: &NodeId,
        sink: Sink,
    ) -> u64 {
        self.last_id += 1;
        let (name, node) = (name.to_owned(), node.clone());
        let open = Open { name, node, process: None, life: None, silent, sink };
        self.watches.insert(self.last_id, open);
        self.last_id
    }

    /// Gives the recipient back when the watch is over already.
    pub(crate) fn redirect(
        &mut self,
        id: u64,
        recipient: Recipient<Terminated>,
    ) -> Option<Recipient<Terminated>> {
        let Some(open) = self.watches.get_mut(&id) else { return Some(recipient) };
        open.sink = Sink::Recipient(recipient);
        None
    }

    /// Nobody wants to hear any more; answers on which node the actor is.
    pub(crate) fn cancel(&mut self, id: u64) -> Option<NodeId> {
        self.watches.remove(&id).map(|open| open.node)
    }

    pub(crate) fn end(&mut self, id: u64, reason: Reason) -> Option<Due> {
        let Open { name, node, sink, .. } = self.watches.remove(&id)?;
        Some(Due(sink, Terminated { name, node, reason }))
    }

    /// The actor's node says that the actor has ended.
    pub(crate) fn ended(&mut self, from: &NodeId, id: u64, reason: Reason) -> Option<Due> {
        // A word about another's actor counts for nothing.
        self.watches.get(&id).filter(|open| open.node == *from)?;
        self.end(id, reason)
    }

    /// The actor's node says which life is watched.
    pub(crate) fn confirmed(&mut self, from: &NodeId, id: u64, life: u64) {
        if let Some(open) = self.watches.get_mut(&id).filter(|open| open.node == *from) {
            open.life.get_or_insert(life);
        }
    }

    /// There is a link to the node of watch `id`, or to a namesake of it: answers what to ask
    /// there, or that the watch is over. `dead` are the incarnations that were replaced.
    pub(crate) fn linked(
        &mut self,
        id: u64,
        peer: &PeerInfo,
        dead: &[Incarnation],
    ) -> Result<Wanted, Option<Due>> {
        let Some(open) = self.watches.get_mut(&id) else { return Err(None) };
        let follows = open.process.is_some_and(|process| process != peer.start_nonce);
        if follows || dead.contains(&open.node.incarnation) {
            let why = format!("{} was started anew", peer.id.name);
            return Err(self.end(id, Reason::NodeLost { why }));
        }
        if open.node != peer.id {
            // An address may be newer than our link: its node has until it counts as lost.
            return Err(None);
        }
        (open.process, open.silent) = (Some(peer.start_nonce), None);
        Ok(Wanted { id, name: open.name.clone(), life: open.life })
    }

    /// A link came up: what to ask there, and which watches are over by that.
    pub(crate) fn up(&mut self, peer: &PeerInfo, dead: &[Incarnation]) -> (Vec<Wanted>, Vec<Due>) {
        let (mut wanted, mut due) = (Vec::new(), Vec::new());
        for id in self.of(|node| node.name == peer.id.name) {
            match self.linked(id, peer, dead) {
                Ok(item) => wanted.push(item),
                Err(over) => due.extend(over),
            }
        }
        (wanted, due)
    }

    /// A link went down: it may come back.
    pub(crate) fn down(&mut self, now: Instant, peer: &NodeId) {
        for open in self.watches.values_mut().filter(|open| open.node == *peer) {
            open.silent.get_or_insert(now);
        }
    }

    /// A node is gone for good.
    pub(crate) fn gone(&mut self, is: impl Fn(&NodeId) -> bool, reason: &Reason) -> Vec<Due> {
        self.of(is).into_iter().filter_map(|id| self.end(id, reason.clone())).collect()
    }

    /// Ends the watches of nodes that were silent for `lost_after`, and forgets those whose
    /// recipient is gone.
    pub(crate) fn overdue(&mut self, now: Instant, lost_after: Duration) -> Vec<Due> {
        self.watches.retain(|_, open| match &open.sink {
            Sink::Recipient(recipient) => recipient.connected(),
            Sink::Future(_) => true,
        });
        let late = |open: &Open| open.silent.is_some_and(|since| now.since(since) >= lost_after);
        let ids: Vec<_> =
            self.watches.iter().filter(|(_, open)| late(open)).map(|(id, _)| *id).collect();
        let why = format!("no link for {lost_after:?}");
        let lost = Reason::NodeLost { why };
        ids.into_iter().filter_map(|id| self.end(id, lost.clone())).collect()
    }

    /// When [`Watching::overdue`] may have something to do next.
    pub(crate) fn next_overdue(&self, lost_after: Duration) -> Option<Instant> {
        self.watches.values().filter_map(|open| Some(open.silent? + lost_after)).min()
    }

    /// Whether anything is watched on another node that is linked.
    pub(crate) fn any_linked_elsewhere(&self, me: &NodeId) -> bool {
        self.watches.values().any(|open| open.is_linked_elsewhere(me))
    }

    /// What to ask again, by node.
    pub(crate) fn linked_elsewhere(&self, me: &NodeId) -> BTreeMap<NodeId, Vec<Wanted>> {
        let mut all = BTreeMap::<_, Vec<_>>::new();
        for (id, open) in self.watches.iter().filter(|(_, open)| open.is_linked_elsewhere(me)) {
            let wanted = Wanted { id: *id, name: open.name.clone(), life: open.life };
            all.entry(open.node.clone()).or_default().push(wanted);
        }
        all
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.watches.len()
    }

    fn of(&self, is: impl Fn(&NodeId) -> bool) -> Vec<u64> {
        self.watches.iter().filter(|(_, open)| is(&open.node)).map(|(id, _)| *id).collect()
    }
}

/// Who wants to hear of an end: a watch of this node or of another.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Watcher {
    Here(u64),
    There(NodeId, u64),
}

/// Watches of one peer on this node: what it makes us remember is bounded. Further ones are asked
/// again by the peer until there is room.
pub(crate) const WATCHES_PER_PEER_MAX: usize = 65_536;

/// Who watches which life on this node.
#[derive(Debug, Default)]
pub(crate) struct Watched {
    by_life: BTreeMap<u64, BTreeSet<Watcher>>,
    lives: BTreeMap<Watcher, u64>,
    per_peer: BTreeMap<NodeId, usize>,
}

impl Watched {
    /// Notes a watcher, once; answers whether there was room.
    pub(crate) fn add(&mut self, life: u64, watcher: Watcher) -> bool {
        if self.lives.contains_key(&watcher) {
            return true;
        }
        if let Watcher::There(peer, _) = &watcher {
            let count = self.per_peer.entry(peer.clone()).or_default();
            if *count >= WATCHES_PER_PEER_MAX {
                return false;
            }
            *count += 1;
        }
        self.lives.insert(watcher.clone(), life);
        self.by_life.entry(life).or_default().insert(watcher);
        true
    }

    /// Forgets a watcher; answers whether it was there.
    pub(crate) fn remove(&mut self, watcher: &Watcher) -> bool {
        let Some(life) = self.lives.remove(watcher) else { return false };
        if let Watcher::There(peer, _) = watcher
            && let Some(count) = self.per_peer.get_mut(peer)
        {
            *count -= 1;
            if *count == 0 {
                self.per_peer.remove(peer);
            }
        }
        if let Some(watchers) = self.by_life.get_mut(&life) {
            watchers.remove(watcher);
            if watchers.is_empty() {
                self.by_life.remove(&life);
            }
        }
        true
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.lives.len()
    }

    /// That life is over: whom to tell.
    pub(crate) fn take(&mut self, life: u64) -> Vec<Watcher> {
        let watchers: Vec<_> = self.by_life.get(&life).into_iter().flatten().cloned().collect();
        watchers.into_iter().filter(|watcher| self.remove(watcher)).collect()
    }

    /// The link to a peer is gone: it asks again when it is back.
    pub(crate) fn forget(&mut self, peer: &NodeId) {
        let all = Watcher::There(peer.clone(), 0)..=Watcher::There(peer.clone(), u64::MAX);
        let theirs: Vec<_> = self.lives.range(all).map(|(watcher, _)| watcher.clone()).collect();
        for watcher in theirs {
            self.remove(&watcher);
        }
    }
}
