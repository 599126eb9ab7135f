//! One call of a client: a read, a write or a change of one register.

use std::{collections::BTreeMap, fmt};

use super::message::{Answer, Ask, Block, Refusal, Timestamp};

/// The holders of a register, by number: those that are asked first come first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holders {
    /// So many are asked at once: the mains.
    pub first: usize,
    /// So many there are.
    pub all: usize,
}

impl Holders {
    /// More than half of all.
    pub fn majority(self) -> usize {
        if off!(MajorityCounts) { self.all / 2 } else { self.all / 2 + 1 }
    }

    /// Those to ask, or to ask at last.
    pub(super) fn next(self, rest: bool) -> std::ops::Range<usize> {
        if rest { self.first.max(self.majority()).min(self.all)..self.all } else { 0..self.early() }
    }

    fn early(self) -> usize {
        self.first.max(self.majority()).min(self.all)
    }
}

/// Where time stamps come from: one for each life of a client.
#[derive(Debug, Clone)]
pub struct Stamps(Timestamp);

impl Stamps {
    /// For the life of that number, drawn at random and never used again.
    pub const fn new(life: u64) -> Self {
        Self(Timestamp::of_life(life))
    }

    /// One above all that were given or seen.
    pub const fn next(&mut self) -> Timestamp {
        self.0.time += 1;
        self.0
    }

    /// There is this one elsewhere.
    pub fn saw(&mut self, other: Timestamp) {
        self.0.time = self.0.time.max(other.time);
    }
}

/// Makes a new value of the one that is there; nothing, where there is none. May be called more
/// than once, and for values that are never kept.
pub type Change = Box<dyn FnMut(&[u8]) -> Vec<u8> + Send>;

/// What a call is for.
pub enum Goal {
    /// The value.
    Read,
    /// This value.
    Write(Vec<u8>),
    /// Whatever comes of the value.
    Change(Change),
}

/// What a client wrote last in a register, for its next call to go on from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    stamp: Timestamp,
    value: Vec<u8>,
}

impl Written {
    /// The value.
    pub fn value(&self) -> &[u8] {
        &self.value
    }

    /// Whether it was written after the other.
    pub fn is_newer(&self, other: &Self) -> bool {
        self.stamp > other.stamp
    }
}

/// How a call ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// A read: the value. A write or a change: the value that is written.
    Value(Vec<u8>),
    /// Somebody else was at it. Try again, above that stamp.
    Aborted {
        /// The highest that was met.
        highest: Timestamp,
        /// Whether it may yet be found to have been written.
        maybe: bool,
    },
    /// A holder says why it can never be. Nothing was written.
    Refused(Refusal),
}

/// A question to a holder, or its answer: of which round of the call.
pub type Round = u32;

/// Questions to holders: whom, in which round, what.
pub type Asks<A> = Vec<(usize, Round, A)>;

/// A call under way, over registers of either kind: a machine that is asked what to do next.
pub trait Call {
    /// A question to a holder, or to a disk.
    type Ask;
    /// What it answers.
    type Answer;

    /// One of them has answered. Adds what to ask next; or the call is over.
    fn answer(
        &mut self,
        from: usize,
        round: Round,
        answer: Self::Answer,
        asks: &mut Asks<Self::Ask>,
    ) -> Option<Outcome>;

    /// One of them is not there, or has nothing that can be read: another is asked in its stead.
    fn missing(&mut self, round: Round, asks: &mut Asks<Self::Ask>);

    /// Those that were asked take their time: all others are asked too.
    fn widen(&mut self, asks: &mut Asks<Self::Ask>);

    /// Whether it may be found to have been written, should it end now.
    fn may_have_written(&self) -> bool;
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Operation {
    holders: Holders,
    stamp: Timestamp,
    goal: Goal,
    phase: Phase,
    round: Round,
    /// Whether all were asked in this round.
    widened: bool,
    tally: BTreeMap<usize, Block>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Phase {
    Reading,
    Ordering,
    Writing(Vec<u8>),
}

impl Call for Operation {
    type Ask = Ask;
    type Answer = Answer;

    fn answer(
        &mut self,
        holder: usize,
        round: Round,
        answer: Self::Answer,
        asks: &mut Asks<Self::Ask>,
    ) -> Option<Outcome> {
        if round != self.round || holder >= self.holders.all {
            return None; // of a round that is over
        }
        match answer {
            Answer::Held(block) => drop(self.tally.insert(holder, block)),
            Answer::Written => drop(self.tally.insert(holder, Block::default())),
            Answer::Late(highest) => {
                let maybe = matches!(self.phase, Phase::Writing(_));
                return Some(Outcome::Aborted { highest, maybe });
            }
            Answer::Refused(refusal) => return Some(Outcome::Refused(refusal)),
        }
        if self.tally.len() < self.holders.majority() {
            return None;
        }
        self.decide(asks)
    }

    fn missing(&mut self, round: Round, asks: &mut Asks<Self::Ask>) {
        if round == self.round {
            self.widen(asks);
        }
    }

    fn may_have_written(&self) -> bool {
        matches!(self.phase, Phase::Writing(_))
    }

    fn widen(&mut self, asks: &mut Asks<Self::Ask>) {
        if !std::mem::replace(&mut self.widened, true) {
            let ask = self.ask();
            let rest = self.holders.next(true);
            asks.extend(rest.map(|holder| (holder, self.round, ask.clone())));
        }
    }
}

impl Operation {
    /// A call under that stamp, and what to ask first. `stamp` must not be used for another.
    pub fn begin(holders: Holders, stamp: Timestamp, goal: Goal) -> (Self, Asks<Ask>) {
        let phase = if matches!(goal, Goal::Read) { Phase::Reading } else { Phase::Ordering };
        let tally = BTreeMap::new();
        let mut call = Self { holders, stamp, goal, phase, round: 0, widened: false, tally };
        let asks = call.next_round(None);
        (call, asks)
    }

    /// A call that goes on from what its client wrote last, without an order of its own (G6): it ends
    /// after one round, if nobody else was there meanwhile, and else gives up. Of each `last` there may be
    /// one such call, ever.
    ///
    /// # Errors
    /// The goal, of which nothing was done: it only reads, or its order has had all its values.
    pub fn go_on(holders: Holders, last: &Written, goal: Goal) -> Result<(Self, Asks<Ask>), Goal> {
        let Some(mut stamp) = last.stamp.next_part() else { return Err(goal) };
        if off!(GoesOnBelowOthers) {
            stamp = Timestamp { time: last.stamp.time + 1, ..last.stamp };
        }
        let (value, goal) = match goal {
            Goal::Read => return Err(goal),
            Goal::Write(value) => (value.clone(), Goal::Write(value)),
            Goal::Change(mut change) => (change(&last.value), Goal::Change(change)),
        };
        let (phase, tally) = (Phase::Writing(value), BTreeMap::new());
        let mut call = Self { holders, stamp, goal, phase, round: 0, widened: false, tally };
        let asks = call.next_round(None);
        Ok((call, asks))
    }

    /// Whether it writes under the order of an earlier call.
    pub const fn has_gone_on(&self) -> bool {
        self.stamp.part() > 0
    }

    /// What it has written, once it is over with that value; for [`Operation::go_on`].
    pub fn written(&self, value: &[u8]) -> Option<Written> {
        let writes = matches!(self.phase, Phase::Writing(_));
        writes.then(|| Written { stamp: self.stamp, value: value.to_vec() })
    }

    /// A majority took it: what next?
    fn decide(&mut self, asks: &mut Asks<Ask>) -> Option<Outcome> {
        let newest = self.tally.values().max_by_key(|block| block.written)?;
        let value = newest.value.clone();
        let next = match &mut self.phase {
            Phase::Reading => {
                let settled = self.tally.values().all(|block| {
                    block.written == newest.written && block.ordered <= newest.written
                });
                if settled || off!(OpenReadsSettled) {
                    return Some(Outcome::Value(value)); // G4
                }
                Phase::Ordering
            }
            Phase::Ordering => Phase::Writing(match &mut self.goal {
                Goal::Read => value,
                Goal::Write(new) => new.clone(),
                Goal::Change(change) => change(&value), // G3
            }),
            Phase::Writing(value) => return Some(Outcome::Value(std::mem::take(value))),
        };
        asks.append(&mut self.next_round(Some(next)));
        None
    }

    fn next_round(&mut self, phase: Option<Phase>) -> Asks<Ask> {
        self.phase = phase.unwrap_or_else(|| self.phase.clone());
        self.round += 1;
        self.tally.clear();
        self.widened = false;
        let ask = self.ask();
        self.holders.next(false).map(|holder| (holder, self.round, ask.clone())).collect()
    }

    fn ask(&self) -> Ask {
        let stamp = self.stamp;
        match &self.phase {
            Phase::Reading => Ask::Read,
            Phase::Ordering => Ask::Order { stamp, fetch: !matches!(self.goal, Goal::Write(_)) },
            Phase::Writing(value) => Ask::Write { stamp, value: value.clone() },
        }
    }
}

impl fmt::Debug for Goal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "Read",
            Self::Write(_) => "Write",
            Self::Change(_) => "Change",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::register::holder::Holder;

    const TWO_AND_ONE: Holders = Holders { first: 2, all: 3 };

    /// Runs a call over holders, of which those in `down` never answer; counts the questions.
    fn call(
        holders: &mut [Holder; 3],
        down: &[usize],
        stamps: &mut Stamps,
        goal: Goal,
    ) -> (Outcome, [usize; 3], Round) {
        let (mut call, mut asks) = Operation::begin(TWO_AND_ONE, stamps.next(), goal);
        let mut asked = [0; 3];
        loop {
            if asks.is_empty() {
                call.widen(&mut asks);
            }
            let (holder, round, ask) = asks.remove(0);
            asked[holder] += 1;
            if down.contains(&holder) {
                continue;
            }
            let (answer, _durable) = holders[holder].ask("r", ask);
            if let Some(outcome) = call.answer(holder, round, answer, &mut asks) {
                return (outcome, asked, round);
            }
        }
    }

    fn value(text: &str) -> Outcome {
        Outcome::Value(text.as_bytes().to_vec())
    }

    fn append(text: &'static str) -> Goal {
        Goal::Change(Box::new(move |old| [old, text.as_bytes()].concat()))
    }

    #[test]
    fn a_read_takes_one_round_and_a_write_two_and_the_auxiliary_hears_nothing() {
        let (mut holders, mut stamps) = (Default::default(), Stamps::new(1));
        let all = &mut holders;
        assert_eq!(call(all, &[], &mut stamps, Goal::Read), (value(""), [1, 1, 0], 1));
        let write = Goal::Write(b"x".to_vec());
        assert_eq!(call(all, &[], &mut stamps, write), (value("x"), [2, 2, 0], 2));
        assert_eq!(call(all, &[], &mut stamps, append("y")), (value("xy"), [2, 2, 0], 2));
        assert_eq!(call(all, &[], &mut stamps, Goal::Read), (value("xy"), [1, 1, 0], 1));
        // A main is gone: the auxiliary stands in, and what it kept is as good.
        let (said, asked, _) = call(all, &[1], &mut stamps, append("z"));
        assert_eq!((said, asked[2]), (value("xyz"), 2));
        let (said, asked, round) = call(all, &[0], &mut stamps, Goal::Read);
        assert_eq!((said, asked[2], round), (value("xyz"), 3, 3), "b was behind, and is mended");
        assert_eq!(call(all, &[], &mut stamps, Goal::Read).0, value("xyz"));
    }

    /// Goes on from what was written last, over holders of which all answer.
    fn go_on(holders: &mut [Holder; 3], last: &Written, goal: Goal) -> (Outcome, Option<Written>) {
        let (mut call, mut asks) = Operation::go_on(TWO_AND_ONE, last, goal).expect("it writes");
        assert_eq!(asks.len(), 2, "one round, to the mains");
        loop {
            let (holder, round, ask) = asks.remove(0);
            let (answer, _durable) = holders[holder].ask("r", ask);
            match call.answer(holder, round, answer, &mut asks) {
                Some(Outcome::Value(value)) => {
                    let written = call.written(&value);
                    return (Outcome::Value(value), written);
                }
                Some(outcome) => return (outcome, None),
                None => {}
            }
        }
    }

    #[test]
    fn whoever_wrote_last_goes_on_in_one_round_until_somebody_else_was_there() {
        let (mut holders, mut stamps) = (<[Holder; 3]>::default(), Stamps::new(1));
        let (mut first, mut asks) =
            Operation::begin(TWO_AND_ONE, stamps.next(), Goal::Write(b"a".to_vec()));
        assert_eq!(first.written(b"a"), None, "not yet");
        while !asks.is_empty() {
            let (holder, round, ask) = asks.remove(0);
            let (answer, _durable) = holders[holder].ask("r", ask);
            first.answer(holder, round, answer, &mut asks);
        }
        let last = first.written(b"a").expect("it is written");
        let (said, last) = go_on(&mut holders, &last, append("b"));
        let (next, last) = go_on(&mut holders, &last.expect("it is written"), append("c"));
        assert_eq!((said, next), (value("ab"), value("abc")));
        // Somebody else orders above it, though its clock is far behind, and sees it.
        let mut other = Stamps::new(2);
        other.saw(stamps.0);
        assert_eq!(call(&mut holders, &[1], &mut other, append("d")).0, value("abcd"));
        let last = last.expect("it is written");
        let (said, _) = go_on(&mut holders, &last, append("e"));
        assert!(matches!(said, Outcome::Aborted { maybe: true, .. }), "{said:?}");
        for down in [0, 1, 2] {
            assert_eq!(call(&mut holders, &[down], &mut other, Goal::Read).0, value("abcd"));
        }
        let read = Operation::go_on(TWO_AND_ONE, &last, Goal::Read);
        assert!(matches!(read, Err(Goal::Read)), "that takes one round in any case");
    }

    #[test]
    fn an_order_has_so_many_values_and_no_more() {
        let first = Timestamp::of_life(7);
        let (mut last, mut parts) = (first, 0);
        while let Some(next) = last.next_part() {
            assert!(next > last && next < Timestamp::of_life(8), "below whoever is above");
            (last, parts) = (next, parts + 1);
        }
        assert_eq!(parts, 65_535);
        let mut stamps = Stamps::new(6);
        stamps.saw(first);
        assert!(stamps.next() > last, "whoever saw it is above all of it");
    }

    #[test]
    fn a_write_that_was_cut_off_is_decided_by_the_next_read_for_good() {
        for reaches in [vec![], vec![0], vec![1]] {
            let (mut holders, mut stamps) = (Default::default(), Stamps::new(1));
            call(&mut holders, &[], &mut stamps, Goal::Write(b"old".to_vec()));
            let stamp = stamps.next();
            for holder in &mut holders[..2] {
                holder.ask("r", Ask::Order { stamp, fetch: false });
            }
            let write = Ask::Write { stamp, value: b"new".to_vec() };
            for holder in &reaches {
                holders[*holder].ask("r", write.clone());
            }
            let mut other = Stamps::new(2);
            other.saw(stamp);
            let (first, _, rounds) = call(&mut holders, &[], &mut other, Goal::Read);
            assert_eq!(rounds, 3, "it was open");
            // What was on its way comes late, and changes nothing any more.
            for holder in &mut holders {
                holder.ask("r", write.clone());
            }
            for down in [0, 1, 2] {
                assert_eq!(call(&mut holders, &[down], &mut other, Goal::Read).0, first);
            }
            assert_eq!(first, value(if reaches.is_empty() { "old" } else { "new" }));
        }
    }

    #[test]
    fn whoever_meets_a_higher_order_gives_up_and_says_what_may_have_been() {
        let (mut holders, mut stamps) = (Default::default(), Stamps::new(1));
        let mine = stamps.next();
        let (mut early, asks) = Operation::begin(TWO_AND_ONE, mine, append("a"));
        let mut other = Stamps::new(2);
        other.saw(mine);
        let theirs = call(&mut holders, &[], &mut other, append("b")).0;
        assert_eq!(theirs, value("b"));
        let (holder, round, ask) = asks[0].clone();
        let (answer, _) = holders[holder].ask("r", ask);
        let Some(Outcome::Aborted { highest, maybe: false }) =
            early.answer(holder, round, answer, &mut vec![])
        else {
            panic!("it gives up");
        };
        stamps.saw(highest);
        assert_eq!(call(&mut holders, &[], &mut stamps, append("a")).0, value("ba"));
    }
}
