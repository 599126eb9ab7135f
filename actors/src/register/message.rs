//! What is asked of a holder of registers, and what it answers.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Orders calls. No two calls have the same one.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug, Serialize, Deserialize,
)]
pub struct Timestamp {
    /// Rises; no clock's.
    pub time: u64,
    /// One life of one client, drawn at random; and in its last bits, which of the values that it writes
    /// under one order.
    pub author: u64,
}

impl Timestamp {
    /// Of the life of that number.
    pub(super) const fn of_life(life: u64) -> Self {
        Self { time: 0, author: life << PART_BITS }
    }

    /// Which value of its order it is: the first is 0.
    pub(super) const fn part(self) -> u64 {
        self.author & ((1 << PART_BITS) - 1)
    }

    /// That of one more value under the same order: above this one, and below every order of anybody
    /// that is above it. `None`: there were as many as there can be.
    pub(super) const fn next_part(self) -> Option<Self> {
        let author = self.author.wrapping_add(1);
        let same = author >> PART_BITS == self.author >> PART_BITS;
        if same { Some(Self { author, ..self }) } else { None }
    }
}

/// So many bits count the values of an order. The others tell clients' lives apart.
const PART_BITS: u32 = 16;

/// One request to a holder, about one register.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Ask {
    /// What is there?
    Read,
    /// Take nothing below this from now on.
    Order {
        /// This.
        stamp: Timestamp,
        /// Whether the answer shall hold the value.
        fetch: bool,
    },
    /// Keep this, unless something higher was ordered.
    Write {
        /// What was ordered.
        stamp: Timestamp,
        /// The value.
        #[serde(with = "serde_bytes")]
        value: Vec<u8>,
    },
}

/// What a holder keeps of a register. Nothing was written yet: the lowest stamp and no value.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct Block {
    /// The highest order.
    pub ordered: Timestamp,
    /// Under which the value was written.
    pub written: Timestamp,
    /// The value.
    #[serde(with = "serde_bytes")]
    pub value: Vec<u8>,
}

/// What a holder answers.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Answer {
    /// To a read, and to an order that was taken; the value only if it was asked for.
    Held(Block),
    /// It is written.
    Written,
    /// This was ordered, which is higher. Nothing was changed.
    Late(Timestamp),
    /// Nothing was changed, and never will be for the same request.
    Refused(Refusal),
}

/// Why a holder did nothing.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// A name that no register can have.
    #[error("the name of a register has 1 to {NAME_BYTES_MAX} bytes")]
    BadName,
    /// A value that is too large.
    #[error("{0} bytes do not fit into a register of {VALUE_BYTES_MAX}")]
    TooLarge(usize),
    /// It keeps as many registers as it may.
    #[error("there are {REGISTERS_MAX} registers, as many as may be")]
    Full,
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{:x}", self.time, self.author)
    }
}

/// A value and all that goes with it fit into the 4 KiB that a disk writes at once.
pub const VALUE_BYTES_MAX: usize = 3_584;

/// Names stand beside the value: that of a role, and what tells what the register is for.
pub const NAME_BYTES_MAX: usize = 300;

/// Registers of one holder: 32 MiB of a cheap node's disk. They are for control words, not for data.
pub const REGISTERS_MAX: usize = 4_096;
