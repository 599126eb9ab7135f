//! What happened, as one number: two runs that differ anywhere differ in it.

use std::{collections::VecDeque, fmt::Write, sync::Mutex};

use super::queue::lock;

/// Everything that passed a port, folded into one running digest; the last lines on request.
#[derive(Debug)]
pub(super) struct Trace {
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    digest: u64,
    events: u64,
    lines: VecDeque<String>,
    lines_max: usize,
}

impl Trace {
    pub(super) fn new(seed: u64) -> Self {
        let digest = fold(FNV_OFFSET, &seed.to_le_bytes());
        Self {
            inner: Mutex::new(Inner { digest, events: 0, lines: VecDeque::new(), lines_max: 0 }),
        }
    }

    /// Notes that at true time `at` `what` happened to `node`, with `numbers` and `bytes`.
    pub(super) fn note(&self, at: u64, node: &str, what: &str, numbers: &[u64], bytes: &[u8]) {
        let mut inner = lock(&self.inner);
        let checksum = crc32fast::hash(bytes);
        let mut digest = fold(inner.digest, &at.to_le_bytes());
        digest = fold(fold(digest, node.as_bytes()), what.as_bytes());
        for number in numbers {
            digest = fold(digest, &number.to_le_bytes());
        }
        inner.digest = fold(fold(digest, &bytes.len().to_le_bytes()), &checksum.to_le_bytes());
        inner.events += 1;
        if inner.lines_max == 0 {
            return;
        }
        let mut line = format!("{:>13.6} ms {node} {what}", at as f64 / 1e6);
        for number in numbers {
            let _ = write!(line, " {number}");
        }
        if !bytes.is_empty() {
            let _ = write!(line, " [{} B {checksum:08x}]", bytes.len());
        }
        if inner.lines.len() == inner.lines_max {
            inner.lines.pop_front();
        }
        inner.lines.push_back(line);
    }

    pub(super) fn digest(&self) -> u64 {
        lock(&self.inner).digest
    }

    pub(super) fn events(&self) -> u64 {
        lock(&self.inner).events
    }

    pub(super) fn keep_lines(&self, lines_max: usize) {
        let mut inner = lock(&self.inner);
        inner.lines_max = lines_max;
        while inner.lines.len() > lines_max {
            inner.lines.pop_front();
        }
    }

    pub(super) fn lines(&self) -> Vec<String> {
        lock(&self.inner).lines.iter().cloned().collect()
    }
}

/// FNV-1a, 64 bits: order matters, no tables, the same everywhere.
pub(super) fn fold(digest: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(digest, |d, byte| (d ^ u64::from(*byte)).wrapping_mul(FNV_PRIME))
}

/// FNV's start.
pub(super) const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_knows_order_and_the_lines_are_the_last() {
        let (one, other) = (Trace::new(1), Trace::new(1));
        one.keep_lines(1);
        for (trace, order) in [(&one, ["x", "y"]), (&other, ["y", "x"])] {
            for what in order {
                trace.note(5, "a", what, &[7], b"abc");
            }
        }
        assert_ne!(one.digest(), other.digest());
        assert_eq!(one.lines().len(), 1);
        assert!(one.lines()[0].contains("a y 7 [3 B"), "{:?}", one.lines());
        assert_eq!((one.events(), other.lines().len()), (2, 0));
    }
}
