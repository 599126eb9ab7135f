//! Coming to the state of a snapshot on the shelf, part by part.
//!
//! Until it is there this replica has no state: it executes nothing, and reads wait.

use super::{Replica, State, image::Install, taking::Shelved};
use crate::{
    consensus::{
        ballot::Step,
        message::{
            Found, HomeMessage, Installed, LearnerMessage, Registered, Replies, SnapshotRead,
        },
    },
    effects::{Effects, ShelfRead, ShelfTask},
};

/// One part, taken in one turn: a few milliseconds.
const PART_BYTES: usize = 1024 * 1024;

/// A state on its way here from the shelf.
pub(super) struct Loading {
    step: Step,
    offset: u64,
    install: Install,
    /// It came from another node: the learner goes on behind it.
    fetched: bool,
}

impl Replica {
    /// Comes to the present state once more, from the newest snapshot and the log.
    pub(super) fn rebuild(&mut self, out: &mut Effects<Self>) {
        self.forget_state();
        match self.newest() {
            Some(newest) => self.load(newest.step, false, out),
            None => self.resume(true, out),
        }
    }

    /// Nothing was ever executed.
    pub(super) fn forget_state(&mut self) {
        self.give_up_snapshot();
        self.loading = None;
        self.reset_machines();
        self.state = State { history: self.genesis.clone(), ..State::default() };
        self.tell_roster();
    }

    /// Makes the state that of a snapshot on the shelf.
    pub(super) fn load(&mut self, step: Step, fetched: bool, out: &mut Effects<Self>) {
        self.forget_state();
        let install = Install::new(self.fresh_machines());
        self.loading = Some(Loading { step, offset: 0, install, fetched });
        self.load_more(out);
    }

    fn load_more(&self, out: &mut Effects<Self>) {
        if let Some(Loading { step, offset, .. }) = &self.loading {
            let (step, offset) = (step.0, *offset);
            let read = ShelfRead { step, offset, bytes: PART_BYTES, reader: None };
            out.shelf.push(ShelfTask::Read(read));
        }
    }

    /// The shelf read a part, for this replica or for a peer.
    pub(super) fn read(&mut self, read: SnapshotRead, out: &mut Effects<Self>) {
        let SnapshotRead { step, offset, reader, found } = read;
        if found.is_none() {
            // Damaged, or gone: nobody is to be promised it.
            self.shelf.retain(|shelved| shelved.step != step);
        }
        match reader {
            Some(reader) => self.hand_on(&reader, step, offset, found, out),
            None => self.loaded(step, offset, found, out),
        }
    }

    fn loaded(&mut self, step: Step, offset: u64, found: Option<Found>, out: &mut Effects<Self>) {
        let due = |one: &mut Loading| one.step == step && one.offset == offset;
        let Some(mut loading) = self.loading.take_if(due) else { return };
        let Some(Found { total, bytes, .. }) = found else {
            tracing::error!(%step, "a snapshot cannot be read; another main is asked");
            self.give_way_again();
            return self.resume(true, out);
        };
        loading.offset += bytes.len() as u64;
        let whole = loading.offset >= total;
        let (fetched, taken) = (loading.fetched, loading.install.take(bytes));
        if let Err(why) = &taken {
            return self.not_loaded(loading, why, out);
        }
        if !whole {
            self.loading = Some(loading);
            return self.load_more(out);
        }
        match loading.install.end() {
            Ok((image, machines)) => self.install(image, machines),
            Err(why) if fetched => return self.not_fetched(step, &why, out),
            Err(why) => return self.halt(format!("its own snapshot cannot be used: {why}")),
        }
        if fetched {
            self.gave_way();
            self.tell_home(out);
            let history = self.state.history.clone();
            out.here(LearnerMessage::Installed(Installed { history }));
            let (position, time_ms) = (self.state.position, self.state.time_ms);
            self.shelved(Shelved { step, total, position, time_ms }, out);
        }
        self.resume(true, out);
        self.tell(out);
    }

    /// What others executed in this node's place answers commands of the home here too. Whoever did it
    /// left that to this node, and the home would wait until it asks again.
    fn tell_home(&self, out: &mut Effects<Self>) {
        let Some((session, nonce, replies)) = self.state.sessions.newest_of(&self.me) else {
            return;
        };
        out.here(HomeMessage::Registered(Registered { nonce, session }));
        out.here(HomeMessage::Replies(Replies { session, replies }));
    }

    fn not_loaded(&mut self, loading: Loading, why: &str, out: &mut Effects<Self>) {
        let Loading { step, fetched, install: Install { too_old, .. }, .. } = loading;
        if fetched && !too_old {
            return self.not_fetched(step, why, out);
        }
        // It stays without a state: what it has for the moment answers no read.
        self.loading = Some(loading);
        self.halt(if too_old {
            why.to_owned()
        } else {
            format!("its own snapshot cannot be used: {why}")
        });
        self.tell(out);
    }

    fn not_fetched(&mut self, step: Step, why: &str, out: &mut Effects<Self>) {
        tracing::error!(%step, %why, "a peer's snapshot cannot be used");
        self.rebuild(out);
    }
}
