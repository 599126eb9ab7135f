//! The machine of a node's election service: speaks for all clients of its node.
//!
//! Clients stand, ask again and again (that is their sign of life), resign or leave. The service
//! turns all of it into few commands: what clients want goes with the next turn, and all leases are
//! renewed by one command a period. It never decides who holds a role: that is the store's.
//!
//! A client is told that it leads with the instant until which it may act. The machine keeps what
//! I1, I3, I4 and I6 ask for; the store keeps the rest.

mod answers;
mod candidate;
mod words;

use std::collections::BTreeMap;

use synod_runtime::{identity::NodeId, world::Instant};

use self::candidate::{Candidate, Phase};
pub use self::words::{Ended, Event, Failed, ServiceMessage, Volunteered, Word};
use super::{
    lease::{acts_for, period},
    message::{Client, ClientKey, Epoch, Op, Refusal, Renew, RoleId, Terms},
};
use crate::{
    effects::Effects,
    machine::{Machine, Now, Survived},
};

/// See the module's documentation.
#[derive(Debug)]
pub struct Service {
    node: String,
    /// This life, drawn at random.
    life: u64,
    numbers: u64,
    flights: u64,
    candidates: BTreeMap<u64, Candidate>,
    /// Whose number is whose handle.
    by_number: BTreeMap<u64, u64>,
    /// Who follows what, by role.
    by_role: BTreeMap<RoleId, Vec<u64>>,
    /// When those behind a pulse asked last.
    pulses: BTreeMap<u64, Instant>,
    /// What clients want, for the next command.
    wanted: Vec<(Op, Wanted)>,
    open: BTreeMap<u64, Flight>,
    farewells: Vec<Farewell>,
    /// Somebody is to be spoken for and has not asked yet.
    starving: bool,
    /// Nothing is to be done before.
    wake: Instant,
}

/// Why an operation is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    /// For the client of that number.
    Take(u64),
    /// Likewise, in an epoch it says to hold.
    Adopt(u64),
    /// Farewell of that number.
    Farewell(u64),
}

/// A command under way.
#[derive(Debug)]
struct Flight {
    /// When it was first sent.
    sent: Instant,
    wanted: Vec<Wanted>,
    /// The numbers of those whose roles it renews, and of those who stand.
    held: Vec<(u64, Epoch)>,
    stood: Vec<u64>,
}

/// A word that a client is gone: repeated until it is heard, or does not matter any more.
#[derive(Debug)]
struct Farewell {
    number: u64,
    op: Op,
    /// By then the lease has run out in any case.
    until: Instant,
    /// When to say it (again); none while it is under way.
    due: Option<Instant>,
}

impl Service {
    /// A service of that node, in a life of that number: drawn at random, never used again.
    pub fn new(node: &str, life: u64) -> Self {
        Self {
            node: node.to_owned(),
            life,
            numbers: 0,
            flights: 0,
            candidates: BTreeMap::new(),
            by_number: BTreeMap::new(),
            by_role: BTreeMap::new(),
            pulses: BTreeMap::new(),
            wanted: Vec::new(),
            open: BTreeMap::new(),
            farewells: Vec::new(),
            starving: false,
            wake: FAR,
        }
    }

    /// How many clients it speaks for.
    pub fn clients(&self) -> usize {
        self.candidates.len()
    }

    fn volunteer(&mut self, now: Instant, new: Volunteered, out: &mut Effects<Self>) {
        let Volunteered { handle, role, name, terms, stands, pulse, adopt } = new;
        if self.candidates.len() >= CLIENTS_MAX {
            let why = format!("{CLIENTS_MAX} clients of this node stand, as many as may");
            let ended = Ended::Refused(Refusal::Full(why));
            return out.here(Word::Tell(handle, Event::Ended(ended)));
        }
        let client = self.client(handle, name);
        let number = client.key.number;
        let phase = match adopt {
            None => Phase::Outside(now),
            Some(epoch) => {
                let op = Op::Adopt { role: role.clone(), epoch, client: client.clone() };
                self.wanted.push((op, Wanted::Adopt(number)));
                Phase::Asking
            }
        };
        let candidate = Candidate {
            role,
            id: None,
            client,
            terms,
            stands,
            phase,
            asked: Some(now),
            pulse,
            spoken: None,
            urgent: true,
            meanwhile: None,
        };
        self.candidates.insert(handle, candidate);
        self.wake = now;
    }

    /// A client of a number that was never used.
    fn client(&mut self, handle: u64, name: String) -> Client {
        self.numbers += 1;
        self.by_number.insert(self.numbers, handle);
        let key = ClientKey { service: self.life, number: self.numbers };
        Client { key, name, node: self.node.clone() }
    }

    /// The client is gone: that is told to the store, and nobody is told anything any more.
    fn leave(&mut self, now: Instant, handle: u64) {
        let Some(gone) = self.forget(handle) else { return };
        let number = gone.client.key.number;
        let client = gone.client.key;
        let op = match gone.phase {
            // Never asked.
            Phase::Outside(_) => return,
            Phase::Granted(grant) | Phase::Leading(grant, _) => {
                Op::Resign { role: gone.role, epoch: grant.epoch }
            }
            // What was asked for may be granted yet; it is under way, so this comes after it.
            Phase::Asking | Phase::Standing => Op::Leave { role: gone.role, client },
        };
        self.say_farewell(now, number, op, gone.terms, Some(now));
    }

    fn say_farewell(
        &mut self,
        now: Instant,
        number: u64,
        op: Op,
        terms: Terms,
        due: Option<Instant>,
    ) {
        if self.farewells.len() < CLIENTS_MAX {
            let until = now + terms.lease() * 2;
            self.farewells.push(Farewell { number, op, until, due });
            self.wake = now;
        }
    }

    fn forget(&mut self, handle: u64) -> Option<Candidate> {
        let gone = self.candidates.remove(&handle)?;
        self.by_number.remove(&gone.client.key.number);
        self.unfollow(handle, gone.id);
        Some(gone)
    }

    fn follow(&mut self, handle: u64, id: RoleId) {
        let Some(candidate) = self.candidates.get_mut(&handle) else { return };
        if candidate.id.replace(id) != Some(id) {
            self.by_role.entry(id).or_default().push(handle);
        }
    }

    fn unfollow(&mut self, handle: u64, id: Option<RoleId>) {
        let Some(followers) = id.and_then(|id| self.by_role.get_mut(&id)) else { return };
        followers.retain(|other| *other != handle);
        if followers.is_empty() {
            id.map(|id| self.by_role.remove(&id));
        }
    }

    /// Looks after all clients: leases that ran out, and what is to be said for whom.
    fn look(&mut self, now: Instant, out: &mut Effects<Self>) {
        self.lapse(now, out);
        self.starving = false;
        let mut renew = Renew { service: self.life, ..Renew::default() };
        let mut flight = Flight { sent: now, wanted: vec![], held: vec![], stood: vec![] };
        let (mut wake, mut due, mut riders) = (FAR, Vec::new(), Vec::new());
        for (handle, one) in &self.candidates {
            if let Phase::Leading(_, deadline) = one.phase {
                wake = wake.min(deadline);
            }
            let Some(at) = one.due() else { continue };
            if !one.has_asked(now, &self.pulses) {
                self.starving |= at <= now;
                wake = wake.min(if at > now { at } else { FAR });
                continue; // I6; it asks, or its lease runs out
            }
            if at <= now {
                due.push(*handle);
            } else if now + period(one.terms.lease()) / 2 >= at {
                riders.push((*handle, at));
            } else {
                wake = wake.min(at);
            }
        }
        // Whoever would be due soon rides along: one command a period for all.
        if due.is_empty() {
            wake = riders.iter().map(|(_, at)| *at).fold(wake, Instant::min);
        } else {
            due.extend(riders.iter().map(|(handle, _)| *handle));
        }
        for handle in due {
            let next = self.speak_for(now, handle, &mut renew, &mut flight);
            wake = wake.min(next);
        }
        self.wake = self.farewells_due(now).min(wake);
        self.send(now, renew, flight, out);
    }

    /// Adds to the command what is to be said for one client; answers when to speak again.
    fn speak_for(
        &mut self,
        now: Instant,
        handle: u64,
        renew: &mut Renew,
        flight: &mut Flight,
    ) -> Instant {
        let Some(one) = self.candidates.get_mut(&handle) else { return FAR };
        (one.spoken, one.urgent, one.asked) = (Some(now), false, None);
        let number = one.client.key.number;
        match (&one.phase, one.id) {
            (Phase::Outside(_), _) => {
                one.phase = Phase::Asking;
                let (role, client) = (one.role.clone(), one.client.clone());
                let take = Op::Take { role, client, terms: one.terms, stand: one.stands };
                self.wanted.push((take, Wanted::Take(number)));
            }
            (Phase::Standing, Some(id)) => {
                renew.stood.push((id, number));
                flight.stood.push(number);
            }
            (Phase::Granted(grant) | Phase::Leading(grant, _), _) => {
                renew.held.push((grant.role, grant.epoch));
                flight.held.push((number, grant.epoch));
            }
            (Phase::Asking, _) | (Phase::Standing, None) => {}
        }
        // A client behind a pulse asks on and on; another wakes the service when it does.
        let goes_on = one.pulse.is_some() || matches!(one.phase, Phase::Granted(_));
        if goes_on { now + period(one.terms.lease()) } else { FAR }
    }

    fn farewells_due(&mut self, now: Instant) -> Instant {
        self.farewells.retain(|farewell| now < farewell.until);
        let mut wake = FAR;
        for farewell in &mut self.farewells {
            match farewell.due {
                Some(due) if due <= now => {
                    farewell.due = None;
                    self.wanted.push((farewell.op.clone(), Wanted::Farewell(farewell.number)));
                }
                Some(due) => wake = wake.min(due),
                None => {}
            }
        }
        wake
    }

    /// One command for all that is to be said.
    fn send(&mut self, now: Instant, renew: Renew, mut flight: Flight, out: &mut Effects<Self>) {
        let mut ops = Vec::new();
        for (op, wanted) in self.wanted.drain(..) {
            ops.push(op);
            flight.wanted.push(wanted);
        }
        if !renew.held.is_empty() || !renew.stood.is_empty() {
            ops.push(Op::Renew(renew));
        }
        if ops.is_empty() {
            return;
        }
        flight.sent = now;
        self.flights += 1;
        self.open.insert(self.flights, flight);
        out.here(Word::Command { flight: self.flights, ops });
    }

    /// Leases that ran out: their clients are told, and stand again as others (I4).
    fn lapse(&mut self, now: Instant, out: &mut Effects<Self>) {
        let over: Vec<_> = self
            .candidates
            .iter()
            .filter_map(|(handle, one)| match one.phase {
                Phase::Leading(grant, deadline) if deadline <= now => Some((*handle, grant)),
                _ => None,
            })
            .collect();
        for (handle, grant) in over {
            self.lost(now, handle, grant.epoch, true, out);
        }
    }

    /// The client may not act any more in that epoch; `held`: as far as the store knows it may.
    fn lost(
        &mut self,
        now: Instant,
        handle: u64,
        epoch: Epoch,
        held: bool,
        out: &mut Effects<Self>,
    ) {
        let Some(one) = self.candidates.get(&handle) else { return };
        let was_told = matches!(one.phase, Phase::Leading(..));
        let (number, terms, role) = (one.client.key.number, one.terms, one.role.clone());
        if was_told {
            out.here(Word::Tell(handle, Event::Lost(epoch)));
        }
        if held {
            // Before it asks anew, so that the next one has the role. Not by the epoch alone: while
            // this node was stopped its client may have gone on in it at another one.
            let op = Op::Leave { role, client: one.client.key };
            self.wanted.push((op.clone(), Wanted::Farewell(number)));
            self.say_farewell(now, number, op, terms, None);
        }
        self.stand_again(now, handle, Ended::Lost, out);
    }

    /// Stands as a new client, or ends if it did not want to stand.
    fn stand_again(&mut self, at: Instant, handle: u64, end: Ended, out: &mut Effects<Self>) {
        let Some(gone) = self.forget(handle) else { return };
        if !gone.stands {
            return out.here(Word::Tell(handle, Event::Ended(end)));
        }
        let client = self.client(handle, gone.client.name);
        let phase = Phase::Outside(at);
        let again = Candidate { client, phase, id: None, meanwhile: None, ..gone };
        self.candidates.insert(handle, again);
        self.wake = self.wake.min(at);
    }
}

impl Machine for Service {
    type Message = ServiceMessage;
    type Envelope = Word;
    type Record = ();
    type Snapshot = ();

    fn start(&mut self, _now: Now, _survived: &Survived<(), ()>, _out: &mut Effects<Self>) {}

    fn message(
        &mut self,
        now: Now,
        _from: &NodeId,
        message: ServiceMessage,
        out: &mut Effects<Self>,
    ) {
        let now = now.at;
        match message {
            ServiceMessage::Volunteer(new) => self.volunteer(now, new, out),
            ServiceMessage::Asked { handle, at_once } => {
                if let Some(one) = self.candidates.get_mut(&handle) {
                    one.asked = Some(now);
                    one.urgent |= at_once;
                    let due = one.due().unwrap_or(FAR).max(now);
                    self.wake = self.wake.min(due);
                }
            }
            ServiceMessage::Pulsed(pulse) => {
                self.pulses.insert(pulse, now);
                if self.starving {
                    self.wake = now;
                }
            }
            ServiceMessage::PulseEnded(pulse) => drop(self.pulses.remove(&pulse)),
            ServiceMessage::OnItsOwn(handle) => {
                if let Some(one) = self.candidates.get_mut(&handle) {
                    (one.pulse, one.stands, one.asked) = (None, false, None);
                }
            }
            ServiceMessage::Forget(handle) => drop(self.forget(handle)),
            ServiceMessage::Leave(handle) => self.leave(now, handle),
            ServiceMessage::Answer { flight, said } => self.answer(now, flight, said, out),
            ServiceMessage::Changed(changes) => self.changed(now, changes, out),
        }
    }

    fn flush(&mut self, now: Now, out: &mut Effects<Self>) {
        if self.wake <= now.at {
            self.look(now.at, out);
        }
    }

    fn timeout(&mut self, now: Now, out: &mut Effects<Self>) {
        self.flush(now, out);
    }

    fn deadline(&self) -> Option<Instant> {
        (self.wake < FAR).then_some(self.wake)
    }
}

/// Until when a holder may act by what was sent at that time (I1).
fn deadline(sent: Instant, terms: Terms) -> Instant {
    sent + acts_for(terms.lease())
}

/// Never.
const FAR: Instant = Instant::from_nanos(u64::MAX);

/// Clients of one node's service: as many as there are roles.
pub const CLIENTS_MAX: usize = 100_000;

#[cfg(test)]
mod tests;
