//! Which groups there are, and who serves them: agreed on by the log, one entry for each, for ever.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use synod_runtime::identity::NodeId;

use super::group::{BadChange, Group};
use crate::replicated::{
    ApplyError, Function, Moment, RestoreError, StateMachine, Turn, name_hash,
};

/// The name commands are addressed to. No service can have it by chance.
pub const BOOK: &str = "synod/groups";

/// Makes a group, unless there is one of that name: [`Group`]; answered by `Result<Group, String>`:
/// the group as it is from now on, or why it cannot be.
pub const OPEN: Function = Function::command("synod/groups.open");

/// Changes the servers of a group: [`Change`]; answered by `Result<Group, String>`: the group as it is
/// from now on, or why it cannot be so.
pub const CHANGE: Function = Function::command("synod/groups.change");

/// A change of a group's servers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Which group.
    pub group: String,
    /// The version that is changed: whoever knows an older one is told so.
    pub version: u64,
    /// What changes.
    pub what: What,
}

/// What changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum What {
    /// A server is lost; this node takes its place, once it has what it needs.
    Replace {
        /// The lost one.
        out: NodeId,
        /// Who comes.
        node: NodeId,
    },
    /// Who takes a place has all that it needs, and counts from now on.
    Joined(NodeId),
}

/// All groups: answered by [`Vec`] of [`Group`], by name.
pub const LIST: Function = Function::query("synod/groups.list");

/// The book. It is there on every main, without being asked for.
#[derive(Debug, Default)]
pub struct Groups(BTreeMap<String, Group>);

impl Groups {
    fn open(&mut self, group: Group) -> Result<Group, String> {
        if let Some(known) = self.0.get(&group.name) {
            return Ok(known.clone());
        }
        group.check().map_err(|bad| bad.to_string())?;
        if self.0.len() >= GROUPS_MAX {
            return Err(format!("there are {GROUPS_MAX} groups already"));
        }
        self.0.insert(group.name.clone(), group.clone());
        Ok(group)
    }

    fn change(&mut self, change: Change) -> Result<Group, String> {
        let Change { group: name, version, what } = change;
        let group = self.0.get_mut(&name).ok_or_else(|| format!("there is no group {name}"))?;
        let changed = match what {
            _ if version != group.version => Err(BadChange::Version(group.version)),
            What::Replace { out, node } => group.replacing(&out, node),
            What::Joined(node) => group.joined(&node),
        };
        *group = changed.map_err(|bad| bad.to_string())?;
        Ok(group.clone())
    }
}

impl StateMachine for Groups {
    fn name(&self) -> &str {
        BOOK
    }

    fn functions(&self) -> &[Function] {
        &[OPEN, CHANGE, LIST]
    }

    fn apply(&mut self, function: u64, args: &[u8], _: &mut Turn) -> Result<Vec<u8>, ApplyError> {
        if function == CHANGE.id {
            let change = decode(args).map_err(ApplyError::BadArguments)?;
            return Ok(encode(&self.change(change)));
        }
        if function != OPEN.id {
            return Err(ApplyError::UnknownFunction { id: function });
        }
        let group = decode(args).map_err(ApplyError::BadArguments)?;
        Ok(encode(&self.open(group)))
    }

    fn query(&self, function: u64, _: &[u8], _: &Moment) -> Result<Vec<u8>, ApplyError> {
        if function != LIST.id {
            return Err(ApplyError::UnknownFunction { id: function });
        }
        Ok(encode(&self.0.values().collect::<Vec<_>>()))
    }

    fn snapshot(&self) -> Vec<u8> {
        encode(&self.0)
    }

    fn restore(&mut self, bytes: &[u8]) -> Result<(), RestoreError> {
        let bad = |reason| RestoreError { actor: BOOK.to_owned(), reason };
        self.0 = decode(bytes).map_err(bad)?;
        Ok(())
    }
}

/// The number of the book's name.
pub const fn book_id() -> u64 {
    name_hash(BOOK)
}

/// As it stands in the log.
pub fn encode<T: Serialize + ?Sized>(what: &T) -> Vec<u8> {
    rmp_serde::to_vec(what).expect("plain data encodes")
}

/// Reads what [`encode`] wrote.
///
/// # Errors
/// A text for people when it is something else.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    rmp_serde::from_slice(bytes).map_err(|error| error.to_string())
}

/// Each has a journal and six actors on each of its servers.
const GROUPS_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use synod_runtime::identity::Incarnation;

    use super::*;

    #[test]
    fn of_two_changes_of_one_version_one_counts() {
        let node = |n| NodeId::new(format!("n{n}").parse().unwrap(), Incarnation(n));
        let mut book = Groups::default();
        let group = Group::new("news", (0..3).map(node).collect());
        assert_eq!(book.open(group.clone()), Ok(group));
        let change = |version, what| Change { group: "news".into(), version, what };
        let replace = |by| What::Replace { out: node(1), node: node(by) };
        let coming = book.change(change(0, replace(3))).unwrap();
        assert_eq!(coming.version, 1);
        let late = book.change(change(0, replace(4)));
        assert_eq!(late, Err("the group's servers have version 1".to_owned()));
        assert!(book.change(change(1, What::Joined(node(4)))).is_err());
        let done = book.change(change(1, What::Joined(node(3)))).unwrap();
        assert_eq!(done.servers, [0, 3, 2].map(node));
        assert_eq!(book.open(Group::new("news", vec![node(9)])), Ok(done.clone()));
        let mut again = Groups::default();
        again.restore(&book.snapshot()).unwrap();
        assert_eq!(again.0.get("news"), Some(&done));
    }
}
