//! Idempotency keys: one intention of a client, executed once, at whichever node it arrives.

use std::collections::BTreeMap;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};

use crate::replicated::{GuestCall, IdempotencyKey, Named};

/// Keys kept; then the oldest go.
const KEYS_MAX: usize = 100_000;

/// …or after this long by agreed time.
const KEPT_MS: u64 = 24 * 60 * 60 * 1_000;

/// How the answer to a key used for another request begins.
pub const KEY_REUSED: &str = "idempotency key reused: ";

/// Keys with what their first use answered.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Keys {
    by_key: BTreeMap<Bytes, Used>,
    by_position: BTreeMap<u64, Bytes>,
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
        self.by_key.get(key)
    }

    pub(super) fn insert(&mut self, key: Bytes, used: Used) {
        let now_ms = used.time_ms;
        self.by_position.insert(used.position, key.clone());
        self.by_key.insert(key, used);
        while let Some((position, key)) = self.by_position.first_key_value() {
            let old = self.by_key.get(key).is_none_or(|used| used.time_ms + KEPT_MS < now_ms);
            if self.by_position.len() <= KEYS_MAX && !old {
                break;
            }
            let position = *position;
            if let Some(key) = self.by_position.remove(&position) {
                self.by_key.remove(&key);
            }
        }
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
