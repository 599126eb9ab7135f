//! What happens next: one heap, ordered by simulated time and then by age, so that a seed always
//! gives the same run.

use std::{cmp::Ordering, collections::BinaryHeap};

use synod::consensus::message::Message;
use synod_runtime::identity::NodeId;

use super::{node::Role, script::Stage};

/// One thing that will happen. `life` counts the starts of a node: what was meant for an earlier
/// life is dropped.
#[derive(Debug)]
pub(crate) enum Event {
    /// A message arrives at a node.
    Letter { to: NodeId, from: NodeId, message: Box<Message> },
    /// A role handles what is in its mailbox.
    Turn { node: usize, life: u32, role: Role },
    /// The time a role asked for may have come.
    Alarm { node: usize, life: u32, role: Role },
    /// The disk has synced everything up to this operation.
    Synced { node: usize, life: u32, upto: u64 },
    /// The disk does the next task of a node's snapshots.
    Shelved { node: usize, life: u32 },
    /// A node that was down starts.
    Start { node: usize },
    /// A client of this node's home wants something.
    Client { node: usize, life: u32 },
    /// The links notice who is connected.
    Links,
    /// Something goes wrong.
    Fault,
    /// Whoever leads then crashes.
    CrashLeader,
    /// A script goes on.
    Script(Stage),
    /// A fault ends: the network between all nodes is whole again.
    Mend,
    /// Everything is repaired; from now on all must come to its end.
    Heal,
    /// Whether it has.
    Look,
}

#[derive(Debug)]
struct Entry {
    at: u64,
    number: u64,
    event: Event,
}

/// The heap, and the time.
#[derive(Debug, Default)]
pub(crate) struct Schedule {
    /// Nanoseconds since the run began.
    pub(crate) now: u64,
    /// Events handed out.
    pub(crate) count: u64,
    number: u64,
    heap: BinaryHeap<Entry>,
}

impl Schedule {
    /// Lets `event` happen `after` nanoseconds from now.
    pub(crate) fn after(&mut self, after: u64, event: Event) {
        self.at(self.now + after, event);
    }

    /// Lets `event` happen at that time.
    pub(crate) fn at(&mut self, at: u64, event: Event) {
        self.number += 1;
        self.heap.push(Entry { at: at.max(self.now), number: self.number, event });
    }

    /// The next event; time moves to it.
    pub(crate) fn next(&mut self) -> Option<Event> {
        let entry = self.heap.pop()?;
        self.now = entry.at;
        self.count += 1;
        Some(entry.event)
    }

    /// What is still to come, in no order.
    pub(crate) fn pending(&self) -> impl Iterator<Item = &Event> {
        self.heap.iter().map(|entry| &entry.event)
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> Ordering {
        // The heap gives the greatest first.
        (other.at, other.number).cmp(&(self.at, self.number))
    }
}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Entry {}
