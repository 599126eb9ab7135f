//! Asking a running cluster over HTTP, and saying honestly what became of the question.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    time::Duration,
};

use actix_rt::time::{sleep, timeout};
use awc::http::{Method, StatusCode};
use bytes::Bytes;
use futures_util::future::{FutureExt as _, join_all, select_ok};
use serde_json::Value;
use synod_runtime::{
    identity::NodeName,
    world::{Clock as _, RealClock},
};

mod download;
mod reads;

use self::download::no_more;
use super::{
    args::ClientArgs,
    failure::{Exit, Failure, Fate},
};
use crate::{
    client::{Answer, ClientFile, ClientNode, Feed, Http, NoAnswer},
    server::config::NodeRole,
};

/// The nodes of one cluster, and how long to wait for them.
pub(crate) struct Cluster {
    file: ClientFile,
    shown: String,
    patience: Duration,
    http: Http,
}

impl Cluster {
    pub(crate) fn open(args: &ClientArgs) -> Result<Self, Failure> {
        let file = ClientFile::load(&args.cluster)?;
        let shown = args.cluster.display().to_string();
        let http = file.http(&args.cluster)?;
        Ok(Self { file, shown, patience: args.timeout, http })
    }

    /// The first good answer of any node to `GET path`; asks all at once, and again until the
    /// time is over, so that one node that hangs delays nobody.
    pub(crate) async fn get(&self, path: &str) -> Result<(NodeName, Value), Failure> {
        let mut last = String::from("no node is up");
        let asking = async {
            loop {
                let all = self.file.nodes.iter().map(|node| {
                    async move {
                        if node.role == NodeRole::Auxiliary {
                            sleep(AUXILIARY_PAUSE).await;
                        }
                        self.get_one(node, path).await
                    }
                    .boxed_local()
                });
                match select_ok(all).await {
                    Ok((good, _rest)) => return good,
                    Err(why) => last = why,
                }
                sleep(PAUSE).await;
            }
        };
        match timeout(self.patience, asking).await {
            Ok(good) => Ok(good),
            Err(_elapsed) => Err(self.nobody(&last)),
        }
    }

    /// As [`Cluster::send`], with POST.
    pub(crate) async fn post(&self, path: &str, body: String) -> Result<Answer, Failure> {
        self.send(Method::POST, path, body).await
    }

    /// Sends `body` to one node after the other until one took it. A request that may have
    /// arrived is never repeated.
    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        body: String,
    ) -> Result<Answer, Failure> {
        let mut last = String::from("no node is up");
        let mut nodes: VecDeque<&ClientNode> =
            self.file.nodes.iter().filter(|node| node.role != NodeRole::Auxiliary).collect();
        let until = RealClock.now() + self.patience;
        while let Some(node) = nodes.pop_front() {
            nodes.push_back(node);
            let left = until.since(RealClock.now());
            if left.is_zero() {
                break;
            }
            let sent = self.http.request(method.clone(), &node.http, path, body.clone(), left);
            match sent.await {
                // Another one may have a leader, or room on its disk.
                Ok(answer) if NOT_HERE.contains(&answer.status) => {
                    last = format!("{} says: {}", node.name, answer.error_text());
                }
                Ok(answer) => return Ok(answer),
                Err(NoAnswer::NotSent(why)) => {
                    last = format!("{} at {}: {why}", node.name, node.http);
                }
                Err(NoAnswer::Lost(why)) => {
                    let why = format!("outcome unknown, {} at {}: {why}", node.name, node.http);
                    let hint = "ask what the state is before repeating it";
                    return Err(Failure::new(Exit::Unknown, &self.shown, why, hint));
                }
            }
            sleep(PAUSE).await;
        }
        Err(self.nobody(&last))
    }

    /// How long one node may be silent in a round over all of them: less than there is, so that one
    /// that hangs leaves time for the others, and with each round twice as long, for one that is
    /// slow.
    pub(crate) fn share(&self, round: usize) -> Duration {
        share(self.patience, self.servers(None).count(), round)
    }

    /// The nodes that serve clients; only that one, if one is named.
    pub(crate) fn servers<'a>(
        &'a self,
        only: Option<&'a NodeName>,
    ) -> impl Iterator<Item = &'a ClientNode> {
        let serves = |node: &&ClientNode| node.role != NodeRole::Auxiliary;
        let wanted = move |node: &&ClientNode| only.is_none_or(|only| *only == node.name);
        self.file.nodes.iter().filter(serves).filter(wanted)
    }

    /// For requests to one node.
    pub(crate) const fn http(&self) -> &Http {
        &self.http
    }

    /// One request to one node.
    pub(crate) async fn ask(
        &self,
        node: &ClientNode,
        method: Method,
        path: &str,
        body: String,
        patience: Duration,
    ) -> Result<Answer, NoAnswer> {
        self.http.request(method, &node.http, path, body, patience).await
    }

    /// Server-sent events of any node that serves them, behind the one of that number: the node, and
    /// what comes. `what` is for errors.
    pub(crate) async fn feed(
        &self,
        what: &str,
        path: &str,
        last: Option<&str>,
    ) -> Result<(NodeName, Feed), Failure> {
        let (mut why, mut round) = (String::from("no node is up"), 0);
        let until = RealClock.now() + self.patience;
        loop {
            for node in self.servers(None) {
                let opened = self.http.feed(&node.http, path, last, self.patience);
                let opened = timeout(self.share(round), opened).await;
                match opened.unwrap_or_else(|_| Err("no answer in time".to_owned())) {
                    Ok(Ok(feed)) => return Ok((node.name.clone(), feed)),
                    Ok(Err(answer)) if answer.status.is_client_error() => {
                        let what = format!("{what} at {}", node.name);
                        let hint = "see --help";
                        let failure = Failure::failed(what, answer.error_text(), hint);
                        return Err(failure.with(Fate::NotApplied));
                    }
                    Ok(Err(answer)) => why = format!("{} says: {}", node.name, answer.error_text()),
                    Err(error) => why = format!("{} at {}: {error}", node.name, node.http),
                }
            }
            if RealClock.now() >= until {
                return Err(self.nobody(&why));
            }
            round += 1;
            sleep(PAUSE).await;
        }
    }

    /// Sends `body` to one node after the other until one gave a final answer: only for what is
    /// taken once, however often it is sent.
    pub(crate) async fn post_again(&self, path: &str, body: Bytes) -> Result<Bytes, Failure> {
        let (mut last, mut sent) = (String::from("no node is up"), false);
        let until = RealClock.now() + self.patience;
        let asked: Vec<_> =
            self.file.nodes.iter().filter(|node| node.role != NodeRole::Auxiliary).collect();
        for (turn, node) in asked.iter().cycle().enumerate() {
            let share = self.share(turn / asked.len());
            match self.post_while_it_lives(node, path, body.clone(), share).await {
                Ok(answer) if answer.status.is_success() => return Ok(answer.body),
                Ok(answer) => last = format!("{} says: {}", node.name, answer.error_text()),
                Err(NoAnswer::NotSent(why)) => {
                    last = format!("{} at {}: {why}", node.name, node.http);
                }
                Err(NoAnswer::Lost(why)) => {
                    (last, sent) = (format!("{} at {}: {why}", node.name, node.http), true);
                }
            }
            if RealClock.now() >= until {
                break;
            }
            sleep(PAUSE).await;
        }
        if !sent {
            return Err(self.nobody(&last));
        }
        let why = format!("outcome unknown, {last}");
        Err(Failure::new(Exit::Unknown, &self.shown, why, "ask what the state is"))
    }

    /// As long as it takes, while `node` says anything: one that hangs is passed by.
    async fn post_while_it_lives(
        &self,
        node: &ClientNode,
        path: &str,
        body: Bytes,
        patience: Duration,
    ) -> Result<Answer, NoAnswer> {
        self.lives(node, patience).await.map_err(NoAnswer::NotSent)?;
        tokio::select! {
            biased;
            answer = self.http.post_packed(&node.http, path, body, DOWNLOAD_TIMEOUT) => answer,
            why = no_more(async || self.lives(node, patience).await, patience) => {
                Err(NoAnswer::Lost(why))
            }
        }
    }

    /// What every node says of itself at this moment; those that say nothing within a second are
    /// there without a document.
    pub(crate) async fn views(&self) -> BTreeMap<NodeName, Option<Value>> {
        self.each("/view").await
    }

    /// As [`Cluster::views`], for what stands at any path.
    pub(crate) async fn each(&self, path: &str) -> BTreeMap<NodeName, Option<Value>> {
        let all = self.file.nodes.iter().map(|node| async {
            let asked = timeout(VIEW_TIMEOUT, self.get_one(node, path)).await;
            let view = asked.ok().and_then(Result::ok).map(|(_, view)| view);
            (node.name.clone(), view)
        });
        join_all(all).await.into_iter().collect()
    }

    async fn get_one(&self, node: &ClientNode, path: &str) -> Result<(NodeName, Value), String> {
        let sent = self.http.request(Method::GET, &node.http, path, String::new(), self.patience);
        let answer = sent.await.map_err(|e| match e {
            NoAnswer::NotSent(why) | NoAnswer::Lost(why) => {
                format!("{} at {}: {why}", node.name, node.http)
            }
        })?;
        if !answer.status.is_success() {
            return Err(format!("{} says: {}", node.name, answer.error_text()));
        }
        match serde_json::from_slice(&answer.body) {
            Ok(document) => Ok((node.name.clone(), document)),
            Err(e) => Err(format!("{} answers with no JSON: {e}", node.name)),
        }
    }

    fn nobody(&self, last: &str) -> Failure {
        let why = format!("not applied, nobody served it in {:?} ({last})", self.patience);
        let hint = "see that the nodes run, or raise --timeout";
        Failure::new(Exit::NotApplied, &self.shown, why, hint)
    }
}

impl Answer {
    /// The word for its outcome, where it has one.
    fn said(&self) -> Option<String> {
        let json: Value = serde_json::from_slice(&self.body).ok()?;
        Some(json.get("outcome")?.as_str()?.to_owned())
    }

    /// The outcome this answer stands for; success is applied.
    pub(crate) fn outcome(&self) -> Result<(), Exit> {
        match (self.status, self.said().as_deref()) {
            (status, _) if status.is_success() => Ok(()),
            (StatusCode::SERVICE_UNAVAILABLE, _) => Err(Exit::NotApplied),
            (StatusCode::GATEWAY_TIMEOUT, _) | (_, Some("unknown")) => Err(Exit::Unknown),
            // Something broke in the middle of it.
            (status, None) if status.is_server_error() => Err(Exit::Unknown),
            _ => Err(Exit::Failed),
        }
    }

    /// The same, where it failed too.
    pub(crate) fn fate(&self) -> Fate {
        match (self.outcome(), self.said().as_deref()) {
            (Ok(()), _) | (Err(Exit::Failed), Some("applied")) => Fate::Applied,
            (Err(Exit::NotApplied), _) | (Err(Exit::Failed), Some("not_applied")) => {
                Fate::NotApplied
            }
            // What was wrong with the request kept it from everybody.
            (Err(Exit::Failed), None) if self.status.is_client_error() => Fate::NotApplied,
            (Err(_), _) => Fate::Unknown,
        }
    }

    /// The failure that a change of `what` was, with the words of its outcome.
    pub(crate) fn refusal(&self, exit: Exit, what: impl fmt::Display, hint: &str) -> Failure {
        let (fate, mut why) = (self.fate(), self.error_text());
        if !why.starts_with(&fate.to_string()) {
            why = format!("{fate}, {why}");
        }
        Failure::new(exit, what, why, hint).with(fate)
    }
}

fn share(patience: Duration, nodes: usize, round: usize) -> Duration {
    let nodes = u32::try_from(nodes).unwrap_or(u32::MAX);
    let rounds = u32::try_from(round).unwrap_or(u32::MAX);
    let first = (patience / nodes.saturating_add(1)).min(SHARE_MAX);
    first.saturating_mul(2_u32.saturating_pow(rounds)).min(patience)
}

/// Surely not applied by whom this was asked, and not for what was asked.
const NOT_HERE: [StatusCode; 2] =
    [StatusCode::SERVICE_UNAVAILABLE, StatusCode::INSUFFICIENT_STORAGE];

/// An auxiliary knows least, so the others get this head start.
const AUXILIARY_PAUSE: Duration = Duration::from_millis(150);

/// In the first round one node gets this long at most: longer than a fail-over takes.
const SHARE_MAX: Duration = Duration::from_secs(1);

/// Making or taking a large state takes its time.
const DOWNLOAD_TIMEOUT: Duration = Duration::from_secs(60);

/// Between two rounds over all nodes: a fail-over takes a few of these.
const PAUSE: Duration = Duration::from_millis(100);

/// A node that says nothing for this long is shown as saying nothing.
const VIEW_TIMEOUT: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_hangs_leaves_time_for_the_others_and_one_that_is_slow_gets_more() {
        let (ms, five) = (Duration::from_millis, Duration::from_secs(5));
        assert_eq!(
            [0, 1, 2, 3].map(|round| share(five, 2, round)),
            [1, 2, 4, 5].map(|s| ms(s * 1_000))
        );
        assert_eq!(share(ms(900), 2, 0), ms(300));
        assert_eq!((share(five, 0, 0), share(five, 3, usize::MAX)), (ms(1_000), five));
    }

    #[test]
    fn what_became_of_a_refused_request_is_what_the_answer_says() {
        let fate = |status: u16, body: &'static str| {
            let status = StatusCode::from_u16(status).unwrap();
            let answer = Answer { status, body: Bytes::from_static(body.as_bytes()) };
            (answer.outcome().err(), answer.fate())
        };
        let (failed, unknown) = (Some(Exit::Failed), Some(Exit::Unknown));
        for (status, body, expected) in [
            (200, "", (None, Fate::Applied)),
            (409, r#"{"outcome":"not_applied"}"#, (failed, Fate::NotApplied)),
            (404, "no such thing", (failed, Fate::NotApplied)),
            (500, r#"{"outcome":"applied"}"#, (failed, Fate::Applied)),
            (500, r#"{"outcome":"unknown"}"#, (unknown, Fate::Unknown)),
            (500, "broken", (unknown, Fate::Unknown)),
            (503, "", (Some(Exit::NotApplied), Fate::NotApplied)),
            (504, "", (unknown, Fate::Unknown)),
        ] {
            assert_eq!(fate(status, body), expected, "{status} {body}");
        }
    }
}
