//! The names of this node.

use std::{
    any::Any,
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{
            AtomicU64, AtomicUsize,
            Ordering::{Relaxed, SeqCst},
        },
    },
};

use actix::{Actor, Addr, Recipient};
use dashmap::{DashMap, Entry as Slot};
use rustc_hash::FxBuildHasher;

use super::{
    ACTOR_NAME_BYTES_MAX, Deliver, MEMBERSHIPS_LEN_MAX, NAMES_LEN_MAX, RESERVED, RegisterError,
    directory::Row, group::JoinError, watch::Reason,
};
use crate::{message::RemoteMessage, supervision::Control, wire::name_hash};

/// The names of this node, by their number on the wire. Never locked while anything is called or an
/// address is dropped: the last one ends an actor, which may retire others, by these same locks.
#[derive(Default)]
pub(crate) struct Local {
    entries: DashMap<u64, Entry, FxBuildHasher>,
    serials: AtomicU64,
    /// Lives that are over and not told to their watchers yet.
    ended: Mutex<Vec<(u64, Reason)>>,
    memberships: AtomicUsize,
    /// Moves with every change of a membership here.
    groups_version: AtomicU64,
}

/// One name: an actor that is supervised under it, something that takes frames for it, or both.
#[derive(Default)]
struct Entry {
    name: String,
    spawned: Option<Spawned>,
    bound: Option<Bound>,
    epoch: Option<u64>,
    groups: BTreeSet<String>,
}

pub(crate) struct Spawned {
    /// Which life this is; given by [`Local::spawned`].
    pub(crate) serial: u64,
    pub(crate) control: Arc<Control>,
    pub(crate) kind: &'static str,
    /// Its `Addr`: named actors live until they are stopped.
    pub(crate) addr: Arc<dyn Any + Send + Sync>,
}

struct Bound {
    route: Arc<dyn Deliver>,
    /// The `Addr` behind it, if it is an actor that was registered.
    addr: Option<Arc<dyn Any + Send + Sync>>,
    serial: u64,
}

impl Local {
    /// Names a supervised actor.
    pub(crate) fn spawned(&self, name: &str, mut spawned: Spawned) -> Result<(), RegisterError> {
        spawned.serial = self.serials.fetch_add(1, Relaxed);
        let mut spawned = Some(spawned);
        self.change(name, |entry| {
            entry.check_free(entry.spawned.is_some())?;
            entry.spawned = spawned.take();
            Ok(())
        })
    }

    /// Binds a name; answers the serial of the binding.
    pub(crate) fn bound(
        &self,
        name: &str,
        route: Arc<dyn Deliver>,
        addr: Option<Arc<dyn Any + Send + Sync>>,
    ) -> Result<u64, RegisterError> {
        let serial = self.serials.fetch_add(1, Relaxed);
        let mut bound = Some(Bound { route, addr, serial });
        let dead = self.change(name, |entry| {
            entry.check_free(entry.bound.as_ref().is_some_and(|bound| bound.route.alive()))?;
            Ok(std::mem::replace(&mut entry.bound, bound.take()))
        })?;
        if let Some(dead) = dead {
            self.note_end(dead.serial, Reason::Stopped);
        }
        Ok(serial)
    }

    /// Undoes the binding of that serial, or whatever is bound with `None`.
    pub(crate) fn unbind(&self, name: &str, serial: Option<u64>) {
        let bound = self.shrink(name, |entry| {
            if serial.is_some() && entry.bound.as_ref().map(|bound| bound.serial) != serial {
                return None;
            }
            self.leave_all(entry);
            entry.bound.take()
        });
        if let Some(bound) = bound {
            self.note_end(bound.serial, Reason::Unregistered);
        }
    }

    /// The supervised actor of that name is gone for good.
    pub(crate) fn retired(&self, name: &str, reason: Reason) {
        let spawned = self.shrink(name, |entry| {
            self.leave_all(entry);
            entry.spawned.take()
        });
        if let Some(spawned) = spawned {
            self.note_end(spawned.serial, reason);
        }
    }

    /// The life that has a name now.
    pub(crate) fn life(&self, name: &str) -> Option<u64> {
        let entry = self.entries.get(&name_hash(name)).filter(|entry| entry.name == name)?;
        let bound = entry.bound.as_ref().filter(|bound| bound.route.alive());
        let spawned = entry.spawned.as_ref().map(|spawned| spawned.serial);
        spawned.or_else(|| bound.map(|bound| bound.serial))
    }

    /// Whether a life goes on under a name.
    pub(crate) fn lives(&self, name: &str, life: u64) -> bool {
        let Some(entry) = self.entries.get(&name_hash(name)) else { return false };
        let bound = entry.bound.as_ref().map(|bound| bound.serial);
        let spawned = entry.spawned.as_ref().map(|spawned| spawned.serial);
        [spawned, bound].contains(&Some(life))
    }

    /// The lives that are over since the last call.
    pub(crate) fn take_ended(&self) -> Vec<(u64, Reason)> {
        std::mem::take(&mut self.ended.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn note_end(&self, life: u64, reason: Reason) {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner).push((life, reason));
    }

    /// Makes the actor that is registered under a name a member of a group.
    pub(crate) fn join(&self, name: &str, group: &str) -> Result<(), JoinError> {
        if group.is_empty() || group.len() > ACTOR_NAME_BYTES_MAX {
            return Err(JoinError::Length(group.len()));
        }
        let mut entry = self.entries.get_mut(&name_hash(name)).filter(|entry| entry.name == name);
        let Some(entry) = entry.as_mut().filter(|entry| entry.bound.is_some()) else {
            return Err(JoinError::NotRegistered(name.to_owned()));
        };
        if entry.groups.contains(group) {
            return Ok(());
        }
        if self.memberships.fetch_add(1, SeqCst) >= MEMBERSHIPS_LEN_MAX {
            self.memberships.fetch_sub(1, SeqCst);
            return Err(JoinError::Full);
        }
        entry.groups.insert(group.to_owned());
        self.groups_version.fetch_add(1, SeqCst);
        Ok(())
    }

    /// Ends a membership; answers whether there was one.
    pub(crate) fn leave(&self, name: &str, group: &str) -> bool {
        let entry = self.entries.get_mut(&name_hash(name)).filter(|entry| entry.name == name);
        let left = entry.is_some_and(|mut entry| entry.groups.remove(group));
        if left {
            self.memberships.fetch_sub(1, SeqCst);
            self.groups_version.fetch_add(1, SeqCst);
        }
        left
    }

    fn leave_all(&self, entry: &mut Entry) {
        let left = std::mem::take(&mut entry.groups);
        if !left.is_empty() {
            self.memberships.fetch_sub(left.len(), SeqCst);
            self.groups_version.fetch_add(1, SeqCst);
        }
    }

    /// Ends all memberships of this node.
    pub(crate) fn leave_all_groups(&self) {
        for mut entry in self.entries.iter_mut() {
            self.leave_all(&mut entry);
        }
    }

    /// The supervised actors and trees of this node.
    pub(crate) fn spawned_names(&self) -> Vec<String> {
        let spawned = self.entries.iter().filter(|entry| entry.spawned.is_some());
        let mut names: Vec<_> = spawned.map(|entry| entry.name.clone()).collect();
        names.sort();
        names
    }

    /// Gives all names of this node back.
    pub(crate) fn unbind_all(&self) {
        let mut names: Vec<_> = self.entries.iter().map(|entry| entry.name.clone()).collect();
        names.sort();
        for name in names {
            self.unbind(&name, None);
        }
    }

    /// Moves with every change of a membership here.
    pub(crate) fn groups_version(&self) -> u64 {
        self.groups_version.load(SeqCst)
    }

    /// The members of a group here that are actors of type `A`, in no order.
    pub(crate) fn members<A: Actor>(&self, group: &str) -> Vec<(String, Addr<A>)> {
        let members = self.entries.iter().filter(|entry| entry.groups.contains(group));
        let member = |entry: &Entry| {
            let addr = entry.bound.as_ref()?.addr.as_ref()?.downcast_ref::<Addr<A>>()?;
            Some((entry.name.clone(), addr.clone()))
        };
        members.filter_map(|entry| member(&entry)).collect()
    }

    pub(crate) fn set_epoch(&self, name: &str, epoch: Option<u64>) {
        if let Some(mut entry) = self.entries.get_mut(&name_hash(name)) {
            entry.epoch = epoch;
        }
    }

    /// Who takes frames for this target.
    pub(crate) fn route(&self, target: u64) -> Option<Arc<dyn Deliver>> {
        let entry = self.entries.get(&target)?;
        entry.bound.as_ref().map(|bound| Arc::clone(&bound.route))
    }

    /// The actor of that name and type.
    pub(crate) fn addr<A: Actor>(&self, name: &str) -> Option<Addr<A>> {
        let entry = self.entries.get(&name_hash(name))?;
        let bound = entry.bound.as_ref().and_then(|bound| bound.addr.as_ref());
        let spawned = entry.spawned.as_ref().map(|spawned| &spawned.addr);
        bound.or(spawned)?.downcast_ref::<Addr<A>>().cloned()
    }

    /// Whatever takes the message of that number under that name.
    pub(crate) fn recipient<M: RemoteMessage>(&self, name: &str) -> Option<Recipient<M>> {
        let route = self.route(name_hash(name))?;
        let recipient = route.recipient(name_hash(M::NAME))?;
        recipient.downcast::<Recipient<M>>().ok().map(|recipient| *recipient)
    }

    /// The name behind a number.
    pub(crate) fn name(&self, target: u64) -> Option<String> {
        self.entries.get(&target).map(|entry| entry.name.clone())
    }

    pub(crate) fn control(&self, name: &str) -> Option<Arc<Control>> {
        let entry = self.entries.get(&name_hash(name))?;
        entry.spawned.as_ref().map(|spawned| Arc::clone(&spawned.control))
    }

    pub(crate) fn controls(&self) -> Vec<Arc<Control>> {
        let spawned = self.entries.iter();
        spawned.filter_map(|entry| Some(Arc::clone(&entry.spawned.as_ref()?.control))).collect()
    }

    /// All names as they are now; names whose listener is gone are removed first.
    pub(crate) fn rows(&self) -> BTreeMap<String, Row> {
        let mut dead = Vec::new();
        self.entries.retain(|_, entry| {
            if let Some(bound) = entry.bound.take_if(|bound| !bound.route.alive()) {
                self.leave_all(entry);
                dead.push(bound);
            }
            !entry.is_empty()
        });
        for bound in dead {
            self.note_end(bound.serial, Reason::Stopped);
        }
        self.entries.iter().map(|entry| (entry.name.clone(), entry.row())).collect()
    }

    /// Changes an entry, or makes it; what `change` answers is to be dropped by the caller.
    fn change<T>(
        &self,
        name: &str,
        change: impl FnOnce(&mut Entry) -> Result<T, RegisterError>,
    ) -> Result<T, RegisterError> {
        if name.is_empty() || name.len() > ACTOR_NAME_BYTES_MAX {
            return Err(RegisterError::Length(name.len()));
        }
        if name.starts_with(RESERVED) {
            return Err(RegisterError::Reserved { name: name.to_owned() });
        }
        // Asked before the slot is held, since counting looks at every shard.
        let full = self.entries.len() >= NAMES_LEN_MAX;
        match self.entries.entry(name_hash(name)) {
            Slot::Occupied(entry) if entry.get().name != name => Err(RegisterError::Collision {
                name: name.to_owned(),
                other: entry.get().name.clone(),
            }),
            Slot::Occupied(mut entry) => change(entry.get_mut()),
            Slot::Vacant(_) if full => Err(RegisterError::Full { name: name.to_owned() }),
            Slot::Vacant(slot) => {
                let mut entry = Entry { name: name.to_owned(), ..Entry::default() };
                let answer = change(&mut entry)?;
                slot.insert(entry);
                Ok(answer)
            }
        }
    }

    /// Takes from an entry, which goes when nothing is left in it; what was taken is to be dropped by
    /// the caller.
    fn shrink<T>(&self, name: &str, take: impl FnOnce(&mut Entry) -> Option<T>) -> Option<T> {
        let Slot::Occupied(mut entry) = self.entries.entry(name_hash(name)) else { return None };
        let taken = if entry.get().name == name { take(entry.get_mut()) } else { None };
        if entry.get().is_empty() {
            entry.remove();
        }
        taken
    }
}

impl Entry {
    fn is_empty(&self) -> bool {
        self.spawned.is_none() && self.bound.is_none()
    }

    fn check_free(&self, taken: bool) -> Result<(), RegisterError> {
        if taken {
            let row = self.row();
            Err(RegisterError::Taken { name: self.name.clone(), kind: row.kind })
        } else {
            Ok(())
        }
    }

    fn row(&self) -> Row {
        let kind = match (&self.bound, &self.spawned) {
            (Some(bound), _) => bound.route.type_name(),
            (None, Some(spawned)) => spawned.kind,
            (None, None) => "",
        };
        let control = self.spawned.as_ref().map(|spawned| &spawned.control);
        // A supervised actor's mailbox is known better by its supervisor than by its route.
        let mailbox = match (control, &self.bound) {
            (Some(control), _) => control.waiting(),
            (None, Some(bound)) => bound.route.mailbox_len(),
            (None, None) => 0,
        };
        Row {
            kind: kind.to_owned(),
            epoch: self.epoch,
            restarts: control.map_or(0, |control| control.restarts()),
            mailbox: mailbox as u64,
            groups: self.groups.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{identity::NodeId, node::Node, wire::Frame};

    /// An address that retires a name when it goes, as the last address of an actor does that was
    /// the owner of others.
    struct Owner(Arc<Local>, Arc<Mutex<Vec<bool>>>);

    impl Drop for Owner {
        fn drop(&mut self) {
            self.1
                .lock()
                .unwrap()
                .push(self.0.entries.try_get_mut(&name_hash("owned")).is_locked());
        }
    }

    struct Nobody(bool);

    impl Deliver for Nobody {
        fn deliver(&self, _: &NodeId, _: Vec<Frame>, _: &Node) {}

        fn type_name(&self) -> &'static str {
            "nobody"
        }

        fn mailbox_len(&self) -> usize {
            0
        }

        fn alive(&self) -> bool {
            self.0
        }
    }

    #[test]
    fn an_address_that_goes_may_retire_others() {
        let (local, locked) = (Arc::new(Local::default()), Arc::new(Mutex::new(Vec::new())));
        let owner = || -> Option<Arc<dyn Any + Send + Sync>> {
            Some(Arc::new(Owner(Arc::clone(&local), Arc::clone(&locked))))
        };
        let bind = |alive| local.bound("owned", Arc::new(Nobody(alive)), owner());
        let serial = bind(false).unwrap();
        local.unbind("owned", Some(serial));
        bind(false).unwrap();
        bind(false).unwrap();
        assert!(local.rows().is_empty(), "nobody listens");
        bind(true).unwrap();
        bind(true).unwrap_err();
        local.unbind_all();
        assert_eq!(*locked.lock().unwrap(), [false; 5]);
        assert_eq!(local.take_ended().len(), 4);
    }
}
