//! What may be sent to a peer.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use rustc_hash::FxHashMap;
use tokio::sync::Semaphore;

use super::{ACCOUNTS_LEN_MAX, PROBE_EVERY, TARGET_WINDOW, link_bytes, units};
use crate::{
    address::SendError,
    identity::NodeName,
    node::{Node, lock},
    world::Instant,
};

/// What this node may send to one peer while one link lasts.
pub(super) struct Spender {
    pub(super) peer: NodeName,
    pub(super) link: Arc<Pool>,
    pub(super) targets: Mutex<FxHashMap<u64, Arc<Pool>>>,
}

/// Credit of one kind.
pub(super) struct Pool {
    pub(super) target: u64,
    /// First come, first served; closed with the link.
    room: Semaphore,
    pub(super) spent: AtomicU64,
    pub(super) granted: Mutex<Granted>,
}

pub(super) struct Granted {
    limit: u64,
    pub(super) probed: Option<Instant>,
}

impl Pool {
    pub(super) fn new(target: u64, window: u64) -> Arc<Self> {
        let room = Semaphore::new(usize::try_from(window).expect("windows are small"));
        let granted = Mutex::new(Granted { limit: window, probed: None });
        Arc::new(Self { target, room, spent: AtomicU64::new(0), granted })
    }

    fn try_spend(&self, cost: u64) -> Result<(), SendError> {
        use tokio::sync::TryAcquireError::{Closed, NoPermits};
        match self.room.try_acquire_many(permits(cost)) {
            Ok(permits) => permits.forget(),
            Err(Closed) => return Err(SendError::Unreachable),
            Err(NoPermits) => return Err(SendError::Overloaded),
        }
        self.spent.fetch_add(cost, Relaxed);
        Ok(())
    }

    fn give_back(&self, cost: u64) {
        self.spent.fetch_sub(cost, Relaxed);
        self.room.add_permits(permits(cost) as usize);
    }

    pub(super) fn raise(&self, limit: u64) {
        let mut granted = lock(&self.granted);
        let more = limit.saturating_sub(granted.limit);
        granted.limit += more;
        drop(granted);
        // A peer cannot grant more than would be room for.
        let more = usize::try_from(more).unwrap_or(Semaphore::MAX_PERMITS);
        self.room.add_permits(more.min(Semaphore::MAX_PERMITS - self.room.available_permits()));
    }

    fn is_idle(&self) -> bool {
        self.spent.load(Relaxed) < lock(&self.granted).limit
    }
}

fn permits(cost: u64) -> u32 {
    u32::try_from(cost).expect("a cost is a part of a window")
}

impl Spender {
    pub(super) fn pool(&self, target: u64) -> Arc<Pool> {
        let mut targets = lock(&self.targets);
        if targets.len() >= ACCOUNTS_LEN_MAX {
            targets.retain(|_, pool| !pool.is_idle() || Arc::strong_count(pool) > 1);
        }
        Arc::clone(targets.entry(target).or_insert_with(|| Pool::new(target, TARGET_WINDOW)))
    }

    pub(super) fn close(&self) {
        self.link.room.close();
        for pool in lock(&self.targets).values() {
            pool.room.close();
        }
    }
}

/// The right to send to one target over one link.
pub(crate) struct Allowance {
    pub(super) spender: Arc<Spender>,
    pub(super) target: Arc<Pool>,
}

impl Allowance {
    /// Whether the link it is for is still there.
    pub(crate) fn lasts(&self) -> bool {
        !self.target.room.is_closed()
    }

    /// Spends for one message, or says why not; then nothing was spent.
    pub(crate) fn try_spend(&self, node: &Node, body_len: usize) -> Result<(), SendError> {
        let (units, bytes) = (units(body_len), link_bytes(body_len));
        let (pool, error) = match self.target.try_spend(units) {
            Ok(()) => match self.spender.link.try_spend(bytes) {
                Ok(()) => return Ok(()),
                Err(error) => {
                    self.target.give_back(units);
                    (&self.spender.link, error)
                }
            },
            Err(error) => (&self.target, error),
        };
        node.probe(&self.spender.peer, pool);
        Err(error)
    }

    /// Waits for room for one message and spends it. May be dropped at any time.
    pub(crate) async fn spend(&self, node: &Node, body_len: usize) -> Result<(), SendError> {
        let (units, bytes) = (units(body_len), link_bytes(body_len));
        self.wait(node, &self.target, units).await?;
        let mut first = Refund { pool: &self.target, cost: units };
        self.wait(node, &self.spender.link, bytes).await?;
        first.cost = 0;
        Ok(())
    }

    async fn wait(&self, node: &Node, pool: &Pool, cost: u64) -> Result<(), SendError> {
        if pool.try_spend(cost).is_ok() {
            return Ok(());
        }
        let room = pool.room.acquire_many(permits(cost));
        tokio::pin!(room);
        loop {
            match tokio::time::timeout(PROBE_EVERY, &mut room).await {
                Ok(Ok(permits)) => {
                    permits.forget();
                    pool.spent.fetch_add(cost, Relaxed);
                    return Ok(());
                }
                Ok(Err(_closed)) => return Err(SendError::Unreachable),
                Err(_) => node.probe(&self.spender.peer, pool),
            }
        }
    }

    /// The message was not sent after all.
    pub(crate) fn give_back(&self, body_len: usize) {
        self.target.give_back(units(body_len));
        self.spender.link.give_back(link_bytes(body_len));
    }
}

/// Credit of one kind, given back if the wait for the other is given up.
struct Refund<'a> {
    pool: &'a Pool,
    cost: u64,
}

impl Drop for Refund<'_> {
    fn drop(&mut self) {
        self.pool.give_back(self.cost);
    }
}
