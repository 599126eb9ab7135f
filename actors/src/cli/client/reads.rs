//! Questions that change nothing: they have no outcome, so any node may be asked, and several at once.

use std::{collections::VecDeque, time::Duration};

use actix_rt::time::{sleep, timeout};
use awc::http::Method;
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use serde_json::Value;
use synod_runtime::{
    identity::NodeName,
    world::{Clock as _, RealClock},
};

use super::{Cluster, Exit, Failure, PAUSE};
use crate::client::{Answer, ClientNode, NoAnswer};

impl Cluster {
    /// The final answer of any node that serves clients to a request that changes nothing.
    pub(crate) async fn read(
        &self,
        method: Method,
        path: &str,
        body: String,
    ) -> Result<Answer, Failure> {
        let ask = async |node: &ClientNode, patience| {
            let (method, body) = (method.clone(), body.clone());
            let answer = self.http.request(method, &node.http, path, body, patience).await;
            let at = format!("{} at {}", node.name, node.http);
            match answer {
                Ok(answer) => match answer.outcome() {
                    Err(Exit::NotApplied | Exit::Unknown) => {
                        Err(format!("{} says: {}", node.name, answer.error_text()))
                    }
                    _ => Ok(answer),
                },
                Err(NoAnswer::NotSent(why) | NoAnswer::Lost(why)) => Err(format!("{at}: {why}")),
            }
        };
        self.first(self.servers(None), ask).await
    }

    /// As [`Cluster::get`], of a node that serves clients: what is there an auxiliary does not know.
    pub(crate) async fn get_known(&self, path: &str) -> Result<(NodeName, Value), Failure> {
        let ask = async |node: &ClientNode, _| self.get_one(node, path).await;
        self.first(self.servers(None), ask).await
    }

    /// The first good answer. A node that has not answered after its share of the time is waited for
    /// still, but the next is asked too; one that failed is asked again.
    async fn first<'a, T>(
        &self,
        nodes: impl Iterator<Item = &'a ClientNode>,
        ask: impl AsyncFn(&'a ClientNode, Duration) -> Result<T, String>,
    ) -> Result<T, Failure> {
        let mut waiting: VecDeque<_> = nodes.collect();
        if waiting.is_empty() {
            return Err(self.nobody("the client file names none that serves clients"));
        }
        let mut last = "no answer in time".to_owned();
        let until = RealClock.now() + self.patience;
        let turn = async |node, pause| {
            sleep(pause).await;
            // A little less than there is, so that a node's own verdict still arrives.
            let left = until.since(RealClock.now());
            (node, ask(node, left - left / VERDICT_PART).await)
        };
        let asking = async {
            let mut under_way = FuturesUnordered::new();
            loop {
                if let Some(node) = waiting.pop_front() {
                    under_way.push(turn(node, Duration::ZERO));
                }
                tokio::select! {
                    biased;
                    Some((node, answer)) = under_way.next() => match answer {
                        Ok(good) => return good,
                        Err(why) => {
                            last = why;
                            under_way.push(turn(node, PAUSE));
                        }
                    },
                    () = sleep(self.share(0)), if !waiting.is_empty() => {}
                }
            }
        };
        let answered = timeout(self.patience, asking).await;
        answered.map_err(|_late| self.nobody(&last))
    }
}

/// This part of the time is left for a verdict to arrive.
const VERDICT_PART: u32 = 10;
