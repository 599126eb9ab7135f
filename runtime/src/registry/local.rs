//! The names of this node.

use std::{
    any::Any,
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use actix::{Actor, Addr};
use dashmap::{DashMap, Entry as Slot};
use rustc_hash::FxBuildHasher;

use super::{ACTOR_NAME_BYTES_MAX, Deliver, NAMES_LEN_MAX, RegisterError, directory::Row};
use crate::{supervision::Control, wire::name_hash};

/// The names of this node, by their number on the wire. Never locked while anything is called.
#[derive(Default)]
pub(crate) struct Local {
    entries: DashMap<u64, Entry, FxBuildHasher>,
    serials: AtomicU64,
}

/// One name: an actor that is supervised under it, something that takes frames for it, or both.
#[derive(Default)]
struct Entry {
    name: String,
    spawned: Option<Spawned>,
    bound: Option<Bound>,
    epoch: Option<u64>,
}

pub(crate) struct Spawned {
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
    pub(crate) fn spawned(&self, name: &str, spawned: Spawned) -> Result<(), RegisterError> {
        self.change(name, |entry| {
            entry.check_free(entry.spawned.is_some())?;
            entry.spawned = Some(spawned);
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
        self.change(name, |entry| {
            entry.check_free(entry.bound.as_ref().is_some_and(|bound| bound.route.alive()))?;
            entry.bound = Some(Bound { route, addr, serial });
            Ok(())
        })?;
        Ok(serial)
    }

    /// Undoes the binding of that serial, or whatever is bound with `None`.
    pub(crate) fn unbind(&self, name: &str, serial: Option<u64>) {
        self.shrink(name, |entry| {
            if serial.is_none() || entry.bound.as_ref().map(|bound| bound.serial) == serial {
                entry.bound = None;
            }
        });
    }

    /// The supervised actor of that name is gone for good.
    pub(crate) fn retired(&self, name: &str) {
        self.shrink(name, |entry| entry.spawned = None);
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
        self.entries.retain(|_, entry| {
            entry.bound.take_if(|bound| !bound.route.alive());
            !entry.is_empty()
        });
        self.entries.iter().map(|entry| (entry.name.clone(), entry.row())).collect()
    }

    fn change(
        &self,
        name: &str,
        change: impl FnOnce(&mut Entry) -> Result<(), RegisterError>,
    ) -> Result<(), RegisterError> {
        if name.is_empty() || name.len() > ACTOR_NAME_BYTES_MAX {
            return Err(RegisterError::Length(name.len()));
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
                change(&mut entry)?;
                slot.insert(entry);
                Ok(())
            }
        }
    }

    fn shrink(&self, name: &str, change: impl FnOnce(&mut Entry)) {
        let mut removed = None;
        if let Slot::Occupied(mut entry) = self.entries.entry(name_hash(name)) {
            if entry.get().name == name {
                change(entry.get_mut());
            }
            if entry.get().is_empty() {
                removed = Some(entry.remove());
            }
        }
        // Dropped with no shard locked: an address that goes may run code.
        drop(removed);
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
        }
    }
}
