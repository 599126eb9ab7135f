//! Actors that are supervised from another node: what this node offers to begin for others.
//!
//! ```text
//!  tree on node a: child_at(b, …)                node b: offer("worker", factory)
//!     care ── Begin { kind, path, args } ──────► nursery ── spawns it, never rebuilds it itself
//!          ◄─ answer: on which incarnation ────     └─ watches the tree; without it, ends the child
//!          ◄─ Terminated (see `watching`) ─────
//!          ── End { path } ────────────────────►
//! ```

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use actix::Context;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_bytes::ByteBuf;
use tokio::sync::{mpsc, oneshot};

use super::{Node, WeakNode, lock};
use crate::{
    address::SendError,
    identity::{NodeId, NodeName},
    message::{RemoteActor, decode, encode},
    registry::{ACTOR_NAME_BYTES_MAX, RegisterError},
    supervision::{Policy, Restart},
    wire::{Frame, FrameKind, name_hash},
    world::network::Lane,
};

/// Where words about children go on every node.
pub(super) const TARGET: u64 = name_hash("synod/nursery");

/// Orders for one kind of child that wait for its arbiter; more are refused, and asked again.
const ORDERS_LEN_MAX: usize = 256;

/// What one kind of child on one node has been asked to do.
type Orders = mpsc::Sender<(NodeId, Word, oneshot::Sender<Answer>)>;

/// By kind of child.
#[derive(Default)]
pub(super) struct Nursery(std::sync::Mutex<BTreeMap<String, Orders>>);

/// Bodies of asks to [`TARGET`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Word {
    pub(crate) kind: String,
    /// The child's name, here and there.
    pub(crate) path: String,
    /// The tree it belongs to, on the asking node.
    pub(crate) tree: String,
    /// Drawn for each life: a word about another life counts for nothing.
    pub(crate) life: u64,
    pub(crate) order: ChildOrder,
}

/// What is to happen to a child.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum ChildOrder {
    /// Begin a life; an earlier one of the same child ends first.
    Begin { args: ByteBuf },
    /// End it, with or without working off its mailbox.
    End { finish: bool },
}

/// On which node the child lives, or why it does not.
type Answer = Result<NodeId, String>;

impl Node {
    /// Lets trees on other nodes begin actors of one kind here: see
    /// [`Supervisor::child_at`](crate::supervision::Supervisor::child_at). `factory` builds the
    /// actor from the arguments the tree gives; the actor lives on this arbiter, registered under
    /// its path, and ends when its tree or the tree's node does.
    ///
    /// # Errors
    /// When that kind is offered already, or its name is empty or too long; nothing was changed.
    pub fn offer<A, Args, F>(&self, kind: &str, factory: F) -> Result<(), RegisterError>
    where
        A: RemoteActor<Context = Context<A>>,
        Args: DeserializeOwned + 'static,
        F: Fn(Args) -> A + 'static,
    {
        if kind.is_empty() || kind.len() > ACTOR_NAME_BYTES_MAX {
            return Err(RegisterError::Length(kind.len()));
        }
        let (sender, mut orders) = mpsc::channel::<(NodeId, Word, _)>(ORDERS_LEN_MAX);
        {
            let mut offered = lock(&self.0.nursery.0);
            if offered.contains_key(kind) {
                return Err(RegisterError::Taken { name: kind.to_owned(), kind: A::NAME.into() });
            }
            offered.insert(kind.to_owned(), sender);
        }
        let (node, factory) = (WeakNode::of(self), Arc::new(factory));
        self.task(async move {
            let mut children = BTreeMap::new();
            while let Some((from, word, answer)) = orders.recv().await {
                let Some(node) = node.upgrade() else { return };
                let done = node.serve_child(&mut children, &from, word, &factory).await;
                // The asker may have given up.
                let _ = answer.send(done);
            }
        });
        Ok(())
    }

    /// Takes frames that came for [`TARGET`].
    pub(super) fn take_nursery_words(&self, from: &NodeId, batch: &[Frame]) {
        for frame in batch {
            let word = decode::<Word>(&frame.body).ok();
            let Some(word) = word.filter(|_| frame.header.kind == FrameKind::Ask) else {
                self.refuse(from, &frame.header, &SendError::Codec);
                continue;
            };
            let is_new = matches!(word.order, ChildOrder::Begin { .. });
            if is_new && self.is_draining() {
                self.refuse(from, &frame.header, &SendError::Leaving);
                continue;
            }
            let offered = lock(&self.0.nursery.0).get(&word.kind).cloned();
            let (sender, answer) = oneshot::channel();
            let kind = word.kind.clone();
            let order = (from.clone(), word, sender);
            match offered.map(|orders| orders.try_send(order).is_ok()) {
                Some(false) => self.refuse(from, &frame.header, &SendError::Overloaded),
                Some(true) => self.serve(from, &frame.header, async move {
                    let answer = answer.await.map_err(|_| SendError::Closed)?;
                    encode(&answer).map_err(|_| SendError::Codec)
                }),
                None => {
                    let answer: Answer = Err(format!("{} offers no {kind}", self.name()));
                    let body = encode(&answer).expect("texts always encode");
                    self.reply(from, Lane::User, frame.header.correlation, &body);
                }
            }
        }
    }

    /// Asks a node about a child. The error says why there is none, or that nobody knows.
    pub(crate) async fn ask_nursery(
        &self,
        to: &NodeName,
        word: &Word,
        timeout: Duration,
    ) -> Result<Answer, SendError> {
        let body = encode(word).map_err(|_| SendError::Codec)?;
        // Beside the registry's words: nobody's credit is spent on them.
        let answer = self.ask(to, TARGET, TARGET, Lane::Control, body, timeout).await?;
        decode(&answer).map_err(|_| SendError::Codec)
    }

    /// Does what was asked; `children` are the lives begun here, by path.
    async fn serve_child<A, Args, F>(
        &self,
        children: &mut BTreeMap<String, Nursling>,
        from: &NodeId,
        word: Word,
        factory: &Arc<F>,
    ) -> Answer
    where
        A: RemoteActor<Context = Context<A>>,
        Args: DeserializeOwned + 'static,
        F: Fn(Args) -> A + 'static,
    {
        let Word { path, tree, life, order, .. } = word;
        children.retain(|path, _| self.0.names.life(path).is_some());
        let known = children.get(&path);
        if known.is_some_and(|known| known.tree != (from.clone(), tree.clone())) {
            return Err(format!("{path} belongs to another tree on {}", self.name()));
        }
        match order {
            ChildOrder::End { finish } => {
                let control = self.0.names.control(&path);
                if let Some(control) = control.filter(|_| known.is_some_and(|k| k.life == life)) {
                    if finish { control.finish() } else { control.retire() }
                }
            }
            ChildOrder::Begin { .. } if known.is_some_and(|known| known.life == life) => {}
            ChildOrder::Begin { args } => {
                let args: Args = decode(&args).map_err(|error| format!("arguments: {error}"))?;
                if known.is_some() {
                    let ended = self.watch_name(self.id(), &path);
                    self.stop(&path);
                    ended.await;
                }
                let (factory, mut args) = (Arc::clone(factory), Some(args));
                let policy = Policy { restart: Restart::Never, ..Policy::default() };
                let build = move || factory(args.take().expect("built once: it never restarts"));
                let begun = self.spawn_with(&path, policy, build);
                let addr = begun.map_err(|error| error.to_string())?;
                if let Err(error) = self.register(&path, addr) {
                    self.stop(&path);
                    return Err(error.to_string());
                }
                self.end_with_tree(&path, from, &tree);
                children.insert(path, Nursling { tree: (from.clone(), tree), life });
            }
        }
        Ok(self.id().clone())
    }

    /// Ends a child when its tree is over or lost.
    fn end_with_tree(&self, path: &str, from: &NodeId, tree: &str) {
        let (mut tree_over, mut over) =
            (self.watch_name(from, tree), self.watch_name(self.id(), path));
        let (node, path) = (WeakNode::of(self), path.to_owned());
        self.task(async move {
            tokio::select! {
                biased;
                _ = &mut over => {}
                told = &mut tree_over => {
                    tracing::warn!(actor = path, tree = told.name, reason = %told.reason, "orphaned");
                    if let Some(node) = node.upgrade() {
                        node.stop(&path);
                    }
                }
            }
        });
    }
}

/// A child that was begun here.
struct Nursling {
    tree: (NodeId, String),
    life: u64,
}
