//! Whole clusters of monitors, without anything else: who is accused, when, and by how many views.

use std::collections::BTreeMap;

use rand::{RngExt as _, SeedableRng as _};
use synod_runtime::{
    identity::{Incarnation, NodeId, NodeName},
    world::{Instant, Rng},
};

use super::{
    message::{Heard, Kind, MonitorMessage, Op, Progress, State, View, Word},
    monitor::{Monitor, Pauses},
    table::Views,
};
use crate::{
    effects::{Effects, To},
    machine::{Machine as _, Now, Survived},
    mutation::{ViewRule, set_view_rule},
    replicated::Roster,
};

const MS: u64 = 1_000_000;
const BEAT: u64 = 100;
const PAUSE: u64 = 1_000;

/// What is wrong with a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ill {
    Well,
    /// It is gone.
    Dead,
    /// It hears nothing, and is heard.
    Deaf,
    /// Its disk makes no headway.
    Stuck,
    /// Nothing goes in or out.
    CutOff,
}

struct One {
    id: NodeId,
    kind: Kind,
    ill: Ill,
    monitor: Monitor,
    told: Vec<View>,
    /// Views of the log that it was given.
    given: usize,
    executed: u64,
    durable: u64,
}

enum Event {
    Say(usize, NodeId, MonitorMessage),
    Propose(usize, Op),
}

struct Cluster {
    now: u64,
    rng: Rng,
    nodes: Vec<One>,
    views: Views,
    history: Vec<View>,
    events: BTreeMap<(u64, u64), Event>,
    serial: u64,
    /// Nodes that were taken for down although they were well.
    wronged: Vec<NodeName>,
    /// The log takes so long, in milliseconds, to decide.
    slow_log: u64,
}

impl Cluster {
    fn new(seed: u64, mains: usize, auxiliaries: usize, members: usize) -> Self {
        let ids = |prefix: &str, count: usize, from: u64| -> Vec<NodeId> {
            (0..count)
                .map(|n| {
                    let name = format!("{prefix}{n:02}").parse().unwrap();
                    NodeId::new(name, Incarnation(from + n as u64))
                })
                .collect()
        };
        let (mains, auxiliaries, members) =
            (ids("a", mains, 1), ids("x", auxiliaries, 101), ids("m", members, 201));
        let mut views = Views::default();
        views.roster(&Roster {
            mains: mains.clone(),
            auxiliaries: auxiliaries.clone(),
            members: members.iter().map(|node| node.name.clone()).collect(),
            ..Roster::default()
        });
        let of = |kind, ids: Vec<NodeId>| ids.into_iter().map(move |id| (kind, id));
        let all = of(Kind::Main, mains).chain(of(Kind::Auxiliary, auxiliaries));
        let ms = std::time::Duration::from_millis;
        let pauses = Pauses { node: ms(PAUSE), auxiliary: ms(PAUSE) };
        let nodes = all.chain(of(Kind::Member, members)).map(|(kind, id)| One {
            monitor: Monitor::new(id.clone(), pauses),
            id,
            kind,
            ill: Ill::Well,
            told: Vec::new(),
            given: 0,
            executed: 1,
            durable: 1,
        });
        let history = vec![views.view()];
        let mut cluster = Self {
            now: BEAT * MS,
            rng: Rng::seed_from_u64(seed),
            nodes: nodes.collect(),
            views,
            history,
            events: BTreeMap::new(),
            serial: 0,
            wronged: Vec::new(),
            slow_log: 20,
        };
        for one in 0..cluster.nodes.len() {
            let now = cluster.time();
            let mut out = Effects::default();
            let survived = Survived { records: Vec::new(), snapshot: None };
            cluster.nodes[one].monitor.start(now, &survived, &mut out);
        }
        cluster
    }

    fn time(&self) -> Now {
        Now { at: Instant::from_nanos(self.now), wall_ms: 0 }
    }

    fn at(&mut self, ms: u64, event: Event) {
        self.serial += 1;
        self.events.insert((self.now + ms * MS, self.serial), event);
    }

    fn number(&self, name: &NodeName) -> usize {
        self.nodes.iter().position(|one| one.id.name == *name).unwrap()
    }

    fn is_linked(&self, from: usize, to: usize) -> bool {
        let (from, to) = (self.nodes[from].ill, self.nodes[to].ill);
        let speaks = !matches!(from, Ill::Dead | Ill::CutOff);
        speaks && !matches!(to, Ill::Dead | Ill::CutOff | Ill::Deaf)
    }

    fn has_majority(&self) -> bool {
        let alive = |one: &&One| !matches!(one.ill, Ill::Dead | Ill::CutOff);
        let votes = self.nodes.iter().filter(|one| one.kind != Kind::Member);
        2 * votes.clone().filter(alive).count() > votes.count()
    }

    fn act(&mut self, one: usize, mut out: Effects<Monitor>) {
        for letter in out.now.drain(..) {
            match (letter.to, letter.message) {
                (To::Node(to), Word::Monitor(message)) => {
                    let delay = self.rng.random_range(1..20);
                    let (to, from) = (self.number(&to.name), self.nodes[one].id.clone());
                    self.at(delay, Event::Say(to, from, message));
                }
                (_, Word::Propose(op)) => {
                    let delay = self.slow_log + self.rng.random_range(1..20);
                    self.at(delay, Event::Propose(one, op));
                }
                (_, Word::Returning(_)) => {}
                (_, Word::Alert(view)) => self.nodes[one].told.push(view),
                (To::Here, Word::Monitor(_)) => unreachable!("it does not speak to itself"),
            }
        }
    }

    fn say(&mut self, to: usize, from: &NodeId, message: MonitorMessage) {
        let (now, mut out) = (self.time(), Effects::default());
        self.nodes[to].monitor.message(now, from, message, &mut out);
        self.act(to, out);
    }

    fn decide(&mut self, op: &Op) {
        if !self.views.apply(op) {
            return;
        }
        let view = self.views.view();
        for one in &self.nodes {
            let is_well = matches!(one.ill, Ill::Well | Ill::Deaf);
            if is_well && op.node == one.id && op.state == State::Down {
                self.wronged.push(one.id.name.clone());
            }
        }
        self.history.push(view);
    }

    fn beat(&mut self) {
        for from in 0..self.nodes.len() {
            let one = &mut self.nodes[from];
            one.executed += 1;
            if one.ill != Ill::Stuck {
                one.durable = one.executed;
            }
            let (node, kind) = (one.id.clone(), one.kind);
            let progress = Progress { executed: one.executed, durable: one.durable };
            let progress = (kind != Kind::Auxiliary).then_some(progress);
            for to in 0..self.nodes.len() {
                let concerned = kind == Kind::Main || self.nodes[to].kind == Kind::Main;
                if from == to || !concerned || !self.is_linked(from, to) {
                    continue;
                }
                let heard = MonitorMessage::Heard(Heard { node: node.clone(), progress });
                let (me, delay) = (self.nodes[to].id.clone(), self.rng.random_range(1..40));
                self.at(delay, Event::Say(to, me, heard));
            }
        }
    }

    /// Lets so many milliseconds pass.
    fn pass(&mut self, ms: u64) {
        let end = self.now + ms * MS;
        while self.now < end {
            if (self.now / MS).is_multiple_of(BEAT) {
                self.beat();
            }
            while let Some(entry) = self.events.first_entry().filter(|e| e.key().0 <= self.now) {
                match entry.remove() {
                    Event::Say(to, from, message) => {
                        let alive = !matches!(self.nodes[to].ill, Ill::Dead | Ill::CutOff);
                        if alive {
                            self.say(to, &from, message);
                        }
                    }
                    Event::Propose(by, op) => {
                        let there = !matches!(self.nodes[by].ill, Ill::Dead | Ill::CutOff);
                        if there && self.has_majority() {
                            self.decide(&op);
                        }
                    }
                }
            }
            self.hand_out();
            self.look();
            self.now += 10 * MS;
        }
    }

    /// Gives each node the views it does not have yet, some sooner than others.
    fn hand_out(&mut self) {
        for one in 0..self.nodes.len() {
            let there = !matches!(self.nodes[one].ill, Ill::Dead | Ill::CutOff);
            if there && self.nodes[one].given < self.history.len() && self.rng.random_bool(0.5) {
                let (me, view) =
                    (self.nodes[one].id.clone(), self.history[self.nodes[one].given].clone());
                self.nodes[one].given += 1;
                self.say(one, &me, MonitorMessage::Decided(view));
            }
        }
    }

    fn look(&mut self) {
        for one in 0..self.nodes.len() {
            let (now, due) = (self.time(), self.nodes[one].monitor.deadline());
            let runs = self.nodes[one].kind != Kind::Auxiliary && self.nodes[one].ill != Ill::Dead;
            if runs && due.is_some_and(|due| due <= now.at) {
                let mut out = Effects::default();
                self.nodes[one].monitor.timeout(now, &mut out);
                self.act(one, out);
            }
        }
    }

    fn down(&self) -> Vec<String> {
        let view = self.views.view();
        let down = view.nodes.iter().filter(|(_, place)| place.state != State::Up);
        down.map(|(name, _)| name.to_string()).collect()
    }

    /// What must hold at any time.
    fn judge(&self) -> Result<(), String> {
        if let Some(wronged) = self.wronged.first() {
            return Err(format!("{wronged} was taken for down, and is well"));
        }
        for one in &self.nodes {
            if one.told != self.history[..one.given] {
                return Err(format!("{}: its alerts are not the views in order", one.id));
            }
        }
        Ok(())
    }
}

fn while_off<T>(rule: ViewRule, scene: impl FnOnce() -> T) -> T {
    set_view_rule(Some(rule));
    let result = scene();
    set_view_rule(None);
    result
}

/// Nothing fails: nothing is proposed, and nobody is asked.
#[test]
fn while_nothing_fails_monitors_are_silent() {
    let mut cluster = Cluster::new(1, 2, 1, 61);
    cluster.pass(30_000);
    assert_eq!(cluster.history.len(), 1);
    cluster.judge().unwrap();
    let said = cluster.events.values().filter(|event| match event {
        Event::Say(_, _, message) => !matches!(message, MonitorMessage::Heard(_)),
        Event::Propose(..) => true,
    });
    assert_eq!(said.count(), 0);
}

fn deaf(seed: u64, who: usize) -> Result<(), String> {
    let mut cluster = Cluster::new(seed, 3, 0, 5);
    cluster.pass(5_000);
    cluster.nodes[who].ill = Ill::Deaf;
    cluster.pass(30_000);
    cluster.judge()
}

/// One that hears nobody accuses everybody, and nobody agrees.
#[test]
fn one_sick_node_does_not_take_others_down() {
    for seed in 0..8 {
        deaf(seed, seed as usize % 8).unwrap();
    }
    let off = while_off(ViewRule::SecondOpinion, || deaf(0, 0));
    assert!(off.is_err(), "without a second opinion it does");
}

fn flapping(seed: u64) -> Result<usize, String> {
    let mut cluster = Cluster::new(seed, 2, 1, 61);
    cluster.pass(5_000);
    for _ in 0..20 {
        cluster.nodes[10].ill = Ill::Dead;
        cluster.pass(7_000);
        cluster.nodes[10].ill = Ill::Well;
        cluster.pass(5_000);
    }
    cluster.judge()?;
    let views = cluster.history.len();
    cluster.pass(60_000);
    cluster.judge()?;
    match cluster.down() {
        down if down.is_empty() => Ok(views),
        down => Err(format!("never came back: {down:?}")),
    }
}

/// Of 64 nodes one comes and goes: the others stay, it costs ever fewer views, and it is back soon
/// after it stays.
#[test]
fn a_flapping_node_moves_nobody_else_and_costs_ever_fewer_views() {
    let patient = flapping(2).unwrap();
    let hasty = while_off(ViewRule::FallsCount, || flapping(2)).unwrap();
    assert!(patient * 3 < hasty, "{patient} views, and {hasty} if it is let in at once");
}

/// The dead are found within a bound, whatever their kind, and are back soon after they are.
#[test]
fn the_dead_are_found_and_the_living_come_back() {
    for (seed, who) in [(3, 1), (4, 3), (5, 5), (6, 63)] {
        let mut cluster = Cluster::new(seed, 3, 1, 60);
        cluster.pass(5_000);
        cluster.nodes[who].ill = Ill::Dead;
        cluster.pass(2_500);
        assert!(cluster.down().is_empty(), "silent for two pauses and a half");
        cluster.pass(3_500);
        assert_eq!(cluster.down(), [cluster.nodes[who].id.name.to_string()]);
        cluster.nodes[who].ill = Ill::Well;
        cluster.pass(6_000);
        assert!(cluster.down().is_empty());
        cluster.judge().unwrap();
    }
}

fn stuck() -> Vec<String> {
    let mut cluster = Cluster::new(7, 3, 0, 2);
    cluster.pass(5_000);
    cluster.nodes[4].ill = Ill::Stuck;
    cluster.pass(10_000);
    cluster.down()
}

#[test]
fn whoever_makes_no_progress_is_not_well_however_often_it_says_so() {
    assert_eq!(stuck(), ["m01"]);
    assert!(while_off(ViewRule::ProgressCounts, stuck).is_empty());
}

/// A minority comes to no view, whomever it misses; what it asked for then counts for nothing later.
#[test]
fn a_minority_installs_nothing() {
    let mut cluster = Cluster::new(8, 3, 0, 2);
    cluster.pass(5_000);
    cluster.nodes[0].ill = Ill::CutOff;
    cluster.pass(20_000);
    assert_eq!(cluster.down(), ["a00"]);
    assert_eq!(cluster.nodes[0].told.len(), 1, "it knows only the view before");
    cluster.nodes[0].ill = Ill::Well;
    cluster.pass(10_000);
    assert!(cluster.down().is_empty());
    cluster.judge().unwrap();
}

fn late_verdict() -> Result<(), String> {
    let mut cluster = Cluster::new(9, 3, 0, 2);
    cluster.pass(5_000);
    // The log is so slow that the second of two equal verdicts comes after the node is back.
    (cluster.nodes[4].ill, cluster.slow_log) = (Ill::Dead, 3_000);
    cluster.pass(4_500);
    cluster.slow_log = 9_000;
    cluster.pass(3_500);
    (cluster.nodes[4].ill, cluster.slow_log) = (Ill::Well, 20);
    cluster.pass(30_000);
    cluster.judge()
}

#[test]
fn a_verdict_of_another_view_changes_nothing() {
    late_verdict().unwrap();
    assert!(while_off(ViewRule::VerdictNamesView, late_verdict).is_err());
}

#[test]
fn who_cannot_trust_its_own_state_says_so_and_takes_it_back() {
    let mut cluster = Cluster::new(10, 2, 1, 2);
    cluster.pass(3_000);
    let me = cluster.nodes[1].id.clone();
    cluster.say(1, &me, MonitorMessage::Halted(true));
    cluster.pass(3_000);
    assert_eq!(cluster.views.view().nodes[&me.name].state, State::Halted);
    cluster.say(1, &me, MonitorMessage::Halted(false));
    cluster.pass(3_000);
    assert!(cluster.down().is_empty());
    // Another cannot say it for this node.
    let stranger = cluster.nodes[0].id.clone();
    cluster.say(1, &stranger, MonitorMessage::Halted(true));
    cluster.pass(3_000);
    assert!(cluster.down().is_empty());
}
