//! Memory of a process that does little: what only its start needed is given back.
//!
//! What a node without much of a state uses is a few MiB, spread over areas that the allocator asks the
//! system to back with pages of 2 MiB: seven times as much would be resident. So it goes without them
//! until its state is large, which they make quicker.
//!
//! Nearly all else that it has resident is the program itself, whose pages the system maps many at
//! a time and takes back only when memory is short. Told so, it unmaps them at once; what is used
//! again is mapped again, without a disk when the file is in the cache.

#![expect(unsafe_code, reason = "neither call has a safe form in the standard library")]

use std::{fs, time::Duration};

use actix_rt::time::sleep;

/// Whether what this process touches from now on may be backed with huge pages. Best denied before much
/// is touched, and allowed again where they serve: they make a large state quicker.
pub(crate) fn allow_huge_pages(allowed: bool) {
    let (denied, none) = (libc::c_ulong::from(!allowed), libc::c_ulong::default());
    // SAFETY: it sets a property of this process and reads no memory of ours. Where the system does not
    // know it the process is larger, and nothing else.
    let _ = unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, denied, none, none, none) };
}

/// Gives back again and again, for as long as the process runs.
pub(crate) async fn keep_small() {
    let mut wait = SETTLED_AFTER;
    loop {
        sleep(wait).await;
        give_back();
        wait = AGAIN_AFTER;
    }
}

/// Gives back once, and allows huge pages as soon as the process is large.
pub(crate) async fn grow() {
    let mut run = Duration::ZERO;
    while resident_bytes().is_some_and(|bytes| bytes < LARGE_BYTES) {
        sleep(LOOK_EVERY).await;
        run += LOOK_EVERY;
        if run == SETTLED_AFTER {
            give_back();
        }
    }
    allow_huge_pages(true);
}

/// What the process has resident; none where the system does not say.
fn resident_bytes() -> Option<u64> {
    let words = fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = words.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages * PAGE_BYTES)
}

/// Unmaps pages of files that were never written to.
fn give_back() {
    // Without it the process is larger, and nothing else.
    let Ok(maps) = fs::read_to_string("/proc/self/smaps") else { return };
    for (start, len) in unchanged(&maps) {
        // SAFETY: the kernel names this range as a mapping of a file that cannot be written to and of
        // which no page differs from the file: what is dropped is read from there again.
        let _ = unsafe { libc::madvise(start as *mut libc::c_void, len, libc::MADV_DONTNEED) };
    }
}

/// Start and length of the mappings that are as their files are.
fn unchanged(maps: &str) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    let mut candidate = None;
    for line in maps.lines() {
        let mut words = line.split_whitespace();
        let (first, second) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
        if let Some((start, end)) = first.split_once('-') {
            let range =
                usize::from_str_radix(start, 16).ok().zip(usize::from_str_radix(end, 16).ok());
            // perms offset dev inode path
            let of_a_file = words.nth(3).is_some_and(|path| path.starts_with('/'));
            let fixed = second.starts_with('r') && second.ends_with('p') && !second.contains('w');
            candidate = range.filter(|_| of_a_file && fixed);
        } else if first == "Anonymous:"
            && let Some((start, end)) = candidate.take()
            && second == "0"
        {
            found.push((start, end - start));
        }
    }
    found
}

/// A state of some hundred thousand small keys, beside the program.
const LARGE_BYTES: u64 = 128 << 20;

/// What grows meanwhile, small pages hold: half a GiB where a snapshot is loaded as fast as can be.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What the system counts in; where pages are larger huge ones are allowed a little later.
const PAGE_BYTES: u64 = 4096;

/// By then a node runs and is linked.
const SETTLED_AFTER: Duration = Duration::from_secs(5);

/// Rare failures leave pages behind too.
const AGAIN_AFTER: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_as_its_file_is_given_back() {
        let maps = "\
1000-3000 r-xp 00000000 fe:00 7 /usr/bin/synod
Rss:                   8 kB
Anonymous:             0 kB
VmFlags: rd ex
3000-4000 r--p 00002000 fe:00 7 /usr/bin/synod
Anonymous:             4 kB
4000-5000 rw-p 00003000 fe:00 7 /usr/bin/synod
Anonymous:             0 kB
5000-6000 r--p 00000000 00:00 0
Anonymous:             0 kB
6000-7000 r--s 00000000 fe:00 9 /tmp/shared
Anonymous:             0 kB
7000-9000 r--p 00000000 00:00 0                          [vvar]
Anonymous:             0 kB
9000-b000 r--p 00000000 fe:00 8 /lib/libc.so.6
Anonymous:             0 kB
";
        assert_eq!(unchanged(maps), [(0x1000, 0x2000), (0x9000, 0x2000)]);
    }

    #[test]
    fn a_process_has_something_resident() {
        assert!(resident_bytes().is_some_and(|bytes| (1 << 20..1 << 40).contains(&bytes)));
    }

    #[test]
    fn what_was_given_back_still_runs() {
        let words: Vec<String> = (0..100_u32).map(|number| format!("{number:?}")).collect();
        give_back();
        assert_eq!(words.concat().len(), 190);
        assert!(!unchanged(&fs::read_to_string("/proc/self/smaps").unwrap_or_default()).is_empty());
    }
}
