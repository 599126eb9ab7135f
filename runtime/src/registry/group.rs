//! Groups: actors on any nodes under one name, to tell all of them or to choose one.
//!
//! A membership stands in the directory entry of its actor, which only the actor's own node
//! writes: it is versioned with the entry, bound to the node's incarnation, and gone at once with
//! the actor, the link or the node. Every node chooses from its own copy, without asking anybody;
//! for a moment two nodes may see different members.

use std::{
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use actix::{Handler, dev::ToEnvelope};

use super::ACTOR_NAME_BYTES_MAX;
use crate::{
    address::RemoteAddr,
    message::{RemoteActor, RemoteMessage},
    node::Node,
};

/// All actors of type `A` that joined one name, on this node and on those it is linked to.
/// Cloning is cheap, and clones share their turn in [`Group::round_robin`].
///
/// ```
/// use std::time::Duration;
///
/// use actix::{Actor, Context, Handler, Message};
/// use serde::{Deserialize, Serialize};
/// use synod_runtime::{
///     identity::Incarnation,
///     message::{RemoteActor, RemoteMessage},
///     node::{Node, NodeConfig},
///     sim::Simulation,
/// };
///
/// #[derive(Clone, Message, Serialize, Deserialize, RemoteMessage)]
/// #[rtype(result = "u32")]
/// #[remote(name = "double", crate = "synod_runtime")]
/// struct Double(u32);
///
/// #[derive(RemoteActor)]
/// #[remote(name = "worker", handles(Double), crate = "synod_runtime")]
/// struct Worker;
///
/// impl Actor for Worker {
///     type Context = Context<Self>;
/// }
///
/// impl Handler<Double> for Worker {
///     type Result = u32;
///
///     fn handle(&mut self, double: Double, _: &mut Context<Self>) -> u32 {
///         2 * double.0
///     }
/// }
///
/// Simulation::new(1).run(|sim| async move {
///     let start = |name: &str| {
///         let name = name.parse().unwrap();
///         let cluster = "demo".parse().unwrap();
///         let node = NodeConfig::new(cluster, name, Incarnation(1));
///         Node::start(sim.world(&node.name), node).unwrap()
///     };
///     let (a, b) = (start("a"), start("b"));
///     a.links().connect(b.name(), &sim.address(b.name()));
///     let workers = b.group::<Worker>("workers");
///     for name in ["worker/1", "worker/2"] {
///         let addr = b.register(name, b.spawn(name, || Worker)).unwrap();
///         workers.join(&addr).unwrap();
///     }
///     tokio::time::sleep(Duration::from_secs(1)).await;
///
///     let workers = a.group::<Worker>("workers");
///     assert_eq!(workers.members().len(), 2);
///     assert_eq!(workers.round_robin().unwrap().send(Double(21)).await, Ok(42));
///     assert_eq!(workers.for_key("ann"), workers.for_key("ann"));
///     assert_eq!(workers.broadcast(&Double(1)), 2);
/// });
/// ```
pub struct Group<A: RemoteActor>(Arc<Inner<A>>);

struct Inner<A: RemoteActor> {
    node: Node,
    name: String,
    turn: AtomicUsize,
    /// With the version of the memberships it was collected at.
    members: Mutex<(u64, Arc<[RemoteAddr<A>]>)>,
}

/// Why an actor could not join a group. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JoinError {
    /// Only an actor's own node can let it join.
    #[error("{name} is not on this node: its own node must let it join")]
    Elsewhere {
        /// The actor.
        name: String,
    },
    /// Others could not send to it.
    #[error("{0} is not registered")]
    NotRegistered(String),
    /// The group's name is empty or too long.
    #[error("a group's name has 1 to {ACTOR_NAME_BYTES_MAX} bytes, not {0}")]
    Length(usize),
    /// This node has [`MEMBERSHIPS_LEN_MAX`](super::MEMBERSHIPS_LEN_MAX) memberships.
    #[error("this node has no room for more memberships")]
    Full,
}

impl<A: RemoteActor> Group<A> {
    pub(crate) fn new(node: Node, name: &str) -> Self {
        // No version is the highest, so that the first look collects.
        let members = Mutex::new((u64::MAX, Arc::default()));
        Self(Arc::new(Inner { node, name: name.to_owned(), turn: AtomicUsize::new(0), members }))
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Makes an actor of this node a member, until it leaves, ends or is unregistered. Joining
    /// again changes nothing.
    ///
    /// # Errors
    /// See [`JoinError`]; nothing was changed.
    pub fn join(&self, member: &RemoteAddr<A>) -> Result<(), JoinError> {
        if member.node() != self.0.node.id() {
            return Err(JoinError::Elsewhere { name: member.name().to_owned() });
        }
        self.0.node.join_group(member.name(), &self.0.name)
    }

    /// Ends the membership of an actor of this node; answers whether there was one.
    pub fn leave(&self, member: &RemoteAddr<A>) -> bool {
        member.node() == self.0.node.id() && self.0.node.leave_group(member.name(), &self.0.name)
    }

    /// All members, by name of node and actor.
    pub fn members(&self) -> Arc<[RemoteAddr<A>]> {
        let version = self.0.node.groups_version();
        let mut known = self.0.members.lock().unwrap_or_else(PoisonError::into_inner);
        if known.0 != version {
            *known = (version, self.0.node.group_members(&self.0.name).into());
        }
        Arc::clone(&known.1)
    }

    /// Tells every member; answers how many were told. A message that cannot be sent to one is
    /// counted as a dead letter.
    pub fn broadcast<M>(&self, message: &M) -> usize
    where
        M: RemoteMessage + Clone,
        A: Handler<M>,
        A::Context: ToEnvelope<A, M>,
    {
        let members = self.members();
        for member in &*members {
            member.do_send(message.clone());
        }
        members.len()
    }

    /// The member whose turn it is, if there is any.
    pub fn round_robin(&self) -> Option<RemoteAddr<A>> {
        let members = self.members();
        let turn = self.0.turn.fetch_add(1, Relaxed);
        members.get(turn.checked_rem(members.len())?).cloned()
    }

    /// The member that `key` belongs to, if there is any: every node that sees the same members
    /// chooses the same, and a member that comes or goes moves only the keys it gains or had
    /// (rendezvous hashing).
    pub fn for_key(&self, key: impl AsRef<[u8]>) -> Option<RemoteAddr<A>> {
        let key = key.as_ref();
        let weight = |member: &RemoteAddr<A>| {
            let parts = [member.node().name.as_str().as_bytes(), member.name().as_bytes(), key];
            rendezvous(&parts)
        };
        self.members().iter().max_by_key(|member| weight(member)).cloned()
    }
}

impl<A: RemoteActor> Clone for Group<A> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<A: RemoteActor> fmt::Debug for Group<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Group").field(&self.0.name).finish()
    }
}

/// Equal on all nodes and builds: FNV-1a over the parts, each closed by a byte that no name has,
/// then stirred, since FNV alone leaves the high bits to the first bytes.
fn rendezvous(parts: &[&[u8]]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for part in parts {
        for byte in part.iter().chain(&[0xff]) {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_spread_evenly_and_move_only_with_their_member() {
        let choose = |members: &[String], key: u32| {
            let weigh =
                |member: &&String| rendezvous(&[b"a", member.as_bytes(), &key.to_le_bytes()]);
            members.iter().max_by_key(weigh).unwrap().clone()
        };
        let members: Vec<String> = (0..5).map(|number| format!("worker/{number}")).collect();
        let before: Vec<_> = (0..10_000).map(|key| choose(&members, key)).collect();
        for member in &members {
            let keys = before.iter().filter(|chosen| *chosen == member).count();
            assert!((1_800..2_200).contains(&keys), "{member}: {keys} of 10000");
        }
        for (key, before) in (0..10_000).zip(&before) {
            let after = choose(&members[1..], key);
            assert!(*before == after || *before == members[0], "{key}: {before} to {after}");
        }
    }
}
