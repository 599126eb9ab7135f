//! Proposes what has run out, at the node that leads the log.

use std::{sync::Arc, time::Duration};

use super::{Elections, Inner};

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

impl Inner {
    /// Each names what it counted from, so it does nothing if it comes late.
    fn propose(&self, ops: Vec<crate::election::message::Op>) {
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

/// It is proposed again soon.
const PROPOSAL: Duration = Duration::from_secs(1);
