//! What callers see when nothing goes wrong.

use std::sync::mpsc;

use super::*;
use crate::{
    journal::{QUEUED_BYTES_MAX, inspect},
    world::{RealClock, disk::RealDisk},
};

#[test]
fn records_come_back_in_order_over_many_segments() {
    let disk = FakeDisk::default();
    let (journal, recovered) = open(&disk).unwrap();
    assert_eq!(recovered, Recovered::default());
    let all: Vec<Record> = (0..60).map(|step| record(step, step as usize * 7)).collect();
    for records in all.chunks(3) {
        put(&disk, &journal, records.to_vec()).unwrap();
    }
    assert!(files(&disk, "segment-").len() > 3);
    journal.close();
    let (_, recovered) = open(&disk).unwrap();
    assert_eq!(recovered, Recovered { records: all, torn_tail: false });
}

#[test]
fn what_queues_during_a_sync_shares_the_next() {
    let disk = FakeDisk::default();
    let (journal, _) = open(&disk).unwrap();
    disk.run();
    let syncs = journal.stats().syncs;
    let told = Told::default();
    for name in 0..50 {
        journal.append(vec![record(name, 10)], told.note(name));
    }
    assert!(told.all().is_empty() && journal.stats().queued_bytes == 50 * 50);
    disk.run();
    assert_eq!(journal.stats().syncs, syncs + 1);
    assert_eq!(journal.stats().queued_bytes, 0);
    let wanted: Vec<_> = (0..50).map(|name| (name, Ok(()))).collect();
    assert_eq!(told.all(), wanted);
}

#[test]
fn lazy_records_ride_with_the_next_append() {
    let disk = FakeDisk::default();
    let (journal, _) = open(&disk).unwrap();
    disk.run();
    let before = journal.stats().bytes;
    journal.append_lazy(vec![record(1, 0)]);
    disk.run();
    assert_eq!(journal.stats().bytes, before, "nobody waits for it");
    put(&disk, &journal, vec![record(2, 0)]).unwrap();
    journal.append_lazy(vec![record(3, 0)]);
    journal.flush();
    disk.run();
    journal.append_lazy(vec![record(4, 0)]);
    journal.close();
    let (_, recovered) = open(&disk).unwrap();
    assert_eq!(steps(&recovered.records), [1, 2, 3, 4]);
}

#[test]
fn a_barrier_answers_after_all_before_it() {
    let disk = FakeDisk::default();
    let (journal, _) = open(&disk).unwrap();
    let told = Told::default();
    journal.append(Vec::new(), told.note(0));
    journal.append(vec![record(1, 0)], told.note(1));
    journal.append(Vec::new(), told.note(2));
    disk.run();
    assert_eq!(told.all(), [(0, Ok(())), (1, Ok(())), (2, Ok(()))]);
}

#[test]
fn truncation_keeps_the_carry_and_what_follows_and_reuses_files() {
    let disk = FakeDisk::default();
    let (journal, _) = open(&disk).unwrap();
    for round in 0..20 {
        for step in 0..12 {
            put(&disk, &journal, vec![record(round * 100 + step, 400)]).unwrap();
        }
        let carry = vec![record(round * 100 + 98, 5), record(round * 100 + 99, 700)];
        truncate(&disk, &journal, carry).unwrap();
        assert_eq!(files(&disk, "segment-").len(), 1);
        assert!(files(&disk, "spare-").len() <= 4);
        assert!(disk.used() <= 6 * SEGMENT_BYTES);
    }
    put(&disk, &journal, vec![record(5000, 5)]).unwrap();
    journal.close();
    let (_, recovered) = open(&disk).unwrap();
    assert_eq!(steps(&recovered.records), [1998, 1999, 5000]);
    assert!(!recovered.torn_tail);
}

#[test]
fn truncation_up_to_a_step_keeps_what_is_beyond_it_and_gives_back_the_rest() {
    let disk = FakeDisk::default();
    let (journal, _) = open(&disk).unwrap();
    let mut last = 0;
    for _round in 0..20 {
        for _step in 0..12 {
            last += 1;
            put(&disk, &journal, vec![record(last, 400)]).unwrap();
        }
        trim(&disk, &journal, last - 3, vec![record(0, 5)]).unwrap();
        assert!(files(&disk, "segment-").len() <= 3 && files(&disk, "spare-").len() <= 4);
        let (_, recovered) = open(&disk.copy()).unwrap();
        let found = steps(&recovered.records);
        assert!(found.ends_with(&[last - 2, last - 1, last, 0]), "{found:?}");
        assert!(found.len() < 25 && !recovered.torn_tail, "{found:?}");
    }
    trim(&disk, &journal, last, vec![record(0, 5)]).unwrap();
    assert_eq!(files(&disk, "segment-").len(), 1, "nothing in the others is needed");
    journal.close();
    assert_eq!(steps(&open(&disk).unwrap().1.records), [0]);
}

/// A journal that grew long while a large snapshot was written keeps what that does not cover,
/// however much it is, and writes none of it again.
#[test]
fn more_than_one_call_may_bring_stays_behind_a_truncation() {
    let disk = FakeDisk::default();
    let (journal, _) = open(&disk).unwrap();
    let mebibyte = 1 << 20;
    let last = 2 * QUEUED_BYTES_MAX / mebibyte;
    for step in 1..=last {
        let len = usize::try_from(mebibyte).unwrap();
        put(&disk, &journal, vec![record(step, len)]).unwrap();
    }
    let before = journal.stats().bytes;
    trim(&disk, &journal, 20, vec![record(0, 5)]).unwrap();
    assert!(journal.stats().bytes - before < 4096, "it is not written again");
    assert!(disk.used() < (last - 18) * mebibyte, "what is covered is given back");
    journal.close();
    let (_, recovered) = open(&disk).unwrap();
    let wanted: Vec<u64> = (21..=last).chain([0]).collect();
    assert_eq!(steps(&recovered.records), wanted);
}

/// A full disk is not the place to take a segment for nothing.
#[test]
fn truncation_that_gives_nothing_back_takes_nothing_of_the_reserve() {
    let disk = FakeDisk::default();
    let (journal, _) = open(&disk).unwrap();
    put(&disk, &journal, vec![record(1, 5), record(9, 5)]).unwrap();
    disk.set_capacity(Some(disk.used()));
    for _again in 0..5 {
        trim(&disk, &journal, 5, vec![reserved(0, 5)]).unwrap();
        assert!(files(&disk, "spare-").len() >= 2);
    }
    journal.close();
    let (_, recovered) = open(&disk).unwrap();
    assert!(steps(&recovered.records).starts_with(&[1, 9, 0]));
}

#[test]
fn a_crash_in_a_reused_file_does_not_pass_for_a_torn_tail() {
    let disk = FakeDisk::default();
    let (journal, _) = open(&disk).unwrap();
    for step in 0..40 {
        put(&disk, &journal, vec![record(step, 800)]).unwrap();
    }
    for step in 100..110 {
        truncate(&disk, &journal, vec![record(step, 5)]).unwrap();
        put(&disk, &journal, vec![record(step + 100, 5)]).unwrap();
        let copy = disk.copy();
        let (_, recovered) = open(&copy).unwrap();
        assert_eq!(steps(&recovered.records), [step, step + 100]);
        assert!(!recovered.torn_tail, "leftovers of an earlier life are no torn tail");
    }
}

#[test]
fn a_call_larger_than_a_segment_gets_a_larger_one() {
    let disk = FakeDisk::default();
    let (journal, _) = open(&disk).unwrap();
    put(&disk, &journal, vec![record(1, 10)]).unwrap();
    put(&disk, &journal, (2..5).map(|step| record(step, 5000)).collect()).unwrap();
    put(&disk, &journal, vec![record(5, 10)]).unwrap();
    let (_, recovered) = open(&disk.copy()).unwrap();
    assert_eq!(steps(&recovered.records), [1, 2, 3, 4, 5]);
    truncate(&disk, &journal, vec![record(6, 3 * 4096)]).unwrap();
    truncate(&disk, &journal, vec![record(7, 1)]).unwrap();
    assert!(disk.used() <= 5 * SEGMENT_BYTES, "large files are not kept");
    let (_, recovered) = open(&disk.copy()).unwrap();
    assert_eq!(steps(&recovered.records), [7]);
}

#[test]
fn replay_and_inspect_show_all_that_is_live() {
    let disk = FakeDisk::default();
    let (journal, _) = open(&disk).unwrap();
    truncate(&disk, &journal, vec![record(1, 9)]).unwrap();
    let (tell, told) = mpsc::channel();
    for step in 2..20 {
        journal.append(vec![record(step, 300)], Box::new(|_| ()));
    }
    journal.replay(Box::new(move |live| tell.send(live.unwrap()).unwrap()));
    disk.run();
    assert_eq!(steps(&told.try_recv().unwrap()), (1..20).collect::<Vec<_>>());
    let located = inspect(&disk, Path::new(DIR)).unwrap();
    assert_eq!(
        located.iter().map(|l| l.record.step).collect::<Vec<_>>(),
        (1..20).collect::<Vec<_>>()
    );
    assert!(located.windows(2).all(|w| (w[0].segment, w[0].offset) < (w[1].segment, w[1].offset)));
    assert_eq!(inspect(&disk, Path::new("/nothing")).unwrap(), []);
}

#[test]
fn a_full_queue_refuses_and_keeps_nothing() {
    let disk = FakeDisk::default();
    let (journal, _) = open(&disk).unwrap();
    let told = Told::default();
    let half = usize::try_from(QUEUED_BYTES_MAX / 2).unwrap();
    journal.append(vec![record(1, half)], told.note(1));
    journal.append(vec![record(2, half)], told.note(2));
    journal.append_lazy(vec![record(3, half)]);
    journal.append(vec![record(4, 2 * half)], told.note(4));
    journal.append(vec![record(5, 10)], told.note(5));
    disk.run();
    let wanted = [
        (1, Ok(())),
        (2, Err(JournalFailed::Overloaded { queued_bytes: half as u64 + 40 })),
        (4, Err(JournalFailed::TooLarge { bytes: QUEUED_BYTES_MAX + 40 })),
        (5, Ok(())),
    ];
    assert_eq!(told.all(), wanted);
    assert_eq!(journal.stats().lazy_dropped, 1);
    put(&disk, &journal, vec![record(6, half)]).unwrap();
    let (_, recovered) = open(&disk.copy()).unwrap();
    assert_eq!(steps(&recovered.records), [1, 5, 6]);
}

#[test]
fn a_closed_journal_answers_at_once() {
    let disk = FakeDisk::default();
    let (journal, _) = open(&disk).unwrap();
    let told = Told::default();
    journal.append(vec![record(1, 0)], told.note(1));
    journal.close();
    journal.close();
    journal.append(vec![record(2, 0)], told.note(2));
    assert_eq!(told.all(), [(1, Ok(())), (2, Err(JournalFailed::Closed))]);
}

#[test]
fn memory_durability_never_syncs_and_survives_the_process() {
    let disk = FakeDisk::default();
    let (journal, _) = open_with(&disk, &Arc::default(), Durability::Memory).unwrap();
    for step in 0..30 {
        put(&disk, &journal, vec![record(step, 300)]).unwrap();
    }
    assert_eq!(journal.stats().syncs, 0);
    drop(journal);
    let (_, recovered) = open_with(&disk.copy(), &Arc::default(), Durability::Memory).unwrap();
    assert_eq!(steps(&recovered.records), (0..30).collect::<Vec<_>>());
    disk.crash(|| false);
    let lost = open(&disk).unwrap_err();
    assert!(matches!(lost, JournalError::LostMemory { .. }), "{lost}");
}

/// Goal: where nothing is synced a few records are written by whoever brings them; what is large, or
/// behind something that the worker has, waits for it, and nothing overtakes anything.
#[test]
fn a_small_write_that_nobody_syncs_waits_for_no_worker() {
    let disk = FakeDisk::default();
    let (journal, _) = open_with(&disk, &Arc::default(), Durability::Memory).unwrap();
    disk.run(); // spares are made
    let told = Told::default();
    journal.append_lazy(vec![record(1, 10)]);
    journal.append(vec![record(2, 10)], told.note(2));
    assert_eq!(told.all(), [(2, Ok(()))]);
    journal.append(vec![record(3, 20_000)], told.note(3));
    journal.append(vec![record(4, 10)], told.note(4));
    assert_eq!(told.all().len(), 1, "it is too large, and what follows stands behind it");
    disk.run();
    assert_eq!(told.all()[1..], [(3, Ok(())), (4, Ok(()))]);
    // A new segment is the worker's, too.
    let mut alone = 0;
    for step in 5..60 {
        let before = told.all().len();
        journal.append(vec![record(step, 300)], told.note(step));
        alone += told.all().len() - before;
        disk.run();
    }
    assert!((20..55).contains(&alone), "{alone} of 55 were written at once");
    let named: Vec<_> = told.all().iter().map(|(name, _)| *name).collect();
    assert_eq!(named, (2..60).collect::<Vec<_>>());
    journal.close();
    let (_, recovered) = open_with(&disk.copy(), &Arc::default(), Durability::Memory).unwrap();
    assert_eq!(steps(&recovered.records), (1..60).collect::<Vec<_>>());
}

#[test]
fn a_real_disk_keeps_the_records_of_many_threads() {
    for durability in [Durability::Fsync, Durability::Memory] {
        keeps_the_records_of_many_threads(durability);
    }
}

fn keeps_the_records_of_many_threads(durability: Durability) {
    let dir = tempfile::tempdir().unwrap();
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let clock: Arc<dyn Clock> = Arc::new(RealClock);
    let usual = JournalConfig::new(dir.path());
    let config = JournalConfig { segment_bytes: 1 << 16, durability, ..usual };
    let (journal, _) = Journal::open_on(&disk, &clock, 1, &config).unwrap();
    let (tell, told) = mpsc::channel();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (journal, tell) = (journal.clone(), tell.clone());
            scope.spawn(move || {
                for step in 0..200 {
                    let tell = tell.clone();
                    let done = Box::new(move |outcome| tell.send(outcome).unwrap());
                    journal.append(vec![Record { group: thread, ..record(step, 200) }], done);
                }
            });
        }
    });
    drop(tell);
    assert_eq!(told.iter().filter(Result::is_ok).count(), 800);
    let (tell, told) = mpsc::channel();
    journal.replay(Box::new(move |records| tell.send(records).unwrap()));
    let all = told.recv().unwrap().unwrap();
    for thread in 0..4 {
        let of_one: Vec<_> = all.iter().filter(|one| one.group == thread).cloned().collect();
        assert_eq!(steps(&of_one), (0..200).collect::<Vec<_>>(), "{thread}, {durability:?}");
    }
    journal.truncate(EVERY_STEP, vec![record(1000, 1)], Box::new(|outcome| outcome.unwrap()));
    journal.append(vec![record(1001, 1)], Box::new(|outcome| outcome.unwrap()));
    journal.close();
    let (journal, recovered) = Journal::open_on(&disk, &clock, 2, &config).unwrap();
    assert_eq!(steps(&recovered.records), [1000, 1001]);
    assert!(!recovered.torn_tail && journal.stats().failed.is_none());
}
