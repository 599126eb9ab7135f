//! A full disk refuses clearly, and can still be helped.

use super::*;

/// A journal that has written ordinary records until it was refused.
fn full() -> (FakeDisk, Arc<TestClock>, Journal, u64) {
    let disk = FakeDisk::default();
    let clock = Arc::new(TestClock::default());
    let (journal, _) = open_with(&disk, &clock, Durability::Fsync).unwrap();
    disk.run();
    disk.set_capacity(Some(disk.used() + 2 * SEGMENT_BYTES + 100));
    for step in 0.. {
        match put(&disk, &journal, vec![record(step, 600)]) {
            Ok(()) => assert!(!journal.stats().full),
            Err(failed) => {
                assert_eq!(failed, JournalFailed::Full);
                assert!(journal.stats().full);
                return (disk, clock, journal, step);
            }
        }
    }
    unreachable!("the disk has an end")
}

#[test]
fn a_full_disk_refuses_ordinary_records_and_takes_reserved_ones() {
    let (disk, _, journal, count) = full();
    assert!(count >= 9, "three segments were to be had: {count}");
    let mut wanted: Vec<u64> = (0..count).collect();
    for step in 1000..1006 {
        put(&disk, &journal, vec![reserved(step, 600)]).unwrap();
        wanted.push(step);
        let mixed = vec![reserved(1, 600), record(2, 600)];
        assert_eq!(put(&disk, &journal, mixed), Err(JournalFailed::Full));
    }
    let (_, recovered) = open(&disk.copy()).unwrap();
    assert_eq!(steps(&recovered.records), wanted);
}

#[test]
fn even_the_reserve_has_an_end_and_no_call_panics() {
    let (disk, _, journal, _) = full();
    let taken = (0..100).take_while(|n| put(&disk, &journal, vec![reserved(*n, 600)]).is_ok());
    assert!((6..20).contains(&taken.count()));
    assert_eq!(put(&disk, &journal, vec![reserved(0, 3000)]), Err(JournalFailed::Full));
    assert_eq!(journal.stats().failed, None);
    open(&disk.copy()).unwrap();
}

#[test]
fn truncation_frees_a_full_disk() {
    let (disk, _, journal, _) = full();
    put(&disk, &journal, vec![reserved(1, 1000)]).unwrap();
    truncate(&disk, &journal, vec![record(5000, 100)]).unwrap();
    assert!(!journal.stats().full);
    put(&disk, &journal, vec![record(5001, 600)]).unwrap();
    let (_, recovered) = open(&disk.copy()).unwrap();
    assert_eq!(steps(&recovered.records), [5000, 5001]);
}

#[test]
fn freed_space_is_found_after_a_while() {
    let (disk, clock, journal, _) = full();
    disk.set_capacity(None);
    clock.advance(Duration::from_secs(2));
    put(&disk, &journal, vec![record(1, 600)]).unwrap();
    assert!(!journal.stats().full);
}

#[test]
fn freed_space_is_found_without_a_record_to_write() {
    let (disk, clock, journal, _) = full();
    disk.set_capacity(None);
    clock.advance(Duration::from_secs(2));
    journal.flush();
    disk.run();
    assert!(!journal.stats().full, "who asks before writing would wait for ever");
}

/// Goal: what is told to be full stays so until there is room for the next segment: else whoever heeds it
/// tries in vain again and again.
#[test]
fn a_small_record_that_still_fits_makes_no_room() {
    let disk = FakeDisk::default();
    let clock = Arc::new(TestClock::default());
    let (journal, _) = open_with(&disk, &clock, Durability::Fsync).unwrap();
    disk.run();
    disk.set_capacity(Some(disk.used()));
    let refused = (0..100).find(|step| put(&disk, &journal, vec![record(*step, 2000)]).is_err());
    assert!(refused.is_some() && journal.stats().full);
    put(&disk, &journal, vec![record(1000, 10)]).unwrap();
    assert!(journal.stats().full);
}

#[test]
fn a_large_call_on_a_full_disk_is_refused_and_leaves_nothing() {
    let (disk, _, journal, _) = full();
    let used = disk.used();
    assert_eq!(put(&disk, &journal, vec![record(1, 9000)]), Err(JournalFailed::Full));
    assert!(disk.used() <= used);
}
