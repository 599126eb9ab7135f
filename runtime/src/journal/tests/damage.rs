//! Every flipped byte and every cut either leaves all records or is refused by name.

use super::*;
use crate::journal::Scrub;

/// A small journal over three segments, one of them reused, with all its records durable.
fn small(close: bool) -> (FakeDisk, Vec<Record>) {
    let disk = FakeDisk::default();
    let (journal, _) = open(&disk).unwrap();
    for step in 0..25 {
        put(&disk, &journal, vec![record(step, 600)]).unwrap();
    }
    truncate(&disk, &journal, vec![record(100, 30), record(101, 0)]).unwrap();
    let mut all = vec![record(100, 30), record(101, 0)];
    for step in 102..110 {
        let records = vec![record(step, 500), record(step + 100, 3)];
        put(&disk, &journal, records.clone()).unwrap();
        all.extend(records);
    }
    if close {
        journal.close();
    }
    assert_eq!(files(&disk, "segment-").len(), 3);
    (disk.copy(), all)
}

/// How many records the last call brought: all that damage to the end may hide, when the journal
/// was not stopped in order.
const LAST_CALL: usize = 2;

fn judge(disk: &FakeDisk, all: &[Record], closed: bool, damage: &str) {
    match open(disk) {
        Ok((_, recovered)) if recovered.records == all => {}
        Ok((_, recovered)) => {
            let kept = recovered.records.len();
            assert_eq!(recovered.records, all[..kept], "{damage}");
            let last = !closed && recovered.torn_tail && kept + LAST_CALL == all.len();
            assert!(last, "{damage}: silently lost {} records", all.len() - kept);
        }
        Err(JournalError::LostMemory { file, .. }) => {
            assert!(file.starts_with(DIR), "{damage}: {}", file.display());
        }
        Err(other) => panic!("{damage}: {other}"),
    }
}

#[test]
fn every_flipped_byte_is_harmless_or_named() {
    for closed in [true, false] {
        let (disk, all) = small(closed);
        for path in files(&disk, "segment-") {
            for byte in 0..SEGMENT_BYTES as usize {
                let disk = disk.copy();
                disk.edit(&path, |bytes| bytes[byte] ^= 1 << (byte % 8));
                let damage = format!("{} byte {byte}", path.display());
                judge(&disk, &all, closed, &damage);
            }
        }
    }
}

#[test]
fn every_cut_file_is_refused_by_name() {
    let (disk, _) = small(true);
    for path in files(&disk, "segment-") {
        for len in 0..SEGMENT_BYTES as usize {
            let disk = disk.copy();
            disk.edit(&path, |bytes| bytes.truncate(len));
            let Err(JournalError::LostMemory { file, .. }) = open(&disk) else {
                panic!("{} cut to {len} was taken", path.display())
            };
            assert_eq!(file, path);
        }
    }
}

#[test]
fn every_lost_sector_is_harmless_or_named() {
    let (disk, all) = small(true);
    for path in files(&disk, "segment-") {
        for start in (0..SEGMENT_BYTES as usize).step_by(512) {
            for with in [0, 0xa5] {
                let disk = disk.copy();
                disk.edit(&path, |bytes| bytes[start..start + 512].fill(with));
                let damage = format!("{} sector at {start} = {with}", path.display());
                // The last mark may vanish without a trace, since nothing hangs on it.
                judge(&disk, &all, true, &damage);
            }
        }
    }
}

#[test]
fn every_missing_segment_but_the_newest_is_named() {
    let (disk, _) = small(true);
    let paths = files(&disk, "segment-");
    for path in &paths[..2] {
        let disk = disk.copy();
        disk.remove(path).unwrap();
        let lost = open(&disk).unwrap_err().to_string();
        assert!(lost.contains(path.to_str().unwrap()) && lost.contains("missing"), "{lost}");
        assert!(lost.contains("rejoins as a new node"), "{lost}");
    }
}

#[test]
fn a_file_of_another_journal_is_refused() {
    let (disk, _) = small(true);
    let (other, _) = {
        let disk = FakeDisk::default();
        let shared: Arc<dyn Disk> = Arc::new(disk.clone());
        let clock: Arc<dyn Clock> = Arc::new(TestClock::default());
        let config = config(Durability::Fsync);
        (disk, Journal::open_on(&shared, &clock, 99, &config).unwrap())
    };
    let mut foreign = Vec::new();
    other.edit(&files(&other, "segment-")[0], |bytes| foreign.clone_from(bytes));
    let newest = files(&disk, "segment-").pop().unwrap();
    disk.edit(&newest, |bytes| *bytes = foreign);
    assert!(matches!(open(&disk), Err(JournalError::LostMemory { .. })));
}

#[test]
fn the_same_segment_of_an_older_copy_of_the_disk_is_refused() {
    let disk = FakeDisk::default();
    let (journal, _) = open(&disk).unwrap();
    put(&disk, &journal, vec![record(1, 10)]).unwrap();
    let old = disk.copy();
    for step in 2..20 {
        put(&disk, &journal, vec![record(step, 500)]).unwrap();
    }
    let path = files(&disk, "segment-").remove(0);
    let mut stale = Vec::new();
    old.edit(&path, |bytes| stale.clone_from(bytes));
    disk.edit(&path, |bytes| *bytes = stale);
    let Err(JournalError::LostMemory { file, .. }) = open(&disk) else { panic!("it was taken") };
    assert_eq!(file, path);
}

/// Goal: that an end was torn is known in all later starts, wherever a crash comes between. Method:
/// every operation of opening a torn journal is the last one before a crash, and then it is opened.
#[test]
fn a_torn_end_leaves_a_scar_that_no_crash_removes() {
    let (torn, all) = small(false);
    let newest = files(&torn, "segment-").pop().unwrap();
    let flip = |disk: &FakeDisk, byte: usize| disk.edit(&newest, |bytes| bytes[byte] ^= 1);
    let tears = |byte: &usize| {
        let disk = torn.copy();
        flip(&disk, *byte);
        open(&disk).is_ok_and(|(_, recovered)| recovered.torn_tail)
    };
    flip(&torn, (0..SEGMENT_BYTES as usize).find(tears).unwrap());
    let kept = &all[..all.len() - LAST_CALL];
    let scar = reserved(7, 0);
    let open = |disk: &FakeDisk| {
        let config = JournalConfig { scar: Some(scar.clone()), ..config(Durability::Fsync) };
        let world: (Arc<dyn Disk>, Arc<dyn Clock>) =
            (Arc::new(disk.clone()), Arc::new(TestClock::default()));
        Journal::open_on(&world.0, &world.1, 1, &config)
    };
    let mut crashed = 0;
    for operations in 0..200 {
        let disk = torn.copy();
        disk.refuse_after(operations);
        let opened = open(&disk).is_ok();
        crashed += u32::from(!opened);
        let mut sectors = 0;
        disk.crash(|| {
            sectors += 1;
            sectors % 2 == operations % 2
        });
        let (_, found) = open(&disk).unwrap();
        assert_eq!(found.records[..kept.len()], *kept, "after {operations}");
        let scars = &found.records[kept.len()..];
        let only = scars.iter().all(|record| *record == scar);
        assert!(only && (1..=2).contains(&scars.len()), "after {operations}: {scars:?}");
        if opened {
            break;
        }
    }
    assert!(crashed > 2, "{crashed} operations were the last ones");
}

/// Every byte that was durable is read again, and damage anywhere is found; not in what was replaced.
#[test]
fn a_scrub_finds_every_damage_to_what_counts() {
    let disk = FakeDisk::default();
    let (journal, _) = open(&disk).unwrap();
    for step in 0..25 {
        put(&disk, &journal, vec![record(step, 600)]).unwrap();
    }
    let world: Arc<dyn Disk> = Arc::new(disk.clone());
    let mut scrub = Scrub::new(Arc::clone(&world), DIR, &journal);
    let whole = scrub.read_on(u64::MAX).unwrap();
    assert!(whole.whole && whole.bytes > 25 * 600, "{whole:?}");
    let mut bytes = 0;
    loop {
        let some = scrub.read_on(1).unwrap();
        bytes += some.bytes;
        if some.whole {
            break;
        }
    }
    assert_eq!(bytes, whole.bytes, "a little at a time is the same");

    for path in files(&disk, "segment-") {
        let mut found = 0;
        for byte in (0..SEGMENT_BYTES as usize).step_by(7) {
            disk.edit(&path, |bytes| bytes[byte] ^= 1);
            match scrub.read_on(u64::MAX) {
                Err(JournalError::LostMemory { file, .. }) => {
                    found += 1;
                    assert_eq!(file, path, "byte {byte}");
                }
                read => assert_eq!(read.unwrap(), whole, "byte {byte} is padding"),
            }
            disk.edit(&path, |bytes| bytes[byte] ^= 1);
        }
        assert!(found > 50, "{}: {found}", path.display());
    }
    // Damage goes with what it is in.
    let oldest = files(&disk, "segment-").remove(0);
    disk.edit(&oldest, |bytes| bytes[100] ^= 1);
    truncate(&disk, &journal, vec![record(100, 30)]).unwrap();
    assert!(scrub.read_on(u64::MAX).unwrap().whole);
}
