//! What a peer may send here.

use std::{
    fmt,
    sync::{Arc, Mutex},
};

use rustc_hash::FxHashMap;

use super::{ACCOUNTS_LEN_MAX, EXCESS, LINK, TARGET_WINDOW, window};
use crate::{
    identity::NodeName,
    node::{WeakNode, lock},
    wire::FrameKind,
    world::network::Lane,
};

/// What this node has yet to do for one peer, over all its links.
pub(crate) struct Granter {
    pub(super) node: WeakNode,
    pub(super) peer: NodeName,
    pub(super) accounts: Mutex<Accounts>,
}

#[derive(Default)]
pub(super) struct Accounts {
    /// Which link of the peer this is. What came over an earlier one is not told as done.
    link: u64,
    pub(super) by_target: FxHashMap<u64, Account>,
}

#[derive(Default)]
pub(super) struct Account {
    /// Taken and not done yet, over all links (4.).
    open: u64,
    /// Of the present link, and what it was when the spender was last told.
    done: u64,
    told: u64,
}

impl Granter {
    /// Another link is up, or none.
    pub(super) fn link_changed(&self) {
        let mut accounts = lock(&self.accounts);
        accounts.link += 1;
        accounts.by_target.retain(|_, account| account.open > 0);
        for account in accounts.by_target.values_mut() {
            (account.done, account.told) = (0, 0);
        }
    }

    /// Whether a frame may be taken for `target` (4.); then it is open, and the answer is the link
    /// it came over.
    pub(super) fn take(&self, target: u64, cost: u64) -> Option<u64> {
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
    pub(super) fn probed(&self, target: u64, spent: u64) {
        let mut accounts = lock(&self.accounts);
        let account = accounts.by_target.entry(target).or_default();
        account.done = account.done.max(spent.saturating_sub(account.open));
        account.told = account.done;
        let limit = account.done + window(target);
        drop(accounts);
        self.grant(target, limit);
    }

    /// Bytes of the link were sorted.
    pub(super) fn sorted(&self, bytes: u64) {
        let mut accounts = lock(&self.accounts);
        let link = accounts.link;
        accounts.by_target.entry(LINK).or_default();
        drop(accounts);
        self.done(LINK, bytes, link);
    }

    fn grant(&self, target: u64, limit: u64) {
        if let Some(node) = self.node.upgrade() {
            node.tell_credit(&self.peer, FrameKind::Credit, Lane::Control, target, limit);
        }
    }
}

/// Messages that were taken from a peer and are not done yet: dropping it says that they are.
#[derive(Default)]
#[doc(hidden)]
pub struct Debt {
    pub(super) granter: Option<Arc<Granter>>,
    pub(super) link: u64,
    pub(super) target: u64,
    pub(super) units: u64,
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

impl fmt::Debug for Debt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Debt({})", self.units)
    }
}
