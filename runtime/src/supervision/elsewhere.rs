//! A child on another node: the same orders and reports, over the link.

use std::{sync::Arc, time::Duration};

use rand::Rng as _;
use serde_bytes::ByteBuf;

use super::control::{BEGIN, Control, FINISH, FOR_GOOD, HALT, KILL, Manager, Orders};
use crate::{
    address::SendError,
    identity::{NodeId, NodeName},
    node::{ChildOrder, ChildWord as Word, WeakNode},
    registry::watch::{Reason, Terminated},
    world::Rng,
};

/// How soon a node that is not linked is tried again.
const RETRY: Duration = Duration::from_millis(100);

/// Begins, watches and ends one child over the link.
pub(super) struct Care {
    pub(super) node: WeakNode,
    pub(super) control: Arc<Control>,
    pub(super) manager: Manager,
    /// The node it shall live on.
    pub(super) home: NodeName,
    pub(super) kind: String,
    pub(super) path: String,
    pub(super) tree: String,
    pub(super) args: ByteBuf,
    pub(super) rng: Rng,
}

impl Care {
    /// Follows the tree's orders until one is for good.
    pub(super) async fn run(mut self) {
        while self.parked().await {
            let life = self.rng.next_u64();
            let Some(reason) = self.life(life).await else { return };
            if self.control.orders() & FOR_GOOD != 0 {
                return;
            }
            self.manager.down(reason);
        }
    }

    /// Waits for the order to begin; answers whether it came.
    async fn parked(&self) -> bool {
        loop {
            let orders = self.control.orders();
            if orders & FOR_GOOD != 0 {
                return false;
            }
            if self.control.take(BEGIN) != 0 {
                if orders & HALT == 0 {
                    return true;
                }
                self.manager.down(Reason::Stopped);
            }
            self.control.changed(self.control.orders()).await;
        }
    }

    /// One life, from its begin to its end; nothing when our own node is gone.
    async fn life(&self, life: u64) -> Option<Reason> {
        let begin = self.word(life, ChildOrder::Begin { args: self.args.clone() });
        let begun = tokio::select! {
            biased;
            begun = self.begin(&begin) => begun?,
            _ = self.ending(0) => Err(Reason::Stopped),
        };
        let home = match begun {
            Ok(home) => home,
            Err(reason) => {
                // It may have begun without our knowing.
                self.end(life, false).await;
                return Some(reason);
            }
        };
        self.manager.up();
        // The node is not held while its actor lives.
        let mut watch = self.node.upgrade()?.watch_name(&home, &self.path);
        let mut seen = 0;
        loop {
            tokio::select! {
                biased;
                Terminated { reason, .. } = &mut watch => return Some(reason),
                orders = self.ending(seen) => {
                    seen = orders;
                    self.end(life, orders & FINISH != 0 && orders & KILL == 0).await;
                    if orders & KILL != 0 {
                        // The link may be gone: nobody waits for it.
                        return Some(Reason::Stopped);
                    }
                }
            }
        }
    }

    /// Begins the child; waits for the link as long as a node may be silent.
    async fn begin(&self, word: &Word) -> Option<Result<NodeId, Reason>> {
        let node = self.node.upgrade()?;
        let until = node.now() + node.lost_after();
        loop {
            let error = match node.ask_nursery(&self.home, word, node.ask_timeout()).await {
                Ok(Ok(home)) => return Some(Ok(home)),
                Ok(Err(why)) => return Some(Err(Reason::GaveUp { why })),
                Err(error) => error,
            };
            let passing = matches!(error, SendError::Unreachable | SendError::Overloaded);
            if !passing || node.now() >= until {
                return Some(Err(Reason::NodeLost { why: error.to_string() }));
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    async fn end(&self, life: u64, finish: bool) {
        let Some(node) = self.node.upgrade() else { return };
        let word = self.word(life, ChildOrder::End { finish });
        // A lost word is made up for by the watch of the tree there, or of the child here.
        if let Err(error) = node.ask_nursery(&self.home, &word, RETRY).await {
            tracing::debug!(actor = self.path, %error, "its node was not told to end it");
        }
    }

    fn word(&self, life: u64, order: ChildOrder) -> Word {
        let (kind, path, tree) = (self.kind.clone(), self.path.clone(), self.tree.clone());
        Word { kind, path, tree, life, order }
    }

    /// Waits for an order to end other than those seen.
    async fn ending(&self, seen: Orders) -> Orders {
        loop {
            let all = self.control.orders();
            let orders = all & (HALT | FOR_GOOD | KILL);
            if orders & (HALT | FOR_GOOD) != 0 && orders != seen {
                return orders;
            }
            self.control.changed(all).await;
        }
    }
}

impl Drop for Care {
    fn drop(&mut self) {
        self.manager.gone();
    }
}
