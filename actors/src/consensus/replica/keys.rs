//! Idempotency keys: one intention of a client, executed once, at whichever node it arrives.

use std::collections::BTreeMap;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};

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

/// Puts a key in front of a command's arguments.
pub fn keyed_args(key: &str, args: &[u8]) -> Bytes {
    let len = u16::try_from(key.len()).expect("idempotency keys are at most 255 bytes");
    let mut bytes = BytesMut::with_capacity(2 + key.len() + args.len());
    bytes.put_u16_le(len);
    bytes.put_slice(key.as_bytes());
    bytes.put_slice(args);
    bytes.freeze()
}

/// The key and the arguments behind it.
pub(super) fn split_key(mut args: Bytes) -> Option<(Bytes, Bytes)> {
    if args.remaining() < 2 {
        return None;
    }
    let len = usize::from(args.get_u16_le());
    (args.remaining() >= len).then(|| {
        let key = args.split_to(len);
        (key, args)
    })
}
