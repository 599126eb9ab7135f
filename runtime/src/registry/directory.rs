//! The copies of other nodes' names, and the spreading of our own.
//!
//! A node numbers the versions of its list. When a link comes up it sends the whole list, then
//! only what changed; a copy that finds a gap asks for the whole list again.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde::{Deserialize, Serialize};

use super::RegistryEntry;
use crate::{
    identity::{Incarnation, NodeId, NodeName},
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
    /// The groups it is a member of.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub(crate) groups: BTreeSet<String>,
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
///
/// An incarnation that another one of the same name followed is dead: nothing it says counts any
/// more, however late it says it.
#[derive(Debug, Default)]
pub(crate) struct Copies {
    copies: BTreeMap<NodeName, Copy>,
    known: BTreeMap<NodeName, Lineage>,
}

#[derive(Debug)]
struct Copy {
    owner: NodeId,
    version: u64,
    rows: BTreeMap<String, Row>,
}

/// The incarnations a name has had.
#[derive(Debug)]
struct Lineage {
    present: Incarnation,
    dead: VecDeque<Incarnation>,
}

/// Dead incarnations that are remembered for each name: whoever is replaced more often has no
/// disk, and its old processes are long gone.
const DEAD_LEN_MAX: usize = 64;

/// What became of news.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Taken {
    /// Taken over; `groups` when some membership changed by it.
    Good { groups: bool },
    /// A gap shows: all must be sent again.
    Gap,
    /// Its owner is not the present node of that name.
    Refused,
}

impl Copies {
    /// A node is linked; answers whether it counts, or is dead.
    pub(crate) fn up(&mut self, peer: &NodeId) -> bool {
        let lineage = self
            .known
            .entry(peer.name.clone())
            .or_insert_with(|| Lineage { present: peer.incarnation, dead: VecDeque::new() });
        if lineage.dead.contains(&peer.incarnation) {
            return false;
        }
        if lineage.present != peer.incarnation {
            if lineage.dead.len() == DEAD_LEN_MAX {
                lineage.dead.pop_front();
            }
            lineage.dead.push_back(lineage.present);
            lineage.present = peer.incarnation;
            self.copies.remove(&peer.name);
        }
        true
    }

    /// The incarnations of a name that were replaced.
    pub(crate) fn dead(&self, name: &NodeName) -> Vec<Incarnation> {
        self.known.get(name).into_iter().flat_map(|known| known.dead.iter().copied()).collect()
    }

    /// Takes news from their owner.
    pub(crate) fn take(&mut self, from: &NodeId, news: News) -> Taken {
        if self.known.get(&from.name).is_none_or(|known| known.present != from.incarnation) {
            return Taken::Refused;
        }
        match news {
            News::Again | News::Messages(_) => Taken::Good { groups: false },
            News::Full { version, rows } => {
                let groups =
                    |rows: &BTreeMap<_, Row>| rows.values().any(|row| !row.groups.is_empty());
                let now = groups(&rows);
                let copy = Copy { owner: from.clone(), version, rows };
                let before = self.copies.insert(from.name.clone(), copy);
                Taken::Good { groups: now || before.is_some_and(|copy| groups(&copy.rows)) }
            }
            News::Change { since, version, rows, gone } => {
                let copy = self.copies.get_mut(&from.name);
                let Some(copy) = copy.filter(|copy| copy.version == since) else {
                    return Taken::Gap;
                };
                copy.version = version;
                let mut groups = false;
                for name in gone {
                    groups |= copy.rows.remove(&name).is_some_and(|row| !row.groups.is_empty());
                }
                for (name, row) in rows {
                    let now = row.groups.clone();
                    let before = copy.rows.insert(name, row).map(|row| row.groups);
                    groups |= before.unwrap_or_default() != now;
                }
                Taken::Good { groups }
            }
        }
    }

    /// Forgets the names of a node whose link is down.
    pub(crate) fn forget(&mut self, owner: &NodeId) {
        if self.copies.get(&owner.name).is_some_and(|copy| copy.owner == *owner) {
            self.copies.remove(&owner.name);
        }
    }

    /// Where a name is and what it is; of several, the first by name of node.
    pub(crate) fn find(&self, name: &str) -> Option<(&NodeId, &Row)> {
        self.copies.values().find_map(|copy| Some((&copy.owner, copy.rows.get(name)?)))
    }

    /// Everything, not yet in order.
    pub(crate) fn entries(&self) -> impl Iterator<Item = RegistryEntry> {
        self.copies.iter().flat_map(|(node, copy)| entries(node, &copy.rows))
    }

    /// The members of a group that are of one kind, not yet in order.
    pub(crate) fn members(
        &self,
        group: &str,
        kind: &str,
    ) -> impl Iterator<Item = (&NodeId, &String)> {
        let rows =
            self.copies.values().flat_map(|copy| copy.rows.iter().map(|row| (&copy.owner, row)));
        rows.filter(move |(_, (_, row))| row.kind == kind && row.groups.contains(group))
            .map(|(owner, (name, _))| (owner, name))
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
        Row { kind: "k".into(), epoch: None, restarts, mailbox: 0, groups: BTreeSet::new() }
    }

    fn rows(names: &[(&str, u64)]) -> BTreeMap<String, Row> {
        names.iter().map(|(name, restarts)| ((*name).to_owned(), row(*restarts))).collect()
    }

    const GOOD: Taken = Taken::Good { groups: false };

    #[test]
    fn a_copy_follows_changes_and_notices_a_gap() {
        let a = NodeId::new("a".parse().unwrap(), Incarnation(1));
        let (mut list, mut copies) = (Published::default(), Copies::default());
        let _ = list.update(rows(&[("x", 0), ("y", 0)]));
        assert!(copies.up(&a));
        assert_eq!(copies.take(&a, list.full()), GOOD);
        let (news, _) = list.update(rows(&[("x", 1), ("z", 0)]));
        assert_eq!(copies.take(&a, news), GOOD);
        assert_eq!(copies.entries().count(), 2);
        assert_eq!(copies.find("x").unwrap().1.restarts, 1);
        assert!(copies.find("y").is_none());

        let (_lost, _) = list.update(rows(&[]));
        let (confirmation, changed) = list.update(rows(&[]));
        assert!(!changed);
        assert_eq!(copies.take(&a, confirmation), Taken::Gap, "the gap shows");
        assert_eq!(copies.take(&a, list.full()), GOOD);
        assert!(copies.find("x").is_none());
    }

    #[test]
    fn a_dead_incarnation_s_names_vanish_at_once_and_never_come_back() {
        let [old, new] = [1, 2].map(|i| NodeId::new("a".parse().unwrap(), Incarnation(i)));
        let mut copies = Copies::default();
        let full = |name| News::Full { version: 1, rows: rows(&[(name, 0)]) };
        assert_eq!(copies.take(&old, full("x")), Taken::Refused, "it is not linked");
        assert!(copies.up(&old));
        assert_eq!(copies.take(&old, full("x")), GOOD);
        assert!(copies.up(&new));
        assert!(copies.find("x").is_none(), "before a word of its successor");
        assert_eq!(copies.take(&old, full("x")), Taken::Refused, "late gossip");
        assert_eq!(copies.take(&new, full("y")), GOOD);
        assert!(!copies.up(&old));
        assert_eq!(copies.take(&old, full("x")), Taken::Refused);
        copies.forget(&old);
        assert!(copies.find("y").is_some() && copies.find("x").is_none());
        copies.forget(&new);
        assert!(copies.find("y").is_none());
    }

    #[test]
    fn only_a_changed_membership_counts_as_one() {
        let a = NodeId::new("a".parse().unwrap(), Incarnation(1));
        let (mut list, mut copies) = (Published::default(), Copies::default());
        assert!(copies.up(&a));
        assert_eq!(copies.take(&a, list.full()), GOOD);
        let member = |restarts| {
            let member = Row { groups: [String::from("g")].into(), ..row(restarts) };
            BTreeMap::from([("x".to_owned(), member)])
        };
        for (now, groups) in [(member(0), true), (member(1), false), (rows(&[]), true)] {
            let (news, _) = list.update(now);
            assert_eq!(copies.take(&a, news), Taken::Good { groups });
            let members: Vec<_> = copies.members("g", "k").collect();
            assert_eq!(members.len(), usize::from(list.rows.contains_key("x")));
        }
        assert_eq!(copies.members("g", "another kind").count(), 0);
    }
}
