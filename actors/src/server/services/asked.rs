//! Checkpoints that somebody asks for, and waits until those next in line have them: a program that
//! says nothing to its clients before that loses nothing it said when its node dies.

use std::{
    collections::BTreeMap,
    sync::{Mutex, Weak},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use synod_runtime::{
    address::SendError,
    identity::{NodeId, NodeName},
    node::Node,
    registry::{Binding, Deliver},
    wire::{Frame, name_hash},
    world::network::Lane,
};
use tokio::sync::{mpsc, oneshot};

use super::{Inner, ServiceError, Services};
use crate::{
    election::store::{decode, encode},
    management::message::Refusal,
    replicated::CallError,
    server::site::lock,
};

/// Where those who lead here are asked, by the service that the others are placed with.
#[derive(Default)]
pub(super) struct Askers {
    leading: Mutex<BTreeMap<String, mpsc::Sender<Asked>>>,
    binding: Mutex<Option<Binding>>,
}

/// A checkpoint of that service is asked for.
pub(super) struct Asked {
    pub(super) service: String,
    pub(super) answer: oneshot::Sender<Answer>,
}

/// Who has it; or why nobody can be told so.
pub(super) type Answer = Result<Vec<String>, Why>;

/// Why a checkpoint was not answered for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Why {
    /// None was passed on.
    NotTaken(String),
    /// One may have been passed on, or is still on its way.
    Unknown(String),
    /// Who was asked does not lead it: whoever asked knows an old primary, or it is just moving.
    NotLed,
}

impl Askers {
    /// From now on a primary is asked here, until what this answers is dropped.
    pub(super) fn open(&self, root: &str) -> mpsc::Receiver<Asked> {
        let (ask, asked) = mpsc::channel(ASKED_MAX);
        lock(&self.leading).insert(root.to_owned(), ask);
        asked
    }

    /// Other nodes may ask.
    pub(super) fn listen(services: &Services) {
        let door = Door(std::sync::Arc::downgrade(&services.0));
        match services.0.node.bind(&target(services.name()), std::sync::Arc::new(door)) {
            Ok(binding) => *lock(&services.0.askers.binding) = Some(binding),
            Err(error) => tracing::error!(%error, "checkpoints cannot be asked for here"),
        }
    }
}

impl Services {
    /// Takes a checkpoint of a service and waits until all its secondaries have it: whatever its
    /// program did before this was called is known to whoever takes over. Answers who has it.
    ///
    /// # Errors
    /// [`ServiceError::NoCheckpoint`] when it has no primary or no secondary, or could not be exported;
    /// [`ServiceError::Call`] when it is not known within four seconds whether they have it.
    pub async fn checkpoint(&self, service: &str) -> Result<Vec<String>, ServiceError> {
        let root = self.desk().read(|table| {
            let known = table.named(service).ok_or_else(|| Refusal::Unknown(service.to_owned()))?;
            if known.spec.checkpoint.is_none() {
                let why = match known.spec.actor {
                    true => "it is an actor of the program, which keeps its state by itself",
                    false => "it has no checkpoints; add it with --export and --import",
                };
                return Err(Refusal::Bad(format!("service {service}: {why}")));
            }
            Ok(table.root(service).to_owned())
        })?;
        let patience = self.0.node.now() + SETTLING;
        loop {
            self.elections().refresh(vec![super::role_of(&root)]).await;
            let answer = match self.primary_of(service, &root)? {
                node if node == *self.name() => self.ask_here(&root, service).await,
                node => self.ask_there(&node, service).await,
            };
            let why = match answer {
                Ok(nodes) => return Ok(nodes),
                // This node may only just have come back, and catch up.
                Err(Why::NotLed) if self.0.node.now() < patience => {
                    self.news(GLANCE).await;
                    continue;
                }
                Err(Why::NotLed) => {
                    "whom this node knows as its primary does not lead it".to_owned()
                }
                Err(Why::NotTaken(why)) => why,
                Err(Why::Unknown(why)) => {
                    let why = CallError::Unknown(format!("service {service}: {why}"));
                    return Err(ServiceError::Call(why));
                }
            };
            return Err(ServiceError::NoCheckpoint(format!("service {service}: {why}")));
        }
    }

    fn primary_of(&self, service: &str, root: &str) -> Result<NodeName, ServiceError> {
        let holder = self.role(root).and_then(|role| role.holder);
        let node = holder.and_then(|holder| holder.client.node.parse().ok());
        node.ok_or_else(|| {
            ServiceError::NoCheckpoint(format!("service {service} has no primary now"))
        })
    }

    async fn ask_here(&self, root: &str, service: &str) -> Answer {
        let (answer, answered) = oneshot::channel();
        let asked = Asked { service: service.to_owned(), answer };
        let ask = lock(&self.0.askers.leading).get(root).cloned();
        let ask = ask.filter(|ask| !ask.is_closed());
        let ask = ask.ok_or(Why::NotLed)?;
        let many = |_| Why::NotTaken(format!("{ASKED_MAX} checkpoints are asked for already"));
        ask.try_send(asked).map_err(many)?;
        match tokio::time::timeout(PATIENCE, answered).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(Why::Unknown("its program ended meanwhile".to_owned())),
            Err(_) => Err(Why::Unknown("its secondaries do not have it yet".to_owned())),
        }
    }

    async fn ask_there(&self, node: &NodeName, service: &str) -> Answer {
        let (body, at) = (encode(service), name_hash(&target(node)));
        let asked = self.0.node.ask(node, at, ASK, Lane::Control, body, PATIENCE + WAY).await;
        match asked {
            Ok(answer) => {
                decode(&answer).unwrap_or_else(|error| Err(Why::Unknown(error.to_string())))
            }
            Err(error @ (SendError::Unreachable | SendError::Overloaded)) => {
                Err(Why::NotTaken(format!("{node}: {error}")))
            }
            Err(error) => Err(Why::Unknown(format!("{node}: {error}"))),
        }
    }
}

/// Where other nodes ask.
struct Door(Weak<Inner>);

impl Deliver for Door {
    fn deliver(&self, from: &NodeId, batch: Vec<Frame>, node: &Node) {
        for frame in batch {
            let (Some(inner), Ok(service)) = (self.0.upgrade(), decode::<String>(&frame.body))
            else {
                node.refuse(from, &frame.header, &SendError::Codec);
                continue;
            };
            let services = Services(inner);
            node.serve(from, &frame.header, async move {
                let root = services.desk().read(|table| table.root(&service).to_owned());
                Ok(encode(&services.ask_here(&root, &service).await))
            });
        }
    }

    fn type_name(&self) -> &'static str {
        "checkpoints asked for"
    }

    fn mailbox_len(&self) -> usize {
        0
    }
}

fn target(node: &NodeName) -> String {
    format!("services/asked@{node}")
}

/// Number of the message that asks for one.
const ASK: u64 = 1;

/// One checkpoint answers all that were asked for before it was taken; more need not wait at once.
pub(super) const ASKED_MAX: usize = 1_024;

/// Below what the command line waits for by default, so that it hears the answer.
const PATIENCE: Duration = Duration::from_secs(4);

/// For this long somebody else may turn out to be the primary: a node that comes back has caught up
/// with who leads what by then.
const SETTLING: Duration = Duration::from_millis(500);

/// Between two looks at who the primary is, if nothing is heard.
const GLANCE: Duration = Duration::from_millis(50);

/// The answer's way back.
const WAY: Duration = Duration::from_millis(500);
