//! Taking a snapshot while commands go on.
//!
//! The state is frozen between two steps, which takes well below a millisecond for an actor that
//! leaves [in parts](crate::replicated::InParts), and encoded by turns: one part, at most a few on
//! their way to the disk, and no more in a second than [`SNAPSHOT_BYTES_PER_SECOND`]. Beside the
//! state this takes the memory of what commands replace meanwhile.

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use synod_runtime::world::Instant;

use super::{Replica, image::Parts};
use crate::{
    consensus::{
        ballot::Step,
        configuration::History,
        message::{
            Answers, HomeMessage, Installed, LearnerMessage, NewRead, SnapshotWritten, TrimLog,
            Written,
        },
    },
    effects::{Effects, Lot, ShelfTask, ShelfWrite},
};

/// A snapshot is taken when the log since the last one is this long, or as long as that snapshot,
/// whichever is more: so taking them costs about as much as the log itself…
pub const SNAPSHOT_LOG_BYTES: u64 = 32 * 1024 * 1024;

/// …but not later than this: the log since the last snapshot is in memory for those who catch up,
/// and is executed again after a restart.
const SNAPSHOT_LOG_BYTES_MAX: u64 = 512 * 1024 * 1024;

/// How fast snapshots are written, and how fast they are handed to others: a small part of what a
/// disk and a link carry, and of what a processor encodes, so that commands do not notice.
pub const SNAPSHOT_BYTES_PER_SECOND: u64 = 64 * 1024 * 1024;

/// One part, encoded in one turn: some tenths of a millisecond.
const PART_BYTES: usize = 128 * 1024;

/// Parts on their way to the disk: more only take memory.
const PARTS_UNDER_WAY_MAX: u32 = 4;

/// A snapshot that could not be written is tried again after this time: a full disk seldom has room
/// again at once.
const SNAPSHOT_AGAIN: Duration = Duration::from_secs(2);

/// A snapshot that is being written.
pub(super) struct Outgoing {
    step: Step,
    run: u64,
    parts: Parts,
    history: History,
    position: u64,
    time_ms: u64,
    /// Once durable the learner goes on from there; until then nothing is executed.
    pub(super) install: bool,
    under_way: u32,
    begun: bool,
    handed_out: bool,
    next_at: Instant,
}

/// A snapshot on the shelf.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Shelved {
    pub(crate) step: Step,
    /// Its size in bytes.
    pub(crate) total: u64,
    /// The last command in it.
    pub(crate) position: u64,
    /// Agreed time at that command.
    pub(crate) time_ms: u64,
}

/// Who waits for a snapshot of all that was executed when it asked.
#[derive(Debug)]
pub(super) struct Wanted {
    ticket: u64,
    least: Step,
    until: Instant,
}

/// More do not wait for a snapshot at once.
const WANTED_MAX: usize = 64;

/// How long after `bytes` the next may follow.
pub(crate) const fn pause_after(bytes: u64) -> Duration {
    Duration::from_nanos(bytes * 1_000_000_000 / SNAPSHOT_BYTES_PER_SECOND)
}

impl Replica {
    pub(super) fn snapshot_if_due(&mut self, out: &mut Effects<Self>) {
        let last = self.newest().map_or(0, |newest| newest.total).min(SNAPSHOT_LOG_BYTES_MAX);
        let again = self.retry_at.is_some_and(|at| self.turn.at >= at);
        let due = again || self.log_bytes >= self.snapshot_log_bytes.max(last);
        if due && self.outgoing.is_none() && self.halted.is_none() && !self.is_away() {
            self.take_snapshot(false, out);
        }
    }

    /// Freezes the state and begins to write it; an earlier one that is still being written is
    /// given up.
    pub(super) fn take_snapshot(&mut self, install: bool, out: &mut Effects<Self>) {
        self.retry_at = None;
        self.log_bytes = 0;
        let step = self.executed();
        tracing::info!(%step, "taking a snapshot");
        let parts = self.freeze();
        self.outgoing = Some(Outgoing {
            step,
            run: self.next_run(),
            parts,
            history: self.state.history.clone(),
            position: self.state.position,
            time_ms: self.state.time_ms,
            install,
            under_way: 0,
            begun: false,
            handed_out: false,
            next_at: self.turn.at,
        });
        self.hand_out(out);
    }

    /// Encodes the next part, if it is time for one.
    pub(super) fn hand_out(&mut self, out: &mut Effects<Self>) {
        let Some(outgoing) = &mut self.outgoing else { return };
        let now = self.turn.at;
        if outgoing.next_due().is_none_or(|at| now < at) {
            return;
        }
        let mut part = Vec::with_capacity(PART_BYTES + PART_BYTES / 8);
        let more = outgoing.parts.next(&mut self.machines, PART_BYTES, &mut part);
        outgoing.next_at = now + pause_after(part.len() as u64);
        outgoing.under_way += 1;
        outgoing.handed_out = !more;
        out.shelf.push(ShelfTask::Write(ShelfWrite {
            step: outgoing.step.0,
            run: outgoing.run,
            lot: Lot::Own,
            first: !std::mem::replace(&mut outgoing.begun, true),
            last: !more,
            part: Bytes::from(part),
            digest: None,
        }));
    }

    /// The shelf wrote a part.
    pub(super) fn written(&mut self, written: &SnapshotWritten, out: &mut Effects<Self>) {
        if written.lot == Lot::Fetched {
            return self.fetched(written, out);
        }
        let Some(outgoing) = self.outgoing.as_mut().filter(|one| one.run == written.run) else {
            return;
        };
        match written.written {
            Written::Part | Written::Resumed(_) => {
                outgoing.under_way = outgoing.under_way.saturating_sub(1);
                self.hand_out(out);
            }
            Written::Failed => {
                tracing::error!(step = %written.step, "a snapshot could not be written");
                let install = outgoing.install;
                self.give_up_snapshot();
                // Without one the journal only grows: tried again before the log is that long again.
                self.retry_at = (!install).then(|| self.turn.at + SNAPSHOT_AGAIN);
                self.resume(install, out);
            }
            Written::Whole { total, .. } => {
                let Some(outgoing) = self.outgoing.take() else { return };
                let Outgoing { step, install, history, position, time_ms, .. } = outgoing;
                if install {
                    out.here(LearnerMessage::Installed(Installed { history }));
                    self.resume(install, out);
                }
                self.shelved(Shelved { step, total, position, time_ms }, out);
            }
        }
    }

    /// A snapshot is on the shelf: the log below it may go.
    pub(super) fn shelved(&mut self, shelved: Shelved, out: &mut Effects<Self>) {
        self.shelf.retain(|other| other.step != shelved.step);
        self.shelf.push(shelved);
        let surplus = self.shelf.len().saturating_sub(synod_runtime::snapshot::SNAPSHOTS_KEPT);
        self.shelf.drain(..surplus);
        out.here(LearnerMessage::TrimLog(TrimLog { upto: shelved.step }));
        self.serve_patient(out);
        self.answer_wanted(out);
    }

    /// Somebody asks for a snapshot of all that was executed so far.
    pub(super) fn want_whole(&mut self, read: &NewRead, out: &mut Effects<Self>) {
        let least = self.executed();
        let until = self.turn.at + read.patience;
        if self.wanted.len() < WANTED_MAX {
            self.wanted.push(Wanted { ticket: read.ticket, least, until });
        }
        self.answer_wanted(out);
    }

    /// Answers those who wait for a snapshot; takes one for those who need a newer one.
    pub(super) fn answer_wanted(&mut self, out: &mut Effects<Self>) {
        let (newest, now) = (self.newest(), self.turn.at);
        let mut answers = Vec::new();
        self.wanted.retain(|wanted| {
            let found = newest.filter(|newest| newest.step >= wanted.least);
            let answer = match found {
                Some(found) => Ok(rmp_serde::to_vec(&found).expect("plain data encodes").into()),
                None if now >= wanted.until => Err("not applied: it takes too long".to_owned()),
                None => return true,
            };
            let position = found.map_or(0, |found| found.position);
            answers.push((wanted.ticket, position, answer));
            false
        });
        if !answers.is_empty() {
            out.here(HomeMessage::Answers(Answers { answers }));
        }
        let may = self.outgoing.is_none() && self.halted.is_none() && !self.is_away();
        if !self.wanted.is_empty() && may {
            self.take_snapshot(false, out);
        }
    }

    /// What is frozen is not the state any more, or cannot be written.
    pub(super) fn give_up_snapshot(&mut self) {
        if self.outgoing.take().is_some() {
            for machine in self.machines.values_mut() {
                if let Some(actor) = machine.in_parts() {
                    actor.let_go();
                }
            }
        }
    }

    /// The newest snapshot of this node.
    pub(super) fn newest(&self) -> Option<Shelved> {
        self.shelf.last().copied()
    }

    pub(super) fn next_run(&mut self) -> u64 {
        self.runs += 1;
        self.runs
    }
}

impl Wanted {
    /// Nobody waits any longer then.
    pub(super) fn until(&self) -> Instant {
        self.until
    }
}

impl Outgoing {
    /// When the next part is to be encoded, unless others must be written first.
    pub(super) fn next_due(&self) -> Option<Instant> {
        (!self.handed_out && self.under_way < PARTS_UNDER_WAY_MAX).then_some(self.next_at)
    }
}
