//! The copies of other nodes' names, and the spreading of our own.
//!
//! A node numbers the versions of its list. When a link comes up it sends the whole list, then
//! only what changed; a copy that finds a gap asks for the whole list again.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::RegistryEntry;
use crate::{
    identity::{NodeId, NodeName},
    message::Fingerprint,
};

/// What is said of one name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Row {
    pub(crate) kind: String,
    #[serde(default)]
    pub(crate) epoch: Option<u64>,
    #[serde(default)]
    pub(crate) restarts: u64,
    #[serde(default)]
    pub(crate) mailbox: u64,
}

/// Body of a directory frame.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum News {
    /// The sender's whole list.
    Full { version: u64, rows: BTreeMap<String, Row> },
    /// What changed from the version before; nothing, when it only confirms the version.
    Change { since: u64, version: u64, rows: BTreeMap<String, Row>, gone: Vec<String> },
    /// The sender has a gap: send the whole list.
    Again,
    /// The forms of all messages the sender knows.
    Messages(Vec<Fingerprint>),
}

/// This node's list as it was last told to the others.
#[derive(Debug, Default)]
pub(crate) struct Published {
    version: u64,
    rows: BTreeMap<String, Row>,
}

impl Published {
    pub(crate) fn full(&self) -> News {
        News::Full { version: self.version, rows: self.rows.clone() }
    }

    /// Takes over the list as it is now; answers what to tell the others, also when nothing
    /// changed: a confirmation, so that a copy that missed something finds out.
    pub(crate) fn update(&mut self, now: BTreeMap<String, Row>) -> (News, bool) {
        let changed = now.iter().filter(|(name, row)| self.rows.get(*name) != Some(row));
        let rows: BTreeMap<_, _> = changed.map(|(name, row)| (name.clone(), row.clone())).collect();
        let gone: Vec<_> =
            self.rows.keys().filter(|name| !now.contains_key(*name)).cloned().collect();
        let since = self.version;
        let changed = !rows.is_empty() || !gone.is_empty();
        if changed {
            self.version += 1;
            self.rows = now;
        }
        (News::Change { since, version: self.version, rows, gone }, changed)
    }
}

/// The lists of all nodes that are linked. Ordered by name of node: a name is linked once.
#[derive(Debug, Default)]
pub(crate) struct Copies(BTreeMap<NodeName, Copy>);

#[derive(Debug)]
struct Copy {
    owner: NodeId,
    version: u64,
    rows: BTreeMap<String, Row>,
}

impl Copies {
    /// Takes news from their owner; answers whether a gap shows, so that all must be sent again.
    pub(crate) fn take(&mut self, from: &NodeId, news: News) -> bool {
        match news {
            News::Again | News::Messages(_) => false,
            News::Full { version, rows } => {
                self.0.insert(from.name.clone(), Copy { owner: from.clone(), version, rows });
                false
            }
            News::Change { since, version, rows, gone } => {
                let copy = self.0.get_mut(&from.name).filter(|copy| copy.owner == *from);
                let Some(copy) = copy.filter(|copy| copy.version == since) else { return true };
                copy.version = version;
                copy.rows.extend(rows);
                copy.rows.retain(|name, _| !gone.contains(name));
                false
            }
        }
    }

    /// Forgets the names of a node whose link is down.
    pub(crate) fn forget(&mut self, owner: &NodeId) {
        if self.0.get(&owner.name).is_some_and(|copy| copy.owner == *owner) {
            self.0.remove(&owner.name);
        }
    }

    /// Where a name is and what it is; of several, the first by name of node.
    pub(crate) fn find(&self, name: &str) -> Option<(&NodeId, &Row)> {
        self.0.values().find_map(|copy| Some((&copy.owner, copy.rows.get(name)?)))
    }

    /// Everything, not yet in order.
    pub(crate) fn entries(&self) -> impl Iterator<Item = RegistryEntry> {
        self.0.iter().flat_map(|(node, copy)| entries(node, &copy.rows))
    }
}

/// Rows of one node as the outside sees them.
pub(crate) fn entries(
    node: &NodeName,
    rows: &BTreeMap<String, Row>,
) -> impl Iterator<Item = RegistryEntry> {
    rows.iter().map(|(name, row)| RegistryEntry {
        name: name.clone(),
        kind: row.kind.clone(),
        node: node.clone(),
        epoch: row.epoch,
        restarts: row.restarts,
        mailbox: row.mailbox,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Incarnation;

    fn row(restarts: u64) -> Row {
        Row { kind: "k".into(), epoch: None, restarts, mailbox: 0 }
    }

    fn rows(names: &[(&str, u64)]) -> BTreeMap<String, Row> {
        names.iter().map(|(name, restarts)| ((*name).to_owned(), row(*restarts))).collect()
    }

    #[test]
    fn a_copy_follows_changes_and_notices_a_gap() {
        let a = NodeId::new("a".parse().unwrap(), Incarnation(1));
        let (mut list, mut copies) = (Published::default(), Copies::default());
        let _ = list.update(rows(&[("x", 0), ("y", 0)]));
        assert!(!copies.take(&a, list.full()));
        let (news, _) = list.update(rows(&[("x", 1), ("z", 0)]));
        assert!(!copies.take(&a, news));
        assert_eq!(copies.entries().count(), 2);
        assert_eq!(copies.find("x").unwrap().1.restarts, 1);
        assert!(copies.find("y").is_none());

        let (_lost, _) = list.update(rows(&[]));
        let (confirmation, changed) = list.update(rows(&[]));
        assert!(!changed && copies.take(&a, confirmation), "the gap shows");
        assert!(!copies.take(&a, list.full()));
        assert!(copies.find("x").is_none());
    }

    #[test]
    fn the_link_of_an_older_incarnation_takes_nothing_with_it() {
        let [old, new] = [1, 2].map(|i| NodeId::new("a".parse().unwrap(), Incarnation(i)));
        let mut copies = Copies::default();
        let full = News::Full { version: 1, rows: rows(&[("x", 0)]) };
        assert!(!copies.take(&new, full));
        copies.forget(&old);
        assert!(copies.find("x").is_some());
        copies.forget(&new);
        assert!(copies.find("x").is_none());
    }
}
