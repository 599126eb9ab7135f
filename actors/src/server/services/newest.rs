//! Who has the newest checkpoint: asked by whoever is to begin, where a service wants that.
//!
//! Of two secondaries the one of the lower name is next (the rank is decided before anybody dies). But
//! it may have missed the last checkpoints, and another not. So whoever comes to lead asks all that
//! stand beside it, and leaves the service to the one that has newer ones. It stands last then for as
//! long as the lease lasts, and if it comes to lead again in that time it begins with what it has.

use std::{
    sync::{Arc, Mutex, Weak},
    time::Duration,
};

use futures_util::future::join_all;
use synod_runtime::{
    address::SendError,
    identity::{NodeId, NodeName},
    node::Node,
    registry::{Binding, Deliver},
    wire::{Frame, name_hash},
    world::network::Lane,
};

use super::{Inner, Services};
use crate::{
    election::{
        message::Epoch,
        store::{decode, encode},
    },
    server::site::lock,
};

/// Where this node says which checkpoints it has.
#[derive(Default)]
pub(super) struct Newest {
    binding: Mutex<Option<Binding>>,
}

/// The newest checkpoint of each of some services, in the order in which they were asked about: its
/// epoch and number.
type Ages = Vec<(Epoch, u64)>;

impl Newest {
    /// Other nodes may ask.
    pub(super) fn listen(services: &Services) {
        let door = Door(Arc::downgrade(&services.0));
        match services.0.node.bind(&target(services.name()), Arc::new(door)) {
            Ok(binding) => *lock(&services.0.newest.binding) = Some(binding),
            Err(error) => tracing::error!(%error, "nobody can ask which checkpoints are here"),
        }
    }
}

impl Services {
    /// Whether any node that stands for the role of `root` has newer checkpoints than this one of
    /// these services, all of which have that role. Who does not answer soon has none.
    pub(super) async fn is_behind(&self, root: &str, services: &[String]) -> bool {
        let own = self.ages(services);
        let others = self.standing(root).into_iter().filter(|node| node != self.me());
        let others: Vec<NodeName> = others.filter_map(|node| node.parse().ok()).collect();
        let answers = others.iter().map(|node| self.ages_at(node, services));
        let newer = |(node, ages): (&NodeName, Option<Ages>)| {
            let newer = ages.is_some_and(|ages| ages.len() == own.len() && ages > own);
            newer.then(|| tracing::info!(root, %node, "has newer checkpoints"))
        };
        others.iter().zip(join_all(answers).await).filter_map(newer).next().is_some()
    }

    fn ages(&self, services: &[String]) -> Ages {
        services.iter().map(|service| self.0.checkpoints.has(service)).collect()
    }

    async fn ages_at(&self, node: &NodeName, services: &[String]) -> Option<Ages> {
        let (body, at) = (encode(services), name_hash(&target(node)));
        let asked = self.0.node.ask(node, at, ASK, Lane::Control, body, WITHIN).await;
        decode(&asked.ok()?).ok()
    }
}

/// Where other nodes ask.
struct Door(Weak<Inner>);

impl Deliver for Door {
    fn deliver(&self, from: &NodeId, batch: Vec<Frame>, node: &Node) {
        for frame in batch {
            let asked = decode::<Vec<String>>(&frame.body).ok();
            let asked = asked.filter(|services| services.len() <= ASKED_MAX);
            let (Some(inner), Some(asked)) = (self.0.upgrade(), asked) else {
                node.refuse(from, &frame.header, &SendError::Codec);
                continue;
            };
            let ages = Services(inner).ages(&asked);
            node.serve(from, &frame.header, async move { Ok(encode(&ages)) });
        }
    }

    fn type_name(&self) -> &'static str {
        "newest checkpoints"
    }

    fn mailbox_len(&self) -> usize {
        0
    }
}

fn target(node: &NodeName) -> String {
    format!("services/newest@{node}")
}

/// Number of the message that asks.
const ASK: u64 = 1;

/// A takeover waits so long at most for a node that stands and is dead.
const WITHIN: Duration = Duration::from_millis(100);

/// No role has more services.
const ASKED_MAX: usize = 4_096;
