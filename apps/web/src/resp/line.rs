//! What waits for a server, and what is with it: the machine of one connection after the other.
//!
//! - R1: a number is sent right behind the one before it, so that the server performs them in their
//!   order; what is sent although the server has not come so far it refuses by itself.
//! - R2: what is with the server when its connection ends is sent again, once the server has said what
//!   it performed: what it performed already is not.
//! - R3: a server that says it performed less than it answered for lost something, and is sent nothing
//!   until its site knows.

use std::collections::{BTreeMap, VecDeque};

/// The line before one server. `T` is what a number stands for.
#[derive(Debug)]
pub(super) struct Line<T> {
    /// The last number that was sent on this connection, or was performed before; none without one.
    sent_last: Option<u64>,
    /// What the server said it performed.
    performed: u64,
    /// What its site was told, or asked: less is a loss.
    floor: u64,
    waiting: BTreeMap<u64, T>,
    sent: VecDeque<(u64, T)>,
    /// Nothing is sent until all that was sent is answered.
    held: bool,
}

/// What a server made of the first number that it was sent.
#[derive(Debug)]
pub(super) enum Heard<C> {
    /// It performed it.
    Performed,
    /// It did nothing, and is to be asked once more, with this change.
    Again(C),
    /// It did nothing, since this was the last it had performed.
    Refused(u64),
}

/// What becomes of a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// The answer just heard is its.
    Answered,
    /// It was performed before, and its answer is lost.
    Performed,
    /// The server lost what it had beyond this.
    Behind(u64),
}

impl<T> Line<T> {
    pub(super) const fn new() -> Self {
        Self {
            sent_last: None,
            performed: 0,
            floor: 0,
            waiting: BTreeMap::new(),
            sent: VecDeque::new(),
            held: false,
        }
    }

    /// The site wants this number performed.
    pub(super) fn ask(&mut self, seq: u64, what: T) {
        self.waiting.insert(seq, what);
    }

    /// Forgets what nobody waits for any more, unless the server has it.
    pub(super) fn prune(&mut self, is_wanted: impl Fn(&T) -> bool) {
        self.waiting.retain(|_, what| is_wanted(what));
    }

    /// There is a connection, and the server said on it what it performed last. `known` says that
    /// its site hears of it, too.
    pub(super) fn connected(&mut self, performed: u64, known: bool) -> Vec<(T, Fate)> {
        assert!(self.sent.is_empty(), "the last connection was ended first");
        (self.sent_last, self.performed) = (Some(performed), performed);
        if known {
            self.floor = performed;
        }
        self.sweep()
    }

    /// Whether the server lost something (R3).
    pub(super) fn is_behind(&self) -> bool {
        self.sent_last.is_some() && self.performed < self.floor
    }

    /// The next to be sent, if one may be (R1): it counts as sent.
    pub(super) fn next(&mut self) -> Option<(u64, &T)> {
        if self.held || self.is_behind() {
            return None;
        }
        let seq = self.sent_last? + 1;
        let what = self.waiting.remove(&seq)?;
        self.sent_last = Some(seq);
        self.sent.push_back((seq, what));
        self.sent.back().map(|(seq, what)| (*seq, what))
    }

    /// What the server is known to have performed.
    pub(super) const fn performed(&self) -> u64 {
        self.performed
    }

    /// The first that the server has.
    pub(super) fn first(&self) -> Option<(u64, &T)> {
        self.sent.front().map(|(seq, what)| (*seq, what))
    }

    /// The server answered for the first that it has.
    pub(super) fn heard<C>(
        &mut self,
        heard: Heard<C>,
        change: impl FnOnce(T, C) -> T,
    ) -> Vec<(T, Fate)> {
        let Some((seq, what)) = self.sent.pop_front() else { return Vec::new() };
        let mut fates = Vec::new();
        match heard {
            Heard::Performed => {
                self.performed = seq;
                self.floor = self.floor.max(seq);
                fates.push((what, Fate::Answered));
            }
            Heard::Again(how) => {
                self.waiting.insert(seq, change(what, how));
                self.held = true;
            }
            Heard::Refused(last) => {
                self.performed = last;
                self.waiting.insert(seq, what);
                self.held = true;
            }
        }
        if self.held && self.sent.is_empty() {
            (self.held, self.sent_last) = (false, Some(self.performed));
        }
        if self.sent.is_empty() {
            fates.extend(self.sweep());
        }
        fates
    }

    /// What was asked for and need not be sent.
    pub(super) fn settle(&mut self) -> Vec<(T, Fate)> {
        match self.sent.is_empty() && self.sent_last.is_some() {
            true => self.sweep(),
            false => Vec::new(),
        }
    }

    /// The connection ended (R2).
    pub(super) fn broken(&mut self) {
        for (seq, what) in std::mem::take(&mut self.sent) {
            // Asked for anew meanwhile: whoever asked first is gone.
            self.waiting.entry(seq).or_insert(what);
        }
        (self.sent_last, self.held) = (None, false);
    }

    /// Gives up on everything, without a connection.
    pub(super) fn give_up(&mut self) -> Vec<T> {
        std::mem::take(&mut self.waiting).into_values().collect()
    }

    /// What waits and need not be sent.
    fn sweep(&mut self) -> Vec<(T, Fate)> {
        if self.is_behind() {
            let behind = Fate::Behind(self.performed);
            return self.give_up().into_iter().map(|what| (what, behind)).collect();
        }
        let later = self.waiting.split_off(&(self.performed + 1));
        let done = std::mem::replace(&mut self.waiting, later);
        done.into_values().map(|what| (what, Fate::Performed)).collect()
    }
}

#[cfg(test)]
mod tests {
    use rand::{RngExt as _, SeedableRng as _};
    use synod::runtime::world::Rng;

    use super::*;

    /// A server that performs a number only behind the one before it, and forgets what it likes.
    #[derive(Default)]
    struct Model {
        performed: Vec<u64>,
        /// On their way to it, on connections that may have ended.
        coming: Vec<VecDeque<u64>>,
    }

    impl Model {
        fn last(&self) -> u64 {
            self.performed.last().copied().unwrap_or_default()
        }

        fn perform(&mut self, connection: usize) -> Option<Heard<()>> {
            let seq = self.coming[connection].pop_front()?;
            if seq != self.last() + 1 {
                return Some(Heard::Refused(self.last()));
            }
            self.performed.push(seq);
            Some(Heard::Performed)
        }
    }

    /// Goal: every number is performed once, in order, and nobody is told otherwise. Method: random
    /// breaks, connections whose commands come late, repetitions, and a server that loses its end.
    #[test]
    fn whatever_breaks_each_number_is_performed_once_and_in_order() {
        for seed in 0..400 {
            let mut rng = Rng::seed_from_u64(seed);
            let (mut line, mut server) = (Line::new(), Model::default());
            let (mut asked, mut told, mut again) = (0, 0, 0);
            for turn in 0..2_000 {
                let mut fates = Vec::new();
                match rng.random_range(0..20) {
                    0..8 if asked < told + 16 && turn < 1_500 => {
                        asked += 1;
                        line.ask(asked, asked);
                    }
                    8..12 => {
                        if let Some((seq, _)) = line.next()
                            && let Some(connection) = server.coming.last_mut()
                        {
                            connection.push_back(seq);
                        }
                    }
                    12..17 if line.sent_last.is_some() => {
                        let last = server.coming.len() - 1;
                        if rng.random_range(0..40) == 0 {
                            // Something of it cannot be done: all of it is asked otherwise.
                            if server.coming[last].pop_front().is_some() {
                                again += 1;
                                fates = line.heard(Heard::Again(()), |seq, ()| seq);
                            }
                        } else if let Some(heard) = server.perform(last) {
                            fates = line.heard(heard, |seq, ()| seq);
                        }
                    }
                    17 if server.coming.len() > 1 => {
                        // What came on a connection of before.
                        let old = rng.random_range(0..server.coming.len() - 1);
                        let _unheard = server.perform(old);
                    }
                    18 if rng.random_range(0..4) == 0 || line.sent_last.is_none() => {
                        line.broken();
                        if seed % 2 == 0 && rng.random_range(0..8) == 0 {
                            let keep = rng.random_range(0..=server.performed.len());
                            server.performed.truncate(keep);
                            server.coming.clear();
                        }
                        server.coming.push(VecDeque::new());
                        fates = line.connected(server.last(), false);
                        if line.is_behind() {
                            assert!(told > server.last(), "seed {seed}");
                            // Its site asks what it performed, and goes on from there.
                            line.broken();
                            drop(line.connected(server.last(), true));
                            told = server.last();
                            (told + 1..=asked).for_each(|seq| line.ask(seq, seq));
                        }
                    }
                    _ => {}
                }
                for (seq, fate) in fates {
                    match fate {
                        Fate::Answered | Fate::Performed => {
                            assert!(server.performed.contains(&seq), "seed {seed}: {seq} {fate:?}");
                            told = told.max(seq);
                        }
                        Fate::Behind(at) => assert_eq!(at, server.last(), "seed {seed}"),
                    }
                }
            }
            let whole: Vec<u64> = (1..=server.last()).collect();
            assert_eq!(server.performed, whole, "seed {seed}");
            assert!(told > 20 || seed % 2 == 0, "seed {seed}: {told} of {asked}, {again} again");
        }
    }

    #[test]
    fn a_server_that_lost_something_is_sent_nothing() {
        let mut line = Line::new();
        assert!(line.connected(4, true).is_empty());
        line.ask(5, 'a');
        line.ask(6, 'b');
        assert_eq!(line.next().map(|(seq, _)| seq), Some(5));
        assert_eq!(line.heard(Heard::Performed, |what, ()| what), [('a', Fate::Answered)]);
        assert_eq!(line.next().map(|(seq, _)| seq), Some(6));
        line.broken();
        assert_eq!(line.connected(3, false), [('b', Fate::Behind(3))]);
        line.ask(4, 'c');
        assert!(line.next().is_none());
        line.broken();
        assert!(line.connected(3, true).is_empty());
        assert_eq!(line.next().map(|(seq, _)| seq), Some(4));
    }

    #[test]
    fn what_was_performed_on_a_broken_connection_is_not_sent_again() {
        let mut line = Line::new();
        line.connected(0, true);
        for (seq, what) in [(1, 'a'), (2, 'b'), (3, 'c')] {
            line.ask(seq, what);
            assert!(line.next().is_some());
        }
        line.broken();
        assert_eq!(line.connected(2, false), [('a', Fate::Performed), ('b', Fate::Performed)]);
        assert_eq!(line.next().map(|(seq, _)| seq), Some(3));
        line.ask(5, 'e');
        assert!(line.next().is_none(), "four comes first");
    }
}
