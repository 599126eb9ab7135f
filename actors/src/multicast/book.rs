//! Which groups there are: agreed on by the log, one entry for each, for ever.

use std::collections::BTreeMap;

use serde::{Serialize, de::DeserializeOwned};

use super::group::Group;
use crate::replicated::{
    ApplyError, Function, Moment, RestoreError, StateMachine, Turn, name_hash,
};

/// The name commands are addressed to. No service can have it by chance.
pub const BOOK: &str = "synod/groups";

/// Makes a group, unless there is one of that name: [`Group`]; answered by `Result<Group, String>`:
/// the group as it is from now on, or why it cannot be.
pub const OPEN: Function = Function::command("synod/groups.open");

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
}

impl StateMachine for Groups {
    fn name(&self) -> &str {
        BOOK
    }

    fn functions(&self) -> &[Function] {
        &[OPEN, LIST]
    }

    fn apply(&mut self, function: u64, args: &[u8], _: &mut Turn) -> Result<Vec<u8>, ApplyError> {
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
