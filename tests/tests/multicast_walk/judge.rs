//! What a walk has seen of the order, and whether it is one.

use std::collections::BTreeMap;

use synod::multicast::{
    application::Newest,
    message::{Checkpoint, Entry, Mid, Outcome, Publisher, Seq},
};

/// What was broken, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Broken(pub(crate) String);

#[derive(Default)]
pub(crate) struct Judge {
    order: BTreeMap<Seq, Option<Mid>>,
    places: BTreeMap<Mid, Seq>,
    checkpoints: BTreeMap<Seq, Vec<bytes::Bytes>>,
    /// Messages that were said to have no place, ever.
    expired: BTreeMap<Mid, ()>,
    /// Messages that their publishers closed without a place.
    pub(crate) given_up: BTreeMap<Mid, ()>,
    pub(crate) voids: u64,
}

impl Judge {
    /// A node delivers these, after `cursor`.
    pub(crate) fn delivered(&mut self, cursor: &mut Seq, entries: &[Entry]) -> Result<(), Broken> {
        for entry in entries {
            if entry.seq != cursor.next() {
                return broken(format!("not contiguous: {} after {cursor}", entry.seq));
            }
            *cursor = entry.seq;
            self.entry(entry)?;
        }
        Ok(())
    }

    fn entry(&mut self, entry: &Entry) -> Result<(), Broken> {
        let mid = entry.pair.mid;
        if let Some(mid) = mid
            && entry.payload != payload(mid)
        {
            return broken(format!("not what {mid:?} says"));
        }
        match self.order.get(&entry.seq) {
            Some(known) if *known != mid => {
                return broken(format!("two orders: {} is {known:?} and {mid:?}", entry.seq));
            }
            Some(_) => return Ok(()),
            None => {}
        }
        self.order.insert(entry.seq, mid);
        let Some(mid) = mid else {
            self.voids += 1;
            return Ok(());
        };
        if let Some(other) = self.places.insert(mid, entry.seq) {
            return broken(format!("{mid:?} has the numbers {other} and {}", entry.seq));
        }
        if self.expired.contains_key(&mid) {
            return broken(format!("{mid:?} was said to have no number, and has {}", entry.seq));
        }
        Ok(())
    }

    pub(crate) fn installed(&mut self, checkpoint: &Checkpoint) -> Result<(), Broken> {
        let known =
            self.checkpoints.entry(checkpoint.seq).or_insert_with(|| checkpoint.blocks.clone());
        if *known != checkpoint.blocks {
            return broken(format!("two checkpoints at {}", checkpoint.seq));
        }
        let entries = Newest::entries(&checkpoint.blocks).map_err(|bad| Broken(bad.to_string()))?;
        if entries.last().map(|entry| entry.seq) != Some(checkpoint.seq) {
            return broken(format!("the checkpoint at {} ends elsewhere", checkpoint.seq));
        }
        entries.iter().try_for_each(|entry| self.entry(entry))
    }

    pub(crate) fn told(&mut self, mid: Mid, outcome: Outcome) -> Result<(), Broken> {
        match outcome {
            Outcome::Committed(seq) if self.places.get(&mid) != Some(&seq) => {
                broken(format!("{mid:?} was said to be at {seq}"))
            }
            Outcome::Expired if self.places.contains_key(&mid) => {
                broken(format!("{mid:?} was said to have no number"))
            }
            Outcome::Expired => {
                self.expired.insert(mid, ());
                Ok(())
            }
            Outcome::Committed(_) | Outcome::Unknown => Ok(()),
        }
    }

    /// Every publisher's messages are in its order, and only what it gave up is left out.
    pub(crate) fn publishers_order_is_kept(&self) -> Result<(), Broken> {
        let mut last: BTreeMap<Publisher, u64> = BTreeMap::new();
        for (seq, mid) in self.order.iter().filter_map(|(seq, mid)| Some((seq, (*mid)?))) {
            let last = last.entry(mid.publisher).or_default();
            if mid.number <= *last {
                return broken(format!("{mid:?} at {seq} comes after {last}"));
            }
            for number in *last + 1..mid.number {
                let left_out = Mid { number, ..mid };
                if !self.given_up.contains_key(&left_out) {
                    return broken(format!("{mid:?} at {seq} comes without {left_out:?}"));
                }
            }
            *last = mid.number;
        }
        Ok(())
    }

    pub(crate) fn top(&self) -> Seq {
        self.order.last_key_value().map_or(Seq(0), |(seq, _)| *seq)
    }
}

/// What a message says in a walk.
pub(crate) fn payload(mid: Mid) -> bytes::Bytes {
    format!("{}:{}", mid.publisher, mid.number).into()
}

pub(crate) fn broken<T>(why: String) -> Result<T, Broken> {
    Err(Broken(why))
}
