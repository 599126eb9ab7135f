//! Credits: what may be sent to a peer and to each actor there before it says that it did
//! something about it. Nothing else bounds a mailbox of actix.
//!
//! ```text
//!   spender (here)                                    granter (there)
//!   spent ≤ limit ── tell, ask ──► inbox of the actor ── handled ──► done
//!         ▲                                                            │ every half window
//!         └───────────────── Credit { limit = done + window } ◄────────┘
//! ```
//! 1. A tell or an ask on the user lane spends twice: bytes of the link, which come back as soon
//!    as the peer has sorted the frame to its target, and units of its target (one, and one more
//!    for each full KiB), which come back when the actor has handled it; for an ask, answered it.
//!    So a slow actor uses up what is for itself, and never the link of the others.
//! 2. Limits are totals since the link came up. One that is lost is made up for by the next; a
//!    spender without credit tells its own total (`Probe`), and hears the limit again, in which
//!    frames that the network lost on the way are counted as done.
//! 3. Answers, cancels and everything on the other lanes is free: answers are bounded by their
//!    asks, and the protocols of the roles bound themselves.
//! 4. The granter takes no more than [`EXCESS`] windows of a target, whatever the spender thinks.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use rustc_hash::FxHashMap;
use tokio::sync::Semaphore;

use super::{Node, WeakNode, lock};
use crate::{
    address::SendError,
    identity::{NodeId, NodeName},
    registry::NAMES_LEN_MAX,
    wire::{Frame, FrameHeader, FrameKind, HEADER_BYTES},
    world::{Instant, network::Lane},
};

/// Units that may be on their way to one actor from one node: small messages, or KiB. Deep enough
/// that nobody waits while half a window's credit is on its way back, and a few MiB of memory at
/// the worst.
pub(crate) const TARGET_WINDOW: u64 = 4096;
/// Bytes on their way to one node that it has not sorted yet. Above what a fast link holds, below
/// what would make an ask behind them wait for long.
const LINK_WINDOW: u64 = 8 * 1024 * 1024;
/// The same as the number of a target: the link itself.
const LINK: u64 = 0;
/// A message costs its target one more unit for each of these.
const UNIT_BYTES: u64 = 1024;
/// No message costs more than this part of a window, or it could never be sent.
const PART_MAX: u64 = 4;
/// What more than a window is taken before messages are refused: frames that were under way when a
/// link broke may still wait when the next link's window is spent.
const EXCESS: u64 = 2;
/// How often a spender without credit asks: seldom beside any handler that is just slow.
const PROBE_EVERY: Duration = Duration::from_millis(100);
/// Accounts of targets for one peer; beyond, those with nothing open are forgotten.
const ACCOUNTS_LEN_MAX: usize = 2 * NAMES_LEN_MAX;

/// What a body costs its target.
pub(crate) fn units(body_len: usize) -> u64 {
    (1 + body_len as u64 / UNIT_BYTES).min(TARGET_WINDOW / PART_MAX)
}

/// What a frame costs the link.
fn link_bytes(body_len: usize) -> u64 {
    (HEADER_BYTES as u64 + body_len as u64).min(LINK_WINDOW / PART_MAX)
}

/// Both sides of the credits of a node, by linked peer.
#[derive(Default)]
pub(super) struct Credits(Mutex<BTreeMap<NodeName, Peer>>);

struct Peer {
    /// None while there is no link.
    spends: Option<Arc<Spender>>,
    /// Stays as long as anything from the peer waits here.
    grants: Arc<Granter>,
}

/// What this node may send to one peer while one link lasts.
struct Spender {
    peer: NodeName,
    link: Arc<Pool>,
    targets: Mutex<FxHashMap<u64, Arc<Pool>>>,
}

/// Credit of one kind.
struct Pool {
    target: u64,
    /// First come, first served; closed with the link.
    room: Semaphore,
    spent: AtomicU64,
    granted: Mutex<Granted>,
}

struct Granted {
    limit: u64,
    probed: Option<Instant>,
}

impl Pool {
    fn new(target: u64, window: u64) -> Arc<Self> {
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

    fn raise(&self, limit: u64) {
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

fn window(target: u64) -> u64 {
    if target == LINK { LINK_WINDOW } else { TARGET_WINDOW }
}

fn permits(cost: u64) -> u32 {
    u32::try_from(cost).expect("a cost is a part of a window")
}

impl Spender {
    fn pool(&self, target: u64) -> Arc<Pool> {
        let mut targets = lock(&self.targets);
        if targets.len() >= ACCOUNTS_LEN_MAX {
            targets.retain(|_, pool| !pool.is_idle() || Arc::strong_count(pool) > 1);
        }
        Arc::clone(targets.entry(target).or_insert_with(|| Pool::new(target, TARGET_WINDOW)))
    }

    fn close(&self) {
        self.link.room.close();
        for pool in lock(&self.targets).values() {
            pool.room.close();
        }
    }
}

/// The right to send to one target over one link.
pub(crate) struct Allowance {
    spender: Arc<Spender>,
    target: Arc<Pool>,
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
        // Given back if the wait for the second is given up.
        let mut first = Refund { pool: &self.target, cost: units };
        self.wait(node, &self.spender.link, bytes).await?;
        first.cost = 0;
        Ok(())
    }

    async fn wait(&self, node: &Node, pool: &Pool, cost: u64) -> Result<(), SendError> {
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

struct Refund<'a> {
    pool: &'a Pool,
    cost: u64,
}

impl Drop for Refund<'_> {
    fn drop(&mut self) {
        if self.cost > 0 {
            self.pool.give_back(self.cost);
        }
    }
}

/// What this node has yet to do for one peer, over all its links.
pub(crate) struct Granter {
    node: WeakNode,
    peer: NodeName,
    accounts: Mutex<Accounts>,
}

#[derive(Default)]
struct Accounts {
    /// Which link of the peer this is. What came over an earlier one is not told as done.
    link: u64,
    by_target: FxHashMap<u64, Account>,
}

#[derive(Default)]
struct Account {
    /// Taken and not done yet, over all links (4.).
    open: u64,
    /// Of the present link.
    done: u64,
    /// What `done` was when the spender was last told.
    told: u64,
}

impl Granter {
    /// Another link is up, or none.
    fn link_changed(&self) {
        let mut accounts = lock(&self.accounts);
        accounts.link += 1;
        accounts.by_target.retain(|_, account| account.open > 0);
        for account in accounts.by_target.values_mut() {
            (account.done, account.told) = (0, 0);
        }
    }

    /// Whether a frame may be taken for `target` (4.); then it is open, and the answer is the link
    /// it came over.
    fn take(&self, target: u64, cost: u64) -> Option<u64> {
        let mut accounts = lock(&self.accounts);
        if accounts.by_target.len() >= ACCOUNTS_LEN_MAX {
            accounts.by_target.retain(|_, account| account.open > 0);
        }
        let account = accounts.by_target.entry(target).or_default();
        let fits = account.open + cost <= EXCESS * TARGET_WINDOW;
        account.open += if fits { cost } else { 0 };
        fits.then_some(accounts.link)
    }

    /// What was taken is done.
    fn done(&self, target: u64, cost: u64, link: u64) {
        let mut accounts = lock(&self.accounts);
        let is_present = accounts.link == link;
        let Some(account) = accounts.by_target.get_mut(&target) else { return };
        account.open = account.open.saturating_sub(cost);
        if !is_present {
            return;
        }
        account.done += cost;
        let window = window(target);
        if account.done - account.told < window / 2 {
            return;
        }
        account.told = account.done;
        let limit = account.done + window;
        drop(accounts);
        self.grant(target, limit);
    }

    /// The spender says how much it spent: what is not here is done, or lost on the way (2.).
    fn probed(&self, target: u64, spent: u64) {
        let mut accounts = lock(&self.accounts);
        let account = accounts.by_target.entry(target).or_default();
        account.done = account.done.max(spent.saturating_sub(account.open));
        account.told = account.done;
        let limit = account.done + window(target);
        drop(accounts);
        self.grant(target, limit);
    }

    /// Bytes of the link were sorted.
    fn sorted(&self, bytes: u64) {
        let mut accounts = lock(&self.accounts);
        let link = accounts.link;
        accounts.by_target.entry(LINK).or_default();
        drop(accounts);
        self.done(LINK, bytes, link);
    }

    fn grant(&self, target: u64, limit: u64) {
        let Some(node) = self.node.upgrade() else { return };
        node.tell_credit(&self.peer, FrameKind::Credit, Lane::Control, target, limit);
    }
}

/// Messages that were taken from a peer and are not done yet: dropping it says that they are.
#[derive(Default)]
#[doc(hidden)]
pub struct Debt {
    granter: Option<Arc<Granter>>,
    link: u64,
    target: u64,
    units: u64,
}

impl Debt {
    /// Takes a part of it, to be done at another time.
    pub(crate) fn split(&mut self, units: u64) -> Self {
        let units = units.min(self.units);
        self.units -= units;
        Self { granter: self.granter.clone(), link: self.link, target: self.target, units }
    }
}

impl Drop for Debt {
    fn drop(&mut self) {
        if let (Some(granter), true) = (&self.granter, self.units > 0) {
            granter.done(self.target, self.units, self.link);
        }
    }
}

impl std::fmt::Debug for Debt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Debt({})", self.units)
    }
}

impl Node {
    pub(super) fn credits_up(&self, peer: &NodeName) {
        self.credits_down(peer);
        let spends = Arc::new(Spender {
            peer: peer.clone(),
            link: Pool::new(LINK, LINK_WINDOW),
            targets: Mutex::default(),
        });
        let mut peers = lock(&self.0.credits.0);
        let known = peers.entry(peer.clone()).or_insert_with(|| Peer {
            spends: None,
            grants: Arc::new(Granter {
                node: WeakNode::of(self),
                peer: peer.clone(),
                accounts: Mutex::default(),
            }),
        });
        known.spends = Some(spends);
    }

    pub(super) fn credits_down(&self, peer: &NodeName) {
        let mut peers = lock(&self.0.credits.0);
        let Some(known) = peers.get_mut(peer) else { return };
        let spends = known.spends.take();
        known.grants.link_changed();
        if lock(&known.grants.accounts).by_target.is_empty() {
            peers.remove(peer);
        }
        drop(peers);
        if let Some(spends) = spends {
            spends.close();
        }
    }

    fn spender(&self, peer: &NodeName) -> Option<Arc<Spender>> {
        lock(&self.0.credits.0).get(peer)?.spends.clone()
    }

    fn granter(&self, peer: &NodeName) -> Option<Arc<Granter>> {
        lock(&self.0.credits.0).get(peer).map(|peer| Arc::clone(&peer.grants))
    }

    /// What may be sent to `target` on `peer`; `None` without a link.
    pub(crate) fn allowance(&self, peer: &NodeName, target: u64) -> Option<Allowance> {
        let spender = self.spender(peer)?;
        let target = spender.pool(target);
        Some(Allowance { spender, target })
    }

    /// Takes tells and asks that came over the user lane, and answers what is owed for those of
    /// one target. Those that are too many are refused.
    pub(super) fn take_on_credit(
        &self,
        from: &NodeId,
        target: u64,
        batch: &mut Vec<Frame>,
    ) -> Debt {
        let Some(granter) = self.granter(&from.name) else { return Debt::default() };
        let all: u64 = batch.iter().map(|frame| units(frame.body.len())).sum();
        if let Some(link) = granter.take(target, all) {
            return Debt { granter: Some(granter), link, target, units: all };
        }
        let mut debt = Debt { granter: Some(granter.clone()), link: 0, target, units: 0 };
        batch.retain(|frame| {
            let cost = units(frame.body.len());
            let taken = granter.take(target, cost);
            match taken {
                Some(link) => (debt.link, debt.units) = (link, debt.units + cost),
                None => self.refuse(from, &frame.header, &SendError::Overloaded),
            }
            taken.is_some()
        });
        debt
    }

    /// Bytes of the user lane were sorted to their targets.
    pub(super) fn link_sorted(&self, from: &NodeId, bytes: u64) {
        if let Some(granter) = self.granter(&from.name) {
            granter.sorted(bytes);
        }
    }

    /// What a frame of the user lane costs the link, if it does.
    pub(super) fn link_cost(frame: &Frame) -> u64 {
        match frame.header.kind {
            FrameKind::Tell | FrameKind::Ask => link_bytes(frame.body.len()),
            _free => 0,
        }
    }

    /// A peer raises a limit.
    pub(super) fn take_credit(&self, from: &NodeId, header: &FrameHeader) {
        let Some(spender) = self.spender(&from.name) else { return };
        let pool = match header.target {
            LINK => Some(Arc::clone(&spender.link)),
            target => lock(&spender.targets).get(&target).cloned(),
        };
        if let Some(pool) = pool {
            pool.raise(header.correlation);
        }
    }

    /// A peer has no credit and says how much it spent.
    pub(super) fn take_probe(&self, from: &NodeId, header: &FrameHeader) {
        if let Some(granter) = self.granter(&from.name) {
            granter.probed(header.target, header.correlation);
        }
    }

    /// Tells the peer how much was spent, behind all that was sent, unless it was told just now.
    fn probe(&self, peer: &NodeName, pool: &Pool) {
        let now = self.now();
        let mut granted = lock(&pool.granted);
        if granted.probed.is_some_and(|at| now.since(at) < PROBE_EVERY) {
            return;
        }
        granted.probed = Some(now);
        drop(granted);
        let spent = pool.spent.load(Relaxed);
        self.tell_credit(peer, FrameKind::Probe, Lane::User, pool.target, spent);
    }

    fn tell_credit(&self, to: &NodeName, kind: FrameKind, lane: Lane, target: u64, total: u64) {
        let header = FrameHeader { target, correlation: total, ..FrameHeader::new(kind) };
        // A loss is made up for by the next grant or probe.
        if let Err(error) = self.links().send(to, lane, &header, &[]) {
            tracing::trace!(%to, %error, ?kind, "credit was not told");
        }
    }
}
