//! The acceptor of a main: promises and votes.
//!
//! Rules P and V of the manual; both are durable before they are said. Votes are kept until a
//! snapshot covers their step. An acceptor whose journal ended torn neither promises a leader nor
//! votes until the proposer has made up for what may be missing ([`super::proposer`], `mend`).

use std::{collections::BTreeMap, time::Duration};

use synod_runtime::{identity::NodeId, world::Instant};

use super::{
    ballot::{Ballot, Run, Step},
    message::{
        Accept, Accepted, AcceptorMessage, Confirm, Confirmed, HomeMessage, Learned,
        LearnerMessage, LeaseAsk, LeaseAsked, Mark, Mend, Mended, Message, Nack, Prepare, Promise,
        Proposed, ProposerMessage, TellAgain, Trim, Vote, Voted,
    },
    record::{Image, Record, chosen_upto, is_torn},
    value::Value,
};
use crate::{
    effects::{Effects, To, Truncate},
    machine::{Machine, Now, Survived},
};

/// See the module's documentation.
#[derive(Debug)]
pub struct Acceptor {
    me: NodeId,
    /// Nothing below is promised or voted for (R1.17).
    promised: Ballot,
    /// The last vote for each step above `trimmed`; those below go a few a turn.
    votes: BTreeMap<Step, (Ballot, Value)>,
    /// Covered by a snapshot.
    trimmed: Step,
    /// Known to be chosen, as far as the learner told.
    chosen_upto: Step,
    /// The other mains.
    others: Vec<NodeId>,
    /// The journal ended torn: it may have promised and voted what it does not know.
    torn: bool,
    /// The journal is trimmed at the end of this turn, when all its promises are known.
    trims: bool,
    /// When to go on forgetting votes that a snapshot covers.
    forget_at: Option<Instant>,
    /// This node's disk takes no votes, but for those that its reserve is for.
    full: bool,
}

/// Votes forgotten in one turn: a snapshot of a large state covers hundreds of thousands, and to free
/// them at once would let every client wait.
pub(super) const FORGET_STEPS_MAX: usize = 512;

/// …or so many bytes of them.
pub(super) const FORGET_BYTES_MAX: usize = 4 * 1024 * 1024;

/// The pause between such turns, when nothing else happens.
pub(super) const FORGET_AGAIN: Duration = Duration::from_millis(2);

impl Acceptor {
    /// The acceptor of node `me`, knowing nothing.
    pub fn new(me: NodeId) -> Self {
        Self {
            me,
            promised: Ballot::default(),
            votes: BTreeMap::new(),
            trimmed: Step(0),
            chosen_upto: Step(0),
            others: Vec::new(),
            torn: false,
            trims: false,
            forget_at: None,
            full: false,
        }
    }

    fn prepare(&mut self, from: &NodeId, asked: &Prepare, out: &mut Effects<Self>) {
        if asked.ballot < self.promised {
            return self.refuse(from, asked.ballot, out);
        }
        let persisted = if asked.ballot > self.promised {
            self.promised = asked.ballot;
            out.persist(Record::Promise(asked.ballot))
        } else {
            out.after_all_before()
        };
        // Below, what was chosen is known here and handed over by the learner, not as votes.
        let first = asked.from.max(self.chosen_upto.next()).max(self.trimmed.next());
        #[cfg(any(test, feature = "mutations"))]
        let first = if crate::mutation::on(crate::mutation::Mutation::PromiseBelowTrimmed) {
            asked.from
        } else {
            first
        };
        sometimes!(PromiseReportsVotes if self.votes.range(first..).next().is_some());
        let votes = self
            .votes
            .range(first..)
            .map(|(step, (ballot, value))| Vote {
                step: *step,
                ballot: *ballot,
                value: value.clone(),
            })
            .collect();
        let promise = ProposerMessage::Promise(Promise {
            ballot: asked.ballot,
            from: first,
            votes,
            chosen_upto: self.chosen_upto,
        });
        persisted.then_send(To::Node(from.clone()), promise);
    }

    fn accept(&mut self, from: &NodeId, asked: Accept, out: &mut Effects<Self>) {
        let ballot = asked.ballot;
        let stale = ballot < self.promised;
        #[cfg(any(test, feature = "mutations"))]
        let stale = stale && !crate::mutation::on(crate::mutation::Mutation::VoteBelowPromise);
        if stale {
            return self.refuse(from, ballot, out);
        }
        if asked.voted.is_some() || asked.chosen.is_some() {
            let mark = Mark { ballot, voted: asked.voted, chosen: asked.chosen };
            out.here(LearnerMessage::Mark(mark));
        }
        // A covered step was chosen, so its value is known; this node cannot vote on it again.
        let skip = self.trimmed.next().beyond(asked.first);
        sometimes!(CoveredStepAsked if skip > 0);
        let values: Vec<Value> =
            asked.values.into_iter().skip(usize::try_from(skip).unwrap_or(usize::MAX)).collect();
        let first = asked.first.plus(skip);
        let Some(run) = last_of(first, values.len()).and_then(|last| Run::new(first, last)) else {
            return;
        };
        if self.full && !values.iter().all(Record::fits_in_reserve) {
            sometimes!(FullKeepsNoVote);
            // No vote, and no ballot raised. A vote that is refused would have to be taken back, and
            // that takes reading the journal again; the others go on without it.
            return out.here(LearnerMessage::Proposed(Proposed { ballot, first, values }));
        }
        // Not before: a ballot raised without a record would be promised later without one.
        self.promised = self.promised.max(ballot);
        for (step, value) in (first.0..).map(Step).zip(&values) {
            if self.votes.get(&step).is_some_and(|(voted, _)| *voted == ballot) {
                sometimes!(VoteAskedAgain);
                continue; // a repetition: the vote is on its way to the disk, or there
            }
            self.votes.insert(step, (ballot, value.clone()));
            out.persist(Record::Vote(Vote { step, ballot, value: value.clone() }));
        }
        let mut persisted = out.after_all_before().then_here(LearnerMessage::Voted(Voted {
            ballot,
            first,
            values,
        }));
        let accepted = LearnerMessage::Accepted(Accepted { ballot, run });
        if *from != self.me {
            persisted = persisted.then_send(To::Node(from.clone()), accepted.clone());
            // With more than two mains the others need this vote too, to see the step chosen.
            for other in self.others.iter().filter(|other| *other != from) {
                persisted = persisted.then_send(To::Node(other.clone()), accepted.clone());
            }
        }
        #[cfg(any(test, feature = "mutations"))]
        if crate::mutation::on(crate::mutation::Mutation::SaidBeforeDurable) {
            let held = std::mem::take(&mut out.held);
            out.now.extend(held);
        }
    }

    fn refuse(&self, from: &NodeId, ballot: Ballot, out: &mut Effects<Self>) {
        sometimes!(OlderBallotRefused);
        // Claiming what was promised is harmless before it is durable: it only refuses.
        let nack = ProposerMessage::Nack(Nack { ballot, promised: self.promised });
        out.send(To::Node(from.clone()), nack);
    }

    fn confirm(&self, from: &NodeId, asked: &Confirm, out: &mut Effects<Self>) {
        let Confirm { round, leader } = *asked;
        let confirmed = Confirmed { round, leader, promised: self.promised, voted: self.voted() };
        let to = To::Node(from.clone());
        if leader.is_some() {
            out.send(to, ProposerMessage::Confirmed(confirmed));
        } else {
            out.send(to, HomeMessage::Confirmed(confirmed));
        }
    }

    /// The last step this node voted for, or knows from a snapshot.
    fn voted(&self) -> Step {
        self.votes.last_key_value().map_or(self.trimmed, |(step, _)| self.trimmed.max(*step))
    }

    /// Forgets some of what a snapshot covers.
    fn forget(&mut self, now: Now) {
        let mut bytes = 0;
        for _ in 0..FORGET_STEPS_MAX {
            let covered = self.votes.first_entry().filter(|entry| *entry.key() <= self.trimmed);
            let Some(covered) = covered.filter(|_| bytes < FORGET_BYTES_MAX) else { break };
            bytes += covered.remove().1.bytes().len();
        }
        let more = self.votes.first_key_value().is_some_and(|(step, _)| *step <= self.trimmed);
        self.forget_at = more.then(|| now.at + FORGET_AGAIN);
    }

    /// What the proposer grants is about this node's votes, so it hears of both together.
    fn lease_asked(&self, by: &NodeId, asked: &LeaseAsk, out: &mut Effects<Self>) {
        // A promise that a crash could undo ends no former ballot.
        out.after_all_before().then_here(ProposerMessage::LeaseAsked(LeaseAsked {
            by: by.clone(),
            ask: asked.clone(),
            promised: self.promised,
            voted: self.voted(),
        }));
    }

    /// The others have promised a ballot above all that may be missing here, and this is what they
    /// voted for before. From now on this node's votes are those: as good as its own, since nothing
    /// below that ballot can be chosen any more but what is among them.
    fn mend(&mut self, mend: Mend, out: &mut Effects<Self>) {
        if self.torn {
            self.torn = false;
            self.promised = self.promised.max(mend.ballot);
            out.persist(Record::Promise(self.promised));
            for vote in mend.votes {
                let newer = self.votes.get(&vote.step).is_none_or(|(own, _)| *own < vote.ballot);
                if newer && vote.step > self.trimmed {
                    sometimes!(MendTakesVotes);
                    self.votes.insert(vote.step, (vote.ballot, vote.value.clone()));
                    out.persist(Record::Vote(vote));
                }
            }
            out.persist(Record::Mended);
        }
        out.after_all_before().then_here(ProposerMessage::Mended(Mended {}));
    }

    /// Lets the journal forget what a snapshot covers. Votes beyond it stay where they are, so the
    /// price does not depend on how many came while the snapshot was written.
    fn trim(&self, out: &mut Effects<Self>) {
        let mut carry = vec![Record::Promise(self.promised), Record::Trimmed(self.trimmed)];
        carry.extend(self.torn.then_some(Record::Torn));
        #[cfg(any(test, feature = "mutations"))]
        if crate::mutation::on(crate::mutation::Mutation::TruncateForgetsPromise) {
            carry.clear();
        }
        let upto = self.trimmed.0;
        #[cfg(any(test, feature = "mutations"))]
        let upto = if crate::mutation::on(crate::mutation::Mutation::TrimsBeyondSnapshot) {
            self.voted().0
        } else {
            upto
        };
        out.truncate = Some(Truncate { upto, carry });
    }
}

impl Machine for Acceptor {
    type Message = AcceptorMessage;
    type Envelope = Message;
    type Record = Record;
    type Snapshot = Image;

    fn start(&mut self, _now: Now, survived: &Survived<Record, Image>, out: &mut Effects<Self>) {
        out.here(LearnerMessage::TellAgain(TellAgain));
        if let Some(image) = &survived.snapshot {
            self.trimmed = image.history.executed();
        }
        for record in &survived.records {
            match record {
                Record::Promise(ballot) => self.promised = self.promised.max(*ballot),
                Record::Vote(vote) => {
                    self.promised = self.promised.max(vote.ballot);
                    if vote.step > self.trimmed {
                        self.votes.insert(vote.step, (vote.ballot, vote.value.clone()));
                    }
                }
                Record::Genesis(_)
                | Record::Chosen(_)
                | Record::Mark(_)
                | Record::Trimmed(_)
                | Record::Floor(..)
                | Record::Torn
                | Record::Mended => {}
            }
        }
        self.torn = is_torn(&survived.records);
        #[cfg(any(test, feature = "mutations"))]
        if crate::mutation::on(crate::mutation::Mutation::TornEndTrusted) {
            self.torn = false;
        }
        self.chosen_upto = chosen_upto(&survived.records, self.trimmed);
    }

    fn room(&mut self, full: bool) {
        self.full = full;
    }

    fn message(
        &mut self,
        _now: Now,
        from: &NodeId,
        message: AcceptorMessage,
        out: &mut Effects<Self>,
    ) {
        match message {
            AcceptorMessage::Mend(mend) => self.mend(mend, out),
            // Also while torn itself: two disks do not break their word at once.
            AcceptorMessage::Vouch(asked) => {
                sometimes!(TornVouches if self.torn);
                self.prepare(from, &asked, out);
            }
            AcceptorMessage::Prepare(_)
            | AcceptorMessage::Accept(_)
            | AcceptorMessage::Confirm(_)
            | AcceptorMessage::LeaseAsk(_)
                if self.torn =>
            {
                sometimes!(TornKeepsSilent);
            }
            AcceptorMessage::Prepare(asked) => self.prepare(from, &asked, out),
            AcceptorMessage::Accept(asked) => self.accept(from, asked, out),
            AcceptorMessage::Confirm(asked) => self.confirm(from, &asked, out),
            AcceptorMessage::LeaseAsk(asked) => self.lease_asked(from, &asked, out),
            AcceptorMessage::Learned(Learned { chosen_upto, others }) => {
                // Not the greatest ever told: a learner that was made anew knows less, and what it
                // cannot hand over has to be reported as votes.
                self.chosen_upto = chosen_upto.max(self.trimmed);
                self.others = others;
            }
            AcceptorMessage::Trim(Trim { upto }) => {
                self.trimmed = self.trimmed.max(upto);
                self.trims = true;
            }
        }
    }

    fn flush(&mut self, now: Now, out: &mut Effects<Self>) {
        let trims = std::mem::take(&mut self.trims);
        if trims {
            self.trim(out);
        }
        if trims || self.forget_at.is_some() {
            self.forget(now);
        }
    }

    fn timeout(&mut self, _now: Now, _out: &mut Effects<Self>) {}

    fn deadline(&self) -> Option<Instant> {
        self.forget_at
    }
}

/// The last of `count` steps that begin with `first`.
pub(super) fn last_of(first: Step, count: usize) -> Option<Step> {
    u64::try_from(count).ok()?.checked_sub(1).map(|more| first.plus(more))
}
