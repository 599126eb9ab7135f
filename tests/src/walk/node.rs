//! A node: its roles, each in the thinnest of shells, its disk and its clock.

use std::{collections::VecDeque, sync::Arc};

use rand::{RngExt, SeedableRng};
use synod::{
    consensus::{
        Timing, VoteStyle,
        acceptor::Acceptor,
        auxiliary::Auxiliary,
        home::Home,
        learner::Learner,
        message::{Message, NodeRole, Standing},
        proposer::Proposer,
        record::{Image, Record},
        replica::Replica,
    },
    effects::{Effects, Letter, Offer, ShelfTask, Truncate},
    machine::{Machine, Now, Survived},
};
use synod_runtime::{
    identity::NodeId,
    world::{Instant, Rng},
};

use super::{
    disk::Disk,
    list::{List, Witness},
};

/// Which machine of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Role {
    Acceptor,
    Learner,
    Replica,
    Proposer,
    Home,
    Auxiliary,
}

impl Role {
    pub(crate) const ALL: [Self; 6] =
        [Self::Acceptor, Self::Learner, Self::Replica, Self::Proposer, Self::Home, Self::Auxiliary];
}

/// Any machine of consensus.
pub(crate) trait Part:
    Machine<Envelope = Message, Record = Record, Snapshot = Image>
{
}
impl<M: Machine<Envelope = Message, Record = Record, Snapshot = Image>> Part for M {}

/// A machine with its mailbox and its alarm.
#[derive(Debug)]
pub(crate) struct Slot<M: Part> {
    machine: M,
    inbox: VecDeque<(NodeId, M::Message)>,
    /// A turn is scheduled.
    due: bool,
    /// An alarm is scheduled for this time of the run.
    alarm: Option<u64>,
    /// Its actor died and is made anew; messages wait.
    rebuilding: bool,
    /// Alarms that changed nothing since time last moved: a machine must not spin.
    spins: (u64, u32),
}

/// What one turn wants done.
#[derive(Debug, Default)]
pub(crate) struct Said {
    pub(crate) now: Vec<Letter<Message>>,
    pub(crate) lazy: Vec<Record>,
    pub(crate) offers: Vec<Offer<Record, Message>>,
    pub(crate) records: Vec<Record>,
    pub(crate) held: Vec<Letter<Message>>,
    pub(crate) truncate: Option<Truncate<Record>>,
    pub(crate) shelf: Vec<ShelfTask>,
}

impl Said {
    fn of<M: Part>(effects: Effects<M>) -> Self {
        let Effects { now, records, lazy, offers, held, truncate, shelf } = effects;
        Self { now, lazy, offers, records, held, truncate, shelf }
    }
}

impl<M: Part> Slot<M> {
    fn new(machine: M) -> Self {
        Self {
            machine,
            inbox: VecDeque::new(),
            due: false,
            alarm: None,
            rebuilding: false,
            spins: (0, 0),
        }
    }

    fn start(&mut self, now: Now, survived: &Survived<Record, Image>) -> Said {
        let mut out = Effects::default();
        self.machine.start(now, survived, &mut out);
        self.machine.flush(now, &mut out);
        Said::of(out)
    }

    fn turn(&mut self, now: Now, most: usize, full: bool) -> Said {
        let mut out = Effects::default();
        self.due = false;
        self.machine.room(full);
        for (from, message) in self.inbox.drain(..most.min(self.inbox.len())) {
            self.machine.message(now, &from, message, &mut out);
        }
        self.machine.flush(now, &mut out);
        Said::of(out)
    }

    fn ring(&mut self, now: Now, full: bool) -> Said {
        let mut out = Effects::default();
        self.machine.room(full);
        self.machine.timeout(now, &mut out);
        self.machine.flush(now, &mut out);
        Said::of(out)
    }
}

/// The machines of a node, as far as it has them.
#[derive(Debug, Default)]
pub(crate) struct Roles {
    acceptor: Option<Slot<Acceptor>>,
    learner: Option<Slot<Learner>>,
    replica: Option<Slot<Replica>>,
    proposer: Option<Slot<Proposer>>,
    home: Option<Slot<Home>>,
    auxiliary: Option<Slot<Auxiliary>>,
}

/// Does the same with whichever machine; `None` if the node does not have it.
macro_rules! with {
    ($roles:expr, $role:expr, $slot:ident => $body:expr) => {
        match $role {
            Role::Acceptor => $roles.acceptor.as_mut().map(|$slot| $body),
            Role::Learner => $roles.learner.as_mut().map(|$slot| $body),
            Role::Replica => $roles.replica.as_mut().map(|$slot| $body),
            Role::Proposer => $roles.proposer.as_mut().map(|$slot| $body),
            Role::Home => $roles.home.as_mut().map(|$slot| $body),
            Role::Auxiliary => $roles.auxiliary.as_mut().map(|$slot| $body),
        }
    };
}

/// How the machines of a cluster are made.
#[derive(Debug, Clone)]
pub(crate) struct Make {
    pub(crate) timing: Timing,
    pub(crate) style: VoteStyle,
    pub(crate) snapshot_log_bytes: u64,
    pub(crate) witness: Arc<Witness>,
}

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) id: NodeId,
    pub(crate) kind: NodeRole,
    pub(crate) up: bool,
    /// Starts so far.
    pub(crate) life: u32,
    pub(crate) roles: Roles,
    pub(crate) disk: Disk,
    /// Nothing runs before this time of the run.
    pub(crate) paused_until: u64,
    /// Syncs take this many times longer.
    pub(crate) stall: u64,
    /// Its disk is full…
    pub(crate) full: bool,
    /// …and has refused something: from then on its roles are told.
    pub(crate) noticed: bool,
    clock: Clock,
    /// Steps up to here were compared with what others learned.
    pub(crate) checked: u64,
    /// An auxiliary's last report of itself.
    pub(crate) standing: Option<Standing>,
    /// The last configuration reported by the learner, and what it executed.
    pub(crate) leads: bool,
}

#[derive(Debug, Clone, Copy, Default)]
struct Clock {
    offset: u64,
    /// Parts per million that it runs too fast.
    drift: u64,
    skew_ms: u64,
}

impl Node {
    pub(crate) fn new(id: NodeId, kind: NodeRole, disk: Disk) -> Self {
        Self {
            id,
            kind,
            up: false,
            life: 0,
            roles: Roles::default(),
            disk,
            paused_until: 0,
            stall: 1,
            full: false,
            noticed: false,
            clock: Clock::default(),
            checked: 0,
            standing: None,
            leads: false,
        }
    }

    /// Sets the clock somewhere, as a boot does.
    pub(crate) fn set_clock(&mut self, offset: u64, drift: u64, skew_ms: u64) {
        self.clock = Clock { offset, drift, skew_ms };
    }

    /// Its disk is full from now on, or has room.
    pub(crate) fn fill(&mut self, full: bool) {
        (self.full, self.noticed, self.disk.shelf.full) = (full, false, full);
    }

    /// The node's own time at the run's time `at`.
    pub(crate) fn now(&self, at: u64) -> Now {
        let Clock { offset, drift, skew_ms } = self.clock;
        let own = offset + at + at / 1_000_000 * drift;
        Now { at: Instant::from_nanos(own), wall_ms: 1_700_000_000_000 + skew_ms + at / 1_000_000 }
    }

    /// How long, by the run's time, until the node's clock shows `deadline`; none if never.
    fn until(&self, at: u64, deadline: Instant) -> Option<u64> {
        let wait = deadline.as_nanos().saturating_sub(self.now(at).at.as_nanos());
        (wait < 1_000_000_000_000).then_some(wait)
    }

    fn survived(&self) -> Survived<Record, Image> {
        Survived { records: self.disk.records.clone(), snapshot: self.disk.snapshot.clone() }
    }

    /// Starts every role from what the disk holds.
    pub(crate) fn start(&mut self, at: u64, make: &Make, rng: &mut Rng) -> Vec<(Role, Said)> {
        self.life += 1;
        self.up = true;
        self.checked = 0;
        self.standing = None;
        self.leads = false;
        self.roles = Roles::default();
        let has: &[Role] = match self.kind {
            NodeRole::Main | NodeRole::Member => &Role::ALL[..5],
            NodeRole::Auxiliary => &[Role::Auxiliary],
        };
        for role in has {
            self.make(*role, make, rng);
        }
        has.iter().map(|role| (*role, self.begin(at, *role))).collect()
    }

    fn make(&mut self, role: Role, make: &Make, rng: &mut Rng) {
        let me = self.id.clone();
        let mut fresh = || Rng::seed_from_u64(rng.random());
        let roles = &mut self.roles;
        match role {
            Role::Acceptor => roles.acceptor = Some(Slot::new(Acceptor::new(me))),
            Role::Learner => roles.learner = Some(Slot::new(Learner::new(me))),
            Role::Replica => {
                let witness = Arc::clone(&make.witness);
                let lists = Box::new(move || vec![List::boxed(&witness)]);
                let replica = Replica::new(me, lists, make.snapshot_log_bytes);
                roles.replica = Some(Slot::new(replica));
            }
            Role::Proposer => {
                let proposer = Proposer::new(me, make.timing, make.style, fresh());
                roles.proposer = Some(Slot::new(proposer));
            }
            Role::Home => {
                let home = Home::new(me, make.timing, fresh());
                roles.home = Some(Slot::new(home));
            }
            Role::Auxiliary => {
                let auxiliary = Auxiliary::new(me, make.timing.probe);
                roles.auxiliary = Some(Slot::new(auxiliary));
            }
        }
    }

    fn begin(&mut self, at: u64, role: Role) -> Said {
        let (now, survived) = (self.now(at), self.survived());
        with!(self.roles, role, slot => slot.start(now, &survived)).unwrap_or_default()
    }

    /// A role's actor dies: its state is gone, its mailbox is not. Answers whether it lived.
    pub(crate) fn kill(&mut self, role: Role) -> bool {
        with!(self.roles, role, slot => !std::mem::replace(&mut slot.rebuilding, true))
            .unwrap_or_default()
    }

    /// Makes a dead role anew.
    pub(crate) fn rebuild(&mut self, at: u64, role: Role, make: &Make, rng: &mut Rng) -> Said {
        /// The new machine takes over the old one's mailbox.
        fn keep<M: Part>(old: Option<Slot<M>>, new: &mut Option<Slot<M>>) {
            if let (Some(old), Some(new)) = (old, new) {
                new.inbox = old.inbox;
                new.due = old.due;
            }
        }
        let Roles { acceptor, learner, replica, proposer, home, auxiliary } = &mut self.roles;
        let mut old = Roles::default();
        match role {
            Role::Acceptor => old.acceptor = acceptor.take(),
            Role::Learner => old.learner = learner.take(),
            Role::Replica => old.replica = replica.take(),
            Role::Proposer => old.proposer = proposer.take(),
            Role::Home => old.home = home.take(),
            Role::Auxiliary => old.auxiliary = auxiliary.take(),
        }
        self.make(role, make, rng);
        let said = self.begin(at, role);
        keep(old.acceptor, &mut self.roles.acceptor);
        keep(old.learner, &mut self.roles.learner);
        keep(old.replica, &mut self.roles.replica);
        keep(old.proposer, &mut self.roles.proposer);
        keep(old.home, &mut self.roles.home);
        keep(old.auxiliary, &mut self.roles.auxiliary);
        if role == Role::Learner {
            self.checked = 0;
        }
        said
    }

    /// Puts a message into a mailbox; answers the role that now needs a turn, if any.
    pub(crate) fn put(&mut self, from: NodeId, message: Message) -> Option<Role> {
        fn push<M: Part>(
            slot: &mut Option<Slot<M>>,
            role: Role,
            from: NodeId,
            message: M::Message,
        ) -> Option<Role> {
            let slot = slot.as_mut()?;
            slot.inbox.push_back((from, message));
            (!slot.due).then_some(role)
        }
        let roles = &mut self.roles;
        let role = match message {
            Message::Acceptor(m) => push(&mut roles.acceptor, Role::Acceptor, from, m),
            Message::Learner(m) => push(&mut roles.learner, Role::Learner, from, m),
            Message::Replica(m) => push(&mut roles.replica, Role::Replica, from, m),
            Message::Proposer(m) => push(&mut roles.proposer, Role::Proposer, from, m),
            Message::Home(m) => push(&mut roles.home, Role::Home, from, m),
            Message::Auxiliary(m) => push(&mut roles.auxiliary, Role::Auxiliary, from, m),
            Message::Founder(_)
            | Message::Founded(_)
            | Message::Unfit(_)
            | Message::Client(_)
            | Message::Report(_) => None,
        };
        self.mark_due(role)
    }

    fn mark_due(&mut self, role: Option<Role>) -> Option<Role> {
        if let Some(role) = role {
            with!(self.roles, role, slot => slot.due = true);
        }
        role
    }

    /// Handles up to `most` messages of a role, and its flush. None while it is being rebuilt.
    pub(crate) fn turn(&mut self, at: u64, role: Role, most: usize) -> Option<Said> {
        let (now, full) = (self.now(at), self.noticed);
        with!(self.roles, role, slot => {
            if slot.rebuilding {
                slot.due = false;
                return None;
            }
            Some(slot.turn(now, most, full))
        })
        .flatten()
    }

    /// Whether messages wait, for which no turn is scheduled yet.
    pub(crate) fn more(&mut self, role: Role) -> bool {
        let more = with!(self.roles, role, slot => {
            !slot.rebuilding && !slot.due && !slot.inbox.is_empty()
        });
        let more = more.unwrap_or_default();
        self.mark_due(more.then_some(role));
        more
    }

    /// Lets a role's alarm ring if its time has come; whether it spins with it.
    pub(crate) fn ring(&mut self, at: u64, role: Role) -> Option<(Said, bool)> {
        let (now, full) = (self.now(at), self.noticed);
        with!(self.roles, role, slot => {
            if slot.rebuilding || slot.alarm.is_none_or(|alarm| alarm > at) {
                return None;
            }
            slot.alarm = None;
            if slot.machine.deadline().is_none_or(|deadline| deadline > now.at) {
                return Some((Said::default(), false));
            }
            let window = at / SPIN_WINDOW;
            slot.spins = if slot.spins.0 == window { (window, slot.spins.1 + 1) } else { (window, 1) };
            Some((slot.ring(now, full), slot.spins.1 > SPINS_MAX))
        })
        .flatten()
    }

    /// When the next alarm of a role is to ring, if it must be scheduled.
    pub(crate) fn alarm(&mut self, at: u64, role: Role) -> Option<u64> {
        let deadline = with!(self.roles, role, slot => slot.machine.deadline()).flatten()?;
        // A timer never fires at the very instant it is set.
        let want = at + self.until(at, deadline)?.max(1_000);
        with!(self.roles, role, slot => {
            let sooner = slot.alarm.is_none_or(|alarm| want < alarm);
            if sooner {
                slot.alarm = Some(want);
            }
            sooner.then_some(want)
        })
        .flatten()
    }

    pub(crate) fn learner(&self) -> Option<&Learner> {
        self.roles.learner.as_ref().filter(|slot| !slot.rebuilding).map(|slot| &slot.machine)
    }

    pub(crate) fn replica(&self) -> Option<&Replica> {
        self.roles.replica.as_ref().filter(|slot| !slot.rebuilding).map(|slot| &slot.machine)
    }

    pub(crate) fn proposer(&self) -> Option<&Proposer> {
        self.roles.proposer.as_ref().filter(|slot| !slot.rebuilding).map(|slot| &slot.machine)
    }
}

/// A role that rings this often within [`SPIN_WINDOW`] would burn a processor for nothing.
const SPINS_MAX: u32 = 50;

/// One millisecond.
const SPIN_WINDOW: u64 = 1_000_000;
