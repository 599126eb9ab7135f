//! What the machine itself needs: one disk sync, one QUIC round trip. Nothing a cluster does can
//! be faster than its share of these, so figures are told as ratios of them.
//!
//! On a busy machine that is not true: a thread that wakes from a sync of 0.1 ms may wait 4 ms for
//! a core, and then the median tells of the queue for cores, not of the disk. So the quickest are
//! kept too, and whoever reads the ratios is warned when the two are far apart.

use std::{io, path::Path, time::Duration};

use synod_runtime::world::{Clock as _, Disk as _, RealClock, disk::RealDisk};

use crate::cli::failure::Failure;

/// How long something took, many times over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sample {
    pub(super) median: Duration,
    /// The quickest but a hundredth.
    pub(super) quick: Duration,
}

impl Sample {
    pub(super) fn of(mut took: Vec<Duration>) -> Self {
        took.sort_unstable();
        let at = |index: usize| took.get(index).copied().unwrap_or_default();
        Self { median: at(took.len() / 2), quick: at(took.len() / 100) }
    }

    /// Whether the median tells of the thing itself, not of what else the machine does.
    pub(super) fn is_steady(self) -> bool {
        self.median <= self.quick * UNSTEADY_RATIO
    }
}

/// The time to make a small write durable in `dir`, on a file that was laid out before, as
/// a journal's segment is.
pub(super) fn disk_sync(dir: &Path) -> Result<Sample, Failure> {
    let path = dir.join(format!("synod-bench-{}", std::process::id()));
    let measured = measure(&path);
    let removed = RealDisk.remove(&path);
    measured.and_then(|sample| removed.map(|()| sample)).map_err(|e| {
        let why = format!("cannot be written and synced: {e}");
        Failure::failed(path.display(), why, "make room for it")
    })
}

fn measure(path: &Path) -> io::Result<Sample> {
    let mut file = RealDisk.open(path, true)?;
    file.write_at(0, &vec![0; WRITE_BYTES * SYNCS_MAX])?;
    file.sync_data()?;
    let started = RealClock.now();
    let mut took = Vec::with_capacity(SYNCS_MAX);
    for number in 0..SYNCS_MAX {
        let before = RealClock.now();
        file.write_at((number * WRITE_BYTES) as u64, &[1; WRITE_BYTES])?;
        file.sync_data()?;
        let after = RealClock.now();
        took.push(after.since(before));
        if after.since(started) > TIME_MAX {
            break;
        }
    }
    Ok(Sample::of(took))
}

/// A small step of the log with its record header.
const WRITE_BYTES: usize = 512;

/// Enough for a steady median.
const SYNCS_MAX: usize = 400;

/// A disk so slow that this cuts it short has a steady median all the same.
const TIME_MAX: Duration = Duration::from_secs(3);

/// On a machine with nothing else to do the two are within a fifth of each other; where many
/// processes want the cores, a factor of ten and more apart.
const UNSTEADY_RATIO: u32 = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sync_takes_time_and_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        assert!(disk_sync(dir.path()).unwrap().quick > Duration::ZERO);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        let nowhere = disk_sync(&dir.path().join("nowhere")).unwrap_err().to_string();
        assert!(nowhere.contains("nowhere"), "{nowhere}");
    }

    #[test]
    fn a_median_far_above_the_quickest_is_not_of_the_disk() {
        let sample = |quick, rest| {
            let took = [vec![quick; 20], vec![rest; 380]].concat();
            Sample::of(took.into_iter().map(Duration::from_micros).collect())
        };
        let calm = sample(93, 104);
        assert_eq!((calm.quick.as_micros(), calm.median.as_micros()), (93, 104));
        assert!(calm.is_steady());
        assert!(!sample(110, 3994).is_steady());
    }
}
