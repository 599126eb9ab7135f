//! One key with all that is kept of it, in one allocation.
//!
//! ```text
//! version u64 | key len u32, its highest bit: has an end | end u64, if it has one | key | value
//! ```

use std::fmt;

use synod::replicated::Position;

/// A key, its value, version and time to live.
#[derive(Clone, PartialEq, Eq)]
pub struct Record(Box<[u8]>);

/// What is kept with a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// The value.
    pub value: &'a [u8],
    /// The command that last wrote the key or its time to live.
    pub version: Position,
    /// Agreed time (ms since 1970) after which the key is gone.
    pub expires_at_ms: Option<u64>,
}

impl Entry<'_> {
    /// Whether the key is still there at `now_ms`; as in Redis it lives through its last
    /// millisecond.
    pub fn lives_at(&self, now_ms: u64) -> bool {
        self.expires_at_ms.is_none_or(|end_ms| now_ms <= end_ms)
    }
}

impl Record {
    pub(super) fn new(
        key: &[u8],
        value: &[u8],
        version: Position,
        expires_at_ms: Option<u64>,
    ) -> Self {
        let head = HEAD_BYTES + if expires_at_ms.is_some() { END_BYTES } else { 0 };
        let mut bytes = Vec::with_capacity(head + key.len() + value.len());
        bytes.extend_from_slice(&version.0.to_le_bytes());
        let len = u32::try_from(key.len()).expect("keys are limited to 1 MiB");
        let mark = if expires_at_ms.is_some() { HAS_END } else { 0 };
        bytes.extend_from_slice(&(len | mark).to_le_bytes());
        if let Some(end_ms) = expires_at_ms {
            bytes.extend_from_slice(&end_ms.to_le_bytes());
        }
        bytes.extend_from_slice(key);
        bytes.extend_from_slice(value);
        Self(bytes.into_boxed_slice())
    }

    /// Writes in its place what takes as many bytes there; else changes nothing and answers false. To
    /// give back one piece of memory and take another costs as much as to find the key.
    pub(super) fn rewrite(
        &mut self,
        value: &[u8],
        version: Position,
        expires_at_ms: Option<u64>,
    ) -> bool {
        let Entry { value: before, expires_at_ms: before_ms, .. } = self.entry();
        if before.len() != value.len() || before_ms.is_some() != expires_at_ms.is_some() {
            return false;
        }
        let at = self.0.len() - value.len();
        self.0[at..].copy_from_slice(value);
        self.0[..VERSION_BYTES].copy_from_slice(&version.0.to_le_bytes());
        if let Some(end_ms) = expires_at_ms {
            self.0[HEAD_BYTES..][..END_BYTES].copy_from_slice(&end_ms.to_le_bytes());
        }
        true
    }

    /// The key.
    pub fn key(&self) -> &[u8] {
        self.parts().0
    }

    /// The rest.
    pub fn entry(&self) -> Entry<'_> {
        self.parts().1
    }

    fn parts(&self) -> (&[u8], Entry<'_>) {
        let split = self.0.split_first_chunk::<8>().and_then(|(version, rest)| {
            let (len, rest) = rest.split_first_chunk::<4>()?;
            let len = u32::from_le_bytes(*len);
            let (expires_at_ms, rest) = match len & HAS_END {
                0 => (None, rest),
                _ => {
                    let (end, rest) = rest.split_first_chunk::<8>()?;
                    (Some(u64::from_le_bytes(*end)), rest)
                }
            };
            let (key, value) = rest.split_at_checked((len & !HAS_END) as usize)?;
            let version = Position(u64::from_le_bytes(*version));
            Some((key, Entry { value, version, expires_at_ms }))
        });
        split.expect("a record is made whole by `new`")
    }
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (key, entry) = self.parts();
        f.debug_struct("Record")
            .field("key", &key.escape_ascii().to_string())
            .field("entry", &entry)
            .finish()
    }
}

const VERSION_BYTES: usize = 8;

/// Version and length of the key.
const HEAD_BYTES: usize = VERSION_BYTES + 4;

/// An end in milliseconds.
const END_BYTES: usize = 8;

/// Keys have at most 1 MiB, so the bit is free.
const HAS_END: u32 = 1 << 31;
