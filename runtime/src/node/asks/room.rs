//! Where asks wait for their answers, each until its deadline.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use bytes::Bytes;
use rustc_hash::FxHashMap;
use tokio::sync::{Notify, oneshot};

use crate::{
    address::SendError,
    identity::NodeName,
    node::{Node, WeakNode, lock},
    world::{Instant, network::Lane},
};

/// Those who wait here, and one alarm for all of them: nearly all are answered long before their
/// deadline, and a timer of its own would cost each of them more than the rest of its wait.
#[derive(Default)]
pub(super) struct WaitingRoom {
    pub(super) asks: FxHashMap<u64, Waiting>,
    /// Their deadlines, the next one first.
    deadlines: BTreeSet<(Instant, u64)>,
    /// When the alarm rings, not later than the next deadline.
    alarm: Option<Instant>,
}

pub(super) struct Waiting {
    pub(super) to: NodeName,
    pub(super) lane: Lane,
    pub(super) until: Instant,
    pub(super) answer: oneshot::Sender<Result<Bytes, SendError>>,
}

impl WaitingRoom {
    /// Whether the alarm is too late for this one.
    pub(super) fn insert(&mut self, correlation: u64, waiting: Waiting) -> bool {
        let until = waiting.until;
        self.deadlines.insert((until, correlation));
        self.asks.insert(correlation, waiting);
        let late = self.alarm.is_none_or(|alarm| until < alarm);
        if late {
            self.alarm = Some(until);
        }
        late
    }

    pub(super) fn remove(&mut self, correlation: u64) -> Option<Waiting> {
        let waiting = self.asks.remove(&correlation)?;
        self.deadlines.remove(&(waiting.until, correlation));
        Some(waiting)
    }

    /// Drops those who wait for `peer`.
    pub(super) fn lost(&mut self, peer: &NodeName) {
        let Self { asks, deadlines, .. } = self;
        asks.retain(|correlation, waiting| {
            let stays = waiting.to != *peer;
            if !stays {
                deadlines.remove(&(waiting.until, *correlation));
            }
            stays
        });
    }

    /// One who waited long enough.
    fn next_late(&mut self, now: Instant) -> Option<(u64, Waiting)> {
        let &(_, correlation) = self.deadlines.first().filter(|(until, _)| *until <= now)?;
        self.remove(correlation).map(|waiting| (correlation, waiting))
    }

    /// Sets the alarm to the next deadline.
    fn set_alarm(&mut self) -> Option<Instant> {
        self.alarm = self.deadlines.first().map(|(until, _)| *until);
        self.alarm
    }
}

impl Node {
    /// Ends the asks that nobody answered in time; how long until the next one may end.
    fn end_late_asks(&self) -> Option<Duration> {
        let now = self.now();
        loop {
            let mut room = lock(&self.0.asks.waiting);
            let Some((correlation, waiting)) = room.next_late(now) else {
                return room.set_alarm().map(|next| next.since(now));
            };
            drop(room);
            self.take_back(correlation, &waiting);
            // The asker may have given up in this very moment.
            let _ = waiting.answer.send(Err(SendError::Timeout));
        }
    }
}

/// The alarm of those who wait, as long as the node lives.
pub(in crate::node) async fn keep_deadlines(node: WeakNode, earlier: Arc<Notify>) {
    loop {
        // Not held while waiting: this task must not keep the node.
        let Some(strong) = node.upgrade() else { return };
        let wait = strong.end_late_asks();
        drop(strong);
        match wait {
            None => earlier.notified().await,
            // A clock may be a little behind the timer: never spin on the rest.
            Some(wait) => {
                let wait = wait.max(Duration::from_millis(1));
                drop(tokio::time::timeout(wait, earlier.notified()).await);
            }
        }
    }
}
