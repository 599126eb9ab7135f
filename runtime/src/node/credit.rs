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

mod granting;
mod spending;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, atomic::Ordering::Relaxed},
    time::Duration,
};

pub use self::granting::Debt;
pub(crate) use self::spending::Allowance;
use self::{
    granting::Granter,
    spending::{Pool, Spender},
};
use super::{Node, WeakNode, lock};
use crate::{
    address::SendError,
    identity::{NodeId, NodeName},
    registry::NAMES_LEN_MAX,
    wire::{Frame, FrameHeader, FrameKind, HEADER_BYTES},
    world::network::Lane,
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

fn window(target: u64) -> u64 {
    if target == LINK { LINK_WINDOW } else { TARGET_WINDOW }
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
        match header.target {
            LINK => spender.link.raise(header.correlation),
            target => {
                let pool = lock(&spender.targets).get(&target).cloned();
                pool.inspect(|pool| pool.raise(header.correlation));
            }
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
