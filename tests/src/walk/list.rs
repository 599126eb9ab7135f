//! What the walk replicates: one list of numbers that commands append to. Every command has its
//! own number, so executing one twice, or two of one client out of order, cannot go unnoticed.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use synod::replicated::{ApplyError, Function, Moment, RestoreError, StateMachine, Turn};

/// Appends a number; answers its place, from 1.
pub(crate) const ADD: Function = Function::command("list.add");
/// How long the list is.
pub(crate) const LEN: Function = Function::query("list.len");
/// The whole list.
pub(crate) const ALL: Function = Function::query("list.all");

/// What the lists of all nodes noticed.
#[derive(Debug, Default)]
pub(crate) struct Witness {
    /// A number that some list got twice, or after a later one of its client.
    pub(crate) wrong: AtomicU64,
}

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct List {
    numbers: Vec<u64>,
    /// The last number of each client.
    last: BTreeMap<u64, u64>,
    witness: Arc<Witness>,
}

/// A number that tells its client, and rises with every command of it.
pub(crate) fn number(client: u64, ticket: u64) -> u64 {
    client << 32 | ticket
}

impl List {
    pub(crate) fn boxed(witness: &Arc<Witness>) -> Box<dyn StateMachine> {
        let witness = Arc::clone(witness);
        Box::new(Self { numbers: Vec::new(), last: BTreeMap::new(), witness })
    }

    fn push(&mut self, number: u64) {
        let last = self.last.entry(number >> 32).or_default();
        if number <= *last {
            self.witness.wrong.store(number, Ordering::Relaxed);
        }
        *last = number;
        self.numbers.push(number);
    }
}

impl StateMachine for List {
    fn name(&self) -> &'static str {
        "list"
    }

    fn functions(&self) -> &[Function] {
        &[ADD, LEN, ALL]
    }

    fn apply(
        &mut self,
        function: u64,
        args: &[u8],
        _turn: &mut Turn,
    ) -> Result<Vec<u8>, ApplyError> {
        if function != ADD.id {
            return Err(ApplyError::UnknownFunction { id: function });
        }
        let bytes =
            args.try_into().map_err(|_size| ApplyError::BadArguments("not a number".to_owned()))?;
        self.push(u64::from_le_bytes(bytes));
        Ok((self.numbers.len() as u64).to_le_bytes().to_vec())
    }

    fn query(&self, function: u64, _args: &[u8], _at: &Moment) -> Result<Vec<u8>, ApplyError> {
        if function == LEN.id {
            Ok((self.numbers.len() as u64).to_le_bytes().to_vec())
        } else if function == ALL.id {
            Ok(self.snapshot())
        } else {
            Err(ApplyError::UnknownFunction { id: function })
        }
    }

    fn snapshot(&self) -> Vec<u8> {
        self.numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
    }

    fn restore(&mut self, bytes: &[u8]) -> Result<(), RestoreError> {
        self.numbers.clear();
        self.last.clear();
        for number in read_all(bytes) {
            self.push(number);
        }
        Ok(())
    }
}

/// The list in the answer to [`ALL`].
pub(crate) fn read_all(bytes: &[u8]) -> Vec<u64> {
    let (numbers, _rest) = bytes.as_chunks::<8>();
    numbers.iter().map(|bytes| u64::from_le_bytes(*bytes)).collect()
}
