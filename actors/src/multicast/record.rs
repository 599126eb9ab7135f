//! What a server of a group makes durable: one journal for all its roles.

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};
use synod_runtime::journal;

use super::{
    group::Group,
    message::{Data, PAIR_BYTES, Pair, Seq},
};
use crate::election::message::Epoch;

/// One durable fact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// A data server has a message. `until`: the last number that it may get.
    Data {
        /// The message.
        data: Data,
        /// The last number that it may get.
        until: Seq,
    },
    /// A commit server takes nothing of lower epochs, and has dropped all pairs up to the floor.
    Seal {
        /// Of the seal.
        epoch: Epoch,
        /// The highest number that was dropped.
        floor: Seq,
    },
    /// A commit server has these.
    Pairs {
        /// In which epoch they were submitted.
        epoch: Epoch,
        /// What is where, from the lowest number up.
        pairs: Vec<(Seq, Pair)>,
    },
    /// A commit server knows all numbers up to this one committed. Written when something else is.
    Known(Seq),
    /// A block of a checkpoint.
    Block {
        /// Of which checkpoint.
        seq: Seq,
        /// Which block.
        block: u32,
        /// Of how many.
        of: u32,
        /// What is in it.
        bytes: Bytes,
    },
    /// A block of a checkpoint is one that was written with an earlier checkpoint.
    Same {
        /// Of which checkpoint.
        seq: Seq,
        /// Which block.
        block: u32,
        /// Of how many.
        of: u32,
        /// With which checkpoint it was written.
        origin: Seq,
        /// As which block of that.
        was: u32,
    },
    /// A sequencer said that enough checkpoint servers have the checkpoint of this number.
    Advertised(Seq),
    /// A commit server takes nothing from who goes by older servers of the group than of this version.
    Servers(u64),
    /// What a commit server had counts no more, up to this number, which was the largest: it takes a
    /// place in the group, and what follows is all that it has.
    Anew(Seq),
    /// The journal ended torn at an earlier start; nobody was told of what stood there.
    Torn,
}

/// What is no record of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a record of kind {kind} at number {seq} is none of multicast's")]
pub struct BadRecord {
    /// Its kind.
    pub kind: u8,
    /// Its number.
    pub seq: u64,
}

const DATA: u8 = 1;
const SEAL: u8 = 2;
const PAIRS: u8 = 3;
const KNOWN: u8 = 4;
const BLOCK: u8 = 5;
const TORN: u8 = 6;
const ADVERTISED: u8 = 7;
const SERVERS: u8 = 8;
const ANEW: u8 = 9;
const SAME: u8 = 10;

impl Record {
    /// The record of a message.
    pub fn data(data: Data, group: &Group) -> Self {
        Self::Data { until: group.lives_until(data.stamp), data }
    }

    /// The last number it is about: it may be forgotten when nothing up to there is needed.
    pub fn last(&self) -> Seq {
        match self {
            Self::Data { until, .. } => *until,
            Self::Seal { .. } | Self::Servers(_) | Self::Torn => Seq(0),
            Self::Pairs { pairs, .. } => pairs.last().map_or(Seq(0), |(seq, _)| *seq),
            Self::Known(seq)
            | Self::Advertised(seq)
            | Self::Anew(seq)
            | Self::Same { seq, .. }
            | Self::Block { seq, .. } => *seq,
        }
    }

    /// As the journal keeps it.
    pub fn to_journal(&self) -> journal::Record {
        let (kind, round, author, payload) = match self {
            Self::Data { data, .. } => (DATA, 0, 0, encode(data, data.payload.len() + PAIR_BYTES)),
            Self::Seal { epoch, floor } => {
                (SEAL | journal::RESERVE, epoch.0, floor.0, Bytes::new())
            }
            Self::Pairs { epoch, pairs } => {
                (PAIRS, epoch.0, 0, encode(pairs, (pairs.len() + 1) * PAIR_BYTES))
            }
            Self::Known(_) => (KNOWN, 0, 0, Bytes::new()),
            Self::Advertised(_) => (ADVERTISED, 0, 0, Bytes::new()),
            Self::Servers(version) => (SERVERS | journal::RESERVE, *version, 0, Bytes::new()),
            Self::Anew(_) => (ANEW, 0, 0, Bytes::new()),
            Self::Block { block, of, bytes, .. } => {
                (BLOCK, u64::from(*block), u64::from(*of), bytes.clone())
            }
            Self::Same { block, of, origin, was, .. } => {
                let origin = encode(&(origin, was), PAIR_BYTES);
                (SAME, u64::from(*block), u64::from(*of), origin)
            }
            Self::Torn => (TORN | journal::RESERVE, 0, 0, Bytes::new()),
        };
        journal::Record { kind, group: 0, round, author, step: self.last().0, payload }
    }

    /// From the journal.
    ///
    /// # Errors
    /// [`BadRecord`] for what is none of ours.
    pub fn from_journal(record: &journal::Record) -> Result<Self, BadRecord> {
        let bad = || BadRecord { kind: record.kind, seq: record.step };
        let small = |number: u64| u32::try_from(number).map_err(|_too_large| bad());
        let (seq, epoch) = (Seq(record.step), Epoch(record.round));
        Ok(match record.kind & !journal::RESERVE {
            DATA => Self::Data { data: decode(&record.payload).ok_or_else(bad)?, until: seq },
            SEAL => Self::Seal { epoch, floor: Seq(record.author) },
            PAIRS => Self::Pairs { epoch, pairs: decode(&record.payload).ok_or_else(bad)? },
            KNOWN => Self::Known(seq),
            ADVERTISED => Self::Advertised(seq),
            SERVERS => Self::Servers(record.round),
            ANEW => Self::Anew(seq),
            BLOCK => Self::Block {
                seq,
                block: small(record.round)?,
                of: small(record.author)?,
                bytes: record.payload.clone(),
            },
            SAME => {
                let (origin, was) = decode(&record.payload).ok_or_else(bad)?;
                let (block, of) = (small(record.round)?, small(record.author)?);
                Self::Same { seq, block, of, origin, was }
            }
            TORN => Self::Torn,
            _ => return Err(bad()),
        })
    }
}

/// In at most about so many bytes.
fn encode<T: Serialize>(what: &T, len: usize) -> Bytes {
    let mut bytes = Vec::with_capacity(len);
    rmp_serde::encode::write(&mut bytes, what).expect("plain data encodes");
    bytes.into()
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    rmp_serde::from_slice(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::multicast::message::{Mid, Publisher};

    #[test]
    fn records_come_back_from_the_journal_as_they_were() {
        let mid = Mid { publisher: Publisher(7), number: 3 };
        let data = Data { mid, stamp: Seq(2), lowest_open: 3, payload: Bytes::from_static(b"hi") };
        let records = [
            Record::Pairs { epoch: Epoch(4), pairs: vec![(Seq(9), data.pair())] },
            Record::Data { data, until: Seq(52) },
            Record::Seal { epoch: Epoch(5), floor: Seq(1) },
            Record::Known(Seq(8)),
            Record::Advertised(Seq(10)),
            Record::Servers(3),
            Record::Anew(Seq(11)),
            Record::Block { seq: Seq(10), block: 1, of: 2, bytes: Bytes::from_static(b"b") },
            Record::Same { seq: Seq(20), block: 0, of: 2, origin: Seq(10), was: 1 },
            Record::Torn,
        ];
        for record in records {
            assert_eq!(Record::from_journal(&record.to_journal()), Ok(record));
        }
        let strange = journal::Record { kind: 77, step: 5, ..journal::Record::default() };
        assert_eq!(Record::from_journal(&strange), Err(BadRecord { kind: 77, seq: 5 }));
    }
}
