//! The last numbers of publishers: what tells a new message from one that has its place.

use std::collections::BTreeMap;

use super::{
    group::Group,
    message::{Mid, Pair, Publisher, Seq},
    rules::{Rule, is_off},
};

/// The last message of each publisher, for one lifetime: later nothing could be mistaken, since any
/// earlier message of that publisher is too old to get a number.
#[derive(Debug, Clone, Default)]
pub(super) struct History {
    last: BTreeMap<Publisher, (u64, Seq)>,
    by_seq: BTreeMap<Seq, Publisher>,
}

/// What may be done with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It may have the next number.
    Good,
    /// It has its place, or may never have one since a later one of its publisher has.
    Duplicate,
    /// It is too old.
    Expired,
    /// One of its publisher comes first.
    Early,
}

impl History {
    /// `pair` has that number.
    pub(super) fn note(&mut self, seq: Seq, pair: &Pair, group: &Group) {
        if let Some(Mid { publisher, number }) = pair.mid {
            let last = self.last.entry(publisher).or_insert((number, seq));
            if last.0 <= number {
                if last.1 != seq {
                    self.by_seq.remove(&last.1);
                }
                *last = (number, seq);
                self.by_seq.insert(seq, publisher);
            }
        }
        let gone = seq.back(group.lifetime);
        while let Some(oldest) = self.by_seq.first_entry().filter(|oldest| *oldest.key() <= gone) {
            self.last.remove(&oldest.remove());
        }
    }

    /// What may be done with a message when `assigned` is the highest number in use.
    pub(super) fn judge(&self, mid: Mid, pair: &Pair, assigned: Seq, group: &Group) -> Verdict {
        if !is_off(Rule::LifetimeChecked) && group.lives_until(pair.stamp) <= assigned {
            return Verdict::Expired;
        }
        self.place(mid, pair.lowest_open)
    }

    /// As [`History::judge`], whatever its age.
    pub(super) fn place(&self, mid: Mid, lowest_open: u64) -> Verdict {
        let last = self.last.get(&mid.publisher).map_or(0, |(number, _)| *number);
        if mid.number <= last {
            if is_off(Rule::DuplicatesRefused) { Verdict::Good } else { Verdict::Duplicate }
        } else if mid.number <= (last + 1).max(lowest_open) || is_off(Rule::PublisherOrder) {
            Verdict::Good
        } else {
            Verdict::Early
        }
    }
}
