//! What a site must not forget: how far its server is, and what it may have been asked since (R5.39).

use std::{cell::Cell, path::PathBuf};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use synod::runtime::{
    journal::{
        Durability, EVERY_STEP, Journal, JournalConfig, JournalError, JournalFailed, Record,
    },
    world::World,
};
use tokio::sync::oneshot;

/// How far a server is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// The state its server began with, as the order names it; 0 before it joined.
    pub lineage: u64,
    /// Everything up to here was answered.
    pub answered: u64,
    /// Beyond that, nothing after this was sent of what may be sent twice.
    pub reserved: u64,
    /// The same, of what must not be.
    pub once: u64,
    /// The last that failed, or of which nobody knows whether it was performed: whether or not the
    /// others were told.
    pub lost: u64,
}

/// The notes of one site, on its node's disk.
pub struct Notes {
    journal: Journal,
    /// Records since the last that holds all.
    records: Cell<u32>,
}

impl Notes {
    /// Opens them in `dir`; what they say. Blocks.
    ///
    /// # Errors
    /// When the disk refuses, or what was durable is damaged.
    pub fn open(
        world: &World,
        dir: PathBuf,
        durability: Durability,
    ) -> Result<(Self, Facts), JournalError> {
        let config =
            JournalConfig { durability, segment_bytes: SEGMENT_BYTES, ..JournalConfig::new(dir) };
        let (journal, recovered) = Journal::open(world, &config)?;
        // Each record holds all; one that cannot be read is of another program.
        let last = recovered.records.last();
        let facts = last.and_then(|record| rmp_serde::from_slice(&record.payload).ok());
        let records = Cell::new(u32::try_from(recovered.records.len()).unwrap_or(u32::MAX));
        Ok((Self { journal, records }, facts.unwrap_or_default()))
    }

    /// Notes `facts`; they are durable when this returns.
    ///
    /// # Errors
    /// They may not be: what they permit must not be done.
    pub async fn keep(&self, facts: &Facts) -> Result<(), JournalFailed> {
        let (told, durable) = oneshot::channel();
        let done = Box::new(move |result| drop(told.send(result)));
        if self.records.get() >= RECORDS_MAX {
            self.records.set(0);
            self.journal.truncate(EVERY_STEP, vec![record(facts)], done);
        } else {
            self.records.set(self.records.get() + 1);
            self.journal.append(vec![record(facts)], done);
        }
        durable.await.unwrap_or(Err(JournalFailed::Closed))
    }

    /// Notes `facts` soon: that something need not be done again.
    pub fn keep_lazily(&self, facts: &Facts) {
        self.records.set(self.records.get() + 1);
        self.journal.append(vec![record(facts)], Box::new(|_| ()));
    }

    /// Writes what is still to be written, and takes no more.
    pub fn close(&self) {
        self.journal.close();
    }
}

fn record(facts: &Facts) -> Record {
    let payload = rmp_serde::to_vec(facts).expect("plain data encodes");
    Record { kind: KIND, step: facts.answered, payload: Bytes::from(payload), ..Record::default() }
}

/// The only kind there is.
const KIND: u8 = 1;

/// Then one takes the place of all.
const RECORDS_MAX: u32 = 10_000;

/// Some thousand of such records.
const SEGMENT_BYTES: u64 = 1 << 20;

impl std::fmt::Debug for Notes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Notes").finish_non_exhaustive()
    }
}
