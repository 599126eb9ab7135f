//! The roles that keep registers: actors of their own at every main and auxiliary.

use std::{
    collections::BTreeSet,
    fmt,
    sync::{Arc, Mutex},
};

use actix::{Actor, Context, Handler, Message, ResponseFuture};
use serde::{Deserialize, Serialize};
use synod_runtime::{
    identity::NodeName,
    message::{RemoteActor, RemoteMessage},
    telemetry::Counter,
    wire::name_hash,
};

use super::{
    blocks::Blocks,
    lock,
    vault::{Found, Vault},
};
use crate::register::{
    disk::{DiskAnswer, DiskAsk},
    holder::Holder,
    message::{Answer, Ask},
};

/// A question to a holder of registers. No answer: it cannot say, and counts as missing.
#[derive(Debug, Clone, Message, Serialize, Deserialize, RemoteMessage)]
#[rtype(result = "Option<Answer>")]
#[remote(name = "synod.register.ask")]
pub struct HolderAsk {
    /// About which register.
    pub register: String,
    /// What.
    pub ask: Ask,
}

/// A question to a server of blocks, likewise.
#[derive(Debug, Clone, Message, Serialize, Deserialize, RemoteMessage)]
#[rtype(result = "Option<DiskAnswer>")]
#[remote(name = "synod.register.block")]
pub struct BlockAsk {
    /// About which register.
    pub register: String,
    /// Whose block is written, if one is.
    pub client: String,
    /// What.
    pub ask: DiskAsk,
}

/// Keeps registers: [`Holder`] as an actor, `register/holder@NODE`.
#[derive(RemoteActor)]
#[remote(name = "synod.register.holder", handles(HolderAsk))]
pub struct RegisterHolder {
    /// The same in all lives of the actor.
    kept: Arc<Kept>,
    received: Counter,
}

/// What a holder keeps, and where.
pub(super) struct Kept {
    holder: Mutex<Holder>,
    vault: Vault,
    damaged: BTreeSet<u64>,
}

/// Serves blocks: a disk as an actor, `register/blocks@NODE`.
#[derive(RemoteActor)]
#[remote(name = "synod.register.blocks", handles(BlockAsk))]
pub struct BlockServer {
    blocks: Arc<Blocks>,
    received: Counter,
}

impl Kept {
    pub(super) fn new(vault: Vault, found: Found) -> Self {
        let Found { registers, damaged } = found;
        Self { holder: Mutex::new(Holder::recovered(registers)), vault, damaged }
    }
}

impl RegisterHolder {
    pub(super) const fn new(kept: Arc<Kept>, received: Counter) -> Self {
        Self { kept, received }
    }
}

impl BlockServer {
    pub(super) const fn new(blocks: Arc<Blocks>, received: Counter) -> Self {
        Self { blocks, received }
    }
}

impl Actor for RegisterHolder {
    type Context = Context<Self>;
}

impl Actor for BlockServer {
    type Context = Context<Self>;
}

impl Handler<HolderAsk> for RegisterHolder {
    type Result = ResponseFuture<Option<Answer>>;

    fn handle(&mut self, asked: HolderAsk, _ctx: &mut Self::Context) -> Self::Result {
        self.received.increment();
        let HolderAsk { register, ask } = asked;
        if self.kept.damaged.contains(&name_hash(&register)) {
            return Box::pin(async { None });
        }
        let (answer, block) = lock(&self.kept.holder).ask(&register, ask);
        // Durable before said, and so is all that the answer tells of.
        let durable = self.kept.vault.keep(block.map(|block| (register, block)));
        Box::pin(async move { durable.await.ok().map(|()| answer) })
    }
}

impl Handler<BlockAsk> for BlockServer {
    type Result = ResponseFuture<Option<DiskAnswer>>;

    fn handle(&mut self, asked: BlockAsk, _ctx: &mut Self::Context) -> Self::Result {
        self.received.increment();
        let blocks = Arc::clone(&self.blocks);
        let BlockAsk { register, client, ask } = asked;
        Box::pin(async move { blocks.ask(register, client, ask).await })
    }
}

/// The name a holder is reached by.
pub(super) fn register_holder(seat: &NodeName) -> String {
    format!("register/holder@{seat}")
}

/// The name a server of blocks is reached by.
pub(super) fn block_server(seat: &NodeName) -> String {
    format!("register/blocks@{seat}")
}

impl fmt::Debug for RegisterHolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegisterHolder").finish_non_exhaustive()
    }
}

impl fmt::Debug for BlockServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlockServer").finish_non_exhaustive()
    }
}
