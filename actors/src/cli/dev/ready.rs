//! When a cluster on this machine is ready: once writes are served.

use std::time::Duration;

use actix_rt::time::sleep;
use awc::http::Method;
use futures_util::future::join_all;
use synod_runtime::world::{Clock as _, RealClock};

use crate::{
    client::{Http, NoAnswer},
    server::config::{NodeConfig, NodeRole},
};

/// Returns when every node is up and every main serves reads and writes. After [`BUDGET`] one main
/// that does is enough; `note` hears once whom it waits, or did not wait, for.
pub(super) async fn wait(nodes: &[NodeConfig], note: impl Fn(&str)) {
    let http = Http::plain();
    let started = RealClock.now();
    let mut noted = false;
    loop {
        let answers = join_all(nodes.iter().map(|node| not_up(&http, node))).await;
        let is_late = RealClock.now().since(started) > BUDGET;
        let served = answers
            .iter()
            .zip(nodes)
            .any(|(why, node)| why.is_none() && node.role == NodeRole::Main);
        let missing: Vec<String> = answers.into_iter().flatten().collect();
        if missing.is_empty() {
            return;
        }
        if is_late && !noted {
            note(&format!("not everything is up yet: {}", missing.join(", ")));
            noted = true;
        }
        if is_late && served {
            return;
        }
        sleep(PAUSE).await;
    }
}

/// Why the node is not up, in a few words; `None` when it is.
async fn not_up(http: &Http, node: &NodeConfig) -> Option<String> {
    // An auxiliary never serves reads or writes.
    let path = match node.role {
        NodeRole::Main | NodeRole::Member => "/readyz",
        NodeRole::Auxiliary => "/healthz",
    };
    let at = node.listen.http.into();
    match http.request(Method::GET, &at, path, String::new(), ANSWER_TIME).await {
        Ok(answer) if answer.status.is_success() => None,
        Ok(answer) => Some(format!("{} says {}", node.name, answer.error_text())),
        Err(NoAnswer::NotSent(why) | NoAnswer::Lost(why)) => Some(format!("{}: {why}", node.name)),
    }
}

/// A cluster on one machine is up in a fraction of this.
const BUDGET: Duration = Duration::from_secs(5);

/// Between two rounds of asking.
const PAUSE: Duration = Duration::from_millis(25);

/// A node that takes longer to say whether it is ready is not.
const ANSWER_TIME: Duration = Duration::from_millis(500);
