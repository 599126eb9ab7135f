//! What runs on a node: supervised actors and plain tasks.

use std::{
    any::type_name,
    future::Future,
    sync::{Arc, Mutex},
};

use actix::{
    Actor, Addr, ArbiterHandle, Context,
    dev::channel::{AddressReceiver, channel},
};
use tokio::task::AbortHandle;
use tracing::Instrument as _;

use super::{Node, WeakNode, lock};
use crate::{
    registry::{RegisterError, local::Spawned, watch::Reason},
    supervision::{Control, Fault, Lives, Manager, Permit, Policy, Setting},
    telemetry::{ACTOR_PANICS, ACTOR_RESTARTS},
};

/// Capacity of a mailbox, which bounds only senders that await room; actix's own default.
const MAILBOX_CAPACITY: usize = 16;

/// All tasks of a node, to be dropped at once in a crash.
#[derive(Default)]
pub(super) struct Tasks(Mutex<TaskList>);

#[derive(Default)]
struct TaskList {
    tasks: Vec<AbortHandle>,
    /// The list is swept of ended tasks when it is twice as long as after the last sweep.
    swept_len: usize,
}

/// The list is not swept while it is shorter than this.
const SWEEP_LEN_MIN: usize = 64;

impl Tasks {
    fn add(&self, task: AbortHandle) {
        let mut ended = Vec::new();
        let mut list = lock(&self.0);
        if list.tasks.len() >= 2 * list.swept_len.max(SWEEP_LEN_MIN) {
            ended.extend(list.tasks.extract_if(.., |task| task.is_finished()));
            list.swept_len = list.tasks.len();
        }
        list.tasks.push(task);
        // Outside of the lock: what is dropped with the last handle of a task may begin another.
        drop(list);
        drop(ended);
    }

    pub(super) fn abort_all(&self) {
        let tasks = std::mem::take(&mut lock(&self.0).tasks);
        for task in tasks {
            task.abort();
        }
    }
}

impl Node {
    /// Starts a named actor on this arbiter: supervised (after a panic or a stop it is rebuilt by
    /// `factory`, behind the same address, with nothing queued lost) and shown in the registry. It
    /// lives until [`Node::stop`], whether or not anybody keeps its address.
    ///
    /// # Panics
    /// When another supervised actor has that name. Use [`Node::spawn_with`] for names that come
    /// from outside.
    pub fn spawn<A, F>(&self, name: &str, factory: F) -> Addr<A>
    where
        A: Actor<Context = Context<A>>,
        F: FnMut() -> A + 'static,
    {
        self.spawn_with(name, Policy::default(), factory)
            .unwrap_or_else(|error| panic!("cannot spawn: {error}"))
    }

    /// As [`Node::spawn`], with a policy of its own.
    ///
    /// # Errors
    /// When the name is taken; nothing was started.
    pub fn spawn_with<A, F>(
        &self,
        name: &str,
        policy: Policy,
        factory: F,
    ) -> Result<Addr<A>, RegisterError>
    where
        A: Actor<Context = Context<A>>,
        F: FnMut() -> A + 'static,
    {
        let (addr, mailbox, setting) = self.prepare(name, policy)?;
        self.run_here(mailbox, setting, factory);
        Ok(addr)
    }

    /// As [`Node::spawn_with`], for an actor that acts only while `permit` says so. Its factory is
    /// lent the context it will have, to give it futures that live as long as it does.
    ///
    /// # Errors
    /// When the name is taken; nothing was started.
    pub fn spawn_while<A, F>(
        &self,
        name: &str,
        policy: Policy,
        permit: Arc<dyn Permit>,
        factory: F,
    ) -> Result<Addr<A>, RegisterError>
    where
        A: Actor<Context = Context<A>>,
        F: FnMut(&mut Context<A>) -> A + 'static,
    {
        let (addr, mailbox, mut setting) = self.prepare(name, policy)?;
        setting.permit = Some(permit);
        let retire = self.retire(&setting.name, None);
        self.run_lives(mailbox, setting, factory, retire);
        Ok(addr)
    }

    /// As [`Node::spawn_with`], on another arbiter, so that a busy actor cannot starve the
    /// protocol.
    ///
    /// # Errors
    /// When the name is taken; nothing was started.
    pub fn spawn_on<A, F>(
        &self,
        arbiter: &ArbiterHandle,
        name: &str,
        policy: Policy,
        factory: F,
    ) -> Result<Addr<A>, RegisterError>
    where
        A: Actor<Context = Context<A>>,
        F: FnMut() -> A + Send + 'static,
    {
        let (addr, mailbox, setting) = self.prepare(name, policy)?;
        self.run_on(arbiter, mailbox, setting, factory);
        Ok(addr)
    }

    fn run_on<A, F>(
        &self,
        arbiter: &ArbiterHandle,
        mailbox: AddressReceiver<A>,
        setting: Setting,
        factory: F,
    ) where
        A: Actor<Context = Context<A>>,
        F: FnMut() -> A + Send + 'static,
    {
        let (node, name) = (self.clone(), setting.name.clone());
        let retire = self.retire(&name, setting.manager.clone());
        if !arbiter.spawn_fn(move || node.run(mailbox, setting, factory, retire)) {
            tracing::error!(actor = name, "its arbiter is gone");
        }
    }

    /// Runs a future on this arbiter until it ends or the node does. To be called by actors, and
    /// by whoever sets the node up.
    pub fn task(&self, future: impl Future<Output = ()> + 'static) -> AbortHandle {
        let task = actix_rt::spawn(future).abort_handle();
        self.0.tasks.add(task.clone());
        task
    }

    /// As [`Node::task`], from any thread that tokio knows; also where
    /// [`Deliver`](crate::registry::Deliver)s and hooks are called: the network runs on the
    /// arbiter's thread but outside of its `LocalSet`.
    pub fn task_anywhere(&self, future: impl Future<Output = ()> + Send + 'static) -> AbortHandle {
        let task = tokio::spawn(future).abort_handle();
        self.0.tasks.add(task.clone());
        task
    }

    /// Ends a supervised actor for good; answers whether there is one. What is queued is dropped,
    /// and its name is free once it has ended.
    pub fn stop(&self, name: &str) -> bool {
        let control = self.0.names.control(name);
        control.inspect(|control| control.retire()).is_some()
    }

    /// Lets a supervised actor fail; answers whether there is one. For fault injection: only code
    /// can reach this, no message and no configuration does.
    pub fn inject(&self, name: &str, fault: Fault) -> bool {
        let control = self.0.names.control(name);
        control.inspect(|control| control.inject(fault)).is_some()
    }

    /// Starts a named actor that begins, ends and is rebuilt at the orders of a tree.
    pub(crate) fn spawn_managed<A, F>(
        &self,
        name: &str,
        policy: Policy,
        manager: Manager,
        factory: F,
    ) -> Result<(Addr<A>, Arc<Control>), RegisterError>
    where
        A: Actor<Context = Context<A>>,
        F: FnMut() -> A + 'static,
    {
        let (addr, mailbox, mut setting) = self.prepare(name, policy)?;
        setting.manager = Some(manager);
        let control = Arc::clone(&setting.control);
        self.run_here(mailbox, setting, factory);
        Ok((addr, control))
    }

    /// As [`Node::spawn_managed`], on another arbiter.
    pub(crate) fn spawn_managed_on<A, F>(
        &self,
        arbiter: &ArbiterHandle,
        name: &str,
        policy: Policy,
        manager: Manager,
        factory: F,
    ) -> Result<Arc<Control>, RegisterError>
    where
        A: Actor<Context = Context<A>>,
        F: FnMut() -> A + Send + 'static,
    {
        let (_, mailbox, mut setting) = self.prepare::<A>(name, policy)?;
        setting.manager = Some(manager);
        let control = Arc::clone(&setting.control);
        self.run_on(arbiter, mailbox, setting, factory);
        Ok(control)
    }

    /// Gives a supervision tree its name.
    pub(crate) fn name_tree(&self, name: &str) -> Result<Arc<Control>, RegisterError> {
        let control = Arc::new(Control::default());
        let spawned = Spawned {
            serial: 0,
            control: Arc::clone(&control),
            kind: "supervisor",
            addr: Arc::new(()),
        };
        self.0.names.spawned(name, spawned)?;
        self.renamed();
        Ok(control)
    }

    /// A tree that no other tree ends: the node itself does.
    pub(crate) fn note_root(&self, name: &str) {
        lock(&self.0.roots).insert(name.to_owned());
    }

    /// Takes the name back of a tree that could not be started.
    pub(crate) fn forget_tree(&self, name: &str) {
        self.0.names.retired(name, Reason::Stopped);
        self.renamed();
    }

    /// Runs what has that name already, such as a tree, until it is over.
    pub(crate) fn run_managed(
        &self,
        name: &str,
        manager: Option<Manager>,
        work: impl Future<Output = Reason> + 'static,
    ) {
        let retire = self.retire(name, manager);
        self.task(async move {
            let mut retire = retire;
            retire.reason = work.await;
        });
    }

    fn retire(&self, name: &str, manager: Option<Manager>) -> Retire {
        Retire { node: WeakNode::of(self), name: name.to_owned(), reason: Reason::Stopped, manager }
    }

    /// Takes the name, and makes what the supervisor needs.
    fn prepare<A>(
        &self,
        name: &str,
        policy: Policy,
    ) -> Result<(Addr<A>, AddressReceiver<A>, Setting), RegisterError>
    where
        A: Actor<Context = Context<A>>,
    {
        let (sender, mailbox) = channel(MAILBOX_CAPACITY);
        let addr = Addr::new(sender);
        let control = Arc::new(Control::default());
        let spawned = Spawned {
            serial: 0,
            control: Arc::clone(&control),
            kind: type_name::<A>(),
            addr: Arc::new(addr.clone()),
        };
        self.0.names.spawned(name, spawned)?;
        self.0.renamed.notify_one();
        let setting = Setting {
            name: name.to_owned(),
            policy,
            clock: Arc::clone(self.clock()),
            rng: self.rng(&format!("supervision/{name}")),
            restarted: self.metrics().counter(&ACTOR_RESTARTS, &[("actor", name)]),
            panicked: self.metrics().counter(&ACTOR_PANICS, &[]),
            control,
            manager: None,
            permit: None,
        };
        Ok((addr, mailbox, setting))
    }

    fn run<A, F>(
        &self,
        mailbox: AddressReceiver<A>,
        setting: Setting,
        mut factory: F,
        retire: Retire,
    ) where
        A: Actor<Context = Context<A>>,
        F: FnMut() -> A + 'static,
    {
        self.run_lives(mailbox, setting, move |_| factory(), retire);
    }

    fn run_lives<A, F>(
        &self,
        mailbox: AddressReceiver<A>,
        setting: Setting,
        factory: F,
        retire: Retire,
    ) where
        A: Actor<Context = Context<A>>,
        F: FnMut(&mut Context<A>) -> A + 'static,
    {
        // For whoever reads a log with many nodes in it, such as a simulation's.
        let span = tracing::debug_span!("actor", name = setting.name);
        let lives = Lives::new(setting, mailbox, factory).instrument(span);
        self.task(async move {
            // Moved in whole, so that it is dropped with the task, however that ends.
            let mut retire = retire;
            retire.reason = lives.await;
        });
    }

    fn run_here<A, F>(&self, mailbox: AddressReceiver<A>, setting: Setting, factory: F)
    where
        A: Actor<Context = Context<A>>,
        F: FnMut() -> A + 'static,
    {
        let retire = self.retire(&setting.name, setting.manager.clone());
        self.run(mailbox, setting, factory, retire);
    }
}

/// Gives a name back when its actor is gone, also when its arbiter took it along.
struct Retire {
    node: WeakNode,
    name: String,
    reason: Reason,
    /// The tree that is told, once the name is free.
    manager: Option<Manager>,
}

impl Drop for Retire {
    fn drop(&mut self) {
        if let Some(node) = self.node.upgrade() {
            let reason = std::mem::replace(&mut self.reason, Reason::Stopped);
            node.0.names.retired(&self.name, reason);
            lock(&node.0.roots).remove(&self.name);
            node.renamed();
        }
        if let Some(manager) = &self.manager {
            manager.gone();
        }
    }
}
