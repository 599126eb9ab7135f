//! One simulated file: what readers see, what is durable, and what lies between the two.

use crate::{
    sim::entropy::{happens, up_to},
    world::Rng,
};

/// Disks write a sector whole or not at all.
pub(super) const SECTOR_BYTES: u64 = 512;

/// A file, apart from its name.
#[derive(Debug, Default)]
pub(super) struct Inode {
    /// What reads see.
    pub(super) current: Vec<u8>,
    /// What a crash leaves for sure.
    pub(super) durable: Vec<u8>,
    /// Changes since the last sync, in order.
    pending: Vec<Change>,
    /// Whether a name leads to it.
    pub(super) named: bool,
    /// Open handles.
    pub(super) handles: u64,
}

/// What a crash does to changes that were not synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// Only the process died: the system writes everything out.
    Kept,
    /// Power failed before anything was written out.
    Lost,
    /// Each change by itself is kept, lost or torn between sectors.
    Mixed,
}

#[derive(Debug)]
enum Change {
    Write { offset: u64, bytes: Vec<u8> },
    Resize { len: u64 },
}

impl Inode {
    /// An empty file that has a name.
    pub(super) fn named() -> Self {
        Self { named: true, ..Self::default() }
    }

    pub(super) fn read(&self, offset: u64, into: &mut [u8]) -> usize {
        let start = index(offset).min(self.current.len());
        let len = into.len().min(self.current.len() - start);
        into[..len].copy_from_slice(&self.current[start..start + len]);
        len
    }

    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) {
        let change = Change::Write { offset, bytes: bytes.to_vec() };
        change.apply(&mut self.current);
        self.pending.push(change);
    }

    pub(super) fn resize(&mut self, len: u64) {
        let change = Change::Resize { len };
        change.apply(&mut self.current);
        self.pending.push(change);
    }

    /// All is durable now.
    pub(super) fn sync(&mut self) {
        for change in self.pending.drain(..) {
            change.apply(&mut self.durable);
        }
    }

    /// A sync that failed: as on Linux, the system takes the changes for written, shows them
    /// still, and never writes them again; some had reached the disk before.
    pub(super) fn fail_sync(&mut self, rng: &mut Rng) {
        self.reach_disk(rng, Fate::Mixed);
    }

    /// The machine stopped: what was not durable meets its fate.
    pub(super) fn crash(&mut self, rng: &mut Rng, fate: Fate) {
        self.reach_disk(rng, fate);
        self.current.clone_from(&self.durable);
    }

    pub(super) fn is_synced(&self) -> bool {
        self.pending.is_empty()
    }

    /// Flips one bit below both what is durable and what readers see.
    pub(super) fn flip(&mut self, offset: u64, bit: u8) {
        for bytes in [&mut self.durable, &mut self.current] {
            if let Some(byte) = bytes.get_mut(index(offset)) {
                *byte ^= 1 << bit;
            }
        }
    }

    fn reach_disk(&mut self, rng: &mut Rng, fate: Fate) {
        for change in self.pending.drain(..) {
            match fate {
                Fate::Kept => change.apply(&mut self.durable),
                Fate::Lost => {}
                Fate::Mixed => match up_to(rng, 2) {
                    0 => {}
                    1 => change.apply(&mut self.durable),
                    _ => change.tear(&mut self.durable, rng),
                },
            }
        }
    }
}

impl Change {
    fn apply(&self, to: &mut Vec<u8>) {
        match self {
            Self::Write { offset, bytes } => put(to, *offset, bytes),
            Self::Resize { len } => to.resize(index(*len), 0),
        }
    }

    /// Applies some sectors of a write; other changes happen or do not.
    fn tear(&self, to: &mut Vec<u8>, rng: &mut Rng) {
        match self {
            Self::Write { offset, bytes } => {
                let mut at = *offset;
                let mut rest = bytes.as_slice();
                while !rest.is_empty() {
                    let sector_end = (at / SECTOR_BYTES + 1) * SECTOR_BYTES;
                    let len = rest.len().min(index(sector_end - at));
                    if happens(rng, 0.5) {
                        put(to, at, &rest[..len]);
                    }
                    rest = &rest[len..];
                    at = sector_end;
                }
            }
            Self::Resize { .. } if happens(rng, 0.5) => self.apply(to),
            Self::Resize { .. } => {}
        }
    }
}

/// Writes into a file's bytes; a gap before is zeros.
fn put(to: &mut Vec<u8>, offset: u64, bytes: &[u8]) {
    let start = index(offset);
    let end = start + bytes.len();
    if to.len() < end {
        to.resize(end, 0);
    }
    to[start..end].copy_from_slice(bytes);
}

fn index(offset: u64) -> usize {
    usize::try_from(offset).expect("simulated files fit into memory")
}
