//! What the machine itself needs: one disk sync, one QUIC round trip. Nothing a cluster does can
//! be faster than its share of these, so figures are told as ratios of them.

use std::{io, path::Path, time::Duration};

use synod_runtime::world::{Clock as _, Disk as _, RealClock, disk::RealDisk};

use crate::cli::failure::Failure;

/// The median time to make a small write durable in `dir`, on a file that was laid out before, as
/// a journal's segment is.
pub(super) fn disk_sync(dir: &Path) -> Result<Duration, Failure> {
    let path = dir.join(format!("synod-bench-{}", std::process::id()));
    let measured = measure(&path);
    let removed = RealDisk.remove(&path);
    measured.and_then(|median| removed.map(|()| median)).map_err(|e| {
        let why = format!("cannot be written and synced: {e}");
        Failure::failed(path.display(), why, "make room for it")
    })
}

fn measure(path: &Path) -> io::Result<Duration> {
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
    Ok(median(took))
}

/// The middle one, zero when there is none.
pub(super) fn median(mut took: Vec<Duration>) -> Duration {
    took.sort_unstable();
    took.get(took.len() / 2).copied().unwrap_or_default()
}

/// A small step of the log with its record header.
const WRITE_BYTES: usize = 512;

/// Enough for a steady median.
const SYNCS_MAX: usize = 400;

/// A disk so slow that this cuts it short has a steady median all the same.
const TIME_MAX: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sync_takes_time_and_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        assert!(disk_sync(dir.path()).unwrap() > Duration::ZERO);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        let nowhere = disk_sync(&dir.path().join("nowhere")).unwrap_err().to_string();
        assert!(nowhere.contains("nowhere"), "{nowhere}");
    }
}
