//! The states of one primary on their way into the log: the newest goes, and those that it overtook
//! need not.
//!
//! - O1: a state is kept once it, or a later one of the same primary, is.
//! - O2: a state that equals the one before it is not sent again: an idle actor writes nothing.
//! - O3: what was refused is not tried again before there is another one.

use bytes::Bytes;

/// See the module's documentation.
#[derive(Debug)]
pub struct Outbox {
    newest: (u64, Bytes),
    kept: u64,
    refused: u64,
}

impl Outbox {
    /// That of a primary which begins with this state.
    pub const fn begun(state: Bytes) -> Self {
        Self { newest: (0, state), kept: 0, refused: 0 }
    }

    /// The newest state.
    pub const fn state(&self) -> &Bytes {
        &self.newest.1
    }

    /// The state is this by now; answers the number which must be kept for it to be.
    pub fn take(&mut self, state: Bytes) -> u64 {
        let (number, known) = &mut self.newest;
        if *known != state || *number <= self.refused && *number > 0 {
            (*number, *known) = (*number + 1, state); // O2
        }
        *number
    }

    /// What is to be sent, if anything is.
    pub fn next(&self) -> Option<(u64, Bytes)> {
        let (number, state) = &self.newest;
        (*number > self.kept.max(self.refused)).then(|| (*number, state.clone()))
    }

    /// The state of that number is kept.
    pub fn kept(&mut self, number: u64) {
        self.kept = self.kept.max(number);
    }

    /// It cannot be.
    pub fn refused(&mut self, number: u64) {
        self.refused = self.refused.max(number); // O3
    }

    /// All states up to this number are kept, or were overtaken by one that is.
    pub const fn upto(&self) -> u64 {
        self.kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(text: &'static str) -> Bytes {
        Bytes::from_static(text.as_bytes())
    }

    #[test]
    fn the_newest_goes_and_what_is_the_same_does_not() {
        let mut outbox = Outbox::begun(state("a"));
        assert_eq!((outbox.take(state("a")), outbox.upto(), outbox.next()), (0, 0, None));
        assert_eq!((outbox.take(state("b")), outbox.take(state("c"))), (1, 2));
        assert_eq!(outbox.next(), Some((2, state("c"))), "b was overtaken");
        assert_eq!(outbox.take(state("d")), 3, "while c is on its way");
        outbox.kept(2);
        assert_eq!((outbox.upto(), outbox.next()), (2, Some((3, state("d")))));
        outbox.kept(3);
        outbox.kept(2);
        assert_eq!((outbox.upto(), outbox.next()), (3, None));
        assert_eq!((outbox.take(state("d")), outbox.next()), (3, None));
    }

    #[test]
    fn what_was_refused_is_tried_again_when_it_is_taken_again() {
        let mut outbox = Outbox::begun(Bytes::new());
        assert_eq!(outbox.take(state("a")), 1);
        outbox.refused(1);
        assert_eq!(outbox.next(), None);
        assert_eq!((outbox.take(state("a")), outbox.next()), (2, Some((2, state("a")))));
        assert_eq!(outbox.upto(), 0);
    }
}
