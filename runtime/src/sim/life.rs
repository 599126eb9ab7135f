//! A node's lives: every port handle carries the life it was made in and does nothing after it.

use std::{
    fmt,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
};

use super::queue::{Event, lock};
use crate::identity::NodeName;

/// Stands where the number of the present life would stand.
const DOWN: u64 = 0;

/// What all handles of one simulated machine share.
#[derive(Debug)]
pub(super) struct Machine {
    pub(super) name: NodeName,
    /// Its ordinal, in order of creation, from 0.
    pub(super) index: u32,
    /// The number of the present life, or [`DOWN`].
    pulse: AtomicU64,
    /// How many lives there were.
    lives: AtomicU64,
    paused: AtomicBool,
    held: Mutex<Vec<Event>>,
}

/// One life of one machine: from a start to a crash.
#[derive(Clone)]
pub(super) struct Life {
    machine: Arc<Machine>,
    number: u64,
}

impl Machine {
    pub(super) fn new(name: NodeName, index: u32) -> Self {
        Self {
            name,
            index,
            pulse: AtomicU64::new(DOWN),
            lives: AtomicU64::new(0),
            paused: AtomicBool::new(false),
            held: Mutex::default(),
        }
    }

    /// Begins a life. The machine must be down.
    pub(super) fn begin(self: &Arc<Self>) -> Life {
        assert!(!self.is_up(), "{} lives already", self.name);
        let number = self.lives.fetch_add(1, SeqCst) + 1;
        self.pulse.store(number, SeqCst);
        Life { machine: Arc::clone(self), number }
    }

    /// The last life begun; it may be over.
    pub(super) fn life(self: &Arc<Self>) -> Life {
        Life { machine: Arc::clone(self), number: self.lives.load(SeqCst) }
    }

    pub(super) fn is_up(&self) -> bool {
        self.pulse.load(SeqCst) != DOWN
    }

    /// Ends the present life: from here on every handle of it is refused.
    pub(super) fn power_off(&self) {
        self.pulse.store(DOWN, SeqCst);
        self.paused.store(false, SeqCst);
        let held = std::mem::take(&mut *lock(&self.held));
        drop(held); // outside of the lock: what events hold may call back
    }

    pub(super) fn pause(&self) {
        self.paused.store(self.is_up(), SeqCst);
    }

    /// Answers what was held meanwhile.
    pub(super) fn resume(&self) -> Vec<Event> {
        self.paused.store(false, SeqCst);
        std::mem::take(&mut *lock(&self.held))
    }

    pub(super) fn is_paused(&self) -> bool {
        self.paused.load(SeqCst)
    }
}

impl Life {
    pub(super) fn lasts(&self) -> bool {
        self.machine.pulse.load(SeqCst) == self.number
    }

    pub(super) fn paused(&self) -> bool {
        self.lasts() && self.machine.is_paused()
    }

    pub(super) fn hold(&self, event: Event) {
        lock(&self.machine.held).push(event);
    }

    pub(super) fn machine(&self) -> &Arc<Machine> {
        &self.machine
    }

    pub(super) fn name(&self) -> &NodeName {
        &self.machine.name
    }

    pub(super) fn index(&self) -> u32 {
        self.machine.index
    }

    pub(super) fn number(&self) -> u64 {
        self.number
    }
}

impl fmt::Debug for Life {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.machine.name, self.number)
    }
}
