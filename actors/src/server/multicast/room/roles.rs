//! The roles of a room, and what they use of it.

use std::sync::{Arc, OnceLock};

use synod_runtime::journal;

use super::Room;
use crate::{
    effects::{Letter, ShelfTask, Truncate},
    machine::{Machine, Now, Survived},
    multicast::{
        checkpoint_server::CheckpointServer, commit_server::CommitServer, data_server::DataServer,
        message::Message, receiver::Receiver, record::Record, sender::Sender, sequencer::Sequencer,
    },
    role::{Done, Recovered, RoleAddr, Surroundings},
};

#[derive(Default)]
pub(super) struct Roles {
    pub(super) sequencer: OnceLock<RoleAddr<Sequencer>>,
    data: OnceLock<RoleAddr<DataServer>>,
    commit: OnceLock<RoleAddr<CommitServer>>,
    checkpoint: OnceLock<RoleAddr<CheckpointServer>>,
    receiver: OnceLock<RoleAddr<Receiver>>,
    sender: OnceLock<RoleAddr<Sender>>,
}

/// One kind of role in a room.
pub(super) trait Resident:
    Machine<Envelope = Message, Record = Record, Snapshot = ()> + Sized
{
    fn slot(roles: &Roles) -> &OnceLock<RoleAddr<Self>>;
}

macro_rules! residents {
    ($($kind:ident $slot:ident;)*) => {$(
        impl Resident for $kind {
            fn slot(roles: &Roles) -> &OnceLock<RoleAddr<Self>> {
                &roles.$slot
            }
        }
    )*};
}

residents! {
    Sequencer sequencer;
    DataServer data;
    CommitServer commit;
    CheckpointServer checkpoint;
    Receiver receiver;
    Sender sender;
}

/// A room, as the surroundings of any of its roles.
pub(super) struct Around(pub(super) Arc<Room>);

impl<M: Resident> Surroundings<M> for Around {
    fn now(&self) -> Now {
        let clock = self.0.node.clock();
        Now { at: clock.now(), wall_ms: clock.wall_ms() }
    }

    fn started(&self, addr: RoleAddr<M>) {
        let _same = M::slot(&self.0.roles).set(addr);
    }

    fn post(&self, letters: &mut Vec<Letter<Message>>) {
        self.0.post(letters);
    }

    fn append(&self, records: Vec<Record>, done: Done) {
        match self.0.journal.get() {
            Some(journal) => journal.append(records.iter().map(Record::to_journal).collect(), done),
            None => done(Ok(())),
        }
    }

    fn append_lazily(&self, records: Vec<Record>) {
        if let Some(journal) = self.0.journal.get() {
            journal.append_lazy(records.iter().map(Record::to_journal).collect());
        }
    }

    fn truncate(&self, Truncate { upto, carry }: Truncate<Record>, done: Done) {
        match self.0.journal.get() {
            Some(journal) => {
                journal.truncate(upto, carry.iter().map(Record::to_journal).collect(), done);
            }
            None => done(Ok(())),
        }
    }

    fn shelf(&self, _tasks: Vec<ShelfTask>) {}

    fn recover(&self, done: Recovered<M>) {
        let Some(journal) = self.0.journal.get().cloned() else {
            return done(Arc::new(Survived { records: Vec::new(), snapshot: None }));
        };
        journal.replay(Box::new(move |records| {
            let records = records.map_err(|error| error.to_string());
            match records.and_then(|records| records_of(&records)) {
                Ok(records) => done(Arc::new(Survived { records, snapshot: None })),
                // Without its memory the role must not act: its life does not begin.
                Err(why) => tracing::error!(why, "a role of a group cannot be rebuilt"),
            }
        }));
    }

    fn fail(&self, why: &str) {
        tracing::error!(why, group = self.0.name, "the group is not served here any more");
    }
}

pub(super) fn records_of(records: &[journal::Record]) -> Result<Vec<Record>, String> {
    records.iter().map(|one| Record::from_journal(one).map_err(|bad| bad.to_string())).collect()
}
