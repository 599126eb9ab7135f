//! Publishing from a program on a node.

use std::time::Duration;

use bytes::Bytes;
use rand::RngExt as _;

use super::{CallFailed, Joined};
use crate::multicast::message::{Data, Mid, Outcome, Publisher, Seq};

/// A publisher: what it publishes keeps its order. It has one message under way at a time; many of
/// them at once are fast.
#[derive(Debug)]
pub struct Press {
    group: Joined,
    publisher: Publisher,
    number: u64,
    /// Numbers below this have their place, or never will.
    lowest_open: u64,
    stamp: Seq,
}

impl Press {
    pub(super) fn new(group: Joined) -> Self {
        let publisher = Publisher(group.0.rng_of_publishers().random());
        Self { group, publisher, number: 0, lowest_open: 1, stamp: Seq(0) }
    }

    /// Who it is, as subscribers are told.
    pub const fn id(&self) -> Publisher {
        self.publisher
    }

    /// Publishes one message; answers its number.
    ///
    /// # Errors
    /// [`CallFailed::Unknown`] when it is not known to be committed within thirty seconds. Its
    /// place, if it gets one, is before that of the next message.
    pub async fn publish(&mut self, payload: impl Into<Bytes>) -> Result<Seq, CallFailed> {
        Ok(self.publish_all(vec![payload.into()]).await?[0])
    }

    /// Publishes messages that follow one another; answers their numbers. Others' may come between.
    ///
    /// # Errors
    /// As there, for any of them.
    pub async fn publish_all(&mut self, payloads: Vec<Bytes>) -> Result<Vec<Seq>, CallFailed> {
        self.stamp = self.stamp.max(self.group.largest());
        let (publisher, stamp, lowest_open) = (self.publisher, self.stamp, self.lowest_open);
        let first = self.number + 1;
        self.number += payloads.len() as u64;
        let numbered = (first..).zip(payloads);
        let messages = numbered.map(|(number, payload)| {
            let mid = Mid { publisher, number };
            Data { mid, stamp, lowest_open, payload }
        });
        let mut done = self.group.send(messages.collect(), PATIENCE).await?;
        done.sort_unstable_by_key(|(mid, _)| *mid);
        self.lowest_open = self.number + 1;
        let seqs = done.into_iter().map(|(_, outcome)| match outcome {
            Outcome::Committed(seq) => Ok(seq),
            Outcome::Expired => Err(CallFailed::Expired),
            Outcome::Unknown => Err(CallFailed::Unknown),
        });
        seqs.collect()
    }
}

/// Longer than any fail-over that ends.
const PATIENCE: Duration = Duration::from_secs(30);
