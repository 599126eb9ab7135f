//! What a sequencer does while it orders: messages get numbers, numbers get committed.

use std::collections::{BTreeMap, VecDeque};

use synod_runtime::{identity::NodeId, world::Instant};

use super::{BATCH_MAX, OPEN_MAX, RESEND_AFTER, WAITING_MAX};
use crate::{
    election::message::Epoch,
    multicast::{
        group::{Group, Tally},
        history::{History, Verdict},
        message::{Adoption, Mid, Pair, Seq},
        rules::{Rule, is_off},
    },
};

#[derive(Debug)]
pub(super) struct Reign {
    pub(super) epoch: Epoch,
    /// All numbers up to here are committed.
    pub(super) committed: Seq,
    /// All numbers up to here are in use.
    pub(super) assigned: Seq,
    /// Numbers in use that are not committed.
    pub(super) open: BTreeMap<Seq, Open>,
    pub(super) history: History,
    /// Messages without a number.
    pub(super) waiting: BTreeMap<Mid, Waiting>,
    /// Of these, those that may get one.
    pub(super) ready: VecDeque<Mid>,
    /// Numbers that were given out in this turn.
    pub(super) fresh: Vec<(Seq, Pair)>,
    /// Numbers that this node's own commit server has, and the others did not hear of, where it has
    /// them first.
    pub(super) own: Vec<(Seq, Pair)>,
    /// Up to where each server knows by itself what is committed, by its place.
    pub(super) known: BTreeMap<usize, Seq>,
    /// Numbers that were committed and not announced yet.
    pub(super) announce: Vec<(Seq, Pair)>,
    pub(super) gossip_at: Instant,
    /// Gossip of this reign.
    pub(super) beat: u64,
    pub(super) resend_at: Instant,
    /// For who is on its way in, until that has it.
    pub(super) handover: Option<Box<Adoption>>,
    pub(super) hand_over_at: Instant,
    /// Only where the group writes down its largest number.
    pub(super) stored: Option<Stored>,
}

/// How far that is. A number is submitted once it is written down (R4.21).
#[derive(Debug)]
pub(super) struct Stored {
    /// All numbers up to here may be submitted.
    pub(super) upto: Seq,
    /// One number at a time is on its way there, the largest there was: so one write is for many.
    pub(super) on_its_way: Option<Seq>,
    /// Numbers that wait for it.
    pub(super) held: VecDeque<(Seq, Pair)>,
}

#[derive(Debug)]
pub(super) struct Open {
    pub(super) pair: Pair,
    pub(super) acknowledged: Tally,
    pub(super) sent: Instant,
}

#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) pair: Pair,
    pub(super) reported: Tally,
}

impl Reign {
    /// A data server has these.
    pub(super) fn reported(&mut self, group: &Group, server: usize, pairs: Vec<Pair>) {
        for pair in pairs {
            let Some(mid) = pair.mid else { continue };
            match self.history.judge(mid, &pair, self.assigned, group) {
                Verdict::Good | Verdict::Early => {}
                Verdict::Duplicate | Verdict::Expired => {
                    self.waiting.remove(&mid);
                    continue;
                }
            }
            if self.waiting.len() >= WAITING_MAX && !self.waiting.contains_key(&mid) {
                continue; // it is reported again
            }
            let new = || Waiting { pair, reported: Tally::default() };
            let waiting = self.waiting.entry(mid).or_insert_with(new);
            waiting.pair.lowest_open = waiting.pair.lowest_open.max(pair.lowest_open);
            waiting.reported.insert(server);
            if waiting.is_reported(group) {
                self.ready.push_back(mid);
            }
        }
    }

    /// Gives numbers to what is ready, in the order in which it became so.
    pub(super) fn assign(&mut self, group: &Group, now: Instant) {
        while self.open.len() < OPEN_MAX
            && let Some(mid) = self.ready.pop_front()
        {
            let Some(pair) = self.waiting.get(&mid).map(|waiting| waiting.pair) else { continue };
            match self.history.judge(mid, &pair, self.assigned, group) {
                Verdict::Good => {}
                // I7: it is ready again when the one before it has its place.
                Verdict::Early => continue,
                Verdict::Duplicate | Verdict::Expired => {
                    self.waiting.remove(&mid);
                    continue;
                }
            }
            self.waiting.remove(&mid);
            let seq = self.assigned.next();
            self.assigned = seq;
            self.history.note(seq, &pair, group);
            self.open.insert(seq, Open { pair, acknowledged: Tally::default(), sent: now });
            self.fresh.push((seq, pair));
            let next = Mid { number: mid.number + 1, ..mid };
            if self.waiting.get(&next).is_some_and(|next| next.is_reported(group)) {
                self.ready.push_front(next);
            }
        }
    }

    /// A commit server has these; `first`: before any other one heard of them.
    pub(super) fn acknowledged(&mut self, server: usize, seqs: &[Seq], first: bool) {
        for seq in seqs {
            if let Some(open) = self.open.get_mut(seq) {
                if first && !open.acknowledged.contains(server) {
                    self.own.push((*seq, open.pair));
                }
                open.acknowledged.insert(server);
            }
        }
    }

    /// A server knows by itself that all up to there are committed.
    pub(super) fn knows(&mut self, server: usize, upto: Seq) {
        let known = self.known.entry(server).or_default();
        *known = upto.max(*known);
    }

    /// Who need not be told of what is committed.
    pub(super) fn knowing<'a>(&'a self, group: &'a Group) -> impl Iterator<Item = &'a NodeId> {
        let knows = |place| self.known.get(&place).is_some_and(|upto| *upto >= self.committed);
        group.places().filter(move |(place, _)| knows(*place)).map(|(_, server)| server)
    }

    /// I4: commits what enough commit servers have, in order.
    pub(super) fn commit(&mut self, group: &Group) {
        let early = usize::from(is_off(Rule::EnoughAcknowledge));
        let enough = group.k_commit - early;
        if is_off(Rule::AnnouncedInOrder) {
            let done = self.open.iter().filter(|(_, open)| open.acknowledged.len() >= enough);
            let done: Vec<_> = done.map(|(seq, open)| (*seq, open.pair)).collect();
            for (seq, pair) in done {
                self.open.remove(&seq);
                self.committed = self.committed.max(seq);
                self.announce.push((seq, pair));
            }
            return;
        }
        while let Some(first) = self.open.first_entry() {
            if first.get().acknowledged.len() < enough {
                return;
            }
            let (seq, open) = first.remove_entry();
            assert!(seq == self.committed.next(), "I4: commits are in order");
            self.committed = seq;
            self.announce.push((seq, open.pair));
        }
    }

    /// The numbers that may be submitted now.
    pub(super) fn submittable(&mut self) -> Vec<(Seq, Pair)> {
        let fresh = std::mem::take(&mut self.fresh);
        let Some(stored) = &mut self.stored else { return fresh };
        stored.held.extend(fresh);
        let upto = if is_off(Rule::StoredBeforeSubmitted) { self.assigned } else { stored.upto };
        let may = stored.held.iter().take_while(|(seq, _)| *seq <= upto).count();
        stored.held.drain(..may).collect()
    }

    /// The number to store next, if it is time for that.
    pub(super) fn next_to_store(&mut self) -> Option<Seq> {
        let assigned = self.assigned;
        let stored = self.stored.as_mut()?;
        if stored.on_its_way.is_some() || stored.upto >= assigned {
            return None;
        }
        stored.on_its_way = Some(assigned);
        stored.on_its_way
    }

    /// That number is written down, or a larger one.
    pub(super) fn is_stored(&mut self, upto: Seq) {
        if let Some(stored) = &mut self.stored {
            stored.upto = stored.upto.max(upto);
            stored.on_its_way = None;
        }
    }

    /// What a server has not acknowledged for a while, as far as one message takes it.
    pub(super) fn overdue(&self, server: usize, now: Instant) -> Vec<(Seq, Pair)> {
        let late = |open: &Open| {
            !open.acknowledged.contains(server) && now.since(open.sent) >= RESEND_AFTER
        };
        let upto = self.stored.as_ref().map_or(self.assigned, |stored| stored.upto);
        let late = self.open.range(..=upto).filter(|(_, open)| late(open));
        late.take(BATCH_MAX).map(|(seq, open)| (*seq, open.pair)).collect()
    }

    /// Forgets messages that will never get a number.
    pub(super) fn sweep(&mut self, group: &Group) {
        let (history, assigned) = (&self.history, self.assigned);
        self.waiting.retain(|mid, waiting| {
            matches!(
                history.judge(*mid, &waiting.pair, assigned, group),
                Verdict::Good | Verdict::Early
            )
        });
    }
}

impl Waiting {
    /// I5: enough different data servers have it.
    fn is_reported(&self, group: &Group) -> bool {
        let reporters = if is_off(Rule::ReportersDistinct) {
            self.reported.words()
        } else {
            self.reported.len()
        };
        reporters >= group.k_data
    }
}
