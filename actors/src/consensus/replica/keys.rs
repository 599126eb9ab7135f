//! Idempotency keys: one intention of a client, executed once, at whichever node it arrives.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};

use crate::replicated::{GuestCall, IdempotencyKey, Named};

/// Keys kept; then the oldest go.
const KEYS_MAX: usize = 100_000;

/// …or after this long by agreed time.
const KEPT_MS: u64 = 24 * 60 * 60 * 1_000;

/// How the answer to a key used for another request begins.
pub const KEY_REUSED: &str = "idempotency key reused: ";

/// Keys of one run: what a command copies at most while a snapshot shares them, and what is encoded
/// at once.
const RUN: usize = 256;

/// Keys with what their first use answered.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(from = "Whole")]
pub(super) struct Keys {
    /// The position of each key's first use.
    by_key: BTreeMap<Bytes, u64>,
    /// The uses, the oldest first: positions rise.
    runs: VecDeque<Arc<Vec<Kept>>>,
    /// So many at the beginning of the first run are forgotten.
    forgotten: usize,
}

/// A key and its first use.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Kept {
    key: Bytes,
    used: Used,
}

/// All of them at once, as the first forms of a snapshot had them.
#[derive(Deserialize)]
struct Whole {
    by_key: BTreeMap<Bytes, Used>,
}

impl From<Whole> for Keys {
    fn from(whole: Whole) -> Self {
        let mut all: Vec<Kept> =
            whole.by_key.into_iter().map(|(key, used)| Kept { key, used }).collect();
        all.sort_unstable_by_key(|kept| kept.used.position);
        let mut keys = Self::default();
        keys.put(all);
        keys
    }
}

/// The first use of a key.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Used {
    /// Digest of function and arguments.
    pub(super) request: u64,
    pub(super) position: u64,
    pub(super) time_ms: u64,
    pub(super) result: Result<Bytes, String>,
}

impl Keys {
    pub(super) fn get(&self, key: &Bytes) -> Option<&Used> {
        let position = *self.by_key.get(key)?;
        let last = |run: &Arc<Vec<Kept>>| run.last().map_or(0, |kept| kept.used.position);
        let run = self.runs.get(self.runs.partition_point(|run| last(run) < position))?;
        let at = run.binary_search_by_key(&position, |kept| kept.used.position).ok()?;
        Some(&run[at].used)
    }

    /// The first use of a key, later than all that are kept; the oldest make room.
    pub(super) fn insert(&mut self, key: Bytes, used: Used) {
        let now_ms = used.time_ms;
        self.push(Kept { key, used });
        while let Some(first) = self.runs.front() {
            let oldest = &first[self.forgotten];
            let old = oldest.used.time_ms + KEPT_MS < now_ms;
            if self.by_key.len() <= KEYS_MAX && !old {
                break;
            }
            self.by_key.remove(&oldest.key);
            self.forgotten += 1;
            if self.forgotten == first.len() {
                self.runs.pop_front();
                self.forgotten = 0;
            }
        }
    }

    fn push(&mut self, kept: Kept) {
        self.by_key.insert(kept.key.clone(), kept.used.position);
        match self.runs.back_mut() {
            Some(last) if last.len() < RUN => Arc::make_mut(last).push(kept),
            Some(_) | None => self.runs.push_back(Arc::new(vec![kept])),
        }
    }

    /// All of them, as they are now: runs, and how many at the beginning of each are forgotten.
    pub(super) fn shared(&self) -> Vec<(usize, Arc<Vec<Kept>>)> {
        let forgotten = std::iter::once(self.forgotten).chain(std::iter::repeat(0));
        forgotten.zip(self.runs.iter().cloned()).collect()
    }

    /// Some that came with a snapshot, later than all that are kept.
    pub(super) fn put(&mut self, run: Vec<Kept>) {
        run.into_iter().for_each(|kept| self.push(kept));
    }
}

/// What stands in front of a command's arguments.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Mark {
    /// An idempotency key.
    Key(Bytes),
    /// The command opens a session of a client outside, by this nonce.
    Opening(u64),
    /// The command is a call of such a session.
    Guest(GuestCall),
}

/// In place of a key's length, which is at most 255: three numbers of a session follow.
const OF_GUEST: u16 = u16::MAX;

/// Puts a key in front of a command's arguments.
pub(crate) fn keyed_args(key: &IdempotencyKey, args: &[u8]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(HEAD_BYTES + args.len());
    let numbers = match &key.0 {
        Named::Text(key) => {
            let len = u16::try_from(key.len()).expect("idempotency keys are at most 255 bytes");
            bytes.put_u16_le(len);
            bytes.put_slice(key.as_bytes());
            None
        }
        Named::Opening(nonce) => Some([0, *nonce, 0]),
        Named::Guest(GuestCall { session, seq, open }) => Some([*session, *seq, *open]),
    };
    if let Some(numbers) = numbers {
        bytes.put_u16_le(OF_GUEST);
        numbers.into_iter().for_each(|number| bytes.put_u64_le(number));
    }
    bytes.put_slice(args);
    bytes.freeze()
}

/// The mark and the arguments behind it.
pub(super) fn split_mark(mut args: Bytes) -> Option<(Mark, Bytes)> {
    let len = args.try_get_u16_le().ok()?;
    if len != OF_GUEST {
        let len = usize::from(len);
        return (args.remaining() >= len).then(|| (Mark::Key(args.split_to(len)), args));
    }
    let mut number = || args.try_get_u64_le().ok();
    let (session, seq, open) = (number()?, number()?, number()?);
    let mark = match session {
        0 => Mark::Opening(seq),
        session => Mark::Guest(GuestCall { session, seq, open }),
    };
    Some((mark, args))
}

/// Whether these are the arguments by which a client outside asks for a session.
pub(crate) fn opens_session(args: &Bytes) -> bool {
    matches!(split_mark(args.clone()), Some((Mark::Opening(_), _)))
}

/// The longest mark.
const HEAD_BYTES: usize = 2 + 255;

#[cfg(test)]
mod tests {
    use super::*;

    fn used(position: u64, time_ms: u64) -> Used {
        Used { request: position * 7, position, time_ms, result: Ok(Bytes::new()) }
    }

    fn key(number: u64) -> Bytes {
        number.to_string().into()
    }

    #[test]
    fn keys_are_found_until_there_are_too_many_or_they_are_too_old() {
        let mut keys = Keys::default();
        let most = KEYS_MAX as u64;
        for number in 0..most + 300 {
            keys.insert(key(number), used(2 * number, 1_000 + number));
            assert_eq!(keys.get(&key(number)), Some(&used(2 * number, 1_000 + number)));
        }
        assert_eq!((keys.get(&key(299)), keys.by_key.len()), (None, KEYS_MAX));
        assert_eq!(keys.get(&key(300)), Some(&used(600, 1_300)));
        // What is handed out stays as it was.
        let shared = keys.shared();
        keys.insert(key(most + 300), used(9_000_000, 1_000 + KEPT_MS + 5_000));
        assert_eq!(keys.get(&key(4_999)), None, "a day and a millisecond");
        assert_eq!(keys.get(&key(5_000)), Some(&used(10_000, 6_000)));
        let mut again = Keys::default();
        for (forgotten, run) in shared {
            again.put(run[forgotten..].to_vec());
        }
        assert_eq!((again.by_key.len(), again.get(&key(most + 300))), (KEYS_MAX, None));
        assert_eq!(again.get(&key(300)), Some(&used(600, 1_300)));
    }

    #[test]
    fn keys_of_the_first_forms_of_a_snapshot_are_read() {
        #[derive(Serialize)]
        struct First {
            by_key: BTreeMap<Bytes, Used>,
            by_position: BTreeMap<u64, Bytes>,
        }
        let all = 0..1_000_u64;
        let first = First {
            by_key: all.clone().map(|number| (key(number), used(2 * number, 1))).collect(),
            by_position: all.map(|number| (2 * number, key(number))).collect(),
        };
        let bytes = rmp_serde::to_vec_named(&first).unwrap();
        let keys: Keys = rmp_serde::from_slice(&bytes).unwrap();
        assert!((0..1_000).all(|number| keys.get(&key(number)) == Some(&used(2 * number, 1))));
        assert_eq!(keys.shared().len(), 1_000_usize.div_ceil(RUN));
    }

    #[test]
    fn a_mark_is_read_back_and_a_cut_one_is_refused() {
        let call = GuestCall { session: 7, seq: 8, open: 9 };
        let marks = [
            (IdempotencyKey::new("order 66").unwrap(), Mark::Key(Bytes::from_static(b"order 66"))),
            (IdempotencyKey::opening(5), Mark::Opening(5)),
            (IdempotencyKey::of_guest(call), Mark::Guest(call)),
        ];
        for (key, mark) in marks {
            let bytes = keyed_args(&key, b"args");
            assert_eq!(split_mark(bytes.clone()), Some((mark, Bytes::from_static(b"args"))));
            assert_eq!(split_mark(bytes.slice(..bytes.len() - 5)), None);
        }
    }
}
