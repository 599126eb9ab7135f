//! The table: where what is sent to an address goes.

use std::net::IpAddr;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use synod::multicast::{
    application::{Application, BadCheckpoint, BadQuestion},
    message::Entry,
    table::{Change, Summary, Table},
};

use crate::Prefix;

/// Next hops by prefix, the same at every edge.
#[derive(Debug, Default)]
pub struct Routes(Table<Prefix, IpAddr>);

/// What may be asked of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Question {
    /// Where does what is sent there go? Answered as by [`Routes::lookup`].
    To(IpAddr),
    /// Which table is it? Answered as by [`Routes::summary`].
    Summary,
}

impl Routes {
    /// From now on what is sent there goes that way; answers which way it went.
    pub fn announce(&mut self, prefix: Prefix, via: IpAddr) -> Option<IpAddr> {
        self.0.change(Change::Put(prefix, via))
    }

    /// Nothing goes by that prefix any more; answers which way it went.
    pub fn withdraw(&mut self, prefix: Prefix) -> Option<IpAddr> {
        self.0.change(Change::Remove(prefix))
    }

    /// The longest prefix that holds `address`, and its next hop.
    pub fn lookup(&self, address: IpAddr) -> Option<(Prefix, IpAddr)> {
        let mut probe = Prefix::of(address);
        loop {
            // Whatever holds the address comes before the probe, the longest last.
            let (found, via) = self.0.at_or_before(&probe)?;
            if found.holds(address) {
                return Some((*found, *via));
            }
            // What holds the address and comes before this one holds both.
            probe = Prefix::around(address, found.common(address)?);
        }
    }

    /// What tells it from others.
    pub fn summary(&self) -> Summary {
        self.0.summary()
    }
}

impl Application for Routes {
    fn deliver(&mut self, entry: &Entry) {
        self.0.deliver(entry);
    }

    fn checkpoint(&mut self) -> Vec<Bytes> {
        self.0.checkpoint()
    }

    fn restore(&mut self, blocks: &[Bytes]) -> Result<(), BadCheckpoint> {
        self.0.restore(blocks)
    }

    fn query(&self, question: &[u8]) -> Result<Vec<u8>, BadQuestion> {
        let question =
            rmp_serde::from_slice(question).map_err(|error| BadQuestion(error.to_string()))?;
        let answer = match question {
            Question::To(address) => rmp_serde::to_vec(&self.lookup(address)),
            Question::Summary => rmp_serde::to_vec(&self.summary()),
        };
        Ok(answer.expect("plain data encodes"))
    }
}
