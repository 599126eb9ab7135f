//! One call of a client on passive disks.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::block::DiskBlock;
use crate::register::{
    Call, Goal, Holders, Outcome, Timestamp, VALUE_BYTES_MAX,
    message::Refusal,
    operation::{Asks, Round},
};

/// What a disk is asked to do, one after the other.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DiskAsk {
    /// Write this as the client's own block, durably; none: only read.
    pub write: Option<DiskBlock>,
}

/// The blocks of one register on one disk, by client, read after the write. A client is whoever
/// never runs twice at a time, under the same name in all its lives.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DiskAnswer {
    /// Those that were ever written; whoever has none has the lowest.
    pub blocks: BTreeMap<String, DiskBlock>,
}

/// See the [module's documentation](super).
#[derive(Debug)]
pub struct DiskOperation {
    disks: Holders,
    /// Whose call it is.
    me: String,
    ballot: Timestamp,
    goal: Goal,
    phase: Phase,
    round: Round,
    widened: bool,
    tally: BTreeMap<usize, DiskAnswer>,
    /// Its own block, as far as it may be on any disk.
    mine: DiskBlock,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Phase {
    /// Reads, and finds its own block again (D1).
    Reading,
    First,
    Second,
}

impl Call for DiskOperation {
    type Ask = DiskAsk;
    type Answer = DiskAnswer;

    fn answer(
        &mut self,
        disk: usize,
        round: Round,
        answer: Self::Answer,
        asks: &mut Asks<Self::Ask>,
    ) -> Option<Outcome> {
        if round != self.round || disk >= self.disks.all {
            return None;
        }
        self.tally.insert(disk, answer);
        if self.phase != Phase::Reading
            && let Some(highest) = self.above()
        {
            let maybe = self.phase == Phase::Second;
            return Some(Outcome::Aborted { highest, maybe }); // D2
        }
        if self.tally.len() < self.disks.majority() {
            return None;
        }
        self.decide(asks)
    }

    /// Also of a disk with a damaged block (D5).
    fn missing(&mut self, round: Round, asks: &mut Asks<Self::Ask>) {
        if round == self.round {
            self.widen(asks);
        }
    }

    fn may_have_written(&self) -> bool {
        self.phase == Phase::Second
    }

    fn widen(&mut self, asks: &mut Asks<Self::Ask>) {
        if !std::mem::replace(&mut self.widened, true) {
            let ask = self.ask();
            let rest = self.disks.next(true);
            asks.extend(rest.map(|disk| (disk, self.round, ask.clone())));
        }
    }
}

impl DiskOperation {
    /// A call of client `me`; what to ask first. `ballot` must not be used for another, and `mine` is
    /// the client's own block: none, at its first call in this life.
    pub fn begin(
        disks: Holders,
        me: &str,
        ballot: Timestamp,
        goal: Goal,
        mine: Option<DiskBlock>,
    ) -> (Self, Asks<DiskAsk>) {
        let recalls = mine.is_none() && !off!(OwnBlockRecalled);
        let phase = match recalls || matches!(goal, Goal::Read) {
            true => Phase::Reading,
            false => Phase::First,
        };
        let mut call = Self {
            disks,
            me: me.to_owned(),
            ballot,
            goal,
            phase: phase.clone(),
            round: 0,
            widened: false,
            tally: BTreeMap::new(),
            mine: mine.unwrap_or_default(),
        };
        let asks = call.next_round(phase);
        (call, asks)
    }

    /// The client's own block after the call, however it ended: for the next one. None before it is
    /// known.
    pub fn mine(&self) -> Option<&DiskBlock> {
        (self.phase != Phase::Reading || self.round > 1).then_some(&self.mine)
    }

    fn decide(&mut self, asks: &mut Asks<DiskAsk>) -> Option<Outcome> {
        let next = match self.phase {
            Phase::Reading => {
                self.recall();
                if let Some(value) = self.settled() {
                    return Some(Outcome::Value(value)); // D4
                }
                if let Some(highest) = self.above() {
                    self.round += 1; // what it knows of itself is known for good
                    return Some(Outcome::Aborted { highest, maybe: false });
                }
                Phase::First
            }
            Phase::First => {
                let old = self.newest().value;
                let value = match &mut self.goal {
                    Goal::Read => old,
                    Goal::Write(new) => new.clone(),
                    Goal::Change(change) => change(&old),
                };
                if value.len() > VALUE_BYTES_MAX {
                    return Some(Outcome::Refused(Refusal::TooLarge(value.len())));
                }
                (self.mine.bal, self.mine.value) = (self.ballot, value);
                Phase::Second
            }
            Phase::Second => return Some(Outcome::Value(self.mine.value.clone())),
        };
        asks.append(&mut self.next_round(next));
        None
    }

    /// Its own block, as it was left in an earlier life.
    fn recall(&mut self) {
        let own = self.tally.values().filter_map(|answer| answer.blocks.get(&self.me));
        for block in own {
            self.mine.mbal = self.mine.mbal.max(block.mbal);
            if block.bal > self.mine.bal {
                (self.mine.bal, self.mine.value) = (block.bal, block.value.clone());
            }
        }
    }

    /// What has the greatest ballot, of all that was read and its own (D3).
    fn newest(&self) -> DiskBlock {
        let read = self.tally.values().flat_map(|answer| answer.blocks.values());
        let all = read.chain([&self.mine]);
        let newest = match off!(GreatestBallotCounts) {
            true => all.min_by_key(|block| block.bal),
            false => all.max_by_key(|block| block.bal),
        };
        newest.cloned().unwrap_or_default()
    }

    /// A ballot above this call's, if one was met.
    fn above(&self) -> Option<Timestamp> {
        let read = self.tally.values().flat_map(|answer| answer.blocks.values());
        let highest = read.map(|block| block.mbal).chain([self.mine.mbal]).max()?;
        (highest > self.ballot && !off!(HigherBallotsWin)).then_some(highest)
    }

    /// The value of a read, if nothing is open.
    fn settled(&self) -> Option<Vec<u8>> {
        let newest = self.newest();
        let open = |block: &DiskBlock| block.mbal > newest.bal;
        let has = |answer: &&DiskAnswer| {
            newest.bal == Timestamp::default()
                || answer.blocks.values().any(|block| block.bal == newest.bal)
        };
        let is_open = self.tally.values().flat_map(|answer| answer.blocks.values()).any(open);
        let enough = self.tally.values().filter(has).count() >= self.disks.majority();
        let reads = matches!(self.goal, Goal::Read);
        (reads && (off!(OpenReadsSettled) || (!is_open && enough))).then_some(newest.value)
    }

    fn next_round(&mut self, phase: Phase) -> Asks<DiskAsk> {
        if phase == Phase::First {
            self.mine.mbal = self.ballot;
        }
        self.phase = phase;
        self.round += 1;
        self.tally.clear();
        self.widened = false;
        let ask = self.ask();
        self.disks.next(false).map(|disk| (disk, self.round, ask.clone())).collect()
    }

    fn ask(&self) -> DiskAsk {
        DiskAsk { write: (self.phase != Phase::Reading).then(|| self.mine.clone()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::register::Stamps;

    /// Three disks, of which some may be gone.
    #[derive(Default)]
    struct Disks {
        blocks: [BTreeMap<String, DiskBlock>; 3],
        gone: Vec<usize>,
    }

    struct Client {
        name: &'static str,
        stamps: Stamps,
        mine: Option<DiskBlock>,
    }

    impl Client {
        const fn new(name: &'static str, life: u64) -> Self {
            Self { name, stamps: Stamps::new(life), mine: None }
        }

        /// One call, which ends after so many writes at the latest.
        fn call(&mut self, disks: &mut Disks, goal: Goal, writes: usize) -> Option<Outcome> {
            let all = Holders { first: 3, all: 3 };
            let stamp = self.stamps.next();
            let (mut call, mut asks) =
                DiskOperation::begin(all, self.name, stamp, goal, self.mine.clone());
            let mut left = writes;
            while !asks.is_empty() {
                let (disk, round, ask) = asks.remove(0);
                if disks.gone.contains(&disk) {
                    call.missing(round, &mut asks);
                    continue;
                }
                if let Some(block) = ask.write {
                    left = left.checked_sub(1)?;
                    disks.blocks[disk].insert(self.name.to_owned(), block);
                }
                let blocks = disks.blocks[disk].clone();
                if let Some(outcome) = call.answer(disk, round, DiskAnswer { blocks }, &mut asks) {
                    self.mine = call.mine().cloned().or_else(|| self.mine.take());
                    if let Outcome::Aborted { highest, .. } = outcome {
                        self.stamps.saw(highest);
                    }
                    return Some(outcome);
                }
            }
            None
        }

        fn again(&mut self, disks: &mut Disks, text: &'static str) -> Outcome {
            let append =
                || -> Goal { Goal::Change(Box::new(move |old| [old, text.as_bytes()].concat())) };
            loop {
                match self.call(disks, append(), usize::MAX).expect("a majority is there") {
                    Outcome::Aborted { maybe: false, .. } => {}
                    outcome => return outcome,
                }
            }
        }
    }

    fn value(text: &str) -> Outcome {
        Outcome::Value(text.as_bytes().to_vec())
    }

    #[test]
    fn two_clients_and_three_disks_survive_the_loss_of_either_client_and_of_any_disk() {
        for gone in 0..3 {
            let mut disks = Disks::default();
            let (mut one, mut two) = (Client::new("a", 1), Client::new("b", 2));
            assert_eq!(one.again(&mut disks, "x"), value("x"));
            disks.gone = vec![gone];
            assert_eq!(two.again(&mut disks, "y"), value("xy"));
            let mut two = Client::new("b", 3);
            assert_eq!(two.again(&mut disks, "z"), value("xyz"));
            disks.gone = vec![(gone + 1) % 3];
            assert_eq!(one.again(&mut disks, "w"), value("xyzw"));
            assert_eq!(two.call(&mut disks, Goal::Read, 0), Some(value("xyzw")), "without a write");
            disks.gone = vec![0, 1];
            assert_eq!(one.call(&mut disks, Goal::Read, 0), None, "a majority is gone");
        }
    }

    #[test]
    fn a_client_that_starts_again_neither_loses_nor_takes_back_what_it_wrote() {
        for writes in 0..6 {
            let mut disks = Disks::default();
            let (mut one, mut two) = (Client::new("a", 1), Client::new("b", 2));
            one.again(&mut disks, "x");
            one.call(&mut disks, Goal::Write(b"cut".to_vec()), writes);
            let first = two.again(&mut disks, "!");
            // Its next life begins with a write on one disk only.
            let mut one = Client::new("a", 3);
            one.call(&mut disks, Goal::Write(b"late".to_vec()), 1);
            disks.gone = vec![2];
            let second = two.again(&mut disks, "");
            assert_eq!(first, second, "after {writes} writes");
            assert_eq!(Client::new("a", 4).again(&mut disks, ""), first);
        }
    }
}
