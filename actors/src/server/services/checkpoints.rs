//! Checkpoints between nodes: sent by a primary, taken in by those next in line.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, Weak},
    time::Duration,
};

use bytes::{BufMut as _, Bytes};
use serde::{Deserialize, Serialize};
use synod_runtime::{
    address::SendError,
    identity::{NodeId, NodeName},
    node::Node,
    registry::{Binding, Deliver},
    wire::{Frame, name_hash},
    world::network::Lane,
};
use tokio::sync::{Mutex as Turn, mpsc, oneshot};

use super::{
    Services,
    programs::{Programs, Question, Station},
};
use crate::{
    election::{
        message::Epoch,
        store::{decode, encode},
    },
    server::site::lock,
};

/// What this node has taken in, by service.
#[derive(Default)]
pub(super) struct Checkpoints {
    places: Mutex<BTreeMap<String, Arc<Place>>>,
    binding: Mutex<Option<Binding>>,
}

#[derive(Default)]
struct Place {
    /// The newest that was taken in, by epoch and number; older ones come too late.
    newest: Mutex<(Epoch, u64)>,
    /// The newest state that this node has, of those that were passed on: taken in, or its own while it
    /// led.
    has: Mutex<(Epoch, u64)>,
    /// Held while one is taken in.
    turn: Turn<()>,
}

/// What stands before the state in a message.
#[derive(Debug, Serialize, Deserialize)]
struct Label {
    service: String,
    epoch: Epoch,
    number: u64,
}

/// A checkpoint that came, and where the answer goes.
struct Parcel {
    label: Label,
    state: Bytes,
    answer: oneshot::Sender<Result<(), String>>,
}

impl Checkpoints {
    /// From now on this node takes checkpoints in.
    pub(super) fn open(services: &Services, programs: &Arc<dyn Programs>) {
        let (parcels, mut came) = mpsc::channel::<Parcel>(PARCELS_MAX);
        let node = &services.0.node;
        let Ok(binding) = node.bind(&target(services.name()), Arc::new(Door(parcels))) else {
            tracing::error!("checkpoints of services cannot be taken in");
            return;
        };
        *lock(&services.0.checkpoints.binding) = Some(binding);
        let (inner, programs) = (Arc::downgrade(&services.0), Arc::clone(programs));
        node.task(async move {
            while let Some(parcel) = came.recv().await {
                let Some(services) = Weak::upgrade(&inner).map(Services) else { return };
                let (programs, node) = (Arc::clone(&programs), services.0.node.clone());
                node.task(async move {
                    let Parcel { label, state, answer } = parcel;
                    let taken = take_in(&services, &programs, label, state).await;
                    // Whoever does not wait any more sends it again.
                    let _gone = answer.send(taken);
                });
            }
        });
    }

    /// This node leads in the service: nothing of that epoch or an older one is taken in any more
    /// (G8). Returns when nothing is being taken in, after [`SETTLE_MAX`] in any case.
    pub(super) async fn lead(&self, service: &str, epoch: Epoch, lease: Duration) {
        let place = self.place(service);
        {
            let mut newest = lock(&place.newest);
            *newest = (*newest).max((epoch, u64::MAX));
        }
        let settle = SETTLE_MAX.min(lease / 4);
        if tokio::time::timeout(settle, place.turn.lock()).await.is_err() {
            tracing::warn!(service, "begins while a checkpoint is still being taken in");
        }
    }

    /// This node led in the service in that epoch, and the checkpoint of this number was its last.
    pub(super) fn led(&self, service: &str, epoch: Epoch, number: u64) {
        self.place(service).holds(epoch, number);
    }

    /// The newest checkpoint that is here, by epoch and number; zeros if none is.
    pub(super) fn has(&self, service: &str) -> (Epoch, u64) {
        let place = lock(&self.places).get(service).cloned();
        place.map(|place| *lock(&place.has)).unwrap_or_default()
    }

    fn place(&self, service: &str) -> Arc<Place> {
        Arc::clone(lock(&self.places).entry(service.to_owned()).or_default())
    }
}

impl Place {
    fn holds(&self, epoch: Epoch, number: u64) {
        let mut has = lock(&self.has);
        *has = (*has).max((epoch, number));
    }
}

/// Takes one in, if it is the newest and this node does not lead.
async fn take_in(
    services: &Services,
    programs: &Arc<dyn Programs>,
    label: Label,
    state: Bytes,
) -> Result<(), String> {
    let Label { service, epoch, number } = label;
    let (checkpoint, known) = services.desk().read(|table| {
        let known = table.named(&service).ok_or("there is no such service here")?;
        let epoch = known.report.as_ref().map(|report| report.epoch).unwrap_or_default();
        let checkpoint = known.spec.checkpoint.clone().ok_or("it has no checkpoints here")?;
        Ok::<_, &str>((checkpoint, epoch))
    })?;
    let place = services.0.checkpoints.place(&service);
    let _turn = place.turn.try_lock().map_err(|_| "another is being taken in")?;
    if epoch < known || (epoch, number) <= *lock(&place.newest) {
        return Err(format!("it is of epoch {epoch}, and there is a newer one"));
    }
    let station = Station { service, node: services.name().clone(), epoch };
    let question = Question { station, command: checkpoint.import, within: PASS_WITHIN };
    programs.import(question, state).await?;
    place.holds(epoch, number);
    let mut newest = lock(&place.newest);
    *newest = (*newest).max((epoch, number));
    Ok(())
}

/// Sends one; whether it was taken in.
pub(super) async fn send(
    services: Services,
    to: String,
    station: Station,
    number: u64,
    state: Bytes,
) -> Result<(), String> {
    let Station { service, epoch, .. } = station;
    let label = encode(&Label { service, epoch, number });
    let mut body = Vec::with_capacity(LENGTH_BYTES + label.len() + state.len());
    body.put_u32_le(u32::try_from(label.len()).expect("a label is short"));
    body.extend_from_slice(&label);
    body.extend_from_slice(&state);
    let to: NodeName = to.parse().map_err(|_| format!("{to} is no name of a node"))?;
    let (node, at) = (&services.0.node, name_hash(&target(&to)));
    let asked = node.ask(&to, at, CHECKPOINT, Lane::Bulk, body, PASS_WITHIN * 2).await;
    let answer = asked.map_err(|error| error.to_string())?;
    decode::<Result<(), String>>(&answer).map_err(|error| error.to_string())?
}

/// Where checkpoints arrive.
struct Door(mpsc::Sender<Parcel>);

impl Deliver for Door {
    fn deliver(&self, from: &NodeId, batch: Vec<Frame>, node: &Node) {
        for frame in batch {
            let Some((label, state)) = open_body(&frame.body) else {
                node.refuse(from, &frame.header, &SendError::Codec);
                continue;
            };
            let (answer, answered) = oneshot::channel();
            if self.0.try_send(Parcel { label, state, answer }).is_err() {
                node.refuse(from, &frame.header, &SendError::Overloaded);
                continue;
            }
            node.serve(from, &frame.header, async move {
                let taken = answered.await.unwrap_or_else(|_| Err("the node stopped".to_owned()));
                Ok(encode(&taken))
            });
        }
    }

    fn type_name(&self) -> &'static str {
        "checkpoints"
    }

    fn mailbox_len(&self) -> usize {
        self.0.max_capacity() - self.0.capacity()
    }
}

fn open_body(body: &Bytes) -> Option<(Label, Bytes)> {
    let (length, rest) = body.split_first_chunk::<LENGTH_BYTES>()?;
    let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
    let label = decode(rest.get(..length)?).ok()?;
    Some((label, body.slice(LENGTH_BYTES + length..)))
}

fn target(node: &NodeName) -> String {
    format!("services/checkpoints@{node}")
}

/// Number of the message that brings one.
const CHECKPOINT: u64 = 1;

/// The length of the label stands before it.
const LENGTH_BYTES: usize = 4;

/// Of more services than these at once, senders come again.
const PARCELS_MAX: usize = 16;

/// A state is written, and read, within this time.
pub(super) const PASS_WITHIN: Duration = Duration::from_secs(10);

/// A new primary waits so long for a checkpoint that is being taken in.
const SETTLE_MAX: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_that_is_cut_is_no_checkpoint() {
        let label = encode(&Label { service: "web".into(), epoch: Epoch(7), number: 3 });
        let mut body = Vec::new();
        body.put_u32_le(u32::try_from(label.len()).unwrap());
        body.extend_from_slice(&label);
        body.extend_from_slice(b"state");
        let body = Bytes::from(body);
        let (label, state) = open_body(&body).unwrap();
        assert_eq!((label.service.as_str(), label.number, &state[..]), ("web", 3, &b"state"[..]));
        for length in 0..body.len() - state.len() {
            assert!(open_body(&body.slice(..length)).is_none(), "{length}");
        }
        assert!(open_body(&Bytes::from_static(b"\xff\xff\xff\xffx")).is_none());
    }
}
