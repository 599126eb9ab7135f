//! The end of a trial: nothing is wrong any more, so everything must be well.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use synod_runtime::identity::NodeName;

use super::{
    clients::{Clients, PATIENCE},
    cluster::Cluster,
    director::{Director, LIVENESS_MAX, LOOK},
    properties::{Property, Violation},
    record::AuxiliaryWork,
    witness::{Everything, Lists, NAME},
};
use crate::{
    consensus::message::NodeRole,
    message::RemoteMessage,
    replicated::{Consistency, Inquiry, Outcome, name_hash},
};

/// Lets every main do one last thing, waits until all is quiet, and asks every main for all it has.
pub(super) async fn play(director: &mut Director, clients: &Clients) {
    clients.stop();
    director.pass(LAST_CALLS).await;
    let mains = director.cluster.borrow().mains();
    let last: Vec<u64> = mains.iter().map(|main| clients.must(main)).collect();
    director.pass(PATIENCE + LOOK).await;
    for call in last {
        let mut record = director.record.open();
        if record.known(call).is_none_or(|call| call.applied.is_none()) {
            let what = format!("call {call} was not applied although nothing was wrong");
            record.found.push(Violation::new(Property::Liveness, what));
        }
    }
    until_quiet(director).await;
    for main in mains {
        match everything(director, &main).await {
            Ok(lists) => director.record.open().finals.push((main, lists)),
            Err(why) => {
                let what = format!("{main} does not tell what it holds: {why}");
                director.record.open().found.push(Violation::new(Property::Liveness, what));
            }
        }
    }
}

/// Waits until all mains have executed the same and all is well.
async fn until_quiet(director: &mut Director) {
    let until = director.sim.now() + LIVENESS_MAX;
    loop {
        let quiet = is_quiet(&director.cluster.borrow());
        match quiet {
            Ok(()) => break,
            Err(why) if director.sim.now() >= until => {
                director.describe();
                let what = format!("not quiet after {LIVENESS_MAX:?}: {why}");
                director.record.open().found.push(Violation::new(Property::Liveness, what));
                break;
            }
            Err(_) => director.pass(LOOK).await,
        }
    }
    // Once more, now that digests stand still.
    director.pass(LOOK).await;
}

fn is_quiet(cluster: &Cluster) -> Result<(), String> {
    cluster.is_whole()?;
    let position = |name: &NodeName| Some((name.clone(), cluster.core(name)?.reached().position));
    let positions: Vec<_> = cluster.mains().iter().filter_map(position).collect();
    match positions.windows(2).find(|pair| pair[0].1 != pair[1].1) {
        Some(pair) => Err(format!("positions differ: {pair:?}")),
        None => Ok(()),
    }
}

/// All that a main holds.
async fn everything(director: &mut Director, main: &NodeName) -> Result<Lists, String> {
    let submit = director.cluster.borrow().submit(main).ok_or("it does not run")?;
    let answer: Arc<Mutex<Option<Outcome>>> = Arc::default();
    let told = Arc::clone(&answer);
    submit.query(vec![Inquiry {
        actor: name_hash(NAME),
        function: name_hash(Everything::NAME),
        args: rmp_serde::to_vec_named(&Everything {}).expect("plain data encodes").into(),
        consistency: Consistency::Local,
        deadline: PATIENCE,
        done: Box::new(move |outcome| {
            *told.lock().unwrap_or_else(PoisonError::into_inner) = Some(outcome);
        }),
    }]);
    director.pass(Duration::from_millis(10)).await;
    let outcome = answer.lock().unwrap_or_else(PoisonError::into_inner).take();
    match outcome {
        Some(Outcome::Applied { reply, .. }) => {
            rmp_serde::from_slice(&reply).map_err(|error| error.to_string())
        }
        other => Err(format!("{other:?}")),
    }
}

/// What each auxiliary did so far: protocol messages, and bytes written.
pub(super) fn auxiliary_work(cluster: &Cluster) -> BTreeMap<NodeName, (u64, u64)> {
    let work = cluster.with_role(NodeRole::Auxiliary).into_iter().filter_map(|name| {
        let core = cluster.core(&name)?;
        let page = core.node().metrics().render();
        let messages = sample(&page, MESSAGES);
        Some((name, (messages, core.journal().stats().bytes)))
    });
    work.collect()
}

/// Notes what the auxiliaries did since `before`.
pub(super) fn compare_auxiliaries(director: &Director, before: &BTreeMap<NodeName, (u64, u64)>) {
    let now = auxiliary_work(&director.cluster.borrow());
    let work = now.into_iter().map(|(node, (messages, bytes))| {
        let (messages_before, bytes_before) = before.get(&node).copied().unwrap_or_default();
        AuxiliaryWork { node, messages: messages - messages_before, bytes: bytes - bytes_before }
    });
    director.record.open().auxiliaries = work.collect();
}

/// The value of one line of a page of metrics.
fn sample(page: &str, series: &str) -> u64 {
    let line = page.lines().find_map(|line| line.strip_prefix(series));
    line.and_then(|value| value.trim().parse().ok()).unwrap_or(0)
}

/// Protocol messages that an auxiliary got, signs of life apart.
const MESSAGES: &str = "synod_protocol_messages_received_total{role=\"acceptor\"}";

/// How long the cluster is left alone before it must do one last thing: clients end, and a role
/// that panicked while it was waiting to be rebuilt is rebuilt.
const LAST_CALLS: Duration = Duration::from_secs(12);
