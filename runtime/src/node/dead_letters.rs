//! Messages that reached nobody: counted, and shown to those who listen.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use tokio::sync::broadcast::{self, error::RecvError};

use super::Node;
use crate::{
    address::SendError,
    identity::{NodeId, NodeName},
    telemetry::{Counter, DEAD_LETTERS, Metrics},
    wire::FrameHeader,
};

/// Dead letters kept for a listener that does not listen: it is told how many it missed.
const UNHEARD_LEN_MAX: usize = 1024;

/// Counted from the start, so that whoever watches the counter sees it rise from zero.
const COMMON: [&str; 3] = ["no_such_actor", "overloaded", "unreachable"];

/// One message that reached nobody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// Why; the label `reason` under which it was counted.
    pub reason: &'static str,
    /// The node that sent it.
    pub from: NodeId,
    /// The node it was for.
    pub to: NodeName,
    /// The actor it was for; its number on the wire where only that is known.
    pub target: String,
    /// The message's name; its number on the wire where only that is known.
    pub message: String,
}

/// A subscription to the dead letters of one node: see [`Node::dead_letters`].
#[derive(Debug)]
pub struct DeadLetters {
    letters: broadcast::Receiver<DeadLetter>,
    missed: u64,
}

impl DeadLetters {
    /// The next dead letter; `None` when the node is gone. May be dropped at any time.
    pub async fn next(&mut self) -> Option<DeadLetter> {
        loop {
            match self.letters.recv().await {
                Ok(letter) => return Some(letter),
                Err(RecvError::Lagged(missed)) => self.missed += missed,
                Err(RecvError::Closed) => return None,
            }
        }
    }

    /// How many were not shown here, because the listener was too slow.
    pub fn missed(&self) -> u64 {
        self.missed
    }
}

/// Where the dead letters of a node are counted.
pub(super) struct Office {
    metrics: Metrics,
    /// By reason.
    counters: Mutex<BTreeMap<&'static str, Counter>>,
    listeners: broadcast::Sender<DeadLetter>,
}

impl Office {
    pub(super) fn new(metrics: &Metrics) -> Self {
        let (listeners, _) = broadcast::channel(UNHEARD_LEN_MAX);
        let counter = |reason| (reason, metrics.counter(&DEAD_LETTERS, &[("reason", reason)]));
        let counters = Mutex::new(COMMON.map(counter).into());
        Self { metrics: metrics.clone(), counters, listeners }
    }

    fn count(&self, reason: &'static str) {
        let mut counters = self.counters.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || self.metrics.counter(&DEAD_LETTERS, &[("reason", reason)]);
        counters.entry(reason).or_insert_with(new).increment();
    }
}

impl Node {
    /// Subscribes to the messages that reach nobody from now on: those this node could not send
    /// (`unreachable`, `overloaded`, …) and those that came here in vain (`no_such_actor`,
    /// `codec`, …). A listener that is slow misses some rather than hold anything up.
    ///
    /// ```
    #[doc = include_str!("../../docs/examples/till.txt")]
    /// let mut lost = a.dead_letters();
    /// b.shutdown();
    /// tokio::time::sleep(Duration::from_secs(1)).await;
    /// till.do_send(Pay(5));
    /// let letter = lost.next().await.unwrap();
    /// assert_eq!((letter.reason, letter.message.as_str()), ("unreachable", "till.pay"));
    /// # });
    /// ```
    pub fn dead_letters(&self) -> DeadLetters {
        DeadLetters { letters: self.0.dead_letters.listeners.subscribe(), missed: 0 }
    }

    /// Counts a message that reached nobody, of which only the reason is known.
    pub fn dead_letter(&self, error: &SendError) {
        self.0.dead_letters.count(error.reason());
    }

    /// Counts a message that reached nobody; what it was is asked only when somebody listens.
    pub(crate) fn lose(&self, reason: &'static str, letter: impl FnOnce() -> DeadLetter) {
        let office = &self.0.dead_letters;
        office.count(reason);
        if office.listeners.receiver_count() > 0 {
            // The last listener may have gone in this very moment.
            let _ = office.listeners.send(letter());
        }
    }

    /// As [`Node::lose`], for a frame that came here.
    pub(super) fn lose_frame(&self, from: &NodeId, header: &FrameHeader, reason: &'static str) {
        self.lose(reason, || {
            let number = |number: u64| format!("#{number:016x}");
            let names = &self.0.names;
            DeadLetter {
                reason,
                from: from.clone(),
                to: self.name().clone(),
                target: names.name(header.target).unwrap_or_else(|| number(header.target)),
                message: self
                    .0
                    .forms
                    .message_name(header.message)
                    .map_or_else(|| number(header.message), str::to_owned),
            }
        });
    }
}
