//! Carries a server's content between sites, by the commands or URLs of the node file, and large bodies:
//! both over the nodes' own links.

use std::{path::PathBuf, rc::Rc, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{StreamExt as _, future::LocalBoxFuture, stream};
use serde::{Deserialize, Serialize};
use synod::{
    election::message::Epoch,
    runtime::{
        address::SendError,
        identity::{NodeId, NodeName},
        node::Node,
        registry::{Binding, Deliver, RegisterError},
        wire::{Frame, name_hash},
        world::{Clock, network::Lane},
    },
    server::{
        ServiceContext,
        config::{Hook, WebCopies},
        services::programs::{Haul, Programs, Question, Station},
    },
};
use tokio::sync::{mpsc, oneshot};

use crate::{
    Apart, Carrier, Copy, Courier, Feed, Holding,
    bodies::Store,
    order::NAME,
    site::Site,
    upstream::{self, Upload, UpstreamOptions},
};

/// Runs the commands of a node file, or asks its URLs; and asks other nodes.
pub(crate) struct Hooks {
    copies: WebCopies,
    /// None where nothing is run here.
    programs: Option<Arc<dyn Programs>>,
    links: Node,
    node: NodeName,
    dir: PathBuf,
    store: Store,
    clock: Arc<dyn Clock>,
}

impl Hooks {
    /// Those of `copies`; none when there are no such, or nothing runs their commands here. What a URL
    /// gives is kept in `store`.
    pub(crate) fn new(
        copies: Option<WebCopies>,
        store: &Store,
        context: &ServiceContext,
    ) -> Option<Self> {
        let (copies, programs) = (copies?, context.programs.clone());
        let runs = |hook: &Hook| programs.is_some() || matches!(hook, Hook::Url(_));
        let can = runs(&copies.export) && runs(&copies.import);
        can.then(|| Self {
            copies,
            programs,
            links: context.links.clone(),
            node: context.node.clone(),
            dir: context.data_dir.clone(),
            store: store.clone(),
            clock: Arc::clone(&context.clock),
        })
    }

    fn programs(&self) -> Result<&dyn Programs, String> {
        self.programs.as_deref().ok_or_else(|| "no commands are run here".to_owned())
    }

    fn question(&self, command: &[String], id: u64) -> Question {
        let station =
            Station { service: NAME.to_owned(), node: self.node.clone(), epoch: Epoch(id) };
        Question { station, command: command.to_vec(), within: self.copies.within }
    }

    async fn spool(&self, command: &[String], id: u64) -> Result<Rc<dyn Copy>, String> {
        let haul = Haul {
            question: self.question(command, id),
            file: self.dir.join(SPOOL),
            bytes_max: self.copies.bytes_max,
        };
        self.programs()?.spool(haul).await.map(Rc::from)
    }
}

impl Carrier for Hooks {
    fn export(&self, id: u64) -> LocalBoxFuture<'_, Result<Rc<dyn Copy>, String>> {
        let WebCopies { export, within, bytes_max, .. } = &self.copies;
        match export {
            Hook::Command(command) => Box::pin(self.spool(command, id)),
            Hook::Url(url) => {
                // A server may look through all that it has before it says a word.
                let options = UpstreamOptions {
                    patience: *within,
                    ..UpstreamOptions::new(Arc::clone(&self.clock))
                };
                Box::pin(upstream::get((url, id), *bytes_max, &self.store, options))
            }
        }
    }

    fn import(&self, id: u64, bytes: u64) -> Result<Box<dyn Feed>, String> {
        match &self.copies.import {
            Hook::Command(command) => self.programs()?.feed(self.question(command, id)),
            Hook::Url(url) => {
                let (url, clock) = (url.clone(), Arc::clone(&self.clock));
                Ok(Box::new(Upload::new(url, (id, bytes), self.copies.within, clock)?))
            }
        }
    }

    fn fetch<'a>(
        &'a self,
        from: &'a str,
        id: u64,
        offset: u64,
    ) -> LocalBoxFuture<'a, Result<Bytes, String>> {
        Box::pin(async move {
            match ask(&self.links, from, &Ask::Copy { id, offset }, PIECE_PATIENCE).await? {
                Told::Copy(piece) => piece,
                other => Err(format!("{from} answers with {other:?}")),
            }
        })
    }

    fn within(&self) -> Duration {
        self.copies.within
    }
}

/// The way of large bodies.
pub(crate) struct Links(pub(crate) Node);

impl Courier for Links {
    fn hold<'a>(
        &'a self,
        at: &'a str,
        body: &'a Apart,
    ) -> LocalBoxFuture<'a, Result<Holding, String>> {
        Box::pin(async move {
            match ask(&self.0, at, &Ask::Hold(body.clone()), HOLD_PATIENCE).await? {
                Told::Held(how) => how,
                other => Err(format!("{at} answers with {other:?}")),
            }
        })
    }

    fn fetch<'a>(
        &'a self,
        from: &'a str,
        body: &'a Apart,
        offset: u64,
    ) -> LocalBoxFuture<'a, Result<Option<Bytes>, String>> {
        Box::pin(async move {
            match ask(&self.0, from, &Ask::Body(body.clone(), offset), PIECE_PATIENCE).await? {
                Told::Body(piece) => piece,
                other => Err(format!("{from} answers with {other:?}")),
            }
        })
    }
}

/// What a site asks another.
#[derive(Debug, Serialize, Deserialize)]
enum Ask {
    /// For a piece of the copy that was made for a rebuild.
    Copy { id: u64, offset: u64 },
    /// To keep a body, too.
    Hold(Apart),
    /// For a piece of a body.
    Body(Apart, u64),
}

/// What it is told.
#[derive(Debug, Serialize, Deserialize)]
enum Told {
    Copy(Result<Bytes, String>),
    Held(Result<Holding, String>),
    Body(Result<Option<Bytes>, String>),
}

async fn ask(links: &Node, whom: &str, what: &Ask, patience: Duration) -> Result<Told, String> {
    let to: NodeName = whom.parse().map_err(|_| format!("{whom} is no name of a node"))?;
    let at = name_hash(&target(&to));
    let asked = links.ask(&to, at, ASK, Lane::Bulk, encode(what), patience).await;
    let answer = asked.map_err(|error| error.to_string())?;
    rmp_serde::from_slice(&answer).map_err(|why| why.to_string())
}

/// What came for a site, and where the answer goes.
type Asked = (NodeName, Ask, oneshot::Sender<Told>);

/// Where other nodes ask. They are answered until this is dropped.
pub(crate) struct Counter {
    asked: mpsc::Receiver<Asked>,
    _binding: Binding,
}

impl Counter {
    /// That of this node.
    ///
    /// # Errors
    /// The name is taken.
    pub(crate) fn open(context: &ServiceContext) -> Result<Self, RegisterError> {
        let (door, asked) = mpsc::channel(ASKED_MAX);
        let binding = context.links.bind(&target(&context.node), Arc::new(Door(door)))?;
        Ok(Self { asked, _binding: binding })
    }

    /// Answers from what `site` has.
    pub(crate) async fn serve(mut self, site: Site) {
        let asked = stream::poll_fn(|context| self.asked.poll_recv(context));
        let answer = async |(from, ask, answer): Asked| {
            let told = match ask {
                Ask::Copy { id, offset } => Told::Copy(site.piece(id, offset).await),
                Ask::Hold(body) => Told::Held(site.hold(from.as_str(), &body).await),
                Ask::Body(body, offset) => Told::Body(site.body_piece(&body, offset).await),
            };
            // Whoever does not wait any more asks again.
            drop(answer.send(told));
        };
        asked.for_each_concurrent(ASKED_MAX, answer).await;
    }
}

struct Door(mpsc::Sender<Asked>);

impl Deliver for Door {
    fn deliver(&self, from: &NodeId, batch: Vec<Frame>, node: &Node) {
        for frame in batch {
            let Ok(ask) = rmp_serde::from_slice::<Ask>(&frame.body) else {
                node.refuse(from, &frame.header, &SendError::Codec);
                continue;
            };
            let (answer, answered) = oneshot::channel();
            if self.0.try_send((from.name.clone(), ask, answer)).is_err() {
                node.refuse(from, &frame.header, &SendError::Overloaded);
                continue;
            }
            node.serve(from, &frame.header, async move {
                let told = answered.await.map_err(|_| SendError::Unreachable)?;
                Ok(encode(&told))
            });
        }
    }

    fn type_name(&self) -> &'static str {
        "web sites"
    }

    fn mailbox_len(&self) -> usize {
        self.0.max_capacity() - self.0.capacity()
    }
}

fn encode(value: &impl Serialize) -> Vec<u8> {
    rmp_serde::to_vec(value).expect("plain data encodes")
}

fn target(node: &NodeName) -> String {
    format!("web/site@{node}")
}

/// Number of the message.
const ASK: u64 = 2;

/// A disk, and a long way there and back.
const PIECE_PATIENCE: Duration = Duration::from_secs(10);

/// What a site that is to keep a body waits, and such a way; clients wait for it.
const HOLD_PATIENCE: Duration = Duration::from_secs(3);

/// More than the sites of a cluster ask for at once; beyond it they ask again.
const ASKED_MAX: usize = 256;

/// Where a copy is kept: not among the site's notes, of whose directory every file is one.
const SPOOL: &str = "web.copy";
