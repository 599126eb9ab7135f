//! Keys and values, in memory.

use std::{
    collections::HashMap,
    io::Cursor,
    sync::{Arc, Mutex, MutexGuard},
};

use openraft::{
    BasicNode, Entry, EntryPayload, LogId, OptionalSend, RaftSnapshotBuilder, Snapshot,
    SnapshotMeta, StorageError, StorageIOError, StoredMembership, storage::RaftStateMachine,
};

use crate::{NodeId, TypeConfig};

type Failed = StorageError<NodeId>;

#[derive(Clone, Default)]
pub struct State(Arc<Mutex<Held>>);

#[derive(Default)]
struct Held {
    applied: Option<LogId<NodeId>>,
    membership: StoredMembership<NodeId, BasicNode>,
    values: HashMap<Vec<u8>, Vec<u8>>,
}

impl State {
    pub fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.held().values.get(key).cloned()
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.0.lock().expect("nobody panics with it")
    }
}

impl RaftStateMachine<TypeConfig> for State {
    type SnapshotBuilder = Self;

    async fn applied_state(
        &mut self,
    ) -> Result<(Option<LogId<NodeId>>, StoredMembership<NodeId, BasicNode>), Failed> {
        let held = self.held();
        Ok((held.applied, held.membership.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<()>, Failed>
    where
        I: IntoIterator<Item = Entry<TypeConfig>> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut held = self.held();
        let mut answers = Vec::new();
        for entry in entries {
            held.applied = Some(entry.log_id);
            match entry.payload {
                EntryPayload::Blank => {}
                EntryPayload::Normal(set) => drop(held.values.insert(set.key, set.value)),
                EntryPayload::Membership(members) => {
                    held.membership = StoredMembership::new(Some(entry.log_id), members);
                }
            }
            answers.push(());
        }
        Ok(answers)
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<Cursor<Vec<u8>>>, Failed> {
        Ok(Box::default())
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta<NodeId, BasicNode>,
        snapshot: Box<Cursor<Vec<u8>>>,
    ) -> Result<(), Failed> {
        let values = rmp_serde::from_slice(snapshot.get_ref());
        let mut held = self.held();
        held.values =
            values.map_err(|e| StorageIOError::read_snapshot(Some(meta.signature()), &e))?;
        (held.applied, held.membership) = (meta.last_log_id, meta.last_membership.clone());
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot<TypeConfig>>, Failed> {
        Ok(None)
    }
}

/// Nobody asks for one: the log is never purged.
impl RaftSnapshotBuilder<TypeConfig> for State {
    async fn build_snapshot(&mut self) -> Result<Snapshot<TypeConfig>, Failed> {
        let held = self.held();
        let bytes = rmp_serde::to_vec(&held.values);
        let bytes = bytes.map_err(|e| StorageIOError::read_state_machine(&e))?;
        let meta = SnapshotMeta {
            last_log_id: held.applied,
            last_membership: held.membership.clone(),
            snapshot_id: format!("{:?}", held.applied),
        };
        Ok(Snapshot { meta, snapshot: Box::new(Cursor::new(bytes)) })
    }
}
