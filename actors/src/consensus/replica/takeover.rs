//! Taking over the state of a backup, piece by piece, as commands of the log: so every replica does
//! it at the same position, and one that comes back later does it too.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use synod_runtime::digest::sha256;

use super::{Replica, StateImage};
use crate::{
    membership::store::STORE as VIEWS,
    replicated::{Position, name_hash},
};

/// The log's own function that takes a [`Piece`].
pub(crate) const TAKE_PIECE: u64 = 2;

/// The log's own query for the whole state.
pub(crate) const WHOLE_STATE: u64 = 3;

/// A larger state is not taken: every replica holds all pieces in memory before it uses them.
pub(crate) const STATE_BYTES_MAX: u64 = 8 << 30;

/// Pieces that nobody goes on with are forgotten after this long by agreed time.
const FORGOTTEN_MS: u64 = 10 * 60 * 1_000;

/// A part of a state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Piece {
    /// Of the whole state.
    pub(crate) sha256: String,
    /// Bytes of the whole state.
    pub(crate) total: u64,
    /// Where in it this piece begins; at 0 it begins anew.
    pub(crate) offset: u64,
    /// The piece.
    pub(crate) bytes: Bytes,
}

/// What a replica answers to a piece.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Taken {
    /// Go on from this byte.
    Wanted(u64),
    /// The state was taken over; this is the position that follows it.
    Done(u64),
}

/// What came of a state so far.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Taking {
    sha256: String,
    total: u64,
    #[serde(with = "serde_bytes")]
    bytes: Vec<u8>,
    since_ms: u64,
}

impl Replica {
    /// One piece. An error leaves the actors as they were.
    pub(super) fn take_piece(&mut self, args: &[u8]) -> Result<Bytes, String> {
        let piece: Piece =
            rmp_serde::from_slice(args).map_err(|e| format!("bad arguments: {e}"))?;
        let taken = self.take(piece)?;
        Ok(rmp_serde::to_vec(&taken).expect("plain data encodes").into())
    }

    fn take(
        &mut self,
        Piece { sha256: sum, total, offset, bytes }: Piece,
    ) -> Result<Taken, String> {
        if total > STATE_BYTES_MAX {
            return Err(format!("a state of {total} bytes is larger than {STATE_BYTES_MAX}"));
        }
        let now_ms = self.state.time_ms;
        if offset == 0 {
            let taking = Taking { sha256: sum.clone(), total, bytes: Vec::new(), since_ms: now_ms };
            self.state.taking = Some(taking);
        }
        let same = |taking: &&mut Taking| taking.sha256 == sum && taking.total == total;
        let Some(taking) = self.state.taking.as_mut().filter(same) else {
            return Err("another state is being taken, or none: begin anew".to_owned());
        };
        if taking.bytes.len() as u64 == offset {
            taking.since_ms = now_ms;
            taking.bytes.extend_from_slice(&bytes);
        }
        let have = taking.bytes.len() as u64;
        if have < total {
            return Ok(Taken::Wanted(have));
        }
        let whole = self.state.taking.take().map(|taking| taking.bytes).unwrap_or_default();
        if have > total || sha256(&whole) != sum {
            return Err("the pieces are not the state they should be".to_owned());
        }
        self.take_over(&whole).map(Taken::Done)
    }

    /// Makes the actors those of a backup. Positions go on above all that either cluster, or any
    /// later one that was lost, can have shown: epochs and versions never come twice.
    fn take_over(&mut self, bytes: &[u8]) -> Result<u64, String> {
        let image = StateImage::decode(bytes)?;
        let mut machines: std::collections::BTreeMap<_, _> =
            (self.make)().into_iter().map(|one| (name_hash(one.name()), one)).collect();
        for (name, bytes) in &image.actors {
            let machine = machines.get_mut(&name_hash(name));
            let machine = machine.ok_or_else(|| format!("no actor {name} in this build"))?;
            machine.restore(bytes).map_err(|error| error.to_string())?;
        }
        // What was decided on this cluster's nodes is not what the backup's cluster decided on its.
        let views = name_hash(VIEWS);
        if let Some(own) = self.machines.remove(&views) {
            machines.insert(views, own);
        }
        self.give_up_snapshot();
        self.machines = machines;
        let state = &mut self.state;
        state.time_ms = state.time_ms.max(image.time_ms);
        let floor = Position::above_all_until(state.time_ms).0;
        state.position = state.position.max(image.position).max(floor);
        state.keys = image.keys;
        Ok(state.position)
    }

    /// Forgets the pieces of a state that nobody goes on with.
    pub(super) fn forget_pieces(&mut self) {
        let now_ms = self.state.time_ms;
        self.state.taking.take_if(|taking| taking.since_ms + FORGOTTEN_MS < now_ms);
    }
}
