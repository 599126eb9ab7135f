//! How much memory the processes of nodes had at most, by what the system knows of them.

use std::{collections::BTreeMap, fs};

use synod_runtime::identity::NodeName;

/// Begins anew to look for the most. Where the system does not allow that, the most since the
/// process began is told.
pub(super) fn forget_peaks(pids: &[(NodeName, u32)]) {
    for (_, pid) in pids {
        fs::write(format!("/proc/{pid}/clear_refs"), FORGET_PEAK).ok();
    }
}

/// The most that each had resident, in bytes. One that ended meanwhile is missing.
pub(super) fn peaks(pids: &[(NodeName, u32)]) -> BTreeMap<NodeName, u64> {
    let peak = |pid| read_status(&fs::read_to_string(format!("/proc/{pid}/status")).ok()?);
    pids.iter().filter_map(|(name, pid)| Some((name.clone(), peak(*pid)?))).collect()
}

fn read_status(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1 << 10)
}

/// As proc(5) has it: the peak is set back to what is resident now.
const FORGET_PEAK: &str = "5";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peak_of_a_process_is_read_from_its_status() {
        assert_eq!(read_status("VmPeak:\t 9 kB\nVmHWM:\t    1234 kB\n"), Some(1234 << 10));
        assert_eq!(read_status("VmPeak:\t 9 kB\n"), None);
        let us: NodeName = "us".parse().unwrap();
        let pids = [(us.clone(), std::process::id())];
        forget_peaks(&pids);
        assert!(peaks(&pids)[&us] > 1 << 20);
    }
}
