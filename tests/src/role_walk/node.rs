//! One main of the walk: its clock, its copy of the roles, its service, its clients.

use std::{collections::BTreeMap, time::Duration};

use rand::RngExt;
use synod::{
    effects::Effects,
    election::{
        count::Count,
        message::{Change, Epoch, Op, Said, Terms},
        roles::{Role, Roles},
        service::{Event, Failed, Service, ServiceMessage, Volunteered, Word},
        watch::{Chronicle, Since, Told},
    },
    machine::{Machine, Now},
    replicated::Position,
};
use synod_runtime::{
    identity::{Incarnation, NodeId},
    world::{Instant, Rng},
};

use super::{Air, ROLES, Slip};

/// A second of true time.
pub(super) const MICROS: u64 = 1_000_000;

/// What a client hears: the word, and how much time was left when it was said.
pub(super) type Heard = (Event, Duration);

pub(super) struct Node {
    id: NodeId,
    /// Nanoseconds of its clock to a microsecond of true time: wrong by one in a hundred at most.
    rate: u64,
    pub(super) life: u64,
    pub(super) leads: bool,
    pub(super) last_arrival: u64,
    pub(super) last_told: u64,
    service: Service,
    roles: Roles,
    chronicle: Chronicle,
    count: Count,
    applied: usize,
    paused_until: u64,
    hung_until: u64,
    /// How long its clients' clocks stood still.
    stood: u64,
    pulsed: u64,
    clients: BTreeMap<u64, Client>,
    handles: u64,
    /// The numbers of flights that are the warden's own.
    proposals: u64,
    out: Effects<Service>,
    proposed: Vec<(u64, Vec<Op>)>,
    looked: u64,
}

/// A client, as far as it was told.
struct Client {
    role: &'static str,
    lease: Option<(Epoch, Instant)>,
    /// It stands; else it is only still acting, having left or lost its service.
    stands: bool,
}

impl Node {
    pub(super) fn new(number: usize, air: &Air, rng: &mut Rng) -> Self {
        let name = ["a", "b", "c"][number];
        let rate = match air.drifts {
            true => [990, 1_010, [990, 1_010][rng.random_range(0..2)]][number],
            false => rng.random_range(990..=1_010),
        };
        let now = Instant::from_nanos(0);
        Self {
            id: NodeId::new(name.parse().expect("a name"), Incarnation(number as u64 + 1)),
            rate,
            life: 1,
            leads: number == 0,
            last_arrival: 0,
            last_told: 0,
            service: Service::new(name, rng.random()),
            roles: Roles::default(),
            chronicle: Chronicle::default(),
            count: Count::starting(now),
            applied: 0,
            paused_until: 0,
            hung_until: 0,
            stood: 0,
            pulsed: 0,
            clients: BTreeMap::new(),
            handles: 0,
            proposals: PROPOSALS,
            out: Effects::default(),
            proposed: Vec::new(),
            looked: 0,
        }
    }

    pub(super) fn clock(&self, now: u64) -> Instant {
        Instant::from_nanos(now * self.rate + 1_000_000_000)
    }

    pub(super) fn is_paused(&self, now: u64) -> bool {
        now < self.paused_until
    }

    fn say(&mut self, now: u64, message: ServiceMessage) {
        let at = Now { at: self.clock(now), wall_ms: 0 };
        self.service.message(at, &self.id, message, &mut self.out);
        self.service.flush(at, &mut self.out);
    }

    /// Timers: the pulse of clients, the service's own, and the warden's.
    pub(super) fn tick(&mut self, now: u64, air: &Air, rng: &mut Rng) {
        if self.is_paused(now) {
            return;
        }
        if now >= self.hung_until && now >= self.pulsed + 25_000 {
            self.pulsed = now;
            self.say(now, ServiceMessage::Pulsed(PULSE));
        }
        let clock = self.clock(now);
        if self.service.deadline().is_some_and(|due| due <= clock) {
            self.service.timeout(Now { at: clock, wall_ms: 0 }, &mut self.out);
        }
        if self.leads && now >= self.looked + 2 * air.tick {
            self.looked = now;
            let overdue = self.count.overdue(&self.roles, clock);
            if !overdue.ops.is_empty() && rng.random_ratio(9, 10) {
                self.proposals += 1;
                self.proposed.push((self.proposals, overdue.ops));
            }
        }
    }

    pub(super) fn apply(&mut self, now: u64, log: &[(Vec<Op>, u64)], by_stamp: bool) {
        let clock = self.clock(now);
        while let Some((ops, stamp)) = log.get(self.applied) {
            self.applied += 1;
            let (at, mut part, mut changes) = (Position(self.applied as u64), 0, Vec::new());
            for op in ops {
                let apply = |roles: &mut Roles, op| roles.apply(at, op, &mut changes);
                self.chronicle.around(at, &mut part, &mut self.roles, op.clone(), apply);
            }
            let counted = if by_stamp { Instant::from_nanos(*stamp) } else { clock };
            self.count.applied(at, counted);
            self.count.changed(clock);
            if !changes.is_empty() {
                self.say(now, ServiceMessage::Changed(changes));
            }
        }
    }

    /// Sees what came of all commands so far, and counts from now.
    pub(super) fn look(&mut self, now: u64, truth: &Roles, applied: usize) {
        if applied == self.applied {
            return;
        }
        let (clock, mut changes) = (self.clock(now), Vec::new());
        self.applied = applied;
        self.count.applied(Position(applied as u64), clock);
        self.count.changed(clock);
        for (role, after) in truth.iter() {
            let before = self.roles.named(&after.name).and_then(Role::holder);
            if before != after.holder() {
                changes.push(Change { role, name: after.name.clone(), holder: after.holder() });
            }
        }
        self.roles = truth.clone();
        if !changes.is_empty() {
            self.say(now, ServiceMessage::Changed(changes));
        }
    }

    pub(super) fn answer(&mut self, now: u64, life: u64, flight: u64, said: Option<Vec<Said>>) {
        if life != self.life || flight > PROPOSALS {
            return;
        }
        let why = || Failed { not_applied: false, why: "lost".to_owned() };
        self.say(now, ServiceMessage::Answer { flight, said: said.ok_or_else(why) });
    }

    /// What whoever watches is told here.
    pub(super) fn told(&mut self, since: &Since) -> Told {
        self.chronicle.since(Position(self.applied as u64), &self.roles, since)
    }

    /// What goes to the log.
    pub(super) fn commands(&mut self) -> Vec<(u64, Vec<Op>)> {
        let mut commands = std::mem::take(&mut self.proposed);
        self.out.now.retain(|letter| match &letter.message {
            Word::Command { flight, ops } => {
                commands.push((*flight, ops.clone()));
                false
            }
            Word::Tell(..) => true,
        });
        commands
    }

    /// What goes to clients.
    pub(super) fn words(&mut self) -> Vec<(u64, Heard)> {
        let told = self.out.now.drain(..).filter_map(|letter| match letter.message {
            Word::Tell(handle, event) => Some((handle, event)),
            Word::Command { .. } => None,
        });
        told.map(|(handle, event)| {
            let left = match &event {
                Event::Leading { grant, .. } => {
                    synod::election::lease::acts_for(grant.terms.lease())
                }
                _ => Duration::ZERO,
            };
            (handle, (event, left))
        })
        .collect()
    }

    pub(super) fn hear(&mut self, now: u64, handle: u64, heard: Heard, slip: Option<Slip>) {
        let clock = self.clock(now);
        let Some(client) = self.clients.get_mut(&handle).filter(|client| client.stands) else {
            return;
        };
        let (event, left) = heard;
        match event {
            Event::Leading { grant, deadline, .. } => {
                let handed_over = slip == Some(Slip::RemainingTimeHandedOver);
                let deadline = if handed_over { clock + left } else { deadline };
                client.lease = Some((grant.epoch, deadline));
            }
            Event::Lost(_) => client.lease = None,
            Event::Ended(_) => (client.lease, client.stands) = (None, false),
            Event::Following(_) => {}
        }
    }

    /// Those of its clients that may act at this instant, as far as they know.
    pub(super) fn acting(&self, now: u64) -> impl Iterator<Item = (&'static str, Epoch)> + '_ {
        let clock = self.clock(now - self.stood.min(now));
        let leases = self.clients.values().filter_map(|one| Some((one.role, one.lease?)));
        leases.filter(move |(_, (_, until))| clock < *until).map(|(role, (epoch, _))| (role, epoch))
    }

    /// What acting clients say to the resource now and then.
    pub(super) fn writes(&self, now: u64, rng: &mut Rng) -> Vec<(String, Epoch)> {
        if self.is_paused(now) {
            return Vec::new();
        }
        let acting = self.acting(now).filter(|_| rng.random_ratio(1, 200));
        acting.map(|(role, epoch)| (role.to_owned(), epoch)).collect()
    }

    pub(super) fn stands_for(&self, role: &str) -> bool {
        self.clients.values().any(|client| client.stands && client.role == role)
    }

    pub(super) fn volunteer(&mut self, now: u64, air: &Air, rng: &mut Rng) {
        if self.clients.values().filter(|client| client.stands).count() >= air.clients {
            return;
        }
        self.handles += 1;
        let role = ROLES[rng.random_range(0..air.roles)];
        let lease = Duration::from_millis(air.leases[rng.random_range(0..3)]);
        let terms = Terms::new(lease, rng.random_range(0..3)).expect("allowed");
        let new = Volunteered {
            handle: self.handles,
            role: role.to_owned(),
            // Two processes may well have one name.
            name: "worker".to_owned(),
            terms,
            stands: true,
            pulse: Some(PULSE),
            adopt: None,
        };
        self.clients.insert(self.handles, Client { role, lease: None, stands: true });
        self.say(now, ServiceMessage::Volunteer(new));
    }

    /// A client stops acting, and leaves.
    pub(super) fn leave(&mut self, now: u64, slip: Option<Slip>, rng: &mut Rng) {
        if self.is_paused(now) || self.clients.is_empty() {
            return;
        }
        let place = rng.random_range(0..self.clients.len());
        let (handle, client) = self.clients.iter_mut().nth(place).expect("there are so many");
        client.stands = false;
        if slip != Some(Slip::ActsAfterResigning) {
            client.lease = None;
        }
        let handle = *handle;
        self.say(now, ServiceMessage::Leave(handle));
    }

    pub(super) fn hang(&mut self, until: u64) {
        self.hung_until = until;
    }

    pub(super) fn pause(&mut self, now: u64, micros: u64, slip: Option<Slip>) {
        if self.is_paused(now) {
            return;
        }
        if slip == Some(Slip::ClockStops) {
            self.stood += micros;
        }
        self.paused_until = now + micros;
    }

    /// The machine starts again: its clients are gone, and it has a prefix of the log.
    pub(super) fn restart(&mut self, now: u64, rng: &mut Rng) {
        self.life += 1;
        self.clients.clear();
        self.service = Service::new(self.id.name.as_str(), rng.random());
        (self.out, self.proposed) = (Effects::default(), Vec::new());
        (self.roles, self.chronicle) = (Roles::default(), Chronicle::default());
        self.applied = 0;
        self.count = Count::starting(self.clock(now));
        self.leads = false;
        self.last_arrival = 0;
    }

    /// Only the service starts again: its clients act on until their leases end.
    pub(super) fn restart_service(&mut self, rng: &mut Rng) {
        self.life += 1;
        self.clients.values_mut().for_each(|client| client.stands = false);
        self.service = Service::new(self.id.name.as_str(), rng.random());
        (self.out, self.proposed) = (Effects::default(), Vec::new());
    }

    /// A peer's state is installed.
    pub(super) fn install(&mut self, now: u64, roles: Roles, applied: usize) {
        self.count.installed(Position(applied as u64), self.clock(now));
        (self.roles, self.applied) = (roles, applied);
        self.chronicle = Chronicle::default();
    }

    /// Faults end, but that the clients may hang for ever.
    pub(super) fn recover(&mut self, now: u64, hang: bool) {
        (self.paused_until, self.leads) = (now, true);
        self.hung_until = if hang { u64::MAX } else { now };
    }

    /// Whether its clients do.
    pub(super) fn hangs(&self, now: u64) -> bool {
        now < self.hung_until
    }
}

/// The pulse behind all clients of a node.
const PULSE: u64 = 1;

/// Flights of the warden's are numbered from here.
const PROPOSALS: u64 = 1 << 32;
