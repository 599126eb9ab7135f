//! Calls whose clients wait no longer.

use synod_runtime::world::Instant;

use super::{Home, answer};
use crate::{consensus::message::End, effects::Effects, machine::Now};

impl Home {
    /// Ends the calls whose clients wait no longer.
    pub(super) fn expire(&mut self, now: Now, out: &mut Effects<Self>) {
        if now.at < self.next_expiry {
            return;
        }
        let why = match &self.leader.halted {
            Some(halted) => format!("no quorum: {halted}"),
            None if self.leader.node.is_none() => "no leader".to_owned(),
            None => "the cluster did not take it in time".to_owned(),
        };
        let mut next = Instant::from_nanos(u64::MAX);
        let mut bytes = 0;
        self.waiting.retain(|waiting| {
            let late = now.at >= waiting.until;
            if late {
                bytes += waiting.command.args.len();
                answer(waiting.command.ticket, End::NotApplied(why.clone()), out);
            } else {
                next = next.min(waiting.until);
            }
            !late
        });
        self.waiting_bytes -= bytes;
        let leader = self.leader_text();
        for sent in self.sent.iter_mut() {
            if let Some((ticket, until)) = sent.ticket {
                if now.at >= until {
                    sent.ticket = None;
                    let why = "no answer in time; it may have been applied, or may yet be";
                    answer(ticket, End::Unknown(format!("{why} ({leader})")), out);
                } else {
                    next = next.min(until);
                }
            }
        }
        let mut keep = |ticket: u64, until: Instant| {
            let late = now.at >= until;
            if late {
                answer(ticket, End::NotApplied(why.clone()), out);
            } else {
                next = next.min(until);
            }
            !late
        };
        self.reads.retain(|(read, until)| keep(read.ticket, *until));
        if let Some(round) = &mut self.round {
            round.reads.retain(|(read, until)| keep(read.ticket, *until));
        }
        self.round.take_if(|round| round.reads.is_empty());
        self.handed.retain(|ticket, until| keep(*ticket, *until));
        self.next_expiry = next;
    }

    fn leader_text(&self) -> String {
        match (&self.leader.halted, &self.leader.node) {
            (Some(halted), _) => halted.clone(),
            (None, Some(node)) => format!("leader {}", node.name),
            (None, None) => "no leader".to_owned(),
        }
    }
}
