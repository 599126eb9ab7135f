//! What a node does with names.

use std::{
    any::Any,
    sync::{Arc, Weak, atomic::Ordering::SeqCst},
    time::Duration,
};

use actix::{Actor, Addr, AsyncContext as _, Context, Recipient, WeakRecipient};
use rustc_hash::FxHashMap;
use tokio::sync::Notify;

use super::{Inner, Node, lock};
use crate::{
    address::{Place, Proxy, RemoteAddr, RemoteRecipient},
    identity::NodeId,
    message::{Inbox, KnownMessage, RemoteActor, RemoteMessage, Routes, decode, encode},
    registry::{
        Binding, Deliver, LookupError, RegisterError, Registered, RegistryEntry,
        directory::{News, Taken, entries},
        group::{Group, JoinError},
    },
    supervision::Permit,
    wire::{Frame, FrameHeader, FrameKind, name_hash},
    world::network::Lane,
};

/// How often the list is looked over for what changes by itself (restarts, mailboxes), and told.
const LOOK_OVER: Duration = Duration::from_secs(1);

/// Every so many looks the version is told even if nothing changed, so that a copy that missed
/// something finds out.
const CONFIRM_EVERY: u32 = 5;

/// The proxies that [`RemoteRecipient::into_actix`] made, by target and message: each a
/// `WeakRecipient`, so that one that nobody uses ends.
pub(super) type Proxies = FxHashMap<(NodeId, u64, u64), Box<dyn Any + Send>>;

impl Node {
    /// Gives an actor a name that other nodes can send to. The name stays until
    /// [`Node::unregister`], or until the actor is gone.
    ///
    /// # Errors
    /// When the name is taken or two messages look the same on the wire; nothing was changed.
    pub fn register<A: RemoteActor>(
        &self,
        name: &str,
        addr: Addr<A>,
    ) -> Result<RemoteAddr<A>, RegisterError> {
        self.register_actor(name, addr, None)
    }

    /// As [`Node::register`], for an actor that takes messages only while `permit` says so; others
    /// are refused as `NoSuchActor`, *not run*, each as its turn comes. That holds for what comes
    /// over the wire, and for what this node [asks](Node::ask) or [tells](Node::tell) itself: a
    /// local address leads straight to the mailbox.
    ///
    /// # Errors
    /// As there.
    pub fn register_while<A: RemoteActor>(
        &self,
        name: &str,
        addr: Addr<A>,
        permit: Arc<dyn Permit>,
    ) -> Result<RemoteAddr<A>, RegisterError> {
        self.register_actor(name, addr, Some(permit))
    }

    fn register_actor<A: RemoteActor>(
        &self,
        name: &str,
        addr: Addr<A>,
        permit: Option<Arc<dyn Permit>>,
    ) -> Result<RemoteAddr<A>, RegisterError> {
        let routes = Routes::of()?;
        self.know(&routes.known().collect::<Vec<_>>())?;
        let here: Arc<dyn Any + Send + Sync> = Arc::new(addr.clone());
        let registered = Registered(Inbox::new(addr.clone(), routes, permit, self));
        self.0.names.bound(name, Arc::new(registered), Some(here))?;
        self.renamed();
        Ok(RemoteAddr::new(self.place(self.id().clone(), name), Some(addr)))
    }

    /// Takes a name back, and every membership with it. An actor supervised under that name goes
    /// on.
    pub fn unregister(&self, name: &str) {
        self.0.names.unbind(name, None);
        self.renamed();
    }

    /// The name of this node's own that a number stands for; the number itself if there is none.
    pub(crate) fn name_behind(&self, target: u64) -> String {
        self.0.names.name(target).unwrap_or_else(|| format!("{target:016x}"))
    }

    /// The group called `name`, of actors of type `A` on any nodes.
    pub fn group<A: RemoteActor>(&self, name: &str) -> Group<A> {
        Group::new(self.clone(), name)
    }

    pub(crate) fn join_group(&self, member: &str, group: &str) -> Result<(), JoinError> {
        self.0.names.join(member, group)?;
        self.renamed();
        Ok(())
    }

    pub(crate) fn leave_group(&self, member: &str, group: &str) -> bool {
        let left = self.0.names.leave(member, group);
        self.renamed();
        left
    }

    /// Another number after every change of a membership anywhere.
    pub(crate) fn groups_version(&self) -> u64 {
        self.0.names.groups_version().wrapping_add(self.0.groups_version.load(SeqCst))
    }

    /// The members of a group, by name of node and actor.
    pub(crate) fn group_members<A: RemoteActor>(&self, group: &str) -> Vec<RemoteAddr<A>> {
        let here =
            self.0.names.members::<A>(group).into_iter().map(|(name, addr)| {
                RemoteAddr::new(self.place(self.id().clone(), &name), Some(addr))
            });
        let mut members: Vec<_> = here.collect();
        let copies = lock(&self.0.copies);
        members.extend(
            copies
                .members(group, A::NAME)
                .map(|(node, name)| RemoteAddr::new(self.place(node.clone(), name), None)),
        );
        members.sort_by(|a, b| (&a.node().name, a.name()).cmp(&(&b.node().name, b.name())));
        members
    }

    /// Names changed: the others hear of it, and whoever watched them.
    pub(super) fn renamed(&self) {
        self.0.renamed.notify_one();
        self.tell_ended();
    }

    /// Lets `route` take the frames that come for `name`, until the binding is dropped.
    ///
    /// # Errors
    /// When the name is taken; nothing was changed.
    pub fn bind(&self, name: &str, route: Arc<dyn Deliver>) -> Result<Binding, RegisterError> {
        let serial = self.0.names.bound(name, route, None)?;
        self.renamed();
        Ok(Binding::new(self.clone(), name.to_owned(), serial))
    }

    pub(crate) fn unbind(&self, name: &str, serial: u64) {
        self.0.names.unbind(name, Some(serial));
        self.renamed();
    }

    /// Shows the epoch the role of that name acts in, to whoever looks at the registry.
    pub fn set_epoch(&self, name: &str, epoch: Option<u64>) {
        self.0.names.set_epoch(name, epoch);
        self.0.renamed.notify_one();
    }

    /// The address of the actor called `name`: on this node, or else on the first, by name, of the
    /// linked nodes that have one. It takes a moment until a new name is known elsewhere.
    ///
    /// # Errors
    /// When nobody has that name, or it is another kind of actor.
    pub fn lookup<A: RemoteActor>(&self, name: &str) -> Result<RemoteAddr<A>, LookupError> {
        self.know_kind::<A>();
        if let Some(addr) = self.local(name) {
            return Ok(RemoteAddr::new(self.place(self.id().clone(), name), Some(addr)));
        }
        let copies = lock(&self.0.copies);
        let (node, row) = copies.find(name).ok_or_else(|| LookupError::Unknown(name.to_owned()))?;
        if row.kind == A::NAME {
            Ok(RemoteAddr::new(self.place(node.clone(), name), None))
        } else {
            let found = row.kind.clone();
            Err(LookupError::Kind { name: name.to_owned(), found, wanted: A::NAME })
        }
    }

    /// The address of `name` on `node`, whether or not anybody has that name there yet.
    pub fn address<A: RemoteActor>(&self, node: NodeId, name: &str) -> RemoteAddr<A> {
        self.know_kind::<A>();
        let here = if node == *self.id() { self.local(name) } else { None };
        RemoteAddr::new(self.place(node, name), here)
    }

    /// Whatever takes `M` under `name` on `node`, whether or not anybody has that name there yet.
    pub fn recipient<M: RemoteMessage>(&self, node: NodeId, name: &str) -> RemoteRecipient<M> {
        self.know_sent(KnownMessage::of::<M>());
        let here = if node == *self.id() { self.local_recipient(name) } else { None };
        RemoteRecipient::new(self.place(node, name), here)
    }

    /// What takes `M` under that name on this node.
    pub(crate) fn local_recipient<M: RemoteMessage>(&self, name: &str) -> Option<Recipient<M>> {
        self.0.names.recipient(name)
    }

    /// The proxy for `M` to `target` on `node`: the one that is in use, or a new one.
    pub(crate) fn proxy<M: RemoteMessage>(
        &self,
        node: &NodeId,
        target: u64,
        new: impl FnOnce() -> Proxy<M>,
    ) -> Recipient<M> {
        let mut proxies = lock(&self.0.proxies);
        let key = (node.clone(), target, name_hash(M::NAME));
        let in_use = proxies.get(&key).and_then(|any| any.downcast_ref::<WeakRecipient<M>>());
        if let Some(proxy) = in_use.and_then(WeakRecipient::upgrade).filter(Recipient::connected) {
            return proxy;
        }
        let context = Context::new();
        let proxy = context.address().recipient();
        proxies.insert(key.clone(), Box::new(proxy.downgrade()));
        let (lives, node) = (context.into_future(new()), Arc::downgrade(&self.0));
        // A task of the node, so that a crash takes it along.
        self.task(async move {
            lives.await;
            let Some(node) = Self::upgrade(&node) else { return };
            let mut proxies = lock(&node.0.proxies);
            let heir = proxies.get(&key).and_then(|any| any.downcast_ref::<WeakRecipient<M>>());
            if heir.and_then(WeakRecipient::upgrade).is_none() {
                proxies.remove(&key);
            }
        });
        proxy
    }

    fn place(&self, node: NodeId, name: &str) -> Place {
        Place::new(node, name, Some(self.clone()))
    }

    /// The actor of that name and type on this node, supervised or registered.
    pub fn local<A: Actor>(&self, name: &str) -> Option<Addr<A>> {
        self.0.names.addr(name)
    }

    /// All names this node knows, its own and those of all linked nodes, by name and node.
    pub fn registry(&self) -> Vec<RegistryEntry> {
        let mut all: Vec<_> = entries(self.name(), &self.0.names.rows()).collect();
        all.extend(lock(&self.0.copies).entries());
        all.sort_by(|a, b| (&a.name, &a.node).cmp(&(&b.name, &b.node)));
        all
    }

    /// Tells a new peer all our names; before them the messages, of which there may be more by
    /// now than in our hello.
    pub(super) fn introduce(&self, peer: &NodeId) {
        let messages = self.0.forms.fingerprints();
        if !messages.is_empty() {
            self.tell_news(peer, &News::Messages(messages));
        }
        let news = lock(&self.0.published).full();
        self.tell_news(peer, &news);
    }

    /// Takes what a peer tells of its names.
    pub(super) fn take_news(&self, from: &NodeId, frame: &Frame) {
        match decode::<News>(&frame.body) {
            Ok(News::Again) => self.introduce(from),
            Ok(News::Messages(messages)) => self.0.forms.told(&from.name, &messages),
            Ok(news) => {
                // Bound first: the lock must not be held while others are told.
                let taken = lock(&self.0.copies).take(from, news);
                match taken {
                    Taken::Good { groups: false } => {}
                    Taken::Good { groups: true } => {
                        self.0.groups_version.fetch_add(1, SeqCst);
                    }
                    Taken::Gap => self.tell_news(from, &News::Again),
                    Taken::Refused => {
                        tracing::debug!(%from, "names of a node that was replaced");
                        self.lose_frame(from, &frame.header, "dead_incarnation");
                    }
                }
            }
            Err(error) => {
                tracing::warn!(%from, %error, "names that cannot be read");
                self.lose_frame(from, &frame.header, "codec");
            }
        }
    }

    fn publish(&self, confirm: bool) {
        let rows = self.0.names.rows();
        self.tell_ended();
        let (news, changed) = lock(&self.0.published).update(rows);
        if changed || confirm {
            for peer in self.peers_up() {
                self.tell_news(&peer.id, &news);
            }
        }
    }

    pub(super) fn tell_news(&self, peer: &NodeId, news: &News) {
        let body = encode(news).expect("texts and numbers always encode");
        let header = FrameHeader::new(FrameKind::Directory);
        // A loss shows as a gap at the next change or confirmation.
        if let Err(error) = self.links().send(&peer.name, Lane::Control, &header, &body) {
            tracing::debug!(%peer, %error, "names were not sent");
        }
    }
}

/// Tells the others of changed names, as long as the node lives.
pub(super) async fn spread(node: Weak<Inner>, renamed: Arc<Notify>) {
    let mut looks = 0;
    loop {
        // A name that was bound is told at once; what changes by itself, at the next look.
        let timed_out = tokio::time::timeout(LOOK_OVER, renamed.notified()).await.is_err();
        // Not held while waiting: this task must not keep the node.
        let Some(node) = Node::upgrade(&node) else { return };
        looks += u32::from(timed_out);
        let confirm = looks >= CONFIRM_EVERY;
        if confirm {
            looks = 0;
        }
        node.publish(confirm);
    }
}
