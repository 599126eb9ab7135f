//! Where a read must wait for (ReadIndex, R1 and R2 of the manual).
//!
//! The index is the last step this leader *proposed*, not the last it knows to be chosen: another
//! main may already have answered a client for it. Before it is given out, a quorum of the
//! configuration of the step after it must say that no newer leader was promised anything, each
//! word being younger than the read, and the leader must hold that configuration's promises. A home with an acceptor of its own brings that acceptor's
//! word along, so that with two mains one round trip is enough.

use std::collections::BTreeSet;

use synod_runtime::{
    identity::{Incarnation, NodeId},
    world::Instant,
};

use super::{Phase, Proposer};
use crate::{
    consensus::{
        ballot::Step,
        message::{
            AcceptorMessage, AuxiliaryMessage, Confirm, Confirmed, HomeMessage, ReadAt, ReadIndex,
        },
    },
    effects::{Effects, To},
};

/// Rounds of reads that may wait for words at once: one a home and a little for repetitions.
const READS_MAX: usize = 1_024;

/// One round of reads of one home.
#[derive(Debug)]
pub(super) struct PendingRead {
    home: NodeId,
    round: u64,
    at: Step,
    /// Words asked for under this number count.
    asked: u64,
    words: BTreeSet<Incarnation>,
    since: Instant,
    hedged: bool,
}

impl PendingRead {
    /// Tells the home to ask another.
    pub(super) fn refuse(self, out: &mut Effects<Proposer>) {
        out.send(To::Node(self.home), HomeMessage::ReadAt(ReadAt { round: self.round, at: None }));
    }
}

impl Proposer {
    /// A home asks where its reads must wait for.
    pub(super) fn read_index(&mut self, from: &NodeId, asked: &ReadIndex, out: &mut Effects<Self>) {
        let now = self.turn.at;
        if let Phase::Leading(reign) = &mut self.phase
            && reign.established
            && reign.opened
            && reign.reads.len() < READS_MAX
        {
            // Beyond what is proposed and what was reported to be voted for nothing is chosen.
            let at = Step(reign.next.0 - 1).max(reign.last_reported());
            let mut words = BTreeSet::new();
            if asked.witness.is_some_and(|promised| promised <= reign.ballot) {
                words.insert(from.incarnation);
            }
            reign.reads.push(PendingRead {
                home: from.clone(),
                round: asked.round,
                at,
                asked: reign.read_round + 1,
                words,
                since: now,
                hedged: false,
            });
            if *from != self.me {
                reign.awaited = reign.awaited.max(at); // it must learn up to there
            }
            return;
        }
        let answer = ReadAt { round: asked.round, at: None };
        out.send(To::Node(from.clone()), HomeMessage::ReadAt(answer));
        out.send(To::Node(from.clone()), HomeMessage::Leader(self.leader_news()));
    }

    /// An acceptor's word.
    pub(super) fn confirmed(&mut self, from: &NodeId, confirmed: &Confirmed) {
        let Phase::Leading(reign) = &mut self.phase else { return };
        // A late word of an earlier reign of this node is older than the reads of this one.
        if confirmed.leader == Some(reign.ballot) && confirmed.promised <= reign.ballot {
            for read in &mut reign.reads {
                let younger = read.asked <= confirmed.round;
                #[cfg(any(test, feature = "mutations"))]
                let younger =
                    younger || crate::mutation::on(crate::mutation::Mutation::OldWordsCount);
                if younger {
                    read.words.insert(from.incarnation);
                }
            }
        }
    }

    /// A promise reported votes: what is reported may have been answered to a client before a read
    /// that already waits began.
    pub(super) fn raise_reads(&mut self) {
        let Phase::Leading(reign) = &mut self.phase else { return };
        let last = reign.last_reported();
        reign.reads.iter_mut().for_each(|read| read.at = read.at.max(last));
    }

    /// Asks for the words that new reads need, and answers those that have them.
    pub(super) fn confirm_reads(&mut self, out: &mut Effects<Self>) {
        let Phase::Leading(reign) = &self.phase else { return };
        if reign.reads.is_empty() {
            return;
        }
        let me = self.me.incarnation;
        let Some(configuration) = self.history.at(reign.next).cloned() else { return };
        let now = self.turn.at;
        // Who is known to be silent need not be waited for.
        let hedge = match self.silent(&configuration).is_empty() {
            true => self.timing.hedge,
            false => std::time::Duration::ZERO,
        };
        let Phase::Leading(reign) = &mut self.phase else { return };
        let fresh: Vec<&PendingRead> =
            reign.reads.iter().filter(|read| read.asked > reign.read_round).collect();
        if !fresh.is_empty() {
            let enough_with_me = fresh.iter().all(|read| {
                let mut words = read.words.clone();
                words.insert(me);
                configuration.is_quorum(&words)
            });
            reign.read_round += 1;
            let confirm = Confirm { round: reign.read_round, leader: Some(reign.ballot) };
            out.here(AcceptorMessage::Confirm(confirm.clone()));
            if !enough_with_me {
                for main in configuration.other_mains(me) {
                    out.send(To::Node(main.clone()), AcceptorMessage::Confirm(confirm.clone()));
                }
            }
        }
        let confirm = Confirm { round: reign.read_round, leader: Some(reign.ballot) };
        let mut late = false;
        for read in reign.reads.iter_mut().filter(|read| now >= read.since + hedge) {
            late |= !std::mem::replace(&mut read.hedged, true);
        }
        if late {
            for main in configuration.other_mains(me) {
                out.send(To::Node(main.clone()), AcceptorMessage::Confirm(confirm.clone()));
            }
            for auxiliary in &configuration.auxiliaries {
                let confirm = AuxiliaryMessage::Confirm(confirm.clone());
                out.send(To::Node(auxiliary.clone()), confirm);
            }
        }
        self.answer_reads(out);
    }

    fn answer_reads(&mut self, out: &mut Effects<Self>) {
        let (now, give_up) = (self.turn.at, 4 * self.timing.election);
        let Phase::Leading(reign) = &self.phase else { return };
        // Words that nobody was promised more are not enough: in a configuration that has just come
        // into force a newcomer may lead in a *lower* ballot, by a quorum that this ballot never
        // asked. Where the promises of the next step are there, it cannot.
        let led: Vec<bool> =
            reign.reads.iter().map(|read| self.may_propose(reign, read.at.next())).collect();
        let mut led = led.into_iter();
        let history = &self.history;
        let Phase::Leading(reign) = &mut self.phase else { return };
        reign.reads.retain(|read| {
            let leads = led.next().unwrap_or(false);
            #[cfg(any(test, feature = "mutations"))]
            let leads = leads || crate::mutation::on(crate::mutation::Mutation::ReadBeyondPromises);
            let quorum =
                leads && history.at(read.at.next()).is_some_and(|c| c.is_quorum(&read.words));
            #[cfg(any(test, feature = "mutations"))]
            let quorum = quorum || crate::mutation::on(crate::mutation::Mutation::ReadUnconfirmed);
            let hopeless = now >= read.since + give_up;
            if quorum || hopeless {
                let at = quorum.then_some(read.at);
                #[cfg(any(test, feature = "mutations"))]
                let at = match crate::mutation::on(crate::mutation::Mutation::ReadAtExecuted) {
                    true => at.map(|_at| history.executed()),
                    false => at,
                };
                let answer = HomeMessage::ReadAt(ReadAt { round: read.round, at });
                out.send(To::Node(read.home.clone()), answer);
            }
            !quorum && !hopeless
        });
    }
}
