//! The journal on a disk in memory, and once on a real one.

mod basics;
mod crash;
mod damage;
mod full;
mod fuzzed;

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;

use super::{
    Durability, EVERY_STEP, Journal, JournalConfig, JournalError, JournalFailed, Record, Recovered,
};
use crate::world::{Clock, Disk, Instant, disk::fake::FakeDisk};

/// The smallest segments there are, so that a few records roll.
const SEGMENT_BYTES: u64 = 4096;

const DIR: &str = "/journal";

#[derive(Debug, Default)]
struct TestClock(AtomicU64);

impl TestClock {
    fn advance(&self, by: Duration) {
        let by = u64::try_from(by.as_nanos()).unwrap();
        self.0.fetch_add(by, Ordering::Relaxed);
    }
}

impl Clock for TestClock {
    fn now(&self) -> Instant {
        Instant::from_nanos(self.0.load(Ordering::Relaxed))
    }

    fn wall_ms(&self) -> u64 {
        0
    }
}

fn config(durability: Durability) -> JournalConfig {
    JournalConfig { dir: PathBuf::from(DIR), durability, segment_bytes: SEGMENT_BYTES, scar: None }
}

fn open_with(
    disk: &FakeDisk,
    clock: &Arc<TestClock>,
    durability: Durability,
) -> Result<(Journal, Recovered), JournalError> {
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    let clock: Arc<dyn Clock> = clock.clone();
    Journal::open_on(&disk, &clock, 0x1234_5678_9abc, &config(durability))
}

fn open(disk: &FakeDisk) -> Result<(Journal, Recovered), JournalError> {
    open_with(disk, &Arc::default(), Durability::Fsync)
}

/// A record known by its step, with a payload of `len` bytes.
fn record(step: u64, len: usize) -> Record {
    let payload = Bytes::from(vec![step.to_le_bytes()[0] | 1; len]);
    Record { kind: 1, group: 2, round: 3, author: 4, step, payload }
}

fn reserved(step: u64, len: usize) -> Record {
    Record { kind: 1 | super::RESERVE, ..record(step, len) }
}

fn steps(records: &[Record]) -> Vec<u64> {
    records.iter().map(|record| record.step).collect()
}

/// A call's name and what its completion said.
type Answer = (u64, Result<(), JournalFailed>);

/// What completions said, in order.
#[derive(Clone, Default)]
struct Told(Arc<Mutex<Vec<Answer>>>);

impl Told {
    /// A completion that notes its answer under `name`.
    fn note(&self, name: u64) -> super::Done {
        let told = self.0.clone();
        Box::new(move |outcome| told.lock().unwrap().push((name, outcome)))
    }

    fn all(&self) -> Vec<Answer> {
        self.0.lock().unwrap().clone()
    }

    fn last(&self) -> Result<(), JournalFailed> {
        self.0.lock().unwrap().last().unwrap().1.clone()
    }
}

/// Appends and waits for the answer.
fn put(disk: &FakeDisk, journal: &Journal, records: Vec<Record>) -> Result<(), JournalFailed> {
    let told = Told::default();
    journal.append(records, told.note(0));
    disk.run();
    told.last()
}

fn truncate(disk: &FakeDisk, journal: &Journal, carry: Vec<Record>) -> Result<(), JournalFailed> {
    trim(disk, journal, EVERY_STEP, carry)
}

fn trim(
    disk: &FakeDisk,
    journal: &Journal,
    upto: u64,
    carry: Vec<Record>,
) -> Result<(), JournalFailed> {
    let told = Told::default();
    journal.truncate(upto, carry, told.note(0));
    disk.run();
    told.last()
}

/// The files whose names begin with `prefix`.
fn files(disk: &FakeDisk, prefix: &str) -> Vec<PathBuf> {
    let names = disk.list(Path::new(DIR)).unwrap();
    let names = names.iter().filter(|name| name.starts_with(prefix));
    names.map(|name| Path::new(DIR).join(name)).collect()
}
