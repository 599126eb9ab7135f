//! The shell of a node's election service.

use std::sync::{Arc, Weak};

use synod_runtime::{
    identity::{NodeId, NodeName},
    node::Node,
    registry::Deliver,
    wire::Frame,
};

use super::{super::site::role_policy, DEADLINE_DEFAULT, Elections, Inner, lock};
use crate::{
    effects::{Letter, ShelfTask, Truncate},
    election::{
        message::Change,
        service::{Ended, Event, Failed, Service, ServiceMessage, Word},
        store::decode,
    },
    machine::{Now, Survived},
    replicated::CallError,
    role::{Done, Inputs, Recovered, Role, RoleAddr, Surroundings},
};

/// The name the service of a seat is reached by.
pub(super) fn name(seat: &NodeName) -> String {
    format!("election/service@{seat}")
}

impl Elections {
    /// Starts the service: an actor of its own, supervised, reached by other nodes.
    pub(in crate::server) fn start(&self) {
        let (node, name) = (&self.0.node, name(&self.0.me.name));
        let _started = node.spawn_with(&name, role_policy(), self.role());
        let route = Route(Arc::downgrade(&self.0));
        if let Ok(binding) = node.bind(&name, Arc::new(route)) {
            let _first = self.0.binding.set(binding);
        }
    }

    /// Builds the service for each of its lives.
    fn role(&self) -> impl FnMut() -> Role<Service> + use<> + 'static {
        let inner = Arc::clone(&self.0);
        let mut life = 0;
        move || {
            life += 1;
            let around = std::rc::Rc::new(Around(Arc::downgrade(&inner)));
            // No two lives of any service have the same number, but by a chance of 2⁻⁶⁴.
            let machine = Service::new(&inner.me.name.to_string(), inner.nonce ^ life);
            Role::new(machine, around, life)
        }
    }
}

/// What the service uses of its node.
struct Around(Weak<Inner>);

impl Surroundings<Service> for Around {
    fn started(&self, addr: RoleAddr<Service>) {
        let Some(inner) = self.0.upgrade() else { return };
        // It keeps its address when it is rebuilt; its clients it has forgotten, and what they
        // hold runs out.
        let _known = inner.service.set(addr);
        for (_, cell) in std::mem::take(&mut *lock(&inner.cells)) {
            let why = "the election service was rebuilt".to_owned();
            let failed = Failed { not_applied: false, why };
            cell.note(Event::Ended(Ended::Failed(failed)));
        }
    }

    fn now(&self) -> Now {
        let Some(inner) = self.0.upgrade() else { return Now::default() };
        let clock = inner.node.clock();
        Now { at: clock.now(), wall_ms: clock.wall_ms() }
    }

    fn post(&self, letters: &mut Vec<Letter<Word>>) {
        let Some(inner) = self.0.upgrade() else { return };
        for Letter { message, .. } in letters.drain(..) {
            match message {
                Word::Tell(handle, event) => inner.note(handle, event),
                Word::Command { flight, ops } => {
                    let back = Arc::downgrade(&inner);
                    inner.submit(ops, DEADLINE_DEFAULT, move |said| {
                        if let Some(inner) = back.upgrade() {
                            let said = said.map_err(|error| failed(&error));
                            inner.tell(ServiceMessage::Answer { flight, said });
                        }
                    });
                }
            }
        }
    }

    fn append(&self, _records: Vec<()>, done: Done) {
        done(Ok(()));
    }

    fn append_lazily(&self, _records: Vec<()>) {}

    fn truncate(&self, _truncate: Truncate<()>, done: Done) {
        done(Ok(()));
    }

    fn shelf(&self, _tasks: Vec<ShelfTask>) {}

    fn recover(&self, done: Recovered<Service>) {
        done(Arc::new(Survived { records: Vec::new(), snapshot: None }));
    }

    fn fail(&self, why: &str) {
        tracing::error!(why, "the election service cannot go on");
    }
}

impl Inner {
    fn note(&self, handle: u64, event: Event) {
        let ended = matches!(event, Event::Ended(_));
        let mut cells = lock(&self.cells);
        let cell = if ended { cells.remove(&handle) } else { cells.get(&handle).cloned() };
        drop(cells);
        if let Some(cell) = cell {
            cell.note(event);
        }
    }
}

fn failed(error: &CallError) -> Failed {
    Failed { not_applied: error.outcome() == "not_applied", why: error.to_string() }
}

/// Words of other nodes.
struct Route(Weak<Inner>);

impl Deliver for Route {
    fn deliver(&self, from: &NodeId, batch: Vec<Frame>, node: &Node) {
        let Some(inner) = self.0.upgrade() else { return };
        let Some(service) = inner.service.get() else { return };
        let mut inputs = Vec::with_capacity(batch.len());
        for frame in batch {
            match decode::<Vec<Change>>(&frame.body) {
                Ok(changes) => inputs.push((from.clone(), ServiceMessage::Changed(changes))),
                Err(_unreadable) => node.dead_letter(&synod_runtime::address::SendError::Codec),
            }
        }
        service.do_send(Inputs(inputs));
    }

    fn type_name(&self) -> &'static str {
        "election"
    }

    fn mailbox_len(&self) -> usize {
        0
    }
}
