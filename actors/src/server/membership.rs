//! Views at a node: the handle, and the shell of its monitor.
//!
//! ```no_run
//! # use synod::server::membership::Views;
//! # async fn run(views: Views) {
//! let mut changes = views.watch();
//! loop {
//!     let view = changes.borrow_and_update().clone();
//!     println!("view {}: {} nodes", view.id, view.nodes.len());
//!     if changes.changed().await.is_err() {
//!         return; // the node stopped
//!     }
//! }
//! # }
//! ```

use std::{
    collections::BTreeSet,
    fmt,
    rc::Rc,
    sync::{
        Arc, Mutex, OnceLock, Weak,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
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

use super::{
    board::Board,
    metrics,
    site::{lock, role_policy},
};
use crate::{
    consensus::{
        message::{Message, ProposerMessage},
        timing::Timing,
    },
    effects::{Letter, ShelfTask, To, Truncate},
    election::store::{decode, encode},
    machine::{Now, Survived},
    membership::{
        message::{Heard, MonitorMessage, Op, Progress, View, Word},
        monitor::{Monitor, Pauses},
        store::{Desk, JUDGE, store_id},
    },
    replicated::{DEADLINE_DEFAULT, Submission, Submit},
    role::{Done, Inputs, Recovered, Role, RoleAddr, Surroundings},
};

/// Who is there, as the log decided it, seen from one node. Cloning is cheap; it works from any
/// thread.
#[derive(Clone)]
pub struct Views(Arc<Inner>);

struct Inner {
    node: Node,
    /// The seat it speaks for.
    me: NodeId,
    submit: Arc<dyn Submit>,
    desk: OnceLock<Arc<Desk>>,
    monitor: OnceLock<RoleAddr<Monitor>>,
    binding: OnceLock<Binding>,
    halted: AtomicBool,
    /// Nodes that are down by the view and were heard again.
    returning: Mutex<BTreeSet<NodeName>>,
    /// What the monitor passed on, in order.
    alerts: watch::Sender<View>,
}

impl Views {
    pub(super) fn new(
        node: &Node,
        me: &NodeId,
        board: &Arc<Board>,
        submit: Arc<dyn Submit>,
    ) -> Self {
        let inner = Arc::new(Inner {
            node: node.clone(),
            me: me.clone(),
            submit,
            desk: OnceLock::new(),
            monitor: OnceLock::new(),
            binding: OnceLock::new(),
            halted: AtomicBool::new(false),
            returning: Mutex::default(),
            alerts: watch::Sender::new(View::default()),
        });
        let told = Arc::downgrade(&inner);
        let desk = Desk::new(move |view| {
            if let Some(inner) = told.upgrade() {
                let metrics = inner.node.metrics();
                metrics.gauge(&metrics::VIEW, &[]).set(view.id.number());
                inner.tell(MonitorMessage::Decided(view.clone()));
            }
        });
        let _first = inner.desk.set(Arc::new(desk));
        let shown = Arc::downgrade(&inner);
        board.show_view(move || shown.upgrade().map(|inner| Self(inner).shown()));
        Self(inner)
    }

    /// The newest view that this node came to: never waits, may be old. An empty one at a node that
    /// does not execute the log.
    pub fn now(&self) -> View {
        self.desk().view()
    }

    /// Every view from now on, as this node's monitor passes them on; who looks seldom misses some.
    pub fn watch(&self) -> watch::Receiver<View> {
        self.0.alerts.subscribe()
    }

    /// Starts the monitor: an actor of its own, supervised, reached by other nodes.
    pub(super) fn start(&self, timing: &Timing) {
        let (node, me) = (&self.0.node, self.0.me.clone());
        let name = monitor_name(&me.name);
        let pauses = Pauses { node: timing.quiet, auxiliary: 4 * timing.auxiliary };
        let (inner, mut life) = (Arc::downgrade(&self.0), 0);
        let made = node.spawn_with(&name, role_policy(), move || {
            life += 1;
            let machine = Monitor::new(me.clone(), pauses);
            Role::new(machine, Rc::new(Around(inner.clone())), life)
        });
        if let Err(taken) = made {
            return tracing::error!(%taken, "a node has one monitor");
        }
        let count = |label| node.metrics().counter(&metrics::MESSAGES, &[("role", label)]);
        let route = Route { inner: Arc::downgrade(&self.0), messages: count("monitor") };
        match node.bind(&name, Arc::new(route)) {
            Ok(binding) => drop(self.0.binding.set(binding)),
            Err(error) => tracing::error!(%error, "the monitor cannot be reached"),
        }
    }

    /// A sign of life came from another node.
    pub(super) fn heard(&self, from: &NodeId, beat: &Message) {
        let progress = match beat {
            Message::Proposer(ProposerMessage::Heartbeat(beat)) => {
                let (executed, durable) = (beat.chosen_upto.0, beat.durable_upto.0);
                // Who makes up for a torn journal says that nothing is durable.
                (durable > 0).then_some(Progress { executed, durable })
            }
            Message::Proposer(ProposerMessage::Standing(_)) => None,
            _ => return,
        };
        self.0.tell(MonitorMessage::Heard(Heard { node: from.clone(), progress }));
    }

    /// Whether this node's own state cannot be trusted.
    pub(super) fn halted(&self, halted: bool) {
        if self.0.halted.swap(halted, Relaxed) != halted {
            self.0.tell(MonitorMessage::Halted(halted));
        }
    }

    pub(super) fn desk(&self) -> &Arc<Desk> {
        self.0.desk.get().expect("set when it was made")
    }

    /// What people are shown.
    fn shown(&self) -> Shown {
        Shown { view: self.now(), returning: lock(&self.0.returning).clone() }
    }
}

/// What the status document takes from here.
pub(super) struct Shown {
    pub(super) view: View,
    /// Nodes that are down by the view and were heard again.
    pub(super) returning: BTreeSet<NodeName>,
}

impl Inner {
    /// Tells the monitor something; lost while it is not there.
    fn tell(&self, message: MonitorMessage) {
        if let Some(monitor) = self.monitor.get() {
            monitor.do_send(Inputs(vec![(self.me.clone(), message)]));
        }
    }

    /// Lost, it is asked for again.
    fn propose(&self, op: &Op) {
        tracing::info!(node = %op.node, state = op.state.as_str(), by = ?op.by, "asks for a verdict");
        self.submit.submit(vec![Submission {
            actor: store_id(),
            function: JUDGE.id,
            args: encode(op).into(),
            deadline: DEADLINE_DEFAULT,
            idempotency: None,
            done: Box::new(drop),
        }]);
    }

    fn alert(&self, view: View) {
        tracing::debug!(view = view.id.number(), "another view");
        self.alerts.send_replace(view);
    }
}

/// The name the monitor of a seat is reached by.
fn monitor_name(seat: &NodeName) -> String {
    format!("membership/monitor@{seat}")
}

/// What the monitor uses of its node.
struct Around(Weak<Inner>);

impl Surroundings<Monitor> for Around {
    fn started(&self, addr: RoleAddr<Monitor>) {
        let Some(inner) = self.0.upgrade() else { return };
        // It keeps its address when it is rebuilt. What was decided so far it is told again.
        let _known = inner.monitor.set(addr);
        let view = inner.desk.get().map(|desk| desk.view()).unwrap_or_default();
        inner.tell(MonitorMessage::Halted(inner.halted.load(Relaxed)));
        if !view.nodes.is_empty() {
            inner.tell(MonitorMessage::Decided(view));
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
                (To::Node(to), Word::Monitor(message)) => {
                    let (target, body) = (monitor_name(&to.name), encode(&message));
                    // Lost, another is asked.
                    let _told = inner.node.tell(&to.name, &target, WORD, Lane::Control, &body);
                }
                (To::Here, Word::Monitor(message)) => inner.tell(message),
                (_, Word::Propose(op)) => inner.propose(&op),
                (_, Word::Alert(view)) => inner.alert(view),
                (_, Word::Returning(nodes)) => *lock(&inner.returning) = nodes,
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

    fn recover(&self, done: Recovered<Monitor>) {
        done(Arc::new(Survived { records: Vec::new(), snapshot: None }));
    }

    fn fail(&self, why: &str) {
        tracing::error!(why, "the monitor cannot go on");
    }
}

/// Words of other nodes' monitors.
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
            match decode::<MonitorMessage>(&frame.body) {
                Ok(message) => inputs.push((from.clone(), message)),
                Err(_unreadable) => node.dead_letter(&SendError::Codec),
            }
        }
        monitor.do_send(Inputs(inputs));
    }

    fn type_name(&self) -> &'static str {
        "monitor"
    }

    fn mailbox_len(&self) -> usize {
        0
    }
}

/// Number of the message between monitors.
const WORD: u64 = 1;

impl fmt::Debug for Views {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Views").field("node", &self.0.node).finish_non_exhaustive()
    }
}
