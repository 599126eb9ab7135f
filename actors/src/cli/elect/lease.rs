//! Taking, renewing and giving up a role over HTTP, at whichever node answers.

use std::{cell::Cell, time::Duration};

use actix_rt::time::{sleep, timeout};
use awc::http::{Method, StatusCode};
use serde_json::{Value, json};
use synod_runtime::{
    identity::NodeName,
    world::{Clock as _, Instant, RealClock},
};

use crate::{
    cli::{client::Cluster, roles::path},
    client::{Answer, ClientNode, NoAnswer},
};

/// A role that is ours.
#[derive(Debug, Clone)]
pub(super) struct Lease {
    pub(super) role: String,
    /// The name we hold it by; nobody else's.
    pub(super) holder: String,
    /// The node that answers us.
    pub(super) node: NodeName,
    pub(super) epoch: u64,
    /// How long it lasts from each renewal.
    pub(super) length: Duration,
    /// Nobody else leads before this moment.
    pub(super) until: Instant,
}

/// What became of a request.
#[derive(Debug)]
pub(super) enum Asked<T> {
    /// Done.
    Good(T),
    /// Somebody else leads, or nobody.
    Held(String),
    /// What was asked can never be granted.
    Wrong(String),
    /// Nobody says, for now.
    Nobody(String),
    /// A node that took the question has no answer to it in the time one waits: of a role that
    /// somebody holds that is as it should be.
    Late(String),
}

/// Stands for a role until somebody has it: we or another.
pub(super) async fn stand(
    cluster: &Cluster,
    node: &ClientNode,
    role: &str,
    holder: &str,
    length: Duration,
) -> Asked<Lease> {
    let lease = format!("{}ms", length.as_millis());
    let body = json!({"holder": holder, "lease": lease, "wait": true});
    match put(cluster, node, role, &body, STAND_PATIENCE).await {
        Asked::Good((epoch, until)) => Asked::Good(Lease {
            role: role.to_owned(),
            holder: holder.to_owned(),
            node: node.name.clone(),
            epoch,
            length,
            until,
        }),
        Asked::Held(why) => Asked::Held(why),
        Asked::Wrong(why) => Asked::Wrong(why),
        Asked::Nobody(why) => Asked::Nobody(why),
        Asked::Late(why) => Asked::Late(why),
    }
}

/// Waits until a node at which we stand is stopped or cut off, which its silence alone tells: it is
/// asked again and again, so that who stands is at another node before the lease is over. `heard` is
/// when any node said last that it serves.
pub(super) async fn silence(
    cluster: &Cluster,
    node: &ClientNode,
    length: Duration,
    heard: &Cell<Instant>,
) -> String {
    let (period, patience) = (period(length).min(LOOK_MAX), (length / 2).min(SILENCE_MAX));
    let mut serves = RealClock.now();
    loop {
        sleep(period).await;
        let asked = cluster.ask(node, Method::GET, "/readyz", String::new(), patience);
        match timeout(patience, asked).await {
            Ok(Ok(answer)) if answer.status.is_success() => {
                serves = RealClock.now();
                heard.set(serves);
            }
            // It may be electing a leader, as the others would be.
            Ok(Ok(_)) if RealClock.now().since(serves) < patience.max(READY_MIN) => {}
            Ok(Ok(answer)) => return answer.error_text(),
            Ok(Err(NoAnswer::NotSent(why) | NoAnswer::Lost(why))) => return why,
            Err(_elapsed) => return format!("no answer in {patience:?}"),
        }
    }
}

/// Renews a lease at one node after the other until one did, or the lease is over.
pub(super) async fn renew(
    cluster: &Cluster,
    lease: &Lease,
    only: Option<&NodeName>,
) -> Asked<Lease> {
    let body = json!({"holder": lease.holder, "epoch": lease.epoch});
    let mut last = String::from("no node is up");
    let mut nodes: Vec<&ClientNode> = cluster.servers(only).collect();
    // The one that answered last comes first.
    nodes.sort_by_key(|node| node.name != lease.node);
    for node in nodes.iter().cycle() {
        if RealClock.now() >= lease.until {
            break;
        }
        match put(cluster, node, &lease.role, &body, period(lease.length)).await {
            Asked::Good((_, until)) => {
                let node = node.name.clone();
                return Asked::Good(Lease { node, until, ..lease.clone() });
            }
            // A node that refuses us says nothing of the lease.
            Asked::Nobody(why) | Asked::Wrong(why) | Asked::Late(why) => last = why,
            Asked::Held(why) => return Asked::Held(why),
        }
        sleep(PAUSE).await;
    }
    Asked::Nobody(last)
}

/// Gives a role up whose program is gone.
pub(super) async fn resign(cluster: &Cluster, lease: &Lease) -> Result<(), String> {
    let mut nodes: Vec<&ClientNode> = cluster.servers(None).collect();
    nodes.sort_by_key(|node| node.name != lease.node);
    let mut last = String::from("no node is up");
    for node in nodes {
        match let_go(cluster, node, &lease.role, &lease.holder, Some(lease.epoch)).await {
            Ok(()) => return Ok(()),
            Err(why) => last = why,
        }
    }
    Err(last)
}

/// Gives up, at one node, what `holder` has of a role, in any epoch if none is given.
pub(super) async fn let_go(
    cluster: &Cluster,
    node: &ClientNode,
    role: &str,
    holder: &str,
    epoch: Option<u64>,
) -> Result<(), String> {
    let role = path(role).map_err(|failure| failure.to_string())?;
    let epoch = epoch.map_or_else(String::new, |epoch| format!("&epoch={epoch}"));
    let path = format!("{role}/lease?holder={holder}{epoch}");
    match cluster.ask(node, Method::DELETE, &path, String::new(), RESIGN_PATIENCE).await {
        Ok(answer) if answer.status.is_success() => Ok(()),
        // Somebody else leads already, or nobody.
        Ok(answer) if answer.status == StatusCode::CONFLICT => Ok(()),
        Ok(answer) => Err(answer.error_text()),
        Err(NoAnswer::NotSent(why) | NoAnswer::Lost(why)) => Err(why),
    }
}

/// How often a lease is renewed.
pub(super) fn period(length: Duration) -> Duration {
    length / RENEWALS
}

/// The epoch and the end of the lease.
async fn put(
    cluster: &Cluster,
    node: &ClientNode,
    role: &str,
    body: &Value,
    patience: Duration,
) -> Asked<(u64, Instant)> {
    let path = match path(role) {
        Ok(path) => format!("{path}/lease"),
        Err(failure) => return Asked::Wrong(failure.to_string()),
    };
    // The lease counts from here: whatever the network takes is on our side.
    let sent = RealClock.now();
    let asking = cluster.ask(node, Method::PUT, &path, body.to_string(), patience);
    // A verdict that comes later is of no use: there are other nodes.
    let at = format!("{} at {}", node.name, node.http);
    match timeout(patience, asking).await {
        Ok(Ok(answer)) => read(&answer, sent, &node.name),
        Ok(Err(NoAnswer::NotSent(why) | NoAnswer::Lost(why))) => {
            Asked::Nobody(format!("{at}: {why}"))
        }
        Err(_elapsed) => Asked::Late(format!("{at}: no answer in {patience:?}")),
    }
}

fn read(answer: &Answer, sent: Instant, node: &NodeName) -> Asked<(u64, Instant)> {
    let text = || format!("{node} says: {}", answer.error_text());
    if answer.status.is_success() {
        let document: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let (epoch, left) = (document["epoch"].as_u64(), document["expires_in_ms"].as_u64());
        return match (epoch, left) {
            (Some(epoch), Some(left)) => Asked::Good((epoch, sent + Duration::from_millis(left))),
            _ => Asked::Wrong(format!("{node} answers with no lease")),
        };
    }
    match answer.status {
        StatusCode::CONFLICT => Asked::Held(text()),
        StatusCode::BAD_REQUEST
        | StatusCode::UNAUTHORIZED
        | StatusCode::FORBIDDEN
        | StatusCode::NOT_FOUND => Asked::Wrong(text()),
        // Also 408: a node that was stopped says so of what had come meanwhile.
        _ => Asked::Nobody(text()),
    }
}

/// Renewals in a lease: two may get lost before its program is asked to end.
const RENEWALS: u32 = 5;

/// Whoever stands asks another node after this time: the first may be stopped.
const STAND_PATIENCE: Duration = Duration::from_secs(5);

/// How seldom and how patiently a node is looked at where one stands for a long lease.
const LOOK_MAX: Duration = Duration::from_secs(1);
const SILENCE_MAX: Duration = STAND_PATIENCE;

/// Longer than a fail-over of the log: whoever leaves a node for less is the later for it.
const READY_MIN: Duration = Duration::from_secs(1);

/// Between two nodes: a fail-over takes a few of these.
const PAUSE: Duration = Duration::from_millis(20);

/// Resigning only saves others the rest of the lease.
const RESIGN_PATIENCE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn answer(status: u16, body: &'static str) -> Asked<(u64, Instant)> {
        let status = StatusCode::from_u16(status).unwrap();
        let answer = Answer { status, body: Bytes::from_static(body.as_bytes()) };
        read(&answer, Instant::from_nanos(5), &"a".parse().unwrap())
    }

    #[test]
    fn a_lease_counts_from_when_it_was_asked_for() {
        let good = r#"{"leader":true,"epoch":17,"expires_in_ms":2}"#;
        let Asked::Good((epoch, until)) = answer(200, good) else { panic!() };
        assert_eq!((epoch, until), (17, Instant::from_nanos(2_000_005)));
        assert!(matches!(answer(200, "{}"), Asked::Wrong(_)));
    }

    #[test]
    fn only_a_conflict_ends_a_lease_and_only_a_wrong_request_is_given_up() {
        let Asked::Held(why) = answer(409, r#"{"error":"b leads"}"#) else { panic!() };
        assert_eq!(why, "a says: b leads");
        assert!(matches!(answer(400, ""), Asked::Wrong(_)));
        for status in [408, 429, 503, 504] {
            assert!(matches!(answer(status, ""), Asked::Nobody(_)), "{status}");
        }
    }
}
