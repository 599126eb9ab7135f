//! Packets no faster than the path takes them.
//!
//! QUIC adapts to what a path carries: what is more than that waits on the sender's machine, in front of
//! signs of life, and when too much waits the oldest is dropped. So what is seen here is how much waits, and
//! the answer is to send less: a little more at each look while nothing waits (at first twice as much), half
//! as much when something does. Whatever is said is said as a whole or not at all, since any lost piece of
//! it would cost all of it. Who lacks it asks for it, as ever, and is answered by a stream.

use std::collections::VecDeque;

use super::{Channel, Content, PIECES_MAX, Piece};

/// What another channel makes of pieces, at a rate that the path to one receiver carries.
#[derive(Debug)]
pub struct Paced<C> {
    inner: C,
    /// So many packets may go from one look to the next.
    rate: usize,
    /// Of these, not used yet.
    left: usize,
    /// Something waited at the last look: that was answered.
    full: bool,
    /// Nothing waited yet at any look: the path takes more, nobody knows how much.
    unknown: bool,
    /// What goes next.
    queue: VecDeque<Content>,
}

impl<C: Channel> Paced<C> {
    /// At first as fast as most paths can.
    pub const fn new(inner: C) -> Self {
        Self {
            inner,
            rate: RATE_FIRST,
            left: RATE_FIRST,
            full: false,
            unknown: true,
            queue: VecDeque::new(),
        }
    }

    /// So many packets may go from one look to the next.
    pub const fn rate(&self) -> usize {
        self.rate
    }

    /// So many packets are held at most, and one thing more that was begun.
    fn held_max(&self) -> usize {
        (HELD_LOOKS * self.rate).max(PIECES_MAX)
    }

    /// Lets go what may; holds the rest.
    fn pass(&mut self, made: Vec<Content>, out: &mut Vec<Content>) {
        // Whoever did not ask for room loses what is too much.
        let most = self.held_max() + 2 * PIECES_MAX;
        for content in made {
            if self.queue.len() < most {
                self.queue.push_back(content);
            }
        }
        let now = self.left.min(self.queue.len());
        self.left -= now;
        out.extend(self.queue.drain(..now));
    }
}

impl<C: Channel> Channel for Paced<C> {
    fn room(&self) -> usize {
        let room = (self.left + self.held_max()).saturating_sub(self.queue.len());
        room.min(self.inner.room())
    }

    fn put(&mut self, piece: Piece, out: &mut Vec<Content>) {
        let mut made = Vec::new();
        self.inner.put(piece, &mut made);
        self.pass(made, out);
    }

    fn look(&mut self, waiting: usize, out: &mut Vec<Content>) {
        let mut made = Vec::new();
        self.inner.look(waiting, &mut made);
        if waiting > WAITING_BYTES_MAX {
            // Once for what waits, however long that takes.
            if !self.full {
                self.rate = (self.rate / 2).max(1);
            }
            self.left = 0;
            (self.full, self.unknown) = (true, false);
        } else {
            // Who did not use what there was learns nothing of the path.
            if self.left == 0 && !self.full {
                let more = if self.unknown { self.rate } else { 1 };
                self.rate = (self.rate + more).min(RATE_MAX);
            }
            self.left = self.rate;
            self.full = false;
        }
        self.pass(made, out);
    }

    fn holds(&self) -> bool {
        // Looks go on until there is nothing to be learned from them.
        self.left < self.rate || !self.queue.is_empty() || self.inner.holds()
    }
}

/// At a look every few milliseconds some megabytes a second: less than a local network carries, and no
/// more at once than any path's buffers hold.
const RATE_FIRST: usize = 32;

/// Two hundred megabytes a second.
const RATE_MAX: usize = 1_024;

/// What cannot go within so many looks is not said: whoever lacks it would have asked for it by then. Of a
/// path that takes less than anything large one thing at a time is said all the same.
const HELD_LOOKS: usize = 4;

/// So much may wait at a look: the last of what was just sent.
const WAITING_BYTES_MAX: usize = 8_192;

#[cfg(test)]
mod tests;
