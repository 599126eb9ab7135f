//! Reads: from what is here where that is fresh enough, else after asking how far the log is.

use synod_runtime::world::Instant;

use super::{Home, READS_MAX, Round, answer, forward};
use crate::{
    consensus::{
        ballot::Step,
        message::{
            AcceptorMessage, Answers, Confirm, Confirmed, End, LeasedRead, NewRead,
            ProposerMessage, Query, ReadAt, ReplicaMessage,
        },
    },
    effects::Effects,
    machine::Now,
    replicated::Consistency,
};

impl Home {
    pub(super) fn read(&mut self, now: Now, reads: Vec<NewRead>, out: &mut Effects<Self>) {
        let (old, fresh): (Vec<_>, Vec<_>) =
            reads.into_iter().partition(|read| self.may_be_old(now, read.consistency));
        if !old.is_empty() {
            let until = |read: NewRead| {
                let until = now.at + read.patience;
                (read, until)
            };
            let is_local = |read: &NewRead| read.consistency == Consistency::Local;
            let (local, bounded): (Vec<_>, Vec<_>) = old.into_iter().partition(is_local);
            let after = self.fresh.map_or(Step(0), |(_, after)| after);
            for (after, reads) in [(Step(0), local), (after, bounded)] {
                if !reads.is_empty() {
                    self.hand_over(after, reads.into_iter().map(until).collect(), out);
                }
            }
        }
        for read in fresh {
            if read.actor == 0 && !self.near {
                let why = "this node has no whole state yet; ask a main".to_owned();
                answer(read.ticket, End::NotApplied(why), out);
                continue;
            }
            if self.reads.len() >= READS_MAX {
                let why = "overloaded: too many reads wait".to_owned();
                answer(read.ticket, End::NotApplied(why), out);
                continue;
            }
            let until = now.at + read.patience;
            self.next_expiry = self.next_expiry.min(until);
            self.reads.push_back((read, until));
        }
    }

    /// Whether such a read need not ask how far the log is.
    fn may_be_old(&self, now: Now, consistency: Consistency) -> bool {
        let fresh = match consistency {
            Consistency::Linearizable => false,
            Consistency::Bounded(age) => self.fresh.is_some_and(|(at, _)| now.at <= at + age),
            Consistency::Local => true,
        };
        fresh && self.near
    }

    /// One round of reads at a time: what comes meanwhile goes with the next.
    pub(super) fn read_rounds(&mut self, now: Now, out: &mut Effects<Self>) {
        if self.round.is_none() && !self.reads.is_empty() {
            self.rounds += 1;
            let reads = self.reads.drain(..).collect();
            self.round = Some(Round { number: self.rounds, reads, asked: None, began: now.at });
        }
        let patience = 2 * self.timing.resend;
        let Some(leader) = self.leader.node.clone() else { return };
        let Some(round) = &mut self.round else { return };
        if round.asked.is_some_and(|at| now.at < at + patience) {
            return;
        }
        round.asked = Some(now.at);
        let number = round.number;
        if !self.near && leader != self.me {
            self.forward_round(&leader, out);
        } else {
            // How far its own acceptor voted: under a lease nobody else need be asked (R3). And its
            // word, with which a leader need ask nobody (R2).
            out.here(AcceptorMessage::Confirm(Confirm { round: number, leader: None }));
        }
    }

    pub(super) fn confirmed(&self, confirmed: &Confirmed, out: &mut Effects<Self>) {
        if self.round.as_ref().is_some_and(|round| round.number == confirmed.round) {
            let Confirmed { round, promised, voted, .. } = *confirmed;
            out.here(ProposerMessage::LeasedRead(LeasedRead { round, promised, voted }));
        }
    }

    pub(super) fn read_at(&mut self, read_at: &ReadAt, out: &mut Effects<Self>) {
        let Some(round) = self.round.take_if(|round| round.number == read_at.round) else { return };
        match read_at.at {
            Some(after) => {
                self.fresh = Some((round.began, after));
                self.hand_over(after, round.reads, out);
            }
            // Asked again when a leader is known.
            None => self.round = Some(Round { asked: round.asked, ..round }),
        }
    }

    fn hand_over(&mut self, after: Step, reads: Vec<(NewRead, Instant)>, out: &mut Effects<Self>) {
        for (read, until) in &reads {
            self.handed.insert(read.ticket, *until);
            self.next_expiry = self.next_expiry.min(*until);
        }
        let reads = reads.into_iter().map(|(read, _)| read).collect();
        out.here(ReplicaMessage::Query(Query { after, reads }));
    }

    pub(super) fn answers(&mut self, answers: Answers, out: &mut Effects<Self>) {
        for (ticket, position, result) in answers.answers {
            if self.handed.remove(&ticket).is_some() {
                let end = match result {
                    Ok(reply) => End::Done(position, reply),
                    Err(why) => End::Failed(position, why),
                };
                if ticket & forward::FORWARDED == 0 {
                    answer(ticket, end, out);
                } else {
                    self.send_back(ticket, &end, out);
                }
            }
        }
    }
}
