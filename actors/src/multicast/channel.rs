//! How what is said to many nodes reaches them where some of it is lost for good: by datagrams.
//!
//! What is said is cut into pieces that fit a datagram, numbered one after the other. A [`Channel`]
//! takes them and makes packets of them: [`Plain`] as they are; [`Parity`] wraps another one and adds a
//! packet after every few pieces, the sum of these, from which any one of them comes back; [`Paced`]
//! wraps another one and lets its packets go as fast as the path takes them. Whoever hears the packets
//! puts them together again with a [`Gatherer`].
//!
//! Nothing here knows what is said. A packet that comes twice, late or never does no harm: who lacks
//! something asks for it, as ever; parity makes that seldom.

mod paced;

use std::collections::{BTreeMap, VecDeque};

use bytes::{Bytes, BytesMut};
use serde::{Deserialize, Serialize};

pub use self::paced::Paced;

/// How a node that serves nothing of a group is told what is delivered elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub enum Way {
    /// By a stream: nothing is lost, and what follows something late waits for it.
    #[default]
    Streams,
    /// By datagrams: what is late or lost holds nothing up, and is asked for.
    Datagrams {
        /// After so many of them at most comes one from which any lost one of these can be made; 0: none
        /// comes.
        parity: u8,
        /// No faster than the path to that node takes them.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        paced: bool,
    },
}

impl Way {
    /// Whether what it says to one node is no faster than the path takes it.
    pub const fn is_paced(self) -> bool {
        matches!(self, Self::Datagrams { paced: true, .. })
    }

    /// What it can be: never more parity than [`PARITY_MAX`].
    #[must_use]
    pub fn sound(self) -> Self {
        match self {
            Self::Streams => self,
            Self::Datagrams { parity, paced } => {
                Self::Datagrams { parity: parity.min(PARITY_MAX), paced }
            }
        }
    }
}

/// A part of what is said, or all of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Piece {
    /// Its place among all pieces, from 1.
    pub number: u64,
    /// So many pieces of the same come before it…
    pub before: u16,
    /// …and after it.
    pub after: u16,
    /// What is in it.
    pub part: Bytes,
}

/// One datagram.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Packet {
    /// Drawn by who sends them: numbers of another stream have nothing to do with these.
    pub stream: u64,
    /// What is in it.
    pub content: Content,
}

/// What is in a datagram.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Content {
    /// A piece.
    Piece(Piece),
    /// The sum of so many pieces.
    Sum {
        /// The number of the first.
        first: u64,
        /// How many.
        count: u8,
        /// Of all of them, byte by byte, each with its own length before it.
        sum: Bytes,
    },
}

/// Makes packets of pieces.
pub trait Channel: Send {
    /// Takes the next piece; says what is to be sent.
    fn put(&mut self, piece: Piece, out: &mut Vec<Content>);

    /// So many pieces it takes now: who puts more may lose them.
    fn room(&self) -> usize {
        usize::MAX
    }

    /// A moment has gone by, and so many bytes of what was sent are still on this machine. Says what it
    /// held back.
    fn look(&mut self, waiting: usize, out: &mut Vec<Content>);

    /// Whether it is to look, in a moment.
    fn holds(&self) -> bool;
}

/// Pieces as they are.
#[derive(Debug, Default)]
pub struct Plain;

impl Channel for Plain {
    fn put(&mut self, piece: Piece, out: &mut Vec<Content>) {
        out.push(Content::Piece(piece));
    }

    fn look(&mut self, _waiting: usize, _out: &mut Vec<Content>) {}

    fn holds(&self) -> bool {
        false
    }
}

/// What another channel makes of pieces, and a sum after every few of them.
#[derive(Debug)]
pub struct Parity<C> {
    inner: C,
    every: u8,
    first: u64,
    count: u8,
    sum: BytesMut,
}

impl<C: Channel> Parity<C> {
    /// A sum after so many pieces at most, and at least after each.
    pub fn new(inner: C, every: u8) -> Self {
        let every = every.clamp(1, PARITY_MAX);
        Self { inner, every, first: 0, count: 0, sum: BytesMut::new() }
    }

    fn close(&mut self, out: &mut Vec<Content>) {
        if self.count > 0 {
            let (first, count) = (self.first, self.count);
            out.push(Content::Sum { first, count, sum: self.sum.split().freeze() });
            self.count = 0;
        }
    }
}

impl<C: Channel> Channel for Parity<C> {
    fn put(&mut self, piece: Piece, out: &mut Vec<Content>) {
        if self.count == 0 {
            self.first = piece.number;
        }
        add(&mut self.sum, &piece);
        self.count += 1;
        self.inner.put(piece, out);
        if self.count >= self.every {
            self.close(out);
        }
    }

    fn room(&self) -> usize {
        self.inner.room()
    }

    fn look(&mut self, waiting: usize, out: &mut Vec<Content>) {
        self.inner.look(waiting, out);
        self.close(out);
    }

    fn holds(&self) -> bool {
        self.count > 0 || self.inner.holds()
    }
}

/// Cuts what is said into pieces for a channel.
pub struct Cutter {
    stream: u64,
    last: u64,
    channel: Box<dyn Channel>,
    unsaid: u64,
}

impl Cutter {
    /// A stream of that name, which no other has.
    pub fn new(stream: u64, parity: u8, paced: bool) -> Self {
        let channel: Box<dyn Channel> = match (parity, paced) {
            (0, false) => Box::new(Plain),
            (0, true) => Box::new(Paced::new(Plain)),
            (every, false) => Box::new(Parity::new(Plain, every)),
            (every, true) => Box::new(Paced::new(Parity::new(Plain, every))),
        };
        Self { stream, last: 0, channel, unsaid: 0 }
    }

    /// The packets that say it, or what of them may go now; none: it is too large for them. Where there is
    /// no room for all of it, it is not said.
    pub fn say(&mut self, said: &Bytes) -> Option<Vec<Packet>> {
        let pieces = said.len().div_ceil(PART_BYTES).max(1);
        if pieces > PIECES_MAX {
            return None;
        }
        if pieces > self.channel.room() {
            self.unsaid += 1;
            return Some(Vec::new());
        }
        let count = |pieces: usize| u16::try_from(pieces).expect("at most PIECES_MAX");
        let mut out = Vec::with_capacity(pieces + 1);
        for at in 0..pieces {
            self.last += 1;
            let end = said.len().min((at + 1) * PART_BYTES);
            let (before, after) = (count(at), count(pieces - 1 - at));
            let part = said.slice(at * PART_BYTES..end);
            self.channel.put(Piece { number: self.last, before, after, part }, &mut out);
        }
        Some(self.packets(out))
    }

    /// The packets that were held back and may go, when so many bytes of earlier ones still wait.
    pub fn look(&mut self, waiting: usize) -> Vec<Packet> {
        let mut out = Vec::new();
        self.channel.look(waiting, &mut out);
        self.packets(out)
    }

    /// So much was not said for want of room.
    pub const fn unsaid(&self) -> u64 {
        self.unsaid
    }

    /// Whether it is to look, in a moment.
    pub fn holds(&self) -> bool {
        self.channel.holds()
    }

    fn packets(&self, contents: Vec<Content>) -> Vec<Packet> {
        contents.into_iter().map(|content| Packet { stream: self.stream, content }).collect()
    }
}

/// Puts together what comes in packets of one sender, and makes good what is lost where it can.
#[derive(Debug, Default)]
pub struct Gatherer {
    stream: u64,
    /// The highest number that came.
    top: u64,
    /// The newest pieces.
    pieces: BTreeMap<u64, Piece>,
    /// Sums of which more than one piece is missing.
    sums: VecDeque<(u64, u8, Bytes)>,
    mended: u64,
}

impl Gatherer {
    /// Takes a packet; answers what is whole now.
    pub fn take(&mut self, packet: Packet) -> Vec<Bytes> {
        if packet.stream != self.stream {
            // Whoever sends was started anew.
            *self = Self { stream: packet.stream, mended: self.mended, ..Self::default() };
        }
        let mut whole = Vec::new();
        match packet.content {
            Content::Piece(piece) => self.put(piece, &mut whole),
            Content::Sum { first, count, sum } => {
                let bytes_max = HEAD_BYTES + PART_BYTES;
                if (1..=PARITY_MAX).contains(&count) && sum.len() <= bytes_max {
                    self.sums.push_back((first, count, sum));
                }
                if self.sums.len() > SUMS_MAX {
                    self.sums.pop_front();
                }
            }
        }
        while let Some(piece) = self.mend() {
            self.mended += 1;
            self.put(piece, &mut whole);
        }
        whole
    }

    /// So many pieces were lost and came back.
    pub const fn mended(&self) -> u64 {
        self.mended
    }

    fn put(&mut self, piece: Piece, whole: &mut Vec<Bytes>) {
        let number = piece.number;
        let old = number <= self.top.saturating_sub(WINDOW);
        if old || piece.part.len() > PART_BYTES || self.pieces.contains_key(&number) {
            return;
        }
        self.top = self.top.max(number);
        let (before, after) = (u64::from(piece.before), u64::from(piece.after));
        self.pieces.insert(number, piece);
        if before + after < PIECES_MAX as u64 {
            whole.extend(self.whole(number.saturating_sub(before), before + after));
        }
        let floor = self.top.saturating_sub(WINDOW);
        while self.pieces.first_key_value().is_some_and(|(oldest, _)| *oldest <= floor) {
            self.pieces.pop_first();
        }
    }

    /// What begins with that piece, if all are there.
    fn whole(&self, first: u64, more: u64) -> Option<Bytes> {
        let run = (0..=more).map(|at| {
            let piece = self.pieces.get(&first.checked_add(at)?)?;
            let fits = u64::from(piece.before) == at && u64::from(piece.after) == more - at;
            fits.then_some(&piece.part)
        });
        let parts: Vec<_> = run.collect::<Option<_>>()?;
        Some(match parts[..] {
            [one] => one.clone(),
            _ => parts.iter().flat_map(|part| part.iter().copied()).collect(),
        })
    }

    /// A piece that was missing. Sums that are no use any more go.
    fn mend(&mut self) -> Option<Piece> {
        let floor = self.top.saturating_sub(WINDOW);
        let (pieces, mut found) = (&self.pieces, None);
        self.sums.retain(|(first, count, sum)| {
            let numbers = (0..u64::from(*count)).map(|at| first.saturating_add(at));
            let mut missing = numbers.clone().filter(|number| !pieces.contains_key(number));
            match (missing.next(), missing.next()) {
                (None, _) => false,
                (Some(_), Some(_)) => *first > floor,
                (Some(_), None) if found.is_some() => true,
                (Some(number), None) => {
                    let present = numbers.filter_map(|number| pieces.get(&number));
                    found = subtract(number, sum, present);
                    false
                }
            }
        });
        found
    }
}

/// What a sum is made of: the places and the length of a piece, then what is in it.
fn add(sum: &mut BytesMut, piece: &Piece) {
    let len = u16::try_from(piece.part.len()).unwrap_or(u16::MAX);
    let head = [piece.before, piece.after, len].map(u16::to_le_bytes).concat();
    let needed = head.len() + piece.part.len();
    if sum.len() < needed {
        sum.resize(needed, 0);
    }
    let bytes = head.iter().chain(&piece.part);
    sum.iter_mut().zip(bytes).for_each(|(sum, byte)| *sum ^= byte);
}

/// What is missing of a sum; nothing, if that cannot be: then it was none of these.
fn subtract<'a>(
    number: u64,
    sum: &Bytes,
    present: impl Iterator<Item = &'a Piece>,
) -> Option<Piece> {
    let mut left = BytesMut::from(&sum[..]);
    present.for_each(|piece| add(&mut left, piece));
    let (head, rest) = left.split_at_checked(HEAD_BYTES)?;
    let word = |at: usize| u16::from_le_bytes([head[at], head[at + 1]]);
    let (before, after, len) = (word(0), word(2), usize::from(word(4)));
    let (part, padding) = rest.split_at_checked(len)?;
    let sound = padding.iter().all(|byte| *byte == 0);
    sound.then(|| Piece { number, before, after, part: Bytes::copy_from_slice(part) })
}

/// Of a piece: with all that is around it, it fits the smallest datagram that every path carries.
pub const PART_BYTES: usize = 1_000;

/// Before what is in a piece, in a sum.
const HEAD_BYTES: usize = 6;

/// Of one thing said: more had better go by a stream, since any lost one costs all of them.
pub const PIECES_MAX: usize = 16;

/// One sum over more would hardly ever make good what is lost.
pub const PARITY_MAX: u8 = 32;

/// So many of the newest pieces are kept, for sums and for what is not whole yet.
const WINDOW: u64 = 256;

/// Sums that wait for pieces.
const SUMS_MAX: usize = 32;

impl std::fmt::Debug for Cutter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cutter").field("last", &self.last).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
