//! What the learner notes in the journal, lazily, and what it finds there again.

use std::collections::BTreeMap;

use super::{Chosen, Learner, MARK_AFTER, MARK_STEPS};
use crate::{
    consensus::{
        ballot::Step,
        configuration::History,
        message::{AcceptorMessage, LearnerMessage, Settled, Trim, Vote},
        record::{Image, Record},
    },
    effects::Effects,
    machine::{Now, Survived},
};

impl Learner {
    pub(super) fn note_value(&self, step: Step, chosen: &Chosen, out: &mut Effects<Self>) {
        let vote = Vote { step, ballot: chosen.ballot, value: chosen.value.clone() };
        out.persist_lazily(Record::Chosen(vote));
    }

    /// Notes durably how far the log is chosen, now and then.
    pub(super) fn note(&mut self, now: Now, out: &mut Effects<Self>) {
        let executed = self.history.executed();
        let Some(since) = self.durable.since else { return };
        let due = now.at >= since + MARK_AFTER || executed.beyond(self.durable.noted) >= MARK_STEPS;
        if !due {
            return;
        }
        self.durable.noted = executed;
        let settled = LearnerMessage::Settled(Settled { upto: executed });
        if now.at >= since + MARK_AFTER {
            self.durable.since = None;
            out.persist(Record::Mark(executed)).then_here(settled);
        } else {
            // Under load the next votes carry it to the disk at no price; nobody hears of it yet.
            out.persist_lazily(Record::Mark(executed));
        }
    }

    /// A snapshot covers the log up to there.
    pub(super) fn trim(&mut self, upto: Step, out: &mut Effects<Self>) {
        // Made anew, it may know less than its replica executed: those votes are still needed.
        if upto >= self.covered && upto <= self.history.executed() {
            sometimes!(JournalTrimmed);
            self.covered = upto;
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
        let mut marked = Step(0);
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
                Record::Mark(step) => marked = marked.max(*step),
                Record::Promise(_)
                | Record::Trimmed(_)
                | Record::Floor(..)
                | Record::Torn
                | Record::Mended => {}
            }
        }
        let history = history.unwrap_or_default();
        let mut known = Self { chosen: Vec::new(), votes: Vec::new(), history };
        let mut step = known.history.executed().next();
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
            known.chosen.push((step, Chosen { ballot: vote.ballot, value, own }));
            step = step.next();
        }
        known.votes = votes.into_values().filter(|vote| vote.step >= step).collect();
        known
    }
}
