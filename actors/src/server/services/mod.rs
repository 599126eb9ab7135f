//! Managed services at a node: the handle, and what stands for the services it provides.
//!
//! # Layout
//! - [`Services`]: services added, moved, frozen, shown
//! - [`programs`]: the port to outside programs
//! - `runner`: the services of one role at this node, each program at its `post`; what to do when is for
//!   [`unit`](crate::management::unit)
//! - `checkpoints`: states between nodes; `mail`: those of one service on their way
//! - `asked`: checkpoints that somebody waits for; `newest`: who has the newest ones
//! - `fresh`: what is known here, and whether it may be old
//! - `manage`: what the manager does for all of them
//! - `keep`: a runner for each role, as the table says; `document`: services as people are shown them
//! - `actors`: what hosts of the program's own actors are told, and tell

mod actors;
mod asked;
mod checkpoints;
mod document;
mod fresh;
mod keep;
mod mail;
mod manage;
mod newest;
mod post;
pub mod programs;
mod runner;

use std::{
    collections::BTreeSet,
    fmt,
    sync::{Arc, OnceLock},
    time::Duration,
};

use serde_json::Value;
use synod_runtime::{identity::NodeName, node::Node, watch, world::Instant};
use tokio::sync::oneshot;

pub(super) use self::actors::{Stand, ToServices};
use self::{asked::Askers, checkpoints::Checkpoints, newest::Newest, programs::Programs};
use super::{
    board::Board, elections::Elections, manager::Managers, membership::Views, patience::at_most,
};
use crate::{
    consensus::message::NodeRole,
    election::{
        message::{Epoch, RoleView},
        store::{decode, encode},
    },
    management::{
        message::{Op, Refusal, Report, Said, Spec},
        store::{CHANGE, Desk, store_id},
        table::Services as Table,
    },
    membership::message::View,
    replicated::{CallError, DEADLINE_DEFAULT, Outcome, Submission, Submit},
};

/// The managed services, as seen from one node. Cloning is cheap; it works from any thread.
#[derive(Clone)]
pub struct Services(Arc<Inner>);

struct Inner {
    node: Node,
    elections: Elections,
    views: Views,
    managers: Managers,
    board: Arc<Board>,
    submit: Arc<dyn Submit>,
    desk: OnceLock<Arc<Desk>>,
    /// What starts programs here, if anything does.
    programs: OnceLock<Arc<dyn Programs>>,
    checkpoints: Checkpoints,
    askers: Askers,
    newest: Newest,
    /// Those of the node file.
    in_file: OnceLock<BTreeSet<String>>,
    /// The table may have changed.
    changed: watch::Sender<u64>,
}

/// Why a service was not changed, or cannot be shown.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ServiceError {
    /// The table refused. Nothing was changed.
    #[error("{0}")]
    Refused(#[from] Refusal),
    /// That node does not stand for it: it is down, or its programs cannot run there.
    #[error("{node} does not stand for {service}: {why}")]
    NotThere {
        /// The service.
        service: String,
        /// The node.
        node: String,
        /// Who does.
        why: String,
    },
    /// That node shall run it and cannot.
    #[error("{node} cannot run it: {why}; install it there, or name other providers")]
    NotRunnable {
        /// The node.
        node: String,
        /// What is missing.
        why: String,
    },
    /// No checkpoint that was asked for could be passed on: nobody runs it, or nobody is next in line.
    #[error("{0}")]
    NoCheckpoint(String),
    /// The log did not answer.
    #[error(transparent)]
    Call(#[from] CallError),
}

impl Services {
    pub(super) fn new(
        node: &Node,
        elections: &Elections,
        views: &Views,
        board: &Arc<Board>,
        submit: Arc<dyn Submit>,
    ) -> Self {
        let inner = Arc::new(Inner {
            node: node.clone(),
            elections: elections.clone(),
            views: views.clone(),
            managers: Managers::new(node, elections.me(), views),
            board: Arc::clone(board),
            submit,
            desk: OnceLock::new(),
            programs: OnceLock::new(),
            checkpoints: Checkpoints::default(),
            askers: Askers::default(),
            newest: Newest::default(),
            in_file: OnceLock::new(),
            changed: watch::Sender::new(0),
        });
        let told = Arc::downgrade(&inner);
        let desk = Desk::new(move || {
            if let Some(inner) = told.upgrade() {
                inner.changed.send_modify(|changes| *changes += 1);
            }
        });
        let _first = inner.desk.set(Arc::new(desk));
        let shown = Arc::downgrade(&inner);
        let managers = inner.managers.clone();
        inner.board.show_manager(move || managers.known());
        inner.elections.hosts().know(ToServices::new(&inner));
        inner.board.show_services(move || {
            shown.upgrade().map(|inner| Self(inner).documents()).unwrap_or_default()
        });
        Self(inner)
    }

    /// A new service. Its program runs on one of its providers as soon as one leads.
    ///
    /// # Errors
    /// When it cannot be, or one of its name is there; nothing was changed then.
    pub async fn add(&self, spec: Spec) -> Result<(), ServiceError> {
        self.check_known(&spec.name, &spec.providers)?;
        if spec.providers.is_empty() && spec.with.is_none() {
            spec.check_secondaries(self.nodes().len())?;
        }
        if self.provides() && self.is_among(&spec.providers) {
            let lacks = |why| ServiceError::NotRunnable { why, node: self.me().to_owned() };
            self.can_run(&spec).map_err(lacks)?;
        }
        self.change(Op::Add { spec, configured: false }).await
    }

    /// A service of the node file: one of its name that is there stays as it is.
    ///
    /// # Errors
    /// As [`Services::add`].
    pub async fn configure(&self, spec: Spec) -> Result<(), ServiceError> {
        self.change(Op::Add { spec, configured: true }).await
    }

    /// Removes a service; its program is ended. Of an actor, what was changed of it is forgotten, once
    /// no node hosts it.
    ///
    /// # Errors
    /// When there is none, or another needs it or is placed with it, or it is an actor that nodes host
    /// or that is frozen; nothing was changed.
    pub async fn remove(&self, service: &str) -> Result<(), ServiceError> {
        self.check_not_hosted(service)?;
        let is_root = self.desk().read(|table| table.root(service) == service);
        self.change(Op::Remove(service.to_owned())).await?;
        if is_root {
            // It goes when its holder does. Left behind it does no harm.
            let _left = self.elections().remove(&role_of(service)).await;
        }
        Ok(())
    }

    /// Moves a service, and all that are placed with it, to that node: the programs end where they
    /// run, in order, and begin there.
    ///
    /// # Errors
    /// When the node does not provide it, or does not stand for it now; nothing was changed.
    pub async fn move_to(&self, service: &str, node: &str) -> Result<(), ServiceError> {
        self.check_known(service, &[node.to_owned()])?;
        let table = self.look().await?;
        let known = table.named(service).ok_or_else(|| Refusal::Unknown(service.to_owned()))?;
        let root = table.root(service);
        let provided = table.nodes(root).is_none_or(|nodes| nodes.contains(node));
        if provided && !known.frozen {
            self.elections().refresh(vec![role_of(root)]).await;
            self.wait_stands(service, root, node).await?;
        }
        let (service, node) = (service.to_owned(), node.to_owned());
        self.change(Op::Move { service, node }).await
    }

    /// Ends its program until it is unfrozen; or unfreezes it.
    ///
    /// # Errors
    /// When there is no such service; nothing was changed.
    pub async fn freeze(&self, service: &str, frozen: bool) -> Result<(), ServiceError> {
        self.change(Op::Freeze { service: service.to_owned(), frozen }).await
    }

    /// Adds and removes nodes that may run it.
    ///
    /// # Errors
    /// When one is there already, or is not; nothing was changed.
    pub async fn providers(
        &self,
        service: &str,
        mut add: Vec<String>,
        mut remove: Vec<String>,
    ) -> Result<(), ServiceError> {
        self.check_known(service, &add)?;
        let table = self.look().await?;
        let known = table.named(service).ok_or_else(|| Refusal::Unknown(service.to_owned()))?;
        if known.spec.providers.is_empty() && known.spec.with.is_none() {
            self.check_known(service, &remove)?;
            add = all_but(service, &self.nodes(), &remove)?;
            remove = Vec::new();
        }
        self.change(Op::Providers { service: service.to_owned(), add, remove }).await
    }

    /// Wants so many secondaries.
    ///
    /// # Errors
    /// When it has not so many providers; nothing was changed.
    pub async fn set(&self, service: &str, secondaries: u32) -> Result<(), ServiceError> {
        let spec = self.desk().read(|table| table.named(service).map(|known| known.spec.clone()));
        if let Some(spec) = spec.filter(|spec| spec.providers.is_empty() && spec.with.is_none()) {
            Spec { secondaries, ..spec }.check_secondaries(self.nodes().len())?;
        }
        self.change(Op::Set { service: service.to_owned(), secondaries }).await
    }

    /// All services as this node has them, as `GET /services` shows them: never waits, may be old. Where
    /// the node knows that they may be they say `stale`.
    pub fn documents(&self) -> Vec<Value> {
        self.documents_as(self.0.board.ready().is_err())
    }

    /// The same, of which it is known whether they may be old.
    fn documents_as(&self, stale: bool) -> Vec<Value> {
        document::all(self, stale)
    }

    /// Stands for all services that this node provides, from now on: their programs are started by
    /// `programs`. Call it once, where local tasks can be spawned.
    pub fn provide(&self, programs: &Arc<dyn Programs>) {
        let _first = self.0.programs.set(Arc::clone(programs));
        Checkpoints::open(self, programs);
        Askers::listen(self);
        Newest::listen(self);
        self.0.managers.start();
        let (services, programs) = (self.clone(), Arc::clone(programs));
        self.0.node.task(async move { keep::keep(services, programs).await });
        let services = self.clone();
        self.0.node.task(async move { manage::manage(services).await });
    }

    /// Waits a moment for that node to stand; one that is up has done so, or does it now.
    async fn wait_stands(&self, service: &str, root: &str, node: &str) -> Result<(), ServiceError> {
        let mut there = BTreeSet::new();
        for _ in 0..STAND_LOOKS {
            let view = self.role(root);
            let stands = view.iter().flat_map(|view| {
                let stand = view.volunteers.iter();
                stand.chain(view.holder.iter().map(|holder| &holder.client))
            });
            there = stands.map(|client| client.node.clone()).collect();
            if there.contains(node) {
                return Ok(());
            }
            tokio::time::sleep(STAND_PAUSE).await;
        }
        let there: Vec<_> = there.into_iter().collect();
        let why = match there.is_empty() {
            true => "no node does; see `status` for who is up".to_owned(),
            false => format!("is it up? those that do are {}", there.join(", ")),
        };
        let (service, node) = (service.to_owned(), node.to_owned());
        Err(ServiceError::NotThere { service, node, why })
    }

    /// Whether programs can be started here.
    fn provides(&self) -> bool {
        self.0.programs.get().is_some()
    }

    /// Whether all its programs are here.
    fn can_run(&self, spec: &Spec) -> Result<(), String> {
        let Some(programs) = self.0.programs.get() else { return Ok(()) };
        spec.commands().try_for_each(|command| programs.find(command))
    }

    fn is_among(&self, providers: &[String]) -> bool {
        providers.is_empty() || providers.iter().any(|provider| provider == self.me())
    }

    /// Whether there are such nodes, and they can run programs.
    fn check_known(&self, service: &str, named: &[String]) -> Result<(), Refusal> {
        let nodes = self.nodes();
        let Some(other) = named.iter().find(|node| !nodes.is_empty() && !nodes.contains(node))
        else {
            return Ok(());
        };
        let why = format!("service {service}: {other} is no main or member");
        Err(Refusal::Bad(format!("{why}; name one of {}", nodes.join(", "))))
    }

    /// All mains and members, by name, as far as this node knows; none while it knows nothing.
    fn nodes(&self) -> Vec<String> {
        let Some(configuration) = self.0.board.reached().configuration else { return Vec::new() };
        let mains = configuration.mains.iter().map(|main| &main.name);
        let others = configuration.members.iter().chain(&configuration.absent);
        let expected = configuration.expected.iter();
        let expected = expected.filter(|(_, role)| *role != NodeRole::Auxiliary);
        let all = mains.chain(others).chain(expected.map(|(name, _)| name));
        all.map(ToString::to_string).collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// Who may run all that are placed with it, by name.
    fn nodes_of(&self, root: &str) -> Vec<String> {
        let named = self.desk().read(|table| table.nodes(root));
        named.map_or_else(|| self.nodes(), |nodes| nodes.into_iter().collect())
    }

    /// Those of them that take part, as far as the log decided; all, where nothing is known.
    fn up_among(&self, mut nodes: Vec<String>) -> Vec<String> {
        let view = self.0.views.now();
        nodes.retain(|node| view.nodes.is_empty() || is_up(&view, node));
        nodes
    }

    /// Who stands for it and does not lead, next first.
    fn standing(&self, root: &str) -> Vec<String> {
        let volunteers = self.role(root).map(|view| view.volunteers).unwrap_or_default();
        volunteers.into_iter().map(|one| one.node).collect()
    }

    /// Who is next when the present primary gives it up.
    fn next_in_line(&self, root: &str) -> Option<String> {
        self.standing(root).into_iter().next()
    }

    /// Its secondaries, how many are wanted, and the epoch in which its primary reported.
    fn line(&self, root: &str) -> Option<(Vec<String>, u32, Option<Epoch>)> {
        self.desk().read(|table| {
            let service = table.named(root)?;
            let epoch = service.report.as_ref().map(|report| report.epoch);
            Some((service.secondaries.clone(), service.spec.secondaries, epoch))
        })
    }

    /// Its role: that of the service it is placed with.
    fn role(&self, root: &str) -> Option<RoleView> {
        self.elections().seen(&role_of(root))
    }

    async fn change(&self, op: Op) -> Result<(), ServiceError> {
        self.0.managers.hold_off().await;
        let (answer, answered) = oneshot::channel();
        self.submit(&op, move |outcome| drop(answer.send(outcome)));
        let stopped = |_| Outcome::Unknown("the node stopped".into());
        let (reply, _) = CallError::check(answered.await.unwrap_or_else(stopped))?;
        let said: Vec<Said> =
            decode(&reply).map_err(|error| CallError::Failed(error.to_string()))?;
        match said.into_iter().next() {
            Some(Said::Refused(refusal)) => Err(refusal.into()),
            Some(Said::Done) | None => Ok(()),
        }
    }

    /// Tells the table; lost, it is only not shown.
    fn report(&self, report: Report) {
        self.submit(&Op::Report(report), drop);
    }

    /// Likewise; it is said again.
    fn tell_line(&self, root: &str, epoch: Epoch, nodes: Vec<String>) {
        self.submit(&Op::Secondaries { service: root.to_owned(), epoch, nodes }, drop);
    }

    fn submit(&self, op: &Op, done: impl FnOnce(Outcome) + Send + 'static) {
        self.0.submit.submit(vec![Submission {
            actor: store_id(),
            function: CHANGE.id,
            args: encode(&[op]).into(),
            deadline: at_most(DEADLINE_DEFAULT),
            idempotency: None,
            done: Box::new(done),
        }]);
    }

    fn elections(&self) -> &Elections {
        &self.0.elections
    }

    fn name(&self) -> &NodeName {
        self.0.node.name()
    }

    fn me(&self) -> &str {
        self.0.node.name().as_str()
    }

    pub(super) fn now(&self) -> Instant {
        self.0.node.now()
    }

    pub(super) fn desk(&self) -> &Arc<Desk> {
        self.0.desk.get().expect("set when it was made")
    }
}

/// Of a service that all mains and members provide: those that shall provide it from now on.
fn all_but(service: &str, all: &[String], gone: &[String]) -> Result<Vec<String>, Refusal> {
    let stay: Vec<_> = all.iter().filter(|node| !gone.contains(node)).cloned().collect();
    let why = match (gone.is_empty(), stay.is_empty()) {
        (true, _) => "all mains and members provide it; take those out that shall not, by -NODE",
        (_, true) => "none would be left; name one that stays, or remove the service",
        (false, false) => return Ok(stay),
    };
    Err(Refusal::Bad(format!("service {service}: {why}")))
}

/// Whether that node takes part.
fn is_up(view: &View, node: &str) -> bool {
    node.parse().is_ok_and(|node| view.is_up(&node))
}

/// Whether a node stands is looked at so often…
const STAND_LOOKS: u32 = 20;

/// …with this pause.
const STAND_PAUSE: Duration = Duration::from_millis(50);

/// The role of a service, and of all that are placed with it.
fn role_of(root: &str) -> String {
    format!("{root}/primary")
}

impl fmt::Debug for Services {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Services").field("node", &self.0.node).finish_non_exhaustive()
    }
}
