//! Which process of a node may speak: so that an older copy of a data directory, or a second copy of
//! it in use, is refused by whoever knows better.
//!
//! A data directory counts its starts, every process draws a number, and its journal only grows. A
//! node tells its peers all three, and they keep the highest they heard, in memory. A process that
//! starts asks them before it takes part in anything. An older copy shows by a count that was heard
//! of under another number, or by a journal that ends before what was heard of; a copy in use by the
//! other process, which goes on speaking. Where nobody who remembers can be reached, an older copy
//! cannot be told from a good one.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};
use synod_runtime::{identity::NodeId, world::Instant};

/// One process of a node, as it says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Life {
    /// Starts with this data directory, this one included.
    pub starts: u64,
    /// Drawn by the process.
    pub nonce: u64,
    /// How far its journal is durable; it only rises.
    pub position: u64,
    /// The journal ended torn: that it ends earlier is known, and made up for.
    pub torn: bool,
}

/// What a peer knows against a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Doubt {
    /// This start, or a later one, was heard of from another process.
    Started {
        /// The start that was heard of.
        starts: u64,
    },
    /// Its journal was longer.
    Longer {
        /// How long it was heard to be.
        position: u64,
        /// How long it is now.
        now: u64,
    },
    /// Another process speaks for this node.
    Alive,
}

/// An opinion on a process that starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Opinion {
    /// Nothing is known against it.
    Good {
        /// Another process of its name was heard moments ago, and may still run.
        moments: bool,
    },
    /// It must not take part.
    Bad(Doubt),
}

/// The processes that were heard of; see the module's documentation.
#[derive(Debug, Default)]
pub struct Lives(BTreeMap<NodeId, Heard>);

#[derive(Debug)]
struct Heard {
    life: Life,
    at: Instant,
    /// A later process that asked.
    next: Option<Next>,
}

#[derive(Debug, Clone, Copy)]
struct Next {
    nonce: u64,
    /// The earlier one went on speaking since.
    contradicted: bool,
}

impl Lives {
    /// A process of `node` asks whether it may take part.
    pub fn asked(&mut self, now: Instant, node: &NodeId, life: Life) -> Opinion {
        let Some(heard) = self.0.get_mut(node) else {
            self.keep(now, node, life);
            return Opinion::Good { moments: false };
        };
        if heard.life.nonce == life.nonce {
            return Opinion::Good { moments: false };
        }
        if let Some(doubt) = heard.doubt(life) {
            return Opinion::Bad(doubt);
        }
        if heard.next.is_none_or(|next| next.nonce != life.nonce) {
            heard.next = Some(Next { nonce: life.nonce, contradicted: false });
        }
        Opinion::Good { moments: now < heard.at + MOMENTS }
    }

    /// A process of `node` gives a sign of life; what is to be said against it.
    pub fn heard(&mut self, now: Instant, node: &NodeId, life: Life) -> Option<Doubt> {
        let Some(heard) = self.0.get_mut(node) else {
            self.keep(now, node, life);
            return None;
        };
        if heard.life.nonce == life.nonce {
            heard.life.position = heard.life.position.max(life.position);
            heard.at = now;
            if let Some(next) = &mut heard.next {
                next.contradicted = true;
            }
            return None;
        }
        let doubt = heard.doubt(life);
        if doubt.is_none() && now >= heard.at + MOMENTS {
            *heard = Heard { life, at: now, next: None };
        }
        doubt
    }

    fn keep(&mut self, now: Instant, node: &NodeId, life: Life) {
        if self.0.len() >= LIVES_MAX
            && let Some(oldest) = self.0.iter().min_by_key(|(_, heard)| heard.at)
        {
            let oldest = oldest.0.clone();
            self.0.remove(&oldest);
        }
        self.0.insert(node.clone(), Heard { life, at: now, next: None });
    }
}

impl Heard {
    fn doubt(&self, life: Life) -> Option<Doubt> {
        let Life { starts, position, .. } = self.life;
        let doubt = if life.starts <= starts {
            Some(Doubt::Started { starts })
        } else if life.position < position && !life.torn {
            Some(Doubt::Longer { position, now: life.position })
        } else if self.next.is_some_and(|next| next.nonce == life.nonce && next.contradicted) {
            Some(Doubt::Alive)
        } else {
            None
        };
        #[cfg(any(test, feature = "mutations"))]
        if crate::mutation::on(crate::mutation::Mutation::OlderCopyTrusted) {
            return None;
        }
        doubt
    }
}

impl Doubt {
    /// What `witness` knows against this process, and what to do, for people.
    pub fn told_by(self, witness: &NodeId) -> String {
        let name = &witness.name;
        match self {
            Self::Started { starts } => format!(
                "this data directory is an older copy: {name} has heard of start {starts} of this \
                 node from another process. {REMEDY}"
            ),
            Self::Longer { position, now } => format!(
                "this data directory is an older copy: {name} has heard of this node's journal up \
                 to {position:#x}, and here it ends at {now:#x}. {REMEDY}"
            ),
            Self::Alive => format!(
                "another process uses a copy of this data directory: {name} hears both. Stop one of \
                 them. {REMEDY}"
            ),
        }
    }
}

const REMEDY: &str = "Bring back the newest data directory, or put this one aside and start with an \
                      empty one, so that it rejoins as a new node";

/// A process that was heard so lately may still run. If it does it is heard again within this time,
/// though the other one has taken its links.
pub const MOMENTS: Duration = Duration::from_millis(600);

/// Nodes come and go; each is a few dozen bytes.
const LIVES_MAX: usize = 1_024;

#[cfg(test)]
mod tests {
    use super::*;
    use synod_runtime::identity::Incarnation;

    fn life(starts: u64, nonce: u64, position: u64) -> Life {
        Life { starts, nonce, position, torn: false }
    }

    fn at(ms: u64) -> Instant {
        Instant::from_nanos(1_000_000_000 + ms * 1_000_000)
    }

    fn known(lives: &[(u64, Life)]) -> (Lives, NodeId) {
        let node = NodeId::new("a".parse().unwrap(), Incarnation(7));
        let mut all = Lives::default();
        for (ms, life) in lives {
            assert_eq!(all.heard(at(*ms), &node, *life), None);
        }
        (all, node)
    }

    #[test]
    fn a_node_that_starts_again_is_welcome() {
        let (mut lives, a) = known(&[(0, life(1, 11, 40)), (100, life(1, 11, 90))]);
        let again = life(2, 12, 90);
        assert_eq!(lives.asked(at(200), &a, again), Opinion::Good { moments: true });
        assert_eq!(lives.asked(at(900), &a, again), Opinion::Good { moments: false });
        assert_eq!(lives.heard(at(901), &a, again), None);
        let stranger = NodeId::new("a".parse().unwrap(), Incarnation(8));
        assert_eq!(
            lives.asked(at(902), &stranger, life(1, 1, 0)),
            Opinion::Good { moments: false }
        );
    }

    #[test]
    fn an_older_copy_is_refused_for_its_journal_or_its_count() {
        // The copy was made while the node ran, in the same start.
        let (mut lives, a) = known(&[(0, life(1, 11, 90))]);
        let shorter = Opinion::Bad(Doubt::Longer { position: 90, now: 40 });
        assert_eq!(lives.asked(at(900), &a, life(2, 12, 40)), shorter);
        // It was made before the last start, in which nothing was written.
        let (mut lives, a) = known(&[(0, life(2, 11, 90))]);
        let started = Opinion::Bad(Doubt::Started { starts: 2 });
        assert_eq!(lives.asked(at(900), &a, life(2, 12, 90)), started);
        // Nobody was asked at its start: it is told as soon as it speaks.
        let told = Some(Doubt::Started { starts: 2 });
        assert_eq!(lives.heard(at(900), &a, life(2, 12, 90)), told);
    }

    #[test]
    fn a_torn_journal_may_end_earlier() {
        let (mut lives, a) = known(&[(0, life(1, 11, 90))]);
        let torn = Life { torn: true, ..life(2, 12, 40) };
        assert_eq!(lives.asked(at(900), &a, torn), Opinion::Good { moments: false });
    }

    #[test]
    fn of_two_processes_the_second_one_is_told_of_the_first() {
        let (mut lives, a) = known(&[(0, life(1, 11, 40))]);
        let second = life(2, 12, 40);
        assert_eq!(lives.asked(at(50), &a, second), Opinion::Good { moments: true });
        assert_eq!(lives.heard(at(100), &a, life(1, 11, 40)), None, "the first one goes on");
        assert_eq!(lives.asked(at(150), &a, second), Opinion::Bad(Doubt::Alive));
        assert_eq!(lives.heard(at(2_000), &a, second), Some(Doubt::Alive), "whenever it speaks");
        assert_eq!(lives.heard(at(2_100), &a, life(1, 11, 50)), None, "which harms the first not");
    }
}
