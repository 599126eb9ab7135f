//! Reads at a node that is far behind, or holds no log: its home has them answered by the leader's.

use synod_runtime::identity::NodeId;

use super::{Home, READS_MAX, answer};
use crate::{
    consensus::message::{
        End, Forward, Forwarded, ForwardedAnswer, ForwardedRead, HomeMessage, NewRead,
    },
    effects::{Effects, To},
    machine::Now,
    replicated::Consistency,
};

/// Set in the tickets of reads that came from another home.
pub(super) const FORWARDED: u64 = 1 << 63;

impl Home {
    /// Asks the leader's home for all reads of the present round that are still open.
    pub(super) fn forward_round(&self, leader: &NodeId, out: &mut Effects<Self>) {
        let Some(round) = &self.round else { return };
        let reads = round
            .reads
            .iter()
            .map(|(read, _)| ForwardedRead {
                ticket: read.ticket,
                actor: read.actor,
                function: read.function,
                args: read.args.clone(),
            })
            .collect();
        out.send(To::Node(leader.clone()), HomeMessage::Forward(Forward { reads }));
    }

    /// Another home has reads it cannot answer.
    pub(super) fn forwarded_here(&mut self, now: Now, from: &NodeId, asked: Forward) {
        // Asked again every now and then, so each attempt need not live long.
        let patience = 4 * self.timing.resend;
        let until = now.at + patience;
        self.forwarded.retain(|_, (_, _, until)| now.at < *until);
        for read in asked.reads {
            if self.reads.len() >= READS_MAX || self.forwarded.len() >= READS_MAX {
                return; // it asks again
            }
            self.rounds += 1;
            let ticket = FORWARDED | self.rounds;
            self.forwarded.insert(ticket, (from.clone(), read.ticket, until));
            self.next_expiry = self.next_expiry.min(until);
            let ForwardedRead { actor, function, args, .. } = read;
            let consistency = Consistency::Linearizable;
            let read = NewRead { ticket, actor, function, args, consistency, patience };
            self.reads.push_back((read, until));
        }
    }

    /// Tells another home what its read answered.
    pub(super) fn send_back(&mut self, ticket: u64, end: &End, out: &mut Effects<Self>) {
        let Some((home, ticket, _)) = self.forwarded.remove(&ticket) else { return };
        let (position, result) = match end {
            End::Done(position, reply) => (*position, Ok(reply.clone())),
            End::Failed(position, why) => (*position, Err(why.clone())),
            End::NotApplied(_) | End::Unknown(_) => return, // it asks again
        };
        let answers = vec![ForwardedAnswer { ticket, position, result }];
        out.send(To::Node(home), HomeMessage::Forwarded(Forwarded { answers }));
    }

    /// The leader's home answers.
    pub(super) fn forwarded_back(&mut self, answers: Forwarded, out: &mut Effects<Self>) {
        let Some(round) = &mut self.round else { return };
        for ForwardedAnswer { ticket, position, result } in answers.answers {
            let before = round.reads.len();
            round.reads.retain(|(read, _)| read.ticket != ticket);
            if round.reads.len() < before {
                let end = match result {
                    Ok(reply) => End::Done(position, reply),
                    Err(why) => End::Failed(position, why),
                };
                answer(ticket, end, out);
            }
        }
        if round.reads.is_empty() {
            self.round = None;
        }
    }
}
