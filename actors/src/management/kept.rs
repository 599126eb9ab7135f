//! What singletons keep in the log: of each its newest checkpoint, for whoever is its primary next.
//!
//! ```text
//!   primary of epoch 7 ── keep 7.1, 7.2, … ──> log ──> table (the same at every main and member)
//!        │ dies                                             │
//!   primary of epoch 9 ── begin 9 ──────────> log ──> the newest state; epoch 7 is sealed
//! ```
//! - K1: a primary begins with the newest state that was kept before.
//! - K2: once it has begun, nothing more is kept in an earlier epoch: so whatever an earlier primary
//!   was told is kept, the next one begins with. No clock has a part in that.
//! - K3: of one epoch a state never takes the place of a later one, however late or often it comes.

mod outbox;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use self::outbox::Outbox;
use crate::{
    election::{
        message::{Epoch, check_name},
        store::{decode, encode},
    },
    replicated::{
        ApplyError, Function, Moment, RestoreError, StateMachine, Turn as Step, name_hash,
    },
};

/// The name commands are addressed to. No service can have it by chance.
pub const STORE: &str = "synod/kept";

/// One request: [`Op`]; answered by [`Said`].
pub const CHANGE: Function = Function::command("synod/kept.change");

/// What a primary asks of the table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Op {
    /// It begins in this epoch, and wants what is kept.
    Begin {
        /// The singleton.
        name: String,
        /// Its epoch.
        epoch: Epoch,
    },
    /// Its state by now.
    Keep {
        /// The singleton.
        name: String,
        /// The epoch in which it began.
        epoch: Epoch,
        /// Rises with every state of an epoch, from 1 on.
        number: u64,
        /// At most [`KEPT_BYTES_MAX`] bytes; none at all gives the place back.
        #[serde(with = "serde_bytes")]
        state: Vec<u8>,
    },
}

/// What the table answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Said {
    /// It has begun, with this state; of no bytes if none is kept.
    Begun(#[serde(with = "serde_bytes")] Vec<u8>),
    /// That state is kept, or a later one of the same epoch.
    Kept,
    /// Another has begun, in this epoch.
    Over(Epoch),
    /// It cannot be kept, for want of room or a good name. Nothing was changed.
    Refused(String),
}

/// Of every singleton what is kept.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table(BTreeMap<String, Entry>);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    /// The newest epoch that has begun.
    epoch: Epoch,
    /// The number of the newest state of that epoch; 0: there is none, and the state is older.
    number: u64,
    #[serde(with = "serde_bytes")]
    state: Vec<u8>,
}

impl Table {
    /// Executes one request.
    pub fn apply(&mut self, op: Op) -> Said {
        match op {
            Op::Begin { name, epoch } => self.begin(name, epoch),
            Op::Keep { name, epoch, number, state } => self.keep(&name, epoch, number, state),
        }
    }

    fn begin(&mut self, name: String, epoch: Epoch) -> Said {
        let is_new = !self.0.contains_key(&name);
        if let Err(refusal) = check_name("singleton", &name) {
            return Said::Refused(refusal.to_string());
        }
        if is_new && self.0.len() >= SINGLETONS_MAX {
            return Said::Refused(format!("{SINGLETONS_MAX} singletons keep something already"));
        }
        let new = || Entry { epoch, number: 0, state: Vec::new() };
        let entry = self.0.entry(name).or_insert_with(new);
        if epoch < entry.epoch {
            return Said::Over(entry.epoch);
        }
        if epoch > entry.epoch {
            (entry.epoch, entry.number) = (epoch, 0);
        }
        Said::Begun(entry.state.clone()) // K1
    }

    fn keep(&mut self, name: &str, epoch: Epoch, number: u64, state: Vec<u8>) -> Said {
        let others: usize = self.0.iter().filter(|(one, _)| *one != name).map(size).sum();
        let Some(entry) = self.0.get_mut(name) else { return Said::Over(Epoch::default()) };
        if epoch != entry.epoch && when_on!(BeginningSeals) {
            return Said::Over(entry.epoch); // K2
        }
        if number <= entry.number && when_on!(OldNumbersIgnored) {
            return Said::Kept; // K3
        }
        if state.len() > KEPT_BYTES_MAX {
            let (has, most) = (state.len(), KEPT_BYTES_MAX);
            return Said::Refused(format!("it has {has} bytes, and {most} may be kept"));
        }
        if others + state.len() > ALL_BYTES_MAX {
            let why = "all singletons of a cluster together may keep no more";
            return Said::Refused(format!("{why} than {ALL_BYTES_MAX} bytes"));
        }
        (entry.number, entry.state) = (number, state);
        Said::Kept
    }
}

fn size((_, entry): (&String, &Entry)) -> usize {
    entry.state.len()
}

impl StateMachine for Table {
    fn name(&self) -> &str {
        STORE
    }

    fn functions(&self) -> &[Function] {
        &[CHANGE]
    }

    fn apply(&mut self, function: u64, args: &[u8], _: &mut Step) -> Result<Vec<u8>, ApplyError> {
        if function != CHANGE.id {
            return Err(ApplyError::UnknownFunction { id: function });
        }
        Ok(encode(&Self::apply(self, decode(args)?)))
    }

    fn query(&self, function: u64, _: &[u8], _: &Moment) -> Result<Vec<u8>, ApplyError> {
        Err(ApplyError::UnknownFunction { id: function })
    }

    fn snapshot(&self) -> Vec<u8> {
        encode(self)
    }

    fn restore(&mut self, bytes: &[u8]) -> Result<(), RestoreError> {
        let bad =
            |error: ApplyError| RestoreError { actor: STORE.to_owned(), reason: error.to_string() };
        *self = decode(bytes).map_err(bad)?;
        Ok(())
    }
}

/// The number of the store's name.
pub const fn store_id() -> u64 {
    name_hash(STORE)
}

/// The largest state that a singleton may keep: every one of them is a command of the log, and others
/// wait behind it. What is larger belongs into a replicated actor, which writes what changed.
pub const KEPT_BYTES_MAX: usize = 1024 * 1024;

/// All of them lie in the memory of every main, and in its snapshots, which take about a millisecond
/// for each megabyte.
const ALL_BYTES_MAX: usize = 16 * KEPT_BYTES_MAX;

/// Each has an entry for ever, as its epochs rise for ever.
const SINGLETONS_MAX: usize = 10_000;

#[cfg(test)]
mod tests {
    use rand::{RngExt as _, SeedableRng as _};
    use synod_runtime::world::Rng;

    use super::*;
    use crate::mutation::{ServiceRule, set_service_rule};

    fn begin(epoch: u64) -> Op {
        Op::Begin { name: "one".into(), epoch: Epoch(epoch) }
    }

    fn keep(epoch: u64, number: u64, state: &[u8]) -> Op {
        Op::Keep { name: "one".into(), epoch: Epoch(epoch), number, state: state.to_vec() }
    }

    #[test]
    fn the_next_primary_begins_with_what_was_kept_and_the_last_keeps_nothing_more() {
        let mut table = Table::default();
        assert_eq!(table.apply(keep(3, 1, b"x")), Said::Over(Epoch(0)), "it never began");
        assert_eq!(table.apply(begin(3)), Said::Begun(vec![]));
        assert_eq!(table.apply(keep(3, 1, b"x")), Said::Kept);
        assert_eq!(table.apply(begin(5)), Said::Begun(b"x".to_vec()));
        assert_eq!(table.apply(keep(3, 2, b"y")), Said::Over(Epoch(5)));
        assert_eq!(table.apply(begin(3)), Said::Over(Epoch(5)));
        assert_eq!(table.apply(begin(5)), Said::Begun(b"x".to_vec()), "its answer was lost");
        assert_eq!(table.apply(keep(5, 1, b"z")), Said::Kept, "numbers begin anew");
        let mut again = Table::default();
        again.restore(&table.snapshot()).unwrap();
        assert_eq!(again, table);
        assert!(again.restore(b"no table").is_err() && again == table);
    }

    #[test]
    fn what_is_too_large_is_refused_and_what_was_kept_stays() {
        let mut table = Table::default();
        let name = |number: usize| format!("actor {number}").replace(' ', "-");
        let put = |table: &mut Table, number, bytes| {
            let (name, epoch) = (name(number), Epoch(1));
            table.apply(Op::Begin { name: name.clone(), epoch });
            table.apply(Op::Keep { name, epoch, number: 1, state: vec![7; bytes] })
        };
        assert!(matches!(put(&mut table, 0, KEPT_BYTES_MAX + 1), Said::Refused(_)));
        for number in 0..16 {
            assert_eq!(put(&mut table, number, KEPT_BYTES_MAX), Said::Kept);
        }
        assert!(matches!(put(&mut table, 16, 1), Said::Refused(_)));
        let (name, epoch) = (name(3), Epoch(1));
        let less = Op::Keep { name, epoch, number: 2, state: vec![] };
        assert_eq!(table.apply(less), Said::Kept, "no bytes give the place back");
        assert_eq!(put(&mut table, 16, 1), Said::Kept);
        let bad = Op::Begin { name: String::new(), epoch: Epoch(1) };
        assert!(matches!(table.apply(bad), Said::Refused(_)));
    }

    /// Primaries of rising epochs begin and count upwards, keeping each number, while commands come
    /// late and twice, and those of earlier primaries too; what each was told is what the next knows.
    fn walk(seed: u64) -> Result<(), String> {
        let mut rng = Rng::seed_from_u64(seed);
        let mut table = Table::default();
        let (mut epoch, mut number, mut count, mut promised) = (0, 0, 0_u64, 0_u64);
        let mut late = Vec::new();
        for _ in 0..200 {
            match rng.random_range(0..10) {
                0 => {
                    epoch += 1;
                    let Said::Begun(state) = table.apply(begin(epoch)) else {
                        return Err(format!("epoch {epoch} cannot begin"));
                    };
                    count = state.try_into().map_or(0, u64::from_be_bytes);
                    number = 0;
                    if count < promised {
                        return Err(format!("{promised} was kept, and {count} came back"));
                    }
                }
                1..6 if epoch > 0 => {
                    (count, number) = (count + 1, number + 1);
                    late.push((count, keep(epoch, number, &count.to_be_bytes())));
                }
                _ if !late.is_empty() => {
                    let at = rng.random_range(0..late.len());
                    let (what, op) = match rng.random_bool(0.3) {
                        true => late[at].clone(),
                        false => late.swap_remove(at),
                    };
                    if table.apply(op) == Said::Kept {
                        promised = promised.max(what);
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    #[test]
    fn what_a_primary_was_told_is_kept_is_what_the_next_begins_with() {
        for seed in 0..500 {
            walk(seed).unwrap_or_else(|why| panic!("seed {seed}: {why}"));
        }
    }

    #[test]
    fn that_beginning_seals_and_old_numbers_count_for_nothing_is_missed_when_it_is_off() {
        for rule in [ServiceRule::BeginningSeals, ServiceRule::OldNumbersIgnored] {
            set_service_rule(Some(rule));
            let seen = (0..500).find_map(|seed| walk(seed).err());
            set_service_rule(None);
            println!("{rule:?}: {}", seen.expect("somebody notices"));
        }
    }
}
