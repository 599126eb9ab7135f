//! How a node leaves: see [`Node::drain`].

use std::{sync::atomic::Ordering::SeqCst, time::Duration};

use futures_util::future::join_all;

use super::{Node, lock};
use crate::world::Instant;

/// How often the asks that are still served are counted: a leaving node has little else to do.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// The goodbye may overtake what other lanes still carry; a node's last answers get this long to
/// leave first.
const FLUSH: Duration = Duration::from_millis(50);

/// A goodbye that was not answered by a hang-up in this time is on its way for good.
const GOODBYE: Duration = Duration::from_millis(200);

impl Node {
    /// Leaves the cluster in good order, within a little more than the time given:
    ///
    /// 1. leaves all groups, and refuses what other nodes send to registered actors, as *not run*
    ///    ([`SendError::Leaving`](crate::address::SendError::Leaving)); roles go on;
    /// 2. finishes the asks it serves, for half of the time at most;
    /// 3. stops the supervision trees from the leaves up, then all other supervised actors; each
    ///    works off its mailbox first; what has not ended by then is dropped;
    /// 4. gives its names back, says goodbye, and stops as by [`Node::shutdown`].
    ///
    /// Peers hear [`PeerEvent::Left`](super::PeerEvent::Left), not `Down`, and what they watch here
    /// ends as `Stopped`, `Unregistered` or `NodeLeft`. Answers whether everything finished by itself.
    ///
    /// To be called where local tasks can be spawned, and not by an actor that is to end by it.
    ///
    /// ```
    #[doc = include_str!("../../docs/examples/till.txt")]
    /// let (running, finished) =
    ///     tokio::join!(till.send(Pay(5)), b.drain(Duration::from_secs(10)));
    /// assert!(finished && running != Err(SendError::Closed), "answered or refused, never cut off");
    /// assert!(a.lookup::<Till>("till").is_err());
    /// # });
    /// ```
    pub async fn drain(&self, within: Duration) -> bool {
        self.0.draining.store(true, SeqCst);
        tracing::info!(node = %self.id(), ?within, "leaving");
        self.0.names.leave_all_groups();
        self.renamed();
        let (half, until) = (self.now() + within / 2, self.now() + within);
        while self.0.asks.serving() > 0 && self.now() < half {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        let mut finished = self.0.asks.serving() == 0;
        let roots: Vec<_> = lock(&self.0.roots).iter().cloned().collect();
        finished &= self.finish_all(roots, until).await;
        finished &= self.finish_all(self.0.names.spawned_names(), until).await;
        self.0.names.unbind_all();
        self.renamed();
        tokio::time::sleep(FLUSH).await;
        self.links().leave();
        let gone = async {
            while !self.peers_up().is_empty() {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        // Whoever does not answer hears it from the network.
        let _ = tokio::time::timeout(GOODBYE, gone).await;
        self.shutdown();
        finished
    }

    /// Whether this node is leaving.
    pub fn is_draining(&self) -> bool {
        self.0.draining.load(SeqCst)
    }

    async fn finish_all(&self, names: Vec<String>, until: Instant) -> bool {
        let ends = names.into_iter().map(|name| self.finish_one(name, until));
        join_all(ends).await.into_iter().all(|finished| finished)
    }

    /// Lets one actor or tree finish; at the deadline ends it.
    async fn finish_one(&self, name: String, until: Instant) -> bool {
        let Some(control) = self.0.names.control(&name) else { return true };
        let mut end = self.watch_name(self.id(), &name);
        control.finish();
        let left = until.since(self.now());
        let finished = tokio::time::timeout(left, &mut end).await.is_ok();
        if !finished {
            tracing::warn!(actor = name, "did not finish in time");
            control.retire();
            // Only an arbiter that is stuck does not even drop its actors.
            let _ = tokio::time::timeout(GOODBYE, end).await;
        }
        finished
    }
}
