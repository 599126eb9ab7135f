//! A group's newest messages on one node, for whoever subscribes there.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard},
};

use synod_runtime::watch;

use super::lock;
use crate::multicast::{
    application::NEWEST_KEPT,
    message::{Entry, Seq},
};

/// See the module's documentation.
pub(super) struct Shelf {
    kept: Mutex<Kept>,
    /// The last number that is there.
    last: watch::Sender<Seq>,
}

struct Kept {
    entries: VecDeque<Entry>,
    last: Seq,
    /// Of the entries, and at most.
    bytes: usize,
    bytes_max: usize,
}

impl Kept {
    fn clear(&mut self) {
        self.entries.clear();
        self.bytes = 0;
    }

    fn push(&mut self, entry: Entry) {
        self.last = entry.seq;
        self.bytes += entry.payload.len();
        self.entries.push_back(entry);
        // The newest stays, however large.
        while self.entries.len() as u64 > NEWEST_KEPT || self.bytes > self.bytes_max {
            let Some(gone) = self.entries.pop_front() else { return };
            self.bytes -= gone.payload.len();
        }
    }
}

/// What was asked for is no longer kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("collected: the oldest is {oldest}")]
pub struct Collected {
    /// The first number that is there.
    pub oldest: Seq,
}

impl Shelf {
    /// Of a group whose messages are all there is, or of one with an application, whose state says
    /// what came of them: then they need not take much.
    pub(super) fn new(has_application: bool) -> Self {
        let bytes_max = if has_application { BYTES_BESIDE_APPLICATION } else { usize::MAX };
        let kept = Kept { entries: VecDeque::new(), last: Seq(0), bytes: 0, bytes_max };
        Self { kept: Mutex::new(kept), last: watch::Sender::new(Seq(0)) }
    }

    /// The next of the order; what is known already is left out.
    pub(super) fn put(&self, entries: &[Entry]) -> usize {
        let mut kept = self.kept();
        let before = kept.last;
        for entry in entries {
            if entry.seq <= kept.last {
                continue;
            }
            if entry.seq != kept.last.next() {
                kept.clear(); // a checkpoint that says nothing of what is between
            }
            kept.push(entry.clone());
        }
        let last = kept.last;
        drop(kept);
        if last > before {
            self.last.send_replace(last);
        }
        usize::try_from(last.0 - before.0).unwrap_or(usize::MAX)
    }

    /// The order went on to there unseen.
    pub(super) fn skip_to(&self, seq: Seq) {
        let mut kept = self.kept();
        if seq > kept.last {
            kept.clear();
            kept.last = seq;
            drop(kept);
            self.last.send_replace(seq);
        }
    }

    /// The last number that is there.
    pub(super) fn last(&self) -> Seq {
        self.kept().last
    }

    /// The first number that is there, or would be.
    pub(super) fn oldest(&self) -> Seq {
        let kept = self.kept();
        kept.entries.front().map_or_else(|| kept.last.next(), |entry| entry.seq)
    }

    /// Hears when there is more.
    pub(super) fn watch(&self) -> watch::Receiver<Seq> {
        self.last.subscribe()
    }

    /// What begins with that number, as much as is there and fits one answer.
    pub(super) fn from(&self, next: Seq) -> Result<Vec<Entry>, Collected> {
        let kept = self.kept();
        if next > kept.last {
            return Ok(Vec::new());
        }
        let oldest = kept.entries.front().map_or_else(|| kept.last.next(), |entry| entry.seq);
        if next < oldest {
            return Err(Collected { oldest });
        }
        let skip = usize::try_from(next.0 - oldest.0).unwrap_or(usize::MAX);
        let (mut bytes, mut entries) = (0, Vec::new());
        for entry in kept.entries.iter().skip(skip).take(ENTRIES_MAX) {
            bytes += entry.payload.len();
            entries.push(entry.clone());
            if bytes >= ENTRIES_BYTES {
                break;
            }
        }
        Ok(entries)
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        lock(&self.kept)
    }
}

/// What subscribers who are a little slow find of a group with an application.
const BYTES_BESIDE_APPLICATION: usize = 32 << 20;

/// Of one answer to a subscriber.
const ENTRIES_MAX: usize = 1_000;

/// Likewise.
const ENTRIES_BYTES: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::multicast::message::Pair;

    #[test]
    fn what_is_no_longer_kept_is_named_by_the_oldest_that_is() {
        let shelf = Shelf::new(false);
        let entry = |seq| Entry { seq: Seq(seq), pair: Pair::VOID, payload: bytes::Bytes::new() };
        let all: Vec<_> = (1..=NEWEST_KEPT + 5).map(entry).collect();
        assert_eq!(shelf.put(&all[..7]), 7);
        assert_eq!(shelf.from(Seq(3)).unwrap().len(), 5);
        assert_eq!(shelf.put(&all) as u64, NEWEST_KEPT - 2);
        assert_eq!(shelf.from(Seq(5)), Err(Collected { oldest: Seq(6) }));
        assert_eq!(shelf.from(Seq(6)).unwrap()[0], entry(6));
        assert_eq!(shelf.from(Seq(NEWEST_KEPT + 6)), Ok(Vec::new()));
        let far = Seq(2 * NEWEST_KEPT);
        shelf.skip_to(far);
        assert_eq!(shelf.from(Seq(NEWEST_KEPT)), Err(Collected { oldest: far.next() }));
        assert_eq!((shelf.last(), shelf.put(&[entry(far.0 + 1)])), (far, 1));
    }
    #[test]
    fn beside_an_application_large_messages_are_few() {
        let payload = bytes::Bytes::from(vec![7; BYTES_BESIDE_APPLICATION / 4]);
        let entry = |seq| Entry { seq: Seq(seq), pair: Pair::VOID, payload: payload.clone() };
        let all: Vec<_> = (1..=6).map(entry).collect();
        let kept = |has_application| {
            let shelf = Shelf::new(has_application);
            shelf.put(&all);
            (shelf.oldest(), shelf.last())
        };
        assert_eq!(kept(false), (Seq(1), Seq(6)));
        assert_eq!(kept(true), (Seq(3), Seq(6)));
    }
}
