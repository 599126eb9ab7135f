//! Proposes what has run out, at the node that leads the log; and that it has charge of the system.

use std::{sync::Arc, time::Duration};

use tokio::sync::oneshot;

use super::{Elections, Inner};
use crate::election::message::{Client, ClientKey, Epoch, Op, SYSTEM_MANAGER, Said};

impl Elections {
    /// Looks after the roles of the store that this node executes, until the node ends.
    pub(in crate::server) fn watch_over(&self) -> impl Future<Output = ()> + use<> + 'static {
        let (inner, desk) = (Arc::clone(&self.0), Arc::clone(self.desk()));
        async move {
            if let Some(pages) = inner.pages.get() {
                return pages.clone().look_out().await;
            }
            loop {
                let overdue = desk.read(|book, now| book.overdue(now));
                let now = inner.node.now();
                let wait = match overdue {
                    Some(overdue) => {
                        if !overdue.ops.is_empty() && inner.board.leads() {
                            inner.propose(overdue.ops);
                        }
                        overdue.next.since(now).clamp(WAIT_MIN, WAIT_MAX)
                    }
                    None => WAIT_MAX,
                };
                let _news_or_time = tokio::time::timeout(wait, inner.news.notified()).await;
            }
        }
    }
}

impl Elections {
    /// Takes the built-in role whenever this node comes to lead the log, until the node ends.
    pub(in crate::server) fn take_charge(&self) -> impl Future<Output = ()> + use<> + 'static {
        let inner = Arc::clone(&self.0);
        async move {
            loop {
                let wait = match !inner.board.leads() || inner.charge().await {
                    true => WAIT_MAX,
                    false => CHARGE_AGAIN,
                };
                let _turned_or_time = tokio::time::timeout(wait, inner.board.turned()).await;
            }
        }
    }
}

impl Inner {
    /// Says that this node has charge, unless that is known; whether it is so now.
    async fn charge(&self) -> bool {
        let known = self.desk.read(|book, now| book.seen(SYSTEM_MANAGER, now)).flatten();
        let key = ClientKey { service: self.nonce, number: 0 };
        let held = known.as_ref().and_then(|view| view.holder.as_ref());
        if held.is_some_and(|holder| holder.client.key == key) {
            return true;
        }
        let node = self.me.name.to_string();
        let client = Client { key, name: node.clone(), node };
        let charge = Op::Charge { client, after: known.map_or(Epoch(0), |view| view.epoch) };
        let (answer, answered) = oneshot::channel();
        let done = Box::new(move |said| drop(answer.send(said)));
        self.log.change(vec![charge], None, PROPOSAL, done);
        // Refused, there is a newer epoch, which is learnt soon.
        matches!(answered.await, Ok(Ok(said)) if matches!(said[..], [Said::Granted(_)]))
    }

    /// Each names what it counted from, so it does nothing if it comes late.
    fn propose(&self, ops: Vec<Op>) {
        self.submit(ops, PROPOSAL, |said| {
            if let Err(error) = said {
                tracing::debug!(%error, "roles that ran out are proposed again");
            }
        });
    }
}

/// Nothing runs out more finely than this.
const WAIT_MIN: Duration = Duration::from_millis(1);

/// Clocks of nodes may drift against timers.
const WAIT_MAX: Duration = Duration::from_secs(1);

/// Whoever has just come to lead may not have executed everything.
const CHARGE_AGAIN: Duration = Duration::from_millis(50);

/// It is proposed again soon.
const PROPOSAL: Duration = Duration::from_secs(1);
