//! What the roles of one node share: the way to one another, to the disk, and to people.

mod roles;
pub(super) mod shelf;
mod survived;

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    rc::{Rc, Weak},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use synod_runtime::{
    identity::{NodeId, NodeName},
    journal::{self, Journal},
    node::{Node, PeerEvent},
    watch,
    world::{Disk, Rng},
};

pub(crate) use self::survived::survived;
pub(super) use self::{
    roles::{ROLES, Resident, Targets, role_name, role_policy},
    survived::{GAP, is_without_gap},
};
use self::{
    roles::{Roles, Route},
    shelf::Shelf,
};
use super::{
    board::Board, clients::Clients, elections::Elections, membership::Views, metrics,
    passive::Passive, services::Services,
};
use crate::{
    consensus::{
        acceptor::Acceptor,
        auxiliary::Auxiliary,
        configuration::Configuration,
        founder::Founder,
        home::Home,
        learner::Learner,
        message::{Message, NodeRole, Peer, ProposerMessage, Report},
        proposer::Proposer,
        record::{Image, Record},
        replica::Replica,
        timing::VoteStyle,
    },
    effects::{Letter, ShelfTask, To, Truncate},
    machine::{Now, Survived},
    replicated::Submit,
    role::{Done, Inputs, Recovered, Role, RoleAddr, Surroundings},
};

/// See the module's documentation.
pub(super) struct Site {
    /// Who the roles are to one another: the node's own identity, unless several seats share it.
    pub(super) me: NodeId,
    pub(super) role: NodeRole,
    pub(super) node: Node,
    pub(super) journal: Journal,
    pub(super) journal_dir: PathBuf,
    pub(super) board: Arc<Board>,
    pub(super) clients: Arc<Clients>,
    pub(super) elections: Elections,
    pub(super) services: Services,
    pub(super) views: Views,
    roles: RefCell<Roles>,
    /// The proposer again, for hooks on other threads.
    proposer: Arc<Mutex<Option<RoleAddr<Proposer>>>>,
    /// All seats of this node that share the arbiter, this one included.
    seats: Seats,
    /// What was found at the start, until the roles have it; later ones read the journal anew.
    found: RefCell<Option<Arc<Survived<Record, Image>>>>,
    /// It is known how the log begins, or that this node joins one.
    founded: Cell<bool>,
    /// This very node was there when the log began.
    was_there: Cell<bool>,
    /// What is to be done then, in order.
    waiting: RefCell<Vec<Waiting>>,
    pub(super) failed: watch::Sender<Option<String>>,
    /// Whether the cluster has removed this node.
    pub(super) removed: watch::Sender<bool>,
    /// The newest configuration whose addresses are known to the links.
    connected: Cell<u64>,
    /// Nodes that were removed, as long as they are linked: what they lack they still learn.
    leaving: RefCell<BTreeSet<NodeName>>,
    disk: Arc<dyn Disk>,
    pub(super) snapshot_dir: PathBuf,
    pub(super) shelf: Arc<Shelf>,
    targets: RefCell<Targets>,
    /// Auxiliaries without a machine, which this node asks in their stead.
    pub(super) passives: RefCell<BTreeMap<NodeName, Passive>>,
}

/// The seats of one node, by name.
pub(super) type Seats = Rc<RefCell<BTreeMap<NodeName, Weak<Site>>>>;

pub(super) type Waiting = Box<dyn FnOnce(&Rc<Site>)>;

/// What a site is made of.
pub(super) struct Parts {
    pub(super) me: NodeId,
    pub(super) role: NodeRole,
    pub(super) journal: Journal,
    pub(super) journal_dir: PathBuf,
    pub(super) snapshot_dir: PathBuf,
    pub(super) found: Survived<Record, Image>,
    pub(super) style: VoteStyle,
}

impl Site {
    pub(super) fn new(node: &Node, seats: &Seats, parts: Parts) -> Rc<Self> {
        let Parts { me, role, journal, journal_dir, snapshot_dir, found, style } = parts;
        let disk = Arc::clone(&node.world().disk);
        let shelf = Arc::new(Shelf::new(&disk, snapshot_dir.clone()));
        metrics::name_roles(node.metrics());
        metrics::follow_journal(node.metrics(), &journal);
        let board = Arc::new(Board::new(node.clone(), me.clone(), journal.clone(), style));
        let clients = Arc::new(Clients::new(me.clone(), journal.clone(), node.metrics()));
        let submit = Arc::clone(&clients) as Arc<dyn Submit>;
        let elections = Elections::new(node, &me, Arc::clone(&board), Arc::clone(&submit));
        let views = Views::new(node, &me, &board, Arc::clone(&submit));
        let services = Services::new(node, &elections, &views, &board, submit);
        let site = Rc::new(Self {
            elections,
            services,
            views,
            board,
            clients,
            node: node.clone(),
            journal,
            journal_dir,
            roles: RefCell::default(),
            proposer: Arc::default(),
            seats: Rc::clone(seats),
            found: RefCell::new(Some(Arc::new(found))),
            founded: Cell::new(false),
            was_there: Cell::new(false),
            waiting: RefCell::default(),
            failed: watch::Sender::new(None),
            removed: watch::Sender::new(false),
            connected: Cell::new(0),
            leaving: RefCell::default(),
            disk,
            snapshot_dir,
            shelf,
            targets: RefCell::default(),
            passives: RefCell::default(),
            me,
            role,
        });
        seats.borrow_mut().insert(site.me.name.clone(), Rc::downgrade(&site));
        site.watch_peers();
        site
    }

    /// Builds a role for each of its lives.
    pub(super) fn role<M, F>(
        self: &Rc<Self>,
        mut make: F,
    ) -> impl FnMut() -> Role<M> + use<M, F> + 'static
    where
        M: Resident,
        F: FnMut() -> M + 'static,
    {
        let around: Rc<dyn Surroundings<M>> = Rc::new(Around(Rc::clone(self)));
        let mut life = 0;
        move || {
            life += 1;
            Role::new(make(), Rc::clone(&around), life)
        }
    }

    /// Starts a role under its name: an actor of its own, supervised, reached by its peers.
    pub(super) fn spawn<M: Resident>(self: &Rc<Self>, factory: impl FnMut() -> Role<M> + 'static) {
        let name = role_name(M::ROLE, &self.me.name);
        let supervised = self.node.spawn_with(&name, role_policy(), factory);
        self.move_in(supervised.unwrap_or_else(|taken| panic!("a role is started once: {taken}")));
    }

    /// From now on that role is found at this address, here and by its peers.
    fn move_in<M: Resident>(&self, addr: RoleAddr<M>) {
        let mut roles = self.roles.borrow_mut();
        let slot = M::slot(&mut roles);
        if slot.addr.as_ref() == Some(&addr) {
            return;
        }
        // An earlier actor of this role lets go of the name first.
        drop(slot.binding.take());
        let name = role_name(M::ROLE, &self.me.name);
        let route = Route::new(&self.node, &self.views, addr.clone());
        let binding = self.node.bind(&name, Arc::new(route));
        if let Err(error) = &binding {
            self.fail(&format!("cannot name a role: {error}"));
        }
        slot.fill(&self.me, addr, binding.ok());
    }

    /// The founder says how the log begins, or that there is one already. The roles that were
    /// started by then wrote nothing yet, so what was found still holds for them.
    fn found(self: &Rc<Self>, genesis: Option<Configuration>) {
        if self.founded.replace(true) {
            return;
        }
        let there = |genesis: &Configuration| {
            let mut all = genesis.mains.iter().chain(&genesis.auxiliaries);
            genesis.epoch == 0 && all.any(|node| *node == self.me)
        };
        self.was_there.set(genesis.as_ref().is_some_and(there));
        if let Some(genesis) = genesis.map(Record::Genesis) {
            self.remember(genesis);
        }
        for start in self.waiting.take() {
            start(self);
        }
        self.found.borrow_mut().take();
    }

    /// A genesis written after the journal was read belongs to what the roles start from.
    fn remember(&self, record: Record) {
        let mut found = self.found.borrow_mut();
        let Some(known) = found.as_ref() else { return };
        if !known.records.contains(&record) {
            let mut records = vec![record];
            records.extend(known.records.iter().cloned());
            *found = Some(Arc::new(Survived { records, snapshot: known.snapshot.clone() }));
        }
    }

    /// Whether this very node, of this incarnation, was there when the log began, as far as its
    /// journal still tells.
    pub(super) fn was_there(&self) -> bool {
        self.was_there.get()
    }

    /// Does it once it is known how the log begins.
    pub(super) fn when_founded(self: &Rc<Self>, start: Waiting) {
        if self.founded.get() { start(self) } else { self.waiting.borrow_mut().push(start) }
    }

    fn send(self: &Rc<Self>, to: &NodeId, message: Message) {
        if to.name == self.me.name {
            return self.deliver(&self.me, message);
        }
        if let Some(passive) = self.passives.borrow().get(&to.name) {
            return passive.ask(to, message);
        }
        let beside = self.seats.borrow().get(&to.name).and_then(Weak::upgrade);
        if let Some(seat) = beside {
            return seat.deliver(&self.me, message);
        }
        let told = self.targets.borrow_mut().tell(&self.node, &to.name, &to.name, &message);
        if let Err(error) = told {
            tracing::trace!(%to, %error, "not sent; the protocol asks again");
        }
    }

    /// Hands a message to a role of this seat.
    pub(super) fn deliver(self: &Rc<Self>, from: &NodeId, message: Message) {
        match message {
            Message::Acceptor(message) => self.hand::<Acceptor>(from, message),
            Message::Auxiliary(message) => self.hand::<Auxiliary>(from, message),
            Message::Proposer(message) => self.hand::<Proposer>(from, message),
            Message::Learner(message) => self.hand::<Learner>(from, message),
            Message::Replica(message) => self.hand::<Replica>(from, message),
            Message::Home(message) => self.hand::<Home>(from, message),
            Message::Founder(message) => self.hand::<Founder>(from, message),
            Message::Founded(genesis) => self.found(genesis),
            Message::Unfit(why) => self.fail(&why),
            Message::Client(answer) => self.clients.finish(answer),
            Message::Report(report) => {
                self.heed(&report);
                self.board.note(report);
            }
        }
    }

    /// What the cluster decided of its nodes: where to reach new ones, and whether this one still
    /// belongs to it.
    fn heed(&self, report: &Report) {
        let (newest, in_force) = match report {
            Report::Learner { history, .. } => (history.newest(), history.current()),
            Report::Auxiliary { configuration, .. } => {
                (configuration.as_ref(), configuration.as_ref())
            }
            Report::Dismissed => return self.dismiss(),
            Report::Proposer(_) => return self.let_go(),
            Report::Replica { halted, .. } => return self.views.halted(halted.is_some()),
            Report::Home(_) => return,
        };
        if let Some(newest) = newest.filter(|newest| newest.epoch > self.connected.get()) {
            self.connected.set(newest.epoch);
            for (name, address) in &newest.addresses {
                self.node.links().connect(name, address);
            }
            let gone = newest.removed.iter().map(|node| &node.name);
            let gone = gone.filter(|name| newest.role_of(name).is_none()).cloned();
            *self.leaving.borrow_mut() = gone.collect();
        }
        self.let_go();
        if in_force.is_some_and(|configuration| configuration.removed.contains(&self.me)) {
            self.dismiss();
        }
    }

    /// Nodes that were removed and have hung up are not dialled again.
    fn let_go(&self) {
        if self.leaving.borrow().is_empty() {
            return;
        }
        let links = self.node.links();
        self.leaving.borrow_mut().retain(|name| {
            let linked = links.is_up(name).is_some();
            if !linked {
                links.forget(name);
            }
            linked
        });
    }

    fn dismiss(&self) {
        if !self.removed.send_replace(true) {
            tracing::warn!("the cluster has removed this node");
        }
    }

    fn hand<M: Resident>(&self, from: &NodeId, message: M::Message) {
        M::slot(&mut self.roles.borrow_mut()).hand(&self.me, from, message);
    }

    /// Tells one role of this seat something on behalf of the node.
    pub(super) fn tell(self: &Rc<Self>, message: impl Into<Message>) {
        self.deliver(&self.me, message.into());
    }

    /// The other seats of this node.
    fn beside(&self) -> Vec<Rc<Self>> {
        let seats = self.seats.borrow();
        let others = seats.iter().filter(|(name, _)| **name != self.me.name);
        others.filter_map(|(_, seat)| seat.upgrade()).collect()
    }

    /// This seat, as proposers are told of it.
    fn as_peer(&self) -> Peer {
        Peer { node: self.me.clone(), role: self.role, up: true }
    }

    /// A stream of chance for a role. Seats of one node draw different numbers.
    pub(super) fn rng(&self, role: &str) -> Rng {
        if self.me.name == *self.node.name() {
            self.node.rng(role)
        } else {
            self.node.rng(&role_name(role, &self.me.name))
        }
    }

    /// Passes what happens to links on to the proposer.
    fn watch_peers(&self) {
        if self.role == NodeRole::Auxiliary {
            return;
        }
        let (me, proposer) = (self.me.clone(), Arc::clone(&self.proposer));
        self.node.watch_peers(Box::new(move |event| {
            let (node, role, up) = match event {
                PeerEvent::Up(peer) => match NodeRole::named(&peer.role) {
                    Some(role) => (peer.id.clone(), role, true),
                    None => return,
                },
                // What it was is known from before.
                PeerEvent::Down { peer, .. } | PeerEvent::Left(peer) => {
                    (peer.clone(), NodeRole::Member, false)
                }
                PeerEvent::Heartbeat { .. } => return,
            };
            if let Some(proposer) = lock(&proposer).as_ref() {
                let news = ProposerMessage::Peer(Peer { node, role, up });
                proposer.do_send(Inputs(vec![(me.clone(), news)]));
            }
        }));
    }

    pub(super) fn fail(&self, why: &str) {
        tracing::error!(why, "this node cannot go on");
        self.failed.send_if_modified(|failed| {
            let first = failed.is_none();
            failed.get_or_insert_with(|| why.to_owned());
            first
        });
    }

    fn recover<M: Resident>(&self, done: Recovered<M>) {
        if let Some(found) = self.found.borrow().as_ref() {
            return done(Arc::clone(found));
        }
        let (disk, dir) = (Arc::clone(&self.disk), self.snapshot_dir.clone());
        let replayed = move |records: Result<Vec<journal::Record>, journal::JournalError>| {
            match records
                .map_err(|e| e.to_string())
                .and_then(|records| survived(&records, disk.as_ref(), &dir))
            {
                Ok(found) if is_without_gap(&found) => done(Arc::new(found)),
                Ok(_) => tracing::error!("a role cannot be rebuilt: {GAP}"),
                // Without its memory the role must not act: its life does not begin.
                Err(why) => tracing::error!(why, "a role cannot be rebuilt"),
            }
        };
        self.journal.replay(Box::new(replayed));
    }
}

/// One site, as the surroundings of any of its roles.
struct Around(Rc<Site>);

impl<M: Resident> Surroundings<M> for Around {
    fn started(&self, addr: RoleAddr<M>) {
        self.0.move_in(addr.clone());
        self.0.when_founded(Box::new(move |site| M::began(site, &addr)));
    }

    fn now(&self) -> Now {
        let clock = self.0.node.clock();
        Now { at: clock.now(), wall_ms: clock.wall_ms() }
    }

    fn is_full(&self) -> bool {
        self.0.journal.is_full()
    }

    fn look_for_room(&self) {
        self.0.journal.flush();
    }

    fn took(&self, since: Now) {
        let node = &self.0.node;
        let took = node.clock().now().since(since.at);
        if took >= LONG_TURN {
            tracing::info!(role = M::ROLE, ?took, "a turn took long");
            let seconds = &metrics::LONG_TURN_SECONDS;
            node.metrics().histogram(seconds, &[("role", M::ROLE)]).observe(took);
        }
    }

    fn post(&self, letters: &mut Vec<Letter<Message>>) {
        for Letter { to, message } in letters.drain(..) {
            match to {
                To::Here => self.0.deliver(&self.0.me, message),
                To::Node(node) => self.0.send(&node, message),
            }
        }
    }

    fn append(&self, records: Vec<Record>, done: Done) {
        self.0.journal.append(records.iter().map(Record::to_journal).collect(), done);
    }

    fn append_lazily(&self, records: Vec<Record>) {
        self.0.journal.append_lazy(records.iter().map(Record::to_journal).collect());
    }

    fn truncate(&self, Truncate { upto, carry }: Truncate<Record>, done: Done) {
        self.0.journal.truncate(upto, carry.iter().map(Record::to_journal).collect(), done);
    }

    fn shelf(&self, tasks: Vec<ShelfTask>) {
        let mut roles = self.0.roles.borrow_mut();
        let Some(replica) = <Replica as Resident>::slot(&mut roles).addr.clone() else { return };
        for task in tasks {
            let (me, replica) = (self.0.me.clone(), replica.clone());
            let told = Box::new(move |message| replica.do_send(Inputs(vec![(me, message)])));
            self.0.shelf.put(task, told);
        }
    }

    fn recover(&self, done: Recovered<M>) {
        if M::ROLE == Founder::ROLE {
            return self.0.recover::<M>(done); // it finds out what the others wait for
        }
        self.0.when_founded(Box::new(move |site| site.recover::<M>(done)));
    }

    fn fail(&self, why: &str) {
        self.0.fail(why);
    }
}

/// A turn that takes as long is seen by those who wait for an answer.
const LONG_TURN: Duration = Duration::from_millis(20);

pub(super) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
