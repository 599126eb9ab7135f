//! What a group is for: the state that follows its order.

use std::{collections::VecDeque, fmt, sync::Arc};

use bytes::Bytes;

use super::message::{Entry, Seq};

/// A state that follows the order of a group. Equal orders must give equal blocks everywhere.
///
/// It is an actor: a node hands it the order, one number after the other, asks it for its state now
/// and then, and asks it questions in between. It never waits and has no clock; what it should know
/// comes in messages. [`table::Table`](super::table::Table) is one, for rows of any kind.
pub trait Application: fmt::Debug + Send + 'static {
    /// The next number; all lower ones came before.
    fn deliver(&mut self, entry: &Entry);

    /// The state, in blocks: as small a number of bytes in each as can be fetched at once. Blocks
    /// that did not change since may be the same [`Bytes`]. None at all is kept as one empty block.
    fn checkpoint(&mut self) -> Vec<Bytes>;

    /// Replaces the state by one that [`checkpoint`](Self::checkpoint) gave.
    ///
    /// # Errors
    /// What is wrong with it; the state is as it was.
    fn restore(&mut self, blocks: &[Bytes]) -> Result<(), BadCheckpoint>;

    /// Answers a question about the state, which stays as it is.
    ///
    /// # Errors
    /// Why it cannot; the default answers nothing.
    fn query(&self, _question: &[u8]) -> Result<Vec<u8>, BadQuestion> {
        Err(BadQuestion("this group's application answers no questions".to_owned()))
    }
}

/// Makes the application of a group, empty.
pub type Make = Arc<dyn Fn() -> Box<dyn Application> + Send + Sync>;

/// A checkpoint that cannot be one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a checkpoint: {0}")]
pub struct BadCheckpoint(pub String);

/// A question that the application cannot answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a question: {0}")]
pub struct BadQuestion(pub String);

/// The state of a group without an application of its own: its newest messages.
///
/// Its blocks hold [`BLOCK_ENTRIES`] numbers each, and are encoded once: a checkpoint costs what is
/// new in it.
#[derive(Default)]
pub struct Newest {
    blocks: VecDeque<(Seq, Bytes)>,
    /// The newest, until they fill a block.
    last: Vec<Entry>,
}

impl Newest {
    /// All it holds, from the oldest.
    ///
    /// # Errors
    /// What is wrong with a block that came from elsewhere.
    pub fn entries(blocks: &[Bytes]) -> Result<Vec<Entry>, BadCheckpoint> {
        let mut all: Vec<Entry> = Vec::new();
        for block in blocks {
            let entries: Vec<Entry> =
                rmp_serde::from_slice(block).map_err(|error| BadCheckpoint(error.to_string()))?;
            for entry in entries {
                if all.last().is_some_and(|last| last.seq.next() != entry.seq) {
                    return Err(BadCheckpoint(format!("number {} is out of order", entry.seq)));
                }
                all.push(entry);
            }
        }
        Ok(all)
    }
}

impl Application for Newest {
    fn deliver(&mut self, entry: &Entry) {
        self.last.push(entry.clone());
        if entry.seq.0.is_multiple_of(BLOCK_ENTRIES) {
            let block = rmp_serde::to_vec(&self.last).expect("plain data encodes");
            self.blocks.push_back((entry.seq, block.into()));
            self.last.clear();
            let old = entry.seq.back(NEWEST_KEPT);
            while self.blocks.front().is_some_and(|(last, _)| *last <= old) {
                self.blocks.pop_front();
            }
        }
    }

    fn checkpoint(&mut self) -> Vec<Bytes> {
        let mut blocks: Vec<_> = self.blocks.iter().map(|(_, block)| block.clone()).collect();
        if !self.last.is_empty() {
            blocks.push(rmp_serde::to_vec(&self.last).expect("plain data encodes").into());
        }
        blocks
    }

    fn restore(&mut self, blocks: &[Bytes]) -> Result<(), BadCheckpoint> {
        let entries = Self::entries(blocks)?;
        *self = Self::default();
        entries.iter().for_each(|entry| self.deliver(entry));
        Ok(())
    }
}

impl fmt::Debug for Newest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Newest").field("blocks", &self.blocks.len()).finish_non_exhaustive()
    }
}

/// So many of a group's newest messages are kept at least.
pub const NEWEST_KEPT: u64 = 10_000;

/// Numbers in a block.
pub const BLOCK_ENTRIES: u64 = 100;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::multicast::message::{Mid, Pair, Publisher};

    fn entry(number: u64) -> Entry {
        let mid = Mid { publisher: Publisher(1), number };
        let pair = Pair { mid: Some(mid), stamp: Seq(0), lowest_open: 1 };
        Entry { seq: Seq(number), pair, payload: Bytes::from(number.to_string()) }
    }

    #[test]
    fn a_restored_state_gives_the_same_blocks_and_keeps_the_newest() {
        let mut first = Newest::default();
        (1..=10_250).for_each(|number| first.deliver(&entry(number)));
        let blocks = first.checkpoint();
        let mut second = Newest::default();
        second.restore(&blocks).unwrap();
        assert_eq!(second.checkpoint(), blocks);
        for number in 10_251..=10_500 {
            first.deliver(&entry(number));
            second.deliver(&entry(number));
        }
        assert_eq!(first.checkpoint(), second.checkpoint());
        let kept = Newest::entries(&first.checkpoint()).unwrap();
        assert!(kept.len() as u64 >= NEWEST_KEPT, "{}", kept.len());
        assert_eq!(kept.last().unwrap(), &entry(10_500));
    }

    #[test]
    fn what_is_no_checkpoint_is_refused() {
        let mut state = Newest::default();
        assert!(state.restore(&[Bytes::from_static(b"\xc1")]).is_err());
        let gap = rmp_serde::to_vec(&vec![entry(1), entry(3)]).unwrap();
        let refused = state.restore(&[gap.into()]).unwrap_err();
        assert_eq!(refused.to_string(), "not a checkpoint: number 3 is out of order");
    }
}
