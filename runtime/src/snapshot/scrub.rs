//! Reading snapshots again, a little at a time: a disk may lose what nobody asks for.

use std::{collections::BTreeSet, fmt, path::PathBuf, sync::Arc};

use super::{Reader, SnapshotError, steps};
use crate::world::Disk;

/// Where reading goes on.
pub struct Scrub {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    /// In which snapshot, and at which byte of the state.
    at: Option<(u64, u64)>,
    /// The last one begun in this round.
    last: Option<u64>,
    /// Those that were complained of, and are as they were then.
    damaged: BTreeSet<u64>,
}

impl Scrub {
    /// Reads all snapshots in `dir`, the oldest first.
    pub fn new(disk: Arc<dyn Disk>, dir: impl Into<PathBuf>) -> Self {
        Self { disk, dir: dir.into(), at: None, last: None, damaged: BTreeSet::new() }
    }

    /// Reads on for `bytes`, or to the end of a snapshot; answers how many were good. None at the end
    /// of the last one: the next call begins at the beginning. Blocks.
    ///
    /// # Errors
    /// [`SnapshotError`] names a snapshot that cannot be read any more, once.
    pub fn read_on(&mut self, bytes: usize) -> Result<Option<u64>, SnapshotError> {
        let Some((step, from)) = self.next()? else { return Ok(None) };
        let read = Reader::open(self.disk.as_ref(), &self.dir, step)
            .and_then(|reader| Ok((reader.read(from, bytes)?.len() as u64, reader.mark().length)));
        match read {
            Ok((read, length)) if from + read < length => {
                self.at = Some((step, from + read));
                Ok(Some(read))
            }
            Ok((read, _)) => {
                self.damaged.remove(&step);
                Ok(Some(read))
            }
            Err(error) => {
                // Unless it made room for newer ones meanwhile.
                let there = steps(self.disk.as_ref(), &self.dir)?.contains(&step);
                if there && self.damaged.insert(step) { Err(error) } else { Ok(Some(0)) }
            }
        }
    }

    fn next(&mut self) -> Result<Option<(u64, u64)>, SnapshotError> {
        if let Some(at) = self.at.take() {
            return Ok(Some(at));
        }
        let all = steps(self.disk.as_ref(), &self.dir)?;
        self.damaged.retain(|step| all.contains(step));
        self.last = all.into_iter().find(|step| Some(*step) > self.last);
        Ok(self.last.map(|step| (step, 0)))
    }
}

impl fmt::Debug for Scrub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scrub").field("dir", &self.dir).finish_non_exhaustive()
    }
}
