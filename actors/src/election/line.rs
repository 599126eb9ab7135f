//! The messages of one proxy to whoever holds a role: which may go, where, and which once more.
//!
//! - L1: messages go in the order they were sent. One that was refused goes before all that were
//!   sent after it and have not gone yet.
//! - L2: in an epoch of which no answer has come yet, one goes at a time: the holder may be about to
//!   begin, and refuse the first but not the second.
//! - L3: what was certainly *not run* goes again while its deadline lasts; what may have run goes
//!   again only if its sender said that running twice does no harm.
//! - L4: never to an epoch below one that is known.

use std::{collections::BTreeMap, fmt};

use synod_runtime::{address::SendError, identity::NodeName, world::Instant};

use super::message::Epoch;

/// Where the holder of a role acts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// At which node.
    pub node: NodeName,
    /// In which epoch.
    pub epoch: Epoch,
}

/// The number of a message in its line; later ones are higher.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Number(u64);

/// What became of a message that went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Landed {
    /// It goes again when [`Line::depart`] says so.
    Again,
    /// This is what its sender hears.
    Over(Result<(), SendError>),
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct Line {
    sent: u64,
    /// The highest epoch known, and where.
    place: Option<Place>,
    /// The holder there does not take messages (yet, or any more).
    shut: bool,
    /// An answer came from there.
    proven: bool,
    waiting: BTreeMap<Number, Parcel>,
    flying: BTreeMap<Number, (Epoch, Parcel)>,
}

#[derive(Debug, Clone)]
struct Parcel {
    deadline: Instant,
    repeats: bool,
    /// It may have run.
    tried: bool,
    /// Why it is not there yet.
    last: SendError,
}

impl Line {
    /// A message that is to be there before `deadline`; `repeats`: running it twice does no harm.
    ///
    /// # Errors
    /// `Overloaded` when too many are on their way.
    pub fn join(&mut self, deadline: Instant, repeats: bool) -> Result<Number, SendError> {
        if self.waiting.len() + self.flying.len() >= LINE_LEN_MAX {
            return Err(SendError::Overloaded);
        }
        self.sent += 1;
        let number = Number(self.sent);
        let parcel = Parcel { deadline, repeats, tried: false, last: SendError::Unreachable };
        self.waiting.insert(number, parcel);
        Ok(number)
    }

    /// The next that is to go now, where, and its deadline.
    pub fn depart(&mut self) -> Option<(Number, Place, Instant)> {
        let place = self.place.as_ref().filter(|_| !self.shut)?;
        let there = self.flying.values().filter(|(epoch, _)| *epoch == place.epoch).count();
        let most = if self.proven { WINDOW } else { 1 };
        if there >= most {
            return None;
        }
        let (number, parcel) = self.waiting.pop_first()?;
        let deadline = parcel.deadline;
        self.flying.insert(number, (place.epoch, parcel));
        Some((number, place.clone(), deadline))
    }

    /// The holder is there. Answers which messages are to be called back from where they were sent
    /// before, since running them twice does no harm: see [`Line::back`].
    pub fn found(&mut self, place: Place) -> Vec<Number> {
        match &self.place {
            Some(known) if place.epoch < known.epoch => return Vec::new(),
            Some(known) if place.epoch == known.epoch => {
                self.shut = false;
                return Vec::new();
            }
            Some(_) | None => {}
        }
        let epoch = place.epoch;
        (self.place, self.shut, self.proven) = (Some(place), false, false);
        let flying = self.flying.iter();
        let back = flying.filter(|(_, (of, parcel))| *of < epoch && parcel.repeats);
        back.map(|(number, _)| *number).collect()
    }

    /// A message that was called back is here, and goes again.
    pub fn back(&mut self, number: Number) {
        if let Some((_, parcel)) = self.flying.remove(&number) {
            self.waiting.insert(number, Parcel { tried: true, ..parcel });
        }
    }

    /// What became of a message that went.
    pub fn landed(&mut self, now: Instant, number: Number, how: Result<(), SendError>) -> Landed {
        let Some((epoch, mut parcel)) = self.flying.remove(&number) else { return Landed::Again };
        let current = self.place.as_ref().is_some_and(|place| place.epoch == epoch);
        let Err(error) = how else {
            self.proven |= current;
            return Landed::Over(Ok(()));
        };
        let (not_there, unknown) = match &error {
            SendError::Unreachable
            | SendError::NoSuchActor
            | SendError::Leaving
            | SendError::Fenced { .. } => (true, false),
            SendError::Closed => (false, true),
            SendError::Timeout
            | SendError::Overloaded
            | SendError::Incompatible { .. }
            | SendError::Codec => (false, false),
        };
        if not_there && current {
            // One asks whether it is there (again), not all.
            (self.shut, self.proven) = (true, false);
        }
        parcel.tried |= unknown;
        if (not_there || (unknown && parcel.repeats)) && now < parcel.deadline {
            parcel.last = error;
            self.waiting.insert(number, parcel);
            return Landed::Again;
        }
        Landed::Over(Err(parcel.said(error)))
    }

    /// Its sender waits no more. Answers whether it was on its way.
    pub fn left(&mut self, number: Number) -> bool {
        self.waiting.remove(&number);
        self.flying.remove(&number).is_some()
    }

    /// Those that could not go before their deadline, and what their senders hear.
    pub fn late(&mut self, now: Instant) -> Vec<(Number, SendError)> {
        let late = self.waiting.extract_if(.., |_, parcel| parcel.deadline <= now);
        late.map(|(number, parcel)| (number, parcel.clone().said(parcel.last))).collect()
    }

    /// The first deadline of those that wait.
    pub fn deadline(&self) -> Option<Instant> {
        self.waiting.values().map(|parcel| parcel.deadline).min()
    }

    /// Whether it must be found out where the holder acts.
    pub fn seeks(&self) -> bool {
        !self.waiting.is_empty() && (self.place.is_none() || self.shut)
    }

    /// Whether anything waits or is on its way.
    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.flying.is_empty()
    }
}

impl Parcel {
    /// The error tells of all attempts, not of the last one alone.
    fn said(self, error: SendError) -> SendError {
        use synod_runtime::address::Delivery;
        let denies_it = self.tried && error.outcome() == Delivery::NotRun;
        if denies_it { SendError::Timeout } else { error }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in epoch {}", self.node, self.epoch)
    }
}

/// Messages of one proxy at once: a takeover of two seconds at two thousand a second fits in.
pub const LINE_LEN_MAX: usize = 4_096;

/// Messages on their way to one holder: enough for any network, and few to call back.
pub const WINDOW: usize = 256;

#[cfg(test)]
mod tests {
    use synod_runtime::address::Delivery;

    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::from_nanos(ms * 1_000_000)
    }

    fn place(node: &str, epoch: u64) -> Place {
        Place { node: node.parse().unwrap(), epoch: Epoch(epoch) }
    }

    fn went(line: &mut Line) -> Vec<u64> {
        std::iter::from_fn(|| line.depart()).map(|(number, _, _)| number.0).collect()
    }

    fn line(len: u64, repeats: bool) -> Line {
        let mut line = Line::default();
        for _ in 0..len {
            line.join(at(1_000), repeats).unwrap();
        }
        line
    }

    const STALE: Result<(), SendError> = Err(SendError::NoSuchActor);

    #[test]
    fn what_a_stale_holder_refused_goes_to_the_next_one_first_and_in_order() {
        let mut line = line(4, false);
        assert!(line.seeks() && went(&mut line).is_empty());
        line.found(place("a", 5));
        assert_eq!(went(&mut line), [1], "nobody knows yet whether it takes any");
        assert_eq!(line.landed(at(1), Number(1), Ok(())), Landed::Over(Ok(())));
        assert_eq!(went(&mut line), [2, 3, 4]);
        for number in [3, 2] {
            assert_eq!(line.landed(at(2), Number(number), STALE), Landed::Again);
        }
        line.join(at(1_000), false).unwrap();
        assert!(line.seeks() && went(&mut line).is_empty());
        // An older holder than the known one is none.
        line.found(place("b", 4));
        assert!(went(&mut line).is_empty());
        line.found(place("b", 9));
        assert_eq!(went(&mut line), [2]);
        assert_eq!(line.landed(at(3), Number(2), Ok(())), Landed::Over(Ok(())));
        assert_eq!(went(&mut line), [3, 5]);
        // What became of the fourth is not known, so it does not go again.
        let closed = line.landed(at(4), Number(4), Err(SendError::Closed));
        assert_eq!(closed, Landed::Over(Err(SendError::Closed)));
    }

    #[test]
    fn a_holder_that_is_about_to_begin_is_asked_again_with_one_message() {
        let mut line = line(3, false);
        line.found(place("a", 5));
        assert_eq!(went(&mut line), [1]);
        assert_eq!(line.landed(at(1), Number(1), STALE), Landed::Again);
        assert!(line.seeks());
        line.found(place("a", 5));
        assert_eq!(went(&mut line), [1]);
    }

    #[test]
    fn what_may_have_run_goes_again_only_if_that_does_no_harm() {
        let mut line = line(2, true);
        line.join(at(1_000), false).unwrap();
        line.found(place("a", 5));
        assert_eq!(went(&mut line), [1]);
        line.landed(at(1), Number(1), Ok(()));
        assert_eq!(went(&mut line), [2, 3]);
        // The holder's node was stopped; somebody else has the role.
        assert_eq!(line.found(place("b", 9)), [Number(2)]);
        assert!(went(&mut line).is_empty(), "it is not back yet");
        line.back(Number(2));
        assert_eq!(went(&mut line), [2]);
        assert_eq!(line.landed(at(2), Number(2), STALE), Landed::Again);
        // It may have run at the first holder, whatever the second says.
        let late = line.late(at(1_000));
        assert_eq!(late, [(Number(2), SendError::Timeout)]);
        assert_eq!(late[0].1.outcome(), Delivery::Unknown);
    }

    #[test]
    fn nobody_waits_beyond_its_deadline_and_a_line_has_an_end() {
        let mut line = line(2, false);
        assert_eq!(line.deadline(), Some(at(1_000)));
        assert!(line.late(at(999)).is_empty());
        let late = line.late(at(1_000));
        assert!(late.len() == 2 && late.iter().all(|(_, e)| e.outcome() == Delivery::NotRun));
        assert!(line.is_idle());
        // One that comes back late is not sent again.
        line.join(at(1_000), false).unwrap();
        line.found(place("a", 5));
        assert_eq!(went(&mut line), [3]);
        let refused = line.landed(at(1_000), Number(3), STALE);
        assert_eq!(refused, Landed::Over(Err(SendError::NoSuchActor)));
        for _ in 0..LINE_LEN_MAX {
            line.join(at(1_000), false).unwrap();
        }
        assert_eq!(line.join(at(1_000), false), Err(SendError::Overloaded));
    }
}
