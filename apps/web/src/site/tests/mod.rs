//! Walks: two sites with the real driver, notes on simulated disks, servers that fail, and crashes at
//! any moment. Every rule of this module and of the order, switched off, must be missed.

mod back;
mod log;
mod reader;
mod road;
mod server;

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
    sync::{Arc, Mutex},
    time::Duration,
};

use rand::{Rng as _, RngExt as _, SeedableRng};
use synod::{
    replicated::{Desk, Handle},
    runtime::{journal::Durability, sim::Simulation, telemetry::Metrics, world::Rng},
    server::config::{Commutes, OnMismatch, WebConfig, WebRoute},
};
use tokio::time::{sleep, timeout};

use self::{
    log::{Door, Log},
    road::Road,
    server::{Server, Walked},
};
use super::{Bodies, Parts, Site, notes::Notes};
use crate::{
    Answer, Carrier, Fresh, Identity, Order as _, OrderError, Request,
    bodies::Store,
    metrics::WebMetrics,
    order::{NAME, Web},
    slip::{self, Slip},
};

const SITES: [&str; 2] = ["a", "b"];

/// What goes wrong in a walk.
#[derive(Clone, Copy)]
struct Faults {
    crashes: bool,
    mute: u32,
    full: bool,
    /// Servers can be copied, mostly.
    copies: bool,
    /// Of a hundred answers so many make a site panic.
    panics: u32,
    /// Servers keep the number of what they performed, and lose some of both now and then.
    numbers: bool,
    /// Whatever is asked of different paths commutes, and more of it is POST.
    commutes: bool,
    /// How many milliseconds lie between the sites, one way (R5.41).
    way: u64,
}

/// What a client asked, and what it was told.
struct Told {
    site: String,
    body: String,
    key: Option<String>,
    answer: Result<Answer, OrderError>,
}

/// A site that lives, and where it sees what its replica executed.
type Running = (Site, Arc<Desk<Web>>);

struct Walk {
    sim: Simulation,
    log: Arc<Mutex<Log>>,
    servers: BTreeMap<String, Rc<Server>>,
    sites: Rc<RefCell<BTreeMap<String, Running>>>,
    faults: Faults,
    /// Of a hundred commands of a rebuild so many fail.
    broken: Rc<Cell<u32>>,
    told: RefCell<Vec<Told>>,
    /// What a reader was shown that it must not be.
    stale: RefCell<Option<String>>,
    rng: RefCell<Rng>,
}

impl Walk {
    fn new(sim: &Simulation, seed: u64, faults: Faults) -> Rc<Self> {
        let mut config = WebConfig::new(([127, 0, 0, 1], 1).into(), "http://server");
        if faults.commutes {
            config.routes = vec![WebRoute { commutes: Some(Commutes::Path), ..WebRoute::new("/") }];
        }
        let servers = SITES
            .map(|site| (site.to_owned(), Server::new(site, seed, faults.numbers, config.clone())));
        Rc::new(Self {
            sim: sim.clone(),
            log: Log::new(seed),
            servers: servers.into_iter().collect(),
            sites: Rc::default(),
            faults,
            broken: Rc::new(Cell::new(if faults.crashes { 15 } else { 0 })),
            told: RefCell::default(),
            stale: RefCell::default(),
            rng: RefCell::new(Rng::seed_from_u64(seed)),
        })
    }

    fn draw(&self, most: u64) -> u64 {
        self.rng.borrow_mut().random_range(0..most)
    }

    fn boot(&self, site: &str) {
        let world = self.sim.world(&site.parse().unwrap());
        let desk = self.log.lock().unwrap().boot(site);
        let notes = Notes::open(&world, "web".into(), Durability::Fsync).unwrap();
        let way = Duration::from_millis(self.faults.way);
        let door = Arc::new(Door { log: Arc::clone(&self.log), site: site.to_owned(), way });
        let mut config = WebConfig::new("127.0.0.1:1".parse().unwrap(), "http://server");
        config.on_mismatch = OnMismatch::Alarm;
        let (server, sites) = (Rc::clone(&self.servers[site]), Rc::clone(&self.sites));
        let road = Road {
            site: site.to_owned(),
            way,
            sites: Rc::clone(&sites),
            broken: Rc::clone(&self.broken),
            rng: RefCell::new(Rng::seed_from_u64(self.draw(1 << 32))),
        };
        let store = Store::open(&world.disk, "bodies".into(), Durability::Fsync).unwrap();
        let carrier = Walked { server, sites, broken: Rc::clone(&self.broken) };
        let started = Site::start(Parts {
            name: site.to_owned(),
            config,
            desk: Arc::clone(&desk),
            order: Handle::new(door, NAME),
            log: None,
            server: Rc::clone(&self.servers[site]) as _,
            carrier: self.faults.copies.then(|| Rc::new(carrier) as Rc<dyn Carrier>),
            bodies: Some(Bodies { store, courier: Rc::new(road) }),
            notes,
            first_ticket: self.rng.borrow_mut().next_u64(),
            clock: world.clock,
            metrics: WebMetrics::new(&Metrics::new()),
            standing: Arc::default(),
        });
        self.sites.borrow_mut().insert(site.to_owned(), (started, desk));
    }

    async fn crash(&self, site: &str) {
        let Some((running, _)) = self.sites.borrow_mut().remove(site) else { return };
        let name = site.parse().unwrap();
        self.sim.crash(&name);
        running.abort();
        drop(running);
        // What the server still had is done by then.
        sleep(Duration::from_millis(20)).await;
        self.sim.restart(&name);
        self.boot(site);
    }

    fn site(&self, name: &str) -> Option<Site> {
        self.sites.borrow().get(name).map(|(site, _)| site.clone())
    }

    /// A client: one request after the other, some of them once more at the other site.
    async fn client(self: Rc<Self>, number: u64) {
        // A rebuild begins while others still ask.
        for turn in 0..if self.faults.copies { 40 } else { 12 } {
            // Every other client's are kept apart.
            let body = format!(
                "{number}.{turn}{}",
                if number.is_multiple_of(2) { " and more" } else { "" }
            );
            let method = match self.draw(5) {
                0..=2 if self.faults.commutes => "POST",
                0..=2 => "PUT",
                3 => "DELETE",
                _ => "POST",
            };
            let target = format!("/{}", ["x", "y", "z", "x/y"][self.draw(4) as usize]);
            let request = Request {
                method: method.to_owned(),
                target,
                headers: Vec::new(),
                body: body.clone().into(),
                apart: None,
            };
            let key = (self.draw(2) == 0).then(|| format!("key {body}"));
            for _ in 0..=self.draw(3) {
                let name = SITES[self.draw(2) as usize];
                let Some(site) = self.site(name) else {
                    sleep(Duration::from_millis(5)).await;
                    continue;
                };
                let identity = key.clone().map_or(Identity::Made, Identity::Key);
                let answer = site.perform(request.clone(), identity).await;
                let told =
                    Told { site: name.to_owned(), body: body.clone(), key: key.clone(), answer };
                self.told.borrow_mut().push(told);
                if key.is_none() {
                    break;
                }
            }
            self.look(SITES[self.draw(2) as usize]).await;
            sleep(Duration::from_millis(self.draw(5))).await;
        }
    }

    async fn run(self: Rc<Self>) {
        let faults = self.faults;
        SITES.iter().for_each(|site| self.boot(site));
        sleep(Duration::from_millis(50)).await;
        for server in self.servers.values() {
            server.mute.set(faults.mute);
            server.panics.set(faults.panics);
        }
        let (log, slower) = (Arc::clone(&self.log), 1 + faults.way as u32 / 4);
        actix_rt::spawn(async move {
            loop {
                sleep(Duration::from_millis(1) * slower).await;
                log.lock().unwrap().step();
            }
        });
        let clients: Vec<_> =
            (0..6).map(|number| actix_rt::spawn(Rc::clone(&self).client(number))).collect();
        for _ in 0..6 {
            sleep(Duration::from_millis(self.draw(25)) * slower).await;
            let site = SITES[self.draw(2) as usize];
            match self.draw(4) {
                0 | 1 if faults.crashes => self.crash(site).await,
                2 => {
                    self.servers[site].down.set(true);
                    sleep(Duration::from_millis(self.draw(30))).await;
                    self.servers[site].down.set(false);
                }
                3 if faults.full && site == "b" => self.servers[site].full.set(true),
                3 if faults.numbers => self.servers[site].lose(),
                _ => {}
            }
        }
        for client in clients {
            client.await.unwrap();
        }
        for server in self.servers.values() {
            server.mute.set(0);
            server.panics.set(0);
        }
        self.broken.set(0);
        // Long enough for everything that is still to be performed, and made again.
        sleep(Duration::from_secs(if faults.copies { 60 } else { 20 })).await;
        for site in SITES.iter().filter(|_| faults.numbers) {
            // Nobody writes any more: what it lost its site must find out by itself.
            self.servers[*site].lose();
            for _ in 0..40 {
                self.look(site).await;
                sleep(Duration::from_millis(1)).await;
            }
            sleep(Duration::from_secs(20)).await;
        }
    }

    /// What is wrong, if anything.
    async fn judge(&self) -> Result<(), String> {
        let states = self.log.lock().unwrap().everywhere();
        assert_eq!(states[0], states[1], "replicas are equal, whatever else");
        sleep(Duration::from_secs(1)).await;
        let (_, desk) = self.sites.borrow()["a"].clone();
        let (serving, last, unknown) = desk
            .read(|web| {
                let serving = web.sites().iter().filter(|(_, site)| site.quarantined().is_none());
                let serving: Vec<_> =
                    serving.map(|(name, site)| (name.clone(), site.applied)).collect();
                // The last site goes on without what it must not send twice, and counts that.
                let alone = match &serving[..] {
                    [(only, _)] => web.sites()[only].diverged,
                    // What the one has not performed its copy has not either.
                    _ if self.faults.copies => web.sites().values().map(|one| one.diverged).sum(),
                    _ => 0,
                };
                (serving, web.last(), alone)
            })
            .unwrap();
        if serving.is_empty() {
            return Err("nobody serves".to_owned());
        }
        let bodiless = desk.read(|web| {
            let mut away = web.sites().values().filter_map(|site| site.quarantined());
            away.any(|why| why.contains("keeps its body"))
        });
        if bodiless == Some(true) {
            return Err("a body is nowhere".to_owned());
        }
        if self.faults.copies && serving.len() < SITES.len() {
            let shown = desk.read(|web| format!("{:?}", web.sites())).unwrap_or_default();
            return Err(format!("a site was not rebuilt: {shown}"));
        }
        for (site, applied) in &serving {
            if *applied != last {
                return Err(format!("{site} stays at {applied} of {last}"));
            }
            let seen = self.site(site).expect("it runs").fresh(Fresh::Linearizable).await;
            if seen != Ok(last) {
                return Err(format!("{site} says {seen:?} to a reader of {last}"));
            }
        }
        for away in SITES.iter().filter(|site| serving.iter().all(|(name, _)| name != *site)) {
            let seen = self.site(away).expect("it runs").fresh(Fresh::Local).await;
            if seen.is_ok() {
                return Err(format!("{away} is quarantined, and answers a reader"));
            }
        }
        if let Some(why) = self.stale.borrow().clone() {
            return Err(why);
        }
        // A server that knows what it performed leaves out nothing.
        let unknown = if self.faults.numbers { 0 } else { unknown };
        if self.faults.numbers && serving.len() < SITES.len() {
            return Err("a site was sent away, though its server knows where it is".to_owned());
        }
        self.judge_servers(&serving, last, unknown)?;
        self.judge_answers(&serving, unknown)
    }

    /// What the servers of these sites performed of `last` requests, `unknown` of them perhaps not.
    fn judge_servers(
        &self,
        serving: &[(String, u64)],
        last: u64,
        unknown: u64,
    ) -> Result<(), String> {
        let done = |site: &str| Rc::clone(&self.servers[site].done);
        for (site, _) in serving {
            let done = done(site);
            let done = done.borrow();
            let all: BTreeSet<u64> = done.list.iter().map(|(seq, _)| *seq).collect();
            let missing = (1..=last).filter(|seq| !all.contains(seq)).count() as u64;
            if missing > unknown || all.last().is_some_and(|seq| *seq > last) {
                return Err(format!("{site} performed {} of {last}", all.len()));
            }
            let mut bodies = BTreeSet::new();
            if !done.sums.values().flatten().all(|body| bodies.insert(body)) {
                return Err(format!("{site} performed a POST twice"));
            }
            let mut seen = BTreeSet::new();
            if let Some((seq, _)) = done.list.iter().find(|(seq, redo)| !seen.insert(*seq) && !redo)
            {
                return Err(format!("{site} performed {seq} twice, unmarked"));
            }
        }
        if let [(one, _), (two, _)] = serving {
            let (one, two) = (done(one), done(two));
            let (one, two) = (one.borrow(), two.borrow());
            if one.files != two.files {
                return Err(format!("files differ: {:?} and {:?}", one.files, two.files));
            }
            if one.sums != two.sums {
                return Err(format!("sums differ: {:?} and {:?}", one.sums, two.sums));
            }
        }
        Ok(())
    }

    /// What clients were told, but for `unknown` answers of a site that was sent away before the last
    /// one came to what it must not send twice.
    fn judge_answers(&self, serving: &[(String, u64)], unknown: u64) -> Result<(), String> {
        let mut gone = BTreeSet::new();
        let mut places: BTreeMap<&str, u64> = BTreeMap::new();
        for Told { site, body, key, answer } in self.told.borrow().iter() {
            match answer {
                Ok(answer) => {
                    let by = answer.response.headers.iter().find(|one| one.name == "server");
                    if !answer.replayed && by.is_none_or(|by| by.value != site.as_bytes()) {
                        return Err(format!("{site} answered {body} for another's server"));
                    }
                    for (other, _) in serving {
                        let done = self.servers[other].done.borrow();
                        let missing = !done.list.iter().any(|(seq, _)| *seq == answer.seq);
                        if missing && gone.insert(answer.seq) && gone.len() as u64 > unknown {
                            return Err(format!("{body} was answered and is not at {other}"));
                        }
                    }
                    let place = *places.entry(body).or_insert(answer.seq);
                    if key.is_some() && place != answer.seq {
                        return Err(format!("{body} was ordered as {place} and {}", answer.seq));
                    }
                }
                Err(OrderError::NotApplied(_)) if key.is_none() => {
                    let anywhere = self.servers.values().any(|server| {
                        let done = server.done.borrow();
                        done.sums.values().flatten().any(|added| added == body)
                            || done.files.values().any(|file| file == body)
                    });
                    if anywhere {
                        return Err(format!("{body} was not applied, and is there"));
                    }
                }
                Err(OrderError::KeyReused) => return Err(format!("{body} was not known again")),
                Err(_) => {}
            }
        }
        Ok(())
    }
}

/// One walk; what is wrong with it, if anything.
fn walk(seed: u64, faults: Faults) -> Result<(), String> {
    Simulation::new(seed).run(|sim| async move {
        let walk = Walk::new(&sim, seed, faults);
        Rc::clone(&walk).run().await;
        let verdict = walk.judge().await;
        // What still runs holds on to the walk.
        std::mem::take(&mut *walk.sites.borrow_mut()).values().for_each(|(site, _)| site.abort());
        verdict
    })
}

const CALM: Faults = Faults {
    crashes: false,
    mute: 0,
    full: false,
    copies: false,
    panics: 0,
    numbers: false,
    commutes: false,
    way: 0,
};
const CRASHES: Faults = Faults { crashes: true, ..CALM };
const BROKEN: Faults = Faults { mute: 4, full: true, ..CRASHES };
const REBUILT: Faults = Faults { copies: true, panics: 1, ..BROKEN };
const NUMBERED: Faults = Faults { numbers: true, mute: 4, ..CRASHES };
const NUMBERED_PANICS: Faults = Faults { panics: 1, ..NUMBERED };
const FAR: Faults = Faults { way: 40, ..BROKEN };
const SIDE_BY_SIDE: Faults = Faults { commutes: true, mute: 1, ..CRASHES };
/// Two are a form whose servers keep a number: the same walk, and the same judges.
const KINDS: [Faults; 8] =
    [CALM, CRASHES, BROKEN, REBUILT, NUMBERED, NUMBERED_PANICS, FAR, SIDE_BY_SIDE];

/// Those of one run; the same find every broken rule.
const SEEDS: u64 = 240;

#[test]
fn whatever_crashes_both_servers_have_performed_the_same_and_lost_nothing() {
    let verdict = |seed: u64| walk(seed, KINDS[seed as usize % KINDS.len()]).err();
    let wrong: Vec<_> = (0..SEEDS).filter_map(|seed| Some((seed, verdict(seed)?))).collect();
    assert!(wrong.is_empty(), "seeds and what is wrong: {wrong:#?}");
}

#[test]
fn every_rule_that_is_broken_is_missed() {
    for broken in Slip::ALL {
        slip::set(Some(broken));
        let verdict = |seed: u64| walk(seed, KINDS[seed as usize % KINDS.len()]).err();
        let found = (0..SEEDS).find_map(|seed| Some((seed, verdict(seed)?)));
        slip::set(None);
        let (seed, why) = found.unwrap_or_else(|| panic!("nobody misses what {broken:?} breaks"));
        println!("{broken:?}: seed {seed}: {why}");
    }
}

#[test]
fn a_site_knows_its_place_once_it_joined_or_its_server_is_seen_to_be_down() {
    for down in [false, true] {
        Simulation::new(1).run(|sim| async move {
            let walk = Walk::new(&sim, 1, Faults { crashes: false, mute: 0, ..NUMBERED });
            walk.servers["a"].down.set(down);
            walk.boot("a");
            let site = walk.site("a").unwrap();
            assert!(!site.0.standing.is_placed(), "before anything could run");
            let placed = async {
                while !site.0.standing.is_placed() {
                    sleep(Duration::from_millis(1)).await;
                }
            };
            timeout(Duration::from_secs(5), placed).await.unwrap();
            assert_eq!(site.epoch().is_err(), down, "{:?}", site.epoch());
            site.abort();
        });
    }
}
