//! Orders to whatever is supervised, and its reports back.
//!
//! An actor, a tree and a child on another node take the same orders and report the same way, so
//! that a tree need not know what its children are.

use std::{
    future::poll_fn,
    sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst},
    task::Poll,
};

use futures_util::task::AtomicWaker;
use tokio::sync::mpsc::UnboundedSender;

use super::Fault;
use crate::registry::watch::Reason;

/// What the outside knows of one supervised actor (or tree), and how it gives orders to it. From
/// any thread.
#[derive(Debug, Default)]
pub(crate) struct Control {
    orders: AtomicU8,
    pub(super) waker: AtomicWaker,
    pub(super) restarts: AtomicU64,
    pub(super) waiting: AtomicUsize,
}

/// Orders that were given and not undone; bits of one byte.
pub(super) type Orders = u8;

/// Its next turn panics (injected).
pub(super) const PANIC: Orders = 1;
/// It stops as if by itself (injected).
pub(super) const STOP: Orders = 1 << 1;
/// Begin (another life). Undoes an earlier halt.
pub(super) const BEGIN: Orders = 1 << 2;
/// End this life in order, and wait for the next order.
pub(super) const HALT: Orders = 1 << 3;
/// Work off the mailbox, then end for good.
pub(super) const FINISH: Orders = 1 << 4;
/// End for good.
pub(super) const RETIRE: Orders = 1 << 5;
/// With one of the ends above: no refusal any more, at once.
pub(super) const KILL: Orders = 1 << 6;

/// There is no way back from these.
pub(super) const FOR_GOOD: Orders = FINISH | RETIRE;

impl Control {
    /// Lets the actor fail at its next turn.
    pub(crate) fn inject(&self, fault: Fault) {
        self.give(match fault {
            Fault::Panic => PANIC,
            Fault::Stop => STOP,
        });
    }

    /// Ends the actor for good, whatever its policy; it cannot refuse.
    pub(crate) fn retire(&self) {
        self.give(RETIRE | KILL);
    }

    /// Ends it for good once its mailbox is empty; a tree, from the leaves up.
    pub(crate) fn finish(&self) {
        self.give(FINISH);
    }

    /// Enough of waiting for the end that was ordered.
    pub(crate) fn kill(&self) {
        self.give(KILL);
    }

    /// How often it was rebuilt.
    pub(crate) fn restarts(&self) -> u64 {
        self.restarts.load(Relaxed)
    }

    /// Messages that waited after its last turn.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(Relaxed)
    }

    pub(super) fn give(&self, order: Orders) {
        self.orders.fetch_or(order, SeqCst);
        self.waker.wake();
    }

    pub(super) fn begin(&self) {
        let undo = |orders| Some((orders & !(HALT | KILL)) | BEGIN);
        // It never refuses the change.
        let _ = self.orders.fetch_update(SeqCst, SeqCst, undo);
        self.waker.wake();
    }

    pub(super) fn orders(&self) -> Orders {
        self.orders.load(SeqCst)
    }

    /// Answers which of these were given, and takes them back.
    pub(super) fn take(&self, orders: Orders) -> Orders {
        if self.orders() & orders == 0 {
            return 0;
        }
        self.orders.fetch_and(!orders, SeqCst) & orders
    }

    /// Waits until the orders are others than those seen.
    pub(super) async fn changed(&self, seen: Orders) {
        poll_fn(|cx| {
            self.waker.register(cx.waker());
            if self.orders() == seen { Poll::Pending } else { Poll::Ready(()) }
        })
        .await;
    }
}

/// What a child tells its tree.
#[derive(Debug)]
pub(super) enum Report {
    /// It has begun.
    Up(usize),
    /// A life is over; it waits for orders.
    Down(usize, Reason),
    /// It is over for good.
    Gone(usize),
}

/// The way from a child to its tree. Unbounded, and never long: a child reports a life's begin and
/// end and then waits for an order.
#[derive(Debug, Clone)]
pub(crate) struct Manager {
    pub(super) index: usize,
    pub(super) reports: UnboundedSender<Report>,
}

impl Manager {
    // A tree that is gone listens no more; its children are ended by whoever ended it.

    pub(super) fn up(&self) {
        let _ = self.reports.send(Report::Up(self.index));
    }

    pub(super) fn down(&self, reason: Reason) {
        let _ = self.reports.send(Report::Down(self.index, reason));
    }

    pub(crate) fn gone(&self) {
        let _ = self.reports.send(Report::Gone(self.index));
    }
}
