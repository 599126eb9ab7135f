//! The shell of a node's manager monitor, and what the manager does.

use std::{
    fmt,
    rc::Rc,
    sync::{Arc, OnceLock, Weak},
    time::Duration,
};

use synod_runtime::{
    address::SendError,
    identity::{NodeId, NodeName},
    node::Node,
    registry::{Binding, Deliver},
    telemetry::Counter,
    watch,
    wire::Frame,
    world::network::Lane,
};

use super::{membership::Views, metrics, patience::at_most, site::role_policy};
use crate::{
    effects::{Letter, ShelfTask, To, Truncate},
    election::store::{decode, encode},
    machine::{Now, Survived},
    management::{
        candidate,
        manager::{Manager, ManagerMessage, Word},
    },
    role::{Done, Inputs, Recovered, Role, RoleAddr, Surroundings},
};

/// Who manages the services, seen from one node. Cloning is cheap; it works from any thread.
#[derive(Clone)]
pub(super) struct Managers(Arc<Inner>);

struct Inner {
    node: Node,
    me: NodeId,
    monitor: OnceLock<RoleAddr<Manager>>,
    binding: OnceLock<Binding>,
    views: Views,
    manager: watch::Sender<Found>,
}

/// What is known of the manager.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Found {
    /// Nobody looks for one here.
    Off,
    /// One is sought: requesters wait.
    Sought,
    /// It is that node.
    At(NodeName),
}

impl Managers {
    pub(super) fn new(node: &Node, me: &NodeId, views: &Views) -> Self {
        Self(Arc::new(Inner {
            node: node.clone(),
            me: me.clone(),
            monitor: OnceLock::new(),
            binding: OnceLock::new(),
            views: views.clone(),
            manager: watch::Sender::new(Found::Off),
        }))
    }

    /// Starts the manager monitor: an actor of its own, supervised, reached by other nodes. Call it
    /// once, where local tasks can be spawned.
    pub(super) fn start(&self) {
        let (node, me) = (&self.0.node, self.0.me.name.clone());
        let name = monitor_name(&me);
        let (inner, mut life) = (Arc::downgrade(&self.0), 0);
        let made = node.spawn_with(&name, role_policy(), move || {
            life += 1;
            let around = Rc::new(Around(inner.clone()));
            Role::new(Manager::new(me.clone()), around, life)
        });
        if let Err(taken) = made {
            return tracing::error!(%taken, "a node has one manager monitor");
        }
        self.0.manager.send_replace(Found::Sought);
        let messages = node.metrics().counter(&metrics::MESSAGES, &[("role", "manager")]);
        let route = Route { inner: Arc::downgrade(&self.0), messages };
        match node.bind(&name, Arc::new(route)) {
            Ok(binding) => drop(self.0.binding.set(binding)),
            Err(error) => tracing::error!(%error, "the manager monitor cannot be reached"),
        }
        let (inner, mut views) = (Arc::downgrade(&self.0), self.0.views.watch());
        node.task(async move {
            while views.changed().await.is_ok() {
                let view = views.borrow_and_update().clone();
                let Some(inner) = inner.upgrade() else { return };
                inner.tell(ManagerMessage::Viewed(view));
            }
        });
    }

    /// The manager, while one is known.
    pub(super) fn known(&self) -> Option<NodeName> {
        match &*self.0.manager.borrow() {
            Found::At(node) => Some(node.clone()),
            Found::Off | Found::Sought => None,
        }
    }

    /// Whether it is this node.
    pub(super) fn is_here(&self) -> bool {
        self.known().as_ref() == Some(&self.0.me.name)
    }

    /// Holds a request off while a manager is sought, at most for [`HOLD_MAX`] and half of the time
    /// that there is.
    pub(super) async fn hold_off(&self) {
        let mut manager = self.0.manager.subscribe();
        let found = manager.wait_for(|found| *found != Found::Sought);
        let _found_or_late = tokio::time::timeout(at_most(2 * HOLD_MAX) / 2, found).await;
    }

    /// Turns whenever the manager is another.
    pub(super) async fn changed(&self) {
        let _node_stopped = self.0.manager.subscribe().changed().await;
    }
}

/// The table is under the log, so a request is safe without a manager; only order is nicer.
const HOLD_MAX: Duration = Duration::from_secs(1);

impl Inner {
    fn tell(&self, message: ManagerMessage) {
        if let Some(monitor) = self.monitor.get() {
            monitor.do_send(Inputs(vec![(self.me.clone(), message)]));
        }
    }

    fn send(&self, to: &NodeName, letter: candidate::Letter) {
        let (target, body) = (monitor_name(to), encode(&ManagerMessage::Letter(letter)));
        // Lost, it is said again.
        let _told = self.node.tell(to, &target, WORD, Lane::Control, &body);
    }

    fn found(&self, manager: Option<NodeName>, longest: Duration) {
        if let Some(manager) = &manager {
            tracing::info!(%manager, longest_hold = ?longest, "manages the services");
        }
        self.manager.send_replace(manager.map_or(Found::Sought, Found::At));
    }
}

/// The name the manager monitor of a seat is reached by.
fn monitor_name(seat: &NodeName) -> String {
    format!("management/monitor@{seat}")
}

/// What the manager monitor uses of its node.
struct Around(Weak<Inner>);

impl Surroundings<Manager> for Around {
    fn started(&self, addr: RoleAddr<Manager>) {
        let Some(inner) = self.0.upgrade() else { return };
        let _known = inner.monitor.set(addr);
        let view = inner.views.watch().borrow().clone();
        if !view.nodes.is_empty() {
            inner.tell(ManagerMessage::Viewed(view));
        }
    }

    fn now(&self) -> Now {
        let Some(inner) = self.0.upgrade() else { return Now::default() };
        let clock = inner.node.clock();
        Now { at: clock.now(), wall_ms: clock.wall_ms() }
    }

    fn post(&self, letters: &mut Vec<Letter<Word>>) {
        let Some(inner) = self.0.upgrade() else { return };
        for Letter { to, message } in letters.drain(..) {
            match (to, message) {
                (To::Node(to), Word::Letter(letter)) => inner.send(&to.name, letter),
                (To::Here, Word::Letter(letter)) => inner.tell(ManagerMessage::Letter(letter)),
                (_, Word::Manager(manager, longest)) => inner.found(manager, longest),
            }
        }
    }

    fn append(&self, _records: Vec<()>, done: Done) {
        done(Ok(()));
    }

    fn append_lazily(&self, _records: Vec<()>) {}

    fn truncate(&self, _truncate: Truncate<()>, done: Done) {
        done(Ok(()));
    }

    fn shelf(&self, _tasks: Vec<ShelfTask>) {}

    fn recover(&self, done: Recovered<Manager>) {
        done(Arc::new(Survived { records: Vec::new(), snapshot: None }));
    }

    fn fail(&self, why: &str) {
        tracing::error!(why, "the manager monitor cannot go on");
    }
}

/// Words of other nodes' manager monitors.
struct Route {
    inner: Weak<Inner>,
    messages: Counter,
}

impl Deliver for Route {
    fn deliver(&self, from: &NodeId, batch: Vec<Frame>, node: &Node) {
        let Some(inner) = self.inner.upgrade() else { return };
        let Some(monitor) = inner.monitor.get() else { return };
        let mut inputs = Vec::with_capacity(batch.len());
        for frame in batch {
            self.messages.increment();
            match decode::<ManagerMessage>(&frame.body) {
                Ok(message) => inputs.push((from.clone(), message)),
                Err(_unreadable) => node.dead_letter(&SendError::Codec),
            }
        }
        monitor.do_send(Inputs(inputs));
    }

    fn type_name(&self) -> &'static str {
        "manager"
    }

    fn mailbox_len(&self) -> usize {
        0
    }
}

/// Number of the message between manager monitors.
const WORD: u64 = 1;

impl fmt::Debug for Managers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Managers").field("node", &self.0.node).finish_non_exhaustive()
    }
}
