//! A bounded journal on a disk in memory: power cuts at any moment, rot anywhere.

use std::{
    cell::Cell as Switch,
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use rand::{RngExt as _, SeedableRng as _};

use super::{BoundedConfig, RESERVE, inspect};
use crate::{
    journal::{
        Done, Durability, EVERY_STEP, Journal, JournalConfig, JournalError, JournalFailed, Record,
        Recovered,
    },
    world::{Clock, Disk, Instant, Rng, disk::fake::FakeDisk},
};

/// A rule that a test may switch off, to see that the power cuts notice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rule {
    /// The slots name a new head only when what stands there is durable.
    RingBeforeHead,
    /// A durable batch at the end is followed by a seal.
    LastBatchIsSealed,
    /// What never was durable is wiped before anything else is written.
    RemnantsAreWiped,
    /// What nothing calls durable is written anew before anybody acts on it.
    UnsureIsWrittenAnew,
    /// Nobody is told before a seal, or the slots, say so too.
    SealedBeforeSaid,
    /// The ring reaches as far as the slots say.
    SlotsSayHowFar,
}

thread_local! {
    static OFF: Switch<Option<Rule>> = const { Switch::new(None) };
}

pub(super) fn is_off(rule: Rule) -> bool {
    OFF.get() == Some(rule)
}

const DIR: &str = "/journal";

/// Twenty-four blocks: a few turns go round.
const RING_BYTES: u64 = 24 * 4096;

const VOTE: u8 = 3;
const PROMISE: u8 = 2;
const FLOOR: u8 = 6;

#[derive(Debug)]
struct Stopped;

impl Clock for Stopped {
    fn now(&self) -> Instant {
        Instant::default()
    }

    fn wall_ms(&self) -> u64 {
        0
    }
}

fn open(disk: &FakeDisk) -> Result<(Journal, Recovered), JournalError> {
    let config = BoundedConfig {
        dir: PathBuf::from(DIR),
        durability: Durability::Fsync,
        ring_bytes: RING_BYTES,
        by_step: VOTE,
    };
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    Journal::open_bounded_on(&disk, &(Arc::new(Stopped) as Arc<dyn Clock>), 77, &config)
}

fn vote(step: u64, round: u64, len: usize) -> Record {
    let payload = Bytes::from(vec![step.to_le_bytes()[0] | 1; len]);
    Record { kind: VOTE, group: 0, round, author: 1, step, payload }
}

fn word(kind: u8, round: u64, len: usize) -> Record {
    let payload = Bytes::from(vec![7; len]);
    Record { kind: kind | RESERVE, group: 0, round, author: 1, step: 0, payload }
}

fn told() -> (Done, impl Fn() -> Option<Result<(), JournalFailed>>) {
    let said = Arc::new(Mutex::new(None));
    let hear = Arc::clone(&said);
    (Box::new(move |outcome| *said.lock().unwrap() = Some(outcome)), move || {
        hear.lock().unwrap().clone()
    })
}

/// Appends or truncates, and waits.
fn put(disk: &FakeDisk, journal: &Journal, records: &[Record]) -> Result<(), JournalFailed> {
    let (done, said) = told();
    journal.append(records.to_vec(), done);
    disk.run();
    said().unwrap()
}

fn truncate(disk: &FakeDisk, journal: &Journal, carry: &[Record]) -> Result<(), JournalFailed> {
    let (done, said) = told();
    journal.truncate(EVERY_STEP, carry.to_vec(), done);
    disk.run();
    said().unwrap()
}

/// The state that calls amount to: words, and votes by step.
type State = (BTreeMap<u8, Record>, BTreeMap<u64, Record>);

fn state(records: &[Record]) -> State {
    let mut state = State::default();
    for record in records {
        match record.kind & !RESERVE {
            VOTE => state.1.insert(record.step, record.clone()),
            kind => state.0.insert(kind, record.clone()),
        };
    }
    state
}

/// What a call was told, once it was.
type Said = Box<dyn Fn() -> Option<Result<(), JournalFailed>>>;

/// A journal, and every state it may be found in.
struct Walk {
    disk: FakeDisk,
    journal: Journal,
    rng: Rng,
    /// The state after each call since the last one that was surely durable.
    states: Vec<State>,
    open: Vec<Said>,
    round: u64,
    /// Whether a crash may damage the last write, though the disk had called it durable.
    breaks_word: bool,
    /// Memories that were refused as lost.
    refused: u32,
}

impl Walk {
    fn new(seed: u64, breaks_word: bool) -> Self {
        let disk = FakeDisk::default();
        let journal = open(&disk).unwrap().0;
        let (rng, states) = (Rng::seed_from_u64(seed), vec![State::default()]);
        Self { disk, journal, rng, states, open: vec![], round: 0, breaks_word, refused: 0 }
    }

    fn act(&mut self) -> Result<(), String> {
        let (done, said) = told();
        let mut next = self.states.last().unwrap().clone();
        self.round += 1;
        match self.rng.random_range(0..12) {
            0..5 => {
                let many = self.rng.random_range(1..4);
                let votes: Vec<Record> = (0..many)
                    .map(|_| {
                        let len = self.rng.random_range(0..2_500);
                        vote(self.rng.random_range(1..10), self.round, len)
                    })
                    .collect();
                next.1.append(&mut state(&votes).1);
                self.journal.append(votes, done);
            }
            5..7 => {
                let long = self.rng.random_range(0..2) * 2_000;
                let promise = word(PROMISE, self.round, long);
                next.0.insert(PROMISE, promise.clone());
                self.journal.append(vec![promise], done);
            }
            7 => {
                let floor = self.rng.random_range(1..12);
                next.1 = next.1.split_off(&floor);
                next.0.insert(FLOOR, word(FLOOR, self.round, 100));
                let carry = next.0.values().chain(next.1.values()).cloned().collect();
                self.journal.truncate(EVERY_STEP, carry, done);
            }
            8 => {
                self.crash();
                return self.reopen();
            }
            _ => {
                self.disk.run();
                return Ok(());
            }
        }
        self.states.push(next);
        self.open.push(Box::new(said));
        Ok(())
    }

    /// Nothing is served of a memory that was lost: another node begins.
    fn begin_anew(&mut self) -> Result<(), String> {
        let (seed, refused) = (self.rng.random(), self.refused + 1);
        *self = Self { refused, ..Self::new(seed, true) };
        Ok(())
    }

    fn crash(&mut self) {
        if self.rng.random_range(0..2) == 0 {
            let more = self.rng.random_range(0..7);
            self.disk.refuse_after(more);
            self.disk.run();
        }
        if self.rng.random_range(0..3) == 0 {
            self.disk.set_sync_fails(true);
            self.disk.run();
            self.disk.set_sync_fails(false);
        }
        let keep = self.rng.random_range(0..3);
        let rng = &mut self.rng;
        match keep {
            0 => self.disk.kill(),
            1 => self.disk.crash(|| false),
            _ => self.disk.crash(|| rng.random_range(0..2) == 0),
        }
        if self.breaks_word && rng.random_range(0..2) == 0 {
            self.disk.undo_last_sync(|| rng.random_range(0..3) == 0);
        }
    }

    /// What is found was either told to be durable or was under way.
    fn reopen(&mut self) -> Result<(), String> {
        let known = self.open.iter().rposition(|said| said() == Some(Ok(())));
        let may = &self.states[known.map_or(0, |known| known + 1)..];
        let (journal, found) = match open(&self.disk) {
            Err(JournalError::LostMemory { .. }) if self.breaks_word => return self.begin_anew(),
            opened => opened.map_err(|error| error.to_string())?,
        };
        let found = state(&found.records);
        let words = may.iter().any(|state| state.0 == found.0);
        if !words || !may.iter().any(|state| state.1 == found.1) {
            return Err(format!("{found:?} is none of {may:?}"));
        }
        let located = inspect(&self.disk, Path::new(DIR)).map_err(|error| error.to_string())?;
        let shown: Vec<Record> =
            located.into_iter().flatten().map(|located| located.record).collect();
        if state(&shown) != found {
            return Err("what is shown is not what is found".to_owned());
        }
        self.journal = journal;
        self.states = vec![found];
        self.open.clear();
        Ok(())
    }
}

fn walk(seed: u64) -> Result<(), String> {
    let mut walk = Walk::new(seed, false);
    (0..120).try_for_each(|_| walk.act())
}

/// Answers how often memory was refused.
fn walk_on_a_liar(seed: u64) -> Result<u32, String> {
    let mut walk = Walk::new(seed, true);
    (0..120).try_for_each(|_| walk.act())?;
    Ok(walk.refused)
}

#[test]
fn a_power_cut_anywhere_leaves_all_that_was_said_and_nothing_that_never_was() {
    for seed in 0..400 {
        walk(seed).unwrap_or_else(|why| panic!("seed {seed}: {why}"));
    }
}

#[test]
fn without_a_rule_the_power_cuts_notice() {
    for rule in [Rule::RingBeforeHead, Rule::RemnantsAreWiped, Rule::UnsureIsWrittenAnew] {
        OFF.set(Some(rule));
        let caught = (0..4_000).find(|seed| walk(*seed).is_err());
        OFF.set(None);
        assert!(caught.is_some(), "{rule:?} was never missed");
    }
}

/// An auxiliary asks nobody after a crash: so what it said must be there even where the disk damaged
/// the very last write that it had called durable, or the damage must be known for what it is.
#[test]
fn damage_to_the_last_durable_write_hides_nothing_that_was_said() {
    let mut refused = 0;
    for seed in 0..400 {
        refused += walk_on_a_liar(seed).unwrap_or_else(|why| panic!("seed {seed}: {why}"));
    }
    println!("400 histories, {refused} memories refused as lost");
    OFF.set(Some(Rule::SealedBeforeSaid));
    let caught = (0..4_000).find(|seed| walk_on_a_liar(*seed).is_err());
    OFF.set(None);
    println!("without the seal before the answer: missed in history {caught:?}");
    assert!(caught.is_some(), "nobody missed it");
}

/// Ends in order: two votes, a promise, and a vote in a batch of its own.
fn three_batches() -> (FakeDisk, State) {
    let disk = FakeDisk::default();
    let (journal, _) = open(&disk).unwrap();
    let batches =
        [vec![vote(1, 1, 100), vote(2, 1, 5_000)], vec![word(PROMISE, 2, 0)], vec![vote(3, 2, 9)]];
    for batch in &batches {
        put(&disk, &journal, batch).unwrap();
    }
    journal.close();
    (disk, state(&batches.concat()))
}

#[test]
fn rot_in_a_slot_is_healed_and_rot_in_the_ring_is_refused() {
    let (disk, whole) = three_batches();
    for byte in (0..8_192).step_by(5) {
        let disk = disk.copy();
        disk.edit(Path::new("/journal/words"), |bytes| bytes[byte] ^= 8);
        assert_eq!(state(&open(&disk).unwrap().1.records), whole, "byte {byte} of the slots");
    }
    for byte in 0..4 * 4_096 {
        let disk = disk.copy();
        disk.edit(Path::new("/journal/ring"), |bytes| bytes[byte] ^= 8);
        match open(&disk) {
            Ok((_, found)) => assert_eq!(state(&found.records), whole, "byte {byte} of the ring"),
            Err(JournalError::LostMemory { .. }) => {}
            Err(other) => panic!("byte {byte}: {other}"),
        }
    }
}

#[test]
fn without_the_seal_rot_in_the_last_batch_is_taken_for_a_torn_write() {
    OFF.set(Some(Rule::LastBatchIsSealed));
    let (disk, whole) = three_batches();
    OFF.set(None);
    disk.edit(Path::new("/journal/ring"), |bytes| bytes[2 * 4_096 + 60] ^= 8);
    let found = open(&disk).unwrap().1;
    assert!(found.torn_tail && state(&found.records) != whole, "the seal does nothing");
}

/// A vote that came with a word has no seal: the slots, written after it, say how far the ring reaches.
#[test]
fn without_the_word_of_the_slots_rot_in_the_last_batch_is_taken_for_a_torn_write() {
    let disk = FakeDisk::default();
    let (journal, _) = open(&disk).unwrap();
    put(&disk, &journal, &[vote(1, 1, 100), word(PROMISE, 2, 0)]).unwrap();
    journal.close();
    disk.edit(Path::new("/journal/ring"), |bytes| bytes[60] ^= 8);
    assert!(matches!(open(&disk.copy()), Err(JournalError::LostMemory { .. })));
    OFF.set(Some(Rule::SlotsSayHowFar));
    let found = open(&disk).unwrap().1;
    OFF.set(None);
    assert!(found.torn_tail && state(&found.records).1.is_empty(), "the slots say nothing");
}

#[test]
fn its_files_never_grow_and_a_turn_that_changes_nothing_writes_nothing() {
    let disk = FakeDisk::default();
    let (journal, _) = open(&disk).unwrap();
    let used = disk.used();
    for round in 1..200 {
        let votes: Vec<Record> = (1..10).map(|step| vote(step, round, 1_000)).collect();
        put(&disk, &journal, &votes).unwrap();
        if round % 7 == 0 {
            let carry = [word(FLOOR, round, 300), word(PROMISE, round, 0), vote(9, round, 1_000)];
            truncate(&disk, &journal, &carry).unwrap();
            let before = disk.operations();
            truncate(&disk, &journal, &carry).unwrap();
            assert_eq!(disk.operations(), before, "the same words once more");
        }
    }
    assert_eq!(disk.used(), used);
    assert!(used <= RING_BYTES + 2 * 4_096);
}

#[test]
fn a_full_ring_refuses_votes_and_still_takes_what_helps_it() {
    let disk = FakeDisk::default();
    let (journal, _) = open(&disk).unwrap();
    let mut steps = 0;
    while put(&disk, &journal, &[vote(steps + 1, 1, 2_000)]).is_ok() {
        steps += 1;
    }
    assert!(steps * 2_040 >= BoundedConfig::room(RING_BYTES), "only {steps} votes fit");
    assert!(journal.stats().full);
    let helps = Record { kind: VOTE | RESERVE, ..vote(99, 1, 500) };
    put(&disk, &journal, &[helps, word(PROMISE, 2, 0)]).unwrap();
    truncate(&disk, &journal, &[word(PROMISE, 2, 0)]).unwrap();
    put(&disk, &journal, &[vote(1, 3, 2_000)]).unwrap();
    assert!(!journal.stats().full);
    assert_eq!(open(&disk).unwrap().1.records, [word(PROMISE, 2, 0), vote(1, 3, 2_000)]);
}

#[test]
fn what_is_given_back_to_a_rebuilt_role_is_what_a_restart_would_find() {
    let disk = FakeDisk::default();
    let (journal, _) = open(&disk).unwrap();
    put(&disk, &journal, &[word(FLOOR, 1, 10), vote(4, 1, 10), vote(2, 1, 10)]).unwrap();
    journal.append(vec![vote(2, 2, 0)], Box::new(|_| ()));
    let replayed = Arc::new(Mutex::new(Vec::new()));
    let into = Arc::clone(&replayed);
    journal.replay(Box::new(move |records| *into.lock().unwrap() = records.unwrap()));
    disk.run();
    let found = open(&disk).unwrap().1.records;
    assert_eq!(found, [word(FLOOR, 1, 10), vote(2, 2, 0), vote(4, 1, 10)]);
    assert_eq!(*replayed.lock().unwrap(), found);
}

#[test]
fn a_failed_sync_latches() {
    let disk = FakeDisk::default();
    let (journal, _) = open(&disk).unwrap();
    disk.set_sync_fails(true);
    assert!(matches!(put(&disk, &journal, &[vote(1, 1, 1)]), Err(JournalFailed::Disk(_))));
    disk.set_sync_fails(false);
    assert!(matches!(put(&disk, &journal, &[vote(1, 1, 1)]), Err(JournalFailed::Disk(_))));
    assert!(journal.stats().failed.is_some());
}

#[test]
fn an_unbounded_journal_is_taken_over_with_all_it_held() {
    let disk = FakeDisk::default();
    let config = JournalConfig { segment_bytes: 4_096, ..JournalConfig::new(DIR) };
    let port: Arc<dyn Disk> = Arc::new(disk.clone());
    let (journal, _) =
        Journal::open_on(&port, &(Arc::new(Stopped) as Arc<dyn Clock>), 5, &config).unwrap();
    let records = [word(FLOOR, 1, 10), vote(1, 1, 3_000), vote(2, 1, 3_000), vote(1, 2, 9)];
    for record in &records {
        put(&disk, &journal, std::slice::from_ref(record)).unwrap();
    }
    journal.close();
    for operations in 0..60 {
        let disk = disk.copy();
        disk.refuse_after(operations);
        let opened = open(&disk).is_ok();
        disk.crash(|| false);
        assert_eq!(state(&open(&disk).unwrap().1.records), state(&records), "after {operations}");
        assert_eq!(disk.list(Path::new(DIR)).unwrap(), ["ring", "words"]);
        if opened {
            return;
        }
    }
    panic!("it never came to an end");
}
