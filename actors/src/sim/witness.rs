//! The replicated actor of the trials: lists that only grow, and remember who let them.
//!
//! A list that only grows is the easiest thing to judge: its final state is the order in which
//! everything happened, and a reader who is told its length is told exactly how much it saw.

use std::{collections::BTreeMap, panic::resume_unwind};

use actix::{Actor, Handler, Message};
use serde::{Deserialize, Serialize};

use crate::{
    message::RemoteMessage,
    replicated::{Query, Replicated, Turn},
};

/// The name it is hosted under.
pub(super) const NAME: &str = "witness";

/// The state.
#[derive(Debug, Default, Serialize, Deserialize, Replicated)]
#[replicated(name = "witness", commands(Append, Stumble), queries(Length, Everything))]
pub(super) struct Witness {
    lists: Lists,
}

/// All lists, by number.
pub type Lists = BTreeMap<u8, Vec<Entry>>;

/// One command that was applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The call that asked for it.
    pub call: u64,
    /// The session it came in.
    pub session: u64,
    /// Its place in the log.
    pub position: u64,
}

/// Appends to a list; answers the list's length then.
#[derive(Message, Serialize, Deserialize, RemoteMessage)]
#[rtype(result = "u64")]
#[remote(name = "witness.append")]
pub(super) struct Append {
    pub(super) list: u8,
    pub(super) call: u64,
    /// Makes commands of all sizes.
    #[serde(with = "serde_bytes")]
    pub(super) filler: Vec<u8>,
}

/// Appends, then panics: as if nothing had happened.
#[derive(Message, Serialize, Deserialize, RemoteMessage)]
#[rtype(result = "()")]
#[remote(name = "witness.stumble")]
pub(super) struct Stumble {
    pub(super) list: u8,
    pub(super) call: u64,
}

/// Asks for a list's length.
#[derive(Message, Serialize, Deserialize, RemoteMessage)]
#[rtype(result = "u64")]
#[remote(name = "witness.length")]
pub(super) struct Length {
    pub(super) list: u8,
}

/// Asks for everything.
#[derive(Message, Serialize, Deserialize, RemoteMessage)]
#[rtype(result = "Lists")]
#[remote(name = "witness.everything")]
pub(super) struct Everything {}

impl Witness {
    fn append(&mut self, list: u8, call: u64, turn: &Turn) -> u64 {
        let list = self.lists.entry(list).or_default();
        list.push(Entry { call, session: turn.session().0, position: turn.position().0 });
        list.len() as u64
    }
}

impl Actor for Witness {
    type Context = Turn;
}

impl Handler<Append> for Witness {
    type Result = u64;

    fn handle(&mut self, append: Append, turn: &mut Turn) -> u64 {
        self.append(append.list, append.call, turn)
    }
}

impl Handler<Stumble> for Witness {
    type Result = ();

    fn handle(&mut self, stumble: Stumble, turn: &mut Turn) {
        self.append(stumble.list, stumble.call, turn);
        // Not by `panic!`: nobody should read about it, and so the panic hook is not asked.
        resume_unwind(Box::new("it stumbled, as it was asked to"));
    }
}

impl Query<Length> for Witness {
    fn query(&self, length: Length) -> u64 {
        self.lists.get(&length.list).map_or(0, |list| list.len() as u64)
    }
}

impl Query<Everything> for Witness {
    fn query(&self, _: Everything) -> Lists {
        self.lists.clone()
    }
}
