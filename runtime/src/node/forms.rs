//! Which messages this node knows, and which of them its peers would misread.
//!
//! A node tells its peers the forms of all messages it takes or sends: in its hello, and again
//! whenever it learns of more. Both sides compare; what one would misread of the other is refused
//! by its name on both sides, and everything else goes on.

use std::{
    any::TypeId,
    collections::{BTreeMap, BTreeSet},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use rustc_hash::FxHashSet;
use serde::Serialize;

use super::{Node, lock};
use crate::{
    address::SendError,
    identity::{NodeId, NodeName},
    message::{Fingerprint, KnownMessage, RemoteActor, RemoteMessage, Routes},
    registry::{RegisterError, directory::News},
    wire::{MESSAGES_BYTES_MAX, name_hash},
};

/// A message that this node and a peer know in forms that do not go together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Incompatible {
    /// The peer.
    pub peer: NodeName,
    /// The message's name.
    pub message: String,
    /// Whether it cannot be sent to the peer.
    pub send: bool,
    /// Whether it is not taken from the peer.
    pub take: bool,
    /// What differs, for people.
    pub why: String,
}

/// What is known of messages, here and at the peers.
#[derive(Default)]
pub(super) struct Forms {
    tables: Mutex<Tables>,
    /// Messages refused to or from anybody: while there are none, nothing needs to be looked up.
    refused: AtomicUsize,
}

#[derive(Default)]
struct Tables {
    /// Kinds of actors whose messages were looked at.
    kinds: FxHashSet<TypeId>,
    known: BTreeMap<u64, (KnownMessage, Fingerprint)>,
    /// What the fingerprints of all these take in a frame.
    known_bytes: usize,
    /// Types that look like another one on the wire: never sent.
    doubled: FxHashSet<TypeId>,
    /// What each linked peer told.
    told: BTreeMap<NodeName, BTreeMap<u64, Fingerprint>>,
    /// By peer and message.
    refused: BTreeMap<(NodeName, u64), Incompatible>,
}

impl Forms {
    /// Notes messages; answers whether there was a new one.
    ///
    /// # Errors
    /// When one has the name or the number of another type's, or there are too many. Then none
    /// was noted.
    pub(super) fn know(&self, messages: &[KnownMessage]) -> Result<bool, RegisterError> {
        let mut tables = lock(&self.tables);
        let mut new = BTreeMap::new();
        for message in messages {
            let number = name_hash(message.name);
            let before = tables.known.get(&number).or_else(|| new.get(&number));
            if let Some((before, _)) = before {
                before.check(*message)?;
            } else {
                new.insert(number, (*message, message.schema.fingerprint(message.name)));
            }
        }
        let bytes: usize = new.values().map(|(_, print)| print.bytes_max()).sum();
        if tables.known_bytes + bytes > MESSAGES_BYTES_MAX {
            return Err(RegisterError::TooManyMessages);
        }
        let any = !new.is_empty();
        tables.known_bytes += bytes;
        tables.known.extend(new);
        if any {
            let peers: Vec<_> = tables.told.keys().cloned().collect();
            for peer in peers {
                tables.judge(&peer);
            }
            self.count(&tables);
        }
        Ok(any)
    }

    /// What to tell other nodes.
    pub(super) fn fingerprints(&self) -> Vec<Fingerprint> {
        lock(&self.tables).known.values().map(|(_, print)| print.clone()).collect()
    }

    /// Takes what a peer tells of all the messages it knows.
    pub(super) fn told(&self, peer: &NodeName, messages: &[Fingerprint]) {
        let mut tables = lock(&self.tables);
        let told = messages.iter().map(|print| (name_hash(&print.name), print.clone())).collect();
        tables.told.insert(peer.clone(), told);
        tables.judge(peer);
        self.count(&tables);
    }

    /// The link to `peer` is gone; another build may come back.
    pub(super) fn forget(&self, peer: &NodeName) {
        let mut tables = lock(&self.tables);
        tables.told.remove(peer);
        tables.refused.retain(|(of, _), _| of != peer);
        self.count(&tables);
    }

    pub(super) fn refused(&self) -> Vec<Incompatible> {
        let mut all: Vec<_> = lock(&self.tables).refused.values().cloned().collect();
        all.sort_by(|a, b| (&a.peer, &a.message).cmp(&(&b.peer, &b.message)));
        all
    }

    /// The name of a message that is known here.
    pub(super) fn message_name(&self, number: u64) -> Option<&'static str> {
        lock(&self.tables).known.get(&number).map(|(known, _)| known.name)
    }

    fn may_send(&self, message: TypeId, number: u64, to: &NodeName) -> bool {
        if self.refused.load(Relaxed) == 0 {
            return true;
        }
        let tables = lock(&self.tables);
        let refused = tables.refused.get(&(to.clone(), number)).is_some_and(|one| one.send);
        !refused && !tables.doubled.contains(&message)
    }

    fn may_take(&self, number: u64, from: &NodeName) -> Result<(), String> {
        if self.refused.load(Relaxed) == 0 {
            return Ok(());
        }
        match lock(&self.tables).refused.get(&(from.clone(), number)) {
            Some(refused) if refused.take => Err(refused.message.clone()),
            Some(_) | None => Ok(()),
        }
    }

    fn count(&self, tables: &Tables) {
        self.refused.store(tables.refused.len() + tables.doubled.len(), Relaxed);
    }
}

impl Tables {
    /// Compares all that both know; says what is new in it.
    fn judge(&mut self, peer: &NodeName) {
        let Some(told) = self.told.get(peer) else { return };
        let mut numbers = BTreeSet::new();
        for (&number, theirs) in told {
            let Some((known, mine)) = self.known.get(&number) else { continue };
            let Some(found) = judge(peer, *known, mine, theirs) else { continue };
            numbers.insert(number);
            let key = (peer.clone(), number);
            if self.refused.get(&key) != Some(&found) {
                let Incompatible { message, why, send, take, .. } = &found;
                tracing::warn!(
                    %peer, message, why, send, take,
                    "a message has another form at the peer and is refused; the link stays"
                );
                self.refused.insert(key, found);
            }
        }
        self.refused.retain(|(of, number), _| of != peer || numbers.contains(number));
    }
}

/// One message of both sides; `None` when they go together.
fn judge(
    peer: &NodeName,
    known: KnownMessage,
    mine: &Fingerprint,
    theirs: &Fingerprint,
) -> Option<Incompatible> {
    let (send, take, why) = if mine.name == theirs.name {
        let (send, take) = (mine.check(theirs), theirs.check(mine));
        let mismatch = send.and(take).err()?;
        (send.is_err(), take.is_err(), known.schema.explain(mismatch))
    } else {
        // Two names of one number: each build alone cannot see it.
        (true, true, format!("the peer's {} has the same number on the wire", theirs.name))
    };
    let message = mine.name.clone();
    Some(Incompatible { peer: peer.clone(), message, send, take, why })
}

impl Node {
    /// Messages that this node and one of its linked peers know in forms that do not go together,
    /// by peer and name. They are refused as [`SendError::Incompatible`], before anything is sent.
    pub fn incompatible(&self) -> Vec<Incompatible> {
        self.0.forms.refused()
    }

    /// Notes messages and tells the peers.
    pub(super) fn know(&self, messages: &[KnownMessage]) -> Result<(), RegisterError> {
        if self.0.forms.know(messages)? {
            // Before any name that leads to an actor that takes them: same lane, in order.
            let all = self.0.forms.fingerprints();
            self.links().tell_messages(all.clone());
            for peer in self.peers_up() {
                self.tell_news(&peer.id, &News::Messages(all.clone()));
            }
        }
        Ok(())
    }

    /// Notes the messages that may be sent to an address of `A`. One that cannot be told from
    /// another is never sent; who registers such an actor is refused.
    pub(super) fn know_kind<A: RemoteActor>(&self) {
        if !lock(&self.0.forms.tables).kinds.insert(TypeId::of::<A>()) {
            return;
        }
        let all = Routes::<A>::of().map(|routes| routes.known().collect::<Vec<_>>());
        let messages = match all {
            Ok(messages) => messages,
            Err(error) => return tracing::error!(actor = A::NAME, %error, "two messages in one"),
        };
        for message in messages {
            self.know_sent(message);
        }
    }

    /// Notes a message that may be sent.
    pub(super) fn know_sent(&self, message: KnownMessage) {
        if let Err(error) = self.know(&[message]) {
            tracing::error!(message = message.name, %error, "never sent");
            let mut tables = lock(&self.0.forms.tables);
            tables.doubled.insert(message.type_id);
            self.0.forms.count(&tables);
        }
    }

    /// Whether `to` reads `M` as this build writes it, as far as known: not run otherwise.
    pub(crate) fn check_form<M: RemoteMessage>(&self, to: &NodeName) -> Result<(), SendError> {
        if self.0.forms.may_send(TypeId::of::<M>(), name_hash(M::NAME), to) {
            Ok(())
        } else {
            Err(SendError::Incompatible { name: M::NAME.to_owned() })
        }
    }

    /// Whether this build reads the message as `from` writes it, as far as known.
    pub(crate) fn check_taken(&self, from: &NodeId, message: u64) -> Result<(), SendError> {
        let taken = self.0.forms.may_take(message, &from.name);
        taken.map_err(|name| SendError::Incompatible { name })
    }
}
