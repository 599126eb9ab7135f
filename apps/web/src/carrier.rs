//! Carries a server's content between sites: by the commands of the node file, over the nodes' own
//! links.

use std::{path::PathBuf, rc::Rc, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::future::LocalBoxFuture;
use serde::{Deserialize, Serialize};
use synod::{
    election::message::Epoch,
    runtime::{
        address::SendError,
        identity::{NodeId, NodeName},
        node::Node,
        registry::{Binding, Deliver, RegisterError},
        wire::{Frame, name_hash},
        world::network::Lane,
    },
    server::{
        ServiceContext,
        config::WebCopies,
        services::programs::{Haul, Programs, Question, Station},
    },
};
use tokio::sync::{mpsc, oneshot};

use crate::{Carrier, Copy, Feed, order::NAME, site::Site};

/// Runs the commands of a node file, and asks other nodes.
pub(crate) struct Commands {
    programs: Arc<dyn Programs>,
    links: Node,
    copies: WebCopies,
    node: NodeName,
    dir: PathBuf,
}

impl Commands {
    /// Those of `copies`; none when there are no such commands, or nothing runs them here.
    pub(crate) fn new(copies: Option<WebCopies>, context: &ServiceContext) -> Option<Self> {
        let (programs, copies) = (context.programs.clone()?, copies?);
        let (links, node) = (context.links.clone(), context.node.clone());
        Some(Self { programs, links, copies, node, dir: context.data_dir.clone() })
    }

    fn question(&self, command: &[String], id: u64) -> Question {
        let station =
            Station { service: NAME.to_owned(), node: self.node.clone(), epoch: Epoch(id) };
        Question { station, command: command.to_vec(), within: self.copies.within }
    }
}

impl Carrier for Commands {
    fn export(&self, id: u64) -> LocalBoxFuture<'_, Result<Rc<dyn Copy>, String>> {
        let haul = Haul {
            question: self.question(&self.copies.export, id),
            file: self.dir.join(SPOOL),
            bytes_max: self.copies.bytes_max,
        };
        let made = self.programs.spool(haul);
        Box::pin(async move { made.await.map(Rc::from) })
    }

    fn import(&self, id: u64) -> Result<Box<dyn Feed>, String> {
        self.programs.feed(self.question(&self.copies.import, id))
    }

    fn fetch<'a>(
        &'a self,
        from: &'a str,
        id: u64,
        offset: u64,
    ) -> LocalBoxFuture<'a, Result<Bytes, String>> {
        Box::pin(async move {
            let to: NodeName = from.parse().map_err(|_| format!("{from} is no name of a node"))?;
            let body = encode(&Fetch { id, offset });
            let at = name_hash(&target(&to));
            let asked = self.links.ask(&to, at, FETCH, Lane::Bulk, body, FETCH_PATIENCE).await;
            let answer = asked.map_err(|error| error.to_string())?;
            let piece: Piece = rmp_serde::from_slice(&answer).map_err(|why| why.to_string())?;
            piece.0
        })
    }

    fn within(&self) -> Duration {
        self.copies.within
    }
}

/// Asks for a piece of a copy.
#[derive(Debug, Serialize, Deserialize)]
struct Fetch {
    id: u64,
    offset: u64,
}

/// The piece, or why not.
#[derive(Debug, Serialize, Deserialize)]
struct Piece(Result<Bytes, String>);

/// What came for a site, and where the answer goes.
type Asked = (Fetch, oneshot::Sender<Piece>);

/// Where other nodes ask for pieces of copies. They are answered until this is dropped.
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
        while let Some((Fetch { id, offset }, answer)) = self.asked.recv().await {
            let piece = site.piece(id, offset).await;
            // Whoever does not wait any more asks again.
            drop(answer.send(Piece(piece)));
        }
    }
}

struct Door(mpsc::Sender<Asked>);

impl Deliver for Door {
    fn deliver(&self, from: &NodeId, batch: Vec<Frame>, node: &Node) {
        for frame in batch {
            let Ok(fetch) = rmp_serde::from_slice::<Fetch>(&frame.body) else {
                node.refuse(from, &frame.header, &SendError::Codec);
                continue;
            };
            let (answer, answered) = oneshot::channel();
            if self.0.try_send((fetch, answer)).is_err() {
                node.refuse(from, &frame.header, &SendError::Overloaded);
                continue;
            }
            node.serve(from, &frame.header, async move {
                let stopped = |_| Piece(Err("the node stops".to_owned()));
                Ok(encode(&answered.await.unwrap_or_else(stopped)))
            });
        }
    }

    fn type_name(&self) -> &'static str {
        "web copies"
    }

    fn mailbox_len(&self) -> usize {
        self.0.max_capacity() - self.0.capacity()
    }
}

fn encode(value: &impl Serialize) -> Vec<u8> {
    rmp_serde::to_vec(value).expect("plain data encodes")
}

fn target(node: &NodeName) -> String {
    format!("web/copies@{node}")
}

/// Number of the message that asks for a piece.
const FETCH: u64 = 1;

/// A disk, and a long way there and back.
const FETCH_PATIENCE: Duration = Duration::from_secs(10);

/// More than the sites of a cluster ask for at once; beyond it they ask again.
const ASKED_MAX: usize = 32;

/// Where a copy is kept: not among the site's notes, of whose directory every file is one.
const SPOOL: &str = "web.copy";
