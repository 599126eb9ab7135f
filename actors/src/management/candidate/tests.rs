//! A walk over whole clusters of candidates, with everything that can go wrong.

use std::collections::BTreeMap;

use rand::{RngExt as _, SeedableRng as _};
use synod_runtime::world::Rng;

use super::*;
use crate::mutation::{ViewRule, set_view_rule};

const MS: u64 = 1_000_000;

pub(super) fn name(node: usize) -> NodeName {
    // The first has the highest rank within a class.
    format!("n{node:02}").parse().unwrap()
}

/// What a request met where it came.
#[derive(Debug, Clone, Copy)]
struct Request {
    by: usize,
    number: u64,
}

enum Event {
    Letter(usize, NodeName, Letter),
    /// The provider's answer, of that life.
    Provider(usize, u64),
    Ready(usize, u64),
}

struct One {
    machine: Candidate,
    life: u64,
    alive: bool,
    /// Views it was given.
    given: usize,
    class: Class,
    /// Requests that wait here.
    waiting: Vec<Request>,
    /// The highest that stood in its variable in that view and round.
    written: Option<(ViewId, u64, Rank)>,
}

/// A walk: views come in one order, at each node's own pace; words are late, lost, repeated and
/// overtaken; nodes die and come back.
struct Walk {
    now: u64,
    rng: Rng,
    nodes: Vec<One>,
    /// Views with their nodes.
    views: Vec<(ViewId, Vec<usize>)>,
    events: BTreeMap<(u64, u64), Event>,
    serial: u64,
    calm: bool,
    /// Who was primary in which view: often one, more when one crashed and came back unnoticed.
    primaries: BTreeMap<ViewId, BTreeSet<NodeName>>,
    asked: u64,
    answered: u64,
    /// Lost with the node they waited at.
    died: u64,
    letters: u64,
    remaps: u64,
}

impl Walk {
    fn new(seed: u64, count: usize) -> Self {
        let mut rng = Rng::seed_from_u64(seed);
        let nodes = (0..count).map(|node| {
            let class = if rng.random_bool(0.4) { Class::Secondary } else { Class::Spare };
            One {
                machine: Candidate::new(name(node)).traced(),
                life: 0,
                alive: true,
                given: 0,
                class,
                waiting: Vec::new(),
                written: None,
            }
        });
        let nodes = nodes.collect();
        let mut walk = Self {
            now: MS,
            rng,
            nodes,
            views: Vec::new(),
            events: BTreeMap::new(),
            serial: 0,
            calm: false,
            primaries: BTreeMap::new(),
            asked: 0,
            answered: 0,
            died: 0,
            letters: 0,
            remaps: 0,
        };
        walk.install();
        walk
    }

    /// The log decides that these are there.
    fn install(&mut self) {
        let alive = (0..self.nodes.len()).filter(|node| self.nodes[*node].alive).collect();
        let id = ViewId { epoch: 0, verdicts: self.views.len() as u64 };
        self.views.push((id, alive));
    }

    fn time(&self) -> Instant {
        Instant::from_nanos(self.now)
    }

    fn later(&mut self, longest: u64, event: Event) {
        self.serial += 1;
        let delay = self.rng.random_range(1..=longest) * MS;
        self.events.insert((self.now + delay, self.serial), event);
    }

    fn act(&mut self, node: usize, deeds: Vec<Deed>) {
        for deed in deeds {
            let life = self.nodes[node].life;
            match deed {
                Deed::Send(to, letter) => {
                    self.letters += 1;
                    let to = self.nodes.iter().position(|one| one.machine.me == to).unwrap();
                    let copies = match () {
                        () if self.calm => 1,
                        () if self.rng.random_bool(0.1) => 0,
                        () if self.rng.random_bool(0.1) => 2,
                        () => 1,
                    };
                    for _ in 0..copies {
                        let longest =
                            if !self.calm && self.rng.random_bool(0.1) { 3_000 } else { 20 };
                        self.later(longest, Event::Letter(to, name(node), letter.clone()));
                    }
                }
                Deed::AskProvider => self.later(100, Event::Provider(node, life)),
                Deed::Initialise => self.later(200, Event::Ready(node, life)),
                Deed::Remap(_) => self.remaps += 1,
                Deed::Release(_) => {}
            }
        }
    }

    fn turn(&mut self) -> Result<(), String> {
        while let Some(entry) = self.events.first_entry().filter(|e| e.key().0 <= self.now) {
            let (event, now) = (entry.remove(), self.time());
            let (node, deeds) = match event {
                Event::Letter(to, from, letter) if self.nodes[to].alive => {
                    (to, self.nodes[to].machine.letter(now, &from, letter))
                }
                Event::Provider(node, life) if self.nodes[node].life == life => {
                    let class = self.nodes[node].class;
                    (node, self.nodes[node].machine.provider(now, class))
                }
                Event::Ready(node, life) if self.nodes[node].life == life => {
                    (node, self.nodes[node].machine.ready(now))
                }
                Event::Letter(..) | Event::Provider(..) | Event::Ready(..) => continue,
            };
            self.act(node, deeds);
            self.judge(node)?;
        }
        for node in 0..self.nodes.len() {
            self.step(node)?;
        }
        self.now += 5 * MS;
        Ok(())
    }

    fn step(&mut self, node: usize) -> Result<(), String> {
        let now = self.time();
        if !self.nodes[node].alive {
            return Ok(());
        }
        if self.nodes[node].given < self.views.len() && self.rng.random_bool(0.05) {
            let (id, nodes) = self.views[self.nodes[node].given].clone();
            self.nodes[node].given += 1;
            let deeds = self.nodes[node].machine.view(now, id, nodes.into_iter().map(name));
            self.act(node, deeds);
        }
        if self.nodes[node].machine.deadline().is_some_and(|due| due <= now) {
            let deeds = self.nodes[node].machine.timeout(now);
            self.act(node, deeds);
        }
        if !self.calm && self.rng.random_bool(0.02) {
            self.asked += 1;
            let request = Request { by: node, number: self.asked };
            self.nodes[node].waiting.push(request);
        }
        self.judge(node)?;
        self.pass_on(node)
    }

    /// Requests that may leave do, and must come to who serves (C1).
    fn pass_on(&mut self, node: usize) -> Result<(), String> {
        let one = &mut self.nodes[node];
        let Some(host) = one.machine.open_at().cloned() else { return Ok(()) };
        let view = one.machine.view_id();
        for request in std::mem::take(&mut one.waiting) {
            if !self.primaries.get(&view).is_some_and(|served| served.contains(&host)) {
                let Request { by, number } = request;
                let why = format!("request {number} of {by} goes to {host}, not primary in {view}");
                return Err(why);
            }
            self.answered += 1;
        }
        Ok(())
    }

    fn judge(&mut self, node: usize) -> Result<(), String> {
        let machine = &self.nodes[node].machine;
        let (view, round) = (machine.view_id(), machine.round());
        if machine.is_primary() {
            self.primaries.entry(view).or_default().insert(name(node));
            let also = |other: &usize| *other != node && self.is_primary(*other, view);
            if let Some(other) = (0..self.nodes.len()).find(also) {
                return Err(format!("view {view} has two primaries: {other} and {node}"));
            }
        }
        let one = &mut self.nodes[node];
        if let Some(rank) = one.machine.written().cloned() {
            let fell = one
                .written
                .as_ref()
                .is_some_and(|(at, of, before)| (*at, *of) == (view, round) && rank < *before);
            if fell {
                return Err(format!("{node}: a lower rank was written over a higher one"));
            }
            one.written = Some((view, round, rank));
        }
        Ok(())
    }

    fn is_primary(&self, node: usize, view: ViewId) -> bool {
        let one = &self.nodes[node];
        one.alive && one.machine.is_primary() && one.machine.view_id() == view
    }

    /// Who is, at the newest view.
    fn primary(&self) -> Option<usize> {
        let (view, _) = self.views.last()?;
        (0..self.nodes.len()).find(|node| self.is_primary(*node, *view))
    }

    fn run(&mut self, ms: u64) -> Result<(), String> {
        let end = self.now + ms * MS;
        while self.now < end {
            self.turn()?;
        }
        Ok(())
    }

    fn crash(&mut self, node: usize) {
        let one = &mut self.nodes[node];
        self.died += one.waiting.len() as u64;
        one.waiting.clear();
        (one.alive, one.written) = (false, None);
        one.life += 1;
    }

    /// It forgot everything, and is given the newest view.
    fn start(&mut self, node: usize) {
        let newest = self.views.len() - 1;
        let one = &mut self.nodes[node];
        one.machine = Candidate::new(name(node)).traced();
        (one.alive, one.given) = (true, newest);
    }

    /// Comes to rest, and looks whether all is as it should be.
    fn rest(&mut self) -> Result<usize, String> {
        self.calm = true;
        for node in 0..self.nodes.len() {
            if !self.nodes[node].alive {
                self.start(node);
            }
        }
        self.install();
        self.run(20_000)?;
        let all: Vec<_> = self.nodes.iter().map(|one| one.machine.candidate().cloned()).collect();
        if all.windows(2).any(|two| two[0] != two[1]) || all[0].is_none() {
            return Err(format!("candidate variables differ at rest: {all:?}"));
        }
        let primaries: Vec<_> =
            (0..all.len()).filter(|node| self.nodes[*node].machine.is_primary()).collect();
        if primaries.len() != 1 || Some(name(primaries[0])) != all[0] {
            return Err(format!("at rest primaries are {primaries:?}, candidates {:?}", all[0]));
        }
        let waiting: usize = self.nodes.iter().map(|one| one.waiting.len()).sum();
        if waiting > 0 || self.asked != self.answered + self.died {
            let (asked, answered) = (self.asked, self.answered);
            return Err(format!("of {asked} requests {answered} were answered; {waiting} wait"));
        }
        Ok(primaries[0])
    }
}

fn faults(seed: u64) -> Result<(), String> {
    let count = 2 + seed as usize % 6;
    let mut walk = Walk::new(seed, count);
    for _ in 0..30 {
        let pause = walk.rng.random_range(1..3_000);
        walk.run(pause)?;
        let node = walk.rng.random_range(0..count);
        let alive = walk.nodes.iter().filter(|one| one.alive).count();
        match walk.nodes[node].alive {
            true if alive > 1 => walk.crash(node),
            true => {}
            false => walk.start(node),
        }
        // Somebody may be back before anybody noticed.
        if walk.rng.random_bool(0.7) {
            walk.install();
        }
    }
    walk.rest().map(drop)
}

#[test]
fn whatever_goes_wrong_a_view_has_one_primary_and_no_request_is_lost() {
    for seed in 0..300 {
        faults(seed).unwrap_or_else(|why| panic!("seed {seed}: {why}"));
    }
}

/// Joins and leaves of others move nothing: X5.
fn unrelated(seed: u64) -> Result<u64, String> {
    let mut walk = Walk::new(seed, 20);
    for one in &mut walk.nodes {
        one.class = Class::Spare;
    }
    // The highest rank comes later.
    walk.crash(0);
    walk.install();
    walk.run(5_000)?;
    let host = walk.primary().ok_or("nobody is primary")?;
    let (remaps, mut moves) = (walk.remaps, 0);
    for other in (0..20).filter(|other| *other != host) {
        if walk.nodes[other].alive {
            walk.crash(other);
            walk.install();
            walk.run(3_000)?;
        }
        walk.start(other);
        walk.install();
        walk.run(3_000)?;
        moves += u64::from(walk.primary() != Some(host));
    }
    if walk.rest()? != host {
        moves += 1;
    }
    // Only those that came back had to learn where it is.
    if moves == 0 && walk.remaps > remaps + 40 {
        return Err(format!("{} connections were mapped anew", walk.remaps - remaps));
    }
    Ok(moves)
}

#[test]
fn nobody_who_joins_or_leaves_moves_a_live_primary() {
    for seed in 0..5 {
        assert_eq!(unrelated(seed).unwrap(), 0, "seed {seed}");
    }
}

#[test]
fn sixty_four_nodes_agree_with_few_words() {
    let mut walk = Walk::new(1, 64);
    walk.calm = true;
    for one in &mut walk.nodes {
        one.class = Class::Spare;
    }
    walk.run(10_000).unwrap();
    assert_eq!(walk.primary(), Some(0), "the highest rank");
    walk.rest().unwrap();
    assert!(walk.letters < 64 * 20, "{} letters", walk.letters);
}

/// Every rule, switched off, is missed by somebody.
#[test]
fn the_absence_of_each_rule_is_noticed() {
    let rules = [
        ViewRule::RequestersHeldOff,
        ViewRule::LockIsBarrier,
        ViewRule::RanksNameView,
        ViewRule::DisqualifiedIsSilent,
        ViewRule::HigherRankWins,
    ];
    for rule in rules {
        set_view_rule(Some(rule));
        let caught = (0..200).any(|seed| faults(seed).is_err());
        set_view_rule(None);
        assert!(caught, "{rule:?}");
    }
    set_view_rule(Some(ViewRule::PrimaryStays));
    let moved = (0..5).any(|seed| unrelated(seed) != Ok(0));
    set_view_rule(None);
    assert!(moved, "a live primary was moved");
}
