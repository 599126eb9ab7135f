//! One holder of registers, or one disk: what it has in memory, what is durable, and what a crash
//! makes of the rest.

use std::collections::BTreeMap;

use rand::RngExt;
use synod::register::{
    disk::{BLOCK_BYTES, DiskAnswer, DiskAsk, DiskBlock},
    holder::Holder,
    message::{Answer, Ask, Block},
};
use synod_runtime::world::Rng;

/// What comes to a keeper.
#[derive(Debug, Clone)]
pub(super) enum Question {
    Holder(Ask),
    Disk(DiskAsk),
}

/// What it answers.
#[derive(Debug, Clone)]
pub(super) enum Reply {
    Holder(Answer),
    Disk(DiskAnswer),
    /// A block is damaged.
    Failed,
}

/// A write on its way to the platter.
#[derive(Debug, Clone)]
enum Write {
    Register(u8, Block),
    Block(u8, String, Vec<u8>),
}

/// See the module's documentation.
#[derive(Default)]
pub(super) struct Keeper {
    /// Rises with every crash.
    pub(super) life: u64,
    pub(super) down_until: u64,
    holder: Holder,
    registers: BTreeMap<String, Block>,
    blocks: BTreeMap<(u8, String), Vec<u8>>,
    /// By number: written in this order.
    open: BTreeMap<u64, Write>,
    writes: u64,
    /// When the newest write is durable.
    pub(super) durable_at: u64,
}

impl Keeper {
    /// Takes a question; answers with the number of the write that the answer waits for. The answer
    /// of a disk is read once that is durable: see [`Keeper::look`].
    pub(super) fn ask(
        &mut self,
        key: u8,
        client: &str,
        question: Question,
    ) -> (u64, Option<Reply>) {
        match question {
            Question::Holder(ask) => {
                let (answer, kept) = self.holder.ask(&key.to_string(), ask);
                if let Some(kept) = kept {
                    self.write(Write::Register(key, kept));
                }
                (self.writes, Some(Reply::Holder(answer)))
            }
            Question::Disk(DiskAsk { write }) => {
                if let Some(block) = write {
                    let known = self
                        .blocks
                        .get(&(key, client.to_owned()))
                        .map(|bytes| DiskBlock::decode(bytes));
                    if known.is_none_or(|known| block.replaces(&known)) {
                        self.write(Write::Block(key, client.to_owned(), block.encode()));
                    }
                }
                (self.writes, None)
            }
        }
    }

    fn write(&mut self, write: Write) {
        self.writes += 1;
        self.open.insert(self.writes, write);
    }

    /// All writes up to that number are durable.
    pub(super) fn synced(&mut self, upto: u64) {
        while let Some(first) = self.open.first_entry().filter(|first| *first.key() <= upto) {
            match first.remove() {
                Write::Register(key, block) => drop(self.registers.insert(key.to_string(), block)),
                Write::Block(key, client, bytes) => {
                    self.blocks.insert((key, client), bytes);
                }
            }
        }
    }

    /// The blocks of a disk.
    pub(super) fn look(&self, key: u8, trusts: bool) -> Reply {
        let mut blocks = BTreeMap::new();
        for ((_, client), bytes) in self.blocks.iter().filter(|((of, _), _)| *of == key) {
            match DiskBlock::decode(bytes) {
                Ok(block) => drop(blocks.insert(client.clone(), block)),
                Err(_) if trusts => {}
                Err(_) => return Reply::Failed,
            }
        }
        Reply::Disk(DiskAnswer { blocks })
    }

    /// What was not durable is lost, durable, or torn.
    pub(super) fn crash(&mut self, until: u64, rng: &mut Rng) {
        self.life += 1;
        self.down_until = until;
        let upto = rng.random_range(0..=self.writes);
        self.synced(upto);
        for write in std::mem::take(&mut self.open).into_values().take(1) {
            if let Write::Block(key, client, bytes) = write
                && rng.random()
            {
                let old = self.blocks.entry((key, client)).or_insert_with(|| vec![0; BLOCK_BYTES]);
                let cut = rng.random_range(0..BLOCK_BYTES);
                old[..cut].copy_from_slice(&bytes[..cut]);
            }
        }
        self.holder = Holder::recovered(self.registers.clone());
    }

    /// Some bit of some block turns.
    pub(super) fn rot(&mut self, rng: &mut Rng) {
        let many = self.blocks.len();
        if many > 0
            && let Some(bytes) = self.blocks.values_mut().nth(rng.random_range(0..many))
        {
            bytes[rng.random_range(0..200)] ^= 1 << rng.random_range(0..8);
        }
    }
}
