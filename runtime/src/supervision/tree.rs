//! Supervision trees: see [`Supervisor::tree`].

mod running;

use std::{sync::Arc, time::Duration};

use actix::{Actor, Addr, ArbiterHandle, Context};
use serde::Serialize;
use serde_bytes::ByteBuf;
use tokio::sync::mpsc::unbounded_channel;

use self::running::{Child, Running};
use super::{
    Policy, Restart, Strategy,
    control::{Control, Manager},
    elsewhere::Care,
    machine::{Machine, STOP_WITHIN},
};
use crate::{
    identity::NodeName,
    message::{CodecError, RemoteActor, encode},
    node::{Node, WeakNode},
    registry::{RegisterError, watch::Watch},
};

/// A tree of supervised actors, to be started: children in their order, each an actor or a tree of
/// its own.
///
/// A child is called by its path (`bank/db`), lives behind one address for as long as the tree,
/// and is rebuilt by its factory when it panics (or stops, see [`Supervisor::restart`]); what is
/// queued for it waits meanwhile. The [`Strategy`] says who is begun anew with it. A tree whose
/// restarts are used up ends its children from the last to the first and reports to the tree it is
/// a child of, to which that is a failure like any other; without one it is over, which
/// [`Node::watch_name`] tells.
///
/// ```
/// use std::time::Duration;
///
/// use actix::{Actor, Context, Handler, Message};
/// use synod_runtime::{
///     identity::Incarnation,
///     node::{Node, NodeConfig},
///     sim::Simulation,
///     supervision::{Fault, Strategy, Supervisor},
/// };
///
/// /// Counts what it was told since its last rebuilding.
/// struct Counter(u32);
///
/// impl Actor for Counter {
///     type Context = Context<Self>;
/// }
///
/// #[derive(Message)]
/// #[rtype(result = "u32")]
/// struct Add(u32);
///
/// impl Handler<Add> for Counter {
///     type Result = u32;
///
///     fn handle(&mut self, add: Add, _: &mut Context<Self>) -> u32 {
///         self.0 += add.0;
///         self.0
///     }
/// }
///
/// Simulation::new(1).run(|sim| async move {
///     let name = "a".parse().unwrap();
///     let config = NodeConfig::new("demo".parse().unwrap(), name, Incarnation(1));
///     let node = Node::start(sim.world(&config.name), config).unwrap();
///     let tree = Supervisor::tree("bank")
///         .strategy(Strategy::RestForOne)
///         .restarts(5, Duration::from_secs(10))
///         .backoff(Duration::from_millis(50), Duration::from_secs(5))
///         .child("db", || Counter(0))
///         .child_tree(Supervisor::tree("web").child("page", || Counter(0)))
///         .start(&node)
///         .unwrap();
///     let page = tree.addr::<Counter>("web/page").unwrap();
///     assert_eq!(page.send(Add(1)).await, Ok(1));
///     node.inject("bank/db", Fault::Panic);
///     tokio::time::sleep(Duration::from_secs(1)).await;
///     assert_eq!(page.send(Add(1)).await, Ok(1), "begun anew, behind the same address");
///     assert!(tree.stop(Duration::from_secs(1)).await, "all ended by themselves");
/// });
/// ```
#[must_use = "a tree does nothing before it is started"]
pub struct Supervisor {
    name: String,
    strategy: Strategy,
    policy: Policy,
    stop_within: Duration,
    restart: Restart,
    children: Vec<Spec>,
}

struct Spec {
    name: String,
    restart: Restart,
    /// A tree takes the time its children take.
    is_tree: bool,
    launch: Launch,
}

/// Prepares a child to begin at its tree's order, under its path.
type Launch = Box<dyn FnOnce(&Node, &str, Manager) -> Result<Arc<Control>, RegisterError>>;

impl Supervisor {
    /// A tree without children yet, called `name`; as a child of another tree its path begins with
    /// that one's. By default [`Strategy::OneForOne`], three restarts within five seconds, waits
    /// from 50 ms to 5 s.
    pub fn tree(name: &str) -> Self {
        let policy = Policy { give_up: Some((3, Duration::from_secs(5))), ..Policy::default() };
        Self {
            name: name.to_owned(),
            strategy: Strategy::default(),
            policy,
            stop_within: STOP_WITHIN,
            restart: Restart::Always,
            children: Vec::new(),
        }
    }

    /// Who is begun anew with a child that failed.
    pub fn strategy(mut self, strategy: Strategy) -> Self {
        self.strategy = strategy;
        self
    }

    /// More than `restarts` within the time, of all children together, end the tree.
    pub fn restarts(mut self, restarts: u32, within: Duration) -> Self {
        self.policy.give_up = Some((restarts, within));
        self
    }

    /// The first restart of a child does not wait, its second in a row waits `first`, and the wait
    /// doubles up to `max`. Half of each wait is drawn, so that children that fell together do not
    /// rise together.
    pub fn backoff(mut self, first: Duration, max: Duration) -> Self {
        (self.policy.backoff_first, self.policy.backoff_max) = (first, max);
        self
    }

    /// How long an actor that is to end may go on with what it has in hand (by answering
    /// `Running::Continue` in `stopping`) before it is dropped. One second by default.
    pub fn stop_within(mut self, within: Duration) -> Self {
        self.stop_within = within;
        self
    }

    /// After which ends the children that are added from here on are begun anew: by default after
    /// all. One that is not ends for good, and the tree goes on without it.
    pub fn restart(mut self, restart: Restart) -> Self {
        self.restart = restart;
        self
    }

    /// Adds an actor, built by `factory` for each of its lives, on the arbiter that starts the
    /// tree.
    pub fn child<A, F>(self, name: &str, factory: F) -> Self
    where
        A: Actor<Context = Context<A>>,
        F: FnMut() -> A + 'static,
    {
        let policy = self.policy.clone();
        self.add(name, false, move |node, path, manager| {
            node.spawn_managed(path, policy, manager, factory).map(|(_, control)| control)
        })
    }

    /// As [`Supervisor::child`], and registers its path, so that other nodes can send to it.
    pub fn registered<A, F>(self, name: &str, factory: F) -> Self
    where
        A: RemoteActor<Context = Context<A>>,
        F: FnMut() -> A + 'static,
    {
        let policy = self.policy.clone();
        self.add(name, false, move |node, path, manager| {
            let (addr, control) = node.spawn_managed(path, policy, manager, factory)?;
            if let Err(error) = node.register(path, addr) {
                control.retire();
                return Err(error);
            }
            Ok(control)
        })
    }

    /// As [`Supervisor::child`], on another arbiter, so that a busy child cannot starve the rest.
    pub fn child_on<A, F>(self, arbiter: &ArbiterHandle, name: &str, factory: F) -> Self
    where
        A: Actor<Context = Context<A>>,
        F: FnMut() -> A + Send + 'static,
    {
        let (policy, arbiter) = (self.policy.clone(), arbiter.clone());
        self.add(name, false, move |node, path, manager| {
            node.spawn_managed_on(&arbiter, path, policy, manager, factory)
        })
    }

    /// Adds an actor on another node, which must [`offer`](Node::offer) that `kind`. It is
    /// registered there under its path, built from `args` for each life, and never rebuilt by its
    /// own node: its end is reported here, like the loss of its node, and what follows is decided
    /// here. What was queued for a life that ended is lost with it. When this tree or its node is
    /// gone, the child is ended.
    pub fn child_at<Args: Serialize>(
        self,
        home: &NodeName,
        name: &str,
        kind: &str,
        args: &Args,
    ) -> Self {
        let (home, kind, args) = (home.clone(), kind.to_owned(), encode(args));
        let tree_len = name.len() + 1;
        self.add(name, false, move |node, path, manager| {
            let failed = |why: CodecError| RegisterError::Arguments {
                name: path.to_owned(),
                why: why.to_string(),
            };
            let control = Arc::new(Control::default());
            let care = Care {
                node: WeakNode::of(node),
                control: Arc::clone(&control),
                manager,
                home,
                kind,
                path: path.to_owned(),
                tree: path[..path.len() - tree_len].to_owned(),
                args: ByteBuf::from(args.map_err(failed)?),
                rng: node.rng(&format!("supervision/{path}")),
            };
            node.task(care.run());
            Ok(control)
        })
    }

    /// Adds a tree. Its failure is that of one child: all of it is begun anew, with a fresh budget.
    pub fn child_tree(self, tree: Self) -> Self {
        let name = tree.name.clone();
        self.add(&name, true, move |node, path, manager| tree.launch(node, path, Some(manager)))
    }

    /// Starts the tree on this arbiter. It lives until [`Tree::stop`], `node.stop(name)`, or its
    /// restarts are used up, whether or not anybody keeps the handle.
    ///
    /// # Errors
    /// When a name is taken; then nothing of the tree is left.
    pub fn start(self, node: &Node) -> Result<Tree, RegisterError> {
        let name = self.name.clone();
        let control = self.launch(node, &name, None)?;
        control.begin();
        node.note_root(&name);
        Ok(Tree { node: node.clone(), name, control })
    }

    fn add(
        mut self,
        name: &str,
        is_tree: bool,
        launch: impl FnOnce(&Node, &str, Manager) -> Result<Arc<Control>, RegisterError> + 'static,
    ) -> Self {
        let (name, restart, launch) = (name.to_owned(), self.restart, Box::new(launch));
        self.children.push(Spec { name, restart, is_tree, launch });
        self
    }

    /// Prepares the tree and all its children under its path.
    fn launch(
        self,
        node: &Node,
        path: &str,
        manager: Option<Manager>,
    ) -> Result<Arc<Control>, RegisterError> {
        let control = node.name_tree(path)?;
        let (sender, reports) = unbounded_channel();
        let rng = node.rng(&format!("supervision/{path}"));
        let restarts = self.children.iter().map(|child| child.restart).collect::<Vec<_>>();
        let machine = Machine::new(self.strategy, self.policy, rng, restarts.into_iter());
        let mut children = Vec::new();
        for (index, spec) in self.children.into_iter().enumerate() {
            let manager = Manager { index, reports: sender.clone() };
            match (spec.launch)(node, &format!("{path}/{}", spec.name), manager) {
                Ok(control) => children.push(Child { control, is_tree: spec.is_tree, kill: None }),
                Err(error) => {
                    for child in &children {
                        child.control.retire();
                    }
                    node.forget_tree(path);
                    return Err(error);
                }
            }
        }
        let tree = Running {
            name: path.to_owned(),
            control: Arc::clone(&control),
            manager: manager.clone(),
            machine,
            children,
            reports,
            stop_within: self.stop_within,
            gave_up: None,
            told_up: false,
        };
        node.run_managed(path, manager, tree.run(Arc::clone(node.clock())));
        Ok(control)
    }
}

impl std::fmt::Debug for Supervisor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let children: Vec<_> = self.children.iter().map(|child| &child.name).collect();
        f.debug_struct("Supervisor").field("name", &self.name).field("children", &children).finish()
    }
}

/// A tree that was started. Dropping it ends nothing.
#[derive(Debug, Clone)]
pub struct Tree {
    node: Node,
    name: String,
    control: Arc<Control>,
}

impl Tree {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The address of a child by its path below the tree, if its type is `A`.
    pub fn addr<A: Actor>(&self, path: &str) -> Option<Addr<A>> {
        self.node.local(&format!("{}/{path}", self.name))
    }

    /// The end of the tree: [`Reason::GaveUp`](crate::registry::watch::Reason::GaveUp), or
    /// [`Reason::Stopped`](crate::registry::watch::Reason::Stopped).
    pub fn watch(&self) -> Watch {
        self.node.watch_name(self.node.id(), &self.name)
    }

    /// Ends the tree from the leaves up: each child, from the last to the first, works off what is
    /// queued for it and ends. What has not ended within the time is dropped. Answers whether all
    /// ended by themselves.
    pub async fn stop(&self, within: Duration) -> bool {
        let mut watch = self.watch();
        self.control.finish();
        let finished = tokio::time::timeout(within, &mut watch).await.is_ok();
        if !finished {
            self.control.kill();
            watch.await;
        }
        finished
    }
}

#[cfg(test)]
mod tests;
