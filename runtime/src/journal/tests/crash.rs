//! Power cuts at any moment, with any part of what was not synced torn off.

use proptest::prelude::*;
use rand::{Rng as _, SeedableRng as _};

use super::*;
use crate::world::Rng;

/// What a test does to a journal.
#[derive(Debug, Clone)]
enum Act {
    Append(Vec<usize>),
    Lazy(usize),
    Truncate(Vec<usize>),
    /// Forgets all but so many of the last steps.
    Trim(u64),
    /// Lets the worker run.
    Run,
    /// Stops and opens again.
    Reopen,
}

/// A journal together with what must, and what may, come back after a crash.
struct Walk {
    disk: FakeDisk,
    journal: Journal,
    told: Told,
    step: u64,
    /// Each call, by its name.
    calls: Vec<Call>,
}

#[derive(Debug)]
struct Call {
    records: Vec<Record>,
    /// Of what came before it nothing up to this step needs to stay.
    forgets: Option<u64>,
}

impl Walk {
    fn new() -> Self {
        let disk = FakeDisk::default();
        let (journal, _) = open(&disk).unwrap();
        disk.run();
        Self { disk, journal, told: Told::default(), step: 0, calls: Vec::new() }
    }

    fn records(&mut self, lens: &[usize]) -> Vec<Record> {
        let next = |len: &usize| {
            self.step += 1;
            record(self.step, *len)
        };
        lens.iter().map(next).collect()
    }

    fn act(&mut self, act: &Act) {
        let name = self.calls.len() as u64;
        match act {
            Act::Append(lens) => {
                let records = self.records(lens);
                self.journal.append(records.clone(), self.told.note(name));
                self.calls.push(Call { records, forgets: None });
            }
            Act::Lazy(len) => {
                let records = self.records(&[*len]);
                self.journal.append_lazy(records.clone());
                self.calls.push(Call { records, forgets: None });
            }
            Act::Truncate(lens) => {
                let records = self.records(lens);
                self.journal.truncate(EVERY_STEP, records.clone(), self.told.note(name));
                self.calls.push(Call { records, forgets: Some(EVERY_STEP) });
            }
            Act::Trim(kept) => {
                let upto = self.step.saturating_sub(*kept);
                let records = self.records(&[20]);
                self.journal.truncate(upto, records.clone(), self.told.note(name));
                self.calls.push(Call { records, forgets: Some(upto) });
            }
            Act::Run => self.disk.run(),
            Act::Reopen => {
                self.journal.close();
                if let Ok((journal, recovered)) = open(&self.disk) {
                    self.journal = journal;
                    self.check(&recovered.records);
                }
            }
        }
    }

    /// The records found must be those after some call that is at least as late as the last one
    /// that was answered.
    fn check(&self, found: &[Record]) {
        let told = self.told.all();
        let answered = told.iter().filter(|(_, outcome)| outcome.is_ok()).map(|(name, _)| name + 1);
        let answered = usize::try_from(answered.max().unwrap_or(0)).unwrap();
        let fits = (answered..=self.calls.len()).any(|len| fits(&self.calls[..len], found));
        let found = steps(found);
        assert!(fits, "found {found:?}, answered {answered} of {:?}", self.calls);
    }

    /// Cuts the power, opens, checks, and goes on a little.
    fn crash(&mut self, seed: u64) {
        let mut rng = Rng::seed_from_u64(seed);
        let mostly = rng.next_u32();
        self.disk.crash(|| rng.next_u32() < mostly);
        let (journal, recovered) = open(&self.disk).unwrap();
        self.check(&recovered.records);
        let mut all = recovered.records;
        let next = record(7777, 900);
        put(&self.disk, &journal, vec![next.clone()]).unwrap();
        all.push(next);
        drop(journal);
        self.disk.crash(|| false);
        let (_, recovered) = open(&self.disk).unwrap();
        assert_eq!(recovered, Recovered { records: all, torn_tail: false });
    }
}

/// Whether `found` may be what is left after these calls: the end of all they brought, and nothing
/// missing before it that is of a step which no later one forgot.
fn fits(calls: &[Call], found: &[Record]) -> bool {
    let from = calls.iter().rposition(|call| call.forgets == Some(EVERY_STEP)).unwrap_or(0);
    let mut forgotten = None;
    let mut left = found.iter().rev();
    for call in calls[from..].iter().rev() {
        for record in call.records.iter().rev() {
            match left.next() {
                Some(next) if next == record => {}
                Some(_) => return false,
                None if forgotten < Some(record.step) => return false,
                None => {}
            }
        }
        forgotten = forgotten.max(call.forgets);
    }
    left.next().is_none()
}

/// Rolls, truncates with leftovers, grows beyond a segment, stops.
fn script() -> Vec<Act> {
    let mut acts = Vec::new();
    for _ in 0..7 {
        acts.extend([Act::Append(vec![10, 700]), Act::Lazy(30), Act::Run]);
    }
    acts.extend([Act::Append(vec![1500]), Act::Append(vec![2000, 2000, 2000]), Act::Run]);
    acts.extend([Act::Truncate(vec![100, 900]), Act::Append(vec![3]), Act::Run]);
    acts.extend([Act::Append(vec![800]), Act::Run, Act::Reopen, Act::Append(vec![5]), Act::Run]);
    acts.extend([Act::Truncate(vec![]), Act::Run, Act::Append(vec![700, 800]), Act::Run]);
    for kept in [4, 0] {
        acts.extend([900, 900, 900, 900, 900, 900].map(|len| Act::Append(vec![len])));
        acts.extend([Act::Run, Act::Trim(kept), Act::Run, Act::Append(vec![7]), Act::Run]);
    }
    acts
}

#[test]
fn a_crash_after_any_operation_of_the_disk_loses_nothing_that_was_answered() {
    let count = {
        let mut walk = Walk::new();
        let before = walk.disk.operations();
        script().iter().for_each(|act| walk.act(act));
        walk.disk.operations() - before
    };
    assert!(count > 60, "the script does too little: {count}");
    for operations in 0..=count {
        for seed in 0..12 {
            let mut walk = Walk::new();
            walk.disk.refuse_after(operations);
            script().iter().for_each(|act| walk.act(act));
            walk.crash(seed);
        }
    }
}

#[test]
fn a_crash_during_the_first_opening_leaves_an_empty_journal() {
    for operations in 0..12 {
        for seed in 0..8 {
            let disk = FakeDisk::default();
            disk.refuse_after(operations);
            let _ = open(&disk);
            let mut rng = Rng::seed_from_u64(seed);
            disk.crash(|| rng.next_u32() % 2 == 0);
            assert_eq!(open(&disk).unwrap().1, Recovered::default());
        }
    }
}

#[test]
fn a_crash_while_a_torn_tail_is_wiped_does_no_harm() {
    for operations in 0..6 {
        for seed in 0..8 {
            let mut rng = Rng::seed_from_u64(seed);
            let disk = FakeDisk::default();
            let (journal, _) = open(&disk).unwrap();
            put(&disk, &journal, vec![record(1, 10)]).unwrap();
            let path = files(&disk, "segment-").remove(0);
            drop(journal);
            // Something half written where the next batch would be.
            disk.edit(&path, |bytes| {
                let copy = bytes[512..1024].to_vec();
                bytes[1024..1536].copy_from_slice(&copy);
                bytes[2000..2100].fill(9);
            });
            disk.crash(|| false);
            disk.refuse_after(operations);
            let _ = open(&disk);
            disk.crash(|| rng.next_u32() % 2 == 0);
            assert_eq!(steps(&open(&disk).unwrap().1.records), [1]);
        }
    }
}

#[test]
fn what_is_read_back_is_durable_before_anybody_acts_on_it() {
    let disk = FakeDisk::default();
    let (journal, _) = open(&disk).unwrap();
    disk.run();
    // The write comes through, then the process dies before its sync.
    disk.refuse_after(1);
    journal.append(vec![record(1, 10)], Box::new(|_| ()));
    disk.run();
    disk.kill();
    let (_, recovered) = open(&disk).unwrap();
    assert_eq!(steps(&recovered.records), [1]);
    disk.crash(|| false);
    let (_, recovered) = open(&disk).unwrap();
    assert_eq!(steps(&recovered.records), [1], "it was seen, so it must stay");
}

/// After a sync that failed the system shows what was written and takes it for written; what it lost
/// no later sync writes. So the next process may read what the disk does not have.
#[test]
fn what_a_failed_sync_gave_up_is_written_anew_before_anybody_acts_on_it() {
    for (seed, operations) in (0..400).flat_map(|seed| (0..8).map(move |more| (seed, more))) {
        let mut rng = Rng::seed_from_u64(seed);
        let disk = FakeDisk::default();
        let (journal, _) = open(&disk).unwrap();
        let sure = rng.random_range(0..4);
        for step in 0..sure {
            put(&disk, &journal, vec![record(step, rng.random_range(0..1_000))]).unwrap();
        }
        disk.set_sync_fails(true);
        for step in sure..sure + 3 {
            let records = vec![record(step, rng.random_range(0..1_000))];
            journal.append(records, Box::new(|outcome| assert!(outcome.is_err())));
        }
        disk.run();
        disk.set_sync_fails(false);
        // The next process ends where it likes while it opens, and the power with it.
        disk.kill();
        disk.refuse_after(operations);
        let mut found = open(&disk).ok();
        if found.is_none() {
            disk.crash(|| rng.next_u32() % 2 == 0);
            found = Some(open(&disk).unwrap());
        }
        let (journal, recovered) = found.unwrap();
        assert!(recovered.records.len() as u64 >= sure, "what was answered stays");
        drop(journal);
        disk.crash(|| false);
        let again = open(&disk).unwrap().1.records;
        let (found, again) = (steps(&recovered.records), steps(&again));
        assert_eq!(again, found, "seed {seed}, {operations}: what was seen must stay");
    }
}

#[test]
fn the_first_failed_sync_latches() {
    let disk = FakeDisk::default();
    let (journal, _) = open(&disk).unwrap();
    put(&disk, &journal, vec![record(1, 10)]).unwrap();
    disk.set_sync_fails(true);
    let told = Told::default();
    journal.append(vec![record(2, 10)], told.note(2));
    journal.append(Vec::new(), told.note(3));
    disk.run();
    disk.set_sync_fails(false);
    journal.append(vec![record(4, 10)], told.note(4));
    journal.truncate(EVERY_STEP, Vec::new(), told.note(5));
    disk.run();
    let told = told.all();
    assert_eq!(told.iter().map(|(name, _)| *name).collect::<Vec<_>>(), [2, 3, 4, 5]);
    assert!(told.iter().all(|(_, outcome)| matches!(outcome, Err(JournalFailed::Disk(_)))));
    assert!(journal.stats().failed.unwrap().contains("segment-0000000000000001"));
    assert_eq!(journal.stats().queued_bytes, 0);
}

#[test]
fn a_torn_tail_is_cut_and_said() {
    let disk = FakeDisk::default();
    let (journal, _) = open(&disk).unwrap();
    put(&disk, &journal, vec![record(1, 10)]).unwrap();
    // The write comes through, its sync does not.
    disk.refuse_after(1);
    let told = Told::default();
    journal.append(vec![record(2, 1200)], told.note(2));
    disk.run();
    assert!(told.last().is_err());
    let mut sector = 0;
    disk.crash(|| {
        sector += 1;
        sector != 3
    });
    let (_, recovered) = open(&disk).unwrap();
    assert_eq!(recovered, Recovered { records: vec![record(1, 10)], torn_tail: true });
    let (_, recovered) = open(&disk).unwrap();
    assert!(!recovered.torn_tail, "it was wiped");
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let lens = || prop::collection::vec(0..1200_usize, 0..5);
    let act = prop_oneof![
        6 => lens().prop_map(Act::Append),
        1 => (0..600_usize).prop_map(Act::Lazy),
        1 => lens().prop_map(Act::Truncate),
        1 => (0..12_u64).prop_map(Act::Trim),
        5 => Just(Act::Run),
        1 => Just(Act::Reopen),
    ];
    prop::collection::vec(act, 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..Default::default() })]

    #[test]
    fn any_history_survives_a_crash_at_any_moment(
        acts in acts(),
        operations in 0..200_u64,
        seed in any::<u64>(),
    ) {
        let mut walk = Walk::new();
        walk.disk.refuse_after(operations);
        acts.iter().for_each(|act| walk.act(act));
        walk.crash(seed);
    }
}
