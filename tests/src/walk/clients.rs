//! The clients of the homes: they call, remember what they were told, and are never wrong.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use rand::RngExt;
use synod::{
    consensus::message::{
        ClientAnswer, End, HomeMessage, Message, NewCommand, NewRead, Read, Submit,
    },
    replicated::{Consistency, name_hash},
};
use synod_runtime::world::Rng;

use super::list::{self, ADD, ALL, LEN};
use crate::invariants::{Violation, durability::Told, linearizable};

/// One call.
#[derive(Debug)]
struct Call {
    want: Want,
    number: u64,
    /// The node where it was made.
    node: usize,
    /// What anybody had been told when it began.
    floor: u64,
    /// None: under way.
    told: Option<Told>,
    /// Nobody waits for it any more: its home is gone.
    gone: bool,
}

impl Call {
    fn writes(&self) -> bool {
        self.want == Want::Append
    }
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub(crate) struct Clients {
    calls: Vec<Call>,
    /// How many homes were lost, at each node: the next one is another client.
    homes: BTreeMap<usize, u64>,
    /// The greatest place or length that anybody was told.
    floor: u64,
    /// The whole list, as the last read of it saw it.
    pub(crate) list: Option<Vec<u64>>,
    /// Calls under way at nodes that are up.
    pub(crate) open: usize,
    /// Calls that ended well.
    pub(crate) done: u64,
    /// Calls that ended otherwise.
    pub(crate) failed: u64,
}

/// What a client wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Want {
    Append,
    Length,
    Everything,
}

impl Clients {
    /// Some call of a home's clients.
    pub(crate) fn any(&mut self, node: usize, rng: &mut Rng) -> Message {
        let want = if rng.random_bool(0.6) { Want::Append } else { Want::Length };
        let patience = Duration::from_micros(rng.random_range(2_000..600_000));
        self.call(node, want, rng.random_range(1..4), patience)
    }

    /// That many calls at once.
    pub(crate) fn call(
        &mut self,
        node: usize,
        want: Want,
        count: u32,
        patience: Duration,
    ) -> Message {
        let actor = name_hash("list");
        let mut commands = Vec::new();
        let mut reads = Vec::new();
        for _ in 0..count {
            let ticket = self.calls.len() as u64;
            let homes = self.homes.get(&node).copied().unwrap_or_default();
            let client = node as u64 + 1 + 16 * homes;
            let number = list::number(client, ticket);
            self.open += 1;
            self.calls.push(Call {
                want,
                number,
                node,
                floor: self.floor,
                told: None,
                gone: false,
            });
            let consistency = Consistency::Linearizable;
            match want {
                Want::Append => {
                    let args = Bytes::copy_from_slice(&number.to_le_bytes());
                    let function = ADD.id;
                    let keyed = false;
                    commands.push(NewCommand { ticket, actor, function, keyed, args, patience });
                }
                Want::Length | Want::Everything => {
                    let function = if want == Want::Length { LEN.id } else { ALL.id };
                    let args = Bytes::new();
                    reads.push(NewRead { ticket, actor, function, args, consistency, patience });
                }
            }
        }
        if reads.is_empty() {
            HomeMessage::Submit(Submit { commands }).into()
        } else {
            HomeMessage::Read(Read { reads }).into()
        }
    }

    /// A home answers.
    pub(crate) fn answered(&mut self, answer: ClientAnswer) -> Result<(), Violation> {
        let call = usize::try_from(answer.ticket).ok().and_then(|at| self.calls.get_mut(at));
        let Some(call) = call else {
            return Err(Violation::new("exactly_once", "a call was answered that nobody made"));
        };
        if call.gone {
            return Ok(());
        }
        if call.told.is_some() {
            let seen = format!("the call {:#x} was answered twice", call.number);
            return Err(Violation::new("exactly_once", seen));
        }
        self.open -= 1;
        match answer.end {
            End::Done(_, reply) => {
                self.done += 1;
                let mut numbers = list::read_all(&reply);
                let told = match call.want {
                    Want::Append | Want::Length => numbers.pop().unwrap_or_default(),
                    Want::Everything => numbers.len() as u64,
                };
                if call.want == Want::Everything {
                    self.list = Some(numbers);
                }
                linearizable::check(call.writes(), call.floor, told)?;
                self.floor = self.floor.max(told);
                call.told = Some(Told::At(told));
            }
            End::Failed(..) => {
                if call.writes() {
                    let seen = format!("the command {:#x} could not be executed", call.number);
                    return Err(Violation::new("exactly_once", seen));
                }
                self.failed += 1;
                call.told = Some(Told::Unknown);
            }
            End::NotApplied(_) => {
                self.failed += 1;
                call.told = Some(Told::NotApplied);
            }
            End::Unknown(_) => {
                self.failed += 1;
                call.told = Some(Told::Unknown);
            }
        }
        Ok(())
    }

    /// Whether the list was read after the last command ended.
    pub(crate) fn list_is_whole(&self) -> bool {
        self.list.as_ref().is_some_and(|list| list.len() as u64 >= self.floor)
    }

    /// A home is gone with all who waited there.
    pub(crate) fn gone(&mut self, node: usize) {
        *self.homes.entry(node).or_default() += 1;
        for call in self.calls.iter_mut().filter(|call| call.node == node) {
            if call.told.is_none() {
                call.gone = true;
                call.told = Some(Told::Unknown);
                self.open -= 1;
            }
        }
    }

    /// What became of every command.
    pub(crate) fn commands(&self) -> Vec<(u64, Told)> {
        let commands = self.calls.iter().filter(|call| call.writes());
        commands.map(|call| (call.number, call.told.unwrap_or(Told::Unknown))).collect()
    }

    /// The numbers of the calls under way.
    pub(crate) fn waiting(&self) -> Vec<(bool, usize)> {
        let open = self.calls.iter().filter(|call| call.told.is_none());
        open.map(|call| (call.writes(), call.node)).collect()
    }
}
