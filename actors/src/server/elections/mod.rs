//! Elections at a node: standing for roles, asking who leads, and the actors behind it.
//!
//! ```no_run
//! # use synod::server::elections::{Elections, Leadership};
//! # async fn run(elections: Elections) -> Result<(), Box<dyn std::error::Error>> {
//! let mut volunteer = elections.volunteer("jobs").named("worker-1").stand()?;
//! while let Some(news) = volunteer.next().await {
//!     match news {
//!         Leadership::Leading(lease) => {
//!             // Act for as long as it holds, and say the epoch with every write elsewhere.
//!             while lease.is_valid() { /* one job, with lease.epoch() */ }
//!         }
//!         Leadership::Following(holder) => println!("{} leads", holder.client.name),
//!         Leadership::Lost(epoch) => println!("epoch {epoch} is over"),
//!         Leadership::Ended(why) => println!("{why:?}"),
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Layout
//! - [`Elections`]: the handle
//! - [`Volunteer`], [`Leadership`], [`Lease`], [`Pulse`]: standing for a role
//! - [`Watch`], [`Heard`]: every change of a role, in order
//! - `service`: the shell of a node's election service
//! - `store`: where roles are kept: in the log, or in registers
//! - `warden`: proposes what has run out, where the log is led

mod cell;
mod service;
mod store;
mod volunteer;
mod warden;
mod watch;

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc, Mutex, OnceLock, Weak,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use rand::RngExt as _;
use synod_runtime::{
    identity::NodeId,
    node::Node,
    registry::Binding,
    telemetry::Counter,
    world::{Instant, network::Lane},
};
use tokio::sync::{Notify, oneshot};

pub(super) use self::cell::{Cell, Found};
use self::store::{Log, RoleStore, pages::Pages};
pub use self::{
    volunteer::{Candidacy, Leadership, Lease, Pulse, Volunteer},
    watch::{Heard, RoleNews, Watch},
};
use super::{
    board::Board, http_roles::documents, metrics, patience::at_most, registers::Registers,
    singletons::Hosts, site::lock,
};
use crate::{
    election::{
        lease::LEASE_DEFAULT,
        message::{Change, Holder, Op, Refusal, RoleView, Said},
        service::{Service, ServiceMessage},
        store::{Desk, Question, encode},
    },
    replicated::{CallError, DEADLINE_DEFAULT, IdempotencyKey, Submit},
    role::{Inputs, RoleAddr},
};

/// A node's elections. Cloning is cheap; it works from any thread.
#[derive(Clone)]
pub struct Elections(Arc<Inner>);

pub(super) struct Inner {
    node: Node,
    /// The seat it speaks for.
    me: NodeId,
    board: Arc<Board>,
    desk: Arc<Desk>,
    submit: Arc<dyn Submit>,
    log: Arc<dyn RoleStore>,
    /// Instead of the log, where roles are kept in registers.
    pages: OnceLock<Pages>,
    lease: OnceLock<Duration>,
    service: OnceLock<RoleAddr<Service>>,
    binding: OnceLock<Binding>,
    /// Numbers of handles and of pulses.
    next: AtomicU64,
    cells: Mutex<BTreeMap<u64, Arc<Cell>>>,
    /// What was taken over HTTP, by role and holder.
    leases: Mutex<BTreeMap<(String, String), Arc<Cell>>>,
    changes: Mutex<BTreeMap<String, Counter>>,
    hosts: Hosts,
    /// Something may run out sooner than before.
    news: Notify,
    /// There is something new for those who watch.
    seen: Notify,
    nonce: u64,
}

/// Why nobody can say who leads, or a role could not be made or removed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ElectionError {
    /// The store refused. Nothing was changed.
    #[error("{0}")]
    Refused(#[from] Refusal),
    /// The log did not answer.
    #[error(transparent)]
    Call(#[from] CallError),
}

impl Elections {
    pub(super) fn new(
        node: &Node,
        me: &NodeId,
        board: Arc<Board>,
        submit: Arc<dyn Submit>,
    ) -> Self {
        let nonce = node.rng("election").random();
        let inner = Arc::new_cyclic(|told: &Weak<Inner>| {
            let told = told.clone();
            let desk = Arc::new(Desk::new(Arc::clone(node.clock()), move |changes| {
                if let Some(inner) = told.upgrade() {
                    inner.executed(changes);
                }
            }));
            Inner {
                node: node.clone(),
                me: me.clone(),
                board,
                log: Arc::new(Log { submit: Arc::clone(&submit), desk: Arc::clone(&desk) }),
                submit,
                desk,
                pages: OnceLock::new(),
                lease: OnceLock::new(),
                service: OnceLock::new(),
                binding: OnceLock::new(),
                next: AtomicU64::new(1),
                cells: Mutex::default(),
                leases: Mutex::default(),
                changes: Mutex::default(),
                hosts: Hosts::default(),
                news: Notify::new(),
                seen: Notify::new(),
                nonce,
            }
        });
        let shown = Arc::downgrade(&inner);
        inner.board.show_roles(move |stale| {
            let known = shown.upgrade().map(|inner| Self(inner).known()).unwrap_or_default();
            documents(&known, stale)
        });
        Self(inner)
    }

    /// Stands for a role: [`Candidacy::stand`] begins.
    pub fn volunteer(&self, role: &str) -> Candidacy {
        Candidacy::new(self.clone(), role)
    }

    /// The lease of those who name none here.
    pub(super) fn lease(&self) -> Duration {
        self.0.lease.get().copied().unwrap_or(LEASE_DEFAULT)
    }

    /// From now on this is the lease of those who name none here; what was set first stays.
    pub(super) fn lease_by_default(&self, lease: Duration) {
        let _first = self.0.lease.set(lease);
    }

    /// A sign of life for many volunteers of the calling arbiter; see [`Candidacy::pulse`].
    pub fn pulse(&self) -> Pulse {
        Pulse::new(self)
    }

    /// Who leads in a role, and who stands; `None`: there is no such role.
    ///
    /// # Errors
    /// When the log does not answer; see [`Elections::known`].
    pub async fn query(&self, role: &str) -> Result<Option<RoleView>, ElectionError> {
        Ok(self.look(&Question::One(role.to_owned())).await?.pop())
    }

    /// All roles, by name.
    ///
    /// # Errors
    /// When the log does not answer; see [`Elections::known`].
    pub async fn roles(&self) -> Result<Vec<RoleView>, ElectionError> {
        self.look(&Question::All).await
    }

    /// All roles as this node has them, by name: never waits, may be old. Nothing at a node that
    /// does not execute the log.
    pub fn known(&self) -> Vec<RoleView> {
        self.0.store().known()
    }

    /// Makes a role; one that is there stays as it is. Taking a role makes it too.
    ///
    /// # Errors
    /// When the store refuses, or the log does not answer.
    pub async fn add(&self, role: &str) -> Result<(), ElectionError> {
        self.change_one(Op::Add { role: role.to_owned() }).await
    }

    /// Removes a role. One that is held is renewed no more, and goes when its holder does.
    ///
    /// # Errors
    /// When the store refuses, or the log does not answer.
    pub async fn remove(&self, role: &str) -> Result<(), ElectionError> {
        self.change_one(Op::Remove { role: role.to_owned() }).await
    }

    pub(super) async fn change_one(&self, op: Op) -> Result<(), ElectionError> {
        self.say(op, None).await.map(drop)
    }

    /// Whether changes may have an idempotency key: the log remembers it.
    pub(super) fn takes_keys(&self) -> bool {
        self.0.pages.get().is_none()
    }

    /// Says one thing to the store. With a key it is done once, however often and wherever it is
    /// said, and answered alike.
    pub(super) async fn say(
        &self,
        op: Op,
        key: Option<IdempotencyKey>,
    ) -> Result<Said, ElectionError> {
        let (answer, answered) = oneshot::channel();
        let done = Box::new(move |said| drop(answer.send(said)));
        self.0.store().change(vec![op], key, at_most(DEADLINE_DEFAULT), done);
        let stopped = |_| Err(CallError::Unknown("the node stopped".into()));
        match answered.await.unwrap_or_else(stopped)?.pop() {
            Some(Said::Refused(refusal)) => Err(refusal.into()),
            said => Ok(said.unwrap_or(Said::Done)),
        }
    }

    pub(super) async fn look(&self, question: &Question) -> Result<Vec<RoleView>, ElectionError> {
        self.0.store().look(question.clone()).await
    }

    /// Who holds a role, as this node has it; the outer `None`: it does not execute the log.
    pub(super) fn glance(&self, role: &str) -> Option<Option<Holder>> {
        self.0.store().glance(role)
    }

    /// A role, as this node has it.
    pub(super) fn seen(&self, role: &str) -> Option<RoleView> {
        self.0.store().seen(role)
    }

    /// Sees to it that these roles are known here as they are now, as far as that can be.
    pub(super) async fn refresh(&self, roles: Vec<String>) {
        self.0.store().refresh(roles).await;
    }

    /// Turns at the next change of a role that is seen here.
    pub(super) async fn news(&self) {
        self.0.seen.notified().await;
    }

    pub(super) fn node(&self) -> &Node {
        &self.0.node
    }

    /// The way into the log.
    pub(super) fn submit(&self) -> Arc<dyn Submit> {
        Arc::clone(&self.0.submit)
    }

    /// The seat it speaks for.
    pub(super) fn me(&self) -> &NodeId {
        &self.0.me
    }

    /// What acts here under leases, and is told when the node leaves.
    pub(super) fn hosts(&self) -> &Hosts {
        &self.0.hosts
    }

    pub(super) fn now(&self) -> Instant {
        self.0.node.now()
    }

    /// What was taken over HTTP.
    pub(super) fn leases(&self) -> &Mutex<BTreeMap<(String, String), Arc<Cell>>> {
        &self.0.leases
    }

    pub(super) fn desk(&self) -> &Arc<Desk> {
        &self.0.desk
    }

    /// Keeps roles in registers from now on. Before anything else is asked of it.
    pub(super) fn keep_in(&self, registers: Registers) {
        let heard = Arc::downgrade(&self.0);
        let hears = Box::new(move |changes| {
            if let Some(inner) = heard.upgrade() {
                inner.changed(changes);
            }
        });
        let pages = Pages::new(registers, hears, Arc::clone(&self.0.log));
        let _first = self.0.pages.set(pages);
    }
}

impl Inner {
    /// Tells the service something; lost while it is not there, like everything then.
    fn tell(&self, message: ServiceMessage) {
        if let Some(service) = self.service.get() {
            service.do_send(Inputs(vec![(self.me.clone(), message)]));
        }
    }

    fn number(&self) -> u64 {
        self.next.fetch_add(1, Relaxed)
    }

    /// One command of the store.
    fn submit(
        &self,
        ops: Vec<Op>,
        deadline: Duration,
        done: impl FnOnce(Result<Vec<Said>, CallError>) + Send + 'static,
    ) {
        self.store().change(ops, None, deadline, Box::new(done));
    }

    /// Where roles are kept.
    fn store(&self) -> &dyn RoleStore {
        match self.pages.get() {
            Some(pages) => pages,
            None => self.log.as_ref(),
        }
    }

    /// The log's store has new holders, which matters where roles are kept there.
    fn executed(&self, changes: Vec<Change>) {
        if self.pages.get().is_none() {
            self.changed(changes);
        }
    }

    /// The store executed here has new holders: the service hears of it, and so does that of a
    /// node that does not execute the log, from whoever leads.
    fn changed(&self, changes: Vec<Change>) {
        self.news.notify_one();
        self.seen.notify_waiters();
        if changes.is_empty() {
            return;
        }
        let leads = self.board.leads() && self.pages.get().is_none();
        let mut elsewhere: BTreeMap<String, Vec<Change>> = BTreeMap::new();
        for change in &changes {
            self.count(&change.name);
            let Some(holder) = change.holder.as_ref().filter(|_| leads) else { continue };
            if holder.client.node != self.me.name.to_string() {
                elsewhere.entry(holder.client.node.clone()).or_default().push(change.clone());
            }
        }
        for (node, changes) in elsewhere {
            let Ok(name) = node.parse() else { continue };
            let target = service::name(&name);
            // Lost, it is learnt with the next renewal.
            let _told = self.node.tell(&name, &target, CHANGED, Lane::Control, &encode(&changes));
        }
        self.tell(ServiceMessage::Changed(changes));
    }

    fn count(&self, role: &str) {
        let mut counters = lock(&self.changes);
        if !counters.contains_key(role) {
            let label = if counters.len() < ROLES_COUNTED_MAX { role } else { OTHERS };
            let counter = self.node.metrics().counter(&metrics::ROLE_CHANGES, &[("role", label)]);
            if label == OTHERS {
                return counter.increment();
            }
            counters.insert(role.to_owned(), counter);
        }
        if let Some(counter) = counters.get(role) {
            counter.increment();
        }
    }
}

/// Number of the message that tells of new holders.
const CHANGED: u64 = 1;

/// Roles with a counter of their own; a page of metrics must stay readable.
const ROLES_COUNTED_MAX: usize = 1_000;

/// The label of all further roles. No role is called so: it has a space.
const OTHERS: &str = "all others";

impl fmt::Debug for Elections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Elections").field("node", &self.0.node).finish_non_exhaustive()
    }
}
