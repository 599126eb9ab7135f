//! A log for tests: one order, executed by the replica of each site when that comes to it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use rand::{RngExt as _, SeedableRng};
use synod::{
    replicated::{
        Desk, Inquiry, Moment, Outcome, Position, SessionId, StateMachine, Submission, Submit, Turn,
    },
    runtime::world::Rng,
};

use crate::order::{NAME, Web};

/// The order, and every site's replica of it.
pub(super) struct Log {
    commands: Vec<(u64, Bytes)>,
    replicas: BTreeMap<String, (Box<dyn StateMachine>, usize)>,
    rng: Rng,
    /// What commands draw comes from: another order has another.
    pub(super) seed: u64,
    /// Nobody can order anything.
    pub(super) halted: bool,
}

impl Log {
    pub(super) fn new(seed: u64) -> Arc<Mutex<Self>> {
        let rng = Rng::seed_from_u64(seed);
        Arc::new(Mutex::new(Self {
            commands: Vec::new(),
            replicas: BTreeMap::new(),
            rng,
            seed: 7,
            halted: false,
        }))
    }

    /// A site begins a life: its replica has executed a part of the order.
    pub(super) fn boot(&mut self, site: &str) -> Arc<Desk<Web>> {
        let desk = Arc::new(Desk::default());
        let known = self.replicas.get(site).map_or(0, |(_, executed)| *executed);
        self.replicas.insert(site.to_owned(), (desk.machine(NAME), 0));
        let some = self.rng.random_range(0..=known);
        self.execute(site, some);
        desk
    }

    /// A replica comes a little further.
    pub(super) fn step(&mut self) {
        let names: Vec<String> = self.replicas.keys().cloned().collect();
        let name = &names[self.rng.random_range(0..names.len())];
        let more = self.rng.random_range(0..8);
        let to = (self.replicas[name].1 + more).min(self.commands.len());
        self.execute(name, to);
    }

    fn execute(&mut self, site: &str, to: usize) -> Option<Vec<u8>> {
        let (machine, executed) = self.replicas.get_mut(site)?;
        let mut reply = None;
        while *executed < to {
            let (function, args) = &self.commands[*executed];
            *executed += 1;
            let position = Position(*executed as u64);
            let moment = Moment { position, time_ms: position.0 };
            let mut turn = Turn::new(moment, SessionId(1), self.seed ^ position.0, 0);
            reply = machine.apply(*function, args, &mut turn).ok();
        }
        reply
    }

    /// How many commands stand in it.
    pub(super) fn len(&self) -> usize {
        self.commands.len()
    }

    /// Every replica has this state instead of what it had.
    pub(super) fn go_back(&mut self, state: &[u8]) {
        for (machine, _) in self.replicas.values_mut() {
            machine.restore(state).expect("a state of this order");
        }
    }

    /// What a replica that has executed everything would have for a state.
    pub(super) fn everywhere(&mut self) -> Vec<Vec<u8>> {
        let names: Vec<String> = self.replicas.keys().cloned().collect();
        let to = self.commands.len();
        names.iter().for_each(|name| drop(self.execute(name, to)));
        self.replicas.values().map(|(machine, _)| machine.snapshot()).collect()
    }
}

/// A site's way in.
pub(super) struct Door {
    pub(super) log: Arc<Mutex<Log>>,
    pub(super) site: String,
    /// How far it is to whoever leads.
    pub(super) way: Duration,
}

impl Submit for Door {
    fn submit(&self, batch: Vec<Submission>) {
        for Submission { function, args, deadline, done, .. } in batch {
            let (log, site, way) = (Arc::clone(&self.log), self.site.clone(), self.way);
            actix_rt::spawn(async move {
                let draw = |most: u64| log.lock().unwrap().rng.random_range(0..most);
                tokio::time::sleep(way + Duration::from_millis(draw(4))).await;
                if log.lock().unwrap().halted {
                    return done(Outcome::NotApplied("no quorum".into()));
                }
                let outcome = {
                    let mut log = log.lock().unwrap();
                    log.commands.push((function, args));
                    let to = log.commands.len();
                    let reply = log.execute(&site, to).expect("a good command").into();
                    Outcome::Applied { reply, position: Position(to as u64) }
                };
                match draw(50) {
                    // The answer is lost on its way.
                    0 => {
                        tokio::time::sleep(deadline).await;
                        done(Outcome::Unknown("late".to_owned()));
                    }
                    late => {
                        tokio::time::sleep(way + Duration::from_millis(late % 3)).await;
                        done(outcome);
                    }
                }
            });
        }
    }

    fn query(&self, batch: Vec<Inquiry>) {
        for Inquiry { function, args, done, .. } in batch {
            let mut log = self.log.lock().unwrap();
            let to = log.commands.len();
            log.execute(&self.site, to);
            let position = Position(to as u64);
            let at = Moment { position, time_ms: position.0 };
            let reply =
                log.replicas[&self.site].0.query(function, &args, &at).expect("known").into();
            drop(log);
            done(Outcome::Applied { reply, position });
        }
    }
}
