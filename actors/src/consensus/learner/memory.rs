//! What the learner notes in the journal, lazily, and what it finds there again.
//!
//! A note says which steps are chosen. The values that this node did not vote for stand in the same
//! call, so a note is kept with them or not at all: else an old vote of a step could be taken for the
//! value that was chosen there. What a full journal may drop holds no such values, and what is told to
//! others as durable rests on none of it.

use std::{collections::BTreeMap, time::Duration};

use synod_runtime::world::Instant;

use super::{Chosen, Learner};
use crate::{
    consensus::{
        ballot::{Run, Step},
        configuration::History,
        message::{AcceptorMessage, LearnerMessage, Settled, Trim, Vote},
        record::{Image, Record, chosen_upto},
    },
    effects::Effects,
    machine::{Now, Survived},
};

/// What was learned becomes durable knowledge this long after, if nothing else did it before.
const MARK_AFTER: Duration = Duration::from_millis(100);

/// …or after this many steps.
const MARK_STEPS: u64 = 64;

/// Values in one note, but for the last: a call of the journal has a bound.
const NOTE_BYTES_MAX: usize = 1024 * 1024;

/// What of the chosen prefix would be known again after a crash.
#[derive(Debug, Default)]
pub(super) struct Durable {
    /// Surely.
    pub(super) upto: Step,
    /// Noted, but maybe not on disk yet.
    noted: Step,
    /// Noted where a full journal drops it.
    hinted: Step,
    /// When the first step beyond `noted` was learned.
    since: Option<Instant>,
    /// Bytes of values beyond `noted` that this node did not vote for.
    foreign: usize,
}

impl Durable {
    /// Nothing but this.
    pub(super) fn at(upto: Step) -> Self {
        Self { upto, noted: upto, hinted: upto, ..Self::default() }
    }

    /// A step was learned.
    pub(super) fn learned(&mut self, now: Now, chosen: &Chosen) {
        self.since.get_or_insert(now.at);
        self.foreign += if chosen.own { 0 } else { chosen.value.bytes().len() };
    }

    /// What came of a note. One behind another that was refused says nothing: it is written again.
    pub(super) fn settled(&mut self, now: Now, settled: &Settled) {
        if settled.kept && settled.first <= self.upto.next() {
            self.upto = self.upto.max(settled.upto);
        } else if settled.upto > self.upto {
            (self.noted, self.hinted) = (self.upto, self.upto);
            // There are values among them, for all that is known here.
            self.foreign = self.foreign.max(1);
            self.since = Some(now.at);
        }
    }

    /// A snapshot is durable.
    fn covered(&mut self, upto: Step) {
        self.upto = self.upto.max(upto);
        (self.noted, self.hinted) = (self.noted.max(upto), self.hinted.max(upto));
    }

    /// When the next note is due.
    pub(super) fn due(&self) -> Option<Instant> {
        self.since.map(|since| since + MARK_AFTER)
    }
}

impl Learner {
    /// Notes durably how far the log is chosen, now and then.
    pub(super) fn note(&mut self, now: Now, out: &mut Effects<Self>) {
        let executed = self.history.executed();
        let Some(due) = self.durable.due() else { return };
        let overdue = now.at >= due || self.durable.foreign >= NOTE_BYTES_MAX;
        if !overdue && executed.beyond(self.durable.hinted) < MARK_STEPS {
            return;
        }
        if self.dropped > self.covered.max(self.durable.noted) {
            self.durable.since = None; // nothing is known beyond a hole: a snapshot is needed first
            return;
        }
        let first = self.durable.noted.max(self.covered).next();
        if !overdue && self.durable.foreign == 0 {
            // Under load the next votes carry it to the disk at no price; nobody hears of it yet.
            self.durable.hinted = executed;
            if let Some(run) = Run::new(first, executed) {
                out.persist_lazily(Record::Mark(run));
            }
            return;
        }
        let (mut last, mut bytes, mut records) = (executed, 0, Vec::new());
        for (step, chosen) in self.log.range(first..).filter(|(_, chosen)| !chosen.own) {
            let (ballot, value) = (chosen.ballot, chosen.value.clone());
            bytes += value.bytes().len();
            records.push(Record::Chosen(Vote { step: *step, ballot, value }));
            if bytes >= NOTE_BYTES_MAX {
                last = *step;
                break;
            }
        }
        records.extend(Run::new(first, last).map(Record::Mark));
        let settled = Settled { first, upto: last, kept: true };
        let refused = Settled { kept: false, ..settled };
        out.offer(records, LearnerMessage::Settled(settled), LearnerMessage::Settled(refused));
        let whole = last == executed;
        self.durable.since = self.durable.since.filter(|_| !whole);
        self.durable.foreign = if whole { 0 } else { self.durable.foreign.saturating_sub(bytes) };
        (self.durable.noted, self.durable.hinted) = (last, last);
    }

    /// A snapshot covers the log up to there.
    pub(super) fn trim(&mut self, upto: Step, out: &mut Effects<Self>) {
        // Made anew, it may know less than its replica executed: those votes are still needed.
        if upto >= self.covered && upto <= self.history.executed() {
            sometimes!(JournalTrimmed);
            self.covered = upto;
            self.durable.covered(upto);
            if upto < self.history.executed() && self.dropped > Step(0) {
                self.durable.since = Some(Instant::default()); // what a hole held back
            }
            out.here(AcceptorMessage::Trim(Trim { upto }));
        }
    }
}

/// What of the log the journal still knows.
pub(super) struct Known {
    pub(super) history: History,
    pub(super) chosen: Vec<(Step, Chosen)>,
    pub(super) votes: Vec<Vote>,
}

impl Known {
    pub(super) fn of(survived: &Survived<Record, Image>) -> Self {
        let mut history = survived.snapshot.as_ref().map(|image| image.history.clone());
        let mut chosen = BTreeMap::new();
        let mut votes = BTreeMap::new();
        for record in &survived.records {
            match record {
                Record::Genesis(genesis) => {
                    history.get_or_insert_with(|| History::new(genesis.clone()));
                }
                Record::Vote(vote) => {
                    votes.insert(vote.step, vote.clone());
                }
                Record::Chosen(vote) => {
                    chosen.insert(vote.step, vote.clone());
                }
                Record::Promise(_)
                | Record::Mark(_)
                | Record::Trimmed(_)
                | Record::Floor(..)
                | Record::Torn
                | Record::Mended => {}
            }
        }
        let history = history.unwrap_or_default();
        let mut known = Self { chosen: Vec::new(), votes: Vec::new(), history };
        let covered = known.history.executed();
        let (mut step, marked) = (covered.next(), chosen_upto(&survived.records, covered));
        while step <= marked {
            // Beyond a hole nothing is known, and nothing is guessed: the peers are asked.
            let Some((vote, own)) = chosen
                .get(&step)
                .map(|vote| (vote, false))
                .or_else(|| votes.get(&step).map(|vote| (vote, true)))
            else {
                break;
            };
            let value = vote.value.clone();
            known.chosen.push((step, Chosen { ballot: vote.ballot, value, own, alone: false }));
            step = step.next();
        }
        known.votes = votes.into_values().filter(|vote| vote.step >= step).collect();
        known
    }
}
