//! What is sent to a group that orders a state machine: commands, in pieces that fit a message.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{
    multicast::{
        data_server::PAYLOAD_BYTES_MAX,
        message::{Publisher, Seq},
    },
    replicated::ARGS_BYTES_MAX,
};

/// One message to the group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Letter {
    /// The clock of the node that sent it, in milliseconds since 1970.
    pub(super) time_ms: u64,
    /// Drawn by that node.
    pub(super) seed: u64,
    /// Of which command.
    pub(super) function: u64,
    /// The how-manieth piece of its arguments this is, from 0.
    pub(super) piece: u32,
    /// Of so many; of none: it is no command, but marks a place in the order.
    pub(super) of: u32,
    /// The piece.
    pub(super) args: Bytes,
}

impl Letter {
    /// A command as letters; the last one is where it will be executed.
    pub(super) fn command(
        (time_ms, seed): (u64, u64),
        function: u64,
        args: Bytes,
    ) -> impl Iterator<Item = Self> {
        let of = args.len().div_ceil(PIECE_BYTES).max(1);
        (0..of).map(move |piece| {
            let cut = |piece: usize| (piece * PIECE_BYTES).min(args.len());
            let args = args.slice(cut(piece)..cut(piece + 1));
            let small = |number: usize| u32::try_from(number).expect("arguments are some MiB");
            Self { time_ms, seed, function, piece: small(piece), of: small(of), args }
        })
    }

    /// A place in the order.
    pub(super) const fn mark(time_ms: u64) -> Self {
        Self { time_ms, seed: 0, function: 0, piece: 0, of: 0, args: Bytes::new() }
    }

    /// As it is sent.
    pub(super) fn write(&self) -> Bytes {
        let mut bytes = FORM.to_vec();
        rmp_serde::encode::write(&mut bytes, self).expect("plain data encodes");
        bytes.into()
    }

    /// What [`write`](Self::write) wrote; nothing if it is something else.
    pub(super) fn read(payload: &[u8]) -> Option<Self> {
        rmp_serde::from_slice(payload.strip_prefix(FORM)?).ok()
    }
}

/// Commands of which pieces are missing: what came of each publisher's last.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Pieces {
    open: BTreeMap<Publisher, Open>,
    bytes: usize,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Open {
    of: u32,
    parts: Vec<Bytes>,
    /// Where the last one came.
    at: Seq,
}

impl Pieces {
    /// The next letter of `publisher`, which is no mark; all arguments of its command, once they are
    /// there. A publisher's letters come in its order, so one that does not continue what is open
    /// ends that.
    pub(super) fn put(&mut self, at: Seq, publisher: Publisher, letter: Letter) -> Option<Bytes> {
        let Letter { piece, of, args, .. } = letter;
        let open = self.take(publisher);
        if (piece, of) == (0, 1) {
            return Some(args);
        }
        let fresh = || Open { of, parts: Vec::new(), at };
        let mut open = open.or_else(|| (piece == 0).then(fresh))?;
        if piece == 0 && !open.parts.is_empty() {
            open = fresh();
        }
        let continues = (open.parts.len() as u64, open.of) == (u64::from(piece), of);
        if !continues || of > PIECES_MAX || args.len() > PIECE_BYTES {
            return None;
        }
        open.parts.push(args);
        open.at = at;
        if open.parts.len() as u64 == u64::from(of) {
            return Some(open.parts.concat().into());
        }
        self.bytes += open.bytes();
        self.open.insert(publisher, open);
        self.make_room(at);
        None
    }

    fn take(&mut self, publisher: Publisher) -> Option<Open> {
        let open = self.open.remove(&publisher)?;
        self.bytes -= open.bytes();
        Some(open)
    }

    /// Those whose publisher said nothing for longest are not waited for.
    fn make_room(&mut self, now: Seq) {
        loop {
            let oldest = self.open.iter().min_by_key(|(_, open)| open.at);
            let Some((publisher, open)) = oldest else { return };
            let full = self.bytes > OPEN_BYTES_MAX || self.open.len() > OPEN_MAX;
            if !full && open.at >= now.back(OPEN_NUMBERS) {
                return;
            }
            let publisher = *publisher;
            self.take(publisher);
        }
    }
}

impl Open {
    fn bytes(&self) -> usize {
        self.parts.iter().map(Bytes::len).sum()
    }
}

/// Begins every letter, so that what was meant for another group is not taken for one.
const FORM: &[u8] = b"synod-command-1:";

/// Arguments in one letter: with all that is around them they fit one message.
pub(super) const PIECE_BYTES: usize = PAYLOAD_BYTES_MAX - 256;

/// Of one command.
const PIECES_MAX: u32 = (ARGS_BYTES_MAX / PIECE_BYTES + 1) as u32;

/// Of all commands that are not whole: a large one for each way in of seven nodes. They are part of
/// every checkpoint.
const OPEN_BYTES_MAX: usize = 64 << 20;

/// Likewise.
const OPEN_MAX: usize = 1_000;

/// Pieces follow one another at once: after so many numbers without the next there will be none.
const OPEN_NUMBERS: u64 = 20_000;

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Publisher = Publisher(1);
    const NONE: [Bytes; 0] = [];

    fn large(len: usize) -> Bytes {
        (0..len).map(|at| (at % 251) as u8).collect::<Vec<_>>().into()
    }

    /// Puts letters of `publisher` at the numbers from `first` on.
    fn put_all(
        pieces: &mut Pieces,
        first: u64,
        publisher: Publisher,
        letters: impl IntoIterator<Item = Letter>,
    ) -> Vec<Bytes> {
        let numbered = (first..).map(Seq).zip(letters);
        numbered.filter_map(|(at, letter)| pieces.put(at, publisher, letter)).collect()
    }

    #[test]
    fn a_command_of_any_size_is_whole_once_its_last_letter_came() {
        for len in [0, 1, PIECE_BYTES, PIECE_BYTES + 1, 3 * PIECE_BYTES, ARGS_BYTES_MAX] {
            let args = large(len);
            let letters: Vec<_> = Letter::command((7, 8), 9, args.clone()).collect();
            assert_eq!(letters.len(), len.div_ceil(PIECE_BYTES).max(1));
            for letter in &letters {
                let sent = letter.write();
                assert!(sent.len() <= PAYLOAD_BYTES_MAX, "{}", sent.len());
                assert_eq!(Letter::read(&sent).as_ref(), Some(letter));
            }
            let mut pieces = Pieces::default();
            assert_eq!(put_all(&mut pieces, 1, ONE, letters), [args]);
            assert_eq!(pieces, Pieces::default(), "nothing is left behind");
        }
        for other in [&b"it rains"[..], FORM, &Letter::mark(1).write()[1..]] {
            assert_eq!(Letter::read(other), None);
        }
    }

    #[test]
    fn pieces_of_several_publishers_do_not_mix_and_a_gap_ends_a_command() {
        let (two, args) = (Publisher(2), large(2 * PIECE_BYTES));
        let whole = std::slice::from_ref(&args);
        let letters =
            |function| Letter::command((0, 0), function, args.clone()).collect::<Vec<_>>();
        let mut pieces = Pieces::default();
        assert_eq!(put_all(&mut pieces, 1, ONE, letters(1).into_iter().take(1)), NONE);
        assert_eq!(put_all(&mut pieces, 2, two, letters(2).into_iter().take(1)), NONE);
        assert_eq!(put_all(&mut pieces, 3, ONE, letters(1).into_iter().skip(1)), whole);
        // Another command of the second publisher: its first was given up.
        assert_eq!(put_all(&mut pieces, 4, two, letters(3)), whole);
        assert_eq!(put_all(&mut pieces, 6, two, letters(3).into_iter().skip(1)), NONE);
        assert_eq!(pieces, Pieces::default());
    }

    #[test]
    fn what_is_never_finished_is_forgotten() {
        let mut pieces = Pieces::default();
        let most = large(ARGS_BYTES_MAX);
        for publisher in 0..40 {
            let letters = Letter::command((0, 0), 1, most.clone());
            let all_but_last: Vec<_> = letters.take(PIECES_MAX as usize - 1).collect();
            put_all(&mut pieces, 100 * publisher, Publisher(publisher), all_but_last);
            assert!(pieces.bytes <= OPEN_BYTES_MAX, "{}", pieces.bytes);
        }
        assert!(!pieces.open.contains_key(&Publisher(0)) && pieces.open.len() > 10);
        let strange = Letter { piece: 0, of: PIECES_MAX + 1, ..Letter::mark(0) };
        assert_eq!(pieces.put(Seq(4_000), Publisher(99), strange), None);
        let first: Vec<_> = Letter::command((0, 0), 1, most).take(1).collect();
        put_all(&mut pieces, 4_000 + 2 * OPEN_NUMBERS, Publisher(100), first);
        assert_eq!(pieces.open.keys().collect::<Vec<_>>(), [&Publisher(100)]);
    }
}
