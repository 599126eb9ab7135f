//! The checkpoints of a service, at its primary: when one is taken, and who gets it.
//!
//! - C1: only those next in line get one, and spares that are about to be; other spares get nothing.
//! - C2: a spare is promoted only once it has the newest: then it is equal to the others.
//! - C3: to one node one checkpoint goes at a time, and the newest first: who is slow misses some.
//! - C4: a primary that gives its service up takes a last one, and waits a while for it to arrive.
//! - C5: one that is asked for is taken after the asking; who asked hears of it once all that are next
//!   in line have it, or a newer one.

use std::{collections::BTreeMap, time::Duration};

use synod_runtime::world::Instant;

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Errand {
    /// Take one.
    Export,
    /// Send the newest, which has this number, to that node.
    Send(String, u64),
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Courier {
    every: Duration,
    due: Instant,
    /// After one that could not be taken, none is tried before.
    not_before: Instant,
    exporting: bool,
    /// The number of the newest; none was taken yet.
    newest: u64,
    /// One of this number is asked for.
    asked: u64,
    /// Which one each node has, and when it may be tried again if that failed.
    known: BTreeMap<String, Known>,
    last: Last,
}

#[derive(Debug, Clone, Copy, Default)]
struct Known {
    has: u64,
    flying: bool,
    not_before: Option<Instant>,
}

/// The checkpoint before the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Last {
    NotYet,
    Wanted,
    Taken,
    /// It could not be taken.
    Failed,
}

impl Courier {
    /// The first is taken after one period.
    pub fn new(every: Duration, now: Instant) -> Self {
        let due = now + every;
        let known = BTreeMap::new();
        let last = Last::NotYet;
        Self { every, due, not_before: now, exporting: false, newest: 0, asked: 0, known, last }
    }

    /// What is to be done now, for those next in line and those about to be.
    pub fn errands(&mut self, now: Instant, line: &[String]) -> Vec<Errand> {
        self.known.retain(|node, known| known.flying || line.contains(node));
        let mut errands = Vec::new();
        let behind = |node: &String| self.known.get(node).is_none_or(|known| known.has == 0);
        // Whoever is new need not wait for a whole period.
        let due = now >= self.due || self.newest == 0 && line.iter().any(behind);
        let may = !self.exporting && !line.is_empty() && now >= self.not_before;
        if may && (due || self.asked > self.newest || self.last == Last::Wanted) {
            self.exporting = true;
            errands.push(Errand::Export);
        }
        for node in line {
            let known = self.known.entry(node.clone()).or_default();
            let may = !known.flying && known.not_before.is_none_or(|at| now >= at);
            if known.has < self.newest && may {
                known.flying = true;
                errands.push(Errand::Send(node.clone(), self.newest)); // C1, C3
            }
        }
        errands
    }

    /// Somebody asks for one that is taken after this moment; answers which number will do.
    pub fn ask(&mut self) -> u64 {
        // One that is being taken by now may be too old.
        self.asked = self.newest + 1 + u64::from(self.exporting); // C5
        self.asked
    }

    /// Up to which number all of them have had every checkpoint, or a newer one; 0 of nobody.
    pub fn reached(&self, line: &[String]) -> u64 {
        let has = |node: &String| self.known.get(node).map_or(0, |known| known.has);
        line.iter().map(has).min().unwrap_or(0)
    }

    /// One was taken, or could not be.
    pub fn exported(&mut self, now: Instant, done: bool) {
        self.exporting = false;
        self.due = now + self.every;
        if !done {
            self.not_before = now + AGAIN;
            // Who asked is told that there is none.
            self.asked = 0;
        }
        self.newest += u64::from(done);
        if self.last == Last::Wanted {
            self.last = if done { Last::Taken } else { Last::Failed };
        }
    }

    /// The one of this number arrived there and was taken in, or not.
    pub fn sent(&mut self, now: Instant, node: &str, number: u64, done: bool) {
        let Some(known) = self.known.get_mut(node) else { return };
        known.flying = false;
        match done {
            true => known.has = known.has.max(number),
            false => known.not_before = Some(now + AGAIN),
        }
    }

    /// Whether it has what the others have.
    pub fn has(&self, node: &str) -> bool {
        self.known.get(node).is_some_and(|known| known.has > 0 && known.has == self.newest)
    }

    /// The number of the newest; 0: none was taken.
    pub const fn newest(&self) -> u64 {
        self.newest
    }

    /// The service is given up: takes a last one.
    pub fn finish(&mut self) {
        // One that is being taken by now may be too old.
        if self.last == Last::NotYet && !self.exporting {
            self.last = Last::Wanted;
        }
    }

    /// Whether the last one is with all of them, or will never be.
    pub fn is_finished(&self, line: &[String]) -> bool {
        let has = |node: &String| {
            let known = self.known.get(node).copied().unwrap_or_default();
            known.has == self.newest || known.not_before.is_some()
        };
        match self.last {
            Last::NotYet | Last::Wanted => line.is_empty(),
            Last::Taken => line.iter().all(has),
            Last::Failed => true,
        }
    }
}

/// What failed is not tried again in a tight loop.
const AGAIN: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::from_nanos(ms * 1_000_000)
    }

    fn line(nodes: &[&str]) -> Vec<String> {
        nodes.iter().map(|&node| node.to_owned()).collect()
    }

    fn send(node: &str, number: u64) -> Errand {
        Errand::Send(node.to_owned(), number)
    }

    #[test]
    fn those_next_in_line_get_every_checkpoint_and_spares_none() {
        let mut courier = Courier::new(Duration::from_secs(5), at(0));
        assert!(courier.errands(at(4_000), &[]).is_empty(), "nobody is there to have it");
        assert_eq!(courier.errands(at(0), &line(&["b"])), [Errand::Export]);
        assert!(courier.errands(at(1), &line(&["b"])).is_empty());
        courier.exported(at(2), true);
        assert_eq!(courier.errands(at(2), &line(&["b"])), [send("b", 1)]);
        assert!(!courier.has("b"), "it is on its way");
        courier.sent(at(3), "b", 1, true);
        assert!(courier.has("b") && !courier.has("c"));
        assert!(courier.errands(at(5_001), &line(&["b"])).is_empty());
        assert_eq!(courier.errands(at(5_002), &line(&["b"])), [Errand::Export]);
        // c is about to be promoted: it gets what b has.
        assert_eq!(courier.errands(at(5_003), &line(&["b", "c"])), [send("c", 1)]);
        courier.exported(at(5_004), true);
        assert_eq!(courier.errands(at(5_004), &line(&["b", "c"])), [send("b", 2)]);
        courier.sent(at(5_005), "c", 1, true);
        assert!(!courier.has("c"), "there is a newer one");
        assert_eq!(courier.errands(at(5_006), &line(&["b", "c"])), [send("c", 2)]);
    }

    #[test]
    fn what_failed_is_tried_again_after_a_while() {
        let mut courier = Courier::new(Duration::from_millis(100), at(0));
        courier.errands(at(0), &line(&["b"]));
        courier.exported(at(0), false);
        assert!(courier.errands(at(999), &line(&["b"])).is_empty());
        assert_eq!(courier.errands(at(1_000), &line(&["b"])), [Errand::Export]);
        courier.exported(at(1_000), true);
        assert_eq!(courier.errands(at(1_000), &line(&["b"])), [send("b", 1)]);
        courier.sent(at(1_001), "b", 1, false);
        assert_eq!(courier.errands(at(2_000), &line(&["b"])), [Errand::Export], "it is time again");
        assert_eq!(courier.errands(at(2_001), &line(&["b"])), [send("b", 1)]);
    }

    #[test]
    fn one_that_is_asked_for_is_taken_after_the_asking_and_waited_for() {
        let mut courier = Courier::new(Duration::from_mins(1), at(0));
        let both = line(&["b", "c"]);
        assert_eq!(courier.errands(at(0), &both), [Errand::Export]);
        // The one that is being taken may have begun too early.
        assert_eq!((courier.ask(), courier.ask(), courier.reached(&both)), (2, 2, 0));
        courier.exported(at(1), true);
        assert_eq!(courier.errands(at(1), &both), [Errand::Export, send("b", 1), send("c", 1)]);
        courier.exported(at(2), true);
        courier.sent(at(3), "b", 1, true);
        courier.sent(at(3), "c", 1, true);
        assert_eq!(courier.errands(at(3), &both), [send("b", 2), send("c", 2)]);
        courier.sent(at(4), "b", 2, true);
        assert_eq!((courier.reached(&both), courier.reached(&line(&["b"]))), (1, 2));
        courier.sent(at(5), "c", 2, true);
        assert_eq!((courier.reached(&both), courier.reached(&[])), (2, 0));
        assert!(courier.errands(at(6), &both).is_empty(), "nobody asks any more");
        assert_eq!(courier.ask(), 3);
        assert_eq!(courier.errands(at(7), &both), [Errand::Export]);
        courier.exported(at(8), false);
        assert!(courier.errands(at(2_000), &both).is_empty(), "who asked was told");
    }

    #[test]
    fn a_last_one_is_taken_before_the_end_and_waited_for() {
        let mut courier = Courier::new(Duration::from_mins(1), at(0));
        courier.errands(at(0), &line(&["b"]));
        courier.exported(at(1), true);
        courier.errands(at(1), &line(&["b"]));
        courier.sent(at(2), "b", 1, true);
        courier.finish();
        assert!(!courier.is_finished(&line(&["b"])));
        assert_eq!(courier.errands(at(3), &line(&["b"])), [Errand::Export]);
        courier.exported(at(4), true);
        assert!(!courier.is_finished(&line(&["b"])));
        assert_eq!(courier.errands(at(4), &line(&["b"])), [send("b", 2)]);
        courier.sent(at(5), "b", 2, true);
        assert!(courier.is_finished(&line(&["b"])));
        courier.finish();
        assert!(courier.errands(at(6), &line(&["b"])).is_empty(), "one is enough");
    }
}
